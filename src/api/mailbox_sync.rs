//! `MailboxSync`: one mailbox of a migration, made and owned by the operator, as a ReplicaSet is by a Deployment.
#![allow(clippy::duplicated_attributes)] // printer columns repeat `type_ = "string"`

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cel_rules,
    common::{Account, LastError, LocalRef, MasterUser},
    mail_server::MailServerSpec,
    not_copied::{LeftOutFolder, NotCopied},
    pod_overrides::PodOverrides,
    scalar::Duration,
    settings::SyncSettings,
};

/// The longest checkpoint that a status holds, bytes of its encoded form.
pub const MAX_CHECKPOINT_BYTES: usize = 65_536;
/// The most folders that a status lists.
pub(crate) const MAX_FOLDERS: usize = 200;

/// One mailbox of a migration. The operator writes it; change the MailMigration instead.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mailferry.io",
    version = "v1alpha1",
    kind = "MailboxSync",
    namespaced,
    status = "MailboxSyncStatus",
    derive = "PartialEq",
    doc = "One mailbox of a MailMigration. The operator makes it; its status holds the checkpoint.",
    shortname = "msync",
    category = "mailferry",
    selectable = ".spec.migration",
    selectable = ".spec.mailbox",
    selectable = ".status.phase",
    printcolumn(name = "Migration", type_ = "string", json_path = ".spec.migration"),
    printcolumn(name = "Mailbox", type_ = "string", json_path = ".spec.mailbox"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.worker.progress.done"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.worker.progress.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.worker.progress.eta"),
    printcolumn(name = "NotCopied", type_ = "integer", json_path = ".status.worker.notCopied.messages"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt", priority = 1),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName", priority = 1),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.lastError.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::MAILBOX_IMMUTABLE.cel).message(cel_rules::MAILBOX_IMMUTABLE.message))]
pub struct MailboxSyncSpec {
    /// The MailMigration's name.
    #[schemars(length(min = 1, max = 253))]
    pub migration: String,
    /// The mailbox's name in the migration.
    #[schemars(length(min = 1, max = 253))]
    pub mailbox: String,
    /// Where mail is read.
    pub source: SyncEndpoint,
    /// Where mail is written.
    pub destination: SyncEndpoint,
    /// What every mailbox of the migration has in common.
    #[serde(default)]
    pub settings: SyncSettings,
    /// Stop at a checkpoint and start nothing.
    #[serde(default)]
    pub suspend: bool,
    /// Stop for good; what was copied stays.
    #[serde(default)]
    pub cancel: bool,
    /// Another text than `status.syncRequest` asks for one more sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// Start nothing before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// Changes to the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
}

/// One side of a mailbox, with the server that was resolved.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::SYNC_CREDENTIAL.cel).message(cel_rules::SYNC_CREDENTIAL.message))]
pub struct SyncEndpoint {
    /// The MailServer that `server` was taken from, whose limits count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ref: Option<LocalRef>,
    /// The server.
    pub server: MailServerSpec,
    /// Who logs in; `username` is always there.
    pub account: Account,
    /// An administrator who logs in for the account, where the account has no credential of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_user: Option<MasterUser>,
}

