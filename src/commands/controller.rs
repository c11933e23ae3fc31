//! `mailferry controller`: the operator.

use std::path::PathBuf;

use clap::Args;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{
        config::{OperatorConfig, WorkerConfig},
        run::{Options, run},
    },
    error::{Error, Result},
};

/// Run the operator: watch MailMigrations, and carry them out with one pod per mailbox.
///
/// It runs in a cluster (deploy/ and the Helm chart install it) or outside of one, with the kubeconfig that kubectl uses.
#[derive(Debug, Clone, Args)]
pub struct ControllerArgs {
    /// The image of sync pods; this program's own.
    #[arg(long, env = "MAILFERRY_WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: String,

    /// When that image is pulled: `Always`, `IfNotPresent` or `Never`.
    #[arg(long, env = "MAILFERRY_WORKER_IMAGE_PULL_POLICY", value_name = "POLICY")]
    pub worker_image_pull_policy: Option<String>,

    /// The operator's configuration: limits for hosts, allowed addresses, who may use master users.
    #[arg(long, env = "MAILFERRY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Watch this namespace only [default: all].
    #[arg(long, env = "MAILFERRY_WATCH_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
}

impl ControllerArgs {
    /// Runs until SIGTERM or Ctrl-C; returns the exit code.
    ///
    /// # Errors
    /// Configuration when the file or the kubeconfig can't be read; Internal when a part of the operator ended by itself.
    pub async fn run(self) -> Result<u8> {
        let config = self.config.as_deref().map_or_else(|| Ok(OperatorConfig::default()), OperatorConfig::read)?;
        let unreachable = |why: String| {
            Error::configuration(format!("the API server can't be reached: {why}"))
                .advice("Run in a cluster, or set KUBECONFIG to a file that kubectl works with")
        };
        let cluster = Config::infer().await.map_err(|e| unreachable(e.to_string()))?;
        let client = Client::try_from(cluster).map_err(|e| unreachable(e.to_string()))?;
        let networks = |list: &[ipnet::IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let worker = WorkerConfig {
            image: self.worker_image,
            image_pull_policy: self.worker_image_pull_policy,
            deny_addresses: networks(&config.addresses.deny),
            allow_addresses: networks(&config.addresses.allow),
            log_level: config.worker_log_level.clone(),
        };
        let instance = std::env::var("POD_NAME").ok();
        let options = Options { config, worker, namespace: self.namespace, instance };
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let signals = |kind| signal(kind).map_err(|e| Error::internal(format!("cannot wait for signals: {e}")));
        let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; sync pods go on");
            asked.cancel();
        });
        run(client, options, stop).await?;
        Ok(0)
    }
}
