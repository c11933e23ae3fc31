//! Untagged data about folders and accounts.

use bytes::Bytes;
use memchr::{memchr, memmem, memrchr};

use super::{
    ParseError,
    lexer::{Lexer, clean, number, number32, upper},
};
use crate::imap::{
    response::{FolderStatus, ListItem, NamespaceDescriptor, NamespaceResponse, QuotaResource, UntaggedResponse},
    uid_set::UidSet,
};

/// The longest identifier or other short text that is kept, characters.
const MAX_NAME: usize = 1000;
/// Of lists of a few things (attributes of a folder, namespaces, what an ID says) so many are kept.
const MAX_LISTED: usize = 100;
/// No folder has more bytes: a larger SIZE counts as not told, so that the sum over all folders stays a number.
const MAX_FOLDER_BYTES: u64 = 1 << 43;

/// LIST and LSUB.
pub(super) fn list(lexer: &mut Lexer<'_>) -> Result<ListItem, ParseError> {
    lexer.spaces();
    let attributes = if lexer.nil() {
        Vec::new()
    } else {
        lexer.words_in_parentheses()?.take(MAX_LISTED).map(|word| clean(word, MAX_NAME)).collect()
    };
    lexer.spaces();
    let delimiter = delimiter(lexer)?;
    lexer.spaces();
    let name = list_name(lexer)?;
    Ok(ListItem { attributes, delimiter, name })
}

fn delimiter(lexer: &mut Lexer<'_>) -> Result<Option<u8>, ParseError> {
    if lexer.rest().starts_with(b"\"\\\" ") {
        lexer.seek(lexer.place() + 3);
        return Ok(Some(b'\\')); // sent without its escape
    }
    let error = lexer.error("the hierarchy delimiter is not one character");
    match lexer.nstring()?.as_deref() {
        None | Some([]) => Ok(None),
        Some([delimiter]) => Ok(Some(*delimiter)),
        Some(_) => Err(error),
    }
}

/// The name at the end of a LIST response. What follows it can only be extended data in parentheses, so a name that
/// breaks its own quoting (`"pr q"uote"`, seen on `GreenMail`) goes up to the last quote of the line.
fn list_name(lexer: &mut Lexer<'_>) -> Result<Bytes, ParseError> {
    let start = lexer.place();
    if let Ok(name) = folder_name(lexer)
        && only_extended_data_follows(lexer)
    {
        // A copy: a listing is kept for long, and must not keep all responses that it came in.
        return Ok(Bytes::copy_from_slice(&name));
    }
    lexer.seek(start);
    let rest = lexer.rest();
    if memchr(b'\n', rest).is_some() {
        return Err(lexer.error("a folder name spans lines"));
    }
    let (from, to) = match rest {
        [b'"', inner @ ..] => (1, 1 + memrchr(b'"', inner).ok_or(lexer.error("a folder name does not end"))?),
        _ => (0, rest.trim_ascii_end().len()),
    };
    if rest.is_empty() {
        return Err(lexer.error("the folder name is missing"));
    }
    Ok(Bytes::copy_from_slice(&lexer.slice(start + from, start + to)))
}

fn only_extended_data_follows(lexer: &mut Lexer<'_>) -> bool {
    let apart = lexer.peek() == Some(b' ');
    lexer.at_end() || (apart && lexer.peek() == Some(b'(') && lexer.skip_value().is_ok() && lexer.at_end())
}

/// A string, or the bytes up to the next space, parentheses too.
fn folder_name(lexer: &mut Lexer<'_>) -> Result<Bytes, ParseError> {
    if lexer.is_string() {
        return lexer.string();
    }
    let start = lexer.place();
    if lexer.word().is_empty() {
        return Err(lexer.error("the folder name is missing"));
    }
    Ok(lexer.slice(start, lexer.place()))
}

/// STATUS.
pub(super) fn folder_status(lexer: &mut Lexer<'_>) -> Result<FolderStatus, ParseError> {
    lexer.spaces();
    let start = lexer.place();
    if let Ok(name) = folder_name(lexer)
        && let Ok(status) = status_items(&name, lexer, Damage::IsAnError)
    {
        return Ok(status);
    }
    let error = match status_of_odd_name(start, lexer) {
        Ok(status) => return Ok(status),
        Err(error) => error,
    };
    lexer.seek(start);
    let name = folder_name(lexer)?;
    status_items(&name, lexer, Damage::EndsTheItems).map_err(|_| error)
}

