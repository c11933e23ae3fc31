//! `mailferry worker`: one attempt of one mailbox, in a pod.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    imap::{AddressPolicy, address::networks},
    worker::{
        assignment::{WorkerAssignment, parse_attempt},
        client, run,
    },
};

/// Work on one attempt of a MailboxSync: the command of the pods that the operator makes. Nobody needs to call it.
///
/// Everything it is told comes from the environment of its pod, from its MailboxSync and from mounted Secrets.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// The namespace of the MailboxSync.
    #[arg(long, env = "MAILFERRY_NAMESPACE", value_name = "NAME")]
    pub namespace: String,

    /// The MailboxSync to work on.
    #[arg(long, env = "MAILFERRY_MAILBOXSYNC", value_name = "NAME")]
    pub mailbox_sync: String,

    /// Which attempt this is.
    #[arg(long, env = "MAILFERRY_ATTEMPT", value_name = "NUMBER")]
    pub attempt: String,

    /// Networks that are not connected to, by comma, beside what is only this machine or this link.
    #[arg(long, env = "MAILFERRY_DENY_ADDRESSES", value_name = "NETWORKS", default_value = "")]
    pub deny_addresses: String,

    /// Networks that are connected to, although they are denied otherwise, by comma.
    #[arg(long, env = "MAILFERRY_ALLOW_ADDRESSES", value_name = "NETWORKS", default_value = "")]
    pub allow_addresses: String,

    /// Networks that the source must be in besides, by comma [default: anywhere].
    #[arg(
        long,
        env = "MAILFERRY_SOURCE_ADDRESSES",
        value_name = "NETWORKS",
        default_value = "",
        hide_default_value = true
    )]
    pub source_addresses: String,

    /// The host that the destination must be; it is looked up as it stands, never below a search domain [default: any].
    #[arg(
        long,
        env = "MAILFERRY_DESTINATION_HOST",
        value_name = "HOST",
        default_value = "",
        hide_default_value = true
    )]
    pub destination_host: String,

    /// The account whose access token is mounted for the source, as a hash [default: none].
    #[arg(
        long,
        env = "MAILFERRY_SOURCE_TOKEN_FOR",
        value_name = "HASH",
        default_value = "",
        hide_default_value = true
    )]
    pub source_token_for: String,

    /// The account whose access token is mounted for the destination, as a hash [default: none].
    #[arg(
        long,
        env = "MAILFERRY_DESTINATION_TOKEN_FOR",
        value_name = "HASH",
        default_value = "",
        hide_default_value = true
    )]
    pub destination_token_for: String,

    /// Where Secrets are mounted, as FOLDER/SECRET/KEY.
    #[arg(long, env = "MAILFERRY_SECRETS", value_name = "FOLDER", default_value = "/var/run/secrets/mailferry.io")]
    pub secrets: PathBuf,

    /// Where the last word goes, for kubelet.
    #[arg(long, env = "MAILFERRY_TERMINATION_LOG", value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

impl WorkerArgs {
    /// Works until the attempt ends; returns the exit code.
    ///
    /// # Errors
    /// Configuration when the environment is not that of a worker's pod.
    pub async fn run(self) -> Result<u8> {
        let assignment = WorkerAssignment {
            namespace: self.namespace,
            mailbox_sync: self.mailbox_sync,
            attempt: parse_attempt(&self.attempt)?,
            addresses: AddressPolicy::parse(&self.deny_addresses, &self.allow_addresses)?,
            source_networks: networks(&self.source_addresses)?,
            destination_host: self.destination_host,
            source_token_for: self.source_token_for,
            destination_token_for: self.destination_token_for,
            secrets: self.secrets,
            termination_log: self.termination_log,
        };
        let signals = |kind| signal(kind).map_err(|e| Error::internal(format!("cannot wait for signals: {e}")));
        let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
        let stop = CancellationToken::new();
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("asked to stop: saving a checkpoint");
            asked.cancel();
        });
        Ok(run(&assignment, client().await?, stop).await)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;
    use crate::controller::pod_builder::{SECRETS_ROOT, env};

    #[derive(Debug, Parser)]
    struct WorkerCli {
        #[command(flatten)]
        worker: WorkerArgs,
    }

    #[test]
    fn the_environment_is_the_one_that_the_operator_gives_to_its_pods() {
        let command = WorkerCli::command();
        let read: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
        for given in [
            env::NAMESPACE,
            env::MAILBOX_SYNC,
            env::ATTEMPT,
            env::DENY_ADDRESSES,
            env::ALLOW_ADDRESSES,
            env::SOURCE_ADDRESSES,
            env::DESTINATION_HOST,
            env::SOURCE_TOKEN_FOR,
            env::DESTINATION_TOKEN_FOR,
        ] {
            assert!(read.contains(&given), "{given}");
        }
        let line =
            WorkerCli::try_parse_from(["worker", "--namespace", "n", "--mailbox-sync", "s", "--attempt", "1"]).unwrap();
        assert_eq!(line.worker.secrets, PathBuf::from(SECRETS_ROOT));
    }
}
