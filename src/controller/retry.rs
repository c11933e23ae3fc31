//! How long to wait after the API server failed.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The first wait; it doubles.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Failures in a row, by the object's UID.
#[derive(Debug, Default)]
pub(crate) struct ApiFailures(Mutex<HashMap<String, u32>>);

impl ApiFailures {
    fn failures(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a failure, and says how long to wait: longer with each in a row.
    pub(crate) fn next_wait(&self, uid: &str) -> Duration {
        let mut failures = self.failures();
        let times = failures.entry(uid.to_owned()).and_modify(|times| *times += 1).or_insert(1);
        FIRST.saturating_mul(2_u32.saturating_pow((*times).min(8))).min(LONGEST)
    }

    /// The API server answered, or the object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.failures().remove(uid);
    }
}
