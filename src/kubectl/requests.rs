//! What the plugin asks the API server for.

use futures::{AsyncBufReadExt as _, Stream, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource,
    api::{ListParams, LogParams, Patch, PatchParams},
    core::NamespaceResourceScope,
};

use super::{mailbox_view::MailboxView, steer::Step};
use crate::{
    api::{MailMigration, MailboxSync, names},
    error::{Error, ErrorClass, Result},
};

/// Objects asked for at once: each may have a checkpoint of 256 KiB.
const PAGE: u32 = 20;
/// So often a change is tried again that meets another one: the operator writes statuses all the time.
const MAX_CONFLICTS: usize = 10;
/// Who owns the fields that the plugin writes.
const FIELD_MANAGER: &str = "kubectl-mailferry";
/// The container of a sync's pod that logs.
const CONTAINER: &str = "sync";

/// One namespace of a cluster, or all of them.
#[derive(Clone)]
pub(crate) struct ClusterScope {
    /// The API server.
    pub client: Client,
    /// None: all namespaces.
    pub namespace: Option<String>,
}

impl ClusterScope {
    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// The migrations of these names; all where none is named.
    ///
    /// # Errors
    /// Configuration where a name is not there; what the API server refuses.
    pub(crate) async fn migrations(&self, wanted: &[String]) -> Result<Vec<MailMigration>> {
        let mut migrations = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = self.api::<MailMigration>().list(&page).await;
            let list = list.map_err(|error| refused("list MailMigrations", &error))?;
            let named =
                |migration: &MailMigration| migration.metadata.name.as_ref().is_some_and(|n| wanted.contains(n));
            migrations.extend(list.items.into_iter().filter(|migration| wanted.is_empty() || named(migration)));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        let is_there = |name: &&String| migrations.iter().any(|found| found.metadata.name.as_ref() == Some(*name));
        match wanted.iter().find(|name| !is_there(name)) {
            Some(missing) => Err(self.unknown(missing)),
            None => Ok(migrations),
        }
    }

    /// The mailboxes of the scope, as they stand now, by name; maybe those of a single migration only.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn mailboxes(&self, migrations: &[MailMigration], now: Timestamp) -> Result<Vec<MailboxView>> {
        let mut views = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        if let [only] = migrations
            && let Some(name) = &only.metadata.name
        {
            page = page.fields(&format!("spec.migration={name}"));
        }
        loop {
            let list = match self.api::<MailboxSync>().list(&page).await {
                // Kubernetes 1.30 selects by no fields of custom resources.
                Err(kube::Error::Api(status)) if status.code == 400 && page.field_selector.is_some() => {
                    page.field_selector = None;
                    continue;
                }
                list => list.map_err(|error| refused("list MailboxSyncs", &error))?,
            };
            views.extend(list.items.iter().map(|sync| MailboxView::new(sync, now)));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        views.sort_by(|a, b| a.mailbox.cmp(&b.mailbox));
        Ok(views)
    }

    /// The MailboxSync of a mailbox: of this migration, or of whichever has it.
    ///
    /// # Errors
    /// Configuration where there is none, or more than one; what the API server refuses.
    pub(crate) async fn mailbox(&self, migration: Option<&str>, mailbox: &str) -> Result<MailboxSync> {
        let migrations = if let Some(name) = migration {
            vec![name.to_owned()]
        } else {
            let list = self.api::<MailMigration>().list_metadata(&ListParams::default()).await;
            let list = list.map_err(|error| refused("list MailMigrations", &error))?;
            list.items.into_iter().filter_map(|object| object.metadata.name).collect()
        };
        let mut found = Vec::new();
        for name in &migrations {
            let sync = self.api::<MailboxSync>().get_opt(&names::mailbox_sync(name, mailbox)).await;
            found.extend(sync.map_err(|error| refused("get MailboxSyncs", &error))?);
        }
        if found.len() > 1 {
            let of: Vec<&str> = found.iter().map(|sync| sync.spec.migration.as_str()).collect();
            let what = format!("more than one migration has a mailbox {mailbox}: {}", of.join(", "));
            return Err(Error::configuration(what).advice("Name one by --migration"));
        }
        found.pop().ok_or_else(|| {
            let whose =
                migration.map_or_else(|| "no migration".to_owned(), |name| format!("the migration {name} does not"));
            let has = if migration.is_some() { "have" } else { "has" };
            Error::configuration(format!("{whose} {has} a mailbox {mailbox}{}", self.place()))
                .advice("`kubectl mailferry status --mailboxes` shows all mailboxes")
        })
    }

