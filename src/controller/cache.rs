//! What the operator sees of the cluster, and who belongs to whom.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use futures::channel::mpsc::UnboundedSender;
use kube::{
    Client, Resource, ResourceExt as _,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use tokio::sync::watch;

use super::{
    cached_objects::{SYNC_LABEL, SyncPod, slim_metadata, slim_pod, slim_sync},
    watches::{ObjectChange, WatchHooks, WatchSpec, scopes},
};
use crate::api::{MailMigration, MailServer, MailboxSync, names};

/// An object's namespace and name.
pub(crate) type NamespacedName = (String, String);

/// Objects listed at a time: with a checkpoint at its bound each takes 64 KiB until it is slimmed.
const PAGE: u32 = 50;

/// What the operator sees of the cluster.
pub(crate) struct ClusterCaches {
    /// Migrations.
    pub migrations: Store<MailMigration>,
    /// Mailboxes, without their checkpoints.
    pub syncs: Store<MailboxSync>,
    /// Mail servers.
    pub servers: Store<MailServer>,
    /// Pods of syncs.
    pub pods: Store<SyncPod>,
    pods_of: OwnerIndex,
    syncs_of: OwnerIndex,
    syncs_into: OwnerIndex,
    /// Lists that are still to come; nothing before the watches have begun.
    unlisted: watch::Sender<Option<usize>>,
}

/// Who belongs to whom. May name what is gone: look it up.
#[derive(Debug)]
struct OwnerIndex(RwLock<HashMap<NamespacedName, BTreeSet<NamespacedName>>>);

impl OwnerIndex {
    fn new() -> Self {
        Self(RwLock::new(HashMap::new()))
    }

    fn add(&self, owner: NamespacedName, member: NamespacedName) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.entry(owner).or_default().insert(member);
    }

    fn remove(&self, owner: &NamespacedName, member: &NamespacedName) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = map.get_mut(owner) {
            set.remove(member);
            if set.is_empty() {
                map.remove(owner);
            }
        }
    }

    fn members<K>(&self, owner: &NamespacedName, store: &Store<K>) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone,
    {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let members = map.get(owner).into_iter().flatten();
        members.filter_map(|(namespace, name)| store.get(&ObjectRef::new(name).within(namespace))).collect()
    }
}

/// Writers of the caches' stores.
pub(crate) struct CacheWriters {
    migrations: Writer<MailMigration>,
    syncs: Writer<MailboxSync>,
    servers: Writer<MailServer>,
    pods: Writer<SyncPod>,
}

/// A place for each kind.
#[must_use]
pub(crate) fn new_caches() -> (ClusterCaches, CacheWriters) {
    let writers = CacheWriters {
        migrations: Writer::default(),
        syncs: Writer::default(),
        servers: Writer::default(),
        pods: Writer::default(),
    };
    let caches = ClusterCaches {
        migrations: writers.migrations.as_reader(),
        syncs: writers.syncs.as_reader(),
        servers: writers.servers.as_reader(),
        pods: writers.pods.as_reader(),
        pods_of: OwnerIndex::new(),
        syncs_of: OwnerIndex::new(),
        syncs_into: OwnerIndex::new(),
        unlisted: watch::Sender::default(),
    };
    (caches, writers)
}

impl ClusterCaches {
    /// The pods of a MailboxSync, by its label; whether they belong to it, their owner says.
    #[must_use]
    pub(crate) fn pods_of(&self, namespace: &str, sync: &str) -> Vec<Arc<SyncPod>> {
        self.pods_of.members(&(namespace.to_owned(), sync.to_owned()), &self.pods)
    }

    /// The mailboxes of a migration, by its name; whose they are, their owner says.
    #[must_use]
    pub(crate) fn syncs_of(&self, namespace: &str, migration: &str) -> Vec<Arc<MailboxSync>> {
        self.syncs_of.members(&(namespace.to_owned(), migration.to_owned()), &self.syncs)
    }

    /// The mailboxes of any migration that write to an account.
    #[must_use]
    pub(crate) fn syncs_into(&self, account: &str) -> Vec<Arc<MailboxSync>> {
        self.syncs_into.members(&(String::new(), account.to_owned()), &self.syncs)
    }

