//! The queue against a model that looks at everything: whatever happens, both give the same mailbox the next turn.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::start_limits::ReservedResources;

type LaneKey = (MigrationKey, Vec<(LimitedResource, ResourceShare)>);

/// All that the queue does, by looking at everything each time.
#[derive(Default)]
struct NaiveQueue {
    waiting: Vec<(u64, SlotRequest)>,
    turns: HashMap<MigrationKey, u64>,
    lanes: BTreeMap<LaneKey, u64>,
    granted: HashMap<ObjectUid, (SlotRequest, Option<Instant>)>,
    usage: ResourceUsage<LimitedResource>,
    /// By namespace: how often, until when, and whether one is trying.
    refusals: HashMap<String, (u32, Instant, bool)>,
    counter: u64,
    weights: HashMap<String, u32>,
}

fn lane_key(request: &SlotRequest) -> LaneKey {
    let needs = request.needs.iter().filter(|(resource, _)| !resource.is_account());
    (request.migration.clone(), needs.map(|(resource, share)| (resource.clone(), *share)).collect())
}

impl NaiveQueue {
    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn forget_who_waits_no_more(&mut self) {
        let lanes: BTreeSet<_> = self.waiting.iter().map(|(_, request)| lane_key(request)).collect();
        self.lanes.retain(|lane, _| lanes.contains(lane));
        self.turns.retain(|migration, _| lanes.iter().any(|(of, _)| of == migration));
    }

    fn enqueue(&mut self, request: SlotRequest) {
        if self.granted.contains_key(&request.uid) {
            return;
        }
        let turn = self.turns.get(&request.migration).copied();
        let there = self.waiting.iter().position(|(_, waiting)| waiting.uid == request.uid);
        let before = there.map(|there| self.waiting.remove(there));
        self.forget_who_waits_no_more();
        let number = before.map_or_else(|| self.count(), |(number, _)| number);
        let turn = turn.unwrap_or_else(|| self.count());
        self.turns.insert(request.migration.clone(), turn);
        let lane = self.count();
        self.lanes.entry(lane_key(&request)).or_insert(lane);
        self.waiting.push((number, request));
        self.waiting.sort_by_key(|(number, _)| *number);
    }

    fn withdraw(&mut self, uid: &str) {
        self.waiting.retain(|(_, request)| request.uid != uid);
        self.forget_who_waits_no_more();
    }

    fn give_up(&mut self, uid: &str) {
        self.withdraw(uid);
        if let Some((request, Some(started))) = self.granted.get(uid) {
            self.usage.cancel_start(&request.needs, *started);
        }
        self.release(uid);
    }

    fn release(&mut self, uid: &str) {
        let Some((request, _)) = self.granted.remove(uid) else { return };
        self.usage.release(&request.needs);
        if let Some((_, _, probing)) = self.refusals.get_mut(request.namespace()) {
            *probing = false;
        }
    }

    fn running(&self, migration: &MigrationKey) -> usize {
        self.granted.values().filter(|(request, _)| request.migration == *migration).count()
    }

    /// Compares a namespace's running syncs, divided by its weight.
    fn share(&self, namespace: &str) -> usize {
        let running = self.granted.values().filter(|(request, _)| request.namespace() == namespace).count();
        // A common multiple of all weights.
        running * 6 / usize::try_from(self.weights.get(namespace).copied().unwrap_or(1)).unwrap()
    }

