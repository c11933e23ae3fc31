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
    observe::{ClockReading, HoldReason, ObservedMailbox, SecretsSeen, WorkerLiveness, signed_duration},
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
};

mod edited;
mod refused_login;
mod start_wait;

const NAME: &str = "m";
const UID: &str = "uid";

/// A mailbox that holds its Secrets and has its turn.
struct MailboxFixture {
    spec: MailboxSyncSpec,
    status: MailboxSyncStatus,
    pods: Vec<Arc<SyncPod>>,
    surplus_pods: Vec<String>,
    hold: Option<HoldReason>,
    granted_slots: Option<i32>,
    waits_for: Option<String>,
    generation: i64,
    secrets: SecretsSeen,
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
            granted_slots: Some(2),
            waits_for: None,
            generation: 1,
            secrets: SecretsSeen::Present(vec!["mail=1".into()]),
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
            secrets: self.secrets.clone(),
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

/// A container that a service mesh injected first, in this state.
fn beside(mut pod: Arc<SyncPod>, state: ContainerState) -> Arc<SyncPod> {
    let proxy = ContainerFacts { name: "istio-proxy".to_owned(), state: Some(state) };
    Arc::make_mut(&mut pod).status.container_statuses.insert(0, proxy);
    pod
}

#[test]
fn an_injected_container_that_ends_before_the_sync_ends_no_attempt() {
    let mut case = MailboxFixture::running();
    let killed = ContainerStateTerminated { exit_code: 137, ..ContainerStateTerminated::default() };
    let killed = ContainerState { terminated: Some(killed), ..ContainerState::default() };
    case.pods = vec![beside(pod(1, Some(is_running())), killed)];
    let decision = case.decide();
    assert_eq!((decision.status.phase, decision.status.slots), (Some(SyncPhase::Running), Some(2)));
    assert_eq!(decision.actions, []);
}

#[test]
fn a_pod_in_which_others_run_on_after_the_sync_is_deleted_once_its_end_is_settled() {
    let mut case = MailboxFixture::running();
    case.status.worker = Some(report(2, Some(Outcome::Synced)));
    case.pods = vec![beside(ended_with(&report(2, Some(Outcome::Synced))), is_running())];
    case.status = case.decide().status;
    assert_eq!(
        (case.status.phase, case.status.slots),
        (Some(SyncPhase::Synced), None),
        "the sync's end is the attempt's"
    );
    let (name, uid) = (names::pod(NAME, 1), "pod-1".to_owned());
    let released = SyncAction::ReleasePod { name: name.clone(), uid: uid.clone() };
    assert_eq!(case.decide().actions, [released]);
    Arc::make_mut(&mut case.pods[0]).metadata.finalizers = None;
    assert_eq!(case.decide().actions, [SyncAction::StopPod { name, uid }]);
    Arc::make_mut(&mut case.pods[0]).metadata.deletion_timestamp = Some(Time(case.now));
    assert_eq!(case.decide().actions, []);
}

#[test]
fn a_pods_end_is_settled_once_the_report_that_its_worker_tells_of_is_there() {
    let mut case = MailboxFixture::running();
    case.status.worker = Some(report(1, None));
    case.pods = vec![ended_with(&report(2, Some(Outcome::Synced)))];
    case.ended_at = Some(case.since_boot());
    case.pass(2);
    let waits = case.decide();
    assert_eq!((waits.status, waits.actions), (case.status.clone(), vec![]), "what it is written to is not the newest");
    assert_eq!(waits.wake_after, Some(SignedDuration::from_secs(3)));
    let mut reported = case.status.clone();
    reported.worker = Some(report(2, Some(Outcome::Synced)));
    let unreported = std::mem::replace(&mut case.status, reported);
    assert_eq!(case.decide().status.phase, Some(SyncPhase::Synced));
    // It was never taken: the last word has to do.
    case.status = unreported;
    case.pass(3);
    let settled = case.decide().status;
    assert_eq!(settled.phase, Some(SyncPhase::Synced));
    case.status = settled;
    assert!(!case.observed().lacks_last_report(), "nothing is waited for any more");
}

#[test]
fn a_worker_that_ended_because_it_could_not_report_is_not_waited_for() {
    let mut case = MailboxFixture::running();
    case.status.worker = Some(report(1, None));
    case.pods = vec![ended_with(&report(2, None))];
    case.ended_at = Some(case.since_boot());
    assert_eq!(case.decide().status.slots, None);
}

#[test]
fn an_attempt_whose_pod_does_not_run_within_ten_minutes_is_stopped_and_gives_its_slots_back() {
    let mut case = MailboxFixture::running();
    case.pass(599);
    let waits = case.decide();
    assert_eq!((waits.status.stopping.clone(), waits.wake_after), (None, Some(SignedDuration::from_secs(1))));
    assert!(waits.actions.is_empty());
    case.pass(1);
    case.status = case.decide().status;
    assert_eq!(case.status.stopping.as_ref().map(|stopping| stopping.reason), Some(StopReason::NotStarted));
    assert_eq!(case.status.slots, Some(2), "held until its end is certain");
    let stops = case.decide();
    assert!(matches!(&stops.actions[..], [SyncAction::StopPod { uid, .. }] if uid == "pod-1"), "{:?}", stops.actions);
    // It was on no node: it never runs.
    Arc::make_mut(&mut case.pods[0]).metadata.deletion_timestamp = Some(Time(case.now));
    let settled = case.decide().status;
    assert_eq!((settled.slots, settled.phase), (None, Some(SyncPhase::Backoff)));
    let failures = Failures { infrastructure: 1, infrastructure_in_a_row: 1, ..Failures::default() };
    assert_eq!((settled.failures, settled.last_error), (Some(failures), None), "the mailbox did nothing wrong");
}

#[test]
fn an_attempt_whose_pod_runs_is_not_stopped_after_ten_minutes() {
    let mut case = MailboxFixture::running();
    case.pods = vec![pod(1, Some(is_running()))];
    case.pass(601);
    let decision = case.decide();
    assert!(decision.status.stopping.is_none() && decision.actions.is_empty(), "{decision:?}");
}

#[test]
fn an_attempt_that_has_no_pod_after_ten_minutes_gives_its_slots_back_at_once() {
    let mut case = MailboxFixture::new();
    case.status = case.decide().status;
    assert_eq!(case.decide().actions, [SyncAction::CreatePod]);
    case.pass(600);
    let settled = case.decide();
    assert_eq!((settled.status.slots, settled.status.phase), (None, Some(SyncPhase::Backoff)));
    assert!(!settled.actions.contains(&SyncAction::CreatePod));
}

#[test]
fn a_mailbox_that_does_not_run_needs_no_write_when_its_migration_is_suspended_and_resumed() {
    let mut queued = MailboxFixture::new();
    queued.granted_slots = None;
    queued.status = queued.decide().status;
    assert_eq!(queued.status.phase, Some(SyncPhase::Queued));
    let mut cases = [queued, MailboxFixture::synced(), MailboxFixture::synced()];
    cases[2].status.phase = Some(SyncPhase::Backoff);
    cases[2].status.next_attempt_at = Some(Time(cases[2].now + SignedDuration::from_secs(3600)));
    for case in &mut cases {
        case.status = case.decide().status;
        case.hold = Some(HoldReason::MigrationSuspended);
        let decision = case.decide();
        assert_eq!((&decision.status, decision.actions.len()), (&case.status, 0), "suspended");
        case.hold = None;
        assert_eq!(case.decide().status, case.status, "resumed");
    }
    // That it may be cancelled meanwhile is another matter.
    cases[0].hold = Some(HoldReason::MigrationSuspended);
    cases[0].spec.cancel = true;
    assert_eq!(cases[0].decide().status.phase, Some(SyncPhase::Cancelled));
}

#[test]
fn a_mailbox_that_runs_is_stopped_when_its_migration_is_suspended_and_says_so() {
    let mut case = MailboxFixture::running();
    case.hold = Some(HoldReason::MigrationSuspended);
    case.status = case.decide().status;
    assert_eq!(case.status.stopping.as_ref().map(|stopping| stopping.reason), Some(StopReason::Suspended));
    Arc::make_mut(&mut case.pods[0]).metadata.deletion_timestamp = Some(Time(case.now));
    case.status = case.decide().status;
    assert_eq!((case.status.phase, case.status.slots), (Some(SyncPhase::Suspended), None));
    // One that nobody has looked at yet says so, too.
    let mut new = MailboxFixture::new();
    new.hold = Some(HoldReason::MigrationSuspended);
    assert_eq!(new.decide().status.phase, Some(SyncPhase::Suspended));
    case.hold = None;
    case.status = case.decide().status;
    assert_eq!(case.status.attempt, 2);
}

#[test]
fn a_queued_mailbox_whose_master_user_is_not_allowed_fails() {
    let mut case = MailboxFixture::new();
    case.granted_slots = None;
    case.status = case.decide().status;
    assert_eq!(case.status.phase, Some(SyncPhase::Queued));
    case.hold = Some(HoldReason::MasterUserNotAllowed("source.masterUser is not allowed in namespace n".into()));
    let decision = case.decide();
    assert_eq!((decision.status.phase, decision.status.attempt), (Some(SyncPhase::Failed), 0));
    assert!(decision.actions.is_empty(), "it asks for nothing: {:?}", decision.actions);
    let error = decision.status.last_error.as_ref().unwrap();
    assert_eq!(error.class, ErrorClass::Configuration);
    assert!(error.message.contains("not allowed") && error.advice.is_some(), "{error:?}");
    let of = |name: &str| decision.status.conditions.iter().find(|c| c.type_ == name).unwrap().status.clone();
    assert_eq!((of("Ready").as_str(), of("Stalled").as_str()), ("False", "True"));
    // And stays so by itself.
    case.status = decision.status;
    assert_eq!(case.decide().status, case.status);
}

fn not_there() -> HoldReason {
    let what = "mail may not be moved to elsewhere.example";
    HoldReason::DestinationNotAllowed(Error::configuration(what).advice("Ask whoever runs Mailferry"))
}

#[test]
fn a_mailbox_whose_destination_is_not_allowed_is_stalled_and_starts_once_it_is() {
    let mut case = MailboxFixture::new();
    case.hold = Some(not_there());
    let decision = case.decide();
    assert_eq!((decision.status.phase, decision.status.attempt), (Some(SyncPhase::Stalled), 0));
    assert!(decision.actions.is_empty(), "it asks for nothing: {:?}", decision.actions);
    let ready = decision.status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "DestinationNotAllowed"));
    assert!(ready.message.contains("elsewhere.example"), "{}", ready.message);
    case.status = decision.status;
    assert_eq!(case.decide().status, case.status, "and stays so by itself");
    case.hold = None;
    assert_eq!(case.decide().status.phase, Some(SyncPhase::Running));
}

