//! The checkpoint while it is written to: shared by the connections of one sync, saved in the background.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::{checkpoint::Checkpoint, checkpoint::FolderState, checkpoint_store::CheckpointStore};
use crate::error::{Error, Result};

/// The checkpoint of one mailbox while a sync works on it.
pub(crate) struct LiveCheckpoint {
    checkpoint: Mutex<Checkpoint>,
    store: Arc<dyn CheckpointStore>,
    /// Counts changes; what was saved last.
    changes: AtomicU64,
    saved: AsyncMutex<u64>,
    changed: Notify,
}

impl LiveCheckpoint {
    /// Goes on from `checkpoint`.
    #[must_use]
    pub(crate) fn new(checkpoint: Checkpoint, store: Arc<dyn CheckpointStore>) -> Self {
        Self {
            checkpoint: Mutex::new(checkpoint),
            store,
            changes: AtomicU64::new(0),
            saved: AsyncMutex::new(0),
            changed: Notify::new(),
        }
    }

    /// Reads the checkpoint.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&Checkpoint) -> R) -> R {
        read(&self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the checkpoint; it will be saved soon.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut Checkpoint) -> R) -> R {
        let result = change(&mut self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.fetch_add(1, SeqCst);
        self.changed.notify_one();
        result
    }

    /// Changes the state of one folder that is there.
    ///
    /// # Errors
    /// Internal when there is no state for this folder.
    pub(crate) fn update_folder<R>(&self, source: &[u8], change: impl FnOnce(&mut FolderState) -> R) -> Result<R> {
        self.update(|checkpoint| checkpoint.folders.get_mut(source).map(change))
            .ok_or_else(|| Error::internal("the checkpoint holds nothing of this folder"))
    }

    /// Saves now what has changed, durably.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn save(&self) -> Result<()> {
        let mut saved = self.saved.lock().await;
        let version = self.changes.load(SeqCst);
        if *saved == version {
            return Ok(());
        }
        let saving = self.read(|checkpoint| self.store.save(checkpoint));
        saving.await?;
        *saved = version;
        Ok(())
    }

    /// Saves whenever something has changed, at the store's pace. Ends only with an error.
    pub(crate) async fn keep_saving(&self) -> Error {
        loop {
            self.changed.notified().await;
            if let Err(error) = self.save().await {
                return error;
            }
            tokio::time::sleep(self.store.save_interval()).await;
        }
    }
}
