//! The Secret with the access tokens of one mailbox: written, and deleted once no pod needs it.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Error as KubeError,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    api::{API_VERSION, names},
    controller::{cache::NamespacedName, owner_reference},
    error::{Error, ErrorClass, Result, Side},
};

/// The pod that reads a mailbox's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenReader {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The annotation of a pod that says when its token was written that takes a refused one's place.
const TOKEN_WRITTEN_AT: &str = "mailferry.io/token-written-at";
/// The type of such Secrets. It can't be changed, and the operator may change Secrets of no other.
pub const ACCESS_TOKEN_TYPE: &str = "mailferry.io/access-token";

/// Writes the tokens of a mailbox: its Secret is made, or what it holds is replaced.
///
/// # Errors
/// Configuration when a Secret of that name is there that is not this mailbox's, Authorization when the API server refused,
/// Network when it did not answer.
pub(crate) async fn write_tokens(
    client: &Client,
    mailbox: &NamespacedName,
    uid: &str,
    tokens: &BTreeMap<Side, SecretString>,
) -> Result<()> {
    let name = names::token_secret(&mailbox.name);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &mailbox.namespace);
    let value = |(side, token): (&Side, &SecretString)| (side.to_string(), ByteString(token.expose_secret().into()));
    let data: BTreeMap<_, _> = tokens.iter().map(value).collect();
    // Most writes replace what is there.
    if let Some(there) = secrets.get_metadata_opt(&name).await.map_err(|error| failed(&name, &error))? {
        if !owner_reference::is_controlled_by(&there, uid) {
            return Err(Error::configuration(format!("a Secret {name} is there that is not this mailbox's"))
                .advice("Delete it: the operator writes access tokens into a Secret of this name"));
        }
        let patch =
            serde_json::json!({"metadata": {"uid": there.metadata.uid}, "type": ACCESS_TOKEN_TYPE, "data": data});
        let patched = secrets.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        return patched.map(drop).map_err(|error| failed(&name, &error));
    }
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(mailbox.namespace.clone()),
            labels: Some(
                [("app.kubernetes.io/name", "mailferry"), ("app.kubernetes.io/managed-by", "mailferry")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            owner_references: Some(vec![OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: "MailboxSync".to_owned(),
                name: mailbox.name.clone(),
                uid: uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        type_: Some(ACCESS_TOKEN_TYPE.to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &secret).await.map(drop).map_err(|error| failed(&name, &error))
}

/// Deletes the tokens of a mailbox, where they are its own. None is no error.
///
/// # Errors
/// When the API server refused, or did not answer.
pub(crate) async fn delete_tokens(client: &Client, mailbox: &NamespacedName, uid: &str) -> Result<(), KubeError> {
    let name = names::token_secret(&mailbox.name);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &mailbox.namespace);
    let Some(there) = secrets.get_metadata_opt(&name).await? else { return Ok(()) };
    if !owner_reference::is_controlled_by(&there, uid) {
        return Ok(());
    }
    let preconditions = Preconditions { uid: there.metadata.uid, resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match secrets.delete(&name, &params).await {
        // Gone, or another one of that name by now.
        Err(KubeError::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Lets a pod's node look at once at what it mounts: whatever changes of a pod makes kubelet do so, which otherwise looks
/// about once a minute. Where that fails, it is waited for.
pub(crate) async fn hasten_reading(client: &Client, namespace: &str, pod: &TokenReader) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let annotations = serde_json::json!({TOKEN_WRITTEN_AT: jiff::Timestamp::now().to_string()});
    let patch = serde_json::json!({"metadata": {"uid": pod.uid, "annotations": annotations}});
    if let Err(error) = pods.patch_metadata(&pod.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        tracing::debug!(namespace, pod = pod.name, %error, "a pod was not told of its new access token");
    }
}

/// The answer of the API server as an error of the mailbox: without what was sent.
fn failed(name: &str, error: &KubeError) -> Error {
    match error {
        KubeError::Api(answer) if matches!(answer.code, 401 | 403) => Error::new(
            ErrorClass::Authorization,
            format!("the operator may not write the Secret {name} with access tokens"),
        )
        .advice("Give it the roles of the chart or of deploy/: `mailferry doctor` says what is missing"),
        // A refusal may quote what it refuses.
        KubeError::Api(answer) => {
            Error::network(format!("the API server did not take the Secret {name}: {}", answer.code))
        }
        _ => Error::network(format!("the API server did not answer about the Secret {name}")),
    }
}
