//! Any CBOR, and much that is none, as a checkpoint with a valid check sum. It may be refused; what is read is written and
//! read again as the same.
#![no_main]

use std::io::Read as _;

use libfuzzer_sys::fuzz_target;
use mailferry::sync::checkpoint::Checkpoint;
use sha2::{Digest as _, Sha256};

/// The format that this version reads.
const FORMAT: u8 = 1;

fuzz_target!(|cbor: &[u8]| {
    let mut deflated = Vec::new();
    flate2::read::DeflateEncoder::new(cbor, flate2::Compression::fast()).read_to_end(&mut deflated).unwrap();
    let sum = Sha256::new().chain_update([FORMAT]).chain_update(&deflated).finalize();
    let sealed = [&[FORMAT], &sum[..8], &deflated].concat();
    let Ok(read) = Checkpoint::decode(&sealed) else { return };
    let _ = read.describe();
    let written = read.encode().unwrap();
    assert_eq!(Checkpoint::decode(&written).unwrap().encode().unwrap(), written);
});
