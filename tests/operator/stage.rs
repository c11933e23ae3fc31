//! The operator at work in a namespace of its own; the test plays scheduler, kubelet and worker.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture};
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    client::Body,
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt as _, watcher},
};
use mailferry::{
    api::{MailMigration, MailboxSync, MailboxSyncStatus, names},
    controller::{
        config::{OperatorConfig, WorkerConfig},
        operator::{OperatorOptions, run},
    },
    telemetry::{health::Readiness, metrics::Metrics},
};
use mailferry_testkit::{cluster, eventually::PATIENCE};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, service_fn};

use crate::rig::Rig;

/// What a request comes to.
pub type Answer = BoxFuture<'static, Result<Response<axum::body::Body>, BoxError>>;

/// Sends a request by a client.
pub fn send(client: Client, request: Request<Body>) -> Answer {
    Box::pin(async move { Ok(client.send(request).await?.map(axum::body::Body::new)) })
}

/// A namespace with an operator.
pub struct Stage {
    pub rig: Rig,
    /// What its operators count, together.
    pub metrics: Metrics,
    /// How long operators that start from now on wait for an answer; none: as long as they do without a test.
    pub request_limit: Option<Duration>,
    operators: Vec<Operator>,
    config: OperatorConfig,
}

/// An operator that runs.
struct Operator {
    stop: CancellationToken,
    task: JoinHandle<mailferry::Result<()>>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How an attempt ends that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is at the destination.
    Synced,
    /// With an error of this class.
    Failed(&'static str),
    /// It runs until it is told to stop, and says so.
    Runs,
}

impl Stage {
    /// An operator with its default configuration.
    pub async fn new() -> Self {
        Self::with(OperatorConfig::default()).await
    }

    /// An operator with this configuration.
    pub async fn with(config: OperatorConfig) -> Self {
        let mut stage = Self { config, ..Self::idle().await };
        stage.start().await;
        stage
    }

    /// No operator yet.
    pub async fn idle() -> Self {
        Self::at(Rig::new().await)
    }

    /// The same in this namespace.
    pub fn at(rig: Rig) -> Self {
        let config = OperatorConfig::default();
        Self { rig, metrics: Metrics::new().unwrap(), request_limit: None, operators: Vec::new(), config }
    }

    /// Operators that start from now on have this configuration.
    pub fn configure(&mut self, config: OperatorConfig) {
        self.config = config;
    }

    /// Starts an operator, or one more.
    pub async fn start(&mut self) {
        let client = self.rig.operator().await;
        self.start_with(client);
    }

    /// Starts an operator that talks to the API server by this client.
    pub fn start_with(&mut self, client: Client) {
        self.start_watching(client, vec![self.rig.namespace.clone()]);
    }

    /// Starts an operator whose requests go through this: it may [`send`] them, or not.
    pub async fn start_through(&mut self, meet: impl Fn(Client, Request<Body>) -> Answer + Send + 'static) {
        let client = Client::try_from(self.rig.operator_config().await).unwrap();
        let namespace = client.default_namespace().to_owned();
        self.start_with(Client::new(service_fn(move |request| meet(client.clone(), request)), namespace));
    }

    /// Starts an operator that watches these namespaces.
    pub fn start_watching(&mut self, client: Client, namespaces: Vec<String>) -> Readiness {
        let readiness = Readiness::default();
        let worker = WorkerConfig { image: "example/mailferry".into(), ..WorkerConfig::default() };
        let options = OperatorOptions {
            config: self.config.clone(),
            worker,
            namespaces,
            own_namespace: "mailferry-system".into(),
            metrics: Some(self.metrics.clone()),
            readiness: readiness.clone(),
            request_limit: self.request_limit,
            ..OperatorOptions::default()
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(client, options, stop.clone()));
        self.operators.push(Operator { stop, task });
        readiness
    }

    /// Waits until the operator that was started last ends by itself.
    pub async fn ended(&mut self) -> mailferry::Result<()> {
        let mut operator = self.operators.pop().unwrap();
        (&mut operator.task).await.unwrap()
    }

    /// Ends all operators, as SIGTERM does.
    pub async fn stop(&mut self) {
        for mut operator in self.operators.drain(..) {
            operator.stop.cancel();
            (&mut operator.task).await.unwrap().unwrap();
        }
    }

    /// Ends all operators in the middle of what they do, as SIGKILL does.
    pub async fn kill(&mut self) {
        for mut operator in self.operators.drain(..) {
            operator.task.abort();
            let _ = (&mut operator.task).await;
        }
    }

