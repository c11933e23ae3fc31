//! What of all that runs is a namespace's: by it tenants take turns. Pure.

use std::collections::HashMap;

/// So fine are shares: weights up to this differ.
const PRECISION: u64 = 1_000_000;

/// Running syncs of a namespace, divided by its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct NamespaceShare(u64);

/// How many syncs of each namespace run, and what weight each has.
#[derive(Debug, Default)]
pub(super) struct NamespaceShares {
    /// Those whose weight is not 1.
    weights: HashMap<String, u32>,
    running: HashMap<String, usize>,
}

impl NamespaceShares {
    /// With these weights; a namespace that is not named has 1.
    pub(super) fn new(weights: HashMap<String, u32>) -> Self {
        Self { weights, running: HashMap::new() }
    }

    /// The share of a namespace.
    #[must_use]
    pub(super) fn of(&self, namespace: &str) -> NamespaceShare {
        let running = self.running.get(namespace).copied().unwrap_or(0);
        let weight = self.weights.get(namespace).copied().unwrap_or(1).max(1);
        NamespaceShare(u64::try_from(running).unwrap_or(u64::MAX).saturating_mul(PRECISION) / u64::from(weight))
    }

    /// One more sync runs; gives the share.
    pub(super) fn add(&mut self, namespace: &str) -> NamespaceShare {
        *self.running.entry(namespace.to_owned()).or_default() += 1;
        self.of(namespace)
    }

    /// One sync less runs; gives the share.
    pub(super) fn remove(&mut self, namespace: &str) -> NamespaceShare {
        if let Some(running) = self.running.get_mut(namespace) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(namespace);
            }
        }
        self.of(namespace)
    }

    /// True when nothing runs.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_twice_the_weight_has_the_same_share_with_twice_the_syncs() {
        let mut shares = NamespaceShares::new(HashMap::from([("large".to_owned(), 2), ("none".to_owned(), 0)]));
        assert_eq!(shares.of("large"), shares.of("small"));
        shares.add("small");
        assert!(shares.add("large") < shares.of("small"));
        assert_eq!(shares.add("large"), shares.of("small"));
        assert_eq!(shares.add("none"), shares.of("small"), "no weight is less than one");
        assert!(shares.remove("small") < shares.of("large"));
        assert_eq!(shares.remove("small"), NamespaceShare::default());
    }
}
