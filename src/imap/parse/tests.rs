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
    let message = fetch(
        "* 12 FETCH (UID 7 FLAGS (\\Seen $Forwarded) INTERNALDATE \"01-Jan-2020 12:30:00 +0530\" \
         RFC822.SIZE 5 MODSEQ (624140003) EMAILID (M6d99) BODY[] {5}\r\na\r\n)()",
    );
    assert_eq!(message.sections, [section("", b"a\r\n)(")]);
    let rest = Fetch { sections: Vec::new(), ..message };
    assert_eq!(
        rest,
        Fetch {
            seq: 12,
            uid: Some(7),
            flags: Some(vec![Flag::Seen, keyword(b"$Forwarded")]),
            internal_date: Some(Some(InternalDate { epoch: 1_577_862_000, offset_minutes: 330 })),
            size: Some(5),
            modseq: Some(624_140_003),
            sections: Vec::new(),
            email_id: Some("M6d99".to_owned()),
        }
    );
}

#[test]
fn a_body_is_not_copied() {
    let raw = Bytes::from([&b"* 1 FETCH (BODY[] {1000}\r\n"[..], &[b'x'; 1000], b")\r\n"].concat());
    let start = raw.as_ptr() as usize;
    let Response::Untagged(Untagged::Fetch(message)) = parse(raw).unwrap() else { panic!("a FETCH") };
    let body = message.sections[0].1.clone().unwrap();
    assert_eq!(body.len(), 1000);
    assert_eq!(body.as_ptr() as usize - start, 26);
}

#[test]
fn fetch_of_any_spelling_is_read() {
    for line in [
        "* 3 FETCH (UID 9 FLAGS (\\Seen))",
        "* 3 fetch (flags (\\SEEN) uid 9)",
        "*  3  FETCH  (UID  9  FLAGS  (\\Seen) )  ",
        "* 3 FETCH (UID 9 FLAGS ( \\Seen ))",
        "* 3 FETCH(UID 9 FLAGS(\\Seen))",
    ] {
        let expected = Fetch { seq: 3, uid: Some(9), flags: Some(vec![Flag::Seen]), ..Fetch::default() };
        assert_eq!(fetch(line), expected, "{line}");
    }
    assert_eq!(fetch("* 3 FETCH ()"), Fetch { seq: 3, ..Fetch::default() });
}

#[test]
fn a_line_may_end_with_lf_alone() {
    assert_eq!(
        parse(Bytes::from_static(b"* 1 FETCH (BODY[] {2}\nab)\n")).unwrap(),
        Response::Untagged(Untagged::Fetch(Fetch { seq: 1, sections: vec![section("", b"ab")], ..Fetch::default() }))
    );
}

#[test]
fn section_names_are_the_same_for_all_servers() {
    for (line, name) in [
        ("BODY[HEADER.FIELDS (\"Message-ID\" \"subject\")] {1}\r\nx", "HEADER.FIELDS (MESSAGE-ID SUBJECT)"), // Courier
        ("BODY[HEADER.FIELDS (MESSAGE-ID SUBJECT)] {1}\r\nx", "HEADER.FIELDS (MESSAGE-ID SUBJECT)"),         // Dovecot
        ("BODY[header.fields (Message-ID subject)] \"x\"", "HEADER.FIELDS (MESSAGE-ID SUBJECT)"),
        ("BODY[ HEADER.FIELDS  ( Message-ID  subject ) ] \"x\"", "HEADER.FIELDS (MESSAGE-ID SUBJECT)"),
        ("BODY[HEADER.FIELDS(Message-ID)] \"x\"", "HEADER.FIELDS (MESSAGE-ID)"),
        ("BODY[HEADER.FIELDS.NOT (\"A]B\")] \"x\"", "HEADER.FIELDS.NOT (A]B)"),
        ("BODY[] \"x\"", ""),
        ("body[Header] \"x\"", "HEADER"),
        ("BODY.PEEK[1.2.MIME] \"x\"", "1.2.MIME"),
        ("BODY[]<0> \"x\"", ""),
        ("BODY[TEXT]<100> \"x\"", "TEXT"),
        ("BODY[]<2>{1}\r\nx", ""), // GreenMail
        ("BODY[]~{1}\r\nx", ""),
        ("BODY[] {1+}\r\nx", ""),
        ("RFC822 {1}\r\nx", ""),
        ("RFC822.HEADER {1}\r\nx", "HEADER"),
        ("RFC822.TEXT {1}\r\nx", "TEXT"),
    ] {
        let message = fetch(format!("* 1 FETCH ({line} UID 4)"));
        assert_eq!(message.sections, [section(name, b"x")], "{line}");
        assert_eq!(message.uid, Some(4), "{line}");
    }
}

