//! A migration without a cluster: the same manifests, a state folder, progress on the terminal.

pub(crate) mod account_lock;
pub(crate) mod account_pair;
pub(crate) mod account_url;
pub(crate) mod check;
pub(crate) mod export;
mod file_lock;
pub(crate) mod grant_folder;
pub(crate) mod key_values;
pub mod mailbox_queue;
pub(crate) mod mailbox_runner;
pub mod manifest;
pub(crate) mod match_notice;
pub(crate) mod outcome;
pub mod progress_board;
pub(crate) mod read_only_run;
pub(crate) mod report_text;
pub mod run;
pub mod run_report;
pub mod secrets;
pub(crate) mod server_proposal;
pub mod state_folder;
pub(crate) mod state_location;
pub(crate) mod verify_report;
pub mod view;
pub(crate) mod window_watch;
