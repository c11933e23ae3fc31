//! How long what is left will take, by what is known: pure. Where nothing tells, the answer is "unknown" and no guess.

use crate::api::rate::{rate_text, size_text};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What is still to be copied for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WorkLeft {
    /// Mailboxes that no sync has brought over yet.
    pub mailboxes: u64,
    /// Their messages that are not copied; none: no listing has told yet.
    pub messages: Option<u64>,
    /// The bytes of these; none: no source has told, and nothing was read that would.
    pub bytes: Option<u64>,
}

/// What is known of the speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct KnownRates {
    /// Bytes per second as they were measured.
    pub measured: Option<u64>,
    /// The most bytes per second that the servers' limits allow.
    pub limit: Option<u64>,
    /// The most syncs that the servers' limits let start within a minute.
    pub starts_per_minute: Option<u64>,
}

/// How long it will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeLeft {
    /// Nothing tells.
    Unknown,
    /// The limits allow no less; how fast the servers really are is not known.
    AtLeast(TimeAtSpeed),
    /// At the speed that was measured, and within the limits.
    About(TimeAtSpeed),
}

/// A time, and the speed by which it comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeAtSpeed {
    pub seconds: u64,
    /// Bytes per second; none where the number of mailboxes decides.
    pub bytes_per_second: Option<u64>,
}

impl TimeLeft {
    /// In seconds, whatever it is known by.
    #[must_use]
    pub(crate) const fn seconds(&self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::AtLeast(time) | Self::About(time) => Some(time.seconds),
        }
    }
}

/// How long it takes to copy what is left.
#[must_use]
pub(crate) fn time_left(work: &WorkLeft, rates: &KnownRates) -> TimeLeft {
    let starts = rates.starts_per_minute.filter(|starts| *starts > 0);
    // Those of the first minute start at once.
    let by_starts = starts.map(|starts| work.mailboxes.saturating_sub(starts).saturating_mul(MINUTE) / starts);
    let at = |bytes: u64, speed: u64| {
        let (by_bytes, by_starts) = (bytes.div_ceil(speed), by_starts.unwrap_or(0));
        let bytes_per_second = (by_bytes >= by_starts).then_some(speed);
        TimeAtSpeed { seconds: by_bytes.max(by_starts), bytes_per_second }
    };
    let [measured, limit] = [rates.measured, rates.limit].map(|rate| rate.filter(|rate| *rate > 0));
    match (work.bytes, measured, limit) {
        (Some(bytes), Some(measured), limit) => TimeLeft::About(at(bytes, limit.unwrap_or(measured).min(measured))),
        (Some(bytes), None, Some(limit)) => TimeLeft::AtLeast(at(bytes, limit)),
        _ => match by_starts {
            Some(seconds) if seconds > 0 => TimeLeft::AtLeast(TimeAtSpeed { seconds, bytes_per_second: None }),
            _ => TimeLeft::Unknown,
        },
    }
}

/// A measured speed that does not jump: mostly what it was. While nothing moves it stays as it is.
#[must_use]
pub(crate) fn smoothed_speed(before: Option<u64>, now: u64) -> Option<u64> {
    match (before, now) {
        (before, 0) => before,
        (None, now) => Some(now),
        (Some(before), now) => u64::try_from((u128::from(before) * 4 + u128::from(now)) / 5).ok(),
    }
}

/// What is left and how long it takes, for people: `20 GiB: about 10 days at 24 KiB/s`.
#[must_use]
pub(crate) fn forecast_text(work: &WorkLeft, time: &TimeLeft) -> String {
    let what = match (work.bytes, work.messages) {
        (Some(0), Some(0)) => return "nothing".to_owned(),
        (Some(bytes), _) => size_text(bytes),
        (None, Some(messages)) => format!("{messages} messages of unknown size"),
        (None, None) => format!("{} mailboxes of unknown size", work.mailboxes),
    };
    let (sure, time) = match time {
        TimeLeft::Unknown => return format!("{what}: time unknown"),
        TimeLeft::AtLeast(time) => ("at least", time),
        TimeLeft::About(time) => ("about", time),
    };
    let long = time_text(time.seconds);
    match time.bytes_per_second {
        Some(speed) => format!("{what}: {sure} {long} at {}", rate_text(speed)),
        None => format!("{what}: {sure} {long} by startsPerMinute"),
    }
}

