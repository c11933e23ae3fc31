//! Messages that the destination refused in this run: whose fault it is, decided by tries beside ordinary messages.

mod controls;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{circuit_breaker::is_transient, scan::ScannedMessage, uid::SourceUid};
use crate::{error::Error, imap::UidSet};

/// Rounds in which a refused message is tried at most.
pub(crate) const ROUNDS: u32 = 4;
/// Rounds in which it must be refused beside ordinary messages that pass, to be proven.
const PROOF_ROUNDS: u32 = 2;
/// After so many refusals in a round another ordinary message must pass.
pub(crate) const BETWEEN_CONTROLS: usize = 50;
/// So many different messages that are refused and no other, for a while, mean that there is no control.
pub(crate) const MANY_REFUSED: usize = 10;

/// Reasons for refusals that are told apart.
const MAX_REASONS: usize = 16;

/// One message that was refused.
#[derive(Debug, Clone)]
pub(crate) struct SuspectMessage {
    /// The refusal.
    pub error: Error,
    /// What the server said.
    pub why: String,
    /// Bytes.
    pub size: u32,
    /// How often it was refused alone in an APPEND: of a batch, one message may be to blame.
    pub alone: u32,
    /// Rounds in which it was refused.
    pub rounds: u32,
    /// Of these, rounds in which ordinary messages of at least its size passed.
    pub proven_rounds: u32,
    /// It may have been stored all the same: nobody has looked since it was refused.
    pub in_doubt: bool,
    /// It was tried in a weakened form, too.
    pub weakened: bool,
    /// An earlier run set it aside: it is tried once, or until it is proven.
    pub earlier: Option<EarlierTries>,
}

/// What an earlier run knew of a message that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EarlierTries {
    /// It was proven to be refused for its own sake.
    pub proven: bool,
    /// Runs in which it was tried.
    pub tries: u32,
    /// Runs since it was set aside.
    pub runs: u32,
}

/// A control that passed in this round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassedControl {
    /// Bytes; none when there was no control to send.
    pub size: Option<u32>,
    /// How many suspects it still speaks for.
    pub left: usize,
}

/// What a server said, without the date and the timing that Dovecot adds to it: they differ from answer to answer.
#[must_use]
pub(crate) fn without_timing(text: &str) -> &str {
    let mut rest = text.trim_end();
    for (open, close) in [(" (", " secs)."), (" [", "]")] {
        if rest.ends_with(close)
            && let Some(at) = rest.rfind(open)
            && rest.get(at + open.len()..).is_some_and(|inner| inner.starts_with(|c: char| c.is_ascii_digit()))
        {
            rest = rest.get(..at).unwrap_or(rest);
        }
    }
    rest
}

/// How often a reason for refusals was given between messages that were accepted.
#[derive(Debug, Default)]
struct ReasonGiven {
    /// Refusals for this reason with an acceptance since the one before.
    between_accepted: usize,
    /// Messages that were accepted in this run when it was given last.
    accepted_before: usize,
}

/// All that a folder's copying knows of refused messages; outlives connections.
#[derive(Debug, Default)]
pub(crate) struct SuspectTracker {
    messages: BTreeMap<SourceUid, SuspectMessage>,
    /// Ordinary messages that are kept back.
    pub controls: BTreeSet<SourceUid>,
    /// The destination's UIDNEXT before the oldest refused APPEND that was not looked for since.
    pub doubt_from: Option<u32>,
    first_refusal: Option<Instant>,
    /// Different messages that were refused.
    different: BTreeSet<SourceUid>,
    /// Something was accepted in this folder since the first refusal.
    accepted: bool,
    /// Messages that were accepted in this run.
    accepted_messages: usize,
    /// Bytes of the largest of them.
    largest_accepted: u32,
    /// Why messages were refused alone, as the server said it.
    reasons: BTreeMap<String, ReasonGiven>,
    /// One that was refused alone was accepted later.
    comes_and_goes: bool,
    /// It was found that no ordinary message is left that would tell of the server.
    pub uncontrolled: bool,
    /// The round that goes on, from 0.
    pub round: u32,
    /// Its pause and its look were made.
    pub round_began: bool,
    /// The last round that had its pause.
    paused: u32,
    /// Refused in this round; true where a control speaks for it. Counts once the round ended well.
    refused_now: BTreeMap<SourceUid, bool>,
    /// The control that passed last in this round.
    pub control: Option<PassedControl>,
    /// Controls that were refused since one passed.
    refused_controls: usize,
    steps: u64,
    tries: u64,
}

