//! What is edited after the last sync of a mailbox starts no other one by itself, and is not passed over in silence.

use super::*;
use crate::{api::mailbox_sync::HeldFolderDeletions, controller::condition::is_true};

/// Its only sync ended well.
fn complete(dry_run: bool) -> MailboxFixture {
    let mut case = MailboxFixture::new();
    case.spec.settings.dry_run = dry_run;
    case.status = case.decide().status;
    case.pods = vec![pod(1, None)];
    case.status = case.decide().status;
    case.status.worker = Some(report(2, Some(Outcome::Synced)));
    case.pods = vec![ended_with(&report(2, Some(Outcome::Synced)))];
    case.status = case.decide().status;
    case.pods.clear();
    case.status = case.decide().status;
    assert_eq!((case.status.phase, case.status.next_attempt_at.clone()), (Some(SyncPhase::Synced), None));
    assert!(!is_true(&case.status.conditions, "Outdated"));
    case
}

fn edit(case: &mut MailboxFixture, change: impl FnOnce(&mut MailboxSyncSpec)) {
    change(&mut case.spec);
    case.generation += 1;
}

#[test]
fn an_edit_after_the_last_sync_is_told_and_starts_none() {
    let mut case = complete(false);
    edit(&mut case, |spec| spec.settings.messages.max_size = Some("1Mi".parse().unwrap()));
    let decision = case.decide();
    assert_eq!((decision.status.phase, decision.status.observed_generation), (Some(SyncPhase::Synced), Some(2)));
    let outdated = decision.status.conditions.iter().find(|c| c.type_ == "Outdated").unwrap();
    assert!(outdated.status == "True" && outdated.message.contains("syncRequest"), "{}", outdated.message);
    case.status = decision.status;
    assert_eq!(case.decide().actions, []);
    // Whoever takes it back, or asks for a sync, is told no more.
    let mut back = MailboxFixture { spec: case.spec.clone(), status: case.status.clone(), ..complete(false) };
    edit(&mut back, |spec| spec.settings.messages.max_size = None);
    assert!(!is_true(&back.decide().status.conditions, "Outdated"));
    edit(&mut case, |spec| spec.sync_request = Some("again".to_owned()));
    let asked = case.decide().status;
    assert_eq!((asked.phase, asked.attempt), (Some(SyncPhase::Running), 2));
    assert!(!is_true(&asked.conditions, "Outdated"));
}

#[test]
fn deletions_that_are_confirmed_have_a_sync_due_and_others_have_none() {
    let mut case = complete(false);
    let held = HeldFolderDeletions { folder: "INBOX".into(), token: "a".into(), ..HeldFolderDeletions::default() };
    case.status.worker.as_mut().unwrap().held_deletions = vec![held];
    let told = case.decide().status;
    assert!(is_true(&told.conditions, "DeletionsHeld") && told.phase == Some(SyncPhase::Synced));
    edit(&mut case, |spec| spec.settings.confirm_deletions = vec!["b".to_owned()]);
    let decision = case.decide();
    assert_eq!(
        (decision.status.phase, is_true(&decision.status.conditions, "Outdated")),
        (Some(SyncPhase::Synced), false)
    );
    edit(&mut case, |spec| spec.settings.confirm_deletions.push("a".to_owned()));
    let confirmed = case.decide().status;
    assert_eq!((confirmed.phase, confirmed.attempt), (Some(SyncPhase::Running), 2));
}

#[test]
fn an_edit_that_changes_no_sync_or_meets_a_schedule_is_not_outdated() {
    let mut case = complete(false);
    edit(&mut case, |spec| spec.settings.finished_pods_ttl = Duration::from_secs(60));
    assert!(!is_true(&case.decide().status.conditions, "Outdated"));
    edit(&mut case, |spec| {
        spec.settings.schedule = Some(Schedule { every: Duration::from_secs(3600), jitter_percent: 10 });
        spec.settings.dry_run = false;
        spec.settings.connections = 1;
    });
    let scheduled = case.decide().status;
    assert!(scheduled.next_attempt_at.is_some() && !is_true(&scheduled.conditions, "Outdated"));
}

#[test]
fn an_operator_that_did_not_tell_what_it_synced_by_leaves_it_open() {
    let mut case = complete(false);
    case.status.attempt_input = None;
    edit(&mut case, |spec| spec.settings.connections = 1);
    assert!(!is_true(&case.decide().status.conditions, "Outdated"));
}

#[test]
fn what_was_only_rehearsed_is_synced_once_it_is_no_dry_run_any_more() {
    let mut case = complete(true);
    edit(&mut case, |spec| spec.settings.dry_run = false);
    let started = case.decide().status;
    assert_eq!((started.phase, started.attempt), (Some(SyncPhase::Running), 2));
    assert_eq!(started.attempt_input.map(|input| input.dry_run), Some(false));
}
