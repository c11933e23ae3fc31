//! Reads and hashes the messages of one opened folder over one connection, with several `FETCHes` ahead. What a server fails
//! to deliver is narrowed down to the message, from one connection to the next where it must be.

use std::collections::VecDeque;

use super::side_reading::{ReadState, SideReading};
use crate::{
    error::{ErrorClass, Result},
    imap::{
        STREAM_ABOVE, Session, SessionEvent, Tag, Uid, UidSet,
        refusal::CommandKind,
        response::{FetchResponse, StatusCondition, StatusLine, UntaggedResponse},
    },
    sync::{
        fetch_facts::search_present_uids,
        identity::ContentHasher,
        limits::{FETCH_BYTES, FETCH_MESSAGES, FETCHES_IN_FLIGHT},
        message_limit::max_messages,
        progress::SyncProgress,
        stand_in::{StandIn, find_stand_in},
    },
};

/// Reads all messages of the opened folder that are still to be read.
///
/// # Errors
/// When the connection ends, or the server asks for a slower pace. What was read stays known.
pub(super) async fn read_messages<U: Uid>(
    reading: &mut SideReading<U>,
    session: &mut Session,
    progress: &SyncProgress,
) -> Result<()> {
    if !std::mem::replace(&mut reading.counted, true) {
        SyncProgress::add(&progress.messages_total, reading.entries.len() as u64);
        SyncProgress::add(&progress.bytes_total, reading.entries.iter().map(|e| u64::from(e.size)).sum());
    }
    let mut pass = ReadPass::new(reading, max_messages(session, FETCH_MESSAGES));
    while pass.request_messages(session) {
        let event = match session.next().await {
            Ok(event) => event,
            Err(error) => {
                if matches!(error.class, ErrorClass::Network | ErrorClass::Protocol) {
                    pass.record_lost_connection();
                }
                return Err(error);
            }
        };
        pass.handle_event(event, session, progress)?;
    }
    // Expunged meanwhile, or there and not delivered?
    let unanswered = pass.unanswered;
    if !unanswered.is_empty() {
        let there = search_present_uids(session, &unanswered).await?;
        for uid in unanswered.iter() {
            reading.mark_settled(uid, if there.contains(uid) { ReadState::Unreadable } else { ReadState::Gone });
        }
    }
    Ok(())
}

/// One connection's way through a folder.
struct ReadPass<'a, U> {
    reading: &'a mut SideReading<U>,
    /// One FETCH asks for at most this many messages.
    most: usize,
    queue: VecDeque<UidSet<U>>,
    /// Sent and not answered to the end.
    asked: VecDeque<(Tag, UidSet<U>)>,
    /// What did not come though its `FETCH` ended well.
    unanswered: UidSet<U>,
    /// A message that is too large to be held.
    hasher: Option<ContentHasher>,
}

impl<'a, U: Uid> ReadPass<'a, U> {
    fn new(reading: &'a mut SideReading<U>, most: usize) -> Self {
        let queue = plan_fetches(reading, most, &UidSet::new());
        Self { reading, most, queue, asked: VecDeque::new(), unanswered: UidSet::new(), hasher: None }
    }

    /// Asks for more; false when everything was asked for and answered. What is suspected goes alone over the connection,
    /// so that nothing else can have ended it.
    fn request_messages(&mut self, session: &mut Session) -> bool {
        while self.asked.len() < FETCHES_IN_FLIGHT
            && let Some(next) = self.queue.front()
        {
            let asks_suspects = || self.asked.iter().any(|(_, uids)| self.is_suspected(uids));
            if !self.asked.is_empty() && (self.is_suspected(next) || asks_suspects()) {
                break;
            }
            let Some(uids) = self.queue.pop_front() else { break };
            let tag = session.send_command(&format!("UID FETCH {uids} (UID BODY.PEEK[])"));
            self.asked.push_back((tag, uids));
        }
        !self.asked.is_empty()
    }

