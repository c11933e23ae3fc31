//! The CustomResourceDefinitions: fresh on disk, fit for an API server, and their rules of one mind with Rust's.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod cases;
mod fields;

use std::{collections::BTreeSet, fs, path::Path};

use kube::CustomResourceExt;
use kube_cel::Validator;
use mailferry::api::{
    MailMigration, MailServer, MailboxSync,
    cel_rules::{self, ALL, CelRule},
    crd, validate,
};
use serde_json::{Value, json};

use cases::{accepted, migration, refused, sync, with};

#[test]
fn the_files_in_crds_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let files = crd::files().unwrap();
    for (name, yaml) in &files {
        let on_disk = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(on_disk == *yaml, "crds/{name} is stale: run `cargo run -- crds --write crds` and commit the result");
    }
    let on_disk = fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "yaml"));
    assert_eq!(on_disk.count(), files.len(), "crds/ holds other files than `cargo run -- crds --write crds` writes");
}

#[test]
fn the_page_of_fields_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fields.md");
    let page = fields::page();
    if std::env::var_os("MAILFERRY_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap_or_default() == page, "docs/fields.md is stale: run `make docs`");
}

#[test]
fn the_page_of_fields_has_each_of_them_and_no_dead_link() {
    let page = fields::page();
    for (kind, schema) in schemas() {
        walk(kind, &schema, &mut |path, schema| {
            let told = path.contains("conditions") || path == kind;
            for name in schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
                assert!(told || page.contains(&format!("| `{name}` |")), "{path}.{name}");
            }
        });
    }
    let headings: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(fields::anchor).collect();
    for link in page.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(headings.contains(anchor), "{anchor}");
    }
}

#[test]
fn the_example_shows_every_field_that_a_user_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/migration.yaml");
    let example = fs::read_to_string(path).unwrap();
    let mut names = BTreeSet::new();
    for (kind, schema) in schemas().into_iter().filter(|(kind, _)| *kind != "MailboxSync") {
        walk(&format!("{kind}.spec"), &schema["properties"]["spec"], &mut |path, schema| {
            // Tolerations are Kubernetes' own.
            if !path.contains("tolerations") {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let fields = fields.filter(|(_, field)| !is_deprecated(field));
                names.extend(fields.map(|(name, _)| name.clone()));
            }
        });
    }
    for name in names {
        let shown =
            example.match_indices(&format!("{name}:")).any(|(at, _)| !example[..at].ends_with(char::is_alphanumeric));
        assert!(shown, "examples/migration.yaml does not show {name}");
    }
}

fn is_deprecated(field: &Value) -> bool {
    field["description"].as_str().is_some_and(|text| text.starts_with("Deprecated"))
}

#[test]
fn an_object_that_nobody_looked_at_says_so() {
    for (kind, schema) in schemas() {
        assert_eq!(schema.pointer("/properties/status/default"), Some(&json!({"observedGeneration": -1})), "{kind}");
    }
}

#[test]
fn the_stream_holds_every_kind() {
    let stream = crd::all_yaml().unwrap();
    let kinds: Vec<_> = mailferry::yaml::read_stream("crds", &stream)
        .unwrap()
        .into_iter()
        .map(|document| document.value.pointer("/spec/names/kind").unwrap().clone())
        .collect();
    assert_eq!(kinds, ["MailServer", "MailMigration", "MailboxSync"]);
}

fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("MailServer", crd::schema::<MailServer>().unwrap()),
        ("MailMigration", crd::schema::<MailMigration>().unwrap()),
        ("MailboxSync", crd::schema::<MailboxSync>().unwrap()),
    ]
}

/// Every schema below `schema`, with its path.
fn walk<'a>(path: &str, schema: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            walk(&format!("{path}[]"), &schema[part], visit);
        }
    }
}

#[test]
fn every_schema_is_structural() {
    for (kind, schema) in schemas() {
        walk(kind, &schema, &mut |path, schema| {
            let int_or_string = schema["x-kubernetes-int-or-string"] == true;
            assert!(schema["type"].is_string() || int_or_string, "{path} has no type");
            for part in ["oneOf", "anyOf", "allOf", "not", "$ref", "nullable", "definitions", "const"] {
                assert!(schema.get(part).is_none() || int_or_string, "{path} has {part}");
            }
            let values = &schema["additionalProperties"];
            assert!(values.is_null() || values.is_object(), "{path} has additionalProperties {values}");
            assert!(schema["properties"].is_null() || values.is_null(), "{path} has both kinds of properties");
            let format = schema["format"].as_str().unwrap_or("int32");
            assert!(["int32", "int64", "date-time"].contains(&format), "{path} has the format {format}");
        });
    }
}

#[test]
fn every_field_of_a_user_has_a_description() {
    for (kind, schema) in schemas() {
        for part in ["spec", "status"] {
            walk(&format!("{kind}.{part}"), &schema["properties"][part], &mut |path, schema| {
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    assert!(property["description"].is_string(), "{path}.{name} has no description");
                }
            });
        }
    }
}

