//! When syncs may run, by the time windows of the servers that they use: pure, the same with and without a cluster. Time
//! comes in as a parameter.
//!
//! A window opens on its days by the clock of its zone. Where that clock leaves a time out (in spring), the time is that much
//! later; where it comes twice (in autumn), the first is meant (RFC 5545, section 3.3.5). A sync may run while each of its
//! servers has a window open; a server without windows always does.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};

use crate::{
    api::time_window::{Day, TimeWindow},
    error::{Error, Result},
};

/// So many days are looked ahead: each window opens within a week, or within two where a clock leaves it out once.
const DAYS_AHEAD: i32 = 16;
/// ... and so many back: a window that is open now began yesterday at the earliest, by whatever date it is there.
const DAYS_BACK: i32 = 2;

/// Whether a sync may run at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SyncTimes {
    /// It may, until then; none: for days to come.
    Open(Option<Timestamp>),
    /// It may not.
    Closed(ClosedTimes),
}

/// Why a sync may not run now, and when it may.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClosedTimes {
    /// When it may run next; none: never, as the windows are written.
    pub opens_at: Option<Timestamp>,
    /// The reason and that time, as a clause for people.
    pub words: String,
}

impl SyncTimes {
    /// Of a sync whose servers have no windows.
    pub const ALWAYS: Self = Self::Open(None);

    /// Why a sync may not run, if it may not.
    #[must_use]
    pub(crate) const fn closed(&self) -> Option<&ClosedTimes> {
        match self {
            Self::Open(_) => None,
            Self::Closed(closed) => Some(closed),
        }
    }

    /// When the answer is another one next.
    #[must_use]
    pub(crate) const fn changes_at(&self) -> Option<Timestamp> {
        match self {
            Self::Open(until) => *until,
            Self::Closed(closed) => closed.opens_at,
        }
    }
}

/// Whether a sync may run now that uses these servers: each with its name for people, and its windows.
#[must_use]
pub(crate) fn sync_times<'a>(
    servers: impl IntoIterator<Item = (&'a str, &'a [TimeWindow])>,
    now: Timestamp,
) -> SyncTimes {
    let mut times = Vec::new();
    for (server, windows) in servers.into_iter().filter(|(_, windows)| !windows.is_empty()) {
        match open_spans(windows, now) {
            Ok(spans) => times.push(ServerTimes { server, windows, spans }),
            Err(error) => {
                let words = format!("waiting for the time windows of {server} to be corrected: {}", error.what);
                return SyncTimes::Closed(ClosedTimes { opens_at: None, words });
            }
        }
    }
    let Some(closed) = times.iter().find(|times| times.span_at(now).is_none()) else {
        let ends = times.iter().filter_map(|times| times.span_at(now)).map(|span| span.to);
        return SyncTimes::Open(ends.min().filter(|end| *end < horizon(now)));
    };
    let opens_at = next_common_time(&times, now);
    let server = closed.server;
    let words = match opens_at {
        Some(at) => format!(
            "outside the time windows of {server} (limits.windows): syncs may run again from {}",
            closed.clock_text(at)
        ),
        None => "no time lies in the time windows of both servers (limits.windows): no sync can ever run".to_owned(),
    };
    SyncTimes::Closed(ClosedTimes { opens_at, words })
}

/// What is wrong with windows beyond their schema.
///
/// # Errors
/// Configuration, for a time zone that nobody knows.
pub(crate) fn check_windows(windows: &[TimeWindow]) -> Result<()> {
    windows.iter().try_for_each(|window| time_zone(window).map(drop))
}

/// Windows as people read them: `Mon Tue 22:00-06:00 Europe/Berlin, 00:00-24:00 UTC`.
#[must_use]
pub(crate) fn windows_text(windows: &[TimeWindow]) -> String {
    let text = |window: &TimeWindow| {
        let mut words: Vec<String> = window.days.iter().map(|day| format!("{day:?}")).collect();
        words.push(format!("{}-{} {}", window.from, window.to, window.time_zone));
        words.join(" ")
    };
    windows.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// From when on nothing is said.
fn horizon(now: Timestamp) -> Timestamp {
    now + (24 * i64::from(DAYS_AHEAD - 1)).hours()
}

/// A server's windows around one moment.
struct ServerTimes<'a> {
    server: &'a str,
    windows: &'a [TimeWindow],
    /// In order, each after the one before.
    spans: Vec<OpenSpan>,
}

/// A time in which at least one window is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OpenSpan {
    from: Timestamp,
    /// The first moment after it.
    to: Timestamp,
}

impl ServerTimes<'_> {
    fn span_at(&self, at: Timestamp) -> Option<&OpenSpan> {
        self.spans.iter().find(|span| span.from <= at && at < span.to)
    }

    fn next_opening(&self, after: Timestamp) -> Option<Timestamp> {
        self.spans.iter().map(|span| span.from).find(|from| *from > after)
    }

    /// A moment by the clock of its first window.
    fn clock_text(&self, at: Timestamp) -> String {
        let zone = self.windows.first().and_then(|window| time_zone(window).ok()).unwrap_or(TimeZone::UTC);
        at.to_zoned(zone).strftime("%a %Y-%m-%d %H:%M (UTC%:z)").to_string()
    }
}