    fn handle_event(&mut self, event: SessionEvent, session: &Session, progress: &SyncProgress) -> Result<()> {
        match event {
            SessionEvent::LiteralStart { .. } => self.hasher = Some(ContentHasher::new()),
            SessionEvent::LiteralChunk(bytes) => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&bytes);
                    SyncProgress::add(&progress.bytes_done, bytes.len() as u64);
                }
            }
            SessionEvent::Untagged(UntaggedResponse::Fetch(fetch)) => self.take_fetch(fetch, progress),
            SessionEvent::Untagged(_) => {}
            SessionEvent::Done(tag, line) => {
                let at = self.asked.iter().position(|(asked, _)| *asked == tag);
                if let Some((_, uids)) = at.and_then(|at| self.asked.remove(at)) {
                    return self.end_fetch(&uids, &line, session);
                }
            }
        }
        Ok(())
    }

    fn end_fetch(&mut self, uids: &UidSet<U>, line: &StatusLine, session: &Session) -> Result<()> {
        let missing = self.pending(uids);
        if line.status == StatusCondition::Ok {
            self.unanswered = self.unanswered.union(&missing);
            if self.is_suspected(uids) {
                self.reading.failures.record_success(usize::try_from(uids.len()).unwrap_or(usize::MAX));
                self.plan();
            }
            return Ok(());
        }
        let error = session.refusal_error(line, CommandKind::Other, "to read messages");
        if error.class == ErrorClass::Throttled || error.stated_wait.is_some() {
            return Err(error);
        }
        self.record_failure(uids, false);
        if error.class == ErrorClass::Network {
            // The server may be unwell as a whole: it is asked anew as slowly as after a lost connection.
            return Err(error);
        }
        self.plan();
        Ok(())
    }

    /// Divides anew what is left to be asked for.
    fn plan(&mut self) {
        let asked = self.asked.iter().fold(self.unanswered.clone(), |all, (_, uids)| all.union(uids));
        self.queue = plan_fetches(self.reading, self.most, &asked);
    }

    fn is_suspected(&self, uids: &UidSet<U>) -> bool {
        uids.first().is_some_and(|uid| self.reading.suspects.contains(uid))
    }

    fn take_fetch(&mut self, fetch: FetchResponse, progress: &SyncProgress) {
        let streamed = self.hasher.take();
        let body = fetch.sections.into_iter().find(|(name, _)| name.is_empty()).and_then(|(_, body)| body);
        let (Some(uid), Some(body)) = (fetch.uid.map(U::from_number), body) else { return };
        // A body that nobody asked for answers nothing: a confused server may send any.
        if self.reading.state(uid) != Some(ReadState::Pending) || !self.asked.iter().any(|(_, uids)| uids.contains(uid))
        {
            return;
        }
        let listed = self.reading.entry(uid).map_or(0, |entry| u64::from(entry.size));
        if streamed.is_none() && find_stand_in(listed, &body) == Some(StandIn::KnownNotice) {
            self.reading.mark_settled(uid, ReadState::Unreadable);
            return;
        }
        let hasher = streamed.unwrap_or_else(|| {
            let mut hasher = ContentHasher::new();
            hasher.update(&body);
            SyncProgress::add(&progress.bytes_done, body.len() as u64);
            hasher
        });
        let digest = hasher.finish().into();
        if let Some(entry) = self.reading.entry(uid) {
            entry.item.digest = digest;
            entry.state = ReadState::Hashed;
        }
        SyncProgress::add(&progress.messages_done, 1);
    }

    /// The connection ended: the FETCH that was due is to blame, or one of its messages.
    fn record_lost_connection(&mut self) {
        let Some((_, uids)) = self.asked.front() else { return };
        let uids = uids.clone();
        self.record_failure(&uids, self.hasher.is_some());
    }

    /// A FETCH of `uids` failed; `began` says that a body began to come.
    fn record_failure(&mut self, uids: &UidSet<U>, began: bool) {
        let missing = self.pending(uids);
        let Some(first) = missing.first() else { return };
        let some_came = began || missing.len() < uids.len();
        let is_new = !self.is_suspected(&missing);
        let reading = &mut *self.reading;
        reading.failures.record_failure(&missing, some_came);
        if is_new {
            reading.suspects = missing;
        }
        if reading.failures.is_unreadable(first) {
            reading.mark_settled(first, ReadState::Unreadable);
        }
    }

    fn pending(&self, uids: &UidSet<U>) -> UidSet<U> {
        uids.iter().filter(|uid| self.reading.state(*uid) == Some(ReadState::Pending)).collect()
    }
}

