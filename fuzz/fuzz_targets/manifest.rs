//! Any text as manifests. They may be refused, but cause no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailferry::api::{MailMigration, MailServer};

fuzz_target!(|text: &str| {
    let _ = mailferry::yaml::read_stream("file", text);
    let _ = mailferry::yaml::read::<MailMigration>("file", text);
    let _ = mailferry::yaml::read::<MailServer>("file", text);
});
