//! Plain lines for logs and terminals without cursor control.

use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, Instant},
};

use super::{EVENT_INTERVAL, RunEvent, RunView, is_failed, news::LiveNews, paused, waiting, write_line};
use crate::{
    local::progress_board::ProgressBoard,
    sync::progress::ProgressSnapshot,
    terminal_text::{format_count, printable},
};

/// How often the sum of all mailboxes is shown.
const SUM_INTERVAL: Duration = Duration::from_secs(30);

/// What is new when a mailbox ends, and about every 30 seconds how far all have come; or a line when a mailbox starts and
/// ends, and about every five seconds for each that moved.
#[derive(Debug)]
pub(crate) struct LineView<W> {
    to: W,
    board: ProgressBoard,
    news: LiveNews,
    shown: HashMap<String, ProgressSnapshot>,
    summed: Option<ProgressSnapshot>,
}

impl<W: Write> LineView<W> {
    /// Writes to `to`; `all`: of every mailbox.
    pub(crate) fn new(to: W, all: bool) -> Self {
        let board = ProgressBoard::new(Instant::now(), 0);
        Self { to, board, news: LiveNews::new(all), shown: HashMap::new(), summed: None }
    }

    fn write(&mut self, line: Option<String>) {
        if let Some(line) = line {
            write_line(&mut self.to, &line);
        }
    }

    fn show_each(&mut self) {
        for (mailbox, estimate) in self.board.running() {
            if self.shown.get(mailbox) != Some(&estimate.counters) {
                write_line(&mut self.to, &format!("{}: {}", printable(mailbox), estimate.line()));
                self.shown.insert(mailbox.to_owned(), estimate.counters);
            }
        }
    }

    fn show_sum(&mut self) {
        let line = self.board.line();
        let sum = self.board.total().counters;
        if self.summed.as_ref() != Some(&sum) {
            write_line(&mut self.to, &line);
            self.summed = Some(sum);
        }
    }
}

impl<W: Write + Send> RunView for LineView<W> {
    fn interval(&self) -> Duration {
        if self.news.tells_all() { EVENT_INTERVAL } else { SUM_INTERVAL }
    }

    fn show(&mut self, at: Instant, event: RunEvent<'_>) {
        match event {
            RunEvent::Begun { mailboxes } => self.board = ProgressBoard::new(at, mailboxes),
            RunEvent::Started { spec, progress } => {
                self.board.add_running(at, &spec.mailbox, progress);
                if self.news.tells_all() {
                    let (from, to) = (spec.source.address(), spec.destination.address());
                    self.write(Some(format!("{}: started, {from} to {to}", printable(&spec.mailbox))));
                }
            }
            RunEvent::Tick => {
                self.board.observe(at);
                if self.news.tells_all() { self.show_each() } else { self.show_sum() }
            }
            RunEvent::Matched { mailbox, text, .. } => {
                let line = self.news.matched(mailbox, text);
                self.write(line);
            }
            RunEvent::Finished(report) => {
                self.board.record_finished(&report.mailbox, is_failed(report));
                self.shown.remove(&report.mailbox);
                let (ended, all) = (self.board.finished, self.board.mailboxes);
                let line = self.news.ended(report).map(|line| format!("{line} [{ended}/{all}]"));
                self.write(line);
            }
            RunEvent::Paused(report) => {
                self.board.record_paused(&report.mailbox);
                self.shown.remove(&report.mailbox);
                self.write(Some(paused(report)));
            }
            RunEvent::Waiting { mailboxes, closed } => self.write(Some(waiting(mailboxes, closed))),
            RunEvent::Stopping { running } => self.write(Some(stopping(running))),
            // The report at the end lists them: they may be thousands.
            RunEvent::Unfinished(_) | RunEvent::Ended(_) => {}
        }
    }
}

/// What a person who pressed Ctrl-C should know.
pub(super) fn stopping(running: usize) -> String {
    let running = format_count(u64::try_from(running).unwrap_or(u64::MAX), "mailbox");
    format!("Stopping: {running} saving a checkpoint. Interrupt again to leave at once.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{local::view::tests::alice_moves_once, sync::report::MailboxReport};

    fn shown(all: bool) -> String {
        let mut lines = LineView::new(Vec::new(), all);
        let end = alice_moves_once(&mut lines);
        let report = MailboxReport { mailbox: "alice".into(), duration_ms: 16_000, ..MailboxReport::default() };
        lines.show(end, RunEvent::Finished(&report));
        String::from_utf8(lines.to).unwrap()
    }

    #[test]
    fn the_sum_is_shown_when_it_moves_and_a_mailbox_that_ends_well_is_not() {
        insta::assert_snapshot!(shown(false), @r#"
        0/2 done, 0 B of 10.00 kB, 0/10 messages, 0/0 folders
        0/2 done, 4.00 kB of 10.00 kB, 39s left, 405 B/s, 4/10 messages, 0/0 folders
        Stopping: 1 mailbox saving a checkpoint. Interrupt again to leave at once.
        "#);
    }

    #[test]
    fn where_all_is_told_a_mailbox_is_shown_when_it_starts_moves_and_ends() {
        insta::assert_snapshot!(shown(true), @r#"
        alice: started, old.example:993 to new.example:993
        alice: 0 B of 10.00 kB, 0/10 messages, 0/0 folders
        alice: 4.00 kB of 10.00 kB, 14s left, 405 B/s, 4/10 messages, 0/0 folders
        Stopping: 1 mailbox saving a checkpoint. Interrupt again to leave at once.
        alice: done in 16s: 0 messages (0 B) copied [1/2]
        "#);
    }
}
