//! The checkpoint on its way from the engine to the API server: the newest one waits here for the next report.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};

use super::fence::WriteFence;
use crate::{
    api::mailbox_sync::{FolderFacts, MAX_CHECKPOINT_BYTES, MAX_FOLDERS},
    error::Result,
    imap::{mutf7, permit::WritePermit as _},
    sync::{
        checkpoint::{Checkpoint, FolderState},
        checkpoint_store::CheckpointStore,
    },
};

/// How often the engine's checkpoint is encoded at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Names of folders take at most this many bytes in a status, so that the object stays far from what etcd takes.
const MAX_NAMES_BYTES: usize = 64 << 10;
/// A folder's name is cut after this many characters.
const MAX_NAME: usize = 300;

/// Holds the newest checkpoint until it is reported. That may take a while: an attempt that ends without flushing leaves
/// one that the next takes as in doubt.
#[derive(Debug)]
pub(crate) struct CheckpointOutbox {
    fence: Arc<WriteFence>,
    state: Mutex<OutboxState>,
}

#[derive(Debug, Default)]
struct OutboxState {
    newest: Option<EncodedCheckpoint>,
    /// How many checkpoints the engine has saved, which is the version of the newest.
    version: u64,
    /// The version of the checkpoint that was reported last.
    reported: u64,
    /// Messages copied, as of the newest checkpoint.
    copied: u64,
    /// Messages copied, as of the checkpoint that was reported last.
    copied_reported: u64,
    /// Messages set aside by reason, as of the newest checkpoint.
    set_aside: BTreeMap<String, u64>,
}

/// A checkpoint as it goes into a status.
#[derive(Debug, Clone)]
pub(crate) struct EncodedCheckpoint {
    /// The checkpoint, encoded.
    pub checkpoint: String,
    /// Facts about folders; of many the largest.
    pub folders: Vec<FolderFacts>,
    version: u64,
    copied: u64,
}

impl CheckpointOutbox {
    /// An empty outbox, which takes nothing more once the fence is closed.
    #[must_use]
    pub(crate) fn new(fence: Arc<WriteFence>) -> Self {
        Self { fence, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest checkpoint, unless it is reported already.
    #[must_use]
    pub(crate) fn newest_unreported(&self) -> Option<EncodedCheckpoint> {
        let state = self.state();
        state.newest.clone().filter(|_| state.version > state.reported)
    }

    /// True when there is a checkpoint that was not reported.
    #[must_use]
    pub(crate) fn has_unreported(&self) -> bool {
        let state = self.state();
        state.version > state.reported
    }

    /// True once this attempt's engine has saved a checkpoint.
    #[must_use]
    pub(crate) fn has_saved(&self) -> bool {
        self.state().version > 0
    }

    /// Records that the API server has this checkpoint.
    pub(crate) fn mark_reported(&self, sent: &EncodedCheckpoint) {
        let mut state = self.state();
        state.reported = state.reported.max(sent.version);
        state.copied_reported = sent.copied;
    }

    /// Messages copied since the last checkpoint that was reported.
    #[must_use]
    pub(crate) fn unreported_messages(&self) -> u64 {
        let state = self.state();
        state.copied.saturating_sub(state.copied_reported)
    }

    /// Takes over what the checkpoint says that the attempt goes on from.
    pub(crate) fn resume_from(&self, checkpoint: &Checkpoint) {
        self.state().set_aside = set_aside(checkpoint);
    }

    /// Messages that were set aside, by reason, as of the newest checkpoint.
    #[must_use]
    pub(crate) fn set_aside_counts(&self) -> BTreeMap<String, u64> {
        self.state().set_aside.clone()
    }

    fn put(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.fence.check()?;
        let text = checkpoint.encode_text_within(MAX_CHECKPOINT_BYTES)?;
        let folders = folders(checkpoint);
        let mut state = self.state();
        state.version += 1;
        state.copied = checkpoint.folders.values().map(FolderState::copied_count).sum();
        state.set_aside = set_aside(checkpoint);
        state.newest =
            Some(EncodedCheckpoint { checkpoint: text, folders, version: state.version, copied: state.copied });
        Ok(())
    }
}

impl CheckpointStore for CheckpointOutbox {
    fn save(&self, checkpoint: &Checkpoint) -> BoxFuture<'_, Result<()>> {
        // Done by the call, not by the future: nothing is lost when that is dropped.
        let put = self.put(checkpoint);
        async { put }.boxed()
    }

    fn save_interval(&self) -> Duration {
        SAVE_INTERVAL
    }
}

fn skipped(state: &FolderState) -> u64 {
    state.set_aside.uids().len()
}

fn set_aside(checkpoint: &Checkpoint) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (reason, messages) in checkpoint.folders.values().flat_map(|state| state.set_aside.counts()) {
        *all.entry(reason).or_default() += messages;
    }
    all
}

/// Facts for people, by name; of many folders those with the most messages.
fn folders(checkpoint: &Checkpoint) -> Vec<FolderFacts> {
    let mut states: Vec<_> = checkpoint.folders.iter().collect();
    states.sort_by_key(|(name, state)| (Reverse(state.copied_count()), *name));
    let mut room = MAX_NAMES_BYTES;
    let mut facts: Vec<FolderFacts> = states
        .into_iter()
        .take(MAX_FOLDERS)
        .map(|(name, state)| {
            let shown = |name: &[u8]| mutf7::decode_lossy(name).chars().take(MAX_NAME).collect::<String>();
            let adopted = state.adopted_count();
            let copied = state.copied_count().saturating_sub(adopted);
            let skipped = skipped(state);
            FolderFacts {
                source: shown(name),
                destination: checkpoint.mapping.get(name).map(|name| shown(name)).unwrap_or_default(),
                source_uid_validity: state.source_uid_validity.into(),
                destination_uid_validity: state.destination_uid_validity.into(),
                last_uid: state.finished_uids().last().map_or(0, |uid| uid.0).into(),
                messages: saturating_i64(state.settled.map_or(copied + adopted + skipped, |s| u64::from(s.messages))),
                copied: saturating_i64(copied),
                adopted: saturating_i64(adopted),
                skipped: saturating_i64(skipped),
            }
        })
        .take_while(|facts| {
            let needs = facts.source.len() + facts.destination.len();
            let fits = needs <= room;
            room = room.saturating_sub(needs);
            fits
        })
        .collect();
    facts.sort_by(|a, b| a.source.cmp(&b.source));
    facts
}

