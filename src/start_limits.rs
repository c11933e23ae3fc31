//! What syncs share, and what each may take of it: the same rules with and without a cluster. Pure: time comes in as a
//! parameter.
//!
//! Whatever limits syncs is a resource with a limit: connections to a server, the right to append to an account. The
//! caller says which resources there are (`R`), who waits, and in which order. This module says whether a sync fits:
//!
//! - It takes the shares of all that it needs when it starts, or none. It holds them until its end is certain.
//! - A resource may also limit how many syncs start within a minute.
//! - What the first one waits for is reserved against those behind it, so that a large need is not overtaken for ever.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_mins(1);

/// What one sync takes of a resource, and how much of it there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResourceShare {
    /// Taken.
    pub units: usize,
    /// The most that all syncs together may take; none: without limit, but counted.
    pub limit: Option<usize>,
    /// Syncs that may start within one minute; none: without limit.
    pub starts_per_minute: Option<usize>,
}

impl ResourceShare {
    /// True when a sync may have this share at all, were nothing taken.
    #[must_use]
    pub(crate) fn is_possible(&self) -> bool {
        self.limit.is_none_or(|limit| self.units <= limit) && self.starts_per_minute != Some(0)
    }

    /// True when a sync may have to wait for this resource.
    #[must_use]
    pub(crate) const fn is_limited(&self) -> bool {
        self.limit.is_some() || self.starts_per_minute.is_some()
    }
}

/// All that one sync needs.
pub(crate) type ResourceNeeds<R> = BTreeMap<R, ResourceShare>;

/// What all running syncs have taken, and when syncs started.
#[derive(Debug)]
pub(crate) struct ResourceUsage<R> {
    in_use: HashMap<R, usize>,
    /// How many syncs started within the last minute on each resource that limits starts.
    starts: HashMap<R, usize>,
    /// The same starts by time; the number tells those of one instant apart.
    starts_by_time: BTreeMap<(Instant, u64), R>,
    numbered: u64,
}

impl<R> Default for ResourceUsage<R> {
    fn default() -> Self {
        Self { in_use: HashMap::new(), starts: HashMap::new(), starts_by_time: BTreeMap::new(), numbered: 0 }
    }
}

/// Resources that a sync waits for: those behind it in the same search may not take them.
#[derive(Debug)]
pub(crate) struct ReservedResources<R>(HashSet<R>);

impl<R> Default for ReservedResources<R> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<R: Clone + Eq + Hash> ReservedResources<R> {
    /// Keeps this resource for the one that waits.
    pub(crate) fn reserve(&mut self, resource: &R) {
        if !self.0.contains(resource) {
            self.0.insert(resource.clone());
        }
    }
}

impl<R: Clone + Eq + Hash> ResourceUsage<R> {
    /// The units of a resource that are taken.
    #[must_use]
    pub(crate) fn in_use(&self, resource: &R) -> usize {
        self.in_use.get(resource).copied().unwrap_or(0)
    }