/// A time in its largest unit, rounded up: `10 days`, `3 hours`, `1 minute`.
fn time_text(seconds: u64) -> String {
    // Two of a unit are told in the smaller one: "25 hours" says more than "2 days".
    let units = [(DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds > 2 * unit).unwrap_or((MINUTE, "minute"));
    match seconds.div_ceil(unit).max(1) {
        1 => format!("1 {name}"),
        many => format!("{many} {name}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;
    const KIB: u64 = 1 << 10;

    fn work(mailboxes: u64, bytes: Option<u64>) -> WorkLeft {
        WorkLeft { mailboxes, messages: Some(1000), bytes }
    }

    fn rates(measured: Option<u64>, limit: Option<u64>, starts_per_minute: Option<u64>) -> KnownRates {
        KnownRates { measured, limit, starts_per_minute }
    }

    fn text(work: &WorkLeft, rates: &KnownRates) -> String {
        forecast_text(work, &time_left(work, rates))
    }

    #[test]
    fn what_was_measured_decides_within_the_limits() {
        let work = work(20, Some(20 * GIB));
        assert_eq!(text(&work, &rates(Some(24 * KIB), None, None)), "20 GiB: about 11 days at 24 KiB/s");
        assert_eq!(text(&work, &rates(Some(900 * KIB), Some(24 * KIB), None)), "20 GiB: about 11 days at 24 KiB/s");
        assert_eq!(text(&work, &rates(Some(24 * KIB), Some(900 * KIB), None)), "20 GiB: about 11 days at 24 KiB/s");
    }

    #[test]
    fn a_limit_alone_tells_the_least_time_only() {
        let by_limit = rates(None, Some(10 * KIB * KIB), None);
        assert_eq!(text(&work(20, Some(20 * GIB)), &by_limit), "20 GiB: at least 35 minutes at 10 MiB/s");
        let by_starts = rates(None, None, Some(10));
        assert_eq!(text(&work(3010, Some(20 * GIB)), &by_starts), "20 GiB: at least 5 hours by startsPerMinute");
        assert_eq!(
            text(&work(3010, Some(20 * GIB)), &KnownRates { starts_per_minute: Some(10), ..by_limit }),
            "20 GiB: at least 5 hours by startsPerMinute",
            "the slower of both"
        );
    }

    #[test]
    fn what_nothing_tells_is_unknown() {
        assert_eq!(text(&work(20, Some(20 * GIB)), &KnownRates::default()), "20 GiB: time unknown");
        let fast = rates(Some(GIB), Some(GIB), None);
        assert_eq!(text(&work(20, None), &fast), "1000 messages of unknown size: time unknown");
        let unlisted = WorkLeft { mailboxes: 20, ..WorkLeft::default() };
        assert_eq!(text(&unlisted, &fast), "20 mailboxes of unknown size: time unknown");
        assert_eq!(time_left(&work(1, Some(GIB)), &rates(Some(0), Some(0), Some(0))), TimeLeft::Unknown);
        assert_eq!(time_left(&work(5, None), &rates(None, None, Some(10))), TimeLeft::Unknown, "all start at once");
    }

    #[test]
    fn times_are_told_in_a_unit_that_says_enough() {
        let told = [0, 61, 7200, 7201, 47 * HOUR, 49 * HOUR].map(time_text);
        assert_eq!(told, ["1 minute", "2 minutes", "120 minutes", "3 hours", "47 hours", "3 days"]);
    }

    #[test]
    fn a_measured_speed_follows_slowly_and_stays_while_nothing_moves() {
        assert_eq!(smoothed_speed(None, 0), None);
        assert_eq!(smoothed_speed(None, 500), Some(500));
        assert_eq!(smoothed_speed(Some(500), 0), Some(500));
        assert_eq!(smoothed_speed(Some(500), 1000), Some(600));
        assert_eq!(smoothed_speed(Some(u64::MAX), u64::MAX), Some(u64::MAX), "what stays the same does not drift");
        let mut settled = 7;
        for _ in 0..100 {
            settled = smoothed_speed(Some(settled), 1_000_000).unwrap();
        }
        assert!((999_900..=1_000_000).contains(&settled), "{settled}");
    }

    proptest! {
        #[test]
        fn a_forecast_is_never_shorter_than_a_limit_allows(
            bytes in any::<u64>(), mailboxes in any::<u64>(),
            measured in prop::option::of(any::<u64>()), limit in 1..u64::MAX, starts in prop::option::of(any::<u64>()),
        ) {
            let work = WorkLeft { mailboxes, messages: None, bytes: Some(bytes) };
            let time = time_left(&work, &rates(measured, Some(limit), starts));
            prop_assert!(time.seconds().unwrap() >= bytes / limit);
            prop_assert!(forecast_text(&work, &time).len() <= 100);
        }
    }
}
