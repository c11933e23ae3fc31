//! Which messages of a source folder are at the destination, as far as Message-ID, instant and size tell.
//!
//! The destination's messages go by one after the other, and 18 bytes are kept for each message of the source. What these
//! three do not settle is left to their bytes.

use std::ops::Range;

use super::{
    identity::{IdentityFacts, MessageId},
    uid::{DestinationUid, SourceUid},
};
use crate::imap::UidSet;

/// Of more messages of one Message-ID than this the bytes decide at once.
const MANY_EQUAL: usize = 100;

/// A message of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    id: MessageId,
    source: SourceUid,
    /// The copy's UID while it is [`EntryState::Settled`].
    copy: DestinationUid,
}

/// What is known of a message of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    /// Nothing like it was seen.
    Free,
    /// A copy was seen, and nothing that it could be taken for instead.
    Settled,
    /// Its copy was found.
    Taken,
}

/// What a message of the destination is to the source's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// No copy of any.
    Stranger,
    /// The copy of this one, unless another such message follows.
    Settled(SourceUid),
    /// Perhaps a copy: the bytes decide.
    Unclear,
}

/// Facts of a message that it shares with its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StoredFacts {
    /// INTERNALDATE as an instant, seconds since 1970 UTC.
    pub epoch: Option<i64>,
    /// RFC822.SIZE, bytes.
    pub size: Option<u64>,
}

impl StoredFacts {
    /// Those of a message.
    pub(crate) const fn of<U: Copy>(facts: &IdentityFacts<U>) -> Self {
        Self { epoch: facts.epoch, size: facts.size }
    }

    fn agree(self, other: Self) -> bool {
        self == other && self.epoch.is_some() && self.size.is_some()
    }
}

/// The messages of a source folder that may have copies, by Message-ID.
#[derive(Debug, Default)]
pub(crate) struct CopyIndex {
    /// Repetitions are thrown out once there are twice as many messages.
    room: usize,
    /// By Message-ID and UID.
    entries: Vec<Entry>,
    states: Vec<EntryState>,
    /// Whether the bytes must decide on the messages of a Message-ID, at the place of the first of them.
    unclear: Vec<bool>,
    /// Messages without a Message-ID whose copies were not found.
    pub nameless: UidSet<SourceUid>,
    /// Copies that were settled, and must be looked at again since others like them followed.
    unsettled: UidSet<DestinationUid>,
}

impl CopyIndex {
    /// An index with room for so many messages.
    pub(crate) fn with_capacity(messages: u64) -> Self {
        let room = usize::try_from(messages).unwrap_or_default();
        Self { entries: Vec::with_capacity(room), room: room.max(MANY_EQUAL), ..Self::default() }
    }

    /// Adds a message with a Message-ID. What a server tells twice counts once.
    pub(crate) fn add(&mut self, source: SourceUid, id: MessageId) {
        if self.entries.len() >= 2 * self.room {
            self.sort_by_uid();
            self.room = self.room.max(self.entries.len());
        }
        self.entries.push(Entry { id, source, copy: DestinationUid(0) });
    }

    fn sort_by_uid(&mut self) {
        self.entries.sort_unstable_by_key(|entry| (entry.source, entry.id));
        self.entries.dedup_by_key(|entry| entry.source);
    }

    /// Ends the adding. What is in `work` and was not added has no Message-ID.
    pub(crate) fn finish(&mut self, work: &UidSet<SourceUid>) {
        self.sort_by_uid();
        self.nameless = work.difference(&self.entries.iter().map(|entry| entry.source).collect());
        self.entries.sort_unstable();
        self.states = vec![EntryState::Free; self.entries.len()];
        self.unclear = vec![false; self.entries.len()];
    }

    fn range_of(&self, id: MessageId) -> Range<usize> {
        let from = self.entries.partition_point(|entry| entry.id < id);
        let length = self.entries.get(from..).unwrap_or_default().partition_point(|entry| entry.id == id);
        from..from + length
    }

    fn state(&self, at: usize) -> EntryState {
        self.states.get(at).copied().unwrap_or(EntryState::Taken)
    }

    fn set(&mut self, at: usize, state: EntryState, copy: DestinationUid) {
        if let (Some(kept), Some(entry)) = (self.states.get_mut(at), self.entries.get_mut(at)) {
            *kept = state;
            entry.copy = copy;
        }
    }

