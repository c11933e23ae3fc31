//! Names of what an import makes: the same for the same mailboxes, so that a list can grow without renaming anything.

use std::collections::{HashMap, HashSet};

use super::{findings::TableFindings, rows::TableRow, side_settings::ServerLocation};
use crate::api::{names, validate};

/// The longest name of an import: what is made from it adds to it, and it is a label's value too (63 characters).
pub(crate) const MAX_IMPORT: usize = 40;
/// The longest part of a login name in a mailbox's name.
const MAX_READABLE: usize = 200;
/// Hexadecimal digits of a hash that makes a name unique.
const HASH: usize = 8;

/// True for what can name an import: it starts the names of all objects.
#[must_use]
pub(crate) fn is_import_name(name: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= MAX_IMPORT
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Lower-case letters, digits and single dashes of a text, for the start of an object's name.
#[must_use]
pub(crate) fn slug(text: &str, most: usize) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        if !(c == '-' && (slug.is_empty() || slug.ends_with('-'))) {
            slug.push(c);
        }
    }
    slug.truncate(most);
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// The name of the migration between two servers, where an import has several.
#[must_use]
pub fn migration(import: &str, [source, destination]: &[ServerLocation; 2]) -> String {
    let word = |place: &ServerLocation| match place {
        ServerLocation::Reference(name) => name.clone(),
        ServerLocation::Host(host, None) => host.clone(),
        ServerLocation::Host(host, Some(port)) => format!("{host}:{port}"),
    };
    let (source, destination) = (word(source), word(destination));
    let name = format!("{import}-{}-{}", slug(&source, 253), slug(&destination, 253));
    let hash = names::hash_texts(&[&source, &destination], HASH);
    // Without a hash only where nothing was lost on the way: another pair can't have this name then.
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.');
    if name.len() <= 63 && plain(&source) && plain(&destination) { name } else { format!("{}-{hash}", slug(&name, 54)) }
}

/// The name of a mailbox's Secret: that of its MailboxSync.
#[must_use]
pub(crate) fn secret(migration: &str, mailbox: &str) -> String {
    names::mailbox_sync(migration, mailbox)
}

/// The bucket of a mailbox among `count`: the same for as long as there are so many.
#[must_use]
pub fn bucket(mailbox: &str, count: usize) -> usize {
    let hash = names::hash_texts(&[mailbox], 8);
    usize::from_str_radix(&hash, 16).unwrap_or_default() % count.max(1)
}

/// Names the mailboxes of one migration: as the table says, else after the destination's user name. Of several that would
/// have one name, the first in the table keeps it.
pub(crate) fn mailboxes(rows: &[&TableRow], findings: &mut TableFindings) -> Vec<String> {
    let mut lines: HashMap<String, usize> = HashMap::new();
    for row in rows {
        if let Some(name) = &row.name {
            if let Some(first) = lines.get(name) {
                findings.problem(
                    row.line,
                    format!("the name is on line {first} already: each mailbox needs one of its own"),
                );
            } else {
                lines.insert(name.clone(), row.line);
            }
        }
    }
    let mut taken: HashSet<String> = lines.keys().cloned().collect();
    rows.iter()
        .map(|row| {
            if let Some(name) = &row.name {
                return name.clone();
            }
            let plain = derived(&row.destination.username);
            if taken.insert(plain.clone()) {
                lines.insert(plain.clone(), row.line);
                return plain;
            }
            let first = lines.get(&plain).copied().unwrap_or_default();
            findings.warning(
                row.line,
                format!("the mailbox would have the name of the one on line {first}: its name gets a suffix"),
            );
            let users = [row.source.username.as_str(), row.destination.username.as_str()];
            let name = with_hash(&plain, &users);
            taken.insert(name.clone());
            name
        })
        .collect()
}

/// A mailbox's name from a login name: itself, where the API takes it.
fn derived(username: &str) -> String {
    if validate::is_mailbox_name(username) && username.len() <= MAX_READABLE {
        return username.to_owned();
    }
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._@+=-".contains(c) { c } else { '-' };
    let readable: String = username.chars().map(allowed).take(MAX_READABLE).collect();
    with_hash(readable.trim_matches(|c: char| !c.is_ascii_alphanumeric()), &[username])
}

fn with_hash(readable: &str, texts: &[&str]) -> String {
    let hash = names::hash_texts(texts, HASH);
    if readable.is_empty() { hash } else { format!("{readable}-{hash}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::import::login::RowAccount;

    fn row(line: usize, name: Option<&str>, source: &str, destination: &str) -> TableRow {
        let login = |user: &str| RowAccount { host: None, port: None, username: user.to_owned(), credential: None };
        TableRow { line, name: name.map(str::to_owned), source: login(source), destination: login(destination) }
    }

    fn named(rows: &[TableRow]) -> (Vec<String>, String) {
        let mut findings = TableFindings::default();
        let names = mailboxes(&rows.iter().collect::<Vec<_>>(), &mut findings);
        (names, findings.text("f"))
    }

    #[test]
    fn a_mailbox_is_named_after_the_destinations_user() {
        let (names, said) = named(&[row(2, None, "a", "alice@x.example"), row(3, Some("bob"), "b", "b@x.example")]);
        assert_eq!((names, said.as_str()), (vec!["alice@x.example".to_owned(), "bob".to_owned()], ""));
    }

    #[test]
    fn of_two_equal_names_the_second_gets_a_suffix_and_is_reported() {
        let rows = [row(2, None, "a", "info@x"), row(3, None, "b", "info@x"), row(4, Some("info@x"), "c", "c")];
        let (names, said) = named(&rows);
        assert_eq!(names[2], "info@x");
        assert!(
            names[0].starts_with("info@x-") && names[1].starts_with("info@x-") && names[0] != names[1],
            "{names:?}"
        );
        assert!(said.contains("line 3: the mailbox would have the name of the one on line 4"), "{said}");
        let (_, said) = named(&[row(2, Some("a"), "a", "a"), row(9, Some("a"), "b", "b")]);
        assert!(said.contains("problem: f, line 9: the name is on line 2 already"), "{said}");
    }

    #[test]
    fn servers_are_in_a_migrations_name() {
        let host = |host: &str, port| ServerLocation::Host(host.to_owned(), port);
        let name = |a: &ServerLocation, b: &ServerLocation| migration("acme", &[a.clone(), b.clone()]);
        assert_eq!(name(&host("old.example", None), &host("new.example", None)), "acme-old-example-new-example");
        let long = host(&"x".repeat(100), None);
        let others =
            [host("a-b", None), host("a.b", None), host("a", Some(1)), host("a-1", None), host("a_b", None), long];
        let all: HashSet<String> = others.iter().map(|place| name(place, &host("n", None))).collect();
        assert!(all.len() == others.len() && all.iter().all(|name| name.len() <= 63), "{all:?}");
    }

    #[test]
    fn a_bucket_keeps_half_of_its_mailboxes_when_there_are_twice_as_many() {
        for index in 0..1000 {
            let mailbox = format!("user{index}@x.example");
            assert_eq!(bucket(&mailbox, 8) % 4, bucket(&mailbox, 4));
        }
    }

    proptest! {
        #[test]
        fn every_user_name_gives_a_name_of_the_api(user in "\\PC{1,320}") {
            let name = derived(&user);
            prop_assert!(validate::is_mailbox_name(&name) && name.len() <= 253, "{}", name);
        }
    }
}
