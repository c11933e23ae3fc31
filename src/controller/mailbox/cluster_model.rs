//! Decisions against a model of a cluster in which anything may happen at any time: pods that vanish from sight and go
//! on, operators that start anew, people who change their minds.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateRunning, ContainerStateTerminated, PodSchedulingGate},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use proptest::prelude::*;

use super::{
    decide::{SyncAction, decide},
    observe::{ClockReading, FLUSH_SECONDS, HoldReason, ObservedMailbox, SecretsSeen, TokensSeen, WorkerLiveness},
};
use crate::{
    api::{
        LastError, MailboxSyncSpec, MailboxSyncStatus, WorkerStatus,
        mailbox_sync::{Outcome, SyncPhase, WorkerProgress},
        names,
    },
    controller::{
        cached_objects::{ContainerFacts, POD_FINALIZER, SYNC_LABEL, SyncPod},
        testing,
    },
    error::{Error, ErrorClass},
    sync_times::SyncTimes,
};

const NAME: &str = "m";
const UID: &str = "uid";
/// Decisions in a row that may change the status.
const ROUNDS: usize = 8;

/// A pod, and what is true of it whether anybody sees it or not.
struct SimulatedPod {
    pod: Arc<SyncPod>,
    attempt: i64,
    /// Its worker runs, and may append.
    alive: bool,
    /// When its worker last reached the API server.
    contact: Timestamp,
    /// It was told to stop.
    told: bool,
    /// Nobody can reach it, and it can reach nobody but mail servers.
    cut_off: bool,
}

struct SimulatedCluster {
    now: Timestamp,
    /// How far ahead the operator's wall clock is.
    ahead: SignedDuration,
    generation: i64,
    spec: MailboxSyncSpec,
    status: MailboxSyncStatus,
    pods: Vec<SimulatedPod>,
    liveness: WorkerLiveness,
    report: i64,
    secret: u32,
    hold: Option<HoldReason>,
    uids: u32,
}

/// What may happen.
#[derive(Debug, Clone)]
enum ClusterEvent {
    Pass(u32),
    Bind,
    Gate,
    Start,
    Run,
    Report {
        moved: bool,
    },
    End(Option<ErrorClass>),
    Crash,
    ForceDelete,
    CutOff,
    Evict,
    Suspend(bool),
    Cancel(bool),
    Ask(u8),
    OtherSecret,
    Allow(bool),
    OperatorRestarts,
    /// The operator's wall clock is set.
    SetClock(i64),
}

fn event() -> impl Strategy<Value = ClusterEvent> {
    let class = prop::sample::select(ErrorClass::ALL.to_vec());
    prop_oneof![
        4 => (1..2000_u32).prop_map(ClusterEvent::Pass),
        1 => (10_000..30_000_u32).prop_map(ClusterEvent::Pass),
        4 => Just(ClusterEvent::Bind),
        1 => Just(ClusterEvent::Gate),
        2 => Just(ClusterEvent::Start),
        4 => Just(ClusterEvent::Run),
        4 => any::<bool>().prop_map(|moved| ClusterEvent::Report { moved }),
        3 => prop::option::of(class).prop_map(ClusterEvent::End),
        1 => Just(ClusterEvent::Crash),
        2 => Just(ClusterEvent::ForceDelete),
        2 => Just(ClusterEvent::CutOff),
        1 => Just(ClusterEvent::Evict),
        1 => any::<bool>().prop_map(ClusterEvent::Suspend),
        1 => any::<bool>().prop_map(ClusterEvent::Cancel),
        1 => any::<u8>().prop_map(ClusterEvent::Ask),
        1 => Just(ClusterEvent::OtherSecret),
        1 => any::<bool>().prop_map(ClusterEvent::Allow),
        2 => Just(ClusterEvent::OperatorRestarts),
        2 => (-3600..=3600_i64).prop_map(ClusterEvent::SetClock),
    ]
}

