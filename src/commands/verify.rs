//! `mailferry verify`: compare both sides of every mailbox, message by message.

use std::{sync::Arc, time::Instant};

use clap::Args;
use futures::future::BoxFuture;
use indicatif::MultiProgress;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    migration_args::MigrationArgs,
    shared_args::{ExecutionArgs, StateArgs},
};
use crate::{
    error::{Error, Result},
    local::{
        progress_board::ProgressBoard,
        read_only_run::{MailboxReader, ReadOnlyRun},
        report_text::ReportDetail,
        state_folder::StateFolder,
        verify_report::{self, VerifyVerdict},
    },
    sync::{
        progress::SyncProgress,
        spec::SyncSpec,
        verify::{VerifyContext, VerifyReport, VerifyStrictness, verify_mailbox},
    },
};

/// Compare both sides of every mailbox: folders, and per folder each message's bytes, flags and date.
///
/// Every message of both sides is read once and compared by SHA-256, flags and keywords, and INTERNALDATE; nothing is
/// changed on either side, not even \Seen. It does not ask what a run believes to have copied: a checkpoint only tells which
/// destination folder belongs to which source folder (without one, the same rules decide afresh), and from when on a run
/// wrote there.
///
/// What the migration's rules leave out is not expected at the destination. Mail and folders that only the destination
/// has (new mail may arrive there already), and subscriptions that it lacks, are shown; they are differences with
/// `--strict` only. A copy too many of a message is a difference where a run may have made it, by the checkpoint; another
/// may be the user's own, and is only shown. So are messages a difference that are in no folder but a view (Gmail's All
/// Mail), and those that a server counts and does not list. The order of messages is not compared.
///
/// Exits with 0 when all mailboxes are identical, with 1 when there are differences, and else with the code of what kept it
/// from comparing (see `mailferry --help`).
#[derive(Debug, Clone, Args)]
#[command(mut_arg("parallelism", |arg| arg.help("How many mailboxes to compare at once [default: spec.parallelism of the migration]")), mut_arg("output", |arg| arg.help("What to show: a report for people, or JSON lines (`verified` for each mailbox, `summary` at the end)")))]
pub struct VerifyArgs {
    #[command(flatten)]
    pub migration: MigrationArgs,

    #[command(flatten)]
    pub state: StateArgs,

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

    #[command(flatten)]
    pub execution: ExecutionArgs,
}

#[derive(Serialize, schemars::JsonSchema)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum VerifyEvent<'a> {
    /// How a mailbox compares.
    Verified {
        /// Its name.
        mailbox: &'a str,
        /// `identical`, `differs` or `failed`.
        verdict: &'static str,
        /// What differs.
        report: &'a VerifyReport,
    },
    /// The last line.
    Summary {
        /// How many mailboxes there are.
        mailboxes: usize,
        /// How many of them are identical.
        identical: usize,
        /// How many differ.
        differing: usize,
        /// How many could not be compared.
        failed: usize,
        /// The whole verification.
        duration_ms: u64,
        /// The exit code of the program.
        exit_code: u8,
    },
}

impl VerifyArgs {
    /// Verifies the migration; returns the exit code. `screen` is where progress is drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: manifests that cannot be read, no mailbox of that name.
    pub async fn run(&self, screen: MultiProgress) -> Result<u8> {
        let migration = self.migration.load()?;
        let strictness = VerifyStrictness { strict: self.strict, allow_rewritten: self.allow_rewritten };
        migration.grants.keep_in(self.state.state.as_deref());
        let state = StateFolder::read_only(&self.state.folder(&migration.name)?);
        let reader = MailboxVerifier { state, strictness, listed: self.list };
        let limits = self.execution.limits(migration.parallelism, migration.servers);
        let began = Instant::now();
        let run = ReadOnlyRun { limits, style: self.execution.style(), layout: self.execution.layout(), screen };
        let reports = run.read_all(migration.mailboxes, &reader).await;
        migration.tokens.settle().await;

        let verdicts: Vec<VerifyVerdict> =
            reports.iter().map(|report| VerifyVerdict::from_report(report, strictness)).collect();
        let exit_code = verify_report::exit_code(&verdicts);
        let number = |word: &str| verdicts.iter().filter(|verdict| verdict.word() == word).count();
        let summary = VerifyEvent::Summary {
            mailboxes: reports.len(),
            identical: number("identical"),
            differing: number("differs"),
            failed: number("failed"),
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            exit_code,
        };
        run.write_end(summary, |layout| {
            let report = verify_report::report(&reports, strictness, began.elapsed(), layout);
            // An empty line keeps it apart from what was said before.
            if layout.detail == ReportDetail::LastLine { report } else { format!("\n{report}") }
        });
        Ok(exit_code)
    }
}

/// Verifies mailboxes by the folder names in their checkpoints.
struct MailboxVerifier {
    state: StateFolder,
    strictness: VerifyStrictness,
    /// So many messages are listed for each folder.
    listed: usize,
}

impl MailboxReader for MailboxVerifier {
    type Report = VerifyReport;

    fn read(&self, spec: SyncSpec, progress: Arc<SyncProgress>) -> BoxFuture<'static, VerifyReport> {
        let (state, listed) = (self.state.checkpoint_file(&spec), self.listed);
        Box::pin(async move {
            let (checkpoint, note) = state.usable_checkpoint();
            let context = VerifyContext { checkpoint, listed, progress, stop: CancellationToken::new() };
            let mut report = verify_mailbox(&spec, &context).await;
            report.notes.extend(note);
            report
        })
    }

    fn failed_report(&self, error: Error) -> VerifyReport {
        let mailbox = error.mailbox.clone().unwrap_or_default();
        VerifyReport { mailbox, error: Some(error), ..VerifyReport::default() }
    }

    fn mailbox<'a>(&self, report: &'a VerifyReport) -> &'a str {
        &report.mailbox
    }

    fn progress_line(&self, board: &ProgressBoard) -> String {
        format!("{}/{} verified, {}", board.finished, board.mailboxes, board.total().line())
    }

    fn end_line(&self, report: &VerifyReport) -> Option<String> {
        Some(verify_report::line(report, self.strictness))
    }

    fn is_failed(&self, report: &VerifyReport) -> bool {
        report.errors().next().is_some()
    }

    fn end_event<'a>(&self, report: &'a VerifyReport) -> impl Serialize + use<'a> {
        let verdict = VerifyVerdict::from_report(report, self.strictness).word();
        VerifyEvent::Verified { mailbox: &report.mailbox, verdict, report }
    }
}
