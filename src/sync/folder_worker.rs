//! The folders of one mailbox on several pairs of connections, each folder as often as it makes sense.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    circuit_breaker::{AccountBreakers, RefusalWeight},
    connection_pair::ConnectionPair,
    copy::{CopyMemory, ExclusiveAppend},
    folder_loss::{AfterLoss, FolderLoss, LossHistory},
    folder_presence::{FolderRecovery, recover_folder},
    folder_sync::sync_folder,
    job::{FolderSyncContext, FolderSyncJob, SyncEnd},
    limits::{BUFFERED_BYTES, BUFFERED_BYTES_PER_PAIR},
    live_checkpoint::LiveCheckpoint,
    log_spans::folder_span,
    pair_connector::{PairConnector, RetryBackoff, SparePairs, WaitOutcome},
    prepare::PreparedFolders,
    progress::SyncProgress,
    report::{FolderReport, MailboxReport},
    spec::SyncSpec,
    sync_context::SyncContext,
};
use crate::error::{Error, ErrorClass, ErrorRemedy, GiveUpScope, Result};

/// So many folders in a row that cannot be opened mean that it is the server.
const MAX_FOLDERS_LEFT: u64 = 3;

/// One folder on its way: what it is, and what is known of it by now.
struct FolderTask {
    job: FolderSyncJob,
    report: FolderReport,
    memory: CopyMemory,
    losses: LossHistory,
    backoff: RetryBackoff,
}

impl FolderTask {
    fn new(job: FolderSyncJob, connector: &PairConnector) -> Self {
        let memory = CopyMemory { in_doubt: job.in_doubt, ..CopyMemory::default() };
        Self { report: job.report(), memory, losses: LossHistory::default(), backoff: connector.backoff(), job }
    }

    /// It is dealt with on this worker.
    fn done(self, pair: Option<ConnectionPair>) -> FolderOutcome {
        FolderOutcome::Done(Box::new(self.report), pair.map(Box::new))
    }

    /// How far it has come: messages that are at the destination, and steps towards giving others up.
    fn progress(&self) -> (u64, u64) {
        (self.report.copied_now + self.report.adopted, self.memory.failure_steps() + self.memory.suspects.tries())
    }
}

/// The folders that wait, and how many work on them.
struct FolderQueue {
    tasks: VecDeque<FolderTask>,
    workers: usize,
}

