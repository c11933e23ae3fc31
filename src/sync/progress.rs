//! Live counters of one sync, cheap to write and to read.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

use serde::Serialize;

/// What a sync is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for its turn.
    Queued,
    /// Connecting and logging in.
    Connecting,
    /// Listing folders and planning.
    Planning,
    /// Copying messages and flags.
    Copying,
    /// Ended well.
    Done,
    /// Ended with an error.
    Failed,
}

/// Live counters of one sync. Written by the engine, read by whoever shows them.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    /// Folders to look at.
    pub folders_total: AtomicU64,
    /// Folders finished.
    pub folders_done: AtomicU64,
    /// Messages to copy, as far as known.
    pub messages_total: AtomicU64,
    /// Messages copied, adopted or skipped by this run.
    pub messages_done: AtomicU64,
    /// Bytes to copy, as far as known.
    pub bytes_total: AtomicU64,
    /// Bytes copied by this run.
    pub bytes_done: AtomicU64,
    /// Bytes read or written on any connection: moves while anything moves.
    pub bytes_moved: std::sync::Arc<AtomicU64>,
    waiting: Mutex<Option<String>>,
}

/// [`Progress`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// What the sync is doing.
    pub phase: Phase,
    /// Folders to look at.
    pub folders_total: u64,
    /// Folders finished.
    pub folders_done: u64,
    /// Messages to copy, as far as known.
    pub messages_total: u64,
    /// Messages copied, adopted or skipped by this run.
    pub messages_done: u64,
    /// Bytes to copy, as far as known.
    pub bytes_total: u64,
    /// Bytes copied by this run.
    pub bytes_done: u64,
    /// Why nothing moves on purpose (throttled, backing off), for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

impl Progress {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Says why nothing moves on purpose, or that it moves again.
    pub fn wait_for(&self, why: Option<String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        const PHASES: [Phase; 6] =
            [Phase::Queued, Phase::Connecting, Phase::Planning, Phase::Copying, Phase::Done, Phase::Failed];
        Snapshot {
            phase: PHASES.get(usize::from(self.phase.load(Relaxed))).copied().unwrap_or(Phase::Queued),
            folders_total: self.folders_total.load(Relaxed),
            folders_done: self.folders_done.load(Relaxed),
            messages_total: self.messages_total.load(Relaxed),
            messages_done: self.messages_done.load(Relaxed),
            bytes_total: self.bytes_total.load(Relaxed),
            bytes_done: self.bytes_done.load(Relaxed),
            waiting: self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
