//! Mailferry moves mailboxes between IMAP servers: exactly, resumably, at the speed of the wire.
#![forbid(unsafe_code)]

pub mod api;
pub(crate) mod clock;
pub mod command_line;
pub mod commands;
pub mod controller;
pub mod error;
pub(crate) mod forecast;
#[doc(hidden)]
pub mod fuzz;
pub(crate) mod host_name;
pub mod http_client;
pub mod imap;
pub mod import;
pub(crate) mod kubectl;
pub mod local;
pub mod resolve;
pub(crate) mod start_limits;
pub mod sync;
pub mod sync_times;
pub mod telemetry;
pub mod terminal_text;
pub mod worker;
pub mod yaml;

pub use error::{Error, ErrorClass, ErrorRemedy, Result, Side};