#[test]
fn an_attempt_that_is_not_allowed_any_more_stops_at_its_checkpoint_and_no_other_starts() {
    for (hold, phase) in [
        (not_there(), SyncPhase::Stalled),
        (HoldReason::MasterUserNotAllowed("no master user".into()), SyncPhase::Failed),
    ] {
        let mut case = MailboxFixture::running();
        case.pods = vec![pod(1, Some(is_running()))];
        case.hold = Some(hold);
        let asked = case.decide();
        assert_eq!(asked.events.iter().map(|note| note.reason).collect::<Vec<_>>(), ["NotAllowed"]);
        case.status = asked.status;
        assert_eq!(case.status.stopping.as_ref().map(|stopping| stopping.reason), Some(StopReason::NotAllowed));
        assert_eq!(case.status.slots, Some(2), "held until its end is certain");
        assert!(matches!(&case.decide().actions[..], [SyncAction::StopPod { .. }]));
        case.pods = vec![ended(1, 0, case.now)];
        case.status.worker =
            Some(WorkerStatus { attempt: 1, outcome: Some(Outcome::Stopped), ..WorkerStatus::default() });
        case.status = case.decide().status;
        assert_eq!((case.status.slots, case.status.failures), (None, None), "the mailbox did nothing wrong");
        case.status = case.decide().status;
        assert_eq!((case.status.phase, case.status.attempt), (Some(phase), 1));
    }
}

