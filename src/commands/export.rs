//! `mailferry export`: messages that could not be copied, as files.

use std::{
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use super::{checkpoint, manifest_args::ManifestArgs};
use crate::{
    error::{Error, Result},
    local::{
        export::{self, ExportReport, export_mailbox},
        for_each::{TaskEvent, for_each_mailbox},
        progress_board::ProgressBoard,
        run::RunLimits,
        state_folder::{StateFolder, default_state_folder},
        view::{OutputMode, OutputStyle, write_event},
    },
    sync::{
        checkpoint::{Checkpoint, fingerprint},
        progress::SyncProgress,
        report::MailboxReport,
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
pub struct ExportArgs {
    #[command(flatten)]
    pub manifests: ManifestArgs,

    /// Where the messages go. It is made where it is missing.
    #[arg(long, value_name = "DIR", required = true)]
    pub not_copied: PathBuf,

    /// Where a run keeps its checkpoints [default: .mailferry/MIGRATION in the current folder]. Only read.
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoint")]
    pub state: Option<PathBuf>,

    /// The checkpoint of one mailbox from elsewhere, as `mailferry checkpoint` reads it; `-` reads stdin:
    /// `kubectl get mailboxsync NAME -o jsonpath='{.status.worker.checkpoint}'`.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,

    /// How many mailboxes to read at once [default: spec.parallelism of the migration].
    #[arg(long, value_name = "N")]
    pub parallelism: Option<NonZeroUsize>,

    /// What to show: text for people, or JSON lines (`exported` for each mailbox, `summary` at the end).
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputMode,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum ExportEvent<'a> {
    Exported {
        #[serde(flatten)]
        report: &'a ExportReport,
    },
    Summary {
        mailboxes: usize,
        written: u64,
        unreadable: u64,
        failed: usize,
        duration_ms: u64,
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
        let mut migration = self.manifests.load()?;
        for spec in migration.mailboxes.iter_mut().flatten() {
            spec.connections = 1;
        }
        let source = Arc::new(match &self.checkpoint {
            Some(_) if migration.mailboxes.len() != 1 => {
                return Err(Error::configuration("--checkpoint is for one mailbox, and the migration has more")
                    .advice("Name the mailbox by --mailbox"));
            }
            Some(file) => CheckpointSource::Given(checkpoint::read(file)?),
            None => {
                let folder = self.state.clone().unwrap_or_else(|| default_state_folder(&migration.name));
                CheckpointSource::State(StateFolder::read_only(&folder))
            }
        });
        let style = self.output.style(io::stdout().is_terminal(), io::stderr().is_terminal());
        let parallelism = self.parallelism.map_or(migration.parallelism, NonZeroUsize::get);
        let bounds = RunLimits { parallelism, hosts: migration.hosts };
        let began = Instant::now();
        let board = Arc::new(Mutex::new(ProgressBoard::new(began, migration.mailboxes.len())));
        let bar = if style == OutputStyle::Bars { screen.add(bar()) } else { ProgressBar::hidden() };
        let dir = Arc::new(self.not_copied.clone());
        let task = |spec: SyncSpec| {
            let progress = Arc::new(SyncProgress::default());
            lock(&board).add_running(Instant::now(), &spec.mailbox, &progress);
            let (source, dir) = (Arc::clone(&source), Arc::clone(&dir));
            async move {
                match source.checkpoint(&spec) {
                    Ok(checkpoint) => export_mailbox(&spec, &checkpoint, &dir, &progress).await,
                    Err(error) => ExportReport::failed(spec.mailbox.clone(), error.in_mailbox(&spec.mailbox)),
                }
            }
        };
        let outcomes = for_each_mailbox(migration.mailboxes, &bounds, task, |step| match step {
            TaskEvent::Tick => {
                let mut board = lock(&board);
                board.observe(Instant::now());
                bar.set_message(format!("{}/{} exported, {}", board.finished, board.mailboxes, board.total().line()));
                bar.tick();
            }
            TaskEvent::Ended(outcome) => {
                let report = outcome.as_ref().map_or_else(|error| failed(error.clone()), Clone::clone);
                lock(&board)
                    .record_finished(&MailboxReport { mailbox: report.mailbox.clone(), ..MailboxReport::default() });
                match style {
                    OutputStyle::Json => {
                        write_event(&mut io::stdout(), Timestamp::now(), ExportEvent::Exported { report: &report });
                    }
                    OutputStyle::Bars => drop(screen.println(export::line(&report))),
                    OutputStyle::Lines => drop(writeln!(io::stderr(), "{}", export::line(&report))),
                }
            }
        })
        .await;
        bar.finish_and_clear();

        let reports: Vec<ExportReport> = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(failed)).collect();
        let exit_code = export::exit_code(&reports);
        if style == OutputStyle::Json {
            let what = ExportEvent::Summary {
                mailboxes: reports.len(),
                written: reports.iter().map(|report| report.written).sum(),
                unreadable: reports.iter().map(|report| report.unreadable).sum(),
                failed: reports.iter().filter(|report| !report.errors.is_empty()).count(),
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                exit_code,
            };
            write_event(&mut io::stdout(), Timestamp::now(), what);
        } else {
            // A reader that has gone away does not change what was written.
            drop(io::stdout().lock().write_all(export::text(&reports, began.elapsed()).as_bytes()));
        }
        Ok(exit_code)
    }
}

impl CheckpointSource {
    /// The checkpoint of a mailbox.
    fn checkpoint(&self, spec: &SyncSpec) -> Result<Checkpoint> {
        let checkpoint = match self {
            Self::Given(checkpoint) => checkpoint.clone(),
            Self::State(state) => {
                let state = state.checkpoint_file(&spec.mailbox);
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

/// A mailbox that could not be read.
fn failed(error: Error) -> ExportReport {
    ExportReport::failed(error.mailbox.clone().unwrap_or_default(), error)
}

fn lock(board: &Mutex<ProgressBoard>) -> std::sync::MutexGuard<'_, ProgressBoard> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bar() -> ProgressBar {
    // The template is a constant without a mistake in it.
    let style =
        ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::no_length().with_style(style)
}
