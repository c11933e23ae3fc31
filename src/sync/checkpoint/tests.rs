//! What a checkpoint must keep, and what it must survive.

use proptest::prelude::*;
use serde_json::json;

use super::{
    wire_form::{MAX_INFLATED, check_sum, seal, unseal},
    *,
};
use crate::{
    ErrorClass, Side,
    imap::{AccountLogin, AddressPolicy, ConnectionTimeouts, LoginCredential, OpenedMark, ServerKind, TlsOptions},
    sync::{
        set_aside::{DestinationFacts, RetryFacts, SetAsideGroup, SetAsideReason},
        uid::{DestinationUid, SourceUid},
        uid_map::{CopyOrigin, UidRun},
    },
};

/// Notes that source message `from` was appended as destination message `to`.
fn push_copy(map: &mut UidMap, from: u32, to: u32) {
    map.push(SourceUid(from), Some(DestinationUid(to)), CopyOrigin::Appended);
}

fn endpoint(host: &str, port: u16, user: &str, password: &str) -> Endpoint {
    Endpoint {
        side: Side::Source,
        host: host.to_owned(),
        port,
        tls: TlsOptions::default(),
        login: AccountLogin {
            username: user.to_owned(),
            master: None,
            credential: LoginCredential::password(password.as_bytes()),
        },
        timeouts: ConnectionTimeouts::default(),
        quirks: ServerKind::Generic,
        provider: crate::imap::provider::ProviderChoice::FoundOut,
        compress: false,
        addresses: AddressPolicy::default(),
        opened: OpenedMark::default(),
        pace: None,
    }
}

#[test]
fn the_fingerprint_is_that_of_the_two_accounts_and_nothing_else() {
    let a = endpoint("imap.example", 993, "alice", "x");
    let b = endpoint("mail.example", 993, "alice", "y");
    let known = fingerprint(&a, &b);
    assert_eq!(known.len(), 64);
    assert_eq!(known, fingerprint(&endpoint("IMAP.Example", 993, "Alice", "other"), &b));
    for other in [
        fingerprint(&b, &a),
        fingerprint(&endpoint("imap.example", 143, "alice", "x"), &b),
        fingerprint(&endpoint("imap.example", 993, "bob", "x"), &b),
        fingerprint(&endpoint("imap.example9", 93, "alice", "x"), &b),
    ] {
        assert_ne!(known, other);
    }
}

/// A mailbox as they are: 12 folders with names and UIDVALIDITYs of their own, most messages seen.
fn usual(messages: u32) -> Checkpoint {
    let names = [
        "INBOX",
        "Sent",
        "Drafts",
        "Trash",
        "Junk",
        "Archive",
        "Entw&APw-rfe",
        "Projects",
        "Projects/Alpha",
        "Projects/Beta",
        "Invoices 2023",
        "Family",
    ];
    let mut checkpoint = Checkpoint { fingerprint: "9f".repeat(32), ..Checkpoint::default() };
    for (i, name) in (0..).zip(names) {
        let source = name.as_bytes().to_vec();
        checkpoint.mapping.insert(source.clone(), format!("INBOX.{}", name.replace('/', ".")).into_bytes());
        let mut map = UidMap::new();
        let (mut from, mut to) = (1 + i * 37, 1);
        for n in 0..messages {
            from += if n % 19 == 7 { 1 + n % 5 } else { 1 };
            to += 1;
            push_copy(&mut map, from, to);
        }
        let unseen = map.copied().iter().filter(|uid| uid.0 % 23 == 3).collect();
        let state = FolderState {
            source_uid_validity: 1_612_345_678 + i * 7919,
            destination_uid_validity: 1_795_469_504 + i,
            highest_modseq: Some(48_211 + u64::from(i) * 31),
            tail_from: to + 1,
            flags: BTreeMap::from([
                ("\\Seen".to_owned(), map.copied().difference(&unseen)),
                ("\\Answered".to_owned(), map.copied().iter().filter(|uid| uid.0 % 17 == 3).collect()),
            ]),
            settled: Some(QuiescentStatus {
                uid_next: from + 1,
                messages,
                highest_modseq: Some(48_211 + u64::from(i) * 31),
            }),
            map,
            ..FolderState::default()
        };
        checkpoint.folders.insert(source, state);
    }
    checkpoint
}

#[test]
fn a_usual_mailbox_is_within_one_and_a_half_kilobytes() {
    let checkpoint = usual(80);
    let bytes = checkpoint.encode().unwrap();
    assert!(bytes.len() <= 1536, "{} bytes", bytes.len());
    assert_eq!(Checkpoint::decode(&bytes).unwrap(), checkpoint);
}