impl SimulatedCluster {
    fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let spec = testing::mailbox_spec("x", "y");
        let status = MailboxSyncStatus::default();
        let liveness = WorkerLiveness::first_seen(0, now.duration_since(Timestamp::UNIX_EPOCH));
        let ahead = SignedDuration::ZERO;
        Self {
            now,
            ahead,
            generation: 1,
            spec,
            status,
            pods: Vec::new(),
            liveness,
            report: 0,
            secret: 0,
            hold: None,
            uids: 0,
        }
    }

    /// What the operator's clocks say.
    fn clocks(&self) -> ClockReading {
        let since_boot = self.now.duration_since(Timestamp::UNIX_EPOCH);
        ClockReading { wall: self.now + self.ahead, since_boot }
    }

    fn current(&mut self) -> Option<&mut SimulatedPod> {
        let attempt = self.status.attempt;
        self.pods.iter_mut().find(|truth| truth.attempt == attempt)
    }

    fn happens(&mut self, event: &ClusterEvent) {
        let now = self.now;
        match event {
            ClusterEvent::Pass(seconds) => self.now += SignedDuration::from_secs(i64::from(*seconds)),
            ClusterEvent::Bind => edit(self.current(), |pod| pod.spec.node_name = Some("node".into())),
            ClusterEvent::Gate => edit(self.current().filter(|truth| !truth.pod.is_bound()), |pod| {
                pod.spec.scheduling_gates = vec![PodSchedulingGate { name: "queue".into() }];
            }),
            ClusterEvent::Start => {
                let starts = |t: &&mut SimulatedPod| {
                    t.pod.is_bound() && !t.cut_off && !t.told && !t.alive && state_of(&t.pod).is_none()
                };
                let Some(truth) = self.current().filter(starts) else { return };
                truth.alive = true;
                truth.contact = now;
                let state =
                    ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() };
                edit(Some(truth), |pod| set(pod, state));
            }
            ClusterEvent::Run => {
                self.happens(&ClusterEvent::Start);
                // Its claim.
                self.happens(&ClusterEvent::Report { moved: false });
            }
            ClusterEvent::Report { moved } => {
                self.report += 1;
                let (report, attempt) = (self.report, self.status.attempt);
                let Some(truth) = self.current().filter(|truth| truth.alive && !truth.cut_off) else { return };
                truth.contact = now;
                let before =
                    self.status.worker.as_ref().filter(|w| w.attempt == attempt).and_then(|w| w.progress.clone());
                let mut progress = before.unwrap_or_default();
                progress.bytes_moved += i64::from(*moved);
                progress.messages_this_attempt += i64::from(*moved);
                self.status.worker =
                    Some(WorkerStatus { attempt, report, progress: Some(progress), ..WorkerStatus::default() });
            }
            ClusterEvent::End(class) => self.end(*class),
            ClusterEvent::Crash => self.exit(139),
            ClusterEvent::ForceDelete => edit(self.current(), |pod| {
                pod.metadata.deletion_timestamp.get_or_insert(Time(now));
            }),
            ClusterEvent::CutOff => {
                if let Some(truth) = self.current() {
                    truth.cut_off = true;
                }
            }
            ClusterEvent::Evict => {
                edit(self.current(), |pod| pod.status.reason = Some("Evicted".into()));
                self.exit(137);
            }
            ClusterEvent::Suspend(true) => self.hold = Some(HoldReason::MigrationSuspended),
            ClusterEvent::Cancel(cancel) => self.change(|spec| spec.cancel = *cancel),
            ClusterEvent::Ask(request) => self.change(|spec| spec.sync_request = Some(request.to_string())),
            ClusterEvent::OtherSecret => self.secret += 1,
            ClusterEvent::Suspend(false) | ClusterEvent::Allow(true) => self.hold = None,
            ClusterEvent::Allow(false) => {
                self.hold = Some(HoldReason::DestinationNotAllowed(Error::configuration("not there")));
            }
            ClusterEvent::OperatorRestarts => {
                self.liveness = WorkerLiveness::first_seen(self.status.attempt, self.clocks().since_boot);
            }
            ClusterEvent::SetClock(ahead) => self.ahead = SignedDuration::from_secs(*ahead),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut MailboxSyncSpec)) {
        let before = self.spec.clone();
        change(&mut self.spec);
        self.generation += i64::from(before != self.spec);
    }

    /// The worker says how it ended, where it can, and its container ends.
    fn end(&mut self, class: Option<ErrorClass>) {
        let attempt = self.status.attempt;
        let told = match self.current() {
            Some(truth) if truth.alive && !truth.cut_off => truth.told,
            _ => return,
        };
        self.report += 1;
        let error = |class| LastError::new(&Error::new(class, "x"), None);
        let outcome = match class {
            Some(_) => Outcome::Failed,
            None if told => Outcome::Stopped,
            None => Outcome::Synced,
        };
        self.status.worker = Some(WorkerStatus {
            attempt,
            report: self.report,
            outcome: Some(outcome),
            last_error: class.map(error),
            progress: Some(WorkerProgress::default()),
            ..WorkerStatus::default()
        });
        self.exit(i32::from(class.is_some()));
    }

    fn exit(&mut self, code: i32) {
        let Some(truth) = self.current().filter(|truth| truth.alive) else { return };
        truth.alive = false;
        if !truth.cut_off {
            let state = ContainerState {
                terminated: Some(ContainerStateTerminated { exit_code: code, ..ContainerStateTerminated::default() }),
                ..ContainerState::default()
            };
            edit(Some(truth), |pod| set(pod, state));
        }
    }

    /// What pods do by themselves: who was told to stop does, and who could not reach the API server stops too.
    fn time_tells(&mut self) {
        let grace = SignedDuration::try_from(self.spec.settings.offline_grace.as_std()).unwrap();
        for truth in &mut self.pods {
            // Without an answer it stops by itself, whether it was cut off or hangs.
            truth.alive &= self.now.duration_since(truth.contact) <= grace + SignedDuration::from_secs(FLUSH_SECONDS);
        }
        // An object goes when it is deleted, nothing holds it, and its node or nobody is left to say so.
        self.pods.retain(|truth| {
            let deleted = truth.pod.metadata.deletion_timestamp.is_some();
            !deleted || truth.pod.has_finalizer()
        });
    }

    /// The operator looks, and does what it decides. Panics where one of the rules is broken.
    fn operator(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS, "the status does not settle: {:?}", self.status);
            let pods: Vec<_> = self.pods.iter().map(|truth| Arc::clone(&truth.pod)).collect();
            let pod = self.pods.iter().find(|truth| truth.attempt == self.status.attempt).map(|truth| &*truth.pod);
            let clocks = self.clocks();
            self.liveness = self.liveness.updated_with(&self.status, pod, clocks);
            let observed = ObservedMailbox {
                name: NAME,
                uid: UID,
                generation: self.generation,
                deleting: false,
                spec: &self.spec,
                status: &self.status,
                pods: &pods,
                surplus_pods: &[],
                liveness: self.liveness,
                granted_slots: Some(2),
                waits_for: None,
                hold: self.hold.clone(),
                sync_times: SyncTimes::ALWAYS,
                secrets: SecretsSeen::Present(vec![self.secret.to_string()]),
                tokens: TokensSeen::NotNeeded,
                node_out_of_service: false,
                scheduling_timeout: SignedDuration::from_secs(1800),
                now: clocks.wall,
                since_boot: clocks.since_boot,
            };
            let decision = decide(&observed);
            assert!(decision.status.attempt >= self.status.attempt, "an attempt went back");
            assert_eq!(decision.status.worker, self.status.worker, "the report is the worker's");
            if decision.status != self.status {
                self.status = decision.status;
                continue;
            }
            for action in &decision.actions {
                self.act(action);
            }
            return;
        }
    }

    fn act(&mut self, action: &SyncAction) {
        let now = self.now;
        match action {
            SyncAction::CreatePod => {
                let attempt = self.status.attempt;
                if self.pods.iter().any(|truth| truth.attempt == attempt) {
                    return;
                }
                assert_eq!(self.hold, None, "a pod is made for what is not allowed");
                let writing = self.pods.iter().find(|truth| truth.alive).map(|truth| truth.attempt);
                assert_eq!(writing, None, "two syncs would append to one mailbox: {attempt} starts");
                self.uids += 1;
                let pod = SyncPod {
                    metadata: ObjectMeta {
                        name: Some(names::pod(NAME, attempt)),
                        uid: Some(format!("pod{}", self.uids)),
                        labels: Some([(SYNC_LABEL.to_owned(), NAME.to_owned())].into()),
                        finalizers: Some(vec![POD_FINALIZER.to_owned()]),
                        creation_timestamp: Some(Time(now)),
                        ..ObjectMeta::default()
                    },
                    ..SyncPod::default()
                };
                self.pods.push(SimulatedPod {
                    pod: Arc::new(pod),
                    attempt,
                    alive: false,
                    contact: now,
                    told: false,
                    cut_off: false,
                });
            }
            SyncAction::StopPod { name, .. } | SyncAction::DeletePod { name, .. } => {
                for truth in self.pods.iter_mut().filter(|truth| truth.pod.metadata.name.as_ref() == Some(name)) {
                    truth.told |= !truth.cut_off;
                    let until = now + SignedDuration::from_secs(FLUSH_SECONDS);
                    edit(Some(truth), |pod| {
                        pod.metadata.deletion_timestamp.get_or_insert(Time(until));
                    });
                }
            }
            SyncAction::ReleasePod { name, .. } => {
                for truth in self.pods.iter_mut().filter(|truth| truth.pod.metadata.name.as_ref() == Some(name)) {
                    assert!(!truth.alive, "a pod was let go of that may still append");
                    edit(Some(truth), |pod| pod.metadata.finalizers = None);
                }
            }
            SyncAction::CheckSecrets
            | SyncAction::RequestSlots
            | SyncAction::KeepTokens
            | SyncAction::CheckNode
            | SyncAction::ReleaseSync => {}
        }
    }
}

