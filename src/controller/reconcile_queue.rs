//! Which object is looked at next: first come, first served, each by one look at a time.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

/// Of four looks that begin while urgent and ordinary objects wait, so many are at urgent ones.
const URGENT_OF_FOUR: u8 = 3;

/// Whether an object that is due goes before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// What frees or grants: a pod's end, a stop, a deletion, slots that were granted. Others wait for it.
    Urgent,
    /// All else.
    Ordinary,
}

/// The objects of one kind that are due, are looked at, or will be due at a time: each of them once.
#[derive(Debug)]
pub(crate) struct ReconcileQueue<K> {
    objects: HashMap<K, ObjectState>,
    /// By the order in which they became due.
    urgent: BTreeMap<u64, K>,
    ordinary: BTreeMap<u64, K>,
    /// By time, then in the order in which they were set.
    timer: BTreeMap<(Instant, u64), K>,
    next_number: u64,
    running: usize,
    /// Looks at urgent objects in a row while ordinary ones waited.
    urgent_in_a_row: u8,
}

#[derive(Debug)]
enum ObjectState {
    /// Its place in one of the two lines, and since when it has it.
    Due { urgency: Urgency, number: u64, since: Instant },
    /// Its place in the timer.
    Asleep { at: Instant, number: u64 },
    /// It is looked at.
    Running(AfterLook),
}

/// What follows when a look ends.
#[derive(Debug, Default)]
struct AfterLook {
    /// Something happened to it meanwhile: it is due at once.
    again: Option<Urgency>,
    /// It is due at this time at the latest.
    wake: Option<Instant>,
    /// It is gone: only something that happens to another of its name makes it due.
    gone: bool,
}