/// What the workers of one mailbox share.
struct FolderSyncPool {
    shared: FolderSyncContext,
    connector: Arc<PairConnector>,
    queue: Mutex<FolderQueue>,
    done: Mutex<BTreeMap<Vec<u8>, FolderReport>>,
    fatal: Mutex<Option<Error>>,
    reconnects: AtomicU64,
    /// Folders in a row that could not be opened.
    left: AtomicU64,
    /// A login that worked before was refused, and tried again.
    logged_in_again: AtomicBool,
    /// Nothing waits and nobody works: who waits for connections need not wait any longer.
    all_done: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FolderSyncPool {
    /// The next folder; none when nothing waits, and then the worker counts no more.
    fn next_task(&self) -> Option<FolderTask> {
        let mut queue = lock(&self.queue);
        let task = queue.tasks.pop_front();
        if task.is_none() {
            queue.workers -= 1;
            if queue.workers == 0 {
                self.all_done.cancel();
            }
        }
        task
    }

    /// A worker without connections gives its folder to the others, if there are any, and counts no more.
    fn give_back(&self, task: FolderTask) -> Result<(), Box<FolderTask>> {
        let mut queue = lock(&self.queue);
        if queue.workers < 2 {
            return Err(Box::new(task));
        }
        queue.workers -= 1;
        queue.tasks.push_front(task);
        Ok(())
    }

    /// Connects anew for a worker that has no folder, as often as it makes sense while the others work. It counts again then.
    async fn connect_anew(&self, mut error: Error) -> Option<ConnectionPair> {
        let mut backoff = self.connector.backoff();
        let stop = &self.shared.stop;
        loop {
            let waited = tokio::select! {
                waited = self.connector.wait_before_retry(error, &mut backoff, stop) => waited,
                () = self.all_done.cancelled() => return None,
            };
            if waited != Ok(WaitOutcome::Out) {
                return None;
            }
            let connected = tokio::select! {
                connected = self.connector.connect_unless(stop) => connected,
                () = self.all_done.cancelled() => return None,
            };
            match connected {
                Ok(Some(pair)) => {
                    lock(&self.queue).workers += 1;
                    self.reconnects.fetch_add(1, Relaxed);
                    return Some(pair);
                }
                Ok(None) => return None,
                Err(again) => error = again,
            }
        }
    }

    /// Waits while a server asks to be left alone.
    async fn wait_until_due(&self, mut pair: Option<&mut ConnectionPair>) -> Result<()> {
        let FolderSyncContext { breakers, progress, stop, .. } = &self.shared;
        breakers.source.wait_until_due(pair.as_deref_mut(), progress, stop).await?;
        breakers.destination.wait_until_due(pair, progress, stop).await
    }

    /// The server is there, and fails on something: no back-off, but not too many logins.
    async fn wait_before_login(&self, connected_at: Instant) -> WaitOutcome {
        tokio::select! {
            () = tokio::time::sleep_until(connected_at + self.shared.spec.retry.waits.between_logins) => {}
            () = self.shared.stop.cancelled() => return WaitOutcome::Stopped,
        }
        self.reconnects.fetch_add(1, Relaxed);
        WaitOutcome::Out
    }

    /// Nothing helps any folder: all workers end.
    fn stop_all(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.shared.stop.cancel();
    }

    /// Waits before a login that worked before, and was refused, is tried again: once in a run, since some servers say NO
    /// when they are unwell. False when it is no use.
    async fn may_log_in_again(&self, error: &Error) -> bool {
        let is_refusal = matches!(error.class, ErrorClass::Authentication | ErrorClass::Authorization);
        if !is_refusal || self.logged_in_again.swap(true, Relaxed) {
            return false;
        }
        let delay = self.shared.spec.retry.waits.login_again;
        tracing::info!(error = %error, delay_ms = delay.as_millis(), "trying again to log in");
        let _waiting = self.shared.progress.begin_wait(error.to_string(), delay);
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = self.shared.stop.cancelled() => false,
        }
    }
}

/// Syncs all folders that are to be opened.
///
/// # Errors
/// When the checkpoint cannot be kept; what goes wrong in folders stands in the report.
pub(super) async fn sync_folders(
    spec: &SyncSpec,
    context: &SyncContext,
    (checkpoint, connector): (&Arc<LiveCheckpoint>, Arc<PairConnector>),
    (pair, mut spare): (ConnectionPair, SparePairs),
    prepared: PreparedFolders,
    report: &mut MailboxReport,
) -> Result<()> {
    let pairs = spec.connections.max(1).min(prepared.jobs.len()).max(1);
    let tasks = prepared.jobs.into_iter().map(|job| FolderTask::new(job, &connector)).collect();
    report.folders = prepared.closed;
    let pool = Arc::new(FolderSyncPool {
        shared: FolderSyncContext {
            spec: Arc::new(spec.clone()),
            live_checkpoint: Arc::clone(checkpoint),
            progress: Arc::clone(&context.progress),
            stop: context.stop.child_token(),
            budget: (BUFFERED_BYTES / pairs as u64).min(BUFFERED_BYTES_PER_PAIR),
            breakers: AccountBreakers::new(spec.retry),
            exclusive_append: ExclusiveAppend::default(),
            destination_server: prepared.destination_server,
        },
        connector,
        queue: Mutex::new(FolderQueue { tasks, workers: 1 }),
        done: Mutex::default(),
        fatal: Mutex::default(),
        reconnects: AtomicU64::new(0),
        left: AtomicU64::new(0),
        logged_in_again: AtomicBool::new(false),
        all_done: CancellationToken::new(),
    });
    // Ends with this function, however that ends: nothing may be saved behind a later run's back.
    let mut saver = JoinSet::new();
    if !spec.dry_run {
        let pool = Arc::clone(&pool);
        let saving = async move {
            let error = pool.shared.live_checkpoint.keep_saving().await;
            pool.stop_all(error);
        };
        saver.spawn(saving.in_current_span());
    }

    let mut workers = JoinSet::new();
    workers.spawn(sync_queued_folders(Arc::clone(&pool), pair).in_current_span());
    loop {
        tokio::select! {
            Some(connected) = spare.join_next() => match connected {
                Ok(Ok(pair)) => {
                    lock(&pool.queue).workers += 1;
                    workers.spawn(sync_queued_folders(Arc::clone(&pool), pair).in_current_span());
                }
                // A server that refuses a further connection only makes the others do its work.
                Ok(Err(error)) => tracing::info!(error = %error, "no further pair of connections"),
                Err(error) => tracing::info!(error = %error, "no further pair of connections"),
            },
            ended = workers.join_next() => match ended {
                None => break,
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    pool.stop_all(Error::internal("a connection's task broke off; this is a defect in Mailferry"));
                }
            },
        }
    }
    saver.shutdown().await;
    finish(&pool, report);
    if spec.dry_run { Ok(()) } else { checkpoint.save().await }
}

