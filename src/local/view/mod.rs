//! What a run shows while it works: bars on a terminal, plain lines, JSON lines for programs, or nothing.

mod bars;
mod json;
mod lines;
mod log_file;
mod news;
mod streams;

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use bars::BarView;
pub(crate) use json::{JsonEvent, JsonView, TimedEvent, ending_label, summary_event, timed, write_event};
pub(crate) use lines::LineView;
pub(crate) use log_file::{LoggedView, log_text, open_log};
pub(crate) use streams::usual_output;

use super::{
    mailbox_ending::{MailboxEnding, mailbox_ending},
    outcome::RunOutcome,
    report_text::ReportDetail,
};
use crate::sync::{matched_folders::MatchSummary, progress::SyncProgress, report::MailboxReport, spec::SyncSpec};
use crate::sync_times::ClosedTimes;
use crate::terminal_text::{format_count, printable};

/// How often JSON events show progress, if there is any, and lines where everything is shown.
pub(crate) const EVENT_INTERVAL: Duration = Duration::from_secs(5);

/// What happens in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RunEvent<'a> {
    /// The run begins.
    Begun {
        /// How many mailboxes it has.
        mailboxes: usize,
    },
    /// A mailbox starts.
    Started {
        /// What it is to do.
        spec: &'a SyncSpec,
        /// Its live counters.
        progress: &'a Arc<SyncProgress>,
    },
    /// [`RunView::interval`] has passed.
    Tick,
    /// No checkpoint counts for a mailbox, and something will be copied into folders that hold mail.
    Matched {
        /// Its name.
        mailbox: &'a str,
        /// What it means, for people.
        text: &'a str,
        /// The numbers.
        summary: &'a MatchSummary,
    },
    /// A mailbox ended, or could not start.
    Finished(&'a MailboxReport),
    /// A mailbox stopped at its checkpoint since the time windows of its servers closed: it goes on when they open.
    Paused(&'a MailboxReport),
    /// Nothing runs until time windows open.
    Waiting {
        /// How many mailboxes wait.
        mailboxes: usize,
        /// Why, and until when.
        closed: &'a ClosedTimes,
    },
    /// The run was asked to stop and waits for its mailboxes to save their checkpoints.
    Stopping {
        /// How many it waits for.
        running: usize,
    },
    /// A mailbox did not come to its end, or to its turn, before the run was stopped.
    Unfinished(&'a MailboxReport),
    /// The run is over.
    Ended(&'a RunOutcome),
}

/// Shows what happens in a run.
pub(crate) trait RunView: Send {
    /// How often it wants an [`RunEvent::Tick`].
    fn interval(&self) -> Duration;

    /// Shows what happened at `at`.
    fn show(&mut self, at: Instant, event: RunEvent<'_>);
}

/// Shows nothing: for whoever wants the last line only.
pub(crate) struct NoView;

impl RunView for NoView {
    fn interval(&self) -> Duration {
        EVENT_INTERVAL
    }

    fn show(&mut self, _: Instant, _: RunEvent<'_>) {}
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputMode {
    /// Text for people, wherever it goes: progress on standard error (bars on a terminal, else lines), then a report.
    Text,
    /// One JSON object per line, for programs, as docs/schemas describes them.
    Json,
}

/// What a run shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStyle {
    /// Progress bars on stderr, the report on stdout.
    Bars,
    /// Plain lines on stderr, the report on stdout.
    Lines,
    /// The report on stdout, and nothing before.
    Silent,
    /// JSON lines on stdout.
    Json,
}

impl OutputMode {
    /// What to show where stderr is a terminal or not.
    #[must_use]
    pub(crate) const fn style(self, detail: ReportDetail, stderr_is_terminal: bool) -> OutputStyle {
        match (self, detail) {
            (Self::Json, _) => OutputStyle::Json,
            (Self::Text, ReportDetail::LastLine) => OutputStyle::Silent,
            (Self::Text, _) if stderr_is_terminal => OutputStyle::Bars,
            (Self::Text, _) => OutputStyle::Lines,
        }
    }
}

/// Whether the mailbox of this report failed.
fn is_failed(report: &MailboxReport) -> bool {
    matches!(mailbox_ending(report), MailboxEnding::Failed(_))
}

/// What a person should know before a mailbox is copied.
fn warning(mailbox: &str, text: &str) -> String {
    format!("{}: warning: {}", printable(mailbox), printable(text))
}

/// What is said when a mailbox is paused.
fn paused(report: &MailboxReport) -> String {
    let copied = report.folders.iter().map(|folder| folder.copied_now).sum();
    format!(
        "{}: paused at a checkpoint, since the time windows closed: {} copied so far",
        printable(&report.mailbox),
        format_count(copied, "message")
    )
}

/// What is said while all wait for time windows.
fn waiting(mailboxes: usize, closed: &ClosedTimes) -> String {
    let count = format_count(u64::try_from(mailboxes).unwrap_or(u64::MAX), "mailbox");
    let verb = if mailboxes == 1 { "waits" } else { "wait" };
    format!("{count} {verb}, {}", printable(&closed.words))
}

/// Writes one line and flushes it. That the reader has gone away (`mailferry run | head`) is no reason to stop copying
/// mail, so a failure is ignored.
fn write_line(to: &mut impl Write, line: &str) {
    let written: io::Result<()> = writeln!(to, "{line}").and_then(|()| to.flush());
    drop(written);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::sync::{progress::EnginePhase, testing::spec};

    /// Of two mailboxes one starts, stands still, moves, and is asked to stop; gives the time then, 16 s after the start.
    pub(crate) fn alice_moves_once(view: &mut impl RunView) -> Instant {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let progress = Arc::new(SyncProgress::default());
        view.show(start, RunEvent::Begun { mailboxes: 2 });
        view.show(start, RunEvent::Started { spec: &spec("alice"), progress: &progress });
        progress.enter_phase(EnginePhase::Copying);
        progress.messages_total.store(10, Relaxed);
        progress.bytes_total.store(10_000, Relaxed);
        view.show(at(5), RunEvent::Tick);
        view.show(at(10), RunEvent::Tick);
        progress.messages_done.store(4, Relaxed);
        progress.bytes_done.store(4_000, Relaxed);
        view.show(at(15), RunEvent::Tick);
        view.show(at(16), RunEvent::Stopping { running: 1 });
        at(16)
    }

    #[test]
    fn people_get_text_wherever_it_goes_and_programs_json_when_they_ask() {
        let style = |output: OutputMode, detail| [true, false].map(|terminal| output.style(detail, terminal));
        for detail in [ReportDetail::Usual, ReportDetail::All] {
            assert_eq!(style(OutputMode::Text, detail), [OutputStyle::Bars, OutputStyle::Lines]);
            assert_eq!(style(OutputMode::Json, detail), [OutputStyle::Json; 2]);
        }
        assert_eq!(style(OutputMode::Text, ReportDetail::LastLine), [OutputStyle::Silent; 2]);
    }
}
