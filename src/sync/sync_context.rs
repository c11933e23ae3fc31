//! What a sync needs from whoever runs it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use futures::future::BoxFuture;

use super::{checkpoint_store::CheckpointStore, matched_folders::MatchSummary, progress::SyncProgress};
use crate::imap::permit::WritePermit;

/// What a sync needs from whoever runs it.
pub struct SyncContext {
    /// Keeps the checkpoint.
    pub store: Arc<dyn CheckpointStore>,
    /// Live counters.
    pub progress: Arc<SyncProgress>,
    /// Asks to end soon: the checkpoint is saved, and what is in flight is waited for.
    pub stop: CancellationToken,
    /// Says whether this sync may still write to the destination.
    pub permit: Arc<dyn WritePermit>,
    /// Hears what a person should know before the sync goes on, where there is somebody.
    pub watcher: Option<Arc<dyn SyncWatcher>>,
}

/// Hears what a person should know before a sync goes on.
pub trait SyncWatcher: Send + Sync {
    /// No checkpoint counts, and this will be copied into folders that hold mail. The first message is sent after the answer.
    fn tell_matched(&self, summary: MatchSummary) -> BoxFuture<'_, ()>;
}
