//! How whoever runs the cluster configures the operator: what no tenant decides.

use std::{collections::BTreeMap, path::Path};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    api::MailboxSyncSpec,
    error::{Error, Result},
    yaml,
};

/// The operator's configuration file; each field has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OperatorConfig {
    /// Syncs that run at one time, all migrations together.
    pub max_syncs: u32,
    /// Pods made within a second.
    pub pod_starts_per_second: u32,
    /// Connections and starts for hosts, across the cluster: by `host` or `host:port`.
    pub host_limits: BTreeMap<String, HostLimit>,
    /// Where mail servers may be.
    pub addresses: Addresses,
    /// Namespaces where master users may be used.
    pub master_users: Vec<MasterUserRule>,
    /// Labels of the pods' log level, as `RUST_LOG` has it.
    pub worker_log_level: String,
    /// Secrets for pulling the workers' image; they must be there in each namespace with migrations.
    pub image_pull_secrets: Vec<String>,
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self {
            max_syncs: 200,
            pod_starts_per_second: 20,
            host_limits: BTreeMap::new(),
            addresses: Addresses::default(),
            master_users: Vec::new(),
            worker_log_level: "info".to_owned(),
            image_pull_secrets: Vec::new(),
        }
    }
}

/// What a host is spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostLimit {
    /// Connections at one time.
    pub max_connections: Option<usize>,
    /// Syncs started within a minute.
    pub starts_per_minute: Option<usize>,
}

/// Where mail servers may be, judged at each connect. Loopback, link-local, multicast and unspecified addresses are
/// always denied unless allowed here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Addresses {
    /// Networks that are allowed although denied otherwise.
    pub allow: Vec<IpNet>,
    /// Networks that are denied: the cluster's own.
    pub deny: Vec<IpNet>,
}

/// Who may use master users: whoever can write a MailMigration there reads the mail of all users that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MasterUserRule {
    /// The namespace.
    pub namespace: String,
    /// Ends of user names, such as `@customer.example`; an empty one matches all.
    pub user_suffixes: Vec<String>,
}

/// What goes into sync pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerConfig {
    /// The container image.
    pub image: String,
    /// When it is pulled: Always, `IfNotPresent`, Never.
    pub image_pull_policy: Option<String>,
    /// Networks that are denied, by comma.
    pub deny_addresses: String,
    /// Networks that are allowed, by comma.
    pub allow_addresses: String,
    /// `RUST_LOG`.
    pub log_level: String,
}

impl OperatorConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// Configuration when it can't be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            Error::configuration(format!("the operator's configuration {}: {why}", path.display()))
                .advice("Correct the file; `mailferry controller --help` names its fields")
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        yaml::read(&format!("the operator's configuration {}", path.display()), &text)
    }

    /// The limit of a server.
    #[must_use]
    pub fn host_limit(&self, host: &str, port: i32) -> HostLimit {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let of = |key: &str| {
            self.host_limits.iter().find(|(name, _)| name.to_ascii_lowercase() == key).map(|(_, limit)| *limit)
        };
        of(&format!("{host}:{port}")).or_else(|| of(&host)).unwrap_or_default()
    }

    /// Why a mailbox may not use its master user here, if so.
    #[must_use]
    pub fn forbids(&self, namespace: &str, spec: &MailboxSyncSpec) -> Option<String> {
        [("source", &spec.source), ("destination", &spec.destination)].into_iter().find_map(|(side, endpoint)| {
            endpoint.master_user.as_ref()?;
            if endpoint.server_ref.is_none() {
                return Some(format!(
                    "{side}.masterUser works only with a serverRef: a host of one's own choice would learn its password"
                ));
            }
            let user = endpoint.account.username.as_deref().unwrap_or_default().to_lowercase();
            let rules: Vec<_> = self.master_users.iter().filter(|rule| rule.namespace == namespace).collect();
            if rules.is_empty() {
                return Some(format!("{side}.masterUser is not allowed in namespace {namespace}"));
            }
            let allowed =
                rules.iter().flat_map(|rule| &rule.user_suffixes).any(|suffix| user.ends_with(&suffix.to_lowercase()));
            (!allowed).then(|| format!("{side}.masterUser is not allowed for {user} in namespace {namespace}"))
        })
    }
}
