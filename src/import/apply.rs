//! An import applied to a cluster, server-side: Secrets first, so that no MailMigration waits for them.

use std::{fmt::Debug, io::Write, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use secrecy::ExposeSecret as _;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    objects::{ImportMetadata, SecretObject},
    plan::{CSV_KEY, ImportPlan},
};
use crate::{
    api::{
        MailMigration,
        csv::records::{CsvDialect, CsvReader},
    },
    error::{Error, ErrorClass, Result},
};

/// Who owns the fields that an import writes.
pub(crate) const FIELD_MANAGER: &str = "mailferry-import";
/// Requests under way at one time.
const AT_ONCE: usize = 8;

/// How to apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApplyOptions {
    /// Ask the API server only.
    pub dry_run: bool,
    /// Take fields that somebody else wrote.
    pub force_conflicts: bool,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApplyOutcome {
    /// It was not there.
    Created,
    /// It was another.
    Configured,
    /// It was the same.
    Unchanged,
    /// It was written, but may not be read: what it was is not known.
    Applied,
}

impl ApplyOutcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Applied => "applied",
        }
    }
}

/// The cluster of a kubeconfig's context, or the one that this runs in: a client, and the namespace that is used unless
/// another one is given.
///
/// # Errors
/// Configuration when there is none.
pub(crate) async fn cluster(context: Option<&str>) -> Result<(Client, String)> {
    cluster_in(None, context).await
}

/// The same; `kubeconfig`: by this file.
///
/// # Errors
/// Configuration when there is none.
pub(crate) async fn cluster_in(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<(Client, String)> {
    let wrong = |why: String| {
        Error::configuration(format!("the cluster's configuration can't be read: {why}"))
            .advice("Set KUBECONFIG to a file that kubectl works with, or choose by --context")
    };
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = match (kubeconfig, context) {
        (Some(file), _) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(error.to_string()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| wrong(error.to_string()))?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| wrong(error.to_string()))?,
        (None, None) => Config::infer().await.map_err(|error| wrong(error.to_string()))?,
    };
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| wrong(error.to_string()))?;
    Ok((client, namespace))
}

/// Applies everything; `common` has a namespace. Prints a line for each object, as kubectl does, and goes on behind an
/// object that is refused.
///
/// # Errors
/// The first refusal.
pub(crate) async fn apply(
    client: &Client,
    plan: &ImportPlan,
    common: &ImportMetadata,
    options: ApplyOptions,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let namespace = common.namespace.as_deref().unwrap_or("default");
    let parameters =
        PatchParams { dry_run: options.dry_run, force: options.force_conflicts, ..PatchParams::apply(FIELD_MANAGER) };
    let parameters = &parameters;
    let mut say = |what: &str, name: &str, verdict: ApplyOutcome| {
        let dry = if options.dry_run { " (server dry run)" } else { "" };
        writeln!(out, "{what}/{name} {}{dry}", verdict.word())
            .map_err(|error| Error::internal(format!("cannot write: {error}")))
    };
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let mut verdicts = stream::iter(&plan.secrets)
        .map(async |secret| (secret, apply_object(&secrets, &secret.name, &secret.object(common), parameters).await))
        .buffered(AT_ONCE);
    while let Some((secret, verdict)) = verdicts.next().await {
        let verdict = verdict.map_err(|error| refused(&error, "Secret", &secret.name, Some(secret)))?;
        say("secret", &secret.name, verdict)?;
    }
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    for map in &plan.config_maps {
        let verdict = apply_object(&config_maps, &map.name, &map.object(common), parameters).await;
        say("configmap", &map.name, verdict.map_err(|error| refused(&error, "ConfigMap", &map.name, None))?)?;
    }
    let resource = ApiResource::erase::<MailMigration>(&());
    let migrations = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    for migration in &plan.migrations {
        let object: DynamicObject = serde_json::from_value(migration.object.clone())
            .map_err(|error| Error::internal(format!("a migration can't be shown: {error}")))?;
        let verdict = apply_object(&migrations, &migration.name, &object, parameters).await;
        let verdict = verdict.map_err(|error| refused(&error, "MailMigration", &migration.name, None))?;
        say("mailmigration.mailferry.io", &migration.name, verdict)?;
    }
    Ok(())
}

/// Secrets of earlier imports of this name that no mailbox needs any more.
///
/// # Errors
/// When the API server does not answer, or they may not be listed.
pub(crate) async fn list_left_over_secrets(
    client: &Client,
    plan: &ImportPlan,
    common: &ImportMetadata,
) -> Result<Vec<String>, kube::Error> {
    let namespace = common.namespace.as_deref().unwrap_or("default");
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let label = format!("{}={}", super::objects::IMPORT_LABEL, common.import);
    let there = secrets.list_metadata(&kube::api::ListParams::default().labels(&label)).await?;
    let names = there.items.into_iter().filter_map(|secret| secret.metadata.name);
    Ok(names.filter(|name| plan.secrets.binary_search_by(|secret| secret.name.cmp(name)).is_err()).collect())
}

async fn apply_object<K>(
    api: &Api<K>,
    name: &str,
    object: &K,
    parameters: &PatchParams,
) -> Result<ApplyOutcome, kube::Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let before = match api.get_opt(name).await {
        Err(kube::Error::Api(status)) if status.code == 403 => None,
        before => Some(before?),
    };
    let after = api.patch(name, parameters, &Patch::Apply(object)).await?;
    Ok(match before {
        None => ApplyOutcome::Applied,
        Some(None) => ApplyOutcome::Created,
        Some(Some(before)) if written(&before) == written(&after) => ApplyOutcome::Unchanged,
        Some(Some(_)) => ApplyOutcome::Configured,
    })
}

