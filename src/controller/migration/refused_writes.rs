//! Writes of one migration that the API server refused: what it said, and when they are tried again. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    api::{LastError, mail_migration::FailureSample},
    controller::{error::ReconcileError, events::EventNote},
    error::Error,
    terminal_text::harmless,
};

/// So many refusals in a row that name no object's own fault stand for all: a quota, a policy, a webhook that is down.
pub(super) const IN_A_ROW: usize = 16;
/// So many refused writes are tried at one time to find out whether they are taken by now.
const PROBES: usize = 16;
/// The first wait before refused writes are tried again; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// The most Events about refused writes at one time.
const EVENTS: usize = 5;
/// The longest part shown of what the API server said, characters.
const SHOWN: usize = 500;

/// What the API server said to the write of one mailbox's MailboxSync or Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriteRefusal {
    /// The mailbox's name.
    pub mailbox: String,
    /// The HTTP status.
    pub code: u16,
    /// Its message.
    pub message: String,
}

impl WriteRefusal {
    /// The refusal in an answer; none where there was no answer, or one that says nothing of this write.
    #[must_use]
    pub(crate) fn from_error(mailbox: &str, error: &kube::Error) -> Option<Self> {
        let kube::Error::Api(answer) = error else { return None };
        let judged = matches!(answer.code, 400 | 403 | 404 | 405 | 413 | 415 | 422 | 500..=599);
        judged.then(|| Self {
            mailbox: mailbox.to_owned(),
            code: answer.code,
            message: harmless(&answer.message).chars().take(SHOWN).collect(),
        })
    }

    /// The same for what ended a reconciliation.
    #[must_use]
    pub(crate) fn from_reconcile_error(mailbox: &str, error: &ReconcileError) -> Option<Self> {
        match error {
            ReconcileError::Api(error) | ReconcileError::Outdated(error) => Self::from_error(mailbox, error),
            ReconcileError::Json(_) => None,
        }
    }

    /// True when what is written is wrong: as it is, it will not be taken.
    #[must_use]
    pub(crate) const fn is_own_fault(&self) -> bool {
        matches!(self.code, 400 | 413 | 422)
    }

    /// The same for people.
    fn text(&self) -> String {
        format!("{} (HTTP status {})", self.message, self.code)
    }

    /// The mailbox as one that fails.
    fn sample(&self) -> FailureSample {
        let error = Error::configuration(format!("the API server takes no such MailboxSync: {}", self.text()))
            .advice("Correct the mailbox in the migration's list or CSV, or ask whoever runs the cluster");
        FailureSample { mailbox: self.mailbox.clone(), error: LastError::new(&error, None) }
    }
}

/// A write that was refused, and when it was tried last.
#[derive(Debug)]
struct RefusedWrite {
    refusal: WriteRefusal,
    tried_at: Instant,
}

/// How the writes of one reconciliation ended, for those who ask what was refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RoundResult {
    /// The MailboxSyncs whose writes were taken, by name.
    pub taken: BTreeSet<String>,
    /// Those whose writes were refused.
    pub refused: BTreeMap<String, WriteRefusal>,
    /// Writes were left out, since all before them were refused.
    pub stopped: bool,
}

/// What the API server refuses of one migration. It is remembered so that one refused write holds up no other, and is not
/// tried again and again.
#[derive(Debug, Default)]
pub(crate) struct RefusedWrites {
    /// By the MailboxSync's name.
    writes: BTreeMap<String, RefusedWrite>,
    /// What concerns no single mailbox.
    of_all: Option<WriteRefusal>,
    /// Nothing is taken: other writes wait, too.
    stopped: bool,
    /// Waits in a row.
    times: u32,
    retry_at: Option<Instant>,
}

