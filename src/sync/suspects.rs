//! Messages that the destination refused in this run: whose fault it is, decided by tries beside ordinary messages.

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
/// ... or after so many, where controls are few.
const MOST_BETWEEN_CONTROLS: usize = 500;
/// Ordinary messages that are kept back as controls.
const CONTROLS: usize = 3;
/// ... and one more for so many suspects: each round, and the first pass, needs one for [`BETWEEN_CONTROLS`] of them.
const SUSPECTS_PER_CONTROL: usize = 10;
/// After so many runs that ended because the destination took nothing of a folder, it may well be right.
const UNWELL_RUNS: u32 = 2;
/// So many messages are not sent to a server that may be unwell.
const MANY_LEFT: usize = 50;
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

/// What is known while the destination refuses and no ordinary message passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusalEvidence {
    /// The refusals say themselves that they pass.
    pub is_passing: bool,
    /// Some other message was accepted, in this folder or another, since the first refusal.
    pub accepted: bool,
    /// Many different messages were refused.
    pub many: bool,
    /// The first refusal is a while ago.
    pub for_long: bool,
    /// Messages of the folder that were not tried.
    pub left: usize,
    /// Runs in a row that ended because the destination took nothing of this folder.
    pub earlier_runs: u32,
}

/// What refusals mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalJudgement {
    /// It may still be the server: it is waited for.
    Wait,
    /// The server takes other messages, or there are too few to tell: on without controls.
    GoOn,
    /// The server takes nothing at all.
    Unwell,
}

impl RefusalEvidence {
    /// Decides. Where few messages are left, waiting any longer finds out nothing; where many are, they are not all sent to
    /// a server that may be unwell.
    #[must_use]
    pub(crate) fn judge(self) -> RefusalJudgement {
        let again = self.earlier_runs >= UNWELL_RUNS;
        let (well, few_left) = (self.accepted || again, self.left < MANY_LEFT || again);
        match (well, self.is_passing) {
            (true, false) if few_left => RefusalJudgement::GoOn,
            (true, false) => RefusalJudgement::Wait,
            _ if !self.for_long => RefusalJudgement::Wait,
            (_, true) if (well || !self.many) && few_left => RefusalJudgement::GoOn,
            (_, true) => RefusalJudgement::Wait,
            (false, false) if self.many => RefusalJudgement::Unwell,
            (false, false) => RefusalJudgement::GoOn,
        }
    }
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

    /// True when more ordinary messages should be kept back.
    #[must_use]
    pub(crate) fn wants_controls(&self) -> bool {
        self.controls.len() < self.wanted_controls()
    }

    fn wanted_controls(&self) -> usize {
        let unproven = || self.messages.values().filter(|suspect| suspect.earlier.is_none_or(|e| !e.proven));
        if unproven().next().is_none() {
            0
        } else if self.size_limit() < u32::MAX {
            // Too small to prove anything: they only tell that the server is well.
            CONTROLS
        } else {
            CONTROLS + unproven().filter(|suspect| suspect.alone > 0).count() / SUSPECTS_PER_CONTROL
        }
    }

    /// Keeps ordinary messages back as controls: the largest, one with keywords, others. `pending` has those that wait to
    /// be sent, with whether they have keywords; they are suspects no more, where they were refused only in batches.
    pub(crate) fn choose_controls(&mut self, pending: &[(ScannedMessage, bool)]) {
        let wanted = self.wanted_controls();
        let had = self.controls.len();
        if had >= wanted {
            return;
        }
        let most = self.size_limit();
        let fits = |m: &ScannedMessage| m.size > 0 && m.size <= most && !self.controls.contains(&m.uid);
        let mut by_size: Vec<&(ScannedMessage, bool)> = pending.iter().filter(|(m, _)| fits(m)).collect();
        by_size.sort_by_key(|(m, _)| std::cmp::Reverse((m.size, m.uid)));
        if had == 0 {
            let with_keywords = by_size.iter().find(|(_, keywords)| *keywords).map(|(m, _)| m.uid);
            self.controls.extend(by_size.first().map(|(m, _)| m.uid));
            self.controls.extend(with_keywords.filter(|_| wanted > 1));
        }
        for (message, _) in by_size {
            if self.controls.len() >= wanted {
                break;
            }
            self.controls.insert(message.uid);
        }
        let controls = &self.controls;
        self.messages.retain(|uid, _| !controls.contains(uid));
    }

