//! What the pod of an attempt waits for before it runs, and for how long it may. Pure.

use jiff::{SignedDuration, Timestamp};

use super::observe::ObservedMailbox;
use crate::{api::MailboxSyncStatus, controller::cached_objects::SyncPod};

/// A pod that does not run within this time gives its slots back, seconds: from its start on, or from when it got a node.
const START_SECONDS: i64 = 600;
/// The reason of the condition Ready while a pod is held by its scheduling gates.
pub(super) const GATED: &str = "SchedulingGated";

/// What an attempt's pod waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StartWait {
    /// Somebody else, such as Kueue, says when it may be scheduled: the names of its scheduling gates, by comma. It is
    /// waited for without an end, since whoever holds it knows of it.
    Gates(String),
    /// A node that has room for it: what the scheduler says.
    Node(String),
    /// The scheduler's look, or its node: its image, its Secrets.
    Start,
}

/// What the current attempt's pod waits for; none: it runs, or did.
#[must_use]
pub(super) fn start_wait(observed: &ObservedMailbox<'_>) -> Option<StartWait> {
    if observed.has_run() {
        return None;
    }
    let pod = observed.current_pod();
    let gates: Vec<_> = pod.into_iter().flat_map(SyncPod::scheduling_gates).collect();
    if !gates.is_empty() {
        return Some(StartWait::Gates(gates.join(", ")));
    }
    let unschedulable = pod.and_then(SyncPod::unschedulable);
    Some(unschedulable.map_or(StartWait::Start, |why| StartWait::Node(why.to_owned())))
}

/// For how much longer it is waited for; none: without an end.
#[must_use]
pub(super) fn wait_left(observed: &ObservedMailbox<'_>, wait: &StartWait) -> Option<SignedDuration> {
    let started = observed.status.attempt_started_at.as_ref().map_or(observed.now, |at| at.0);
    let (since, limit) = match wait {
        StartWait::Gates(_) => return None,
        StartWait::Node(_) => (started, observed.scheduling_timeout),
        StartWait::Start => {
            let scheduled: Option<Timestamp> = observed.current_pod().and_then(SyncPod::scheduled_at);
            // The cluster's clock may be ahead of ours.
            let since = scheduled.map_or(started, |at| at.min(observed.now).max(started));
            (since, SignedDuration::from_secs(START_SECONDS))
        }
    };
    Some(limit - observed.now.duration_since(since))
}

/// True when the status tells of a pod that is held by its gates.
#[must_use]
pub(super) fn was_gated(status: &MailboxSyncStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == GATED)
}
