//! What whoever runs the cluster lets tenants do: where mail may be moved to and read from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::PostParams};
use mailferry::{
    ErrorClass,
    api::{MailMigration, MailServer, MailboxSync, names},
    controller::config::{OperatorConfig, TenantPolicy},
};
use serde_json::{Value, json};

use crate::{
    rig::read,
    stage::{Ending, Stage, condition},
};

/// Mail may be moved to these.
fn only_to(destinations: &[&str]) -> OperatorConfig {
    let allowed_destinations = destinations.iter().map(|entry| (*entry).to_owned().try_into().unwrap()).collect();
    OperatorConfig {
        policy: TenantPolicy { allowed_destinations, ..TenantPolicy::default() },
        ..OperatorConfig::default()
    }
}

/// A migration with this destination.
fn to(destination: &Value) -> Value {
    json!({ "destination": destination })
}

impl Stage {
    async fn until_refused(&self, migration: &str) -> String {
        let is = |m: &MailMigration| condition(m, "Accepted").is_some_and(|c| c.1 == "DestinationNotAllowed");
        let refused = self.until(migration, is).await;
        for of in ["Accepted", "Ready"] {
            let (status, reason, _) = condition(&refused, of).unwrap();
            assert_eq!((status.as_str(), reason.as_str()), ("False", "DestinationNotAllowed"), "{of}");
        }
        condition(&refused, "Accepted").unwrap().2
    }

    async fn server(&self, name: &str, host: &str) {
        let server = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailServer", "metadata": {"name": name},
            "spec": {"host": host},
        });
        self.rig.apply(&server.to_string()).await;
    }
}

#[tokio::test]
async fn a_migration_to_a_host_that_is_not_allowed_is_refused_and_nothing_is_made() {
    let stage = Stage::with(only_to(&["new.example", ".ours.example"])).await;
    stage.migration("out", &["alice"], to(&json!({"server": {"host": "mail.Elsewhere.example"}}))).await;
    let message = stage.until_refused("out").await;
    assert!(message.contains("mail.Elsewhere.example") && message.contains("whoever runs Mailferry"), "{message}");
    assert!(!message.contains("new.example") && !message.contains("ours.example"), "the list is told: {message}");

    stage.migration("in", &["alice"], to(&json!({"server": {"host": "MX1.ours.example."}}))).await;
    stage.until_condition("in", "Accepted", "True").await;
    let of_others = |sync: &MailboxSync| sync.spec.migration != "in";
    let pod: Pod = stage.until(&names::pod(&Stage::sync("in", "alice"), 1), |_| true).await;
    assert!(!stage.syncs().await.iter().any(of_others), "no MailboxSync");
    assert_eq!(stage.pods().await.len(), 1, "no pod");
    assert_eq!(environment(pod)["MAILFERRY_DESTINATION_HOST"], "MX1.ours.example.");
}

#[tokio::test]
async fn the_host_of_a_mail_server_is_judged_whenever_it_changes() {
    let stage = Stage::with(only_to(&[".ours.example"])).await;
    let alice = Stage::sync("acme", "alice");
    stage.server("new", "mail.elsewhere.example").await;
    stage.migration("acme", &["alice"], to(&json!({"server": null, "serverRef": {"name": "new"}}))).await;
    let message = stage.until_refused("acme").await;
    assert!(message.contains("mail.elsewhere.example") && message.contains("the MailServer new"), "{message}");
    assert!(stage.syncs().await.is_empty() && stage.pods().await.is_empty());
    // It is tested all the same.
    stage.until::<MailServer>("new", |server| server.status.as_ref().is_some_and(|s| !s.conditions.is_empty())).await;

    stage.server("new", "mail.ours.example").await;
    stage.running(&alice, 1).await;
    stage.server("new", "mail.elsewhere.example").await;
    stage.until_refused("acme").await;
    let sync = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert_eq!(sync.spec.destination.server.host, "mail.ours.example", "it goes on to where it was allowed to");
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_phase(&alice, "Synced").await;
}

