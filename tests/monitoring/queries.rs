//! Every expression of alerts and dashboard, asked of a real Prometheus that scrapes what an operator really exposes.

use std::collections::BTreeSet;

use regex::Regex;

use crate::{
    files::{ALERT_TESTS, RULES, alerts, panel_expressions, path, read, string},
    operator::{Operator, names},
    prometheus::Prometheus,
};

/// As Grafana fills it in.
fn filled(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$job", ".*")
}

/// The metrics that an expression reads, with what they are selected by.
fn selectors(expression: &str) -> BTreeSet<String> {
    let selector = Regex::new(r"\bmailferry_\w+(\{[^}]*\})?").unwrap();
    selector.find_iter(expression).map(|found| found.as_str().to_owned()).collect()
}

/// The series of the alerts' unit tests, without the labels that a scrape adds.
fn unit_test_series() -> BTreeSet<String> {
    let scraped = Regex::new(r#"\b(job|pod)="[^"]*",?"#).unwrap();
    let tests = read(ALERT_TESTS);
    let tests = tests["tests"].as_array().unwrap();
    let series = tests.iter().flat_map(|test| test["input_series"].as_array().unwrap());
    // Of the version there is only the running one.
    series.map(|series| scraped.replace_all(string(series, "series"), "").replace("version=\"1\"", "")).collect()
}

#[test]
fn selectors_are_found_in_expressions() {
    let found = selectors(r#"sum by (x) (rate(mailferry_a{b="c"}[1m])) / mailferry_d - up{job="mailferry_x"}"#);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [r#"mailferry_a{b="c"}"#, "mailferry_d", "mailferry_x"]);
}

#[test]
fn every_metric_is_on_the_dashboard_or_in_an_alert() {
    let used: String = panel_expressions().into_iter().map(|(_, expression)| expression + "\n").collect();
    let used = used + &alerts().iter().map(|alert| string(alert, "expr").to_owned() + "\n").collect::<String>();
    for name in names() {
        assert!(
            Regex::new(&format!(r"\b{name}(_bucket|_count)?\b")).unwrap().is_match(&used),
            "nobody looks at {name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_ask_for_what_an_operator_exposes() {
    let operator = Operator::start().await;
    let mut prometheus = Prometheus::start(operator.address, &path(RULES)).await;
    // A rate needs two looks, and a change between them.
    prometheus
        .until(async |prometheus| {
            operator.work();
            let seen = prometheus.query("count_over_time(mailferry_leader[1m])").await?;
            let scrapes = seen.first().and_then(|s| s["value"][1].as_str()).and_then(|count| count.parse::<u32>().ok());
            if scrapes.is_some_and(|scrapes| scrapes >= 4) { Ok(()) } else { Err(format!("too few scrapes: {seen:?}")) }
        })
        .await;

    for (title, expression) in panel_expressions() {
        let expression = filled(&expression);
        prometheus
            .until(async |prometheus| {
                operator.work();
                let series =
                    prometheus.query(&expression).await.map_err(|error| format!("{title}: {expression}: {error}"))?;
                let is_number = |value: &str| value.parse::<f64>().is_ok_and(f64::is_finite);
                let told = series.iter().any(|series| series["value"][1].as_str().is_some_and(is_number));
                if told { Ok(()) } else { Err(format!("{title}: {expression} gives {series:?}")) }
            })
            .await;
    }

    let mut read: BTreeSet<_> = alerts().iter().flat_map(|alert| selectors(string(alert, "expr"))).collect();
    read.extend(panel_expressions().iter().flat_map(|(_, expression)| selectors(&filled(expression))));
    read.extend(unit_test_series());
    for selector in read {
        let series = prometheus.query(&selector).await.unwrap();
        assert!(!series.is_empty(), "{selector}: no operator exposes that");
    }

    // All alerts are evaluated, and texts of those that fire are filled in.
    let rules = prometheus
        .until(async |prometheus| {
            let rules = prometheus.rules().await;
            let waiting = rules.iter().find(|rule| rule["health"] == "unknown");
            waiting.map_or(Ok(rules.clone()), |rule| Err(format!("not yet evaluated: {rule}")))
        })
        .await;
    assert_eq!(rules.len(), alerts().len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let mut active = 0;
    for alert in rules.iter().flat_map(|rule| rule["alerts"].as_array().unwrap()) {
        active += 1;
        for (key, text) in alert["annotations"].as_object().unwrap() {
            let text = text.as_str().unwrap();
            assert!(!text.contains("{{") && !text.contains("<error"), "{key}: {text}");
        }
    }
    assert!(active >= 10, "{active} of {} are pending or fire where everything goes wrong", rules.len());
}
