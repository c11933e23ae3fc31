//! The operator: watches MailMigrations, MailboxSyncs and pods, decides, and writes. Decisions are pure functions;
//! effects are in the `reconcile` and `apply` files.

pub mod addresses;
pub mod admission;
pub(crate) mod cache;
pub mod condition;
pub mod config;
pub(crate) mod context;
pub mod destinations;
pub(crate) mod error;
pub(crate) mod events;
pub mod leader;
pub mod mailbox;
pub(crate) mod merge;
pub mod migration;
pub(crate) mod namespace;
pub(crate) mod networks;
pub(crate) mod not_copied;
pub mod objects;
pub mod pod;
pub(crate) mod reference;
pub(crate) mod retry;
pub(crate) mod rights;
pub mod run;
pub mod server;
#[cfg(test)]
mod testing;
pub mod watches;
pub(crate) mod write_guard;
pub(crate) mod written;
