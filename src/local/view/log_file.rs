//! A log file of a run beside what is shown: a line with the time for whatever happens to a mailbox.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use jiff::{Timestamp, Unit};

use super::{LineView, RunEvent, RunView};
use crate::error::{Error, Result};

/// Shows a run, and writes it to a file.
pub(crate) struct LoggedView {
    shown: Box<dyn RunView>,
    log: LineView<TimedLines<File>>,
    /// When the file gets the next progress.
    due: Option<Instant>,
}

impl LoggedView {
    /// Appends to `log` what `shown` is told.
    pub(crate) fn new(shown: Box<dyn RunView>, log: File) -> Self {
        Self { shown, log: LineView::new(TimedLines::new(log, Timestamp::now), true), due: None }
    }
}

/// Opens a log file to append to it; it is made for its owner only.
///
/// # Errors
/// Configuration when that can't be done.
pub(crate) fn open_log(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| {
        Error::configuration(format!("--log-file {}: {error}", path.display())).advice("Name a file that you may write")
    })
}

/// Writes a text, line by line, each with the time.
pub(crate) fn log_text(log: File, text: &str) {
    // A full disk is no reason to end a run otherwise than it ended.
    drop(TimedLines::new(log, Timestamp::now).write_all(text.as_bytes()));
}

impl RunView for LoggedView {
    fn interval(&self) -> Duration {
        self.shown.interval().min(self.log.interval())
    }

    fn show(&mut self, at: Instant, event: RunEvent<'_>) {
        let is_tick = matches!(event, RunEvent::Tick);
        if !is_tick || self.due.is_none_or(|due| at >= due) {
            self.log.show(at, event);
            if is_tick {
                self.due = Some(at + self.log.interval());
            }
        }
        self.shown.show(at, event);
    }
}

/// Begins each line with the time.
#[derive(Debug)]
struct TimedLines<W> {
    to: W,
    clock: fn() -> Timestamp,
    line: Vec<u8>,
}

impl<W> TimedLines<W> {
    fn new(to: W, clock: fn() -> Timestamp) -> Self {
        Self { to, clock, line: Vec::new() }
    }
}

impl<W: Write> Write for TimedLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let now = (self.clock)();
                let mut line = format!("{} ", now.round(Unit::Second).unwrap_or(now)).into_bytes();
                line.append(&mut self.line);
                self.to.write_all(&line)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::view::{NoView, tests::alice_moves_once};

    #[test]
    fn each_line_has_the_time() {
        let mut lines = TimedLines::new(Vec::new(), || Timestamp::UNIX_EPOCH);
        for part in ["a", "b\nc\n", "d", "\n"] {
            lines.write_all(part.as_bytes()).unwrap();
        }
        let written = String::from_utf8(lines.to).unwrap();
        assert_eq!(written, "1970-01-01T00:00:00Z ab\n1970-01-01T00:00:00Z c\n1970-01-01T00:00:00Z d\n");
    }

    #[test]
    fn a_log_has_every_mailbox_whatever_is_shown_and_is_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for _ in 0..2 {
            let mut view = LoggedView::new(Box::new(NoView), open_log(&path).unwrap());
            alice_moves_once(&mut view);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("alice: started, old.example:993")).count(), 2, "{text}");
        assert!(open_log(folder.path()).unwrap_err().to_string().contains("--log-file"));
    }
}