/// How a mailbox is doing. `worker` belongs to the sync's pod, everything else to the operator.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::FENCE.cel).message(cel_rules::FENCE.message))]
#[x_kube(validation = Rule::new(cel_rules::WORKER_ATTEMPT.cel).message(cel_rules::WORKER_ATTEMPT.message))]
pub struct MailboxSyncStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the mailbox stands, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SyncPhase>,
    /// Ready, AllCopied, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The number of the current or last attempt; written before its pod is created.
    #[serde(default)]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new(cel_rules::ATTEMPT_GROWS.cel).message(cel_rules::ATTEMPT_GROWS.message))]
    pub attempt: i64,
    /// The attempt's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,
    /// The UID of the attempt's pod: only its token may write `worker`.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,
    /// When the attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_started_at: Option<Time>,
    /// How much of the deadline was used up before `attemptStartedAt`: the clock stands still while suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_used: Option<Duration>,
    /// When the attempt was asked to stop, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
    /// The syncs that ended well.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub syncs: i64,
    /// When the last sync ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_synced_at: Option<Time>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,
    /// The UIDNEXT of the source's INBOX as of the last sync that ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub inbox_uid_next: Option<i64>,
    /// Since when the source's INBOX got nothing new, as far as syncs saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox_quiet_since: Option<Time>,
    /// The `syncRequest` that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// True while a sync is due or under way that a new `syncRequest` asked for: it also tries again the messages that
    /// the destination was proven to refuse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry_refused: bool,
    /// What went wrong how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    /// The last error, until a sync ends well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Versions of the Secrets that the last attempt used: after an Authentication error, another version starts the
    /// next attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 320)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub secret_versions: Vec<String>,
    /// Connections to each side that the attempt holds of the servers' limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub slots: Option<i32>,
    /// The destination account that this mailbox has for itself, as a hash, and since when with a proven login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What the sync's pod reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerStatus>,
}

/// Where a mailbox stands, in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncPhase {
    /// Not looked at yet, or not yet due.
    Pending,
    /// Waiting for its turn.
    Queued,
    /// An attempt runs.
    Running,
    /// The last sync ended well.
    Synced,
    /// Waiting after a failure.
    Backoff,
    /// Stopped by suspend.
    Suspended,
    /// Waiting for a person.
    Stalled,
    /// Given up.
    Failed,
    /// Stopped for good on request.
    Cancelled,
}

impl SyncPhase {
    /// Every phase.
    pub(crate) const ALL: [Self; 9] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Synced,
        Self::Backoff,
        Self::Suspended,
        Self::Stalled,
        Self::Failed,
        Self::Cancelled,
    ];
}

/// An attempt that was asked to stop.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Stopping {
    /// When it was asked to stop.
    pub at: Time,
    /// Why it was asked to stop.
    pub reason: StopReason,
}

/// Why an attempt was asked to stop.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It ran as long as it may.
    Deadline,
    /// It moved nothing for `stallAfter`.
    NoProgress,
    /// The migration was suspended.
    Suspended,
    /// The mailbox was cancelled.
    Cancelled,
    /// The mailbox left the migration, or was deleted.
    Removed,
    /// Its pod did not run in time.
    NotStarted,
    /// It reported nothing for longer than it may go on without the API server.
    LostContact,
    /// The operator's configuration does not allow its destination or its master user any more.
    NotAllowed,
}

/// What went wrong how often.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// Attempts in a row that ended with an error and without progress.
    #[serde(default)]
    pub in_a_row: i32,
    /// Attempts that ended with an error, ever.
    #[serde(default)]
    pub sync: i32,
    /// Pods lost to evictions, nodes, preemption and image pulls, ever.
    #[serde(default)]
    pub infrastructure: i32,
    /// Pods lost to the same, in a row.
    #[serde(default)]
    pub infrastructure_in_a_row: i32,
    /// Attempts that were restarted at their deadline, ever.
    #[serde(default)]
    pub deadline_restarts: i32,
    /// Restarts at the deadline, or for want of progress, in a row without any progress.
    #[serde(default)]
    pub fruitless_restarts: i32,
}

/// A destination account that one mailbox has for itself.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// A hash of the destination's host, port and user.
    #[schemars(length(max = 64))]
    pub destination: String,
    /// When a login to it first worked. Left out: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
}

