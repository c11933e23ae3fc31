//! One mailbox from beginning to end: survey both sides, plan, make folders, then folders in parallel on as many pairs of
//! connections as both servers allow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    checkpoint::{Checkpoint, fingerprint},
    checkpoint_store::CheckpointStore,
    circuit_breaker::{AccountBreakers, RefusalWeight, out_of_patience_error},
    connection_pair::ConnectionPair,
    copy::{CopyMemory, ExclusiveAppend},
    folder_sync::sync_folder,
    job::{FolderSyncContext, FolderSyncJob, SyncEnd},
    limits::{BUFFERED_BYTES, BUFFERED_BYTES_PER_PAIR},
    live_checkpoint::LiveCheckpoint,
    prepare::{PreparationMemory, PreparedFolders, prepare},
    progress::{EnginePhase, SyncProgress},
    report::{FolderReport, MailboxReport, NotCopiedReport},
    set_aside::SetAsideReason,
    spec::{RetryPolicy, SyncSpec},
    uid::SourceUid,
    views::count_view_messages,
};
use crate::{
    error::{Error, ErrorClass, ErrorRemedy, GiveUpScope, Result},
    imap::{Endpoint, mutf7, permit::WritePermit},
};

/// This many lost connections in a row may narrow down what the source fails on before they count as the server's own
/// trouble.
const MAX_FRUITLESS_RECONNECTS: u32 = 40;
/// Connections that are made anew because of what a message does to them follow one another no faster than this.
pub(super) const MIN_LOGIN_INTERVAL: Duration = Duration::from_secs(1);

/// What a sync needs from whoever runs it.
pub struct SyncContext {
    /// Keeps the checkpoint.
    pub store: Arc<dyn CheckpointStore>,
    /// Live counters.
    pub progress: Arc<SyncProgress>,
    /// Asks to end soon: the checkpoint is saved, and what is in flight is waited for.
    pub stop: CancellationToken,
    /// Says whether this sync may still write to the destination.
    pub permit: Arc<dyn WritePermit>,
}

/// Syncs one mailbox from `checkpoint` on (none: whatever is at the destination is matched). Never fails as such: what
/// went wrong stands in the report.
pub async fn sync_mailbox(spec: &SyncSpec, checkpoint: Option<Checkpoint>, context: &SyncContext) -> MailboxReport {
    let started = Instant::now();
    let mut report = MailboxReport { mailbox: spec.mailbox.clone(), dry_run: spec.dry_run, ..MailboxReport::default() };
    let outcome = run(spec, checkpoint, context, &mut report).instrument(mailbox_span(&spec.mailbox)).await;
    report.interrupted = matches!(outcome, Ok(SyncEnd::Stopped));
    if let Err(error) = outcome {
        report.error.get_or_insert(error);
    }
    report.error = report.error.take().map(|error| error.in_mailbox(&spec.mailbox));
    for folder in &mut report.folders {
        folder.error = folder.error.take().map(|error| error.in_mailbox(&spec.mailbox));
    }
    report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let failed = report.error.is_some() || report.folders.iter().any(|f| f.error.is_some());
    context.progress.enter_phase(if failed { EnginePhase::Failed } else { EnginePhase::Done });
    report
}

/// Names the mailbox in every log line of its sync. The level is that of the gravest lines, so that a filter which lets a
/// line pass never takes the name from it; a text (no `Display`) is written with its control characters visible.
pub(super) fn mailbox_span(mailbox: &str) -> tracing::Span {
    tracing::error_span!("mailbox", mailbox)
}

/// As [`mailbox_span`], for a folder.
pub(super) fn folder_span(folder: &str) -> tracing::Span {
    tracing::error_span!("folder", folder)
}

