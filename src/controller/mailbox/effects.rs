//! What an operator does to pods and MailboxSyncs, and `mailferry uninstall` where no operator is left to do it.

use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::{
    Api, Client, Error, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use crate::{
    api::{MailboxSync, MailboxSyncStatus},
    controller::{
        cached_objects::{POD_FINALIZER, SYNC_FINALIZER},
        error::ReconcileError,
        merge_patch, pod_builder,
    },
};

/// The taint by which somebody who knows says that nothing runs on a node any more.
pub(crate) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Deletes the pod with this UID: its node sends SIGTERM, and SIGKILL after `grace` seconds. One that is gone is no error.
///
/// # Errors
/// When the API server refused, or did not answer.
pub(crate) async fn delete_pod(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    grace: i64,
) -> Result<(), Error> {
    let params = DeleteParams {
        grace_period_seconds: Some(u32::try_from(grace).unwrap_or(0)),
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    unless_gone(pods.delete(name, &params).await).map(drop)
}

/// Takes our finalizer off the pod with this UID, and no other's; gives the pod as it is then, or nothing where it is gone.
///
/// # Errors
/// When the API server refused, or did not answer.
pub(crate) async fn release_pod(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<Option<Pod>, Error> {
    let patch = json!({
        "metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [POD_FINALIZER]},
    });
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    unless_gone(pods.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await)
}

/// Takes our finalizer off a MailboxSync, after what was made for it alone. One that is gone is no error.
///
/// # Errors
/// Outdated when somebody else wrote it since it was read; Api when the API server refused, or did not answer.
pub(crate) async fn release_sync(client: &Client, sync: &MailboxSync) -> Result<(), ReconcileError> {
    let finalizers = sync.finalizers();
    if !finalizers.iter().any(|finalizer| finalizer == SYNC_FINALIZER) {
        return Ok(());
    }
    let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    for secret in pod_builder::required_secrets(&sync.spec).into_keys() {
        if secret.strip_prefix(&name).is_some_and(|rest| rest.starts_with('-')) {
            match secrets.delete(&secret, &DeleteParams::default()).await {
                // Without the right to: it goes with its migration, which owns it.
                Err(Error::Api(answer)) if answer.code == 403 => {}
                answer => drop(unless_gone(answer)?),
            }
        }
    }
    let rest: Vec<_> = finalizers.iter().filter(|finalizer| *finalizer != SYNC_FINALIZER).collect();
    let patch = json!({
        "metadata": {"resourceVersion": sync.resource_version(), "uid": sync.uid(), "finalizers": rest},
    });
    let syncs: Api<MailboxSync> = Api::namespaced(client.clone(), &namespace);
    let answer = syncs.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    unless_gone(answer).map(drop).map_err(ReconcileError::of_versioned_write)
}

/// Writes what changed of a status, and only to the version that was decided on; gives the object as it is then, or nothing
/// where there was nothing to write.
///
/// # Errors
/// Outdated when somebody else wrote it since it was read; Api when the API server refused, or did not answer.
pub(crate) async fn patch_status(
    client: &Client,
    sync: &MailboxSync,
    status: &MailboxSyncStatus,
) -> Result<Option<MailboxSync>, ReconcileError> {
    let empty = MailboxSyncStatus::default();
    let Some(changed) = merge_patch::diff(sync.status.as_ref().unwrap_or(&empty), status)? else { return Ok(None) };
    // A field that has a default and is not there yet is written too.
    let patch = if sync.status.is_none() { serde_json::to_value(status)? } else { changed };
    tracing::debug!(name = sync.name_any(), %patch, "writing a status");
    let body = json!({
        "metadata": {"resourceVersion": sync.resource_version(), "uid": sync.uid()},
        "status": patch,
    });
    let syncs: Api<MailboxSync> = Api::namespaced(client.clone(), &sync.namespace().unwrap_or_default());
    let next = syncs.patch_status(&sync.name_any(), &PatchParams::default(), &Patch::Merge(&body)).await;
    next.map(Some).map_err(ReconcileError::of_versioned_write)
}

/// True when somebody who knows said that nothing runs on this node any more.
///
/// # Errors
/// When the API server refused, or did not answer.
pub(crate) async fn is_node_out_of_service(client: &Client, node: &str) -> Result<bool, Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    // A node that was removed from the cluster proves nothing about what runs on it.
    let Some(node) = nodes.get_opt(node).await? else { return Ok(false) };
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    Ok(taints.iter().any(|taint| taint.key == OUT_OF_SERVICE))
}

/// None where it is not there, or is another of the same name: what was meant is gone.
fn unless_gone<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(Error::Api(answer)) if answer.code == 404 => Ok(None),
        other => other.map(Some),
    }
}
