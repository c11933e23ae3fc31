//! Releases on a real API server: installed, looked at, upgraded, uninstalled. Nobody runs their pods.

use std::sync::OnceLock;

use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicy,
        apps::v1::Deployment,
        core::v1::{Namespace, Pod, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use mailferry_testkit::{
    cluster::{self, ControlPlane},
    eventually, so,
};
use serde_json::{Value, json};

use crate::helm::{Objects, RELEASE, SYSTEM, is_there, output, rendered, run, text_as};

const KINDS: [&str; 3] = ["v1alpha1.MailServer\"", "v1alpha1.MailMigration\"", "v1alpha1.MailboxSync\""];

/// The shared control plane, with a default installation.
pub fn plane() -> &'static ControlPlane {
    static READY: OnceLock<&'static ControlPlane> = OnceLock::new();
    READY.get_or_init(|| {
        let plane = cluster::shared_control_plane();
        install(plane, (RELEASE, SYSTEM), &json!({}));
        // What the doctor looks at comes a moment after the definitions are established.
        let raw = ["get", "--raw", "/openapi/v3/apis/mailferry.io/v1alpha1"];
        let served = async || {
            let text = String::from_utf8_lossy(&run("kubectl", &raw, Some(plane), "").stdout).into_owned();
            so(KINDS.iter().all(|kind| text.contains(kind)), text)
        };
        cluster::blocking(|| eventually("the API server describes our resources", served));
        plane
    })
}

fn install(plane: &ControlPlane, (release, namespace): (&str, &str), values: &Value) {
    let arguments =
        ["upgrade", "--install", release, "charts/mailferry", "-n", namespace, "--create-namespace", "-f", "-"];
    output("helm", &arguments, Some(plane), &values.to_string());
}

/// A release on a control plane.
pub struct Release {
    pub called: String,
    pub namespace: String,
    /// The beginning of its objects' names, and the whole name of its `ServiceAccount`.
    pub name: String,
}

impl Release {
    /// The one that [`plane`] installs.
    pub fn default_one() -> Self {
        Self { called: RELEASE.into(), namespace: SYSTEM.into(), name: RELEASE.into() }
    }

    /// Installs another one; the definitions are there.
    pub fn install(plane: &ControlPlane, release: &str, namespace: &str, values: &Value) -> Self {
        let mut values = values.clone();
        values["crds"] = json!({"enabled": false});
        install(plane, (release, namespace), &values);
        Self::named(release, namespace)
    }

    /// One that may be installed or not.
    pub fn named(release: &str, namespace: &str) -> Self {
        let name = if release.contains(RELEASE) { release.to_owned() } else { format!("{release}-mailferry") };
        Self { called: release.into(), namespace: namespace.into(), name }
    }

    pub fn uninstall(&self, plane: &ControlPlane) {
        output("helm", &["uninstall", &self.called, "-n", &self.namespace], Some(plane), "");
    }
}

/// Applies what is rendered, without leaving anything; gives what was said beside the objects.
fn dry_run(plane: &ControlPlane, yaml: &str) -> String {
    let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    let output = run("kubectl", &apply, Some(plane), yaml);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test]
