//! Writes the messages that stand as not copied to files, so that a person can go on with them. Only the source is read.

mod files;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use self::files::{ExportFolder, ExportIndex, ExportIndexEntry};
use super::{
    outcome::EXIT_NOT_COPIED,
    report_text::{Meaning, ReportDetail, ReportText, TextLayout, error_of_mailbox},
};
use crate::{
    error::{Error, ErrorClass, ErrorRemedy, Result},
    imap::{Endpoint, UidSet},
    sync::{
        checkpoint::{Checkpoint, FolderState},
        progress::{EnginePhase, SyncProgress},
        source_reader::{FolderPresence, ListedMessage, ReadOutcome, SourceReader},
        spec::{RetryPolicy, SyncSpec},
        uid::SourceUid,
    },
    terminal_text::{format_bytes, format_count, format_duration, printable},
};

/// A message on which the connection ended is given up after so many times.
const MAX_FAILURES: u32 = 3;
/// So many messages are listed for a mailbox; the index has all.
const MAX_LISTED: usize = 50;

/// What an export of one mailbox did.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportReport {
    /// The mailbox's name in the migration.
    pub mailbox: String,
    /// The folder that its messages and its index are in; none where there was nothing to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Messages that stand as not copied.
    pub messages: u64,
    /// Messages that are in files now.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that the source does not hold any more.
    pub gone: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// Which those are and why, at most `MAX_LISTED`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What kept the export from its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Error>,
}

impl ExportReport {
    /// A mailbox of which nothing could be read.
    #[must_use]
    pub(crate) fn failed(mailbox: String, error: Error) -> Self {
        Self { mailbox, errors: vec![error], ..Self::default() }
    }

    fn gravest(&self) -> Option<&Error> {
        Error::gravest(&self.errors)
    }
}

/// The code of the gravest error's class; else 3 when messages could not be read; else 0.
#[must_use]
pub(crate) fn exit_code(reports: &[ExportReport]) -> u8 {
    match Error::gravest(reports.iter().filter_map(ExportReport::gravest)) {
        Some(error) => error.class.exit_code(),
        None if reports.iter().any(|report| report.unreadable > 0) => EXIT_NOT_COPIED,
        None => 0,
    }
}

/// Writes what stands as not copied in this checkpoint below `dir`. Never fails as such: what went wrong is in the report.
pub(crate) async fn export_mailbox(
    spec: &SyncSpec,
    checkpoint: &Checkpoint,
    dir: &Path,
    progress: &Arc<SyncProgress>,
) -> ExportReport {
    let messages = checkpoint.folders.values().map(|state| state.set_aside.uids().len()).sum();
    let mut report = ExportReport { mailbox: spec.mailbox.clone(), messages, ..ExportReport::default() };
    SyncProgress::add(&progress.messages_total, messages);
    if messages > 0
        && let Err(error) = write_all(spec, checkpoint, dir, progress, &mut report).await
    {
        report.errors.push(error);
    }
    for error in &mut report.errors {
        error.mailbox.get_or_insert_with(|| spec.mailbox.clone());
    }
    progress.enter_phase(if report.errors.is_empty() { EnginePhase::Done } else { EnginePhase::Failed });
    report
}

async fn write_all(
    spec: &SyncSpec,
    checkpoint: &Checkpoint,
    dir: &Path,
    progress: &Arc<SyncProgress>,
    report: &mut ExportReport,
) -> Result<()> {
    let files = ExportFolder::open(dir, &spec.mailbox).await?;
    report.folder = Some(files.root().to_owned());
    let index = files.begin_index().await?;
    let endpoint = Arc::new(spec.source.clone());
    let source = SourceConnection {
        endpoint,
        retry: spec.retry,
        progress: Arc::clone(progress),
        reader: None,
        failures: 0,
        broken: 0,
    };
    let mut export = MailboxExport { spec, files, index, source, report };
    let ended = export.folders(checkpoint).await;
    if let Some(reader) = export.source.reader.take() {
        reader.logout().await;
    }
    // The index also lists what was written before an error.
    export.index.finish().await?;
    ended
}

/// The source, connected anew as often as it makes sense.
struct SourceConnection {
    endpoint: Arc<Endpoint>,
    retry: RetryPolicy,
    progress: Arc<SyncProgress>,
    reader: Option<SourceReader>,
    /// Connections in a row without a message.
    failures: u32,
    /// Messages in a row on which connections ended.
    broken: u32,
}

