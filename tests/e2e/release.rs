//! The chart's release is upgraded, rolled back, uninstalled and installed again while mail is copied; and the plain
//! manifests do the same work.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams},
};
use mailferry::api::{MailMigration, MailboxSync};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, IMAGE, RELEASE, cluster_alone, until},
    migration::{Migration, Setup, many_folders},
};

/// A release before this one.
const OLDER: &str = "0.0.9";
/// What its definitions do not have yet: resource and field of the status.
const NEWER: [(&str, &[&str]); 3] =
    [("mailboxsyncs", &["secretVersions"]), ("mailboxsyncs", &["worker", "folders"]), ("mailmigrations", &["totals"])];

/// Copying that waits, so that it is in the middle of the work for as long as a test likes.
fn waiting() -> Setup {
    Setup { delay: Duration::from_secs(1), mail: many_folders, ..Setup::default() }
}

/// In the middle of it, and soon.
const SOME: u64 = 2 << 20;

/// Brings the release back that the other tests expect, whatever happens.
struct Restore<'a>(&'a Cluster);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        if let Err(why) = self.0.install(&[]) {
            writeln!(std::io::stderr(), "the release is not back: {why}").ok();
        }
    }
}

/// The chart as it was released before: other version, other image, definitions that lack what is newer.
fn older_chart(folder: &Path) -> PathBuf {
    let chart = folder.join("mailferry");
    let copied =
        Command::new("cp").arg("-r").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/mailferry")).arg(&chart).status();
    assert!(copied.unwrap().success());
    let edit = |file: &str, change: &dyn Fn(&mut Value)| {
        let path = chart.join(file);
        let mut value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, serde_yaml::to_string(&value).unwrap()).unwrap();
    };
    edit("Chart.yaml", &|chart| {
        chart["version"] = json!(OLDER);
        chart["appVersion"] = json!(OLDER);
    });
    for (resource, field) in NEWER {
        edit(&format!("files/crds/mailferry.io_{resource}.yaml"), &|definition| {
            let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let (last, parents) = field.split_last().unwrap();
            let parent =
                parents.iter().fold(&mut schema["properties"]["status"], |at, name| &mut at["properties"][name]);
            parent["properties"].as_object_mut().unwrap().remove(*last).unwrap();
        });
    }
    chart
}

impl Migration<'_> {
    /// Which of the newer fields are stored.
    async fn newer_fields(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (resource, field) in NEWER {
            let kind = match resource {
                "mailmigrations" => ApiResource::erase::<MailMigration>(&()),
                _ => ApiResource::erase::<MailboxSync>(&()),
            };
            let objects = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &kind);
            for object in objects.list(&ListParams::default()).await.unwrap() {
                let status = &object.data["status"];
                if !field.iter().fold(status, |at, name| &at[name]).is_null() {
                    found.push(format!("{} {}", object.name_any(), field.join(".")));
                }
            }
        }
        found
    }

    async fn migration(&self) -> MailMigration {
        Api::namespaced(self.client.clone(), &self.namespace).get("m").await.unwrap()
    }

    /// Lets the mail through.
    fn hurry(&self) {
        for link in [&self.source_link, &self.destination_link] {
            link.set_delay(Duration::ZERO);
        }
    }
}

/// Waits until every pod of the operator that is not about to end is of `version`: the helm client waits for the
/// new one only, and the old one may be told to end a moment later.
async fn operator_is_of(cluster: &Cluster, version: &str) {
    let wanted = format!("{IMAGE}:{version}");
    let alone = async || {
        let staying = cluster.operators().await.into_iter().filter(|pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.labels().get("app.kubernetes.io/component").is_some_and(|c| c == "controller")
        });
        let images: Vec<_> = staying.map(|pod| pod.spec.unwrap().containers[0].image.clone().unwrap()).collect();
        images == [wanted.as_str()]
    };
    until("the operator is of that version", Duration::from_mins(1), alone, async || cluster.operators_state().await)
        .await;
}

#[tokio::test]
async fn an_upgrade_and_a_rollback_in_the_middle_of_a_migration_replace_no_pod_and_lose_nothing() {
    let Some(cluster) = cluster_alone().await else { return };
    let Some(node) = cluster.node() else { return };
    let _restore = Restore(&cluster);
    let folder = tempfile::tempdir().unwrap();
    node.tag(&format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION")), &format!("{IMAGE}:{OLDER}"));
    cluster.install_chart(&older_chart(folder.path()), &[]).unwrap();
    let older = cluster.revision();
    operator_is_of(&cluster, OLDER).await;

    let setup = Setup { mailboxes: vec!["al", "bob"], spec: json!({"parallelism": 1}), ..waiting() };
    let migration = Migration::apply(&cluster, setup).await;
    migration.copies(SOME).await;
    let (pod, before) = (migration.pod("al").await, migration.migration().await);
    assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some(&*format!("{IMAGE}:{OLDER}")));
    assert_eq!(migration.newer_fields().await, [""; 0], "the older release's definitions");

    cluster.install(&[]).unwrap();
    operator_is_of(&cluster, env!("CARGO_PKG_VERSION")).await;
    // Reports of the running pod, and what the newer operator counts.
    migration.until("newer fields are written", async || migration.newer_fields().await.len() >= 2).await;
    assert_eq!(migration.pod("al").await.uid(), pod.metadata.uid, "an upgrade leaves running pods alone");

    cluster.helm(&["rollback", RELEASE, &older, "--wait", "--timeout=3m"]).unwrap();
    operator_is_of(&cluster, OLDER).await;
    assert_eq!(migration.newer_fields().await, [""; 0], "the older definitions prune");
    assert_eq!(migration.pod("al").await.uid(), pod.metadata.uid, "a rollback leaves running pods alone");

    migration.hurry();
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    assert!(ended.iter().all(|sync| sync.status.as_ref().unwrap().attempt == 1), "no sync noticed");
    assert_eq!(migration.migration().await.uid(), before.uid());
}

