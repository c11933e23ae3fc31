//! Messages that were not copied, and what is known of each: kept until they are copied or gone from the source.
//!
//! A refusal is no verdict. A message is *proven* to be refused for its own sake only by tries beside which ordinary
//! messages of at least its size passed; a proven one is tried again now and then, one without proof by every run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::uid::SourceUid;
use crate::{error::ErrorClass, imap::UidSet};

/// At most so many groups are kept for one folder.
pub(crate) const MAX_GROUPS: usize = 16;
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
    /// Other messages of its folder took all the time that there was.
    NotTried,
    /// The source counts it and lists it nowhere. Such messages have no UIDs: they are a number in the checkpoint, and in
    /// no group.
    Unlisted,
}

impl SetAsideReason {
    /// Every reason.
    pub(crate) const ALL: [Self; 6] =
        [Self::TooLarge, Self::Refused, Self::Unreadable, Self::Empty, Self::NotTried, Self::Unlisted];

    /// The name in checkpoints, reports, status and metrics.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "tooLarge",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Empty => "empty",
            Self::NotTried => "notTried",
            Self::Unlisted => "unlisted",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub(crate) fn from_name(name: &str) -> Option<Self> {
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
    pub uids: UidSet<SourceUid>,
}

impl SetAsideGroup {
    /// Messages that this run sets aside without a refusal: the source did not deliver them, or the destination says beforehand
    /// that they are too large, which is proof enough.
    #[must_use]
    pub(crate) fn without_refusal(
        reason: SetAsideReason,
        class: ErrorClass,
        why: &str,
        facts: &RetryFacts,
        uids: UidSet<SourceUid>,
    ) -> Self {
        Self {
            class,
            why: why.to_owned(),
            proven: reason == SetAsideReason::TooLarge,
            tries: 1,
            last_try: facts.now,
            destination: facts.destination.clone(),
            rules: facts.rules,
            ..Self::new(reason, uids)
        }
    }

