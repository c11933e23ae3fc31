//! What the API server takes and refuses when somebody applies a manifest: every rule, one by one, in its own words.

use kube::{
    Api, CustomResourceExt, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective},
    core::NamespaceResourceScope,
};
use mailferry::api::{
    MailMigration, MailServer, MailboxSync,
    cel_rules::{self, CelRule},
};
use serde_json::{Value, json};

use crate::{
    cases::{accepted, migration, refused, sync, with},
    rig::{Rig, read, refusal},
};

/// Objects of a kind as somebody writes them: Rust's types have no say.
fn as_written<K>(rig: &Rig) -> Api<DynamicObject>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + CustomResourceExt,
{
    Api::namespaced_with(rig.client.clone(), &rig.namespace, &ApiResource::erase::<K>(&()))
}

/// Looks, but keeps nothing.
fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// The API server refused with this rule's message.
fn assert_broken<T: std::fmt::Debug>(result: Result<T, kube::Error>, rule: CelRule, what: &str) {
    let (code, message) = refusal(result);
    assert!(code == 422 && message.contains(rule.message), "{what}: {code} {message}");
}

#[tokio::test]
async fn every_rule_refuses_a_manifest_that_breaks_it_and_says_what_to_write_instead() {
    let rig = Rig::new().await;
    let migrations = as_written::<MailMigration>(&rig);
    for (pointer, value, rule) in refused() {
        let object = read(with(&migration(), pointer, value.clone()));
        assert_broken(migrations.create(&dry_run(), &object).await, rule, &format!("{pointer} {value}"));
    }
}

#[tokio::test]
async fn right_manifests_are_taken() {
    let rig = Rig::new().await;
    let migrations = as_written::<MailMigration>(&rig);
    migrations.create(&dry_run(), &read(migration())).await.unwrap();
    for (pointer, value) in accepted() {
        let made = migrations.create(&dry_run(), &read(with(&migration(), pointer, value.clone()))).await;
        made.unwrap_or_else(|error| panic!("{pointer} {value}: {error}"));
    }
}

#[tokio::test]
async fn a_mail_server_has_the_rules_of_an_inline_one() {
    let rig = Rig::new().await;
    let server = json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailServer", "metadata": {"name": "s"},
                        "spec": {"host": "imap.example.com"}});
    let servers = as_written::<MailServer>(&rig);
    servers.create(&dry_run(), &read(server.clone())).await.unwrap();
    for (pointer, value, rule) in [
        ("/spec/host", json!("h:1"), cel_rules::HOST),
        ("/spec/tls", json!({"mode": "None", "serverName": "n"}), cel_rules::NO_TLS),
    ] {
        let object = read(with(&server, pointer, value));
        assert_broken(servers.create(&dry_run(), &object).await, rule, pointer);
    }
}

#[tokio::test]
async fn the_servers_of_a_started_migration_are_fixed_and_the_rest_is_not() {
    let rig = Rig::new().await;
    let migrations = as_written::<MailMigration>(&rig);
    migrations.create(&PostParams::default(), &read(migration())).await.unwrap();
    let server = |host: &str| json!({"spec": {"source": {"server": {"host": host}}}});
    let change = async |patch: Value| migrations.patch("m", &PatchParams::default(), &Patch::Merge(patch)).await;
    change(server("moved-before-the-start.example")).await.unwrap();

    let started = json!({"status": {"startedAt": "2026-03-01T00:00:00Z"}});
    migrations.patch_status("m", &PatchParams::default(), &Patch::Merge(started)).await.unwrap();
    for patch in [
        server("other.example"),
        json!({"spec": {"source": {"server": {"port": 1993}}}}),
        json!({"spec": {"destination": {"serverRef": {"name": "other"}}}}),
        json!({"spec": {"source": {"server": null, "serverRef": {"name": "other"}}}}),
    ] {
        let what = patch.to_string();
        assert_broken(change(patch).await, cel_rules::ENDPOINTS_IMMUTABLE, &what);
    }
    for patch in [
        json!({"spec": {"source": {"server": {"tls": {"serverName": "n"}, "limits": {"maxConnections": 3}}}}}),
        json!({"spec": {"destination": {"masterUser": {"passwordSecretRef": {"key": "new"}}}}}),
        json!({"spec": {"suspend": true, "parallelism": 3, "syncRequest": "again"}}),
    ] {
        change(patch).await.unwrap();
    }
}

