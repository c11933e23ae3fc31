//! deploy/controller-fence.yaml: what the operator can't do with its rights, should somebody take it over. Each thing is
//! tried with the operator's own token.

use k8s_openapi::api::{
    core::v1::{Pod, Secret, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mailferry::{
    api::{MailMigration, MailboxSync},
    controller::{
        address_guard::PodAddresses,
        config::WorkerConfig,
        pod_builder::{AttemptRef, build_pod},
    },
};
use mailferry_testkit::{eventually, so};
use serde_json::{Value, json};

use crate::{
    cases::{migration, with},
    rig::{OperatorClient, RBAC, Rig, WORKER, read, refusal},
};

/// The pod of an attempt, as the operator makes it.
async fn attempt_pod(rig: &Rig) -> Value {
    let sync: MailboxSync = rig.mailbox_sync("alice", json!({"attempt": 1})).await;
    let uid = sync.uid().unwrap();
    let to = AttemptRef { namespace: &rig.namespace, name: "alice", uid: &uid, spec: &sync.spec, attempt: 1 };
    let config = WorkerConfig { image: "example/mailferry".into(), ..WorkerConfig::default() };
    serde_json::to_value(build_pod(to, &config, PodAddresses::default())).unwrap()
}

/// The policy said no, with these words.
fn assert_fenced<T: std::fmt::Debug>(result: Result<T, kube::Error>, words: &str, what: &str) {
    let (code, message) = refusal(result);
    assert!(code == 403 && message.contains(&format!("fenced: {words}")), "{what}: {code} {message}");
}

const OWNED: &str = "the operator writes and deletes only pods that a MailboxSync controls";
const SECRET: &str = "the operator makes, changes and deletes only Secrets that a MailMigration controls, and access tokens that a MailboxSync controls";

#[tokio::test]
async fn of_pods_it_makes_those_of_syncs_and_no_others() {
    let operator = OperatorClient::with_workers().await;
    operator.rig.plane.service_account(&operator.rig.namespace, "other").await;
    let pod = attempt_pod(&operator.rig).await;
    operator.create::<Pod>(pod.clone()).await.unwrap();
    let container = |name: &str, more: Value| {
        let mut container =
            json!({"name": name, "image": "none", "securityContext": {"allowPrivilegeEscalation": false}});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    };
    operator.create::<Pod>(with(&pod, "/spec/initContainers", json!([container("init", json!({}))]))).await.unwrap();
    let owner = |kind: &str, controller: bool| json!([{"apiVersion": "mailferry.io/v1alpha1", "kind": kind, "name": "alice", "uid": "u", "controller": controller}]);
    let (placed, node) =
        ("the operator's pods are placed by the scheduler", "the operator's pods use nothing of their node's");
    let (mounts, privileged) = ("the operator's pods mount nothing but", "the operator's pods are not privileged");
    let no_escalation = json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_ADMIN"]}});
    let windows = json!({"allowPrivilegeEscalation": false, "windowsOptions": {"runAsUserName": "x"}});
    for (pointer, value, words) in [
        ("/metadata/ownerReferences", json!([]), OWNED),
        ("/metadata/ownerReferences", owner("MailMigration", true), OWNED),
        ("/metadata/ownerReferences", owner("MailboxSync", false), OWNED),
        ("/spec/serviceAccountName", json!("other"), "the operator's pods run as the ServiceAccount mailferry-worker"),
        ("/spec/nodeName", json!("some-node"), placed),
        ("/spec/hostNetwork", json!(true), node),
        ("/spec/hostPID", json!(true), node),
        ("/spec/hostIPC", json!(true), node),
        ("/spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 80}]), node),
        ("/spec/volumes", json!([{"name": "secret-0", "hostPath": {"path": "/"}}]), mounts),
        ("/spec/volumes", json!([{"name": "secret-0", "persistentVolumeClaim": {"claimName": "c"}}]), mounts),
        ("/spec/containers/0/securityContext", json!({"privileged": true}), privileged),
        ("/spec/containers/0/securityContext", json!({}), privileged),
        ("/spec/containers/0/securityContext", no_escalation, privileged),
        ("/spec/containers/0/securityContext", windows, privileged),
        ("/spec/securityContext/windowsOptions", json!({"runAsUserName": "x"}), privileged),
        (
            "/spec/initContainers",
            json!([container("init", json!({"securityContext": {"privileged": true}}))]),
            privileged,
        ),
    ] {
        let what = format!("{pointer} {value}");
        assert_fenced(operator.create::<Pod>(with(&pod, pointer, value)).await, words, &what);
    }
    let mut unmasked = with(&pod, "/spec/hostUsers", json!(false));
    unmasked["spec"]["containers"][0]["securityContext"]["procMount"] = json!("Unmasked");
    assert_fenced(operator.create::<Pod>(unmasked).await, privileged, "procMount");
}

#[tokio::test]
async fn of_a_pod_that_is_there_it_takes_its_own_finalizer_off_and_changes_nothing() {
    let operator = OperatorClient::with_workers().await;
    let pods = operator.api::<Pod>();
    let mut pod = attempt_pod(&operator.rig).await;
    pod["metadata"]["finalizers"] = json!(["mailferry.io/certain-end", "example.com/other"]);
    let pod = pods.create(&PostParams::default(), &read(pod)).await.unwrap();
    let name = pod.name_any();
    let change = async |patch: Value| pods.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    let nothing = "of a pod that is there the operator takes its own finalizer off, and changes nothing else";
    for patch in [
        json!({"spec": {"containers": [{"name": "sync", "image": "example/another"}]}}),
        json!({"spec": {"activeDeadlineSeconds": 1}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/other"]}}),
        json!({"metadata": {"finalizers": ["example.com/more"]}}),
        json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": pod.metadata.owner_references.as_ref().unwrap()[0].uid}]}}),
    ] {
        let what = patch.to_string();
        assert_fenced(change(patch).await, nothing, &what);
    }
    change(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["mailferry.io/certain-end"]}})).await.unwrap();

    let others = operator.rig.worker_pod("others").await;
    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    assert_fenced(pods.patch("others", &PatchParams::default(), &patch).await, OWNED, "another's pod");
    assert_fenced(pods.delete("others", &DeleteParams::default()).await, OWNED, "another's pod");
    assert_eq!(operator.rig.api::<Pod>().get("others").await.unwrap().uid(), others.uid());
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn of_secrets_it_makes_and_deletes_those_of_migrations() {
    let operator = OperatorClient::with_workers().await;
    let migrations = operator.rig.api::<MailMigration>();
    let made = migrations.create(&PostParams::default(), &read(migration())).await.unwrap();
    let owner = |kind: &str, controller: bool| json!([{"apiVersion": "mailferry.io/v1alpha1", "kind": kind, "name": "m", "uid": made.uid(), "controller": controller}]);
    let secret =
        json!({"metadata": {"name": "s", "ownerReferences": owner("MailMigration", true)}, "stringData": {"k": "v"}});
    operator.create::<Secret>(secret.clone()).await.unwrap();
    for (pointer, value, words) in [
        ("/metadata/ownerReferences", json!([]), SECRET),
        ("/metadata/ownerReferences", owner("MailServer", true), SECRET),
        ("/metadata/ownerReferences", owner("MailMigration", false), SECRET),
        (
            "/type",
            json!("example.com/other"),
            "the operator makes and deletes only Secrets of type Opaque, and access tokens",
        ),
        ("/type", json!("mailferry.io/access-token"), SECRET),
    ] {
        let what = format!("{pointer} {value}");
        assert_fenced(operator.create::<Secret>(with(&secret, pointer, value)).await, words, &what);
    }
    // One that the cluster would fill with a token of whoever it names.
    let mut token = with(&secret, "/type", json!("kubernetes.io/service-account-token"));
    token["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": WORKER});
    assert_fenced(
        operator.create::<Secret>(token).await,
        "the operator makes and deletes only Secrets of type",
        "token",
    );

    let secrets = operator.api::<Secret>();
    secrets.create(&PostParams::default(), &read(secret)).await.unwrap();
    secrets.delete("s", &DeleteParams::default()).await.unwrap();
    let others = read(json!({"metadata": {"name": "others"}, "stringData": {"k": "v"}}));
    operator.rig.api::<Secret>().create(&PostParams::default(), &others).await.unwrap();
    assert_fenced(secrets.delete("others", &DeleteParams::default()).await, SECRET, "another's Secret");
}

#[tokio::test]
async fn of_secrets_that_are_there_it_changes_the_access_tokens_of_syncs_and_no_others() {
    let operator = OperatorClient::with_workers().await;
    let sync: MailboxSync = operator.rig.mailbox_sync("alice", json!({"attempt": 1})).await;
    let owner = |kind: &str, uid: Option<String>| json!([{"apiVersion": "mailferry.io/v1alpha1", "kind": kind, "name": "alice", "uid": uid, "controller": true}]);
    let token = json!({
        "metadata": {"name": "alice.mailferry-token", "ownerReferences": owner("MailboxSync", sync.uid())},
        "type": "mailferry.io/access-token", "stringData": {"source": "one"},
    });
    assert_fenced(
        operator.create::<Secret>(with(&token, "/metadata/ownerReferences", owner("MailMigration", sync.uid()))).await,
        SECRET,
        "a token that a MailMigration controls",
    );
    let plain = with(&token, "/type", Value::Null);
    assert_fenced(operator.create::<Secret>(plain).await, SECRET, "another Secret that a MailboxSync controls");
    let secrets = operator.api::<Secret>();
    secrets.create(&PostParams::default(), &read(token)).await.unwrap();
    let change =
        async |name: &str, patch: Value| secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let data = json!({"stringData": {"source": "two"}});
    change("alice.mailferry-token", data.clone()).await.unwrap();
    let only = "of Secrets that are there the operator changes access tokens only, and never whose they are";
    let foreign = json!({"metadata": {"ownerReferences": owner("MailboxSync", Some("another".to_owned()))}});
    assert_fenced(change("alice.mailferry-token", foreign).await, only, "another owner");

    let admin = operator.rig.api::<Secret>();
    let made = operator.rig.api::<MailMigration>().create(&PostParams::default(), &read(migration())).await.unwrap();
    let mut of_migration = owner("MailMigration", made.uid());
    of_migration[0]["name"] = json!("m");
    let others = |name: &str, owners: Value, kind: &str| json!({"metadata": {"name": name, "ownerReferences": owners}, "type": kind, "stringData": {"source": "v"}});
    for (secret, words) in [
        (others("plain", json!([]), "Opaque"), only),
        (others("csv", of_migration, "Opaque"), only),
        (others("of-a-sync", owner("MailboxSync", sync.uid()), "Opaque"), only),
        (others("of-nobody", json!([]), "mailferry.io/access-token"), only),
        (others("client", json!([]), "mailferry.io/oauth-client"), only),
    ] {
        let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
        admin.create(&PostParams::default(), &read(secret)).await.unwrap();
        assert_fenced(change(&name, data.clone()).await, words, &name);
    }
    assert_fenced(secrets.delete("of-nobody", &DeleteParams::default()).await, SECRET, "nobody's token");
    assert_fenced(secrets.delete("client", &DeleteParams::default()).await, SECRET, "a client's secret");
    secrets.delete("alice.mailferry-token", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn of_service_accounts_it_writes_the_workers_and_gives_it_nothing() {
    let operator = OperatorClient::with_workers().await;
    let accounts = operator.api::<ServiceAccount>();
    let apply = async |name: &str, more: Value| {
        let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        for (key, value) in more.as_object().unwrap() {
            account[key] = value.clone();
        }
        accounts.patch(name, &PatchParams::apply("mailferry-controller").force(), &Patch::Apply(account)).await
    };
    apply(WORKER, json!({"imagePullSecrets": [{"name": "registry"}]})).await.unwrap();
    assert_fenced(apply("default", json!({})).await, "the operator writes only the ServiceAccount", "default");
    assert_fenced(apply("another", json!({})).await, "the operator writes only the ServiceAccount", "another");
    let nothing = "the operator gives a ServiceAccount no annotations and no secrets";
    let role = json!({"metadata": {"name": WORKER, "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/admin"}}});
    assert_fenced(apply(WORKER, role.clone()).await, nothing, "annotations");
    assert_fenced(apply(WORKER, json!({"secrets": [{"name": "s"}]})).await, nothing, "secrets");
    // What somebody else gave it, stays.
    let given = Patch::Merge(json!({"metadata": role["metadata"], "secrets": [{"name": "s"}]}));
    operator.rig.api::<ServiceAccount>().patch(WORKER, &PatchParams::default(), &given).await.unwrap();
    apply(WORKER, json!({})).await.unwrap();

    accounts
        .patch(WORKER, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}})))
        .await
        .unwrap();
    let elsewhere = Rig::new().await;
    let fresh = Api::<ServiceAccount>::namespaced(operator.client.clone(), &elsewhere.namespace);
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": WORKER, "annotations": {"a": "b"}}});
    let made = fresh.patch(WORKER, &PatchParams::apply("m"), &Patch::Apply(account)).await;
    assert_fenced(made, nothing, "annotations of a new one");
}

