//! The final report for people: what happened to each mailbox and folder, and what to do about it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::text::{bytes, count, duration, folder_names, printable, table};
use crate::{
    error::{Error, ErrorClass},
    sync::report::{FolderReport, MailboxReport, MessageNote},
};

/// How a mailbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All is copied, but for what the report says was skipped or left out.
    Done,
    /// Asked to stop; the next run goes on.
    Interrupted,
    /// Something, or all, failed; the class of the gravest error.
    Failed(ErrorClass),
}

/// How the mailbox of this report ended.
#[must_use]
pub fn ending(report: &MailboxReport) -> Ending {
    match errors(report).map(|e| e.class).min_by_key(|class| gravity(*class)) {
        Some(class) => Ending::Failed(class),
        None if report.interrupted => Ending::Interrupted,
        None => Ending::Done,
    }
}

/// The order in which classes decide the exit code, gravest first: what needs a person before what may heal by itself.
#[must_use]
pub const fn gravity(class: ErrorClass) -> u8 {
    class.gravity()
}

/// The mailbox's own error and those of its folders.
pub fn errors(report: &MailboxReport) -> impl Iterator<Item = &Error> {
    report.error.iter().chain(report.folders.iter().filter_map(|folder| folder.error.as_ref()))
}

/// Sums over folders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Messages copied by this run.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages found at the destination and taken as the copy.
    pub adopted: u64,
    /// Messages that were not copied.
    pub skipped: u64,
    /// Messages whose flags were changed.
    pub flags_updated: u64,
    /// Copies removed.
    pub deleted: u64,
}

impl Totals {
    /// The sums over one mailbox or many.
    #[must_use]
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a MailboxReport>) -> Self {
        reports.into_iter().flat_map(|report| &report.folders).fold(Self::default(), |sum, folder| Self {
            copied: sum.copied + folder.copied_now,
            bytes: sum.bytes + folder.bytes_now,
            adopted: sum.adopted + folder.adopted,
            skipped: sum.skipped + folder.skipped.values().sum::<u64>(),
            flags_updated: sum.flags_updated + folder.flags_updated,
            deleted: sum.deleted + folder.deleted,
        })
    }

    /// `1000 messages (37.00 MB) copied, 3 skipped`; `to copy` after a dry run.
    #[must_use]
    pub fn sentence(&self, dry_run: bool) -> String {
        let copied = if dry_run { "to copy" } else { "copied" };
        let mut sentence = format!("{} ({}) {copied}", count(self.copied, "message"), bytes(self.bytes));
        for (number, what) in [
            (self.adopted, "adopted"),
            (self.skipped, "skipped"),
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
pub fn line(report: &MailboxReport) -> String {
    let head = head(report);
    match ending(report) {
        Ending::Failed(class) => {
            let error = errors(report).find(|e| e.class == class).map(|e| without_mailbox(e).to_string());
            format!("{head}: {}", printable(&error.unwrap_or_default()))
        }
        Ending::Done | Ending::Interrupted => format!("{head}: {}", sentence(report)),
    }
}

fn head(report: &MailboxReport) -> String {
    let (ended, preposition) = match ending(report) {
        Ending::Done => ("done", "in"),
        Ending::Interrupted => ("interrupted", "after"),
        Ending::Failed(_) => ("failed", "after"),
    };
    let dry = if report.dry_run { " (dry run)" } else { "" };
    let took = match report.duration_ms {
        0 => String::new(), // it never started
        ms => format!(" {preposition} {}", duration(Duration::from_millis(ms))),
    };
    format!("{}: {ended}{dry}{took}", printable(&report.mailbox))
}

fn sentence(report: &MailboxReport) -> String {
    Totals::of([report]).sentence(report.dry_run)
}

/// The whole report of one mailbox: a table of its folders, then everything that is not plain success.
#[must_use]
pub fn mailbox(report: &MailboxReport) -> String {
    let mut text = format!("{}: {}\n", head(report), sentence(report));
    if report.dry_run {
        text.push_str("  Dry run: nothing was changed; the numbers say what a run would do.\n");
    }
    if !report.folders.is_empty() {
        text.push_str(&folders(report));
    }
    let mut section = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            let _ = writeln!(text, "  {title}");
            text.extend(lines.iter().map(|line| format!("    {}\n", printable(line))));
        }
    };
    let of_folders = |lines: &dyn Fn(&FolderReport) -> Vec<String>| -> Vec<String> {
        report.folders.iter().flat_map(lines).collect()
    };
    section("Skipped messages", &of_folders(&|f| notes(&f.source, &f.skipped, &f.skipped_messages)));
    section("Copied with a difference", &of_folders(&|f| notes(&f.source, &f.differences, &f.difference_messages)));
    section("Messages left out by a rule", &of_folders(&|f| notes(&f.source, &f.left_out, &[])));
    let left_out: Vec<String> = report.left_out.iter().map(|l| format!("{}: {}", l.folder, l.reason)).collect();
    section("Folders left out", &left_out);
    section("In doubt, so left as it was", &of_folders(&|f| prefixed(&f.source, &f.doubts)));
    section("Notes", &report.notes);
    let errors: Vec<String> = errors(report).map(|e| without_mailbox(e).to_string()).collect();
    section("Errors", &errors);
    if report.interrupted {
        text.push_str("  Interrupted: run the same command again to go on from here.\n");
    }
    text
}

