//! What differs between the messages of two folders, as multisets: a source may truly hold three equal messages, and
//! then the destination must hold three.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::{
    imap::{date::InternalDate, response::Flag},
    sync::{
        content_hash::ContentHash,
        uid::{DestinationUid, SourceUid},
    },
};

/// A message as it is compared; some 72 bytes, since folders hold hundreds of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComparedMessage<U> {
    /// UID in its folder.
    pub uid: U,
    /// Number of the flag set in [`FlagSetTable`].
    pub flags: u32,
    /// INTERNALDATE as an instant, seconds since 1970 UTC, where the server gave one.
    pub epoch: Option<i64>,
    /// What the bytes hash to.
    pub digest: MessageDigest,
}

/// What of a message is compared with those of the other side.
#[derive(Clone, Copy)]
struct ComparedFacts<'a> {
    flags: u32,
    epoch: Option<i64>,
    digest: &'a MessageDigest,
}

impl<U> ComparedMessage<U> {
    const fn facts(&self) -> ComparedFacts<'_> {
        ComparedFacts { flags: self.flags, epoch: self.epoch, digest: &self.digest }
    }
}

/// What a message's bytes hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageDigest {
    /// SHA-256 of the bytes as they are.
    exact: [u8; 32],
    /// The beginning of the SHA-256 after everything that servers are known to rewrite is made equal.
    canonical: [u8; 16],
}

impl From<ContentHash> for MessageDigest {
    fn from(hash: ContentHash) -> Self {
        let mut canonical = [0; 16];
        canonical.copy_from_slice(&hash.canonical[..16]);
        Self { exact: hash.exact, canonical }
    }
}

/// The sets of flags that occur in a folder, on both sides. Without \Recent, which belongs to a session; keywords in
/// lower case, since they are the same in any (RFC 9051, section 2.3.2).
#[derive(Debug, Default)]
pub(crate) struct FlagSetTable {
    sets: Vec<BTreeSet<String>>,
    numbers: HashMap<BTreeSet<String>, u32>,
}

impl FlagSetTable {
    /// The number of a set of flags.
    pub(crate) fn number(&mut self, flags: &[Flag]) -> u32 {
        self.number_of(flags.iter().filter(|flag| **flag != Flag::Recent).map(name).collect())
    }

    fn number_of(&mut self, set: BTreeSet<String>) -> u32 {
        let next = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(set).or_insert_with_key(|set| {
            self.sets.push(set.clone());
            next
        })
    }

    /// Takes in the sets of the other side, and gives their numbers here by their numbers there.
    pub(crate) fn merge(&mut self, other: &Self) -> Vec<u32> {
        other.sets.iter().map(|set| self.number_of(set.clone())).collect()
    }

    /// The flags that only the first of two sets has.
    fn only(&self, here: u32, there: u32) -> Vec<&str> {
        let set = |number: u32| self.sets.get(number as usize);
        let there = set(there);
        let here = set(here).into_iter().flatten();
        here.filter(|flag| !there.is_some_and(|set| set.contains(*flag))).map(String::as_str).collect()
    }
}

fn name(flag: &Flag) -> String {
    match flag {
        // Bytes that are no text must still tell two keywords apart.
        Flag::Keyword(raw) | Flag::Extension(raw) if std::str::from_utf8(raw).is_err() => {
            raw.to_ascii_lowercase().escape_ascii().to_string()
        }
        Flag::Keyword(_) | Flag::Extension(_) => flag.as_imap().to_ascii_lowercase(),
        system => system.as_imap().into_owned(),
    }
}

/// A message and its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ComparedPair {
    /// At the source.
    pub source: ComparedMessage<SourceUid>,
    /// At the destination.
    pub destination: ComparedMessage<DestinationUid>,
}

impl ComparedPair {
    /// The bytes differ, but only by what servers are known to rewrite.
    #[must_use]
    pub(crate) fn rewritten(&self) -> bool {
        self.source.digest.exact != self.destination.digest.exact
    }

    /// The flags differ.
    #[must_use]
    pub(crate) const fn other_flags(&self) -> bool {
        self.source.flags != self.destination.flags
    }

    /// The dates differ. Where the source tells none there is nothing that the copy's could differ from.
    #[must_use]
    pub(crate) fn other_date(&self) -> bool {
        self.source.epoch.is_some() && self.source.epoch != self.destination.epoch
    }

