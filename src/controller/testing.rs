//! What the tests of several modules share.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use kube::{
    Client,
    client::Body,
    runtime::events::{Recorder, Reporter},
};
use tower::Service;

use super::{
    address_guard::AddressGuard,
    cache::{CacheWriters, new_caches},
    config::{OperatorConfig, WorkerConfig},
    context::{ContextParts, ControllerContext},
    owner_reference,
};
use crate::{
    api::{MailMigration, MailboxSync, MailboxSyncSpec, SyncEndpoint, SyncSettings},
    telemetry::{liveness::Liveness, metrics::Metrics},
};

/// A mailbox of a migration, with nothing but defaults.
pub(crate) fn mailbox_spec(migration: &str, mailbox: &str) -> MailboxSyncSpec {
    MailboxSyncSpec {
        migration: migration.to_owned(),
        mailbox: mailbox.to_owned(),
        source: SyncEndpoint::default(),
        destination: SyncEndpoint::default(),
        settings: SyncSettings::default().into(),
        suspend: false,
        cancel: false,
        sync_request: None,
        start_at: None,
        pod_overrides: None,
    }
}

/// A migration without mailboxes.
pub(crate) fn migration(name: &str) -> MailMigration {
    let spec = serde_json::json!({
        "source": {"server": {"host": "old.example"}}, "destination": {"server": {"host": "new.example"}},
    });
    let mut migration = MailMigration::new(name, serde_json::from_value(spec).unwrap());
    migration.metadata.namespace = Some("ns".to_owned());
    migration.metadata.uid = Some(format!("uid of {name}"));
    migration
}

/// A mailbox of a migration, as the operator makes it.
pub(crate) fn mailbox_sync(migration: &MailMigration, mailbox: &str) -> MailboxSync {
    let of = migration.metadata.name.as_deref().unwrap();
    let mut spec = mailbox_spec(of, mailbox);
    spec.destination.account.username = Some(mailbox.to_owned());
    let mut sync = MailboxSync::new(&format!("{of}-{mailbox}"), spec);
    sync.metadata.namespace.clone_from(&migration.metadata.namespace);
    sync.metadata.uid = Some(format!("uid of {of}-{mailbox}"));
    sync.metadata.owner_references = Some(vec![owner_reference::controller_reference(migration)]);
    sync
}

/// An API server that answers everything with an empty page.
#[derive(Clone)]
struct SilentServer;

impl Service<Request<Body>> for SilentServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::empty())))
    }
}

/// An operator's context without a cluster, and what fills its caches.
pub(crate) fn context(config: OperatorConfig) -> (ControllerContext, CacheWriters) {
    let client = Client::new(SilentServer, "default");
    let (caches, writers) = new_caches();
    let addresses = AddressGuard::new(config.addresses.clone(), config.policy.clone(), None);
    let reporter = Reporter { controller: "test".to_owned(), instance: None };
    let context = ControllerContext::new(ContextParts {
        client: client.clone(),
        config,
        own_namespace: "mailferry-system".to_owned(),
        worker: WorkerConfig::default(),
        addresses: Arc::new(addresses),
        caches: Arc::new(caches),
        recorder: Recorder::new(client, reporter),
        metrics: Metrics::new().unwrap(),
        liveness: Liveness::default(),
    });
    (context, writers)
}
