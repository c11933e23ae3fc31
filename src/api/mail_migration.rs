//! `MailMigration`: what a person writes.
#![allow(clippy::duplicated_attributes)] // printer columns repeat `type_ = "string"`

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cel_rules,
    common::{
        Account, DeletionPolicy, FlagPolicy, FolderRules, LastError, LocalRef, MasterUser, MessageRules, Retry,
        SecretKeyRef, Timeouts,
    },
    mail_server::MailServerSpec,
    not_copied::NotCopied,
    pod_overrides::PodOverrides,
    scalar::Duration,
    settings::{Cutover, Schedule, SyncSettings, defaults},
};

/// Mailboxes that are moved from one IMAP server to another.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mailferry.io",
    version = "v1alpha1",
    kind = "MailMigration",
    namespaced,
    status = "MailMigrationStatus",
    derive = "PartialEq",
    doc = "Mailboxes that are moved from one IMAP server to another.",
    shortname = "mm",
    category = "mailferry",
    validation = Rule::new(cel_rules::ENDPOINTS_IMMUTABLE.cel).message(cel_rules::ENDPOINTS_IMMUTABLE.message),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Mailboxes", type_ = "integer", json_path = ".status.mailboxes.total"),
    printcolumn(name = "Synced", type_ = "integer", json_path = ".status.mailboxes.synced"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.eta"),
    printcolumn(name = "NotCopied", type_ = "integer", json_path = ".status.totals.notCopied.messages"),
    printcolumn(name = "Failing", type_ = "integer", json_path = ".status.mailboxes.failing", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::SOME_MAILBOX.cel).message(cel_rules::SOME_MAILBOX.message))]
#[x_kube(validation = Rule::new(cel_rules::SOURCE_CREDENTIAL.cel).message(cel_rules::SOURCE_CREDENTIAL.message))]
#[x_kube(validation = Rule::new(cel_rules::DESTINATION_CREDENTIAL.cel).message(cel_rules::DESTINATION_CREDENTIAL.message))]
pub struct MailMigrationSpec {
    /// Where mail is read.
    pub source: EndpointSpec,
    /// Where mail is written. Its accounts must exist: Mailferry makes none.
    pub destination: EndpointSpec,
    /// The mailboxes, by name. For more than 1000, use mailboxSecrets or several migrations.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub mailboxes: Vec<MailboxEntry>,
    /// More mailboxes, as CSV in Secrets (at most 1 MiB each). The first line names the columns: `name`, and any of
    /// `source_username`, `source_password`, `source_token`, `destination_username`, `destination_password`,
    /// `destination_token`.
    #[serde(default)]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "key".into()]))]
    pub mailbox_secrets: Vec<SecretKeyRef>,
    /// Which folders are synced, and what they are called at the destination.
    #[serde(default)]
    pub folders: FolderRules,
    /// Which messages are synced.
    #[serde(default)]
    pub messages: MessageRules,
    /// SourceWins: flags that change at the source after a message was copied change at the destination too. Ignore:
    /// flags are set when a message is copied and never touched again.
    #[serde(default)]
    pub flags: FlagPolicy,
    /// Keep: what is deleted at the source stays at the destination. Mirror: it is deleted there too, but only messages
    /// that Mailferry put there itself, and not when an implausible share of a folder vanished.
    #[serde(default)]
    pub deletions: DeletionPolicy,
    /// So many mailboxes are synced at the same time.
    #[serde(default = "defaults::parallelism")]
    #[schemars(range(min = 1, max = 10_000))]
    pub parallelism: i32,
    /// At most so many connections to each side for one mailbox. A sync starts with one and grows while both servers
    /// allow it.
    #[serde(default = "defaults::connections")]
    #[schemars(range(min = 1, max = 16))]
    pub connections: i32,
    /// How long one attempt may run. Then it is stopped at a checkpoint, and a new attempt goes on from there.
    #[serde(default = "defaults::deadline")]
    #[x_kube(validation = Rule::new(cel_rules::DEADLINE.cel).message(cel_rules::DEADLINE.message))]
    pub deadline: Duration,
    /// Bounds on every wait for a server.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What happens after failures that may pass by themselves.
    #[serde(default)]
    pub retry: Retry,
    /// Delta syncs after the first one. Left out: one sync, then the migration is complete, unless there is a cutover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Mail is, or soon will be, delivered at the destination: go on with delta syncs until the source is quiet, then
    /// complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// Stop at a checkpoint and start nothing until this is false again.
    #[serde(default)]
    pub suspend: bool,
    /// Change nothing at the destination; report what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Any text. Another text than before asks for one more sync of every mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// Start nothing before this time, for example `2026-03-01T22:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// Names of mailboxes that are stopped for good; what was copied stays. Taken off the list, they go on.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub cancel: Vec<String>,
    /// Many mailboxes left the list at once: they are only removed from the migration (never their mail) when this is
    /// the token that `status.pendingRemoval` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub confirm_removal: Option<String>,
    /// Changes to the pods that syncs run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
    /// How long finished pods stay, for their logs.
    #[serde(default = "defaults::ttl")]
    #[x_kube(validation = Rule::new(cel_rules::TTL.cel).message(cel_rules::TTL.message))]
    pub ttl: Duration,
    /// So many failed pods of each mailbox stay for their logs, until ttl.
    #[serde(default = "defaults::failed_pods")]
    #[schemars(range(min = 0, max = 20))]
    pub failed_pods_limit: i32,
    /// A sync that reports, but moves no byte for so long and does not wait on purpose, is restarted.
    #[serde(default = "defaults::stall_after")]
    #[x_kube(validation = Rule::new(cel_rules::STALL_AFTER.cel).message(cel_rules::STALL_AFTER.message))]
    pub stall_after: Duration,
    /// How long a sync goes on while it can't reach the API server, and how long the operator waits for a pod that it
    /// lost sight of before another may write to the same destination mailbox.
    #[serde(default = "defaults::offline_grace")]
    #[x_kube(validation = Rule::new(cel_rules::OFFLINE_GRACE.cel).message(cel_rules::OFFLINE_GRACE.message))]
    pub offline_grace: Duration,
}

