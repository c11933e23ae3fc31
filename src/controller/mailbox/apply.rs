//! What a decision does in the cluster.

use std::{sync::Arc, time::Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Error, ResourceExt as _, api::PostParams};

use super::{
    attempt_end::{status_after_refusal, status_after_rejection},
    decide::SyncAction,
    effects,
    observe::FLUSH_SECONDS,
    pod_answer::{CreateRefusal, create_refusal},
    status::{ReconcileState, current_slot_request, write_status},
};
use crate::{
    api::{MailboxSync, names},
    controller::{
        cache::NamespacedName,
        cached_objects::SyncPod,
        context::ControllerContext,
        error::ReconcileError,
        events::EventNote,
        grants::granted_sides,
        owner_reference,
        pod_builder::{self, AttemptRef},
        tokens::secret::delete_tokens,
        worker_rbac,
    },
};

/// What follows from an action.
pub(super) enum ActionOutcome {
    /// Nothing: the next action may be applied.
    Done,
    /// A new decision, since something was found out.
    DecideAgain,
    /// A new decision from this object, since its status was written.
    StatusWritten(Arc<MailboxSync>),
}

/// Carries out one action of a decision: it creates, deletes or releases an object, asks for slots, or looks something up
/// for the next decision. An object that is gone already is no error.
///
/// # Errors
/// When the API server refused, or did not answer: the whole reconciliation is tried again.
pub(super) async fn apply(
    context: &ControllerContext,
    state: &mut ReconcileState,
    sync: &MailboxSync,
    pods: &[Arc<SyncPod>],
    action: &SyncAction,
) -> Result<ActionOutcome, ReconcileError> {
    match action {
        SyncAction::CheckSecrets => {
            state.secrets =
                context.secret_versions.look_up_secrets(&state.name.namespace, &state.name.name, &sync.spec).await?;
            return Ok(ActionOutcome::DecideAgain);
        }
        SyncAction::RequestSlots => {
            context.admission().enqueue(current_slot_request(context, sync, None));
            context.slots_changed.notify_one();
        }
        SyncAction::KeepTokens => context.tokens.keep(&state.uid, &state.name, &sync.spec),
        SyncAction::CreatePod => return create_pod(context, state, sync).await,
        SyncAction::StopPod { name, uid } => {
            effects::delete_pod(&context.client, &state.name.namespace, name, uid, FLUSH_SECONDS).await?;
        }
        SyncAction::DeletePod { name, uid } => {
            effects::delete_pod(&context.client, &state.name.namespace, name, uid, 0).await?;
        }
        SyncAction::ReleasePod { name, uid } => {
            delete_unused_tokens(context, state, sync).await?;
            remove_pod_finalizer(context, state, name, uid).await?;
        }
        SyncAction::CheckNode => {
            let bound = pods
                .iter()
                .find(|pod| sync.status.as_ref().and_then(|s| s.pod_uid.as_ref()) == pod.metadata.uid.as_ref());
            let Some(node) = bound.and_then(|pod| pod.spec.node_name.clone()) else { return Ok(ActionOutcome::Done) };
            state.node_out_of_service = is_node_out_of_service(context, &node).await?;
            return Ok(if state.node_out_of_service { ActionOutcome::DecideAgain } else { ActionOutcome::Done });
        }
        SyncAction::ReleaseSync => effects::release_sync(&context.client, sync).await?,
    }
    Ok(ActionOutcome::Done)
}

fn pods_api(context: &ControllerContext, state: &ReconcileState) -> Api<Pod> {
    Api::namespaced(context.client.clone(), &state.name.namespace)
}

