//! One mailbox: plan, copy, flags, identity, checkpoint. Knows nothing of Kubernetes.

pub mod filter;
pub mod identity;
pub mod progress;
pub mod report;
pub mod spec;
pub mod store;
