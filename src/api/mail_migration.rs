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
        Account, DeletionPolicy, FlagPolicy, FolderRules, LastError, LocalRef, MAX_MAILBOX_NAME, MasterUser,
        MessageRules, Retry, SecretKeyRef, Timeouts,
    },
    csv_ref::{ConfigMapKeyRef, CsvRef},
    mail_server::MailServerSpec,
    mailbox_sync::SyncPhase,
    not_copied::NotCopied,
    pod_overrides::PodOverrides,
    scalar::Duration,
    settings::{Cutover, DELETION_TOKEN_PATTERN, Schedule, SyncSettings, defaults},
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
    printcolumn(name = "Forecast", type_ = "string", json_path = ".status.forecast.text"),
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
#[x_kube(validation = Rule::new(cel_rules::TWO_CONNECTIONS.cel).message(cel_rules::TWO_CONNECTIONS.message))]
#[x_kube(validation = Rule::new(cel_rules::CONFIG_MAP_LOGIN.cel).message(cel_rules::CONFIG_MAP_LOGIN.message))]
#[x_kube(validation = Rule::new(cel_rules::REQUEST_TEXT.cel).message(cel_rules::REQUEST_TEXT.message))]
#[x_kube(validation = Rule::new(cel_rules::ONE_TTL.cel).message(cel_rules::ONE_TTL.message))]
#[x_kube(validation = Rule::new(cel_rules::SOURCE_CREDENTIAL.cel).message(cel_rules::SOURCE_CREDENTIAL.message))]
#[x_kube(validation = Rule::new(cel_rules::DESTINATION_CREDENTIAL.cel).message(cel_rules::DESTINATION_CREDENTIAL.message))]
pub struct MailMigrationSpec {
    /// The server that mail is read from, and the administrator who logs in there, if there is one.
    pub source: EndpointSpec,
    /// The server that mail is written to, and the administrator who logs in there, if there is one. Its accounts must
    /// exist: Mailferry makes none.
    pub destination: EndpointSpec,
    /// The mailboxes to be moved. For more than 1000, use mailboxSecrets, mailboxConfigMaps or several migrations.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub mailboxes: Vec<MailboxEntry>,
    /// More mailboxes, as CSV in Secrets of this namespace (at most 1 MiB each), beside those of mailboxes. The first
    /// line names the columns: `name`, and any of `source_username`, `source_password`, `source_token`,
    /// `destination_username`, `destination_password`, `destination_token`. Changes are found within a minute.
    #[serde(default)]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "key".into()]))]
    pub mailbox_secrets: Vec<SecretKeyRef>,
    /// More mailboxes, as CSV in ConfigMaps of this namespace, as in mailboxSecrets, but without passwords and tokens: a
    /// masterUser or a grantRef logs in on both sides.
    #[serde(default)]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "key".into()]))]
    pub mailbox_config_maps: Vec<ConfigMapKeyRef>,
    /// Which folders are synced, and what they are called at the destination.
    #[serde(default)]
    pub folders: FolderRules,
    /// Which messages are synced.
    #[serde(default)]
    pub messages: MessageRules,
    /// SourceWins: flags that change at the source after a message was copied change at the destination too. Ignore:
    /// flags are set when a message is copied and not touched again.
    #[serde(default)]
    pub flags: FlagPolicy,
    /// Keep: what is deleted at the source stays at the destination. Mirror: it is deleted there too, but only messages
    /// that Mailferry put there itself. Where more than 30 % of a folder vanished at once, and at least four messages,
    /// they are held until confirmDeletions has their token.
    #[serde(default)]
    pub deletions: DeletionPolicy,
    /// Tokens of deletions that were held: the condition DeletionsHeld, `status.worker.heldDeletions` of the mailbox, and
    /// the report of `mailferry run` show them. Each stands for exactly the messages of one folder that it was shown for.
    /// What a token lets through is deleted by a sync that follows at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 64), regex(pattern = DELETION_TOKEN_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub confirm_deletions: Vec<String>,
    /// The most mailboxes of this migration that are synced at the same time. The operator's own limits hold too.
    #[serde(default = "defaults::parallelism")]
    #[schemars(range(min = 1, max = 10_000))]
    pub parallelism: i32,
    /// The most connections to each side for one mailbox. A sync starts with one and takes more while both servers
    /// allow it.
    #[serde(default = "defaults::connections")]
    #[schemars(range(min = 1, max = 16))]
    pub connections: i32,
    /// The longest time that one attempt may run. Then it is stopped at a checkpoint, and a new attempt goes on from
    /// there.
    #[serde(default = "defaults::deadline")]
    #[x_kube(validation = Rule::new(cel_rules::DEADLINE.cel).message(cel_rules::DEADLINE.message))]
    pub deadline: Duration,
    /// Bounds on every wait for a server.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What happens after failures that may pass by themselves.
    #[serde(default)]
    pub retry: Retry,
    /// When delta syncs follow the first sync of a mailbox. Left out: none follows, and the migration is complete after
    /// the first, unless there is a cutover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Write this when mail is, or soon will be, delivered at the destination (the MX change): delta syncs follow until
    /// the source is quiet, then the mailbox is complete. Left out: delivery does not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// True: running attempts stop at a checkpoint, and nothing starts until this is false again.
    #[serde(default)]
    pub suspend: bool,
    /// True: nothing is changed at the destination; the status says what would be copied.
    #[serde(default)]
    pub dry_run: bool,
    /// Any text, such as a date. Each new text asks at once for one more sync of every mailbox, or of those that
    /// syncRequestFor chooses. It also tries again the messages that the destination was proven to refuse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// Which mailboxes a new syncRequest asks for a sync. Left out: all. A text that was passed on asks nobody else,
    /// whatever is written here later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_request_for: Option<SyncRequestFor>,
    /// The time before which no mailbox is synced for the first time, for example `2026-03-01T22:00:00Z`. Left out:
    /// mailboxes start at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// The names of mailboxes that are stopped for good. What was copied stays. A mailbox that is taken off this list
    /// goes on where it was.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub cancel: Vec<String>,
    /// The token that `status.pendingRemoval` shows. Where all mailboxes left the list at once, or more than half of them
    /// and at least 3, or more than 5 % and more than 10, they are removed from the migration (never their mail) only
    /// once this token is written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub confirm_removal: Option<String>,
    /// Changes to the pods that syncs run in. Left out: they are made as the operator has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
    /// How long pods of ended attempts stay, for their logs: of those that failed up to failedPodsLimit, of those that
    /// ended well up to succeededPodsLimit. Left out: 24h. The operator keeps at most 500 finished pods of all mailboxes
    /// together: then those that failed stay before the others, and newer ones before older.
    #[serde(default, rename = "finishedPodsTTL", skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(cel_rules::FINISHED_PODS_TTL.cel).message(cel_rules::FINISHED_PODS_TTL.message))]
    pub finished_pods_ttl: Option<Duration>,
    /// Deprecated: the former name of finishedPodsTTL, which does the same. It goes away with the next minor version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(cel_rules::FINISHED_PODS_TTL.cel).message(cel_rules::FINISHED_PODS_TTL.message))]
    pub ttl: Option<Duration>,
    /// The most pods of attempts that ended well that stay for each mailbox; the oldest go first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 20))]
    pub succeeded_pods_limit: i32,
    /// The most pods of failed attempts that stay for each mailbox; the oldest go first.
    #[serde(default = "defaults::failed_pods")]
    #[schemars(range(min = 0, max = 20))]
    pub failed_pods_limit: i32,
    /// How long a sync may report without moving a byte, and without waiting on purpose, before it is stopped and
    /// another attempt goes on.
    #[serde(default = "defaults::stall_after")]
    #[x_kube(validation = Rule::new(cel_rules::STALL_AFTER.cel).message(cel_rules::STALL_AFTER.message))]
    pub stall_after: Duration,
    /// How long a sync goes on while it can't reach the API server. For as long, and 90 s more, the operator waits for
    /// a pod that it lost sight of, before another one may write to the same destination mailbox.
    #[serde(default = "defaults::offline_grace")]
    #[x_kube(validation = Rule::new(cel_rules::OFFLINE_GRACE.cel).message(cel_rules::OFFLINE_GRACE.message))]
    pub offline_grace: Duration,
}

