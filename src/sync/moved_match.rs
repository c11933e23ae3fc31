//! Which messages of the destination's other folders are copies that its user moved there. Much stricter than within a
//! folder: another folder may hold mail that was never copied.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use super::{
    content_hash::ContentHash,
    identity::{IdentityFacts, MessageId},
    uid_map::UidMap,
};

/// Of messages that look alike, so many are looked at beyond those that are looked for.
const SPARE_HITS: usize = 16;

/// Copies of a source folder's messages in another folder of the destination than its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MovedCopies {
    /// The raw name of that folder.
    pub folder: Vec<u8>,
    /// Its UIDVALIDITY.
    pub uid_validity: u32,
    /// Where each message is: source UIDs to UIDs of that folder.
    pub map: UidMap,
}

/// What a message and its copy in another folder must have in common before their bodies are read: the Message-ID, or that
/// there is none, INTERNALDATE as an instant, and RFC822.SIZE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MovedKey {
    message_id: Option<MessageId>,
    epoch: i64,
    size: u64,
}

impl MovedKey {
    /// The key of a message; none where its server does not tell date or size.
    #[must_use]
    pub(crate) fn of<U>(facts: &IdentityFacts<U>) -> Option<Self> {
        Some(Self { message_id: facts.message_id, epoch: facts.epoch?, size: facts.size? })
    }

    /// RFC822.SIZE, bytes.
    #[must_use]
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }
}

/// A message, where it is (`P`), and what it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlacedMessage<P> {
    /// Its folder and UID.
    pub place: P,
    /// What is known without its body.
    pub key: MovedKey,
}

/// The messages that are looked for, and what looks like them. Only that is remembered of other folders.
#[derive(Debug)]
pub(crate) struct MovedCandidates<S, D> {
    wanted: Vec<PlacedMessage<S>>,
    found: Vec<PlacedMessage<D>>,
    /// By key, how many more are looked at.
    room: HashMap<MovedKey, usize>,
}

impl<S: Copy + Ord, D: Copy + Ord> MovedCandidates<S, D> {
    /// Looks for these.
    #[must_use]
    pub(crate) fn new(wanted: Vec<PlacedMessage<S>>) -> Self {
        let mut room: HashMap<MovedKey, usize> = HashMap::new();
        for message in &wanted {
            *room.entry(message.key).or_insert(SPARE_HITS) += 1;
        }
        Self { wanted, found: Vec::new(), room }
    }

    /// Looks at a message of another folder.
    pub(crate) fn add(&mut self, message: PlacedMessage<D>) {
        if let Some(room) = self.room.get_mut(&message.key).filter(|room| **room > 0) {
            *room -= 1;
            self.found.push(message);
        }
    }

    /// Forgets what was found in places that `is_forgotten` names: they are looked at again.
    pub(crate) fn forget(&mut self, is_forgotten: impl Fn(D) -> bool) {
        let Self { found, room, .. } = self;
        found.retain(|message| {
            let forgets = is_forgotten(message.place);
            if forgets && let Some(room) = room.get_mut(&message.key) {
                *room += 1;
            }
            !forgets
        });
    }

    /// What looks like a message that is looked for.
    #[must_use]
    pub(crate) fn found(&self) -> &[PlacedMessage<D>] {
        &self.found
    }

    /// The messages for which something was found that looks like them.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &PlacedMessage<S>> {
        let keys: HashSet<MovedKey> = self.found.iter().map(|message| message.key).collect();
        self.wanted.iter().filter(move |message| keys.contains(&message.key))
    }
}

/// A message whose body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadMessage<P> {
    /// Its folder and UID.
    pub place: P,
    /// What is known without its body.
    pub key: MovedKey,
    /// What its bytes hash to.
    pub hash: ContentHash,
}

