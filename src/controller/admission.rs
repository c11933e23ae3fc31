//! Who may run: slots, taken together or not at all, and held until an attempt's end is certain. Pure: time comes in as a
//! parameter. [`crate::start_limits`] says whether a sync fits; this module says whose turn it is.
//!
//! Everything that limits syncs is a [`LimitedResource`] with a limit: the operator as a whole, a namespace's syncs, a
//! migration's parallelism, the connections to a host (the operator's configuration) and to a MailServer (its namespace's), a
//! destination account. Namespaces take turns, the one with the smallest share of what runs first, and in each its
//! migrations, the one with the fewest running first: so neither a tenant of ten mailboxes nor a migration of ten is starved
//! by one of ten thousand. A saturated host holds up nobody who does not need it.

mod lanes;
mod namespace_share;
mod pod_refusals;
mod ranked_lanes;
mod request;
mod token_bucket;

#[cfg(test)]
mod model;
#[cfg(test)]
mod scale;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

pub use self::request::{LimitedResource, MigrationKey};
pub(crate) use self::request::{ObjectUid, SlotRequest};
use self::{
    lanes::{WaitingFacts, WaitingLanes},
    namespace_share::NamespaceShares,
    pod_refusals::PodRefusals,
    token_bucket::TokenBucket,
};
use crate::start_limits::{ResourceNeeds, ResourceShare, ResourceUsage};

/// What a mailbox waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SlotWait {
    /// Its turn: nothing else is lacking.
    Turn,
    /// Pods are refused in its namespace: why.
    PodsRefused(String),
    /// Another sync uses its destination account.
    Account,
    /// A resource, of which this much is there at one time: all is taken, or left to somebody before.
    Room(LimitedResource, Option<usize>),
    /// A resource that lets so many syncs start within a minute.
    Start(LimitedResource, usize),
}

/// A mailbox that runs.
#[derive(Debug, Clone)]
struct SlotGrant {
    migration: MigrationKey,
    slots: i32,
    needs: ResourceNeeds<LimitedResource>,
    /// When it was granted; none where it ran before this process did.
    started: Option<Instant>,
}

/// Who waits and who runs.
#[derive(Debug)]
pub(crate) struct SyncAdmission {
    waiting: WaitingLanes,
    granted: HashMap<ObjectUid, SlotGrant>,
    usage: ResourceUsage<LimitedResource>,
    running: HashMap<MigrationKey, usize>,
    shares: NamespaceShares,
    refusals: PodRefusals,
    bucket: TokenBucket,
}

impl SyncAdmission {
    /// With so many pods per second at most.
    #[must_use]
    pub(crate) fn new(pods_per_second: u32) -> Self {
        Self {
            waiting: WaitingLanes::default(),
            granted: HashMap::new(),
            usage: ResourceUsage::default(),
            running: HashMap::new(),
            shares: NamespaceShares::default(),
            refusals: PodRefusals::default(),
            bucket: TokenBucket::new(pods_per_second),
        }
    }

    /// The same, where these namespaces have these weights; others have 1.
    #[must_use]
    pub(crate) fn with_weights(self, weights: HashMap<String, u32>) -> Self {
        Self { shares: NamespaceShares::new(weights), ..self }
    }

    /// The connections that a mailbox holds, if it may run.
    #[must_use]
    pub(crate) fn granted_slots(&self, uid: &str) -> Option<i32> {
        self.granted.get(uid).map(|grant| grant.slots)
    }

    /// Mailboxes that run.
    pub(crate) fn holders(&self) -> impl Iterator<Item = &ObjectUid> {
        self.granted.keys()
    }

    /// How many wait.
    #[must_use]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// How many run.
    #[must_use]
    pub(crate) fn running_count(&self) -> usize {
        self.granted.len()
    }

    /// What is taken of a resource.
    #[must_use]
    pub(crate) fn in_use(&self, resource: &LimitedResource) -> usize {
        self.usage.in_use(resource)
    }

    /// Why pods are refused in a namespace, if they are.
    #[must_use]
    pub(crate) fn refusal_message(&self, namespace: &str) -> Option<&str> {
        self.refusals.message(namespace)
    }

