//! How fast bytes go to and from a server: so many per second for all connections that share a budget.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// No budget is smaller, bytes per second: a server drops a client that hardly reads.
const LEAST_RATE: u64 = 1024;
/// Bytes of so much time may move ahead of it, so that short commands do not wait.
const BURST: Duration = Duration::from_millis(250);
/// One step moves at most what the budget allows in this part of a second ...
const STEPS_PER_SECOND: u64 = 8;
/// ... and so many bytes, but not fewer than a line has.
const STEP_BYTES: (u64, u64) = (512, 64 << 10);

/// A budget of bytes per second. Connections that share it move theirs one after the other, none faster than another.
#[derive(Debug)]
pub struct BytePace {
    rate: u64,
    /// When all that has moved is paid for.
    paid_at: Mutex<Instant>,
}

impl BytePace {
    /// So many bytes per second, but not fewer than 1 KiB.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { rate: bytes_per_second.max(LEAST_RATE), paid_at: Mutex::new(Instant::now()) }
    }

    /// The most bytes that may move in one step.
    fn step(&self) -> usize {
        let (least, most) = STEP_BYTES;
        usize::try_from((self.rate / STEPS_PER_SECOND).clamp(least, most)).unwrap_or(usize::MAX)
    }

    /// Bytes moved: when whoever moved them may move more.
    fn take(&self, bytes: usize, now: Instant) -> Instant {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = (bytes as u128 * 1_000_000).div_ceil(u128::from(self.rate));
        *paid_at = (*paid_at).max(now) + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        paid_at.checked_sub(BURST).map_or(now, |at| at.max(now))
    }
}

/// One connection within a budget.
#[derive(Debug)]
pub(super) struct PacedConnection {
    pace: Arc<BytePace>,
    ready_at: Instant,
    /// True until `ready_at`.
    held: bool,
    timer: Pin<Box<Sleep>>,
}

impl PacedConnection {
    /// A connection that has moved nothing yet.
    #[must_use]
    pub(super) fn new(pace: Arc<BytePace>) -> Self {
        let now = Instant::now();
        Self { pace, ready_at: now, held: false, timer: Box::pin(tokio::time::sleep_until(now)) }
    }

    /// The most bytes that may move in one step.
    pub(super) fn step(&self) -> usize {
        self.pace.step()
    }

    /// True while, or just after, it had to wait.
    pub(super) const fn is_held(&self) -> bool {
        self.held
    }

    /// Bytes moved.
    pub(super) fn take(&mut self, bytes: usize) {
        let now = Instant::now();
        self.ready_at = self.pace.take(bytes, now);
        self.held = self.ready_at > now;
    }

    /// Ready when more may move.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held {
            if self.timer.deadline() != self.ready_at {
                self.timer.as_mut().reset(self.ready_at);
            }
            ready!(self.timer.as_mut().poll(cx));
            self.held = false;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Moves so many bytes in steps; gives how long it took.
    async fn moved(pace: Arc<BytePace>, mut bytes: usize) -> Duration {
        let (began, mut connection) = (Instant::now(), PacedConnection::new(pace));
        while bytes > 0 {
            poll_fn(|cx| connection.poll_ready(cx)).await;
            let step = connection.step().min(bytes);
            connection.take(step);
            bytes -= step;
        }
        poll_fn(|cx| connection.poll_ready(cx)).await;
        began.elapsed()
    }

    /// To the next second.
    fn rounded(took: Duration) -> u64 {
        (took + Duration::from_millis(500)).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_move_at_the_pace_and_small_ones_at_once() {
        let took = moved(Arc::new(BytePace::new(100_000)), 1_000_000).await;
        assert_eq!(rounded(took), 10);
        assert_eq!(moved(Arc::new(BytePace::new(100_000)), 200).await, Duration::ZERO);
        assert_eq!(rounded(moved(Arc::new(BytePace::new(0)), 10_240).await), 10, "the least");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_share_one_budget_and_none_is_left_behind() {
        let pace = Arc::new(BytePace::new(1_000_000));
        let all = (0..10).map(|_| moved(Arc::clone(&pace), 1_000_000));
        let took = futures::future::join_all(all).await;
        for one in &took {
            assert!((7.5..=10.5).contains(&one.as_secs_f64()), "the first one has what may go ahead: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nothing_moved_is_not_made_up_for() {
        let pace = Arc::new(BytePace::new(100_000));
        moved(Arc::clone(&pace), 100_000).await;
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(rounded(moved(pace, 1_000_000).await), 10);
    }
}
