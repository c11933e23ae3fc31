//! What a later attempt must know to go on: in memory, and as the opaque string that status and state files hold.

mod description;
pub mod high_water_mark;
mod marked_state;
mod reduction;
#[cfg(test)]
mod tests;
mod wire_form;

use std::{collections::BTreeMap, sync::Arc};

use high_water_mark::{MapCoverage, SourceListing};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    content_match::REWRITTEN_COPIES,
    moved_match::MovedCopies,
    set_aside::SetAside,
    uid::{DestinationUid, SourceUid},
    uid_map::UidMap,
};
use crate::imap::{Endpoint, UidSet, account_listing::is_same_folder_name, select::SelectedFolder};

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
    /// Folders with copies of which nothing is known any more, since their names alone were too much: see
    /// [`Self::encode_within`].
    pub dropped_folders: u64,
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
    /// The destination's UIDNEXT as far as it was known when nothing was in doubt; 0: not known. What is there from here on
    /// came since: from others, or from a run whose checkpoint was lost.
    pub destination_next: u32,
    /// Messages that a lost connection was sending, in a run that did not look for late copies of them after that yet:
    /// until then `tail_from` stays where it is.
    pub doubted: UidSet<SourceUid>,
    /// Late copies of these that were told already.
    pub late_copies: UidSet<DestinationUid>,
    /// Messages that were copied, and at whose copies nobody has looked.
    pub unseen: UidSet<SourceUid>,
    /// The source's flags as of the last sync: UIDs of copied messages by sendable flag.
    pub flags: BTreeMap<String, UidSet<SourceUid>>,
    /// The source's STATUS when everything in the folder was last done: if it is the same again, nothing changed.
    pub settled: Option<QuiescentStatus>,
    /// The source folder's MAILBOXID (RFC 8474).
    pub mailbox_id: Option<String>,
    /// Messages whose copies were found in other folders of the destination: they are not copied again, and nothing is done
    /// to these copies.
    pub moved: Vec<MovedCopies>,
    /// The destination folder was matched without a checkpoint, and what was not found there must be looked for in the
    /// destination's other folders before it is copied.
    pub unsearched: bool,
    /// How much of what was copied stands in the map: not all, where the whole would not fit.
    pub coverage: MapCoverage,
    /// What the source listed in this run. It is not written.
    pub listing: Option<Arc<SourceListing>>,
}

impl FolderState {
    /// Moves the uncertain tail's begin up to `uid_next`, unless late copies are still looked for.
    pub(crate) fn raise_tail(&mut self, uid_next: u32) {
        if self.doubted.is_empty() {
            self.tail_from = self.tail_from.max(uid_next);
        }
    }

    /// Nothing is in doubt: all that the destination holds below its UIDNEXT is known, or not ours. `told` are the UIDNEXTs
    /// that it told.
    pub(crate) fn record_destination_next(&mut self, told: impl IntoIterator<Item = u32>) {
        let placed = self.map.destination_uids().last().map_or(0, |last| last.0.saturating_add(1));
        let known = self.tail_from.max(placed).max(self.destination_next);
        self.destination_next = told.into_iter().fold(known, u32::max);
    }

    /// True when the destination has given out UIDs since. A checkpoint that is older than what was done by it (a restored
    /// backup, an etcd that was rolled back) says that nothing is in doubt all the same.
    #[must_use]
    pub(crate) fn has_grown(&self, uid_next: Option<u32>) -> bool {
        self.destination_next > 0 && uid_next.is_some_and(|now| now > self.destination_next)
    }

    /// Where the uncertain tail begins when the destination's UIDNEXT is `uid_next`, and nothing is sent yet.
    #[must_use]
    pub(crate) fn next_tail(&self, uid_next: u32) -> u32 {
        if self.destination_next > 0 { uid_next.min(self.destination_next) } else { uid_next }
    }

    /// Late copies are looked for no longer.
    pub(crate) fn settle_doubted(&mut self) {
        self.doubted = UidSet::default();
        self.late_copies = UidSet::default();
    }

    /// Source UIDs whose copies were found in other folders of the destination.
    #[must_use]
    pub(crate) fn moved_uids(&self) -> UidSet<SourceUid> {
        self.moved.iter().fold(UidSet::default(), |all, moved| all.union(moved.map.copied()))
    }

    /// Remembers copies that were found in another folder of the destination.
    pub(crate) fn add_moved(&mut self, found: MovedCopies) {
        self.set_aside.remove(found.map.copied());
        let same = |known: &&mut MovedCopies| known.folder == found.folder && known.uid_validity == found.uid_validity;
        match self.moved.iter_mut().find(same) {
            Some(known) => known.map.push_runs(found.map.runs().iter().copied()),
            None => self.moved.push(found),
        }
    }

    /// Forgets copies in other folders whose messages the source does not hold any more.
    pub(crate) fn retain_moved(&mut self, held: &UidSet<SourceUid>) {
        for moved in &mut self.moved {
            let gone = moved.map.copied().difference(held);
            if !gone.is_empty() {
                moved.map.remove_sources(&gone);
            }
        }
        self.moved.retain(|moved| !moved.map.is_empty());
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

impl Checkpoint {
    /// True when most of the copies that were compared with their messages were kept otherwise than they were sent.
    pub(crate) fn shows_rewriting(&self) -> bool {
        let (mut rewritten, mut copies) = (0, 0);
        for state in self.folders.values() {
            rewritten += state.differences.0.get("content").map_or(0, |difference| difference.count);
            copies += state.copied_count();
        }
        rewritten >= REWRITTEN_COPIES as u64 && rewritten * 2 > copies
    }

    /// The messages of the destination folder `raw` that are known to be copies of messages of any source folder.
    #[must_use]
    pub(crate) fn copies_in(&self, raw: &[u8], uid_validity: u32) -> UidSet<DestinationUid> {
        let placed = self.folders.iter().filter(|(name, state)| {
            state.destination_uid_validity == uid_validity
                && self.mapping.get(*name).is_some_and(|to| is_same_folder_name(to, raw))
        });
        placed.fold(self.moved_into(raw, uid_validity), |all, (_, state)| all.union(state.map.destination_uids()))
    }

    /// Of these, copies of messages of source folders that do not go there.
    #[must_use]
    pub(crate) fn moved_into(&self, raw: &[u8], uid_validity: u32) -> UidSet<DestinationUid> {
        let moved = self.folders.values().flat_map(|state| &state.moved);
        moved
            .filter(|moved| is_same_folder_name(&moved.folder, raw) && moved.uid_validity == uid_validity)
            .fold(UidSet::default(), |all, moved| all.union(moved.map.destination_uids()))
    }

    /// More may have been appended than this checkpoint knows: each folder's tail is looked at before anything is sent.
    pub(crate) fn mark_in_doubt(&mut self) {
        for state in self.folders.values_mut() {
            state.append_in_doubt = true;
        }
    }

    /// It was written by somebody else's attempts, and perhaps long ago: none of the copies is ours to delete, and each
    /// folder's tail is looked at before anything is sent.
    pub(crate) fn disown(&mut self) {
        self.folders.values_mut().for_each(FolderState::disown);
    }
}
