//! `mailferry controller`: the operator.

use std::{collections::BTreeSet, fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Args};
use kube::{Client, Config};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{
        config::{OperatorConfig, SecretAccess, WorkerConfig},
        leader::{LeaderCandidate, process_identity},
        operator::{OperatorOptions, run},
        write_guard,
    },
    error::{Error, Result},
    telemetry::{
        api_calls,
        health::{HealthListener, Readiness},
        liveness::Liveness,
        metrics::Metrics,
    },
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

    /// Watch this namespace only; several times, or with commas: these [default: all].
    #[arg(long = "namespace", env = "MAILFERRY_WATCH_NAMESPACES", value_name = "NAME", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// Of several operators let one work, by a Lease; the others wait for its end. `false`: this is the only one.
    #[arg(long, env = "MAILFERRY_LEADER_ELECTION", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub leader_election: bool,

    /// The namespace of the Lease [default: the pod's, or the kubeconfig's].
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub lease_namespace: Option<String>,

    /// The Lease's name: another for each operator of one namespace that looks after other namespaces.
    #[arg(long, env = "MAILFERRY_LEASE_NAME", value_name = "NAME", default_value = DEFAULT_LEASE_NAME)]
    pub lease_name: String,

    /// Get Secrets, to see that one was corrected after a refused login, and to split CSVs (mailboxSecrets). `false`: the
    /// operator's roles don't let it; a refused login then waits for a syncRequest.
    #[arg(long, env = "MAILFERRY_READ_SECRETS", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub read_secrets: bool,

    /// Where /healthz, /readyz and /metrics are served; `none`: nowhere.
    #[arg(long, env = "MAILFERRY_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: ListenAddress,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub Option<SocketAddr>);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| "write ADDRESS:PORT, or none".to_owned())
    }
}

/// How long what is under way is waited for once the lead is lost: another takes over soon, and waits for nobody.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The Lease that operators compete for.
pub(super) const DEFAULT_LEASE_NAME: &str = "mailferry-controller";

/// There is no API server, or nothing tells where.
pub(super) fn unreachable_error(why: impl Display) -> Error {
    Error::configuration(format!("the API server can't be reached: {why}"))
        .advice("Run in a cluster, or set KUBECONFIG to a file that kubectl works with")
}

impl ControllerArgs {
    /// Runs until SIGTERM or Ctrl-C; returns the exit code.
    ///
    /// # Errors
    /// Configuration when the file or the kubeconfig can't be read; Internal when a part of the operator ended by itself.
    pub async fn run(self) -> Result<u8> {
        let config = OperatorConfig::read(self.config.as_deref(), SecretAccess::from_flag(self.read_secrets))?;
        let namespaces = namespaces(&self.namespaces)?;
        let cluster = Config::infer().await.map_err(unreachable_error)?;
        let lease_namespace = self.lease_namespace.unwrap_or_else(|| cluster.default_namespace.clone());
        let (metrics, readiness, liveness) = (Metrics::new()?, Readiness::default(), Liveness::default());
        let client = api_calls::client(cluster, &metrics).map_err(unreachable_error)?;
        let served = CancellationToken::new();
        if let Some(address) = self.listen.0 {
            let listener = HealthListener::bind(address).await?;
            tracing::info!(address = %listener.address()?, "serving /healthz, /readyz and /metrics");
            let served = served.clone();
            tokio::spawn(listener.serve(metrics.clone(), readiness.clone(), liveness.clone(), served));
        }
        let worker = WorkerConfig {
            image: self.worker_image,
            image_pull_policy: self.worker_image_pull_policy,
            log_level: config.worker_log_level.clone(),
            inject_sidecars: config.inject_sidecars,
            pods: config.worker_pods.clone(),
        };
        let instance = std::env::var("POD_NAME").ok();
        // Some clusters give a name here, with an address outside of them.
        let api_service = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|address| address.parse().ok());
        let options = OperatorOptions {
            config,
            worker,
            namespaces,
            own_namespace: lease_namespace.clone(),
            api_service,
            instance,
            metrics: Some(metrics.clone()),
            readiness,
            liveness,
            request_limit: None,
        };
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
        let ended = if self.leader_election {
            let candidate =
                LeaderCandidate::new(client.clone(), &lease_namespace, &self.lease_name, process_identity());
            lead(candidate, client, options, &metrics, stop).await
        } else {
            metrics.set_leader(true);
            run(client, options, stop).await
        };
        served.cancel();
        ended.map(|()| 0)
    }
}

/// The namespaces to watch, each once; blanks count for nothing, as a list that is left empty in the environment.
pub(super) fn namespaces(given: &[String]) -> Result<Vec<String>> {
    let names: BTreeSet<_> = given.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    let is_label = |name: &str| {
        let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        name.len() <= 63
            && name.chars().all(|c| is_end(c) || c == '-')
            && name.starts_with(is_end)
            && name.ends_with(is_end)
    };
    if let Some(wrong) = names.iter().find(|name| !is_label(name)) {
        return Err(Error::configuration(format!("`{wrong}` is not the name of a namespace"))
            .advice("Correct --namespace or MAILFERRY_WATCH_NAMESPACES; leave it out to watch all namespaces"));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Runs the operator once this process leads, and no longer than it does.
async fn lead(
    candidate: LeaderCandidate,
    client: Client,
    options: OperatorOptions,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<()> {
    let mut leadership = tokio::select! {
        leadership = candidate.wait_for_lead() => leadership,
        () = stop.cancelled() => return Ok(()),
    };
    metrics.set_leader(true);
    let client = write_guard::guard_writes(client, leadership.status());
    let leads = stop.child_token();
    let mut work = std::pin::pin!(run(client, options, leads.clone()));
    tokio::select! {
        // First: nothing more is begun once the loss is known.
        biased;
        error = leadership.wait_until_lost() => {
            metrics.set_leader(false);
            // Nothing is written from here on; what is under way may still learn how it ended.
            leads.cancel();
            let _ = timeout(DRAIN_LIMIT, &mut work).await;
            Err(error)
        }
        // All that it began has ended.
        ended = &mut work => {
            leadership.release().await;
            ended
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct ControllerCli {
        #[command(flatten)]
        controller: ControllerArgs,
    }

    #[test]
    fn namespaces_are_given_one_by_one_or_by_comma_and_each_counts_once() {
        let of = |arguments: &[&str]| {
            let line = ["controller", "--worker-image", "i"].iter().chain(arguments);
            namespaces(&ControllerCli::try_parse_from(line).unwrap().controller.namespaces)
        };
        assert_eq!(of(&[]).unwrap(), [""; 0]);
        assert_eq!(of(&["--namespace", ""]).unwrap(), [""; 0], "as the environment has an empty list");
        assert_eq!(of(&["--namespace", "b", "--namespace", "a, c,,b"]).unwrap(), ["a", "b", "c"]);
        for wrong in ["A", "a.b", "-a", "a_b", "*"] {
            let error =
                of(&[&format!("--namespace={wrong}")]).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(error.contains(&format!("`{wrong}` is not the name of a namespace")), "{error}");
        }
    }

    #[test]
    fn an_address_is_listened_on_or_none() {
        assert_eq!("none".parse(), Ok(ListenAddress(None)));
        assert_eq!("127.0.0.1:80".parse(), Ok(ListenAddress(Some(SocketAddr::from(([127, 0, 0, 1], 80))))));
        assert_eq!("[::]:8080".parse(), Ok(ListenAddress(Some("[::]:8080".parse().unwrap()))));
        assert!("8080".parse::<ListenAddress>().is_err());
    }
}