    fn first_that_fits(&self, now: Instant) -> Option<SlotRequest> {
        let mut lanes: Vec<_> = self.lanes.iter().collect();
        lanes.sort_by_key(|((migration, _), number)| {
            (self.share(&migration.0), self.running(migration), self.turns[migration], **number)
        });
        let mut reserved = ReservedResources::default();
        for ((migration, needs), _) in lanes {
            let refused = self.refusals.get(&migration.0).is_some_and(|(_, until, probing)| *probing || *until > now);
            let mut requests = self.waiting.iter().map(|(_, request)| request).filter(|request| {
                let mut accounts = request.needs.iter().filter(|(resource, _)| resource.is_account());
                lane_key(request) == (migration.clone(), needs.clone())
                    && accounts.all(|(resource, share)| self.usage.has_room(resource, share))
            });
            let possible = needs.iter().all(|(_, share)| share.is_possible());
            let Some(first) = requests.next().filter(|_| !refused && possible) else { continue };
            let lacking = needs.iter().filter(|(resource, share)| !self.usage.is_free(resource, share, &reserved));
            let lacking: Vec<_> = lacking.map(|(resource, _)| resource).collect();
            if lacking.is_empty() {
                return Some(first.clone());
            }
            for resource in lacking {
                reserved.reserve(resource);
            }
        }
        None
    }

    fn admit_next(&mut self, now: Instant, unwanted: &HashSet<ObjectUid>) -> Option<String> {
        self.usage.expire_starts(now);
        loop {
            let request = self.first_that_fits(now)?;
            let turn = self.count();
            self.turns.extend((!unwanted.contains(&request.uid)).then(|| (request.migration.clone(), turn)));
            self.withdraw(&request.uid);
            if unwanted.contains(&request.uid) {
                continue;
            }
            self.usage.start(&request.needs, now);
            if let Some((_, _, probing)) = self.refusals.get_mut(request.namespace()) {
                *probing = true;
            }
            let name = request.name.clone();
            self.granted.insert(request.uid.clone(), (request, Some(now)));
            return Some(name);
        }
    }
}

