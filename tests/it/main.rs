//! Integration tests against real servers on loopback.

mod failures;
mod harness;
mod rig;
mod sync;
