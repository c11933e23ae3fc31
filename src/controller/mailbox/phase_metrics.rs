//! How all mailboxes are doing at one moment, for the metrics: pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    due::{DueFacts, next_delta_at},
    observe::signed_duration,
};
use crate::{
    api::{MailboxSync, mailbox_sync::SyncPhase},
    telemetry::metrics::{MailboxTally, kind_label, reason_label},
};

/// Counts them; with each, whether its migration is suspended, which stands in no status of a mailbox that does not run.
#[must_use]
pub(crate) fn tally_mailboxes<'a>(
    syncs: impl Iterator<Item = (&'a MailboxSync, bool)>,
    now: Timestamp,
) -> MailboxTally {
    let mut tally = MailboxTally::default();
    for (sync, suspended) in syncs {
        let status = sync.status.as_ref();
        let phase = match status.and_then(|status| status.phase).unwrap_or(SyncPhase::Pending) {
            SyncPhase::Pending | SyncPhase::Queued if suspended => SyncPhase::Suspended,
            phase => phase,
        };
        *tally.phases.entry(phase).or_default() += 1;
        let failing = matches!(phase, SyncPhase::Backoff | SyncPhase::Stalled | SyncPhase::Failed);
        if let (true, Some(error)) = (failing, status.and_then(|status| status.last_error.as_ref())) {
            *tally.failing.entry((error.class, error.side)).or_default() += 1;
        }
        if let Some(worker) = status.and_then(|status| status.worker.as_ref()) {
            let count = |messages: i64| u64::try_from(messages).unwrap_or(0);
            for (reason, messages) in worker.not_copied.iter().flat_map(|not_copied| &not_copied.reasons) {
                *tally.not_copied.entry(reason_label(reason)).or_default() += count(*messages);
            }
            for (kind, messages) in &worker.differences {
                *tally.differences.entry(kind_label(kind)).or_default() += count(*messages);
            }
        }
        if let Some(late) = overdue_sync(sync, now).filter(|_| !suspended) {
            tally.missed += usize::from(late.by > late.every);
            tally.overdue = tally.overdue.max(Duration::try_from(late.by).unwrap_or_default());
        }
    }
    tally
}

/// A delta sync that is due and did not begin.
struct OverdueSync {
    by: SignedDuration,
    /// The time between two delta syncs.
    every: SignedDuration,
}

