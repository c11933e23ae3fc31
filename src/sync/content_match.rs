//! Which destination message is the copy of which source message, by their bytes. Always as multisets: a source may truly
//! hold three equal messages, and then the destination gets three.
//!
//! What is equal comes first, then what is equal but for what servers are known to change. Each message is used at most
//! once, and a looser rule sees only what the stricter ones left.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use super::{
    content_hash::ContentHash,
    identity::{IdentityFacts, MessageId},
    uid::{DestinationUid, SourceUid},
};

/// So many copies that are not equal in canonical form show that the destination rewrites messages.
pub(crate) const REWRITTEN_COPIES: usize = 3;

/// A pair of a message and its copy.
pub(crate) type CopyPair = (SourceUid, DestinationUid);

/// A message that may be a copy, or have one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<U> {
    /// The UID in its folder.
    pub uid: U,
    /// What is known of it.
    pub known: CandidateFacts,
}

/// What is known of a message, on whichever side it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CandidateFacts {
    /// The Message-ID, where there is one.
    pub message_id: Option<MessageId>,
    /// INTERNALDATE as an instant, seconds since 1970 UTC.
    pub epoch: Option<i64>,
    /// RFC822.SIZE, bytes.
    pub size: Option<u64>,
    /// What its bytes hash to, where they were read.
    pub hash: Option<ContentHash>,
}

impl<U: Copy> Candidate<U> {
    /// A message with its facts, and its hash where it was read.
    pub(crate) fn new(facts: &IdentityFacts<U>, hash: Option<ContentHash>) -> Self {
        let IdentityFacts { uid, message_id, epoch, size } = *facts;
        Self { uid, known: CandidateFacts { message_id, epoch, size, hash } }
    }
}

impl CandidateFacts {
    /// Its hashes, where it was read and there was something.
    fn read(&self) -> Option<ContentHash> {
        self.hash.filter(|_| !self.is_gone())
    }

    fn exact(&self) -> Option<[u8; 32]> {
        Some(self.read()?.exact)
    }

    fn canonical(&self) -> Option<[u8; 32]> {
        Some(self.read()?.canonical)
    }

    fn loose(&self) -> Option<[u8; 32]> {
        self.read()?.loose
    }

    fn trace(&self) -> Option<[u8; 16]> {
        Some(self.read()?.trace)
    }

    /// How many bytes it has: of what was read those that came, since some servers count otherwise.
    fn bytes(&self) -> Option<u64> {
        self.read().map(|hash| hash.bytes).or(self.size)
    }

    /// True where a server lists bytes and delivers none: what they were nobody can tell.
    fn is_gone(&self) -> bool {
        self.hash.is_some_and(|hash| hash.bytes == 0) && self.size.is_some_and(|size| size > 0)
    }
}

/// Pairs messages of one folder with those of another whose bytes are equal, in canonical form at least. Messages with
/// different Message-IDs are never paired. Of several equal ones, those of the same date go together.
pub(crate) fn match_equal(source: &[Candidate<SourceUid>], destination: &[Candidate<DestinationUid>]) -> Vec<CopyPair> {
    let mut left = Unmatched::new(source, destination);
    left.pair_by(|known| Some((known.message_id, known.exact()?, known.epoch?)));
    left.pair_by(|known| Some((known.message_id, known.exact()?)));
    left.pair_by(|known| Some((known.message_id, known.canonical()?, known.epoch?)));
    left.pair_by(|known| Some((known.message_id, known.canonical()?)));
    left.into_pairs()
}

/// What is known of how the destination treats messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RewriteEvidence {
    /// It is of a kind that is known to rewrite messages beyond recognition.
    pub is_known: bool,
    /// So many copies were found that are not equal in canonical form.
    pub copies: usize,
    /// So many were found that are equal.
    pub equal: usize,
}

impl RewriteEvidence {
    /// True when `alike` more pairs that came the same way, and are not equal, mean that most copies are rewritten.
    const fn is_seen(self, alike: usize) -> bool {
        self.copies + alike >= REWRITTEN_COPIES && self.copies + alike > self.equal
    }
}

/// Copies that were rewritten, and how many messages looked like copies without surely being so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RewrittenMatch {
    /// The copies.
    pub pairs: Vec<CopyPair>,
    /// Messages of the destination that may be copies: which of them of which message is not certain.
    pub doubtful: u64,
}

