//! Runs the engine against test servers.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use mailferry::{
    Result, Side,
    imap::{
        AccountLogin, AddressPolicy, ConnectionSecurity, ConnectionTimeouts, Endpoint, LoginCredential, OpenedMark,
        ServerKind, TlsOptions,
        permit::{AlwaysPermitted, WritePermit},
        provider::ProviderChoice,
    },
    sync::{
        SyncContext, SyncWatcher,
        checkpoint::Checkpoint,
        checkpoint_store::CheckpointStore,
        progress::SyncProgress,
        report::MailboxReport,
        spec::{
            AcceptedLosses, AdoptScope, DeletionHandling, FlagHandling, FolderMappingRules, MessageFilter, RetryPolicy,
            SyncSpec, WaitSteps,
        },
        sync_mailbox,
    },
};
use mailferry_testkit::{FaultyProxy, dovecot::TestAccount, pki::pki, proxy::Direction};
use tokio_util::sync::CancellationToken;

/// Keeps the checkpoint that was saved last.
#[derive(Default)]
pub struct MemoryStore {
    saved: Mutex<Option<Vec<u8>>>,
    /// The same as the engine had it in memory.
    live: Mutex<Option<Checkpoint>>,
    /// Saves as soon as something changed.
    pub eager: AtomicBool,
}

impl CheckpointStore for MemoryStore {
    fn save(&self, checkpoint: &Checkpoint) -> BoxFuture<'_, Result<()>> {
        *self.saved.lock().unwrap() = Some(checkpoint.encode().unwrap());
        *self.live.lock().unwrap() = Some(checkpoint.clone());
        Box::pin(async { Ok(()) })
    }

    fn save_interval(&self) -> Duration {
        Duration::from_millis(if self.eager.load(SeqCst) { 1 } else { 500 })
    }
}

impl MemoryStore {
    /// What was saved last.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.saved.lock().unwrap().as_ref().map(|bytes| Checkpoint::decode(bytes).unwrap())
    }

    /// Puts another in its place.
    pub fn set(&self, checkpoint: &Checkpoint) {
        *self.saved.lock().unwrap() = Some(checkpoint.encode().unwrap());
    }

    /// Loses it.
    pub fn lose(&self) {
        *self.saved.lock().unwrap() = None;
    }

    /// Puts in the place of what was saved last what a store with a little less room would have kept of it: as much as is
    /// `wanted`.
    pub fn shrink(&self, wanted: impl Fn(&Checkpoint) -> bool) -> Checkpoint {
        self.shrink_to(wanted, |room| (90..room).rev().collect())
    }

    /// The same with as little room as leaves what is `wanted`.
    pub fn shrink_most(&self, wanted: impl Fn(&Checkpoint) -> bool) -> Checkpoint {
        self.shrink_to(wanted, |room| (90..room).collect())
    }

    fn shrink_to(&self, wanted: impl Fn(&Checkpoint) -> bool, bounds: impl Fn(usize) -> Vec<usize>) -> Checkpoint {
        let live = self.live.lock().unwrap().clone().unwrap();
        let bounds = bounds(live.encode().unwrap().len() + 1).into_iter();
        let mut kept = bounds.map(|most| Checkpoint::decode(&live.encode_within(most).unwrap()).unwrap());
        let kept = kept.find(wanted).expect("no bound leaves what is wanted");
        self.set(&kept);
        kept
    }
}

/// An account on a loopback port, by TLS with the test CA.
pub fn endpoint(side: Side, port: u16, user: &str, password: &str) -> Endpoint {
    Endpoint {
        side,
        host: "127.0.0.1".into(),
        port,
        tls: TlsOptions {
            mode: ConnectionSecurity::Implicit,
            ca_bundle: pki().ca.clone().into_bytes(),
            ..TlsOptions::default()
        },
        login: AccountLogin {
            username: user.into(),
            master: None,
            credential: LoginCredential::password(password.as_bytes()),
        },
        timeouts: ConnectionTimeouts::default(),
        quirks: ServerKind::Generic,
        provider: ProviderChoice::FoundOut,
        compress: false,
        addresses: AddressPolicy::default(),
        opened: OpenedMark::default(),
        pace: None,
    }
}

