//! The operator's process: watches, what is due, and the tasks that serve it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
    time::Instant,
};

use futures::{
    StreamExt as _,
    channel::mpsc::{self, UnboundedReceiver},
};
use jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt as _,
    runtime::{
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
    config::{OperatorConfig, SecretAccess, WorkerConfig},
    context::{ContextParts, ControllerContext},
    mailbox::{self, slot_request},
    migration,
    reconcile_loop::{DueObjects, run_loop},
    reconcile_queue::Urgency,
    request_limit::{REQUEST_LIMIT, RequestObservers, limit_requests},
    server::{self, ConnectionCounter, ServerContext, ServerOutputs},
    tokens::renewal::keep_tokens,
    watches::ObjectChange,
};
use crate::{
    api::{MailMigration, MailServer, MailboxSync, mail_migration::MigrationPhase},
    controller::{cache::NamespacedName, cached_objects::SyncPod, error::ReconcileError},
    error::{Error, Result},
    telemetry::{
        health::Readiness,
        liveness::Liveness,
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
    /// The namespace that the operator is installed in.
    pub own_namespace: String,
    /// The address of the API server's Service; none where the operator runs outside of the cluster.
    pub api_service: Option<IpAddr>,
    /// The name of this process (its pod), for Events.
    pub instance: Option<String>,
    /// The metrics to count in; none: they are counted, and nobody can read them.
    pub metrics: Option<Metrics>,
    /// Gets the part `caches`, true once everything was listed and decisions are made.
    pub readiness: Readiness,
    /// Learns of reconciliations and of answers of the API server.
    pub liveness: Liveness,
    /// How long an answer of the API server is waited for; none: 30 s.
    pub request_limit: Option<Duration>,
}

/// Runs the operator until `stop`: watches the cluster, restores the slots of running attempts, and reconciles. Writes that
/// are under way when it is stopped are finished.
///
/// # Errors
/// Configuration when the operator may not list the cluster's networks, Internal when one of its tasks ended by itself.
pub async fn run(client: Client, options: OperatorOptions, stop: CancellationToken) -> Result<()> {
    let metrics = options.metrics.map_or_else(Metrics::new, Ok)?;
    let observers = RequestObservers { metrics: metrics.clone(), liveness: options.liveness.clone() };
    let client = limit_requests(client, options.request_limit.unwrap_or(REQUEST_LIMIT), observers);
    let (caches, writers) = cache::new_caches();
    let caches = Arc::new(caches);
    let reporter = Reporter { controller: "mailferry-controller".to_owned(), instance: options.instance.clone() };
    let recorder = Recorder::new(client.clone(), reporter);
    options.readiness.set(CACHES_READY, false);
    metrics.set_reads_secrets(options.config.secrets == SecretAccess::Granted);
    if options.config.secrets == SecretAccess::LeftOut {
        tracing::warn!(
            "the operator was installed without the right to get Secrets: mailboxes whose login was refused wait for a \
             syncRequest, and no migration may have mailboxSecrets"
        );
    }
    for namespace in options.config.unwatched_rule_namespaces(&options.namespaces) {
        tracing::warn!(namespace, "masterUsers or grants name a namespace that is not watched: that has no effect");
    }
    let (config, policy) = (options.config.addresses.clone(), options.config.policy.clone());
    let addresses = Arc::new(AddressGuard::new(config, policy, options.api_service));
    let context = Arc::new(ControllerContext::new(ContextParts {
        client: client.clone(),
        config: options.config,
        own_namespace: options.own_namespace,
        worker: options.worker,
        addresses: Arc::clone(&addresses),
        caches: Arc::clone(&caches),
        recorder: recorder.clone(),
        metrics: metrics.clone(),
        liveness: options.liveness,
    }));
    let (server_queue, servers_checked) = mpsc::unbounded();
    let servers = Arc::new(ServerContext::new(
        client.clone(),
        Arc::clone(&addresses),
        server_queue,
        connection_counter(&context),
        ServerOutputs { recorder, metrics },
    ));
    let (changes, seen) = change_channels(servers_checked);
    let mut tasks = JoinSet::new();
    let namespaces = options.namespaces;
    let watched = Arc::clone(&caches);
    let asked = client.clone();
    tasks.spawn(async move {
        Box::pin(cache::watch_cluster(client, &namespaces, watched, writers, changes)).await;
    });
    tasks.spawn(route_changes(Arc::clone(&context), Arc::clone(&servers), seen));
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
    register_gauges(&context);
    tracing::info!(
        migrations = caches.migrations.len(),
        mailboxes = caches.syncs.len(),
        pods = caches.pods.len(),
        "the operator is ready"
    );
    tasks.spawn(addresses.refresh_periodically(asked));
    tasks.spawn(dispatch_slots(Arc::clone(&context)));
    tasks.spawn(keep_tokens(Arc::clone(&context)));
    let due = &context.due;
    let syncs = ControlledKind { store: caches.syncs.clone(), due: Arc::clone(&due.syncs), at_once: SYNCS_AT_ONCE };
    let syncs = run_controller(&context, syncs, stop.clone(), mailbox::reconcile::reconcile);
    let migrations = ControlledKind {
        store: caches.migrations.clone(),
        due: Arc::clone(&due.migrations),
        at_once: MIGRATIONS_AT_ONCE,
    };
    let migrations = run_controller(&context, migrations, stop.clone(), migration::reconcile::reconcile);
    let reconcile_server = move |server, _| server::reconcile(server, Arc::clone(&servers));
    let servers =
        ControlledKind { store: caches.servers.clone(), due: Arc::clone(&due.servers), at_once: SERVERS_AT_ONCE };
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

/// What the controller of one kind works on.
struct ControlledKind<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// All objects of the kind.
    store: Store<K>,
    /// Those that are due.
    due: Arc<DueObjects>,
    /// How many are reconciled at one time.
    at_once: u16,
}

/// Reconciles objects of one kind until `stop`, when they are due; one that failed is due again after a while.
async fn run_controller<K, F>(
    context: &Arc<ControllerContext>,
    kind: ControlledKind<K>,
    stop: CancellationToken,
    mut reconcile: impl FnMut(Arc<K>, Arc<ControllerContext>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Option<Duration>, ReconcileError>> + Send + 'static,
{
    let context = Arc::clone(context);
    let look = move |object: Arc<K>| {
        let (future, context) = (reconcile(Arc::clone(&object), Arc::clone(&context)), Arc::clone(&context));
        async move {
            let began = Instant::now();
            let result = context.reconciliations.follow(future).await;
            let how = match &result {
                Ok(_) => ReconcileResult::Ok,
                Err(failure) if is_conflict(failure) => ReconcileResult::Conflict,
                Err(_) => ReconcileResult::Error,
            };
            context.metrics.reconciled(&K::kind(&()), how, began.elapsed());
            match result {
                Ok(wait) => {
                    context.api_failures.forget(&object.uid().unwrap_or_default());
                    wait
                }
                Err(error) => Some(wait_after_failure(&context, &*object, &error)),
            }
        }
    };
    run_loop(kind.due, kind.store, kind.at_once, stop, look).await;
}

/// Says that an object could not be looked after, and how long to wait until it is tried again.
fn wait_after_failure<K>(context: &ControllerContext, object: &K, error: &ReconcileError) -> Duration
where
    K: Resource<DynamicType = ()>,
{
    let wait = context.api_failures.next_wait(&object.uid().unwrap_or_default());
    let (kind, name, namespace) = (K::kind(&()), object.name_any(), object.namespace());
    if is_conflict(error) {
        tracing::debug!(%kind, namespace, name, %error, "decided on an older version");
    } else {
        tracing::warn!(%kind, namespace, name, %error, wait_ms = wait.as_millis(), "the API server refused; trying again");
    }
    wait
}

/// True when somebody else wrote meanwhile, or holds the name: the newer version is on its way.
fn is_conflict(failure: &ReconcileError) -> bool {
    match failure {
        ReconcileError::Outdated(_) => true,
        ReconcileError::Api(kube::Error::Api(answer)) => answer.code == 409,
        _ => false,
    }
}

/// The changes of each kind that the watches bring.
struct ChangeReceivers {
    migrations: UnboundedReceiver<ObjectChange<MailMigration>>,
    syncs: UnboundedReceiver<ObjectChange<MailboxSync>>,
    servers: UnboundedReceiver<ObjectChange<MailServer>>,
    pods: UnboundedReceiver<ObjectChange<SyncPod>>,
    /// Servers whose connection test has ended.
    servers_checked: UnboundedReceiver<ObjectRef<MailServer>>,
}

fn change_channels(servers_checked: UnboundedReceiver<ObjectRef<MailServer>>) -> (ChangeSenders, ChangeReceivers) {
    let (migrations, migrations_seen) = mpsc::unbounded();
    let (syncs, syncs_seen) = mpsc::unbounded();
    let (servers, servers_seen) = mpsc::unbounded();
    let (pods, pods_seen) = mpsc::unbounded();
    let seen = ChangeReceivers {
        migrations: migrations_seen,
        syncs: syncs_seen,
        servers: servers_seen,
        pods: pods_seen,
        servers_checked,
    };
    (ChangeSenders { migrations, syncs, servers, pods }, seen)
}

/// Makes the objects due that a change concerns.
async fn route_changes(context: Arc<ControllerContext>, servers: Arc<ServerContext>, mut seen: ChangeReceivers) {
    let mut changed_migrations: HashSet<NamespacedName> = HashSet::new();
    let mut tick = tokio::time::interval(SUMMARY_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(change) = seen.migrations.next() => handle_migration_change(&context, change),
            Some(change) = seen.syncs.next() => {
                changed_migrations.extend(handle_sync_change(&context, change));
            }
            Some(change) = seen.servers.next() => handle_server_change(&context, &servers, change),
            Some(server) = seen.servers_checked.next() => {
                let name = NamespacedName::new(server.namespace.unwrap_or_default(), server.name);
                context.due.servers.add(&name, Urgency::Ordinary);
            }
            Some(change) = seen.pods.next() => {
                if let ObjectChange::Deleted(pod) = &change {
                    context.written.forget(&pod.uid().unwrap_or_default());
                }
                let urgency = pod_urgency(&change);
                let (ObjectChange::Applied(pod) | ObjectChange::Deleted(pod)) = change;
                if let (Some(sync), Some(namespace)) = (pod.sync_name(), pod.namespace()) {
                    context.due.syncs.add(&NamespacedName::new(namespace, sync), urgency);
                }
            }
            _ = tick.tick(), if !changed_migrations.is_empty() => {
                for migration in changed_migrations.drain() {
                    context.due.migrations.add(&migration, Urgency::Ordinary);
                }
            }
            else => return,
        }
    }
}

/// How urgent a mailbox is whose pod changed: an end frees slots that others wait for.
fn pod_urgency(change: &ObjectChange<SyncPod>) -> Urgency {
    match change {
        ObjectChange::Applied(pod) if !pod.has_terminated() && pod.deleting_since().is_none() => Urgency::Ordinary,
        _ => Urgency::Urgent,
    }
}

/// How urgent a mailbox is that changed: one that is deleted, or has to stop, frees slots that others wait for.
fn sync_urgency(sync: &MailboxSync) -> Urgency {
    let runs = sync.status.as_ref().is_some_and(|status| status.slots.is_some());
    let stops = runs && (sync.spec.suspend || sync.spec.cancel);
    if stops || sync.metadata.deletion_timestamp.is_some() { Urgency::Urgent } else { Urgency::Ordinary }
}

/// Has migrations and mailboxes counted by phase, and what is due, whenever the metrics are read.
fn register_gauges(context: &Arc<ControllerContext>) {
    let (caches, liveness) = (Arc::downgrade(&context.caches), context.reconciliations.clone());
    let due = context.due.clone();
    context.metrics.refresh_gauges_by(move |metrics| {
        metrics.set_longest_reconcile_wait(liveness.longest_wait());
        for (kind, due) in [
            (MailMigration::kind(&()), &due.migrations),
            (MailboxSync::kind(&()), &due.syncs),
            (MailServer::kind(&()), &due.servers),
        ] {
            let (count, age) = due.backlog();
            metrics.set_reconcile_backlog(&kind, count, age);
        }
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
                    context.due.syncs.add_object(&*sync, Urgency::Ordinary);
                }
            }
            context.due.migrations.add_object(&migration, Urgency::Ordinary);
        }
        ObjectChange::Deleted(migration) => {
            context.due.migrations.forget(&migration);
            context.forget_migration(&migration.uid().unwrap_or_default());
        }
    }
}