#[test]
fn no_pod_is_made_for_an_attempt_that_is_not_allowed_any_more() {
    let mut case = MailboxFixture::new();
    case.status = case.decide().status;
    assert_eq!(case.decide().actions, [SyncAction::CreatePod]);
    case.hold = Some(not_there());
    let settled = case.decide();
    assert_eq!(settled.status.slots, None);
    assert!(!settled.actions.contains(&SyncAction::CreatePod), "{:?}", settled.actions);
}

#[test]
fn a_mailbox_whose_destination_another_has_waits_without_a_place_in_the_queue() {
    let mut case = MailboxFixture::new();
    case.hold = Some(HoldReason::DestinationTaken);
    let decision = case.decide();
    assert_eq!((decision.status.phase, decision.status.slots), (Some(SyncPhase::Queued), None));
    assert!(decision.actions.is_empty() && decision.wake_after.is_some());
}

#[test]
fn a_queued_mailbox_says_what_it_waits_for_and_its_secrets_are_left_alone_meanwhile() {
    let mut case = MailboxFixture::new();
    case.granted_slots = None;
    case.waits_for = Some("waiting for connections to old.example:993".into());
    case.status = case.decide().status;
    let ready = case.status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Queued"));
    assert_eq!(Some(&ready.message), case.waits_for.as_ref());
    case.secrets = SecretsSeen::Unknown;
    let waits = case.decide();
    assert_eq!((&waits.status, &waits.actions[..]), (&case.status, &[SyncAction::RequestSlots][..]));
    assert_eq!(waits.wake_after, Some(SignedDuration::from_mins(5)), "it may wait for something else then");
    case.granted_slots = Some(2);
    assert_eq!(case.decide().actions, [SyncAction::CheckSecrets], "and looked at before it starts");
}

