//! The reading half of a pass: what is asked for, and what comes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{
    anomaly::AnomalyScanner,
    memory::CopyMemory,
    pass::{CopyPass, FetchRange, LiteralStream, MessageState},
};
use crate::{
    error::{Error, ErrorClass, ErrorRemedy, Result, Side},
    imap::{
        STREAM_ABOVE, SessionEvent, UidSet,
        refusal::CommandKind,
        response::{FetchResponse, StatusCondition, UntaggedResponse},
    },
    sync::{
        body_reader::{fetch_bodies, into_body},
        circuit_breaker::{RefusalConsequence, RefusalWeight},
        fetch_planner::{FetchPlanner, PlannedMessage},
        limits::{FETCH_BYTES, FETCHES_IN_FLIGHT, MAX_SET_BYTES},
        scan::ScannedMessage,
        uid::SourceUid,
    },
};

/// Divides the work into `FETCHes`, by the rules of [`FetchPlanner`]. What is at hand is not asked for. At most `at_once`
/// messages are asked for by one.
pub(super) fn plan_ranges(
    work: &[ScannedMessage],
    at_once: usize,
    memory: &CopyMemory,
    at_hand: &BTreeMap<SourceUid, Bytes>,
) -> VecDeque<FetchRange> {
    let mut ranges: VecDeque<FetchRange> = VecDeque::new();
    let mut planner = FetchPlanner::new(&memory.failures, at_once);
    for (at, message) in work.iter().enumerate() {
        if at_hand.contains_key(&message.uid) {
            planner.skip();
            continue;
        }
        let PlannedMessage { joins, bytes } = planner.place(message.uid, u64::from(message.size));
        match ranges.back_mut().filter(|_| joins) {
            Some(range) => {
                range.end = at + 1;
                range.bytes += bytes;
            }
            None => ranges.push_back(FetchRange { first: at, end: at + 1, bytes }),
        }
    }
    ranges
}

impl CopyPass<'_, '_> {
    /// Asks for more while the budget allows.
    pub(super) fn request_messages(&mut self) {
        while !self.stopping && !self.pausing && self.requested.len() < FETCHES_IN_FLIGHT {
            let waits = self.requested.front().is_some_and(|(_, unit)| self.only_message(unit).is_some());
            if self.memory.uid_comes_late && waits {
                return;
            }
            let Some(unit) = self.units.front().copied() else { return };
            // Dovecot answers a later FETCH before an earlier one: what streams must be next in turn when it comes.
            if unit.bytes > STREAM_ABOVE && !self.requested.is_empty() {
                return;
            }
            let buffered = self.due + self.held + self.destination.queued() as u64;
            // Large messages stream: they count as what may be buffered of them.
            let needs = unit.bytes.min(2 * FETCH_BYTES);
            if buffered > 0 && buffered + needs > self.context.budget {
                return;
            }
            self.units.pop_front();
            let Some(messages) = self.work.get(unit.first..unit.end) else { return };
            // Where sizes say too little, so do sums of them: each message is asked for alone.
            let most = if self.memory.sizes.is_understated() { 1 } else { usize::MAX };
            let uids: UidSet<SourceUid> = messages.iter().take(most).map(|m| m.uid).collect();
            // A set that is too long for one command is cut; what is left of the unit follows.
            let set = uids.chunks(MAX_SET_BYTES).next().unwrap_or_default();
            let covered = UidSet::<SourceUid>::parse(&set).map_or(0, |set| set.len());
            let count = usize::try_from(covered).unwrap_or(messages.len());
            let asked = if count < messages.len() {
                let end = unit.first + count.max(1);
                let bytes = messages.iter().take(count).map(|m| u64::from(m.size)).sum();
                self.units.push_front(FetchRange {
                    first: end,
                    end: unit.end,
                    bytes: unit.bytes.saturating_sub(bytes),
                });
                FetchRange { first: unit.first, end, bytes }
            } else {
                unit
            };
            let tag = self.source.send_command(&fetch_bodies(set));
            self.due += asked.bytes.min(2 * FETCH_BYTES);
            self.requested.push_back((tag, asked));
        }
    }

