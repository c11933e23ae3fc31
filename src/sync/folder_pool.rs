//! Works on the folders of one mailbox over several pairs of connections, on each folder as often as it makes sense.
//!
//! Each pair has a worker, which takes folder after folder from one queue. A server may allow fewer connections than are
//! wanted, or take one away: a worker that can't connect leaves its folder to the others and comes back when it can. Only
//! when the last one can't connect, either, the whole ends.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    log_spans::folder_span,
    progress::SyncProgress,
    retry_waits::{RetryBackoff, RetryWaits, WaitOutcome},
};
use crate::error::{Error, ErrorClass, Result};

/// What is done with each folder.
pub(super) trait PooledWork: Send + Sync + 'static {
    /// One folder, and what is remembered of it between tries.
    type Job: Send + 'static;
    /// What became of one folder.
    type Report: Send + 'static;
    /// What one worker works with: a pair of connections.
    type Connections: Send + 'static;

    /// The folder's name at the source, decoded, for the log.
    fn name(job: &Self::Job) -> &str;

    /// Makes new connections; none when it is asked to stop before they are there.
    ///
    /// # Errors
    /// When they can't be made.
    fn connect(&self) -> impl Future<Output = Result<Option<Self::Connections>>> + Send;

    /// Works on a folder until it is done, or something fails.
    fn try_folder(
        &self,
        job: &mut Self::Job,
        connections: Option<&mut Self::Connections>,
    ) -> impl Future<Output = TryOutcome<Self::Report>> + Send;

    /// Ends the work on a folder with an error.
    fn give_up(&self, job: Self::Job, error: Error) -> GivenUpFolder<Self::Report>;

    /// Ends connections that are not needed any more.
    fn close(&self, connections: Self::Connections) -> impl Future<Output = ()> + Send;
}

/// How one try of a folder ended.
#[derive(Debug)]
pub(super) enum TryOutcome<R> {
    /// The folder is dealt with, well or not. The connections are fit for the next one.
    Done(R),
    /// It was asked to stop before its end. The connections are of no more use.
    Stopped,
    /// It came as far as it may before the others have: it waits for the next pool. The connections are fit for the next one.
    Postponed,
    /// It needs connections.
    Connect,
    /// What was in the way is gone: it is tried again on the same connections.
    Again,
    /// It failed, and is worth another try on new connections.
    Failed(FailedTry),
    /// It failed for good. The connections are of no more use.
    GivenUp(Error),
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct FailedTry {
    pub error: Error,
    /// Messages moved before it failed: the back-off begins anew.
    pub moved: bool,
    /// How long the next try waits.
    pub pace: RetryPace,
}

/// How long the next try of a folder waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryPace {
    /// Only as long as logins must be apart: the server is there, and fails on something.
    NextLogin,
    /// As long as the back-off says.
    BackOff,
}

/// A folder that ended with an error.
#[derive(Debug)]
pub(super) struct GivenUpFolder<R> {
    pub report: R,
    /// The error, when no other folder escapes it: the whole ends.
    pub fatal: Option<Error>,
}

/// What became of all folders.
#[derive(Debug)]
pub(super) struct PoolResult<J, R> {
    /// Reports of the folders that were worked on to their end, in the order in which they ended.
    pub reports: Vec<R>,
    /// Folders that wait for the next pool.
    pub postponed: Vec<J>,
    /// Folders in whose middle the work ended.
    pub unfinished: Vec<J>,
    /// Folders that still waited for a worker.
    pub untouched: Vec<J>,
    /// How often connections were made anew.
    pub reconnects: u64,
    /// What ended the work before its time, if so.
    pub fatal: Option<Error>,
}

impl<J, R> Default for PoolResult<J, R> {
    fn default() -> Self {
        Self {
            reports: Vec::new(),
            postponed: Vec::new(),
            unfinished: Vec::new(),
            untouched: Vec::new(),
            reconnects: 0,
            fatal: None,
        }
    }
}

/// One folder on its way.
struct QueuedFolder<J> {
    job: J,
    /// The waits that are left.
    backoff: RetryBackoff,
}

/// The folders that wait, and how many workers look here again before they end.
struct FolderQueue<J> {
    waiting: VecDeque<QueuedFolder<J>>,
    workers: usize,
}