async fn an_api_server_takes_every_variant_without_a_warning() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let there = plane.namespace().await;
    let digest = format!("sha256:{}", "a1".repeat(32));
    // Those of test pods.
    for account in ["other-mailferry", "ferry", "x"] {
        for namespace in [SYSTEM, &there] {
            plane.service_account(namespace, account).await;
        }
    }
    for values in [
        json!({}),
        json!({"watchNamespaces": [there]}),
        json!({"watchNamespaces": [there], "rbac": {"clusterScoped": false},
               "config": {"addresses": {"detectCluster": false, "deny": ["10.0.0.0/8"]}}}),
        json!({"networkPolicy": {"workerNamespaces": [there], "imap": {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
                                 "metrics": {"from": [{"namespaceSelector": {}, "podSelector": {}}]}}}),
        json!({"policy": {"allowedDestinations": ["mail.new.example", ".new.example", "192.0.2.7", "2001:db8::7"],
                          "allowedSourceAddresses": ["192.0.2.0/24"],
                          "masterUsers": [{"namespace": "customers", "users": ["@acme.example"]}]}}),
        json!({"crds": {"keep": false}, "rbac": {"create": false}, "serviceAccount": {"create": false, "name": "x"},
               "admissionPolicies": {"enabled": false}, "networkPolicy": {"enabled": false}}),
        json!({
            "replicas": 3, "podDisruptionBudget": {"maxUnavailable": null, "minAvailable": 1},
            "image": {"digest": digest, "pullPolicy": "Always"}, "imagePullSecrets": [{"name": "registry"}],
            "commonLabels": {"team": "mail"}, "podLabels": {"a": "1"}, "podAnnotations": {"b": "2"},
            "annotations": {"c": "3"}, "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"pool": "x"}, "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname",
                                                   "labelSelector": {"matchLabels": {"a": "1"}}}}]}},
            "extraEnv": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "fullnameOverride": "ferry", "serviceAccount": {"annotations": {"d": "4"}},
            "rbac": {"secrets": false, "userRoles": false}, "caConfigMaps": ["company-ca"],
            "workerPods": {"resources": {"limits": {"memory": "96Mi"}}, "runAsUser": null, "fsGroup": null},
        }),
    ] {
        for release in [(RELEASE, SYSTEM), ("other", there.as_str())] {
            let said = dry_run(plane, &text_as(release, &values));
            assert_eq!(said, "", "{values}: a warning is a mistake");
        }
    }
}

#[tokio::test]
async fn the_release_is_there_with_its_definitions() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let definitions = Api::<CustomResourceDefinition>::all(plane.client());
    for kind in ["mailservers", "mailmigrations", "mailboxsyncs"] {
        let name = format!("{kind}.mailferry.io");
        cluster::wait_for(&definitions, &name, kube::runtime::wait::conditions::is_crd_established()).await;
    }
    Api::<Deployment>::namespaced(plane.client(), SYSTEM).get(RELEASE).await.unwrap();
    let policies = Api::<ValidatingAdmissionPolicy>::all(plane.client());
    policies.get("mailferry-worker").await.unwrap();
}

#[tokio::test]
async fn the_pods_of_operator_and_test_are_restricted() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let namespace = plane.namespace().await;
    let restricted = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces = Api::<Namespace>::all(plane.client());
    namespaces.patch(&namespace, &PatchParams::default(), &Patch::Merge(restricted)).await.unwrap();
    plane.service_account(&namespace, RELEASE).await;
    let objects = rendered(&json!({}));
    let pods = Api::<Pod>::namespaced(plane.client(), &namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for spec in [&objects.pod()["spec"], &objects.one("Pod")["spec"]] {
        let pod = |spec: &Value| serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        pods.create(&dry_run, &pod(spec)).await.unwrap();
        let mut spec = spec.clone();
        spec["containers"][0]["securityContext"]["capabilities"] = json!(null);
        let refused = pods.create(&dry_run, &pod(&spec)).await.unwrap_err();
        assert!(matches!(refused, kube::Error::Api(answer) if answer.code == 403));
    }
}

#[tokio::test]
async fn an_upgrade_to_the_same_changes_nothing() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let namespace = plane.namespace().await;
    let values = json!({"watchNamespaces": [namespace]});
    let release = Release::install(plane, "mailferry", &namespace, &values);
    let generation = async || {
        let deployments = Api::<Deployment>::namespaced(plane.client(), &namespace);
        deployments.get(&release.name).await.unwrap().metadata.generation
    };
    let before = generation().await;
    Release::install(plane, "mailferry", &namespace, &values);
    assert_eq!(generation().await, before);
    let mut more = values;
    more["config"] = json!({"maxSyncs": 7});
    Release::install(plane, "mailferry", &namespace, &more);
    assert_ne!(generation().await, before, "a changed configuration restarts the operator");
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_named() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let namespace = plane.namespace().await;
    let values = json!({"watchNamespaces": ["not-there"], "crds": {"enabled": false}}).to_string();
    let arguments = ["install", "mailferry", "charts/mailferry", "-n", &namespace, "-f", "-"];
    let refused = run("helm", &arguments, Some(plane), &values);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("\"not-there\" not found"), "{said}");
}

