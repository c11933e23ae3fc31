//! Compares both sides of a mailbox, message by message, independently of any checkpoint: SHA-256 of the bytes, flags and
//! keywords, INTERNALDATE. Read-only on both sides.

mod compare;
mod report;
mod side_reading;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub(crate) use self::report::{DifferenceKind, FolderComparison, MessageDifference, VerifyReport, VerifyStrictness};
use self::{compare::compare, side_reading::SideReading};
use super::{
    connection_pair::ConnectionPair,
    folder_plan::{FolderPlan, PlannedFolder},
    log_spans::{folder_span, mailbox_span},
    pair_connector::{PairConnector, WaitOutcome},
    plan_preview::{ListedAccount, preview_plan},
    progress::{EnginePhase, SyncProgress},
    spec::{MessageFilter, SyncSpec},
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{
        account_listing::{AccountListing, ListedFolder, ListingMemory, is_same_folder_name, list_account},
        mutf7,
        permit::{AlwaysPermitted, WritePermit},
    },
};

/// What a verification needs beside the mailbox.
pub(crate) struct VerifyContext {
    /// Where folders went: a checkpoint's mapping, raw source name to raw destination name. Empty: the plan is made
    /// afresh, by the same rules.
    pub mapping: BTreeMap<Vec<u8>, Vec<u8>>,
    /// At most this many single differences are listed for a folder; the counts are complete.
    pub listed: usize,
    /// Live counters; messages and bytes are those of both sides.
    pub progress: Arc<SyncProgress>,
    /// Asks to end soon.
    pub stop: CancellationToken,
}

/// Compares one mailbox. Never fails as such: what went wrong stands in the report.
pub(crate) async fn verify_mailbox(spec: &SyncSpec, context: &VerifyContext) -> VerifyReport {
    let started = Instant::now();
    let mut report = VerifyReport { mailbox: spec.mailbox.clone(), ..VerifyReport::default() };
    if let Err(error) = run(spec, context, &mut report).instrument(mailbox_span(&spec.mailbox)).await {
        report.error.get_or_insert(error);
    }
    report.error = report.error.take().map(|error| error.in_mailbox(&spec.mailbox));
    for folder in &mut report.folders {
        folder.error = folder.error.take().map(|error| error.in_mailbox(&spec.mailbox));
    }
    report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    context.progress.enter_phase(if report.errors().next().is_some() {
        EnginePhase::Failed
    } else {
        EnginePhase::Done
    });
    report
}

async fn run(spec: &SyncSpec, context: &VerifyContext, report: &mut VerifyReport) -> Result<()> {
    let permit: Arc<dyn WritePermit> = Arc::new(AlwaysPermitted);
    let line = PairConnector::new(spec, &context.progress, &permit);
    let mut backoff = line.backoff();
    let mut memory = (ListingMemory::default(), ListingMemory::default());
    let (pair, source, destination) = loop {
        context.progress.enter_phase(EnginePhase::Connecting);
        let before = memory.0.steps() + memory.1.steps();
        match connect_and_list(&line, &context.progress, &mut memory).await {
            Ok(found) => break found,
            Err(error) if memory.0.steps() + memory.1.steps() > before => {
                tracing::info!(error = %error, "connecting anew, with less to ask");
                tokio::time::sleep(spec.retry.waits.between_logins).await;
            }
            Err(error) => match line.wait_before_retry(error, &mut backoff, &context.stop).await? {
                WaitOutcome::Out => {}
                WaitOutcome::Stopped => return Err(Error::network("stopped before any folder was compared")),
            },
        }
    };
    let plan = preview_plan(spec, &source, &destination, &context.mapping);
    report.left_out.clone_from(&plan.left_out);
    report.only_at_destination = only_at_destination(&plan, &destination.survey);
    let unsubscribed = plan.folders.iter().filter(|folder| folder.subscribe);
    report.unsubscribed = unsubscribed.map(|folder| folder.source_name.clone()).collect();

    let folders = plan.folders.iter().filter(|folder| !folder.is_container);
    let mut jobs: Vec<FolderCompareJob> =
        folders.map(|folder| FolderCompareJob::new(folder, &source, &destination.survey)).collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.messages));
    SyncProgress::add(&context.progress.folders_total, jobs.len() as u64);
    context.progress.enter_phase(EnginePhase::Copying);
    compare_folders(spec, context, line, pair, jobs, report).await
}

async fn connect_and_list(
    line: &PairConnector,
    progress: &SyncProgress,
    (source, destination): &mut (ListingMemory, ListingMemory),
) -> Result<(ConnectionPair, AccountListing, ListedAccount)> {
    let mut pair = line.connect().await?;
    progress.enter_phase(EnginePhase::Planning);
    let (source, destination) = tokio::join!(
        list_account(&mut pair.source, false, source),
        list_account(&mut pair.destination, false, destination)
    );
    let destination = ListedAccount::new(&pair.destination, destination?);
    Ok((pair, source?, destination))
}

