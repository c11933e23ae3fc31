//! What happens next with one mailbox: a pure function from what is observed to what is written and done.
//!
//! One write at a time: where the status has to change, it is written and the next decision starts from there; only a
//! status that says all there is to say leads to actions. So the operator may end between any two of them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    attempt_end::settle_attempt,
    backoff::jittered,
    conditions,
    observe::{FLUSH_SECONDS, HoldReason, ObservedMailbox, PodEnd, SecretsSeen, signed_duration},
};
use crate::{
    api::{
        Duration, LastError, MailboxSync, MailboxSyncSpec, MailboxSyncStatus,
        mailbox_sync::{Claim, StopReason, Stopping, SyncPhase},
        names,
    },
    controller::{
        cached_objects::{SyncContainerState, SyncPod},
        events::EventNote,
    },
    error::ErrorClass,
};

/// A pod that does not run within this time gives its slots back, seconds.
const START_SECONDS: i64 = 600;
/// For so long a status may come later than the pod that was made after it, seconds.
const STATUS_LAG_SECONDS: i64 = 60;
/// How often a missing or refused Secret is looked at again, seconds.
const SECRET_PERIOD_SECONDS: i64 = 60;
/// Reports without a byte moved that make a stall, beside the time.
const STALLED_REPORTS: u32 = 2;

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncDecision {
    /// The status as it shall be; `worker` as it is.
    pub status: MailboxSyncStatus,
    /// What is done once the status is as it shall be.
    pub actions: Vec<SyncAction>,
    /// What people are told once the status is written.
    pub notes: Vec<EventNote>,
    /// When to decide again at the latest.
    pub wake: Option<SignedDuration>,
}

/// What is done in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncAction {
    /// Look at the Secrets, then decide again.
    LookAtSecrets,
    /// Ask for slots; the mailbox is decided on again when it has them.
    Enqueue,
    /// Make the current attempt's pod.
    CreatePod,
    /// Ask the pod to stop: SIGTERM, then time to save its checkpoint.
    StopPod { name: String, uid: String },
    /// Let go of a pod whose end is certain.
    ReleasePod { name: String, uid: String },
    /// Delete a pod that ended long ago.
    DeletePod { name: String, uid: String },
    /// Look whether the pod's node is out of service, then decide again.
    LookAtNode,
    /// Let go of the MailboxSync itself.
    ReleaseSync,
}

/// Decides.
#[must_use]
pub fn decide(observed: &ObservedMailbox<'_>) -> SyncDecision {
    let mut next = SyncDecider {
        o: observed,
        decision: SyncDecision { status: observed.status.clone(), actions: Vec::new(), notes: Vec::new(), wake: None },
    };
    if observed.is_running() {
        next.decide_running();
    } else {
        next.decide_idle();
    }
    next.clean_up_pods();
    next.decision.status.observed_generation = Some(observed.generation);
    conditions::set_conditions(observed, &mut next.decision.status);
    next.decision
}

struct SyncDecider<'o, 'a> {
    o: &'o ObservedMailbox<'a>,
    decision: SyncDecision,
}

impl SyncDecider<'_, '_> {
    fn push_action(&mut self, action: SyncAction) {
        self.decision.actions.push(action);
    }

    fn wake_in(&mut self, wait: SignedDuration) {
        let wait = wait.max(SignedDuration::from_secs(1));
        self.decision.wake = Some(self.decision.wake.map_or(wait, |wake| wake.min(wait)));
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake_in(at.duration_since(self.o.now));
    }

    /// An attempt is under way.
    fn decide_running(&mut self) {
        let o = self.o;
        if let Some(end) = o.current_pod_end() {
            let settled = settle_attempt(o, &end);
            self.decision.status = settled.status;
            self.decision.notes = settled.notes;
            return;
        }
        let wanted = self.stop_reason();
        match o.current_pod() {
            None if o.status.pod_uid.is_some() => self.wake_in(o.silence_limit()), // lost sight of: wait until it must have ended
            None if wanted.is_some() => {
                // It has no pod: there is nothing to stop. A create still under way meets the fence.
                let settled = settle_attempt(o, &PodEnd::NeverRan);
                self.decision.status = settled.status;
                self.decision.notes = settled.notes;
            }
            None => self.push_action(SyncAction::CreatePod),
            Some(pod) => self.decide_with_pod(pod, wanted),
        }
    }

