//! The same responses as another implementation means them: imap-codec makes and encodes, we read.

use std::num::NonZeroU32;

use arbitrary::{Arbitrary, Unstructured};
use imap_codec::{
    ResponseCodec,
    encode::Encoder,
    imap_types::{
        core::{NString, Vec1},
        extensions::namespace::Namespace as TheirNamespace,
        fetch::{MessageDataItem, Section},
        flag::{FlagFetch, FlagPerm},
        mailbox::Mailbox,
        response::{Code as TheirCode, Data, Response as Theirs, Status as TheirStatus, StatusBody, StatusKind},
        sequence::{SeqOrUid, Sequence, SequenceSet},
        status::StatusDataItem,
    },
};
use proptest::prelude::*;

use super::*;
use crate::imap::parse::BEGINNING;

fn text(value: &impl ToString) -> String {
    value.to_string()
}

fn nstring(value: &NString<'_>) -> Option<Bytes> {
    value.0.as_ref().map(|value| Bytes::copy_from_slice(value.as_ref()))
}

/// The names of sections of the whole message; `None` for those of parts.
fn section_name(section: Option<&Section<'_>>) -> Option<String> {
    let fields = |name: &str, fields: &mut dyn Iterator<Item = &[u8]>| {
        let fields = fields.map(|field| String::from_utf8_lossy(field).to_ascii_uppercase()).collect::<Vec<_>>();
        // Names that no header has are read, but need not be shown in one way.
        let sane =
            fields.iter().all(|field| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        sane.then(|| format!("{name} ({})", fields.join(" ")))
    };
    match section {
        None => Some(String::new()),
        Some(Section::Header(None)) => Some("HEADER".to_owned()),
        Some(Section::Text(None)) => Some("TEXT".to_owned()),
        Some(Section::HeaderFields(None, names)) => {
            fields("HEADER.FIELDS", &mut names.as_ref().iter().map(AsRef::as_ref))
        }
        Some(Section::HeaderFieldsNot(None, names)) => {
            fields("HEADER.FIELDS.NOT", &mut names.as_ref().iter().map(AsRef::as_ref))
        }
        Some(_) => None,
    }
}

fn check_fetch(ours: &FetchResponse, seq: u32, items: &[MessageDataItem<'_>]) {
    let mut expected = FetchResponse { seq, ..FetchResponse::default() };
    for item in items {
        let mut section = |name: &str, data: &NString<'_>| expected.sections.push((name.to_owned(), nstring(data)));
        match item {
            // A part of a section counts for nothing.
            MessageDataItem::BodyExt { section: None, origin: Some(0), data } => section(BEGINNING, data),
            MessageDataItem::BodyExt { origin: Some(_), .. } => {}
            MessageDataItem::BodyExt { section: at, data, .. } => {
                // Where the name is not compared, take ours.
                let ours = ours.sections.get(expected.sections.len()).map(|section| section.0.clone());
                let name = section_name(at.as_ref()).or(ours).expect("a section");
                expected.sections.push((name, nstring(data)));
            }
            MessageDataItem::Rfc822(data) => section("", data),
            MessageDataItem::Rfc822Header(data) => section("HEADER", data),
            MessageDataItem::Rfc822Text(data) => section("TEXT", data),
            MessageDataItem::Flags(flags) => {
                let flag = |flag: &FlagFetch<'_>| match flag {
                    FlagFetch::Flag(flag) => Flag::parse(text(flag).as_bytes()),
                    FlagFetch::Recent => Flag::Recent,
                };
                expected.flags = Some(flags.iter().map(flag).collect());
            }
            MessageDataItem::InternalDate(date) => {
                let date = date.as_ref();
                let offset = i16::try_from(date.offset().local_minus_utc() / 60).unwrap();
                let read = InternalDate { epoch: date.timestamp(), offset_minutes: offset };
                // Year 0 is none.
                let exists = read.epoch >= -62_135_596_800 + 86_400;
                expected.internal_date =
                    Some(exists.then_some(read)).map(|date| if exists { date } else { ours.internal_date.flatten() });
            }
            MessageDataItem::Rfc822Size(size) => expected.size = Some(u64::from(*size)),
            MessageDataItem::Uid(uid) => expected.uid = Some(uid.get()),
            MessageDataItem::ModSeq(modseq) => expected.modseq = Some(modseq.get()),
            _ => {}
        }
    }
    assert_eq!(*ours, expected);
}

fn check_status_items(ours: &FolderStatus, name: &[u8], items: &[StatusDataItem]) {
    let mut expected = FolderStatus { name: Bytes::copy_from_slice(name), ..FolderStatus::default() };
    for item in items {
        match item {
            StatusDataItem::Messages(number) => expected.messages = Some(*number),
            StatusDataItem::UidNext(number) => expected.uid_next = Some(number.get()),
            StatusDataItem::UidValidity(number) => expected.uid_validity = Some(number.get()),
            // No folder has more than 8 TiB.
            StatusDataItem::Size(number) => expected.size = Some(*number).filter(|size| *size <= 1 << 43),
            StatusDataItem::HighestModSeq(number) => expected.highest_modseq = Some(*number),
            _ => {}
        }
    }
    assert_eq!(*ours, expected);
}

fn check_code(ours: Option<&ResponseCode>, theirs: Option<&TheirCode<'_>>) {
    let expected = match theirs {
        None => {
            assert_eq!(ours, None);
            return;
        }
        Some(TheirCode::PermanentFlags(flags)) => {
            let flag = |flag: &FlagPerm<'_>| match flag {
                FlagPerm::Flag(flag) => Flag::parse(text(flag).as_bytes()),
                FlagPerm::Asterisk => Flag::MayCreate,
            };
            ResponseCode::PermanentFlags(flags.iter().map(flag).collect())
        }
        Some(TheirCode::ReadOnly) => ResponseCode::ReadOnly,
        Some(TheirCode::ReadWrite) => ResponseCode::ReadWrite,
        Some(TheirCode::TryCreate) => ResponseCode::TryCreate,
        Some(TheirCode::UidNext(number)) => ResponseCode::UidNext(number.get()),
        Some(TheirCode::UidValidity(number)) => ResponseCode::UidValidity(number.get()),
        Some(TheirCode::HighestModSeq(number)) => ResponseCode::HighestModSeq(number.get()),
        Some(TheirCode::NoModSeq) => ResponseCode::NoModSeq,
        Some(TheirCode::AppendUid { uid_validity, uid }) => {
            ResponseCode::AppendUid { uid_validity: uid_validity.get(), uids: vec![(uid.get(), uid.get())] }
        }
        Some(TheirCode::Capability(words)) => {
            ResponseCode::Capability(words.as_ref().iter().map(|word| text(word).to_ascii_uppercase()).collect())
        }
        Some(TheirCode::Alert) => ResponseCode::Other("ALERT".to_owned()),
        Some(TheirCode::OverQuota) => ResponseCode::Other("OVERQUOTA".to_owned()),
        Some(TheirCode::TooBig) => ResponseCode::Other("TOOBIG".to_owned()),
        Some(TheirCode::CopyUid { .. }) => ResponseCode::Other("COPYUID".to_owned()),
        Some(TheirCode::Modified(_)) => ResponseCode::Other("MODIFIED".to_owned()),
        Some(_) => {
            assert!(matches!(ours, Some(ResponseCode::Other(_))), "{ours:?}");
            return;
        }
    };
    assert_eq!(ours, Some(&expected));
}

