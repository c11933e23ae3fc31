//! Wrong values are refused, each with a message that names it.

use serde_json::{Value, json};

use crate::helm::{at, chart, is_there, output, refusal, rendered, run};

/// Every value that can't be right, and what the refusal says.
fn wrong() -> Vec<(Value, &'static [&'static str])> {
    let label: &[&str] = &["'/watchNamespaces/0'", "does not match pattern"];
    vec![
        (at("replica", 2), &["additional properties 'replica' not allowed"]),
        (at("image.registry", "x"), &["'/image'", "'registry' not allowed"]),
        (at("config.maxSync", 2), &["'/config'", "'maxSync' not allowed"]),
        (at("replicas", "2"), &["'/replicas'", "want integer"]),
        (at("replicas", 0.5), &["'/replicas'", "want integer"]),
        (at("replicas", -1), &["'/replicas'", "minimum"]),
        (at("crds.enabled", "no"), &["'/crds/enabled'", "want boolean"]),
        (at("crds", false), &["'/crds'", "want object"]),
        (at("image.digest", "abc"), &["'/image/digest'", "sha256:"]),
        (at("image.tag", "a:b"), &["'/image/tag'", "does not match pattern"]),
        (at("image.tag", 1.2), &["'/image/tag'", "want string"]),
        (at("image.repository", "https://ghcr.io/mailferry/mailferry@x"), &["'/image/repository'", "does not match"]),
        (at("image.pullPolicy", "Sometimes"), &["'/image/pullPolicy'", "'Always', 'IfNotPresent', 'Never'"]),
        (json!({"imagePullSecrets": ["registry"]}), &["'/imagePullSecrets/0'", "want object"]),
        (json!({"watchNamespaces": "customers"}), &["'/watchNamespaces'", "want array"]),
        (json!({"watchNamespaces": ["Customers"]}), label),
        (json!({"watchNamespaces": ["a,b"]}), label),
        (json!({"watchNamespaces": ["a", "a"]}), &["'/watchNamespaces'", "are equal"]),
        (at("config.maxSyncs", 0), &["'/config/maxSyncs'", "minimum"]),
        (at("config.namespaces", json!({"a": {"weight": 0}})), &["'/config/namespaces/a/weight'", "minimum"]),
        (at("config.namespaces", json!({"a,b": {}})), &["invalid propertyName 'a,b'"]),
        (at("config.logLevel", ""), &["'/config/logLevel'"]),
        (at("config.addresses.deny", json!(["10.0.0.1"])), &["'/config/addresses/deny/0'", "does not match pattern"]),
        (at("config.addresses.allow", json!(["10.0.0.0/33"])), &["'/config/addresses/allow/0'"]),
        (at("config.addresses.allow", json!(["mail.example/24"])), &["'/config/addresses/allow/0'"]),
        (at("config.hostLimits", json!({"imap://old": {}})), &["invalid propertyName 'imap://old'"]),
        (at("config.hostLimits", json!({"old": {"maxConnections": 0}})), &["'/config/hostLimits/old/maxConnections'"]),
        (at("config.hostLimits", json!({"old": {"connections": 1}})), &["'connections' not allowed"]),
        (at("policy.allowedDestinations", json!(["*.new.example"])), &["'/policy/allowedDestinations/0'"]),
        (at("policy.allowedDestinations", json!(["new.example:993"])), &["'/policy/allowedDestinations/0'"]),
        (at("policy.allowedDestinations", json!(["."])), &["'/policy/allowedDestinations/0'"]),
        (at("policy.allowedSourceAddresses", json!(["::1"])), &["'/policy/allowedSourceAddresses/0'"]),
        (at("policy.masterUsers", json!([{"namespace": "a"}])), &["'/policy/masterUsers/0'", "'users'"]),
        (at("policy.grants", json!([{"name": "a"}])), &["'/policy/grants/0'", "'provider'"]),
        (at("networkPolicy.imap.ports", json!([])), &["'/networkPolicy/imap/ports'", "minItems"]),
        (at("networkPolicy.imap.ports", json!([70000])), &["'/networkPolicy/imap/ports/0'", "maximum"]),
        (at("networkPolicy.imap.to", json!([{"cidr": "10.0.0.0/8"}])), &["'cidr' not allowed"]),
        (at("resources.limits.memory", "lots"), &["'/resources/limits/memory'"]),
        (at("resources.limit.memory", "1Gi"), &["'/resources'", "'limit' not allowed"]),
        (at("podAnnotations.restarted", true), &["'/podAnnotations/restarted'", "want string"]),
        (at("tolerations", json!([{"effect": "No"}])), &["'/tolerations/0/effect'"]),
        (at("extraEnv", json!({"A": "b"})), &["'/extraEnv'", "want array"]),
        (at("podDisruptionBudget.maxUnavailable", "half"), &["'/podDisruptionBudget/maxUnavailable'"]),
        (at("metrics.podMonitor.enabled", 1), &["'/metrics/podMonitor/enabled'", "want boolean"]),
        (at("workerPods.runAsUser", 0), &["'/workerPods/runAsUser'", "minimum"]),
        (at("workerPods.resources.limits.memory", "lots"), &["'/workerPods/resources/limits/memory'"]),
        (at("workerPods.affinity", json!({})), &["'/workerPods'", "'affinity' not allowed"]),
        (at("caConfigMaps", json!(["Company"])), &["'/caConfigMaps/0'", "does not match pattern"]),
        // Right by themselves, and wrong together.
        (at("rbac.clusterScoped", false), &["rbac.clusterScoped: false needs watchNamespaces"]),
        // As helm upgrade --reuse-values leaves out what a chart added.
        (at("rbac.secrets", Value::Null), &["the values of an older chart", "and not with --reuse-values"]),
        (at("workerPods", Value::Null), &["the values of an older chart", "--reset-then-reuse-values"]),
        (
            json!({"rbac": {"clusterScoped": false}, "watchNamespaces": ["a"]}),
            &["set config.addresses.detectCluster: false too"],
        ),
        (
            json!({"watchNamespaces": ["a"], "policy": {"masterUsers": [{"namespace": "b", "users": ["*"]}]}}),
            &["policy.masterUsers names the namespace b, which is not among watchNamespaces"],
        ),
        (
            json!({"watchNamespaces": ["a"], "policy": {"grants": [{"name": "g", "provider": "Google",
                "secretRef": {"name": "s"}, "namespaces": ["b"], "users": ["*"]}]}}),
            &["policy.grants names the namespace b, which is not among watchNamespaces"],
        ),
        (
            json!({"rbac": {"secrets": false}, "policy": {"grants": [{"name": "g", "provider": "Google",
                "secretRef": {"name": "s"}, "namespaces": ["b"], "users": ["*"]}]}}),
            &["policy.grants needs rbac.secrets"],
        ),
        (
            json!({"watchNamespaces": ["a"], "networkPolicy": {"workerNamespaces": ["b"]}}),
            &["networkPolicy.workerNamespaces names the namespace b, which is not among watchNamespaces"],
        ),
        (at("podDisruptionBudget.minAvailable", 1), &["give maxUnavailable or minAvailable, not both"]),
        (at("podDisruptionBudget.maxUnavailable", Value::Null), &["give maxUnavailable or minAvailable, or set"]),
        (
            json!({"replicas": 2, "podDisruptionBudget": {"maxUnavailable": null, "minAvailable": 2}}),
            &["podDisruptionBudget.minAvailable: 2 of 2 replicas"],
        ),
        (
            json!({"metrics": {"podMonitor": {"enabled": true}, "serviceMonitor": {"enabled": true}}}),
            &["scrape the same pods: enable one of them"],
        ),
    ]
}

