//! Sets of UIDs as sorted ranges.

use std::{fmt, hash::Hash};

/// A UID: the protocol's own number, or a type that also says which folder it belongs to.
pub trait Uid: Copy + Ord + Hash + fmt::Debug + fmt::Display {
    /// The UID of this number.
    fn from_number(number: u32) -> Self;

    /// The number, as the protocol has it.
    fn number(self) -> u32;

    /// The UID that is `steps` higher; the highest that there is where that would be beyond it.
    #[must_use]
    fn saturating_add(self, steps: u32) -> Self {
        Self::from_number(self.number().saturating_add(steps))
    }
}

impl Uid for u32 {
    fn from_number(number: u32) -> Self {
        number
    }

    fn number(self) -> u32 {
        self
    }
}

/// So many ranges are added one by one.
const FEW_RANGES: usize = 16;

/// A set of UIDs: sorted, disjoint, non-adjacent inclusive ranges.
///
/// No UID is 0 (RFC 9051, section 2.3.1.1), so 0 is never kept. Memory grows with the number of ranges, never with the
/// number of UIDs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UidSet<U = u32> {
    ranges: Vec<(U, U)>,
}

impl<U> UidSet<U> {
    /// The empty set.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// True when no UID is in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges: ascending, inclusive, disjoint, not adjacent.
    #[must_use]
    pub fn ranges(&self) -> &[(U, U)] {
        &self.ranges
    }
}

impl<U> Default for UidSet<U> {
    fn default() -> Self {
        Self::new()
    }
}

impl<U: Uid> UidSet<U> {
    /// The set of all UIDs of inclusive ranges, in any order and overlapping or not; a range whose end is below its
    /// start is empty.
    #[must_use]
    pub fn from_ranges(ranges: impl IntoIterator<Item = (U, U)>) -> Self {
        let mut set = Self::new();
        let mut sorted = true;
        for (low, high) in ranges {
            let low = low.max(U::from_number(1));
            if low > high {
                continue;
            }
            match set.ranges.last_mut() {
                Some(last) if low >= last.0 && low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                Some(last) => {
                    sorted &= low > last.0;
                    set.ranges.push((low, high));
                }
                None => set.ranges.push((low, high)),
            }
        }
        if !sorted {
            // Inserting one by one would be quadratic where a server lists UIDs downwards.
            set.ranges.sort_unstable();
            set.coalesce();
        }
        set
    }

    /// Joins overlapping and adjacent neighbours of ranges that are sorted by their start.
    fn coalesce(&mut self) {
        self.ranges.dedup_by(|next, kept| {
            let joined = next.0 <= kept.1.saturating_add(1);
            if joined {
                kept.1 = kept.1.max(next.1);
            }
            joined
        });
    }

    /// Adds one UID.
    pub(crate) fn insert(&mut self, uid: U) {
        self.insert_range(uid, uid);
    }

    /// Adds the UIDs from `low` to `high`, both included; none when `low > high`. At the upper end of the set this takes
    /// constant time.
    pub(crate) fn insert_range(&mut self, low: U, high: U) {
        let low = low.max(U::from_number(1));
        if low > high {
            return;
        }
        match self.ranges.last_mut() {
            None => self.ranges.push((low, high)),
            Some(last) if low >= last.0 => {
                if low <= last.1.saturating_add(1) {
                    last.1 = last.1.max(high);
                } else {
                    self.ranges.push((low, high));
                }
            }
            Some(_) => {
                let start = self.ranges.partition_point(|range| range.1.saturating_add(1) < low);
                let end = self.ranges.partition_point(|range| range.0 <= high.saturating_add(1));
                if start < end {
                    let joined = (low.min(self.ranges[start].0), high.max(self.ranges[end - 1].1));
                    self.ranges[start] = joined;
                    self.ranges.drain(start + 1..end);
                } else {
                    self.ranges.insert(start, (low, high));
                }
            }
        }
    }

