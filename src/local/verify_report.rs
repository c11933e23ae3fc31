//! A verification's report for people.

use std::time::Duration;

use super::{
    problems::{Problems, grouped_remarks},
    report_table::{Column, table},
    report_text::{Meaning, ReportDetail, ReportText, TextLayout, error_of_mailbox, nonzero_counts},
};
use crate::{
    error::ErrorClass,
    sync::{
        report::LeftOut,
        verify::{DifferenceKind, FolderComparison, VerifyReport, VerifyStrictness},
    },
    terminal_text::{folder_names, format_count, format_duration, printable},
};

/// The exit code of a verification that found differences, and no error.
pub(crate) const EXIT_DIFFERS: u8 = 1;

/// How a verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VerifyVerdict {
    /// The destination holds what the source holds.
    Identical,
    /// It does not.
    Differs,
    /// It could not be told; the class of the gravest error.
    Failed(ErrorClass),
}

impl VerifyVerdict {
    /// The verdict on one mailbox.
    #[must_use]
    pub(crate) fn from_report(report: &VerifyReport, strictness: VerifyStrictness) -> Self {
        match ErrorClass::gravest(report.errors().map(|error| error.class)) {
            Some(class) => Self::Failed(class),
            None if report.differs(strictness) => Self::Differs,
            None => Self::Identical,
        }
    }

    /// For programs.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Differs => "differs",
            Self::Failed(_) => "failed",
        }
    }
}

/// 0 when all are identical, 1 when there are differences; the code of the gravest error's class when a mailbox could
/// not be compared.
#[must_use]
pub(crate) fn exit_code(verdicts: &[VerifyVerdict]) -> u8 {
    let failed = verdicts.iter().filter_map(|v| if let VerifyVerdict::Failed(class) = v { Some(*class) } else { None });
    match ErrorClass::gravest(failed) {
        Some(class) => class.exit_code(),
        None if verdicts.contains(&VerifyVerdict::Differs) => EXIT_DIFFERS,
        None => 0,
    }
}

/// One line: the verdict, and in how many messages.
#[must_use]
pub(crate) fn line(report: &VerifyReport, strictness: VerifyStrictness) -> String {
    let sum = |of: fn(&FolderComparison) -> u64| report.folders.iter().map(of).sum::<u64>();
    let all = sum(|f| f.source_messages);
    let folders = u64::try_from(report.folders.len()).unwrap_or(u64::MAX);
    let said = match VerifyVerdict::from_report(report, strictness) {
        VerifyVerdict::Failed(class) => {
            let error = report.errors().find(|error| error.class == class).map(error_of_mailbox).unwrap_or_default();
            format!("not verified: {error}")
        }
        VerifyVerdict::Identical => {
            let (rewritten, doubled) = (sum(|f| f.only_rewritten), sum(|f| f.doubled));
            let but = match (rewritten, doubled) {
                (0, 0) => String::new(),
                (_, 0) => format!(", but for {} that the destination rewrote", format_count(rewritten, "message")),
                (0, _) => format!(", but for copies too many at the destination ({doubled})"),
                _ => {
                    let rewritten = format_count(rewritten, "message");
                    format!(", but for {rewritten} that the destination rewrote, and copies too many ({doubled})")
                }
            };
            format!("identical: {} in {}{but}", format_count(all, "message"), format_count(folders, "folder"))
        }
        VerifyVerdict::Differs => {
            let parts = nonzero_counts(&[
                (sum(|f| u64::from(f.folder_missing)), "missing folders"),
                (sum(|f| f.missing), "missing"),
                (sum(|f| f.changed), "changed"),
                (sum(|f| f.unreadable + f.unreadable_at_destination), "unreadable"),
                (sum(|f| f.unlisted + f.unlisted_at_destination), "counted and not listed"),
                (report.only_in_views(), "only in views"),
                (sum(|f| f.doubled), "copies too many"),
                (
                    if strictness.strict { sum(|f| f.only_at_destination - f.doubled) } else { 0 },
                    "only at the destination",
                ),
            ]);
            let what = if parts.is_empty() { "folders or subscriptions".to_owned() } else { parts.join(", ") };
            format!("differs: {what}, of {} in {}", format_count(all, "message"), format_count(folders, "folder"))
        }
    };
    format!("{}: {}", printable(&report.mailbox), printable(&said))
}

