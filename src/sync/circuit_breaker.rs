//! Stops the asking on all connections to one account while its server is unwell, and finds out when it is well again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{connection_pair::ConnectionPair, progress::SyncProgress, spec::RetryPolicy};
use crate::error::{Error, ErrorClass, ErrorRemedy, GiveUpScope, Result, Side};

/// So many refusals in a row, without an OK between, mean that the server may be unwell.
const REFUSALS_TO_OPEN: u32 = 5;
/// ... and so many, once an ordinary message passed beside such refusals.
const REFUSALS_TO_REOPEN: u32 = 50;
/// A look as soon as what is under way is answered.
const PROMPT_PROBE_DELAY: Duration = Duration::from_millis(100);
/// A server that is waited for is kept connected by a NOOP this often.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// The breakers of both accounts.
#[derive(Debug)]
pub(crate) struct AccountBreakers {
    /// Of the account that is read.
    pub source: CircuitBreaker,
    /// Of the account that is written.
    pub destination: CircuitBreaker,
}

impl AccountBreakers {
    /// Closed breakers.
    #[must_use]
    pub(crate) fn new(retry: RetryPolicy) -> Self {
        Self { source: CircuitBreaker::new(retry), destination: CircuitBreaker::new(retry) }
    }

    /// The breaker of one side.
    #[must_use]
    pub(crate) fn for_side(&self, side: Side) -> &CircuitBreaker {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }
}

/// The breaker of one account: open while nothing may be asked.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    state: Mutex<BreakerState>,
    changed: Notify,
    retry: RetryPolicy,
}

/// What a breaker knows; its methods decide, and never wait.
#[derive(Debug, Default)]
struct BreakerState {
    refused_in_a_row: u32,
    /// An ordinary message passed while another was refused again and again.
    was_well: bool,
    open: Option<OpenPeriod>,
    /// How long it was open in this run, all in all; the time since it opened comes on top.
    waited: Duration,
    /// Somebody finds out whether the server is well again.
    probing: bool,
    /// When something was accepted last.
    accepted_at: Option<Instant>,
}

#[derive(Debug)]
struct OpenPeriod {
    since: Instant,
    until: Instant,
    /// How many waits there were since it opened.
    waits: usize,
    error: Error,
}

/// What may be done now.
#[derive(Debug)]
pub(crate) enum BreakerAdmission<'a> {
    /// Everything.
    Free,
    /// One message may be tried, to find out whether the server is well again.
    Probe(#[allow(dead_code, reason = "it is held, not read")] ProbeGuard<'a>),
    /// It was asked to stop.
    Stopped,
}

/// While this is held, nobody else tries.
#[derive(Debug)]
pub(crate) struct ProbeGuard<'a>(&'a CircuitBreaker);

impl Drop for ProbeGuard<'_> {
    fn drop(&mut self) {
        self.0.state().probing = false;
        self.0.changed.notify_waiters();
    }
}

/// What comes next for one who wants to ask.
enum BreakerStep {
    Free,
    Probe,
    Wait(Instant, Error),
}

/// What a refusal means for the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalConsequence {
    /// It may be the message's own.
    GoOn,
    /// The server may be unwell: nothing more is asked until [`CircuitBreaker::wait_for_admission`] says so.
    Open,
    /// Waiting does not help: a person must act.
    End,
}

/// How a refusal counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalWeight {
    /// One of many: a few in a row open the breaker, if the class does not.
    Usual,
    /// The same in a folder of which so many refusals in a row would be unlikely.
    Among(u32),
    /// One of many, and its class tells nothing of the server: servers say `internal error` of a single message, too.
    Counted,
    /// The same in a folder of which it was found that it has no ordinary message left: only its class tells.
    Uncontrolled,
    /// Of an ordinary message that should have passed: the server is unwell.
    Control,
    /// Of a message that was refused before: it tells nothing of the server, unless that asks for a wait.
    Suspect,
}

