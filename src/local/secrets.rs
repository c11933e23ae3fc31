//! Secrets where there is no API server: from manifests, files and the environment.

use std::{collections::BTreeMap, ffi::OsString, fmt, fs, path::PathBuf, str::FromStr};

use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroizing;

use super::key_values::{KeyValueManifest, find_visible};
use crate::{
    api::{
        SecretKeyRef,
        common::{OAUTH_CLIENT_TYPE, OAUTH_GRANT_TYPE},
    },
    error::{Error, Result},
    oauth::{self, GrantForm},
    resolve::SecretError,
};

/// A value of a Secret that is in a file: `NAME/KEY=PATH`. One line end at the end of the file is no part of the value;
/// everything else is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// Which value.
    pub secret: SecretKeyRef,
    /// Where it is.
    pub path: PathBuf,
}

impl FromStr for SecretSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(secret, path)| Some((secret.split_once('/')?, path)));
        match parts {
            Some(((name, key), path)) if ![name, key, path].contains(&"") && !key.contains('/') => Ok(Self {
                secret: SecretKeyRef { name: name.to_owned(), key: key.to_owned() },
                path: PathBuf::from(path),
            }),
            _ => Err("write NAME/KEY=PATH, such as acme-mail/alice=/run/secrets/alice".to_owned()),
        }
    }
}

/// The environment variable that gives a value: `MAILFERRY_SECRET_` + name + `_` + key, upper case, with `_` for
/// everything but letters and digits.
#[must_use]
pub(crate) fn variable(secret: &SecretKeyRef) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    };
    format!("MAILFERRY_SECRET_{}_{}", plain(&secret.name), plain(&secret.key))
}

/// Everything that is known about Secrets here. A file given by `--secret` comes before the environment, and that before
/// manifests.
#[derive(Default)]
pub(crate) struct SecretStore {
    files: BTreeMap<SecretKeyRef, PathBuf>,
    /// From the environment, or asked for.
    given: BTreeMap<SecretKeyRef, SecretBox<[u8]>>,
    manifests: Vec<KeyValueManifest>,
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("files", &self.files).field("manifests", &self.manifests).finish_non_exhaustive()
    }
}

/// A grant as a Secret holds it.
pub(crate) type StoredGrant = (GrantForm, BTreeMap<String, SecretBox<[u8]>>);

/// What kind of grant a Secret is, if it is one.
fn grant_form(secret: &KeyValueManifest) -> Option<GrantForm> {
    match secret.secret_type.as_deref()? {
        OAUTH_CLIENT_TYPE => Some(GrantForm::Client),
        OAUTH_GRANT_TYPE => Some(GrantForm::Grant),
        _ => None,
    }
}

impl SecretStore {
    /// Files by what they give.
    #[must_use]
    pub(crate) fn new(sources: &[SecretSource]) -> Self {
        let files = sources.iter().map(|source| (source.secret.clone(), source.path.clone())).collect();
        Self { files, ..Self::default() }
    }

    /// Adds a Secret of a manifest.
    pub(crate) fn add(&mut self, manifest: KeyValueManifest) {
        self.manifests.push(manifest);
    }

    /// Forgets the Secret of that name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.manifests.retain(|manifest| manifest.name != name);
    }

    /// Takes a value from the environment, if it is there.
    pub(crate) fn load_from_environment(&mut self, secret: &SecretKeyRef, env: &dyn Fn(&str) -> Option<OsString>) {
        if let Some(value) = env(&variable(secret)) {
            self.give(secret.clone(), SecretBox::new(value.into_encoded_bytes().into()));
        }
    }

    /// Adds a value.
    pub(crate) fn give(&mut self, secret: SecretKeyRef, value: SecretBox<[u8]>) {
        self.given.insert(secret, value);
    }

    /// Adds a file.
    pub(crate) fn give_file(&mut self, source: SecretSource) {
        self.files.insert(source.secret, source.path);
    }

    /// The file that gives a value, if one does.
    #[must_use]
    pub(crate) fn file(&self, secret: &SecretKeyRef) -> Option<PathBuf> {
        self.files.get(secret).cloned()
    }

    /// A value as an object of this namespace sees it.
    pub(crate) fn value(&self, namespace: Option<&str>, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError> {
        if let Some(path) = self.files.get(secret) {
            let bytes = fs::read(path).map_err(|e| SecretError::Unreadable(format!("{}: {e}", path.display())))?;
            let bytes = Zeroizing::new(bytes);
            return Ok(SecretBox::new(without_line_end(&bytes).into()));
        }
        if let Some(value) = self.given.get(secret) {
            return Ok(SecretBox::new(value.expose_secret().into()));
        }
        let manifest = self.manifest(namespace, &secret.name).ok_or(SecretError::NoSecret)?;
        if grant_form(manifest).is_some() {
            return Err(SecretError::Unreadable("it is a grant, which belongs into grantSecretRef".to_owned()));
        }
        match manifest.value(&secret.key) {
            Some(value) => Ok(SecretBox::new(value.into())),
            None => Err(SecretError::NoKey(manifest.keys().map(str::to_owned).collect())),
        }
    }
}

impl SecretStore {
    fn manifest(&self, namespace: Option<&str>, name: &str) -> Option<&KeyValueManifest> {
        let named: Vec<_> = self.manifests.iter().filter(|manifest| manifest.name == name).collect();
        find_visible(namespace, &named, |manifest| manifest.namespace.as_deref())
    }