/// Has a mailbox reconciled, or forgets one that is gone; gives its migration, which has to be summed up.
fn handle_sync_change(context: &ControllerContext, change: ObjectChange<MailboxSync>) -> Option<NamespacedName> {
    if let ObjectChange::Applied(sync) = &change {
        if sync.spec.suspend || sync.spec.cancel || sync.metadata.deletion_timestamp.is_some() {
            // At once: before it is decided on, it stands in nobody's way.
            context.withdraw_request(&sync.uid().unwrap_or_default());
        }
        context.due.syncs.add_object(sync, sync_urgency(sync));
    }
    if let ObjectChange::Deleted(sync) = &change {
        // Also when it vanished while nobody watched: it holds its slots no more.
        context.due.syncs.forget(sync);
        context.forget_mailbox(&sync.uid().unwrap_or_default());
    }
    let (ObjectChange::Applied(sync) | ObjectChange::Deleted(sync)) = change;
    Some(NamespacedName { namespace: sync.namespace()?, name: sync.spec.migration })
}

fn handle_server_change(context: &ControllerContext, servers: &ServerContext, change: ObjectChange<MailServer>) {
    let matters = match &change {
        ObjectChange::Applied(server) => {
            context.due.servers.add_object(server, Urgency::Ordinary);
            context.migration_memories.record_server(server)
        }
        ObjectChange::Deleted(server) => {
            let uid = server.uid().unwrap_or_default();
            context.due.servers.forget(server);
            context.api_failures.forget(&uid);
            servers.forget(&uid);
            context.migration_memories.forget_server(&uid);
            true
        }
    };
    let (ObjectChange::Applied(server) | ObjectChange::Deleted(server)) = change;
    for migration in migrations_in(context, server.namespace().as_deref()).iter().filter(|_| matters) {
        context.due.migrations.add_object(&**migration, Urgency::Ordinary);
    }
}

