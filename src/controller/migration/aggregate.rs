//! What many mailboxes come to: pure.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::work_left::ListedWork;
use crate::{
    api::{
        LastError, MailboxSync, MailboxSyncStatus,
        mail_migration::{FailureSample, MailboxCounts, Totals},
        mailbox_sync::SyncPhase,
        not_copied::NotCopied,
        rate::rate_text,
    },
    controller::{
        all_copied::CopiedVerdict,
        condition::is_true,
        mailbox::{
            conditions::{OUTDATED, copied_verdict, held_in_folder},
            due::is_final,
        },
    },
    error::{Error, ErrorClass},
};

/// Examples of failures shown.
const SAMPLES: usize = 10;

/// Examples of folders whose deletions are held.
const HELD_SAMPLES: usize = 5;

/// What many mailboxes come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MailboxAggregate {
    /// By phase.
    pub counts: MailboxCounts,
    /// Together.
    pub totals: Totals,
    /// Bytes per second.
    pub bytes_per_second: i64,
    /// Share of the bytes that is done; what is not known yet counts like what is.
    pub percent: Option<i64>,
    /// When all is done, at this rate.
    pub eta: Option<Time>,
    /// Some that fail, of each class of error at least one.
    pub failures: Vec<FailureSample>,
    /// An attempt was made.
    pub started: bool,
    /// Nothing more happens with so many.
    pub ended: i32,
    /// True when none of the stalled mailboxes is tried again by itself.
    pub stalled_need_person: bool,
    /// So many have told that all their messages are copied.
    pub copied: i32,
    /// So many were changed after their last sync, and no other one is planned.
    pub outdated: i32,
    /// So many hold deletions until they are confirmed.
    pub deletions_held: i32,
    /// Some of these, with folder and token.
    pub held_deletions: Vec<String>,
    /// When the first of the next delta syncs is due.
    pub next_sync_at: Option<Time>,
    /// What the mailboxes told of their first syncs.
    pub work: ListedWork,
}

/// Mailboxes of a migration that have no MailboxSync.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnmadeMailboxes {
    /// So many can't be synced as they are written, or are refused by the API server.
    pub failed: usize,
    /// So many are above the limit of the namespace.
    pub over_limit: usize,
    /// Some of them, and why.
    pub failures: Vec<FailureSample>,
}

impl UnmadeMailboxes {
    /// Counts one that can't be synced as it is written; the first ones are kept.
    pub(crate) fn add_failed(&mut self, mailbox: &str, error: &Error) {
        self.add_sample(FailureSample { mailbox: mailbox.to_owned(), error: LastError::new(error, None) });
    }

    /// The same with what is shown of it.
    pub(crate) fn add_sample(&mut self, sample: FailureSample) {
        self.failed += 1;
        if self.failures.len() < SAMPLES {
            self.failures.push(sample);
        }
    }
}

impl MailboxAggregate {
    /// Bytes per second as the status shows them; none while nothing moves.
    #[must_use]
    pub(crate) fn rate(&self) -> Option<String> {
        u64::try_from(self.bytes_per_second).ok().filter(|rate| *rate > 0).map(rate_text)
    }
}

