//! Every order in which an operator, the pods of one mailbox and the API server may come to act, up to a bound: where the
//! other model throws dice, this one leaves nothing out.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateRunning, ContainerStateTerminated},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use stateright::{Checker, Model, Property};

use super::{
    decide::{SyncAction, decide},
    observe::{ClockReading, FLUSH_SECONDS, ObservedMailbox, SecretsSeen, TokensSeen, WorkerLiveness, signed_duration},
};
use crate::{
    api::{
        MailboxSyncSpec, MailboxSyncStatus, WorkerStatus,
        mailbox_sync::{Outcome, SyncPhase, WorkerProgress},
        names,
    },
    controller::{
        cached_objects::{ContainerFacts, POD_FINALIZER, SYNC_LABEL, SyncPod},
        testing,
    },
    sync_times::SyncTimes,
};

const NAME: &str = "m";
const BEGIN: i64 = 1_800_000_000;
/// So many seconds pass at a time. Twice as many are more than a worker goes on without the API server, and more than it is
/// waited for.
const STEP: i64 = 350;

/// A status, told apart by what is written of it.
#[derive(Clone, Debug)]
struct Written(Arc<(MailboxSyncStatus, String)>);

impl Written {
    fn new(status: MailboxSyncStatus) -> Self {
        let text = serde_json::to_string(&status).unwrap();
        Self(Arc::new((status, text)))
    }

    fn status(&self) -> &MailboxSyncStatus {
        &self.0.0
    }
}

impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        self.0.1 == other.0.1
    }
}

impl Eq for Written {}

impl Hash for Written {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.1.hash(state);
    }
}

/// What a pod's container is seen to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Container {
    Waits,
    Runs,
    Ended(i32),
}

/// A pod at the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ModelPod {
    attempt: i64,
    uid: u8,
    made: i64,
    bound: bool,
    container: Container,
    deleting: Option<i64>,
    held: bool,
}

impl ModelPod {
    fn uid(&self) -> String {
        format!("pod-{}", self.uid)
    }

    fn object(&self) -> Arc<SyncPod> {
        let state = match self.container {
            Container::Waits => None,
            Container::Runs => {
                Some(ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() })
            }
            Container::Ended(exit_code) => {
                let terminated = Some(ContainerStateTerminated { exit_code, ..ContainerStateTerminated::default() });
                Some(ContainerState { terminated, ..ContainerState::default() })
            }
        };
        let mut pod = SyncPod {
            metadata: ObjectMeta {
                name: Some(names::pod(NAME, self.attempt)),
                uid: Some(self.uid()),
                labels: Some([(SYNC_LABEL.to_owned(), NAME.to_owned())].into()),
                finalizers: self.held.then(|| vec![POD_FINALIZER.to_owned()]),
                creation_timestamp: Some(Time(at(self.made))),
                deletion_timestamp: self.deleting.map(|since| Time(at(since))),
                ..ObjectMeta::default()
            },
            ..SyncPod::default()
        };
        pod.spec.node_name = self.bound.then(|| "node".to_owned());
        pod.status.container_statuses = state.into_iter().map(|state| ContainerFacts::of_sync(Some(state))).collect();
        Arc::new(pod)
    }
}

/// A process that syncs, whether anybody sees its pod or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    uid: u8,
    attempt: i64,
    /// It was told that the attempt is its own, and may append.
    claimed: bool,
    /// It reaches the API server, and its node does.
    connected: bool,
    contact: i64,
}

/// What the operator has yet to do of its last decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    Action(SyncAction),
    /// Write which pod was made.
    RecordPod(u8),
}

/// The operator: what its watches brought, and what it remembers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Operator {
    version: u64,
    status: Written,
    pods: Vec<ModelPod>,
    liveness: WorkerLiveness,
    tasks: Vec<Task>,
}

