//! `mailferry uninstall`: lets go of all that only an operator lets go of, so that nothing waits for one that is gone.
//!
//! Every MailMigration is suspended. While an operator leads, it does the rest, and is waited for. Where none does, what becomes
//! of each mailbox is decided by the operator's own decision ([`super::mailbox::decide`]), and done by the same effects.

mod lead;
pub mod leftover;
mod mailbox;

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::sleep;

use self::{
    lead::LeadView,
    leftover::{Leftover, ObjectKind, ObjectName, pod_words},
};
use super::{
    cached_objects::{SYNC_LABEL, SyncPod, slim_pod, slim_sync},
    mailbox::{
        effects,
        observe::{FLUSH_SECONDS, WorkerLiveness, pod_end},
    },
    owner_reference,
    watches::scopes,
};
use crate::{
    api::{MailMigration, MailboxSync},
    error::{Error, ErrorClass, Result},
};

/// MailMigrations that one request asks for: each may list a thousand mailboxes.
const MIGRATIONS_PAGE: u32 = 20;
/// MailboxSyncs and pods that one request asks for: almost all of them have a few KiB, and what is not needed of them is let go
/// of page by page.
const PAGE: u32 = 500;
/// Between two rounds of looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is to be let go of, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UninstallOptions {
    /// In these namespaces only; empty: in all.
    pub namespaces: Vec<String>,
    /// The namespace and the name of the Lease by which an operator leads.
    pub lease: (String, String),
    /// Delete all MailMigrations, and wait until their MailboxSyncs are gone.
    pub delete_migrations: bool,
    /// Change nothing: tell what would be done at once.
    pub dry_run: bool,
    /// How long what has not ended is waited for.
    pub timeout: Duration,
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UninstallStep {
    /// A MailMigration is suspended.
    Suspend,
    /// A MailMigration is deleted.
    Delete,
    /// A pod is told to stop at a checkpoint.
    Stop,
    /// What a mailbox's attempt came to is written into its status.
    Settle,
    /// The finalizer is taken off.
    Release,
}

/// Hears of each step once.
pub type StepListener<'l> = &'l mut (dyn FnMut(UninstallStep, &ObjectName) + Send);