/// Pairs messages with their copies, over all folders at once: keys must agree and content must be equal, exactly or in
/// canonical form, and `is_other` must say that the two folders are not each other's. Each message of either side is used
/// once; of several equal ones the lowest places go together.
#[must_use]
pub(crate) fn match_moved<S: Copy + Ord, D: Copy + Ord>(
    wanted: &[ReadMessage<S>],
    found: &[ReadMessage<D>],
    is_other: impl Fn(S, D) -> bool,
) -> Vec<(S, D)> {
    let (mut taken, mut given) = (BTreeSet::new(), BTreeSet::new());
    let mut pairs = Vec::new();
    for form in [|hash: &ContentHash| hash.exact, |hash: &ContentHash| hash.canonical] {
        for (source, copy) in pair_equal(wanted, found, form, (&given, &taken), &is_other) {
            given.insert(source);
            taken.insert(copy);
            pairs.push((source, copy));
        }
    }
    pairs.sort_unstable();
    pairs
}

fn pair_equal<S: Copy + Ord, D: Copy + Ord>(
    wanted: &[ReadMessage<S>],
    found: &[ReadMessage<D>],
    form: fn(&ContentHash) -> [u8; 32],
    (given, taken): (&BTreeSet<S>, &BTreeSet<D>),
    is_other: impl Fn(S, D) -> bool,
) -> Vec<(S, D)> {
    let mut free: HashMap<(MovedKey, [u8; 32]), VecDeque<D>> = HashMap::new();
    for copy in by_place(found).filter(|copy| is_delivered(copy) && !taken.contains(&copy.place)) {
        free.entry((copy.key, form(&copy.hash))).or_default().push_back(copy.place);
    }
    by_place(wanted)
        .filter(|message| is_delivered(message) && !given.contains(&message.place))
        .filter_map(|message| {
            let free = free.get_mut(&(message.key, form(&message.hash)))?;
            let at = free.iter().position(|copy| is_other(message.place, *copy))?;
            Some((message.place, free.remove(at)?))
        })
        .collect()
}

fn by_place<P: Copy + Ord>(messages: &[ReadMessage<P>]) -> impl Iterator<Item = &ReadMessage<P>> {
    let mut sorted: Vec<_> = messages.iter().collect();
    sorted.sort_by_key(|message| message.place);
    sorted.into_iter()
}