#[derive(Debug, Clone)]
enum QueueStep {
    Enqueue(SlotRequest),
    Restore(SlotRequest),
    Withdraw(String),
    GiveUp(String),
    Release(String),
    Admit,
    Pass(u64),
    Refuse(&'static str),
    Clear(&'static str),
    Unwanted(String),
    Wanted(String),
}

fn name() -> impl Strategy<Value = String> {
    (0..5_u8, 0..6_u8).prop_map(|(migration, number)| format!("{migration}-{number}"))
}

fn request() -> impl Strategy<Value = SlotRequest> {
    let limits = (1..5_usize, 1..4_usize, prop::option::weighted(0.3, 1..3_usize), 1..4_usize);
    (name(), 0..3_u8, 1..3_usize, 0..6_u8, limits).prop_map(|(name, host, units, account, limits)| {
        let (connections, parallelism, starts_per_minute, operator) = limits;
        let one = |limit| ResourceShare { units: 1, limit: Some(limit), starts_per_minute: None };
        let namespace = if name.as_str() < "2" {
            "a"
        } else if name.as_str() < "4" {
            "b"
        } else {
            "c"
        };
        let migration = (namespace.to_owned(), name.chars().take(1).collect());
        let host_share = ResourceShare { units, limit: Some(connections), starts_per_minute };
        SlotRequest {
            uid: name.clone(),
            name,
            slots: i32::try_from(units).unwrap(),
            needs: ResourceNeeds::from([
                (LimitedResource::Operator, one(2 + operator)),
                (LimitedResource::Namespace(namespace.to_owned()), one(1 + operator)),
                (LimitedResource::Migration(MigrationKey::clone(&migration)), one(parallelism)),
                (LimitedResource::Host(format!("h{host}")), host_share),
                (LimitedResource::Account(format!("a{account}")), one(1)),
            ]),
            migration,
        }
    })
}

fn step() -> impl Strategy<Value = QueueStep> {
    let namespace = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        8 => request().prop_map(QueueStep::Enqueue),
        1 => request().prop_map(QueueStep::Restore),
        1 => name().prop_map(QueueStep::Withdraw),
        1 => name().prop_map(QueueStep::GiveUp),
        5 => name().prop_map(QueueStep::Release),
        8 => Just(QueueStep::Admit),
        2 => (1..40_u64).prop_map(QueueStep::Pass),
        1 => namespace().prop_map(QueueStep::Refuse),
        1 => namespace().prop_map(QueueStep::Clear),
        1 => name().prop_map(QueueStep::Unwanted),
        2 => name().prop_map(QueueStep::Wanted),
    ]
}

fn take_step(
    step: QueueStep,
    queues: (&mut SyncAdmission, &mut NaiveQueue),
    now: &mut Instant,
    unwanted: &mut HashSet<String>,
) -> Result<(), TestCaseError> {
    let (admission, naive) = queues;
    match step {
        QueueStep::Enqueue(request) => {
            admission.enqueue(request.clone());
            naive.enqueue(request);
        }
        QueueStep::Restore(request) => {
            admission.restore(request.clone());
            naive.withdraw(&request.uid);
            if !naive.granted.contains_key(&request.uid) {
                naive.usage.resume(&request.needs);
                let turn = naive.count();
                naive.turns.entry(request.migration.clone()).and_modify(|last| *last = turn);
                naive.granted.insert(request.uid.clone(), (request, None));
            }
        }
        QueueStep::Withdraw(uid) => {
            admission.withdraw(&uid);
            naive.withdraw(&uid);
        }
        QueueStep::GiveUp(uid) => {
            admission.give_up(&uid);
            naive.give_up(&uid);
        }
        QueueStep::Release(uid) => {
            admission.release(&uid);
            naive.release(&uid);
        }
        QueueStep::Admit => {
            let next = admission.admit_next(*now, |request| !unwanted.contains(&request.uid));
            let none = next.is_none();
            prop_assert_eq!(next.map(|(_, name)| name), naive.admit_next(*now, unwanted));
            for (_, request) in naive.waiting.iter().filter(|_| none) {
                prop_assert_ne!(admission.waits_for(request), SlotWait::Turn, "{:?} waits for nothing", request);
            }
        }
        QueueStep::Pass(seconds) => *now += Duration::from_secs(seconds),
        QueueStep::Refuse(namespace) => {
            admission.record_refusal(namespace, "no", *now);
            let times = naive.refusals.get(namespace).map_or(0, |(times, ..)| *times);
            let wait = Duration::from_secs((10 * 2_u64.pow(times)).min(300));
            naive.refusals.insert(namespace.to_owned(), (times + 1, *now + wait, false));
        }
        QueueStep::Clear(namespace) => {
            prop_assert_eq!(admission.clear_refusal(namespace), naive.refusals.remove(namespace).is_some());
        }
        QueueStep::Unwanted(uid) => drop(unwanted.insert(uid)),
        QueueStep::Wanted(uid) => drop(unwanted.remove(&uid)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_index_gives_the_same_turns_as_looking_at_everything(steps in prop::collection::vec(step(), 1..120)) {
        let weights = HashMap::from([("b".to_owned(), 2), ("c".to_owned(), 3)]);
        let mut admission = SyncAdmission::new(1_000_000).with_weights(weights.clone());
        let mut naive = NaiveQueue { weights, ..NaiveQueue::default() };
        let (mut now, mut unwanted) = (Instant::now(), HashSet::new());
        for step in steps.into_iter().chain(std::iter::repeat_n(QueueStep::Admit, 12)) {
            take_step(step, (&mut admission, &mut naive), &mut now, &mut unwanted)?;
            prop_assert_eq!(admission.waiting_count(), naive.waiting.len());
            let held: BTreeMap<_, _> = naive.granted.iter().map(|(uid, (request, _))| (uid, request.slots)).collect();
            prop_assert_eq!(admission.holders().map(|uid| (uid, admission.granted_slots(uid).unwrap())).collect::<BTreeMap<_, _>>(), held);
        }
        for uid in naive.granted.keys().chain(naive.waiting.iter().map(|(_, request)| &request.uid)) {
            admission.give_up(uid);
        }
        prop_assert!(admission.usage.is_empty() && admission.running.is_empty() && admission.shares.is_empty());
        prop_assert_eq!((admission.waiting_count(), admission.running_count()), (0, 0));
    }
}
