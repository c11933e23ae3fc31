//! JSON lines for programs: one object per event, each with `write_event` and `time` (RFC 3339, UTC).
//!
//! `begun`, then per mailbox `started` and `progress` (about every five seconds, only when something moved), `withoutCheckpoint`
//! before anything is copied where no checkpoint counts and folders hold mail, and exactly one `finished` for each mailbox, with
//! its report; `stopping` when asked to stop; `summary` as the last line.

use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, Instant},
};

use jiff::{Timestamp, Unit};
use serde::Serialize;

use super::{EVENT_INTERVAL, RunEvent, RunView, is_failed, write_line};
use crate::{
    local::{
        mailbox_ending::{MailboxEnding, RunTotals, mailbox_ending},
        outcome::RunOutcome,
        progress_board::{ProgressBoard, ProgressEstimate},
    },
    sync::{matched_folders::MatchSummary, progress::ProgressSnapshot, report::MailboxReport},
    terminal_text::printable_json,
};

/// Writes one JSON object per line.
#[derive(Debug)]
pub struct JsonView<W> {
    to: W,
    clock: fn() -> Timestamp,
    board: ProgressBoard,
    shown: HashMap<String, ProgressSnapshot>,
}

/// A line of JSON.
#[derive(Serialize, schemars::JsonSchema)]
pub(crate) struct TimedEvent<T> {
    /// When it was written: RFC 3339, UTC.
    time: String,
    #[serde(flatten)]
    what: T,
}

/// Writes one event as a line of JSON, with its time. `what` is a struct or an enum with string keys.
pub(crate) fn write_event(to: &mut impl Write, time: Timestamp, what: impl Serialize) {
    // What is serialised are plain structs with string keys: that cannot fail.
    if let Ok(line) = serde_json::to_string(&timed(time, what)) {
        write_line(to, &printable_json(&line));
    }
}

/// `what` with the time at which it is said.
pub(crate) fn timed<T>(time: Timestamp, what: T) -> TimedEvent<T> {
    TimedEvent { time: time.round(Unit::Millisecond).unwrap_or(time).to_string(), what }
}

/// The last line of a run.
pub(crate) fn summary_event(outcome: &RunOutcome) -> JsonEvent<'static> {
    let ended = |wanted: &str| outcome.reports.iter().filter(|report| ending_label(report) == wanted).count();
    JsonEvent::Summary {
        mailboxes: outcome.reports.len(),
        done: ended("done"),
        failed: ended("failed"),
        interrupted: ended("interrupted"),
        totals: RunTotals::from_reports(&outcome.reports),
        duration_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
        exit_code: outcome.exit_code(),
    }
}

#[derive(Serialize, schemars::JsonSchema)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum JsonEvent<'a> {
    /// The first line.
    Begun {
        /// How many mailboxes there are.
        mailboxes: usize,
    },
    /// A mailbox starts.
    Started {
        /// Its name.
        mailbox: &'a str,
        /// Host and port of the source.
        source: String,
        /// Host and port of the destination.
        destination: String,
        /// True when nothing is changed.
        dry_run: bool,
    },
    /// About every five seconds for each mailbox that moves.
    Progress {
        /// Its name.
        mailbox: &'a str,
        /// How far it is.
        progress: &'a ProgressEstimate,
    },
    /// No checkpoint counts for a mailbox, and something will be copied into folders that hold mail.
    WithoutCheckpoint {
        /// Its name.
        mailbox: &'a str,
        /// The numbers.
        #[serde(flatten)]
        summary: &'a MatchSummary,
        /// What it means, for people.
        warning: &'a str,
    },
    /// A mailbox ended, or could not start: once for each.
    Finished {
        /// Its name.
        mailbox: &'a str,
        /// `done`, `failed` or `interrupted`.
        ending: &'static str,
        /// What was done and what was not.
        report: &'a MailboxReport,
    },
    /// A mailbox was stopped at a checkpoint, since the time windows of its servers closed.
    Paused {
        /// Its name.
        mailbox: &'a str,
        /// What was done so far.
        report: &'a MailboxReport,
    },
    /// All that are left wait for time windows.
    Waiting {
        /// How many they are.
        mailboxes: usize,
        /// When the next one opens; null: not known.
        until: Option<String>,
        /// What they wait for, for people.
        why: &'a str,
    },
    /// The run was asked to stop.
    Stopping {
        /// For how many mailboxes it waits.
        running: usize,
    },
    /// The last line.
    Summary {
        /// How many mailboxes there are.
        mailboxes: usize,
        /// How many of them ended well.
        done: usize,
        /// How many failed.
        failed: usize,
        /// How many were interrupted.
        interrupted: usize,
        /// The sums over all of them.
        totals: RunTotals,
        /// The whole run.
        duration_ms: u64,
        /// The exit code of the program.
        exit_code: u8,
    },
}

impl<W: Write> JsonView<W> {
    /// Writes to `to`; `clock` gives the times in it.
    pub(crate) fn new(to: W, clock: fn() -> Timestamp) -> Self {
        Self { to, clock, board: ProgressBoard::new(Instant::now(), 0), shown: HashMap::new() }
    }

    fn write(to: &mut W, clock: fn() -> Timestamp, what: JsonEvent<'_>) {
        write_event(to, clock(), what);
    }
}

impl<W: Write + Send> RunView for JsonView<W> {
    fn interval(&self) -> Duration {
        EVENT_INTERVAL
    }

