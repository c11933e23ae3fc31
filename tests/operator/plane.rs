//! The control plane itself: what the other tests rely on.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::wait::{Condition as _, conditions},
};
use mailferry::api::MailboxSync;
use mailferry_testkit::cluster::{ControlPlane, program, wait_for};
use serde_json::json;

use crate::rig::{Rig, read};

#[tokio::test]
async fn the_api_server_comes_back_with_all_that_it_knew() {
    let plane = ControlPlane::start().await;
    let client = plane.client();
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    let map = read(json!({"metadata": {"name": "kept"}, "data": {"a": "b"}}));
    let made: ConfigMap = maps.create(&PostParams::default(), &map).await.unwrap();
    plane.stop_api_server();
    assert!(maps.get("kept").await.is_err());
    plane.start_api_server().await;
    assert_eq!(maps.get("kept").await.unwrap().metadata.uid, made.metadata.uid);
}

#[tokio::test]
async fn owners_take_their_children_with_them() {
    if program("kube-controller-manager").is_none() {
        eprintln!("skipped: KUBEBUILDER_ASSETS has no kube-controller-manager");
        return;
    }
    let rig = Rig::new().await;
    let owner = rig.mailbox_sync("owner", json!({"attempt": 0})).await;
    let uid = owner.metadata.uid.unwrap();
    let reference = json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "name": "owner", "uid": uid});
    let child = read(json!({"metadata": {"name": "child", "ownerReferences": [reference]}}));
    rig.api::<ConfigMap>().create(&PostParams::default(), &child).await.unwrap();
    rig.api::<MailboxSync>().delete("owner", &DeleteParams::default()).await.unwrap();
    wait_for(&rig.api::<ConfigMap>(), "child", |found: Option<&ConfigMap>| found.is_none()).await;
}

#[tokio::test]
async fn a_namespace_ends() {
    if program("kube-controller-manager").is_none() {
        eprintln!("skipped: KUBEBUILDER_ASSETS has no kube-controller-manager");
        return;
    }
    let rig = Rig::new().await;
    let namespaces = Api::<Namespace>::all(rig.client.clone());
    namespaces.delete(&rig.namespace, &DeleteParams::default()).await.unwrap();
    wait_for(&namespaces, &rig.namespace, |found: Option<&Namespace>| found.is_none()).await;
}

#[tokio::test]
async fn a_test_can_be_a_pods_kubelet() {
    let rig = Rig::new().await;
    rig.allow_workers().await;
    let pod = rig.worker_pod("p").await;
    rig.pod_scheduled("p", "some-node").await;
    rig.pod_running("p").await;
    let pods = rig.api::<Pod>();
    assert!(conditions::is_pod_running().matches_object(Some(&pods.get("p").await.unwrap())));
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    rig.pod_ended("p", 75, "last words").await;
    let found = pods.get("p").await.unwrap();
    assert!(found.metadata.deletion_timestamp.is_some());
    let status = &found.status.unwrap().container_statuses.unwrap()[0];
    let ended = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.message.as_deref()), (75, Some("last words")));
    rig.pod_gone(&pod).await;
    assert_eq!(pods.get_opt("p").await.unwrap(), None);
}
