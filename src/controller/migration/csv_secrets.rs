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

use super::expand::{CsvRow, SplitSecret};
use crate::{
    api::{MailMigration, SecretKeyRef, csv, mail_migration::CsvStatus, names},
    controller::{context::ControllerContext, owner_reference::controller_reference},
};

/// The mailboxes of a migration's CSVs, as far as these could be read.
#[derive(Default)]
pub(crate) struct CsvMailboxes {
    /// The mailboxes of all CSVs, in the order of the spec.
    pub rows: Vec<CsvRow>,
    /// What the migration's status says of each CSV.
    pub statuses: Vec<CsvStatus>,
}

impl CsvMailboxes {
    /// True when each CSV could be read.
    #[must_use]
    pub(crate) fn all_readable(&self) -> bool {
        self.statuses.iter().all(|csv| csv.problem.is_none())
    }
}

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

/// Reads a migration's CSVs.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn read_csvs(
    context: &ControllerContext,
    migration: &MailMigration,
) -> Result<CsvMailboxes, kube::Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &migration.namespace().unwrap_or_default());
    let mut csvs = CsvMailboxes::default();
    for SecretKeyRef { name, key } in &migration.spec.mailbox_secrets {
        let mut status =
            CsvStatus { name: name.clone(), key: key.clone(), resource_version: None, mailboxes: 0, problem: None };
        match api.get_opt(name).await? {
            None => status.problem = Some(format!("there is no Secret {name}; its mailboxes stay as they are")),
            Some(secret) => {
                status.resource_version = secret.resource_version();
                let uid = secret.uid().unwrap_or_default();
                match secret.data.unwrap_or_default().remove(key) {
                    None => {
                        status.problem =
                            Some(format!("Secret {name} has no key {key}; its mailboxes stay as they are"));
                    }
                    Some(ByteString(bytes)) => {
                        let bytes = zeroize::Zeroizing::new(bytes);
                        match csv::parse(&format!("Secret {name} key {key}"), &bytes, |_| String::new()) {
                            Ok(rows) => {
                                status.mailboxes = i32::try_from(rows.len()).unwrap_or(i32::MAX);
                                let rows = rows.into_iter().map(|mailbox| CsvRow { csv_uid: uid.clone(), mailbox });
                                csvs.rows.extend(rows);
                            }
                            Err(error) => status.problem = Some(error.what.chars().take(1000).collect()),
                        }
                    }
                }
            }
        }
        csvs.statuses.push(status);
    }
    Ok(csvs)
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