#[test]
fn failed_pods_beyond_the_limit_go_oldest_first_and_before_their_time() {
    let mut case = MailboxFixture::synced();
    case.spec.settings.failed_pods_limit = 2;
    let just_now = case.now - SignedDuration::from_secs(60);
    case.status.attempt = 6;
    case.pods = [5, 2, 3, 1, 4].map(|attempt| ended(attempt, 1, just_now)).to_vec();
    case.pods.push(ended(6, 0, just_now));
    let decision = case.decide();
    assert_eq!(deleted(&decision), ["m-1", "m-2", "m-3", "m-6"].into());
    case.spec.settings.failed_pods_limit = 0;
    case.spec.settings.succeeded_pods_limit = 1;
    assert_eq!(deleted(&case.decide()), ["m-1", "m-2", "m-3", "m-4", "m-5"].into(), "the good one stays for its time");
}

#[test]
fn a_pod_that_ended_well_goes_at_once_unless_some_are_to_stay() {
    let mut case = MailboxFixture::synced();
    case.status.attempt = 3;
    case.pods = [1, 3, 2].map(|attempt| ended(attempt, 0, case.now)).to_vec();
    assert_eq!(deleted(&case.decide()), ["m-1", "m-2", "m-3"].into());
    case.spec.settings.succeeded_pods_limit = 2;
    let decision = case.decide();
    assert_eq!(deleted(&decision), ["m-1"].into());
    assert_eq!(decision.wake_after, Some(signed_duration(case.spec.settings.finished_pods_ttl)));
}

#[test]
fn pods_that_are_too_many_in_all_go_before_their_time() {
    let mut case = MailboxFixture::synced();
    case.status.attempt = 2;
    case.pods = [1, 2].map(|attempt| ended(attempt, 1, case.now)).to_vec();
    assert!(deleted(&case.decide()).is_empty());
    case.surplus_pods = vec!["pod-1".to_owned()];
    assert_eq!(deleted(&case.decide()), ["m-1"].into());
}

