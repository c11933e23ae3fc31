//! What is unusual about a message's bytes or date: servers are known to change such messages silently, so their copies
//! are read back.

use crate::sync::scan::ScannedMessage;

/// What is unusual about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MessageAnomaly {
    /// A NUL byte (Dovecot stores 0x80 instead).
    pub nul: bool,
    /// CR CR LF (Dovecot and Courier drop one CR).
    pub crcrlf: bool,
    /// No line end at the end, and the destination is known to add one (Courier).
    pub no_final_newline: bool,
    /// A byte from 0x80 on in the header (Cyrus makes each an X, unless it is told otherwise).
    pub header_8bit: bool,
    /// A header with a line that is no field, or that no empty line ends (go-imap then delivers nothing, and `GreenMail`
    /// adds a line).
    pub odd_header: bool,
    /// LF without CR, or CR without LF. Where such a message is stored otherwise, its size shows it.
    pub bare_line_end: bool,
    /// A date that servers clamp: before 1971, in the future, or beyond 2037.
    pub date: bool,
}

impl MessageAnomaly {
    /// What is unusual about the date.
    #[must_use]
    pub(crate) fn date_only(self) -> Self {
        Self { date: self.date, ..Self::default() }
    }

    /// True when the bytes, not only the date, may come out changed, and only they themselves show it.
    #[must_use]
    pub(crate) fn in_bytes(self) -> bool {
        self.is_often_changed() || self.header_8bit || self.odd_header
    }

    /// True when the bytes come out changed at servers that are widely used as they are: each such copy is read back.
    #[must_use]
    pub(crate) fn is_often_changed(self) -> bool {
        self.nul || self.crcrlf || self.no_final_newline
    }
}

/// Looks for oddities in bytes that come in pieces.
#[derive(Debug, Default)]
pub(super) struct AnomalyScanner {
    nul: bool,
    crcrlf: bool,
    header_8bit: bool,
    odd_header: bool,
    bare_line_end: bool,
    in_body: bool,
    line: HeaderLine,
    /// Some line of the header ended.
    has_lines: bool,
    last: [u8; 2],
}

/// Where in a line of the header a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum HeaderLine {
    /// Nothing but CR came since the last LF.
    #[default]
    Start,
    /// In a field's name.
    Name,
    /// In a field's value, or in a line that was judged already.
    Value,
}

impl AnomalyScanner {
    /// Looks at the next bytes.
    pub(crate) fn scan(&mut self, bytes: &[u8]) {
        self.nul = self.nul || memchr::memchr(0, bytes).is_some();
        if !self.crcrlf {
            // What lies across two pieces.
            let joined: Vec<u8> = self.last.iter().chain(bytes.iter().take(2)).copied().collect();
            self.crcrlf =
                memchr::memmem::find(bytes, b"\r\r\n").is_some() || memchr::memmem::find(&joined, b"\r\r\n").is_some();
        }
        self.bare_line_end = self.bare_line_end || has_bare_line_end(self.last[1], bytes);
        self.scan_header(bytes);
        for byte in bytes.iter().skip(bytes.len().saturating_sub(2)) {
            self.last = [self.last[1], *byte];
        }
    }

    /// Looks at what of these bytes belongs to the header: it ends with an empty line.
    fn scan_header(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.in_body {
                return;
            }
            self.header_8bit |= !byte.is_ascii();
            self.line = match (byte, self.line) {
                (b'\r', line) => line,
                (b'\n', line) => {
                    self.in_body = line == HeaderLine::Start;
                    self.odd_header |= line == HeaderLine::Name;
                    self.has_lines = true;
                    HeaderLine::Start
                }
                (b' ' | b'\t', HeaderLine::Start) => {
                    // A line that goes on, and there is none before it.
                    self.odd_header |= !self.has_lines;
                    HeaderLine::Value
                }
                (b':', HeaderLine::Name) | (_, HeaderLine::Value) => HeaderLine::Value,
                // RFC 5322, section 2.2: a field's name is of printable characters, without blanks.
                (b'!'..=b'9' | b';'..=b'~', _) => HeaderLine::Name,
                _ => {
                    self.odd_header = true;
                    HeaderLine::Value
                }
            };
        }
    }

    /// What was found in all of it; `adds_newline` says that the destination ends messages with a line end.
    pub(crate) fn finish(&self, adds_newline: bool) -> MessageAnomaly {
        MessageAnomaly {
            nul: self.nul,
            crcrlf: self.crcrlf,
            no_final_newline: adds_newline && self.last[1] != b'\n',
            header_8bit: self.header_8bit,
            odd_header: self.odd_header || !self.in_body,
            bare_line_end: self.bare_line_end || self.last[1] == b'\r',
            date: false,
        }
    }
}

/// True when there is an LF without CR before it, or a CR without LF behind it; `before` is the byte before the first. A CR
/// at the end is not judged.
fn has_bare_line_end(before: u8, bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else { return false };
    if before == b'\r' && *first != b'\n' {
        return true;
    }
    let is_bare_lf = |at: usize| at.checked_sub(1).map_or(Some(&before), |at| bytes.get(at)) != Some(&b'\r');
    let is_lone_cr = |at: usize| bytes.get(at + 1).is_some_and(|next| *next != b'\n');
    memchr::memchr2_iter(b'\r', b'\n', bytes)
        .any(|at| if bytes.get(at) == Some(&b'\n') { is_bare_lf(at) } else { is_lone_cr(at) })
}

