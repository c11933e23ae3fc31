//! Who waits, indexed so that no decision looks at all of them. Pure.
//!
//! Waiting mailboxes of one migration with equal needs stand in one lane. Lanes have ranks: the namespace with the smallest
//! share of what runs first; in it the migration with the fewest running, then the one whose turn is longest ago. A lane has to wait for a resource when its share has no room there,
//! or when a lane before it waits for the resource: the first lane without room is the resource's *bar*, and whoever needs
//! the resource and stands behind the bar waits, too. So of the lanes that are parked at a resource only the first has to be
//! looked at, and only when something changed there. A namespace's share is no part of a lane's rank: where it changes, only
//! the resources that several namespaces need are looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
};

use super::{
    namespace_share::NamespaceShare,
    ranked_lanes::{LaneNumber, LaneRank, LaneTurn, NamespaceNumber, RankedLanes, WaitingShares},
    request::{LimitedResource, MigrationKey, ObjectUid, SlotRequest},
};
use crate::start_limits::{ResourceShare, ResourceUsage};

/// What each mailbox of a lane needs, but for its accounts: what few have in common first.
type LaneNeeds = Vec<(LimitedResource, ResourceShare)>;

/// The waiting mailboxes of one migration that need the same.
#[derive(Debug)]
struct WaitingLane {
    migration: MigrationKey,
    namespace: NamespaceNumber,
    needs: LaneNeeds,
    /// Those whose accounts are free, the first to come first.
    ready: BTreeMap<u64, SlotRequest>,
    /// Those whose accounts another sync uses.
    blocked: BTreeMap<u64, SlotRequest>,
    /// Its place in the order; none while it takes no part.
    rank: Option<LaneRank>,
    /// The resource that it waits for; none: that is not known yet.
    parked_at: Option<LimitedResource>,
    /// It stood first at this resource, which did not hold it up any more: if something else does, the next is asked.
    woken_from: Option<LimitedResource>,
}

/// The lanes of one migration.
#[derive(Debug)]
struct WaitingMigration {
    lanes: BTreeMap<LaneNeeds, LaneNumber>,
    namespace: NamespaceNumber,
    running: usize,
    turn: u64,
    /// Its namespace takes no pods: it takes no part.
    held: bool,
}

/// How things stand with a namespace, beyond what a mailbox asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WaitingFacts {
    /// Its share of what runs.
    pub share: NamespaceShare,
    /// Syncs of the mailbox's migration.
    pub running: usize,
    /// It takes no pods.
    pub held: bool,
}

/// A namespace in which mailboxes wait.
#[derive(Debug)]
struct WaitingNamespace {
    number: NamespaceNumber,
    /// Migrations that wait in it.
    migrations: usize,
}

/// Who needs a resource.
#[derive(Debug, Default)]
struct ResourceLanes {
    /// All lanes that take part, by their share.
    by_share: BTreeMap<ResourceShare, RankedLanes>,
    /// Those of them that wait for it.
    parked: RankedLanes,
}

impl ResourceLanes {
    /// True when mailboxes of several namespaces need it: then their shares decide who is first.
    fn is_contested(&self) -> bool {
        let mut namespaces = self.by_share.values().flat_map(RankedLanes::namespaces);
        let first = namespaces.next();
        namespaces.any(|namespace| Some(namespace) != first)
    }
}

/// Where a waiting mailbox stands.
#[derive(Debug, Clone, Copy)]
struct RequestPlace {
    lane: LaneNumber,
    number: u64,
}

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct WaitingLanes {
    places: HashMap<ObjectUid, RequestPlace>,
    lanes: HashMap<LaneNumber, WaitingLane>,
    migrations: BTreeMap<MigrationKey, WaitingMigration>,
    /// The namespaces of these.
    namespaces: BTreeMap<String, WaitingNamespace>,
    shares: WaitingShares,
    resources: HashMap<LimitedResource, ResourceLanes>,
    /// Lanes that take part, and are parked nowhere.
    active: RankedLanes,
    /// Resources that several namespaces need.
    contested: HashSet<LimitedResource>,
    /// Resources at which lanes are parked, and where something changed that may let them go on.
    changed: HashSet<LimitedResource>,
    by_account: HashMap<LimitedResource, HashSet<ObjectUid>>,
    /// Counts turns of migrations, and numbers lanes and requests.
    counter: u64,
}

type Usage = ResourceUsage<LimitedResource>;