#[tokio::test]
async fn uninstalling_keeps_migrations_and_a_release_for_one_namespace_leaves_others_alone() {
    let Some(cluster) = cluster_alone().await else { return };
    let restore = Restore(&cluster);
    let migration = Migration::apply(&cluster, waiting()).await;
    migration.copies(SOME).await;
    let (pod, before) = (migration.pod("alice").await, migration.migration().await);
    cluster.helm(&["uninstall", RELEASE, "--wait", "--timeout=3m"]).unwrap();
    let definitions = Api::<CustomResourceDefinition>::all(migration.client.clone());
    let kept = definitions.list(&ListParams::default()).await.unwrap();
    assert_eq!(kept.iter().filter(|definition| definition.spec.group == "mailferry.io").count(), 3);
    assert_eq!(migration.migration().await.uid(), before.uid());
    // Its right to report went with the release, so the pod stops: nobody would see to it.
    let pods = migration.pods();
    let ended = async || pods.get(&pod.name_any()).await.is_ok_and(|pod| phase(&pod) == "Failed");
    migration.until("the pod ended by itself", ended).await;
    let alone = migration.migration().await;

    let other = Migration::apply(&cluster, Setup::default()).await;
    cluster.install(&[&format!("watchNamespaces={{{}}}", other.namespace)]).unwrap();
    cluster.helm(&["test", RELEASE, "--timeout=3m"]).unwrap();
    migration.hurry();
    other.completes_with_nothing_lost_and_nothing_doubled().await;
    assert_eq!(migration.migration().await.resource_version(), alone.resource_version(), "left alone");
    assert_eq!(migration.sync("alice").await.unwrap().status.unwrap().attempt, 1);

    drop(restore);
    cluster.helm(&["test", RELEASE, "--timeout=3m"]).unwrap();
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    assert_eq!(ended[0].status.as_ref().unwrap().attempt, 2, "from the checkpoint, or from what is there");
    assert_eq!(migration.migration().await.uid(), before.uid());
}

#[tokio::test]
async fn where_the_operator_was_uninstalled_first_nothing_hangs_that_it_left_behind() {
    let Some(cluster) = cluster_alone().await else { return };
    let _restore = Restore(&cluster);
    let migration = Migration::apply(&cluster, waiting()).await;
    migration.copies(SOME).await;
    let pod = migration.pod("alice").await.name_any();
    cluster.helm(&["uninstall", RELEASE, "--wait", "--timeout=3m"]).unwrap();
    let arguments = ["uninstall", "--delete-migrations", "--timeout=3m", "--namespace", &migration.namespace];
    let said = cluster.mailferry(&arguments).unwrap();
    for step in ["suspended     MailMigration", "deleted       MailMigration", "released      MailboxSync"] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert!(said.contains(&format!("released      Pod {}/{pod}", migration.namespace)), "{said}");
    let gone =
        async || migration.sync("alice").await.is_none() && migration.pods().get_opt(&pod).await.unwrap().is_none();
    migration.until("nothing is left of it", gone).await;
    let namespaces = Api::<Namespace>::all(migration.client.clone());
    namespaces.delete(&migration.namespace, &DeleteParams::default()).await.unwrap();
    let ended = async || namespaces.get_opt(&migration.namespace).await.unwrap().is_none();
    migration.until("its namespace ends", ended).await;
}

/// What `kubectl apply -k deploy/` makes, with the leave to connect to this machine.
const PLAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo-cluster");

/// Takes away what the plain manifests made, but for the definitions, and with them the migrations of other tests.
struct RemovePlain<'a>(&'a Cluster);

impl Drop for RemovePlain<'_> {
    fn drop(&mut self) {
        let removed = self.0.kubectl(&["kustomize", PLAIN], "").and_then(|manifests| {
            let goes =
                |object: &Value| !["CustomResourceDefinition", "Namespace"].map(Value::from).contains(&object["kind"]);
            let objects =
                serde_yaml::Deserializer::from_str(&manifests).map(|document| Value::deserialize(document).unwrap());
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.filter(goes).collect::<Vec<_>>()});
            self.0.kubectl(&["delete", "--ignore-not-found", "-f", "-"], &list.to_string())
        });
        if let Err(why) = removed {
            writeln!(std::io::stderr(), "the plain manifests are not gone: {why}").ok();
        }
    }
}

#[tokio::test]
async fn the_plain_manifests_install_an_operator_that_moves_mail() {
    let Some(cluster) = cluster_alone().await else { return };
    let Some(_) = cluster.node() else { return };
    let _restore = Restore(&cluster);
    cluster.helm(&["uninstall", RELEASE, "--wait", "--timeout=3m"]).unwrap();
    let _remove = RemovePlain(&cluster);
    // The definitions are the release's, which keeps them.
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", PLAIN], "").unwrap();
    cluster.operator_is_ready().await;
    let migration = Migration::apply(&cluster, Setup::default()).await;
    let ended = migration.completes_with_nothing_lost_and_nothing_doubled().await;
    assert!(ended.iter().all(|sync| sync.status.as_ref().unwrap().attempt == 1));
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
