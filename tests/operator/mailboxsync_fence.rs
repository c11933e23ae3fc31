//! deploy/mailboxsync-fence.yaml: nobody but the operator makes MailboxSyncs.

use std::{fs, path::Path};

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, PostParams},
};
use mailferry::api::MailboxSync;
use mailferry_testkit::{
    cluster::{self, documents},
    eventually, so,
};
use serde_json::json;

use crate::{
    rig::{Rig, read, refusal},
    stage::Stage,
};

/// The policy holds in this namespace alone, since other tests make MailboxSyncs by hand.
async fn fence(rig: &Rig) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mailboxsync-fence.yaml");
    let [mut policy, mut binding]: [DynamicObject; 2] =
        documents(&fs::read_to_string(file).unwrap()).try_into().expect("a policy and its binding");
    let name = format!("mailboxsyncs-{}", rig.namespace);
    policy.metadata.name = Some(name.clone());
    binding.metadata.name = Some(name.clone());
    binding.data["spec"]["policyName"] = json!(name);
    binding.data["spec"]["matchResources"] =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": rig.namespace}}});
    for object in [policy, binding] {
        cluster::apply(&rig.client, None, &serde_json::to_string(&object).unwrap()).await.unwrap();
    }
    eventually("the policy has an effect", async || {
        so(create(&rig.api(), "probe").await.is_err(), "what it forbids is allowed")
    })
    .await;
}

/// Creates a MailboxSync, and keeps nothing.
async fn create(api: &Api<MailboxSync>, name: &str) -> Result<MailboxSync, kube::Error> {
    let side = |host: &str| json!({"server": {"host": host}, "account": {"username": name, "passwordSecretRef": {"name": "mail", "key": name}}});
    let object = json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": name},
        "spec": {"migration": "m", "mailbox": name, "source": side("old.example"), "destination": side("new.example")},
    });
    api.create(&PostParams { dry_run: true, ..PostParams::default() }, &read(object)).await
}

#[tokio::test]
async fn an_administrator_makes_no_mailbox_sync_and_the_operator_does() {
    let rig = Rig::new().await;
    fence(&rig).await;
    let (code, message) = refusal(create(&rig.api(), "alice").await);
    assert!(code == 403 && message.contains("fenced: only the operator creates MailboxSyncs"), "{code} {message}");
    let operator = Api::namespaced(rig.operator().await, &rig.namespace);
    create(&operator, "alice").await.unwrap();
    // What is there may be changed and removed as ever.
    let mut stage = Stage::at(rig);
    stage.start().await;
    stage.migration("acme", &["alice"], json!({"suspend": true})).await;
    stage.until_total("acme", 1).await;
    let alice = Stage::sync("acme", "alice");
    stage.rig.patch_status(&alice, json!({"syncRequest": "x"})).await.unwrap();
    stage.change("acme", json!({"deadline": "7h"})).await;
    stage.until::<MailboxSync>(&alice, |sync| sync.spec.settings.deadline.to_string() == "7h").await;
    stage.rig.api::<MailboxSync>().delete(&alice, &DeleteParams::default()).await.unwrap();
}