    pub(super) fn on_source(&mut self, event: SessionEvent) -> Result<()> {
        match event {
            SessionEvent::Untagged(UntaggedResponse::Fetch(fetch)) => self.on_fetch(fetch),
            SessionEvent::Untagged(_) => Ok(()),
            SessionEvent::LiteralStart { length, uid } => {
                self.begin_stream(length, uid.map(SourceUid));
                Ok(())
            }
            SessionEvent::LiteralChunk(bytes) => {
                self.stream_chunk(bytes);
                Ok(())
            }
            SessionEvent::Done(tag, line) => {
                let Some(position) = self.requested.iter().position(|(t, _)| *t == tag) else { return Ok(()) };
                let Some((_, unit)) = self.requested.remove(position) else { return Ok(()) };
                self.due = self.due.saturating_sub(unit.bytes.min(2 * FETCH_BYTES));
                if self.requested.is_empty() {
                    self.due = 0;
                }
                if line.status == StatusCondition::Ok {
                    self.context.breakers.source.record_acceptance();
                } else {
                    let mut error = self.source.refusal_error(&line, CommandKind::Other, "FETCH");
                    if error.class.remedy() == ErrorRemedy::WaitForPerson {
                        // The folder could be opened and listed: this is no question of rights.
                        error.class = ErrorClass::Network;
                    }
                    let asks_to_wait = error.class == ErrorClass::Throttled || error.stated_wait.is_some();
                    let weight = if asks_to_wait { RefusalWeight::Usual } else { RefusalWeight::Counted };
                    if self.context.breakers.source.record_refusal(&error, weight) == RefusalConsequence::Open {
                        // That is no fault of these messages: they are asked for again once the server is well.
                        self.pausing = true;
                        return Ok(());
                    }
                }
                for at in unit.first..unit.end {
                    if self.state(at) == MessageState::Pending {
                        let uid = self.message(at)?.uid;
                        if self.outcome.again.contains(&uid) {
                            // It streamed out of turn and was let go; the next pass asks again.
                        } else if line.status == StatusCondition::Ok {
                            self.outcome.missing.insert(uid);
                        } else {
                            self.outcome.failed.insert(uid);
                        }
                        self.mark_settled(at);
                    }
                }
                Ok(())
            }
        }
    }

    fn on_fetch(&mut self, fetch: FetchResponse) -> Result<()> {
        let streamed = self.stream.take();
        let discarded = std::mem::take(&mut self.discarding);
        let Some(uid) = fetch.uid.map(SourceUid) else {
            return match streamed {
                // Which message was it? What was sent must not be ended as if it were known.
                Some(_) => Err(self.source.with_endpoint(Error::protocol("a message came without its UID"))),
                None => Ok(()),
            };
        };
        if let Some(stream) = streamed {
            return self.end_stream(&stream, uid);
        }
        let Ok(at) = self.work.binary_search_by_key(&uid, |m| m.uid) else { return Ok(()) };
        // An unsolicited change of flags; or NIL: expunged meanwhile, and the FETCH's end counts it as missing.
        let Some(body) = into_body(fetch) else { return Ok(()) };
        if self.state(at) != MessageState::Pending
            || !self.requested.iter().any(|(_, u)| (u.first..u.end).contains(&at))
        {
            return Ok(());
        }
        // What came before its turn, and is larger than it was listed, is not held for those that it must wait for.
        let is_early = || (self.next..at).any(|before| self.state(before) == MessageState::Pending);
        if discarded || (self.is_overfull(body.len() as u64) && is_early()) {
            // Whatever its size was said to be: next time it is asked for in its turn, and alone.
            self.memory.failures.mark_large(uid);
            self.outcome.again.insert(uid);
            self.mark_settled(at);
            return Ok(());
        }
        let message = *self.message(at)?;
        if self.memory.is_stand_in(&message, &body) {
            return Ok(()); // the FETCH's end counts it as missing
        }
        self.due = self.due.saturating_sub(body.len() as u64);
        self.hold_body(uid, body);
        Ok(())
    }

    /// Takes a message's bytes into the pipeline; while nothing more is sent, only that they came.
    pub(super) fn hold_body(&mut self, uid: SourceUid, body: Bytes) {
        let Ok(at) = self.work.binary_search_by_key(&uid, |m| m.uid) else { return };
        if !self.pausing {
            self.held += body.len() as u64;
            self.arrived.insert(at, body);
        }
        if let Some(state) = self.states.get_mut(at) {
            *state = MessageState::Arrived;
        }
    }

