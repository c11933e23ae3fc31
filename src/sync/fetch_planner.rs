//! Divides the messages to read into `FETCHes`, bounded in bytes and messages. Pure: the one rule of what is asked for at
//! once, for copying, for hashing and for `verify`.

use std::collections::VecDeque;

use super::{failure_bisect::FailureBisector, limits::FETCH_BYTES};
use crate::imap::{STREAM_ABOVE, Uid, UidSet};

/// Goes through the messages in UID order. A message that is large, or that the server failed on before, is asked for
/// alone; where it failed on nobody knows which, fewer are asked for at once.
#[derive(Debug)]
pub(super) struct FetchPlanner<'a, U> {
    failures: &'a FailureBisector<U>,
    /// One FETCH asks for at most this many messages.
    at_once: usize,
    /// The FETCH that further messages may join.
    open: Option<OpenFetch>,
}

#[derive(Debug, Clone, Copy)]
struct OpenFetch {
    messages: usize,
    bytes: u64,
    bounded: bool,
}

/// Where one message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedMessage {
    /// Into the same FETCH as the message before; else it begins another.
    pub joins: bool,
    /// Bytes that it counts for.
    pub bytes: u64,
}

impl<'a, U: Uid> FetchPlanner<'a, U> {
    /// Plans by what is known of the server's failures.
    pub(super) const fn new(failures: &'a FailureBisector<U>, at_once: usize) -> Self {
        Self { failures, at_once, open: None }
    }

    /// Decides where the next message goes, which is listed with `size` bytes.
    pub(super) fn place(&mut self, uid: U, size: u64) -> PlannedMessage {
        let bytes = if self.failures.is_large(uid) { size.max(STREAM_ABOVE + 1) } else { size };
        let bounded = self.failures.is_bounded(uid);
        let most = if bounded { self.at_once.min(self.failures.max_batch()) } else { self.at_once };
        let alone = bytes > STREAM_ABOVE || self.failures.must_go_alone(uid);
        let has_room = |open: &OpenFetch| {
            !alone && open.bounded == bounded && open.messages < most && open.bytes + bytes <= FETCH_BYTES
        };
        let joined = self.open.filter(has_room);
        let before = joined.unwrap_or(OpenFetch { messages: 0, bytes: 0, bounded });
        self.open =
            (!alone).then_some(OpenFetch { messages: before.messages + 1, bytes: before.bytes + bytes, bounded });
        PlannedMessage { joins: joined.is_some(), bytes }
    }

    /// Leaves a message out: those behind it begin another FETCH.
    pub(super) const fn skip(&mut self) {
        self.open = None;
    }
}

/// Plans the `FETCHes` for messages in UID order, with their listed sizes.
pub(super) fn plan_fetches<U: Uid>(
    messages: impl IntoIterator<Item = (U, u64)>,
    failures: &FailureBisector<U>,
    at_once: usize,
) -> VecDeque<UidSet<U>> {
    let mut planner = FetchPlanner::new(failures, at_once);
    let mut fetches: VecDeque<UidSet<U>> = VecDeque::new();
    for (uid, size) in messages {
        let joins = planner.place(uid, size).joins;
        match fetches.back_mut().filter(|_| joins) {
            Some(fetch) => fetch.insert(uid),
            None => fetches.push_back(std::iter::once(uid).collect()),
        }
    }
    fetches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::limits::FETCH_MESSAGES;

    /// The `FETCHes` for messages of these sizes, from UID 1 on.
    fn planned(sizes: &[u64], failures: &FailureBisector<u32>, at_once: usize) -> Vec<String> {
        plan_fetches((1..).zip(sizes.iter().copied()), failures, at_once).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fetches_are_bounded_in_bytes_and_large_messages_are_asked_for_alone() {
        let (none, half) = (FailureBisector::default(), FETCH_BYTES / 5);
        let sizes = [half, half, STREAM_ABOVE + 1, half, half, half, half, half, half];
        assert_eq!(planned(&sizes, &none, FETCH_MESSAGES), ["1:2", "3", "4:8", "9"]);
        assert_eq!(planned(&[10, 10, STREAM_ABOVE + 1, 10, 10], &none, FETCH_MESSAGES), ["1:2", "3", "4:5"]);
        assert_eq!(planned(&[FETCH_BYTES / 2, FETCH_BYTES / 2, 1], &none, FETCH_MESSAGES), ["1:2", "3"]);
        let mut grown = FailureBisector::default();
        grown.mark_large(2);
        assert_eq!(planned(&[1, 1, 1], &grown, FETCH_MESSAGES), ["1", "2", "3"]);
    }

    #[test]
    fn fetches_are_bounded_in_messages() {
        let (none, sizes) = (FailureBisector::default(), [1; FETCH_MESSAGES + 1]);
        assert_eq!(planned(&sizes, &none, FETCH_MESSAGES), ["1:250", "251"]);
        // A server that touches fewer messages at once (RFC 9738).
        assert_eq!(planned(&sizes, &none, 200), ["1:200", "201:251"]);
    }

    #[test]
    fn a_message_that_failed_before_is_asked_for_alone() {
        let mut failures = FailureBisector::default();
        failures.record_failure_on(2);
        failures.record_success(1);
        assert_eq!(planned(&[1; 4], &failures, FETCH_MESSAGES), ["1", "2", "3:4"]);
    }

    #[test]
    fn what_is_left_out_divides() {
        let failures = FailureBisector::default();
        let mut planner = FetchPlanner::new(&failures, FETCH_MESSAGES);
        assert!(!planner.place(1, 1).joins && planner.place(2, 1).joins);
        planner.skip();
        assert!(!planner.place(4, 1).joins && planner.place(5, 1).joins);
    }

    #[test]
    fn a_failure_among_some_bounds_no_others() {
        let (mut failures, sizes) = (FailureBisector::default(), [0; 300]);
        failures.record_failure_among(&UidSet::from_ranges([(1, 8)]), false);
        assert_eq!(planned(&sizes, &failures, FETCH_MESSAGES), ["1:4", "5:8", "9:258", "259:300"]);
        failures.record_failure_among(&UidSet::from_ranges([(1, 4)]), false);
        assert_eq!(planned(&sizes, &failures, FETCH_MESSAGES), ["1:2", "3:4", "5:6", "7:8", "9:258", "259:300"]);
    }
}
