//! Integration tests against real servers on loopback.

mod check;
mod cli;
mod failures;
mod harness;
mod rig;
mod sync;
mod verify;
