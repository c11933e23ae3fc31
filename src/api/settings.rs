//! What every mailbox of a migration has in common, written once in a MailMigration and carried by each MailboxSync.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    cel_rules,
    common::{DeletionPolicy, FlagPolicy, FolderRules, MessageRules, Retry, Timeouts},
    scalar::Duration,
};

/// The pattern of the token that stands for deletions that are held.
pub(crate) const DELETION_TOKEN_PATTERN: &str = "^[0-9a-f]{16}$";

/// The settings that every mailbox of a migration has in common: fields of the MailMigration's spec, where they are
/// described.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SyncSettings {
    /// Which folders are synced, and what they are called at the destination.
    #[serde(default)]
    pub folders: FolderRules,
    /// Which messages are synced.
    #[serde(default)]
    pub messages: MessageRules,
    /// Whether flags that change at the source after a message was copied change at the destination too.
    #[serde(default)]
    pub flags: FlagPolicy,
    /// Whether messages that are deleted at the source are deleted at the destination too.
    #[serde(default)]
    pub deletions: DeletionPolicy,
    /// Tokens of deletions that were held and are confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 64), regex(pattern = DELETION_TOKEN_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub confirm_deletions: Vec<String>,
    /// The most connections to each side; lowered by the MailServers' maxConnectionsPerMailbox.
    #[serde(default = "defaults::connections")]
    #[schemars(range(min = 1, max = 16))]
    pub connections: i32,
    /// The longest time that one attempt may run.
    #[serde(default = "defaults::deadline")]
    pub deadline: Duration,
    /// Bounds on every wait for a server.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What happens after failures that may pass by themselves.
    #[serde(default)]
    pub retry: Retry,
    /// True: nothing is changed at the destination.
    #[serde(default)]
    pub dry_run: bool,
    /// How long a sync may report without moving a byte, and without waiting on purpose, before another attempt takes
    /// over.
    #[serde(default = "defaults::stall_after")]
    pub stall_after: Duration,
    /// How long a sync goes on while it can't reach the API server.
    #[serde(default = "defaults::offline_grace")]
    pub offline_grace: Duration,
    /// When delta syncs follow the first sync. Left out: none follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// When delivery moves; `at` is always there. Left out: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// How long pods of ended attempts stay at most, for their logs.
    #[serde(default = "defaults::finished_pods_ttl", rename = "finishedPodsTTL")]
    pub finished_pods_ttl: Duration,
    /// The most pods of attempts that ended well that stay; the oldest go first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 20))]
    pub succeeded_pods_limit: i32,
    /// The most pods of failed attempts that stay; the oldest go first.
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
            confirm_deletions: Vec::new(),
            connections: defaults::connections(),
            deadline: defaults::deadline(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            dry_run: false,
            stall_after: defaults::stall_after(),
            offline_grace: defaults::offline_grace(),
            schedule: None,
            cutover: None,
            finished_pods_ttl: defaults::finished_pods_ttl(),
            succeeded_pods_limit: 0,
            failed_pods_limit: defaults::failed_pods(),
        }
    }
}

/// When delta syncs follow the first sync of a mailbox.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// The time from the end of a sync to the start of the next one.
    #[x_kube(validation = Rule::new(cel_rules::EVERY.cel).message(cel_rules::EVERY.message))]
    pub every: Duration,
    /// By how many percent each wait is shortened or lengthened at random, so that not all mailboxes are synced at
    /// once.
    #[serde(default = "defaults::jitter_percent")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: i32,
}

/// The move of mail delivery to the destination. Delta syncs follow until the source is quiet.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cutover {
    /// When delivery moves (the MX change). Left out: now, that is when the operator first sees the cutover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// How long the source's INBOX must have got no new message after the cutover before a mailbox is complete: senders
    /// may have the old MX record cached.
    #[serde(default = "defaults::drain_for")]
    #[x_kube(validation = Rule::new(cel_rules::DRAIN_FOR.cel).message(cel_rules::DRAIN_FOR.message))]
    pub drain_for: Duration,
    /// The time from the end of a delta sync to the start of the next one, from the cutover on.
    #[serde(default = "defaults::cutover_every")]
    #[x_kube(validation = Rule::new(cel_rules::CUTOVER_EVERY.cel).message(cel_rules::CUTOVER_EVERY.message))]
    pub every: Duration,
    /// The longest such wait. After three delta syncs in a row that found nothing, it doubles with each up to this; new
    /// mail brings it back to every. Where it is less than every, every holds.
    #[serde(default = "defaults::cutover_max_every")]
    #[x_kube(validation = Rule::new(cel_rules::CUTOVER_MAX_EVERY.cel).message(cel_rules::CUTOVER_MAX_EVERY.message))]
    pub max_every: Duration,
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

    pub(crate) const fn finished_pods_ttl() -> Duration {
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

    pub(crate) const fn cutover_max_every() -> Duration {
        Duration::from_secs(2 * 3600)
    }
}
