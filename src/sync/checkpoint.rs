//! What a later attempt must know to go on: in memory, and as the opaque string that status and state files hold.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    compact::{decode_uids, encode_uids},
    uid_map::UidMap,
};
use crate::{
    Error, Result,
    imap::{Endpoint, mutf7, uid_set::UidSet},
};

/// The first byte. It changes only when the version before could not read what is written; new fields alone are no
/// reason, since readers ignore what they do not know.
const FORMAT: u8 = 1;

/// Bytes of SHA-256 that stand behind the format, over everything else.
const CHECK_BYTES: usize = 8;

/// The most that a checkpoint may inflate to, bytes.
const MAX_INFLATED: usize = 64 << 20;

/// Everything known about one mailbox from earlier attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// [`fingerprint`] of the accounts; with another one there is no checkpoint.
    pub fingerprint: String,
    /// Raw source name to raw destination name: frozen once used, also for folders that are gone or left out now.
    pub mapping: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What is known of each folder, by raw source name.
    pub folders: BTreeMap<Vec<u8>, FolderState>,
}

/// What is known of one folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderState {
    /// The source's UIDVALIDITY that the source UIDs belong to.
    pub source_uid_validity: u32,
    /// The destination's UIDVALIDITY that the destination UIDs belong to.
    pub destination_uid_validity: u32,
    /// The source's HIGHESTMODSEQ before the first FETCH of the last sync whose STOREs were all OK.
    pub highest_modseq: Option<u64>,
    /// Where each message went.
    pub map: UidMap,
    /// Source UIDs that were not copied, by reason.
    pub skipped: BTreeMap<SkipReason, UidSet>,
    /// A destination UIDNEXT that was known before the oldest unanswered APPEND was sent. The uncertain tail is every
    /// destination UID from here on that is not in the map.
    pub tail_from: u32,
    /// An APPEND may be in doubt: the tail must be looked at before anything is sent again.
    pub open: bool,
    /// The source's flags as of the last sync: UIDs of copied messages by sendable flag.
    pub flags: BTreeMap<String, UidSet>,
    /// The source's STATUS when everything in the folder was last done: if it is the same again, nothing changed.
    pub settled: Option<Settled>,
    /// The source folder's MAILBOXID (RFC 8474).
    pub mailbox_id: Option<String>,
    /// Only the last few messages stand in the map, since the whole would not fit: see [`Checkpoint::encode_within`].
    /// They do not count as copied: unless nothing changed in it, the folder is matched as if there were no checkpoint.
    pub reduced: bool,
}

/// So many messages are kept in the map of a reduced folder: enough to know it again after a rename.
const KEPT: usize = 3;

impl FolderState {
    /// What is kept of a folder that takes too much room.
    fn reduce(&mut self) {
        let last: Vec<_> = self.map.last(KEPT);
        self.map = UidMap::new();
        self.map.push_runs(last);
        self.skipped.clear();
        self.flags.clear();
        self.reduced = true;
    }

    /// Source UIDs that need no copying: copied, or skipped for a reason that lasts. What was unreadable is tried again
    /// by the next sync.
    #[must_use]
    pub fn done(&self) -> UidSet {
        let lasting = self.skipped.iter().filter(|(reason, _)| !reason.is_tried_again());
        lasting.fold(self.map.copied().clone(), |done, (_, uids)| done.union(uids))
    }
}

/// STATUS of a source folder with nothing left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// UIDNEXT.
    #[serde(rename = "u")]
    pub uid_next: u32,
    /// MESSAGES.
    #[serde(rename = "m")]
    pub messages: u32,
    /// HIGHESTMODSEQ, where the server has one.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub highest_modseq: Option<u64>,
}

/// Why a message was not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// It is larger than the destination takes.
    TooLarge,
    /// The destination refused it for what it is (8-bit, NUL, header).
    Refused,
    /// The source could not deliver it.
    Unreadable,
    /// It has no bytes, which the destination does not take.
    Empty,
}

