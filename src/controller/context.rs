//! What the controllers share.

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

/// What the controllers share.
pub struct ControllerContext {
    /// The API server.
    pub client: Client,
    /// What whoever runs the cluster decided.
    pub config: OperatorConfig,
    /// What goes into pods.
    pub worker: WorkerConfig,
    /// Where mail servers may be.
    pub addresses: Arc<AddressGuard>,
    /// What there is.
    pub caches: Arc<ClusterCaches>,
    /// Versions of Secrets, seen lately.
    pub secrets: SecretVersions,
    /// Tells people.
    pub recorder: Recorder,
    /// For people's graphs.
    pub metrics: Metrics,
    /// Counts what mailboxes do.
    pub counts: SyncMetrics,
    /// Wakes whoever hands out slots.
    pub slots_changed: Notify,
    /// Mailboxes to look at.
    pub sync_queue: UnboundedSender<ObjectRef<MailboxSync>>,
    /// Migrations to look at.
    pub migration_queue: UnboundedSender<ObjectRef<MailMigration>>,
    /// What this operator wrote, and the watches have not brought yet.
    pub written: WrittenVersions,
    /// Failures of the API server.
    pub failures: ApiFailures,
    /// Namespaces that are ready for pods.
    pub prepared: PreparedNamespaces,
    /// What is remembered of migrations.
    pub memories: MigrationMemories,
    admission: Mutex<SyncAdmission>,
    heard: Mutex<HashMap<String, WorkerLiveness>>,
    told_of_nodes: AtomicBool,
}

impl ControllerContext {
    /// Ties the parts together.
    #[must_use]
    pub(crate) fn new(
        client: Client,
        (config, worker, addresses): (OperatorConfig, WorkerConfig, Arc<AddressGuard>),
        caches: Arc<ClusterCaches>,
        (recorder, metrics): (Recorder, Metrics),
        (sync_queue, migration_queue): (
            UnboundedSender<ObjectRef<MailboxSync>>,
            UnboundedSender<ObjectRef<MailMigration>>,
        ),
    ) -> Self {
        Self {
            admission: Mutex::new(SyncAdmission::new(config.pod_starts_per_second)),
            secrets: SecretVersions::new(client.clone()),
            client,
            config,
            worker,
            addresses,
            caches,
            recorder,
            counts: SyncMetrics::new(metrics.clone()),
            metrics,
            slots_changed: Notify::new(),
            sync_queue,
            migration_queue,
            written: WrittenVersions::default(),
            failures: ApiFailures::default(),
            prepared: PreparedNamespaces::default(),
            memories: MigrationMemories::default(),
            heard: Mutex::default(),
            told_of_nodes: AtomicBool::new(false),
        }
    }

    /// Who waits and who runs. Never held across an await.
    pub(crate) fn admission(&self) -> MutexGuard<'_, SyncAdmission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was heard of attempts, by MailboxSync's UID.
    pub(crate) fn liveness(&self) -> MutexGuard<'_, HashMap<String, WorkerLiveness>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a mailbox that is gone; its slots are free.
    pub(crate) fn forget_mailbox(&self, uid: &str) {
        self.release_slots(uid);
        self.admission().withdraw(uid);
        self.liveness().remove(uid);
        self.counts.forget(uid);
        self.written.forget(uid);
        self.failures.forget(uid);
    }

    /// Gives slots back.
    pub(crate) fn release_slots(&self, uid: &str) {
        self.admission().release(uid);
        self.slots_changed.notify_one();
    }

    /// Forgets a migration that is gone.
    pub(crate) fn forget_migration(&self, uid: &str) {
        self.memories.forget(uid);
        self.written.forget(uid);
        self.failures.forget(uid);
    }

    /// Says once that nobody tells this operator which nodes are out of service.
    pub(crate) fn warn_nodes_unreadable(&self, message: &str) {
        if !self.told_of_nodes.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                said = message,
                "the operator may not read Nodes: a lost node's pods count as ended only when offlineGrace has passed"
            );
        }
    }

    /// Tells people.
    pub(crate) async fn publish_events<K: Resource<DynamicType = ()>>(&self, about: &K, notes: &[EventNote]) {
        publish_events(&self.recorder, about, notes).await;
    }
}
