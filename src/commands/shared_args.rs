//! The flags that several commands over mailboxes share: where checkpoints are, how much at once, what to show.

use std::{
    io::{self, IsTerminal as _},
    num::NonZeroUsize,
    path::PathBuf,
};

use clap::Args;

use crate::{
    api::MasterMode,
    error::Result,
    local::{
        mailbox_queue::ServerLimits,
        mailbox_runner::RunLimits,
        report_text::{ReportDetail, TextLayout},
        state_location::{StateLocation, find_state_folder},
        view::{OutputMode, OutputStyle, usual_output},
    },
};

/// Where a run keeps its checkpoints.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    /// Where a run keeps its checkpoints, for the names of folders [default: mailferry/MIGRATION in the user's
    /// state home, ~/.local/state; or .mailferry/MIGRATION in the current folder, if that is there]. Only read.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

impl StateArgs {
    /// The state folder of this migration; where it is none that one would expect, that is logged.
    ///
    /// # Errors
    /// Configuration where none is named and the user has no home.
    pub(crate) fn folder(&self, migration: &str) -> Result<PathBuf> {
        let StateLocation { folder, note } = find_state_folder(self.state.as_deref(), migration)?;
        if let Some(note) = note {
            tracing::warn!("{note}");
        }
        Ok(folder)
    }
}

/// How much at once, and what to show. Each command has its own words for it: it gives them by `mut_arg`.
#[derive(Debug, Clone, Args)]
pub struct ExecutionArgs {
    /// How many mailboxes at once [default: spec.parallelism of the migration].
    #[arg(long, value_name = "N")]
    pub parallelism: Option<NonZeroUsize>,

    /// What to show.
    #[arg(long, value_enum, value_name = "FORMAT", env = "MAILFERRY_OUTPUT")]
    pub output: Option<OutputMode>,

    /// Say all of every mailbox and folder, also where nothing happened.
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Say only the last line of the report.
    #[arg(short, long)]
    pub quiet: bool,
}

impl ExecutionArgs {
    /// The limits of a run; `parallelism` is that of the migration.
    #[must_use]
    pub(crate) fn limits(&self, parallelism: usize, servers: ServerLimits) -> RunLimits {
        RunLimits { parallelism: self.parallelism.map_or(parallelism, NonZeroUsize::get), servers }
    }

    /// What to show on this process's stdout and stderr.
    #[must_use]
    pub(crate) fn style(&self) -> OutputStyle {
        self.output.unwrap_or_else(usual_output).style(self.detail(), io::stderr().is_terminal())
    }

    /// How the report for people is laid out.
    #[must_use]
    pub(crate) fn layout(&self) -> TextLayout {
        TextLayout::of_stdout(self.detail())
    }

    fn detail(&self) -> ReportDetail {
        match (self.quiet, self.verbose) {
            (true, _) => ReportDetail::LastLine,
            (false, true) => ReportDetail::All,
            (false, false) => ReportDetail::Usual,
        }
    }
}

/// How an administrator names the mailbox, by the words of manifests in any case.
pub(super) fn master_mode(text: &str) -> Result<MasterMode, String> {
    match text.to_ascii_lowercase().as_str() {
        "authorizationidentity" => Ok(MasterMode::AuthorizationIdentity),
        "suffix" => Ok(MasterMode::Suffix),
        _ => Err("write AuthorizationIdentity or Suffix".to_owned()),
    }
}
