//! Words, numbers, strings and lists of a response, read from left to right.

use bytes::Bytes;
use memchr::{memchr, memchr2};

use super::ParseError;
use crate::imap::response::Flag;

/// How deep lists may nest in what is skipped.
const MAX_DEPTH: usize = 64;
/// No message has more flags, and no folder offers more.
const MAX_FLAGS: usize = 10_000;

/// A place in one response. Methods that fail leave the place undefined: go back with [`Self::seek`].
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    raw: &'a Bytes,
    /// The response without its final line end.
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// At the start of a response; an error when its final line end is missing.
    pub(super) fn new(raw: &'a Bytes) -> Result<Self, ParseError> {
        let text = raw.strip_suffix(b"\n").ok_or(ParseError { what: "the line does not end", at: raw.len() })?;
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok(Self { raw, text, at: 0 })
    }

    pub(super) const fn error(&self, what: &'static str) -> ParseError {
        ParseError { what, at: self.at }
    }

    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// Bytes of the whole response.
    pub(super) const fn length(&self) -> usize {
        self.text.len()
    }

    pub(super) const fn seek(&mut self, place: usize) {
        self.at = place;
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Passes `byte` if it comes next.
    pub(super) fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Passes any number of spaces, also none.
    pub(super) fn spaces(&mut self) {
        while self.accept(b' ') {}
    }

    /// Only spaces are left.
    pub(super) fn at_end(&mut self) -> bool {
        self.spaces();
        self.at >= self.text.len()
    }

    pub(super) fn expect_end(&mut self) -> Result<(), ParseError> {
        if self.at_end() { Ok(()) } else { Err(self.error("more than was expected")) }
    }

    /// The part of the response from `start` to `end`, shared.
    pub(super) fn slice(&self, start: usize, end: usize) -> Bytes {
        self.raw.slice(start..end)
    }

    fn run(&mut self, ends: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|&byte| ends(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// The bytes up to a space or a line end, possibly none.
    pub(super) fn word(&mut self) -> &'a [u8] {
        self.run(|byte| matches!(byte, b' ' | b'\r' | b'\n'))
    }

    /// The bytes up to a space, a parenthesis or a line end, possibly none: an atom, a number, NIL, a set.
    pub(super) fn atom(&mut self) -> &'a [u8] {
        self.run(|byte| matches!(byte, b' ' | b'(' | b')' | b'\r' | b'\n'))
    }

    /// The name of a FETCH item or a response code: an atom that a bracket ends too, or the start of a string.
    pub(super) fn item_name(&mut self) -> &'a [u8] {
        self.run(|byte| matches!(byte, b' ' | b'(' | b')' | b'[' | b']' | b'"' | b'{' | b'\r' | b'\n'))
    }

    /// A value that should be a number; `None` for every other value, which is passed.
    pub(super) fn number_or_skip(&mut self) -> Result<Option<u64>, ParseError> {
        let start = self.at;
        let number = number(self.atom());
        if number.is_none() {
            self.seek(start);
            self.skip_value()?;
        }
        Ok(number)
    }

    /// Passes NIL, in any case, when it is a word of its own.
    pub(super) fn nil(&mut self) -> bool {
        let start = self.at;
        let found = self.atom().eq_ignore_ascii_case(b"NIL");
        if !found {
            self.seek(start);
        }
        found
    }

    /// A quoted string. A backslash before anything but `"` and `\` stands for itself, as `GreenMail` means it.
    pub(super) fn quoted(&mut self) -> Result<Bytes, ParseError> {
        if !self.accept(b'"') {
            return Err(self.error("a quoted string is missing"));
        }
        let start = self.at;
        let mut unescaped: Option<Vec<u8>> = None;
        let mut copied = start;
        loop {
            let found = memchr2(b'"', b'\\', self.rest()).ok_or(self.error("a quoted string does not end"))?;
            self.at += found;
            if self.accept(b'"') {
                break;
            }
            self.at += 1;
            if matches!(self.peek(), Some(b'"' | b'\\')) {
                unescaped.get_or_insert_default().extend_from_slice(&self.text[copied..self.at - 1]);
                copied = self.at;
                self.at += 1;
            }
        }
        let end = self.at - 1;
        if memchr(b'\n', &self.text[start..end]).is_some() {
            return Err(self.error("a quoted string spans lines"));
        }
        Ok(match unescaped {
            None => self.slice(start, end),
            Some(mut bytes) => {
                bytes.extend_from_slice(&self.text[copied..end]);
                bytes.into()
            }
        })
    }

    /// A literal, `{5}`, `{5+}` or `~{5}` with its bytes.
    pub(super) fn literal(&mut self) -> Result<Bytes, ParseError> {
        let error = self.error("a literal is malformed");
        self.accept(b'~');
        if !self.accept(b'{') {
            return Err(error);
        }
        let digits = self.run(|byte| !byte.is_ascii_digit());
        let length = number(digits).and_then(|length| usize::try_from(length).ok()).ok_or(error)?;
        let _ = self.accept(b'+') || self.accept(b'-');
        if !self.accept(b'}') {
            return Err(error);
        }
        self.accept(b'\r');
        if !self.accept(b'\n') {
            return Err(error);
        }
        let start = self.at;
        if length > self.rest().len() {
            return Err(self.error("a literal is cut short"));
        }
        self.at += length;
        Ok(self.slice(start, self.at))
    }

    /// A string, not an atom or a list, comes next.
    pub(super) fn is_string(&self) -> bool {
        matches!(self.rest(), [b'"' | b'{', ..] | [b'~', b'{', ..])
    }

    /// A quoted string or a literal.
    pub(super) fn string(&mut self) -> Result<Bytes, ParseError> {
        if self.peek() == Some(b'"') { self.quoted() } else { self.literal() }
    }

    /// A string, or `None` for NIL.
    pub(super) fn nstring(&mut self) -> Result<Option<Bytes>, ParseError> {
        if self.nil() { Ok(None) } else { self.string().map(Some) }
    }

    /// A string or an atom.
    pub(super) fn astring(&mut self) -> Result<Bytes, ParseError> {
        if self.is_string() {
            return self.string();
        }
        let start = self.at;
        if self.atom().is_empty() {
            return Err(self.error("a value is missing"));
        }
        Ok(self.slice(start, self.at))
    }

    /// Flags between parentheses, whatever they are made of. NIL is an empty list.
    pub(super) fn flags(&mut self) -> Result<Vec<Flag>, ParseError> {
        if self.nil() {
            return Ok(Vec::new());
        }
        let error = self.error("a list holds more than 10000 flags");
        let words = self.words_in_parentheses()?;
        if words.clone().take(MAX_FLAGS + 1).count() > MAX_FLAGS {
            return Err(error);
        }
        Ok(words.map(Flag::parse).collect())
    }

    /// The words between here and the next closing parenthesis: no string, list or literal is looked for in them.
    pub(super) fn words_in_parentheses(
        &mut self,
    ) -> Result<impl Iterator<Item = &'a [u8]> + Clone + use<'a>, ParseError> {
        if !self.accept(b'(') {
            return Err(self.error("a list is missing"));
        }
        let rest = self.rest();
        let length = memchr2(b')', b'\n', rest)
            .filter(|&length| rest[length] == b')')
            .ok_or(self.error("a list does not end"))?;
        self.at += length + 1;
        Ok(rest[..length].split(|&byte| byte == b' ').filter(|word| !word.is_empty()))
    }

    /// Passes one value of any kind: an atom, a string, a list of values.
    pub(super) fn skip_value(&mut self) -> Result<(), ParseError> {
        let mut depth = 0_usize;
        loop {
            if depth > 0 {
                self.spaces();
            }
            if self.accept(b'(') {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(self.error("lists nest too deep"));
                }
            } else if depth > 0 && self.accept(b')') {
                depth -= 1;
            } else {
                self.skip_single()?;
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn skip_single(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            Some(b'"') => self.quoted().map(drop),
            Some(b'{' | b'~') => {
                let start = self.at;
                if self.literal().is_err() {
                    self.seek(start);
                    self.atom();
                }
                Ok(())
            }
            _ if self.atom().is_empty() => Err(self.error("a value is missing")),
            _ => Ok(()),
        }
    }
}

/// Digits only, at most 64 bits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Digits only, 32 bits.
pub(super) fn number32(digits: &[u8]) -> Option<u32> {
    number(digits).and_then(|number| u32::try_from(number).ok())
}

/// Text of a server for people and logs: without control characters, U+FFFD for what is not UTF-8, at most `limit`
/// characters.
pub(super) fn clean(bytes: &[u8], limit: usize) -> String {
    let bytes = &bytes[..bytes.len().min(limit.saturating_mul(4))];
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(limit).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// An upper-cased name.
pub(super) fn upper(bytes: &[u8]) -> String {
    let mut name = clean(bytes, 200);
    name.make_ascii_uppercase();
    name
}