/// False where a server lists bytes and delivers none: what they were nobody can tell.
fn is_delivered<P>(message: &ReadMessage<P>) -> bool {
    message.hash.bytes > 0 || message.key.size == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::content_hash::ContentHasher;

    fn hash(bytes: &[u8]) -> ContentHash {
        let mut hasher = ContentHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    fn key(id: Option<&str>, epoch: i64, size: u64) -> MovedKey {
        MovedKey { message_id: id.map(|id| MessageId::from_value(id.as_bytes())), epoch, size }
    }

    fn pairs<S: Copy + Ord, D: Copy + Ord>(wanted: &[ReadMessage<S>], found: &[ReadMessage<D>]) -> Vec<(S, D)> {
        match_moved(wanted, found, |_, _| true)
    }

    fn read<P>(place: P, key: MovedKey, body: &[u8]) -> ReadMessage<P> {
        ReadMessage { place, key, hash: hash(body) }
    }

    #[test]
    fn equal_keys_with_other_content_are_no_copy() {
        let same = key(Some("a"), 5, 10);
        let wanted = [read(1, same, b"A: b\r\n\r\none")];
        assert_eq!(pairs(&wanted, &[read(11, same, b"A: b\r\n\r\ntwo")]), []);
        assert_eq!(pairs(&wanted, &[read(11, same, b"A: b\n\none\n")]), [(1, 11)], "in canonical form");
    }

    #[test]
    fn equal_content_with_another_key_is_no_copy() {
        let wanted = [read(1, key(None, 5, 10), b"x")];
        for other in [key(Some("a"), 5, 10), key(None, 6, 10), key(None, 5, 11)] {
            assert_eq!(pairs(&wanted, &[read(11, other, b"x")]), []);
        }
    }

    #[test]
    fn of_twins_each_takes_one_copy_whatever_folder_it_is_in() {
        let same = key(Some("a"), 5, 1);
        let wanted = [read(("INBOX", 2), same, b"x"), read(("INBOX", 1), same, b"x"), read(("Sent", 1), same, b"x")];
        let found = [read(("Trash", 7), same, b"x"), read(("Archive", 9), same, b"x")];
        let pairs = super::tests::pairs(&wanted, &found);
        assert_eq!(pairs, [(("INBOX", 1), ("Archive", 9)), (("INBOX", 2), ("Trash", 7))]);
    }

    #[test]
    fn a_folders_own_copies_are_not_looked_at_again() {
        let same = key(Some("a"), 5, 1);
        let found = [read(("A", 7), same, b"x"), read(("B", 9), same, b"x")];
        let other = |source: (&str, i32), copy: (&str, i32)| source.0 != copy.0;
        assert_eq!(match_moved(&[read(("A", 1), same, b"x")], &found, other), [(("A", 1), ("B", 9))]);
    }

    #[test]
    fn what_is_listed_and_not_delivered_is_no_copy() {
        let same = key(None, 5, 10);
        assert_eq!(pairs(&[read(1, same, b"")], &[read(11, same, b"")]), []);
    }

    #[test]
    fn of_many_that_look_alike_only_some_are_remembered() {
        let (same, other) = (key(None, 5, 10), key(None, 5, 11));
        let mut candidates = MovedCandidates::new(vec![PlacedMessage { place: 1, key: same }]);
        for place in 0..100 {
            candidates.add(PlacedMessage { place, key: same });
            candidates.add(PlacedMessage { place, key: other });
        }
        assert_eq!(candidates.found().len(), 1 + SPARE_HITS);
        candidates.forget(|place| place < 10);
        assert_eq!(candidates.found().len(), SPARE_HITS - 9);
        candidates.add(PlacedMessage { place: 200, key: same });
        assert_eq!(candidates.found().len(), SPARE_HITS - 8);
    }

    fn some_messages() -> impl Strategy<Value = Vec<(Option<u8>, i64, u8)>> {
        proptest::collection::vec((proptest::option::of(0..2_u8), 0..2_i64, 0..4_u8), 0..25)
    }

    fn placed(all: &[(Option<u8>, i64, u8)]) -> Vec<ReadMessage<usize>> {
        const BODIES: [&[u8]; 4] = [b"A: b\r\n\r\none", b"A: b\n\none\n", b"A: b\r\n\r\ntwo", b"A: b\n\ntwo\n"];
        let message = |(place, (id, epoch, kind)): (usize, &(Option<u8>, i64, u8))| {
            read(place, key(id.map(|id| id.to_string()).as_deref(), *epoch, 10), BODIES[usize::from(*kind)])
        };
        all.iter().enumerate().map(message).collect()
    }

    proptest! {
        #[test]
        fn each_message_is_used_once_and_only_for_one_that_is_equal(wanted in some_messages(), found in some_messages()) {
            let (wanted, found) = (placed(&wanted), placed(&found));
            let pairs = super::tests::pairs(&wanted, &found);
            prop_assert_eq!(pairs.iter().map(|p| p.0).collect::<HashSet<_>>().len(), pairs.len());
            prop_assert_eq!(pairs.iter().map(|p| p.1).collect::<HashSet<_>>().len(), pairs.len());
            for (source, copy) in &pairs {
                let (source, copy) = (wanted[*source], found[*copy]);
                prop_assert_eq!(source.key, copy.key);
                prop_assert_eq!(source.hash.canonical, copy.hash.canonical);
            }
            // As many as there can be.
            let count = |all: &[ReadMessage<usize>]| {
                let mut counts: HashMap<(MovedKey, [u8; 32]), usize> = HashMap::new();
                for message in all {
                    *counts.entry((message.key, message.hash.canonical)).or_default() += 1;
                }
                counts
            };
            let there = count(&found);
            let possible: usize = count(&wanted).iter().map(|(k, n)| (*n).min(there.get(k).copied().unwrap_or(0))).sum();
            prop_assert_eq!(pairs.len(), possible);
        }
    }
}
