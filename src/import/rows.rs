//! One row of a table: two accounts, checked each for itself and against all others.

use std::collections::HashMap;

use secrecy::{ExposeSecret as _, SecretBox};

use super::{
    columns::{AccountColumns, AccountField, ColumnMeaning, TableColumns},
    findings::TableFindings,
    login::{CredentialKind, RowAccount, RowCredential},
    side_settings::{ServerLocation, SideSettings, is_host, split_port},
};
use crate::{
    api::{common::MAX_USERNAME, csv::records::CsvRecord, validate},
    error::Side,
};

/// The longest password or token, in bytes. What is longer is a quote that closes in some later line.
const MAX_CREDENTIAL: usize = 16 << 10;
/// What is said of a host that is none.
const NO_HOST: &str = "must be an IP address or a host name with a dot in it, such as imap.example.com, or with a port \
    imap.example.com:993; a name without a dot goes to the command line (--source-host, --destination-host). If it is \
    neither, a field before it is missing, or was cut at a delimiter in it";
/// The longest name of a mailbox (as in the API).
const MAX_NAME: usize = 253;

/// One row.
#[derive(Debug)]
pub struct TableRow {
    /// Where it starts, from 1.
    pub line: usize,
    /// The mailbox's name, where the table gives it.
    pub name: Option<String>,
    /// The account that mail is read from.
    pub source: RowAccount,
    /// The account that mail is written to.
    pub destination: RowAccount,
}

/// Reads a record; none where something is missing or wrong, which is in `findings` then.
pub(crate) fn read(
    record: &CsvRecord,
    columns: &TableColumns,
    sides: [&SideSettings; 2],
    findings: &mut TableFindings,
) -> Option<TableRow> {
    let before = findings.problems.len();
    let mut reader = RowReader { record, findings, warned: Vec::new() };
    let name = reader.name(columns.name);
    let (source_column, destination_column) = (columns.source.username, columns.destination.username);
    let source_user = reader.username(Side::Source, source_column, columns.source.domain);
    // One column for both was read already.
    let same = destination_column == source_column && columns.destination.domain == columns.source.domain;
    let own =
        if same { None } else { reader.username(Side::Destination, destination_column, columns.destination.domain) };
    if let Some(index) = source_column.filter(|index| reader.field(Some(*index)).is_none()) {
        reader.problem(ColumnRef::of_account(index, Side::Source, AccountField::Username), "is empty");
    }
    let source_user = match source_column {
        Some(_) => source_user,
        // What the API does where a username is left out.
        None => own.clone().or_else(|| name.clone()),
    };
    if source_column.is_none() && destination_column.or(columns.name).is_some_and(|i| reader.field(Some(i)).is_none()) {
        reader.findings.problem(record.line, "there is no user name");
    }
    let destination_user = own.or_else(|| source_user.clone());
    let source = reader.login(Side::Source, columns.source, sides[0], source_user);
    let destination = reader.login(Side::Destination, columns.destination, sides[1], destination_user);
    (findings.problems.len() == before).then_some(TableRow {
        line: record.line,
        name,
        source: source?,
        destination: destination?,
    })
}

/// A column of the table.
#[derive(Debug, Clone, Copy)]
struct ColumnRef {
    /// Its index, from 0.
    index: usize,
    meaning: ColumnMeaning,
}

impl ColumnRef {
    /// The column of one field of an account.
    const fn of_account(index: usize, side: Side, field: AccountField) -> Self {
        Self { index, meaning: ColumnMeaning::Account(Some(side), field) }
    }
}

/// Reads the fields of one record.
struct RowReader<'a> {
    record: &'a CsvRecord,
    findings: &'a mut TableFindings,
    /// Columns that were spoken of: one may hold a credential of both sides.
    warned: Vec<usize>,
}

