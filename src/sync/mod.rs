//! One mailbox: plan, copy, flags, identity, checkpoint. Knows nothing of Kubernetes.

pub mod progress;
pub mod report;
pub mod spec;
pub mod store;
