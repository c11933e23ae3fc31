//! MailServers on a real API server, tested against real Dovecots.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryFutureExt as _, channel::mpsc};
use k8s_openapi::{
    api::core::v1::{Event, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        Controller, WatchStreamExt as _,
        controller::{Action, Config},
        events::Recorder,
        watcher,
    },
};
use mailferry::{
    api::{MailServer, MailServerStatus},
    controller::{
        address_guard::AddressGuard,
        config::{AddressConfig, TenantPolicy},
        server::{ServerCheckTimes, ServerContext, ServerOutputs, reconcile},
    },
    telemetry::{api_calls, metrics::Metrics},
};
use mailferry_testkit::{
    Dovecot, DovecotOptions, ScriptedServer, SharedServer,
    cluster::wait_for,
    dovecot::ServerCertificate,
    eventually::{PATIENCE, eventually},
    pki::pki,
    scripted::ScriptStep,
    shared_server, so,
};
use serde_json::{Value, json};
use tokio::{net::TcpSocket, task::JoinSet, time::timeout};

use crate::rig::{Rig, read, refusal};

/// A port that nobody listens on: it takes a right to.
const CLOSED: u16 = 1;

/// The controller of MailServers in one namespace; ends when dropped.
struct Stage {
    rig: Rig,
    metrics: Metrics,
    _controller: JoinSet<()>,
}

impl Stage {
    /// A test's mail servers are on this machine.
    async fn begin(times: ServerCheckTimes) -> Self {
        let loopback = vec!["127.0.0.1/32".parse().unwrap()];
        Self::begin_with(times, AddressConfig { allow: loopback, ..AddressConfig::default() }).await
    }

    async fn begin_with(times: ServerCheckTimes, addresses: AddressConfig) -> Self {
        let rig = Rig::new().await;
        let metrics = Metrics::new().unwrap();
        let client = api_calls::client(rig.plane.config(), &metrics).unwrap();
        let mut controller = JoinSet::new();
        controller.spawn(control(client, rig.namespace.clone(), metrics.clone(), times, addresses));
        Self { rig, metrics, _controller: controller }
    }

    fn servers(&self) -> Api<MailServer> {
        self.rig.api()
    }

