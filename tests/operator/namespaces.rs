//! An operator that watches some namespaces, and one that has rights in no others.

use std::{fs, num::NonZeroU32, path::Path};

use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    rbac::v1::{ClusterRole, RoleBinding},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mailferry::{
    ErrorClass,
    api::{MailMigration, MailboxSync, names},
    controller::config::{AddressConfig, NamespaceLimit, OperatorConfig, RoleKind, WorkerRole},
    telemetry::{api_calls, health::Readiness},
};
use mailferry_testkit::{
    cluster::{ControlPlane, documents},
    eventually::{PATIENCE, eventually},
    so,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    rig::{RBAC, Rig, WORKER, install, read},
    stage::{Ending, Stage},
};

/// Nobody wrote its status: it says what the API server says of a new object.
fn assert_untouched(migration: &MailMigration) {
    let said = migration.status.as_ref().and_then(|status| status.observed_generation);
    assert_eq!(said, Some(-1), "{:?}", migration.status);
}

async fn until_ready(readiness: &Readiness) {
    eventually("the operator is ready", async || {
        let lacking = readiness.unready_parts();
        so(lacking.is_empty(), format!("it lacks {lacking:?}"))
    })
    .await;
}

/// Of two syncs to one account one would wait for the other.
pub fn own_destination(stage: &Stage) -> Value {
    json!({"destination": {"server": {"host": format!("{}.example", stage.rig.namespace)}}})
}

/// A namespace of this name on the same plane.
async fn named(rig: &Rig, name: &str) -> Stage {
    let namespaces = Api::<Namespace>::all(rig.client.clone());
    namespaces.create(&PostParams::default(), &read(json!({"metadata": {"name": name}}))).await.unwrap();
    Stage::at(Rig { plane: rig.plane, client: rig.client.clone(), namespace: name.to_owned() })
}

#[tokio::test]
async fn an_operator_works_in_the_namespaces_that_it_watches_and_in_no_other() {
    let (mut first, second, other) = (Stage::idle().await, Stage::idle().await, Stage::idle().await);
    let later = format!("{}-later", first.rig.namespace);
    other.migration("acme", &["alice"], json!({})).await;
    first.migration("acme", &["alice"], own_destination(&first)).await;
    let watched = vec![first.rig.namespace.clone(), later.clone(), second.rig.namespace.clone()];
    let operator = first.rig.operator().await;
    let readiness = first.start_watching(operator, watched);
    until_ready(&readiness).await;
    second.migration("acme", &["alice"], own_destination(&second)).await;
    let alice = Stage::sync("acme", "alice");
    for stage in [&first, &second] {
        stage.running(&alice, 1).await;
        stage.ends(&alice, 1, Ending::Synced).await;
        stage.until_condition("acme", "Complete", "True").await;
    }
    // One that was not there when the operator started.
    let later = named(&first.rig, &later).await;
    later.migration("acme", &["alice"], own_destination(&later)).await;
    later.running(&alice, 1).await;
    assert!(other.syncs().await.is_empty() && other.pods().await.is_empty());
    assert_untouched(&other.api::<MailMigration>().get("acme").await.unwrap());
}

#[tokio::test]
async fn a_namespace_has_no_more_syncs_than_it_may_and_another_takes_the_places() {
    let (mut first, second) = (Stage::idle().await, Stage::idle().await);
    let limit = NamespaceLimit { max_syncs: NonZeroU32::new(1), ..NamespaceLimit::default() };
    let namespaces = [(first.rig.namespace.clone(), limit)].into();
    first.configure(OperatorConfig { max_syncs: 3, namespaces, ..OperatorConfig::default() });
    let operator = first.rig.operator().await;
    let readiness = first.start_watching(operator, vec![first.rig.namespace.clone(), second.rig.namespace.clone()]);
    until_ready(&readiness).await;
    let users = ["alice", "bob", "carol"];
    first.migration("acme", &users[..1], own_destination(&first)).await;
    first.until_phase(&Stage::sync("acme", "alice"), "Running").await;
    first.change("acme", json!({"mailboxes": mailboxes(&users)})).await;
    let waits = |sync: &MailboxSync| {
        let conditions = sync.status.as_ref().map(|status| &status.conditions).into_iter().flatten();
        conditions.into_iter().any(|condition| condition.message.contains("maxSyncsPerNamespace: 1"))
    };
    for mailbox in ["bob", "carol"] {
        first.until::<MailboxSync>(&Stage::sync("acme", mailbox), waits).await;
    }
    second.migration("acme", &users, own_destination(&second)).await;
    let rest = |migration: &MailMigration| {
        let counts = migration.status.as_ref().and_then(|status| status.mailboxes);
        counts.is_some_and(|counts| (counts.running, counts.queued) == (2, 1))
    };
    second.until::<MailMigration>("acme", rest).await;
    let _players = [first.play(|_, _| Ending::Synced), second.play(|_, _| Ending::Synced)];
    for stage in [&first, &second] {
        stage.until_condition("acme", "Complete", "True").await;
    }
}

