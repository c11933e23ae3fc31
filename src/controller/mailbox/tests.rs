//! Decisions, one case at a time.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateRunning, ContainerStateTerminated},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::runtime::events::EventType;

use super::{
    attempt_end::status_after_rejection,
    backoff::jittered,
    decide::{SyncAction, SyncDecision, decide},
    observe::{ClockReading, HoldReason, ObservedMailbox, SecretsSeen, TokensSeen, WorkerLiveness, signed_duration},
};
use crate::{
    api::{
        Duration, LastError, MailboxSyncSpec, MailboxSyncStatus, WorkerStatus,
        mailbox_sync::{Failures, Inheritance, Outcome, StopReason, Stopping, SyncPhase, WorkerProgress},
        names,
        not_copied::NotCopied,
        settings::Schedule,
    },
    controller::{
        cached_objects::{ContainerFacts, POD_FINALIZER, SYNC_LABEL, SyncPod},
        events::EventNote,
        testing,
    },
    error::{Error, ErrorClass},
    sync_times::{ClosedTimes, SyncTimes},
};

mod edited;
mod holds;
mod next_attempt;
mod pods;
mod refused_login;
mod start_wait;
mod time_windows;
mod tokens;

const NAME: &str = "m";
const UID: &str = "uid";

/// A mailbox that holds its Secrets and has its turn.
struct MailboxFixture {
    spec: MailboxSyncSpec,
    status: MailboxSyncStatus,
    pods: Vec<Arc<SyncPod>>,
    surplus_pods: Vec<String>,
    hold: Option<HoldReason>,
    sync_times: SyncTimes,
    granted_slots: Option<i32>,
    waits_for: Option<String>,
    generation: i64,
    secrets: SecretsSeen,
    tokens: TokensSeen,
    /// When its worker's end was first seen.
    ended_at: Option<SignedDuration>,
    now: Timestamp,
}

impl MailboxFixture {
    fn new() -> Self {
        let spec = testing::mailbox_spec("x", "y");
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            spec,
            status: MailboxSyncStatus::default(),
            pods: Vec::new(),
            surplus_pods: Vec::new(),
            hold: None,
            sync_times: SyncTimes::ALWAYS,
            granted_slots: Some(2),
            waits_for: None,
            generation: 1,
            secrets: SecretsSeen::Present(vec!["mail=1".into()]),
            tokens: TokensSeen::NotNeeded,
            ended_at: None,
            now,
        }
    }

    /// Its first attempt began now, and its pod was made.
    fn running() -> Self {
        let mut case = Self::new();
        case.status = case.decide().status;
        assert_eq!((case.status.phase, case.status.slots), (Some(SyncPhase::Running), Some(2)));
        case.pods = vec![pod(1, None)];
        case.status = case.decide().status;
        assert_eq!(case.status.pod_uid.as_deref(), Some("pod-1"));
        case
    }

    /// Its first attempt ended well.
    fn synced() -> Self {
        let mut case = Self::new();
        case.status = MailboxSyncStatus {
            phase: Some(SyncPhase::Synced),
            attempt: 1,
            syncs: 1,
            attempt_started_at: Some(Time(case.now)),
            last_synced_at: Some(Time(case.now)),
            observed_generation: Some(1),
            ..MailboxSyncStatus::default()
        };
        case
    }

    /// Its clocks go together.
    fn since_boot(&self) -> SignedDuration {
        self.now.duration_since(Timestamp::UNIX_EPOCH)
    }

    fn clocks(&self) -> ClockReading {
        ClockReading { wall: self.now, since_boot: self.since_boot() }
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn decide(&self) -> SyncDecision {
        decide(&self.observed())
    }

    fn observed(&self) -> ObservedMailbox<'_> {
        ObservedMailbox {
            name: NAME,
            uid: UID,
            generation: self.generation,
            deleting: false,
            spec: &self.spec,
            status: &self.status,
            pods: &self.pods,
            surplus_pods: &self.surplus_pods,
            liveness: WorkerLiveness {
                ended_at: self.ended_at,
                ..WorkerLiveness::first_seen(self.status.attempt, self.since_boot())
            },
            granted_slots: self.granted_slots,
            waits_for: self.waits_for.clone(),
            hold: self.hold.clone(),
            sync_times: self.sync_times.clone(),
            secrets: self.secrets.clone(),
            tokens: self.tokens.clone(),
            node_out_of_service: false,
            scheduling_timeout: SignedDuration::from_secs(1800),
            now: self.now,
            since_boot: self.since_boot(),
        }
    }
}

