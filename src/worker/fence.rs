//! Whether this worker may still write: until another attempt may, or until it was without the API server for too long.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    api::scalar,
    clock::since_boot,
    error::{Error, Result},
    imap::permit::WritePermit,
};

/// How much of the grace is left. It counts from the sending of the last request that was answered: the operator may have
/// seen that word only, and counts from there.
#[must_use]
pub(crate) fn remaining_grace(grace: Duration, confirmed: Duration, now: Duration) -> Option<Duration> {
    let used = now.saturating_sub(confirmed);
    grace.checked_sub(used).filter(|left| !left.is_zero())
}

/// The permit to write of one attempt. Once it is closed it stays closed.
#[derive(Debug)]
pub(crate) struct WriteFence {
    grace: Duration,
    /// When the last answered request was sent: nanoseconds since boot.
    confirmed: AtomicU64,
    closed: OnceLock<Error>,
    held: AtomicBool,
    clock: fn() -> Duration,
    /// Cancelled once the fence is closed.
    pub closed_token: CancellationToken,
}

impl WriteFence {
    /// Open, since a request that was sent at `confirmed` was answered.
    #[must_use]
    pub(crate) fn new(grace: Duration, confirmed: Duration) -> Self {
        Self::with_clock(grace, confirmed, since_boot)
    }

    fn with_clock(grace: Duration, confirmed: Duration, clock: fn() -> Duration) -> Self {
        Self {
            grace,
            confirmed: AtomicU64::new(nanos(confirmed)),
            closed: OnceLock::new(),
            held: AtomicBool::new(false),
            clock,
            closed_token: CancellationToken::new(),
        }
    }

    /// Records that a request which was sent at `sent` was answered: the grace counts from then on.
    pub(crate) fn confirm(&self, sent: Duration) {
        self.confirmed.fetch_max(nanos(sent), SeqCst);
    }

    /// Holds writes back until it is known whether this attempt is over (true), or lets them go on (false).
    pub(crate) fn hold(&self, hold: bool) {
        self.held.store(hold, SeqCst);
    }

    /// Closes the fence for good, since the API server says that this attempt is over.
    pub(crate) fn close_as_fenced(&self, why: &str) {
        self.close(
            Error::internal(format!("fenced: {why}"))
                .advice("Another attempt has taken over, or the MailboxSync is gone; nothing more was written"),
        );
    }

    fn close(&self, error: Error) {
        self.closed.get_or_init(|| error);
        self.closed_token.cancel();
    }

    /// The time left until it closes by itself; none when it is closed.
    #[must_use]
    pub(crate) fn time_left(&self) -> Option<Duration> {
        if self.closed.get().is_some() {
            return None;
        }
        let left = remaining_grace(self.grace, Duration::from_nanos(self.confirmed.load(SeqCst)), (self.clock)());
        if left.is_none() {
            let grace = scalar::Duration::from_millis(u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX));
            self.close(
                Error::internal(format!("stopped: the API server could not be reached for {grace} (offlineGrace)"))
                    .advice(
                        "Another attempt goes on from the checkpoint as soon as it is sure that this one has ended",
                    ),
            );
        }
        left
    }

    /// Why it is closed, if it is.
    #[must_use]
    pub(crate) fn close_reason(&self) -> Option<&Error> {
        let _ = self.time_left();
        self.closed.get()
    }
}

impl WritePermit for WriteFence {
    fn check(&self) -> Result<()> {
        match self.close_reason() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn is_suspended(&self) -> bool {
        self.held.load(SeqCst)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorClass;

    fn at_20_s() -> Duration {
        Duration::from_secs(20)
    }

    #[test]
    fn a_fence_is_open_while_the_api_server_answers_and_closes_for_good() {
        let fence = WriteFence::with_clock(Duration::from_secs(10), Duration::from_secs(10), at_20_s);
        fence.confirm(Duration::from_secs(11));
        assert_eq!(fence.time_left(), Some(Duration::from_secs(1)));
        assert!(fence.check().is_ok() && !fence.closed_token.is_cancelled());
        fence.close_as_fenced("attempt 3 runs");
        fence.confirm(Duration::from_secs(20));
        let error = fence.check().unwrap_err();
        assert_eq!((error.class, error.what.as_str()), (ErrorClass::Internal, "fenced: attempt 3 runs"));
        assert!(fence.closed_token.is_cancelled());
    }

    #[test]
    fn a_fence_closes_when_the_grace_is_used_up_and_a_late_answer_does_not_open_it() {
        let fence = WriteFence::with_clock(Duration::from_secs(10), Duration::from_secs(10), at_20_s);
        let error = fence.check().unwrap_err();
        assert!(error.what.contains("could not be reached for 10s"), "{error}");
        fence.confirm(Duration::from_secs(19));
        assert!(fence.check().is_err() && fence.closed_token.is_cancelled());
    }

    proptest! {
        #[test]
        fn the_grace_ends_exactly_when_it_is_used_up(
            grace in 1..100_000_u64, confirmed in 0..1_000_000_u64, later in 0..200_000_u64,
        ) {
            let [grace, confirmed, later] = [grace, confirmed, later].map(Duration::from_millis);
            let left = remaining_grace(grace, confirmed, confirmed + later);
            prop_assert_eq!(left.is_some(), later < grace);
            prop_assert_eq!(left.unwrap_or_default(), grace.saturating_sub(later));
        }

        #[test]
        fn answers_that_come_out_of_order_never_shorten_the_grace(sent in proptest::collection::vec(10..20_u64, 1..8)) {
            let fence = WriteFence::with_clock(Duration::from_secs(15), Duration::from_secs(10), at_20_s);
            for seconds in &sent {
                fence.confirm(Duration::from_secs(*seconds));
            }
            let last = sent.iter().max().unwrap();
            prop_assert_eq!(fence.time_left(), Some(Duration::from_secs(15 - (20 - last))));
        }
    }
}
