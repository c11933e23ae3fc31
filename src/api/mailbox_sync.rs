//! `MailboxSync`: one mailbox of a migration, made and owned by the operator, as a ReplicaSet is by a Deployment.
#![allow(clippy::duplicated_attributes)] // printer columns repeat `type_ = "string"`

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cel_rules,
    common::{Account, CredentialRef, LastError, LocalRef, MasterUser, SecretKeyRef},
    mail_server::MailServerSpec,
    not_copied::{LeftOutFolder, NotCopied},
    pod_overrides::PodOverrides,
    scalar::Duration,
    settings::SyncSettings,
    shared::Shared,
};

/// The longest checkpoint that a status holds, bytes of its encoded form.
pub const MAX_CHECKPOINT_BYTES: usize = 262_144;
/// The most folders of which a status shows held deletions.
pub(crate) const MAX_HELD_FOLDERS: usize = 20;
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
    /// The name of the MailMigration that it belongs to, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub migration: String,
    /// The mailbox's name in the migration.
    #[schemars(length(min = 1, max = 253))]
    pub mailbox: String,
    /// The server and account that mail is read from.
    pub source: SyncEndpoint,
    /// The server and account that mail is written to.
    pub destination: SyncEndpoint,
    /// The settings that every mailbox of the migration has in common.
    #[serde(default)]
    pub settings: Shared<SyncSettings>,
    /// True: a running attempt stops at a checkpoint, and none starts. The same holds while the migration is suspended.
    #[serde(default)]
    pub suspend: bool,
    /// True: the mailbox is stopped for good. What was copied stays.
    #[serde(default)]
    pub cancel: bool,
    /// Any text. Another one than `status.syncRequest` asks for one more sync at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// The time before which the first attempt does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// Changes to the pods of its attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<Shared<PodOverrides>>,
}

/// One side of a mailbox: the server, as it was resolved, and the account.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::SYNC_CREDENTIAL.cel).message(cel_rules::SYNC_CREDENTIAL.message))]
pub struct SyncEndpoint {
    /// The MailServer that `server` was taken from. Absent: the migration describes the server itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ref: Option<LocalRef>,
    /// The server, with the fields of a MailServer's spec.
    pub server: Shared<MailServerSpec>,
    /// The account that is logged in to. Its `username` is always there.
    pub account: Account,
    /// The administrator who logs in for the account. Absent: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_user: Option<Shared<MasterUser>>,
    /// The grant of the operator's configuration by which it gets access tokens for the account. Absent: none is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ref: Option<LocalRef>,
}

/// By what the operator gets access tokens for an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GrantedBy {
    /// The grant of this name of the operator's configuration.
    Operator(String),
    /// The tenant's own Secret of this name.
    Tenant(String),
}

impl SyncEndpoint {
    /// By what the operator gets access tokens for the account; none where it logs in otherwise.
    #[must_use]
    pub(crate) fn granted_by(&self) -> Option<GrantedBy> {
        match self.account.credential() {
            Some(CredentialRef::Grant(secret)) => Some(GrantedBy::Tenant(secret.name.clone())),
            None if self.master_user.is_none() => {
                self.grant_ref.as_ref().map(|grant| GrantedBy::Operator(grant.name.clone()))
            }
            _ => None,
        }
    }

    /// The values of Secrets that a sync of it reads, beside tokens of grants.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretKeyRef> {
        let own = self.account.password_secret_ref.as_ref().or(self.account.token_secret_ref.as_ref());
        let master = self.master_user.as_ref().map(|master| &master.password_secret_ref);
        own.or(master).into_iter().chain(self.server.tls.ca_bundle_ref.as_ref())
    }
}

