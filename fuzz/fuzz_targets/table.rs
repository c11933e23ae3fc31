//! Any file as a list of mailboxes, as `mailferry import` and a migration's CSV Secret take it. It may be refused, but
//! cause no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailferry::import::{
    encoding::{self, Encoding},
    servers::{Server, SideSettings},
    table::{self, Format, Reading},
};

fuzz_target!(|file: &[u8]| {
    let _ = mailferry::api::csv::parse("file", file, |line| line.to_owned());
    let Ok(text) = encoding::decode("file", file, Encoding::Auto) else { return };
    let side = |host: &str| SideSettings { server: Some(Server::Host(host.to_owned())), ..SideSettings::default() };
    for format in [Format::Csv, Format::Imapsync] {
        for no_header in [false, true] {
            let reading = Reading { format, no_header, ..Reading::default() };
            let _ = table::read(&text.bytes, &reading, [&side("old.example"), &side("new.example")]);
        }
    }
});
