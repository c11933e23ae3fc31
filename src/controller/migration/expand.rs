//! The MailboxSyncs that a migration asks for, from its list and its CSVs. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use secrecy::{ExposeSecret as _, SecretBox};

use super::aggregate::UnmadeMailboxes;
use crate::{
    api::{MailMigration, MailServerSpec, MailboxEntry, MailboxSyncSpec, csv::CsvMailbox, names},
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

/// A mailbox of a CSV.
#[derive(Debug)]
pub(crate) struct CsvRow<'a> {
    /// The UID of the object that the CSV is in.
    pub csv_uid: &'a str,
    /// What its line says.
    pub mailbox: CsvMailbox,
}

/// Which mailboxes a migration lists, as far as it has to be known before the first is expanded: those that have a
/// MailboxSync, and as many more as may be made. So it is bounded, however many are listed.
pub(crate) struct MailboxCensus<'a> {
    owner: &'a str,
    is_there: &'a (dyn Fn(&str) -> bool + Sync),
    room: usize,
    /// By the names of their MailboxSyncs.
    names: HashSet<String>,
    /// Of these, those that are listed more than once.
    twice: HashSet<String>,
    over: usize,
    first_over: Option<String>,
}

impl<'a> MailboxCensus<'a> {
    /// Nothing listed yet of the migration `owner`. `is_there`: a MailboxSync of this name is there; so many more may be made
    /// (`room`).
    #[must_use]
    pub(crate) fn new(owner: &'a str, is_there: &'a (dyn Fn(&str) -> bool + Sync), room: usize) -> Self {
        let (names, twice) = (HashSet::new(), HashSet::new());
        Self { owner, is_there, room, names, twice, over: 0, first_over: None }
    }

    /// Takes in a mailbox by its name.
    pub(crate) fn add(&mut self, mailbox: &str) {
        let name = names::mailbox_sync(self.owner, mailbox);
        let there = (self.is_there)(&name);
        if self.names.contains(&name) {
            self.twice.insert(name);
        } else if there || self.room > 0 {
            self.room -= usize::from(!there);
            self.names.insert(name);
        } else {
            self.over += 1;
            self.first_over.get_or_insert_with(|| mailbox.to_owned());
        }
    }
}

/// What became of the mailboxes of a migration.
#[derive(Debug, Default)]
pub(crate) struct MigrationExpansion {
    /// The names of all MailboxSyncs that the migration asks for.
    pub names: HashSet<String>,
    /// The names of MailboxSyncs that are not asked for, since their mailboxes can't be synced as they are written.
    pub invalid: HashSet<String>,
    /// How many these are, and some of them; and how many are above the limit of the namespace, with the first.
    pub unmade: UnmadeMailboxes,
    /// The first mailbox above the limit.
    pub first_over: Option<String>,
}

/// Expands a migration, one mailbox at a time: all of them at once would not fit into an operator's memory.
pub(crate) struct MigrationExpander<'a, F> {
    migration: &'a MailMigration,
    owner: String,
    /// Finds a MailServer by name.
    server: F,
    /// Keys the names of the mailboxes' Secrets, so that they tell nothing of what is in them.
    naming_key: &'a str,
    /// When delivery moves, where the migration says "now".
    cutover: Option<&'a Time>,
    /// What may be made, or is there: by the names of their MailboxSyncs.
    listed: HashSet<String>,
    twice: HashSet<String>,
    expansion: MigrationExpansion,
}