impl SkipReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::TooLarge, Self::Refused, Self::Unreadable, Self::Empty];

    /// The name in checkpoints and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "tooLarge",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Empty => "empty",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// True when the next sync tries again.
    #[must_use]
    pub const fn is_tried_again(self) -> bool {
        matches!(self, Self::Unreadable)
    }
}

/// Identifies the pair of accounts: SHA-256 of host, port and user of both in lower case, as hexadecimal digits. A
/// changed password or TLS setting is still the same pair.
#[must_use]
pub fn fingerprint(source: &Endpoint, destination: &Endpoint) -> String {
    let mut hasher = Sha256::new();
    for endpoint in [source, destination] {
        for part in [&endpoint.host, &endpoint.port.to_string(), &endpoint.login.username] {
            let part = part.to_lowercase();
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    hasher
        .finalize()
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// The fields as they are written, with names of one letter. Fields are only ever added, never given another meaning.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(rename = "f")]
    fingerprint: String,
    #[serde(rename = "m", default)]
    mapping: Vec<(ByteBuf, ByteBuf)>,
    #[serde(rename = "d", default)]
    folders: Vec<WrittenFolder>,
    /// Apart from the others, since a version that does not know of reduced folders must not take one for a whole.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    reduced: Vec<WrittenFolder>,
}

#[derive(Serialize, Deserialize)]
struct WrittenFolder {
    #[serde(rename = "n")]
    name: ByteBuf,
    #[serde(rename = "s")]
    source_uid_validity: u32,
    #[serde(rename = "d")]
    destination_uid_validity: u32,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    highest_modseq: Option<u64>,
    #[serde(rename = "m")]
    map: ByteBuf,
    #[serde(rename = "k", default, skip_serializing_if = "BTreeMap::is_empty")]
    skipped: BTreeMap<String, ByteBuf>,
    #[serde(rename = "t")]
    tail_from: u32,
    #[serde(rename = "o", default, skip_serializing_if = "std::ops::Not::not")]
    open: bool,
    #[serde(rename = "f", default, skip_serializing_if = "BTreeMap::is_empty")]
    flags: BTreeMap<String, ByteBuf>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    settled: Option<Settled>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    mailbox_id: Option<String>,
}

impl WrittenFolder {
    fn of(name: &[u8], state: &FolderState) -> Self {
        let uids = |uids: &UidSet| ByteBuf::from(encode_uids(uids));
        Self {
            name: ByteBuf::from(name),
            source_uid_validity: state.source_uid_validity,
            destination_uid_validity: state.destination_uid_validity,
            highest_modseq: state.highest_modseq,
            map: ByteBuf::from(state.map.encode()),
            skipped: state.skipped.iter().map(|(reason, set)| (reason.name().to_owned(), uids(set))).collect(),
            tail_from: state.tail_from,
            open: state.open,
            flags: state.flags.iter().map(|(flag, set)| (flag.clone(), uids(set))).collect(),
            settled: state.settled,
            mailbox_id: state.mailbox_id.clone(),
        }
    }

    /// None when a map or set is not one that we write.
    fn read(self) -> Option<(Vec<u8>, FolderState)> {
        let mut skipped = BTreeMap::new();
        for (name, uids) in self.skipped {
            // A later version's reason is not known here: then the message is tried again.
            if let Some(reason) = SkipReason::of(&name) {
                skipped.insert(reason, decode_uids(&uids)?);
            }
        }
        let flags = self.flags.into_iter().map(|(flag, uids)| Some((flag, decode_uids(&uids)?)));
        let state = FolderState {
            source_uid_validity: self.source_uid_validity,
            destination_uid_validity: self.destination_uid_validity,
            highest_modseq: self.highest_modseq,
            map: UidMap::decode(&self.map)?,
            skipped,
            tail_from: self.tail_from,
            open: self.open,
            flags: flags.collect::<Option<_>>()?,
            settled: self.settled,
            mailbox_id: self.mailbox_id,
            reduced: false,
        };
        Some((self.name.into_vec(), state))
    }
}

impl Checkpoint {
    /// The checkpoint as bytes: format, check sum, deflated CBOR.
    ///
    /// # Errors
    /// Internal, when it is too large to be read again.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (reduced, whole): (Vec<_>, Vec<_>) = self.folders.iter().partition(|(_, state)| state.reduced);
        let write = |folders: Vec<(&Vec<u8>, &FolderState)>| {
            folders.into_iter().map(|(name, state)| WrittenFolder::of(name, state)).collect()
        };
        let written = Written {
            fingerprint: self.fingerprint.clone(),
            mapping: self.mapping.iter().map(|(s, d)| (ByteBuf::from(&**s), ByteBuf::from(&**d))).collect(),
            folders: write(whole),
            reduced: write(reduced),
        };
        let mut cbor = Vec::new();
        ciborium::into_writer(&written, &mut cbor)
            .map_err(|error| Error::internal(format!("the checkpoint can't be written: {error}")))?;
        if cbor.len() > MAX_INFLATED {
            return Err(Error::internal(format!("the checkpoint has {} bytes, more than it may have", cbor.len())));
        }
        seal(&cbor)
    }

    /// [`Self::encode`] in at most `most` bytes: where the whole is larger, the largest folders are reduced to their
    /// high-water marks, one after the other. Such a folder is left alone while nothing changes in it; when something does,
    /// it is matched as if there were no checkpoint: slower, never wrong.
    ///
    /// One folder of 200,000 messages, all of them seen, takes under 1 KB when no UID is missing, 20 KB when each 20th is
    /// missing at random, and 131 KB when every second is (measured by a test below; 400,000 coin tosses are 50 KB by
    /// themselves). A status has room for 49 KB, in base64.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_within(&self, most: usize) -> Result<Vec<u8>> {
        let encoded = self.encode()?;
        if encoded.len() <= most {
            return Ok(encoded);
        }
        let mut smaller = self.clone();
        let size = |state: &FolderState| {
            let sets = state.skipped.values().chain(state.flags.values());
            state.map.runs().len() * 4 + sets.map(|set| set.ranges().len() * 2).sum::<usize>()
        };
        let mut by_size: Vec<(usize, Vec<u8>)> = self.folders.iter().map(|(name, s)| (size(s), name.clone())).collect();
        by_size.sort();
        let all: usize = by_size.iter().map(|(size, _)| size).sum::<usize>().max(1);
        let (mut length, mut left) = (encoded.len(), all);
        // As long as names are few, the encoded length goes with the number of ranges.
        while let Some((size, name)) = by_size.pop() {
            if let Some(state) = smaller.folders.get_mut(&name) {
                state.reduce();
            }
            left = left.saturating_sub(size);
            if by_size.is_empty() || left.saturating_mul(length) <= all.saturating_mul(most) {
                let encoded = smaller.encode()?;
                if encoded.len() <= most {
                    return Ok(encoded);
                }
                length = length.max(encoded.len());
            }
        }
        // Thousands of folders: their names alone are too much.
        smaller.folders.clear();
        let encoded = smaller.encode()?;
        if encoded.len() <= most {
            return Ok(encoded);
        }
        Self { fingerprint: smaller.fingerprint, ..Self::default() }.encode()
    }

    /// [`Self::encode_within`] as text of at most `most` characters.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_text_within(&self, most: usize) -> Result<String> {
        Ok(STANDARD_NO_PAD.encode(self.encode_within(most / 4 * 3)?))
    }

    /// More may have been appended than this checkpoint knows: each folder's tail is looked at before anything is sent.
    pub fn doubt(&mut self) {
        for state in self.folders.values_mut() {
            state.open = true;
        }
    }

    /// Reads what [`Self::encode`] wrote, by this version or another.
    ///
    /// # Errors
    /// Internal, when the bytes are torn, changed, or of a format that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let cbor = unseal(bytes)?;
        let refused = |what: &str| Error::internal(format!("the checkpoint can't be read: {what}"));
        let written: Written = ciborium::from_reader(cbor.as_slice()).map_err(|_| refused("its fields are missing"))?;
        let folders = written.folders.into_iter().map(WrittenFolder::read);
        let reduced = written.reduced.into_iter().map(|folder| {
            let (name, state) = folder.read()?;
            Some((name, FolderState { reduced: true, ..state }))
        });
        let folders = folders.chain(reduced).collect::<Option<_>>();
        Ok(Self {
            fingerprint: written.fingerprint,
            mapping: written.mapping.into_iter().map(|(s, d)| (s.into_vec(), d.into_vec())).collect(),
            folders: folders.ok_or_else(|| refused("a folder's UIDs make no sense"))?,
        })
    }

    /// [`Self::encode`] as text (base64), for status and state files.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_text(&self) -> Result<String> {
        Ok(STANDARD_NO_PAD.encode(self.encode()?))
    }

    /// Reads what [`Self::encode_text`] wrote.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_text(text: &str) -> Result<Self> {
        let bytes = STANDARD_NO_PAD
            .decode(text.trim())
            .map_err(|_| Error::internal("the checkpoint can't be read: it is not base64"))?;
        Self::decode(&bytes)
    }

    /// What a person can read of it. Names are decoded; lists of UIDs are counts, but for those of skipped messages.
    #[must_use]
    pub fn describe(&self) -> serde_json::Value {
        let folders: Vec<_> = self
            .folders
            .iter()
            .map(|(name, state)| {
                let skipped: serde_json::Map<_, _> = state
                    .skipped
                    .iter()
                    .map(|(reason, uids)| {
                        let shown = uids.chunks(200).next().unwrap_or_default();
                        (reason.name().to_owned(), json!({ "messages": uids.len(), "firstUids": shown }))
                    })
                    .collect();
                let flags: BTreeMap<_, _> = state.flags.iter().map(|(flag, uids)| (flag, uids.len())).collect();
                json!({
                    "source": mutf7::decode_lossy(name),
                    "destination": self.mapping.get(name).map(|name| mutf7::decode_lossy(name)),
                    "sourceUidValidity": state.source_uid_validity,
                    "destinationUidValidity": state.destination_uid_validity,
                    "highestModSeq": state.highest_modseq,
                    "copied": state.map.len(),
                    "adopted": state.map.adopted().len(),
                    "destinationUidUnknown": state.map.unknown().len(),
                    "lastSourceUid": state.map.copied().last(),
                    "lastDestinationUid": state.map.destination_uids().last(),
                    "skipped": skipped,
                    "tailFrom": state.tail_from,
                    "appendInDoubt": state.open,
                    "highWaterMarksOnly": state.reduced,
                    "flags": flags,
                    "settled": state.settled.map(|settled| json!({
                        "uidNext": settled.uid_next,
                        "messages": settled.messages,
                        "highestModSeq": settled.highest_modseq,
                    })),
                    "mailboxId": state.mailbox_id,
                })
            })
            .collect();
        let unused = self.mapping.iter().filter(|(name, _)| !self.folders.contains_key(*name));
        let mapped: BTreeMap<_, _> = unused
            .map(|(source, destination)| (mutf7::decode_lossy(source), mutf7::decode_lossy(destination)))
            .collect();
        json!({ "fingerprint": self.fingerprint, "folders": folders, "mappedOnly": mapped })
    }
}

