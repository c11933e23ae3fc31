//! Mailboxes as CSV (RFC 4180) in a Secret or ConfigMap: for more of them than a MailMigration can list.
//!
//! The first line names the columns, in any order: `name`, and any of `source_username`, `source_password`,
//! `source_token`, `destination_username`, `destination_password`, `destination_token`. A field with a comma, a quote or
//! a line break stands in double quotes, a quote in it twice. An empty field is as good as none. Nothing else is changed:
//! spaces are part of a password.

pub(crate) mod records;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use secrecy::SecretBox;
use zeroize::Zeroizing;

use self::records::{CsvDialect, CsvReader, CsvRecord};
use super::{
    Account, MailboxEntry, SecretKeyRef, cel_rules,
    common::{MAX_MAILBOX_NAME, MAX_USERNAME},
    schema_check, validate,
};
use crate::error::{Error, Result};

/// The most mailboxes in one CSV.
pub(crate) const MAX_ROWS: usize = 100_000;

/// The columns that there are.
pub(crate) const COLUMNS: [&str; 7] = [
    "name",
    "source_username",
    "source_password",
    "source_token",
    "destination_username",
    "destination_password",
    "destination_token",
];

/// Those of them that hold passwords and tokens.
const CREDENTIAL_COLUMNS: [&str; 4] = ["source_password", "source_token", "destination_password", "destination_token"];

/// One line of a CSV.
#[derive(Debug)]
pub struct CsvMailbox {
    /// The mailbox, its credentials as references to the keys below in a Secret of the given name.
    pub entry: MailboxEntry,
    /// The credentials by key: `source-password`, `destination-token` and so on.
    pub secrets: HashMap<&'static str, SecretBox<[u8]>>,
    /// Where it starts, from 1.
    pub line: usize,
}

/// Reads a CSV. `secret` gives the name of the Secret that holds a mailbox's credentials; `name` is used in errors, which
/// show line and column but no value.
pub fn parse(name: &str, bytes: &[u8], secret: impl Fn(&str) -> String) -> Result<Vec<CsvMailbox>> {
    mailboxes(name, bytes, secret)?.collect()
}

/// The same, one mailbox at a time: a CSV may have more of them than fit into memory. Behind an error nothing is told.
pub(crate) fn mailboxes<'a, S: Fn(&str) -> String + 'a>(
    name: &'a str,
    bytes: &'a [u8],
    secret: S,
) -> Result<CsvMailboxes<'a, S>> {
    let mut records = csv_reader(bytes);
    let header = read_header(name, &mut records)?;
    Ok(CsvMailboxes { name, header, records, secret, hasher: RandomState::new(), seen: HashMap::new() })
}

/// Refuses a CSV with columns of passwords or tokens, of which an object holds it that is no Secret. Behind such a column
/// nothing is read, however few fields of it are filled.
pub(crate) fn refuse_credentials(name: &str, bytes: &[u8]) -> Result<()> {
    let header = read_header(name, &mut csv_reader(bytes))?;
    match header.iter().find(|column| CREDENTIAL_COLUMNS.contains(&column.as_str())) {
        Some(column) => Err(csv_error(name, 1, &format!("column {column}: a ConfigMap is no place for credentials"))
            .advice("Put the CSV into a Secret, and list that in mailboxSecrets; change what is in it, since others may know it")),
        None => Ok(()),
    }
}

fn csv_reader(bytes: &[u8]) -> CsvReader<'_> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    CsvReader::new(bytes, 1, CsvDialect::default())
}

/// The names of the columns, from the first record.
fn read_header(name: &str, records: &mut CsvReader<'_>) -> Result<Vec<String>> {
    let wrong = |line: usize, what: String| csv_error(name, line, &what);
    let header = match records.next() {
        Some(record) => record.map_err(|(line, fault)| wrong(line, fault.message().to_owned()))?.fields,
        None => Vec::new(),
    };
    let header: Vec<String> =
        header.iter().map(|field| String::from_utf8_lossy(field).trim().to_ascii_lowercase()).collect();
    for (index, column) in header.iter().enumerate() {
        if !COLUMNS.contains(&column.as_str()) {
            // Never the text itself: where the header was forgotten, it may be a password.
            let meant = schema_check::nearest_candidate(column, COLUMNS.into_iter());
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            return Err(wrong(1, format!("the name of column {} is not known{hint}", index + 1))
                .advice(format!("The first line names the columns: {}", COLUMNS.join(", "))));
        }
        if header.iter().filter(|other| *other == column).count() > 1 {
            return Err(wrong(1, format!("column {column} is there twice")));
        }
    }
    if !header.iter().any(|column| column == "name") {
        return Err(wrong(1, "there is no column name".to_owned()).advice("The first line names the columns"));
    }
    Ok(header)
}

