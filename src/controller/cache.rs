//! What the operator sees of the cluster: one watch per kind, and who belongs to whom.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt as _, TryStreamExt as _, channel::mpsc::UnboundedSender};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;

use super::{
    names,
    objects::{SYNC_LABEL, SyncPod, slim_metadata, slim_pod, slim_sync},
};
use crate::api::{MailMigration, MailServer, MailboxSync};

/// An object's namespace and name.
pub type Place = (String, String);

/// Objects listed at a time: with a checkpoint at its bound each takes 64 KiB until it is slimmed.
const PAGE: u32 = 50;
/// The first wait before an API server that is away is asked again; doubles.
const SOON: Duration = Duration::from_millis(500);
/// The longest such wait: whoever waited for the API server should not wait for the operator after it.
const LATEST: Duration = Duration::from_secs(5);

/// What the operator sees of the cluster.
pub struct Caches {
    /// Migrations.
    pub migrations: Store<MailMigration>,
    /// Mailboxes, without their checkpoints.
    pub syncs: Store<MailboxSync>,
    /// Mail servers.
    pub servers: Store<MailServer>,
    /// Pods of syncs.
    pub pods: Store<SyncPod>,
    pods_of: Index,
    syncs_of: Index,
    syncs_into: Index,
}

/// What happened to an object, after the caches took it in.
#[derive(Debug)]
pub enum Change<K> {
    /// It is there, anew or otherwise than before.
    There(K),
    /// It is gone.
    Gone(K),
    /// All that there are were listed: what is not among them is gone.
    Listed,
}

/// Who belongs to whom. May name what is gone: look it up.
#[derive(Debug)]
struct Index(RwLock<HashMap<Place, BTreeSet<Place>>>);

impl Index {
    fn new() -> Self {
        Self(RwLock::new(HashMap::new()))
    }

    fn add(&self, owner: Place, member: Place) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.entry(owner).or_default().insert(member);
    }

    fn remove(&self, owner: &Place, member: &Place) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = map.get_mut(owner) {
            set.remove(member);
            if set.is_empty() {
                map.remove(owner);
            }
        }
    }

    fn of<K>(&self, owner: &Place, store: &Store<K>) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone,
    {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let members = map.get(owner).into_iter().flatten();
        members.filter_map(|(namespace, name)| store.get(&ObjectRef::new(name).within(namespace))).collect()
    }
}

/// Writers of the caches' stores.
pub struct Writers {
    migrations: Writer<MailMigration>,
    syncs: Writer<MailboxSync>,
    servers: Writer<MailServer>,
    pods: Writer<SyncPod>,
}

/// A place for each kind.
#[must_use]
pub fn caches() -> (Caches, Writers) {
    let writers = Writers {
        migrations: Writer::default(),
        syncs: Writer::default(),
        servers: Writer::default(),
        pods: Writer::default(),
    };
    let caches = Caches {
        migrations: writers.migrations.as_reader(),
        syncs: writers.syncs.as_reader(),
        servers: writers.servers.as_reader(),
        pods: writers.pods.as_reader(),
        pods_of: Index::new(),
        syncs_of: Index::new(),
        syncs_into: Index::new(),
    };
    (caches, writers)
}

impl Caches {
    /// The pods of a MailboxSync, by its label; whether they belong to it, their owner says.
    #[must_use]
    pub fn pods_of(&self, namespace: &str, sync: &str) -> Vec<Arc<SyncPod>> {
        self.pods_of.of(&(namespace.to_owned(), sync.to_owned()), &self.pods)
    }

    /// The mailboxes of a migration, by its name; whose they are, their owner says.
    #[must_use]
    pub fn syncs_of(&self, namespace: &str, migration: &str) -> Vec<Arc<MailboxSync>> {
        self.syncs_of.of(&(namespace.to_owned(), migration.to_owned()), &self.syncs)
    }

    /// The mailboxes of any migration that write to an account.
    #[must_use]
    pub fn syncs_into(&self, account: &str) -> Vec<Arc<MailboxSync>> {
        self.syncs_into.of(&(String::new(), account.to_owned()), &self.syncs)
    }

    /// The migration that a mailbox belongs to.
    #[must_use]
    pub fn migration_of(&self, sync: &MailboxSync) -> Option<Arc<MailMigration>> {
        let namespace = sync.namespace()?;
        let migration = self.migrations.get(&ObjectRef::new(&sync.spec.migration).within(&namespace))?;
        let owned = sync.owner_references().iter().any(|o| Some(&o.uid) == migration.metadata.uid.as_ref());
        owned.then_some(migration)
    }

