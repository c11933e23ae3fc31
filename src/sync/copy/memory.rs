//! What a folder's copying remembers across lost connections.

use std::{collections::BTreeMap, time::Duration};

use super::anomaly::MessageAnomaly;
use crate::sync::{
    failure_bisect::FailureBisector,
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
    pub trouble: FailureBisector,
    /// APPENDs of several messages that were refused for no reason of the server's: one message may be to blame.
    pub refused_batches: u32,
    /// Messages that were tried to find out whether a server is well again.
    pub probes: usize,
    /// Copied messages to read back, since the destination may have changed them.
    pub read_back: Vec<ReadBack>,
    /// The source names a message's UID only after its literal.
    pub uid_comes_late: bool,
    /// The folder's messages stand in the totals.
    pub counted: bool,
    /// The folder was asked for as a whole.
    pub came_whole: bool,
    /// What was sent when the connection ended may be at the destination.
    pub in_doubt: bool,
    /// How long the destination had been silent when a connection ended while it was taking a message.
    pub silence: Duration,
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
}

impl CopyMemory {
    /// Grows with each step towards giving a message up: such a failure is progress too.
    #[must_use]
    pub(crate) fn failure_steps(&self) -> u64 {
        self.suspects.steps() + self.trouble.steps()
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

/// A copied message whose copy may differ.
#[derive(Debug, Clone)]
pub(crate) struct ReadBack {
    /// UID at the source.
    pub source_uid: SourceUid,
    /// UID at the destination.
    pub destination_uid: DestinationUid,
    /// What is unusual about it.
    pub oddity: MessageAnomaly,
}
