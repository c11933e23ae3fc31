//! What of a mailbox's token Secret is to be done now. Pure; times are since boot, which nobody sets.

use std::time::Duration;

/// The first wait after a failure; doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(5);
/// The longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_mins(5);
/// Two writes of one mailbox's tokens are so far apart at least, whatever an endpoint says of their life.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// What this process knows of a mailbox's tokens while an attempt runs, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenFacts {
    /// The tokens that the Secret holds; none: this process wrote none.
    pub written: Option<WrittenTokens>,
    /// The failures in a row since the last write.
    pub failed: Option<TokenFailures>,
    /// True when a server refused a token that the Secret holds.
    pub refused: bool,
}

/// Tokens that a Secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenTokens {
    /// When they were written.
    pub at: Duration,
    /// When the first of them ends.
    pub expires: Duration,
}

/// Failures to get tokens or to write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenFailures {
    /// When the last one was.
    pub at: Duration,
    /// How many there were in a row.
    pub in_a_row: u32,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalStep {
    /// Tokens are got now, and written.
    Renew,
    /// Nothing until then.
    WaitUntil(Duration),
}

/// Decides: tokens are got at once where there are none or a server refused them, else at half their life; after a failure
/// not before a while.
#[must_use]
pub fn next_step(facts: &TokenFacts, now: Duration) -> RenewalStep {
    let wanted_at = match facts.written {
        None => Duration::ZERO,
        Some(written) if facts.refused => written.at + MIN_INTERVAL,
        Some(written) => written.at + (written.expires.saturating_sub(written.at) / 2).max(MIN_INTERVAL),
    };
    let allowed_at = facts.failed.map_or(Duration::ZERO, |failed| {
        let doublings = failed.in_a_row.saturating_sub(1).min(10);
        failed.at + (FIRST_BACKOFF * 2_u32.pow(doublings)).min(MAX_BACKOFF)
    });
    let at = wanted_at.max(allowed_at);
    if at <= now { RenewalStep::Renew } else { RenewalStep::WaitUntil(at) }
}

/// True when a pod that starts now finds tokens that are good for a while.
#[must_use]
pub fn is_ready(facts: &TokenFacts, now: Duration) -> bool {
    !facts.refused && facts.written.is_some_and(|written| written.expires > now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn written(at: u32, life: u32) -> TokenFacts {
        let written = WrittenTokens { at: at * S, expires: (at + life) * S };
        TokenFacts { written: Some(written), ..TokenFacts::default() }
    }

    #[test]
    fn a_token_is_renewed_at_half_its_life() {
        assert_eq!(next_step(&TokenFacts::default(), 5 * S), RenewalStep::Renew);
        let hour = written(100, 3600);
        assert_eq!(next_step(&hour, 1899 * S), RenewalStep::WaitUntil(1900 * S));
        assert_eq!(next_step(&hour, 1900 * S), RenewalStep::Renew);
    }

    #[test]
    fn a_refused_token_is_renewed_at_once_but_not_over_and_over() {
        let refused = TokenFacts { refused: true, ..written(100, 3600) };
        assert_eq!(next_step(&refused, 101 * S), RenewalStep::WaitUntil(110 * S));
        assert_eq!(next_step(&refused, 110 * S), RenewalStep::Renew);
        assert!(!is_ready(&refused, 101 * S));
    }

    #[test]
    fn an_endpoint_that_says_that_tokens_end_at_once_is_not_stormed() {
        assert_eq!(next_step(&written(100, 0), 100 * S), RenewalStep::WaitUntil(110 * S));
    }

    #[test]
    fn after_failures_the_wait_doubles_up_to_five_minutes() {
        let failed =
            |in_a_row| TokenFacts { failed: Some(TokenFailures { at: 100 * S, in_a_row }), ..TokenFacts::default() };
        for (in_a_row, until) in [(1, 105), (2, 110), (4, 140), (7, 400), (4_000_000_000, 400)] {
            assert_eq!(next_step(&failed(in_a_row), 100 * S), RenewalStep::WaitUntil(until * S), "{in_a_row}");
        }
    }

    proptest! {
        #[test]
        fn a_token_is_renewed_before_it_ends_and_a_wait_ends_when_it_says(
            at in 0..1_000_000_u32, life in 20..100_000_u32, later in 0..200_000_u32, refused: bool,
        ) {
            let facts = TokenFacts { refused, ..written(at, life) };
            let now = (at + later) * S;
            match next_step(&facts, now) {
                RenewalStep::Renew => prop_assert!(now >= (at + 10) * S),
                RenewalStep::WaitUntil(until) => {
                    prop_assert!(until > now && until <= (at + life) * S);
                    prop_assert_eq!(next_step(&facts, until), RenewalStep::Renew);
                }
            }
        }
    }
}
