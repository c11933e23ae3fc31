//! From a list of mailboxes to MailboxSyncs, and what happens when the list changes.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PropagationPolicy},
};
use mailferry::{
    api::{MailMigration, MailServer, MailboxSync},
    controller::config::OperatorConfig,
};
use serde_json::json;

use crate::stage::{Ending, Stage, condition};

fn entries(names: &[String]) -> serde_json::Value {
    let reference = json!({"passwordSecretRef": {"name": "mail", "key": "key"}});
    names.iter().map(|name| json!({"name": name, "source": reference, "destination": reference})).collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n:02}")).collect()
}

#[tokio::test]
async fn mailboxes_that_leave_the_list_leave_the_migration_and_many_at_once_only_when_confirmed() {
    let stage = Stage::new().await;
    stage.migration("acme", &[], json!({"suspend": true, "mailboxes": entries(&names(24))})).await;
    stage.until_total("acme", 24).await;
    stage.change("acme", json!({"mailboxes": entries(&names(22))})).await;
    stage.until_total("acme", 22).await;

    stage.change("acme", json!({"mailboxes": entries(&names(10))})).await;
    let asks = stage.until_condition("acme", "RemovalPending", "True").await;
    let pending = asks.status.as_ref().unwrap().pending_removal.clone().unwrap();
    assert_eq!((pending.count, stage.syncs().await.len()), (12, 22));
    assert!(condition(&asks, "RemovalPending").unwrap().2.contains(&pending.token));
    stage.change("acme", json!({"confirmRemoval": pending.token})).await;
    stage.until_total("acme", 10).await;
    assert_eq!(stage.syncs().await.len(), 10);
}

#[tokio::test]
async fn a_short_list_is_not_replaced_by_mistake() {
    let mut stage = Stage::new().await;
    stage.migration("acme", &[], json!({"suspend": true, "mailboxes": entries(&names(3))})).await;
    stage.until_total("acme", 3).await;
    let others: Vec<_> = (0..5).map(|n| format!("x{n}")).collect();
    stage.change("acme", json!({"mailboxes": entries(&others)})).await;
    let asks = stage.until_condition("acme", "RemovalPending", "True").await;
    let pending = asks.status.as_ref().unwrap().pending_removal.clone().unwrap();
    assert_eq!(pending.count, 3);
    // Among the others they are few, and go on waiting, for another operator, too.
    stage.until_total("acme", 8).await;
    stage.stop().await;
    stage.start().await;
    stage.change("acme", json!({"parallelism": 7})).await;
    let seen = |m: &MailMigration| m.status.as_ref().and_then(|s| s.observed_generation) == m.metadata.generation;
    let seen = stage.until::<MailMigration>("acme", seen).await;
    assert_eq!(seen.status.unwrap().pending_removal, Some(pending.clone()));
    assert_eq!(stage.syncs().await.len(), 8);
    stage.change("acme", json!({"confirmRemoval": pending.token})).await;
    stage.until_total("acme", 5).await;
}

#[tokio::test]
async fn a_mailbox_that_leaves_while_it_runs_stops_first() {
    let stage = Stage::new().await;
    let m00 = Stage::sync("acme", "m00");
    stage.migration("acme", &[], json!({"mailboxes": entries(&names(2)), "parallelism": 2})).await;
    let pod = stage.running(&m00, 1).await;
    stage.change("acme", json!({"mailboxes": entries(&names(2)[1..])})).await;
    stage.stops(&m00, 1).await;
    stage.rig.pod_gone(&pod).await;
    stage.until_gone::<MailboxSync>(&m00).await;
}

#[tokio::test]
async fn a_missing_mail_server_is_said_and_waited_for() {
    let stage = Stage::new().await;
    stage.migration("acme", &["alice"], json!({"source": {"server": null, "serverRef": {"name": "old"}}})).await;
    let refused = stage.until_condition("acme", "Accepted", "False").await;
    let (_, reason, message) = condition(&refused, "Accepted").unwrap();
    assert!(reason == "ServerNotFound" && message.contains("no MailServer old"), "{message}");
    assert!(condition(&refused, "Stalled").is_none(), "the MailServer may come with the next apply");
    stage
        .rig
        .apply(
            "{apiVersion: mailferry.io/v1alpha1, kind: MailServer, metadata: {name: old}, spec: {host: old.example}}",
        )
        .await;
    stage.until_condition("acme", "Accepted", "True").await;
    stage
        .until::<MailboxSync>(&Stage::sync("acme", "alice"), |sync| sync.spec.source.server.host == "old.example")
        .await;
    // Limits that change later reach the mailboxes.
    stage.rig.apply("{apiVersion: mailferry.io/v1alpha1, kind: MailServer, metadata: {name: old}, spec: {host: old.example, limits: {maxConnections: 7}}}").await;
    stage
        .until::<MailboxSync>(&Stage::sync("acme", "alice"), |sync| {
            sync.spec.source.server.limits.max_connections == Some(7)
        })
        .await;
    drop(stage.api::<MailServer>());
}

