//! Which messages a server fails to deliver: found by asking for less and less at a time, until one is asked for alone.

use std::collections::{BTreeMap, BTreeSet};

use super::uid::SourceUid;
use crate::imap::{Uid, UidSet};

/// A message is given up as unreadable after this many failures when asked for alone.
pub(crate) const MAX_FAILURES: u32 = 3;

/// What is known of a server's trouble with the messages of one folder, which is the source's unless the type says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureBisector<U = SourceUid> {
    /// How often it failed on a message.
    failures: BTreeMap<U, u32>,
    /// Messages that turned out larger than was said: what streams must be asked for alone.
    large: BTreeSet<U>,
    /// At most this many messages may be asked for at once.
    most: usize,
    /// The messages that this bounds, of which one or more made a request fail; none: all.
    suspects: UidSet<U>,
    /// Messages that were dealt with since that changed.
    dealt_with: usize,
    /// Grows with each failure: that narrows it down is progress too.
    steps: u64,
}

impl<U> Default for FailureBisector<U> {
    fn default() -> Self {
        Self {
            failures: BTreeMap::new(),
            large: BTreeSet::new(),
            most: usize::MAX,
            suspects: UidSet::new(),
            dealt_with: 0,
            steps: 0,
        }
    }
}

impl<U: Uid> FailureBisector<U> {
    /// A request ended badly. `missing` did not come; `some_came` says whether others of the same request did: then the
    /// first that is missing is suspected, else fewer are asked for next time.
    pub(crate) fn record_failure(&mut self, missing: &UidSet<U>, some_came: bool) {
        self.suspects = UidSet::new();
        self.narrow_down(missing, some_came);
    }

    /// The same; other messages than these are asked for as before.
    pub(crate) fn record_failure_among(&mut self, missing: &UidSet<U>, some_came: bool) {
        if missing.first().is_some_and(|first| !self.suspects.contains(first)) {
            self.suspects = missing.clone();
        }
        self.narrow_down(missing, some_came);
    }

    fn narrow_down(&mut self, missing: &UidSet<U>, some_came: bool) {
        let Some(first) = missing.first() else { return };
        self.steps += 1;
        self.dealt_with = 0;
        let count = usize::try_from(missing.len()).unwrap_or(usize::MAX);
        if some_came || count == 1 {
            *self.failures.entry(first).or_default() += 1;
            // Found: but bad ones often lie side by side, so the others are asked for in growing numbers.
            self.most = 1;
        } else {
            self.most = (count / 2).max(1);
        }
    }

    /// So many messages are dealt with for good: once as many are as may be asked for at a time, that may be twice as many.
    /// (An answer alone is no reason: its messages may be asked for again, and others with them that fail again.)
    pub(crate) fn record_success(&mut self, count: usize) {
        self.dealt_with = self.dealt_with.saturating_add(count);
        if self.dealt_with >= self.most {
            self.most = self.most.saturating_mul(2);
            self.dealt_with = 0;
        }
    }

    /// An earlier run gave this message up: it is asked for alone, and once.
    pub(crate) fn add_earlier(&mut self, uid: U) {
        self.failures.entry(uid).or_insert(MAX_FAILURES - 1);
    }

    /// True when it failed on a message more than once: others are asked for before.
    #[must_use]
    pub(crate) fn goes_last(&self, uid: U) -> bool {
        (2..MAX_FAILURES).contains(&self.failures(uid))
    }

    /// True when there is such a message.
    #[must_use]
    pub(crate) fn any_goes_last(&self) -> bool {
        self.failures.values().any(|failures| (2..MAX_FAILURES).contains(failures))
    }

    /// It failed on just this message.
    pub(crate) fn record_failure_on(&mut self, uid: U) {
        self.record_failure(&std::iter::once(uid).collect(), false);
    }

    /// It turned out to be large.
    pub(crate) fn mark_large(&mut self, uid: U) {
        self.large.insert(uid);
    }

    /// True when it was found to be large.
    #[must_use]
    pub(crate) fn is_large(&self, uid: U) -> bool {
        self.large.contains(&uid)
    }

    /// True when a message must be asked for alone.
    #[must_use]
    pub(crate) fn must_go_alone(&self, uid: U) -> bool {
        self.failures.contains_key(&uid) || self.large.contains(&uid)
    }

    /// How often it failed on a message.
    #[must_use]
    pub(crate) fn failures(&self, uid: U) -> u32 {
        self.failures.get(&uid).copied().unwrap_or(0)
    }

