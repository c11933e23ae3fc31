//! `mailferry doctor`: whether an installed operator has what it needs.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{ArgAction, Args};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    coordination::v1::{Lease, LeaseSpec},
};
use kube::{Api, Client, Config, api::PostParams};
use serde_json::Value;
use tokio::time::sleep;

use super::controller::{DEFAULT_LEASE_NAME, namespaces, unreachable_error};
use crate::{
    api::{MailMigration, MailServer, MailboxSync, crd, scalar},
    controller::{
        config::{OperatorConfig, SecretAccess},
        permissions::{self, OperatorPermission},
    },
    error::{Error, ErrorClass, Result},
};

/// Check an installation: the API server, the definitions of the resources, the operator's configuration and rights, and
/// that an operator leads.
///
/// Run it as the operator, with what it is configured with: `kubectl exec deploy/mailferry -- mailferry doctor`.
/// `helm test` does the same.
///
/// Exits with 0 when all is well, else with the code of the first finding's class (see `mailferry --help`).
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The operator's configuration.
    #[arg(long, env = "MAILFERRY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The namespaces that the operator watches, each by itself or with commas [default: all].
    #[arg(long = "namespace", env = "MAILFERRY_WATCH_NAMESPACES", value_name = "NAME", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// The Lease of the operator's leader election.
    #[arg(long, env = "MAILFERRY_LEASE_NAME", value_name = "NAME", default_value = DEFAULT_LEASE_NAME)]
    pub lease_name: String,

    /// The namespace of the Lease [default: the pod's, or the kubeconfig's].
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub lease_namespace: Option<String>,

    /// Whether the operator gets Secrets, or is meant to do without.
    #[arg(long, env = "MAILFERRY_READ_SECRETS", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub read_secrets: bool,

    /// Look again for so long until all is well, as right after an installation.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub wait: scalar::Duration,
}

/// The pause between two inspections while `--wait` lasts.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// A leader renews its Lease within this time.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(15);
/// Questions to the API server at one time.
const MAX_CONCURRENT_REVIEWS: usize = 8;

/// One thing that was inspected: a line on what is well, or the error.
type DoctorFinding = Result<String>;

