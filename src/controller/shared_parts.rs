//! Parts of MailboxSyncs that those of one migration have in common: each is held once, whatever the number of mailboxes.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use serde::Serialize;

use super::cached_objects::slim_sync;
use crate::api::{MailServerSpec, MailboxSync, MasterUser, SyncSettings, pod_overrides::PodOverrides, shared::Shared};

/// The parts that are held.
#[derive(Default)]
pub(crate) struct SharedParts {
    settings: PartPool<SyncSettings>,
    servers: PartPool<MailServerSpec>,
    master_users: PartPool<MasterUser>,
    overrides: PartPool<PodOverrides>,
}

impl SharedParts {
    /// Drops what no decision reads from a MailboxSync, and lets it share what it has in common with others.
    pub(crate) fn slim_sync(&self, sync: &mut MailboxSync) {
        slim_sync(sync);
        self.settings.share(&mut sync.spec.settings);
        if let Some(overrides) = &mut sync.spec.pod_overrides {
            self.overrides.share(overrides);
        }
        for side in [&mut sync.spec.source, &mut sync.spec.destination] {
            self.servers.share(&mut side.server);
            if let Some(user) = &mut side.master_user {
                self.master_users.share(user);
            }
        }
    }
}

/// Values of one type by a hash of their JSON; nobody's values leave it now and then.
struct PartPool<T> {
    hasher: RandomState,
    parts: Mutex<HashMap<u64, Vec<Weak<T>>>>,
}

impl<T> Default for PartPool<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: Mutex::default() }
    }
}

impl<T: PartialEq + Serialize> PartPool<T> {
    /// Lets `part` be the value that is held, where one is equal to it.
    fn share(&self, part: &mut Shared<T>) {
        // What can't be written as JSON is shared with nobody.
        let Ok(json) = serde_json::to_vec(&**part) else { return };
        let hash = self.hasher.hash_one(json);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.len() == parts.capacity() {
            parts.retain(|_, same| same.iter().any(|weak| weak.strong_count() > 0));
        }
        let same = parts.entry(hash).or_default();
        same.retain(|weak| weak.strong_count() > 0);
        let held = same.iter().filter_map(Weak::upgrade).find(|held| **held == **part);
        match held {
            Some(held) => *part = Shared::from(held),
            None => same.push(Arc::downgrade(part.as_arc())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;

    fn sync(name: &str) -> MailboxSync {
        MailboxSync::new(name, testing::mailbox_spec("m", name))
    }

    #[test]
    fn mailboxes_of_one_migration_hold_their_settings_and_servers_once() {
        let parts = SharedParts::default();
        let mut syncs: Vec<_> = (0..100).map(|n| sync(&format!("m{n}"))).collect();
        for sync in &mut syncs {
            parts.slim_sync(sync);
        }
        let first = &syncs[0].spec;
        assert_eq!(Arc::strong_count(first.settings.as_arc()), 100);
        let server = first.source.server.as_arc();
        assert!(syncs.iter().all(|sync| Arc::ptr_eq(sync.spec.source.server.as_arc(), server)));
        let mut other = sync("other");
        other.spec.settings.dry_run = true;
        parts.slim_sync(&mut other);
        assert!(other.spec.settings.dry_run && !syncs[0].spec.settings.dry_run);
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let pool = PartPool::<String>::default();
        for number in 0..10_000 {
            let mut part = Shared::from(number.to_string());
            pool.share(&mut part);
        }
        assert!(pool.parts.lock().unwrap().len() < 10);
    }
}
