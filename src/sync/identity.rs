//! Which destination message is the copy of which source message, as far as Message-IDs, dates and sizes tell; their bytes
//! decide the rest (see [`super::content_match`]).

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    sync::LazyLock,
};

use super::uid::{DestinationUid, SourceUid};

/// A Message-ID, by a hash of 8 bytes that nobody outside this process can foretell, however long a sender made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(NonZeroU64);

/// The key of the hashes: so no sender makes two values equal.
static HASH_KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl MessageId {
    /// The identity of a value as [`parse_message_id`] gives it; compared byte by byte, never folded.
    #[must_use]
    pub(crate) fn from_value(value: &[u8]) -> Self {
        Self(NonZeroU64::new(HASH_KEY.hash_one(value)).unwrap_or(NonZeroU64::MIN))
    }

    /// The identity in the answer to `BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]`; none when there is no value.
    #[must_use]
    pub(crate) fn from_header(header: &[u8]) -> Option<Self> {
        parse_message_id(header).map(|value| Self::from_value(&value))
    }
}

/// The first Message-ID in a piece of header (`BODY[HEADER.FIELDS (MESSAGE-ID)]`): unfolded (RFC 5322, section 2.2.3)
/// and trimmed; none when it is missing or empty.
#[must_use]
pub(crate) fn parse_message_id(header: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"message-id";
    let mut lines = header.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).peekable();
    while let Some(line) = lines.next() {
        let Some((name, first)) = line.split_at_checked(NAME.len()) else { continue };
        let Some(first) = first.trim_ascii_start().strip_prefix(b":") else { continue };
        if !name.eq_ignore_ascii_case(NAME) {
            continue;
        }
        let mut value = first.to_vec();
        while let Some(more) = lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
            value.extend_from_slice(more);
        }
        let value = value.trim_ascii();
        return (!value.is_empty()).then(|| value.to_vec());
    }
    None
}

/// What tells messages apart without their bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityFacts<U> {
    /// The UID in its folder.
    pub uid: U,
    /// The Message-ID, where there is one.
    pub message_id: Option<MessageId>,
    /// INTERNALDATE as an instant, seconds since 1970 UTC.
    pub epoch: Option<i64>,
    /// RFC822.SIZE, bytes.
    pub size: Option<u64>,
}

/// What facts alone say about two folders. Source messages that are in neither list are to be copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FolderMatch {
    /// Pairs beyond doubt, by source UID.
    pub settled: Vec<(SourceUid, DestinationUid)>,
    /// Messages whose bodies decide. No UID is in two groups.
    pub compare: Vec<CompareGroup>,
}

/// Messages that may be copies of each other; UIDs in ascending order, both sides non-empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CompareGroup {
    /// UIDs in the source folder.
    pub source: Vec<SourceUid>,
    /// UIDs in the destination folder.
    pub destination: Vec<DestinationUid>,
}

/// Finds the copies of the source's messages in a folder that may hold some of them, and other mail too.
///
/// A pair is settled without its bodies only when Message-ID, instant and size agree and no second message on either
/// side has the same three. Messages of equal Message-ID that this leaves, and those without one that share size or
/// instant, are for their bodies to decide.
#[must_use]
pub(crate) fn match_folder(
    source: &[IdentityFacts<SourceUid>],
    destination: &[IdentityFacts<DestinationUid>],
) -> FolderMatch {
    let mut triples: HashMap<(MessageId, i64, u64), SideUids> = HashMap::new();
    for facts in both(source, destination) {
        if let Some(triple) = triple(&facts) {
            triples.entry(triple).or_default().push(facts.uid);
        }
    }
    let is_settled = |facts: &IdentityFacts<SideUid>| {
        triple(facts)
            .and_then(|triple| triples.get(&triple))
            .is_some_and(|sides| sides.source.len() == 1 && sides.destination.len() == 1)
    };

    let mut by_id: BTreeMap<MessageId, SideUids> = BTreeMap::new();
    let mut anonymous = Vec::new();
    for facts in both(source, destination).filter(|facts| !is_settled(facts)) {
        match facts.message_id {
            Some(id) => by_id.entry(id).or_default().push(facts.uid),
            None => anonymous.push(facts),
        }
    }
    let mut compare: Vec<CompareGroup> =
        by_id.into_values().chain(linked(&anonymous)).filter_map(SideUids::into_group).collect();
    compare.sort_unstable_by(|a, b| a.source.cmp(&b.source));

    let mut settled: Vec<(SourceUid, DestinationUid)> = triples
        .values()
        .filter_map(|sides| match (sides.source.as_slice(), sides.destination.as_slice()) {
            ([source], [destination]) => Some((*source, *destination)),
            _ => None,
        })
        .collect();
    settled.sort_unstable();
    FolderMatch { settled, compare }
}