impl MailMigrationSpec {
    /// What every mailbox of this migration has in common.
    #[must_use]
    pub(crate) fn settings(&self) -> SyncSettings {
        SyncSettings {
            folders: self.folders.clone(),
            messages: self.messages.clone(),
            flags: self.flags,
            deletions: self.deletions,
            connections: self.connections,
            deadline: self.deadline,
            timeouts: self.timeouts.clone(),
            retry: self.retry.clone(),
            dry_run: self.dry_run,
            stall_after: self.stall_after,
            offline_grace: self.offline_grace,
            schedule: self.schedule.clone(),
            cutover: self.cutover.clone(),
            ttl: self.ttl,
            failed_pods_limit: self.failed_pods_limit,
        }
    }
}

/// One side of a migration: a server, by reference or inline, and who logs in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::ONE_SERVER.cel).message(cel_rules::ONE_SERVER.message))]
pub struct EndpointSpec {
    /// A MailServer of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ref: Option<LocalRef>,
    /// The server itself, instead of serverRef; the fields of a MailServer's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<MailServerSpec>,
    /// An administrator of the server who logs in for each mailbox that has no password of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_user: Option<MasterUser>,
}

/// One mailbox.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MailboxEntry {
    /// A name of your choice, unique in the migration: `alice`, `alice@example.com`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(cel_rules::MAILBOX_NAME.cel).message(cel_rules::MAILBOX_NAME.message))]
    pub name: String,
    /// The account that mail is read from.
    #[serde(default)]
    pub source: Account,
    /// The account that mail is written to.
    #[serde(default)]
    pub destination: Account,
}

