//! What the operator needs to be allowed to do: pure. The roles of deploy/ and of the chart give exactly this.

use super::{
    config::{OperatorConfig, RoleKind, SecretAccess},
    grants::GrantRule,
};
use crate::api::names::WORKER_NAME;

/// Something that the operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorPermission {
    /// `get`, `list`, ...
    pub verb: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The plural name of a kind, maybe with `/` and a subresource.
    pub resource: &'static str,
    /// Objects of this name only.
    pub name: Option<String>,
    /// In this namespace only; none: in all, or for what lies in none.
    pub namespace: Option<String>,
}

/// What it can be installed without.
const SECRETS: &str = "secrets";

/// What it does in namespaces with migrations: group, resource, verbs.
const IN_NAMESPACES: [(&str, &str, &[&str]); 14] = [
    ("mailferry.io", "mailmigrations", &["get", "list", "watch"]),
    ("mailferry.io", "mailmigrations/status", &["get", "patch"]),
    ("mailferry.io", "mailmigrations/finalizers", &["update"]),
    ("mailferry.io", "mailservers", &["get", "list", "watch"]),
    ("mailferry.io", "mailservers/status", &["get", "patch"]),
    ("mailferry.io", "mailboxsyncs", &["get", "list", "watch", "create", "patch", "delete"]),
    ("mailferry.io", "mailboxsyncs/status", &["get", "patch"]),
    ("mailferry.io", "mailboxsyncs/finalizers", &["update"]),
    ("", "pods", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", SECRETS, &["get", "create", "patch", "delete"]),
    ("", "configmaps", &["get"]),
    ("", "serviceaccounts", &["get", "create", "patch"]),
    ("rbac.authorization.k8s.io", "rolebindings", &["get", "create", "patch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

/// All rights of an operator that watches these namespaces, or all where there are none.
#[must_use]
pub(crate) fn required_permissions(config: &OperatorConfig, namespaces: &[String]) -> Vec<OperatorPermission> {
    let everywhere = [None];
    let listed: Vec<_> = namespaces.iter().cloned().map(Some).collect();
    let places = if listed.is_empty() { &everywhere[..] } else { &listed };
    let mut rights = Vec::new();
    for namespace in places {
        let right = |group, resource, verb, name| OperatorPermission {
            verb,
            group,
            resource,
            name,
            namespace: namespace.clone(),
        };
        let left_out = |resource: &str| resource == SECRETS && config.secrets == SecretAccess::LeftOut;
        for (group, resource, verbs) in IN_NAMESPACES.into_iter().filter(|(_, resource, _)| !left_out(resource)) {
            rights.extend(verbs.iter().map(|verb| right(group, resource, verb, None)));
        }
        let roles = match config.worker_role.kind {
            RoleKind::ClusterRole => "clusterroles",
            RoleKind::Role => "roles",
        };
        rights.push(right("rbac.authorization.k8s.io", roles, "bind", Some(config.worker_role.name.clone())));
        rights.push(right("rbac.authorization.k8s.io", "rolebindings", "delete", Some(WORKER_NAME.to_owned())));
    }
    if config.addresses.detect_cluster {
        let right = |group, resource| OperatorPermission { verb: "list", group, resource, name: None, namespace: None };
        rights.extend([right("", "nodes"), right("networking.k8s.io", "servicecidrs")]);
    }
    rights
}

/// What it needs in its own namespace: the Secrets of its grants.
#[must_use]
pub(crate) fn grant_permissions(config: &OperatorConfig, own_namespace: &str) -> Vec<OperatorPermission> {
    let right = |grant: &GrantRule| OperatorPermission {
        verb: "get",
        group: "",
        resource: SECRETS,
        name: Some(grant.secret_ref.name.clone()),
        namespace: Some(own_namespace.to_owned()),
    };
    config.grants.iter().map(right).collect()
}

/// What the operator can do without: a lost node's taint then tells it nothing.
#[must_use]
pub(crate) const fn optional_permission() -> OperatorPermission {
    OperatorPermission { verb: "get", group: "", resource: "nodes", name: None, namespace: None }
}

/// What leader election needs of a Lease.
#[must_use]
pub(crate) fn lease_permissions(namespace: &str, lease: &str) -> Vec<OperatorPermission> {
    let right = |verb, name: Option<&str>| OperatorPermission {
        verb,
        group: "coordination.k8s.io",
        resource: "leases",
        name: name.map(str::to_owned),
        namespace: Some(namespace.to_owned()),
    };
    vec![right("create", None), right("get", Some(lease)), right("patch", Some(lease))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn config(text: &str) -> OperatorConfig {
        yaml::read("the configuration", text).unwrap()
    }

    #[test]
    fn an_operator_of_all_namespaces_needs_its_rights_in_none_by_name() {
        let rights = required_permissions(&OperatorConfig::default(), &[]);
        assert!(rights.iter().all(|right| right.namespace.is_none()));
        let bind = rights.iter().find(|right| right.verb == "bind").unwrap();
        assert_eq!((bind.resource, bind.name.as_deref()), ("clusterroles", Some("mailferry-worker")));
    }

    #[test]
    fn an_operator_of_some_namespaces_needs_them_in_each_and_lists_nodes_everywhere() {
        let config = config("workerRole: {kind: Role, name: w}");
        let rights = required_permissions(&config, &["a".to_owned(), "b".to_owned()]);
        for namespace in ["a", "b"] {
            let binds =
                |right: &&OperatorPermission| right.namespace.as_deref() == Some(namespace) && right.verb == "bind";
            let bind = rights.iter().find(binds).unwrap();
            assert_eq!((bind.resource, bind.name.as_deref()), ("roles", Some("w")));
        }
        let cluster: Vec<_> = rights.iter().filter(|right| right.namespace.is_none()).collect();
        assert!(cluster.iter().all(|right| right.verb == "list") && cluster.len() == 2, "{cluster:?}");
    }

    #[test]
    fn an_operator_that_reads_no_secrets_needs_no_right_to() {
        let of_secrets = |config: &OperatorConfig| {
            let rights = required_permissions(config, &[]);
            rights.into_iter().filter(|right| right.resource == SECRETS).map(|right| right.verb).collect::<Vec<_>>()
        };
        assert_eq!(of_secrets(&OperatorConfig::default()), ["get", "create", "patch", "delete"]);
        let without = OperatorConfig { secrets: SecretAccess::LeftOut, ..OperatorConfig::default() };
        assert_eq!(of_secrets(&without), [""; 0]);
    }

    #[test]
    fn nodes_are_not_listed_where_networks_are_not_asked_for() {
        let rights = required_permissions(&config("addresses: {detectCluster: false}"), &["a".to_owned()]);
        assert!(rights.iter().all(|right| right.namespace.is_some()));
    }
}
