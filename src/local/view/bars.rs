//! Progress bars: the sum of all mailboxes on top, one bar per running mailbox below, ended ones scroll up as lines.

use std::{
    io,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthStr as _;

use super::{RunEvent, RunView, is_failed, lines::stopping, news::LiveNews, paused, waiting};
use crate::{
    local::progress_board::{ProgressBoard, ProgressEstimate},
    terminal_text::{printable, shorten},
};

/// Names longer than this are cut in the bars.
const NAME_WIDTH: usize = 19;

/// Draws bars on a terminal.
pub(crate) struct BarView {
    screen: MultiProgress,
    board: ProgressBoard,
    total: ProgressBar,
    running: Vec<(String, ProgressBar)>,
    news: LiveNews,
}

impl BarView {
    /// Draws on `screen`; whoever else writes to that terminal does it inside [`MultiProgress::suspend`]. `all`: every
    /// mailbox that ends gets a line.
    #[must_use]
    pub(crate) fn new(screen: MultiProgress, all: bool) -> Self {
        let board = ProgressBoard::new(Instant::now(), 0);
        Self { screen, board, total: ProgressBar::hidden(), running: Vec::new(), news: LiveNews::new(all) }
    }

    fn print(&self, line: Option<String>) {
        if let Some(line) = line {
            // A terminal that went away is no reason to stop copying mail.
            drop(self.screen.println(line));
        }
    }

    fn draw(&self) {
        let room = columns().saturating_sub(BAR_WIDTH);
        let total = self.board.total();
        let parts = std::iter::once(self.board.endings()).chain(total.parts()).collect();
        update(&self.total, &total, &fitting(parts, room));
        for ((_, bar), (_, estimate)) in self.running.iter().zip(self.board.running()) {
            update(bar, &estimate, &fitting(estimate.parts(), room));
        }
    }

    fn remove_bar(&mut self, mailbox: &str) {
        if let Some(position) = self.running.iter().position(|(name, _)| name == mailbox) {
            let (_, bar) = self.running.remove(position);
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
    }

    fn clear(&mut self) {
        for (_, bar) in self.running.drain(..) {
            bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }
}

impl RunView for BarView {
    fn interval(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn show(&mut self, at: Instant, event: RunEvent<'_>) {
        match event {
            RunEvent::Begun { mailboxes } => {
                self.board = ProgressBoard::new(at, mailboxes);
                self.total = self.screen.add(bar("all"));
            }
            RunEvent::Started { spec, progress } => {
                self.board.add_running(at, &spec.mailbox, progress);
                let bar = self.screen.add(bar(&spec.mailbox));
                self.running.push((spec.mailbox.clone(), bar));
                self.draw();
            }
            RunEvent::Tick => {
                self.board.observe(at);
                self.draw();
            }
            RunEvent::Matched { mailbox, text, .. } => {
                let line = self.news.matched(mailbox, text);
                self.print(line);
            }
            RunEvent::Finished(report) => {
                self.board.record_finished(&report.mailbox, is_failed(report));
                self.remove_bar(&report.mailbox);
                let line = self.news.ended(report);
                self.print(line);
                self.draw();
            }
            RunEvent::Paused(report) => {
                self.board.record_paused(&report.mailbox);
                self.remove_bar(&report.mailbox);
                self.print(Some(paused(report)));
                self.draw();
            }
            RunEvent::Waiting { mailboxes, closed } => self.print(Some(waiting(mailboxes, closed))),
            RunEvent::Stopping { running } => self.print(Some(stopping(running))),
            RunEvent::Unfinished(_) => {}
            RunEvent::Ended(_) => self.clear(),
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    // The template is a constant: that it is valid is tested.
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let name = shorten(&printable(name), NAME_WIDTH).into_owned();
    ProgressBar::no_length().with_style(style.progress_chars("=> ")).with_prefix(name)
}

const TEMPLATE: &str = "{prefix:20} [{bar:12.green}] {msg}";

/// What stands before the text.
const BAR_WIDTH: usize = 36;

/// The width of the terminal that bars are drawn on.
fn columns() -> usize {
    tcgetwinsize(io::stderr()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}

/// As many parts as there is room for; the first one is cut where it has none.
fn fitting(parts: Vec<String>, room: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let longer = if line.is_empty() { shorten(&part, room).into_owned() } else { format!("{line}, {part}") };
        if longer.width() > room {
            break;
        }
        line = longer;
    }
    line
}

fn update(bar: &ProgressBar, estimate: &ProgressEstimate, message: &str) {
    let counters = &estimate.counters;
    // Where there are no bytes to copy, messages tell how far it is.
    let (done, total) = match counters.bytes_total {
        0 => (counters.messages_done, counters.messages_total),
        total => (counters.bytes_done, total),
    };
    bar.set_length(total.max(1));
    bar.set_position(done.min(total));
    bar.set_message(message.to_owned());
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::Ordering::Relaxed};

    use indicatif::ProgressDrawTarget;

    use super::*;
    use crate::sync::{
        progress::{EnginePhase, SyncProgress},
        report::MailboxReport,
        testing::spec,
    };

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters_most_and_cuts_with_a_sign() {
        let parts = || ["1/3 done", "3 MB of 9 MB", "21s left"].map(str::to_owned).to_vec();
        assert_eq!(fitting(parts(), 84), "1/3 done, 3 MB of 9 MB, 21s left");
        assert_eq!(fitting(parts(), 23), "1/3 done, 3 MB of 9 MB");
        assert_eq!(fitting(parts(), 5), "1/3 …");
        assert_eq!(fitting(vec!["日本語".to_owned()], 5), "日本…");
    }

    #[test]
    fn bars_follow_the_counters_and_go_when_their_mailbox_ends() {
        let mut bars = BarView::new(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()), false);
        let start = Instant::now();
        let (alice, bob) = (Arc::new(SyncProgress::default()), Arc::new(SyncProgress::default()));
        bars.show(start, RunEvent::Begun { mailboxes: 3 });
        bars.show(start, RunEvent::Started { spec: &spec("alice"), progress: &alice });
        bars.show(start, RunEvent::Started { spec: &spec("bob"), progress: &bob });
        bob.enter_phase(EnginePhase::Copying);
        bob.bytes_total.store(1000, Relaxed);
        bob.bytes_done.store(250, Relaxed);
        bars.show(start + Duration::from_secs(1), RunEvent::Tick);
        let state = |bar: &ProgressBar| (bar.position(), bar.length());
        assert_eq!(bars.running.iter().map(|(_, b)| state(b)).collect::<Vec<_>>(), [(0, Some(1)), (250, Some(1000))]);
        let report = MailboxReport { mailbox: "alice".into(), ..MailboxReport::default() };
        bars.show(start + Duration::from_secs(1), RunEvent::Finished(&report));
        assert_eq!(bars.running.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["bob"]);
        bars.show(start + Duration::from_secs(2), RunEvent::Tick);
        assert_eq!(state(&bars.total), (250, Some(1000)));
        assert!(bars.total.message().starts_with("1/3 done"), "{}", bars.total.message());
    }
}
