//! What a check found, as it is printed and written: parsed facts, never a secret.

use std::net::SocketAddr;

use serde::Serialize;

use crate::{
    error::{Error, Side},
    imap::certificate::Certificate,
};

/// What a check of one mailbox found.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MailboxCheck {
    /// The mailbox's name in the migration.
    pub mailbox: String,
    /// What would keep a run from ending well.
    pub problems: Vec<Error>,
    /// What a person should look at before a run.
    pub warnings: Vec<CheckWarning>,
    /// The source, where its login worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SideFindings>,
    /// The destination, where its login worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<SideFindings>,
    /// Where folders go, when both sides were seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<CheckedMapping>,
    /// What a run would copy, about; none where one side could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incoming: Option<IncomingMail>,
}

/// What a run would bring, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IncomingMail {
    /// Messages.
    pub messages: u64,
    /// Their bytes; none when a size that is needed is not known.
    pub bytes: Option<u64>,
}

/// One side of a mailbox.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SideFindings {
    /// Host and port, as configured.
    pub address: String,
    /// The account.
    pub username: String,
    /// The address that was connected to.
    pub peer: Option<SocketAddr>,
    /// What kind of server it is, as far as Mailferry treats kinds differently.
    pub server: String,
    /// Whose it is, or which product, where something is known of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<&'static str>,
    /// How it introduces itself.
    pub name: String,
    /// `TLS 1.3`; none in the clear.
    pub tls: Option<String>,
    /// The server's certificate.
    pub certificate: Option<Certificate>,
    /// SASL mechanisms that are offered for logging in.
    pub mechanisms: Vec<String>,
    /// The one that was used, or `LOGIN`.
    pub login: String,
    /// Which grant gave the access token, and until when that is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Extensions in use.
    pub offers: Vec<String>,
    /// Extensions that would help and are not offered.
    pub lacks: Vec<MissingExtension>,
    /// How much it holds where a message stands in several folders, by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelledMail>,
    /// Folders that can hold messages.
    pub folders: u64,
    /// Messages in all of them.
    pub messages: u64,
    /// Bytes in all of them, where that is known without reading much.
    pub bytes: Option<u64>,
    /// The largest message that it takes, bytes, where it says so.
    pub append_limit: Option<u64>,
    /// How much it may hold and holds, where it says so: bytes.
    pub storage: Option<QuotaRoom>,
    /// The same in messages.
    pub message_room: Option<QuotaRoom>,
}

/// What an account of labels (Gmail) holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabelledMail {
    /// As its folders show it, a message as often as it has labels, and what was archived.
    pub folders: IncomingMail,
    /// Each message once.
    pub once: IncomingMail,
}

/// A limit and what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub(crate) struct QuotaRoom {
    /// In use.
    pub used: u64,
    /// At most.
    pub limit: u64,
}

impl QuotaRoom {
    /// What is left.
    #[must_use]
    pub(crate) const fn free(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// An extension that is not offered, and what that costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MissingExtension {
    /// As servers announce it.
    pub extension: &'static str,
    /// What is slower or unknown without it.
    pub cost: &'static str,
}

/// Something to look at that keeps no run from ending well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckWarning {
    /// What it is about, for programs.
    pub topic: WarningTopic,
    /// The account, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// What it is and what to do, for people.
    pub what: String,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WarningTopic {
    /// A certificate expires soon, or has.
    Certificate,
    /// A password is stored in a way that is seldom meant.
    Credential,
    /// Passwords and mail travel in the clear, or to whoever shows any certificate.
    Unprotected,
    /// The source looks as if its mail was fetched by POP3.
    Pop3,
    /// The source holds nothing.
    EmptySource,
    /// Both names lead to one machine, or both accounts look the same.
    SameServer,
    /// The destination holds mail already.
    NotEmpty,
    /// The destination may not have the room.
    Quota,
    /// The migration asks for what the destination cannot do.
    Unsupported,
    /// A checkpoint could not be used.
    Checkpoint,
    /// Rules for folders do nothing, or leave everything out.
    Folders,
    /// The source holds messages that a run would not copy.
    NotCopied,
    /// The account's provider allows less than is asked for, or has a better host.
    Provider,
}

/// Where folders go.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckedMapping {
    /// The folders, in the order of the destination.
    pub folders: Vec<MappedFolder>,
    /// Source folders that are left out, and why.
    pub left_out: Vec<crate::sync::report::LeftOut>,
    /// What is different or was decided, folder by folder.
    pub notes: Vec<String>,
}

/// Where one folder goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MappedFolder {
    /// Decoded source name.
    pub source: String,
    /// Decoded destination name.
    pub destination: String,
    /// Messages at the source.
    pub messages: Option<u32>,
    /// Bytes at the source, where that is known.
    pub bytes: Option<u64>,
    /// The folder is at the destination already.
    pub exists: bool,
    /// It holds no messages: there for its children.
    pub container: bool,
}
