//! Integration tests against real servers on loopback.

mod capabilities;
mod deletions;
mod delta;
mod failures;
mod fake;
mod harness;
mod injection;
mod no_uidplus;
mod rig;
mod sync;
