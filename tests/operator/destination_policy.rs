//! deploy/destination-policy: a MailMigration's inline destination is judged when somebody applies it.

use std::{fs, path::Path};

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use mailferry::{
    api::MailMigration,
    controller::destination_policy::{AllowedDestination, allows_host},
};
use mailferry_testkit::{
    cluster::{self, documents},
    eventually, so,
};
use serde_json::{Value, json};

use crate::{
    cases::{migration, with},
    rig::{Rig, read, refusal},
};

/// A namespace in which these destinations are allowed.
async fn only_to(allowed: &[&str]) -> Rig {
    let rig = Rig::new().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/destination-policy/policy.yaml");
    let [mut policy, mut binding]: [DynamicObject; 2] =
        documents(&fs::read_to_string(file).unwrap()).try_into().expect("a policy and its binding");
    let name = format!("destinations-{}", rig.namespace);
    policy.metadata.name = Some(name.clone());
    assert_eq!(policy.data["spec"]["variables"][0], json!({"name": "allowed", "expression": "[]"}));
    let list: Vec<_> = allowed.iter().map(|entry| format!("'{entry}'")).collect();
    policy.data["spec"]["variables"][0]["expression"] = json!(format!("[{}]", list.join(", ")));
    binding.metadata.name = Some(name.clone());
    binding.data["spec"]["policyName"] = json!(name);
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": rig.namespace}}});
    binding.data["spec"]["matchResources"] = here;
    for object in [policy, binding] {
        cluster::apply(&rig.client, None, &serde_json::to_string(&object).unwrap()).await.unwrap();
    }
    if !allowed.is_empty() {
        applies(&rig).await;
    }
    rig
}

/// Waits until the API server has seen a policy for this namespace: it learns of it by a watch.
async fn applies(rig: &Rig) {
    eventually("the policy has an effect", async || {
        so(is_refused(&create(rig, "not-allowed.invalid").await), "what it forbids is allowed")
    })
    .await;
}

/// True when the policy said no; nothing else may have.
fn is_refused(made: &Result<MailMigration, kube::Error>) -> bool {
    match made {
        Ok(_) => false,
        Err(kube::Error::Api(status)) if status.message.contains("DestinationNotAllowed") => true,
        Err(error) => panic!("{error}"),
    }
}

async fn create(rig: &Rig, host: &str) -> Result<MailMigration, kube::Error> {
    create_with(rig, json!({"host": host}), Value::Null).await
}

/// With this destination; keeps nothing.
async fn create_with(rig: &Rig, server: Value, reference: Value) -> Result<MailMigration, kube::Error> {
    let object = with(&migration(), "/spec/destination/server", server);
    let object = with(&object, "/spec/destination/serverRef", reference);
    let object = with(&object, "/metadata/name", json!("probe"));
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    rig.api::<MailMigration>().create(&dry_run, &read(object)).await
}

#[tokio::test]
async fn hosts_are_judged_as_the_operator_judges_them() {
    let list = ["mail.NewHost.example", ".ours.example.", "192.0.2.7", "2001:db8::7"];
    let rig = only_to(&list).await;
    let operators: Vec<AllowedDestination> = list.iter().map(|entry| (*entry).to_owned().try_into().unwrap()).collect();
    for (host, expected) in [
        ("mail.newhost.example", true),
        ("MAIL.newhost.example.", true),
        ("newhost.example", false),
        ("a.mail.newhost.example", false),
        ("mx1.ours.example", true),
        ("a.b.OURS.example.", true),
        ("ours.example", false),
        (".ours.example", false),
        ("evilours.example", false),
        ("mx1.ours.example.org", false),
        ("192.0.2.7", true),
        ("192.0.2.70", false),
        ("2001:DB8:0:0::7", true),
        ("2001:db8::8", false),
        ("::ffff:192.0.2.7", false),
        ("10.0.0.1", false),
        ("...", false),
    ] {
        let made = create(&rig, host).await;
        assert_eq!(is_refused(&made), !expected, "{host}: {made:?}");
        assert_eq!(allows_host(&operators, host), expected, "{host}");
    }
}

#[tokio::test]
async fn a_suffix_that_could_be_an_addresss_end_allows_none() {
    let rig = only_to(&[".5", ".0x5"]).await;
    for host in ["10.0.0.5", "10.5", "0x0a.0x5", "::1.0.0.5"] {
        assert!(is_refused(&create(&rig, host).await), "{host}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_host_and_who_can_change_it_and_not_the_list() {
    let rig = only_to(&["mail.newhost.example"]).await;
    let (code, message) = refusal(create(&rig, "mail.Elsewhere.example").await);
    assert_eq!(code, 403, "{message}");
    for part in ["DestinationNotAllowed", "mail.Elsewhere.example", "spec.destination.server.host", "whoever runs"] {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
    assert!(!message.contains("newhost"), "{message}");
}

#[tokio::test]
async fn an_empty_list_allows_everything_and_a_mail_server_is_the_operators_to_judge() {
    let rig = only_to(&[]).await;
    create(&rig, "anywhere.example").await.unwrap();
    let rig = only_to(&["mail.newhost.example"]).await;
    create_with(&rig, Value::Null, json!({"name": "new"})).await.unwrap();
}

#[tokio::test]
async fn a_migration_from_before_can_still_be_suspended_and_moved_nowhere_else() {
    let rig = Rig::new().await;
    let object = with(&migration(), "/spec/destination/server", json!({"host": "elsewhere.example"}));
    let object = with(&object, "/spec/destination/serverRef", Value::Null);
    let migrations = rig.api::<MailMigration>();
    migrations.create(&PostParams::default(), &read(object)).await.unwrap();
    let policed = only_to(&["mail.newhost.example"]).await;
    // Into the other namespace, where it was before the policy was.
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": rig.namespace}}});
    let widened = json!({"spec": {"matchResources": here}});
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(rig.client.clone());
    let name = format!("destinations-{}", policed.namespace);
    bindings.patch(&name, &PatchParams::default(), &Patch::Merge(widened)).await.unwrap();
    let change = async |spec: Value| {
        migrations.patch("m", &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await
    };
    applies(&rig).await;
    change(json!({"suspend": true})).await.unwrap();
    assert!(is_refused(&change(json!({"destination": {"server": {"host": "third.example"}}})).await));
    change(json!({"destination": {"server": {"host": "mail.newhost.example"}}})).await.unwrap();
}