#[test]
fn two_hundred_thousand_messages_in_order_are_under_a_kilobyte() {
    let mut map = UidMap::new();
    let (source, destination) = (SourceUid(17), Some(DestinationUid(1)));
    map.push_runs([UidRun { source, destination, length: 200_000, origin: CopyOrigin::Appended }]);
    let state = FolderState { map, tail_from: 200_001, ..FolderState::default() };
    let checkpoint = Checkpoint {
        views: BTreeMap::new(),
        slowest_commit: 0,
        dropped_folders: 0,
        fingerprint: "0a".repeat(32),
        mapping: BTreeMap::from([(b"INBOX".to_vec(), b"INBOX".to_vec())]),
        folders: BTreeMap::from([(b"INBOX".to_vec(), state)]),
    };
    assert!(checkpoint.encode().unwrap().len() < 1024);
}

/// One folder of 200,000 messages; `missing` says which UIDs were not there.
fn with_gaps(name: &str, mut missing: impl FnMut() -> bool) -> Checkpoint {
    let mut map = UidMap::new();
    let mut uid = 0;
    for to in 1..=200_000 {
        uid += 1;
        while missing() {
            uid += 1;
        }
        push_copy(&mut map, uid, to);
    }
    let flags = BTreeMap::from([("\\Seen".to_owned(), map.copied().clone())]);
    let settled = Some(QuiescentStatus { uid_next: uid + 1, messages: 200_000, highest_modseq: None });
    let state = FolderState { map, flags, settled, tail_from: 200_001, ..FolderState::default() };
    Checkpoint {
        views: BTreeMap::new(),
        slowest_commit: 0,
        dropped_folders: 0,
        fingerprint: "0a".repeat(32),
        mapping: BTreeMap::from([(name.as_bytes().to_vec(), name.as_bytes().to_vec())]),
        folders: BTreeMap::from([(name.as_bytes().to_vec(), state)]),
    }
}

fn one_in(chance: u64) -> impl FnMut() -> bool {
    let mut random = 88_172_645_463_325_252_u64;
    move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.is_multiple_of(chance)
    }
}

/// Bytes that a status has for a checkpoint: its text is base64.
const IN_STATUS: usize = crate::api::mailbox_sync::MAX_CHECKPOINT_BYTES / 4 * 3;

#[test]
fn two_hundred_thousand_messages_with_random_gaps_have_the_size_that_is_documented() {
    let size = |missing: &mut dyn FnMut() -> bool| with_gaps("INBOX", missing).encode().unwrap().len();
    let sizes = [size(&mut || false), size(&mut one_in(20)), size(&mut one_in(2))].map(|bytes| bytes.div_ceil(1000));
    assert_eq!(sizes, [1, 20, 131], "kilobytes; keep the documentation of encode_within right");
}

#[test]
fn past_the_bound_the_largest_folders_are_reduced_and_the_others_stay_whole() {
    let mut checkpoint = usual(80);
    for name in ["Everything", "Everything else"] {
        checkpoint.folders.extend(with_gaps(name, one_in(2)).folders);
    }
    let encoded = checkpoint.encode_within(IN_STATUS).unwrap();
    assert!(encoded.len() <= IN_STATUS && checkpoint.encode().unwrap().len() > IN_STATUS);
    let read = Checkpoint::decode(&encoded).unwrap();
    let reduced: Vec<_> = read.folders.iter().filter(|(_, state)| state.coverage != MapCoverage::Whole).collect();
    let [(name, state)] = reduced.as_slice() else { panic!("one of two is enough: {}", reduced.len()) };
    let whole = &checkpoint.folders[*name];
    assert!(name.starts_with(b"Everything") && state.map.len() <= 8 && state.flags["\\Seen"].len() <= 8);
    assert_eq!(state.copied_uids().last(), whole.map.copied().last());
    assert_eq!(state.copied_count(), 200_000);
    assert_eq!((state.tail_from, state.settled), (whole.tail_from, whole.settled));
    for (other, state) in read.folders.iter().filter(|(other, _)| other != name) {
        assert_eq!(state, &checkpoint.folders[other]);
    }
    assert_eq!(Checkpoint::decode(&read.encode().unwrap()).unwrap(), read, "it is as reduced when written again");
}

#[test]
fn names_of_thousands_of_folders_are_dropped_rather_than_the_bound_broken() {
    let mut checkpoint = Checkpoint { fingerprint: "9f".repeat(32), ..Checkpoint::default() };
    for n in 0..20_000_u64 {
        let name = format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes();
        checkpoint.mapping.insert(name.clone(), name.clone());
        checkpoint.folders.insert(name, FolderState::default());
    }
    let encoded = checkpoint.encode_within(IN_STATUS).unwrap();
    assert!(encoded.len() <= IN_STATUS);
    assert_eq!(Checkpoint::decode(&encoded).unwrap().fingerprint, checkpoint.fingerprint);
}

