//! Who may run: slots, taken together or not at all, and held until an attempt's end is certain. Pure: time comes in as a
//! parameter. [`crate::start_limits`] says whether a sync fits; this module says whose turn it is.
//!
//! Everything that limits syncs is a [`LimitedResource`] with a limit: the operator as a whole, a migration's parallelism, the
//! connections to a host (the operator's configuration) and to a MailServer (its namespace's), a destination account.
//! Migrations take turns, the one with the fewest running first, so that one of ten is not starved by one of ten
//! thousand; a saturated host holds up nobody who does not need it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::start_limits::{ReservedResources, ResourceNeeds, ResourceUsage};

/// A mailbox, by its MailboxSync's UID.
pub(crate) type ObjectUid = String;
/// A migration, by namespace and name.
pub type MigrationKey = (String, String);

/// What is shared between syncs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitedResource {
    /// Syncs of the whole operator.
    Operator,
    /// Syncs of a migration.
    Migration(MigrationKey),
    /// Connections to `host:port`, across the cluster.
    Host(String),
    /// Connections to `host:port`, as one namespace's MailServers allow.
    Server(String, String),
    /// The right to append to an account, by its hash.
    Account(String),
}

impl LimitedResource {
    const fn is_account(&self) -> bool {
        matches!(self, Self::Account(_))
    }
}

/// A mailbox that wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotRequest {
    /// The mailbox.
    pub uid: ObjectUid,
    /// Its namespace.
    pub namespace: String,
    /// Its MailboxSync's name.
    pub name: String,
    /// Its migration.
    pub migration: MigrationKey,
    /// Connections to each side.
    pub slots: i32,
    /// All that it needs.
    pub needs: ResourceNeeds<LimitedResource>,
}

/// A mailbox that runs.
#[derive(Debug, Clone)]
struct SlotGrant {
    namespace: String,
    migration: MigrationKey,
    slots: i32,
    needs: ResourceNeeds<LimitedResource>,
}

/// Refused creates of pods in one namespace.
#[derive(Debug, Clone)]
struct PodRefusal {
    times: u32,
    until: Instant,
    message: String,
    /// One sync is trying whether it works again.
    probing: bool,
}

/// Who waits and who runs.
#[derive(Debug)]
pub(crate) struct SyncAdmission {
    waiting: BTreeMap<MigrationKey, MigrationQueue>,
    queued: HashMap<ObjectUid, MigrationKey>,
    granted: HashMap<ObjectUid, SlotGrant>,
    usage: ResourceUsage<LimitedResource>,
    running: HashMap<MigrationKey, usize>,
    refusals: HashMap<String, PodRefusal>,
    bucket: TokenBucket,
    /// Counts grants, to take turns between migrations with equally many running.
    turn: u64,
}

/// The waiting mailboxes of one migration: those with equal needs but for their accounts stand in one lane, so that a
/// saturated host is asked about once and not for each of ten thousand mailboxes.
#[derive(Debug, Default)]
struct MigrationQueue {
    lanes: BTreeMap<Vec<(LimitedResource, usize)>, VecDeque<SlotRequest>>,
    last_turn: u64,
}

/// Pods per second, with a second's worth at once.
#[derive(Debug)]
struct TokenBucket {
    per_second: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl TokenBucket {
    fn refill(&mut self, now: Instant) {
        let passed = self.at.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second.max(1.0));
        self.at = Some(now);
    }

    fn wait(&self) -> Option<Duration> {
        (self.tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }
}

/// The first wait after a refused create; doubles.
const REFUSED_BACKOFF: Duration = Duration::from_secs(10);
/// The longest wait after refused creates.
const MAX_REFUSED_BACKOFF: Duration = Duration::from_mins(5);

impl SyncAdmission {
    /// With so many pods per second at most.
    #[must_use]
    pub(crate) fn new(pods_per_second: u32) -> Self {
        Self {
            waiting: BTreeMap::new(),
            queued: HashMap::new(),
            granted: HashMap::new(),
            usage: ResourceUsage::default(),
            running: HashMap::new(),
            refusals: HashMap::new(),
            bucket: TokenBucket { per_second: f64::from(pods_per_second.max(1)), tokens: 0.0, at: None },
            turn: 0,
        }
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
        self.queued.len()
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
        self.refusals.get(namespace).map(|refusal| refusal.message.as_str())
    }

