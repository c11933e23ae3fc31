//! A real node beside the control plane: containerd, kubelet, kube-proxy, scheduler and all controllers, on a bridge that
//! nothing else is on. Pods reach this machine at [`ADDRESS`], and nothing further.
//!
//! One at a time on a machine: another run's node is waited for.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use k8s_openapi::{
    api::core::v1::{Node as NodeObject, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::Api;
use rcgen::{ExtendedKeyUsagePurpose as Usage, SanType};

use super::{ChildProcess, ContainerImage, ControlPlane, ControlPlaneOptions, objects::wait_for, pki::name, program};
use crate::{eventually, so};

/// The node, and this machine as pods see it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
/// Addresses of pods, the node's included.
const POD_RANGE: &str = "10.213.0.0/16";
/// The node's name.
const NAME: &str = "mailferry-node";
/// Short, because the paths of sockets must be; node-down.sh knows it too.
const STATE: &str = "/run/mailferry-node";
const PAUSE: &str = "localhost/pause:1";
/// What Debian has; scripts/install.sh installs it.
const PROGRAMS: [&str; 7] = ["buildah", "containerd", "runc", "ip", "nft", "gcc", "mount"];
const PLUGINS: &str = "/usr/lib/cni";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A cluster of one node; ends when dropped, and with this process however that ends.
#[derive(Debug)]
pub struct TestNode {
    // Fields end in this order; the lock is last.
    runtime: Mutex<Option<(ChildProcess, ChildProcess)>>,
    proxy: Mutex<Option<ChildProcess>>,
    plane: ControlPlane,
    folder: PathBuf,
    _remains: ChildProcess,
    _down: NodeTeardown,
    _lock: File,
}

/// Runs node-down.sh when everything before it has ended.
#[derive(Debug)]
struct NodeTeardown;

impl Drop for NodeTeardown {
    fn drop(&mut self) {
        node_down();
    }
}

impl TestNode {
    /// Why this machine can't run a node, if so.
    #[must_use]
    pub fn missing_requirement() -> Option<String> {
        let output =
            |program: &str, arguments: &[&str]| Command::new(program).args(arguments).env("PATH", PATH).output();
        if output("id", &["-u"]).is_ok_and(|output| output.stdout != b"0\n") {
            return Some("it takes root".into());
        }
        let there = |program: &&str| PATH.split(':').any(|folder| Path::new(folder).join(program).exists());
        if let Some(program) = PROGRAMS.iter().find(|program| !there(program)) {
            return Some(format!("{program} is missing: scripts/install.sh installs it"));
        }
        if !Path::new(PLUGINS).join("bridge").exists() {
            return Some("containernetworking-plugins is missing: scripts/install.sh installs it".into());
        }
        if program("kubelet").is_none() {
            return Some("KUBEBUILDER_ASSETS has no kubelet".into());
        }
        let probe = ["link", "add", "mailferry-probe", "type", "bridge"];
        match output("ip", &probe) {
            Ok(made) if made.status.success() => {
                output("ip", &["link", "delete", "mailferry-probe"]).ok();
                None
            }
            Ok(refused) => Some(format!("no bridge can be made: {}", String::from_utf8_lossy(&refused.stderr).trim())),
            Err(error) => Some(format!("ip: {error}")),
        }
    }

    /// Starts a cluster and waits until its node is ready for pods.
    pub async fn start() -> Self {
        let lock = File::create("/run/mailferry-node.lock").expect("lock file");
        if lock.try_lock().is_err() {
            // Past the test harness, which shows it only when a test has failed.
            writeln!(std::io::stderr(), "another run has a node on this machine: waiting for its end").ok();
            lock.lock().expect("lock");
        }
        node_down();
        let down = NodeTeardown;
        let folder = tempfile::Builder::new().prefix("mailferry-node-").tempdir().expect("temporary folder").keep();
        fs::create_dir_all(STATE).expect("folder");
        let forwards = fs::read("/proc/sys/net/ipv4/ip_forward").expect("ip_forward");
        fs::write(format!("{STATE}/ip_forward"), forwards).expect("write");
        let script = folder.join("node-down.sh");
        fs::write(&script, NODE_DOWN).expect("write");
        // Where this process is killed, the lock is let go and this is what still happens.
        let end =
            format!("script=$(cat '{}'); sleep 1; flock /run/mailferry-node.lock sh -c \"$script\"", script.display());
        let remains = ChildProcess::start_with_end(Path::new("/bin/sleep"), ["infinity"], &folder, &end);

        run("ip", &["link", "add", "mailferry0", "type", "bridge"]);
        run("ip", &["address", "add", &format!("{ADDRESS}/16"), "dev", "mailferry0"]);
        run("ip", &["link", "set", "mailferry0", "up"]);
        let options = ControlPlaneOptions { address: Some(IpAddr::V4(ADDRESS)), ..ControlPlaneOptions::default() };
        let plane = ControlPlane::start_with(options).await;
        write_settings(&plane, &folder);
        let node = Self {
            runtime: Mutex::default(),
            proxy: Mutex::default(),
            plane,
            folder,
            _remains: remains,
            _down: down,
            _lock: lock,
        };
        node.plane.start_controllers(&["*"]);
        node.plane.start_scheduler();
        node.start_runtime().await;
        node.load(&ContainerImage::pause(PAUSE, &node.folder));
        let kubeconfig = node.plane.kubeconfig_of("proxy", ("", "system:kube-proxy"));
        let proxy = ChildProcess::start(
            &program("kube-proxy").expect("kube-proxy"),
            [
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--hostname-override={NAME}"),
                format!("--cluster-cidr={POD_RANGE}"),
                format!("--bind-address={ADDRESS}"),
                format!("--healthz-bind-address={ADDRESS}:10256"),
                format!("--metrics-bind-address={ADDRESS}:10249"),
                format!("--nodeport-addresses={ADDRESS}/32"),
                "--proxy-mode=nftables".into(),
            ],
            &node.folder,
        );
        *node.proxy.lock().expect("proxy") = Some(proxy);
        let nodes = Api::<NodeObject>::all(node.plane.client());
        wait_for(&nodes, NAME, |node: Option<&NodeObject>| ready_since(node).is_some()).await;
        let accounts = Api::<ServiceAccount>::namespaced(node.plane.client(), "default");
        wait_for(&accounts, "default", |found: Option<&ServiceAccount>| found.is_some()).await;
        node
    }

    /// Its control plane.
    #[must_use]
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Where it keeps its files, until it ends.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives it an image, under the name that a pod may call it.
    pub fn load(&self, image: &ContainerImage) {
        let socket = format!("{STATE}/containerd.sock");
        let archive = image.archive.display().to_string();
        let ctr = ["-a", &socket, "-n", "k8s.io", "images"];
        run("ctr", &[&ctr[..], &["import", &archive]].concat());
        if !image.name.contains('/') {
            // What a container runtime makes of a name without a registry.
            self.tag(&image.name, &format!("docker.io/library/{}", image.name));
        }
    }

    /// Gives an image that it has another name, too.
    pub fn tag(&self, name: &str, other: &str) {
        let socket = format!("{STATE}/containerd.sock");
        run("ctr", &["-a", &socket, "-n", "k8s.io", "images", "tag", "--force", name, other]);
    }

    /// Kills kubelet and containerd and starts them again; containers go on meanwhile.
    pub async fn restart_runtime(&self) {
        let before = self.heartbeat().await;
        self.runtime.lock().expect("runtime").take();
        self.start_runtime().await;
        let nodes = Api::<NodeObject>::all(self.plane.client());
        wait_for(&nodes, NAME, |node: Option<&NodeObject>| ready_since(node) > before).await;
    }

    async fn heartbeat(&self) -> Option<Time> {
        ready_since(Api::<NodeObject>::all(self.plane.client()).get_opt(NAME).await.expect("node").as_ref())
    }

    /// Lets nothing through from a pod to the API server, until the result is dropped.
    #[must_use]
    pub fn cut_off_from_api_server(&self, pod: IpAddr) -> ApiServerCutoff {
        run("nft", &["add table ip mailferry-test"]);
        run("nft", &["add chain ip mailferry-test input { type filter hook input priority 0 ; }"]);
        run("nft", &[&format!("add rule ip mailferry-test input ip saddr {pod} tcp dport 6443 drop")]);
        ApiServerCutoff(())
    }

    async fn start_runtime(&self) {
        let containerd = ChildProcess::start(
            Path::new("/usr/bin/containerd"),
            ["--config".into(), self.folder.join("containerd.toml").display().to_string()],
            &self.folder,
        );
        let socket = format!("{STATE}/containerd.sock");
        eventually("containerd answers", async || so(answers(&socket), containerd.log_tail())).await;
        let kubelet = ChildProcess::start(
            &program("kubelet").expect("kubelet"),
            [
                format!("--config={}", self.folder.join("kubelet.yaml").display()),
                format!("--kubeconfig={}", self.folder.join("kubelet.kubeconfig").display()),
                format!("--root-dir={}", self.folder.join("kubelet").display()),
                format!("--cert-dir={}", self.folder.join("kubelet-pki").display()),
                format!("--hostname-override={NAME}"),
                format!("--node-ip={ADDRESS}"),
            ],
            &self.folder,
        );
        *self.runtime.lock().expect("runtime") = Some((kubelet, containerd));
    }
}

/// When kubelet last said that the node is ready.
fn ready_since(node: Option<&NodeObject>) -> Option<Time> {
    let conditions = node?.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.last_heartbeat_time.clone()
}

/// A pod that can't reach the API server, while this lives.
#[derive(Debug)]
pub struct ApiServerCutoff(());

impl Drop for ApiServerCutoff {
    fn drop(&mut self) {
        run("nft", &["delete table ip mailferry-test"]);
    }
}

const NODE_DOWN: &str = include_str!("node-down.sh");

fn node_down() {
    let output = Command::new("sh").args(["-c", NODE_DOWN]).env("PATH", PATH).output().expect("sh");
    drop(output);
}

/// containerd's socket takes connections.
fn answers(socket: &str) -> bool {
    let output = Command::new("ctr").args(["-a", socket, "version"]).env("PATH", PATH).output();
    output.is_ok_and(|output| output.status.success())
}

fn write_settings(plane: &ControlPlane, folder: &Path) {
    let addresses = [SanType::IpAddress(IpAddr::V4(ADDRESS)), name(NAME)];
    plane.pki.write(folder, "kubelet", ("", NAME), Usage::ServerAuth, &addresses);
    let kubeconfig = plane.kubeconfig_of("kubelet", ("system:nodes", &format!("system:node:{NAME}")));
    fs::copy(kubeconfig, folder.join("kubelet.kubeconfig")).expect("copy");
    let authority = plane.folder.join("ca.crt").display().to_string();
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("write");
    let folder = folder.display();
    // Nobody answers: tests give addresses instead of names.
    write("resolv.conf", format!("nameserver {ADDRESS}\n"));
    fs::create_dir_all(format!("{folder}/cni")).expect("folder");
    write(
        "cni/10-mailferry.conflist",
        format!(
            r#"{{"cniVersion": "1.0.0", "name": "mailferry", "plugins": [{{
                "type": "bridge", "bridge": "mailferry0", "isGateway": true, "hairpinMode": true,
                "ipam": {{
                    "type": "host-local", "dataDir": "{STATE}/addresses", "routes": [{{"dst": "0.0.0.0/0"}}],
                    "ranges": [[{{"subnet": "{POD_RANGE}", "rangeStart": "10.213.1.1", "gateway": "{ADDRESS}"}}]]
                }}
            }}]}}"#
        ),
    );
    // restrict_oom_score_adj: in a container, runc may not lower the score.
    write(
        "containerd.toml",
        format!(
            r#"version = 2
root = "{folder}/containerd"
state = "{STATE}"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{STATE}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{PLUGINS}"
  conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = false
"#
        ),
    );
    // Images come from nowhere but us, so none is thrown away; iptables of this machine stay as they are.
    write(
        "kubelet.yaml",
        format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {ADDRESS}
healthzBindAddress: {ADDRESS}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {authority}}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {folder}/kubelet.crt
tlsPrivateKeyFile: {folder}/kubelet.key
containerRuntimeEndpoint: unix://{STATE}/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: ["{ADDRESS}"]
resolvConf: {folder}/resolv.conf
podLogsDir: {folder}/pod-logs
volumePluginDir: {folder}/volume-plugins
makeIPTablesUtilChains: false
maxPods: 250
serializeImagePulls: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: 100Mi, nodefs.available: 1Gi, imagefs.available: 1Gi}}
nodeStatusUpdateFrequency: 5s
kubeAPIQPS: 100
kubeAPIBurst: 200
"#
        ),
    );
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).env("PATH", PATH).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}
