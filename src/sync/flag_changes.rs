//! Which flags to change at the destination so that what changed at the source since the last sync follows, and what
//! the user changed at the destination stays.

use std::collections::BTreeMap;

use super::{
    uid::{DestinationUid, SourceUid},
    uid_map::UidMapIndex,
};
use crate::imap::{Uid, UidSet};

/// UIDs by sendable flag. A flag that no message has is not in it.
pub(crate) type UidsByFlag<U> = BTreeMap<String, UidSet<U>>;

/// Adds the flag to a message.
pub(crate) fn add_flag<U: Uid>(sets: &mut UidsByFlag<U>, flag: &str, uid: U) {
    match sets.get_mut(flag) {
        Some(uids) => uids.insert(uid),
        None => {
            sets.insert(flag.to_owned(), std::iter::once(uid).collect());
        }
    }
}

/// What to add and what to remove, as +FLAGS and -FLAGS. Flags and keywords are the same in any case (RFC 9051, section
/// 2.3.2): one whose spelling changed (`Foo` to `foo`) did not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlagChanges<U> {
    /// UIDs that get the flag.
    pub add: UidsByFlag<U>,
    /// UIDs that lose the flag.
    pub remove: UidsByFlag<U>,
}

impl FlagChanges<SourceUid> {
    /// What changed at the source, in source UIDs. `base` is the source's flags as of the last sync; `current` those of
    /// the messages in `seen`, which are the copied messages whose flags were fetched now (with CONDSTORE only those
    /// that changed). Of other messages nothing is known, and so nothing follows.
    #[must_use]
    pub(crate) fn since(
        base: &UidsByFlag<SourceUid>,
        current: &UidsByFlag<SourceUid>,
        seen: &UidSet<SourceUid>,
    ) -> Self {
        let less = |these: &UidsByFlag<SourceUid>, those: &UidsByFlag<SourceUid>| {
            let rest = |(flag, uids): (&String, &UidSet<SourceUid>)| {
                let same = those.iter().filter(|(other, _)| other.eq_ignore_ascii_case(flag));
                let rest = same.fold(uids.intersection(seen), |rest, (_, uids)| rest.difference(uids));
                (flag.clone(), rest)
            };
            without_empty(these.iter().map(rest))
        };
        Self { add: less(current, base), remove: less(base, current) }
    }

    /// The same in destination UIDs, and the source UIDs whose copies are unknown and so can't follow.
    #[must_use]
    pub(crate) fn at_destination(&self, index: &UidMapIndex) -> (FlagChanges<DestinationUid>, UidSet<SourceUid>) {
        let mut unknown = UidSet::new();
        let mut mapped = |sets: &UidsByFlag<SourceUid>| {
            without_empty(sets.iter().map(|(flag, uids)| {
                let (destinations, missing) = index.destinations_of(uids);
                unknown = unknown.union(&missing);
                (flag.clone(), destinations)
            }))
        };
        let changes = FlagChanges { add: mapped(&self.add), remove: mapped(&self.remove) };
        (changes, unknown)
    }
}

impl FlagChanges<DestinationUid> {
    /// What messages get that were found at the destination, in destination UIDs: the flags that the source has and they
    /// have not. They lose none, and \Deleted is the destination user's own decision.
    #[must_use]
    pub(crate) fn for_adopted(missing: &UidsByFlag<DestinationUid>) -> Self {
        let add = missing.iter().filter(|(flag, _)| is_given_to_found(flag));
        Self { add: add.map(|(flag, uids)| (flag.clone(), uids.clone())).collect(), remove: UidsByFlag::new() }
    }
}

/// True for a flag that copies get which are found without it: \Deleted is the destination user's own decision.
pub(crate) fn is_given_to_found(flag: &str) -> bool {
    !flag.eq_ignore_ascii_case("\\Deleted")
}

/// The base of the next sync: `current` for the messages in `seen`, and what was known before for the others.
#[must_use]
pub(crate) fn next_base(
    base: &UidsByFlag<SourceUid>,
    current: &UidsByFlag<SourceUid>,
    seen: &UidSet<SourceUid>,
) -> UidsByFlag<SourceUid> {
    let mut next = without_empty(base.iter().map(|(flag, uids)| (flag.clone(), uids.difference(seen))));
    for (flag, uids) in current {
        let uids = uids.intersection(seen);
        if !uids.is_empty() {
            let all = next.entry(flag.clone()).or_default();
            *all = all.union(&uids);
        }
    }
    next
}

