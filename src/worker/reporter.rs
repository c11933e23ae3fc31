//! Talks to the API server about one thing: the `worker` part of the attempt's own MailboxSync.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    api_response::{PatchOutcome, classify_response},
    assignment::WorkerAssignment,
    checkpoint_outbox::{CheckpointOutbox, EncodedCheckpoint},
    fence::WriteFence,
    mounted_token::TokenRefusals,
    not_copied_history::NotCopiedHistory,
    report_schedule::{self, ReportAction},
    status_report::{self, ThroughputWindow},
};
use crate::{
    api::{MailboxSync, mailbox_sync::WorkerStatus},
    clock::since_boot,
    error::{Error, Result, Side},
    sync::{progress::SyncProgress, report::MailboxReport},
};

/// A request that is not answered within this time counts as not answered.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the claim may be refused: the operator may not have written yet which pod this is.
const CLAIM_REFUSAL_LIMIT: Duration = Duration::from_mins(1);
/// A refusal that may be an API server's start is believed after this long.
const REFUSAL_CONFIRMATION: Duration = Duration::from_secs(15);
/// How often the engine's counters are read.
const COUNTER_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A folder's end brings the checkpoint along when so many messages were copied since the last one.
const LARGE_FOLDER_MESSAGES: u64 = 1000;

/// Patches the status of the attempt's own MailboxSync.
pub(crate) struct StatusClient {
    api: Api<MailboxSync>,
    name: String,
    /// How long an answer is waited for.
    timeout: Duration,
}

