//! The layout that the reports of all commands share: a line for a mailbox, and below it a table and sections.

use std::fmt::{Display, Write as _};

use crate::{
    error::Error,
    terminal_text::{format_table, printable},
};

/// A report for people, while it is written. What it takes from servers and manifests cannot act on the terminal.
#[derive(Debug, Default)]
pub(crate) struct ReportText(String);

impl ReportText {
    /// A report that begins with this line.
    #[must_use]
    pub(crate) fn with_head(head: &str) -> Self {
        let mut report = Self::default();
        report.write_line("", head);
        report
    }

    /// Adds a line below the head.
    pub(crate) fn entry(&mut self, entry: &str) {
        self.write_line("  ", entry);
    }

    /// Adds a line below an entry.
    pub(crate) fn detail(&mut self, detail: &str) {
        self.write_line("    ", detail);
    }

    /// Adds a table below the head; the first row is its head. Cells must be printable.
    pub(crate) fn table(&mut self, rows: &[Vec<String>]) {
        self.0.push_str(&format_table(rows, "  "));
    }

    /// Adds a table below an entry, as [`Self::table`].
    pub(crate) fn detail_table(&mut self, rows: &[Vec<String>]) {
        self.0.push_str(&format_table(rows, "    "));
    }

    /// Adds a title and the lines below it; nothing where there are no lines.
    pub(crate) fn section(&mut self, title: &str, lines: impl IntoIterator<Item: AsRef<str>>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_some() {
            self.entry(title);
            for line in lines {
                self.detail(line.as_ref());
            }
        }
    }

    /// The text.
    #[must_use]
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    fn write_line(&mut self, indent: &str, line: &str) {
        let _ = writeln!(self.0, "{indent}{}", printable(line)); // a String takes every write
    }
}

/// The reports of all mailboxes, with an empty line after each, and the summary.
#[must_use]
pub(crate) fn join_reports(reports: impl IntoIterator<Item = String>, summary: &str) -> String {
    let mut text: String = reports.into_iter().map(|report| report + "\n").collect();
    text.push_str(summary);
    text
}

/// `3 done`, `1 failed`: those counts that are not zero.
#[must_use]
pub(crate) fn nonzero_counts<N: Display + Default + PartialEq>(counts: &[(N, &str)]) -> Vec<String> {
    let zero = N::default();
    counts.iter().filter(|(number, _)| *number != zero).map(|(number, what)| format!("{number} {what}")).collect()
}

/// An error in the report of its mailbox, whose name stands at the head already.
#[must_use]
pub(crate) fn error_of_mailbox(error: &Error) -> String {
    Error { mailbox: None, ..error.clone() }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_without_lines_is_left_out_and_no_line_acts_on_the_terminal() {
        let mut report = ReportText::with_head("alice: done");
        report.section("Errors", Vec::<String>::new());
        report.section("Notes", ["a\u{1b}[2Jb"]);
        report.entry("end");
        assert_eq!(report.into_string(), "alice: done\n  Notes\n    a\\u{1b}[2Jb\n  end\n");
    }

    #[test]
    fn counts_of_zero_are_left_out() {
        assert_eq!(nonzero_counts(&[(2, "done"), (0, "failed"), (1, "interrupted")]), ["2 done", "1 interrupted"]);
    }
}
