//! What servers send, and what it means.

mod any_bytes;
mod fetch;
mod folders;
mod reference;
mod statuses;

use bytes::Bytes;

use super::*;
use crate::error::Error;
use crate::imap::{
    date::InternalDate,
    response::{
        FetchResponse, Flag, FolderStatus, ListItem, NamespaceDescriptor, NamespaceResponse, QuotaResource,
        ResponseCode, StatusCondition, StatusLine,
    },
    uid_set::UidSet,
};

/// The response of one line; the line end is added.
fn read(line: impl AsRef<[u8]>) -> Response {
    let line = line.as_ref();
    parse([line, b"\r\n"].concat().into()).unwrap_or_else(|error| panic!("{}: {error}", line.escape_ascii()))
}

fn data(line: impl AsRef<[u8]>) -> UntaggedResponse {
    let line = line.as_ref();
    match read(line) {
        Response::Untagged(untagged) => untagged,
        other => panic!("{}: {other:?}", line.escape_ascii()),
    }
}

fn fetch(line: impl AsRef<[u8]>) -> FetchResponse {
    match data(line) {
        UntaggedResponse::Fetch(fetch) => fetch,
        other => panic!("{other:?}"),
    }
}

fn list(line: impl AsRef<[u8]>) -> ListItem {
    match data(line) {
        UntaggedResponse::List(item) | UntaggedResponse::Lsub(item) => item,
        other => panic!("{other:?}"),
    }
}

fn folder_status(line: impl AsRef<[u8]>) -> FolderStatus {
    match data(line) {
        UntaggedResponse::FolderStatus(status) => status,
        other => panic!("{other:?}"),
    }
}

fn status(line: impl AsRef<[u8]>) -> StatusLine {
    match read(line) {
        Response::Tagged { line, .. } | Response::Untagged(UntaggedResponse::Status(line)) => line,
        other => panic!("{other:?}"),
    }
}

fn code(line: impl AsRef<[u8]>) -> ResponseCode {
    status(line).code.expect("a code")
}

fn fails(line: impl AsRef<[u8]>) {
    let line = line.as_ref();
    let response = parse([line, b"\r\n"].concat().into());
    assert!(response.is_err(), "{}: {response:?}", line.escape_ascii());
}

fn keyword(name: &'static [u8]) -> Flag {
    Flag::Keyword(Bytes::from_static(name))
}

fn set(text: &str) -> UidSet {
    UidSet::parse(text).unwrap()
}

fn section(name: &str, content: &'static [u8]) -> (String, Option<Bytes>) {
    (name.to_owned(), Some(Bytes::from_static(content)))
}

#[test]
fn capabilities_and_what_was_enabled_are_upper_cased() {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        data("* CAPABILITY IMAP4rev2 literal+  STATUS=SIZE APPENDLIMIT=4294967295 LOGINDISABLED "),
        UntaggedResponse::Capability(words(&[
            "IMAP4REV2",
            "LITERAL+",
            "STATUS=SIZE",
            "APPENDLIMIT=4294967295",
            "LOGINDISABLED"
        ]))
    );
    assert_eq!(data("* ENABLED condstore QRESYNC"), UntaggedResponse::Enabled(words(&["CONDSTORE", "QRESYNC"])));
    assert_eq!(data("* ENABLED"), UntaggedResponse::Enabled(vec![])); // Courier
}

#[test]
fn quotas_are_read() {
    let resource = |name: &str, usage, limit| QuotaResource { name: name.to_owned(), usage, limit };
    for (line, root, resources) in [
        ("* QUOTA \"\" (STORAGE 10 512)", "", vec![resource("STORAGE", 10, 512)]),
        (
            "* quota root (storage  10  512 MESSAGE 1 5)",
            "root",
            vec![resource("STORAGE", 10, 512), resource("MESSAGE", 1, 5)],
        ),
        ("* QUOTA \"a b\" ()", "a b", vec![]),
        ("* QUOTA x (STORAGE 10 99999999999999999999 MESSAGE 1 5)", "x", vec![resource("MESSAGE", 1, 5)]),
    ] {
        assert_eq!(data(line), UntaggedResponse::Quota { root: root.to_owned(), resources }, "{line}");
    }
    assert_eq!(
        data("* QUOTAROOT \"INBOX.a b\" \"\" user/x"),
        UntaggedResponse::QuotaRoot {
            folder: Bytes::from_static(b"INBOX.a b"),
            roots: vec![String::new(), "user/x".to_owned()]
        }
    );
    assert_eq!(
        data("* QUOTAROOT INBOX"),
        UntaggedResponse::QuotaRoot { folder: Bytes::from_static(b"INBOX"), roots: vec![] }
    );
    for (line, name) in [("* QUOTA", "QUOTA"), ("* QUOTA x y", "QUOTA"), ("* QUOTAROOT", "QUOTAROOT")] {
        assert_eq!(data(line), UntaggedResponse::Other(name.to_owned()), "{line}");
    }
}

#[test]
fn identities_are_read() {
    for (line, pairs) in [
        ("* ID NIL", vec![]),
        ("* ID", vec![]),
        ("* ID ()", vec![]),
        (
            "* ID (\"name\" \"Cyrus\tIMAPD\" \"vendor\" NIL)",
            vec![("name".to_owned(), Some("Cyrus IMAPD".to_owned())), ("vendor".to_owned(), None)],
        ),
    ] {
        assert_eq!(data(line), UntaggedResponse::Id(pairs), "{line}");
    }
    assert_eq!(data("* ID x"), UntaggedResponse::Other("ID".to_owned()));
}

#[test]
fn what_is_unknown_is_no_error() {
    for (line, name) in [
        ("* XLIST (\\Inbox) \"/\" \"INBOX\"", "XLIST"),
        ("* METADATA \"x\" (/private/comment {3}\r\na\nb)", "METADATA"),
        ("* acl INBOX me lrs", "ACL"),
        ("* 5 XFOO bar", "XFOO"),
        ("* 99999999999999999999 XFOO bar", "XFOO"),
        ("* FLAGS nonsense", "FLAGS"),
        ("*", ""),
        ("* ", ""),
        ("* (", ""),
        ("", ""),
        ("  ", ""),
    ] {
        assert_eq!(data(line), UntaggedResponse::Other(name.to_owned()), "{line}");
    }
}

#[test]
fn an_error_says_what_and_where_without_the_servers_bytes() {
    let error = parse(Bytes::from_static(b"* 1 FETCH (BODY[] {9}\r\nsecret)\r\n")).unwrap_err();
    assert_eq!(error, ParseError { what: "a literal is cut short", at: 23 });
    let error = Error::from(error);
    assert_eq!(error.class, crate::ErrorClass::Protocol);
    assert!(!error.to_string().contains("secret"), "{error}");
}