impl SuspectTracker {
    /// A message was refused, alone or with others; `uid_next` is the destination's UIDNEXT as known when it was sent.
    pub(crate) fn record_refusal(
        &mut self,
        message: &ScannedMessage,
        alone: bool,
        error: &Error,
        why: &str,
        uid_next: u32,
    ) {
        let now = Instant::now();
        self.first_refusal.get_or_insert(now);
        self.doubt_from = Some(self.doubt_from.map_or(uid_next, |from| from.min(uid_next)));
        self.controls.remove(&message.uid);
        self.tries += 1;
        if self.different.insert(message.uid) {
            self.steps += 1;
        }
        let suspect = self.messages.entry(message.uid).or_insert_with(|| SuspectMessage {
            error: error.clone(),
            why: String::new(),
            size: message.size,
            alone: 0,
            rounds: 0,
            proven_rounds: 0,
            in_doubt: true,
            weakened: false,
            earlier: None,
        });
        suspect.error = error.clone();
        why.clone_into(&mut suspect.why);
        suspect.alone += u32::from(alone);
        suspect.in_doubt = true;
        if alone && (self.reasons.contains_key(why) || self.reasons.len() < MAX_REASONS) {
            let given = self.reasons.entry(why.to_owned()).or_default();
            if self.accepted_messages > given.accepted_before {
                given.between_accepted += 1;
                given.accepted_before = self.accepted_messages;
            }
        }
    }

    /// True when the server gave this reason again and again between messages that it accepted, and accepted none later
    /// that it had refused: then the reason is the messages' own, and many in a row tell nothing of the server.
    #[must_use]
    pub(crate) fn is_of_messages(&self, why: &str) -> bool {
        !self.comes_and_goes && self.reasons.get(why).is_some_and(|given| given.between_accepted >= MANY_REFUSED)
    }

    /// True when of the messages that were sent alone at least as many were accepted as refused.
    #[must_use]
    pub(crate) fn most_are_ordinary(&self) -> bool {
        self.accepted_messages >= self.messages.values().filter(|suspect| suspect.alone > 0).count()
    }

    /// An earlier run set this message aside; it is time to try it again.
    pub(crate) fn add_earlier(&mut self, message: &ScannedMessage, error: Error, why: String, earlier: EarlierTries) {
        self.messages.entry(message.uid).or_insert(SuspectMessage {
            error,
            why,
            size: message.size,
            alone: 1,
            rounds: 0,
            proven_rounds: 0,
            in_doubt: true,
            weakened: false,
            earlier: Some(earlier),
        });
    }

    /// A message was accepted, or found at the destination.
    pub(crate) fn record_acceptance(&mut self, message: &ScannedMessage) {
        let uid = message.uid;
        self.accepted |= self.first_refusal.is_some();
        self.accepted_messages += 1;
        self.largest_accepted = self.largest_accepted.max(message.size);
        self.controls.remove(&uid);
        self.refused_now.remove(&uid);
        if let Some(suspect) = self.messages.remove(&uid) {
            self.comes_and_goes |= suspect.alone > 0 && suspect.earlier.is_none();
        }
    }

    /// A message was found at the destination: it was stored though it was refused.
    pub(crate) fn record_found(&mut self, uid: SourceUid) {
        self.remove(uid);
        self.accepted |= self.first_refusal.is_some();
    }

    /// What was refused was looked for: what is still here was not stored.
    pub(crate) fn clear_doubt(&mut self) {
        self.doubt_from = None;
        for suspect in self.messages.values_mut() {
            suspect.in_doubt = false;
        }
    }

    /// True when a message may be at the destination though it was refused.
    #[must_use]
    pub(crate) fn is_in_doubt(&self, uid: SourceUid) -> bool {
        self.messages.get(&uid).is_some_and(|suspect| suspect.in_doubt)
    }

    /// A message is no more to be sent.
    pub(crate) fn remove(&mut self, uid: SourceUid) {
        self.controls.remove(&uid);
        self.refused_now.remove(&uid);
        self.messages.remove(&uid);
    }

    /// True for a message that was refused.
    #[must_use]
    pub(crate) fn contains(&self, uid: SourceUid) -> bool {
        self.messages.contains_key(&uid)
    }

