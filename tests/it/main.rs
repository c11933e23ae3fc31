//! Integration tests against real servers on loopback.

mod capabilities;
mod deletions;
mod delivery;
mod delta;
mod failures;
mod fake;
mod folders;
mod harness;
mod hostile;
mod injection;
mod interruption;
mod lesser;
mod limits;
mod login;
mod rig;
mod sync;
