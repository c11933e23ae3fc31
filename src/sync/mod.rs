//! One mailbox: plan, copy, flags, identity, checkpoint. Knows nothing of Kubernetes.

pub mod checkpoint;
mod compact;
pub mod deletion;
pub mod filter;
pub mod flags;
pub mod folder_map;
pub mod folder_name;
pub mod identity;
pub mod progress;
pub mod report;
pub mod spec;
pub mod special_use;
pub mod uid_map;