impl SourceConnection {
    /// The connection, made where there is none.
    async fn reader(&mut self) -> Result<&mut SourceReader> {
        let reader = if let Some(reader) = self.reader.take() {
            reader
        } else {
            self.progress.enter_phase(EnginePhase::Connecting);
            let reader = SourceReader::connect(&self.endpoint, &self.progress.bytes_moved).await?;
            self.progress.enter_phase(EnginePhase::Copying);
            reader
        };
        Ok(self.reader.insert(reader))
    }

    /// Waits before a new connection, or gives the error back where that makes no sense.
    async fn wait_to_reconnect(&mut self, error: Error) -> Result<()> {
        if error.class.remedy() != ErrorRemedy::RetryWithBackoff || self.failures >= self.retry.attempts {
            return Err(error);
        }
        let doubled = self.retry.initial_backoff.saturating_mul(1 << self.failures.min(20));
        self.failures += 1;
        let pause = doubled.min(self.retry.max_backoff).max(error.stated_wait.unwrap_or_default());
        if pause > self.retry.patience.max(self.retry.max_backoff) {
            return Err(error);
        }
        let _waiting = self.progress.begin_wait(error.to_string(), pause);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// One folder's messages that are still to be read.
struct FolderExport<'a> {
    raw_name: &'a [u8],
    state: &'a FolderState,
    name: String,
    /// The messages that are still to be read.
    remaining: UidSet<SourceUid>,
    /// The message that is being read.
    current: Option<ListedUid>,
    /// How many connections ended on a message, by UID.
    failures: BTreeMap<SourceUid, u32>,
}

/// A message that the source lists.
#[derive(Debug, Clone)]
struct ListedUid {
    uid: SourceUid,
    listed: ListedMessage,
}

/// What came of one message.
enum MessageExport<'a> {
    /// It is in this file, below the mailbox's folder.
    Written(String),
    /// Why it could not be read.
    Unreadable(&'a str),
}

struct MailboxExport<'a> {
    spec: &'a SyncSpec,
    files: ExportFolder,
    index: ExportIndex,
    source: SourceConnection,
    report: &'a mut ExportReport,
}

