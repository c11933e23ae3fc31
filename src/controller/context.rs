//! What the controllers share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::channel::mpsc::UnboundedSender;
use kube::{
    Client, Resource, ResourceExt as _,
    runtime::{
        events::{Event, EventType, Recorder},
        reflector::ObjectRef,
    },
};
use tokio::sync::Notify;

use super::{
    addresses::Guard,
    admission::Admission,
    cache::Caches,
    config::{OperatorConfig, WorkerConfig},
    mailbox::{count::Counts, observe::Heard, secrets::SecretVersions, settle::Note},
    migration::reconcile::Memory,
};
use crate::{
    api::{MailMigration, MailboxSync},
    telemetry::metrics::Metrics,
};

/// What the controllers share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What whoever runs the cluster decided.
    pub config: OperatorConfig,
    /// What goes into pods.
    pub worker: WorkerConfig,
    /// Where mail servers may be.
    pub addresses: Arc<Guard>,
    /// What there is.
    pub caches: Arc<Caches>,
    /// Versions of Secrets, seen lately.
    pub secrets: SecretVersions,
    /// Tells people.
    pub recorder: Recorder,
    /// For people's graphs.
    pub metrics: Metrics,
    /// Counts what mailboxes do.
    pub counts: Counts,
    /// Wakes whoever hands out slots.
    pub slots_changed: Notify,
    /// Mailboxes to look at.
    pub sync_queue: UnboundedSender<ObjectRef<MailboxSync>>,
    /// Migrations to look at.
    pub migration_queue: UnboundedSender<ObjectRef<MailMigration>>,
    admission: Mutex<Admission>,
    heard: Mutex<HashMap<String, Heard>>,
    written: Mutex<HashMap<String, u64>>,
    failures: Mutex<HashMap<String, u32>>,
    prepared: Mutex<HashMap<String, Instant>>,
    memories: Mutex<HashMap<String, Memory>>,
    generations: Mutex<HashMap<String, i64>>,
    told_of_nodes: AtomicBool,
}

impl Context {
    /// Ties the parts together.
    #[must_use]
    pub(crate) fn new(
        client: Client,
        (config, worker, addresses): (OperatorConfig, WorkerConfig, Arc<Guard>),
        caches: Arc<Caches>,
        (recorder, metrics): (Recorder, Metrics),
        (sync_queue, migration_queue): (
            UnboundedSender<ObjectRef<MailboxSync>>,
            UnboundedSender<ObjectRef<MailMigration>>,
        ),
    ) -> Self {
        Self {
            admission: Mutex::new(Admission::new(config.pod_starts_per_second)),
            secrets: SecretVersions::new(client.clone()),
            client,
            config,
            worker,
            addresses,
            caches,
            recorder,
            counts: Counts::new(metrics.clone()),
            metrics,
            slots_changed: Notify::new(),
            sync_queue,
            migration_queue,
            heard: Mutex::default(),
            written: Mutex::default(),
            failures: Mutex::default(),
            prepared: Mutex::default(),
            memories: Mutex::default(),
            generations: Mutex::default(),
            told_of_nodes: AtomicBool::new(false),
        }
    }

    /// Who waits and who runs. Never held across an await.
    pub(crate) fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was heard of attempts, by MailboxSync's UID.
    pub(crate) fn heard(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a write, so that an older version that the watch still brings is not decided on.
    pub(crate) fn wrote(&self, object: &impl Resource) {
        if let (Some(uid), Some(version)) = (object.meta().uid.clone(), version(object)) {
            self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, version);
        }
    }

    /// True when this version is older than what was written last.
    pub(crate) fn is_stale(&self, object: &impl Resource) -> bool {
        let Some(uid) = object.meta().uid.as_ref() else { return false };
        let mut writes = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = version(object).zip(writes.get(uid).copied()).is_some_and(|(seen, written)| seen < written);
        if !stale {
            // The watch has caught up; it never goes back.
            writes.remove(uid);
        }
        stale
    }

    /// Forgets a mailbox that is gone; its slots are free.
    pub(crate) fn forget(&self, uid: &str) {
        self.release(uid);
        self.admission().withdraw(uid);
        self.heard().remove(uid);
        self.counts.forget(uid);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Gives slots back.
    pub(crate) fn release(&self, uid: &str) {
        self.admission().release(uid);
        self.slots_changed.notify_one();
    }

    /// How long to wait after a failure of the API: longer with each in a row.
    pub(crate) fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let times = failures.entry(uid.to_owned()).and_modify(|times| *times += 1).or_insert(1);
        Duration::from_millis(250).saturating_mul(2_u32.saturating_pow((*times).min(8))).min(Duration::from_secs(30))
    }

    /// The API answered.
    pub(crate) fn succeeded(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// What is remembered of a migration, taken out.
    pub(crate) fn memory(&self, uid: &str) -> Memory {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).remove(uid).unwrap_or_default()
    }

    /// Remembers it.
    pub(crate) fn remember(&self, uid: String, memory: Memory) {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, memory);
    }

    /// Forgets a migration that is gone.
    pub(crate) fn forget_migration(&self, uid: &str) {
        drop(self.memory(uid));
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// True when a migration's spec is new, or another than before.
    pub(crate) fn is_news(&self, migration: &MailMigration) -> bool {
        let (Some(uid), Some(generation)) = (migration.uid(), migration.metadata.generation) else { return true };
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(uid, generation) != Some(generation)
    }

    /// True when the workers' account of this namespace was applied less than `every` ago: it need not be applied again yet.
    pub(crate) fn is_prepared(&self, namespace: &str, every: Duration) -> bool {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.get(namespace).is_some_and(|at| at.elapsed() < every)
    }

    /// A namespace's workers' account was applied.
    pub(crate) fn prepared(&self, namespace: &str) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned(), Instant::now());
    }

    /// It has to be applied again.
    pub(crate) fn unprepared(&self, namespace: &str) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    /// Says once that nobody tells this operator which nodes are out of service.
    pub(crate) fn nodes_unknown(&self, message: &str) {
        if !self.told_of_nodes.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                said = message,
                "the operator may not read Nodes: a lost node's pods count as ended only when offlineGrace has passed"
            );
        }
    }

    /// Tells people.
    pub(crate) async fn tell<K: Resource<DynamicType = ()>>(&self, about: &K, notes: &[Note]) {
        tell(&self.recorder, about, notes).await;
    }
}

/// Tells people. A lost Event is only a line less.
pub(crate) async fn tell<K: Resource<DynamicType = ()>>(recorder: &Recorder, about: &K, notes: &[Note]) {
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            note: Some(note.message.chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &about.object_ref(&())).await {
            tracing::debug!(name = about.name_any(), %error, "an Event was not taken");
        }
    }
}

/// A resourceVersion as a number: the API server counts them up.
fn version(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}