#[test]
fn no_list_is_without_a_bound_and_every_object_list_has_a_merge_strategy() {
    for (kind, schema) in schemas() {
        walk(kind, &schema, &mut |path, schema| {
            if schema["type"] == "array" {
                assert!(schema["maxItems"].is_u64(), "{path} has no maxItems");
            }
        });
    }
    let schema = crd::schema::<MailMigration>().unwrap();
    let mailboxes = schema.pointer("/properties/spec/properties/mailboxes").unwrap();
    assert_eq!(mailboxes["x-kubernetes-list-type"], "map");
    assert_eq!(mailboxes["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(mailboxes["maxItems"], 1000);
}

#[test]
fn every_rule_stands_in_a_schema_with_its_message() {
    let mut found = BTreeSet::new();
    for (kind, schema) in schemas() {
        walk(kind, &schema, &mut |_, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let text = |field: &str| rule[field].as_str().unwrap().to_owned();
                found.insert((text("rule"), text("message")));
            }
        });
    }
    let transitions =
        [cel_rules::ENDPOINTS_IMMUTABLE, cel_rules::MAILBOX_IMMUTABLE, cel_rules::SYNC_CREDENTIAL, cel_rules::FENCE];
    let transitions =
        transitions.into_iter().chain([cel_rules::WORKER_ATTEMPT, cel_rules::ATTEMPT_GROWS, cel_rules::REPORT_GROWS]);
    let expected: BTreeSet<_> = ALL
        .iter()
        .map(|(_, rule)| *rule)
        .chain(transitions)
        .map(|rule| (rule.cel.to_owned(), rule.message.to_owned()))
        .collect();
    assert_eq!(found, expected);
    for (_, message) in found {
        assert!(!message.contains('\n') && message.len() < 300, "{message}");
    }
}