/// Folders of the destination to which nothing goes, and which hold or could hold messages. An empty INBOX is on every
/// server.
fn only_at_destination(plan: &FolderPlan, destination: &AccountListing) -> BTreeMap<String, Option<u32>> {
    let targets: BTreeSet<&[u8]> = plan.folders.iter().map(|folder| folder.destination_raw.as_slice()).collect();
    let messages = |folder: &ListedFolder| folder.status.as_ref().and_then(|status| status.messages);
    let is_only_there = |folder: &&ListedFolder| {
        let is_inbox = is_same_folder_name(&folder.item.name, b"INBOX");
        folder.selectable()
            && !targets.iter().any(|target| is_same_folder_name(target, &folder.item.name))
            && !(is_inbox && messages(folder) == Some(0))
    };
    let found = destination.folders.iter().filter(is_only_there);
    found.map(|folder| (mutf7::decode_lossy(&folder.item.name), messages(folder))).collect()
}

/// One folder to compare.
#[derive(Debug)]
struct FolderCompareJob {
    source_raw: Vec<u8>,
    destination_raw: Vec<u8>,
    source_name: String,
    destination_name: String,
    /// The destination's folder is there.
    exists: bool,
    /// Both listings say that there is nothing in it.
    empty: bool,
    /// Messages on both sides as listed, for the order of work.
    messages: u64,
}

impl FolderCompareJob {
    fn new(folder: &PlannedFolder, source: &AccountListing, destination: &AccountListing) -> Self {
        let there = destination.folder(&folder.destination_raw);
        let messages =
            |folder: Option<&ListedFolder>| folder.and_then(|f| f.status.as_ref()).and_then(|status| status.messages);
        let counts = [messages(source.folder(&folder.source_raw)), messages(there)];
        Self {
            source_raw: folder.source_raw.clone(),
            destination_raw: folder.destination_raw.clone(),
            source_name: folder.source_name.clone(),
            destination_name: folder.destination_name.clone(),
            exists: there.is_some_and(ListedFolder::selectable),
            empty: counts == [Some(0); 2],
            messages: counts.iter().flatten().map(|count| u64::from(*count)).sum(),
        }
    }

    fn comparison(&self) -> FolderComparison {
        FolderComparison {
            source: self.source_name.clone(),
            destination: self.destination_name.clone(),
            folder_missing: !self.exists,
            ..FolderComparison::default()
        }
    }
}

