//! What spreadsheets make of text: UTF-8 with a mark, UTF-16, Windows-1252; and what is no text at all.

use std::fmt;

use clap::ValueEnum;
use encoding_rs::{DecoderResult, Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// How a file's bytes stand for characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TableEncoding {
    /// UTF-16 where the file starts like it; else bytes are taken as they are, which is right for UTF-8.
    #[default]
    Auto,
    /// UTF-8; anything else is refused.
    #[value(name = "utf-8")]
    Utf8,
    /// UTF-16, little-endian unless the file says otherwise.
    #[value(name = "utf-16")]
    Utf16,
    /// What Western Windows programs write; a superset of Latin-1.
    #[value(name = "windows-1252", alias = "latin1", alias = "iso-8859-1", alias = "cp1252")]
    Windows1252,
}

/// A file's text: UTF-8, or bytes of unknown meaning among it where the encoding was not given.
pub struct DecodedText {
    /// Without a byte order mark.
    pub bytes: Zeroizing<Vec<u8>>,
    /// What it was read as, where that was not plain UTF-8.
    pub read_as: Option<&'static str>,
}

impl fmt::Debug for DecodedText {
    /// Without the text: it holds passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("read_as", &self.read_as).finish_non_exhaustive()
    }
}

/// Reads a file's bytes; `name` is used in errors.
///
/// # Errors
/// Configuration when this is no text, or not in the encoding that was given.
pub fn decode(name: &str, bytes: &[u8], encoding: TableEncoding) -> Result<DecodedText> {
    if let Some((what, advice)) = no_table(bytes) {
        return Err(Error::configuration(format!("{name} is {what}")).advice(advice));
    }
    let read = match encoding {
        TableEncoding::Auto => match utf16_order(bytes) {
            Some(encoding) => utf16(name, bytes, encoding)?,
            None => DecodedText { bytes: without_mark(bytes), read_as: None },
        },
        TableEncoding::Utf8 => {
            let text = DecodedText { bytes: without_mark(bytes), read_as: None };
            if let Err(error) = std::str::from_utf8(&text.bytes) {
                let line = 1 + memchr::memchr_iter(b'\n', &text.bytes[..error.valid_up_to()]).count();
                return Err(Error::configuration(format!("{name}, line {line}: this is not UTF-8"))
                    .advice("Save the file as UTF-8, or say what it is: --encoding windows-1252"));
            }
            text
        }
        TableEncoding::Utf16 => utf16(name, bytes, utf16_order(bytes).unwrap_or(UTF_16LE))?,
        TableEncoding::Windows1252 => DecodedText {
            // No byte is malformed: the five that Windows leaves open are read as in Latin-1, as browsers do it.
            bytes: to_utf8(bytes, WINDOWS_1252).unwrap_or_else(|read| read),
            read_as: Some("Windows-1252"),
        },
    };
    if memchr::memchr(b'\n', &read.bytes).is_none() && memchr::memchr(b'\r', &read.bytes).is_some() {
        return Err(Error::configuration(format!("{name} has line ends of old Macintoshes (CR alone)"))
            .advice("Save it as `CSV UTF-8`"));
    }
    Ok(read)
}

/// What people give instead of a CSV, by its first bytes.
fn no_table(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const SAVE: &str = "Open it in the spreadsheet program and save it as CSV";
    [
        (&b"PK\x03\x04"[..], "a spreadsheet (xlsx, ods) or a ZIP archive, not a CSV", SAVE),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook, not a CSV", SAVE),
        (b"\x1f\x8b", "compressed", "Decompress it first: gunzip -c FILE | mailferry import -"),
        (b"%PDF", "a PDF, not a CSV", "Export the list as CSV"),
        (b"\xff\xfe\0\0", "UTF-32", "Save it as UTF-8"),
    ]
    .into_iter()
    .find_map(|(start, what, advice)| bytes.starts_with(start).then_some((what, advice)))
}

/// UTF-8 without the byte order marks at its start.
fn without_mark(mut bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    while let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        bytes = rest;
    }
    Zeroizing::new(bytes.to_vec())
}

