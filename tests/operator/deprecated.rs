//! Fields that have another name by now: they go on working, and whoever writes them is told.

use mailferry::api::{MailMigration, MailboxSync};
use mailferry_testkit::{eventually, so};
use serde_json::json;

use crate::{
    deploy::kubectl,
    rig::plane,
    stage::{Stage, condition},
};

#[tokio::test]
async fn the_former_ttl_goes_on_working_and_is_told_until_it_has_its_new_name() {
    let stage = Stage::new().await;
    stage.migration("acme", &["alice"], json!({"suspend": true, "ttl": "3h"})).await;
    let told = stage.until_condition("acme", "DeprecatedFields", "True").await;
    let (_, reason, message) = condition(&told, "DeprecatedFields").unwrap();
    assert!(reason == "Renamed" && message.contains("spec.ttl: ") && message.contains("finishedPodsTTL"), "{message}");
    let kept = |sync: &MailboxSync, time: &str| sync.spec.settings.finished_pods_ttl.to_string() == time;
    let alice = Stage::sync("acme", "alice");
    stage.until::<MailboxSync>(&alice, |sync| kept(sync, "3h")).await;
    stage.change("acme", json!({"ttl": null, "finishedPodsTTL": "5h"})).await;
    stage.until::<MailboxSync>(&alice, |sync| kept(sync, "5h")).await;
    stage.until::<MailMigration>("acme", |migration| condition(migration, "DeprecatedFields").is_none()).await;
    // What definitions of before wrote into every object.
    stage.change("acme", json!({"ttl": "24h"})).await;
    let generation = stage.api::<MailMigration>().get("acme").await.unwrap().metadata.generation;
    let seen = |m: &MailMigration| m.status.as_ref().is_some_and(|status| status.observed_generation == generation);
    let seen = stage.until::<MailMigration>("acme", seen).await;
    assert_eq!(condition(&seen, "DeprecatedFields"), None);
}

#[tokio::test]
async fn who_applies_a_deprecated_field_is_warned_and_not_refused() {
    let stage = Stage::idle().await;
    stage.migration("acme", &["alice"], json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let namespace = &stage.rig.namespace;
    let apply = |spec: &str| {
        let file = folder.path().join("patch.yaml");
        std::fs::write(&file, format!("spec: {spec}")).unwrap();
        let file = file.display().to_string();
        let patch = ["patch", "mailmigration", "acme", "-n", namespace, "--type=merge", "--patch-file", &file];
        kubectl(plane(), &patch).map(|output| (output.status.success(), String::from_utf8(output.stderr).unwrap()))
    };
    if apply("{}").is_none() {
        return;
    }
    let mut hours = 0;
    eventually("deploy/deprecated-fields.yaml has an effect", async || {
        hours += 1;
        let (done, told) = apply(&format!("{{ttl: {hours}h}}")).unwrap();
        assert!(done, "{told}");
        so(told.contains("Warning") && told.contains("write finishedPodsTTL"), told)
    })
    .await;
    assert_eq!(apply("{ttl: null, finishedPodsTTL: 3h}"), Some((true, String::new())));
}
