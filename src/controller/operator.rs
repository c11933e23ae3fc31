//! The operator's process: watches, queues, and the tasks that serve them.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
    time::Instant,
};

use futures::{
    StreamExt as _,
    channel::mpsc::{self, UnboundedReceiver, UnboundedSender},
};
use jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt as _,
    runtime::{
        controller::{Action as Requeue, Config, applier},
        events::{Recorder, Reporter},
        reflector::{ObjectRef, Store},
    },
};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    address_guard::AddressGuard,
    admission::LimitedResource as Shared,
    cache::{self, ChangeSenders},
    config::{OperatorConfig, WorkerConfig},
    context::{ContextParts, ControllerContext, ReconcileQueues},
    mailbox::{self, slot_request},
    migration,
    server::{self, ConnectionCounter, ServerContext, ServerOutputs},
    watches::ObjectChange,
};
use crate::{
    api::{MailMigration, MailServer, MailboxSync, mail_migration::MigrationPhase},
    controller::{cache::NamespacedName, cached_objects::SyncPod, error::ReconcileError},
    error::{Error, Result},
    telemetry::{
        health::Readiness,
        metrics::{Metrics, ReconcileResult},
    },
};

/// MailboxSyncs that are reconciled at one time.
const SYNCS_AT_ONCE: u16 = 32;
/// MailMigrations that are reconciled at one time.
const MIGRATIONS_AT_ONCE: u16 = 4;
/// The part of the process' readiness that is decided here.
const CACHES_READY: &str = "caches";
/// MailServers that are reconciled at one time; they are tested in the background.
const SERVERS_AT_ONCE: u16 = 4;
/// How often migrations whose mailboxes changed are summed up, at most.
const SUMMARY_PERIOD: Duration = Duration::from_secs(1);

/// The settings of an operator's process, beside those of the cluster's client.
#[derive(Clone, Default)]
pub struct OperatorOptions {
    /// The configuration file.
    pub config: OperatorConfig,
    /// The image and settings of sync pods.
    pub worker: WorkerConfig,
    /// The namespaces that are watched; empty: all.
    pub namespaces: Vec<String>,
    /// The address of the API server's Service; none where the operator runs outside of the cluster.
    pub api_service: Option<IpAddr>,
    /// The name of this process (its pod), for Events.
    pub instance: Option<String>,
    /// The metrics to count in; none: they are counted, and nobody can read them.
    pub metrics: Option<Metrics>,
    /// Gets the part `caches`, true once everything was listed and decisions are made.
    pub readiness: Readiness,
}

