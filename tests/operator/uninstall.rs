//! `mailferry uninstall` against a real API server: with an operator, and where none is left.

use std::{process::Command, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use mailferry::{
    api::{MailMigration, MailboxSync},
    controller::uninstall::{
        UninstallOptions, UninstallStep,
        leftover::{Leftover, ObjectKind, ObjectName},
        uninstall,
    },
};
use mailferry_testkit::eventually::PATIENCE;
use serde_json::json;

use crate::stage::{Ending, Stage};

/// In this namespace only, for as long as a test has patience.
fn options(stage: &Stage) -> UninstallOptions {
    UninstallOptions {
        namespaces: vec![stage.rig.namespace.clone()],
        lease: (stage.rig.namespace.clone(), "mailferry-controller".to_owned()),
        delete_migrations: false,
        dry_run: false,
        timeout: PATIENCE,
    }
}

/// The steps, and what is left.
async fn run(stage: &Stage, options: &UninstallOptions) -> (Vec<(UninstallStep, ObjectKind, String)>, Vec<Leftover>) {
    let mut steps = Vec::new();
    let mut listener = |step: UninstallStep, object: &ObjectName| steps.push((step, object.kind, object.name.clone()));
    let left = uninstall(stage.rig.client.clone(), options, &mut listener).await.unwrap();
    (steps, left)
}

/// The finalizers of a mailbox's pod.
async fn pod_finalizers(stage: &Stage, pod: &Pod) -> Vec<String> {
    stage.api::<Pod>().get(&pod.name_any()).await.unwrap().finalizers().to_vec()
}

#[tokio::test]
async fn without_an_operator_pods_stop_at_their_checkpoints_and_what_is_deleted_goes() {
    let mut stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    let pod = stage.running(&alice, 1).await;
    stage.kill().await;
    let would = UninstallOptions { dry_run: true, ..options(&stage) };
    let (steps, left) = run(&stage, &would).await;
    let expected = [
        (UninstallStep::Suspend, ObjectKind::MailMigration, "acme".to_owned()),
        (UninstallStep::Stop, ObjectKind::Pod, pod.name_any()),
    ];
    assert_eq!((&steps[..], left.len()), (&expected[..], 2));
    let untouched = stage.api::<Pod>().get(&pod.name_any()).await.unwrap();
    assert!(untouched.metadata.deletion_timestamp.is_none(), "it was a dry run");

    let all = options(&stage);
    let ((steps, left), ()) = tokio::join!(run(&stage, &all), stage.stops(&alice, 1));
    assert_eq!(left, []);
    let settled = [
        (UninstallStep::Settle, ObjectKind::MailboxSync, alice.clone()),
        (UninstallStep::Release, ObjectKind::Pod, pod.name_any()),
    ];
    assert_eq!(steps, [expected, settled].concat());
    assert_eq!(pod_finalizers(&stage, &pod).await, [""; 0]);
    let status = stage.until_phase(&alice, "Suspended").await;
    assert!(status.slots.is_none() && status.worker.unwrap().progress.unwrap().messages_done == 10);
    assert_eq!(run(&stage, &all).await, (Vec::new(), Vec::new()), "there is nothing left to do");

    // Its owner is deleted, and no operator is left to see to it.
    stage.api::<MailMigration>().delete("acme", &DeleteParams::default()).await.unwrap();
    stage.until::<MailboxSync>(&alice, |sync| sync.metadata.deletion_timestamp.is_some()).await;
    let kubeconfig = stage.rig.plane.kubeconfig();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailferry"));
    command.args(["uninstall", "--timeout", "1m", "--namespace", &stage.rig.namespace, "--kubeconfig"]).arg(kubeconfig);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success()
            && said.contains(&format!("released      MailboxSync {}/{alice}\n", stage.rig.namespace)),
        "{said}"
    );
    stage.until_gone::<MailboxSync>(&alice).await;
}

