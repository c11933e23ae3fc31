//! What the chart lets the operator do, as a real API server sees it.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use mailferry_testkit::cluster::ControlPlane;
use serde_json::json;

use crate::{
    helm::is_there,
    install::{Release, plane},
};

/// Group, resource, subresource.
type Resource = (&'static str, &'static str, &'static str);

/// What the operator may do in a namespace with migrations.
const THERE: [(Resource, &str); 12] = [
    (("mailferry.io", "mailmigrations", ""), "get list watch"),
    (("mailferry.io", "mailmigrations", "status"), "get patch"),
    (("mailferry.io", "mailservers", ""), "get list watch"),
    (("mailferry.io", "mailservers", "status"), "get patch"),
    (("mailferry.io", "mailboxsyncs", ""), "get list watch create patch delete"),
    (("mailferry.io", "mailboxsyncs", "status"), "get patch"),
    (("", "pods", ""), "get list watch create patch delete"),
    (("", "pods", "exec"), ""),
    (("", "secrets", ""), "get create delete"),
    (("", "serviceaccounts", ""), "get create patch"),
    (("", "serviceaccounts", "token"), ""),
    (("events.k8s.io", "events", ""), "create patch"),
];

/// The verbs that a release's operator may use on something.
async fn verbs(plane: &ControlPlane, release: &Release, namespace: Option<&str>, resource: Resource) -> String {
    const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let mut found = Vec::new();
    for verb in VERBS {
        if may(plane, release, namespace, resource, verb, None).await {
            found.push(verb);
        }
    }
    found.join(" ")
}

async fn may(
    plane: &ControlPlane,
    release: &Release,
    namespace: Option<&str>,
    (group, resource, subresource): Resource,
    verb: &str,
    name: Option<&str>,
) -> bool {
    let text = |text: &str| Some(text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{}:{}", release.namespace, release.name)),
            resource_attributes: Some(ResourceAttributes {
                namespace: namespace.map(str::to_owned),
                group: text(group),
                resource: text(resource),
                subresource: text(subresource),
                verb: text(verb),
                name: name.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews = Api::<SubjectAccessReview>::all(plane.client());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test]
async fn an_operator_of_all_namespaces_may_do_what_it_needs_and_nothing_more() {
    if !is_there() {
        return;
    }
    let (plane, release) = (plane(), Release::default_one());
    let namespace = plane.namespace().await;
    for (resource, allowed) in THERE {
        assert_eq!(verbs(plane, &release, Some(&namespace), resource).await, allowed, "{resource:?}");
    }
    assert_eq!(verbs(plane, &release, None, ("", "nodes", "")).await, "get list");
    assert_eq!(verbs(plane, &release, None, ("networking.k8s.io", "servicecidrs", "")).await, "list");
}

#[tokio::test]
async fn an_operator_of_some_namespaces_has_its_rights_there_and_nowhere_else() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let [home, there, elsewhere] = [plane.namespace().await, plane.namespace().await, plane.namespace().await];
    let release = Release::install(plane, "mailferry", &home, &json!({"watchNamespaces": [there]}));
    for (resource, allowed) in THERE {
        assert_eq!(verbs(plane, &release, Some(&there), resource).await, allowed, "{resource:?}");
        for other in [&home, &elsewhere] {
            assert_eq!(verbs(plane, &release, Some(other), resource).await, "", "{resource:?}");
        }
        assert_eq!(verbs(plane, &release, None, resource).await, "", "{resource:?}");
    }
    let lease = ("coordination.k8s.io", "leases", "");
    assert_eq!(verbs(plane, &release, Some(&home), lease).await, "create");
    for verb in ["get", "patch"] {
        assert!(may(plane, &release, Some(&home), lease, verb, Some("mailferry-controller")).await, "{verb}");
    }
    let role = ("rbac.authorization.k8s.io", "roles", "");
    assert!(may(plane, &release, Some(&there), role, "bind", Some("mailferry-worker")).await);
    assert!(!may(plane, &release, Some(&there), role, "bind", Some("mailferry-controller")).await);
    assert_eq!(verbs(plane, &release, None, ("", "nodes", "")).await, "get list");
    assert_eq!(verbs(plane, &release, None, ("networking.k8s.io", "servicecidrs", "")).await, "list");
    assert_eq!(verbs(plane, &release, Some(&there), ("", "configmaps", "")).await, "");
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
    for resource in [("", "nodes", ""), ("networking.k8s.io", "servicecidrs", ""), ("", "namespaces", "")] {
        assert_eq!(verbs(plane, &release, None, resource).await, "", "{resource:?}");
    }
    assert_eq!(verbs(plane, &release, Some(&namespace), ("", "secrets", "")).await, "get create delete");
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
    let pods = ("", "pods", "");
    for (release, own, others) in [(&first, &one, &two), (&second, &two, &one)] {
        assert!(may(plane, release, Some(own), pods, "create", None).await);
        assert!(!may(plane, release, Some(others), pods, "create", None).await);
    }
    // One goes, and takes nothing of the other's.
    first.uninstall(plane);
    assert!(may(plane, &second, Some(&two), pods, "create", None).await);
    assert!(!may(plane, &first, Some(&one), pods, "create", None).await);
}
