//! Spreads the folders of one mailbox over several pairs of connections.
//!
//! Each pair has a worker, which takes job after job from one queue. A server may allow fewer connections than are wanted,
//! or take one away: the workers that are left do the work. Only when the last one can't connect, either, the whole ends.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::error::{Error, Result};

/// What is done with each folder.
pub(crate) trait PooledWork: Send + Sync + 'static {
    /// One folder, and what is remembered of it between tries.
    type Job: Send + 'static;
    /// What became of one folder.
    type Report: Send + 'static;
    /// What one worker works with: a pair of connections.
    type Connections: Send + 'static;

    /// Works on `job` until it is done, reconnecting where that helps. `connections` holds none when it must connect
    /// first; afterwards it holds those that are fit for the next job.
    fn process(
        &self,
        job: &mut Self::Job,
        connections: &mut Option<Self::Connections>,
    ) -> impl Future<Output = JobOutcome<Self::Report>> + Send;

    /// Waits before `job` tries again to connect, which failed with `error`.
    ///
    /// # Errors
    /// The error, when no further try makes sense.
    fn wait_to_connect(&self, job: &mut Self::Job, error: Error) -> impl Future<Output = Result<()>> + Send;

    /// Ends connections that are not needed any more.
    fn close(&self, connections: Self::Connections) -> impl Future<Output = ()> + Send;
}

/// How the work on one folder ended.
#[derive(Debug)]
pub(crate) enum JobOutcome<R> {
    /// It is done, well or not.
    Done(R),
    /// It was asked to stop before its end.
    Stopped,
    /// It could not connect: other workers may still be connected.
    NotConnected(Error),
    /// It failed in a way that no other folder escapes; what there is to tell of this one, if anything.
    Fatal(Error, Option<R>),
}

/// What became of all folders.
#[derive(Debug)]
pub(crate) struct PoolResult<J, R> {
    /// Reports of the folders that were worked on to their end, in the order in which they ended.
    pub reports: Vec<R>,
    /// Folders that nobody worked on to their end.
    pub untouched: Vec<J>,
    /// What ended the work before its time, if so.
    pub fatal: Option<Error>,
}

/// What the workers of one mailbox share.
pub(crate) struct FolderPool<W: PooledWork> {
    work: Arc<W>,
    /// Asks all of them to end.
    stop: CancellationToken,
    queue: Mutex<JobQueue<W::Job>>,
    reports: Mutex<Vec<W::Report>>,
    fatal: Mutex<Option<Error>>,
}

/// Jobs that wait, and how many workers look here again before they end.
#[derive(Debug)]
struct JobQueue<J> {
    waiting: VecDeque<J>,
    workers: usize,
}

impl<J> JobQueue<J> {
    /// The next job. A worker that gets none has ended.
    fn take(&mut self) -> Option<J> {
        let job = self.waiting.pop_front();
        if job.is_none() {
            self.workers = self.workers.saturating_sub(1);
        }
        job
    }