fn state_of(pod: &SyncPod) -> Option<&ContainerState> {
    pod.status.container_statuses.first()?.state.as_ref()
}

fn set(pod: &mut SyncPod, state: ContainerState) {
    pod.status.container_statuses = vec![ContainerFacts::of_sync(Some(state))];
}

/// Changes what can be seen of a pod, where anything can.
fn edit(truth: Option<&mut SimulatedPod>, change: impl FnOnce(&mut SyncPod)) {
    if let Some(truth) = truth {
        change(Arc::make_mut(&mut truth.pod));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_one_sync_writes_at_a_time_and_every_status_settles(events in prop::collection::vec(event(), 1..60)) {
        let mut world = SimulatedCluster::new();
        for event in &events {
            world.operator();
            world.happens(event);
            world.time_tells();
        }
        world.operator();
    }

    #[test]
    fn whatever_happened_a_mailbox_is_synced_once_nothing_stands_in_its_way(events in prop::collection::vec(event(), 1..40)) {
        let mut world = SimulatedCluster::new();
        for event in &events {
            world.operator();
            world.happens(event);
            world.time_tells();
        }
        world.change(|spec| {
            spec.suspend = false;
            spec.cancel = false;
            spec.sync_request = Some("once more".into());
        });
        world.hold = None;
        let mut trouble = 0;
        while world.status.phase != Some(SyncPhase::Synced) || world.status.sync_request != world.spec.sync_request {
            trouble += 1;
            // A clock that was set back by two hours lets it wait as long.
            prop_assert!(trouble < 500, "it gets nowhere: {:?}", world.status);
            for event in [ClusterEvent::Bind, ClusterEvent::Run, ClusterEvent::Report { moved: true }, ClusterEvent::End(None), ClusterEvent::Pass(30)] {
                world.operator();
                world.happens(&event);
                world.time_tells();
            }
        }
    }
}
