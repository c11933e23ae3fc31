//! The final report for people: what is wrong and what to do about it, what happened to each mailbox and folder, the sum.

mod tables;

use std::{collections::BTreeMap, time::Duration};

use self::tables::{folder_table, mailbox_table, state};
use super::{
    mailbox_ending::{MailboxEnding, RunTotals, errors, mailbox_ending, not_copied_count},
    outcome::RunOutcome,
    problems::{Problems, grouped_remarks},
    report_text::{Meaning, ReportDetail, ReportText, TextLayout, error_of_mailbox, nonzero_counts},
};
use crate::{
    error::Error,
    sync::{
        report::{FolderReport, LEFT_OUT, LeftOut, MISSING, MailboxReport, MessageNote},
        set_aside::SetAsideReason,
    },
    terminal_text::{format_bytes, format_count, format_duration, printable},
};

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

/// One line of a mailbox that failed as none did before; none where `told` has all its errors already.
pub(crate) fn new_problem(report: &MailboxReport, told: &mut Problems) -> Option<String> {
    let new: Vec<&Error> = errors(report).filter(|error| told.add(&report.mailbox, error)).collect();
    Error::gravest(new).map(|error| format!("{}: {}", head(report), printable(&error_of_mailbox(error))))
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

/// The whole report of a run: problems first, then what a person should look at, what happened to each mailbox, and the sum
/// as the last line.
#[must_use]
pub(crate) fn report(outcome: &RunOutcome, layout: TextLayout) -> String {
    let reports = &outcome.reports;
    let mut text = ReportText::new(layout);
    if layout.detail != ReportDetail::LastLine {
        write_problems(&mut text, reports);
        if reports.iter().any(|report| report.dry_run) {
            text.head("Dry run: nothing was changed. The numbers say what a run would do.", Meaning::Plain);
            text.gap();
        }
        if layout.has_blocks(reports.len()) {
            for report in reports {
                write_block(&mut text, report, layout.detail);
            }
        } else {
            write_mailboxes(&mut text, reports);
        }
        text.write_legend();
        write_remarks(&mut text, reports);
        write_what_next(&mut text, reports);
    }
    text.head(&summary(reports, outcome.took), meaning(outcome));
    text.into_string()
}

/// How the whole run ended: counts and sums.
#[must_use]
fn summary(reports: &[MailboxReport], took: Duration) -> String {
    let number = |wanted: fn(MailboxEnding) -> bool| reports.iter().filter(|r| wanted(mailbox_ending(r))).count();
    let mut parts = nonzero_counts(&[
        (number(|e| e == MailboxEnding::Done), "done"),
        (number(|e| matches!(e, MailboxEnding::Failed(_))), "failed"),
        (number(|e| e == MailboxEnding::Interrupted), "interrupted"),
    ]);
    let (totals, dry_run) = (RunTotals::from_reports(reports), reports.iter().any(|r| r.dry_run));
    if totals.not_copied > 0 {
        let verb = if dry_run { "that would not be copied" } else { "not copied" };
        parts.push(format!("{} {verb}", format_count(totals.not_copied, "message")));
    }
    if reports.is_empty() {
        return "0 mailboxes: nothing to do.".to_owned();
    }
    let (mailboxes, parts, sentence) = (mailbox_count(reports), parts.join(", "), totals.sentence(dry_run));
    format!("{mailboxes}: {parts}. {sentence} in {}.", format_duration(took))
}

fn mailbox_count(reports: &[MailboxReport]) -> String {
    format_count(u64::try_from(reports.len()).unwrap_or(u64::MAX), "mailbox")
}

/// What the end of the run means.
fn meaning(outcome: &RunOutcome) -> Meaning {
    let failed = |report: &MailboxReport| matches!(mailbox_ending(report), MailboxEnding::Failed(_));
    match outcome.exit_code() {
        0 => Meaning::Good,
        _ if outcome.reports.iter().any(failed) => Meaning::Bad,
        _ => Meaning::Look,
    }
}

/// Each distinct problem and warning once.
fn write_problems(text: &mut ReportText, reports: &[MailboxReport]) {
    let mut problems = Problems::default();
    for report in reports {
        for error in errors(report) {
            problems.add(&report.mailbox, error);
        }
    }
    text.chapter(&format!("Problems ({})", problems.len()), Meaning::Bad, &problems.lines(reports.len()));
    let warnings = remarks(reports, |report| report.warnings.clone());
    text.chapter("Look at this", Meaning::Look, &warnings);
}

/// What is good to know, each once.
fn write_remarks(text: &mut ReportText, reports: &[MailboxReport]) {
    let left_out = remarks(reports, |report| report.left_out.iter().map(folder_left_out).collect());
    text.chapter("Folders left out", Meaning::Plain, &left_out);
    text.chapter("Notes", Meaning::Plain, &remarks(reports, |report| report.notes.clone()));
}

fn remarks(reports: &[MailboxReport], of: impl Fn(&MailboxReport) -> Vec<String>) -> Vec<String> {
    let of = &of;
    let named = reports.iter().flat_map(|report| {
        let name = report.mailbox.as_str();
        of(report).into_iter().map(move |text| (name, text))
    });
    grouped_remarks(named, reports.len())
}

fn write_what_next(text: &mut ReportText, reports: &[MailboxReport]) {
    let any = |of: fn(&MailboxReport) -> bool| reports.iter().any(of);
    if any(|report| not_copied_count(report) > 0 && !report.dry_run) {
        for line in WHAT_NEXT {
            text.head(line, Meaning::Plain);
        }
        text.gap();
    }
    if any(|report| report.interrupted) {
        text.head("Interrupted: run the same command again to go on from here.", Meaning::Look);
        text.gap();
    }
}

/// One mailbox: how it ended, a table of the folders where something happened (`detail`: of all), and what was not plain
/// success. Its errors and warnings are told for all mailboxes together.
fn write_block(text: &mut ReportText, report: &MailboxReport, detail: ReportDetail) {
    let said = match mailbox_ending(report) {
        MailboxEnding::Failed(_) | MailboxEnding::Interrupted if !moved_anything(report) => head(report),
        _ => format!("{}: {}", head(report), sentence(report)),
    };
    text.head(&said, ending_meaning(report));
    let shown = |folder: &&FolderReport| detail == ReportDetail::All || is_eventful(folder, report);
    let folders: Vec<&FolderReport> = in_reading_order(&report.folders).filter(shown).collect();
    let quiet = report.folders.len() - folders.len();
    if !folders.is_empty() {
        let (rows, legend) = folder_table(&folders, report);
        text.table(&rows, state_meaning);
        if quiet > 0 {
            text.entry(&format!("and {} with nothing new", format_count(quiet as u64, "folder")));
        }
        text.explain(legend);
    }
    let of_folders = |lines: &dyn Fn(&FolderReport) -> Vec<String>| -> Vec<String> {
        report.folders.iter().flat_map(lines).collect()
    };
    text.section("Not copied", lacking(report));
    text.section("In doubt, so left as it was", of_folders(&|f| prefixed(&f.source, &f.doubts)));
    text.section(
        "Copied with a difference",
        of_folders(&|f| notes(&f.source, &in_plain_words(&f.differences), &f.difference_messages)),
    );
    text.section("Messages left out by a rule", of_folders(&|f| notes(&f.source, &f.left_out, &[])));
    text.gap();
}

/// Many mailboxes: a table of those where something happened, then single messages of those that lack some.
fn write_mailboxes(text: &mut ReportText, reports: &[MailboxReport]) {
    let eventful: Vec<&MailboxReport> = reports.iter().filter(|report| moved_anything(report)).collect();
    if !eventful.is_empty() {
        let (rows, legend) = mailbox_table(&eventful);
        text.head("Mailboxes", Meaning::Plain);
        text.table(&rows, state_meaning);
        text.explain(legend);
    }
    let quiet = reports.iter().filter(|r| !moved_anything(r) && mailbox_ending(r) == MailboxEnding::Done).count();
    if quiet > 0 {
        text.entry(&format!("{}: nothing new", format_count(quiet as u64, "mailbox")));
    }
    if !eventful.is_empty() || quiet > 0 {
        text.entry("The folders of each: --verbose.");
        text.gap();
    }
    for report in reports {
        let doubts: Vec<String> = report.folders.iter().flat_map(|f| prefixed(&f.source, &f.doubts)).collect();
        let lacking = lacking(report);
        if !lacking.is_empty() || !doubts.is_empty() {
            text.head(&head(report), ending_meaning(report));
            text.section("Not copied", lacking);
            text.section("In doubt, so left as it was", doubts);
            text.gap();
        }
    }
}

/// INBOX first, the others as they come.
fn in_reading_order(folders: &[FolderReport]) -> impl Iterator<Item = &FolderReport> {
    let is_inbox = |folder: &&FolderReport| folder.source.eq_ignore_ascii_case("INBOX");
    folders.iter().filter(is_inbox).chain(folders.iter().filter(move |folder| !is_inbox(folder)))
}

fn is_eventful(folder: &FolderReport, report: &MailboxReport) -> bool {
    let done = folder.copied_now + folder.adopted + folder.flags_updated + folder.deleted;
    let lacks = folder.skipped.len() + folder.differences.len() + folder.doubts.len();
    done > 0 || lacks > 0 || !matches!(state(folder, report).as_str(), "done" | "unchanged")
}

fn moved_anything(report: &MailboxReport) -> bool {
    let totals = RunTotals::from_reports([report]);
    totals.copied + totals.adopted + totals.flags_updated + totals.deleted + totals.not_copied + totals.accepted > 0
}

fn ending_meaning(report: &MailboxReport) -> Meaning {
    match mailbox_ending(report) {
        MailboxEnding::Failed(_) => Meaning::Bad,
        MailboxEnding::Interrupted => Meaning::Look,
        MailboxEnding::Done if not_copied_count(report) > 0 => Meaning::Look,
        MailboxEnding::Done => Meaning::Good,
    }
}

fn state_meaning(row: &[String]) -> Meaning {
    match row.last().map(String::as_str) {
        Some(state) if state.starts_with("failed") => Meaning::Bad,
        Some("unfinished" | "interrupted") => Meaning::Look,
        _ => Meaning::Plain,
    }
}

/// What a person can do about messages that were not copied.
const WHAT_NEXT: [&str; 2] = [
    "`mailferry export --not-copied DIR` writes the messages that were not copied to files.",
    "`messages.acceptNotCopied` in the migration accepts them; until then a run ends with exit code 3.",
];

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
        None if reason == MISSING => "taken by the destination and not shown by it",
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

/// Differences by what a person calls them.
fn in_plain_words(differences: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let words = |kind: &str| {
        let words = match kind {
            "flags" => "with other flags",
            "internalDate" => "with another date",
            "order" => "in another order",
            "content" => "with other content",
            "size" => "of another size",
            "missing" => "that the destination took and does not show",
            "doubled" => "there once too often",
            other => other,
        };
        words.to_owned()
    };
    differences.iter().map(|(kind, number)| (words(kind), *number)).collect()
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
