//! What the operator sees of the cluster, and who belongs to whom.

use std::{
    collections::HashMap,
    hash::Hash,
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
    cached_objects::{SYNC_LABEL, SyncPod, slim_metadata, slim_pod},
    shared_parts::SharedParts,
    watches::{ObjectChange, WatchHooks, WatchSpec, scopes},
};
use crate::api::{MailMigration, MailServer, MailboxSync, mailbox_sync::MAX_CHECKPOINT_BYTES, names};

/// An object's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl NamespacedName {
    /// The name of an object in a namespace.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The same as kube's queues and stores take it.
    #[must_use]
    pub(crate) fn to_object_ref<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

/// Objects listed by one request. Until they are slimmed, one takes [`LARGEST_OBJECT`] at most.
const PAGE: u32 = 20;

/// A MailboxSync whose checkpoint, names of folders and bundles of certificates are at their bounds, bytes.
const LARGEST_OBJECT: usize = MAX_CHECKPOINT_BYTES + (512 << 10);

/// A page must not take more, bytes: it is in the operator's memory beside all else.
const LARGEST_PAGE: usize = 16 << 20;

const _: () = assert!(PAGE as usize * LARGEST_OBJECT <= LARGEST_PAGE);

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
    /// What mailboxes have in common.
    pub shared_parts: SharedParts,
    pods_of: OwnerIndex<NamespacedName>,
    syncs_of: OwnerIndex<NamespacedName>,
    /// By the destination account's hash.
    syncs_into: OwnerIndex<Box<str>>,
    /// How many lists are still to come, one for each kind and namespace; none before the watches have begun.
    lists_left: watch::Sender<Option<usize>>,
}

/// The names of objects by what they belong to. It may name an object that is gone: its store says.
#[derive(Debug)]
struct OwnerIndex<O>(RwLock<HashMap<O, Vec<Arc<NamespacedName>>>>);

impl<O: Eq + Hash> OwnerIndex<O> {
    fn new() -> Self {
        Self(RwLock::new(HashMap::new()))
    }

    fn add(&self, owner: O, member: &Arc<NamespacedName>) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Most owners have one member.
        let members = map.entry(owner).or_insert_with(|| Vec::with_capacity(1));
        if let Err(place) = members.binary_search(member) {
            members.insert(place, Arc::clone(member));
        }
    }

    fn remove(&self, owner: &O, member: &NamespacedName) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(members) = map.get_mut(owner) {
            if let Ok(place) = members.binary_search_by(|there| (**there).cmp(member)) {
                members.remove(place);
            }
            if members.is_empty() {
                map.remove(owner);
            }
        }
    }

    fn members<K>(&self, owner: &O, store: &Store<K>) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone,
    {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let members = map.get(owner).into_iter().flatten();
        members.filter_map(|member| store.get(&member.to_object_ref())).collect()
    }
}

/// Writers of the caches' stores.
pub(crate) struct CacheWriters {
    migrations: Writer<MailMigration>,
    syncs: Writer<MailboxSync>,
    servers: Writer<MailServer>,
    pods: Writer<SyncPod>,
}

#[cfg(test)]
impl CacheWriters {
    /// A mailbox is there, as this, or is gone.
    pub(crate) fn set_sync(&mut self, sync: &MailboxSync, there: bool) {
        let sync = sync.clone();
        self.syncs.apply_watcher_event(&if there { watcher::Event::Apply(sync) } else { watcher::Event::Delete(sync) });
    }

    /// A migration is there, as this.
    pub(crate) fn set_migration(&mut self, migration: &MailMigration) {
        self.migrations.apply_watcher_event(&watcher::Event::Apply(migration.clone()));
    }
}

/// Empty caches, and what fills them.
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
        shared_parts: SharedParts::default(),
        lists_left: watch::Sender::default(),
    };
    (caches, writers)
}

impl ClusterCaches {
    /// The pods of a MailboxSync, by its label; whether they belong to it, their owner says.
    #[must_use]
    pub(crate) fn pods_of(&self, namespace: &str, sync: &str) -> Vec<Arc<SyncPod>> {
        self.pods_of.members(&NamespacedName::new(namespace, sync), &self.pods)
    }

    /// The mailboxes of a migration, by its name; whose they are, their owner says.
    #[must_use]
    pub(crate) fn syncs_of(&self, namespace: &str, migration: &str) -> Vec<Arc<MailboxSync>> {
        self.syncs_of.members(&NamespacedName::new(namespace, migration), &self.syncs)
    }

