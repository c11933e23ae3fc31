//! Numbers, names and lengths of time as people read them on a terminal.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use indicatif::DecimalBytes;
use unicode_width::UnicodeWidthStr as _;

/// `text` with everything escaped that could move the cursor, change colours or turn the reading direction: folder
/// names and server replies are hostile input, a terminal obeys them.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts_on_terminal) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if acts_on_terminal(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c)); // a String takes every write
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// JSON that means the same and holds nothing that a terminal obeys: JSON itself escapes only the first 32 characters
/// (RFC 8259, section 7).
#[must_use]
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    // Those of ASCII stand between the strings: inside they are escaped.
    let acts = |c: char| !c.is_ascii_control() && acts_on_terminal(c) || c == '\u{7f}';
    if !json.chars().any(acts) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        if acts(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c)); // a String takes every write
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// `text` with U+FFFD for each character that [`printable`] escapes: it has as many characters, where these are bounded.
#[must_use]
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts_on_terminal) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if acts_on_terminal(c) { char::REPLACEMENT_CHARACTER } else { c }).collect())
}

fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

/// A text as one word of a POSIX shell, in quotes where it needs them.
#[must_use]
pub(crate) fn shell_word(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "./_-".contains(c);
    if !text.is_empty() && text.chars().all(harmless) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A folder's name, or both where the destination has another one.
#[must_use]
pub(crate) fn folder_names(source: &str, destination: &str) -> String {
    if source == destination || destination.is_empty() {
        printable(source).into_owned()
    } else {
        format!("{} -> {}", printable(source), printable(destination))
    }
}

/// `37.00 MB`, in steps of 1000.
#[must_use]
pub(crate) fn format_bytes(count: u64) -> String {
    DecimalBytes(count).to_string()
}

/// `0.4s`, `12s`, `3m05s`, `2h07m`: the two largest units.
#[must_use]
pub(crate) fn format_duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..10 => format!("{}.{}s", seconds, length.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 message`, `2 messages`.
#[must_use]
pub(crate) fn format_count(number: u64, what: &str) -> String {
    match (number, what.strip_suffix('x').or_else(|| what.strip_suffix("ch"))) {
        (1, _) => format!("1 {what}"),
        (_, Some(_)) => format!("{number} {what}es"),
        (_, None) => format!("{number} {what}s"),
    }
}

/// Wider cells than this do not widen their column.
const MAX_COLUMN_WIDTH: usize = 60;

/// Lays out rows in columns of equal width; the first and the last column are flush left, numbers between flush right.
#[must_use]
pub(crate) fn format_table(rows: &[Vec<String>], indent: &str) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    // A single very long name must not push every other row off the screen.
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.width())
            .filter(|width| *width <= MAX_COLUMN_WIDTH)
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            let gap = if column == 0 { "" } else { "  " };
            let flush_left = column == 0 || column + 1 == columns;
            let (before, after) = if flush_left { ("", padding.as_str()) } else { (padding.as_str(), "") };
            line.extend([gap, before, cell, after]);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_act_on_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{202e}d\u{9b}e"), "a\\u{1b}[2Jb\\r\\nc\\u{202e}d\\u{9b}e");
        assert_eq!(printable("Entwürfe/日本 🎉"), "Entwürfe/日本 🎉");
    }

    #[test]
    fn a_shell_takes_any_text_as_one_word() {
        for (text, word) in [("a/b_1.yaml", "a/b_1.yaml"), ("", "''"), ("a b", "'a b'"), ("it's $x", r"'it'\''s $x'")] {
            assert_eq!(shell_word(text), word);
        }
    }

    #[test]
    fn what_is_made_harmless_has_as_many_characters() {
        assert_eq!(harmless("a\u{1b}[2J\n\u{202e}d\u{9b}"), "a\u{fffd}[2J\u{fffd}\u{fffd}d\u{fffd}");
        assert_eq!(harmless("Entwürfe/日本 🎉"), "Entwürfe/日本 🎉");
    }

    #[test]
    fn json_means_the_same_and_holds_nothing_that_acts_on_a_terminal() {
        let value = serde_json::json!({"a\u{9b}31m\u{7f}": ["\u{202e}\u{1b}[2J", "Entwürfe/日本 🎉"]});
        for json in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = printable_json(&json);
            assert!(!safe.chars().any(|c| acts_on_terminal(c) && c != '\n'), "{safe}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
    }

    #[test]
    fn lengths_of_time_show_their_two_largest_units() {
        let shown: Vec<String> = [450, 9_999, 12_000, 185_000, 7_620_000, 360_000_000]
            .map(|ms| format_duration(Duration::from_millis(ms)))
            .to_vec();
        assert_eq!(shown, ["0.4s", "9.9s", "12s", "3m05s", "2h07m", "100h00m"]);
    }

    #[test]
    fn counted_words_agree_with_their_number() {
        let shown = [
            format_count(1, "message"),
            format_count(0, "message"),
            format_count(2, "mailbox"),
            format_count(1, "mailbox"),
        ];
        assert_eq!(shown, ["1 message", "0 messages", "2 mailboxes", "1 mailbox"]);
    }

    #[test]
    fn columns_stay_aligned_with_wide_characters() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = format_table(&[row(["folder", "now", "state"]), row(["日本", "12", "done"])], "  ");
        assert_eq!(text, "  folder  now  state\n  日本     12  done\n");
    }
}
