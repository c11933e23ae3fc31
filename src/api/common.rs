//! Parts that several resources share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cel_rules,
    scalar::{Duration, Size},
};
use crate::error::{Error, ErrorClass, Side};

/// The longest name of a mailbox, characters.
pub(crate) const MAX_MAILBOX_NAME: u32 = 253;
/// The longest login name, characters.
pub(crate) const MAX_USERNAME: u32 = 320;
/// A login name: anything but control characters, which would end it for a server.
pub(crate) const USERNAME_PATTERN: &str = r"^\P{Cc}+$";

/// Another object in the same namespace, by name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// One value of a Secret in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in the Secret's data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// The type of a Secret with an application of its own, by which access tokens are asked for.
pub(crate) const OAUTH_CLIENT_TYPE: &str = "mailferry.io/oauth-client";
/// The type of a Secret with a user's consent, by which access tokens are asked for.
pub(crate) const OAUTH_GRANT_TYPE: &str = "mailferry.io/oauth-grant";

/// How one side of a mailbox logs in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::ONE_CREDENTIAL.cel).message(cel_rules::ONE_CREDENTIAL.message))]
pub struct Account {
    /// The login name of the account. Left out: at the source the mailbox's name, at the destination the source's
    /// username.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_USERNAME), regex(pattern = USERNAME_PATTERN))]
    pub username: Option<String>,
    /// The account's password. Every byte of the Secret's value counts, a line break at its end too. Not needed where
    /// the migration has a masterUser or a grantRef on this side; where both are there, the password is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// An OAuth 2.0 access token for XOAUTH2, instead of a password. It is read again before each connection, so that a
    /// new one counts at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// A grant, by which access tokens are asked for and renewed, instead of a password or a token. The Secret has the
    /// type `mailferry.io/oauth-client` (an application of its own at Microsoft or Google) or `mailferry.io/oauth-grant`
    /// (a user's consent, as `mailferry login` writes it; for `mailferry run` only). In a cluster the operator asks, and no pod
    /// sees the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_secret_ref: Option<LocalRef>,
}

/// Where the credential of an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialRef<'a> {
    /// A password.
    Password(&'a SecretKeyRef),
    /// An OAuth 2.0 access token.
    Token(&'a SecretKeyRef),
    /// A grant that gives such tokens.
    Grant(&'a LocalRef),
}

impl CredentialRef<'_> {
    /// The Secret and key, where it is one value.
    #[must_use]
    pub(crate) const fn secret(&self) -> Option<&SecretKeyRef> {
        match self {
            Self::Password(secret) | Self::Token(secret) => Some(secret),
            Self::Grant(_) => None,
        }
    }
}

impl Account {
    /// Where this account's own credential is, if it has one.
    #[must_use]
    pub(crate) fn credential(&self) -> Option<CredentialRef<'_>> {
        let password = self.password_secret_ref.as_ref().map(CredentialRef::Password);
        let token = || self.token_secret_ref.as_ref().map(CredentialRef::Token);
        password.or_else(token).or_else(|| self.grant_secret_ref.as_ref().map(CredentialRef::Grant))
    }
}

/// An administrator of the server who logs in for each mailbox without a credential of its own, so that the customers'
/// passwords need not be known. In a cluster it works only with a serverRef, and only where the operator's
/// configuration allows it (`masterUsers`).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::SEPARATOR.cel).message(cel_rules::SEPARATOR.message))]
pub struct MasterUser {
    /// The administrator's login name.
    #[schemars(length(min = 1, max = MAX_USERNAME), regex(pattern = USERNAME_PATTERN))]
    pub username: String,
    /// The administrator's password.
    pub password_secret_ref: SecretKeyRef,
    /// How the administrator names the mailbox. AuthorizationIdentity: AUTHENTICATE PLAIN with the mailbox's user as
    /// authorization identity (RFC 4616). Suffix: the login name is the mailbox's user, the separator and the
    /// administrator's name (Dovecot's `user*master`).
    #[serde(default)]
    pub mode: MasterMode,
    /// The text between user and administrator in mode Suffix. Left out: `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub separator: Option<String>,
}