fn without_empty<U: Uid>(sets: impl Iterator<Item = (String, UidSet<U>)>) -> UidsByFlag<U> {
    sets.filter(|(_, uids)| !uids.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::uid_map::{CopyOrigin, UidMap};

    fn sets<U: Uid>(sets: &[(&str, &str)]) -> UidsByFlag<U> {
        sets.iter().map(|(flag, uids)| ((*flag).to_owned(), UidSet::parse(uids).unwrap())).collect()
    }

    fn uids(text: &str) -> UidSet<SourceUid> {
        UidSet::parse(text).unwrap()
    }

    #[test]
    fn only_what_changed_at_the_source_follows() {
        let base = sets(&[("\\Seen", "1:5"), ("$Work", "2")]);
        let current = sets(&[("\\Seen", "1:4,6"), ("$Junk", "2")]);
        let changes = FlagChanges::since(&base, &current, &uids("1:6"));
        assert_eq!(changes.add, sets(&[("\\Seen", "6"), ("$Junk", "2")]));
        assert_eq!(changes.remove, sets(&[("\\Seen", "5"), ("$Work", "2")]));
    }

    #[test]
    fn another_spelling_is_no_change() {
        let base = sets(&[("$MdnSent", "1:3"), ("$mdnsent", "4")]);
        let current = sets(&[("$MDNSent", "1:2,4:5")]);
        let changes = FlagChanges::since(&base, &current, &uids("1:5"));
        assert_eq!(changes.add, sets(&[("$MDNSent", "5")]));
        assert_eq!(changes.remove, sets(&[("$MdnSent", "3")]));
        // The checkpoint has the spelling of the source.
        assert_eq!(next_base(&base, &current, &uids("1:5")), current);
    }

    #[test]
    fn messages_that_were_not_looked_at_lose_nothing() {
        let base = sets(&[("\\Seen", "1:5")]);
        let changes = FlagChanges::since(&base, &UidsByFlag::new(), &uids("5"));
        assert_eq!(changes.remove, sets(&[("\\Seen", "5")]));
        assert_eq!(next_base(&base, &UidsByFlag::new(), &uids("5")), sets(&[("\\Seen", "1:4")]));
    }

    #[test]
    fn adopted_messages_only_gain_flags_and_never_deleted() {
        let missing = sets(&[("\\Seen", "21:22"), ("\\Deleted", "21"), ("\\DELETED", "22"), ("$Work", "22")]);
        let changes = FlagChanges::for_adopted(&missing);
        let add = sets(&[("\\Seen", "21:22"), ("$Work", "22")]);
        assert_eq!(changes, FlagChanges { add, remove: UidsByFlag::new() });
    }

    #[test]
    fn changes_go_to_the_known_copies_and_the_others_are_reported() {
        let mut map = UidMap::new();
        map.push(SourceUid(1), Some(DestinationUid(11)), CopyOrigin::Appended);
        map.push(SourceUid(2), None, CopyOrigin::Appended);
        let changes = FlagChanges { add: sets(&[("\\Seen", "1:3")]), remove: sets(&[("\\Flagged", "2")]) };
        let (there, unknown) = changes.at_destination(&map.index());
        assert_eq!(there, FlagChanges { add: sets(&[("\\Seen", "11")]), remove: UidsByFlag::new() });
        assert_eq!(unknown, uids("2:3"));
    }

    fn some_sets() -> impl Strategy<Value = UidsByFlag<SourceUid>> {
        let uids = proptest::collection::btree_set(1..20_u32, 1..15)
            .prop_map(|uids| uids.into_iter().map(SourceUid).collect());
        proptest::collection::btree_map("[abc]", uids, 0..3)
    }

    proptest! {
        #[test]
        fn changes_lead_from_the_base_to_the_next_base(
            base in some_sets(), current in some_sets(), seen in proptest::collection::btree_set(1..20_u32, 0..20),
        ) {
            let seen: UidSet<_> = seen.into_iter().map(SourceUid).collect();
            let changes = FlagChanges::since(&base, &current, &seen);
            let mut led = base.clone();
            for (flag, uids) in &changes.remove {
                let set = led.get_mut(flag).unwrap();
                *set = set.difference(uids);
            }
            for (flag, uids) in &changes.add {
                let set = led.entry(flag.clone()).or_default();
                *set = set.union(uids);
            }
            prop_assert_eq!(without_empty(led.into_iter()), next_base(&base, &current, &seen));
            prop_assert_eq!(FlagChanges::since(&next_base(&base, &current, &seen), &current, &seen), FlagChanges { add: UidsByFlag::new(), remove: UidsByFlag::new() });
        }
    }
}
