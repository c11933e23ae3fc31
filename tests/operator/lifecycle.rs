//! A migration from `kubectl apply` to Complete, and what a person may ask for on the way.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use mailferry::api::{MailMigration, MailboxSync};
use serde_json::json;

use crate::stage::{Ending, Stage, condition};

#[tokio::test]
async fn a_migration_runs_mailbox_by_mailbox_and_is_complete() {
    let stage = Stage::new().await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.migration("acme", &["alice", "bob", "carol"], json!({"parallelism": 2})).await;
    let done = stage.until_condition("acme", "Complete", "True").await;
    let status = done.status.as_ref().unwrap();
    let counts = status.mailboxes.unwrap();
    assert_eq!((counts.total, counts.synced, counts.failing), (3, 3, 0));
    assert_eq!(status.totals.as_ref().unwrap().messages_done, 30);
    assert_eq!((status.progress.as_deref(), status.observed_generation), (Some("100%"), done.metadata.generation));
    assert_eq!((status.progress_percent, status.bytes_per_second), (Some(100), None));
    assert!(status.started_at.is_some() && status.completed_at.is_some());
    assert_eq!(condition(&done, "Ready").unwrap().0, "True");
    assert_eq!(condition(&done, "Accepted").unwrap().0, "True");
    for sync in stage.syncs().await {
        let status = sync.status.unwrap();
        assert_eq!((status.attempt, status.slots, status.syncs), (1, None, 1));
        assert!(status.claim.unwrap().proven_at.is_some());
        assert!(sync.metadata.labels.is_none() && sync.metadata.annotations.is_none());
    }
}

#[tokio::test]
async fn finished_pods_stay_for_their_logs_until_their_time_is_up() {
    let stage = Stage::new().await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.migration("acme", &["alice"], json!({"finishedPodsTTL": "3s", "succeededPodsLimit": 1})).await;
    stage.until_condition("acme", "Complete", "True").await;
    let pods = stage.pods().await;
    assert_eq!(pods.len(), 1);
    stage.until_gone::<Pod>(&pods[0].name_any()).await;
}

#[tokio::test]
async fn by_default_no_pod_stays_that_ended_well_and_its_last_word_does() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    let pod = stage.running(&alice, 1).await;
    // The API server was away: the last report did not arrive.
    let progress = json!({"messagesTotal": 10, "messagesDone": 10, "messagesThisAttempt": 10});
    let word = json!({"attempt": 1, "report": 2, "phase": "Done", "outcome": "Synced", "progress": progress,
        "flushedAttempt": 1, "notCopied": {"messages": 0}});
    stage.rig.pod_ended(&pod.name_any(), 0, &word.to_string()).await;
    stage.until_condition("acme", "Complete", "True").await;
    stage.until_gone::<Pod>(&pod.name_any()).await;
    let worker = stage.until_phase(&alice, "Synced").await.worker.unwrap();
    assert_eq!(worker.progress.unwrap().messages_done, 10);
    assert_eq!((worker.report, worker.flushed_attempt), (2, None), "its checkpoint did not arrive either");
    stage.until_condition("acme", "AllCopied", "True").await;
}

#[tokio::test]
async fn what_is_left_is_forecast_once_a_mailbox_is_listed_and_unknown_before() {
    let stage = Stage::new().await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    stage.migration("acme", &["alice", "bob"], json!({"parallelism": 1})).await;
    let told = |text: &'static str| {
        move |m: &MailMigration| {
            m.status.as_ref().and_then(|s| s.forecast.as_ref()).is_some_and(|forecast| forecast.text == text)
        }
    };
    stage.until("acme", told("2 mailboxes of unknown size: time unknown")).await;
    let first = stage.one_of(&[&alice, &bob]).await;
    stage.running(&first, 1).await;
    let listed = json!({"messagesTotal": 100, "bytesTotal": 1 << 30, "bytesLeft": 1 << 30, "bytesMoved": 9});
    stage.report(&first, 1, 2, json!({"phase": "Copying", "progress": listed})).await;
    stage.until("acme", told("2.0 GiB: time unknown")).await;
    stage.report(&first, 1, 3, json!({"progress": {"bytesPerSecond": 1 << 20, "bytesMoved": 99}})).await;
    let known = stage.until("acme", told("2.0 GiB: about 35 minutes at 1.0 MiB/s")).await;
    let forecast = known.status.unwrap().forecast.unwrap();
    assert_eq!((forecast.mailboxes_left, forecast.mailboxes_unlisted, forecast.seconds_left), (2, 1, Some(2048)));
    stage.ends(&first, 1, Ending::Synced).await;
    let _player = stage.play(|_, _| Ending::Synced);
    let done = stage.until_condition("acme", "Complete", "True").await;
    assert_eq!(done.status.unwrap().forecast, None);
}