impl BreakerState {
    fn record_refusal(
        &mut self,
        error: &Error,
        weight: RefusalWeight,
        now: Instant,
        retry: &RetryPolicy,
    ) -> RefusalConsequence {
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        let most = match weight {
            RefusalWeight::Among(unlikely) => unlikely.max(REFUSALS_TO_OPEN),
            _ => REFUSALS_TO_OPEN,
        };
        let in_a_row = self.refused_in_a_row >= if self.was_well { REFUSALS_TO_REOPEN.max(most) } else { most };
        let passing = is_transient(error);
        let opens = match weight {
            RefusalWeight::Usual | RefusalWeight::Among(_) => passing || in_a_row,
            RefusalWeight::Counted => in_a_row,
            RefusalWeight::Uncontrolled => passing,
            RefusalWeight::Control => true,
            RefusalWeight::Suspect => false,
        } || error.stated_wait.is_some()
            || (self.open.is_some() && weight != RefusalWeight::Suspect);
        if !opens {
            return RefusalConsequence::GoOn;
        }
        if error.class.remedy() == ErrorRemedy::WaitForPerson && error.stated_wait.is_none() {
            return RefusalConsequence::End;
        }
        match &mut self.open {
            // Answers to what was sent before it opened, or along with the look that found it unwell.
            Some(open) if now < open.until => {
                if let Some(wait) = error.stated_wait
                    && now + wait > open.until
                {
                    open.until = now + wait;
                    open.error = error.clone();
                }
            }
            open => {
                let waits = open.as_ref().map_or(0, |open| open.waits + 1);
                // Known to have been well: a look at once, not after a while.
                let usual = matches!(weight, RefusalWeight::Usual | RefusalWeight::Among(_));
                let at_once = self.was_well && waits == 0 && usual && !passing;
                let step = || retry.waits.unwell.get(waits).or(retry.waits.unwell.last()).copied().unwrap_or_default();
                let wait = error.stated_wait.unwrap_or_else(|| if at_once { PROMPT_PROBE_DELAY } else { step() });
                let since = open.as_ref().map_or(now, |open| open.since);
                *open = Some(OpenPeriod { since, until: now + wait, waits, error: error.clone() });
            }
        }
        RefusalConsequence::Open
    }

    fn record_acceptance(&mut self, now: Instant) {
        self.was_well |= self.open.is_some();
        self.refused_in_a_row = 0;
        self.close(now);
        self.accepted_at = Some(now);
    }
}