#[test]
fn in_doubt_every_folder_is_open() {
    let mut checkpoint = usual(3);
    checkpoint.mark_in_doubt();
    assert!(checkpoint.folders.values().all(|state| state.append_in_doubt));
}

#[test]
fn each_torn_or_changed_checkpoint_is_refused() {
    let bytes = usual(3).encode().unwrap();
    for length in 0..bytes.len() {
        assert_eq!(Checkpoint::decode(&bytes[..length]).unwrap_err().class, ErrorClass::Internal);
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert_eq!(Checkpoint::decode(&changed).unwrap_err().class, ErrorClass::Internal);
    }
    assert!(Checkpoint::decode_text("not base64!").unwrap_err().what.contains("base64"));
}

#[test]
fn a_later_format_is_named() {
    let deflated = [3, 0];
    let bytes = [&[9][..], &check_sum(9, &deflated), &deflated].concat();
    assert!(Checkpoint::decode(&bytes).unwrap_err().what.contains("format 9"));
}

#[test]
fn what_inflates_beyond_the_bound_is_refused() {
    let bomb = seal(&vec![0; MAX_INFLATED + 1]).unwrap();
    assert!(bomb.len() < 1 << 20);
    assert!(Checkpoint::decode(&bomb).unwrap_err().what.contains("too large"));
}

#[test]
fn fields_and_reasons_of_a_later_version_are_ignored() {
    let known = usual(5);
    let mut cbor: ciborium::Value =
        ciborium::from_reader(unseal(&known.encode().unwrap()).unwrap().as_slice()).unwrap();
    let later = |value: &mut ciborium::Value| {
        value.as_map_mut().unwrap().insert(0, ("later".into(), ciborium::Value::Array(vec![1.into(), "x".into()])));
    };
    later(&mut cbor);
    let folders = cbor.as_map_mut().unwrap().iter_mut().find(|(key, _)| key.as_text() == Some("d")).unwrap();
    for folder in folders.1.as_array_mut().unwrap() {
        later(folder);
        let skipped = ciborium::Value::Map(vec![("laterReason".into(), ciborium::Value::Bytes(vec![1, 1]))]);
        folder.as_map_mut().unwrap().push(("k".into(), skipped));
    }
    let mut bytes = Vec::new();
    ciborium::into_writer(&cbor, &mut bytes).unwrap();
    assert_eq!(Checkpoint::decode(&seal(&bytes).unwrap()).unwrap(), known);
}

#[test]
fn what_was_unreadable_is_tried_again() {
    let mut state = FolderState::default();
    state.map.push(SourceUid(1), None, CopyOrigin::Appended);
    state.set_aside.add_group(SetAsideGroup::new(SetAsideReason::Unreadable, UidSet::parse("4").unwrap()));
    assert_eq!(state.finished_uids().to_string(), "1,4");
    assert_eq!(state.set_aside.due_uids(&RetryFacts::default()).to_string(), "4");
}

#[test]
fn the_description_names_folders_and_counts_for_people() {
    let mut checkpoint = usual(80);
    let drafts = checkpoint.folders.get_mut(&b"Entw&APw-rfe"[..]).unwrap();
    let group = SetAsideGroup::new(SetAsideReason::TooLarge, UidSet::parse("900:902").unwrap());
    drafts.set_aside.add_group(SetAsideGroup { why: "too large".into(), last_try: 1, ..group });
    checkpoint.mapping.insert(b"Gone".to_vec(), b"INBOX.Gone".to_vec());
    let text = checkpoint.describe();
    let folders = text["folders"].as_array().unwrap();
    let drafts = folders.iter().find(|folder| folder["source"] == "Entwürfe").unwrap();
    assert_eq!(drafts["destination"], "INBOX.Entwürfe");
    assert_eq!(drafts["copied"], 80);
    assert_eq!(drafts["lastDestinationUid"], 81);
    let expected = json!([{
        "reason": "tooLarge", "class": "MessageRejected", "why": "too large", "proven": false, "tries": 0,
        "lastTry": "1970-01-01T00:00:01Z", "messages": 3, "firstUids": "900:902",
    }]);
    assert_eq!(drafts["setAside"], expected);
    assert_eq!(text["mappedOnly"], json!({ "Gone": "INBOX.Gone" }));
}

