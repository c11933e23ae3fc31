//! What a sync needs from whoever runs it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{checkpoint_store::CheckpointStore, progress::SyncProgress};
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
}