    /// What a mailbox with this request waits for, whether it is in the queue already or not.
    #[must_use]
    pub(crate) fn waits_for(&self, request: &SlotRequest) -> SlotWait {
        if let Some(message) = self.refusals.message(request.namespace()) {
            return SlotWait::PodsRefused(message.to_owned());
        }
        let mut accounts = request.needs.iter().filter(|(resource, _)| resource.is_account());
        if accounts.any(|(resource, share)| !self.usage.has_room(resource, share)) {
            return SlotWait::Account;
        }
        let Some((resource, share)) = self.waiting.waits_for(request, &self.usage) else { return SlotWait::Turn };
        let without_starts = ResourceShare { starts_per_minute: None, ..share };
        match share.starts_per_minute {
            Some(most) if self.usage.has_room(&resource, &without_starts) => SlotWait::Start(resource, most),
            _ => SlotWait::Room(resource, share.limit),
        }
    }

    /// Takes a mailbox into the queue, or brings what it needs up to date. One that holds slots does not wait.
    pub(crate) fn enqueue(&mut self, request: SlotRequest) {
        if self.granted.contains_key(&request.uid) {
            return;
        }
        let running = self.running.get(&request.migration).copied().unwrap_or(0);
        let held = self.refusals.holds(request.namespace());
        let facts = WaitingFacts { share: self.shares.of(request.namespace()), running, held };
        self.waiting.insert(request, facts, &self.usage);
    }

    /// Takes a mailbox out of the queue; what it holds it keeps. True when it waited: others may have waited because it did.
    pub(crate) fn withdraw(&mut self, uid: &str) -> bool {
        self.waiting.remove(uid).is_some()
    }

    /// A mailbox is gone: it waits no longer, and gives back what it was given. True when it waited or held slots. Both at
    /// once, so that no grant comes in between.
    pub(crate) fn forget(&mut self, uid: &str) -> bool {
        let waited = self.withdraw(uid);
        self.release(uid) || waited
    }

    /// The same of a mailbox that does not want to run any more, and made no attempt with the slots that it holds.
    pub(crate) fn give_up(&mut self, uid: &str) -> bool {
        if let Some(grant) = self.granted.get(uid)
            && let Some(started) = grant.started
        {
            for resource in self.usage.cancel_start(&grant.needs, started) {
                self.waiting.resource_changed(&resource, &self.usage);
            }
        }
        self.forget(uid)
    }

    /// Takes slots for a mailbox that holds them already: when the operator starts.
    pub(crate) fn restore(&mut self, request: SlotRequest) {
        self.withdraw(&request.uid);
        if !self.granted.contains_key(&request.uid) {
            self.usage.resume(&request.needs);
            self.grant_slots(request, None);
        }
    }

    /// Gives the slots of a mailbox back whose attempt has ended. True when it held some.
    pub(crate) fn release(&mut self, uid: &str) -> bool {
        let Some(grant) = self.granted.remove(uid) else { return false };
        self.refusals.end_probe(&grant.migration.0);
        self.usage.release(&grant.needs);
        for resource in grant.needs.keys() {
            self.waiting.resource_changed(resource, &self.usage);
        }
        let running = self.running.get(&grant.migration).map_or(0, |running| running.saturating_sub(1));
        if running == 0 {
            self.running.remove(&grant.migration);
        } else {
            self.running.insert(grant.migration.clone(), running);
        }
        self.waiting.set_running(&grant.migration, running, false);
        let share = self.shares.remove(&grant.migration.0);
        self.waiting.set_share(&grant.migration.0, share);
        true
    }

