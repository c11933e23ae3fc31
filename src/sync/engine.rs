//! One mailbox from beginning to end: survey both sides, plan, make folders, then folders in parallel on as many pairs of
//! connections as both servers allow.

use std::sync::Arc;

use tokio::{task::JoinSet, time::Instant};
use tracing::Instrument as _;

use super::{
    checkpoint::{Checkpoint, fingerprint},
    connection_pair::ConnectionPair,
    folder_passes::sync_folders,
    job::SyncEnd,
    live_checkpoint::LiveCheckpoint,
    log_spans::mailbox_span,
    narrowed_connect::{NarrowedConnect, connect_narrowed},
    pair_connector::{PairConnector, SparePairs},
    prepare::{FolderPreparation, PreparationMemory, PreparedFolders},
    progress::{EnginePhase, SyncProgress},
    report::{FolderReport, MailboxReport, NotCopiedReport},
    retry_waits::{RetryWaits, WaitOutcome},
    set_aside::SetAsideReason,
    spec::SyncSpec,
    sync_context::SyncContext,
    views::count_view_messages,
};
use crate::{
    error::{Error, GiveUpScope, Result},
    imap::mutf7,
};

/// Syncs one mailbox from `checkpoint` on (none: whatever is at the destination is matched). Never fails as such: what
/// went wrong stands in the report.
pub async fn sync_mailbox(spec: &SyncSpec, checkpoint: Option<Checkpoint>, context: &SyncContext) -> MailboxReport {
    let started = Instant::now();
    let mut report = MailboxReport {
        mailbox: spec.mailbox.clone(),
        dry_run: spec.dry_run,
        warnings: spec.warnings.clone(),
        ..MailboxReport::default()
    };
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
    let mut checkpoint = checkpoint;
    report_dropped_folders(std::mem::take(&mut checkpoint.dropped_folders), report);
    let live_checkpoint = Arc::new(LiveCheckpoint::new(checkpoint, Arc::clone(&context.store)));
    let connector = Arc::new(PairConnector::new(spec, &context.progress, &context.permit));

    let waits = RetryWaits { policy: spec.retry, progress: Arc::clone(&context.progress), stop: context.stop.clone() };
    let mut backoff = waits.backoff();
    let folders =
        FolderPreparation { spec, live_checkpoint: &live_checkpoint, report, memory: PreparationMemory::default() };
    let mut preparation = MailboxPreparation {
        context,
        connector: &connector,
        folders,
        spare: JoinSet::new(),
        connected_before: false,
        reached_before: false,
    };
    let (pair, prepared) = loop {
        match connect_narrowed(&mut preparation, spec.retry.waits.between_logins).await {
            Ok(Some(ready)) => break ready,
            Ok(None) => return Ok(SyncEnd::Stopped),
            Err(error) => match waits.wait_before_retry(preparation.judge(error), &mut backoff).await {
                Ok(WaitOutcome::Out) => {}
                Ok(WaitOutcome::Stopped) => return Ok(SyncEnd::Stopped),
                Err(error) => {
                    report_known_not_copied(spec, &live_checkpoint, preparation.folders.report);
                    return Err(error);
                }
            },
        }
    };
    let spare = preparation.spare;
    context.progress.enter_phase(EnginePhase::Copying);
    SyncProgress::add(&context.progress.folders_total, prepared.jobs.len() as u64);
    prepared.count(&context.progress);
    let folders = sync_folders(spec, context, (&live_checkpoint, connector), (pair, spare), prepared, report);
    let copied = Box::pin(folders).await;
    if copied.is_ok()
        && !context.stop.is_cancelled()
        && report.gravest_error().is_none()
        && let Err(error) = count_view_messages(spec, &live_checkpoint, &context.progress, report).await
    {
        tracing::info!(error = %error, "views could not be looked at");
        report.note(format!("whether messages of views are in other folders could not be found out: {}", error.what));
    }
    report_not_copied(spec, &live_checkpoint, report);
    copied?;
    let unfinished = report.folders.iter().any(|f| !f.complete);
    if !unfinished && !spec.dry_run && report.gravest_error().is_none() {
        clear_reported_differences(&live_checkpoint).await?;
    }
    Ok(if context.stop.is_cancelled() && unfinished { SyncEnd::Stopped } else { SyncEnd::Complete })
}

