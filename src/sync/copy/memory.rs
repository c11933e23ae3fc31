//! What a folder's copying remembers across lost connections.

use std::{collections::BTreeMap, time::Duration};

use super::anomaly::MessageAnomaly;
use crate::sync::{
    failure_bisect::FailureBisector,
    scan::ScannedMessage,
    shown_copy::ShownCopies,
    stand_in::{SizeTrust, StandIn, find_stand_in},
    suspects::SuspectTracker,
    uid::{DestinationUid, SourceUid},
};

/// What a folder's copying remembers across lost connections.
#[derive(Debug, Default)]
pub(crate) struct CopyMemory {
    /// Messages that the destination refused.
    pub suspects: SuspectTracker,
    /// Messages that turned out larger than the destination says that it takes, and their bytes.
    pub too_large: BTreeMap<SourceUid, u64>,
    /// Copies that were sent without keywords and wait for them.
    pub keywords_due: Vec<PendingKeywords>,
    /// Which messages the source fails to deliver.
    pub failures: FailureBisector,
    /// APPENDs of several messages that were refused for no reason of the server's: one message may be to blame.
    pub refused_batches: u32,
    /// Messages that were tried to find out whether a server is well again.
    pub probes: usize,
    /// Copied messages to read back, since the destination may have changed them.
    pub read_back: Vec<ReadBack>,
    /// What this run copied and nobody looked at yet.
    pub appended: Vec<AppendedCopy>,
    /// What the destination showed of these right behind the last of them.
    pub shown: ShownCopies,
    /// The destination's UIDNEXT before this run copied anything; none where it did not tell.
    pub copies_from: Option<u32>,
    /// Looks at what was copied that did not come to their end.
    pub broken_looks: u32,
    /// The UIDVALIDITY of the opened destination folder, and another one that APPENDUID told.
    pub other_validity: Option<(u32, u32)>,
    /// The source names a message's UID only after its literal.
    pub uid_comes_late: bool,
    /// The folder's messages stand in the totals.
    pub counted: bool,
    /// The folder was opened once, and messages came along with its listing where that saves a round trip.
    pub came_along: bool,
    /// A known copy was asked for when the folder was opened.
    pub sampled: bool,
    /// This run may have appended something to the folder.
    pub may_have_sent: bool,
    /// What came to the destination since the checkpoint was written has been looked at.
    pub tail_seen: bool,
    /// What was sent when the connection ended may be at the destination.
    pub in_doubt: bool,
    /// This run left something in doubt in the folder, or found it so: late copies are looked for by the next, too.
    pub doubted: bool,
    /// Looks for late copies that did not come to their end.
    pub broken_late_looks: u32,
    /// How long the destination had been silent when a connection ended while it was taking a message.
    pub silence: Duration,
    /// How long it had been, over all connections that it ended so.
    pub waited: Duration,
    /// The destination is known to keep messages otherwise than they were sent, or was seen to.
    pub destination_rewrites: bool,
    /// How slow the destination may be, from what was seen of it.
    pub commit_allowance: Duration,
    /// How often a connection ended while the destination was taking a message.
    pub append_losses: BTreeMap<SourceUid, u32>,
    /// The folder was opened and listed on both sides of this pair of connections.
    pub opened: bool,
    /// The destination said that the folder is gone (TRYCREATE).
    pub folder_gone: bool,
    /// The destination folder was made again by this run, since it was gone.
    pub made_again: bool,
    /// What ends the connections was narrowed down for long enough: what is left is not tried.
    pub leaves_rest: bool,
    /// Messages that the source sent a notice of its own for.
    pub stand_ins: BTreeMap<SourceUid, StandIn>,
    /// The destination refuses LF without CR: such line ends are sent as CRLF.
    pub sends_crlf: bool,
    /// How far the source's RFC822.SIZE can be believed.
    pub sizes: SizeTrust,
    /// What was not in the own destination folder was looked for in the others, or need not be.
    pub is_searched: bool,
}

impl CopyMemory {
    /// Grows with each step towards giving a message up: such a failure is progress too.
    #[must_use]
    pub(crate) fn failure_steps(&self) -> u64 {
        self.suspects.steps() + self.failures.steps()
    }

    /// True when what came for a message is a notice of the source's own; this is remembered.
    pub(super) fn is_stand_in(&mut self, message: &ScannedMessage, body: &[u8]) -> bool {
        let listed = u64::from(message.size);
        let found = find_stand_in(listed, body);
        if !self.stand_ins.contains_key(&message.uid) {
            self.sizes.record_size(listed, body.len() as u64);
        }
        // Where sizes are only estimated, nothing tells this kind from a message: it is copied, and told.
        let doubtful = found == Some(StandIn::UnknownNotice) && !self.sizes.is_trusted();
        match found {
            Some(stand_in) => self.stand_ins.insert(message.uid, stand_in),
            None => self.stand_ins.remove(&message.uid),
        };
        found.is_some() && !doubtful
    }

    /// True when what was copied as this message may not be all of it, or not be it.
    pub(super) fn is_size_doubtful(&self, message: &ScannedMessage, came: u64) -> bool {
        self.stand_ins.contains_key(&message.uid) || self.sizes.is_cut_off(message.size.into(), came)
    }
}

/// A copy that was sent without its keywords.
#[derive(Debug, Clone)]
pub(crate) struct PendingKeywords {
    /// UID at the source.
    pub source_uid: SourceUid,
    /// UID at the destination; none where it does not tell.
    pub destination_uid: Option<DestinationUid>,
    /// The keywords, as they can be sent.
    pub keywords: Vec<String>,
}

/// A message that this run copied, as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendedCopy {
    /// UID at the source.
    pub source_uid: SourceUid,
    /// UID at the destination; 0 where it did not tell.
    pub destination_uid: DestinationUid,
    /// Bytes sent; saturated.
    pub bytes: u32,
    /// It was sent without its keywords, which followed alone.
    pub weakened: bool,
    /// Its bytes are such as servers are known to change.
    pub is_unusual: bool,
    /// INTERNALDATE as it was sent, seconds since 1970 UTC; [`AppendedCopy::NO_DATE`] where none was, or where it is
    /// looked at elsewhere.
    pub epoch: i64,
}

impl AppendedCopy {
    /// Stands for a date that is not compared.
    pub(crate) const NO_DATE: i64 = i64::MIN;

    /// True where the destination told its UID, or it was found.
    pub(crate) fn is_known(&self) -> bool {
        self.destination_uid.0 != 0
    }
}

/// A copied message whose copy may differ.
#[derive(Debug, Clone)]
pub(crate) struct ReadBack {
    /// UID at the source.
    pub source_uid: SourceUid,
    /// UID at the destination.
    pub destination_uid: DestinationUid,
    /// What is unusual about it.
    pub anomaly: MessageAnomaly,
}
