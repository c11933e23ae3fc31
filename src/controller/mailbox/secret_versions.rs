//! Versions of Secrets: never their values.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, header::ACCEPT};
use kube::Client;
use serde_json::Value;

use super::{attempt_input::grant_version_name, observe::SecretsSeen};
use crate::{
    api::{
        MailboxSyncSpec,
        common::{OAUTH_CLIENT_TYPE, OAUTH_GRANT_TYPE},
        mailbox_sync::GrantedBy,
    },
    controller::{
        cache::NamespacedName,
        config::{OperatorConfig, SecretAccess},
        grants::{GrantRule, granted_sides},
        pod_builder,
        tokens::secret::ACCESS_TOKEN_TYPE,
    },
};

/// How long a version counts: many mailboxes share a Secret.
const VERSION_TTL: Duration = Duration::from_secs(30);

/// Types of Secrets that are what tokens are got with, or tokens: as a password, they would be sent to a server of a tenant's
/// choice.
const NOT_MOUNTED: [&str; 3] = [OAUTH_CLIENT_TYPE, OAUTH_GRANT_TYPE, ACCESS_TOKEN_TYPE];

/// The resourceVersions of Secrets that were looked up lately, so that many mailboxes with one Secret ask once.
pub(crate) struct SecretVersions {
    client: Client,
    access: SecretAccess,
    /// The Secrets of the operator's grants.
    grants: HashMap<String, NamespacedName>,
    seen: Mutex<HashMap<NamespacedName, SeenSecret>>,
}

/// What is known of a Secret: never its values.
#[derive(Debug, Clone)]
struct SecretFacts {
    /// Its resourceVersion.
    version: String,
    /// Its type.
    kind: String,
}

struct SeenSecret {
    at: Instant,
    /// None where there is no such Secret.
    secret: Option<SecretFacts>,
}

impl SecretVersions {
    /// None seen yet.
    #[must_use]
    pub(crate) fn new(client: Client, config: &OperatorConfig, own_namespace: &str) -> Self {
        let grant =
            |grant: &GrantRule| (grant.name.clone(), NamespacedName::new(own_namespace, grant.secret_ref.name.clone()));
        let grants = config.grants.iter().map(grant).collect();
        Self { client, access: config.secrets, grants, seen: Mutex::default() }
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
            if split {
                versions.push(format!("{name}="));
                continue;
            }
            match self.look(namespace, &name).await? {
                Some(secret) if NOT_MOUNTED.contains(&secret.kind.as_str()) => {
                    let kind = secret.kind;
                    let what =
                        format!("the Secret {name} is of type {kind}, which is mounted into no pod as something else");
                    return Ok(SecretsSeen::NotMounted(what));
                }
                Some(secret) => versions.push(format!("{name}={}", secret.version)),
                None => return Ok(SecretsSeen::Missing(format!("there is no Secret {name} in namespace {namespace}"))),
            }
        }
        for grant in granted_sides(spec).map(|(.., by)| by).collect::<BTreeSet<_>>() {
            let (name, secret, missing) = match grant {
                GrantedBy::Operator(grant) => {
                    // Whether it may be used was judged before.
                    let Some(secret) = self.grants.get(&grant) else { continue };
                    let missing = format!("the Secret of the grant {grant} is missing");
                    (grant_version_name(&grant), secret.clone(), missing)
                }
                GrantedBy::Tenant(secret) => {
                    let missing = format!("there is no Secret {secret} in namespace {namespace}");
                    (secret.clone(), NamespacedName::new(namespace, secret), missing)
                }
            };
            match self.look(&secret.namespace, &secret.name).await? {
                Some(secret) => versions.push(format!("{name}={}", secret.version)),
                None => return Ok(SecretsSeen::Missing(missing)),
            }
        }
        Ok(SecretsSeen::Present(versions))
    }

    async fn look(&self, namespace: &str, name: &str) -> Result<Option<SecretFacts>, kube::Error> {
        let secret_name = NamespacedName::new(namespace, name);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.retain(|_, seen| seen.at.elapsed() < VERSION_TTL);
            if let Some(seen) = seen.get(&secret_name) {
                return Ok(seen.secret.clone());
            }
        }
        let secret = read_facts(&self.client, namespace, name).await?;
        let seen = SeenSecret { at: Instant::now(), secret: secret.clone() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(secret_name, seen);
        Ok(secret)
    }
}

/// What the API server tells of a Secret as a row of a table: no values.
async fn read_facts(client: &Client, namespace: &str, name: &str) -> Result<Option<SecretFacts>, kube::Error> {
    let request = Request::get(format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
        .header(ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Ok(table) => Ok(Some(facts_of(&table))),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn facts_of(table: &Value) -> SecretFacts {
    let columns = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let kind = columns.iter().position(|column| column["name"] == "Type");
    let row = &table["rows"][0];
    let kind = kind.and_then(|column| row["cells"].get(column)).and_then(Value::as_str);
    let version = row["object"]["metadata"]["resourceVersion"].as_str();
    SecretFacts { version: version.unwrap_or_default().to_owned(), kind: kind.unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_tells_version_and_type() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Type"}, {"name": "Data"}],
            "rows": [{"cells": ["s", "mailferry.io/oauth-client", 1], "object": {"metadata": {"resourceVersion": "7"}}}],
        });
        let facts = facts_of(&table);
        assert_eq!((facts.version.as_str(), facts.kind.as_str()), ("7", "mailferry.io/oauth-client"));
    }
}
