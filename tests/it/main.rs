//! Everything that is tested against servers, in one binary, so that its tests share them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod capabilities;
mod check;
mod cli;
mod copy_check;
mod deletions;
mod delivery;
mod delta;
mod failures;
mod fake;
mod fence;
mod folders;
mod formats;
mod full_disk;
mod harness;
mod hostile;
mod injection;
mod interruption;
mod kill;
mod late_copies;
mod lesser;
mod limits;
mod listing;
mod login;
mod narrowing;
mod not_copied;
mod outputs;
mod refusals;
mod rewritten;
mod rig;
mod silence;
mod stand_ins;
mod sync;
mod unwell;
mod verify;
mod verify_faults;
