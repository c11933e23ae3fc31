//! Whether reconciliations get on: what `/healthz` says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A reconciliation that got no answer of the API server for so long is stuck: each of its requests ends, one way or the
/// other, ten times as fast.
const STUCK_AFTER: Duration = Duration::from_mins(5);

/// Which reconciliations run, and when the API server answered. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Liveness(Arc<Mutex<Reconciliations>>);

#[derive(Debug, Default)]
struct Reconciliations {
    /// When each that runs began, or had its last answer.
    running: BTreeMap<u64, Instant>,
    /// The number of the next one.
    next: u64,
    /// When any request was answered last.
    answered: Option<Instant>,
}

tokio::task_local! {
    /// The number of the reconciliation that is polled.
    static CURRENT: u64;
}

/// Counts a reconciliation as running until it is dropped.
struct RunningReconciliation<'a>(&'a Liveness, u64);

impl Drop for RunningReconciliation<'_> {
    fn drop(&mut self) {
        self.0.reconciliations().running.remove(&self.1);
    }
}

impl Liveness {
    fn reconciliations(&self) -> MutexGuard<'_, Reconciliations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a reconciliation, whose requests are its own from here on.
    pub(crate) async fn follow<F: Future>(&self, reconciliation: F) -> F::Output {
        let number = {
            let mut all = self.reconciliations();
            let number = all.next;
            all.next += 1;
            all.running.insert(number, Instant::now());
            number
        };
        let _running = RunningReconciliation(self, number);
        CURRENT.scope(number, reconciliation).await
    }

    /// The API server answered a request, be it of a reconciliation or not.
    pub(crate) fn record_answer(&self) {
        let now = Instant::now();
        let mut all = self.reconciliations();
        all.answered = Some(now);
        if let Ok(number) = CURRENT.try_with(|number| *number)
            && let Some(at) = all.running.get_mut(&number)
        {
            *at = now;
        }
    }

    /// How long the reconciliation has run without an answer that has waited longest for one; zero where none runs.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        let now = Instant::now();
        let oldest = self.reconciliations().running.values().min().copied();
        oldest.map_or(Duration::ZERO, |at| now.duration_since(at))
    }

    /// True when a reconciliation is stuck, and not for want of an API server: it answered somebody else meanwhile.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let all = self.reconciliations();
        let oldest = all.running.values().min().copied();
        oldest.zip(all.answered).is_some_and(|(oldest, answered)| is_stuck(oldest, answered))
    }
}

/// True when the API server answered after this reconciliation had waited too long. While it answers nobody, nobody is
/// stuck: a new process would wait for it, too.
fn is_stuck(waits_since: Instant, answered: Instant) -> bool {
    answered.saturating_duration_since(waits_since) >= STUCK_AFTER
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reconciliation_without_an_answer_is_stuck_only_where_others_are_answered() {
        let liveness = Liveness::default();
        let stuck = liveness.follow(std::future::pending::<()>());
        tokio::pin!(stuck);
        let wait = async |by: Duration| sleep(by).await;
        tokio::select! {
            () = &mut stuck => {}
            () = wait(STUCK_AFTER * 3) => {}
        }
        assert!(!liveness.is_stuck(), "the API server was away for all");
        assert_eq!(liveness.longest_wait(), STUCK_AFTER * 3);
        liveness.record_answer();
        assert!(liveness.is_stuck(), "another was answered, and this one still waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_reconciliation_that_is_answered_is_not_stuck_and_one_that_ended_is_forgotten() {
        let liveness = Liveness::default();
        let of_others = liveness.clone();
        let many_requests = async {
            for _ in 0..100 {
                sleep(STUCK_AFTER / 2).await;
                liveness.record_answer();
                assert!(!of_others.is_stuck());
            }
            of_others.longest_wait()
        };
        assert_eq!(liveness.follow(many_requests).await, Duration::ZERO);
        sleep(STUCK_AFTER * 2).await;
        liveness.record_answer();
        assert!(!liveness.is_stuck(), "none runs");
    }
}
