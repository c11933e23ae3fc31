//! One mailbox: observe, decide, write, act; again until nothing is left to write.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{
    apply::{self, ActionOutcome},
    decide::{SyncAction, decide},
    observe::{ClockReading, HoldReason, ObservedMailbox, WorkerLiveness, liveness_of_attempt, signed_duration},
    slot_wait::wait_words,
    status::{ReconcileState, current_slot_request, read_afresh, write_status},
    time_windows::times_of_servers,
};
use crate::{
    Side,
    api::{MailboxSync, MailboxSyncStatus, names},
    controller::{
        cache::NamespacedName, cached_objects::SyncPod, context::ControllerContext, error::ReconcileError,
        finished_pods::JUDGE_PERIOD, owner_reference, tokens::secret::TokenReader,
    },
};

/// More writes than this in a row are a defect: a status that never settles must not become a storm.
const MAX_ROUNDS: usize = 8;

/// So often in a row a mailbox is read again at once, since somebody else wrote it meanwhile: its worker does.
const MAX_CONFLICTS: usize = 3;

/// Looks after one mailbox; gives after how long it has to be looked at again, though nothing changes.
///
/// # Errors
/// When the API server refused, or did not answer: it is tried again.
pub(crate) async fn reconcile(
    sync: Arc<MailboxSync>,
    context: Arc<ControllerContext>,
) -> Result<Option<Duration>, ReconcileError> {
    let (Some(namespace), Some(uid)) = (sync.namespace(), sync.uid()) else { return Ok(None) };
    if context.written.is_stale(&*sync) {
        return Ok(None);
    }
    let mut state = ReconcileState {
        name: NamespacedName { namespace, name: sync.name_any() },
        uid,
        secrets: context.secret_versions.before_a_look(),
        node_out_of_service: false,
        last_report_sought: false,
    };
    let result = Box::pin(decide_until_settled(&context, &mut state, sync)).await;
    if result.as_ref().is_err_and(ReconcileError::is_unanswered) {
        context.unanswered.record(&state.uid);
    }
    result
}

/// Decides again until nothing is left to write; what may have been written unseen is read first.
async fn decide_until_settled(
    context: &ControllerContext,
    state: &mut ReconcileState,
    mut sync: Arc<MailboxSync>,
) -> Result<Option<Duration>, ReconcileError> {
    if context.unanswered.contains(&state.uid) {
        // When it is gone, the watch tells.
        let Some(now) = read_afresh(context, state).await? else { return Ok(None) };
        context.unanswered.forget(&state.uid);
        sync = now;
    }
    let (mut rounds, mut conflicts) = (0, 0);
    while rounds < MAX_ROUNDS {
        match Box::pin(decide_once(context, state, &sync)).await {
            Ok(Round::Again(next)) => sync = next,
            Ok(Round::Settled(wait)) => return Ok(wait),
            // No failure, and nothing to wait for: what is there now is decided on.
            Err(ReconcileError::Outdated(_)) if conflicts < MAX_CONFLICTS => {
                conflicts += 1;
                let Some(now) = read_afresh(context, state).await? else { return Ok(None) };
                sync = now;
                continue;
            }
            Err(error) => return Err(error),
        }
        (rounds, conflicts) = (rounds + 1, 0);
    }
    tracing::error!(
        namespace = state.name.namespace,
        name = state.name.name,
        "a mailbox's status does not settle; this is a defect"
    );
    Ok(Some(Duration::from_mins(1)))
}

/// What follows a decision.
enum Round {
    /// Another one, from this object.
    Again(Arc<MailboxSync>),
    /// None, until something changes or so much time has passed.
    Settled(Option<Duration>),
}

