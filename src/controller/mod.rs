//! The operator: watches MailMigrations, MailboxSyncs and pods, decides, and writes. Decisions are pure functions;
//! effects are in the `reconcile` and `apply` files.

pub mod addresses;
pub mod admission;
pub mod cache;
pub mod condition;
pub mod config;
pub mod context;
pub mod destinations;
pub mod leader;
pub mod mailbox;
pub mod merge;
pub mod migration;
pub mod namespace;
pub mod networks;
pub mod not_copied;
pub mod objects;
pub mod pod;
pub mod reference;
pub mod rights;
pub mod run;
pub mod server;
#[cfg(test)]
mod testing;
pub mod watches;
pub mod write_guard;
