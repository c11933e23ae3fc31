//! Folder names and other strings in commands.

/// The longest string that goes as a quoted string, bytes: the servers' limits for command lines are low and differ.
const MAX_QUOTED: usize = 1000;

/// A quoted string (RFC 9051, section 4.3) for a command, quotes included; `None` when only a literal can carry the
/// bytes: 8-bit, CR, LF, NUL, or more than 1,000 bytes.
#[must_use]
pub(crate) fn quote_string(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > MAX_QUOTED || bytes.iter().any(|byte| !byte.is_ascii() || matches!(byte, b'\r' | b'\n' | 0)) {
        return None;
    }
    let mut quoted = Vec::with_capacity(bytes.len() + 2);
    quoted.push(b'"');
    for &byte in bytes {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    Some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        for (bytes, quoted) in [
            (&b""[..], &b"\"\""[..]),
            (b"INBOX", b"\"INBOX\""),
            (b"pr q\"uote", b"\"pr q\\\"uote\""),
            (b"b\\s", b"\"b\\\\s\""),
            (b"a\tb{3}", b"\"a\tb{3}\""),
        ] {
            assert_eq!(quote_string(bytes).as_deref(), Some(quoted));
        }
    }

    #[test]
    fn what_could_end_a_quoted_string_or_a_line_is_left_to_a_literal() {
        for bytes in [&b"B\xfcro"[..], "Büro".as_bytes(), b"a\rb", b"a\nb", b"a\0b", &[b'a'; 1001]] {
            assert_eq!(quote_string(bytes), None, "{bytes:?}");
        }
        assert!(quote_string(&[b'a'; 1000]).is_some());
    }
}
