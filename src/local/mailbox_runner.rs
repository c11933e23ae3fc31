//! Runs something for each of many mailboxes: as many at once as the limits allow, each in a task of its own, stopped
//! gently or at once. What is done with a mailbox, and who is told, is the caller's ([`MailboxWork`]).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::mailbox_queue::{MailboxQueue, ServerLimits, fit_to_limits};
use crate::{
    error::{Error, Result},
    sync::spec::SyncSpec,
};

/// Bounds on a run.
#[derive(Debug, Clone)]
pub(crate) struct RunLimits {
    /// Mailboxes at once.
    pub parallelism: usize,
    /// What each server allows, over all mailboxes.
    pub servers: ServerLimits,
}

/// How a run is told to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopSignal {
    /// Save checkpoints and end; no further mailbox starts. The tasks that run have to watch it themselves.
    pub gently: CancellationToken,
    /// Drop everything. What is not in a checkpoint is matched again by the next run.
    pub at_once: CancellationToken,
}

/// How far a mailbox had come when the run was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoppedMailbox {
    /// Its turn had not come.
    Waiting,
    /// Its task was dropped.
    Running,
}

/// What happens while mailboxes are worked on.
#[derive(Debug)]
pub(crate) enum WorkEvent<'a, R> {
    /// [`MailboxWork::tick_interval`] has passed.
    Tick,
    /// A mailbox ended, or could not start.
    Finished(&'a R),
    /// The run was asked to stop, and waits for so many mailboxes.
    Stopping { running: usize },
    /// A mailbox did not come to its end, or to its turn, before the run was stopped.
    Unfinished(&'a R),
}

/// What is done with each mailbox, and who is told of it.
pub(crate) trait MailboxWork {
    /// What came of one mailbox.
    type Report: Send + 'static;

    /// How often a [`WorkEvent::Tick`] is wanted.
    fn tick_interval(&self) -> Duration;

    /// Makes the task of a mailbox that starts now. A failure is in its report.
    fn start(&mut self, spec: SyncSpec) -> BoxFuture<'static, Self::Report>;

    /// The report of a mailbox that could not start, or whose task panicked.
    fn failed_report(&self, error: Error) -> Self::Report;

    /// The report of a mailbox that was stopped before its end.
    fn stopped_report(&self, mailbox: String, stopped: StoppedMailbox) -> Self::Report;

    /// The error of a mailbox whose task panicked. The panic's text may quote mail, so it is not shown. Where it happened
    /// is in the log.
    fn panic_error(&self) -> Error {
        Error::internal("Mailferry failed on this mailbox").advice("Please report it with the log line that says where")
    }

    /// Waits until there is something to be told of a mailbox that runs, and tells it. May be dropped while it waits.
    fn tell_news(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Tells what happened.
    fn show(&mut self, event: WorkEvent<'_, Self::Report>);
}

/// Runs the work for all mailboxes and gives their reports, in the order of the manifests. A mailbox that is wrong, fails
/// or panics does not stop the others.
pub(crate) async fn run_mailboxes<W: MailboxWork>(
    mailboxes: Vec<Result<SyncSpec>>,
    limits: &RunLimits,
    stop: &StopSignal,
    work: &mut W,
) -> Vec<W::Report> {
    let (states, queue) = enter_mailboxes(mailboxes, limits, work);
    let mut runner = MailboxRunner { work, states, queue, tasks: JoinSet::new(), running: HashMap::new() };
    runner.run(stop).await;
    runner.into_reports()
}

/// Looks at every mailbox before the first one starts. Those that cannot run have ended then, the others are in the queue.
fn enter_mailboxes<W: MailboxWork>(
    mailboxes: Vec<Result<SyncSpec>>,
    limits: &RunLimits,
    work: &mut W,
) -> (Vec<MailboxState<W::Report>>, MailboxQueue) {
    let mut waiting = Vec::new();
    let states = mailboxes.into_iter().enumerate().map(|(number, mailbox)| {
        let fitted = mailbox.and_then(|mut spec| fit_to_limits(&mut spec, &limits.servers).map(|needs| (spec, needs)));
        match fitted {
            Ok((spec, needs)) => {
                waiting.push((number, needs));
                MailboxState::Waiting(Box::new(spec))
            }
            Err(error) => {
                let report = work.failed_report(error);
                work.show(WorkEvent::Finished(&report));
                MailboxState::Ended(report)
            }
        }
    });
    let states = states.collect();
    (states, MailboxQueue::new(limits.parallelism, waiting))
}

/// Where one mailbox stands.
enum MailboxState<R> {
    Waiting(Box<SyncSpec>),
    Running { mailbox: String },
    Ended(R),
}

struct MailboxRunner<'a, W: MailboxWork> {
    work: &'a mut W,
    /// In the order of the manifests.
    states: Vec<MailboxState<W::Report>>,
    queue: MailboxQueue,
    tasks: JoinSet<W::Report>,
    /// The place in the list of each mailbox that runs.
    running: HashMap<Id, usize>,
}

impl<W: MailboxWork> MailboxRunner<'_, W> {
    /// Runs until all mailboxes have ended, or until it is stopped.
    async fn run(&mut self, stop: &StopSignal) {
        let mut ticks = ticks(self.work.tick_interval());
        let mut stopping = false;
        loop {
            if !stopping && stop.gently.is_cancelled() {
                stopping = true;
                self.work.show(WorkEvent::Stopping { running: self.tasks.len() });
            }
            while !stopping && let Some(number) = self.queue.start_next(Instant::now()) {
                self.start(number);
            }
            if self.tasks.is_empty() && (stopping || self.queue.waiting_count() == 0) {
                return;
            }
            tokio::select! {
                biased;
                () = stop.at_once.cancelled() => return,
                () = stop.gently.cancelled(), if !stopping => {}
                Some(ended) = self.tasks.join_next_with_id() => self.record_end(ended),
                () = self.work.tell_news() => {}
                _ = ticks.tick() => self.work.show(WorkEvent::Tick),
            }
        }
    }

    /// Starts a mailbox that waits.
    fn start(&mut self, number: usize) {
        let Some(state) = self.states.get_mut(number) else { return };
        let MailboxState::Waiting(spec) = &*state else { return };
        let running = MailboxState::Running { mailbox: spec.mailbox.clone() };
        if let MailboxState::Waiting(spec) = std::mem::replace(state, running) {
            let task = self.work.start(*spec);
            self.running.insert(self.tasks.spawn(task).id(), number);
        }
    }

    /// Takes the end of a task.
    fn record_end(&mut self, ended: Result<(Id, W::Report), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(number) = self.running.remove(&id) else { return };
        self.queue.release(number);
        let Some(state) = self.states.get_mut(number) else { return };
        let report = match (ended, &*state) {
            (Ok((_, report)), _) => report,
            (Err(_), MailboxState::Running { mailbox }) => {
                self.work.failed_report(self.work.panic_error().in_mailbox(mailbox))
            }
            (Err(_), _) => return,
        };
        self.work.show(WorkEvent::Finished(&report));
        *state = MailboxState::Ended(report);
    }

    /// The reports of all. What still runs is dropped.
    fn into_reports(self) -> Vec<W::Report> {
        let Self { work, states, mut tasks, .. } = self;
        tasks.abort_all();
        let report = |state| {
            let (mailbox, stopped) = match state {
                MailboxState::Ended(report) => return report,
                MailboxState::Waiting(spec) => (spec.mailbox, StoppedMailbox::Waiting),
                MailboxState::Running { mailbox } => (mailbox, StoppedMailbox::Running),
            };
            let report = work.stopped_report(mailbox, stopped);
            work.show(WorkEvent::Unfinished(&report));
            report
        };
        states.into_iter().map(report).collect()
    }
}

fn ticks(interval: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures::FutureExt as _;

    use super::*;
    use crate::{ErrorClass, local::mailbox_queue::ServerLimit, sync::testing::spec};

    /// Work made of a closure, which counts what ended.
    struct FakeWork<T> {
        task: T,
        finished: usize,
    }

    impl<T, F, R> MailboxWork for FakeWork<T>
    where
        T: Fn(SyncSpec) -> F,
        F: Future<Output = R> + Send + 'static,
        R: Send + 'static,
    {
        type Report = Result<R>;

        fn tick_interval(&self) -> Duration {
            Duration::from_mins(1)
        }

        fn start(&mut self, spec: SyncSpec) -> BoxFuture<'static, Result<R>> {
            (self.task)(spec).map(Ok).boxed()
        }

        fn failed_report(&self, error: Error) -> Result<R> {
            Err(error)
        }

        fn stopped_report(&self, mailbox: String, _: StoppedMailbox) -> Result<R> {
            Err(Error::internal("stopped").in_mailbox(mailbox))
        }

        fn show(&mut self, event: WorkEvent<'_, Result<R>>) {
            self.finished += usize::from(matches!(event, WorkEvent::Finished(_)));
        }
    }

    #[tokio::test]
    async fn every_mailbox_has_its_outcome_whatever_happens_to_the_others() {
        let mailboxes =
            vec![Ok(spec("alice")), Err(Error::configuration("wrong").in_mailbox("bob")), Ok(spec("carol"))];
        let limits = RunLimits { parallelism: 2, servers: ServerLimits::new() };
        let task = |spec: SyncSpec| async move {
            assert!(spec.mailbox != "carol", "a defect");
            spec.mailbox
        };
        let mut work = FakeWork { task, finished: 0 };
        let outcomes = run_mailboxes(mailboxes, &limits, &StopSignal::default(), &mut work).await;
        assert_eq!(outcomes[0].as_ref().unwrap(), "alice");
        assert_eq!(outcomes[1].as_ref().unwrap_err().class, ErrorClass::Configuration);
        let broken = outcomes[2].as_ref().unwrap_err();
        assert_eq!((broken.class, broken.mailbox.as_deref()), (ErrorClass::Internal, Some("carol")));
        assert_eq!(work.finished, 3);
    }

    #[tokio::test]
    async fn no_server_gets_more_connections_than_it_allows() {
        let mailboxes = (0..6).map(|n| {
            let mut spec = spec(&format!("m{n}"));
            spec.connections = 1;
            Ok(spec)
        });
        let limit = ServerLimit { connections: Some(2), starts_per_minute: None };
        let servers = ServerLimits::from([("old.example:993".to_owned(), limit)]);
        let limits = RunLimits { parallelism: 10, servers };
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let task = |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, SeqCst);
            }
        };
        let mut work = FakeWork { task, finished: 0 };
        let outcomes = run_mailboxes(mailboxes.collect(), &limits, &StopSignal::default(), &mut work).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 6);
        assert_eq!(most.load(SeqCst), 2);
    }
}
