//! Who may write what of a MailboxSync's status: the attempt's own worker its report, and nothing else.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use mailferry::api::{MailboxSync, cel_rules};
use serde_json::{Value, json};

use crate::rig::{Rig, WORKER, patch_status, refusal};

/// What a worker reports.
fn report(attempt: i64, number: i64) -> Value {
    json!({"worker": {"attempt": attempt, "report": number, "phase": "Copying"}})
}

#[tokio::test]
async fn the_worker_of_the_current_attempt_reports_and_one_of_an_old_attempt_is_fenced() {
    let rig = Rig::new().await;
    rig.mailbox_sync("s", json!({"attempt": 1})).await;
    rig.patch_status("s", report(1, 1)).await.unwrap();
    let kept = json!({"worker": {"attempt": 1, "report": 2, "checkpoint": "kept"}});
    rig.patch_status("s", kept).await.unwrap();

    let taken_over = rig.patch_status("s", json!({"attempt": 2})).await.unwrap().status.unwrap();
    assert_eq!(taken_over.worker.unwrap().checkpoint.as_deref(), Some("kept"), "the operator leaves the report alone");

    let (code, message) = refusal(rig.patch_status("s", report(1, 3)).await);
    assert!(code == 422 && message.contains(cel_rules::FENCE.message), "{code} {message}");

    let claimed = rig.patch_status("s", report(2, 1)).await.unwrap().status.unwrap().worker.unwrap();
    assert_eq!(claimed.checkpoint.as_deref(), Some("kept"), "the next attempt reads the checkpoint of the one before");
}

#[tokio::test]
async fn a_report_that_was_overtaken_is_refused() {
    let rig = Rig::new().await;
    rig.mailbox_sync("s", json!({"attempt": 1, "worker": {"attempt": 1, "report": 5}})).await;
    let (code, message) = refusal(rig.patch_status("s", report(1, 4)).await);
    assert!(code == 422 && message.contains(cel_rules::REPORT_GROWS.message), "{code} {message}");
    rig.patch_status("s", report(1, 5)).await.unwrap();
    rig.patch_status("s", report(1, 6)).await.unwrap();
}

#[tokio::test]
async fn no_report_is_ahead_of_the_attempt_and_no_attempt_goes_back() {
    let rig = Rig::new().await;
    rig.mailbox_sync("s", json!({"attempt": 3})).await;
    let (code, message) = refusal(rig.patch_status("s", report(4, 1)).await);
    assert!(code == 422 && message.contains(cel_rules::WORKER_ATTEMPT.message), "{code} {message}");
    let (code, message) = refusal(rig.patch_status("s", json!({"attempt": 2})).await);
    assert!(code == 422 && message.contains(cel_rules::ATTEMPT_GROWS.message), "{code} {message}");
}

/// Two mailboxes with a pod each, and the token of the first.
struct Pair {
    rig: Rig,
    mine: Pod,
    worker: Client,
}

impl Pair {
    async fn new() -> Self {
        let rig = Rig::new().await;
        rig.allow_workers().await;
        let (mine, other) = (rig.worker_pod("mine-1").await, rig.worker_pod("other-1").await);
        rig.mailbox_sync("mine", json!({"attempt": 1, "slots": 2, "podName": "mine-1", "podUID": uid(&mine)})).await;
        rig.mailbox_sync("other", json!({"attempt": 1, "podName": "other-1", "podUID": uid(&other)})).await;
        let worker = rig.client_of(&mine).await;
        Self { rig, mine, worker }
    }

