//! Messages that were not copied, and what is known of each: kept until they are copied or gone from the source.
//!
//! A refusal is no verdict. A message is *proven* to be refused for its own sake only by tries beside which ordinary
//! messages of at least its size passed; a proven one is tried again now and then, one without proof by every run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{error::ErrorClass, imap::UidSet};

/// At most so many groups are kept for one folder.
pub const MAX_GROUPS: usize = 16;
/// A reason is kept up to this many characters.
const MAX_WHY: usize = 200;
/// A proven refusal is tried again after this many seconds, however few runs there were.
const TRY_AGAIN_AFTER: i64 = 7 * 24 * 3600;

/// Why a message was not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetAsideReason {
    /// It is larger than the destination says that it takes.
    TooLarge,
    /// The destination refused it.
    Refused,
    /// The source could not deliver it.
    Unreadable,
    /// It has no bytes, and the destination refused it.
    Empty,
}

impl SetAsideReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::TooLarge, Self::Refused, Self::Unreadable, Self::Empty];

    /// The name in checkpoints, reports, status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "tooLarge",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Empty => "empty",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What a destination was when it refused: where this changes, what it refused is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DestinationFacts {
    /// APPENDLIMIT (RFC 7889), bytes.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub append_limit: Option<u64>,
    /// Name and version by which it introduces itself (RFC 2971).
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// Messages of one folder that were set aside for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAsideGroup {
    /// Why.
    pub reason: SetAsideReason,
    /// The class of the refusal.
    pub class: ErrorClass,
    /// What the server said, or what happened, for people.
    pub why: String,
    /// True when ordinary messages of at least their size passed beside each of the tries.
    pub proven: bool,
    /// Runs in which they were tried.
    pub tries: u32,
    /// Runs since they were set aside.
    pub runs: u32,
    /// When they were tried last, seconds since 1970 UTC; 0 when that is not known.
    pub last_try: i64,
    /// The destination as it was then.
    pub destination: DestinationFacts,
    /// A mark of the message rules as they were then.
    pub rules: u64,
    /// UIDs in the source folder.
    pub uids: UidSet,
}

impl SetAsideGroup {
    /// Messages of which nothing but the reason is known: they are tried by the next run.
    #[must_use]
    pub fn new(reason: SetAsideReason, uids: UidSet) -> Self {
        Self {
            reason,
            class: ErrorClass::MessageRejected,
            why: String::new(),
            proven: false,
            tries: 0,
            runs: 0,
            last_try: 0,
            destination: DestinationFacts::default(),
            rules: 0,
            uids,
        }
    }
}

/// What decides whether set-aside messages are tried by a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TryFacts {
    /// Now, seconds since 1970 UTC.
    pub now: i64,
    /// The destination as it is.
    pub destination: DestinationFacts,
    /// A mark of the message rules as they are.
    pub rules: u64,
    /// A person asked for it.
    pub requested: bool,
}

impl SetAsideGroup {
    /// True when a run that begins now tries these messages: always without proof; else at the first, second, fourth,
    /// eighth run and so on, after a week, when the destination or the rules changed, and on request. What is larger
    /// than the destination says that it takes is only tried when that changes.
    #[must_use]
    pub fn is_due(&self, facts: &TryFacts) -> bool {
        let destination_changed = self.destination != facts.destination;
        if self.reason == SetAsideReason::TooLarge && facts.destination.append_limit.is_some() && !destination_changed {
            return false;
        }
        !self.proven
            || facts.requested
            || destination_changed
            || self.rules != facts.rules
            || self.runs.saturating_add(1).is_power_of_two()
            || facts.now.saturating_sub(self.last_try) >= TRY_AGAIN_AFTER
    }

    fn key(&self) -> (SetAsideReason, ErrorClass, bool, &str) {
        (self.reason, self.class, self.proven, &self.why)
    }
}