fn check_sum(format: u8, deflated: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update([format]).chain_update(deflated).finalize();
    std::array::from_fn(|i| digest[i])
}

fn seal(cbor: &[u8]) -> Result<Vec<u8>> {
    let mut deflated = Vec::new();
    flate2::read::DeflateEncoder::new(cbor, flate2::Compression::best())
        .read_to_end(&mut deflated)
        .map_err(|error| Error::internal(format!("the checkpoint can't be written: {error}")))?;
    let mut sealed = vec![FORMAT];
    sealed.extend_from_slice(&check_sum(FORMAT, &deflated));
    sealed.append(&mut deflated);
    Ok(sealed)
}

fn unseal(bytes: &[u8]) -> Result<Vec<u8>> {
    let refused = |what: String| {
        Error::internal(format!("the checkpoint can't be read: {what}"))
            .advice("Without it the next sync compares both mailboxes and goes on; remove it to do that")
    };
    let Some((format, rest)) = bytes.split_first() else { return Err(refused("it is empty".to_owned())) };
    let torn = || refused("it is torn or was changed".to_owned());
    let (check, deflated) = rest.split_at_checked(CHECK_BYTES).ok_or_else(torn)?;
    if check != check_sum(*format, deflated) {
        return Err(torn());
    }
    if *format != FORMAT {
        return Err(refused(format!("it has format {format}, and this version reads {FORMAT}")));
    }
    let mut cbor = Vec::new();
    let mut inflating = flate2::read::DeflateDecoder::new(deflated).take(MAX_INFLATED as u64 + 1);
    inflating.read_to_end(&mut cbor).map_err(|error| refused(error.to_string()))?;
    if cbor.len() > MAX_INFLATED {
        return Err(refused("it is too large".to_owned()));
    }
    Ok(cbor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ErrorClass, Side,
        imap::{AddressPolicy, Credential, Login, Quirks, Timeouts, Tls},
        sync::uid_map::{Origin, Run},
    };

    fn endpoint(host: &str, port: u16, user: &str, password: &str) -> Endpoint {
        Endpoint {
            side: Side::Source,
            host: host.to_owned(),
            port,
            tls: Tls::default(),
            login: Login {
                username: user.to_owned(),
                master: None,
                credential: Credential::password(password.as_bytes()),
            },
            timeouts: Timeouts::default(),
            quirks: Quirks::Generic,
            compress: false,
            addresses: AddressPolicy::default(),
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
                map.push(from, Some(to), Origin::Appended);
            }
            let unseen: UidSet = map.copied().iter().filter(|uid| uid % 23 == 3).collect();
            let state = FolderState {
                source_uid_validity: 1_612_345_678 + i * 7919,
                destination_uid_validity: 1_795_469_504 + i,
                highest_modseq: Some(48_211 + u64::from(i) * 31),
                tail_from: to + 1,
                flags: BTreeMap::from([
                    ("\\Seen".to_owned(), map.copied().difference(&unseen)),
                    ("\\Answered".to_owned(), map.copied().iter().filter(|uid| uid % 17 == 3).collect()),
                ]),
                settled: Some(Settled {
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
        map.push_runs([Run { source: 17, destination: Some(1), length: 200_000, origin: Origin::Appended }]);
        let state = FolderState { map, tail_from: 200_001, ..FolderState::default() };
        let checkpoint = Checkpoint {
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
            map.push(uid, Some(to), Origin::Appended);
        }
        let flags = BTreeMap::from([("\\Seen".to_owned(), map.copied().clone())]);
        let state = FolderState { map, flags, tail_from: 200_001, ..FolderState::default() };
        Checkpoint {
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
    const IN_STATUS: usize = crate::api::mailbox_sync::MAX_CHECKPOINT / 4 * 3;

    #[test]
    fn two_hundred_thousand_messages_with_random_gaps_have_the_size_that_is_documented() {
        let size = |missing: &mut dyn FnMut() -> bool| with_gaps("INBOX", missing).encode().unwrap().len();
        let sizes =
            [size(&mut || false), size(&mut one_in(20)), size(&mut one_in(2))].map(|bytes| bytes.div_ceil(1000));
        assert_eq!(sizes, [1, 20, 131], "kilobytes; keep the documentation of encode_within right");
    }

    #[test]
    fn past_the_bound_the_largest_folders_are_reduced_and_the_others_stay_whole() {
        let mut checkpoint = usual(80);
        let large = with_gaps("Everything", one_in(2));
        checkpoint.folders.extend(large.folders);
        let encoded = checkpoint.encode_within(IN_STATUS).unwrap();
        assert!(encoded.len() <= IN_STATUS && checkpoint.encode().unwrap().len() > IN_STATUS);
        let read = Checkpoint::decode(&encoded).unwrap();
        for (name, state) in &read.folders {
            let whole = &checkpoint.folders[name];
            if name == b"Everything" {
                assert!(state.reduced && state.map.len() == 3 && state.flags.is_empty());
                assert_eq!(state.map.copied().last(), whole.map.copied().last());
                assert_eq!((state.tail_from, state.settled), (whole.tail_from, whole.settled));
            } else {
                assert_eq!(state, whole);
            }
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
        checkpoint.doubt();
        assert!(checkpoint.folders.values().all(|state| state.open));
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
        state.map.push(1, None, Origin::Appended);
        state.skipped.insert(SkipReason::TooLarge, UidSet::from_ranges([(2, 3)]));
        state.skipped.insert(SkipReason::Unreadable, UidSet::from_ranges([(4, 4)]));
        assert_eq!(state.done().to_string(), "1:3");
    }

    #[test]
    fn the_description_names_folders_and_counts_for_people() {
        let mut checkpoint = usual(80);
        let drafts = checkpoint.folders.get_mut(&b"Entw&APw-rfe"[..]).unwrap();
        drafts.skipped.insert(SkipReason::TooLarge, UidSet::from_ranges([(900, 902)]));
        checkpoint.mapping.insert(b"Gone".to_vec(), b"INBOX.Gone".to_vec());
        let text = checkpoint.describe();
        let folders = text["folders"].as_array().unwrap();
        let drafts = folders.iter().find(|folder| folder["source"] == "Entwürfe").unwrap();
        assert_eq!(drafts["destination"], "INBOX.Entwürfe");
        assert_eq!(drafts["copied"], 80);
        assert_eq!(drafts["lastDestinationUid"], 81);
        assert_eq!(drafts["skipped"]["tooLarge"], json!({ "messages": 3, "firstUids": "900:902" }));
        assert_eq!(text["mappedOnly"], json!({ "Gone": "INBOX.Gone" }));
    }

    fn uids() -> impl Strategy<Value = UidSet> {
        proptest::collection::vec((1..u32::MAX, 0..9_u32), 0..6).prop_map(|ranges| {
            UidSet::from_ranges(ranges.into_iter().map(|(low, more)| (low, low.saturating_add(more))))
        })
    }

    fn states() -> impl Strategy<Value = FolderState> {
        let map = proptest::collection::vec((1..500_u32, proptest::option::of(1..500_u32), any::<bool>()), 0..40);
        let skipped = proptest::collection::btree_map(proptest::sample::select(&SkipReason::ALL), uids(), 0..4);
        let flags = proptest::collection::btree_map("[$\\\\a-zA-Z]{1,8}", uids(), 0..4);
        let settled = proptest::option::of((any::<u32>(), any::<u32>(), any::<Option<u64>>()));
        let numbers = (any::<u32>(), any::<u32>(), any::<Option<u64>>(), any::<u32>(), any::<bool>());
        (map, skipped, flags, settled, numbers, any::<Option<String>>()).prop_map(
            |(pushes, skipped, flags, settled, (source, destination, highest_modseq, tail_from, open), mailbox_id)| {
                let mut map = UidMap::new();
                for (source, destination, adopted) in pushes {
                    map.push(source, destination, if adopted { Origin::Adopted } else { Origin::Appended });
                }
                FolderState {
                    source_uid_validity: source,
                    destination_uid_validity: destination,
                    highest_modseq,
                    map,
                    skipped,
                    tail_from,
                    open,
                    flags,
                    settled: settled.map(|(uid_next, messages, highest_modseq)| Settled {
                        uid_next,
                        messages,
                        highest_modseq,
                    }),
                    mailbox_id,
                    reduced: false,
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
                prop_assert!(state.reduced || state == &checkpoint.folders[name]);
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
}
