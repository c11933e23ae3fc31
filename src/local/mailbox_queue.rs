//! Which mailbox runs next: a pure decision from what each needs, what is in use and the limits.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result, Side},
    sync::spec::SyncSpec,
};

/// What is shared between mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SharedResource {
    /// Connections to a server, by `host:port`.
    Connections(String),
    /// The right to append to an account: never two mailboxes at once, whatever folder each writes to.
    Writer { address: String, username: String },
}

/// What a server allows all mailboxes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerLimit {
    /// Connections at one time.
    pub connections: Option<usize>,
    /// Mailboxes started within one minute.
    pub starts_per_minute: Option<usize>,
}

impl ServerLimit {
    /// The stricter of both, of each kind.
    #[must_use]
    pub(crate) fn stricter(self, other: Self) -> Self {
        let stricter = |one: Option<usize>, two: Option<usize>| one.into_iter().chain(two).min();
        Self {
            connections: stricter(self.connections, other.connections),
            starts_per_minute: stricter(self.starts_per_minute, other.starts_per_minute),
        }
    }
}

/// Limits of each server, by `host:port` in lower case; a server without an entry has none.
pub(crate) type ServerLimits = BTreeMap<String, ServerLimit>;

/// What one mailbox uses while it runs.
pub(crate) type ResourceNeeds = BTreeMap<SharedResource, usize>;

/// Lowers a mailbox's connections to what its servers allow, and says what it will use of what is shared.
///
/// # Errors
/// Configuration when a server allows too few connections for this mailbox to run at all.
pub(crate) fn fit_to_limits(spec: &mut SyncSpec, limits: &ServerLimits) -> Result<ResourceNeeds> {
    let address = |side: &crate::imap::Endpoint| side.address().to_lowercase();
    let (source, destination) = (address(&spec.source), address(&spec.destination));
    let sides_on = |host: &str| usize::from(source == host) + usize::from(destination == host);
    for (side, host) in [(Side::Source, &source), (Side::Destination, &destination)] {
        let Some(limit) = limits.get(host).and_then(|limit| limit.connections) else { continue };
        spec.connections = spec.connections.min(limit / sides_on(host));
        if spec.connections == 0 {
            let needed = sides_on(host);
            return Err(Error::configuration(format!(
                "this server is limited to {limit} connections, and the mailbox needs at least {needed}"
            ))
            .advice("Raise limits.maxConnections of the MailServer")
            .on(side, host.clone())
            .in_mailbox(&spec.mailbox));
        }
    }
    let mut need = ResourceNeeds::new();
    for host in [&source, &destination] {
        *need.entry(SharedResource::Connections(host.clone())).or_default() += spec.connections;
    }
    let username = spec.destination.login.username.to_lowercase();
    need.insert(SharedResource::Writer { address: destination, username }, 1);
    Ok(need)
}

/// Mailboxes that wait and run, first come first served.
#[derive(Debug)]
pub(crate) struct MailboxQueue {
    slots: usize,
    limits: ServerLimits,
    /// When mailboxes started on each server that limits this, within the last minute.
    starts: HashMap<String, VecDeque<Instant>>,
    pending: VecDeque<(usize, ResourceNeeds)>,
    running: HashMap<usize, ResourceNeeds>,
    in_use: HashMap<SharedResource, usize>,
}

impl MailboxQueue {
    /// A schedule of at most `slots` mailboxes at once. Each need comes with its caller's number for the mailbox and
    /// must come from [`fit_to_limits`] with the same limits: a need above a limit would wait for ever.
    #[must_use]
    pub(crate) fn new(
        slots: usize,
        limits: &ServerLimits,
        pending: impl IntoIterator<Item = (usize, ResourceNeeds)>,
    ) -> Self {
        Self {
            slots: slots.max(1),
            limits: limits.clone(),
            starts: HashMap::new(),
            pending: pending.into_iter().collect(),
            running: HashMap::new(),
            in_use: HashMap::new(),
        }
    }