    /// Bytes of the largest message that seems to be taken: where all that were refused alone are larger than all that
    /// were accepted, larger ones are no ordinary messages.
    fn size_limit(&self) -> u32 {
        let alone = || self.messages.values().filter(|suspect| suspect.alone > 0);
        let few = || self.accepted_messages < MANY_REFUSED || alone().nth(MANY_REFUSED - 1).is_none();
        let mixed = || alone().any(|suspect| suspect.size <= self.largest_accepted);
        if few() || mixed() { u32::MAX } else { self.largest_accepted }
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

    /// A control was refused; true when so many were that the server is to blame.
    pub(crate) fn control_refused(&mut self) -> bool {
        self.refused_controls += 1;
        self.refused_controls >= (self.unlikely_in_a_row() as usize).max(MANY_REFUSED)
    }

    /// Of the messages that were kept back, the share that may be ordinary: as many as of those that were sent.
    fn ordinary_share(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let (accepted, refused) = (self.accepted_messages as f64, self.different.len() as f64);
        ((accepted + 1.0) / (accepted + refused + 1.0)).clamp(0.01, 0.99)
    }

    /// So many refusals in a row come by chance less than once in a thousand times, where so many are refused; 1 where
    /// nothing was accepted yet.
    #[must_use]
    pub(crate) fn unlikely_in_a_row(&self) -> u32 {
        if self.accepted_messages == 0 {
            return 1;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 700")]
        let count = (0.001_f64.ln() / (1.0 - self.ordinary_share()).ln()).ceil() as u32;
        count.min(100)
    }

    /// A control passed, and speaks for what follows.
    pub(crate) fn record_passed_control(&mut self, size: u32) {
        self.refused_controls = 0;
        self.control = Some(PassedControl { size: Some(size), left: self.between_controls() });
    }

    /// No control is left: what follows is tried without.
    pub(crate) fn continue_without_control(&mut self) {
        self.control = Some(PassedControl { size: None, left: self.between_controls() });
    }

    /// After so many refusals another control must pass; where few are left, they are spread over two rounds.
    #[must_use]
    pub(crate) fn between_controls(&self) -> usize {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a guess"
        )]
        let ordinary = (self.controls.len() as f64 * self.ordinary_share()) as usize;
        BETWEEN_CONTROLS.max(2 * self.messages.len() / ordinary.max(1)).min(MOST_BETWEEN_CONTROLS)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorClass, imap::response::FetchResponse, sync::scan::FolderScan};

    fn messages(sizes: &[u64]) -> Vec<ScannedMessage> {
        let mut scan = FolderScan::default();
        for (uid, size) in (1..).zip(sizes) {
            scan.add_fetch(FetchResponse {
                uid: Some(uid),
                flags: Some(vec![]),
                size: Some(*size),
                ..FetchResponse::default()
            });
        }
        scan.finish();
        scan.messages
    }

    fn controls(suspects: &SuspectTracker) -> Vec<u32> {
        suspects.controls.iter().map(|uid| uid.0).collect()
    }

    fn refused(suspects: &mut SuspectTracker, message: &ScannedMessage) {
        let error = Error::new(ErrorClass::MessageRejected, "no");
        suspects.record_refusal(message, true, &error, "no", 5);
    }

    fn round(suspects: &mut SuspectTracker, uid: u32, control: Option<u32>) {
        suspects.control = Some(PassedControl { size: control, left: BETWEEN_CONTROLS });
        suspects.record_round_refusal(SourceUid(uid));
        suspects.end_round();
    }

    #[test]
    fn dates_and_timings_are_no_part_of_what_was_said() {
        for (text, said) in [
            ("Internal error. [2026-11-29 00:59:36] (0.001 + 0.001 secs).", "Internal error."),
            (
                "Quota exceeded (mailbox for user is full) (0.001 + 0.000 secs).",
                "Quota exceeded (mailbox for user is full)",
            ),
            ("no [not this one]", "no [not this one]"),
            ("no", "no"),
        ] {
            assert_eq!(without_timing(text), said);
        }
    }

