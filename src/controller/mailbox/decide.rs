//! What happens next with one mailbox: a pure function from what is observed to what is written and done.
//!
//! One write at a time: where the status has to change, it is written and the next decision starts from there; only a
//! status that says all there is to say leads to actions. So the operator may end between any two of them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    attempt_end::{settle_attempt, settle_missing_token, status_after_refusal},
    attempt_input::{attempt_input, is_refused_login},
    conditions,
    due::{AttemptDue, DueFacts, attempt_due, is_requested},
    observe::{FLUSH_SECONDS, HoldReason, ObservedMailbox, PodEnd, SecretsSeen, TokensSeen, signed_duration},
    slot_wait::WORDS_PERIOD,
    start_wait::{StartWait, start_wait, wait_left, was_gated},
};
use crate::{
    api::{
        Duration, LastError, MailboxSyncStatus,
        mailbox_sync::{Claim, StopReason, Stopping, SyncPhase},
        names,
    },
    controller::{cached_objects::SyncPod, events::EventNote},
    error::Error,
};

/// A status may be seen this much later than the pod that was made after it, seconds.
const STATUS_LAG_SECONDS: i64 = 60;
/// How often a mailbox that waits for a Secret, or may not start, is decided on again, seconds.
const SECRET_PERIOD_SECONDS: i64 = 60;
/// Without a byte moved in so many reports, and for `stallAfter`, a sync counts as stalled.
const STALLED_REPORTS: u32 = 2;

/// What is written and done next with a mailbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncDecision {
    /// The status to be written, where it differs from the one observed. `worker` is as it was, unless only the
    /// termination message of its pod has its last word.
    pub status: MailboxSyncStatus,
    /// What is done in the cluster, only where the status need not change.
    pub actions: Vec<SyncAction>,
    /// The Events to be published once the status is written.
    pub events: Vec<EventNote>,
    /// After this time at the latest another decision is made, though nothing changed; none: when something changes.
    pub wake_after: Option<SignedDuration>,
}

/// One thing that is done in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SyncAction {
    /// Look up the versions of the Secrets that the mailbox needs, then decide again.
    CheckSecrets,
    /// Ask for slots; the mailbox is decided on again when it has them.
    RequestSlots,
    /// Have the access tokens of its grants got, written and renewed; the mailbox is decided on again when they are there.
    KeepTokens,
    /// Create the current attempt's pod.
    CreatePod,
    /// Delete the pod with a grace period: SIGTERM, then time to save its checkpoint.
    StopPod { name: String, uid: String },
    /// Take the finalizer off a pod whose end is certain.
    ReleasePod { name: String, uid: String },
    /// Delete a pod that ended long ago.
    DeletePod { name: String, uid: String },
    /// Look up whether the pod's node is out of service, then decide again.
    CheckNode,
    /// Take the finalizer off the MailboxSync itself.
    ReleaseSync,
}

/// Decides what is written and done next with a mailbox: whether its attempt goes on, has to stop or has ended, whether
/// another one is due and may start, and which of its pods can go. Whatever the decision, it is made again after each write
/// and each change, from what is observed then.
#[must_use]
pub fn decide(observed: &ObservedMailbox<'_>) -> SyncDecision {
    let mut decider = SyncDecider {
        observed,
        decision: SyncDecision {
            status: observed.status.clone(),
            actions: Vec::new(),
            events: Vec::new(),
            wake_after: None,
        },
    };
    if observed.is_running() {
        decider.decide_running();
    } else if observed.is_suspended() && !observed.deleting && !observed.spec.cancel {
        if observed.status.phase.is_some() {
            // That it does not start, its migration says. So ten thousand of them cost no write.
            decider.clean_up_pods();
            return decider.decision;
        }
        decider.decision.status.phase = Some(SyncPhase::Suspended);
    } else {
        decider.decide_idle();
    }
    decider.clean_up_pods();
    decider.decision.status.observed_generation = Some(observed.generation);
    conditions::set_conditions(observed, &mut decider.decision.status);
    decider.decision
}