#[tokio::test]
async fn what_happens_in_one_namespace_while_nobody_watches_takes_nothing_from_another() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().await));
    install(plane).await;
    let stage = async || Stage::at(Rig { plane, client: plane.client(), namespace: plane.namespace().await });
    let (mut first, second) = (stage().await, stage().await);
    // Both together hold all that may run.
    first.configure(OperatorConfig { max_syncs: 2, ..OperatorConfig::default() });
    let operator = first.rig.operator().await;
    let readiness = first.start_watching(operator, vec![first.rig.namespace.clone(), second.rig.namespace.clone()]);
    until_ready(&readiness).await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    for stage in [&first, &second] {
        stage.migration("acme", &["alice"], own_destination(stage)).await;
        stage.running(&alice, 1).await;
    }
    second.change("acme", json!({"mailboxes": mailboxes(&["alice", "bob"])})).await;
    second.until_phase(&bob, "Queued").await;

    plane.stop_api_server();
    plane.start_api_server().await;
    // Before the operator, which waits a little, watches again; what it knew is older than what there is.
    let syncs = first.api::<MailboxSync>();
    let unheld = json!({"metadata": {"finalizers": null}});
    syncs.patch(&alice, &PatchParams::default(), &Patch::Merge(unheld)).await.unwrap();
    syncs.delete(&alice, &DeleteParams::default()).await.unwrap();
    first.api::<MailMigration>().delete("acme", &DeleteParams::default()).await.unwrap();
    // What it held is free, and the other namespace's migration is still known.
    second.running(&bob, 1).await;
    for sync in [&alice, &bob] {
        second.ends(sync, 1, Ending::Synced).await;
    }
    second.until_condition("acme", "Complete", "True").await;
}

fn mailboxes(names: &[&str]) -> Value {
    let reference = json!({"name": "mail", "key": "key"});
    let entry = |name: &&str| json!({"name": name, "source": {"passwordSecretRef": reference}, "destination": {"passwordSecretRef": reference}});
    names.iter().map(entry).collect()
}

/// An operator's `ServiceAccount` without a right yet, and its client, whose requests are counted.
pub async fn account(stage: &Stage) -> Client {
    stage.rig.plane.service_account(&stage.rig.namespace, "operator").await;
    let token = stage.rig.plane.token(&stage.rig.namespace, "operator", None).await;
    api_calls::client(stage.rig.plane.config_with_token(&token), &stage.metrics).unwrap()
}

/// Gives the account of `of` the operator's rights in a namespace, by Roles alone, and the workers' Role to bind there.
async fn roles(of: &Stage, place: &Rig) {
    roles_without(of, place, &[]).await;
}

/// The same without the rights on these resources.
pub async fn roles_without(of: &Stage, place: &Rig, left_out: &[&str]) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let rules = |file: &str, name: &str| {
        let yaml = fs::read_to_string(deploy.join(file)).unwrap();
        let role = documents(&yaml).into_iter().find(|object| {
            object.types.as_ref().unwrap().kind == "ClusterRole" && object.metadata.name.as_deref() == Some(name)
        });
        let role: ClusterRole = read(serde_json::to_value(role.unwrap()).unwrap());
        role.rules.unwrap()
    };
    let left_out = [&["nodes", "servicecidrs", "clusterroles"], left_out].concat();
    let mut own = rules("controller-rbac.yaml", "mailferry-controller");
    own.retain(|rule| !rule.resources.iter().flatten().any(|resource| left_out.contains(&resource.as_str())));
    let bind = json!({"apiGroups": [RBAC], "resources": ["roles"], "resourceNames": [WORKER], "verbs": ["bind"]});
    own.push(read(bind));
    let api_version = format!("{RBAC}/v1");
    for (name, rules) in [("operator", own), (WORKER, rules("worker-rbac.yaml", WORKER))] {
        let role = json!({"apiVersion": api_version, "kind": "Role", "metadata": {"name": name}, "rules": rules});
        place.apply(&role.to_string()).await;
    }
    let binding = json!({
        "apiVersion": api_version, "kind": "RoleBinding", "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": of.rig.namespace}],
    });
    place.apply(&binding.to_string()).await;
}

