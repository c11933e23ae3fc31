//! Brings MailboxSyncs at rest into states in which an operator's memory is measured at its start.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PartialObjectMeta, Patch, PatchParams, PostParams},
};
use mailferry::{
    api::{MailboxSync, mailbox_sync::MAX_CHECKPOINT_BYTES},
    controller::cached_objects::SYNC_LABEL,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::player::{checkpoint, ended, last};

/// Requests at one time.
const AT_ONCE: usize = 32;
/// One MailboxSync of so many gets a checkpoint at its bound.
const LARGE_OF: usize = 100;

/// Waits until there are so many MailboxSyncs, and gives their metadata.
pub async fn all(client: &Client, namespace: &str, mailboxes: usize) -> Vec<ObjectMeta> {
    let syncs: Api<MailboxSync> = Api::namespaced(client.clone(), namespace);
    loop {
        let found = syncs.list_metadata(&ListParams::default()).await.unwrap();
        if found.items.len() >= mailboxes {
            return found.items.into_iter().map(|PartialObjectMeta { metadata, .. }| metadata).collect();
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Changes the status of those MailboxSyncs for which `status` gives one.
async fn patch(client: &Client, namespace: &str, mailboxes: usize, status: impl Fn(usize, &str) -> Option<Value>) {
    let syncs: Api<MailboxSync> = Api::namespaced(client.clone(), namespace);
    let named = all(client, namespace, mailboxes).await.into_iter().enumerate();
    let patches = named.filter_map(|(number, metadata)| {
        let name = metadata.name?;
        let patch = Patch::Merge(json!({"status": status(number, &name)?}));
        let syncs = syncs.clone();
        Some(Ok(async move { syncs.patch_status(&name, &PatchParams::default(), &patch).await.map(drop) }))
    });
    stream::iter(patches).try_buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.unwrap();
}

/// Each MailboxSync is synced, as if by an operator and a worker.
pub async fn sync_all(client: &Client, namespace: &str, mailboxes: usize, bytes: usize) {
    let now = "2026-01-01T00:00:00Z";
    patch(client, namespace, mailboxes, |_, name| {
        let condition = |type_: &str, message: &str| json!({"type": type_, "status": "True", "reason": "Synced", "message": message, "lastTransitionTime": now, "observedGeneration": 1});
        let mut status = last(bytes)["status"].clone();
        status["worker"]["notCopied"] = json!({"messages": 0});
        status["worker"]["flushedAttempt"] = json!(1);
        let copied = "every message of the source is at the destination, or left out by the migration's rules";
        let more = json!({
            "observedGeneration": 1, "phase": "Synced", "attempt": 1, "syncs": 1, "podName": format!("{name}-1"),
            "podUID": "00000000-0000-0000-0000-000000000000", "attemptStartedAt": now, "lastSyncedAt": now, "inboxQuietSince": now,
            "secretVersions": [format!("{name}-0123456789ab=")],
            "claim": {"destination": "0".repeat(40), "provenAt": now},
            "conditions": [condition("Ready", "everything is at the destination"), condition("AllCopied", copied)],
        });
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(status)
    })
    .await;
}

/// Some MailboxSyncs have a checkpoint that is as large as it may be.
pub async fn enlarge_checkpoints(client: &Client, namespace: &str, mailboxes: usize) {
    patch(client, namespace, mailboxes, |number, _| {
        let large = number.is_multiple_of(LARGE_OF);
        large.then(|| json!({"worker": {"checkpoint": checkpoint(MAX_CHECKPOINT_BYTES)}}))
    })
    .await;
}

/// Each MailboxSync has a pod that ended well, as an operator left it that kept such pods.
pub async fn keep_pods(client: &Client, namespace: &str, mailboxes: usize) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let made = all(client, namespace, mailboxes).await.into_iter().map(|metadata| {
        let pods = pods.clone();
        async move {
            let (sync, uid) = (metadata.name.unwrap(), metadata.uid.unwrap());
            let name = format!("{sync}-1");
            let owner = json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "name": sync, "uid": uid, "controller": true});
            let pod = json!({
                "metadata": {"name": name, "labels": {SYNC_LABEL: sync, "app.kubernetes.io/name": "mailferry"}, "ownerReferences": [owner]},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "sync", "image": "none"}]},
            });
            pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ended())).await.unwrap();
        }
    });
    stream::iter(made).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}