impl<'a> RowReader<'a> {
    /// What stands in a column; an empty field is as good as none.
    fn field(&self, index: Option<usize>) -> Option<&'a [u8]> {
        self.record.fields.get(index?).map(|field| field.as_slice()).filter(|field| !field.is_empty())
    }

    fn problem(&mut self, ColumnRef { index, meaning }: ColumnRef, what: &str) {
        let what = format!("{meaning} (column {}) {what}", index + 1);
        if !self.warned.contains(&index) {
            self.findings.problem(self.record.line, what);
        }
    }

    fn warning(&mut self, ColumnRef { index, meaning }: ColumnRef, what: &str) {
        let what = format!("{meaning} (column {}) {what}", index + 1);
        if !self.warned.contains(&index) {
            self.findings.warning(self.record.line, what);
        }
    }

    /// Text without white space around it, which is never meant in names.
    fn text(&mut self, column: ColumnRef) -> Option<String> {
        let Ok(text) = std::str::from_utf8(self.field(Some(column.index))?) else {
            self.problem(
                column,
                "is not UTF-8: save the file as UTF-8, or say --encoding windows-1252 where it comes from Excel",
            );
            return None;
        };
        let trimmed = text.trim();
        if trimmed.len() != text.len() {
            self.warning(column, "has spaces around it: they are left out");
        }
        if trimmed.chars().any(|c| {
            c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        }) {
            self.problem(column, "has characters that can't be seen: type it again");
            return None;
        }
        if trimmed.is_empty() {
            self.problem(column, "is nothing but spaces");
            return None;
        }
        Some(trimmed.to_owned())
    }

    fn name(&mut self, index: Option<usize>) -> Option<String> {
        let column = ColumnRef { index: index?, meaning: ColumnMeaning::Name };
        let name = self.text(column)?;
        if !validate::is_mailbox_name(&name) || name.len() > MAX_NAME {
            self.problem(
                column,
                "can't be a mailbox's name: letters, digits and . _ @ + = - , with a letter or digit at both ends. \
                 Where the column holds people's names, leave it out by --columns name=",
            );
            return None;
        }
        Some(name)
    }

    fn username(&mut self, side: Side, index: Option<usize>, domain: Option<usize>) -> Option<String> {
        let column = ColumnRef::of_account(index?, side, AccountField::Username);
        let user = self.text(column)?;
        let user = if user.contains('@') {
            user
        } else {
            let at = domain.map(|index| ColumnRef::of_account(index, side, AccountField::Domain));
            match self.domain(at) {
                Ok(Some(domain)) => format!("{user}@{domain}"),
                Ok(None) => user,
                Err(()) => return None,
            }
        };
        if user.chars().count() > MAX_USERNAME as usize {
            self.problem(column, "has more than 320 characters");
            return None;
        }
        if user.contains(char::is_control) {
            self.problem(column, "holds a control character (a tab, a line break), which no login can carry");
            return None;
        }
        if user.contains(char::is_whitespace) {
            self.warning(column, "has a space in it");
        }
        Some(user)
    }

    /// What stands behind the @ of a user name; an error is told already.
    fn domain(&mut self, column: Option<ColumnRef>) -> Result<Option<String>, ()> {
        let Some(column) = column.filter(|column| self.field(Some(column.index)).is_some()) else { return Ok(None) };
        let text = self.text(column).ok_or(())?;
        let domain = text.strip_prefix('@').unwrap_or(&text);
        if !is_host(domain) || domain.parse::<std::net::IpAddr>().is_ok() {
            self.problem(column, "must be a domain such as example.com: it is joined to the user name by an @");
            return Err(());
        }
        Ok(Some(domain.to_owned()))
    }

    fn login(
        &mut self,
        side: Side,
        at: AccountColumns,
        settings: &SideSettings,
        username: Option<String>,
    ) -> Option<RowAccount> {
        let column = |index: Option<usize>, field| index.map(|index| ColumnRef::of_account(index, side, field));
        let (host, own_port) = self.host(column(at.host, AccountField::Host)).unzip();
        let port = self.port(column(at.port, AccountField::Port));
        let port = match (port, own_port.flatten()) {
            (Some(port), Some(other)) if port != other => {
                let what = format!("two ports of the {side}: one behind the host, another one in a column of its own");
                self.findings.problem(self.record.line, what);
                None
            }
            (port, other) => port.or(other),
        };
        let password = self.credential(column(at.password, AccountField::Password), CredentialKind::Password);
        let token = self.credential(column(at.token, AccountField::Token), CredentialKind::Token);
        match (self.field(at.password), self.field(at.token)) {
            (Some(_), Some(_)) => {
                let what = format!("both a password and a token of the {side}: leave one of them empty");
                self.findings.problem(self.record.line, what);
            }
            (None, None) if settings.master.is_none() => {
                let missing = if at.password.is_some() { AccountField::Password } else { AccountField::Token };
                if let Some(index) = at.password.or(at.token) {
                    self.problem(ColumnRef::of_account(index, side, missing), "is empty");
                    self.warned.push(index);
                }
            }
            _ => {}
        }
        Some(RowAccount { host, port, username: username?, credential: password.or(token) })
    }

    /// A host, with the port that stands behind it, if one does.
    fn host(&mut self, column: Option<ColumnRef>) -> Option<(String, Option<u16>)> {
        let column = column?;
        if self.field(Some(column.index)).is_none() {
            self.problem(column, "is empty");
            return None;
        }
        let text = self.text(column)?;
        let (host, port) = split_port(&text);
        if !is_host(host) {
            self.problem(column, NO_HOST);
            return None;
        }
        Some((host.to_owned(), port))
    }

    fn port(&mut self, column: Option<ColumnRef>) -> Option<u16> {
        let column = column?;
        let port = self.field(Some(column.index)).and_then(|_| self.text(column))?;
        let number = port.parse::<u16>().ok().filter(|port| *port > 0);
        if number.is_none() {
            self.problem(column, "must be a number from 1 to 65535");
        }
        number
    }

    fn credential(&mut self, column: Option<ColumnRef>, kind: CredentialKind) -> Option<RowCredential> {
        let column = column?;
        let value = self.field(Some(column.index))?;
        if value.len() > MAX_CREDENTIAL {
            self.problem(column, "is longer than 16 KiB: is a quote not closed?");
        } else if value.contains(&0) {
            self.problem(column, "holds a NUL, which no login can carry");
        } else if kind == CredentialKind::Token && !value.iter().all(u8::is_ascii_graphic) {
            self.problem(column, "is no token: tokens have no spaces and no characters beyond ASCII");
        } else if kind == CredentialKind::Password {
            for what in password_warnings(value) {
                self.warning(column, what);
            }
        }
        self.warned.push(column.index);
        Some(RowCredential { kind, value: SecretBox::new(value.into()) })
    }
}

