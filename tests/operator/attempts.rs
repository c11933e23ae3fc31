//! What happens to attempts: errors by class, deadlines, stalls, lost pods, and whose turn it is.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{ResourceExt as _, api::DeleteParams};
use mailferry::{
    ErrorClass,
    api::{MailMigration, MailboxSync, names},
    controller::{
        config::{MasterUserRule, OperatorConfig},
        master_users::AllowedUsers,
    },
};
use serde_json::json;

use crate::stage::{Ending, Stage};

/// A migration of one mailbox whose first attempt runs.
async fn running(more: serde_json::Value) -> (Stage, String, Pod) {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], more).await;
    let pod = Box::pin(stage.running(&alice, 1)).await;
    (stage, alice, pod)
}

fn status(sync: &MailboxSync) -> mailferry::api::MailboxSyncStatus {
    sync.status.clone().unwrap_or_default()
}

#[tokio::test]
async fn an_attempt_past_its_deadline_stops_at_a_checkpoint_and_a_new_one_goes_on() {
    let (stage, alice, _) = running(json!({"deadline": "10s"})).await;
    stage.stops(&alice, 1).await;
    stage.running(&alice, 2).await;
    let again = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert_eq!(status(&again).failures.unwrap().deadline_restarts, 1);
    assert!(stage.reasons(&alice).await.contains(&"DeadlineExceeded".to_owned()));
    stage.ends(&alice, 2, Ending::Synced).await;
    let done = stage.until_condition("acme", "Complete", "True").await;
    assert_eq!(done.status.unwrap().totals.unwrap().deadline_restarts, 1);
}

#[tokio::test]
async fn the_deadlines_clock_goes_on_while_no_operator_runs() {
    let (mut stage, alice, _) = running(json!({"deadline": "12s"})).await;
    let started = status(&stage.api::<MailboxSync>().get(&alice).await.unwrap()).attempt_started_at.unwrap().0;
    stage.kill().await;
    stage.start().await;
    let stopping = stage.until::<MailboxSync>(&alice, |sync| status(sync).stopping.is_some()).await;
    let at = status(&stopping).stopping.unwrap().at.0.duration_since(started).as_secs();
    assert!((11..=20).contains(&at), "{at}");
}

#[tokio::test]
async fn two_restarts_in_a_row_that_copied_nothing_wait_for_a_person() {
    let (stage, alice, _) = running(json!({"deadline": "10s"})).await;
    for attempt in [1, 2] {
        if attempt > 1 {
            stage.running(&alice, attempt).await;
        }
        let pod = format!("{alice}-{attempt}");
        stage.until::<Pod>(&pod, |pod| pod.metadata.deletion_timestamp.is_some()).await;
        stage.report(&alice, attempt, 9, json!({"outcome": "Stopped", "progress": {"messagesThisAttempt": 0}})).await;
        stage.rig.pod_ended(&pod, 0, "").await;
    }
    let stalled = stage.until_phase(&alice, "Stalled").await;
    assert!(stalled.last_error.unwrap().message.contains("copied nothing"));
    stage.until_condition("acme", "Stalled", "True").await;
}

#[tokio::test]
async fn a_worker_that_reports_but_moves_nothing_is_restarted_and_one_that_waits_on_purpose_is_not() {
    let stage = Stage::new().await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    stage.migration("acme", &["alice", "bob"], json!({"stallAfter": "10s"})).await;
    for sync in [&alice, &bob] {
        stage.running(sync, 1).await;
    }
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10)).to_string();
    let mut report = 1;
    let stalled = async {
        loop {
            report += 1;
            stage.report(&alice, 1, report, json!({"progress": {"bytesMoved": 5}})).await;
            stage
                .report(
                    &bob,
                    1,
                    report,
                    json!({"progress": {"bytesMoved": 5}, "waiting": "throttled", "waitingUntil": later}),
                )
                .await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = stalled => {}
        _ = stage.until::<MailboxSync>(&alice, |sync| status(sync).stopping.is_some()) => {}
    }
    let bob = stage.api::<MailboxSync>().get(&bob).await.unwrap();
    assert!(status(&bob).stopping.is_none(), "it waits on purpose");
    assert!(stage.reasons(&alice).await.contains(&"NoProgress".to_owned()));
}

