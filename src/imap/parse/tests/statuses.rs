//! Status responses, their codes and texts, and continuations.

use super::*;

#[test]
fn tagged_lines_are_told_from_untagged_ones() {
    assert_eq!(
        read("a3 OK LOGIN Ok."),
        Response::Tagged {
            tag: "a3".to_owned(),
            line: StatusLine { status: StatusCondition::Ok, code: None, text: "LOGIN Ok.".to_owned() },
        }
    );
    for (line, expected) in [
        ("A1 ok", StatusCondition::Ok),
        ("A1  NO  Permission denied", StatusCondition::No),
        ("A1 BAD Expected end-of-line", StatusCondition::Bad),
        ("From: NO Error in IMAP command received by server.", StatusCondition::No), // Courier, running a body as commands
        ("* BYE [ALERT] Fatal error: TOO MANY CONSECUTIVE PROTOCOL VIOLATIONS: ", StatusCondition::Bye),
        ("* PREAUTH ready", StatusCondition::PreAuth),
        ("* OK", StatusCondition::Ok),
        ("* OK ", StatusCondition::Ok),
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
    let other = |name: &str| ResponseCode::Other(name.to_owned());
    for (line, expected) in [
        ("a OK [APPENDUID 38505 3955] Ok", ResponseCode::AppendUid { uid_validity: 38505, uids: vec![(3955, 3955)] }),
        ("a OK [appenduid 1 16:17] Ok", ResponseCode::AppendUid { uid_validity: 1, uids: vec![(16, 17)] }),
        (
            "a OK [APPENDUID 1 9,3:5,2:1] Ok",
            ResponseCode::AppendUid { uid_validity: 1, uids: vec![(9, 9), (3, 5), (1, 2)] },
        ),
        ("a OK [APPENDUID 1 ] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 0 1] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 0] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 4294967296] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 *] Ok", other("APPENDUID")),
        ("a OK [APPENDUID 1 2 3] Ok", other("APPENDUID")),
        ("a OK [COPYUID 1795470541 1,1:3 1,1:3] Ok", other("COPYUID")), // GreenMail
        ("a OK [COPYUID 1795469504  ] Ok", other("COPYUID")),
        ("* OK [HIGHESTMODSEQ 715194045007] Highest", ResponseCode::HighestModSeq(715_194_045_007)),
        ("* OK [NOMODSEQ] No", ResponseCode::NoModSeq),
        ("* OK [UIDNEXT 4392] Predicted", ResponseCode::UidNext(4392)),
        ("* OK [UIDNEXT 99999999999] Predicted", other("UIDNEXT")),
        ("* OK [UIDVALIDITY 3857529045] valid", ResponseCode::UidValidity(3_857_529_045)),
        ("a OK [READ-ONLY] Ok", ResponseCode::ReadOnly),
        ("a OK [read-write]", ResponseCode::ReadWrite),
        ("a NO [TRYCREATE] Mailbox does not exist", ResponseCode::TryCreate),
        (
            "* OK [CAPABILITY IMAP4rev1 literal+ AUTH=PLAIN ] Ready",
            ResponseCode::Capability(vec!["IMAP4REV1".into(), "LITERAL+".into(), "AUTH=PLAIN".into()]),
        ),
        ("* OK [PERMANENTFLAGS (\\* \\Seen)] Limited", ResponseCode::PermanentFlags(vec![Flag::MayCreate, Flag::Seen])), // Courier
        ("* OK [PERMANENTFLAGS ()] Read-only", ResponseCode::PermanentFlags(vec![])),
        ("* OK [PERMANENTFLAGS x] ?", other("PERMANENTFLAGS")),
        ("* OK [MYRIGHTS \"acdilrsw\"] ACL", other("MYRIGHTS")), // Courier
        ("* OK [MAILBOXID (2f3a)] Ok", ResponseCode::MailboxId("2f3a".to_owned())), // Cyrus
        ("* OK [MAILBOXID ()] Ok", other("MAILBOXID")),
        ("* OK [MESSAGELIMIT 1000 23221] ok", ResponseCode::MessageLimit { limit: 1000, lowest_uid: Some(23221) }),
        ("* OK [MESSAGELIMIT 1000] ok", ResponseCode::MessageLimit { limit: 1000, lowest_uid: None }),
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
