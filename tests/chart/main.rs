//! The Helm chart and deploy/: what they render, refuse, and what a real API server says to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod agreement;
mod doctor;
mod generated;
mod helm;
mod install;
mod rendered;
mod rights;
mod schema;