    /// True when nothing is taken.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.in_use.is_empty()
    }

    /// True when a sync may take this share now. Starts count until [`Self::expire_starts`] is told that a minute passed.
    #[must_use]
    pub(crate) fn has_room(&self, resource: &R, share: &ResourceShare) -> bool {
        let room = share.limit.is_none_or(|limit| self.in_use(resource) + share.units <= limit);
        let started = self.starts.get(resource).copied().unwrap_or(0);
        room && share.starts_per_minute.is_none_or(|most| started < most)
    }

    /// True when a sync may take this share now, and nobody before it waits for the resource.
    #[must_use]
    pub(crate) fn is_free(&self, resource: &R, share: &ResourceShare, reserved: &ReservedResources<R>) -> bool {
        !reserved.0.contains(resource) && self.has_room(resource, share)
    }

    /// Takes what a sync that starts needs, and remembers its start where starts are limited.
    pub(crate) fn start(&mut self, needs: &ResourceNeeds<R>, now: Instant) {
        for (resource, _) in needs.iter().filter(|(_, share)| share.starts_per_minute.is_some()) {
            *self.starts.entry(resource.clone()).or_default() += 1;
            self.numbered += 1;
            self.starts_by_time.insert((now, self.numbered), resource.clone());
        }
        self.resume(needs);
    }

    /// A sync that was to start at this time did not: others may, in its place. Gives the resources that limit starts.
    pub(crate) fn cancel_start(&mut self, needs: &ResourceNeeds<R>, at: Instant) -> Vec<R> {
        let mut cancelled = Vec::new();
        for (resource, _) in needs.iter().filter(|(_, share)| share.starts_per_minute.is_some()) {
            let mut then = self.starts_by_time.range((at, 0)..=(at, u64::MAX));
            let Some(start) = then.find(|(_, of)| *of == resource).map(|(start, _)| *start) else { continue };
            self.starts_by_time.remove(&start);
            self.count_off(resource);
            cancelled.push(resource.clone());
        }
        cancelled
    }

    fn count_off(&mut self, resource: &R) {
        if let Some(starts) = self.starts.get_mut(resource) {
            *starts = starts.saturating_sub(1);
            if *starts == 0 {
                self.starts.remove(resource);
            }
        }
    }

    /// Takes what a sync needs that started some time ago.
    pub(crate) fn resume(&mut self, needs: &ResourceNeeds<R>) {
        for (resource, share) in needs {
            *self.in_use.entry(resource.clone()).or_default() += share.units;
        }
    }

    /// Gives back what a sync has taken.
    pub(crate) fn release(&mut self, needs: &ResourceNeeds<R>) {
        for (resource, share) in needs {
            if let Some(used) = self.in_use.get_mut(resource) {
                *used = used.saturating_sub(share.units);
                if *used == 0 {
                    self.in_use.remove(resource);
                }
            }
        }
    }

    /// Forgets starts that are a minute old; gives the resources that they were on.
    pub(crate) fn expire_starts(&mut self, now: Instant) -> Vec<R> {
        let mut expired = Vec::new();
        while let Some(oldest) = self.starts_by_time.first_entry() {
            if now.saturating_duration_since(oldest.key().0) < MINUTE {
                break;
            }
            let resource = oldest.remove();
            self.count_off(&resource);
            expired.push(resource);
        }
        expired
    }

    /// The time until the next start is a minute old, so that another may be possible.
    #[must_use]
    pub(crate) fn next_expiry_in(&self, now: Instant) -> Option<Duration> {
        let (oldest, _) = self.starts_by_time.first_key_value()?.0;
        Some((*oldest + MINUTE).saturating_duration_since(now))
    }
}