/// Tells that folders were too many for the checkpoint.
fn report_dropped_folders(dropped: u64, report: &mut MailboxReport) {
    if dropped > 0 {
        report.warn(format!(
            "what was copied of {dropped} folders is no longer known, since there are more folders than a checkpoint in a \
             status has room for: they are compared with the destination as if nothing had been copied, so what was removed \
             or marked there may come back. `mailferry run`, which keeps whole checkpoints on disk, has no such bound"
        ));
    }
}

/// Tells of each folder what stands as not copied, whichever run found out.
fn report_not_copied(spec: &SyncSpec, live_checkpoint: &LiveCheckpoint, report: &mut MailboxReport) {
    for folder in &mut report.folders {
        if spec.dry_run && !folder.unchanged {
            continue; // it told what it foretells
        }
        live_checkpoint.read(|checkpoint| {
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
fn report_known_not_copied(spec: &SyncSpec, live_checkpoint: &LiveCheckpoint, report: &mut MailboxReport) {
    if !report.folders.is_empty() {
        return report_not_copied(spec, live_checkpoint, report);
    }
    let mut known = NotCopiedReport::default();
    live_checkpoint.read(|checkpoint| {
        for (name, state) in &checkpoint.folders {
            let name = mutf7::decode_lossy(name);
            let accepted = spec.accepted_losses.reasons.contains(&SetAsideReason::Unlisted);
            known.add(SetAsideReason::Unlisted.name(), state.unlisted, accepted);
            for group in state.set_aside.groups() {
                let accepts = &spec.accepted_losses;
                let accepted = accepts.count_accepted(group.reason, &name, state.source_uid_validity, &group.uids);
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
async fn clear_reported_differences(live_checkpoint: &LiveCheckpoint) -> Result<()> {
    let told =
        live_checkpoint.read(|checkpoint| checkpoint.folders.values().any(|state| !state.differences.0.is_empty()));
    if !told {
        return Ok(());
    }
    live_checkpoint.update(|checkpoint| {
        for state in checkpoint.folders.values_mut() {
            state.differences.0.clear();
        }
    });
    live_checkpoint.save().await
}

/// Connects, and prepares one mailbox's folders.
struct MailboxPreparation<'a> {
    context: &'a SyncContext,
    connector: &'a Arc<PairConnector>,
    folders: FolderPreparation<'a>,
    spare: SparePairs,
    connected_before: bool,
    /// Both sides were there.
    reached_before: bool,
}

impl MailboxPreparation<'_> {
    /// Where nobody was there from the beginning, waiting does not help: a person is told at once.
    fn judge(&self, error: Error) -> Error {
        if error.nobody_there && !self.reached_before && !self.folders.spec.retry.wait_for_absent {
            return Error { finality: GiveUpScope::Mailbox, ..error };
        }
        error
    }
}

impl NarrowedConnect for MailboxPreparation<'_> {
    /// None when it was asked to stop before there was a connection.
    type Ready = Option<(ConnectionPair, PreparedFolders)>;

    fn steps(&self) -> u64 {
        self.folders.memory.steps()
    }

    async fn connect(&mut self) -> Result<Self::Ready> {
        let Self { context, connector, folders, spare, connected_before, reached_before } = self;
        folders.report.reconnects += u64::from(std::mem::replace(connected_before, true));
        context.progress.enter_phase(EnginePhase::Connecting);
        spare.abort_all();
        *spare = JoinSet::new();
        let Some(mut pair) = connector.connect_unless(&context.stop).await? else { return Ok(None) };
        *reached_before = true;
        context.progress.enter_phase(EnginePhase::Planning);
        let connections = folders.spec.connections;
        let prepared = folders.prepare(&mut pair, |folders| connector.grow(spare, connections, folders)).await?;
        Ok(Some((pair, prepared)))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use futures::future::BoxFuture;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        imap::permit::AlwaysPermitted,
        sync::{checkpoint_store::CheckpointStore, spec::RetryPolicy, testing::spec},
    };

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
                watcher: None,
            };
            sync_mailbox(&spec, None, &context).await
        };
        tokio::join!(fails("alice"), fails("bob"));
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let tries = lines.filter(|line| line["fields"]["message"] == "trying again");
        let mut mailboxes: Vec<_> =
            tries.map(|connector| connector["spans"][0]["mailbox"].as_str().unwrap().to_owned()).collect();
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
}
