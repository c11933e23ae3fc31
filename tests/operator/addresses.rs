//! The cluster's own networks, where no mail server may be.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    networking::v1::ServiceCIDR,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use mailferry::{
    api::{MailServer, names},
    controller::{
        address_guard::AddressGuard,
        config::{AddressConfig, TenantPolicy},
    },
};
use mailferry_testkit::cluster::wait_for;
use serde_json::json;

use crate::{
    rig::{Rig, read},
    stage::Stage,
};

/// What the API server keeps for Services.
const SERVICE_RANGE: &str = "10.214.0.0/16";

/// A node with these addresses for its pods, and this one of its own.
async fn node(rig: &Rig, name: &str, pods: &str, own: &str) {
    let nodes = Api::<Node>::all(rig.client.clone());
    let node = json!({"metadata": {"name": name}, "spec": {"podCIDR": pods, "podCIDRs": [pods]}});
    nodes.create(&PostParams::default(), &read(node)).await.unwrap();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": own}]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    // The API server makes it itself, soon after it started.
    let services = Api::<ServiceCIDR>::all(rig.client.clone());
    wait_for(&services, "kubernetes", |found: Option<&ServiceCIDR>| found.is_some()).await;
}

#[tokio::test]
async fn a_server_inside_the_cluster_is_refused_by_a_message_that_tells_nothing_of_the_inside() {
    let mut stage = Stage::idle().await;
    node(&stage.rig, &stage.rig.namespace, "198.18.7.0/24", "198.18.8.1").await;
    stage.start().await;
    for (name, host) in [("pod", "198.18.7.9"), ("node", "198.18.8.1"), ("service", "10.214.0.1")] {
        let server = json!({"metadata": {"name": name}, "spec": {"host": host}});
        stage.api::<MailServer>().create(&PostParams::default(), &read(server)).await.unwrap();
        let is_ready = |server: &MailServer| {
            let conditions = server.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            conditions.into_iter().find(|condition| condition.type_ == "Ready")
        };
        let tested = stage.until(name, |server| is_ready(server).is_some_and(|c| c.reason != "Pending")).await;
        let ready = is_ready(&tested).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Configuration"), "{name}: {ready:?}");
        assert!(ready.message.contains("may not connect to"), "{name}: {ready:?}");
        // The host is what its user wrote.
        let rest = ready.message.replacen(host, "", 1);
        assert!(!rest.contains(|c: char| c.is_ascii_digit()) && !rest.contains(&stage.rig.namespace), "{ready:?}");
    }
}

#[tokio::test]
async fn sync_pods_are_told_of_the_clusters_networks() {
    let mut stage = Stage::idle().await;
    node(&stage.rig, &stage.rig.namespace, "198.18.70.0/24", "198.18.70.1").await;
    stage.start().await;
    stage.migration("acme", &["alice"], json!({})).await;
    let pod: Pod = stage.until(&names::pod(&Stage::sync("acme", "alice"), 1), |_| true).await;
    let env = pod.spec.unwrap().containers.remove(0).env.unwrap();
    let env: BTreeMap<_, _> = env.into_iter().map(|env| (env.name, env.value.unwrap_or_default())).collect();
    let denied: Vec<_> = env["MAILFERRY_DENY_ADDRESSES"].split(',').collect();
    assert!(denied.contains(&SERVICE_RANGE) && denied.contains(&"198.18.70.0/24"), "{denied:?}");
    assert!(!denied.contains(&"198.18.70.1/32"), "merged: {denied:?}");
    assert_eq!(env["MAILFERRY_ALLOW_ADDRESSES"], "");
}

#[tokio::test]
async fn what_was_known_of_the_cluster_holds_while_it_can_not_be_asked() {
    let rig = Rig::new().await;
    let operator = rig.operator().await;
    rig.plane.service_account(&rig.namespace, "nobody").await;
    let nobody = rig.plane.client_with_token(&rig.plane.token(&rig.namespace, "nobody", None).await);
    let guard = AddressGuard::new(AddressConfig::default(), TenantPolicy::default(), None);
    let permits = |address: &str| guard.policy().permits(address.parse().unwrap());
    assert!(guard.refresh(&nobody).await.is_err() && permits("198.18.77.1"));
    node(&rig, &rig.namespace, "198.18.77.0/24", "198.18.78.1").await;
    guard.refresh(&operator).await.unwrap();
    assert!(!permits("198.18.77.1") && !permits("198.18.78.1") && !permits("10.214.3.4") && permits("198.18.79.1"));
    let error = guard.refresh(&nobody).await.unwrap_err().to_string();
    assert!(error.contains("can't be listed"), "{error}");
    assert!(!permits("198.18.77.1"));

    let off = AddressGuard::new(
        AddressConfig { detect_cluster: false, ..AddressConfig::default() },
        TenantPolicy::default(),
        None,
    );
    off.refresh(&nobody).await.unwrap();
    assert!(off.policy().permits("198.18.77.1".parse().unwrap()));
}
