//! The flags that `run` and `copy` share, and how they sync mailboxes.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use clap::Args;
use indicatif::MultiProgress;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    manifest_args::LoadedMigration,
    shared_args::{ExecutionArgs, StateArgs},
};
use crate::{
    error::{Error, Result},
    local::{
        account_lock::AccountLocks,
        mailbox_runner::StopSignal,
        outcome::{EXIT_INTERRUPTED, RunOutcome},
        report_text::join_reports,
        run::{LocalRun, MailboxEngine},
        run_report,
        state_folder::StateFolder,
        state_location::shared_state_folder,
        view::{BarView, JsonView, LineView, OutputStyle, RunView},
    },
    sync::spec::AdoptScope,
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
        let stop = StopSignal::default();
        let signals = tokio::spawn(handle_signals(signals()?, stop.clone()));
        let style = self.execution.style();
        let mut view: Box<dyn RunView> = match style {
            OutputStyle::Bars => Box::new(BarView::new(screen)),
            OutputStyle::Lines => Box::new(LineView::new(io::stderr())),
            OutputStyle::Json => Box::new(JsonView::new(io::stdout(), Timestamp::now)),
        };
        let locks = match (self.dry_run, shared_state_folder()) {
            (true, _) => AccountLocks::none(),
            (false, Some(folder)) => AccountLocks::in_folder(folder.join("accounts")),
            (false, None) => AccountLocks::in_folder(self.state.folder(&migration.name)?.join("accounts")),
        };
        let outcome = self.sync(migration, (engine, locks), &stop, view.as_mut()).await?;
        signals.abort();
        if style != OutputStyle::Json {
            // A reader that has gone away does not change how the run ended.
            drop(io::stdout().lock().write_all(final_report(&outcome).as_bytes()));
        }
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
        let (mut mailboxes, tokens) = (migration.mailboxes, migration.tokens);
        for spec in mailboxes.iter_mut().flatten() {
            spec.dry_run |= self.dry_run;
            spec.retry_refused |= self.retry_refused;
            spec.adopt = self.adopt.into();
            spec.confirm_deletions.extend(self.confirm_deletions.iter().cloned());
        }
        let limits = self.execution.limits(migration.parallelism, migration.servers);
        let run = LocalRun { state: &state, locks, engine, limits: &limits, stop };
        let outcome = run.sync_all(mailboxes, view).await;
        tokens.settle().await;
        Ok(outcome)
    }
}

fn final_report(outcome: &RunOutcome) -> String {
    let mailboxes = outcome.reports.iter().map(run_report::mailbox);
    let summary = run_report::summary(&outcome.reports, outcome.took);
    // An empty line keeps it apart from what was said before.
    format!("\n{}", join_reports(mailboxes, &summary))
}

fn signals() -> Result<[Signal; 2]> {
    let listen = |kind| signal(kind).map_err(|e| Error::internal(format!("cannot listen for signals: {e}")));
    Ok([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?])
}

/// The first signal stops gently, the second at once; a third does not wait for anything, whatever hangs.
async fn handle_signals([mut interrupt, mut terminate]: [Signal; 2], stop: StopSignal) {
    for step in [Some(&stop.gently), Some(&stop.at_once), None] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
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
        let mut view = LineView::new(io::sink());
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
    async fn a_second_run_on_one_state_starts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let holder = StateFolder::open(folder.path()).unwrap();
        let (outcome, seen) = run_in(folder.path(), &[]).await;
        assert_eq!((outcome.unwrap_err().class, seen.len()), (ErrorClass::Configuration, 0));
        drop(holder);
        assert!(run_in(folder.path(), &[]).await.0.is_ok());
    }

    #[tokio::test]
    async fn the_final_report_shows_every_mailbox_and_the_failures_last() {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, _) = run_in(folder.path(), &[]).await;
        let outcome = outcome.unwrap();
        assert_eq!(outcome.exit_code(), ErrorClass::Configuration.exit_code());
        let text = final_report(&outcome);
        let [alice, bob, again] = ["alice: done", "bob: failed", "  bob: failed: Configuration: no Secret"]
            .map(|part| text.rfind(part).unwrap_or_else(|| panic!("{part} is missing in {text}")));
        assert!(alice < bob && alice < again, "{text}");
        assert!(text.ends_with("bob: failed: Configuration: no Secret\n"), "{text}");
    }
}