    /// The log of a pod, line by line; `follow`: until the pod ends.
    ///
    /// # Errors
    /// What the API server refuses; Configuration where the pod is gone.
    pub(crate) async fn log_lines(
        &self,
        pod: &str,
        tail: Option<i64>,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<String>> + use<>> {
        let parameters =
            LogParams { container: Some(CONTAINER.to_owned()), follow, tail_lines: tail, ..LogParams::default() };
        let log = self.api::<Pod>().log_stream(pod, &parameters).await.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => Error::configuration(format!("the pod {pod} is gone"))
                .advice("finishedPodsTTL, failedPodsLimit and succeededPodsLimit of the migration keep more of them"),
            _ => refused("get pods/log", &error),
        })?;
        Ok(log.lines().map_err(|error| Error::network(format!("the log can't be read on: {error}"))))
    }

    /// Decides what to do about a migration, and does it; again where the migration changed meanwhile. Gives what was done,
    /// in words.
    ///
    /// # Errors
    /// Configuration where there is no such migration; what the API server refuses, and what `decide` says.
    pub(crate) async fn change(&self, name: &str, decide: impl Fn(&MailMigration) -> Result<Step>) -> Result<String> {
        let api = self.api::<MailMigration>();
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let mut conflicts = 0;
        loop {
            let migration = api.get_opt(name).await.map_err(|error| refused("get MailMigrations", &error))?;
            let migration = migration.ok_or_else(|| self.unknown(name))?;
            let (patch, words) = match decide(&migration)? {
                Step::Nothing(why) => return Ok(why),
                Step::Patch(patch, words) => (patch, words),
            };
            match api.patch(name, &parameters, &Patch::Merge(patch)).await {
                Ok(_) => return Ok(words),
                Err(kube::Error::Api(status)) if status.code == 409 && conflicts < MAX_CONFLICTS => conflicts += 1,
                Err(error) => return Err(refused("patch MailMigrations", &error)),
            }
        }
    }

    fn unknown(&self, migration: &str) -> Error {
        Error::configuration(format!("there is no MailMigration {migration}{}", self.place()))
            .advice("`kubectl get mailmigrations -A` shows all; -n names a namespace")
    }

    fn place(&self) -> String {
        self.namespace.as_ref().map(|namespace| format!(" in the namespace {namespace}")).unwrap_or_default()
    }
}

/// What the API server refused: `what` is a verb and what it is about.
#[must_use]
pub(crate) fn refused(what: &str, error: &kube::Error) -> Error {
    let kube::Error::Api(status) = error else {
        return Error::network(format!("the API server can't be reached: {error}")).advice("Run the same again");
    };
    let said = format!("the API server does not let you {what}: {}", status.message);
    match status.code {
        401 => Error::new(ErrorClass::Authentication, said).advice("Check the kubeconfig's credentials"),
        403 => Error::new(ErrorClass::Authorization, said)
            .advice("Ask whoever runs the cluster for the right that it names"),
        404 => Error::configuration(said).advice("Check that the operator's definitions are installed"),
        _ => {
            Error::configuration(said).advice("Check that the operator's definitions are installed and of this version")
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// A cluster that answers each request so.
    fn cluster(answer: fn(&Request<Body>) -> (u16, String)) -> ClusterScope {
        let service = service_fn(move |request: Request<Body>| {
            let (code, body) = answer(&request);
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            async move { Ok::<_, std::io::Error>(response.body(Body::from(body.into_bytes())).unwrap()) }
        });
        ClusterScope { client: Client::new(service, "customers"), namespace: Some("customers".to_owned()) }
    }

    fn refusal(code: u16, message: &str) -> (u16, String) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "x", "code": code});
        (code, status.to_string())
    }

    #[tokio::test]
    async fn a_log_is_that_of_the_container_that_syncs_and_comes_line_by_line() {
        let cluster = cluster(|request| {
            assert_eq!(request.uri().path(), "/api/v1/namespaces/customers/pods/acme-alice-1/log");
            let query = request.uri().query().unwrap();
            assert!(query.contains("container=sync") && query.contains("tailLines=2"), "{query}");
            (200, "one\ntwo\n".to_owned())
        });
        let lines = cluster.log_lines("acme-alice-1", Some(2), false).await.unwrap();
        assert_eq!(lines.try_collect::<Vec<_>>().await.unwrap(), ["one", "two"]);
    }

    #[tokio::test]
    async fn what_the_api_server_refuses_is_told_by_its_class() {
        let refused = cluster(|_| refusal(403, "mailmigrations is forbidden"));
        let error = refused.migrations(&[]).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Authorization);
        assert!(error.what.contains("list MailMigrations: mailmigrations is forbidden"), "{error}");
        let error = cluster(|_| refusal(404, "not found")).log_lines("p", None, false).await.map(drop).unwrap_err();
        assert!(error.what.contains("the pod p is gone"), "{error}");
    }

    #[tokio::test]
    async fn where_fields_select_nothing_all_are_listed() {
        let old = cluster(|request| match request.uri().query() {
            Some(query) if query.contains("fieldSelector") => refusal(400, "field label not supported: spec.migration"),
            _ => {
                let list = json!({"kind": "MailboxSyncList", "apiVersion": "mailferry.io/v1alpha1", "metadata": {}, "items": []});
                (200, list.to_string())
            }
        });
        let spec = json!({"source": {}, "destination": {}});
        let acme = json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "acme"}, "spec": spec});
        let acme: MailMigration = serde_json::from_value(acme).unwrap();
        assert!(old.mailboxes(&[acme], Timestamp::UNIX_EPOCH).await.unwrap().is_empty());
    }
}
