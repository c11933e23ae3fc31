//! Versions of Secrets: never their values.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use super::observe::SecretsSeen;
use crate::{
    api::MailboxSyncSpec,
    controller::{cache::NamespacedName, config::SecretAccess, pod_builder},
};

/// How long a version counts: many mailboxes share a Secret.
const VERSION_TTL: Duration = Duration::from_secs(30);

/// The resourceVersions of Secrets that were looked up lately, so that many mailboxes with one Secret ask once.
pub(crate) struct SecretVersions {
    client: Client,
    access: SecretAccess,
    seen: Mutex<HashMap<NamespacedName, SeenVersion>>,
}

struct SeenVersion {
    at: Instant,
    /// None where there is no such Secret.
    version: Option<String>,
}

impl SecretVersions {
    /// None seen yet.
    #[must_use]
    pub(crate) fn new(client: Client, access: SecretAccess) -> Self {
        Self { client, access, seen: Mutex::default() }
    }

    /// What is known of a mailbox's Secrets before anybody looks.
    #[must_use]
    pub(crate) const fn before_a_look(&self) -> SecretsSeen {
        match self.access {
            SecretAccess::Granted => SecretsSeen::Unknown,
            SecretAccess::LeftOut => SecretsSeen::Unreadable,
        }
    }

    /// Looks up the Secrets that a mailbox needs; a version that was seen within the last 30 seconds counts.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(crate) async fn look_up_secrets(
        &self,
        namespace: &str,
        sync: &str,
        spec: &MailboxSyncSpec,
    ) -> Result<SecretsSeen, kube::Error> {
        let mut versions = Vec::new();
        for name in pod_builder::required_secrets(spec).into_keys() {
            // A Secret that was split from a CSV has its version in its name.
            let split = name.strip_prefix(sync).is_some_and(|rest| rest.starts_with('-'));
            match if split { Some(String::new()) } else { self.version(namespace, &name).await? } {
                Some(version) => versions.push(format!("{name}={version}")),
                None => return Ok(SecretsSeen::Missing(format!("there is no Secret {name} in namespace {namespace}"))),
            }
        }
        Ok(SecretsSeen::Present(versions))
    }

    async fn version(&self, namespace: &str, name: &str) -> Result<Option<String>, kube::Error> {
        let secret_name = NamespacedName::new(namespace, name);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.retain(|_, seen| seen.at.elapsed() < VERSION_TTL);
            if let Some(seen) = seen.get(&secret_name) {
                return Ok(seen.version.clone());
            }
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = api.get_metadata_opt(name).await?;
        let version = secret.map(|secret| secret.metadata.resource_version.unwrap_or_default());
        let seen = SeenVersion { at: Instant::now(), version: version.clone() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(secret_name, seen);
        Ok(version)
    }
}