impl MasterUser {
    /// What stands between user and administrator in mode Suffix where nothing else is said.
    pub const DEFAULT_SEPARATOR: &str = "*";
}

/// How an administrator names the mailbox.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MasterMode {
    /// AUTHENTICATE PLAIN with an authorization identity (RFC 4616).
    #[default]
    AuthorizationIdentity,
    /// `user` + separator + administrator.
    Suffix,
}

/// Which folders are synced, and what they are called at the destination. Rules see names as people do: with `/`
/// between levels whatever the server uses, and without the server's prefix (`INBOX.`).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::PATTERNS.cel).message(cel_rules::PATTERNS.message))]
pub struct FolderRules {
    /// Only folders whose name matches one of these patterns are synced; empty: all. A pattern is a glob (`*` within a
    /// level, `**` across levels: `Projects/**`) or, between slashes, a regular expression that matches the whole name
    /// (`/20[0-9]{2}/`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 500)))]
    pub include: Vec<String>,
    /// Folders whose name matches one of these patterns are not synced, even where include matches too. Patterns are
    /// those of include.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 500)))]
    pub exclude: Vec<String>,
    /// New names for folders. The first rule that matches is used, before specialUse. Names that were used once stay: a
    /// later rule renames nothing at the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub rename: Vec<Rename>,
    /// A folder of the destination that everything is put below, INBOX too, for example `Old mail`. Left out: folders
    /// keep their level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    #[x_kube(validation = Rule::new(cel_rules::INTO.cel).message(cel_rules::INTO.message))]
    pub into: Option<String>,
    /// Map: a folder with a special use (sent mail, drafts, junk, trash, archive) goes to the destination's folder for
    /// the same use. Ignore: it keeps its name.
    #[serde(default)]
    pub special_use: SpecialUsePolicy,
    /// Copy: folders that are subscribed at the source are subscribed at the destination. Ignore: the destination's
    /// subscriptions stay as they are.
    #[serde(default)]
    pub subscriptions: Subscriptions,
    /// Personal: only the account's own folders are synced. All: also other users' and shared folders, and views that
    /// show the messages of other folders again (Gmail's All Mail and Starred).
    #[serde(default)]
    pub namespaces: Namespaces,
}

/// A new name for a folder.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// A folder's name, which stands for what is below it too (`Work` also renames `Work/2024`); or, between slashes, a
    /// regular expression that matches the whole name (`/Old (.*)/`).
    #[schemars(length(min = 1, max = 500))]
    pub from: String,
    /// The new name. After a regular expression, `$1` inserts a group, `${1}` where a letter or digit follows.
    #[schemars(length(min = 1, max = 500))]
    pub to: String,
}

/// What special uses of folders mean.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SpecialUsePolicy {
    /// Into the destination's folder for the same use.
    #[default]
    Map,
    /// Names stay as they are.
    Ignore,
}

/// What happens to subscriptions.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Subscriptions {
    /// Subscribed at the source, so at the destination.
    #[default]
    Copy,
    /// Left alone.
    Ignore,
}

/// Whose folders are meant.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Namespaces {
    /// The account's own.
    #[default]
    Personal,
    /// Everything the account sees.
    All,
}

/// Which messages are synced. Messages that a rule leaves out are counted and reported by rule, and judged again by
/// each sync. A message that was copied once stays copied, whatever later rules say.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::SINCE_BEFORE.cel).message(cel_rules::SINCE_BEFORE.message))]
#[x_kube(validation = Rule::new(cel_rules::AGES.cel).message(cel_rules::AGES.message))]
#[x_kube(validation = Rule::new(cel_rules::SIZES.cel).message(cel_rules::SIZES.message))]
pub struct MessageRules {
    /// Only messages that arrived (INTERNALDATE) at or after this time are synced, for example `2024-01-01T00:00:00Z`.
    /// Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Only messages that arrived (INTERNALDATE) before this time are synced. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Time>,
    /// Only messages that arrived at most this many days before the sync are synced. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub max_age_days: Option<i32>,
    /// Only messages that arrived at least this many days before the sync are synced. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub min_age_days: Option<i32>,
    /// Only messages of at least this size are synced, for example `10Ki`. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<Size>,
    /// Only messages of at most this size are synced, for example `25Mi`. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
    /// True: messages with the flag \Deleted are not synced. False: they are synced, with the flag.
    #[serde(default)]
    pub skip_deleted: bool,
    /// Messages that may be missing at the destination, since somebody knows of them and agrees. They are still tried,
    /// and counted apart from the others; a sync without them ends as one with nothing missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub accept_not_copied: Vec<AcceptNotCopied>,
}

