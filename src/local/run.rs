//! Syncs many mailboxes, each from the checkpoint in its state file.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    account_lock::AccountLocks,
    mailbox_ending::{MailboxEnding, mailbox_ending},
    mailbox_runner::{MailboxWork, RunLimits, StopSignal, StoppedMailbox, WorkEvent, run_mailboxes},
    match_notice::{MatchNotice, NoticeSender, checkpoint_text},
    outcome::RunOutcome,
    state_folder::{CheckpointFile, RecalledCheckpoint, StateFolder},
    view::{RunEvent, RunView},
};
use crate::{
    error::{Error, GiveUpScope, Result},
    imap::permit::AlwaysPermitted,
    sync::{
        SyncContext, SyncWatcher,
        checkpoint::{Checkpoint, fingerprint},
        checkpoint_store::CheckpointStore,
        progress::{EnginePhase, SyncProgress},
        report::MailboxReport,
        spec::SyncSpec,
        sync_mailbox,
    },
};

/// Syncs one mailbox. The real one is the sync engine; tests bring their own.
pub trait MailboxEngine: Send + Sync {
    /// Runs the job to its end. When `job.stop` is cancelled it saves a checkpoint and ends soon, with
    /// [`MailboxReport::interrupted`]. A failure is in the report.
    fn sync(&self, job: LocalSyncJob) -> BoxFuture<'static, MailboxReport>;
}

/// The sync engine itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncEngine;

impl MailboxEngine for SyncEngine {
    fn sync(&self, job: LocalSyncJob) -> BoxFuture<'static, MailboxReport> {
        Box::pin(async move {
            let context = SyncContext {
                store: job.store,
                progress: job.progress,
                stop: job.stop,
                permit: Arc::new(AlwaysPermitted),
                watcher: Some(job.watcher),
            };
            sync_mailbox(&job.spec, job.checkpoint, &context).await
        })
    }
}

/// One mailbox, and everything its sync needs.
pub struct LocalSyncJob {
    /// What to do.
    pub spec: SyncSpec,
    /// What the last run left.
    pub checkpoint: Option<Checkpoint>,
    /// Where checkpoints go.
    pub store: Arc<dyn CheckpointStore>,
    /// Counters that are shown while the sync runs.
    pub progress: Arc<SyncProgress>,
    /// Cancelled when the sync should save its checkpoint and end.
    pub stop: CancellationToken,
    /// Hears what a person should know before the sync goes on.
    pub watcher: Arc<dyn SyncWatcher>,
}

/// A run over the mailboxes of a migration.
pub(crate) struct LocalRun<'a> {
    /// Where checkpoints are.
    pub state: &'a StateFolder,
    /// What keeps other runs from the destination accounts.
    pub locks: AccountLocks,
    /// What syncs a mailbox.
    pub engine: Arc<dyn MailboxEngine>,
    /// How many mailboxes at once.
    pub limits: &'a RunLimits,
    /// How the run is stopped.
    pub stop: &'a StopSignal,
}

impl LocalRun<'_> {
    /// Syncs the mailboxes. One that is wrong, fails or panics does not stop the others.
    pub(crate) async fn sync_all(&self, mailboxes: Vec<Result<SyncSpec>>, view: &mut dyn RunView) -> RunOutcome {
        let began = Instant::now();
        view.show(began, RunEvent::Begun { mailboxes: mailboxes.len() });
        let (news, heard) = mpsc::unbounded_channel();
        let mut work = SyncWork { run: self, view, progress: HashMap::new(), absent: HashMap::new(), news, heard };
        let reports = run_mailboxes(refuse_repeated_names(mailboxes), self.limits, self.stop, &mut work).await;
        let outcome = RunOutcome { reports, took: began.elapsed() };
        work.view.show(Instant::now(), RunEvent::Ended(&outcome));
        outcome
    }
}

