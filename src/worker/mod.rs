//! A sync inside a pod: claims its attempt, syncs, reports to its MailboxSync, and stops for good as soon as another may
//! have taken over.

mod api_response;
pub(crate) mod assignment;
mod checkpoint_outbox;
pub(crate) mod fence;
mod not_copied_history;
pub mod report_schedule;
mod reporter;
mod status_report;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::{
    assignment::WorkerAssignment,
    checkpoint_outbox::CheckpointOutbox,
    fence::WriteFence,
    not_copied_history::NotCopiedHistory,
    reporter::{FinalDelivery, StatusClient, StatusReporter},
};
use crate::{
    api::{
        MailboxSync, SyncSettings,
        common::LastError,
        mailbox_sync::{Outcome, WorkerPhase, WorkerStatus},
    },
    error::{EXIT_FENCED, Error, Result},
    imap::permit::WritePermit,
    sync::{
        SyncContext, checkpoint::Checkpoint, checkpoint_store::CheckpointStore, progress::SyncProgress,
        report::MailboxReport, spec::SyncSpec, sync_mailbox,
    },
};

/// After the request to stop, the engine has so long before it is left where it is,
const STOPPING: Duration = Duration::from_secs(40);
/// and so long passes before the last report is given up. A pod has 60 s.
const LAST_REPORT: Duration = Duration::from_secs(55);
/// After the fence has closed, connections have so long to be taken down.
const CLOSING: Duration = Duration::from_secs(5);

/// Works on one attempt until it ends; returns the exit code. `stop` asks to save a checkpoint and end soon.
pub(crate) async fn run(assignment: &WorkerAssignment, client: Client, stop: CancellationToken) -> u8 {
    let link = StatusClient::new(client, assignment);
    let attempt = assignment.attempt;
    tracing::info!(mailbox_sync = assignment.mailbox_sync, attempt, "claiming the attempt");
    let patience = SyncSettings::default().offline_grace.as_std();
    match link.claim(attempt, patience, &stop).await {
        Ok(Some((object, claimed))) => {
            tracing::info!(mailbox = object.spec.mailbox, "claimed");
            // The engine runs in a task of its own, and names the mailbox itself.
            let span = tracing::error_span!("mailbox", mailbox = object.spec.mailbox);
            run_claimed_attempt(assignment, link, *object, claimed, stop).instrument(span).await
        }
        Ok(None) => {
            tracing::info!("asked to stop before the attempt was claimed");
            write_termination_message(assignment, &ended_status(attempt, Outcome::Stopped, None));
            0
        }
        Err(error) => {
            tracing::error!(%error, "the attempt was not claimed");
            write_termination_message(assignment, &unfinished_status(attempt, &error));
            EXIT_FENCED
        }
    }
}

async fn run_claimed_attempt(
    assignment: &WorkerAssignment,
    link: StatusClient,
    claimed: MailboxSync,
    claimed_at: Duration,
    stop: CancellationToken,
) -> u8 {
    let attempt = assignment.attempt;
    let too_late = CancellationToken::new();
    let (asked, late) = (stop.clone(), too_late.clone());
    tokio::spawn(async move {
        asked.cancelled().await;
        sleep(LAST_REPORT).await;
        late.cancel();
    });
    let grace = claimed.spec.settings.offline_grace.as_std();
    let fence = Arc::new(WriteFence::new(grace, claimed_at));
    let desk = Arc::new(CheckpointOutbox::new(Arc::clone(&fence)));
    let progress = Arc::new(SyncProgress::default());

    let slots = claimed.status.as_ref().and_then(|status| status.slots);
    let in_doubt = assignment::has_uncertain_tail(&claimed, attempt);
    let known = assignment::claimed_checkpoint(&claimed, attempt).unwrap_or_else(|error| {
        tracing::warn!(%error, "the checkpoint cannot be used; what is at the destination is matched");
        None
    });
    if let Some(known) = &known {
        desk.resume_from(known);
    }
    let mut standing = NotCopiedHistory::from_status(claimed.status.as_ref().and_then(|status| status.worker.as_ref()));
    let spec = assignment::assigned_sync_spec(assignment, &claimed, slots, Timestamp::now());
    if let Ok(spec) = &spec {
        standing.set_accepted_reasons(&spec.accepted_losses);
    }
    drop(claimed);
    let reporting = (Arc::clone(&progress), Arc::clone(&desk), Arc::clone(&fence));
    let mut reporter =
        StatusReporter::new(link, attempt, reporting.0, reporting.1, reporting.2, (grace, claimed_at), standing);
    let ended = match spec {
        Ok(spec) => {
            let engine = start(spec, known, &progress, &desk, &fence, &stop);
            tokio::select! {
                biased;
                ended = engine.ended(&stop, &fence) => ended,
                () = reporter.keep_reporting() => EngineExit::LeftOff, // it never ends
            }
        }
        Err(error) => EngineExit::Done(Box::new(MailboxReport { error: Some(error), ..MailboxReport::default() })),
    };
    if let Some(error) = fence.close_reason() {
        tracing::error!(%error, "ended without the last word");
        write_termination_message(
            assignment,
            &WorkerStatus { report: reporter.next_number(), ..unfinished_status(attempt, error) },
        );
        return EXIT_FENCED;
    }
    // What was in doubt before is still so, unless the engine has written into a checkpoint of its own where to look.
    let flushed = matches!(ended, EngineExit::Done(_)) && (desk.has_saved() || !in_doubt);
    let (mut status, code) = final_status(attempt, &ended, &mut reporter, stop.is_cancelled());
    status.flushed_attempt = flushed.then_some(attempt);
    write_termination_message(assignment, &WorkerStatus { report: reporter.next_number(), ..status.clone() });
    match reporter.send_final_report(&status, too_late.cancelled()).await {
        FinalDelivery::Yes => tracing::info!(outcome = ?status.outcome, "ended"),
        FinalDelivery::No => tracing::error!(outcome = ?status.outcome, "ended; the last report was not taken"),
    }
    code
}