impl<K> Default for ReconcileQueue<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            urgent: BTreeMap::new(),
            ordinary: BTreeMap::new(),
            timer: BTreeMap::new(),
            next_number: 0,
            running: 0,
            urgent_in_a_row: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> ReconcileQueue<K> {
    /// Something happened to an object: it is due now, or once more after the look under way.
    pub(crate) fn add(&mut self, key: &K, urgency: Urgency, now: Instant) {
        self.wake_sleepers(now);
        match self.objects.get_mut(key) {
            Some(ObjectState::Running(after)) => {
                after.gone = false;
                if after.again != Some(Urgency::Urgent) {
                    after.again = Some(urgency);
                }
            }
            Some(ObjectState::Due { urgency: has, number, .. }) => {
                if (*has, urgency) == (Urgency::Ordinary, Urgency::Urgent)
                    && let Some(key) = self.ordinary.remove(number)
                {
                    *has = Urgency::Urgent;
                    self.urgent.insert(*number, key);
                }
            }
            Some(ObjectState::Asleep { at, number }) => {
                self.timer.remove(&(*at, *number));
                self.line_up(key.clone(), urgency, now);
            }
            None => self.line_up(key.clone(), urgency, now),
        }
    }

    /// An object is due at this time at the latest, though nothing happens to it. Of two such times the earlier one counts;
    /// what happens before makes both forgotten.
    pub(crate) fn wake_at(&mut self, key: &K, at: Instant) {
        match self.objects.get_mut(key) {
            Some(ObjectState::Running(after)) if after.gone => {}
            Some(ObjectState::Running(after)) => after.wake = Some(after.wake.map_or(at, |wake| wake.min(at))),
            Some(ObjectState::Due { .. }) => {}
            Some(ObjectState::Asleep { at: before, .. }) if *before <= at => {}
            Some(ObjectState::Asleep { at: before, number }) => {
                self.timer.remove(&(*before, *number));
                self.fall_asleep(key.clone(), at);
            }
            None => self.fall_asleep(key.clone(), at),
        }
    }

    /// An object is gone: it is due no more.
    pub(crate) fn forget(&mut self, key: &K) {
        match self.objects.get_mut(key) {
            Some(ObjectState::Running(after)) => *after = AfterLook { gone: true, ..AfterLook::default() },
            Some(ObjectState::Due { urgency, number, .. }) => {
                match urgency {
                    Urgency::Urgent => self.urgent.remove(number),
                    Urgency::Ordinary => self.ordinary.remove(number),
                };
                self.objects.remove(key);
            }
            Some(ObjectState::Asleep { at, number }) => {
                self.timer.remove(&(*at, *number));
                self.objects.remove(key);
            }
            None => {}
        }
    }

    /// The object that is looked at next, from now until [`Self::finish`]; none when none is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<K> {
        self.wake_sleepers(now);
        let (urgency, in_a_row) = match (self.urgent.is_empty(), self.ordinary.is_empty()) {
            (false, true) => (Urgency::Urgent, 0),
            (false, false) if self.urgent_in_a_row < URGENT_OF_FOUR => (Urgency::Urgent, self.urgent_in_a_row + 1),
            _ => (Urgency::Ordinary, 0),
        };
        let (_, key) = match urgency {
            Urgency::Urgent => self.urgent.pop_first(),
            Urgency::Ordinary => self.ordinary.pop_first(),
        }?;
        self.urgent_in_a_row = in_a_row;
        self.running += 1;
        self.objects.insert(key.clone(), ObjectState::Running(AfterLook::default()));
        Some(key)
    }

    /// The look at an object has ended.
    pub(crate) fn finish(&mut self, key: &K, now: Instant) {
        if !matches!(self.objects.get(key), Some(ObjectState::Running(_))) {
            return;
        }
        let Some(ObjectState::Running(after)) = self.objects.remove(key) else { return };
        self.running -= 1;
        match (after.again, after.wake) {
            (Some(urgency), _) => self.add(key, urgency, now),
            (None, Some(at)) => self.fall_asleep(key.clone(), at),
            (None, None) => {}
        }
    }

    /// How many are looked at.
    #[must_use]
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// When the next one is due that is not yet; none when none will be by itself.
    #[must_use]
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.timer.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many are due and not looked at, and since when the first of them has been.
    pub(crate) fn backlog(&mut self, now: Instant) -> (usize, Duration) {
        self.wake_sleepers(now);
        let heads = [&self.urgent, &self.ordinary].into_iter().filter_map(|line| line.values().next());
        let since = heads.filter_map(|key| match self.objects.get(key) {
            Some(ObjectState::Due { since, .. }) => Some(*since),
            _ => None,
        });
        let age = since.min().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (self.urgent.len() + self.ordinary.len(), age)
    }

    /// Those whose time has come are due since then.
    fn wake_sleepers(&mut self, now: Instant) {
        while let Some(entry) = self.timer.first_entry() {
            let (at, _) = *entry.key();
            if at.cmp(&now) == Ordering::Greater {
                break;
            }
            let key = entry.remove();
            self.line_up(key, Urgency::Ordinary, at);
        }
    }

    fn line_up(&mut self, key: K, urgency: Urgency, since: Instant) {
        let number = self.number();
        match urgency {
            Urgency::Urgent => self.urgent.insert(number, key.clone()),
            Urgency::Ordinary => self.ordinary.insert(number, key.clone()),
        };
        self.objects.insert(key, ObjectState::Due { urgency, number, since });
    }

    fn fall_asleep(&mut self, key: K, at: Instant) {
        let number = self.number();
        self.timer.insert((at, number), key.clone());
        self.objects.insert(key, ObjectState::Asleep { at, number });
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const PLACES: usize = 3;

    /// What may happen to a queue of a few objects.
    #[derive(Debug, Clone)]
    enum QueueEvent {
        Happens(u8, Urgency),
        Wake(u8, u64),
        Gone(u8),
        Pass(u64),
        /// A place takes the next object.
        Begin,
        /// The look that began first ends.
        End,
    }

    fn urgency() -> impl Strategy<Value = Urgency> {
        prop::sample::select(vec![Urgency::Urgent, Urgency::Ordinary])
    }

    fn event() -> impl Strategy<Value = QueueEvent> {
        prop_oneof![
            3 => (0..8_u8, urgency()).prop_map(|(key, urgency)| QueueEvent::Happens(key, urgency)),
            2 => (0..8_u8, 0..20_u64).prop_map(|(key, seconds)| QueueEvent::Wake(key, seconds)),
            1 => (0..8_u8).prop_map(QueueEvent::Gone),
            2 => (0..15_u64).prop_map(QueueEvent::Pass),
            4 => Just(QueueEvent::Begin),
            3 => Just(QueueEvent::End),
        ]
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A queue, and what it promised.
    struct QueueFixture {
        queue: ReconcileQueue<u8>,
        now: Instant,
        running: Vec<u8>,
        /// By when an object has to be looked at once places are free.
        promised: HashMap<u8, Instant>,
    }

    impl QueueFixture {
        fn new() -> Self {
            Self {
                queue: ReconcileQueue::default(),
                now: Instant::now(),
                running: Vec::new(),
                promised: HashMap::new(),
            }
        }

        fn happens(&mut self, event: &QueueEvent) {
            match *event {
                QueueEvent::Happens(key, urgency) => {
                    self.queue.add(&key, urgency, self.now);
                    self.promised.entry(key).and_modify(|at| *at = self.now.min(*at)).or_insert(self.now);
                }
                QueueEvent::Wake(key, wait) => {
                    let at = self.now + seconds(wait);
                    let ignored = self.running.contains(&key) && self.is_gone(key);
                    self.queue.wake_at(&key, at);
                    if !ignored {
                        self.promised.entry(key).and_modify(|before| *before = at.min(*before)).or_insert(at);
                    }
                }
                QueueEvent::Gone(key) => {
                    self.queue.forget(&key);
                    self.promised.remove(&key);
                }
                QueueEvent::Pass(by) => self.now += seconds(by),
                QueueEvent::Begin if self.running.len() < PLACES => {
                    if let Some(key) = self.queue.take(self.now) {
                        assert!(!self.running.contains(&key), "two looks at {key} at one time");
                        let promised = self.promised.remove(&key);
                        assert!(promised.is_some_and(|at| at <= self.now), "nobody asked for {key} by now");
                        self.running.push(key);
                    }
                }
                QueueEvent::End if !self.running.is_empty() => {
                    let key = self.running.remove(0);
                    self.queue.finish(&key, self.now);
                }
                QueueEvent::Begin | QueueEvent::End => {}
            }
            assert_eq!(self.queue.running(), self.running.len());
            self.each_is_there_once();
        }

        fn is_gone(&self, key: u8) -> bool {
            matches!(self.queue.objects.get(&key), Some(ObjectState::Running(after)) if after.gone)
        }

        fn each_is_there_once(&self) {
            let queue = &self.queue;
            let lined_up = queue.urgent.values().chain(queue.ordinary.values()).chain(queue.timer.values());
            let all: Vec<_> = lined_up.chain(&self.running).collect();
            let once: HashSet<_> = all.iter().collect();
            assert_eq!((once.len(), queue.objects.len()), (all.len(), all.len()), "{queue:?}");
        }

        /// Looks at all that is due, without a place that stays taken.
        fn drain(&mut self) {
            while !self.running.is_empty() || self.queue.backlog(self.now).0 > 0 {
                self.happens(&QueueEvent::Begin);
                self.happens(&QueueEvent::End);
            }
        }
    }

    proptest! {
        #[test]
        fn none_is_looked_at_twice_at_a_time_none_is_forgotten_and_none_comes_without_a_reason(
            events in prop::collection::vec(event(), 0..200),
        ) {
            let mut case = QueueFixture::new();
            for event in &events {
                case.happens(event);
            }
            case.drain();
            prop_assert!(case.promised.values().all(|at| *at > case.now), "{:?} are due", case.promised);
            case.now += seconds(60);
            case.drain();
            prop_assert!(case.promised.is_empty(), "{:?} were to be woken", case.promised);
            prop_assert!(case.queue.objects.is_empty() && case.queue.next_wake().is_none());
        }

        #[test]
        fn neither_urgency_starves_however_much_comes_of_the_other(
            ahead in 0..40_usize,
            urgency in urgency(),
            others in prop::collection::vec(0..6_u16, 400),
        ) {
            let now = Instant::now();
            let mut queue = ReconcileQueue::default();
            let other = if urgency == Urgency::Urgent { Urgency::Ordinary } else { Urgency::Urgent };
            for key in 0..=ahead {
                queue.add(&key, urgency, now);
            }
            let mut next = 1000;
            let mut takes = 0;
            for come in others {
                for _ in 0..come {
                    queue.add(&next, other, now);
                    next += 1;
                }
                takes += 1;
                if queue.take(now) == Some(ahead) {
                    break;
                }
            }
            let most = if urgency == Urgency::Urgent { (ahead + 1) * 4 / 3 + 1 } else { (ahead + 1) * 4 };
            prop_assert!(takes <= most, "the object behind {ahead} others was the {takes}th to be looked at");
        }

        #[test]
        fn of_equal_urgency_who_was_due_first_is_looked_at_first(waits in prop::collection::vec(0..50_u64, 1..60)) {
            let began = Instant::now();
            let mut queue = ReconcileQueue::default();
            for (key, wait) in waits.iter().enumerate() {
                queue.wake_at(&key, began + seconds(*wait));
            }
            let taken: Vec<_> = std::iter::from_fn(|| queue.take(began + seconds(50))).collect();
            let mut wanted: Vec<_> = (0..waits.len()).collect();
            wanted.sort_by_key(|key| waits[*key]);
            prop_assert_eq!(taken, wanted);
        }
    }

    #[test]
    fn what_happens_during_a_look_is_looked_at_once_more_and_at_once() {
        let now = Instant::now();
        let mut queue = ReconcileQueue::default();
        queue.add(&"a", Urgency::Ordinary, now);
        assert_eq!(queue.take(now), Some("a"));
        queue.add(&"a", Urgency::Ordinary, now);
        queue.add(&"a", Urgency::Urgent, now);
        queue.add(&"b", Urgency::Ordinary, now);
        queue.wake_at(&"a", now + seconds(60));
        assert_eq!(queue.take(now), Some("b"));
        assert_eq!(queue.take(now), None);
        queue.finish(&"a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.finish(&"a", now);
        assert_eq!((queue.take(now + seconds(90)), queue.next_wake()), (None, None));
    }

    #[test]
    fn of_two_times_the_earlier_counts_and_one_that_is_gone_is_not_woken() {
        let now = Instant::now();
        let mut queue = ReconcileQueue::default();
        for (key, first, second) in [("a", 10, 20), ("b", 20, 10)] {
            queue.add(&key, Urgency::Ordinary, now);
            assert_eq!(queue.take(now), Some(key));
            queue.wake_at(&key, now + seconds(first));
            queue.wake_at(&key, now + seconds(second));
            queue.finish(&key, now);
            assert_eq!(queue.next_wake(), Some(now + seconds(10)));
            queue.forget(&key);
            assert_eq!(queue.next_wake(), None);
        }
        queue.add(&"c", Urgency::Ordinary, now);
        assert_eq!(queue.take(now), Some("c"));
        queue.forget(&"c");
        queue.wake_at(&"c", now + seconds(1));
        queue.finish(&"c", now);
        assert_eq!((queue.take(now + seconds(9)), queue.objects.len()), (None, 0));
    }

    #[test]
    fn the_backlog_tells_how_many_are_due_and_since_when() {
        let now = Instant::now();
        let mut queue = ReconcileQueue::default();
        assert_eq!(queue.backlog(now), (0, Duration::ZERO));
        queue.wake_at(&"a", now + seconds(10));
        queue.wake_at(&"b", now + seconds(40));
        queue.add(&"c", Urgency::Urgent, now + seconds(15));
        assert_eq!(queue.backlog(now + seconds(30)), (2, seconds(20)));
        assert_eq!(queue.take(now + seconds(30)), Some("c"));
        assert_eq!(queue.take(now + seconds(30)), Some("a"));
        assert_eq!(queue.backlog(now + seconds(30)), (0, Duration::ZERO));
    }
}
