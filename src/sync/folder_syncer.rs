//! Syncs the folders of one mailbox on a pool of connections: what one try is, and what a failure means.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{
    circuit_breaker::RefusalWeight,
    connection_pair::ConnectionPair,
    copy::CopyMemory,
    folder_loss::{AfterLoss, FolderLoss, LossHistory},
    folder_pool::{FailedTry, GivenUpFolder, PooledWork, RetryPace, TryOutcome},
    folder_presence::{FolderRecovery, recover_folder},
    folder_sync::sync_folder,
    job::{FolderSyncContext, FolderSyncJob, SyncEnd},
    pair_connector::PairConnector,
    report::FolderReport,
};
use crate::error::{Error, ErrorClass, ErrorRemedy, GiveUpScope, Result};

/// So many folders in a row that cannot be opened mean that it is the server.
const MAX_FOLDERS_LEFT: u64 = 3;

/// One folder on its way: what it is, and what is known of it by now.
pub(super) struct FolderTask {
    pub job: FolderSyncJob,
    pub report: FolderReport,
    pub memory: CopyMemory,
    losses: LossHistory,
}

impl FolderTask {
    /// A folder that was not looked at yet.
    pub(super) fn new(job: FolderSyncJob) -> Self {
        // Where there is nothing to be found, nothing is to be waited for, either.
        let is_searched = !job.matches_first && (job.new_at_destination || job.was_empty);
        let memory = CopyMemory { in_doubt: job.in_doubt, is_searched, ..CopyMemory::default() };
        Self { report: job.report(), memory, losses: LossHistory::default(), job }
    }

    /// How far it has come: messages that are at the destination, and steps towards giving others up.
    fn progress(&self) -> (u64, u64) {
        (self.report.copied_now + self.report.adopted, self.memory.failure_steps() + self.memory.suspects.tries())
    }
}

/// Syncs folders on the pairs of connections of one mailbox.
pub(super) struct FolderSyncer {
    pub shared: FolderSyncContext,
    pub connector: Arc<PairConnector>,
    /// Folders in a row that could not be opened.
    left: AtomicU64,
    /// Connections are kept for the next pass when they are not needed any more.
    pub keeps_pairs: AtomicBool,
    /// Those that were kept.
    pub kept: Mutex<Vec<ConnectionPair>>,
}

impl FolderSyncer {
    /// A syncer with nothing done yet.
    pub(super) fn new(shared: FolderSyncContext, connector: Arc<PairConnector>) -> Self {
        let (left, keeps_pairs, kept) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::default());
        Self { shared, connector, left, keeps_pairs, kept }
    }

    /// Takes the connections that were kept.
    pub(super) fn take_kept(&self) -> Vec<ConnectionPair> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PooledWork for FolderSyncer {
    type Job = FolderTask;
    type Report = FolderReport;
    type Connections = ConnectionPair;

    fn name(task: &FolderTask) -> &str {
        &task.job.source_name
    }

    async fn connect(&self) -> Result<Option<ConnectionPair>> {
        self.connector.connect_unless(&self.shared.stop).await
    }

    async fn try_folder(
        &self,
        task: &mut FolderTask,
        mut pair: Option<&mut ConnectionPair>,
    ) -> TryOutcome<FolderReport> {
        let before = task.progress();
        let tried = match (self.wait_until_due(pair.as_deref_mut()).await, pair.as_deref_mut()) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => return TryOutcome::Connect,
            (Ok(()), Some(pair)) => {
                task.memory.opened = false;
                sync_folder(&self.shared, &task.job, pair, &mut task.memory, &mut task.report).await
            }
        };
        let error = match tried {
            Ok(SyncEnd::Complete) => return self.complete(task),
            Ok(SyncEnd::Matched) => {
                self.left.store(0, Relaxed);
                return TryOutcome::Postponed;
            }
            Ok(SyncEnd::Stopped) => return TryOutcome::Stopped,
            Err(error) => error.in_folder(&task.job.source_name),
        };
        match recover_folder(&self.shared, &mut task.job, &mut task.memory, pair, &error).await {
            FolderRecovery::Again => TryOutcome::Again,
            FolderRecovery::Gone(note) => {
                task.report.doubts.push(note);
                self.complete(task)
            }
            FolderRecovery::Removed(error) => TryOutcome::GivenUp(error),
            FolderRecovery::NotConcerned => self.after_failure(task, error, before),
        }
    }

    fn give_up(&self, mut task: FolderTask, error: Error) -> GivenUpFolder<FolderReport> {
        let is_own = match error.finality {
            GiveUpScope::Folder => error.class != ErrorClass::Quota,
            GiveUpScope::Mailbox => false,
            GiveUpScope::ByClass => {
                matches!(error.class, ErrorClass::Authorization | ErrorClass::MessageRejected | ErrorClass::Protocol)
            }
        };
        if !is_own {
            return GivenUpFolder { report: task.report, fatal: Some(error) };
        }
        task.report.error = Some(error);
        GivenUpFolder { report: task.report, fatal: None }
    }

    async fn close(&self, pair: ConnectionPair) {
        if self.keeps_pairs.load(Relaxed) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(pair);
        } else {
            pair.logout().await;
        }
    }
}