/// What CEL says of an object, and of a change to it.
fn cel<K: CustomResourceExt>(object: &Value, old: Option<&Value>) -> BTreeSet<String> {
    let schema = crd::schema::<K>().unwrap();
    match Validator::new().validate(&schema, object, old) {
        Ok(()) => BTreeSet::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// What Rust says of a MailMigration or a MailServer.
fn rust(object: &Value) -> BTreeSet<String> {
    let problems = if object["kind"] == "MailServer" {
        validate::server_problems(&serde_json::from_value::<MailServer>(object.clone()).unwrap().spec)
    } else {
        validate::migration_problems(&serde_json::from_value::<MailMigration>(object.clone()).unwrap().spec)
    };
    problems.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn the_api_server_and_a_local_run_refuse_the_same_manifests_with_the_same_words() {
    let cases = refused();
    for (pointer, value, rule) in &cases {
        let object = with(&migration(), pointer, value.clone());
        assert_eq!(
            cel::<MailMigration>(&object, None),
            BTreeSet::from([rule.message.to_owned()]),
            "CEL: {pointer} {value}"
        );
        assert_eq!(rust(&object), BTreeSet::from([rule.message.to_owned()]), "Rust: {pointer} {value}");
    }
    let tried: BTreeSet<_> = cases.iter().map(|(.., rule)| rule.message).collect();
    let untried: Vec<_> = ALL.iter().filter(|(_, rule)| !tried.contains(rule.message)).map(|(name, _)| name).collect();
    assert!(untried.is_empty(), "no manifest breaks {untried:?}");
}

#[test]
fn right_manifests_are_accepted_by_both() {
    for (pointer, value) in accepted() {
        let object = with(&migration(), pointer, value);
        assert_eq!(cel::<MailMigration>(&object, None), BTreeSet::new(), "CEL: {pointer}");
        assert_eq!(rust(&object), BTreeSet::new(), "Rust: {pointer}");
    }
    let csv = with(&migration(), "/spec/mailboxSecrets", json!([{"name": "s", "key": "m.csv"}]));
    let csv = with(&csv, "/spec/mailboxes", Value::Null);
    assert_eq!((cel::<MailMigration>(&csv, None), rust(&csv)), (BTreeSet::new(), BTreeSet::new()));
    let public = with(&csv, "/spec/mailboxSecrets", Value::Null);
    let public = with(&public, "/spec/mailboxConfigMaps", json!([{"name": "m", "key": "m.csv"}]));
    let master = public.pointer("/spec/destination/masterUser").unwrap().clone();
    let public = with(&public, "/spec/source/masterUser", master);
    assert_eq!((cel::<MailMigration>(&public, None), rust(&public)), (BTreeSet::new(), BTreeSet::new()));
}

#[test]
fn a_mail_server_has_the_rules_of_an_inline_one() {
    let server = json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailServer", "metadata": {"name": "s"},
                        "spec": {"host": "h:1", "tls": {"mode": "None", "serverName": "n"}}});
    let expected = BTreeSet::from([cel_rules::HOST.message.to_owned(), cel_rules::NO_TLS.message.to_owned()]);
    assert_eq!((cel::<MailServer>(&server, None), rust(&server)), (expected.clone(), expected));
}

#[test]
fn the_servers_of_a_started_migration_are_fixed_and_the_rest_is_not() {
    let old = with(&migration(), "/status", json!({"startedAt": "2026-03-01T00:00:00Z"}));
    let started = BTreeSet::from([cel_rules::ENDPOINTS_IMMUTABLE.message.to_owned()]);
    for (pointer, value) in [
        ("/spec/source/server/host", json!("other.example")),
        ("/spec/source/server/port", json!(1993)),
        ("/spec/destination/serverRef/name", json!("other")),
    ] {
        let new = with(&old, pointer, value);
        assert_eq!(cel::<MailMigration>(&new, Some(&old)), started, "{pointer}");
        let fresh = with(&old, "/status", json!({}));
        assert_eq!(cel::<MailMigration>(&new, Some(&fresh)), BTreeSet::new(), "{pointer}");
    }
    let moved = with(&with(&old, "/spec/source/server", Value::Null), "/spec/source/serverRef", json!({"name": "x"}));
    assert_eq!(cel::<MailMigration>(&moved, Some(&old)), started);
    for (pointer, value) in [
        ("/spec/source/server/tls", json!({"serverName": "n"})),
        ("/spec/source/server/limits", json!({"maxConnections": 3})),
        ("/spec/destination/masterUser/passwordSecretRef/key", json!("new")),
        ("/spec/suspend", json!(true)),
        ("/spec/mailboxes/0/source/username", json!("b")),
    ] {
        assert_eq!(cel::<MailMigration>(&with(&old, pointer, value), Some(&old)), BTreeSet::new(), "{pointer}");
    }
}

#[test]
fn only_the_worker_of_the_current_attempt_may_report() {
    let old = sync();
    let change = |pointer: &str, value: Value| cel::<MailboxSync>(&with(&old, pointer, value), Some(&old));
    let refused = |rule: CelRule| BTreeSet::from([rule.message.to_owned()]);
    assert_eq!(change("/status/worker", json!({"attempt": 2, "report": 6})), BTreeSet::new());
    assert_eq!(change("/status/worker", json!({"attempt": 1, "report": 6})), refused(cel_rules::FENCE));
    assert_eq!(change("/status/worker", Value::Null), refused(cel_rules::FENCE));
    assert_eq!(change("/status/worker/report", json!(4)), refused(cel_rules::REPORT_GROWS));
    assert_eq!(change("/status/attempt", json!(3)), BTreeSet::new(), "the operator leaves the checkpoint as it is");
    let ahead = refused(cel_rules::FENCE).union(&refused(cel_rules::WORKER_ATTEMPT)).cloned().collect();
    assert_eq!(change("/status/worker/attempt", json!(3)), ahead);
    assert!(change("/status/attempt", json!(1)).contains(cel_rules::ATTEMPT_GROWS.message));

    let next = with(&old, "/status/attempt", json!(3));
    let late = with(&next, "/status/worker/report", json!(6));
    assert_eq!(cel::<MailboxSync>(&late, Some(&next)), refused(cel_rules::FENCE), "a stale worker is fenced");
    let claim = with(&next, "/status/worker", json!({"attempt": 3, "report": 0, "checkpoint": "x"}));
    assert_eq!(cel::<MailboxSync>(&claim, Some(&next)), BTreeSet::new(), "the next worker takes over");
    let first = with(&old, "/status/worker", Value::Null);
    assert_eq!(cel::<MailboxSync>(&old, Some(&first)), BTreeSet::new(), "the first report");
    assert_eq!(cel::<MailboxSync>(&first, Some(&first)), BTreeSet::new());
}

#[test]
fn a_mailbox_sync_stays_with_its_mailbox_and_logs_in_somehow() {
    let old = sync();
    let moved = cel::<MailboxSync>(&with(&old, "/spec/mailbox", json!("b")), Some(&old));
    assert_eq!(moved, BTreeSet::from([cel_rules::MAILBOX_IMMUTABLE.message.to_owned()]));
    let no_login = cel::<MailboxSync>(&with(&old, "/spec/source/account", json!({"username": "a"})), Some(&old));
    assert_eq!(no_login, BTreeSet::from([cel_rules::SYNC_CREDENTIAL.message.to_owned()]));
}

#[test]
fn what_is_written_reads_back_as_it_was() {
    let read: MailMigration = serde_json::from_value(migration()).unwrap();
    let again: MailMigration = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
    assert_eq!(read, again);
    let read: MailboxSync = serde_json::from_value(sync()).unwrap();
    let again: MailboxSync = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
    assert_eq!(read, again);
}

#[test]
fn defaults_of_rust_and_of_the_schema_are_the_same() {
    let read: MailMigration = serde_json::from_value(migration()).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    let schema = crd::schema::<MailMigration>().unwrap();
    for (name, property) in schema.pointer("/properties/spec/properties").unwrap().as_object().unwrap() {
        if let Some(default) = property.get("default") {
            let given = migration().pointer(&format!("/spec/{name}")).is_some_and(|given| *given != json!({}));
            assert!(given || written["spec"][name] == *default, "{name}: {default}");
        }
    }
    assert_eq!(written["spec"]["deadline"], "6h");
    assert_eq!(written["spec"]["parallelism"], 10);
    assert_eq!(written["spec"]["connections"], 4);
}
