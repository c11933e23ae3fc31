//! SIGKILL at random points of a real `mailferry run`, then an immediate rerun, while the servers may still be committing
//! what the dead process sent: nothing lost, nothing doubled.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use mailferry_testkit::{
    Corpus, CorpusMessage, FaultyProxy, SharedServer, corpus::SplitMix64, differences, dovecot::TestAccount, pki::pki,
    proxy::Direction, shared_server,
};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

/// Kill points of each kind.
const POINTS: u64 = 32;
/// So many at the same time: most of a run is waiting.
const AT_ONCE: usize = 6;

/// A manifest for one mailbox between two ports of this machine. JSON is YAML, and needs no indentation of certificates.
fn manifest(source: (u16, &TestAccount<'_>), destination: (u16, &TestAccount<'_>)) -> String {
    let server = |port: u16| json!({"server": {"host": "127.0.0.1", "port": port, "tls": {"caBundle": pki().ca}}});
    let login = |account: &TestAccount<'_>, key: &str| json!({"username": account.user, "passwordSecretRef": {"name": "mail", "key": key}});
    let migration = json!({
        "apiVersion": "mailferry.io/v1alpha1",
        "kind": "MailMigration",
        "metadata": {"name": "killed"},
        "spec": {
            "source": server(source.0),
            "destination": server(destination.0),
            "connections": 2,
            "mailboxes": [{
                "name": "alice",
                "source": login(source.1, "source"),
                "destination": login(destination.1, "destination"),
            }],
        },
    });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mail"},
        "stringData": {"source": source.1.password, "destination": destination.1.password},
    });
    format!("{migration}\n---\n{secret}\n")
}

fn start(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mailferry"))
        .args(["run", "--output", "json", "-f"])
        .arg(folder.join("migration.yaml"))
        .arg("--state")
        .arg(folder.join("state"))
        .env("XDG_STATE_HOME", folder.join("state-home"))
        .env("MAILFERRY_OUTPUT", "text")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The state is kept.
    GoOn,
    /// The state is lost with the process.
    LoseState,
    /// Mail is delivered to the same folders all the while.
    Deliver,
}

/// One mailbox, killed at one point, run again, compared.
async fn one_kill(then: Then, seed: u64, corpus: &Corpus) {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(corpus).await;
    let proxy = Arc::new(FaultyProxy::start(destination.server.tls_port(), Duration::ZERO));
    let folder = tempfile::tempdir().unwrap();
    let yaml = manifest((source.server.tls_port(), &source), (proxy.port(), &destination));
    fs::write(folder.path().join("migration.yaml"), yaml).unwrap();

    let mut random = SplitMix64(seed);
    let mut delivered = 0_usize;
    // Some die twice.
    for _ in 0..=random.below(2) {
        let limit = proxy.bytes_carried(Direction::ToServer) + 1500 + random.below(corpus.bytes());
        let mut child = start(folder.path());
        let watched = Arc::clone(&proxy);
        let mut child = tokio::task::spawn_blocking(move || {
            watched.wait_for_bytes(Direction::ToServer, limit, || child.try_wait().unwrap().is_some());
            child.kill().unwrap();
            child
        })
        .await
        .unwrap();
        if then == Then::Deliver {
            right
                .append("INBOX", &[CorpusMessage::new(format!("Subject: delivered {delivered}\r\n\r\nnew\r\n"))])
                .await;
            delivered += 1;
        }
        child.wait().unwrap();
        if then == Then::LoseState {
            fs::remove_dir_all(folder.path().join("state")).ok();
        }
    }
    let child = start(folder.path());
    if then == Then::Deliver {
        for _ in 0..5 {
            right
                .append("INBOX", &[CorpusMessage::new(format!("Subject: delivered {delivered}\r\n\r\nnew\r\n"))])
                .await;
            delivered += 1;
        }
    }
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "seed {seed}: {text}");

    let source = left.snapshot().await;
    let mut destination = right.snapshot().await;
    if let Some(inbox) = destination.get_mut("INBOX") {
        let all = inbox.messages.len();
        inbox.messages.retain(|m| source["INBOX"].messages.iter().any(|s| s.sha256 == m.sha256));
        assert_eq!(all - inbox.messages.len(), delivered, "seed {seed}: delivered mail");
    }
    let found = differences(&source, &destination);
    assert!(found.is_empty(), "seed {seed}: {found:?}\n{text}");
}

async fn many_kills(then: Then) {
    let corpus = Arc::new(Corpus::bulk(240, 3 << 20, 3, 31));
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut kills = JoinSet::new();
    for seed in 0..POINTS {
        let (corpus, gate) = (Arc::clone(&corpus), Arc::clone(&gate));
        kills.spawn(async move {
            let _turn = gate.acquire().await.unwrap();
            one_kill(then, seed + 1, &corpus).await;
        });
    }
    while let Some(kill) = kills.join_next().await {
        if let Err(error) = kill {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_goes_on_and_loses_or_doubles_nothing() {
    many_kills(Then::GoOn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_whose_state_is_lost_loses_or_doubles_nothing() {
    many_kills(Then::LoseState).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_loses_or_doubles_nothing_while_mail_is_delivered() {
    many_kills(Then::Deliver).await;
}
