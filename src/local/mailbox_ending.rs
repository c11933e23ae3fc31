//! How a mailbox ended, and the sums over what was done in its folders.

use std::fmt::Write as _;

use crate::{
    error::{Error, ErrorClass},
    sync::report::MailboxReport,
    terminal_text::{format_bytes, format_count},
};

/// How a mailbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailboxEnding {
    /// All is dealt with; [`not_copied_count`] says what was not copied.
    Done,
    /// Asked to stop; the next run goes on.
    Interrupted,
    /// Something, or all, failed; the class of the gravest error.
    Failed(ErrorClass),
}

/// How the mailbox of this report ended.
#[must_use]
pub(crate) fn mailbox_ending(report: &MailboxReport) -> MailboxEnding {
    match ErrorClass::gravest(errors(report).map(|e| e.class)) {
        Some(class) => MailboxEnding::Failed(class),
        None if report.interrupted => MailboxEnding::Interrupted,
        None => MailboxEnding::Done,
    }
}

/// Messages that were not copied and that nobody accepts; none where nobody looked.
#[must_use]
pub(crate) fn not_copied_count(report: &MailboxReport) -> u64 {
    report.not_copied.as_ref().map_or(0, |not_copied| not_copied.messages)
}

/// The mailbox's own error and those of its folders.
pub(crate) fn errors(report: &MailboxReport) -> impl Iterator<Item = &Error> {
    report.error.iter().chain(report.folders.iter().filter_map(|folder| folder.error.as_ref()))
}

/// Sums over folders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunTotals {
    /// Messages copied by this run.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages found at the destination and taken as the copy.
    pub adopted: u64,
    /// Messages that were set aside and so not copied, accepted ones too.
    pub skipped: u64,
    /// Messages that were not copied, in folders that Mailferry leaves out by itself too; without accepted ones.
    pub not_copied: u64,
    /// Messages that were not copied and whose absence the user accepts.
    pub accepted: u64,
    /// Messages whose flags were changed.
    pub flags_updated: u64,
    /// Copies removed.
    pub deleted: u64,
}

impl RunTotals {
    /// The sums over one mailbox or many.
    #[must_use]
    pub(crate) fn from_reports<'a>(reports: impl IntoIterator<Item = &'a MailboxReport>) -> Self {
        let mut sum = Self::default();
        for report in reports {
            for folder in &report.folders {
                sum.copied += folder.copied_now;
                sum.bytes += folder.bytes_now;
                sum.adopted += folder.adopted;
                sum.skipped += folder.skipped.values().sum::<u64>();
                sum.flags_updated += folder.flags_updated;
                sum.deleted += folder.deleted;
            }
            sum.not_copied += not_copied_count(report);
            sum.accepted += report.not_copied.iter().flat_map(|n| n.accepted.values()).sum::<u64>();
        }
        sum
    }

    /// `1000 messages (37.00 MB) copied, 3 adopted`; `to copy` after a dry run. What was not copied stands before it.
    #[must_use]
    pub(crate) fn sentence(&self, dry_run: bool) -> String {
        let copied = if dry_run { "to copy" } else { "copied" };
        let mut sentence = format!("{} ({}) {copied}", format_count(self.copied, "message"), format_bytes(self.bytes));
        for (number, what) in [
            (self.adopted, "adopted"),
            (self.accepted, "not copied as accepted"),
            (self.flags_updated, "with changed flags"),
            (self.deleted, "deleted"),
        ] {
            if number > 0 {
                let _ = write!(sentence, ", {number} {what}"); // a String takes every write
            }
        }
        sentence
    }
}