impl MailboxExport<'_> {
    async fn folders(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        for (raw_name, state) in checkpoint.folders.iter().filter(|(_, state)| !state.set_aside.is_empty()) {
            let mut folder = FolderExport {
                raw_name,
                state,
                name: String::new(),
                remaining: state.set_aside.uids(),
                current: None,
                failures: BTreeMap::new(),
            };
            self.folder(&mut folder).await?;
        }
        Ok(())
    }

    /// Exports one folder to its end. What fails in this folder alone is in the report; an error is of the whole mailbox.
    async fn folder(&mut self, folder: &mut FolderExport<'_>) -> Result<()> {
        loop {
            let Err(error) = self.pass(folder).await else { return Ok(()) };
            let connected = self.source.reader.take().is_some();
            if connected
                && matches!(error.class, ErrorClass::Network | ErrorClass::Protocol)
                && let Some(message) = folder.current.take()
            {
                // Perhaps it is the message that ends connections: the others need not suffer from it.
                let failures = folder.failures.entry(message.uid).or_default();
                *failures += 1;
                if *failures >= MAX_FAILURES {
                    self.record_unreadable(folder, &message, &error.what).await?;
                    self.source.broken += 1;
                }
                if self.source.broken > self.source.retry.attempts {
                    return Err(error); // it is not the messages
                }
                tokio::time::sleep(self.source.retry.initial_backoff).await;
                continue;
            }
            if let Err(error) = self.source.wait_to_reconnect(error).await {
                if connected && matches!(error.class, ErrorClass::Authorization | ErrorClass::Protocol) {
                    self.report.errors.push(error.in_folder(&folder.name));
                    return Ok(());
                }
                return Err(error);
            }
        }
    }

    /// One connection's way through the folder.
    async fn pass(&mut self, folder: &mut FolderExport<'_>) -> Result<()> {
        folder.current = None;
        let reader = self.source.reader().await?;
        folder.name = reader.name(folder.raw_name);
        let listed =
            match reader.open_folder(folder.raw_name, folder.state.source_uid_validity, &folder.remaining).await? {
                FolderPresence::Same(listed) => listed,
                FolderPresence::Gone => BTreeMap::new(),
                FolderPresence::Replaced(now) => {
                    let problem =
                        format!("the folder was made anew (UIDVALIDITY {now}): its messages have other UIDs now");
                    for uid in folder.remaining.clone().iter() {
                        let message = ListedUid { uid, listed: ListedMessage::default() };
                        self.record_unreadable(folder, &message, &problem).await?;
                    }
                    return Ok(());
                }
            };
        let gone: UidSet<SourceUid> = folder.remaining.iter().filter(|uid| !listed.contains_key(uid)).collect();
        folder.remaining = folder.remaining.difference(&gone);
        self.report.gone += gone.len();
        SyncProgress::add(&self.source.progress.messages_done, gone.len());
        for (uid, listed) in listed {
            let message = ListedUid { uid, listed };
            folder.current = Some(message.clone());
            self.message(folder, &message).await?;
            (self.source.failures, self.source.broken) = (0, 0);
        }
        folder.current = None;
        Ok(())
    }

    async fn message(&mut self, folder: &mut FolderExport<'_>, message: &ListedUid) -> Result<()> {
        let uid = message.uid;
        let mut draft = self.files.begin_message(&folder.name, folder.state.source_uid_validity, uid.0).await?;
        let reader = self.source.reader().await?;
        match reader.read_message(uid, message.listed.size, &mut draft.file).await {
            Ok(ReadOutcome::Whole(size)) => {
                let path = draft.commit().await?;
                let path = path.strip_prefix(self.files.root()).unwrap_or(&path).display().to_string();
                self.report.written += 1;
                self.report.bytes += size;
                SyncProgress::add(&self.source.progress.bytes_done, size);
                let listed = ListedMessage { size, date: message.listed.date.clone() };
                self.write_index_entry(folder, &ListedUid { uid, listed }, MessageExport::Written(path)).await
            }
            Ok(ReadOutcome::Gone) => {
                draft.discard().await;
                self.report.gone += 1;
                self.mark_done(folder, uid);
                Ok(())
            }
            Ok(ReadOutcome::Unreadable(problem)) => {
                draft.discard().await;
                self.record_unreadable(folder, message, &problem).await
            }
            Err(error) => {
                draft.discard().await;
                Err(error)
            }
        }
    }

    /// A message that cannot be read.
    async fn record_unreadable(
        &mut self,
        folder: &mut FolderExport<'_>,
        message: &ListedUid,
        problem: &str,
    ) -> Result<()> {
        let uid = message.uid;
        self.report.unreadable += 1;
        if self.report.problems.len() < MAX_LISTED {
            let validity = folder.state.source_uid_validity;
            self.report.problems.push(format!("{} (UIDVALIDITY {validity}): UID {uid}: {problem}", folder.name));
        }
        self.write_index_entry(folder, message, MessageExport::Unreadable(problem)).await
    }

    async fn write_index_entry(
        &mut self,
        folder: &mut FolderExport<'_>,
        message: &ListedUid,
        export: MessageExport<'_>,
    ) -> Result<()> {
        let ListedUid { uid, ref listed } = *message;
        self.mark_done(folder, uid);
        let Some(group) = folder.state.set_aside.group_of(uid) else { return Ok(()) };
        let uid_validity = folder.state.source_uid_validity;
        let (file, problem) = match export {
            MessageExport::Written(file) => (Some(file), None),
            MessageExport::Unreadable(problem) => (None, Some(problem)),
        };
        let entry = ExportIndexEntry {
            mailbox: &self.spec.mailbox,
            folder: &folder.name,
            uid_validity,
            uid: uid.0,
            size: Some(listed.size).filter(|size| *size > 0 || file.is_some()),
            date: listed.date.as_deref(),
            reason: group.reason.name(),
            why: &group.why,
            accepted: self.spec.accepted_losses.accepts(group.reason, &folder.name, uid_validity, uid),
            file,
            problem,
        };
        self.index.add(&entry).await
    }

    fn mark_done(&self, folder: &mut FolderExport<'_>, uid: SourceUid) {
        folder.remaining.remove_range(uid, uid);
        SyncProgress::add(&self.source.progress.messages_done, 1);
    }
}

