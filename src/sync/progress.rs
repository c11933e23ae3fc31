//! Live counters of one sync, cheap to write and to read.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

/// What a sync is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[repr(u8)]
pub enum EnginePhase {
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
pub struct SyncProgress {
    phase: AtomicU8,
    /// Folders to look at.
    pub folders_total: AtomicU64,
    /// Folders finished.
    pub folders_done: AtomicU64,
    /// Messages to copy, as far as known.
    pub messages_total: AtomicU64,
    /// Messages copied or adopted by this run.
    pub messages_done: AtomicU64,
    /// Bytes to copy, as far as known.
    pub bytes_total: AtomicU64,
    /// Bytes copied by this run.
    pub bytes_done: AtomicU64,
    /// Bytes read or written on any connection: moves while anything moves.
    pub bytes_moved: Arc<AtomicU64>,
    /// Of large messages, the bytes that passed while the message was not answered for.
    bytes_passing: Arc<AtomicU64>,
    /// The whole mailbox, beyond this run's work.
    pub whole: MailboxTotals,
    destination_login: AtomicBool,
    inbox_uid_next: AtomicU32,
    waits: Mutex<ActiveWaits>,
}

/// Counters over all folders that are synced, whatever this run has to do in them.
#[derive(Debug, Default)]
pub struct MailboxTotals {
    /// Messages, as listed.
    pub messages: AtomicU64,
    /// Of these, at the destination since earlier runs, as far as known.
    pub messages_before: AtomicU64,
    /// Bytes, as far as the source tells.
    pub bytes: AtomicU64,
    /// Of these, at the destination without this run's copying: since earlier runs, or adopted.
    pub bytes_before: AtomicU64,
    /// Messages of folders whose size the source does not tell, and that were not scanned yet.
    pub messages_unsized: AtomicU64,
    /// True once the folders are listed: before, nothing is known of the whole.
    pub listed: AtomicBool,
}

impl MailboxTotals {
    /// A folder of so many `messages` was scanned. Of its `size`, if known, `work` bytes are to be copied.
    pub(crate) fn add_scanned_folder(&self, messages: u64, size: Option<u64>, copied_before: u64, work: u64) {
        SyncProgress::add(&self.messages_before, copied_before);
        if let Some(size) = size {
            SyncProgress::add(&self.bytes_before, size.saturating_sub(work));
        } else {
            SyncProgress::add(&self.bytes, work);
            let left = |unsized_| Some(u64::saturating_sub(unsized_, messages));
            let _ = self.messages_unsized.fetch_update(Relaxed, Relaxed, left); // it always gives a value
        }
    }
}

/// Who waits on purpose, for what and until when.
#[derive(Debug, Default)]
struct ActiveWaits {
    last: u64,
    current: BTreeMap<u64, (Timestamp, String)>,
}

/// While this is held, something waits on purpose.
#[derive(Debug)]
pub(crate) struct WaitGuard<'a> {
    progress: &'a SyncProgress,
    number: u64,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.progress.waits().current.remove(&self.number);
    }
}

/// A large message while it passes: what passed of it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct PassingMessage {
    all: Arc<AtomicU64>,
    own: u64,
}

impl PassingMessage {
    /// So many bytes more have passed.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.own += bytes as u64;
        self.all.fetch_add(bytes as u64, Relaxed);
    }
}

impl Drop for PassingMessage {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Relaxed);
    }
}

/// [`SyncProgress`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressSnapshot {
    /// What the sync is doing.
    pub phase: EnginePhase,
    /// Folders to look at.
    pub folders_total: u64,
    /// Folders finished.
    pub folders_done: u64,
    /// Messages to copy, as far as known.
    pub messages_total: u64,
    /// Messages copied or adopted by this run.
    pub messages_done: u64,
    /// Bytes to copy, as far as known.
    pub bytes_total: u64,
    /// Bytes copied by this run.
    pub bytes_done: u64,
    /// Why nothing moves on purpose (throttled, backing off), for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Until when.
    #[serde(skip)]
    pub waiting_until: Option<Timestamp>,
}

/// How far a whole mailbox is, what earlier runs did included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailboxProgress {
    /// The counters; messages and bytes are those of the whole mailbox, once its folders are listed.
    pub counters: ProgressSnapshot,
    /// Bytes that this run copied, with what has passed of messages under way: how fast it is.
    pub bytes_copied: u64,
}

impl SyncProgress {
    /// Adds to one of the counters.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    /// Enters a phase.
    pub(crate) fn enter_phase(&self, phase: EnginePhase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Says why nothing moves on purpose, and for how long at most, until the result is dropped.
    pub(crate) fn begin_wait(&self, why: String, for_at_most: Duration) -> WaitGuard<'_> {
        let until = Timestamp::now().checked_add(for_at_most).unwrap_or(Timestamp::MAX);
        let mut waits = self.waits();
        waits.last += 1;
        let number = waits.last;
        waits.current.insert(number, (until, why));
        WaitGuard { progress: self, number }
    }

