//! CSVs with mailboxes: read when they change, split into one Secret per mailbox. The operator reads no other Secret's
//! value.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::expand::SplitSecret;
use crate::{
    api::{
        MailMigration, SecretKeyRef,
        csv::{self, CsvMailbox},
        mail_migration::CsvStatus,
        names,
    },
    controller::{context::ControllerContext, owner_reference::controller_reference},
    error::Error,
};

/// After so many lines others have their turn.
const ROWS_AT_ONCE: i32 = 500;

/// The versions of a migration's CSVs; another answer means that they have to be read again.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn secret_versions(
    context: &ControllerContext,
    migration: &MailMigration,
) -> Result<Vec<Option<String>>, kube::Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &migration.namespace().unwrap_or_default());
    let mut versions = Vec::new();
    for reference in &migration.spec.mailbox_secrets {
        let found = api.get_metadata_opt(&reference.name).await?;
        versions.push(found.and_then(|secret| secret.metadata.resource_version));
    }
    Ok(versions)
}

/// A CSV, as its Secret holds it.
pub(crate) struct CsvText {
    /// The Secret's UID.
    pub uid: String,
    /// The Secret's resourceVersion.
    pub version: Option<String>,
    /// Used in errors.
    pub name: String,
    /// The CSV; or why there is none.
    pub bytes: Result<Zeroizing<Vec<u8>>, String>,
}

/// Fetches a CSV. One at a time is held: a migration may name a hundred of 1 MiB.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn fetch_csv(
    context: &ControllerContext,
    migration: &MailMigration,
    reference: &SecretKeyRef,
) -> Result<CsvText, kube::Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &migration.namespace().unwrap_or_default());
    let SecretKeyRef { name, key } = reference;
    let found = api.get_opt(name).await?;
    let (uid, version) = found
        .as_ref()
        .map_or_else(Default::default, |secret| (secret.uid().unwrap_or_default(), secret.resource_version()));
    let bytes = match found.map(|secret| secret.data.unwrap_or_default().remove(key)) {
        Some(Some(ByteString(bytes))) => Ok(Zeroizing::new(bytes)),
        Some(None) => Err(format!("Secret {name} has no key {key}; its mailboxes stay as they are")),
        None => Err(format!("there is no Secret {name}; its mailboxes stay as they are")),
    };
    Ok(CsvText { uid, version, name: format!("Secret {name} key {key}"), bytes })
}

/// Hands over the mailboxes of a CSV, one at a time; gives what the migration's status says of it. Other tasks have their
/// turn in between.
pub(crate) async fn read_csv(
    reference: &SecretKeyRef,
    csv: &CsvText,
    mut take: impl FnMut(CsvMailbox) + Send,
) -> CsvStatus {
    let mut status = CsvStatus {
        name: reference.name.clone(),
        key: reference.key.clone(),
        resource_version: csv.version.clone(),
        mailboxes: 0,
        problem: csv.bytes.as_ref().err().cloned(),
    };
    let Ok(bytes) = &csv.bytes else { return status };
    let problem = |error: Error| Some(error.what.chars().take(1000).collect());
    match csv::mailboxes(&csv.name, bytes, |_| String::new()) {
        Err(error) => status.problem = problem(error),
        Ok(rows) => {
            for row in rows {
                match row {
                    Ok(row) => take(row),
                    Err(error) => {
                        status.problem = problem(error);
                        break;
                    }
                }
                status.mailboxes = status.mailboxes.saturating_add(1);
                if status.mailboxes % ROWS_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    if status.problem.is_some() {
        status.mailboxes = 0;
    }
    status
}

/// The key that keys the names of the mailboxes' Secrets: random, made once per migration, kept in a Secret of its own.
///
/// # Errors
/// When the API server does not answer, and when the kernel gives no random numbers.
pub(crate) async fn naming_key(context: &ControllerContext, migration: &MailMigration) -> Result<String, kube::Error> {
    const KEY: &str = "key";
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &migration.namespace().unwrap_or_default());
    let name = format!("mailferry-{}", names::hash_texts(&[&migration.uid().unwrap_or_default()], 16));
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| kube::Error::Service(error.into()))?;
    let text = base64::engine::general_purpose::STANDARD.encode(random);
    for _ in 0..2 {
        if let Some(found) = api.get_opt(&name).await? {
            let value = found.data.unwrap_or_default().remove(KEY).unwrap_or_default();
            return Ok(String::from_utf8_lossy(&value.0).into_owned());
        }
        let secret = owned_secret(migration, &name, [(KEY.to_owned(), ByteString(text.clone().into_bytes()))].into());
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => return Ok(text),
            Err(kube::Error::Api(answer)) if answer.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// Makes a mailbox's Secret, unless it is there: its name says what is in it.
///
/// # Errors
/// When the API server does not take it.
pub(crate) async fn create_mailbox_secret(
    context: &ControllerContext,
    migration: &MailMigration,
    split: &SplitSecret,
) -> Result<(), kube::Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &migration.namespace().unwrap_or_default());
    let values =
        split.values.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.expose_secret().to_vec())));
    match api.create(&PostParams::default(), &owned_secret(migration, &split.name, values.collect())).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

fn owned_secret(migration: &MailMigration, name: &str, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "mailferry".to_owned())].into()),
            owner_references: Some(vec![controller_reference(migration)]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(data),
        ..Secret::default()
    }
}
