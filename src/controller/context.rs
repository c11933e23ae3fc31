//! What the controllers of MailMigrations and MailboxSyncs share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Client, Resource,
    runtime::{events::Recorder, reflector::ObjectRef},
};
use tokio::sync::Notify;

use super::{
    address_guard::AddressGuard,
    admission::{SlotRequest, SyncAdmission},
    cache::{ClusterCaches, NamespacedName},
    config::{OperatorConfig, WorkerConfig},
    events::{EventNote, publish_events},
    finished_pods::FinishedPods,
    mailbox::{
        due::is_final, observe::WorkerLiveness, secret_versions::SecretVersions, slot_wait::ToldWaits,
        sync_metrics::SyncMetrics, time_windows::times_of_servers,
    },
    migration::memory::MigrationMemories,
    reconcile_loop::DueObjects,
    reconcile_queue::Urgency,
    retry::ApiFailures,
    tokens::keeper::TokenKeeper,
    worker_rbac::PreparedNamespaces,
    written::{UnansweredObjects, WrittenVersions},
};
use crate::telemetry::{liveness::Liveness, metrics::Metrics};

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
    /// The namespace that the operator is installed in: the Secrets of its grants are there.
    pub own_namespace: String,
    /// Keeps the access tokens of mailboxes that run.
    pub tokens: TokenKeeper,
    /// Publishes Events.
    pub recorder: Recorder,
    /// The process' metrics.
    pub metrics: Metrics,
    /// What was written of waiting mailboxes.
    pub told_waits: ToldWaits,
    /// Learns of reconciliations.
    pub reconciliations: Liveness,
    /// Counts what mailboxes do, for the metrics.
    pub sync_metrics: SyncMetrics,
    /// Wakes `dispatch_slots`.
    pub slots_changed: Notify,
    /// The objects of each kind that are due.
    pub due: DueByKind,
    /// The versions that this operator wrote, and that the watches have not brought yet.
    pub written: WrittenVersions,
    /// The mailboxes that have to be read again before anything is decided.
    pub unanswered: UnansweredObjects,
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
    pub own_namespace: String,
    pub worker: WorkerConfig,
    pub addresses: Arc<AddressGuard>,
    pub caches: Arc<ClusterCaches>,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub liveness: Liveness,
}

/// The objects of each kind that are due.
#[derive(Debug, Clone, Default)]
pub(crate) struct DueByKind {
    /// MailboxSyncs.
    pub syncs: Arc<DueObjects>,
    /// MailMigrations.
    pub migrations: Arc<DueObjects>,
    /// MailServers.
    pub servers: Arc<DueObjects>,
}

