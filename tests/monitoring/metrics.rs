//! Every metric as people and their rules know it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::operator::exposed;

/// What is known of a metric beside its values.
#[derive(Default)]
struct Metric<'a> {
    type_: &'a str,
    help: &'a str,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Types, helps, and each label with its values, by name; without what was measured.
#[test]
fn names_types_labels_and_helps_of_all_metrics_are_as_they_were() {
    let text = exposed();
    let mut metrics: BTreeMap<&str, Metric<'_>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name).or_default().help = help;
        } else if let Some((name, type_)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name).or_default().type_ = type_;
        } else if let Some((series, labels)) = line.split_once('{') {
            let name = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| series.strip_suffix(suffix));
            let name = name.filter(|name| metrics.contains_key(name)).unwrap_or(series);
            let (labels, _) = labels.rsplit_once('}').unwrap();
            let known = &mut metrics.get_mut(name).unwrap().labels;
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").unwrap();
                known.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    let mut table = String::new();
    for (name, Metric { type_, help, labels }) in metrics {
        writeln!(table, "{name} ({type_}): {help}").unwrap();
        for (label, mut values) in labels {
            if label == "version" {
                values = BTreeSet::from(["[version]".to_owned()]);
            }
            let mut values = Vec::from_iter(values);
            if label == "le" {
                values.sort_by(|a, b| a.parse::<f64>().unwrap().total_cmp(&b.parse().unwrap()));
            }
            writeln!(table, "    {label}: {}", values.join(", ")).unwrap();
        }
    }
    insta::assert_snapshot!("metrics", table);
}