    #[test]
    fn two_rounds_beside_controls_of_its_size_prove_a_refusal() {
        let mut suspects = SuspectTracker::default();
        refused(&mut suspects, &messages(&[100])[0]);
        round(&mut suspects, 1, Some(100));
        assert!(!suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
        assert_eq!(suspects.left_in_round(), [SourceUid(1)]);
        round(&mut suspects, 1, Some(200));
        assert!(suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
        assert!(suspects.left_in_round().is_empty());
    }

    #[test]
    fn smaller_controls_prove_nothing_and_four_rounds_are_enough() {
        let mut suspects = SuspectTracker::default();
        refused(&mut suspects, &messages(&[100])[0]);
        for _ in 0..ROUNDS {
            assert_eq!(suspects.left_in_round(), [SourceUid(1)]);
            round(&mut suspects, 1, Some(99));
        }
        assert!(suspects.left_in_round().is_empty() && !suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
    }

    #[test]
    fn a_reason_given_again_and_again_between_accepted_messages_is_the_messages_own() {
        let all = messages(&[100; 2 * MANY_REFUSED]);
        let mut suspects = SuspectTracker::default();
        for pair in all.chunks(2) {
            assert!(!suspects.is_of_messages("no"));
            suspects.record_acceptance(&pair[0]);
            refused(&mut suspects, &pair[1]);
        }
        assert!(suspects.is_of_messages("no") && !suspects.is_of_messages("full"));
        assert!(suspects.most_are_ordinary());
        // One that was refused is accepted: the server is to blame after all.
        suspects.record_acceptance(&all[1]);
        assert!(!suspects.is_of_messages("no"));
    }

    #[test]
    fn refusals_in_a_row_tell_nothing_of_whose_fault_they_are() {
        let mut suspects = SuspectTracker::default();
        suspects.record_acceptance(&messages(&[100])[0]);
        for message in &messages(&[100; 50]) {
            refused(&mut suspects, message);
        }
        assert!(!suspects.is_of_messages("no") && !suspects.most_are_ordinary());
    }

    #[test]
    fn where_a_server_seems_to_refuse_by_size_smaller_messages_are_the_controls() {
        let sizes: Vec<u64> = (1..=40).map(|n| if n % 2 == 0 { 1000 + n } else { n }).collect();
        let all = messages(&sizes);
        let mut suspects = SuspectTracker::default();
        for pair in all[..20].chunks(2) {
            suspects.record_acceptance(&pair[0]);
            refused(&mut suspects, &pair[1]);
        }
        let pending: Vec<(ScannedMessage, bool)> = all[20..].iter().map(|m| (*m, false)).collect();
        suspects.choose_controls(&pending);
        assert!(suspects.controls.is_empty(), "larger than all that was accepted: {:?}", suspects.controls);
        suspects.record_acceptance(&all[38]);
        suspects.choose_controls(&pending);
        assert_eq!(controls(&suspects), [35, 37, 39]);
        // One refusal of a small message: size is not the reason.
        let mut suspects = SuspectTracker { controls: BTreeSet::new(), ..suspects };
        refused(&mut suspects, &all[0]);
        suspects.choose_controls(&pending);
        assert_eq!(controls(&suspects), [34, 36, 38, 40]);
    }

    #[test]
    fn a_fault_that_comes_and_goes_needs_all_rounds() {
        let mut suspects = SuspectTracker::default();
        let all = messages(&[100, 100]);
        for message in &all {
            refused(&mut suspects, message);
        }
        round(&mut suspects, 1, Some(100));
        suspects.record_acceptance(&all[1]);
        round(&mut suspects, 1, Some(100));
        assert!(!suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
        round(&mut suspects, 1, Some(100));
        round(&mut suspects, 1, Some(100));
        assert!(suspects.is_proven(suspects.get(SourceUid(1)).unwrap()));
    }

    #[test]
    fn a_round_in_which_the_server_was_unwell_does_not_count() {
        let mut suspects = SuspectTracker::default();
        refused(&mut suspects, &messages(&[100])[0]);
        suspects.control = Some(PassedControl { size: Some(100), left: BETWEEN_CONTROLS });
        suspects.record_round_refusal(SourceUid(1));
        suspects.void_round();
        suspects.end_round();
        assert_eq!(suspects.get(SourceUid(1)).unwrap().rounds, 0);
    }

    #[test]
    fn controls_are_the_largest_one_with_keywords_and_another() {
        let mut suspects = SuspectTracker::default();
        let all = messages(&[10, 70, 20, 50, 60, 40]);
        refused(&mut suspects, &all[0]);
        let pending: Vec<(ScannedMessage, bool)> = all[1..].iter().map(|m| (*m, m.uid.0 == 3)).collect();
        suspects.choose_controls(&pending);
        assert_eq!(controls(&suspects), [2, 3, 5]);
        assert!(!suspects.wants_controls());
    }

    #[test]
    fn what_was_refused_stays_in_the_tail_until_it_was_looked_for() {
        let mut suspects = SuspectTracker::default();
        let all = messages(&[10, 10]);
        refused(&mut suspects, &all[0]);
        assert_eq!((suspects.doubt_from, suspects.is_in_doubt(SourceUid(1))), (Some(5), true));
        suspects.clear_doubt();
        assert_eq!((suspects.doubt_from, suspects.is_in_doubt(SourceUid(1))), (None, false));
    }

    #[test]
    fn without_a_control_a_server_that_takes_nothing_is_unwell_and_few_refusals_tell_nothing() {
        let known = RefusalEvidence {
            is_passing: false,
            accepted: false,
            many: true,
            for_long: true,
            left: 500,
            earlier_runs: 0,
        };
        assert_eq!(known.judge(), RefusalJudgement::Unwell);
        assert_eq!(RefusalEvidence { for_long: false, ..known }.judge(), RefusalJudgement::Wait);
        assert_eq!(RefusalEvidence { many: false, ..known }.judge(), RefusalJudgement::GoOn);
        assert_eq!(RefusalEvidence { is_passing: true, ..known }.judge(), RefusalJudgement::Wait);
        // It took others: many more are not sent to it before it is well, few are.
        assert_eq!(RefusalEvidence { accepted: true, ..known }.judge(), RefusalJudgement::Wait);
        assert_eq!(RefusalEvidence { accepted: true, left: 3, ..known }.judge(), RefusalJudgement::GoOn);
        // It took nothing of this folder in run after run.
        assert_eq!(RefusalEvidence { earlier_runs: UNWELL_RUNS, ..known }.judge(), RefusalJudgement::GoOn);
    }
}