#[tokio::test]
async fn a_migration_that_has_started_keeps_its_hosts_and_takes_the_rest() {
    let stage = Stage::new().await;
    let server = async |host: &str, limit: i32| {
        let server = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailServer", "metadata": {"name": "old"},
            "spec": {"host": host, "limits": {"maxConnections": limit}},
        });
        stage.rig.apply(&server.to_string()).await;
    };
    server("old.example", 5).await;
    stage.migration("acme", &["alice"], json!({"source": {"server": null, "serverRef": {"name": "old"}}})).await;
    let alice = Stage::sync("acme", "alice");
    Box::pin(stage.running(&alice, 1)).await;
    server("another.example", 7).await;
    let changed = stage.until_condition("acme", "ServerChanged", "True").await;
    let (_, reason, message) = condition(&changed, "ServerChanged").unwrap();
    assert!(reason == "MigrationStarted" && message.contains("names another.example port 993 now"), "{message}");
    let of = |sync: &MailboxSync| sync.spec.source.server.limits.max_connections;
    let kept = stage.until::<MailboxSync>(&alice, |sync| of(sync) == Some(7)).await;
    assert_eq!(kept.spec.source.server.host, "old.example");
    server("old.example", 7).await;
    stage.until::<MailMigration>("acme", |migration| condition(migration, "ServerChanged").is_none()).await;
}

#[tokio::test]
async fn source_and_destination_that_are_one_account_are_refused() {
    let stage = Stage::new().await;
    stage.migration("acme", &["alice"], json!({"destination": {"server": {"host": "OLD.example"}}})).await;
    let failed = stage.until_condition("acme", "Failed", "True").await;
    assert!(failed.status.unwrap().failures[0].error.message.contains("same account"));
    assert!(stage.syncs().await.is_empty());
}

#[tokio::test]
async fn a_csv_becomes_one_secret_and_one_mailbox_per_line_and_both_go_together() {
    let stage = Stage::new().await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.secret("csv", &[("m.csv", "name,source_password,destination_password\nbob,b1,b2\ncarol,c1,c2\n")]).await;
    stage.migration("acme", &["alice"], json!({"mailboxSecrets": [{"name": "csv", "key": "m.csv"}]})).await;
    let done = stage.until_condition("acme", "Complete", "True").await;
    assert_eq!(done.status.unwrap().mailbox_secrets[0].mailboxes, 2);
    let bob = stage.api::<MailboxSync>().get(&Stage::sync("acme", "bob")).await.unwrap();
    let reference = bob.spec.source.account.password_secret_ref.clone().unwrap();
    let secret = stage.api::<Secret>().get(&reference.name).await.unwrap();
    assert_eq!(secret.data.unwrap()["source-password"].0, b"b1");
    assert_eq!(secret.metadata.owner_references.unwrap()[0].kind, "MailMigration");

    stage.api::<MailMigration>().delete("acme", &DeleteParams::default()).await.unwrap();
    stage.until_gone::<Secret>(&reference.name).await;
    stage.until_gone::<MailboxSync>(&bob.name_any()).await;
}

#[tokio::test]
async fn a_csv_that_is_missing_or_wrong_removes_nobody_and_is_said() {
    let mut stage = Stage::new().await;
    stage.secret("csv", &[("m.csv", "name,source_password,destination_password\nbob,b1,b2\ncarol,c1,c2\n")]).await;
    stage.migration("acme", &[], json!({"suspend": true, "mailboxSecrets": [{"name": "csv", "key": "m.csv"}]})).await;
    stage.until_total("acme", 2).await;
    stage.secret("csv", &[("m.csv", "name,source_password,destination_password\nbob,hush\n")]).await;
    // Secrets are looked at once a minute, and when an operator starts.
    stage.stop().await;
    stage.start().await;
    let refused = stage.until_condition("acme", "Accepted", "False").await;
    let (_, reason, message) = condition(&refused, "Accepted").unwrap();
    assert!(reason == "MailboxSecretInvalid" && message.contains("line 2") && !message.contains("hush"), "{message}");
    let secrets: Api<Secret> = stage.api();
    secrets.delete("csv", &DeleteParams::default()).await.unwrap();
    stage.stop().await;
    stage.start().await;
    stage
        .until::<MailMigration>("acme", |m| {
            condition(m, "Accepted").is_some_and(|c| c.2.contains("there is no Secret csv"))
        })
        .await;
    assert_eq!(stage.syncs().await.len(), 2);
}

