//! Manifests from files: the same ones that a cluster takes, checked by the same schema and rules.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretBox};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    config_maps::ConfigMapManifest,
    grant_folder::GrantFolder,
    secrets::{SecretManifest, SecretSource, SecretStore, find_visible, variable},
};
use crate::{
    api::{
        API_VERSION, Account, CsvRef, EndpointSpec, MailMigration, MailServer, MailServerSpec, MailboxEntry,
        SecretKeyRef, crd,
        csv::{self, CsvMailbox},
        schema_check,
        validate::{self, ManifestProblem},
    },
    error::{Error, Result},
    oauth::{self, TokenCache},
    resolve::{self, GrantSecret, SecretError, SecretProvider},
    sync::spec::SyncSpec,
    yaml::{self, YamlDocument},
};

/// Everything that the given files hold.
#[derive(Debug, Default)]
pub struct ManifestSet {
    migrations: Vec<MailMigration>,
    servers: Vec<MailServer>,
    secrets: SecretStore,
    config_maps: Vec<ConfigMapManifest>,
    grants: Arc<GrantFolder>,
    tokens: OnceLock<Arc<TokenCache>>,
}

/// Reads manifests from files, `-` being the standard input. Secrets may come from `sources` (`--secret`) and from the
/// environment ([`variable`]) too, in this order before manifests. An error names file, document and field.
pub fn load(
    files: &[PathBuf],
    sources: &[SecretSource],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<ManifestSet> {
    let mut manifests = ManifestSet { secrets: SecretStore::new(sources), ..ManifestSet::default() };
    let mut seen = Vec::new();
    for file in files {
        let (name, text) = read(file)?;
        for document in yaml::read_stream(&name, &text)? {
            let origin = ManifestOrigin::Document { file: &name, document: &document };
            for object in unfold(&document.value) {
                manifests.add(object.clone(), &origin, &mut seen)?;
            }
        }
    }
    if manifests.migrations.is_empty() {
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        return Err(Error::configuration(format!("there is no MailMigration in {}", names.join(", ")))
            .advice("Give its file by -f; examples/migration.yaml shows how to write one"));
    }
    for secret in manifests.references() {
        manifests.secrets.load_from_environment(&secret, env);
    }
    Ok(manifests)
}

fn read(file: &Path) -> Result<(String, Zeroizing<String>)> {
    let mut text = Zeroizing::new(String::new());
    let (name, result) = if file == Path::new("-") {
        ("standard input".to_owned(), io::stdin().read_to_string(&mut text))
    } else {
        let opened = fs::File::open(file);
        (file.display().to_string(), opened.and_then(|mut file| file.read_to_string(&mut text)))
    };
    result.map_err(|error| {
        let what =
            if error.kind() == io::ErrorKind::InvalidData { "it is not UTF-8".to_owned() } else { error.to_string() };
        Error::configuration(format!("{name} can't be read: {what}")).advice("Check the path given by -f")
    })?;
    Ok((name, text))
}

/// The name of the Secret that a file holds alone.
///
/// # Errors
/// Configuration when it holds something else.
pub(crate) fn grant_name(file: &Path) -> Result<String> {
    grant_document(file).map(|(_, document)| secret_name(&document))
}

fn secret_name(document: &YamlDocument) -> String {
    document.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn grant_document(file: &Path) -> Result<(String, YamlDocument)> {
    let (shown, text) = read(file)?;
    let mut documents = yaml::read_stream(&shown, &text)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) if document.value["kind"] == "Secret" => Ok((shown, document)),
        _ => Err(Error::configuration(format!("{shown} does not hold one Secret and nothing else"))
            .advice("Name a file with one Secret that is a grant, as `mailferry login` writes it")),
    }
}

/// The objects of a document: itself, or the items of a `List`.
fn unfold(value: &Value) -> Vec<&Value> {
    match (value["kind"].as_str(), value["items"].as_array()) {
        (Some("List"), Some(items)) => items.iter().collect(),
        _ => vec![value],
    }
}

/// Where an object comes from.
enum ManifestOrigin<'a> {
    /// It was read from a file.
    Document { file: &'a str, document: &'a YamlDocument },
    /// The command line says it by its flags.
    CommandLine,
}

impl ManifestOrigin<'_> {
    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::configuration(match self {
            Self::Document { file, document } => {
                format!("{file} (document {}, line {}): {what}", document.number, document.line)
            }
            Self::CommandLine => format!("the command line: {what}"),
        })
    }

    fn place(&self) -> String {
        match self {
            Self::Document { file, document } => format!("{file} (document {})", document.number),
            Self::CommandLine => "the command line".to_owned(),
        }
    }

    /// One line for all problems: the first in full.
    fn problems(&self, subject: &str, problems: &[ManifestProblem]) -> Result<()> {
        let Some(first) = problems.first() else { return Ok(()) };
        let more = match problems.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        let place = if first.path.is_empty() { "it" } else { &first.path };
        Err(self.error(format!("{subject}: {place}: {}{more}", first.message)))
    }
}

impl ManifestSet {
    /// What the command line says without a file: one MailMigration, held to the same schema and rules.
    ///
    /// # Errors
    /// Configuration when it breaks one of them.
    pub(crate) fn from_command_line(migration: Value) -> Result<Self> {
        let mut manifests = Self::default();
        manifests.add(migration, &ManifestOrigin::CommandLine, &mut Vec::new())?;
        Ok(manifests)
    }