#[tokio::test]
async fn a_mailbox_that_fails_for_good_makes_the_migration_failed_never_complete() {
    let stage = Stage::new().await;
    let bob = Stage::sync("acme", "bob");
    let _player = stage.play(move |sync, _| if sync == bob { Ending::Failed("Configuration") } else { Ending::Synced });
    stage.migration("acme", &["alice", "bob"], json!({})).await;
    let failed = stage.until_condition("acme", "Failed", "True").await;
    assert_eq!(condition(&failed, "Complete").unwrap().0, "False");
    assert_eq!(condition(&failed, "MailboxesFailing").unwrap().0, "True");
    let failures = &failed.status.unwrap().failures;
    assert_eq!((failures.len(), failures[0].mailbox.as_str()), (1, "bob"));
}

#[tokio::test]
async fn suspend_stops_at_a_checkpoint_and_resume_goes_on_with_the_same_clock() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice", "bob"], json!({"parallelism": 1})).await;
    // One of the two has the only place.
    let first = {
        let is = |m: &MailMigration| {
            m.status.as_ref().and_then(|s| s.mailboxes).is_some_and(|c| c.running == 1 && c.queued == 1)
        };
        stage.until("acme", is).await;
        let syncs = stage.syncs().await;
        let running = syncs.iter().find(|s| s.status.as_ref().unwrap().slots.is_some()).unwrap();
        running.name_any()
    };
    let second = if first == alice { Stage::sync("acme", "bob") } else { alice };
    stage.running(&first, 1).await;
    let before = stage.api::<MailboxSync>().get(&second).await.unwrap();
    stage.change("acme", json!({"suspend": true})).await;
    stage.stops(&first, 1).await;
    let status = stage.until_phase(&first, "Suspended").await;
    assert!(status.slots.is_none() && status.attempt_used.is_some());
    // Nobody waits for a turn.
    let all_wait = |m: &MailMigration| {
        m.status.as_ref().and_then(|s| s.mailboxes).is_some_and(|counts| (counts.pending, counts.queued) == (2, 0))
    };
    stage.until::<MailMigration>("acme", |m| phase(m) == "Suspended" && all_wait(m)).await;
    let waiting = stage.api::<MailboxSync>().get(&second).await.unwrap();
    assert_eq!(
        waiting.metadata.resource_version, before.metadata.resource_version,
        "it did not run: nothing is written"
    );

    stage.change("acme", json!({"suspend": false})).await;
    let _player = stage.play(|_, _| Ending::Synced);
    let resumed = stage.until::<MailboxSync>(&first, |sync| attempt(sync) == 2).await.status.unwrap();
    assert_eq!(resumed.attempt_used, status.attempt_used, "the deadline's clock stood still");
    stage.until_condition("acme", "Complete", "True").await;
}

#[tokio::test]
async fn a_cancelled_mailbox_stops_and_the_others_go_on() {
    let stage = Stage::new().await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    stage.migration("acme", &["alice", "bob"], json!({})).await;
    stage.running(&alice, 1).await;
    stage.running(&bob, 1).await;
    stage.change("acme", json!({"cancel": ["alice"]})).await;
    stage.stops(&alice, 1).await;
    stage.until_phase(&alice, "Cancelled").await;
    stage.ends(&bob, 1, Ending::Synced).await;
    let done = stage.until_condition("acme", "Complete", "True").await;
    assert_eq!(done.status.unwrap().mailboxes.unwrap().cancelled, 1);
}

