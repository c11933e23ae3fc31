//! Compares both sides of a mailbox, message by message, independently of any checkpoint: SHA-256 of the bytes, flags and
//! keywords, INTERNALDATE. Read-only on both sides.

mod compare;
mod folder_compare;
mod moved_away;
mod read_pass;
mod report;
mod side_reading;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::folder_compare::{FolderCompareJob, FolderComparer};
#[cfg(test)]
pub(crate) use self::report::MessageDifference;
pub(crate) use self::report::{DifferenceKind, FolderComparison, VerifyReport, VerifyStrictness};
use super::{
    archived_mail::{ArchivedMail, find_archived_mail, label_folders},
    checkpoint::Checkpoint,
    connection_pair::ConnectionPair,
    folder_name::shown_name,
    folder_plan::FolderPlan,
    folder_pool::FolderPool,
    log_spans::mailbox_span,
    narrowed_connect::{NarrowedConnect, connect_narrowed},
    pair_connector::PairConnector,
    plan_preview::{ListedAccount, preview_plan},
    prepare::side_folders,
    progress::{EnginePhase, SyncProgress},
    retry_waits::{RetryWaits, WaitOutcome},
    spec::SyncSpec,
    views::{HoldingFolder, count_not_elsewhere, views_with_messages},
};
use crate::{
    error::{Error, Result},
    imap::{
        account_listing::{AccountListing, ListedFolder, ListingMemory, is_same_folder_name, list_account},
        connect,
        permit::{AlwaysPermitted, WritePermit},
    },
};

/// Views are looked at on so many connections at most, when these are lost.
const MAX_VIEW_TRIES: u32 = 3;

/// What a verification needs beside the mailbox.
pub(crate) struct VerifyContext {
    /// What an earlier run saved: where folders went, and from when on it wrote there. Without it the plan is made
    /// afresh, by the same rules.
    pub checkpoint: Option<Checkpoint>,
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
    let connector = Arc::new(PairConnector::new(spec, &context.progress, &permit));
    let waits =
        RetryWaits { policy: spec.retry, progress: Arc::clone(&context.progress), stop: context.stop.child_token() };
    let mut backoff = waits.backoff();
    let mut listing = PairListing::new(&connector, &waits);
    let (pair, source, destination) = loop {
        let stopped = || Error::network("stopped before any folder was compared");
        match connect_narrowed(&mut listing, spec.retry.waits.between_logins).await {
            Ok(found) => break found.ok_or_else(stopped)?,
            Err(error) => match waits.wait_before_retry(error, &mut backoff).await? {
                WaitOutcome::Out => {}
                WaitOutcome::Stopped => return Err(stopped()),
            },
        }
    };
    let fresh = BTreeMap::new();
    let mapping = context.checkpoint.as_ref().map_or(&fresh, |checkpoint| &checkpoint.mapping);
    let plan = preview_plan(spec, &source, &destination, mapping);
    report.left_out.clone_from(&plan.left_out);
    report.only_at_destination = only_at_destination(&plan, &destination.survey);
    let unsubscribed = plan.folders.iter().filter(|folder| folder.subscribe);
    report.unsubscribed = unsubscribed.map(|folder| folder.source_name.clone()).collect();

    let folders = plan.folders.iter().filter(|folder| !folder.is_container);
    let archived = archived_mail(spec, context, &plan, &source.survey).await?;
    if let Some(archived) = &archived {
        archived.tell_views(&mut report.left_out);
    }
    let mut jobs: Vec<FolderCompareJob> = folders
        .map(|folder| {
            let only = archived.as_ref().filter(|_| folder.only_archived).map(|archived| archived.uids.clone());
            let checkpoint = context.checkpoint.as_ref();
            FolderCompareJob::new(folder, &source.survey, &destination.survey, checkpoint, only)
        })
        .collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.messages()));
    SyncProgress::add(&context.progress.folders_total, jobs.len() as u64);
    context.progress.enter_phase(EnginePhase::Copying);
    compare_folders(spec, context, (connector, waits), pair, jobs, report).await?;
    count_views(spec, context, &plan, report).await;
    Ok(())
}

/// Finds out what a source of labels shows in its view of all only; none where none of it is synced.
async fn archived_mail(
    spec: &SyncSpec,
    context: &VerifyContext,
    plan: &FolderPlan,
    source: &AccountListing,
) -> Result<Option<ArchivedMail>> {
    let Some(folder) = plan.folders.iter().find(|folder| folder.only_archived) else { return Ok(None) };
    let all = HoldingFolder { raw: &folder.source_raw, name: &folder.source_name };
    let others = label_folders(&side_folders(source));
    let held: Vec<HoldingFolder<'_>> = others.iter().map(|(raw, name)| HoldingFolder { raw, name }).collect();
    let endpoint = Arc::new(spec.source.clone());
    let mut tries = 1;
    loop {
        let found = async {
            let mut session = connect(&endpoint, &context.progress.bytes_moved).await?;
            let found = find_archived_mail(&mut session, all, &held, &plan.left_out).await?;
            session.logout().await;
            Ok::<_, Error>(found)
        };
        match found.await {
            Ok(found) => return Ok(Some(found)),
            Err(error) if tries == MAX_VIEW_TRIES => return Err(error.in_folder(&folder.source_name)),
            Err(error) => tracing::info!(error = %error, "looking for archived mail again"),
        }
        tries += 1;
        tokio::time::sleep(spec.retry.waits.between_logins).await;
    }
}