/// How a mailbox is doing. `worker` belongs to the sync's pod, everything else to the operator.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::FENCE.cel).message(cel_rules::FENCE.message))]
#[x_kube(validation = Rule::new(cel_rules::WORKER_ATTEMPT.cel).message(cel_rules::WORKER_ATTEMPT.message))]
pub struct MailboxSyncStatus {
    /// The generation of the spec that this status is about; -1: the operator has not seen any yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the mailbox stands, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SyncPhase>,
    /// Ready and AllCopied are always there; Stalled only while the phase is Stalled or Failed, Outdated and DeletionsHeld
    /// while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The number of the current or last attempt; 0: there was none yet. It is written before its pod is created.
    #[serde(default)]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new(cel_rules::ATTEMPT_GROWS.cel).message(cel_rules::ATTEMPT_GROWS.message))]
    pub attempt: i64,
    /// The name of the current or last attempt's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,
    /// The UID of the attempt's pod: only a token that is bound to this pod may write `worker`.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,
    /// When the current or last attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_started_at: Option<Time>,
    /// How much of the deadline was used up before `attemptStartedAt`: its clock stands still while the mailbox is
    /// suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_used: Option<Duration>,
    /// When the current attempt was asked to stop, and why. Absent: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
    /// How many syncs ended well.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub syncs: i64,
    /// When the last sync ended well. Absent: none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_synced_at: Option<Time>,
    /// When the next attempt is due. Absent: one is under way or due now, or none is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,
    /// The UIDNEXT of the source's INBOX, as the last sync that ended well saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub inbox_uid_next: Option<i64>,
    /// The time since which the source's INBOX got no new message, as far as syncs saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox_quiet_since: Option<Time>,
    /// How many delta syncs in a row found nothing, since the cutover: by it the wait for the next grows. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub quiet_deltas: i32,
    /// The `spec.syncRequest` that the last attempt acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// True while a sync is due or under way that a new `syncRequest` asked for: it also tries again the messages that
    /// the destination was proven to refuse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry_refused: bool,
    /// How often attempts and pods failed. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    /// The last error. It stays until a sync ends well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// True after a server refused a login: no other attempt is made with the same account, credential and version of its
    /// Secret, whatever else changes, unless a new `syncRequest` asks for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login_refused: bool,
    /// What the last attempt was made with. Absent: none was made yet, or by an operator that did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_input: Option<AttemptInput>,
    /// The Secrets that the last attempt used, as `name=resourceVersion`. After an Authentication error a new version
    /// starts the next attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 320)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub secret_versions: Vec<String>,
    /// How many connections to each side the current attempt may hold, of what the limits allow. Absent: no attempt is
    /// under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub slots: Option<i32>,
    /// The destination account that this mailbox has for itself. No mailbox of another migration may write to it once
    /// the claim is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// That the checkpoint is not of this object's own attempts: it was found without an owner and taken over, or imported.
    /// Absent: it is of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<Inheritance>,
    /// What the pod of the current or last attempt reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Where a mailbox stands. Pending: not looked at yet, not due, or between two attempts. Queued: due, and waiting for
/// its turn. Running: an attempt is under way. Synced: the last sync ended well. Backoff: waiting for the next attempt
/// after a failure. Suspended: stopped by suspend; a mailbox that did not run when its migration was suspended keeps its
/// phase. Stalled: waiting for a person. Failed: given up. Cancelled: stopped
/// for good by cancel.
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
    /// Every phase; a test holds it complete.
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
    /// When the attempt was asked to stop.
    pub at: Time,
    /// Why it was asked to stop.
    pub reason: StopReason,
}

/// Why an attempt was asked to stop. `Deadline`: it ran as long as it may. `NoProgress`: it moved nothing for
/// stallAfter. `Suspended`, `Cancelled`, `Removed`: a person wanted it. `NotStarted`: its pod did not run, or got no
/// node, in time. `LostContact`: it reported nothing for longer than it may go on without the API server. `NotAllowed`: the
/// operator's configuration does not allow its destination, master user or grant any more. `WindowClosed`: a server's time
/// windows closed; it goes on when they open.
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
    /// The operator's configuration does not allow its destination, its master user or its grant any more.
    NotAllowed,
    /// The time windows of one of its servers closed.
    WindowClosed,
}

