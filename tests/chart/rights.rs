//! What the chart lets the operator do, as a real API server sees it.

use mailferry_testkit::cluster::{ApiResource, ControlPlane, OPERATOR_PERMISSIONS, UserPermissions};
use serde_json::json;

use crate::{
    helm::is_there,
    install::{Release, plane},
};

const NODES: ApiResource = ApiResource::new("", "nodes");
const SERVICE_CIDRS: ApiResource = ApiResource::new("networking.k8s.io", "servicecidrs");

/// What a release's operator may do.
fn permissions<'p>(plane: &'p ControlPlane, release: &'p Release) -> UserPermissions<'p> {
    plane.permissions(&release.namespace, &release.name)
}

#[tokio::test]
async fn an_operator_of_all_namespaces_may_do_what_it_needs_and_nothing_more() {
    if !is_there() {
        return;
    }
    let (plane, release) = (plane(), Release::default_one());
    let namespace = plane.namespace().await;
    for (resource, allowed) in OPERATOR_PERMISSIONS {
        assert_eq!(permissions(plane, &release).verbs(Some(&namespace), resource).await, allowed, "{resource:?}");
    }
    assert_eq!(permissions(plane, &release).verbs(None, NODES).await, "get list");
    assert_eq!(permissions(plane, &release).verbs(None, SERVICE_CIDRS).await, "list");
}

#[tokio::test]
async fn an_operator_of_some_namespaces_has_its_rights_there_and_nowhere_else() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let [home, there, elsewhere] = [plane.namespace().await, plane.namespace().await, plane.namespace().await];
    let release = Release::install(plane, "mailferry", &home, &json!({"watchNamespaces": [there]}));
    for (resource, allowed) in OPERATOR_PERMISSIONS {
        assert_eq!(permissions(plane, &release).verbs(Some(&there), resource).await, allowed, "{resource:?}");
        for other in [&home, &elsewhere] {
            assert_eq!(permissions(plane, &release).verbs(Some(other), resource).await, "", "{resource:?}");
        }
        assert_eq!(permissions(plane, &release).verbs(None, resource).await, "", "{resource:?}");
    }
    let lease = ApiResource::new("coordination.k8s.io", "leases");
    assert_eq!(permissions(plane, &release).verbs(Some(&home), lease).await, "create");
    for verb in ["get", "patch"] {
        assert!(
            permissions(plane, &release).allow(verb, Some(&home), lease, Some("mailferry-controller")).await,
            "{verb}"
        );
    }
    let role = ApiResource::new("rbac.authorization.k8s.io", "roles");
    assert!(permissions(plane, &release).allow("bind", Some(&there), role, Some("mailferry-worker")).await);
    assert!(!permissions(plane, &release).allow("bind", Some(&there), role, Some("mailferry-controller")).await);
    assert_eq!(permissions(plane, &release).verbs(None, NODES).await, "get list");
    assert_eq!(permissions(plane, &release).verbs(None, SERVICE_CIDRS).await, "list");
    assert_eq!(permissions(plane, &release).verbs(Some(&there), ApiResource::new("", "endpoints")).await, "");
}

#[tokio::test]
async fn an_operator_without_rights_on_the_cluster_has_none() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let namespace = plane.namespace().await;
    let values = json!({"watchNamespaces": [namespace], "rbac": {"clusterScoped": false},
                        "config": {"addresses": {"detectCluster": false}}});
    let release = Release::install(plane, "mailferry", &namespace, &values);
    for resource in [NODES, SERVICE_CIDRS, ApiResource::new("", "namespaces")] {
        assert_eq!(permissions(plane, &release).verbs(None, resource).await, "", "{resource:?}");
    }
    assert_eq!(
        permissions(plane, &release).verbs(Some(&namespace), ApiResource::new("", "secrets")).await,
        "get create patch delete"
    );
}

#[tokio::test]
async fn an_operator_without_the_right_to_secrets_has_all_others() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let [home, there] = [plane.namespace().await, plane.namespace().await];
    let values = json!({"watchNamespaces": [there], "rbac": {"secrets": false}});
    let release = Release::install(plane, "mailferry", &home, &values);
    for (resource, allowed) in OPERATOR_PERMISSIONS {
        let allowed = if resource.resource == "secrets" { "" } else { allowed };
        assert_eq!(permissions(plane, &release).verbs(Some(&there), resource).await, allowed, "{resource:?}");
    }
}

#[tokio::test]
async fn of_two_releases_each_has_its_own_namespaces() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let [home, one, two] = [plane.namespace().await, plane.namespace().await, plane.namespace().await];
    // Of one namespace, which is harder than of two.
    let first = Release::install(plane, "first", &home, &json!({"watchNamespaces": [one]}));
    let second = Release::install(plane, "second", &home, &json!({"watchNamespaces": [two]}));
    let pods = ApiResource::new("", "pods");
    for (release, own, others) in [(&first, &one, &two), (&second, &two, &one)] {
        assert!(permissions(plane, release).allow("create", Some(own), pods, None).await);
        assert!(!permissions(plane, release).allow("create", Some(others), pods, None).await);
    }
    // One goes, and takes nothing of the other's.
    first.uninstall(plane);
    assert!(permissions(plane, &second).allow("create", Some(&two), pods, None).await);
    assert!(!permissions(plane, &first).allow("create", Some(&one), pods, None).await);
}
