//! A migration without a cluster: the same manifests, a state folder, progress on the terminal.

pub(crate) mod check;
pub(crate) mod each;
pub(crate) mod export;
pub mod manifest;
pub(crate) mod outcome;
pub mod progress;
pub mod report;
pub mod run;
pub mod schedule;
pub mod secrets;
pub mod state;
pub mod text;
pub(crate) mod verify;
pub mod view;
