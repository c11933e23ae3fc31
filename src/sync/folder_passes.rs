//! The passes over a mailbox's folders. Those without a checkpoint that counts are matched with their own destination folders
//! first; then what is left of them is looked for in the destination's other folders; only then is anything copied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::{
    circuit_breaker::AccountBreakers,
    connection_pair::ConnectionPair,
    copy::ExclusiveAppend,
    folder_pool::{FolderPool, PoolResult},
    folder_syncer::{FolderSyncer, FolderTask},
    job::{FolderSyncContext, FolderSyncJob},
    limits::{BUFFERED_BYTES, BUFFERED_BYTES_PER_PAIR},
    live_checkpoint::LiveCheckpoint,
    matched_folders::{MatchSummary, MatchedFolder, MatchedFolders},
    moved_copies::{FoundElsewhere, MovedSearch, OtherFolder},
    pair_connector::{PairConnector, SparePairs},
    prepare::PreparedFolders,
    progress::SyncProgress,
    report::{FolderReport, MailboxReport},
    retry_waits::RetryWaits,
    spec::SyncSpec,
    sync_context::SyncContext,
};
use crate::{
    error::{Error, Result},
    imap::account_listing::is_same_folder_name,
};

/// Syncs all folders that are to be opened.
///
/// # Errors
/// When the checkpoint cannot be kept; what goes wrong in folders stands in the report.
pub(super) async fn sync_folders(
    spec: &SyncSpec,
    context: &SyncContext,
    (checkpoint, connector): (&Arc<LiveCheckpoint>, Arc<PairConnector>),
    (pair, spare): (ConnectionPair, SparePairs),
    prepared: PreparedFolders,
    report: &mut MailboxReport,
) -> Result<()> {
    let pairs = spec.connections.max(1).min(prepared.jobs.len()).max(1);
    report.folders = prepared.closed;
    let (progress, stop) = (Arc::clone(&context.progress), context.stop.child_token());
    let waits = RetryWaits { policy: spec.retry, progress: Arc::clone(&progress), stop: stop.clone() };
    let shared = FolderSyncContext {
        spec: Arc::new(spec.clone()),
        live_checkpoint: Arc::clone(checkpoint),
        progress,
        stop,
        budget: (BUFFERED_BYTES / pairs as u64).min(BUFFERED_BYTES_PER_PAIR),
        breakers: AccountBreakers::new(spec.retry),
        exclusive_append: ExclusiveAppend::default(),
        destination_server: prepared.destination_server,
        matched: MatchedFolders::default(),
    };
    let mut passes = FolderPasses {
        context,
        syncer: Arc::new(FolderSyncer::new(shared, connector)),
        planned: prepared.jobs.clone(),
        others: prepared.others,
        waits: waits.clone(),
        spare,
        result: PoolResult::default(),
        report,
    };
    // Ends with this function, however that ends: nothing may be saved behind a later run's back.
    let mut saver = JoinSet::new();
    let unsaved: Arc<Mutex<Option<Error>>> = Arc::default();
    if !spec.dry_run {
        let (checkpoint, unsaved) = (Arc::clone(checkpoint), Arc::clone(&unsaved));
        let saving = async move {
            let error = checkpoint.keep_saving().await;
            *unsaved.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            waits.stop.cancel();
        };
        saver.spawn(saving.in_current_span());
    }
    passes.run(pair, prepared.jobs.into_iter().map(FolderTask::new).collect()).await;
    let mut result = passes.result;
    saver.shutdown().await;
    if let Some(error) = unsaved.lock().unwrap_or_else(PoisonError::into_inner).take() {
        result.fatal.get_or_insert(error);
    }
    finish(result, checkpoint, report);
    if spec.dry_run { Ok(()) } else { checkpoint.save().await }
}