    /// The migration that a mailbox belongs to.
    #[must_use]
    pub(crate) fn migration_of(&self, sync: &MailboxSync) -> Option<Arc<MailMigration>> {
        let namespace = sync.namespace()?;
        let migration = self.migrations.get(&ObjectRef::new(&sync.spec.migration).within(&namespace))?;
        let owned = sync.owner_references().iter().any(|o| Some(&o.uid) == migration.metadata.uid.as_ref());
        owned.then_some(migration)
    }

    /// Waits until each kind was listed once in each namespace: before, what is not there may only not be seen yet.
    pub(crate) async fn wait_until_listed(&self) {
        // The sender is this very object.
        let _ = self.unlisted.subscribe().wait_for(|left| *left == Some(0)).await;
    }

    fn index_sync(&self, change: &ObjectChange<MailboxSync>) {
        let (sync, there) = match change {
            ObjectChange::There(sync) => (sync, true),
            ObjectChange::Gone(sync) => (sync, false),
        };
        let Some(place) = namespaced_name(sync) else { return };
        let migration = (place.0.clone(), sync.spec.migration.clone());
        let account = (String::new(), names::account_hash(&sync.spec.destination));
        for (index, owner) in [(&self.syncs_of, migration), (&self.syncs_into, account)] {
            if there {
                index.add(owner, place.clone());
            } else {
                index.remove(&owner, &place);
            }
        }
    }

    fn index_pod(&self, change: &ObjectChange<SyncPod>) {
        let (ObjectChange::There(pod) | ObjectChange::Gone(pod)) = change;
        let (Some(place), Some(sync)) = (namespaced_name(pod), pod.labels().get(SYNC_LABEL)) else { return };
        let owner = (place.0.clone(), sync.clone());
        match change {
            ObjectChange::Gone(_) => self.pods_of.remove(&owner, &place),
            ObjectChange::There(_) => self.pods_of.add(owner, place),
        }
    }
}

/// An object's namespace and name.
#[must_use]
pub(crate) fn namespaced_name(object: &impl Resource) -> Option<NamespacedName> {
    Some((object.meta().namespace.clone()?, object.meta().name.clone()?))
}

/// Changes of each kind, after the caches took them in.
pub(crate) struct ChangeSenders {
    /// Of migrations.
    pub migrations: UnboundedSender<ObjectChange<MailMigration>>,
    /// Of mailboxes.
    pub syncs: UnboundedSender<ObjectChange<MailboxSync>>,
    /// Of mail servers.
    pub servers: UnboundedSender<ObjectChange<MailServer>>,
    /// Of pods.
    pub pods: UnboundedSender<ObjectChange<SyncPod>>,
}

/// Watches, for as long as it is polled; `namespaces`: only these, where there are any. An API server that is away is asked
/// again, with backoff.
pub(crate) async fn watch_cluster(
    client: Client,
    namespaces: &[String],
    caches: Arc<ClusterCaches>,
    writers: CacheWriters,
    to: ChangeSenders,
) {
    const KINDS: usize = 4;
    let scopes = scopes(namespaces);
    caches.unlisted.send_replace(Some(KINDS * scopes.len()));
    let all = watcher::Config::default().page_size(PAGE).any_semantic();
    let ours = watcher::Config::default().page_size(PAGE * 10).labels(SYNC_LABEL);
    let listed = || caches.unlisted.send_modify(|left| *left = left.map(|left| left.saturating_sub(1)));
    let migrations = WatchSpec {
        config: all.clone(),
        slim: |m: &mut MailMigration| slim_metadata(&mut m.metadata),
        writer: writers.migrations,
        to: to.migrations,
    };
    let syncs = WatchSpec { config: all.clone(), slim: slim_sync, writer: writers.syncs, to: to.syncs };
    let servers = WatchSpec {
        config: all,
        slim: |s: &mut MailServer| slim_metadata(&mut s.metadata),
        writer: writers.servers,
        to: to.servers,
    };
    let pods = WatchSpec { config: ours, slim: slim_pod, writer: writers.pods, to: to.pods };
    let took_sync = |change: &ObjectChange<MailboxSync>| caches.index_sync(change);
    let took_pod = |change: &ObjectChange<SyncPod>| caches.index_pod(change);
    futures::join!(
        migrations.watch(&client, &scopes, WatchHooks { listed: &listed, took: &|_| {} }),
        syncs.watch(&client, &scopes, WatchHooks { listed: &listed, took: &took_sync }),
        servers.watch(&client, &scopes, WatchHooks { listed: &listed, took: &|_| {} }),
        pods.watch(&client, &scopes, WatchHooks { listed: &listed, took: &took_pod }),
    );
}