    /// Takes a mailbox into the queue, or brings what it needs up to date.
    pub(crate) fn enqueue(&mut self, request: SlotRequest) {
        if self.granted.contains_key(&request.uid) {
            return;
        }
        let lane = lane_key(&request);
        let queue = self.waiting.entry(request.migration.clone()).or_default();
        if self.queued.contains_key(&request.uid) {
            if let Some(place) = queue.lanes.get_mut(&lane).and_then(|l| l.iter_mut().find(|r| r.uid == request.uid)) {
                *place = request;
                return;
            }
            self.withdraw(&request.uid.clone());
        }
        self.queued.insert(request.uid.clone(), request.migration.clone());
        let queue = self.waiting.entry(request.migration.clone()).or_default();
        queue.lanes.entry(lane).or_default().push_back(request);
    }

    /// Takes a mailbox out of the queue.
    pub(crate) fn withdraw(&mut self, uid: &str) {
        let Some(migration) = self.queued.remove(uid) else { return };
        if let Some(queue) = self.waiting.get_mut(&migration) {
            for lane in queue.lanes.values_mut() {
                lane.retain(|request| request.uid != uid);
            }
            queue.lanes.retain(|_, lane| !lane.is_empty());
            if queue.lanes.is_empty() {
                self.waiting.remove(&migration);
            }
        }
    }

    /// Takes slots for a mailbox that holds them already: when the operator starts.
    pub(crate) fn restore(&mut self, request: SlotRequest) {
        self.withdraw(&request.uid);
        if !self.granted.contains_key(&request.uid) {
            self.usage.resume(&request.needs);
            self.grant_slots(request);
        }
    }