#[test]
fn the_bodies_of_real_servers_are_read() {
    // Cyrus, past the end.
    assert_eq!(fetch("* 1 FETCH (BODY[]<100> \"\")").sections, [section("", b"")]);
    assert_eq!(fetch("* 1 FETCH (BODY[]<100> {0}\r\n)").sections, [section("", b"")]);
    assert_eq!(fetch("* 1 FETCH (BODY[]<2>{5}\r\nhello)").sections, [section("", b"hello")]);
    // Dovecot, expunged meanwhile: NIL is not an empty message.
    let gone = fetch("* 2 FETCH (UID 2 RFC822.SIZE 0 BODY[] NIL)");
    assert_eq!((gone.uid, gone.size), (Some(2), Some(0)));
    assert_eq!(gone.sections, [(String::new(), None)]);
    // GreenMail: flags in the answer to a body, other order, no UID in the second.
    let message = fetch("* 1 FETCH (FLAGS (\\Seen) RFC822.SIZE 1 UID 3 BODY[HEADER] {0}\r\n BODY[]{2}\r\nab)");
    assert_eq!(message.sections, [section("HEADER", b""), section("", b"ab")]);
    assert_eq!(fetch("* 1 FETCH (FLAGS () UID 2)").flags, Some(vec![]));
    let unsolicited = fetch("* 1 FETCH (FLAGS (\\Deleted \\Seen kwx))");
    assert_eq!(unsolicited.uid, None);
    assert_eq!(unsolicited.flags, Some(vec![Flag::Deleted, Flag::Seen, keyword(b"kwx")]));
    assert_eq!(fetch("* 3 FETCH (FLAGS (\\Recent \\Deleted))").flags, Some(vec![Flag::Recent, Flag::Deleted]));
    assert_eq!(fetch("* 1 FETCH (BODY[] \"q\\\"\\\\u\")").sections, [section("", b"q\"\\u")]);
}

#[test]
fn odd_keywords_never_cost_the_other_flags() {
    for raw in [
        &b"a*b"[..],
        b"foo{bar",
        b"foo{5}",
        b"[Gmail]",
        b"\xe9t\xe9",
        b"a~b",
        b"a\"b",
        b"\"",
        b"a]b",
        b"a\\b",
        b"1",
        b"%",
        b"nil",
    ] {
        let message = fetch([b"* 1 FETCH (FLAGS (\\Seen ", raw, b" \\Flagged) UID 5)"].concat());
        let expected = vec![Flag::Seen, Flag::Keyword(Bytes::copy_from_slice(raw)), Flag::Flagged];
        assert_eq!(message.flags, Some(expected.clone()), "{}", raw.escape_ascii());
        assert_eq!(message.uid, Some(5));
        assert_eq!(data([b"* FLAGS (\\Seen ", raw, b" \\Flagged)"].concat()), Untagged::Flags(expected.clone()));
        assert_eq!(
            code([b"* OK [PERMANENTFLAGS (\\Seen ", raw, b" \\Flagged)] Ok"].concat()),
            Code::PermanentFlags(expected)
        );
    }
    assert_eq!(
        fetch("* 1 FETCH (FLAGS (\\Foo \\*))").flags,
        Some(vec![Flag::Extension(Bytes::from_static(b"\\Foo")), Flag::MayCreate])
    );
    assert_eq!(fetch("* 1 FETCH (FLAGS NIL UID 5)").flags, Some(vec![]));
}

#[test]
fn dates_that_are_none_are_known_as_such() {
    for value in ["NIL", "nil", "\"\"", "\"30-Feb-2020 12:00:00 +0000\"", "0", "(x y)", "{3}\r\nabc"] {
        let message = fetch(format!("* 1 FETCH (INTERNALDATE {value} UID 5)"));
        assert_eq!(message.internal_date, Some(None), "{value}");
        assert_eq!(message.uid, Some(5), "{value}");
    }
    assert_eq!(fetch("* 1 FETCH (UID 5)").internal_date, None);
    assert!(fetch("* 1 FETCH (INTERNALDATE \" 1-Jan-2020 07:00:00 +0000\")").internal_date.flatten().is_some());
}

#[test]
fn unknown_items_are_passed() {
    for item in [
        "X-GM-MSGID 1278455344230334865",
        "X-GM-LABELS (\\Inbox \"a ) b\" {3}\r\n)))  ((x) y))",
        "THREADID NIL",
        "BODYSTRUCTURE ((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"x\\\"y\") NIL NIL \"7BIT\" 3 1)(\"A\" \"B\" NIL) \"MIXED\")",
        "BODY (\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 3 1)",
        "BINARY[1] ~{4}\r\n\0)\r\n",
        "BINARY.SIZE[1] 5",
        "PREVIEW {2}\r\n)(",
        "SAVEDATE \"01-Jan-2020 12:30:00 +0530\"",
        "EMAILID NIL",
        "MODSEQ NIL",
        "X ()",
        "X {bar",
    ] {
        let message = fetch(format!("* 1 FETCH ({item} UID 5)"));
        assert_eq!(message, Fetch { seq: 1, uid: Some(5), ..Fetch::default() }, "{item}");
    }
}

