//! Where a sync leaves its checkpoint.

use futures::future::BoxFuture;

use crate::error::Result;

/// Keeps the newest checkpoint of one mailbox, so that it outlives the process.
pub trait CheckpointStore: Send + Sync {
    /// Replaces the stored checkpoint by `encoded`. When the future is ready with `Ok`, the checkpoint survives a crash
    /// of this process and of the machine. Of two calls, the later one wins, in whatever order their futures end.
    ///
    /// # Errors
    /// When the checkpoint could not be made durable; the one stored before is still whole.
    fn save(&self, encoded: Vec<u8>) -> BoxFuture<'_, Result<()>>;
}
