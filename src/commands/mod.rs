//! The commands of the `mailferry` binary, one file each, and what they share.

pub mod account_args;
pub mod check;
pub mod checkpoint;
pub mod completions;
pub mod connection_args;
pub mod controller;
pub mod copy;
pub mod crds;
pub mod doctor;
pub mod export;
pub mod import;
pub mod init;
pub mod kubectl;
pub mod log_args;
pub mod login;
pub mod man;
pub mod manifest_args;
pub mod migration_args;
pub(crate) mod password_source;
pub mod run;
mod saved_file;
pub mod shared_args;
pub mod sync_args;
pub mod uninstall;
pub mod verify;
pub mod version;
pub mod worker;