#[test]
fn numbers_that_do_not_fit_are_left_out() {
    let message = fetch("* 1 FETCH (UID 4294967296 RFC822.SIZE 18446744073709551616 MODSEQ (99999999999999999999))");
    assert_eq!(message, Fetch { seq: 1, ..Fetch::default() });
    for value in ["0", "-84", "x", "\"5\"", "NIL", "(5)", "5x"] {
        let message = fetch(format!("* 1 FETCH (UID {value} FLAGS ())"));
        assert_eq!(message, Fetch { seq: 1, flags: Some(vec![]), ..Fetch::default() }, "{value}");
    }
    assert_eq!(fetch("* 1 FETCH (UID 4294967295)").uid, Some(u32::MAX));
    assert_eq!(fetch("* 1 FETCH (RFC822.SIZE 18446744073709551615)").size, Some(u64::MAX));
    fails("* 4294967296 FETCH (UID 1)");
    fails("* 99999999999999999999999 EXISTS");
}

#[test]
fn damaged_fetch_is_an_error_not_a_guess() {
    for line in [
        "* 1 FETCH",
        "* 1 FETCH (",
        "* 1 FETCH (UID 5",
        "* 1 FETCH (UID)",
        "* 1 FETCH (UID 5) x",
        "* 1 FETCH (UID 5))",
        "* 1 FETCH (BODY[] {6}\r\nhello)",
        "* 1 FETCH (BODY[] {7}\r\nhello)",
        "* 1 FETCH (BODY[] {99999999999999999999}\r\nhello)",
        "* 1 FETCH (BODY[] {18446744073709551615}\r\nhello)",
        "* 1 FETCH (BODY[] {4}\r\nhello)",
        "* 1 FETCH (BODY[] {}\r\n)",
        "* 1 FETCH (BODY[] {1}x)",
        "* 1 FETCH (BODY[] hello)",
        "* 1 FETCH (BODY[] \"hello)",
        "* 1 FETCH (BODY[] \"hel\r\nlo\")",
        "* 1 FETCH (BODY[ \"x\")",
        "* 1 FETCH (BODY[[] \"x\")",
        "* 1 FETCH (FLAGS (\\Seen UID 5",
        "* 1 FETCH (FLAGS (\\Seen\r\n) UID 5)",
        "* 1 FETCH (FLAGS \\Seen UID 5)",
        "* 1 FETCH (MODSEQ (5)",
        "* 1 FETCH (UID 5)\r\n* 2 FETCH (UID 6)",
    ] {
        fails(line);
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("* 1 FETCH (BODYSTRUCTURE {}{} UID 5)", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(fetch(nested(64)).uid, Some(5));
    fails(nested(65));
    fails(nested(1_000_000));
}

// ---- Folders

#[test]
fn folder_lists_of_real_servers_are_read() {
    for (line, attributes, delimiter, name) in [
        ("* LIST (\\HasNoChildren) \"/\" INBOX", &["\\HasNoChildren"][..], Some(b'/'), &b"INBOX"[..]), // Cyrus
        (
            "* LIST (\\HasNoChildren \\Sent) \".\" \"INBOX.Sent Items\"",
            &["\\HasNoChildren", "\\Sent"],
            Some(b'.'),
            b"INBOX.Sent Items",
        ),
        ("* LSUB (\\Noselect \\HasChildren) \".\" \"INBOX\"", &["\\Noselect", "\\HasChildren"], Some(b'.'), b"INBOX"), // Courier
        ("* LIST () \".\" \"pr q\"uote\"", &[], Some(b'.'), b"pr q\"uote"), // GreenMail
        ("* LIST () \".\" \"pr \" (x\"", &[], Some(b'.'), b"pr \" (x"),
        ("* LIST () \".\" \"b\\s\"", &[], Some(b'.'), b"b\\s"), // GreenMail
        ("* LIST () \".\" \"b\\\"", &[], Some(b'.'), b"b\\"),
        ("* LIST () \".\" \"\"\"", &[], Some(b'.'), b"\""),
        ("* LIST () \"/\" \"q\\\"u\\\\o\"", &[], Some(b'/'), b"q\"u\\o"),
        ("* LIST () \"/\" {5}\r\na\r\"\nb", &[], Some(b'/'), b"a\r\"\nb"),
        ("* LIST () \"/\" {3}\r\nfoo (\"CHILDINFO\" (\"SUBSCRIBED\"))", &[], Some(b'/'), b"foo"),
        (
            "* LIST (\\Subscribed) \"/\" \"foo\" (\"CHILDINFO\" (\"SUBSCRIBED\")) ",
            &["\\Subscribed"],
            Some(b'/'),
            b"foo",
        ),
        ("* LIST () \"/\" new (OLDNAME (\"old\"))", &[], Some(b'/'), b"new"),
        ("* LIST (\\NonExistent) \"\\\\\" a\\b", &["\\NonExistent"], Some(b'\\'), b"a\\b"),
        ("* LIST () \"\\\" \"a\"", &[], Some(b'\\'), b"a"),
        ("* LIST (\\Noselect) \"/\" \"\"", &["\\Noselect"], Some(b'/'), b""),
        ("* LIST () NIL INBOX", &[], None, b"INBOX"),
        ("* list () nil INBOX  ", &[], None, b"INBOX"),
        ("* LIST () \"\" x", &[], None, b"x"),
        ("* LIST  ( )  \"/\"  foo(bar)", &[], Some(b'/'), b"foo(bar)"),
        ("* LIST () \"/\" Sent Items", &[], Some(b'/'), b"Sent Items"),
        ("* LIST () \"/\" {1}", &[], Some(b'/'), b"{1}"),
        ("* LIST () \"/\" &2D3eAA-", &[], Some(b'/'), b"&2D3eAA-"),
        ("* LIST () \"/\" \"B\u{fc}ro\"", &[], Some(b'/'), "B\u{fc}ro".as_bytes()),
        ("* LIST NIL \"/\" NIL", &[], Some(b'/'), b"NIL"),
    ] {
        let item = list(line);
        assert_eq!(item.attributes, attributes, "{line}");
        assert_eq!(item.delimiter, delimiter, "{line}");
        assert_eq!(item.name, name, "{line}");
    }
    assert!(matches!(data("* LSUB () \".\" x"), Untagged::Lsub(_)));
    assert!(list("* LIST (\\noselect) \"/\" x").has("\\Noselect"));
    assert_eq!(list(b"* LIST () \"/\" \"B\xfcro\"").name, &b"B\xfcro"[..]);
}

#[test]
fn damaged_folder_lists_are_errors() {
    for line in [
        "* LIST",
        "* LIST ()",
        "* LIST () \"/\"",
        "* LIST () \"/\" \"abc",
        "* LIST () \"ab\" x",
        "* LIST (\\Noselect \"/\" x",
        "* LIST () \"/\" \"a\r\nb\"",
        "* LIST () \"/\" {9}\r\nfoo",
    ] {
        fails(line);
    }
}

#[test]
fn the_status_of_folders_is_read() {
    assert_eq!(
        folder_status(
            "* STATUS INBOX (MESSAGES 231 UIDNEXT 44292 UIDVALIDITY 1 HIGHESTMODSEQ 7011231777 SIZE 5000000000 \
             APPENDLIMIT 4294967295 MAILBOXID (F2212ea87) UNSEEN 3 RECENT 0 X-NEW (a (b)) X-OLD NIL)"
        ),
        FolderStatus {
            name: Bytes::from_static(b"INBOX"),
            messages: Some(231),
            uid_next: Some(44292),
            uid_validity: Some(1),
            highest_modseq: Some(7_011_231_777),
            size: Some(5_000_000_000),
            append_limit: Some(4_294_967_295),
            mailbox_id: Some("F2212ea87".to_owned()),
        }
    );
    for line in [
        "* STATUS \"INBOX.x\" ()", // Courier: the item is unknown there
        "* status  INBOX.x  (APPENDLIMIT NIL)  ",
        "* STATUS \"INBOX.x\" (APPENDLIMIT NIL SIZE -1 UIDNEXT 4294967296 MAILBOXID NIL)",
        "* STATUS {7}\r\nINBOX.x ()",
    ] {
        let expected = FolderStatus { name: Bytes::from_static(b"INBOX.x"), ..FolderStatus::default() };
        assert_eq!(folder_status(line), expected, "{line}");
    }
    for (line, name) in [
        ("* STATUS \"pr q\"uote\" (MESSAGES 1)", "pr q\"uote"),
        ("* STATUS \"a\" (b\" (MESSAGES 1)", "a\" (b"),
        ("* STATUS Sent Items (MESSAGES 1 MAILBOXID (x))", "Sent Items"),
        ("* STATUS foo(bar) (MESSAGES 1)", "foo(bar)"),
        ("* STATUS \"a (b) c\" (MESSAGES 1)", "a (b) c"),
    ] {
        let status = folder_status(line);
        assert_eq!((status.name.as_ref(), status.messages), (name.as_bytes(), Some(1)), "{line}");
    }
    for line in
        ["* STATUS", "* STATUS x", "* STATUS x (MESSAGES", "* STATUS x (MESSAGES 1) y", "* STATUS \"x (MESSAGES 1)"]
    {
        fails(line);
    }
}

#[test]
fn namespaces_of_real_servers_are_read() {
    let namespace = |prefix: &'static str, delimiter| Namespace {
        prefix: Bytes::from_static(prefix.as_bytes()),
        delimiter: Some(delimiter),
    };
    for (line, expected) in [
        (
            "* NAMESPACE ((\"INBOX.\" \".\")) ((\"user.\" \".\")) ((\"\" \".\"))",
            Namespaces {
                personal: vec![namespace("INBOX.", b'.')],
                other_users: vec![namespace("user.", b'.')],
                shared: vec![namespace("", b'.')],
            },
        ),
        (
            "* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"#shared.\" \".\")(\"shared.\" \".\"))",
            Namespaces {
                personal: vec![namespace("INBOX.", b'.')],
                other_users: vec![],
                shared: vec![namespace("#shared.", b'.'), namespace("shared.", b'.')],
            },
        ),
        (
            "* namespace ((\"\" \"/\")(\"#mh/\" \"/\" \"X-PARAM\" (\"FLAG1\" \"FLAG2\"))) nil nil ",
            Namespaces { personal: vec![namespace("", b'/'), namespace("#mh/", b'/')], ..Namespaces::default() },
        ),
        (
            "* NAMESPACE ((\"\" NIL)) NIL NIL",
            Namespaces { personal: vec![Namespace { prefix: Bytes::new(), delimiter: None }], ..Namespaces::default() },
        ),
        ("* NAMESPACE NIL NIL NIL", Namespaces::default()),
    ] {
        assert_eq!(data(line), Untagged::Namespace(expected), "{line}");
    }
    assert_eq!(data("* NAMESPACE ((("), Untagged::Other("NAMESPACE".to_owned()));
}

// ---- SEARCH and its like

#[test]
fn searches_are_read_completely_or_not_at_all() {
    for (line, numbers, modseq) in [
        ("* SEARCH 1 2 3 4 5 (MODSEQ 6)", "1:5", Some(6)), // Cyrus
        ("* SEARCH 2 84 882 ", "2,84,882", None),
        ("* search  9 7  8", "7:9", None),
    ] {
        assert_eq!(data(line), Untagged::Search { numbers: set(numbers), modseq }, "{line}");
    }
    for line in ["* SEARCH", "* SEARCH "] {
        assert_eq!(data(line), Untagged::Search { numbers: UidSet::new(), modseq: None });
    }
    for line in ["* SEARCH 1 x 3", "* SEARCH 1 4294967296", "* SEARCH 1,2", "* SEARCH 1 (MODSEQ 6", "* SEARCH 1\r\n2"] {
        fails(line);
    }
}

#[test]
fn extended_searches_are_read() {
    for (line, tag, uid, all, count, modseq) in [
        ("* ESEARCH (TAG \"a37\") UID COUNT 0", Some("a37"), true, UidSet::new(), Some(0), None), // Cyrus
        (
            "* ESEARCH (TAG \"A1\" MAILBOX \"x y\" UIDVALIDITY 5) UID MIN 2 MAX 28 ALL 2,10:11,28 COUNT 4 MODSEQ 917162500",
            Some("A1"),
            true,
            set("2,10:11,28"),
            Some(4),
            Some(917_162_500),
        ),
        ("* esearch (tag a37) all 5:3", Some("a37"), false, set("3:5"), None, None),
        ("* ESEARCH UID PARTIAL (1:10 2,3) ALL 1 ", None, true, set("1"), None, None),
        ("* ESEARCH", None, false, UidSet::new(), None, None),
    ] {
        let expected = Untagged::Esearch { tag: tag.map(str::to_owned), uid, all, count, modseq };
        assert_eq!(data(line), expected, "{line}");
    }
    for line in ["* ESEARCH ALL", "* ESEARCH ALL 1:*", "* ESEARCH ALL x", "* ESEARCH (TAG"] {
        fails(line);
    }
}

#[test]
fn vanished_messages_are_ranges_not_numbers() {
    for (line, earlier, uids) in [
        ("* VANISHED (EARLIER) 41,43:116,118", true, set("41,43:116,118")),
        ("* vanished (earlier) 1:4294967295", true, set("1:4294967295")),
        ("* VANISHED 405,407", false, set("405,407")),
        ("* VANISHED (EARLIER) ", true, UidSet::new()),
    ] {
        assert_eq!(data(line), Untagged::Vanished { earlier, uids }, "{line}");
    }
    fails("* VANISHED 1 2");
    fails("* VANISHED x");
}

#[test]
fn counts_are_read() {
    assert_eq!(data("* 12 EXISTS"), Untagged::Exists(12));
    assert_eq!(data("* 0 exists "), Untagged::Exists(0));
    assert_eq!(data("*  3  RECENT"), Untagged::Recent(3));
    assert_eq!(data("* 5 EXPUNGE"), Untagged::Expunge(5));
    fails("* 5 EXPUNGE\r\n* 6 EXPUNGE");
    fails("* 5x EXISTS");
}

// ---- Status responses

#[test]
fn tagged_lines_are_told_from_untagged_ones() {
    assert_eq!(
        read("a3 OK LOGIN Ok."),
        Response::Tagged {
            tag: "a3".to_owned(),
            line: StatusLine { status: Status::Ok, code: None, text: "LOGIN Ok.".to_owned() },
        }
    );
    for (line, expected) in [
        ("A1 ok", Status::Ok),
        ("A1  NO  Permission denied", Status::No),
        ("A1 BAD Expected end-of-line", Status::Bad),
        ("From: NO Error in IMAP command received by server.", Status::No), // Courier, running a body as commands
        ("* BYE [ALERT] Fatal error: TOO MANY CONSECUTIVE PROTOCOL VIOLATIONS: ", Status::Bye),
        ("* PREAUTH ready", Status::PreAuth),
        ("* OK", Status::Ok),
        ("* OK ", Status::Ok),
    ] {
        assert_eq!(status(line).status, expected, "{line}");
    }
    for line in ["A1", "A1 ", "A1 FOO", "A1 OKAY", "hello world", "\u{0}"] {
        fails(line);
    }
    fails(b"\xff OK");
    fails("A1 OK\r\nA2 OK");
    fails("* OK x\r\n* 5 EXPUNGE");
    assert!(parse(Bytes::new()).is_err());
    assert!(parse(Bytes::from_static(b"* OK")).is_err());
}

#[test]
fn continuations_are_read() {
    for (line, text) in [("+", ""), ("+ ", ""), ("+ OK", "OK"), ("+ idling", "idling"), ("+ dGVzdA==", "dGVzdA==")] {
        assert_eq!(read(line), Response::Continue(text.to_owned()));
    }
    let challenge = "A".repeat(3000);
    assert_eq!(read(format!("+ {challenge}")), Response::Continue(challenge));
}

#[test]
fn response_codes_are_read() {
    let other = |name: &str| Code::Other(name.to_owned());
    for (line, expected) in [
        ("a OK [APPENDUID 38505 3955] Ok", Code::AppendUid { uid_validity: 38505, uids: vec![(3955, 3955)] }),
        ("a OK [appenduid 1 16:17] Ok", Code::AppendUid { uid_validity: 1, uids: vec![(16, 17)] }),
        ("a OK [APPENDUID 1 9,3:5,2:1] Ok", Code::AppendUid { uid_validity: 1, uids: vec![(9, 9), (3, 5), (1, 2)] }),
        ("a OK [APPENDUID 1 ] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 0 1] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 0] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 4294967296] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 *] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 2 3] Ok", other("APPENDUID")),
        ("a OK [COPYUID 1795470541 1,1:3 1,1:3] Ok", other("COPYUID")), // GreenMail
        ("a OK [COPYUID 1795469504  ] Ok", other("COPYUID")),
        ("* OK [HIGHESTMODSEQ 715194045007] Highest", Code::HighestModSeq(715_194_045_007)),
        ("* OK [NOMODSEQ] No", Code::NoModSeq),
        ("* OK [UIDNEXT 4392] Predicted", Code::UidNext(4392)),
        ("* OK [UIDNEXT 99999999999] Predicted", other("UIDNEXT")),
        ("* OK [UIDVALIDITY 3857529045] valid", Code::UidValidity(3_857_529_045)),
        ("a OK [READ-ONLY] Ok", Code::ReadOnly),
        ("a OK [read-write]", Code::ReadWrite),
        ("a NO [TRYCREATE] Mailbox does not exist", Code::TryCreate),
        (
            "* OK [CAPABILITY IMAP4rev1 literal+ AUTH=PLAIN ] Ready",
            Code::Capability(vec!["IMAP4REV1".into(), "LITERAL+".into(), "AUTH=PLAIN".into()]),
        ),
        ("* OK [PERMANENTFLAGS (\\* \\Seen)] Limited", Code::PermanentFlags(vec![Flag::MayCreate, Flag::Seen])), // Courier
        ("* OK [PERMANENTFLAGS ()] Read-only", Code::PermanentFlags(vec![])),
        ("* OK [PERMANENTFLAGS x] ?", other("PERMANENTFLAGS")),
        ("* OK [MYRIGHTS \"acdilrsw\"] ACL", other("MYRIGHTS")), // Courier
        ("* OK [MAILBOXID (2f3a)] Ok", other("MAILBOXID")),      // Cyrus
        ("* OK [CLOSED] Ok", other("CLOSED")),
        ("a OK [EXPUNGEISSUED] Some messages were already expunged", other("EXPUNGEISSUED")),
        ("a NO [OVERQUOTA] Full", other("OVERQUOTA")),
        ("* BYE [TOOBIG] Word too long", other("TOOBIG")),
        ("a NO [BADCHARSET (\"a]b\" utf-8)] No", other("BADCHARSET")),
        ("a NO [REFERRAL imap://\"x] No", other("REFERRAL")),
    ] {
        assert_eq!(code(line), expected, "{line}");
    }
    assert!(code("a NO [LIMIT] x").is("LIMIT"));
}

#[test]
fn text_is_safe_to_show() {
    for (line, text) in [
        ("* OK [ALERT] \u{fc}ber", "\u{fc}ber"), // a panic in other parsers
        ("* OK [ALERT]\u{fc}ber", "\u{fc}ber"),
        ("* OK [ALERT no end", "[ALERT no end"),
        ("* OK [] empty", "[] empty"),
        ("* OK a\tb\u{1b}[31m\u{0}\rc", "a b [31m  c"),
        ("* OK [ALERT]   spaced  ", "spaced"),
        ("a NO  SPECIAL-USE flag conflict {5}", "SPECIAL-USE flag conflict {5}"),
    ] {
        assert_eq!(status(line).text, text, "{line}");
    }
    assert_eq!(status(b"* OK gr\xfc\xdf").text, "gr\u{fffd}\u{fffd}");
    assert_eq!(status(format!("* OK {}", "\u{1f600}".repeat(600))).text, "\u{1f600}".repeat(500));
}

// ---- Everything else

#[test]
fn capabilities_and_what_was_enabled_are_upper_cased() {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        data("* CAPABILITY IMAP4rev2 literal+  STATUS=SIZE APPENDLIMIT=4294967295 LOGINDISABLED "),
        Untagged::Capability(words(&[
            "IMAP4REV2",
            "LITERAL+",
            "STATUS=SIZE",
            "APPENDLIMIT=4294967295",
            "LOGINDISABLED"
        ]))
    );
    assert_eq!(data("* ENABLED condstore QRESYNC"), Untagged::Enabled(words(&["CONDSTORE", "QRESYNC"])));
    assert_eq!(data("* ENABLED"), Untagged::Enabled(vec![])); // Courier
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
        assert_eq!(data(line), Untagged::Quota { root: root.to_owned(), resources }, "{line}");
    }
    assert_eq!(
        data("* QUOTAROOT \"INBOX.a b\" \"\" user/x"),
        Untagged::QuotaRoot {
            folder: Bytes::from_static(b"INBOX.a b"),
            roots: vec![String::new(), "user/x".to_owned()]
        }
    );
    assert_eq!(data("* QUOTAROOT INBOX"), Untagged::QuotaRoot { folder: Bytes::from_static(b"INBOX"), roots: vec![] });
    for (line, name) in [("* QUOTA", "QUOTA"), ("* QUOTA x y", "QUOTA"), ("* QUOTAROOT", "QUOTAROOT")] {
        assert_eq!(data(line), Untagged::Other(name.to_owned()), "{line}");
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
        assert_eq!(data(line), Untagged::Id(pairs), "{line}");
    }
    assert_eq!(data("* ID x"), Untagged::Other("ID".to_owned()));
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
        assert_eq!(data(line), Untagged::Other(name.to_owned()), "{line}");
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