#[tokio::test]
async fn another_sync_request_is_one_more_sync_of_each_mailbox_and_the_same_one_is_none() {
    let stage = Stage::new().await;
    let _player = stage.play(|_, _| Ending::Synced);
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({"syncRequest": "one"})).await;
    stage.until_condition("acme", "Complete", "True").await;
    stage.migration("acme", &["alice"], json!({"syncRequest": "one"})).await;
    stage.migration("acme", &["alice"], json!({"syncRequest": "two"})).await;
    let again = stage.until::<MailboxSync>(&alice, |sync| syncs(sync) == 2).await.status.unwrap();
    assert_eq!((again.attempt, again.sync_request.as_deref()), (2, Some("two")));
    stage.until_condition("acme", "Complete", "True").await;
}

#[tokio::test]
async fn deletions_that_are_held_are_told_and_a_sync_follows_once_their_token_is_confirmed() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({"deletions": "Mirror"})).await;
    stage.running(&alice, 1).await;
    let token = "0123456789abcdef";
    let held = json!([{"folder": "INBOX", "messages": 8, "of": 10, "copies": 8, "token": token}]);
    stage.report(&alice, 1, 2, json!({"heldDeletions": held})).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    let told = stage.until_condition("acme", "DeletionsHeld", "True").await;
    let message = condition(&told, "DeletionsHeld").unwrap().2;
    assert!(message.contains("alice: INBOX: 8 of 10 messages") && message.contains(token), "{message}");
    stage.until_condition("acme", "Complete", "True").await;
    let of_mailbox = stage.until_phase(&alice, "Synced").await;
    assert!(of_mailbox.conditions.iter().any(|c| c.type_ == "DeletionsHeld" && c.message.contains(token)));
    // The token of another set does nothing.
    stage.change("acme", json!({"confirmDeletions": ["fedcba9876543210"]})).await;
    stage.until::<MailboxSync>(&alice, |sync| !sync.spec.settings.confirm_deletions.is_empty()).await;
    stage.until_condition("acme", "Complete", "True").await;
    stage.change("acme", json!({"confirmDeletions": ["fedcba9876543210", token]})).await;
    stage.running(&alice, 2).await;
    stage.report(&alice, 2, 2, json!({"heldDeletions": null})).await;
    stage.ends(&alice, 2, Ending::Synced).await;
    stage.until::<MailMigration>("acme", |migration| condition(migration, "DeletionsHeld").is_none()).await;
    stage.until_condition("acme", "Complete", "True").await;
    let ended = stage.until_phase(&alice, "Synced").await;
    assert_eq!((ended.attempt, ended.syncs), (2, 2));
    assert!(!ended.conditions.iter().any(|c| matches!(c.type_.as_str(), "DeletionsHeld" | "Outdated")));
}

#[tokio::test]
async fn what_is_edited_after_the_end_is_told_and_synced_when_somebody_asks_for_it() {
    let stage = Stage::new().await;
    let _player = stage.play(|_, _| Ending::Synced);
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    stage.until_condition("acme", "Complete", "True").await;
    stage.change("acme", json!({"messages": {"maxSize": "1Mi"}})).await;
    let outdated = stage.until_condition("acme", "Outdated", "True").await;
    assert!(condition(&outdated, "Outdated").unwrap().2.contains("spec.syncRequest"));
    assert_eq!(condition(&outdated, "Complete").unwrap().0, "True");
    stage.change("acme", json!({"syncRequest": "by what is written now"})).await;
    stage.until::<MailboxSync>(&alice, |sync| syncs(sync) == 2).await;
    stage.until::<MailMigration>("acme", |migration| condition(migration, "Outdated").is_none()).await;
}

