//! The commands of the `mailferry` binary, one file each, and what they share.

pub mod check;
pub mod checkpoint;
pub mod controller;
pub mod crds;
pub mod doctor;
pub mod export;
pub mod import;
pub mod manifest_args;
pub mod run;
pub mod shared_args;
pub mod verify;
pub mod worker;