impl DoctorArgs {
    /// Inspects the installation and prints what it found; returns the exit code.
    ///
    /// # Errors
    /// When nothing could be inspected: Configuration when the file or the kubeconfig can't be read.
    pub async fn run(&self) -> Result<u8> {
        let config = OperatorConfig::read(self.config.as_deref(), SecretAccess::from_flag(self.read_secrets))?;
        let namespaces = namespaces(&self.namespaces)?;
        let cluster = Config::infer().await.map_err(unreachable_error)?;
        let lease_namespace = self.lease_namespace.clone().unwrap_or_else(|| cluster.default_namespace.clone());
        let client = Client::try_from(cluster).map_err(unreachable_error)?;
        let lease = (lease_namespace.as_str(), self.lease_name.as_str());
        let until = Instant::now() + self.wait.as_std();
        loop {
            let findings = inspect_installation(&client, &config, &namespaces, lease).await;
            let class = findings.iter().find_map(|finding| finding.as_ref().err()).map(|error| error.class);
            if class.is_none() || Instant::now() >= until {
                let text: String = findings.iter().map(line).collect();
                // A reader that has gone away is no failure.
                drop(io::stdout().write_all(text.as_bytes()));
                return Ok(class.map_or(0, ErrorClass::exit_code));
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}

fn line(finding: &DoctorFinding) -> String {
    match finding {
        Ok(well) => format!("ok       {well}\n"),
        Err(error) => format!("PROBLEM  {error}\n"),
    }
}

async fn inspect_installation(
    client: &Client,
    config: &OperatorConfig,
    namespaces: &[String],
    lease: (&str, &str),
) -> Vec<DoctorFinding> {
    let version = match client.apiserver_version().await {
        Ok(version) => version,
        Err(error) => return vec![Err(failed("the API server does not answer", &error))],
    };
    let mut findings = vec![Ok(format!("the API server answers: Kubernetes {}", version.git_version))];
    findings.push(definitions(client).await);
    let mut needed = permissions::required_permissions(config, namespaces);
    needed.extend(permissions::lease_permissions(lease.0, lease.1));
    needed.extend(permissions::grant_permissions(config, lease.0));
    findings.extend(check_rights(client, needed).await);
    if let Ok(false) = is_allowed(client, &permissions::optional_permission()).await {
        let without = "the operator may not get nodes, and does without: of a lost node's pods it learns the end by their silence only";
        findings.push(Ok(without.to_owned()));
    }
    findings.push(leader(client, lease).await);
    findings
}

/// A question that the API server did not answer.
fn failed(what: &str, error: &kube::Error) -> Error {
    let class = match error {
        kube::Error::Api(answer) if answer.code == 401 => ErrorClass::Authentication,
        kube::Error::Api(answer) if answer.code == 403 => ErrorClass::Authorization,
        _ => ErrorClass::Network,
    };
    Error::new(class, format!("{what}: {error}"))
}

/// Whether the cluster's definitions have all that this program's have.
async fn definitions(client: &Client) -> DoctorFinding {
    let upgrade = "Install those of this version: upgrade the chart with crds.enabled, or `mailferry crds | kubectl apply --server-side -f -`";
    let request = http::Request::get("/openapi/v3/apis/mailferry.io/v1alpha1").body(Vec::new());
    let request = request.map_err(|e| Error::internal(format!("a request can't be made: {e}")))?;
    let served: Value = match client.request(request).await {
        Ok(served) => served,
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            return Err(Error::configuration("the definitions of the resources are not installed").advice(upgrade));
        }
        Err(error) => return Err(failed("the definitions of the resources can't be read", &error)),
    };
    let ours = [
        ("MailServer", crd::schema::<MailServer>()?),
        ("MailMigration", crd::schema::<MailMigration>()?),
        ("MailboxSync", crd::schema::<MailboxSync>()?),
    ];
    let missing = missing(&served, &ours);
    match missing.as_slice() {
        [] => Ok("the definitions of the resources have every field".to_owned()),
        [first, ..] => {
            let what = format!("the definitions of the resources are older: {first} is missing, of {}", missing.len());
            Err(Error::configuration(what).advice(upgrade))
        }
    }
}

/// Fields of our schemas that the served ones do not have.
fn missing(served: &Value, ours: &[(&str, Value)]) -> Vec<String> {
    let mut missing = Vec::new();
    for (kind, schema) in ours {
        let served = &served["components"]["schemas"][format!("io.mailferry.v1alpha1.{kind}")];
        collect_missing(kind, schema, served, &mut missing);
    }
    missing
}

fn collect_missing(path: &str, ours: &Value, served: &Value, missing: &mut Vec<String>) {
    // Kubernetes describes it by reference.
    if path.ends_with(".metadata") {
        return;
    }
    if !served.is_object() {
        missing.push(path.to_owned());
        return;
    }
    for (name, property) in ours["properties"].as_object().into_iter().flatten() {
        collect_missing(&format!("{path}.{name}"), property, &served["properties"][name], missing);
    }
    for part in ["items", "additionalProperties"] {
        if ours[part].is_object() {
            collect_missing(&format!("{path}[]"), &ours[part], &served[part], missing);
        }
    }
}

/// Whether the operator may do what it needs: one finding for all, or one for each thing that it may not.
async fn check_rights(client: &Client, needed: Vec<OperatorPermission>) -> Vec<DoctorFinding> {
    let count = needed.len();
    let asked =
        stream::iter(needed).map(|right| async move { is_allowed(client, &right).await.map(|may| (right, may)) });
    let answers: Result<Vec<_>> = asked.buffered(MAX_CONCURRENT_REVIEWS).try_collect().await;
    let answers = match answers {
        Ok(answers) => answers,
        Err(error) => return vec![Err(error)],
    };
    let refused = answers.into_iter().filter(|(_, may)| !may).map(|(right, _)| {
        Err(Error::new(ErrorClass::Authorization, format!("the operator may not {}", words(&right)))
            .advice("Give it the roles of the chart or of deploy/"))
    });
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() { vec![Ok(format!("the operator may do all {count} things that it needs"))] } else { refused }
}

/// A right in words: `create pods in namespace customers`.
fn words(right: &OperatorPermission) -> String {
    let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
    let name = right.name.as_deref().map_or_else(String::new, |name| format!(" {name}"));
    let place = right.namespace.as_deref().map_or_else(String::new, |place| format!(" in namespace {place}"));
    format!("{} {}{group}{name}{place}", right.verb, right.resource)
}

/// Whether whoever asks may do something.
async fn is_allowed(client: &Client, right: &OperatorPermission) -> Result<bool> {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: text(right.verb),
                group: text(right.group),
                resource: text(resource),
                subresource: text(subresource),
                name: right.name.clone(),
                namespace: right.namespace.clone(),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| failed("the operator's rights can't be asked for", &error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether an operator leads: the Lease is renewed while this looks, whatever the clocks say.
async fn leader(client: &Client, (namespace, name): (&str, &str)) -> DoctorFinding {
    let nobody = |why: &str| {
        Error::configuration(format!("no operator leads: {why}"))
            .advice(format!("Look at the operator's pods: kubectl --namespace {namespace} get pods, and their logs"))
    };
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let read = async || {
        let lease = leases.get_opt(name).await;
        lease.map(|lease| lease.and_then(|lease| lease.spec)).map_err(|e| failed("the Lease can't be read", &e))
    };
    let Some(before) = read().await? else { return Err(nobody(&format!("there is no Lease {namespace}/{name}"))) };
    let until = Instant::now() + RENEWAL_TIMEOUT;
    while Instant::now() < until {
        sleep(Duration::from_millis(500)).await;
        if let Some(now) = read().await?
            && let Some(holder) = renewed_by(&before, &now)
        {
            return Ok(format!("an operator leads: {holder}"));
        }
    }
    Err(nobody(&format!("nobody renews the Lease {namespace}/{name}")))
}

/// Who renewed a Lease meanwhile.
fn renewed_by<'a>(before: &LeaseSpec, now: &'a LeaseSpec) -> Option<&'a str> {
    let holder = now.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
    (before.renew_time != now.renew_time).then_some(holder)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_right_is_told_as_kubectl_would_be_asked() {
        let right = |group, resource, name: Option<&str>, namespace: Option<&str>| OperatorPermission {
            verb: "patch",
            group,
            resource,
            name: name.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
        };
        assert_eq!(words(&right("", "pods", None, None)), "patch pods");
        let status = right("mailferry.io", "mailboxsyncs/status", None, Some("customers"));
        assert_eq!(words(&status), "patch mailboxsyncs/status.mailferry.io in namespace customers");
        let lease = right("coordination.k8s.io", "leases", Some("l"), Some("n"));
        assert_eq!(words(&lease), "patch leases.coordination.k8s.io l in namespace n");
    }

    #[test]
    fn fields_that_older_definitions_lack_are_named() {
        let schema = json!({"properties": {
            "metadata": {"type": "object"},
            "spec": {"properties": {"old": {"type": "string"},
                                    "list": {"items": {"properties": {"new": {"type": "string"}}}}}},
        }});
        let served = |spec: Value| {
            let kind = json!({"properties": {"metadata": {"allOf": []}, "spec": spec}});
            json!({"components": {"schemas": {"io.mailferry.v1alpha1.Kind": kind}}})
        };
        let ours = [("Kind", schema)];
        let older = json!({"properties": {"old": {}, "list": {"items": {"properties": {}}}}});
        assert_eq!(missing(&served(older), &ours), ["Kind.spec.list[].new"]);
        let newer = json!({"properties": {"old": {}, "newer": {}, "list": {"items": {"properties": {"new": {}}}}}});
        assert_eq!(missing(&served(newer), &ours), [""; 0]);
        assert_eq!(missing(&json!({}), &ours), ["Kind"]);
    }

    #[test]
    fn a_lease_that_nobody_holds_or_renews_has_no_leader() {
        let lease = |holder: &str, time: &str| -> LeaseSpec {
            serde_json::from_value(json!({"holderIdentity": holder, "renewTime": time})).unwrap()
        };
        let (early, late) = ("2026-03-01T00:00:00.000000Z", "2026-03-01T00:00:02.000000Z");
        assert_eq!(renewed_by(&lease("a", early), &lease("a", late)), Some("a"));
        assert_eq!(renewed_by(&lease("a", early), &lease("a", early)), None);
        assert_eq!(renewed_by(&lease("a", early), &lease("", late)), None);
    }
}