/// Aggregates, in the order of names; `unmade` are mailboxes that have no MailboxSync. Of a migration that is `suspended` no mailbox waits for its turn: that stands in no status of theirs.
#[must_use]
pub fn aggregate<'a>(
    syncs: impl Iterator<Item = &'a Arc<MailboxSync>>,
    unmade: &UnmadeMailboxes,
    suspended: bool,
    now: Timestamp,
) -> MailboxAggregate {
    let mut all = MailboxAggregate { stalled_need_person: true, ..MailboxAggregate::default() };
    let mut known = 0_i64;
    let mut classes: BTreeMap<ErrorClass, Vec<FailureSample>> = BTreeMap::new();
    let count = |mailboxes: usize| i32::try_from(mailboxes).unwrap_or(i32::MAX);
    let (failed, over_limit) = (count(unmade.failed), count(unmade.over_limit));
    all.counts.total = failed.saturating_add(over_limit);
    (all.counts.failed, all.counts.stalled, all.ended) = (failed, over_limit, failed);
    for sample in &unmade.failures {
        classes.entry(sample.error.class).or_default().push(sample.clone());
    }
    for sync in syncs {
        all.counts.total += 1;
        all.work.add(sync.status.as_ref());
        all.ended += i32::from(is_final(sync, now));
        let Some(status) = &sync.status else {
            all.counts.pending += 1;
            continue;
        };
        let counter = match status.phase.unwrap_or(SyncPhase::Pending) {
            SyncPhase::Pending | SyncPhase::Suspended => &mut all.counts.pending,
            SyncPhase::Queued if suspended => &mut all.counts.pending,
            SyncPhase::Queued => &mut all.counts.queued,
            SyncPhase::Running => &mut all.counts.running,
            SyncPhase::Synced => &mut all.counts.synced,
            SyncPhase::Backoff => &mut all.counts.backoff,
            SyncPhase::Stalled => &mut all.counts.stalled,
            SyncPhase::Failed => &mut all.counts.failed,
            SyncPhase::Cancelled => &mut all.counts.cancelled,
        };
        *counter += 1;
        all.started |= status.attempt > 0;
        all.outdated += i32::from(is_true(&status.conditions, OUTDATED));
        add_held_deletions(&mut all, sync, status);
        all.stalled_need_person &= status.phase != Some(SyncPhase::Stalled) || status.next_attempt_at.is_none();
        if let Some(failures) = &status.failures {
            all.totals.deadline_restarts = all.totals.deadline_restarts.saturating_add(failures.deadline_restarts);
        }
        if status.phase == Some(SyncPhase::Synced)
            && let Some(next) = &status.next_attempt_at
            && all.next_sync_at.as_ref().is_none_or(|first| next.0 < first.0)
        {
            all.next_sync_at = Some(next.clone());
        }
        add_not_copied(&mut all, sync, status);
        if let Some(progress) = status.worker.as_ref().and_then(|worker| worker.progress.as_ref()) {
            known += 1;
            all.totals.messages_total += progress.messages_total;
            all.totals.messages_done += progress.messages_done;
            all.totals.bytes_total += progress.bytes_total;
            all.totals.bytes_done += progress.bytes_done;
            if status.slots.is_some() {
                all.bytes_per_second += progress.bytes_per_second;
            }
        }
        let failing = matches!(status.phase, Some(SyncPhase::Backoff | SyncPhase::Stalled | SyncPhase::Failed));
        if let (true, Some(error)) = (failing, &status.last_error) {
            let samples = classes.entry(error.class).or_default();
            if samples.len() < SAMPLES {
                samples.push(FailureSample { mailbox: sync.spec.mailbox.clone(), error: error.clone() });
            }
        }
    }
    all.counts.failing = all.counts.backoff + all.counts.stalled + all.counts.failed;
    all.failures = choose_samples(classes);
    estimate_completion(&mut all, known, now);
    all
}

fn add_held_deletions(all: &mut MailboxAggregate, sync: &MailboxSync, status: &MailboxSyncStatus) {
    let held = status.worker.as_ref().map_or(&[][..], |worker| &worker.held_deletions);
    all.deletions_held += i32::from(!held.is_empty());
    let room = HELD_SAMPLES.saturating_sub(all.held_deletions.len());
    let shown = held.iter().take(room).map(|held| format!("{}: {}", sync.spec.mailbox, held_in_folder(held)));
    all.held_deletions.extend(shown);
}