/// How the engine ended.
enum EngineExit {
    /// With its report; the checkpoint is complete.
    Done(Box<MailboxReport>),
    /// It did not end in time.
    LeftOff,
    /// By a defect.
    Broken,
}

/// The engine at work.
struct EngineTask(JoinHandle<MailboxReport>);

impl Drop for EngineTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start(
    spec: SyncSpec,
    known: Option<Checkpoint>,
    progress: &Arc<SyncProgress>,
    desk: &Arc<CheckpointOutbox>,
    fence: &Arc<WriteFence>,
    stop: &CancellationToken,
) -> EngineTask {
    let stop_engine = stop.child_token();
    let context = SyncContext {
        store: Arc::clone(desk) as Arc<dyn CheckpointStore>,
        progress: Arc::clone(progress),
        stop: stop_engine.clone(),
        permit: Arc::clone(fence) as Arc<dyn WritePermit>,
    };
    let closed = fence.is_closed.clone();
    EngineTask(tokio::spawn(async move {
        let sync = sync_mailbox(&spec, known, &context);
        tokio::pin!(sync);
        tokio::select! {
            report = &mut sync => return report,
            () = closed.cancelled() => stop_engine.cancel(),
        }
        sync.await
    }))
}

impl EngineTask {
    /// Waits for its end, but not for ever once it was asked to.
    async fn ended(mut self, stop: &CancellationToken, fence: &WriteFence) -> EngineExit {
        let out_of_patience = async {
            tokio::select! {
                () = async { stop.cancelled().await; sleep(STOPPING).await } => {}
                () = async { fence.is_closed.cancelled().await; sleep(CLOSING).await } => {}
            }
        };
        tokio::select! {
            report = &mut self.0 => report.map_or(EngineExit::Broken, |report| EngineExit::Done(Box::new(report))),
            () = out_of_patience => {
                tracing::warn!("the sync does not end in time; the next attempt looks for what was in doubt");
                // Its connections are gone once it is.
                self.0.abort();
                let _ = timeout(CLOSING, &mut self.0).await;
                EngineExit::LeftOff
            }
        }
    }
}

/// The last report, and the exit code.
fn final_status(
    attempt: i64,
    ended: &EngineExit,
    reporter: &mut StatusReporter,
    asked_to_stop: bool,
) -> (WorkerStatus, u8) {
    let (outcome, error) = match ended {
        EngineExit::Done(report) => status_report::outcome(report, asked_to_stop),
        EngineExit::LeftOff => (Outcome::Stopped, None),
        EngineExit::Broken => {
            let what = "Mailferry failed on this mailbox; its checkpoint is as it was saved last";
            let advice = "Please report it with the log line that says where; another attempt goes on";
            (Outcome::Failed, Some(Error::internal(what).advice(advice)))
        }
    };
    if let Some(error) = &error {
        tracing::error!(%error, "the sync did not end well");
    }
    let mut status = self::ended_status(attempt, outcome, error.as_ref());
    let live = reporter.live_status();
    status.progress = live.progress.map(|mut progress| {
        progress.eta = None;
        if outcome == Outcome::Synced {
            progress.done = Some("100%".to_owned());
        }
        progress
    });
    match ended {
        EngineExit::Done(report) => reporter.add_sync_report(&mut status, report),
        EngineExit::LeftOff | EngineExit::Broken => status.not_copied = live.not_copied,
    }
    status.destination_login = live.destination_login;
    status.inbox_uid_next = live.inbox_uid_next;
    let code = match (outcome, &error) {
        (Outcome::Failed, Some(error)) => error.class.exit_code(),
        _ => 0,
    };
    (status, code)
}

/// An attempt that ended by itself.
fn ended_status(attempt: i64, outcome: Outcome, error: Option<&Error>) -> WorkerStatus {
    let now = Some(Time(Timestamp::now()));
    WorkerStatus {
        attempt,
        reported_at: now.clone(),
        phase: Some(if outcome == Outcome::Failed { WorkerPhase::Failed } else { WorkerPhase::Done }),
        outcome: Some(outcome),
        last_error: error.map(|error| LastError::new(error, now)),
        ..WorkerStatus::default()
    }
}

/// An attempt that is over without an outcome.
fn unfinished_status(attempt: i64, error: &Error) -> WorkerStatus {
    WorkerStatus { outcome: None, ..ended_status(attempt, Outcome::Failed, Some(error)) }
}

/// Leaves the last word where kubelet finds it.
fn write_termination_message(assignment: &WorkerAssignment, status: &WorkerStatus) {
    if let Err(error) = std::fs::write(&assignment.termination_log, status_report::termination_message(status)) {
        tracing::warn!(%error, path = %assignment.termination_log.display(), "the last word could not be written");
    }
}

/// Reads a client's configuration as workers need it.
///
/// # Errors
/// Configuration when there is neither a cluster around this process nor a kubeconfig.
pub(crate) async fn client() -> Result<Client> {
    let unreachable = |why: String| {
        Error::configuration(format!("the API server can't be reached: {why}"))
            .advice("Workers run in pods that the operator makes; elsewhere, set KUBECONFIG")
    };
    let mut config = kube::Config::infer().await.map_err(|e| unreachable(e.to_string()))?;
    // The reporter tries again itself, and counts.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|e| unreachable(e.to_string()))
}