#[tokio::test]
async fn uninstalling_keeps_definitions_and_migrations_and_the_next_release_takes_them_over() {
    if !is_there() {
        return;
    }
    let plane = ControlPlane::start().await;
    install(&plane, (RELEASE, SYSTEM), &json!({}));
    let client = plane.client();
    let namespace = plane.namespace().await;
    let migration = "apiVersion: mailferry.io/v1alpha1\nkind: MailMigration\nmetadata: {name: acme}\nspec:\n  \
                     source: {server: {host: old.example}}\n  destination: {server: {host: new.example}}\n  \
                     mailboxes: [{name: a, source: {passwordSecretRef: {name: s, key: k}}, \
                     destination: {passwordSecretRef: {name: s, key: k}}}]\n";
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let established = kube::runtime::wait::conditions::is_crd_established;
    cluster::wait_for(&definitions, "mailmigrations.mailferry.io", established()).await;
    let made = cluster::apply(&client, Some(&namespace), migration).await.unwrap();

    Release::default_one().uninstall(&plane);
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), SYSTEM);
    assert!(accounts.get_opt(RELEASE).await.unwrap().is_none(), "it is uninstalled");
    assert_eq!(definitions.list(&ListParams::default()).await.unwrap().items.len(), 3);
    install(&plane, (RELEASE, SYSTEM), &json!({}));
    let kind = kube::core::GroupVersionKind::gvk("mailferry.io", "v1alpha1", "MailMigration");
    let (resource, _) = kube::discovery::pinned_kind(&client, &kind).await.unwrap();
    let migrations = Api::<DynamicObject>::namespaced_with(client, &namespace, &resource);
    assert_eq!(migrations.get("acme").await.unwrap().uid(), made[0].uid(), "it is the same one");
}

#[test]
fn the_notes_name_what_is_there_and_warn_of_what_is_open() {
    if !is_there() {
        return;
    }
    let notes = |values: Value| {
        let arguments =
            ["install", "mail", "charts/mailferry", "-n", "system", "--dry-run=client", "-f", "-", "--output", "json"];
        let release = output("helm", &arguments, None, &values.to_string());
        let release: Value = serde_json::from_str(&release).unwrap();
        release["info"]["notes"].as_str().unwrap().to_owned()
    };
    let open = notes(json!({}));
    for part in [
        "helm test mail --namespace system",
        "deployment/mail-mailferry",
        "policy.allowedDestinations is empty",
        "networkPolicy.workerNamespaces",
        "at the ports 143, 993 only",
    ] {
        assert!(open.contains(part), "{part}: {open}");
    }
    let closed = notes(json!({"watchNamespaces": ["customers"], "policy": {"allowedDestinations": [".new.example"]},
                              "networkPolicy": {"imap": {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}}}));
    assert!(!closed.contains("WARNING") && !closed.contains("NOTE"), "{closed}");
    assert!(closed.contains("carries out MailMigrations in customers"), "{closed}");
    // What it says to type is right.
    let migration = closed.split("apply -f - <<YAML").nth(1).unwrap().split("YAML").next().unwrap();
    let migration = &Objects::read(migration).0[0];
    assert_eq!(migration["spec"]["destination"]["server"]["host"], "new.example");
    let migration: mailferry::api::MailMigration = serde_json::from_value(migration.clone()).unwrap();
    assert_eq!(mailferry::api::validate::migration_problems(&migration.spec).len(), 0);
}
