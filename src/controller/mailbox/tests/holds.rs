//! What keeps a mailbox from running: a suspended migration, a rule of the operator, another that has its destination.

use super::*;

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
        (HoldReason::GrantNotAllowed(Error::configuration("no grant")), SyncPhase::Stalled),
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
