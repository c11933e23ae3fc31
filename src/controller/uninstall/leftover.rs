//! What can't be let go of yet, and why. Pure.

use std::fmt;

use jiff::SignedDuration;
use kube::ResourceExt as _;

use crate::{
    api::MailboxSync,
    controller::{
        cached_objects::{SYNC_FINALIZER, SyncPod},
        mailbox::{
            effects::OUT_OF_SERVICE,
            observe::{WorkerLiveness, silence_limit},
        },
    },
};

/// The kinds of objects that are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A MailMigration.
    MailMigration,
    /// A MailboxSync.
    MailboxSync,
    /// A sync's pod.
    Pod,
}

/// An object: its kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// The name of an object that was read.
    #[must_use]
    pub(super) fn of(kind: ObjectKind, object: &impl kube::Resource) -> Self {
        let (namespace, name) = (object.meta().namespace.clone(), object.meta().name.clone());
        Self { kind, namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Something that was left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub object: ObjectName,
    /// Why, as a clause.
    pub why: String,
}

impl Leftover {
    pub(super) const fn new(object: ObjectName, why: String) -> Self {
        Self { object, why }
    }
}

/// Why a pod may still write: its end is not certain.
#[must_use]
pub(super) fn pod_words(pod: &SyncPod, silent_in: Option<SignedDuration>) -> String {
    let node = pod.spec.node_name.as_deref().unwrap_or_default();
    if pod.deleting_since().is_none() {
        return format!("it was told to stop, and node {node} has not said that it ended");
    }
    let silence = match silent_in {
        Some(left) => format!("it says nothing for {} s more", left.as_secs().max(1)),
        // Nobody knows how long it goes on by itself.
        None => "its node says so".to_owned(),
    };
    format!(
        "node {node} has not said that it ended: it counts as ended once {silence}, or the node has the taint {OUT_OF_SERVICE}"
    )
}

/// After how much more silence an attempt counts as ended.
#[must_use]
pub(super) fn silence_left(
    sync: &MailboxSync,
    liveness: &WorkerLiveness,
    since_boot: SignedDuration,
) -> SignedDuration {
    silence_limit(&sync.spec) - (since_boot - liveness.reported_at)
}

/// Why an attempt is not over whose pod is not there.
#[must_use]
pub(super) fn lost_words(left: SignedDuration) -> String {
    format!(
        "its pod is gone and may still run: it counts as ended once it says nothing for {} s more",
        left.as_secs().max(1)
    )
}

/// True when only an operator lets go of a MailboxSync that is being deleted.
#[must_use]
pub(super) fn is_held(sync: &MailboxSync) -> bool {
    sync.finalizers().iter().any(|finalizer| finalizer == SYNC_FINALIZER)
}