/// Makes an error of each mailbox whose name or accounts stood before: two would write to one checkpoint.
fn refuse_repeated_names(mailboxes: Vec<Result<SyncSpec>>) -> Vec<Result<SyncSpec>> {
    let (mut names, mut accounts) = (HashSet::new(), HashSet::new());
    let mut first_only = |spec: SyncSpec| {
        if names.insert(spec.mailbox.clone()) {
            if accounts.insert(fingerprint(&spec.source, &spec.destination)) {
                return Ok(spec);
            }
            return Err(Error::configuration("another mailbox of this migration moves between the same accounts")
                .advice("Remove one of the two")
                .in_mailbox(spec.mailbox));
        }
        Err(Error::configuration("another mailbox of this migration has the same name")
            .advice("Give each mailbox a name of its own: reports name it by that")
            .in_mailbox(spec.mailbox))
    };
    mailboxes.into_iter().map(|mailbox| mailbox.and_then(&mut first_only)).collect()
}

/// Syncs each mailbox and tells a view.
struct SyncWork<'a> {
    run: &'a LocalRun<'a>,
    view: &'a mut dyn RunView,
    /// The counters of mailboxes that run, by name.
    progress: HashMap<String, Arc<SyncProgress>>,
    /// Servers where nobody is, by `host:port`: what the first mailbox finds out, the others need not.
    absent: HashMap<String, Error>,
    /// What mailboxes that run have to tell.
    news: mpsc::UnboundedSender<MatchNotice>,
    heard: mpsc::UnboundedReceiver<MatchNotice>,
}

impl MailboxWork for SyncWork<'_> {
    type Report = MailboxReport;

    fn tick_interval(&self) -> Duration {
        self.view.interval()
    }

    fn window_clock(&self) -> Option<Timestamp> {
        Some(Timestamp::now())
    }

    fn can_go_on(&self, report: &MailboxReport) -> bool {
        report.interrupted && report.gravest_error().is_none()
    }

    fn joined_report(&self, before: MailboxReport, after: MailboxReport) -> MailboxReport {
        after.joined_to(before)
    }

    fn start(&mut self, spec: SyncSpec, stop: CancellationToken) -> BoxFuture<'static, MailboxReport> {
        let progress = Arc::new(SyncProgress::default());
        self.view.show(Instant::now(), RunEvent::Started { spec: &spec, progress: &progress });
        self.progress.insert(spec.mailbox.clone(), Arc::clone(&progress));
        if let Some(error) = self.absent_server(&spec) {
            return Box::pin(std::future::ready(failed(error)));
        }
        let state = self.run.state.checkpoint_file(&spec);
        let locks = self.run.locks.clone();
        let (engine, news) = (Arc::clone(&self.run.engine), self.news.clone());
        Box::pin(async move {
            let mailbox = spec.mailbox.clone();
            match locks.lock(&spec.destination).await {
                Ok(_lock) => sync_one(engine, spec, state, progress, (stop, news)).await,
                Err(error) => failed(error.in_mailbox(mailbox)),
            }
        })
    }

    fn failed_report(&self, error: Error) -> MailboxReport {
        failed(error)
    }

    fn stopped_report(&self, mailbox: String, stopped: StoppedMailbox) -> MailboxReport {
        let note = match stopped {
            StoppedMailbox::Waiting => "stopped before this mailbox's turn came",
            StoppedMailbox::Running => "stopped at once: the next run looks for what was in doubt",
        };
        MailboxReport { mailbox, interrupted: true, notes: vec![note.to_owned()], ..MailboxReport::default() }
    }

    fn panic_error(&self) -> Error {
        Error::internal("Mailferry failed on this mailbox; its checkpoint is as it was saved last")
            .advice("Please report it with the log line that says where; another run goes on from the checkpoint")
    }

    async fn tell_news(&mut self) {
        // It holds a sender itself, so that this does not end.
        if let Some(MatchNotice { mailbox, text, summary, told }) = self.heard.recv().await {
            let summary = &summary;
            self.view.show(Instant::now(), RunEvent::Matched { mailbox: &mailbox, text: &text, summary });
            drop(told);
        }
    }

    fn show(&mut self, event: WorkEvent<'_, MailboxReport>) {
        let event = match event {
            WorkEvent::Tick => RunEvent::Tick,
            WorkEvent::Finished(report) => {
                self.note_absent_server(report);
                if let Some(progress) = self.progress.remove(&report.mailbox) {
                    let failed = matches!(mailbox_ending(report), MailboxEnding::Failed(_));
                    progress.enter_phase(if failed { EnginePhase::Failed } else { EnginePhase::Done });
                }
                RunEvent::Finished(report)
            }
            WorkEvent::Paused(report) => {
                self.progress.remove(&report.mailbox);
                RunEvent::Paused(report)
            }
            WorkEvent::Waiting { mailboxes, closed } => RunEvent::Waiting { mailboxes, closed },
            WorkEvent::Stopping { running } => RunEvent::Stopping { running },
            WorkEvent::Unfinished(report) => RunEvent::Unfinished(report),
        };
        self.view.show(Instant::now(), event);
    }
}