impl ControllerContext {
    /// The context of an operator that has decided nothing yet.
    #[must_use]
    pub(crate) fn new(parts: ContextParts) -> Self {
        let ContextParts { client, config, own_namespace, worker, addresses, caches, recorder, .. } = parts;
        let ContextParts { metrics, liveness, .. } = parts;
        Self {
            admission: Mutex::new(
                SyncAdmission::new(config.pod_starts_per_second).with_weights(config.namespace_weights()),
            ),
            secret_versions: SecretVersions::new(client.clone(), &config, &own_namespace),
            tokens: TokenKeeper::new(),
            own_namespace,
            client,
            config,
            worker,
            addresses,
            caches,
            recorder,
            told_waits: ToldWaits::default(),
            sync_metrics: SyncMetrics::new(metrics.clone()),
            metrics,
            reconciliations: liveness,
            slots_changed: Notify::new(),
            due: DueByKind::default(),
            written: WrittenVersions::default(),
            unanswered: UnansweredObjects::default(),
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
        if self.admission().forget(uid) {
            self.slots_changed.notify_one();
        }
        self.told_waits.forget(uid);
        self.tokens.let_go(uid);
        self.liveness().remove(uid);
        self.sync_metrics.forget(uid);
        self.written.forget(uid);
        self.unanswered.forget(uid);
        self.api_failures.forget(uid);
    }

    /// Gives the slots of a mailbox back, whose attempt has ended.
    pub(crate) fn release_slots(&self, uid: &str) {
        if self.admission().release(uid) {
            self.slots_changed.notify_one();
        }
    }

    /// Takes a mailbox out of the queue; what it holds it keeps.
    pub(crate) fn withdraw_request(&self, uid: &str) {
        if self.admission().withdraw(uid) {
            self.slots_changed.notify_one();
        }
    }

    /// A mailbox does not want to run any more: it leaves the queue, and gives back slots that it made no attempt with.
    pub(crate) fn give_up_slots(&self, uid: &str) {
        if self.admission().give_up(uid) {
            self.slots_changed.notify_one();
        }
    }

    /// Grants slots to all that may have some now, and has them reconciled; gives the time after which more may be granted
    /// though nothing is given back.
    pub(crate) fn grant_slots(&self, now: Instant) -> Option<Duration> {
        let mut admission = self.admission();
        while let Some((namespace, name)) = admission.admit_next(now, |request| self.wants_to_run(request)) {
            self.due.syncs.add(&NamespacedName::new(namespace, name), Urgency::Urgent);
        }
        self.metrics.set_queue(admission.waiting_count(), admission.running_count());
        admission.next_admission_in(now)
    }

    /// True while a mailbox that waits is there, and neither it nor its migration is suspended, cancelled, being deleted or
    /// done, and its servers' time windows are open. What changed after it asked for slots may not have been decided on yet.
    fn wants_to_run(&self, request: &SlotRequest) -> bool {
        let Some(sync) = self.caches.syncs.get(&ObjectRef::new(&request.name).within(request.namespace())) else {
            return false;
        };
        let stopped = sync.spec.suspend || sync.spec.cancel || sync.metadata.deletion_timestamp.is_some();
        let now = Timestamp::now();
        let times = times_of_servers([&sync.spec.source.server, &sync.spec.destination.server], now);
        let stopped = stopped || times.closed().is_some();
        if sync.metadata.uid.as_deref() != Some(&request.uid) || stopped || is_final(&sync, now) {
            return false;
        }
        let migration = self.caches.migration_of(&sync);
        migration.is_some_and(|m| !m.spec.suspend && m.metadata.deletion_timestamp.is_none())
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

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, thread};

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::ResourceExt as _;

    use super::*;
    use crate::{
        api::{MailboxSync, MailboxSyncStatus, mailbox_sync::SyncPhase},
        controller::{mailbox::slot_request::slot_request, testing},
    };

    type SyncChange = fn(&mut MailboxSync);

    fn enqueue(context: &ControllerContext, sync: &MailboxSync) {
        context.admission().enqueue(slot_request(sync, None, &context.config, None));
    }

    fn waiting_and_running(context: &ControllerContext) -> (usize, usize) {
        let admission = context.admission();
        (admission.waiting_count(), admission.running_count())
    }

    fn fast() -> OperatorConfig {
        OperatorConfig { pod_starts_per_second: 1_000_000, ..OperatorConfig::default() }
    }

    #[tokio::test]
    async fn who_does_not_want_to_run_any_more_gets_no_slots_and_leaves_the_queue() {
        let (context, mut caches) = testing::context(fast());
        let (good, mut suspended) = (testing::migration("good"), testing::migration("suspended"));
        suspended.spec.suspend = true;
        caches.set_migration(&good);
        caches.set_migration(&suspended);
        let changes: [(&str, SyncChange); 6] = [
            ("suspended", |sync| sync.spec.suspend = true),
            ("cancelled", |sync| sync.spec.cancel = true),
            ("deleted", |sync| sync.metadata.deletion_timestamp = Some(Time(Timestamp::now()))),
            ("another", |sync| sync.metadata.uid = Some("another".to_owned())),
            ("failed", |sync| {
                let (observed_generation, phase) = (Some(0), Some(SyncPhase::Failed));
                sync.status = Some(MailboxSyncStatus { observed_generation, phase, ..MailboxSyncStatus::default() });
            }),
            ("fine", |_| {}),
        ];
        let waiting = changes.map(|(name, change)| (testing::mailbox_sync(&good, name), change));
        for (sync, change) in &waiting {
            enqueue(&context, sync);
            let mut sync = sync.clone();
            change(&mut sync);
            caches.set_sync(&sync, true);
        }
        enqueue(&context, &testing::mailbox_sync(&good, "gone"));
        let of_suspended = testing::mailbox_sync(&suspended, "one");
        caches.set_sync(&of_suspended, true);
        enqueue(&context, &of_suspended);
        context.grant_slots(Instant::now());
        let is_granted =
            |sync: &MailboxSync| context.admission().granted_slots(sync.uid().as_deref().unwrap()).is_some();
        let granted = waiting.iter().filter(|(sync, _)| is_granted(sync));
        assert_eq!(granted.map(|(sync, _)| sync.name_any()).collect::<Vec<_>>(), ["good-fine"]);
        assert_eq!(waiting_and_running(&context), (0, 1));
    }

    #[tokio::test]
    async fn no_slot_is_lost_when_mailboxes_give_up_while_slots_are_granted() {
        let (context, mut caches) = testing::context(fast());
        let migration = testing::migration("m");
        caches.set_migration(&migration);
        let requests = ["a", "b", "c"].map(|name| {
            let sync = testing::mailbox_sync(&migration, name);
            caches.set_sync(&sync, true);
            slot_request(&sync, None, &context.config, None)
        });
        let (context, stop, kept) = (&context, &AtomicBool::new(false), &AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    context.grant_slots(Instant::now());
                }
            });
            let mailboxes = requests.map(|request| {
                scope.spawn(move || {
                    for round in 0..20_000 {
                        context.admission().enqueue(request.clone());
                        if round % 2 == 0 {
                            context.give_up_slots(&request.uid);
                        } else {
                            context.forget_mailbox(&request.uid);
                        }
                        let held = context.admission().granted_slots(&request.uid);
                        kept.fetch_add(usize::from(held.is_some()), Ordering::Relaxed);
                    }
                })
            });
            for mailbox in mailboxes {
                mailbox.join().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!((kept.load(Ordering::Relaxed), waiting_and_running(context)), (0, (0, 0)));
    }
}
