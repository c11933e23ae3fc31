//! Server replies as values: just enough IMAP syntax to seed and inspect accounts.

/// One piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyValue {
    /// An atom, number or flag, as sent.
    Atom(String),
    /// A quoted string's or a literal's content.
    Text(Vec<u8>),
    /// A parenthesised list.
    List(Vec<ReplyValue>),
}

impl ReplyValue {
    /// The content of an atom or string as text, lossy.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Atom(text) => text.clone(),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::List(_) => String::new(),
        }
    }

    /// The members of a list; nothing for anything else.
    #[must_use]
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }
}

/// Reads the pieces of a reply, whose literals were received apart: each line piece but the last is followed by
/// one literal.
#[derive(Debug, Default)]
pub struct ReplyParser {
    open: Vec<Vec<ReplyValue>>,
    done: Vec<ReplyValue>,
}

impl ReplyParser {
    /// A line's text, without its end and without a literal's announcement.
    pub fn line(&mut self, line: &[u8]) {
        let mut at = 0;
        while at < line.len() {
            match line[at] {
                b' ' => at += 1,
                b'(' => {
                    self.open.push(Vec::new());
                    at += 1;
                }
                b')' => {
                    // Human-readable text may hold anything; only a list that was opened can end.
                    if let Some(list) = self.open.pop() {
                        self.push(ReplyValue::List(list));
                    }
                    at += 1;
                }
                b'"' => {
                    let mut text = Vec::new();
                    at += 1;
                    while at < line.len() && line[at] != b'"' {
                        at += usize::from(line[at] == b'\\' && at + 1 < line.len());
                        text.push(line[at]);
                        at += 1;
                    }
                    at += 1;
                    self.push(ReplyValue::Text(text));
                }
                _ => {
                    let end = line[at..].iter().position(|b| b" ()".contains(b)).map_or(line.len(), |n| at + n);
                    self.push(ReplyValue::Atom(String::from_utf8_lossy(&line[at..end]).into_owned()));
                    at = end;
                }
            }
        }
    }

    /// A literal's content.
    pub fn literal(&mut self, bytes: Vec<u8>) {
        self.push(ReplyValue::Text(bytes));
    }

    /// The whole reply.
    pub fn finish(mut self) -> Vec<ReplyValue> {
        while let Some(list) = self.open.pop() {
            self.push(ReplyValue::List(list));
        }
        self.done
    }

    fn push(&mut self, value: ReplyValue) {
        self.open.last_mut().unwrap_or(&mut self.done).push(value);
    }
}

/// The length of the literal that a line announces at its end, and where the announcement begins.
pub fn find_literal(line: &[u8]) -> Option<(usize, LiteralHeader)> {
    let inner = line.strip_suffix(b"}")?;
    let start = inner.iter().rposition(|&b| b == b'{')?;
    let digits = std::str::from_utf8(&inner[start + 1..]).ok()?;
    let (digits, waits) = match digits.strip_suffix('+') {
        Some(digits) => (digits, false),
        None => (digits, true),
    };
    Some((start, LiteralHeader { length: digits.parse().ok()?, waits }))
}

/// A literal that is to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiteralHeader {
    /// Its bytes.
    pub length: usize,
    /// Whether its sender waits for `+` first.
    pub waits: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_with_lists_strings_and_a_literal_becomes_values() {
        let mut parser = ReplyParser::default();
        let line = br#"* 1 FETCH (UID 7 FLAGS (\Seen a) X "q\"b\\" BODY[] {3}"#;
        let (start, announced) = find_literal(line).unwrap();
        assert_eq!(announced, LiteralHeader { length: 3, waits: true });
        parser.line(&line[..start]);
        parser.literal(b")\r\n".to_vec());
        parser.line(b")");
        let reply = parser.finish();
        let items = reply[3].list();
        assert_eq!(items[3].list().iter().map(ReplyValue::text).collect::<Vec<_>>(), ["\\Seen", "a"]);
        assert_eq!(items[5], ReplyValue::Text(b"q\"b\\".to_vec()));
        assert_eq!(items[7], ReplyValue::Text(b")\r\n".to_vec()));
    }
}
