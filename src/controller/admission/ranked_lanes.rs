//! Lanes in the order of their turns, kept apart by namespace: where a namespace's share changes, none of its lanes has to
//! be moved. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::namespace_share::NamespaceShare;

/// The number of a lane, in the order of their beginnings.
pub(super) type LaneNumber = u64;
/// The number of a namespace in which mailboxes wait.
pub(super) type NamespaceNumber = u64;
/// What of all that runs is each namespace's.
pub(super) type WaitingShares = HashMap<NamespaceNumber, NamespaceShare>;

/// A lane's place in its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneRank {
    /// Syncs of its migration that run.
    pub running: usize,
    /// When its migration had its last turn, or began to wait.
    pub turn: u64,
    pub lane: LaneNumber,
}

/// A lane's place among all, at one moment: the lower one is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneTurn {
    /// What of all that runs is its namespace's, by its weight.
    pub share: NamespaceShare,
    pub rank: LaneRank,
    pub namespace: NamespaceNumber,
}

/// Lanes in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct RankedLanes(BTreeMap<NamespaceNumber, BTreeSet<LaneRank>>);

impl RankedLanes {
    pub(super) fn insert(&mut self, namespace: NamespaceNumber, rank: LaneRank) {
        self.0.entry(namespace).or_default().insert(rank);
    }

    pub(super) fn remove(&mut self, namespace: NamespaceNumber, rank: &LaneRank) {
        if let Some(lanes) = self.0.get_mut(&namespace) {
            lanes.remove(rank);
            if lanes.is_empty() {
                self.0.remove(&namespace);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The namespaces that lanes are of.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = NamespaceNumber> {
        self.0.keys().copied()
    }

    /// The lane whose turn it is.
    pub(super) fn first(&self, shares: &WaitingShares) -> Option<LaneTurn> {
        let first_of = |(namespace, lanes): (&NamespaceNumber, &BTreeSet<LaneRank>)| {
            let share = shares.get(namespace).copied().unwrap_or_default();
            Some(LaneTurn { share, rank: *lanes.first()?, namespace: *namespace })
        };
        self.0.iter().filter_map(first_of).min()
    }
}