    async fn patch(&self, name: &str, status: Value) -> Result<MailboxSync, kube::Error> {
        patch_status(&self.worker, &self.rig.namespace, name, status).await
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap()
}

/// The admission policy said no, with these words.
fn assert_fenced(result: Result<MailboxSync, kube::Error>, words: &str) {
    let (code, message) = refusal(result);
    assert!(code == 403 && message.contains("fenced: ") && message.contains(words), "{code} {message}");
}

const OTHER_POD: &str = "only the current attempt's pod may report";
const OPERATORS: &str = "the rest of the status is the operator's";

#[tokio::test]
async fn a_pods_token_reports_for_its_own_mailbox() {
    let pair = Pair::new().await;
    let reported = pair.patch("mine", report(1, 1)).await.unwrap();
    assert_eq!(reported.spec.mailbox, "mine", "the claim returns the object");
    assert_eq!(reported.status.unwrap().worker.unwrap().report, 1);
    let changed = json!({"worker": {"attempt": 1, "report": 2, "lastError": null, "checkpoint": "c"}});
    assert_eq!(pair.patch("mine", changed).await.unwrap().status.unwrap().worker.unwrap().report, 2);
}

#[tokio::test]
async fn a_pods_token_reports_for_no_other_mailbox() {
    let pair = Pair::new().await;
    assert_fenced(pair.patch("other", report(1, 1)).await, OTHER_POD);
}

#[tokio::test]
async fn a_pods_token_is_refused_until_the_operator_has_written_which_pod_it_is() {
    let pair = Pair::new().await;
    pair.rig.patch_status("mine", json!({"podUID": null})).await.unwrap();
    assert_fenced(pair.patch("mine", report(1, 1)).await, OTHER_POD);
    pair.rig.patch_status("mine", json!({"podUID": uid(&pair.mine)})).await.unwrap();
    pair.patch("mine", report(1, 1)).await.unwrap();
}

#[tokio::test]
async fn a_pod_is_fenced_once_another_has_its_turn() {
    let pair = Pair::new().await;
    let next = pair.rig.worker_pod("mine-2").await;
    pair.rig.patch_status("mine", json!({"attempt": 2, "podName": "mine-2", "podUID": uid(&next)})).await.unwrap();
    let (code, message) = refusal(pair.patch("mine", report(1, 2)).await);
    assert!(code == 422 && message.contains(cel_rules::FENCE.message), "{code} {message}");
    assert_fenced(pair.patch("mine", report(2, 1)).await, OTHER_POD);
    let worker = pair.rig.client_of(&next).await;
    patch_status(&worker, &pair.rig.namespace, "mine", report(2, 1)).await.unwrap();
}

#[tokio::test]
async fn a_workers_token_that_no_pod_stands_behind_is_refused() {
    let pair = Pair::new().await;
    let token = pair.rig.plane.token(&pair.rig.namespace, WORKER, None).await;
    let client = pair.rig.plane.client_with_token(&token);
    assert_fenced(patch_status(&client, &pair.rig.namespace, "mine", report(1, 1)).await, OTHER_POD);
}

#[tokio::test]
async fn a_pods_token_changes_nothing_of_the_operators_part_of_the_status() {
    let pair = Pair::new().await;
    for status in [
        json!({"attempt": 2}),
        json!({"phase": "Synced"}),
        json!({"slots": null}),
        json!({"podUID": "another"}),
        json!({"podName": "another"}),
        json!({"conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        json!({"failures": {"sync": 1}}),
        json!({"phase": "Synced", "worker": {"attempt": 1, "report": 1}}),
    ] {
        assert_fenced(pair.patch("mine", status).await, OPERATORS);
    }
    let found = pair.rig.api::<MailboxSync>().get("mine").await.unwrap().status.unwrap();
    assert_eq!((found.attempt, found.slots, found.phase, found.worker), (1, Some(2), None, None));
}

#[tokio::test]
async fn a_pods_token_reads_nothing_and_writes_nothing_else() {
    let pair = Pair::new().await;
    let syncs = Api::<MailboxSync>::namespaced(pair.worker.clone(), &pair.rig.namespace);
    let denied = |code: u16| assert_eq!(code, 403);
    denied(refusal(syncs.get("mine").await).0);
    denied(refusal(syncs.list(&ListParams::default()).await).0);
    let spec = Patch::Merge(json!({"spec": {"suspend": true}}));
    denied(refusal(syncs.patch("mine", &PatchParams::default(), &spec).await).0);
    denied(refusal(syncs.delete("mine", &DeleteParams::default()).await).0);
    denied(refusal(Api::<Secret>::namespaced(pair.worker.clone(), &pair.rig.namespace).get("mail").await).0);
    denied(refusal(Api::<Pod>::namespaced(pair.worker, &pair.rig.namespace).get("mine-1").await).0);
}

#[tokio::test]
async fn a_report_changes_no_spec_and_no_metadata() {
    let pair = Pair::new().await;
    let patch = json!({"spec": {"suspend": true}, "metadata": {"labels": {"a": "b"}, "finalizers": ["x/y"]}, "status": report(1, 1)});
    let syncs = Api::<MailboxSync>::namespaced(pair.worker.clone(), &pair.rig.namespace);
    let after = syncs.patch_status("mine", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert!(!after.spec.suspend && after.metadata.labels.is_none() && after.metadata.finalizers.is_none(), "{after:?}");
}

#[tokio::test]
async fn the_operator_writes_its_part_and_is_not_held_to_the_workers_policy() {
    let pair = Pair::new().await;
    let operator = pair.rig.operator().await;
    let status = json!({"attempt": 2, "podUID": null, "phase": "Running"});
    let after = patch_status(&operator, &pair.rig.namespace, "mine", status).await.unwrap();
    assert_eq!(after.status.unwrap().attempt, 2);
}