    /// Takes out the UIDs from `low` to `high`, both included.
    pub(crate) fn remove_range(&mut self, low: U, high: U) {
        let start = self.ranges.partition_point(|range| range.1 < low);
        let end = self.ranges.partition_point(|range| range.0 <= high);
        if start >= end {
            return;
        }
        let (first, last) = (self.ranges[start].0, self.ranges[end - 1].1);
        let below = (first < low).then(|| (first, before(low)));
        let above = (last > high).then(|| (high.saturating_add(1), last));
        self.ranges.splice(start..end, below.into_iter().chain(above));
    }

    /// True when `uid` is in the set.
    #[must_use]
    pub fn contains(&self, uid: U) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < uid);
        self.ranges.get(at).is_some_and(|range| range.0 <= uid)
    }

    /// Adds what is in `other`. Where that is little, it takes no time for what is here.
    pub(crate) fn add(&mut self, other: &Self) {
        if other.ranges.len() > FEW_RANGES {
            *self = self.union(other);
        } else {
            other.ranges.iter().for_each(|&(low, high)| self.insert_range(low, high));
        }
    }

    /// What is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges = [self.ranges.as_slice(), other.ranges.as_slice()].concat();
        ranges.sort_by_key(|range| range.0); // stable: it merges two sorted runs in linear time
        let mut set = Self { ranges };
        set.coalesce();
        set
    }

    /// What is in both sets.
    #[must_use]
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&a), Some(&&b)) = (left.peek(), right.peek()) {
            let (low, high) = (a.0.max(b.0), a.1.min(b.1));
            if low <= high {
                ranges.push((low, high));
            }
            if a.1 <= b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        Self { ranges }
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let mut holes = other.ranges.iter().peekable();
        for &(low, high) in &self.ranges {
            // `None` once the range is used up to the largest UID there is.
            let mut rest = Some(low);
            while let (Some(low), Some(&&hole)) = (rest, holes.peek()) {
                if hole.0 > high {
                    break;
                }
                if low < hole.0 {
                    ranges.push((low, before(hole.0)));
                }
                rest = next(hole.1).map(|next| next.max(low)).filter(|&next| next <= high);
                if hole.1 > high {
                    break; // it may cover the next range too
                }
                holes.next();
            }
            if let Some(low) = rest {
                ranges.push((low, high));
            }
        }
        Self { ranges }
    }

    /// How many UIDs are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&range| size(range)).sum()
    }

    /// The UIDs, ascending.
    #[must_use]
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = U> + '_ {
        self.ranges.iter().flat_map(|&(low, high)| (low.number()..=high.number()).map(U::from_number))
    }

    /// The lowest UID.
    #[must_use]
    pub fn first(&self) -> Option<U> {
        self.ranges.first().map(|range| range.0)
    }

    /// The highest UID.
    #[must_use]
    pub fn last(&self) -> Option<U> {
        self.ranges.last().map(|range| range.1)
    }

    /// The set as IMAP sequence sets of at most `max_bytes` bytes each, but never
    /// less than one range each (at most 21 bytes).
    pub fn chunks(&self, max_bytes: usize) -> impl Iterator<Item = String> + '_ {
        let mut ranges = self.ranges.iter().map(|&range| range_text(range)).peekable();
        std::iter::from_fn(move || {
            let mut chunk = ranges.next()?;
            while let Some(next) = ranges.next_if(|next| chunk.len() + 1 + next.len() <= max_bytes) {
                chunk.push(',');
                chunk.push_str(&next);
            }
            Some(chunk)
        })
    }

    /// Reads an IMAP sequence set (RFC 9051, section 9) of any order, with reversed ranges, without `*`. `None` for
    /// anything else, 0 and numbers over 32 bits included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut valid = true;
        let set = Self::from_ranges(ranges_in(text).map_while(|range| {
            valid &= range.is_some();
            range.map(|(low, high)| (U::from_number(low), U::from_number(high)))
        }));
        valid.then_some(set)
    }
}

