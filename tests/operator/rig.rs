//! One real control plane for the whole binary, and what tests do in a namespace of their own.

use std::{fs, path::Path, sync::OnceLock};

use k8s_openapi::api::core::v1::{Binding, Container, ObjectReference, Pod, PodSpec, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use mailferry::api::{MailboxSync, crd};
use mailferry_testkit::{
    cluster::{self, ControlPlane},
    eventually, so,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The `ServiceAccount` of sync pods.
pub const WORKER: &str = "mailferry-worker";
/// The group of roles and their bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io";
/// Kubernetes' own controllers that tests lean on: owners take their children with them, namespaces end, quotas count, roles
/// are put together.
const CONTROLLERS: [&str; 6] = [
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "resourcequota-controller",
    "clusterrole-aggregation-controller",
];

/// A namespace on the shared control plane.
pub struct Rig {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub namespace: String,
}

/// The shared control plane, with the CustomResourceDefinitions and all of deploy/ but its pods.
pub fn plane() -> &'static ControlPlane {
    static READY: OnceLock<&'static ControlPlane> = OnceLock::new();
    READY.get_or_init(|| {
        let plane = cluster::shared_control_plane();
        cluster::blocking(|| install(plane));
        plane
    })
}

/// Makes a control plane ready for an operator that runs outside of it.
pub async fn install(plane: &'static ControlPlane) {
    let client = plane.client();
    cluster::apply(&client, None, &crd::all_yaml().unwrap()).await.unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let files = [
        "namespace",
        "controller-rbac",
        "controller-fence",
        "user-roles",
        "worker-rbac",
        "worker-fence",
        "deprecated-fields",
    ];
    for file in files {
        let yaml = fs::read_to_string(deploy.join(file).with_extension("yaml")).unwrap();
        cluster::apply(&client, None, &yaml).await.unwrap();
    }
    plane.start_controllers(&CONTROLLERS);
    policies_apply(plane).await;
}

/// Waits until the API server has seen the admission policies: it learns of them by a watch.
async fn policies_apply(plane: &'static ControlPlane) {
    worker_fence_applies(plane).await;
    controller_fence_applies(plane).await;
}

async fn controller_fence_applies(plane: &'static ControlPlane) {
    let rig = Rig { plane, client: plane.client(), namespace: plane.namespace().await };
    let operator = rig.operator().await;
    let (account, role) = ("ServiceAccount", json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": WORKER}));
    let binding = json!({
        "metadata": {"name": "probe"}, "roleRef": role,
        "subjects": [{"kind": account, "name": WORKER, "namespace": rig.namespace}],
    });
    applies("controller-fence: rolebindings", || dry_run::<RoleBinding>(&operator, &rig, &binding)).await;
    let probe = json!({"metadata": {"name": "probe"}});
    applies("controller-fence: serviceaccounts", || dry_run::<ServiceAccount>(&operator, &rig, &probe)).await;
    applies("controller-fence: secrets", || dry_run::<Secret>(&operator, &rig, &probe)).await;
    rig.allow_workers().await;
    let container = json!({"name": "c", "image": "none"});
    let pod = json!({"metadata": {"name": "probe"}, "spec": {"serviceAccountName": WORKER, "containers": [container]}});
    applies("controller-fence: pods", || dry_run::<Pod>(&operator, &rig, &pod)).await;
}

/// Creates an object that its policy refuses, and keeps nothing.
async fn dry_run<K>(client: &Client, rig: &Rig, object: &Value) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api = Api::<K>::namespaced(client.clone(), &rig.namespace);
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&parameters, &read(object.clone())).await.map(drop)
}

async fn applies<F: Future<Output = Result<(), kube::Error>>>(policy: &str, attempt: impl Fn() -> F) {
    eventually(&format!("deploy/{policy} has an effect"), async || {
        so(attempt().await.is_err(), "what it forbids is allowed")
    })
    .await;
}

async fn worker_fence_applies(plane: &'static ControlPlane) {
    let rig = Rig { plane, client: plane.client(), namespace: plane.namespace().await };
    rig.mailbox_sync("probe", json!({"attempt": 1})).await;
    let mut config = plane.config();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{}:{WORKER}", rig.namespace));
    config.auth_info.impersonate_groups = Some(vec!["system:masters".into()]);
    let worker = Client::try_from(config).unwrap();
    let mut report = 0;
    eventually("deploy/worker-fence.yaml has an effect", async || {
        report += 1;
        let status = json!({"worker": {"attempt": 1, "report": report}});
        so(patch_status(&worker, &rig.namespace, "probe", status).await.is_err(), "what it forbids is allowed")
    })
    .await;
}

/// A namespace, and a client with the operator's rights and no more.
pub struct OperatorClient {
    pub rig: Rig,
    pub client: Client,
}

impl OperatorClient {
    /// In a namespace in which nothing is yet.
    pub async fn new() -> Self {
        let rig = Rig::new().await;
        let client = rig.operator().await;
        Self { rig, client }
    }

    /// In a namespace that is ready for sync pods.
    pub async fn with_workers() -> Self {
        let operator = Self::new().await;
        operator.rig.allow_workers().await;
        operator
    }

