//! What a decision about one mailbox is made from.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{Duration, MailboxSyncSpec, MailboxSyncStatus, names},
    clock,
    controller::cached_objects::{ContainerExit, SyncContainerState, SyncPod},
    error::Error,
    sync_times::SyncTimes,
};

/// From a stop's SIGTERM to SIGKILL, seconds: the worker saves its checkpoint within it.
pub(crate) const FLUSH_SECONDS: i64 = 60;
/// Added to `offlineGrace` and the flush before a pod that can't be seen counts as ended, seconds.
const MARGIN_SECONDS: i64 = 30;

/// How long the last report is waited for that an ended worker tells of, seconds: it was sent before, but the watches of
/// pods and of mailboxes do not go at one pace.
const LAST_REPORT_SECONDS: i64 = 5;

/// One mailbox at one moment.
#[derive(Debug, Clone)]
pub struct ObservedMailbox<'a> {
    /// The MailboxSync's name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// The version of its spec.
    pub generation: i64,
    /// True when it is being deleted.
    pub deleting: bool,
    /// Its spec.
    pub spec: &'a MailboxSyncSpec,
    /// Its status, as this process wrote or saw it last.
    pub status: &'a MailboxSyncStatus,
    /// Its pods: all those that it controls.
    pub pods: &'a [Arc<SyncPod>],
    /// The UIDs of those of them that have to go, since there are too many finished pods in all.
    pub surplus_pods: &'a [String],
    /// When the current attempt's worker reported, and moved something, as this process saw it.
    pub liveness: WorkerLiveness,
    /// The slots that it was granted and holds; none while it waits for them.
    pub granted_slots: Option<i32>,
    /// What it waits for in the queue, as a clause; none: it holds slots, or waits for nothing.
    pub waits_for: Option<String>,
    /// Why it may not start now, whatever it wants.
    pub hold: Option<HoldReason>,
    /// Whether the time windows of its servers let it run now.
    pub sync_times: SyncTimes,
    /// The Secrets that it needs.
    pub secrets: SecretsSeen,
    /// The access tokens that its grants give.
    pub tokens: TokensSeen,
    /// True when the pod's node carries the taint that says it is out of service.
    pub node_out_of_service: bool,
    /// How long a pod may wait for a node.
    pub scheduling_timeout: SignedDuration,
    /// The operator's wall clock.
    pub now: Timestamp,
    /// The time since its machine was started, by which silence is counted.
    pub since_boot: SignedDuration,
}

/// Both clocks of the operator at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock, which others' times are compared with.
    pub wall: Timestamp,
    /// The time since the machine was started, by which it is counted how long something takes.
    pub since_boot: SignedDuration,
}

impl ClockReading {
    /// This moment.
    #[must_use]
    pub(crate) fn now() -> Self {
        let since_boot = SignedDuration::try_from(clock::since_boot()).unwrap_or(SignedDuration::MAX);
        Self { wall: Timestamp::now(), since_boot }
    }
}

/// When an attempt's worker reported, and moved something, as time since this machine was started: nobody sets that clock,
/// as the wall clock may be set. Rebuilt, later and so safer, when the process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerLiveness {
    /// The attempt's number.
    pub attempt: i64,
    /// The number of the worker's newest report; -1: none was seen.
    pub report: i64,
    /// When that report was first seen.
    pub reported_at: SignedDuration,
    /// The bytes that the worker had moved by then; -1: no report was seen.
    pub bytes_moved: i64,
    /// When a report first said so many, or said that the sync waits on purpose.
    pub moved_at: SignedDuration,
    /// Reports since then.
    pub reports_without_move: u32,
    /// When it was first seen that its container had ended.
    pub ended_at: Option<SignedDuration>,
    /// How far its pod had come when it was looked at last.
    pub stage: PodStage,
}

/// How far a pod has come, as far as the cluster tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodStage {
    /// It was not seen.
    Unseen,
    /// It is on no node, and so can't run.
    Unbound,
    /// It has a node, or is gone: it may run.
    Bound,
    /// Its node says that the sync runs, or did.
    Started,
}

impl PodStage {
    /// What the look at a pod tells after this one.
    #[must_use]
    fn after(self, pod: Option<&SyncPod>) -> Self {
        match pod {
            None if self == Self::Unbound => Self::Bound,
            None => self,
            Some(pod) => match pod.container_state() {
                SyncContainerState::Running | SyncContainerState::Terminated(_) => Self::Started,
                _ if !pod.is_bound() => Self::Unbound,
                _ => self.max(Self::Bound),
            },
        }
    }
}