#[tokio::test]
async fn errors_that_may_pass_are_tried_again_and_wait_longer_each_time() {
    let (stage, alice, _) = running(json!({"retry": {"initialBackoff": "2s", "maxBackoff": "1m"}})).await;
    let mut waits = Vec::new();
    for attempt in 1..=3 {
        if attempt > 1 {
            stage.running(&alice, attempt).await;
        }
        stage.ends(&alice, attempt, Ending::Failed("Network")).await;
        let is = |sync: &MailboxSync| {
            status(sync).slots.is_none() && status(sync).attempt == attempt && status(sync).next_attempt_at.is_some()
        };
        let waiting = status(&stage.until::<MailboxSync>(&alice, is).await);
        assert_eq!(waiting.failures.unwrap().in_a_row, i32::try_from(attempt).unwrap());
        waits.push(waiting.next_attempt_at.unwrap().0.duration_since(jiff::Timestamp::now()).as_millis());
    }
    assert!(waits[0] <= 2300 && waits[1] > 2300 && waits[2] > 5000, "{waits:?}");
}

#[tokio::test]
async fn a_refused_password_is_not_tried_again_until_its_secret_changes_whatever_else_does() {
    let (stage, alice, _) = running(json!({})).await;
    stage.ends(&alice, 1, Ending::Failed("Authentication")).await;
    let stalled = stage.until_phase(&alice, "Stalled").await;
    assert!(stalled.next_attempt_at.is_none());
    stage.until_condition("acme", "Stalled", "True").await;
    // Neither other changes nor a resumption bring it nearer to being right.
    for (generation, spec) in [(2, json!({"finishedPodsTTL": "1h"})), (3, json!({"cutover": {}}))] {
        stage.change("acme", json!({"suspend": true})).await;
        let is_seen = |m: &MailMigration| {
            m.spec.suspend && m.status.as_ref().is_some_and(|s| s.observed_generation == m.metadata.generation)
        };
        stage.until::<MailMigration>("acme", is_seen).await;
        stage.change("acme", json!({"suspend": false})).await;
        stage.change("acme", spec).await;
        let seen = |sync: &MailboxSync| {
            sync.metadata.generation == Some(generation) && status(sync).observed_generation == Some(generation)
        };
        let still = status(&stage.until::<MailboxSync>(&alice, seen).await);
        assert_eq!((still.attempt, still.slots, still.phase), (1, None, stalled.phase), "{still:?}");
    }
    stage.secret("mail", &[("key", "another")]).await;
    stage.running(&alice, 2).await;
}

#[tokio::test]
async fn a_missing_secret_is_waited_for_before_any_pod_is_made() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    let missing = json!({"source": {"server": {"host": "old.example"}, "masterUser": null}, "mailboxes": [
        {"name": "alice", "source": {"passwordSecretRef": {"name": "later", "key": "k"}}, "destination": {"passwordSecretRef": {"name": "mail", "key": "key"}}},
    ]});
    stage.migration("acme", &[], missing).await;
    let stalled = stage.until_phase(&alice, "Stalled").await;
    assert!(stalled.last_error.unwrap().message.contains("no Secret later"));
    assert!(stalled.attempt == 0 && stage.pods().await.is_empty());
}

