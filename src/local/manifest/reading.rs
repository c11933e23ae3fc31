//! Reads manifests: every object is held to its schema and rules, and all that is wrong is told at once.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    kinds::ManifestKind,
    origin::{DocumentText, ManifestOrigin},
    set::ManifestSet,
};
use crate::{
    api::{
        MailMigration, MailServer, schema_check,
        validate::{self, ManifestProblem},
    },
    error::{Error, Result},
    local::{
        key_values::{KeyValueKind, KeyValueManifest},
        secrets::{SecretSource, SecretStore},
    },
    yaml,
};

/// Reads manifests from files, `-` being the standard input. Secrets may come from `sources` (`--secret`) and from the
/// environment ([`variable`](crate::local::secrets::variable)) too, in this order before manifests.
///
/// # Errors
/// Configuration: all that is wrong in all files, each with file, line, column and field.
pub fn load(
    files: &[PathBuf],
    sources: &[SecretSource],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<ManifestSet> {
    let mut reader = ManifestReader::default();
    reader.set.secrets = SecretStore::new(sources);
    for file in files {
        match read(file) {
            Ok((name, text)) => reader.read_stream(&name, &text),
            Err(error) => reader.errors.push(error),
        }
    }
    let mut manifests = reader.finish()?;
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

/// The name of the Secret that a file holds alone.
///
/// # Errors
/// Configuration when it holds something else.
pub(crate) fn grant_name(file: &Path) -> Result<String> {
    let (shown, text) = read(file)?;
    let mut documents = yaml::read_stream(&shown, &text)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) if document.value["kind"] == "Secret" => {
            Ok(document.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned())
        }
        _ => Err(Error::configuration(format!("{shown} does not hold one Secret and nothing else"))
            .advice("Name a file with one Secret that is a grant, as `mailferry login` writes it")),
    }
}

impl ManifestSet {
    /// Adds the Secret that a file holds alone; a grant.
    ///
    /// # Errors
    /// Configuration when it holds something else, or breaks a rule.
    pub(crate) fn add_grant_file(&mut self, file: &Path) -> Result<()> {
        let name = grant_name(file)?;
        let (shown, text) = read(file)?;
        self.secrets.remove(&name);
        let mut reader = ManifestReader { set: std::mem::take(self), ..ManifestReader::default() };
        reader.read_stream(&shown, &text);
        *self = reader.finish()?;
        Ok(())
    }
}