fn migrations_in(context: &ControllerContext, namespace: Option<&str>) -> Vec<Arc<MailMigration>> {
    context.caches.migrations.state_filter(|migration| migration.metadata.namespace.as_deref() == namespace)
}

/// Hands out slots whenever some are free and somebody waits.
async fn dispatch_slots(context: Arc<ControllerContext>) {
    loop {
        match context.grant_slots(Instant::now()) {
            Some(wait) => drop(tokio::time::timeout(wait, context.slots_changed.notified()).await),
            None => context.slots_changed.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::{ContainerState, ContainerStateTerminated},
        apimachinery::pkg::apis::meta::v1::Time,
    };

    use super::*;
    use crate::{
        api::MailboxSyncStatus,
        controller::{cached_objects::ContainerFacts, testing},
    };

    #[test]
    fn what_frees_slots_is_looked_at_before_all_else() {
        let runs = SyncPod::default();
        let mut ended = runs.clone();
        let terminated = Some(ContainerStateTerminated::default());
        let state = Some(ContainerState { terminated, ..ContainerState::default() });
        ended.status.container_statuses = vec![ContainerFacts::of_sync(state)];
        let mut stopping = runs.clone();
        stopping.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        assert_eq!(pod_urgency(&ObjectChange::Applied(runs.clone())), Urgency::Ordinary);
        for change in [ObjectChange::Applied(ended), ObjectChange::Applied(stopping), ObjectChange::Deleted(runs)] {
            assert_eq!(pod_urgency(&change), Urgency::Urgent, "{change:?}");
        }

        let waits = MailboxSync::new("m", testing::mailbox_spec("x", "m"));
        let mut runs = waits.clone();
        runs.status = Some(MailboxSyncStatus { slots: Some(2), ..MailboxSyncStatus::default() });
        let mut suspended = waits.clone();
        suspended.spec.suspend = true;
        for sync in [&waits, &runs, &suspended] {
            assert_eq!(sync_urgency(sync), Urgency::Ordinary, "{sync:?}");
        }
        let (mut suspended, mut cancelled, mut deleted) = (runs.clone(), runs, waits);
        suspended.spec.suspend = true;
        cancelled.spec.cancel = true;
        deleted.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        for sync in [&suspended, &cancelled, &deleted] {
            assert_eq!(sync_urgency(sync), Urgency::Urgent, "{sync:?}");
        }
    }
}