    /// Applies a spec, and waits until its status is about it.
    async fn tested(&self, name: &str, spec: Value) -> MailServerStatus {
        let object = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailServer", "metadata": {"name": name}, "spec": spec,
        });
        let applied =
            self.servers().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
        let generation = applied.metadata.generation;
        self.until(name, move |status| status.observed_generation == generation).await
    }

    async fn until(&self, name: &str, is: impl Fn(&MailServerStatus) -> bool) -> MailServerStatus {
        let has = |server: Option<&MailServer>| server.and_then(|s| s.status.as_ref()).is_some_and(&is);
        timeout(PATIENCE, wait_for(&self.servers(), name, has)).await.expect("soon");
        self.servers().get(name).await.unwrap().status.unwrap()
    }

    /// Writes of MailServers' statuses so far.
    fn writes(&self) -> u64 {
        let text = self.metrics.text().unwrap();
        let line = "mailferry_api_requests_total{code=\"200\",resource=\"mailservers/status\",verb=\"patch\"} ";
        text.lines().find_map(|l| l.strip_prefix(line)).map_or(0, |count| count.parse().unwrap())
    }

    /// Tests so far, of all servers.
    fn tests(&self) -> u64 {
        let text = self.metrics.text().unwrap();
        let counts = text.lines().filter(|line| line.starts_with("mailferry_server_checks_total{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

async fn control(
    client: Client,
    namespace: String,
    metrics: Metrics,
    times: ServerCheckTimes,
    addresses: AddressConfig,
) {
    let (queue, due) = mpsc::unbounded();
    let addresses = Arc::new(AddressGuard::new(addresses, TenantPolicy::default(), None));
    let servers: Api<MailServer> = Api::namespaced(client.clone(), &namespace);
    // As many connections as the host's name says.
    let connections = Box::new(|_: &str, spec: &mailferry::api::MailServerSpec| spec.host.len());
    let recorder = Recorder::new(client.clone(), "test".into());
    let context = Arc::new(
        ServerContext::new(client, addresses, queue, connections, ServerOutputs { recorder, metrics })
            .with_times(times),
    );
    Controller::new(servers, watcher::Config::default())
        .with_config(Config::default().concurrency(4))
        .reconcile_on(due)
        .run(
            |server, context| {
                let again = |wait: Option<Duration>| wait.map_or_else(Action::await_change, Action::requeue);
                Box::pin(reconcile(server, context).map_ok(again))
            },
            |_, _, _| Action::requeue(Duration::from_millis(200)),
            context,
        )
        .for_each(|_| futures::future::ready(()))
        .await;
}

impl Stage {
    /// Waits for an Event with this reason about a server; gives its type and text.
    async fn told(&self, name: &str, reason: &str) -> (String, String) {
        let events = watcher(self.rig.api::<Event>(), watcher::Config::default()).applied_objects();
        let mut events = std::pin::pin!(events);
        let about = |event: &Event| {
            event.involved_object.kind.as_deref() == Some("MailServer")
                && event.involved_object.name.as_deref() == Some(name)
                && event.reason.as_deref() == Some(reason)
        };
        let told = async {
            loop {
                let event = events.next().await.unwrap().unwrap();
                if about(&event) {
                    return (event.type_.unwrap_or_default(), event.message.unwrap_or_default());
                }
            }
        };
        timeout(PATIENCE, told).await.expect("soon")
    }
}

fn ready(status: &MailServerStatus) -> &Condition {
    status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap()
}

fn by_tls(port: u16) -> Value {
    json!({"host": "127.0.0.1", "port": port, "tls": {"caBundle": pki().ca}})
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_when_a_server_begins_to_work_and_when_it_fails() {
    let stage = Stage::begin(ServerCheckTimes::default()).await;
    stage.tested("s", by_tls(shared_server(SharedServer::Mdbox).tls_port())).await;
    assert_eq!(stage.told("s", "Connected").await, ("Normal".into(), "a connection can be made".into()));
    let status = stage.tested("s", by_tls(CLOSED)).await;
    let (kind, text) = stage.told("s", "ConnectionFailed").await;
    assert_eq!((kind.as_str(), text), ("Warning", format!("Network: {}", ready(&status).message)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_server_is_ready_with_parsed_facts() {
    let stage = Stage::begin(ServerCheckTimes::default()).await;
    let dovecot = shared_server(SharedServer::Mdbox);
    let status = stage.tested("good", by_tls(dovecot.tls_port())).await;
    let condition = ready(&status);
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "Connected"), "{status:?}");
    assert_eq!(condition.observed_generation, status.observed_generation);
    let facts = status.facts.unwrap();
    assert_eq!(facts.tls_version.as_deref(), Some("TLS 1.3"));
    assert_eq!(facts.certificate_subject.as_deref(), Some("localhost"));
    assert_eq!(facts.certificate_not_after.unwrap().0.to_string(), "2059-01-01T00:00:00Z");
    assert!(facts.mechanisms.contains(&"PLAIN".to_owned()), "{:?}", facts.mechanisms);
    assert!(facts.capabilities.contains(&"IMAP4rev1".to_owned()), "{:?}", facts.capabilities);
    assert_eq!(status.connections_in_use, Some(9));

    let in_clear =
        json!({"host": "localhost", "port": dovecot.plain_port(), "tls": {"mode": "StartTLS", "caBundle": pki().ca}});
    let status = stage.tested("starttls", in_clear).await;
    assert_eq!(ready(&status).status, "True", "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_server_from_being_ready_is_named_by_its_class() {
    let stage = Stage::begin(ServerCheckTimes::default()).await;
    let expired =
        Dovecot::start(&DovecotOptions { certificate: ServerCertificate::Expired, ..DovecotOptions::default() });
    let secret = json!({"metadata": {"name": "authority"}, "stringData": {"ca.crt": pki().ca, "not": "a certificate"}});
    stage.rig.api::<Secret>().create(&PostParams::default(), &read(secret)).await.unwrap();
    let by_secret = |name: &str, key: &str| {
        let port = shared_server(SharedServer::Mdbox).tls_port();
        json!({"host": "127.0.0.1", "port": port, "tls": {"caBundleRef": {"name": name, "key": key}}})
    };
    let goodbye = vec![ScriptStep::send("* BYE too many connections from s3cret.internal\r\n")];
    let busy = ScriptedServer::play(None, vec![goodbye]).await;
    let cases = [
        ("wrong-port", by_tls(CLOSED), "Network", "no connection to 127.0.0.1"),
        ("no-host", json!({"host": "nowhere.invalid"}), "Network", "there is no host"),
        ("expired", by_tls(expired.tls_port()), "Tls", "expired"),
        (
            "stranger",
            json!({"host": "127.0.0.1", "port": shared_server(SharedServer::Mdbox).tls_port()}),
            "Tls",
            "authority that is not trusted",
        ),
        ("busy", json!({"host": "127.0.0.1", "port": busy.port(), "tls": {"mode": "None"}}), "Throttled", "hung up"),
        ("no-secret", by_secret("nobody", "ca.crt"), "Configuration", "there is no Secret nobody"),
        ("no-key", by_secret("authority", "key"), "Configuration", "has no key key"),
        ("no-pem", by_secret("authority", "not"), "Configuration", "holds no certificate"),
        ("by-secret", by_secret("authority", "ca.crt"), "Connected", "can be made"),
    ];
    for (name, spec, reason, message) in cases {
        let status = stage.tested(name, spec).await;
        let condition = ready(&status);
        assert_eq!(condition.reason, reason, "{name}: {condition:?}");
        assert!(condition.message.contains(message), "{name}: {condition:?}");
        assert!(!condition.message.contains("s3cret"), "{name}: {condition:?}");
        assert_eq!(status.facts.is_some(), reason == "Connected", "{name}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_at_a_denied_address_is_never_connected_to() {
    // As the operator has it by default.
    let stage = Stage::begin_with(ServerCheckTimes::default(), AddressConfig::default()).await;
    let server = ScriptedServer::play(None, vec![vec![ScriptStep::Login("IMAP4rev1")]]).await;
    for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
        let spec = json!({"host": host, "port": server.port(), "tls": {"mode": "None"}});
        let status = stage.tested("inside", spec).await;
        let condition = ready(&status);
        assert_eq!(condition.reason, "Configuration", "{host}: {condition:?}");
        assert!(condition.message.contains("may not connect to"), "{host}: {condition:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_spec_is_tested_at_once_and_the_last_good_facts_stay() {
    let stage = Stage::begin(ServerCheckTimes::default()).await;
    let dovecot = shared_server(SharedServer::Mdbox);
    let good = stage.tested("server", by_tls(dovecot.tls_port())).await;
    let bad = stage.tested("server", by_tls(CLOSED)).await;
    assert_eq!((ready(&bad).status.as_str(), &bad.facts), ("False", &good.facts));
    assert!(bad.observed_generation > good.observed_generation);
    let again = stage.tested("server", by_tls(dovecot.tls_port())).await;
    assert_eq!(ready(&again).status, "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_nothing_changes() {
    let times = ServerCheckTimes {
        period: Duration::from_millis(50),
        retry: Duration::from_millis(50),
        connections: Duration::from_millis(20),
        ..ServerCheckTimes::default()
    };
    let stage = Stage::begin(times).await;
    stage.tested("good", by_tls(shared_server(SharedServer::Mdbox).tls_port())).await;
    stage.tested("bad", by_tls(CLOSED)).await;
    stage.until("good", |status| status.connections_in_use == Some(9)).await;
    stage.until("bad", |status| status.connections_in_use == Some(9)).await;
    let (writes, tests) = (stage.writes(), stage.tests());
    eventually("tests go on", async || {
        let more = stage.tests() - tests;
        so(more >= 20, format!("{more} more"))
    })
    .await;
    assert_eq!(stage.writes(), writes);
    assert!(writes <= 4, "{writes} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_seen_without_a_change_of_its_spec() {
    let times = ServerCheckTimes {
        period: Duration::from_millis(50),
        retry: Duration::from_millis(50),
        ..ServerCheckTimes::default()
    };
    let stage = Stage::begin(times).await;
    // Taken, and closed until it listens.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let spec = json!({"host": "127.0.0.1", "port": port, "tls": {"mode": "None"}});
    assert_eq!(ready(&stage.tested("server", spec).await).reason, "Network");
    let server = ScriptedServer::serve_on(socket.listen(64).unwrap(), None, |mut conn, _| async move {
        conn.login("IMAP4rev1 AUTH=PLAIN").await
    });
    stage.until("server", |status| ready(status).status == "True").await;
    assert!(
        server
            .received_commands()
            .iter()
            .all(|command| !command.contains("AUTHENTICATE") && !command.contains("LOGIN"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_rights_are_enough() {
    let rig = Rig::new().await;
    let operator = rig.operator().await;
    let servers: Api<MailServer> = Api::namespaced(operator.clone(), &rig.namespace);
    let spec = json!({"metadata": {"name": "server"}, "spec": by_tls(1)});
    rig.api::<MailServer>().create(&PostParams::default(), &read(spec)).await.unwrap();
    let status = Patch::Merge(json!({"status": {"connectionsInUse": 1}}));
    servers.patch_status("server", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(servers.get("server").await.unwrap().name_any(), "server");
    assert_eq!(Api::<Secret>::namespaced(operator.clone(), &rig.namespace).get_opt("none").await.unwrap(), None);
    let list = Api::<Secret>::namespaced(operator, &rig.namespace).list(&kube::api::ListParams::default()).await;
    assert_eq!(refusal(list).0, 403);
}