impl FolderSyncer {
    /// Waits while a server asks to be left alone.
    async fn wait_until_due(&self, mut pair: Option<&mut ConnectionPair>) -> Result<()> {
        let FolderSyncContext { breakers, progress, stop, .. } = &self.shared;
        breakers.source.wait_until_due(pair.as_deref_mut(), progress, stop).await?;
        breakers.destination.wait_until_due(pair, progress, stop).await
    }

    /// Nothing is left to do in a folder.
    fn complete(&self, task: &mut FolderTask) -> TryOutcome<FolderReport> {
        self.left.store(0, Relaxed);
        TryOutcome::Done(FolderReport { complete: true, ..std::mem::take(&mut task.report) })
    }

    /// Decides what comes after a failure. `before` tells how far the folder had come before the try.
    fn after_failure(&self, task: &mut FolderTask, error: Error, before: (u64, u64)) -> TryOutcome<FolderReport> {
        if let (Some(side), Some(_)) = (error.side, error.stated_wait) {
            // All connections to this account wait, whatever it was that was refused.
            self.shared.breakers.for_side(side).record_refusal(&error, RefusalWeight::Control);
        }
        // What was being sent may still be committed: nothing that was seen before counts.
        task.job.snapshot = None;
        task.job.in_doubt = task.memory.in_doubt;
        let may_retry = error.class.remedy() == ErrorRemedy::RetryWithBackoff;
        if self.shared.stop.is_cancelled() && may_retry {
            return TryOutcome::Stopped;
        }
        let is_over = !may_retry
            || error.finality != GiveUpScope::ByClass
            || error.stated_wait.is_some()
            || error.class == ErrorClass::Throttled;
        let after = task.progress();
        let (moved, narrowed) = (before.0 != after.0, before.1 != after.1);
        let (opened, waited) = (task.memory.opened, task.memory.waited);
        let loss = FolderLoss { moved, narrowed, opened, waited };
        let pace = match if is_over { AfterLoss::BackOff } else { task.losses.record(loss, Instant::now()) } {
            AfterLoss::Reconnect => RetryPace::NextLogin,
            AfterLoss::LeaveRest => {
                task.memory.leaves_rest = true;
                RetryPace::NextLogin
            }
            AfterLoss::LeaveFolder if self.left.fetch_add(1, Relaxed) < MAX_FOLDERS_LEFT => {
                let what = format!("{}; this happens each time the folder is opened", error.what);
                return TryOutcome::GivenUp(Error { what, finality: GiveUpScope::Folder, ..error });
            }
            AfterLoss::LeaveFolder | AfterLoss::BackOff => RetryPace::BackOff,
        };
        TryOutcome::Failed(FailedTry { error, moved, pace })
    }
}
