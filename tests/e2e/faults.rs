//! One part after the other fails while mail is copied.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::DeleteParams};
use mailferry::api::MailboxSync;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    cluster::{SYSTEM, cluster, cluster_alone},
    migration::{Migration, Setup, many_folders},
};

/// A mailbox that takes some ten seconds.
fn slow() -> Setup {
    Setup { delay: Duration::from_millis(200), mail: many_folders, ..Setup::default() }
}

/// In the middle of it.
const MIDDLE: u64 = 8 << 20;

fn attempts(syncs: &[MailboxSync]) -> i64 {
    syncs[0].status.as_ref().unwrap().attempt
}

#[tokio::test]
async fn a_worker_pod_is_deleted() {
    let Some(cluster) = cluster().await else { return };
    let migration = Migration::apply(&cluster, slow()).await;
    migration.copies(MIDDLE).await;
    let pod = migration.pod("alice").await;
    migration.pods().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    assert_eq!(attempts(&ended), 2);
}

#[tokio::test]
async fn a_worker_pod_is_deleted_by_force() {
    let Some(cluster) = cluster().await else { return };
    let migration = Migration::apply(&cluster, slow()).await;
    migration.copies(MIDDLE).await;
    let pod = migration.pod("alice").await;
    migration.pods().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    assert_eq!(attempts(&ended), 2);
}

#[tokio::test]
async fn the_operators_pod_is_deleted() {
    let Some(cluster) = cluster_alone().await else { return };
    let setup = Setup { mailboxes: vec!["al", "bob", "cleo"], spec: json!({"parallelism": 1}), ..slow() };
    let migration = Migration::apply(&cluster, setup).await;
    migration.copies(MIDDLE).await;
    let pods = Api::<Pod>::namespaced(migration.client.clone(), SYSTEM);
    for pod in cluster.operators().await {
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    assert!(ended.iter().all(|sync| sync.status.as_ref().unwrap().attempt == 1), "no sync noticed");
}

#[tokio::test]
async fn kubelet_and_containerd_are_restarted() {
    let Some(cluster) = cluster_alone().await else { return };
    let Some(node) = cluster.node() else { return };
    let migration = Migration::apply(&cluster, slow()).await;
    migration.copies(MIDDLE).await;
    node.restart_runtime().await;
    migration.completes_with_nothing_lost_and_nothing_doubled().await;
}

#[tokio::test]
async fn the_api_server_is_away_for_a_minute() {
    let Some(cluster) = cluster_alone().await else { return };
    let Some(node) = cluster.node() else { return };
    let migration = Migration::apply(&cluster, slow()).await;
    migration.copies(MIDDLE).await;
    node.plane().stop_api_server();
    sleep(Duration::from_mins(1)).await;
    node.plane().start_api_server().await;
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    assert_eq!(attempts(&ended), 1, "the sync went on meanwhile");
    cluster.operator_is_ready().await;
}

#[tokio::test]
async fn a_worker_is_cut_off_from_the_api_server_and_not_from_the_mail_servers() {
    let Some(cluster) = cluster().await else { return };
    let Some(node) = cluster.node() else { return };
    // A minute of work, and ten seconds without the API server.
    let delay = Duration::from_secs(1);
    let setup = Setup { spec: json!({"offlineGrace": "10s"}), delay, ..slow() };
    let migration = Migration::apply(&cluster, setup).await;
    migration.copies(MIDDLE / 4).await;
    let pod = migration.pod("alice").await;
    let address = pod.status.unwrap().pod_ip.unwrap().parse().unwrap();
    let cut = node.cut_off_from_api_server(address);
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    drop(cut);
    assert_eq!(attempts(&ended), 2, "it stopped by itself, and another took over");
}

#[tokio::test]
async fn a_deadline_is_too_short_for_a_slow_link() {
    let Some(cluster) = cluster().await else { return };
    let setup = Setup { spec: json!({"deadline": "30s"}), delay: Duration::from_millis(500), ..slow() };
    let migration = Migration::apply(&cluster, setup).await;
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    let failures = ended[0].status.as_ref().unwrap().failures.unwrap();
    assert!(failures.deadline_restarts > 0 && failures.sync == 0, "{failures:?}");
    assert_eq!(attempts(&ended), 1 + i64::from(failures.deadline_restarts));
}