fn csv_error(name: &str, line: usize, what: &str) -> Error {
    Error::configuration(format!("{name}, line {line}: {what}"))
}

/// The mailboxes of a CSV, one at a time.
pub(crate) struct CsvMailboxes<'a, S> {
    /// Used in errors.
    name: &'a str,
    header: Vec<String>,
    records: CsvReader<'a>,
    secret: S,
    hasher: RandomState,
    /// The lines of the mailboxes so far, by digests of their names.
    seen: HashMap<u64, u32>,
}

impl<S: Fn(&str) -> String> Iterator for CsvMailboxes<'_, S> {
    type Item = Result<CsvMailbox>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                Err((line, fault)) => return Some(Err(csv_error(self.name, line, fault.message()))),
            };
            if record.fields.len() != 1 || !record.is_blank() {
                return Some(self.read_record(record));
            }
        }
    }
}

impl<S: Fn(&str) -> String> CsvMailboxes<'_, S> {
    fn read_record(&mut self, record: CsvRecord) -> Result<CsvMailbox> {
        let CsvRecord { line, fields } = record;
        let wrong = |what: String| csv_error(self.name, line, &what);
        if fields.len() != self.header.len() {
            let what = format!("{} fields, but the first line names {} columns", fields.len(), self.header.len());
            return Err(wrong(what).advice("A field with a comma or a quote goes into double quotes"));
        }
        let mailbox = parse_row(&self.header, fields, line, &self.secret).map_err(wrong)?;
        let digest = self.hasher.hash_one(&mailbox.entry.name);
        if let Some(first) = self.seen.insert(digest, u32::try_from(line).unwrap_or(u32::MAX)) {
            return Err(wrong(format!("mailbox {} is on line {first} already", mailbox.entry.name)));
        }
        if self.seen.len() > MAX_ROWS {
            return Err(wrong(format!("more than {MAX_ROWS} mailboxes")).advice("Use several migrations"));
        }
        Ok(mailbox)
    }
}

fn parse_row(
    header: &[String],
    fields: Vec<Zeroizing<Vec<u8>>>,
    line: usize,
    secret: &impl Fn(&str) -> String,
) -> Result<CsvMailbox, String> {
    let mut columns: HashMap<&str, Zeroizing<Vec<u8>>> =
        header.iter().map(String::as_str).zip(fields).filter(|(_, field)| !field.is_empty()).collect();
    let mut text = |column: &str| match columns.remove(column) {
        Some(field) => String::from_utf8(field.to_vec()).map(Some).map_err(|_| format!("{column} is not UTF-8")),
        None => Ok(None),
    };
    let name = text("name")?.ok_or("name is empty")?;
    if !validate::is_mailbox_name(&name) {
        return Err(cel_rules::MAILBOX_NAME.message.to_owned());
    }
    check_length("name", &name, MAX_MAILBOX_NAME)?;
    let mut user = |column: &str| {
        let user = text(column)?;
        if let Some(user) = &user {
            check_length(column, user, MAX_USERNAME)?;
            if user.contains(char::is_control) {
                return Err(format!("{column} has a control character, such as a line break or a tab"));
            }
        }
        Ok(user)
    };
    let (source, destination) = (user("source_username")?, user("destination_username")?);
    let secret_name = secret(&name);
    let mut secrets = HashMap::new();
    let mut account = |username, password: &'static str, token: &'static str, keys: [&'static str; 2]| {
        let mut reference = |column, key: &'static str| {
            let value = columns.remove(column)?;
            secrets.insert(key, SecretBox::new(value.as_slice().into()));
            Some(SecretKeyRef { name: secret_name.clone(), key: key.to_owned() })
        };
        let account = Account {
            username,
            password_secret_ref: reference(password, keys[0]),
            token_secret_ref: reference(token, keys[1]),
            grant_secret_ref: None,
        };
        if account.password_secret_ref.is_some() && account.token_secret_ref.is_some() {
            return Err(format!("both {password} and {token}: leave one of them empty"));
        }
        Ok(account)
    };
    let entry = MailboxEntry {
        source: account(source, "source_password", "source_token", ["source-password", "source-token"])?,
        destination: account(
            destination,
            "destination_password",
            "destination_token",
            ["destination-password", "destination-token"],
        )?,
        name,
    };
    Ok(CsvMailbox { entry, secrets, line })
}

