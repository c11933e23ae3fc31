//! `mailferry import`, the real binary: into files that Mailferry and kubectl read, and into a real cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod cluster;
mod desk;
mod files;
mod leaks;
mod tables;
