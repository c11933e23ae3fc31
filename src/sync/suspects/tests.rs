use super::*;
use crate::{error::ErrorClass, imap::response::FetchResponse, sync::scan::FolderScan};

fn messages(sizes: &[u64]) -> Vec<ScannedMessage> {
    let mut scan = FolderScan::default();
    for (uid, size) in (1..).zip(sizes) {
        scan.add_fetch(FetchResponse {
            uid: Some(uid),
            flags: Some(vec![]),
            size: Some(*size),
            ..FetchResponse::default()
        });
    }
    scan.finish();
    scan.messages
}

fn controls(suspects: &SuspectTracker) -> Vec<u32> {
    suspects.controls.iter().map(|uid| uid.0).collect()
}

fn refused(suspects: &mut SuspectTracker, message: &ScannedMessage) {
    let error = Error::new(ErrorClass::MessageRejected, "no");
    suspects.record_refusal(message, true, &error, "no", 5);
}

fn round(suspects: &mut SuspectTracker, uid: u32, control: Option<u32>) {
    suspects.control = Some(PassedControl { size: control, left: BETWEEN_CONTROLS });
    suspects.record_round_refusal(SourceUid(uid));
    suspects.end_round();
}

#[test]
fn dates_and_timings_are_no_part_of_what_was_said() {
    for (text, said) in [
        ("Internal error. [2026-11-29 00:59:36] (0.001 + 0.001 secs).", "Internal error."),
        (
            "Quota exceeded (mailbox for user is full) (0.001 + 0.000 secs).",
            "Quota exceeded (mailbox for user is full)",
        ),
        ("no [not this one]", "no [not this one]"),
        ("no", "no"),
    ] {
        assert_eq!(without_timing(text), said);
    }
}

#[test]
fn two_rounds_beside_controls_of_its_size_prove_a_refusal() {
    let mut suspects = SuspectTracker::default();
    refused(&mut suspects, &messages(&[100])[0]);
    round(&mut suspects, 1, Some(100));
    assert!(!suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
    assert_eq!(suspects.left_in_round(), [SourceUid(1)]);
    round(&mut suspects, 1, Some(200));
    assert!(suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
    assert!(suspects.left_in_round().is_empty());
}

#[test]
fn smaller_controls_prove_nothing_and_four_rounds_are_enough() {
    let mut suspects = SuspectTracker::default();
    refused(&mut suspects, &messages(&[100])[0]);
    for _ in 0..ROUNDS {
        assert_eq!(suspects.left_in_round(), [SourceUid(1)]);
        round(&mut suspects, 1, Some(99));
    }
    assert!(suspects.left_in_round().is_empty() && !suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
}

#[test]
fn a_reason_given_again_and_again_between_accepted_messages_is_the_messages_own() {
    let all = messages(&[100; 2 * MANY_REFUSED]);
    let mut suspects = SuspectTracker::default();
    for pair in all.chunks(2) {
        assert!(!suspects.is_of_messages("no"));
        suspects.record_acceptance(&pair[0]);
        refused(&mut suspects, &pair[1]);
    }
    assert!(suspects.is_of_messages("no") && !suspects.is_of_messages("full"));
    assert!(suspects.most_are_ordinary());
    // One that was refused is accepted: the server is to blame after all.
    suspects.record_acceptance(&all[1]);
    assert!(!suspects.is_of_messages("no"));
}

#[test]
fn refusals_in_a_row_tell_nothing_of_whose_fault_they_are() {
    let mut suspects = SuspectTracker::default();
    suspects.record_acceptance(&messages(&[100])[0]);
    for message in &messages(&[100; 50]) {
        refused(&mut suspects, message);
    }
    assert!(!suspects.is_of_messages("no") && !suspects.most_are_ordinary());
}

#[test]
fn where_a_server_seems_to_refuse_by_size_smaller_messages_are_the_controls() {
    let sizes: Vec<u64> = (1..=40).map(|n| if n % 2 == 0 { 1000 + n } else { n }).collect();
    let all = messages(&sizes);
    let mut suspects = SuspectTracker::default();
    for pair in all[..20].chunks(2) {
        suspects.record_acceptance(&pair[0]);
        refused(&mut suspects, &pair[1]);
    }
    let pending: Vec<(ScannedMessage, bool)> = all[20..].iter().map(|m| (*m, false)).collect();
    suspects.choose_controls(&pending);
    assert!(suspects.controls.is_empty(), "larger than all that was accepted: {:?}", suspects.controls);
    suspects.record_acceptance(&all[38]);
    suspects.choose_controls(&pending);
    assert_eq!(controls(&suspects), [35, 37, 39]);
    // One refusal of a small message: size is not the reason.
    let mut suspects = SuspectTracker { controls: BTreeSet::new(), ..suspects };
    refused(&mut suspects, &all[0]);
    suspects.choose_controls(&pending);
    assert_eq!(controls(&suspects), [34, 36, 38, 40]);
}

#[test]
fn a_fault_that_comes_and_goes_needs_all_rounds() {
    let mut suspects = SuspectTracker::default();
    let all = messages(&[100, 100]);
    for message in &all {
        refused(&mut suspects, message);
    }
    round(&mut suspects, 1, Some(100));
    suspects.record_acceptance(&all[1]);
    round(&mut suspects, 1, Some(100));
    assert!(!suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
    round(&mut suspects, 1, Some(100));
    round(&mut suspects, 1, Some(100));
    assert!(suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
}

#[test]
fn a_round_in_which_the_server_was_unwell_does_not_count() {
    let mut suspects = SuspectTracker::default();
    refused(&mut suspects, &messages(&[100])[0]);
    suspects.control = Some(PassedControl { size: Some(100), left: BETWEEN_CONTROLS });
    suspects.record_round_refusal(SourceUid(1));
    suspects.void_round();
    suspects.end_round();
    assert_eq!(suspects.get(SourceUid(1)).unwrap().rounds, 0);
}

#[test]
fn controls_are_the_largest_one_with_keywords_and_another() {
    let mut suspects = SuspectTracker::default();
    let all = messages(&[10, 70, 20, 50, 60, 40]);
    refused(&mut suspects, &all[0]);
    let pending: Vec<(ScannedMessage, bool)> = all[1..].iter().map(|m| (*m, m.uid.0 == 3)).collect();
    suspects.choose_controls(&pending);
    assert_eq!(controls(&suspects), [2, 3, 5]);
    assert!(!suspects.wants_controls());
}

#[test]
fn what_was_refused_stays_in_the_tail_until_it_was_looked_for() {
    let mut suspects = SuspectTracker::default();
    let all = messages(&[10, 10]);
    refused(&mut suspects, &all[0]);
    assert_eq!((suspects.doubt_from, suspects.is_in_doubt(SourceUid(1))), (Some(5), true));
    suspects.clear_doubt();
    assert_eq!((suspects.doubt_from, suspects.is_in_doubt(SourceUid(1))), (None, false));
}
