//! One mailbox: plan, copy, flags, identity, checkpoint. Knows nothing of Kubernetes.

pub mod accounts;
mod adopt;
mod breaker;
pub mod checkpoint;
mod compact;
mod copy;
mod deletion;
mod doubt;
pub mod engine;
pub(crate) mod export;
pub(crate) mod filter;
pub mod flags;
mod folder;
pub(crate) mod folder_map;
pub(crate) mod folder_name;
pub mod identity;
mod job;
mod ledger;
mod limits;
mod lookup;
mod mirror;
mod open;
mod pair;
mod passes;
mod prepare;
pub mod progress;
mod readback;
mod renames;
pub mod report;
mod scan;
pub mod set_aside;
pub mod spec;
pub mod special_use;
pub mod store;
mod store_flags;
mod suspects;
#[cfg(test)]
pub(crate) mod testing;
mod trouble;
pub mod uid_map;
pub mod verify;
mod views;

pub use engine::{SyncContext, sync_mailbox};
