//! `kubectl mailferry` against a real API server and an operator: what it shows, and what it has the operator do.

use std::{
    env, fs,
    os::unix::fs::symlink,
    process::{Command, Output},
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use mailferry::api::{MailMigration, MailboxSync};
use mailferry_testkit::{cluster::program, eventually, so};
use serde_json::json;
use tempfile::TempDir;

use crate::stage::{Ending, Stage};

/// The plugin as `make install` leaves it: links to the program.
struct Plugin {
    folder: TempDir,
    kubeconfig: String,
    namespace: String,
}

/// What the plugin said, and how it ended.
struct Said {
    out: String,
    error: String,
    code: i32,
}

impl Plugin {
    fn of(stage: &Stage) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["kubectl-mailferry", "kubectl_complete-mailferry"] {
            symlink(env!("CARGO_BIN_EXE_mailferry"), folder.path().join(name)).unwrap();
        }
        let kubeconfig = stage.rig.plane.kubeconfig().display().to_string();
        Self { folder, kubeconfig, namespace: stage.rig.namespace.clone() }
    }

    /// Runs it in the test's namespace.
    async fn says(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(self.folder.path().join("kubectl-mailferry"));
        command.args(arguments).args(["-n", &self.namespace, "--kubeconfig", &self.kubeconfig]);
        Said::new(&tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
    }
}

impl Said {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { out: text(&output.stdout), error: text(&output.stderr), code: output.status.code().unwrap() }
    }
}

#[tokio::test]
async fn the_plugin_shows_what_fails_and_has_it_tried_again() {
    let stage = Stage::new().await;
    let plugin = Plugin::of(&stage);
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    stage.migration("acme", &["alice", "bob"], json!({"parallelism": 2})).await;
    for (name, ending) in [(&alice, Ending::Synced), (&bob, Ending::Failed("Authentication"))] {
        stage.running(name, 1).await;
        stage.ends(name, 1, ending).await;
    }
    stage.until_phase(&alice, "Synced").await;
    stage.until_phase(&bob, "Stalled").await;
    stage
        .until::<MailMigration>("acme", |migration| {
            migration.status.as_ref().and_then(|status| status.mailboxes).is_some_and(|counts| counts.failing == 1)
        })
        .await;

    let status = plugin.says(&["status"]).await;
    let head = format!("{}/acme: ", stage.rig.namespace);
    assert!(
        status.out.starts_with(&head) && status.out.contains("1 of 2 mailboxes synced, 1 failing"),
        "{}",
        status.out
    );
    assert!(status.out.contains("\n  Stalled\n    bob  Authentication: it went wrong"), "{}", status.out);
    assert!(!status.out.contains("alice"), "it is done: {}", status.out);
    let each = plugin.says(&["status", "acme", "--mailboxes"]).await;
    assert!(each.out.contains("\n  Synced\n    alice  "), "{}", each.out);
    let failed = plugin.says(&["failed"]).await;
    let expected = format!("{head}1 of 2 mailboxes failing\n  Authentication: it went wrong\n    Stalled: bob\n");
    assert_eq!((failed.out, failed.code), (expected, 0));

    let retry = plugin.says(&["retry", "acme"]).await;
    assert_eq!(
        retry.out, "mailmigration/acme: every mailbox that fails is asked for another sync\n",
        "{}",
        retry.error
    );
    stage.running(&bob, 2).await;
    stage.ends(&bob, 2, Ending::Synced).await;
    stage.until_phase(&bob, "Synced").await;
    let alice_now = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert_eq!(alice_now.status.unwrap().attempt, 1, "it did not fail, and was not asked");

    // By name, one that does not fail.
    stage
        .until::<MailMigration>("acme", |migration| {
            let counts = migration.status.as_ref().and_then(|status| status.mailboxes);
            counts.is_some_and(|counts| counts.failing == 0)
                && migration.status.as_ref().unwrap().sync_request == migration.spec.sync_request
        })
        .await;
    let nobody = plugin.says(&["retry", "acme"]).await;
    assert!(nobody.out.contains("no mailbox fails"), "{}", nobody.out);
    let named = plugin.says(&["retry", "acme", "alice"]).await;
    assert_eq!((named.out.as_str(), named.code), ("mailmigration/acme: alice asked for another sync\n", 0));
    stage.running(&alice, 2).await;
    let unknown = plugin.says(&["retry", "acme", "carol"]).await;
    assert!(
        unknown.code == 2 && unknown.error.contains("the migration acme does not have a mailbox carol"),
        "{}",
        unknown.error
    );
}

