//! The cluster that all tests here share, with the operator in it.

use std::{
    env, fs,
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, LogParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use mailferry_testkit::cluster::{self, Image, Node, node::ADDRESS};
use serde_json::json;
use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{sleep, timeout},
};

/// Where the operator runs.
pub const SYSTEM: &str = "mailferry-system";
const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
/// Its image.
const IMAGE: &str = concat!("ghcr.io/mailferry/mailferry:", env!("CARGO_PKG_VERSION"));

/// A cluster with the operator in it.
pub struct Cluster {
    /// Ours, where a hand can be laid on it.
    node: Option<Node>,
    kubeconfig: PathBuf,
    /// This machine, as pods reach it.
    pub address: Ipv4Addr,
}

/// The cluster, shared with other tests. Without one, says why and gives nothing.
pub async fn cluster() -> Option<RwLockReadGuard<'static, Cluster>> {
    Some(lock()?.read().await)
}

/// The cluster for one test alone, which breaks what others need: it waits without a place in the queue, so that others
/// run beside each other.
pub async fn cluster_alone() -> Option<RwLockWriteGuard<'static, Cluster>> {
    let cluster = lock()?;
    loop {
        match cluster.try_write() {
            Ok(alone) => return Some(alone),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

fn lock() -> Option<&'static RwLock<Cluster>> {
    static CLUSTER: OnceLock<Result<RwLock<Cluster>, String>> = OnceLock::new();
    let started = || cluster::blocking(Cluster::start).map(RwLock::new);
    CLUSTER.get_or_init(started).as_ref().inspect_err(|why| skipped(why)).ok()
}

/// Says that a test did not run. Past the test harness, which shows nothing of a test that passes.
fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").ok();
}

impl Cluster {
    async fn start() -> Result<Self, String> {
        if let Ok(kubeconfig) = env::var("E2E_KUBECONFIG") {
            let given = |name: &str| env::var(name).map_err(|_| format!("E2E_KUBECONFIG is set, and {name} is not"));
            let address = given("E2E_ADDRESS")?.parse().map_err(|_| "E2E_ADDRESS is no IPv4 address".to_owned())?;
            let cluster = Self { node: None, kubeconfig: kubeconfig.into(), address };
            cluster.install(Some(&given("E2E_IMAGE")?)).await;
            return Ok(cluster);
        }
        if let Some(why) = Node::lacking() {
            return Err(format!("this machine can't run a Kubernetes node: {why}"));
        }
        let node = Node::start().await;
        node.load(&image(node.folder()));
        let kubeconfig = node.plane().kubeconfig();
        let cluster = Self { node: Some(node), kubeconfig, address: ADDRESS };
        cluster.install(None).await;
        Ok(cluster)
    }

    /// A kustomization on top of deploy/, as a user would write one: mail servers may be on this machine, which may be a
    /// node of the cluster, and there may be another image.
    fn overlay(&self, image: Option<&str>, folder: &Path) -> PathBuf {
        for part in ["deploy", "crds"] {
            fs::create_dir_all(folder.join(part)).unwrap();
            for file in fs::read_dir(Path::new(PROJECT).join(part)).unwrap().map(Result::unwrap) {
                fs::copy(file.path(), folder.join(part).join(file.file_name())).unwrap();
            }
        }
        let overlay = folder.join("overlay");
        fs::create_dir_all(&overlay).unwrap();
        let config = json!({"addresses": {"allow": [format!("{}/32", self.address)]}}).to_string();
        let config = json!([{"op": "replace", "path": "/data/operator.yaml", "value": config}]);
        let mut patches =
            vec![json!({"target": {"kind": "ConfigMap", "name": "mailferry"}, "patch": config.to_string()})];
        if let Some(image) = image {
            let container = "/spec/template/spec/containers/0";
            let image = json!([
                {"op": "replace", "path": format!("{container}/image"), "value": image},
                {"op": "replace", "path": format!("{container}/env/0/value"), "value": image},
            ]);
            let target = json!({"kind": "Deployment", "name": "mailferry"});
            patches.push(json!({"target": target, "patch": image.to_string()}));
        }
        let kustomization = json!({"resources": ["../deploy"], "patches": patches});
        fs::write(overlay.join("kustomization.yaml"), kustomization.to_string()).unwrap();
        overlay
    }

    /// Installs the operator as a user would, and waits until it is ready.
    async fn install(&self, image: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let kustomization = self.overlay(image, folder.path());
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", &kustomization.display().to_string()]);
        self.operator_is_ready().await;
    }

    /// Waits until the operator says that it is ready.
    pub async fn operator_is_ready(&self) {
        let deployments = Api::<Deployment>::namespaced(self.client().await, SYSTEM);
        let ready = async || {
            let found = deployments.get_opt("mailferry").await.ok().flatten();
            found.and_then(|found| found.status?.available_replicas).is_some_and(|available| available > 0)
        };
        until("the operator is ready", Duration::from_mins(2), ready, async || self.operators_state().await).await;
    }

    /// The operator's pods.
    pub async fn operators(&self) -> Vec<Pod> {
        let pods = Api::<Pod>::namespaced(self.client().await, SYSTEM);
        pods.list(&ListParams::default()).await.unwrap().items
    }

    /// What a person would look at: the operator's pods and what they logged.
    pub async fn operators_state(&self) -> String {
        describe(&Api::namespaced(self.client().await, SYSTEM)).await
    }

    /// An administrator.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
    }

    /// The node, where it is ours; says that the test is left out where not.
    pub fn node(&self) -> Option<&Node> {
        if self.node.is_none() {
            skipped("it needs a hand on the node, and E2E_KUBECONFIG names another's");
        }
        self.node.as_ref()
    }

    fn kubectl(&self, arguments: &[&str]) {
        let kubectl = cluster::program("kubectl").unwrap_or_else(|| "kubectl".into());
        let output = Command::new(kubectl).args(arguments).env("KUBECONFIG", &self.kubeconfig).output().unwrap();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The image that is shipped, as `make image` left it; without `E2E_ARCHIVE` one of the debug build.
fn image(folder: &Path) -> Image {
    match env::var_os("E2E_ARCHIVE") {
        Some(archive) => Image { name: IMAGE.to_owned(), archive: archive.into() },
        None => Image::of_program(IMAGE, Path::new(env!("CARGO_BIN_EXE_mailferry")), folder),
    }
}

/// Waits until something is so; where it does not become so in time, panics with what `state` has to tell.
pub async fn until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
    state: impl AsyncFnOnce() -> String,
) {
    let waited = timeout(limit, async {
        while !condition().await {
            sleep(Duration::from_millis(100)).await;
        }
    });
    let in_time = waited.await.is_ok();
    assert!(in_time, "{what}? not within {limit:?}\n{}", state().await);
}

/// Pods, and the end of what each logged.
pub async fn describe(pods: &Api<Pod>) -> String {
    let mut text = Vec::new();
    for pod in pods.list(&ListParams::default()).await.into_iter().flatten() {
        let name = pod.name_any();
        let parameters = LogParams { tail_lines: Some(40), ..LogParams::default() };
        let log = pods.logs(&name, &parameters).await.unwrap_or_else(|error| error.to_string());
        text.push(format!("{name}: {}\n{log}\n", json!(pod.status)));
    }
    text.concat()
}
