//! What is odd about the user names of a table as a whole: columns that only switch something on, names without a domain.

use super::{
    columns::{AccountField, ColumnMeaning, TableColumns},
    findings::TableFindings,
    rows::TableRow,
};
use crate::{api::csv::records::CsvRecord, error::Side};

/// What a column says that tells whether an account is switched on.
const SWITCHES: [&str; 34] = [
    "enabled",
    "disabled",
    "active",
    "inactive",
    "yes",
    "no",
    "true",
    "false",
    "on",
    "off",
    "ok",
    "suspended",
    "locked",
    "blocked",
    "0",
    "1",
    "y",
    "n",
    "x",
    "-",
    "aktiv",
    "inaktiv",
    "ja",
    "nein",
    "oui",
    "non",
    "actif",
    "inactif",
    "si",
    "sí",
    "activo",
    "inactivo",
    "attivo",
    "ativo",
];

/// The columns in which every field says whether something is switched on: whatever heads them, these are no user names.
pub(super) fn switch_columns(records: impl Iterator<Item = CsvRecord>, has_header: bool) -> Vec<usize> {
    let mut columns: Vec<(bool, bool)> = Vec::new(); // some field is filled, and none is anything else
    for record in records.filter(|record| !record.is_blank()).skip(usize::from(has_header)) {
        for (index, field) in record.fields.iter().enumerate() {
            if columns.len() <= index {
                columns.push((false, true));
            }
            let text = std::str::from_utf8(field).map(|text| text.trim().to_lowercase());
            let (filled, only) = &mut columns[index];
            match text.as_deref() {
                Ok("") => {}
                Ok(text) => (*filled, *only) = (true, *only && SWITCHES.contains(&text)),
                Err(_) => *only = false,
            }
        }
    }
    let switches = columns.iter().enumerate().filter(|(_, (filled, only))| *filled && *only);
    switches.map(|(index, _)| index).collect()
}

/// Warns of user names without an @: most servers want the whole address.
pub(super) fn check_domains(rows: &[TableRow], columns: &TableColumns, findings: &mut TableFindings) {
    let sides = [(Side::Source, columns.source.username), (Side::Destination, columns.destination.username)];
    let has_domain = |side: Side, row: &TableRow| match side {
        Side::Source => row.source.username.contains('@'),
        Side::Destination => row.destination.username.contains('@'),
    };
    let mut seen = None;
    for (side, index) in sides {
        let Some(index) = index.filter(|index| seen.replace(*index) != Some(*index)) else { continue };
        let lacks = |row: &&TableRow| !has_domain(side, row);
        let what = ColumnMeaning::Account(Some(side), AccountField::Username);
        let column = index + 1;
        if !rows.is_empty() && rows.iter().all(|row| lacks(&row)) {
            findings.warning_of_all(format!(
                "{what} (column {column}) has no @ in any row: most servers want the whole address as user name. Where yours do, \
                 write it, or have a column `domain`"
            ));
        } else {
            for row in rows.iter().filter(lacks) {
                findings.warning(row.line, format!("{what} (column {column}) has no @, unlike others"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::csv::records::{CsvDialect, CsvReader};

    fn switches(text: &str) -> Vec<usize> {
        let records = CsvReader::new(text.as_bytes(), 1, CsvDialect { delimiter: b',', quotes: true });
        switch_columns(records.flatten(), true)
    }

    #[test]
    fn a_column_in_which_every_field_is_a_switch_is_one() {
        assert_eq!(switches("email,login,active\na,Enabled,1\nb,disabled,\nc, ENABLED ,0\n"), [1, 2]);
        assert_eq!(switches("email,login\na,enabled\nb,erin\n"), [] as [usize; 0]);
        assert_eq!(switches("email,login\n"), [] as [usize; 0], "no row tells nothing");
    }
}