/// How a migration is doing. Never a list that grows with the number of mailboxes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MailMigrationStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the migration stands, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MigrationPhase>,
    /// Accepted, Ready, Complete, AllCopied, Failed, Stalled, Reconciling, MailboxesFailing, RemovalPending, PodsRefused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// When the first sync started. From then on, source and destination are fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the migration was complete, or had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// When delivery moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover_at: Option<Time>,
    /// When the next delta sync is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_at: Option<Time>,
    /// The `syncRequest` that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// Mailboxes by phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailboxes: Option<MailboxCounts>,
    /// Messages and bytes, all mailboxes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// Share of the known bytes that is done, such as `42%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub progress: Option<String>,
    /// Bytes per second over the last minute, all mailboxes together, such as `12 MiB/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub rate: Option<String>,
    /// When it will be done, at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Time>,
    /// A few mailboxes that fail, of each class of error at least one. All of them: `kubectl get mailboxsyncs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failures: Vec<FailureSample>,
    /// Mailboxes that left the list and wait for `confirmRemoval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_removal: Option<PendingRemoval>,
    /// What was read from the CSV Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub mailbox_secrets: Vec<CsvStatus>,
}

/// Where a migration stands, in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPhase {
    /// Nothing has started: not accepted yet, or startAt lies ahead.
    Pending,
    /// Mailboxes are synced, or wait for the next delta sync.
    Running,
    /// Delivery has moved; delta syncs until the sources are quiet.
    Draining,
    /// Stopped by suspend.
    Suspended,
    /// Nothing goes on without a person.
    Stalled,
    /// All mailboxes are done.
    Complete,
    /// All mailboxes have ended, some of them failed.
    Failed,
}

impl MigrationPhase {
    /// Every phase.
    pub(crate) const ALL: [Self; 7] =
        [Self::Pending, Self::Running, Self::Draining, Self::Suspended, Self::Stalled, Self::Complete, Self::Failed];
}

/// Mailboxes by phase.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MailboxCounts {
    /// All of them.
    pub total: i32,
    /// Not looked at yet.
    #[serde(default)]
    pub pending: i32,
    /// Waiting for their turn.
    #[serde(default)]
    pub queued: i32,
    /// Syncing.
    #[serde(default)]
    pub running: i32,
    /// The last sync ended well.
    #[serde(default)]
    pub synced: i32,
    /// Waiting after a failure.
    #[serde(default)]
    pub backoff: i32,
    /// Waiting for a person.
    #[serde(default)]
    pub stalled: i32,
    /// Given up.
    #[serde(default)]
    pub failed: i32,
    /// Stopped by `cancel`.
    #[serde(default)]
    pub cancelled: i32,
    /// Backoff, stalled and failed together.
    #[serde(default)]
    pub failing: i32,
}

/// Messages and bytes, all mailboxes together, as far as known.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Messages in the folders that are synced.
    #[serde(default)]
    pub messages_total: i64,
    /// Of these messages, those that are at the destination.
    #[serde(default)]
    pub messages_done: i64,
    /// Set aside and so not copied, whichever sync found out; accepted ones too.
    #[serde(default)]
    pub messages_skipped: i64,
    /// Messages that the sources hold and the destinations did not get. Absent: no mailbox has told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_copied: Option<NotCopied>,
    /// Copies that differ from their messages, by kind: flags, internalDate, order, content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub differences: BTreeMap<String, i64>,
    /// Bytes of the messages.
    #[serde(default)]
    pub bytes_total: i64,
    /// Of these bytes, those that are at the destination.
    #[serde(default)]
    pub bytes_done: i64,
    /// Attempts that were restarted at their deadline.
    #[serde(default)]
    pub deadline_restarts: i32,
}

/// A mailbox that fails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailureSample {
    /// The mailbox's name.
    #[schemars(length(max = 253))]
    pub mailbox: String,
    /// Its last error.
    pub error: LastError,
}

/// Mailboxes that left the list and wait for a confirmation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingRemoval {
    /// How many mailboxes.
    pub count: i32,
    /// Stands for exactly these mailboxes; goes into `spec.confirmRemoval`.
    #[schemars(length(max = 64))]
    pub token: String,
    /// A few of these mailboxes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub examples: Vec<String>,
}

/// What was read from a CSV Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CsvStatus {
    /// The Secret's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The key in the Secret's data.
    #[schemars(length(max = 253))]
    pub key: String,
    /// The version of the Secret that was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub resource_version: Option<String>,
    /// Mailboxes in it.
    #[serde(default)]
    pub mailboxes: i32,
    /// Why it could not be used, with the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub problem: Option<String>,
}
