//! The operator: watches MailMigrations, MailboxSyncs and pods, decides, and writes. Decisions are pure functions;
//! effects are in the `reconcile` and `apply` files.

pub mod address_guard;
pub mod admission;
pub(crate) mod all_copied;
pub(crate) mod cache;
pub mod cached_objects;
pub(crate) mod cluster_networks;
pub mod condition;
pub mod config;
pub(crate) mod context;
pub mod destination_policy;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod finished_pods;
pub mod leader;
pub mod mailbox;
pub mod master_users;
pub(crate) mod merge_patch;
pub mod migration;
pub mod operator;
pub(crate) mod owner_reference;
pub(crate) mod permissions;
pub mod pod_builder;
pub mod pod_defaults;
pub(crate) mod reconcile_loop;
pub(crate) mod reconcile_queue;
pub(crate) mod request_limit;
pub(crate) mod retry;
pub mod server;
pub(crate) mod shared_parts;
#[cfg(test)]
mod testing;
pub mod uninstall;
pub mod watches;
pub(crate) mod worker_rbac;
pub(crate) mod write_guard;
pub(crate) mod written;
