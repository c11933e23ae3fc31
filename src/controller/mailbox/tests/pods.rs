//! The pods of attempts: when their end is settled, which stay, and which go.

use super::*;

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