/// Runs the operator until `stop`: watches the cluster, restores the slots of running attempts, and reconciles. Writes that
/// are under way when it is stopped are finished.
///
/// # Errors
/// Configuration when the operator may not list the cluster's networks, Internal when one of its tasks ended by itself.
pub async fn run(client: Client, options: OperatorOptions, stop: CancellationToken) -> Result<()> {
    let (caches, writers) = cache::new_caches();
    let caches = Arc::new(caches);
    let (sync_queue, syncs_due) = mpsc::unbounded();
    let (migration_queue, migrations_due) = mpsc::unbounded();
    let reporter = Reporter { controller: "mailferry-controller".to_owned(), instance: options.instance.clone() };
    let recorder = Recorder::new(client.clone(), reporter);
    let metrics = options.metrics.map_or_else(Metrics::new, Ok)?;
    options.readiness.set(CACHES_READY, false);
    for namespace in options.config.unwatched_rule_namespaces(&options.namespaces) {
        tracing::warn!(namespace, "masterUsers has a rule for a namespace that is not watched: it has no effect");
    }
    let (config, policy) = (options.config.addresses.clone(), options.config.policy.clone());
    let addresses = Arc::new(AddressGuard::new(config, policy, options.api_service));
    let context = Arc::new(ControllerContext::new(ContextParts {
        client: client.clone(),
        config: options.config,
        worker: options.worker,
        addresses: Arc::clone(&addresses),
        caches: Arc::clone(&caches),
        recorder: recorder.clone(),
        metrics: metrics.clone(),
        queues: ReconcileQueues { syncs: sync_queue, migrations: migration_queue },
    }));
    let (server_queue, servers_due) = mpsc::unbounded();
    let servers = Arc::new(ServerContext::new(
        client.clone(),
        Arc::clone(&addresses),
        server_queue.clone(),
        connection_counter(&context),
        ServerOutputs { recorder, metrics },
    ));
    let (changes, seen) = change_channels();
    let mut tasks = JoinSet::new();
    let namespaces = options.namespaces;
    let watched = Arc::clone(&caches);
    let asked = client.clone();
    tasks.spawn(async move {
        Box::pin(cache::watch_cluster(client, &namespaces, watched, writers, changes)).await;
    });
    tasks.spawn(route_changes(Arc::clone(&context), Arc::clone(&servers), server_queue, seen));
    let listed = async {
        caches.wait_until_listed().await;
        Ok(())
    };
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        ended = tasks.join_next() => return Err(task_ended_error(ended)),
        ready = futures::future::try_join(listed, addresses.wait_until_known(&asked)) => drop(ready?),
    }
    mailbox::reconcile::restore_slots(&context);
    options.readiness.set(CACHES_READY, true);
    register_phase_metrics(&context);
    tracing::info!(
        migrations = caches.migrations.len(),
        mailboxes = caches.syncs.len(),
        pods = caches.pods.len(),
        "the operator is ready"
    );
    tasks.spawn(addresses.refresh_periodically(asked));
    tasks.spawn(dispatch_slots(Arc::clone(&context)));
    let syncs = ReconcileInput { store: caches.syncs.clone(), queue: syncs_due, at_once: SYNCS_AT_ONCE };
    let syncs = run_controller(&context, syncs, stop.clone(), mailbox::reconcile::reconcile);
    let migrations =
        ReconcileInput { store: caches.migrations.clone(), queue: migrations_due, at_once: MIGRATIONS_AT_ONCE };
    let migrations = run_controller(&context, migrations, stop.clone(), migration::reconcile::reconcile);
    let reconcile_server = move |server, _| server::reconcile(server, Arc::clone(&servers));
    let servers = ReconcileInput { store: caches.servers.clone(), queue: servers_due, at_once: SERVERS_AT_ONCE };
    let servers = run_controller(&context, servers, stop.clone(), reconcile_server);
    let mut served = pin!(async { futures::join!(syncs, migrations, servers) });
    tokio::select! {
        _ = &mut served => {}
        ended = tasks.join_next() => return Err(task_ended_error(ended)),
    }
    Ok(())
}

fn task_ended_error(ended: Option<Result<(), JoinError>>) -> Error {
    let why = ended.and_then(Result::err).map_or_else(String::new, |e| format!(": {e}"));
    Error::internal(format!("a task of the operator ended by itself{why}"))
}

/// The objects of one kind, and those of them that are due.
struct ReconcileInput<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// All objects of the kind.
    store: Store<K>,
    /// Objects to be reconciled.
    queue: UnboundedReceiver<ObjectRef<K>>,
    /// How many are reconciled at one time.
    at_once: u16,
}

