//! Objects in every state that the operator writes, by the operator's own decisions.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated},
    apimachinery::pkg::apis::meta::v1::Time,
};
use mailferry::{
    Error, ErrorClass,
    api::{
        LastError, MailMigration, MailMigrationStatus, MailServer, MailServerStatus, MailboxSync, MailboxSyncStatus,
        WorkerStatus, crd, mail_server::ServerFacts, mailbox_sync::Outcome, names, not_copied::NotCopied,
    },
    controller::{
        cached_objects::{ContainerFacts, SYNC_LABEL, SyncPod},
        mailbox::{
            decide::decide,
            observe::{HoldReason, ObservedMailbox, SecretsSeen, TokensSeen, WorkerLiveness},
        },
        migration::{
            aggregate::{UnmadeMailboxes, aggregate},
            conditions::{MigrationFacts, conditions, migration_phase},
        },
        server::decide as server,
    },
    sync_times::{ClosedTimes, SyncTimes},
};
use serde_json::{Value, json};

/// When everything here happens.
pub fn now() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

fn hours(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

/// An object of a kind as the API server shows it before the operator has seen it.
pub fn fresh(kind: &str) -> Value {
    let crd = crd::all().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let default = &schema.properties.as_ref().unwrap()["status"].default;
    json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": kind,
        "metadata": {"name": "x", "namespace": "customers", "generation": 1},
        "spec": {}, "status": default,
    })
}

/// One mailbox, as far as it has come.
#[derive(Clone)]
pub struct Mailbox {
    pub sync: MailboxSync,
    pub pods: Vec<Arc<SyncPod>>,
    pub hold: Option<HoldReason>,
    pub sync_times: SyncTimes,
    pub granted_slots: Option<i32>,
}

impl Mailbox {
    /// Its MailboxSync was just made.
    pub fn new(name: &str) -> Self {
        let account = json!({"username": name, "passwordSecretRef": {"name": "mail", "key": name}});
        let side = |host: &str| json!({"server": {"host": host}, "account": account});
        let sync = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync",
            "metadata": {"name": name, "namespace": "customers", "uid": name, "generation": 1},
            "spec": {
                "migration": "acme", "mailbox": name,
                "source": side("old.example"), "destination": side("new.example"),
            },
        });
        let sync = serde_json::from_value(sync).unwrap();
        Self { sync, pods: Vec::new(), hold: None, sync_times: SyncTimes::ALWAYS, granted_slots: Some(1) }
    }

    /// Has the operator decide, until nothing is left to write.
    pub fn settle(mut self) -> Self {
        for _ in 0..8 {
            let before = self.sync.status.clone().unwrap_or_default();
            let observed = ObservedMailbox {
                name: self.sync.metadata.name.as_deref().unwrap(),
                uid: self.sync.metadata.uid.as_deref().unwrap(),
                generation: self.sync.metadata.generation.unwrap(),
                deleting: false,
                spec: &self.sync.spec,
                status: &before,
                pods: &self.pods,
                surplus_pods: &[],
                liveness: WorkerLiveness::first_seen(before.attempt, SignedDuration::ZERO),
                granted_slots: self.granted_slots,
                waits_for: None,
                hold: self.hold.clone(),
                sync_times: self.sync_times.clone(),
                secrets: SecretsSeen::Present(vec!["mail=1".into()]),
                tokens: TokensSeen::NotNeeded,
                node_out_of_service: false,
                scheduling_timeout: jiff::SignedDuration::from_mins(30),
                now: now(),
                since_boot: SignedDuration::ZERO,
            };
            let next = decide(&observed).status;
            let settled = next == before;
            self.sync.status = Some(next);
            if settled {
                return self;
            }
        }
        panic!("the status does not settle: {:?}", self.sync.status);
    }

    /// Its first attempt runs.
    pub fn running(name: &str) -> Self {
        Self::new(name).settle()
    }

    /// Its first attempt ended, as its worker said; without a word when nothing is given.
    pub fn ended(name: &str, outcome: Option<Outcome>, error: Option<ErrorClass>) -> Self {
        let mut mailbox = Self::running(name);
        let status: &mut MailboxSyncStatus = mailbox.sync.status.as_mut().unwrap();
        status.worker = Some(WorkerStatus {
            attempt: status.attempt,
            report: 1,
            outcome,
            last_error: error.map(|class| LastError::new(&Error::new(class, "it went wrong"), None)),
            ..WorkerStatus::default()
        });
        let mut pod = SyncPod::default();
        pod.metadata.name = Some(names::pod(name, status.attempt));
        pod.metadata.uid = Some("pod".to_owned());
        pod.metadata.labels = Some([(SYNC_LABEL.to_owned(), name.to_owned())].into());
        let terminated = ContainerStateTerminated {
            // SIGKILL from outside.
            exit_code: if outcome.is_none() { 137 } else { i32::from(error.is_some()) },
            finished_at: Some(Time(now())),
            ..ContainerStateTerminated::default()
        };
        let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
        pod.status.container_statuses = vec![ContainerFacts::of_sync(Some(state))];
        mailbox.pods = vec![Arc::new(pod)];
        // What comes next waits for its turn.
        mailbox.granted_slots = None;
        mailbox.settle()
    }

    pub fn synced(name: &str) -> Self {
        Self::ended(name, Some(Outcome::Synced), None)
    }

    /// The same, and its worker told what is not copied.
    pub fn synced_but(name: &str, not_copied: NotCopied) -> Self {
        let mut mailbox = Self::synced(name);
        mailbox.sync.status.as_mut().unwrap().worker.as_mut().unwrap().not_copied = Some(not_copied);
        mailbox.settle()
    }

    pub fn failed(name: &str, class: ErrorClass) -> Self {
        Self::ended(name, Some(Outcome::Failed), Some(class))
    }

    /// As the API server shows it.
    pub fn object(&self) -> Value {
        serde_json::to_value(&self.sync).unwrap()
    }
}

