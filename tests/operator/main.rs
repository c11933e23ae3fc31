//! Everything that is tested against a real API server, in one binary, so that its tests share it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod apply;
#[path = "../crds/cases.rs"]
mod cases;
mod deploy;
mod fence;
mod plane;
mod rig;
mod worker;
