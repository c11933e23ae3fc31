//! Secrets and ConfigMaps as manifests give them: values by key, of which one field is plain text and the other base64.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretBox};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::api::validate::ManifestProblem;

/// What the API server takes at most, all values of an object together, bytes.
const MAX_BYTES: usize = 1 << 20;

/// Which of the two an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyValueKind {
    /// `data` is base64, `stringData` is plain and stronger.
    Secret,
    /// `binaryData` is base64, `data` is plain; no key may be in both.
    ConfigMap,
}

impl KeyValueKind {
    /// The field of values in base64, and that of plain ones.
    const fn fields(self) -> [&'static str; 2] {
        match self {
            Self::Secret => ["data", "stringData"],
            Self::ConfigMap => ["binaryData", "data"],
        }
    }

    /// What a manifest may hold besides apiVersion, kind and metadata.
    #[must_use]
    pub(crate) fn own_fields(self) -> Value {
        let values = json!({
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$"},
            "additionalProperties": {"type": "string"},
        });
        let [encoded, plain] = self.fields();
        let mut fields = json!({"immutable": {"type": "boolean"}, encoded: values, plain: values});
        if self == Self::Secret {
            fields["type"] = json!({"type": "string"});
        }
        fields
    }
}

/// A Secret or a ConfigMap. No value is shown by Debug.
pub(crate) struct KeyValueManifest {
    /// Its namespace, where the manifest says so.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What a Secret may be used for, where the manifest says so.
    pub secret_type: Option<String>,
    values: BTreeMap<String, SecretBox<[u8]>>,
}

impl fmt::Debug for KeyValueManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys().collect();
        f.debug_struct("KeyValueManifest").field("name", &self.name).field("keys", &keys).finish_non_exhaustive()
    }
}

impl KeyValueManifest {
    /// Reads the values of an object whose form was checked already.
    ///
    /// # Errors
    /// What the API server would refuse of them: by field, never with a value.
    pub(crate) fn new(
        kind: KeyValueKind,
        namespace: Option<String>,
        name: String,
        manifest: &Value,
    ) -> Result<Self, Vec<ManifestProblem>> {
        let [encoded, plain] = kind.fields();
        let entries = |field: &str| manifest[field].as_object().into_iter().flatten();
        let mut values: BTreeMap<String, SecretBox<[u8]>> = BTreeMap::new();
        let mut problems = Vec::new();
        for (key, value) in entries(encoded) {
            let text: Zeroizing<String> = Zeroizing::new(
                value.as_str().unwrap_or_default().chars().filter(|c| !matches!(c, '\r' | '\n')).collect(),
            );
            match STANDARD.decode(text.as_bytes()) {
                Ok(bytes) => drop(values.insert(key.clone(), SecretBox::new(bytes.into()))),
                Err(_) => problems.push(ManifestProblem::new(
                    format!("{encoded}.{key}"),
                    format!("is not base64: write the value itself under {plain} instead of {encoded}"),
                )),
            }
        }
        for (key, value) in entries(plain) {
            let bytes = value.as_str().unwrap_or_default().as_bytes();
            let before = values.insert(key.clone(), SecretBox::new(bytes.into()));
            if before.is_some() && kind == KeyValueKind::ConfigMap {
                let path = format!("{plain}.{key}");
                problems.push(ManifestProblem::new(path, format!("is in {encoded} already: a key may be there once")));
            }
        }
        let bytes: usize = values.values().map(|value| value.expose_secret().len()).sum();
        if bytes > MAX_BYTES {
            problems.push(ManifestProblem::new("", format!("its values have {bytes} bytes, more than {MAX_BYTES}")));
        }
        let secret_type = manifest["type"].as_str().map(str::to_owned);
        if problems.is_empty() { Ok(Self { namespace, name, secret_type, values }) } else { Err(problems) }
    }

    /// What a key holds.
    #[must_use]
    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(ExposeSecret::expose_secret)
    }

    /// Keys and what they hold, in their order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.expose_secret()))
    }

    /// The keys, in their order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

/// Which of several objects of one name an object of `namespace` refers to: the one of the same namespace, else one where
/// either of the two says nothing about its namespace (as in files that are meant for `kubectl -n`).
pub(super) fn find_visible<'a, T>(
    namespace: Option<&str>,
    candidates: &[&'a T],
    namespace_of: impl Fn(&T) -> Option<&str>,
) -> Option<&'a T> {
    let same = candidates.iter().find(|candidate| namespace_of(candidate) == namespace);
    let open = || candidates.iter().find(|candidate| namespace.is_none() || namespace_of(candidate).is_none());
    same.or_else(open).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: KeyValueKind, manifest: &Value) -> Result<KeyValueManifest, Vec<String>> {
        let told = |problems: Vec<ManifestProblem>| {
            problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
        };
        KeyValueManifest::new(kind, None, "m".to_owned(), manifest).map_err(told)
    }

    #[test]
    fn values_of_a_config_map_are_text_or_bytes_and_each_key_is_there_once() {
        let manifest = json!({"data": {"a": "name\nbob\n"}, "binaryData": {"b": "bmFt\nZQ=="}});
        let map = read(KeyValueKind::ConfigMap, &manifest).unwrap();
        assert_eq!((map.value("a"), map.value("b")), (Some(&b"name\nbob\n"[..]), Some(&b"name"[..])));
        assert_eq!(map.value("c"), None);
        let twice = json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}});
        assert!(read(KeyValueKind::ConfigMap, &twice).unwrap_err()[0].starts_with("data.a: is in binaryData already"));
    }

    #[test]
    fn string_data_of_a_secret_is_taken_as_it_is_and_wins() {
        let manifest = json!({"data": {"a": "cABcbg==\n", "b": "eA=="}, "stringData": {"b": " y\n"}});
        let secret = read(KeyValueKind::Secret, &manifest).unwrap();
        assert_eq!((secret.value("a"), secret.value("b")), (Some(&b"p\0\\n"[..]), Some(&b" y\n"[..])));
    }

    #[test]
    fn all_that_is_wrong_is_told_and_no_value_is_shown() {
        let long = "x".repeat(MAX_BYTES + 1);
        let manifest = json!({"data": {"a": "hush!", "b": "eA==", "c": "?"}, "stringData": {"d": long}});
        let problems = read(KeyValueKind::Secret, &manifest).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("data.a: is not base64: write the value itself under stringData"));
        assert!(problems[1].starts_with("data.c: is not base64") && problems[2].contains("more than 1048576"));
        assert!(!problems.concat().contains("hush"));
    }
}
