//! How the chart ships alerts, dashboard and scraping, as the real helm renders them.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use mailferry_testkit::cluster::{documents, program};
use serde_json::{Value, json};

use crate::files::{DASHBOARD, RULES, alerts, path, read, string, text};

const RUNBOOK: &str = "https://github.com/mailferry/mailferry/blob/main/docs/runbook.md";

/// What helm says to these values of `metrics`; nothing where there is no helm.
fn helm(metrics: &Value) -> Option<Output> {
    let Some(helm) = program("helm") else {
        eprintln!("skipped: KUBEBUILDER_ASSETS has no helm");
        return None;
    };
    let values = json!({"crds": {"enabled": false}, "commonLabels": {"team": "mail"}, "metrics": metrics});
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(helm)
        .args(["template", "ferry", "charts/mailferry", "--namespace", "mail", "--values", "-"])
        .current_dir(path(""))
        .env("KUBECONFIG", "/nonexistent")
        .envs(["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, home.path())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(values.to_string().as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

/// The objects of monitoring that are rendered.
fn rendered(metrics: &Value) -> Option<Vec<Value>> {
    let output = helm(metrics)?;
    assert!(output.status.success(), "{metrics}: {}", String::from_utf8_lossy(&output.stderr));
    let documents = documents(&String::from_utf8(output.stdout).unwrap());
    let objects = documents.iter().map(|object| serde_json::to_value(object).unwrap());
    let ours = |object: &Value| {
        let kind = string(object, "kind");
        let is_dashboard = kind == "ConfigMap" && string(&object["metadata"], "name").ends_with("-dashboard");
        is_dashboard || ["Service", "ServiceMonitor", "PodMonitor", "PrometheusRule"].contains(&kind)
    };
    Some(objects.filter(ours).collect())
}

/// The only one.
fn one(metrics: &Value) -> Option<Value> {
    let mut objects = rendered(metrics)?;
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects.pop()
}

/// What helm refuses with.
fn refusal(metrics: &Value) -> Option<String> {
    let output = helm(metrics)?;
    assert!(!output.status.success(), "{metrics} is taken");
    Some(String::from_utf8(output.stderr).unwrap())
}

fn rules_of(object: &Value) -> Vec<Value> {
    let groups = object["spec"]["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
}

#[test]
fn nothing_of_monitoring_is_there_unless_it_is_asked_for() {
    let Some(objects) = rendered(&json!({})) else { return };
    assert_eq!(objects, [] as [Value; 0]);
}

#[test]
fn a_pod_monitor_scrapes_the_operators_pods() {
    let Some(monitor) = one(&json!({"podMonitor": {"enabled": true}})) else { return };
    assert_eq!(monitor["metadata"]["namespace"], "mail");
    assert_eq!(monitor["metadata"]["labels"]["team"], "mail");
    assert_eq!(monitor["spec"]["namespaceSelector"], json!({"matchNames": ["mail"]}));
    assert_eq!(monitor["spec"]["podMetricsEndpoints"], json!([{"port": "http", "path": "/metrics"}]));
    let labels = &monitor["spec"]["selector"]["matchLabels"];
    assert_eq!(
        *labels,
        json!({
            "app.kubernetes.io/name": "mailferry", "app.kubernetes.io/instance": "ferry",
            "app.kubernetes.io/component": "controller",
        })
    );
}

#[test]
fn a_service_monitor_finds_the_operators_pods_by_a_service_of_its_own() {
    let Some(objects) = rendered(&json!({"serviceMonitor": {"enabled": true}})) else { return };
    let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let (service, monitor) = (of("Service"), of("ServiceMonitor"));
    assert_eq!(objects.len(), 2);
    assert_eq!(service["spec"]["selector"]["app.kubernetes.io/component"], "controller");
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(selected.iter().all(|(key, value)| service["metadata"]["labels"][key] == *value), "{objects:?}");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
}

#[test]
fn monitors_go_where_prometheus_looks_and_scrape_as_it_is_told() {
    let values = json!({
        "enabled": true, "namespace": "monitoring", "labels": {"release": "prometheus", "team": "watch"},
        "interval": "30s", "scrapeTimeout": "5s",
        "relabelings": [{"targetLabel": "cluster", "replacement": "a"}],
        "metricRelabelings": [{"regex": "pod", "action": "labeldrop"}],
    });
    for (value, kind, endpoints) in
        [("podMonitor", "PodMonitor", "podMetricsEndpoints"), ("serviceMonitor", "ServiceMonitor", "endpoints")]
    {
        let Some(objects) = rendered(&json!({value: values})) else { return };
        let monitor = objects.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(monitor["metadata"]["namespace"], "monitoring");
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        assert_eq!(monitor["metadata"]["labels"]["team"], "watch", "the nearer label counts");
        assert_eq!(monitor["metadata"]["labels"]["app.kubernetes.io/name"], "mailferry");
        let endpoint = &monitor["spec"][endpoints][0];
        for key in ["interval", "scrapeTimeout", "relabelings", "metricRelabelings"] {
            assert_eq!(endpoint[key], values[key], "{key}");
        }
    }
}

#[test]
fn the_same_pods_are_not_scraped_twice() {
    let Some(why) = refusal(&json!({"podMonitor": {"enabled": true}, "serviceMonitor": {"enabled": true}})) else {
        return;
    };
    assert!(why.contains("enable one of them"), "{why}");
}

#[test]
fn a_prometheus_rule_holds_the_alerts_as_they_are_tested() {
    let Some(rule) = one(&json!({"prometheusRule": {"enabled": true, "labels": {"release": "p"}}})) else { return };
    assert_eq!(rule["spec"]["groups"], read(RULES)["groups"]);
    assert_eq!(rule["metadata"]["labels"]["release"], "p");
}

#[test]
fn an_alert_can_be_changed_or_left_out() {
    let Some(rule) = one(&json!({"prometheusRule": {
        "enabled": true,
        "namespace": "monitoring",
        "alertLabels": {"team": "mail", "severity": "page"},
        "runbookUrl": "https://wiki.example/mailferry",
        "alerts": {
            "MailferryDeadlineRestarts": {"enabled": false},
            "MailferryScheduleMissed": {"for": "2h", "severity": "critical"},
            "MailferryMailboxesStalled": {"expr": "mailferry_mailboxes{phase=\"Stalled\"} > 100"},
        },
    }})) else {
        return;
    };
    assert_eq!(rule["metadata"]["namespace"], "monitoring");
    let rules = rules_of(&rule);
    let of = |name: &str| rules.iter().find(|rule| rule["alert"] == name).unwrap();
    assert_eq!(rules.len(), alerts().len() - 1);
    assert!(rules.iter().all(|rule| rule["alert"] != "MailferryDeadlineRestarts"));
    let missed = of("MailferryScheduleMissed");
    assert_eq!((&missed["for"], &missed["labels"]), (&json!("2h"), &json!({"severity": "critical", "team": "mail"})));
    let stalled = of("MailferryMailboxesStalled");
    assert_eq!(stalled["expr"], "mailferry_mailboxes{phase=\"Stalled\"} > 100");
    assert_eq!((&stalled["for"], &stalled["labels"]["severity"]), (&json!("10m"), &json!("warning")));
    for before in alerts() {
        let name = string(&before, "alert");
        let Some(after) = rules.iter().find(|rule| rule["alert"] == name) else { continue };
        let url = string(&before["annotations"], "runbook_url").replace(RUNBOOK, "https://wiki.example/mailferry");
        assert_eq!(after["annotations"]["runbook_url"], url.as_str());
        assert_eq!(after["annotations"]["description"], before["annotations"]["description"]);
    }
}

#[test]
fn a_group_without_alerts_is_left_out() {
    let group = read(RULES)["groups"][0].clone();
    let names: BTreeSet<_> =
        group["rules"].as_array().unwrap().iter().map(|rule| string(rule, "alert").to_owned()).collect();
    let off: serde_json::Map<_, _> = names.into_iter().map(|name| (name, json!({"enabled": false}))).collect();
    let Some(rule) = one(&json!({"prometheusRule": {"enabled": true, "alerts": off}})) else { return };
    let groups = rule["spec"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), read(RULES)["groups"].as_array().unwrap().len() - 1);
    assert!(groups.iter().all(|left| left["name"] != group["name"]));
}

#[test]
fn an_alert_that_is_not_there_can_not_be_changed() {
    let Some(why) = refusal(&json!({"prometheusRule": {"enabled": true, "alerts": {"MailferryStaled": {}}}})) else {
        return;
    };
    assert!(why.contains("there is no alert MailferryStaled; there are MailferryApiErrors, "), "{why}");
}

#[test]
fn a_mistyped_value_is_refused() {
    for metrics in [
        json!({"podMonitor": {"enable": true}}),
        json!({"podMonitor": {"interval": "often"}}),
        json!({"serviceMonitor": {"labels": ["release"]}}),
        json!({"prometheusRule": {"alerts": {"MailferryScheduleMissed": {"threshold": 5}}}}),
        json!({"prometheusRule": {"alerts": {"MailferryScheduleMissed": {"for": "soon"}}}}),
        json!({"dashboard": {"folder": "Mail"}}),
    ] {
        let Some(why) = refusal(&metrics) else { return };
        assert!(why.contains("values don't meet the specifications of the schema"), "{metrics}: {why}");
    }
}

#[test]
fn the_dashboard_is_found_by_grafanas_sidecar() {
    let Some(map) = one(&json!({"dashboard": {"enabled": true}})) else { return };
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let shipped = string(&map["data"], "ferry-mailferry.json");
    assert_eq!(shipped.trim_end(), text(DASHBOARD).trim_end());
}

#[test]
fn the_dashboard_goes_where_grafana_looks() {
    let Some(map) = one(&json!({"dashboard": {
        "enabled": true, "namespace": "monitoring", "labels": {"grafana_dashboard": null, "dashboards": "yes"},
        "annotations": {"grafana_folder": "Mail"},
    }})) else {
        return;
    };
    let metadata = &map["metadata"];
    assert_eq!(metadata["namespace"], "monitoring");
    assert_eq!(metadata["annotations"], json!({"grafana_folder": "Mail"}));
    assert_eq!(metadata["labels"]["dashboards"], "yes");
    assert!(metadata["labels"].get("grafana_dashboard").is_none());
}
