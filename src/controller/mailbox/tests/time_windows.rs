//! What the time windows of a mailbox's servers do to it.

use super::*;

const HOUR: i64 = 3600;

fn closed(case: &MailboxFixture, opens_in: Option<i64>) -> SyncTimes {
    let opens_at = opens_in.map(|seconds| case.now + SignedDuration::from_secs(seconds));
    SyncTimes::Closed(ClosedTimes { opens_at, words: "outside the time windows of old.example:993".to_owned() })
}

fn ready(status: &MailboxSyncStatus) -> (String, String, String) {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    (ready.status.clone(), ready.reason.clone(), ready.message.clone())
}

#[test]
fn outside_of_the_windows_nothing_starts_and_the_moment_of_the_next_is_told() {
    let mut case = MailboxFixture::new();
    case.sync_times = closed(&case, Some(2 * HOUR));
    // Whoever asks for a sync waits, too: the window is there for the server's sake.
    case.spec.sync_request = Some("now".to_owned());
    case.secrets = SecretsSeen::Unknown;
    let decision = case.decide();
    let opens_at = Time(case.now + SignedDuration::from_secs(2 * HOUR));
    assert_eq!(
        (decision.status.phase, decision.status.next_attempt_at.clone()),
        (Some(SyncPhase::Queued), Some(opens_at))
    );
    assert_eq!(decision.wake_after, Some(SignedDuration::from_secs(2 * HOUR)));
    let (status, reason, message) = ready(&decision.status);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "OutsideWindow"));
    assert!(message.starts_with("outside the time windows of old.example"), "{message}");
    case.status = decision.status;
    assert_eq!(case.decide().actions, [], "no place in the queue is taken, and no Secret looked at");
    case.pass(2 * HOUR);
    case.sync_times = SyncTimes::Open(Some(case.now + SignedDuration::from_secs(HOUR)));
    case.secrets = SecretsSeen::Present(vec!["mail=1".into()]);
    let started = case.decide().status;
    assert_eq!((started.phase, started.attempt, started.next_attempt_at), (Some(SyncPhase::Running), 1, None));
}

#[test]
fn what_waits_for_its_turn_is_looked_at_again_when_the_window_closes() {
    let mut case = MailboxFixture::new();
    case.granted_slots = None;
    case.sync_times = SyncTimes::Open(Some(case.now + SignedDuration::from_secs(90)));
    case.status = case.decide().status;
    let decision = case.decide();
    assert_eq!(decision.actions, [SyncAction::RequestSlots]);
    assert_eq!(decision.wake_after, Some(SignedDuration::from_secs(90)));
}

#[test]
fn a_sync_ends_at_its_checkpoint_when_the_window_closes_and_that_is_no_failure() {
    let mut case = MailboxFixture::running();
    case.sync_times = SyncTimes::Open(Some(case.now + SignedDuration::from_secs(60)));
    assert_eq!(case.decide().wake_after, Some(SignedDuration::from_secs(60)));
    case.pass(60);
    case.sync_times = closed(&case, Some(HOUR));
    let decision = case.decide();
    assert_eq!(decision.status.stopping.as_ref().map(|stopping| stopping.reason), Some(StopReason::WindowClosed));
    assert_eq!(decision.events, [], "it is as planned");
    case.status = decision.status;
    let stop = case.decide().actions;
    assert!(matches!(stop.as_slice(), [SyncAction::StopPod { .. }]), "{stop:?}");
    for outcome in [Some(Outcome::Stopped), None] {
        let mut case = MailboxFixture { status: case.status.clone(), ..MailboxFixture::new() };
        case.sync_times = closed(&case, Some(HOUR));
        case.status.worker = Some(report(1, outcome));
        case.pods = vec![ended(1, 143, case.now)];
        let ended = case.decide().status;
        assert_eq!((ended.phase, ended.slots, ended.failures), (Some(SyncPhase::Pending), None, None), "{outcome:?}");
        case.status = ended;
        let waits = case.decide().status;
        assert_eq!((waits.phase, waits.attempt), (Some(SyncPhase::Queued), 1));
        assert_eq!(ready(&waits).1, "OutsideWindow");
        case.sync_times = SyncTimes::ALWAYS;
        case.status = waits;
        let again = case.decide().status;
        assert_eq!((again.phase, again.attempt), (Some(SyncPhase::Running), 2));
    }
}

#[test]
fn a_sync_that_came_to_its_end_while_it_was_stopped_is_synced() {
    let mut case = MailboxFixture::running();
    case.sync_times = closed(&case, Some(HOUR));
    case.status = case.decide().status;
    assert_eq!(ends(&mut case, Outcome::Synced, None, 3).phase, Some(SyncPhase::Synced));
}

#[test]
fn windows_that_never_open_keep_a_mailbox_waiting_until_they_are_changed() {
    let mut case = MailboxFixture::new();
    case.sync_times = closed(&case, None);
    let decision = case.decide();
    assert_eq!((decision.status.phase, decision.wake_after), (Some(SyncPhase::Queued), None));
    assert_eq!(decision.status.next_attempt_at, None);
}
