//! When the next attempt of a mailbox is due. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    attempt_input::{is_refused_login, spec_hash},
    backoff::jittered,
    observe::{ObservedMailbox, signed_duration, silence_limit},
    quiet_deltas::delta_wait,
};
use crate::{
    api::{Duration, MailboxSync, MailboxSyncSpec, MailboxSyncStatus, mailbox_sync::SyncPhase},
    error::ErrorClass,
};

/// When the next attempt is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptDue {
    /// It is due.
    Now,
    /// It is due at this time.
    At(Timestamp),
    /// It is due once a Secret has another version: the login by this one was refused.
    AfterSecretChange,
    /// None is due, unless somebody changes something.
    Never,
}

/// True when nothing more happens with a mailbox by itself: it is synced for good, has failed, or was cancelled.
#[must_use]
pub(crate) fn is_final(sync: &MailboxSync, now: Timestamp) -> bool {
    let Some(status) = &sync.status else { return false };
    if status.slots.is_some() || sync.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let facts = DueFacts::from_sync(sync, status, now);
    match status.phase {
        Some(SyncPhase::Cancelled) => sync.spec.cancel,
        Some(SyncPhase::Synced | SyncPhase::Failed) => attempt_due(&facts) == AttemptDue::Never,
        _ => false,
    }
}

/// The parts of a MailboxSync that decide when its next attempt is due.
#[derive(Clone, Copy)]
pub(super) struct DueFacts<'a> {
    pub uid: &'a str,
    pub generation: i64,
    pub spec: &'a MailboxSyncSpec,
    pub status: &'a MailboxSyncStatus,
    pub now: Timestamp,
}

impl<'a> DueFacts<'a> {
    /// The facts of a mailbox that is decided on.
    #[must_use]
    pub(super) const fn from_observed(observed: &ObservedMailbox<'a>) -> Self {
        let ObservedMailbox { uid, generation, spec, status, now, .. } = *observed;
        Self { uid, generation, spec, status, now }
    }

    /// The facts of a MailboxSync, with this status in place of its own.
    pub(crate) fn from_sync(sync: &'a MailboxSync, status: &'a MailboxSyncStatus, now: Timestamp) -> Self {
        Self {
            uid: sync.metadata.uid.as_deref().unwrap_or_default(),
            generation: sync.metadata.generation.unwrap_or_default(),
            spec: &sync.spec,
            status,
            now,
        }
    }
}

/// True when a person asked for a sync, and none was started for it.
pub(super) fn is_requested(spec: &MailboxSyncSpec, status: &MailboxSyncStatus) -> bool {
    spec.sync_request.is_some() && status.sync_request != spec.sync_request
}

#[must_use]
pub(super) fn attempt_due(facts: &DueFacts<'_>) -> AttemptDue {
    let status = facts.status;
    if let Some(until) = inherited_wait(facts).filter(|until| *until > facts.now) {
        return AttemptDue::At(until);
    }
    if let Some(start) = &facts.spec.start_at
        && start.0 > facts.now
        && status.attempt == 0
    {
        return AttemptDue::At(start.0);
    }
    if is_requested(facts.spec, status) {
        return AttemptDue::Now;
    }
    if was_refused(status) && is_refused_login(facts.spec, status, None) {
        return AttemptDue::AfterSecretChange;
    }
    let at = |time: Option<&Time>| match time {
        Some(time) if time.0 > facts.now => AttemptDue::At(time.0),
        _ => AttemptDue::Now,
    };
    match status.phase {
        None | Some(SyncPhase::Pending | SyncPhase::Queued | SyncPhase::Running) => AttemptDue::Now,
        Some(SyncPhase::Suspended | SyncPhase::Cancelled) => due_when_resumed(facts).unwrap_or(AttemptDue::Now),
        Some(SyncPhase::Synced) => delta_due(facts),
        Some(SyncPhase::Backoff) => at(status.next_attempt_at.as_ref()),
        Some(SyncPhase::Stalled | SyncPhase::Failed) if was_refused(status) || is_changed(facts) => AttemptDue::Now,
        Some(SyncPhase::Failed) => AttemptDue::Never,
        Some(SyncPhase::Stalled) => match (&status.last_error, &status.next_attempt_at) {
            (_, Some(time)) => at(Some(time)),
            // A Secret was missing: it is looked at again.
            (Some(error), None) if error.class == ErrorClass::Configuration => AttemptDue::Now,
            _ => AttemptDue::Never,
        },
    }
}

/// Until when nothing starts since a checkpoint was inherited: a pod of whoever had it before may still write by it.
fn inherited_wait(facts: &DueFacts<'_>) -> Option<Timestamp> {
    let inherited = facts.status.inherited.as_ref()?;
    // Once an attempt was made, its own pods are what is waited for.
    let is_first = facts.status.attempt <= inherited.attempt;
    if is_first { inherited.at.0.checked_add(silence_limit(facts.spec)).ok() } else { None }
}