#[test]
fn a_last_word_that_only_the_pod_has_is_written_before_the_pod_goes_and_leaves_the_tail_in_doubt() {
    let mut case = MailboxFixture::running();
    let progress = WorkerProgress { messages_done: 5, ..WorkerProgress::default() };
    let reported = WorkerStatus {
        attempt: 1,
        report: 3,
        flushed_attempt: Some(0),
        differences: [("flags".to_owned(), 2)].into(),
        progress: Some(progress),
        ..WorkerStatus::default()
    };
    case.status.worker = Some(reported.clone());
    let last = WorkerStatus {
        attempt: 1,
        report: 4,
        flushed_attempt: Some(1),
        outcome: Some(Outcome::Synced),
        progress: Some(WorkerProgress { messages_done: 9, ..WorkerProgress::default() }),
        not_copied: Some(NotCopied::default()),
        ..WorkerStatus::default()
    };
    let message = Some(serde_json::to_string(&last).unwrap());
    let state = ContainerStateTerminated { message, finished_at: Some(Time(case.now)), ..Default::default() };
    case.pods = vec![pod(1, Some(ContainerState { terminated: Some(state), ..ContainerState::default() }))];
    let decision = case.decide();
    assert!(decision.actions.is_empty(), "written first: {:?}", decision.actions);
    assert_eq!((decision.status.phase, decision.status.slots), (Some(SyncPhase::Synced), None));
    let written = decision.status.worker.clone().unwrap();
    let (flushed_attempt, differences) = (reported.flushed_attempt, reported.differences);
    assert_eq!(written, WorkerStatus { flushed_attempt, differences, ..last });
    let copied = decision.status.conditions.iter().find(|condition| condition.type_ == "AllCopied").unwrap();
    assert_eq!(copied.status, "True", "{}", copied.message);
}

#[test]
fn a_pod_that_ended_goes_after_its_time_however_it_ended() {
    let mut case = MailboxFixture::synced();
    case.status.attempt = 3;
    let ttl = signed_duration(case.spec.settings.finished_pods_ttl);
    let second = SignedDuration::from_secs(1);
    case.spec.settings.succeeded_pods_limit = 1;
    case.pods = vec![ended(1, 0, case.now - ttl), ended(2, 1, case.now - ttl), ended(3, 0, case.now - ttl + second)];
    let decision = case.decide();
    assert_eq!(deleted(&decision), ["m-1", "m-2"].into());
    assert_eq!(decision.wake_after, Some(second));
}

#[test]
fn a_pod_that_is_held_is_let_go_of_before_it_is_deleted() {
    let mut case = MailboxFixture::synced();
    let mut held = ended(1, 0, case.now - signed_duration(case.spec.settings.finished_pods_ttl));
    Arc::make_mut(&mut held).metadata.finalizers = Some(vec![POD_FINALIZER.to_owned()]);
    case.pods = vec![held];
    let actions = case.decide().actions;
    assert!(matches!(&actions[..], [SyncAction::ReleasePod { uid, .. }] if uid == "pod-1"), "{actions:?}");
}

/// A pod of an attempt that the status does not tell of: the status that is seen is older.
fn ahead(case: &MailboxFixture, state: ContainerState) -> Arc<SyncPod> {
    let mut ahead = pod(case.status.attempt + 1, Some(state));
    Arc::make_mut(&mut ahead).metadata.creation_timestamp = Some(Time(case.now));
    ahead
}

#[test]
fn a_pod_whose_status_has_not_come_by_yet_goes_on_and_no_other_is_started() {
    for mut case in [MailboxFixture::new(), MailboxFixture::running()] {
        case.pods = vec![ahead(&case, is_running())];
        let decision = case.decide();
        assert_eq!((decision.status.attempt, decision.status.slots), (case.status.attempt, case.status.slots));
        let others = |action: &SyncAction| !matches!(action, SyncAction::CreatePod);
        assert!(!decision.actions.iter().any(others), "{:?}", decision.actions);
        assert!(decision.wake_after.is_some_and(|wake| wake <= SignedDuration::from_mins(1)), "it is looked at again");
    }
}

