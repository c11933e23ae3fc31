//! Plain lines for logs and terminals without cursor control.

use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, Instant},
};

use super::{EVENT_INTERVAL, RunEvent, RunView, paused, waiting, warning, write_line};
use crate::{
    local::{progress_board::ProgressBoard, run_report},
    sync::progress::ProgressSnapshot,
    terminal_text::{format_count, printable},
};

/// One line when a mailbox starts and ends, and about every five seconds for each that moved.
#[derive(Debug)]
pub(crate) struct LineView<W> {
    to: W,
    board: ProgressBoard,
    shown: HashMap<String, ProgressSnapshot>,
}

impl<W: Write> LineView<W> {
    /// Writes to `to`.
    pub(crate) fn new(to: W) -> Self {
        Self { to, board: ProgressBoard::new(Instant::now(), 0), shown: HashMap::new() }
    }
}

impl<W: Write + Send> RunView for LineView<W> {
    fn interval(&self) -> Duration {
        EVENT_INTERVAL
    }

    fn show(&mut self, at: Instant, event: RunEvent<'_>) {
        match event {
            RunEvent::Begun { mailboxes } => self.board = ProgressBoard::new(at, mailboxes),
            RunEvent::Started { spec, progress } => {
                self.board.add_running(at, &spec.mailbox, progress);
                let (from, to) = (spec.source.address(), spec.destination.address());
                let line = format!("{}: started, {from} to {to}", printable(&spec.mailbox));
                write_line(&mut self.to, &line);
            }
            RunEvent::Tick => {
                self.board.observe(at);
                for (mailbox, estimate) in self.board.running() {
                    if self.shown.get(mailbox) != Some(&estimate.counters) {
                        write_line(&mut self.to, &format!("{}: {}", printable(mailbox), estimate.line()));
                        self.shown.insert(mailbox.to_owned(), estimate.counters);
                    }
                }
            }
            RunEvent::Matched { mailbox, text, .. } => write_line(&mut self.to, &warning(mailbox, text)),
            RunEvent::Finished(report) => {
                self.board.record_finished(&report.mailbox);
                self.shown.remove(&report.mailbox);
                let (done, all) = (self.board.finished, self.board.mailboxes);
                write_line(&mut self.to, &format!("{} [{done}/{all}]", run_report::line(report)));
            }
            RunEvent::Paused(report) => {
                self.board.record_paused(&report.mailbox);
                self.shown.remove(&report.mailbox);
                write_line(&mut self.to, &paused(report));
            }
            RunEvent::Waiting { mailboxes, closed } => write_line(&mut self.to, &waiting(mailboxes, closed)),
            RunEvent::Stopping { running } => write_line(&mut self.to, &stopping(running)),
            // The report at the end lists them: they may be thousands.
            RunEvent::Unfinished(_) | RunEvent::Ended(_) => {}
        }
    }
}

/// What a person who pressed Ctrl-C should know.
pub(super) fn stopping(running: usize) -> String {
    let running = format_count(u64::try_from(running).unwrap_or(u64::MAX), "mailbox");
    format!("stopping: {running} saving a checkpoint; interrupt again to leave at once")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{local::view::tests::alice_moves_once, sync::report::MailboxReport};

    #[test]
    fn a_mailbox_is_shown_when_it_starts_moves_and_ends_and_not_while_it_stands_still() {
        let mut lines = LineView::new(Vec::new());
        let end = alice_moves_once(&mut lines);
        let report = MailboxReport { mailbox: "alice".into(), duration_ms: 16_000, ..MailboxReport::default() };
        lines.show(end, RunEvent::Finished(&report));
        insta::assert_snapshot!(String::from_utf8(lines.to).unwrap(), @r#"
        alice: started, old.example:993 to new.example:993
        alice: 0 B of 10.00 kB, 0/10 messages, 0/0 folders
        alice: 4.00 kB of 10.00 kB, 405 B/s, 14s left, 4/10 messages, 0/0 folders
        stopping: 1 mailbox saving a checkpoint; interrupt again to leave at once
        alice: done in 16s: 0 messages (0 B) copied [1/2]
        "#);
    }
}