impl MailMigrationSpec {
    /// True when `ttl` holds what somebody wrote. Earlier definitions wrote its default into every object: the same value by a
    /// person can't be told from that, and is what holds without the field, too.
    #[must_use]
    pub(crate) fn has_former_ttl(&self) -> bool {
        self.ttl.is_some_and(|ttl| ttl != defaults::finished_pods_ttl())
    }

    /// Where its CSVs are: those of mailboxSecrets, then those of mailboxConfigMaps.
    pub(crate) fn csvs(&self) -> impl Iterator<Item = CsvRef<'_>> + Clone {
        self.mailbox_secrets.iter().map(CsvRef::Secret).chain(self.mailbox_config_maps.iter().map(CsvRef::ConfigMap))
    }

    /// What every mailbox of this migration has in common.
    #[must_use]
    pub(crate) fn settings(&self) -> SyncSettings {
        SyncSettings {
            folders: self.folders.clone(),
            messages: self.messages.clone(),
            flags: self.flags,
            deletions: self.deletions,
            confirm_deletions: self.confirm_deletions.clone(),
            connections: self.connections,
            deadline: self.deadline,
            timeouts: self.timeouts.clone(),
            retry: self.retry.clone(),
            dry_run: self.dry_run,
            stall_after: self.stall_after,
            offline_grace: self.offline_grace,
            schedule: self.schedule.clone(),
            cutover: self.cutover.clone(),
            finished_pods_ttl: self.finished_pods_ttl.or(self.ttl).unwrap_or_else(defaults::finished_pods_ttl),
            succeeded_pods_limit: self.succeeded_pods_limit,
            failed_pods_limit: self.failed_pods_limit,
        }
    }
}

