//! The way that a message took, by its trace fields (RFC 5321, section 4.4): each server that delivers a message adds a
//! Received field, and one that stores it by APPEND adds none. So of two messages that came by other ways none is the copy
//! of the other, whatever else they share.

use sha2::{Digest, Sha256};

/// How a trace field begins.
const FIELD: &[u8] = b"received:";

/// Hashes the Received fields of a header that goes by, in constant memory.
#[derive(Debug, Clone)]
pub(crate) struct TraceHasher {
    hash: Sha256,
    /// Bytes that were not hashed yet.
    pending: Vec<u8>,
    place: LinePlace,
    /// The last field was a trace field: its next lines may follow.
    in_field: bool,
}

/// Where in a line of the header the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePlace {
    /// So many bytes of [`FIELD`] came, and nothing else.
    Name(usize),
    /// In the value of a trace field.
    Value,
    /// In something else.
    Other,
}

impl Default for TraceHasher {
    fn default() -> Self {
        Self { hash: Sha256::new(), pending: Vec::new(), place: LinePlace::Name(0), in_field: false }
    }
}

impl TraceHasher {
    /// Takes the next byte of the header that is no CR and no LF.
    pub(crate) fn take(&mut self, byte: u8) {
        self.place = match self.place {
            LinePlace::Name(0) if byte == b' ' || byte == b'\t' => {
                if self.in_field {
                    LinePlace::Value
                } else {
                    LinePlace::Other
                }
            }
            LinePlace::Name(came) if FIELD.get(came) == Some(&byte.to_ascii_lowercase()) => {
                let came = came + 1;
                self.in_field = came == FIELD.len();
                if self.in_field {
                    self.pending.push(b':');
                    LinePlace::Value
                } else {
                    LinePlace::Name(came)
                }
            }
            LinePlace::Name(_) => {
                self.in_field = false;
                LinePlace::Other
            }
            // How a field is folded, servers change.
            LinePlace::Value if byte > b' ' && byte < 0x7f => {
                self.pending.push(byte);
                LinePlace::Value
            }
            place => place,
        };
    }

    /// Takes the end of a line.
    pub(crate) fn end_line(&mut self) {
        self.place = LinePlace::Name(0);
    }

    /// Hashes what was held back.
    pub(crate) fn flush(&mut self) {
        self.hash.update(&self.pending);
        self.pending.clear();
    }

    /// The hash of all trace fields, which is the same wherever there is none.
    pub(crate) fn finish(mut self) -> [u8; 16] {
        self.flush();
        let mut trace = [0; 16];
        trace.copy_from_slice(&self.hash.finalize()[..16]);
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(header: &str) -> [u8; 16] {
        let mut hasher = TraceHasher::default();
        for byte in header.bytes().filter(|byte| *byte != b'\r') {
            if byte == b'\n' { hasher.end_line() } else { hasher.take(byte) }
        }
        hasher.finish()
    }

    #[test]
    fn only_trace_fields_count_however_they_are_folded() {
        let one = trace("Received: from a by b;\r\n\t1 Jan 2020\r\nSubject: x\r\n y\r\n");
        assert_eq!(one, trace("X-Scanned: yes\nRECEIVED: from a\n by b; 1 Jan 2020\nSubject: changed\n"));
        assert_ne!(one, trace("Received: from a by b; 2 Jan 2020\r\n"));
        assert_ne!(one, trace("Received: from b by c\r\nReceived: from a by b; 1 Jan 2020\r\n"));
        assert_eq!(trace("Subject: x\r\n"), trace("X-Received: a\r\n Received: b\r\n"));
    }
}
