//! What earlier versions left on disks and in clusters is read and gone on from: files under `fixtures` that stay as they
//! are, and names and fingerprints that are what they always were for the same input.
//!
//! A new field or format gets a new fixture; those that are there are never written anew. `MAILFERRY_WRITE=yes` writes one that
//! is missing.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use ciborium::Value;
use mailferry::{
    ErrorClass, Side,
    api::{MailServerSpec, SyncEndpoint, common::Account, names},
    controller::migration::prune::decide_removal,
    imap::{Endpoint, UidSet},
    import::{
        names::{bucket, migration},
        side_settings::ServerLocation,
    },
    local::state_folder::StateFolder,
    sync::{
        checkpoint::{
            Checkpoint, CopyDifferences, DifferenceCount, FolderState, QuiescentStatus, ViewState, fingerprint,
            high_water_mark::{HighWaterMark, LeftOutByRules, MapCoverage},
        },
        moved_match::MovedCopies,
        set_aside::{DestinationFacts, SetAside, SetAsideGroup, SetAsideReason},
        spec::{MessageFilter, SyncSpec},
        uid::{DestinationUid, SourceUid},
        uid_map::{CopyOrigin, UidMap},
    },
};

use crate::{
    cli::{Cli, checkpoint_in, server_with},
    fake::{Fake, MODERN, Mail, mails},
    rig::{Rig, endpoint},
};

/// The accounts that the fixtures are for.
fn accounts() -> [Endpoint; 2] {
    let at = |side, host: &str, port, user| Endpoint { host: host.into(), ..endpoint(side, port, user, "any") };
    [
        at(Side::Source, "imap.old.example", 993, "alice@acme.example"),
        at(Side::Destination, "mail.new.example", 143, "alice"),
    ]
}

fn fingerprint_of_accounts() -> String {
    let [source, destination] = accounts();
    fingerprint(&source, &destination)
}

fn spec_of_accounts() -> SyncSpec {
    let [source, destination] = accounts();
    Rig::between(source, destination).spec
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures").join(name)
}

fn uids(uids: &[(u32, u32)]) -> UidSet<SourceUid> {
    UidSet::from_ranges(uids.iter().map(|&(low, high)| (SourceUid(low), SourceUid(high))))
}