    fn decide_with_pod(&mut self, pod: &SyncPod, wanted: Option<StopReason>) {
        let o = self.o;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if o.status.pod_uid.as_deref() != Some(&uid) {
            self.decision.status.pod_uid = Some(uid.clone());
        }
        if let Some(reason) = wanted
            && o.status.stopping.is_none()
        {
            self.decision.status.stopping = Some(Stopping { at: Time(o.now), reason });
            self.decision.notes.extend(EventNote::for_stop(reason));
            return;
        }
        match pod.deleting_since() {
            None if o.status.stopping.is_some() => {
                self.push_action(SyncAction::StopPod { name: pod.metadata.name.clone().unwrap_or_default(), uid });
            }
            None => {}
            Some(since) => {
                // `since` is the deletion's time with its grace.
                let late = o.now.duration_since(since);
                if late > SignedDuration::ZERO && !o.node_out_of_service && pod.is_bound() {
                    self.push_action(SyncAction::LookAtNode);
                }
                self.wake_in((-late).max(SignedDuration::from_secs(10)));
            }
        }
        self.wake_in(o.silence_limit());
    }

    /// Why the attempt has to stop, if it has; also when to look again.
    fn stop_reason(&mut self) -> Option<StopReason> {
        let o = self.o;
        if let Some(stopping) = &o.status.stopping {
            return Some(stopping.reason);
        }
        if o.deleting {
            return Some(StopReason::Removed);
        }
        if o.spec.cancel {
            return Some(StopReason::Cancelled);
        }
        if o.spec.suspend {
            return Some(StopReason::Suspended);
        }
        if matches!(o.hold, Some(HoldReason::NotAllowed(_) | HoldReason::DestinationNotAllowed(_))) {
            return Some(StopReason::NotAllowed);
        }
        let left = signed_duration(o.spec.settings.deadline) - o.deadline_used();
        if left <= SignedDuration::ZERO {
            return Some(StopReason::Deadline);
        }
        self.wake_in(left);
        let claimed = o.status.worker.as_ref().is_some_and(|worker| worker.attempt == o.status.attempt);
        let ran = claimed || o.current_pod().is_some_and(|pod| pod.container_state() == SyncContainerState::Running);
        if !ran {
            let age =
                o.status.attempt_started_at.as_ref().map_or(SignedDuration::ZERO, |at| o.now.duration_since(at.0));
            let left = SignedDuration::from_secs(START_SECONDS) - age;
            if left <= SignedDuration::ZERO {
                return Some(StopReason::NotStarted);
            }
            self.wake_in(left);
            return None;
        }
        if o.is_silent() {
            return Some(StopReason::LostContact);
        }
        let stalled = o.now.duration_since(o.heard.moved_at) >= signed_duration(o.spec.settings.stall_after);
        if stalled && o.heard.reports_without_move >= STALLED_REPORTS {
            return Some(StopReason::NoProgress);
        }
        if !stalled {
            self.wake_in(signed_duration(o.spec.settings.stall_after) - o.now.duration_since(o.heard.moved_at));
        }
        None
    }