    /// A literal too large to be held begins. It streams on if it is this message's turn and known to be this message;
    /// otherwise it is read and dropped, and asked for again later.
    fn begin_stream(&mut self, length: u64, uid: Option<SourceUid>) {
        self.discarding = true;
        self.memory.uid_comes_late |= uid.is_none();
        // A server that names the UID after the literal is asked for one such message at a time.
        let alone = self.requested.front().filter(|_| self.requested.len() == 1);
        let uid = uid.or_else(|| alone.and_then(|(_, unit)| self.only_message(unit)));
        let Some(at) = uid.and_then(|uid| self.work.binary_search_by_key(&uid, |m| m.uid).ok()) else { return };
        let in_turn = (self.next..at).all(|before| self.state(before) != MessageState::Pending);
        if !in_turn || self.next > at || self.state(at) != MessageState::Pending || self.stopping || self.pausing {
            return;
        }
        let Some(message) = self.work.get(at).copied() else { return };
        if self.context.append_limit.is_some_and(|limit| length > limit) {
            self.memory.too_large.insert(message.uid, length);
            self.outcome.again.insert(message.uid);
            self.mark_settled(at);
            return;
        }
        self.discarding = false;
        self.stream_next = Some((at, length));
    }

    /// The messages before a large one are all sent: its bytes may follow.
    pub(super) fn open_stream(&mut self, at: usize, length: u64) {
        self.stream_next = None;
        let listed = self.work.get(at).map_or(0, |message| u64::from(message.size));
        self.memory.sizes.record_size(listed, length);
        let (tag, waits_for_continue) = self.begin_single(at, length);
        let passing = self.context.progress.begin_message();
        let watch = AnomalyScanner::default();
        self.stream = Some(LiteralStream { at, tag: Some(tag), waits_for_continue, watch, passing });
    }

    fn only_message(&self, unit: &FetchRange) -> Option<SourceUid> {
        if unit.end - unit.first == 1 { self.work.get(unit.first).map(|m| m.uid) } else { None }
    }

    fn stream_chunk(&mut self, bytes: Bytes) {
        let Some(stream) = &mut self.stream else { return };
        stream.watch.scan(&bytes);
        stream.passing.add(bytes.len());
        if let Some(tag) = stream.tag {
            self.destination.send(tag, bytes);
        }
    }

    fn end_stream(&mut self, stream: &LiteralStream, uid: SourceUid) -> Result<()> {
        let expected = self.message(stream.at)?.uid;
        if uid != expected {
            return Err(self.source.with_endpoint(Error::protocol("the server named one message and sent another")));
        }
        if let Some(tag) = stream.tag {
            self.destination.send(tag, "\r\n");
        }
        self.report_stream(stream);
        self.mark_settled(stream.at);
        Ok(())
    }

    /// A connection ended: remembers what the source failed on, so that it is asked for alone, and skipped if it fails again
    /// and again.
    pub(super) fn note_source_loss(&mut self, error: &Error) {
        if error.side == Some(Side::Source) && matches!(error.class, ErrorClass::Network | ErrorClass::Protocol) {
            let Some((_, unit)) = self.requested.front() else { return };
            let missing: UidSet<SourceUid> = (unit.first..unit.end)
                .filter(|at| self.state(*at) == MessageState::Pending)
                .filter_map(|at| self.work.get(at).map(|m| m.uid))
                .collect();
            let some_came = missing.len() < (unit.end - unit.first) as u64 || self.stream.is_some() || self.discarding;
            self.memory.failures.record_failure(&missing, some_came);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{limits::FETCH_MESSAGES, scan::FolderScan};

    #[test]
    fn what_is_at_hand_is_not_asked_for_and_divides_what_is() {
        let mut scan = FolderScan::default();
        for uid in 1..=5 {
            let (flags, size) = (Some(vec![]), Some(1));
            scan.add_fetch(FetchResponse { uid: Some(uid), flags, size, ..FetchResponse::default() });
        }
        scan.finish();
        let at_hand = BTreeMap::from([(SourceUid(3), Bytes::new())]);
        let ranges = plan_ranges(&scan.messages, FETCH_MESSAGES, &CopyMemory::default(), &at_hand);
        assert_eq!(ranges.iter().map(|r| (r.first, r.end, r.bytes)).collect::<Vec<_>>(), [(0, 2, 2), (3, 5, 2)]);
    }
}
