//! A migration without a cluster: the same manifests, a state folder, progress bars.

pub mod manifest;
pub mod secrets;
