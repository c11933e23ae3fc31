//! How whoever runs the cluster configures the operator: what no tenant decides.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    path::Path,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    destination_policy::{self, AllowedDestination},
    grants::{self, GrantRule},
    master_users::AllowedUsers,
    pod_defaults::PodDefaults,
};
use crate::{
    api::{Duration, MailboxSyncSpec, MasterMode, MasterUser, names::WORKER_NAME},
    error::{Error, Result},
    host_name::HostName,
    terminal_text::harmless,
    yaml,
};

/// The operator's configuration file; each field has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OperatorConfig {
    /// Syncs that run at one time, all migrations together.
    pub max_syncs: u32,
    /// Syncs of one namespace that run at one time, all its migrations together; none: as many as `max_syncs`.
    pub max_syncs_per_namespace: Option<NonZeroU32>,
    /// What single namespaces may do, where it is something else.
    pub namespaces: BTreeMap<String, NamespaceLimit>,
    /// Pods made within a second.
    pub pod_starts_per_second: u32,
    /// MailboxSyncs in one namespace, all migrations together: each takes room in the operator's memory. More are not made.
    pub max_mailboxes_per_namespace: u32,
    /// Connections and starts for hosts, across the cluster: by `host` or `host:port`.
    pub host_limits: BTreeMap<String, HostLimit>,
    /// Where mail servers may be.
    pub addresses: AddressConfig,
    /// What tenants may do.
    pub policy: TenantPolicy,
    /// What is bound to sync pods' `ServiceAccount`.
    pub worker_role: WorkerRole,
    /// Namespaces where master users may be used.
    pub master_users: Vec<MasterUserRule>,
    /// By what the operator gets access tokens for mailboxes.
    pub grants: Vec<GrantRule>,
    /// What sync pods log: a level, or levels by module, as `RUST_LOG` has it.
    pub worker_log_level: String,
    /// Secrets for pulling the workers' image; they must be there in each namespace with migrations.
    pub image_pull_secrets: Vec<String>,
    /// Let a service mesh inject its containers into sync pods as into others of their namespace; else pods ask it not to.
    pub inject_sidecars: bool,
    /// How long a sync pod waits for a node before it gives its slots back, such as for an autoscaler's.
    pub scheduling_timeout: Duration,
    /// What every sync pod has, unless its migration says otherwise.
    pub worker_pods: PodDefaults,
    /// What its roles let it do with Secrets. Not of the file: `--read-secrets` says it.
    #[serde(skip)]
    pub secrets: SecretAccess,
}

/// What the operator's roles let it do with Secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecretAccess {
    /// It gets them by name, and makes and deletes those that it splits a CSV into.
    #[default]
    Granted,
    /// Nothing: only pods mount them.
    LeftOut,
}

impl SecretAccess {
    /// What `--read-secrets` means.
    #[must_use]
    pub(crate) const fn from_flag(read: bool) -> Self {
        if read { Self::Granted } else { Self::LeftOut }
    }
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self {
            max_syncs: 200,
            max_syncs_per_namespace: None,
            namespaces: BTreeMap::new(),
            pod_starts_per_second: 20,
            max_mailboxes_per_namespace: 10_000,
            host_limits: BTreeMap::new(),
            addresses: AddressConfig::default(),
            policy: TenantPolicy::default(),
            worker_role: WorkerRole::default(),
            master_users: Vec::new(),
            grants: Vec::new(),
            worker_log_level: "info".to_owned(),
            image_pull_secrets: Vec::new(),
            inject_sidecars: false,
            scheduling_timeout: Duration::from_secs(30 * 60),
            worker_pods: PodDefaults::default(),
            secrets: SecretAccess::Granted,
        }
    }
}

/// What a namespace may have of the syncs that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NamespaceLimit {
    /// Syncs that run at one time; none: `maxSyncsPerNamespace`.
    pub max_syncs: Option<NonZeroU32>,
    /// How many syncs it gets for each one of a namespace that is not named here, while both wait.
    pub weight: NonZeroU32,
}