/// One side of a migration: a server, by reference or inline, and the administrator who logs in there, if there is one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::ONE_LOGIN.cel).message(cel_rules::ONE_LOGIN.message))]
#[x_kube(validation = Rule::new(cel_rules::ONE_SERVER.cel).message(cel_rules::ONE_SERVER.message))]
pub struct EndpointSpec {
    /// The MailServer of this namespace that is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ref: Option<LocalRef>,
    /// The server itself, instead of serverRef, with the fields of a MailServer's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<MailServerSpec>,
    /// An administrator of the server who logs in for each mailbox that has no credential of its own. In a cluster it
    /// works only with a serverRef, and only where the operator's configuration allows it (`masterUsers`). Left out:
    /// each mailbox needs its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_user: Option<MasterUser>,
    /// A grant for each mailbox that has no credential of its own, as an account's grantSecretRef: an application that may
    /// open all of them. Not together with masterUser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_secret_ref: Option<LocalRef>,
    /// A grant of the operator's configuration (`grants`), by which it gets OAuth 2.0 access tokens for each mailbox that
    /// has no credential of its own: for the account's username, and for no one else. It works only in a cluster, where
    /// that configuration allows this namespace, the username and the server's host, with a certificate that the system
    /// trusts: no caBundle, caBundleRef, serverName or insecureSkipVerify, and not with tls.mode None. Left out: none is
    /// used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ref: Option<LocalRef>,
}

impl EndpointSpec {
    /// True where mailboxes need no credential of their own.
    #[must_use]
    pub(crate) fn logs_in_for_all(&self) -> bool {
        self.master_user.is_some() || self.grant_secret_ref.is_some() || self.grant_ref.is_some()
    }
}

/// Which mailboxes a new syncRequest asks for a sync: those of mailboxes, and those of phases.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::SOME_REQUESTED.cel).message(cel_rules::SOME_REQUESTED.message))]
pub struct SyncRequestFor {
    /// Mailboxes by name, from the list or a CSV.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub mailboxes: Vec<String>,
    /// Mailboxes that are in one of these phases when the operator sees the new text. What failed: `[Backoff, Stalled,
    /// Failed]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub phases: Vec<SyncPhase>,
}

