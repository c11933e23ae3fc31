//! CSVs with mailboxes, in Secrets and ConfigMaps: read when they change, their credentials split into one Secret per
//! mailbox. The operator reads no other Secret's value.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::expand::SplitSecret;
use crate::{
    api::{
        CsvRef, MailMigration,
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
    let namespace = migration.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let mut versions = Vec::new();
    for csv in migration.spec.csvs() {
        versions.push(match csv {
            CsvRef::Secret(secret) => {
                secrets.get_metadata_opt(&secret.name).await?.and_then(|it| it.resource_version())
            }
            CsvRef::ConfigMap(map) => {
                config_maps.get_metadata_opt(&map.name).await?.and_then(|it| it.resource_version())
            }
        });
    }
    Ok(versions)
}

/// A CSV, as its object holds it.
pub(crate) struct CsvText {
    /// The object's UID.
    pub uid: String,
    /// The object's resourceVersion.
    pub version: Option<String>,
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
    csv: CsvRef<'_>,
) -> Result<CsvText, kube::Error> {
    let namespace = migration.namespace().unwrap_or_default();
    let (name, key) = (csv.name(), csv.key());
    let found = match csv {
        CsvRef::Secret(_) => {
            let found = Api::<Secret>::namespaced(context.client.clone(), &namespace).get_opt(name).await?;
            found.map(|Secret { metadata, data, .. }| (metadata, data.unwrap_or_default().remove(key)))
        }
        CsvRef::ConfigMap(_) => {
            let found = Api::<ConfigMap>::namespaced(context.client.clone(), &namespace).get_opt(name).await?;
            found.map(|ConfigMap { metadata, data, binary_data, .. }| {
                let text = data.unwrap_or_default().remove(key).map(|text| ByteString(text.into_bytes()));
                (metadata, text.or_else(|| binary_data.unwrap_or_default().remove(key)))
            })
        }
    };
    let (ObjectMeta { uid, resource_version, .. }, bytes) = match found {
        Some((metadata, Some(ByteString(bytes)))) => (metadata, Ok(Zeroizing::new(bytes))),
        Some((metadata, None)) => {
            (metadata, Err(format!("{} {name} has no key {key}; its mailboxes stay as they are", csv.kind())))
        }
        None => {
            let why = format!("there is no {} {name}; its mailboxes stay as they are", csv.kind());
            (ObjectMeta::default(), Err(why))
        }
    };
    Ok(CsvText { uid: uid.unwrap_or_default(), version: resource_version, bytes })
}

/// Hands over the mailboxes of a CSV, one at a time; gives what the migration's status says of it. Other tasks have their
/// turn in between.
pub(crate) async fn read_csv(place: CsvRef<'_>, csv: &CsvText, mut take: impl FnMut(CsvMailbox) + Send) -> CsvStatus {
    let mut status = CsvStatus {
        name: place.name().to_owned(),
        key: place.key().to_owned(),
        resource_version: csv.version.clone(),
        mailboxes: 0,
        problem: csv.bytes.as_ref().err().cloned(),
    };
    let Ok(bytes) = &csv.bytes else { return status };
    let problem = |error: Error| {
        let advice = error.advice.map_or_else(String::new, |advice| format!(". {advice}"));
        Some((error.what + &advice).chars().take(1000).collect::<String>())
    };
    let name = place.to_string();
    let allowed = if matches!(place, CsvRef::ConfigMap(_)) { csv::refuse_credentials(&name, bytes) } else { Ok(()) };
    match allowed.and_then(|()| csv::mailboxes(&name, bytes, |_| String::new())) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{SecretKeyRef, csv_ref::ConfigMapKeyRef};

    const CSV: &str = "name,source_password\nbob,hush\n";

    fn text(bytes: Result<&str, &str>) -> CsvText {
        let bytes = bytes.map(|text| Zeroizing::new(text.as_bytes().to_vec())).map_err(str::to_owned);
        let version = bytes.is_ok().then(|| "7".to_owned());
        CsvText { uid: "u".to_owned(), version, bytes }
    }

    #[tokio::test]
    async fn a_password_may_be_in_a_secret_and_in_no_config_map() {
        let (name, key) = ("csv".to_owned(), "m.csv".to_owned());
        let secret = SecretKeyRef { name: name.clone(), key: key.clone() };
        let map = ConfigMapKeyRef { name, key };
        let mut rows = 0;
        let read = read_csv(CsvRef::Secret(&secret), &text(Ok(CSV)), |_| rows += 1).await;
        assert_eq!((read.mailboxes, read.problem, rows), (1, None, 1));
        let refused = read_csv(CsvRef::ConfigMap(&map), &text(Ok(CSV)), |_| rows += 1).await;
        let problem = refused.problem.unwrap();
        assert!(problem.contains("ConfigMap csv key m.csv, line 1: column source_password"), "{problem}");
        assert!(!problem.contains("hush"), "{problem}");
        assert_eq!((refused.mailboxes, rows), (0, 1), "none of its mailboxes is taken");
    }
}
