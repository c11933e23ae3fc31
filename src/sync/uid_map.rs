//! Where each source message went.

use super::{
    uid::{DestinationUid, SourceUid},
    varint::{VarintReader, put_delta, put_varint},
};
use crate::imap::{Uid, UidSet};

/// How a destination message came to be the copy of a source message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyOrigin {
    /// We appended it: it is ours, and may be deleted when deletions are mirrored.
    Appended,
    /// It was found at the destination: it is not ours to delete.
    Adopted,
}

/// Source UIDs that were copied one after the other, to destination UIDs that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRun {
    /// The first source UID.
    pub source: SourceUid,
    /// The first destination UID; none where the messages are copied but their UIDs unknown (no UIDPLUS).
    pub destination: Option<DestinationUid>,
    /// How many messages.
    pub length: u32,
    /// How they got there.
    pub origin: CopyOrigin,
}

impl UidRun {
    fn last_source(&self) -> SourceUid {
        self.source.saturating_add(self.length - 1)
    }

    fn last_destination(&self) -> Option<DestinationUid> {
        Some(self.destination?.saturating_add(self.length - 1))
    }

    /// The part of this run from source UID `low` to `high`, both of which are in it.
    fn part(&self, low: SourceUid, high: SourceUid) -> Self {
        Self {
            source: low,
            destination: self.destination.map(|first| DestinationUid(first.0 + (low.0 - self.source.0))),
            length: high.0 - low.0 + 1,
            origin: self.origin,
        }
    }
}

/// Which destination UID each source UID was copied to, as runs in the order in which they were copied: never sorted,
/// never merged out of that order.
///
/// A source UID is in the map once, and so is a destination UID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UidMap {
    runs: Vec<UidRun>,
    copied: UidSet<SourceUid>,
    destinations: UidSet<DestinationUid>,
}