/// What is still to be read and not `asked` for, in pieces that are bounded in bytes and messages. What is large or failed
/// before goes alone; what is suspected goes in pieces that grow smaller with each failure.
fn plan_fetches<U: Uid>(reading: &SideReading<U>, most: usize, asked: &UidSet<U>) -> VecDeque<UidSet<U>> {
    let mut units: VecDeque<UidSet<U>> = VecDeque::new();
    let (mut bytes, mut open, mut suspected_before) = (0, false, false);
    let pending = reading.entries.iter().filter(|entry| entry.state == ReadState::Pending);
    for entry in pending.filter(|entry| !asked.contains(entry.item.uid)) {
        let (uid, size) = (entry.item.uid, u64::from(entry.size));
        let suspected = reading.suspects.contains(uid);
        let most = if suspected { most.min(reading.failures.max_batch()) } else { most };
        let alone = size > STREAM_ABOVE || reading.failures.must_go_alone(uid);
        let joins = open && !alone && suspected == suspected_before && bytes + size <= FETCH_BYTES;
        match units.back_mut() {
            Some(unit) if joins && unit.len() < most as u64 => {
                unit.insert(uid);
                bytes += size;
            }
            _ => {
                units.push_back(std::iter::once(uid).collect());
                bytes = size;
            }
        }
        (open, suspected_before) = (!alone, suspected);
    }
    units
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::sync::{spec::MessageFilter, verify::side_reading::tests::reading as folder};

    fn reading(sizes: &[u64]) -> SideReading<u32> {
        folder(sizes, &MessageFilter::default())
    }

    fn planned(reading: &SideReading<u32>) -> Vec<String> {
        plan_fetches(reading, FETCH_MESSAGES, &UidSet::new()).iter().map(ToString::to_string).collect()
    }

    fn fail_on(reading: &mut SideReading<u32>, uids: &str) {
        ReadPass::new(reading, FETCH_MESSAGES).record_failure(&UidSet::parse(uids).unwrap(), false);
    }

    #[test]
    fn what_is_large_is_asked_for_alone_and_the_rest_in_bounded_pieces() {
        assert_eq!(planned(&reading(&[10, 10, STREAM_ABOVE + 1, 10, 10])), ["1:2", "3", "4:5"]);
        assert_eq!(planned(&reading(&[FETCH_BYTES / 2, FETCH_BYTES / 2, 1])), ["1:2", "3"]);
        assert_eq!(planned(&reading(&vec![0; FETCH_MESSAGES + 1])).len(), 2);
        let few = plan_fetches(&reading(&[0; 5]), 2, &[3].into_iter().collect());
        assert_eq!(few.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1:2", "4:5"]);
    }

    #[test]
    fn a_failure_is_narrowed_down_among_its_own_messages_only() {
        let mut reading = reading(&[0; 300]);
        fail_on(&mut reading, "1:8");
        assert_eq!(planned(&reading), ["1:4", "5:8", "9:258", "259:300"]);
        fail_on(&mut reading, "1:4");
        assert_eq!(planned(&reading), ["1:2", "3:4", "5:6", "7:8", "9:258", "259:300"]);
        fail_on(&mut reading, "1:2");
        fail_on(&mut reading, "1");
        fail_on(&mut reading, "1");
        assert!(reading.unreadable().next().is_none());
        fail_on(&mut reading, "1");
        assert_eq!(reading.unreadable().collect::<Vec<_>>(), [1]);
        assert_eq!(planned(&reading)[..2], ["2", "3"]);
        assert_eq!(planned(&reading)[7..], ["9:258", "259:300"]);
    }

    #[test]
    fn where_others_came_the_first_that_is_missing_is_suspected() {
        let mut reading = reading(&[0; 8]);
        reading.mark_settled(1, ReadState::Hashed);
        reading.mark_settled(2, ReadState::Hashed);
        fail_on(&mut reading, "1:8");
        assert_eq!(reading.failures.failures(3), 1);
        assert_eq!(planned(&reading)[..2], ["3", "4"]);
    }

    #[test]
    fn a_body_that_was_not_asked_for_is_no_answer() {
        let mut reading = reading(&[1, 1]);
        let body = |uid| FetchResponse {
            uid: Some(uid),
            sections: vec![(String::new(), Some(Bytes::from_static(b"x")))],
            ..FetchResponse::default()
        };
        let mut pass = ReadPass::new(&mut reading, FETCH_MESSAGES);
        let progress = SyncProgress::default();
        pass.take_fetch(body(1), &progress);
        assert_eq!(pass.pending(&[1, 2].into_iter().collect()).to_string(), "1:2");
    }

    proptest! {
        /// A server that ends the connection, and sends nothing of a FETCH that holds a bad message.
        #[test]
        fn all_bad_messages_are_found_and_no_others(
            count in 1..600_u32, bad in proptest::collection::btree_set(1..600_u32, 0..12),
        ) {
            let mut reading = reading(&vec![0; count as usize]);
            let mut failures = 0;
            while let Some(unit) = plan_fetches(&reading, FETCH_MESSAGES, &UidSet::new()).pop_front() {
                if unit.iter().any(|uid| bad.contains(&uid)) {
                    ReadPass::new(&mut reading, FETCH_MESSAGES).record_failure(&unit, false);
                    failures += 1;
                    prop_assert!(failures < 300, "no end");
                } else {
                    unit.iter().for_each(|uid| reading.mark_settled(uid, ReadState::Hashed));
                    if unit.first().is_some_and(|uid| reading.suspects.contains(uid)) {
                        reading.failures.record_success(usize::try_from(unit.len()).unwrap());
                    }
                }
            }
            let unreadable: BTreeSet<u32> = reading.unreadable().collect();
            prop_assert_eq!(unreadable, bad.into_iter().filter(|uid| *uid <= count).collect::<BTreeSet<_>>());
        }
    }
}
