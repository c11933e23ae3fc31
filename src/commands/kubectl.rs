//! `mailferry kubectl`, which is `kubectl mailferry` under the name of a plugin: how migrations stand in a cluster, and what
//! they are asked to do.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use futures::TryStreamExt as _;
use jiff::Timestamp;

use super::{checkpoint::CheckpointTransfer, import::namespace};
use crate::{
    api::{MailMigration, MailboxSync},
    error::{Error, Result},
    import::apply::cluster_in,
    kubectl::{
        failed_text::failed_text,
        mailbox_view::MailboxView,
        requests::ClusterScope,
        status_text::{Detail, status_text},
        steer::{RetryOf, retry, suspend},
    },
    terminal_text::printable,
};

/// See and steer the migrations of a cluster: what each mailbox waits for, what fails and why, logs; retry, suspend, resume.
///
/// The same program under the name `kubectl-mailferry` is a plugin: `kubectl mailferry status`. `make install` makes that
/// name. It uses your kubeconfig and your rights: Kubernetes' role `view` to look, `edit` to change migrations.
#[derive(Debug, Clone, Args)]
pub struct KubectlArgs {
    #[command(subcommand)]
    command: KubectlCommand,
}

/// What the plugin can do.
#[derive(Debug, Clone, Subcommand)]
pub enum KubectlCommand {
    Status(StatusArgs),
    Failed(FailedArgs),
    Logs(LogsArgs),
    Retry(RetryArgs),
    Suspend(SuspendArgs),
    Resume(ResumeArgs),
    Checkpoint(CheckpointPluginArgs),
}

/// Which cluster.
#[derive(Debug, Clone, Default, Args)]
struct ClusterArgs {
    /// The kubeconfig [default: that of KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// The namespace [default: the kubeconfig's].
    #[arg(long, short, value_name = "NAME", value_parser = namespace)]
    namespace: Option<String>,
}

/// What the commands share that show migrations.
#[derive(Debug, Clone, Args)]
struct ViewArgs {
    /// Only these MailMigrations.
    #[arg(value_name = "MIGRATION")]
    migrations: Vec<String>,

    /// Those of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Name each mailbox, however many there are.
    #[arg(long)]
    mailboxes: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Show migrations and their mailboxes, with what each mailbox does or waits for.
///
/// Mailboxes that are synced and miss nothing are counted only, and those that wait for the same share a line; --mailboxes shows
/// each.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    view: ViewArgs,
}

/// Show which mailboxes fail, why, and what to do: an entry for each problem.
#[derive(Debug, Clone, Args)]
pub struct FailedArgs {
    #[command(flatten)]
    view: ViewArgs,
}

/// Print the log of a mailbox's current or last sync pod.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The mailbox's name in its migration.
    #[arg(value_name = "MAILBOX")]
    mailbox: String,

    /// The MailMigration, where more than one has a mailbox of this name.
    #[arg(long, value_name = "NAME")]
    migration: Option<String>,

    /// Go on until the pod ends.
    #[arg(long, short)]
    follow: bool,

    /// Only so many lines at the end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32))]
    tail: Option<u32>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Ask for another sync, at once, of mailboxes that fail.
///
/// It writes `spec.syncRequest` and `spec.syncRequestFor` of the MailMigration. The sync also tries again a login that was
/// refused, and messages that the destination was proven to refuse. Where the manifest comes from Git, write these fields there.
#[derive(Debug, Clone, Args)]
pub struct RetryArgs {
    /// The MailMigration.
    #[arg(value_name = "MIGRATION")]
    migration: String,

    /// Of these mailboxes, whether they fail or not.
    #[arg(value_name = "MAILBOX")]
    mailboxes: Vec<String>,

    /// Of every mailbox.
    #[arg(long, conflicts_with = "mailboxes")]
    all: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Stop the syncs of migrations at a checkpoint, and start none (`spec.suspend: true`).
#[derive(Debug, Clone, Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    named: NamedArgs,
}

/// Let suspended migrations go on where they stopped (`spec.suspend: false`).
#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    named: NamedArgs,
}

/// Write checkpoints of a cluster into a file, or put them back.
#[derive(Debug, Clone, Args)]
pub struct CheckpointPluginArgs {
    #[command(subcommand)]
    transfer: CheckpointTransfer,
}