async fn run(
    spec: &SyncSpec,
    checkpoint: Option<Checkpoint>,
    context: &SyncContext,
    report: &mut MailboxReport,
) -> Result<SyncEnd> {
    let print = fingerprint(&spec.source, &spec.destination);
    let checkpoint = match checkpoint {
        Some(checkpoint) if checkpoint.fingerprint == print => checkpoint,
        Some(_) => {
            report.notes.push(
                "the checkpoint is for other accounts; everything at the destination is matched instead".to_owned(),
            );
            Checkpoint { fingerprint: print, ..Checkpoint::default() }
        }
        None => Checkpoint { fingerprint: print, ..Checkpoint::default() },
    };
    let ledger = Arc::new(LiveCheckpoint::new(checkpoint, Arc::clone(&context.store)));
    let line = Arc::new(PairConnector::new(spec, &context.progress, &context.permit));

    let mut backoff = line.backoff();
    let mut spare = JoinSet::new();
    let mut memory = PreparationMemory::default();
    let (pair, prepared) = loop {
        context.progress.enter_phase(EnginePhase::Connecting);
        let before = memory.steps();
        match connect_and_prepare(spec, &line, (&ledger, &mut memory), context, report, &mut spare).await {
            Ok(Some(ready)) => break ready,
            Ok(None) => return Ok(SyncEnd::Stopped),
            Err(error) if memory.steps() > before && before < u64::from(MAX_FRUITLESS_RECONNECTS) => {
                tracing::info!(error = %error, "connecting anew, with less to ask");
                tokio::time::sleep(MIN_LOGIN_INTERVAL).await;
                report.reconnects += 1;
            }
            Err(error) => match line.wait_before_retry(error, &mut backoff, &context.stop).await {
                Ok(WaitOutcome::Out) => report.reconnects += 1,
                Ok(WaitOutcome::Stopped) => return Ok(SyncEnd::Stopped),
                Err(error) => {
                    report_known_not_copied(spec, &ledger, report);
                    return Err(error);
                }
            },
        }
    };
    let copied = copy_folders(spec, context, &ledger, line, (pair, spare), prepared, report).await;
    if copied.is_ok()
        && !context.stop.is_cancelled()
        && report.gravest_error().is_none()
        && let Err(error) = count_view_messages(spec, &ledger, &context.progress, report).await
    {
        tracing::info!(error = %error, "views could not be looked at");
        report.note(format!("whether messages of views are in other folders could not be found out: {}", error.what));
    }
    report_not_copied(spec, &ledger, report);
    copied?;
    let unfinished = report.folders.iter().any(|f| !f.complete);
    if !unfinished && !spec.dry_run && report.gravest_error().is_none() {
        clear_reported_differences(&ledger).await?;
    }
    Ok(if context.stop.is_cancelled() && unfinished { SyncEnd::Stopped } else { SyncEnd::Complete })
}

/// Tells of each folder what stands as not copied, whichever run found out.
fn report_not_copied(spec: &SyncSpec, ledger: &LiveCheckpoint, report: &mut MailboxReport) {
    for folder in &mut report.folders {
        if spec.dry_run && !folder.unchanged {
            continue; // it told what it foretells
        }
        ledger.read(|checkpoint| {
            if let Some(state) = checkpoint.folders.get(&folder.source_raw) {
                folder.report_set_aside(state, &spec.accepted_losses);
            }
        });
    }
    let all_too_large = |folder: &&FolderReport| {
        let limit = folder.left_out.get("larger than maxSize").copied().unwrap_or(0);
        let too_large = folder.skipped.get(SetAsideReason::TooLarge.name()).copied().unwrap_or(0);
        folder.source_messages > 0 && limit + too_large >= folder.source_messages
    };
    let warnings: Vec<String> = report
        .folders
        .iter()
        .filter(all_too_large)
        .map(|folder| format!("{}: every message is too large, so nothing of it is copied", folder.source))
        .collect();
    report.warnings.extend(warnings);
    report.count_not_copied();
}

/// Tells what stood as not copied when somebody looked last: nobody could look now.
fn report_known_not_copied(spec: &SyncSpec, ledger: &LiveCheckpoint, report: &mut MailboxReport) {
    if !report.folders.is_empty() {
        return report_not_copied(spec, ledger, report);
    }
    let mut known = NotCopiedReport::default();
    ledger.read(|checkpoint| {
        for (name, state) in &checkpoint.folders {
            let name = mutf7::decode_lossy(name);
            for group in state.set_aside.groups() {
                let accepts = |uid: &SourceUid| {
                    spec.accepted_losses.accepts(group.reason, &name, state.source_uid_validity, *uid)
                };
                let accepted = group.uids.iter().filter(accepts).count() as u64;
                known.add(group.reason.name(), accepted, true);
                known.add(group.reason.name(), group.uids.len() - accepted, false);
            }
        }
        if !checkpoint.folders.is_empty() {
            report.not_copied = Some(known);
        }
    });
}