impl RefusedWrites {
    /// True when this MailboxSync's last write was refused.
    #[must_use]
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.writes.contains_key(name)
    }

    /// Forgets all, since what is written is another by now.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// How long refused writes, and where all are refused others too, wait; none where nothing waits.
    #[must_use]
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now))
    }

    /// True when nothing is written now.
    #[must_use]
    pub(crate) fn holds_all(&self, now: Instant) -> bool {
        (self.stopped || self.of_all.is_some()) && self.retry_at.is_some_and(|at| at > now)
    }

    /// True when refused writes are to be tried again.
    #[must_use]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }

    /// The refused MailboxSyncs that are not tried in this round: all, or, once they are due, all but those that were
    /// tried the longest time ago.
    #[must_use]
    pub(crate) fn left_out(&self, now: Instant) -> BTreeSet<String> {
        let mut by_age: Vec<_> = self.writes.iter().map(|(name, write)| (write.tried_at, name)).collect();
        by_age.sort();
        let tried = if self.is_due(now) { PROBES } else { 0 };
        by_age.into_iter().skip(tried).map(|(_, name)| name.clone()).collect()
    }

    /// How many writes are refused for now, and are still to be made.
    #[must_use]
    pub(crate) fn pending(&self) -> usize {
        self.writes.values().filter(|write| !write.refusal.is_own_fault()).count()
    }

    /// The mailboxes that fail, since their MailboxSyncs can't be made as they are written; `exists`: those that have one
    /// from before are counted by it.
    #[must_use]
    pub(crate) fn failures(&self, exists: impl Fn(&str) -> bool) -> Vec<FailureSample> {
        let own = self.writes.iter().filter(|(name, write)| write.refusal.is_own_fault() && !exists(name));
        own.map(|(_, write)| write.refusal.sample()).collect()
    }

    /// The reason and message of the migration's condition, where something is refused.
    #[must_use]
    pub(crate) fn condition_parts(&self) -> Option<(&'static str, String)> {
        let again = "it is tried again, at last every 5 minutes";
        if let Some(refusal) = &self.of_all {
            return Some(("Forbidden", format!("the API server refuses: {}; {again}", refusal.text())));
        }
        let first = self.writes.values().find(|write| !write.refusal.is_own_fault()).or(self.writes.values().next())?;
        let refusal = &first.refusal;
        let reason = if refusal.is_own_fault() { "Invalid" } else { "Forbidden" };
        let what = match self.writes.len() {
            1 => format!("the API server refuses the MailboxSync or Secret of {}", refusal.mailbox),
            many => format!("the API server refuses MailboxSyncs or Secrets of {many} mailboxes, {}", refusal.mailbox),
        };
        let others = if self.stopped { "nothing else is written before" } else { "the others go on" };
        Some((reason, format!("{what}: {}; {again}, {others}", refusal.text())))
    }

    /// Remembers how the writes of a reconciliation ended; gives the Events about what is refused since.
    pub(crate) fn record_round(&mut self, round: RoundResult, now: Instant) -> Vec<EventNote> {
        let due = self.is_due(now);
        self.of_all = None;
        let mut freed = self.stopped && !round.taken.is_empty();
        for name in &round.taken {
            freed |= self.writes.remove(name).is_some();
        }
        if freed {
            // What hit all is over: the rest is tried as if it were new.
            self.writes.retain(|_, write| write.refusal.is_own_fault());
        }
        self.stopped = round.stopped;
        let mut news = Vec::new();
        for (name, refusal) in round.refused {
            if self.writes.get(&name).is_none_or(|before| before.refusal.code != refusal.code) {
                news.push(refusal.clone());
            }
            self.writes.insert(name, RefusedWrite { refusal, tried_at: now });
        }
        if self.writes.is_empty() && !self.stopped {
            (self.times, self.retry_at) = (0, None);
        } else if freed {
            (self.times, self.retry_at) = (0, Some(now + FIRST_WAIT));
        } else if due || self.retry_at.is_none() {
            self.put_off(now);
        }
        news.into_iter().take(EVENTS).map(|refusal| event(&refusal)).collect()
    }

    /// Remembers a refusal that concerns no single mailbox; gives the Event about it.
    pub(crate) fn record_refusal(&mut self, refusal: WriteRefusal, now: Instant) -> Vec<EventNote> {
        let news = self.of_all.as_ref().is_none_or(|before| before.code != refusal.code);
        let events = news.then(|| event(&refusal)).into_iter().collect();
        self.of_all = Some(refusal);
        self.put_off(now);
        events
    }

    fn put_off(&mut self, now: Instant) {
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.times.min(10))).min(LONGEST_WAIT);
        self.times = self.times.saturating_add(1);
        self.retry_at = Some(now + wait);
    }
}