    fn took_sync(&self, change: &Change<MailboxSync>) {
        let (sync, there) = match change {
            Change::There(sync) => (sync, true),
            Change::Gone(sync) => (sync, false),
            Change::Listed => return,
        };
        let Some(place) = place(sync) else { return };
        let migration = (place.0.clone(), sync.spec.migration.clone());
        let account = (String::new(), names::account(&sync.spec.destination));
        for (index, owner) in [(&self.syncs_of, migration), (&self.syncs_into, account)] {
            if there {
                index.add(owner, place.clone());
            } else {
                index.remove(&owner, &place);
            }
        }
    }

    fn took_pod(&self, change: &Change<SyncPod>) {
        let (Change::There(pod) | Change::Gone(pod)) = change else { return };
        let (Some(place), Some(sync)) = (place(pod), pod.labels().get(SYNC_LABEL)) else { return };
        let owner = (place.0.clone(), sync.clone());
        match change {
            Change::Gone(_) => self.pods_of.remove(&owner, &place),
            _ => self.pods_of.add(owner, place),
        }
    }
}

/// An object's namespace and name.
#[must_use]
pub fn place(object: &impl Resource) -> Option<Place> {
    Some((object.meta().namespace.clone()?, object.meta().name.clone()?))
}

/// Changes of each kind, after the caches took them in.
pub struct Changes {
    /// Of migrations.
    pub migrations: UnboundedSender<Change<MailMigration>>,
    /// Of mailboxes.
    pub syncs: UnboundedSender<Change<MailboxSync>>,
    /// Of mail servers.
    pub servers: UnboundedSender<Change<MailServer>>,
    /// Of pods.
    pub pods: UnboundedSender<Change<SyncPod>>,
}

/// Watches, for as long as it is polled; `namespace`: only this one. An API server that is away is asked again, with
/// backoff.
pub async fn watch(client: Client, namespace: Option<&str>, caches: Arc<Caches>, writers: Writers, to: Changes) {
    let all = watcher::Config::default().page_size(PAGE).any_semantic();
    let ours = watcher::Config::default().page_size(PAGE * 10).labels(SYNC_LABEL);
    let (syncs, pods) = (Arc::clone(&caches), caches);
    futures::join!(
        kind(
            api(&client, namespace),
            all.clone(),
            |m: &mut MailMigration| slim_metadata(&mut m.metadata),
            writers.migrations,
            |_| {},
            to.migrations
        ),
        kind(api(&client, namespace), all.clone(), slim_sync, writers.syncs, move |c| syncs.took_sync(c), to.syncs),
        kind(
            api(&client, namespace),
            all,
            |s: &mut MailServer| slim_metadata(&mut s.metadata),
            writers.servers,
            |_| {},
            to.servers
        ),
        kind(api(&client, namespace), ours, slim_pod, writers.pods, move |c| pods.took_pod(c), to.pods),
    );
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn kind<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    slim: fn(&mut K),
    writer: Writer<K>,
    took: impl Fn(&Change<K>),
    to: UnboundedSender<Change<K>>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone,
{
    let again =
        ExponentialBuilder::default().with_min_delay(SOON).with_max_delay(LATEST).with_jitter().without_max_times();
    let again = watcher::ExponentialBackoff::from(again);
    let events = readable(watcher::watcher(api, config).backoff(again), slim);
    let events = events.reflect(writer);
    futures::pin_mut!(events);
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => Change::There(object),
            Ok(Event::Delete(object)) => Change::Gone(object),
            Ok(Event::InitDone) => Change::Listed,
            Ok(Event::Init) => continue,
            Err(error) => {
                tracing::warn!(kind = &*K::kind(&()), %error, "a watch was interrupted; it goes on");
                continue;
            }
        };
        took(&change);
        if to.unbounded_send(change).is_err() {
            return;
        }
    }
}

/// Leaves out what can't be read, and says so: one malformed object never stops the watch.
fn readable<K>(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>>,
    slim: fn(&mut K),
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()>,
{
    let read = move |guard: DeserializeGuard<K>| match guard.0 {
        Ok(mut object) => {
            slim(&mut object);
            Some(object)
        }
        Err(invalid) => {
            let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
            tracing::warn!(
                kind = &*K::kind(&()),
                namespace,
                name,
                error = invalid.error,
                "an object can't be read; it is left alone"
            );
            None
        }
    };
    events.try_filter_map(move |event| {
        let event = match event {
            Event::Apply(guard) => read(guard).map(Event::Apply),
            Event::Delete(guard) => read(guard).map(Event::Delete),
            Event::InitApply(guard) => read(guard).map(Event::InitApply),
            Event::Init => Some(Event::Init),
            Event::InitDone => Some(Event::InitDone),
        };
        futures::future::ready(Ok(event))
    })
}
