//! What the end of an attempt means: the class of its error decides what comes next.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    attempt_input::attempt_input,
    backoff::jittered,
    observe::{ObservedMailbox, PodEnd, signed_duration},
    quiet_deltas::quiet_deltas_after,
};
use crate::{
    api::{
        Duration, LastError, MailboxSyncStatus, WorkerStatus,
        mailbox_sync::{Failures, Outcome, StopReason, SyncPhase},
    },
    controller::{cached_objects::ContainerExit, events::EventNote},
    error::{EXIT_FENCED, Error, ErrorClass},
};

/// Restarts without progress, in a row, after which a person has to look.
const MAX_FRUITLESS: i32 = 2;
/// The first wait after a pod was lost to the cluster, seconds; doubles.
const INFRASTRUCTURE_SECONDS: i64 = 5;
/// The longest wait after pods were lost to the cluster, seconds.
const MAX_INFRASTRUCTURE_SECONDS: i64 = 300;
/// Waits are shortened or lengthened by up to so many percent, so that many failures at once are not retried at once.
const JITTER_PERCENT: i32 = 10;

/// What the end of an attempt means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SettledAttempt {
    /// The status to be written.
    pub status: MailboxSyncStatus,
    /// The Events to be published once it is.
    pub events: Vec<EventNote>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
enum AttemptResult {
    /// The sync came to its end.
    Synced,
    /// The worker stopped at a checkpoint, as it was asked to.
    Stopped,
    /// The sync ended with an error.
    Failed(LastError),
    /// The cluster took it: evicted, its node lost, never pulled.
    Lost(String),
}

/// Says what the attempt's end means: the status that ends it, with its slots free and the next phase by the class of
/// the error, and the Events about it. `end` is certain: the pod writes to the destination no more.
#[must_use]
pub(crate) fn settle_attempt(observed: &ObservedMailbox<'_>, end: &PodEnd) -> SettledAttempt {
    let worker = last_report(observed);
    let result = attempt_result(observed, end, worker.as_ref());
    AttemptSettler {
        observed,
        status: observed.status.clone(),
        failures: observed.status.failures.unwrap_or_default(),
        events: Vec::new(),
    }
    .settle(result, worker)
}

/// The status of a mailbox while the end of its attempt is written into it.
struct AttemptSettler<'o, 'a> {
    observed: &'o ObservedMailbox<'a>,
    status: MailboxSyncStatus,
    /// Replaces `status.failures`, where it counts any.
    failures: Failures,
    events: Vec<EventNote>,
}

impl AttemptSettler<'_, '_> {
    fn settle(mut self, result: AttemptResult, worker: Option<WorkerStatus>) -> SettledAttempt {
        let observed = self.observed;
        let progress = worker.as_ref().and_then(|worker| worker.progress.as_ref());
        let progressed = progress.is_some_and(|progress| progress.messages_this_attempt > 0);
        let logged_in = worker.as_ref().is_some_and(|worker| worker.destination_login);
        if let (Some(claim), true) = (&mut self.status.claim, logged_in) {
            claim.proven_at.get_or_insert(Time(observed.now));
        }
        let stopping = self.status.stopping.take().map(|stopping| stopping.reason);
        if progressed {
            self.failures.in_a_row = 0;
            self.failures.fruitless_restarts = 0;
            self.failures.infrastructure_in_a_row = 0;
        }
        self.status.slots = None;
        self.status.attempt_used = None;
        self.status.next_attempt_at = None;
        if let AttemptResult::Failed(error) = &result
            && error.class == ErrorClass::Authentication
        {
            // Whatever else ended the attempt, too.
            self.status.login_refused = true;
            self.status.last_error = Some(error.clone());
        }
        match (result, stopping) {
            (AttemptResult::Synced, _) => self.record_synced(worker.as_ref()),
            (_, Some(StopReason::Cancelled)) => self.status.phase = Some(SyncPhase::Cancelled),
            (_, Some(StopReason::Removed)) => self.status.phase = Some(SyncPhase::Pending),
            (AttemptResult::Failed(error), _) => self.record_failure(error),
            (_, Some(StopReason::NotAllowed | StopReason::WindowClosed)) => {
                self.status.phase = Some(SyncPhase::Pending);
            }
            (_, Some(StopReason::Suspended)) => {
                self.status.phase = Some(SyncPhase::Suspended);
                let millis = u64::try_from(observed.deadline_used().as_millis()).unwrap_or(0);
                self.status.attempt_used = Some(Duration::from_millis(millis));
            }
            (_, Some(reason @ (StopReason::Deadline | StopReason::NoProgress))) => {
                self.record_restart(reason, progressed);
            }
            (AttemptResult::Stopped, _) => self.record_pod_lost("the pod was asked to stop by the cluster"),
            (AttemptResult::Lost(why), _) => self.record_pod_lost(&why),
        }
        if let Some(worker) = worker {
            if worker.outcome == Some(Outcome::Stopped) {
                self.honour_retry_at(worker.last_error.clone());
            }
            // The pod goes, and its termination message with it.
            self.status.worker = Some(worker);
        }
        self.status.failures = (self.failures != Failures::default()).then_some(self.failures);
        SettledAttempt { status: self.status, events: self.events }
    }

