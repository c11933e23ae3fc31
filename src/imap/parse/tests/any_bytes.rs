//! No bytes make the parser panic, and none act as more than data.

use proptest::prelude::*;

use super::*;

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
enum ByteChange {
    Put(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Cut(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = ByteChange> {
    let byte = || prop_oneof![prop::sample::select(b"\"\\(){}[]<>~+*: \r\n0195,NIL\0".to_vec()), any::<u8>()];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), byte()).prop_map(|(at, byte)| ByteChange::Put(at, byte)),
        (index(), byte()).prop_map(|(at, byte)| ByteChange::Insert(at, byte)),
        (index(), 1_usize..8).prop_map(|(at, length)| ByteChange::Cut(at, length)),
        (index(), 1_usize..8).prop_map(|(at, length)| ByteChange::Repeat(at, length)),
    ]
}

fn changed(mut raw: Vec<u8>, changes: Vec<ByteChange>) -> Vec<u8> {
    for change in changes {
        if raw.is_empty() {
            break;
        }
        match change {
            ByteChange::Put(at, byte) => {
                let at = at.index(raw.len());
                raw[at] = byte;
            }
            ByteChange::Insert(at, byte) => raw.insert(at.index(raw.len()), byte),
            ByteChange::Cut(at, length) => {
                let at = at.index(raw.len());
                raw.drain(at..(at + length).min(raw.len()));
            }
            ByteChange::Repeat(at, length) => {
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
        assert!(!matches!(response, Response::Untagged(UntaggedResponse::Other(_))), "{response:?}");
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
        let expected = FetchResponse {
            seq: 1, uid: Some(uid), sections: vec![(String::new(), Some(body.into()))], ..FetchResponse::default()
        };
        prop_assert_eq!(parse(raw.into()), Ok(Response::Untagged(UntaggedResponse::Fetch(expected))));
    }

    #[test]
    fn every_name_that_is_quoted_comes_back(name in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(quoted) = crate::imap::quote::quote_string(&name) {
            prop_assert_eq!(list([b"* LIST () \"/\" ", quoted.as_slice()].concat()).name, name.clone());
            prop_assert_eq!(folder_status([b"* STATUS ", quoted.as_slice(), b" (UIDNEXT 5)"].concat()).name, name);
        }
    }
}
