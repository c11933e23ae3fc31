//! What every mailbox of a migration has in common, written once in a MailMigration and carried by each MailboxSync.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    cel_rules,
    common::{DeletionPolicy, FlagPolicy, FolderRules, MessageRules, Retry, Timeouts},
    scalar::Duration,
};

/// What every mailbox of a migration has in common; the fields of a MailMigration's spec.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SyncSettings {
    /// Which folders are synced, and what they are called at the destination.
    #[serde(default)]
    pub folders: FolderRules,
    /// Which messages are synced.
    #[serde(default)]
    pub messages: MessageRules,
    /// What happens to flags of messages that were copied before.
    #[serde(default)]
    pub flags: FlagPolicy,
    /// What happens to copies whose source message was deleted.
    #[serde(default)]
    pub deletions: DeletionPolicy,
    /// At most so many connections to each side.
    #[serde(default = "defaults::connections")]
    #[schemars(range(min = 1, max = 16))]
    pub connections: i32,
    /// How long one attempt may run.
    #[serde(default = "defaults::deadline")]
    pub deadline: Duration,
    /// Bounds on every wait for a server.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What happens after failures that may pass by themselves.
    #[serde(default)]
    pub retry: Retry,
    /// Change nothing at the destination.
    #[serde(default)]
    pub dry_run: bool,
    /// A sync that reports but moves nothing for so long is restarted.
    #[serde(default = "defaults::stall_after")]
    pub stall_after: Duration,
    /// How long a sync goes on while it can't reach the API server.
    #[serde(default = "defaults::offline_grace")]
    pub offline_grace: Duration,
    /// Delta syncs after the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Delta syncs until the source is quiet; `at` is always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// How long finished pods stay, for their logs.
    #[serde(default = "defaults::ttl")]
    pub ttl: Duration,
    /// So many failed pods stay for their logs, until ttl.
    #[serde(default = "defaults::failed_pods")]
    #[schemars(range(min = 0, max = 20))]
    pub failed_pods_limit: i32,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            folders: FolderRules::default(),
            messages: MessageRules::default(),
            flags: FlagPolicy::default(),
            deletions: DeletionPolicy::default(),
            connections: defaults::connections(),
            deadline: defaults::deadline(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            dry_run: false,
            stall_after: defaults::stall_after(),
            offline_grace: defaults::offline_grace(),
            schedule: None,
            cutover: None,
            ttl: defaults::ttl(),
            failed_pods_limit: defaults::failed_pods(),
        }
    }
}

/// Delta syncs after the first one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// From the end of a sync to the start of the next one.
    #[x_kube(validation = Rule::new(cel_rules::EVERY.cel).message(cel_rules::EVERY.message))]
    pub every: Duration,
    /// Each wait is shortened or lengthened at random by up to so many percent.
    #[serde(default = "defaults::jitter_percent")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: i32,
}

/// The moment mail starts to be delivered at the destination.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cutover {
    /// When delivery moves (the MX change). Left out: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// A mailbox is complete when its source's INBOX got nothing new for so long: DNS lives on in caches.
    #[serde(default = "defaults::drain_for")]
    #[x_kube(validation = Rule::new(cel_rules::DRAIN_FOR.cel).message(cel_rules::DRAIN_FOR.message))]
    pub drain_for: Duration,
    /// From the end of a delta sync to the start of the next one, from the cutover on.
    #[serde(default = "defaults::cutover_every")]
    #[x_kube(validation = Rule::new(cel_rules::CUTOVER_EVERY.cel).message(cel_rules::CUTOVER_EVERY.message))]
    pub every: Duration,
}

/// Defaults of plain fields.
pub(super) mod defaults {
    use crate::api::scalar::Duration;

    pub(crate) const fn parallelism() -> i32 {
        10
    }

    pub(crate) const fn connections() -> i32 {
        4
    }

    pub(crate) const fn deadline() -> Duration {
        Duration::from_secs(6 * 3600)
    }

    pub(crate) const fn ttl() -> Duration {
        Duration::from_secs(24 * 3600)
    }

    pub(crate) const fn failed_pods() -> i32 {
        3
    }

    pub(crate) const fn stall_after() -> Duration {
        Duration::from_secs(600)
    }

    pub(crate) const fn offline_grace() -> Duration {
        Duration::from_secs(600)
    }

    pub(crate) const fn jitter_percent() -> i32 {
        10
    }

    pub(crate) const fn drain_for() -> Duration {
        Duration::from_secs(48 * 3600)
    }

    pub(crate) const fn cutover_every() -> Duration {
        Duration::from_secs(600)
    }
}