    fn record_synced(&mut self, worker: Option<&WorkerStatus>) {
        let (status, now) = (&mut self.status, self.observed.now);
        status.phase = Some(SyncPhase::Synced);
        status.quiet_deltas = quiet_deltas_after(self.observed.spec, status, worker);
        status.syncs += 1;
        status.last_error = None;
        status.retry_refused = false;
        self.failures.in_a_row = 0;
        self.failures.infrastructure_in_a_row = 0;
        self.failures.fruitless_restarts = 0;
        // What came in while the sync ran may not have been seen by it: it was quiet since the sync's start at most.
        let seen = worker.and_then(|worker| worker.inbox_uid_next);
        if seen.is_none() || seen != status.inbox_uid_next || status.inbox_quiet_since.is_none() {
            status.inbox_quiet_since = Some(Time(now));
        }
        status.inbox_uid_next = seen;
        status.last_synced_at = Some(Time(now));
    }

    fn record_failure(&mut self, error: LastError) {
        self.failures.sync = self.failures.sync.saturating_add(1);
        self.failures.in_a_row = self.failures.in_a_row.saturating_add(1);
        let failed_in_a_row = self.failures.in_a_row;
        let retry = &self.observed.spec.settings.retry;
        let given_up = retry.max_failures.is_some_and(|most| failed_in_a_row >= most);
        let (phase, next) = match error.class {
            ErrorClass::Configuration => (SyncPhase::Failed, None),
            // Another try with the same password may lock the account.
            ErrorClass::Authentication => (SyncPhase::Stalled, None),
            _ if given_up => (SyncPhase::Failed, None),
            // A person has to act, and nothing in the cluster tells when: it is tried now and then.
            ErrorClass::Authorization | ErrorClass::Quota | ErrorClass::Tls => {
                (SyncPhase::Stalled, Some(self.retry_time(signed_duration(retry.max_backoff))))
            }
            ErrorClass::Throttled
            | ErrorClass::Network
            | ErrorClass::Protocol
            | ErrorClass::MessageRejected
            | ErrorClass::Internal => {
                let first = signed_duration(retry.initial_backoff);
                let next = self.retry_time(doubled_wait(first, failed_in_a_row, signed_duration(retry.max_backoff)));
                (SyncPhase::Backoff, [Some(next), not_before(&error)].into_iter().flatten().max_by_key(|time| time.0))
            }
        };
        self.status.phase = Some(phase);
        self.status.next_attempt_at = next;
        let message = format!("{}: {}", error.class, error.message);
        self.events.push(EventNote::warning(if phase == SyncPhase::Failed { "Failed" } else { "SyncFailed" }, message));
        self.status.last_error = Some(error);
    }

    /// An attempt that was stopped while it waited for a server is not followed by one that asks it sooner.
    fn honour_retry_at(&mut self, error: Option<LastError>) {
        let again = matches!(self.status.phase, Some(SyncPhase::Pending | SyncPhase::Backoff));
        let Some(error) = error.filter(|_| again) else { return };
        let planned = self.status.next_attempt_at.as_ref().map_or(self.observed.now, |next| next.0);
        if let Some(not_before) = not_before(&error).filter(|time| time.0 > planned) {
            self.status.phase = Some(SyncPhase::Backoff);
            self.status.next_attempt_at = Some(not_before);
            self.status.last_error = Some(error);
        }
    }

