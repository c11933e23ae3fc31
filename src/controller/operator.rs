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
    cached_objects::SYNC_LABEL,
    config::{OperatorConfig, WorkerConfig},
    context::ControllerContext,
    mailbox::{self, slot_request},
    migration,
    server::{self, ConnectionCounter, ServerContext},
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

/// Mailboxes that are looked after at one time.
const SYNCS_AT_ONCE: u16 = 32;
/// Migrations that are looked after at one time.
const MIGRATIONS_AT_ONCE: u16 = 4;
/// The part of the process' readiness that is decided here.
const CACHES_READY: &str = "caches";
/// Mail servers that are looked after at one time; they are tested in the background.
const SERVERS_AT_ONCE: u16 = 4;
/// How often migrations whose mailboxes changed are summed up, at most.
const SUMMARY_PERIOD: Duration = Duration::from_secs(1);

/// How an operator runs.
#[derive(Clone, Default)]
pub struct OperatorOptions {
    /// What whoever runs the cluster decided.
    pub config: OperatorConfig,
    /// What goes into pods.
    pub worker: WorkerConfig,
    /// Only these namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// The address of the API server's Service, in a cluster.
    pub api_service: Option<IpAddr>,
    /// This process' name, for Events.
    pub instance: Option<String>,
    /// What is counted; none: nobody looks.
    pub metrics: Option<Metrics>,
    /// Told when the cluster was seen, so that there is something to decide on.
    pub readiness: Readiness,
}

/// Runs the controllers until `stop`; what is being written is finished.
///
/// # Errors
/// Internal when a part of it ended by itself.
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
    let context = Arc::new(ControllerContext::new(
        client.clone(),
        (options.config, options.worker, Arc::clone(&addresses)),
        Arc::clone(&caches),
        (recorder.clone(), metrics.clone()),
        (sync_queue, migration_queue),
    ));
    let (server_queue, servers_due) = mpsc::unbounded();
    let counted = connection_counter(&context);
    let guard = Arc::clone(&addresses);
    let servers =
        Arc::new(ServerContext::new(client.clone(), guard, server_queue.clone(), counted, (recorder, metrics)));
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
    let syncs = run_controller(
        &context,
        caches.syncs.clone(),
        syncs_due,
        SYNCS_AT_ONCE,
        stop.clone(),
        mailbox::reconcile::reconcile,
    );
    let migrations = run_controller(
        &context,
        caches.migrations.clone(),
        migrations_due,
        MIGRATIONS_AT_ONCE,
        stop.clone(),
        migration::reconcile::reconcile,
    );
    let look = move |server, _| server::reconcile(server, Arc::clone(&servers));
    let servers = run_controller(&context, caches.servers.clone(), servers_due, SERVERS_AT_ONCE, stop.clone(), look);
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

/// Looks after objects of one kind: those in the queue, and those that asked to be looked at again.
async fn run_controller<K, F>(
    context: &Arc<ControllerContext>,
    store: Store<K>,
    queue: UnboundedReceiver<ObjectRef<K>>,
    at_once: u16,
    stop: CancellationToken,
    mut reconcile: impl FnMut(Arc<K>, Arc<ControllerContext>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Requeue, ReconcileError>> + Send + 'static,
{
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
                context.failures.forget(&object.uid().unwrap_or_default());
            }
            result
        })
    };
    let failed = |object: Arc<K>, error: &ReconcileError, context: Arc<ControllerContext>| {
        let wait = context.failures.next_wait(&object.uid().unwrap_or_default());
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

/// What the watches bring.
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

/// Puts into the queues whoever a change concerns.
async fn route_changes(
    context: Arc<ControllerContext>,
    servers: Arc<ServerContext>,
    server_queue: UnboundedSender<ObjectRef<MailServer>>,
    mut seen: ChangeReceivers,
) {
    let mut dirty: HashSet<NamespacedName> = HashSet::new();
    let mut tick = tokio::time::interval(SUMMARY_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(change) = seen.migrations.next() => handle_migration_change(&context, change),
            Some(change) = seen.syncs.next() => {
                if let Some(place) = handle_sync_change(&context, change) {
                    dirty.insert(place);
                }
            }
            Some(change) = seen.servers.next() => {
                match &change {
                    ObjectChange::There(server) => enqueue_object(&server_queue, server),
                    ObjectChange::Gone(server) => servers.forget(&server.uid().unwrap_or_default()),
                }
                let (ObjectChange::There(server) | ObjectChange::Gone(server)) = change;
                for migration in migrations_in(&context, server.namespace().as_deref()) {
                    enqueue_object(&context.migration_queue, &*migration);
                }
            }
            Some(change) = seen.pods.next() => {
                let (ObjectChange::There(pod) | ObjectChange::Gone(pod)) = change;
                if let (Some(sync), Some(namespace)) = (pod.labels().get(SYNC_LABEL), pod.namespace()) {
                    let _ = context.sync_queue.unbounded_send(ObjectRef::new(sync).within(&namespace));
                }
            }
            _ = tick.tick(), if !dirty.is_empty() => {
                for (namespace, name) in dirty.drain() {
                    let _ = context.migration_queue.unbounded_send(ObjectRef::new(&name).within(&namespace));
                }
            }
            else => return,
        }
    }
}

/// Has phases counted whenever somebody looks at the metrics.
fn register_phase_metrics(context: &Arc<ControllerContext>) {
    let caches = Arc::downgrade(&context.caches);
    context.metrics.refresh_gauges_by(move |metrics| {
        let Some(caches) = caches.upgrade() else { return };
        let mut migrations = HashMap::new();
        for migration in caches.migrations.state() {
            let phase = migration.status.as_ref().and_then(|status| status.phase).unwrap_or(MigrationPhase::Pending);
            migrations.entry(phase as u8).or_insert((phase, 0)).1 += 1;
        }
        metrics.set_migrations(migrations.into_values());
        let syncs = caches.syncs.state();
        metrics.set_mailboxes(&mailbox::phase_metrics::tally_mailboxes(
            syncs.iter().map(|sync| &**sync),
            Timestamp::now(),
        ));
    });
}

/// Tells how many connections running syncs of a namespace hold to a server.
fn connection_counter(context: &Arc<ControllerContext>) -> ConnectionCounter {
    let context = Arc::clone(context);
    Box::new(move |namespace, spec| {
        let server = Shared::Server(namespace.to_owned(), slot_request::server_address(spec));
        context.admission().in_use(&server)
    })
}

fn handle_migration_change(context: &ControllerContext, change: ObjectChange<MailMigration>) {
    match change {
        ObjectChange::There(migration) => {
            // Its mailboxes ask it whether they may start.
            if context.memories.record_generation(&migration) {
                for sync in context.caches.syncs_of(&migration.namespace().unwrap_or_default(), &migration.name_any()) {
                    enqueue_object(&context.sync_queue, &*sync);
                }
            }
            enqueue_object(&context.migration_queue, &migration);
        }
        ObjectChange::Gone(migration) => context.forget_migration(&migration.uid().unwrap_or_default()),
    }
}

/// Gives the migration that has to be summed up.
fn handle_sync_change(context: &ControllerContext, change: ObjectChange<MailboxSync>) -> Option<NamespacedName> {
    match change {
        ObjectChange::There(sync) => {
            enqueue_object(&context.sync_queue, &sync);
            Some((sync.namespace()?, sync.spec.migration))
        }
        ObjectChange::Gone(sync) => {
            // Also when it vanished while nobody watched: it holds its slots no more.
            context.forget_mailbox(&sync.uid().unwrap_or_default());
            Some((sync.namespace()?, sync.spec.migration))
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