impl WorkerLiveness {
    /// What is known when an attempt is seen for the first time.
    #[must_use]
    pub const fn first_seen(attempt: i64, since_boot: SignedDuration) -> Self {
        Self {
            attempt,
            report: -1,
            reported_at: since_boot,
            bytes_moved: -1,
            moved_at: since_boot,
            reports_without_move: 0,
            ended_at: None,
            stage: PodStage::Unseen,
        }
    }

    /// What is known once a status and the attempt's pod were seen. A report counts as moving something where its bytes are
    /// others than before, or it waits on purpose. A pod that is on no node is not silent, and where it got one, or started,
    /// since the look before, its silence begins: it does not give up before it had the time to say its first word.
    #[must_use]
    pub(crate) fn updated_with(self, status: &MailboxSyncStatus, pod: Option<&SyncPod>, now: ClockReading) -> Self {
        let ClockReading { wall, since_boot } = now;
        let mut known =
            if self.attempt == status.attempt { self } else { Self::first_seen(status.attempt, since_boot) };
        let stage = known.stage.after(pod);
        if stage == PodStage::Unbound || stage > known.stage {
            known.reported_at = since_boot;
        }
        known.stage = stage;
        let Some(worker) = status.worker.as_ref().filter(|worker| worker.attempt == status.attempt) else {
            return known;
        };
        if worker.report > known.report {
            known.report = worker.report;
            known.reported_at = since_boot;
            let bytes = worker.progress.as_ref().map_or(0, |progress| progress.bytes_moved);
            let waits = worker.waiting_until.as_ref().is_some_and(|until| until.0 > wall);
            if bytes == known.bytes_moved && !waits {
                known.reports_without_move += 1;
            } else {
                known.bytes_moved = bytes;
                known.moved_at = since_boot;
                known.reports_without_move = 0;
            }
        }
        known
    }
}

/// What is known of a mailbox's attempt, once its status and its pods were seen again, from what was `known` before; none
/// while no attempt is under way.
#[must_use]
pub(crate) fn liveness_of_attempt(
    known: Option<WorkerLiveness>,
    status: &MailboxSyncStatus,
    pods: &[Arc<SyncPod>],
    now: ClockReading,
) -> Option<WorkerLiveness> {
    status.slots?;
    let pod = pods.iter().find(|pod| pod.attempt() == Some(status.attempt)).map(|pod| &**pod);
    let before = known.unwrap_or_else(|| WorkerLiveness::first_seen(status.attempt, now.since_boot));
    let mut liveness = before.updated_with(status, pod, now);
    if pod.is_some_and(SyncPod::has_terminated) {
        liveness.ended_at.get_or_insert(now.since_boot);
    }
    Some(liveness)
}

/// Why a mailbox may not start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldReason {
    /// Its migration is suspended.
    MigrationSuspended,
    /// Its migration is gone, or going.
    MigrationInactive,
    /// Another migration has its destination account. Whose is nobody else's business.
    DestinationTaken,
    /// The operator's configuration forbids its master user: why.
    MasterUserNotAllowed(String),
    /// The operator's configuration does not allow its destination.
    DestinationNotAllowed(Error),
    /// The operator's configuration does not let it have the tokens of its grants, or it names such tokens as something else.
    GrantNotAllowed(Error),
}

/// What is known of the Secret with the access tokens that a mailbox's pod mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokensSeen {
    /// It logs in by no grant.
    NotNeeded,
    /// It is not there yet, as far as this process knows.
    Absent,
    /// It is there, with tokens that are good for a while.
    Ready,
    /// It can't be made now: why.
    Failed(Error),
}

/// What is known of the Secrets that a mailbox needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretsSeen {
    /// They were not looked at.
    Unknown,
    /// All are there: `name=resourceVersion`, sorted.
    Present(Vec<String>),
    /// One is not there, or lacks a key: a clause that says which.
    Missing(String),
    /// One is of a type that no pod may mount as something else: a clause that says which.
    NotMounted(String),
    /// The operator has no right to look: pods find out.
    Unreadable,
}

/// How a pod's end came about; only made when the end is certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodEnd {
    /// Its container ended.
    Exited(ContainerExit),
    /// It never ran anywhere.
    NeverRan,
    /// It was lost sight of, for longer than it would go on by itself.
    Lost,
}