    /// Messages of which nothing but the reason is known: they are tried by the next run.
    #[must_use]
    pub fn new(reason: SetAsideReason, uids: UidSet<SourceUid>) -> Self {
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
pub struct RetryFacts {
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
    pub(crate) fn is_due(&self, facts: &RetryFacts) -> bool {
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
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All UIDs.
    #[must_use]
    pub fn uids(&self) -> UidSet<SourceUid> {
        self.groups.iter().fold(UidSet::default(), |all, group| all.union(&group.uids))
    }

    /// UIDs that a run which begins now tries.
    #[must_use]
    pub(crate) fn due_uids(&self, facts: &RetryFacts) -> UidSet<SourceUid> {
        let due = self.groups.iter().filter(|group| group.is_due(facts));
        due.fold(UidSet::default(), |all, group| all.union(&group.uids))
    }

    /// The group of a message.
    #[must_use]
    pub(crate) fn group_of(&self, uid: SourceUid) -> Option<&SetAsideGroup> {
        self.groups.iter().find(|group| group.uids.contains(uid))
    }

    /// Messages by the name of the reason.
    #[must_use]
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for group in &self.groups {
            *counts.entry(group.reason.name().to_owned()).or_default() += group.uids.len();
        }
        counts
    }

    /// Sets messages aside; what was known of them before is forgotten. Where there would be too many groups, the two
    /// of one reason that hold the fewest messages become one.
    pub fn add_group(&mut self, mut group: SetAsideGroup) {
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
        // Sixteen groups and six reasons: there are always two of one.
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
    pub(crate) fn remove(&mut self, uids: &UidSet<SourceUid>) {
        for group in &mut self.groups {
            group.uids = group.uids.difference(uids);
        }
        self.groups.retain(|group| !group.uids.is_empty());
    }

    /// Keeps only what the source still holds.
    pub(crate) fn retain_uids(&mut self, held: &UidSet<SourceUid>) {
        for group in &mut self.groups {
            group.uids = group.uids.intersection(held);
        }
        self.groups.retain(|group| !group.uids.is_empty());
    }

    /// A run that does not try some of the messages passes them by.
    pub(crate) fn count_passed_run(&mut self, tried: &UidSet<SourceUid>) {
        for group in &mut self.groups {
            if !group.uids.is_empty() && group.uids.intersection(tried).is_empty() {
                group.runs = group.runs.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(reason: SetAsideReason, why: &str, uids: &str) -> SetAsideGroup {
        SetAsideGroup { why: why.into(), ..SetAsideGroup::new(reason, UidSet::parse(uids).unwrap()) }
    }

    fn proven(runs: u32) -> SetAsideGroup {
        let last_try = 1_000_000;
        SetAsideGroup { proven: true, runs, last_try, ..group(SetAsideReason::Refused, "no", "7") }
    }

    fn now() -> RetryFacts {
        RetryFacts { now: 1_000_100, ..RetryFacts::default() }
    }

    #[test]
    fn a_proven_refusal_is_tried_by_the_first_second_fourth_and_eighth_run_after_it() {
        let due: Vec<u32> = (1..=16).filter(|run| proven(run - 1).is_due(&now())).collect();
        assert_eq!(due, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_week_another_destination_other_rules_and_a_request_make_a_proven_refusal_due() {
        let group = proven(2);
        assert!(!group.is_due(&now()));
        assert!(group.is_due(&RetryFacts { now: 1_000_000 + TRY_AGAIN_AFTER, ..now() }));
        assert!(group.is_due(&RetryFacts { requested: true, ..now() }));
        assert!(group.is_due(&RetryFacts { rules: 9, ..now() }));
        let upgraded = DestinationFacts { server: Some("Dovecot 2.4".into()), append_limit: None };
        assert!(group.is_due(&RetryFacts { destination: upgraded, ..now() }));
    }

    #[test]
    fn without_proof_every_run_tries() {
        assert!((0..20).all(|runs| SetAsideGroup { proven: false, ..proven(runs) }.is_due(&now())));
    }

    #[test]
    fn what_is_too_large_waits_for_another_limit() {
        let limit = |append_limit| DestinationFacts { append_limit: Some(append_limit), server: None };
        let group = SetAsideGroup { destination: limit(1000), ..group(SetAsideReason::TooLarge, "", "7") };
        assert!(!group.is_due(&RetryFacts { destination: limit(1000), requested: true, ..now() }));
        assert!(group.is_due(&RetryFacts { destination: limit(2000), ..now() }));
    }

    #[test]
    fn of_many_reasons_the_rarest_are_joined_and_tried_sooner() {
        let mut aside = SetAside::default();
        for n in 0..40_u32 {
            let uids = format!("{}:{}", n * 100 + 1, n * 100 + 1 + n);
            aside.add_group(SetAsideGroup {
                proven: n != 0,
                ..group(SetAsideReason::Refused, &format!("text {n}"), &uids)
            });
        }
        assert_eq!(aside.groups().len(), MAX_GROUPS);
        assert_eq!(aside.counts(), BTreeMap::from([("refused".to_owned(), (1..=40).sum::<u64>())]));
        assert!(!aside.group_of(SourceUid(1)).unwrap().proven);
        assert_eq!(aside.group_of(SourceUid(3901)).unwrap().why, "text 39");
    }

    proptest! {
        #[test]
        fn each_message_is_in_one_group_and_none_is_forgotten(
            puts in proptest::collection::vec((0..5_usize, 0..30_u32, 1..60_u32, 0..9_u32, any::<bool>()), 0..60),
        ) {
            let mut aside = SetAside::default();
            let mut all = UidSet::default();
            for (reason, why, first, more, proven) in puts {
                let uids = UidSet::from_ranges([(SourceUid(first), SourceUid(first + more))]);
                all = all.union(&uids);
                let reason = SetAsideReason::ALL[reason];
                let why = format!("{why}");
                aside.add_group(SetAsideGroup { why, proven, ..SetAsideGroup::new(reason, uids) });
                prop_assert!(aside.groups().len() <= MAX_GROUPS);
            }
            prop_assert_eq!(aside.groups().iter().map(|group| group.uids.len()).sum::<u64>(), all.len());
            prop_assert_eq!(aside.uids(), all);
        }
    }
}