#[test]
fn a_pod_whose_status_never_comes_is_stopped_and_the_next_attempt_starts_at_its_end() {
    let mut case = MailboxFixture::new();
    case.pods = vec![ahead(&case, is_running())];
    case.pass(60);
    let decision = case.decide();
    assert!(
        matches!(&decision.actions[..], [SyncAction::StopPod { uid, .. }] if uid == "pod-1"),
        "{:?}",
        decision.actions
    );
    assert_eq!(decision.status.slots, None);
    let end = ContainerStateTerminated { finished_at: Some(Time(case.now)), ..Default::default() };
    let end = ContainerState { terminated: Some(end), ..ContainerState::default() };
    let mut ended = pod(1, Some(end));
    Arc::make_mut(&mut ended).metadata.creation_timestamp = Some(Time(case.now - SignedDuration::from_mins(2)));
    case.pods = vec![ended];
    let next = case.decide().status;
    assert_eq!((next.attempt, next.slots.is_some()), (2, true), "its pod's name is taken");
}

#[test]
fn jitter_stays_in_its_bounds_and_is_the_same_for_the_same() {
    let wait = SignedDuration::from_secs(1000);
    let mut waits = BTreeSet::new();
    for number in 0..2000 {
        let jittered_wait = jittered(wait, 10, UID, number);
        assert!((900..=1100).contains(&jittered_wait.as_secs()), "{jittered_wait}");
        assert_eq!(jittered_wait, jittered(wait, 10, UID, number));
        waits.insert(jittered_wait.as_secs());
    }
    assert!(*waits.first().unwrap() < 910 && *waits.last().unwrap() > 1090, "spread over all of it");
    assert_ne!(jittered(wait, 10, "one", 1), jittered(wait, 10, "other", 1));
    assert_eq!(jittered(wait, 0, UID, 1), wait);
}

#[test]
fn a_mailbox_starts_at_its_time_and_not_before() {
    let mut case = MailboxFixture::new();
    case.spec.start_at = Some(Time(case.now + SignedDuration::from_secs(300)));
    let early = case.decide();
    assert_eq!((early.status.phase, early.status.attempt), (Some(SyncPhase::Pending), 0));
    assert_eq!(early.status.next_attempt_at, case.spec.start_at);
    assert_eq!(early.wake_after, Some(SignedDuration::from_secs(300)));
    assert!(early.actions.is_empty());
    case.status = early.status;
    // Not by a request either.
    case.spec.sync_request = Some("now".into());
    assert_eq!(case.decide().status.phase, Some(SyncPhase::Pending));
    case.pass(300);
    let started = case.decide().status;
    assert_eq!((started.phase, started.attempt, started.next_attempt_at), (Some(SyncPhase::Running), 1, None));
}

#[test]
fn a_start_time_holds_up_no_later_attempt() {
    let mut case = MailboxFixture::synced();
    case.spec.start_at = Some(Time(case.now + SignedDuration::from_secs(300)));
    case.spec.sync_request = Some("again".into());
    assert_eq!(case.decide().status.attempt, 2);
}

