//! Any CBOR, and much that is none, as a checkpoint. It may be refused; what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mailferry::fuzz::checkpoint(input));
