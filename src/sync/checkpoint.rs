//! What a later attempt must know to go on: in memory, and as the opaque string that status and state files hold.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    set_aside::{DestinationFacts, SetAside, SetAsideGroup, SetAsideReason},
    uid::{DestinationUid, SourceUid},
    uid_map::UidMap,
    varint::{decode_uids, encode_uids},
};
use crate::{
    Error, ErrorClass, Result,
    imap::{Endpoint, UidSet, mutf7, select::SelectedFolder},
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
    /// What was found of views, by raw source name.
    pub views: BTreeMap<Vec<u8>, ViewState>,
    /// The longest that the destination needed to store what it was sent, milliseconds; 0 where it never needed a second.
    pub slowest_commit: u32,
}

/// A view as it was looked at last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewState {
    /// UIDVALIDITY.
    #[serde(rename = "v")]
    pub uid_validity: u32,
    /// UIDNEXT; 0 where the server does not tell.
    #[serde(rename = "u")]
    pub uid_next: u32,
    /// Messages.
    #[serde(rename = "m")]
    pub messages: u32,
    /// Of these, messages that no synced folder held.
    #[serde(rename = "n")]
    pub not_elsewhere: u64,
}

impl ViewState {
    /// A view as it is now; how many of its messages no synced folder holds is not known yet.
    #[must_use]
    pub(crate) fn from_selected(selected: &SelectedFolder) -> Self {
        Self {
            uid_validity: selected.uid_validity,
            uid_next: selected.uid_next.unwrap_or(0),
            messages: selected.exists,
            not_elsewhere: 0,
        }
    }

    /// True when nothing came or went since.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.uid_validity, self.uid_next, self.messages) == (other.uid_validity, other.uid_next, other.messages)
            && self.uid_next > 0
    }
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
    /// Messages that were not copied, and what is known of each.
    pub set_aside: SetAside,
    /// Messages that the source counts and lists nowhere: not copied, and without UIDs.
    pub unlisted: u64,
    /// Runs in a row that the destination ended by taking nothing at all of this folder.
    pub unwell_runs: u32,
    /// Differences of copies that no run which ended has told yet.
    pub differences: CopyDifferences,
    /// A destination UIDNEXT that was known before the oldest unanswered APPEND was sent. The uncertain tail is every
    /// destination UID from here on that is not in the map.
    pub tail_from: u32,
    /// An APPEND may be in doubt: the tail must be looked at before anything is sent again.
    pub append_in_doubt: bool,
    /// Messages that a lost connection was sending, in a run that did not look for late copies of them after that yet:
    /// until then `tail_from` stays where it is.
    pub doubted: UidSet<SourceUid>,
    /// Late copies of these that were told already.
    pub late_copies: UidSet<DestinationUid>,
    /// The source's flags as of the last sync: UIDs of copied messages by sendable flag.
    pub flags: BTreeMap<String, UidSet<SourceUid>>,
    /// The source's STATUS when everything in the folder was last done: if it is the same again, nothing changed.
    pub settled: Option<QuiescentStatus>,
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
        let last: Vec<_> = self.map.last_runs(KEPT);
        self.map = UidMap::new();
        self.map.push_runs(last);
        self.flags.clear();
        self.settle_doubted();
        self.reduced = true;
    }

    /// Moves the uncertain tail's begin up to `uid_next`, unless late copies are still looked for.
    pub(crate) fn raise_tail(&mut self, uid_next: u32) {
        if self.doubted.is_empty() {
            self.tail_from = self.tail_from.max(uid_next);
        }
    }

    /// Late copies are looked for no longer.
    pub(crate) fn settle_doubted(&mut self) {
        self.doubted = UidSet::default();
        self.late_copies = UidSet::default();
    }

    /// Source UIDs that were dealt with: copied or set aside.
    #[must_use]
    pub(crate) fn finished_uids(&self) -> UidSet<SourceUid> {
        self.map.copied().union(&self.set_aside.uids())
    }
}

/// Differences of copies by kind: how many there are, and the first UIDs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyDifferences(pub BTreeMap<String, DifferenceCount>);