    /// Places a message of the destination that has a Message-ID. `facts` tells what the source says of its messages.
    pub(crate) fn place(
        &mut self,
        theirs: &IdentityFacts<DestinationUid>,
        facts: impl Fn(SourceUid) -> Option<StoredFacts>,
    ) -> Placement {
        let Some(id) = theirs.message_id else { return Placement::Unclear };
        let range = self.range_of(id);
        if range.is_empty() {
            return Placement::Stranger;
        }
        if self.unclear.get(range.start).copied().unwrap_or_default() {
            return Placement::Unclear;
        }
        if range.len() > MANY_EQUAL {
            self.make_unclear(range);
            return Placement::Unclear;
        }
        let shown = StoredFacts::of(theirs);
        let source = |at: usize| self.entries.get(at).map(|entry| entry.source);
        let is_same = |at: &usize| source(*at).and_then(&facts).is_some_and(|ours| ours.agree(shown));
        let is_open = |at: &usize| self.state(*at) != EntryState::Taken;
        let same: Vec<usize> = range.clone().filter(is_open).filter(is_same).take(2).collect();
        match *same.as_slice() {
            [at] if self.state(at) == EntryState::Free => {
                self.set(at, EntryState::Settled, theirs.uid);
                self.entries.get(at).map_or(Placement::Stranger, |entry| Placement::Settled(entry.source))
            }
            // A server may tell of a message twice.
            [at] if self.entries.get(at).is_some_and(|entry| entry.copy == theirs.uid) => Placement::Stranger,
            [] if range.clone().all(|at| self.state(at) != EntryState::Free) => Placement::Stranger,
            _ => {
                self.make_unclear(range);
                Placement::Unclear
            }
        }
    }

    fn make_unclear(&mut self, range: Range<usize>) {
        if let Some(unclear) = self.unclear.get_mut(range.start) {
            *unclear = true;
        }
        for at in range {
            if self.state(at) == EntryState::Settled {
                self.unsettled.extend(self.entries.get(at).map(|entry| entry.copy));
                self.set(at, EntryState::Free, DestinationUid(0));
            }
        }
    }

    /// Copies that are settled no longer, each told once.
    pub(crate) fn take_unsettled(&mut self) -> UidSet<DestinationUid> {
        std::mem::take(&mut self.unsettled)
    }

    /// How many copies are settled and not found yet.
    pub(crate) fn settled(&self) -> usize {
        self.states.iter().filter(|state| **state == EntryState::Settled).count()
    }