/// Makes one decision, and writes or does what it says.
async fn decide_once(
    context: &ControllerContext,
    state: &mut ReconcileState,
    sync: &Arc<MailboxSync>,
) -> Result<Round, ReconcileError> {
    let empty = MailboxSyncStatus::default();
    let status = sync.status.as_ref().unwrap_or(&empty);
    let pods: Vec<_> = context.caches.pods_of(&state.name.namespace, &state.name.name);
    let pods: Vec<_> = pods.into_iter().filter(|pod| owner_reference::is_controlled_by(&**pod, &state.uid)).collect();
    if pods.iter().any(|pod| context.written.is_stale(&**pod)) {
        return Ok(Round::Settled(None));
    }
    let (surplus_pods, judge_again) = context.finished_pods.surplus_of(&pods, &context.caches, &context.due.syncs);
    let clocks = ClockReading::now();
    let granted_slots = context.admission().granted_slots(&state.uid);
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
        liveness: update_liveness(context, state, status, &pods, clocks),
        granted_slots,
        waits_for: words_of_wait(context, sync, status, granted_slots),
        hold: hold_reason(context, state, sync),
        sync_times: times_of_servers([&sync.spec.source.server, &sync.spec.destination.server], clocks.wall),
        secrets: state.secrets.clone(),
        tokens: context.tokens.look_up(&state.uid, &sync.spec, status.slots.is_some() && status.pod_uid.is_some()),
        node_out_of_service: state.node_out_of_service,
        scheduling_timeout: signed_duration(context.config.scheduling_timeout),
        now: clocks.wall,
        since_boot: clocks.since_boot,
    };
    if !state.last_report_sought && observed.lacks_last_report() && observed.last_report_wait().is_none() {
        // The watch is late, or the report was never taken: what is there now says which.
        state.last_report_sought = true;
        return Ok(read_afresh(context, state).await?.map_or(Round::Settled(None), Round::Again));
    }
    if observed.is_running() {
        note_refused_tokens(context, state, status);
    }
    let decision = decide(&observed);
    if decision.actions.contains(&SyncAction::CheckSecrets) {
        // Nothing is changed by looking, and one write is saved by looking first.
        apply::apply(context, state, sync, &pods, &SyncAction::CheckSecrets).await?;
        return Ok(Round::Again(Arc::clone(sync)));
    }
    let was_running = observed.is_running();
    if let Some(next) = write_status(context, sync, &decision.status).await? {
        context.publish_events(&**sync, &decision.events).await;
        if was_running && decision.status.slots.is_none() {
            context.release_slots(&state.uid);
        }
        return Ok(Round::Again(next));
    }
    if !was_running && !decision.actions.contains(&SyncAction::KeepTokens) {
        // While it waits for its turn, or for nothing, no pod needs tokens.
        context.tokens.let_go(&state.uid);
        if !decision.actions.contains(&SyncAction::RequestSlots) {
            // It may stand in the queue, or have been given slots, and does not want them any more.
            context.give_up_slots(&state.uid);
        }
    }
    let mut again = None;
    for action in &decision.actions {
        match apply::apply(context, state, sync, &pods, action).await? {
            ActionOutcome::Done => {}
            ActionOutcome::DecideAgain => again = again.or(Some(Arc::clone(sync))),
            ActionOutcome::StatusWritten(next) => again = Some(next),
        }
    }
    if let Some(next) = again {
        return Ok(Round::Again(next));
    }
    let wait = decision.wake_after.and_then(|wait| Duration::try_from(wait).ok());
    Ok(Round::Settled(wait.into_iter().chain(judge_again.then_some(JUDGE_PERIOD)).min()))
}

/// Has another token got where the attempt's worker says that a server refused one.
fn note_refused_tokens(context: &ControllerContext, state: &ReconcileState, status: &MailboxSyncStatus) {
    let Some(worker) = status.worker.as_ref().filter(|worker| worker.attempt == status.attempt) else { return };
    let Some(pod_uid) = &status.pod_uid else { return };
    let pod = TokenReader { name: names::pod(&state.name.name, status.attempt), uid: pod_uid.clone() };
    for (side, refused) in
        [(Side::Source, &worker.refused_source_token), (Side::Destination, &worker.refused_destination_token)]
    {
        if let Some(refused) = refused {
            context.tokens.note_refusal(&state.uid, side, refused, &pod);
        }
    }
}

/// What a mailbox waits for that holds no slots.
fn words_of_wait(
    context: &ControllerContext,
    sync: &MailboxSync,
    status: &MailboxSyncStatus,
    granted_slots: Option<i32>,
) -> Option<String> {
    let uid = sync.metadata.uid.as_deref()?;
    if granted_slots.is_some() || status.slots.is_some() {
        context.told_waits.forget(uid);
        return None;
    }
    let wait = context.admission().waits_for(&current_slot_request(context, sync, None));
    let queued = status.conditions.iter().find(|condition| condition.type_ == "Ready" && condition.reason == "Queued");
    let before = queued.map(|condition| condition.message.as_str());
    Some(context.told_waits.choose(uid, before, wait_words(&wait), Instant::now()))
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
    state: &ReconcileState,
    status: &MailboxSyncStatus,
    pods: &[Arc<SyncPod>],
    now: ClockReading,
) -> WorkerLiveness {
    let mut known = context.liveness();
    let before = known.remove(&state.uid);
    let Some(liveness) = liveness_of_attempt(before, status, pods, now) else {
        return WorkerLiveness::first_seen(status.attempt, now.since_boot);
    };
    known.insert(state.uid.clone(), liveness);
    liveness
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
    if let Some(why) = context.config.forbids_grant(&state.name.namespace, &sync.spec) {
        return Some(HoldReason::GrantNotAllowed(why));
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
    !super::due::is_final(other, Timestamp::now()) && proven(this).is_none_or(|ours| theirs < ours)
}
