//! Any text as manifests. They may be refused, but cause no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| mailferry::fuzz::manifest(input));
