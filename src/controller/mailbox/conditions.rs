//! A mailbox's conditions: what kstatus, `kubectl wait` and people read; and whether all of it is copied.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    due::{DueFacts, is_outdated},
    observe::{HoldReason, ObservedMailbox, SecretsSeen, TokensSeen},
    start_wait::{GATED, StartWait, start_wait},
};
use crate::{
    api::{
        MailboxSyncSpec, MailboxSyncStatus,
        mailbox_sync::{HeldFolderDeletions, Outcome, SyncPhase},
    },
    controller::{
        all_copied::{self, ALL_COPIED, CopiedVerdict},
        condition::ConditionList,
    },
};

/// The type of the condition that deletions wait for a confirmation.
pub(crate) const DELETIONS_HELD: &str = "DeletionsHeld";

/// So many folders with held deletions are named in a condition.
const HELD_FOLDERS_SHOWN: usize = 5;

/// The condition of what was changed after its last sync.
pub(crate) const OUTDATED: &str = "Outdated";

/// The reason of the Ready condition while the time windows of a server are closed.
const OUTSIDE_WINDOW: &str = "OutsideWindow";

/// What is said of a refused login where nobody sees whether the Secret changes.
const REQUEST_NEEDED: &str = "The operator has no right to get Secrets, so it does not see that one was corrected: ask for \
                              another sync by the MailMigration's spec.syncRequest";

/// Whether all messages of a mailbox are copied, as far as its worker has reported.
#[must_use]
pub(crate) fn copied_verdict(spec: &MailboxSyncSpec, status: &MailboxSyncStatus) -> CopiedVerdict {
    let unknown = |why: &str| CopiedVerdict::Unknown(why.to_owned());
    if spec.settings.dry_run {
        return unknown("a dry run copies nothing");
    }
    let worker = status.worker.as_ref();
    let not_copied = worker.and_then(|worker| worker.not_copied.as_ref());
    if let Some(not_copied) = not_copied.filter(|not_copied| not_copied.messages > 0) {
        return CopiedVerdict::Missing(not_copied.clone());
    }
    if status.syncs == 0 {
        return unknown("no sync has ended yet");
    }
    // Synced by a dry run, or by a version that did not tell.
    let Some(not_copied) = not_copied else { return unknown("no sync has told yet; `syncRequest` asks for one") };
    // It ended by its last word alone, as the API server was away: what stands is older.
    let untold = worker.is_some_and(|w| w.attempt == status.attempt && w.outcome != Some(Outcome::Synced));
    if untold && status.phase == Some(SyncPhase::Synced) {
        return unknown("the last report of the sync did not arrive; the next sync tells");
    }
    match not_copied.uncounted_folders {
        0 => CopiedVerdict::Copied(all_copied::accepted_count(not_copied)),
        1 => unknown("1 folder is left out, and the source does not tell how many messages it holds"),
        many => CopiedVerdict::Unknown(format!(
            "{many} folders are left out, and the source does not tell how many messages they hold"
        )),
    }
}

/// What the last sync did not delete, and how it is let through; none where it held nothing.
fn held_deletions(status: &MailboxSyncStatus) -> Option<String> {
    let held = &status.worker.as_ref()?.held_deletions;
    let folders = held.iter().take(HELD_FOLDERS_SHOWN).map(held_in_folder).collect::<Vec<_>>().join("; ");
    let more = held.len().saturating_sub(HELD_FOLDERS_SHOWN);
    let more = if more > 0 { format!("; and {more} more folders") } else { String::new() };
    (!held.is_empty()).then(|| {
        format!(
            "copies were not deleted, as so many messages vanished from the source at once: {folders}{more}. To have them \
             deleted, add the token to the MailMigration's spec.confirmDeletions"
        )
    })
}

/// `INBOX: 8 of 10 messages, token 0123456789abcdef`.
pub(crate) fn held_in_folder(held: &HeldFolderDeletions) -> String {
    let HeldFolderDeletions { folder, messages, of, token, .. } = held;
    format!("{folder}: {messages} of {of} messages, token {token}")
}