    /// No attempt is under way: is one due?
    fn decide_idle(&mut self) {
        let o = self.o;
        if o.deleting {
            // Pods are let go of below; a MailboxSync goes when none is held any more.
            if o.pods.iter().all(|pod| !pod.has_finalizer()) {
                self.push_action(SyncAction::ReleaseSync);
            }
            return;
        }
        let status = &mut self.decision.status;
        if o.spec.cancel {
            status.phase = Some(SyncPhase::Cancelled);
            status.next_attempt_at = None;
            return;
        }
        let facts = DueFacts { uid: o.uid, generation: o.generation, spec: o.spec, status: o.status, now: o.now };
        match attempt_due(&facts) {
            AttemptDue::Never => status.next_attempt_at = None,
            AttemptDue::At(at) => {
                status.next_attempt_at = Some(Time(at));
                if o.spec.suspend {
                    status.phase = Some(SyncPhase::Suspended);
                    return;
                }
                if matches!(status.phase, None | Some(SyncPhase::Queued | SyncPhase::Suspended | SyncPhase::Cancelled))
                {
                    let synced = status.last_synced_at.is_some();
                    status.phase = Some(if synced { SyncPhase::Synced } else { SyncPhase::Pending });
                }
                self.wake_at(at);
            }
            AttemptDue::WithAnotherSecret => {
                status.next_attempt_at = None;
                match &o.secrets {
                    SecretsSeen::Unknown => self.push_action(SyncAction::LookAtSecrets),
                    SecretsSeen::There(versions) if *versions != o.status.secret_versions => self.start_attempt(),
                    SecretsSeen::There(_) | SecretsSeen::Missing(_) => {
                        self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
                    }
                }
            }
            AttemptDue::Now => self.start_attempt(),
        }
    }

    /// An attempt is due: it starts as soon as it may.
    fn start_attempt(&mut self) {
        let o = self.o;
        let status = &mut self.decision.status;
        status.next_attempt_at = None;
        if o.spec.suspend {
            status.phase = Some(SyncPhase::Suspended);
            return;
        }
        if let Some(HoldReason::DestinationNotAllowed(why)) = &o.hold {
            // Not given up: it goes on by itself once the operator's configuration allows it.
            status.phase = Some(SyncPhase::Stalled);
            status.last_error = Some(LastError::new(why, None));
            return;
        }
        if let Some(HoldReason::NotAllowed(why)) = &o.hold {
            let error = LastError {
                class: ErrorClass::Configuration,
                side: None,
                host: None,
                folder: None,
                message: why.clone(),
                advice: Some("Ask whoever runs the operator, or give each mailbox its own credential".to_owned()),
                at: None,
                retry_at: None,
            };
            status.phase = Some(SyncPhase::Failed);
            status.last_error = Some(error);
            return;
        }
        match &o.secrets {
            SecretsSeen::Unknown => self.push_action(SyncAction::LookAtSecrets),
            SecretsSeen::Missing(what) => {
                status.phase = Some(SyncPhase::Stalled);
                status.last_error = Some(LastError {
                    class: ErrorClass::Configuration,
                    side: None,
                    host: None,
                    folder: None,
                    message: what.clone(),
                    advice: Some(
                        "Create the Secret in the migration's namespace; the sync starts by itself".to_owned(),
                    ),
                    at: None,
                    retry_at: None,
                });
                self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
            }
            SecretsSeen::There(versions) => {
                let (Some(slots), None) = (o.admitted, &o.hold) else {
                    status.phase = Some(SyncPhase::Queued);
                    if o.hold.is_none() {
                        self.push_action(SyncAction::Enqueue);
                    } else {
                        self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
                    }
                    return;
                };
                if o.pods.iter().any(|pod| o.is_ahead(pod) && o.pod_end(pod, false).is_none()) {
                    // Somebody works already; tidying looks after it.
                    return;
                }
                // An attempt whose pod was refused never was one: its number is used again.
                let refused = status.attempt > 0 && status.attempt_started_at.is_none();
                if !refused {
                    // A number whose pod is there already is not used again.
                    let taken = o.pods.iter().filter_map(|pod| pod.attempt()).fold(status.attempt, i64::max);
                    status.attempt = taken + 1;
                }
                status.phase = Some(SyncPhase::Running);
                status.slots = Some(slots);
                status.pod_name = Some(names::pod(o.name, status.attempt));
                status.pod_uid = None;
                status.attempt_started_at = Some(Time(o.now));
                status.stopping = None;
                // An attempt that follows one which did not end it still acts on the same request.
                status.retry_refused |= is_requested(o.spec, o.status);
                status.sync_request.clone_from(&o.spec.sync_request);
                status.secret_versions.clone_from(versions);
                let destination = names::account_hash(&o.spec.destination);
                if status.claim.as_ref().is_none_or(|claim| claim.destination != destination) {
                    status.claim = Some(Claim { destination, proven_at: None });
                }
            }
        }
    }