/// What the workers of one mailbox share.
pub(super) struct FolderPool<W: PooledWork> {
    work: Arc<W>,
    /// Its token asks all workers to end.
    waits: RetryWaits,
    queue: Mutex<FolderQueue<W::Job>>,
    reports: Mutex<Vec<W::Report>>,
    postponed: Mutex<Vec<W::Job>>,
    unfinished: Mutex<Vec<W::Job>>,
    fatal: Mutex<Option<Error>>,
    reconnects: AtomicU64,
    /// A login that worked before was refused, and tried again.
    logged_in_again: AtomicBool,
    /// Nothing waits and nobody works: who waits for connections need not wait any longer.
    all_done: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: PooledWork> FolderPool<W> {
    /// A pool with these jobs, in this order. When the token of `waits` is cancelled the work ends; the pool cancels it
    /// itself when something fatal happens, so it must be the pool's own.
    pub(super) fn new(work: Arc<W>, jobs: Vec<W::Job>, waits: RetryWaits) -> Arc<Self> {
        let waiting = jobs.into_iter().map(|job| QueuedFolder { job, backoff: waits.backoff() }).collect();
        Arc::new(Self {
            work,
            waits,
            queue: Mutex::new(FolderQueue { waiting, workers: 0 }),
            reports: Mutex::default(),
            postponed: Mutex::default(),
            unfinished: Mutex::default(),
            fatal: Mutex::default(),
            reconnects: AtomicU64::new(0),
            logged_in_again: AtomicBool::new(false),
            all_done: CancellationToken::new(),
        })
    }

    /// Ends all workers, because of something that no folder escapes. Of several such errors the first is told.
    pub(super) fn stop_all(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.waits.stop.cancel();
    }

    /// Works on all jobs. The first worker has its connections, or makes them; each of `further` makes another one, if it can
    /// connect. What of `further` comes too late stays in it.
    pub(super) async fn run(
        self: Arc<Self>,
        first: Option<W::Connections>,
        further: &mut JoinSet<Result<W::Connections>>,
    ) -> PoolResult<W::Job, W::Report> {
        let mut workers = JoinSet::new();
        let spawn = |workers: &mut JoinSet<()>, connections| {
            lock(&self.queue).workers += 1;
            workers.spawn(Arc::clone(&self).work_on_queue(connections).in_current_span());
        };
        spawn(&mut workers, first);
        loop {
            tokio::select! {
                Some(connected) = further.join_next() => match connected {
                    Ok(Ok(connections)) => spawn(&mut workers, Some(connections)),
                    // A server that refuses a further connection only makes the others do its work.
                    Ok(Err(error)) => tracing::info!(error = %error, "no further pair of connections"),
                    Err(error) => tracing::info!(error = %error, "no further pair of connections"),
                },
                ended = workers.join_next() => match ended {
                    None => break,
                    Some(Ok(())) => {}
                    Some(Err(_)) => self
                        .stop_all(Error::internal("a connection's task broke off; this is a defect in Mailferry")),
                },
            }
        }
        PoolResult {
            reports: std::mem::take(&mut *lock(&self.reports)),
            postponed: std::mem::take(&mut *lock(&self.postponed)),
            unfinished: std::mem::take(&mut *lock(&self.unfinished)),
            untouched: lock(&self.queue).waiting.drain(..).map(|folder| folder.job).collect(),
            reconnects: self.reconnects.load(Relaxed),
            fatal: lock(&self.fatal).take(),
        }
    }

    /// One worker: folder after folder, until none is left.
    async fn work_on_queue(self: Arc<Self>, mut connections: Option<W::Connections>) {
        while !self.waits.stop.is_cancelled()
            && let Some(folder) = self.next_folder()
        {
            let span = folder_span(W::name(&folder.job));
            if let Err(error) = self.work_on_folder(folder, &mut connections).instrument(span).await {
                match self.connect_anew(error).await {
                    Some(fresh) => connections = Some(fresh),
                    None => return,
                }
            }
        }
        if let Some(connections) = connections {
            self.work.close(connections).await;
        }
    }

    /// The next folder; none when nothing waits, and then the worker counts no more.
    fn next_folder(&self) -> Option<QueuedFolder<W::Job>> {
        let mut queue = lock(&self.queue);
        let folder = queue.waiting.pop_front();
        if folder.is_none() {
            queue.workers = queue.workers.saturating_sub(1);
            if queue.workers == 0 {
                self.all_done.cancel();
            }
        }
        folder
    }

    /// A worker without connections gives its folder to the others, and counts no more; where there are none, it has the
    /// folder back.
    fn hand_over(&self, folder: QueuedFolder<W::Job>) -> Option<QueuedFolder<W::Job>> {
        let mut queue = lock(&self.queue);
        if queue.workers < 2 {
            return Some(folder);
        }
        queue.workers -= 1;
        queue.waiting.push_front(folder);
        None
    }

    /// One folder, connecting anew as often as it makes sense. `connections` may hold none before, and afterwards.
    ///
    /// # Errors
    /// When no connections can be made, and the other workers have the folder now.
    async fn work_on_folder(
        &self,
        mut folder: QueuedFolder<W::Job>,
        connections: &mut Option<W::Connections>,
    ) -> Result<()> {
        let mut logged_in_at = Instant::now();
        while !self.waits.stop.is_cancelled() {
            match self.work.try_folder(&mut folder.job, connections.as_mut()).await {
                TryOutcome::Done(report) => {
                    self.record_report(report);
                    return Ok(());
                }
                TryOutcome::Postponed => {
                    lock(&self.postponed).push(folder.job);
                    return Ok(());
                }
                TryOutcome::Stopped => break,
                TryOutcome::Again => {}
                TryOutcome::GivenUp(error) => {
                    *connections = None;
                    self.give_up(folder.job, error);
                    return Ok(());
                }
                TryOutcome::Failed(FailedTry { error, moved, pace }) => {
                    *connections = None;
                    if moved {
                        folder.backoff = self.waits.backoff();
                    }
                    let waited = match pace {
                        RetryPace::NextLogin => {
                            tracing::info!(error = %error, "connecting anew");
                            Ok(self.waits.wait_between_logins(logged_in_at).await)
                        }
                        RetryPace::BackOff => self.waits.wait_before_retry(error, &mut folder.backoff).await,
                    };
                    match waited {
                        Ok(WaitOutcome::Out) => self.count_reconnect(),
                        Ok(WaitOutcome::Stopped) => break,
                        Err(error) => {
                            self.give_up(folder.job, error);
                            return Ok(());
                        }
                    }
                }
                TryOutcome::Connect => match self.work.connect().await {
                    Ok(Some(fresh)) => {
                        *connections = Some(fresh);
                        logged_in_at = Instant::now();
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::info!(error = %error, "no connection for this folder");
                        let Some(own) = self.hand_over(folder) else { return Err(error) };
                        folder = own;
                        if let Err(error) = self.wait_to_connect(error, &mut folder.backoff).await {
                            self.stop_all(error);
                        }
                    }
                },
            }
        }
        *connections = None;
        lock(&self.unfinished).push(folder.job);
        Ok(())
    }

    fn record_report(&self, report: W::Report) {
        lock(&self.reports).push(report);
        SyncProgress::add(&self.waits.progress.folders_done, 1);
    }

    /// Ends a folder with an error; and all others, unless it is this folder's own.
    fn give_up(&self, job: W::Job, error: Error) {
        let GivenUpFolder { report, fatal } = self.work.give_up(job, error);
        if let Some(error) = fatal {
            self.stop_all(error);
        }
        self.record_report(report);
    }

    fn count_reconnect(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }

    /// Waits before the last worker tries again to connect, or gives the error back when that makes no sense. A login that
    /// worked before, and was refused, is tried again once in a run: some servers say NO when they are unwell.
    async fn wait_to_connect(&self, error: Error, backoff: &mut RetryBackoff) -> Result<()> {
        let is_refusal = matches!(error.class, ErrorClass::Authentication | ErrorClass::Authorization);
        if is_refusal && !self.logged_in_again.swap(true, Relaxed) {
            self.waits.wait_to_log_in_again(&error).await;
        } else if self.waits.wait_before_retry(error, backoff).await? == WaitOutcome::Out {
            self.count_reconnect();
        }
        Ok(())
    }

    /// Connects anew for a worker that has no folder, as often as it makes sense while the others work. It counts again then.
    async fn connect_anew(&self, mut error: Error) -> Option<W::Connections> {
        let mut backoff = self.waits.backoff();
        loop {
            let waited = tokio::select! {
                waited = self.waits.wait_before_retry(error, &mut backoff) => waited,
                () = self.all_done.cancelled() => return None,
            };
            if waited != Ok(WaitOutcome::Out) {
                return None;
            }
            let connected = tokio::select! {
                connected = self.work.connect() => connected,
                () = self.all_done.cancelled() => return None,
            };
            match connected {
                Ok(Some(connections)) => {
                    lock(&self.queue).workers += 1;
                    self.count_reconnect();
                    return Some(connections);
                }
                Ok(None) => return None,
                Err(again) => error = again,
            }
        }
    }
}