/// One mailbox between two accounts, and its checkpoint.
pub struct Rig {
    pub spec: SyncSpec,
    pub store: Arc<MemoryStore>,
    pub progress: Arc<SyncProgress>,
    pub stop: CancellationToken,
    pub permit: Arc<dyn WritePermit>,
    pub watcher: Option<Arc<dyn SyncWatcher>>,
}

impl Rig {
    /// From one account to another.
    pub fn new(source: &TestAccount<'_>, destination: &TestAccount<'_>) -> Self {
        let at = |side, account: &TestAccount<'_>| {
            endpoint(side, account.server.tls_port(), &account.user, &account.password)
        };
        Self::between(at(Side::Source, source), at(Side::Destination, destination))
    }

    /// From one endpoint to another.
    pub fn between(source: Endpoint, destination: Endpoint) -> Self {
        let spec = SyncSpec {
            mailbox: "alice".into(),
            source,
            destination,
            folders: FolderMappingRules::default(),
            messages: MessageFilter::default(),
            flag_policy: FlagHandling::SourceWins,
            delete_policy: DeletionHandling::Keep,
            connections: 3,
            dry_run: false,
            retry: RetryPolicy {
                initial_backoff: Duration::from_millis(20),
                max_backoff: Duration::from_millis(500),
                waits: WaitSteps {
                    unwell: [50, 100, 200, 400, 400].map(Duration::from_millis),
                    between_rounds: [20, 40, 80].map(Duration::from_millis),
                    between_logins: Duration::from_millis(5),
                    login_again: Duration::from_millis(300),
                    without_control: Duration::from_millis(500),
                },
                patience: Duration::from_secs(10),
                ..RetryPolicy::default()
            },
            accepted_losses: AcceptedLosses::default(),
            confirm_deletions: std::collections::BTreeSet::new(),
            warnings: Vec::new(),
            retry_refused: false,
            adopt: AdoptScope::default(),
        };
        Self {
            spec,
            store: Arc::default(),
            progress: Arc::default(),
            stop: CancellationToken::new(),
            permit: Arc::new(AlwaysPermitted),
            watcher: None,
        }
    }

    /// Syncs once, from the checkpoint that was saved last; may end with an error.
    pub async fn try_sync(&self) -> MailboxReport {
        let context = SyncContext {
            store: Arc::clone(&self.store) as Arc<dyn CheckpointStore>,
            progress: Arc::clone(&self.progress),
            stop: self.stop.clone(),
            permit: Arc::clone(&self.permit),
            watcher: self.watcher.clone(),
        };
        sync_mailbox(&self.spec, self.store.checkpoint(), &context).await
    }

    /// Breaks a sync off at once, as SIGKILL would, after so many bytes went to the server behind the proxy.
    pub async fn sync_killed_after(&self, proxy: &FaultyProxy, bytes: u64) {
        tokio::select! {
            _ = self.try_sync() => {}
            () = async {
                while proxy.bytes_carried(Direction::ToServer) < bytes {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
    }

    /// Syncs once; must end well.
    pub async fn sync(&self) -> MailboxReport {
        let report = self.try_sync().await;
        assert!(report.error.is_none(), "{report:#?}");
        assert!(report.folders.iter().all(|f| f.error.is_none() && f.complete), "{report:#?}");
        report
    }
}

/// Messages copied by a sync.
pub fn copied(report: &MailboxReport) -> u64 {
    report.folders.iter().map(|f| f.copied_now).sum()
}

/// Messages adopted by a sync.
pub fn adopted(report: &MailboxReport) -> u64 {
    report.folders.iter().map(|f| f.adopted).sum()
}