#[tokio::test]
async fn a_sync_request_for_what_failed_asks_nobody_else_then_or_later() {
    let stage = Stage::new().await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    let failing = bob.clone();
    let _player =
        stage.play(
            move |sync, attempt| {
                if sync == failing && attempt == 1 { Ending::Failed("Configuration") } else { Ending::Synced }
            },
        );
    stage.migration("acme", &["alice", "bob"], json!({})).await;
    stage.until_condition("acme", "Failed", "True").await;
    let before = stage.until_phase(&alice, "Synced").await;
    let asks = json!({"syncRequest": "one", "syncRequestFor": {"phases": ["Stalled", "Failed"], "mailboxes": ["bop"]}});
    stage.change("acme", asks).await;
    stage.until_event("acme", "SyncRequestUnmatched").await;
    let again = stage.until::<MailboxSync>(&bob, |sync| syncs(sync) == 1).await.status.unwrap();
    assert_eq!((again.attempt, again.sync_request.as_deref()), (2, Some("one")));
    let told = |m: &MailMigration| {
        let status = m.status.as_ref().unwrap();
        (status.sync_request.as_deref(), status.sync_request_mailboxes) == (Some("one"), Some(1))
    };
    stage.until::<MailMigration>("acme", told).await;
    // Who leaves the choice out later asks nobody by the same text.
    stage.change("acme", json!({"syncRequestFor": null})).await;
    let generation = stage.api::<MailMigration>().get("acme").await.unwrap().metadata.generation;
    let seen = |m: &MailMigration| m.status.as_ref().is_some_and(|status| status.observed_generation == generation);
    stage.until::<MailMigration>("acme", seen).await;
    let sync = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert_eq!((sync.spec.sync_request.as_ref(), sync.status.unwrap()), (None, before));
    // And by name.
    stage.change("acme", json!({"syncRequest": "two", "syncRequestFor": {"mailboxes": ["alice"]}})).await;
    stage.until::<MailboxSync>(&alice, |sync| syncs(sync) == 2).await;
    assert_eq!(attempt(&stage.api::<MailboxSync>().get(&bob).await.unwrap()), 2);
}

#[tokio::test]
async fn nothing_starts_before_its_time() {
    let stage = Stage::new().await;
    let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 4).unwrap();
    stage.migration("acme", &["alice"], json!({"startAt": at.to_string()})).await;
    let alice = Stage::sync("acme", "alice");
    stage.until_phase(&alice, "Pending").await;
    let started = stage.until::<MailboxSync>(&alice, |sync| attempt(sync) == 1).await.status.unwrap();
    assert!(started.attempt_started_at.unwrap().0 >= at);
}

#[tokio::test]
async fn delta_syncs_follow_their_schedule() {
    let stage = Stage::new().await;
    let _player = stage.play(|_, _| Ending::Synced);
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({"schedule": {"every": "10s", "jitterPercent": 0}})).await;
    let first = stage.until::<MailboxSync>(&alice, |sync| syncs(sync) >= 1).await.status.unwrap();
    let migration =
        stage.until::<MailMigration>("acme", |m| m.status.as_ref().is_some_and(|s| s.next_sync_at.is_some())).await;
    assert_eq!(condition(&migration, "Complete").unwrap().0, "False", "more syncs are to come");
    let second = stage.until::<MailboxSync>(&alice, |sync| attempt(sync) >= 2).await.status.unwrap();
    let waited = second.attempt_started_at.unwrap().0.duration_since(first.last_synced_at.unwrap().0);
    assert!(waited >= jiff::SignedDuration::from_secs(10), "{waited}");
}

