//! Compares one folder: opens and reads both sides, reconnecting as often as it makes sense.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    compare::{self, compare},
    moved_away::MovedAway,
    read_pass::read_messages,
    report::{DifferenceKind, FolderComparison, MessageDifference},
    side_reading::{FolderFailure, FolderStage, SideReading},
};
use crate::{
    error::{Error, ErrorClass, GiveUpScope, Result},
    imap::{
        Session, UidSet,
        account_listing::{AccountListing, ListedFolder},
    },
    sync::{
        checkpoint::Checkpoint,
        connection_pair::ConnectionPair,
        folder_loss::{AfterLoss, FolderLoss, LossHistory},
        folder_plan::PlannedFolder,
        folder_pool::{FailedTry, GivenUpFolder, PooledWork, RetryPace, TryOutcome},
        pair_connector::PairConnector,
        progress::SyncProgress,
        spec::MessageFilter,
        uid::{DestinationUid, SourceUid},
    },
};

/// One folder to compare, and what was read of it so far.
pub(super) struct FolderCompareJob {
    source_raw: Vec<u8>,
    destination_raw: Vec<u8>,
    source_name: String,
    destination_name: String,
    /// The destination's folder is there.
    exists: bool,
    /// Both listings say that there is nothing in it.
    empty: bool,
    /// Messages on both sides as listed, for the order of work.
    messages: u64,
    /// Where a sync began to place copies, as far as a checkpoint tells.
    first_copy: Option<FirstCopy>,
    /// Messages whose copies a sync found in other folders of the destination, as far as a checkpoint tells.
    moved: MovedAway,
    source: SideReading<SourceUid>,
    destination: SideReading<DestinationUid>,
    losses: LossHistory,
}

/// The first copy that a sync placed in a destination folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FirstCopy {
    /// The destination's UIDVALIDITY that the UID belongs to.
    uid_validity: u32,
    uid: DestinationUid,
}

impl FirstCopy {
    /// What `checkpoint` tells of the source folder `raw`.
    fn from_checkpoint(checkpoint: &Checkpoint, raw: &[u8]) -> Option<Self> {
        let state = checkpoint.folders.get(raw)?;
        Some(Self { uid_validity: state.destination_uid_validity, uid: state.map.first_appended()? })
    }
}

impl FolderCompareJob {
    pub(super) fn new(
        folder: &PlannedFolder,
        source: &AccountListing,
        destination: &AccountListing,
        checkpoint: Option<&Checkpoint>,
        only: Option<UidSet<SourceUid>>,
    ) -> Self {
        let there = destination.folder(&folder.destination_raw);
        let messages =
            |folder: Option<&ListedFolder>| folder.and_then(|f| f.status.as_ref()).and_then(|status| status.messages);
        let counts = [messages(source.folder(&folder.source_raw)), messages(there)];
        Self {
            source_raw: folder.source_raw.clone(),
            destination_raw: folder.destination_raw.clone(),
            source_name: folder.source_name.clone(),
            destination_name: folder.destination_name.clone(),
            exists: there.is_some_and(ListedFolder::selectable),
            empty: counts == [Some(0); 2],
            messages: counts.iter().flatten().map(|count| u64::from(*count)).sum(),
            first_copy: checkpoint.and_then(|checkpoint| FirstCopy::from_checkpoint(checkpoint, &folder.source_raw)),
            moved: checkpoint.map(|checkpoint| MovedAway::from_checkpoint(checkpoint, folder)).unwrap_or_default(),
            source: SideReading::only_of(only),
            destination: SideReading::default(),
            losses: LossHistory::default(),
        }
    }

    /// Messages on both sides as listed.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    fn comparison(&self) -> FolderComparison {
        FolderComparison {
            source: self.source_name.clone(),
            destination: self.destination_name.clone(),
            folder_missing: !self.exists,
            ..FolderComparison::default()
        }
    }

    /// Asks whether copies in other folders are there still.
    async fn find_moved(&mut self, pair: &mut ConnectionPair) -> Result<(), FolderFailure> {
        let asked = self.moved.find_present(&mut pair.destination, self.source.uid_validity()).await;
        asked.map_err(|error| FolderFailure { stage: FolderStage::Reading, error })
    }

    /// How much was read, and how far failures were narrowed down.
    fn reading_progress(&self) -> (usize, u64) {
        let hashed = self.source.hashed() + self.destination.hashed();
        (hashed, self.source.failures.steps() + self.destination.failures.steps())
    }
}

