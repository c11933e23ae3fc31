//! Status responses: OK, NO, BAD, BYE, PREAUTH and their response codes.

use super::{
    ParseError,
    lexer::{Lexer, clean, number, number32, upper},
};
use crate::imap::{
    response::{ResponseCode, StatusCondition, StatusLine},
    uid_set::ranges_in,
};

/// The longest text that is kept, characters.
pub(in crate::imap) const MAX_TEXT: usize = 500;
/// No server has more capabilities: of a longer list the first count.
const MAX_WORDS: usize = 1000;
/// The longest MAILBOXID, characters (RFC 8474, section 7).
const MAX_MAILBOX_ID: usize = 255;

/// No APPEND has more messages (RFC 3502): what has more UIDs is not understood.
const MAX_APPENDED: usize = 10_000;

/// The condition of this name.
pub(super) fn status(word: &[u8]) -> Option<StatusCondition> {
    let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
    Some(match word.first()?.to_ascii_uppercase() {
        b'O' if is("OK") => StatusCondition::Ok,
        b'N' if is("NO") => StatusCondition::No,
        b'B' if is("BAD") => StatusCondition::Bad,
        b'B' if is("BYE") => StatusCondition::Bye,
        b'P' if is("PREAUTH") => StatusCondition::PreAuth,
        _ => return None,
    })
}

/// What stands after the condition. Only a second line is an error: a code that can't be read is kept by its name, and
/// what has no end is text.
pub(super) fn status_line(status: StatusCondition, lexer: &mut Lexer<'_>) -> Result<StatusLine, ParseError> {
    if memchr::memchr(b'\n', lexer.rest()).is_some() {
        return Err(lexer.error("more than one line"));
    }
    lexer.spaces();
    let start = lexer.place();
    let code = code(lexer);
    if code.is_none() {
        lexer.seek(start);
    }
    Ok(StatusLine { status, code, text: clean(lexer.rest(), MAX_TEXT) })
}

/// `[UIDNEXT 5]`; `None` where there is no complete code.
fn code(lexer: &mut Lexer<'_>) -> Option<ResponseCode> {
    if !lexer.accept(b'[') {
        return None;
    }
    lexer.spaces();
    let name = upper(lexer.item_name());
    if name.is_empty() {
        return None;
    }
    lexer.spaces();
    if name == "PERMANENTFLAGS" {
        // Keywords may hold brackets (`[Gmail]`), so the list is read before the end of the code is looked for.
        let start = lexer.place();
        if let Ok(flags) = lexer.flags() {
            lexer.spaces();
            if lexer.accept(b']') {
                return Some(ResponseCode::PermanentFlags(flags));
            }
        }
        lexer.seek(start);
    }
    let rest = lexer.rest();
    let end = end_of_code(rest)?;
    lexer.seek(lexer.place() + end + 1);
    let known = parse_known(&name, rest[..end].trim_ascii());
    Some(known.unwrap_or(ResponseCode::Other(name)))
}

/// Where the code's closing bracket is: a bracket in a quoted string is none, unless the string has no end.
fn end_of_code(rest: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut bytes = rest.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quoted => {
                bytes.next();
            }
            b'"' => quoted = !quoted,
            b']' if !quoted => return Some(at),
            _ => {}
        }
    }
    memchr::memchr(b']', rest)
}

fn parse_known(name: &str, value: &[u8]) -> Option<ResponseCode> {
    Some(match name {
        "APPENDUID" => {
            let mut parts = value.split(|&byte| byte == b' ').filter(|part| !part.is_empty());
            let uid_validity = number32(parts.next()?).filter(|&number| number > 0)?;
            let uids = ranges_in(std::str::from_utf8(parts.next()?).ok()?).take(MAX_APPENDED + 1);
            let uids = uids.collect::<Option<Vec<_>>>().filter(|uids| uids.len() <= MAX_APPENDED)?;
            if parts.next().is_some() {
                return None;
            }
            ResponseCode::AppendUid { uid_validity, uids }
        }
        "CAPABILITY" => ResponseCode::Capability(words(value)),
        "HIGHESTMODSEQ" => ResponseCode::HighestModSeq(number(value)?),
        "MAILBOXID" => {
            let id = clean(value.strip_prefix(b"(")?.strip_suffix(b")")?.trim_ascii(), MAX_MAILBOX_ID);
            ResponseCode::MailboxId(Some(id).filter(|id| !id.is_empty())?)
        }
        "MESSAGELIMIT" => {
            let mut numbers = value.split(|&byte| byte == b' ').filter(|part| !part.is_empty()).map(number32);
            let limit = numbers.next()??;
            ResponseCode::MessageLimit { limit, lowest_uid: numbers.next().flatten() }
        }
        "NOMODSEQ" => ResponseCode::NoModSeq,
        "READ-ONLY" => ResponseCode::ReadOnly,
        "READ-WRITE" => ResponseCode::ReadWrite,
        "TRYCREATE" => ResponseCode::TryCreate,
        "UIDNEXT" => ResponseCode::UidNext(number32(value)?),
        "UIDVALIDITY" => ResponseCode::UidValidity(number32(value)?),
        _ => return None,
    })
}

/// Words between spaces, upper-cased; the first [`MAX_WORDS`].
pub(super) fn words(text: &[u8]) -> Vec<String> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).take(MAX_WORDS).map(upper).collect()
}
