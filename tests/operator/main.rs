//! Everything that is tested against a real API server, in one binary, so that its tests share it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod addresses;
mod apply;
mod attempts;
#[path = "../crds/cases.rs"]
mod cases;
mod checkpoint_transfer;
mod conflicts;
mod controller_fence;
mod crash;
mod deploy;
mod deprecated;
mod destination_policy;
mod expansion;
mod failing_api;
mod fence;
mod kubectl_plugin;
mod leader;
mod lifecycle;
mod limits;
mod mailboxsync_fence;
mod namespaces;
mod not_copied;
mod plane;
mod policy;
mod rig;
mod server;
mod stage;
mod telemetry;
mod tokens;
mod unanswered;
mod uninstall;
mod user_roles;
mod without_secrets;
mod worker;
