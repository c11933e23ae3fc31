//! Access tokens for sync pods. A client's secret, a key or a refresh token never enters a pod: the operator gets access
//! tokens with them, and writes those into a Secret that the MailboxSync controls and its pod mounts.
//!
//! That is done by tasks of its own, beside the reconcilers: an endpoint that is slow keeps nobody else waiting.

pub mod decide;
pub(crate) mod keeper;
pub(crate) mod provider;
pub(crate) mod renewal;
pub(crate) mod secret;
