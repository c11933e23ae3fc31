//! The flags that `run` and `copy` share, and how they sync mailboxes.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use clap::Args;
use futures::future::select_all;
use indicatif::MultiProgress;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    manifest_args::LoadedMigration,
    run_record_args::RunRecordArgs,
    shared_args::{ExecutionArgs, StateArgs},
};
use crate::{
    error::{Error, Result},
    local::{
        account_lock::AccountLocks,
        last_run::LastRunFile,
        mailbox_runner::StopSignal,
        outcome::{EXIT_INTERRUPTED, RunOutcome},
        report_text::{ReportDetail, TextLayout},
        run::{LocalRun, MailboxEngine},
        run_report,
        state_folder::StateFolder,
        state_location::shared_state_folder,
        view::{BarView, JsonView, LineView, NoView, OutputStyle, RunView},
    },
    sync::spec::{AdoptScope, SyncSpec},
};

/// How mailboxes are synced, whatever named them.
#[derive(Debug, Clone, Args)]
#[command(mut_arg("state", |arg| arg.help("Where checkpoints are kept [default: mailferry/MIGRATION in the user's state home, ~/.local/state; or .mailferry/MIGRATION in the current folder, if that is there]. One run at a time may use it")), mut_arg("parallelism", |arg| arg.help("How many mailboxes to sync at once [default: spec.parallelism of the migration]")))]
pub struct SyncArgs {
    #[command(flatten)]
    pub state: StateArgs,

    /// Change nothing, neither at the destination nor in the state folder; report what a run would do.
    #[arg(long)]
    pub dry_run: bool,

    /// Try messages again that the destination refuses or the source does not deliver, whether it is time or not: a run
    /// by itself tries them again at the second, fourth, eighth run and so on, and after a week.
    #[arg(long)]
    pub retry_refused: bool,

    /// Delete copies although many of their folder's messages vanished from the source at once: with `deletions: Mirror`, when
    /// more than 30 % of a folder vanished, and at least four messages, the report shows a token in place of deleting
    /// anything. The token lets exactly these messages through. May be given several times.
    #[arg(long, value_name = "TOKEN", value_delimiter = ',')]
    pub confirm_deletions: Vec<String>,

    /// Where copies of a mailbox without a checkpoint are looked for at the destination. With a checkpoint nothing needs to be
    /// looked for.
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    pub adopt: AdoptMode,

    /// Only the mailboxes that failed, or were interrupted, when they were run last.
    #[arg(long)]
    pub failed_only: bool,

    #[command(flatten)]
    pub record: RunRecordArgs,

    #[command(flatten)]
    pub execution: ExecutionArgs,
}

/// Where copies are looked for without a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum AdoptMode {
    /// In each folder's own destination folder; where more than half of its messages are found there, the others also in the
    /// destination's other folders: a user may have moved them.
    #[default]
    Auto,
    /// In each folder's own destination folder only.
    Folder,
    /// In all folders of the destination mailbox, whatever was found in the own one.
    Mailbox,
    /// Nowhere: everything is copied, whatever lies there.
    None,
}

impl From<AdoptMode> for AdoptScope {
    fn from(mode: AdoptMode) -> Self {
        match mode {
            AdoptMode::Auto => Self::Auto,
            AdoptMode::Folder => Self::Folder,
            AdoptMode::Mailbox => Self::Mailbox,
            AdoptMode::None => Self::Nowhere,
        }
    }
}

impl SyncArgs {
    /// Syncs the mailboxes; returns the exit code. `screen` is where bars are drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: a state folder in use, no place for one.
    pub(super) async fn run(
        &self,
        migration: LoadedMigration,
        engine: Arc<dyn MailboxEngine>,
        screen: MultiProgress,
    ) -> Result<u8> {
        let record = self.record.open()?;
        let stop = StopSignal::default();
        let signals = tokio::spawn(handle_signals(signals()?, stop.clone()));
        let style = self.execution.style();
        let layout = self.execution.layout();
        let all = layout.detail == ReportDetail::All;
        let view: Box<dyn RunView> = match style {
            OutputStyle::Bars => Box::new(BarView::new(screen, all)),
            OutputStyle::Lines => Box::new(LineView::new(io::stderr(), all)),
            OutputStyle::Silent => Box::new(NoView),
            OutputStyle::Json => Box::new(JsonView::new(io::stdout(), Timestamp::now)),
        };
        let mut view = record.logged(view);
        let name = migration.name.clone();
        let locks = match (self.dry_run, shared_state_folder()) {
            (true, _) => AccountLocks::none(),
            (false, Some(folder)) => AccountLocks::in_folder(folder.join("accounts")),
            (false, None) => AccountLocks::in_folder(self.state.folder(&migration.name)?.join("accounts")),
        };
        let outcome = self.sync(migration, (engine, locks), &stop, view.as_mut()).await?;
        signals.abort();
        if style != OutputStyle::Json {
            // A reader that has gone away does not change how the run ended.
            drop(io::stdout().lock().write_all(final_report(&outcome, layout).as_bytes()));
        }
        record.finish(&name, &outcome).await;
        Ok(outcome.exit_code())
    }

