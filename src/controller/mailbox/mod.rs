//! The MailboxSync controller: one mailbox, from what is observed to what is written and done.

mod apply;
pub mod attempt_end;
mod attempt_input;
pub(crate) mod backoff;
#[cfg(test)]
mod cluster_model;
pub(crate) mod conditions;
pub mod decide;
pub(crate) mod due;
pub(crate) mod effects;
#[cfg(test)]
mod model_check;
pub mod observe;
pub(crate) mod phase_metrics;
#[cfg(test)]
mod played_day;
mod pod_answer;
mod quiet_deltas;
pub mod reconcile;
pub(crate) mod secret_versions;
pub(crate) mod slot_request;
pub(crate) mod slot_wait;
mod start_wait;
mod status;
pub(crate) mod sync_metrics;
#[cfg(test)]
mod tests;
pub(crate) mod time_windows;