/// A UID of either side.
#[derive(Clone, Copy)]
enum SideUid {
    Source(SourceUid),
    Destination(DestinationUid),
}

impl<U> IdentityFacts<U> {
    fn on(&self, uid: SideUid) -> IdentityFacts<SideUid> {
        IdentityFacts { uid, message_id: self.message_id, epoch: self.epoch, size: self.size }
    }
}

fn both(
    source: &[IdentityFacts<SourceUid>],
    destination: &[IdentityFacts<DestinationUid>],
) -> impl Iterator<Item = IdentityFacts<SideUid>> {
    let source = source.iter().map(|facts| facts.on(SideUid::Source(facts.uid)));
    source.chain(destination.iter().map(|facts| facts.on(SideUid::Destination(facts.uid))))
}

fn triple<U>(facts: &IdentityFacts<U>) -> Option<(MessageId, i64, u64)> {
    Some((facts.message_id?, facts.epoch?, facts.size?))
}

/// UIDs of both sides that have something in common.
#[derive(Debug, Default)]
struct SideUids {
    source: Vec<SourceUid>,
    destination: Vec<DestinationUid>,
}

impl SideUids {
    fn push(&mut self, uid: SideUid) {
        match uid {
            SideUid::Source(uid) => self.source.push(uid),
            SideUid::Destination(uid) => self.destination.push(uid),
        }
    }

    fn into_group(mut self) -> Option<CompareGroup> {
        self.source.sort_unstable();
        self.destination.sort_unstable();
        (!self.source.is_empty() && !self.destination.is_empty())
            .then_some(CompareGroup { source: self.source, destination: self.destination })
    }
}

/// What messages without a Message-ID can share.
#[derive(PartialEq, Eq, Hash)]
enum SharedTrait {
    Size(u64),
    Epoch(i64),
}

/// Groups messages that share size or instant with one on the other side, directly or through others, so that the
/// groups are disjoint.
fn linked(messages: &[IdentityFacts<SideUid>]) -> Vec<SideUids> {
    let mut shared: HashMap<SharedTrait, Vec<usize>> = HashMap::new();
    for (index, facts) in messages.iter().enumerate() {
        for key in facts.size.map(SharedTrait::Size).into_iter().chain(facts.epoch.map(SharedTrait::Epoch)) {
            shared.entry(key).or_default().push(index);
        }
    }
    let mut parents: Vec<usize> = (0..messages.len()).collect();
    for members in shared.values() {
        let is_source =
            |index: &usize| messages.get(*index).is_some_and(|facts| matches!(facts.uid, SideUid::Source(_)));
        if members.iter().all(is_source) || !members.iter().any(is_source) {
            continue;
        }
        for pair in members.windows(2) {
            if let [a, b] = *pair {
                let (a, b) = (root(&mut parents, a), root(&mut parents, b));
                parents[a.max(b)] = a.min(b);
            }
        }
    }
    let mut groups: BTreeMap<usize, SideUids> = BTreeMap::new();
    for (index, facts) in messages.iter().enumerate() {
        groups.entry(root(&mut parents, index)).or_default().push(facts.uid);
    }
    groups.into_values().collect()
}

