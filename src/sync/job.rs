//! What the sync of one folder is given, and how it may end.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    archived_mail::ArchivedMail,
    checkpoint::QuiescentStatus,
    circuit_breaker::AccountBreakers,
    copy::ExclusiveAppend,
    copy_search::DestinationSnapshot,
    live_checkpoint::LiveCheckpoint,
    matched_folders::MatchedFolders,
    progress::SyncProgress,
    report::FolderReport,
    set_aside::{DestinationFacts, RetryFacts},
    spec::SyncSpec,
};

/// What a folder's sync needs to know that does not change.
#[derive(Debug, Clone)]
pub struct FolderSyncJob {
    /// Raw names.
    pub source_raw: Vec<u8>,
    /// Raw name at the destination.
    pub destination_raw: Vec<u8>,
    /// Decoded names, for people.
    pub source_name: String,
    /// Decoded name at the destination.
    pub destination_name: String,
    /// The destination folder was made by this run, or does not exist in a dry run: nothing can be in it.
    pub new_at_destination: bool,
    /// An APPEND of an earlier attempt, or of a lost connection, may be in doubt.
    pub in_doubt: bool,
    /// Two looks must agree before anything is sent; for the order of work.
    pub needs_look: bool,
    /// Messages at the source, as listed; for the order of work.
    pub messages: u32,
    /// The source's STATUS, to be remembered when all is done.
    pub status: Option<QuiescentStatus>,
    /// The destination as it was when it was listed.
    pub snapshot: Option<DestinationSnapshot>,
    /// The destination's APPENDLIMIT for this folder, bytes.
    pub append_limit: Option<u64>,
    /// The destination is known to end messages with a line end that have none.
    pub adds_newline: bool,
    /// Bytes in the source folder, where its server tells.
    pub bytes: Option<u64>,
    /// The destination folder was empty when it was listed.
    pub was_empty: bool,
    /// The messages that are copied of a folder that shows messages of others; none where it is no such folder.
    pub only: Option<Arc<ArchivedMail>>,
    /// No checkpoint counts for it, as far as the listings tell, and the destination may hold copies: it is matched before
    /// anything is copied to any folder.
    pub matches_first: bool,
}

impl FolderSyncJob {
    /// An empty report of this folder.
    #[must_use]
    pub(crate) fn report(&self) -> FolderReport {
        FolderReport {
            source_raw: self.source_raw.clone(),
            source: self.source_name.clone(),
            destination: self.destination_name.clone(),
            source_messages: u64::from(self.messages),
            ..FolderReport::default()
        }
    }
}

/// What the folders of one mailbox share.
pub(crate) struct FolderSyncContext {
    /// What to do.
    pub spec: Arc<SyncSpec>,
    /// The checkpoint.
    pub live_checkpoint: Arc<LiveCheckpoint>,
    /// Live counters.
    pub progress: Arc<SyncProgress>,
    /// Asks to end soon.
    pub stop: CancellationToken,
    /// Bytes that one pair may have requested and not yet written.
    pub budget: u64,
    /// Stop the asking while a server is unwell.
    pub breakers: AccountBreakers,
    /// Lets one connection append alone.
    pub exclusive_append: ExclusiveAppend,
    /// Name and version by which the destination introduced itself.
    pub destination_server: Option<String>,
    /// Folders that were matched and wait for the others.
    pub matched: MatchedFolders,
}

impl FolderSyncContext {
    /// What decides whether set-aside messages are tried, for a folder with this APPENDLIMIT.
    #[must_use]
    pub(crate) fn try_facts(&self, append_limit: Option<u64>) -> RetryFacts {
        let destination = DestinationFacts { append_limit, server: self.destination_server.clone() };
        self.spec.try_facts(destination)
    }
}

/// Whether a folder was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncEnd {
    /// All is done.
    Complete,
    /// It was matched with its destination folder; what is left waits until all are.
    Matched,
    /// It was asked to stop; the pair of connections is of no more use.
    Stopped,
}
