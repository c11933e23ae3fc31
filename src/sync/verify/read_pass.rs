//! Reads and hashes the messages of one side of a folder.

use super::side_reading::{ReadEntry, ReadState, SideReading, find_entry};
use crate::{
    error::Result,
    imap::{Session, Uid, UidSet},
    sync::{
        body_reader::{BodySink, NotRead, read_bodies},
        content_hash::ContentHasher,
        fetch_facts::search_present_uids,
        progress::SyncProgress,
    },
};

/// Reads all messages of the opened folder that are still to be read.
///
/// # Errors
/// When the connection ends, or the server asks for a slower pace. What was read stays known.
pub(super) async fn read_messages<U: Uid>(
    reading: &mut SideReading<U>,
    session: &mut Session,
    progress: &SyncProgress,
) -> Result<()> {
    if !std::mem::replace(&mut reading.counted, true) {
        SyncProgress::add(&progress.messages_total, reading.entries.len() as u64);
        SyncProgress::add(&progress.bytes_total, reading.entries.iter().map(|e| u64::from(e.size)).sum());
    }
    let pending = reading.entries.iter().filter(|entry| entry.state == ReadState::Pending);
    let wanted = pending.map(|entry| (entry.item.uid, u64::from(entry.size))).collect();
    let SideReading { entries, failures, .. } = reading;
    let mut hashes =
        HashSink { entries, progress, hasher: ContentHasher::without_loose_form(), unanswered: UidSet::new() };
    read_bodies(session, wanted, failures, &mut hashes).await?;
    // Expunged meanwhile, or there and not delivered?
    let unanswered = hashes.unanswered;
    if !unanswered.is_empty() {
        let there = search_present_uids(session, &unanswered).await?;
        for uid in unanswered.iter() {
            reading.mark_settled(uid, if there.contains(uid) { ReadState::Unreadable } else { ReadState::Gone });
        }
    }
    Ok(())
}

/// Hashes what comes.
struct HashSink<'a, U> {
    entries: &'a mut [ReadEntry<U>],
    progress: &'a SyncProgress,
    hasher: ContentHasher,
    /// What did not come though its FETCH ended well.
    unanswered: UidSet<U>,
}

impl<U: Uid> BodySink<U> for HashSink<'_, U> {
    /// Nothing else tells which message a server fails on.
    const COUNTS_UNWELL: bool = true;
    const STAYS_READ: bool = true;

    fn take_bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        SyncProgress::add(&self.progress.bytes_done, bytes.len() as u64);
    }

    fn finish(&mut self, uid: U) {
        let read = std::mem::replace(&mut self.hasher, ContentHasher::without_loose_form());
        let digest = read.finish().into();
        if let Some(entry) = find_entry(self.entries, uid) {
            entry.item.digest = digest;
            entry.state = ReadState::Hashed;
        }
        SyncProgress::add(&self.progress.messages_done, 1);
    }

    fn drop_bytes(&mut self) {
        self.hasher = ContentHasher::without_loose_form();
    }

    fn leave_out(&mut self, uid: U, why: NotRead) {
        match why {
            NotRead::Missing => self.unanswered.insert(uid),
            NotRead::StandIn | NotRead::Failed => {
                if let Some(entry) = find_entry(self.entries, uid) {
                    entry.state = ReadState::Unreadable;
                }
            }
        }
    }
}
