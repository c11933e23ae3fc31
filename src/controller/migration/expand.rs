//! The MailboxSyncs that a migration asks for, from its list and its CSVs. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use secrecy::{ExposeSecret as _, SecretBox};

use crate::{
    api::{
        LastError, MailMigration, MailServerSpec, MailboxEntry, MailboxSyncSpec, csv::CsvMailbox,
        mail_migration::FailureSample, names,
    },
    error::Error,
    resolve,
};

/// A MailboxSync that a migration asks for.
#[derive(Debug)]
pub(crate) struct WantedSync {
    /// Its spec.
    pub spec: MailboxSyncSpec,
    /// Its credentials, where they come from a CSV.
    pub secret: Option<SplitSecret>,
}

/// One mailbox's part of a CSV.
#[derive(Debug)]
pub(crate) struct SplitSecret {
    /// The Secret's name: another one when what is in it changes.
    pub name: String,
    /// The values by key.
    pub values: HashMap<&'static str, SecretBox<[u8]>>,
}

/// The mailboxes of a migration, by the names of their MailboxSyncs.
#[derive(Debug, Default)]
pub(crate) struct MigrationExpansion {
    /// The names of all MailboxSyncs that the migration asks for.
    pub names: HashSet<String>,
    /// Mailboxes that can't be synced as they are written, and why.
    pub invalid_mailboxes: BTreeMap<String, FailureSample>,
}

/// A mailbox of a CSV.
#[derive(Debug)]
pub(crate) struct CsvRow {
    /// The UID of the Secret that the CSV is in.
    pub csv_uid: String,
    /// What its line says.
    pub mailbox: CsvMailbox,
}

/// What a migration is expanded with, beside its own spec.
pub(crate) struct ExpansionContext<'c> {
    /// Keys the names of the mailboxes' Secrets, so that they tell nothing of what is in them.
    pub naming_key: &'c str,
    /// When delivery moves, where the migration says "now".
    pub cutover: Option<&'c Time>,
}

/// Resolves each mailbox of a migration's list and of its CSVs (`rows`), and hands over one MailboxSync at a time: all of
/// them at once would not fit into an operator's memory. `server` finds a MailServer by name; `take` gets each
/// MailboxSync with its name.
#[must_use]
pub(crate) fn expand<'a>(
    migration: &MailMigration,
    rows: Vec<CsvRow>,
    server: impl Fn(&str) -> Option<&'a MailServerSpec> + Copy,
    context: &ExpansionContext<'_>,
    mut take: impl FnMut(String, WantedSync),
) -> MigrationExpansion {
    let mut expansion = MigrationExpansion::default();
    let owner = migration.name_any();
    let mut twice = HashSet::new();
    let listed = migration.spec.mailboxes.iter().map(|entry| &entry.name);
    for mailbox in listed.chain(rows.iter().map(|row| &row.mailbox.entry.name)) {
        let name = names::mailbox_sync(&owner, mailbox);
        if !expansion.names.insert(name.clone()) {
            twice.insert(name);
        }
    }
    let mut add = |entry: &MailboxEntry, secret: Option<SplitSecret>| {
        let name = names::mailbox_sync(&owner, &entry.name);
        // Of two with one name, neither is synced: which one is meant can't be known.
        let resolved = if twice.contains(&name) {
            Err(Error::configuration("the migration has a mailbox of this name already").advice("Rename one of them"))
        } else {
            resolve::resolve_mailbox(migration, entry, server)
        };
        match resolved {
            Ok(mut spec) => {
                if let Some(own) = &mut spec.settings.cutover {
                    own.at = own.at.take().or_else(|| context.cutover.cloned());
                }
                take(name, WantedSync { spec, secret });
            }
            Err(error) => {
                let sample = FailureSample { mailbox: entry.name.clone(), error: LastError::new(&error, None) };
                expansion.names.remove(&name);
                expansion.invalid_mailboxes.insert(name, sample);
            }
        }
    };
    for entry in &migration.spec.mailboxes {
        add(entry, None);
    }
    for CsvRow { csv_uid, mailbox } in rows {
        let CsvMailbox { mut entry, secrets, .. } = mailbox;
        let sync = names::mailbox_sync(&owner, &entry.name);
        let secret = (!secrets.is_empty()).then(|| {
            let name = names::mailbox_secret(&sync, &secret_version(context.naming_key, &csv_uid, &secrets));
            SplitSecret { name, values: secrets }
        });
        if let Some(secret) = &secret {
            for account in [&mut entry.source, &mut entry.destination] {
                for reference in account.password_secret_ref.iter_mut().chain(account.token_secret_ref.iter_mut()) {
                    reference.name.clone_from(&secret.name);
                }
            }
        }
        add(&entry, secret);
    }
    expansion
}

