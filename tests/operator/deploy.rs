//! deploy/ as a cluster takes it, and what it lets the operator do.

use std::{
    path::Path,
    process::{Command, Output},
};

use k8s_openapi::api::{
    core::v1::{Pod, Secret, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use mailferry_testkit::cluster::{ApiResource, ControlPlane, OPERATOR_PERMISSIONS, program};
use serde_json::json;

use crate::rig::{OperatorClient, Rig, WORKER, plane, read, refusal};

/// Runs the kubectl that belongs to the API server.
pub fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> Option<Output> {
    let Some(kubectl) = program("kubectl") else {
        eprintln!("skipped: KUBEBUILDER_ASSETS has no kubectl");
        return None;
    };
    let mut command = Command::new(kubectl);
    command.args(arguments).env("KUBECONFIG", plane.kubeconfig()).current_dir(env!("CARGO_MANIFEST_DIR"));
    Some(command.output().unwrap())
}

#[test]
fn kubectl_applies_the_whole_folder() {
    let applied = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", "deploy/"];
    let Some(output) = kubectl(plane(), &applied) else { return };
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{err}");
    assert_eq!(err, "", "a warning is a mistake in a manifest");
    let objects: Vec<_> = out.lines().collect();
    assert_eq!(objects.len(), 31, "{out}");
    for expected in
        ["deployment.apps/mailferry", "customresourcedefinition.apiextensions.k8s.io/mailmigrations.mailferry.io"]
    {
        assert!(objects.iter().any(|line| line.starts_with(expected)), "{expected} is missing: {out}");
    }
}

#[test]
fn the_operators_pod_and_the_pods_it_makes_have_one_image() {
    let Some(output) = kubectl(plane(), &["kustomize", "deploy/"]) else { return };
    let yaml = String::from_utf8(output.stdout).unwrap();
    let deployment = mailferry_testkit::cluster::documents(&yaml)
        .into_iter()
        .find(|object| object.types.as_ref().unwrap().kind == "Deployment");
    let container = &deployment.unwrap().data["spec"]["template"]["spec"]["containers"][0];
    let image = container["image"].as_str().unwrap();
    let workers = container["env"].as_array().unwrap().iter().find(|env| env["name"] == "MAILFERRY_WORKER_IMAGE");
    assert_eq!(workers.unwrap()["value"], image);
    assert!(image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))), "{image} is of another version");
}

#[test]
fn the_destination_policy_is_a_component_that_takes_the_overlays_list() {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["-r", "deploy", "crds"])
        .arg(folder.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(copied.unwrap().success());
    let overlay = folder.path().join("overlay");
    std::fs::create_dir(&overlay).unwrap();
    // As the component itself says.
    let component =
        std::fs::read_to_string(folder.path().join("deploy/destination-policy/kustomization.yaml")).unwrap();
    let example = component.lines().skip_while(|line| !line.starts_with("#   resources"));
    let example = example.map_while(|line| line.strip_prefix("#   ")).collect::<Vec<_>>().join("\n");
    let example = example.replace("path/to/", "");
    std::fs::write(overlay.join("kustomization.yaml"), example).unwrap();
    let Some(output) = kubectl(plane(), &["kustomize", &overlay.display().to_string()]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = mailferry_testkit::cluster::documents(&String::from_utf8(output.stdout).unwrap());
    let policy = objects.iter().find(|object| object.metadata.name.as_deref() == Some("mailferry-destinations"));
    let allowed = json!({"name": "allowed", "expression": "['.newhost.example']"});
    assert_eq!(policy.unwrap().data["spec"]["variables"][0], allowed);
    assert_eq!(objects.len(), 33);
}

#[tokio::test]
async fn the_operators_pod_is_restricted() {
    let rig = Rig::new().await;
    let restricted = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(rig.client.clone());
    namespaces.patch(&rig.namespace, &PatchParams::default(), &Patch::Merge(restricted)).await.unwrap();
    rig.plane.service_account(&rig.namespace, "mailferry").await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/controller.yaml");
    let yaml = std::fs::read_to_string(file).unwrap();
    let deployment = &mailferry_testkit::cluster::documents(&yaml)[0].data;
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    let pod = |spec| read::<Pod>(json!({"metadata": {"name": "p"}, "spec": spec}));
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    rig.api::<Pod>().create(&dry_run, &pod(spec.clone())).await.unwrap();
    spec["containers"][0]["securityContext"]["capabilities"] = json!(null);
    let (code, _) = refusal(rig.api::<Pod>().create(&dry_run, &pod(spec)).await);
    assert_eq!(code, 403, "the namespace refuses what is not restricted");
}

#[tokio::test]
async fn the_operator_may_do_what_it_needs_and_nothing_more() {
    let rig = Rig::new().await;
    let operator = rig.plane.permissions("mailferry-system", "mailferry");
    let others = [
        (ApiResource::new("", "nodes"), "get list"),
        (ApiResource::new("networking.k8s.io", "servicecidrs"), "list"),
        (ApiResource::new("rbac.authorization.k8s.io", "rolebindings"), "get create patch"),
        (ApiResource::new("rbac.authorization.k8s.io", "clusterroles"), ""),
        (ApiResource::new("coordination.k8s.io", "leases"), ""),
    ];
    for (resource, allowed) in OPERATOR_PERMISSIONS.into_iter().chain(others) {
        assert_eq!(operator.verbs(Some(&rig.namespace), resource).await, allowed, "{resource:?}");
    }
}

#[tokio::test]
async fn the_operator_binds_workers_to_their_role_and_nobody_to_another() {
    let operator = OperatorClient::new().await;
    let namespace = &operator.rig.namespace;
    let apply = PatchParams::apply("mailferry").force();
    let accounts = operator.api::<ServiceAccount>();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": WORKER}});
    accounts.patch(WORKER, &apply, &Patch::Apply(account)).await.unwrap();

    let bindings = operator.api::<RoleBinding>();
    let bind = |role: &str| {
        Patch::Apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": WORKER, "namespace": namespace}],
        }))
    };
    bindings.patch(WORKER, &apply, &bind(WORKER)).await.unwrap();
    for role in ["cluster-admin", "system:node"] {
        let (code, message) = refusal(bindings.patch(role, &apply, &bind(role)).await);
        assert!(code == 403, "{role}: {message}");
    }
}

#[tokio::test]
async fn the_operator_reads_one_secret_by_its_name_and_lists_none() {
    let operator = OperatorClient::new().await;
    let secret = read::<Secret>(json!({"metadata": {"name": "csv"}, "stringData": {"m.csv": "a"}}));
    let ours = operator.rig.api::<Secret>();
    ours.create(&PostParams::default(), &secret).await.unwrap();
    let secrets = operator.api::<Secret>();
    secrets.get("csv").await.unwrap();
    assert_eq!(refusal(secrets.list(&ListParams::default()).await).0, 403);
}