/// Compares folders on the pairs of connections of one mailbox.
pub(super) struct FolderComparer {
    pub connector: Arc<PairConnector>,
    /// What the migration leaves out.
    pub rules: MessageFilter,
    /// At most this many single differences are listed for a folder.
    pub listed: usize,
    pub progress: Arc<SyncProgress>,
    /// Ends all of them.
    pub stop: CancellationToken,
}

impl PooledWork for FolderComparer {
    type Job = FolderCompareJob;
    type Report = FolderComparison;
    type Connections = ConnectionPair;

    fn name(job: &FolderCompareJob) -> &str {
        &job.source_name
    }

    async fn connect(&self) -> Result<Option<ConnectionPair>> {
        self.connector.connect_unless(&self.stop).await
    }

    async fn try_folder(
        &self,
        job: &mut FolderCompareJob,
        pair: Option<&mut ConnectionPair>,
    ) -> TryOutcome<FolderComparison> {
        if job.empty {
            return TryOutcome::Done(build_comparison(job, self.listed));
        }
        let Some(pair) = pair else { return TryOutcome::Connect };
        let before = job.reading_progress();
        let read = match self.read_both(job, pair).await {
            Ok(()) => job.find_moved(pair).await,
            failed => failed,
        };
        let Err(failure) = read else {
            return TryOutcome::Done(build_comparison(job, self.listed));
        };
        let after = job.reading_progress();
        let (moved, narrowed) = (after.0 > before.0, after.1 > before.1);
        let step = after_failure(&mut job.losses, &failure, (moved, narrowed), Instant::now());
        let error = failure.error.in_folder(&job.source_name);
        match step {
            AfterLoss::Reconnect => TryOutcome::Failed(FailedTry { error, moved, pace: RetryPace::NextLogin }),
            AfterLoss::BackOff => TryOutcome::Failed(FailedTry { error, moved, pace: RetryPace::BackOff }),
            AfterLoss::LeaveRest | AfterLoss::LeaveFolder => {
                TryOutcome::GivenUp(Error { finality: GiveUpScope::Folder, ..error })
            }
        }
    }

    /// Its own it is when the login worked and then this folder failed; what a server asks to wait for, and what a person
    /// must change first, concerns all.
    fn give_up(&self, job: FolderCompareJob, error: Error) -> GivenUpFolder<FolderComparison> {
        let is_own = match error.finality {
            GiveUpScope::Folder => true,
            GiveUpScope::Mailbox => false,
            GiveUpScope::ByClass => matches!(
                error.class,
                ErrorClass::Authorization | ErrorClass::MessageRejected | ErrorClass::Protocol | ErrorClass::Network
            ),
        };
        let report = FolderComparison { error: Some(error.clone()), ..job.comparison() };
        GivenUpFolder { report, fatal: (!is_own).then_some(error) }
    }

    async fn close(&self, pair: ConnectionPair) {
        pair.logout().await;
    }
}

impl FolderComparer {
    /// Opens and reads both sides, as far as they were not read before.
    async fn read_both(&self, job: &mut FolderCompareJob, pair: &mut ConnectionPair) -> Result<(), FolderFailure> {
        let FolderCompareJob { source, destination, source_raw, destination_raw, exists, .. } = job;
        let no_rules = MessageFilter::default();
        let opened = tokio::join!(source.open(&mut pair.source, source_raw, &self.rules), async {
            if *exists { destination.open(&mut pair.destination, destination_raw, &no_rules).await } else { Ok(()) }
        });
        opened.0?;
        opened.1?;
        if source.messages() == 0 || destination.messages() == 0 {
            return Ok(()); // there is nothing that bytes could tell apart
        }
        let (source_read, destination_read) = (CancellationToken::new(), CancellationToken::new());
        let read = tokio::join!(
            async {
                let read = read_messages(source, &mut pair.source, &self.progress).await;
                source_read.cancel();
                keep_alive_until(&mut pair.source, &read, &destination_read).await;
                read
            },
            async {
                let read = read_messages(destination, &mut pair.destination, &self.progress).await;
                destination_read.cancel();
                keep_alive_until(&mut pair.destination, &read, &source_read).await;
                read
            }
        );
        read.0.and(read.1).map_err(|error| FolderFailure { stage: FolderStage::Reading, error })
    }
}

