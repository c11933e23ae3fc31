//! The dashboard: what Grafana needs to show it, on any data source.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::files::{DASHBOARD, panel_expressions, panels, read, string};

/// The width of Grafana's grid.
const COLUMNS: u64 = 24;

/// Calls for each value in a document that has this key.
fn each<'a>(key: &str, value: &'a Value, call: &mut impl FnMut(&'a Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == key {
                    call(value);
                }
                each(key, value, call);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| each(key, value, call)),
        _ => {}
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_takes_as_it_is() {
    let dashboard = read(DASHBOARD);
    assert_eq!((&dashboard["title"], &dashboard["uid"]), (&json!("Mailferry"), &json!("mailferry")));
    assert_eq!(dashboard["schemaVersion"], 42);
    for exported in ["id", "__inputs", "__requires", "__elements"] {
        assert!(dashboard.get(exported).is_none(), "{exported}: an export of one installation");
    }
}

#[test]
fn the_dashboard_takes_its_data_from_where_the_reader_says() {
    let dashboard = read(DASHBOARD);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| string(variable, "name")).collect();
    assert_eq!(names, ["datasource", "job"]);
    assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&json!("datasource"), &json!("prometheus")));
    let mut sources = 0;
    each("datasource", &dashboard, &mut |source| {
        sources += 1;
        let ours = json!({"type": "prometheus", "uid": "${datasource}"});
        let grafanas = json!({"type": "grafana", "uid": "-- Grafana --"});
        assert!(*source == ours || *source == grafanas, "{source}");
    });
    assert!(sources > panels().len());
}

#[test]
fn the_operator_that_the_reader_chose_is_the_one_that_panels_show() {
    for (title, expression) in panel_expressions() {
        let selectors = expression.matches("mailferry_").count();
        let chosen = expression.matches("{job=~\"$job\"").count();
        assert_eq!(selectors, chosen, "{title}: {expression}");
        for variable in expression.split('$').skip(1) {
            assert!(
                ["job\"", "__rate_interval"].iter().any(|known| variable.starts_with(known)),
                "{title}: ${variable}"
            );
        }
    }
}

#[test]
fn each_panel_has_a_place_a_title_a_unit_and_something_to_show() {
    let dashboard = read(DASHBOARD);
    let (mut ids, mut cells, mut titles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut section = "";
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = string(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another panel's");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("w") > 0 && place("h") > 0 && place("x") + place("w") <= COLUMNS, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} lies on another panel");
            }
        }
        if panel["type"] == "row" {
            section = title;
            continue;
        }
        assert!(titles.insert((section, title)), "{section}: {title} is there twice");
        assert!(["stat", "timeseries", "heatmap", "table"].contains(&string(panel, "type")), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let references: BTreeSet<_> = targets.iter().map(|target| string(target, "refId")).collect();
        assert!(!targets.is_empty() && references.len() == targets.len(), "{title}");
        if ["stat", "timeseries"].contains(&string(panel, "type")) {
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        }
    }
}

#[test]
fn rates_follow_the_readers_zoom() {
    for (title, expression) in panel_expressions() {
        for range in expression.split('[').skip(1) {
            assert!(range.starts_with("$__rate_interval]"), "{title}: {expression}");
        }
    }
}
