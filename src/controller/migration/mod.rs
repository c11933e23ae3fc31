//! The MailMigration controller: what a person wrote becomes one MailboxSync per mailbox, and their state one status.

pub mod aggregate;
pub(crate) mod child_sync;
pub mod children;
pub mod conditions;
pub mod csv_secrets;
pub(crate) mod csv_statuses;
pub(crate) mod expand;
pub(crate) mod memory;
pub(crate) mod orphans;
pub mod prune;
pub mod reconcile;
pub(crate) mod refused_writes;
pub(crate) mod server_pin;
pub(crate) mod sync_request;
pub(crate) mod take_over;
pub(crate) mod work_left;
