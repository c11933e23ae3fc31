//! Where checkpoints are kept: a file, or a resource's status.

use futures::future::BoxFuture;

use crate::error::Result;

/// Keeps the checkpoint of one mailbox.
pub trait CheckpointStore: Send + Sync {
    /// Keeps an encoded checkpoint durably in place of the one before, whole or not at all.
    fn save(&self, encoded: Vec<u8>) -> BoxFuture<'_, Result<()>>;
}
