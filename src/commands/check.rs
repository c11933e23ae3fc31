//! `mailferry check`: what would keep a migration from ending well, told before it starts.

use std::{
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use super::manifest_args::ManifestArgs;
use crate::{
    error::{Error, ErrorClass, Result},
    local::{
        check::{self, CheckWarning, MailboxCheck, WarningTopic, assess_mailbox, gravest_class, inspect_account},
        for_each::{TaskEvent, for_each_mailbox},
        run::RunLimits,
        state_folder::{CheckpointFile, StateFolder, default_state_folder},
        view::{OutputMode, OutputStyle, write_event},
    },
    sync::{checkpoint::fingerprint, spec::SyncSpec},
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
pub struct CheckArgs {
    #[command(flatten)]
    pub manifests: ManifestArgs,

    /// Where a run keeps its checkpoints, for the names of folders [default: .mailferry/MIGRATION in the current folder].
    /// Only read.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// How many mailboxes to check at once [default: spec.parallelism of the migration].
    #[arg(long, value_name = "N")]
    pub parallelism: Option<NonZeroUsize>,

    /// What to show: findings for people, or JSON lines (`checked` for each mailbox, `summary` at the end).
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputMode,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum CheckEvent<'a> {
    Checked {
        #[serde(flatten)]
        check: &'a MailboxCheck,
    },
    Summary {
        mailboxes: usize,
        ready: usize,
        with_problems: usize,
        duration_ms: u64,
        exit_code: u8,
    },
}

impl CheckArgs {
    /// Checks the migration; returns the exit code. `screen` is where progress is drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: manifests that cannot be read, no mailbox of that name.
    pub async fn run(&self, screen: MultiProgress) -> Result<u8> {
        let mut migration = self.manifests.load()?;
        for spec in migration.mailboxes.iter_mut().flatten() {
            spec.connections = 1;
        }
        let style = self.output.style(io::stdout().is_terminal(), io::stderr().is_terminal());
        let folder = self.state.clone().unwrap_or_else(|| default_state_folder(&migration.name));
        let state = Arc::new(StateFolder::read_only(&folder));
        let parallelism = self.parallelism.map_or(migration.parallelism, NonZeroUsize::get);
        let bounds = RunLimits { parallelism, hosts: migration.hosts };
        let began = Instant::now();
        let bar =
            if style == OutputStyle::Bars { screen.add(bar(migration.mailboxes.len())) } else { ProgressBar::hidden() };
        let task = |spec: SyncSpec| {
            let state = Arc::clone(&state);
            async move { check_mailbox(&spec, &state.checkpoint_file(&spec.mailbox)).await }
        };
        let outcomes = for_each_mailbox(migration.mailboxes, &bounds, task, |step| match step {
            TaskEvent::Tick => bar.tick(),
            TaskEvent::Ended(outcome) => {
                bar.inc(1);
                if style == OutputStyle::Json {
                    let check = outcome.as_ref().map_or_else(|error| failed(error.clone()), Clone::clone);
                    write_event(&mut io::stdout(), Timestamp::now(), CheckEvent::Checked { check: &check });
                }
            }
        })
        .await;
        bar.finish_and_clear();

        let checks: Vec<MailboxCheck> = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(failed)).collect();
        let exit_code = gravest_class(&checks).map_or(0, ErrorClass::exit_code);
        if style == OutputStyle::Json {
            let ready = checks.iter().filter(|check| check.problems.is_empty()).count();
            let what = CheckEvent::Summary {
                mailboxes: checks.len(),
                ready,
                with_problems: checks.len() - ready,
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                exit_code,
            };
            write_event(&mut io::stdout(), Timestamp::now(), what);
        } else {
            let now = Timestamp::now();
            let mut text: String = checks.iter().map(|found| check::mailbox(found, now) + "\n").collect();
            text.push_str(&check::summary(&checks, began.elapsed()));
            // A reader that has gone away does not change what was found.
            drop(io::stdout().lock().write_all(text.as_bytes()));
        }
        Ok(exit_code)
    }
}

async fn check_mailbox(spec: &SyncSpec, state: &CheckpointFile) -> MailboxCheck {
    let (frozen, note) = state.folder_mapping(&fingerprint(&spec.source, &spec.destination));
    let (source, destination) = tokio::join!(inspect_account(&spec.source), inspect_account(&spec.destination));
    let mut check = assess_mailbox(spec, source, destination, &frozen, Timestamp::now());
    check.warnings.extend(note.map(|what| CheckWarning { topic: WarningTopic::Checkpoint, side: None, what }));
    check
}

/// A mailbox that could not be looked at.
fn failed(error: Error) -> MailboxCheck {
    let mailbox = error.mailbox.clone().unwrap_or_default();
    MailboxCheck { mailbox, problems: vec![error], ..MailboxCheck::default() }
}

fn bar(mailboxes: usize) -> ProgressBar {
    // The template is a constant without a mistake in it.
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} mailboxes checked")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new(u64::try_from(mailboxes).unwrap_or(u64::MAX)).with_style(style)
}