#[tokio::test]
async fn a_csv_without_passwords_comes_from_a_config_map_and_one_with_them_is_refused() {
    let mut stage = Stage::new().await;
    let map = |csv: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "csv"}, "data": {"m.csv": csv}});
    stage.rig.apply(&map("name,destination_username\nbob,robert\ncarol,\n").to_string()).await;
    let master = json!({"masterUser": {"username": "m", "passwordSecretRef": {"name": "mail", "key": "key"}}});
    let spec = json!({"suspend": true, "source": master, "destination": master,
        "mailboxConfigMaps": [{"name": "csv", "key": "m.csv"}]});
    stage.migration("acme", &[], spec).await;
    stage.until_total("acme", 2).await;
    let bob = stage.api::<MailboxSync>().get(&Stage::sync("acme", "bob")).await.unwrap().spec.destination;
    assert_eq!((bob.account.username.as_deref(), bob.account.password_secret_ref), (Some("robert"), None));
    let secrets = stage.api::<Secret>().list(&ListParams::default()).await.unwrap();
    assert_eq!(secrets.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["mail"]);

    stage.rig.apply(&map("name,source_password\nbob,hush\n").to_string()).await;
    // ConfigMaps are looked at once a minute, and when an operator starts.
    stage.stop().await;
    stage.start().await;
    let refused = stage.until_condition("acme", "Accepted", "False").await;
    let (_, reason, message) = condition(&refused, "Accepted").unwrap();
    assert_eq!(reason, "MailboxConfigMapInvalid");
    assert!(message.contains("column source_password") && message.contains("mailboxSecrets"), "{message}");
    assert!(!message.contains("hush"), "{message}");
    let status = refused.status.unwrap();
    assert_eq!((status.mailbox_config_maps.len(), status.mailbox_secrets.len()), (1, 0));
    assert_eq!(stage.syncs().await.len(), 2);
}

#[tokio::test]
async fn another_password_in_a_csv_is_another_secret() {
    let mut stage = Stage::new().await;
    stage.secret("csv", &[("m.csv", "name,source_password,destination_password\nbob,b1,b2\n")]).await;
    stage.migration("acme", &[], json!({"mailboxSecrets": [{"name": "csv", "key": "m.csv"}]})).await;
    let bob = Stage::sync("acme", "bob");
    stage.running(&bob, 1).await;
    let old = stage.api::<MailboxSync>().get(&bob).await.unwrap().spec.source.account.password_secret_ref.unwrap().name;
    stage.ends(&bob, 1, Ending::Failed("Authentication")).await;
    stage.until_phase(&bob, "Stalled").await;
    stage.secret("csv", &[("m.csv", "name,source_password,destination_password\nbob,right,b2\n")]).await;
    stage.stop().await;
    stage.start().await;
    stage.running(&bob, 2).await;
    stage.until_gone::<Secret>(&old).await;
    let ours = stage.api::<Secret>().list(&ListParams::default()).await.unwrap();
    assert_eq!(ours.items.iter().filter(|secret| secret.name_any().starts_with(&bob)).count(), 1);
}

