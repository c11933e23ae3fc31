//! From the bytes of one response to its meaning.
//!
//! Liberal where servers are known to differ from RFC 9051, strict where a wrong guess could lose mail: a response that
//! would read as "nothing there" when it is damaged (FETCH, LIST, LSUB, STATUS, SEARCH, ESEARCH, VANISHED) is an error,
//! all other damage and all that is unknown is [`UntaggedResponse::Other`].

mod data;
mod error;
mod fetch;
mod lexer;
mod status;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::error::ParseError;
pub(crate) use self::fetch::BEGINNING;
use self::lexer::{Lexer, clean, number32, upper};
pub(in crate::imap) use self::status::MAX_TEXT;
use super::response::{Response, UntaggedResponse};

/// Reads one complete response (RFC 9051, section 7): its bytes with all literals in place and the final line end
/// (CRLF, or LF alone). Large sections of messages share `raw` and keep it alive; all else is copied.
///
/// # Errors
/// [`ParseError`] for what is not one response, and for damage that could hide a message or a folder.
#[expect(clippy::needless_pass_by_value, reason = "the response is given away: what is made of it shares its bytes")]
pub fn parse(raw: Bytes) -> Result<Response, ParseError> {
    let mut lexer = Lexer::new(&raw)?;
    lexer.spaces();
    match lexer.peek() {
        Some(b'*') => {
            lexer.accept(b'*');
            lexer.spaces();
            untagged(&mut lexer).map(Response::Untagged)
        }
        Some(b'+') => {
            lexer.accept(b'+');
            Ok(Response::Continue(clean(lexer.rest(), usize::MAX)))
        }
        // Blank lines between responses mean nothing.
        None => Ok(Response::Untagged(UntaggedResponse::Other(String::new()))),
        Some(_) => tagged(&mut lexer),
    }
}

fn tagged(lexer: &mut Lexer<'_>) -> Result<Response, ParseError> {
    let error = lexer.error("neither a tag nor untagged data");
    let tag = std::str::from_utf8(lexer.word()).map_err(|_| error)?;
    lexer.spaces();
    let status = status::status(lexer.word()).ok_or(error)?;
    let line = status::status_line(status, lexer)?;
    Ok(Response::Tagged { tag: tag.to_owned(), line })
}

fn untagged(lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    let start = lexer.place();
    let word = lexer.atom();
    if word.first().is_some_and(u8::is_ascii_digit) {
        return numbered(word, start, lexer);
    }
    if let Some(status) = status::status(word) {
        return status::status_line(status, lexer).map(UntaggedResponse::Status);
    }
    let name = upper(word);
    match name.as_str() {
        "LIST" => data::list(lexer).map(UntaggedResponse::List),
        "LSUB" => data::list(lexer).map(UntaggedResponse::Lsub),
        "STATUS" => data::folder_status(lexer).map(UntaggedResponse::FolderStatus),
        "SEARCH" => data::search(lexer),
        "ESEARCH" => data::esearch(lexer),
        "VANISHED" => data::vanished(lexer),
        "CAPABILITY" => Ok(UntaggedResponse::Capability(status::words(lexer.rest()))),
        "ENABLED" => Ok(UntaggedResponse::Enabled(status::words(lexer.rest()))),
        "FLAGS" => {
            lexer.spaces();
            Ok(lexer.flags().map_or(UntaggedResponse::Other(name), UntaggedResponse::Flags))
        }
        "NAMESPACE" => {
            let namespaces = data::namespaces(lexer);
            Ok(namespaces.map_or(UntaggedResponse::Other(name), UntaggedResponse::Namespace))
        }
        "QUOTA" => Ok(data::quota(lexer).unwrap_or(UntaggedResponse::Other(name))),
        "QUOTAROOT" => Ok(data::quota_root(lexer).unwrap_or(UntaggedResponse::Other(name))),
        "ID" => Ok(data::id(lexer).unwrap_or(UntaggedResponse::Other(name))),
        _ => Ok(UntaggedResponse::Other(name)),
    }
}

/// `* 12 EXISTS` and its like.
fn numbered(word: &[u8], start: usize, lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    lexer.spaces();
    let name = lexer.atom();
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let number = number32(word).ok_or(ParseError { what: "a message number is malformed", at: start });
    let untagged = if is("FETCH") {
        return fetch::fetch(number?, lexer).map(UntaggedResponse::Fetch);
    } else if is("EXISTS") {
        UntaggedResponse::Exists(number?)
    } else if is("RECENT") {
        UntaggedResponse::Recent(number?)
    } else if is("EXPUNGE") {
        UntaggedResponse::Expunge(number?)
    } else {
        return Ok(UntaggedResponse::Other(upper(name)));
    };
    lexer.expect_end()?;
    Ok(untagged)
}
