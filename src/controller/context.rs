//! What the controllers of MailMigrations and MailboxSyncs share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::channel::mpsc::UnboundedSender;
use kube::{
    Client, Resource,
    runtime::{events::Recorder, reflector::ObjectRef},
};
use tokio::sync::Notify;

use super::{
    address_guard::AddressGuard,
    admission::SyncAdmission,
    cache::ClusterCaches,
    config::{OperatorConfig, WorkerConfig},
    events::{EventNote, publish_events},
    finished_pods::FinishedPods,
    mailbox::{observe::WorkerLiveness, secret_versions::SecretVersions, sync_metrics::SyncMetrics},
    migration::memory::MigrationMemories,
    retry::ApiFailures,
    worker_rbac::PreparedNamespaces,
    written::WrittenVersions,
};
use crate::{
    api::{MailMigration, MailboxSync},
    telemetry::metrics::Metrics,
};

/// What the controllers of MailMigrations and MailboxSyncs share: one for the whole process.
pub struct ControllerContext {
    /// Talks to the API server, and writes only while this process leads.
    pub client: Client,
    /// The operator's configuration file.
    pub config: OperatorConfig,
    /// The image and settings of sync pods.
    pub worker: WorkerConfig,
    /// Decides which addresses may be connected to.
    pub addresses: Arc<AddressGuard>,
    /// The cluster as the watches show it.
    pub caches: Arc<ClusterCaches>,
    /// The versions of Secrets that were looked up lately.
    pub secret_versions: SecretVersions,
    /// Publishes Events.
    pub recorder: Recorder,
    /// The process' metrics.
    pub metrics: Metrics,
    /// Counts what mailboxes do, for the metrics.
    pub sync_metrics: SyncMetrics,
    /// Wakes `dispatch_slots`.
    pub slots_changed: Notify,
    /// Takes MailboxSyncs to be reconciled.
    pub sync_queue: UnboundedSender<ObjectRef<MailboxSync>>,
    /// Takes MailMigrations to be reconciled.
    pub migration_queue: UnboundedSender<ObjectRef<MailMigration>>,
    /// The versions that this operator wrote, and that the watches have not brought yet.
    pub written: WrittenVersions,
    /// Failures of the API server in a row, by object.
    pub api_failures: ApiFailures,
    /// Which finished pods have to go.
    pub finished_pods: FinishedPods,
    /// Namespaces that are ready for pods.
    pub prepared_namespaces: PreparedNamespaces,
    /// What is remembered of migrations from one reconciliation to the next.
    pub migration_memories: MigrationMemories,
    admission: Mutex<SyncAdmission>,
    liveness: Mutex<HashMap<String, WorkerLiveness>>,
    warned_about_nodes: AtomicBool,
}

/// The parts that a [`ControllerContext`] is made of; each is described there.
pub(crate) struct ContextParts {
    pub client: Client,
    pub config: OperatorConfig,
    pub worker: WorkerConfig,
    pub addresses: Arc<AddressGuard>,
    pub caches: Arc<ClusterCaches>,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub queues: ReconcileQueues,
}

/// The queues of objects to be reconciled.
pub(crate) struct ReconcileQueues {
    pub syncs: UnboundedSender<ObjectRef<MailboxSync>>,
    pub migrations: UnboundedSender<ObjectRef<MailMigration>>,
}

impl ControllerContext {
    /// The context of an operator that has decided nothing yet.
    #[must_use]
    pub(crate) fn new(parts: ContextParts) -> Self {
        let ContextParts { client, config, worker, addresses, caches, recorder, metrics, queues } = parts;
        Self {
            admission: Mutex::new(SyncAdmission::new(config.pod_starts_per_second)),
            secret_versions: SecretVersions::new(client.clone()),
            client,
            config,
            worker,
            addresses,
            caches,
            recorder,
            sync_metrics: SyncMetrics::new(metrics.clone()),
            metrics,
            slots_changed: Notify::new(),
            sync_queue: queues.syncs,
            migration_queue: queues.migrations,
            written: WrittenVersions::default(),
            api_failures: ApiFailures::default(),
            finished_pods: FinishedPods::default(),
            prepared_namespaces: PreparedNamespaces::default(),
            migration_memories: MigrationMemories::default(),
            liveness: Mutex::default(),
            warned_about_nodes: AtomicBool::new(false),
        }
    }

    /// Which mailboxes wait for slots, and which hold them. Never held across an await.
    pub(crate) fn admission(&self) -> MutexGuard<'_, SyncAdmission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was liveness of attempts, by MailboxSync's UID.
    pub(crate) fn liveness(&self) -> MutexGuard<'_, HashMap<String, WorkerLiveness>> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a mailbox that is gone; its slots are free.
    pub(crate) fn forget_mailbox(&self, uid: &str) {
        self.release_slots(uid);
        self.admission().withdraw(uid);
        self.liveness().remove(uid);
        self.sync_metrics.forget(uid);
        self.written.forget(uid);
        self.api_failures.forget(uid);
    }

    /// Gives the slots of a mailbox back.
    pub(crate) fn release_slots(&self, uid: &str) {
        self.admission().release(uid);
        self.slots_changed.notify_one();
    }

    /// Forgets a migration that is gone.
    pub(crate) fn forget_migration(&self, uid: &str) {
        self.migration_memories.forget(uid);
        self.written.forget(uid);
        self.api_failures.forget(uid);
    }

    /// Logs, once in the life of this process, that it may not read which nodes are out of service.
    pub(crate) fn warn_nodes_unreadable(&self, message: &str) {
        if !self.warned_about_nodes.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                said = message,
                "the operator may not read Nodes: a lost node's pods count as ended only when offlineGrace has passed"
            );
        }
    }

    /// Publishes Events about an object.
    pub(crate) async fn publish_events<K: Resource<DynamicType = ()>>(&self, about: &K, events: &[EventNote]) {
        publish_events(&self.recorder, about, events).await;
    }
}
