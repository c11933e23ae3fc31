//! What stands for a folder's map up to a high-water mark, where the whole map would not fit into a checkpoint: all that
//! the source held up to the mark counts as copied, but for the exceptions that are listed.

use crate::{
    imap::UidSet,
    sync::{spec::MessageFilter, uid::SourceUid},
};

/// How much of what was copied stands in a folder's map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MapCoverage {
    /// All.
    #[default]
    Whole,
    /// All above a mark, and a few messages up to it.
    AboveMark(HighWaterMark),
    /// The last few messages, which do not count as copied: unless nothing changed in it, the folder is matched as if there
    /// were no checkpoint.
    SamplesOnly,
}

/// Up to which source UID a folder was dealt with, and what was not copied up to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HighWaterMark {
    /// The mark; 0 when nothing is below it.
    pub uid: SourceUid,
    /// Messages that the source listed up to the mark.
    pub listed: u64,
    /// Of these, messages that were found at the destination.
    pub adopted: u64,
    /// Of these, messages that are neither copied nor adopted: set aside, left out by message rules, or not copied yet.
    pub exceptions: UidSet<SourceUid>,
    /// Of these, messages that rules left out and that are no exceptions, since listing them takes too much room.
    pub left_out: Option<LeftOutByRules>,
}

/// Messages that are known only by the rules that left them out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOutByRules {
    /// The rules as they were. What `skip_deleted` leaves out is always listed, since a flag may go again.
    pub rules: MessageFilter,
    /// How many they were.
    pub messages: u64,
}

/// What the source listed when this run opened the folder. It is not written: a mark is made from it when one is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceListing {
    /// No message that comes later has a UID up to here.
    pub(super) up_to: SourceUid,
    /// What the source held.
    pub(super) held: UidSet<SourceUid>,
    /// What was copied before this run copied anything.
    pub(super) copied_before: UidSet<SourceUid>,
    /// What message rules left out by facts that never change (size and date).
    pub(super) left_out: UidSet<SourceUid>,
    /// These rules.
    pub(super) rules: MessageFilter,
}

/// Why a mark can't be believed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarkDoubt {
    /// The source lists more messages up to the mark than it did.
    MoreListed,
    /// The rules let through what others left out, and which messages that were is not known.
    OtherRules,
}

/// The UIDs up to the mark, itself included.
pub(super) fn up_to(uids: &UidSet<SourceUid>, mark: SourceUid) -> UidSet<SourceUid> {
    uids.intersection(&UidSet::from_ranges([(SourceUid(1), mark)]))
}

impl HighWaterMark {
    /// UIDs up to the mark that count as copied, whether the source ever held them or not.
    pub(super) fn copied(&self) -> UidSet<SourceUid> {
        let below = UidSet::from_ranges((self.uid.0 > 0).then_some((SourceUid(1), self.uid)));
        below.difference(&self.exceptions)
    }

    /// Messages that are not copied since rules leave them out, and that are no exceptions.
    pub(super) fn unlisted_left_out(&self) -> u64 {
        self.left_out.as_ref().map_or(0, |left_out| left_out.messages)
    }
}