#[test]
fn what_was_found_in_another_folder_is_dealt_with_and_nothing_is_done_to_it() {
    let moved = |pairs: &[(u32, u32)]| {
        let mut map = UidMap::new();
        for &(from, to) in pairs {
            map.push(SourceUid(from), Some(DestinationUid(to)), CopyOrigin::Adopted);
        }
        MovedCopies { folder: b"Trash".to_vec(), uid_validity: 9, map }
    };
    let mut checkpoint = Checkpoint::default();
    checkpoint.mapping.insert(b"INBOX".to_vec(), b"inbox".to_vec());
    let mut state = FolderState { destination_uid_validity: 3, ..FolderState::default() };
    state.map.push(SourceUid(1), Some(DestinationUid(11)), CopyOrigin::Appended);
    state.set_aside.add_group(SetAsideGroup::new(SetAsideReason::Refused, UidSet::parse("5").unwrap()));
    state.add_moved(moved(&[(4, 21), (5, 22)]));
    state.add_moved(moved(&[(6, 30)]));
    assert_eq!((state.moved.len(), state.moved_uids().to_string()), (1, "4:6".to_owned()));
    assert_eq!((state.finished_uids().to_string(), state.set_aside.is_empty()), ("1,4:6".to_owned(), true));
    assert_eq!(state.map.deletable().to_string(), "1");
    checkpoint.folders.insert(b"INBOX".to_vec(), state.clone());
    assert_eq!(checkpoint.copies_in(b"INBOX", 3).to_string(), "11");
    assert_eq!(checkpoint.copies_in(b"Trash", 9).to_string(), "21:22,30");
    assert!(checkpoint.copies_in(b"Trash", 8).is_empty() && checkpoint.moved_into(b"INBOX", 3).is_empty());
    state.retain_moved(&UidSet::parse("1:2,5").unwrap());
    assert_eq!(state.moved, [moved(&[(5, 22)])]);
    state.retain_moved(&UidSet::parse("1").unwrap());
    assert!(state.moved.is_empty());
}

fn uids() -> impl Strategy<Value = UidSet<SourceUid>> {
    let range = |(low, more): (u32, u32)| (SourceUid(low), SourceUid(low.saturating_add(more)));
    proptest::collection::vec((1..u32::MAX, 0..9_u32), 0..6)
        .prop_map(move |ranges| UidSet::from_ranges(ranges.into_iter().map(range)))
}

fn groups() -> impl Strategy<Value = SetAsideGroup> {
    let reason = proptest::sample::select(&SetAsideReason::ALL);
    let class = proptest::sample::select(&ErrorClass::ALL);
    let numbers = (any::<bool>(), any::<u32>(), any::<u32>(), any::<i64>(), any::<u64>());
    let destination = (any::<Option<u64>>(), any::<Option<String>>())
        .prop_map(|(append_limit, server)| DestinationFacts { append_limit, server });
    (reason, class, "\\PC{0,300}", numbers, destination, uids()).prop_map(
        |(reason, class, why, (proven, tries, runs, last_try, rules), destination, uids)| SetAsideGroup {
            reason,
            class,
            why,
            proven,
            tries,
            runs,
            last_try,
            destination,
            rules,
            uids,
        },
    )
}

