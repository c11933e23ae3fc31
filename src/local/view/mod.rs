//! What a run shows while it works: bars on a terminal, plain lines, or JSON lines for programs.

mod bars;
mod json;
mod lines;

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use bars::Bars;
pub(crate) use json::{Json, event};
pub(crate) use lines::Lines;

use super::outcome::Outcome;
use crate::sync::{progress::Progress, report::MailboxReport, spec::SyncSpec};

/// How often lines and JSON events show progress, if there is any.
pub(crate) const EVENT_INTERVAL: Duration = Duration::from_secs(5);

/// What happens in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
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
        progress: &'a Arc<Progress>,
    },
    /// [`View::interval`] has passed.
    Tick,
    /// A mailbox ended, or could not start.
    Finished(&'a MailboxReport),
    /// The run was asked to stop and waits for its mailboxes to save their checkpoints.
    Stopping {
        /// How many it waits for.
        running: usize,
    },
    /// A mailbox did not come to its end, or to its turn, before the run was stopped.
    Left(&'a MailboxReport),
    /// The run is over.
    Ended(&'a Outcome),
}

/// Shows what happens in a run.
pub(crate) trait View: Send {
    /// How often it wants an [`Event::Tick`].
    fn interval(&self) -> Duration;

    /// Shows what happened at `at`.
    fn show(&mut self, at: Instant, event: Event<'_>);
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Text when the output is a terminal, else JSON lines.
    #[default]
    Auto,
    /// Progress bars on a terminal or plain lines elsewhere, then a report for people.
    Text,
    /// One JSON object per line: started, progress, finished with the report, summary.
    Json,
}

/// What a run shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Progress bars on stderr, the report on stdout.
    Bars,
    /// Plain lines on stderr, the report on stdout.
    Lines,
    /// JSON lines on stdout.
    Json,
}

impl Output {
    /// What to show where stdout and stderr are terminals or not.
    #[must_use]
    pub(crate) const fn style(self, stdout_is_terminal: bool, stderr_is_terminal: bool) -> Style {
        match self {
            Self::Json => Style::Json,
            Self::Auto if !stdout_is_terminal => Style::Json,
            Self::Auto | Self::Text if stderr_is_terminal => Style::Bars,
            Self::Auto | Self::Text => Style::Lines,
        }
    }
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
    use crate::sync::{progress::Phase, testing::spec};

    /// Of two mailboxes one starts, stands still, moves, and is asked to stop; gives the time then, 16 s after the start.
    pub(crate) fn alice_moves_once(view: &mut impl View) -> Instant {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let progress = Arc::new(Progress::default());
        view.show(start, Event::Begun { mailboxes: 2 });
        view.show(start, Event::Started { spec: &spec("alice"), progress: &progress });
        progress.enter(Phase::Copying);
        progress.messages_total.store(10, Relaxed);
        progress.bytes_total.store(10_000, Relaxed);
        view.show(at(5), Event::Tick);
        view.show(at(10), Event::Tick);
        progress.messages_done.store(4, Relaxed);
        progress.bytes_done.store(4_000, Relaxed);
        view.show(at(15), Event::Tick);
        view.show(at(16), Event::Stopping { running: 1 });
        at(16)
    }

    #[test]
    fn bars_need_a_terminal_and_a_pipe_gets_json_unless_text_is_asked_for() {
        let styles = |output: Output| {
            [(true, true), (true, false), (false, true), (false, false)].map(|(out, err)| output.style(out, err))
        };
        assert_eq!(styles(Output::Auto), [Style::Bars, Style::Lines, Style::Json, Style::Json]);
        assert_eq!(styles(Output::Text), [Style::Bars, Style::Lines, Style::Bars, Style::Lines]);
        assert_eq!(styles(Output::Json), [Style::Json; 4]);
    }
}
