//! The cluster that all tests here share, with the operator in it.

use std::{
    env,
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, LogParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use mailferry_testkit::{
    cluster::{self, ContainerImage, TestNode, node::ADDRESS},
    eventually::look_for,
    so,
};
use serde_json::json;
use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::sleep,
};

/// Where the operator runs.
pub const SYSTEM: &str = "mailferry-system";
/// The chart's release there.
pub const RELEASE: &str = "mailferry";
/// What the chart calls the image.
pub const IMAGE: &str = "ghcr.io/mailferry/mailferry";
/// The version that is tested.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A cluster with the operator in it.
pub struct Cluster {
    /// Ours, where a hand can be laid on it.
    node: Option<TestNode>,
    kubeconfig: PathBuf,
    /// This machine, as pods reach it.
    pub address: Ipv4Addr,
    /// Another name of the image, in another's cluster.
    image: Option<String>,
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

/// Says that a test did not run. Past the test harness, which shows nothing of a test that passes. Where `E2E_REQUIRED`
/// is set, that fails the test.
fn skipped(why: &str) {
    let required = env::var_os("E2E_REQUIRED").is_some_and(|required| !required.is_empty());
    assert!(!required, "E2E_REQUIRED is set, and this test can't run: {why}");
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").ok();
}

impl Cluster {
    async fn start() -> Result<Self, String> {
        let cluster = if let Ok(kubeconfig) = env::var("E2E_KUBECONFIG") {
            let given = |name: &str| env::var(name).map_err(|_| format!("E2E_KUBECONFIG is set, and {name} is not"));
            let address = given("E2E_ADDRESS")?.parse().map_err(|_| "E2E_ADDRESS is no IPv4 address".to_owned())?;
            Self { node: None, kubeconfig: kubeconfig.into(), address, image: Some(given("E2E_IMAGE")?) }
        } else {
            if let Some(why) = TestNode::missing_requirement() {
                return Err(format!("this machine can't run a Kubernetes node: {why}"));
            }
            let node = TestNode::start().await;
            node.load(&image(node.folder()));
            let kubeconfig = node.plane().kubeconfig();
            Self { node: Some(node), kubeconfig, address: ADDRESS, image: None }
        };
        if let Err(why) = cluster.install(&[]) {
            panic!("{why}\n{}", cluster.operators_state().await);
        }
        Ok(cluster)
    }

    /// Installs this version's chart, or upgrades to it, as a user would, and waits until the operator is ready. Values
    /// are as for helm's `--set`.
    pub fn install(&self, values: &[&str]) -> Result<(), String> {
        self.install_chart(&Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/mailferry"), values)
    }

    /// The same of another chart.
    pub fn install_chart(&self, chart: &Path, values: &[&str]) -> Result<(), String> {
        // As strict as it can be; mail servers may be on this machine, which may be a node of the cluster.
        self.kubectl(&["apply", "--server-side", "-f", "-"], &namespace())?;
        let mut arguments = vec!["upgrade", "--install", RELEASE, chart.to_str().unwrap(), "--wait", "--timeout=3m"];
        // Another test may have applied newer definitions by kubectl.
        arguments.push("--force-conflicts");
        let allow = format!("config.addresses.allow={{{}/32}}", self.address);
        let image = self.image.as_deref().map(image_values).unwrap_or_default();
        for value in [&allow, &image].into_iter().map(String::as_str).chain(values.iter().copied()) {
            if !value.is_empty() {
                arguments.extend(["--set", value]);
            }
        }
        self.helm(&arguments).map(drop)
    }

    /// What helm says of the release.
    pub fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        let arguments = [arguments, &["--namespace", SYSTEM]].concat();
        self.run("helm", &arguments, "")
    }

    /// The release's revision that is installed.
    pub fn revision(&self) -> String {
        let status = self.helm(&["status", RELEASE, "--output", "json"]).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["version"].to_string()
    }

    /// What kubectl says.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        self.run("kubectl", arguments, input)
    }

    /// What our own program says.
    pub fn mailferry(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(env!("CARGO_BIN_EXE_mailferry"), arguments, "")
    }

    /// Runs a program against the cluster; gives what it printed, or what it complained of.
    fn run(&self, name: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let program = cluster::program(name).unwrap_or_else(|| name.into());
        // helm's own files, and not those of whoever runs the tests.
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        for part in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{part}_HOME"), home.join(part));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        if output.status.success() { Ok(out) } else { Err(format!("{name} {arguments:?}: {out}{err}")) }
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
    pub fn node(&self) -> Option<&TestNode> {
        if self.node.is_none() {
            skipped("it needs a hand on the node, and E2E_KUBECONFIG names another's");
        }
        self.node.as_ref()
    }
}

/// The image that is shipped, as `make image` left it; without `E2E_ARCHIVE` one of the debug build.
fn image(folder: &Path) -> ContainerImage {
    let name = format!("{IMAGE}:{VERSION}");
    match env::var_os("E2E_ARCHIVE") {
        Some(archive) => ContainerImage { name, archive: archive.into() },
        None => ContainerImage::of_program(&name, Path::new(env!("CARGO_BIN_EXE_mailferry")), folder),
    }
}

/// The operator's namespace, where only what has no rights may run.
fn namespace() -> String {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}}).to_string()
}

/// The chart's values for an image, by tag or by digest.
fn image_values(image: &str) -> String {
    if let Some((repository, digest)) = image.split_once('@') {
        return format!("image.repository={repository},image.digest={digest}");
    }
    let (repository, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((image, "latest"));
    format!("image.repository={repository},image.tag={tag}")
}

/// Waits until something is so; where it does not become so in time, panics with what `state` has to tell.
pub async fn until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
    state: impl AsyncFnOnce() -> String,
) {
    let found = look_for(limit, async || so(condition().await, ())).await;
    assert!(found.is_ok(), "{what}? not within {limit:?}\n{}", state().await);
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
