//! Folder names: modified UTF-7 (RFC 3501, section 5.1.3).
//!
//! A folder's identity is its raw name. These functions are for showing a name to a person and for giving a folder a
//! name on another server.

use base64::{
    Engine,
    alphabet::IMAP_MUTF7,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// The text of a raw name in canonical form; `None` for every other name, so that two different raw names never give
/// the same text. Not canonical are 8-bit and control characters, a bare `&`, encoded printable ASCII (`&AGE-`) and
/// adjacent shifts.
#[must_use]
pub(crate) fn decode(raw: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    let mut after_shift = false;
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'&' => {
                let end = memchr::memchr(b'-', tail)?;
                let shifted = &tail[..end];
                if shifted.is_empty() {
                    text.push('&');
                } else if after_shift {
                    return None;
                } else {
                    decode_shifted(shifted, &mut text)?;
                }
                after_shift = !shifted.is_empty();
                rest = &tail[end + 1..];
            }
            b' '..=b'~' => {
                text.push(char::from(byte));
                after_shift = false;
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(text)
}

/// What stands between `&` and `-`: UTF-16BE in base64.
fn decode_shifted(shifted: &[u8], text: &mut String) -> Option<()> {
    let utf16 = BASE64.decode(shifted).ok()?;
    let (units, []) = utf16.as_chunks::<2>() else {
        return None;
    };
    for unit in char::decode_utf16(units.iter().map(|&unit| u16::from_be_bytes(unit))) {
        let character = unit.ok()?;
        if is_direct(character) {
            return None;
        }
        text.push(character);
    }
    Some(())
}

/// The text of any raw name, for people to read: decoded where it is modified UTF-7, else as it is, with U+FFFD for what
/// is not UTF-8.
#[must_use]
pub(crate) fn decode_lossy(raw: &[u8]) -> String {
    decode(raw).unwrap_or_else(|| String::from_utf8_lossy(raw).into_owned())
}

/// The raw name of a text.
#[must_use]
pub(crate) fn encode(text: &str) -> String {
    let mut raw = String::with_capacity(text.len());
    let mut shifted = Vec::new();
    for character in text.chars() {
        if is_direct(character) {
            close_shift(&mut shifted, &mut raw);
            raw.push(character);
            if character == '&' {
                raw.push('-');
            }
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                shifted.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    close_shift(&mut shifted, &mut raw);
    raw
}

fn close_shift(shifted: &mut Vec<u8>, raw: &mut String) {
    if !shifted.is_empty() {
        raw.push('&');
        BASE64.encode_string(&shifted, raw);
        raw.push('-');
        shifted.clear();
    }
}

/// Characters that never stand in base64: `&` as `&-`, the others as themselves.
fn is_direct(character: char) -> bool {
    matches!(character, ' '..='~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_decode_and_encode() {
        for (raw, text) in [
            ("", ""),
            ("INBOX", "INBOX"),
            ("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"), // RFC 3501
            ("Entw&APw-rfe", "Entwürfe"),
            ("B&APw-ro", "Büro"),
            ("a&-b", "a&b"),
            ("&-&-", "&&"),
            ("&2D3eAA-", "😀"),
            ("&AAk-", "\t"),
            ("&AH8-", "\u{7f}"),
            ("&APw-&-&APw-", "ü&ü"),
            ("a\"b\\c%*", "a\"b\\c%*"),
        ] {
            assert_eq!(decode(raw.as_bytes()).as_deref(), Some(text), "{raw}");
            assert_eq!(encode(text), raw, "{text}");
        }
    }

    #[test]
    fn what_is_not_canonical_has_no_text_and_is_shown_as_it_is() {
        for raw in [
            "&",
            "a&",
            "a & b",
            "&***-",
            "&APw",
            "&AP-",
            "&APx-",
            "&AGE-",
            "&AC8-",
            "&ACY-",
            "&APw-&APw-",
            "&2D0-",
            "&3gA-",
            "&2D3YPQ-",
            "&A-",
            "&APw=-",
            "&AP/-",
            "Büro",
            "a\tb",
            "a\u{7f}b",
        ] {
            assert_eq!(decode(raw.as_bytes()), None, "{raw}");
            assert_eq!(decode_lossy(raw.as_bytes()), raw);
        }
        assert_eq!(decode_lossy(b"B\xfcro"), "B\u{fffd}ro");
    }

    proptest! {
        #[test]
        fn every_text_round_trips(text in any::<String>()) {
            let raw = encode(&text);
            prop_assert!(raw.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode(raw.as_bytes()), Some(text.clone()));
            prop_assert_eq!(decode_lossy(raw.as_bytes()), text);
        }

        #[test]
        fn characters_beyond_the_basic_plane_round_trip(text in "[a&\u{e9}\u{1f600}-\u{1f64f}\u{10ffff}]{0,12}") {
            prop_assert_eq!(decode(encode(&text).as_bytes()), Some(text));
        }

        #[test]
        fn only_the_canonical_name_gives_a_text(raw in prop::collection::vec(
            prop_oneof![Just(b'&'), Just(b'-'), prop::sample::select(b"AQgwZ2D3eP+,/".to_vec()), any::<u8>()], 0..16
        )) {
            let shown = decode_lossy(&raw);
            if let Some(text) = decode(&raw) {
                prop_assert_eq!(encode(&text).into_bytes(), raw);
                prop_assert_eq!(shown, text);
            }
        }
    }
}
