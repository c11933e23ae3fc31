//! The custom resources: the only definition of what users write and read (group mailferry.io, version v1alpha1).

pub mod cel_rules;
pub mod common;
pub mod crd;
pub mod csv;
pub mod csv_ref;
pub(crate) mod deprecated;
pub mod mail_migration;
pub mod mail_server;
pub mod mailbox_sync;
pub mod names;
pub mod not_copied;
pub mod pod_overrides;
pub(crate) mod rate;
pub mod scalar;
pub mod schema_check;
pub mod settings;
pub mod shared;
pub mod time_window;
pub mod validate;

pub(crate) use common::{
    AcceptNotCopied, Account, CredentialRef, DeletionPolicy, FlagPolicy, FolderRules, MasterMode, MasterUser,
    MessageRules, Namespaces, NotCopiedReason, Rename, SpecialUsePolicy, Subscriptions, Timeouts,
};
pub use common::{LastError, SecretKeyRef};
pub(crate) use csv_ref::CsvRef;
pub use mail_migration::{EndpointSpec, MailMigration, MailMigrationSpec, MailMigrationStatus, MailboxEntry};
pub use mail_server::{MailProvider, MailServer, MailServerSpec, MailServerStatus, Quirks, Tls, TlsMode};
pub use mailbox_sync::{MailboxSync, MailboxSyncSpec, MailboxSyncStatus, SyncEndpoint, WorkerStatus};
pub(crate) use scalar::{Duration, Size};
pub use settings::{Cutover, SyncSettings};

/// `apiVersion` of every resource.
pub(crate) const API_VERSION: &str = "mailferry.io/v1alpha1";