/// This run told all differences, so that the next one need not.
async fn clear_reported_differences(ledger: &LiveCheckpoint) -> Result<()> {
    let told = ledger.read(|checkpoint| checkpoint.folders.values().any(|state| !state.differences.0.is_empty()));
    if !told {
        return Ok(());
    }
    ledger.update(|checkpoint| {
        for state in checkpoint.folders.values_mut() {
            state.differences.0.clear();
        }
    });
    ledger.save().await
}

/// Further pairs of connections on their way.
type SparePairs = JoinSet<Result<ConnectionPair>>;

async fn connect_and_prepare(
    spec: &SyncSpec,
    line: &Arc<PairConnector>,
    (ledger, memory): (&LiveCheckpoint, &mut PreparationMemory),
    context: &SyncContext,
    report: &mut MailboxReport,
    spare: &mut SparePairs,
) -> Result<Option<(ConnectionPair, PreparedFolders)>> {
    spare.abort_all();
    *spare = JoinSet::new();
    let Some(mut pair) = line.connect_unless(&context.stop).await? else { return Ok(None) };
    context.progress.enter_phase(EnginePhase::Planning);
    let grow = |folders: usize| {
        for _ in 1..spec.connections.min(folders) {
            let line = Arc::clone(line);
            spare.spawn(async move { line.connect().await }.in_current_span());
        }
    };
    let prepared = prepare(spec, &mut pair, ledger, report, memory, grow).await?;
    Ok(Some((pair, prepared)))
}

/// How connections are made, and made again.
pub(super) struct PairConnector {
    source: Arc<Endpoint>,
    destination: Arc<Endpoint>,
    progress: Arc<SyncProgress>,
    permit: Arc<dyn WritePermit>,
    retry: RetryPolicy,
}

pub(super) type RetryBackoff = backon::ExponentialBackoff;

/// How a wait before the next try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// It is time to try again.
    Out,
    /// It was asked to stop: what was waited out counts no more.
    Stopped,
}

impl PairConnector {
    /// The line between the accounts of `spec`.
    pub(super) fn new(spec: &SyncSpec, progress: &Arc<SyncProgress>, permit: &Arc<dyn WritePermit>) -> Self {
        Self {
            source: Arc::new(spec.source.clone()),
            destination: Arc::new(spec.destination.clone()),
            progress: Arc::clone(progress),
            permit: Arc::clone(permit),
            retry: spec.retry,
        }
    }

    /// A new pair of connections.
    pub(super) async fn connect(&self) -> Result<ConnectionPair> {
        ConnectionPair::connect(&self.source, &self.destination, &self.progress, &self.permit).await
    }

    /// A new pair of connections; none when it is asked to stop before both are there.
    async fn connect_unless(&self, stop: &CancellationToken) -> Result<Option<ConnectionPair>> {
        tokio::select! {
            pair = self.connect() => pair.map(Some),
            () = stop.cancelled() => Ok(None),
        }
    }

