//! Waiting for what another task, process or server does: with a bound, and with a reason where it does not come.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// How long a wait may take: far more than it does, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Looks again and again until there is a result, and gives it. `Err` is what was seen instead.
///
/// Panics when there is none after [`PATIENCE`], with the description and what was seen last:
///
/// ```should_panic
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// # let copied = || 3;
/// mailferry_testkit::eventually("five messages are copied", async || match copied() {
///     5.. => Ok(()),
///     fewer => Err(format!("{fewer} messages")),
/// })
/// .await;
/// # });
/// ```
pub async fn eventually<T, S: Display>(what: &str, look: impl AsyncFnMut() -> Result<T, S>) -> T {
    match look_for(PATIENCE, look).await {
        Ok(found) => found,
        Err(Some(seen)) => panic!("not within {PATIENCE:?}: {what}; seen last: {seen}"),
        Err(None) => panic!("not within {PATIENCE:?}: {what}; the first look did not end"),
    }
}

/// Looks again and again until there is a result, and gives it; or what was seen last, after so long.
pub async fn look_for<T, S>(limit: Duration, mut look: impl AsyncFnMut() -> Result<T, S>) -> Result<T, Option<S>> {
    let mut seen = None;
    let found = timeout(limit, async {
        let start = Instant::now();
        loop {
            match look().await {
                Ok(found) => return found,
                Err(other) => seen = Some(other),
            }
            // Often at first, so that what lasts a moment only is seen; then seldom, so that waiting costs nothing.
            let pause = start.elapsed() / 20;
            sleep(pause.clamp(Duration::from_millis(1), Duration::from_millis(100))).await;
        }
    });
    found.await.map_err(|_| seen)
}

/// A result of a look: nothing but that it is so, or else what was seen.
pub fn so<S>(is: bool, seen: S) -> Result<(), S> {
    if is { Ok(()) } else { Err(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_late_is_given() {
        let start = Instant::now();
        let minute = Duration::from_mins(1);
        let look = async || if start.elapsed() > minute { Ok("there") } else { Err("not yet") };
        assert_eq!(eventually("it is there", look).await, "there");
        assert!(start.elapsed() < minute + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 120s: it is there; seen last: another")]
    async fn what_does_not_come_ends_the_test_with_what_was_seen_last() {
        let mut looks = 0;
        let look = async || {
            looks += 1;
            so(looks < 0, if looks == 1 { "the first" } else { "another" })
        };
        eventually("it is there", look).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_does_not_end_is_given_up() {
        assert_eq!(look_for(PATIENCE, async || std::future::pending::<Result<(), ()>>().await).await, Err(None));
    }
}
