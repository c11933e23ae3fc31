//! The MailboxSync controller: one mailbox, from what is observed to what is written and done.

mod apply;
pub mod conditions;
pub mod count;
pub mod decide;
#[cfg(test)]
mod model;
pub mod needs;
pub mod observe;
pub mod reconcile;
pub mod secrets;
pub mod settle;
pub mod tally;
#[cfg(test)]
mod tests;