    /// The waits between tries, from the first on.
    pub(super) fn backoff(&self) -> RetryBackoff {
        ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.retry.initial_backoff)
            .with_max_delay(self.retry.max_backoff)
            .with_max_times(self.retry.attempts as usize)
            .build()
    }

    /// Waits before the next try, or gives the error back when trying again makes no sense.
    pub(super) async fn wait_before_retry(
        &self,
        error: Error,
        backoff: &mut RetryBackoff,
        stop: &CancellationToken,
    ) -> Result<WaitOutcome> {
        if error.class.remedy() != ErrorRemedy::RetryWithBackoff || error.finality != GiveUpScope::ByClass {
            return Err(error);
        }
        if stop.is_cancelled() {
            return Ok(WaitOutcome::Stopped);
        }
        let Some(mut delay) = backoff.next() else { return Err(error) };
        if error.class == ErrorClass::Throttled {
            delay = delay.max(Duration::from_secs(5)).min(self.retry.max_backoff);
        }
        if let Some(wait) = error.stated_wait {
            if wait > self.retry.patience {
                return Err(out_of_patience_error(&error, wait));
            }
            delay = delay.max(wait);
        }
        tracing::info!(error = %error, delay_ms = delay.as_millis(), "trying again");
        let _waiting = self.progress.begin_wait(error.to_string(), delay);
        Ok(tokio::select! {
            () = tokio::time::sleep(delay) => WaitOutcome::Out,
            () = stop.cancelled() => WaitOutcome::Stopped,
        })
    }
}

/// What the workers of one mailbox share.
struct FolderSyncPool {
    shared: FolderSyncContext,
    line: Arc<PairConnector>,
    queue: Mutex<VecDeque<FolderSyncJob>>,
    done: Mutex<BTreeMap<Vec<u8>, FolderReport>>,
    fatal: Mutex<Option<Error>>,
    reconnects: AtomicU64,
}

impl FolderSyncPool {
    fn next_job(&self) -> Option<FolderSyncJob> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn add_report(&self, job: &FolderSyncJob, report: FolderReport) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(job.source_raw.clone(), report);
    }

    /// Waits while a server asks to be left alone.
    async fn wait_until_due(&self, mut pair: Option<&mut ConnectionPair>) -> Result<()> {
        let FolderSyncContext { breakers, progress, stop, .. } = &self.shared;
        breakers.source.wait_until_due(pair.as_deref_mut(), progress, stop).await?;
        breakers.destination.wait_until_due(pair, progress, stop).await
    }

    /// Nothing helps any folder: all workers end.
    fn stop_all(&self, error: Error) {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.shared.stop.cancel();
    }
}

async fn copy_folders(
    spec: &SyncSpec,
    context: &SyncContext,
    ledger: &Arc<LiveCheckpoint>,
    line: Arc<PairConnector>,
    (pair, mut spare): (ConnectionPair, SparePairs),
    prepared: PreparedFolders,
    report: &mut MailboxReport,
) -> Result<()> {
    context.progress.enter_phase(EnginePhase::Copying);
    SyncProgress::add(&context.progress.folders_total, prepared.jobs.len() as u64);
    prepared.count(&context.progress);
    report.folders = prepared.closed;

    let pairs = spec.connections.max(1).min(prepared.jobs.len()).max(1);
    let floor = Arc::new(FolderSyncPool {
        shared: FolderSyncContext {
            spec: Arc::new(spec.clone()),
            ledger: Arc::clone(ledger),
            progress: Arc::clone(&context.progress),
            stop: context.stop.child_token(),
            budget: (BUFFERED_BYTES / pairs as u64).min(BUFFERED_BYTES_PER_PAIR),
            breakers: AccountBreakers::new(spec.retry),
            quiet: ExclusiveAppend::default(),
            destination_server: prepared.destination_server,
        },
        line,
        queue: Mutex::new(prepared.jobs.into()),
        done: Mutex::default(),
        fatal: Mutex::default(),
        reconnects: AtomicU64::new(0),
    });
    // Ends with this function, however that ends: nothing may be saved behind a later run's back.
    let mut saver = JoinSet::new();
    if !spec.dry_run {
        let floor = Arc::clone(&floor);
        let saving = async move {
            let error = floor.shared.ledger.keep_saving().await;
            floor.stop_all(error);
        };
        saver.spawn(saving.in_current_span());
    }

    let mut workers = JoinSet::new();
    workers.spawn(sync_queued_folders(Arc::clone(&floor), pair).in_current_span());
    loop {
        tokio::select! {
            Some(connected) = spare.join_next() => match connected {
                Ok(Ok(pair)) => {
                    workers.spawn(sync_queued_folders(Arc::clone(&floor), pair).in_current_span());
                }
                // A server that refuses a further connection only makes the others do its work.
                Ok(Err(error)) => tracing::info!(error = %error, "no further pair of connections"),
                Err(error) => tracing::info!(error = %error, "no further pair of connections"),
            },
            ended = workers.join_next() => match ended {
                None => break,
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    floor.stop_all(Error::internal("a connection's task broke off; this is a defect in Mailferry"));
                }
            },
        }
    }
    saver.shutdown().await;
    let untouched: Vec<FolderSyncJob> = floor.queue.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    for job in untouched.iter().filter(|job| !job.in_doubt) {
        // Marked as open for nothing: the next run need not look.
        ledger.update(|checkpoint| {
            if let Some(state) = checkpoint.folders.get_mut(&job.source_raw) {
                state.open = false;
            }
        });
    }
    let kept = if spec.dry_run { Ok(()) } else { ledger.save().await };

    report.reconnects += floor.reconnects.load(Relaxed);
    report
        .folders
        .extend(std::mem::take(&mut *floor.done.lock().unwrap_or_else(PoisonError::into_inner)).into_values());
    for job in untouched {
        report.folders.push(job.report());
    }
    report.folders.sort_by(|a, b| a.source.cmp(&b.source));
    if let Some(error) = floor.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        report.error = Some(error);
    }
    kept
}

