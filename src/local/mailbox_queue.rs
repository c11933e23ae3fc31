//! Which mailbox runs next: a pure decision from what each needs, what is in use and the limits.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Instant,
};

use crate::{
    api::time_window::TimeWindow,
    error::{Error, Result, Side},
    forecast::KnownRates,
    start_limits::{self, ReservedResources, ResourceShare, ResourceUsage, connections_within},
    sync::spec::SyncSpec,
};

/// What is shared between mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LocalResource {
    /// Connections to a server, by `host:port`.
    Connections(String),
    /// The right to append to an account: never two mailboxes at once, whatever folder each writes to.
    Writer { address: String, username: String },
}

/// What one mailbox takes while it runs.
pub(crate) type MailboxNeeds = start_limits::ResourceNeeds<LocalResource>;

/// What a server allows all mailboxes together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerLimit {
    /// Connections at one time.
    pub connections: Option<usize>,
    /// Mailboxes started within one minute.
    pub starts_per_minute: Option<usize>,
    /// Bytes in a second, in both directions.
    pub bytes_per_second: Option<u64>,
    /// When syncs may run: each has to have a window open.
    pub windows: Vec<Vec<TimeWindow>>,
}

impl ServerLimit {
    /// The stricter of both, of each kind.
    #[must_use]
    pub(crate) fn stricter(&self, other: &Self) -> Self {
        let stricter = |one: Option<usize>, two: Option<usize>| one.into_iter().chain(two).min();
        let new = other.windows.iter().filter(|windows| !self.windows.contains(windows));
        Self {
            connections: stricter(self.connections, other.connections),
            starts_per_minute: stricter(self.starts_per_minute, other.starts_per_minute),
            bytes_per_second: self.bytes_per_second.into_iter().chain(other.bytes_per_second).min(),
            windows: self.windows.iter().chain(new).cloned().collect(),
        }
    }
}

/// Limits of each server, by `host:port` in lower case; a server without an entry has none.
pub(crate) type ServerLimits = BTreeMap<String, ServerLimit>;

/// The lowest rates that limits of servers allow all mailboxes together.
#[must_use]
pub(crate) fn rates_within_limits(limits: &ServerLimits) -> KnownRates {
    let starts = limits.values().filter_map(|limit| limit.starts_per_minute).min();
    let starts_per_minute = starts.and_then(|starts| u64::try_from(starts).ok());
    let limit = limits.values().filter_map(|limit| limit.bytes_per_second).min();
    KnownRates { measured: None, limit, starts_per_minute }
}

/// Lowers a mailbox's connections to what its servers allow, and says what it takes of what is shared.
///
/// # Errors
/// Configuration when a server allows too few connections for this mailbox to run at all.
pub(crate) fn fit_to_limits(spec: &mut SyncSpec, limits: &ServerLimits) -> Result<MailboxNeeds> {
    let address = |side: &crate::imap::Endpoint| side.address().to_lowercase();
    let (source, destination) = (address(&spec.source), address(&spec.destination));
    let same_server = source == destination;
    for (side, host) in [(Side::Source, &source), (Side::Destination, &destination)] {
        let Some(limit) = limits.get(host).and_then(|limit| limit.connections) else { continue };
        spec.connections = connections_within(spec.connections, [limit], same_server);
        if spec.connections == 0 {
            let needed = 1 + usize::from(same_server);
            return Err(Error::configuration(format!(
                "this server is limited to {limit} connections, and the mailbox needs at least {needed}"
            ))
            .advice("Raise limits.maxConnections of the MailServer")
            .on(side, host.clone())
            .in_mailbox(&spec.mailbox));
        }
    }
    let mut needs = MailboxNeeds::new();
    for host in [&source, &destination] {
        let limit = limits.get(host).cloned().unwrap_or_default();
        let share = ResourceShare {
            units: spec.connections,
            limit: limit.connections,
            starts_per_minute: limit.starts_per_minute,
        };
        let connections = LocalResource::Connections(host.clone());
        needs.entry(connections).and_modify(|there| there.units += share.units).or_insert(share);
    }
    let username = spec.destination.login.username.to_lowercase();
    let writer = ResourceShare { units: 1, limit: Some(1), starts_per_minute: None };
    needs.insert(LocalResource::Writer { address: destination, username }, writer);
    Ok(needs)
}

