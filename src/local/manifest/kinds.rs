//! Which kinds of objects a manifest may be, and the schema of each: its own fields, and the metadata that the API server
//! knows of every object.

use serde_json::{Value, json};

use crate::{
    api::{API_VERSION, MailMigration, MailServer, crd},
    error::Result,
    local::key_values::KeyValueKind,
};

/// A kind of object that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ManifestKind {
    MailMigration,
    MailServer,
    KeyValues(KeyValueKind),
}

impl ManifestKind {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [
        Self::MailMigration,
        Self::MailServer,
        Self::KeyValues(KeyValueKind::Secret),
        Self::KeyValues(KeyValueKind::ConfigMap),
    ];

    /// `kind` of its manifests.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MailMigration => "MailMigration",
            Self::MailServer => "MailServer",
            Self::KeyValues(KeyValueKind::Secret) => "Secret",
            Self::KeyValues(KeyValueKind::ConfigMap) => "ConfigMap",
        }
    }

    /// The kind of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// `apiVersion` of its manifests.
    pub(super) const fn api_version(self) -> &'static str {
        match self {
            Self::MailMigration | Self::MailServer => API_VERSION,
            Self::KeyValues(_) => "v1",
        }
    }

    /// What a manifest of it may hold.
    pub(super) fn schema(self) -> Result<Value> {
        let mut schema = match self {
            Self::MailMigration => crd::schema::<MailMigration>()?,
            Self::MailServer => crd::schema::<MailServer>()?,
            Self::KeyValues(kind) => json!({"type": "object", "properties": kind.own_fields()}),
        };
        for name in ["apiVersion", "kind"] {
            schema["properties"][name] = json!({"type": "string"});
        }
        schema["properties"]["metadata"] = metadata_schema();
        let mut required = vec![json!("metadata")];
        required
            .extend(schema["required"].as_array().into_iter().flatten().filter(|name| *name != "metadata").cloned());
        schema["required"] = required.into();
        Ok(schema)
    }
}

/// `ObjectMeta`: what a person writes is checked, what an API server adds is only known.
fn metadata_schema() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string", "minLength": 1, "maxLength": 253,
                "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            },
            "namespace": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "labels": texts,
            "annotations": texts,
            "finalizers": {"type": "array", "items": {"type": "string"}},
            "ownerReferences": {"type": "array", "items": {}},
            "generateName": {}, "creationTimestamp": {}, "deletionTimestamp": {}, "deletionGracePeriodSeconds": {},
            "generation": {}, "managedFields": {}, "resourceVersion": {}, "selfLink": {}, "uid": {},
        },
    })
}