/// An attempt's pod on a node, in this state.
fn pod(attempt: i64, state: Option<ContainerState>) -> Arc<SyncPod> {
    let mut pod = SyncPod::default();
    pod.metadata.name = Some(names::pod(NAME, attempt));
    pod.metadata.uid = Some(format!("pod-{attempt}"));
    pod.metadata.labels = Some([(SYNC_LABEL.to_owned(), NAME.to_owned())].into());
    pod.metadata.finalizers = Some(vec![POD_FINALIZER.to_owned()]);
    pod.status.container_statuses = state.into_iter().map(|state| ContainerFacts::of_sync(Some(state))).collect();
    Arc::new(pod)
}

fn is_running() -> ContainerState {
    ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() }
}

/// An old attempt's pod, let go of, whose container ended at this time.
fn ended(attempt: i64, exit_code: i32, at: Timestamp) -> Arc<SyncPod> {
    let state = ContainerStateTerminated { exit_code, finished_at: Some(Time(at)), ..Default::default() };
    let mut pod = pod(attempt, Some(ContainerState { terminated: Some(state), ..ContainerState::default() }));
    Arc::make_mut(&mut pod).metadata.finalizers = None;
    pod
}

fn deleted(decision: &SyncDecision) -> BTreeSet<&str> {
    let names = decision.actions.iter().filter_map(|action| match action {
        SyncAction::DeletePod { name, .. } => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

/// A worker's report, with the outcome of its attempt or before it is known.
fn report(report: i64, outcome: Option<Outcome>) -> WorkerStatus {
    WorkerStatus { attempt: 1, report, outcome, ..WorkerStatus::default() }
}

/// The pod of an attempt whose worker ended with these last words.
fn ended_with(word: &WorkerStatus) -> Arc<SyncPod> {
    let message = Some(serde_json::to_string(word).unwrap());
    let state = ContainerStateTerminated { message, ..ContainerStateTerminated::default() };
    pod(1, Some(ContainerState { terminated: Some(state), ..ContainerState::default() }))
}

/// The attempt under way ends as its worker says.
fn ends(case: &mut MailboxFixture, outcome: Outcome, error: Option<LastError>, messages: i64) -> MailboxSyncStatus {
    let attempt = case.status.attempt;
    let progress = WorkerProgress { messages_this_attempt: messages, bytes_moved: 9000, ..WorkerProgress::default() };
    case.status.worker = Some(WorkerStatus {
        attempt,
        outcome: Some(outcome),
        last_error: error,
        progress: Some(progress),
        ..WorkerStatus::default()
    });
    case.pods = vec![ended(attempt, 0, case.now)];
    case.status = case.decide().status;
    case.status.clone()
}

#[test]
fn a_mailbox_is_synced_though_messages_are_not_copied_and_says_so() {
    let mut case = MailboxFixture::running();
    case.status.worker = Some(WorkerStatus::default());
    let condition = |status: &MailboxSyncStatus, type_: &str| {
        let condition = status.conditions.iter().find(|c| c.type_ == type_).unwrap().clone();
        (condition.status, condition.reason, condition.message)
    };
    assert_eq!(condition(&case.status, "AllCopied").0, "Unknown");
    let not_copied = NotCopied { messages: 2, reasons: [("refused".to_owned(), 2)].into(), ..NotCopied::default() };
    let worker = WorkerStatus {
        attempt: 1,
        outcome: Some(Outcome::Synced),
        not_copied: Some(not_copied),
        ..WorkerStatus::default()
    };
    case.status.worker = Some(worker);
    case.pods = vec![ended(1, 0, case.now)];
    let synced = case.decide().status;
    assert_eq!((synced.phase, synced.syncs, synced.last_error.clone()), (Some(SyncPhase::Synced), 1, None));
    let (status, reason, message) = condition(&synced, "AllCopied");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NotCopied"));
    assert!(message.starts_with("2 messages are not copied: 2 refused; "), "{message}");
    let (ready, reason, told) = condition(&synced, "Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("True", "Synced"));
    assert!(told.contains("not copied"), "{told}");
    // It stands while the next attempt begins.
    case.status = synced;
    case.spec.sync_request = Some("again".into());
    case.status = case.decide().status;
    assert_eq!(case.status.phase, Some(SyncPhase::Running));
    assert_eq!(condition(&case.status, "AllCopied").0, "False");
}

/// Events of a mailbox, but for the one of a pod's name that is taken, which needs an API server.
#[test]
fn people_are_told_of_a_mailbox_in_the_same_words_as_ever() {
    let mut told = String::new();
    let mut tell = |when: &str, events: Vec<EventNote>| {
        for note in events {
            let type_ = if note.severity == EventType::Warning { "Warning" } else { "Normal" };
            writeln!(told, "{when}: {type_} {}: {}", note.reason, note.message).unwrap();
        }
    };
    for reason in [
        StopReason::Deadline,
        StopReason::NoProgress,
        StopReason::Suspended,
        StopReason::Cancelled,
        StopReason::Removed,
        StopReason::NotStarted,
        StopReason::LostContact,
        StopReason::NotAllowed,
        StopReason::WindowClosed,
    ] {
        tell(&format!("{reason:?}"), EventNote::for_stop(reason).into_iter().collect());
    }
    for class in ErrorClass::ALL {
        let mut case = MailboxFixture::running();
        let error = LastError::new(&Error::new(class, "it did not work"), None);
        let worker = WorkerStatus { attempt: 1, outcome: Some(Outcome::Failed), ..WorkerStatus::default() };
        case.status.worker = Some(WorkerStatus { last_error: Some(error), ..worker });
        case.pods = vec![ended(1, class.exit_code().into(), case.now)];
        tell(&format!("failed by {class}"), case.decide().events);
    }
    let exit = |exit_code: i32, reason: &str, message: &str| {
        let (reason, message) = (Some(reason.to_owned()), Some(message.to_owned()));
        let end = ContainerStateTerminated { exit_code, reason, message, ..ContainerStateTerminated::default() };
        pod(1, Some(ContainerState { terminated: Some(end), ..ContainerState::default() }))
    };
    for (when, exit_code, reason, message) in [
        ("out of memory", 137, "OOMKilled", ""),
        ("killed", 137, "Error", ""),
        ("fenced", 75, "Error", ""),
        ("not started", 128, "StartError", "no such program"),
        ("crashed", 101, "Error", ""),
    ] {
        let mut case = MailboxFixture::running();
        case.pods = vec![exit(exit_code, reason, message)];
        tell(when, case.decide().events);
    }
    let mut case = MailboxFixture::new();
    case.status = case.decide().status;
    case.pass(600);
    tell("no pod in time", case.decide().events);

    let mut case = MailboxFixture::running();
    case.status.failures = Some(Failures { fruitless_restarts: 2, ..Failures::default() });
    case.status.stopping = Some(Stopping { at: Time(case.now), reason: StopReason::NoProgress });
    case.status.worker = Some(WorkerStatus { attempt: 1, outcome: Some(Outcome::Stopped), ..WorkerStatus::default() });
    case.pods = vec![ended(1, 0, case.now)];
    tell("restarted in vain", case.decide().events);
    tell("no such pod can be", vec![status_after_rejection(&case.status, "spec.tolerations is wrong").1]);
    insta::assert_snapshot!(told, @r#"
    Deadline: Warning DeadlineExceeded: the attempt reached its deadline: it saves its checkpoint, and a new one goes on from there
    NoProgress: Warning NoProgress: the attempt reports, but moves no byte and waits for nothing: a new one takes over
    NotStarted: Warning PodNotStarted: the attempt's pod did not run within 10 minutes
    LostContact: Warning LostContact: the attempt's pod reported nothing for longer than offlineGrace
    NotAllowed: Warning NotAllowed: the operator's configuration does not allow this sync any more: the attempt stops at its checkpoint
    failed by Authentication: Warning SyncFailed: Authentication: it did not work
    failed by Authorization: Warning SyncFailed: Authorization: it did not work
    failed by Quota: Warning SyncFailed: Quota: it did not work
    failed by Throttled: Warning SyncFailed: Throttled: it did not work
    failed by Network: Warning SyncFailed: Network: it did not work
    failed by Tls: Warning SyncFailed: Tls: it did not work
    failed by Protocol: Warning SyncFailed: Protocol: it did not work
    failed by MessageRejected: Warning SyncFailed: MessageRejected: it did not work
    failed by Configuration: Warning Failed: Configuration: it did not work
    failed by Internal: Warning SyncFailed: Internal: it did not work
    out of memory: Warning SyncFailed: Internal: the sync was killed: it needed more memory than its pod may have
    killed: Warning PodLost: the pod was ended from outside
    fenced: Warning PodLost: the pod was ended from outside
    not started: Warning PodLost: the container could not be started: no such program
    crashed: Warning SyncFailed: Internal: the sync ended with exit code 101 and without a report
    no pod in time: Warning PodLost: the pod never ran
    restarted in vain: Warning Stalled: 2 attempts in a row were restarted and copied nothing
    no such pod can be: Warning Failed: the API server takes no such pod: spec.tolerations is wrong
    "#);
}

#[test]
fn what_inherited_its_checkpoint_waits_until_a_pod_of_before_must_have_ended_and_uses_no_number_again() {
    let mut case = MailboxFixture::new();
    let inherited = Inheritance { at: Time(case.now), attempt: 3 };
    case.spec.sync_request = Some("now".to_owned());
    case.status = MailboxSyncStatus {
        attempt: 3,
        attempt_started_at: Some(Time(case.now)),
        inherited: Some(inherited),
        ..MailboxSyncStatus::default()
    };
    let decision = case.decide();
    let wait = 10 * 60 + 60 + 30;
    assert_eq!((decision.status.phase, decision.status.slots), (Some(SyncPhase::Pending), None));
    assert_eq!(decision.wake_after, Some(SignedDuration::from_secs(wait)), "offlineGrace, the flush and a margin");
    case.status = decision.status;
    case.pass(wait - 1);
    assert_eq!(case.decide().status.slots, None);
    case.pass(1);
    let started = case.decide().status;
    assert_eq!((started.attempt, started.slots), (4, Some(2)));
    // Its own attempts wait no longer than others.
    case.status = MailboxSyncStatus { slots: None, phase: Some(SyncPhase::Queued), ..started };
    case.status.inherited.as_mut().unwrap().at = Time(case.now);
    assert_eq!(case.decide().status.attempt, 5);
}

#[test]
fn an_attempt_of_what_nobody_owns_gets_no_pod() {
    let mut case = MailboxFixture::new();
    case.status = case.decide().status;
    assert_eq!(case.decide().actions, [SyncAction::CreatePod]);
    case.hold = Some(HoldReason::MigrationInactive);
    assert_eq!(case.decide().actions, []);
}