// ---- Any bytes at all

const VALID: [&[u8]; 22] = [
    b"* 12 FETCH (UID 7 FLAGS (\\Seen $Forwarded) RFC822.SIZE 5 MODSEQ (624140003) BODY[]<0> {5}\r\na\r\n)()\r\n",
    b"* 1 FETCH (BODY[HEADER.FIELDS (\"Message-ID\" \"subject\")] \"q\\\"u\" INTERNALDATE \"01-Jan-2020 12:30:00 +0530\")\r\n",
    b"* 1 FETCH (X-GM-LABELS (\\Inbox \"a ) b\" {3}\r\n))) ((x) y)) EMAILID (M1) UID 5)\r\n",
    b"* LIST (\\HasNoChildren) \".\" \"INBOX.a\\\\b\" (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n",
    b"* LIST () \".\" \"pr q\"uote\"\r\n",
    b"* LSUB () \"/\" {3}\r\nfoo\r\n",
    b"* STATUS \"a\" (b\" (MESSAGES 1 SIZE 4 MAILBOXID (x) APPENDLIMIT NIL)\r\n",
    b"* SEARCH 1 2 3 4 5 (MODSEQ 6)\r\n",
    b"* ESEARCH (TAG \"a37\") UID ALL 1:3,9 COUNT 0\r\n",
    b"* VANISHED (EARLIER) 1:3,7\r\n",
    b"* NAMESPACE ((\"\" \"/\")(\"#mh/\" \"/\" \"X\" (\"F\"))) NIL ((\"\" NIL))\r\n",
    b"* QUOTA \"\" (STORAGE 10 512 MESSAGE 1 5)\r\n",
    b"* QUOTAROOT INBOX \"\" {1}\r\nx\r\n",
    b"* ID (\"name\" \"Cyrus\" \"x\" NIL)\r\n",
    b"* FLAGS (\\Seen [Gmail] \\*)\r\n",
    b"* CAPABILITY IMAP4rev1 X\r\n",
    b"* 4294967295 EXISTS\r\n",
    b"* OK [PERMANENTFLAGS (\\Seen [Gmail] \\*)] Ok\r\n",
    b"a1 OK [APPENDUID 5 1:3,7] Ok\r\n",
    b"* OK [CAPABILITY IMAP4rev1 X] Ready\r\n",
    b"* BYE [ALERT \"x\\\"] y\"] z\r\n",
    b"+ go on\r\n",
];