impl SyncWork<'_> {
    /// Remembers a server that a mailbox gave up on because nobody is there.
    fn note_absent_server(&mut self, report: &MailboxReport) {
        let given_up = report.error.iter().find(|e| e.nobody_there && e.finality == GiveUpScope::Mailbox);
        if let Some(error) = given_up
            && let Some(host) = &error.host
        {
            self.absent.entry(host.clone()).or_insert_with(|| Error { mailbox: None, ..error.clone() });
        }
    }

    /// The error of a mailbox of which another one found out that nobody is at one of its servers.
    fn absent_server(&self, spec: &SyncSpec) -> Option<Error> {
        let found = [&spec.source, &spec.destination].into_iter().find_map(|side| {
            let error = self.absent.get(&side.address())?;
            Some(Error { side: Some(side.side), ..error.clone() })
        });
        found.map(|error| error.in_mailbox(&spec.mailbox))
    }
}

/// Syncs one mailbox from what its state file holds.
async fn sync_one(
    engine: Arc<dyn MailboxEngine>,
    spec: SyncSpec,
    state: CheckpointFile,
    progress: Arc<SyncProgress>,
    (stop, news): (CancellationToken, mpsc::UnboundedSender<MatchNotice>),
) -> MailboxReport {
    let mailbox = spec.mailbox.clone();
    let reader = state.clone();
    let recalled = tokio::task::spawn_blocking(move || reader.load_checkpoint()).await;
    match recalled.unwrap_or_else(|_| Err(Error::internal("the checkpoint could not be read: its task ended early"))) {
        Ok(RecalledCheckpoint { checkpoint, note }) => {
            let checkpoint_text = checkpoint_text(state.path(), checkpoint.is_some());
            let watcher = Arc::new(NoticeSender { mailbox, checkpoint: checkpoint_text, to: news });
            let job = LocalSyncJob { spec, checkpoint, store: Arc::new(state), progress, stop, watcher };
            let mut report = engine.sync(job).await;
            report.notes.extend(note);
            report
        }
        Err(error) => failed(error.in_mailbox(mailbox)),
    }
}