    /// Lets go of pods whose end is certain and settled, and deletes those that stayed long enough.
    fn clean_up_pods(&mut self) {
        let o = self.o;
        let current = o.is_running().then(|| names::pod(o.name, o.status.attempt));
        let ttl = signed_duration(o.spec.settings.ttl);
        let mut failed: Vec<&SyncPod> = Vec::new();
        let mut overdue: Vec<&SyncPod> = Vec::new();
        for pod in o.pods.iter().map(|pod| &**pod) {
            let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { continue };
            if current.as_ref() == Some(name) {
                continue;
            }
            let made = pod.metadata.creation_timestamp.as_ref().map_or(o.now, |Time(made)| *made);
            let behind = made + SignedDuration::from_secs(STATUS_LAG_SECONDS);
            if o.is_ahead(pod) && !o.deleting && o.now < behind {
                self.wake_at(behind);
                continue;
            }
            let Some(end) = o.pod_end(pod, o.is_silent()) else {
                // Not ours to wait for, but still there: an attempt that never was ours, or a stale operator's.
                if pod.deleting_since().is_none() {
                    self.push_action(SyncAction::StopPod { name: name.clone(), uid: uid.clone() });
                }
                self.wake_in(SignedDuration::from_secs(FLUSH_SECONDS));
                continue;
            };
            if pod.has_finalizer() {
                self.push_action(SyncAction::ReleasePod { name: name.clone(), uid: uid.clone() });
            } else if pod.deleting_since().is_none() {
                let ended = match &end {
                    PodEnd::Exited(exit) => exit.at.unwrap_or(made),
                    PodEnd::NeverRan | PodEnd::Lost => o.now - ttl,
                };
                let left = ttl - o.now.duration_since(ended);
                if left <= SignedDuration::ZERO || o.deleting {
                    overdue.push(pod);
                } else {
                    if !matches!(&end, PodEnd::Exited(exit) if exit.code == 0) {
                        failed.push(pod);
                    }
                    self.wake_in(left);
                }
            }
        }
        failed.sort_by_key(|pod| std::cmp::Reverse(pod.attempt()));
        let kept = usize::try_from(o.spec.settings.failed_pods_limit).unwrap_or(0);
        for pod in overdue.into_iter().chain(failed.into_iter().skip(kept)) {
            let (Some(name), Some(uid)) = (pod.metadata.name.clone(), pod.metadata.uid.clone()) else { continue };
            self.push_action(SyncAction::DeletePod { name, uid });
        }
    }
}

/// When the next attempt is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptDue {
    Now,
    At(Timestamp),
    WithAnotherSecret,
    Never,
}

/// True when nothing more happens with a mailbox by itself: it is synced for good, has failed, or was cancelled.
#[must_use]
pub(crate) fn is_final(sync: &MailboxSync, now: Timestamp) -> bool {
    let Some(status) = &sync.status else { return false };
    if status.slots.is_some() || sync.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let facts = DueFacts::from_sync(sync, status, now);
    match status.phase {
        Some(SyncPhase::Cancelled) => sync.spec.cancel,
        Some(SyncPhase::Synced | SyncPhase::Failed) => attempt_due(&facts) == AttemptDue::Never,
        _ => false,
    }
}

/// What tells when an attempt is due.
#[derive(Clone, Copy)]
pub(super) struct DueFacts<'a> {
    pub uid: &'a str,
    pub generation: i64,
    pub spec: &'a MailboxSyncSpec,
    pub status: &'a MailboxSyncStatus,
    pub now: Timestamp,
}

impl<'a> DueFacts<'a> {
    /// Those of a MailboxSync with this status.
    pub(crate) fn from_sync(sync: &'a MailboxSync, status: &'a MailboxSyncStatus, now: Timestamp) -> Self {
        Self {
            uid: sync.metadata.uid.as_deref().unwrap_or_default(),
            generation: sync.metadata.generation.unwrap_or_default(),
            spec: &sync.spec,
            status,
            now,
        }
    }
}