/// Keeps a connection alive that has nothing more to read, until the other side was read, too: servers end what is silent.
/// A connection that ends meanwhile is noticed when it is used next.
async fn keep_alive_until(session: &mut Session, read: &Result<()>, other: &CancellationToken) {
    if read.is_err() {
        return;
    }
    let keepalive = session.endpoint().timeouts.keepalive;
    loop {
        tokio::select! {
            () = tokio::time::sleep(keepalive) => {}
            () = other.cancelled() => return,
        }
        // To its end: an answer that was cut off in the middle would meet the next command.
        if session.run("NOOP").await.is_err() {
            return;
        }
    }
}

/// Decides what comes after a failure, in an attempt in which messages were read (`moved`), or it became clearer which of
/// them the server fails on (`narrowed`). Opening a folder anew takes no long back-off: the login works.
fn after_failure(
    losses: &mut LossHistory,
    FolderFailure { stage, error }: &FolderFailure,
    (moved, narrowed): (bool, bool),
    now: Instant,
) -> AfterLoss {
    let usual = error.stated_wait.is_none() && matches!(error.class, ErrorClass::Network | ErrorClass::Protocol);
    if !usual || *stage == FolderStage::Refused {
        return AfterLoss::BackOff;
    }
    let opened = *stage == FolderStage::Reading;
    match losses.record(FolderLoss { moved, narrowed, opened, waited: Duration::ZERO }, now) {
        AfterLoss::BackOff if !opened => AfterLoss::Reconnect,
        after => after,
    }
}

