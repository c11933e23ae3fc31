//! FETCH responses.

use super::*;
use crate::imap::parse::BEGINNING;

#[test]
fn a_message_with_everything_is_read() {
    let message = fetch(
        "* 12 FETCH (UID 7 FLAGS (\\Seen $Forwarded) INTERNALDATE \"01-Jan-2020 12:30:00 +0530\" \
         RFC822.SIZE 5 MODSEQ (624140003) EMAILID (M6d99) X-GM-MSGID 1278455344230334865 BODY[] {5}\r\na\r\n)()",
    );
    assert_eq!(message.sections, [section("", b"a\r\n)(")]);
    let rest = FetchResponse { sections: Vec::new(), ..message };
    assert_eq!(
        rest,
        FetchResponse {
            seq: 12,
            uid: Some(7),
            flags: Some(vec![Flag::Seen, keyword(b"$Forwarded")]),
            internal_date: Some(Some(InternalDate { epoch: 1_577_862_000, offset_minutes: 330 })),
            size: Some(5),
            modseq: Some(624_140_003),
            sections: Vec::new(),
            email_id: Some("M6d99".to_owned()),
            gmail_id: Some(1_278_455_344_230_334_865),
        }
    );
}

#[test]
fn a_large_body_is_not_copied_and_a_small_one_holds_nothing_else() {
    let body_of = |length: usize, rest: usize| {
        let head = format!("* 1 FETCH (X-REST \"{}\" BODY[] {{{length}}}\r\n", "y".repeat(rest));
        let raw = Bytes::from([head.as_bytes(), &vec![b'x'; length], b")\r\n"].concat());
        let within = raw.as_ptr_range();
        let Response::Untagged(UntaggedResponse::Fetch(message)) = parse(raw).unwrap() else { panic!("a FETCH") };
        let body = message.sections[0].1.clone().unwrap();
        assert_eq!(body.len(), length);
        within.contains(&body.as_ptr())
    };
    assert!(body_of(100_000, 0));
    assert!(!body_of(1000, 0) && !body_of(100_000, 300_000));
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
        let expected =
            FetchResponse { seq: 3, uid: Some(9), flags: Some(vec![Flag::Seen]), ..FetchResponse::default() };
        assert_eq!(fetch(line), expected, "{line}");
    }
    assert_eq!(fetch("* 3 FETCH ()"), FetchResponse { seq: 3, ..FetchResponse::default() });
}

#[test]
fn a_line_may_end_with_lf_alone() {
    assert_eq!(
        parse(Bytes::from_static(b"* 1 FETCH (BODY[] {2}\nab)\n")).unwrap(),
        Response::Untagged(UntaggedResponse::Fetch(FetchResponse {
            seq: 1,
            sections: vec![section("", b"ab")],
            ..FetchResponse::default()
        }))
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
        ("BODY[HEADER.FIELDS ([a] \"\" {3}\r\nb\rc)] \"x\"", "HEADER.FIELDS ([A]  B C)"),
        ("BODY[] \"x\"", ""),
        ("body[Header] \"x\"", "HEADER"),
        ("BODY.PEEK[1.2.MIME] \"x\"", "1.2.MIME"),
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
fn a_part_of_a_section_never_passes_for_the_whole() {
    for line in [
        "BODY[HEADER]<0> \"x\"",
        "BODY[]<100> \"\"",      // Cyrus, past the end
        "BODY[]<2>{5}\r\nhello", // GreenMail
        "BODY[TEXT]<100> {0}\r\n",
    ] {
        let message = fetch(format!("* 1 FETCH ({line} UID 4)"));
        assert_eq!(message.sections, [], "{line}");
        assert_eq!(message.uid, Some(4), "{line}");
    }
}

#[test]
fn the_beginning_of_a_message_is_named_as_such() {
    let message = fetch("* 1 FETCH (BODY[]<0> {1}\r\nx UID 4)");
    assert_eq!(message.sections, [section(BEGINNING, b"x")]);
}

#[test]
fn the_bodies_of_real_servers_are_read() {
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
        assert_eq!(
            data([b"* FLAGS (\\Seen ", raw, b" \\Flagged)"].concat()),
            UntaggedResponse::Flags(expected.clone())
        );
        assert_eq!(
            code([b"* OK [PERMANENTFLAGS (\\Seen ", raw, b" \\Flagged)] Ok"].concat()),
            ResponseCode::PermanentFlags(expected)
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
        "X-GM-THRID 1266894439832287888",
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
        assert_eq!(message, FetchResponse { seq: 1, uid: Some(5), ..FetchResponse::default() }, "{item}");
    }
}

#[test]
fn numbers_that_do_not_fit_are_left_out() {
    let message = fetch("* 1 FETCH (UID 4294967296 RFC822.SIZE 18446744073709551616 MODSEQ (99999999999999999999))");
    assert_eq!(message, FetchResponse { seq: 1, ..FetchResponse::default() });
    for value in ["0", "-84", "x", "\"5\"", "NIL", "(5)", "5x"] {
        let message = fetch(format!("* 1 FETCH (UID {value} FLAGS ())"));
        assert_eq!(message, FetchResponse { seq: 1, flags: Some(vec![]), ..FetchResponse::default() }, "{value}");
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
        "* 1 FETCH (BODY[A (",
        "* 1 FETCH (BODY[A ((B))] \"x\")",
        "* 1 FETCH (BODY[A )] \"x\")",
        "* 1 FETCH (BODY[A (B\r\n)] \"x\")",
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
