//! A checkpoint as it is written: a format, a check sum, and deflated CBOR of fields with names of one letter.
//! docs/development/checkpoint-format.md describes it.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::{
    Checkpoint, CopyDifferences, FolderState, QuiescentStatus, ViewState,
    high_water_mark::{HighWaterMark, LeftOutByRules, MapCoverage},
};
use crate::{
    Error, ErrorClass, Result,
    imap::UidSet,
    sync::{
        moved_match::MovedCopies,
        set_aside::{DestinationFacts, SetAside, SetAsideGroup, SetAsideReason},
        spec::MessageFilter,
        uid::SourceUid,
        uid_map::UidMap,
        varint::{decode_uids, encode_uids},
    },
};

/// The first byte. It changes only when the version before could not read what is written; new fields alone are no
/// reason, since readers ignore what they do not know.
const FORMAT: u8 = 1;

/// Bytes of SHA-256 that stand behind the format, over everything else.
const CHECK_BYTES: usize = 8;

/// The most that a checkpoint may inflate to, bytes.
pub(super) const MAX_INFLATED: usize = 64 << 20;

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
    #[serde(rename = "z", default, skip_serializing_if = "is_zero")]
    dropped_folders: u64,
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
    #[serde(rename = "p", default, skip_serializing_if = "is_zero")]
    destination_next: u32,
    #[serde(rename = "u", default, skip_serializing_if = "has_no_bytes")]
    doubted: ByteBuf,
    #[serde(rename = "y", default, skip_serializing_if = "has_no_bytes")]
    late_copies: ByteBuf,
    #[serde(rename = "q", default, skip_serializing_if = "has_no_bytes")]
    unseen: ByteBuf,
    #[serde(rename = "f", default, skip_serializing_if = "BTreeMap::is_empty")]
    flags: BTreeMap<String, ByteBuf>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    settled: Option<QuiescentStatus>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    mailbox_id: Option<String>,
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    moved: Vec<MovedRecord>,
    #[serde(rename = "j", default, skip_serializing_if = "std::ops::Not::not")]
    unsearched: bool,
    /// Only of reduced folders.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    mark: Option<MarkRecord>,
}

#[derive(Serialize, Deserialize)]
struct MarkRecord {
    #[serde(rename = "u")]
    uid: u32,
    #[serde(rename = "n")]
    listed: u64,
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    adopted: u64,
    /// Less those that were set aside.
    #[serde(rename = "x", default, skip_serializing_if = "has_no_bytes")]
    exceptions: ByteBuf,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    left_out: Option<LeftOutRecord>,
}

#[derive(Serialize, Deserialize)]
struct LeftOutRecord {
    #[serde(rename = "n")]
    messages: u64,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    before: Option<i64>,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    max_size: Option<u64>,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    min_size: Option<u64>,
}

impl MarkRecord {
    fn from_mark(mark: &HighWaterMark, set_aside: &UidSet<SourceUid>) -> Self {
        let left_out = mark.left_out.as_ref().map(|LeftOutByRules { rules, messages }| LeftOutRecord {
            messages: *messages,
            since: rules.since,
            before: rules.before,
            max_size: rules.max_size,
            min_size: rules.min_size,
        });
        Self {
            uid: mark.uid.0,
            listed: mark.listed,
            adopted: mark.adopted,
            exceptions: ByteBuf::from(encode_uids(&mark.exceptions.difference(set_aside))),
            left_out,
        }
    }

    /// None when the exceptions are no set.
    fn into_mark(self, set_aside: &UidSet<SourceUid>) -> Option<HighWaterMark> {
        let uid = SourceUid(self.uid);
        let mut exceptions = decode_uids(&self.exceptions)?.union(set_aside);
        if let Some(above) = uid.0.checked_add(1) {
            exceptions.remove_range(SourceUid(above), SourceUid(u32::MAX));
        }
        let left_out = self.left_out.map(|LeftOutRecord { messages, since, before, max_size, min_size }| {
            LeftOutByRules { rules: MessageFilter { since, before, max_size, min_size, skip_deleted: false }, messages }
        });
        Some(HighWaterMark { uid, listed: self.listed, adopted: self.adopted, exceptions, left_out })
    }
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

/// Copies in another folder of the destination.
#[derive(Serialize, Deserialize)]
struct MovedRecord {
    #[serde(rename = "n")]
    folder: ByteBuf,
    #[serde(rename = "v")]
    uid_validity: u32,
    #[serde(rename = "m")]
    map: ByteBuf,
}

impl MovedRecord {
    fn from_moved(MovedCopies { folder, uid_validity, map }: &MovedCopies) -> Self {
        Self { folder: ByteBuf::from(&**folder), uid_validity: *uid_validity, map: ByteBuf::from(map.encode()) }
    }