fn status_of_odd_name(start: usize, lexer: &mut Lexer<'_>) -> Result<FolderStatus, ParseError> {
    // A name that breaks its own quoting, or that should have been quoted.
    lexer.seek(start);
    let rest = lexer.rest();
    let (from, found) = match rest {
        [b'"', ..] => (1, memmem::rfind(&rest[1..], b"\" (").map(|at| at + 1)),
        _ => (0, memmem::find(rest, b" (")),
    };
    let to = found.ok_or(lexer.error("the items of STATUS are missing"))?;
    if memchr(b'\n', &rest[..to]).is_some() {
        return Err(lexer.error("a folder name spans lines"));
    }
    lexer.seek(start + to + from);
    status_items(&lexer.slice(start + from, start + to), lexer, Damage::IsAnError)
}

/// What an item that can't be read means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// That nothing is understood: perhaps the name was misread.
    IsAnError,
    /// That what was told before it counts, and the rest as not told (Cyrus 3.6 sends garbage for MAILBOXID).
    EndsTheItems,
}

fn status_items(name: &[u8], lexer: &mut Lexer<'_>, damage: Damage) -> Result<FolderStatus, ParseError> {
    let mut status = FolderStatus { name: Bytes::copy_from_slice(name), ..FolderStatus::default() };
    lexer.spaces();
    if !lexer.accept(b'(') {
        return Err(lexer.error("the items of STATUS are missing"));
    }
    loop {
        lexer.spaces();
        if lexer.accept(b')') {
            lexer.expect_end()?;
            return Ok(status);
        }
        match status_item(&mut status, lexer) {
            Ok(()) => {}
            Err(_) if damage == Damage::EndsTheItems && status.messages.is_some() => return Ok(status),
            Err(error) => return Err(error),
        }
    }
}

fn status_item(status: &mut FolderStatus, lexer: &mut Lexer<'_>) -> Result<(), ParseError> {
    let item = lexer.atom();
    if item.is_empty() {
        return Err(lexer.error("a STATUS item is malformed"));
    }
    lexer.spaces();
    let is = |known: &str| item.eq_ignore_ascii_case(known.as_bytes());
    let value = lexer.number_or_skip()?;
    let value32 = value.and_then(|value| u32::try_from(value).ok());
    if is("MESSAGES") {
        status.messages = value32;
    } else if is("UIDNEXT") {
        status.uid_next = value32;
    } else if is("UIDVALIDITY") {
        status.uid_validity = value32;
    } else if is("HIGHESTMODSEQ") {
        status.highest_modseq = value;
    } else if is("SIZE") {
        status.size = value.filter(|size| *size <= MAX_FOLDER_BYTES);
    } else if is("APPENDLIMIT") {
        // maddy says 0 where it has none.
        status.append_limit = value.filter(|limit| *limit > 0);
    }
    Ok(())
}

/// SEARCH. What is not a number is an error: a shortened answer would prove the absence of messages that exist.
pub(super) fn search(lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    let mut modseq = None;
    let mut failed = None;
    let numbers = std::iter::from_fn(|| {
        lexer.spaces();
        if lexer.at_end() || lexer.peek() == Some(b'(') {
            return None;
        }
        let number = number32(lexer.atom());
        if number.is_none() {
            failed = Some(lexer.error("SEARCH holds what is not a number"));
        }
        number
    })
    .collect::<UidSet>();
    if let Some(failed) = failed {
        return Err(failed);
    }
    if lexer.peek() == Some(b'(') {
        let mut words = lexer.words_in_parentheses()?;
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case(b"MODSEQ") {
                modseq = words.next().and_then(number);
            }
        }
        lexer.expect_end()?;
    }
    Ok(UntaggedResponse::Search { numbers, modseq })
}

/// ESEARCH (RFC 4731).
pub(super) fn esearch(lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    let (mut tag, mut uid, mut all, mut count, mut modseq) = (None, false, UidSet::new(), None, None);
    lexer.spaces();
    if lexer.accept(b'(') {
        loop {
            lexer.spaces();
            if lexer.accept(b')') {
                break;
            }
            let name = lexer.atom();
            lexer.spaces();
            let value = lexer.astring()?;
            if name.eq_ignore_ascii_case(b"TAG") {
                tag = Some(clean(&value, MAX_NAME));
            }
        }
    }
    while !lexer.at_end() {
        let name = lexer.atom();
        if name.is_empty() {
            return Err(lexer.error("ESEARCH is malformed"));
        }
        lexer.spaces();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("UID") {
            uid = true;
        } else if is("ALL") {
            all = uid_set(lexer)?;
        } else if is("COUNT") {
            count = lexer.number_or_skip()?;
        } else if is("MODSEQ") {
            modseq = lexer.number_or_skip()?;
        } else {
            lexer.skip_value()?;
        }
    }
    Ok(UntaggedResponse::Esearch { tag, uid, all, count, modseq })
}

