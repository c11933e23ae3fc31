//! When the next attempt is made.

use super::*;

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
