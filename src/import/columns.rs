//! What a table's columns hold: by the words that people head them with, or by settings of the command line.

use std::str::FromStr;

pub use super::column_meaning::{AccountField, ColumnMeaning};
use super::{
    column_meaning::PARTS,
    findings::TableFindings,
    headings::{bare_side, meaning, near},
};
use crate::error::Side;

/// One `MEANING=COLUMN` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSetting {
    /// What the column holds.
    pub meaning: ColumnMeaning,
    /// Its heading or its number, from 1; none where nothing holds this.
    pub column: Option<String>,
}

impl FromStr for ColumnSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (meaning, column) = text.split_once('=').ok_or("write MEANING=COLUMN, such as source_username=3")?;
        let column = Some(column.trim()).filter(|column| !column.is_empty()).map(str::to_owned);
        Ok(Self { meaning: meaning.trim().to_ascii_lowercase().replace('-', "_").parse()?, column })
    }
}

/// Where the parts of one account stand, by index from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccountColumns {
    /// See [`AccountField::Host`].
    pub host: Option<usize>,
    /// See [`AccountField::Port`].
    pub port: Option<usize>,
    /// See [`AccountField::Username`].
    pub username: Option<usize>,
    /// See [`AccountField::Password`].
    pub password: Option<usize>,
    /// See [`AccountField::Token`].
    pub token: Option<usize>,
    /// See [`AccountField::Domain`].
    pub domain: Option<usize>,
}

impl AccountColumns {
    const fn slot(&mut self, part: AccountField) -> &mut Option<usize> {
        match part {
            AccountField::Host => &mut self.host,
            AccountField::Port => &mut self.port,
            AccountField::Username => &mut self.username,
            AccountField::Password => &mut self.password,
            AccountField::Token => &mut self.token,
            AccountField::Domain => &mut self.domain,
        }
    }

    const fn has_credential(&self) -> bool {
        self.password.is_some() || self.token.is_some()
    }
}

/// Where everything stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableColumns {
    /// The mailbox's name.
    pub name: Option<usize>,
    /// The account that mail is read from.
    pub source: AccountColumns,
    /// The account that mail is written to.
    pub destination: AccountColumns,
    /// Columns that nothing is read from, by index from 0.
    pub unused: Vec<usize>,
}

/// What is known of each side without the table.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KnownSide {
    /// Its server.
    pub server: bool,
    /// An administrator who logs in for each mailbox.
    pub master: bool,
}

/// Of source and destination.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KnownSides {
    /// Of the source.
    pub source: KnownSide,
    /// Of the destination.
    pub destination: KnownSide,
}

impl TableColumns {
    /// As people read it, by number: `1 username of both sides, 2 source_password`.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut found: Vec<(usize, String)> =
            self.name.map(|index| (index, ColumnMeaning::Name.to_string())).into_iter().collect();
        for (part, word) in PARTS {
            let [source, destination] = [self.source, self.destination].map(|mut side| *side.slot(part));
            match (source, destination) {
                (Some(source), Some(destination)) if source == destination => {
                    found.push((source, format!("{word} of both sides")));
                }
                _ => {
                    let sides = [(source, Side::Source), (destination, Side::Destination)];
                    found.extend(sides.into_iter().filter_map(|(at, side)| Some((at?, format!("{side}_{word}")))));
                }
            }
        }
        found.sort();
        found.iter().map(|(index, what)| format!("{} {what}", index + 1)).collect::<Vec<_>>().join(", ")
    }

    const fn slot(&mut self, side: Side, part: AccountField) -> &mut Option<usize> {
        match side {
            Side::Source => self.source.slot(part),
            Side::Destination => self.destination.slot(part),
        }
    }
}

