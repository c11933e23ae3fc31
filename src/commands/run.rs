//! `mailferry run`: sync every mailbox of a migration from here.

use std::{
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use indicatif::MultiProgress;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::manifests::{ManifestArgs, Migration};
use crate::{
    error::{Error, Result},
    local::{
        report,
        run::{Bounds, Engine, INTERRUPTED, Outcome, Stop, run},
        state::{State, default_folder},
        view::{Bars, Json, Lines, Output, Style, View},
    },
};

/// Sync every mailbox of a migration from this machine: copy what is missing, carry flags over, report.
///
/// A run is safe to interrupt and to repeat. Ctrl-C (or SIGTERM) saves a checkpoint of every running mailbox and ends;
/// a second one leaves at once. The next run goes on from the checkpoints and copies only what is new. Without the
/// checkpoints (another machine, a lost state folder) it compares both sides, takes what is at the destination already
/// as copied, and doubles nothing.
///
/// This is one sync of each mailbox, now: deadline, schedule, startAt and cutover are for the operator.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub manifests: ManifestArgs,

    /// Where checkpoints are kept [default: .mailferry/MIGRATION in the current folder]. One run at a time may use it.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Change nothing, neither at the destination nor in the state folder; report what a run would do.
    #[arg(long)]
    pub dry_run: bool,

    /// How many mailboxes to sync at once [default: spec.parallelism of the migration].
    #[arg(long, value_name = "N")]
    pub parallelism: Option<NonZeroUsize>,

    /// What to show.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

impl RunArgs {
    /// Runs the migration; returns the exit code. `screen` is where bars are drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: manifests that cannot be read, a state folder in use, no mailbox of that name.
    pub async fn run(&self, engine: Arc<dyn Engine>, screen: MultiProgress) -> Result<u8> {
        let migration = self.manifests.load()?;
        if migration.suspended {
            return Err(Error::configuration(format!("the MailMigration {} is suspended", migration.name))
                .advice("Set spec.suspend to false to run it"));
        }
        let stop = Stop::default();
        let signals = tokio::spawn(obey_signals(signals()?, stop.clone()));
        let style = self.output.style(io::stdout().is_terminal(), io::stderr().is_terminal());
        let mut view: Box<dyn View> = match style {
            Style::Bars => Box::new(Bars::new(screen)),
            Style::Lines => Box::new(Lines::new(io::stderr())),
            Style::Json => Box::new(Json::new(io::stdout(), Timestamp::now)),
        };
        let outcome = self.sync(migration, engine, &stop, view.as_mut()).await?;
        signals.abort();
        if style != Style::Json {
            // A reader that has gone away does not change how the run ended.
            drop(io::stdout().lock().write_all(final_report(&outcome).as_bytes()));
        }
        Ok(outcome.exit_code())
    }

    async fn sync(
        &self,
        migration: Migration,
        engine: Arc<dyn Engine>,
        stop: &Stop,
        view: &mut dyn View,
    ) -> Result<Outcome> {
        let folder = self.state.clone().unwrap_or_else(|| default_folder(&migration.name));
        let state = if self.dry_run { State::read_only(&folder) } else { State::open(&folder)? };
        let mut mailboxes = migration.mailboxes;
        for spec in mailboxes.iter_mut().flatten() {
            spec.dry_run |= self.dry_run;
        }
        let parallelism = self.parallelism.map_or(migration.parallelism, NonZeroUsize::get);
        let bounds = Bounds { parallelism, hosts: migration.hosts };
        Ok(run(mailboxes, &state, engine, &bounds, stop, view).await)
    }
}

fn final_report(outcome: &Outcome) -> String {
    let mut text = String::from("\n");
    for mailbox in &outcome.reports {
        text.push_str(&report::mailbox(mailbox));
        text.push('\n');
    }
    text.push_str(&report::summary(&outcome.reports, outcome.took));
    text
}

fn signals() -> Result<[Signal; 2]> {
    let listen = |kind| signal(kind).map_err(|e| Error::internal(format!("cannot listen for signals: {e}")));
    Ok([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?])
}

/// The first signal stops gently, the second at once; a third does not wait for anything, whatever hangs.
async fn obey_signals([mut interrupt, mut terminate]: [Signal; 2], stop: Stop) {
    for step in [Some(&stop.gently), Some(&stop.at_once), None] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        match step {
            Some(token) => token.cancel(),
            None => std::process::exit(INTERRUPTED.into()),
        }
    }
}
