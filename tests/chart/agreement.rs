//! The chart's defaults and deploy/ are one.

use std::collections::BTreeMap;

use mailferry::controller::config::OperatorConfig;
use serde_json::{Value, json};

use crate::{
    helm::{Objects, is_there, output, rendered, run},
    install::plane,
};

/// Labels and annotations that only helm has a use for.
const HELMS_OWN: [&str; 6] = [
    "app.kubernetes.io/instance",
    "helm.sh/chart",
    "helm.sh/resource-policy",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "checksum/config",
];

/// The objects of deploy/, or of a kustomization on top of it.
fn kustomized(folder: &str) -> Objects {
    Objects::read(&output("kubectl", &["kustomize", folder], None, ""))
}

/// What an object means: without what only helm has a use for, and with the operator's configuration complete.
fn meaning(object: &Value) -> Value {
    let mut object = object.clone();
    for metadata in ["/metadata", "/spec/template/metadata"] {
        let Some(metadata) = object.pointer_mut(metadata).and_then(Value::as_object_mut) else { continue };
        for part in ["labels", "annotations"] {
            if let Some(entries) = metadata.get_mut(part).and_then(Value::as_object_mut) {
                entries.retain(|key, _| !HELMS_OWN.contains(&key.as_str()));
                if entries.is_empty() {
                    metadata.remove(part);
                }
            }
        }
    }
    if object["kind"] == "CustomResourceDefinition" {
        // crds/ belongs to no installation.
        object["metadata"].as_object_mut().unwrap().remove("labels");
    }
    if object["kind"] == "ConfigMap" {
        let text = object["data"]["operator.yaml"].as_str().unwrap();
        let config: OperatorConfig = mailferry::yaml::read("operator.yaml", text).unwrap();
        object["data"]["operator.yaml"] = json!(config);
    }
    object
}

fn by_name(objects: &Objects) -> BTreeMap<String, Value> {
    let named = |object: &Value| {
        let metadata = &object["metadata"];
        (format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"]), meaning(object))
    };
    objects.0.iter().map(named).collect()
}

/// Panics with what differs.
fn assert_agree(chart: &Objects, manifests: &Objects) {
    let (mut chart, mut manifests) = (by_name(chart), by_name(manifests));
    // helm test makes it.
    chart.retain(|name, _| !name.starts_with("\"Pod\""));
    // Helm's own --create-namespace makes it.
    manifests.retain(|name, _| !name.starts_with("\"Namespace\""));
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&manifests));
    for (name, object) in &chart {
        if let Some(what) = difference("", object, &manifests[name]) {
            panic!("{name}: the chart's and the manifest's {what}");
        }
    }
}

/// The first thing in which two values differ. Numbers are numbers, however they are written.
fn difference(path: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => one
            .keys()
            .chain(other.keys())
            .find_map(|key| difference(&format!("{path}/{key}"), one.get(key)?, other.get(key).unwrap_or(&Value::Null)))
            .or_else(|| {
                let missing = other.keys().find(|key| !one.contains_key(*key))?;
                Some(format!("{path}: only the manifest has {missing}"))
            }),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut pairs = one.iter().zip(other).enumerate();
            pairs.find_map(|(number, (one, other))| difference(&format!("{path}/{number}"), one, other))
        }
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => None,
        _ => (one != other).then(|| format!("{path}: {one} and {other}")),
    }
}

#[test]
fn the_chart_with_its_defaults_and_the_plain_manifests_are_the_same() {
    if is_there() {
        assert_agree(&rendered(&json!({})), &kustomized("deploy"));
    }
}

#[test]
fn the_high_availability_component_is_the_chart_with_two_replicas() {
    if is_there() {
        let kustomization = kustomized("examples/kustomize/high-availability");
        assert_agree(&rendered(&json!({"replicas": 2})), &kustomization);
    }
}

#[test]
fn the_component_without_secrets_is_the_chart_without_the_right_to_them() {
    if is_there() {
        let kustomization = kustomized("examples/kustomize/without-secrets");
        let chart = rendered(&json!({"rbac": {"secrets": false}}));
        assert_eq!(kustomization.env("MAILFERRY_READ_SECRETS"), chart.env("MAILFERRY_READ_SECRETS"));
        let rules = |objects: &Objects| objects.named("ClusterRole", "mailferry-controller")["rules"].clone();
        assert_eq!(rules(&kustomization), rules(&chart));
    }
}

#[test]
fn the_network_policy_of_sync_pods_is_the_charts() {
    if is_there() {
        let chart = rendered(&json!({"networkPolicy": {"workerNamespaces": ["customers"]}}));
        let mut ours = meaning(chart.named("NetworkPolicy", "mailferry-worker"));
        assert_eq!(ours["metadata"]["namespace"], "customers");
        ours["metadata"].as_object_mut().unwrap().remove("namespace");
        let manifests = kustomized("deploy/worker-network");
        assert_eq!(ours, meaning(manifests.one("NetworkPolicy")));
    }
}

#[test]
fn the_namespaced_component_leaves_the_operator_no_rights_elsewhere() {
    if !is_there() {
        return;
    }
    let objects = kustomized("examples/kustomize/namespaced");
    let everywhere: Vec<_> = objects.of("ClusterRoleBinding").iter().map(|it| &it["metadata"]["name"]).collect();
    assert_eq!(everywhere, ["mailferry-cluster"]);
    let places: Vec<_> = objects
        .of("RoleBinding")
        .iter()
        .map(|binding| (&binding["metadata"]["name"], &binding["metadata"]["namespace"]))
        .collect();
    assert!(places.contains(&(&json!("mailferry-controller"), &json!("customers"))), "{places:?}");
    assert_eq!(objects.env("MAILFERRY_WATCH_NAMESPACES"), Some("customers"));
    let chart = rendered(&json!({"watchNamespaces": ["customers"]}));
    let scope = &chart.of("ValidatingAdmissionPolicyBinding")[0]["spec"]["matchResources"];
    for binding in objects.of("ValidatingAdmissionPolicyBinding") {
        assert_eq!(binding["spec"]["matchResources"], *scope, "{}", binding["metadata"]["name"]);
    }
}

#[tokio::test]
async fn an_api_server_takes_every_kustomization_without_a_warning() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let customers = "apiVersion: v1\nkind: Namespace\nmetadata: {name: customers}\n";
    mailferry_testkit::cluster::apply(&plane.client(), None, customers).await.unwrap();
    for folder in [
        "deploy",
        "deploy/worker-network",
        "examples/kustomize/high-availability",
        "examples/kustomize/namespaced",
        "examples/kustomize/without-secrets",
    ] {
        let arguments =
            ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-n", "customers", "-k", folder];
        // What says its namespace itself does not take another.
        let arguments =
            if folder.ends_with("network") { &arguments[..] } else { &[&arguments[..4], &arguments[6..]].concat() };
        let applied = run("kubectl", arguments, Some(plane), "");
        let said = String::from_utf8(applied.stderr).unwrap();
        assert!(applied.status.success() && said.is_empty(), "{folder}: {said}");
    }
}