/// One line: what was written where, and what was not.
#[must_use]
pub(crate) fn line(report: &ExportReport) -> String {
    let ExportReport { messages, written, gone, unreadable, .. } = report;
    let mut said = match (&report.folder, messages) {
        (Some(folder), _) => {
            let (messages, size) = (format_count(*written, "message"), format_bytes(report.bytes));
            format!("{messages} ({size}) written to {}", folder.display())
        }
        (None, 0) if report.errors.is_empty() => "nothing stands as not copied".to_owned(),
        (None, _) => "nothing written".to_owned(),
    };
    for (number, what) in [(*unreadable, "could not be read"), (*gone, "gone from the source")] {
        if number > 0 {
            let _ = write!(said, ", {number} {what}"); // a String takes every write
        }
    }
    if let Some(error) = report.gravest() {
        said = format!("failed: {said}: {}", error_of_mailbox(error));
    }
    format!("{}: {}", printable(&report.mailbox), printable(&said))
}

/// Each mailbox with what could not be read, then the sums as the last line.
#[must_use]
pub(crate) fn text(reports: &[ExportReport], took: Duration, layout: TextLayout) -> String {
    let mut text = ReportText::new(layout);
    if layout.detail != ReportDetail::LastLine {
        for report in reports {
            write_block(&mut text, report);
        }
    }
    let bad = exit_code(reports) != 0;
    text.head(&summary(reports, took), if bad { Meaning::Bad } else { Meaning::Good });
    text.into_string()
}

fn write_block(text: &mut ReportText, report: &ExportReport) {
    text.head(&line(report), if report.errors.is_empty() { Meaning::Plain } else { Meaning::Bad });
    for problem in &report.problems {
        text.entry(problem);
    }
    let listed = u64::try_from(report.problems.len()).unwrap_or(u64::MAX);
    if report.unreadable > listed {
        text.entry(&format!("and {} more: the index has all", report.unreadable - listed));
    }
}

fn summary(reports: &[ExportReport], took: Duration) -> String {
    let sum = |of: fn(&ExportReport) -> u64| reports.iter().map(of).sum::<u64>();
    let mailboxes = format_count(u64::try_from(reports.len()).unwrap_or(u64::MAX), "mailbox");
    let (written, size, unreadable) = (sum(|r| r.written), sum(|r| r.bytes), sum(|r| r.unreadable));
    let failed = reports.iter().filter(|report| !report.errors.is_empty()).count();
    let mut text = format!("{mailboxes}: {} ({}) written", format_count(written, "message"), format_bytes(size));
    if unreadable > 0 {
        let _ = write!(text, ", {unreadable} could not be read"); // a String takes every write
    }
    if failed > 0 {
        let _ = write!(text, ", {} failed", format_count(failed as u64, "mailbox"));
    }
    let _ = write!(text, " in {}.", format_duration(took));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(mailbox: &str) -> ExportReport {
        ExportReport {
            mailbox: mailbox.into(),
            folder: Some(PathBuf::from("out").join(mailbox)),
            messages: 4,
            written: 3,
            bytes: 45_000_000,
            ..ExportReport::default()
        }
    }

    #[test]
    fn the_gravest_error_decides_and_then_what_could_not_be_read() {
        let whole = report("a");
        let lacking = ExportReport { unreadable: 1, ..report("b") };
        let failed = |class| ExportReport::failed("c".into(), Error::new(class, "no"));
        assert_eq!(exit_code(std::slice::from_ref(&whole)), 0);
        assert_eq!(exit_code(&[whole, lacking.clone()]), EXIT_NOT_COPIED);
        let reports = [lacking, failed(ErrorClass::Network), failed(ErrorClass::Authentication)];
        assert_eq!(exit_code(&reports), ErrorClass::Authentication.exit_code());
    }

    #[test]
    fn people_are_told_what_is_where_and_what_is_missing() {
        let problem = "Sent (UIDVALIDITY 7): UID 9: the source lists it and does not deliver it".to_owned();
        let reports = [
            ExportReport { unreadable: 1, problems: vec![problem], ..report("alice") },
            ExportReport { mailbox: "bob".into(), ..ExportReport::default() },
            ExportReport::failed("carol".into(), Error::network("connection lost").in_mailbox("carol")),
        ];
        insta::assert_snapshot!(text(&reports, Duration::from_secs(2), TextLayout::default()), @r#"
        alice: 3 messages (45.00 MB) written to out/alice, 1 could not be read
          Sent (UIDVALIDITY 7): UID 9: the source lists it and does not deliver it
        bob: nothing stands as not copied
        carol: failed: nothing written: Network: connection lost
        3 mailboxes: 3 messages (45.00 MB) written, 1 could not be read, 1 mailbox failed in 2.0s.
        "#);
    }
}