    fn record_restart(&mut self, reason: StopReason, progressed: bool) {
        if reason == StopReason::Deadline {
            self.failures.deadline_restarts = self.failures.deadline_restarts.saturating_add(1);
        }
        self.status.phase = Some(SyncPhase::Pending);
        if progressed {
            return;
        }
        self.failures.fruitless_restarts += 1;
        if self.failures.fruitless_restarts >= MAX_FRUITLESS {
            let message = format!("{MAX_FRUITLESS} attempts in a row were restarted and copied nothing");
            self.events.push(EventNote::warning("Stalled", message.clone()));
            let error = Error::network(message)
                .advice("Look at both servers and at the pods' logs; then ask for another sync with syncRequest");
            self.status.phase = Some(SyncPhase::Stalled);
            self.status.last_error = Some(LastError::new(&error, Some(Time(self.observed.now))));
        }
    }

    fn record_pod_lost(&mut self, why: &str) {
        self.failures.infrastructure = self.failures.infrastructure.saturating_add(1);
        self.failures.infrastructure_in_a_row = self.failures.infrastructure_in_a_row.saturating_add(1);
        let wait = doubled_wait(
            SignedDuration::from_secs(INFRASTRUCTURE_SECONDS),
            self.failures.infrastructure_in_a_row,
            SignedDuration::from_secs(MAX_INFRASTRUCTURE_SECONDS),
        );
        self.status.phase = Some(SyncPhase::Backoff);
        self.status.next_attempt_at = Some(self.retry_time(wait));
        self.events.push(EventNote::warning("PodLost", why));
    }

    /// The time of the next attempt, after a wait with jitter.
    fn retry_time(&self, wait: SignedDuration) -> Time {
        Time(self.observed.now + jittered(wait, JITTER_PERCENT, self.observed.uid, self.status.attempt))
    }
}

/// No attempt can be made, since an access token that it needs can't be had: `error` says why, `versions` are those of the
/// Secrets that were used. The class decides what comes next, as at the end of an attempt; but nobody has to change the
/// mailbox where whoever runs the operator has to correct a grant.
#[must_use]
pub(crate) fn settle_missing_token(
    observed: &ObservedMailbox<'_>,
    error: &Error,
    versions: &[String],
) -> SettledAttempt {
    let mut settler = AttemptSettler {
        observed,
        status: observed.status.clone(),
        failures: observed.status.failures.unwrap_or_default(),
        events: Vec::new(),
    };
    settler.status.secret_versions = versions.to_vec();
    settler.status.attempt_input = Some(attempt_input(observed.spec));
    settler.status.login_refused = error.class == ErrorClass::Authentication;
    settler.record_failure(LastError::new(error, Some(Time(observed.now))));
    if error.class == ErrorClass::Configuration {
        settler.status.phase = Some(SyncPhase::Stalled);
        let wait = signed_duration(observed.spec.settings.retry.max_backoff);
        settler.status.next_attempt_at = Some(settler.retry_time(wait));
    }
    settler.status.failures = Some(settler.failures);
    SettledAttempt { status: settler.status, events: settler.events }
}

/// The pod was refused, by a quota or a policy: no attempt was made, its number is used again.
#[must_use]
pub(crate) fn status_after_refusal(status: &MailboxSyncStatus) -> MailboxSyncStatus {
    MailboxSyncStatus {
        phase: Some(SyncPhase::Queued),
        slots: None,
        attempt_started_at: None,
        pod_name: None,
        ..status.clone()
    }
}

/// The pod can't be made: what `podOverrides` say is wrong.
#[must_use]
pub(crate) fn status_after_rejection(status: &MailboxSyncStatus, why: &str) -> (MailboxSyncStatus, EventNote) {
    let message = format!("the API server takes no such pod: {}", why.chars().take(800).collect::<String>());
    let error = Error::configuration(message.clone()).advice("Correct podOverrides of the MailMigration");
    let status = MailboxSyncStatus {
        phase: Some(SyncPhase::Failed),
        last_error: Some(LastError::new(&error, None)),
        ..status_after_refusal(status)
    };
    (status, EventNote::warning("Failed", message))
}

