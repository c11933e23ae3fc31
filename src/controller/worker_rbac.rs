//! What a namespace needs before pods run in it: the workers' account, with the right to report and nothing else.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{LocalObjectReference, ServiceAccount},
    rbac::v1::{RoleBinding, RoleRef, Subject},
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams},
};

use super::config::OperatorConfig;
use crate::api::names::WORKER_NAME;

/// Who applies it.
const FIELD_MANAGER: &str = "mailferry-controller";
/// How often it is applied again: somebody may have removed it.
const APPLY_PERIOD: Duration = Duration::from_mins(10);

/// Namespaces whose workers' account was applied, and when.
#[derive(Debug, Default)]
pub(crate) struct PreparedNamespaces(Mutex<HashMap<String, Instant>>);

impl PreparedNamespaces {
    fn times(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the account of this namespace was applied so lately that it need not be applied again.
    fn is_recent(&self, namespace: &str) -> bool {
        self.times().get(namespace).is_some_and(|at| at.elapsed() < APPLY_PERIOD)
    }

    fn record(&self, namespace: &str) {
        self.times().insert(namespace.to_owned(), Instant::now());
    }

    /// The account has to be applied again.
    pub(crate) fn forget(&self, namespace: &str) {
        self.times().remove(namespace);
    }
}

/// Applies the workers' `ServiceAccount` and `RoleBinding`, unless that was done lately.
///
/// # Errors
/// When the API server does not take them.
pub(crate) async fn ensure_worker_rbac(
    client: &Client,
    config: &OperatorConfig,
    prepared: &PreparedNamespaces,
    namespace: &str,
) -> Result<(), Error> {
    if prepared.is_recent(namespace) {
        return Ok(());
    }
    let metadata = || ObjectMeta {
        name: Some(WORKER_NAME.to_owned()),
        labels: Some([("app.kubernetes.io/managed-by".to_owned(), "mailferry".to_owned())].into()),
        ..ObjectMeta::default()
    };
    let pull = config.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    let account = ServiceAccount {
        metadata: metadata(),
        image_pull_secrets: Some(pull.collect::<Vec<_>>()).filter(|secrets| !secrets.is_empty()),
        ..ServiceAccount::default()
    };
    let binding = RoleBinding {
        metadata: metadata(),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: config.worker_role.kind.as_str().to_owned(),
            name: config.worker_role.name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: WORKER_NAME.to_owned(),
            namespace: Some(namespace.to_owned()),
            api_group: None,
        }]),
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    accounts.patch(WORKER_NAME, &params, &Patch::Apply(&account)).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    let bound = bindings.patch(WORKER_NAME, &params, &Patch::Apply(&binding)).await;
    if let Err(Error::Api(answer)) = &bound
        && answer.code == 422
    {
        // What a RoleBinding binds can't be changed. The operator had another workerRole before, as when it is limited to
        // some namespaces; workers that report meanwhile try again.
        tracing::info!(namespace, "the RoleBinding {WORKER_NAME} binds another role than workerRole: it is made anew");
        bindings.delete(WORKER_NAME, &DeleteParams::default()).await?;
        bindings.patch(WORKER_NAME, &params, &Patch::Apply(&binding)).await?;
    } else {
        bound?;
    }
    prepared.record(namespace);
    Ok(())
}
