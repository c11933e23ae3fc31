//! What a column of a table may hold, and the word for it.

use std::{fmt, str::FromStr};

use crate::error::Side;

/// What one column of an account may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountField {
    /// The server's name or address.
    Host,
    /// Its port.
    Port,
    /// Who logs in.
    Username,
    /// The password.
    Password,
    /// An OAuth 2.0 access token.
    Token,
    /// What stands behind the @ of user names without one.
    Domain,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ColumnMeaning {
    /// The mailbox's name in the migration.
    Name,
    /// Something of an account: of this side's, or where the heading does not say, of whichever lacks it.
    Account(Option<Side>, AccountField),
}

pub(super) const PARTS: [(AccountField, &str); 6] = [
    (AccountField::Host, "host"),
    (AccountField::Port, "port"),
    (AccountField::Username, "username"),
    (AccountField::Password, "password"),
    (AccountField::Token, "token"),
    (AccountField::Domain, "domain"),
];

impl fmt::Display for ColumnMeaning {
    /// `name`, `username`, `source_password`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("name"),
            Self::Account(side, part) => {
                let word = PARTS.iter().find(|(other, _)| other == part).map_or("", |(_, word)| word);
                match side {
                    Some(side) => write!(f, "{side}_{word}"),
                    None => f.write_str(word),
                }
            }
        }
    }
}

impl FromStr for ColumnMeaning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = all_meanings().find(|meaning| meaning.to_string() == text);
        found.ok_or_else(|| {
            "a column holds name, or host, port, username, domain, password or token, each also with source_ or \
             destination_ before it"
                .to_owned()
        })
    }
}

pub(super) fn all_meanings() -> impl Iterator<Item = ColumnMeaning> {
    let sides = [None, Some(Side::Source), Some(Side::Destination)];
    let accounts = sides.into_iter().flat_map(|side| PARTS.map(|(part, _)| ColumnMeaning::Account(side, part)));
    [ColumnMeaning::Name].into_iter().chain(accounts)
}
