//! How many run at one time, and whose turn it is.

use std::collections::HashMap;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use mailferry::{
    api::{MailMigration, MailboxSync},
    controller::config::{HostLimit, OperatorConfig},
};
use mailferry_testkit::{eventually, so};
use serde_json::json;

use crate::stage::{Ending, Stage, condition};

fn spared(host: &str, connections: usize) -> OperatorConfig {
    let limit = HostLimit { max_connections: Some(connections), starts_per_minute: None };
    OperatorConfig {
        host_limits: [(host.to_owned(), limit)].into(),
        pod_starts_per_second: 200,
        ..OperatorConfig::default()
    }
}

/// Watches until `done`, and gives the most slots held at one time, by migration and in all.
async fn most(stage: &Stage, done: impl Future<Output = ()>) -> (HashMap<String, i32>, i32) {
    let mut held: HashMap<String, (String, i32)> = HashMap::new();
    let (mut by, mut all) = (HashMap::new(), 0);
    let syncs = watcher(stage.api::<MailboxSync>(), watcher::Config::default()).applied_objects();
    let (mut syncs, mut done) = (std::pin::pin!(syncs), std::pin::pin!(done));
    loop {
        let sync = tokio::select! {
            () = &mut done => return (by, all),
            sync = syncs.next() => sync.unwrap().unwrap(),
        };
        let slots = sync.status.as_ref().and_then(|status| status.slots).unwrap_or(0);
        held.insert(sync.name_any(), (sync.spec.migration.clone(), slots));
        all = all.max(held.values().map(|(_, slots)| slots).sum());
        let now: i32 = held
            .values()
            .filter(|(migration, slots)| *migration == sync.spec.migration && *slots > 0)
            .count()
            .try_into()
            .unwrap();
        let most = by.entry(sync.spec.migration.clone()).or_insert(0);
        *most = now.max(*most);
    }
}

#[tokio::test]
async fn neither_a_hosts_connections_nor_a_migrations_parallelism_are_ever_exceeded() {
    let stage = Stage::with(spared("old.example", 7)).await;
    let _player = stage.play(|_, _| Ending::Synced);
    let names: Vec<String> = (0..12).map(|n| format!("m{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stage
        .migration(
            "large",
            &names,
            json!({"connections": 2, "parallelism": 10, "destination": {"server": {"host": "one.example"}}}),
        )
        .await;
    stage
        .migration(
            "small",
            &names[..4],
            json!({"connections": 2, "parallelism": 1, "destination": {"server": {"host": "two.example"}}}),
        )
        .await;
    let done = async {
        stage.until_condition("large", "Complete", "True").await;
        stage.until_condition("small", "Complete", "True").await;
    };
    let (by, all) = Box::pin(most(&stage, done)).await;
    assert!((2..=6).contains(&all), "seven connections are room for three syncs with two: {all}");
    assert_eq!(by["small"], 1, "{by:?}");
}

#[tokio::test]
async fn slots_are_held_while_a_pods_end_is_uncertain_and_by_the_next_operator_too() {
    let mut stage = Stage::with(spared("old.example", 4)).await;
    stage.migration("acme", &["alice"], json!({"deadline": "10s"})).await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("other", "bob"));
    stage.running(&alice, 1).await;
    stage.migration("other", &["bob"], json!({})).await;
    stage.until_phase(&bob, "Queued").await;
    stage.kill().await;
    stage.start().await;
    // Asked to stop at its deadline, but it does not end yet.
    stage.until::<MailboxSync>(&alice, |sync| sync.status.as_ref().unwrap().stopping.is_some()).await;
    let waiting = stage.api::<MailboxSync>().get(&bob).await.unwrap().status.unwrap();
    assert!(waiting.slots.is_none() && waiting.attempt == 0);
    stage.stops(&alice, 1).await;
    stage.one_of(&[&alice, &bob]).await;
}

#[tokio::test]
async fn refused_pods_cost_no_attempt_and_show_as_a_condition() {
    let stage = Stage::new().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    stage.rig.apply(&quota.to_string()).await;
    stage
        .until::<ResourceQuota>("none", |quota| quota.status.as_ref().is_some_and(|status| status.hard.is_some()))
        .await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.migration("acme", &["alice", "bob"], json!({})).await;
    let refused = stage.until_condition("acme", "PodsRefused", "True").await;
    assert!(condition(&refused, "PodsRefused").unwrap().2.contains("quota"));
    stage.api::<ResourceQuota>().delete("none", &DeleteParams::default()).await.unwrap();
    let done = stage.until_condition("acme", "Complete", "True").await;
    assert!(condition(&done, "PodsRefused").is_none());
    for sync in stage.syncs().await {
        let status = sync.status.unwrap();
        assert_eq!((status.attempt, status.failures), (1, None));
    }
}

/// The Ready condition of a mailbox: its reason and message.
fn ready(sync: &MailboxSync) -> Option<(String, String)> {
    let ready = sync.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.reason.clone(), ready.message.clone()))
}

