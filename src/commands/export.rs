//! `mailferry export`: messages that could not be copied, as files.

use std::{path::PathBuf, sync::Arc, time::Instant};

use clap::Args;
use futures::future::BoxFuture;
use indicatif::MultiProgress;
use serde::Serialize;

use super::{
    checkpoint,
    migration_args::MigrationArgs,
    shared_args::{ExecutionArgs, StateArgs},
};
use crate::{
    error::{Error, Result},
    local::{
        export::{self, ExportReport, export_mailbox},
        progress_board::ProgressBoard,
        read_only_run::{MailboxReader, ReadOnlyRun},
        state_folder::StateFolder,
    },
    sync::{
        checkpoint::{Checkpoint, fingerprint},
        progress::SyncProgress,
        spec::SyncSpec,
    },
};

/// Write the messages that stand as not copied to files, to go on with them by hand.
///
/// What was set aside stands in the checkpoints: messages that the destination refuses, that are too large for it, or that
/// the source did not deliver. Each is read from the source, which is not changed, not even \Seen, and written to
/// DIR/MAILBOX/FOLDER/UIDVALIDITY-UID.eml, for its owner only. DIR/MAILBOX/index.jsonl has a line of JSON for each: folder,
/// UID, size, date, why it was not copied, and its file, or why there is none. A file that is there is never overwritten.
///
/// Messages of folders that Mailferry leaves out by itself are not among them: no run looked at those.
///
/// Exits with 0 when all were written, else with the code of the gravest error (see `mailferry --help`), else with 3 when
/// some could not be read.
#[derive(Debug, Clone, Args)]
#[command(mut_arg("state", |arg| arg.help("Where a run keeps its checkpoints [default: mailferry/MIGRATION in the user's state home, ~/.local/state; or .mailferry/MIGRATION in the current folder, if that is there]. Only read")), mut_arg("parallelism", |arg| arg.help("How many mailboxes to read at once [default: spec.parallelism of the migration]")), mut_arg("output", |arg| arg.help("What to show: text for people, or JSON lines (`exported` for each mailbox, `summary` at the end)")))]
pub struct ExportArgs {
    #[command(flatten)]
    pub migration: MigrationArgs,

    /// Where the messages go. It is made where it is missing.
    #[arg(long, value_name = "DIR", required = true)]
    pub not_copied: PathBuf,

    #[command(flatten)]
    pub state: StateArgs,

    /// The checkpoint of one mailbox from elsewhere, as `mailferry checkpoint` reads it; `-` reads stdin:
    /// `kubectl get mailboxsync NAME -o jsonpath='{.status.worker.checkpoint}'`.
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    pub checkpoint: Option<PathBuf>,

    #[command(flatten)]
    pub execution: ExecutionArgs,
}

#[derive(Serialize, schemars::JsonSchema)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum ExportEvent<'a> {
    /// What was written of a mailbox.
    Exported {
        /// What was written, and what could not be read.
        #[serde(flatten)]
        report: &'a ExportReport,
    },
    /// The last line.
    Summary {
        /// How many mailboxes there are.
        mailboxes: usize,
        /// Messages that were written.
        written: u64,
        /// Messages that could not be read.
        unreadable: u64,
        /// How many mailboxes failed.
        failed: usize,
        /// The whole export.
        duration_ms: u64,
        /// The exit code of the program.
        exit_code: u8,
    },
}

/// Where checkpoints come from.
enum CheckpointSource {
    State(StateFolder),
    /// The one of the only mailbox.
    Given(Checkpoint),
}

