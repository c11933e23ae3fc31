//! The files that are shipped, as they lie in the repository.

use std::{fs, path::PathBuf};

use serde_json::Value;

pub const RULES: &str = "charts/mailferry/files/rules/mailferry.yaml";
pub const DASHBOARD: &str = "charts/mailferry/files/dashboards/mailferry.json";
pub const ALERT_TESTS: &str = "tests/monitoring/alerts.yaml";

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// YAML, of which JSON is a part.
pub fn read(name: &str) -> Value {
    serde_yaml::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All alerts.
pub fn alerts() -> Vec<Value> {
    let rules = read(RULES);
    let groups = rules["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).cloned().collect()
}

pub fn string<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_else(|| panic!("no {key} in {object}"))
}

/// The dashboard's panels but for rows.
pub fn panels() -> Vec<Value> {
    let dashboard = read(DASHBOARD);
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

/// Each panel's title with an expression of it.
pub fn panel_expressions() -> Vec<(String, String)> {
    let expressions = panels().into_iter().flat_map(|panel| {
        let title = string(&panel, "title").to_owned();
        let targets = panel["targets"].as_array().expect("targets").clone();
        targets.into_iter().map(move |target| (title.clone(), string(&target, "expr").to_owned()))
    });
    expressions.collect()
}