    /// The settled copies, which are found with that.
    pub(crate) fn take_settled(&mut self) -> impl Iterator<Item = (SourceUid, DestinationUid)> + '_ {
        let both = self.entries.iter().zip(self.states.iter_mut());
        both.filter(|(_, state)| **state == EntryState::Settled).map(|(entry, state)| {
            *state = EntryState::Taken;
            (entry.source, entry.copy)
        })
    }

    /// Remembers that a message's copy was found.
    pub(crate) fn take(&mut self, source: SourceUid, id: Option<MessageId>) {
        let Some(id) = id else { return self.nameless.remove_range(source, source) };
        let at = self.entries.partition_point(|entry| (entry.id, entry.source) < (id, source));
        if self.entries.get(at).is_some_and(|entry| (entry.id, entry.source) == (id, source)) {
            self.set(at, EntryState::Taken, DestinationUid(0));
        }
    }

    /// The Message-IDs whose messages are for their bytes to decide, in ascending order.
    pub(crate) fn unclear_ids(&self) -> Vec<MessageId> {
        let unclear = self.entries.iter().zip(&self.unclear).filter(|(_, unclear)| **unclear);
        unclear.map(|(entry, _)| entry.id).collect()
    }

    /// Messages of this Message-ID whose copies were not found.
    pub(crate) fn sources_of(&self, id: MessageId) -> impl Iterator<Item = SourceUid> + '_ {
        let open = self.range_of(id).filter(|at| self.state(*at) != EntryState::Taken);
        open.filter_map(|at| self.entries.get(at).map(|entry| entry.source))
    }

    /// All messages whose copies were not found, with their Message-IDs.
    pub(crate) fn open(&self) -> impl Iterator<Item = (SourceUid, Option<MessageId>)> + '_ {
        let named = self.entries.iter().zip(&self.states).filter(|(_, state)| **state != EntryState::Taken);
        named.map(|(entry, _)| (entry.source, Some(entry.id))).chain(self.nameless.iter().map(|uid| (uid, None)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{imap::Uid, sync::identity::match_folder};

    fn id(name: &str) -> MessageId {
        MessageId::from_value(name.as_bytes())
    }

    /// All messages of the source are of this instant and as large as their UID.
    #[expect(clippy::unnecessary_wraps, reason = "as the index asks for it")]
    fn facts(uid: SourceUid) -> Option<StoredFacts> {
        Some(StoredFacts { epoch: Some(5), size: Some(uid.0.into()) })
    }

    fn index(messages: &[(u32, &str)]) -> CopyIndex {
        let work = messages.iter().map(|(uid, _)| SourceUid(*uid)).collect();
        let mut index = CopyIndex::with_capacity(0);
        for (uid, name) in messages.iter().filter(|(_, name)| !name.is_empty()) {
            index.add(SourceUid(*uid), id(name));
        }
        index.finish(&work);
        index
    }

    fn copy(uid: u32, name: &str, size: u64) -> IdentityFacts<DestinationUid> {
        IdentityFacts { uid: DestinationUid(uid), message_id: Some(id(name)), epoch: Some(5), size: Some(size) }
    }

    fn settled(index: &mut CopyIndex) -> Vec<(u32, u32)> {
        let mut settled: Vec<_> = index.take_settled().map(|(source, copy)| (source.0, copy.0)).collect();
        settled.sort_unstable();
        settled
    }

    #[test]
    fn what_agrees_in_all_three_and_stands_alone_is_settled() {
        let mut index = index(&[(1, "a"), (2, "b"), (3, "")]);
        assert_eq!(index.place(&copy(11, "a", 1), facts), Placement::Settled(SourceUid(1)));
        assert_eq!(index.place(&copy(11, "a", 1), facts), Placement::Stranger, "told twice");
        assert_eq!(index.place(&copy(12, "other", 1), facts), Placement::Stranger);
        assert_eq!(
            index.place(&copy(13, "a", 77), facts),
            Placement::Stranger,
            "nobody is left whose copy it could be"
        );
        assert_eq!(settled(&mut index), [(1, 11)]);
        assert_eq!(index.open().map(|(uid, _)| uid.0).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_second_message_like_it_makes_a_copy_unclear_again() {
        let mut index = index(&[(1, "a"), (2, "b")]);
        assert_eq!(index.place(&copy(11, "a", 1), facts), Placement::Settled(SourceUid(1)));
        assert_eq!(index.place(&copy(12, "a", 1), facts), Placement::Unclear);
        assert_eq!(index.take_unsettled(), [DestinationUid(11)].into_iter().collect());
        assert_eq!(settled(&mut index), []);
        assert_eq!(index.unclear_ids(), [id("a")]);
        assert_eq!(index.sources_of(id("a")).collect::<Vec<_>>(), [SourceUid(1)]);
        index.take(SourceUid(1), Some(id("a")));
        assert_eq!(index.sources_of(id("a")).next(), None);
    }

    #[test]
    fn another_size_or_no_date_is_for_the_bytes_to_decide() {
        let mut index = index(&[(1, "a"), (2, "b"), (3, "c"), (3, "c")]);
        assert_eq!(index.place(&copy(11, "a", 9), facts), Placement::Unclear);
        let dateless = IdentityFacts { epoch: None, ..copy(12, "b", 2) };
        assert_eq!(index.place(&dateless, facts), Placement::Unclear);
        assert_eq!(index.place(&copy(13, "c", 3), facts), Placement::Settled(SourceUid(3)));
        assert_eq!(index.unclear_ids().len(), 2);
    }

    #[test]
    fn many_messages_of_one_message_id_are_for_their_bytes_to_decide_at_once() {
        let messages: Vec<(u32, &str)> = (1..=200).map(|uid| (uid, "a")).collect();
        let mut index = index(&messages);
        assert_eq!(index.place(&copy(1, "a", 1), facts), Placement::Unclear);
        assert_eq!(index.sources_of(id("a")).count(), 200);
    }

    fn some_facts<U: Uid>() -> impl Strategy<Value = Vec<IdentityFacts<U>>> {
        let one = (proptest::option::of("[a-d]"), proptest::option::of(0..3_i64), 0..3_u64);
        proptest::collection::vec(one, 0..20).prop_map(|all| {
            let message = |(uid, (name, epoch, size)): (u32, (Option<String>, Option<i64>, u64))| {
                let message_id = name.map(|name| id(&name));
                IdentityFacts { uid: U::from_number(uid), message_id, epoch, size: Some(size) }
            };
            (1..).zip(all).map(message).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_settled_as_it_goes_by_is_settled_with_all_in_view(
            source in some_facts::<SourceUid>(),
            destination in some_facts::<DestinationUid>(),
        ) {
            let work = source.iter().map(|facts| facts.uid).collect();
            let mut index = CopyIndex::with_capacity(0);
            for facts in &source {
                facts.message_id.into_iter().for_each(|id| index.add(facts.uid, id));
            }
            index.finish(&work);
            let facts = |uid: SourceUid| source.get(uid.0 as usize - 1).map(StoredFacts::of);
            for theirs in &destination {
                index.place(theirs, facts);
            }
            let whole = match_folder(&source, &destination);
            let settled: HashSet<_> = index.take_settled().collect();
            prop_assert!(settled.iter().all(|pair| whole.settled.contains(pair)));
            let unclear: HashSet<_> = index.unclear_ids().into_iter().flat_map(|id| index.sources_of(id).collect::<Vec<_>>()).collect();
            prop_assert!(whole.settled.iter().all(|pair| settled.contains(pair) || unclear.contains(&pair.0)));
            let named = |uid: &SourceUid| source[uid.0 as usize - 1].message_id.is_some();
            let compared = whole.compare.iter().flat_map(|group| &group.source).filter(|uid| named(uid));
            prop_assert!(compared.into_iter().all(|uid| unclear.contains(uid)));
        }
    }
}