/// True when servers are known to refuse or change the message's date.
#[must_use]
pub(crate) fn has_odd_date(message: &ScannedMessage) -> bool {
    let now = jiff::Timestamp::now().as_second();
    message.date().is_some_and(|date| is_clamped_date(date.epoch, now))
}

/// True when servers are known to clamp this date.
pub(super) fn is_clamped_date(epoch: i64, now: i64) -> bool {
    const YEAR: i64 = 365 * 24 * 3600;
    epoch < YEAR || epoch > now || epoch >= i64::from(i32::MAX)
}

/// True when the date cannot be sent at all: some servers take an APPEND with such a date for a syntax error.
pub(super) fn is_unsendable_date(epoch: i64) -> bool {
    const DAY: i64 = 24 * 3600;
    const YEAR_10000: i64 = 253_402_300_800;
    // The very first second is "now" for Cyrus and Courier.
    !(1..YEAR_10000 - 2 * DAY).contains(&epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(pieces: &[&[u8]]) -> MessageAnomaly {
        let mut watch = AnomalyScanner::default();
        for piece in pieces {
            watch.scan(piece);
        }
        watch.finish(true)
    }

    #[test]
    fn a_doubled_cr_is_seen_across_pieces_of_any_length() {
        for pieces in
            [&[b"a\r\r\nb\r\n".as_slice()][..], &[b"a\r", b"\r", b"\n"], &[b"a\r\r", b"\n"], &[b"a\r", b"\r\nb\r\n"]]
        {
            assert!(watched(pieces).crcrlf, "{pieces:?}");
        }
        assert!(!watched(&[b"a\r\n", b"\r\n"]).crcrlf);
    }

    #[test]
    fn nul_and_a_missing_final_newline_are_seen() {
        assert!(watched(&[b"a\0b\r\n"]).nul);
        assert!(watched(&[b"a\r\n", b"b"]).no_final_newline);
        assert!(!watched(&[b"a\r\n", b"b\r\n"]).is_often_changed());
    }

    #[test]
    fn eight_bits_are_odd_in_the_header_and_usual_in_the_body() {
        for pieces in
            [&[b"Subject: Gr\xfc\xdfe\r\n\r\nbody\r\n".as_slice()][..], &[b"A: b\r\nSubject: Gr\xc3", b"\xbc\n\n"]]
        {
            assert!(watched(pieces).header_8bit, "{pieces:?}");
        }
        for pieces in [
            &[b"Subject: a\r\n\r\nGr\xfc\xdfe\r\n".as_slice()][..],
            &[b"Subject: a\n", b"\n\xfc\n"],
            &[b"\r\n\xfc\r\n"],
            &[b"Subject: a\r\n\r", b"\n\xfc\r\n"],
        ] {
            assert!(!watched(pieces).header_8bit, "{pieces:?}");
        }
    }

    #[test]
    fn a_header_of_fields_that_an_empty_line_ends_is_not_odd() {
        for pieces in [
            &[b"Subject: a\r\n\tb\r\nX-Y:\r\n z\r\n\r\nFrom here\r\n".as_slice()][..],
            &[b"A: b\n\nx"],
            &[b"\r\nno header at all\r\n"],
            &[b"A", b": b\r\n", b"\r", b"\nx y\r\n"],
        ] {
            assert!(!watched(pieces).odd_header, "{pieces:?}");
        }
        for message in [
            "x",
            "A: b\r\n",
            "From a@b Mon Jan  1 00:00:00 2001\r\nSubject: m\r\n\r\nx\r\n",
            "this is no header\r\nA: b\r\n\r\n",
            "A: b\r\nword\r\n\r\n",
            " a: b\r\n\r\n",
            ": b\r\n\r\n",
            "A : b\r\n\r\n",
        ] {
            assert!(watched(&[message.as_bytes()]).odd_header, "{message:?}");
        }
    }

    #[test]
    fn bare_line_ends_are_seen_across_pieces() {
        for pieces in
            [&[b"a\nb\r\n".as_slice()][..], &[b"a\r\n", b"\n"], &[b"a\rb\r\n"], &[b"a\r", b"b\r\n"], &[b"a\r"]]
        {
            assert!(watched(pieces).bare_line_end, "{pieces:?}");
        }
        for pieces in [&[b"a\r\nb\r\n".as_slice()][..], &[b"a\r", b"\nb\r", b"\n"], &[b"a"], &[]] {
            assert!(!watched(pieces).bare_line_end, "{pieces:?}");
        }
    }

    #[test]
    fn dates_that_servers_clamp_are_odd() {
        let now = 1_790_000_000;
        assert!(is_clamped_date(0, now));
        assert!(is_clamped_date(now + 1, now));
        assert!(!is_clamped_date(946_684_800, now));
        assert!(is_unsendable_date(-1) && is_unsendable_date(0));
        assert!(!is_unsendable_date(1));
        assert!(!is_unsendable_date(946_684_800));
    }
}