#[derive(Debug, Clone)]
enum Change {
    Put(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Cut(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let byte = || prop_oneof![prop::sample::select(b"\"\\(){}[]<>~+*: \r\n0195,NIL\0".to_vec()), any::<u8>()];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), byte()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (index(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        (index(), 1_usize..8).prop_map(|(at, length)| Change::Cut(at, length)),
        (index(), 1_usize..8).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

fn changed(mut raw: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        if raw.is_empty() {
            break;
        }
        match change {
            Change::Put(at, byte) => {
                let at = at.index(raw.len());
                raw[at] = byte;
            }
            Change::Insert(at, byte) => raw.insert(at.index(raw.len()), byte),
            Change::Cut(at, length) => {
                let at = at.index(raw.len());
                raw.drain(at..(at + length).min(raw.len()));
            }
            Change::Repeat(at, length) => {
                let at = at.index(raw.len());
                let part = raw[at..(at + length).min(raw.len())].to_vec();
                raw.splice(at..at, part);
            }
        }
    }
    raw
}

#[test]
fn every_valid_response_is_understood_as_what_it_is() {
    for raw in VALID {
        let response = parse(Bytes::from_static(raw)).unwrap();
        assert!(!matches!(response, Response::Untagged(Untagged::Other(_))), "{response:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_the_parser_panic(
        start in prop::sample::select(vec![
            &b""[..], b"* ", b"* 1 FETCH (", b"* LIST ", b"* STATUS ", b"* OK [", b"* NAMESPACE ", b"* ESEARCH ", b"a1 OK ",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let raw = [start, &bytes, b"\r\n"].concat();
        let limit = raw.len();
        if let Err(error) = parse(raw.into()) {
            prop_assert!(error.at <= limit);
        }
        let _ = parse(bytes.into());
    }

    #[test]
    fn no_damage_makes_the_parser_panic(
        raw in prop::sample::select(VALID.to_vec()), changes in prop::collection::vec(change(), 1..6)
    ) {
        let mut raw = changed(raw.to_vec(), changes);
        raw.extend_from_slice(b"\r\n");
        let limit = raw.len();
        if let Err(error) = parse(raw.into()) {
            prop_assert!(error.at <= limit);
        }
    }

    #[test]
    fn no_body_can_act_as_protocol(body in prop::collection::vec(any::<u8>(), 0..100), uid in 1_u32..) {
        let raw = [
            format!("* 1 FETCH (BODY[] {{{}}}\r\n", body.len()).as_bytes(), &body, format!(" UID {uid})\r\n").as_bytes()
        ].concat();
        let expected = Fetch {
            seq: 1, uid: Some(uid), sections: vec![(String::new(), Some(body.into()))], ..Fetch::default()
        };
        prop_assert_eq!(parse(raw.into()), Ok(Response::Untagged(Untagged::Fetch(expected))));
    }

    #[test]
    fn every_name_that_is_quoted_comes_back(name in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(quoted) = crate::imap::quote::astring(&name) {
            prop_assert_eq!(list([b"* LIST () \"/\" ", quoted.as_slice()].concat()).name, name.clone());
            prop_assert_eq!(folder_status([b"* STATUS ", quoted.as_slice(), b" (UIDNEXT 5)"].concat()).name, name);
        }
    }
}
