//! What the targets in `fuzz/` call: parsers get any bytes, and what they read must come back the same when it is written.
//! Part of every build, so that a change that leaves a target behind is seen at once; for nobody else.

use bytes::Bytes;

use crate::{
    api::{MailMigration, MailServer, csv},
    imap::{parse, uid_set::UidSet},
    import::{
        encoding::{self, TableEncoding},
        side_settings::{ServerChoice, SideSettings},
        table::{self, TableFormat, TableOptions},
    },
    sync::checkpoint::Checkpoint,
    yaml,
};

/// A server's response.
pub fn response(raw: &[u8]) {
    drop(parse::parse(Bytes::copy_from_slice(raw)));
}

/// A sequence set of UIDs.
pub fn uid_set(text: &str) {
    let Some(set) = UidSet::<u32>::parse(text) else { return };
    for most in [1, 30, 8000] {
        let mut joined = UidSet::default();
        for chunk in set.chunks(most) {
            joined = joined.union(&UidSet::parse(&chunk).unwrap_or_default());
        }
        assert_eq!(joined, set, "in commands of {most} bytes");
    }
}

/// A checkpoint behind its check sum, which next to no bytes would pass.
pub fn checkpoint(cbor: &[u8]) {
    let Ok(read) = Checkpoint::decode_cbor(cbor) else { return };
    drop(read.describe());
    let Ok(written) = read.encode() else { return };
    let again = Checkpoint::decode(&written).and_then(|again| again.encode());
    assert!(again.is_ok_and(|again| again == written), "it is another when it is written and read again");
}

/// A list of mailboxes, as `mailferry import` and a migration's CSV Secret take it.
pub fn table(file: &[u8]) {
    drop(csv::parse("file", file, ToOwned::to_owned));
    let Ok(text) = encoding::decode("file", file, TableEncoding::Auto) else { return };
    let side =
        |host: &str| SideSettings { server: Some(ServerChoice::Host(host.to_owned())), ..SideSettings::default() };
    for format in [TableFormat::Csv, TableFormat::Imapsync] {
        for no_header in [false, true] {
            let reading = TableOptions { format, no_header, ..TableOptions::default() };
            drop(table::read(&text.bytes, &reading, [&side("old.example"), &side("new.example")]));
        }
    }
}

/// Manifests.
pub fn manifest(text: &str) {
    drop(yaml::read_stream("file", text));
    drop(yaml::read::<MailMigration>("file", text));
    drop(yaml::read::<MailServer>("file", text));
}
