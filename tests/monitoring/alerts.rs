//! The alerts: each says what to do, and fires when it should.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::files::{ALERT_TESTS, RULES, alerts, path, read, string, text};

fn promtool(arguments: &[&str], file: &str) {
    let output = Command::new("promtool").args(arguments).arg(path(file)).output();
    let output = output.expect("promtool is missing: scripts/install.sh test installs it");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
}

#[test]
fn promtool_finds_no_fault_with_the_rules() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], RULES);
}

#[test]
fn each_alert_fires_when_it_should_and_not_when_it_should_not() {
    promtool(&["test", "rules"], ALERT_TESTS);
}

#[test]
fn each_alert_has_a_test_in_which_it_fires() {
    fn fired(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    if let ("labels", Some(labels)) = (key.as_str(), value.as_str())
                        && let Some((_, rest)) = labels.split_once("alertname=\"")
                    {
                        into.insert(rest.split('"').next().unwrap().to_owned());
                    }
                    fired(value, into);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| fired(value, into)),
            _ => {}
        }
    }
    let mut tested = BTreeSet::new();
    fired(&read(ALERT_TESTS), &mut tested);
    let alerts: BTreeSet<_> = alerts().iter().map(|alert| string(alert, "alert").to_owned()).collect();
    assert_eq!(tested, alerts);
}

#[test]
fn each_alert_says_how_grave_it_is_and_what_to_do() {
    const RUNBOOK: &str = "https://github.com/mailferry/mailferry/blob/main/docs/runbook.md#alert-";
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = string(&alert, "alert");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(name.starts_with("Mailferry"), "{name}");
        assert!(["critical", "warning", "info"].contains(&string(&alert["labels"], "severity")), "{name}");
        assert!(string(&alert["annotations"], "summary").len() < 80, "{name}");
        let description = string(&alert["annotations"], "description");
        assert!(description.len() > 150 && description.ends_with(['.', '?']), "{name}: {description}");
        assert_eq!(string(&alert["annotations"], "runbook_url"), format!("{RUNBOOK}{}", name.to_lowercase()));
    }
}

#[test]
fn the_documentation_names_every_alert_and_no_other() {
    let docs = text("docs/monitoring.md");
    let words = docs.split(|c: char| !c.is_ascii_alphanumeric());
    let named: BTreeSet<_> = words.filter(|word| word.starts_with("Mailferry") && *word != "Mailferry").collect();
    let alerts = alerts();
    assert_eq!(named, alerts.iter().map(|alert| string(alert, "alert")).collect());
}
