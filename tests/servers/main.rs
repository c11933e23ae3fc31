//! The engine between servers of different makes: each against Dovecot, both ways. What is checked is the truth on both
//! sides, read by the testkit's own client.
//!
//! Where a server can't run here, its tests print SKIPPED and pass; with `SERVERS_REQUIRED` set they fail. The pairs
//! without Dovecot are ignored unless asked for: `make test-servers`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod corpus;
mod features;
mod harness;
mod known;
mod pairs;
#[allow(dead_code, reason = "shared with tests/it")]
#[path = "../it/rig.rs"]
mod rig;
mod table;
mod truth;

use std::{env, io::Write as _};

use mailferry_testkit::ServerMake;

/// Whether all of these run here; says so where not.
fn can_run(makes: &[ServerMake]) -> bool {
    let why = makes.iter().find_map(|make| make.missing_requirement().map(|why| format!("{}: {why}", make.name())));
    let Some(why) = why else { return true };
    let required = env::var_os("SERVERS_REQUIRED").is_some_and(|required| !required.is_empty());
    assert!(!required, "SERVERS_REQUIRED is set, and this test can't run: {why}");
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    // Past the test harness, which shows nothing of a test that passes.
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").ok();
    false
}
