//! Reads messages of one opened folder over one connection, with several `FETCHes` ahead. What a server fails to deliver is
//! narrowed down to the message, from one connection to the next where it must be. What becomes of the bytes is its user's
//! affair.
//!
//! Copying has a loop of its own ([`super::copy`]): it drives both connections in one task and lets large messages stream
//! through. It shares the plan of what is asked for ([`super::fetch_planner`]) and how failures are narrowed down.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{
    failure_bisect::FailureBisector,
    fetch_planner::plan_fetches,
    limits::{FETCH_MESSAGES, FETCHES_IN_FLIGHT},
    message_limit::max_messages,
    stand_in::{StandIn, find_stand_in},
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{
        Session, SessionEvent, Tag, Uid, UidSet,
        refusal::CommandKind,
        response::{FetchResponse, StatusCondition, StatusLine, UntaggedResponse},
    },
};

/// What becomes of the messages that are read.
pub(super) trait BodySink<U> {
    /// A refusal by which the server says that it is unwell as a whole counts against the messages all the same. Such
    /// refusals end the reading.
    const COUNTS_UNWELL: bool;

    /// What was read is not asked for again on another connection: only then may more be asked for at once after it came.
    const STAYS_READ: bool;

    /// The next bytes of a message came.
    fn take_bytes(&mut self, bytes: &[u8]);

    /// The bytes since the last call of this or of [`BodySink::drop_bytes`] are all of this message.
    fn finish(&mut self, uid: U);

    /// The bytes that came are of no message that is wanted.
    fn drop_bytes(&mut self);

    /// This message is not read, for this reason.
    fn leave_out(&mut self, uid: U, why: NotRead);
}

/// Why a message was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotRead {
    /// It did not come, though its FETCH ended well: it may be gone.
    Missing,
    /// The server sent a notice of its own in its place.
    StandIn,
    /// The server failed on it again and again.
    Failed,
}

/// The command that reads messages, and does not mark them as seen.
pub(super) fn fetch_bodies(set: impl std::fmt::Display) -> String {
    format!("UID FETCH {set} (UID BODY.PEEK[])")
}

/// The message that an answer to [`fetch_bodies`] holds; none for a change of flags, and for NIL. A message that streamed
/// is empty here.
pub(super) fn into_body(fetch: FetchResponse) -> Option<Bytes> {
    fetch.sections.into_iter().find(|(name, _)| name.is_empty()).and_then(|(_, body)| body)
}

/// Reads the messages of `wanted`, which has the sizes that were listed for them (0 where none was), as far as they are not
/// given up in `failures`.
///
/// # Errors
/// When the connection ends, or the server is busy or unwell. What the sink has stays read, and `failures` knows more.
pub(super) async fn read_bodies<U: Uid>(
    session: &mut Session,
    wanted: BTreeMap<U, u64>,
    failures: &mut FailureBisector<U>,
    sink: &mut impl BodySink<U>,
) -> Result<()> {
    let mut reader = BodyReader::new(wanted, failures, sink, max_messages(session, FETCH_MESSAGES));
    while reader.request_messages(session) {
        let event = match session.next().await {
            Ok(event) => event,
            Err(error) => {
                if matches!(error.class, ErrorClass::Network | ErrorClass::Protocol) {
                    reader.record_lost_connection();
                }
                return Err(error);
            }
        };
        reader.handle_event(event, session)?;
    }
    Ok(())
}

/// One connection's way through the messages.
struct BodyReader<'a, U, S> {
    /// Listed sizes of what is still to be read.
    pending: BTreeMap<U, u64>,
    failures: &'a mut FailureBisector<U>,
    sink: &'a mut S,
    /// One FETCH asks for at most this many messages.
    at_once: usize,
    queue: VecDeque<UidSet<U>>,
    /// Sent and not answered to the end.
    asked: VecDeque<(Tag, UidSet<U>)>,
    /// A message that is too large to be held comes in pieces.
    streaming: bool,
}

