//! The examples in examples/gitops.

use std::{collections::BTreeSet, fs, path::PathBuf};

use mailferry::{
    api::{MailMigration, MailServer, crd, schema_check, validate},
    yaml,
};
use serde_json::Value;

use crate::judges::health_lua;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/gitops")
}

/// A customer's manifests.
pub fn customers() -> String {
    fs::read_to_string(folder().join("customers/migration.yaml")).unwrap()
}

/// Every object in the examples, with its file.
fn objects() -> Vec<(String, Value)> {
    let mut objects = Vec::new();
    for part in fs::read_dir(folder()).unwrap() {
        for file in fs::read_dir(part.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            // sops.yaml is the tool's own configuration, not an object.
            if path.extension().is_some_and(|extension| extension == "yaml") && !path.ends_with(".sops.yaml") {
                let name = path.strip_prefix(folder()).unwrap().display().to_string();
                let documents = yaml::read_stream(&name, &fs::read_to_string(&path).unwrap()).unwrap();
                objects.extend(documents.into_iter().map(|document| (name.clone(), document.value)));
            }
        }
    }
    assert!(objects.len() > 5, "{objects:?}");
    objects
}

fn of_kind(kind: &str) -> Vec<(String, Value)> {
    let found: Vec<_> = objects().into_iter().filter(|(_, object)| object["kind"] == kind).collect();
    assert!(!found.is_empty(), "no example of a {kind}");
    found
}

#[test]
fn every_object_says_what_it_is() {
    for (file, object) in objects() {
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            assert!(object.pointer(field).is_some_and(Value::is_string), "{file}: no {field}");
        }
    }
}

#[test]
fn migrations_and_mail_servers_are_ones_that_the_api_server_takes() {
    for (file, object) in of_kind("MailMigration") {
        assert_eq!(schema_check::schema_problems(&crd::schema::<MailMigration>().unwrap(), &object), [], "{file}");
        let migration: MailMigration = serde_json::from_value(object).unwrap();
        assert_eq!(validate::migration_problems(&migration.spec), [], "{file}");
    }
    for (file, object) in of_kind("MailServer") {
        assert_eq!(schema_check::schema_problems(&crd::schema::<MailServer>().unwrap(), &object), [], "{file}");
        let server: MailServer = serde_json::from_value(object).unwrap();
        assert_eq!(validate::server_problems(&server.spec), [], "{file}");
    }
}

#[test]
fn each_secret_that_a_migration_reads_is_made_by_an_example() {
    let text = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let mut made: BTreeSet<String> = BTreeSet::new();
    for (_, object) in objects() {
        match object["kind"].as_str().unwrap() {
            "Secret" => made.extend(text(&object, "/metadata/name")),
            "ExternalSecret" => made.extend(text(&object, "/spec/target/name")),
            _ => {}
        }
    }
    for (file, object) in of_kind("MailMigration") {
        let migration: MailMigration = serde_json::from_value(object).unwrap();
        let spec = &migration.spec;
        let masters = [&spec.source, &spec.destination].into_iter().flat_map(|endpoint| &endpoint.master_user);
        let accounts = spec.mailboxes.iter().flat_map(|mailbox| [&mailbox.source, &mailbox.destination]);
        let read: BTreeSet<String> = masters
            .map(|master| master.password_secret_ref.name.clone())
            .chain(accounts.filter_map(|account| Some(account.password_secret_ref.as_ref()?.name.clone())))
            .chain(spec.mailbox_secrets.iter().map(|secret| secret.name.clone()))
            .collect();
        assert!(!read.is_empty() && read.is_subset(&made), "{file}: {read:?} of {made:?}");
    }
}

#[test]
fn argo_cd_is_given_the_script_that_is_tested() {
    let [(_, map)] = &of_kind("ConfigMap")[..] else { panic!("one ConfigMap") };
    let data = map["data"].as_object().unwrap();
    let script = fs::read_to_string(health_lua()).unwrap();
    for crd in crd::all() {
        let key = format!("resource.customizations.health.{}_{}", crd.spec.group, crd.spec.names.kind);
        assert_eq!(data[&key], *script, "{key}");
    }
    assert_eq!(data.len(), 3);
}

#[test]
fn flux_waits_for_objects_that_are_there() {
    let named: BTreeSet<(String, String)> = objects()
        .into_iter()
        .map(|(_, object)| (object["kind"].to_string(), object.pointer("/metadata/name").unwrap().to_string()))
        .collect();
    let mut checks = 0;
    for (file, object) in of_kind("Kustomization") {
        for check in object.pointer("/spec/healthChecks").and_then(Value::as_array).into_iter().flatten() {
            assert!(named.contains(&(check["kind"].to_string(), check["name"].to_string())), "{file}: {check}");
            checks += 1;
        }
        for other in object.pointer("/spec/dependsOn").and_then(Value::as_array).into_iter().flatten() {
            assert!(named.contains(&("\"Kustomization\"".to_owned(), other["name"].to_string())), "{file}: {other}");
        }
    }
    assert!(checks > 0);
}