/// Lists both accounts.
struct PairListing<'a> {
    connector: &'a PairConnector,
    waits: &'a RetryWaits,
    source: ListingMemory,
    destination: ListingMemory,
}

impl<'a> PairListing<'a> {
    fn new(connector: &'a PairConnector, waits: &'a RetryWaits) -> Self {
        Self { connector, waits, source: ListingMemory::default(), destination: ListingMemory::default() }
    }
}

impl NarrowedConnect for PairListing<'_> {
    /// None when it was asked to stop before there was a connection.
    type Ready = Option<(ConnectionPair, ListedAccount, ListedAccount)>;

    fn steps(&self) -> u64 {
        self.source.steps() + self.destination.steps()
    }

    async fn connect(&mut self) -> Result<Self::Ready> {
        let RetryWaits { progress, stop, .. } = self.waits;
        progress.enter_phase(EnginePhase::Connecting);
        let Some(mut pair) = self.connector.connect_unless(stop).await? else { return Ok(None) };
        progress.enter_phase(EnginePhase::Planning);
        let (source, destination) = tokio::join!(
            list_account(&mut pair.source, false, &mut self.source),
            list_account(&mut pair.destination, false, &mut self.destination)
        );
        let source = ListedAccount::new(&pair.source, source?);
        let destination = ListedAccount::new(&pair.destination, destination?);
        Ok(Some((pair, source, destination)))
    }
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
    found.map(|folder| (shown_name(&folder.item.name), messages(folder))).collect()
}

/// Compares the folders on several pairs of connections.
async fn compare_folders(
    spec: &SyncSpec,
    context: &VerifyContext,
    (connector, waits): (Arc<PairConnector>, RetryWaits),
    pair: ConnectionPair,
    jobs: Vec<FolderCompareJob>,
    report: &mut VerifyReport,
) -> Result<()> {
    let mut further = JoinSet::new();
    connector.grow(&mut further, spec.connections, jobs.len());
    let comparer = FolderComparer {
        connector,
        rules: spec.messages.clone(),
        listed: context.listed,
        progress: Arc::clone(&context.progress),
        stop: waits.stop.clone(),
    };
    let result = FolderPool::new(Arc::new(comparer), jobs, waits).run(Some(pair), &mut further).await;
    report.folders = result.reports;
    report.folders.sort_by(|a, b| a.source.cmp(&b.source));
    match (result.fatal, result.unfinished.len() + result.untouched.len()) {
        (Some(error), _) => Err(error),
        (None, 0) => Ok(()),
        (None, left) => Err(Error::network(format!("stopped before {left} folders were compared"))),
    }
}

/// Counts the messages that are in views only. Where that can't be found out, all messages of views count as such, and a
/// note says so.
async fn count_views(spec: &SyncSpec, context: &VerifyContext, plan: &FolderPlan, report: &mut VerifyReport) {
    if context.stop.is_cancelled() || views_with_messages(&mut report.left_out).next().is_none() {
        return;
    }
    // A folder that could not be read now would only end this, too.
    let failed: BTreeSet<&str> =
        report.folders.iter().filter(|folder| folder.error.is_some()).map(|folder| folder.source.as_str()).collect();
    let synced = plan.folders.iter().filter(|folder| !folder.is_container);
    let synced = synced.filter(|folder| !failed.contains(folder.source_name.as_str()));
    let held: Vec<HoldingFolder<'_>> =
        synced.map(|folder| HoldingFolder { raw: &folder.source_raw, name: &folder.source_name }).collect();
    let endpoint = Arc::new(spec.source.clone());
    let mut tries = 1;
    let error = loop {
        let counted = async {
            let mut session = connect(&endpoint, &context.progress.bytes_moved).await?;
            count_not_elsewhere(&mut session, &mut report.left_out, &held, |_| None, |_, _| {}).await?;
            session.logout().await;
            Ok::<_, Error>(())
        };
        match counted.await {
            Ok(()) => return,
            Err(error) if tries == MAX_VIEW_TRIES => break error,
            Err(error) => tracing::info!(error = %error, "looking at views again"),
        }
        tries += 1;
        tokio::time::sleep(spec.retry.waits.between_logins).await;
    };
    let what = &error.what;
    report.notes.push(format!("whether messages of views are in other folders could not be found out: {what}"));
}
