//! Where a sync leaves its checkpoint.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{checkpoint::Checkpoint, limits::SAVE_EVERY};
use crate::error::Result;

/// Keeps the newest checkpoint of one mailbox, so that it outlives the process.
pub trait CheckpointStore: Send + Sync {
    /// Replaces the stored checkpoint by this one. When the future is ready with `Ok`, the checkpoint survives a crash of
    /// this process and of the machine. Of two calls, the later one wins, in whatever order their futures end.
    ///
    /// A store may take longer than that to make it durable, if it knows at the next start that it did not get so far,
    /// and then hands out what it has as [in doubt](Checkpoint::mark_in_doubt).
    ///
    /// # Errors
    /// When the checkpoint could not be taken; the one stored before is still whole. The sync ends then.
    fn save(&self, checkpoint: &Checkpoint) -> BoxFuture<'_, Result<()>>;

    /// How often a sync saves at most while it goes on.
    fn save_interval(&self) -> Duration {
        SAVE_EVERY
    }
}