/// As an operator with rights in some namespaces is configured.
pub fn scoped() -> OperatorConfig {
    OperatorConfig {
        addresses: AddressConfig { detect_cluster: false, ..AddressConfig::default() },
        worker_role: WorkerRole { kind: RoleKind::Role, ..WorkerRole::default() },
        ..OperatorConfig::default()
    }
}

#[tokio::test]
async fn rights_in_the_watched_namespaces_are_enough() {
    let (mut first, second) = (Stage::idle().await, Stage::idle().await);
    first.configure(scoped());
    let client = account(&first).await;
    let refused = "mailferry_api_requests_total{code=\"403\",resource=\"mailmigrations\",verb=\"list\"}";
    roles(&first, &first.rig).await;
    let alice = Stage::sync("acme", "alice");
    first.migration("acme", &["alice"], own_destination(&first)).await;
    let readiness = first.start_watching(client, vec![first.rig.namespace.clone(), second.rig.namespace.clone()]);
    // Nothing starts before all namespaces are seen: who holds what there is not known.
    let metrics = first.metrics.clone();
    let told = async |words: &str| {
        let text = metrics.text().unwrap();
        so(text.contains(words), text)
    };
    eventually("the second namespace is asked for", async || told(refused).await).await;
    assert_eq!(readiness.unready_parts(), ["caches"]);
    assert_untouched(&first.api::<MailMigration>().get("acme").await.unwrap());
    roles(&first, &second.rig).await;
    until_ready(&readiness).await;

    // An operator of all namespaces was here before: what it bound is bound anew.
    let role = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": WORKER});
    let before = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": WORKER}, "roleRef": role});
    second.rig.apply(&before.to_string()).await;
    second.migration("acme", &["alice"], own_destination(&second)).await;
    for stage in [&first, &second] {
        stage.running(&alice, 1).await;
        let binding = stage.api::<RoleBinding>().get(WORKER).await.unwrap();
        assert_eq!((binding.role_ref.kind.as_str(), binding.role_ref.name.as_str()), ("Role", WORKER));
        let token = stage.rig.client_of(&stage.pods().await[0]).await;
        let report = json!({"worker": {"attempt": 1, "report": 2}});
        crate::rig::patch_status(&token, &stage.rig.namespace, &alice, report).await.unwrap();
    }
    second.ends(&alice, 1, Ending::Synced).await;
    second.until_condition("acme", "Complete", "True").await;

    // A node that may be lost: nobody may be asked about it, so its pod may still run.
    let pods = first.api::<Pod>();
    pods.delete(&names::pod(&alice, 1), &DeleteParams::default().grace_period(1)).await.unwrap();
    let asked = "mailferry_api_requests_total{code=\"403\",resource=\"nodes\",verb=\"get\"}";
    eventually("the node is asked for", async || told(asked).await).await;
    let sync = first.api::<MailboxSync>().get(&alice).await.unwrap();
    assert!(sync.status.unwrap().slots.is_some() && pods.get(&names::pod(&alice, 1)).await.is_ok());
    first.ends(&alice, 1, Ending::Synced).await;
    first.until_condition("acme", "Complete", "True").await;
}

#[tokio::test]
async fn to_detect_the_clusters_networks_without_the_right_to_is_an_error_at_the_start() {
    let mut stage = Stage::idle().await;
    stage.configure(OperatorConfig { addresses: AddressConfig::default(), ..scoped() });
    let client = account(&stage).await;
    roles(&stage, &stage.rig).await;
    let readiness = stage.start_watching(client, vec![stage.rig.namespace.clone()]);
    let error = timeout(PATIENCE, stage.ended()).await.expect("soon").unwrap_err();
    assert_eq!(error.class, ErrorClass::Configuration);
    let text = error.to_string();
    assert!(text.contains("addresses.detectCluster needs the right to list Nodes and ServiceCIDRs"), "{text}");
    assert_eq!(readiness.unready_parts(), ["caches"]);
}

#[tokio::test]
async fn an_operator_of_all_namespaces_knows_each() {
    // On a plane of its own: here it would find the other tests' migrations.
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().await));
    install(plane).await;
    let stage = async || Stage::at(Rig { plane, client: plane.client(), namespace: plane.namespace().await });
    let (mut first, second) = (stage().await, stage().await);
    let operator = first.rig.operator().await;
    first.start_watching(operator, Vec::new());
    let alice = Stage::sync("acme", "alice");
    for stage in [&first, &second] {
        stage.migration("acme", &["alice"], own_destination(stage)).await;
        let pod = stage.running(&alice, 1).await;
        assert_eq!(pod.namespace().as_deref(), Some(stage.rig.namespace.as_str()));
    }
}