#[tokio::test]
async fn a_master_user_where_none_is_allowed_ends_as_failed_and_no_pod_is_made() {
    let elsewhere = MasterUserRule { namespace: "elsewhere".into(), users: vec![AllowedUsers::All] };
    let stage = Stage::with(OperatorConfig { master_users: vec![elsewhere], ..OperatorConfig::default() }).await;
    stage
        .rig
        .apply(
            "{apiVersion: mailferry.io/v1alpha1, kind: MailServer, metadata: {name: old}, spec: {host: old.example}}",
        )
        .await;
    let reference = json!({"name": "mail", "key": "key"});
    let master = json!({
        "source": {
            "server": null, "serverRef": {"name": "old"},
            "masterUser": {"username": "admin", "passwordSecretRef": reference},
        },
        "mailboxes": [{"name": "alice", "destination": {"passwordSecretRef": reference}}],
    });
    stage.migration("acme", &[], master).await;
    let failed = stage.until_phase(&Stage::sync("acme", "alice"), "Failed").await;
    let error = failed.last_error.unwrap();
    assert_eq!(error.class, ErrorClass::Configuration);
    let message = format!("source.masterUser is not allowed in namespace {}", stage.rig.namespace);
    assert_eq!(error.message, message);
    assert!(error.advice.unwrap().contains("whoever runs the operator"));
    stage.until_condition("acme", "Failed", "True").await;
    assert!(failed.attempt == 0 && stage.pods().await.is_empty());
}

#[tokio::test]
async fn a_pod_that_was_evicted_is_no_failure_of_the_sync() {
    let (stage, alice, pod) = running(json!({})).await;
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "containerStatuses": [{
        "name": "sync", "image": "none", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 137}},
    }]});
    stage.rig.pod_status(&pod.name_any(), evicted).await;
    let again = stage.until::<MailboxSync>(&alice, |sync| status(sync).attempt == 2).await;
    let failures = status(&again).failures.unwrap();
    assert_eq!((failures.infrastructure, failures.sync, failures.in_a_row), (1, 0, 0));
}

#[tokio::test]
async fn a_pod_for_which_no_node_has_room_says_so_and_gives_its_slots_back_in_the_end() {
    for timeout in ["1h", "1s"] {
        let config = OperatorConfig { scheduling_timeout: timeout.parse().unwrap(), ..OperatorConfig::default() };
        let stage = Stage::with(config).await;
        let alice = Stage::sync("acme", "alice");
        stage.migration("acme", &["alice"], json!({})).await;
        let pod: Pod = stage.until(&names::pod(&alice, 1), |_| true).await;
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        stage.rig.pod_status(&pod.name_any(), json!({"phase": "Pending", "conditions": [condition]})).await;
        if timeout == "1s" {
            stage.until_event(&alice, "PodNotStarted").await;
            let lost = stage.until::<MailboxSync>(&alice, |sync| status(sync).slots.is_none()).await;
            assert_eq!(status(&lost).failures.unwrap().infrastructure, 1);
        } else {
            let told = "the attempt's pod waits for a node: 0/3 nodes are available";
            let is = |condition: &Condition| condition.reason == "Unschedulable" && condition.message == told;
            stage.until::<MailboxSync>(&alice, |sync| status(sync).conditions.iter().any(is)).await;
        }
    }
}

