//! One mailbox: observe, decide, write, act; again until nothing is left to write.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::controller::Action as Requeue};

use super::{
    apply::{self, ActionOutcome},
    decide::{SyncAction, decide},
    observe::{HoldReason, ObservedMailbox, SecretsSeen, WorkerLiveness},
    status::{ReconcileState, current_slot_request, write_status},
};
use crate::{
    api::{MailboxSync, MailboxSyncStatus, names},
    controller::{
        cache::NamespacedName, context::ControllerContext, error::ReconcileError, finished_pods::JUDGE_PERIOD,
        owner_reference,
    },
};

/// More writes than this in a row are a defect: a status that never settles must not become a storm.
const MAX_ROUNDS: usize = 8;

/// Looks after one mailbox.
///
/// # Errors
/// When the API server refused, or did not answer: it is tried again.
pub(crate) async fn reconcile(
    sync: Arc<MailboxSync>,
    context: Arc<ControllerContext>,
) -> Result<Requeue, ReconcileError> {
    let (Some(namespace), Some(uid)) = (sync.namespace(), sync.uid()) else { return Ok(Requeue::await_change()) };
    if context.written.is_stale(&*sync) {
        return Ok(Requeue::await_change());
    }
    let mut state = ReconcileState {
        name: NamespacedName { namespace, name: sync.name_any() },
        uid,
        secrets: SecretsSeen::Unknown,
        node_out_of_service: false,
    };
    let mut sync = sync;
    for _ in 0..MAX_ROUNDS {
        let empty = MailboxSyncStatus::default();
        let status = sync.status.as_ref().unwrap_or(&empty);
        let pods: Vec<_> = context.caches.pods_of(&state.name.namespace, &state.name.name);
        let pods: Vec<_> =
            pods.into_iter().filter(|pod| owner_reference::is_controlled_by(&**pod, &state.uid)).collect();
        if pods.iter().any(|pod| context.written.is_stale(&**pod)) {
            return Ok(Requeue::await_change());
        }
        let (surplus_pods, judge_again) = context.finished_pods.surplus_of(&pods, &context.caches, &context.sync_queue);
        let now = Timestamp::now();
        context.sync_metrics.count_progress(&state.uid, status);
        let observed = ObservedMailbox {
            name: &state.name.name,
            uid: &state.uid,
            generation: sync.metadata.generation.unwrap_or_default(),
            deleting: sync.metadata.deletion_timestamp.is_some(),
            spec: &sync.spec,
            status,
            pods: &pods,
            surplus_pods: &surplus_pods,
            liveness: update_liveness(&context, &state.uid, status, now),
            granted_slots: context.admission().granted_slots(&state.uid),
            hold: hold_reason(&context, &state, &sync),
            secrets: state.secrets.clone(),
            node_out_of_service: state.node_out_of_service,
            now,
        };
        let decision = decide(&observed);
        if decision.actions.contains(&SyncAction::CheckSecrets) {
            // Nothing is changed by looking, and one write is saved by looking first.
            apply::apply(&context, &mut state, &sync, &pods, &SyncAction::CheckSecrets).await?;
            continue;
        }
        let was_running = observed.is_running();
        if let Some(next) = write_status(&context, &sync, &decision.status).await? {
            context.publish_events(&*sync, &decision.events).await;
            sync = next;
            if was_running && decision.status.slots.is_none() {
                context.release_slots(&state.uid);
            }
            continue;
        }
        if !was_running && observed.granted_slots.is_some() {
            // It was given slots and does not want them any more.
            context.release_slots(&state.uid);
        }
        let mut again = None;
        for action in &decision.actions {
            match apply::apply(&context, &mut state, &sync, &pods, action).await? {
                ActionOutcome::Done => {}
                ActionOutcome::DecideAgain => again = again.or(Some(sync.clone())),
                ActionOutcome::StatusWritten(next) => again = Some(next),
            }
        }
        if let Some(next) = again {
            sync = next;
        } else {
            let wait = decision.wake_after.and_then(|wait| Duration::try_from(wait).ok());
            let wait = wait.into_iter().chain(judge_again.then_some(JUDGE_PERIOD)).min();
            return Ok(wait.map_or_else(Requeue::await_change, Requeue::requeue));
        }
    }
    tracing::error!(
        namespace = state.name.namespace,
        name = state.name.name,
        "a mailbox's status does not settle; this is a defect"
    );
    Ok(Requeue::requeue(Duration::from_mins(1)))
}