    /// Gives a mailbox's slots back.
    pub(crate) fn release(&mut self, uid: &str) {
        let Some(grant) = self.granted.remove(uid) else { return };
        if let Some(refusal) = self.refusals.get_mut(&grant.namespace) {
            refusal.probing = false;
        }
        self.usage.release(&grant.needs);
        if let Some(running) = self.running.get_mut(&grant.migration) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(&grant.migration);
            }
        }
    }

    /// The next mailbox that may run; it holds its slots from here on.
    pub(crate) fn admit_next(&mut self, now: Instant) -> Option<(String, String)> {
        self.bucket.refill(now);
        if self.waiting.is_empty() || self.bucket.tokens < 1.0 {
            return None;
        }
        self.usage.expire_starts(now);
        let mut turns: Vec<_> = self
            .waiting
            .iter()
            .map(|(migration, queue)| {
                (self.running.get(migration).copied().unwrap_or(0), queue.last_turn, migration.clone())
            })
            .collect();
        turns.sort();
        let mut reserved = ReservedResources::default();
        for (_, _, migration) in turns {
            if let Some(request) = self.first_that_fits(&migration, &mut reserved, now) {
                self.bucket.tokens -= 1.0;
                self.queued.remove(&request.uid);
                let place = (request.namespace.clone(), request.name.clone());
                self.usage.start(&request.needs, now);
                if let Some(refusal) = self.refusals.get_mut(&request.namespace) {
                    refusal.probing = true;
                }
                self.grant_slots(request);
                return Some(place);
            }
        }
        None
    }

    /// When [`Self::admit_next`] may give something that it does not give now although nothing is given back.
    #[must_use]
    pub(crate) fn next_admission_in(&self, now: Instant) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let refused = self.refusals.values().filter(|r| !r.probing).map(|r| r.until.saturating_duration_since(now));
        let started = self.usage.next_expiry_in(now);
        self.bucket
            .wait()
            .into_iter()
            .chain(refused)
            .chain(started)
            .min()
            .map(|wait| wait.max(Duration::from_millis(5)))
    }

    /// A pod was refused in a namespace: nobody tries there for a while, then one does.
    pub(crate) fn record_refusal(&mut self, namespace: &str, message: &str, now: Instant) {
        let times = self.refusals.get(namespace).map_or(0, |refusal| refusal.times);
        let wait = REFUSED_BACKOFF.saturating_mul(2_u32.saturating_pow(times)).min(MAX_REFUSED_BACKOFF);
        let refusal = PodRefusal { times: times + 1, until: now + wait, message: message.to_owned(), probing: false };
        self.refusals.insert(namespace.to_owned(), refusal);
    }

    /// A pod was made in a namespace. True when that is news.
    pub(crate) fn clear_refusal(&mut self, namespace: &str) -> bool {
        self.refusals.remove(namespace).is_some()
    }

    fn grant_slots(&mut self, request: SlotRequest) {
        *self.running.entry(request.migration.clone()).or_default() += 1;
        let SlotRequest { uid, namespace, migration, slots, needs, name: _ } = request;
        let grant = SlotGrant { namespace, migration, slots, needs };
        self.granted.insert(uid, grant);
    }

    /// The first mailbox of a migration that fits. Of what a lane needs, only what it lacks is reserved: all lanes need the
    /// operator's own slots. An account is never reserved, since the next mailbox of the lane has another one.
    fn first_that_fits(
        &mut self,
        migration: &MigrationKey,
        reserved: &mut ReservedResources<LimitedResource>,
        now: Instant,
    ) -> Option<SlotRequest> {
        let queue = self.waiting.get(migration)?;
        let mut found = None;
        for (lane, requests) in &queue.lanes {
            let Some(first) = requests.front() else { continue };
            if self.refusals.get(&first.namespace).is_some_and(|r| r.probing || r.until > now) {
                continue;
            }
            let lacking: Vec<_> = first
                .needs
                .iter()
                .filter(|(resource, share)| !resource.is_account() && !self.usage.is_free(resource, share, reserved))
                .map(|(resource, _)| resource)
                .collect();
            if !lacking.is_empty() {
                for resource in lacking {
                    reserved.reserve(resource);
                }
                continue;
            }
            let account_is_free = |request: &SlotRequest| {
                let mut accounts = request.needs.iter().filter(|(resource, _)| resource.is_account());
                accounts.all(|(resource, share)| self.usage.has_room(resource, share))
            };
            if let Some(position) = requests.iter().position(account_is_free) {
                found = Some((lane.clone(), position));
                break;
            }
        }
        let (lane, position) = found?;
        self.turn += 1;
        let queue = self.waiting.get_mut(migration)?;
        queue.last_turn = self.turn;
        let requests = queue.lanes.get_mut(&lane)?;
        let request = requests.remove(position);
        if requests.is_empty() {
            queue.lanes.remove(&lane);
        }
        if queue.lanes.is_empty() {
            self.waiting.remove(migration);
        }
        request
    }
}

fn lane_key(request: &SlotRequest) -> Vec<(LimitedResource, usize)> {
    let shared = request.needs.iter().filter(|(resource, _)| !resource.is_account());
    shared.map(|(resource, share)| (resource.clone(), share.units)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::start_limits::ResourceShare;

    fn request(migration: &str, name: &str, host: &str, units: usize, limit: usize) -> SlotRequest {
        let share = |units, limit| ResourceShare { units, limit: Some(limit), starts_per_minute: None };
        SlotRequest {
            uid: format!("{migration}/{name}"),
            namespace: "ns".to_owned(),
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
        std::iter::from_fn(|| admission.admit_next(now)).map(|(_, name)| name).collect()
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
        let later = now + REFUSED_BACKOFF;
        assert_eq!(drain(&mut admission, later).len(), 1);
        assert!(admission.clear_refusal("ns"));
        assert_eq!(drain(&mut admission, later).len(), 9);
    }

    proptest! {
        #[test]
        fn limits_are_never_exceeded_and_nothing_leaks(steps in prop::collection::vec((0..4_usize, 0..3_usize, 1..4_usize, 0..12_usize), 1..200)) {
            let (mut admission, now) = (SyncAdmission::new(100_000), Instant::now());
            let mut running: Vec<String> = Vec::new();
            for (what, host, units, number) in steps {
                match what {
                    0 | 1 => admission.enqueue(request(&format!("m{host}"), &format!("n{number}"), &format!("h{host}"), units, 4)),
                    2 => if let Some((_, name)) = admission.admit_next(now) {
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