/// A checkpoint in which no field has its default. Each field stands here by name, so that a new one is not forgotten.
fn all_fields() -> Checkpoint {
    let mut map = UidMap::new();
    for (source, destination, origin) in [
        (1, Some(11), CopyOrigin::Appended),
        (2, Some(12), CopyOrigin::Appended),
        (4, Some(3), CopyOrigin::Adopted),
        (5, None, CopyOrigin::Appended),
        (9, Some(13), CopyOrigin::Appended),
        (3, Some(14), CopyOrigin::Appended),
    ] {
        map.push(SourceUid(source), destination.map(DestinationUid), origin);
    }
    let group = |reason, class, why: &str, proven, set: &[(u32, u32)]| SetAsideGroup {
        reason,
        class,
        why: why.to_owned(),
        proven,
        tries: 2,
        runs: 3,
        last_try: 1_760_000_000,
        destination: DestinationFacts { append_limit: Some(35_882_577), server: Some("Dovecot 2.4".into()) },
        rules: 0xfedc_ba98_7654_3210,
        uids: uids(set),
    };
    let mut set_aside = SetAside::default();
    set_aside.add_group(group(SetAsideReason::TooLarge, ErrorClass::MessageRejected, "APPENDLIMIT", true, &[(20, 20)]));
    set_aside.add_group(group(SetAsideReason::Refused, ErrorClass::Quota, "NO [OVERQUOTA] full", false, &[(21, 23)]));
    set_aside.add_group(group(SetAsideReason::Unreadable, ErrorClass::Protocol, "NO [SERVERBUG]", false, &[(30, 30)]));
    set_aside.add_group(group(
        SetAsideReason::Empty,
        ErrorClass::MessageRejected,
        "BAD empty",
        true,
        &[(40, 41), (50, 50)],
    ));
    let difference = |count, first: &[u32]| DifferenceCount { count, first: first.to_vec() };
    let differences =
        BTreeMap::from([("flags".to_owned(), difference(2, &[1, 9])), ("content".to_owned(), difference(1, &[4]))]);
    let inbox = FolderState {
        source_uid_validity: 1_612_345_678,
        destination_uid_validity: 1_795_469_504,
        highest_modseq: Some(48_211),
        map,
        set_aside,
        unlisted: 0,
        unwell_runs: 1,
        differences: CopyDifferences(differences),
        tail_from: 11,
        append_in_doubt: true,
        destination_next: 0,
        doubted: UidSet::default(),
        late_copies: UidSet::default(),
        unseen: UidSet::default(),
        flags: BTreeMap::from([
            ("\\Seen".to_owned(), uids(&[(1, 4), (9, 9)])),
            ("$Forwarded".to_owned(), uids(&[(2, 2)])),
        ]),
        settled: Some(QuiescentStatus { uid_next: 51, messages: 14, highest_modseq: Some(48_200) }),
        mailbox_id: Some("M-1f0c".into()),
        moved: Vec::new(),
        unsearched: false,
        coverage: MapCoverage::Whole,
        listing: None,
    };
    let mut last = UidMap::new();
    last.push(SourceUid(70_001), Some(DestinationUid(69_001)), CopyOrigin::Appended);
    let archive = FolderState {
        source_uid_validity: 3,
        destination_uid_validity: 4,
        map: last,
        tail_from: 69_002,
        coverage: MapCoverage::SamplesOnly,
        ..FolderState::default()
    };
    let raw = |name: &str| name.as_bytes().to_vec();
    Checkpoint {
        fingerprint: fingerprint_of_accounts(),
        mapping: BTreeMap::from([
            (raw("INBOX"), raw("INBOX")),
            (raw("Entw&APw-rfe"), raw("INBOX.Drafts")),
            (raw("Archive"), raw("INBOX.Archive")),
        ]),
        folders: BTreeMap::from([(raw("INBOX"), inbox), (raw("Archive"), archive)]),
        slowest_commit: 0,
        dropped_folders: 0,
        views: BTreeMap::from([(
            raw("[Gmail]/All Mail"),
            ViewState { uid_validity: 5, uid_next: 77, messages: 60, not_elsewhere: 2 },
        )]),
    }
}

/// The same with fields that came later.
fn later_fields() -> Checkpoint {
    let mut checkpoint = all_fields();
    checkpoint.slowest_commit = 4_200;
    let inbox = checkpoint.folders.get_mut(b"INBOX".as_slice()).unwrap();
    inbox.unlisted = 3;
    inbox.destination_next = 15;
    inbox.doubted = [5, 6, 7].map(SourceUid).into_iter().collect();
    inbox.late_copies = [DestinationUid(12)].into_iter().collect();
    inbox.unseen = [8, 9].map(SourceUid).into_iter().collect();
    let archive = checkpoint.folders.get_mut(b"Archive".as_slice()).unwrap();
    let rules = MessageFilter {
        since: Some(1_700_000_000),
        before: Some(1_760_000_000),
        max_size: Some(1_000_000),
        min_size: Some(10),
        skip_deleted: false,
    };
    archive.coverage = MapCoverage::AboveMark(HighWaterMark {
        uid: SourceUid(70_000),
        listed: 60_000,
        adopted: 7,
        exceptions: uids(&[(3, 5), (900, 900)]),
        left_out: Some(LeftOutByRules { rules, messages: 40 }),
    });
    checkpoint.dropped_folders = 2;
    checkpoint
}

/// The same with copies that were found in other folders.
fn moved_copies() -> Checkpoint {
    let mut checkpoint = all_fields();
    let inbox = checkpoint.folders.get_mut(b"INBOX".as_slice()).unwrap();
    let mut map = UidMap::new();
    for (source, copy) in [(60, 7), (61, 8), (70, 3)] {
        map.push(SourceUid(source), Some(DestinationUid(copy)), CopyOrigin::Adopted);
    }
    inbox.moved = vec![MovedCopies { folder: b"INBOX.Trash".to_vec(), uid_validity: 9, map }];
    inbox.unsearched = true;
    checkpoint
}

/// The fields behind the format's number (1 byte), the check sum (8 bytes) and the compression, which may do better in a
/// later version.
fn fields(checkpoint: &[u8]) -> Value {
    assert_eq!(checkpoint[0], 1, "the format");
    let mut cbor = Vec::new();
    flate2::read::DeflateDecoder::new(&checkpoint[9..]).read_to_end(&mut cbor).unwrap();
    ciborium::from_reader(cbor.as_slice()).unwrap()
}