/// Pairs what [`match_equal`] left with copies that the destination rewrote when it stored them. Message-ID (or that there
/// is none) and instant must agree, and of each kind there may be several only if these are equal:
///
/// 1. Equal in loose form.
/// 2. The destination lists as many bytes and delivers none, as often as the source holds such messages.
/// 3. Where the destination is known to rewrite messages, or seen to: what has a Message-ID that `is_unique` with its
///    instant on both sides. It is seen where several copies were found in loose form, or where most of what has one
///    Message-ID, instant and trace on both sides is not equal.
pub(crate) fn match_rewritten(
    source: &[Candidate<SourceUid>],
    destination: &[Candidate<DestinationUid>],
    evidence: RewriteEvidence,
    is_unique: impl Fn(MessageId, i64) -> bool,
) -> RewrittenMatch {
    let mut left = Unmatched::new(source, destination);
    let mut doubtful = left.pair_classes(|known| Some((known.message_id, known.loose()?, known.epoch?)), are_equal);
    let rewritten = evidence.copies + left.pairs.len();
    doubtful += left.pair_gone();
    let key = |known: &CandidateFacts| {
        let key = (known.message_id?, known.epoch?);
        is_unique(key.0, key.1).then_some(key)
    };
    let alike = left.count_classes(|known| Some((key(known)?, known.trace()?)));
    let evidence = RewriteEvidence { copies: rewritten, ..evidence };
    if evidence.is_known || rewritten >= REWRITTEN_COPIES || evidence.is_seen(alike) {
        left.pair_classes(key, |source, destination| source.len() == 1 && destination.len() == 1);
    }
    RewrittenMatch { pairs: left.into_pairs(), doubtful }
}

/// Pairs messages with those of the tail, where what is in doubt lies: equal bytes first, then those that are equal but for
/// known rewriting, then those in loose form, where all that agree in it are equal. Within each the lowest UIDs of both
/// sides are paired. `certain` are copies that the destination confirmed and whose UIDs nobody knows: they come first, by what
/// is equal only, and what may be theirs in loose form is nobody else's.
#[must_use]
pub(crate) fn match_tail(
    certain: &[(SourceUid, ContentHash)],
    candidates: &[(SourceUid, ContentHash)],
    tail: &[(DestinationUid, ContentHash)],
) -> Vec<CopyPair> {
    let mut left = Unmatched::new(&read_candidates(certain), &read_candidates(tail));
    left.pair_by(CandidateFacts::exact);
    left.pair_by(CandidateFacts::canonical);
    left.source = read_candidates(candidates);
    left.pair_by(CandidateFacts::exact);
    left.pair_by(CandidateFacts::canonical);
    let theirs: HashSet<[u8; 32]> = certain.iter().filter_map(|(_, hash)| hash.loose).collect();
    left.destination.retain(|candidate| candidate.known.loose().is_none_or(|loose| !theirs.contains(&loose)));
    left.pair_classes(CandidateFacts::loose, are_equal);
    left.into_pairs()
}

/// Messages of which only their bytes are known, by UID.
fn read_candidates<U: Copy + Ord>(hashes: &[(U, ContentHash)]) -> Vec<Candidate<U>> {
    let read = |hash: &ContentHash| CandidateFacts { hash: Some(*hash), ..CandidateFacts::default() };
    let mut candidates: Vec<_> = hashes.iter().map(|(uid, hash)| Candidate { uid: *uid, known: read(hash) }).collect();
    candidates.sort_unstable_by_key(|candidate| candidate.uid);
    candidates
}

/// True when on each side all are equal in canonical form: then it does not matter which is whose copy.
fn are_equal(source: &[CandidateFacts], destination: &[CandidateFacts]) -> bool {
    let all_equal =
        |side: &[CandidateFacts]| side.windows(2).all(|pair| matches!(pair, [a, b] if a.canonical() == b.canonical()));
    all_equal(source) && all_equal(destination)
}

/// What is left on both sides while rules are applied one by one.
struct Unmatched {
    source: Vec<Candidate<SourceUid>>,
    destination: Vec<Candidate<DestinationUid>>,
    pairs: Vec<CopyPair>,
}

/// Messages that agree in something.
struct Class<U> {
    uids: Vec<U>,
    known: Vec<CandidateFacts>,
}