/// The report of a mailbox that could not be synced at all.
fn failed(error: Error) -> MailboxReport {
    MailboxReport { mailbox: error.mailbox.clone().unwrap_or_default(), error: Some(error), ..MailboxReport::default() }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        time::Duration,
    };

    use futures::FutureExt as _;
    use tokio::sync::Barrier;

    use super::*;
    use crate::{
        error::ErrorClass,
        local::{
            mailbox_queue::{ServerLimit, ServerLimits},
            outcome::{EXIT_INTERRUPTED, EXIT_NOT_COPIED},
        },
        sync::{report::NotCopiedReport, testing::spec},
    };

    /// An engine made of a closure.
    struct FakeEngine<F>(F);

    impl<F, R> MailboxEngine for FakeEngine<F>
    where
        F: Fn(LocalSyncJob) -> R + Send + Sync,
        R: Future<Output = MailboxReport> + Send + 'static,
    {
        fn sync(&self, job: LocalSyncJob) -> BoxFuture<'static, MailboxReport> {
            (self.0)(job).boxed()
        }
    }

    /// Notes the events of a run.
    #[derive(Default)]
    struct RecordingView(Vec<String>);

    impl RunView for RecordingView {
        fn interval(&self) -> Duration {
            Duration::from_millis(10)
        }

        fn show(&mut self, _: Instant, event: RunEvent<'_>) {
            match event {
                RunEvent::Started { spec, .. } => self.0.push(format!("started {}", spec.mailbox)),
                RunEvent::Finished(report) => self.0.push(format!("finished {}", report.mailbox)),
                RunEvent::Stopping { running } => self.0.push(format!("stopping {running}")),
                RunEvent::Unfinished(report) => self.0.push(format!("unfinished {}", report.mailbox)),
                RunEvent::Paused(report) => self.0.push(format!("paused {}", report.mailbox)),
                RunEvent::Waiting { mailboxes, .. } => self.0.push(format!("waiting {mailboxes}")),
                RunEvent::Begun { .. } | RunEvent::Tick | RunEvent::Ended(_) | RunEvent::Matched { .. } => {}
            }
        }
    }

    fn done(mailbox: &str) -> MailboxReport {
        MailboxReport { mailbox: mailbox.to_owned(), ..MailboxReport::default() }
    }

    fn specs(names: &[&str]) -> Vec<Result<SyncSpec>> {
        names.iter().map(|name| Ok(spec(name))).collect()
    }

    fn limits(parallelism: usize) -> RunLimits {
        RunLimits { parallelism, servers: ServerLimits::new() }
    }

    /// Gives the outcome and the events.
    async fn sync_all(
        mailboxes: Vec<Result<SyncSpec>>,
        state: &StateFolder,
        engine: impl MailboxEngine + 'static,
        limits: &RunLimits,
        stop: &StopSignal,
    ) -> (RunOutcome, Vec<String>) {
        let mut view = RecordingView::default();
        let run = LocalRun { state, locks: AccountLocks::none(), engine: Arc::new(engine), limits, stop };
        (run.sync_all(mailboxes, &mut view).await, view.0)
    }

    async fn run_with<F, R>(
        mailboxes: Vec<Result<SyncSpec>>,
        limits: &RunLimits,
        stop: &StopSignal,
        engine: F,
    ) -> (RunOutcome, Vec<String>)
    where
        F: Fn(LocalSyncJob) -> R + Send + Sync + 'static,
        R: Future<Output = MailboxReport> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        sync_all(mailboxes, &state, FakeEngine(engine), limits, stop).await
    }

    #[tokio::test]
    async fn every_mailbox_runs_and_reports_come_in_the_order_of_the_manifests() {
        let names = ["d", "a", "c", "b"];
        let (outcome, _) =
            run_with(specs(&names), &limits(2), &StopSignal::default(), |job| async move { done(&job.spec.mailbox) })
                .await;
        assert_eq!(outcome.reports.iter().map(|r| r.mailbox.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(outcome.exit_code(), 0);
    }

    #[tokio::test]
    async fn exactly_as_many_mailboxes_run_at_once_as_allowed() {
        // The barrier opens only when two run together; a third would be counted.
        let barrier = Arc::new(Barrier::new(2));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let highest = Arc::clone(&most);
        let engine = move |job: LocalSyncJob| {
            let (barrier, now, most) = (Arc::clone(&barrier), Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                barrier.wait().await;
                now.fetch_sub(1, SeqCst);
                done(&job.spec.mailbox)
            }
        };
        run_with(specs(&["a", "b", "c", "d", "e", "f"]), &limits(2), &StopSignal::default(), engine).await;
        assert_eq!(highest.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn a_servers_limit_holds_over_all_mailboxes() {
        let most = Arc::new(AtomicUsize::new(0));
        let (now, highest) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most));
        let engine = move |job: LocalSyncJob| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(job.spec.connections, SeqCst) + job.spec.connections, SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(job.spec.connections, SeqCst);
                done(&job.spec.mailbox)
            }
        };
        let nine = ServerLimit { connections: Some(9), starts_per_minute: None, ..ServerLimit::default() };
        let limits = RunLimits { parallelism: 8, servers: ServerLimits::from([("old.example:993".into(), nine)]) };
        let (outcome, _) = run_with(specs(&["a", "b", "c", "d", "e"]), &limits, &StopSignal::default(), engine).await;
        assert_eq!((outcome.exit_code(), highest.load(SeqCst)), (0, 8), "two mailboxes with four connections each");
    }

    #[tokio::test]
    async fn a_wrong_a_failed_and_a_panicking_mailbox_do_not_stop_the_others() {
        let mut mailboxes = specs(&["panics", "fails", "works", "works"]);
        mailboxes.insert(0, Err(Error::configuration("no Secret acme").in_mailbox("wrong")));
        let engine = |job: LocalSyncJob| async move {
            match job.spec.mailbox.as_str() {
                "panics" => panic!("with mail in its text"),
                "fails" => failed(Error::network("connection refused").in_mailbox("fails")),
                name => done(name),
            }
        };
        let (outcome, _) = run_with(mailboxes, &limits(1), &StopSignal::default(), engine).await;
        let endings: Vec<_> = outcome.reports.iter().map(|r| (r.mailbox.as_str(), mailbox_ending(r))).collect();
        let expected = [
            ("wrong", MailboxEnding::Failed(ErrorClass::Configuration)),
            ("panics", MailboxEnding::Failed(ErrorClass::Internal)),
            ("fails", MailboxEnding::Failed(ErrorClass::Network)),
            ("works", MailboxEnding::Done),
            ("works", MailboxEnding::Failed(ErrorClass::Configuration)), // the same name again: one checkpoint, two writers
        ];
        assert_eq!(endings, expected);
        assert!(!format!("{:?}", outcome.reports).contains("with mail in its text"));
        assert_eq!(outcome.exit_code(), 70, "the gravest class decides");
    }

    fn lacking(mailbox: &str, messages: u64) -> MailboxReport {
        let mut not_copied = NotCopiedReport::default();
        not_copied.add("refused", messages, false);
        not_copied.add("tooLarge", 7, true);
        MailboxReport { not_copied: Some(not_copied), ..done(mailbox) }
    }

    #[test]
    fn a_run_ends_well_only_when_nothing_is_missing_but_what_the_user_accepts() {
        let failed = |class| failed(Error::new(class, "no").in_mailbox("f"));
        let interrupted = || MailboxReport { interrupted: true, ..lacking("i", 1) };
        let code = |reports| RunOutcome { reports, took: Duration::ZERO }.exit_code();
        assert_eq!(code(vec![done("a"), lacking("b", 0)]), 0);
        assert_eq!(code(vec![done("a"), lacking("b", 1)]), EXIT_NOT_COPIED);
        assert_eq!(code(vec![lacking("b", 1), interrupted()]), EXIT_INTERRUPTED);
        let network = || failed(ErrorClass::Network);
        assert_eq!(code(vec![interrupted(), network(), lacking("b", 1)]), ErrorClass::Network.exit_code());
        assert_eq!(code(vec![network(), failed(ErrorClass::Quota)]), ErrorClass::Quota.exit_code());
        assert_eq!(code(vec![MailboxReport { dry_run: true, ..lacking("b", 1) }]), 0, "a dry run only foretells");
    }

    /// A checkpoint of this mailbox that holds a mark.
    fn marked(mailbox: &str, mark: &str) -> Checkpoint {
        let spec = spec(mailbox);
        let mapping = BTreeMap::from([(b"INBOX".to_vec(), mark.as_bytes().to_vec())]);
        Checkpoint { fingerprint: fingerprint(&spec.source, &spec.destination), mapping, ..Checkpoint::default() }
    }

    #[tokio::test]
    async fn each_mailbox_gets_its_own_checkpoint_back_and_says_when_there_is_none_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let run_once = async |mailboxes| {
            let state = StateFolder::open(dir.path()).unwrap();
            let seen = Arc::clone(&seen);
            let engine = FakeEngine(move |job: LocalSyncJob| {
                seen.lock().unwrap().push((job.spec.mailbox.clone(), job.checkpoint.clone()));
                async move {
                    let name = job.spec.mailbox;
                    job.store.save(&marked(&name, &name)).await.unwrap();
                    done(&name)
                }
            });
            sync_all(mailboxes, &state, engine, &limits(1), &StopSignal::default()).await.0
        };
        let mut moved = spec("a");
        moved.source.host = "other.example".into();
        run_once(specs(&["a", "b"])).await;
        let second = run_once(specs(&["a", "b"])).await;
        let third = run_once(vec![Ok(moved)]).await;
        let of = |name: &str, checkpoint| (name.to_owned(), checkpoint);
        let marked = |name| Some(marked(name, name));
        let expected = [of("a", None), of("b", None), of("a", marked("a")), of("b", marked("b")), of("a", None)];
        assert_eq!(*seen.lock().unwrap(), expected);
        assert!(second.reports.iter().all(|report| report.notes.is_empty()));
        assert!(third.reports[0].notes[0].contains("other accounts"), "{:?}", third.reports[0].notes);
    }

    #[tokio::test]
    async fn a_gentle_stop_lets_running_mailboxes_flush_and_starts_no_other() {
        let stop = StopSignal::default();
        let gently = stop.gently.clone();
        let engine = move |job: LocalSyncJob| {
            gently.cancel();
            async move {
                job.stop.cancelled().await;
                job.store.save(&marked("flushed", "a")).await.unwrap();
                MailboxReport { interrupted: true, ..done(&job.spec.mailbox) }
            }
        };
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        let (outcome, events) = sync_all(specs(&["a", "b"]), &state, FakeEngine(engine), &limits(1), &stop).await;
        assert_eq!(
            state.checkpoint_file(&spec("a")).read_encoded().unwrap(),
            Some(marked("flushed", "a").encode().unwrap())
        );
        assert_eq!(events, ["started a", "stopping 1", "finished a", "unfinished b"]);
        assert!(outcome.reports.iter().all(|r| r.interrupted));
        assert_eq!(outcome.exit_code(), EXIT_INTERRUPTED);
    }

    #[tokio::test]
    async fn a_stop_after_the_last_mailbox_ended_is_not_an_interruption() {
        let stop = StopSignal::default();
        let gently = stop.gently.clone();
        let engine = move |job: LocalSyncJob| {
            gently.cancel();
            async move { done(&job.spec.mailbox) }
        };
        let (outcome, _) = run_with(specs(&["a"]), &limits(1), &stop, engine).await;
        assert_eq!(outcome.exit_code(), 0);
    }

    #[tokio::test]
    async fn a_stop_at_once_waits_for_nobody() {
        let stop = StopSignal::default();
        let (gently, at_once) = (stop.gently.clone(), stop.at_once.clone());
        let engine = move |_: LocalSyncJob| {
            gently.cancel();
            at_once.cancel();
            std::future::pending()
        };
        let (outcome, events) = run_with(specs(&["a", "b"]), &limits(1), &stop, engine).await;
        assert_eq!(outcome.exit_code(), EXIT_INTERRUPTED);
        assert_eq!(outcome.reports.iter().map(|r| r.mailbox.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(events, ["started a", "unfinished a", "unfinished b"]);
    }

    #[tokio::test]
    async fn where_nobody_is_only_the_first_mailbox_looks() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        let looked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&looked);
        let engine = FakeEngine(move |job: LocalSyncJob| {
            counter.fetch_add(1, SeqCst);
            async move {
                let elsewhere = job.spec.source.host == "third.example";
                let error = Error { nobody_there: true, finality: GiveUpScope::Mailbox, ..Error::network("no host") };
                let error = error.on(crate::Side::Source, job.spec.source.address()).in_mailbox(&job.spec.mailbox);
                MailboxReport { error: (!elsewhere).then_some(error), ..done(&job.spec.mailbox) }
            }
        });
        let mut mailboxes = specs(&["a", "b", "c", "d"]);
        mailboxes[3].as_mut().unwrap().source.host = "third.example".into();
        let (outcome, _) = sync_all(mailboxes, &state, engine, &limits(1), &StopSignal::default()).await;
        assert_eq!(looked.load(SeqCst), 2);
        let named: Vec<_> =
            outcome.reports.iter().map(|r| r.error.as_ref().and_then(|e| e.mailbox.as_deref())).collect();
        assert_eq!(named, [Some("a"), Some("b"), Some("c"), None]);
        assert_eq!(outcome.exit_code(), ErrorClass::Network.exit_code());
    }

    #[tokio::test]
    async fn a_checkpoint_that_cannot_be_read_fails_its_mailbox_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        std::fs::create_dir(state.checkpoint_file(&spec("a")).path()).unwrap();
        let engine = FakeEngine(|job: LocalSyncJob| async move { done(&job.spec.mailbox) });
        let (outcome, _) = sync_all(specs(&["a", "b"]), &state, engine, &limits(2), &StopSignal::default()).await;
        let endings: Vec<_> = outcome.reports.iter().map(mailbox_ending).collect();
        assert_eq!(endings, [MailboxEnding::Failed(ErrorClass::Internal), MailboxEnding::Done]);
    }
}
