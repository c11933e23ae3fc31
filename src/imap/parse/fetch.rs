//! FETCH responses.

use bytes::Bytes;

use super::{
    ParseError,
    lexer::{Lexer, clean},
};
use crate::imap::{date::InternalDate, response::FetchResponse};

/// The longest name of a header field that is kept, characters.
const MAX_FIELD: usize = 1000;
/// A section up to this many bytes is copied: it may be held for a while, and must not hold all that was read with it.
const COPIED_SECTION: usize = 16 << 10;

/// What stands after `* 12 FETCH`. An item whose value makes no sense is left out; a response whose items can't be told
/// apart is an error.
pub(super) fn fetch(seq: u32, lexer: &mut Lexer<'_>) -> Result<FetchResponse, ParseError> {
    let mut fetch = FetchResponse { seq, ..FetchResponse::default() };
    lexer.spaces();
    if !lexer.accept(b'(') {
        return Err(lexer.error("the items of FETCH are missing"));
    }
    loop {
        lexer.spaces();
        if lexer.accept(b')') {
            lexer.expect_end()?;
            return Ok(fetch);
        }
        item(&mut fetch, lexer)?;
    }
}

fn item(fetch: &mut FetchResponse, lexer: &mut Lexer<'_>) -> Result<(), ParseError> {
    let name = lexer.item_name();
    if name.is_empty() {
        return Err(lexer.error("the name of a FETCH item is missing"));
    }
    let section = if lexer.peek() == Some(b'[') { Some(section(lexer)?) } else { None };
    lexer.spaces();

    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match section {
        Some((section, origin)) if is("BODY") || is("BODY.PEEK") => {
            let bytes = lexer.nstring()?;
            let bytes = bytes.map(|bytes| own(lexer, bytes));
            // What comes as a part must not pass for the whole. Only of whole messages a part is asked for, their beginning.
            match origin {
                None => fetch.sections.push((section, bytes)),
                Some(0) if section.is_empty() => fetch.sections.push((BEGINNING.to_owned(), bytes)),
                Some(_) => {}
            }
        }
        None if is("UID") => {
            fetch.uid = lexer.number_or_skip()?.and_then(|uid| u32::try_from(uid).ok()).filter(|&uid| uid > 0);
        }
        None if is("FLAGS") => fetch.flags = Some(lexer.flags()?),
        None if is("RFC822.SIZE") => fetch.size = lexer.number_or_skip()?,
        None if is("INTERNALDATE") => {
            fetch.internal_date = Some(if lexer.peek() == Some(b'"') {
                InternalDate::parse(&lexer.quoted()?)
            } else {
                lexer.skip_value()?;
                None
            });
        }
        None if is("MODSEQ") => {
            let listed = lexer.accept(b'(');
            lexer.spaces();
            fetch.modseq = lexer.number_or_skip()?;
            lexer.spaces();
            if listed && !lexer.accept(b')') {
                return Err(lexer.error("MODSEQ does not end"));
            }
        }
        None if is("EMAILID") => {
            let listed = lexer.accept(b'(');
            lexer.spaces();
            let nil = lexer.nil();
            if !nil {
                fetch.email_id = Some(clean(&lexer.astring()?, 255));
            }
            lexer.spaces();
            if listed && !lexer.accept(b')') {
                return Err(lexer.error("EMAILID does not end"));
            }
        }
        None if is("X-GM-MSGID") => fetch.gmail_id = lexer.number_or_skip()?,
        None if is("RFC822") => add_section(fetch, "", lexer)?,
        None if is("RFC822.HEADER") => add_section(fetch, "HEADER", lexer)?,
        None if is("RFC822.TEXT") => add_section(fetch, "TEXT", lexer)?,
        _ => lexer.skip_value()?,
    }
    Ok(())
}

/// How the beginning of a message is named among the sections of a FETCH response (`BODY[]<0>`).
pub(crate) const BEGINNING: &str = "<0>";

fn add_section(fetch: &mut FetchResponse, name: &str, lexer: &mut Lexer<'_>) -> Result<(), ParseError> {
    let bytes = lexer.nstring()?.map(|bytes| own(lexer, bytes));
    fetch.sections.push((name.to_owned(), bytes));
    Ok(())
}

/// A section that holds no more memory than a few times its length, however much came with it.
fn own(lexer: &Lexer<'_>, bytes: Bytes) -> Bytes {
    if bytes.len() <= COPIED_SECTION || bytes.len() < lexer.length() / 2 {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

/// `[HEADER.FIELDS ("Message-ID" "subject")]<0>` as `HEADER.FIELDS (MESSAGE-ID SUBJECT)`: servers send the section back
/// in their own spelling; and from which byte on it is a part of the section, if it is one.
fn section(lexer: &mut Lexer<'_>) -> Result<(String, Option<u64>), ParseError> {
    lexer.accept(b'[');
    let mut section = String::new();
    // Among the names of header fields a bracket is a character as any other.
    let mut in_fields = false;
    loop {
        lexer.spaces();
        if !in_fields && lexer.accept(b']') {
            break;
        }
        if in_fields && lexer.accept(b')') {
            in_fields = false;
            section.push(')');
            continue;
        }
        if !section.is_empty() && !section.ends_with('(') {
            section.push(' ');
        }
        if !in_fields && lexer.accept(b'(') {
            in_fields = true;
            section.push('(');
            continue;
        }
        let start = lexer.place();
        let part = match lexer.peek() {
            Some(b'"' | b'{') => clean(&lexer.string()?, MAX_FIELD),
            _ if in_fields => clean(lexer.atom(), MAX_FIELD),
            _ => clean(lexer.item_name(), MAX_FIELD),
        };
        if lexer.place() == start {
            return Err(lexer.error("a section is malformed"));
        }
        section.push_str(&part);
    }
    section.make_ascii_uppercase();
    let origin = take_origin(lexer);
    Ok((section, origin))
}

/// The origin of a partial, `<2>`; none where there is none.
fn take_origin(lexer: &mut Lexer<'_>) -> Option<u64> {
    if let [b'<', inner @ ..] = lexer.rest()
        && let Some(end) = inner.iter().position(|&byte| !byte.is_ascii_digit() && byte != b'.')
        && inner[end] == b'>'
    {
        let number = std::str::from_utf8(&inner[..end]).ok().and_then(|digits| digits.parse().ok());
        lexer.seek(lexer.place() + end + 2);
        return Some(number.unwrap_or(u64::MAX));
    }
    None
}