    /// True when nothing is under suspicion, and nothing kept back.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.messages.is_empty() && self.controls.is_empty()
    }

    /// True when nothing is under suspicion.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What is known of one.
    #[must_use]
    pub(crate) fn get(&self, uid: SourceUid) -> Option<&SuspectMessage> {
        self.messages.get(&uid)
    }

    /// The suspects, by UID.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SourceUid, &SuspectMessage)> {
        self.messages.iter().map(|(uid, suspect)| (*uid, suspect))
    }

    /// Those that were refused only together with others: one by one they may pass.
    pub(crate) fn only_in_batches(&self) -> impl Iterator<Item = SourceUid> + '_ {
        self.messages.iter().filter(|(_, suspect)| suspect.alone == 0).map(|(uid, _)| *uid)
    }

    /// True when one was refused alone.
    #[must_use]
    pub(crate) fn any_alone(&self) -> bool {
        self.messages.values().any(|suspect| suspect.alone > 0)
    }

    /// Grows with each refusal.
    #[must_use]
    pub(crate) fn tries(&self) -> u64 {
        self.tries
    }

    /// Grows with each message that was refused for the first time.
    #[must_use]
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The first refusal of this folder in this run.
    #[must_use]
    pub(crate) fn first_refusal(&self) -> Option<Instant> {
        self.first_refusal
    }

    /// The last refusal, for the error when nothing is accepted.
    #[must_use]
    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.messages.values().next_back().map(|suspect| &suspect.error)
    }

    /// True when many different messages were refused and none accepted.
    #[must_use]
    pub(crate) fn is_without_control(&self) -> bool {
        !self.accepted && self.refused_many()
    }

    /// True when the first refusal is so long ago.
    #[must_use]
    pub(crate) fn refused_for(&self, after: Duration) -> bool {
        self.first_refusal.is_some_and(|since| since.elapsed() >= after)
    }

    /// True when many different messages were refused.
    #[must_use]
    pub(crate) fn refused_many(&self) -> bool {
        self.different.len() >= MANY_REFUSED
    }

    /// True when something was accepted in this folder since the first refusal.
    #[must_use]
    pub(crate) fn any_accepted(&self) -> bool {
        self.accepted
    }

    /// True when the refusals say themselves that they pass.
    #[must_use]
    pub(crate) fn is_transient(&self) -> bool {
        self.last_error().is_some_and(is_transient)
    }

    /// What is still to be tried in the round that goes on; empty when the round is over.
    #[must_use]
    pub(crate) fn left_in_round(&self) -> Vec<SourceUid> {
        let left = self.messages.iter().filter(|(uid, s)| !self.is_settled(s) && !self.refused_now.contains_key(uid));
        left.map(|(uid, _)| *uid).collect()
    }

    /// A suspect was tried alone in this round, and refused.
    pub(crate) fn record_round_refusal(&mut self, uid: SourceUid) {
        let Some(suspect) = self.messages.get(&uid) else { return };
        let speaks = self.control.and_then(|control| control.size).is_some_and(|size| size >= suspect.size);
        self.refused_now.insert(uid, speaks);
        if let Some(control) = &mut self.control {
            control.left = control.left.saturating_sub(1);
        }
    }

    /// True when something was refused in the round that goes on.
    #[must_use]
    pub(crate) fn is_in_round(&self) -> bool {
        !self.refused_now.is_empty()
    }

    /// True when a pause is due before the round that comes.
    #[must_use]
    pub(crate) fn wants_pause(&self) -> bool {
        self.paused < self.round
    }

    /// The pause was made.
    pub(crate) fn paused(&mut self) {
        self.paused = self.round;
    }

    /// A suspect was refused in its weakened form.
    pub(crate) fn refused_weakened(&mut self, uid: SourceUid) {
        if let Some(suspect) = self.messages.get_mut(&uid) {
            suspect.weakened = true;
        }
    }

    /// Forgets all but these.
    pub(crate) fn retain_uids(&mut self, work: &UidSet<SourceUid>) {
        self.messages.retain(|uid, _| work.contains(*uid));
        self.refused_now.retain(|uid, _| work.contains(*uid));
    }

    /// The server was unwell in the middle of the round: nothing in it counts.
    pub(crate) fn void_round(&mut self) {
        self.refused_now.clear();
        self.refused_controls = 0;
        self.control = None;
        self.round_began = false;
    }

    /// The round is over: what was refused in it counts.
    pub(crate) fn end_round(&mut self) {
        for (uid, speaks) in std::mem::take(&mut self.refused_now) {
            if let Some(suspect) = self.messages.get_mut(&uid) {
                suspect.rounds += 1;
                suspect.proven_rounds += u32::from(speaks);
            }
        }
        self.control = None;
        self.round_began = false;
        self.round += 1;
    }

    /// True when the message is proven to be refused for its own sake.
    #[must_use]
    pub(crate) fn is_proven(&self, suspect: &SuspectMessage) -> bool {
        let earlier = suspect.earlier.is_some_and(|earlier| earlier.proven) && suspect.rounds > 0;
        earlier || (suspect.proven_rounds >= PROOF_ROUNDS && (!self.comes_and_goes || suspect.rounds >= ROUNDS))
    }

    /// True when no further round is needed, or would tell more.
    fn is_settled(&self, suspect: &SuspectMessage) -> bool {
        // Without a control a further round only waits for a server that may be unwell.
        let waited = self.uncontrolled || self.messages.len() >= MANY_REFUSED;
        let without_control = if suspect.earlier.is_some() || waited {
            1
        } else if self.accepted {
            PROOF_ROUNDS
        } else {
            ROUNDS
        };
        self.is_proven(suspect)
            || suspect.rounds >= ROUNDS
            || (suspect.proven_rounds == 0 && suspect.rounds >= without_control)
    }

    /// What is left after the last round, taken out.
    pub(crate) fn take_remaining(&mut self) -> BTreeMap<SourceUid, SuspectMessage> {
        self.refused_now.clear();
        (self.round, self.paused, self.round_began, self.control) = (0, 0, false, None);
        std::mem::take(&mut self.messages)
    }
}
