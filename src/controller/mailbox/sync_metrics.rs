//! What metrics are made from: what workers report, and what changes in a mailbox's status.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;

use crate::{
    api::{
        MailboxSyncStatus,
        mailbox_sync::{StopReason, SyncPhase},
    },
    telemetry::metrics::{Metrics, RestartReason, SyncResult, TransferDelta},
};

/// Counts what mailboxes do. A new process begins at zero, as Prometheus expects it.
pub(crate) struct SyncMetrics {
    metrics: Metrics,
    began: Timestamp,
    of: Mutex<HashMap<String, CountedMailbox>>,
}

/// What was seen of one mailbox.
#[derive(Debug, Clone, Copy, Default)]
struct CountedMailbox {
    queued: Option<Instant>,
    attempt: Option<i64>,
    messages: i64,
    bytes: i64,
}

impl SyncMetrics {
    /// From now on.
    #[must_use]
    pub(crate) fn new(metrics: Metrics) -> Self {
        // Times in a status have whole seconds.
        let now = Timestamp::now();
        Self { metrics, began: Timestamp::from_second(now.as_second()).unwrap_or(now), of: Mutex::default() }
    }

    fn mailboxes(&self) -> MutexGuard<'_, HashMap<String, CountedMailbox>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a mailbox that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.mailboxes().remove(uid);
    }

    /// Takes in what the current attempt's worker has done so far.
    pub(crate) fn count_progress(&self, uid: &str, status: &MailboxSyncStatus) {
        let worker = status.worker.as_ref().filter(|worker| worker.attempt == status.attempt && status.slots.is_some());
        let Some(progress) = worker.and_then(|worker| worker.progress.as_ref()) else { return };
        let (messages, bytes) = (progress.messages_this_attempt, progress.bytes_moved);
        let mut all = self.mailboxes();
        let seen = all.entry(uid.to_owned()).or_default();
        if seen.attempt != Some(status.attempt) {
            // What an attempt did before this process began was counted by the process before.
            let is_new = status.attempt_started_at.as_ref().is_some_and(|started| started.0 >= self.began);
            let before = if is_new { (0, 0) } else { (messages, bytes) };
            (seen.attempt, seen.messages, seen.bytes) = (Some(status.attempt), before.0, before.1);
        }
        let more = |now: i64, before: i64| u64::try_from(now.saturating_sub(before)).unwrap_or(0);
        let moved = TransferDelta { messages: more(messages, seen.messages), bytes: more(bytes, seen.bytes) };
        (seen.messages, seen.bytes) = (messages.max(seen.messages), bytes.max(seen.bytes));
        self.metrics.count_transfer(moved);
    }

    /// Takes in a status that was written.
    pub(crate) fn count_status_change(
        &self,
        uid: &str,
        before: &MailboxSyncStatus,
        after: &MailboxSyncStatus,
        now: Timestamp,
    ) {
        if let (None, Some(stopping)) = (&before.stopping, &after.stopping)
            && let Some(why) = restart_reason(stopping.reason)
        {
            self.metrics.restarted(why);
        }
        match (before.slots, after.slots) {
            (None, Some(_)) => {
                if let Some(since) = self.mailboxes().get_mut(uid).and_then(|seen| seen.queued.take()) {
                    self.metrics.observe_queue_wait(since.elapsed());
                }
            }
            (Some(_), None) if after.phase == Some(SyncPhase::Queued) && after.pod_name.is_none() => {
                self.metrics.pod_refused();
            }
            (Some(_), None) => self.count_attempt_end(before, after, now),
            _ => {}
        }
        if after.phase == Some(SyncPhase::Queued) && after.slots.is_none() {
            self.mailboxes().entry(uid.to_owned()).or_default().queued.get_or_insert_with(Instant::now);
        } else if after.slots.is_none() {
            self.mailboxes().remove(uid);
        }
    }

    fn count_attempt_end(&self, before: &MailboxSyncStatus, after: &MailboxSyncStatus, now: Timestamp) {
        let (old, new) = (before.failures.unwrap_or_default(), after.failures.unwrap_or_default());
        let result = if after.syncs > before.syncs {
            SyncResult::Synced
        } else if new.sync > old.sync || after.phase == Some(SyncPhase::Failed) {
            // Failed without a sync that failed: the API server takes no such pod.
            SyncResult::Failed
        } else if new.infrastructure > old.infrastructure {
            SyncResult::Lost
        } else {
            SyncResult::Stopped
        };
        if let (SyncResult::Failed, Some(error)) = (result, &after.last_error) {
            self.metrics.sync_error(error.class, error.side);
        }
        let took = before.attempt_started_at.as_ref().map(|started| now.duration_since(started.0).unsigned_abs());
        self.metrics.sync_ended(result, took.unwrap_or_default());
    }
}