    /// What differs, for people; empty when nothing does.
    #[must_use]
    pub(crate) fn describe(&self, flags: &FlagSetTable) -> String {
        let mut parts = Vec::new();
        if self.rewritten() {
            parts.push("its bytes were changed by the destination (line ends, NUL or 8-bit header)".to_owned());
        }
        if self.other_flags() {
            let sides = [
                ("source", flags.only(self.source.flags, self.destination.flags)),
                ("destination", flags.only(self.destination.flags, self.source.flags)),
            ];
            let sides = sides.iter().filter(|(_, flags)| !flags.is_empty());
            let sides: Vec<String> =
                sides.map(|(side, flags)| format!("only the {side} has {}", flags.join(" "))).collect();
            parts.push(format!("other flags: {}", sides.join(", ")));
        }
        if self.other_date() {
            let date = |epoch: Option<i64>| {
                epoch.map_or_else(|| "none".to_owned(), |epoch| InternalDate { epoch, offset_minutes: 0 }.to_imap())
            };
            let (source, destination) = (date(self.source.epoch), date(self.destination.epoch));
            parts.push(format!("another date: {source} at the source, {destination} at the destination"));
        }
        parts.join("; ")
    }
}

/// Two folders, compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageComparison {
    /// Messages that are equal in everything.
    pub equal: u64,
    /// Messages whose copy differs, by source UID.
    pub changed: Vec<ComparedPair>,
    /// UIDs at the source of messages without a copy.
    pub missing: Vec<SourceUid>,
    /// UIDs at the destination of messages that are no copy of a source message, or one copy too many.
    pub extra: Vec<DestinationUid>,
    /// Of these, copies too many: the source has such a message, but not as often.
    pub doubled: Vec<DestinationUid>,
}

/// Compares two folders. Each message is paired at most once: with one that is equal in everything, or else with the
/// one that differs least; the bytes weigh most, then the flags, then the date. Of equal ones the lowest UIDs are paired.
#[must_use]
pub(crate) fn compare<'a>(
    source: impl IntoIterator<Item = &'a ComparedMessage<SourceUid>>,
    destination: impl IntoIterator<Item = &'a ComparedMessage<DestinationUid>>,
) -> MessageComparison {
    let mut left: Vec<&ComparedMessage<SourceUid>> = source.into_iter().collect();
    let all = left.clone();
    let mut right: Vec<&ComparedMessage<DestinationUid>> = destination.into_iter().collect();
    let mut found = MessageComparison::default();
    let pairs = &mut found.changed;
    pair(&mut left, &mut right, |i| (i.digest.exact, i.flags, i.epoch), &mut |_| found.equal += 1);
    let mut note = |pair: ComparedPair| pairs.push(pair);
    pair(&mut left, &mut right, |i| (i.digest.exact, i.flags), &mut note);
    pair(&mut left, &mut right, |i| (i.digest.exact, i.epoch), &mut note);
    pair(&mut left, &mut right, |i| i.digest.exact, &mut note);
    pair(&mut left, &mut right, |i| (i.digest.canonical, i.flags, i.epoch), &mut note);
    pair(&mut left, &mut right, |i| (i.digest.canonical, i.flags), &mut note);
    pair(&mut left, &mut right, |i| (i.digest.canonical, i.epoch), &mut note);
    pair(&mut left, &mut right, |i| i.digest.canonical, &mut note);
    // Without a date at the source there may be nothing that differs.
    let before = found.changed.len();
    found.changed.retain(|pair| pair.rewritten() || pair.other_flags() || pair.other_date());
    found.equal += (before - found.changed.len()) as u64;
    found.changed.sort_unstable_by_key(|pair| pair.source.uid);
    found.missing = left.iter().map(|item| item.uid).collect();
    found.extra = right.iter().map(|item| item.uid).collect();
    let unpaired: HashSet<[u8; 16]> = right.iter().map(|item| item.digest.canonical).collect();
    let at_source: HashSet<[u8; 16]> =
        all.iter().map(|item| item.digest.canonical).filter(|digest| unpaired.contains(digest)).collect();
    let doubled = right.iter().filter(|item| at_source.contains(&item.digest.canonical));
    found.doubled = doubled.map(|item| item.uid).collect();
    found.missing.sort_unstable();
    found.extra.sort_unstable();
    found.doubled.sort_unstable();
    found
}