#[tokio::test]
async fn a_pod_that_nobody_saw_end_is_named_and_left_until_its_end_is_certain() {
    let mut stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    let pod = stage.running(&alice, 1).await;
    stage.kill().await;
    // By force: it may still run, and write to both servers.
    stage.rig.pod_gone(&pod).await;
    let now = UninstallOptions { timeout: Duration::ZERO, ..options(&stage) };
    let (_, left) = run(&stage, &now).await;
    let names: Vec<_> = left.iter().map(|one| (one.object.kind, one.object.name.clone())).collect();
    assert_eq!(names, [(ObjectKind::Pod, pod.name_any()), (ObjectKind::MailboxSync, alice.clone())]);
    let why = &left[0].why;
    assert!(why.contains("has not said that it ended") && why.contains("node.kubernetes.io/out-of-service"), "{why}");
    assert_eq!(pod_finalizers(&stage, &pod).await, ["mailferry.io/certain-end"]);

    // `running` puts it on the node of this name.
    stage.rig.node_out_of_service(&stage.rig.namespace).await;
    let (steps, left) = run(&stage, &options(&stage)).await;
    assert_eq!(left, []);
    assert!(steps.contains(&(UninstallStep::Release, ObjectKind::Pod, pod.name_any())), "{steps:?}");
    stage.until_gone::<Pod>(&pod.name_any()).await;
    stage.until_phase(&alice, "Suspended").await;
}

#[tokio::test]
async fn a_pod_whose_mailbox_is_gone_is_let_go_of_once_it_has_ended() {
    let mut stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    let pod = stage.running(&alice, 1).await;
    stage.kill().await;
    let syncs = stage.api::<MailboxSync>();
    let unheld = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    syncs.patch(&alice, &PatchParams::default(), &unheld).await.unwrap();
    syncs.delete(&alice, &DeleteParams::default()).await.unwrap();
    stage.until_gone::<MailboxSync>(&alice).await;
    let now = UninstallOptions { timeout: Duration::ZERO, ..options(&stage) };
    let (_, left) = run(&stage, &now).await;
    assert!(left.len() == 1 && left[0].why.starts_with("its MailboxSync is gone, and "), "{left:?}");
    stage.rig.pod_ended(&pod.name_any(), 1, "").await;
    assert_eq!(run(&stage, &now).await.1, []);
    assert_eq!(pod_finalizers(&stage, &pod).await, [""; 0]);
}

#[tokio::test]
async fn beside_an_operator_everything_goes_with_its_migrations() {
    let stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    let _player = stage.play(|_, _| Ending::Runs);
    stage.migration("acme", &["alice", "bob"], json!({})).await;
    stage
        .until::<MailMigration>("acme", |migration| {
            migration.status.as_ref().and_then(|status| status.mailboxes).is_some_and(|counts| counts.running == 2)
        })
        .await;
    let with_migrations = UninstallOptions { delete_migrations: true, ..options(&stage) };
    let (steps, left) = run(&stage, &with_migrations).await;
    assert_eq!(left, []);
    assert!(steps.contains(&(UninstallStep::Delete, ObjectKind::MailMigration, "acme".to_owned())), "{steps:?}");
    stage.until_gone::<MailMigration>("acme").await;
    stage.until_gone::<MailboxSync>(&alice).await;
}

#[tokio::test]
async fn while_an_operator_leads_it_is_left_to_do_its_work() {
    let mut stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    let pod = stage.running(&alice, 1).await;
    stage.kill().await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "mailferry-controller"},
        "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    stage.rig.apply(&lease.to_string()).await;
    let now = UninstallOptions { timeout: Duration::ZERO, ..options(&stage) };
    let (steps, left) = run(&stage, &now).await;
    assert_eq!(steps, [(UninstallStep::Suspend, ObjectKind::MailMigration, "acme".to_owned())]);
    assert!(left.len() == 1 && left[0].why.contains("the operator somebody leads"), "{left:?}");
    let untouched = stage.api::<Pod>().get(&pod.name_any()).await.unwrap();
    assert!(untouched.metadata.deletion_timestamp.is_none());
}