#[tokio::test]
async fn of_role_bindings_it_writes_the_workers_alone() {
    let operator = OperatorClient::with_workers().await;
    let namespace = operator.rig.namespace.clone();
    // As if RBAC let it bind more than it does.
    let user = json!({"kind": "ServiceAccount", "name": "mailferry", "namespace": "mailferry-system"});
    for more in [
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": "binder"}, "rules": [
            {"apiGroups": [RBAC], "resources": ["clusterroles", "roles"], "verbs": ["bind"]}]}),
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": "binder"},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "binder"}, "subjects": [user]}),
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": WORKER}, "rules": []}),
    ] {
        operator.rig.apply(&more.to_string()).await;
    }
    let bindings = operator.api::<RoleBinding>();
    let worker = json!([{"kind": "ServiceAccount", "name": WORKER, "namespace": namespace}]);
    let apply = async |name: &str, kind: &str, role: &str, subjects: &Value| {
        let binding = json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role}, "subjects": subjects,
        });
        bindings.patch(name, &PatchParams::apply("mailferry-controller").force(), &Patch::Apply(binding)).await
    };
    apply(WORKER, "ClusterRole", WORKER, &worker).await.unwrap();
    // Another's RoleBinding, and one of its own name in a namespace that has none yet.
    assert_fenced(
        apply("another", "ClusterRole", WORKER, &worker).await,
        "the operator writes only the RoleBinding",
        "name",
    );
    operator.rig.api::<RoleBinding>().delete(WORKER, &DeleteParams::default()).await.unwrap();
    let role = "the operator binds only the role of sync pods";
    for (kind, name) in [("ClusterRole", "admin"), ("ClusterRole", "view"), ("Role", WORKER)] {
        // RBAC learns of the right to bind by a watch: before, it refuses by itself.
        eventually(&format!("the fence refuses {kind} {name}"), async || {
            let (code, message) = refusal(apply(WORKER, kind, name, &worker).await);
            assert_eq!(code, 403, "{message}");
            so(message.contains(&format!("fenced: {role}")), message)
        })
        .await;
    }
    let only = "the operator binds only the ServiceAccount mailferry-worker of the same namespace";
    let another = |kind: &str, name: &str, namespace: Option<&str>| {
        let group = if kind == "ServiceAccount" { "" } else { RBAC };
        json!({"kind": kind, "name": name, "namespace": namespace, "apiGroup": group})
    };
    for subjects in [
        json!([]),
        json!([another("ServiceAccount", "default", Some(&namespace))]),
        json!([another("ServiceAccount", WORKER, Some("kube-system"))]),
        json!([another("User", "somebody", None)]),
        json!([another("Group", "system:authenticated", None)]),
        json!([worker[0], another("ServiceAccount", "default", Some(&namespace))]),
    ] {
        assert_fenced(apply(WORKER, "ClusterRole", WORKER, &subjects).await, only, &subjects.to_string());
    }
    apply(WORKER, "ClusterRole", WORKER, &worker).await.unwrap();
}

#[tokio::test]
async fn nobody_else_is_held_to_it() {
    let rig = Rig::new().await;
    rig.allow_workers().await;
    rig.worker_pod("others").await;
    rig.plane.service_account(&rig.namespace, "another").await;
    rig.apply("{apiVersion: v1, kind: Secret, metadata: {name: others}, stringData: {k: v}}").await;
    rig.api::<Pod>().delete("others", &DeleteParams::default()).await.unwrap();
}