/// All that was set aside in one folder: at most [`MAX_GROUPS`] groups, each message in one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetAside {
    groups: Vec<SetAsideGroup>,
}

impl SetAside {
    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[SetAsideGroup] {
        &self.groups
    }

    /// True when nothing was set aside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All UIDs.
    #[must_use]
    pub fn uids(&self) -> UidSet {
        self.groups.iter().fold(UidSet::default(), |all, group| all.union(&group.uids))
    }

    /// UIDs that a run which begins now tries.
    #[must_use]
    pub fn due(&self, facts: &TryFacts) -> UidSet {
        let due = self.groups.iter().filter(|group| group.is_due(facts));
        due.fold(UidSet::default(), |all, group| all.union(&group.uids))
    }

    /// The group of a message.
    #[must_use]
    pub fn of(&self, uid: u32) -> Option<&SetAsideGroup> {
        self.groups.iter().find(|group| group.uids.contains(uid))
    }

    /// Messages by the name of the reason.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for group in &self.groups {
            *counts.entry(group.reason.name().to_owned()).or_default() += group.uids.len();
        }
        counts
    }

    /// Sets messages aside; what was known of them before is forgotten. Where there would be too many groups, the two
    /// of one reason that hold the fewest messages become one.
    pub fn put(&mut self, mut group: SetAsideGroup) {
        if group.uids.is_empty() {
            return;
        }
        if let Some((end, _)) = group.why.char_indices().nth(MAX_WHY) {
            group.why.truncate(end);
        }
        self.remove(&group.uids);
        match self.groups.iter_mut().find(|other| other.key() == group.key() && other.tries == group.tries) {
            Some(same) => {
                same.uids = same.uids.union(&group.uids);
                same.last_try = same.last_try.max(group.last_try);
                same.runs = same.runs.min(group.runs);
                same.destination = group.destination;
                same.rules = group.rules;
            }
            None => self.groups.push(group),
        }
        while self.groups.len() > MAX_GROUPS {
            self.join_smallest();
        }
    }

    fn join_smallest(&mut self) {
        self.groups.sort_by_key(|group| (group.reason, std::cmp::Reverse(group.uids.len())));
        let candidates = (1..self.groups.len()).filter(|at| {
            let reason = |at: usize| self.groups.get(at).map(|group| group.reason);
            reason(*at) == reason(at - 1)
        });
        let size = |at: usize| self.groups.get(at).map_or(0, |group| group.uids.len());
        // Sixteen groups and four reasons: there are always two of one.
        let Some(at) = candidates.min_by_key(|at| size(*at) + size(at - 1)) else { return };
        let smaller = self.groups.remove(at);
        if let Some(larger) = self.groups.get_mut(at - 1) {
            larger.uids = larger.uids.union(&smaller.uids);
            // In doubt they are tried sooner.
            larger.proven &= smaller.proven;
            larger.tries = larger.tries.min(smaller.tries);
            larger.runs = larger.runs.min(smaller.runs);
            larger.last_try = larger.last_try.min(smaller.last_try);
            if larger.why != smaller.why {
                "various reasons".clone_into(&mut larger.why);
            }
        }
    }

    /// Forgets messages: they are copied, or gone.
    pub fn remove(&mut self, uids: &UidSet) {
        for group in &mut self.groups {
            group.uids = group.uids.difference(uids);
        }
        self.groups.retain(|group| !group.uids.is_empty());
    }

    /// Keeps only what the source still holds.
    pub fn keep(&mut self, held: &UidSet) {
        for group in &mut self.groups {
            group.uids = group.uids.intersection(held);
        }
        self.groups.retain(|group| !group.uids.is_empty());
    }

    /// A run that does not try some of the messages passes them by.
    pub fn pass_by(&mut self, tried: &UidSet) {
        for group in &mut self.groups {
            if !group.uids.is_empty() && group.uids.intersection(tried).is_empty() {
                group.runs = group.runs.saturating_add(1);
            }
        }
    }
}
