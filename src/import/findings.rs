//! What is wrong with a table, and what may be: all of it, by line. Never a word of the table itself.

use std::fmt::Write as _;

use crate::terminal_text::format_count;

/// The most that is shown of a kind; the rest is counted.
pub(crate) const MAX_SHOWN: usize = 20;

/// Something about one place in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFinding {
    /// Its line, from 1; none where the whole table is meant.
    pub line: Option<usize>,
    /// What it is, and what to do.
    pub what: String,
}

/// All findings of one import.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableFindings {
    /// What keeps the import from being made.
    pub problems: Vec<TableFinding>,
    /// What a person should look at.
    pub warnings: Vec<TableFinding>,
}

impl TableFindings {
    /// Adds a problem on a line.
    pub(crate) fn problem(&mut self, line: usize, what: impl Into<String>) {
        self.problems.push(TableFinding { line: Some(line), what: what.into() });
    }

    /// Adds a problem of the whole.
    pub(crate) fn problem_of_all(&mut self, what: impl Into<String>) {
        self.problems.push(TableFinding { line: None, what: what.into() });
    }

    /// Adds a warning on a line.
    pub(crate) fn warning(&mut self, line: usize, what: impl Into<String>) {
        self.warnings.push(TableFinding { line: Some(line), what: what.into() });
    }

    /// Adds a warning of the whole.
    pub(crate) fn warning_of_all(&mut self, what: impl Into<String>) {
        self.warnings.push(TableFinding { line: None, what: what.into() });
    }

    /// As people read it: warnings first, so that what has to be done stands at the end. `file` is the table's name.
    #[must_use]
    pub(crate) fn text(&self, file: &str) -> String {
        let mut text = String::new();
        for (findings, kind) in [(&self.warnings, "warning"), (&self.problems, "problem")] {
            let mut sorted: Vec<&TableFinding> = findings.iter().collect();
            sorted.sort_by_key(|finding| finding.line);
            for TableFinding { line, what } in sorted.iter().take(MAX_SHOWN) {
                let place = line.map_or_else(|| file.to_owned(), |line| format!("{file}, line {line}"));
                let _ = writeln!(text, "{kind}: {place}: {what}"); // a String takes every write
            }
            if let Some(more) = sorted.len().checked_sub(MAX_SHOWN + 1) {
                let _ = writeln!(text, "and {}", format_count(more as u64 + 1, &format!("more {kind}")));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_in_the_order_of_lines_and_a_readable_number_is_shown() {
        let mut findings = TableFindings::default();
        findings.warning(7, "odd");
        for line in (1..=25).rev() {
            findings.problem(line, "wrong");
        }
        findings.problem_of_all("no server");
        let text = findings.text("u.csv");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["warning: u.csv, line 7: odd", "problem: u.csv: no server", "problem: u.csv, line 1: wrong"]
        );
        assert_eq!((lines.len(), lines[MAX_SHOWN + 1]), (MAX_SHOWN + 2, "and 6 more problems"));
    }

    #[test]
    fn exactly_what_can_be_shown_has_no_more() {
        let mut findings = TableFindings::default();
        (1..=MAX_SHOWN).for_each(|line| findings.problem(line, "wrong"));
        assert_eq!(findings.text("f").lines().count(), MAX_SHOWN);
    }
}