/// How the whole run ended: counts, sums, and the failures again, since the reports may fill many screens.
#[must_use]
pub fn summary(reports: &[MailboxReport], took: Duration) -> String {
    let number = |wanted: fn(Ending) -> bool| reports.iter().filter(|r| wanted(ending(r))).count();
    let parts = [
        (number(|e| e == Ending::Done), "done"),
        (number(|e| matches!(e, Ending::Failed(_))), "failed"),
        (number(|e| e == Ending::Interrupted), "interrupted"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let mailboxes = count(u64::try_from(reports.len()).unwrap_or(u64::MAX), "mailbox");
    let totals = Totals::of(reports).sentence(reports.iter().any(|r| r.dry_run));
    let mut text = format!("{mailboxes}: {}. {totals} in {}.\n", parts.join(", "), duration(took));
    for report in reports.iter().filter(|r| matches!(ending(r), Ending::Failed(_))) {
        let _ = writeln!(text, "  {}", line(report));
    }
    text
}

fn folders(report: &MailboxReport) -> String {
    let head = ["folder", "source", "before", "now", "adopted", "skipped", "left out", "flags", "deleted", "state"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.folders.iter().map(|folder| {
        let numbers = [
            folder.source_messages,
            folder.copied_before,
            folder.copied_now,
            folder.adopted,
            folder.skipped.values().sum(),
            folder.left_out.values().sum(),
            folder.flags_updated,
            folder.deleted,
        ];
        let mut row = vec![folder_names(&folder.source, &folder.destination)];
        row.extend(numbers.map(|n| n.to_string()));
        row.push(state(folder, report));
        row
    }));
    table(&rows, "  ")
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
        None if settled < folder.source_messages && ending(report) != Ending::Done => "unfinished".to_owned(),
        None => "done".to_owned(),
    }
}

/// Each reason with its count, then the single messages that are known.
fn notes(folder: &str, counts: &BTreeMap<String, u64>, messages: &[MessageNote]) -> Vec<String> {
    let mut lines: Vec<String> = counts.iter().map(|(reason, n)| format!("{folder}: {n} {reason}")).collect();
    lines.extend(messages.iter().map(|note| format!("{folder}: UID {}: {}", note.uid, note.what)));
    let unlisted = counts.values().sum::<u64>().saturating_sub(u64::try_from(messages.len()).unwrap_or(u64::MAX));
    if unlisted > 0 && !messages.is_empty() {
        lines.push(format!("{folder}: and {unlisted} more"));
    }
    lines
}

fn prefixed(folder: &str, texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("{folder}: {text}")).collect()
}