/// One pair of connections, folder after folder.
async fn sync_queued_folders(floor: Arc<FolderSyncPool>, pair: ConnectionPair) {
    let mut pair = Some(pair);
    while !floor.shared.stop.is_cancelled() {
        let Some(job) = floor.next_job() else { break };
        let span = folder_span(&job.source_name);
        let (report, left) = sync_folder_with_retries(&floor, job.clone(), pair.take()).instrument(span).await;
        floor.add_report(&job, report);
        SyncProgress::add(&floor.shared.progress.folders_done, 1);
        pair = left;
    }
    if let Some(pair) = pair {
        pair.logout().await;
    }
}

/// One folder, reconnecting as often as it makes sense. Gives back the pair of connections if it can be used again.
async fn sync_folder_with_retries(
    floor: &FolderSyncPool,
    mut job: FolderSyncJob,
    mut pair: Option<ConnectionPair>,
) -> (FolderReport, Option<ConnectionPair>) {
    let mut report = job.report();
    let mut memory = CopyMemory { in_doubt: job.in_doubt, ..CopyMemory::default() };
    let mut backoff = floor.line.backoff();
    let mut connected_at = Instant::now();
    let mut barren: u32 = 0;
    loop {
        let before = (report.copied_now + report.adopted, memory.failure_steps(), memory.suspects.tries());
        let waited = floor.wait_until_due(pair.as_mut()).await;
        let attempt = match &mut pair {
            _ if waited.is_err() => waited.map(|()| SyncEnd::Stopped),
            Some(pair) => sync_folder(&floor.shared, &job, pair, &mut memory, &mut report)
                .await
                .map_err(|error| error.in_folder(&job.source_name)),
            None => match floor.line.connect_unless(&floor.shared.stop).await {
                Ok(Some(fresh)) => {
                    pair = Some(fresh);
                    connected_at = Instant::now();
                    continue;
                }
                Ok(None) => Ok(SyncEnd::Stopped),
                Err(error) => Err(error),
            },
        };
        let error = match attempt {
            Ok(SyncEnd::Complete) => {
                report.complete = true;
                return (report, pair);
            }
            Ok(SyncEnd::Stopped) => return (report, None),
            Err(error) => error,
        };
        if let (Some(side), Some(_)) = (error.side, error.stated_wait) {
            // All connections to this account wait, whatever it was that was refused.
            floor.shared.breakers.for_side(side).record_refusal(&error, RefusalWeight::Control);
        }
        // What was being sent may still be committed: nothing that was seen before counts.
        pair = None;
        job.look = None;
        job.in_doubt = memory.in_doubt;
        // A message that was refused is found out about once a round: that ends by itself.
        let refused = before.2 != memory.suspects.tries();
        let moved = before.0 != report.copied_now + report.adopted || refused;
        barren = if moved { 0 } else { barren + 1 };
        if refused && error.class == ErrorClass::Protocol {
            // The server is there and said what it does not take: no back-off, but not too many logins.
            tracing::info!(error = %error, "connecting anew after a refused message");
            tokio::time::sleep_until(connected_at + MIN_LOGIN_INTERVAL).await;
            floor.reconnects.fetch_add(1, Relaxed);
            backoff = floor.line.backoff();
            continue;
        }
        // To find out what the source fails on is progress too, but not for ever.
        if moved || (before.1 != memory.failure_steps() && barren <= MAX_FRUITLESS_RECONNECTS) {
            backoff = floor.line.backoff();
        }
        match floor.line.wait_before_retry(error, &mut backoff, &floor.shared.stop).await {
            Ok(WaitOutcome::Out) => floor.reconnects.fetch_add(1, Relaxed),
            Ok(WaitOutcome::Stopped) => return (report, None),
            Err(error) => {
                let own = match error.finality {
                    GiveUpScope::Folder => error.class != ErrorClass::Quota,
                    GiveUpScope::Mailbox => false,
                    GiveUpScope::ByClass => matches!(
                        error.class,
                        ErrorClass::Authorization | ErrorClass::MessageRejected | ErrorClass::Protocol
                    ),
                };
                if own {
                    // This folder's own trouble.
                    report.error = Some(error);
                } else {
                    floor.stop_all(error);
                }
                return (report, None);
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use futures::{future::BoxFuture, poll};

    use super::*;
    use crate::{imap::permit::AlwaysPermitted, sync::testing::spec};

    #[tokio::test]
    async fn the_log_lines_of_two_mailboxes_can_be_told_apart() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || LogSink(Arc::clone(&sink))).finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        let fails = async |mailbox: &str| {
            let mut spec = spec(mailbox);
            for endpoint in [&mut spec.source, &mut spec.destination] {
                (endpoint.host, endpoint.port) = ("127.0.0.1".to_owned(), 1); // nobody listens there
            }
            let milli = Duration::from_millis(1);
            spec.retry = RetryPolicy { attempts: 1, initial_backoff: milli, max_backoff: milli, ..spec.retry };
            let context = SyncContext {
                store: Arc::new(NoStore),
                progress: Arc::default(),
                stop: CancellationToken::new(),
                permit: Arc::new(AlwaysPermitted),
            };
            sync_mailbox(&spec, None, &context).await
        };
        tokio::join!(fails("alice"), fails("bob"));
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let tries = lines.filter(|line| line["fields"]["message"] == "trying again");
        let mut mailboxes: Vec<_> =
            tries.map(|line| line["spans"][0]["mailbox"].as_str().unwrap().to_owned()).collect();
        mailboxes.sort();
        assert_eq!(mailboxes, ["alice", "bob"], "{text}");
    }

    /// Collects log lines.
    struct LogSink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for LogSink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct NoStore;

    impl CheckpointStore for NoStore {
        fn save(&self, _: &Checkpoint) -> BoxFuture<'static, Result<()>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait_before_the_next_try_without_the_error_that_is_waited_out() {
        let mut spec = spec("alice");
        spec.retry.initial_backoff = Duration::from_hours(1);
        spec.retry.max_backoff = Duration::from_hours(1);
        let (progress, stop) = (Arc::new(SyncProgress::default()), CancellationToken::new());
        let permit: Arc<dyn WritePermit> = Arc::new(AlwaysPermitted);
        let line = PairConnector::new(&spec, &progress, &permit);
        let mut backoff = line.backoff();
        let mut waiting = Box::pin(line.wait_before_retry(Error::network("connection lost"), &mut backoff, &stop));
        assert!(poll!(&mut waiting).is_pending());
        assert!(progress.snapshot().waiting.is_some());
        stop.cancel();
        assert_eq!(waiting.await, Ok(WaitOutcome::Stopped));
        assert!(progress.snapshot().waiting.is_none());
        // What waiting does not help is told, stopped or not.
        let wrong = Error::new(ErrorClass::Authentication, "wrong password");
        assert_eq!(line.wait_before_retry(wrong.clone(), &mut backoff, &stop).await, Err(wrong));
    }
}