/// What the connections of one mailbox share.
struct FolderComparePool {
    line: PairConnector,
    rules: MessageFilter,
    listed: usize,
    progress: Arc<SyncProgress>,
    /// Ends all of them.
    stop: CancellationToken,
    queue: Mutex<VecDeque<FolderCompareJob>>,
    done: Mutex<Vec<FolderComparison>>,
    fatal: Mutex<Option<Error>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn compare_folders(
    spec: &SyncSpec,
    context: &VerifyContext,
    line: PairConnector,
    pair: ConnectionPair,
    jobs: Vec<FolderCompareJob>,
    report: &mut VerifyReport,
) -> Result<()> {
    let pairs = spec.connections.min(jobs.len()).max(1);
    let floor = Arc::new(FolderComparePool {
        line,
        rules: spec.messages.clone(),
        listed: context.listed,
        progress: Arc::clone(&context.progress),
        stop: context.stop.child_token(),
        queue: Mutex::new(jobs.into()),
        done: Mutex::default(),
        fatal: Mutex::default(),
    });
    let mut workers = JoinSet::new();
    workers.spawn(compare_queued_folders(Arc::clone(&floor), Some(pair)).in_current_span());
    for _ in 1..pairs {
        workers.spawn(compare_queued_folders(Arc::clone(&floor), None).in_current_span());
    }
    let mut broken = false;
    while let Some(ended) = workers.join_next().await {
        broken |= ended.is_err();
    }
    report.folders = std::mem::take(&mut *lock(&floor.done));
    report.folders.sort_by(|a, b| a.source.cmp(&b.source));
    if broken {
        return Err(Error::internal("a connection's task broke off; this is a defect in Mailferry"));
    }
    if let Some(error) = lock(&floor.fatal).take() {
        return Err(error);
    }
    match lock(&floor.queue).len() {
        0 => Ok(()),
        left => Err(Error::network(format!("stopped before {left} folders were compared"))),
    }
}

/// One pair of connections, folder after folder. The first pair is there; a further one is tried once, and if either
/// server refuses it, the others do its work.
async fn compare_queued_folders(floor: Arc<FolderComparePool>, first: Option<ConnectionPair>) {
    let mut pair = match first {
        Some(pair) => Some(pair),
        None => match floor.line.connect().await {
            Ok(pair) => Some(pair),
            Err(error) => {
                tracing::info!(error = %error, "no further pair of connections");
                return;
            }
        },
    };
    while !floor.stop.is_cancelled() {
        let Some(job) = lock(&floor.queue).pop_front() else { break };
        let span = folder_span(&job.source_name);
        match compare_folder_with_retries(&floor, &job, &mut pair).instrument(span).await {
            Some(comparison) => lock(&floor.done).push(comparison),
            None => lock(&floor.queue).push_front(job),
        }
        SyncProgress::add(&floor.progress.folders_done, 1);
    }
    if let Some(pair) = pair {
        pair.logout().await;
    }
}

/// One folder, reconnecting as often as it makes sense; none when it was asked to stop before.
async fn compare_folder_with_retries(
    floor: &FolderComparePool,
    job: &FolderCompareJob,
    pair: &mut Option<ConnectionPair>,
) -> Option<FolderComparison> {
    let (mut source, mut destination) = (SideReading::default(), SideReading::default());
    if job.empty {
        return Some(build_comparison(job, source, destination, floor.listed));
    }
    let mut backoff = floor.line.backoff();
    loop {
        let before = source.settled() + destination.settled();
        let attempt = match pair {
            Some(pair) => read_both(floor, job, pair, &mut source, &mut destination).await,
            None => match floor.line.connect().await {
                Ok(fresh) => {
                    *pair = Some(fresh);
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        let Err(error) = attempt else { break };
        *pair = None;
        if before != source.settled() + destination.settled() {
            backoff = floor.line.backoff();
        }
        match floor.line.wait_before_retry(error, &mut backoff, &floor.stop).await {
            Ok(WaitOutcome::Out) => {}
            Ok(WaitOutcome::Stopped) => return None,
            Err(error) => {
                let error = error.in_folder(&job.source_name);
                if !matches!(
                    error.class,
                    ErrorClass::Authorization | ErrorClass::MessageRejected | ErrorClass::Protocol
                ) {
                    // Nothing helps the other folders either.
                    lock(&floor.fatal).get_or_insert_with(|| error.clone());
                    floor.stop.cancel();
                }
                return Some(FolderComparison { error: Some(error), ..job.comparison() });
            }
        }
    }
    Some(build_comparison(job, source, destination, floor.listed))
}

async fn read_both(
    floor: &FolderComparePool,
    job: &FolderCompareJob,
    pair: &mut ConnectionPair,
    source: &mut SideReading<SourceUid>,
    destination: &mut SideReading<DestinationUid>,
) -> Result<()> {
    let no_rules = MessageFilter::default();
    let opened = tokio::join!(source.open(&mut pair.source, &job.source_raw, &floor.rules), async {
        if job.exists { destination.open(&mut pair.destination, &job.destination_raw, &no_rules).await } else { Ok(()) }
    });
    opened.0?;
    opened.1?;
    if source.messages() == 0 || destination.messages() == 0 {
        return Ok(()); // there is nothing that bytes could tell apart
    }
    let read = tokio::join!(
        source.read(&mut pair.source, &floor.progress),
        destination.read(&mut pair.destination, &floor.progress)
    );
    read.0?;
    read.1
}

/// Compares what was read.
fn build_comparison(
    job: &FolderCompareJob,
    mut source: SideReading<SourceUid>,
    mut destination: SideReading<DestinationUid>,
    listed: usize,
) -> FolderComparison {
    let mut found = FolderComparison {
        source_messages: source.messages(),
        destination_messages: destination.messages(),
        unreadable: source.unreadable().count() as u64,
        unreadable_at_destination: destination.unreadable().count() as u64,
        ..job.comparison()
    };
    let mut single = |kind, source_uid: Option<SourceUid>, destination_uid: Option<DestinationUid>, what: String| {
        if found.differences.len() < listed {
            let (source_uid, destination_uid) = (source_uid.map(|uid| uid.0), destination_uid.map(|uid| uid.0));
            found.differences.push(MessageDifference { kind, source_uid, destination_uid, what });
        }
    };
    destination.number_flags_as(&mut source.flags);
    let source = source;
    let comparison = if found.source_messages == 0 || found.destination_messages == 0 {
        compare::MessageComparison {
            missing: source.uids().collect(),
            extra: destination.uids().collect(),
            ..compare::MessageComparison::default()
        }
    } else {
        compare(source.items(), destination.items())
    };
    for uid in source.unreadable() {
        single(DifferenceKind::Unreadable, Some(uid), None, "the source lists it and does not deliver it".to_owned());
    }
    for uid in destination.unreadable() {
        single(
            DifferenceKind::Unreadable,
            None,
            Some(uid),
            "the destination lists it and does not deliver it".to_owned(),
        );
    }
    for uid in &comparison.missing {
        single(DifferenceKind::Missing, Some(*uid), None, "missing at the destination".to_owned());
    }
    for pair in &comparison.changed {
        let uids = (Some(pair.source.uid), Some(pair.destination.uid));
        single(DifferenceKind::Changed, uids.0, uids.1, pair.describe(&source.flags));
        found.other_flags += u64::from(pair.other_flags());
        found.other_date += u64::from(pair.other_date());
        found.rewritten += u64::from(pair.rewritten());
        found.only_rewritten += u64::from(pair.rewritten() && !pair.other_flags() && !pair.other_date());
    }
    for uid in &comparison.extra {
        single(DifferenceKind::OnlyAtDestination, None, Some(*uid), "only at the destination".to_owned());
    }
    found.equal = comparison.equal;
    found.missing = comparison.missing.len() as u64;
    found.changed = comparison.changed.len() as u64;
    found.only_at_destination = comparison.extra.len() as u64;
    found.left_out = source.left_out;
    found
}