impl Default for NamespaceLimit {
    fn default() -> Self {
        Self { max_syncs: None, weight: NonZeroU32::MIN }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AddressConfig {
    /// Networks that are allowed although denied otherwise.
    pub allow: Vec<IpNet>,
    /// Networks that are denied, beside those that the cluster tells of.
    pub deny: Vec<IpNet>,
    /// Ask the cluster which networks are its own (Services, the pods and addresses of nodes), and deny them.
    pub detect_cluster: bool,
}

impl Default for AddressConfig {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), detect_cluster: true }
    }
}

/// What tenants may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TenantPolicy {
    /// Where mail may be moved to; empty: anywhere.
    pub allowed_destinations: Vec<AllowedDestination>,
    /// Networks that sources are connected to in, of those that [`AddressConfig`] permits; empty: in all of them.
    pub allowed_source_addresses: Vec<IpNet>,
}

/// The role of sync pods: the right to report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkerRole {
    /// What kind of role it is.
    pub kind: RoleKind,
    /// Its name; a `Role` must be there in each namespace with migrations.
    pub name: String,
}

impl Default for WorkerRole {
    fn default() -> Self {
        Self { kind: RoleKind::ClusterRole, name: WORKER_NAME.to_owned() }
    }
}

/// Kinds of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoleKind {
    /// One for all namespaces.
    ClusterRole,
    /// One in each namespace.
    Role,
}

impl RoleKind {
    /// Its name in the API.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterRole => "ClusterRole",
            Self::Role => "Role",
        }
    }
}

/// Who may use master users: whoever can write a MailMigration there reads the mail of all users that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MasterUserRule {
    /// The namespace.
    pub namespace: String,
    /// Whose mail: all of a domain (`@customer.example`), one user (`alice@customer.example`), everybody (`*`).
    pub users: Vec<AllowedUsers>,
}

/// What goes into sync pods.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerConfig {
    /// The container image.
    pub image: String,
    /// When it is pulled: Always, `IfNotPresent`, Never.
    pub image_pull_policy: Option<String>,
    /// `RUST_LOG`.
    pub log_level: String,
    /// True: pods do not ask a service mesh to leave them alone.
    pub inject_sidecars: bool,
    /// What each has, unless its migration says otherwise.
    pub pods: PodDefaults,
}