/// The whole report: what kept mailboxes from being compared, then each mailbox, or of many those that differ, and the sum
/// as the last line.
#[must_use]
pub(crate) fn report(
    reports: &[VerifyReport],
    strictness: VerifyStrictness,
    took: Duration,
    layout: TextLayout,
) -> String {
    let mut text = ReportText::new(layout);
    let verdict = |report: &VerifyReport| VerifyVerdict::from_report(report, strictness);
    if layout.detail != ReportDetail::LastLine {
        let mut problems = Problems::default();
        for report in reports {
            for error in report.errors() {
                problems.add(&report.mailbox, error);
            }
        }
        text.chapter(&format!("Problems ({})", problems.len()), Meaning::Bad, &problems.lines(reports.len()));
        let shown = |report: &&VerifyReport| match verdict(report) {
            _ if layout.has_blocks(reports.len()) => true,
            VerifyVerdict::Differs => true,
            VerifyVerdict::Failed(_) => !report.folders.is_empty(),
            VerifyVerdict::Identical => false,
        };
        for report in reports.iter().filter(shown) {
            write_block(&mut text, report, strictness, layout.detail);
        }
        text.write_legend();
        let notes = reports.iter().flat_map(|r| r.notes.iter().map(move |note| (r.mailbox.as_str(), note.clone())));
        text.chapter("Notes", Meaning::Plain, &grouped_remarks(notes, reports.len()));
    }
    let verdicts: Vec<VerifyVerdict> = reports.iter().map(verdict).collect();
    let meaning = if exit_code(&verdicts) == 0 { Meaning::Good } else { Meaning::Bad };
    text.head(&summary(&verdicts, took), meaning);
    text.into_string()
}

/// One mailbox: the verdict, a table of the folders that are not identical (`detail`: of all), single messages, and
/// everything that is not plain equality. Its errors are told for all mailboxes together.
fn write_block(text: &mut ReportText, report: &VerifyReport, strictness: VerifyStrictness, detail: ReportDetail) {
    let took = match report.duration_ms {
        0 => String::new(), // it never started
        ms => format!(" (in {})", format_duration(Duration::from_millis(ms))),
    };
    let (said, meaning) = match VerifyVerdict::from_report(report, strictness) {
        VerifyVerdict::Failed(_) => (format!("{}: not verified", printable(&report.mailbox)), Meaning::Bad),
        VerifyVerdict::Differs => (line(report, strictness), Meaning::Bad),
        VerifyVerdict::Identical => (line(report, strictness), Meaning::Good),
    };
    text.head(&format!("{said}{took}"), meaning);
    let shown = |folder: &&FolderComparison| detail == ReportDetail::All || state(folder) != IDENTICAL;
    let folders: Vec<&FolderComparison> = report.folders.iter().filter(shown).collect();
    if !folders.is_empty() {
        let (rows, legend) = folder_table(&folders);
        text.table(&rows, |row| match row.last().map(String::as_str) {
            Some(IDENTICAL | "state") | None => Meaning::Plain,
            Some(_) => Meaning::Look,
        });
        let same = report.folders.len() - folders.len();
        if same > 0 {
            text.entry(&format!("and {}", format_count(same as u64, "identical folder")));
        }
        text.explain(legend);
    }
    text.section("Differences", report.folders.iter().flat_map(|folder| differences(folder, strictness)));
    let rules = |folder: &FolderComparison| -> Vec<String> {
        folder.left_out.iter().map(|(rule, n)| format!("{}: {n} {rule}", folder.source)).collect()
    };
    let moved = report.folders.iter().filter(|folder| folder.found_elsewhere > 0);
    text.section(
        "In another folder of the destination, where a user had moved them",
        moved.map(|folder| format!("{}: {}", folder.source, format_count(folder.found_elsewhere, "message"))),
    );
    text.section("Messages left out by a rule", report.folders.iter().flat_map(rules));
    text.section("Folders left out", report.left_out.iter().map(left_out_folder));
    let only_there = report.only_at_destination.iter().map(|(folder, messages)| match messages {
        Some(messages) => format!("{folder}: {}", format_count(u64::from(*messages), "message")),
        None => folder.clone(),
    });
    text.section("Folders that only the destination has", only_there);
    text.section("Subscribed at the source only", &report.unsubscribed);
    text.gap();
}