/// Finds the columns: by `settings`, then by headings. `headings` is the first line, none where the table has no such line;
/// `width` is the number of fields in its first record; `no_users` are columns that can hold no user names.
pub(crate) fn find(
    headings: Option<&[String]>,
    (width, no_users): (usize, &[usize]),
    settings: &[ColumnSetting],
    given: KnownSides,
    findings: &mut TableFindings,
) -> TableColumns {
    let mut columns = TableColumns::default();
    let mut taken: Vec<usize> = Vec::new();
    let mut settled: Vec<ColumnMeaning> = Vec::new(); // by a setting, if only that nothing holds it
    for ColumnSetting { meaning, column } in settings {
        let index = match column.as_deref().map(|column| index(column, headings, width)) {
            Some(Ok(index)) => Some(index),
            Some(Err(what)) => {
                findings.problem_of_all(format!("--columns {meaning}: {what}"));
                None
            }
            None => None,
        };
        taken.extend(index);
        for meaning in sided(*meaning) {
            if settled.contains(&meaning) {
                findings.problem_of_all(format!("--columns says twice where {meaning} is"));
            }
            settled.push(meaning);
            place(&mut columns, meaning, index);
        }
    }
    let found: Vec<(usize, Option<ColumnMeaning>)> =
        headings.unwrap_or_default().iter().map(|heading| meaning(heading)).enumerate().collect();
    if let Some(headings) = headings {
        let known = found.iter().any(|(index, meaning)| meaning.is_some() || taken.contains(index));
        if !known || headings.iter().any(|heading| is_address(heading)) {
            findings.problem_of_all(NO_HEADER);
            return columns;
        }
    }
    let free = |(index, _): &&(usize, Option<ColumnMeaning>)| !taken.contains(index);
    let found = without_switches(found, |index| no_users.contains(&index) && !taken.contains(&index), findings);
    for (index, found) in found.iter().filter(free) {
        if let Some(meaning @ (ColumnMeaning::Name | ColumnMeaning::Account(Some(_), _))) = found
            && !settled.contains(meaning)
        {
            claim_column(&mut columns, *meaning, *index, findings);
        }
    }
    let neutral = |part: AccountField| {
        found
            .iter()
            .filter(free)
            .filter(move |(_, found)| *found == Some(ColumnMeaning::Account(None, part)))
            .map(|(index, _)| *index)
    };
    for (part, _) in PARTS {
        let lacks = |columns: &TableColumns, side: Side| {
            let (account, given) = match side {
                Side::Source => (columns.source, given.source),
                Side::Destination => (columns.destination, given.destination),
            };
            !settled.contains(&ColumnMeaning::Account(Some(side), part))
                && match part {
                    AccountField::Username => account.username.is_none(),
                    AccountField::Password | AccountField::Token => !account.has_credential() && !given.master,
                    // A list of accounts names the server that they are on now.
                    AccountField::Host => side == Side::Source && account.host.is_none() && !given.server,
                    AccountField::Port => side == Side::Source && account.port.is_none() && account.host.is_some(),
                    AccountField::Domain => account.domain.is_none(),
                }
        };
        let sides: Vec<Side> =
            [Side::Source, Side::Destination].into_iter().filter(|side| lacks(&columns, *side)).collect();
        let mut first = None;
        for index in neutral(part).filter(|_| !sides.is_empty()) {
            match first {
                None => first = Some(index),
                Some(first) => findings.problem_of_all(twice(first, index, ColumnMeaning::Account(None, part))),
            }
        }
        for side in sides {
            *columns.slot(side, part) = first;
        }
    }
    columns.unused = (0..headings.map_or(width, <[String]>::len)).filter(|index| !uses(&columns, *index)).collect();
    // A suggestion tells what a heading is like: where the header was forgotten, a password.
    let is_header = [columns.source, columns.destination].iter().any(|at| at.username.is_some() && at.has_credential());
    for index in headings.map_or(&[][..], |_| &columns.unused) {
        if let Some(side) = headings.and_then(|headings| bare_side(&headings[*index])) {
            findings.warning_of_all(format!(
                "column {0} says whose it is, but not what it holds, and is not used: is it --columns {side}_password={0}?",
                index + 1
            ));
            continue;
        }
        if let Some(near) = headings.filter(|_| is_header).and_then(|headings| near(&headings[*index]))
            && found[*index].1.is_none()
        {
            let what = format!(
                "column {} is not used: did you mean {near}? Then say --columns {near}={}",
                index + 1,
                index + 1
            );
            findings.warning_of_all(what);
        }
    }
    columns
}

/// The same without columns that are headed as user names, and are none.
fn without_switches(
    found: Vec<(usize, Option<ColumnMeaning>)>,
    is_switch: impl Fn(usize) -> bool,
    findings: &mut TableFindings,
) -> Vec<(usize, Option<ColumnMeaning>)> {
    let keep = |(index, meaning): (usize, Option<ColumnMeaning>)| {
        if !matches!(meaning, Some(ColumnMeaning::Account(_, AccountField::Username))) || !is_switch(index) {
            return (index, meaning);
        }
        findings.warning_of_all(format!(
            "column {0} is not used: its heading is one of user names, but it says in each row whether something is switched \
             on. If these are user names, say --columns username={0}",
            index + 1
        ));
        (index, None)
    };
    found.into_iter().map(keep).collect()
}

