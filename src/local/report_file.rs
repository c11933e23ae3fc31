//! The report of a run as a file: text, a table for a spreadsheet, or JSON.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    mailbox_ending::errors,
    outcome::RunOutcome,
    report_text::{ReportDetail, TextLayout},
    run_report,
    state_folder::write_atomically,
    view::{JsonEvent, ending_label, summary_event, timed},
};
use crate::{
    error::{Error, Result},
    sync::report::{FolderReport, MailboxReport},
    terminal_text::printable_json,
};

/// What a report file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportFormat {
    /// The report for people, with all mailboxes and folders.
    Text,
    /// A row for each folder, and one for a mailbox without any.
    Csv,
    /// All of it.
    Json,
}

impl ReportFormat {
    /// By the end of the file's name.
    ///
    /// # Errors
    /// Configuration for another one.
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        match path.extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("txt") => Ok(Self::Text),
            Some("csv") => Ok(Self::Csv),
            Some("json") => Ok(Self::Json),
            _ => Err(Error::configuration(format!("--report {}: the name says no format", path.display()))
                .advice("End it in .txt, .csv or .json")),
        }
    }
}

/// Writes the report, replacing what the file held.
///
/// # Errors
/// Internal when it can't be written.
pub(crate) fn write_report(path: &Path, format: ReportFormat, outcome: &RunOutcome, now: Timestamp) -> Result<()> {
    let text = match format {
        ReportFormat::Text => {
            run_report::report(outcome, TextLayout { detail: ReportDetail::All, ..TextLayout::default() })
        }
        ReportFormat::Csv => csv(&outcome.reports),
        ReportFormat::Json => json(outcome, now),
    };
    write_atomically(path, text.as_bytes())
        .map_err(|error| Error::internal(format!("the report {} can't be written: {error}", path.display())))
}

#[derive(Serialize)]
struct JsonReport<'a> {
    #[serde(flatten)]
    summary: JsonEvent<'a>,
    reports: Vec<JsonMailbox<'a>>,
}

#[derive(Serialize)]
struct JsonMailbox<'a> {
    ending: &'static str,
    #[serde(flatten)]
    report: &'a MailboxReport,
}

fn json(outcome: &RunOutcome, now: Timestamp) -> String {
    let reports = outcome.reports.iter().map(|report| JsonMailbox { ending: ending_label(report), report }).collect();
    let report = timed(now, JsonReport { summary: summary_event(outcome), reports });
    // Plain structs with string keys: that cannot fail.
    let text = serde_json::to_string_pretty(&report).unwrap_or_default();
    format!("{}\n", printable_json(&text))
}

const COLUMNS: [&str; 15] = [
    "mailbox",
    "ending",
    "folder",
    "destination folder",
    "source messages",
    "copied before",
    "copied now",
    "bytes now",
    "adopted",
    "not copied",
    "accepted",
    "left out",
    "flags changed",
    "deleted",
    "error",
];

fn csv(reports: &[MailboxReport]) -> String {
    let mut text = String::new();
    let mut write_row = |cells: &[String]| {
        text.push_str(&cells.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(","));
        text.push_str("\r\n");
    };
    write_row(&COLUMNS.map(str::to_owned));
    for report in reports {
        let of_mailbox = report.error.as_ref();
        for folder in &report.folders {
            write_row(&row(report, Some(folder), folder.error.as_ref().or(of_mailbox)));
        }
        if report.folders.is_empty() {
            write_row(&row(report, None, errors(report).next()));
        }
    }
    text
}

fn row(report: &MailboxReport, folder: Option<&FolderReport>, error: Option<&Error>) -> Vec<String> {
    let names = folder.map_or(["", ""], |folder| [folder.source.as_str(), folder.destination.as_str()]);
    let counts = folder.map(|f| {
        let accepted = f.accepted.values().sum::<u64>();
        let lacking = f.skipped.values().sum::<u64>().saturating_sub(accepted);
        let copied = [f.source_messages, f.copied_before, f.copied_now, f.bytes_now, f.adopted];
        let others = [lacking, accepted, f.left_out.values().sum(), f.flags_updated, f.deleted];
        [copied, others].concat()
    });
    let mut cells = vec![report.mailbox.clone(), ending_label(report).to_owned()];
    cells.extend(names.map(str::to_owned));
    match counts {
        Some(counts) => cells.extend(counts.iter().map(u64::to_string)),
        None => cells.extend(vec![String::new(); 10]),
    }
    cells.push(error.map(|error| Error { mailbox: None, ..error.clone() }.to_string()).unwrap_or_default());
    cells
}

/// A cell by RFC 4180. A spreadsheet would take what begins like a formula for one, and names come from servers: an
/// apostrophe before it makes it text.
fn csv_cell(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r', '\'', ';']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcome() -> RunOutcome {
        let folder = |source: &str, copied_now| FolderReport {
            source: source.into(),
            destination: source.into(),
            source_messages: 12,
            copied_now,
            bytes_now: copied_now * 100,
            ..FolderReport::default()
        };
        let bob = Error::network("there is no host of this name").in_mailbox("bob");
        let reports = vec![
            MailboxReport {
                mailbox: "alice".into(),
                folders: vec![folder("INBOX", 9), folder("=cmd(\"x\")", 0)],
                ..MailboxReport::default()
            },
            MailboxReport { mailbox: "bob".into(), error: Some(bob), ..MailboxReport::default() },
        ];
        RunOutcome { reports, took: Duration::from_secs(2) }
    }

    fn written(name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let format = ReportFormat::of_file(&path).unwrap();
        write_report(&path, format, &outcome(), Timestamp::UNIX_EPOCH).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_table_has_a_row_for_each_folder_and_nothing_that_a_spreadsheet_runs() {
        insta::assert_snapshot!(written("r.csv").replace("\r\n", "\n"), @r#"
        mailbox,ending,folder,destination folder,source messages,copied before,copied now,bytes now,adopted,not copied,accepted,left out,flags changed,deleted,error
        alice,done,INBOX,INBOX,12,0,9,900,0,0,0,0,0,0,
        alice,done,"'=cmd(""x"")","'=cmd(""x"")",12,0,0,0,0,0,0,0,0,0,
        bob,failed,,,,,,,,,,,,,Network: there is no host of this name
        "#);
    }

    #[test]
    fn text_has_every_folder_and_json_all_of_it() {
        let text = written("r.TXT");
        assert!(text.starts_with("Problems (1)\n") && text.contains("=cmd(\"x\")"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&written("r.json")).unwrap();
        assert_eq!((&json["event"], &json["failed"], &json["exitCode"]), (&"summary".into(), &1.into(), &14.into()));
        assert_eq!(json["reports"][0]["folders"][0]["copiedNow"], 9);
        assert_eq!(json["reports"][1]["ending"], "failed");
    }

    #[test]
    fn a_name_without_a_known_end_is_refused() {
        for name in ["report", "report.xlsx"] {
            assert!(ReportFormat::of_file(Path::new(name)).unwrap_err().to_string().contains(".txt, .csv or .json"));
        }
    }
}