impl OperatorConfig {
    /// Reads a file, where there is one; `secrets`: what the operator's roles let it do.
    ///
    /// # Errors
    /// Configuration when it can't be read, or holds something else.
    pub(crate) fn read(path: Option<&Path>, secrets: SecretAccess) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { secrets, ..Self::default() }) };
        let wrong = |why: String| {
            Error::configuration(format!("the operator's configuration {}: {why}", path.display()))
                .advice("Correct the file; `mailferry controller --help` names its fields")
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let read: Self = yaml::read(&format!("the operator's configuration {}", path.display()), &text)?;
        grants::check_grants(&read.grants)?;
        if !read.grants.is_empty() && secrets == SecretAccess::LeftOut {
            return Err(wrong("grants need the right to get and write Secrets, and the operator has none".to_owned()));
        }
        Ok(Self { secrets, ..read })
    }

    /// Why a mailbox may not log in by its grants here, if so.
    #[must_use]
    pub(crate) fn forbids_grant(&self, namespace: &str, spec: &MailboxSyncSpec) -> Option<Error> {
        grants::forbids_grant(&self.grants, namespace, spec)
    }

    /// The grant of that name.
    #[must_use]
    pub(crate) fn grant(&self, name: &str) -> Option<&GrantRule> {
        self.grants.iter().find(|grant| grant.name == name)
    }

    /// The most syncs of a namespace at one time, if that is limited.
    #[must_use]
    pub(crate) fn namespace_max_syncs(&self, namespace: &str) -> Option<usize> {
        let limit = self.namespaces.get(namespace).and_then(|limit| limit.max_syncs).or(self.max_syncs_per_namespace);
        limit.and_then(|limit| usize::try_from(limit.get()).ok())
    }

    /// The weights of namespaces that are named.
    #[must_use]
    pub(crate) fn namespace_weights(&self) -> HashMap<String, u32> {
        self.namespaces.iter().map(|(namespace, limit)| (namespace.clone(), limit.weight.get())).collect()
    }

    /// The limit of a server.
    #[must_use]
    pub(crate) fn host_limit(&self, host: &str, port: i32) -> HostLimit {
        let host = HostName::new(host);
        let of = |key: &str| {
            self.host_limits.iter().find(|(name, _)| name.to_ascii_lowercase() == key).map(|(_, limit)| *limit)
        };
        of(&format!("{host}:{port}")).or_else(|| of(host.as_str())).unwrap_or_default()
    }

    /// Why mail may not be moved to a host, if so; `reference`: the MailServer that the host stands in.
    #[must_use]
    pub(crate) fn forbids_destination(&self, host: &str, reference: Option<&str>) -> Option<Error> {
        let allowed = destination_policy::allows_host(&self.policy.allowed_destinations, host);
        (!allowed).then(|| destination_policy::refusal_error(host, reference))
    }

    /// Namespaces with a rule about master users or grants that are not among those `watched` (none: all are), and so without effect.
    pub(crate) fn unwatched_rule_namespaces<'a>(&'a self, watched: &'a [String]) -> impl Iterator<Item = &'a str> {
        let of_grants = self.grants.iter().flat_map(|grant| &grant.namespaces).map(String::as_str);
        let rules = self.master_users.iter().map(|rule| rule.namespace.as_str()).chain(of_grants);
        rules.filter(move |namespace| !watched.is_empty() && !watched.iter().any(|there| there == namespace))
    }

    /// Why a mailbox may not use its master user here, if so.
    #[must_use]
    pub(crate) fn forbids_master_user(&self, namespace: &str, spec: &MailboxSyncSpec) -> Option<String> {
        [("source", &spec.source), ("destination", &spec.destination)].into_iter().find_map(|(side, endpoint)| {
            let master = endpoint.master_user.as_ref()?;
            if endpoint.server_ref.is_none() {
                return Some(format!(
                    "{side}.masterUser works only with a serverRef: a host of one's own choice would learn its password"
                ));
            }
            let user = endpoint.account.username.as_deref().unwrap_or_default();
            let separator = master.separator.as_deref().unwrap_or(MasterUser::DEFAULT_SEPARATOR);
            if master.mode == MasterMode::Suffix && user.contains(separator) {
                // Servers divide at the first or at the last one: it would be another user than the one that is judged.
                return Some(format!(
                    "{side}.masterUser can't log in for a user whose name holds its separator {separator}"
                ));
            }
            let rules: Vec<_> = self.master_users.iter().filter(|rule| rule.namespace == namespace).collect();
            if rules.is_empty() {
                return Some(format!("{side}.masterUser is not allowed in namespace {namespace}"));
            }
            let allowed = rules.iter().flat_map(|rule| &rule.users).any(|users| users.allows(user));
            (!allowed).then(|| {
                let user = harmless(user);
                format!("{side}.masterUser is not allowed for {user} in namespace {namespace}")
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorClass,
        api::{SyncEndpoint, common::LocalRef},
    };

    fn config(yaml: &str) -> OperatorConfig {
        yaml::read("the configuration", yaml).unwrap()
    }

    /// A mailbox whose source is read by a master user.
    fn by_master(user: &str, reference: Option<&str>) -> MailboxSyncSpec {
        let mut spec = spec();
        spec.source = by(user, reference);
        spec
    }

    fn by(user: &str, reference: Option<&str>) -> SyncEndpoint {
        let mut endpoint = SyncEndpoint {
            server_ref: reference.map(|name| LocalRef { name: name.to_owned() }),
            master_user: serde_json::from_value(
                serde_json::json!({"username": "admin", "passwordSecretRef": {"name": "s", "key": "k"}}),
            )
            .unwrap(),
            ..SyncEndpoint::default()
        };
        endpoint.account.username = Some(user.to_owned());
        endpoint
    }

    fn spec() -> MailboxSyncSpec {
        MailboxSyncSpec {
            migration: "x".into(),
            mailbox: "y".into(),
            source: SyncEndpoint::default(),
            destination: SyncEndpoint::default(),
            settings: crate::api::SyncSettings::default().into(),
            suspend: false,
            cancel: false,
            sync_request: None,
            start_at: None,
            pod_overrides: None,
        }
    }

    const RULES: &str = "masterUsers:\n\
        - {namespace: customers, users: [\"@acme.example\", \"@Other.Example\"]}\n\
        - {namespace: ours, users: [\"*\"]}\n\
        - {namespace: none, users: []}\n";

    #[test]
    fn a_mailbox_without_a_master_user_is_allowed_everywhere() {
        assert_eq!(OperatorConfig::default().forbids_master_user("anywhere", &spec()), None);
    }

    #[test]
    fn a_master_user_is_allowed_in_listed_namespaces_only() {
        let bob = by_master("bob@acme.example", Some("old"));
        let why = OperatorConfig::default().forbids_master_user("customers", &bob).unwrap();
        assert_eq!(why, "source.masterUser is not allowed in namespace customers");
        let config = config(RULES);
        assert_eq!(config.forbids_master_user("customers", &bob), None);
        assert_eq!(config.forbids_master_user("ours", &bob), None);
        for namespace in ["customer", "customers2", "Customers", ""] {
            assert!(config.forbids_master_user(namespace, &bob).is_some(), "{namespace}");
        }
    }

    #[test]
    fn a_master_user_is_allowed_for_listed_users_in_any_case() {
        let config = config(RULES);
        for user in ["bob@acme.example", "Bob@ACME.Example", "al@other.example"] {
            assert_eq!(config.forbids_master_user("customers", &by_master(user, Some("old"))), None, "{user}");
        }
        for user in ["bob@acme.example.org", "bob@notacme.example", "acme.example", ""] {
            let why = config.forbids_master_user("customers", &by_master(user, Some("old"))).unwrap();
            assert_eq!(why, format!("source.masterUser is not allowed for {user} in namespace customers"));
        }
        assert_eq!(config.forbids_master_user("ours", &by_master("anybody", Some("old"))), None);
        assert!(config.forbids_master_user("none", &by_master("anybody", Some("old"))).is_some());
    }

    #[test]
    fn a_user_name_that_is_more_than_a_name_is_forbidden() {
        let rules = config(RULES);
        let forged = by_master("ceo@other.example\u{1}x=@acme.example", Some("old"));
        let why = rules.forbids_master_user("customers", &forged).unwrap();
        assert!(why.starts_with("source.masterUser is not allowed for ceo@other.example") && !why.contains('\u{1}'));
        let mut divided = by_master("ceo@other.example*x@acme.example", Some("old"));
        assert_eq!(rules.forbids_master_user("customers", &divided), None, "it is an authorization identity");
        divided.source.master_user.as_mut().unwrap().mode = MasterMode::Suffix;
        let why = rules.forbids_master_user("customers", &divided).unwrap();
        assert_eq!(why, "source.masterUser can't log in for a user whose name holds its separator *");
    }

    #[test]
    fn a_master_user_needs_a_mail_server_that_its_user_did_not_write() {
        let why = config(RULES).forbids_master_user("ours", &by_master("bob@acme.example", None)).unwrap();
        assert!(why.starts_with("source.masterUser works only with a serverRef"), "{why}");
    }

    #[test]
    fn a_master_user_at_the_destination_is_judged_too() {
        let mut spec = by_master("bob@acme.example", Some("old"));
        spec.destination = by("bob@new.example", Some("new"));
        let why = config(RULES).forbids_master_user("customers", &spec).unwrap();
        assert_eq!(why, "destination.masterUser is not allowed for bob@new.example in namespace customers");
        spec.destination = by("bob@acme.example", None);
        assert!(
            config(RULES)
                .forbids_master_user("customers", &spec)
                .unwrap()
                .starts_with("destination.masterUser works only")
        );
    }

    #[test]
    fn a_destination_that_is_not_listed_is_forbidden_and_the_list_stays_untold() {
        let config = config("policy: {allowedDestinations: [mail.newhost.example, .other.example]}\n");
        for host in ["mail.newhost.example", "a.other.example"] {
            assert_eq!(config.forbids_destination(host, None), None, "{host}");
        }
        let text = config.forbids_destination("mail.elsewhere.example", Some("new")).unwrap().to_string();
        assert!(text.contains("mail.elsewhere.example") && text.contains("MailServer new"), "{text}");
        assert!(!text.contains("newhost") && !text.contains("other.example"), "{text}");
        assert_eq!(OperatorConfig::default().forbids_destination("anywhere.example", None), None);
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        for (wrong, what) in [
            ("policy: {allowedDestinations: ['*.newhost.example']}", "`*.newhost.example` is no destination"),
            ("policy: {allowedDestination: [a.example]}", "allowedDestination"),
            ("policy: {allowedSourceAddresses: [10.0.0.0/33]}", "allowedSourceAddresses"),
            ("workerRole: {kind: roles}", "roles"),
        ] {
            let error = yaml::read::<OperatorConfig>("the configuration", wrong).unwrap_err();
            assert!(error.class == ErrorClass::Configuration && error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn the_role_of_workers_is_named_with_its_kind() {
        let role = config("workerRole: {kind: Role}").worker_role;
        assert_eq!((role.kind.as_str(), role.name.as_str()), ("Role", "mailferry-worker"));
    }

    #[test]
    fn rules_about_namespaces_that_are_not_watched_are_told() {
        let config = config(RULES);
        let elsewhere = |watched: &[&str]| {
            let watched: Vec<_> = watched.iter().map(|name| (*name).to_owned()).collect();
            config.unwatched_rule_namespaces(&watched).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(elsewhere(&[]), [""; 0]);
        assert_eq!(elsewhere(&["ours", "customers", "more"]), ["none"]);
    }

    #[test]
    fn a_hosts_limit_is_that_of_its_port_before_that_of_its_name() {
        let config = config(
            "hostLimits:\n  Mail.Example: {maxConnections: 40, startsPerMinute: 30}\n  mail.example:143: {maxConnections: 5}\n",
        );
        let limit = |max_connections, starts_per_minute| HostLimit { max_connections, starts_per_minute };
        assert_eq!(config.host_limit("mail.example", 993), limit(Some(40), Some(30)));
        assert_eq!(config.host_limit("MAIL.example.", 993), limit(Some(40), Some(30)));
        assert_eq!(config.host_limit("mail.example", 143), limit(Some(5), None));
        assert_eq!(config.host_limit("other.example", 993), HostLimit::default());
        assert_eq!(config.host_limit("sub.mail.example", 993), HostLimit::default());
    }

    #[test]
    fn a_namespaces_limit_is_its_own_before_that_of_all() {
        let config = config("maxSyncsPerNamespace: 20\nnamespaces:\n  large: {maxSyncs: 80, weight: 4}\n  odd: {}\n");
        let limits = ["large", "odd", "other"].map(|namespace| config.namespace_max_syncs(namespace));
        assert_eq!(limits, [Some(80), Some(20), Some(20)]);
        assert_eq!((config.namespace_weights()["large"], config.namespace_weights()["odd"]), (4, 1));
        assert_eq!(OperatorConfig::default().namespace_max_syncs("large"), None);
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = config("addresses: {deny: [192.0.2.0/24]}\n");
        assert!(config.addresses.detect_cluster && config.addresses.allow.is_empty());
        assert_eq!(config, OperatorConfig { addresses: config.addresses.clone(), ..OperatorConfig::default() });
    }

    #[test]
    fn a_field_that_there_is_not_is_refused_by_name() {
        for (wrong, field) in [
            ("maxSync: 3", "maxSync"),
            ("addresses: {denied: []}", "denied"),
            ("hostLimits: {mail.example: {connections: 3}}", "connections"),
            ("namespaces: {a: {maxSync: 3}}", "maxSync"),
            ("namespaces: {a: {weight: 0}}", "nonzero"),
            ("masterUsers: [{namespace: a, users: [], userSuffixes: []}]", "userSuffixes"),
        ] {
            let error = yaml::read::<OperatorConfig>("the configuration", wrong).unwrap_err();
            assert_eq!(error.class, ErrorClass::Configuration);
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn the_configuration_that_is_installed_can_be_read() {
        let yaml = include_str!("../../deploy/config.yaml");
        let map: serde_json::Value = serde_yaml::from_str(yaml).unwrap();
        assert_eq!(config(map["data"]["operator.yaml"].as_str().unwrap()), OperatorConfig::default());
    }
}
