//! A real Kubernetes: etcd, the API server and its controllers on an address of their own, ready in seconds.
//!
//! Without a node a test plays the kubelet, by patching a pod's status; [`TestNode`] adds a real one. `scripts/kubernetes.sh` says which programs
//! these are, and builds them at first.

mod image;
pub mod node;
mod objects;
mod permissions;
mod pki;
mod process;

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{Client, Config, config::AuthInfo};
use rustls::pki_types::{CertificateDer, pem::PemObject};

pub use image::ContainerImage;
pub use node::TestNode;
pub use objects::{apply, documents, namespace, wait_for, wait_within};
pub use permissions::{ApiResource, OPERATOR_PERMISSIONS, UserPermissions};
pub use process::ChildProcess;

use crate::{eventually, pki::TlsIdentity};
use pki::ClusterPki;

/// The Service `kubernetes`, by which pods reach the API server.
const SERVICE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 214, 0, 1));
/// Addresses of Services.
const SERVICE_RANGE: &str = "10.214.0.0/16";
/// What API server and tokens agree on.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A cluster's control plane; ends when dropped, and with this process however that ends.
pub struct ControlPlane {
    // Fields end in this order.
    controllers: Mutex<Vec<ChildProcess>>,
    api_server: Mutex<Option<ChildProcess>>,
    etcd: ChildProcess,
    api_flags: Vec<String>,
    url: String,
    pki: ClusterPki,
    folder: PathBuf,
}

/// How a control plane is set up.
#[derive(Debug, Clone, Default)]
pub struct ControlPlaneOptions {
    /// Where the API server listens; a loopback address of its own otherwise.
    pub address: Option<IpAddr>,
    /// More flags for the API server.
    pub api_flags: Vec<String>,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("url", &self.url).finish_non_exhaustive()
    }
}

/// One control plane for the whole process, started on first use. Tests take a namespace each; whoever stops or breaks
/// it starts one of its own.
pub fn shared_control_plane() -> &'static ControlPlane {
    static SHARED: OnceLock<ControlPlane> = OnceLock::new();
    SHARED.get_or_init(|| blocking(ControlPlane::start))
}