/// A keyed hash of what is in a mailbox's Secret: it tells nothing of it to whoever does not have the key.
fn secret_version(naming_key: &str, csv_uid: &str, secrets: &HashMap<&'static str, SecretBox<[u8]>>) -> String {
    let sorted: BTreeMap<_, _> = secrets.iter().collect();
    let mut texts = vec![naming_key.as_bytes(), csv_uid.as_bytes()];
    for (name, value) in &sorted {
        texts.extend([name.as_bytes(), value.expose_secret()]);
    }
    names::hash_bytes(&texts, 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::csv, yaml};

    const MIGRATION: &str = "
metadata: {name: acme, namespace: ns, uid: u1}
spec:
  source: {serverRef: {name: old}}
  destination: {server: {host: new.example}, masterUser: {username: m, passwordSecretRef: {name: m, key: p}}}
  mailboxes:
  - {name: alice, source: {passwordSecretRef: {name: s, key: a}}}
  mailboxSecrets: [{name: c, key: csv}]
  cutover: {}
";

    fn rows(text: &str) -> Vec<CsvRow> {
        let mailboxes = csv::parse("c", text.as_bytes(), |_| "x".into()).unwrap();
        mailboxes.into_iter().map(|mailbox| CsvRow { csv_uid: "c".to_owned(), mailbox }).collect()
    }

    fn expanded(text: &str, key: &str) -> (BTreeMap<String, WantedSync>, MigrationExpansion) {
        let value: serde_json::Value = yaml::read("m", MIGRATION).unwrap();
        let migration: MailMigration = serde_json::from_value(value).unwrap();
        let old = MailServerSpec { host: "old.example".into(), ..MailServerSpec::default() };
        let mut wanted = BTreeMap::new();
        let find = |name: &str| (name == "old").then_some(&old);
        let context = ExpansionContext { naming_key: key, cutover: None };
        let expansion = expand(&migration, rows(text), find, &context, |name, one| drop(wanted.insert(name, one)));
        assert_eq!(wanted.keys().cloned().collect::<HashSet<_>>(), expansion.names);
        (wanted, expansion)
    }

    #[test]
    fn listed_mailboxes_and_lines_of_a_csv_become_one_wanted_mailbox_each() {
        let (wanted, found) = expanded("name,source_password\nbob,pw\n", "key");
        let users: Vec<_> = wanted.values().map(|wanted| wanted.spec.mailbox.as_str()).collect();
        assert_eq!((users, found.invalid_mailboxes.len()), (vec!["alice", "bob"], 0));
        let bob = &wanted[&names::mailbox_sync("acme", "bob")];
        let reference = bob.spec.source.account.password_secret_ref.as_ref().unwrap();
        assert_eq!(reference.name, bob.secret.as_ref().unwrap().name);
        assert!(reference.name.starts_with(&names::mailbox_sync("acme", "bob")));
    }

    #[test]
    fn another_password_is_another_secret_and_only_the_keys_holder_can_tell() {
        let name = |text: &str, key: &str| {
            let (wanted, _) = expanded(text, key);
            wanted[&names::mailbox_sync("acme", "bob")].secret.as_ref().unwrap().name.clone()
        };
        let first = name("name,source_password\nbob,pw\n", "key");
        insta::assert_snapshot!(first, @"acme-bob-5b5133d778-b9f39f5550e8");
        assert_eq!(first, name("source_password,name\npw,bob\n", "key"));
        assert_ne!(first, name("name,source_password\nbob,other\n", "key"));
        assert_ne!(first, name("name,source_password\nbob,pw\n", "another key"));
    }

    #[test]
    fn of_two_mailboxes_with_one_name_neither_is_synced() {
        let (wanted, found) = expanded("name,source_password\nalice,pw\nbob,pw\n", "key");
        assert_eq!(wanted.len(), 1);
        let wrong = &found.invalid_mailboxes[&names::mailbox_sync("acme", "alice")];
        assert!(wrong.error.message.contains("already"), "{}", wrong.error.message);
    }
}