/// What a sync's pod reports.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::REPORT_GROWS.cel).message(cel_rules::REPORT_GROWS.message))]
pub struct WorkerStatus {
    /// The attempt that reports.
    #[schemars(range(min = 0))]
    pub attempt: i64,
    /// Counts the attempt's reports.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub report: i64,
    /// The worker's clock at the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Time>,
    /// What the sync is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<WorkerPhase>,
    /// Counters for people and for the migration's totals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<WorkerProgress>,
    /// Why nothing moves on purpose (throttled, backing off).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub waiting: Option<String>,
    /// Until when nothing moves on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<Time>,
    /// What a later attempt must know to go on: opaque, versioned, compressed. `mailferry checkpoint` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub checkpoint: Option<String>,
    /// The attempt that flushed the checkpoint at its end. Where the attempt before the current one did not, the last
    /// messages that it appended are looked for before anything is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub flushed_attempt: Option<i64>,
    /// Facts about folders, for people; at most 200 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub folders: Vec<FolderFacts>,
    /// Messages that the source holds and the destination did not get, by the last sync that ended well and by what was
    /// found out since. Absent: no sync has told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_copied: Option<NotCopied>,
    /// Copies that differ from their messages, by kind: flags, internalDate, order, content. All syncs together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub differences: BTreeMap<String, i64>,
    /// Source folders that are not synced, and why; first those that Mailferry leaves out by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub left_out: Vec<LeftOutFolder>,
    /// Findings that a person should look at before trusting the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 500)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub warnings: Vec<String>,
    /// True after the first login to the destination that worked.
    #[serde(default)]
    pub destination_login: bool,
    /// The UIDNEXT of the source's INBOX: it grows while mail is still delivered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub inbox_uid_next: Option<i64>,
    /// Set by the last report of an attempt that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The error that ended the attempt, or the one that it works against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// What a sync is doing.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPhase {
    /// Waiting for its turn.
    Queued,
    /// Connecting and logging in.
    Connecting,
    /// Listing folders and planning.
    Planning,
    /// Copying messages and flags.
    Copying,
    /// Ended well.
    Done,
    /// Ended with an error.
    Failed,
}

/// How an attempt ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is at the destination.
    Synced,
    /// Stopped at a checkpoint, on request.
    Stopped,
    /// Ended with `lastError`.
    Failed,
}

/// Counters of a sync.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct WorkerProgress {
    /// Share of the known bytes that is done, such as `42%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub done: Option<String>,
    /// Bytes per second over the last minute, such as `12 MiB/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub rate: Option<String>,
    /// When it will be done, at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Time>,
    /// Folders to look at.
    #[serde(default)]
    pub folders_total: i64,
    /// Folders finished.
    #[serde(default)]
    pub folders_done: i64,
    /// Messages in the folders that are synced, as far as known.
    #[serde(default)]
    pub messages_total: i64,
    /// Of these messages, those that are at the destination.
    #[serde(default)]
    pub messages_done: i64,
    /// Set aside and so not copied, whichever sync found out; accepted ones too.
    #[serde(default)]
    pub messages_skipped: i64,
    /// Copied, or found at the destination, by this attempt: stands still when it gets nowhere.
    #[serde(default)]
    pub messages_this_attempt: i64,
    /// Bytes of the messages, as far as known.
    #[serde(default)]
    pub bytes_total: i64,
    /// Of these bytes, those that are at the destination.
    #[serde(default)]
    pub bytes_done: i64,
    /// Bytes read or written on any connection by this attempt: stands still when nothing moves.
    #[serde(default)]
    pub bytes_moved: i64,
    /// Bytes per second over the last minute.
    #[serde(default)]
    pub bytes_per_second: i64,
}

/// Facts about one folder.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FolderFacts {
    /// Its name at the source.
    #[schemars(length(max = 1000))]
    pub source: String,
    /// Its name at the destination.
    #[schemars(length(max = 1000))]
    pub destination: String,
    /// UIDVALIDITY at the source.
    #[serde(default)]
    pub source_uid_validity: i64,
    /// UIDVALIDITY at the destination.
    #[serde(default)]
    pub destination_uid_validity: i64,
    /// The highest source UID that was dealt with.
    #[serde(default)]
    pub last_uid: i64,
    /// Messages at the source.
    #[serde(default)]
    pub messages: i64,
    /// Messages that were copied.
    #[serde(default)]
    pub copied: i64,
    /// Messages that were found at the destination.
    #[serde(default)]
    pub adopted: i64,
    /// Messages that were set aside and so not copied.
    #[serde(default)]
    pub skipped: i64,
}