struct SyncDecider<'o, 'a> {
    observed: &'o ObservedMailbox<'a>,
    decision: SyncDecision,
}

impl SyncDecider<'_, '_> {
    fn push_action(&mut self, action: SyncAction) {
        self.decision.actions.push(action);
    }

    fn wake_in(&mut self, wait: SignedDuration) {
        let wait = wait.max(SignedDuration::from_secs(1));
        self.decision.wake_after = Some(self.decision.wake_after.map_or(wait, |wake| wake.min(wait)));
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake_in(at.duration_since(self.observed.now));
    }

    /// When the servers' time windows open or close next, another decision is made.
    fn wake_at_window(&mut self) {
        if let Some(at) = self.observed.sync_times.changes_at() {
            self.wake_at(at);
        }
    }

    /// Decides while an attempt is under way: settles it once its pod's end is certain, creates its pod, or stops it.
    fn decide_running(&mut self) {
        let observed = self.observed;
        if let Some(end) = observed.current_pod_end() {
            if let Some(left) = observed.last_report_wait() {
                return self.wake_in(left);
            }
            let settled = settle_attempt(observed, &end);
            self.decision.status = settled.status;
            self.decision.events = settled.events;
            return;
        }
        let gated = matches!(start_wait(observed), Some(StartWait::Gates(_)));
        if was_gated(observed.status) && !gated && observed.current_pod().is_some() {
            // It was let go: from here on it counts how long it takes.
            self.decision.status.attempt_started_at = Some(Time(observed.now));
            return;
        }
        let wanted = self.stop_reason();
        match observed.current_pod() {
            None if observed.status.pod_uid.is_some() => self.wake_in(observed.silence_limit()), // lost sight of: wait until it must have ended
            None if wanted.is_some() => {
                // It has no pod: there is nothing to stop. A create still under way meets the fence.
                let settled = settle_attempt(observed, &PodEnd::NeverRan);
                self.decision.status = settled.status;
                self.decision.events = settled.events;
            }
            // Nobody owns it, or whoever does goes: it starts nothing by itself.
            None if observed.hold == Some(HoldReason::MigrationInactive) => {
                self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
            }
            None => match &observed.tokens {
                TokensSeen::NotNeeded | TokensSeen::Ready => self.push_action(SyncAction::CreatePod),
                TokensSeen::Absent => self.keep_tokens(),
                // No attempt was made; what to do about it is decided once its slots are others'.
                TokensSeen::Failed(_) => self.decision.status = status_after_refusal(observed.status),
            },
            Some(pod) => {
                if observed.tokens == TokensSeen::Absent {
                    // Another process had them kept.
                    self.keep_tokens();
                }
                self.decide_with_pod(pod, wanted);
            }
        }
    }

    fn decide_with_pod(&mut self, pod: &SyncPod, wanted: Option<StopReason>) {
        let observed = self.observed;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if observed.status.pod_uid.as_deref() != Some(&uid) {
            self.decision.status.pod_uid = Some(uid.clone());
        }
        if let Some(reason) = wanted
            && observed.status.stopping.is_none()
        {
            self.decision.status.stopping = Some(Stopping { at: Time(observed.now), reason });
            self.decision.events.extend(match start_wait(observed) {
                Some(StartWait::Node(why)) if reason == StopReason::NotStarted => {
                    Some(EventNote::warning("PodNotStarted", format!("the attempt's pod got no node in time: {why}")))
                }
                _ => EventNote::for_stop(reason),
            });
            return;
        }
        match pod.deleting_since() {
            None if observed.status.stopping.is_some() => {
                self.push_action(SyncAction::StopPod { name: pod.metadata.name.clone().unwrap_or_default(), uid });
            }
            None => {}
            Some(since) => {
                // `since` is the deletion's time with its grace.
                let late = observed.now.duration_since(since);
                if late > SignedDuration::ZERO && !observed.node_out_of_service && pod.is_bound() {
                    self.push_action(SyncAction::CheckNode);
                }
                self.wake_in((-late).max(SignedDuration::from_secs(10)));
            }
        }
        self.wake_in(observed.silence_limit());
    }

