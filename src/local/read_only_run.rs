//! Runs a command that reads each mailbox and changes nothing: checks, verifications, exports. It shows how far it has
//! come, and tells of each mailbox when it ends.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    mailbox_runner::{MailboxWork, RunLimits, StopSignal, StoppedMailbox, WorkEvent, run_mailboxes},
    progress_board::ProgressBoard,
    report_text::{ReportDetail, TextLayout},
    view::{OutputStyle, write_event},
};
use crate::{
    error::{Error, Result},
    sync::{progress::SyncProgress, spec::SyncSpec},
};

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// What one command does with a mailbox, and how it tells of it.
pub(crate) trait MailboxReader {
    /// What was found in one mailbox.
    type Report: Send + 'static;

    /// Makes the task that reads a mailbox and counts in `progress`. A failure is in its report.
    fn read(&self, spec: SyncSpec, progress: Arc<SyncProgress>) -> BoxFuture<'static, Self::Report>;

    /// The report of a mailbox that could not be read.
    fn failed_report(&self, error: Error) -> Self::Report;

    /// The mailbox that a report is about.
    fn mailbox<'a>(&self, report: &'a Self::Report) -> &'a str;

    /// How far all mailboxes have come, for people.
    fn progress_line(&self, board: &ProgressBoard) -> String;

    /// What is said to people when a mailbox ends, where every mailbox is told of; none: nothing.
    fn end_line(&self, report: &Self::Report) -> Option<String>;

    /// Whether a mailbox could not be read.
    fn is_failed(&self, report: &Self::Report) -> bool;

    /// What is said to programs when a mailbox ends.
    fn end_event<'a>(&self, report: &'a Self::Report) -> impl Serialize + use<'a, Self>;
}

/// How mailboxes are read, and what is shown meanwhile.
pub(crate) struct ReadOnlyRun {
    /// How many mailboxes at once.
    pub limits: RunLimits,
    /// What to show.
    pub style: OutputStyle,
    /// How the report is laid out.
    pub layout: TextLayout,
    /// Where progress is drawn, between log lines.
    pub screen: MultiProgress,
}

impl ReadOnlyRun {
    /// Reads all mailboxes and gives their reports, in the order of the manifests.
    pub(crate) async fn read_all<R: MailboxReader>(
        &self,
        mailboxes: Vec<Result<SyncSpec>>,
        reader: &R,
    ) -> Vec<R::Report> {
        let bar = match self.style {
            OutputStyle::Bars => self.screen.add(bar()),
            OutputStyle::Lines | OutputStyle::Silent | OutputStyle::Json => ProgressBar::hidden(),
        };
        let board = ProgressBoard::new(Instant::now(), mailboxes.len());
        let mut work = ReadWork { run: self, reader, board, bar };
        work.draw();
        let reports = run_mailboxes(mailboxes, &self.limits, &StopSignal::default(), &mut work).await;
        work.bar.finish_and_clear();
        reports
    }

    /// Writes the end of the command to stdout: a last event for programs, or a report for people. A reader that has gone
    /// away does not change what was found.
    pub(crate) fn write_end(&self, summary: impl Serialize, report: impl FnOnce(TextLayout) -> String) {
        if self.style == OutputStyle::Json {
            write_event(&mut io::stdout(), Timestamp::now(), summary);
        } else {
            drop(io::stdout().lock().write_all(report(self.layout).as_bytes()));
        }
    }
}

struct ReadWork<'a, R> {
    run: &'a ReadOnlyRun,
    reader: &'a R,
    board: ProgressBoard,
    bar: ProgressBar,
}

impl<R: MailboxReader> ReadWork<'_, R> {
    fn draw(&self) {
        self.bar.set_message(self.reader.progress_line(&self.board));
        self.bar.tick();
    }
}

impl<R: MailboxReader> MailboxWork for ReadWork<'_, R> {
    type Report = R::Report;

    fn tick_interval(&self) -> Duration {
        TICK
    }

    fn start(&mut self, spec: SyncSpec, _: CancellationToken) -> BoxFuture<'static, R::Report> {
        let progress = Arc::new(SyncProgress::default());
        self.board.add_running(Instant::now(), &spec.mailbox, &progress);
        self.reader.read(spec, progress)
    }

    fn failed_report(&self, error: Error) -> R::Report {
        self.reader.failed_report(error)
    }

    fn stopped_report(&self, mailbox: String, _: StoppedMailbox) -> R::Report {
        self.reader.failed_report(Error::internal("stopped before its end").in_mailbox(mailbox))
    }

    fn show(&mut self, event: WorkEvent<'_, R::Report>) {
        match event {
            WorkEvent::Tick => {
                self.board.observe(Instant::now());
                self.draw();
            }
            WorkEvent::Finished(report) => {
                self.board.record_finished(self.reader.mailbox(report), self.reader.is_failed(report));
                if self.run.style == OutputStyle::Json {
                    write_event(&mut io::stdout(), Timestamp::now(), self.reader.end_event(report));
                } else if self.run.layout.detail == ReportDetail::All
                    && let Some(line) = self.reader.end_line(report)
                {
                    // Where there are no bars, the screen writes nothing.
                    self.run.screen.suspend(|| drop(writeln!(io::stderr(), "{line}")));
                }
                self.draw();
            }
            // Nothing asks these commands to stop: a signal ends the process. Nor do they go by time windows.
            WorkEvent::Stopping { .. }
            | WorkEvent::Unfinished(_)
            | WorkEvent::Paused(_)
            | WorkEvent::Waiting { .. } => {}
        }
    }
}

fn bar() -> ProgressBar {
    // The template is a constant without a mistake in it.
    let style =
        ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::no_length().with_style(style)
}