/// CBOR for people: bytes that are no plain text as hexadecimal digits.
fn shown(value: &Value) -> serde_json::Value {
    match value {
        Value::Map(fields) => {
            fields.iter().map(|(key, value)| (key.as_text().unwrap().to_owned(), shown(value))).collect()
        }
        Value::Array(values) => values.iter().map(shown).collect(),
        Value::Bytes(bytes) if !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            format!("bytes `{}`", String::from_utf8_lossy(bytes)).into()
        }
        Value::Bytes(bytes) => bytes.iter().fold("bytes".to_owned(), |text, byte| format!("{text} {byte:02x}")).into(),
        other => serde_json::to_value(other).unwrap(),
    }
}

#[test]
fn a_checkpoint_with_all_its_fields_is_read_and_written_as_ever() {
    let all = [("all-fields", all_fields()), ("later-fields", later_fields()), ("moved-copies", moved_copies())];
    for (name, checkpoint) in all {
        let file = fixture(&format!("{name}.checkpoint"));
        if std::env::var_os("MAILFERRY_WRITE").is_some() && !file.exists() {
            fs::write(&file, checkpoint.encode().unwrap()).unwrap();
        }
        let written = fs::read(file).unwrap();
        assert_eq!(Checkpoint::decode(&written).unwrap(), checkpoint);
        assert_eq!(fields(&checkpoint.encode().unwrap()), fields(&written));
        insta::assert_snapshot!(name, serde_json::to_string_pretty(&shown(&fields(&written))).unwrap());
    }
}

/// The file of alice's checkpoint, as version 0.1.0 named it.
const ALICE: &str = "alice-2bd806c97f0e00af.checkpoint";

/// Six ordinary messages and one that the destination does not take.
fn source_mails() -> Vec<Mail> {
    let large = format!("Message-ID: <large@example.org>\r\n\r\n{}\r\n", "x".repeat(2000));
    mails(6).into_iter().chain([Mail::new(9, large)]).collect()
}

/// The files in a folder and their modes, and the folder's.
fn modes(folder: &Path) -> BTreeMap<String, u32> {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = files.map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry.path())));
    files.chain([(".".to_owned(), mode(folder))]).collect()
}

fn read(file: &Path) -> Checkpoint {
    Checkpoint::decode(&fs::read(file).unwrap()).unwrap()
}