fn restart_reason(reason: StopReason) -> Option<RestartReason> {
    match reason {
        StopReason::Deadline => Some(RestartReason::Deadline),
        StopReason::NoProgress => Some(RestartReason::Stall),
        StopReason::NotStarted => Some(RestartReason::NotStarted),
        StopReason::LostContact => Some(RestartReason::LostContact),
        StopReason::Suspended
        | StopReason::Cancelled
        | StopReason::Removed
        | StopReason::NotAllowed
        | StopReason::WindowClosed => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        Error, ErrorClass,
        api::{
            LastError, WorkerStatus,
            mailbox_sync::{Failures, Stopping, WorkerProgress},
        },
    };

    fn at(counts: &SyncMetrics, seconds: i64) -> Timestamp {
        counts.began + jiff::SignedDuration::from_secs(seconds)
    }

    fn running(counts: &SyncMetrics, attempt: i64, started: i64, messages: i64, bytes: i64) -> MailboxSyncStatus {
        let progress = WorkerProgress { messages_this_attempt: messages, bytes_moved: bytes, ..Default::default() };
        MailboxSyncStatus {
            attempt,
            slots: Some(2),
            phase: Some(SyncPhase::Running),
            pod_name: Some("m-1".into()),
            attempt_started_at: Some(Time(at(counts, started))),
            worker: Some(WorkerStatus { attempt, progress: Some(progress), ..WorkerStatus::default() }),
            ..MailboxSyncStatus::default()
        }
    }

    fn counts() -> SyncMetrics {
        SyncMetrics::new(Metrics::new().unwrap())
    }

    fn value(counts: &SyncMetrics, name: &str) -> String {
        let text = counts.metrics.text().unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(&format!("mailferry_{name} ")));
        found.unwrap_or("none").to_owned()
    }

    #[test]
    fn what_workers_report_is_counted_once_however_often_it_is_seen() {
        let counts = counts();
        for (messages, bytes) in [(0, 10), (5, 1000), (5, 1000), (9, 3000)] {
            counts.count_progress("a", &running(&counts, 1, 0, messages, bytes));
        }
        counts.count_progress("a", &running(&counts, 2, 5, 4, 500));
        // Under way since before this process: only what comes now.
        counts.count_progress("b", &running(&counts, 7, -60, 100, 9000));
        counts.count_progress("b", &running(&counts, 7, -60, 101, 9001));
        assert_eq!(value(&counts, "messages_total"), "14");
        assert_eq!(value(&counts, "moved_bytes_total"), "3501");
    }

    #[test]
    fn attempts_end_in_one_way_each() {
        let counts = counts();
        let before = running(&counts, 1, 0, 0, 0);
        let idle = MailboxSyncStatus { slots: None, phase: Some(SyncPhase::Backoff), ..before.clone() };
        let failures = |failures| Some(failures);
        let error = LastError::new(&Error::new(ErrorClass::Quota, "mailbox is full"), None);
        for after in [
            MailboxSyncStatus { syncs: 1, ..idle.clone() },
            MailboxSyncStatus {
                failures: failures(Failures { sync: 1, ..Failures::default() }),
                last_error: Some(error),
                ..idle.clone()
            },
            MailboxSyncStatus {
                failures: failures(Failures { infrastructure: 1, ..Failures::default() }),
                ..idle.clone()
            },
            idle.clone(),
            MailboxSyncStatus { phase: Some(SyncPhase::Queued), pod_name: None, ..idle.clone() },
        ] {
            counts.count_status_change("a", &before, &after, at(&counts, 90));
        }
        for result in ["synced", "failed", "lost", "stopped"] {
            assert_eq!(value(&counts, &format!("sync_duration_seconds_sum{{result=\"{result}\"}}")), "90", "{result}");
        }
        assert_eq!(value(&counts, "sync_errors_total{class=\"Quota\",side=\"none\"}"), "1");
        assert_eq!(value(&counts, "pods_refused_total"), "1");
    }

    #[test]
    fn a_pod_that_can_not_be_made_is_an_attempt_that_failed() {
        let counts = counts();
        let before = running(&counts, 1, 0, 0, 0);
        let (after, _) = crate::controller::mailbox::attempt_end::status_after_rejection(
            &before,
            "spec.nodeSelector: Invalid value",
        );
        counts.count_status_change("a", &before, &after, at(&counts, 1));
        assert_eq!(value(&counts, "sync_duration_seconds_count{result=\"failed\"}"), "1");
        assert_eq!(value(&counts, "sync_errors_total{class=\"Configuration\",side=\"none\"}"), "1");
        assert_eq!(value(&counts, "pods_refused_total"), "0");
    }

    #[test]
    fn restarts_are_counted_when_they_are_asked_for_and_a_suspend_is_none() {
        let counts = counts();
        let before = running(&counts, 1, 0, 0, 0);
        for reason in [StopReason::Deadline, StopReason::NoProgress, StopReason::Suspended] {
            let stopping = Some(Stopping { at: Time(at(&counts, 9)), reason });
            let after = MailboxSyncStatus { stopping, ..before.clone() };
            counts.count_status_change("a", &before, &after, at(&counts, 9));
            counts.count_status_change("a", &after, &after, at(&counts, 9));
        }
        assert_eq!(value(&counts, "sync_restarts_total{reason=\"deadline\"}"), "1");
        assert_eq!(value(&counts, "sync_restarts_total{reason=\"stall\"}"), "1");
    }

    #[test]
    fn the_wait_for_a_slot_is_measured_and_nothing_is_remembered_of_who_rests() {
        let counts = counts();
        let pending = MailboxSyncStatus::default();
        let queued = MailboxSyncStatus { phase: Some(SyncPhase::Queued), ..pending.clone() };
        let started = running(&counts, 1, 0, 0, 0);
        let synced = MailboxSyncStatus { slots: None, syncs: 1, phase: Some(SyncPhase::Synced), ..started.clone() };
        let now = at(&counts, 9);
        counts.count_status_change("a", &pending, &queued, now);
        counts.count_status_change("a", &queued, &started, now);
        assert_eq!(value(&counts, "sync_queue_wait_seconds_count"), "1");
        counts.count_status_change("a", &started, &synced, now);
        assert!(counts.mailboxes().is_empty());
    }
}