/// Reconciles objects of one kind until `stop`: those in the queue, and those whose last reconciliation asked for another.
async fn run_controller<K, F>(
    context: &Arc<ControllerContext>,
    input: ReconcileInput<K>,
    stop: CancellationToken,
    mut reconcile: impl FnMut(Arc<K>, Arc<ControllerContext>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Requeue, ReconcileError>> + Send + 'static,
{
    let ReconcileInput { store, queue, at_once } = input;
    let queue = queue.map(Ok::<_, Infallible>).take_until(stop.cancelled_owned());
    let reconcile = move |object: Arc<K>, context: Arc<ControllerContext>| {
        let future = reconcile(Arc::clone(&object), Arc::clone(&context));
        Box::pin(async move {
            let began = Instant::now();
            let result = future.await;
            let how = match &result {
                Ok(_) => ReconcileResult::Ok,
                Err(failure) if is_conflict(failure) => ReconcileResult::Conflict,
                Err(_) => ReconcileResult::Error,
            };
            context.metrics.reconciled(&K::kind(&()), how, began.elapsed());
            if result.is_ok() {
                context.api_failures.forget(&object.uid().unwrap_or_default());
            }
            result
        })
    };
    let failed = |object: Arc<K>, error: &ReconcileError, context: Arc<ControllerContext>| {
        let wait = context.api_failures.next_wait(&object.uid().unwrap_or_default());
        let (kind, name, namespace) = (K::kind(&()), object.name_any(), object.namespace());
        if is_conflict(error) {
            tracing::debug!(%kind, namespace, name, %error, "decided on an older version");
        } else {
            tracing::warn!(%kind, namespace, name, %error, wait_ms = wait.as_millis(), "the API server refused; trying again");
        }
        Requeue::requeue(wait)
    };
    let config = Config::default().concurrency(at_once);
    applier(reconcile, failed, Arc::clone(context), store, queue, config)
        .for_each(|_| futures::future::ready(()))
        .await;
}

/// True when somebody else wrote meanwhile: the newer version is on its way.
fn is_conflict(failure: &ReconcileError) -> bool {
    matches!(failure, ReconcileError::Api(kube::Error::Api(answer)) if answer.code == 409)
}

/// The changes of each kind that the watches bring.
struct ChangeReceivers {
    migrations: UnboundedReceiver<ObjectChange<MailMigration>>,
    syncs: UnboundedReceiver<ObjectChange<MailboxSync>>,
    servers: UnboundedReceiver<ObjectChange<MailServer>>,
    pods: UnboundedReceiver<ObjectChange<SyncPod>>,
}

fn change_channels() -> (ChangeSenders, ChangeReceivers) {
    let (migrations, migrations_seen) = mpsc::unbounded();
    let (syncs, syncs_seen) = mpsc::unbounded();
    let (servers, servers_seen) = mpsc::unbounded();
    let (pods, pods_seen) = mpsc::unbounded();
    let seen =
        ChangeReceivers { migrations: migrations_seen, syncs: syncs_seen, servers: servers_seen, pods: pods_seen };
    (ChangeSenders { migrations, syncs, servers, pods }, seen)
}

/// Puts the objects that a change concerns into the queues of their controllers.
async fn route_changes(
    context: Arc<ControllerContext>,
    servers: Arc<ServerContext>,
    server_queue: UnboundedSender<ObjectRef<MailServer>>,
    mut seen: ChangeReceivers,
) {
    let mut changed_migrations: HashSet<NamespacedName> = HashSet::new();
    let mut tick = tokio::time::interval(SUMMARY_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(change) = seen.migrations.next() => handle_migration_change(&context, change),
            Some(change) = seen.syncs.next() => {
                if let Some(migration) = handle_sync_change(&context, change) {
                    changed_migrations.insert(migration);
                }
            }
            Some(change) = seen.servers.next() => {
                let matters = match &change {
                    ObjectChange::Applied(server) => {
                        enqueue_object(&server_queue, server);
                        context.migration_memories.record_server(server)
                    }
                    ObjectChange::Deleted(server) => {
                        servers.forget(&server.uid().unwrap_or_default());
                        context.migration_memories.forget_server(&server.uid().unwrap_or_default());
                        true
                    }
                };
                let (ObjectChange::Applied(server) | ObjectChange::Deleted(server)) = change;
                for migration in migrations_in(&context, server.namespace().as_deref()).iter().filter(|_| matters) {
                    enqueue_object(&context.migration_queue, &**migration);
                }
            }
            Some(change) = seen.pods.next() => {
                if let ObjectChange::Deleted(pod) = &change {
                    context.written.forget(&pod.uid().unwrap_or_default());
                }
                let (ObjectChange::Applied(pod) | ObjectChange::Deleted(pod)) = change;
                if let (Some(sync), Some(namespace)) = (pod.sync_name(), pod.namespace()) {
                    let _ = context.sync_queue.unbounded_send(ObjectRef::new(sync).within(&namespace));
                }
            }
            _ = tick.tick(), if !changed_migrations.is_empty() => {
                for migration in changed_migrations.drain() {
                    let _ = context.migration_queue.unbounded_send(migration.to_object_ref());
                }
            }
            else => return,
        }
    }
}

/// Has migrations and mailboxes counted by phase whenever the metrics are read.
fn register_phase_metrics(context: &Arc<ControllerContext>) {
    let caches = Arc::downgrade(&context.caches);
    context.metrics.refresh_gauges_by(move |metrics| {
        let Some(caches) = caches.upgrade() else { return };
        let mut migrations = HashMap::new();
        let all = caches.migrations.state();
        for migration in &all {
            let phase = migration.status.as_ref().and_then(|status| status.phase).unwrap_or(MigrationPhase::Pending);
            migrations.entry(phase as u8).or_insert((phase, 0)).1 += 1;
        }
        metrics.set_migrations(migrations.into_values());
        let suspended: HashSet<_> = all
            .iter()
            .filter(|migration| migration.spec.suspend)
            .map(|migration| (migration.metadata.namespace.as_deref(), migration.metadata.name.as_deref()))
            .collect();
        let syncs = caches.syncs.state();
        let syncs = syncs.iter().map(|sync| {
            let migration = (sync.metadata.namespace.as_deref(), Some(sync.spec.migration.as_str()));
            (&**sync, suspended.contains(&migration))
        });
        metrics.set_mailboxes(&mailbox::phase_metrics::tally_mailboxes(syncs, Timestamp::now()));
    });
}

/// Counts the connections that running syncs of a namespace hold to a server.
fn connection_counter(context: &Arc<ControllerContext>) -> ConnectionCounter {
    let context = Arc::clone(context);
    Box::new(move |namespace, spec| {
        let server = Shared::Server(namespace.to_owned(), slot_request::server_address(spec));
        context.admission().in_use(&server)
    })
}

fn handle_migration_change(context: &ControllerContext, change: ObjectChange<MailMigration>) {
    match change {
        ObjectChange::Applied(migration) => {
            // Its mailboxes ask it whether they may start.
            if context.migration_memories.record_generation(&migration) {
                for sync in context.caches.syncs_of(&migration.namespace().unwrap_or_default(), &migration.name_any()) {
                    enqueue_object(&context.sync_queue, &*sync);
                }
            }
            enqueue_object(&context.migration_queue, &migration);
        }
        ObjectChange::Deleted(migration) => context.forget_migration(&migration.uid().unwrap_or_default()),
    }
}

/// Has a mailbox reconciled, or forgets one that is gone; gives its migration, which has to be summed up.
fn handle_sync_change(context: &ControllerContext, change: ObjectChange<MailboxSync>) -> Option<NamespacedName> {
    match change {
        ObjectChange::Applied(sync) => {
            enqueue_object(&context.sync_queue, &sync);
            Some(NamespacedName { namespace: sync.namespace()?, name: sync.spec.migration })
        }
        ObjectChange::Deleted(sync) => {
            // Also when it vanished while nobody watched: it holds its slots no more.
            context.forget_mailbox(&sync.uid().unwrap_or_default());
            Some(NamespacedName { namespace: sync.namespace()?, name: sync.spec.migration })
        }
    }
}

fn migrations_in(context: &ControllerContext, namespace: Option<&str>) -> Vec<Arc<MailMigration>> {
    context.caches.migrations.state_filter(|migration| migration.metadata.namespace.as_deref() == namespace)
}

fn enqueue_object<K: Resource<DynamicType = ()>>(queue: &UnboundedSender<ObjectRef<K>>, object: &K) {
    // Where nobody takes it any more, the process ends.
    let _ = queue.unbounded_send(ObjectRef::from_obj(object));
}

/// Hands out slots whenever some are free and somebody waits.
async fn dispatch_slots(context: Arc<ControllerContext>) {
    loop {
        let wait = {
            let mut admission = context.admission();
            while let Some((namespace, name)) = admission.admit_next(Instant::now()) {
                let _ = context.sync_queue.unbounded_send(ObjectRef::new(&name).within(&namespace));
            }
            context.metrics.set_queue(admission.waiting_count(), admission.running_count());
            admission.next_admission_in(Instant::now())
        };
        match wait {
            Some(wait) => drop(tokio::time::timeout(wait, context.slots_changed.notified()).await),
            None => context.slots_changed.notified().await,
        }
    }
}
