//! Runs something for each of many mailboxes: as many at once as the limits allow, each in a task of its own, stopped
//! gently or at once. What is done with a mailbox, and who is told, is the caller's ([`MailboxWork`]).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    mailbox_queue::{MailboxQueue, ServerLimits, fit_to_limits},
    window_watch::{WindowWatch, never_open},
};
use crate::{
    error::{Error, Result},
    sync::spec::SyncSpec,
    sync_times::ClosedTimes,
};

/// How long a change of windows is waited for at once: the wall clock may be set meanwhile.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

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
    /// A mailbox ended early, since the time windows of its servers closed: it goes on when they open.
    Paused(&'a R),
    /// Nothing runs: so many mailboxes wait for time windows to open.
    Waiting { mailboxes: usize, closed: &'a ClosedTimes },
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

    /// Makes the task of a mailbox that starts now, which ends soon once `stop` is cancelled. A failure is in its report.
    fn start(&mut self, spec: SyncSpec, stop: CancellationToken) -> BoxFuture<'static, Self::Report>;

    /// The time by which the windows of servers are open or closed; none: this work does not go by them.
    fn window_clock(&self) -> Option<Timestamp> {
        None
    }

    /// True for the report of a task that was stopped before its end, and can go on where it was.
    fn can_go_on(&self, _: &Self::Report) -> bool {
        false
    }

    /// The report of a mailbox that was paused, over all its parts.
    fn joined_report(&self, _before: Self::Report, after: Self::Report) -> Self::Report {
        after
    }

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
    let (states, queue, windows) = enter_mailboxes(mailboxes, limits, work);
    let (tasks, running) = (JoinSet::new(), HashMap::new());
    let mut runner = MailboxRunner { work, states, queue, windows, tasks, running, told: None };
    runner.run(stop).await;
    runner.into_reports()
}

/// Looks at every mailbox before the first one starts. Those that cannot run have ended then, the others are in the queue.
fn enter_mailboxes<W: MailboxWork>(
    mailboxes: Vec<Result<SyncSpec>>,
    limits: &RunLimits,
    work: &mut W,
) -> (Vec<MailboxState<W::Report>>, MailboxQueue, WindowWatch) {
    let (mut waiting, mut windows) = (Vec::new(), WindowWatch::default());
    let clock = work.window_clock();
    let mut fit = |number: usize, mut spec: SyncSpec| {
        let needs = fit_to_limits(&mut spec, &limits.servers)?;
        if let Some(now) = clock {
            windows.add(number, &spec, &limits.servers, now);
            never_open(&spec, &limits.servers, now).map_or(Ok(()), Err)?;
        }
        Ok((spec, needs))
    };
    let states =
        mailboxes.into_iter().enumerate().map(|(number, mailbox)| match mailbox.and_then(|spec| fit(number, spec)) {
            Ok((spec, needs)) => {
                waiting.push((number, needs));
                MailboxState::Waiting { spec: Box::new(spec), before: None }
            }
            Err(error) => {
                let report = work.failed_report(error);
                work.show(WorkEvent::Finished(&report));
                MailboxState::Ended(report)
            }
        });
    let states = states.collect();
    (states, MailboxQueue::new(limits.parallelism, waiting), windows)
}

/// Where one mailbox stands.
enum MailboxState<R> {
    /// It waits, or was paused: then with the report `before`.
    Waiting {
        spec: Box<SyncSpec>,
        before: Option<Box<R>>,
    },
    Running {
        spec: Box<SyncSpec>,
        before: Option<Box<R>>,
        /// Asks it to stop.
        stop: CancellationToken,
        /// True once it was asked to since windows closed.
        pausing: bool,
    },
    /// For the moment of a change.
    Changing,
    Ended(R),
}

struct MailboxRunner<'a, W: MailboxWork> {
    work: &'a mut W,
    /// In the order of the manifests.
    states: Vec<MailboxState<W::Report>>,
    queue: MailboxQueue,
    windows: WindowWatch,
    tasks: JoinSet<W::Report>,
    /// The place in the list of each mailbox that runs.
    running: HashMap<Id, usize>,
    /// What was told last of the windows that are waited for.
    told: Option<ClosedTimes>,
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
            let now = self.work.window_clock().unwrap_or_default();
            self.windows.look(now);
            if !stopping {
                self.start_and_pause(stop);
            }
            if self.tasks.is_empty() && (stopping || self.queue.waiting_count() == 0) {
                return;
            }
            let change = self.windows.next_change().and_then(|at| Duration::try_from(at.duration_since(now)).ok());
            tokio::select! {
                biased;
                () = stop.at_once.cancelled() => return,
                () = stop.gently.cancelled(), if !stopping => {}
                Some(ended) = self.tasks.join_next_with_id() => self.record_end(ended),
                () = self.work.tell_news() => {}
                _ = ticks.tick() => self.work.show(WorkEvent::Tick),
                () = tokio::time::sleep(change.unwrap_or(LONGEST_LOOK).min(LONGEST_LOOK)) => {}
            }
        }
    }

    /// Asks those to stop whose windows closed, and starts those whose turn it is.
    fn start_and_pause(&mut self, stop: &StopSignal) {
        for number in self.running.values() {
            if let Some(MailboxState::Running { stop, pausing, .. }) = self.states.get_mut(*number)
                && self.windows.closed(*number).is_some()
            {
                *pausing = true;
                stop.cancel();
            }
        }
        let windows = &self.windows;
        while let Some(number) = self.queue.start_next(Instant::now(), |number| windows.closed(number).is_none()) {
            let Some(state) = self.states.get_mut(number) else { continue };
            if let MailboxState::Waiting { spec, before } = std::mem::replace(state, MailboxState::Changing) {
                let stop = stop.gently.child_token();
                let task = self.work.start(SyncSpec::clone(&spec), stop.clone());
                *state = MailboxState::Running { spec, before, stop, pausing: false };
                self.running.insert(self.tasks.spawn(task).id(), number);
            }
        }
        let soonest = self.queue.waiting().filter_map(|number| windows.closed(number)).min_by_key(|c| c.opens_at);
        let waiting = soonest.filter(|_| self.tasks.is_empty());
        if waiting.is_some() && waiting != self.told.as_ref() {
            let mailboxes = self.queue.waiting_count();
            self.told = waiting.cloned();
            if let Some(closed) = &self.told {
                self.work.show(WorkEvent::Waiting { mailboxes, closed });
            }
        }
    }

    /// Takes the end of a task.
    fn record_end(&mut self, ended: Result<(Id, W::Report), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(number) = self.running.remove(&id) else { return };
        let Some(state) = self.states.get_mut(number) else { return };
        let MailboxState::Running { spec, before, pausing, .. } = std::mem::replace(state, MailboxState::Changing)
        else {
            return;
        };
        let report = match ended {
            Ok((_, report)) => match before {
                Some(before) => self.work.joined_report(*before, report),
                None => report,
            },
            Err(_) => self.work.failed_report(self.work.panic_error().in_mailbox(&spec.mailbox)),
        };
        if pausing && self.work.can_go_on(&report) {
            self.queue.put_back(number);
            self.work.show(WorkEvent::Paused(&report));
            *state = MailboxState::Waiting { spec, before: Some(Box::new(report)) };
            return;
        }
        self.queue.release(number);
        self.work.show(WorkEvent::Finished(&report));
        *state = MailboxState::Ended(report);
    }

    /// The reports of all. What still runs is dropped.
    fn into_reports(self) -> Vec<W::Report> {
        let Self { work, states, mut tasks, .. } = self;
        tasks.abort_all();
        let report = |state| {
            let report = match state {
                MailboxState::Ended(report) => return report,
                // What it did before it was paused is in its checkpoint, and in this report.
                MailboxState::Waiting { before: Some(before), .. } => *before,
                MailboxState::Waiting { spec, before: None } => {
                    work.stopped_report(spec.mailbox, StoppedMailbox::Waiting)
                }
                MailboxState::Running { spec, .. } => work.stopped_report(spec.mailbox, StoppedMailbox::Running),
                MailboxState::Changing => work.failed_report(work.panic_error()),
            };
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
    use crate::{ErrorClass, api::time_window::TimeWindow, local::mailbox_queue::ServerLimit, sync::testing::spec};

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

        fn start(&mut self, spec: SyncSpec, _: CancellationToken) -> BoxFuture<'static, Result<R>> {
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
        let limit = ServerLimit { connections: Some(2), ..ServerLimit::default() };
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

    /// Work by a simulated clock: each mailbox works for `takes`, and goes on where it was when it was stopped.
    struct WindowedWork {
        began: tokio::time::Instant,
        takes: Duration,
        events: Vec<String>,
    }

    impl WindowedWork {
        fn clock(&self) -> Timestamp {
            let elapsed = jiff::SignedDuration::try_from(self.began.elapsed()).unwrap();
            "2026-01-16T21:00:00Z".parse::<Timestamp>().unwrap() + elapsed
        }

        fn tell(&mut self, what: &str) {
            let clock = self.clock().strftime("%dth %H:%M").to_string();
            self.events.push(format!("{clock} {what}"));
        }
    }

    impl MailboxWork for WindowedWork {
        /// Whether it came to its end, and how long it worked.
        type Report = (bool, Duration);

        fn tick_interval(&self) -> Duration {
            Duration::from_mins(1)
        }

        fn window_clock(&self) -> Option<Timestamp> {
            Some(self.clock())
        }

        fn can_go_on(&self, report: &Self::Report) -> bool {
            !report.0
        }

        fn joined_report(&self, before: Self::Report, after: Self::Report) -> Self::Report {
            (after.0, before.1 + after.1)
        }

        fn start(&mut self, spec: SyncSpec, stop: CancellationToken) -> BoxFuture<'static, Self::Report> {
            self.tell(&format!("{} starts", spec.mailbox));
            let (takes, began) = (self.takes, tokio::time::Instant::now());
            self.takes = Duration::from_mins(10);
            Box::pin(async move {
                tokio::select! {
                    () = tokio::time::sleep(takes) => (true, began.elapsed()),
                    () = stop.cancelled() => (false, began.elapsed()),
                }
            })
        }

        fn failed_report(&self, _: Error) -> Self::Report {
            (false, Duration::ZERO)
        }

        fn stopped_report(&self, _: String, _: StoppedMailbox) -> Self::Report {
            (false, Duration::ZERO)
        }

        fn show(&mut self, event: WorkEvent<'_, Self::Report>) {
            match event {
                WorkEvent::Paused(_) => self.tell("paused"),
                WorkEvent::Waiting { mailboxes, closed } => {
                    let words = format!("{mailboxes} waiting until {}", closed.opens_at.unwrap());
                    self.tell(&words);
                }
                WorkEvent::Finished(report) => self.tell(&format!("ended {}", report.0)),
                WorkEvent::Unfinished(_) => self.tell("unfinished"),
                WorkEvent::Stopping { .. } | WorkEvent::Tick => {}
            }
        }
    }

    /// From 22:00 to 23:00.
    fn nightly() -> RunLimits {
        let (from, to, time_zone) = ("22:00".to_owned(), "23:00".to_owned(), "UTC".to_owned());
        let windows = vec![vec![TimeWindow { days: Vec::new(), from, to, time_zone }]];
        let servers =
            ServerLimits::from([("old.example:993".to_owned(), ServerLimit { windows, ..ServerLimit::default() })]);
        RunLimits { parallelism: 1, servers }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_for_time_windows_stops_when_they_close_and_goes_on_the_next_night() {
        let mut elsewhere = spec("elsewhere");
        elsewhere.source.host = "third.example".to_owned();
        let began = tokio::time::Instant::now();
        let mut work = WindowedWork { began, takes: Duration::from_mins(10), events: Vec::new() };
        let mailboxes = vec![Ok(spec("alice")), Ok(elsewhere)];
        let (limits, stop) = (nightly(), StopSignal::default());
        let (states, queue, windows) = enter_mailboxes(mailboxes, &limits, &mut work);
        let (tasks, running) = (JoinSet::new(), HashMap::new());
        let mut runner = MailboxRunner { work: &mut work, states, queue, windows, tasks, running, told: None };
        runner.start_and_pause(&stop);
        // The one elsewhere goes first; what alice has to do takes longer than the window is open.
        runner.work.takes = Duration::from_mins(90);
        runner.run(&stop).await;
        let reports = runner.into_reports();
        assert_eq!(reports[1], (true, Duration::from_mins(10)));
        assert_eq!(reports[0], (true, Duration::from_mins(70)), "both parts");
        assert_eq!(
            work.events,
            [
                "16th 21:00 elsewhere starts",
                "16th 21:10 ended true",
                "16th 21:10 1 waiting until 2026-01-16T22:00:00Z",
                "16th 22:00 alice starts",
                "16th 23:00 paused",
                "16th 23:00 1 waiting until 2026-01-17T22:00:00Z",
                "17th 22:00 alice starts",
                "17th 22:10 ended true",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_stopped_while_it_waits_tells_what_was_done_before() {
        let began = tokio::time::Instant::now();
        let mut work = WindowedWork { began, takes: Duration::from_mins(90), events: Vec::new() };
        let stop = StopSignal::default();
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_hours(5)).await;
            asked.gently.cancel();
        });
        let reports = run_mailboxes(vec![Ok(spec("alice"))], &nightly(), &stop, &mut work).await;
        assert_eq!(reports, [(false, Duration::from_hours(1))]);
        assert_eq!(work.events.last().map(String::as_str), Some("17th 02:00 unfinished"));
    }
}
