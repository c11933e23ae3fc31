//! The final report for people: what happened to each mailbox and folder, and what to do about it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::report_text::{ReportText, error_of_mailbox, nonzero_counts};
use crate::{
    error::{Error, ErrorClass},
    sync::{
        report::{FolderReport, LEFT_OUT, LeftOut, MailboxReport, MessageNote},
        set_aside::SetAsideReason,
    },
    terminal_text::{folder_names, format_bytes, format_count, format_duration, printable},
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
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

/// One line: how the mailbox ended, and why if it failed.
#[must_use]
pub(crate) fn line(report: &MailboxReport) -> String {
    let head = head(report);
    match mailbox_ending(report) {
        MailboxEnding::Failed(class) => {
            let error = errors(report).find(|e| e.class == class).map(error_of_mailbox);
            format!("{head}: {}", printable(&error.unwrap_or_default()))
        }
        MailboxEnding::Done | MailboxEnding::Interrupted => format!("{head}: {}", sentence(report)),
    }
}

fn head(report: &MailboxReport) -> String {
    let (ended, preposition) = match mailbox_ending(report) {
        MailboxEnding::Done => ("done", "in"),
        MailboxEnding::Interrupted => ("interrupted", "after"),
        MailboxEnding::Failed(_) => ("failed", "after"),
    };
    let dry = if report.dry_run { " (dry run)" } else { "" };
    let took = match report.duration_ms {
        0 => String::new(), // it never started
        ms => format!(" {preposition} {}", format_duration(Duration::from_millis(ms))),
    };
    let lacks = match (not_copied_count(report), report.dry_run) {
        (0, _) => String::new(),
        (number, false) => format!(", {number} not copied,"),
        (number, true) => format!(", {number} would not be copied,"),
    };
    let lacks = if took.is_empty() { lacks.trim_end_matches(',') } else { &lacks };
    format!("{}: {ended}{dry}{lacks}{took}", printable(&report.mailbox))
}

fn sentence(report: &MailboxReport) -> String {
    RunTotals::from_reports([report]).sentence(report.dry_run)
}

/// The whole report of one mailbox: a table of its folders, then everything that is not plain success.
#[must_use]
pub(crate) fn mailbox(report: &MailboxReport) -> String {
    let mut text = ReportText::with_head(&format!("{}: {}", head(report), sentence(report)));
    if report.dry_run {
        text.entry("Dry run: nothing was changed; the numbers say what a run would do.");
    }
    if !report.folders.is_empty() {
        text.table(&folders(report));
    }
    let of_folders = |lines: &dyn Fn(&FolderReport) -> Vec<String>| -> Vec<String> {
        report.folders.iter().flat_map(lines).collect()
    };
    text.section("Look at this", &report.warnings);
    text.section("Not copied", lacking(report));
    text.section("Copied with a difference", of_folders(&|f| notes(&f.source, &f.differences, &f.difference_messages)));
    text.section("Messages left out by a rule", of_folders(&|f| notes(&f.source, &f.left_out, &[])));
    text.section("Folders left out", report.left_out.iter().map(folder_left_out));
    text.section("In doubt, so left as it was", of_folders(&|f| prefixed(&f.source, &f.doubts)));
    text.section("Notes", &report.notes);
    text.section("Errors", errors(report).map(error_of_mailbox));
    if report.interrupted {
        text.entry("Interrupted: run the same command again to go on from here.");
    }
    text.into_string()
}

/// How the whole run ended: counts, sums, and the failures again, since the reports may fill many screens.
#[must_use]
pub(crate) fn summary(reports: &[MailboxReport], took: Duration) -> String {
    let number = |wanted: fn(MailboxEnding) -> bool| reports.iter().filter(|r| wanted(mailbox_ending(r))).count();
    let mut parts = nonzero_counts(&[
        (number(|e| e == MailboxEnding::Done), "done"),
        (number(|e| matches!(e, MailboxEnding::Failed(_))), "failed"),
        (number(|e| e == MailboxEnding::Interrupted), "interrupted"),
    ]);
    let mailboxes = format_count(u64::try_from(reports.len()).unwrap_or(u64::MAX), "mailbox");
    let (totals, dry_run) = (RunTotals::from_reports(reports), reports.iter().any(|r| r.dry_run));
    if totals.not_copied > 0 {
        let verb = if dry_run { "that would not be copied" } else { "not copied" };
        parts.push(format!("{} {verb}", format_count(totals.not_copied, "message")));
    }
    let (parts, sentence) = (parts.join(", "), totals.sentence(dry_run));
    let mut text = ReportText::with_head(&format!("{mailboxes}: {parts}. {sentence} in {}.", format_duration(took)));
    let lacks = |r: &&MailboxReport| matches!(mailbox_ending(r), MailboxEnding::Failed(_)) || not_copied_count(r) > 0;
    for report in reports.iter().filter(lacks) {
        text.entry(&line(report));
    }
    let what_next = if totals.not_copied > 0 && !dry_run { WHAT_NEXT } else { "" };
    text.into_string() + what_next
}

/// What a person can do about messages that were not copied.
const WHAT_NEXT: &str = "The reports name what was not copied. `mailferry export --not-copied DIR` writes these messages \
    to files;\n`messages.acceptNotCopied` in the migration accepts them. Until then a run ends with exit code 3.\n";

/// What was not copied: all by reason, then folder by folder what a person needs to find each message again.
fn lacking(report: &MailboxReport) -> Vec<String> {
    let Some(not_copied) = report.not_copied.as_ref() else { return Vec::new() };
    let mut lines = Vec::new();
    if not_copied.messages > 0 {
        lines.push(format!("{}: {}", format_count(not_copied.messages, "message"), by_reason(&not_copied.reasons)));
    }
    if !not_copied.accepted.is_empty() {
        lines.push(format!("accepted (messages.acceptNotCopied): {}", by_reason(&not_copied.accepted)));
    }
    for folder in report.folders.iter().filter(|folder| !folder.skipped.is_empty()) {
        let (name, validity) = (&folder.source, folder.source_uid_validity);
        let accepted = match by_reason(&folder.accepted) {
            none if none.is_empty() => none,
            some => format!("; of these accepted: {some}"),
        };
        lines.push(format!("{name} (UIDVALIDITY {validity}): {}{accepted}", by_reason(&folder.skipped)));
        lines.extend(folder.skipped_messages.iter().map(|note| format!("{name}: {}", message(note))));
        lines.extend(unlisted(name, &folder.skipped, &folder.skipped_messages));
    }
    lines
}

/// `UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: what the server said`, as far as it is known.
fn message(note: &MessageNote) -> String {
    let size = note.size.map(|size| format!(", {}", format_bytes(size))).unwrap_or_default();
    let date = note.date.as_ref().map(|date| format!(", {date}")).unwrap_or_default();
    format!("UID {}{size}{date}: {}", note.uid, note.what)
}

/// `2 too large, 1 refused`.
fn by_reason(reasons: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n} {}", in_words(reason))).collect();
    parts.join(", ")
}