/// Compares what was read.
fn build_comparison(job: &mut FolderCompareJob, listed: usize) -> FolderComparison {
    let (mut source, mut destination) = (std::mem::take(&mut job.source), std::mem::take(&mut job.destination));
    let mut found = FolderComparison {
        source_messages: source.messages(),
        destination_messages: destination.messages(),
        unreadable: source.unreadable().count() as u64,
        unreadable_at_destination: destination.unreadable().count() as u64,
        unlisted: source.unlisted,
        unlisted_at_destination: destination.unlisted,
        ..job.comparison()
    };
    let mut single = |kind, source_uid: Option<SourceUid>, destination_uid: Option<DestinationUid>, what: String| {
        if found.differences.len() < listed {
            let (source_uid, destination_uid) = (source_uid.map(|uid| uid.0), destination_uid.map(|uid| uid.0));
            found.differences.push(MessageDifference { kind, source_uid, destination_uid, what });
        }
    };
    destination.number_flags_as(&mut source.flags);
    let source = source;
    let mut comparison = if found.source_messages == 0 || found.destination_messages == 0 {
        compare::MessageComparison {
            missing: source.uids().collect(),
            extra: destination.uids().collect(),
            ..compare::MessageComparison::default()
        }
    } else {
        compare(source.items(), destination.items())
    };
    let listed = comparison.missing.len();
    comparison.missing.retain(|uid| !job.moved.is_present(*uid));
    let found_elsewhere = (listed - comparison.missing.len()) as u64;
    let is_others = |uid: &DestinationUid| job.moved.is_others_copy(*uid, destination.uid_validity());
    comparison.doubled.retain(|uid| !is_others(uid));
    for uid in source.unreadable() {
        single(DifferenceKind::Unreadable, Some(uid), None, "the source lists it and does not deliver it".to_owned());
    }
    for uid in destination.unreadable() {
        single(
            DifferenceKind::Unreadable,
            None,
            Some(uid),
            "the destination lists it and does not deliver it".to_owned(),
        );
    }
    for uid in &comparison.missing {
        single(DifferenceKind::Missing, Some(*uid), None, "missing at the destination".to_owned());
    }
    for pair in &comparison.changed {
        let uids = (Some(pair.source.uid), Some(pair.destination.uid));
        single(DifferenceKind::Changed, uids.0, uids.1, pair.describe(&source.flags));
        found.other_flags += u64::from(pair.other_flags());
        found.other_date += u64::from(pair.other_date());
        found.rewritten += u64::from(pair.rewritten());
        found.only_rewritten += u64::from(pair.rewritten() && !pair.other_flags() && !pair.other_date());
    }
    let doubled: BTreeSet<DestinationUid> = comparison.doubled.iter().copied().collect();
    for uid in &doubled {
        let what = "a copy too many: the source has fewer such messages";
        single(DifferenceKind::Doubled, None, Some(*uid), what.to_owned());
    }
    for uid in comparison.extra.iter().filter(|uid| !doubled.contains(*uid)) {
        single(DifferenceKind::OnlyAtDestination, None, Some(*uid), "only at the destination".to_owned());
    }
    let first = job.first_copy.filter(|first| Some(first.uid_validity) == destination.uid_validity());
    found.doubled_since_sync = first.map_or(0, |first| doubled.iter().filter(|uid| **uid >= first.uid).count() as u64);
    found.doubled = doubled.len() as u64;
    found.equal = comparison.equal;
    found.found_elsewhere = found_elsewhere;
    found.missing = comparison.missing.len() as u64;
    found.changed = comparison.changed.len() as u64;
    found.only_at_destination = comparison.extra.len() as u64;
    found.left_out = source.left_out;
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::{
        checkpoint::FolderState,
        uid_map::{CopyOrigin, UidMap},
    };

    fn after(losses: &mut LossHistory, stage: FolderStage, error: Error, narrowed: bool) -> AfterLoss {
        after_failure(losses, &FolderFailure { stage, error }, (false, narrowed), Instant::now())
    }

    #[test]
    fn a_folder_that_ends_connections_when_it_is_opened_costs_a_few_of_them_and_no_back_off() {
        let mut losses = LossHistory::default();
        let steps: Vec<_> =
            (0..4).map(|_| after(&mut losses, FolderStage::Opening, Error::network("lost"), false)).collect();
        assert_eq!(steps[..3], [AfterLoss::Reconnect; 3]);
        assert_eq!(steps[3], AfterLoss::LeaveFolder);
    }

    #[test]
    fn what_a_server_refuses_or_asks_to_wait_for_takes_the_usual_back_off() {
        let mut losses = LossHistory::default();
        let back_off = AfterLoss::BackOff;
        let throttled = Error::new(ErrorClass::Throttled, "slow down");
        let stated = Error { stated_wait: Some(Duration::from_mins(1)), ..Error::network("later") };
        for _ in 0..9 {
            assert_eq!(after(&mut losses, FolderStage::Refused, Error::network("NO"), false), back_off);
            assert_eq!(after(&mut losses, FolderStage::Opening, throttled.clone(), false), back_off);
            assert_eq!(after(&mut losses, FolderStage::Reading, stated.clone(), true), back_off);
        }
        let narrowed = after(&mut losses, FolderStage::Reading, Error::network("lost"), true);
        assert_eq!(narrowed, AfterLoss::Reconnect);
    }

    #[test]
    fn what_was_adopted_tells_nothing_of_when_a_sync_wrote() {
        let mut map = UidMap::new();
        map.push(SourceUid(1), Some(DestinationUid(3)), CopyOrigin::Adopted);
        map.push(SourceUid(2), None, CopyOrigin::Appended);
        let mut checkpoint = Checkpoint::default();
        let mut first = |map: &UidMap| {
            let state = FolderState { destination_uid_validity: 7, map: map.clone(), ..FolderState::default() };
            checkpoint.folders.insert(b"INBOX".to_vec(), state);
            FirstCopy::from_checkpoint(&checkpoint, b"INBOX")
        };
        assert_eq!(first(&map), None);
        map.push(SourceUid(3), Some(DestinationUid(9)), CopyOrigin::Appended);
        map.push(SourceUid(4), Some(DestinationUid(6)), CopyOrigin::Appended);
        assert_eq!(first(&map), Some(FirstCopy { uid_validity: 7, uid: DestinationUid(6) }));
        assert_eq!(FirstCopy::from_checkpoint(&checkpoint, b"Sent"), None);
    }
}
