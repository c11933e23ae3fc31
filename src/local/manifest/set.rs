//! All that manifests say, and what the engine does by it.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretBox};

use super::super::{
    grant_folder::GrantFolder,
    key_values::{KeyValueManifest, find_visible},
    secrets::{SecretSource, SecretStore, variable},
};
use crate::{
    api::{
        Account, CsvRef, EndpointSpec, MailMigration, MailServer, MailServerSpec, MailboxEntry, SecretKeyRef,
        csv::{self, CsvMailbox},
    },
    error::{Error, Result},
    oauth::{self, TokenCache},
    resolve::{self, GrantSecret, SecretError, SecretProvider},
    sync::spec::SyncSpec,
};

/// Everything that the given files hold.
#[derive(Debug, Default)]
pub struct ManifestSet {
    pub(super) migrations: Vec<MailMigration>,
    pub(super) servers: Vec<MailServer>,
    pub(super) secrets: SecretStore,
    pub(super) config_maps: Vec<KeyValueManifest>,
    grants: Arc<GrantFolder>,
    tokens: OnceLock<Arc<TokenCache>>,
}

impl ManifestSet {
    /// Gives the value of a Secret; a file that `--secret` names comes before it.
    pub(crate) fn give_secret(&mut self, secret: SecretKeyRef, value: SecretBox<[u8]>) {
        self.secrets.give(secret, value);
    }

    /// Gives a Secret by the file that holds it, which is read again when it is needed.
    pub(crate) fn give_secret_file(&mut self, source: SecretSource) {
        self.secrets.give_file(source);
    }

    /// Where refresh tokens are kept; which folder that is may be said later.
    #[must_use]
    pub(crate) fn grant_folder(&self) -> Arc<GrantFolder> {
        Arc::clone(&self.grants)
    }

    /// The tokens of all grants.
    #[must_use]
    pub(crate) fn tokens(&self) -> &Arc<TokenCache> {
        self.tokens.get_or_init(|| TokenCache::new(self.grant_folder()))
    }

    /// The migrations, in the order of the files.
    #[must_use]
    pub fn migrations(&self) -> &[MailMigration] {
        &self.migrations
    }

    /// The server of one side of a migration, for its limits; none where serverRef names none that is here.
    #[must_use]
    pub fn server<'a>(&'a self, migration: &MailMigration, endpoint: &'a EndpointSpec) -> Option<&'a MailServerSpec> {
        match (&endpoint.server, &endpoint.server_ref) {
            (Some(server), _) => Some(server),
            (None, Some(reference)) => self.server_named(migration.metadata.namespace.as_deref(), &reference.name),
            (None, None) => None,
        }
    }

    /// What the engine does for each mailbox of a migration, in its order, mailboxes of CSVs last. Each is right or
    /// wrong by itself; a CSV that can't be read is one error. Cancelled mailboxes are left out. `now` is what ages of
    /// messages are counted from.
    #[must_use]
    pub fn specs(&self, migration: &MailMigration, now: Timestamp) -> Vec<Result<SyncSpec>> {
        let wanted = |entry: &MailboxEntry| !migration.spec.cancel.contains(&entry.name);
        let listed = migration.spec.mailboxes.iter().filter(|entry| wanted(entry));
        let mut specs: Vec<_> = listed.map(|entry| self.spec(migration, entry, None, now)).collect();
        let mut names: HashSet<String> = migration.spec.mailboxes.iter().map(|entry| entry.name.clone()).collect();
        for place in migration.spec.csvs() {
            match self.csv(migration, place) {
                Ok(mailboxes) => {
                    for mailbox in mailboxes.iter().filter(|mailbox| wanted(&mailbox.entry)) {
                        specs.push(if names.insert(mailbox.entry.name.clone()) {
                            self.spec(migration, &mailbox.entry, Some(mailbox), now)
                        } else {
                            let line = mailbox.line;
                            let what =
                                format!("{place}, line {line}: the migration has a mailbox of this name already");
                            Err(Error::configuration(what).in_mailbox(&mailbox.entry.name))
                        });
                    }
                }
                Err(error) => specs.push(Err(error)),
            }
        }
        specs
    }

    fn spec(
        &self,
        migration: &MailMigration,
        entry: &MailboxEntry,
        row: Option<&CsvMailbox>,
        now: Timestamp,
    ) -> Result<SyncSpec> {
        let namespace = migration.metadata.namespace.as_deref();
        let sync = resolve::resolve_mailbox(migration, entry, |name| self.server_named(namespace, name))?;
        let secrets = VisibleSecrets { store: &self.secrets, tokens: self.tokens(), namespace, row };
        resolve::build_sync_spec(&sync, &secrets, now)
    }

