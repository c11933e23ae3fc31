//! What a queued mailbox waits for, in words; and how often another word is written.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::controller::admission::{LimitedResource, SlotWait};

/// For so long the words stay as they are: limits take turns, and each other word costs the API server a write.
pub(super) const WORDS_PERIOD: Duration = Duration::from_mins(5);
/// The most characters of what the API server said.
const LONGEST_ANSWER: usize = 400;

/// What a mailbox waits for, as its Ready condition says it.
#[must_use]
pub(super) fn wait_words(wait: &SlotWait) -> String {
    let most = |limit: &Option<usize>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    match wait {
        SlotWait::PodsRefused(why) => {
            let why: String = why.chars().take(LONGEST_ANSWER).collect();
            format!("waiting until pods can be made in this namespace: {why}")
        }
        SlotWait::Account | SlotWait::Room(LimitedResource::Account(_), _) => {
            "waiting for the destination account: another sync uses it".to_owned()
        }
        SlotWait::Room(LimitedResource::Operator, limit) => {
            format!("waiting for a place among the operator's syncs (maxSyncs: {})", most(limit))
        }
        SlotWait::Room(LimitedResource::Namespace(_), limit) => {
            format!(
                "waiting for a place among the namespace's syncs (the operator's maxSyncsPerNamespace: {})",
                most(limit)
            )
        }
        SlotWait::Room(LimitedResource::Migration(_), limit) => {
            format!("waiting for a place among the migration's syncs (parallelism: {})", most(limit))
        }
        SlotWait::Room(LimitedResource::Server(_, server), limit) => {
            format!("waiting for connections to {server} (limits.maxConnections: {})", most(limit))
        }
        SlotWait::Room(LimitedResource::Host(host), limit) => {
            format!("waiting for connections to {host} (the operator's hostLimits, maxConnections: {})", most(limit))
        }
        SlotWait::Start(LimitedResource::Host(host), limit) => {
            format!("waiting to start on {host} (the operator's hostLimits, startsPerMinute: {limit})")
        }
        SlotWait::Start(LimitedResource::Server(_, server), limit) => {
            format!("waiting to start on {server} (limits.startsPerMinute: {limit})")
        }
        // Only servers limit starts.
        SlotWait::Turn | SlotWait::Start(..) => "waiting for its turn".to_owned(),
    }
}

/// Since when the words that are written of queued mailboxes stand.
#[derive(Debug, Default)]
pub(crate) struct ToldWaits(Mutex<HashMap<String, Instant>>);

impl ToldWaits {
    fn times(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The words to be written of a mailbox: those that its status has (`before`), until they are [`WORDS_PERIOD`] old.
    pub(super) fn choose(&self, uid: &str, before: Option<&str>, words: String, now: Instant) -> String {
        let mut times = self.times();
        let Some(before) = before else {
            times.remove(uid);
            return words;
        };
        let since = times.entry(uid.to_owned()).or_insert(now);
        if now.saturating_duration_since(*since) < WORDS_PERIOD {
            return before.to_owned();
        }
        *since = now;
        words
    }

    /// A mailbox waits no more.
    pub(crate) fn forget(&self, uid: &str) {
        self.times().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn each_limit_is_told_by_the_name_of_the_field_that_sets_it() {
        let server = || LimitedResource::Server("ns".into(), "old.example:993".into());
        let host = || LimitedResource::Host("old.example:993".into());
        let mut told = String::new();
        for wait in [
            SlotWait::Turn,
            SlotWait::PodsRefused("exceeded quota: pods".into()),
            SlotWait::Account,
            SlotWait::Room(LimitedResource::Operator, Some(1000)),
            SlotWait::Room(LimitedResource::Namespace("ns".into()), Some(50)),
            SlotWait::Room(LimitedResource::Migration(("ns".into(), "m".into())), Some(20)),
            SlotWait::Room(server(), Some(40)),
            SlotWait::Room(host(), Some(80)),
            SlotWait::Start(server(), 10),
            SlotWait::Start(host(), 30),
        ] {
            writeln!(told, "{}", wait_words(&wait)).unwrap();
        }
        insta::assert_snapshot!(told, @r"
        waiting for its turn
        waiting until pods can be made in this namespace: exceeded quota: pods
        waiting for the destination account: another sync uses it
        waiting for a place among the operator's syncs (maxSyncs: 1000)
        waiting for a place among the namespace's syncs (the operator's maxSyncsPerNamespace: 50)
        waiting for a place among the migration's syncs (parallelism: 20)
        waiting for connections to old.example:993 (limits.maxConnections: 40)
        waiting for connections to old.example:993 (the operator's hostLimits, maxConnections: 80)
        waiting to start on old.example:993 (limits.startsPerMinute: 10)
        waiting to start on old.example:993 (the operator's hostLimits, startsPerMinute: 30)
        ");
    }

    #[test]
    fn words_change_only_now_and_then_and_are_new_for_who_waits_anew() {
        let (told, now) = (ToldWaits::default(), Instant::now());
        let choose = |before, words: &str, now| told.choose("uid", before, words.to_owned(), now);
        assert_eq!(choose(None, "a", now), "a");
        assert_eq!(choose(Some("a"), "b", now), "a");
        assert_eq!(choose(Some("a"), "b", now + WORDS_PERIOD / 2), "a");
        assert_eq!(choose(Some("a"), "b", now + WORDS_PERIOD), "b");
        assert_eq!(choose(Some("b"), "c", now + WORDS_PERIOD), "b");
        assert_eq!(choose(None, "c", now + WORDS_PERIOD), "c", "it waits anew");
        assert_eq!(choose(Some("c"), "d", now + 2 * WORDS_PERIOD), "c", "nothing is remembered of before");
    }
}
