//! One mailbox: plan, copy, flags, identity, checkpoint. Knows nothing of Kubernetes.

mod compact;
pub mod filter;
pub mod identity;
pub mod progress;
pub mod report;
pub mod spec;
pub mod store;
pub mod uid_map;