    fn into_moved(self) -> Option<MovedCopies> {
        let Self { folder, uid_validity, map } = self;
        Some(MovedCopies { folder: folder.into_vec(), uid_validity, map: UidMap::decode(&map)? })
    }
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
            destination_next: state.destination_next,
            doubted: uids(&state.doubted),
            late_copies: ByteBuf::from(encode_uids(&state.late_copies)),
            unseen: uids(&state.unseen),
            flags: state.flags.iter().map(|(flag, set)| (flag.clone(), uids(set))).collect(),
            settled: state.settled,
            mailbox_id: state.mailbox_id.clone(),
            moved: state.moved.iter().map(MovedRecord::from_moved).collect(),
            unsearched: state.unsearched,
            mark: state.mark().map(|mark| MarkRecord::from_mark(mark, &state.set_aside.uids())),
        }
    }

    /// None when a map or set is not one that we write.
    fn into_state(self, reduced: bool) -> Option<(Vec<u8>, FolderState)> {
        let mut set_aside = SetAside::default();
        for (name, uids) in self.skipped {
            if let Some(reason) = SetAsideReason::from_name(&name) {
                set_aside.add_group(without_proof(reason, decode_uids(&uids)?));
            }
        }
        for group in self.set_aside {
            set_aside.add_group(group.into_group()?);
        }
        let coverage = match self.mark {
            _ if !reduced => MapCoverage::Whole,
            None => MapCoverage::SamplesOnly,
            Some(mark) => MapCoverage::AboveMark(mark.into_mark(&set_aside.uids())?),
        };
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
            destination_next: self.destination_next,
            doubted: decode_uids(&self.doubted)?,
            late_copies: decode_uids(&self.late_copies)?,
            unseen: decode_uids(&self.unseen)?,
            flags: flags.collect::<Option<_>>()?,
            settled: self.settled,
            mailbox_id: self.mailbox_id,
            moved: self.moved.into_iter().map(MovedRecord::into_moved).collect::<Option<_>>()?,
            unsearched: self.unsearched,
            coverage,
            listing: None,
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
        let (reduced, whole): (Vec<_>, Vec<_>) =
            self.folders.iter().partition(|(_, state)| state.coverage != MapCoverage::Whole);
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
            dropped_folders: self.dropped_folders,
        };
        let mut cbor = Vec::new();
        ciborium::into_writer(&written, &mut cbor)
            .map_err(|error| Error::internal(format!("the checkpoint can't be written: {error}")))?;
        if cbor.len() > MAX_INFLATED {
            return Err(Error::internal(format!("the checkpoint has {} bytes, more than it may have", cbor.len())));
        }
        seal(&cbor)
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
        let whole = written.folders.into_iter().map(|folder| folder.into_state(false));
        let reduced = written.reduced.into_iter().map(|folder| folder.into_state(true));
        let folders = whole.chain(reduced).collect::<Option<_>>();
        Ok(Self {
            fingerprint: written.fingerprint,
            mapping: written.mapping.into_iter().map(|(s, d)| (s.into_vec(), d.into_vec())).collect(),
            slowest_commit: written.slowest_commit,
            views: written.views.into_iter().map(|(name, view)| (name.into_vec(), view)).collect(),
            folders: folders.ok_or_else(|| refused("a folder's UIDs make no sense"))?,
            dropped_folders: written.dropped_folders,
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
}

pub(super) fn check_sum(format: u8, deflated: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update([format]).chain_update(deflated).finalize();
    std::array::from_fn(|i| digest[i])
}

pub(super) fn seal(cbor: &[u8]) -> Result<Vec<u8>> {
    let mut deflated = Vec::new();
    flate2::read::DeflateEncoder::new(cbor, flate2::Compression::best())
        .read_to_end(&mut deflated)
        .map_err(|error| Error::internal(format!("the checkpoint can't be written: {error}")))?;
    let mut sealed = vec![FORMAT];
    sealed.extend_from_slice(&check_sum(FORMAT, &deflated));
    sealed.append(&mut deflated);
    Ok(sealed)
}

pub(super) fn unseal(bytes: &[u8]) -> Result<Vec<u8>> {
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