    async fn sync(
        &self,
        migration: LoadedMigration,
        (engine, locks): (Arc<dyn MailboxEngine>, AccountLocks),
        stop: &StopSignal,
        view: &mut dyn RunView,
    ) -> Result<RunOutcome> {
        migration.grants.keep_in(self.state.state.as_deref());
        let folder = self.state.folder(&migration.name)?;
        let state = if self.dry_run { StateFolder::read_only(&folder) } else { StateFolder::open(&folder)? };
        let last_run = LastRunFile::in_folder(&folder);
        let tokens = migration.tokens;
        let mut mailboxes = self.wanted(&last_run, migration.mailboxes)?;
        for spec in mailboxes.iter_mut().flatten() {
            spec.dry_run |= self.dry_run;
            spec.retry_refused |= self.retry_refused;
            spec.adopt = self.adopt.into();
            spec.confirm_deletions.extend(self.confirm_deletions.iter().cloned());
            spec.retry.wait_for_absent = false;
        }
        let limits = self.execution.limits(migration.parallelism, migration.servers);
        let run = LocalRun { state: &state, locks, engine, limits: &limits, stop };
        let outcome = run.sync_all(mailboxes, view).await;
        tokens.settle().await;
        if !self.dry_run
            && let Err(error) = last_run.record(&outcome.reports)
        {
            tracing::warn!("{error}");
        }
        Ok(outcome)
    }

    /// With `--failed-only`, those that did not end well.
    fn wanted(&self, last_run: &LastRunFile, mailboxes: Vec<Result<SyncSpec>>) -> Result<Vec<Result<SyncSpec>>> {
        if !self.failed_only {
            return Ok(mailboxes);
        }
        let last = last_run.read()?.ok_or_else(|| {
            Error::configuration("--failed-only: nothing is known of an earlier run")
                .advice("Run all mailboxes once without it, or name the state folder of that run by --state")
        })?;
        Ok(last.select(mailboxes))
    }
}

fn final_report(outcome: &RunOutcome, layout: TextLayout) -> String {
    let report = run_report::report(outcome, layout);
    // An empty line keeps it apart from what was said before.
    if layout.detail == ReportDetail::LastLine { report } else { format!("\n{report}") }
}

/// What asks a run to stop: Ctrl-C, SIGTERM, and SIGHUP unless who started the program has it ignored (`nohup`).
fn signals() -> Result<Vec<Signal>> {
    let listen = |kind| signal(kind).map_err(|e| Error::internal(format!("cannot listen for signals: {e}")));
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // Where the system does not tell what is ignored, SIGHUP stays as it is.
    if std::fs::read_to_string("/proc/self/status").is_ok_and(|status| takes_hangups(&status)) {
        kinds.push(SignalKind::hangup());
    }
    kinds.into_iter().map(listen).collect()
}

/// By the mask of ignored signals in `/proc/self/status` (proc(5)): SIGHUP is the first bit.
fn takes_hangups(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 0)
}

