//! The waits between tries: after a failure, between logins, and before a login that was refused is tried again.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{circuit_breaker::out_of_patience_error, progress::SyncProgress, spec::RetryPolicy};
use crate::error::{Error, ErrorClass, ErrorRemedy, GiveUpScope, Result};

/// The waits of one mailbox, which a stop ends.
#[derive(Debug, Clone)]
pub(super) struct RetryWaits {
    pub policy: RetryPolicy,
    /// Shows what is waited for.
    pub progress: Arc<SyncProgress>,
    /// Asks to end soon.
    pub stop: CancellationToken,
}

pub(super) type RetryBackoff = backon::ExponentialBackoff;

/// How a wait before the next try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// It is time to try again.
    Out,
    /// It was asked to stop: what was waited out counts no more.
    Stopped,
}

impl RetryWaits {
    /// The waits between tries, from the first on.
    pub(super) fn backoff(&self) -> RetryBackoff {
        ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.policy.initial_backoff)
            .with_max_delay(self.policy.max_backoff)
            .with_max_times(self.policy.attempts as usize)
            .build()
    }

    /// Waits before the next try, or gives the error back when trying again makes no sense.
    pub(super) async fn wait_before_retry(&self, error: Error, backoff: &mut RetryBackoff) -> Result<WaitOutcome> {
        if error.class.remedy() != ErrorRemedy::RetryWithBackoff || error.finality != GiveUpScope::ByClass {
            return Err(error);
        }
        if self.stop.is_cancelled() {
            return Ok(WaitOutcome::Stopped);
        }
        let Some(mut delay) = backoff.next() else { return Err(error) };
        if error.class == ErrorClass::Throttled {
            delay = delay.max(Duration::from_secs(5)).min(self.policy.max_backoff);
        }
        if let Some(wait) = error.stated_wait {
            if wait > self.policy.patience {
                return Err(out_of_patience_error(&error, wait));
            }
            delay = delay.max(wait);
        }
        tracing::info!(error = %error, delay_ms = delay.as_millis(), "trying again");
        let _waiting = self.progress.begin_wait(error.to_string(), delay);
        Ok(self.wait_until(Instant::now() + delay).await)
    }

    /// Waits until a login may follow one that was at `logged_in_at`: the server is there, and fails on something. So this
    /// takes no back-off.
    pub(super) async fn wait_between_logins(&self, logged_in_at: Instant) -> WaitOutcome {
        self.wait_until(logged_in_at + self.policy.waits.between_logins).await
    }

    /// Waits before a login that worked before, and was refused with `error`, is tried again.
    pub(super) async fn wait_to_log_in_again(&self, error: &Error) -> WaitOutcome {
        let delay = self.policy.waits.login_again;
        tracing::info!(error = %error, delay_ms = delay.as_millis(), "trying again to log in");
        let _waiting = self.progress.begin_wait(error.to_string(), delay);
        self.wait_until(Instant::now() + delay).await
    }

    async fn wait_until(&self, at: Instant) -> WaitOutcome {
        tokio::select! {
            () = tokio::time::sleep_until(at) => WaitOutcome::Out,
            () = self.stop.cancelled() => WaitOutcome::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_stop_ends_the_wait_before_the_next_try_without_the_error_that_is_waited_out() {
        let hour = Duration::from_hours(1);
        let policy = RetryPolicy { initial_backoff: hour, max_backoff: hour, ..RetryPolicy::default() };
        let (progress, stop) = (Arc::new(SyncProgress::default()), CancellationToken::new());
        let waits = RetryWaits { policy, progress: Arc::clone(&progress), stop: stop.clone() };
        let mut backoff = waits.backoff();
        let mut waiting = Box::pin(waits.wait_before_retry(Error::network("connection lost"), &mut backoff));
        assert!(poll!(&mut waiting).is_pending());
        assert!(progress.snapshot().waiting.is_some());
        stop.cancel();
        assert_eq!(waiting.await, Ok(WaitOutcome::Stopped));
        assert!(progress.snapshot().waiting.is_none());
        // What waiting does not help is told, stopped or not.
        let wrong = Error::new(ErrorClass::Authentication, "wrong password");
        assert_eq!(waits.wait_before_retry(wrong.clone(), &mut backoff).await, Err(wrong));
    }
}
