//! What the API server needs for as many objects and writes when nobody decides anything.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use mailferry::api::MailboxSync;
use serde_json::json;

use crate::{
    PARALLELISM, Size,
    player::{ended, last, report},
};

/// Makes and patches as many objects; `patches`: so many of each MailboxSync, beside the worker's.
pub async fn run(client: &Client, namespace: &str, size: Size, patches: usize) -> Duration {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    drop(mailferry_testkit::cluster::apply(client, Some(namespace), &account.to_string()).await);
    let began = Instant::now();
    stream::iter(0..size.mailboxes)
        .for_each_concurrent(PARALLELISM, |number| one(client, namespace, number, size.checkpoint, patches))
        .await;
    began.elapsed()
}

async fn one(client: &Client, namespace: &str, number: usize, checkpoint: usize, patches: usize) {
    let name = format!("m{number:05}");
    let (syncs, pods, secrets): (Api<MailboxSync>, Api<Pod>, Api<Secret>) = (
        Api::namespaced(client.clone(), namespace),
        Api::namespaced(client.clone(), namespace),
        Api::namespaced(client.clone(), namespace),
    );
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let data = [("source-password".to_owned(), "p".to_owned())].into();
    let secret = Secret { metadata: metadata.clone(), string_data: Some(data), ..Secret::default() };
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let side = |host: &str| json!({"server": {"host": host}, "account": {"username": name, "passwordSecretRef": {"name": "s", "key": "k"}}});
    let sync = json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": name},
        "spec": {"migration": "m", "mailbox": name, "source": side("old.example"), "destination": side("new.example")},
    });
    syncs.create(&PostParams::default(), &serde_json::from_value(sync).unwrap()).await.unwrap();
    let patch = |body| {
        let (syncs, name) = (syncs.clone(), name.clone());
        async move { syncs.patch_status(&name, &PatchParams::default(), &Patch::Merge(body)).await.unwrap() }
    };
    // As the operator's are: some before the worker's reports, one after them.
    for number in 1..patches {
        patch(json!({"status": {"attempt": 1, "podName": format!("{name}-{number}")}})).await;
    }
    let container = Container { name: "sync".into(), image: Some("none".into()), ..Container::default() };
    let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
    let pod = Pod { metadata, spec: Some(spec), status: None };
    pods.create(&PostParams::default(), &pod).await.unwrap();
    patch(report(1, &json!({"phase": "Connecting"}))).await;
    patch(last(checkpoint)).await;
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ended())).await.unwrap();
    patch(json!({"status": {"phase": "Synced", "syncs": 1}})).await;
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"done": "true"}}})))
        .await
        .unwrap();
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
}