    fn csv(&self, migration: &MailMigration, place: CsvRef<'_>) -> Result<Vec<CsvMailbox>> {
        match place {
            CsvRef::Secret(reference) => self.csv_in_secret(migration, reference),
            CsvRef::ConfigMap(reference) => {
                let named: Vec<_> = self.config_maps.iter().filter(|map| map.name == reference.name).collect();
                let map = find_visible(migration.metadata.namespace.as_deref(), &named, |map| map.namespace.as_deref());
                let bytes = map.and_then(|map| map.value(&reference.key)).ok_or_else(|| {
                    Error::configuration(format!("there is no {place} (mailboxConfigMaps)"))
                        .advice("Add the ConfigMap to the files given by -f")
                })?;
                csv::refuse_credentials(&place.to_string(), bytes)?;
                csv::parse(&place.to_string(), bytes, |_| reference.name.clone())
            }
        }
    }

    fn csv_in_secret(&self, migration: &MailMigration, reference: &SecretKeyRef) -> Result<Vec<CsvMailbox>> {
        let SecretKeyRef { name, key } = reference;
        let namespace = migration.metadata.namespace.as_deref();
        let view = VisibleSecrets { store: &self.secrets, tokens: self.tokens(), namespace, row: None };
        let bytes = view.value(reference).map_err(|missing| {
            let what = match missing {
                SecretError::NoSecret => format!("there is no Secret {name} (key {key}, mailboxSecrets)"),
                SecretError::NoKey(_) => format!("Secret {name} has no key {key} (mailboxSecrets)"),
                SecretError::Unreadable(why) => {
                    format!("Secret {name} key {key} (mailboxSecrets) can't be read: {why}")
                }
            };
            Error::configuration(what).advice(view.how_to_provide(reference))
        })?;
        csv::parse(&format!("Secret {name} key {key}"), bytes.expose_secret(), |_| name.clone())
    }

    fn server_named(&self, namespace: Option<&str>, name: &str) -> Option<&MailServerSpec> {
        let named: Vec<_> =
            self.servers.iter().filter(|server| server.metadata.name.as_deref() == Some(name)).collect();
        find_visible(namespace, &named, |server| server.metadata.namespace.as_deref()).map(|server| &server.spec)
    }

    /// Every value that a manifest refers to.
    pub(super) fn references(&self) -> Vec<SecretKeyRef> {
        let account = |account: &Account| account.credential().and_then(|credential| credential.secret().cloned());
        let grant = |name: &str| oauth::KEYS.map(|key| SecretKeyRef { name: name.to_owned(), key: key.to_owned() });
        let server = |server: &MailServerSpec| server.tls.ca_bundle_ref.clone();
        let mut found: Vec<_> = self.servers.iter().filter_map(|s| server(&s.spec)).collect();
        for spec in self.migrations.iter().map(|migration| &migration.spec) {
            for endpoint in [&spec.source, &spec.destination] {
                found.extend(endpoint.master_user.as_ref().map(|user| user.password_secret_ref.clone()));
                found.extend(endpoint.server.as_ref().and_then(server));
                found.extend(endpoint.grant_secret_ref.iter().flat_map(|reference| grant(&reference.name)));
            }
            for entry in &spec.mailboxes {
                let sides = [&entry.source, &entry.destination];
                found.extend(sides.into_iter().filter_map(account));
                let grants = sides.into_iter().filter_map(|account| account.grant_secret_ref.as_ref());
                found.extend(grants.flat_map(|reference| grant(&reference.name)));
            }
            found.extend(spec.mailbox_secrets.iter().cloned());
        }
        found
    }
}

/// Secrets as one mailbox sees them.
struct VisibleSecrets<'a> {
    store: &'a SecretStore,
    tokens: &'a Arc<TokenCache>,
    namespace: Option<&'a str>,
    row: Option<&'a CsvMailbox>,
}

impl SecretProvider for VisibleSecrets<'_> {
    fn value(&self, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError> {
        if let Some(value) = self.csv_value(secret) {
            return Ok(SecretBox::new(value.expose_secret().into()));
        }
        self.store.value(self.namespace, secret)
    }

    fn file(&self, secret: &SecretKeyRef) -> Option<PathBuf> {
        if self.csv_value(secret).is_some() { None } else { self.store.file(secret) }
    }

    fn grant(&self, name: &str) -> Result<GrantSecret> {
        let (form, fields) = self.store.grant(self.namespace, name)?;
        Ok(GrantSecret { form, fields, tokens: Arc::clone(self.tokens) })
    }

    fn how_to_provide(&self, secret: &SecretKeyRef) -> String {
        let SecretKeyRef { name, key } = secret;
        format!(
            "Add the Secret to the files given by -f, or give the value by --secret {name}/{key}=PATH or {}",
            variable(secret)
        )
    }
}

impl<'a> VisibleSecrets<'a> {
    /// The value, where the mailbox is a line of a CSV and this is a reference that was made from it.
    fn csv_value(&self, secret: &SecretKeyRef) -> Option<&'a SecretBox<[u8]>> {
        let row = self.row?;
        let own = [&row.entry.source, &row.entry.destination];
        let refers = own.iter().filter_map(|account| account.credential()).any(|own| own.secret() == Some(secret));
        if refers { row.secrets.get(secret.key.as_str()) } else { None }
    }
}
