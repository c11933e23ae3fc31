//! `mailferry verify`: compare both sides of every mailbox, message by message.

use std::{
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::manifest_args::ManifestArgs;
use crate::{
    error::{Error, Result},
    local::{
        for_each::{TaskEvent, for_each_mailbox},
        progress_board::ProgressBoard,
        run::RunLimits,
        state_folder::{StateFolder, default_state_folder},
        verify_report::{self, VerifyVerdict},
        view::{OutputMode, OutputStyle, write_event},
    },
    sync::{
        checkpoint::fingerprint,
        progress::SyncProgress,
        report::MailboxReport,
        spec::SyncSpec,
        verify::{VerifyContext, VerifyReport, VerifyStrictness, verify_mailbox},
    },
};

/// Compare both sides of every mailbox: folders, and per folder each message's bytes, flags and date.
///
/// Every message of both sides is read once and compared by SHA-256, flags and keywords, and INTERNALDATE; nothing is
/// changed on either side, not even \Seen. It does not ask what a run believes to have copied: a checkpoint only tells which
/// destination folder belongs to which source folder (without one, the same rules decide afresh).
///
/// What the migration's rules leave out is not expected at the destination. Mail and folders that only the destination
/// has (new mail may arrive there already), and subscriptions that it lacks, are shown; they are differences with
/// `--strict` only. The order of messages is not compared.
///
/// Exits with 0 when all mailboxes are identical, with 1 when there are differences, and else with the code of what kept it
/// from comparing (see `mailferry --help`).
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub manifests: ManifestArgs,

    /// Where a run keeps its checkpoints, for the names of folders [default: .mailferry/MIGRATION in the current folder].
    /// Only read.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Count as differences, too: messages and folders that only the destination has, and missing subscriptions.
    #[arg(long)]
    pub strict: bool,

    /// Accept messages that the destination stored with other bytes, where the difference is one that servers are known
    /// to make (NUL bytes, CR CR LF, a missing last line end, 8-bit headers). They are still counted.
    #[arg(long)]
    pub allow_rewritten: bool,

    /// List at most this many single messages per folder; the counts are always complete.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub list: usize,

    /// How many mailboxes to compare at once [default: spec.parallelism of the migration].
    #[arg(long, value_name = "N")]
    pub parallelism: Option<NonZeroUsize>,

    /// What to show: a report for people, or JSON lines (`verified` for each mailbox, `summary` at the end).
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputMode,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum VerifyEvent<'a> {
    Verified { mailbox: &'a str, verdict: &'static str, report: &'a VerifyReport },
    Summary { mailboxes: usize, identical: usize, differing: usize, failed: usize, duration_ms: u64, exit_code: u8 },
}

impl VerifyArgs {
    /// Verifies the migration; returns the exit code. `screen` is where progress is drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: manifests that cannot be read, no mailbox of that name.
    pub async fn run(&self, screen: MultiProgress) -> Result<u8> {
        let migration = self.manifests.load()?;
        let strictness = VerifyStrictness { strict: self.strict, allow_rewritten: self.allow_rewritten };
        let style = self.output.style(io::stdout().is_terminal(), io::stderr().is_terminal());
        let folder = self.state.clone().unwrap_or_else(|| default_state_folder(&migration.name));
        let state = Arc::new(StateFolder::read_only(&folder));
        let parallelism = self.parallelism.map_or(migration.parallelism, NonZeroUsize::get);
        let bounds = RunLimits { parallelism, hosts: migration.hosts };
        let names: Vec<Option<String>> = migration.mailboxes.iter().map(name).collect();

        let began = Instant::now();
        let board = Arc::new(Mutex::new(ProgressBoard::new(began, names.len())));
        let bar = if style == OutputStyle::Bars { screen.add(bar()) } else { ProgressBar::hidden() };
        let listed = self.list;
        let task = |spec: SyncSpec| {
            let progress = Arc::new(SyncProgress::default());
            lock(&board).add_running(Instant::now(), &spec.mailbox, &progress);
            let state = Arc::clone(&state);
            async move {
                let (mapping, note) =
                    state.checkpoint_file(&spec.mailbox).folder_mapping(&fingerprint(&spec.source, &spec.destination));
                let context = VerifyContext { mapping, listed, progress, stop: CancellationToken::new() };
                let mut report = verify_mailbox(&spec, &context).await;
                report.notes.extend(note);
                report
            }
        };
        let outcomes = for_each_mailbox(migration.mailboxes, &bounds, task, |step| match step {
            TaskEvent::Tick => {
                let mut board = lock(&board);
                board.observe(Instant::now());
                bar.set_message(format!("{}/{} verified, {}", board.finished, board.mailboxes, board.total().line()));
                bar.tick();
            }
            TaskEvent::Ended(outcome) => {
                let report = match outcome {
                    Ok(report) => report.clone(),
                    Err(error) => failed(error.mailbox.clone(), error.clone()),
                };
                lock(&board)
                    .record_finished(&MailboxReport { mailbox: report.mailbox.clone(), ..MailboxReport::default() });
                match style {
                    OutputStyle::Json => {
                        let verdict = VerifyVerdict::from_report(&report, strictness).word();
                        let what = VerifyEvent::Verified { mailbox: &report.mailbox, verdict, report: &report };
                        write_event(&mut io::stdout(), Timestamp::now(), what);
                    }
                    OutputStyle::Bars => drop(screen.println(verify_report::line(&report, strictness))),
                    OutputStyle::Lines => drop(writeln!(io::stderr(), "{}", verify_report::line(&report, strictness))),
                }
            }
        })
        .await;
        bar.finish_and_clear();

        let outcomes = outcomes.into_iter().zip(names);
        let reports: Vec<VerifyReport> =
            outcomes.map(|(outcome, name)| outcome.unwrap_or_else(|error| failed(name, error))).collect();
        let verdicts: Vec<VerifyVerdict> =
            reports.iter().map(|report| VerifyVerdict::from_report(report, strictness)).collect();
        let exit_code = verify_report::exit_code(&verdicts);
        if style == OutputStyle::Json {
            let number = |word: &str| verdicts.iter().filter(|verdict| verdict.word() == word).count();
            let what = VerifyEvent::Summary {
                mailboxes: reports.len(),
                identical: number("identical"),
                differing: number("differs"),
                failed: number("failed"),
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                exit_code,
            };
            write_event(&mut io::stdout(), Timestamp::now(), what);
        } else {
            // A reader that has gone away does not change what was found.
            drop(io::stdout().lock().write_all(final_report(&reports, strictness, began.elapsed()).as_bytes()));
        }
        Ok(exit_code)
    }
}

fn final_report(reports: &[VerifyReport], strictness: VerifyStrictness, took: Duration) -> String {
    let mut text = String::from("\n");
    for report in reports {
        text.push_str(&verify_report::mailbox(report, strictness));
        text.push('\n');
    }
    text.push_str(&verify_report::summary(reports, strictness, took));
    text
}

fn name(mailbox: &Result<SyncSpec>) -> Option<String> {
    match mailbox {
        Ok(spec) => Some(spec.mailbox.clone()),
        Err(error) => error.mailbox.clone(),
    }
}

fn failed(mailbox: Option<String>, error: Error) -> VerifyReport {
    VerifyReport { mailbox: mailbox.unwrap_or_default(), error: Some(error), ..VerifyReport::default() }
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