/// What an attempt was made with, as hashes: of names and settings, never of passwords.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AttemptInput {
    /// The source's account, and where its credential is.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub source: String,
    /// The destination's account, and where its credential is.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub destination: String,
    /// All that decides how a sync goes: not when it runs, nor `suspend`, `cancel`, `syncRequest` and what is kept after it.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub spec: String,
    /// True for a dry run: once the spec asks for none any more, a sync is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// How often attempts and pods of a mailbox failed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// Attempts in a row that ended with an error and without progress.
    #[serde(default)]
    pub in_a_row: i32,
    /// All attempts that ended with an error.
    #[serde(default)]
    pub sync: i32,
    /// All pods that were lost to evictions, nodes, preemption or image pulls.
    #[serde(default)]
    pub infrastructure: i32,
    /// Pods that were lost in this way in a row, without progress.
    #[serde(default)]
    pub infrastructure_in_a_row: i32,
    /// All attempts that were stopped at their deadline, so that another one went on.
    #[serde(default)]
    pub deadline_restarts: i32,
    /// Attempts in a row that were stopped at their deadline, or for want of progress, and had copied nothing.
    #[serde(default)]
    pub fruitless_restarts: i32,
}

/// A destination account that one mailbox has for itself, so that two migrations never write to one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// A hash of the destination's host, port and user.
    #[schemars(length(max = 64))]
    pub destination: String,
    /// When a login to the account first worked. Absent: none has yet, and the claim counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
}

/// A checkpoint that attempts of somebody else wrote. What it says to be copied counts as found there, and so is never
/// deleted; more may have been copied than it says.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Inheritance {
    /// When the object was taken over, or the checkpoint imported. The first attempt waits from then on until a pod that
    /// still works by the same checkpoint must have ended: `offlineGrace` and its last save.
    pub at: Time,
    /// The last attempt before. The checkpoint counts as somebody else's until a later attempt writes it at its end.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempt: i64,
}

/// What the pod of an attempt reports. Nobody else writes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::REPORT_GROWS.cel).message(cel_rules::REPORT_GROWS.message))]
pub struct WorkerStatus {
    /// The number of the attempt that reports.
    #[schemars(range(min = 0))]
    pub attempt: i64,
    /// The number of the attempt's newest report, from 1.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub report: i64,
    /// When the newest report was written, by the worker's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Time>,
    /// What the sync is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<WorkerPhase>,
    /// Counters of the sync, for people and for the migration's totals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<WorkerProgress>,
    /// Why nothing moves on purpose, for example that the server asked for a slower pace. Absent: the sync does not
    /// wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub waiting: Option<String>,
    /// When the wait is over. Absent: the sync does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<Time>,
    /// The access token of a grant that the source's server refused, as a hash, while another one is waited for. Absent:
    /// none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub refused_source_token: Option<String>,
    /// The same for the destination's server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub refused_destination_token: Option<String>,
    /// The checkpoint, by which a later attempt goes on: opaque, versioned, compressed. `mailferry checkpoint` shows
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_CHECKPOINT_BYTES))]
    pub checkpoint: Option<String>,
    /// The last attempt that wrote its checkpoint at its end. Where the attempt before the current one did not, the
    /// last messages that it appended are looked for before anything is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub flushed_attempt: Option<i64>,
    /// Facts about folders, for people; at most 200 folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub folders: Vec<FolderFacts>,
    /// Messages that the source holds and the destination did not get, by the last sync that ended well and by what was
    /// found out since. Absent: no sync has reported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_copied: Option<NotCopied>,
    /// Copies that differ from their messages, by kind: flags, internalDate, order, content, size, missing, doubled. All syncs together.
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
    /// Deletions that the last sync did not make, as too much of a folder had vanished at once (`deletions: Mirror`). Each
    /// waits until `spec.confirmDeletions` of the MailMigration has its token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub held_deletions: Vec<HeldFolderDeletions>,
    /// True once a login to the destination worked in this attempt.
    #[serde(default)]
    pub destination_login: bool,
    /// The UIDNEXT of the source's INBOX, as this attempt saw it: it grows while mail is still delivered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub inbox_uid_next: Option<i64>,
    /// What a sync that ended well found to do: messages that it copied or found at the destination, messages whose flags
    /// it changed, and copies that it removed. Absent: it has not ended well, or did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub changes: Option<i64>,
    /// Set by the last report of an attempt that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The error that ended the attempt, or that it was working against when it was stopped. Absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// What an attempt is doing. Queued: nothing yet. Connecting: connecting and logging in. Planning: listing folders and
/// choosing names. Copying: copying messages and flags. Done: it ended well, or stopped on request. Failed: it ended
/// with an error.
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