impl<'a> ObservedMailbox<'a> {
    /// The current attempt's pod.
    #[must_use]
    pub(crate) fn current_pod(&self) -> Option<&'a SyncPod> {
        let name = names::pod(self.name, self.status.attempt);
        self.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name.as_str())).map(|pod| &**pod)
    }

    /// True once the current attempt's worker runs, or did.
    #[must_use]
    pub(crate) fn has_run(&self) -> bool {
        let claimed = self.status.worker.as_ref().is_some_and(|worker| worker.attempt == self.status.attempt);
        claimed || self.current_pod().is_some_and(|pod| pod.container_state() == SyncContainerState::Running)
    }

    /// True for the pod of an attempt that this status does not tell of yet. An attempt is written before its pod is made,
    /// so the status seen here is older than the pod: watches of two kinds do not go at one pace.
    #[must_use]
    pub(crate) fn is_ahead(&self, pod: &SyncPod) -> bool {
        pod.attempt() > Some(self.status.attempt)
    }

    /// True while a person wants nothing to run.
    #[must_use]
    pub(crate) fn is_suspended(&self) -> bool {
        self.spec.suspend || self.hold == Some(HoldReason::MigrationSuspended)
    }

    /// True while an attempt is under way: from before its pod is made until its end is settled.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        self.status.slots.is_some()
    }

    /// The certain end of the current attempt's pod, if it has come. A pod that was deleted by force, or whose node is
    /// lost, may still run and reach both mail servers.
    #[must_use]
    pub(crate) fn current_pod_end(&self) -> Option<PodEnd> {
        let silent = self.is_silent();
        let Some(pod) = self.current_pod() else {
            let made = self.status.pod_uid.is_some();
            return (made && silent).then_some(PodEnd::Lost);
        };
        self.pod_end(pod, silent)
    }

    /// The same for any of its pods; `silent`: it said nothing for longer than it would go on by itself.
    #[must_use]
    pub(crate) fn pod_end(&self, pod: &SyncPod, silent: bool) -> Option<PodEnd> {
        pod_end(pod, self.node_out_of_service, silent)
    }

    /// True when the worker of an attempt that is not settled ended, and its last word tells of a report that the status does
    /// not show. A status that is written now would be refused, since it is not the newest.
    #[must_use]
    pub(crate) fn lacks_last_report(&self) -> bool {
        let word = self.current_pod().filter(|_| self.is_running()).and_then(SyncPod::final_report);
        // Without an outcome, it ended because it could not report.
        let Some(word) = word.filter(|word| word.attempt == self.status.attempt && word.outcome.is_some()) else {
            return false;
        };
        let reported = self.status.worker.as_ref().filter(|worker| worker.attempt == word.attempt);
        reported.map_or(0, |worker| worker.report) < word.report
    }

    /// For how much longer such a report is waited for.
    #[must_use]
    pub(crate) fn last_report_wait(&self) -> Option<SignedDuration> {
        let ended_at = self.liveness.ended_at.filter(|_| self.lacks_last_report())?;
        let left = SignedDuration::from_secs(LAST_REPORT_SECONDS) - (self.since_boot - ended_at);
        (left > SignedDuration::ZERO).then_some(left)
    }

    /// True when the attempt said nothing for longer than it would go on by itself.
    #[must_use]
    pub(crate) fn is_silent(&self) -> bool {
        self.since_boot - self.liveness.reported_at > self.silence_limit()
    }

    /// For how long a worker without the API server goes on, with its flush and a margin.
    #[must_use]
    pub(crate) fn silence_limit(&self) -> SignedDuration {
        silence_limit(self.spec)
    }

    /// How much of its deadline the attempt has used.
    #[must_use]
    pub(crate) fn deadline_used(&self) -> SignedDuration {
        let before = self.status.attempt_used.map_or(SignedDuration::ZERO, signed_duration);
        let started = self.status.attempt_started_at.as_ref();
        before + started.map_or(SignedDuration::ZERO, |started| self.now.duration_since(started.0))
    }
}

/// The certain end of a pod, if it has come. `node_out_of_service`: somebody who knows said that nothing runs on its node any
/// more; `silent`: it said nothing for longer than it would go on by itself.
#[must_use]
pub(crate) fn pod_end(pod: &SyncPod, node_out_of_service: bool, silent: bool) -> Option<PodEnd> {
    let deleting = pod.deleting_since().is_some();
    let failed = pod.status.phase.as_deref() == Some("Failed");
    match pod.container_state() {
        SyncContainerState::Terminated(exit) => Some(PodEnd::Exited(exit)),
        _ if !pod.is_bound() && (deleting || failed) => Some(PodEnd::NeverRan),
        _ if (deleting || failed) && (node_out_of_service || silent) => Some(PodEnd::Lost),
        _ => None,
    }
}

/// For how long a worker that reaches the API server no more may go on, with its flush and a margin.
#[must_use]
pub(crate) fn silence_limit(spec: &MailboxSyncSpec) -> SignedDuration {
    signed_duration(spec.settings.offline_grace) + SignedDuration::from_secs(FLUSH_SECONDS + MARGIN_SECONDS)
}

/// A duration of the API as one that times can be moved by.
#[must_use]
pub(crate) fn signed_duration(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration.as_std()).unwrap_or(SignedDuration::MAX)
}