    /// Why the attempt has to stop, if it has to; where it has not, this also sets when to decide again.
    fn stop_reason(&mut self) -> Option<StopReason> {
        let observed = self.observed;
        if let Some(stopping) = &observed.status.stopping {
            return Some(stopping.reason);
        }
        if observed.deleting {
            return Some(StopReason::Removed);
        }
        if observed.spec.cancel {
            return Some(StopReason::Cancelled);
        }
        if observed.is_suspended() {
            return Some(StopReason::Suspended);
        }
        if matches!(
            observed.hold,
            Some(
                HoldReason::MasterUserNotAllowed(_)
                    | HoldReason::DestinationNotAllowed(_)
                    | HoldReason::GrantNotAllowed(_)
            )
        ) {
            return Some(StopReason::NotAllowed);
        }
        if observed.sync_times.closed().is_some() {
            return Some(StopReason::WindowClosed);
        }
        self.wake_at_window();
        let wait = start_wait(observed);
        if matches!(wait, Some(StartWait::Gates(_))) {
            // Its time has not begun.
            return None;
        }
        let left = signed_duration(observed.spec.settings.deadline) - observed.deadline_used();
        if left <= SignedDuration::ZERO {
            return Some(StopReason::Deadline);
        }
        self.wake_in(left);
        if let Some(wait) = wait {
            let left = wait_left(observed, &wait)?;
            if left <= SignedDuration::ZERO {
                return Some(StopReason::NotStarted);
            }
            self.wake_in(left);
            return None;
        }
        if observed.is_silent() {
            return Some(StopReason::LostContact);
        }
        let left =
            signed_duration(observed.spec.settings.stall_after) - (observed.since_boot - observed.liveness.moved_at);
        let stalled = left <= SignedDuration::ZERO;
        if stalled && observed.liveness.reports_without_move >= STALLED_REPORTS {
            return Some(StopReason::NoProgress);
        }
        if !stalled {
            self.wake_in(left);
        }
        None
    }

    /// Decides while no attempt is under way: starts one that is due, or waits until it is.
    fn decide_idle(&mut self) {
        let observed = self.observed;
        if observed.deleting {
            // Pods are let go of below; a MailboxSync goes when none is held any more.
            if observed.pods.iter().all(|pod| !pod.has_finalizer()) {
                self.push_action(SyncAction::ReleaseSync);
            }
            return;
        }
        let status = &mut self.decision.status;
        if observed.spec.cancel {
            status.phase = Some(SyncPhase::Cancelled);
            status.next_attempt_at = None;
            return;
        }
        match attempt_due(&DueFacts::from_observed(observed)) {
            AttemptDue::Never => status.next_attempt_at = None,
            AttemptDue::At(at) => {
                status.next_attempt_at = Some(Time(at));
                if matches!(status.phase, None | Some(SyncPhase::Queued | SyncPhase::Suspended | SyncPhase::Cancelled))
                {
                    let synced = status.last_synced_at.is_some();
                    status.phase = Some(if synced { SyncPhase::Synced } else { SyncPhase::Pending });
                }
                self.wake_at(at);
            }
            AttemptDue::AfterSecretChange => {
                status.next_attempt_at = None;
                let same = |versions: &[String]| is_refused_login(observed.spec, observed.status, Some(versions));
                match &observed.secrets {
                    SecretsSeen::Unknown => self.push_action(SyncAction::CheckSecrets),
                    SecretsSeen::Present(versions) if !same(versions) => self.start_attempt(),
                    SecretsSeen::Present(_) | SecretsSeen::Missing(_) | SecretsSeen::NotMounted(_) => {
                        status.phase = Some(SyncPhase::Stalled);
                        self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
                    }
                    // Nobody sees a Secret change: a request, or another login, is waited for.
                    SecretsSeen::Unreadable => status.phase = Some(SyncPhase::Stalled),
                }
            }
            AttemptDue::Now => self.start_attempt(),
        }
    }