fn event(refusal: &WriteRefusal) -> EventNote {
    let of = if refusal.mailbox.is_empty() { String::new() } else { format!("{}: ", refusal.mailbox) };
    EventNote::warning("Refused", format!("{of}the API server said: {}", refusal.text()))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refusal(mailbox: &str, code: u16) -> WriteRefusal {
        WriteRefusal { mailbox: mailbox.to_owned(), code, message: "no".to_owned() }
    }

    fn round(taken: &[&str], refused: &[(&str, u16)], stopped: bool) -> RoundResult {
        RoundResult {
            taken: taken.iter().map(|name| (*name).to_owned()).collect(),
            refused: refused.iter().map(|(name, code)| ((*name).to_owned(), refusal(name, *code))).collect(),
            stopped,
        }
    }

    #[test]
    fn an_object_that_is_wrong_is_a_failure_is_told_once_and_holds_up_no_other() {
        let (mut writes, now) = (RefusedWrites::default(), Instant::now());
        let events = writes.record_round(round(&["a"], &[("b", 422)], false), now);
        assert_eq!(
            events.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(),
            ["b: the API server said: no (HTTP status 422)"]
        );
        assert!(!writes.holds_all(now) && writes.contains("b") && writes.pending() == 0);
        assert_eq!(writes.left_out(now), ["b".to_owned()].into(), "it is not tried with every look");
        let failures = writes.failures(|_| false);
        assert_eq!((failures.len(), failures[0].mailbox.as_str()), (1, "b"));
        assert!(failures[0].error.message.ends_with("no (HTTP status 422)"), "{}", failures[0].error.message);
        assert!(writes.failures(|name| name == "b").is_empty(), "its MailboxSync is counted");
        let (reason, message) = writes.condition_parts().unwrap();
        assert!(reason == "Invalid" && message.contains("of b: no") && message.ends_with("the others go on"));
        let later = now + FIRST_WAIT;
        assert!(writes.is_due(later) && writes.left_out(later).is_empty());
        assert!(writes.record_round(round(&[], &[("b", 422)], false), later).is_empty(), "that is no news");
        assert_eq!(writes.wait(later), Some(FIRST_WAIT * 2));
        writes.record_round(round(&["b"], &[], false), later + FIRST_WAIT * 2);
        assert!(writes.condition_parts().is_none() && writes.wait(later).is_none());
    }

    #[test]
    fn what_refuses_all_is_waited_for_longer_each_time_and_ends_with_the_first_that_is_taken() {
        let (mut writes, mut now) = (RefusedWrites::default(), Instant::now());
        let names: Vec<String> = (0..IN_A_ROW).map(|n| format!("m{n:02}")).collect();
        let refused: Vec<_> = names.iter().map(|name| (name.as_str(), 403)).collect();
        let events = writes.record_round(round(&[], &refused, true), now);
        assert_eq!((events.len(), writes.pending()), (EVENTS, IN_A_ROW));
        assert!(writes.holds_all(now) && writes.failures(|_| false).is_empty());
        let (reason, message) = writes.condition_parts().unwrap();
        assert!(reason == "Forbidden" && message.contains("of 16 mailboxes"), "{message}");
        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = writes.wait(now).unwrap();
            waits.push(wait.as_secs());
            now += wait;
            assert!(!writes.holds_all(now));
            assert!(writes.record_round(round(&[], &refused, true), now).is_empty());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        now += writes.wait(now).unwrap();
        writes.record_round(round(&["other"], &[], false), now);
        assert!(writes.condition_parts().is_none() && !writes.contains("m00"), "all are tried again at once");
    }

    #[test]
    fn of_many_refused_writes_those_are_tried_that_waited_the_longest() {
        let (mut writes, mut now) = (RefusedWrites::default(), Instant::now());
        let names: Vec<String> = (0..40).map(|n| format!("m{n:02}")).collect();
        let refused: Vec<_> = names.iter().map(|name| (name.as_str(), 422)).collect();
        writes.record_round(round(&[], &refused, false), now);
        let mut tried = BTreeSet::new();
        for _ in 0..3 {
            now += writes.wait(now).unwrap();
            let left = writes.left_out(now);
            let probes: Vec<&str> = names.iter().map(String::as_str).filter(|name| !left.contains(*name)).collect();
            assert_eq!(probes.len(), PROBES);
            tried.extend(probes.iter().map(|name| (*name).to_owned()));
            let refused: Vec<_> = probes.iter().map(|name| (*name, 422)).collect();
            writes.record_round(round(&[], &refused, false), now);
        }
        assert_eq!(tried.len(), 40);
    }

    #[test]
    fn only_an_answer_about_the_write_is_a_refusal() {
        let answer = |code| kube::Error::Api(Box::new(Status { code, message: "no\n".into(), ..Status::default() }));
        assert_eq!(WriteRefusal::from_error("b", &answer(422)).unwrap().message, "no\u{fffd}");
        for code in [401, 409, 410, 429] {
            assert_eq!(WriteRefusal::from_error("b", &answer(code)), None, "{code}");
        }
        assert_eq!(WriteRefusal::from_error("b", &kube::Error::LinesCodecMaxLineLengthExceeded), None);
    }
}