    fn show(&mut self, at: Instant, event: RunEvent<'_>) {
        let Self { to, clock, board, shown } = self;
        match event {
            RunEvent::Begun { mailboxes } => {
                *board = ProgressBoard::new(at, mailboxes);
                Self::write(to, *clock, JsonEvent::Begun { mailboxes });
            }
            RunEvent::Started { spec, progress } => {
                board.add_running(at, &spec.mailbox, progress);
                let (source, destination) = (spec.source.address(), spec.destination.address());
                let (mailbox, dry_run) = (spec.mailbox.as_str(), spec.dry_run);
                Self::write(to, *clock, JsonEvent::Started { mailbox, source, destination, dry_run });
            }
            RunEvent::Tick => {
                board.observe(at);
                for (mailbox, estimate) in board.running() {
                    if shown.get(mailbox) != Some(&estimate.counters) {
                        Self::write(to, *clock, JsonEvent::Progress { mailbox, progress: &estimate });
                        shown.insert(mailbox.to_owned(), estimate.counters);
                    }
                }
            }
            RunEvent::Matched { mailbox, text, summary } => {
                Self::write(to, *clock, JsonEvent::WithoutCheckpoint { mailbox, summary, warning: text });
            }
            RunEvent::Finished(report) | RunEvent::Unfinished(report) => {
                board.record_finished(&report.mailbox, is_failed(report));
                shown.remove(&report.mailbox);
                let ending = ending_label(report);
                Self::write(to, *clock, JsonEvent::Finished { mailbox: &report.mailbox, ending, report });
            }
            RunEvent::Paused(report) => {
                board.record_paused(&report.mailbox);
                shown.remove(&report.mailbox);
                Self::write(to, *clock, JsonEvent::Paused { mailbox: &report.mailbox, report });
            }
            RunEvent::Waiting { mailboxes, closed } => {
                let until = closed.opens_at.map(|at| at.to_string());
                Self::write(to, *clock, JsonEvent::Waiting { mailboxes, until, why: &closed.words });
            }
            RunEvent::Stopping { running } => Self::write(to, *clock, JsonEvent::Stopping { running }),
            RunEvent::Ended(outcome) => Self::write(to, *clock, summary_event(outcome)),
        }
    }
}

/// How the mailbox of this report ended, for programs.
pub(crate) fn ending_label(report: &MailboxReport) -> &'static str {
    match mailbox_ending(report) {
        MailboxEnding::Done => "done",
        MailboxEnding::Interrupted => "interrupted",
        MailboxEnding::Failed(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, local::view::tests::alice_moves_once};

    #[test]
    fn every_event_is_one_line_of_json_with_its_time_and_no_secret() {
        let mut json = JsonView::new(Vec::new(), || Timestamp::UNIX_EPOCH);
        let end = alice_moves_once(&mut json);
        let reports = vec![
            MailboxReport { mailbox: "alice".into(), interrupted: true, ..MailboxReport::default() },
            MailboxReport {
                mailbox: "bob".into(),
                error: Some(Error::configuration("no such Secret\nx").in_mailbox("bob")),
                ..MailboxReport::default()
            },
        ];
        for report in &reports {
            json.show(end, RunEvent::Finished(report));
        }
        let outcome = RunOutcome { reports, took: Duration::from_secs(16) };
        json.show(end, RunEvent::Ended(&outcome));
        let text = String::from_utf8(json.to).unwrap();
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["event"].is_string() && value["time"] == "1970-01-01T00:00:00Z", "{line}");
        }
        assert!(!text.contains("secret"));
        insta::assert_snapshot!(text, @r#"
        {"time":"1970-01-01T00:00:00Z","event":"begun","mailboxes":2}
        {"time":"1970-01-01T00:00:00Z","event":"started","mailbox":"alice","source":"old.example:993","destination":"new.example:993","dryRun":false}
        {"time":"1970-01-01T00:00:00Z","event":"progress","mailbox":"alice","progress":{"phase":"Copying","foldersTotal":0,"foldersDone":0,"messagesTotal":10,"messagesDone":0,"bytesTotal":10000,"bytesDone":0,"bytesPerSecond":0}}
        {"time":"1970-01-01T00:00:00Z","event":"progress","mailbox":"alice","progress":{"phase":"Copying","foldersTotal":0,"foldersDone":0,"messagesTotal":10,"messagesDone":4,"bytesTotal":10000,"bytesDone":4000,"bytesPerSecond":405,"etaSeconds":14}}
        {"time":"1970-01-01T00:00:00Z","event":"stopping","running":1}
        {"time":"1970-01-01T00:00:00Z","event":"finished","mailbox":"alice","ending":"interrupted","report":{"mailbox":"alice","dryRun":false,"folders":[],"leftOut":[],"subscribed":0,"durationMs":0,"reconnects":0,"interrupted":true}}
        {"time":"1970-01-01T00:00:00Z","event":"finished","mailbox":"bob","ending":"failed","report":{"mailbox":"bob","dryRun":false,"folders":[],"leftOut":[],"subscribed":0,"durationMs":0,"reconnects":0,"interrupted":false,"error":{"class":"Configuration","mailbox":"bob","what":"no such Secret\nx"}}}
        {"time":"1970-01-01T00:00:00Z","event":"summary","mailboxes":2,"done":0,"failed":1,"interrupted":1,"totals":{"copied":0,"bytes":0,"adopted":0,"skipped":0,"notCopied":0,"accepted":0,"flagsUpdated":0,"deleted":0},"durationMs":16000,"exitCode":2}
        "#);
    }
}