#[tokio::test]
async fn a_workers_account_that_can_not_be_made_holds_no_slots() {
    let stage = Stage::with(OperatorConfig { max_syncs: 1, ..OperatorConfig::default() }).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/serviceaccounts": "0"}}});
    stage.rig.apply(&quota.to_string()).await;
    let counted = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.used.is_some());
    stage.until::<ResourceQuota>("none", counted).await;
    stage.migration("acme", &["alice", "bob"], json!({})).await;
    let refused = stage.until_condition("acme", "PodsRefused", "True").await;
    assert!(condition(&refused, "PodsRefused").unwrap().2.contains("mailferry-worker"), "{refused:?}");
    for mailbox in ["alice", "bob"] {
        let waits = |sync: &MailboxSync| {
            ready(sync).is_some_and(|(reason, words)| reason == "Queued" && words.contains("quota"))
        };
        let is = |sync: &MailboxSync| waits(sync) && sync.status.as_ref().is_some_and(|status| status.slots.is_none());
        let sync = Stage::sync("acme", mailbox);
        stage.until::<MailboxSync>(&sync, is).await;
    }
    stage.api::<ResourceQuota>().delete("none", &DeleteParams::default()).await.unwrap();
    let _player = stage.play(|_, _| Ending::Synced);
    stage.until_condition("acme", "Complete", "True").await;
}

#[tokio::test]
async fn a_suspended_migration_leaves_the_queue_and_a_queued_mailbox_says_what_it_waits_for() {
    let stage = Stage::with(OperatorConfig { max_syncs: 1, ..OperatorConfig::default() }).await;
    stage.migration("first", &["alice"], json!({"destination": {"server": {"host": "one.example"}}})).await;
    let alice = Stage::sync("first", "alice");
    stage.running(&alice, 1).await;
    stage.migration("later", &["bob", "carol"], json!({"destination": {"server": {"host": "two.example"}}})).await;
    for mailbox in ["bob", "carol"] {
        let waits = |sync: &MailboxSync| ready(sync).is_some_and(|(_, words)| words.contains("maxSyncs: 1"));
        stage.until::<MailboxSync>(&Stage::sync("later", mailbox), waits).await;
    }
    stage.change("later", json!({"suspend": true})).await;
    eventually("nobody waits", async || {
        let text = stage.metrics.text().unwrap();
        so(text.lines().any(|line| line.starts_with("mailferry_syncs_queued") && line.ends_with(" 0")), text)
    })
    .await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_condition("first", "Complete", "True").await;
    stage.change("later", json!({"suspend": false})).await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.until_condition("later", "Complete", "True").await;
}

#[tokio::test]
async fn one_connection_to_a_server_on_both_sides_is_not_accepted_and_two_are() {
    let stage = Stage::new().await;
    let server = |connections: i32| json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailServer", "metadata": {"name": "both"}, "spec": {"host": "mail.example", "limits": {"maxConnections": connections}}});
    stage.rig.apply(&server(1).to_string()).await;
    let both = json!({"server": null, "serverRef": {"name": "both"}});
    let password = json!({"name": "mail", "key": "key"});
    let alice = json!({
        "name": "alice", "source": {"passwordSecretRef": password},
        "destination": {"username": "alice.new", "passwordSecretRef": password},
    });
    stage.migration("acme", &[], json!({"source": both, "destination": both, "mailboxes": [alice]})).await;
    let refused = stage.until_condition("acme", "Accepted", "False").await;
    let (_, reason, message) = condition(&refused, "Accepted").unwrap();
    assert!(reason == "TooFewConnections" && message.contains("mail.example:993"), "{reason}: {message}");
    stage.rig.apply(&server(2).to_string()).await;
    stage.until_condition("acme", "Accepted", "True").await;
    stage.running(&Stage::sync("acme", "alice"), 1).await;
}