fn add_not_copied(all: &mut MailboxAggregate, sync: &MailboxSync, status: &MailboxSyncStatus) {
    all.copied += i32::from(matches!(copied_verdict(&sync.spec, status), CopiedVerdict::Copied(_)));
    let Some(worker) = &status.worker else { return };
    // What stands holds while the next attempt begins; of a first one only the progress is known.
    let progress = worker.progress.as_ref().map_or(0, |progress| progress.messages_skipped);
    all.totals.messages_skipped += worker.not_copied.as_ref().map_or(progress, NotCopied::set_aside);
    if let Some(not_copied) = &worker.not_copied {
        all.totals.not_copied.get_or_insert_default().add(not_copied);
    }
    for (kind, copies) in &worker.differences {
        *all.totals.differences.entry(kind.clone()).or_default() += copies;
    }
}

/// The first of each class, then the second of each, and so on; always the same ones, so that nothing is rewritten.
fn choose_samples(mut classes: BTreeMap<ErrorClass, Vec<FailureSample>>) -> Vec<FailureSample> {
    for samples in classes.values_mut() {
        samples.sort_by(|a, b| b.mailbox.cmp(&a.mailbox));
    }
    let mut chosen = Vec::new();
    while chosen.len() < SAMPLES && classes.values().any(|samples| !samples.is_empty()) {
        for samples in classes.values_mut() {
            if chosen.len() < SAMPLES {
                chosen.extend(samples.pop());
            }
        }
    }
    chosen
}