    /// Objects of one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.rig.namespace)
    }

    /// Creates an object, and keeps nothing.
    pub async fn create<K>(&self, object: Value) -> Result<K, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        self.api::<K>().create(&dry_run, &read(object)).await
    }
}

impl Rig {
    /// A new namespace, in which nothing is yet.
    pub async fn new() -> Self {
        let plane = plane();
        Self { plane, client: plane.client(), namespace: plane.namespace().await }
    }

    /// Objects of one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies YAML in this namespace.
    pub async fn apply(&self, yaml: &str) {
        cluster::apply(&self.client, Some(&self.namespace), yaml).await.unwrap();
    }

    /// A client of the operator, with its rights and no more.
    pub async fn operator(&self) -> Client {
        Client::try_from(self.operator_config().await).unwrap()
    }

    /// What such a client is made from.
    pub async fn operator_config(&self) -> kube::Config {
        self.plane.config_with_token(&self.plane.token("mailferry-system", "mailferry", None).await)
    }

    /// The namespace's workers may report, as the operator sees to it.
    pub async fn allow_workers(&self) {
        self.apply(&format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {WORKER}}}}}\n---\n\
             {{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: {WORKER}}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {WORKER}}}, \
             subjects: [{{kind: ServiceAccount, name: {WORKER}, namespace: {}}}]}}\n",
            self.namespace
        ))
        .await;
    }

    /// A MailboxSync without a migration, with this status.
    pub async fn mailbox_sync(&self, name: &str, status: Value) -> MailboxSync {
        let side = |host: &str| json!({"server": {"host": host}, "account": {"username": name, "passwordSecretRef": {"name": "mail", "key": name}}});
        let object = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": name},
            "spec": {"migration": "m", "mailbox": name, "source": side("old.example"), "destination": side("new.example")},
        });
        let api = self.api::<MailboxSync>();
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        self.patch_status(name, status).await.unwrap()
    }

    /// Changes a MailboxSync's status as an administrator.
    pub async fn patch_status(&self, name: &str, status: Value) -> Result<MailboxSync, kube::Error> {
        patch_status(&self.client, &self.namespace, name, status).await
    }

    /// A pod that runs as a worker: on no node, so that the test is its kubelet.
    pub async fn worker_pod(&self, name: &str) -> Pod {
        let container = Container { name: "sync".into(), image: Some("none".into()), ..Container::default() };
        let pod = Pod {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(PodSpec {
                service_account_name: Some(WORKER.into()),
                containers: vec![container],
                ..PodSpec::default()
            }),
            status: None,
        };
        self.api::<ServiceAccount>().get(WORKER).await.expect("allow_workers comes first");
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// A client with a pod's own token, as kubelet gives it to the pod.
    pub async fn client_of(&self, pod: &Pod) -> Client {
        self.plane.client_with_token(&self.plane.token(&self.namespace, WORKER, Some(pod)).await)
    }

    /// Puts a pod on a node, as the scheduler does. From here on deleting it takes its grace period, and
    /// [`Self::pod_gone`].
    pub async fn pod_scheduled(&self, pod: &str, node: &str) {
        let binding = Binding {
            metadata: ObjectMeta { name: Some(pod.into()), ..ObjectMeta::default() },
            target: ObjectReference { name: Some(node.into()), ..ObjectReference::default() },
        };
        let pods = self.api::<Pod>();
        let _: Value = pods.create_subresource("binding", pod, &PostParams::default(), &binding).await.unwrap();
    }

    /// Somebody said that nothing runs on a node any more.
    pub async fn node_out_of_service(&self, node: &str) {
        let taints =
            json!([{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": {"taints": taints}});
        cluster::apply(&self.client, None, &node.to_string()).await.unwrap();
    }

    /// Changes a pod's status, as kubelet does.
    pub async fn pod_status(&self, pod: &str, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api::<Pod>().patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The pod's container runs.
    pub async fn pod_running(&self, pod: &str) {
        let state = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        self.pod_status(pod, json!({"phase": "Running", "containerStatuses": [container_status(&state)]})).await;
    }

    /// The pod's container has ended, with these last words.
    pub async fn pod_ended(&self, pod: &str, exit_code: i32, message: &str) {
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        let state = json!({"terminated": {"exitCode": exit_code, "message": message}});
        self.pod_status(pod, json!({"phase": phase, "containerStatuses": [container_status(&state)]})).await;
    }

    /// Kubelet lets go of a pod that is being deleted; its finalizers still hold it.
    pub async fn pod_gone(&self, pod: &Pod) {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default().grace_period(0)
        };
        self.api::<Pod>().delete(pod.metadata.name.as_deref().unwrap(), &parameters).await.unwrap();
    }
}

fn container_status(state: &Value) -> Value {
    json!({"name": "sync", "image": "none", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

/// A merge patch of a MailboxSync's status.
pub async fn patch_status(
    client: &Client,
    namespace: &str,
    name: &str,
    status: Value,
) -> Result<MailboxSync, kube::Error> {
    let api = Api::<MailboxSync>::namespaced(client.clone(), namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await
}

/// What the API server said when it refused: HTTP status and message.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result.expect_err("refused") {
        kube::Error::Api(status) => (status.code, status.message),
        other => panic!("not a refusal: {other}"),
    }
}

/// An object as it comes back from the API server.
pub fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}
