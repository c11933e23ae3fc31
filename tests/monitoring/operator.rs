//! The metrics of an operator that has seen everything, served as an operator serves them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mailferry::{
    ErrorClass, Side,
    api::{mail_migration::MigrationPhase, mailbox_sync::SyncPhase},
    telemetry::{
        health::{HealthListener, Readiness},
        liveness::Liveness,
        metrics::{MailboxTally, Metrics, ReconcileResult, RestartReason, SyncResult, TransferDelta},
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct Operator {
    pub metrics: Metrics,
    pub address: SocketAddr,
    _stop: DropGuard,
}

impl Operator {
    /// One that has done nothing yet.
    pub async fn start() -> Self {
        let metrics = Metrics::new().unwrap();
        let listener = HealthListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
        tokio::spawn(listener.serve(metrics.clone(), Readiness::default(), Liveness::default(), stop.clone()));
        Self { metrics, address, _stop: stop.drop_guard() }
    }

    /// Some of everything happens.
    pub fn work(&self) {
        work(&self.metrics);
    }
}

/// What an operator exposes that has seen some of everything.
pub fn exposed() -> String {
    let metrics = Metrics::new().unwrap();
    work(&metrics);
    metrics.text().unwrap()
}

/// The names of all metrics.
pub fn names() -> Vec<String> {
    let text = exposed();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn work(metrics: &Metrics) {
    metrics.set_leader(true);
    metrics.set_reads_secrets(true);
    metrics.set_migrations([(MigrationPhase::Running, 2), (MigrationPhase::Complete, 1)]);
    metrics.set_mailboxes(&MailboxTally {
        phases: BTreeMap::from([(SyncPhase::Running, 4), (SyncPhase::Queued, 7), (SyncPhase::Stalled, 1)]),
        failing: BTreeMap::from([((ErrorClass::Authentication, Some(Side::Source)), 1)]),
        missed: 1,
        overdue: Duration::from_secs(4000),
        not_copied: BTreeMap::from([("refused", 3)]),
        differences: BTreeMap::from([("flags", 5)]),
    });
    metrics.set_queue(7, 4);
    metrics.observe_queue_wait(Duration::from_secs(30));
    metrics.count_transfer(TransferDelta { messages: 10, bytes: 100_000 });
    for result in [SyncResult::Synced, SyncResult::Stopped, SyncResult::Failed, SyncResult::Lost] {
        metrics.sync_ended(result, Duration::from_secs(90));
    }
    metrics.sync_error(ErrorClass::Authentication, Some(Side::Source));
    for restart in
        [RestartReason::Deadline, RestartReason::Stall, RestartReason::NotStarted, RestartReason::LostContact]
    {
        metrics.restarted(restart);
    }
    metrics.set_longest_reconcile_wait(Duration::from_millis(40));
    metrics.set_reconcile_backlog("MailboxSync", 3, Duration::from_millis(900));
    metrics.pod_refused();
    metrics.server_checked(None);
    metrics.server_checked(Some(ErrorClass::Tls));
    for (verb, resource, code) in [
        ("patch", "mailboxsyncs/status", "200"),
        ("patch", "mailboxsyncs/status", "409"),
        ("patch", "rolebindings", "403"),
        ("list", "pods", "200"),
        ("list", "pods", "500"),
        ("list", "pods", "error"),
        ("create", "pods", "403"),
        ("watch", "mailboxsyncs", "error"),
        ("create", "pods", "timeout"),
    ] {
        metrics.api_request(verb, resource, code);
    }
    for controller in ["MailMigration", "MailboxSync", "MailServer"] {
        for result in [ReconcileResult::Ok, ReconcileResult::Conflict, ReconcileResult::Error] {
            metrics.reconciled(controller, result, Duration::from_millis(4));
        }
    }
}