impl UidMap {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self { runs: Vec::new(), copied: UidSet::new(), destinations: UidSet::new() }
    }

    /// Adds one message at the end of the copy order. A source UID that is in the map already keeps its first
    /// destination. A destination UID that is in the map already (a server that reports one twice) is not believed: the
    /// message counts as copied, UID unknown.
    pub fn push(&mut self, source: SourceUid, destination: Option<DestinationUid>, origin: CopyOrigin) {
        self.push_run(UidRun { source, destination, length: 1, origin });
    }

    /// Adds runs at the end of the copy order, each as [`Self::push`] would its messages.
    pub(crate) fn push_runs(&mut self, runs: impl IntoIterator<Item = UidRun>) {
        for run in runs {
            self.push_run(run);
        }
    }

    fn push_run(&mut self, mut run: UidRun) {
        let Some(longest) = u32::MAX.checked_sub(run.source.0).map(|more| more.saturating_add(1)) else { return };
        run.length = run.length.min(longest);
        if run.source.0 == 0 || run.length == 0 {
            return;
        }
        let fits = |first: u32| first > 0 && first.checked_add(run.length - 1).is_some();
        run.destination = run.destination.filter(|first| fits(first.0));
        if self.copied.last().is_none_or(|last| last < run.source) {
            self.push_new(run);
        } else {
            let new = UidSet::from_ranges([(run.source, run.last_source())]).difference(&self.copied);
            for &(low, high) in new.ranges() {
                self.push_new(run.part(low, high));
            }
        }
    }

    /// Adds a run of which no source UID is in the map.
    fn push_new(&mut self, run: UidRun) {
        let Some((first, last)) = run.destination.zip(run.last_destination()) else { return self.append(run) };
        if self.destinations.last().is_none_or(|highest| highest < first) {
            return self.append(run);
        }
        let free = UidSet::from_ranges([(first, last)]).difference(&self.destinations);
        let mut next = first;
        let source_of = |destination: DestinationUid| SourceUid(run.source.0 + (destination.0 - first.0));
        for &(low, high) in free.ranges() {
            if next < low {
                self.append(UidRun {
                    destination: None,
                    ..run.part(source_of(next), source_of(DestinationUid(low.0 - 1)))
                });
            }
            self.append(run.part(source_of(low), source_of(high)));
            if high >= last {
                return;
            }
            next = high.saturating_add(1);
        }
        self.append(UidRun { destination: None, ..run.part(source_of(next), source_of(last)) });
    }

    fn append(&mut self, run: UidRun) {
        self.copied.insert_range(run.source, run.last_source());
        if let Some((first, last)) = run.destination.zip(run.last_destination()) {
            self.destinations.insert_range(first, last);
        }
        match self.runs.last_mut() {
            Some(last)
                if last.origin == run.origin
                    && last.last_source().0.checked_add(1) == Some(run.source.0)
                    && match (last.last_destination(), run.destination) {
                        (Some(before), Some(first)) => before.0.checked_add(1) == Some(first.0),
                        (None, None) => true,
                        _ => false,
                    } =>
            {
                last.length += run.length;
            }
            _ => self.runs.push(run),
        }
    }

    /// The runs, in copy order.
    #[must_use]
    pub(crate) fn runs(&self) -> &[UidRun] {
        &self.runs
    }

    /// Source UIDs that are at the destination.
    #[must_use]
    pub(crate) const fn copied(&self) -> &UidSet<SourceUid> {
        &self.copied
    }

    /// Destination UIDs that are known to be copies.
    #[must_use]
    pub(crate) const fn destination_uids(&self) -> &UidSet<DestinationUid> {
        &self.destinations
    }

    /// Source UIDs that are copied, destination UID unknown.
    #[must_use]
    pub(crate) fn unknown_uids(&self) -> UidSet<SourceUid> {
        self.sources(|run| run.destination.is_none())
    }

    /// Source UIDs that we appended and whose copies we know: those whose deletion may be mirrored.
    #[must_use]
    pub(crate) fn deletable(&self) -> UidSet<SourceUid> {
        self.sources(|run| run.destination.is_some() && run.origin == CopyOrigin::Appended)
    }

    /// Source UIDs that were adopted.
    #[must_use]
    pub(crate) fn adopted(&self) -> UidSet<SourceUid> {
        self.sources(|run| run.origin == CopyOrigin::Adopted)
    }

    fn sources(&self, which: impl Fn(&UidRun) -> bool) -> UidSet<SourceUid> {
        UidSet::from_ranges(self.runs.iter().filter(|run| which(run)).map(|run| (run.source, run.last_source())))
    }

    /// The source UIDs of these copies, as far as they are in the map.
    #[must_use]
    pub(crate) fn sources_of(&self, copies: &UidSet<DestinationUid>) -> UidSet<SourceUid> {
        let mut sources = Vec::new();
        for run in &self.runs {
            let Some((first, last)) = run.destination.zip(run.last_destination()) else { continue };
            let source_of = |copy: DestinationUid| SourceUid(run.source.0 + (copy.0 - first.0));
            let at = copies.ranges().partition_point(|range| range.1 < first);
            for &(low, high) in copies.ranges().iter().skip(at).take_while(|range| range.0 <= last) {
                sources.push((source_of(low.max(first)), source_of(high.min(last))));
            }
        }
        UidSet::from_ranges(sources)
    }

    /// The lowest destination UID that an APPEND of ours was given; none where none is known.
    #[must_use]
    pub(crate) fn first_appended(&self) -> Option<DestinationUid> {
        self.runs.iter().filter(|run| run.origin == CopyOrigin::Appended).filter_map(|run| run.destination).min()
    }

    /// The last `count` messages that were copied, as runs in copy order.
    #[must_use]
    pub(crate) fn last_runs(&self, count: usize) -> Vec<UidRun> {
        let mut left = u32::try_from(count).unwrap_or(u32::MAX);
        let mut runs = Vec::new();
        for run in self.runs.iter().rev() {
            if left == 0 {
                break;
            }
            let length = run.length.min(left);
            left -= length;
            runs.push(run.part(SourceUid(run.last_source().0 - (length - 1)), run.last_source()));
        }
        runs.reverse();
        runs
    }

    /// How many messages are in the map.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.copied.len()
    }

    /// True when nothing was copied.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The map made for many look-ups.
    #[must_use]
    pub(crate) fn index(&self) -> UidMapIndex {
        let mut runs = self.runs.clone();
        runs.sort_unstable_by_key(|run| run.source);
        UidMapIndex { runs }
    }

    /// From here on none of it counts as ours to delete. The copy order stays.
    pub(crate) fn adopt_all(&mut self) {
        let mut adopted = Self::new();
        adopted.push_runs(
            std::mem::take(&mut self.runs).into_iter().map(|run| UidRun { origin: CopyOrigin::Adopted, ..run }),
        );
        *self = adopted;
    }

    /// Takes out source messages (after their deletion was mirrored); the others keep their order.
    pub(crate) fn remove_sources(&mut self, sources: &UidSet<SourceUid>) {
        let mut kept = Self::new();
        for run in &self.runs {
            let rest = UidSet::from_ranges([(run.source, run.last_source())]).difference(sources);
            kept.push_runs(rest.ranges().iter().map(|&(low, high)| run.part(low, high)));
        }
        *self = kept;
    }

    /// Keeps these source messages, in their order.
    pub(crate) fn retain_sources(&mut self, sources: &UidSet<SourceUid>) {
        let mut kept = Self::new();
        for run in &self.runs {
            let first = sources.ranges().partition_point(|range| range.1 < run.source);
            let overlaps = sources.ranges().iter().skip(first).take_while(|range| range.0 <= run.last_source());
            kept.push_runs(overlaps.map(|&(low, high)| run.part(low.max(run.source), high.min(run.last_source()))));
        }
        *self = kept;
    }

    /// Source UIDs of the last `count` messages that were copied, of the `count` newest whose copies are known, of the first
    /// copy that we appended, and of the last copy at the destination: by these a folder is known again.
    #[must_use]
    pub(crate) fn samples(&self, count: usize) -> UidSet<SourceUid> {
        let mut known: Vec<&UidRun> = self.runs.iter().filter(|run| run.destination.is_some()).collect();
        known.sort_unstable_by_key(|run| std::cmp::Reverse(run.source));
        let newest = known.iter().flat_map(|run| (run.source.0..=run.last_source().0).rev()).take(count);
        let last = self.last_runs(count).into_iter().map(|run| (run.source, run.last_source()));
        let ends: UidSet<DestinationUid> = self.first_appended().into_iter().chain(self.destinations.last()).collect();
        let samples: UidSet<SourceUid> = newest.map(SourceUid).collect();
        samples.union(&UidSet::from_ranges(last)).union(&self.sources_of(&ends))
    }

    /// Fills in destination UIDs that were unknown, from pairs that matching found. The copy order and known UIDs stay.
    pub(crate) fn resolve_unknown(&mut self, pairs: &[(SourceUid, DestinationUid)]) {
        let found: std::collections::HashMap<SourceUid, DestinationUid> = pairs.iter().copied().collect();
        let known = self.destinations.clone();
        let mut resolved = Self::new();
        for run in std::mem::take(&mut self.runs) {
            if run.destination.is_some() {
                resolved.push_run(run);
                continue;
            }
            for source in (run.source.0..=run.last_source().0).map(SourceUid) {
                let destination = found.get(&source).copied().filter(|uid| !known.contains(*uid));
                resolved.push(source, destination, run.origin);
            }
        }
        *self = resolved;
    }

    /// The map as bytes, in columns: how many runs; a tag for each; steps to each first source UID from the one that was
    /// to be expected; lengths less 1; steps to each known first destination UID from the one that was to be expected.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.runs.len() * 4);
        put_varint(&mut bytes, self.runs.len() as u64);
        for run in &self.runs {
            bytes.push(u8::from(run.destination.is_none()) | (u8::from(run.origin == CopyOrigin::Adopted) << 1));
        }
        let mut expected = 1;
        for run in &self.runs {
            put_delta(&mut bytes, expected, u64::from(run.source.0));
            expected = u64::from(run.last_source().0) + 1;
        }
        for run in &self.runs {
            put_varint(&mut bytes, u64::from(run.length - 1));
        }
        let mut expected = 1;
        for (first, last) in self.runs.iter().filter_map(|run| run.destination.zip(run.last_destination())) {
            put_delta(&mut bytes, expected, u64::from(first.0));
            expected = u64::from(last.0) + 1;
        }
        bytes
    }

    /// The map that [`Self::encode`] wrote; `None` for anything that it does not write.
    #[must_use]
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = VarintReader(bytes);
        let count = usize::try_from(reader.read_varint()?).ok()?;
        let (tags, rest) = reader.0.split_at_checked(count)?;
        reader.0 = rest;
        // Lengths stand behind the steps that need them.
        let mut steps = VarintReader(rest);
        for _ in 0..count {
            reader.read_varint()?;
        }
        let mut runs = Vec::with_capacity(count);
        let mut expected = 1;
        for tag in tags {
            let source = u32::try_from(steps.read_delta(expected)?).ok()?;
            let length = reader.read_u32()?.checked_add(1)?;
            let last = source.checked_add(length - 1)?;
            expected = u64::from(last) + 1;
            let origin = if tag & 2 == 0 { CopyOrigin::Appended } else { CopyOrigin::Adopted };
            if source == 0 || *tag > 3 {
                return None;
            }
            let destination = (tag & 1 == 0).then_some(DestinationUid(0));
            runs.push(UidRun { source: SourceUid(source), destination, length, origin });
        }
        let mut expected = 1;
        for run in runs.iter_mut().filter(|run| run.destination.is_some()) {
            let first = u32::try_from(reader.read_delta(expected)?).ok().filter(|first| *first > 0)?;
            expected = u64::from(first.checked_add(run.length - 1)?) + 1;
            run.destination = Some(DestinationUid(first));
        }
        let mut map = Self::new();
        map.push_runs(runs.iter().copied());
        // Overlaps would have been changed by the rules of `push`.
        (reader.0.is_empty() && map.runs == runs).then_some(map)
    }
}