#[test]
fn wrong_values_are_refused_by_their_name() {
    if is_there() {
        for (values, parts) in wrong() {
            let message = refusal(&values);
            for part in parts {
                assert!(message.contains(part), "{values}: {part} is not in: {message}");
            }
        }
    }
}

#[test]
fn unusual_values_that_are_right_are_taken() {
    if is_there() {
        rendered(&json!({
            "policy": {
                "allowedDestinations": ["mail.new.example", ".new.example", "localhost", "192.0.2.7", "2001:db8::7"],
                "allowedSourceAddresses": ["0.0.0.0/0", "::/0", "2001:db8::/32", "::ffff:192.0.2.0/120"],
            },
            "config": {"logLevel": "info,mailferry::controller=debug", "hostLimits": {"192.0.2.7:143": {}}},
            "resources": {"requests": {"cpu": 1, "memory": "1.5Gi"}, "limits": {}},
            "image": {"repository": "localhost:5000/mailferry"},
            "replicas": 0,
        }));
    }
}

#[test]
fn every_property_is_described_and_nothing_else_is_taken() {
    fn look(path: &str, schema: &Value) {
        assert!(schema["description"].is_string() || schema["properties"].is_object(), "{path} has no description");
        let Some(properties) = schema["properties"].as_object() else { return };
        assert_eq!(schema["additionalProperties"], false, "{path}");
        for (name, property) in properties {
            look(&format!("{path}.{name}"), property);
        }
    }
    let schema = std::fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for (name, property) in schema["properties"].as_object().unwrap() {
        look(name, property);
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    if is_there() {
        let said = output("helm", &["lint", "--strict", "charts/mailferry"], None, "");
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

#[test]
fn a_kubernetes_without_admission_policies_is_refused() {
    if is_there() {
        let old = run("helm", &["template", "m", "charts/mailferry", "--kube-version", "1.29.9"], None, "");
        let said = String::from_utf8(old.stderr).unwrap();
        assert!(!old.status.success() && said.contains("requires kubeVersion: >=1.30.0-0"), "{said}");
        output("helm", &["template", "m", "charts/mailferry", "--kube-version", "v1.30.0-gke.1"], None, "");
    }
}