/// Refuses MailboxSyncs of one mailbox, as a rule of a newer or older version of their definition would.
async fn refuse_mailbox(stage: &Stage, mailbox: &str) {
    let namespace = &stage.rig.namespace;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": format!("refuses-{namespace}")},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["mailferry.io"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["mailboxsyncs"],
            }]},
            "matchConditions": [{"name": "here", "expression": format!("request.namespace == '{namespace}'")}],
            "validations": [{
                "expression": format!("object.spec.mailbox != '{mailbox}'"), "message": "not this one", "reason": "Invalid",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": format!("refuses-{namespace}")},
        "spec": {"policyName": format!("refuses-{namespace}"), "validationActions": ["Deny"]},
    });
    stage.rig.apply(&format!("{policy}\n---\n{binding}")).await;
    let side = |host: &str| json!({"server": {"host": host}, "account": {"username": "a", "passwordSecretRef": {"name": "s", "key": "k"}}});
    let probe = json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": "probe"},
        "spec": {"migration": "none", "mailbox": mailbox, "source": side("a.example"), "destination": side("b.example")},
    });
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy has an effect", async || {
        let taken = stage.api::<MailboxSync>().create(&dry_run, &serde_json::from_value(probe.clone()).unwrap()).await;
        so(taken.is_err(), "what it forbids is allowed")
    })
    .await;
}

#[tokio::test]
async fn a_mailbox_sync_that_is_refused_is_a_failure_that_is_told_and_holds_up_no_other() {
    let stage = Stage::new().await;
    refuse_mailbox(&stage, "m07").await;
    let _player = stage.play(|_, _| Ending::Synced);
    let names: Vec<String> = (0..24).map(|n| format!("m{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stage.migration("acme", &names, json!({"parallelism": 24})).await;
    let failed = stage.until_condition("acme", "Failed", "True").await;
    let status = failed.status.as_ref().unwrap();
    let counts = status.mailboxes.unwrap();
    assert_eq!((counts.total, counts.synced, counts.failed), (24, 23, 1));
    assert_eq!(status.failures[0].mailbox, "m07");
    assert!(status.failures[0].error.message.contains("not this one"), "{}", status.failures[0].error.message);
    let (_, reason, message) = condition(&failed, "MailboxesRefused").unwrap();
    assert!(reason == "Invalid" && message.contains("m07") && message.contains("not this one"), "{message}");
    stage.until_event("acme", "Refused").await;
}

#[tokio::test]
async fn a_quota_that_refuses_what_a_migration_needs_is_a_condition_and_is_waited_for() {
    let stage = Stage::idle().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"count/mailboxsyncs.mailferry.io": "3"}}});
    stage.rig.apply(&quota.to_string()).await;
    stage
        .until::<ResourceQuota>("few", |quota| quota.status.as_ref().is_some_and(|status| status.hard.is_some()))
        .await;
    let mut stage = stage;
    stage.start().await;
    let names: Vec<String> = (0..60).map(|n| format!("m{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stage.migration("acme", &names, json!({"suspend": true})).await;
    let refused = stage.until_condition("acme", "MailboxesRefused", "True").await;
    let (_, reason, message) = condition(&refused, "MailboxesRefused").unwrap();
    assert!(reason == "Forbidden" && message.contains("quota"), "{message}");
    assert_eq!(condition(&refused, "Reconciling").unwrap().0, "True");
    assert!(refused.status.unwrap().failures.is_empty(), "no mailbox has failed");
    stage.until_event("acme", "Refused").await;
    stage.api::<ResourceQuota>().delete("few", &DeleteParams::default()).await.unwrap();
    stage.until_total("acme", 60).await;
    stage.until::<MailMigration>("acme", |migration| condition(migration, "MailboxesRefused").is_none()).await;
}

#[tokio::test]
async fn a_small_migration_does_not_wait_for_a_large_one() {
    let stage = Stage::with(OperatorConfig { max_syncs: 2, ..OperatorConfig::default() }).await;
    let names: Vec<String> = (0..30).map(|n| format!("m{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stage.migration("large", &names, json!({"destination": {"server": {"host": "one.example"}}})).await;
    stage.until_total("large", 30).await;
    stage.migration("small", &names[..3], json!({"destination": {"server": {"host": "two.example"}}})).await;
    stage.until_total("small", 3).await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.until_condition("small", "Complete", "True").await;
    let large = stage.api::<MailMigration>().get("large").await.unwrap();
    assert_eq!(condition(&large, "Complete").unwrap().0, "False");
}
