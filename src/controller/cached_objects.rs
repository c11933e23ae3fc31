//! What the operator keeps in memory of the cluster: less than what there is. Ten thousand mailboxes must fit into its
//! 128 MiB, so checkpoints, managed fields and most of a pod are dropped as they arrive.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerState, PodCondition, PodSchedulingGate},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Resource, ResourceExt as _};
use serde::Deserialize;

use crate::api::{MailboxSync, WorkerStatus, names};

/// Held by a sync's pod until its end is certain, so that it can't vanish while it may still append.
pub(crate) const POD_FINALIZER: &str = "mailferry.io/certain-end";
/// Held by a MailboxSync until its last pod's end is certain.
pub(crate) const SYNC_FINALIZER: &str = "mailferry.io/pods";
/// The label of a sync's pod that names its MailboxSync.
pub const SYNC_LABEL: &str = "mailferry.io/mailboxsync";

/// The container of a sync's pod that syncs. Others may be beside it, where a service mesh injects them.
pub(crate) const SYNC_CONTAINER: &str = "sync";
/// The condition of a pod that the cluster takes away.
const DISRUPTED: &str = "DisruptionTarget";
/// The condition of a pod that says whether it has a node.
const SCHEDULED: &str = "PodScheduled";

/// A sync's pod, of which only what decisions need is read.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = k8s_openapi::api::core::v1::Pod)]
pub struct SyncPod {
    /// Names, owner, deletion.
    pub metadata: ObjectMeta,
    /// The MailboxSync that it is labelled with, once the labels are dropped.
    #[serde(skip)]
    pub sync: Option<Box<str>>,
    /// Where it runs.
    #[serde(default)]
    pub spec: PodPlacement,
    /// How it is doing.
    #[serde(default)]
    pub status: PodFacts,
}

/// Where a pod runs.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct PodPlacement {
    /// The node that it was bound to.
    pub node_name: Option<String>,
    /// What keeps it from being scheduled.
    #[serde(default)]
    pub scheduling_gates: Vec<PodSchedulingGate>,
}

/// How a pod is doing.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// Pending, Running, Succeeded, Failed, Unknown.
    pub phase: Option<String>,
    /// Why the whole pod failed, such as `Evicted`.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// Its containers, without those that run before them or that its node ends after them.
    #[serde(default)]
    pub container_statuses: Vec<ContainerFacts>,
    /// True when a container beside the sync's ran, once no others than the sync's are kept.
    #[serde(skip)]
    pub others_ran: bool,
    /// Among them `DisruptionTarget` and `PodScheduled`.
    #[serde(default)]
    pub conditions: Vec<PodCondition>,
}

/// How a pod's container is doing.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct ContainerFacts {
    /// Its name in the pod.
    #[serde(default)]
    pub name: String,
    /// Whether it waits, runs, or has ended.
    pub state: Option<ContainerState>,
}

impl ContainerFacts {
    /// The container that syncs, in this state.
    #[must_use]
    pub fn of_sync(state: Option<ContainerState>) -> Self {
        Self { name: SYNC_CONTAINER.to_owned(), state }
    }
}