fn states() -> impl Strategy<Value = FolderState> {
    let map = proptest::collection::vec((1..500_u32, proptest::option::of(1..500_u32), any::<bool>()), 0..40);
    let set_aside = proptest::collection::vec(groups(), 0..25);
    let differences = proptest::collection::btree_map("[a-z]{1,8}", 1..50_u32, 0..3);
    let flags = proptest::collection::btree_map("[$\\\\a-zA-Z]{1,8}", uids(), 0..4);
    let settled = proptest::option::of((any::<u32>(), any::<u32>(), any::<Option<u64>>()));
    let numbers = (any::<u32>(), any::<u32>(), any::<Option<u64>>(), any::<u32>(), any::<bool>());
    (map, (set_aside, differences, uids()), flags, settled, numbers, any::<Option<String>>()).prop_map(
        |(
            pushes,
            (groups, kinds, doubted),
            flags,
            settled,
            (source, destination, highest_modseq, tail_from, append_in_doubt),
            mailbox_id,
        )| {
            let mut map = UidMap::new();
            for (source, destination, adopted) in pushes {
                let origin = if adopted { CopyOrigin::Adopted } else { CopyOrigin::Appended };
                map.push(SourceUid(source), destination.map(DestinationUid), origin);
            }
            let (mut set_aside, mut differences) = (SetAside::default(), CopyDifferences::default());
            for group in groups {
                set_aside.add_group(group);
            }
            for (kind, count) in kinds {
                for uid in 0..count {
                    differences.add(&kind, SourceUid(uid));
                }
            }
            let moved = MovedCopies { folder: b"Trash".to_vec(), uid_validity: destination, map: map.clone() };
            FolderState {
                source_uid_validity: source,
                destination_uid_validity: destination,
                highest_modseq,
                map,
                moved: Some(moved).filter(|_| append_in_doubt).into_iter().collect(),
                unsearched: append_in_doubt,
                set_aside,
                unlisted: u64::from(tail_from % 5),
                unwell_runs: tail_from % 3,
                differences,
                tail_from,
                append_in_doubt,
                destination_next: tail_from / 2,
                late_copies: doubted.iter().map(|uid| DestinationUid(uid.0)).collect(),
                unseen: doubted.clone(),
                doubted,
                flags,
                settled: settled.map(|(uid_next, messages, highest_modseq)| QuiescentStatus {
                    uid_next,
                    messages,
                    highest_modseq,
                }),
                mailbox_id,
                coverage: MapCoverage::Whole,
                listing: None,
            }
        },
    )
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    let name = || proptest::collection::vec(any::<u8>(), 0..12);
    let mapping = proptest::collection::btree_map(name(), name(), 0..5);
    let folders = proptest::collection::btree_map(name(), states(), 0..5);
    ("[0-9a-f]{64}", mapping, folders).prop_map(|(fingerprint, mapping, folders)| Checkpoint {
        fingerprint,
        mapping,
        folders,
        views: BTreeMap::new(),
        slowest_commit: 0,
        dropped_folders: 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_checkpoint_round_trips(checkpoint in checkpoints()) {
        let bytes = checkpoint.encode().unwrap();
        prop_assert_eq!(&bytes, &checkpoint.encode().unwrap());
        prop_assert_eq!(&Checkpoint::decode(&bytes).unwrap(), &checkpoint);
        prop_assert_eq!(&Checkpoint::decode_text(&checkpoint.encode_text().unwrap()).unwrap(), &checkpoint);
        prop_assert!(checkpoint.describe().is_object());
    }

    #[test]
    fn every_checkpoint_is_kept_within_its_bound(checkpoint in checkpoints(), most in 90..2000_usize) {
        let encoded = checkpoint.encode_within(most).unwrap();
        prop_assert!(encoded.len() <= most);
        let read = Checkpoint::decode(&encoded).unwrap();
        prop_assert_eq!(&read.fingerprint, &checkpoint.fingerprint);
        for (name, state) in &read.folders {
            let whole = &checkpoint.folders[name];
            let unseen = FolderState { unseen: UidSet::default(), ..whole.clone() };
            let reduced = state.coverage != MapCoverage::Whole;
            prop_assert!(reduced || state == whole || state == &unseen);
            prop_assert_eq!(&state.set_aside, &checkpoint.folders[name].set_aside);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Checkpoint::decode(&bytes).is_err());
    }

    #[test]
    fn wrong_contents_under_a_right_check_sum_do_not_panic(
        checkpoint in checkpoints(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut cbor = unseal(&checkpoint.encode().unwrap()).unwrap();
        let at = at.index(cbor.len());
        cbor[at] = byte;
        if let Ok(read) = Checkpoint::decode(&seal(&cbor).unwrap()) {
            prop_assert_eq!(Checkpoint::decode(&read.encode().unwrap()).unwrap(), read);
        }
    }
}

#[test]
fn what_nobody_has_looked_at_goes_first_where_there_is_too_little_room() {
    let mut state = FolderState { source_uid_validity: 1, destination_uid_validity: 1, ..FolderState::default() };
    for uid in (1..4_000).filter(|uid| uid % 7 != 0 && uid % 5 != 3) {
        state.map.push(SourceUid(uid), Some(DestinationUid(uid)), CopyOrigin::Appended);
        state.unseen.insert(SourceUid(uid));
    }
    let whole = Checkpoint { folders: BTreeMap::from([(b"INBOX".to_vec(), state)]), ..Checkpoint::default() };
    let most = whole.encode().unwrap().len();
    assert_eq!(Checkpoint::decode(&whole.encode_within(most).unwrap()).unwrap(), whole);
    let smaller = Checkpoint::decode(&whole.encode_within(most - 1).unwrap()).unwrap();
    let (before, after) = (&whole.folders[b"INBOX".as_slice()], &smaller.folders[b"INBOX".as_slice()]);
    assert_eq!((&after.map, after.unseen.is_empty(), &after.coverage), (&before.map, true, &MapCoverage::Whole));
}