#[tokio::test]
async fn what_is_above_the_namespaces_limit_is_not_made_and_said_and_nothing_that_is_there_goes() {
    let mut stage = Stage::with(OperatorConfig { max_mailboxes_per_namespace: 4, ..OperatorConfig::default() }).await;
    stage.migration("acme", &[], json!({"suspend": true, "mailboxes": entries(&names(2))})).await;
    stage.until_total("acme", 2).await;
    let lines: Vec<_> = (0..30_000).map(|n| format!("c{n},a,b")).collect();
    let csv = format!("name,source_password,destination_password\n{}\n", lines.join("\n"));
    stage.secret("csv", &[("m.csv", &csv)]).await;
    stage.migration("many", &[], json!({"suspend": true, "mailboxSecrets": [{"name": "csv", "key": "m.csv"}]})).await;
    let limited = stage.until_condition("many", "MailboxLimitReached", "True").await;
    let (_, _, message) = condition(&limited, "MailboxLimitReached").unwrap();
    assert!(message.contains("29998 mailboxes are not made, c2 first") && message.contains("(4, "), "{message}");
    stage
        .until::<MailMigration>("many", |m| {
            m.status.as_ref().and_then(|s| s.mailboxes).is_some_and(|c| (c.total, c.stalled) == (30_000, 29_998))
        })
        .await;
    assert_eq!(stage.syncs().await.len(), 4);
    // A lower limit takes nothing away.
    stage.stop().await;
    stage.configure(OperatorConfig { max_mailboxes_per_namespace: 1, ..OperatorConfig::default() });
    stage.start().await;
    stage
        .until::<MailMigration>("many", |m| condition(m, "MailboxLimitReached").is_some_and(|c| c.2.contains("(1, ")))
        .await;
    assert_eq!(stage.syncs().await.len(), 4);
    // Room that becomes free is used.
    stage.stop().await;
    stage.configure(OperatorConfig { max_mailboxes_per_namespace: 5, ..OperatorConfig::default() });
    stage.start().await;
    stage.until::<MailboxSync>(&Stage::sync("many", "c2"), |_| true).await;
}

/// A MailboxSync that its migration left behind.
async fn orphan(stage: &Stage, migration: &str, mailbox: &str) -> MailboxSync {
    let orphaned = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    stage.api::<MailMigration>().delete(migration, &orphaned).await.unwrap();
    stage.until_gone::<MailMigration>(migration).await;
    stage.until::<MailboxSync>(&Stage::sync(migration, mailbox), |sync| sync.owner_references().is_empty()).await
}

#[tokio::test]
async fn a_mailbox_that_nobody_owns_is_taken_over_and_waits_until_a_pod_of_before_must_have_ended() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    let more = || json!({"offlineGrace": "10s", "schedule": {"every": "1h"}});
    stage.migration("acme", &["alice"], more()).await;
    stage.running(&alice, 1).await;
    stage.report(&alice, 1, 2, json!({"checkpoint": "opaque", "flushedAttempt": 1})).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_phase(&alice, "Synced").await;
    let before = orphan(&stage, "acme", "alice").await;
    stage.migration("acme", &["alice"], more()).await;
    let taken = stage
        .until::<MailboxSync>(&alice, |sync| {
            !sync.owner_references().is_empty() && sync.status.as_ref().is_some_and(|s| s.inherited.is_some())
        })
        .await;
    assert_eq!(taken.uid(), before.uid(), "it is the same object");
    let status = taken.status.unwrap();
    let worker = status.worker.unwrap();
    assert_eq!((status.attempt, status.syncs, status.slots, status.pod_uid), (1, 0, None, None));
    assert_eq!((worker.checkpoint.as_deref(), worker.flushed_attempt, worker.outcome), (Some("opaque"), None, None));
    stage.until_total("acme", 1).await;
    // It waits until a pod of before must have ended; then the number after the last one is next.
    let planned = |sync: &MailboxSync| sync.status.as_ref().is_some_and(|status| status.next_attempt_at.is_some());
    let waits = stage.until::<MailboxSync>(&alice, planned).await.status.unwrap();
    let begin = waits.inherited.unwrap().at.0;
    assert_eq!(waits.next_attempt_at.unwrap().0.duration_since(begin).as_secs(), 10 + 90);
    let long_ago = json!({"at": "2026-01-01T00:00:00Z", "attempt": 1});
    stage.rig.patch_status(&alice, json!({"inherited": long_ago})).await.unwrap();
    stage.running(&alice, 2).await;
}

#[tokio::test]
async fn a_mailbox_that_nobody_owns_and_is_not_as_it_would_be_made_is_named_until_it_is_gone() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({"suspend": true})).await;
    stage.until_total("acme", 1).await;
    let before = orphan(&stage, "acme", "alice").await;
    stage.migration("acme", &["alice", "bob"], json!({"suspend": true, "deadline": "7h"})).await;
    let told = stage.until_condition("acme", "MailboxNamesTaken", "True").await;
    let (_, reason, message) = condition(&told, "MailboxNamesTaken").unwrap();
    assert!(reason == "NameTaken" && message.contains(&alice) && message.contains("Delete it"), "{message}");
    stage.until_total("acme", 1).await;
    let now = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert!(now.spec == before.spec && now.owner_references().is_empty(), "it is left alone: {now:?}");
    stage.api::<MailboxSync>().delete(&alice, &DeleteParams::default()).await.unwrap();
    stage.until_total("acme", 2).await;
    stage.until::<MailMigration>("acme", |m| condition(m, "MailboxNamesTaken").is_none()).await;
}
