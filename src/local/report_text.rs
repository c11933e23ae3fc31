//! The layout that the reports of all commands share: problems first, lines for mailboxes with tables and sections below
//! them, the sum of all as the last line.

use std::{
    env,
    fmt::{Display, Write as _},
    io::{self, IsTerminal as _},
};

use rustix::termios::tcgetwinsize;

use crate::{
    error::Error,
    terminal_text::{format_table, printable, wrap},
};

/// How much a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ReportDetail {
    /// Its last line.
    LastLine,
    /// What a person needs.
    #[default]
    Usual,
    /// Every mailbox and folder.
    All,
}

/// For so many mailboxes there is a block of lines for each; for more, a table of those where something happened.
pub(crate) const MAX_BLOCKS: usize = 5;

/// How a report is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TextLayout {
    /// How much it says.
    pub detail: ReportDetail,
    /// Columns of the terminal; none: lines may be as long as they are.
    pub width: Option<usize>,
    /// Colours that say how bad it is.
    pub colours: bool,
}

/// What a line means for who reads it; each has its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Nothing special.
    Plain,
    /// All is well.
    Good,
    /// A person should look.
    Look,
    /// It failed.
    Bad,
}

impl TextLayout {
    /// The layout for this process's standard output.
    #[must_use]
    pub(crate) fn of_stdout(detail: ReportDetail) -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self { detail, width: None, colours: false };
        }
        let columns = tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
        Self {
            detail,
            width: Some(columns).filter(|columns| *columns > 0),
            colours: wants_colours(|name| env::var(name).ok()),
        }
    }

    /// Whether each of so many mailboxes has a block of its own.
    #[must_use]
    pub(crate) fn has_blocks(&self, mailboxes: usize) -> bool {
        self.detail == ReportDetail::All || mailboxes <= MAX_BLOCKS
    }

    /// `line` in the colour of what it means.
    fn paint(&self, line: &str, meaning: Meaning) -> String {
        let code = match meaning {
            _ if !self.colours => return line.to_owned(),
            Meaning::Plain => return line.to_owned(),
            Meaning::Good => 32,
            Meaning::Look => 33,
            Meaning::Bad => 31,
        };
        format!("\u{1b}[{code}m{line}\u{1b}[0m")
    }
}

/// By <https://no-color.org>, and not where a terminal knows no colours.
fn wants_colours(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty()) && variable("TERM").is_none_or(|term| term != "dumb")
}

/// A report for people, while it is written. What it takes from servers and manifests cannot act on the terminal.
#[derive(Debug, Default)]
pub(crate) struct ReportText {
    text: String,
    layout: TextLayout,
    /// What is to be explained.
    legend: Vec<String>,
}

impl ReportText {
    /// An empty report.
    #[must_use]
    pub(crate) fn new(layout: TextLayout) -> Self {
        Self { text: String::new(), layout, legend: Vec::new() }
    }

    /// Adds a line that is not indented: of a mailbox, or of all.
    pub(crate) fn head(&mut self, line: &str, meaning: Meaning) {
        self.write_line(["", "  "], line, meaning);
    }

    /// Adds a line below a head.
    pub(crate) fn entry(&mut self, entry: &str) {
        self.write_line(["  ", "    "], entry, Meaning::Plain);
    }

    /// Adds a line below an entry.
    pub(crate) fn detail(&mut self, detail: &str) {
        self.write_line(["    ", "      "], detail, Meaning::Plain);
    }

    /// Adds a table below a head; the first row is its own head. Cells must be printable.
    pub(crate) fn table(&mut self, rows: &[Vec<String>], meaning: impl Fn(&[String]) -> Meaning) {
        self.write_table(rows, "  ", meaning);
    }

    /// Adds a table below an entry, as [`Self::table`].
    pub(crate) fn detail_table(&mut self, rows: &[Vec<String>]) {
        self.write_table(rows, "    ", |_| Meaning::Plain);
    }

    /// Adds a title below a head and the lines below it; nothing where there are no lines.
    pub(crate) fn section(&mut self, title: &str, lines: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_some() {
            self.entry(title);
            for line in lines {
                self.detail(line.as_ref());
            }
        }
    }