/// What the command line says without a file: one MailMigration, held to the same schema and rules.
///
/// # Errors
/// Configuration: all that breaks one of them.
pub(crate) fn from_command_line(migration: Value) -> Result<ManifestSet> {
    let mut reader = ManifestReader::default();
    reader.read_object(migration, ManifestOrigin::CommandLine);
    reader.finish()
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

/// Reads objects one by one and keeps what is wrong with them.
#[derive(Default)]
pub(super) struct ManifestReader {
    set: ManifestSet,
    errors: Vec<Error>,
    /// Kind, namespace and name of each object, with the place where it stands.
    seen: HashMap<String, String>,
    /// By the kind's name: making one takes time.
    schemas: BTreeMap<&'static str, Value>,
}

impl ManifestReader {
    /// What was read.
    ///
    /// # Errors
    /// Configuration: all that is wrong with it.
    pub(super) fn finish(self) -> Result<ManifestSet> {
        match Error::joined(self.errors) {
            Some(error) => Err(error),
            None => Ok(self.set),
        }
    }

    fn read_stream(&mut self, name: &str, stream: &str) {
        let documents = match yaml::read_stream(name, stream) {
            Ok(documents) => documents,
            Err(error) => return self.errors.push(error),
        };
        for document in &documents {
            let text = DocumentText::new(name, stream, document);
            match (document.value["kind"].as_str(), document.value["items"].as_array()) {
                (Some("List"), Some(items)) => {
                    for (item, object) in items.iter().enumerate() {
                        self.read_object(object.clone(), ManifestOrigin::Document { text: &text, item: Some(item) });
                    }
                }
                _ => self.read_object(document.value.clone(), ManifestOrigin::Document { text: &text, item: None }),
            }
        }
    }

    /// Takes an object, or keeps what is wrong with it.
    pub(super) fn read_object(&mut self, mut object: Value, origin: ManifestOrigin<'_>) {
        if !object.is_object() {
            let error = origin.error("", "it is no manifest").advice("A manifest has apiVersion, kind and metadata");
            return self.errors.push(error);
        }
        schema_check::prune_nulls(&mut object);
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let Some(kind_name) = text("/kind") else { return self.errors.push(origin.error("kind", "kind is missing")) };
        let Some(kind) = ManifestKind::from_name(&kind_name) else {
            return self.errors.push(unsupported_kind(&kind_name, origin));
        };
        if text("/apiVersion").as_deref() != Some(kind.api_version()) {
            let what = format!("apiVersion of a {kind_name} must be {}", kind.api_version());
            return self.errors.push(origin.error("apiVersion", what));
        }
        let (name, namespace) = (text("/metadata/name").unwrap_or_default(), text("/metadata/namespace"));
        let subject = if name.is_empty() { kind_name } else { format!("{kind_name} {name}") };
        let identity = match &namespace {
            Some(namespace) => format!("{subject} (namespace {namespace})"),
            None => subject.clone(),
        };
        if !name.is_empty()
            && let Some(first) = self.seen.insert(identity.clone(), origin.at(""))
        {
            return self.errors.push(origin.error("metadata.name", format!("{identity} is there already, in {first}")));
        }
        if let Err(problems) = self.check(kind, object) {
            self.errors.extend(origin.errors(&subject, problems));
        }
    }

    /// Holds an object to the schema and the rules of its kind, and takes it.
    fn check(&mut self, kind: ManifestKind, object: Value) -> Result<(), Vec<ManifestProblem>> {
        let problems = match self.schema(kind) {
            Ok(schema) => schema_check::schema_problems(schema, &object),
            Err(error) => {
                self.errors.push(error);
                return Ok(());
            }
        };
        match kind {
            ManifestKind::MailMigration => {
                let rules = |migration: &MailMigration| validate::migration_problems(&migration.spec);
                self.set.migrations.push(typed(object, problems, rules)?);
            }
            ManifestKind::MailServer => {
                let rules = |server: &MailServer| validate::server_problems(&server.spec);
                self.set.servers.push(typed(object, problems, rules)?);
            }
            ManifestKind::KeyValues(kind) => {
                let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name").unwrap_or_default());
                let manifest = match KeyValueManifest::new(kind, namespace, name, &object) {
                    Ok(manifest) if problems.is_empty() => manifest,
                    Ok(_) => return Err(problems),
                    Err(wrong) => return Err(problems.into_iter().chain(wrong).collect()),
                };
                match kind {
                    KeyValueKind::Secret => self.set.secrets.add(manifest),
                    KeyValueKind::ConfigMap => self.set.config_maps.push(manifest),
                }
            }
        }
        Ok(())
    }

    fn schema(&mut self, kind: ManifestKind) -> Result<&Value> {
        let name = kind.name();
        if !self.schemas.contains_key(name) {
            self.schemas.insert(name, kind.schema()?);
        }
        Ok(&self.schemas[name])
    }
}

/// The object as its type, once neither schema nor rules find anything. The rules are asked only where the schema took every
/// field for what it is: a rule that misses what is misspelt would say the same thing twice.
fn typed<T: DeserializeOwned>(
    object: Value,
    problems: Vec<ManifestProblem>,
    rules: impl Fn(&T) -> Vec<ManifestProblem>,
) -> Result<T, Vec<ManifestProblem>> {
    let mut problems = problems;
    let misspelt = problems.iter().any(|problem| problem.presence);
    match serde_json::from_value::<T>(object) {
        Ok(typed) => {
            if !misspelt {
                problems.extend(rules(&typed));
            }
            if problems.is_empty() { Ok(typed) } else { Err(problems) }
        }
        Err(error) => {
            if problems.is_empty() {
                problems.push(ManifestProblem::new("", error.to_string()));
            }
            Err(problems)
        }
    }
}

/// Why an object of this kind is not taken.
fn unsupported_kind(kind: &str, origin: ManifestOrigin<'_>) -> Error {
    let (why, advice) = match kind {
        "MailboxSync" => ("MailboxSyncs are made by the operator", "Write a MailMigration"),
        "SealedSecret" | "ExternalSecret" | "VaultStaticSecret" => (
            "only plain Secrets can be read without a cluster",
            "Give the values by --secret NAME/KEY=PATH, or by MAILFERRY_SECRET_NAME_KEY, and leave this manifest out",
        ),
        "List" => ("a List without items", "Write items, or leave the document out"),
        _ => {
            let meant = schema_check::nearest_candidate(kind, ManifestKind::ALL.iter().map(|kind| kind.name()));
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            return origin
                .error("kind", format!("kind `{kind}` has no meaning here{hint}"))
                .advice("Mailferry reads MailMigration, MailServer, Secret and ConfigMap; leave other manifests out");
        }
    };
    origin.error("kind", why).advice(advice)
}