    /// How many mailboxes wait.
    #[must_use]
    pub(crate) fn waiting_count(&self) -> usize {
        self.pending.len()
    }

    /// The next mailbox that may start at `at`; it counts as running from here on. A mailbox that waits for a resource
    /// holds it against later ones, so that none is overtaken for ever, and lets mailboxes on other servers pass.
    pub(crate) fn start_next(&mut self, at: Instant) -> Option<usize> {
        if self.running.len() >= self.slots {
            return None;
        }
        for starts in self.starts.values_mut() {
            starts.retain(|start| at.saturating_duration_since(*start) < MINUTE);
        }
        let mut held: HashSet<&SharedResource> = HashSet::new();
        let position = self.pending.iter().position(|(_, need)| {
            let fits = need.iter().all(|(resource, units)| {
                !held.contains(resource)
                    && self.in_use.get(resource).unwrap_or(&0) + units <= self.limit(resource)
                    && self.may_start_on(resource)
            });
            if !fits {
                held.extend(need.keys().filter(|r| self.is_limited(r)));
            }
            fits
        })?;
        let (mailbox, need) = self.pending.remove(position)?;
        for (resource, units) in &need {
            *self.in_use.entry(resource.clone()).or_default() += units;
            if let SharedResource::Connections(host) = resource
                && self.limits.get(host).is_some_and(|limit| limit.starts_per_minute.is_some())
            {
                self.starts.entry(host.clone()).or_default().push_back(at);
            }
        }
        self.running.insert(mailbox, need);
        Some(mailbox)
    }

    /// Gives back what a mailbox used.
    pub(crate) fn release(&mut self, mailbox: usize) {
        for (resource, units) in self.running.remove(&mailbox).unwrap_or_default() {
            if let Some(used) = self.in_use.get_mut(&resource) {
                *used = used.saturating_sub(units);
                if *used == 0 {
                    self.in_use.remove(&resource);
                }
            }
        }
    }

    fn limit(&self, resource: &SharedResource) -> usize {
        match resource {
            SharedResource::Writer { .. } => 1,
            SharedResource::Connections(host) => {
                self.limits.get(host).and_then(|l| l.connections).unwrap_or(usize::MAX)
            }
        }
    }

    fn is_limited(&self, resource: &SharedResource) -> bool {
        match resource {
            SharedResource::Writer { .. } => true,
            SharedResource::Connections(host) => self.limits.contains_key(host),
        }
    }