#[tokio::test]
async fn an_injected_container_is_not_taken_for_the_sync_and_its_pod_is_deleted_after_it() {
    let (stage, alice, pod) = running(json!({"retry": {"initialBackoff": "1h"}})).await;
    let status_of = |sync: serde_json::Value| {
        let container = |name: &str, state: serde_json::Value| json!({"name": name, "image": "none", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let (killed, runs) = (json!({"terminated": {"exitCode": 137}}), json!({"running": {}}));
        let containers = [container("istio-proxy", killed), container("sync", sync), container("logs", runs)];
        json!({"phase": "Running", "containerStatuses": containers})
    };
    stage.rig.pod_status(&pod.name_any(), status_of(json!({"running": {}}))).await;
    stage.rig.pod_status(&pod.name_any(), status_of(json!({"terminated": {"exitCode": 1}}))).await;
    let ended = stage.until_phase(&alice, "Backoff").await;
    let failures = ended.failures.unwrap();
    assert_eq!((ended.attempt, failures.sync, failures.infrastructure), (1, 1, 0), "the proxy's end is not the sync's");
    let gone = |pod: &Pod| pod.metadata.deletion_timestamp.is_some() && pod.finalizers().is_empty();
    stage.until::<Pod>(&pod.name_any(), gone).await;
}

#[tokio::test]
async fn a_pod_that_was_deleted_by_force_is_waited_for_until_it_must_have_stopped() {
    let (stage, alice, pod) = running(json!({"offlineGrace": "10s"})).await;
    stage.rig.pod_gone(&pod).await;
    // Its finalizer holds it: it may still run and reach both mail servers.
    let held = stage.until::<Pod>(&pod.name_any(), |pod| pod.metadata.deletion_timestamp.is_some()).await;
    assert!(!held.finalizers().is_empty());
    let before = jiff::Timestamp::now();
    let lost = stage.api::<MailboxSync>();
    let found = mailferry_testkit::cluster::wait_within(
        &lost,
        &alice,
        std::time::Duration::from_secs(150),
        |sync: Option<&MailboxSync>| sync.is_some_and(|sync| status(sync).slots.is_none()),
    )
    .await;
    let waited = jiff::Timestamp::now().duration_since(before).as_secs();
    assert!(waited >= 95, "offlineGrace, the flush and a margin: {waited}");
    assert_eq!(status(&found.unwrap()).failures.unwrap().infrastructure, 1);
}

#[tokio::test]
async fn a_lost_nodes_pod_has_ended_once_somebody_says_that_the_node_is_out_of_service() {
    let (stage, alice, pod) = running(json!({})).await;
    stage.rig.node_out_of_service(&stage.rig.namespace).await;
    stage.rig.pod_gone(&pod).await;
    let again = stage.until::<MailboxSync>(&alice, |sync| status(sync).attempt == 2).await;
    assert_eq!(status(&again).failures.unwrap().infrastructure, 1);
}

#[tokio::test]
async fn a_pod_that_another_made_is_never_taken_for_ours() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.rig.allow_workers().await;
    let foreign = stage.rig.worker_pod(&format!("{alice}-1")).await;
    stage.migration("acme", &["alice"], json!({})).await;
    stage.until_phase(&alice, "Running").await;
    stage.until_event(&alice, "PodNameTaken").await;
    let sync = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert!(status(&sync).pod_uid.is_none());
    stage.api::<Pod>().delete(&foreign.name_any(), &DeleteParams::default()).await.unwrap();
    stage.running(&alice, 1).await;
}

#[tokio::test]
async fn two_sources_into_one_destination_take_turns() {
    let stage = Stage::new().await;
    let reference = json!({"passwordSecretRef": {"name": "mail", "key": "key"}});
    let into = json!({"username": "both", "passwordSecretRef": {"name": "mail", "key": "key"}});
    let entry = |name: &str| json!({"name": name, "source": reference, "destination": into});
    stage.migration("acme", &[], json!({"mailboxes": [entry("a"), entry("b")]})).await;
    let (a, b) = (Stage::sync("acme", "a"), Stage::sync("acme", "b"));
    let first = stage.one_of(&[&a, &b]).await;
    let second = if first == a { b } else { a };
    stage.running(&first, 1).await;
    stage.until_phase(&second, "Queued").await;
    stage.ends(&first, 1, Ending::Synced).await;
    stage.running(&second, 1).await;
    let sync = stage.api::<MailboxSync>().get(&first).await.unwrap();
    assert!(status(&sync).slots.is_none());
}

#[tokio::test]
async fn a_destination_that_another_migration_has_is_waited_for_and_its_owner_not_named() {
    let (stage, alice, _) = running(json!({"schedule": {"every": "1h"}})).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_phase(&alice, "Synced").await;
    stage.migration("other", &["alice"], json!({"source": {"server": {"host": "third.example"}}})).await;
    let other = Stage::sync("other", "alice");
    let waiting = stage
        .until::<MailboxSync>(&other, |sync| status(sync).conditions.iter().any(|c| c.reason == "DestinationTaken"))
        .await;
    let shown = serde_json::to_string(&status(&waiting)).unwrap();
    assert!(!shown.contains("acme") && status(&waiting).attempt == 0, "{shown}");
}
