//! The MailboxSync controller: one mailbox, from what is observed to what is written and done.

mod apply;
pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod count;
pub mod decide;
#[cfg(test)]
mod model;
pub(crate) mod needs;
pub mod observe;
pub mod reconcile;
pub(crate) mod secrets;
pub mod settle;
mod status;
pub(crate) mod tally;
#[cfg(test)]
mod tests;
