//! An import applied to a real API server.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mailferry::api::{MailMigration, crd};
use mailferry_testkit::cluster::{self, ControlPlane, program};
use serde_json::json;

use crate::desk::Desk;

/// A control plane that knows our kinds.
fn plane() -> &'static ControlPlane {
    static READY: OnceLock<&'static ControlPlane> = OnceLock::new();
    READY.get_or_init(|| {
        let plane = cluster::shared_control_plane();
        cluster::blocking(async || {
            cluster::apply(&plane.client(), None, &crd::all_yaml().unwrap()).await.unwrap();
        });
        plane
    })
}

const TABLE: &str = "email,password,new password\nalice@x.example,hush1,hush2\nbob@x.example,hush3,hush4\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_created_then_unchanged_then_configured() {
    let (namespace, client) = (plane().namespace().await, plane().client());
    let desk = Desk::with_kubeconfig(plane().kubeconfig());
    let apply = |more: &[&str]| {
        desk.import(&[&["--apply", "--name", "acme", "-n", &namespace][..], more].concat()).hides(&["hush"])
    };
    desk.write("users.csv", TABLE);
    apply(&["--dry-run"]).exits(0).says(&["mailmigration.mailferry.io/acme created (server dry run)"]);
    let (secrets, migrations): (Api<Secret>, Api<MailMigration>) =
        (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace));
    assert!(migrations.get_opt("acme").await.unwrap().is_none());

    let ran = apply(&[]).exits(0).says(&["secret/acme-alice-x-example-", "created"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!((lines.len(), lines[2]), (3, "mailmigration.mailferry.io/acme created"));
    let migration = migrations.get("acme").await.unwrap();
    let entry = &migration.spec.mailboxes[0];
    let reference = entry.destination.password_secret_ref.as_ref().unwrap();
    let secret = secrets.get(&reference.name).await.unwrap();
    assert_eq!(
        (entry.name.as_str(), secret.data.unwrap()[&reference.key].0.as_slice()),
        ("alice@x.example", &b"hush2"[..])
    );

    let ran = apply(&[]).exits(0);
    assert!(ran.stdout.lines().all(|line| line.ends_with(" unchanged")), "{ran:#?}");
    assert_eq!(migrations.get("acme").await.unwrap().metadata.generation, migration.metadata.generation);
    // What others set stays.
    let patch = Patch::Merge(json!({"spec": {"parallelism": 3}}));
    migrations.patch("acme", &PatchParams::default(), &patch).await.unwrap();
    desk.write("users.csv", TABLE.replace("hush4", "hush5"));
    apply(&["--dry-run"]).exits(0).says(&["secret/acme-bob-x-example-", "configured (server dry run)"]);
    apply(&[])
        .exits(0)
        .says(&["secret/acme-bob-x-example-", "configured"])
        .says(&["secret/acme-alice-x-example-", "unchanged"])
        .says(&["mailmigration.mailferry.io/acme unchanged"]);
    assert_eq!(migrations.get("acme").await.unwrap().spec.parallelism, 3);
    // Who left the list leaves a Secret.
    desk.write("users.csv", TABLE.lines().take(2).collect::<Vec<_>>().join("\n"));
    apply(&[])
        .exits(0)
        .says(&["mailmigration.mailferry.io/acme configured"])
        .says(&["1 Secret of earlier imports"])
        .says(&["kubectl delete secret", "acme-bob-x-example-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_somebody_else_are_reported_and_taken_on_request() {
    let namespace = plane().namespace().await;
    let desk = Desk::with_kubeconfig(plane().kubeconfig());
    let apply = |more: &[&str]| desk.import(&[&["--apply", "-n", &namespace][..], more].concat()).hides(&["hush"]);
    desk.write("users.csv", TABLE);
    apply(&[]).exits(0);
    let migrations: Api<MailMigration> = Api::namespaced(plane().client(), &namespace);
    let patch = Patch::Merge(json!({"spec": {"source": {"server": {"host": "elsewhere.example"}}}}));
    let editor = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    migrations.patch("users", &editor, &patch).await.unwrap();
    apply(&[]).exits(2).says(&["MailMigration users", "conflict with \"somebody\"", "--force-conflicts"]);
    apply(&["--force-conflicts"]).exits(0).says(&["mailmigration.mailferry.io/users configured"]);
    assert_eq!(migrations.get("users").await.unwrap().spec.source.server.unwrap().host, "old.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_refuses_is_said_by_class() {
    let desk = Desk::new();
    desk.write("users.csv", TABLE);
    desk.import(&["--apply"]).exits(2).hides(&["hush"]).says(&["the cluster's configuration can't be read"]);
    let desk = Desk::with_kubeconfig(plane().kubeconfig());
    desk.write("users.csv", TABLE);
    desk.import(&["--apply", "-n", "nowhere"])
        .exits(2)
        .hides(&["hush"])
        .says(&["Secret users-alice", "Check that the namespace exists"]);
    desk.import(&["--apply", "--context", "other"]).exits(2).says(&["--context"]);

    let namespace = plane().namespace().await;
    plane().service_account(&namespace, "nobody").await;
    let token = plane().token(&namespace, "nobody", None).await;
    let kubeconfig = std::fs::read_to_string(plane().kubeconfig()).unwrap();
    let user = kubeconfig.lines().find(|line| line.starts_with("users:")).unwrap();
    desk.write("nobody", kubeconfig.replace(user, &format!("users: [{{name: tests, user: {{token: {token}}}}}]")));
    let nobody = Desk::with_kubeconfig(desk.path("nobody"));
    nobody.write("users.csv", TABLE);
    nobody
        .import(&["--apply", "-n", &namespace])
        .exits(11)
        .hides(&["hush", &token])
        .says(&["cannot patch", "verbs get, create and patch"]);
}

/// Without --server-side, kubectl keeps each object in an annotation, which must not get too large.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_takes_the_files_either_way() {
    let namespace = plane().namespace().await;
    let desk = Desk::new();
    let table = |users: usize| {
        let rows = (0..users).map(|user| format!("somebody{user}@customer.example,hush-{user},hush+{user}\n"));
        format!("email,password,new_password\n{}", rows.collect::<Vec<_>>().concat())
    };
    let kubectl = |args: &[&str], file: PathBuf| {
        let mut command = Command::new(program("kubectl").unwrap());
        command.arg("--kubeconfig").arg(plane().kubeconfig()).args(["-n", &namespace]).args(args).arg("-f").arg(file);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, users) in [("listed", 1000), ("csvs", 6000)] {
        desk.write("users.csv", table(users));
        desk.import(&["--name", name]).exits(0);
        let migration = desk.path(&format!("{name}/migration.yaml"));
        assert!(kubectl(&["apply"], migration.clone()).contains("created"));
        kubectl(&["apply", "--server-side", "--force-conflicts"], migration);
    }
    let secrets = desk.path("csvs/secrets.yaml");
    assert!(kubectl(&["apply"], secrets.clone()).lines().count() > 1);
    kubectl(&["apply", "--server-side", "--force-conflicts"], secrets);
}