impl UidSet<u32> {
    /// The same UIDs in a type that says which folder they belong to.
    #[must_use]
    pub(crate) fn typed<U: Uid>(&self) -> UidSet<U> {
        let typed = |&(low, high): &(u32, u32)| (U::from_number(low), U::from_number(high));
        UidSet { ranges: self.ranges.iter().map(typed).collect() }
    }
}

/// The ranges of a sequence set in the order in which they stand, each with its lower end first; `None` for a part that
/// is not a range.
pub(super) fn ranges_in(text: &str) -> impl Iterator<Item = Option<(u32, u32)>> + '_ {
    text.split(',').map(|part| {
        let (one, other) = match part.split_once(':') {
            Some((one, other)) => (number(one)?, number(other)?),
            None => (number(part)?, number(part)?),
        };
        Some((one.min(other), one.max(other)))
    })
}

/// A `nz-number`.
fn number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None; // `parse` would take a sign
    }
    text.parse().ok().filter(|&number| number > 0)
}

fn size<U: Uid>((low, high): (U, U)) -> u64 {
    u64::from(high.number() - low.number()) + 1
}

/// The UID below `uid`, which is not the lowest.
fn before<U: Uid>(uid: U) -> U {
    U::from_number(uid.number() - 1)
}

/// The UID above `uid`; none above the highest that there is.
fn next<U: Uid>(uid: U) -> Option<U> {
    uid.number().checked_add(1).map(U::from_number)
}

fn range_text<U: Uid>((low, high): (U, U)) -> String {
    if low == high { low.to_string() } else { format!("{low}:{high}") }
}

/// An IMAP sequence set, `1:3,7`; empty for the empty set, which no command can carry.
impl<U: Uid> fmt::Display for UidSet<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &(low, high)) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            if low == high {
                write!(f, "{low}")?;
            } else {
                write!(f, "{low}:{high}")?;
            }
        }
        Ok(())
    }
}

impl<U: Uid> FromIterator<U> for UidSet<U> {
    fn from_iter<I: IntoIterator<Item = U>>(uids: I) -> Self {
        Self::from_ranges(uids.into_iter().map(|uid| (uid, uid)))
    }
}