/// Takes what came of the folders into the report.
fn finish(result: PoolResult<FolderTask, FolderReport>, checkpoint: &LiveCheckpoint, report: &mut MailboxReport) {
    for task in result.untouched.iter().filter(|task| !task.memory.in_doubt) {
        // Marked as open for nothing: the next run need not look.
        checkpoint.update(|checkpoint| {
            if let Some(state) = checkpoint.folders.get_mut(&task.job.source_raw) {
                state.append_in_doubt = false;
            }
        });
    }
    report.reconnects += result.reconnects;
    report.folders.extend(result.reports);
    report.folders.extend(result.unfinished.into_iter().chain(result.untouched).map(|task| task.report));
    report.folders.sort_by(|a, b| (&a.source, &a.source_raw).cmp(&(&b.source, &b.source_raw)));
    report.note_folders();
    if let Some(error) = result.fatal {
        report.error = Some(error);
    }
}

/// The passes over one mailbox's folders.
struct FolderPasses<'a> {
    context: &'a SyncContext,
    syncer: Arc<FolderSyncer>,
    /// All folders that are opened.
    planned: Vec<FolderSyncJob>,
    /// Folders of the destination in which its user may have put something.
    others: Vec<OtherFolder>,
    waits: RetryWaits,
    spare: SparePairs,
    /// What came of all passes.
    result: PoolResult<FolderTask, FolderReport>,
    report: &'a mut MailboxReport,
}

