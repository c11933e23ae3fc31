//! `MailServer`: an IMAP endpoint used again and again.
#![allow(clippy::duplicated_attributes)] // printer columns repeat `type_ = "string"`

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{cel_rules, common::SecretKeyRef, scalar::Size, time_window::TimeWindow};

/// An IMAP server: where it is, how the connection is protected, and how much it may be used.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "mailferry.io",
    version = "v1alpha1",
    kind = "MailServer",
    namespaced,
    status = "MailServerStatus",
    derive = "PartialEq",
    doc = "An IMAP server that migrations of this namespace refer to.",
    shortname = "mserver",
    category = "mailferry",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(name = "TLS", type_ = "string", json_path = ".spec.tls.mode"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MailServerSpec {
    /// The host's name or IP address, without scheme and port: `imap.example.com`, `192.0.2.7`, `2001:db8::7`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(cel_rules::HOST.cel).message(cel_rules::HOST.message))]
    pub host: String,
    /// The TCP port. Left out: 993 with tls.mode Implicit, else 143.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// How the connection is protected, and which certificate is trusted.
    #[serde(default)]
    pub tls: Tls,
    /// How many connections and syncs the server is burdened with at most.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// The server's make, where it is known: Gmail, Exchange (365 too), Cyrus, Courier or Dovecot. Generic: it is found
    /// out by what the server says of itself. It decides, above all, which folder names a destination takes.
    #[serde(default)]
    pub quirks: Quirks,
    /// Whom the server belongs to, or which product it is, for what that one allows and advises: the connections of one
    /// account, daily allowances, and what to do when it refuses a login. Auto: that is found out by the host's name and by
    /// how the server introduces itself. None: nothing is presumed.
    #[serde(default, skip_serializing_if = "MailProvider::is_auto")]
    pub provider: MailProvider,
    /// True: the connection is compressed (COMPRESS=DEFLATE, RFC 4978) where the server offers it. This helps on slow
    /// links only, and costs CPU on both ends.
    #[serde(default)]
    pub compress: bool,
}

impl MailServerSpec {
    /// The port that is used: as given, or the mode's own.
    #[must_use]
    pub(crate) fn effective_port(&self) -> i32 {
        self.port.unwrap_or_else(|| self.tls.mode.default_port().into())
    }
}

/// How a connection is protected.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::ONE_CA.cel).message(cel_rules::ONE_CA.message))]
#[x_kube(validation = Rule::new(cel_rules::NO_TLS.cel).message(cel_rules::NO_TLS.message))]
#[x_kube(validation = Rule::new(cel_rules::INSECURE.cel).message(cel_rules::INSECURE.message))]
pub struct Tls {
    /// Implicit: TLS from the first byte (port 993). StartTLS: the connection is encrypted by STARTTLS (port 143)
    /// before the login, or ended. None: passwords and mail travel in the clear; only for servers on the same machine
    /// or a private wire.
    #[serde(default)]
    pub mode: TlsMode,
    /// Certificates of additional authorities, as PEM text. The system's authorities stay trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    #[x_kube(validation = Rule::new(cel_rules::PEM.cel).message(cel_rules::PEM.message))]
    pub ca_bundle: Option<String>,
    /// Certificates of additional authorities from a Secret, instead of caBundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<SecretKeyRef>,
    /// The name that the certificate must carry. Left out: host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// True: any certificate is accepted, so that whoever is on the way can read passwords and mail. False: the
    /// certificate must be valid and carry the server's name.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

impl Tls {
    /// True when the connection is encrypted and the server's certificate is that of its host, by the authorities that the
    /// system trusts and no others.
    #[must_use]
    pub(crate) const fn trusts_system_alone(&self) -> bool {
        !matches!(self.mode, TlsMode::None)
            && self.ca_bundle.is_none()
            && self.ca_bundle_ref.is_none()
            && self.server_name.is_none()
            && !self.insecure_skip_verify
    }
}

/// When TLS begins.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// From the first byte (RFC 8314).
    #[default]
    Implicit,
    /// By STARTTLS (RFC 9051, section 6.2.1).
    #[serde(rename = "StartTLS")]
    StartTls,
    /// Never.
    None,
}

impl TlsMode {
    /// The port that servers have for it (RFC 8314, section 3.2; RFC 9051, section 2.1).
    #[must_use]
    pub(crate) const fn default_port(self) -> u16 {
        match self {
            Self::Implicit => 993,
            Self::StartTls | Self::None => 143,
        }
    }
}

/// How many connections and syncs a server is burdened with at most, by all migrations of this namespace. Limits for
/// its host in the operator's configuration hold too: these here can only lower them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(cel_rules::PACE.cel).message(cel_rules::PACE.message))]
pub struct Limits {
    /// The most connections at one time, all migrations of the namespace together. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_connections: Option<i32>,
    /// The most connections at one time for one mailbox; it lowers the migration's `connections`. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub max_connections_per_mailbox: Option<i32>,
    /// The most syncs that start within one minute, all migrations of the namespace together. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub starts_per_minute: Option<i32>,
    /// The most bytes in a second, to and from the server, all migrations of the namespace together: each connection gets its
    /// part, one in `maxConnections`, which has to be there; of what is left free the others get nothing. At least 64Ki. Left
    /// out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Size>,
    /// When syncs of this server may run: while one of these windows is open. A sync that runs when they close saves its
    /// checkpoint, ends, and goes on when they open next; a sync that somebody asks for waits, too. Left out: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 20))]
    pub windows: Vec<TimeWindow>,
}

impl Limits {
    /// The part of `bytesPerSecond` that belongs to one connection.
    #[must_use]
    pub(crate) fn bytes_per_connection(&self) -> Option<u64> {
        let connections = u64::try_from(self.max_connections?).ok()?.max(1);
        Some(self.bytes_per_second?.bytes() / connections)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known about a server beyond what it announces.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Quirks {
    /// Trust what the server announces.
    #[default]
    Generic,
    /// Gmail.
    Gmail,
    /// Microsoft Exchange and 365.
    Exchange,
    /// Cyrus.
    Cyrus,
    /// Courier.
    Courier,
    /// Dovecot.
    Dovecot,
}

/// Whom a server belongs to, or which product it is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MailProvider {
    /// Found out.
    #[default]
    Auto,
    /// Nobody of whom anything is known.
    None,
    /// AOL Mail.
    #[serde(rename = "AOL")]
    Aol,
    /// HCL (once IBM, Lotus) Domino.
    Domino,
    /// Fastmail.
    Fastmail,
    /// Gmail and Google Workspace.
    Gmail,
    /// GMX.
    #[serde(rename = "GMX")]
    Gmx,
    /// hMailServer.
    HMailServer,
    /// Apple iCloud Mail.
    ICloud,
    /// Kerio Connect.
    Kerio,
    /// Exchange Online (Microsoft 365) and Outlook.com.
    Microsoft,
    /// NetEase: 163.com, 126.com, yeah.net.
    NetEase,
    /// WEB.DE.
    WebDe,
    /// Yahoo Mail.
    Yahoo,
    /// Zimbra.
    Zimbra,
    /// Zoho Mail.
    Zoho,
}

impl MailProvider {
    /// True where the host decides. It is not written, so that objects of before have the same hash.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    const fn is_auto(&self) -> bool {
        matches!(self, Self::Auto)
    }
}

/// What connection tests found, and how much the server is used.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MailServerStatus {
    /// The generation of the spec that was tested last; -1: none was tested yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: True when a connection could be made and the certificate is trusted; without a login. Stalled: there
    /// while the last test failed and a person has to change something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 20))]
    pub conditions: Vec<Condition>,
    /// When the connection was tested last. While the result stays the same, it is written once an hour at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Time>,
    /// What the last successful test found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<ServerFacts>,
    /// Connections to the server that running syncs of this namespace hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub connections_in_use: Option<i32>,
}

/// What a server said of itself, parsed: never its raw bytes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ServerFacts {
    /// The version of TLS that was agreed on, for example `TLS 1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub tls_version: Option<String>,
    /// The name that the certificate was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub certificate_subject: Option<String>,
    /// When the certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Time>,
    /// The authentication mechanisms that the server offers, of those that Mailferry knows, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 50), inner(length(max = 50)))]
    pub mechanisms: Vec<String>,
    /// The capabilities that the server announces before a login, of those that Mailferry knows, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 100), inner(length(max = 50)))]
    pub capabilities: Vec<String>,
}