/// The API server would refuse the MailboxSync otherwise, long after the CSV was read.
fn check_length(column: &str, value: &str, most: u32) -> Result<(), String> {
    let length = value.chars().count();
    if u32::try_from(length).is_ok_and(|length| length <= most) {
        Ok(())
    } else {
        Err(format!("{column} has {length} characters, more than {most}"))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(text: &str) -> Result<Vec<CsvMailbox>> {
        parse("Secret acme key m.csv", text.as_bytes(), |mailbox| format!("split-{mailbox}"))
    }

    #[test]
    fn a_line_becomes_a_mailbox_with_references_to_its_credentials() {
        let found =
            read("name,source_username,source_password,destination_password\r\na,a@x,pa,pb\r\nb,,\"q,\"\"\r\n z\",\n")
                .unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].entry.source.username.as_deref(), Some("a@x"));
        let reference = found[0].entry.source.password_secret_ref.as_ref().unwrap();
        assert_eq!((reference.name.as_str(), reference.key.as_str()), ("split-a", "source-password"));
        assert_eq!(found[0].secrets["destination-password"].expose_secret(), b"pb");
        assert_eq!(found[1].secrets["source-password"].expose_secret(), b"q,\"\r\n z");
        assert_eq!((found[1].entry.source.username.as_ref(), found[1].line), (None, 3));
        assert!(found[1].entry.destination.password_secret_ref.is_none());
    }

    #[test]
    fn spaces_and_bytes_of_a_password_are_kept() {
        let found = parse("f", b"name,source_password\na, \xff p \n", |_| "s".into()).unwrap();
        assert_eq!(found[0].secrets["source-password"].expose_secret(), b" \xff p ");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_secrets() {
        for (text, message) in [
            (
                "name,source_pasword\na,hush\n",
                "line 1: the name of column 2 is not known; did you mean source_password?",
            ),
            ("a,hush\n", "line 1: the name of column 1 is not known"),
            ("a,hush\nb,hush\n", "The first line names the columns: name, source_username"),
            ("source_username\na\n", "there is no column name"),
            ("name,name\na,a\n", "column name is there twice"),
            ("name,source_password\na,hush,b\n", "line 2: 3 fields, but the first line names 2 columns"),
            ("name,source_password\na,\"hush\n", "line 2: a quote is not closed"),
            ("name,source_password\na,\"hush\"x\n", "line 2: text behind a closing quote"),
            ("name,source_password\n,hush\n", "line 2: name is empty"),
            ("name,source_password\na b,hush\n", "line 2: a mailbox's name has letters"),
            ("name\na\nb\na\n", "line 4: mailbox a is on line 2 already"),
            ("name,source_password,source_token\na,hush,hush\n", "leave one of them empty"),
            ("", "there is no column name"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn what_no_mailbox_sync_may_hold_is_refused_where_the_csv_is_read() {
        let long = |length: usize| "n".repeat(length);
        for (text, message) in [
            (format!("name\na\n{}\n", long(254)), "line 3: name has 254 characters, more than 253"),
            (
                format!("name,source_username\na,{}\n", long(321)),
                "line 2: source_username has 321 characters, more than 320",
            ),
            (
                "name,destination_username\na,\"b\nc\"\n".to_owned(),
                "line 2: destination_username has a control character",
            ),
            ("name,source_username\na,b\tc\n".to_owned(), "line 2: source_username has a control character"),
            // As in the schema, not those of ASCII alone.
            ("name,source_username\na,b\u{85}c\n".to_owned(), "line 2: source_username has a control character"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let most = format!("name,source_username\n{},{}\n", long(253), "\u{e4}".repeat(320));
        assert_eq!(read(&most).unwrap().len(), 1);
    }

    #[test]
    fn a_csv_that_is_no_secret_may_have_no_column_of_credentials() {
        let refused = |text: &str| refuse_credentials("ConfigMap m key c", text.as_bytes()).map_err(|error| error.what);
        assert_eq!(refused("name,destination_username\na,b\n"), Ok(()));
        for column in CREDENTIAL_COLUMNS {
            let what = format!("ConfigMap m key c, line 1: column {column}: a ConfigMap is no place for credentials");
            assert_eq!(refused(&format!("name,{column}\na,hush\n")), Err(what.clone()));
            assert_eq!(refused(&format!("{column},name")), Err(what));
        }
        assert!(refused("name,source_pasword\na,hush\n").unwrap_err().contains("column 2 is not known"));
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        assert!(!format!("{:?}", read("name,source_password\na,hush\n").unwrap()).contains("hush"));
    }

    proptest::proptest! {
        #[test]
        fn any_password_survives_quoting(password in "[^\u{0}]{1,40}") {
            let text = format!("name,source_password\na,\"{}\"\n", password.replace('"', "\"\""));
            let found = read(&text).unwrap();
            proptest::prop_assert_eq!(found[0].secrets["source-password"].expose_secret(), password.as_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(found) = parse("f", &bytes, |_| "s".into()) {
                proptest::prop_assert!(found.len() <= bytes.len());
            }
        }
    }
}
