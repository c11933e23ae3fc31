//! Plays scheduler, kubelet and worker: each pod claims its attempt, reports that all is done, and ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use mailferry::{api::MailboxSync, controller::cached_objects::SYNC_LABEL};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Pods that are played at one time.
const AT_ONCE: usize = 200;

pub struct Player {
    task: JoinHandle<()>,
    writes: Arc<AtomicUsize>,
}

impl Player {
    /// Ends it, and gives the workers' writes.
    pub fn stop(self) -> usize {
        self.task.abort();
        self.writes.load(Relaxed)
    }
}

/// Starts playing in a namespace.
pub fn start(client: Client, namespace: String, checkpoint: usize) -> Player {
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let task = tokio::spawn(async move {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let made = watcher(pods, watcher::Config::default()).default_backoff().applied_objects();
        let made = made.filter_map(|pod| async move {
            let pod = pod.ok()?;
            let ended = pod.status.as_ref()?.container_statuses.is_some();
            (!ended && pod.metadata.deletion_timestamp.is_none()).then_some(pod)
        });
        made.for_each_concurrent(AT_ONCE, |pod| play(client.clone(), pod, checkpoint, Arc::clone(&counted))).await;
    });
    Player { task, writes }
}

/// What a sync's checkpoint may look like: base64 of what can't be compressed further.
pub fn checkpoint(bytes: usize) -> String {
    (0..bytes)
        .map(|_| {
            char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[rand::random_range(0..64)])
        })
        .collect()
}

/// The report of a worker.
pub fn report(number: i64, more: &Value) -> Value {
    let mut worker = json!({"attempt": 1, "report": number});
    worker.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"status": {"worker": worker}})
}

/// The last report.
pub fn last(bytes: usize) -> Value {
    let progress = json!({"messagesTotal": 100, "messagesDone": 100, "messagesThisAttempt": 100, "bytesTotal": 1_000_000, "bytesDone": 1_000_000});
    report(
        2,
        &json!({"phase": "Done", "outcome": "Synced", "destinationLogin": true, "progress": progress, "checkpoint": checkpoint(bytes)}),
    )
}

/// The status of a pod whose container has ended.
pub fn ended() -> Value {
    let word = last(0)["status"]["worker"].to_string();
    let state = json!({"terminated": {"exitCode": 0, "message": word, "finishedAt": "2026-01-01T00:00:00Z"}});
    let container =
        json!({"name": "sync", "image": "none", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    json!({"status": {"phase": "Succeeded", "containerStatuses": [container]}})
}

async fn play(client: Client, pod: Pod, bytes: usize, writes: Arc<AtomicUsize>) {
    let namespace = pod.namespace().unwrap();
    let sync = pod.labels()[SYNC_LABEL].clone();
    let syncs: Api<MailboxSync> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    // Until its token is known, a worker is fenced.
    while syncs.get(&sync).await.is_ok_and(|sync| sync.status.unwrap_or_default().pod_uid != pod.uid()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for body in [report(1, &json!({"phase": "Connecting"})), last(bytes)] {
        while syncs.patch_status(&sync, &PatchParams::default(), &Patch::Merge(&body)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        writes.fetch_add(1, Relaxed);
    }
    // A process takes its time to end, and kubelet to tell.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(ended())).await;
}