/// Migrations that are changed.
#[derive(Debug, Clone, Args)]
struct NamedArgs {
    /// The MailMigrations.
    #[arg(value_name = "MIGRATION", required = true)]
    migrations: Vec<String>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl ClusterArgs {
    /// The namespace that is meant.
    async fn scope(&self) -> Result<ClusterScope> {
        let (client, default) = cluster_in(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        let namespace = Some(self.namespace.clone().unwrap_or(default));
        Ok(ClusterScope { client, namespace })
    }
}

impl ViewArgs {
    /// Shows each migration by `text`.
    async fn show(&self, text: impl Fn(&MailMigration, &[MailboxView], Detail) -> String) -> Result<u8> {
        let mut scope = self.cluster.scope().await?;
        if self.all_namespaces {
            scope.namespace = None;
        }
        let detail = if self.mailboxes { Detail::EachMailbox } else { Detail::Grouped };
        let migrations = scope.migrations(&self.migrations).await?;
        if migrations.is_empty() {
            let place = scope.namespace.map(|namespace| format!(" in the namespace {namespace}")).unwrap_or_default();
            say(&format!("There are no MailMigrations{place}. Those of all namespaces: -A\n"));
            return Ok(0);
        }
        let mailboxes = scope.mailboxes(&migrations, Timestamp::now()).await?;
        for migration in &migrations {
            let metadata = &migration.metadata;
            let belongs = |view: &&MailboxView| {
                Some(&view.migration) == metadata.name.as_ref() && Some(&view.namespace) == metadata.namespace.as_ref()
            };
            let own: Vec<MailboxView> = mailboxes.iter().filter(belongs).cloned().collect();
            say(&text(migration, &own, detail));
        }
        Ok(0)
    }
}

impl KubectlArgs {
    /// The same, as a plugin was asked.
    #[must_use]
    pub fn new(command: KubectlCommand) -> Self {
        Self { command }
    }

    /// Shows or asks for what the command line says; gives the exit code.
    ///
    /// # Errors
    /// When the kubeconfig can't be read, the API server refuses or can't be reached, or something is not there.
    pub async fn run(&self) -> Result<u8> {
        match &self.command {
            KubectlCommand::Status(args) => args.view.show(status_text).await,
            KubectlCommand::Failed(args) => args.view.show(failed_text).await,
            KubectlCommand::Logs(args) => args.run().await,
            KubectlCommand::Retry(args) => args.run().await,
            KubectlCommand::Suspend(args) => args.named.suspend(true).await,
            KubectlCommand::Resume(args) => args.named.suspend(false).await,
            KubectlCommand::Checkpoint(args) => args.transfer.run().await,
        }
    }
}

impl LogsArgs {
    async fn run(&self) -> Result<u8> {
        let scope = self.cluster.scope().await?;
        let sync = scope.mailbox(self.migration.as_deref(), &self.mailbox).await?;
        let pod = pod_of(&sync)?;
        let mut lines = Box::pin(scope.log_lines(&pod, self.tail.map(i64::from), self.follow).await?);
        while let Some(line) = lines.try_next().await? {
            if !say(&(printable(&line).into_owned() + "\n")) {
                break; // nobody reads on
            }
        }
        Ok(0)
    }
}

/// The pod of a mailbox's current or last attempt.
fn pod_of(sync: &MailboxSync) -> Result<String> {
    let pod = sync.status.as_ref().and_then(|status| status.pod_name.clone());
    pod.ok_or_else(|| {
        let view = MailboxView::new(sync, Timestamp::now());
        let what = format!("the mailbox {} has had no pod yet; it is {:?}: {}", view.mailbox, view.phase, view.wait);
        Error::configuration(what)
    })
}

impl RetryArgs {
    async fn run(&self) -> Result<u8> {
        let scope = self.cluster.scope().await?;
        for mailbox in &self.mailboxes {
            scope.mailbox(Some(&self.migration), mailbox).await?;
        }
        let of = match self.mailboxes.as_slice() {
            [] if self.all => RetryOf::All,
            [] => RetryOf::Failing,
            names => RetryOf::Named(names.to_vec()),
        };
        let done = scope.change(&self.migration, |migration| retry(migration, &of, Timestamp::now())).await?;
        say_of(&self.migration, &done);
        Ok(0)
    }
}

impl NamedArgs {
    async fn suspend(&self, on: bool) -> Result<u8> {
        let scope = self.cluster.scope().await?;
        for name in &self.migrations {
            let done = scope.change(name, |migration| Ok(suspend(migration, on))).await?;
            say_of(name, &done);
        }
        Ok(0)
    }
}

/// What was done about a migration, as kubectl says it.
fn say_of(migration: &str, done: &str) {
    say(&format!("mailmigration/{migration}: {}\n", printable(done)));
}

/// Prints; false: nobody reads it any more, which is no failure.
fn say(text: &str) -> bool {
    io::stdout().write_all(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_without_a_pod_says_what_it_waits_for_instead() {
        let endpoint = serde_json::json!({"server": {"host": "mail.example"}, "account": {"username": "alice"}});
        let sync = |status| {
            let object = serde_json::json!({
                "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": "acme-alice"},
                "spec": {"migration": "acme", "mailbox": "alice", "source": endpoint, "destination": endpoint},
                "status": status,
            });
            serde_json::from_value::<MailboxSync>(object).unwrap()
        };
        assert_eq!(pod_of(&sync(serde_json::json!({"podName": "acme-alice-1"}))).unwrap(), "acme-alice-1");
        let error = pod_of(&sync(serde_json::json!({"phase": "Queued"}))).unwrap_err();
        assert!(error.what.contains("Queued: the operator has not looked at it yet"), "{error}");
    }
}
