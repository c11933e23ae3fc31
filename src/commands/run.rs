//! `mailferry run`: sync every mailbox of a migration from here.

use std::sync::Arc;

use clap::Args;
use indicatif::MultiProgress;
use jiff::Timestamp;

use super::{
    connection_args::ConnectionArgs,
    manifest_args::ManifestArgs,
    migration_args::{MigrationTarget, meant},
    sync_args::SyncArgs,
};
use crate::{
    error::{Error, Result},
    local::run::MailboxEngine,
};

/// Sync every mailbox of a migration from this machine: copy what is missing, carry flags over, report.
///
/// A run is safe to interrupt and to repeat. Ctrl-C, SIGTERM or SIGHUP saves a checkpoint of every running mailbox and ends;
/// a second one leaves at once. The next run goes on from the checkpoints and copies only what is new. Without the
/// checkpoints (another machine, a lost state folder) it compares both sides, takes what is at the destination already
/// as copied, and doubles nothing. What a user deleted at the destination it can't know then, and copies again: before it
/// copies anything into folders that hold mail, it warns how many messages these are.
///
/// A message is not copied where the destination refuses it or the source does not deliver it. The report names each;
/// later runs try them again. The exit code is that of the gravest error; else 130 if interrupted; else 3 if anything is
/// not copied that the migration does not accept (messages.acceptNotCopied), but for a dry run; else 0.
///
/// This is one sync of each mailbox, now: deadline, schedule, startAt and cutover are for the operator.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The file of a manifest, as -f takes it. May be repeated.
    #[arg(value_name = "FILE")]
    targets: Vec<String>,

    #[command(flatten)]
    manifests: ManifestArgs,

    #[command(flatten)]
    connection: ConnectionArgs,

    #[command(flatten)]
    sync: SyncArgs,
}

impl RunArgs {
    /// Runs the migration; returns the exit code. `screen` is where bars are drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: manifests that cannot be read, a state folder in use, no mailbox of that name.
    pub async fn run(&self, engine: Arc<dyn MailboxEngine>, screen: MultiProgress) -> Result<u8> {
        let MigrationTarget::Files(files) = meant(&self.targets)? else {
            return Err(Error::configuration("run takes manifests, and these are accounts")
                .advice("Use mailferry copy SOURCE DESTINATION"));
        };
        let migration = self.manifests.load(files, &self.connection)?;
        if migration.suspended {
            return Err(Error::configuration(format!("the MailMigration {} is suspended", migration.name))
                .advice("Set spec.suspend to false to run it"));
        }
        if let Some(warning) = early_start(migration.start_at, Timestamp::now()) {
            tracing::warn!("{warning}");
        }
        self.sync.run(migration, engine, screen).await
    }
}

/// What is said where a run begins before the manifest's time.
fn early_start(start_at: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let at = start_at.filter(|at| *at > now)?;
    Some(format!(
        "spec.startAt is {at}, but a run begins at once: only the operator waits for it. Ctrl-C stops at a checkpoint"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_before_start_at_is_told() {
        let at: Timestamp = "2026-03-01T22:00:00Z".parse().unwrap();
        let second = std::time::Duration::from_secs(1);
        assert!(early_start(Some(at), at - second).unwrap().starts_with("spec.startAt is 2026-03-01T22:00:00Z"));
        assert_eq!((early_start(Some(at), at), early_start(None, at)), (None, None));
    }
}
