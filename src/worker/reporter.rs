//! Talks to the API server about one thing: the `worker` part of the attempt's own MailboxSync.

use std::{
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
    not_copied_history::NotCopiedHistory,
    report_schedule::{self, ReportAction},
    status_report::{self, ThroughputWindow},
};
use crate::{
    api::{MailboxSync, mailbox_sync::WorkerStatus},
    clock::since_boot,
    error::{Error, Result},
    sync::{progress::SyncProgress, report::MailboxReport},
};

/// A request without an answer for so long had none.
const REQUEST: Duration = Duration::from_secs(10);
/// How long the claim may be refused: the operator may not have written yet which pod this is.
const REFUSED: Duration = Duration::from_mins(1);
/// A refusal that may be an API server's start is believed after this long.
const DOUBTFUL: Duration = Duration::from_secs(15);
/// Counters are looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// A folder's end brings the checkpoint along when so many messages were copied since the last one.
const MANY: u64 = 1000;

/// The way to the API server.
pub(crate) struct StatusClient {
    api: Api<MailboxSync>,
    name: String,
    limit: Duration,
}

impl StatusClient {
    /// To the assigned object.
    #[must_use]
    pub(crate) fn new(client: Client, assignment: &WorkerAssignment) -> Self {
        Self {
            api: Api::namespaced(client, &assignment.namespace),
            name: assignment.mailbox_sync.clone(),
            limit: REQUEST,
        }
    }