/// The mailbox stands at the head of the report already.
fn without_mailbox(error: &Error) -> Error {
    Error { mailbox: None, ..error.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Side,
        sync::report::{LeftOut, MAX_LISTED},
    };

    fn set_aside(folder: &mut FolderReport, uid: u32, reason: &str, what: &str) {
        *folder.skipped.entry(reason.to_owned()).or_default() += 1;
        if folder.skipped_messages.len() < MAX_LISTED {
            folder.skipped_messages.push(MessageNote { uid, what: what.to_owned(), size: None, date: None });
        }
    }

    fn done() -> MailboxReport {
        let inbox = FolderReport {
            source: "INBOX".into(),
            destination: "INBOX".into(),
            source_messages: 1200,
            copied_before: 1000,
            copied_now: 196,
            bytes_now: 37_000_000,
            adopted: 2,
            flags_updated: 7,
            ..FolderReport::default()
        };
        let mut sent = FolderReport {
            source: "Sent Items".into(),
            destination: "Sent".into(),
            source_messages: 12,
            copied_now: 9,
            bytes_now: 12_345,
            left_out: BTreeMap::from([("older than 2020-01-01".into(), 1)]),
            doubts: vec!["3 of 4 copies vanished; nothing was deleted".into()],
            ..FolderReport::default()
        };
        set_aside(&mut sent, 17, "over APPENDLIMIT", "41943040 bytes, the destination takes 26214400");
        set_aside(&mut sent, 18, "refused", "NO [CANNOT] \u{1b}[31mbad mail");
        sent.differs(4, "keyword refused", "$MDNSent");
        MailboxReport {
            mailbox: "alice".into(),
            folders: vec![
                inbox,
                sent,
                FolderReport {
                    source: "Entwürfe".into(),
                    destination: "Entwürfe".into(),
                    source_messages: 3,
                    copied_before: 3,
                    unchanged: true,
                    ..FolderReport::default()
                },
            ],
            left_out: vec![LeftOut {
                folder: "[Gmail]/All Mail".into(),
                reason: "shows other folders' messages".into(),
                by_rule: true,
                foreign: false,
                messages: None,
            }],
            notes: vec!["the checkpoint was for other accounts".into()],
            duration_ms: 12_300,
            ..MailboxReport::default()
        }
    }

    #[test]
    fn the_report_shows_every_folder_and_everything_that_was_not_plain_success() {
        insta::assert_snapshot!(mailbox(&done()), @r#"
        alice: done in 12s: 205 messages (37.01 MB) copied, 2 adopted, 2 skipped, 7 with changed flags
          folder              source  before  now  adopted  skipped  left out  flags  deleted  state
          INBOX                 1200    1000  196        2        0         0      7        0  done
          Sent Items -> Sent      12       0    9        0        2         1      0        0  done
          Entwürfe                 3       3    0        0        0         0      0        0  unchanged
          Skipped messages
            Sent Items: 1 over APPENDLIMIT
            Sent Items: 1 refused
            Sent Items: UID 17: 41943040 bytes, the destination takes 26214400
            Sent Items: UID 18: NO [CANNOT] \u{1b}[31mbad mail
          Copied with a difference
            Sent Items: 1 keyword refused
            Sent Items: UID 4: $MDNSent
          Messages left out by a rule
            Sent Items: 1 older than 2020-01-01
          Folders left out
            [Gmail]/All Mail: shows other folders' messages
          In doubt, so left as it was
            Sent Items: 3 of 4 copies vanished; nothing was deleted
          Notes
            the checkpoint was for other accounts
        "#);
    }

    #[test]
    fn a_failed_mailbox_says_where_and_what_to_do_and_which_folders_are_unfinished() {
        let mut report = done();
        report.mailbox = "bob".into();
        report.folders.truncate(2);
        report.folders[1].copied_now = 1;
        report.folders[1].error =
            Some(Error::new(ErrorClass::Quota, "mailbox is full").on(Side::Destination, "new.example:993"));
        report.folders[0].copied_now = 12;
        report.error = Some(
            Error::network("connection lost 6 times in a row")
                .advice("Run again when the server is back")
                .on(Side::Source, "old.example:993")
                .in_mailbox("bob"),
        );
        insta::assert_snapshot!(mailbox(&report), @r#"
        bob: failed after 12s: 13 messages (37.01 MB) copied, 2 adopted, 2 skipped, 7 with changed flags
          folder              source  before  now  adopted  skipped  left out  flags  deleted  state
          INBOX                 1200    1000   12        2        0         0      7        0  unfinished
          Sent Items -> Sent      12       0    1        0        2         1      0        0  failed: Quota
          Skipped messages
            Sent Items: 1 over APPENDLIMIT
            Sent Items: 1 refused
            Sent Items: UID 17: 41943040 bytes, the destination takes 26214400
            Sent Items: UID 18: NO [CANNOT] \u{1b}[31mbad mail
          Copied with a difference
            Sent Items: 1 keyword refused
            Sent Items: UID 4: $MDNSent
          Messages left out by a rule
            Sent Items: 1 older than 2020-01-01
          Folders left out
            [Gmail]/All Mail: shows other folders' messages
          In doubt, so left as it was
            Sent Items: 3 of 4 copies vanished; nothing was deleted
          Notes
            the checkpoint was for other accounts
          Errors
            source old.example:993: Network: connection lost 6 times in a row. Run again when the server is back
            destination new.example:993: Quota: mailbox is full
        "#);
    }

    #[test]
    fn an_interrupted_dry_run_says_both() {
        let mut report = done();
        report.folders.truncate(1);
        report.folders[0].copied_now = 100;
        report.notes.clear();
        report.left_out.clear();
        (report.interrupted, report.dry_run) = (true, true);
        insta::assert_snapshot!(mailbox(&report), @r#"
        alice: interrupted (dry run) after 12s: 100 messages (37.00 MB) to copy, 2 adopted, 7 with changed flags
          Dry run: nothing was changed; the numbers say what a run would do.
          folder  source  before  now  adopted  skipped  left out  flags  deleted  state
          INBOX     1200    1000  100        2        0         0      7        0  unfinished
          Interrupted: run the same command again to go on from here.
        "#);
    }

    #[test]
    fn the_summary_counts_endings_and_repeats_failures() {
        let failed = |name: &str, error: Error| MailboxReport {
            mailbox: name.into(),
            error: Some(error.in_mailbox(name)),
            ..MailboxReport::default()
        };
        let reports = [
            done(),
            failed("bob", Error::new(ErrorClass::Authentication, "wrong password").on(Side::Source, "old.example:993")),
            MailboxReport { mailbox: "carol".into(), interrupted: true, ..MailboxReport::default() },
        ];
        insta::assert_snapshot!(summary(&reports, Duration::from_secs(75)), @r#"
        3 mailboxes: 1 done, 1 failed, 1 interrupted. 205 messages (37.01 MB) copied, 2 adopted, 2 skipped, 7 with changed flags in 1m15s.
          bob: failed: source old.example:993: Authentication: wrong password
        "#);
    }

    #[test]
    fn a_folder_that_failed_makes_its_mailbox_fail_and_the_gravest_error_names_the_class() {
        let mut report = done();
        assert_eq!(ending(&report), Ending::Done);
        report.interrupted = true;
        assert_eq!(ending(&report), Ending::Interrupted);
        report.folders[0].error = Some(Error::network("gone"));
        assert_eq!(ending(&report), Ending::Failed(ErrorClass::Network));
        report.folders[1].error = Some(Error::internal("bug"));
        assert_eq!(ending(&report), Ending::Failed(ErrorClass::Internal));
    }

    #[test]
    fn messages_beyond_the_listed_ones_are_still_counted() {
        let mut folder = FolderReport { source: "INBOX".into(), ..FolderReport::default() };
        for uid in 1..=250 {
            set_aside(&mut folder, uid, "refused", "NO");
        }
        let lines = notes("INBOX", &folder.skipped, &folder.skipped_messages);
        assert_eq!(lines.first().unwrap(), "INBOX: 250 refused");
        assert_eq!(lines.last().unwrap(), "INBOX: and 50 more");
        assert_eq!(lines.len(), 202);
    }
}