/// So many messages were refused.
pub fn refused(messages: i64) -> NotCopied {
    NotCopied { messages, reasons: [("refused".to_owned(), messages)].into(), ..NotCopied::default() }
}

/// Every state of a mailbox, with a name for messages.
pub fn mailboxes() -> Vec<(&'static str, Mailbox)> {
    let with = |change: fn(&mut Mailbox)| {
        let mut mailbox = Mailbox::new("alice");
        change(&mut mailbox);
        mailbox.settle()
    };
    vec![
        ("before its time", with(|m| m.sync.spec.start_at = Some(Time(hours(1))))),
        ("waits for its turn", with(|m| m.granted_slots = None)),
        (
            "waits for a time window",
            with(|m| {
                let closed = ClosedTimes { opens_at: Some(hours(1)), words: "outside the time windows".to_owned() };
                m.sync_times = SyncTimes::Closed(closed);
            }),
        ),
        ("waits for another migration", with(|m| m.hold = Some(HoldReason::DestinationTaken))),
        ("its migration is suspended", with(|m| m.hold = Some(HoldReason::MigrationSuspended))),
        ("its migration is being deleted", with(|m| m.hold = Some(HoldReason::MigrationInactive))),
        ("runs", Mailbox::running("alice")),
        ("synced", Mailbox::synced("alice")),
        ("synced, all copied", Mailbox::synced_but("alice", NotCopied::default())),
        ("synced, not all copied", Mailbox::synced_but("alice", refused(3))),
        ("waits after a failure", Mailbox::failed("alice", ErrorClass::Network)),
        ("lost its pod", Mailbox::ended("alice", None, None)),
        ("suspended", with(|m| m.sync.spec.suspend = true)),
        ("waits for a person", Mailbox::failed("alice", ErrorClass::Authentication)),
        ("no room", Mailbox::failed("alice", ErrorClass::Quota)),
        ("given up", Mailbox::failed("alice", ErrorClass::Configuration)),
        (
            "its master user is not allowed",
            with(|m| m.hold = Some(HoldReason::MasterUserNotAllowed("not here".to_owned()))),
        ),
        (
            "its destination is not allowed",
            with(|m| m.hold = Some(HoldReason::DestinationNotAllowed(Error::configuration("not there")))),
        ),
        (
            "its grant is not allowed",
            with(|m| m.hold = Some(HoldReason::GrantNotAllowed(Error::configuration("not for you")))),
        ),
        ("cancelled", with(|m| m.sync.spec.cancel = true)),
    ]
}

/// What a migration is made of.
#[derive(Default)]
pub struct Migration {
    pub suspend: bool,
    pub start_at: Option<Timestamp>,
    pub cutover_at: Option<Timestamp>,
    pub mailboxes: Vec<Mailbox>,
    /// MailboxSyncs still to be made.
    pub pending: usize,
    pub refused: Option<(&'static str, Error)>,
}

impl Migration {
    pub fn of(mailboxes: Vec<Mailbox>) -> Self {
        Self { mailboxes, ..Self::default() }
    }

    /// As the API server shows it once the operator has written its status; on top of what it wrote before.
    pub fn after(&self, before: MailMigrationStatus) -> MailMigration {
        let mut migration: MailMigration = serde_json::from_value(json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration",
            "metadata": {"name": "acme", "namespace": "customers", "uid": "m", "generation": 3},
            "spec": {
                "source": {"server": {"host": "old.example"}}, "destination": {"server": {"host": "new.example"}},
                "suspend": self.suspend,
            },
        }))
        .unwrap();
        migration.spec.start_at = self.start_at.map(Time);
        let mut status = before;
        status.cutover_at = self.cutover_at.map(Time);
        let syncs: Vec<_> = self.mailboxes.iter().map(|mailbox| Arc::new(mailbox.sync.clone())).collect();
        let all = aggregate(syncs.iter(), &UnmadeMailboxes::default(), self.suspend, now());
        let facts = MigrationFacts {
            refused: self.refused.as_ref().map(|(reason, error)| (*reason, error)),
            pending: self.pending,
            aggregate: &all,
            removal: None,
            pods_refused: None,
            writes_refused: None,
            over_limit: None,
            server_change: None,
            names_taken: None,
            now: now(),
        };
        let phase = migration_phase(&migration, &status, &facts);
        status.observed_generation = migration.metadata.generation;
        status.conditions = conditions(&migration, std::mem::take(&mut status.conditions), phase, &facts);
        status.phase = Some(phase);
        migration.status = Some(status);
        migration
    }

    pub fn object(&self) -> Value {
        serde_json::to_value(self.after(MailMigrationStatus::default())).unwrap()
    }
}