impl<'a, F: Fn(&str) -> Option<&'a MailServerSpec> + Copy> MigrationExpander<'a, F> {
    /// Nothing expanded yet. `server` finds a MailServer by name; `naming_key` keys the names of the mailboxes' Secrets, so
    /// that they tell nothing of what is in them; `cutover`: when delivery moves, where the migration says "now".
    #[must_use]
    pub(crate) fn new(
        migration: &'a MailMigration,
        census: MailboxCensus<'_>,
        server: F,
        naming_key: &'a str,
        cutover: Option<&'a Time>,
    ) -> Self {
        let MailboxCensus { names, twice, over, first_over, .. } = census;
        let unmade = UnmadeMailboxes { over_limit: over, ..UnmadeMailboxes::default() };
        let expansion = MigrationExpansion { unmade, first_over, ..MigrationExpansion::default() };
        Self { migration, owner: migration.name_any(), server, naming_key, cutover, listed: names, twice, expansion }
    }

    /// The MailboxSync of a mailbox of the migration's list, with its name; none where there is none to be made.
    pub(crate) fn listed(&mut self, entry: &MailboxEntry) -> Option<(String, WantedSync)> {
        let name = names::mailbox_sync(&self.owner, &entry.name);
        if self.listed.contains(&name) { self.resolve(name, entry, None) } else { None }
    }

    /// The same of a mailbox of a CSV.
    pub(crate) fn in_csv(&mut self, row: CsvRow<'_>) -> Option<(String, WantedSync)> {
        let CsvMailbox { mut entry, secrets, .. } = row.mailbox;
        let name = names::mailbox_sync(&self.owner, &entry.name);
        if !self.listed.contains(&name) {
            return None;
        }
        let secret = (!secrets.is_empty()).then(|| {
            let name = names::mailbox_secret(&name, &secret_version(self.naming_key, row.csv_uid, &secrets));
            SplitSecret { name, values: secrets }
        });
        if let Some(secret) = &secret {
            for account in [&mut entry.source, &mut entry.destination] {
                for reference in account.password_secret_ref.iter_mut().chain(account.token_secret_ref.iter_mut()) {
                    reference.name.clone_from(&secret.name);
                }
            }
        }
        self.resolve(name, &entry, secret)
    }

    fn resolve(
        &mut self,
        name: String,
        entry: &MailboxEntry,
        secret: Option<SplitSecret>,
    ) -> Option<(String, WantedSync)> {
        // Of two with one name, neither is synced: which one is meant can't be known.
        let resolved = if self.twice.contains(&name) {
            Err(Error::configuration("the migration has a mailbox of this name already").advice("Rename one of them"))
        } else {
            resolve::resolve_mailbox(self.migration, entry, self.server)
        };
        match resolved {
            Ok(mut spec) => {
                if let Some(own) = &mut spec.settings.cutover {
                    own.at = own.at.take().or_else(|| self.cutover.cloned());
                }
                self.expansion.names.insert(name.clone());
                Some((name, WantedSync { spec, secret }))
            }
            Err(error) => {
                if self.expansion.invalid.insert(name) {
                    self.expansion.unmade.add_failed(&entry.name, &error);
                }
                None
            }
        }
    }

    /// What became of all of them.
    #[must_use]
    pub(crate) fn finish(self) -> MigrationExpansion {
        self.expansion
    }
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

    fn expanded_within(
        text: &str,
        key: &str,
        there: &[&str],
        room: usize,
    ) -> (BTreeMap<String, WantedSync>, MigrationExpansion) {
        let value: serde_json::Value = yaml::read("m", MIGRATION).unwrap();
        let migration: MailMigration = serde_json::from_value(value).unwrap();
        let old = MailServerSpec { host: "old.example".into(), ..MailServerSpec::default() };
        let find = |name: &str| (name == "old").then_some(&old);
        let there: Vec<_> = there.iter().map(|mailbox| names::mailbox_sync("acme", mailbox)).collect();
        let is_there = |name: &str| there.iter().any(|there| there == name);
        let mut census = MailboxCensus::new("acme", &is_there, room);
        let rows = || csv::parse("c", text.as_bytes(), |_| "x".into()).unwrap().into_iter();
        migration.spec.mailboxes.iter().for_each(|entry| census.add(&entry.name));
        rows().for_each(|row| census.add(&row.entry.name));
        let mut expander = MigrationExpander::new(&migration, census, find, key, None);
        let mut wanted: BTreeMap<_, _> =
            migration.spec.mailboxes.iter().filter_map(|entry| expander.listed(entry)).collect();
        wanted.extend(rows().filter_map(|mailbox| expander.in_csv(CsvRow { csv_uid: "c", mailbox })));
        let expansion = expander.finish();
        assert_eq!(wanted.keys().cloned().collect::<HashSet<_>>(), expansion.names);
        (wanted, expansion)
    }

    fn expanded(text: &str, key: &str) -> (BTreeMap<String, WantedSync>, MigrationExpansion) {
        expanded_within(text, key, &[], 100)
    }

    #[test]
    fn listed_mailboxes_and_lines_of_a_csv_become_one_wanted_mailbox_each() {
        let (wanted, found) = expanded("name,source_password\nbob,pw\n", "key");
        let users: Vec<_> = wanted.values().map(|wanted| wanted.spec.mailbox.as_str()).collect();
        assert_eq!((users, found.unmade), (vec!["alice", "bob"], UnmadeMailboxes::default()));
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
        assert_eq!(found.invalid, [names::mailbox_sync("acme", "alice")].into());
        let failed = &found.unmade;
        assert_eq!((failed.failed, failed.failures.len(), failed.failures[0].mailbox.as_str()), (1, 1, "alice"));
        assert!(failed.failures[0].error.message.contains("already"), "{}", failed.failures[0].error.message);
    }

    #[test]
    fn what_is_above_the_limit_is_counted_and_not_made_and_what_is_there_stays() {
        let text = "name,source_password\nbob,pw\ncarol,pw\ndave,pw\nerin,pw\n";
        let (wanted, found) = expanded_within(text, "key", &["erin"], 2);
        let made: Vec<_> = wanted.values().map(|wanted| wanted.spec.mailbox.as_str()).collect();
        assert_eq!(made, ["alice", "bob", "erin"]);
        assert_eq!((found.unmade.over_limit, found.first_over.as_deref()), (2, Some("carol")));
        let (wanted, found) = expanded_within(text, "key", &["alice", "bob", "carol", "dave", "erin"], 0);
        assert_eq!((wanted.len(), found.unmade.over_limit), (5, 0));
    }

    #[test]
    fn many_mailboxes_that_are_wrong_or_above_the_limit_take_no_room() {
        let text: String = (0..5000).fold("name,source_username\n".to_owned(), |text, n| text + &format!("n{n},u\n"));
        let (_, found) = expanded_within(&text, "key", &[], 1000);
        assert_eq!((found.unmade.failed, found.unmade.over_limit, found.names.len()), (999, 4001, 1));
        assert!(found.unmade.failures.len() <= 10);
    }
}
