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

/// `text` in at most `width` columns of a terminal; `…` stands for what is left out at its end.
#[must_use]
pub(crate) fn shorten(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if short.width() >= width {
            short.pop();
            break;
        }
    }
    short.push('…');
    Cow::Owned(short)
}

/// `text` in lines of at most `width` columns, broken between words: the first with `indent` before it, the others with
/// `hang`. A word that is longer than a line stays whole.
#[must_use]
pub(crate) fn wrap(text: &str, [indent, hang]: [&str; 2], width: usize) -> String {
    let mut lines = indent.to_owned();
    let (mut column, mut begun) = (indent.width(), false);
    for word in text.split(' ') {
        if begun && column + 1 + word.width() > width {
            let _ = write!(lines, "\n{hang}"); // a String takes every write
            column = hang.width();
        } else if begun {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += word.width();
        begun = true;
    }
    lines
}

/// Wider cells than this do not widen their column.
const MAX_COLUMN_WIDTH: usize = 60;

/// Between two columns.
const GAP: usize = 2;

/// Lays out rows in columns of equal width, within `width` if given; the first row is their head. The first and the last
/// column are flush left, numbers between flush right. Where it is narrow, `…` stands for the end of names; where it is too
/// narrow for that, each row says its numbers in words.
#[must_use]
pub(crate) fn format_table(rows: &[Vec<String>], indent: &str, width: Option<usize>) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    // A single very long name must not push every other row off the screen.
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width());
        cells.filter(|cell| width.is_some() || *cell <= MAX_COLUMN_WIDTH).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..columns).map(widest).collect();
    if let Some(width) = width
        && !squeeze(&mut widths, width.saturating_sub(indent.width()))
    {
        return rows.iter().skip(1).map(|row| row_in_words(&rows[0], row, indent, width)).collect();
    }
    let line = |row: &Vec<String>| {
        let mut line = indent.to_owned();
        for (column, (cell, most)) in row.iter().zip(&widths).enumerate() {
            let cell = if width.is_some() { shorten(cell, *most) } else { Cow::Borrowed(cell.as_str()) };
            let padding = " ".repeat(most.saturating_sub(cell.width()));
            let gap = if column == 0 { "" } else { "  " };
            let flush_left = column == 0 || column + 1 == columns;
            let (before, after) = if flush_left { ("", padding.as_str()) } else { (padding.as_str(), "") };
            line.extend([gap, before, &cell, after]);
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Makes the first and the last column narrower, until all fit; false where they can't.
fn squeeze(widths: &mut [usize], width: usize) -> bool {
    let last = widths.len().saturating_sub(1);
    for (column, least) in [(0, 16), (last, 16), (0, 10)] {
        let all = widths.iter().sum::<usize>() + GAP * last;
        let Some(this) = widths.get_mut(column) else { return true };
        *this -= all.saturating_sub(width).min(this.saturating_sub(least));
    }
    widths.iter().sum::<usize>() + GAP * last <= width
}

/// `INBOX: source 12, now 9, done`.
fn row_in_words(head: &[String], row: &[String], indent: &str, width: usize) -> String {
    let (name, cells) = row.split_first().map_or(("", row), |(name, cells)| (name.as_str(), cells));
    let said = head
        .iter()
        .skip(1)
        .zip(cells)
        .enumerate()
        .map(|(n, (what, cell))| if n + 1 == cells.len() { cell.clone() } else { format!("{what} {cell}") });
    let text = format!("{name}: {}", said.collect::<Vec<_>>().join(", "));
    wrap(&text, [indent, &format!("{indent}  ")], width)
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
        let table = format_table(&[row(["folder", "now", "state"]), row(["日本", "12", "done"])], "  ", None);
        assert_eq!(table, ["  folder  now  state", "  日本     12  done"]);
    }

    #[test]
    fn a_name_too_long_for_the_terminal_is_cut_with_a_sign() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["folder", "now", "state"]), row(["Archive/2019/Projects/日本語の長い名前", "12", "done"])];
        assert_eq!(
            format_table(&rows, "  ", Some(40)),
            ["  folder                      now  state", "  Archive/2019/Projects/日…    12  done"]
        );
        assert!(format_table(&rows, "  ", Some(80))[1].contains("日本語の長い名前"));
        assert_eq!(
            format_table(&rows, "  ", Some(20)),
            ["  Archive/2019/Projects/日本語の長い名前:\n    now 12, done"]
        );
    }

    #[test]
    fn text_is_broken_between_words_and_nothing_of_it_is_lost() {
        let text = "the host name imap.oldhost.example cannot be resolved";
        assert_eq!(wrap(text, ["  ", "    "], 30), "  the host name\n    imap.oldhost.example\n    cannot be resolved");
        assert_eq!(wrap("日本 日本 日本", ["", ""], 9), "日本 日本\n日本");
        assert_eq!(
            (shorten("日本語", 5), shorten("abc", 3), shorten("abcd", 3)),
            ("日本…".into(), "abc".into(), "ab…".into())
        );
    }
}