/// Messages that may be missing at the destination: all that were not copied for one reason, or single ones of a folder.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::ONE_ACCEPTED.cel).message(cel_rules::ONE_ACCEPTED.message))]
#[x_kube(validation = Rule::new(cel_rules::ACCEPTED_MESSAGES.cel).message(cel_rules::ACCEPTED_MESSAGES.message))]
pub struct AcceptNotCopied {
    /// All messages of all folders that were not copied for this reason, also later ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<NotCopiedReason>,
    /// The source folder that the messages are in, named as a report names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub folder: Option<String>,
    /// The messages: the folder's UIDVALIDITY, a colon, and UIDs as a report names them, such as `1500000000:7,9:12`.
    /// Where the folder is made anew, with another UIDVALIDITY, none of its messages is accepted any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(
            length(min = 3, max = 1000),
            regex(
                pattern = r"^[1-9][0-9]{0,9}:[1-9][0-9]{0,9}(:[1-9][0-9]{0,9})?(,[1-9][0-9]{0,9}(:[1-9][0-9]{0,9})?)*$"
            )
        )
    )]
    pub messages: Vec<String>,
}

/// All messages of all folders that were not copied for this reason, also later ones: larger than the destination takes
/// (`TooLarge`), refused by the destination (`Refused`; `Empty` where they have no bytes), not delivered by the source
/// (`Unreadable`), or counted by the source and listed nowhere (`Unlisted`).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCopiedReason {
    /// Larger than the destination takes.
    TooLarge,
    /// The destination refused them.
    Refused,
    /// The source could not deliver them.
    Unreadable,
    /// They have no bytes, and the destination refused them.
    Empty,
    /// The source counts them and lists them nowhere.
    Unlisted,
}

/// What happens to flags of messages that were copied before.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlagPolicy {
    /// What changed at the source is changed at the destination.
    #[default]
    SourceWins,
    /// Flags are set when a message is copied and never touched again.
    Ignore,
}

/// What happens to copies whose source message was deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeletionPolicy {
    /// They stay.
    #[default]
    Keep,
    /// They are removed, if Mailferry put them there itself.
    Mirror,
}

/// How long answers of the mail servers are waited for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The longest wait for each of these: the TCP connection, the TLS handshake, the server's greeting. Then the
    /// connection has failed, and another one is made (see retry).
    #[serde(default = "Timeouts::connect")]
    #[x_kube(validation = Rule::new(cel_rules::CONNECT.cel).message(cel_rules::CONNECT.message))]
    pub connect: Duration,
    /// The longest silence while an answer is due. Then the connection is given up, and another one is made (see
    /// retry).
    #[serde(default = "Timeouts::reply")]
    #[x_kube(validation = Rule::new(cel_rules::REPLY.cel).message(cel_rules::REPLY.message))]
    pub reply: Duration,
    /// How long a connection may be idle before a NOOP is sent to keep it open.
    #[serde(default = "Timeouts::keepalive")]
    #[x_kube(validation = Rule::new(cel_rules::KEEPALIVE.cel).message(cel_rules::KEEPALIVE.message))]
    pub keepalive: Duration,
}

impl Timeouts {
    const fn connect() -> Duration {
        Duration::from_secs(30)
    }

    const fn reply() -> Duration {
        Duration::from_secs(120)
    }

    const fn keepalive() -> Duration {
        Duration::from_secs(120)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Self::connect(), reply: Self::reply(), keepalive: Self::keepalive() }
    }
}

