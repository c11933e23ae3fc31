//! A pod that waits before it runs: for its gates, for a node, for its node.

use k8s_openapi::api::core::v1::{PodCondition, PodSchedulingGate};

use super::*;

fn ready(status: &MailboxSyncStatus) -> (&str, &str, &str) {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    (&ready.status, &ready.reason, &ready.message)
}

fn change(case: &mut MailboxFixture, change: impl FnOnce(&mut SyncPod)) {
    change(Arc::make_mut(&mut case.pods[0]));
}

fn scheduled(status: &str, reason: &str, message: &str, at: Timestamp) -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(at)),
        ..PodCondition::default()
    }
}

fn unschedulable(case: &mut MailboxFixture) {
    let condition = scheduled("False", "Unschedulable", "0/5 nodes are available: 5 Insufficient memory.", case.now);
    change(case, |pod| pod.status.conditions = vec![condition]);
}

/// What is written until nothing more is.
fn settle(case: &mut MailboxFixture) {
    for _ in 0..4 {
        case.status = case.decide().status;
    }
}

fn is_stopped_for_want_of_a_start(case: &MailboxFixture) -> bool {
    case.decide().status.stopping.is_some_and(|stopping| stopping.reason == StopReason::NotStarted)
}

#[test]
fn a_pod_that_its_gates_hold_is_waited_for_without_an_end_and_that_is_told() {
    let mut case = MailboxFixture::running();
    let gate = PodSchedulingGate { name: "kueue.x-k8s.io/admission".to_owned() };
    change(&mut case, |pod| pod.spec.scheduling_gates = vec![gate]);
    settle(&mut case);
    let told = "the attempt's pod waits for its scheduling gates: kueue.x-k8s.io/admission";
    assert_eq!(ready(&case.status), ("True", "SchedulingGated", told));
    // Longer than its deadline is.
    case.pass(24 * 3600);
    let waits = case.decide();
    assert_eq!((&waits.status, &waits.actions[..]), (&case.status, &[][..]));
    // Then its time begins: to be scheduled, and to run.
    change(&mut case, |pod| pod.spec.scheduling_gates = Vec::new());
    settle(&mut case);
    assert_eq!((ready(&case.status).1, &case.status.stopping), ("Running", &None));
    assert_eq!(case.status.attempt_started_at, Some(Time(case.now)));
    case.pass(599);
    assert!(!is_stopped_for_want_of_a_start(&case));
    case.pass(1);
    assert!(is_stopped_for_want_of_a_start(&case));
}

#[test]
fn whoever_stops_a_migration_stops_a_pod_that_its_gates_hold() {
    let mut case = MailboxFixture::running();
    change(&mut case, |pod| pod.spec.scheduling_gates = vec![PodSchedulingGate { name: "g".to_owned() }]);
    settle(&mut case);
    case.hold = Some(HoldReason::MigrationSuspended);
    assert_eq!(case.decide().status.stopping.map(|stopping| stopping.reason), Some(StopReason::Suspended));
}

#[test]
fn a_pod_for_which_no_node_has_room_is_waited_for_as_long_as_the_operator_is_told_to() {
    let mut case = MailboxFixture::running();
    unschedulable(&mut case);
    settle(&mut case);
    let told = "the attempt's pod waits for a node: 0/5 nodes are available: 5 Insufficient memory.";
    assert_eq!(ready(&case.status), ("True", "Unschedulable", told));
    case.pass(1799);
    assert!(!is_stopped_for_want_of_a_start(&case));
    case.pass(1);
    let stops = case.decide();
    assert!(is_stopped_for_want_of_a_start(&case));
    let told = "the attempt's pod got no node in time: 0/5 nodes are available: 5 Insufficient memory.";
    assert_eq!(stops.events, [EventNote::warning("PodNotStarted", told)]);
}

#[test]
fn a_pod_that_got_its_node_late_has_ten_minutes_from_then_on() {
    let mut case = MailboxFixture::running();
    unschedulable(&mut case);
    settle(&mut case);
    case.pass(1700);
    let condition = scheduled("True", "", "", case.now);
    change(&mut case, |pod| {
        pod.spec.node_name = Some("node".to_owned());
        pod.status.conditions = vec![condition];
    });
    settle(&mut case);
    assert_eq!(ready(&case.status).1, "Running");
    case.pass(599);
    assert!(!is_stopped_for_want_of_a_start(&case));
    case.pass(1);
    assert!(is_stopped_for_want_of_a_start(&case));
}

#[test]
fn a_pod_that_waited_long_for_its_node_is_not_taken_for_lost_once_it_has_one() {
    let mut case = MailboxFixture::running();
    let first = WorkerLiveness::first_seen(1, case.since_boot());
    let waits = first.updated_with(&case.status, Some(&case.pods[0]), case.clocks());
    case.pass(7200);
    let mut bound = pod(1, Some(is_running()));
    Arc::make_mut(&mut bound).spec.node_name = Some("node".to_owned());
    for seen in [Some(&*bound), None] {
        // It may run from here on, as far as is known.
        let known = waits.updated_with(&case.status, seen, case.clocks());
        assert_eq!(known.reported_at, case.since_boot());
        let mut later = case.clocks();
        later.since_boot += SignedDuration::from_secs(60);
        let later = known.updated_with(&case.status, seen, later);
        assert_eq!(later.reported_at, case.since_boot(), "its silence is counted");
    }
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
