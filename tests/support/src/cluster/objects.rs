//! What tests do with objects: make them from YAML, wait for them, take tokens.

use std::{fmt, time::Duration};

use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, Pod, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery::{Scope, pinned_kind},
    runtime::wait::{Condition, await_condition, conditions},
};
use serde::{Deserialize as _, de::DeserializeOwned};
use tokio::time::timeout;

use super::ControlPlane;

/// How long something may take to become true. The operator looks at some things once a minute only.
const WAIT: Duration = Duration::from_mins(2);

impl ControlPlane {
    /// Makes a namespace with a name of its own.
    pub async fn namespace(&self) -> String {
        namespace(&self.client()).await
    }

    /// Makes a `ServiceAccount`, or leaves it as it is.
    pub async fn service_account(&self, namespace: &str, name: &str) {
        let account = format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}}}}}");
        apply(&self.client(), Some(namespace), &account).await.expect("ServiceAccount");
    }

    /// A token of a `ServiceAccount`; of a pod that runs as it, where one is given.
    pub async fn token(&self, namespace: &str, account: &str, pod: Option<&Pod>) -> String {
        let bound = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        let request = TokenRequest {
            spec: TokenRequestSpec { bound_object_ref: bound, ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.client(), namespace);
        let made = accounts.create_token_request(account, &PostParams::default(), &request).await.expect("token");
        made.status.expect("token").token
    }
}

/// Makes a namespace with a name of its own.
pub async fn namespace(client: &Client) -> String {
    let namespace = Namespace {
        metadata: ObjectMeta { generate_name: Some("test-".into()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let made = Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("namespace");
    made.metadata.name.expect("name")
}

/// The documents of a YAML stream.
#[must_use]
pub fn documents(yaml: &str) -> Vec<DynamicObject> {
    let object = |document| Option::<DynamicObject>::deserialize(document).expect("an object as YAML");
    serde_yaml::Deserializer::from_str(yaml).filter_map(object).collect()
}

/// Applies every object of a YAML stream, server-side, and waits for CustomResourceDefinitions to be served. Objects
/// without a namespace go into `namespace`.
pub async fn apply(client: &Client, namespace: Option<&str>, yaml: &str) -> Result<Vec<DynamicObject>, kube::Error> {
    let mut applied = Vec::new();
    for object in documents(yaml) {
        let types = object.types.clone().expect("apiVersion and kind");
        let kind = GroupVersionKind::try_from(&types).expect("apiVersion");
        let (resource, capabilities) = pinned_kind(client, &kind).await?;
        let name = object.metadata.name.clone().expect("name");
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let place = object.metadata.namespace.as_deref().or(namespace).expect("a namespace");
                Api::namespaced_with(client.clone(), place, &resource)
            }
        };
        let parameters = PatchParams::apply("mailferry-tests").force();
        applied.push(api.patch(&name, &parameters, &Patch::Apply(&object)).await?);
        if types.kind == "CustomResourceDefinition" {
            let definitions = Api::<CustomResourceDefinition>::all(client.clone());
            wait_for(&definitions, &name, conditions::is_crd_established()).await;
        }
    }
    Ok(applied)
}

/// Waits until an object is as it should be, and returns it. Panics with the object after two minutes.
pub async fn wait_for<K>(api: &Api<K>, name: &str, condition: impl Condition<K>) -> Option<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
{
    wait_within(api, name, WAIT, condition).await
}

/// The same, for so long.
pub async fn wait_within<K>(api: &Api<K>, name: &str, wait: Duration, condition: impl Condition<K>) -> Option<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
{
    let Ok(found) = timeout(wait, await_condition(api.clone(), name, condition)).await else {
        panic!("{name} did not become as it should; it is {:#?}", api.get_opt(name).await);
    };
    found.expect("watch")
}