    /// Adds a title that is not indented, the lines below it, and an empty line; nothing where there are no lines.
    pub(crate) fn chapter(&mut self, title: &str, meaning: Meaning, lines: &[String]) {
        if !lines.is_empty() {
            self.head(title, meaning);
            for line in lines {
                self.entry(line);
            }
            self.gap();
        }
    }

    /// Has the legend say this, once.
    pub(crate) fn explain(&mut self, items: Vec<String>) {
        for item in items {
            if !self.legend.contains(&item) {
                self.legend.push(item);
            }
        }
    }

    /// Adds a line that says what the columns of the tables are, and an empty one; nothing where there were no tables.
    pub(crate) fn write_legend(&mut self) {
        let legend = std::mem::take(&mut self.legend);
        if !legend.is_empty() {
            self.head(&format!("({})", legend.join("; ")), Meaning::Plain);
            self.gap();
        }
    }

    /// Adds an empty line.
    pub(crate) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// The text.
    #[must_use]
    pub(crate) fn into_string(self) -> String {
        self.text
    }

    fn write_table(&mut self, rows: &[Vec<String>], indent: &str, meaning: impl Fn(&[String]) -> Meaning) {
        let lines = format_table(rows, indent, self.layout.width);
        // A table too narrow for its head has none.
        let rows = rows.iter().skip(rows.len().saturating_sub(lines.len()));
        for (line, row) in lines.iter().zip(rows) {
            let _ = writeln!(self.text, "{}", self.layout.paint(line, meaning(row))); // a String takes every write
        }
    }

    fn write_line(&mut self, indents: [&str; 2], line: &str, meaning: Meaning) {
        let line = printable(line);
        let line = match self.layout.width {
            Some(width) => wrap(&line, indents, width),
            None => format!("{}{line}", indents[0]),
        };
        let _ = writeln!(self.text, "{}", self.layout.paint(&line, meaning)); // a String takes every write
    }
}

/// `3 done`, `1 failed`: those counts that are not zero.
#[must_use]
pub(crate) fn nonzero_counts<N: Display + Default + PartialEq>(counts: &[(N, &str)]) -> Vec<String> {
    let zero = N::default();
    counts.iter().filter(|(number, _)| *number != zero).map(|(number, what)| format!("{number} {what}")).collect()
}

/// An error in a line of its mailbox, whose name stands at the head already.
#[must_use]
pub(crate) fn error_of_mailbox(error: &Error) -> String {
    Error { mailbox: None, ..error.clone() }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_without_lines_is_left_out_and_no_line_acts_on_the_terminal() {
        let mut report = ReportText::new(TextLayout::default());
        report.head("alice: done", Meaning::Good);
        report.section("Errors", Vec::<String>::new());
        report.chapter("Problems", Meaning::Bad, &[]);
        report.section("Notes", ["a\u{1b}[2Jb"]);
        report.entry("end");
        assert_eq!(report.into_string(), "alice: done\n  Notes\n    a\\u{1b}[2Jb\n  end\n");
    }

    #[test]
    fn a_terminal_gets_colours_by_meaning_and_lines_within_its_width() {
        let layout = TextLayout { width: Some(20), colours: true, ..TextLayout::default() };
        let mut report = ReportText::new(layout);
        report.chapter("Problems", Meaning::Bad, &["there is no host of this name".to_owned()]);
        assert_eq!(report.into_string(), "\u{1b}[31mProblems\u{1b}[0m\n  there is no host\n    of this name\n\n");
    }

    #[test]
    fn no_color_and_a_dumb_terminal_mean_no_colours() {
        let of = |name: &str, value: &str| wants_colours(|asked| (asked == name).then(|| value.to_owned()));
        assert!(of("TERM", "xterm") && of("NO_COLOR", ""));
        assert!(!of("NO_COLOR", "1") && !of("TERM", "dumb"));
    }

    #[test]
    fn counts_of_zero_are_left_out() {
        assert_eq!(nonzero_counts(&[(2, "done"), (0, "failed"), (1, "interrupted")]), ["2 done", "1 interrupted"]);
    }
}