/// Copies that differ from their messages in one way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceCount {
    /// How many.
    #[serde(rename = "n")]
    pub count: u64,
    /// The first [`CopyDifferences::FIRST`] source UIDs.
    #[serde(rename = "u")]
    pub first: Vec<u32>,
}

impl CopyDifferences {
    /// So many UIDs are kept of each kind.
    pub(crate) const FIRST: usize = 20;

    /// Adds others.
    pub(crate) fn merge(&mut self, others: Self) {
        for (kind, other) in others.0 {
            let difference = self.0.entry(kind).or_default();
            difference.count += other.count;
            let room = Self::FIRST.saturating_sub(difference.first.len());
            difference.first.extend(other.first.into_iter().take(room));
        }
    }

    /// Counts a copy that differs.
    pub(crate) fn add(&mut self, kind: &str, uid: SourceUid) {
        let difference = self.0.entry(kind.to_owned()).or_default();
        difference.count += 1;
        if difference.first.len() < Self::FIRST {
            difference.first.push(uid.0);
        }
    }
}

/// STATUS of a source folder with nothing left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuiescentStatus {
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

/// Identifies the pair of accounts: SHA-256 of host, port and user of both in lower case, as hexadecimal digits. A
/// changed password or TLS setting is still the same pair.
#[must_use]
pub fn fingerprint(source: &Endpoint, destination: &Endpoint) -> String {
    accounts_fingerprint(&[source, destination])
}