/// A count as Kubernetes has numbers.
pub(super) fn saturating_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        imap::UidSet,
        sync::{
            checkpoint::high_water_mark::{HighWaterMark, MapCoverage},
            set_aside::{SetAside, SetAsideGroup, SetAsideReason},
            uid::{DestinationUid, SourceUid},
            uid_map::{CopyOrigin, UidMap, UidRun},
        },
    };

    fn outbox() -> (CheckpointOutbox, Arc<WriteFence>) {
        let fence = Arc::new(WriteFence::new(Duration::from_mins(10), crate::clock::since_boot()));
        (CheckpointOutbox::new(Arc::clone(&fence)), fence)
    }

    fn folder(messages: u32) -> FolderState {
        let mut map = UidMap::new();
        let (source, destination) = (SourceUid(5), Some(DestinationUid(1)));
        map.push_runs([UidRun { source, destination, length: messages, origin: CopyOrigin::Appended }]);
        map.push(SourceUid(1000), Some(DestinationUid(900)), CopyOrigin::Adopted);
        let mut set_aside = SetAside::default();
        set_aside.add_group(SetAsideGroup::new(SetAsideReason::TooLarge, UidSet::parse("2000:2001").unwrap()));
        FolderState { source_uid_validity: 7, map, set_aside, ..FolderState::default() }
    }

    fn with(folders: &[(&str, u32)]) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        for (name, messages) in folders {
            checkpoint.mapping.insert(name.as_bytes().to_vec(), b"Entw&APw-rfe".to_vec());
            checkpoint.folders.insert(name.as_bytes().to_vec(), folder(*messages));
        }
        checkpoint
    }

    #[tokio::test]
    async fn the_newest_checkpoint_waits_until_it_is_reported() {
        let (outbox, _) = outbox();
        assert!(outbox.newest_unreported().is_none() && !outbox.has_unreported());
        drop(outbox.save(&with(&[("a", 3)])));
        let first = outbox.newest_unreported().unwrap();
        outbox.save(&with(&[("a", 10)])).await.unwrap();
        assert_eq!(
            (outbox.unreported_messages(), outbox.set_aside_counts()),
            (11, [("tooLarge".to_owned(), 2)].into())
        );
        outbox.mark_reported(&first);
        assert!(outbox.has_unreported(), "a newer one came while the first was on its way");
        assert_eq!(outbox.unreported_messages(), 7);
        let second = outbox.newest_unreported().unwrap();
        outbox.mark_reported(&second);
        assert!(outbox.newest_unreported().is_none());
        assert_eq!(Checkpoint::decode_text(&second.checkpoint).unwrap(), with(&[("a", 10)]));
    }

    #[test]
    fn what_was_set_aside_before_is_known_before_the_first_checkpoint_of_the_attempt() {
        let (outbox, _) = outbox();
        outbox.resume_from(&with(&[("a", 3), ("b", 3)]));
        assert_eq!(outbox.set_aside_counts(), [("tooLarge".to_owned(), 4)].into());
        assert!(!outbox.has_saved() && !outbox.has_unreported());
    }

    #[tokio::test]
    async fn nothing_is_taken_once_the_fence_is_closed() {
        let (outbox, fence) = outbox();
        fence.close_as_fenced("attempt 2 runs");
        assert!(outbox.save(&with(&[("a", 3)])).await.is_err());
        assert!(!outbox.has_unreported());
    }

    #[test]
    fn facts_are_for_people_and_bounded() {
        let facts = folders(&with(&[("INBOX", 3)]));
        let expected = FolderFacts {
            source: "INBOX".into(),
            destination: "Entwürfe".into(),
            source_uid_validity: 7,
            destination_uid_validity: 0,
            last_uid: 2001,
            messages: 6,
            copied: 3,
            adopted: 1,
            skipped: 2,
        };
        assert_eq!(facts, [expected]);
        // Up to a mark there are counts alone.
        let mut reduced = with(&[("INBOX", 3)]);
        let state = reduced.folders.get_mut(b"INBOX".as_slice()).unwrap();
        let exceptions = UidSet::parse("90:99").unwrap();
        let mark = HighWaterMark { uid: SourceUid(999), listed: 60, adopted: 4, exceptions, left_out: None };
        state.coverage = MapCoverage::AboveMark(mark);
        let facts = folders(&reduced);
        assert_eq!((facts[0].copied, facts[0].adopted, facts[0].skipped, facts[0].messages), (46, 5, 2, 53));
        let names: Vec<String> = (0..900).map(|n| format!("{n:0>900}")).collect();
        let many: Vec<(&str, u32)> = names.iter().zip(1..).map(|(name, n)| (name.as_str(), n)).collect();
        let facts = folders(&with(&many));
        assert!(facts.len() <= MAX_FOLDERS && facts.iter().map(|f| f.source.len()).sum::<usize>() <= MAX_NAMES_BYTES);
        assert!(facts.iter().all(|facts| facts.source.len() <= MAX_NAME));
    }
}
