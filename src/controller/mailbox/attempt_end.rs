//! What the end of an attempt means: the class of its error decides what comes next.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    backoff::jittered,
    observe::{ObservedMailbox, PodEnd, signed_duration},
};
use crate::{
    api::{
        Duration, LastError, MailboxSyncStatus, WorkerStatus,
        mailbox_sync::{Failures, Outcome, StopReason, SyncPhase},
    },
    controller::{cached_objects::ContainerExit, events::EventNote},
    error::{EXIT_FENCED, ErrorClass},
};

/// Restarts without progress, in a row, after which a person has to look.
const MAX_FRUITLESS: i32 = 2;
/// The first wait after a pod was lost to the cluster, seconds; doubles.
const INFRASTRUCTURE_SECONDS: i64 = 5;
/// The longest wait after pods were lost to the cluster, seconds.
const MAX_INFRASTRUCTURE_SECONDS: i64 = 300;
/// Waits are shortened or lengthened by up to so many percent, so that many failures at once are not retried at once.
const JITTER_PERCENT: i32 = 10;

/// What an attempt's end comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SettledAttempt {
    /// The status as it shall be.
    pub status: MailboxSyncStatus,
    /// What people are told.
    pub notes: Vec<EventNote>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
enum AttemptResult {
    Synced,
    Stopped,
    Failed(LastError),
    /// The cluster took it: evicted, its node lost, never pulled.
    Lost(String),
}

/// Settles the attempt.
#[must_use]
pub(crate) fn settle_attempt(o: &ObservedMailbox<'_>, end: &PodEnd) -> SettledAttempt {
    let mut status = o.status.clone();
    let mut notes = Vec::new();
    let worker = last_report(o);
    let progressed = worker.as_ref().and_then(|w| w.progress.as_ref()).is_some_and(|p| p.messages_this_attempt > 0);
    if let (Some(claim), true) = (&mut status.claim, worker.as_ref().is_some_and(|w| w.destination_login)) {
        claim.proven_at.get_or_insert(Time(o.now));
    }
    let came = attempt_result(o, end, worker.as_ref());
    let stopping = status.stopping.take().map(|stopping| stopping.reason);
    let mut failures = status.failures.unwrap_or_default();
    if progressed {
        failures.in_a_row = 0;
        failures.fruitless_restarts = 0;
        failures.infrastructure_in_a_row = 0;
    }
    let used = o.deadline_used();
    status.slots = None;
    status.attempt_used = None;
    status.next_attempt_at = None;
    match (came, stopping) {
        (AttemptResult::Synced, _) => record_synced(o, &mut status, &mut failures, worker.as_ref()),
        (_, Some(StopReason::Cancelled)) => status.phase = Some(SyncPhase::Cancelled),
        (_, Some(StopReason::Removed)) => status.phase = Some(SyncPhase::Pending),
        (AttemptResult::Failed(error), _) => record_failure(o, &mut status, &mut failures, error, &mut notes),
        (_, Some(StopReason::NotAllowed)) => status.phase = Some(SyncPhase::Pending),
        (_, Some(StopReason::Suspended)) => {
            status.phase = Some(SyncPhase::Suspended);
            let millis = u64::try_from(used.as_millis()).unwrap_or(0);
            status.attempt_used = Some(Duration::from_millis(millis));
        }
        (_, Some(reason @ (StopReason::Deadline | StopReason::NoProgress))) => {
            record_restart(&mut status, &mut failures, reason, progressed, o, &mut notes);
        }
        (AttemptResult::Stopped, _) => {
            record_pod_lost(o, &mut status, &mut failures, "the pod was asked to stop by the cluster", &mut notes);
        }
        (AttemptResult::Lost(why), _) => record_pod_lost(o, &mut status, &mut failures, &why, &mut notes),
    }
    if let Some(worker) = worker.filter(|worker| worker.outcome == Some(Outcome::Stopped)) {
        honour_retry_at(&mut status, worker.last_error, o);
    }
    status.failures = (failures != Failures::default()).then_some(failures);
    SettledAttempt { status, notes }
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
    let error = LastError {
        class: ErrorClass::Configuration,
        ..internal_error(&message, "Correct podOverrides of the MailMigration")
    };
    let status =
        MailboxSyncStatus { phase: Some(SyncPhase::Failed), last_error: Some(error), ..status_after_refusal(status) };
    (status, EventNote::warning("Failed", message))
}

