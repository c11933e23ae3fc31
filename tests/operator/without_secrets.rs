//! An operator that has no right to get Secrets.

use kube::api::DeleteParams;
use mailferry::{
    api::{MailMigration, MailboxSync},
    controller::config::{OperatorConfig, SecretAccess},
};
use serde_json::json;

use crate::{
    namespaces::{account, own_destination, roles_without, scoped},
    stage::{Ending, Stage, condition},
};

#[tokio::test]
async fn without_the_right_to_get_secrets_a_refused_login_waits_for_a_request_and_a_csv_is_not_accepted() {
    let mut stage = Stage::idle().await;
    stage.configure(OperatorConfig { secrets: SecretAccess::LeftOut, ..scoped() });
    let client = account(&stage).await;
    roles_without(&stage, &stage.rig, &["secrets"]).await;
    stage.start_watching(client, vec![stage.rig.namespace.clone()]);
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], own_destination(&stage)).await;
    stage.running(&alice, 1).await;
    stage.ends(&alice, 1, Ending::Failed("Authentication")).await;
    let told = |sync: &MailboxSync| {
        let conditions = sync.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        ready.is_some_and(|ready| ready.reason == "Stalled" && ready.message.contains("spec.syncRequest"))
    };
    stage.until::<MailboxSync>(&alice, told).await;
    stage.change("acme", json!({"syncRequest": "the password is corrected"})).await;
    stage.running(&alice, 2).await;
    stage.ends(&alice, 2, Ending::Synced).await;
    stage.until_condition("acme", "Complete", "True").await;

    let list = json!({"mailboxSecrets": [{"name": "list", "key": "mailboxes.csv"}]});
    stage.migration("csv", &[], list).await;
    let refused = stage.until_condition("csv", "Accepted", "False").await;
    let (_, reason, message) = condition(&refused, "Accepted").unwrap();
    assert!(reason == "SecretsNotReadable" && message.contains("right to get, create and delete Secrets"), "{message}");

    stage.api::<MailMigration>().delete("acme", &DeleteParams::default()).await.unwrap();
    stage.until_gone::<MailboxSync>(&alice).await;
}
