//! ConfigMaps where there is no API server: CSVs with mailboxes that hold no credential.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A ConfigMap as a manifest gives it.
#[derive(Debug)]
pub(crate) struct ConfigMapManifest {
    /// Its namespace, where the manifest says so.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    values: BTreeMap<String, Vec<u8>>,
}

impl ConfigMapManifest {
    /// Reads `data` (as it stands) and `binaryData` (base64) of a ConfigMap whose form was checked already.
    pub(crate) fn new(namespace: Option<String>, name: String, manifest: &Value) -> Result<Self> {
        let entries = |field: &str| manifest[field].as_object().into_iter().flatten();
        let mut values = BTreeMap::new();
        for (key, value) in entries("binaryData") {
            let text: String = value.as_str().unwrap_or_default().split_ascii_whitespace().collect();
            let bytes = STANDARD.decode(text).map_err(|_| {
                Error::configuration(format!("ConfigMap {name}: binaryData.{key} is not base64"))
                    .advice("Write the text itself under data instead of binaryData")
            })?;
            values.insert(key.clone(), bytes);
        }
        for (key, value) in entries("data") {
            values.insert(key.clone(), value.as_str().unwrap_or_default().as_bytes().to_vec());
        }
        Ok(Self { namespace, name, values })
    }

    /// What a key holds.
    #[must_use]
    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// What a manifest of one may hold.
    #[must_use]
    pub(crate) fn schema() -> Value {
        let values = json!({"type": "object", "additionalProperties": {"type": "string"}});
        json!({
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "immutable": {"type": "boolean"},
                "data": values,
                "binaryData": values,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_text_or_bytes() {
        let manifest = json!({"data": {"a": "name\nbob\n"}, "binaryData": {"b": "bmFt\nZQ=="}});
        let map = ConfigMapManifest::new(None, "m".to_owned(), &manifest).unwrap();
        assert_eq!((map.value("a"), map.value("b")), (Some(&b"name\nbob\n"[..]), Some(&b"name"[..])));
        assert_eq!(map.value("c"), None);
        let wrong = ConfigMapManifest::new(None, "m".to_owned(), &json!({"binaryData": {"b": "?"}})).unwrap_err();
        assert!(wrong.what.contains("ConfigMap m: binaryData.b is not base64"), "{wrong}");
    }
}
