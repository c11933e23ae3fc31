//! A sync inside a pod: claims its attempt, syncs, reports to its MailboxSync, and stops for good as soon as another may
//! have taken over.

mod api_response;
pub(crate) mod assignment;
mod checkpoint_outbox;
pub(crate) mod fence;
mod mounted_token;
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
    assignment::{MountedSecrets, WorkerAssignment},
    checkpoint_outbox::CheckpointOutbox,
    fence::WriteFence,
    not_copied_history::NotCopiedHistory,
    reporter::{ClaimedAttempt, FinalDelivery, StatusClient, StatusReporter},
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

/// How long the engine has to end after the request to stop; then it is left where it is.
const ENGINE_STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// How long after the request to stop the last report is tried. A pod has 60 s.
const FINAL_REPORT_TIMEOUT: Duration = Duration::from_secs(55);
/// How long connections have to be taken down after the fence has closed.
const CONNECTION_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Works on one attempt until it ends; returns the exit code. `stop` asks to save a checkpoint and end soon.
pub(crate) async fn run(assignment: &WorkerAssignment, client: Client, stop: CancellationToken) -> u8 {
    let client = StatusClient::new(client, assignment);
    let attempt = assignment.attempt;
    tracing::info!(mailbox_sync = assignment.mailbox_sync, attempt, "claiming the attempt");
    let patience = SyncSettings::default().offline_grace.as_std();
    match client.claim(attempt, patience, &stop).await {
        Ok(Some((object, claimed))) => {
            tracing::info!(mailbox = object.spec.mailbox, "claimed");
            // The engine runs in a task of its own, and names the mailbox itself.
            let span = tracing::error_span!("mailbox", mailbox = object.spec.mailbox);
            run_claimed_attempt(assignment, client, *object, claimed, stop).instrument(span).await
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
    client: StatusClient,
    claimed: MailboxSync,
    claimed_at: Duration,
    stop: CancellationToken,
) -> u8 {
    let attempt = assignment.attempt;
    let too_late = CancellationToken::new();
    let (asked, late) = (stop.clone(), too_late.clone());
    tokio::spawn(async move {
        asked.cancelled().await;
        sleep(FINAL_REPORT_TIMEOUT).await;
        late.cancel();
    });
    let grace = claimed.spec.settings.offline_grace.as_std();
    let fence = Arc::new(WriteFence::new(grace, claimed_at));
    let claimed_attempt = ClaimedAttempt {
        number: attempt,
        grace,
        claimed_at,
        progress: Arc::new(SyncProgress::default()),
        outbox: Arc::new(CheckpointOutbox::new(Arc::clone(&fence))),
        fence: Arc::clone(&fence),
        refusals: Arc::default(),
    };
    let outbox = Arc::clone(&claimed_attempt.outbox);

    let in_doubt = assignment::has_uncertain_tail(&claimed, attempt);
    let known = assignment::claimed_checkpoint(&claimed, attempt).unwrap_or_else(|error| {
        tracing::warn!(%error, "the checkpoint cannot be used; what is at the destination is matched");
        None
    });
    if let Some(known) = &known {
        outbox.resume_from(known);
    }
    let mut not_copied =
        NotCopiedHistory::from_status(claimed.status.as_ref().and_then(|status| status.worker.as_ref()));
    let secrets = MountedSecrets::new(assignment, &claimed_attempt.refusals, &claimed_attempt.progress);
    let spec = assignment::assigned_sync_spec(assignment, &secrets, &claimed, Timestamp::now());
    if let Ok(spec) = &spec {
        not_copied.set_accepted_reasons(&spec.accepted_losses);
    }
    drop(claimed);
    let mut reporter = StatusReporter::new(client, claimed_attempt.clone(), not_copied);
    let ended = match spec {
        Ok(spec) => {
            let engine = EngineTask::start(spec, known, &claimed_attempt, &stop);
            tokio::select! {
                biased;
                ended = engine.ended(&stop, &fence) => ended,
                () = reporter.keep_reporting() => EngineExit::TimedOut, // it never ends
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
    let flushed = matches!(ended, EngineExit::Done(_)) && (outbox.has_saved() || !in_doubt);
    let (mut status, code) = final_status(attempt, &ended, &mut reporter, stop.is_cancelled());
    status.flushed_attempt = flushed.then_some(attempt);
    write_termination_message(assignment, &WorkerStatus { report: reporter.next_number(), ..status.clone() });
    match reporter.send_final_report(&status, too_late.cancelled()).await {
        FinalDelivery::Delivered => tracing::info!(outcome = ?status.outcome, "ended"),
        FinalDelivery::NotDelivered => {
            tracing::error!(outcome = ?status.outcome, "ended; the last report was not taken");
        }
    }
    code
}

/// How the engine ended.
enum EngineExit {
    /// It ended with its report; the checkpoint is complete.
    Done(Box<MailboxReport>),
    /// It did not end in time.
    TimedOut,
    /// Its task panicked, by a defect.
    Panicked,
}

/// The engine at work.
struct EngineTask(JoinHandle<MailboxReport>);

impl Drop for EngineTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl EngineTask {
    /// Starts the engine, from a checkpoint where one is known. It stops when `stop` asks for it, and when the fence closes.
    fn start(spec: SyncSpec, known: Option<Checkpoint>, attempt: &ClaimedAttempt, stop: &CancellationToken) -> Self {
        let stop_engine = stop.child_token();
        let context = SyncContext {
            store: Arc::clone(&attempt.outbox) as Arc<dyn CheckpointStore>,
            progress: Arc::clone(&attempt.progress),
            stop: stop_engine.clone(),
            permit: Arc::clone(&attempt.fence) as Arc<dyn WritePermit>,
            watcher: None,
        };
        let closed = attempt.fence.closed_token.clone();
        Self(tokio::spawn(async move {
            let sync = sync_mailbox(&spec, known, &context);
            tokio::pin!(sync);
            tokio::select! {
                report = &mut sync => return report,
                () = closed.cancelled() => stop_engine.cancel(),
            }
            sync.await
        }))
    }

    /// Waits for its end, but not for ever once it was asked to.
    async fn ended(mut self, stop: &CancellationToken, fence: &WriteFence) -> EngineExit {
        let out_of_patience = async {
            tokio::select! {
                () = async { stop.cancelled().await; sleep(ENGINE_STOP_TIMEOUT).await } => {}
                () = async { fence.closed_token.cancelled().await; sleep(CONNECTION_CLOSE_TIMEOUT).await } => {}
            }
        };
        tokio::select! {
            report = &mut self.0 => report.map_or(EngineExit::Panicked, |report| EngineExit::Done(Box::new(report))),
            () = out_of_patience => {
                tracing::warn!("the sync does not end in time; the next attempt looks for what was in doubt");
                // Its connections are gone once it is.
                self.0.abort();
                let _ = timeout(CONNECTION_CLOSE_TIMEOUT, &mut self.0).await;
                EngineExit::TimedOut
            }
        }
    }
}

/// The status for the last report, and the exit code of the process.
fn final_status(
    attempt: i64,
    ended: &EngineExit,
    reporter: &mut StatusReporter,
    asked_to_stop: bool,
) -> (WorkerStatus, u8) {
    let (outcome, error) = match ended {
        EngineExit::Done(report) => status_report::outcome(report, asked_to_stop),
        EngineExit::TimedOut => (Outcome::Stopped, None),
        EngineExit::Panicked => {
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
            progress.done_percent = Some(100);
        }
        progress
    });
    match ended {
        EngineExit::Done(report) => reporter.add_sync_report(&mut status, report),
        EngineExit::TimedOut | EngineExit::Panicked => status.not_copied = live.not_copied,
    }
    status.destination_login = live.destination_login;
    status.inbox_uid_next = live.inbox_uid_next;
    let code = match (outcome, &error) {
        (Outcome::Failed, Some(error)) => error.class.exit_code(),
        _ => 0,
    };
    (status, code)
}

/// The status of an attempt that ended by itself.
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

/// The status of an attempt that is over without an outcome.
fn unfinished_status(attempt: i64, error: &Error) -> WorkerStatus {
    WorkerStatus { outcome: None, ..ended_status(attempt, Outcome::Failed, Some(error)) }
}

/// Writes the last word where kubelet takes it as the termination message.
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