fn find(run: &UidRun, source: SourceUid) -> Option<(Option<DestinationUid>, CopyOrigin)> {
    let offset = source.0.checked_sub(run.source.0).filter(|offset| *offset < run.length)?;
    Some((run.destination.map(|first| DestinationUid(first.0 + offset)), run.origin))
}

/// A [`UidMap`] sorted by source UID.
#[derive(Debug, Clone)]
pub(crate) struct UidMapIndex {
    runs: Vec<UidRun>,
}

impl UidMapIndex {
    /// Where one source message went: none when it is not copied.
    #[must_use]
    pub(crate) fn get(&self, source: SourceUid) -> Option<(Option<DestinationUid>, CopyOrigin)> {
        let at = self.runs.partition_point(|run| run.source <= source).checked_sub(1)?;
        find(self.runs.get(at)?, source)
    }

    /// Where source messages went: the known destination UIDs, and the source UIDs that are not copied or whose copy is
    /// unknown.
    #[must_use]
    pub(crate) fn destinations_of(&self, sources: &UidSet<SourceUid>) -> (UidSet<DestinationUid>, UidSet<SourceUid>) {
        let mut destinations = Vec::new();
        let mut known = Vec::new();
        for &(low, high) in sources.ranges() {
            let first = self.runs.partition_point(|run| run.last_source() < low);
            for run in self.runs.iter().skip(first).take_while(|run| run.source <= high) {
                let part = run.part(low.max(run.source), high.min(run.last_source()));
                if let Some(ends) = part.destination.zip(part.last_destination()) {
                    destinations.push(ends);
                    known.push((part.source, part.last_source()));
                }
            }
        }
        (UidSet::from_ranges(destinations), sources.difference(&UidSet::from_ranges(known)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// A source UID, the destination UID of its copy where that is known, and how it got there.
    type Copied = (u32, Option<u32>, CopyOrigin);

    fn map(pushes: &[Copied]) -> UidMap {
        let mut map = UidMap::new();
        for &(source, destination, origin) in pushes {
            map.push(SourceUid(source), destination.map(DestinationUid), origin);
        }
        map
    }

    fn run(source: u32, destination: Option<u32>, length: u32) -> UidRun {
        let (source, destination) = (SourceUid(source), destination.map(DestinationUid));
        UidRun { source, destination, length, origin: CopyOrigin::Appended }
    }

    fn resolve_unknown(map: &mut UidMap, pairs: &[(u32, u32)]) {
        let pairs: Vec<_> = pairs.iter().map(|&(s, d)| (SourceUid(s), DestinationUid(d))).collect();
        map.resolve_unknown(&pairs);
    }

    /// All messages in copy order.
    fn messages(map: &UidMap) -> Vec<Copied> {
        let message = |run: &UidRun, i| (run.source.0 + i, run.destination.map(|first| first.0 + i), run.origin);
        map.runs().iter().flat_map(|run| (0..run.length).map(move |i| message(run, i))).collect()
    }

    /// Where a message went, as the index says.
    fn indexed(index: &UidMapIndex, source: u32) -> Option<(Option<u32>, CopyOrigin)> {
        index.get(SourceUid(source)).map(|(destination, origin)| (destination.map(|uid| uid.0), origin))
    }

    #[test]
    fn contiguous_messages_are_one_run_and_copy_order_is_kept() {
        use CopyOrigin::{Adopted, Appended};
        let map = map(&[
            (5, Some(50), Appended),
            (6, Some(51), Appended),
            (7, Some(53), Appended),
            (8, None, Appended),
            (9, None, Appended),
            (10, None, Adopted),
            (1, Some(54), Adopted),
        ]);
        let lengths: Vec<_> = map.runs().iter().map(|run| (run.source.0, run.length)).collect();
        assert_eq!(lengths, [(5, 2), (7, 1), (8, 2), (10, 1), (1, 1)]);
        assert_eq!(map.copied().to_string(), "1,5:10");
        assert_eq!(map.unknown_uids().to_string(), "8:10");
        assert_eq!(map.deletable().to_string(), "5:7");
        assert_eq!(map.adopted().to_string(), "1,10");
        assert_eq!(map.destination_uids().to_string(), "50:51,53:54");
    }

    #[test]
    fn a_destination_uid_that_is_reported_twice_is_not_believed() {
        let mut map = map(&[(1, Some(10), CopyOrigin::Appended), (2, Some(10), CopyOrigin::Appended)]);
        assert_eq!(indexed(&map.index(), 2), Some((None, CopyOrigin::Appended)));
        map.push_runs([run(3, Some(8), 5)]);
        let found: Vec<_> = (3..8).map(|uid| indexed(&map.index(), uid).unwrap().0).collect();
        assert_eq!(found, [Some(8), Some(9), None, Some(11), Some(12)]);
    }

    #[test]
    fn runs_beyond_the_number_space_are_cut() {
        let mut map = UidMap::new();
        map.push_runs([
            run(u32::MAX - 1, Some(1), u32::MAX),
            run(1, Some(u32::MAX), 2),
            run(0, None, 2),
            run(9, None, 0),
        ]);
        assert_eq!(map.copied().to_string(), "1:2,4294967294:4294967295");
        assert_eq!(map.unknown_uids().to_string(), "1:2");
        assert_eq!(UidMap::decode(&map.encode()), Some(map));
    }

    #[test]
    fn copies_are_unknown_until_they_are_found() {
        let mut map =
            map(&[(1, None, CopyOrigin::Appended), (5, None, CopyOrigin::Adopted), (6, None, CopyOrigin::Adopted)]);
        assert!(map.destination_uids().is_empty());
        assert_eq!(map.unknown_uids().to_string(), "1,5:6");
        resolve_unknown(&mut map, &[(6, 3), (1, 2), (7, 4)]);
        assert_eq!(
            messages(&map),
            [(1, Some(2), CopyOrigin::Appended), (5, None, CopyOrigin::Adopted), (6, Some(3), CopyOrigin::Adopted)]
        );
    }

    #[test]
    fn known_destinations_are_not_given_away_by_resolving() {
        let mut map = map(&[(1, None, CopyOrigin::Appended), (2, Some(10), CopyOrigin::Appended)]);
        resolve_unknown(&mut map, &[(1, 10), (2, 11)]);
        assert_eq!(messages(&map), [(1, None, CopyOrigin::Appended), (2, Some(10), CopyOrigin::Appended)]);
    }

    #[test]
    fn two_hundred_thousand_messages_in_order_are_a_few_bytes() {
        let mut map = UidMap::new();
        for uid in 1..=200_000 {
            map.push(SourceUid(uid), Some(DestinationUid(uid + 7)), CopyOrigin::Appended);
        }
        assert_eq!(map.len(), 200_000);
        assert!(map.encode().len() < 16);
    }

    fn pushes() -> impl Strategy<Value = Vec<Copied>> {
        let origin = prop_oneof![Just(CopyOrigin::Appended), Just(CopyOrigin::Adopted)];
        let start = prop_oneof![4 => 1..60_u32, 1 => u32::MAX - 40..u32::MAX - 10];
        let run = (start.clone(), proptest::option::of(start), 1..8_u32, origin);
        proptest::collection::vec(run, 0..12).prop_map(|runs| {
            let expand = |(source, destination, length, origin): (u32, Option<u32>, u32, CopyOrigin)| {
                (0..length).map(move |i| (source + i, destination.map(|first| first + i), origin))
            };
            runs.into_iter().flat_map(expand).collect()
        })
    }

    /// What the rules of `push` keep, message by message.
    fn expected(pushes: &[Copied]) -> Vec<Copied> {
        let (mut sources, mut destinations) = (BTreeSet::new(), BTreeSet::new());
        let mut kept = Vec::new();
        for &(source, destination, origin) in pushes {
            if sources.insert(source) {
                kept.push((source, destination.filter(|uid| destinations.insert(*uid)), origin));
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn every_push_is_kept_in_order(pushes in pushes()) {
            let map = map(&pushes);
            let kept = expected(&pushes);
            prop_assert_eq!(messages(&map), kept.clone());
            prop_assert_eq!(map.copied().iter().map(|uid| uid.0).collect::<BTreeSet<_>>(), pushes.iter().map(|p| p.0).collect());
            prop_assert_eq!(map.len(), kept.len() as u64);
            let index = map.index();
            let by_source: BTreeMap<_, _> = kept.iter().map(|(s, d, o)| (*s, (*d, *o))).collect();
            for source in (0..80).chain(u32::MAX - 45..=u32::MAX) {
                prop_assert_eq!(indexed(&index, source), by_source.get(&source).copied());
            }
        }

        #[test]
        fn runs_and_single_messages_make_the_same_map(pushes in pushes()) {
            let single = map(&pushes);
            let mut whole = UidMap::new();
            whole.push_runs(single.runs().iter().copied());
            prop_assert_eq!(whole, single);
        }

        #[test]
        fn encoding_round_trips(pushes in pushes()) {
            let map = map(&pushes);
            prop_assert_eq!(UidMap::decode(&map.encode()), Some(map));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), count in 0..4_u8) {
            let bytes = [&[count][..], &bytes].concat();
            if let Some(map) = UidMap::decode(&bytes) {
                prop_assert_eq!(UidMap::decode(&map.encode()), Some(map));
            }
        }

        #[test]
        fn removal_keeps_the_order_of_the_others(pushes in pushes(), gone in proptest::collection::vec(1..70_u32, 0..20)) {
            let mut map = map(&pushes);
            let gone: UidSet<_> = gone.into_iter().map(SourceUid).collect();
            let kept: Vec<_> = messages(&map).into_iter().filter(|m| !gone.contains(SourceUid(m.0))).collect();
            map.remove_sources(&gone);
            prop_assert_eq!(messages(&map), kept);
        }

        #[test]
        fn what_is_kept_is_kept_in_order(pushes in pushes(), kept in proptest::collection::vec(1..70_u32, 0..20)) {
            let mut map = map(&pushes);
            let kept: UidSet<_> = kept.into_iter().map(SourceUid).collect();
            let expected: Vec<_> = messages(&map).into_iter().filter(|m| kept.contains(SourceUid(m.0))).collect();
            map.retain_sources(&kept);
            prop_assert_eq!(messages(&map), expected);
        }

        #[test]
        fn samples_hold_the_last_copies_of_both_sides(pushes in pushes()) {
            let map = map(&pushes);
            let samples = map.samples(3);
            prop_assert!(samples.len() <= 8 && samples.difference(map.copied()).is_empty());
            let mut kept = map.clone();
            kept.retain_sources(&samples);
            prop_assert_eq!(kept.destination_uids().last(), map.destination_uids().last());
            prop_assert_eq!(kept.first_appended(), map.first_appended());
            prop_assert_eq!(kept.last_runs(3), map.last_runs(3));
        }

        #[test]
        fn sets_are_mapped_as_their_messages(pushes in pushes(), wanted in proptest::collection::vec(1..70_u32, 0..20)) {
            let map = map(&pushes);
            let wanted: UidSet<_> = wanted.into_iter().map(SourceUid).collect();
            let (found, unknown) = map.index().destinations_of(&wanted);
            let one_by_one: Vec<_> = wanted.iter().map(|uid| (uid, map.index().get(uid).and_then(|d| d.0))).collect();
            prop_assert_eq!(&found, &one_by_one.iter().filter_map(|(_, d)| *d).collect());
            let known = wanted.difference(&unknown);
            prop_assert_eq!(map.sources_of(&found), known);
            prop_assert_eq!(unknown, one_by_one.iter().filter(|(_, d)| d.is_none()).map(|(uid, _)| *uid).collect());
        }
    }
}