/// How many connections to each side a sync may have: as many as are wanted and the servers' limits allow. A server that
/// stands on both sides is connected to twice as often. It is 0 when a limit is too low for one connection to each side.
#[must_use]
pub(crate) fn connections_within(wanted: usize, limits: impl IntoIterator<Item = usize>, same_server: bool) -> usize {
    let sides = 1 + usize::from(same_server);
    limits.into_iter().fold(wanted, |least, limit| least.min(limit / sides))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(units: usize, limit: Option<usize>) -> ResourceShare {
        ResourceShare { units, limit, starts_per_minute: None }
    }

    #[test]
    fn a_share_fits_up_to_its_limit_and_what_has_no_limit_is_counted() {
        let mut usage = ResourceUsage::default();
        usage.resume(&ResourceNeeds::from([("limited", share(3, Some(4))), ("unlimited", share(7, None))]));
        assert!(usage.has_room(&"limited", &share(1, Some(4))));
        assert!(!usage.has_room(&"limited", &share(2, Some(4))));
        assert!(usage.has_room(&"unlimited", &share(1_000, None)));
        assert_eq!((usage.in_use(&"unlimited"), usage.in_use(&"unknown")), (7, 0));
    }

    #[test]
    fn starts_are_limited_within_a_minute_and_a_sync_that_goes_on_is_no_start() {
        let (mut usage, now) = (ResourceUsage::default(), Instant::now());
        let twice = ResourceShare { units: 1, limit: None, starts_per_minute: Some(2) };
        let needs = ResourceNeeds::from([("server", twice)]);
        usage.resume(&needs);
        usage.start(&needs, now);
        assert!(usage.has_room(&"server", &twice));
        usage.start(&needs, now + Duration::from_secs(20));
        usage.release(&needs);
        assert!(!usage.has_room(&"server", &twice), "an end makes no room for a start");
        let later = now + Duration::from_secs(59);
        usage.expire_starts(later);
        assert!(!usage.has_room(&"server", &twice));
        assert_eq!(usage.next_expiry_in(later), Some(Duration::from_secs(1)));
        usage.expire_starts(now + MINUTE);
        assert!(usage.has_room(&"server", &twice));
        assert_eq!(usage.next_expiry_in(now + MINUTE), Some(Duration::from_secs(20)));
        usage.expire_starts(now + 2 * MINUTE);
        assert_eq!(usage.next_expiry_in(now + 2 * MINUTE), None);
    }

    #[test]
    fn a_start_that_was_none_leaves_room_for_another() {
        let (mut usage, now) = (ResourceUsage::default(), Instant::now());
        let once = ResourceShare { units: 1, limit: None, starts_per_minute: Some(1) };
        let needs = ResourceNeeds::from([("server", once), ("unlimited", share(1, None))]);
        usage.start(&needs, now);
        assert!(usage.cancel_start(&needs, now + Duration::from_secs(1)).is_empty(), "none started then");
        assert_eq!(usage.cancel_start(&needs, now), ["server"]);
        usage.release(&needs);
        assert!(usage.has_room(&"server", &once) && usage.next_expiry_in(now).is_none() && usage.is_empty());
    }

    #[test]
    fn what_somebody_waits_for_is_left_to_it() {
        let (usage, mut reserved) = (ResourceUsage::default(), ReservedResources::default());
        reserved.reserve(&"server");
        let one = share(1, Some(9));
        assert!(usage.has_room(&"server", &one));
        assert!(!usage.is_free(&"server", &one, &reserved));
        assert!(usage.is_free(&"another", &one, &reserved));
    }

    #[test]
    fn connections_stay_within_all_limits_and_a_server_on_both_sides_counts_twice() {
        assert_eq!(connections_within(4, [], false), 4);
        assert_eq!(connections_within(4, [9, 3], false), 3);
        assert_eq!(connections_within(4, [5], true), 2);
        assert_eq!(connections_within(4, [1], true), 0);
    }

    proptest! {
        #[test]
        fn no_limit_is_exceeded_and_nothing_leaks(
            steps in proptest::collection::vec((any::<bool>(), 0_u8..4, 1_usize..4, 0_u8..4, 1_usize..4), 1..100),
            order in any::<usize>(),
        ) {
            let (mut usage, now) = (ResourceUsage::default(), Instant::now());
            let mut running: Vec<ResourceNeeds<u8>> = Vec::new();
            for (start, one, one_units, two, two_units) in steps {
                if start {
                    let needs = ResourceNeeds::from([(one, share(one_units, Some(4))), (two, share(two_units, Some(4)))]);
                    if needs.iter().all(|(resource, share)| usage.has_room(resource, share)) {
                        usage.start(&needs, now);
                        running.push(needs);
                    }
                } else if !running.is_empty() {
                    usage.release(&running.swap_remove(order % running.len()));
                }
                for resource in 0..4 {
                    let taken = running.iter().filter_map(|needs| needs.get(&resource)).map(|share| share.units).sum::<usize>();
                    prop_assert_eq!(usage.in_use(&resource), taken);
                    prop_assert!(taken <= 4);
                }
            }
            for needs in running {
                usage.release(&needs);
            }
            prop_assert!(usage.is_empty());
        }
    }
}
