//! Where the CSVs of a migration are: in Secrets, or in ConfigMaps where they hold no credential.

use std::fmt;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::common::SecretKeyRef;

/// One value of a ConfigMap in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigMapKeyRef {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in the ConfigMap's data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Where one CSV is. It is shown as errors name it: `Secret acme key mailboxes.csv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CsvRef<'a> {
    /// In a Secret: it may hold passwords and tokens.
    Secret(&'a SecretKeyRef),
    /// In a ConfigMap, which more people may read: it may hold none.
    ConfigMap(&'a ConfigMapKeyRef),
}

impl<'a> CsvRef<'a> {
    /// The kind of the object.
    #[must_use]
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Secret(_) => "Secret",
            Self::ConfigMap(_) => "ConfigMap",
        }
    }

    /// The object's name.
    #[must_use]
    pub(crate) fn name(self) -> &'a str {
        match self {
            Self::Secret(reference) => &reference.name,
            Self::ConfigMap(reference) => &reference.name,
        }
    }

    /// The key in its data.
    #[must_use]
    pub(crate) fn key(self) -> &'a str {
        match self {
            Self::Secret(reference) => &reference.key,
            Self::ConfigMap(reference) => &reference.key,
        }
    }
}

impl fmt::Display for CsvRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} key {}", self.kind(), self.name(), self.key())
    }
}