/// One mailbox.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MailboxEntry {
    /// The mailbox's name, of your choice and unique in the migration: `alice`, `alice@example.com`. It is the login
    /// name at the source where no username is given.
    #[schemars(length(min = 1, max = MAX_MAILBOX_NAME))]
    #[x_kube(validation = Rule::new(cel_rules::MAILBOX_NAME.cel).message(cel_rules::MAILBOX_NAME.message))]
    pub name: String,
    /// The account that mail is read from.
    #[serde(default)]
    pub source: Account,
    /// The account that mail is written to.
    #[serde(default)]
    pub destination: Account,
}

/// How a migration is doing. It never holds a list that grows with the number of mailboxes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MailMigrationStatus {
    /// The generation of the spec that this status is about; -1: the operator has not seen any yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the migration stands, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MigrationPhase>,
    /// Accepted, Ready, Complete and AllCopied are always there; Failed, Stalled, Reconciling, MailboxesFailing,
    /// RemovalPending, DeletionsHeld, PodsRefused, MailboxesRefused, MailboxLimitReached, MailboxNamesTaken, ServerChanged,
    /// Outdated and DeprecatedFields only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// When the first attempt of any mailbox was seen. From then on the servers of source and destination can't change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the migration became Complete or Failed. Absent: it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// When delivery moves: `spec.cutover.at`, or when the operator first saw a cutover without it. Absent: there is no
    /// cutover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover_at: Option<Time>,
    /// When the first of the next delta syncs is due. Absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_at: Option<Time>,
    /// The `spec.syncRequest` that was passed on last, to all mailboxes that it asks for a sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sync_request: Option<String>,
    /// How many mailboxes it asked. Absent: none was passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub sync_request_mailboxes: Option<i32>,
    /// How many mailboxes there are, in all and by phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailboxes: Option<MailboxCounts>,
    /// Messages and bytes of all mailboxes together, as far as they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// The share of all bytes that is at the destination, such as `42%`. Mailboxes that are not known yet count like
    /// the others on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub progress: Option<String>,
    /// The same as a number, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub progress_percent: Option<i32>,
    /// Bytes copied per second over the last minute by all mailboxes together, such as `12 MiB/s`. Absent: nothing is
    /// copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub rate: Option<String>,
    /// The same as a number, bytes per second. Absent: nothing is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_per_second: Option<i64>,
    /// When all bytes will be at the destination, at the current rate. Absent: nothing is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Time>,
    /// How much is left, and how long it takes: from the first listing of a mailbox until all mailboxes are synced or given
    /// up. Absent: nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Up to ten mailboxes that fail, with at least one for each class of error where there is room. `kubectl get
    /// mailboxsyncs` shows all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failures: Vec<FailureSample>,
    /// Mailboxes that left the list and wait for `spec.confirmRemoval`. Absent: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_removal: Option<PendingRemoval>,
    /// What was read from each CSV of `spec.mailboxSecrets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub mailbox_secrets: Vec<CsvStatus>,
    /// What was read from each CSV of `spec.mailboxConfigMaps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub mailbox_config_maps: Vec<CsvStatus>,
}

/// Where a migration stands. Pending: nothing has started, since it is refused or startAt lies ahead. Running:
/// mailboxes are synced, or wait for the next delta sync. Draining: delivery has moved, and delta syncs follow until
/// the sources are quiet. Suspended: stopped by suspend. Stalled: nothing goes on until a person acts. Complete: all
/// mailboxes are done. Failed: all mailboxes have ended, and some of them failed.
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
    /// Every phase; a test holds it complete.
    pub(crate) const ALL: [Self; 7] =
        [Self::Pending, Self::Running, Self::Draining, Self::Suspended, Self::Stalled, Self::Complete, Self::Failed];
}