impl WaitingLanes {
    /// How many mailboxes wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// True when some lane may fit.
    pub(super) fn may_fit(&self) -> bool {
        !self.active.is_empty() || !self.changed.is_empty()
    }

    /// Takes a mailbox in, or brings what it needs up to date; it keeps its place.
    pub(super) fn insert(&mut self, request: SlotRequest, facts: WaitingFacts, usage: &Usage) {
        if let Some(there) = self.waiting_mut(&request.uid)
            && there.needs == request.needs
        {
            *there = request;
            return;
        }
        let waiting = self.migrations.get(&request.migration);
        let since = waiting.map(|waiting| waiting.turn);
        let before = self.places.get(&request.uid).map(|place| place.number);
        self.remove(&request.uid);
        let number = before.unwrap_or_else(|| self.count());
        let (turn, new_lane) = (since.unwrap_or_else(|| self.count()), self.count());
        let needs: LaneNeeds = request.needs.iter().filter(|(r, _)| !r.is_account()).rev().map(owned).collect();
        let WaitingFacts { share, running, held } = facts;
        if !self.migrations.contains_key(&request.migration) {
            let namespace = self.enter_namespace(request.namespace(), share);
            let waiting = WaitingMigration { lanes: BTreeMap::new(), namespace, running, turn, held };
            self.migrations.insert(request.migration.clone(), waiting);
        }
        let Some(migration) = self.migrations.get_mut(&request.migration) else { return };
        let lane = *migration.lanes.entry(needs.clone()).or_insert(new_lane);
        let namespace = migration.namespace;
        for account in request.needs.keys().filter(|resource| resource.is_account()) {
            self.by_account.entry(account.clone()).or_default().insert(request.uid.clone());
        }
        self.places.insert(request.uid.clone(), RequestPlace { lane, number });
        let migration = request.migration.clone();
        let place = self.lanes.entry(lane).or_insert_with(|| WaitingLane {
            migration,
            namespace,
            needs,
            ready: BTreeMap::new(),
            blocked: BTreeMap::new(),
            rank: None,
            parked_at: None,
            woken_from: None,
        });
        let queue = if accounts_are_free(&request, usage) { &mut place.ready } else { &mut place.blocked };
        queue.insert(number, request);
        self.rank_lane(lane);
    }

