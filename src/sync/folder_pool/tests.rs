use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::*;
use crate::sync::spec::{RetryPolicy, WaitSteps};

type Decision = fn(&mut TestJob, Option<usize>) -> TryOutcome<&'static str>;

/// Connections are numbers.
struct ScriptedWork {
    decide: Decision,
    /// One permit for each try that was begun.
    begun: Semaphore,
    /// So many must have been begun before the first pair goes on, and before the others do.
    awaited: (u32, u32),
    /// What the next tries to connect come to; then all work.
    refusals: Mutex<VecDeque<Error>>,
    /// The next connection that is made.
    next: AtomicUsize,
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

    fn name(job: &TestJob) -> &str {
        job.name
    }

    async fn connect(&self) -> Result<Option<usize>> {
        match lock(&self.refusals).pop_front() {
            Some(error) => Err(error),
            None => Ok(Some(self.next.fetch_add(1, SeqCst))),
        }
    }

    async fn try_folder(&self, job: &mut TestJob, connection: Option<&mut usize>) -> TryOutcome<&'static str> {
        job.tries += 1;
        self.begun.add_permits(1);
        let connection = connection.copied();
        let awaited = if connection == Some(0) { self.awaited.0 } else { self.awaited.1 };
        drop(self.begun.acquire_many(awaited).await);
        (self.decide)(job, connection)
    }

    fn give_up(&self, job: TestJob, error: Error) -> GivenUpFolder<&'static str> {
        let is_own = error.class == ErrorClass::Protocol;
        GivenUpFolder { report: job.name, fatal: (!is_own).then_some(error) }
    }

    async fn close(&self, _: usize) {
        self.closed.fetch_add(1, SeqCst);
    }
}

fn work(awaited: (u32, u32), refusals: &[Error], decide: Decision) -> Arc<ScriptedWork> {
    Arc::new(ScriptedWork {
        decide,
        begun: Semaphore::new(0),
        awaited,
        refusals: Mutex::new(refusals.iter().cloned().collect()),
        next: AtomicUsize::new(10),
        closed: AtomicUsize::new(0),
    })
}

fn refused() -> Error {
    Error::network("too many connections")
}

fn lost(pace: RetryPace, moved: bool) -> TryOutcome<&'static str> {
    TryOutcome::Failed(FailedTry { error: Error::network("connection lost"), moved, pace })
}