/// Whether a mailbox's delta sync is due and did not begin, although nobody stopped it and it does not fail.
fn overdue_sync(sync: &MailboxSync, now: Timestamp) -> Option<OverdueSync> {
    let (status, spec) = (sync.status.as_ref()?, &sync.spec);
    let stopped = spec.suspend || spec.cancel || sync.metadata.deletion_timestamp.is_some();
    let waits = matches!(status.phase, Some(SyncPhase::Pending | SyncPhase::Queued | SyncPhase::Synced));
    let windowed = [&spec.source, &spec.destination].iter().any(|side| !side.server.limits.windows.is_empty());
    // With time windows it waits on purpose, most of the day.
    if stopped || !waits || windowed || status.slots.is_some() {
        return None;
    }
    let (due, every) = next_delta_at(&DueFacts::from_sync(sync, status, now))?;
    let begun = status.attempt_started_at.as_ref().is_some_and(|started| started.0 >= due);
    (due <= now && !begun).then(|| OverdueSync { by: now.duration_since(due), every: signed_duration(every) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;
    use crate::{
        Error, ErrorClass, Side,
        api::{
            Duration as ApiDuration, LastError, MailboxSyncStatus, WorkerStatus,
            not_copied::NotCopied,
            settings::{Cutover, Schedule},
            time_window::TimeWindow,
        },
        controller::testing,
    };

    const HOUR: i64 = 3600;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn ago(seconds: i64) -> Time {
        Time(now() - SignedDuration::from_secs(seconds))
    }

    fn mailbox(phase: SyncPhase) -> MailboxSync {
        let status = MailboxSyncStatus { phase: Some(phase), ..MailboxSyncStatus::default() };
        MailboxSync {
            metadata: ObjectMeta { uid: Some("uid".into()), ..ObjectMeta::default() },
            spec: testing::mailbox_spec("x", "y"),
            status: Some(status),
        }
    }

    /// Repeated each hour; its last sync began and ended so long ago.
    fn hourly(phase: SyncPhase, seconds: i64) -> MailboxSync {
        let mut sync = mailbox(phase);
        sync.spec.settings.schedule = Some(Schedule { every: ApiDuration::from_secs(3600), jitter_percent: 0 });
        let status = sync.status.as_mut().unwrap();
        status.syncs = 1;
        status.attempt_started_at = Some(ago(seconds));
        status.last_synced_at = Some(ago(seconds));
        sync
    }

    /// Missed, and overdue by seconds.
    fn of(sync: &MailboxSync) -> (usize, u64) {
        let tally = tally_mailboxes([(sync, false)].into_iter(), now());
        (tally.missed, tally.overdue.as_secs())
    }

    #[test]
    fn mailboxes_are_counted_by_phase_and_those_that_fail_by_error() {
        let with = |(phase, error): (SyncPhase, Option<(ErrorClass, Option<Side>)>)| {
            let mut sync = mailbox(phase);
            let error = error.map(|(class, side)| Error { side, ..Error::new(class, "x") });
            sync.status.as_mut().unwrap().last_error = error.map(|error| LastError::new(&error, None));
            sync
        };
        let login = (ErrorClass::Authentication, Some(Side::Source));
        let new = MailboxSync { status: None, ..mailbox(SyncPhase::Pending) };
        let others = [
            (SyncPhase::Pending, None),
            // It failed before, and is being tried again.
            (SyncPhase::Running, Some((ErrorClass::Network, None))),
            (SyncPhase::Stalled, Some(login)),
            (SyncPhase::Stalled, Some(login)),
            (SyncPhase::Backoff, Some((ErrorClass::Network, Some(Side::Destination)))),
            (SyncPhase::Failed, Some((ErrorClass::Configuration, None))),
            // Its pod was lost.
            (SyncPhase::Backoff, None),
        ];
        let syncs: Vec<_> = std::iter::once(new).chain(others.into_iter().map(with)).collect();
        let tally = tally_mailboxes(syncs.iter().map(|sync| (sync, false)), now());
        let phases = [
            (SyncPhase::Pending, 2),
            (SyncPhase::Running, 1),
            (SyncPhase::Backoff, 2),
            (SyncPhase::Stalled, 2),
            (SyncPhase::Failed, 1),
        ];
        assert_eq!(tally.phases, BTreeMap::from(phases));
        let failing =
            [(login, 2), ((ErrorClass::Network, Some(Side::Destination)), 1), ((ErrorClass::Configuration, None), 1)];
        assert_eq!(tally.failing, BTreeMap::from(failing));
        assert_eq!((tally.missed, tally.overdue), (0, Duration::ZERO));
    }

    #[test]
    fn messages_that_are_not_copied_are_counted_by_reason_whatever_their_mailboxes_do() {
        let with = |(phase, reason, messages): (SyncPhase, &str, i64)| {
            let mut sync = mailbox(phase);
            let reasons = [(reason.to_owned(), messages)].into();
            let accepted = [("tooLarge".to_owned(), 9)].into();
            let not_copied = NotCopied { messages, reasons, accepted, ..NotCopied::default() };
            let differences = [("flags".to_owned(), 2), ("new".to_owned(), 1)].into();
            sync.status.as_mut().unwrap().worker =
                Some(WorkerStatus { not_copied: Some(not_copied), differences, ..WorkerStatus::default() });
            sync
        };
        let list =
            [(SyncPhase::Synced, "refused", 2), (SyncPhase::Running, "refused", 1), (SyncPhase::Failed, "odd", 4)];
        let syncs: Vec<_> = list.into_iter().map(with).chain([mailbox(SyncPhase::Queued)]).collect();
        let tally = tally_mailboxes(syncs.iter().map(|sync| (sync, false)), now());
        assert_eq!(tally.not_copied, BTreeMap::from([("refused", 3), ("other", 4)]));
        assert_eq!(tally.differences, BTreeMap::from([("flags", 6), ("other", 3)]));
    }

    #[test]
    fn a_delta_sync_that_waits_for_a_time_window_is_not_missed() {
        let mut sync = hourly(SyncPhase::Queued, 3 * HOUR);
        assert_eq!(of(&sync).0, 1);
        sync.spec.source.server.limits.windows = vec![TimeWindow::default()];
        assert_eq!(of(&sync), (0, 0));
    }

    #[test]
    fn a_delta_sync_is_overdue_from_its_time_on_and_missed_one_interval_later() {
        for phase in [SyncPhase::Synced, SyncPhase::Queued, SyncPhase::Pending] {
            assert_eq!(of(&hourly(phase, HOUR - 1)), (0, 0), "{phase:?}: not yet due");
            assert_eq!(of(&hourly(phase, HOUR + 60)), (0, 60), "{phase:?}");
            assert_eq!(of(&hourly(phase, 2 * HOUR)), (0, 3600), "{phase:?}");
            assert_eq!(of(&hourly(phase, 2 * HOUR + 1)), (1, 3601), "{phase:?}");
        }
        let both = [hourly(SyncPhase::Queued, 3 * HOUR), hourly(SyncPhase::Synced, 2 * HOUR + 1)];
        let tally = tally_mailboxes(both.iter().map(|sync| (sync, false)), now());
        assert_eq!((tally.missed, tally.overdue.as_secs()), (2, 7200), "the longest wait counts");
    }

    #[test]
    fn mailboxes_of_a_suspended_migration_count_as_suspended_and_miss_no_schedule() {
        let syncs = [hourly(SyncPhase::Queued, 9 * HOUR), mailbox(SyncPhase::Pending), mailbox(SyncPhase::Stalled)];
        let tally = tally_mailboxes(syncs.iter().map(|sync| (sync, true)), now());
        assert_eq!(tally.phases[&SyncPhase::Suspended], 2);
        assert_eq!((tally.phases[&SyncPhase::Stalled], tally.missed, tally.overdue.as_secs()), (1, 0, 0));
    }

    #[test]
    fn who_runs_fails_or_was_stopped_misses_no_schedule() {
        let late = || hourly(SyncPhase::Synced, 9 * HOUR);
        let mut running = late();
        running.status.as_mut().unwrap().slots = Some(2);
        let mut suspended = late();
        suspended.spec.suspend = true;
        let mut cancelled = late();
        cancelled.spec.cancel = true;
        let mut leaving = late();
        leaving.metadata.deletion_timestamp = Some(ago(1));
        let mut dry = late();
        dry.spec.settings.dry_run = true;
        // It began in time, failed, and waits for its turn again.
        let mut tried = hourly(SyncPhase::Queued, 9 * HOUR);
        tried.status.as_mut().unwrap().attempt_started_at = Some(ago(HOUR));
        let mut once = late();
        once.spec.settings.schedule = None;
        for (name, sync) in vec![
            ("running", running),
            ("suspended", suspended),
            ("cancelled", cancelled),
            ("leaving", leaving),
            ("dry run", dry),
            ("tried", tried),
            ("without a schedule", once),
            ("stalled", hourly(SyncPhase::Stalled, 9 * HOUR)),
            ("failed", hourly(SyncPhase::Failed, 9 * HOUR)),
            ("backoff", hourly(SyncPhase::Backoff, 9 * HOUR)),
            ("first sync", mailbox(SyncPhase::Queued)),
        ] {
            assert_eq!(of(&sync), (0, 0), "{name}");
        }
    }

    #[test]
    fn a_sync_whose_pod_was_refused_has_not_begun() {
        let mut sync = hourly(SyncPhase::Queued, 3 * HOUR);
        sync.status.as_mut().unwrap().attempt_started_at = None;
        assert_eq!(of(&sync), (1, 7200));
    }

    #[test]
    fn the_sync_of_the_cutover_can_be_missed_too() {
        let cutover = |at, every| Cutover {
            at: Some(at),
            drain_for: ApiDuration::from_secs(48 * 3600),
            every: ApiDuration::from_secs(every),
            max_every: ApiDuration::from_secs(7200),
        };
        // Synced before the cutover: due at the cutover itself.
        let mut sync = hourly(SyncPhase::Queued, 24 * HOUR);
        sync.spec.settings.schedule = None;
        sync.spec.settings.cutover = Some(cutover(ago(600), 900));
        assert_eq!(of(&sync), (0, 600));
        sync.spec.settings.cutover = Some(cutover(ago(901), 900));
        assert_eq!(of(&sync), (1, 901));
        // Not before it.
        sync.spec.settings.cutover = Some(cutover(Time(now() + SignedDuration::from_secs(60)), 900));
        assert_eq!(of(&sync), (0, 0));
    }
}