/// VANISHED (RFC 7162).
pub(super) fn vanished(lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    lexer.spaces();
    let earlier =
        lexer.peek() == Some(b'(') && lexer.words_in_parentheses()?.any(|word| word.eq_ignore_ascii_case(b"EARLIER"));
    let uids = if lexer.at_end() { UidSet::new() } else { uid_set(lexer)? };
    lexer.expect_end()?;
    Ok(UntaggedResponse::Vanished { earlier, uids })
}

fn uid_set(lexer: &mut Lexer<'_>) -> Result<UidSet, ParseError> {
    let error = lexer.error("a set of numbers is malformed");
    std::str::from_utf8(lexer.atom()).ok().and_then(UidSet::parse).ok_or(error)
}

/// NAMESPACE (RFC 2342), extensions skipped.
pub(super) fn namespaces(lexer: &mut Lexer<'_>) -> Result<NamespaceResponse, ParseError> {
    Ok(NamespaceResponse {
        personal: namespace_list(lexer)?,
        other_users: namespace_list(lexer)?,
        shared: namespace_list(lexer)?,
    })
}

fn namespace_list(lexer: &mut Lexer<'_>) -> Result<Vec<NamespaceDescriptor>, ParseError> {
    let mut list = Vec::new();
    if lexer.at_end() || lexer.nil() {
        return Ok(list);
    }
    if !lexer.accept(b'(') {
        return Err(lexer.error("NAMESPACE is malformed"));
    }
    loop {
        lexer.spaces();
        if lexer.accept(b')') {
            return Ok(list);
        }
        if !lexer.accept(b'(') {
            return Err(lexer.error("NAMESPACE is malformed"));
        }
        lexer.spaces();
        let prefix = lexer.string()?;
        lexer.spaces();
        let delimiter = delimiter(lexer)?;
        if list.len() < MAX_LISTED {
            list.push(NamespaceDescriptor { prefix: Bytes::copy_from_slice(&prefix), delimiter });
        }
        loop {
            lexer.spaces();
            if lexer.accept(b')') {
                break;
            }
            lexer.skip_value()?;
        }
    }
}

/// QUOTA (RFC 9208). A resource whose numbers make no sense is left out.
pub(super) fn quota(lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    lexer.spaces();
    let root = clean(&lexer.astring()?, MAX_NAME);
    lexer.spaces();
    let mut words = lexer.words_in_parentheses()?;
    let mut resources = Vec::new();
    while let Some(name) = words.next() {
        let (usage, limit) = (words.next().and_then(number), words.next().and_then(number));
        if let (Some(usage), Some(limit)) = (usage, limit)
            && resources.len() < MAX_LISTED
        {
            resources.push(QuotaResource { name: upper(name), usage, limit });
        }
    }
    lexer.expect_end()?;
    Ok(UntaggedResponse::Quota { root, resources })
}

/// QUOTAROOT (RFC 9208).
pub(super) fn quota_root(lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    lexer.spaces();
    let folder = folder_name(lexer)?;
    let mut roots = Vec::new();
    while !lexer.at_end() && roots.len() < MAX_LISTED {
        roots.push(clean(&lexer.astring()?, MAX_NAME));
    }
    Ok(UntaggedResponse::QuotaRoot { folder, roots })
}

/// ID (RFC 2971).
pub(super) fn id(lexer: &mut Lexer<'_>) -> Result<UntaggedResponse, ParseError> {
    let mut pairs = Vec::new();
    lexer.spaces();
    if lexer.at_end() || lexer.nil() {
        return Ok(UntaggedResponse::Id(pairs));
    }
    if !lexer.accept(b'(') {
        return Err(lexer.error("ID is malformed"));
    }
    loop {
        lexer.spaces();
        if lexer.accept(b')') {
            lexer.expect_end()?;
            return Ok(UntaggedResponse::Id(pairs));
        }
        let key = clean(&lexer.string()?, MAX_NAME);
        lexer.spaces();
        let value = lexer.nstring()?.map(|value| clean(&value, MAX_NAME));
        if pairs.len() < MAX_LISTED {
            pairs.push((key, value));
        }
    }
}
