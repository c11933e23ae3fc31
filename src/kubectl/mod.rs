//! The plugin for kubectl: how migrations and their mailboxes stand, for whoever may read them, and requests to the operator.
//!
//! What is shown and what is asked is decided by pure functions; [`requests`] alone talks to the API server.

pub(crate) mod failed_text;
pub(crate) mod mailbox_view;
pub(crate) mod requests;
pub(crate) mod status_text;
pub(crate) mod steer;
