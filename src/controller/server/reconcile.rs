//! One MailServer: decide, write, and test in the background, few at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::channel::mpsc::UnboundedSender;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{events::Recorder, reflector::ObjectRef},
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    connection_check::check_server,
    decide::{ObservedServer, ServerCheck, ServerCheckTimes, decide, readiness_event},
};
use crate::{
    api::{MailServer, MailServerSpec, MailServerStatus},
    controller::{address_guard::AddressGuard, error::ReconcileError, events::publish_events, merge_patch},
    telemetry::metrics::Metrics,
};

/// Tests at one time, all namespaces together.
const AT_ONCE: usize = 32;
/// Tests at one time in one namespace: one with a thousand dead servers holds up nobody else.
const AT_ONCE_IN_NAMESPACE: usize = 4;
/// From an API server that does not answer to the next try of a test.
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// Tells how many connections running syncs hold to a server, for a namespace and a spec.
pub type ConnectionCounter = Box<dyn Fn(&str, &MailServerSpec) -> usize + Send + Sync>;

/// What the controller of MailServers needs and remembers.
pub struct ServerContext {
    client: Client,
    addresses: Arc<AddressGuard>,
    connections: ConnectionCounter,
    recorder: Recorder,
    metrics: Metrics,
    times: ServerCheckTimes,
    queue: UnboundedSender<ObjectRef<MailServer>>,
    started: Timestamp,
    at_once: Semaphore,
    namespaces: Mutex<HashMap<String, Weak<Semaphore>>>,
    memories: Mutex<HashMap<String, ServerMemory>>,
}

/// Where the controller of MailServers says what it found, beside their statuses.
pub struct ServerOutputs {
    /// Publishes Events.
    pub recorder: Recorder,
    /// Counts tests.
    pub metrics: Metrics,
}

/// What is remembered of one server. It only saves tests and writes: a new process finds it out again.
#[derive(Default)]
struct ServerMemory {
    /// The newest test.
    check: Option<ServerCheck>,
    /// The test under way.
    running: Option<RunningCheck>,
    /// The next test is not made before this: the API server did not answer.
    not_before: Option<Timestamp>,
    /// The newest write of the status.
    written: Option<WrittenStatus>,
}

/// A test under way. It ends when this is dropped.
struct RunningCheck {
    /// The generation of the spec that is tested.
    generation: i64,
    /// Ends the test when it is dropped.
    _task: JoinSet<()>,
}

/// A write of a MailServer's status.
#[derive(Clone, Copy)]
struct WrittenStatus {
    /// The resourceVersion that it gave.
    version: u64,
    at: Timestamp,
}

impl ServerContext {
    /// The context of a controller that has made no test yet. `addresses` says which servers may be connected to, `queue`
    /// takes servers to be reconciled again, `connections` counts at each reconciliation.
    #[must_use]
    pub fn new(
        client: Client,
        addresses: Arc<AddressGuard>,
        queue: UnboundedSender<ObjectRef<MailServer>>,
        connections: ConnectionCounter,
        outputs: ServerOutputs,
    ) -> Self {
        Self {
            client,
            addresses,
            connections,
            recorder: outputs.recorder,
            metrics: outputs.metrics,
            times: ServerCheckTimes::default(),
            queue,
            started: Timestamp::now(),
            at_once: Semaphore::new(AT_ONCE),
            namespaces: Mutex::default(),
            memories: Mutex::default(),
        }
    }

    /// With other times.
    #[must_use]
    pub fn with_times(self, times: ServerCheckTimes) -> Self {
        Self { times, ..self }
    }