/// Suspends every MailMigration, waits until each sync pod has certainly ended, and takes the finalizers off pods that ended and
/// off MailboxSyncs that are being deleted; gives what it had to leave. It may be run again at any time.
///
/// # Errors
/// When the API server refuses to list, or can't be reached: what was done stays.
pub async fn uninstall(
    client: Client,
    options: &UninstallOptions,
    listener: StepListener<'_>,
) -> Result<Vec<Leftover>> {
    let mut run = UninstallRun {
        client,
        options,
        listener,
        told: HashSet::new(),
        liveness: HashMap::new(),
        lead: LeadView::default(),
    };
    let until = Instant::now() + options.timeout;
    loop {
        let left = Box::pin(run.round()).await?;
        if left.is_empty() || options.dry_run || Instant::now() >= until {
            return Ok(left);
        }
        sleep(INTERVAL.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// What the rounds of one run share.
struct UninstallRun<'o, 'l> {
    client: Client,
    options: &'o UninstallOptions,
    listener: StepListener<'l>,
    told: HashSet<(UninstallStep, ObjectName)>,
    /// When attempts were heard of, by MailboxSync's UID.
    liveness: HashMap<String, WorkerLiveness>,
    lead: LeadView,
}

impl UninstallRun<'_, '_> {
    fn tell(&mut self, step: UninstallStep, object: &ObjectName) {
        if self.told.insert((step, object.clone())) {
            (self.listener)(step, object);
        }
    }

    /// Looks at everything once, and does what can be done; gives what is left.
    async fn round(&mut self) -> Result<Vec<Leftover>> {
        let mut left = self.stop_migrations().await?;
        let leader = if self.options.dry_run { None } else { self.leader().await? };
        // Pods first: a status that is read later tells of each attempt whose pod was seen.
        let pods: Vec<SyncPod> = self.list(ListParams::default().labels(SYNC_LABEL).limit(PAGE), slim_pod).await?;
        let mut pods_of: HashMap<(String, String), Vec<Arc<SyncPod>>> = HashMap::new();
        for pod in pods {
            let owner = (pod.namespace().unwrap_or_default(), pod.sync_name().unwrap_or_default().to_owned());
            pods_of.entry(owner).or_default().push(Arc::new(pod));
        }
        let syncs: Vec<MailboxSync> = self.list(ListParams::default().limit(PAGE), slim_sync).await?;
        for sync in syncs {
            let owner = (sync.namespace().unwrap_or_default(), sync.name_any());
            let uid = sync.uid().unwrap_or_default();
            let labelled = pods_of.remove(&owner).unwrap_or_default();
            let (own, others): (Vec<_>, Vec<_>) =
                labelled.into_iter().partition(|pod| owner_reference::is_controlled_by(&**pod, &uid));
            if !others.is_empty() {
                pods_of.insert(owner, others);
            }
            left.extend(Box::pin(self.look_at_mailbox(sync, &own, leader.as_deref())).await);
        }
        for pod in pods_of.into_values().flatten() {
            left.extend(self.look_at_stray_pod(&pod).await);
        }
        Ok(left)
    }

    /// Suspends the MailMigrations that are not, and deletes them where that is asked for; gives those that are refused.
    async fn stop_migrations(&mut self) -> Result<Vec<Leftover>> {
        let migrations: Vec<MailMigration> = self.list(ListParams::default().limit(MIGRATIONS_PAGE), |_| {}).await?;
        let mut left = Vec::new();
        for migration in migrations.into_iter().filter(|migration| migration.metadata.deletion_timestamp.is_none()) {
            let object = ObjectName::of(ObjectKind::MailMigration, &migration);
            let done = self.stop_migration(&migration, &object).await;
            if let Err(error) = done {
                left.push(Leftover::new(object, format!("it can't be suspended or deleted: {}", words_of(&error))));
            }
        }
        Ok(left)
    }

    async fn stop_migration(&mut self, migration: &MailMigration, object: &ObjectName) -> Result<(), kube::Error> {
        let api: Api<MailMigration> = Api::namespaced(self.client.clone(), &object.namespace);
        let dry_run = self.options.dry_run;
        if !migration.spec.suspend {
            if !dry_run {
                let patch = Patch::Merge(json!({"metadata": {"uid": migration.uid()}, "spec": {"suspend": true}}));
                api.patch(&object.name, &PatchParams::default(), &patch).await?;
            }
            self.tell(UninstallStep::Suspend, object);
        }
        if self.options.delete_migrations {
            if !dry_run {
                let parameters = DeleteParams {
                    preconditions: Some(Preconditions { uid: migration.uid(), resource_version: None }),
                    ..DeleteParams::default()
                };
                api.delete(&object.name, &parameters).await?;
            }
            self.tell(UninstallStep::Delete, object);
        }
        Ok(())
    }

    /// Who leads.
    async fn leader(&mut self) -> Result<Option<String>> {
        let (namespace, name) = &self.options.lease;
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let lease = leases.get_opt(name).await;
        let lease = lease.map_err(|error| refused(&format!("get the Lease {namespace}/{name}"), &error))?;
        Ok(self.lead.leader_after(lease.and_then(|lease| lease.spec), Instant::now()))
    }

    /// All objects of a kind, each made slim as it comes; none where the cluster does not know the kind (any more).
    async fn list<K>(&self, parameters: ListParams, slim: fn(&mut K)) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let mut all = Vec::new();
        for scope in scopes(&self.options.namespaces) {
            let api: Api<K> = match &scope {
                Some(namespace) => Api::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            let mut page = parameters.clone();
            loop {
                let list = match api.list(&page).await {
                    Err(kube::Error::Api(answer)) if answer.code == 404 => break,
                    list => list.map_err(|error| refused(&format!("list {}", K::plural(&())), &error))?,
                };
                all.extend(list.items.into_iter().map(|mut object| {
                    slim(&mut object);
                    object
                }));
                match list.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(all)
    }

    /// Lets go of a pod whose MailboxSync is gone, where it has ended; nobody else would. How long it goes on by itself is not
    /// known, so its silence proves nothing.
    async fn look_at_stray_pod(&mut self, pod: &SyncPod) -> Option<Leftover> {
        if !pod.has_finalizer() {
            return None;
        }
        let object = ObjectName::of(ObjectKind::Pod, pod);
        match self.release_stray_pod(pod, &object).await {
            Ok(true) => None,
            Ok(false) => Some(Leftover::new(object, format!("its MailboxSync is gone, and {}", pod_words(pod, None)))),
            Err(error) => Some(Leftover::new(object, words_of(&error))),
        }
    }

    /// True when it was let go of.
    async fn release_stray_pod(&mut self, pod: &SyncPod, object: &ObjectName) -> Result<bool, kube::Error> {
        let uid = pod.uid().unwrap_or_default();
        let deleting = pod.deleting_since().is_some();
        let out_of_service = match pod.spec.node_name.as_deref().filter(|_| deleting && !pod.has_terminated()) {
            Some(node) => self.is_node_out_of_service(node).await?,
            None => false,
        };
        let ended = pod_end(pod, out_of_service, false).is_some();
        if ended {
            self.release_pod(object, &uid).await?;
        } else if !deleting {
            self.stop_pod(object, &uid).await?;
        }
        Ok(ended)
    }

    async fn stop_pod(&mut self, object: &ObjectName, uid: &str) -> Result<(), kube::Error> {
        if !self.options.dry_run {
            effects::delete_pod(&self.client, &object.namespace, &object.name, uid, FLUSH_SECONDS).await?;
        }
        self.tell(UninstallStep::Stop, object);
        Ok(())
    }

    async fn release_pod(&mut self, object: &ObjectName, uid: &str) -> Result<(), kube::Error> {
        if !self.options.dry_run {
            effects::release_pod(&self.client, &object.namespace, &object.name, uid).await?;
        }
        self.tell(UninstallStep::Release, object);
        Ok(())
    }

    /// True when somebody who knows said so. Where nodes may not be read, nobody is known to have.
    async fn is_node_out_of_service(&self, node: &str) -> Result<bool, kube::Error> {
        match effects::is_node_out_of_service(&self.client, node).await {
            Err(kube::Error::Api(answer)) if answer.code == 403 => Ok(false),
            found => found,
        }
    }
}

/// What the API server said, without the client's words around it.
fn words_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => format!("the API server says: {}", answer.message),
        error => format!("the API server can't be reached: {error}"),
    }
}

fn refused(what: &str, error: &kube::Error) -> Error {
    let kube::Error::Api(answer) = error else {
        return Error::network(words_of(error)).advice("Run the same again: it goes on where it was");
    };
    let said = format!("the API server does not let you {what}: {}", answer.message);
    match answer.code {
        401 => Error::new(ErrorClass::Authentication, said).advice("Check the kubeconfig's credentials"),
        403 => Error::new(ErrorClass::Authorization, said)
            .advice("Run it as an administrator of the cluster, or of the namespaces that are given by --namespace"),
        _ => Error::network(said).advice("Run the same again: it goes on where it was"),
    }
}