/// What a pod's container does, as its node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncContainerState {
    /// Nothing is known.
    Unknown,
    /// Not started: why.
    Waiting(String),
    /// It runs.
    Running,
    /// It ended, once and for all: its pod is never restarted.
    Terminated(ContainerExit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerExit {
    /// The process' exit code.
    pub code: i32,
    /// Such as `OOMKilled`.
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// When it ended.
    pub at: Option<Timestamp>,
}

impl SyncPod {
    fn sync_state(&self) -> Option<&ContainerState> {
        let ours = self.status.container_statuses.iter().find(|container| container.name == SYNC_CONTAINER);
        ours?.state.as_ref()
    }

    /// What the container that syncs does, whatever others do beside it.
    #[must_use]
    pub(crate) fn container_state(&self) -> SyncContainerState {
        let Some(state) = self.sync_state() else { return SyncContainerState::Unknown };
        if let Some(ended) = &state.terminated {
            return SyncContainerState::Terminated(ContainerExit {
                code: ended.exit_code,
                reason: ended.reason.clone().unwrap_or_default(),
                message: ended.message.clone().unwrap_or_default(),
                at: ended.finished_at.as_ref().map(|time| time.0),
            });
        }
        match (&state.running, &state.waiting) {
            (Some(_), _) => SyncContainerState::Running,
            (None, Some(waiting)) => {
                let reason = waiting.reason.clone().unwrap_or_default();
                match &waiting.message {
                    Some(message) => SyncContainerState::Waiting(format!("{reason}: {message}")),
                    None => SyncContainerState::Waiting(reason),
                }
            }
            (None, None) => SyncContainerState::Unknown,
        }
    }

    /// True once the container that syncs ended.
    #[must_use]
    pub(crate) fn has_terminated(&self) -> bool {
        self.sync_state().is_some_and(|state| state.terminated.is_some())
    }

    /// True while a container beside the sync's runs. Its node ends native sidecars (init containers that always restart) by
    /// itself; these it doesn't.
    #[must_use]
    pub(crate) fn others_run(&self) -> bool {
        let runs = |container: &ContainerFacts| container.state.as_ref().is_some_and(|state| state.running.is_some());
        let mut others = self.status.container_statuses.iter().filter(|container| container.name != SYNC_CONTAINER);
        self.status.others_ran || others.any(runs)
    }

    /// True once a node was told to run it.
    #[must_use]
    pub(crate) fn is_bound(&self) -> bool {
        self.spec.node_name.as_deref().is_some_and(|node| !node.is_empty())
    }

    /// The names of the gates that keep it from being scheduled.
    pub(crate) fn scheduling_gates(&self) -> impl Iterator<Item = &str> {
        let gates = if self.is_bound() { &[][..] } else { &self.spec.scheduling_gates[..] };
        gates.iter().map(|gate| gate.name.as_str())
    }

    fn scheduled_condition(&self) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|condition| condition.type_ == SCHEDULED)
    }

    /// Why no node takes it, as the scheduler says; none: one did, or the scheduler has not said so.
    #[must_use]
    pub(crate) fn unschedulable(&self) -> Option<&str> {
        let condition = self.scheduled_condition().filter(|condition| condition.status == "False")?;
        let refused = !self.is_bound() && condition.reason.as_deref() == Some("Unschedulable");
        refused.then(|| condition.message.as_deref().unwrap_or("the scheduler does not say why"))
    }

    /// When it got its node.
    #[must_use]
    pub(crate) fn scheduled_at(&self) -> Option<Timestamp> {
        let condition = self.scheduled_condition().filter(|condition| condition.status == "True")?;
        condition.last_transition_time.as_ref().map(|Time(at)| *at)
    }

    /// Since when it is being deleted.
    #[must_use]
    pub(crate) fn deleting_since(&self) -> Option<Timestamp> {
        self.metadata.deletion_timestamp.as_ref().map(|Time(at)| *at)
    }

    /// True when the cluster took it away: evicted, preempted, drained, its node shut down.
    #[must_use]
    pub(crate) fn was_disrupted(&self) -> bool {
        let reasons =
            ["Evicted", "NodeShutdown", "Shutdown", "Terminated", "NodeLost", "Preempting", "UnexpectedAdmissionError"];
        self.status.reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
            || self.status.conditions.iter().any(|c| c.type_ == DISRUPTED && c.status == "True")
    }

    /// True while it holds our finalizer.
    #[must_use]
    pub(crate) fn has_finalizer(&self) -> bool {
        self.finalizers().iter().any(|finalizer| finalizer == POD_FINALIZER)
    }

    /// The attempt that it works on.
    #[must_use]
    pub(crate) fn attempt(&self) -> Option<i64> {
        names::attempt_from_pod(self.sync_name()?, self.metadata.name.as_deref()?)
    }

    /// The name of the MailboxSync that it is labelled with; whether it belongs to that, its owner says.
    #[must_use]
    pub(crate) fn sync_name(&self) -> Option<&str> {
        self.sync.as_deref().or_else(|| self.labels().get(SYNC_LABEL).map(String::as_str))
    }

    /// The worker's last word, from the termination message.
    #[must_use]
    pub(crate) fn final_report(&self) -> Option<WorkerStatus> {
        match self.container_state() {
            SyncContainerState::Terminated(exit) => serde_json::from_str(&exit.message).ok(),
            _ => None,
        }
    }
}

/// Drops what the operator never looks at.
pub(crate) fn slim_sync(sync: &mut MailboxSync) {
    slim_metadata(&mut sync.metadata);
    if let Some(worker) = sync.status.as_mut().and_then(|status| status.worker.as_mut()) {
        worker.checkpoint = None;
        worker.folders = Vec::new();
        worker.left_out = Vec::new();
        worker.warnings = Vec::new();
    }
}

/// Drops what the operator never looks at.
pub(crate) fn slim_pod(pod: &mut SyncPod) {
    slim_metadata(&mut pod.metadata);
    pod.sync = pod.sync_name().map(Box::from);
    pod.metadata.labels = None;
    if let Some(finalizers) = &mut pod.metadata.finalizers {
        finalizers.retain(|finalizer| finalizer == POD_FINALIZER);
    }
    if let Some(owners) = &mut pod.metadata.owner_references {
        owners.retain(|owner| owner.controller == Some(true));
        for owner in owners {
            // Their UID tells.
            (owner.api_version, owner.kind, owner.name) = (String::new(), String::new(), String::new());
        }
    }
    let settled = !pod.has_finalizer();
    pod.status
        .conditions
        .retain(|condition| condition.type_ == DISRUPTED || (condition.type_ == SCHEDULED && !settled));
    pod.status.others_ran = pod.others_run();
    pod.status.container_statuses.retain(|container| container.name == SYNC_CONTAINER);
    let state = pod.status.container_statuses.first_mut().and_then(|container| container.state.as_mut());
    if let Some(ended) = state.and_then(|state| state.terminated.as_mut()) {
        ended.container_id = None;
        if settled {
            // Its last word was heard.
            ended.message = None;
        }
    }
}