/// The representative of `index` in a union-find forest; halves the path on the way.
fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::imap::Uid;

    #[test]
    fn a_message_id_is_found_folded_and_in_any_case() {
        let id = |header: &str| parse_message_id(header.as_bytes()).map(|v| String::from_utf8(v).unwrap());
        assert_eq!(id("Message-ID: <a@b>\r\n\r\n").as_deref(), Some("<a@b>"));
        assert_eq!(id("MESSAGE-id:\r\n <a@b>\r\n\r\n").as_deref(), Some("<a@b>"));
        assert_eq!(id("message-id \t: <a\r\n\t@b>  \r\n\r\n").as_deref(), Some("<a\t@b>"));
        assert_eq!(id("Message-Id: <a@b>").as_deref(), Some("<a@b>"));
        assert_eq!(id("Message-Id: <a@b>\nMessage-Id: <c@d>\n").as_deref(), Some("<a@b>"));
        assert_eq!(id("X-Message-ID: <a@b>\r\n\r\n"), None);
        assert_eq!(id("Message-ID: \r\n\r\n"), None);
        assert_eq!(id("\r\n"), None);
        assert_eq!(id(""), None);
    }

    fn facts<U: Uid>(uid: u32, id: Option<&str>, epoch: i64, size: u64) -> IdentityFacts<U> {
        IdentityFacts {
            uid: U::from_number(uid),
            message_id: id.map(|id| MessageId::from_value(id.as_bytes())),
            epoch: Some(epoch),
            size: Some(size),
        }
    }

    fn group(source: &[u32], destination: &[u32]) -> CompareGroup {
        CompareGroup {
            source: source.iter().copied().map(SourceUid).collect(),
            destination: destination.iter().copied().map(DestinationUid).collect(),
        }
    }

    #[test]
    fn only_a_unique_triple_is_settled_without_bodies() {
        let source = [facts(1, Some("a"), 5, 10), facts(2, Some("b"), 5, 10), facts(3, Some("c"), 6, 11)];
        let destination = [facts(90, Some("a"), 5, 10), facts(91, Some("b"), 5, 12), facts(92, Some("d"), 6, 11)];
        let found = match_folder(&source, &destination);
        assert_eq!(found.settled, [(SourceUid(1), DestinationUid(90))]);
        assert_eq!(found.compare, [group(&[2], &[91])]);
    }

    #[test]
    fn copies_on_one_side_are_for_the_bodies_to_decide() {
        let source = [1, 2, 3].map(|uid| facts(uid, Some("a"), 5, 10));
        let found = match_folder(&source, &[facts(90, Some("a"), 5, 10)]);
        assert_eq!(found.settled, []);
        assert_eq!(found.compare, [group(&[1, 2, 3], &[90])]);
    }

    #[test]
    fn without_message_id_equal_size_or_instant_asks_for_the_bodies() {
        let source = [facts(1, None, 5, 10), facts(2, None, 6, 20), facts(3, None, 7, 30), facts(4, Some("a"), 5, 10)];
        let destination = [facts(90, None, 5, 99), facts(91, None, 66, 20), facts(92, None, 8, 40)];
        let found = match_folder(&source, &destination);
        assert_eq!(found.settled, []);
        assert_eq!(found.compare, [group(&[1], &[90]), group(&[2], &[91])]);
    }

    fn some_facts<U: Uid>() -> impl Strategy<Value = Vec<IdentityFacts<U>>> {
        let one = (proptest::option::of(0..4_u8), proptest::option::of(0..4_i64), proptest::option::of(0..4_u64));
        proptest::collection::vec(one, 0..30).prop_map(|all| {
            (1..)
                .zip(all)
                .map(|(uid, (id, epoch, size))| IdentityFacts {
                    uid: U::from_number(uid),
                    message_id: id.map(|id| MessageId::from_value(&[id])),
                    epoch,
                    size,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn no_uid_of_a_folder_is_used_twice(source in some_facts(), destination in some_facts()) {
            let found = match_folder(&source, &destination);
            let mut sources = HashSet::new();
            let mut destinations = HashSet::new();
            for (s, d) in &found.settled {
                prop_assert!(sources.insert(*s) && destinations.insert(*d));
                prop_assert_eq!(triple(&source[s.0 as usize - 1]), triple(&destination[d.0 as usize - 1]));
            }
            for group in &found.compare {
                prop_assert!(!group.source.is_empty() && !group.destination.is_empty());
                prop_assert!(group.source.iter().all(|uid| sources.insert(*uid)));
                prop_assert!(group.destination.iter().all(|uid| destinations.insert(*uid)));
            }
        }

        #[test]
        fn what_may_be_a_copy_is_settled_or_compared(source in some_facts(), destination in some_facts()) {
            let found = match_folder(&source, &destination);
            let looked_at = |s: SourceUid, d: DestinationUid| found.compare.iter().any(|g| g.source.contains(&s) && g.destination.contains(&d));
            for s in source.iter().filter(|s| found.settled.iter().all(|pair| pair.0 != s.uid)) {
                for d in destination.iter().filter(|d| found.settled.iter().all(|pair| pair.1 != d.uid)) {
                    let alike = match (s.message_id, d.message_id) {
                        (Some(a), Some(b)) => a == b,
                        (None, None) => (s.size.is_some() && s.size == d.size) || (s.epoch.is_some() && s.epoch == d.epoch),
                        _ => false,
                    };
                    prop_assert!(!alike || looked_at(s.uid, d.uid));
                }
            }
        }
    }
}
