//! What the chart takes from elsewhere in this project is up to date: `make chart` writes it.

use std::{fmt::Write as _, fs, path::PathBuf};

use serde_json::Value;

use crate::helm::chart;

/// Compares a file of the chart with what it should be; writes it where the environment says so.
fn fresh(name: &str, expected: &str) {
    let path = chart().join(name);
    if std::env::var_os("MAILFERRY_WRITE").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let is = fs::read_to_string(&path).unwrap_or_default();
    assert!(is == expected, "charts/mailferry/{name} is stale: run `make chart` and commit the result");
}

/// One of the project's files.
fn project(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The names of the YAML files in a folder of the chart.
fn files(folder: &str) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(chart().join(folder)).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn the_charts_definitions_are_those_of_the_program() {
    let definitions = mailferry::api::crd::files().unwrap();
    for (name, yaml) in &definitions {
        fresh(&format!("files/crds/{name}"), yaml);
    }
    let mut names: Vec<_> = definitions.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    assert_eq!(files("files/crds"), names);
}

/// The chart's file, and where it comes from.
const POLICIES: [(&str, &str); 5] = [
    ("controller-fence.yaml", "deploy/controller-fence.yaml"),
    ("deprecated-fields.yaml", "deploy/deprecated-fields.yaml"),
    ("destinations.yaml", "deploy/destination-policy/policy.yaml"),
    ("mailboxsync-fence.yaml", "deploy/mailboxsync-fence.yaml"),
    ("worker-fence.yaml", "deploy/worker-fence.yaml"),
];

#[test]
fn the_charts_admission_policies_are_those_of_the_plain_manifests() {
    for (name, source) in POLICIES {
        fresh(&format!("files/policies/{name}"), &project(source));
    }
    let mut names: Vec<_> = POLICIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(files("files/policies"), names);
}

/// A value of values.yaml with the comment before it.
struct Entry {
    path: Vec<String>,
    /// None where there are values below.
    default: Option<String>,
    text: String,
}

/// Reads values.yaml: a comment directly before a key describes it; one that is indented by more than a space is an example.
fn entries() -> Vec<Entry> {
    let yaml = project("charts/mailferry/values.yaml");
    let values: Value = serde_yaml::from_str(&yaml).unwrap();
    let (mut entries, mut path, mut comment) = (Vec::new(), Vec::new(), Vec::new());
    for line in yaml.lines() {
        let text = line.trim_start();
        if text.is_empty() {
            comment.clear();
        } else if let Some(words) = text.strip_prefix('#') {
            if !words.starts_with("  ") {
                comment.push(words.trim().to_owned());
            }
        } else {
            let (key, value) = text.split_once(':').unwrap_or_else(|| panic!("no key in: {line}"));
            path.truncate((line.len() - text.len()) / 2);
            path.push(key.to_owned());
            let default = values.pointer(&format!("/{}", path.join("/"))).unwrap().to_string();
            let default = (!value.trim().is_empty()).then_some(default);
            entries.push(Entry { path: path.clone(), default, text: comment.join(" ") });
            comment.clear();
        }
    }
    entries
}

#[test]
fn every_value_is_described() {
    for Entry { path, text, .. } in entries().iter().filter(|entry| entry.default.is_some()) {
        assert!(text.ends_with('.'), "{} has no comment in values.yaml that ends with a full stop", path.join("."));
    }
}

#[test]
fn the_readme_shows_every_value() {
    let (begin, end) = ("<!-- values -->\n", "<!-- end of values -->\n");
    let readme = project("charts/mailferry/README.md");
    let (before, rest) = readme.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let mut table = "| value | default | |\n| --- | --- | --- |\n".to_owned();
    for Entry { path, default, text } in entries() {
        let Some(default) = default else { continue };
        let escape = |text: &str| text.replace('|', "\\|");
        writeln!(table, "| `{}` | `{}` | {} |", path.join("."), escape(&default), escape(&text)).unwrap();
    }
    fresh("README.md", &format!("{before}{begin}{table}{end}{after}"));
}

#[test]
fn the_schema_describes_values_as_values_yaml_does() {
    let mut schema: Value = serde_json::from_str(&project("charts/mailferry/values.schema.json")).unwrap();
    for Entry { path, text, .. } in entries() {
        let pointer: String = path.iter().flat_map(|key| ["/properties/", key]).collect();
        let property = schema.pointer_mut(&pointer).unwrap_or_else(|| panic!("the schema has no {}", path.join(".")));
        if !text.is_empty() {
            property["description"] = text.into();
        }
    }
    fresh("values.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
}

#[test]
fn the_chart_has_the_programs_version() {
    let chart: Value = serde_yaml::from_str(&project("charts/mailferry/Chart.yaml")).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let images = chart["annotations"]["artifacthub.io/images"].as_str().unwrap();
    let images: Value = serde_yaml::from_str(images).unwrap();
    assert_eq!(images[0]["image"], concat!("ghcr.io/mailferry/mailferry:", env!("CARGO_PKG_VERSION")));
}

#[test]
fn artifact_hub_is_told_of_every_kind_with_a_right_example() {
    let chart: Value = serde_yaml::from_str(&project("charts/mailferry/Chart.yaml")).unwrap();
    let annotation =
        |name: &str| -> Vec<Value> { serde_yaml::from_str(chart["annotations"][name].as_str().unwrap()).unwrap() };
    let told: Vec<_> = annotation("artifacthub.io/crds").iter().map(|kind| kind["name"].clone()).collect();
    let mut defined: Vec<_> = files("files/crds")
        .iter()
        .map(|name| {
            let yaml: Value = serde_yaml::from_str(&project(&format!("charts/mailferry/files/crds/{name}"))).unwrap();
            yaml["metadata"]["name"].clone()
        })
        .collect();
    for name in &told {
        defined.retain(|defined| defined != name);
    }
    assert_eq!((told.len(), defined), (3, Vec::new()));
    for example in annotation("artifacthub.io/crdsExamples") {
        let problems = if example["kind"] == "MailServer" {
            let server: mailferry::api::MailServer = serde_json::from_value(example).unwrap();
            mailferry::api::validate::server_problems(&server.spec)
        } else {
            let migration: mailferry::api::MailMigration = serde_json::from_value(example).unwrap();
            mailferry::api::validate::migration_problems(&migration.spec)
        };
        assert_eq!(problems.len(), 0);
    }
}
