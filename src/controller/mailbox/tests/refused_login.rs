//! A refused login is tried again only with another login, or when somebody asks for it; and what else waits for a change is
//! not woken by a resumption.

use super::*;
use crate::{
    Side,
    api::{MasterMode, MasterUser, SecretKeyRef, SyncEndpoint, pod_overrides::PodOverrides},
};

type SpecEdit = fn(&mut MailboxSyncSpec);
type SourceEdit = fn(&mut SyncEndpoint);

fn secret(name: &str, key: &str) -> SecretKeyRef {
    SecretKeyRef { name: name.into(), key: key.into() }
}

fn endpoint(host: &str, secret_name: &str) -> SyncEndpoint {
    let mut endpoint = SyncEndpoint::default();
    endpoint.server.host = host.into();
    endpoint.account.username = Some("alice".into());
    endpoint.account.password_secret_ref = Some(secret(secret_name, "alice"));
    endpoint
}

fn seen(versions: &[&str]) -> SecretsSeen {
    SecretsSeen::Present(versions.iter().map(|version| (*version).to_owned()).collect())
}

/// Its first attempt ended with this error.
fn failed(error: &Error) -> MailboxFixture {
    let mut case = MailboxFixture::new();
    case.spec.source = endpoint("old.example", "old");
    case.spec.destination = endpoint("new.example", "new");
    case.spec.destination.server.tls.ca_bundle_ref = Some(secret("authority", "ca.crt"));
    case.secrets = seen(&["authority=1", "new=1", "old=1"]);
    case.status = case.decide().status;
    case.pods = vec![pod(1, None)];
    case.status = case.decide().status;
    ends(&mut case, Outcome::Failed, Some(LastError::new(error, None)), 0);
    case.pods.clear();
    settles(&mut case);
    case
}

fn refused(side: Option<Side>) -> MailboxFixture {
    let case = failed(&Error { side, ..Error::new(ErrorClass::Authentication, "no") });
    assert_eq!((case.status.phase, case.status.login_refused), (Some(SyncPhase::Stalled), true));
    case
}

/// Decides until nothing is to be written.
fn settles(case: &mut MailboxFixture) {
    for _ in 0..8 {
        let status = case.decide().status;
        if status == case.status {
            return;
        }
        case.status = status;
    }
    panic!("it does not settle: {:?}", case.status);
}

/// Somebody changes the spec.
fn edit(case: &mut MailboxFixture, change: impl FnOnce(&mut MailboxSyncSpec)) {
    change(&mut case.spec);
    case.generation += 1;
    settles(case);
}

#[test]
fn a_refused_login_outlives_every_edit_that_does_not_concern_it() {
    let edits: [(&str, SpecEdit); 9] = [
        ("finishedPodsTTL", |spec| spec.settings.finished_pods_ttl = Duration::from_secs(7)),
        ("deadline", |spec| spec.settings.deadline = Duration::from_secs(3600)),
        ("retry", |spec| spec.settings.retry.max_failures = Some(9)),
        ("folders", |spec| spec.settings.folders.exclude = vec!["Junk".into()]),
        ("connections", |spec| spec.settings.connections = 1),
        ("pods", |spec| spec.pod_overrides = Some(PodOverrides::default().into())),
        ("cutover", |spec| spec.settings.cutover = serde_json::from_str("{}").unwrap()),
        ("limits", |spec| spec.source.server.limits.max_connections = Some(3)),
        ("TLS", |spec| spec.destination.server.tls.ca_bundle_ref = None),
    ];
    for (what, change) in edits {
        let mut case = refused(Some(Side::Source));
        edit(&mut case, change);
        case.pass(1_000_000);
        settles(&mut case);
        let status = &case.status;
        assert_eq!((status.attempt, status.phase), (1, Some(SyncPhase::Stalled)), "{what}");
        assert_eq!(status.last_error.as_ref().map(|error| error.class), Some(ErrorClass::Authentication), "{what}");
    }
}

#[test]
fn where_nobody_sees_secrets_a_refused_login_waits_for_a_request_and_says_so() {
    let mut case = refused(Some(Side::Source));
    case.secrets = SecretsSeen::Unreadable;
    settles(&mut case);
    let ready = case.status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert!(ready.message.contains("no right to get Secrets") && ready.message.contains("syncRequest"), "{ready:?}");
    case.pass(1_000_000);
    let waits = case.decide();
    assert_eq!((waits.status.attempt, waits.actions.as_slice(), waits.wake_after), (1, &[][..], None));
    edit(&mut case, |spec| spec.sync_request = Some("again".into()));
    assert_eq!((case.status.attempt, case.status.phase), (2, Some(SyncPhase::Running)));
    assert_eq!(case.status.secret_versions, [""; 0]);
}

#[test]
fn a_refused_login_outlives_suspend_and_resume_and_a_cancellation_that_is_taken_back() {
    let mut case = refused(None);
    edit(&mut case, |spec| spec.suspend = true);
    edit(&mut case, |spec| spec.suspend = false);
    assert_eq!((case.status.attempt, case.status.phase), (1, Some(SyncPhase::Stalled)));
    edit(&mut case, |spec| spec.cancel = true);
    assert_eq!(case.status.phase, Some(SyncPhase::Cancelled));
    edit(&mut case, |spec| spec.cancel = false);
    assert_eq!((case.status.attempt, case.status.phase), (1, Some(SyncPhase::Stalled)));
}

