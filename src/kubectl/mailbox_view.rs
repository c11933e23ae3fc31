//! What is shown of a MailboxSync: its phase, and what it waits for. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    api::{
        MailboxSync, MailboxSyncStatus,
        common::LastError,
        mailbox_sync::{SyncPhase, WorkerPhase, WorkerStatus},
    },
    terminal_text::format_duration,
};

/// What is shown of a MailboxSync, without its checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MailboxView {
    /// The namespace.
    pub namespace: String,
    /// The MailMigration that it belongs to.
    pub migration: String,
    /// The mailbox's name in the migration.
    pub mailbox: String,
    /// Where it stands.
    pub phase: SyncPhase,
    /// What it does or waits for, in a clause.
    pub wait: String,
    /// It is synced with nothing missing, or stopped for good: there is nothing to wait for.
    pub at_rest: bool,
    /// The last error of one that fails.
    pub error: Option<LastError>,
    /// In how long the next attempt is due. None: none is planned, or it is due now.
    pub next_in: Option<Duration>,
}

impl MailboxView {
    /// The view of a MailboxSync at this time.
    #[must_use]
    pub(crate) fn new(sync: &MailboxSync, now: Timestamp) -> Self {
        let empty = MailboxSyncStatus::default();
        let status = sync.status.as_ref().unwrap_or(&empty);
        let phase = status.phase.unwrap_or(SyncPhase::Pending);
        let fails = is_failing(phase);
        let next_in = until(status.next_attempt_at.as_ref(), now);
        let copied = condition(status, "AllCopied");
        Self {
            namespace: sync.metadata.namespace.clone().unwrap_or_default(),
            migration: sync.spec.migration.clone(),
            mailbox: sync.spec.mailbox.clone(),
            phase,
            wait: wait_words(status, phase, next_in, now),
            at_rest: match phase {
                SyncPhase::Cancelled => true,
                SyncPhase::Synced => copied.is_none_or(|copied| copied.status != "False"),
                _ => false,
            },
            error: status.last_error.clone().filter(|_| fails),
            next_in,
        }
    }
}

/// True for the phases of mailboxes that fail.
#[must_use]
pub(crate) const fn is_failing(phase: SyncPhase) -> bool {
    matches!(phase, SyncPhase::Backoff | SyncPhase::Stalled | SyncPhase::Failed)
}

fn condition<'s>(status: &'s MailboxSyncStatus, type_: &str) -> Option<&'s Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// How long it is until a time that lies ahead.
fn until(time: Option<&Time>, now: Timestamp) -> Option<Duration> {
    Duration::try_from(time?.0.duration_since(now)).ok().filter(|length| !length.is_zero())
}

fn wait_words(status: &MailboxSyncStatus, phase: SyncPhase, next_in: Option<Duration>, now: Timestamp) -> String {
    let Some(ready) = condition(status, "Ready") else {
        return "the operator has not looked at it yet".to_owned();
    };
    if let Some(stopping) = &status.stopping {
        return format!("stopping at a checkpoint ({:?})", stopping.reason);
    }
    let copied = condition(status, "AllCopied").filter(|copied| copied.status == "False");
    let words = match (phase, ready.reason.as_str(), &status.worker) {
        (SyncPhase::Running, "Running", Some(worker)) if worker.attempt == status.attempt => running_words(worker, now),
        (SyncPhase::Synced, _, _) => copied.unwrap_or(ready).message.clone(),
        _ => ready.message.clone(),
    };
    let next = match phase {
        SyncPhase::Synced => "next sync",
        SyncPhase::Pending => "first attempt",
        _ => "next attempt",
    };
    match next_in {
        Some(length) => format!("{words}; {next} in {}", format_duration(length)),
        None => words,
    }
}

/// What the pod reports.
fn running_words(worker: &WorkerStatus, now: Timestamp) -> String {
    if let Some(waiting) = &worker.waiting {
        return match until(worker.waiting_until.as_ref(), now) {
            Some(length) => format!("{waiting}; for {}", format_duration(length)),
            None => waiting.clone(),
        };
    }
    let doing = match worker.phase {
        Some(WorkerPhase::Connecting) => "logging in",
        Some(WorkerPhase::Planning) => "listing folders",
        Some(WorkerPhase::Copying) => "copying",
        Some(WorkerPhase::Done | WorkerPhase::Failed) => "ending",
        Some(WorkerPhase::Queued) | None => "starting",
    };
    let mut words = vec![doing.to_owned()];
    if let Some(progress) = &worker.progress {
        words.extend(progress.done.iter().map(|done| format!("{done} done")));
        words.extend(progress.rate.clone());
        words.extend(until(progress.eta.as_ref(), now).map(|left| format!("{} left", format_duration(left))));
    }
    words.join(", ")
}

