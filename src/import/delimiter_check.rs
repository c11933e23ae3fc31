//! Whether a line was divided into the fields that were meant. A delimiter too many or too few puts a password, or a piece
//! of one, where a server or a user is looked for, and these are shown: what is in doubt is not read.

use std::collections::HashSet;

use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::{
    columns::{AccountField, ColumnMeaning, ColumnSetting, TableColumns, is_address},
    findings::TableFindings,
    login::{CredentialKind, RowAccount},
    rows::TableRow,
};
use crate::{api::csv::records::CsvRecord, error::Side, terminal_text::format_count};

/// How many fields a line of imapsync's has, but for options.
pub(crate) const IMAPSYNC_FIELDS: usize = 6;
/// What may divide fields in some table, but in user names is not meant.
const DELIMITERS: [char; 4] = [';', ',', '|', ':'];

/// How many fields the lines of a table have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TableShape {
    /// As many as the header.
    Header(usize),
    /// As many as the first line.
    FirstLine(usize),
    /// Six, and options for imapsync.
    Imapsync,
}

/// Looks at the number of fields in each line.
#[derive(Debug)]
pub(crate) struct FieldCountCheck {
    shape: TableShape,
    /// The number and the length of the first line that was right.
    first: Option<(usize, usize)>,
}

impl FieldCountCheck {
    /// For a table of this shape.
    #[must_use]
    pub(crate) const fn new(shape: TableShape) -> Self {
        Self { shape, first: None }
    }

    /// Why the fields of a line are in doubt, if they are.
    pub(crate) fn check_record(&mut self, record: &CsvRecord) -> Option<String> {
        match self.shape {
            TableShape::Imapsync => imapsync(record),
            TableShape::Header(width) => self.table(record, width, "the header"),
            TableShape::FirstLine(width) => self.table(record, width, "the first line"),
        }
    }

    fn table(&mut self, record: &CsvRecord, width: usize, whose: &str) -> Option<String> {
        const QUOTE: &str = "a field with the delimiter or a quote in it goes into double quotes";
        let found = record.fields.len();
        let fields = format_count(found as u64, "field");
        if found > width && record.fields.iter().skip(width).any(|field| !field.is_empty()) {
            return Some(format!("{fields}, more than {whose} has ({width}): {QUOTE}"));
        }
        if found < width {
            return Some(format!("{fields}, fewer than {whose} has ({width}): write empty ones too; {QUOTE}"));
        }
        // Spreadsheets add empty fields to all lines. To some, it may be a cut field that makes one more.
        let (line, first) = *self.first.get_or_insert((record.line, found));
        (found != first).then(|| format!("{fields}, but {first} on line {line}: let all lines have as many; {QUOTE}"))
    }
}

fn imapsync(record: &CsvRecord) -> Option<String> {
    let found = record.fields.len();
    if found < IMAPSYNC_FIELDS {
        return Some(format!("{}, fewer than six", format_count(found as u64, "field")));
    }
    let fits = |field: &[u8]| {
        let field = field.trim_ascii();
        field.is_empty()
            || field.strip_prefix(b"--").is_some_and(|name| name.first().is_some_and(u8::is_ascii_alphabetic))
    };
    let index = record.fields.iter().skip(IMAPSYNC_FIELDS).position(|field| !fits(field))?;
    Some(format!(
        "field {} is no option of imapsync (--...): was a field cut at a delimiter in it? Such a list can't hold it: \
         write a CSV with a header, and such fields in double quotes",
        IMAPSYNC_FIELDS + index + 1
    ))
}

/// Looks for user names that a wrong delimiter left in one piece with what follows. For delimiters that were found out
/// only; `spaces` where a space may be one, too.
pub(crate) fn check_undivided(row: &TableRow, columns: &TableColumns, spaces: bool, findings: &mut TableFindings) {
    let accounts =
        [(Side::Source, columns.source, &row.source), (Side::Destination, columns.destination, &row.destination)];
    let mut seen = None;
    for (side, column, login) in accounts {
        let Some(index) = column.username.filter(|index| seen.replace(*index) != Some(*index)) else { continue };
        if login.username.contains(|c| DELIMITERS.contains(&c) || (spaces && c == ' ')) {
            let what = ColumnMeaning::Account(Some(side), AccountField::Username);
            findings.problem(
                row.line,
                format!(
                    "{what} (column {}) has a character in it that may divide fields: say by --delimiter which one does",
                    index + 1
                ),
            );
        }
    }
}

/// Looks for rows in which a server stands where a user name or a password should: a field before it was cut, or is
/// missing.
pub(crate) fn check_shifted(rows: &[TableRow], findings: &mut TableFindings) {
    let hosts: HashSet<String> =
        rows.iter().flat_map(logins).filter_map(|login| login.host.as_deref().map(folded)).collect();
    if hosts.is_empty() {
        return;
    }
    let names_a_server = |login: &RowAccount| {
        let password = login.credential.as_ref().and_then(|c| std::str::from_utf8(c.value.expose_secret()).ok());
        let secret = password.map(|password| Zeroizing::new(folded(password)));
        hosts.contains(&folded(&login.username)) || secret.is_some_and(|secret| hosts.contains(secret.as_str()))
    };
    for row in rows.iter().filter(|row| logins(row).into_iter().any(names_a_server)) {
        findings.problem(
            row.line,
            "a user name or a password is the name of a server in this table: is a field before it missing, or was one \
             cut at a delimiter in it?",
        );
    }
}

/// Looks for passwords in the column of user names. What `settings` say is believed.
pub(crate) fn check_swapped(
    rows: &[TableRow],
    columns: &TableColumns,
    settings: &[ColumnSetting],
    findings: &mut TableFindings,
) {
    let accounts = [(Side::Source, columns.source), (Side::Destination, columns.destination)];
    let mut seen = None;
    for (index, (side, column)) in accounts.into_iter().enumerate() {
        let Some(password) = column.password.filter(|password| seen.replace(*password) != Some(*password)) else {
            continue;
        };
        let is_set = |setting: &ColumnSetting| {
            matches!(setting.meaning, ColumnMeaning::Account(of, AccountField::Password) if of.is_none_or(|of| of == side))
                && setting.column.is_some()
        };
        let mut filled = rows
            .iter()
            .filter_map(|row| {
                let login = logins(row)[index];
                let credential =
                    login.credential.as_ref().filter(|credential| credential.kind == CredentialKind::Password)?;
                Some((login.username.as_str(), credential.value.expose_secret()))
            })
            .peekable();
        let odd =
            |(user, password): (&str, &[u8])| !is_address(user) && std::str::from_utf8(password).is_ok_and(is_address);
        if filled.peek().is_some() && !settings.iter().any(is_set) && filled.all(odd) {
            findings.problem_of_all(format!(
                "the {side}'s passwords (column {0}) are all addresses, and its user names are not: are the two \
                 swapped? If not, say --columns {side}_password={0}",
                password + 1
            ));
        }
    }
}

const fn logins(row: &TableRow) -> [&RowAccount; 2] {
    [&row.source, &row.destination]
}

fn folded(text: &str) -> String {
    text.trim().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