/// What people write of an object.
fn written(object: &impl Serialize) -> Option<Value> {
    let mut object = serde_json::to_value(object).ok()?;
    let fields = object.as_object_mut()?;
    fields.remove("status");
    let metadata = fields.get_mut("metadata")?.as_object_mut()?;
    for field in ["managedFields", "resourceVersion", "generation"] {
        metadata.remove(field);
    }
    Some(object)
}

/// A refusal as one of the classes. What the API server says of a Secret is shown only where it holds none of its values.
fn refused(error: &kube::Error, kind: &str, name: &str, secret: Option<&SecretObject>) -> Error {
    let tells = |text: &str| secret.is_some_and(|secret| holds_a_value(text, secret));
    let status = match error {
        kube::Error::Api(status) => status,
        // Such an error quotes the answer.
        kube::Error::SerdeError(_) if secret.is_some() => {
            return Error::network(format!("{kind} {name}: what the API server answers can't be read"))
                .advice("Check that the kubeconfig names an API server; what was applied stays");
        }
        error => {
            return Error::network(format!("{kind} {name}: the API server can't be reached: {error}"))
                .advice("What was applied stays; run the same again");
        }
    };
    let message = if tells(&status.message) { &status.reason } else { &status.message };
    let what = format!("{kind} {name}: the API server says: {message}");
    match status.code {
        401 => Error::new(ErrorClass::Authentication, what).advice("Check the kubeconfig's credentials"),
        403 => Error::new(ErrorClass::Authorization, what).advice(format!(
            "Who imports needs the verbs get, create and patch on secrets (with --config-map on configmaps) and \
             mailmigrations.mailferry.io in the namespace; a quota or a policy may refuse {kind}s too"
        )),
        404 if kind == "MailMigration" => Error::configuration(what).advice(
            "Check that the namespace exists, and install the definitions: mailferry crds | kubectl apply \
             --server-side -f -",
        ),
        404 => Error::configuration(what).advice("Check that the namespace exists: kubectl get namespaces"),
        409 => Error::configuration(what).advice(
            "Somebody else has written these fields: take them over by --force-conflicts, or import by another --name",
        ),
        429 | 503 | 504 => Error::new(ErrorClass::Throttled, what).advice("Run the same again later"),
        500.. => Error::network(what).advice("Run the same again"),
        _ => Error::configuration(what).advice("Correct the command line or the table"),
    }
}

/// True when a text shows a credential of a Secret, as it is or as base64.
fn holds_a_value(text: &str, secret: &SecretObject) -> bool {
    let shows = |value: &[u8]| {
        let encoded = STANDARD.encode(value);
        !value.is_empty()
            && (text.contains(&*String::from_utf8_lossy(value)) || text.contains(encoded.trim_end_matches('=')))
    };
    secret.values.iter().any(|(key, value)| {
        let value = value.expose_secret();
        let mut rows = CsvReader::new(value, 1, CsvDialect::default()).skip(1).flatten();
        shows(value) || (key == CSV_KEY && rows.any(|row| row.fields.iter().any(|field| shows(field))))
    })
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use secrecy::SecretBox;

    use super::*;

    fn secret(key: &str, value: &str) -> SecretObject {
        let values = [(key.to_owned(), SecretBox::new(value.as_bytes().into()))];
        SecretObject { name: "s".into(), values: values.into() }
    }

    fn error(code: u16, message: &str, secret: &SecretObject) -> Error {
        let status = Status::failure(message, "Denied").with_code(code);
        refused(&kube::Error::Api(Box::new(status)), "Secret", "s", Some(secret))
    }

    #[test]
    fn a_policy_that_quotes_a_password_is_not_quoted() {
        for secret in [secret("source-password", "hush"), secret(CSV_KEY, "name,source_password\na,hush\n")] {
            for message in ["denied: hush is too weak", "denied: aHVzaA== is too weak"] {
                let said = error(403, message, &secret).to_string();
                assert!(said.contains("the API server says: Denied") && !said.contains("weak"), "{said}");
            }
        }
        let (table, encoded) = ("name,source_password\na,hush\n", "bmFtZSxzb3VyY2VfcGFzc3dvcmQKYSxodXNoCg==");
        let said = error(422, &format!("{encoded} is too weak"), &secret(CSV_KEY, table)).to_string();
        assert!(!said.contains("weak"), "{said}");
        let said = error(403, "secrets is forbidden: exceeded quota", &secret("k", "hush"));
        assert!(said.class == ErrorClass::Authorization && said.what.contains("exceeded quota"), "{said}");
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        let answer = serde_json::from_str::<Secret>(r#"{"data": "hush"}"#).unwrap_err();
        let said = refused(&kube::Error::SerdeError(answer), "Secret", "s", Some(&secret("k", "other"))).to_string();
        assert!(said.contains("can't be read") && !said.contains("hush"), "{said}");
    }

    #[test]
    fn what_the_server_keeps_for_itself_is_no_change() {
        let object = |version: &str, data: &str| {
            let metadata = serde_json::json!({"name": "s", "resourceVersion": version, "managedFields": [version]});
            serde_json::json!({"metadata": metadata, "data": {"k": data}, "status": version})
        };
        assert_eq!(written(&object("1", "a")), written(&object("2", "a")));
        assert_ne!(written(&object("1", "a")), written(&object("1", "b")));
    }
}
