//! Any bytes as a server's response: `cargo +nightly fuzz run response`. They may be refused, but not panic or hang.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    // Most inputs lack the final line end; with it more of the parser is reached.
    mailferry::fuzz::response(&[raw, b"\r\n"].concat());
    mailferry::fuzz::response(raw);
});