/// The newest word of this attempt's worker, from its status or, where the API server was away, from its termination
/// message.
fn last_report(o: &ObservedMailbox<'_>) -> Option<WorkerStatus> {
    let reported = o.status.worker.clone().filter(|worker| worker.attempt == o.status.attempt);
    let word = o.current_pod().and_then(crate::controller::cached_objects::SyncPod::final_report);
    let word = word.filter(|word| word.attempt == o.status.attempt);
    match (reported, word) {
        (Some(reported), Some(word)) if reported.report >= word.report && reported.outcome.is_some() => Some(reported),
        (reported, word) => word.or(reported),
    }
}

fn attempt_result(o: &ObservedMailbox<'_>, end: &PodEnd, worker: Option<&WorkerStatus>) -> AttemptResult {
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
        PodEnd::Exited(exit) => exit_result(o, exit),
    }
}

/// The container ended without a word.
fn exit_result(o: &ObservedMailbox<'_>, exit: &ContainerExit) -> AttemptResult {
    let pod = o.current_pod();
    let deleted = pod.is_some_and(|pod| pod.deleting_since().is_some() || pod.was_disrupted());
    if exit.reason == "OOMKilled" {
        let advice = "Raise podOverrides.resources.limits.memory; please report how large the mailbox is";
        return AttemptResult::Failed(internal_error(
            "the sync was killed: it needed more memory than its pod may have",
            advice,
        ));
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
    AttemptResult::Failed(internal_error(
        &format!("the sync ended with exit code {} and without a report", exit.code),
        "Look at the pod's log, and please report it",
    ))
}

fn internal_error(message: &str, advice: &str) -> LastError {
    LastError {
        class: ErrorClass::Internal,
        side: None,
        host: None,
        folder: None,
        message: message.to_owned(),
        advice: Some(advice.to_owned()),
        at: None,
        retry_at: None,
    }
}

fn record_synced(
    o: &ObservedMailbox<'_>,
    status: &mut MailboxSyncStatus,
    failures: &mut Failures,
    worker: Option<&WorkerStatus>,
) {
    status.phase = Some(SyncPhase::Synced);
    status.syncs += 1;
    status.last_error = None;
    status.retry_refused = false;
    failures.in_a_row = 0;
    failures.infrastructure_in_a_row = 0;
    failures.fruitless_restarts = 0;
    // What came in while the sync ran may not have been seen by it: it was quiet since the sync's start at most.
    let seen = worker.and_then(|worker| worker.inbox_uid_next);
    if seen.is_none() || seen != status.inbox_uid_next || status.inbox_quiet_since.is_none() {
        status.inbox_quiet_since = Some(Time(o.now));
    }
    status.inbox_uid_next = seen;
    status.last_synced_at = Some(Time(o.now));
}

fn record_failure(
    o: &ObservedMailbox<'_>,
    status: &mut MailboxSyncStatus,
    failures: &mut Failures,
    error: LastError,
    notes: &mut Vec<EventNote>,
) {
    failures.sync = failures.sync.saturating_add(1);
    failures.in_a_row = failures.in_a_row.saturating_add(1);
    let retry = &o.spec.settings.retry;
    let wait = |wait: SignedDuration| Some(Time(o.now + jittered(wait, JITTER_PERCENT, o.uid, status.attempt)));
    let given_up = retry.max_failures.is_some_and(|most| failures.in_a_row >= most);
    let (phase, next) = match error.class {
        ErrorClass::Configuration => (SyncPhase::Failed, None),
        // Another try with the same password may lock the account.
        ErrorClass::Authentication => (SyncPhase::Stalled, None),
        _ if given_up => (SyncPhase::Failed, None),
        // A person has to act, and nothing in the cluster tells when: it is tried now and then.
        ErrorClass::Authorization | ErrorClass::Quota | ErrorClass::Tls => {
            (SyncPhase::Stalled, wait(signed_duration(retry.max_backoff)))
        }
        ErrorClass::Throttled
        | ErrorClass::Network
        | ErrorClass::Protocol
        | ErrorClass::MessageRejected
        | ErrorClass::Internal => {
            let first = signed_duration(retry.initial_backoff);
            let next = wait(doubled_wait(first, failures.in_a_row, signed_duration(retry.max_backoff)));
            (SyncPhase::Backoff, next.into_iter().chain(not_before(&error)).max_by_key(|time| time.0))
        }
    };
    status.phase = Some(phase);
    status.next_attempt_at = next;
    let message = format!("{}: {}", error.class, error.message);
    notes.push(EventNote::warning(if phase == SyncPhase::Failed { "Failed" } else { "SyncFailed" }, message));
    status.last_error = Some(error);
}

/// Before this time the server does not want to be asked: until then the slots are others'.
fn not_before(error: &LastError) -> Option<Time> {
    error.retry_at.clone().filter(|_| matches!(error.class, ErrorClass::Throttled | ErrorClass::Network))
}

/// An attempt that was stopped while it waited for a server is not followed by one that asks it sooner.
fn honour_retry_at(status: &mut MailboxSyncStatus, error: Option<LastError>, o: &ObservedMailbox<'_>) {
    let again = matches!(status.phase, Some(SyncPhase::Pending | SyncPhase::Backoff));
    let Some(error) = error.filter(|_| again) else { return };
    let planned = status.next_attempt_at.as_ref().map_or(o.now, |next| next.0);
    if let Some(not_before) = not_before(&error).filter(|time| time.0 > planned) {
        status.phase = Some(SyncPhase::Backoff);
        status.next_attempt_at = Some(not_before);
        status.last_error = Some(error);
    }
}

fn record_restart(
    status: &mut MailboxSyncStatus,
    failures: &mut Failures,
    reason: StopReason,
    progressed: bool,
    o: &ObservedMailbox<'_>,
    notes: &mut Vec<EventNote>,
) {
    if reason == StopReason::Deadline {
        failures.deadline_restarts = failures.deadline_restarts.saturating_add(1);
    }
    status.phase = Some(SyncPhase::Pending);
    if progressed {
        return;
    }
    failures.fruitless_restarts += 1;
    if failures.fruitless_restarts >= MAX_FRUITLESS {
        let message = format!("{MAX_FRUITLESS} attempts in a row were restarted and copied nothing");
        notes.push(EventNote::warning("Stalled", message.clone()));
        status.phase = Some(SyncPhase::Stalled);
        status.last_error = Some(LastError {
            class: ErrorClass::Network,
            at: Some(Time(o.now)),
            ..internal_error(
                &message,
                "Look at both servers and at the pods' logs; then ask for another sync with syncRequest",
            )
        });
    }
}

fn record_pod_lost(
    o: &ObservedMailbox<'_>,
    status: &mut MailboxSyncStatus,
    failures: &mut Failures,
    why: &str,
    notes: &mut Vec<EventNote>,
) {
    failures.infrastructure = failures.infrastructure.saturating_add(1);
    failures.infrastructure_in_a_row = failures.infrastructure_in_a_row.saturating_add(1);
    let first = SignedDuration::from_secs(INFRASTRUCTURE_SECONDS);
    let wait =
        doubled_wait(first, failures.infrastructure_in_a_row, SignedDuration::from_secs(MAX_INFRASTRUCTURE_SECONDS));
    status.phase = Some(SyncPhase::Backoff);
    status.next_attempt_at = Some(Time(o.now + jittered(wait, JITTER_PERCENT, o.uid, status.attempt)));
    notes.push(EventNote::warning("PodLost", why));
}

/// A wait that doubles with each time in a row, from the first on.
fn doubled_wait(first: SignedDuration, times: i32, most: SignedDuration) -> SignedDuration {
    let doublings = u32::try_from(times.saturating_sub(1)).unwrap_or(0).min(20);
    first.saturating_mul(2_i32.saturating_pow(doublings)).min(most)
}