impl Unmatched {
    fn new(source: &[Candidate<SourceUid>], destination: &[Candidate<DestinationUid>]) -> Self {
        let (mut source, mut destination) = (source.to_vec(), destination.to_vec());
        source.sort_unstable_by_key(|candidate| candidate.uid);
        destination.sort_unstable_by_key(|candidate| candidate.uid);
        Self { source, destination, pairs: Vec::new() }
    }

    /// Pairs those of equal keys, the lowest UIDs first.
    fn pair_by<K: Eq + Hash>(&mut self, key: impl Fn(&CandidateFacts) -> Option<K>) {
        let mut free: HashMap<K, VecDeque<DestinationUid>> = HashMap::new();
        for candidate in &self.destination {
            if let Some(key) = key(&candidate.known) {
                free.entry(key).or_default().push_back(candidate.uid);
            }
        }
        let found = self.source.iter().filter_map(|candidate| {
            let copy = free.get_mut(&key(&candidate.known)?)?.pop_front()?;
            Some((candidate.uid, copy))
        });
        let found = found.collect();
        self.take(found);
    }

    /// Pairs those of equal keys where `accepts` says so of all that have the key, on both sides. How many of the
    /// destination's it does not accept.
    fn pair_classes<K: Eq + Hash>(
        &mut self,
        key: impl Fn(&CandidateFacts) -> Option<K>,
        accepts: impl Fn(&[CandidateFacts], &[CandidateFacts]) -> bool,
    ) -> u64 {
        let source = classes(&self.source, &key);
        let mut destination = classes(&self.destination, &key);
        let (mut found, mut doubtful) = (Vec::new(), 0);
        for (key, source) in source {
            let Some(destination) = destination.remove(&key) else { continue };
            if accepts(&source.known, &destination.known) {
                found.extend(source.uids.into_iter().zip(destination.uids));
            } else {
                doubtful += destination.uids.len() as u64;
            }
        }
        self.take(found);
        doubtful
    }

    /// How many keys both sides have.
    fn count_classes<K: Eq + Hash>(&self, key: impl Fn(&CandidateFacts) -> Option<K>) -> usize {
        let source: HashSet<K> = self.source.iter().filter_map(|candidate| key(&candidate.known)).collect();
        let shared = self.destination.iter().filter_map(|candidate| key(&candidate.known));
        shared.filter(|key| source.contains(key)).count()
    }

    /// Pairs what the destination lists and does not deliver. How many it leaves.
    fn pair_gone(&mut self) -> u64 {
        // What the source does not deliver, either, was never copied.
        self.source.retain(|candidate| !candidate.known.is_gone());
        let (gone, there): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.destination).into_iter().partition(|candidate| candidate.known.is_gone());
        self.destination = gone;
        let key = |known: &CandidateFacts| Some((known.bytes()?, known.epoch?));
        let doubtful = self.pair_classes(key, |source, destination| source.len() == destination.len());
        self.destination.extend(there);
        self.destination.sort_unstable_by_key(|candidate| candidate.uid);
        doubtful
    }

    fn take(&mut self, found: Vec<CopyPair>) {
        let (source, destination): (HashSet<SourceUid>, HashSet<DestinationUid>) = found.iter().copied().unzip();
        self.source.retain(|candidate| !source.contains(&candidate.uid));
        self.destination.retain(|candidate| !destination.contains(&candidate.uid));
        self.pairs.extend(found);
    }

    fn into_pairs(mut self) -> Vec<CopyPair> {
        self.pairs.sort_unstable();
        self.pairs
    }
}

fn classes<U: Copy, K: Eq + Hash>(
    candidates: &[Candidate<U>],
    key: impl Fn(&CandidateFacts) -> Option<K>,
) -> HashMap<K, Class<U>> {
    let mut classes: HashMap<K, Class<U>> = HashMap::new();
    for candidate in candidates {
        if let Some(key) = key(&candidate.known) {
            let class = classes.entry(key).or_insert_with(|| Class { uids: Vec::new(), known: Vec::new() });
            class.uids.push(candidate.uid);
            class.known.push(candidate.known);
        }
    }
    classes
}