    fn waits(&self) -> std::sync::MutexGuard<'_, ActiveWaits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A login to the destination worked.
    pub(crate) fn record_login(&self) {
        self.destination_login.store(true, Relaxed);
    }

    /// True once a login to the destination worked.
    #[must_use]
    pub(crate) fn destination_login(&self) -> bool {
        self.destination_login.load(Relaxed)
    }

    /// The source's INBOX was listed with this UIDNEXT.
    pub(crate) fn record_inbox_uid_next(&self, uid_next: u32) {
        self.inbox_uid_next.store(uid_next, Relaxed);
    }

    /// The UIDNEXT of the source's INBOX as this sync saw it; none before that, or where the source does not tell.
    #[must_use]
    pub(crate) fn inbox_uid_next(&self) -> Option<u32> {
        Some(self.inbox_uid_next.load(Relaxed)).filter(|uid| *uid > 0)
    }

    /// A large message begins to pass.
    pub(crate) fn begin_message(&self) -> PassingMessage {
        PassingMessage { all: Arc::clone(&self.bytes_passing), own: 0 }
    }

    /// How far the whole mailbox is. Before its folders are listed, or where nothing lists them, how far this run is.
    #[must_use]
    pub(crate) fn mailbox(&self) -> MailboxProgress {
        let mut counters = self.snapshot();
        let bytes_copied = counters.bytes_done + self.bytes_passing.load(Relaxed);
        let whole = &self.whole;
        if whole.listed.load(Relaxed) {
            // Folders whose size the source does not tell are as those that were read.
            let mean = counters.bytes_total.checked_div(counters.messages_total).unwrap_or(0);
            let unsized_ = whole.messages_unsized.load(Relaxed).saturating_mul(mean);
            counters.messages_done += whole.messages_before.load(Relaxed);
            counters.messages_total = whole.messages.load(Relaxed).max(counters.messages_done);
            counters.bytes_done = bytes_copied + whole.bytes_before.load(Relaxed);
            counters.bytes_total = whole.bytes.load(Relaxed).saturating_add(unsized_).max(counters.bytes_done);
        } else {
            counters.bytes_done = bytes_copied;
        }
        MailboxProgress { counters, bytes_copied }
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> ProgressSnapshot {
        const PHASES: [EnginePhase; 6] = [
            EnginePhase::Queued,
            EnginePhase::Connecting,
            EnginePhase::Planning,
            EnginePhase::Copying,
            EnginePhase::Done,
            EnginePhase::Failed,
        ];
        // The longest wait, if several wait.
        let waiting = self.waits().current.values().max().cloned();
        ProgressSnapshot {
            phase: PHASES.get(usize::from(self.phase.load(Relaxed))).copied().unwrap_or(EnginePhase::Queued),
            folders_total: self.folders_total.load(Relaxed),
            folders_done: self.folders_done.load(Relaxed),
            messages_total: self.messages_total.load(Relaxed),
            messages_done: self.messages_done.load(Relaxed),
            bytes_total: self.bytes_total.load(Relaxed),
            bytes_done: self.bytes_done.load(Relaxed),
            waiting_until: waiting.as_ref().map(|(until, _)| *until),
            waiting: waiting.map(|(_, why)| why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_mailbox_counts_what_was_there_before_and_what_passes() {
        let progress = SyncProgress::default();
        progress.messages_total.store(10, Relaxed);
        progress.bytes_total.store(1000, Relaxed);
        assert_eq!(progress.mailbox().counters.bytes_total, 1000, "nothing is listed: this run's work");
        for (counter, value) in [
            (&progress.whole.messages, 100),
            (&progress.whole.messages_before, 40),
            (&progress.whole.bytes, 10_000),
            (&progress.whole.bytes_before, 4_000),
            (&progress.messages_done, 5),
            (&progress.bytes_done, 500),
        ] {
            counter.store(value, Relaxed);
        }
        progress.whole.listed.store(true, Relaxed);
        let mut large = progress.begin_message();
        large.add(200);
        let now = progress.mailbox();
        assert_eq!((now.counters.messages_done, now.counters.messages_total), (45, 100));
        assert_eq!((now.counters.bytes_done, now.counters.bytes_total, now.bytes_copied), (4_700, 10_000, 700));
        drop(large);
        assert_eq!(progress.mailbox().counters.bytes_done, 4_500);
        progress.whole.messages_unsized.store(3, Relaxed);
        assert_eq!(progress.mailbox().counters.bytes_total, 10_300);
    }

    #[test]
    fn of_several_waits_the_longest_is_told_until_it_ends() {
        let progress = SyncProgress::default();
        let long = progress.begin_wait("throttled".to_owned(), Duration::from_mins(1));
        let short = progress.begin_wait("reconnecting".to_owned(), Duration::from_secs(1));
        assert_eq!(progress.snapshot().waiting.as_deref(), Some("throttled"));
        assert!(progress.snapshot().waiting_until > Some(Timestamp::now()));
        drop(long);
        assert_eq!(progress.snapshot().waiting.as_deref(), Some("reconnecting"));
        drop(short);
        assert_eq!((progress.snapshot().waiting, progress.snapshot().waiting_until), (None, None));
    }
}
