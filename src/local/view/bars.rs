//! Progress bars: the sum of all mailboxes on top, one bar per running mailbox below, ended ones scroll up as lines.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{RunEvent, RunView, lines::stopping, paused, waiting, warning};
use crate::{
    local::{
        progress_board::{ProgressBoard, ProgressEstimate},
        run_report,
    },
    terminal_text::printable,
};

/// Names longer than this are cut in the bars.
const NAME_WIDTH: usize = 19;

/// Draws bars on a terminal.
pub(crate) struct BarView {
    screen: MultiProgress,
    board: ProgressBoard,
    total: ProgressBar,
    running: Vec<(String, ProgressBar)>,
}

impl BarView {
    /// Draws on `screen`; whoever else writes to that terminal does it inside [`MultiProgress::suspend`].
    #[must_use]
    pub(crate) fn new(screen: MultiProgress) -> Self {
        Self { screen, board: ProgressBoard::new(Instant::now(), 0), total: ProgressBar::hidden(), running: Vec::new() }
    }

    fn print(&self, line: &str) {
        // A terminal that went away is no reason to stop copying mail.
        drop(self.screen.println(line));
    }

    fn draw(&self) {
        let (finished, mailboxes) = (self.board.finished, self.board.mailboxes);
        update(&self.total, &self.board.total(), &format!("{finished}/{mailboxes} done, "));
        for ((_, bar), (_, estimate)) in self.running.iter().zip(self.board.running()) {
            update(bar, &estimate, "");
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
            RunEvent::Matched { mailbox, text, .. } => self.print(&warning(mailbox, text)),
            RunEvent::Finished(report) => {
                self.board.record_finished(&report.mailbox);
                self.remove_bar(&report.mailbox);
                self.print(&run_report::line(report));
                self.draw();
            }
            RunEvent::Paused(report) => {
                self.board.record_paused(&report.mailbox);
                self.remove_bar(&report.mailbox);
                self.print(&paused(report));
                self.draw();
            }
            RunEvent::Waiting { mailboxes, closed } => self.print(&waiting(mailboxes, closed)),
            RunEvent::Stopping { running } => self.print(&stopping(running)),
            RunEvent::Unfinished(_) => {}
            RunEvent::Ended(_) => self.clear(),
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    // The template is a constant: that it is valid is tested.
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let name = printable(name);
    let shown = match name.char_indices().nth(NAME_WIDTH) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.into_owned(),
    };
    ProgressBar::no_length().with_style(style.progress_chars("=> ")).with_prefix(shown)
}

const TEMPLATE: &str = "{prefix:20} [{bar:12}] {wide_msg}";

fn update(bar: &ProgressBar, estimate: &ProgressEstimate, before: &str) {
    let counters = &estimate.counters;
    // Many messages are adopted or empty: where there are no bytes to copy, messages tell how far it is.
    let (done, total) = match counters.bytes_total {
        0 => (counters.messages_done, counters.messages_total),
        total => (counters.bytes_done, total),
    };
    bar.set_length(total.max(1));
    bar.set_position(done.min(total));
    bar.set_message(format!("{before}{}", estimate.line()));
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
    fn bars_follow_the_counters_and_go_when_their_mailbox_ends() {
        let mut bars = BarView::new(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));
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
        assert!(bars.total.message().starts_with("1/3 done, "), "{}", bars.total.message());
    }
}
