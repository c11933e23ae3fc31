//! `mailferry check`: what would keep a migration from ending well, told before it starts.

use std::{sync::Arc, time::Instant};

use clap::Args;
use futures::future::BoxFuture;
use indicatif::MultiProgress;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    migration_args::MigrationArgs,
    shared_args::{ExecutionArgs, StateArgs},
};
use crate::{
    error::{Error, ErrorClass, Result},
    forecast::{KnownRates, WorkLeft, forecast_text, time_left},
    local::{
        check::{
            self, CheckWarning, MailboxCheck, WarningTopic, assess_mailbox, gravest_class, inspect_account, work_ahead,
        },
        mailbox_queue::{ServerLimits, rates_within_limits},
        progress_board::ProgressBoard,
        read_only_run::{MailboxReader, ReadOnlyRun},
        state_folder::{CheckpointFile, StateFolder},
        window_watch::{ServerWindows, never_open, windows_of_servers},
    },
    sync::{progress::SyncProgress, spec::SyncSpec},
};

/// Connect to both sides of every mailbox, log in, and show what a run would find. Changes nothing.
///
/// For each side: TLS and certificate, how the login is done, what the server offers and what it costs that something is
/// missing, folders, messages, bytes and quota; then where each folder would go. Warnings need a person's eye; problems
/// would keep a run from ending well.
///
/// Mailferry creates no accounts: every mailbox must exist at the destination before a run.
///
/// Exits with 0 when there are no problems, else with the code of the gravest one's class (see `mailferry --help`).
#[derive(Debug, Clone, Args)]
#[command(mut_arg("parallelism", |arg| arg.help("How many mailboxes to check at once [default: spec.parallelism of the migration]")), mut_arg("output", |arg| arg.help("What to show: findings for people, or JSON lines (`checked` for each mailbox, `summary` at the end)")))]
pub struct CheckArgs {
    #[command(flatten)]
    pub migration: MigrationArgs,

    #[command(flatten)]
    pub state: StateArgs,

    #[command(flatten)]
    pub execution: ExecutionArgs,
}

#[derive(Serialize, schemars::JsonSchema)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum CheckEvent<'a> {
    /// What was found about a mailbox.
    Checked {
        /// The findings.
        #[serde(flatten)]
        check: &'a MailboxCheck,
    },
    /// The last line.
    Summary {
        /// How many mailboxes there are.
        mailboxes: usize,
        /// How many of them have no problem.
        ready: usize,
        /// How many have one.
        with_problems: usize,
        /// The whole check.
        duration_ms: u64,
        /// The exit code of the program.
        exit_code: u8,
        /// What a run would copy, and how long that takes.
        forecast: CheckForecast,
        /// When servers let syncs run; a check goes by no windows.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        windows: &'a [ServerWindows],
    },
}

#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckForecast {
    /// All of it, for people.
    text: String,
    /// Messages to copy; null: unknown.
    messages: Option<u64>,
    /// Their bytes; null: unknown.
    bytes: Option<u64>,
    /// How long it takes at least; absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
}

impl CheckForecast {
    fn new(work: &WorkLeft, rates: &KnownRates) -> Self {
        let time = time_left(work, rates);
        let (text, seconds) = (forecast_text(work, &time), time.seconds());
        Self { text, messages: work.messages, bytes: work.bytes, seconds }
    }
}

impl CheckArgs {
    /// Checks the migration; returns the exit code. `screen` is where progress is drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: manifests that cannot be read, no mailbox of that name.
    pub async fn run(&self, screen: MultiProgress) -> Result<u8> {
        let mut migration = self.migration.load()?;
        migration.use_one_connection();
        migration.grants.keep_in(self.state.state.as_deref());
        let state = StateFolder::read_only(&self.state.folder(&migration.name)?);
        let reader = MailboxChecker { state, servers: migration.servers.clone() };
        let rates = rates_within_limits(&migration.servers);
        let windows = windows_of_servers(&migration.servers, Timestamp::now());
        let limits = self.execution.limits(migration.parallelism, migration.servers);
        let began = Instant::now();
        let run = ReadOnlyRun { limits, style: self.execution.style(), layout: self.execution.layout(), screen };
        let checks = run.read_all(migration.mailboxes, &reader).await;
        migration.tokens.settle().await;

        let exit_code = gravest_class(&checks).map_or(0, ErrorClass::exit_code);
        let ready = checks.iter().filter(|check| check.problems.is_empty()).count();
        let summary = CheckEvent::Summary {
            mailboxes: checks.len(),
            ready,
            with_problems: checks.len() - ready,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            exit_code,
            forecast: CheckForecast::new(&work_ahead(&checks), &rates),
            windows: &windows,
        };
        run.write_end(summary, |layout| {
            check::report(&checks, (Timestamp::now(), began.elapsed()), (&rates, &windows), layout)
        });
        Ok(exit_code)
    }
}

/// Checks mailboxes by the folder names in their checkpoints.
struct MailboxChecker {
    state: StateFolder,
    servers: ServerLimits,
}

impl MailboxReader for MailboxChecker {
    type Report = MailboxCheck;

    fn read(&self, spec: SyncSpec, _: Arc<SyncProgress>) -> BoxFuture<'static, MailboxCheck> {
        let state = self.state.checkpoint_file(&spec);
        let never = never_open(&spec, &self.servers, Timestamp::now());
        Box::pin(async move {
            let mut check = check_mailbox(&spec, &state).await;
            check.problems.extend(never);
            check
        })
    }

    fn failed_report(&self, error: Error) -> MailboxCheck {
        let mailbox = error.mailbox.clone().unwrap_or_default();
        MailboxCheck { mailbox, problems: vec![error], ..MailboxCheck::default() }
    }

    fn mailbox<'a>(&self, check: &'a MailboxCheck) -> &'a str {
        &check.mailbox
    }

    fn progress_line(&self, board: &ProgressBoard) -> String {
        format!("{}/{} mailboxes checked", board.finished, board.mailboxes)
    }

    fn end_line(&self, _: &MailboxCheck) -> Option<String> {
        None
    }

    fn is_failed(&self, check: &MailboxCheck) -> bool {
        !check.problems.is_empty()
    }

    fn end_event<'a>(&self, check: &'a MailboxCheck) -> impl Serialize + use<'a> {
        CheckEvent::Checked { check }
    }
}

async fn check_mailbox(spec: &SyncSpec, state: &CheckpointFile) -> MailboxCheck {
    let (frozen, note) = state.folder_mapping();
    let (source, destination) = tokio::join!(inspect_account(&spec.source), inspect_account(&spec.destination));
    let mut check = assess_mailbox(spec, source, destination, &frozen, Timestamp::now());
    check.warnings.extend(note.map(|what| CheckWarning { topic: WarningTopic::Checkpoint, side: None, what }));
    check
}