fn pool(work: &Arc<ScriptedWork>, names: &[&'static str]) -> Arc<FolderPool<ScriptedWork>> {
    let jobs = names.iter().map(|name| TestJob { name, tries: 0 }).collect();
    let milli = Duration::from_millis(1);
    let steps = WaitSteps { between_logins: milli, login_again: milli, ..WaitSteps::default() };
    let policy =
        RetryPolicy { attempts: 3, initial_backoff: milli, max_backoff: milli, waits: steps, ..RetryPolicy::default() };
    let waits = RetryWaits { policy, progress: Arc::default(), stop: CancellationToken::new() };
    FolderPool::new(Arc::clone(work), jobs, waits)
}

async fn run(work: &Arc<ScriptedWork>, names: &[&'static str], pairs: usize) -> PoolResult<TestJob, &'static str> {
    let mut further = JoinSet::new();
    for pair in 1..pairs {
        further.spawn(async move { Ok(pair) });
    }
    let mut result = pool(work, names).run(Some(0), &mut further).await;
    result.reports.sort_unstable();
    result
}

fn names(jobs: &[TestJob]) -> Vec<&'static str> {
    jobs.iter().map(|job| job.name).collect()
}

#[tokio::test]
async fn all_pairs_work_at_once_and_every_folder_is_done_once() {
    let work = work((3, 3), &[], |job, _| TryOutcome::Done(job.name));
    let result = run(&work, &["a", "b", "c", "d"], 3).await;
    assert_eq!(result.reports, ["a", "b", "c", "d"]);
    assert!(result.unfinished.is_empty() && result.untouched.is_empty() && result.fatal.is_none());
    assert_eq!((work.closed.load(SeqCst), result.reconnects), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_cannot_be_made_anew_leaves_its_folder_to_the_others() {
    let work = work((3, 0), &[refused(), refused(), refused(), refused()], |job, connection| match connection {
        Some(0) => TryOutcome::Done(job.name),
        Some(_) => lost(RetryPace::NextLogin, false),
        None => TryOutcome::Connect,
    });
    let result = run(&work, &["a", "b", "c"], 2).await;
    assert_eq!(result.reports, ["a", "b", "c"]);
    assert!(result.unfinished.is_empty() && result.untouched.is_empty() && result.fatal.is_none(), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_could_not_connect_comes_back_while_others_work() {
    // The first pair waits with its folder until the other has given up its own, come back, and done all the rest.
    let work = work((6, 0), &[refused(), refused()], |job, connection| match connection {
        Some(1) => lost(RetryPace::NextLogin, false),
        Some(_) => TryOutcome::Done(job.name),
        None => TryOutcome::Connect,
    });
    let result = run(&work, &["a", "b", "c", "d"], 2).await;
    assert_eq!(result.reports, ["a", "b", "c", "d"]);
    assert!(result.fatal.is_none(), "{result:?}");
    // Anew for its folder, which failed; then a second time, which failed; then it came back.
    assert_eq!(result.reconnects, 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_pair_tries_to_connect_as_often_as_makes_sense() {
    let lose_once: Decision = |job, connection| match connection {
        Some(0) => lost(RetryPace::NextLogin, false),
        Some(_) => TryOutcome::Done(job.name),
        None => TryOutcome::Connect,
    };
    let result = run(&work((0, 0), &[refused(), refused(), refused()], lose_once), &["a", "b"], 1).await;
    assert_eq!((result.reports, result.reconnects), (vec!["a", "b"], 4));
    let result = run(&work((0, 0), &[refused(), refused(), refused(), refused()], lose_once), &["a", "b"], 1).await;
    assert_eq!((names(&result.unfinished), names(&result.untouched)), (vec!["a"], vec!["b"]));
    assert_eq!(result.fatal.map(|error| error.class), Some(ErrorClass::Network));
    assert!(result.reports.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_login_that_was_refused_is_tried_again_once() {
    let lose_once: Decision = |job, connection| match connection {
        Some(0) => lost(RetryPace::NextLogin, false),
        Some(_) => TryOutcome::Done(job.name),
        None => TryOutcome::Connect,
    };
    let wrong = Error::new(ErrorClass::Authentication, "wrong password");
    let result = run(&work((0, 0), std::slice::from_ref(&wrong), lose_once), &["a"], 1).await;
    assert_eq!((result.reports, result.fatal), (vec!["a"], None));
    let result = run(&work((0, 0), &[wrong.clone(), wrong.clone()], lose_once), &["a"], 1).await;
    assert_eq!((names(&result.unfinished), result.fatal), (vec!["a"], Some(wrong)));
}

#[tokio::test(start_paused = true)]
async fn what_moves_begins_the_back_off_anew_and_what_does_not_is_given_up() {
    let moving: Decision = |job, connection| match (connection, job.tries) {
        (None, _) => TryOutcome::Connect,
        (_, 1..40) => lost(RetryPace::BackOff, true),
        _ => TryOutcome::Done(job.name),
    };
    let result = run(&work((0, 0), &[], moving), &["a"], 1).await;
    assert_eq!((result.reports, result.fatal), (vec!["a"], None));
    let stuck: Decision = |_, connection| match connection {
        None => TryOutcome::Connect,
        Some(_) => lost(RetryPace::BackOff, false),
    };
    let result = run(&work((0, 0), &[], stuck), &["a", "b"], 1).await;
    assert_eq!((result.reports, names(&result.untouched)), (vec!["a"], vec!["b"]));
    assert_eq!(result.fatal.map(|error| error.class), Some(ErrorClass::Network));
}

#[tokio::test]
async fn what_is_in_the_way_of_one_folder_holds_up_no_other_and_what_no_folder_escapes_ends_all() {
    let work = work((0, 0), &[], |job, connection| match (job.name, connection) {
        (_, None) => TryOutcome::Connect,
        ("b", _) => TryOutcome::GivenUp(Error::protocol("no such folder")),
        ("d", _) => TryOutcome::GivenUp(Error::new(ErrorClass::Tls, "gone")),
        (name, _) if job.tries == 1 && name == "a" => TryOutcome::Again,
        (name, _) => TryOutcome::Done(name),
    });
    let result = run(&work, &["a", "b", "c", "d", "e"], 1).await;
    assert_eq!(result.reports, ["a", "b", "c", "d"]);
    assert_eq!(names(&result.untouched), ["e"]);
    assert_eq!(result.fatal.map(|error| error.class), Some(ErrorClass::Tls));
}

#[tokio::test]
async fn a_further_pair_that_is_refused_is_done_without() {
    let work = work((0, 0), &[], |job, _| TryOutcome::Done(job.name));
    let mut further = JoinSet::new();
    further.spawn(async { Err(refused()) });
    let result = pool(&work, &["a"]).run(Some(0), &mut further).await;
    assert!(result.fatal.is_none());
    assert_eq!(result.reports, ["a"]);
}

#[tokio::test]
async fn a_folder_that_waits_for_the_others_is_given_back_and_so_are_connections_that_come_late() {
    let work = work((0, 0), &[], |job, connection| match (connection, job.name) {
        (None, _) => TryOutcome::Connect,
        (_, "a") => TryOutcome::Postponed,
        _ => TryOutcome::Done(job.name),
    });
    let mut further = JoinSet::new();
    further.spawn(std::future::pending());
    let result = pool(&work, &["a", "b"]).run(None, &mut further).await;
    assert_eq!((names(&result.postponed), result.reports), (vec!["a"], vec!["b"]));
    assert!(result.unfinished.is_empty() && result.untouched.is_empty() && result.fatal.is_none());
    assert_eq!((work.closed.load(SeqCst), further.len()), (1, 1));
}

#[tokio::test]
async fn a_stop_leaves_what_was_not_done() {
    let work = work((0, 0), &[], |_, _| TryOutcome::Stopped);
    let pool = pool(&work, &["a", "b"]);
    pool.waits.stop.cancel();
    let result = pool.run(Some(0), &mut JoinSet::new()).await;
    assert_eq!((names(&result.unfinished), names(&result.untouched)), (vec![], vec!["a", "b"]));
    assert!(result.fatal.is_none());
}