/// How an attempt ended; written by its last report. Synced: the sync came to its end. Stopped: it stopped at a
/// checkpoint, on request. Failed: it ended with lastError. Absent: it goes on, or ended without a last report.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is at the destination.
    Synced,
    /// Stopped at a checkpoint, on request.
    Stopped,
    /// Ended with `lastError`.
    Failed,
}

/// Counters of a sync. Those of messages and bytes are about the whole mailbox unless they say otherwise.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct WorkerProgress {
    /// The share of the known bytes that is at the destination, such as `42%`; of messages where no bytes are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub done: Option<String>,
    /// The same as a number, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub done_percent: Option<i32>,
    /// Bytes copied per second over the last minute, such as `12 MiB/s`. Absent: nothing is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub rate: Option<String>,
    /// When all known bytes will be at the destination, at the current rate. Absent: nothing is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Time>,
    /// Folders that this attempt looks at.
    #[serde(default)]
    pub folders_total: i64,
    /// Of these, the folders that are finished.
    #[serde(default)]
    pub folders_done: i64,
    /// Messages in the folders that are synced, as far as they are known.
    #[serde(default)]
    pub messages_total: i64,
    /// Of these, the messages that are at the destination.
    #[serde(default)]
    pub messages_done: i64,
    /// Of these, the messages that were set aside and so not copied, whichever sync found out; accepted ones too.
    #[serde(default)]
    pub messages_skipped: i64,
    /// Messages that this attempt copied, or found at the destination: it stands still when the attempt gets nowhere.
    #[serde(default)]
    pub messages_this_attempt: i64,
    /// The size of the messages as far as it is known, bytes.
    #[serde(default)]
    pub bytes_total: i64,
    /// Of these, the bytes of messages that are at the destination.
    #[serde(default)]
    pub bytes_done: i64,
    /// The bytes that are still to be copied; folders whose size the source does not tell count like those that were read,
    /// by their messages. Absent: not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_left: Option<i64>,
    /// Bytes read or written on any connection by this attempt: it stands still when nothing moves.
    #[serde(default)]
    pub bytes_moved: i64,
    /// Bytes copied per second over the last minute.
    #[serde(default)]
    pub bytes_per_second: i64,
}

/// Facts about one folder.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FolderFacts {
    /// The folder's name at the source.
    #[schemars(length(max = 1000))]
    pub source: String,
    /// The folder's name at the destination.
    #[schemars(length(max = 1000))]
    pub destination: String,
    /// The folder's UIDVALIDITY at the source; 0: not known.
    #[serde(default)]
    pub source_uid_validity: i64,
    /// The folder's UIDVALIDITY at the destination; 0: not known.
    #[serde(default)]
    pub destination_uid_validity: i64,
    /// The highest source UID that was copied, found at the destination, or set aside.
    #[serde(default)]
    pub last_uid: i64,
    /// Messages in the folder at the source.
    #[serde(default)]
    pub messages: i64,
    /// Messages that Mailferry copied.
    #[serde(default)]
    pub copied: i64,
    /// Messages that were found at the destination, and so not copied.
    #[serde(default)]
    pub adopted: i64,
    /// Messages that were set aside, and so not copied.
    #[serde(default)]
    pub skipped: i64,
}

/// Deletions in one folder that wait for a confirmation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HeldFolderDeletions {
    /// The folder's name at the source.
    #[schemars(length(max = 300))]
    pub folder: String,
    /// How many messages vanished from the source.
    pub messages: i64,
    /// Of how many that were copied.
    pub of: i64,
    /// How many copies would be deleted: those that Mailferry made.
    #[serde(default)]
    pub copies: i64,
    /// A token that stands for exactly these messages.
    #[schemars(length(max = 64))]
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::mail_migration::MigrationPhase, error::variant_names};

    #[test]
    fn the_lists_of_phases_lack_none() {
        let mailbox: Vec<_> = SyncPhase::ALL.iter().map(|phase| format!("{phase:?}")).collect();
        assert_eq!(mailbox, variant_names::<SyncPhase>());
        let migration: Vec<_> = MigrationPhase::ALL.iter().map(|phase| format!("{phase:?}")).collect();
        assert_eq!(migration, variant_names::<MigrationPhase>());
    }
}