/// The first signal stops gently, the second at once; a third does not wait for anything, whatever hangs.
async fn handle_signals(mut signals: Vec<Signal>, stop: StopSignal) {
    for step in [Some(&stop.gently), Some(&stop.at_once), None] {
        select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
        match step {
            Some(token) => token.cancel(),
            None => std::process::exit(EXIT_INTERRUPTED.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Mutex};

    use clap::Parser;
    use futures::{FutureExt as _, future::BoxFuture};

    use super::*;
    use crate::{
        ErrorClass,
        local::{grant_folder::GrantFolder, mailbox_queue::ServerLimits, run::LocalSyncJob},
        oauth::TokenCache,
        sync::{checkpoint::Checkpoint, report::MailboxReport, testing::spec},
    };

    #[derive(Debug, Parser)]
    struct SyncCli {
        #[command(flatten)]
        sync: SyncArgs,
    }

    /// Saves a byte as each mailbox's checkpoint and notes which were dry runs, and which try again what was refused.
    #[derive(Default)]
    struct RecordingEngine(Mutex<Vec<(String, bool, bool)>>);

    impl MailboxEngine for RecordingEngine {
        fn sync(&self, job: LocalSyncJob) -> BoxFuture<'static, MailboxReport> {
            let name = job.spec.mailbox.clone();
            self.0.lock().unwrap().push((name.clone(), job.spec.dry_run, job.spec.retry_refused));
            async move {
                job.store.save(&Checkpoint::default()).await.unwrap();
                MailboxReport { mailbox: name, dry_run: job.spec.dry_run, ..MailboxReport::default() }
            }
            .boxed()
        }
    }

    async fn run_in(state: &Path, more: &[&str]) -> (Result<RunOutcome>, Vec<(String, bool, bool)>) {
        let state = state.display().to_string();
        let line = ["test", "--state", &state];
        let args = SyncCli::try_parse_from(line.iter().chain(more)).unwrap().sync;
        let migration = LoadedMigration {
            name: "acme".into(),
            parallelism: 1,
            suspended: false,
            start_at: None,
            servers: ServerLimits::new(),
            grants: Arc::default(),
            tokens: TokenCache::new(Arc::<GrantFolder>::default()),
            mailboxes: vec![Ok(spec("alice")), Err(Error::configuration("no Secret").in_mailbox("bob"))],
        };
        let engine = Arc::new(RecordingEngine::default());
        let engine_of_run = Arc::clone(&engine) as Arc<dyn MailboxEngine>;
        let mut view = LineView::new(io::sink(), true);
        let outcome =
            args.sync(migration, (engine_of_run, AccountLocks::none()), &StopSignal::default(), &mut view).await;
        (outcome, std::mem::take(&mut engine.0.lock().unwrap()))
    }

    #[tokio::test]
    async fn a_dry_run_tells_the_engine_and_leaves_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (outcome, seen) = run_in(&state, &["--dry-run"]).await;
        assert_eq!(seen, [("alice".to_owned(), true, false)]);
        assert!(outcome.unwrap().reports[0].dry_run);
        assert!(!state.exists());
        let (_, seen) = run_in(&state, &[]).await;
        assert_eq!(seen, [("alice".to_owned(), false, false)]);
        assert!(StateFolder::read_only(&state).checkpoint_file(&spec("alice")).path().exists());
    }

    #[tokio::test]
    async fn what_was_refused_is_tried_again_when_a_person_asks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (_, seen) = run_in(folder.path(), &["--retry-refused"]).await;
        assert_eq!(seen, [("alice".to_owned(), false, true)]);
    }

    #[tokio::test]
    async fn failed_only_runs_what_did_not_end_well() {
        let folder = tempfile::tempdir().unwrap();
        let (nothing_known, seen) = run_in(folder.path(), &["--failed-only"]).await;
        assert!(nothing_known.unwrap_err().what.contains("earlier run") && seen.is_empty());
        let (_, seen) = run_in(folder.path(), &[]).await;
        assert_eq!(seen.len(), 1);
        // Of alice and bob, bob is wrong.
        let (outcome, seen) = run_in(folder.path(), &["--failed-only"]).await;
        let names: Vec<String> = outcome.unwrap().reports.into_iter().map(|report| report.mailbox).collect();
        assert_eq!((names, seen.len()), (vec!["bob".to_owned()], 0));
    }

    #[test]
    fn a_hangup_is_listened_to_unless_it_was_ignored_at_the_start() {
        assert!(takes_hangups("Name:\tmailferry\nSigIgn:\t0000000000001000\n"));
        assert!(!takes_hangups("SigIgn:\t0000000000000001\n") && !takes_hangups(""));
    }

    #[tokio::test]
    async fn a_second_run_on_one_state_starts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let holder = StateFolder::open(folder.path()).unwrap();
        let (outcome, seen) = run_in(folder.path(), &[]).await;
        assert_eq!((outcome.unwrap_err().class, seen.len()), (ErrorClass::Configuration, 0));
        drop(holder);
        assert!(run_in(folder.path(), &[]).await.0.is_ok());
    }

    #[tokio::test]
    async fn the_report_begins_with_the_problems_and_ends_with_the_sum() {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, _) = run_in(folder.path(), &[]).await;
        let outcome = outcome.unwrap();
        assert_eq!(outcome.exit_code(), ErrorClass::Configuration.exit_code());
        let text = final_report(&outcome, TextLayout::default());
        assert!(text.starts_with("\nProblems (1)\n  Configuration: no Secret (bob)\n"), "{text}");
        assert!(text.lines().last().unwrap().starts_with("2 mailboxes: 1 done, 1 failed."), "{text}");
        let quiet = final_report(&outcome, TextLayout { detail: ReportDetail::LastLine, ..TextLayout::default() });
        assert_eq!(quiet.lines().collect::<Vec<_>>(), [text.lines().last().unwrap()]);
    }
}