/// True when a server refused the last login, and no attempt was made since.
fn was_refused(status: &MailboxSyncStatus) -> bool {
    // An operator of an earlier version told by the phase alone.
    let by_phase = status.phase == Some(SyncPhase::Stalled) && status.next_attempt_at.is_none();
    let class = status.last_error.as_ref().map(|error| error.class);
    status.login_refused || (by_phase && class == Some(ErrorClass::Authentication))
}

/// True when the spec is another one than the last attempt was made by, in what decides how a sync goes: a resumption alone
/// brings no failure nearer to its end.
fn is_changed(facts: &DueFacts<'_>) -> bool {
    let tried = facts.status.attempt_input.as_ref();
    facts.status.observed_generation != Some(facts.generation)
        && tried.is_none_or(|tried| tried.spec != spec_hash(facts.spec))
}

/// True when a mailbox is synced for good by another spec than it has now, in what decides how a sync goes. No sync is
/// started for that: a migration that is complete is like a finished Job. Its sources may be gone or emptied since, and with
/// `deletions: Mirror` a sync that nobody asked for would follow them.
#[must_use]
pub(super) fn is_outdated(facts: &DueFacts<'_>) -> bool {
    let status = facts.status;
    let synced_by = status.attempt_input.as_ref().map(|input| input.spec.as_str()).filter(|spec| !spec.is_empty());
    status.phase == Some(SyncPhase::Synced)
        && attempt_due(facts) == AttemptDue::Never
        && synced_by.is_some_and(|synced_by| synced_by != spec_hash(facts.spec))
}

/// True when deletions that the last sync held are confirmed since: the next one makes them, or holds others.
fn is_confirmed(facts: &DueFacts<'_>) -> bool {
    let settings = &facts.spec.settings;
    let held = facts.status.worker.iter().flat_map(|worker| &worker.held_deletions);
    !settings.dry_run && held.into_iter().any(|held| settings.confirm_deletions.contains(&held.token))
}

/// True when the last sync was a dry run, and the next one is none.
fn was_rehearsed(facts: &DueFacts<'_>) -> bool {
    facts.status.attempt_input.as_ref().is_some_and(|input| input.dry_run) && !facts.spec.settings.dry_run
}

/// A mailbox that was suspended, or cancelled by mistake, goes on where it was: one that was synced waits for its next
/// delta sync.
fn due_when_resumed(facts: &DueFacts<'_>) -> Option<AttemptDue> {
    let between_syncs =
        facts.status.attempt_used.is_none() && facts.status.last_error.is_none() && facts.status.syncs > 0;
    between_syncs.then(|| delta_due(facts))
}

/// When the next delta sync of a mailbox is due that was synced.
fn delta_due(facts: &DueFacts<'_>) -> AttemptDue {
    if facts.status.last_synced_at.is_none() || was_rehearsed(facts) || is_confirmed(facts) {
        return AttemptDue::Now;
    }
    match next_delta_at(facts) {
        Some((next, _)) if next > facts.now => AttemptDue::At(next),
        Some(_) => AttemptDue::Now,
        None => AttemptDue::Never,
    }
}

/// The time of the next delta sync, even when it has passed, and the wait between two of them.
pub(super) fn next_delta_at(facts: &DueFacts<'_>) -> Option<(Timestamp, Duration)> {
    let settings = &facts.spec.settings;
    let Time(synced) = facts.status.last_synced_at.as_ref()?;
    let synced = *synced;
    if settings.dry_run {
        return None;
    }
    let after =
        |every: Duration, percent| synced + jittered(signed_duration(every), percent, facts.uid, facts.status.syncs);
    let scheduled = settings.schedule.as_ref().map(|s| (after(s.every, s.jitter_percent), s.every));
    let cutover = settings.cutover.as_ref().and_then(|cutover| Some((cutover, cutover.at.as_ref()?.0)));
    match cutover {
        Some((cutover, at)) if facts.now >= at && synced >= at => {
            let quiet = facts.status.inbox_quiet_since.as_ref().map_or(synced, |quiet| quiet.0).max(at);
            // Quiet as far as the last sync saw: not the time since.
            if synced.duration_since(quiet) >= signed_duration(cutover.drain_for) {
                return None;
            }
            let wait = delta_wait(cutover, facts.status.quiet_deltas);
            let next = after(wait, 10).min((quiet + signed_duration(cutover.drain_for)).max(synced));
            Some((next, wait))
        }
        Some((cutover, at)) => {
            let (delta, every) = scheduled.unwrap_or((at, cutover.every));
            Some((delta.min(at).max(synced), every))
        }
        None => scheduled,
    }
}
