//! Remembers what the operator wrote, so that an older version that the watch still brings is not decided on.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kube::Resource;

/// The resourceVersions of the last writes, by the object's UID, until the watch has caught up.
#[derive(Debug, Default)]
pub(crate) struct WrittenVersions(Mutex<HashMap<String, u64>>);

impl WrittenVersions {
    fn versions(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a write.
    pub(crate) fn record(&self, object: &impl Resource) {
        if let (Some(uid), Some(version)) = (object.meta().uid.clone(), version_number(object)) {
            self.versions().insert(uid, version);
        }
    }

    /// True when this version is older than what was written last.
    pub(crate) fn is_stale(&self, object: &impl Resource) -> bool {
        let Some(uid) = object.meta().uid.as_ref() else { return false };
        let mut versions = self.versions();
        let stale =
            version_number(object).zip(versions.get(uid).copied()).is_some_and(|(seen, written)| seen < written);
        if !stale {
            // The watch has caught up; it never goes back.
            versions.remove(uid);
        }
        stale
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.versions().remove(uid);
    }
}

/// The UIDs of objects about which a request was not answered: it may have been a write that was made. Until they are read
/// again, the version that the watch brought last may be older than that.
#[derive(Debug, Default)]
pub(crate) struct UnansweredObjects(Mutex<HashSet<String>>);

impl UnansweredObjects {
    fn uids(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request about this object was not answered.
    pub(crate) fn record(&self, uid: &str) {
        self.uids().insert(uid.to_owned());
    }

    /// True until it was read again.
    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.uids().contains(uid)
    }

    /// It was read again, or is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.uids().remove(uid);
    }
}

/// A resourceVersion as a number: the API server counts them up.
fn version_number(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}