impl BreakerState {
    fn close(&mut self, now: Instant) {
        if let Some(open) = self.open.take() {
            self.waited += now.saturating_duration_since(open.since);
        }
    }
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub(crate) fn new(retry: RetryPolicy) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), retry }
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while nothing may be asked.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    /// True when it is open for so long already, and the server asked for nothing of the kind.
    #[must_use]
    pub(crate) fn is_open_unrequested(&self, after: Duration) -> bool {
        let state = self.state();
        let open = state.open.as_ref();
        let asked = |error: &Error| error.class == ErrorClass::Throttled || error.stated_wait.is_some();
        open.is_some_and(|open| open.since.elapsed() >= after && !asked(&open.error))
    }

    /// Refusals since something was accepted last.
    #[must_use]
    pub(crate) fn refused_in_a_row(&self) -> u32 {
        self.state().refused_in_a_row
    }

    /// True when it is open because of refusals that say nothing of the server.
    #[must_use]
    pub(crate) fn is_open_inconclusive(&self) -> bool {
        let state = self.state();
        state.open.as_ref().is_some_and(|open| !is_transient(&open.error) && open.error.stated_wait.is_none())
    }

    /// True when something was accepted after `since`.
    #[must_use]
    pub(crate) fn has_accepted_since(&self, since: Instant) -> bool {
        self.state().accepted_at.is_some_and(|at| at > since)
    }

    /// The server took or gave something: it is well.
    pub(crate) fn record_acceptance(&self) {
        self.state().record_acceptance(Instant::now());
        self.changed.notify_waiters();
    }

    /// The server refused something.
    pub(crate) fn record_refusal(&self, error: &Error, weight: RefusalWeight) -> RefusalConsequence {
        let consequence = self.state().record_refusal(error, weight, Instant::now(), &self.retry);
        self.changed.notify_waiters();
        consequence
    }

    /// Closes the breaker without proof: nobody has anything left to find out with.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.close(Instant::now());
        state.refused_in_a_row = 0;
        state.was_well = true;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits until something may be asked; both connections of the pair are kept alive meanwhile.
    ///
    /// # Errors
    /// The refusal that opened it, when the run's patience is over or would be over before the wait is: then with the
    /// time before which trying again makes no sense, where the server said so.
    pub(crate) async fn wait_for_admission(
        &self,
        pair: &mut ConnectionPair,
        progress: &SyncProgress,
        stop: &CancellationToken,
    ) -> Result<BreakerAdmission<'_>> {
        loop {
            let changed = self.changed.notified();
            match self.next_step()? {
                _ if stop.is_cancelled() => return Ok(BreakerAdmission::Stopped),
                BreakerStep::Free => return Ok(BreakerAdmission::Free),
                BreakerStep::Probe => return Ok(BreakerAdmission::Probe(ProbeGuard(self))),
                BreakerStep::Wait(until, error) => {
                    self.wait_once(Some(&mut *pair), (until, &error), changed, progress, stop).await?;
                }
            }
        }
    }

    /// Waits until it makes sense to connect, or to open a folder: these are no tries.
    ///
    /// # Errors
    /// As [`Self::wait_for_admission`].
    pub(crate) async fn wait_until_due(
        &self,
        mut pair: Option<&mut ConnectionPair>,
        progress: &SyncProgress,
        stop: &CancellationToken,
    ) -> Result<()> {
        while !stop.is_cancelled() {
            let changed = self.changed.notified();
            match self.remaining_wait()? {
                // A server that may be well is asked for other things meanwhile.
                Some((_, error)) if !is_transient(&error) && error.stated_wait.is_none() => return Ok(()),
                Some((until, error)) => {
                    self.wait_once(pair.as_deref_mut(), (until, &error), changed, progress, stop).await?;
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Until when nothing may be asked, and why; nothing when that is over.
    fn remaining_wait(&self) -> Result<Option<(Instant, Error)>> {
        let state = self.state();
        let Some(open) = &state.open else { return Ok(None) };
        let now = Instant::now();
        let left = open.until.saturating_duration_since(now);
        let waited = state.waited + now.saturating_duration_since(open.since);
        if waited + left > self.retry.patience {
            return Err(out_of_patience_error(&open.error, left));
        }
        Ok((!left.is_zero()).then(|| (open.until, open.error.clone())))
    }

    fn next_step(&self) -> Result<BreakerStep> {
        if let Some((until, error)) = self.remaining_wait()? {
            return Ok(BreakerStep::Wait(until, error));
        }
        let mut state = self.state();
        let Some(open) = &state.open else { return Ok(BreakerStep::Free) };
        if state.probing {
            return Ok(BreakerStep::Wait(Instant::now() + KEEP_ALIVE_INTERVAL, open.error.clone()));
        }
        state.probing = true;
        Ok(BreakerStep::Probe)
    }

    async fn wait_once(
        &self,
        pair: Option<&mut ConnectionPair>,
        (until, error): (Instant, &Error),
        changed: Notified<'_>,
        progress: &SyncProgress,
        stop: &CancellationToken,
    ) -> Result<()> {
        let began = Instant::now();
        {
            let _waiting = progress.begin_wait(error.to_string(), until.saturating_duration_since(began));
            tokio::select! {
                () = tokio::time::sleep_until(until.min(began + KEEP_ALIVE_INTERVAL)) => {}
                () = changed => {}
                () = stop.cancelled() => {}
            }
        }
        // A server that asked to be left alone is.
        let asking = error.side.filter(|_| error.stated_wait.is_some());
        match pair {
            Some(pair) => pair.keep_alive(asking).await,
            None => Ok(()),
        }
    }
}

/// True when the refusal says itself that it passes.
#[must_use]
pub(crate) fn is_transient(error: &Error) -> bool {
    matches!(error.class, ErrorClass::Throttled | ErrorClass::Network)
}

/// The error of a run that waits no longer.
pub(crate) fn out_of_patience_error(error: &Error, left: Duration) -> Error {
    let mut error = error.clone();
    if error.stated_wait.is_some() {
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        let at = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds)).ok();
        error.retry_at = at;
        if let Some(at) = at {
            error = error.advice(format!("The server asks to be left alone until {at:.0}; run again after that"));
        }
    }
    Error { finality: GiveUpScope::Mailbox, ..unwell_server_error(error) }
}

/// A refusal whose text nobody knows, given by a server that takes nothing else either, is the server's own trouble.
#[must_use]
pub(crate) fn unwell_server_error(mut error: Error) -> Error {
    if matches!(error.class, ErrorClass::MessageRejected | ErrorClass::Protocol) {
        error.class = ErrorClass::Network;
        error.what = format!("the server is unwell: {}", error.what);
        if error.advice.is_none() {
            error = error.advice("Look at the server's log and its disk; then run again: nothing is lost meanwhile");
        }
    }
    error.finality = GiveUpScope::Folder;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(class: ErrorClass) -> Error {
        Error::new(class, "no")
    }

    /// Seconds until the next look, after a refusal of that class and weight.
    fn opens(state: &mut BreakerState, error: &Error, weight: RefusalWeight, now: Instant) -> Option<u64> {
        match state.record_refusal(error, weight, now, &RetryPolicy::default()) {
            RefusalConsequence::Open => state.open.as_ref().map(|open| (open.until - now).as_secs()),
            RefusalConsequence::GoOn | RefusalConsequence::End => None,
        }
    }

    #[test]
    fn five_refusals_in_a_row_open_it_and_an_acceptance_counts_anew() {
        let (mut state, now) = (BreakerState::default(), Instant::now());
        let unknown = refusal(ErrorClass::MessageRejected);
        for _ in 0..4 {
            assert_eq!(opens(&mut state, &unknown, RefusalWeight::Usual, now), None);
        }
        state.record_acceptance(now);
        for _ in 0..4 {
            assert_eq!(opens(&mut state, &unknown, RefusalWeight::Usual, now), None);
        }
        assert_eq!(opens(&mut state, &unknown, RefusalWeight::Usual, now), Some(2));
    }

    #[test]
    fn waits_grow_while_looks_find_the_server_unwell() {
        let (mut state, mut now) = (BreakerState::default(), Instant::now());
        let unwell = refusal(ErrorClass::Network);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = opens(&mut state, &unwell, RefusalWeight::Usual, now).unwrap();
            waits.push(wait);
            now += Duration::from_secs(wait);
        }
        assert_eq!(waits, [2, 5, 15, 60, 120, 120, 120]);
    }

    #[test]
    fn what_was_under_way_when_it_opened_makes_no_wait_longer() {
        let (mut state, now) = (BreakerState::default(), Instant::now());
        let unwell = refusal(ErrorClass::Network);
        for _ in 0..10 {
            assert_eq!(opens(&mut state, &unwell, RefusalWeight::Usual, now), Some(2));
        }
    }

    #[test]
    fn a_stated_wait_is_kept_whatever_was_refused() {
        let (mut state, now) = (BreakerState::default(), Instant::now());
        let asked = Error { stated_wait: Some(Duration::from_secs(92)), ..refusal(ErrorClass::Protocol) };
        assert_eq!(opens(&mut state, &asked, RefusalWeight::Suspect, now), Some(92));
    }

    #[test]
    fn where_a_person_must_act_nothing_is_waited_for() {
        let (mut state, now) = (BreakerState::default(), Instant::now());
        let full = refusal(ErrorClass::Quota);
        let ends: Vec<_> =
            (0..5).map(|_| state.record_refusal(&full, RefusalWeight::Usual, now, &RetryPolicy::default())).collect();
        assert_eq!(ends[3..], [RefusalConsequence::GoOn, RefusalConsequence::End]);
        assert!(state.open.is_none());
    }

    #[test]
    fn suspects_tell_nothing_of_the_server_and_controls_do() {
        let (mut state, now) = (BreakerState::default(), Instant::now());
        let unwell = refusal(ErrorClass::Network);
        for _ in 0..10 {
            assert_eq!(opens(&mut state, &unwell, RefusalWeight::Suspect, now), None);
        }
        assert_eq!(opens(&mut state, &refusal(ErrorClass::MessageRejected), RefusalWeight::Control, now), Some(2));
    }

    #[test]
    fn the_end_of_patience_says_when_to_come_back_only_where_the_server_did() {
        let asked = Error { stated_wait: Some(Duration::from_hours(1)), ..refusal(ErrorClass::Throttled) };
        let error = out_of_patience_error(&asked, Duration::from_hours(1));
        assert!(error.retry_at > Some(Timestamp::now()) && error.finality == GiveUpScope::Mailbox);
        let error = out_of_patience_error(&refusal(ErrorClass::MessageRejected), Duration::from_mins(2));
        assert_eq!((error.class, error.retry_at), (ErrorClass::Network, None));
    }
}
