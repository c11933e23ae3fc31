//! MailServers: a connection test on change and now and then, and what it found as conditions and facts.

mod connection_check;
pub mod decide;
mod reconcile;

pub use decide::ServerCheckTimes;
pub use reconcile::{ConnectionCounter, ServerContext, ServerOutputs, reconcile};
