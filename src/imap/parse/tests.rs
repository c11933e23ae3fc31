use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::imap::{
    date::InternalDate,
    response::{Code, Fetch, Flag, FolderStatus, ListItem, Namespace, Namespaces, QuotaResource, Status, StatusLine},
    uid_set::UidSet,
};

/// The response of one line; the line end is added.
fn read(line: impl AsRef<[u8]>) -> Response {
    let line = line.as_ref();
    parse([line, b"\r\n"].concat().into()).unwrap_or_else(|error| panic!("{}: {error}", line.escape_ascii()))
}

fn data(line: impl AsRef<[u8]>) -> Untagged {
    let line = line.as_ref();
    match read(line) {
        Response::Untagged(untagged) => untagged,
        other => panic!("{}: {other:?}", line.escape_ascii()),
    }
}

fn fetch(line: impl AsRef<[u8]>) -> Fetch {
    match data(line) {
        Untagged::Fetch(fetch) => fetch,
        other => panic!("{other:?}"),
    }
}

fn list(line: impl AsRef<[u8]>) -> ListItem {
    match data(line) {
        Untagged::List(item) | Untagged::Lsub(item) => item,
        other => panic!("{other:?}"),
    }
}

fn folder_status(line: impl AsRef<[u8]>) -> FolderStatus {
    match data(line) {
        Untagged::FolderStatus(status) => status,
        other => panic!("{other:?}"),
    }
}

fn status(line: impl AsRef<[u8]>) -> StatusLine {
    match read(line) {
        Response::Tagged { line, .. } | Response::Untagged(Untagged::Status(line)) => line,
        other => panic!("{other:?}"),
    }
}

fn code(line: impl AsRef<[u8]>) -> Code {
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

// ---- FETCH

#[test]
fn a_message_with_everything_is_read() {
    let line = b"* 12 FETCH (UID 7 FLAGS (\\Seen $Forwarded) INTERNALDATE \"01-Jan-2020 12:30:00 +0530\" \
        RFC822.SIZE 5 MODSEQ (624140003) EMAILID (M6d99) BODY[] {5}\r\na\r\n)(\nX)";
    assert!(parse(Bytes::from_static(b"* 12 FETCH (BODY[] {5}\r\na)\r\n")).is_err());
    let line = String::from_utf8(line.to_vec()).unwrap().replace("\n)(\nX)", "\n)()");
    let message = fetch(line.replace("{5}\r\na\r\n)()", "{5}\r\na\r\n)()"));
    assert_eq!(message.seq, 12);
    assert_eq!(message.uid, Some(7));
    assert_eq!(message.flags, Some(vec![Flag::Seen, keyword(b"$Forwarded")]));
    assert_eq!(message.internal_date, Some(Some(InternalDate { epoch: 1_577_862_000, offset_minutes: 330 })));
    assert_eq!(message.size, Some(5));
    assert_eq!(message.modseq, Some(624_140_003));
    assert_eq!(message.email_id.as_deref(), Some("M6d99"));
    assert_eq!(message.sections, [section("", b"a\r\n)(")]);
}
