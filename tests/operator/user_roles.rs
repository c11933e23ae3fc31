//! deploy/user-roles.yaml: what whoever has Kubernetes' own roles may do with the resources.

use mailferry_testkit::{cluster::ApiResource, eventually, so};
use serde_json::json;

use crate::rig::{RBAC, Rig};

const MIGRATIONS: ApiResource = ApiResource::new("mailferry.io", "mailmigrations");
const READ: &str = "get list watch";
const WRITE: &str = "get list watch create update patch delete deletecollection";

/// Gives an account of that name one of Kubernetes' roles in the namespace.
async fn with_role(rig: &Rig, role: &str) {
    rig.plane.service_account(&rig.namespace, role).await;
    let binding = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": role},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": rig.namespace}],
    });
    rig.apply(&binding.to_string()).await;
}

#[tokio::test]
async fn who_may_edit_a_namespace_writes_migrations_and_servers_and_never_a_mailbox_sync_or_a_status() {
    let rig = Rig::new().await;
    for (role, writes) in [("view", READ), ("edit", WRITE), ("admin", WRITE)] {
        with_role(&rig, role).await;
        let user = rig.plane.permissions(&rig.namespace, role);
        eventually("the roles are put together", async || {
            let verbs = user.verbs(Some(&rig.namespace), MIGRATIONS).await;
            so(verbs == writes, verbs)
        })
        .await;
        let status = |resource| ApiResource::part("mailferry.io", resource, "status");
        for (resource, verbs) in [
            (ApiResource::new("mailferry.io", "mailservers"), writes),
            (ApiResource::new("mailferry.io", "mailboxsyncs"), READ),
            (status("mailmigrations"), READ),
            (status("mailservers"), READ),
            (status("mailboxsyncs"), READ),
        ] {
            assert_eq!(user.verbs(Some(&rig.namespace), resource).await, verbs, "{role} {resource:?}");
        }
    }
}