impl FolderPasses<'_> {
    async fn run(&mut self, pair: ConnectionPair, tasks: Vec<FolderTask>) {
        let (mut now, mut later): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.job.matches_first);
        self.syncer.keeps_pairs.store(!now.is_empty(), Relaxed);
        if now.is_empty() {
            now = std::mem::take(&mut later);
        }
        let mut pair = Some(pair);
        loop {
            let pool = FolderPool::new(Arc::clone(&self.syncer), now, self.waits.clone());
            let passed = pool.run(pair.take(), &mut self.spare).await;
            now = self.take_result(passed);
            pair = match self.search(&mut now).await {
                Ok(pair) => pair,
                Err(error) => {
                    self.result.fatal.get_or_insert(error);
                    None
                }
            };
            now.append(&mut later);
            if now.is_empty() || self.is_over() {
                break;
            }
            now.sort_by_key(|task| (task.job.needs_look, std::cmp::Reverse(task.job.messages)));
            self.syncer.keeps_pairs.store(false, Relaxed);
            self.check_kept();
        }
        self.result.untouched.append(&mut now);
        for pair in self.syncer.take_kept().into_iter().chain(pair) {
            pair.logout().await;
        }
    }

    fn is_over(&self) -> bool {
        self.result.fatal.is_some() || self.waits.stop.is_cancelled()
    }

    /// Takes what came of a pass; gives the folders that wait.
    fn take_result(&mut self, passed: PoolResult<FolderTask, FolderReport>) -> Vec<FolderTask> {
        let all = &mut self.result;
        all.reports.extend(passed.reports);
        all.unfinished.extend(passed.unfinished);
        all.untouched.extend(passed.untouched);
        all.reconnects += passed.reconnects;
        all.fatal = all.fatal.take().or(passed.fatal);
        passed.postponed
    }

    /// Connections that were kept may have ended meanwhile: they are looked at, and made anew, beside the work.
    fn check_kept(&mut self) {
        for mut pair in self.syncer.take_kept() {
            let (connector, stop) = (Arc::clone(&self.syncer.connector), self.waits.stop.clone());
            let checking = async move {
                if pair.check().await.is_ok() {
                    return Ok(pair);
                }
                let stopped = || Error::network("asked to stop");
                connector.connect_unless(&stop).await?.ok_or_else(stopped)
            };
            self.spare.spawn(checking.in_current_span());
        }
    }

    /// Looks in other folders for what is left of folders that were matched, and tells what will be copied. Gives connections
    /// for the next pass, where there are some.
    ///
    /// # Errors
    /// When no connections can be made.
    async fn search(&mut self, tasks: &mut [FolderTask]) -> Result<Option<ConnectionPair>> {
        let matched = self.syncer.shared.matched.take();
        if matched.is_empty() || self.is_over() {
            return Ok(None);
        }
        let others = self.searchable(&matched);
        let syncer = Arc::clone(&self.syncer);
        let mut kept = syncer.take_kept();
        let mut search = MovedSearch {
            shared: &syncer.shared,
            connector: &syncer.connector,
            waits: &self.waits,
            pair: kept.pop(),
            matched: &matched,
            notes: Vec::new(),
        };
        let found = search.run(&others).await;
        let MovedSearch { pair, notes, .. } = search;
        syncer.kept.lock().unwrap_or_else(PoisonError::into_inner).append(&mut kept);
        for note in notes {
            self.report.note(note);
        }
        let Some(found) = found? else { return Ok(pair) };
        let mut elsewhere: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for found in found {
            *elsewhere.entry(found.source_raw.clone()).or_default() += found.copies.map.len();
            self.record_found(found, tasks)?;
        }
        for task in tasks {
            task.memory.is_searched = true;
        }
        let elsewhere = |raw: &[u8]| elsewhere.get(raw).copied().unwrap_or(0);
        if let Some(summary) = MatchSummary::new(&matched, elsewhere) {
            self.report.without_checkpoint = Some(summary);
            self.report.note(format!("no checkpoint could be used: {}", summary.text()));
            match &self.context.watcher {
                _ if syncer.shared.spec.dry_run => {}
                Some(watcher) => watcher.tell_matched(summary).await,
                // A pod has nobody to ask, but its log.
                None => tracing::warn!("no checkpoint counts: {}", summary.text()),
            }
        }
        Ok(pair)
    }

    /// The folders of the destination of which is known what in them is the copy of a message that goes there.
    fn searchable(&self, matched: &BTreeMap<Vec<u8>, MatchedFolder>) -> Vec<OtherFolder> {
        let unmatched: Vec<&FolderSyncJob> =
            self.planned.iter().filter(|job| !matched.contains_key(&job.source_raw)).collect();
        let unknown: BTreeSet<Vec<u8>> = self.syncer.shared.live_checkpoint.read(|checkpoint| {
            let is_unknown = |job: &&&FolderSyncJob| {
                job.in_doubt || job.matches_first || !checkpoint.folders.contains_key(&job.source_raw)
            };
            let planned = unmatched.iter().filter(is_unknown).map(|job| &job.destination_raw);
            // Of these not all copies are known by their UIDs.
            let vague = checkpoint.folders.iter().filter(|(raw, state)| {
                let is_reduced = state.mark().is_some() || state.is_known_by_samples();
                !state.map.unknown_uids().is_empty() || (is_reduced && !matched.contains_key(*raw))
            });
            planned.chain(vague.filter_map(|(raw, _)| checkpoint.mapping.get(raw))).cloned().collect()
        });
        let is_unknown = |other: &OtherFolder| unknown.iter().any(|raw| is_same_folder_name(raw, &other.raw));
        self.others.iter().filter(|other| !is_unknown(other)).cloned().collect()
    }

    /// Remembers and tells what was found in another folder.
    fn record_found(&mut self, found: FoundElsewhere, tasks: &mut [FolderTask]) -> Result<()> {
        let FoundElsewhere { source_raw, name, copies, bytes } = found;
        let FolderSyncContext { spec, live_checkpoint, progress, .. } = &self.syncer.shared;
        let sources = copies.map.copied().clone();
        if spec.dry_run {
            if let Some(report) = self.result.reports.iter_mut().find(|report| report.source_raw == source_raw) {
                report.copied_now = report.copied_now.saturating_sub(sources.len());
                report.bytes_now = report.bytes_now.saturating_sub(bytes);
                report.add_moved(&name, &sources);
            }
            return Ok(());
        }
        live_checkpoint.update_folder(&source_raw, |state| state.add_moved(copies))?;
        SyncProgress::add(&progress.messages_done, sources.len());
        SyncProgress::add(&progress.whole.bytes_before, bytes);
        if let Some(task) = tasks.iter_mut().find(|task| task.job.source_raw == source_raw) {
            task.report.add_moved(&name, &sources);
            sources.iter().for_each(|uid| task.memory.suspects.record_found(uid));
        }
        Ok(())
    }
}