    /// The next mailbox that may run; it holds its slots from here on. One that does not want to run any more (`wants`) is
    /// taken out of the queue instead.
    pub(crate) fn admit_next(
        &mut self,
        now: Instant,
        wants: impl Fn(&SlotRequest) -> bool,
    ) -> Option<(String, String)> {
        self.bucket.refill(now);
        if self.waiting.len() == 0 || !self.bucket.has_token() {
            return None;
        }
        for resource in self.usage.expire_starts(now) {
            self.waiting.resource_changed(&resource, &self.usage);
        }
        for namespace in self.refusals.begin_probes(now) {
            self.waiting.set_held(&namespace, false);
        }
        loop {
            let request = self.waiting.first_that_fits(&self.usage)?;
            let (uid, wanted) = (request.uid.clone(), wants(request));
            let request = self.waiting.remove(&uid)?;
            if !wanted {
                continue;
            }
            self.bucket.take();
            let place = (request.namespace().to_owned(), request.name.clone());
            self.usage.start(&request.needs, now);
            if self.refusals.hold_others(&place.0) {
                self.waiting.set_held(&place.0, true);
            }
            self.grant_slots(request, Some(now));
            return Some(place);
        }
    }

    /// When [`Self::admit_next`] may give something that it does not give now although nothing is given back.
    #[must_use]
    pub(crate) fn next_admission_in(&self, now: Instant) -> Option<Duration> {
        if self.waiting.len() == 0 {
            return None;
        }
        let refused = self.refusals.next_probe_in(now);
        let started = self.usage.next_expiry_in(now);
        let token = self.bucket.wait().filter(|_| self.waiting.may_fit());
        let waits = [refused, started, token].into_iter().flatten();
        waits.min().map(|wait| wait.max(Duration::from_millis(5)))
    }

    /// A pod was refused in a namespace: nobody tries there for a while, then one does.
    pub(crate) fn record_refusal(&mut self, namespace: &str, message: &str, now: Instant) {
        self.refusals.record(namespace, message, now);
        self.waiting.set_held(namespace, true);
    }

    /// A pod was made in a namespace. True when that is news.
    pub(crate) fn clear_refusal(&mut self, namespace: &str) -> bool {
        let news = self.refusals.clear(namespace);
        if news {
            self.waiting.set_held(namespace, false);
        }
        news
    }

    fn grant_slots(&mut self, request: SlotRequest, started: Option<Instant>) {
        let SlotRequest { uid, migration, slots, needs, name: _ } = request;
        let running = self.running.entry(migration.clone()).or_default();
        *running += 1;
        self.waiting.set_running(&migration, *running, true);
        let share = self.shares.add(&migration.0);
        self.waiting.set_share(&migration.0, share);
        for account in needs.keys().filter(|resource| resource.is_account()) {
            self.waiting.resource_changed(account, &self.usage);
        }
        self.granted.insert(uid, SlotGrant { migration, slots, needs, started });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(migration: &str, name: &str, host: &str, units: usize, limit: usize) -> SlotRequest {
        let share = |units, limit| ResourceShare { units, limit: Some(limit), starts_per_minute: None };
        SlotRequest {
            uid: format!("{migration}/{name}"),
            name: name.to_owned(),
            migration: ("ns".to_owned(), migration.to_owned()),
            slots: i32::try_from(units).unwrap(),
            needs: ResourceNeeds::from([
                (LimitedResource::Operator, share(1, 1000)),
                (LimitedResource::Host(host.to_owned()), share(units, limit)),
                (LimitedResource::Account(name.to_owned()), share(1, 1)),
            ]),
        }
    }

    fn drain(admission: &mut SyncAdmission, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| admission.admit_next(now, |_| true)).map(|(_, name)| name).collect()
    }

    #[test]
    fn a_small_migration_is_not_starved_by_a_large_one() {
        let (mut admission, now) = (SyncAdmission::new(1000), Instant::now());
        for n in 0..500 {
            admission.enqueue(request("large", &format!("l{n}"), "h", 1, 10));
        }
        assert_eq!(drain(&mut admission, now).len(), 10);
        for n in 0..3 {
            admission.enqueue(request("small", &format!("s{n}"), "h", 1, 10));
        }
        for n in 0..4 {
            admission.release(&format!("large/l{n}"));
        }
        let next = drain(&mut admission, now);
        assert_eq!(next.iter().filter(|name| name.starts_with('s')).count(), 3, "{next:?}");
    }