    /// How many MailboxSyncs there are in a namespace.
    #[must_use]
    pub(crate) fn count_syncs(&self, namespace: &str) -> usize {
        let map = self.syncs_of.0.read().unwrap_or_else(PoisonError::into_inner);
        map.iter().filter(|(migration, _)| migration.namespace == namespace).map(|(_, syncs)| syncs.len()).sum()
    }

    /// The mailboxes of any migration that write to an account.
    #[must_use]
    pub(crate) fn syncs_into(&self, account: &str) -> Vec<Arc<MailboxSync>> {
        self.syncs_into.members(&Box::from(account), &self.syncs)
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
        let _ = self.lists_left.subscribe().wait_for(|left| *left == Some(0)).await;
    }

    fn index_sync(&self, change: &ObjectChange<MailboxSync>) {
        let (ObjectChange::Applied(sync) | ObjectChange::Deleted(sync)) = change;
        let Some(name) = namespaced_name(sync) else { return };
        let migration = NamespacedName::new(&name.namespace, &sync.spec.migration);
        let account = names::account_hash(&sync.spec.destination).into_boxed_str();
        match change {
            ObjectChange::Applied(_) => {
                let name = Arc::new(name);
                self.syncs_of.add(migration, &name);
                self.syncs_into.add(account, &name);
            }
            ObjectChange::Deleted(_) => {
                self.syncs_of.remove(&migration, &name);
                self.syncs_into.remove(&account, &name);
            }
        }
    }

    fn index_pod(&self, change: &ObjectChange<SyncPod>) {
        let (ObjectChange::Applied(pod) | ObjectChange::Deleted(pod)) = change;
        let (Some(name), Some(sync)) = (namespaced_name(pod), pod.sync_name()) else { return };
        let owner = NamespacedName::new(&name.namespace, sync);
        match change {
            ObjectChange::Deleted(_) => self.pods_of.remove(&owner, &name),
            ObjectChange::Applied(_) => self.pods_of.add(owner, &Arc::new(name)),
        }
    }
}

/// An object's namespace and name.
#[must_use]
pub(crate) fn namespaced_name(object: &impl Resource) -> Option<NamespacedName> {
    Some(NamespacedName { namespace: object.meta().namespace.clone()?, name: object.meta().name.clone()? })
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
    changes: ChangeSenders,
) {
    const KINDS: usize = 4;
    let scopes = scopes(namespaces);
    caches.lists_left.send_replace(Some(KINDS * scopes.len()));
    let all = watcher::Config::default().page_size(PAGE).any_semantic();
    let ours = watcher::Config::default().page_size(PAGE * 25).labels(SYNC_LABEL);
    let listed = || caches.lists_left.send_modify(|left| *left = left.map(|left| left.saturating_sub(1)));
    let migrations = WatchSpec {
        config: all.clone(),
        slim: Box::new(|m: &mut MailMigration| slim_metadata(&mut m.metadata)),
        writer: writers.migrations,
        changes: changes.migrations,
    };
    let shared = Arc::clone(&caches);
    let syncs = WatchSpec {
        config: all.clone(),
        slim: Box::new(move |sync| shared.shared_parts.slim_sync(sync)),
        writer: writers.syncs,
        changes: changes.syncs,
    };
    let servers = WatchSpec {
        config: all,
        slim: Box::new(|s: &mut MailServer| slim_metadata(&mut s.metadata)),
        writer: writers.servers,
        changes: changes.servers,
    };
    let pods = WatchSpec { config: ours, slim: Box::new(slim_pod), writer: writers.pods, changes: changes.pods };
    let index_sync = |change: &ObjectChange<MailboxSync>| caches.index_sync(change);
    let index_pod = |change: &ObjectChange<SyncPod>| caches.index_pod(change);
    futures::join!(
        migrations.watch(&client, &scopes, WatchHooks { listed: &listed, changed: &|_| {} }),
        syncs.watch(&client, &scopes, WatchHooks { listed: &listed, changed: &index_sync }),
        servers.watch(&client, &scopes, WatchHooks { listed: &listed, changed: &|_| {} }),
        pods.watch(&client, &scopes, WatchHooks { listed: &listed, changed: &index_pod }),
    );
}