/// How often and how soon is tried again what failed by network, throttling or a server's protocol error. Within an
/// attempt connections are made anew; between attempts the mailbox waits in phase Backoff.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::RECONNECT_BACKOFF.cel).message(cel_rules::RECONNECT_BACKOFF.message))]
#[x_kube(validation = Rule::new(cel_rules::BACKOFF.cel).message(cel_rules::BACKOFF.message))]
#[x_kube(validation = Rule::new(cel_rules::PATIENCE.cel).message(cel_rules::PATIENCE.message))]
pub struct Retry {
    /// Within an attempt: how many connections in a row may fail without progress before the attempt ends with the
    /// error.
    #[serde(default = "Retry::reconnects")]
    #[schemars(range(min = 0, max = 100))]
    pub reconnects: i32,
    /// Within an attempt: the wait before the first new connection. It doubles with each failure in a row, and varies
    /// by jitter.
    #[serde(default = "Retry::reconnect_backoff")]
    pub reconnect_backoff: Duration,
    /// Within an attempt: the longest wait before a new connection.
    #[serde(default = "Retry::reconnect_max_backoff")]
    pub reconnect_max_backoff: Duration,
    /// Within an attempt: how long it waits, all in all for each account, for a server that fails by itself or asks for
    /// a slower pace. Then the attempt ends with the error. The destination may take as long to store one message.
    #[serde(default = "Retry::patience")]
    pub patience: Duration,
    /// Between attempts: the wait after the first failure. It doubles with each failure in a row, and varies by jitter.
    #[serde(default = "Retry::initial_backoff")]
    pub initial_backoff: Duration,
    /// Between attempts: the longest wait. Mailboxes that are Stalled for want of rights, room or a valid certificate
    /// are tried again after it too.
    #[serde(default = "Retry::max_backoff")]
    pub max_backoff: Duration,
    /// Between attempts: how many attempts in a row may fail without progress before the mailbox is Failed and not
    /// tried again. Left out: it is tried again without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_failures: Option<i32>,
}

impl Retry {
    const fn reconnects() -> i32 {
        6
    }

    const fn reconnect_backoff() -> Duration {
        Duration::from_millis(500)
    }

    const fn reconnect_max_backoff() -> Duration {
        Duration::from_secs(60)
    }

    const fn patience() -> Duration {
        Duration::from_secs(900)
    }

    const fn initial_backoff() -> Duration {
        Duration::from_secs(60)
    }

    const fn max_backoff() -> Duration {
        Duration::from_secs(3600)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            reconnects: Self::reconnects(),
            reconnect_backoff: Self::reconnect_backoff(),
            reconnect_max_backoff: Self::reconnect_max_backoff(),
            patience: Self::patience(),
            initial_backoff: Self::initial_backoff(),
            max_backoff: Self::max_backoff(),
            max_failures: None,
        }
    }
}

/// An error: where and when it happened, what it is, and what to do about it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// What kind of failure it is: Authentication, Authorization, Quota, Throttled, Network, Tls, Protocol,
    /// MessageRejected, Configuration or Internal. The class decides what happens next: see the runbook.
    pub class: ErrorClass,
    /// The account that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Host and port of the server, as configured. Absent: no server is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub host: Option<String>,
    /// The folder, by its name at that side. Absent: the error concerns no single folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub folder: Option<String>,
    /// What happened, in a clause.
    #[schemars(length(max = 1000))]
    pub message: String,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub advice: Option<String>,
    /// When it happened. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The time before which trying again makes no sense, as the server said. Absent: it said none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
}

impl LastError {
    /// An error as it is shown in status, its texts cut to what the schema allows.
    #[must_use]
    pub fn new(error: &Error, at: Option<Time>) -> Self {
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        Self {
            class: error.class,
            side: error.side,
            host: error.host.as_deref().map(|host| cut(host, 300)),
            folder: error.folder.as_deref().map(|folder| cut(folder, 1000)),
            message: cut(&error.what, 1000),
            advice: error.advice.as_deref().map(|advice| cut(advice, 1000)),
            at,
            retry_at: error.retry_at.map(Time),
        }
    }
}