/// The newest word of this attempt's worker, from its status or, where the API server was away, from its termination
/// message.
fn last_report(observed: &ObservedMailbox<'_>) -> Option<WorkerStatus> {
    let before = observed.status.worker.as_ref();
    let reported = before.filter(|worker| worker.attempt == observed.status.attempt);
    let word = observed.current_pod().and_then(crate::controller::cached_objects::SyncPod::final_report);
    let word = word.filter(|word| word.attempt == observed.status.attempt);
    match (reported, word) {
        (Some(reported), Some(word)) if reported.report >= word.report && reported.outcome.is_some() => {
            Some(reported.clone())
        }
        (_, Some(word)) => Some(with_last_word(before, word)),
        (reported, None) => reported.cloned(),
    }
}

/// The status of a worker whose last report did not arrive. A last word has no checkpoint, so that of an earlier report
/// stands, and so does what is said of it: the tail is in doubt.
fn with_last_word(before: Option<&WorkerStatus>, word: WorkerStatus) -> WorkerStatus {
    let before = before.cloned().unwrap_or_default();
    WorkerStatus {
        report: word.report.max(if before.attempt == word.attempt { before.report } else { 0 }),
        checkpoint: before.checkpoint,
        flushed_attempt: before.flushed_attempt,
        folders: before.folders,
        left_out: before.left_out,
        warnings: before.warnings,
        held_deletions: before.held_deletions,
        differences: before.differences,
        not_copied: word.not_copied.clone().or(before.not_copied),
        ..word
    }
}

fn attempt_result(observed: &ObservedMailbox<'_>, end: &PodEnd, worker: Option<&WorkerStatus>) -> AttemptResult {
    let error = worker.and_then(|worker| worker.last_error.clone());
    match (worker.and_then(|worker| worker.outcome), error) {
        (Some(Outcome::Synced), _) => return AttemptResult::Synced,
        (Some(Outcome::Stopped), _) => return AttemptResult::Stopped,
        (Some(Outcome::Failed), Some(error)) => return AttemptResult::Failed(error),
        _ => {}
    }
    match end {
        PodEnd::NeverRan => AttemptResult::Lost("the pod never ran".to_owned()),
        PodEnd::Lost => AttemptResult::Lost("the pod was lost sight of".to_owned()),
        PodEnd::Exited(exit) => exit_result(observed, exit),
    }
}

/// The container ended without a word.
fn exit_result(observed: &ObservedMailbox<'_>, exit: &ContainerExit) -> AttemptResult {
    let pod = observed.current_pod();
    let deleted = pod.is_some_and(|pod| pod.deleting_since().is_some() || pod.was_disrupted());
    if exit.reason == "OOMKilled" {
        let advice = "Raise podOverrides.resources.limits.memory; please report how large the mailbox is";
        let what = "the sync was killed: it needed more memory than its pod may have";
        return AttemptResult::Failed(LastError::new(&Error::internal(what).advice(advice), None));
    }
    if deleted
        || exit.code == i32::from(EXIT_FENCED)
        || matches!(exit.code, 137 | 143)
        || exit.reason == "ContainerStatusUnknown"
    {
        let why = pod.and_then(|pod| pod.status.reason.clone().or_else(|| pod.status.message.clone()));
        return AttemptResult::Lost(
            why.map_or_else(|| "the pod was ended from outside".to_owned(), |why| format!("the pod was ended: {why}")),
        );
    }
    if exit.reason == "StartError" || exit.code == 128 {
        return AttemptResult::Lost(format!(
            "the container could not be started: {}",
            exit.message.chars().take(300).collect::<String>()
        ));
    }
    let error = Error::internal(format!("the sync ended with exit code {} and without a report", exit.code))
        .advice("Look at the pod's log, and please report it");
    AttemptResult::Failed(LastError::new(&error, None))
}

/// Before this time the server does not want to be asked: until then the slots are others'.
fn not_before(error: &LastError) -> Option<Time> {
    error.retry_at.clone().filter(|_| matches!(error.class, ErrorClass::Throttled | ErrorClass::Network))
}

/// A wait that doubles with each time in a row, from the first on.
fn doubled_wait(first: SignedDuration, times: i32, most: SignedDuration) -> SignedDuration {
    let doublings = u32::try_from(times.saturating_sub(1)).unwrap_or(0).min(20);
    first.saturating_mul(2_i32.saturating_pow(doublings)).min(most)
}