    /// Ends one worker and leaves its job to the others; gives the job back where there are none.
    fn hand_over(&mut self, job: J) -> Option<J> {
        if self.workers < 2 {
            return Some(job);
        }
        self.workers -= 1;
        self.waiting.push_front(job);
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: PooledWork> FolderPool<W> {
    /// A pool with these jobs, in this order. When `stop` is cancelled the work ends; the pool cancels it itself when
    /// something fatal happens, so it must be the pool's own.
    pub(crate) fn new(work: Arc<W>, jobs: Vec<W::Job>, stop: CancellationToken) -> Arc<Self> {
        let queue = Mutex::new(JobQueue { waiting: jobs.into(), workers: 0 });
        Arc::new(Self { work, stop, queue, reports: Mutex::default(), fatal: Mutex::default() })
    }

    /// Ends all workers, because of something that no folder escapes. Of several such errors the first is told.
    pub(crate) fn stop_all(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.stop.cancel();
    }

    /// Works on all jobs. The first worker has its connections; each of `further` makes another one, if it can connect.
    pub(crate) async fn run(
        self: Arc<Self>,
        first: W::Connections,
        mut further: JoinSet<Result<W::Connections>>,
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
                    Ok(Ok(connections)) => spawn(&mut workers, connections),
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
        let untouched = lock(&self.queue).waiting.drain(..).collect();
        let reports = std::mem::take(&mut *lock(&self.reports));
        let fatal = lock(&self.fatal).take();
        PoolResult { reports, untouched, fatal }
    }

    /// One worker: job after job, until none is left.
    async fn work_on_queue(self: Arc<Self>, connections: W::Connections) {
        let mut connections = Some(connections);
        loop {
            // Its own line: the lock must not be held while the job is done.
            let job = lock(&self.queue).take();
            let Some(job) = job else { break };
            if !self.work_on_job(job, &mut connections).await {
                break;
            }
        }
        if let Some(connections) = connections {
            self.work.close(connections).await;
        }
    }

    /// One job; false when this worker ends with it.
    async fn work_on_job(&self, mut job: W::Job, connections: &mut Option<W::Connections>) -> bool {
        let mut refused = false;
        while !self.stop.is_cancelled() {
            let error = match self.work.process(&mut job, connections).await {
                JobOutcome::Done(report) => {
                    lock(&self.reports).push(report);
                    return true;
                }
                JobOutcome::Fatal(error, report) => {
                    lock(&self.reports).extend(report);
                    self.stop_all(error);
                    return false;
                }
                JobOutcome::Stopped => break,
                JobOutcome::NotConnected(error) => error,
            };
            // All may have lost their connections at the same moment, so one further try is worth its wait.
            if std::mem::replace(&mut refused, true) {
                match lock(&self.queue).hand_over(job) {
                    None => {
                        tracing::info!(error = %error, "one pair of connections less");
                        return false;
                    }
                    Some(own) => job = own,
                }
            }
            if let Err(error) = self.work.wait_to_connect(&mut job, error).await {
                let left = lock(&self.queue).hand_over(job);
                if left.is_none() {
                    tracing::info!(error = %error, "one pair of connections less");
                    return false;
                }
                lock(&self.queue).waiting.extend(left);
                self.stop_all(error);
                return false;
            }
        }
        lock(&self.queue).waiting.push_front(job);
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::error::ErrorClass;

    type Decision = fn(&mut TestJob, Option<usize>) -> JobOutcome<&'static str>;

    /// Connections are numbers.
    struct ScriptedWork {
        decide: Decision,
        /// One permit for each job that was begun.
        begun: Semaphore,
        /// So many must have been begun before the first pair goes on, and before the others do.
        awaited: (u32, u32),
        /// The next connection that can be made, and how many may be.
        next: AtomicUsize,
        most: usize,
        closed: AtomicUsize,
    }

    #[derive(Debug)]
    struct TestJob {
        name: &'static str,
        tries: usize,
    }

    impl PooledWork for ScriptedWork {
        type Job = TestJob;
        type Report = &'static str;
        type Connections = usize;

        async fn process(&self, job: &mut TestJob, connections: &mut Option<usize>) -> JobOutcome<&'static str> {
            job.tries += 1;
            self.begun.add_permits(1);
            let awaited = if *connections == Some(0) { self.awaited.0 } else { self.awaited.1 };
            drop(self.begun.acquire_many(awaited).await);
            if connections.is_none() && self.next.load(SeqCst) < self.most {
                *connections = Some(self.next.fetch_add(1, SeqCst));
            }
            let outcome = (self.decide)(job, *connections);
            if matches!(outcome, JobOutcome::NotConnected(_)) {
                *connections = None;
            }
            outcome
        }

        async fn wait_to_connect(&self, job: &mut TestJob, error: Error) -> Result<()> {
            if job.tries < 5 { Ok(()) } else { Err(error) }
        }

        async fn close(&self, _: usize) {
            self.closed.fetch_add(1, SeqCst);
        }
    }

    fn work(awaited: (u32, u32), most: usize, decide: Decision) -> Arc<ScriptedWork> {
        let (begun, next, closed) = (Semaphore::new(0), AtomicUsize::new(10), AtomicUsize::new(0));
        Arc::new(ScriptedWork { decide, begun, awaited, next, most, closed })
    }

    async fn run(work: &Arc<ScriptedWork>, names: &[&'static str], pairs: usize) -> PoolResult<TestJob, &'static str> {
        let jobs = names.iter().map(|name| TestJob { name, tries: 0 }).collect();
        let pool = FolderPool::new(Arc::clone(work), jobs, CancellationToken::new());
        let mut further = JoinSet::new();
        for pair in 1..pairs {
            further.spawn(async move { Ok(pair) });
        }
        let mut result = pool.run(0, further).await;
        result.reports.sort_unstable();
        result
    }

    #[tokio::test]
    async fn all_pairs_work_at_once_and_every_job_is_done_once() {
        let work = work((3, 3), 0, |job, _| JobOutcome::Done(job.name));
        let result = run(&work, &["a", "b", "c", "d"], 3).await;
        assert_eq!(result.reports, ["a", "b", "c", "d"]);
        assert!(result.untouched.is_empty() && result.fatal.is_none());
        assert_eq!(work.closed.load(SeqCst), 3);
    }

    #[tokio::test]
    async fn a_pair_that_cannot_be_made_anew_leaves_its_folder_to_the_others() {
        let work = work((3, 0), 0, |job, connection| match connection {
            Some(0) => JobOutcome::Done(job.name),
            _ => JobOutcome::NotConnected(Error::network("too many connections")),
        });
        let result = run(&work, &["a", "b", "c"], 2).await;
        assert_eq!(result.reports, ["a", "b", "c"]);
        assert!(result.untouched.is_empty() && result.fatal.is_none(), "{result:?}");
    }

    #[tokio::test]
    async fn the_last_pair_tries_as_often_as_makes_sense() {
        let work = work((0, 0), 99, |job, connection| match connection {
            Some(_) if job.tries > 3 => JobOutcome::Done(job.name),
            _ => JobOutcome::NotConnected(Error::network("connection refused")),
        });
        assert_eq!(run(&work, &["a", "b"], 1).await.reports, ["a", "b"]);
        let work = self::work((0, 0), 99, |_, _| JobOutcome::NotConnected(Error::network("connection refused")));
        let result = run(&work, &["a", "b"], 1).await;
        assert_eq!((result.untouched.len(), result.reports.len()), (2, 0));
        assert_eq!(result.fatal.map(|error| error.class), Some(ErrorClass::Network));
    }

    #[tokio::test]
    async fn what_no_folder_escapes_ends_the_work_and_what_was_found_is_kept() {
        let work = work((0, 0), 0, |job, _| match job.name {
            "b" => JobOutcome::Fatal(Error::new(ErrorClass::Tls, "gone"), Some("half")),
            name => JobOutcome::Done(name),
        });
        let result = run(&work, &["a", "b", "c"], 1).await;
        assert_eq!(result.reports, ["a", "half"]);
        assert_eq!(result.untouched.iter().map(|job| job.name).collect::<Vec<_>>(), ["c"]);
        assert_eq!(result.fatal.map(|error| error.class), Some(ErrorClass::Tls));
    }

    #[tokio::test]
    async fn a_further_pair_that_is_refused_is_done_without() {
        let work = work((0, 0), 0, |job, _| JobOutcome::Done(job.name));
        let jobs = vec![TestJob { name: "a", tries: 0 }];
        let pool = FolderPool::new(Arc::clone(&work), jobs, CancellationToken::new());
        let mut further = JoinSet::new();
        further.spawn(async { Err(Error::network("too many connections")) });
        let result = pool.run(0, further).await;
        assert!(result.fatal.is_none());
        assert_eq!(result.reports, ["a"]);
    }

    #[tokio::test]
    async fn a_stop_leaves_what_was_not_done() {
        let work = work((0, 0), 0, |_, _| JobOutcome::Stopped);
        let result = run(&work, &["a", "b"], 1).await;
        assert_eq!(result.untouched.iter().map(|job| job.name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(result.fatal.is_none());
    }
}