/// Takes what came of the folders into the report.
fn finish(pool: &FolderSyncPool, report: &mut MailboxReport) {
    let untouched: Vec<FolderTask> = lock(&pool.queue).tasks.drain(..).collect();
    for task in untouched.iter().filter(|task| !task.memory.in_doubt) {
        // Marked as open for nothing: the next run need not look.
        pool.shared.live_checkpoint.update(|checkpoint| {
            if let Some(state) = checkpoint.folders.get_mut(&task.job.source_raw) {
                state.append_in_doubt = false;
            }
        });
    }
    report.reconnects += pool.reconnects.load(Relaxed);
    report.folders.extend(std::mem::take(&mut *lock(&pool.done)).into_values());
    report.folders.extend(untouched.into_iter().map(|task| task.report));
    report.folders.sort_by(|a, b| a.source.cmp(&b.source));
    report.note_folders();
    if let Some(error) = lock(&pool.fatal).take() {
        report.error = Some(error);
    }
}

/// What came of a folder on one worker.
enum FolderOutcome {
    /// The folder is dealt with; its pair of connections, if that can be used again.
    Done(Box<FolderReport>, Option<Box<ConnectionPair>>),
    /// No connection can be made, for this reason: the other workers do it.
    GivenBack(Error),
}

/// One pair of connections, folder after folder.
async fn sync_queued_folders(pool: Arc<FolderSyncPool>, pair: ConnectionPair) {
    let mut pair = Some(pair);
    while !pool.shared.stop.is_cancelled() {
        let Some(task) = pool.next_task() else { break };
        let (span, raw) = (folder_span(&task.job.source_name), task.job.source_raw.clone());
        match sync_folder_with_retries(&pool, task, pair.take()).instrument(span).await {
            FolderOutcome::Done(report, left) => {
                if report.complete {
                    pool.left.store(0, Relaxed);
                }
                lock(&pool.done).insert(raw, *report);
                SyncProgress::add(&pool.shared.progress.folders_done, 1);
                pair = left.map(|left| *left);
            }
            FolderOutcome::GivenBack(error) => match pool.connect_anew(error).await {
                Some(fresh) => pair = Some(fresh),
                None => return,
            },
        }
    }
    if let Some(pair) = pair {
        pair.logout().await;
    }
}

