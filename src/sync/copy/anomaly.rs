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
    /// A date that servers clamp: before 1971, in the future, or beyond 2037.
    pub date: bool,
}

impl MessageAnomaly {
    /// True when nothing is unusual.
    #[must_use]
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// True when the bytes, not only the date, may come out changed.
    #[must_use]
    pub(crate) fn in_bytes(self) -> bool {
        self.is_often_changed() || self.header_8bit
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
    in_body: bool,
    /// The line has begun: something but CR came since the last LF.
    in_line: bool,
    last: [u8; 2],
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
            match byte {
                b'\n' => self.in_body = !std::mem::take(&mut self.in_line),
                b'\r' => {}
                _ => {
                    self.in_line = true;
                    self.header_8bit |= !byte.is_ascii();
                }
            }
        }
    }

    /// What was found in all of it; `adds_newline` says that the destination ends messages with a line end.
    pub(crate) fn finish(&self, adds_newline: bool) -> MessageAnomaly {
        MessageAnomaly {
            nul: self.nul,
            crcrlf: self.crcrlf,
            no_final_newline: adds_newline && self.last[1] != b'\n',
            header_8bit: self.header_8bit,
            date: false,
        }
    }
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
        assert!(watched(&[b"a\r\n", b"b\r\n"]).is_none());
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
            assert!(watched(pieces).is_none(), "{pieces:?}");
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