/// Every state of a migration, with a name for messages.
pub fn migrations() -> Vec<(&'static str, Migration)> {
    let wrong = |reason| Some((reason, Error::configuration("it can't be").advice("Write something else")));
    let early = || {
        let mut early = Mailbox::new("alice");
        early.sync.spec.start_at = Some(Time(hours(1)));
        early.settle()
    };
    let suspended = || {
        let mut suspended = Mailbox::new("alice");
        suspended.sync.spec.suspend = true;
        suspended.settle()
    };
    let (running, synced) = (|| Mailbox::running("bob"), || Mailbox::synced("carol"));
    let failed = |class| Mailbox::failed("dave", class);
    vec![
        ("its MailServer may come", Migration { refused: wrong("ServerNotFound"), ..Migration::default() }),
        ("its CSV may come", Migration { refused: wrong("MailboxSecretNotFound"), ..Migration::default() }),
        ("it is wrong", Migration { refused: wrong("Invalid"), ..Migration::default() }),
        ("its CSVs may not be read", Migration { refused: wrong("SecretsNotReadable"), ..Migration::default() }),
        (
            "its destination is not allowed",
            Migration { refused: wrong("DestinationNotAllowed"), ..Migration::default() },
        ),
        (
            "its CSV became wrong while it runs",
            Migration { refused: wrong("MailboxSecretInvalid"), pending: 1, ..Migration::of(vec![running()]) },
        ),
        ("its mailboxes are being made", Migration { pending: 2, ..Migration::of(vec![]) }),
        ("more mailboxes are being made", Migration { pending: 2, ..Migration::of(vec![running()]) }),
        ("its CSV lists nobody", Migration::of(vec![])),
        ("before its time", Migration { start_at: Some(hours(1)), ..Migration::of(vec![early()]) }),
        ("runs", Migration::of(vec![running(), synced()])),
        ("runs, and some fail", Migration::of(vec![running(), failed(ErrorClass::Authentication)])),
        ("waits after a failure", Migration::of(vec![failed(ErrorClass::Network)])),
        ("no room, tried again now and then", Migration::of(vec![failed(ErrorClass::Quota), synced()])),
        ("waits for a person", Migration::of(vec![failed(ErrorClass::Authentication), synced()])),
        ("drains", Migration { cutover_at: Some(hours(-1)), ..Migration::of(vec![running()]) }),
        ("suspended", Migration { suspend: true, ..Migration::of(vec![suspended()]) }),
        ("complete", Migration::of(vec![synced()])),
        ("complete, all copied", Migration::of(vec![Mailbox::synced_but("carol", NotCopied::default())])),
        ("complete, not all copied", Migration::of(vec![Mailbox::synced_but("carol", refused(3)), synced()])),
        ("failed", Migration::of(vec![failed(ErrorClass::Configuration), synced()])),
    ]
}

/// Every state of a MailServer, with a name for messages.
pub fn servers() -> Vec<(&'static str, Value)> {
    let tested = |found: Result<ServerFacts, Error>, generation: i64| {
        let failures = u32::from(found.is_err());
        let check = server::ServerCheck { generation, at: now(), found, failures };
        let observed = server::ObservedServer {
            uid: "s",
            generation,
            status: &MailServerStatus { observed_generation: Some(-1), ..MailServerStatus::default() },
            written_at: None,
            check: Some(&check),
            connections: 0,
            started: now(),
            now: now(),
        };
        let status = server::decide(
            &observed,
            &server::ServerCheckTimes { period: Duration::from_mins(10), ..Default::default() },
        );
        let mut server: MailServer = serde_json::from_value(json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailServer",
            "metadata": {"name": "old", "namespace": "customers", "uid": "s", "generation": 1},
            "spec": {"host": "old.example"},
        }))
        .unwrap();
        server.status = Some(status.status);
        serde_json::to_value(server).unwrap()
    };
    vec![
        ("it answers", tested(Ok(ServerFacts::default()), 1)),
        ("nobody answers", tested(Err(Error::network("nobody answers")), 1)),
        ("it has no time", tested(Err(Error::new(ErrorClass::Throttled, "later")), 1)),
        ("its certificate is wrong", tested(Err(Error::new(ErrorClass::Tls, "expired")), 1)),
        ("it may not be connected to", tested(Err(Error::configuration("not there")), 1)),
        ("an older spec was tested", tested(Ok(ServerFacts::default()), 0)),
    ]
}