fn check_body(ours: &StatusLine, body: &StatusBody<'_>) {
    let kind = match body.kind {
        StatusKind::Ok => StatusCondition::Ok,
        StatusKind::No => StatusCondition::No,
        StatusKind::Bad => StatusCondition::Bad,
    };
    assert_eq!(ours.status, kind);
    // A text that starts with a bracket is taken for a code by anyone.
    check_code(ours.code.as_ref(), body.code.as_ref());
    assert_eq!(ours.text, clean(body.text.as_ref().as_bytes(), 500));
}

fn check_namespaces(ours: &[NamespaceDescriptor], theirs: &[TheirNamespace<'_>]) {
    let theirs = theirs.iter().map(|namespace| NamespaceDescriptor {
        prefix: Bytes::copy_from_slice(namespace.prefix.as_ref()),
        delimiter: namespace.delimiter.map(|delimiter| delimiter.inner() as u8),
    });
    assert_eq!(ours, theirs.collect::<Vec<_>>());
}

fn check(ours: &Response, theirs: &Theirs<'_>) {
    match (ours, theirs) {
        (Response::Continue(_), Theirs::CommandContinuationRequest(_)) => {}
        (Response::Tagged { tag, line }, Theirs::Status(TheirStatus::Tagged(tagged))) => {
            assert_eq!(tag, tagged.tag.as_ref());
            check_body(line, &tagged.body);
        }
        (Response::Untagged(UntaggedResponse::Status(line)), Theirs::Status(TheirStatus::Untagged(body))) => {
            check_body(line, body);
        }
        (Response::Untagged(UntaggedResponse::Status(line)), Theirs::Status(TheirStatus::Bye(bye))) => {
            assert_eq!(line.status, StatusCondition::Bye);
            check_code(line.code.as_ref(), bye.code.as_ref());
        }
        (Response::Untagged(ours), Theirs::Data(theirs)) => check_data(ours, theirs),
        _ => panic!("{ours:?} is not {theirs:?}"),
    }
}

fn check_data(ours: &UntaggedResponse, theirs: &Data<'_>) {
    match (ours, theirs) {
        (UntaggedResponse::Capability(ours), Data::Capability(theirs)) => {
            assert!(
                ours.iter().eq(&theirs.as_ref().iter().map(|word| text(word).to_ascii_uppercase()).collect::<Vec<_>>())
            );
        }
        (UntaggedResponse::List(ours), Data::List { items, delimiter, mailbox })
        | (UntaggedResponse::Lsub(ours), Data::Lsub { items, delimiter, mailbox }) => {
            assert_eq!(ours.attributes, items.iter().map(text).collect::<Vec<_>>());
            assert_eq!(ours.delimiter, delimiter.map(|delimiter| delimiter.inner() as u8));
            assert!(ours.name.eq_ignore_ascii_case(mailbox_name(mailbox)));
        }
        (UntaggedResponse::FolderStatus(ours), Data::Status { mailbox, items }) => {
            check_status_items(ours, mailbox_name(mailbox), items);
        }
        (UntaggedResponse::Search { numbers, modseq }, Data::Search(theirs, their_modseq)) => {
            assert_eq!(*numbers, theirs.iter().map(|number| number.get()).collect::<UidSet>());
            assert_eq!(*modseq, their_modseq.map(std::num::NonZero::get));
        }
        (UntaggedResponse::Flags(ours), Data::Flags(theirs)) => {
            assert_eq!(*ours, theirs.iter().map(|flag| Flag::parse(text(flag).as_bytes())).collect::<Vec<_>>());
        }
        (UntaggedResponse::Exists(ours), Data::Exists(theirs))
        | (UntaggedResponse::Recent(ours), Data::Recent(theirs)) => {
            assert_eq!(ours, theirs);
        }
        (UntaggedResponse::Expunge(ours), Data::Expunge(theirs)) => assert_eq!(*ours, theirs.get()),
        (UntaggedResponse::Fetch(ours), Data::Fetch { seq, items }) => check_fetch(ours, seq.get(), items.as_ref()),
        (UntaggedResponse::Enabled(ours), Data::Enabled { capabilities }) => assert_eq!(ours.len(), capabilities.len()),
        (UntaggedResponse::Quota { resources, .. }, Data::Quota { quotas, .. }) => {
            let numbers = resources.iter().map(|ours| (ours.usage, ours.limit)).collect::<Vec<_>>();
            assert_eq!(numbers, quotas.as_ref().iter().map(|theirs| (theirs.usage, theirs.limit)).collect::<Vec<_>>());
        }
        (UntaggedResponse::QuotaRoot { folder, roots }, Data::QuotaRoot { mailbox, roots: their_roots }) => {
            assert!(folder.eq_ignore_ascii_case(mailbox_name(mailbox)));
            assert_eq!(roots.len(), their_roots.len());
        }
        (UntaggedResponse::Id(ours), Data::Id { parameters }) => {
            assert_eq!(ours.len(), parameters.as_ref().map_or(0, Vec::len));
        }
        (UntaggedResponse::Vanished { earlier, uids }, Data::Vanished { earlier: their_earlier, known_uids }) => {
            assert_eq!(earlier, their_earlier);
            let theirs = plain_ranges(known_uids).expect("a set that can be read");
            assert_eq!(*uids, UidSet::from_ranges(theirs));
        }
        (UntaggedResponse::Namespace(ours), Data::Namespace { personal, other, shared }) => {
            check_namespaces(&ours.personal, personal);
            check_namespaces(&ours.other_users, other);
            check_namespaces(&ours.shared, shared);
        }
        (UntaggedResponse::Other(_), Data::Sort(..) | Data::Thread(_)) => {}
        _ => panic!("{ours:?} is not {theirs:?}"),
    }
}

/// The ranges of a set without `*` and without the highest number, which imap-codec writes as `*`.
fn plain_ranges(set: &SequenceSet) -> Option<Vec<(u32, u32)>> {
    let plain = |number: &SeqOrUid| match number {
        SeqOrUid::Value(number) => Some(number.get()).filter(|&number| number < u32::MAX),
        SeqOrUid::Asterisk => None,
    };
    let range = |part: &Sequence| match part {
        Sequence::Single(number) => Some((plain(number)?, plain(number)?)),
        Sequence::Range(one, other) => {
            let (one, other) = (plain(one)?, plain(other)?);
            Some((one.min(other), one.max(other)))
        }
    };
    set.0.as_ref().iter().map(range).collect()
}

fn mailbox_name<'a>(mailbox: &'a Mailbox<'_>) -> &'a [u8] {
    match mailbox {
        Mailbox::Inbox => b"INBOX",
        Mailbox::Other(other) => other.as_ref(),
    }
}

/// Reads what they encode, and compares.
fn compare(theirs: &Theirs<'_>) {
    let raw = ResponseCodec::new().encode(theirs).dump();
    let shown = raw.escape_ascii().to_string();
    match parse(raw.into()) {
        Ok(ours) => check(&ours, theirs),
        Err(error) => panic!("{shown}: {error}\n{theirs:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_another_implementation_says_is_understood(seed in prop::collection::vec(any::<u8>(), 16..1500)) {
        if let Ok(theirs) = Theirs::arbitrary(&mut Unstructured::new(&seed)) {
            // `*` means nothing in VANISHED.
            let absurd = matches!(&theirs, Theirs::Data(Data::Vanished { known_uids, .. }) if plain_ranges(known_uids).is_none());
            if !absurd {
                compare(&theirs);
            }
        }
    }

    #[test]
    fn fetch_of_another_implementation_is_understood(
        seq in 1_u32.., seeds in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..8)
    ) {
        let items = seeds.iter().filter_map(|seed| MessageDataItem::arbitrary(&mut Unstructured::new(seed)).ok());
        if let (Ok(items), Ok(seq)) = (Vec1::try_from(items.collect::<Vec<_>>()), NonZeroU32::try_from(seq)) {
            compare(&Theirs::Data(Data::Fetch { seq, items }));
        }
    }
}