    /// Starts an attempt that is due, as soon as nothing holds the mailbox, its Secrets are there, and it has its slots.
    fn start_attempt(&mut self) {
        let observed = self.observed;
        let status = &mut self.decision.status;
        status.next_attempt_at = None;
        if let Some(HoldReason::DestinationNotAllowed(why) | HoldReason::GrantNotAllowed(why)) = &observed.hold {
            // Not given up: it goes on by itself once the operator's configuration allows it.
            status.phase = Some(SyncPhase::Stalled);
            status.last_error = Some(LastError::new(why, None));
            return;
        }
        if let Some(HoldReason::MasterUserNotAllowed(why)) = &observed.hold {
            let error = Error::configuration(why.clone())
                .advice("Ask whoever runs the operator, or give each mailbox its own credential");
            status.phase = Some(SyncPhase::Failed);
            status.last_error = Some(LastError::new(&error, None));
            status.login_refused = false;
            return;
        }
        if let Some(closed) = observed.sync_times.closed() {
            // Not in the queue: those that may run are not held up by it.
            status.phase = Some(SyncPhase::Queued);
            status.next_attempt_at = closed.opens_at.map(Time);
            return self.wake_at_window();
        }
        let waits = observed.hold.is_none() && observed.granted_slots.is_none();
        if waits && status.phase == Some(SyncPhase::Queued) && observed.waits_for.is_some() {
            // Its Secrets were looked at before, and are again once it has its slots.
            self.request_slots();
            return;
        }
        let versions = match &observed.secrets {
            SecretsSeen::Unknown => return self.push_action(SyncAction::CheckSecrets),
            SecretsSeen::Missing(what) => {
                status.phase = Some(SyncPhase::Stalled);
                let error = Error::configuration(what.clone())
                    .advice("Create the Secret in the migration's namespace; the sync starts by itself");
                status.last_error = Some(LastError::new(&error, None));
                return self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
            }
            SecretsSeen::NotMounted(what) => {
                status.phase = Some(SyncPhase::Stalled);
                let error =
                    Error::configuration(what.clone()).advice("Name it by grantSecretRef, or name another Secret");
                status.last_error = Some(LastError::new(&error, None));
                return self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
            }
            SecretsSeen::Present(versions) => versions.as_slice(),
            // What is missing, the worker says.
            SecretsSeen::Unreadable => &[],
        };
        match (&observed.hold, observed.granted_slots) {
            (Some(_), _) => {
                status.phase = Some(SyncPhase::Queued);
                self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
            }
            (None, None) => {
                status.phase = Some(SyncPhase::Queued);
                self.request_slots();
            }
            (None, Some(slots)) => match &observed.tokens {
                TokensSeen::NotNeeded | TokensSeen::Ready => self.record_start(slots, versions),
                TokensSeen::Absent => {
                    status.phase = Some(SyncPhase::Queued);
                    self.keep_tokens();
                }
                TokensSeen::Failed(error) => {
                    let settled = settle_missing_token(observed, error, versions);
                    self.decision.status = settled.status;
                    self.decision.events = settled.events;
                }
            },
        }
    }

    fn keep_tokens(&mut self) {
        self.push_action(SyncAction::KeepTokens);
        self.wake_in(SignedDuration::from_secs(SECRET_PERIOD_SECONDS));
    }

    fn request_slots(&mut self) {
        self.push_action(SyncAction::RequestSlots);
        // What it waits for may be another then.
        self.wake_in(signed_duration(Duration::from_secs(WORDS_PERIOD.as_secs())));
        self.wake_at_window();
    }