    /// Sends a patch; gives the answer and when it was sent.
    async fn send(&self, patch: &Value) -> (PatchOutcome, Duration) {
        let sent = since_boot();
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let request = self.api.patch_status(&self.name, &parameters, &patch);
        let answer = match timeout(self.limit, request).await {
            Ok(answer) => classify_response(answer),
            Err(_) => {
                PatchOutcome::Away(format!("the API server did not answer within {} s", self.limit.as_secs_f32()))
            }
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
                PatchOutcome::Taken(object) => return Ok(Some((object, sent))),
                PatchOutcome::Fenced(why) | PatchOutcome::Doubtful(why) => {
                    tracing::info!(why, "the attempt could not be claimed yet");
                    if sent.saturating_sub(*refused_since.get_or_insert(sent)) >= REFUSED {
                        return Err(Error::internal(format!("fenced: attempt {attempt} could not be claimed: {why}"))
                            .advice(
                                "Another attempt has taken over, or the MailboxSync is gone; nothing was written",
                            ));
                    }
                }
                PatchOutcome::Away(why) => {
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

/// Whether the last report is at the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinalDelivery {
    /// It is.
    Yes,
    /// There was no time left; the termination message has to do.
    No,
}

/// Reports what the engine does, as often as [`report_schedule`] says.
pub(crate) struct StatusReporter {
    link: StatusClient,
    attempt: i64,
    progress: Arc<SyncProgress>,
    desk: Arc<CheckpointOutbox>,
    fence: Arc<WriteFence>,
    number: i64,
    samples: ThroughputWindow,
    standing: NotCopiedHistory,
    pace: report_schedule::ReportState,
    folders_told: u64,
    folders_flushed: u64,
    refused_since: Option<Duration>,
}

impl StatusReporter {
    /// Reports by `link` for an attempt that was claimed at `claimed`.
    #[must_use]
    pub(crate) fn new(
        mut link: StatusClient,
        attempt: i64,
        progress: Arc<SyncProgress>,
        desk: Arc<CheckpointOutbox>,
        fence: Arc<WriteFence>,
        (grace, claimed): (Duration, Duration),
        standing: NotCopiedHistory,
    ) -> Self {
        link.limit = REQUEST.min(grace / 3);
        Self {
            link,
            attempt,
            progress,
            desk,
            fence,
            number: 1,
            samples: ThroughputWindow::default(),
            standing,
            pace: report_schedule::ReportState {
                grace,
                claimed,
                sent: claimed,
                failures: 0,
                folder_ended: false,
                checkpoint: false,
                large_folder: false,
                checkpoint_sent: None,
            },
            folders_told: 0,
            folders_flushed: 0,
            refused_since: None,
        }
    }

    /// Reports until it is dropped. Safe to drop: a report that is on its way then has a lower number than any later one,
    /// and is refused if it comes late.
    pub(crate) async fn keep_reporting(&mut self) {
        loop {
            let Some(left) = self.fence.time_left() else { return std::future::pending().await };
            let ended = self.progress.folders_done.load(Relaxed);
            self.pace.folder_ended = ended > self.folders_told;
            self.pace.checkpoint = self.desk.has_unreported();
            self.pace.large_folder = ended > self.folders_flushed && self.desk.unreported_messages() >= MANY;
            match report_schedule::next_action(&self.pace, since_boot()) {
                ReportAction::Wait(wait) => sleep(wait.min(LOOK).min(left)).await,
                ReportAction::Report { checkpoint } => {
                    let kept = if checkpoint { self.desk.newest_unreported() } else { None };
                    let status = self.live_status();
                    self.report(status, kept).await;
                }
            }
        }
    }

    /// The status as it is now.
    pub(crate) fn live_status(&mut self) -> WorkerStatus {
        let rate = self.samples.push_and_rate(since_boot(), self.progress.bytes_done.load(Relaxed));
        let set_aside = self.desk.set_aside_counts();
        let live = status_report::live_status(&self.progress, set_aside.values().sum(), rate, Timestamp::now());
        WorkerStatus { not_copied: self.standing.not_copied_so_far(&set_aside), ..live }
    }

    /// Adds to the last status what the engine's report says of what was not copied.
    pub(crate) fn add_sync_report(&self, status: &mut WorkerStatus, report: &MailboxReport) {
        self.standing.add_sync_report(status, report, &self.desk.set_aside_counts());
    }

    /// Sends one report; gives it back as it was sent if it was taken.
    async fn report(&mut self, mut status: WorkerStatus, kept: Option<EncodedCheckpoint>) -> bool {
        self.number += 1;
        status.attempt = self.attempt;
        status.report = self.number;
        if let Some(kept) = &kept {
            status.checkpoint = Some(kept.checkpoint.clone());
            status.folders.clone_from(&kept.folders);
        }
        let ended = self.progress.folders_done.load(Relaxed);
        let (answer, sent) = self.link.send(&status_report::report_patch(&status, &self.standing.reasons())).await;
        self.pace.sent = sent;
        match answer {
            PatchOutcome::Taken(_) => {
                self.fence.confirm(sent);
                self.fence.hold(false);
                self.refused_since = None;
                self.pace.failures = 0;
                self.folders_told = ended;
                if let Some(kept) = &kept {
                    self.desk.mark_reported(kept);
                    self.pace.checkpoint_sent = Some(sent);
                    self.folders_flushed = ended;
                }
                tracing::debug!(report = status.report, checkpoint = kept.is_some(), "reported");
                true
            }
            PatchOutcome::Fenced(why) => {
                tracing::error!(why, "fenced: nothing more is written");
                self.fence.close_as_fenced(&why);
                false
            }
            PatchOutcome::Doubtful(why) => {
                self.fence.hold(true);
                self.pace.failures = 1;
                let refused = sent.saturating_sub(*self.refused_since.get_or_insert(sent));
                tracing::warn!(why, "refused: nothing is written until it is certain whether this attempt is over");
                if refused >= DOUBTFUL {
                    self.fence.close_as_fenced(&why);
                }
                false
            }
            PatchOutcome::Away(why) => {
                self.pace.failures = self.pace.failures.saturating_add(1);
                tracing::warn!(why, failures = self.pace.failures, "the API server is away; the sync goes on");
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
            let Some(left) = self.fence.time_left() else { return FinalDelivery::No };
            let kept = self.desk.newest_unreported();
            let taken = tokio::select! {
                taken = self.report(status.clone(), kept) => taken,
                () = &mut until => return FinalDelivery::No,
            };
            if taken {
                return FinalDelivery::Yes;
            }
            let ReportAction::Wait(wait) = report_schedule::next_action(&self.pace, since_boot()) else { continue };
            tokio::select! {
                () = sleep(wait.min(LOOK).min(left)) => {}
                () = &mut until => return FinalDelivery::No,
            }
        }
    }
}