    #[test]
    fn a_tenant_with_many_migrations_takes_no_more_than_its_share() {
        let weights = HashMap::from([("paying".to_owned(), 3)]);
        let (mut admission, now) = (SyncAdmission::new(1000).with_weights(weights), Instant::now());
        let of = |namespace: &str, migration: usize| {
            let mut request =
                request(&format!("{namespace}-{migration}"), &format!("{namespace}-{migration}"), "h", 1, 8);
            request.migration.0 = namespace.to_owned();
            request
        };
        for migration in 0..100 {
            admission.enqueue(of("many", migration));
        }
        assert_eq!(drain(&mut admission, now).len(), 8);
        for migration in 0..20 {
            admission.enqueue(of("paying", migration));
        }
        for done in 0..8 {
            admission.release(&format!("many-{done}/many-{done}"));
        }
        let next = drain(&mut admission, now);
        assert_eq!(next.iter().filter(|name| name.starts_with("paying")).count(), 6, "three of four: {next:?}");
    }

    #[test]
    fn a_saturated_host_holds_up_nobody_else() {
        let (mut admission, now) = (SyncAdmission::new(1000), Instant::now());
        for n in 0..100 {
            admission.enqueue(request("a", &format!("full{n}"), "full", 4, 4));
        }
        admission.enqueue(request("a", "other", "free", 4, 4));
        admission.enqueue(request("b", "third", "third", 4, 4));
        let mut started = drain(&mut admission, now);
        started.sort();
        assert_eq!(started, ["full0", "other", "third"]);
    }

    #[test]
    fn one_account_has_one_sync_and_the_next_follows() {
        let (mut admission, now) = (SyncAdmission::new(1000), Instant::now());
        admission.enqueue(request("a", "same", "h", 1, 10));
        admission.enqueue(SlotRequest { uid: "other".into(), ..request("b", "same", "h", 1, 10) });
        assert_eq!(drain(&mut admission, now).len(), 1);
        admission.release("a/same");
        admission.release("other");
        assert_eq!(drain(&mut admission, now).len(), 1);
    }

    #[test]
    fn pods_are_made_no_faster_than_configured() {
        let (mut admission, now) = (SyncAdmission::new(2), Instant::now());
        for n in 0..10 {
            admission.enqueue(request("a", &format!("m{n}"), "h", 1, 100));
        }
        assert_eq!(drain(&mut admission, now).len(), 2);
        assert!(admission.next_admission_in(now).is_some_and(|wait| wait <= Duration::from_millis(500)));
        assert_eq!(drain(&mut admission, now + Duration::from_secs(1)).len(), 2);
    }

    #[test]
    fn a_namespace_that_refuses_pods_is_tried_by_one_at_a_time() {
        let (mut admission, now) = (SyncAdmission::new(1000), Instant::now());
        admission.record_refusal("ns", "exceeded quota", now);
        for n in 0..10 {
            admission.enqueue(request("a", &format!("m{n}"), "h", 1, 100));
        }
        assert_eq!(admission.refusal_message("ns"), Some("exceeded quota"));
        assert!(drain(&mut admission, now).is_empty());
        let later = now + Duration::from_secs(10);
        assert_eq!(drain(&mut admission, later).len(), 1);
        assert!(admission.clear_refusal("ns"));
        assert_eq!(drain(&mut admission, later).len(), 9);
    }

    #[test]
    fn who_does_not_want_to_run_any_more_takes_neither_a_slot_nor_a_start_nor_a_turn() {
        let (mut admission, now) = (SyncAdmission::new(2), Instant::now());
        for n in 0..10 {
            admission.enqueue(request("suspended", &format!("s{n}"), "h", 1, 1));
        }
        admission.enqueue(request("other", "wants", "h", 1, 1));
        let next = admission.admit_next(now, |request| request.name == "wants");
        assert_eq!(next.map(|(_, name)| name).as_deref(), Some("wants"));
        assert_eq!((admission.waiting_count(), admission.running_count()), (0, 1));
    }

