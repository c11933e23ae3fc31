//! The objects that an import makes, as YAML and as the API server takes them.

use std::{collections::BTreeMap, fmt, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use secrecy::{ExposeSecret as _, SecretBox};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{api::API_VERSION, error::Result, yaml};

/// The label of everything that an import made: its name.
pub(crate) const IMPORT_LABEL: &str = "mailferry.io/import";

/// What all objects of an import have in common.
#[derive(Debug, Clone)]
pub(crate) struct ImportMetadata {
    /// The import's name.
    pub import: String,
    /// Where they go, where that is said.
    pub namespace: Option<String>,
}

impl ImportMetadata {
    fn metadata(&self, name: &str) -> Value {
        let mut metadata = json!({"name": name, "labels": {IMPORT_LABEL: self.import}});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        metadata
    }
}

/// A MailMigration with what was given and no defaults, so that applying it takes no other field from whoever set it.
#[derive(Debug, Clone, PartialEq)]
pub struct MigrationManifest {
    /// Its name.
    pub name: String,
    /// All of it.
    pub object: Value,
}

impl MigrationManifest {
    /// Makes one.
    #[must_use]
    pub(crate) fn new(common: &ImportMetadata, name: &str, spec: &Value) -> Self {
        let metadata = common.metadata(name);
        let object = json!({"apiVersion": API_VERSION, "kind": "MailMigration", "metadata": metadata, "spec": spec});
        Self { name: name.to_owned(), object }
    }

    /// As a document of YAML.
    ///
    /// # Errors
    /// Internal when it can't be written.
    pub(crate) fn yaml(&self) -> Result<String> {
        yaml::write(&self.object)
    }
}

/// A ConfigMap with mailboxes that have no credential of their own, as CSV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigMapObject {
    /// Its name.
    pub name: String,
    /// The CSV's key.
    pub key: &'static str,
    /// The CSV.
    pub csv: String,
}

impl ConfigMapObject {
    /// As a document of YAML.
    ///
    /// # Errors
    /// Internal when it can't be written.
    pub(crate) fn yaml(&self, common: &ImportMetadata) -> Result<String> {
        yaml::write(&self.object(common))
    }

    /// As the API server takes it.
    #[must_use]
    pub(crate) fn object(&self, common: &ImportMetadata) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: common.namespace.clone(),
                labels: Some([(IMPORT_LABEL.to_owned(), common.import.clone())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(self.key.to_owned(), self.csv.clone())].into()),
            ..ConfigMap::default()
        }
    }
}

/// A Secret.
pub(crate) struct SecretObject {
    /// Its name.
    pub name: String,
    /// Its values by key.
    pub values: BTreeMap<String, SecretBox<[u8]>>,
}

impl fmt::Debug for SecretObject {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.values.keys().collect();
        f.debug_struct("SecretObject").field("name", &self.name).field("keys", &keys).finish_non_exhaustive()
    }
}

impl SecretObject {
    /// As a document of YAML, in `data`: a value may be no text.
    #[must_use]
    pub(crate) fn yaml(&self, common: &ImportMetadata) -> Zeroizing<String> {
        let encoded = |value: &SecretBox<[u8]>| Zeroizing::new(STANDARD.encode(value.expose_secret()));
        let data: Vec<_> = self.values.iter().map(|(key, value)| (key, encoded(value))).collect();
        // As long as it gets, so that no part of it is left behind in a smaller buffer.
        let length = 1000 + data.iter().map(|(key, value)| key.len() + value.len() + 10).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(length));
        let namespace = common.namespace.as_ref().map_or_else(String::new, |name| format!("  namespace: \"{name}\"\n"));
        // A String takes every write.
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Secret\nmetadata:\n  labels:\n    {IMPORT_LABEL}: \"{}\"\n  name: \"{}\"\n\
             {namespace}data:\n",
            common.import, self.name
        );
        for (key, value) in &data {
            let _ = writeln!(text, "  {key}: \"{}\"", value.as_str());
        }
        text
    }

    /// As the API server takes it.
    #[must_use]
    pub(crate) fn object(&self, common: &ImportMetadata) -> Secret {
        let values = self.values.iter();
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: common.namespace.clone(),
                labels: Some([(IMPORT_LABEL.to_owned(), common.import.clone())].into()),
                ..ObjectMeta::default()
            },
            data: Some(values.map(|(key, value)| (key.clone(), ByteString(value.expose_secret().to_vec()))).collect()),
            ..Secret::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::local::key_values::{KeyValueKind, KeyValueManifest};

    fn common() -> ImportMetadata {
        ImportMetadata { import: "1e3".into(), namespace: Some("no".into()) }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_in_a_secrets_yaml(password: Vec<u8>, other: Vec<u8>) {
            let values = [("source-password", &password), ("destination-password", &other)];
            let values = values.map(|(key, value)| (key.to_owned(), SecretBox::new(value.as_slice().into())));
            let secret = SecretObject { name: "1e3".into(), values: values.into() };
            let [document] = yaml::read_stream("f", &secret.yaml(&common())).unwrap().try_into().unwrap();
            prop_assert_eq!(document.value.pointer("/metadata/name"), Some(&json!("1e3")));
            KeyValueManifest::new(KeyValueKind::Secret, None, "s".into(), &document.value).unwrap();
            // The same as an object.
            let object: Secret = serde_json::from_value(document.value).unwrap();
            prop_assert_eq!(&object, &secret.object(&common()));
            prop_assert_eq!(&object.data.unwrap()["source-password"].0, &password);
        }
    }

    #[test]
    fn no_value_is_in_debug_output() {
        let values = [("k".to_owned(), SecretBox::new(b"hush".as_slice().into()))];
        let secret = SecretObject { name: "s".into(), values: values.into() };
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