    /// A grant as an object of this namespace sees it. Single fields may come from files and the environment.
    ///
    /// # Errors
    /// Configuration where there is no such Secret, it is no grant, or a field can't be read.
    pub(crate) fn grant(&self, namespace: Option<&str>, name: &str) -> Result<StoredGrant> {
        let manifest = self.manifest(namespace, name).ok_or_else(|| {
            Error::configuration(format!("there is no Secret {name}")).advice("Add the Secret to the files given by -f")
        })?;
        let form = grant_form(manifest).ok_or_else(|| {
            Error::configuration(format!("the Secret {name} is no grant")).advice(format!(
                "Give it the type {OAUTH_GRANT_TYPE} (a user's consent) or {OAUTH_CLIENT_TYPE} (an application of its own)"
            ))
        })?;
        let copied = |value: &[u8]| SecretBox::new(value.into());
        let mut fields: BTreeMap<_, _> =
            manifest.entries().map(|(key, value)| (key.to_owned(), copied(value))).collect();
        for key in oauth::KEYS {
            let secret = SecretKeyRef { name: name.to_owned(), key: key.to_owned() };
            if let Some(path) = self.files.get(&secret) {
                let bytes = Zeroizing::new(fs::read(path).map_err(|error| {
                    Error::configuration(format!(
                        "the Secret {name} key {key}: {} can't be read: {error}",
                        path.display()
                    ))
                })?);
                fields.insert(key.to_owned(), SecretBox::new(bytes.as_slice().into()));
            } else if let Some(value) = self.given.get(&secret) {
                fields.insert(key.to_owned(), copied(value.expose_secret()));
            }
        }
        Ok((form, fields))
    }
}

/// A file's content without one line end at its end: editors and `echo` put it there.
#[must_use]
pub(crate) fn without_line_end(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\n").map_or(bytes, |b| b.strip_suffix(b"\r").unwrap_or(b))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::local::key_values::KeyValueKind;

    fn reference(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef { name: name.to_owned(), key: key.to_owned() }
    }

    fn manifest(namespace: Option<&str>, value: &Value) -> KeyValueManifest {
        KeyValueManifest::new(KeyValueKind::Secret, namespace.map(str::to_owned), "s".to_owned(), value).unwrap()
    }

    fn value(store: &SecretStore, namespace: Option<&str>, key: &str) -> Result<Vec<u8>, SecretError> {
        store.value(namespace, &reference("s", key)).map(|value| value.expose_secret().to_vec())
    }

    #[test]
    fn a_source_is_name_key_and_path() {
        let source: SecretSource = "acme/alice=/tmp/a=b/c".parse().unwrap();
        assert_eq!(source, SecretSource { secret: reference("acme", "alice"), path: "/tmp/a=b/c".into() });
        for wrong in ["", "acme", "acme=/tmp", "/alice=/tmp", "acme/=/tmp", "acme/alice", "acme/alice=", "a/b/c=d"] {
            assert!(wrong.parse::<SecretSource>().unwrap_err().contains("NAME/KEY=PATH"), "{wrong}");
        }
    }

    #[test]
    fn a_variables_name_has_letters_digits_and_underscores() {
        assert_eq!(variable(&reference("acme-mail", "ca.crt")), "MAILFERRY_SECRET_ACME_MAIL_CA_CRT");
    }

    #[test]
    fn values_are_taken_exactly_and_string_data_wins() {
        let mut store = SecretStore::default();
        store.add(manifest(None, &json!({"data": {"a": "cABcbg==\n", "b": "eA=="}, "stringData": {"b": " y\n"}})));
        assert_eq!(value(&store, None, "a").unwrap(), b"p\0\\n");
        assert_eq!(value(&store, None, "b").unwrap(), b" y\n");
        assert_eq!(value(&store, None, "c"), Err(SecretError::NoKey(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(store.value(None, &reference("t", "a")).unwrap_err(), SecretError::NoSecret);
    }

    #[test]
    fn a_file_comes_first_then_the_environment_then_a_manifest() {
        let path = std::env::temp_dir().join(format!("mailferry-secret-{}", std::process::id()));
        fs::write(&path, "from file\r\n").unwrap();
        let source = SecretSource { secret: reference("s", "f"), path: path.clone() };
        let mut store = SecretStore::new(&[source]);
        store.add(manifest(None, &json!({"stringData": {"f": "m", "e": "m", "m": "m"}})));
        let env =
            |name: &str| (name.starts_with("MAILFERRY_SECRET_S_") && !name.ends_with("_M")).then(|| "env\n".into());
        for key in ["f", "e", "m"] {
            store.load_from_environment(&reference("s", key), &env);
        }
        let found = ["f", "e", "m"].map(|key| value(&store, None, key).unwrap());
        fs::remove_file(&path).unwrap();
        assert_eq!(found, [b"from file".to_vec(), b"env\n".to_vec(), b"m".to_vec()]);
        assert!(matches!(value(&store, None, "f"), Err(SecretError::Unreadable(_))));
        assert_eq!(store.file(&reference("s", "f")), Some(path));
    }

    #[test]
    fn namespaces_separate_secrets_of_one_name() {
        let mut store = SecretStore::default();
        store.add(manifest(Some("one"), &json!({"stringData": {"k": "1"}})));
        store.add(manifest(Some("two"), &json!({"stringData": {"k": "2"}})));
        assert_eq!(value(&store, Some("two"), "k").unwrap(), b"2");
        assert_eq!(value(&store, Some("three"), "k"), Err(SecretError::NoSecret));
        store.add(manifest(None, &json!({"stringData": {"k": "0"}})));
        assert_eq!(value(&store, Some("three"), "k").unwrap(), b"0");
    }

    #[test]
    fn no_value_is_in_debug_output() {
        let mut store = SecretStore::default();
        store.add(manifest(None, &json!({"stringData": {"k": "hush"}})));
        store.load_from_environment(&reference("s", "k"), &|_| Some("hush".into()));
        let shown = format!("{store:?}");
        assert!(shown.contains('k') && !shown.contains("hush"), "{shown}");
    }
}