/// Takes pairs of equal `key` out of both lists.
fn pair<K: Ord>(
    left: &mut Vec<&ComparedMessage<SourceUid>>,
    right: &mut Vec<&ComparedMessage<DestinationUid>>,
    key: impl Fn(ComparedFacts<'_>) -> K,
    found: &mut impl FnMut(ComparedPair),
) {
    if left.is_empty() || right.is_empty() {
        return;
    }
    left.sort_unstable_by(|a, b| key(a.facts()).cmp(&key(b.facts())).then(a.uid.cmp(&b.uid)));
    right.sort_unstable_by(|a, b| key(a.facts()).cmp(&key(b.facts())).then(a.uid.cmp(&b.uid)));
    let mut unpaired = Vec::new();
    let mut others = right.drain(..).peekable();
    left.retain(|item| {
        let wanted = key(item.facts());
        while let Some(other) = others.next_if(|other| key(other.facts()) < wanted) {
            unpaired.push(other);
        }
        match others.next_if(|other| key(other.facts()) == wanted) {
            Some(other) => {
                found(ComparedPair { source: **item, destination: *other });
                false
            }
            None => true,
        }
    });
    unpaired.extend(others);
    *right = unpaired;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{imap::Uid, sync::content_hash::ContentHasher};

    fn digest(bytes: &[u8]) -> MessageDigest {
        let mut hasher = ContentHasher::new();
        hasher.update(bytes);
        hasher.finish().into()
    }

    fn item<U: Uid>(uid: u32, body: &[u8], flags: u32, epoch: i64) -> ComparedMessage<U> {
        ComparedMessage { uid: U::from_number(uid), flags, epoch: Some(epoch), digest: digest(body) }
    }

    fn numbers(uids: &[impl Uid]) -> Vec<u32> {
        uids.iter().map(|uid| uid.number()).collect()
    }

    fn keyword(text: &'static str) -> Flag {
        Flag::Keyword(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn equal_messages_are_counted_as_often_as_they_are_there() {
        fn four<U: Uid>() -> [ComparedMessage<U>; 4] {
            [item(1, b"a", 0, 0), item(2, b"a", 0, 0), item(3, b"a", 0, 0), item(4, b"b", 0, 0)]
        }
        fn three<U: Uid>() -> [ComparedMessage<U>; 3] {
            [item(9, b"b", 0, 0), item(7, b"a", 0, 0), item(8, b"a", 0, 0)]
        }
        let found = compare(&four(), &three());
        assert_eq!((found.equal, numbers(&found.missing), numbers(&found.extra)), (3, vec![3], vec![]));
        let found = compare(&three(), &four());
        assert_eq!((found.equal, numbers(&found.missing), numbers(&found.extra)), (3, vec![], vec![3]));
    }

    #[test]
    fn copies_too_many_are_told_from_what_the_source_never_had() {
        let source = [item(1, b"a\r\n", 0, 0), item(2, b"b", 0, 0), item(3, b"b", 0, 0)];
        let destination = [
            item(1, b"a\r\n", 0, 0),
            item(2, b"b", 0, 0),
            item(3, b"new", 0, 0),
            item(4, b"a", 1, 5), // rewritten, with other flags and another date, and still a copy
            item(5, b"b", 0, 0),
            item(6, b"b", 0, 0),
        ];
        let found = compare(&source, &destination);
        assert_eq!((found.equal, numbers(&found.missing)), (3, vec![]));
        assert_eq!((numbers(&found.extra), numbers(&found.doubled)), (vec![3, 4, 6], vec![4, 6]));
    }

    #[test]
    fn a_message_is_paired_with_the_copy_that_differs_least() {
        let source = [item(1, b"a", 1, 100), item(2, b"a", 2, 200)];
        let destination = [item(5, b"a", 2, 201), item(6, b"a", 1, 100)];
        let found = compare(&source, &destination);
        assert_eq!((found.equal, found.missing.len(), found.extra.len()), (1, 0, 0));
        let [pair] = found.changed.as_slice() else { panic!("{found:?}") };
        assert_eq!((pair.source.uid, pair.destination.uid), (SourceUid(2), DestinationUid(5)));
        assert!(pair.other_date() && !pair.other_flags() && !pair.rewritten());
    }

    #[test]
    fn what_the_destination_is_known_to_rewrite_is_told_apart_from_what_is_missing() {
        let source =
            [item(1, b"S: x\r\n\r\na\0b\r\n", 0, 0), item(2, b"S: y\r\n\r\nc\r\r\n", 0, 0), item(3, b"d", 0, 0)];
        let destination =
            [item(1, b"S: x\r\n\r\na\x80b\r\n", 0, 0), item(2, b"S: y\r\n\r\nc\r\n", 0, 5), item(3, b"e", 0, 0)];
        let found = compare(&source, &destination);
        assert_eq!((found.equal, numbers(&found.missing), numbers(&found.extra)), (0, vec![3], vec![3]));
        assert!(found.changed.iter().all(ComparedPair::rewritten));
        assert_eq!(found.changed.iter().map(ComparedPair::other_date).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_source_without_a_date_has_none_that_could_differ() {
        let source = ComparedMessage { epoch: None, ..item(1, b"a", 0, 0) };
        assert_eq!(compare([&source], [&item(1, b"a", 0, 77)]).equal, 1);
    }

    #[test]
    fn flags_are_compared_without_recent_and_keywords_in_any_case() {
        let mut sets = FlagSetTable::default();
        let seen = sets.number(&[Flag::Seen, Flag::Recent, keyword("Project")]);
        assert_eq!(sets.number(&[keyword("project"), Flag::Seen]), seen);
        let other = sets.number(&[Flag::Flagged, keyword("project")]);
        assert_ne!(other, seen);
        let mut there = FlagSetTable::default();
        let numbers = [there.number(&[Flag::Deleted]), there.number(&[Flag::Seen, keyword("PROJECT")])];
        let merged = sets.merge(&there);
        assert_eq!(merged[numbers[1] as usize], seen);
        assert_eq!(merged[numbers[0] as usize], sets.number(&[Flag::Deleted]));
        let binary = |byte: u8| Flag::Keyword(Bytes::copy_from_slice(&[byte]));
        assert_ne!(sets.number(&[binary(0xe4)]), sets.number(&[binary(0xf6)]));
    }

    #[test]
    fn a_difference_says_which_flags_and_which_dates() {
        let mut sets = FlagSetTable::default();
        let (seen, flagged) = (sets.number(&[Flag::Seen, keyword("x")]), sets.number(&[Flag::Flagged, keyword("X")]));
        let pair = ComparedPair { source: item(1, b"a", seen, 0), destination: item(2, b"a", flagged, 3600) };
        insta::assert_snapshot!(pair.describe(&sets), @r"other flags: only the source has \Seen, only the destination has \Flagged; another date: 01-Jan-1970 00:00:00 +0000 at the source, 01-Jan-1970 01:00:00 +0000 at the destination");
        let pair = ComparedPair { destination: item(2, b"a\n", seen, 0), ..pair };
        insta::assert_snapshot!(pair.describe(&sets), @"its bytes were changed by the destination (line ends, NUL or 8-bit header)");
    }

    fn any_items<U: Uid>() -> impl Strategy<Value = Vec<ComparedMessage<U>>> {
        let one = (0..4_u8, any::<bool>(), 0..3_u32, 0..3_i64);
        prop::collection::vec(one, 0..30).prop_map(|list| {
            let item = |(uid, (body, newline, flags, epoch)): (u32, (u8, bool, u32, i64))| {
                item(uid, &[&[body, b'x'][..], if newline { b"\n" } else { b"" }].concat(), flags, epoch)
            };
            (1..).zip(list).map(item).collect()
        })
    }

    fn canonical<U: Uid>(items: &[ComparedMessage<U>], uids: &[U]) -> BTreeSet<[u8; 16]> {
        items.iter().filter(|i| uids.contains(&i.uid)).map(|i| i.digest.canonical).collect()
    }

    proptest! {
        #[test]
        fn every_message_of_both_sides_is_accounted_for_once(source in any_items(), destination in any_items()) {
            let found = compare(&source, &destination);
            let paired = found.equal + found.changed.len() as u64;
            prop_assert_eq!(paired + found.missing.len() as u64, source.len() as u64);
            prop_assert_eq!(paired + found.extra.len() as u64, destination.len() as u64);
            // Nothing is both missing and there: what is left over on both sides has no content in common.
            let (left, right) = (canonical(&source, &found.missing), canonical(&destination, &found.extra));
            prop_assert!(left.is_disjoint(&right));
            // A copy too many is one of a message whose every occurrence at the source has a copy.
            let paired: Vec<_> = source.iter().filter(|i| !found.missing.contains(&i.uid)).copied().collect();
            let uids: Vec<_> = paired.iter().map(|i| i.uid).collect();
            prop_assert!(canonical(&destination, &found.doubled).is_subset(&canonical(&paired, &uids)));
            prop_assert!(found.doubled.iter().all(|uid| found.extra.contains(uid)));
        }

        #[test]
        fn the_same_messages_in_any_order_are_equal(
            (items, shuffled) in any_items().prop_flat_map(|items| (Just(items.clone()), Just(items).prop_shuffle())),
        ) {
            let copies = (100..).zip(shuffled).map(|(uid, ComparedMessage { flags, epoch, digest, .. })| {
                ComparedMessage { uid: DestinationUid(uid), flags, epoch, digest }
            });
            let renumbered: Vec<_> = copies.collect();
            let found = compare(&items, &renumbered);
            prop_assert_eq!(found.equal, items.len() as u64);
            prop_assert!(found.changed.is_empty() && found.missing.is_empty() && found.extra.is_empty());
        }
    }
}
