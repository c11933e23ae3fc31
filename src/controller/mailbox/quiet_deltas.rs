//! How often a mailbox is looked at after the cutover: less often while nothing comes in. Pure.
//!
//! - Only deltas that began at the cutover or later count: quiet before says nothing of mail that is delivered late.
//! - The first looks are `cutover.every` apart. After three quiet ones in a row the wait doubles with each, up to
//!   `cutover.maxEvery`. So nobody is left alone for longer than it was seen to be quiet.
//! - A delta that found anything, or does not tell, starts anew with `cutover.every`.
//! - The last look, `cutover.drainFor` after the last new message, is never late: no wait goes beyond it.

use jiff::Timestamp;

use crate::api::{
    Duration, MailboxSyncSpec, MailboxSyncStatus, WorkerStatus, mailbox_sync::Outcome, settings::Cutover,
};

/// So many quiet deltas in a row are as far apart as any.
const FIRST_LOOKS: i32 = 3;
/// The wait is doubled so often at most: from 10 s to longer than any `maxEvery`.
const MAX_DOUBLINGS: i32 = 16;

/// The wait after a delta that was the last of so many quiet ones in a row.
#[must_use]
pub(super) fn delta_wait(cutover: &Cutover, quiet_deltas: i32) -> Duration {
    let doublings = (quiet_deltas - FIRST_LOOKS + 1).clamp(0, MAX_DOUBLINGS);
    let every = u64::try_from(cutover.every.as_std().as_millis()).unwrap_or(u64::MAX);
    let stretched = Duration::from_millis(every.saturating_mul(1 << doublings));
    stretched.min(cutover.max_every.max(cutover.every))
}

/// How many quiet deltas in a row there are once a sync has ended well; `status` is that before its end.
#[must_use]
pub(super) fn quiet_deltas_after(
    spec: &MailboxSyncSpec,
    status: &MailboxSyncStatus,
    worker: Option<&WorkerStatus>,
) -> i32 {
    let Some(at) = spec.settings.cutover.as_ref().and_then(|cutover| cutover.at.as_ref()) else { return 0 };
    let since = |time: Option<Timestamp>| time.is_some_and(|time| time >= at.0);
    let began = since(status.attempt_started_at.as_ref().map(|began| began.0));
    if !began || !worker.is_some_and(|worker| found_nothing(status, worker)) {
        return 0;
    }
    // The cutover may have been set anew.
    let before = since(status.last_synced_at.as_ref().map(|synced| synced.0));
    if before { status.quiet_deltas.saturating_add(1) } else { 1 }
}

/// True when a delta is known to have found nothing: a source that does not tell its INBOX's UIDNEXT is never quiet.
fn found_nothing(status: &MailboxSyncStatus, worker: &WorkerStatus) -> bool {
    let no_mail = worker.inbox_uid_next.is_some() && worker.inbox_uid_next == status.inbox_uid_next;
    worker.outcome == Some(Outcome::Synced) && worker.changes == Some(0) && no_mail
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;
    use crate::controller::testing;

    fn cutover(every: u64, max_every: u64) -> Cutover {
        let at = Some(Time(moment(0)));
        let (every, max_every) = (Duration::from_secs(every), Duration::from_secs(max_every));
        Cutover { at, drain_for: Duration::from_secs(48 * 3600), every, max_every }
    }

    fn moment(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
    }

    /// A sync that began and ended so many seconds after the cutover, and the one before it.
    fn status(began: i64, synced_before: i64, quiet_deltas: i32) -> MailboxSyncStatus {
        MailboxSyncStatus {
            attempt_started_at: Some(Time(moment(began))),
            last_synced_at: Some(Time(moment(synced_before))),
            inbox_uid_next: Some(11),
            quiet_deltas,
            ..MailboxSyncStatus::default()
        }
    }

    fn quiet() -> WorkerStatus {
        let outcome = Some(Outcome::Synced);
        WorkerStatus { outcome, changes: Some(0), inbox_uid_next: Some(11), ..WorkerStatus::default() }
    }

    fn after(status: &MailboxSyncStatus, worker: &WorkerStatus) -> i32 {
        let mut spec = testing::mailbox_spec("m", "a");
        spec.settings.cutover = Some(cutover(600, 7200));
        quiet_deltas_after(&spec, status, Some(worker))
    }

    #[test]
    fn after_three_quiet_deltas_the_wait_doubles_up_to_its_bound() {
        let minutes = |quiet| delta_wait(&cutover(600, 7200), quiet).as_std().as_secs() / 60;
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, i32::MAX].map(minutes), [10, 10, 10, 20, 40, 80, 120, 120, 120]);
    }

    #[test]
    fn a_bound_below_the_usual_wait_changes_nothing() {
        assert_eq!(delta_wait(&cutover(600, 60), 9), Duration::from_secs(600));
    }

    #[test]
    fn quiet_deltas_in_a_row_are_counted_and_anything_found_starts_anew() {
        let status = status(1200, 610, 4);
        assert_eq!(after(&status, &quiet()), 5);
        for found in [
            WorkerStatus { changes: Some(1), ..quiet() },
            WorkerStatus { inbox_uid_next: Some(12), ..quiet() },
            // Nobody knows.
            WorkerStatus { changes: None, ..quiet() },
            WorkerStatus { inbox_uid_next: None, ..quiet() },
            WorkerStatus { outcome: None, ..quiet() },
        ] {
            assert_eq!(after(&status, &found), 0, "{found:?}");
        }
        let mut unseen = status;
        unseen.inbox_uid_next = None;
        assert_eq!(after(&unseen, &WorkerStatus { inbox_uid_next: None, ..quiet() }), 0);
    }

    #[test]
    fn what_was_quiet_before_the_cutover_does_not_count() {
        assert_eq!(after(&status(-5, -600, 4), &quiet()), 0, "it began before the cutover");
        assert_eq!(after(&status(1, -600, 4), &quiet()), 1, "the count is of a cutover that was set to another time");
        let spec = testing::mailbox_spec("m", "a");
        assert_eq!(quiet_deltas_after(&spec, &status(1200, 610, 4), Some(&quiet())), 0, "there is no cutover");
    }

    proptest! {
        #[test]
        fn nobody_is_left_alone_for_longer_than_it_was_seen_to_be_quiet(
            every in 10..86_400_u64, max_every in 10..86_400_u64, looks in 1..40_i32,
        ) {
            let cutover = cutover(every, max_every);
            let seen_quiet: u64 = (1..looks).map(|quiet| delta_wait(&cutover, quiet).as_std().as_secs()).sum();
            let wait = delta_wait(&cutover, looks).as_std().as_secs();
            prop_assert!(wait >= every && wait <= every.max(max_every));
            prop_assert!(wait <= seen_quiet.max(every), "{wait} s after {seen_quiet} s");
        }
    }
}