/// What about a password is seldom meant. It is kept as it is all the same.
fn password_warnings(value: &[u8]) -> Vec<&'static str> {
    let mut doubts = Vec::new();
    let text = std::str::from_utf8(value);
    let (first, last) = match text {
        Ok(text) => (text.starts_with(char::is_whitespace), text.ends_with(char::is_whitespace)),
        Err(_) => {
            (value.first().is_some_and(u8::is_ascii_whitespace), value.last().is_some_and(u8::is_ascii_whitespace))
        }
    };
    if text.is_err() {
        doubts.push(
            "is not UTF-8: its bytes are taken as they are. Where the file comes from Excel, say --encoding windows-1252",
        );
    }
    if first {
        doubts.push("starts with a space: it is kept");
    }
    if last {
        doubts.push("ends with a space: it is kept");
    }
    if value.iter().any(|b| matches!(b, b'\r' | b'\n')) {
        doubts.push("has a line break in it: it is kept. Is a quote missing?");
    }
    if value.len() > 2 && value.iter().all(|b| *b == b'*') {
        doubts.push("is nothing but *: does the export hide passwords?");
    }
    if is_hash(value) {
        doubts.push("looks like a hash: servers want the password itself");
    }
    if is_rounded_number(value) {
        doubts.push("looks like a number that a spreadsheet has rounded: format the column as text");
    }
    doubts
}

/// `$6$...` of crypt(3), `{SHA512-CRYPT}...` of LDAP and Dovecot.
fn is_hash(value: &[u8]) -> bool {
    let crypt = ["$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$", "$apr1$", "$argon2"];
    let scheme = || {
        let end = memchr::memchr(b'}', value)?;
        let name = value[..end].strip_prefix(b"{")?;
        let long = name.len() >= 3 && value.len() > end + 10;
        Some(long && name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')))
    };
    value.len() >= 20 && crypt.iter().any(|start| value.starts_with(start.as_bytes())) || scheme().unwrap_or(false)
}

/// `1.23457E+11`, with a comma in other languages.
fn is_rounded_number(value: &[u8]) -> bool {
    let Some((number, exponent)) = std::str::from_utf8(value).ok().and_then(|text| text.split_once("E+")) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, part) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    whole.len() == 1 && digits(whole) && digits(part) && digits(exponent)
}

/// An account, whoever writes it: hosts and user names have no case.
type AccountKey = (ServerLocation, String);

/// Looks at all rows together: a row that is there twice is left out, two ways for one pair of accounts are a problem.
/// Rows come back with their places; those without a server were reported before.
pub(crate) fn check_duplicates(
    rows: Vec<TableRow>,
    sides: [&SideSettings; 2],
    findings: &mut TableFindings,
) -> Vec<(TableRow, [ServerLocation; 2])> {
    let mut kept: Vec<(TableRow, [ServerLocation; 2])> = Vec::with_capacity(rows.len());
    let mut pairs: HashMap<[AccountKey; 2], usize> = HashMap::new();
    let mut destinations: HashMap<AccountKey, usize> = HashMap::new();
    for row in rows {
        let logins = [&row.source, &row.destination];
        let [Some(source), Some(destination)] = [0, 1].map(|side| sides[side].server_location(logins[side])) else {
            continue;
        };
        let places = [source, destination];
        let accounts = [0, 1].map(|side| (places[side].clone(), logins[side].username.to_lowercase()));
        if accounts[0] == accounts[1] {
            findings
                .problem(row.line, "source and destination are the same account: correct the server or the user name");
            continue;
        }
        if let Some((first, _)) = pairs.get(&accounts).and_then(|index| kept.get(*index)) {
            if is_copy(&row, first) {
                findings.warning(row.line, format!("the same as line {}: left out", first.line));
            } else {
                let what = format!(
                    "the same two accounts as on line {}, but something differs: remove one of the two",
                    first.line
                );
                findings.problem(row.line, what);
            }
            continue;
        }
        if let Some(first) = destinations.get(&accounts[1]) {
            findings.warning(
                row.line,
                format!("goes to the same destination account as line {first}: both are put together there"),
            );
        }
        destinations.entry(accounts[1].clone()).or_insert(row.line);
        pairs.insert(accounts, kept.len());
        kept.push((row, places));
    }
    kept
}

fn is_copy(row: &TableRow, other: &TableRow) -> bool {
    let same = |a: &RowAccount, b: &RowAccount| match (&a.credential, &b.credential) {
        (None, None) => true,
        (Some(a), Some(b)) => a.kind == b.kind && a.value.expose_secret() == b.value.expose_secret(),
        _ => false,
    };
    row.name == other.name && same(&row.source, &other.source) && same(&row.destination, &other.destination)
}
