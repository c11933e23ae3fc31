//! Which mailboxes did not end well when they were run last: a small file in the state folder, for `--failed-only`.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    mailbox_ending::{MailboxEnding, mailbox_ending},
    state_folder::write_atomically,
};
use crate::{
    error::{Error, Result},
    sync::{report::MailboxReport, spec::SyncSpec},
};

/// The file's name.
const FILE: &str = "last-run.json";

/// What the last runs left to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRun {
    /// Mailboxes that failed or were interrupted, and have not ended well since, by name.
    unfinished: BTreeSet<String>,
}

/// Where that is kept.
#[derive(Debug, Clone)]
pub(crate) struct LastRunFile(PathBuf);

impl LastRunFile {
    /// The file in this state folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self(folder.join(FILE))
    }

    /// What the last run left; none where there was no run.
    ///
    /// # Errors
    /// Internal when the file can't be read.
    pub(crate) fn read(&self) -> Result<Option<LastRun>> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Error::internal(format!("{} can't be read: {why}", self.0.display())).advice("Run without --failed-only")
        };
        match std::fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Notes how these mailboxes ended. The others stay as they were.
    ///
    /// # Errors
    /// Internal when the file can't be written.
    pub(crate) fn record(&self, reports: &[MailboxReport]) -> Result<()> {
        let mut last = self.read().ok().flatten().unwrap_or_default();
        last.record(reports);
        let text = serde_json::to_vec(&last).unwrap_or_default();
        write_atomically(&self.0, &text)
            .map_err(|error| Error::internal(format!("{} can't be written: {error}", self.0.display())))
    }
}

impl LastRun {
    fn record(&mut self, reports: &[MailboxReport]) {
        for report in reports {
            if mailbox_ending(report) == MailboxEnding::Done {
                self.unfinished.remove(&report.mailbox);
            } else {
                self.unfinished.insert(report.mailbox.clone());
            }
        }
    }

    /// Of these mailboxes, those that did not end well; one that is wrong and has no name stays in.
    pub(crate) fn select(&self, mailboxes: Vec<Result<SyncSpec>>) -> Vec<Result<SyncSpec>> {
        let wanted = |mailbox: &Result<SyncSpec>| match mailbox {
            Ok(spec) => self.unfinished.contains(&spec.mailbox),
            Err(error) => error.mailbox.as_ref().is_none_or(|name| self.unfinished.contains(name)),
        };
        mailboxes.into_iter().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::testing::spec;

    fn report(mailbox: &str, error: Option<Error>, interrupted: bool) -> MailboxReport {
        MailboxReport { mailbox: mailbox.to_owned(), error, interrupted, ..MailboxReport::default() }
    }

    #[test]
    fn what_failed_or_was_interrupted_is_known_until_it_ends_well() {
        let folder = tempfile::tempdir().unwrap();
        let file = LastRunFile::in_folder(folder.path());
        assert_eq!(file.read().unwrap(), None);
        let gone = || Some(Error::network("gone"));
        file.record(&[report("a", gone(), false), report("b", None, false), report("c", None, true)]).unwrap();
        let names = |last: &LastRun| {
            let all = ["a", "b", "c", "d"].map(|name| Ok(spec(name))).to_vec();
            last.select(all).into_iter().map(|mailbox| mailbox.unwrap().mailbox).collect::<Vec<_>>()
        };
        assert_eq!(names(&file.read().unwrap().unwrap()), ["a", "c"]);
        file.record(&[report("a", None, false), report("d", gone(), false)]).unwrap();
        assert_eq!(names(&file.read().unwrap().unwrap()), ["c", "d"]);
    }

    #[test]
    fn a_file_that_is_damaged_is_told_when_it_is_asked_for_and_written_anew_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = LastRunFile::in_folder(folder.path());
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(file.read().unwrap_err().to_string().contains("--failed-only"));
        file.record(&[report("a", None, true)]).unwrap();
        assert!(file.read().unwrap().unwrap().unfinished.contains("a"));
    }
}