/// True when a person asked for a sync, and none was started for it.
fn is_requested(spec: &MailboxSyncSpec, status: &MailboxSyncStatus) -> bool {
    spec.sync_request.is_some() && status.sync_request != spec.sync_request
}

fn attempt_due(o: &DueFacts<'_>) -> AttemptDue {
    let status = o.status;
    if let Some(start) = &o.spec.start_at
        && start.0 > o.now
        && status.attempt == 0
    {
        return AttemptDue::At(start.0);
    }
    if is_requested(o.spec, status) {
        return AttemptDue::Now;
    }
    let changed = status.observed_generation != Some(o.generation);
    let at = |time: Option<&Time>| match time {
        Some(time) if time.0 > o.now => AttemptDue::At(time.0),
        _ => AttemptDue::Now,
    };
    match status.phase {
        None | Some(SyncPhase::Pending | SyncPhase::Queued | SyncPhase::Running) => AttemptDue::Now,
        Some(SyncPhase::Suspended | SyncPhase::Cancelled) => due_when_resumed(o).unwrap_or(AttemptDue::Now),
        Some(SyncPhase::Synced) => delta_due(o),
        Some(SyncPhase::Backoff) => at(status.next_attempt_at.as_ref()),
        Some(SyncPhase::Stalled | SyncPhase::Failed) if changed => AttemptDue::Now,
        Some(SyncPhase::Failed) => AttemptDue::Never,
        Some(SyncPhase::Stalled) => match (&status.last_error, &status.next_attempt_at) {
            (_, Some(time)) => at(Some(time)),
            (Some(error), None) if error.class == ErrorClass::Authentication => AttemptDue::WithAnotherSecret,
            // A Secret was missing: it is looked at again.
            (Some(error), None) if error.class == ErrorClass::Configuration => AttemptDue::Now,
            _ => AttemptDue::Never,
        },
    }
}

/// A mailbox that was suspended, or cancelled by mistake, goes on where it was: one that was synced waits for its next
/// delta sync.
fn due_when_resumed(o: &DueFacts<'_>) -> Option<AttemptDue> {
    let between_syncs = o.status.attempt_used.is_none() && o.status.last_error.is_none() && o.status.syncs > 0;
    between_syncs.then(|| delta_due(o))
}

/// When the next delta sync of a mailbox is due that was synced.
fn delta_due(o: &DueFacts<'_>) -> AttemptDue {
    if o.status.last_synced_at.is_none() {
        return AttemptDue::Now;
    }
    match next_delta_at(o) {
        Some((next, _)) if next > o.now => AttemptDue::At(next),
        Some(_) => AttemptDue::Now,
        None => AttemptDue::Never,
    }
}

/// The time of the next delta sync, even when it has passed, and the wait between two of them.
pub(super) fn next_delta_at(o: &DueFacts<'_>) -> Option<(Timestamp, Duration)> {
    let settings = &o.spec.settings;
    let Time(synced) = o.status.last_synced_at.as_ref()?;
    let synced = *synced;
    if settings.dry_run {
        return None;
    }
    let after = |every: Duration, percent| synced + jittered(signed_duration(every), percent, o.uid, o.status.syncs);
    let scheduled = settings.schedule.as_ref().map(|s| (after(s.every, s.jitter_percent), s.every));
    let cutover = settings.cutover.as_ref().and_then(|cutover| Some((cutover, cutover.at.as_ref()?.0)));
    match cutover {
        Some((cutover, at)) if o.now >= at && synced >= at => {
            let quiet = o.status.inbox_quiet_since.as_ref().map_or(synced, |quiet| quiet.0).max(at);
            // Quiet as far as the last sync saw: not the time since.
            if synced.duration_since(quiet) >= signed_duration(cutover.drain_for) {
                return None;
            }
            let next = after(cutover.every, 10).min((quiet + signed_duration(cutover.drain_for)).max(synced));
            Some((next, cutover.every))
        }
        Some((cutover, at)) => {
            let (delta, every) = scheduled.unwrap_or((at, cutover.every));
            Some((delta.min(at).max(synced), every))
        }
        None => scheduled,
    }
}