    /// Objects of one kind.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.rig.api()
    }

    /// Applies a migration of these mailboxes, with the Secret that they need; `more` is merged into its spec.
    pub async fn migration(&self, name: &str, mailboxes: &[&str], more: Value) {
        self.secret("mail", &[("key", "secret")]).await;
        let reference = json!({"name": "mail", "key": "key"});
        let entry = |mailbox: &&str| json!({"name": mailbox, "source": {"passwordSecretRef": reference}, "destination": {"passwordSecretRef": reference}});
        let mut object = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": name},
            "spec": {
                "source": {"server": {"host": "old.example"}}, "destination": {"server": {"host": "new.example"}},
                "mailboxes": mailboxes.iter().map(entry).collect::<Vec<_>>(),
            },
        });
        merge(&mut object["spec"], more);
        self.rig.apply(&object.to_string()).await;
    }

    /// Applies a Secret.
    pub async fn secret(&self, name: &str, values: &[(&str, &str)]) {
        let values: serde_json::Map<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values});
        self.rig.apply(&secret.to_string()).await;
    }

    /// Changes a migration's spec.
    pub async fn change(&self, migration: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.api::<MailMigration>().patch(migration, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The name of a mailbox's MailboxSync.
    pub fn sync(migration: &str, mailbox: &str) -> String {
        names::mailbox_sync(migration, mailbox)
    }

    /// Waits until an object is as described.
    pub async fn until<K>(&self, name: &str, is: impl Fn(&K) -> bool + Send) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        cluster::wait_for(&self.api::<K>(), name, |object: Option<&K>| object.is_some_and(&is)).await.unwrap()
    }

    /// Waits until a mailbox is in this phase.
    pub async fn until_phase(&self, sync: &str, phase: &str) -> MailboxSyncStatus {
        let is =
            |sync: &MailboxSync| sync.status.as_ref().and_then(|s| s.phase).is_some_and(|p| format!("{p:?}") == phase);
        self.until(sync, is).await.status.unwrap()
    }

    /// Waits until a migration's condition has this status.
    pub async fn until_condition(&self, migration: &str, type_: &str, status: &str) -> MailMigration {
        let is = |migration: &MailMigration| condition(migration, type_).is_some_and(|c| c.0 == status);
        self.until(migration, is).await
    }

    /// Waits until a migration has so many mailboxes.
    pub async fn until_total(&self, migration: &str, total: i32) {
        let is = |m: &MailMigration| m.status.as_ref().and_then(|s| s.mailboxes).is_some_and(|c| c.total == total);
        self.until(migration, is).await;
    }

    /// Waits until one of these mailboxes runs.
    pub async fn one_of(&self, syncs: &[&str]) -> String {
        let pods = watcher(self.api::<Pod>(), watcher::Config::default()).applied_objects();
        let mut pods = std::pin::pin!(pods);
        let one = async {
            loop {
                let pod = pods.next().await.unwrap().unwrap();
                let sync = pod.labels().get("mailferry.io/mailboxsync").cloned().unwrap_or_default();
                if syncs.contains(&sync.as_str()) {
                    return sync;
                }
            }
        };
        timeout(PATIENCE, one).await.unwrap_or_else(|_| panic!("none of {syncs:?} runs"))
    }

    /// Waits until an Event with this reason tells about an object.
    pub async fn until_event(&self, name: &str, reason: &str) {
        let events = watcher(self.api::<Event>(), watcher::Config::default()).applied_objects();
        let mut events = std::pin::pin!(events);
        let is = |event: &Event| {
            event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason)
        };
        let told = async { while !is(&events.next().await.unwrap().unwrap()) {} };
        timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("no Event {reason} about {name}"));
    }

    /// Waits until an object is gone.
    pub async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        cluster::wait_for(&self.api::<K>(), name, |object: Option<&K>| object.is_none()).await;
    }

    /// Waits until a mailbox's pod is there, as the status names it, and runs it: the worker has claimed its attempt.
    pub async fn running(&self, sync: &str, attempt: i64) -> Pod {
        let name = names::pod(sync, attempt);
        let pod: Pod = self.until(&name, |_| true).await;
        self.rig.pod_scheduled(&name, &self.rig.namespace).await;
        self.rig.pod_running(&name).await;
        let uid = pod.uid();
        self.until::<MailboxSync>(sync, |sync| sync.status.as_ref().is_some_and(|s| s.pod_uid == uid)).await;
        self.report(
            sync,
            attempt,
            1,
            json!({"phase": "Connecting", "outcome": null, "lastError": null, "progress": null}),
        )
        .await;
        pod
    }

    /// Reports as a worker.
    pub async fn report(&self, sync: &str, attempt: i64, report: i64, more: Value) {
        let mut worker = json!({"attempt": attempt, "report": report});
        merge(&mut worker, more);
        self.rig.patch_status(sync, json!({"worker": worker})).await.unwrap();
    }

    /// The worker of this attempt copied something, reports its end, and its pod ends.
    pub async fn ends(&self, sync: &str, attempt: i64, ending: Ending) {
        let progress = json!({"messagesTotal": 10, "messagesDone": 10, "messagesThisAttempt": 10, "bytesTotal": 1000, "bytesDone": 1000, "bytesMoved": 2000});
        let (code, last) = match ending {
            Ending::Synced => (
                0,
                json!({"phase": "Done", "outcome": "Synced", "destinationLogin": true, "inboxUidNext": 11, "progress": progress}),
            ),
            Ending::Runs => (0, json!({"phase": "Done", "outcome": "Stopped", "progress": progress})),
            Ending::Failed(class) => (
                1,
                json!({"phase": "Failed", "outcome": "Failed", "lastError": {"class": class, "message": "it went wrong"}}),
            ),
        };
        self.report(sync, attempt, 9, last).await;
        self.rig.pod_ended(&names::pod(sync, attempt), code, "").await;
    }

    /// Waits until a pod is asked to stop, and lets it do so at a checkpoint.
    pub async fn stops(&self, sync: &str, attempt: i64) {
        let name = names::pod(sync, attempt);
        self.until::<Pod>(&name, |pod| pod.metadata.deletion_timestamp.is_some()).await;
        self.ends(sync, attempt, Ending::Runs).await;
    }

    /// Plays every pod that is made here to this end, at once.
    pub fn play(&self, ending: impl Fn(&str, i64) -> Ending + Send + Sync + 'static) -> Player {
        let (rig, ending) = (
            Rig { plane: self.rig.plane, client: self.rig.client.clone(), namespace: self.rig.namespace.clone() },
            Arc::new(ending),
        );
        let metrics = self.metrics.clone();
        let stage = Arc::new(Self { metrics, ..Self::at(rig) });
        Player(tokio::spawn(async move {
            let pods = watcher(stage.api::<Pod>(), watcher::Config::default()).applied_objects();
            let mut pods = std::pin::pin!(pods);
            let mut seen = std::collections::HashSet::new();
            while let Some(pod) = pods.next().await {
                let Ok(pod) = pod else { continue };
                let Some(sync) = pod.labels().get("mailferry.io/mailboxsync").cloned() else { continue };
                let attempt = names::attempt_from_pod(&sync, &pod.name_any()).unwrap();
                if !seen.insert(pod.uid()) {
                    continue;
                }
                let (stage, ending) = (Arc::clone(&stage), ending(&sync, attempt));
                tokio::spawn(async move {
                    stage.running(&sync, attempt).await;
                    match ending {
                        Ending::Runs => stage.stops(&sync, attempt).await,
                        ending => stage.ends(&sync, attempt, ending).await,
                    }
                });
            }
        }))
    }

    /// The reasons of the Events about an object.
    pub async fn reasons(&self, name: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let about = events.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        about.filter_map(|event| event.reason).collect()
    }

    /// All MailboxSyncs.
    pub async fn syncs(&self) -> Vec<MailboxSync> {
        self.api::<MailboxSync>().list(&ListParams::default()).await.unwrap().items
    }

    /// All pods.
    pub async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default()).await.unwrap().items
    }
}

/// Plays pods until it is dropped.
pub struct Player(JoinHandle<()>);

impl Drop for Player {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A condition's status, reason and message.
pub fn condition(migration: &MailMigration, type_: &str) -> Option<(String, String, String)> {
    let conditions = &migration.status.as_ref()?.conditions;
    let found = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

fn merge(target: &mut Value, more: Value) {
    let (Value::Object(target), Value::Object(more)) = (target, more) else { return };
    for (key, value) in more {
        if value.is_null() && matches!(key.as_str(), "server" | "masterUser") {
            target.remove(&key);
            continue;
        }
        match target.get_mut(&key) {
            Some(there) if there.is_object() && value.is_object() => merge(there, value),
            _ => drop(target.insert(key, value)),
        }
    }
}
