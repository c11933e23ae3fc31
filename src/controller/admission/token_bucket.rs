//! How fast pods are made. Pure.

use std::time::{Duration, Instant};

/// Pods per second, with a second's worth at once.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl TokenBucket {
    /// So many per second; it is full when it is first asked.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second.max(1)), tokens: 0.0, at: None }
    }

    /// Adds what came since the last time.
    pub(super) fn refill(&mut self, now: Instant) {
        let passed = self.at.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second.max(1.0));
        self.at = Some(now);
    }

    /// True when a pod may be made.
    pub(super) fn has_token(&self) -> bool {
        self.tokens >= 1.0
    }

    /// A pod is made.
    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }

    /// The time until a pod may be made; none when one may be made now.
    pub(super) fn wait(&self) -> Option<Duration> {
        (!self.has_token()).then(|| Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }
}
