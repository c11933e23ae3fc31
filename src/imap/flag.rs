//! Flags: read as they come, sent only when they are harmless.

use std::borrow::Cow;

use bytes::Bytes;

use super::response::Flag;

/// The longest keyword that is sent, bytes.
const MAX_KEYWORD: usize = 255;

impl Flag {
    /// Any flag or keyword as a server sends it. System flags are recognised in any case; keywords keep theirs.
    #[must_use]
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let Some(name) = raw.strip_prefix(b"\\") else {
            // A copy: a keyword is kept for long, and must not keep the response that it came in. One byte more than can
            // be sent: what is cut off stays too long.
            return Self::Keyword(Bytes::copy_from_slice(cut(raw)));
        };
        if name == b"*" {
            return Self::MayCreate;
        }
        [Self::Answered, Self::Deleted, Self::Draft, Self::Flagged, Self::Recent, Self::Seen]
            .into_iter()
            .find(|flag| flag.system_name().is_some_and(|known| raw.eq_ignore_ascii_case(known.as_bytes())))
            .unwrap_or_else(|| Self::Extension(Bytes::copy_from_slice(cut(raw))))
    }

    /// The flag as text, for people to read; U+FFFD stands for what is not UTF-8. What goes into a command is
    /// [`Self::sendable`].
    #[must_use]
    pub(crate) fn as_imap(&self) -> Cow<'_, str> {
        match self {
            Self::Keyword(raw) | Self::Extension(raw) => String::from_utf8_lossy(raw),
            system => Cow::Borrowed(system.system_name().unwrap_or_default()),
        }
    }

    /// The text that may stand in an APPEND or STORE: the five flags that a client may set, and keywords that are safe
    /// ([`is_safe_keyword`]). `None` for everything else: mail is data, and a flag must not become a command.
    #[must_use]
    pub(crate) fn sendable(&self) -> Option<&str> {
        match self {
            Self::Keyword(raw) if is_safe_keyword(raw) => std::str::from_utf8(raw).ok(),
            Self::Recent | Self::MayCreate | Self::Keyword(_) | Self::Extension(_) => None,
            system => system.system_name(),
        }
    }

    const fn system_name(&self) -> Option<&'static str> {
        match self {
            Self::Answered => Some("\\Answered"),
            Self::Deleted => Some("\\Deleted"),
            Self::Draft => Some("\\Draft"),
            Self::Flagged => Some("\\Flagged"),
            Self::Recent => Some("\\Recent"),
            Self::Seen => Some("\\Seen"),
            Self::MayCreate => Some("\\*"),
            Self::Keyword(_) | Self::Extension(_) => None,
        }
    }
}

/// The beginning of a flag, as much of it as is kept.
fn cut(raw: &[u8]) -> &[u8] {
    raw.get(..=MAX_KEYWORD).unwrap_or(raw)
}

/// True for a 7-bit `atom` (RFC 9051, section 9) of 1 to 255 bytes: without `( ) { % * " \ ]`, space and control
/// characters.
#[must_use]
pub(crate) fn is_safe_keyword(raw: &[u8]) -> bool {
    !raw.is_empty()
        && raw.len() <= MAX_KEYWORD
        && raw.iter().all(|byte| {
            byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn system_flags_are_known_in_any_case() {
        for (raw, flag, sendable) in [
            (&b"\\answered"[..], Flag::Answered, Some("\\Answered")),
            (b"\\DELETED", Flag::Deleted, Some("\\Deleted")),
            (b"\\Draft", Flag::Draft, Some("\\Draft")),
            (b"\\Flagged", Flag::Flagged, Some("\\Flagged")),
            (b"\\Seen", Flag::Seen, Some("\\Seen")),
            (b"\\recent", Flag::Recent, None),
            (b"\\*", Flag::MayCreate, None),
        ] {
            assert_eq!(Flag::parse(raw), flag);
            assert_eq!(flag.sendable(), sendable);
        }
        assert_eq!(Flag::Recent.as_imap(), "\\Recent");
        assert_eq!(Flag::MayCreate.as_imap(), "\\*");
    }

    #[test]
    fn keywords_keep_their_bytes_but_only_harmless_ones_are_sent() {
        for raw in [&b"$Forwarded"[..], b"CamelCase", b"a~b", b"1", b"NIL", b"[Gmail", b"a}b", b"+", b"Seen"] {
            let flag = Flag::parse(raw);
            assert_eq!(flag, Flag::Keyword(Bytes::copy_from_slice(raw)));
            assert_eq!(flag.sendable().map(str::as_bytes), Some(raw));
            assert_eq!(flag.as_imap().as_bytes(), raw);
        }
        for raw in [
            &b""[..],
            b"[Gmail]",
            b"a*b",
            b"foo{bar",
            b"a(b",
            b"a)b",
            b"a%b",
            b"a\"b",
            b"a\\b",
            b"a b",
            b"a\rb",
            b"a\nb",
            b"a\0b",
            b"a\x7fb",
            b"a\xe9b",
            "\u{e9}".as_bytes(),
            &[b'a'; 256],
            b"\\Foo",
            b"\\",
            b"\\Seen2",
        ] {
            assert_eq!(Flag::parse(raw).sendable(), None, "{raw:?}");
        }
        assert!(is_safe_keyword(&[b'a'; 255]));
        assert_eq!(Flag::parse(b"a\xe9").as_imap(), "a\u{fffd}");
        assert_eq!(Flag::parse(b"\\Foo"), Flag::Extension(Bytes::from_static(b"\\Foo")));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_one_word_that_means_the_same_flag(raw in prop::collection::vec(any::<u8>(), 0..8)) {
            let flag = Flag::parse(&raw);
            if let Some(text) = flag.sendable() {
                let harmless = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"(){\"%*]".contains(&byte));
                prop_assert!(harmless);
                prop_assert_eq!(Flag::parse(text.as_bytes()), flag);
            }
        }
    }
}