fn estimate_completion(all: &mut MailboxAggregate, known: i64, now: Timestamp) {
    if known == 0 {
        return;
    }
    if all.totals.bytes_total <= 0 {
        let total = i64::from(all.counts.total.max(1));
        all.percent = Some(i64::from(all.counts.synced) * 100 / total);
        return;
    }
    let total = all.totals.bytes_total.saturating_mul(i64::from(all.counts.total)) / known;
    let done = all.totals.bytes_done.min(total);
    // All but the last byte is not all.
    all.percent = Some((done.saturating_mul(100) / total.max(1)).min(if done < total { 99 } else { 100 }));
    if all.bytes_per_second > 0 && done < total {
        let seconds = (total - done) / all.bytes_per_second;
        all.eta = now.checked_add(SignedDuration::from_secs(seconds)).ok().map(Time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            WorkerStatus,
            mailbox_sync::{Outcome, WorkerProgress},
        },
        controller::testing,
    };

    fn sync(name: &str, status: MailboxSyncStatus) -> Arc<MailboxSync> {
        let mut sync = MailboxSync::new(name, testing::mailbox_spec("m", name));
        sync.status = Some(status);
        Arc::new(sync)
    }

    fn failing(name: &str, class: ErrorClass) -> Arc<MailboxSync> {
        let error = LastError::new(&Error::new(class, "x"), None);
        sync(
            name,
            MailboxSyncStatus {
                phase: Some(SyncPhase::Backoff),
                last_error: Some(error),
                ..MailboxSyncStatus::default()
            },
        )
    }

    #[test]
    fn each_class_of_error_has_an_example() {
        let mut syncs: Vec<_> = (0..100).map(|n| failing(&format!("a{n:03}"), ErrorClass::Network)).collect();
        syncs.push(failing("z", ErrorClass::Quota));
        let all = aggregate(syncs.iter(), &UnmadeMailboxes::default(), false, Timestamp::UNIX_EPOCH);
        assert_eq!((all.counts.failing, all.failures.len()), (101, 10));
        assert!(all.failures.iter().any(|sample| sample.mailbox == "z"));
    }

    #[test]
    fn a_migration_with_mailboxes_above_the_limit_waits_for_a_person_and_is_never_complete() {
        let mut unmade = UnmadeMailboxes { over_limit: 3, ..UnmadeMailboxes::default() };
        unmade.add_failed("a", &Error::configuration("x"));
        let all = aggregate(std::iter::empty(), &unmade, false, Timestamp::UNIX_EPOCH);
        let counts = all.counts;
        assert_eq!((counts.total, counts.failed, counts.stalled, counts.failing, all.ended), (4, 1, 3, 4, 1));
        assert!(all.stalled_need_person);
    }

    #[test]
    fn of_a_suspended_migration_nobody_waits_for_a_turn() {
        let queued = MailboxSyncStatus { phase: Some(SyncPhase::Queued), ..MailboxSyncStatus::default() };
        let syncs = [sync("a", queued.clone()), sync("b", queued)];
        for (suspended, expected) in [(false, (2, 0)), (true, (0, 2))] {
            let all = aggregate(syncs.iter(), &UnmadeMailboxes::default(), suspended, Timestamp::UNIX_EPOCH);
            assert_eq!((all.counts.queued, all.counts.pending), expected);
        }
    }

    #[test]
    fn what_has_not_started_counts_as_much_as_what_has() {
        let progress =
            WorkerProgress { bytes_total: 100, bytes_done: 50, bytes_per_second: 10, ..WorkerProgress::default() };
        let worker = WorkerStatus { progress: Some(progress), ..WorkerStatus::default() };
        let running = MailboxSyncStatus {
            phase: Some(SyncPhase::Running),
            attempt: 1,
            slots: Some(1),
            worker: Some(worker),
            ..MailboxSyncStatus::default()
        };
        let syncs = [sync("a", running), sync("b", MailboxSyncStatus::default())];
        let all = aggregate(syncs.iter(), &UnmadeMailboxes::default(), false, Timestamp::UNIX_EPOCH);
        assert_eq!((all.percent, all.started, all.counts.running), (Some(25), true, 1));
        assert_eq!(all.eta.unwrap().0.as_second(), 15);
    }

    #[test]
    fn a_migrations_rate_is_told_in_the_unit_of_its_mailboxes() {
        let all = |bytes_per_second| MailboxAggregate { bytes_per_second, ..MailboxAggregate::default() };
        assert_eq!(all(12 << 20).rate().as_deref(), Some("12 MiB/s"));
        assert_eq!(all(0).rate(), None);
    }

    fn ended(name: &str, reasons: &[(&str, i64)]) -> Arc<MailboxSync> {
        let reasons: BTreeMap<_, _> = reasons.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
        let not_copied = NotCopied { messages: reasons.values().sum(), reasons, ..NotCopied::default() };
        let worker = WorkerStatus {
            attempt: 1,
            outcome: Some(Outcome::Synced),
            not_copied: Some(not_copied),
            differences: [("flags".to_owned(), 2)].into(),
            ..WorkerStatus::default()
        };
        let (attempt, syncs, worker) = (1, 1, Some(worker));
        sync(name, MailboxSyncStatus { attempt, syncs, worker, ..MailboxSyncStatus::default() })
    }

    #[test]
    fn what_is_not_copied_is_summed_by_reason_and_who_has_not_told_is_not_counted_as_copied() {
        let syncs = [
            ended("a", &[("refused", 2), ("leftOut", 4)]),
            ended("b", &[("refused", 1)]),
            ended("c", &[]),
            sync("d", MailboxSyncStatus::default()),
        ];
        let all = aggregate(syncs.iter(), &UnmadeMailboxes::default(), false, Timestamp::UNIX_EPOCH);
        let not_copied = all.totals.not_copied.unwrap();
        assert_eq!((all.copied, not_copied.messages, all.totals.messages_skipped), (1, 7, 3));
        assert_eq!(not_copied.reasons, [("leftOut".to_owned(), 4), ("refused".to_owned(), 3)].into());
        assert_eq!(all.totals.differences, [("flags".to_owned(), 6)].into());
        let nobody = [sync("d", MailboxSyncStatus::default())];
        let all = aggregate(nobody.iter(), &UnmadeMailboxes::default(), false, Timestamp::UNIX_EPOCH);
        assert_eq!(all.totals.not_copied, None, "nobody has told");
    }
}