    /// Writes the next attempt into the status, unless a pod of a later attempt still runs: `clean_up_pods` stops that
    /// one first.
    fn record_start(&mut self, slots: i32, secret_versions: &[String]) {
        let observed = self.observed;
        let status = &mut self.decision.status;
        if observed.pods.iter().any(|pod| observed.is_ahead(pod) && observed.pod_end(pod, false).is_none()) {
            return;
        }
        // An attempt whose pod was refused never was one: its number is used again.
        let refused = status.attempt > 0 && status.attempt_started_at.is_none();
        if !refused {
            // A number whose pod is there already is not used again.
            let taken = observed.pods.iter().filter_map(|pod| pod.attempt()).fold(status.attempt, i64::max);
            status.attempt = taken + 1;
        }
        status.phase = Some(SyncPhase::Running);
        status.slots = Some(slots);
        status.pod_name = Some(names::pod(observed.name, status.attempt));
        status.pod_uid = None;
        status.attempt_started_at = Some(Time(observed.now));
        status.stopping = None;
        // An attempt that follows one which did not end it still acts on the same request.
        status.retry_refused |= is_requested(observed.spec, observed.status);
        status.sync_request.clone_from(&observed.spec.sync_request);
        status.secret_versions = secret_versions.to_vec();
        status.attempt_input = Some(attempt_input(observed.spec));
        status.login_refused = false;
        let destination = names::account_hash(&observed.spec.destination);
        if status.claim.as_ref().is_none_or(|claim| claim.destination != destination) {
            status.claim = Some(Claim { destination, proven_at: None });
        }
    }

    /// Lets go of pods whose end is certain and settled, and deletes those that stayed long enough.
    fn clean_up_pods(&mut self) {
        let observed = self.observed;
        let current = observed.is_running().then(|| names::pod(observed.name, observed.status.attempt));
        let ttl = signed_duration(observed.spec.settings.finished_pods_ttl);
        let (mut failed, mut succeeded, mut overdue) = (Vec::new(), Vec::new(), Vec::new());
        for pod in observed.pods.iter().map(|pod| &**pod) {
            let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { continue };
            if current.as_ref() == Some(name) {
                continue;
            }
            let made = pod.metadata.creation_timestamp.as_ref().map_or(observed.now, |Time(made)| *made);
            let behind = made + SignedDuration::from_secs(STATUS_LAG_SECONDS);
            if observed.is_ahead(pod) && !observed.deleting && observed.now < behind {
                self.wake_at(behind);
                continue;
            }
            let Some(end) = observed.pod_end(pod, observed.is_silent()) else {
                // Not ours to wait for, but still there: an attempt that never was ours, or a stale operator's.
                if pod.deleting_since().is_none() {
                    self.push_action(SyncAction::StopPod { name: name.clone(), uid: uid.clone() });
                }
                self.wake_in(SignedDuration::from_secs(FLUSH_SECONDS));
                continue;
            };
            if pod.has_finalizer() {
                self.push_action(SyncAction::ReleasePod { name: name.clone(), uid: uid.clone() });
            } else if pod.deleting_since().is_none() && pod.others_run() {
                // Nothing else ends what was injected beside the sync: the pod would run for ever.
                self.push_action(SyncAction::StopPod { name: name.clone(), uid: uid.clone() });
            } else if pod.deleting_since().is_none() {
                let ended = match &end {
                    PodEnd::Exited(exit) => exit.at.unwrap_or(made),
                    PodEnd::NeverRan | PodEnd::Lost => observed.now - ttl,
                };
                let left = ttl - observed.now.duration_since(ended);
                if left <= SignedDuration::ZERO || observed.deleting || observed.surplus_pods.contains(uid) {
                    overdue.push(pod);
                } else {
                    let well = matches!(&end, PodEnd::Exited(exit) if exit.code == 0);
                    if well { &mut succeeded } else { &mut failed }.push((pod, left));
                }
            }
        }
        let settings = &observed.spec.settings;
        for (mut pods, limit) in [(failed, settings.failed_pods_limit), (succeeded, settings.succeeded_pods_limit)] {
            pods.sort_by_key(|(pod, _)| std::cmp::Reverse(pod.attempt()));
            let kept = usize::try_from(limit).unwrap_or(0);
            pods.iter().take(kept).for_each(|(_, left)| self.wake_in(*left));
            overdue.extend(pods.into_iter().skip(kept).map(|(pod, _)| pod));
        }
        for pod in overdue {
            let (Some(name), Some(uid)) = (pod.metadata.name.clone(), pod.metadata.uid.clone()) else { continue };
            self.push_action(SyncAction::DeletePod { name, uid });
        }
    }
}