#[cfg(test)]
pub(crate) mod testing {
    use serde_json::{Value, json};

    use super::*;

    /// The time that views are made at.
    pub(crate) const NOW: &str = "2026-03-01T12:00:00Z";

    /// The view of a mailbox of migration `acme` with this status.
    pub(crate) fn view(mailbox: &str, status: &Value) -> MailboxView {
        let endpoint = json!({"server": {"host": "mail.example"}, "account": {"username": mailbox}});
        let sync = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync",
            "metadata": {"name": mailbox, "namespace": "customers"},
            "spec": {"migration": "acme", "mailbox": mailbox, "source": endpoint, "destination": endpoint},
            "status": status,
        });
        MailboxView::new(&serde_json::from_value(sync).unwrap(), NOW.parse().unwrap())
    }

    /// A status with a Ready condition.
    pub(crate) fn status(phase: &str, reason: &str, message: &str) -> Value {
        let ready = condition("Ready", "True", reason, message);
        json!({"phase": phase, "attempt": 1, "conditions": [ready]})
    }

    /// A condition as the API server has it.
    pub(crate) fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::testing::{NOW, condition, status, view};

    fn with(mut status: Value, more: &Value) -> Value {
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        status
    }

    #[test]
    fn a_mailbox_says_what_it_waits_for() {
        let waits = |status: Value| view("alice", &status).wait;
        assert_eq!(waits(Value::Null), "the operator has not looked at it yet");
        let queued = "waiting for connections to old.example:993 (limits.maxConnections: 4)";
        assert_eq!(waits(status("Queued", "Queued", queued)), queued);
        let later = json!({"nextAttemptAt": "2026-03-01T12:04:00Z"});
        let backoff = with(status("Backoff", "Backoff", "Network: connection refused"), &later);
        assert_eq!(waits(backoff), "Network: connection refused; next attempt in 4m00s");
        let due = json!({"nextAttemptAt": "2026-03-01T11:59:00Z"});
        assert_eq!(waits(with(status("Backoff", "Backoff", "Network: lost"), &due)), "Network: lost");
        let synced = with(status("Synced", "Synced", "everything is at the destination"), &later);
        assert_eq!(waits(synced), "everything is at the destination; next sync in 4m00s");
        let node = status("Running", "Unschedulable", "the attempt's pod waits for a node: no room");
        assert_eq!(
            waits(with(node, &json!({"worker": {"attempt": 1}}))),
            "the attempt's pod waits for a node: no room"
        );
        let stopping = json!({"stopping": {"at": NOW, "reason": "Suspended"}});
        assert_eq!(
            waits(with(status("Running", "Running", "an attempt runs"), &stopping)),
            "stopping at a checkpoint (Suspended)"
        );
    }

    #[test]
    fn a_mailbox_that_runs_says_what_its_own_pod_reports() {
        let waits = |attempt: i64, worker: Value| {
            let worker = with(json!({"attempt": attempt}), &worker);
            view("alice", &with(status("Running", "Running", "an attempt runs"), &json!({"worker": worker}))).wait
        };
        let progress = json!({"done": "42%", "rate": "12 MiB/s", "eta": "2026-03-01T12:10:00Z"});
        let copying = json!({"phase": "Copying", "progress": progress});
        assert_eq!(waits(1, copying.clone()), "copying, 42% done, 12 MiB/s, 10m00s left");
        assert_eq!(waits(0, copying), "an attempt runs", "that is the report of the attempt before");
        assert_eq!(waits(1, json!({"phase": "Connecting"})), "logging in");
        let slower = json!({"waiting": "the source asks for a slower pace", "waitingUntil": "2026-03-01T12:00:30Z"});
        assert_eq!(waits(1, slower), "the source asks for a slower pace; for 30s");
    }

    #[test]
    fn a_synced_mailbox_with_something_missing_is_not_at_rest() {
        let missing = json!({"phase": "Synced", "conditions": [
            condition("Ready", "True", "Synced", "the sync ended well, but for messages that are not copied"),
            condition("AllCopied", "False", "NotCopied", "2 messages are not copied: 2 TooLarge"),
        ]});
        let shown = view("alice", &missing);
        assert_eq!((shown.at_rest, shown.wait.as_str()), (false, "2 messages are not copied: 2 TooLarge"));
        assert!(view("alice", &status("Synced", "Synced", "all is there")).at_rest);
        assert!(view("alice", &status("Cancelled", "Cancelled", "stopped for good on request")).at_rest);
        assert!(!view("alice", &status("Running", "Running", "an attempt runs")).at_rest);
    }
}