/// Drops what the operator never looks at.
pub(crate) fn slim_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
    metadata.generate_name = None;
    metadata.self_link = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::mailbox_sync::{FolderFacts, MAX_CHECKPOINT_BYTES, MailboxSyncStatus},
        controller::{owner_reference, testing},
    };

    #[test]
    fn a_checkpoint_at_its_bound_takes_no_room_in_the_cache() {
        let mut sync = MailboxSync::new("m-1", testing::mailbox_spec("m", "m-1"));
        let empty = serde_json::to_string(&sync).unwrap().len();
        let worker = WorkerStatus {
            attempt: 3,
            checkpoint: Some("c".repeat(MAX_CHECKPOINT_BYTES)),
            folders: vec![FolderFacts::default(); 200],
            warnings: vec!["w".repeat(500); 20],
            ..WorkerStatus::default()
        };
        sync.status = Some(MailboxSyncStatus { worker: Some(worker), ..MailboxSyncStatus::default() });
        slim_sync(&mut sync);
        let worker = sync.status.as_ref().and_then(|status| status.worker.as_ref()).unwrap();
        assert_eq!((worker.attempt, &worker.checkpoint, worker.folders.capacity()), (3, &None, 0));
        assert!(serde_json::to_string(&sync).unwrap().len() < empty + 500);
    }

    #[test]
    fn of_a_pod_that_is_settled_no_words_are_kept() {
        let json = |finalizers: &[&str]| {
            let owner = |uid: &str, controller: bool| serde_json::json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid, "controller": controller});
            let ended =
                serde_json::json!({"exitCode": 0, "message": "w".repeat(4096), "containerID": "containerd://1"});
            let condition = |type_: &str| serde_json::json!({"type": type_, "status": "True"});
            serde_json::json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "m-1-3", "namespace": "ns", "uid": "u", "finalizers": finalizers,
                    "labels": {SYNC_LABEL: "m-1", "team": "mail"}, "annotations": {"note": "hello"},
                    "ownerReferences": [owner("other", false), owner("sync", true)],
                },
                "spec": {"nodeName": "node", "containers": [{"name": "sync", "image": "none"}]},
                "status": {
                    "phase": "Succeeded", "conditions": [condition("Ready"), condition("DisruptionTarget")],
                    "containerStatuses": [{"name": "sync", "image": "none", "state": {"terminated": ended}}],
                },
            })
        };
        let read = |finalizers: &[&str]| {
            let mut pod: SyncPod = serde_json::from_value(json(finalizers)).unwrap();
            slim_pod(&mut pod);
            pod
        };
        let pod = read(&[]);
        let SyncContainerState::Terminated(exit) = pod.container_state() else { panic!("{pod:?}") };
        assert_eq!((exit.code, exit.message.as_str(), pod.attempt(), pod.sync_name()), (0, "", Some(3), Some("m-1")));
        assert!(owner_reference::is_controlled_by(&pod, "sync") && pod.is_bound() && pod.was_disrupted());
        assert!(format!("{pod:?}").len() < 1500, "{pod:?}");
        let held = read(&["other", POD_FINALIZER]);
        let SyncContainerState::Terminated(exit) = held.container_state() else { panic!("{held:?}") };
        assert!(exit.message.len() == 4096 && held.has_finalizer(), "its end is not settled");
    }

    #[test]
    fn an_injected_container_is_not_taken_for_the_sync() {
        let read = |proxy: serde_json::Value, sync: serde_json::Value| {
            let pod = serde_json::json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "m-1-3", "finalizers": [POD_FINALIZER]},
                "status": {"phase": "Running", "containerStatuses": [
                    {"name": "istio-proxy", "state": proxy}, {"name": "sync", "state": sync},
                ]},
            });
            let mut pod: SyncPod = serde_json::from_value(pod).unwrap();
            let told = (pod.container_state(), pod.has_terminated(), pod.others_run());
            slim_pod(&mut pod);
            assert_eq!((pod.container_state(), pod.has_terminated(), pod.others_run()), told);
            assert_eq!(pod.status.container_statuses.len(), 1);
            told
        };
        let runs = serde_json::json!({"running": {}});
        let ended = serde_json::json!({"terminated": {"exitCode": 0, "message": "word"}});
        let (state, terminated, others) = read(ended.clone(), runs.clone());
        assert_eq!(
            (state, terminated, others),
            (SyncContainerState::Running, false, false),
            "the sync may still append"
        );
        let (state, terminated, others) = read(runs, ended.clone());
        let SyncContainerState::Terminated(exit) = state else { panic!("{state:?}") };
        assert_eq!((exit.message.as_str(), terminated, others), ("word", true, true));
        assert!(!read(ended.clone(), ended).2);
    }
}
