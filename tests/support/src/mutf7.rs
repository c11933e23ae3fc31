//! Modified UTF-7 (RFC 3501, section 5.1.3), written apart from the product's so that each tests the other.

use base64::{Engine as _, alphabet::IMAP_MUTF7, engine::GeneralPurpose, engine::general_purpose::NO_PAD};

const BASE64: GeneralPurpose = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);

/// A folder name as it travels.
#[must_use]
pub fn encode(name: &str) -> String {
    let mut out = String::new();
    let mut shifted: Vec<u8> = Vec::new();
    let flush = |shifted: &mut Vec<u8>, out: &mut String| {
        if !shifted.is_empty() {
            out.push('&');
            out.push_str(&BASE64.encode(&*shifted));
            out.push('-');
            shifted.clear();
        }
    };
    for c in name.chars() {
        if matches!(c, ' '..='~') {
            flush(&mut shifted, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shifted.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    flush(&mut shifted, &mut out);
    out
}

/// What a folder name that travelled says. Panics where it is not modified UTF-7.
#[must_use]
pub fn decode(raw: &str) -> String {
    let mut out = String::new();
    let mut rest = raw;
    while let Some((plain, shifted)) = rest.split_once('&') {
        out.push_str(plain);
        let (code, after) = shifted.split_once('-').unwrap_or_else(|| panic!("unended shift in {raw:?}"));
        if code.is_empty() {
            out.push('&');
        } else {
            let bytes = BASE64.decode(code).unwrap_or_else(|e| panic!("{raw:?}: {e}"));
            let units: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            out.push_str(&String::from_utf16(&units).unwrap_or_else(|e| panic!("{raw:?}: {e}")));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (name, raw) in [
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("Hi Mom -☺-!", "Hi Mom -&Jjo--!"),
            ("R&D", "R&-D"),
            ("📬", "&2D3c7A-"),
        ] {
            assert_eq!(encode(name), raw);
            assert_eq!(decode(raw), name);
        }
    }
}