impl<U: Uid> Extend<U> for UidSet<U> {
    fn extend<I: IntoIterator<Item = U>>(&mut self, uids: I) {
        for uid in uids {
            self.insert(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    type UidSet = super::UidSet<u32>;

    /// Small numbers, so that neighbours and overlaps are common, and the two ends of the number space.
    fn uid() -> impl Strategy<Value = u32> {
        prop_oneof![8 => 1u32..80, 1 => u32::MAX - 20..=u32::MAX]
    }

    fn uids() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(uid(), 0..60)
    }

    fn range() -> impl Strategy<Value = (u32, u32)> {
        prop_oneof![
            8 => (1u32..80, 0u32..12).prop_map(|(low, more)| (low, low + more)),
            1 => (u32::MAX - 20..=u32::MAX, 0u32..30).prop_map(|(low, more)| (low, low.saturating_add(more))),
        ]
    }

    fn tree(set: &UidSet) -> BTreeSet<u32> {
        set.iter().collect()
    }

    fn is_normal(set: &UidSet) -> bool {
        set.ranges().iter().all(|range| range.0 > 0 && range.0 <= range.1)
            && set.ranges().windows(2).all(|pair| pair[0].1 < pair[1].0 - 1)
    }

    proptest! {
        #[test]
        fn algebra_agrees_with_a_plain_set(a in uids(), b in uids()) {
            let (left, right) = (a.iter().copied().collect::<UidSet>(), b.iter().copied().collect::<UidSet>());
            let (plain_left, plain_right) =
                (a.into_iter().collect::<BTreeSet<_>>(), b.into_iter().collect::<BTreeSet<_>>());
            prop_assert_eq!(tree(&left), plain_left.clone());
            prop_assert_eq!(left.len(), plain_left.len() as u64);
            prop_assert_eq!(left.first(), plain_left.first().copied());
            prop_assert_eq!(left.last(), plain_left.last().copied());
            let mut added = left.clone();
            added.add(&right);
            prop_assert_eq!(&added, &left.union(&right));
            for (set, plain) in [
                (left.union(&right), plain_left.union(&plain_right).copied().collect::<BTreeSet<_>>()),
                (left.intersection(&right), plain_left.intersection(&plain_right).copied().collect()),
                (left.difference(&right), plain_left.difference(&plain_right).copied().collect()),
            ] {
                prop_assert!(is_normal(&set), "{:?}", set);
                prop_assert_eq!(tree(&set), plain);
            }
        }

        #[test]
        fn changes_agree_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), range()), 0..40)) {
            let mut set = UidSet::new();
            let mut plain = BTreeSet::new();
            for (add, (low, high)) in steps {
                if add {
                    set.insert_range(low, high);
                    plain.extend(low..=high);
                } else {
                    set.remove_range(low, high);
                    plain.retain(|uid| !(low..=high).contains(uid));
                }
                prop_assert!(is_normal(&set), "{:?}", set);
                prop_assert_eq!(tree(&set), plain.clone());
            }
            for uid in (0..100).chain(u32::MAX - 25..=u32::MAX) {
                prop_assert_eq!(set.contains(uid), plain.contains(&uid));
            }
        }

        #[test]
        fn ranges_in_any_order_make_the_same_set(ranges in prop::collection::vec(range(), 0..30)) {
            let set = UidSet::from_ranges(ranges.iter().copied());
            prop_assert!(is_normal(&set), "{:?}", set);
            prop_assert_eq!(&set, &UidSet::from_ranges(ranges.iter().rev().copied()));
            let mut inserted = UidSet::new();
            for &(low, high) in &ranges {
                inserted.insert_range(low, high);
            }
            prop_assert_eq!(set, inserted);
        }

        #[test]
        fn text_round_trips(ranges in prop::collection::vec((any::<u32>(), any::<u32>()), 1..30)) {
            let set = UidSet::from_ranges(ranges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).chain([(7, 7)]));
            prop_assert_eq!(UidSet::parse(&set.to_string()), Some(set));
        }

        #[test]
        fn chunks_hold_everything_and_keep_to_their_length(
            ranges in prop::collection::vec((1u32.., 0u32..3), 0..200), max in 21usize..200
        ) {
            let set = UidSet::from_ranges(ranges.into_iter().map(|(low, more)| (low, low.saturating_add(more))));
            let chunks: Vec<_> = set.chunks(max).collect();
            prop_assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= max));
            prop_assert_eq!(chunks.join(","), set.to_string());
        }

        #[test]
        fn parsing_never_panics(text in "[0-9:,* +-]{0,40}") {
            if let Some(set) = UidSet::parse(&text) {
                prop_assert!(is_normal(&set));
            }
        }
    }

    #[test]
    fn reversed_and_overlapping_ranges_are_read() {
        let set = UidSet::parse("9:7,1,2,3:2,4294967295").unwrap();
        assert_eq!(set.to_string(), "1:3,7:9,4294967295");
    }

    #[test]
    fn what_is_not_a_set_is_refused() {
        for text in ["", ",", "1,", "0", "0:3", "*", "1:*", "4294967296", "+1", "-1", "1 2", "1:2:3", "a", "1:", ":1"] {
            assert_eq!(UidSet::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_whole_number_space_is_one_range() {
        let all = UidSet::parse("1:4294967295").unwrap();
        assert_eq!(all.len(), u64::from(u32::MAX));
        assert!(all.difference(&all).is_empty());
        assert_eq!(all.difference(&UidSet::from_ranges([(5, 6)])).to_string(), "1:4,7:4294967295");
    }

    #[test]
    fn zero_and_empty_ranges_add_nothing() {
        let mut set = UidSet::from_ranges([(0, 0), (9, 3)]);
        set.insert(0);
        set.insert_range(5, 4);
        assert!(set.is_empty());
        set.insert_range(0, 2);
        assert_eq!(set.ranges(), [(1, 2)]);
    }

    #[test]
    fn an_empty_set_makes_no_command() {
        assert_eq!(UidSet::new().chunks(4000).count(), 0);
    }
}