#[tokio::test]
async fn a_sync_to_where_mail_may_not_go_any_more_stops_at_its_checkpoint_and_goes_on_once_it_may() {
    let mut stage = Stage::new().await;
    let alice = Stage::sync("acme", "alice");
    stage.migration("acme", &["alice"], json!({})).await;
    stage.running(&alice, 1).await;
    stage.stop().await;
    stage.configure(only_to(&[".ours.example"]));
    stage.start().await;
    stage.stops(&alice, 1).await;
    let stalled = stage.until_phase(&alice, "Stalled").await;
    let error = stalled.last_error.unwrap();
    assert_eq!((error.class, stalled.slots), (ErrorClass::Configuration, None));
    assert!(error.message.contains("new.example"), "{error:?}");
    assert!(stage.reasons(&alice).await.contains(&"NotAllowed".to_owned()));
    stage.until_refused("acme").await;

    stage.stop().await;
    stage.configure(only_to(&["new.example"]));
    stage.start().await;
    stage.running(&alice, 2).await;
    stage.ends(&alice, 2, Ending::Synced).await;
    stage.until_condition("acme", "Complete", "True").await;
}

#[tokio::test]
async fn a_mailbox_sync_that_somebody_wrote_by_hand_gets_no_pod_to_where_mail_may_not_go() {
    let stage = Stage::with(only_to(&["new.example"])).await;
    stage.migration("acme", &["alice"], json!({})).await;
    let migration = stage.until_condition("acme", "Accepted", "True").await;
    let mut forged = stage.until::<MailboxSync>(&Stage::sync("acme", "alice"), |_| true).await;
    let uid = migration.uid();
    assert!(forged.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref()));
    forged.spec.mailbox = "forged".into();
    forged.spec.destination.server.host = "elsewhere.example".into();
    forged.metadata.name = Some(Stage::sync("acme", "forged"));
    (forged.metadata.uid, forged.metadata.resource_version, forged.status) = (None, None, None);
    stage.api::<MailboxSync>().create(&PostParams::default(), &forged).await.unwrap();
    // Removed as one that the migration does not list, or held until then: it never runs.
    let is_held = |sync: Option<&MailboxSync>| {
        let Some(sync) = sync else { return true };
        let phase = sync.status.as_ref().and_then(|status| status.phase);
        sync.metadata.deletion_timestamp.is_some() || phase.is_some_and(|phase| format!("{phase:?}") == "Stalled")
    };
    mailferry_testkit::cluster::wait_for(&stage.api::<MailboxSync>(), &Stage::sync("acme", "forged"), is_held).await;
    stage.running(&Stage::sync("acme", "alice"), 1).await;
    assert_eq!(stage.pods().await.len(), 1);
}

#[tokio::test]
async fn sync_pods_are_told_where_sources_may_be() {
    let allowed_source_addresses = ["192.0.2.0/24", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
    let policy = TenantPolicy { allowed_source_addresses, ..TenantPolicy::default() };
    let stage = Stage::with(OperatorConfig { policy, ..OperatorConfig::default() }).await;
    stage.migration("acme", &["alice"], json!({})).await;
    let pod: Pod = stage.until(&names::pod(&Stage::sync("acme", "alice"), 1), |_| true).await;
    let environment = environment(pod);
    assert_eq!(environment["MAILFERRY_SOURCE_ADDRESSES"], "192.0.2.0/24,2001:db8::/32");
    assert_eq!(environment["MAILFERRY_DESTINATION_HOST"], "");
}

fn environment(pod: Pod) -> BTreeMap<String, String> {
    let environment = pod.spec.unwrap().containers.remove(0).env.unwrap();
    environment.into_iter().map(|env| (env.name, env.value.unwrap_or_default())).collect()
}

#[test]
fn a_policy_is_read_as_it_is_written() {
    let written = json!({"policy": {"allowedDestinations": [".Ours.example", "192.0.2.7"]}});
    let config: OperatorConfig = read(written);
    assert_eq!(config, only_to(&[".ours.example", "192.0.2.7"]));
    let text = serde_json::to_value(&config).unwrap();
    assert_eq!(text["policy"]["allowedDestinations"], json!([".ours.example", "192.0.2.7"]));
}
