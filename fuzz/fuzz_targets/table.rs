//! Any file as a list of mailboxes, as `mailferry import` and a migration's CSV Secret take it. It may be refused, but
//! cause no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mailferry::fuzz::table(input));
