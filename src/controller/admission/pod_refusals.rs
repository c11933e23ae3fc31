//! Namespaces in which no pods can be made, by a quota or a policy: one sync at a time tries whether it works again. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The first wait after a refused create; doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
/// The longest wait after refused creates.
const LONGEST_BACKOFF: Duration = Duration::from_mins(5);

/// Refused creates of pods in one namespace.
#[derive(Debug, Clone)]
struct PodRefusal {
    times: u32,
    until: Instant,
    message: String,
    /// One sync is trying whether it works again.
    probing: bool,
    /// Nobody may try now.
    held: bool,
}

/// Refused creates of pods, by namespace.
#[derive(Debug, Default)]
pub(super) struct PodRefusals(HashMap<String, PodRefusal>);

impl PodRefusals {
    /// Why pods are refused in a namespace, if they are.
    pub(super) fn message(&self, namespace: &str) -> Option<&str> {
        self.0.get(namespace).map(|refusal| refusal.message.as_str())
    }

    /// True when nobody may try in a namespace.
    pub(super) fn holds(&self, namespace: &str) -> bool {
        self.0.get(namespace).is_some_and(|refusal| refusal.held)
    }

    /// A pod was refused: nobody tries there for a while, longer with each time.
    pub(super) fn record(&mut self, namespace: &str, message: &str, now: Instant) {
        let times = self.0.get(namespace).map_or(0, |refusal| refusal.times);
        let until = now + FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(times)).min(LONGEST_BACKOFF);
        let refusal = PodRefusal { times: times + 1, until, message: message.to_owned(), probing: false, held: true };
        self.0.insert(namespace.to_owned(), refusal);
    }

    /// A pod was made. True when pods were refused before.
    pub(super) fn clear(&mut self, namespace: &str) -> bool {
        self.0.remove(namespace).is_some()
    }

    /// One sync tries: the others wait for what comes of it. True when pods are refused there.
    pub(super) fn hold_others(&mut self, namespace: &str) -> bool {
        let Some(refusal) = self.0.get_mut(namespace) else { return false };
        refusal.probing = true;
        refusal.held = true;
        true
    }

    /// A sync gave its slots back: another may try.
    pub(super) fn end_probe(&mut self, namespace: &str) {
        if let Some(refusal) = self.0.get_mut(namespace) {
            refusal.probing = false;
        }
    }

    /// The namespaces in which one may try from now on.
    pub(super) fn begin_probes(&mut self, now: Instant) -> Vec<String> {
        let due = self.0.iter_mut().filter(|(_, refusal)| refusal.held && !refusal.probing && refusal.until <= now);
        due.map(|(namespace, refusal)| {
            refusal.held = false;
            namespace.clone()
        })
        .collect()
    }

    /// The time until one may try again in some namespace.
    pub(super) fn next_probe_in(&self, now: Instant) -> Option<Duration> {
        let held = self.0.values().filter(|refusal| refusal.held && !refusal.probing);
        held.map(|refusal| refusal.until.saturating_duration_since(now)).min()
    }
}