/// Messages with a Message-ID and an instant that no other of the same side has.
pub(crate) fn unique_identities<U>(facts: &[IdentityFacts<U>]) -> HashSet<(MessageId, i64)> {
    let mut counts: BTreeMap<(MessageId, i64), u32> = BTreeMap::new();
    for identity in facts.iter().filter_map(|facts| Some((facts.message_id?, facts.epoch?))) {
        *counts.entry(identity).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count == 1).map(|(identity, _)| identity).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{imap::Uid, sync::content_hash::ContentHasher};

    fn hash(bytes: &[u8]) -> ContentHash {
        let mut hasher = ContentHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A message that was read: with its Message-ID, its instant and its bytes.
    fn read<U: Uid>(uid: u32, id: Option<&str>, epoch: i64, body: &[u8]) -> Candidate<U> {
        let message_id = id.map(|id| MessageId::from_value(id.as_bytes()));
        let known =
            CandidateFacts { message_id, epoch: Some(epoch), size: Some(body.len() as u64), hash: Some(hash(body)) };
        Candidate { uid: U::from_number(uid), known }
    }

    /// A message that is listed and not delivered.
    fn gone<U: Uid>(uid: u32, epoch: i64, size: u64) -> Candidate<U> {
        let mut candidate = read(uid, None, epoch, b"");
        candidate.known.size = Some(size);
        candidate
    }

    fn numbers(pairs: &[CopyPair]) -> Vec<(u32, u32)> {
        pairs.iter().map(|(source, destination)| (source.0, destination.0)).collect()
    }

    fn equal(source: &[Candidate<SourceUid>], destination: &[Candidate<DestinationUid>]) -> Vec<(u32, u32)> {
        numbers(&match_equal(source, destination))
    }

    fn rewritten(
        source: &[Candidate<SourceUid>],
        destination: &[Candidate<DestinationUid>],
        is_known: bool,
    ) -> (Vec<(u32, u32)>, u64) {
        let evidence = RewriteEvidence { is_known, ..RewriteEvidence::default() };
        let found = match_rewritten(source, destination, evidence, |_, _| true);
        (numbers(&found.pairs), found.doubtful)
    }

    fn tail_pairs(sources: &[(u32, ContentHash)], tail: &[(u32, ContentHash)]) -> Vec<(u32, u32)> {
        let sources: Vec<_> = sources.iter().map(|&(uid, hash)| (SourceUid(uid), hash)).collect();
        let tail: Vec<_> = tail.iter().map(|&(uid, hash)| (DestinationUid(uid), hash)).collect();
        numbers(&match_tail(&[], &sources, &tail))
    }

    #[test]
    fn three_equal_copies_and_one_at_the_destination_are_one_match() {
        let copies: Vec<_> = [7, 5, 9].map(|uid| (uid, hash(b"A: b\r\n\r\nx"))).to_vec();
        assert_eq!(tail_pairs(&copies, &[(70, hash(b"A: b\n\nx\n"))]), [(5, 70)]);
    }

    #[test]
    fn exact_equality_goes_before_rewritten_equality() {
        let sources = [(1, hash(b"A: b\n\nx\n")), (2, hash(b"A: b\r\n\r\nx"))];
        let tail = [(11, hash(b"A: b\r\n\r\nx")), (12, hash(b"A: b\r\n\r\nx\r\n"))];
        assert_eq!(tail_pairs(&sources, &tail), [(1, 12), (2, 11)]);
    }

    #[test]
    fn in_the_tail_a_loose_copy_is_one_only_where_it_can_be_no_others() {
        let (cr, lf) = (b"A: b\r\n\r\none\rtwo\r\n", b"A: b\n\none\ntwo\n");
        assert_eq!(tail_pairs(&[(1, hash(cr))], &[(11, hash(lf))]), [(1, 11)]);
        let other = b"A: b\r\n\r\none two\r\n";
        assert_eq!(tail_pairs(&[(1, hash(cr)), (2, hash(other))], &[(11, hash(lf))]), []);
    }

    #[test]
    fn what_may_be_a_confirmed_copy_is_no_copy_of_another_message() {
        let (cr, lf) = (hash(b"A: b\r\n\r\none\rtwo\r\n"), hash(b"A: b\n\none\ntwo\n"));
        let found = |certain, tail| {
            match_tail(&[(SourceUid(1), certain)], &[(SourceUid(2), cr)], &[(DestinationUid(11), tail)])
        };
        assert_eq!(numbers(&found(cr, cr)), [(1, 11)]);
        assert_eq!(numbers(&found(cr, lf)), [], "its copy was changed, and its UID must be certain");
        assert_eq!(numbers(&found(hash(b"another"), lf)), [(2, 11)]);
    }

    #[test]
    fn equal_messages_of_the_same_date_go_together() {
        let source = [read(1, None, 5, b"x"), read(2, None, 6, b"x")];
        assert_eq!(equal(&source, &[read(11, None, 6, b"x")]), [(2, 11)]);
        assert_eq!(equal(&source, &[read(11, None, 7, b"x")]), [(1, 11)], "whatever the date");
        assert_eq!(equal(&source, &[read(11, Some("a"), 5, b"x")]), [], "another Message-ID");
    }

    #[test]
    fn a_copy_in_loose_form_needs_the_same_date_and_message_id() {
        let source = [read(1, Some("a"), 5, b"A: b\r\n\r\none\rtwo\r\n")];
        let stored = b"A: b\n\none\ntwo\n";
        assert_eq!(rewritten(&source, &[read(11, Some("a"), 5, stored)], false), (vec![(1, 11)], 0));
        assert_eq!(rewritten(&source, &[read(11, Some("a"), 6, stored)], false), (vec![], 0));
        assert_eq!(rewritten(&source, &[read(11, None, 5, stored)], false), (vec![], 0));
    }

    #[test]
    fn of_two_that_only_look_alike_none_is_taken() {
        let source = [read(1, None, 5, b"A: b\r\n\r\none two\r\n"), read(2, None, 5, b"A: b\r\n\r\none\rtwo\r\n")];
        let destination = [read(11, None, 5, b"A: b\n\none\n two\n")];
        assert_eq!(rewritten(&source, &destination, true), (vec![], 1));
        assert_eq!(rewritten(&source[..1], &destination, true), (vec![(1, 11)], 0));
    }

    #[test]
    fn what_the_destination_does_not_deliver_is_known_by_its_size_and_date() {
        let source = [read(1, None, 5, b"one"), read(2, None, 5, b"two"), read(3, None, 5, b"four")];
        assert_eq!(rewritten(&source, &[gone(11, 5, 3), gone(12, 5, 3)], false), (vec![(1, 11), (2, 12)], 0));
        assert_eq!(rewritten(&source, &[gone(11, 5, 3)], false), (vec![], 1), "one of two, and nobody knows which");
        assert_eq!(rewritten(&source, &[gone(11, 6, 4)], false), (vec![], 0), "another date");
        let mut counted_otherwise = source[2];
        counted_otherwise.known.size = Some(1);
        assert_eq!(rewritten(&[counted_otherwise], &[gone(11, 5, 4)], false), (vec![(3, 11)], 0));
        assert_eq!(rewritten(&[gone(1, 5, 39)], &[gone(11, 5, 39)], false), (vec![], 0), "nor does the source");
        let blank = [read(1, None, 5, b"\r\n")];
        assert_eq!(equal(&blank, &[gone(11, 5, 39)]), [], "it is not empty, but not delivered");
    }

    #[test]
    fn message_id_and_date_are_enough_only_where_the_destination_rewrites_messages() {
        let source: Vec<_> = (1..5).map(|n| read(n, Some(&n.to_string()), 5, b"A: b\r\n\r\none\rtwo\r\n")).collect();
        let changed = |n: u32| read(n + 10, Some(&n.to_string()), 5, b"A: b\n\none\ntwo\n");
        let delivered = b"Received: by another way\r\n\r\nquite another";
        let (one, another) = (&source[..1], [read(11, Some("1"), 5, delivered)]);
        assert_eq!(rewritten(one, &another, false), (vec![], 0));
        assert_eq!(rewritten(one, &another, true), (vec![(1, 11)], 0));
        let destination = [another[0], changed(2), changed(3), changed(4)];
        assert_eq!(rewritten(&source, &destination, false).0, [(1, 11), (2, 12), (3, 13), (4, 14)]);
        assert_eq!(rewritten(&source[..3], &destination[..3], false).0, [(2, 12), (3, 13)], "two may be chance");
        let evidence = RewriteEvidence { is_known: true, ..RewriteEvidence::default() };
        assert_eq!(match_rewritten(one, &another, evidence, |_, _| false).pairs, [], "another has both, too");
    }

    #[test]
    fn where_most_copies_differ_and_came_the_same_way_the_destination_rewrites_messages() {
        let came = |by: &str, body: &str| format!("Received: by {by}\r\n\r\n{body}\r\n");
        let source: Vec<_> = (1..5).map(|n| read(n, Some(&n.to_string()), 5, came("a", "x").as_bytes())).collect();
        let copy = |n: u32, by: &str| read(n + 10, Some(&n.to_string()), 5, came(by, "scanned: x").as_bytes());
        let scanned = [copy(1, "a"), copy(2, "a"), copy(3, "a"), copy(4, "b")];
        let found = |copies: usize, equal| {
            let evidence = RewriteEvidence { is_known: false, copies: 0, equal };
            numbers(&match_rewritten(&source, &scanned[..copies], evidence, |_, _| true).pairs)
        };
        assert_eq!(found(4, 2), [(1, 11), (2, 12), (3, 13), (4, 14)]);
        assert_eq!(found(4, 3), [], "most copies are equal: these are other messages");
        assert_eq!(found(2, 0), [], "two may be chance");
        let delivered = [1, 2, 3, 4].map(|n| copy(n, "b"));
        let evidence = RewriteEvidence::default();
        assert_eq!(match_rewritten(&source, &delivered, evidence, |_, _| true).pairs, []);
    }

    #[test]
    fn an_identity_of_two_messages_is_not_unique() {
        let facts = |uid, id: &str, epoch| IdentityFacts {
            uid: SourceUid(uid),
            message_id: Some(MessageId::from_value(id.as_bytes())),
            epoch: Some(epoch),
            size: None,
        };
        let unique = unique_identities(&[facts(1, "a", 5), facts(2, "a", 5), facts(3, "a", 6), facts(4, "b", 5)]);
        let id = |id: &str| MessageId::from_value(id.as_bytes());
        assert_eq!(unique, HashSet::from([(id("a"), 6), (id("b"), 5)]));
    }

    /// Bodies of which many are equal in one form or another.
    fn body(kind: u8) -> &'static [u8] {
        const BODIES: [&[u8]; 7] = [
            b"A: b\r\n\r\none two",
            b"A: b\n\none two\n",
            b"A: b\n\none\ntwo\n",
            b"A: b\r\n\r\none\rtwo",
            b"A: b\r\n\r\nthree",
            b"A: b\n\nthree\n",
            b"\r\n",
        ];
        BODIES[kind as usize % BODIES.len()]
    }

    fn some_candidates<U: Uid>() -> impl Strategy<Value = Vec<Candidate<U>>> {
        let one = (0..7_u8, proptest::option::of(0..3_u8), 0..3_i64);
        proptest::collection::vec(one, 0..30).prop_map(|all| {
            let message = |(uid, (kind, id, epoch)): (u32, (u8, Option<u8>, i64))| {
                read(uid, id.map(|id| id.to_string()).as_deref(), epoch, body(kind))
            };
            (1..).zip(all).map(message).collect()
        })
    }

    /// How many pairs of equal keys there can be.
    fn possible<K: Eq + Hash>(
        source: &[Candidate<SourceUid>],
        destination: &[Candidate<DestinationUid>],
        key: impl Fn(&CandidateFacts) -> Option<K>,
    ) -> usize {
        let destination = classes(destination, &key);
        let common =
            |(key, class): (K, Class<SourceUid>)| Some(class.uids.len().min(destination.get(&key)?.uids.len()));
        classes(source, &key).into_iter().filter_map(common).sum()
    }

    proptest! {
        #[test]
        fn a_tail_matches_as_a_multiset(
            source in proptest::collection::vec((0..4_u8, any::<bool>()), 0..20),
            tail in proptest::collection::vec((0..4_u8, any::<bool>()), 0..20),
        ) {
            let message = |(kind, rewritten): &(u8, bool)| hash(&[b"A: b\n\n".as_slice(), &[b'a' + kind], if *rewritten { b"\n".as_slice() } else { b"" }].concat());
            let candidates: Vec<_> = (1..).zip(source.iter().map(message)).collect();
            let there: Vec<_> = (100..).zip(tail.iter().map(message)).collect();
            let pairs = tail_pairs(&candidates, &there);
            prop_assert_eq!(pairs.iter().map(|p| p.0).collect::<HashSet<_>>().len(), pairs.len());
            prop_assert_eq!(pairs.iter().map(|p| p.1).collect::<HashSet<_>>().len(), pairs.len());
            for kind in 0..4 {
                let count = |all: &[(u8, bool)]| all.iter().filter(|(k, _)| *k == kind).count();
                let matched = pairs.iter().filter(|(s, _)| source[*s as usize - 1].0 == kind).count();
                prop_assert_eq!(matched, count(&source).min(count(&tail)));
            }
            for (s, d) in pairs {
                prop_assert_eq!(source[s as usize - 1].0, tail[d as usize - 100].0);
            }
        }

        #[test]
        fn equal_messages_are_never_lost_to_those_that_only_look_alike(
            source in some_candidates(),
            destination in some_candidates(),
        ) {
            let pairs = match_equal(&source, &destination);
            let of = |pair: &CopyPair| (source[pair.0.0 as usize - 1].known, destination[pair.1.0 as usize - 1].known);
            prop_assert_eq!(pairs.iter().map(|p| p.0).collect::<HashSet<_>>().len(), pairs.len());
            prop_assert_eq!(pairs.iter().map(|p| p.1).collect::<HashSet<_>>().len(), pairs.len());
            prop_assert!(pairs.iter().map(of).all(|(s, d)| s.message_id == d.message_id && s.canonical() == d.canonical()));
            let exact = pairs.iter().map(of).filter(|(s, d)| s.exact() == d.exact()).count();
            prop_assert_eq!(exact, possible(&source, &destination, |k| Some((k.message_id, k.exact()?))));
            prop_assert_eq!(pairs.len(), possible(&source, &destination, |k| Some((k.message_id, k.canonical()?))));
        }

        #[test]
        fn a_folder_and_its_copy_match_completely(source in some_candidates::<SourceUid>()) {
            let copy: Vec<_> = source.iter().rev().zip(100..).map(|(c, uid)| Candidate { uid: DestinationUid(uid), known: c.known }).collect();
            let pairs = match_equal(&source, &copy);
            prop_assert_eq!(pairs.len(), source.len());
            for (s, d) in pairs {
                prop_assert_eq!(source[s.0 as usize - 1].known, copy[d.0 as usize - 100].known);
            }
        }

        #[test]
        fn two_different_messages_never_share_a_rewritten_copy(
            source in some_candidates(),
            destination in some_candidates(),
            is_known in any::<bool>(),
        ) {
            let evidence = RewriteEvidence { is_known, ..RewriteEvidence::default() };
            let (ours, theirs): (HashSet<_>, HashSet<_>) = (
                unique(&source), unique(&destination),
            );
            let is_unique = |id, epoch| ours.contains(&(id, epoch)) && theirs.contains(&(id, epoch));
            let found = match_rewritten(&source, &destination, evidence, is_unique);
            prop_assert_eq!(found.pairs.iter().map(|p| p.0).collect::<HashSet<_>>().len(), found.pairs.len());
            prop_assert_eq!(found.pairs.iter().map(|p| p.1).collect::<HashSet<_>>().len(), found.pairs.len());
            for (s, d) in &found.pairs {
                let (s, d) = (source[s.0 as usize - 1].known, destination[d.0 as usize - 1].known);
                prop_assert_eq!((s.message_id, s.epoch), (d.message_id, d.epoch));
                let rivals = source.iter().filter(|o| (o.known.message_id, o.known.epoch) == (s.message_id, s.epoch));
                let alike = s.loose() == d.loose();
                prop_assert!(rivals.clone().count() == 1 || alike);
                let rivals = rivals.filter(|o| o.known.loose() == d.loose() && alike);
                prop_assert!(rivals.into_iter().all(|o| o.known.canonical() == s.canonical()));
            }
        }
    }

    fn unique<U: Copy>(candidates: &[Candidate<U>]) -> HashSet<(MessageId, i64)> {
        let facts = |c: &Candidate<U>| IdentityFacts {
            uid: c.uid,
            message_id: c.known.message_id,
            epoch: c.known.epoch,
            size: c.known.size,
        };
        unique_identities(&candidates.iter().map(facts).collect::<Vec<_>>())
    }
}
