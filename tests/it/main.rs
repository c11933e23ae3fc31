//! Integration tests against real servers on loopback.

mod capabilities;
mod deletions;
mod delta;
mod delivery;
mod failures;
mod fake;
mod folders;
mod harness;
mod injection;
mod interruption;
mod no_uidplus;
mod rig;
mod sync;