/// A folder that is left out; of a view, how many of its messages are only there.
fn left_out_folder(left_out: &LeftOut) -> String {
    let LeftOut { folder, reason, not_elsewhere, .. } = left_out;
    match not_elsewhere.filter(|messages| *messages > 0) {
        Some(messages) => {
            format!("{folder} (holds {} that no other folder holds): {reason}", format_count(messages, "message"))
        }
        None => format!("{folder}: {reason}"),
    }
}

/// Counts of verdicts.
fn summary(verdicts: &[VerifyVerdict], took: Duration) -> String {
    let number = |wanted: fn(&VerifyVerdict) -> bool| verdicts.iter().filter(|verdict| wanted(verdict)).count();
    let parts = nonzero_counts(&[
        (number(|v| *v == VerifyVerdict::Identical), "identical"),
        (number(|v| *v == VerifyVerdict::Differs), "with differences"),
        (number(|v| matches!(v, VerifyVerdict::Failed(_))), "not verified"),
    ]);
    let mailboxes = format_count(u64::try_from(verdicts.len()).unwrap_or(u64::MAX), "mailbox");
    format!("{mailboxes}: {} in {}.", parts.join(", "), format_duration(took))
}

const IDENTICAL: &str = "identical";

fn state(folder: &FolderComparison) -> String {
    match &folder.error {
        Some(error) => format!("failed: {}", error.class),
        None if folder.folder_missing => "no such folder at the destination".to_owned(),
        None if folder.differs(VerifyStrictness { strict: false, allow_rewritten: true }) => "differs".to_owned(),
        None if folder.doubled > 0 => "copies too many".to_owned(),
        None if folder.rewritten > 0 => "rewritten".to_owned(),
        None => IDENTICAL.to_owned(),
    }
}

fn folder_table(folders: &[&FolderComparison]) -> (Vec<Vec<String>>, Vec<String>) {
    let of = |number: fn(&FolderComparison) -> u64| folders.iter().map(|folder| number(folder)).collect::<Vec<_>>();
    let columns = vec![
        Column::of_counts("source", "messages there", of(|f| f.source_messages)).always(),
        Column::of_counts("destination", "messages there", of(|f| f.destination_messages)).always(),
        Column::of_counts("equal", "", of(|f| f.equal)).always(),
        Column::of_counts("missing", "at the destination", of(|f| f.missing)),
        Column::of_counts("flags", "differ", of(|f| f.other_flags)),
        Column::of_counts("date", "differs", of(|f| f.other_date)),
        Column::of_counts("bytes", "differ", of(|f| f.rewritten)),
        Column::of_counts("only there", "at the destination only", of(|f| f.only_at_destination)),
    ];
    let names = folders.iter().map(|folder| folder_names(&folder.source, &folder.destination)).collect();
    table("folder", names, columns, folders.iter().map(|folder| state(folder)).collect())
}