    fn may_start_on(&self, resource: &SharedResource) -> bool {
        let SharedResource::Connections(host) = resource else { return true };
        let most = self.limits.get(host).and_then(|limit| limit.starts_per_minute);
        most.is_none_or(|most| self.starts.get(host).map_or(0, VecDeque::len) < most)
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::testing::spec;

    fn limits(of: &[(&str, usize)]) -> ServerLimits {
        let limit = |connections| ServerLimit { connections: Some(connections), starts_per_minute: None };
        of.iter().map(|(host, connections)| ((*host).to_owned(), limit(*connections))).collect()
    }

    fn needs(specs: &mut [SyncSpec], limits: &ServerLimits) -> Vec<(usize, ResourceNeeds)> {
        specs.iter_mut().map(|s| fit_to_limits(s, limits).unwrap()).enumerate().collect()
    }

    #[test]
    fn a_mailbox_takes_no_more_connections_than_its_servers_allow() {
        let mut alice = spec("alice");
        alice.connections = 4;
        let need = fit_to_limits(&mut alice, &limits(&[("old.example:993", 3)])).unwrap();
        assert_eq!(alice.connections, 3);
        assert_eq!(need[&SharedResource::Connections("old.example:993".into())], 3);
        assert_eq!(need[&SharedResource::Connections("new.example:993".into())], 3);
    }

    #[test]
    fn both_sides_on_one_server_count_together() {
        let mut alice = spec("alice");
        alice.connections = 4;
        alice.destination.host = "OLD.example".into();
        let need = fit_to_limits(&mut alice, &limits(&[("old.example:993", 5)])).unwrap();
        assert_eq!(alice.connections, 2);
        assert_eq!(need[&SharedResource::Connections("old.example:993".into())], 4);
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
        let mut schedule = MailboxQueue::new(8, &none, needs(&mut [one, two], &none));
        assert_eq!((schedule.start_next(at), schedule.start_next(at)), (Some(0), None));
        schedule.release(0);
        assert_eq!(schedule.start_next(at), Some(1));
    }

    #[test]
    fn a_full_server_does_not_hold_up_mailboxes_on_another() {
        let at = Instant::now();
        let (one, two, mut three) = (spec("one"), spec("two"), spec("three"));
        three.source.host = "third.example".into();
        let limits = limits(&[("old.example:993", 4)]);
        let mut schedule = MailboxQueue::new(8, &limits, needs(&mut [one, two, three], &limits));
        assert_eq!(
            (schedule.start_next(at), schedule.start_next(at), schedule.start_next(at)),
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
        let mut schedule = MailboxQueue::new(8, &limits, needs(&mut [small, big, late], &limits));
        assert_eq!((schedule.start_next(at), schedule.start_next(at)), (Some(0), None));
        schedule.release(0);
        assert_eq!((schedule.start_next(at), schedule.start_next(at)), (Some(1), None));
    }

    #[test]
    fn a_server_gets_no_more_starts_within_a_minute_than_it_allows() {
        let at = Instant::now();
        let pace = ServerLimit { connections: None, starts_per_minute: Some(2) };
        let limits = ServerLimits::from([("old.example:993".into(), pace)]);
        let mut elsewhere = spec("elsewhere");
        elsewhere.source.host = "third.example".into();
        let mut specs = [spec("a"), spec("b"), spec("c"), elsewhere];
        let mut schedule = MailboxQueue::new(8, &limits, needs(&mut specs, &limits));
        let started = std::array::from_fn(|_| schedule.start_next(at));
        assert_eq!(started, [Some(0), Some(1), Some(3), None]);
        schedule.release(0);
        assert_eq!(schedule.start_next(at + Duration::from_secs(59)), None);
        assert_eq!(schedule.start_next(at + Duration::from_mins(1)), Some(2));
    }

    #[test]
    fn of_two_limits_for_one_server_the_stricter_holds() {
        let one = ServerLimit { connections: Some(5), starts_per_minute: None };
        let two = ServerLimit { connections: Some(3), starts_per_minute: Some(9) };
        assert_eq!(one.stricter(two), ServerLimit { connections: Some(3), starts_per_minute: Some(9) });
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
                .map(|(h, l)| (format!("h{h}:993"), ServerLimit { connections: Some(*l), starts_per_minute: None }))
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
            let mut schedule = MailboxQueue::new(slots, &limits, needs.clone());
            let (mut running, mut done, mut order) = (Vec::new(), Vec::new(), order);
            while done.len() < specs.len() {
                while let Some(next) = schedule.start_next(at) { running.push(next); }
                prop_assert!(!running.is_empty(), "stuck with {} waiting", schedule.waiting_count());
                prop_assert!(running.len() <= slots);
                let mut used = ResourceNeeds::new();
                for r in &running { for (k, v) in &needs[*r].1 { *used.entry(k.clone()).or_default() += v; } }
                for (resource, units) in used {
                    prop_assert!(units <= schedule.limit(&resource));
                }
                order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let ended = running.swap_remove((order >> 33) as usize % running.len());
                schedule.release(ended);
                done.push(ended);
            }
            done.sort_unstable();
            prop_assert_eq!(done, (0..specs.len()).collect::<Vec<_>>());
            prop_assert!(schedule.in_use.is_empty());
        }
    }
}