    /// Forgets a server that is gone, by its UID; its test ends.
    pub(crate) fn forget(&self, uid: &str) {
        self.memories().remove(uid);
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<String, ServerMemory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespace_semaphore(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return turns;
        }
        namespaces.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(AT_ONCE_IN_NAMESPACE));
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&turns));
        turns
    }

    /// Tests a server, when it is its turn, and has it reconciled again.
    async fn run_check(self: Arc<Self>, server: Arc<MailServer>) {
        let (namespace, uid) = (server.namespace().unwrap_or_default(), server.uid().unwrap_or_default());
        let turns = self.namespace_semaphore(&namespace);
        let Ok(_turn) = turns.acquire().await else { return };
        let Ok(_permit) = self.at_once.acquire().await else { return };
        let found = check_server(&self.client, &self.addresses.policy(), &namespace, &server.spec).await;
        let now = Timestamp::now();
        let generation = server.metadata.generation.unwrap_or_default();
        let is_ours =
            |memory: &&mut ServerMemory| memory.running.as_ref().is_some_and(|check| check.generation == generation);
        if let Some(memory) = self.memories().get_mut(&uid).filter(is_ours) {
            match found {
                Ok(found) => {
                    self.metrics.server_checked(found.as_ref().err().map(|error| error.class));
                    let before = memory.check.as_ref().filter(|check| check.generation == generation);
                    let before = before.map_or(0, |check| check.failures);
                    let failures = if found.is_ok() { 0 } else { before.saturating_add(1) };
                    memory.check = Some(ServerCheck { generation, at: now, found, failures });
                    memory.not_before = None;
                }
                Err(error) => {
                    tracing::warn!(namespace, name = server.name_any(), %error, "the API server did not give the CA bundle");
                    memory.not_before = now.checked_add(RETRY_WAIT).ok();
                }
            }
            memory.running = None;
        }
        // Where nobody takes it any more, the process ends.
        let _ = self.queue.unbounded_send(ObjectRef::from_obj(&*server));
    }
}

/// Reconciles one MailServer: writes its status where that changes, and starts a test in the background where one is due;
/// gives after how long it has to be reconciled again, though nothing changes.
///
/// # Errors
/// When the API server refused, or did not answer: it is tried again.
pub async fn reconcile(
    server: Arc<MailServer>,
    servers: Arc<ServerContext>,
) -> Result<Option<Duration>, ReconcileError> {
    let (Some(namespace), Some(uid)) = (server.namespace(), server.uid()) else { return Ok(None) };
    if server.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let generation = server.metadata.generation.unwrap_or_default();
    let empty = MailServerStatus::default();
    let status = server.status.as_ref().unwrap_or(&empty);
    let connections = (servers.connections)(&namespace, &server.spec);
    let now = Timestamp::now();
    let (decision, wait) = {
        let mut memories = servers.memories();
        let memory = memories.entry(uid.clone()).or_default();
        let version = server.resource_version().and_then(|version| version.parse::<u64>().ok());
        if memory.written.zip(version).is_some_and(|(written, seen)| seen < written.version) {
            return Ok(None);
        }
        let decision = decide(
            &ObservedServer {
                uid: &uid,
                generation,
                status,
                written_at: memory.written.map(|written| written.at),
                check: memory.check.as_ref(),
                connections: i32::try_from(connections).unwrap_or(i32::MAX),
                started: servers.started,
                now,
            },
            &servers.times,
        );
        let held =
            memory.not_before.map(|then| then.duration_since(now)).and_then(|left| Duration::try_from(left).ok());
        let wait = decision.next_check_in.max(held.unwrap_or_default());
        let under_way = memory.running.as_ref().is_some_and(|check| check.generation == generation);
        if wait.is_zero() && !under_way {
            let mut task = JoinSet::new();
            task.spawn(Arc::clone(&servers).run_check(Arc::clone(&server)));
            // A test of an older spec ends with this.
            memory.running = Some(RunningCheck { generation, _task: task });
        }
        (decision, wait)
    };
    let written = write_status(&servers, &server, &decision.status).await?;
    let wrote = written.is_some();
    if let Some(written) = written
        && let Some(memory) = servers.memories().get_mut(&uid)
    {
        let version = written.resource_version().and_then(|version| version.parse().ok());
        memory.written = version.map(|version| WrittenStatus { version, at: now });
    }
    let events: Vec<_> =
        if wrote { readiness_event(status, &decision.status).into_iter().collect() } else { Vec::new() };
    publish_events(&servers.recorder, &*server, &events).await;
    // A test that is under way has the server reconciled again; connections are counted now and then.
    let next = if wait.is_zero() { servers.times.connections } else { wait.min(servers.times.connections) };
    Ok(Some(next))
}

/// Writes what changed of a status, if anything did.
async fn write_status(
    servers: &ServerContext,
    server: &MailServer,
    status: &MailServerStatus,
) -> Result<Option<MailServer>, ReconcileError> {
    let empty = MailServerStatus::default();
    let Some(patch) = merge_patch::diff(server.status.as_ref().unwrap_or(&empty), status)? else { return Ok(None) };
    let body = serde_json::json!({
        "metadata": {"resourceVersion": server.resource_version(), "uid": server.uid()},
        "status": patch,
    });
    let api: Api<MailServer> = Api::namespaced(servers.client.clone(), &server.namespace().unwrap_or_default());
    let written = api.patch_status(&server.name_any(), &PatchParams::default(), &Patch::Merge(&body)).await;
    written.map(Some).map_err(ReconcileError::of_versioned_write)
}