/// Mailboxes that wait and run, first come first served.
#[derive(Debug)]
pub(crate) struct MailboxQueue {
    slots: usize,
    usage: ResourceUsage<LocalResource>,
    pending: VecDeque<(usize, MailboxNeeds)>,
    running: HashMap<usize, MailboxNeeds>,
}

impl MailboxQueue {
    /// A queue for at most `slots` mailboxes at once. The needs of each come from [`fit_to_limits`], beside the caller's
    /// number for the mailbox: a need above a limit would wait for ever.
    #[must_use]
    pub(crate) fn new(slots: usize, pending: impl IntoIterator<Item = (usize, MailboxNeeds)>) -> Self {
        Self {
            slots: slots.max(1),
            usage: ResourceUsage::default(),
            pending: pending.into_iter().collect(),
            running: HashMap::new(),
        }
    }

    /// How many mailboxes wait.
    #[must_use]
    pub(crate) fn waiting_count(&self) -> usize {
        self.pending.len()
    }

    /// The mailboxes that wait, in their order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = usize> {
        self.pending.iter().map(|(mailbox, _)| *mailbox)
    }

    /// The next mailbox that may start at `now`; it counts as running from here on. One that waits reserves all limited
    /// resources that it needs, so that no later one overtakes it for ever, and lets mailboxes on other servers pass. One
    /// whose time it is not (`is_time`) lets all others pass.
    pub(crate) fn start_next(&mut self, now: Instant, is_time: impl Fn(usize) -> bool) -> Option<usize> {
        if self.running.len() >= self.slots {
            return None;
        }
        self.usage.expire_starts(now);
        let mut reserved = ReservedResources::default();
        let position = self.pending.iter().position(|(mailbox, needs)| {
            if !is_time(*mailbox) {
                return false;
            }
            let fits = needs.iter().all(|(resource, share)| self.usage.is_free(resource, share, &reserved));
            if !fits {
                for (resource, _) in needs.iter().filter(|(_, share)| share.is_limited()) {
                    reserved.reserve(resource);
                }
            }
            fits
        })?;
        let (mailbox, needs) = self.pending.remove(position)?;
        self.usage.start(&needs, now);
        self.running.insert(mailbox, needs);
        Some(mailbox)
    }

    /// Gives back what a mailbox has taken that did not come to its end: it is the next one to start again.
    pub(crate) fn put_back(&mut self, mailbox: usize) {
        if let Some(needs) = self.running.remove(&mailbox) {
            self.usage.release(&needs);
            self.pending.push_front((mailbox, needs));
        }
    }

    /// Gives back what a mailbox has taken.
    pub(crate) fn release(&mut self, mailbox: usize) {
        if let Some(needs) = self.running.remove(&mailbox) {
            self.usage.release(&needs);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::sync::testing::spec;

    const ALWAYS: fn(usize) -> bool = |_| true;

    fn limits(of: &[(&str, usize)]) -> ServerLimits {
        let limit = |connections| ServerLimit {
            connections: Some(connections),
            starts_per_minute: None,
            ..ServerLimit::default()
        };
        of.iter().map(|(host, connections)| ((*host).to_owned(), limit(*connections))).collect()
    }

    fn needs(specs: &mut [SyncSpec], limits: &ServerLimits) -> Vec<(usize, MailboxNeeds)> {
        specs.iter_mut().map(|s| fit_to_limits(s, limits).unwrap()).enumerate().collect()
    }

    #[test]
    fn a_mailbox_takes_no_more_connections_than_its_servers_allow() {
        let mut alice = spec("alice");
        alice.connections = 4;
        let need = fit_to_limits(&mut alice, &limits(&[("old.example:993", 3)])).unwrap();
        assert_eq!(alice.connections, 3);
        assert_eq!(need[&LocalResource::Connections("old.example:993".into())].units, 3);
        assert_eq!(need[&LocalResource::Connections("new.example:993".into())].units, 3);
    }

    #[test]
    fn both_sides_on_one_server_count_together() {
        let mut alice = spec("alice");
        alice.connections = 4;
        alice.destination.host = "OLD.example".into();
        let need = fit_to_limits(&mut alice, &limits(&[("old.example:993", 5)])).unwrap();
        assert_eq!(alice.connections, 2);
        assert_eq!(need[&LocalResource::Connections("old.example:993".into())].units, 4);
        let error = fit_to_limits(&mut alice, &limits(&[("old.example:993", 1)])).unwrap_err();
        assert_eq!(error.class, crate::ErrorClass::Configuration);
    }

    #[test]
    fn two_mailboxes_never_write_to_one_account_at_once() {
        let at = Instant::now();
        let (mut one, mut two) = (spec("one"), spec("two"));
        two.destination.login.username = "ONE@new.example".into();
        one.destination.login.username = "one@new.example".into();
        let none = ServerLimits::new();
        let mut queue = MailboxQueue::new(8, needs(&mut [one, two], &none));
        assert_eq!((queue.start_next(at, ALWAYS), queue.start_next(at, ALWAYS)), (Some(0), None));
        queue.release(0);
        assert_eq!(queue.start_next(at, ALWAYS), Some(1));
    }

    #[test]
    fn a_mailbox_that_waits_for_its_account_holds_up_no_other_on_servers_without_limits() {
        let now = Instant::now();
        let (one, mut two, three) = (spec("one"), spec("two"), spec("three"));
        two.destination.login.username.clone_from(&one.destination.login.username);
        let none = ["old.example:993", "new.example:993"].map(|host| (host.to_owned(), ServerLimit::default()));
        let mut queue = MailboxQueue::new(8, needs(&mut [one, two, three], &ServerLimits::from(none)));
        assert_eq!([(); 3].map(|()| queue.start_next(now, ALWAYS)), [Some(0), Some(2), None]);
    }

    #[test]
    fn a_full_server_does_not_hold_up_mailboxes_on_another() {
        let at = Instant::now();
        let (one, two, mut three) = (spec("one"), spec("two"), spec("three"));
        three.source.host = "third.example".into();
        let limits = limits(&[("old.example:993", 4)]);
        let mut queue = MailboxQueue::new(8, needs(&mut [one, two, three], &limits));
        assert_eq!(
            (queue.start_next(at, ALWAYS), queue.start_next(at, ALWAYS), queue.start_next(at, ALWAYS)),
            (Some(0), Some(2), None)
        );
    }

    #[test]
    fn a_large_need_is_not_overtaken_by_small_ones_on_its_server() {
        let at = Instant::now();
        let (mut small, big, mut late) = (spec("small"), spec("big"), spec("late"));
        small.connections = 2;
        late.connections = 2;
        let limits = limits(&[("old.example:993", 4)]);
        let mut queue = MailboxQueue::new(8, needs(&mut [small, big, late], &limits));
        assert_eq!((queue.start_next(at, ALWAYS), queue.start_next(at, ALWAYS)), (Some(0), None));
        queue.release(0);
        assert_eq!((queue.start_next(at, ALWAYS), queue.start_next(at, ALWAYS)), (Some(1), None));
    }

    #[test]
    fn a_server_gets_no_more_starts_within_a_minute_than_it_allows() {
        let at = Instant::now();
        let pace = ServerLimit { connections: None, starts_per_minute: Some(2), ..ServerLimit::default() };
        let limits = ServerLimits::from([("old.example:993".into(), pace)]);
        let mut elsewhere = spec("elsewhere");
        elsewhere.source.host = "third.example".into();
        let mut specs = [spec("a"), spec("b"), spec("c"), elsewhere];
        let mut queue = MailboxQueue::new(8, needs(&mut specs, &limits));
        let started = std::array::from_fn(|_| queue.start_next(at, ALWAYS));
        assert_eq!(started, [Some(0), Some(1), Some(3), None]);
        queue.release(0);
        assert_eq!(queue.start_next(at + Duration::from_secs(59), ALWAYS), None);
        assert_eq!(queue.start_next(at + Duration::from_mins(1), ALWAYS), Some(2));
    }

    #[test]
    fn of_two_limits_for_one_server_the_stricter_holds() {
        let one = ServerLimit { connections: Some(5), starts_per_minute: None, ..ServerLimit::default() };
        let two = ServerLimit { connections: Some(3), starts_per_minute: Some(9), ..ServerLimit::default() };
        assert_eq!(
            one.stricter(&two),
            ServerLimit { connections: Some(3), starts_per_minute: Some(9), ..ServerLimit::default() }
        );
    }

    #[test]
    fn a_mailbox_whose_time_it_is_not_lets_all_others_pass_and_one_that_is_put_back_is_the_next() {
        let now = Instant::now();
        let (one, two, mut three) = (spec("one"), spec("two"), spec("three"));
        three.source.host = "third.example".into();
        let mut queue = MailboxQueue::new(8, needs(&mut [one, two, three], &limits(&[("old.example:993", 4)])));
        assert_eq!(queue.start_next(now, |mailbox| mailbox == 2), Some(2));
        assert_eq!((queue.start_next(now, |_| false), queue.waiting_count()), (None, 2));
        assert_eq!(queue.start_next(now, ALWAYS), Some(0));
        queue.put_back(0);
        assert_eq!(queue.waiting().collect::<Vec<_>>(), [0, 1]);
        assert_eq!((queue.start_next(now, ALWAYS), queue.start_next(now, ALWAYS)), (Some(0), None));
    }

    proptest! {
        #[test]
        fn every_mailbox_runs_once_and_no_limit_is_ever_exceeded(
            mailboxes in proptest::collection::vec((0_u8..3, 0_u8..3, 1_usize..6, 0_u8..4), 1..40),
            hosts in proptest::collection::btree_map(0_u8..3, 2_usize..9, 0..3),
            slots in 1_usize..6,
            order in any::<u64>(),
        ) {
            let at = Instant::now();
            let limits: ServerLimits = hosts
                .iter()
                .map(|(h, l)| (format!("h{h}:993"), ServerLimit { connections: Some(*l), starts_per_minute: None, ..ServerLimit::default() }))
                .collect();
            let mut specs: Vec<SyncSpec> = mailboxes.iter().enumerate().map(|(i, (source, destination, c, user))| {
                let mut s = spec(&format!("m{i}"));
                s.source.host = format!("h{source}");
                s.destination.host = format!("h{destination}");
                s.destination.login.username = format!("u{user}");
                s.connections = *c;
                s
            }).collect();
            let needs = needs(&mut specs, &limits);
            let mut queue = MailboxQueue::new(slots, needs.clone());
            let (mut running, mut done, mut order) = (Vec::new(), Vec::new(), order);
            while done.len() < specs.len() {
                while let Some(next) = queue.start_next(at, ALWAYS) { running.push(next); }
                prop_assert!(!running.is_empty(), "stuck with {} waiting", queue.waiting_count());
                prop_assert!(running.len() <= slots);
                let mut used = MailboxNeeds::new();
                for (resource, share) in running.iter().flat_map(|number: &usize| &needs[*number].1) {
                    used.entry(resource.clone()).and_modify(|sum| sum.units += share.units).or_insert(*share);
                }
                for share in used.values() {
                    prop_assert!(share.limit.is_none_or(|limit| share.units <= limit));
                }
                order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let ended = running.swap_remove((order >> 33) as usize % running.len());
                queue.release(ended);
                done.push(ended);
            }
            done.sort_unstable();
            prop_assert_eq!(done, (0..specs.len()).collect::<Vec<_>>());
            prop_assert!(queue.usage.is_empty());
        }
    }
}