fn in_words(reason: &str) -> &str {
    match SetAsideReason::from_name(reason) {
        Some(SetAsideReason::TooLarge) => "too large",
        Some(SetAsideReason::Unlisted) => "counted by the source and listed nowhere",
        Some(SetAsideReason::Missing) => "taken by the destination and not shown by it",
        None if reason == LEFT_OUT => "in folders that Mailferry leaves out by itself",
        _ => reason,
    }
}

/// Which folder is left out and why, and how many messages are not copied because Mailferry leaves it out by itself.
#[must_use]
pub(crate) fn folder_left_out(left_out: &LeftOut) -> String {
    let LeftOut { folder, reason, by_rule, messages, .. } = left_out;
    match messages.filter(|messages| *messages > 0 && !by_rule) {
        Some(messages) => format!("{folder} ({}): {reason}", format_count(messages, "message")),
        None => format!("{folder}: {reason}"),
    }
}

fn folders(report: &MailboxReport) -> Vec<Vec<String>> {
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    // A column of its own only where somebody accepts something.
    let some_accepted = report.folders.iter().any(|folder| !folder.accepted.is_empty());
    let accepted_head = some_accepted.then_some("accepted");
    let head = ["folder", "source", "before", "now", "adopted", "not copied"].into_iter().chain(accepted_head);
    let head = head.chain(["left out", "flags", "deleted", "state"]);
    let mut rows = vec![head.map(str::to_owned).collect()];
    rows.extend(report.folders.iter().map(|folder| {
        let accepted = sum(&folder.accepted);
        let lacking = sum(&folder.skipped).saturating_sub(accepted);
        let numbers = [folder.source_messages, folder.copied_before, folder.copied_now, folder.adopted, lacking];
        let numbers = numbers.into_iter().chain(some_accepted.then_some(accepted));
        let numbers = numbers.chain([sum(&folder.left_out), folder.flags_updated, folder.deleted]);
        let mut row = vec![folder_names(&folder.source, &folder.destination)];
        row.extend(numbers.map(|n| n.to_string()));
        row.push(state(folder, report));
        row
    }));
    rows
}

fn state(folder: &FolderReport, report: &MailboxReport) -> String {
    let settled = folder.copied_before
        + folder.copied_now
        + folder.adopted
        + folder.skipped.values().sum::<u64>()
        + folder.left_out.values().sum::<u64>();
    match &folder.error {
        Some(error) => format!("failed: {}", error.class),
        None if folder.unchanged => "unchanged".to_owned(),
        None if settled < folder.source_messages && mailbox_ending(report) != MailboxEnding::Done => {
            "unfinished".to_owned()
        }
        None => "done".to_owned(),
    }
}

/// Each reason with its count, then the single messages that are known.
fn notes(folder: &str, counts: &BTreeMap<String, u64>, messages: &[MessageNote]) -> Vec<String> {
    let mut lines: Vec<String> = counts.iter().map(|(reason, n)| format!("{folder}: {n} {reason}")).collect();
    lines.extend(messages.iter().map(|note| format!("{folder}: {}", message(note))));
    lines.extend(unlisted(folder, counts, messages));
    lines
}

/// How many messages are counted and not listed.
fn unlisted(folder: &str, counts: &BTreeMap<String, u64>, messages: &[MessageNote]) -> Option<String> {
    let unlisted = counts.values().sum::<u64>().saturating_sub(u64::try_from(messages.len()).unwrap_or(u64::MAX));
    (unlisted > 0 && !messages.is_empty()).then(|| format!("{folder}: and {unlisted} more"))
}

fn prefixed(folder: &str, texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("{folder}: {text}")).collect()
}

#[cfg(test)]
mod tests;