    /// True when a message is given up.
    #[must_use]
    pub(crate) fn is_unreadable(&self, uid: U) -> bool {
        self.failures(uid) >= MAX_FAILURES
    }

    /// At most this many messages may be asked for at once, of those that this bounds.
    #[must_use]
    pub(crate) const fn max_batch(&self) -> usize {
        self.most
    }

    /// True when the bound of [`FailureBisector::max_batch`] is for this message, too.
    #[must_use]
    pub(crate) fn is_bounded(&self, uid: U) -> bool {
        self.suspects.is_empty() || self.suspects.contains(uid)
    }

    /// True when it, or one of those that were asked for with it, made a request fail.
    #[must_use]
    pub(crate) fn is_suspected(&self, uid: U) -> bool {
        self.suspects.contains(uid) || self.failures.contains_key(&uid)
    }

    /// Failures so far.
    #[must_use]
    pub(crate) const fn steps(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::fetch_planner::plan_fetches;

    /// What is asked for next.
    fn next_batch(failures: &FailureBisector<u32>, left: &UidSet) -> UidSet {
        plan_fetches(left.iter().map(|uid| (uid, 0)), failures, usize::MAX).pop_front().unwrap_or_default()
    }

    #[test]
    fn others_are_asked_for_in_growing_numbers_once_one_is_found() {
        let mut failures = FailureBisector::default();
        let all: UidSet = (1..=8).collect();
        failures.record_failure(&all, false);
        assert_eq!(next_batch(&failures, &all).to_string(), "1:4");
        failures.record_failure(&(1..=4).collect(), false);
        assert_eq!(next_batch(&failures, &all).to_string(), "1:2");
        failures.record_failure(&(1..=2).collect(), true);
        assert_eq!(next_batch(&failures, &all).to_string(), "1");
        assert_eq!(next_batch(&failures, &(2..=8).collect()).to_string(), "2");
        failures.record_success(1);
        assert_eq!(next_batch(&failures, &(3..=8).collect()).to_string(), "3:4");
        failures.record_success(1);
        assert_eq!(next_batch(&failures, &(5..=12).collect()).to_string(), "5:6");
        failures.record_success(1);
        assert_eq!(next_batch(&failures, &(5..=12).collect()).to_string(), "5:8");
    }

    #[test]
    fn what_an_earlier_run_gave_up_is_asked_for_once() {
        let mut failures = FailureBisector::default();
        failures.add_earlier(SourceUid(7));
        assert!(failures.must_go_alone(SourceUid(7)) && failures.goes_last(SourceUid(7)));
        failures.record_failure_on(SourceUid(7));
        assert!(failures.is_unreadable(SourceUid(7)) && !failures.goes_last(SourceUid(7)));
    }

    #[test]
    fn a_hundred_bad_ones_in_a_row_cost_three_failures_each_and_little_more() {
        let mut failures = FailureBisector::default();
        let mut left: UidSet = (1..=1000).collect();
        let bad = 300..400;
        let mut count = 0;
        while !left.is_empty() {
            let asked = next_batch(&failures, &left);
            if asked.iter().any(|uid: u32| bad.contains(&uid)) {
                failures.record_failure(&asked, false);
                count += 1;
            } else {
                failures.record_success(usize::try_from(asked.len()).unwrap());
                left = left.difference(&asked);
            }
            left = left.iter().filter(|uid| !failures.is_unreadable(*uid)).collect();
        }
        assert!(count <= 3 * 100 + 20, "{count}");
    }

    proptest! {
        /// A server that sends nothing of a request that holds a bad message.
        #[test]
        fn all_bad_messages_are_found_and_no_others(
            count in 1..300_u32, bad in proptest::collection::btree_set(1..300_u32, 0..4),
        ) {
            let mut failures = FailureBisector::default();
            let mut left: UidSet = (1..=count).collect();
            for _ in 0..200 {
                left = left.iter().filter(|uid| !failures.is_unreadable(*uid)).collect();
                let asked = next_batch(&failures, &left);
                if asked.iter().any(|uid| bad.contains(&uid)) {
                    failures.record_failure(&asked, false);
                } else {
                    failures.record_success(usize::try_from(asked.len()).unwrap());
                    left = left.difference(&asked);
                }
            }
            prop_assert!(left.is_empty());
            for uid in 1..=count {
                prop_assert_eq!(failures.is_unreadable(uid), bad.contains(&uid));
            }
        }
    }
}