    /// Gives the value of a Secret; a file that `--secret` names comes before it.
    pub(crate) fn give_secret(&mut self, secret: SecretKeyRef, value: SecretBox<[u8]>) {
        self.secrets.give(secret, value);
    }

    /// Gives a Secret by the file that holds it, which is read again when it is needed.
    pub(crate) fn give_secret_file(&mut self, source: SecretSource) {
        self.secrets.give_file(source);
    }

    /// Adds the Secret that a file holds alone; a grant.
    ///
    /// # Errors
    /// Configuration when it holds something else.
    pub(crate) fn add_grant_file(&mut self, file: &Path) -> Result<()> {
        let (shown, document) = grant_document(file)?;
        self.secrets.remove(&secret_name(&document));
        let origin = ManifestOrigin::Document { file: &shown, document: &document };
        self.add(document.value.clone(), &origin, &mut Vec::new())
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

    fn add(&mut self, mut object: Value, origin: &ManifestOrigin<'_>, seen: &mut Vec<(String, String)>) -> Result<()> {
        if !object.is_object() {
            return Err(origin.error("it is no manifest").advice("A manifest has apiVersion, kind and metadata"));
        }
        schema_check::prune_nulls(&mut object);
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = text("/kind").ok_or_else(|| origin.error("kind is missing"))?;
        let expected = match kind.as_str() {
            "MailMigration" | "MailServer" => API_VERSION,
            "Secret" | "ConfigMap" => "v1",
            other => return Err(unsupported_kind(other, origin)),
        };
        match text("/apiVersion") {
            Some(version) if version == expected => {}
            _ => return Err(origin.error(format!("apiVersion of a {kind} must be {expected}"))),
        }
        let Some(name) = text("/metadata/name").filter(|name| !name.is_empty()) else {
            return Err(origin.error(format!("{kind}: metadata.name is missing")));
        };
        let subject = format!("{kind} {name}");
        let namespace = text("/metadata/namespace");
        let identity = match &namespace {
            Some(namespace) => format!("{subject} (namespace {namespace})"),
            None => subject.clone(),
        };
        let place = origin.place();
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == identity) {
            return Err(origin.error(format!("{identity} is there already, in {first}")));
        }
        seen.push((identity, place));

        match kind.as_str() {
            "MailMigration" => {
                let migration: MailMigration = typed(object, &crd::schema::<MailMigration>()?, &subject, origin)?;
                origin.problems(&subject, &validate::migration_problems(&migration.spec))?;
                self.migrations.push(migration);
            }
            "MailServer" => {
                let server: MailServer = typed(object, &crd::schema::<MailServer>()?, &subject, origin)?;
                origin.problems(&subject, &validate::server_problems(&server.spec))?;
                self.servers.push(server);
            }
            "ConfigMap" => {
                origin.problems(&subject, &schema_check::schema_problems(&ConfigMapManifest::schema(), &object))?;
                let map = ConfigMapManifest::new(namespace, name, &object);
                self.config_maps
                    .push(map.map_err(|error| origin.error(error.what).advice(error.advice.unwrap_or_default()))?);
            }
            _ => {
                origin.problems(&subject, &schema_check::schema_problems(&secret_schema(), &object))?;
                self.secrets.add(SecretManifest::new(namespace, name, &object).map_err(|mut error| {
                    error.what = format!("{}: {}", origin.place(), error.what);
                    error
                })?);
            }
        }
        Ok(())
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
    fn references(&self) -> Vec<SecretKeyRef> {
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

fn typed<T: DeserializeOwned>(object: Value, schema: &Value, subject: &str, origin: &ManifestOrigin<'_>) -> Result<T> {
    origin.problems(subject, &schema_check::schema_problems(schema, &object))?;
    serde_json::from_value(object).map_err(|error| origin.error(format!("{subject}: {error}")))
}

fn secret_schema() -> Value {
    let values = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "type": {"type": "string"},
            "immutable": {"type": "boolean"},
            "data": values,
            "stringData": values,
        },
    })
}

/// Why an object of this kind is not taken.
fn unsupported_kind(kind: &str, origin: &ManifestOrigin<'_>) -> Error {
    let (why, advice) = match kind {
        "MailboxSync" => ("MailboxSyncs are made by the operator", "Write a MailMigration"),
        "SealedSecret" | "ExternalSecret" | "VaultStaticSecret" => (
            "only plain Secrets can be read without a cluster",
            "Give the values by --secret NAME/KEY=PATH, or by MAILFERRY_SECRET_NAME_KEY, and leave this manifest out",
        ),
        "List" => ("a List without items", "Write items, or leave the document out"),
        _ => {
            let meant = schema_check::nearest_candidate(
                kind,
                ["MailMigration", "MailServer", "Secret", "ConfigMap"].into_iter(),
            );
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            return origin
                .error(format!("kind `{kind}` has no meaning here{hint}"))
                .advice("Mailferry reads MailMigration, MailServer, Secret and ConfigMap; leave other manifests out");
        }
    };
    origin.error(why).advice(advice)
}
