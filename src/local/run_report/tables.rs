//! The tables of a run's report.

use std::collections::BTreeMap;

use crate::{
    local::{
        mailbox_ending::{MailboxEnding, RunTotals, mailbox_ending},
        report_table::{Column, table},
    },
    sync::report::{FolderReport, MailboxReport},
    terminal_text::{folder_names, format_bytes, printable},
};

/// The sum of counts by reason.
pub(super) fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}

/// The folders of a mailbox, and what the columns mean.
pub(super) fn folder_table(folders: &[&FolderReport], report: &MailboxReport) -> (Vec<Vec<String>>, Vec<String>) {
    let of = |number: fn(&FolderReport) -> u64| folders.iter().map(|folder| number(folder)).collect::<Vec<_>>();
    let now = if report.dry_run { "to copy" } else { "now" };
    let now_legend = if report.dry_run { "" } else { "copied by this run" };
    let columns = vec![
        Column::of_counts("source", "messages there", of(|f| f.source_messages)).always(),
        Column::of_counts("before", "copied by earlier runs", of(|f| f.copied_before)),
        Column::of_counts(now, now_legend, of(|f| f.copied_now)).always(),
        Column::of_counts("adopted", "were at the destination already", of(|f| f.adopted)),
        Column::of_counts("not copied", "", of(|f| sum(&f.skipped).saturating_sub(sum(&f.accepted)))),
        Column::of_counts("accepted", "not copied, as accepted", of(|f| sum(&f.accepted))),
        Column::of_counts("left out", "by a rule", of(|f| sum(&f.left_out))),
        Column::of_counts("flags", "changed at the destination", of(|f| f.flags_updated)),
        Column::of_counts("deleted", "from the destination", of(|f| f.deleted)),
    ];
    let names = folders.iter().map(|folder| folder_names(&folder.source, &folder.destination)).collect();
    table("folder", names, columns, folders.iter().map(|folder| state(folder, report)).collect())
}

/// Mailboxes with their sums, and what the columns mean.
pub(super) fn mailbox_table(reports: &[&MailboxReport]) -> (Vec<Vec<String>>, Vec<String>) {
    let totals: Vec<RunTotals> = reports.iter().map(|report| RunTotals::from_reports([*report])).collect();
    let of = |number: fn(&RunTotals) -> u64| totals.iter().map(number).collect::<Vec<_>>();
    let copied = if reports.iter().any(|report| report.dry_run) { "to copy" } else { "copied" };
    let size = totals.iter().map(|totals| format_bytes(totals.bytes)).collect();
    let columns = vec![
        Column::of_counts(copied, "messages", of(|t| t.copied)).always(),
        Column::of_texts("size", size),
        Column::of_counts("adopted", "were at the destination already", of(|t| t.adopted)),
        Column::of_counts("not copied", "", of(|t| t.not_copied)),
        Column::of_counts("accepted", "not copied, as accepted", of(|t| t.accepted)),
        Column::of_counts("flags", "changed at the destination", of(|t| t.flags_updated)),
        Column::of_counts("deleted", "from the destination", of(|t| t.deleted)),
    ];
    let names = reports.iter().map(|report| printable(&report.mailbox).into_owned()).collect();
    let state = |report: &&MailboxReport| match mailbox_ending(report) {
        MailboxEnding::Done => "done".to_owned(),
        MailboxEnding::Interrupted => "interrupted".to_owned(),
        MailboxEnding::Failed(class) => format!("failed: {class}"),
    };
    table("mailbox", names, columns, reports.iter().map(state).collect())
}

/// How a folder ended.
pub(super) fn state(folder: &FolderReport, report: &MailboxReport) -> String {
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