    /// Takes a mailbox out.
    pub(super) fn remove(&mut self, uid: &str) -> Option<SlotRequest> {
        let place = self.places.remove(uid)?;
        let lane = self.lanes.get_mut(&place.lane)?;
        let request = lane.ready.remove(&place.number).or_else(|| lane.blocked.remove(&place.number))?;
        for account in request.needs.keys().filter(|resource| resource.is_account()) {
            if let Some(uids) = self.by_account.get_mut(account) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.by_account.remove(account);
                }
            }
        }
        self.rank_lane(place.lane);
        self.forget_if_empty(place.lane);
        Some(request)
    }

    /// Another number of syncs of a migration runs; `had_turn`: it has just had its turn.
    pub(super) fn set_running(&mut self, migration: &MigrationKey, running: usize, had_turn: bool) {
        let turn = self.count();
        let Some(waiting) = self.migrations.get_mut(migration) else { return };
        waiting.running = running;
        if had_turn {
            waiting.turn = turn;
        }
        for lane in waiting.lanes.values().copied().collect::<Vec<_>>() {
            self.rank_lane(lane);
        }
    }

    /// One more migration waits in a namespace; gives the namespace's number.
    fn enter_namespace(&mut self, namespace: &str, share: NamespaceShare) -> NamespaceNumber {
        let number = self.count();
        let first = WaitingNamespace { number, migrations: 0 };
        let waiting = self.namespaces.entry(namespace.to_owned()).or_insert(first);
        waiting.migrations += 1;
        let number = waiting.number;
        self.shares.insert(number, share);
        number
    }

    /// Another share of what runs is a namespace's.
    pub(super) fn set_share(&mut self, namespace: &str, share: NamespaceShare) {
        let Some(waiting) = self.namespaces.get(namespace) else { return };
        if self.shares.insert(waiting.number, share) == Some(share) {
            return;
        }
        // Its lanes stand elsewhere now, among those of others.
        let parked = |resource: &&LimitedResource| self.resources.get(resource).is_some_and(|l| !l.parked.is_empty());
        self.changed.extend(self.contested.iter().filter(parked).cloned());
    }

    /// A namespace takes no pods, or does again.
    pub(super) fn set_held(&mut self, namespace: &str, held: bool) {
        let first = (namespace.to_owned(), String::new());
        let migrations = self.migrations.range_mut(first..).take_while(|((of, _), _)| of == namespace);
        let mut lanes = Vec::new();
        for (_, migration) in migrations {
            migration.held = held;
            lanes.extend(migration.lanes.values().copied());
        }
        for lane in lanes {
            self.rank_lane(lane);
        }
    }

    /// What was taken of a resource is another, or syncs may start again that use it.
    pub(super) fn resource_changed(&mut self, resource: &LimitedResource, usage: &Usage) {
        if !resource.is_account() {
            if self.resources.get(resource).is_some_and(|lanes| !lanes.parked.is_empty()) {
                self.changed.insert(resource.clone());
            }
            return;
        }
        for uid in self.by_account.get(resource).into_iter().flatten().cloned().collect::<Vec<_>>() {
            let Some(RequestPlace { lane, number }) = self.places.get(&uid).copied() else { continue };
            let Some(place) = self.lanes.get_mut(&lane) else { continue };
            let (ready, blocked) = (&mut place.ready, &mut place.blocked);
            let Some(request) = ready.remove(&number).or_else(|| blocked.remove(&number)) else { continue };
            let queue = if accounts_are_free(&request, usage) { ready } else { blocked };
            queue.insert(number, request);
            self.rank_lane(lane);
        }
    }

    /// The first mailbox that fits. It goes on waiting until it is taken out.
    pub(super) fn first_that_fits(&mut self, usage: &Usage) -> Option<&SlotRequest> {
        let lane = loop {
            self.wake_first_parked(usage);
            let turn = self.active.first(&self.shares)?;
            match self.lacking(turn, usage) {
                None => break turn.rank.lane,
                Some(resource) => self.park(turn, resource),
            }
        };
        self.lanes.get(&lane)?.ready.values().next()
    }

    /// What keeps a mailbox waiting, if it waits for a resource: one without room, or one that somebody before it waits for.
    pub(super) fn waits_for(&self, request: &SlotRequest, usage: &Usage) -> Option<(LimitedResource, ResourceShare)> {
        let lacks = |(resource, share): &(&LimitedResource, &ResourceShare)| !usage.has_room(resource, share);
        let needs = || request.needs.iter().rev().filter(|(resource, _)| !resource.is_account());
        let turn = self.places.get(&request.uid).and_then(|place| self.turn_of(self.lanes.get(&place.lane)?));
        let behind = |(resource, _): &(&LimitedResource, &ResourceShare)| {
            self.bar(resource, usage).is_some_and(|bar| turn.is_none_or(|turn| bar < turn))
        };
        needs().find(lacks).or_else(|| needs().find(behind)).map(owned)
    }

    fn waiting_mut(&mut self, uid: &str) -> Option<&mut SlotRequest> {
        let place = self.places.get(uid)?;
        let lane = self.lanes.get_mut(&place.lane)?;
        lane.ready.get_mut(&place.number).or_else(|| lane.blocked.get_mut(&place.number))
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A lane's place among all; none while it takes no part.
    fn turn_of(&self, lane: &WaitingLane) -> Option<LaneTurn> {
        let share = self.shares.get(&lane.namespace).copied().unwrap_or_default();
        Some(LaneTurn { share, rank: lane.rank?, namespace: lane.namespace })
    }

    /// The first lane that waits for a resource for want of room.
    fn bar(&self, resource: &LimitedResource, usage: &Usage) -> Option<LaneTurn> {
        let by_share = self.resources.get(resource)?.by_share.iter();
        by_share
            .filter(|(share, _)| !usage.has_room(resource, share))
            .filter_map(|(_, lanes)| lanes.first(&self.shares))
            .min()
    }

    /// The resource that a lane has to wait for, if any.
    fn lacking(&self, turn: LaneTurn, usage: &Usage) -> Option<LimitedResource> {
        let lane = self.lanes.get(&turn.rank.lane)?;
        let waits = |(resource, _): &&(LimitedResource, _)| self.bar(resource, usage).is_some_and(|bar| bar <= turn);
        lane.needs.iter().find(waits).map(|(resource, _)| resource.clone())
    }

    /// Where something changed, the first lane that is parked is looked at again, if the resource holds it up no more. Were
    /// it held up, all behind it would be.
    fn wake_first_parked(&mut self, usage: &Usage) {
        for resource in mem::take(&mut self.changed) {
            let bar = self.bar(&resource, usage);
            let Some(lanes) = self.resources.get_mut(&resource) else { continue };
            let first = lanes.parked.first(&self.shares).filter(|turn| bar.is_none_or(|bar| *turn < bar));
            let Some(LaneTurn { rank, namespace, .. }) = first else { continue };
            lanes.parked.remove(namespace, &rank);
            self.active.insert(namespace, rank);
            if let Some(lane) = self.lanes.get_mut(&rank.lane) {
                lane.parked_at = None;
                lane.woken_from = Some(resource);
            }
        }
    }

    fn park(&mut self, turn: LaneTurn, resource: LimitedResource) {
        let LaneTurn { rank, namespace, .. } = turn;
        self.active.remove(namespace, &rank);
        self.resources.entry(resource.clone()).or_default().parked.insert(namespace, rank);
        let Some(lane) = self.lanes.get_mut(&rank.lane) else { return };
        self.changed.extend(lane.woken_from.take().filter(|from| *from != resource));
        lane.parked_at = Some(resource);
    }

    /// Gives a lane the place that it has now: none where no mailbox of it may start whatever there is room for.
    fn rank_lane(&mut self, number: LaneNumber) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        // What never fits is kept for nobody.
        let may_start = !lane.ready.is_empty() && lane.needs.iter().all(|(_, share)| share.is_possible());
        let waiting = self.migrations.get(&lane.migration).filter(|waiting| !waiting.held && may_start);
        let rank = waiting.map(|waiting| LaneRank { running: waiting.running, turn: waiting.turn, lane: number });
        if rank == lane.rank {
            return;
        }
        let namespace = lane.namespace;
        let before = mem::replace(&mut lane.rank, rank);
        lane.woken_from = None;
        let parked_at = lane.parked_at.take();
        for (resource, share) in &lane.needs {
            let lanes = self.resources.entry(resource.clone()).or_default();
            let of_share = lanes.by_share.entry(*share).or_default();
            if let Some(before) = before {
                of_share.remove(namespace, &before);
                if parked_at.as_ref() == Some(resource) {
                    lanes.parked.remove(namespace, &before);
                }
                // Those behind it may have waited because it did.
                if !lanes.parked.is_empty() {
                    self.changed.insert(resource.clone());
                }
            }
            if let Some(rank) = rank {
                of_share.insert(namespace, rank);
            }
            if of_share.is_empty() {
                lanes.by_share.remove(share);
            }
            if !lanes.is_contested() {
                self.contested.remove(resource);
            } else if !self.contested.contains(resource) {
                self.contested.insert(resource.clone());
            }
            if lanes.by_share.is_empty() {
                self.resources.remove(resource);
            }
        }
        if let Some(before) = before {
            self.active.remove(namespace, &before);
        }
        if let Some(rank) = rank {
            self.active.insert(namespace, rank);
        }
    }

    fn forget_if_empty(&mut self, number: LaneNumber) {
        let Some(lane) = self.lanes.get(&number) else { return };
        if !(lane.ready.is_empty() && lane.blocked.is_empty()) {
            return;
        }
        if let Some(migration) = self.migrations.get_mut(&lane.migration) {
            migration.lanes.remove(&lane.needs);
            if migration.lanes.is_empty() {
                self.migrations.remove(&lane.migration);
                self.leave_namespace(&lane.migration.0.clone());
            }
        }
        self.lanes.remove(&number);
    }

    /// One migration less waits in a namespace.
    fn leave_namespace(&mut self, namespace: &str) {
        let Some(waiting) = self.namespaces.get_mut(namespace) else { return };
        waiting.migrations = waiting.migrations.saturating_sub(1);
        if waiting.migrations == 0 {
            self.shares.remove(&waiting.number);
            self.namespaces.remove(namespace);
        }
    }
}

fn accounts_are_free(request: &SlotRequest, usage: &Usage) -> bool {
    let mut accounts = request.needs.iter().filter(|(resource, _)| resource.is_account());
    accounts.all(|(resource, share)| usage.has_room(resource, share))
}

fn owned((resource, share): (&LimitedResource, &ResourceShare)) -> (LimitedResource, ResourceShare) {
    (resource.clone(), *share)
}