/// The same of any accounts.
pub(crate) fn accounts_fingerprint(accounts: &[&Endpoint]) -> String {
    let mut hasher = Sha256::new();
    for endpoint in accounts {
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
struct CheckpointRecord {
    #[serde(rename = "f")]
    fingerprint: String,
    #[serde(rename = "m", default)]
    mapping: Vec<(ByteBuf, ByteBuf)>,
    #[serde(rename = "d", default)]
    folders: Vec<FolderRecord>,
    #[serde(rename = "v", default, skip_serializing_if = "Vec::is_empty")]
    views: Vec<(ByteBuf, ViewState)>,
    #[serde(rename = "c", default, skip_serializing_if = "is_zero")]
    slowest_commit: u32,
    /// Apart from the others, since a version that does not know of reduced folders must not take one for a whole.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    reduced: Vec<FolderRecord>,
}

#[derive(Serialize, Deserialize)]
struct FolderRecord {
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
    /// What versions before the groups wrote: UIDs by reason. Only read.
    #[serde(rename = "k", default, skip_serializing)]
    skipped: BTreeMap<String, ByteBuf>,
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    set_aside: Vec<SetAsideRecord>,
    #[serde(rename = "l", default, skip_serializing_if = "is_zero")]
    unlisted: u64,
    #[serde(rename = "w", default, skip_serializing_if = "is_zero")]
    unwell_runs: u32,
    #[serde(rename = "x", default, skip_serializing_if = "has_none")]
    differences: CopyDifferences,
    #[serde(rename = "t")]
    tail_from: u32,
    #[serde(rename = "o", default, skip_serializing_if = "std::ops::Not::not")]
    append_in_doubt: bool,
    #[serde(rename = "u", default, skip_serializing_if = "has_no_bytes")]
    doubted: ByteBuf,
    #[serde(rename = "y", default, skip_serializing_if = "has_no_bytes")]
    late_copies: ByteBuf,
    #[serde(rename = "f", default, skip_serializing_if = "BTreeMap::is_empty")]
    flags: BTreeMap<String, ByteBuf>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    settled: Option<QuiescentStatus>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    mailbox_id: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

fn has_no_bytes(set: &ByteBuf) -> bool {
    set.is_empty()
}

fn has_none(differences: &CopyDifferences) -> bool {
    differences.0.is_empty()
}

#[derive(Serialize, Deserialize)]
struct SetAsideRecord {
    #[serde(rename = "r")]
    reason: String,
    #[serde(rename = "c")]
    class: String,
    #[serde(rename = "w", default)]
    why: String,
    #[serde(rename = "p", default)]
    proven: bool,
    #[serde(rename = "n", default)]
    tries: u32,
    #[serde(rename = "b", default)]
    runs: u32,
    #[serde(rename = "t", default)]
    last_try: i64,
    #[serde(rename = "d", default)]
    destination: DestinationFacts,
    #[serde(rename = "m", default)]
    rules: u64,
    #[serde(rename = "u")]
    uids: ByteBuf,
}

impl SetAsideRecord {
    fn from_group(group: &SetAsideGroup) -> Self {
        Self {
            reason: group.reason.name().to_owned(),
            class: group.class.to_string(),
            why: group.why.clone(),
            proven: group.proven,
            tries: group.tries,
            runs: group.runs,
            last_try: group.last_try,
            destination: group.destination.clone(),
            rules: group.rules,
            uids: ByteBuf::from(encode_uids(&group.uids)),
        }
    }

    /// None when the UIDs are no set. A later version's reason counts as a refusal without proof: it is tried again.
    fn into_group(self) -> Option<SetAsideGroup> {
        let reason = SetAsideReason::from_name(&self.reason);
        Some(SetAsideGroup {
            reason: reason.unwrap_or(SetAsideReason::Refused),
            class: ErrorClass::from_name(&self.class).unwrap_or(ErrorClass::MessageRejected),
            why: self.why,
            proven: self.proven && reason.is_some(),
            tries: self.tries,
            runs: self.runs,
            last_try: self.last_try,
            destination: self.destination,
            rules: self.rules,
            uids: decode_uids(&self.uids)?,
        })
    }
}

/// What versions before the groups recorded has no proof.
fn without_proof(reason: SetAsideReason, uids: UidSet<SourceUid>) -> SetAsideGroup {
    let why = "an earlier version of Mailferry recorded it, without proof".to_owned();
    SetAsideGroup { why, ..SetAsideGroup::new(reason, uids) }
}

impl FolderRecord {
    fn from_state(name: &[u8], state: &FolderState) -> Self {
        let uids = |uids: &UidSet<SourceUid>| ByteBuf::from(encode_uids(uids));
        Self {
            name: ByteBuf::from(name),
            source_uid_validity: state.source_uid_validity,
            destination_uid_validity: state.destination_uid_validity,
            highest_modseq: state.highest_modseq,
            map: ByteBuf::from(state.map.encode()),
            skipped: BTreeMap::new(),
            set_aside: state.set_aside.groups().iter().map(SetAsideRecord::from_group).collect(),
            unlisted: state.unlisted,
            unwell_runs: state.unwell_runs,
            differences: state.differences.clone(),
            tail_from: state.tail_from,
            append_in_doubt: state.append_in_doubt,
            doubted: uids(&state.doubted),
            late_copies: ByteBuf::from(encode_uids(&state.late_copies)),
            flags: state.flags.iter().map(|(flag, set)| (flag.clone(), uids(set))).collect(),
            settled: state.settled,
            mailbox_id: state.mailbox_id.clone(),
        }
    }

    /// None when a map or set is not one that we write.
    fn into_state(self) -> Option<(Vec<u8>, FolderState)> {
        let mut set_aside = SetAside::default();
        for (name, uids) in self.skipped {
            if let Some(reason) = SetAsideReason::from_name(&name) {
                set_aside.add_group(without_proof(reason, decode_uids(&uids)?));
            }
        }
        for group in self.set_aside {
            set_aside.add_group(group.into_group()?);
        }
        let flags = self.flags.into_iter().map(|(flag, uids)| Some((flag, decode_uids(&uids)?)));
        let state = FolderState {
            source_uid_validity: self.source_uid_validity,
            destination_uid_validity: self.destination_uid_validity,
            highest_modseq: self.highest_modseq,
            map: UidMap::decode(&self.map)?,
            set_aside,
            unlisted: self.unlisted,
            unwell_runs: self.unwell_runs,
            differences: self.differences,
            tail_from: self.tail_from,
            append_in_doubt: self.append_in_doubt,
            doubted: decode_uids(&self.doubted)?,
            late_copies: decode_uids(&self.late_copies)?,
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
            folders.into_iter().map(|(name, state)| FolderRecord::from_state(name, state)).collect()
        };
        let written = CheckpointRecord {
            fingerprint: self.fingerprint.clone(),
            mapping: self.mapping.iter().map(|(s, d)| (ByteBuf::from(&**s), ByteBuf::from(&**d))).collect(),
            slowest_commit: self.slowest_commit,
            views: self.views.iter().map(|(name, view)| (ByteBuf::from(&**name), *view)).collect(),
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
            state.map.runs().len() * 4 + state.flags.values().map(|set| set.ranges().len() * 2).sum::<usize>()
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
        // Thousands of folders: their names alone are too much. What was not copied is kept as long as it can be.
        smaller.folders.retain(|_, state| !state.set_aside.is_empty());
        let encoded = smaller.encode()?;
        if encoded.len() <= most {
            return Ok(encoded);
        }
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
    pub(crate) fn encode_text_within(&self, most: usize) -> Result<String> {
        Ok(STANDARD_NO_PAD.encode(self.encode_within(most / 4 * 3)?))
    }

    /// More may have been appended than this checkpoint knows: each folder's tail is looked at before anything is sent.
    pub(crate) fn mark_in_doubt(&mut self) {
        for state in self.folders.values_mut() {
            state.append_in_doubt = true;
        }
    }

    /// Reads what [`Self::encode`] wrote, by this version or another.
    ///
    /// # Errors
    /// Internal, when the bytes are torn, changed, or of a format that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_cbor(&unseal(bytes)?)
    }

    /// Reads what stands behind the check sum.
    pub(crate) fn decode_cbor(cbor: &[u8]) -> Result<Self> {
        let refused = |what: &str| Error::internal(format!("the checkpoint can't be read: {what}"));
        let written: CheckpointRecord = ciborium::from_reader(cbor).map_err(|_| refused("its fields are missing"))?;
        let folders = written.folders.into_iter().map(FolderRecord::into_state);
        let reduced = written.reduced.into_iter().map(|folder| {
            let (name, state) = folder.into_state()?;
            Some((name, FolderState { reduced: true, ..state }))
        });
        let folders = folders.chain(reduced).collect::<Option<_>>();
        Ok(Self {
            fingerprint: written.fingerprint,
            mapping: written.mapping.into_iter().map(|(s, d)| (s.into_vec(), d.into_vec())).collect(),
            slowest_commit: written.slowest_commit,
            views: written.views.into_iter().map(|(name, view)| (name.into_vec(), view)).collect(),
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
                let set_aside: Vec<_> = state.set_aside.groups().iter().map(describe_group).collect();
                let flags: BTreeMap<_, _> = state.flags.iter().map(|(flag, uids)| (flag, uids.len())).collect();
                json!({
                    "source": mutf7::decode_lossy(name),
                    "destination": self.mapping.get(name).map(|name| mutf7::decode_lossy(name)),
                    "sourceUidValidity": state.source_uid_validity,
                    "destinationUidValidity": state.destination_uid_validity,
                    "highestModSeq": state.highest_modseq,
                    "copied": state.map.len(),
                    "adopted": state.map.adopted().len(),
                    "destinationUidUnknown": state.map.unknown_uids().len(),
                    "lastSourceUid": state.map.copied().last().map(|uid| uid.0),
                    "lastDestinationUid": state.map.destination_uids().last().map(|uid| uid.0),
                    "setAside": set_aside,
                    "unlisted": state.unlisted,
                    "differences": state.differences,
                    "tailFrom": state.tail_from,
                    "appendInDoubt": state.append_in_doubt,
                    "doubted": state.doubted.len(),
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

fn describe_group(group: &SetAsideGroup) -> serde_json::Value {
    json!({
        "reason": group.reason.name(),
        "class": group.class,
        "why": group.why,
        "proven": group.proven,
        "tries": group.tries,
        "lastTry": jiff::Timestamp::from_second(group.last_try).ok().filter(|_| group.last_try > 0).map(|at| at.to_string()),
        "messages": group.uids.len(),
        "firstUids": group.uids.chunks(200).next().unwrap_or_default(),
    })
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
mod tests;