impl ExportArgs {
    /// Exports from the migration; returns the exit code. `screen` is where progress is drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: manifests or a checkpoint that cannot be read, no mailbox of that name.
    pub async fn run(&self, screen: MultiProgress) -> Result<u8> {
        let mut migration = self.migration.load()?;
        migration.use_one_connection();
        migration.grants.keep_in(self.state.state.as_deref());
        let checkpoints = Arc::new(match &self.checkpoint {
            Some(_) if migration.mailboxes.len() != 1 => {
                return Err(Error::configuration("--checkpoint is for one mailbox, and the migration has more")
                    .advice("Name the mailbox by --mailbox"));
            }
            Some(file) => CheckpointSource::Given(checkpoint::read(file)?),
            None => CheckpointSource::State(StateFolder::read_only(&self.state.folder(&migration.name)?)),
        });
        let reader = MailboxExporter { checkpoints, dir: Arc::new(self.not_copied.clone()) };
        let limits = self.execution.limits(migration.parallelism, migration.servers);
        let began = Instant::now();
        let run = ReadOnlyRun { limits, style: self.execution.style(), layout: self.execution.layout(), screen };
        let reports = run.read_all(migration.mailboxes, &reader).await;
        migration.tokens.settle().await;

        let exit_code = export::exit_code(&reports);
        let summary = ExportEvent::Summary {
            mailboxes: reports.len(),
            written: reports.iter().map(|report| report.written).sum(),
            unreadable: reports.iter().map(|report| report.unreadable).sum(),
            failed: reports.iter().filter(|report| !report.errors.is_empty()).count(),
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            exit_code,
        };
        run.write_end(summary, |layout| export::text(&reports, began.elapsed(), layout));
        Ok(exit_code)
    }
}

/// Writes what the checkpoints say is not copied below a folder.
struct MailboxExporter {
    checkpoints: Arc<CheckpointSource>,
    dir: Arc<PathBuf>,
}

impl MailboxReader for MailboxExporter {
    type Report = ExportReport;

    fn read(&self, spec: SyncSpec, progress: Arc<SyncProgress>) -> BoxFuture<'static, ExportReport> {
        let (checkpoints, dir) = (Arc::clone(&self.checkpoints), Arc::clone(&self.dir));
        Box::pin(async move {
            match checkpoints.checkpoint(&spec) {
                Ok(checkpoint) => export_mailbox(&spec, &checkpoint, &dir, &progress).await,
                Err(error) => ExportReport::failed(spec.mailbox.clone(), error.in_mailbox(&spec.mailbox)),
            }
        })
    }

    fn failed_report(&self, error: Error) -> ExportReport {
        ExportReport::failed(error.mailbox.clone().unwrap_or_default(), error)
    }

    fn mailbox<'a>(&self, report: &'a ExportReport) -> &'a str {
        &report.mailbox
    }

    fn progress_line(&self, board: &ProgressBoard) -> String {
        format!("{}/{} exported, {}", board.finished, board.mailboxes, board.total().line())
    }

    fn end_line(&self, report: &ExportReport) -> Option<String> {
        Some(export::line(report))
    }

    fn is_failed(&self, report: &ExportReport) -> bool {
        !report.errors.is_empty()
    }

    fn end_event<'a>(&self, report: &'a ExportReport) -> impl Serialize + use<'a> {
        ExportEvent::Exported { report }
    }
}

impl CheckpointSource {
    /// The checkpoint of a mailbox.
    fn checkpoint(&self, spec: &SyncSpec) -> Result<Checkpoint> {
        let checkpoint = match self {
            Self::Given(checkpoint) => checkpoint.clone(),
            Self::State(state) => {
                let state = state.checkpoint_file(spec);
                let Some(encoded) = state.read_encoded()? else {
                    let what = format!("there is no checkpoint {}", state.path().display());
                    return Err(Error::configuration(what)
                        .advice("Run this mailbox first, or name the state folder of its runs by --state"));
                };
                Checkpoint::decode(&encoded)?
            }
        };
        if checkpoint.fingerprint != fingerprint(&spec.source, &spec.destination) {
            return Err(Error::configuration("the checkpoint is for other accounts than the migration names")
                .advice("Give the migration and the checkpoint that belong together"));
        }
        Ok(checkpoint)
    }
}