/// The first moment from now on at which all servers have a window open.
fn next_common_time(times: &[ServerTimes<'_>], now: Timestamp) -> Option<Timestamp> {
    let mut at = now;
    while let Some(closed) = times.iter().find(|times| times.span_at(at).is_none()) {
        at = closed.next_opening(at).filter(|next| *next < horizon(now))?;
    }
    Some(at)
}

/// When at least one of the windows is open, around this moment.
fn open_spans(windows: &[TimeWindow], now: Timestamp) -> Result<Vec<OpenSpan>> {
    let mut spans = Vec::new();
    for window in windows {
        let zone = time_zone(window)?;
        let today = now.to_zoned(zone.clone()).date();
        let dates = (-DAYS_BACK..=DAYS_AHEAD).filter_map(|day| today.checked_add(day.days()).ok());
        spans.extend(dates.filter_map(|date| window_on(window, date, &zone)));
    }
    spans.sort_unstable();
    let mut merged: Vec<OpenSpan> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => merged.push(span),
        }
    }
    Ok(merged)
}

/// The window as it opens on this date; none where it does not.
fn window_on(window: &TimeWindow, date: Date, zone: &TimeZone) -> Option<OpenSpan> {
    if !window.days.is_empty() && !window.days.iter().any(|day| weekday(*day) == date.weekday()) {
        return None;
    }
    let from = clock_time(&window.from)?;
    let (end_date, to) = match window.to.as_str() {
        "24:00" => (date.tomorrow().ok()?, Time::midnight()),
        to => match clock_time(to)? {
            to if to > from => (date, to),
            to => (date.tomorrow().ok()?, to),
        },
    };
    let at = |date: Date, time: Time| zone.to_ambiguous_timestamp(date.to_datetime(time)).compatible().ok();
    let span = OpenSpan { from: at(date, from)?, to: at(end_date, to)? };
    (span.from < span.to).then_some(span)
}

/// A time as the schema has it: `22:00`.
fn clock_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

const fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

