//! What was found of a folder's messages at the destination.

use super::{
    flag_changes::{UidsByFlag, add_flag, is_given_to_found},
    folder_match::CopyChange,
    uid::{DestinationUid, SourceUid},
};
use crate::imap::UidSet;

/// A source message found at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundCopy {
    /// UID at the source.
    pub source: SourceUid,
    /// UID at the destination.
    pub destination: DestinationUid,
}

/// What was found at the destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundCopies {
    /// The copies, by source UID.
    pub copies: Vec<FoundCopy>,
    /// In what those of them differ that do, flags aside, by source UID.
    pub changes: Vec<(SourceUid, CopyChange)>,
    /// Flags that the source has and the destination's copies have not.
    pub missing_flags: UidsByFlag<DestinationUid>,
    /// UIDNEXT at the last look: what is stored later lies there or above. None when nothing had to be looked at.
    pub uid_next: Option<u32>,
    /// Messages at the destination that look like copies, and of which messages nobody knows.
    pub doubtful: u64,
}

impl FoundCopies {
    /// The UIDs of messages and their copies.
    pub(crate) fn uids(&self) -> Vec<(SourceUid, DestinationUid)> {
        self.copies.iter().map(|copy| (copy.source, copy.destination)).collect()
    }

    /// Copies that get flags which the source has.
    pub(crate) fn lacking_flags(&self) -> UidSet<DestinationUid> {
        let given = self.missing_flags.iter().filter(|(flag, _)| is_given_to_found(flag));
        given.fold(UidSet::default(), |all, (_, copies)| all.union(copies))
    }

    /// Adds what was found besides.
    pub(crate) fn merge(&mut self, others: Self) {
        self.copies.extend(others.copies);
        self.copies.sort_unstable_by_key(|copy| copy.source);
        self.changes.extend(others.changes);
        self.changes.sort_unstable_by_key(|(source, _)| *source);
        for (flag, uids) in others.missing_flags {
            let all = self.missing_flags.entry(flag).or_default();
            *all = all.union(&uids);
        }
    }

    /// Adds a copy, and in what it differs.
    pub(crate) fn add_changed(&mut self, copy: FoundCopy, change: CopyChange) {
        self.copies.push(copy);
        if change != CopyChange::default() {
            self.changes.push((copy.source, change));
        }
    }

    /// Remembers flags that a copy has not.
    pub(crate) fn add_missing_flags<'a>(&mut self, flags: impl Iterator<Item = &'a str>, copy: DestinationUid) {
        for flag in flags {
            add_flag(&mut self.missing_flags, flag, copy);
        }
    }

    /// Forgets that copies of these were found.
    pub(crate) fn forget(&mut self, sources: &UidSet<SourceUid>) {
        let forgotten = self.copies.iter().filter(|copy| sources.contains(copy.source)).map(|copy| copy.destination);
        self.drop_missing_flags(&forgotten.collect());
        self.copies.retain(|copy| !sources.contains(copy.source));
        self.changes.retain(|(source, _)| !sources.contains(*source));
    }

    /// Forgets them of these.
    pub(crate) fn drop_missing_flags(&mut self, copies: &UidSet<DestinationUid>) {
        self.missing_flags.retain(|_, uids| {
            *uids = uids.difference(copies);
            !uids.is_empty()
        });
    }
}

/// What one look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// UIDNEXT, by the last message that was seen.
    pub uid_next: u32,
    /// Copies that were found.
    pub matched: usize,
}
