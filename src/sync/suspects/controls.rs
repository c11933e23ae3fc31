//! Which ordinary messages are kept back as controls, and for how many suspects one of them speaks.

use super::{BETWEEN_CONTROLS, MANY_REFUSED, PassedControl, SuspectTracker};
use crate::sync::scan::ScannedMessage;

/// Ordinary messages that are kept back as controls.
const CONTROLS: usize = 3;
/// ... and one more for so many suspects: each round, and the first pass, needs one for [`BETWEEN_CONTROLS`] of them.
const SUSPECTS_PER_CONTROL: usize = 10;
/// At most so many suspects are tried between two controls, where controls are few.
const MOST_BETWEEN_CONTROLS: usize = 500;

impl SuspectTracker {
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
}
