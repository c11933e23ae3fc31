//! Any text as a sequence set of UIDs. It may be refused; what is read is written in commands of any length, and read
//! again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| mailferry::fuzz::uid_set(input));
