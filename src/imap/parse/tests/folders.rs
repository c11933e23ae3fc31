//! Folders and sets of messages.

use super::*;

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
    assert!(matches!(data("* LSUB () \".\" x"), UntaggedResponse::Lsub(_)));
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
    let damaged = folder_status(b"* STATUS Work (MESSAGES 3 UIDNEXT 9 MAILBOXID (\xff\x00)x\"y".as_slice());
    assert_eq!((damaged.messages, damaged.uid_next, damaged.uid_validity), (Some(3), Some(9), None), "Cyrus");
    for line in
        ["* STATUS", "* STATUS x", "* STATUS x (MESSAGES", "* STATUS x (MESSAGES 1) y", "* STATUS \"x (MESSAGES 1)"]
    {
        fails(line);
    }
}

#[test]
fn namespaces_of_real_servers_are_read() {
    let namespace = |prefix: &'static str, delimiter| NamespaceDescriptor {
        prefix: Bytes::from_static(prefix.as_bytes()),
        delimiter: Some(delimiter),
    };
    for (line, expected) in [
        (
            "* NAMESPACE ((\"INBOX.\" \".\")) ((\"user.\" \".\")) ((\"\" \".\"))",
            NamespaceResponse {
                personal: vec![namespace("INBOX.", b'.')],
                other_users: vec![namespace("user.", b'.')],
                shared: vec![namespace("", b'.')],
            },
        ),
        (
            "* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"#shared.\" \".\")(\"shared.\" \".\"))",
            NamespaceResponse {
                personal: vec![namespace("INBOX.", b'.')],
                other_users: vec![],
                shared: vec![namespace("#shared.", b'.'), namespace("shared.", b'.')],
            },
        ),
        (
            "* namespace ((\"\" \"/\")(\"#mh/\" \"/\" \"X-PARAM\" (\"FLAG1\" \"FLAG2\"))) nil nil ",
            NamespaceResponse {
                personal: vec![namespace("", b'/'), namespace("#mh/", b'/')],
                ..NamespaceResponse::default()
            },
        ),
        (
            "* NAMESPACE ((\"\" NIL)) NIL NIL",
            NamespaceResponse {
                personal: vec![NamespaceDescriptor { prefix: Bytes::new(), delimiter: None }],
                ..NamespaceResponse::default()
            },
        ),
        ("* NAMESPACE NIL NIL NIL", NamespaceResponse::default()),
    ] {
        assert_eq!(data(line), UntaggedResponse::Namespace(expected), "{line}");
    }
    assert_eq!(data("* NAMESPACE ((("), UntaggedResponse::Other("NAMESPACE".to_owned()));
}

#[test]
fn searches_are_read_completely_or_not_at_all() {
    for (line, numbers, modseq) in [
        ("* SEARCH 1 2 3 4 5 (MODSEQ 6)", "1:5", Some(6)), // Cyrus
        ("* SEARCH 2 84 882 ", "2,84,882", None),
        ("* search  9 7  8", "7:9", None),
    ] {
        assert_eq!(data(line), UntaggedResponse::Search { numbers: set(numbers), modseq }, "{line}");
    }
    for line in ["* SEARCH", "* SEARCH "] {
        assert_eq!(data(line), UntaggedResponse::Search { numbers: UidSet::new(), modseq: None });
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
        let expected = UntaggedResponse::Esearch { tag: tag.map(str::to_owned), uid, all, count, modseq };
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
        assert_eq!(data(line), UntaggedResponse::Vanished { earlier, uids }, "{line}");
    }
    fails("* VANISHED 1 2");
    fails("* VANISHED x");
}

#[test]
fn counts_are_read() {
    assert_eq!(data("* 12 EXISTS"), UntaggedResponse::Exists(12));
    assert_eq!(data("* 0 exists "), UntaggedResponse::Exists(0));
    assert_eq!(data("*  3  RECENT"), UntaggedResponse::Recent(3));
    assert_eq!(data("* 5 EXPUNGE"), UntaggedResponse::Expunge(5));
    fails("* 5 EXPUNGE\r\n* 6 EXPUNGE");
    fails("* 5x EXISTS");
}