/// Takes the slots again that attempts hold which ran before this process did.
pub(crate) fn restore_slots(context: &ControllerContext) {
    for sync in context.caches.syncs.state() {
        if let Some(slots) = sync.status.as_ref().and_then(|status| status.slots) {
            let request = current_slot_request(context, &sync, Some(slots));
            context.admission().restore(request);
        }
    }
    // What vanished meanwhile holds none.
    let syncs = context.caches.syncs.state();
    let there: HashSet<_> = syncs.iter().filter_map(|sync| sync.metadata.uid.as_deref()).collect();
    let gone: Vec<_> = context.admission().holders().filter(|uid| !there.contains(uid.as_str())).cloned().collect();
    for uid in &gone {
        context.forget_mailbox(uid);
    }
}

fn update_liveness(
    context: &ControllerContext,
    uid: &str,
    status: &MailboxSyncStatus,
    now: Timestamp,
) -> WorkerLiveness {
    let mut known = context.liveness();
    if status.slots.is_none() {
        known.remove(uid);
        return WorkerLiveness::first_seen(status.attempt, now);
    }
    let entry = known.entry(uid.to_owned()).or_insert_with(|| WorkerLiveness::first_seen(status.attempt, now));
    *entry = entry.updated_with(status, now);
    *entry
}

/// Why a mailbox may not start now, or not go on.
fn hold_reason(context: &ControllerContext, state: &ReconcileState, sync: &MailboxSync) -> Option<HoldReason> {
    // Before all else: what is not allowed does not go on either.
    let destination = &sync.spec.destination;
    let reference = destination.server_ref.as_ref().map(|reference| reference.name.as_str());
    if let Some(why) = context.config.forbids_destination(&destination.server.host, reference) {
        return Some(HoldReason::DestinationNotAllowed(why));
    }
    if let Some(why) = context.config.forbids_master_user(&state.name.namespace, &sync.spec) {
        return Some(HoldReason::MasterUserNotAllowed(why));
    }
    let Some(migration) = context.caches.migration_of(sync) else { return Some(HoldReason::MigrationInactive) };
    if migration.metadata.deletion_timestamp.is_some() {
        return Some(HoldReason::MigrationInactive);
    }
    if migration.spec.suspend {
        return Some(HoldReason::MigrationSuspended);
    }
    let account = names::account_hash(&sync.spec.destination);
    let others = context.caches.syncs_into(&account);
    let taken = others.iter().any(|other| has_prior_claim(other, sync));
    taken.then_some(HoldReason::DestinationTaken)
}

/// True when a mailbox of another migration has the destination account of this one: the oldest proven login has it,
/// until its work is done.
fn has_prior_claim(other: &MailboxSync, this: &MailboxSync) -> bool {
    let same = other.namespace() == this.namespace() && other.spec.migration == this.spec.migration;
    if same || other.uid() == this.uid() {
        return false;
    }
    let proven = |sync: &MailboxSync| {
        let account = names::account_hash(&sync.spec.destination);
        let claim = sync.status.as_ref()?.claim.as_ref().filter(|claim| claim.destination == account)?;
        Some((claim.proven_at.as_ref()?.0, sync.uid()))
    };
    let Some(theirs) = proven(other) else { return false };
    !super::decide::is_final(other, Timestamp::now()) && proven(this).is_none_or(|ours| theirs < ours)
}