/// Waits for something asynchronous, from inside of another runtime too.
pub fn blocking<T: Send, F: Future<Output = T>>(work: impl FnOnce() -> F + Send) -> T {
    thread::scope(|scope| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        scope.spawn(move || runtime().block_on(work())).join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

impl ControlPlane {
    /// Starts one on loopback and waits until it is ready.
    pub async fn start() -> Self {
        Self::start_with(ControlPlaneOptions::default()).await
    }

    /// Starts one and waits until it is ready.
    pub async fn start_with(options: ControlPlaneOptions) -> Self {
        let folder =
            tempfile::Builder::new().prefix("mailferry-kubernetes-").tempdir().expect("temporary folder").keep();
        let own = loopback();
        let address = options.address.unwrap_or(own);
        let pki = ClusterPki::generate(&folder, address);
        let (client, peer) = (format!("http://{own}:2379"), format!("http://{own}:2380"));
        let etcd = ChildProcess::start_with_end(
            &program("etcd").expect("etcd"),
            [
                format!("--data-dir={}", folder.join("etcd").display()),
                "--unsafe-no-fsync".into(),
                // The benchmark keeps ten thousand checkpoints.
                "--quota-backend-bytes=8589934592".into(),
                "--log-level=warn".into(),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ],
            &folder,
            &format!("sleep 1; rm -rf '{}'", folder.display()),
        );
        let mut api_flags = api_flags(&folder, address, &client);
        api_flags.extend(options.api_flags);
        let url = format!("https://{address}:6443");
        let plane =
            Self { controllers: Mutex::default(), api_server: Mutex::default(), etcd, api_flags, url, pki, folder };
        plane.write_kubeconfig("admin.kubeconfig", &plane.pki.admin.clone());
        plane.start_api_server().await;
        plane
    }

    /// The API server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// An administrator's settings.
    #[must_use]
    pub fn config(&self) -> Config {
        let admin = &self.pki.admin;
        self.config_of(AuthInfo {
            client_certificate_data: Some(STANDARD.encode(&admin.cert)),
            client_key_data: Some(STANDARD.encode(&admin.key).into()),
            ..AuthInfo::default()
        })
    }

    /// An administrator. A client lives as long as the runtime it was made in: each test makes its own.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::try_from(self.config()).expect("client")
    }

    /// The settings of whoever holds a token.
    #[must_use]
    pub fn config_with_token(&self, token: &str) -> Config {
        self.config_of(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() })
    }

    /// Whoever holds a token.
    #[must_use]
    pub fn client_with_token(&self, token: &str) -> Client {
        Client::try_from(self.config_with_token(token)).expect("client")
    }

    fn config_of(&self, auth_info: AuthInfo) -> Config {
        let mut config = Config::new(self.url.parse().expect("URL"));
        let ca = CertificateDer::from_pem_slice(self.pki.ca.as_bytes()).expect("CA PEM");
        config.root_cert = Some(vec![ca.to_vec()]);
        config.auth_info = auth_info;
        config
    }

    /// Starts the API server again, with all that it knew, and waits until it is ready.
    pub async fn start_api_server(&self) {
        let process =
            ChildProcess::start(&program("kube-apiserver").expect("API server"), &self.api_flags, &self.folder);
        *self.api_server.lock().expect("API server") = Some(process);
        let mut config = self.config();
        config.default_retry = false;
        let client = Client::try_from(config).expect("client");
        let ready = || http::Request::get("/readyz").body(Vec::new()).expect("request");
        eventually("the API server is ready", async || {
            if let Some(process) = self.api_server.lock().expect("API server").as_mut() {
                process.assert_running();
            }
            let answer = client.request_text(ready()).await;
            answer.map_err(|error| format!("{error}\n{}", self.etcd.log_tail()))
        })
        .await;
    }

    /// Kills the API server; etcd keeps what it knew.
    pub fn stop_api_server(&self) {
        self.api_server.lock().expect("API server").take();
    }

    /// Stops the API server in its tracks: it keeps its connections and answers nothing.
    pub fn pause_api_server(&self) {
        self.signal_api_server("STOP");
    }

    /// Lets a paused API server go on.
    pub fn resume_api_server(&self) {
        self.signal_api_server("CONT");
    }

    fn signal_api_server(&self, signal: &str) {
        self.api_server.lock().expect("API server").as_ref().expect("it runs").signal(signal);
    }

    /// Starts some of Kubernetes' own controllers, such as `garbage-collector-controller`. Best after the
    /// CustomResourceDefinitions: the garbage collector looks for new kinds only every half minute. False where
    /// `KUBEBUILDER_ASSETS` has no kube-controller-manager.
    pub fn start_controllers(&self, controllers: &[&str]) -> bool {
        let Some(manager) = program("kube-controller-manager") else { return false };
        let file = |name: &str| self.folder.join(name).display().to_string();
        let kubeconfig = self.kubeconfig_of("controllers", ("", "system:kube-controller-manager"));
        let kubeconfig = kubeconfig.display();
        let flags = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!("--controllers={}", controllers.join(",")),
            format!("--service-account-private-key-file={}", file("service-accounts.key")),
            format!("--root-ca-file={}", file("ca.crt")),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--use-service-account-credentials".into(),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
        ];
        self.controllers.lock().expect("controllers").push(ChildProcess::start(&manager, flags, &self.folder));
        true
    }

    /// Starts the scheduler.
    fn start_scheduler(&self) {
        let kubeconfig = self.kubeconfig_of("scheduler", ("", "system:kube-scheduler"));
        let kubeconfig = kubeconfig.display();
        let flags = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
        ];
        let scheduler = program("kube-scheduler").expect("kube-scheduler");
        self.controllers.lock().expect("controllers").push(ChildProcess::start(&scheduler, flags, &self.folder));
    }

    /// A kubeconfig of (group, user).
    fn kubeconfig_of(&self, name: &str, subject: (&str, &str)) -> PathBuf {
        self.write_kubeconfig(&format!("{name}.kubeconfig"), &self.pki.client(subject))
    }

    /// Writes a kubeconfig for whoever a certificate names.
    fn write_kubeconfig(&self, name: &str, identity: &TlsIdentity) -> PathBuf {
        let [ca, cert, key] = [&self.pki.ca, &identity.cert, &identity.key].map(|pem| STANDARD.encode(pem));
        let path = self.folder.join(name);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: tests\n\
             clusters: [{{name: tests, cluster: {{server: \"{}\", certificate-authority-data: {ca}}}}}]\n\
             users: [{{name: tests, user: {{client-certificate-data: {cert}, client-key-data: {key}}}}}]\n\
             contexts: [{{name: tests, context: {{cluster: tests, user: tests}}}}]\n",
            self.url
        );
        fs::write(&path, text).expect("write");
        path
    }
}

fn api_flags(folder: &Path, address: IpAddr, etcd: &str) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers={etcd}"),
        format!("--bind-address={address}"),
        "--secure-port=6443".into(),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", file("apiserver-kubelet.key")),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
    ];
    if address.is_loopback() {
        // A Service can't lead to loopback; nobody is there who would use it.
        flags.extend(["--advertise-address=192.0.2.1".into(), "--endpoint-reconciler-type=none".into()]);
    }
    flags
}

/// One of Kubernetes' programs, if it is there.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kubernetes.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("scripts/kubernetes.sh");
        assert!(output.status.success(), "there is no Kubernetes to test against: scripts/kubernetes.sh says why");
        PathBuf::from(String::from_utf8(output.stdout).expect("path").trim())
    });
    Some(folder.join(name)).filter(|program| program.exists())
}

/// A loopback address that nobody uses: its ports are ours, and stay so while a program is stopped.
fn loopback() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    for _ in 0..64 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()[3] % 64;
        let address = Ipv4Addr::new(127, 64 + number, high, low);
        if [2379, 2380, 6443].iter().all(|port| TcpListener::bind((address, *port)).is_ok()) {
            return address.into();
        }
    }
    panic!("found no free loopback address");
}