const NO_HEADER: &str = "the first line names no columns that are known: did you forget the header? Write one \
    (source_username,source_password,destination_password), say what is where (--columns source_username=1,\
    source_password=2, with --no-header where the first line is data already), or --format imapsync for imapsync's \
    lists";

/// What is missing before rows can be read.
pub(crate) fn check_complete(columns: &TableColumns, given: KnownSides, findings: &mut TableFindings) {
    if columns.name.is_none() && columns.source.username.is_none() && columns.destination.username.is_none() {
        findings.problem_of_all("there is no column with user names: name it `username`, or say --columns username=N");
    }
    let sides =
        [(Side::Source, columns.source, given.source), (Side::Destination, columns.destination, given.destination)];
    for (side, account, given) in sides {
        if !account.has_credential() && !given.master {
            findings.problem_of_all(format!(
                "there is no column with the passwords of the {side}: name it `{side}_password`, or say --columns \
                 {side}_password=N, or let an administrator log in (--{side}-master-user, --{side}-master-secret)"
            ));
        }
        match (account.host, given.server) {
            (None, false) => findings.problem_of_all(format!(
                "the {side}'s server is not known: say --{side}-host HOST or --{side}-server NAME, or have a column \
                 `{side}_host`"
            )),
            (Some(index), true) => findings.problem_of_all(format!(
                "column {} names the {side}'s server, and the command line too: leave out --{side}-host and \
                 --{side}-server, or say --columns {side}_host= to leave out the column",
                index + 1
            )),
            _ => {}
        }
    }
}

fn uses(columns: &TableColumns, index: usize) -> bool {
    let accounts = [columns.source, columns.destination];
    columns.name == Some(index)
        || accounts.into_iter().any(|mut account| PARTS.iter().any(|(part, _)| *account.slot(*part) == Some(index)))
}

fn claim_column(columns: &mut TableColumns, meaning: ColumnMeaning, index: usize, findings: &mut TableFindings) {
    let first = match meaning {
        ColumnMeaning::Name => columns.name,
        ColumnMeaning::Account(Some(side), part) => *columns.slot(side, part),
        ColumnMeaning::Account(None, _) => None,
    };
    match first {
        Some(first) => findings.problem_of_all(twice(first, index, meaning)),
        None => place(columns, meaning, Some(index)),
    }
}

fn place(columns: &mut TableColumns, meaning: ColumnMeaning, index: Option<usize>) {
    match meaning {
        ColumnMeaning::Name => columns.name = index,
        ColumnMeaning::Account(side, part) => {
            for side in side.map_or_else(|| vec![Side::Source, Side::Destination], |side| vec![side]) {
                *columns.slot(side, part) = index;
            }
        }
    }
}

fn twice(first: usize, second: usize, meaning: ColumnMeaning) -> String {
    let (first, second) = (first + 1, second + 1);
    format!(
        "columns {first} and {second} both seem to hold {meaning}: choose one by --columns {meaning}={first} or \
         ={second}"
    )
}

fn sided(meaning: ColumnMeaning) -> Vec<ColumnMeaning> {
    match meaning {
        ColumnMeaning::Account(None, part) => {
            [Side::Source, Side::Destination].map(|side| ColumnMeaning::Account(Some(side), part)).to_vec()
        }
        meaning => vec![meaning],
    }
}

/// A column by number or heading.
fn index(column: &str, headings: Option<&[String]>, width: usize) -> Result<usize, String> {
    if let Ok(number) = column.parse::<usize>() {
        return match number.checked_sub(1).filter(|index| *index < width) {
            Some(index) => Ok(index),
            None => Err(format!("there is no column {number}, but {width}")),
        };
    }
    let Some(headings) = headings else {
        return Err("without a header, columns have numbers: 1 is the first".to_owned());
    };
    let same = |heading: &String| heading.trim().eq_ignore_ascii_case(column);
    headings.iter().position(same).ok_or_else(|| "no column has this heading".to_owned())
}

/// True for an address, which is no heading.
#[must_use]
pub(crate) fn is_address(text: &str) -> bool {
    text.trim().split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
}

#[cfg(test)]
mod tests;