/// Sets the conditions that go with the rest of the status.
pub(crate) fn set_conditions(observed: &ObservedMailbox<'_>, status: &mut MailboxSyncStatus) {
    let phase = status.phase.unwrap_or(SyncPhase::Pending);
    let error = status.last_error.as_ref();
    let failing = || {
        error.map_or_else(
            || "see status".to_owned(),
            |e| match &e.advice {
                Some(advice) => format!("{}: {}. {advice}", e.class, e.message),
                None => format!("{}: {}", e.class, e.message),
            },
        )
    };
    let verdict = copied_verdict(observed.spec, status);
    let synced = match &verdict {
        CopiedVerdict::Copied(_) => "everything is at the destination",
        CopiedVerdict::Missing(_) => "the sync ended well, but for messages that are not copied",
        CopiedVerdict::Unknown(_) => "the sync ended well",
    };
    let blind = phase == SyncPhase::Stalled && status.login_refused && observed.secrets == SecretsSeen::Unreadable;
    let (ready, reason, message) = match phase {
        SyncPhase::Stalled if blind => ("False", "Stalled", format!("{}. {REQUEST_NEEDED}", failing())),
        SyncPhase::Pending => ("True", "Pending", "waiting to start".to_owned()),
        SyncPhase::Queued => match &observed.hold {
            Some(HoldReason::DestinationTaken) => (
                "True",
                "DestinationTaken",
                "another migration has this destination account; this one waits".to_owned(),
            ),
            Some(HoldReason::MigrationSuspended) => ("True", "Suspended", "the migration is suspended".to_owned()),
            Some(HoldReason::MigrationInactive) => ("True", "Suspended", "the migration is being deleted".to_owned()),
            _ if observed.sync_times.closed().is_some() => {
                let words = observed.sync_times.closed().map(|closed| closed.words.clone());
                ("True", OUTSIDE_WINDOW, words.unwrap_or_default())
            }
            None if observed.granted_slots.is_some() && observed.tokens == TokensSeen::Absent => {
                ("True", "Queued", "waiting for its access token".to_owned())
            }
            _ => {
                let words = observed.waits_for.clone();
                ("True", "Queued", words.unwrap_or_else(|| "waiting for its turn".to_owned()))
            }
        },
        SyncPhase::Running => match start_wait(observed) {
            Some(StartWait::Gates(gates)) => {
                ("True", GATED, format!("the attempt's pod waits for its scheduling gates: {gates}"))
            }
            Some(StartWait::Node(why)) => {
                ("True", "Unschedulable", format!("the attempt's pod waits for a node: {why}"))
            }
            Some(StartWait::Start) | None => ("True", "Running", "an attempt runs".to_owned()),
        },
        SyncPhase::Synced => ("True", "Synced", synced.to_owned()),
        SyncPhase::Suspended => ("True", "Suspended", "stopped at a checkpoint".to_owned()),
        SyncPhase::Cancelled => ("True", "Cancelled", "stopped for good on request".to_owned()),
        SyncPhase::Backoff => match error {
            Some(_) => ("False", "Backoff", failing()),
            None => ("False", "PodLost", "the cluster took the pod; another attempt follows".to_owned()),
        },
        SyncPhase::Stalled => {
            let reason = match (&observed.hold, error) {
                (Some(HoldReason::DestinationNotAllowed(why)), Some(error)) if error.message == why.what => {
                    "DestinationNotAllowed"
                }
                (Some(HoldReason::GrantNotAllowed(why)), Some(error)) if error.message == why.what => "GrantNotAllowed",
                _ => "Stalled",
            };
            ("False", reason, failing())
        }
        SyncPhase::Failed => ("False", "Failed", failing()),
    };
    let conditions = std::mem::take(&mut status.conditions);
    let now = Time(observed.now);
    let mut conditions = ConditionList::new(conditions, observed.generation, now);
    conditions.set("Ready", ready, reason, &message);
    let (copied, reason_copied, message_copied) = verdict.condition_parts();
    // While an attempt runs, counts rise with each report: they are told at its end.
    if !(phase == SyncPhase::Running && conditions.has_status(ALL_COPIED, copied)) {
        conditions.set(ALL_COPIED, copied, reason_copied, &message_copied);
    }
    if is_outdated(&DueFacts { status, ..DueFacts::from_observed(observed) }) {
        conditions.set(OUTDATED, "True", "ChangedAfterSync", "its spec was changed after its last sync, and no other one is planned: what was synced stays as it is. Another text in the MailMigration's spec.syncRequest has it synced once more, by the spec as it is now");
    } else {
        conditions.remove(OUTDATED);
    }
    match held_deletions(status) {
        Some(held) => conditions.set(DELETIONS_HELD, "True", "ConfirmationNeeded", &held),
        None => conditions.remove(DELETIONS_HELD),
    }
    if matches!(phase, SyncPhase::Stalled | SyncPhase::Failed) {
        conditions.set("Stalled", "True", reason, &message);
    } else {
        conditions.remove("Stalled");
    }
    status.conditions = conditions.into_conditions();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{WorkerStatus, not_copied::NotCopied},
        controller::testing,
    };

    fn status(syncs: i64, not_copied: Option<NotCopied>) -> MailboxSyncStatus {
        let worker = WorkerStatus { attempt: 2, outcome: Some(Outcome::Synced), not_copied, ..WorkerStatus::default() };
        let (attempt, phase, worker) = (2, Some(SyncPhase::Synced), Some(worker));
        MailboxSyncStatus { phase, attempt, syncs, worker, ..MailboxSyncStatus::default() }
    }

    fn verdict(status: &MailboxSyncStatus) -> &'static str {
        copied_verdict(&testing::mailbox_spec("m", "a"), status).condition_parts().0
    }

    fn missing(messages: i64) -> NotCopied {
        NotCopied { messages, reasons: [("refused".to_owned(), messages)].into(), ..NotCopied::default() }
    }

    #[test]
    fn all_is_copied_once_a_sync_has_ended_and_nothing_is_missing() {
        let none = Some(NotCopied::default());
        assert_eq!(verdict(&status(1, none.clone())), "True");
        assert_eq!(verdict(&status(0, none)), "Unknown", "no sync has ended");
        assert_eq!(verdict(&status(1, None)), "Unknown", "nobody looked");
        assert_eq!(verdict(&MailboxSyncStatus::default()), "Unknown");
        let accepted = NotCopied { accepted: [("tooLarge".to_owned(), 3)].into(), ..NotCopied::default() };
        let accepted = copied_verdict(&testing::mailbox_spec("m", "a"), &status(1, Some(accepted)));
        assert_eq!(accepted, CopiedVerdict::Copied(3));
    }

    #[test]
    fn what_is_known_to_be_missing_is_told_before_the_first_sync_has_ended() {
        assert_eq!(verdict(&status(0, Some(missing(3)))), "False");
        let uncounted = NotCopied { uncounted_folders: 1, ..missing(3) };
        assert_eq!(verdict(&status(1, Some(uncounted))), "False", "more may be missing, but these are");
    }

    #[test]
    fn a_folder_that_nobody_could_count_leaves_it_open() {
        let uncounted = NotCopied { uncounted_folders: 1, ..NotCopied::default() };
        assert_eq!(verdict(&status(1, Some(uncounted))), "Unknown");
    }

    #[test]
    fn a_dry_run_leaves_it_open_whatever_stands() {
        let mut spec = testing::mailbox_spec("m", "a");
        spec.settings.dry_run = true;
        for not_copied in [None, Some(NotCopied::default()), Some(missing(3))] {
            assert_eq!(copied_verdict(&spec, &status(1, not_copied)).condition_parts().0, "Unknown");
        }
    }

    #[test]
    fn what_stands_is_not_believed_after_a_sync_whose_last_report_did_not_arrive() {
        let mut status = status(2, Some(NotCopied::default()));
        status.worker.as_mut().unwrap().outcome = None;
        assert_eq!(verdict(&status), "Unknown");
        // The next attempt was lost before it had claimed: what stands is the last sync's.
        status.worker.as_mut().unwrap().attempt = 1;
        assert_eq!(verdict(&status), "True");
    }
}