/// Makes the current attempt's pod. A refusal costs no attempt, and its slots are others' at once.
async fn create_pod(
    context: &ControllerContext,
    state: &ReconcileState,
    sync: &MailboxSync,
) -> Result<ActionOutcome, ReconcileError> {
    let NamespacedName { namespace, name } = &state.name;
    let empty = crate::api::MailboxSyncStatus::default();
    let status = sync.status.as_ref().unwrap_or(&empty);
    let to = AttemptRef { namespace, name, uid: &state.uid, spec: &sync.spec, attempt: status.attempt };
    let pod = pod_builder::build_pod(to, &context.worker, context.addresses.pod_addresses());
    let prepared =
        worker_rbac::ensure_worker_rbac(&context.client, &context.config, &context.prepared_namespaces, namespace);
    match prepared.await {
        Err(Error::Api(answer)) => {
            let what = format!("the workers' account {} can't be made: {}", names::WORKER_NAME, answer.message);
            return give_up_attempt(context, state, sync, &what).await;
        }
        prepared => prepared?,
    }
    let answer = match pods_api(context, state).create(&PostParams::default(), &pod).await {
        Ok(made) => {
            if context.admission().clear_refusal(namespace) {
                context.slots_changed.notify_one();
            }
            // At once, so that the pod's worker is known before it says its first word.
            let status = crate::api::MailboxSyncStatus { pod_uid: made.uid(), ..status.clone() };
            let next = write_status(context, sync, &status).await?;
            return Ok(next.map_or(ActionOutcome::Done, ActionOutcome::StatusWritten));
        }
        Err(Error::Api(answer)) => answer,
        Err(error) => return Err(error.into()),
    };
    match create_refusal(&answer) {
        Some(CreateRefusal::NameTaken) => {
            if !has_pod(context, state, &pod.name_any()).await? {
                let what = format!("a pod {} is there that is not this mailbox's; it is waited for", pod.name_any());
                context.publish_events(sync, &[EventNote::warning("PodNameTaken", what)]).await;
                return Err(Error::Api(answer).into());
            }
            Ok(ActionOutcome::Done)
        }
        Some(CreateRefusal::Namespace) => give_up_attempt(context, state, sync, &answer.message).await,
        Some(CreateRefusal::Pod) => {
            let (status, note) = status_after_rejection(status, &answer.message);
            let next = write_status(context, sync, &status).await?;
            context.give_up_slots(&state.uid);
            context.publish_events(sync, &[note]).await;
            Ok(next.map_or(ActionOutcome::Done, ActionOutcome::StatusWritten))
        }
        None => Err(Error::Api(answer).into()),
    }
}

/// The namespace takes no pods, or nothing that they need: the attempt is taken back, and its slots are others' until
/// somebody has tried again.
async fn give_up_attempt(
    context: &ControllerContext,
    state: &ReconcileState,
    sync: &MailboxSync,
    why: &str,
) -> Result<ActionOutcome, ReconcileError> {
    let NamespacedName { namespace, name } = &state.name;
    let status = sync.status.clone().unwrap_or_default();
    context.prepared_namespaces.forget(namespace);
    if has_pod(context, state, &names::pod(name, status.attempt)).await? {
        // Made before, and not seen yet: the watch will tell.
        return Ok(ActionOutcome::Done);
    }
    context.admission().record_refusal(namespace, why, Instant::now());
    tracing::warn!(namespace, name, message = why, "a pod was refused");
    let next = write_status(context, sync, &status_after_refusal(&status)).await?;
    context.give_up_slots(&state.uid);
    Ok(next.map_or(ActionOutcome::Done, ActionOutcome::StatusWritten))
}

/// True when a pod of this name is there and belongs to the mailbox.
async fn has_pod(context: &ControllerContext, state: &ReconcileState, name: &str) -> Result<bool, ReconcileError> {
    let there = pods_api(context, state).get_metadata_opt(name).await?;
    Ok(there.is_some_and(|there| owner_reference::is_controlled_by(&there, &state.uid)))
}

/// Deletes the access tokens that a pod mounted whose end is certain, before it is let go of: should this process end
/// between the two, both are done again. Where another attempt needs them, its own pod's end deletes them.
async fn delete_unused_tokens(
    context: &ControllerContext,
    state: &ReconcileState,
    sync: &MailboxSync,
) -> Result<(), ReconcileError> {
    let runs = sync.status.as_ref().is_some_and(|status| status.slots.is_some());
    if runs || context.tokens.is_kept(&state.uid) || granted_sides(&sync.spec).next().is_none() {
        return Ok(());
    }
    Ok(delete_tokens(&context.client, &state.name, &state.uid).await?)
}

/// Takes our finalizer off a pod, and no other's.
async fn remove_pod_finalizer(
    context: &ControllerContext,
    state: &ReconcileState,
    name: &str,
    uid: &str,
) -> Result<(), ReconcileError> {
    let pod = effects::release_pod(&context.client, &state.name.namespace, name, uid).await?;
    // One that was only held by it is gone with it, and no watch tells of it again.
    if let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        context.written.record(&pod);
    }
    Ok(())
}

/// True when somebody who knows said that nothing runs on this node any more.
async fn is_node_out_of_service(context: &ControllerContext, node: &str) -> Result<bool, ReconcileError> {
    match effects::is_node_out_of_service(&context.client, node).await {
        Err(Error::Api(answer)) if answer.code == 403 => {
            // An operator with rights in some namespaces only: offlineGrace has to pass.
            context.warn_nodes_unreadable(&answer.message);
            Ok(false)
        }
        found => Ok(found?),
    }
}