fn time_zone(window: &TimeWindow) -> Result<TimeZone> {
    TimeZone::get(&window.time_zone).map_err(|_| {
        Error::configuration(format!("there is no time zone {} (limits.windows)", window.time_zone))
            .advice("Write its name in the IANA database, such as Europe/Berlin, America/New_York or UTC")
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn window(days: &[Day], from: &str, to: &str, zone: &str) -> TimeWindow {
        TimeWindow { days: days.to_vec(), from: from.to_owned(), to: to.to_owned(), time_zone: zone.to_owned() }
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn times(windows: &[TimeWindow], now: &str) -> SyncTimes {
        sync_times([("old.example:993", windows)], at(now))
    }

    fn opens(times: &SyncTimes) -> Option<String> {
        times.closed().unwrap().opens_at.map(|at| at.to_string())
    }

    const NIGHTS: [Day; 5] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri];

    #[test]
    fn a_night_begins_on_its_day_and_ends_on_the_next() {
        let nights = [window(&NIGHTS, "22:00", "06:00", "Europe/Berlin")];
        // A Friday in winter: 22:00 there is 21:00 UTC.
        let closed = times(&nights, "2026-01-16T20:59:59Z");
        assert_eq!(opens(&closed).as_deref(), Some("2026-01-16T21:00:00Z"));
        let words = "outside the time windows of old.example:993 (limits.windows): syncs may run again from Fri 2026-01-16 \
                     22:00 (UTC+01:00)";
        assert_eq!(closed.closed().unwrap().words, words);
        let until = Some(at("2026-01-17T05:00:00Z"));
        assert_eq!(times(&nights, "2026-01-16T21:00:00Z"), SyncTimes::Open(until));
        assert_eq!(
            times(&nights, "2026-01-17T04:59:59Z"),
            SyncTimes::Open(until),
            "it is Saturday, and Friday's window"
        );
        assert_eq!(opens(&times(&nights, "2026-01-17T05:00:00Z")).as_deref(), Some("2026-01-19T21:00:00Z"), "Monday");
    }

    #[test]
    fn windows_that_follow_each_other_are_one_and_the_whole_week_never_closes() {
        let weekend =
            [window(&[Day::Sat, Day::Sun], "00:00", "24:00", "UTC"), window(&[Day::Fri], "18:00", "24:00", "UTC")];
        assert_eq!(times(&weekend, "2026-01-16T19:00:00Z"), SyncTimes::Open(Some(at("2026-01-19T00:00:00Z"))));
        assert_eq!(times(&[window(&[], "00:00", "24:00", "UTC")], "2026-01-16T19:00:00Z"), SyncTimes::ALWAYS);
        assert_eq!(times(&[], "2026-01-16T19:00:00Z"), SyncTimes::ALWAYS);
    }

    #[test]
    fn a_time_that_the_clock_leaves_out_is_later_and_one_that_comes_twice_is_the_first() {
        // In spring 02:00 becomes 03:00 there, at 01:00 UTC; in autumn 03:00 becomes 02:00, at 01:00 UTC.
        let late = [window(&[], "02:30", "06:00", "Europe/Berlin")];
        assert_eq!(opens(&times(&late, "2026-03-29T00:59:00Z")).as_deref(), Some("2026-03-29T01:30:00Z"));
        assert_eq!(times(&late, "2026-03-29T01:30:00Z"), SyncTimes::Open(Some(at("2026-03-29T04:00:00Z"))));
        assert_eq!(times(&late, "2026-10-25T00:30:00Z"), SyncTimes::Open(Some(at("2026-10-25T05:00:00Z"))));
        let early = [window(&[], "22:00", "02:30", "Europe/Berlin")];
        assert_eq!(times(&early, "2026-03-28T23:00:00Z"), SyncTimes::Open(Some(at("2026-03-29T01:30:00Z"))));
        assert_eq!(times(&early, "2026-10-24T23:00:00Z"), SyncTimes::Open(Some(at("2026-10-25T00:30:00Z"))));
    }

    #[test]
    fn both_servers_must_be_open_and_what_never_is_is_said() {
        let now = at("2026-01-16T12:00:00Z");
        let (night, early) = ([window(&[], "22:00", "06:00", "UTC")], [window(&[], "04:00", "08:00", "UTC")]);
        let both = sync_times([("old", night.as_slice()), ("new", early.as_slice())], now);
        assert_eq!(opens(&both).as_deref(), Some("2026-01-17T04:00:00Z"));
        let then = sync_times([("old", night.as_slice()), ("new", early.as_slice())], at("2026-01-17T04:00:00Z"));
        assert_eq!(then, SyncTimes::Open(Some(at("2026-01-17T06:00:00Z"))));
        let day = [window(&[], "08:00", "22:00", "UTC")];
        let never = sync_times([("old", night.as_slice()), ("new", day.as_slice())], now);
        assert_eq!(opens(&never), None);
        assert!(never.closed().unwrap().words.starts_with("no time lies in"), "{never:?}");
        let one = sync_times([("old", night.as_slice()), ("new", &[])], now);
        assert_eq!(opens(&one).as_deref(), Some("2026-01-16T22:00:00Z"));
    }

    #[test]
    fn an_unknown_time_zone_lets_nothing_run_and_is_named() {
        let wrong = [window(&[], "22:00", "06:00", "Europe/Berln")];
        assert!(check_windows(&wrong).unwrap_err().to_string().contains("there is no time zone Europe/Berln"));
        let closed = times(&wrong, "2026-01-16T23:00:00Z");
        assert!(closed.closed().unwrap().words.contains("Europe/Berln"), "{closed:?}");
        assert_eq!(opens(&closed), None);
        check_windows(&[window(&[], "22:00", "06:00", "America/Argentina/Buenos_Aires")]).unwrap();
    }

    #[test]
    fn windows_are_told_in_a_line() {
        let windows =
            [window(&[Day::Mon, Day::Sun], "22:00", "06:00", "Europe/Berlin"), window(&[], "12:00", "13:00", "UTC")];
        assert_eq!(windows_text(&windows), "Mon Sun 22:00-06:00 Europe/Berlin, 12:00-13:00 UTC");
    }

    proptest! {
        #[test]
        fn what_is_said_of_a_moment_holds_until_the_change_and_not_longer(
            seconds in 1_700_000_000_i64..2_000_000_000,
            windows in proptest::collection::vec(
                (0_usize..128, 0_u16..1440, 1_u16..1440, proptest::sample::select(vec!["Europe/Berlin", "America/New_York", "UTC", "Australia/Lord_Howe"])),
                1..4,
            ),
        ) {
            const WEEK: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
            let clock = |minute: u16| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
            let windows: Vec<_> = windows.into_iter().map(|(days, from, long, zone)| {
                let days: Vec<_> = WEEK.into_iter().enumerate().filter(|(day, _)| (days >> day) & 1 == 1).map(|(_, day)| day).collect();
                window(&days, &clock(from), &clock(from + long), zone)
            }).collect();
            let now = Timestamp::from_second(seconds).unwrap();
            let said = sync_times([("old", windows.as_slice())], now);
            prop_assert!(said.changes_at().is_some() || said.closed().is_none(), "it opens within a week");
            if let Some(change) = said.changes_at() {
                prop_assert!(change > now);
                let before = sync_times([("old", windows.as_slice())], change - SignedDuration::from_secs(1));
                prop_assert_eq!(before.closed().is_some(), said.closed().is_some());
                prop_assert_eq!(before.changes_at(), Some(change));
                let after = sync_times([("old", windows.as_slice())], change);
                prop_assert_ne!(after.closed().is_some(), said.closed().is_some());
            }
        }
    }
}