impl<'a, U: Uid, S: BodySink<U>> BodyReader<'a, U, S> {
    fn new(wanted: BTreeMap<U, u64>, failures: &'a mut FailureBisector<U>, sink: &'a mut S, at_once: usize) -> Self {
        let (unreadable, pending): (BTreeMap<U, u64>, _) =
            wanted.into_iter().partition(|(uid, _)| failures.is_unreadable(*uid));
        for uid in unreadable.into_keys() {
            sink.leave_out(uid, NotRead::Failed);
        }
        let (queue, asked) = (VecDeque::new(), VecDeque::new());
        let mut reader = Self { pending, failures, sink, at_once, queue, asked, streaming: false };
        reader.plan();
        reader
    }

    /// Divides anew what is left to be asked for.
    fn plan(&mut self) {
        let asked = self.asked.iter().fold(UidSet::new(), |all, (_, uids)| all.union(uids));
        let left = self.pending.iter().map(|(uid, size)| (*uid, *size)).filter(|(uid, _)| !asked.contains(*uid));
        self.queue = plan_fetches(left, self.failures, self.at_once);
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
            let tag = session.send_command(&fetch_bodies(&uids));
            self.asked.push_back((tag, uids));
        }
        !self.asked.is_empty()
    }

    fn is_suspected(&self, uids: &UidSet<U>) -> bool {
        uids.first().is_some_and(|uid| self.failures.is_suspected(uid))
    }

    fn handle_event(&mut self, event: SessionEvent, session: &Session) -> Result<()> {
        match event {
            SessionEvent::LiteralStart { .. } => {
                self.sink.drop_bytes();
                self.streaming = true;
            }
            SessionEvent::LiteralChunk(bytes) if self.streaming => self.sink.take_bytes(&bytes),
            SessionEvent::Untagged(UntaggedResponse::Fetch(fetch)) => self.take_fetch(fetch),
            SessionEvent::LiteralChunk(_) | SessionEvent::Untagged(_) => {}
            SessionEvent::Done(tag, line) => {
                let at = self.asked.iter().position(|(asked, _)| *asked == tag);
                if let Some((_, uids)) = at.and_then(|at| self.asked.remove(at)) {
                    return self.end_fetch(&uids, &line, session);
                }
            }
        }
        Ok(())
    }

    fn take_fetch(&mut self, fetch: FetchResponse) {
        let streamed = std::mem::take(&mut self.streaming);
        let uid = fetch.uid.map(U::from_number);
        // A body that nobody asked for answers nothing: a confused server may send any.
        let asked_for = uid.filter(|uid| self.asked.iter().any(|(_, uids)| uids.contains(*uid)));
        let listed = asked_for.and_then(|uid| Some((uid, *self.pending.get(&uid)?)));
        let (Some((uid, listed)), Some(body)) = (listed, into_body(fetch)) else {
            if streamed {
                self.sink.drop_bytes();
            }
            return;
        };
        if !streamed {
            // Where sizes are only estimated, stand-ins of the other kinds may be messages.
            if find_stand_in(listed, &body) == Some(StandIn::KnownNotice) {
                return self.leave_out(uid, NotRead::StandIn);
            }
            self.sink.take_bytes(&body);
        }
        self.pending.remove(&uid);
        self.sink.finish(uid);
    }

    fn end_fetch(&mut self, uids: &UidSet<U>, line: &StatusLine, session: &Session) -> Result<()> {
        if line.status == StatusCondition::Ok {
            self.end_well(uids);
            return Ok(());
        }
        self.end_refused(uids, session.refusal_error(line, CommandKind::Other, "to read messages"))
    }

    fn end_well(&mut self, uids: &UidSet<U>) {
        for uid in self.left_of(uids).iter() {
            self.leave_out(uid, NotRead::Missing);
        }
        if S::STAYS_READ && self.is_suspected(uids) {
            self.failures.record_success(usize::try_from(uids.len()).unwrap_or(usize::MAX));
            self.plan();
        }
    }

    fn end_refused(&mut self, uids: &UidSet<U>, error: Error) -> Result<()> {
        // A server that is busy says nothing of its messages; one that is unwell as a whole is asked anew as slowly as after
        // a lost connection.
        let is_busy = error.class == ErrorClass::Throttled || error.stated_wait.is_some();
        let is_unwell = error.class == ErrorClass::Network;
        if !is_busy && (!is_unwell || S::COUNTS_UNWELL) {
            self.record_failure(uids, false);
        }
        if is_busy || is_unwell {
            return Err(error);
        }
        self.plan();
        Ok(())
    }

    /// The connection ended: the FETCH that was due is to blame, or one of its messages.
    fn record_lost_connection(&mut self) {
        if let Some((_, uids)) = self.asked.pop_front() {
            self.record_failure(&uids, self.streaming);
        }
    }

    /// A FETCH of `uids` failed; `began` says that a message began to come.
    fn record_failure(&mut self, uids: &UidSet<U>, began: bool) {
        let missing = self.left_of(uids);
        let Some(first) = missing.first() else { return };
        self.failures.record_failure_among(&missing, began || missing.len() < uids.len());
        if self.failures.is_unreadable(first) {
            self.leave_out(first, NotRead::Failed);
        }
    }

    fn leave_out(&mut self, uid: U, why: NotRead) {
        self.pending.remove(&uid);
        self.sink.leave_out(uid, why);
    }

    fn left_of(&self, uids: &UidSet<U>) -> UidSet<U> {
        uids.iter().filter(|uid| self.pending.contains_key(uid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Keeps what it is told.
    #[derive(Default)]
    struct TestSink {
        bytes: Vec<u8>,
        read: BTreeMap<u32, Vec<u8>>,
        not_read: BTreeMap<u32, NotRead>,
    }

    impl BodySink<u32> for TestSink {
        const COUNTS_UNWELL: bool = false;
        const STAYS_READ: bool = true;

        fn take_bytes(&mut self, bytes: &[u8]) {
            self.bytes.extend_from_slice(bytes);
        }

        fn finish(&mut self, uid: u32) {
            self.read.insert(uid, std::mem::take(&mut self.bytes));
        }

        fn drop_bytes(&mut self) {
            self.bytes.clear();
        }

        fn leave_out(&mut self, uid: u32, why: NotRead) {
            self.not_read.insert(uid, why);
        }
    }

    fn wanted(uids: std::ops::RangeInclusive<u32>) -> BTreeMap<u32, u64> {
        uids.map(|uid| (uid, 900)).collect()
    }

    fn body(uid: u32, text: &'static str) -> FetchResponse {
        let sections = vec![(String::new(), Some(Bytes::from_static(text.as_bytes())))];
        FetchResponse { uid: Some(uid), sections, ..FetchResponse::default() }
    }

    /// A reader that has asked for `uids` of `wanted`.
    fn reader<'a>(
        wanted: BTreeMap<u32, u64>,
        failures: &'a mut FailureBisector<u32>,
        sink: &'a mut TestSink,
        uids: &str,
    ) -> BodyReader<'a, u32, TestSink> {
        let mut reader = BodyReader::new(wanted, failures, sink, FETCH_MESSAGES);
        reader.asked.push_back((Tag::default(), UidSet::parse(uids).unwrap()));
        reader
    }

    #[test]
    fn a_body_that_was_not_asked_for_is_no_answer() {
        let (mut failures, mut sink) = (FailureBisector::default(), TestSink::default());
        let mut reader = reader(wanted(1..=3), &mut failures, &mut sink, "2");
        for uid in [1, 2, 2, 9] {
            reader.take_fetch(body(uid, "x"));
        }
        assert_eq!(reader.pending.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(sink.read, BTreeMap::from([(2, b"x".to_vec())]));
    }

    #[test]
    fn what_streams_is_its_messages_or_nobodys() {
        let (mut failures, mut sink) = (FailureBisector::default(), TestSink::default());
        let mut reader = reader(wanted(1..=2), &mut failures, &mut sink, "1:2");
        for (uid, text) in [(9, "another"), (1, "large")] {
            reader.streaming = true;
            reader.sink.take_bytes(text.as_bytes());
            reader.take_fetch(body(uid, ""));
        }
        reader.take_fetch(body(2, "small"));
        assert_eq!(sink.read, BTreeMap::from([(1, b"large".to_vec()), (2, b"small".to_vec())]));
    }

    #[test]
    fn what_does_not_come_though_its_fetch_ends_well_is_missing_and_a_notice_is_no_message() {
        let (mut failures, mut sink) = (FailureBisector::default(), TestSink::default());
        let mut reader = reader(wanted(1..=3), &mut failures, &mut sink, "1:3");
        reader.take_fetch(body(1, "From: System\r\n\r\nThis message is no longer available on the server.\r\n"));
        reader.take_fetch(body(2, "From: Anna <anna@example.org>\r\n\r\nHello\r\n"));
        reader.end_well(&UidSet::from_ranges([(1, 3)]));
        assert!(reader.pending.is_empty());
        assert_eq!(sink.not_read, BTreeMap::from([(1, NotRead::StandIn), (3, NotRead::Missing)]));
        assert_eq!(failures.steps(), 0);
    }

    #[test]
    fn a_refusal_counts_against_the_messages_unless_the_server_is_busy_or_unwell() {
        let (mut failures, mut sink) = (FailureBisector::default(), TestSink::default());
        let mut reader = reader(wanted(1..=8), &mut failures, &mut sink, "1:8");
        let all = UidSet::from_ranges([(1, 8)]);
        for class in [ErrorClass::Throttled, ErrorClass::Network] {
            assert!(reader.end_refused(&all, Error::new(class, "no")).is_err());
        }
        assert_eq!(reader.failures.steps(), 0);
        assert!(reader.end_refused(&all, Error::protocol("no")).is_ok());
        assert_eq!(reader.failures.max_batch(), 4);
    }

    #[test]
    fn where_others_came_the_first_that_is_missing_is_suspected() {
        let (mut failures, mut sink) = (FailureBisector::default(), TestSink::default());
        let mut reader = reader(wanted(1..=8), &mut failures, &mut sink, "1:8");
        reader.take_fetch(body(1, "x"));
        reader.take_fetch(body(2, "x"));
        reader.record_lost_connection();
        reader.plan();
        assert_eq!(reader.queue.iter().take(2).map(ToString::to_string).collect::<Vec<_>>(), ["3", "4"]);
        assert_eq!(failures.failures(3), 1);
    }

    #[test]
    fn what_was_given_up_before_is_not_asked_for() {
        let (mut failures, mut sink) = (FailureBisector::default(), TestSink::default());
        (0..3).for_each(|_| failures.record_failure_on(2));
        let reader = BodyReader::new(wanted(1..=3), &mut failures, &mut sink, FETCH_MESSAGES);
        assert!(!reader.queue.iter().any(|uids| uids.contains(2)));
        assert_eq!(sink.not_read, BTreeMap::from([(2, NotRead::Failed)]));
    }

    proptest! {
        /// A server that ends the connection, and sends nothing of a FETCH that holds a bad message.
        #[test]
        fn all_bad_messages_are_found_and_no_others(
            count in 1..600_u32, bad in proptest::collection::btree_set(1..600_u32, 0..12),
        ) {
            let (mut failures, mut sink) = (FailureBisector::default(), TestSink::default());
            let mut left = wanted(1..=count);
            for connections in 0.. {
                prop_assert!(connections < 300, "no end");
                let mut reader = BodyReader::new(left, &mut failures, &mut sink, FETCH_MESSAGES);
                let lost = loop {
                    let Some(uids) = reader.queue.pop_front() else { break false };
                    if uids.iter().any(|uid| bad.contains(&uid)) {
                        reader.asked.push_back((Tag::default(), uids));
                        reader.record_lost_connection();
                        break true;
                    }
                    for uid in uids.iter() {
                        reader.pending.remove(&uid);
                        reader.sink.finish(uid);
                    }
                    reader.end_well(&uids);
                };
                left = reader.pending;
                if !lost {
                    break;
                }
            }
            let found: BTreeSet<u32> = sink.not_read.keys().copied().collect();
            prop_assert_eq!(found, bad.into_iter().filter(|uid| *uid <= count).collect::<BTreeSet<_>>());
            prop_assert!(left.is_empty());
        }
    }
}
