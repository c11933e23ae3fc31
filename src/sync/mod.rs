//! One mailbox: plan, copy, flags, identity, checkpoint. Knows nothing of Kubernetes.

mod adopt;
pub mod checkpoint;
pub mod checkpoint_store;
mod circuit_breaker;
mod connection_pair;
mod copy;
mod copy_search;
mod deletion_plan;
pub mod engine;
mod failure_bisect;
mod fetch_facts;
pub(crate) mod filter;
pub mod flag_changes;
mod folder_copy;
mod folder_creation;
pub(crate) mod folder_name;
pub(crate) mod folder_plan;
mod folder_sync;
pub mod identity;
mod job;
mod limits;
mod live_checkpoint;
mod mirror_deletions;
mod open_folder;
pub mod plan_preview;
mod prepare;
pub mod progress;
mod read_back;
mod renames;
pub mod report;
mod scan;
pub mod set_aside;
pub(crate) mod source_reader;
pub mod spec;
pub mod special_use;
mod store_flags;
mod suspects;
#[cfg(test)]
pub(crate) mod testing;
pub mod uid;
pub mod uid_map;
mod varint;
pub mod verify;
mod views;

pub use engine::{SyncContext, sync_mailbox};