/// The same with what differs between runs replaced: the accounts' ports, and when refused messages were tried. The
/// destination's UIDNEXT is of a later version than the file.
fn of_no_run(mut checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.fingerprint = fingerprint_of_accounts();
    for state in checkpoint.folders.values_mut() {
        state.destination_next = 0;
        let groups = state.set_aside.groups().to_vec();
        state.set_aside = SetAside::default();
        for group in groups {
            state.set_aside.add_group(SetAsideGroup { last_try: 1_760_000_000, ..group });
        }
    }
    checkpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_from_a_state_folder_and_leaves_one_like_it() {
    let source = Fake::start(MODERN, source_mails()).await;
    let there = [2, 4].into_iter().zip(1..).map(|(mail, uid)| Mail { uid, ..source_mails()[mail - 1].clone() });
    let destination = Fake::start(&format!("{MODERN} APPENDLIMIT=1000"), there.collect()).await;
    let at = |fake: &Fake| server_with("127.0.0.1", fake.server.port(), "None");
    let cli = Cli::new(at(&source), at(&destination)).mailbox("alice", ("anybody", "any one"), ("anybody", "any two"));

    // What a first run leaves.
    cli.run("run", &["--output", "json"]).await.exits(3);
    let (left, kept) = (cli.state(), fixture("state"));
    let checkpoint = read(&checkpoint_in(&left));
    let name = checkpoint_in(&left).file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(name, format!("anybody-{}.checkpoint", &checkpoint.fingerprint[..16]));
    let files = [(".", 0o700), (name.as_str(), 0o600), ("last-run.json", 0o600), ("lock", 0o600)];
    let files = files.map(|(name, mode)| (name.to_owned(), mode));
    assert_eq!(modes(&left), BTreeMap::from(files));
    let accounts_of_run = checkpoint.fingerprint.clone();
    assert_eq!(of_no_run(checkpoint), read(&kept.join(ALICE)));

    // The one that is kept here belongs to its accounts, and a run with it has nothing to do.
    let recalled = StateFolder::read_only(&kept).checkpoint_file(&spec_of_accounts()).load_checkpoint().unwrap();
    assert_eq!((recalled.checkpoint.as_ref(), recalled.note), (Some(&read(&kept.join(ALICE))), None));
    let state = cli.path("state");
    fs::create_dir(&state).unwrap();
    fs::copy(kept.join("lock"), state.join("lock")).unwrap();
    let checkpoint = Checkpoint { fingerprint: accounts_of_run, ..read(&kept.join(ALICE)) };
    fs::write(state.join(ALICE), checkpoint.encode().unwrap()).unwrap();
    let traffic = || (destination.heard("APPEND "), source.heard("BODY.PEEK[]"), destination.heard("BODY.PEEK[]"));
    let before = traffic();
    let ran = cli.run("run", &["--output", "json", "--state", "state"]).await.exits(3);
    assert_eq!(traffic(), before, "no message is read or sent again");
    let report = &ran.events("finished")[0]["report"];
    insta::assert_snapshot!(serde_json::to_string_pretty(&report["folders"]).unwrap());
    // The file has the name of its accounts by now.
    assert_eq!(modes(&state).into_keys().collect::<Vec<_>>(), [".", name.as_str(), "last-run.json", "lock"]);
    let (inbox, then) =
        (&read(&state.join(&name)).folders[&b"INBOX"[..]], &read(&kept.join(ALICE)).folders[&b"INBOX"[..]]);
    assert_eq!((&inbox.map, inbox.set_aside.uids()), (&then.map, then.set_aside.uids()));
}

#[test]
fn names_and_fingerprints_of_the_same_input_are_the_same_as_ever() {
    let [source, destination] = accounts();
    let mut text = String::new();
    let mut tell = |what: &str, value: &dyn std::fmt::Display| writeln!(text, "{what}: {value}").unwrap();
    tell("checkpoint's accounts", &fingerprint(&source, &destination));
    tell("the same the other way round", &fingerprint(&destination, &source));

    let rules = |messages: MessageFilter| {
        let [source, destination] = accounts();
        let mut spec = Rig::between(source, destination).spec;
        spec.messages = messages;
        format!("{:016x}", spec.try_facts(DestinationFacts::default()).rules)
    };
    tell("no message rules", &rules(MessageFilter::default()));
    let some = MessageFilter { max_size: Some(1000), skip_deleted: true, ..MessageFilter::default() };
    tell("some message rules", &rules(some));

    tell("MailboxSync", &names::mailbox_sync("acme", "alice@acme.example"));
    tell("MailboxSync of a long name", &names::mailbox_sync("acme", &"Ä-".repeat(80)));
    tell("pod", &names::pod(&names::mailbox_sync("acme", "alice"), 3));
    tell("a mailbox's Secret", &names::mailbox_secret("acme-alice", "0123456789ab"));
    let mut endpoint = SyncEndpoint {
        server: MailServerSpec { host: "Mail.New.Example.".into(), port: Some(143), ..MailServerSpec::default() }
            .into(),
        account: Account { username: Some("Alice".into()), ..Account::default() },
        ..SyncEndpoint::default()
    };
    tell("claim on an account", &names::account_hash(&endpoint));
    endpoint.server.port = Some(1993);
    tell("claim by another port", &names::account_hash(&endpoint));
    let syncs: Vec<String> = (0..40).map(|n| format!("acme-{n}")).collect();
    let removal = decide_removal(syncs.iter().map(|name| (name.as_str(), name.as_str())), |_| false, None, None);
    tell("token of a removal", &removal.pending.unwrap().token);

    let place = |host: &str| ServerLocation::Host(host.into(), Some(143));
    tell("imported migration", &migration("moves", &[place("old.example"), ServerLocation::Reference("new".into())]));
    tell("bucket of a mailbox", &bucket("alice", 1000));

    let state = StateFolder::read_only(Path::new("state"));
    let mut spec = spec_of_accounts();
    for user in ["alice", "a/b", "Ünï@acme.example"] {
        spec.destination.login.username = user.to_owned();
        tell("state file", &state.checkpoint_file(&spec).path().display());
    }
    insta::assert_snapshot!(text);
}