/// The single messages of a folder, and those that nobody can list. New mail at the destination is listed only where it
/// counts; copies too many always, since a user may know whether they are meant.
fn differences(folder: &FolderComparison, strictness: VerifyStrictness) -> Vec<String> {
    let counts = |kind| strictness.strict || kind != DifferenceKind::OnlyAtDestination;
    let listed: Vec<String> = folder
        .differences
        .iter()
        .filter(|difference| counts(difference.kind))
        .map(|difference| {
            let uids = match (difference.source_uid, difference.destination_uid) {
                (Some(source), Some(destination)) => format!("UID {source} (destination UID {destination})"),
                (Some(source), None) => format!("UID {source}"),
                (None, Some(destination)) => format!("destination UID {destination}"),
                (None, None) => String::new(),
            };
            format!("{}: {uids}: {}", folder.source, difference.what)
        })
        .collect();
    let extra = if strictness.strict { folder.only_at_destination } else { folder.doubled };
    let all = folder.missing + folder.changed + folder.unreadable + folder.unreadable_at_destination + extra;
    let unlisted = all.saturating_sub(u64::try_from(listed.len()).unwrap_or(u64::MAX));
    let missing = folder
        .folder_missing
        .then(|| format!("{}: the destination has no folder {}", folder.source, folder.destination));
    let more = (unlisted > 0).then(|| format!("{}: and {unlisted} more (--list N lists more)", folder.source));
    let sides = [(folder.unlisted, "source"), (folder.unlisted_at_destination, "destination")];
    let not_listed = sides.iter().filter(|(messages, _)| *messages > 0).map(|(messages, side)| {
        let messages = format_count(*messages, "message");
        format!(
            "{}: the {side} counts {messages} more than it lists: ask its operator, and verify again",
            folder.source
        )
    });
    missing.into_iter().chain(listed).chain(more).chain(not_listed).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{error::Error, sync::verify::MessageDifference};

    const LENIENT: VerifyStrictness = VerifyStrictness { strict: false, allow_rewritten: false };
    const STRICT: VerifyStrictness = VerifyStrictness { strict: true, allow_rewritten: false };

    fn inbox() -> FolderComparison {
        FolderComparison {
            source: "INBOX".into(),
            destination: "INBOX".into(),
            source_messages: 100,
            destination_messages: 101,
            equal: 100,
            only_at_destination: 1,
            differences: vec![MessageDifference {
                kind: DifferenceKind::OnlyAtDestination,
                source_uid: None,
                destination_uid: Some(101),
                what: "only at the destination".into(),
            }],
            ..FolderComparison::default()
        }
    }

    fn sent() -> FolderComparison {
        let difference = |kind, source_uid, destination_uid, what: &str| MessageDifference {
            kind,
            source_uid: Some(source_uid),
            destination_uid,
            what: what.into(),
        };
        FolderComparison {
            source: "Sent Items".into(),
            destination: "Sent".into(),
            source_messages: 50,
            destination_messages: 47,
            equal: 46,
            missing: 3,
            changed: 1,
            other_flags: 1,
            left_out: BTreeMap::from([("larger than maxSize".into(), 2)]),
            differences: vec![
                difference(DifferenceKind::Missing, 7, None, "missing at the destination"),
                difference(DifferenceKind::Changed, 9, Some(4), r"other flags: only the source has \Seen"),
            ],
            ..FolderComparison::default()
        }
    }

    fn report(folders: Vec<FolderComparison>) -> VerifyReport {
        VerifyReport { mailbox: "alice".into(), folders, duration_ms: 2000, ..VerifyReport::default() }
    }

    /// What is said of one mailbox.
    fn mailbox(report: &VerifyReport, strictness: VerifyStrictness) -> String {
        let mut text = ReportText::new(TextLayout::default());
        write_block(&mut text, report, strictness, ReportDetail::Usual);
        text.into_string()
    }

    #[test]
    fn new_mail_at_the_destination_is_identical_unless_strict() {
        let report = report(vec![inbox()]);
        assert_eq!(VerifyVerdict::from_report(&report, LENIENT), VerifyVerdict::Identical);
        assert_eq!(VerifyVerdict::from_report(&report, STRICT), VerifyVerdict::Differs);
        assert!(!mailbox(&report, LENIENT).contains("UID 101"));
        assert!(mailbox(&report, STRICT).contains("INBOX: destination UID 101: only at the destination"));
    }

    #[test]
    fn the_report_names_counts_messages_and_what_is_not_listed() {
        let mut report = report(vec![inbox(), sent()]);
        report.only_at_destination = BTreeMap::from([("New".into(), Some(4))]);
        insta::assert_snapshot!(mailbox(&report, LENIENT), @r#"
        alice: differs: 3 missing, 1 changed, of 150 messages in 2 folders (in 2.0s)
          folder              source  destination  equal  missing  flags  state
          Sent Items -> Sent      50           47     46        3      1  differs
          and 1 identical folder
          Differences
            Sent Items: UID 7: missing at the destination
            Sent Items: UID 9 (destination UID 4): other flags: only the source has \Seen
            Sent Items: and 2 more (--list N lists more)
          Messages left out by a rule
            Sent Items: 2 larger than maxSize
          Folders that only the destination has
            New: 4 messages
        "#);
    }

    #[test]
    fn copies_too_many_are_listed_always_and_counted_apart() {
        let doubled = FolderComparison {
            destination_messages: 103,
            only_at_destination: 3,
            doubled: 2,
            differences: vec![MessageDifference {
                kind: DifferenceKind::Doubled,
                source_uid: None,
                destination_uid: Some(102),
                what: "a copy too many: the source has fewer such messages".into(),
            }],
            ..inbox()
        };
        let by_user = mailbox(&report(vec![doubled.clone()]), LENIENT);
        insta::assert_snapshot!(by_user, @r#"
        alice: identical: 100 messages in 1 folder, but for copies too many at the destination (2) (in 2.0s)
          folder  source  destination  equal  only there  state
          INBOX      100          103    100           3  copies too many
          Differences
            INBOX: destination UID 102: a copy too many: the source has fewer such messages
            INBOX: and 1 more (--list N lists more)
        "#);
        let since_sync = report(vec![FolderComparison { doubled_since_sync: 2, ..doubled }]);
        assert_eq!(VerifyVerdict::from_report(&since_sync, LENIENT), VerifyVerdict::Differs);
        insta::assert_snapshot!(line(&since_sync, LENIENT), @"alice: differs: 2 copies too many, of 100 messages in 1 folder");
        insta::assert_snapshot!(line(&since_sync, STRICT), @"alice: differs: 2 copies too many, 1 only at the destination, of 100 messages in 1 folder");
    }

    #[test]
    fn what_no_listing_and_no_folder_shows_is_said_with_its_number() {
        let folder = FolderComparison { unlisted: 5, only_at_destination: 0, differences: Vec::new(), ..inbox() };
        let mut report = report(vec![folder]);
        let reason = "it is a view of all messages".to_owned();
        report.left_out = vec![LeftOut {
            folder: "[Gmail]/All Mail".into(),
            reason,
            messages: Some(12),
            not_elsewhere: Some(4),
            is_view: true,
            ..LeftOut::default()
        }];
        insta::assert_snapshot!(mailbox(&report, LENIENT), @r#"
        alice: differs: 5 counted and not listed, 4 only in views, of 100 messages in 1 folder (in 2.0s)
          folder  source  destination  equal  state
          INBOX      100          101    100  differs
          Differences
            INBOX: the source counts 5 messages more than it lists: ask its operator, and verify again
          Folders left out
            [Gmail]/All Mail (holds 4 messages that no other folder holds): it is a view of all messages
        "#);
    }

    #[test]
    fn errors_decide_before_differences_and_those_before_nothing() {
        let failed = VerifyReport { error: Some(Error::network("gone")), ..report(vec![sent()]) };
        let verdict = |report: &VerifyReport| VerifyVerdict::from_report(report, LENIENT);
        assert_eq!(verdict(&failed), VerifyVerdict::Failed(ErrorClass::Network));
        assert_eq!(exit_code(&[VerifyVerdict::Identical]), 0);
        assert_eq!(exit_code(&[VerifyVerdict::Identical, VerifyVerdict::Differs]), 1);
        assert_eq!(exit_code(&[VerifyVerdict::Differs, verdict(&failed)]), ErrorClass::Network.exit_code());
        let reports = [report(vec![inbox()]), report(vec![sent()]), failed];
        insta::assert_snapshot!(super::report(&reports, LENIENT, Duration::from_secs(3), TextLayout::default()), @r#"
        Problems (1)
          Network: gone (alice)

        alice: identical: 100 messages in 1 folder (in 2.0s)

        alice: differs: 3 missing, 1 changed, of 50 messages in 1 folder (in 2.0s)
          folder              source  destination  equal  missing  flags  state
          Sent Items -> Sent      50           47     46        3      1  differs
          Differences
            Sent Items: UID 7: missing at the destination
            Sent Items: UID 9 (destination UID 4): other flags: only the source has \Seen
            Sent Items: and 2 more (--list N lists more)
          Messages left out by a rule
            Sent Items: 2 larger than maxSize

        alice: not verified (in 2.0s)
          folder              source  destination  equal  missing  flags  state
          Sent Items -> Sent      50           47     46        3      1  differs
          Differences
            Sent Items: UID 7: missing at the destination
            Sent Items: UID 9 (destination UID 4): other flags: only the source has \Seen
            Sent Items: and 2 more (--list N lists more)
          Messages left out by a rule
            Sent Items: 2 larger than maxSize

        (source: messages there; destination: messages there; missing: at the destination; flags: differ)

        3 mailboxes: 1 identical, 1 with differences, 1 not verified in 3.0s.
        "#);
    }
}