/// How often things may still happen that nobody plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mishaps {
    steps: u8,
    cut_offs: u8,
    vanished: u8,
    restarts: u8,
    requests: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cluster {
    now: i64,
    /// The resourceVersion of the MailboxSync.
    version: u64,
    status: Written,
    request: u8,
    pods: Vec<ModelPod>,
    /// So many pods were made.
    made: u8,
    workers: Vec<Worker>,
    operator: Operator,
    left: Mishaps,
    /// The first rule that was broken.
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Event {
    /// The watch of the MailboxSync catches up.
    SeeStatus,
    /// The watch of the pods catches up.
    SeePods,
    Decide,
    Act,
    Restart,
    Bind(u8),
    Run(u8),
    Report(u8),
    End(u8),
    CutOff(u8),
    /// Somebody takes a pod's object away, finalizer or not; its process goes on.
    Vanish(u8),
    /// The node ends what is to be deleted, and says so.
    Terminate(u8),
    Request,
    Pass,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

struct OneMailbox {
    spec: MailboxSyncSpec,
    left: Mishaps,
}

impl OneMailbox {
    fn spec(&self, request: u8) -> MailboxSyncSpec {
        let sync_request = (request > 0).then(|| request.to_string());
        MailboxSyncSpec { sync_request, ..self.spec.clone() }
    }

    /// How long a worker goes on without the API server, seconds.
    fn offline(&self) -> i64 {
        signed_duration(self.spec.settings.offline_grace).as_secs() + FLUSH_SECONDS
    }

    fn decide(&self, cluster: &mut Cluster) {
        let spec = self.spec(cluster.request);
        let since_boot = SignedDuration::from_secs(cluster.now - BEGIN);
        let operator = &mut cluster.operator;
        let pods: Vec<_> = operator.pods.iter().map(ModelPod::object).collect();
        let current = pods.iter().find(|pod| pod.attempt() == Some(operator.status.status().attempt));
        let clocks = ClockReading { wall: at(cluster.now), since_boot };
        let status = operator.status.status();
        operator.liveness = operator.liveness.updated_with(status, current.map(|pod| &**pod), clocks);
        let decision = decide(&ObservedMailbox {
            name: NAME,
            uid: "uid",
            generation: i64::from(cluster.request) + 1,
            deleting: false,
            spec: &spec,
            status,
            pods: &pods,
            surplus_pods: &[],
            liveness: operator.liveness,
            granted_slots: Some(2),
            waits_for: None,
            hold: None,
            sync_times: SyncTimes::ALWAYS,
            secrets: SecretsSeen::Present(vec!["mail=1".to_owned()]),
            tokens: TokensSeen::NotNeeded,
            node_out_of_service: false,
            scheduling_timeout: SignedDuration::from_secs(1800),
            now: clocks.wall,
            since_boot,
        });
        if decision.status == *status {
            operator.tasks = decision.actions.into_iter().map(Task::Action).collect();
        } else {
            cluster.write(decision.status);
        }
    }
}

impl Cluster {
    fn break_rule(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    /// The operator writes the status, if it decided on the newest; else it reads that.
    fn write(&mut self, status: MailboxSyncStatus) {
        if self.operator.version == self.version {
            let before = self.status.status();
            if status.attempt < before.attempt {
                self.break_rule("attempts only grow");
            }
            if status.slots.is_none() && self.workers.iter().any(|worker| worker.claimed) {
                self.break_rule("slots are held while a sync may append");
            }
            self.status = Written::new(status);
            self.version += 1;
        }
        (self.operator.version, self.operator.status) = (self.version, self.status.clone());
    }

    fn act(&mut self, task: Task) {
        let now = self.now;
        match task {
            Task::RecordPod(uid) => {
                let pod_uid = Some(format!("pod-{uid}"));
                let status = MailboxSyncStatus { pod_uid, ..self.operator.status.status().clone() };
                self.write(status);
            }
            Task::Action(SyncAction::CreatePod) => {
                let attempt = self.operator.status.status().attempt;
                if self.pods.iter().any(|pod| pod.attempt == attempt) {
                    return;
                }
                self.made += 1;
                let uid = self.made;
                let container = Container::Waits;
                self.pods.push(ModelPod {
                    attempt,
                    uid,
                    made: now,
                    bound: false,
                    container,
                    deleting: None,
                    held: true,
                });
                self.operator.tasks = vec![Task::RecordPod(uid)];
            }
            Task::Action(SyncAction::StopPod { uid, .. } | SyncAction::DeletePod { uid, .. }) => {
                for pod in self.pods.iter_mut().filter(|pod| pod.uid() == uid) {
                    pod.deleting.get_or_insert(now + FLUSH_SECONDS);
                }
                self.drop_deleted();
            }
            Task::Action(SyncAction::ReleasePod { uid, .. }) => {
                // One that has not claimed its attempt can't any more.
                let appends =
                    |pod: &ModelPod| self.workers.iter().any(|worker| worker.uid == pod.uid && worker.claimed);
                if self.pods.iter().any(|pod| pod.uid() == uid && appends(pod)) {
                    self.break_rule("no pod is let go of that may still append");
                }
                self.pods.iter_mut().filter(|pod| pod.uid() == uid).for_each(|pod| pod.held = false);
                self.drop_deleted();
            }
            Task::Action(_) => {}
        }
    }

    /// Objects that are deleted go once nothing holds them and no node runs them.
    fn drop_deleted(&mut self) {
        self.pods.retain(|pod| pod.deleting.is_none() || pod.held || pod.bound && pod.container == Container::Runs);
    }

    /// The process of a pod ends, and its node says so where it can.
    fn end(&mut self, uid: u8, code: i32) {
        self.workers.retain(|worker| worker.uid != uid);
        self.pods.iter_mut().filter(|pod| pod.uid == uid).for_each(|pod| pod.container = Container::Ended(code));
        self.drop_deleted();
    }

    /// A worker reports, and learns whether the attempt is its own; true when it is.
    fn report(&mut self, uid: u8, outcome: Option<Outcome>) -> bool {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.uid == uid) else { return false };
        let status = self.status.status();
        if status.attempt != worker.attempt || status.slots.is_none() {
            // Another attempt, or none: it stops before it sends anything more.
            self.end(uid, 1);
            return false;
        }
        if status.pod_uid != Some(format!("pod-{uid}")) {
            // It waits until it is named.
            worker.contact = self.now;
            return false;
        }
        (worker.claimed, worker.contact) = (true, self.now);
        let report = status.worker.as_ref().map_or(0, |worker| worker.report) + 1;
        let progress = Some(WorkerProgress { bytes_moved: report, ..WorkerProgress::default() });
        let told = WorkerStatus { attempt: worker.attempt, report, outcome, progress, ..WorkerStatus::default() };
        self.status = Written::new(MailboxSyncStatus { worker: Some(told), ..status.clone() });
        self.version += 1;
        if self.workers.iter().filter(|worker| worker.claimed).count() > 1 {
            self.break_rule("one sync appends at a time");
        }
        true
    }

    fn pass(&mut self, offline: i64) {
        self.now += STEP;
        for worker in self.workers.clone() {
            if worker.connected {
                self.report(worker.uid, None);
            } else if self.now - worker.contact > offline {
                // It stops by itself, and nobody hears of it.
                self.workers.retain(|other| other.uid != worker.uid);
            }
        }
    }
}

impl Model for OneMailbox {
    type State = Cluster;
    type Action = Event;

    fn init_states(&self) -> Vec<Cluster> {
        let status = Written::new(MailboxSyncStatus::default());
        let liveness = WorkerLiveness::first_seen(0, SignedDuration::ZERO);
        let operator = Operator { version: 1, status: status.clone(), pods: Vec::new(), liveness, tasks: Vec::new() };
        vec![Cluster {
            now: BEGIN,
            version: 1,
            status,
            request: 0,
            pods: Vec::new(),
            made: 0,
            workers: Vec::new(),
            operator,
            left: self.left,
            broken: None,
        }]
    }

    fn actions(&self, cluster: &Cluster, events: &mut Vec<Event>) {
        let operator = &cluster.operator;
        if operator.version != cluster.version {
            events.push(Event::SeeStatus);
        }
        if operator.pods != cluster.pods {
            events.push(Event::SeePods);
        }
        events.push(if operator.tasks.is_empty() { Event::Decide } else { Event::Act });
        for pod in &cluster.pods {
            let waits = pod.container == Container::Waits && pod.deleting.is_none();
            if waits {
                events.push(if pod.bound { Event::Run(pod.uid) } else { Event::Bind(pod.uid) });
            }
            let reached = cluster.workers.iter().all(|worker| worker.uid != pod.uid || worker.connected);
            if pod.deleting.is_some() && pod.container == Container::Runs && reached {
                events.push(Event::Terminate(pod.uid));
            }
            if cluster.left.vanished > 0 && pod.bound {
                events.push(Event::Vanish(pod.uid));
            }
        }
        for worker in cluster.workers.iter().filter(|worker| worker.connected) {
            events.push(if worker.claimed { Event::End(worker.uid) } else { Event::Report(worker.uid) });
            if cluster.left.cut_offs > 0 {
                events.push(Event::CutOff(worker.uid));
            }
        }
        let Mishaps { steps, restarts, requests, .. } = cluster.left;
        let mishaps = [(restarts, Event::Restart), (requests, Event::Request), (steps, Event::Pass)];
        events.extend(mishaps.into_iter().filter(|(left, _)| *left > 0).map(|(_, event)| event));
    }

    fn next_state(&self, cluster: &Cluster, event: Event) -> Option<Cluster> {
        let mut next = cluster.clone();
        let by_uid = |pods: &mut Vec<ModelPod>, uid: u8| pods.iter().position(|pod| pod.uid == uid);
        match event {
            Event::SeeStatus => (next.operator.version, next.operator.status) = (next.version, next.status.clone()),
            Event::SeePods => next.operator.pods.clone_from(&cluster.pods),
            Event::Decide => self.decide(&mut next),
            Event::Act => {
                let task = next.operator.tasks.remove(0);
                next.act(task);
            }
            Event::Restart => {
                next.left.restarts -= 1;
                let attempt = next.status.status().attempt;
                next.operator = Operator {
                    version: next.version,
                    status: next.status.clone(),
                    pods: next.pods.clone(),
                    liveness: WorkerLiveness::first_seen(attempt, SignedDuration::from_secs(next.now - BEGIN)),
                    tasks: Vec::new(),
                };
            }
            Event::Bind(uid) => {
                let index = by_uid(&mut next.pods, uid)?;
                next.pods[index].bound = true;
            }
            Event::Run(uid) => {
                let index = by_uid(&mut next.pods, uid)?;
                next.pods[index].container = Container::Runs;
                let (attempt, contact) = (next.pods[index].attempt, next.now);
                next.workers.push(Worker { uid, attempt, claimed: false, connected: true, contact });
            }
            Event::Report(uid) => drop(next.report(uid, None)),
            Event::End(uid) => {
                if next.report(uid, Some(Outcome::Synced)) {
                    next.end(uid, 0);
                }
            }
            Event::CutOff(uid) => {
                next.left.cut_offs -= 1;
                next.workers.iter_mut().filter(|worker| worker.uid == uid).for_each(|worker| worker.connected = false);
            }
            Event::Vanish(uid) => {
                next.left.vanished -= 1;
                next.pods.retain(|pod| pod.uid != uid);
            }
            Event::Terminate(uid) => next.end(uid, 0),
            Event::Request => {
                next.left.requests -= 1;
                next.request += 1;
            }
            Event::Pass => {
                next.left.steps -= 1;
                next.pass(self.offline());
            }
        }
        (next != *cluster).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no rule is broken", |_, cluster: &Cluster| cluster.broken.is_none()),
            Property::sometimes("a mailbox is synced", |_, cluster: &Cluster| {
                cluster.status.status().phase == Some(SyncPhase::Synced)
            }),
            Property::sometimes("another attempt follows one that was lost", |_, cluster: &Cluster| {
                let status = cluster.status.status();
                status.attempt == 2
                    && cluster.left.cut_offs == 0
                    && status.worker.as_ref().is_some_and(|w| w.attempt == 2)
            }),
        ]
    }
}

/// Checks every order of events with these mishaps; gives the checker.
fn check(left: Mishaps) -> impl Checker<OneMailbox> {
    let model = OneMailbox { spec: testing::mailbox_spec("x", "y"), left };
    let checker = model.checker().threads(2).spawn_bfs().join();
    checker.assert_no_discovery("no rule is broken");
    checker
}

const NONE: Mishaps = Mishaps { steps: 0, cut_offs: 0, vanished: 0, restarts: 0, requests: 0 };

#[test]
fn in_whatever_order_things_happen_one_sync_appends_and_its_slots_are_held() {
    check(Mishaps { steps: 3, cut_offs: 1, ..NONE }).assert_properties();
    check(Mishaps { steps: 3, vanished: 1, ..NONE });
    check(Mishaps { steps: 1, restarts: 1, requests: 1, ..NONE });
}

/// More than a million states.
#[test]
#[ignore = "takes a minute"]
fn in_whatever_order_more_things_happen_one_sync_appends_and_its_slots_are_held() {
    check(Mishaps { steps: 3, cut_offs: 1, vanished: 1, restarts: 1, ..NONE }).assert_properties();
}