#[tokio::test]
async fn after_the_cutover_delta_syncs_go_on_until_the_source_is_quiet() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({"cutover": {"every": "10s", "drainFor": "12s"}})).await;
    stage.running(&alice, 1).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until::<MailMigration>("acme", |m| phase(m) == "Draining").await;
    stage.running(&alice, 2).await;
    // Mail still came in at the source.
    stage.report(&alice, 2, 9, json!({"phase": "Done", "outcome": "Synced", "inboxUidNext": 12})).await;
    stage.rig.pod_ended(&format!("{alice}-2"), 0, "").await;
    let second = stage.until::<MailboxSync>(&alice, |sync| syncs(sync) == 2).await.status.unwrap();
    let migration = stage.api::<MailMigration>().get("acme").await.unwrap();
    assert_eq!(condition(&migration, "Complete").unwrap().0, "False");
    let mut number = 3;
    loop {
        let sync = stage.until::<MailboxSync>(&alice, |sync| attempt(sync) == number).await;
        stage.running(&alice, number).await;
        stage.report(&alice, number, 9, json!({"phase": "Done", "outcome": "Synced", "inboxUidNext": 12})).await;
        stage.rig.pod_ended(&format!("{alice}-{number}"), 0, "").await;
        drop(sync);
        let status = stage.until::<MailboxSync>(&alice, |sync| syncs(sync) == number).await.status.unwrap();
        let quiet = status.last_synced_at.unwrap().0.duration_since(second.inbox_quiet_since.clone().unwrap().0);
        if quiet >= jiff::SignedDuration::from_secs(12) {
            break;
        }
        number += 1;
    }
    stage.until_condition("acme", "Complete", "True").await;
}

#[tokio::test]
async fn a_quiet_mailbox_is_looked_at_less_often_after_the_cutover_until_new_mail_comes_whatever_restarts() {
    let mut stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({"cutover": {"every": "1m", "maxEvery": "1h"}})).await;
    let delta = async |stage: &Stage, number: i64, inbox: i64, changes: i64| {
        stage.change("acme", json!({"syncRequest": number.to_string()})).await;
        stage.running(&alice, number).await;
        let end = json!({"phase": "Done", "outcome": "Synced", "inboxUidNext": inbox, "changes": changes});
        stage.report(&alice, number, 9, end).await;
        stage.rig.pod_ended(&format!("{alice}-{number}"), 0, "").await;
        let planned = |sync: &MailboxSync| {
            syncs(sync) == number && sync.status.as_ref().is_some_and(|status| status.next_attempt_at.is_some())
        };
        let status = stage.until::<MailboxSync>(&alice, planned).await.status.unwrap();
        let wait = status.next_attempt_at.unwrap().0.duration_since(status.last_synced_at.unwrap().0);
        // In minutes, without the random part.
        (status.quiet_deltas, (wait.as_secs() + 30) / 60)
    };
    assert_eq!(delta(&stage, 1, 11, 10).await, (0, 1));
    assert_eq!(delta(&stage, 2, 11, 0).await, (1, 1));
    assert_eq!(delta(&stage, 3, 11, 0).await, (2, 1));
    assert_eq!(delta(&stage, 4, 11, 0).await, (3, 2));
    stage.kill().await;
    stage.start().await;
    assert_eq!(delta(&stage, 5, 11, 0).await, (4, 4));
    assert_eq!(delta(&stage, 6, 12, 1).await, (0, 1));
}

#[tokio::test]
async fn a_deleted_migration_takes_everything_along_and_may_come_again() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    let pod = stage.running(&alice, 1).await;
    let first = stage.api::<MailboxSync>().get(&alice).await.unwrap().uid();
    stage.api::<MailMigration>().delete("acme", &DeleteParams::default()).await.unwrap();
    stage.migration("acme", &["alice"], json!({})).await;
    // The old sync's pod still runs: the new one waits for it, whatever its name.
    stage.until::<MailboxSync>(&alice, |sync| sync.metadata.deletion_timestamp.is_some() && sync.uid() == first).await;
    stage.stops(&alice, 1).await;
    stage.rig.pod_gone(&pod).await;
    stage.until::<MailboxSync>(&alice, |sync| sync.uid() != first).await;
    let pods = stage.api::<Pod>();
    stage.until::<Pod>(&pod.name_any(), |new| new.uid() != pod.uid()).await;
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 1);
    stage.running(&alice, 1).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_condition("acme", "Complete", "True").await;
}

fn phase(migration: &MailMigration) -> String {
    migration.status.as_ref().and_then(|s| s.phase).map(|phase| format!("{phase:?}")).unwrap_or_default()
}

fn attempt(sync: &MailboxSync) -> i64 {
    sync.status.as_ref().map_or(0, |status| status.attempt)
}

fn syncs(sync: &MailboxSync) -> i64 {
    sync.status.as_ref().map_or(0, |status| status.syncs)
}