/// How many mailboxes there are, in all and by phase.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MailboxCounts {
    /// All mailboxes.
    pub total: i32,
    /// Mailboxes that were not looked at yet, are not due yet, or are suspended.
    #[serde(default)]
    pub pending: i32,
    /// Mailboxes that are due and wait for their turn.
    #[serde(default)]
    pub queued: i32,
    /// Mailboxes with an attempt under way.
    #[serde(default)]
    pub running: i32,
    /// Mailboxes whose last sync ended well.
    #[serde(default)]
    pub synced: i32,
    /// Mailboxes that wait for the next attempt after a failure.
    #[serde(default)]
    pub backoff: i32,
    /// Mailboxes that wait for a person.
    #[serde(default)]
    pub stalled: i32,
    /// Mailboxes that were given up.
    #[serde(default)]
    pub failed: i32,
    /// Mailboxes that were stopped by `cancel`.
    #[serde(default)]
    pub cancelled: i32,
    /// Mailboxes in phase Backoff, Stalled or Failed together.
    #[serde(default)]
    pub failing: i32,
}

/// Messages and bytes of all mailboxes together, as far as they are known.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Messages in the folders that are synced.
    #[serde(default)]
    pub messages_total: i64,
    /// Of these, the messages that are at the destination.
    #[serde(default)]
    pub messages_done: i64,
    /// Of these, the messages that were set aside and so not copied, whichever sync found out; accepted ones too.
    #[serde(default)]
    pub messages_skipped: i64,
    /// Messages that the sources hold and the destinations did not get. Absent: no mailbox has reported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_copied: Option<NotCopied>,
    /// Copies that differ from their messages, by kind: flags, internalDate, order, content, size, missing, doubled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub differences: BTreeMap<String, i64>,
    /// The size of the messages, bytes.
    #[serde(default)]
    pub bytes_total: i64,
    /// Of these, the bytes of messages that are at the destination.
    #[serde(default)]
    pub bytes_done: i64,
    /// Attempts that were stopped at their deadline, so that another one went on.
    #[serde(default)]
    pub deadline_restarts: i32,
}

/// How much of the first syncs is left, and how long it takes. Mailboxes that were not listed yet count like the others on
/// average; later delta syncs don't count.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// All of it for people, such as `20 GiB: about 11 days at 24 KiB/s`. At least: by limits alone, since no speed was
    /// measured yet. Unknown: nothing tells.
    #[schemars(length(max = 100))]
    pub text: String,
    /// Mailboxes that no sync has brought over yet.
    #[schemars(range(min = 0))]
    pub mailboxes_left: i64,
    /// Of these, mailboxes that were not listed yet.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub mailboxes_unlisted: i64,
    /// Their messages that are not copied yet. Absent: no mailbox was listed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub messages_left: Option<i64>,
    /// The size of these messages, bytes. Absent: the source does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_left: Option<i64>,
    /// Bytes copied per second by all mailboxes together, as it was measured, smoothed over about a minute. Absent: nothing
    /// was measured yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_per_second: Option<i64>,
    /// How long it takes, or takes at least, seconds. Absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub seconds_left: Option<i64>,
}

/// A mailbox that fails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailureSample {
    /// The mailbox's name.
    #[schemars(length(max = 253))]
    pub mailbox: String,
    /// The mailbox's last error.
    pub error: LastError,
}

/// Mailboxes that left the list and wait for a confirmation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingRemoval {
    /// How many mailboxes wait.
    pub count: i32,
    /// A token that stands for exactly these mailboxes. Written into `spec.confirmRemoval` it has them removed.
    #[schemars(length(max = 64))]
    pub token: String,
    /// The names of up to five of these mailboxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub examples: Vec<String>,
}

/// What was read from the CSV of a Secret or ConfigMap.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CsvStatus {
    /// The object's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The key in its data.
    #[schemars(length(max = 253))]
    pub key: String,
    /// The resourceVersion of the object that was read last. Absent: there is no such object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub resource_version: Option<String>,
    /// How many mailboxes the CSV lists.
    #[serde(default)]
    pub mailboxes: i32,
    /// Why the CSV can't be used, with the line. Its mailboxes then stay as they are. Absent: it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub problem: Option<String>,
}