impl StatusClient {
    /// A client for the assigned MailboxSync.
    #[must_use]
    pub(crate) fn new(client: Client, assignment: &WorkerAssignment) -> Self {
        Self {
            api: Api::namespaced(client, &assignment.namespace),
            name: assignment.mailbox_sync.clone(),
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// Sends a patch; gives the answer and when it was sent.
    async fn send(&self, patch: &Value) -> (PatchOutcome, Duration) {
        let sent = since_boot();
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let request = self.api.patch_status(&self.name, &parameters, &patch);
        let answer = match timeout(self.timeout, request).await {
            Ok(answer) => classify_response(answer),
            Err(_) => PatchOutcome::Unavailable(format!(
                "the API server did not answer within {} s",
                self.timeout.as_secs_f32()
            )),
        };
        (answer, sent)
    }

    /// Claims the attempt; gives the object and when the claim was sent. None when it was asked to stop before.
    ///
    /// # Errors
    /// Internal when the claim is refused for a minute, Network when the API server is away for as long as `patience`.
    pub(crate) async fn claim(
        &self,
        attempt: i64,
        patience: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<(Box<MailboxSync>, Duration)>> {
        let began = since_boot();
        let mut refused_since = None;
        let mut pause = Duration::from_millis(100);
        loop {
            let claim = status_report::claim_patch(attempt, Timestamp::now());
            let (answer, sent) = tokio::select! {
                answered = self.send(&claim) => answered,
                () = stop.cancelled() => return Ok(None),
            };
            match answer {
                PatchOutcome::Accepted(object) => return Ok(Some((object, sent))),
                PatchOutcome::Fenced(why) | PatchOutcome::Refused(why) => {
                    tracing::info!(why, "the attempt could not be claimed yet");
                    if sent.saturating_sub(*refused_since.get_or_insert(sent)) >= CLAIM_REFUSAL_LIMIT {
                        return Err(Error::internal(format!("fenced: attempt {attempt} could not be claimed: {why}"))
                            .advice(
                                "Another attempt has taken over, or the MailboxSync is gone; nothing was written",
                            ));
                    }
                }
                PatchOutcome::Unavailable(why) => {
                    tracing::warn!(why, "the API server is away");
                    refused_since = None;
                    if sent.saturating_sub(began) >= patience {
                        return Err(Error::network(format!("attempt {attempt} could not be claimed: {why}"))
                            .advice("Check that pods reach the API server; the operator starts another attempt"));
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return Ok(None),
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

/// Whether the API server has the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinalDelivery {
    /// It has.
    Delivered,
    /// There was no time left: the termination message has to do.
    NotDelivered,
}

/// An attempt that this worker has claimed, and what the engine and the reporter share.
#[derive(Clone)]
pub(crate) struct ClaimedAttempt {
    /// The attempt's number.
    pub number: i64,
    /// How long the sync may go on without an answer of the API server.
    pub grace: Duration,
    /// When the claim was sent, since boot.
    pub claimed_at: Duration,
    /// Counts what the engine does.
    pub progress: Arc<SyncProgress>,
    /// Holds the engine's newest checkpoint.
    pub outbox: Arc<CheckpointOutbox>,
    /// Stops writes once another attempt may have taken over.
    pub fence: Arc<WriteFence>,
    /// Holds the access tokens that servers refuse.
    pub refusals: Arc<TokenRefusals>,
}

/// Reports what the engine does, as often as [`report_schedule`] says.
pub(crate) struct StatusReporter {
    client: StatusClient,
    attempt: i64,
    progress: Arc<SyncProgress>,
    outbox: Arc<CheckpointOutbox>,
    fence: Arc<WriteFence>,
    refusals: Arc<TokenRefusals>,
    /// What of them the last report told.
    refusals_reported: BTreeMap<Side, String>,
    /// The number of the last report; the claim is the first.
    number: i64,
    throughput: ThroughputWindow,
    not_copied: NotCopiedHistory,
    schedule: report_schedule::ReportState,
    /// Folders that had ended as of the last report.
    folders_reported: u64,
    /// Folders that had ended as of the last report with a checkpoint.
    folders_flushed: u64,
    /// When the first of the refusals in a row was sent, since boot.
    refused_since: Option<Duration>,
}

impl StatusReporter {
    /// A reporter for an attempt that was claimed, which is its first report.
    #[must_use]
    pub(crate) fn new(mut client: StatusClient, attempt: ClaimedAttempt, not_copied: NotCopiedHistory) -> Self {
        let ClaimedAttempt { number: attempt, grace, claimed_at, progress, outbox, fence, refusals } = attempt;
        client.timeout = REQUEST_TIMEOUT.min(grace / 3);
        Self {
            client,
            attempt,
            progress,
            outbox,
            fence,
            refusals,
            refusals_reported: BTreeMap::new(),
            number: 1,
            throughput: ThroughputWindow::default(),
            not_copied,
            schedule: report_schedule::ReportState {
                grace,
                claimed: claimed_at,
                sent: claimed_at,
                failures: 0,
                token_refused: false,
                folder_ended: false,
                checkpoint: false,
                large_folder: false,
                checkpoint_sent: None,
            },
            folders_reported: 0,
            folders_flushed: 0,
            refused_since: None,
        }
    }

    /// Reports until it is dropped. It may be dropped at any time: a report that is on its way then has a lower number than any later one,
    /// and is refused if it comes late.
    pub(crate) async fn keep_reporting(&mut self) {
        loop {
            let Some(left) = self.fence.time_left() else { return std::future::pending().await };
            let ended = self.progress.folders_done.load(Relaxed);
            self.schedule.folder_ended = ended > self.folders_reported;
            self.schedule.token_refused = self.refusals.current() != self.refusals_reported;
            self.schedule.checkpoint = self.outbox.has_unreported();
            self.schedule.large_folder =
                ended > self.folders_flushed && self.outbox.unreported_messages() >= LARGE_FOLDER_MESSAGES;
            match report_schedule::next_action(&self.schedule, since_boot()) {
                ReportAction::Wait(wait) => sleep(wait.min(COUNTER_POLL_INTERVAL).min(left)).await,
                ReportAction::Report { checkpoint: due } => {
                    let checkpoint = if due { self.outbox.newest_unreported() } else { None };
                    let status = self.live_status();
                    self.report(status, checkpoint).await;
                }
            }
        }
    }

    /// The status as it is now.
    pub(crate) fn live_status(&mut self) -> WorkerStatus {
        let rate = self.throughput.push_and_rate(since_boot(), self.progress.bytes_done.load(Relaxed));
        let set_aside = self.outbox.set_aside_counts();
        let live = status_report::live_status(&self.progress, set_aside.values().sum(), rate, Timestamp::now());
        WorkerStatus { not_copied: self.not_copied.not_copied_so_far(&set_aside), ..live }
    }

    /// Adds to the last status what the engine's report says of what was not copied.
    pub(crate) fn add_sync_report(&self, status: &mut WorkerStatus, report: &MailboxReport) {
        self.not_copied.add_sync_report(status, report, &self.outbox.set_aside_counts());
    }

    /// Sends one report, with a checkpoint or without; true when the API server accepted it.
    async fn report(&mut self, mut status: WorkerStatus, checkpoint: Option<EncodedCheckpoint>) -> bool {
        self.number += 1;
        status.attempt = self.attempt;
        status.report = self.number;
        let mut refused = self.refusals.current();
        let refusals = refused.clone();
        status.refused_source_token = refused.remove(&Side::Source);
        status.refused_destination_token = refused.remove(&Side::Destination);
        if let Some(newest) = &checkpoint {
            status.checkpoint = Some(newest.checkpoint.clone());
            status.folders.clone_from(&newest.folders);
        }
        let ended = self.progress.folders_done.load(Relaxed);
        let (answer, sent) = self.client.send(&status_report::report_patch(&status, &self.not_copied.reasons())).await;
        self.schedule.sent = sent;
        match answer {
            PatchOutcome::Accepted(_) => {
                self.fence.confirm(sent);
                self.fence.hold(false);
                self.refused_since = None;
                self.schedule.failures = 0;
                self.folders_reported = ended;
                self.refusals_reported = refusals;
                if let Some(newest) = &checkpoint {
                    self.outbox.mark_reported(newest);
                    self.schedule.checkpoint_sent = Some(sent);
                    self.folders_flushed = ended;
                }
                tracing::debug!(report = status.report, checkpoint = checkpoint.is_some(), "reported");
                true
            }
            PatchOutcome::Fenced(why) => {
                tracing::error!(why, "fenced: nothing more is written");
                self.fence.close_as_fenced(&why);
                false
            }
            PatchOutcome::Refused(why) => {
                self.fence.hold(true);
                self.schedule.failures = 1;
                let refused = sent.saturating_sub(*self.refused_since.get_or_insert(sent));
                tracing::warn!(why, "refused: nothing is written until it is certain whether this attempt is over");
                if refused >= REFUSAL_CONFIRMATION {
                    self.fence.close_as_fenced(&why);
                }
                false
            }
            PatchOutcome::Unavailable(why) => {
                self.schedule.failures = self.schedule.failures.saturating_add(1);
                tracing::warn!(why, failures = self.schedule.failures, "the API server is away; the sync goes on");
                false
            }
        }
    }

    /// The number of the next report.
    #[must_use]
    pub(crate) const fn next_number(&self) -> i64 {
        self.number + 1
    }

    /// Reports how the attempt ended, with the newest checkpoint, until that is taken or there is no time left: the fence
    /// closes, or `until` is over.
    pub(crate) async fn send_final_report(
        &mut self,
        status: &WorkerStatus,
        until: impl Future<Output = ()>,
    ) -> FinalDelivery {
        tokio::pin!(until);
        loop {
            let Some(left) = self.fence.time_left() else { return FinalDelivery::NotDelivered };
            let checkpoint = self.outbox.newest_unreported();
            let taken = tokio::select! {
                taken = self.report(status.clone(), checkpoint) => taken,
                () = &mut until => return FinalDelivery::NotDelivered,
            };
            if taken {
                return FinalDelivery::Delivered;
            }
            let ReportAction::Wait(wait) = report_schedule::next_action(&self.schedule, since_boot()) else { continue };
            tokio::select! {
                () = sleep(wait.min(COUNTER_POLL_INTERVAL).min(left)) => {}
                () = &mut until => return FinalDelivery::NotDelivered,
            }
        }
    }
}