#[tokio::test]
async fn the_plugin_suspends_and_resumes() {
    let stage = Stage::new().await;
    let plugin = Plugin::of(&stage);
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    stage.running(&alice, 1).await;
    stage.report(&alice, 1, 2, json!({"phase": "Copying", "progress": {"done": "42%", "rate": "12 MiB/s"}})).await;
    eventually("the report is shown", async || {
        let status = plugin.says(&["status"]).await;
        so(status.out.contains("\n  Running\n    alice  copying, 42% done, 12 MiB/s"), status.out.clone())
    })
    .await;
    let suspended = plugin.says(&["suspend", "acme"]).await;
    assert_eq!((suspended.out.as_str(), suspended.code), ("mailmigration/acme: suspended\n", 0), "{}", suspended.error);
    stage.stops(&alice, 1).await;
    stage.until_phase(&alice, "Suspended").await;
    assert_eq!(plugin.says(&["suspend", "acme"]).await.out, "mailmigration/acme: suspended already\n");
    assert_eq!(plugin.says(&["resume", "acme"]).await.out, "mailmigration/acme: resumed\n");
    stage.running(&alice, 2).await;
    let unknown = plugin.says(&["suspend", "other"]).await;
    assert!(unknown.code == 2 && unknown.error.contains("there is no MailMigration other"), "{}", unknown.error);
}

#[tokio::test]
async fn the_log_of_a_mailbox_is_that_of_its_pod_and_where_there_is_none_that_is_said() {
    let stage = Stage::new().await;
    let plugin = Plugin::of(&stage);
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({"suspend": true})).await;
    stage.until::<MailboxSync>(&alice, |sync| sync.status.is_some()).await;
    let none = plugin.says(&["logs", "alice"]).await;
    assert!(none.code == 2 && none.error.contains("the mailbox alice has had no pod yet"), "{}", none.error);
    let unknown = plugin.says(&["logs", "bob"]).await;
    assert!(unknown.error.contains("no migration has a mailbox bob"), "{}", unknown.error);
    stage.change("acme", json!({"suspend": false})).await;
    let pod = stage.running(&alice, 1).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_gone::<Pod>(&pod.name_any()).await;
    let gone = plugin.says(&["logs", "alice"]).await;
    assert!(gone.code == 2 && gone.error.contains("is gone"), "{}", gone.error);
    // Two migrations with a mailbox of this name.
    stage.migration("beta", &["alice"], json!({"suspend": true})).await;
    stage.until::<MailboxSync>(&Stage::sync("beta", "alice"), |_| true).await;
    let both = plugin.says(&["logs", "alice"]).await;
    assert!(both.error.contains("more than one migration has a mailbox alice: acme, beta"), "{}", both.error);
}

#[tokio::test]
async fn kubectl_finds_the_plugin_and_completes_it() {
    let stage = Stage::new().await;
    let plugin = Plugin::of(&stage);
    let Some(kubectl) = program("kubectl") else { return };
    let path = format!("{}:{}", plugin.folder.path().display(), env::var("PATH").unwrap_or_default());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&kubectl);
        command.args(arguments).env("PATH", &path).env("KUBECONFIG", &plugin.kubeconfig);
        Said::new(&command.output().unwrap())
    };
    let status = run(&["mailferry", "status", "--namespace", &plugin.namespace]);
    let expected =
        format!("There are no MailMigrations in the namespace {}. Those of all namespaces: -A\n", plugin.namespace);
    assert_eq!((status.out, status.code), (expected, 0), "{}", status.error);
    let completed = run(&["__complete", "mailferry", "sus"]);
    assert!(completed.out.contains("suspend"), "{} {}", completed.out, completed.error);
    assert!(fs::exists(plugin.folder.path().join("kubectl-mailferry")).unwrap());
}