/// Which UTF-16 this is, by its mark, or by a header of ASCII: every other byte of it is zero.
fn utf16_order(bytes: &[u8]) -> Option<&'static Encoding> {
    match bytes {
        [0xff, 0xfe, ..] | [1..=0x7f, 0, 1..=0x7f, 0, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] | [0, 1..=0x7f, 0, 1..=0x7f, ..] => Some(UTF_16BE),
        _ => None,
    }
}

fn utf16(name: &str, bytes: &[u8], encoding: &'static Encoding) -> Result<DecodedText> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text = to_utf8(pairs.as_flattened(), encoding).map_err(|read| {
        let line = 1 + memchr::memchr_iter(b'\n', &read).count();
        Error::configuration(format!("{name}, line {line}: this is not UTF-16")).advice("Save the file as UTF-8")
    })?;
    if !rest.is_empty() {
        return Err(Error::configuration(format!("{name} is UTF-16, but ends in the middle of a character"))
            .advice("The file may be cut off: export it again"));
    }
    Ok(DecodedText { bytes: without_mark(&text), read_as: Some("UTF-16") })
}

/// The text as UTF-8, a byte order mark included; as an error, what stands before the first malformed character. The
/// space for all of it is taken at once, so that growing leaves no copy of a password behind.
fn to_utf8(bytes: &[u8], encoding: &'static Encoding) -> Result<Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let longest = decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or_default();
    let mut text = Zeroizing::new(vec![0; longest]);
    let (result, _, written) = decoder.decode_to_utf8_without_replacement(bytes, &mut text, true);
    text.truncate(written);
    match result {
        DecoderResult::InputEmpty => Ok(text),
        DecoderResult::Malformed(..) | DecoderResult::OutputFull => Err(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], encoding: TableEncoding) -> Vec<u8> {
        decode("f", bytes, encoding).unwrap().bytes.to_vec()
    }

    fn utf16_bytes(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_spreadsheets_encodings_are_told_by_their_first_bytes() {
        let text = "user;pässwörd 🎉\r\n";
        assert_eq!(read(format!("\u{feff}{text}").as_bytes(), TableEncoding::Auto), text.as_bytes());
        for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(read(&utf16_bytes(text, bytes), TableEncoding::Auto), text.as_bytes());
            assert_eq!(read(&utf16_bytes(&format!("\u{feff}{text}"), bytes), TableEncoding::Auto), text.as_bytes());
        }
    }

    #[test]
    fn windows_1252_is_read_on_request_and_kept_as_bytes_otherwise() {
        assert_eq!(read(b"a,\x80\xe4\xff\n", TableEncoding::Windows1252), "a,€äÿ\n".as_bytes());
        assert_eq!(
            read(b"a,\x81\x8d\x8f\x90\x9d", TableEncoding::Windows1252),
            "a,\u{81}\u{8d}\u{8f}\u{90}\u{9d}".as_bytes()
        );
        assert_eq!(read(b"a,\x80\xe4\xff\n", TableEncoding::Auto), b"a,\x80\xe4\xff\n");
        let error = decode("f", b"a\nb\xff\n", TableEncoding::Utf8).unwrap_err().to_string();
        assert!(error.contains("f, line 2: this is not UTF-8"), "{error}");
    }

    #[test]
    fn what_is_no_csv_is_refused_by_what_it_is() {
        for (bytes, what) in [
            (&b"PK\x03\x04rest"[..], "a spreadsheet (xlsx, ods)"),
            (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
            (b"\x1f\x8b\x08", "compressed"),
            (b"a,b\rc,d\r", "line ends of old Macintoshes"),
            (b"\xff\xfea\0b", "ends in the middle of a character"),
            (b"\xff\xfe\0\xd8a\0", "line 1: this is not UTF-16"),
            (b"\xff\xfea\0\n\0\0\xd8\n\0", "line 2: this is not UTF-16"),
        ] {
            let error = decode("f", bytes, TableEncoding::Auto).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_utf8_is_left_as_it_is(text in "[a-z]{2}[^\u{0}\r]*") {
            prop_assert_eq!(read(text.as_bytes(), TableEncoding::Auto), text.as_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            for encoding in [TableEncoding::Auto, TableEncoding::Utf8, TableEncoding::Utf16, TableEncoding::Windows1252] {
                let _ = decode("f", &bytes, encoding);
            }
        }
    }
}