#[test]
fn a_schedule_repeats_a_sync_and_never_a_dry_run() {
    let mut case = MailboxFixture::synced();
    case.spec.settings.schedule = Some(Schedule { every: Duration::from_secs(3600), jitter_percent: 10 });
    let planned = case.decide();
    let at = planned.status.next_attempt_at.as_ref().unwrap().0;
    let wait = at.duration_since(case.now);
    assert!((3240..=3960).contains(&wait.as_secs()), "{wait}");
    assert_eq!((planned.status.phase, planned.wake_after), (Some(SyncPhase::Synced), Some(wait)));

    case.spec.settings.dry_run = true;
    let done = case.decide();
    assert_eq!((done.status.next_attempt_at, done.wake_after, done.actions.len()), (None, None, 0));
    case.pass(100 * 3600);
    assert_eq!(case.decide().status.attempt, 1);
    // A person may ask for another.
    case.spec.sync_request = Some("again".into());
    assert_eq!(case.decide().status.attempt, 2);

    case.spec.settings.dry_run = false;
    case.spec.sync_request = None;
    assert_eq!(case.decide().status.attempt, 2, "overdue without it");
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

fn later(class: ErrorClass, case: &MailboxFixture, seconds: i64) -> LastError {
    let retry_at = Some(case.now + SignedDuration::from_secs(seconds));
    LastError::new(&Error { retry_at, ..Error::new(class, "later") }, None)
}

#[test]
fn a_server_that_says_when_is_left_alone_until_then_and_the_slots_are_given_back() {
    for (class, waits) in [
        (ErrorClass::Throttled, true),
        (ErrorClass::Network, true),
        // Only the server's own state passes by itself.
        (ErrorClass::Protocol, false),
    ] {
        let mut case = MailboxFixture::running();
        let error = later(class, &case, 7200);
        let settled = ends(&mut case, Outcome::Failed, Some(error), 0);
        assert_eq!((settled.slots, settled.phase), (None, Some(SyncPhase::Backoff)), "{class}");
        let wait = settled.next_attempt_at.clone().unwrap().0.duration_since(case.now).as_secs();
        assert_eq!(wait >= 7200, waits, "{class}: {wait}");
        assert_eq!(settled.last_error.unwrap().retry_at.unwrap().0.duration_since(case.now).as_secs(), 7200);
        case.pass(wait - 1);
        assert_eq!(case.decide().status.attempt, 1, "{class}: not before its time");
        case.pass(2);
        assert_eq!(case.decide().status.attempt, 2, "{class}");
    }
}

#[test]
fn an_attempt_that_was_stopped_while_it_waited_for_a_server_is_followed_by_none_that_comes_sooner() {
    let mut case = MailboxFixture::running();
    case.status.stopping = Some(Stopping { at: Time(case.now), reason: StopReason::Deadline });
    let error = later(ErrorClass::Throttled, &case, 7200);
    let settled = ends(&mut case, Outcome::Stopped, Some(error), 5);
    assert_eq!((settled.phase, settled.failures.unwrap().in_a_row), (Some(SyncPhase::Backoff), 0));
    assert_eq!(settled.next_attempt_at.unwrap().0.duration_since(case.now).as_secs(), 7200);
    case.pass(7100);
    assert_eq!(case.decide().status.attempt, 1);
    case.pass(100);
    assert_eq!(case.decide().status.attempt, 2);
}

#[test]
fn a_time_that_is_sooner_than_the_backoff_shortens_it_not() {
    let mut case = MailboxFixture::running();
    let error = later(ErrorClass::Throttled, &case, 1);
    let settled = ends(&mut case, Outcome::Failed, Some(error), 0);
    assert!(settled.next_attempt_at.unwrap().0.duration_since(case.now).as_secs() >= 50);
}

#[test]
fn attempts_that_only_try_refused_messages_again_are_no_progress_and_are_given_up() {
    let mut case = MailboxFixture::running();
    case.spec.settings.retry.max_failures = Some(2);
    let failed = |case: &mut MailboxFixture, messages| {
        let error = LastError::new(&Error::network("it is unwell"), None);
        let settled = ends(case, Outcome::Failed, Some(error), messages);
        case.pass(7200);
        case.status = case.decide().status;
        settled
    };
    assert_eq!(failed(&mut case, 5).failures.unwrap().in_a_row, 1);
    assert_eq!(failed(&mut case, 3).failures.unwrap().in_a_row, 1, "it copied something");
    // It sent refused messages again: bytes moved, nothing was copied.
    assert_eq!(failed(&mut case, 0).phase, Some(SyncPhase::Failed));
}

#[test]
fn a_request_holds_until_a_sync_has_ended_well_however_many_attempts_that_takes() {
    let mut case = MailboxFixture::synced();
    assert!(!case.status.retry_refused);
    case.spec.sync_request = Some("after the repair".into());
    case.status = case.decide().status;
    assert_eq!((case.status.attempt, case.status.retry_refused), (2, true));
    let failed = ends(&mut case, Outcome::Failed, Some(LastError::new(&Error::network("lost"), None)), 0);
    assert!(failed.retry_refused);
    case.pass(7200);
    case.status = case.decide().status;
    assert_eq!((case.status.attempt, case.status.retry_refused), (3, true));
    let synced = ends(&mut case, Outcome::Synced, None, 0);
    assert_eq!((synced.phase, synced.retry_refused), (Some(SyncPhase::Synced), false));
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