#[tokio::test]
async fn a_mailbox_sync_stays_with_its_mailbox_and_logs_in_somehow() {
    let rig = Rig::new().await;
    let syncs = as_written::<MailboxSync>(&rig);
    let no_login = read(with(&sync(), "/spec/source/account", json!({"username": "a"})));
    assert_broken(syncs.create(&dry_run(), &no_login).await, cel_rules::SYNC_CREDENTIAL, "no login");
    syncs.create(&PostParams::default(), &read(sync())).await.unwrap();
    for field in ["mailbox", "migration"] {
        let patch = Patch::Merge(json!({"spec": {field: "other"}}));
        assert_broken(syncs.patch("m", &PatchParams::default(), &patch).await, cel_rules::MAILBOX_IMMUTABLE, field);
    }
}

#[tokio::test]
async fn what_is_out_of_range_is_refused() {
    let rig = Rig::new().await;
    let migrations = as_written::<MailMigration>(&rig);
    let mailbox = |number: usize| json!({"name": format!("m{number}"), "source": {"passwordSecretRef": {"name": "s", "key": "k"}}});
    for (pointer, value) in [
        ("/spec/parallelism", json!(0)),
        ("/spec/connections", json!(17)),
        ("/spec/deadline", json!("six hours")),
        ("/spec/source/server/port", json!(65_536)),
        ("/spec/mailboxes", json!((0..1001).map(mailbox).collect::<Vec<_>>())),
        ("/spec/mailboxes", json!([mailbox(1), mailbox(1)])),
    ] {
        let (code, message) =
            refusal(migrations.create(&dry_run(), &read(with(&migration(), pointer, value.clone()))).await);
        let field = pointer.rsplit('/').next().unwrap();
        assert!(code == 422 && message.contains(field), "{pointer}: {code} {message}");
    }
    let thousand = json!((0..1000).map(mailbox).collect::<Vec<_>>());
    migrations.create(&dry_run(), &read(with(&migration(), "/spec/mailboxes", thousand))).await.unwrap();
}

#[tokio::test]
async fn a_misspelt_field_is_refused_as_kubectl_asks_for_it() {
    let rig = Rig::new().await;
    let object: DynamicObject = read(with(&migration(), "/spec/paralellism", json!(3)));
    let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("somebody") };
    let result = as_written::<MailMigration>(&rig).patch("m", &strict, &Patch::Apply(&object)).await;
    let (_, message) = refusal(result);
    assert!(message.contains("paralellism"), "{message}");
}

#[tokio::test]
async fn the_api_server_fills_in_the_defaults_that_rust_has() {
    let rig = Rig::new().await;
    let made = as_written::<MailMigration>(&rig).create(&dry_run(), &read(migration())).await.unwrap();
    let written = serde_json::to_value(read::<MailMigration>(migration()).spec).unwrap();
    assert_eq!(made.data["spec"]["deadline"], "6h");
    for (field, value) in made.data["spec"].as_object().unwrap() {
        assert_eq!(written[field], *value, "{field}");
    }
}

#[tokio::test]
async fn an_explicit_null_is_as_if_it_were_not_written() {
    let rig = Rig::new().await;
    let mut object = migration();
    object["spec"]["cutover"] = Value::Null;
    object["spec"]["source"]["serverRef"] = Value::Null;
    object["spec"]["deadline"] = Value::Null;
    let made = as_written::<MailMigration>(&rig).create(&dry_run(), &read(object)).await.unwrap();
    assert_eq!(made.data["spec"]["deadline"], "6h");
    assert_eq!((made.data["spec"].get("cutover"), made.data["spec"]["source"].get("serverRef")), (None, None));
}

#[tokio::test]
async fn children_are_found_by_migration_mailbox_and_phase() {
    let rig = Rig::new().await;
    for (name, phase) in [("a", "Synced"), ("b", "Running"), ("c", "Running")] {
        rig.mailbox_sync(name, json!({"attempt": 0, "phase": phase})).await;
    }
    let select = async |selector: &str| {
        let parameters = kube::api::ListParams::default().fields(selector);
        let found = rig.api::<MailboxSync>().list(&parameters).await.unwrap();
        found.items.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>()
    };
    assert_eq!(select("status.phase=Running").await, ["b", "c"]);
    assert_eq!(select("spec.migration=m,spec.mailbox=a").await, ["a"]);
    assert_eq!(select("spec.migration=other").await, [""; 0]);
}
