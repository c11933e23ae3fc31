//! `mailferry uninstall`: before the operator is removed, or after it was.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;

use super::controller::{DEFAULT_LEASE_NAME, namespaces};
use crate::{
    api::scalar,
    controller::uninstall::{
        UninstallOptions, UninstallStep,
        leftover::{Leftover, ObjectName},
        uninstall,
    },
    error::Result,
    import::apply::cluster_in,
    terminal_text::{format_count, printable},
};

/// Prepare the removal of the operator, so that nothing is left that waits for it: suspend all MailMigrations, wait until
/// every sync pod has ended, and take the finalizers off pods that ended and off MailboxSyncs that are being deleted.
///
/// Run it first, then `helm uninstall` or `kubectl delete -k`. While an operator leads, it does the work, and this command
/// waits for it. Where the operator is gone already, the command does the same by the same rules: a pod that can't be proven to
/// have ended is named and left. It may be run again at any time.
///
/// MailMigrations and MailboxSyncs stay, with their checkpoints: an operator that comes back goes on once you resume the
/// migrations. Before you remove the definitions (CRDs) too, use --delete-migrations: all checkpoints go with them. No mail is
/// deleted.
///
/// It needs an administrator's rights: on mailmigrations, mailboxsyncs and their status, pods, nodes, leases, and to delete
/// secrets. Exits with 3 when something is left.
#[derive(Debug, Clone, Args)]
pub struct UninstallArgs {
    /// The kubeconfig [default: that of KUBECONFIG or ~/.kube/config, or the cluster that this runs in].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// In this namespace only; several times, or with commas: in these [default: all].
    #[arg(long = "namespace", short, value_name = "NAME", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// Delete all MailMigrations too, and wait until their MailboxSyncs are gone, with all checkpoints.
    #[arg(long)]
    pub delete_migrations: bool,

    /// Say what would be done at once, and do nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// How long pods are waited for that have not ended. One that can't be seen counts as ended after `offlineGrace` (10m) and
    /// 90 seconds without a word.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub timeout: scalar::Duration,

    /// The namespace of the Lease by which an operator leads: the operator's own.
    #[arg(long, value_name = "NAME", default_value = "mailferry-system")]
    pub lease_namespace: String,

    /// The Lease's name.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_LEASE_NAME)]
    pub lease_name: String,
}

/// Something is left.
const EXIT_LEFT: u8 = 3;

impl UninstallArgs {
    /// Lets go of what it can, and says so; gives the exit code.
    ///
    /// # Errors
    /// When the kubeconfig can't be read, or the API server refuses or can't be reached.
    pub async fn run(&self) -> Result<u8> {
        let options = UninstallOptions {
            namespaces: namespaces(&self.namespaces)?,
            lease: (self.lease_namespace.clone(), self.lease_name.clone()),
            delete_migrations: self.delete_migrations,
            dry_run: self.dry_run,
            timeout: self.timeout.as_std(),
        };
        let (client, _) = cluster_in(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        let mut say = |step: UninstallStep, object: &ObjectName| {
            // A reader that has gone away is no failure.
            drop(writeln!(io::stdout(), "{}", printable(&step_line(step, object, self.dry_run))));
        };
        let left = Box::pin(uninstall(client, &options, &mut say)).await?;
        for line in end_lines(&left, &options) {
            drop(writeln!(io::stdout(), "{}", printable(&line)));
        }
        Ok(if left.is_empty() || self.dry_run { 0 } else { EXIT_LEFT })
    }
}

/// A step in words.
fn step_line(step: UninstallStep, object: &ObjectName, dry_run: bool) -> String {
    let done = match step {
        UninstallStep::Suspend => "suspended",
        UninstallStep::Delete => "deleted",
        UninstallStep::Stop => "told to stop",
        UninstallStep::Settle => "settled",
        UninstallStep::Release => "released",
    };
    if dry_run { format!("would be {done:<13}{object}") } else { format!("{done:<14}{object}") }
}

/// What is said at the end: what is left and why, and what comes next.
fn end_lines(left: &[Leftover], options: &UninstallOptions) -> Vec<String> {
    let word = if options.dry_run { "would wait" } else { "LEFT" };
    let mut lines: Vec<_> = left.iter().map(|one| format!("{word:<14}{}: {}", one.object, one.why)).collect();
    if options.dry_run {
        return lines;
    }
    if !left.is_empty() {
        let count = format_count(left.len() as u64, "object");
        lines.push(format!("{count} left: run the same again later"));
        return lines;
    }
    lines.push("Nothing waits for the operator: remove it by helm uninstall or kubectl delete".to_owned());
    if !options.delete_migrations {
        let stay =
            "MailMigrations and MailboxSyncs stay. To delete the definitions too, run this with --delete-migrations";
        lines.push(format!("{stay} first"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::controller::uninstall::leftover::ObjectKind;

    fn options() -> UninstallOptions {
        UninstallOptions {
            namespaces: Vec::new(),
            lease: ("system".to_owned(), "lease".to_owned()),
            delete_migrations: false,
            dry_run: false,
            timeout: Duration::ZERO,
        }
    }

    fn object(kind: ObjectKind) -> ObjectName {
        ObjectName { kind, namespace: "customers".to_owned(), name: "acme".to_owned() }
    }

    #[test]
    fn each_step_and_each_leftover_is_named() {
        let said = |dry_run| {
            [
                (UninstallStep::Suspend, ObjectKind::MailMigration),
                (UninstallStep::Stop, ObjectKind::Pod),
                (UninstallStep::Release, ObjectKind::MailboxSync),
            ]
            .map(|(step, kind)| step_line(step, &object(kind), dry_run))
            .join("\n")
        };
        insta::assert_snapshot!(said(false), @r"
        suspended     MailMigration customers/acme
        told to stop  Pod customers/acme
        released      MailboxSync customers/acme
        ");
        insta::assert_snapshot!(said(true), @r"
        would be suspended    MailMigration customers/acme
        would be told to stop Pod customers/acme
        would be released     MailboxSync customers/acme
        ");
        let left = [Leftover { object: object(ObjectKind::Pod), why: "it may still write".to_owned() }];
        insta::assert_snapshot!(end_lines(&left, &options()).join("\n"), @r"
        LEFT          Pod customers/acme: it may still write
        1 object left: run the same again later
        ");
    }

    #[test]
    fn whoever_keeps_migrations_is_told_before_the_definitions_are_deleted() {
        let told = |delete_migrations| {
            let options = UninstallOptions { delete_migrations, ..options() };
            end_lines(&[], &options).iter().any(|line| line.contains("--delete-migrations"))
        };
        assert!(told(false) && !told(true));
    }
}