    #[test]
    fn slots_that_are_given_back_before_an_attempt_leave_room_for_another_start() {
        let (mut admission, now) = (SyncAdmission::new(1000), Instant::now());
        let once = |name: &str| {
            let mut request = request("m", name, "h", 1, 9);
            let host = request.needs.get_mut(&LimitedResource::Host("h".to_owned())).unwrap();
            host.starts_per_minute = Some(1);
            request
        };
        admission.enqueue(once("first"));
        admission.enqueue(once("second"));
        assert_eq!(drain(&mut admission, now), ["first"]);
        assert!(admission.give_up("m/first") && !admission.give_up("m/first"));
        assert_eq!(drain(&mut admission, now), ["second"]);
        admission.release("m/second");
        admission.enqueue(once("first"));
        assert_eq!(admission.waits_for(&once("first")), SlotWait::Start(LimitedResource::Host("h".to_owned()), 1));
        assert!(drain(&mut admission, now).is_empty(), "an attempt that was made counts");
    }

    #[test]
    fn a_need_that_can_never_be_met_holds_up_nobody() {
        let (mut admission, now) = (SyncAdmission::new(1000), Instant::now());
        let never = request("a", "never", "h", 2, 1);
        admission.enqueue(never.clone());
        admission.enqueue(request("b", "other", "h", 1, 1));
        assert_eq!(drain(&mut admission, now), ["other"]);
        assert_eq!(admission.waits_for(&never), SlotWait::Room(LimitedResource::Host("h".to_owned()), Some(1)));
        assert_eq!(admission.waiting_count(), 1);
    }

    #[test]
    fn a_mailbox_is_told_what_it_waits_for() {
        let (mut admission, now) = (SyncAdmission::new(1000), Instant::now());
        let host = |limit| SlotWait::Room(LimitedResource::Host("h".to_owned()), Some(limit));
        let waits = |admission: &SyncAdmission, name| admission.waits_for(&request("m", name, "h", 2, 3));
        assert_eq!(waits(&admission, "first"), SlotWait::Turn);
        admission.enqueue(request("m", "first", "h", 2, 3));
        assert_eq!(waits(&admission, "first"), SlotWait::Turn);
        assert_eq!(drain(&mut admission, now), ["first"]);
        assert_eq!((waits(&admission, "first"), waits(&admission, "second")), (SlotWait::Account, host(3)));
        // There is room for one connection more, which is left to who waits for two.
        admission.enqueue(request("m", "second", "h", 2, 3));
        let small = request("n", "third", "h", 1, 3);
        assert_eq!(admission.waits_for(&small), host(3));
        admission.record_refusal("ns", "exceeded quota", now);
        assert_eq!(waits(&admission, "second"), SlotWait::PodsRefused("exceeded quota".to_owned()));
    }

    proptest! {
        #[test]
        fn limits_are_never_exceeded_and_nothing_leaks(steps in prop::collection::vec((0..4_usize, 0..3_usize, 1..4_usize, 0..12_usize), 1..200)) {
            let (mut admission, now) = (SyncAdmission::new(100_000), Instant::now());
            let mut running: Vec<String> = Vec::new();
            for (what, host, units, number) in steps {
                match what {
                    0 | 1 => admission.enqueue(request(&format!("m{host}"), &format!("n{number}"), &format!("h{host}"), units, 4)),
                    2 => if let Some((_, name)) = admission.admit_next(now, |_| true) {
                        running.push(name);
                    },
                    _ => {
                        let uid = admission.granted.keys().nth(number).cloned();
                        if let Some(uid) = uid {
                            admission.release(&uid);
                        }
                    }
                }
                for host in 0..3 {
                    let host = LimitedResource::Host(format!("h{host}"));
                    prop_assert!(admission.in_use(&host) <= 4);
                }
                for number in 0..12 {
                    let account = LimitedResource::Account(format!("n{number}"));
                    prop_assert!(admission.in_use(&account) <= 1);
                }
            }
            let uids: Vec<_> = admission.granted.keys().cloned().collect();
            for uid in &uids {
                admission.release(uid);
            }
            prop_assert!(admission.usage.is_empty() && admission.running.is_empty());
        }
    }
}
