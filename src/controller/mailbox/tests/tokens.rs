//! What a mailbox does that logs in by a grant, before its access token is there and when there is none.

use super::*;
use crate::{Side, api::common::LocalRef};

fn by_grant(tokens: TokensSeen) -> MailboxFixture {
    let mut case = MailboxFixture::new();
    case.spec.source.account.username = Some("alice@acme.example".into());
    case.spec.source.grant_ref = Some(LocalRef { name: "acme".into() });
    case.secrets = SecretsSeen::Present(vec!["mail=1".into(), "grant:acme=1".into()]);
    case.tokens = tokens;
    case
}

fn no_token(class: ErrorClass) -> TokensSeen {
    TokensSeen::Failed(Error::new(class, "the provider said no").on(Side::Source, "old.example:993"))
}

#[test]
fn a_token_is_got_once_it_is_a_mailboxs_turn_and_its_attempt_begins_when_it_is_there() {
    let mut case = by_grant(TokensSeen::Absent);
    case.granted_slots = None;
    case.status = case.decide().status;
    assert_eq!(
        case.decide().actions,
        [SyncAction::RequestSlots],
        "it may wait for its turn for longer than a token lasts"
    );
    case.granted_slots = Some(2);
    let waits = case.decide();
    assert_eq!((waits.status.phase, waits.status.attempt), (Some(SyncPhase::Queued), 0));
    case.status = waits.status;
    assert_eq!(case.decide().actions, [SyncAction::KeepTokens]);
    case.tokens = TokensSeen::Ready;
    case.status = case.decide().status;
    assert_eq!((case.status.phase, case.status.attempt), (Some(SyncPhase::Running), 1));
    assert_eq!(case.decide().actions, [SyncAction::CreatePod]);
}

#[test]
fn no_pod_is_made_before_its_token_is_there_whatever_became_of_the_process_that_got_it() {
    let mut case = by_grant(TokensSeen::Ready);
    case.status = case.decide().status;
    case.tokens = TokensSeen::Absent;
    assert_eq!(case.decide().actions, [SyncAction::KeepTokens]);
    case.tokens = no_token(ErrorClass::Network);
    let given_back = case.decide();
    assert!(given_back.actions.is_empty() && given_back.status.slots.is_none(), "{given_back:?}");
    case.status = given_back.status;
    case.status = case.decide().status;
    assert_eq!((case.status.phase, case.status.attempt), (Some(SyncPhase::Backoff), 1));
    assert!(case.status.next_attempt_at.is_some());
}

#[test]
fn tokens_of_a_pod_that_runs_are_kept_by_a_process_that_starts_anew() {
    let mut case = by_grant(TokensSeen::Ready);
    case.status = case.decide().status;
    case.pods = vec![pod(1, Some(is_running()))];
    case.status = case.decide().status;
    assert!(!case.decide().actions.contains(&SyncAction::KeepTokens));
    case.tokens = TokensSeen::Absent;
    assert!(case.decide().actions.contains(&SyncAction::KeepTokens));
    case.tokens = no_token(ErrorClass::Authentication);
    assert_eq!(case.decide().status.slots, Some(2), "what it has may be good for a while");
}

#[test]
fn a_refused_grant_waits_for_another_version_of_its_own_secret() {
    let mut case = by_grant(no_token(ErrorClass::Authentication));
    let refused = case.decide();
    assert_eq!(refused.events.iter().map(|note| note.reason).collect::<Vec<_>>(), ["SyncFailed"]);
    case.status = refused.status;
    let error = case.status.last_error.clone().unwrap();
    assert_eq!((case.status.phase, case.status.attempt, error.side), (Some(SyncPhase::Stalled), 0, Some(Side::Source)));
    assert!(case.decide().actions.is_empty(), "nobody is asked again");
    case.secrets = SecretsSeen::Present(vec!["mail=2".into(), "grant:acme=1".into()]);
    assert!(case.decide().actions.is_empty(), "another Secret's version counts for nothing");
    case.secrets = SecretsSeen::Present(vec!["mail=1".into(), "grant:acme=2".into()]);
    case.tokens = TokensSeen::Absent;
    case.status = case.decide().status;
    assert_eq!(case.decide().actions, [SyncAction::KeepTokens]);
}

#[test]
fn a_grant_that_somebody_else_has_to_correct_is_tried_now_and_then() {
    for class in [ErrorClass::Configuration, ErrorClass::Authorization] {
        let mut case = by_grant(no_token(class));
        case.status = case.decide().status;
        assert_eq!(case.status.phase, Some(SyncPhase::Stalled), "{class}");
        assert!(case.status.next_attempt_at.is_some() && !case.status.login_refused, "{class}");
        assert!(case.decide().actions.is_empty());
    }
}
