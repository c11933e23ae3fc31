//! How pairs of connections are made, and made again after a loss.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    circuit_breaker::out_of_patience_error,
    connection_pair::ConnectionPair,
    progress::SyncProgress,
    spec::{RetryPolicy, SyncSpec},
};
use crate::{
    error::{Error, ErrorClass, ErrorRemedy, GiveUpScope, Result},
    imap::{Endpoint, permit::WritePermit},
};

/// How connections are made, and made again.
pub(super) struct PairConnector {
    source: Arc<Endpoint>,
    destination: Arc<Endpoint>,
    progress: Arc<SyncProgress>,
    permit: Arc<dyn WritePermit>,
    retry: RetryPolicy,
}

/// Further pairs of connections on their way.
pub(super) type SparePairs = JoinSet<Result<ConnectionPair>>;

pub(super) type RetryBackoff = backon::ExponentialBackoff;

/// How a wait before the next try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// It is time to try again.
    Out,
    /// It was asked to stop: what was waited out counts no more.
    Stopped,
}

impl PairConnector {
    /// Connects the accounts of `spec`.
    pub(super) fn new(spec: &SyncSpec, progress: &Arc<SyncProgress>, permit: &Arc<dyn WritePermit>) -> Self {
        Self {
            source: Arc::new(spec.source.clone()),
            destination: Arc::new(spec.destination.clone()),
            progress: Arc::clone(progress),
            permit: Arc::clone(permit),
            retry: spec.retry,
        }
    }

    /// A new pair of connections.
    pub(super) async fn connect(&self) -> Result<ConnectionPair> {
        ConnectionPair::connect(&self.source, &self.destination, &self.progress, &self.permit).await
    }

    /// A new pair of connections; none when it is asked to stop before both are there.
    pub(super) async fn connect_unless(&self, stop: &CancellationToken) -> Result<Option<ConnectionPair>> {
        tokio::select! {
            pair = self.connect() => pair.map(Some),
            () = stop.cancelled() => Ok(None),
        }
    }

    /// The waits between tries, from the first on.
    pub(super) fn backoff(&self) -> RetryBackoff {
        ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.retry.initial_backoff)
            .with_max_delay(self.retry.max_backoff)
            .with_max_times(self.retry.attempts as usize)
            .build()
    }

    /// Waits before the next try, or gives the error back when trying again makes no sense.
    pub(super) async fn wait_before_retry(
        &self,
        error: Error,
        backoff: &mut RetryBackoff,
        stop: &CancellationToken,
    ) -> Result<WaitOutcome> {
        if error.class.remedy() != ErrorRemedy::RetryWithBackoff || error.finality != GiveUpScope::ByClass {
            return Err(error);
        }
        if stop.is_cancelled() {
            return Ok(WaitOutcome::Stopped);
        }
        let Some(mut delay) = backoff.next() else { return Err(error) };
        if error.class == ErrorClass::Throttled {
            delay = delay.max(Duration::from_secs(5)).min(self.retry.max_backoff);
        }
        if let Some(wait) = error.stated_wait {
            if wait > self.retry.patience {
                return Err(out_of_patience_error(&error, wait));
            }
            delay = delay.max(wait);
        }
        tracing::info!(error = %error, delay_ms = delay.as_millis(), "trying again");
        let _waiting = self.progress.begin_wait(error.to_string(), delay);
        Ok(tokio::select! {
            () = tokio::time::sleep(delay) => WaitOutcome::Out,
            () = stop.cancelled() => WaitOutcome::Stopped,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;
    use crate::{imap::permit::AlwaysPermitted, sync::testing::spec};

    #[tokio::test]
    async fn a_stop_ends_the_wait_before_the_next_try_without_the_error_that_is_waited_out() {
        let mut spec = spec("alice");
        spec.retry.initial_backoff = Duration::from_hours(1);
        spec.retry.max_backoff = Duration::from_hours(1);
        let (progress, stop) = (Arc::new(SyncProgress::default()), CancellationToken::new());
        let permit: Arc<dyn WritePermit> = Arc::new(AlwaysPermitted);
        let connector = PairConnector::new(&spec, &progress, &permit);
        let mut backoff = connector.backoff();
        let mut waiting = Box::pin(connector.wait_before_retry(Error::network("connection lost"), &mut backoff, &stop));
        assert!(poll!(&mut waiting).is_pending());
        assert!(progress.snapshot().waiting.is_some());
        stop.cancel();
        assert_eq!(waiting.await, Ok(WaitOutcome::Stopped));
        assert!(progress.snapshot().waiting.is_none());
        // What waiting does not help is told, stopped or not.
        let wrong = Error::new(ErrorClass::Authentication, "wrong password");
        assert_eq!(connector.wait_before_retry(wrong.clone(), &mut backoff, &stop).await, Err(wrong));
    }
}