#[test]
fn another_account_or_credential_starts_the_next_attempt() {
    let edits: [(&str, SourceEdit); 7] = [
        ("host", |source| source.server.host = "other.example".into()),
        ("user", |source| source.account.username = Some("Alice".into())),
        ("Secret", |source| source.account.password_secret_ref = Some(secret("other", "alice"))),
        ("key", |source| source.account.password_secret_ref = Some(secret("old", "other"))),
        ("token", |source| {
            source.account.token_secret_ref = source.account.password_secret_ref.take();
        }),
        ("master user", |source| {
            source.account.password_secret_ref = None;
            source.master_user = Some(
                MasterUser {
                    username: "admin".into(),
                    password_secret_ref: secret("old", "admin"),
                    mode: MasterMode::Suffix,
                    separator: None,
                }
                .into(),
            );
        }),
        ("port", |source| source.server.port = Some(1993)),
    ];
    for (what, change) in edits {
        let mut case = refused(Some(Side::Source));
        edit(&mut case, |spec| change(&mut spec.source));
        assert_eq!((case.status.attempt, case.status.login_refused), (2, false), "{what}");
    }
}

#[test]
fn only_a_version_of_the_secret_that_was_refused_starts_the_next_attempt() {
    let mut case = refused(Some(Side::Source));
    for others in [["authority=2", "new=1", "old=1"], ["authority=1", "new=2", "old=1"]] {
        case.secrets = seen(&others);
        settles(&mut case);
        assert_eq!(case.status.attempt, 1, "{others:?}");
    }
    case.secrets = seen(&["authority=1", "new=1", "old=2"]);
    settles(&mut case);
    assert_eq!(case.status.attempt, 2);
    // Nobody said which side it was.
    let mut case = refused(None);
    case.secrets = seen(&["authority=1", "new=2", "old=1"]);
    settles(&mut case);
    assert_eq!(case.status.attempt, 2);
}

#[test]
fn a_request_tries_a_refused_login_once() {
    let mut case = refused(None);
    edit(&mut case, |spec| spec.sync_request = Some("it is open now".into()));
    assert_eq!(case.status.attempt, 2);
    case.pods = vec![pod(2, None)];
    settles(&mut case);
    let error = Error::new(ErrorClass::Authentication, "no");
    ends(&mut case, Outcome::Failed, Some(LastError::new(&error, None)), 0);
    case.pods.clear();
    edit(&mut case, |spec| spec.settings.finished_pods_ttl = Duration::from_secs(7));
    assert_eq!((case.status.attempt, case.status.phase), (2, Some(SyncPhase::Stalled)));
}

#[test]
fn a_login_that_is_refused_while_the_attempt_is_cancelled_is_remembered() {
    let mut case = MailboxFixture::running();
    case.status.stopping = Some(Stopping { at: Time(case.now), reason: StopReason::Cancelled });
    let error = Error::new(ErrorClass::Authentication, "no");
    let settled = ends(&mut case, Outcome::Failed, Some(LastError::new(&error, None)), 0);
    assert_eq!((settled.phase, settled.login_refused), (Some(SyncPhase::Cancelled), true));
}

#[test]
fn a_status_of_an_earlier_version_keeps_a_refused_login_too() {
    let mut case = refused(None);
    case.status.login_refused = false;
    case.status.attempt_input = None;
    edit(&mut case, |spec| spec.settings.finished_pods_ttl = Duration::from_secs(7));
    assert_eq!((case.status.attempt, case.status.phase), (1, Some(SyncPhase::Stalled)));
    case.secrets = seen(&["authority=1", "new=1", "old=2"]);
    settles(&mut case);
    assert_eq!(case.status.attempt, 2);
}

#[test]
fn what_waits_for_a_change_or_for_its_time_is_not_tried_sooner_after_suspend_and_resume() {
    let unwell = Error { retry_at: None, ..Error::new(ErrorClass::Network, "away") };
    for (error, phase) in [
        (Error::configuration("wrong"), SyncPhase::Failed),
        (Error::new(ErrorClass::Authorization, "no right"), SyncPhase::Stalled),
        (Error::new(ErrorClass::Quota, "full"), SyncPhase::Stalled),
        (Error::new(ErrorClass::Tls, "expired"), SyncPhase::Stalled),
        (unwell, SyncPhase::Backoff),
    ] {
        let mut case = failed(&error);
        let before = (case.status.attempt, case.status.phase, case.status.next_attempt_at.clone());
        assert_eq!(before.1, Some(phase), "{error:?}");
        for change in [|s: &mut MailboxSyncSpec| s.suspend = true, |s: &mut MailboxSyncSpec| s.suspend = false] {
            edit(&mut case, change);
            let after = (case.status.attempt, case.status.phase, case.status.next_attempt_at.clone());
            assert_eq!(after, before, "{error:?}");
        }
        edit(&mut case, |spec| spec.settings.finished_pods_ttl = Duration::from_secs(7));
        assert_eq!(case.status.attempt, 1, "{error:?}");
        if phase != SyncPhase::Backoff {
            edit(&mut case, |spec| spec.settings.folders.exclude = vec!["Junk".into()]);
            assert_eq!(case.status.attempt, 2, "a correction is tried at once: {error:?}");
        }
    }
}

#[test]
fn what_comes_due_while_it_is_suspended_starts_when_it_is_resumed() {
    let mut case = failed(&Error::network("away"));
    edit(&mut case, |spec| spec.suspend = true);
    case.pass(100_000);
    settles(&mut case);
    assert_eq!((case.status.attempt, case.status.phase), (1, Some(SyncPhase::Backoff)));
    edit(&mut case, |spec| spec.suspend = false);
    assert_eq!(case.status.attempt, 2);
}