/// One folder, reconnecting as often as it makes sense.
async fn sync_folder_with_retries(
    pool: &FolderSyncPool,
    mut task: FolderTask,
    mut pair: Option<ConnectionPair>,
) -> FolderOutcome {
    let stop = &pool.shared.stop;
    let mut connected_at = Instant::now();
    loop {
        let before = task.progress();
        let waited = pool.wait_until_due(pair.as_mut()).await;
        let attempt = match &mut pair {
            _ if waited.is_err() => waited.map(|()| SyncEnd::Stopped),
            Some(pair) => {
                task.memory.opened = false;
                sync_folder(&pool.shared, &task.job, pair, &mut task.memory, &mut task.report).await
            }
            None => match pool.connector.connect_unless(stop).await {
                Ok(Some(fresh)) => {
                    pair = Some(fresh);
                    connected_at = Instant::now();
                    continue;
                }
                Ok(None) => Ok(SyncEnd::Stopped),
                Err(error) => {
                    tracing::info!(error = %error, "no connection for this folder");
                    task = match pool.give_back(task) {
                        Ok(()) => return FolderOutcome::GivenBack(error),
                        Err(task) => *task,
                    };
                    if pool.may_log_in_again(&error).await {
                        continue;
                    }
                    match pool.connector.wait_before_retry(error, &mut task.backoff, stop).await {
                        Ok(WaitOutcome::Out) => {
                            pool.reconnects.fetch_add(1, Relaxed);
                            continue;
                        }
                        Ok(WaitOutcome::Stopped) => Ok(SyncEnd::Stopped),
                        Err(error) => return give_up(pool, task, error),
                    }
                }
            },
        };
        let error = match attempt {
            Ok(SyncEnd::Complete) => {
                task.report.complete = true;
                return task.done(pair);
            }
            Ok(SyncEnd::Stopped) => return task.done(None),
            Err(error) => error.in_folder(&task.job.source_name),
        };
        match recover_folder(&pool.shared, &mut task.job, &mut task.memory, pair.as_mut(), &error).await {
            FolderRecovery::Again => continue,
            FolderRecovery::Gone(note) => {
                task.report.doubts.push(note);
                task.report.complete = true;
                return task.done(pair);
            }
            FolderRecovery::Removed(error) => return give_up(pool, task, error),
            FolderRecovery::NotConcerned => {}
        }
        if let (Some(side), Some(_)) = (error.side, error.stated_wait) {
            // All connections to this account wait, whatever it was that was refused.
            pool.shared.breakers.for_side(side).record_refusal(&error, RefusalWeight::Control);
        }
        // What was being sent may still be committed: nothing that was seen before counts.
        pair = None;
        task.job.snapshot = None;
        task.job.in_doubt = task.memory.in_doubt;
        if stop.is_cancelled() && error.class.remedy() == ErrorRemedy::RetryWithBackoff {
            return task.done(None);
        }
        let is_over = error.class.remedy() != ErrorRemedy::RetryWithBackoff
            || error.finality != GiveUpScope::ByClass
            || error.stated_wait.is_some()
            || error.class == ErrorClass::Throttled;
        let after = task.progress();
        let loss = FolderLoss { moved: before.0 != after.0, narrowed: before.1 != after.1, opened: task.memory.opened };
        if loss.moved {
            task.backoff = pool.connector.backoff();
        }
        match if is_over { AfterLoss::BackOff { reset: false } } else { task.losses.record(loss, Instant::now()) } {
            next @ (AfterLoss::Reconnect | AfterLoss::LeaveRest) => {
                task.memory.leaves_rest |= next == AfterLoss::LeaveRest;
                tracing::info!(error = %error, "connecting anew");
                if pool.wait_before_login(connected_at).await == WaitOutcome::Stopped {
                    return task.done(None);
                }
            }
            AfterLoss::LeaveFolder if pool.left.fetch_add(1, Relaxed) < MAX_FOLDERS_LEFT => {
                let what = format!("{}; this happens each time the folder is opened", error.what);
                return give_up(pool, task, Error { what, finality: GiveUpScope::Folder, ..error });
            }
            AfterLoss::LeaveFolder | AfterLoss::BackOff { .. } => {
                match pool.connector.wait_before_retry(error, &mut task.backoff, stop).await {
                    Ok(WaitOutcome::Out) => {
                        pool.reconnects.fetch_add(1, Relaxed);
                    }
                    Ok(WaitOutcome::Stopped) => return task.done(None),
                    Err(error) => return give_up(pool, task, error),
                }
            }
        }
    }
}

/// Ends a folder with an error; and all others, unless it is this folder's own.
fn give_up(pool: &FolderSyncPool, mut task: FolderTask, error: Error) -> FolderOutcome {
    let is_own = match error.finality {
        GiveUpScope::Folder => error.class != ErrorClass::Quota,
        GiveUpScope::Mailbox => false,
        GiveUpScope::ByClass => {
            matches!(error.class, ErrorClass::Authorization | ErrorClass::MessageRejected | ErrorClass::Protocol)
        }
    };
    if is_own {
        task.report.error = Some(error);
    } else {
        pool.stop_all(error);
    }
    task.done(None)
}
