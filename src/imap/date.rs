//! INTERNALDATE: parsed, compared as an instant, rendered from the parsed value only.

use std::fmt;

use jiff::{
    SignedDuration,
    civil::{Date, DateTime},
};

/// A moment with the zone it was written in (RFC 9051 `date-time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InternalDate {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub epoch: i64,
    /// The zone's offset from UTC, minutes.
    pub offset_minutes: i16,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Minutes in a day: no zone is that far from UTC.
const DAY: i16 = 24 * 60;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The first and last moment that four digits of a year can show.
const EARLIEST: DateTime = DateTime::constant(1, 1, 1, 0, 0, 0, 0);
const LATEST: DateTime = DateTime::constant(9999, 12, 31, 23, 59, 59, 0);

impl InternalDate {
    /// Reads ` 1-Jan-2020 12:30:00 +0530`, also with a zero or nothing before the day, with the month in any case, and
    /// with quotes around it all. `None` for every other form and for days and times that do not exist; years are 1 to
    /// 9999.
    #[must_use]
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
        let mut parts = text.trim_ascii().split(|&byte| byte == b' ').filter(|part| !part.is_empty());
        let (date, time, zone) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }

        let [day, month, year] = split(date, b'-')?;
        if day.len() > 2 || year.len() != 4 {
            return None;
        }
        let month = MONTHS.iter().position(|name| month.eq_ignore_ascii_case(name.as_bytes()))? + 1;
        let date = Date::new(number(year)?, i8::try_from(month).ok()?, i8::try_from(number(day)?).ok()?).ok()?;
        if date.year() < 1 {
            return None;
        }

        let [hour, minute, second] = split(time, b':')?;
        if [hour, minute, second].iter().any(|part| part.len() != 2) {
            return None;
        }
        let [hour, minute, second] = [number(hour)?, number(minute)?, number(second)?];
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }

        let (sign, digits) = zone.split_first()?;
        let sign = match sign {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        if digits.len() != 4 {
            return None;
        }
        let (hours, minutes) = (number(&digits[..2])?, number(&digits[2..])?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let offset_minutes = sign * (hours * 60 + minutes);

        let day_seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        let midnight = date.at(0, 0, 0, 0).duration_since(EPOCH).as_secs();
        Some(Self { epoch: midnight + day_seconds - i64::from(offset_minutes) * 60, offset_minutes })
    }

    /// The same moment in a zone in which it is not before 1970: servers refuse such years, whatever the moment.
    #[must_use]
    pub(crate) fn in_sendable_zone(self) -> Self {
        let is_before_1970 = self.epoch >= 0 && self.epoch.saturating_add(i64::from(self.offset_minutes) * 60) < 0;
        Self { offset_minutes: if is_before_1970 { 0 } else { self.offset_minutes }, ..self }
    }

    /// The date as `dd-Mon-yyyy HH:MM:SS +zzzz`, without quotes. A zone of a day or more is shown as UTC, and a moment
    /// outside the years 1 to 9999 as the nearest within.
    #[must_use]
    pub(crate) fn to_imap(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for InternalDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = if (-DAY + 1..DAY).contains(&self.offset_minutes) { self.offset_minutes } else { 0 };
        let seconds = self.epoch.saturating_add(i64::from(offset) * 60);
        let local = EPOCH.saturating_add(SignedDuration::from_secs(seconds)).clamp(EARLIEST, LATEST);
        let month = usize::try_from(local.month()).ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
        write!(
            f,
            "{:02}-{}-{:04} {:02}:{:02}:{:02} {}{:02}{:02}",
            local.day(),
            month.unwrap_or(&MONTHS[0]),
            local.year(),
            local.hour(),
            local.minute(),
            local.second(),
            if offset < 0 { '-' } else { '+' },
            offset.abs() / 60,
            offset.abs() % 60,
        )
    }
}

/// Exactly three parts.
fn split(text: &[u8], at: u8) -> Option<[&[u8]; 3]> {
    let mut parts = text.split(|&byte| byte == at);
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

/// One to four digits.
fn number(text: &[u8]) -> Option<i16> {
    if text.is_empty() || text.len() > 4 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + i16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> InternalDate {
        InternalDate::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text} is a date"))
    }

    #[test]
    fn the_forms_of_all_servers_are_one_instant() {
        let noon = InternalDate { epoch: 1_577_862_000, offset_minutes: 330 };
        for text in [
            " 1-Jan-2020 12:30:00 +0530",
            "01-Jan-2020 12:30:00 +0530",
            "1-Jan-2020 12:30:00 +0530",
            "01-JAN-2020 12:30:00 +0530",
            "\" 1-jan-2020 12:30:00 +0530\"",
        ] {
            assert_eq!(read(text), noon, "{text}");
        }
        assert_eq!(read("01-Jan-2020 07:00:00 +0000").epoch, noon.epoch);
        assert_eq!(noon.to_imap(), "01-Jan-2020 12:30:00 +0530");
    }

    #[test]
    fn moments_before_1970_and_far_away_are_read() {
        assert_eq!(read("31-Dec-1969 23:59:59 +0000").epoch, -1);
        assert_eq!(read("01-Jan-1970 00:00:00 +0000").epoch, 0);
        assert_eq!(read("31-Dec-9999 23:59:59 -2359").to_imap(), "31-Dec-9999 23:59:59 -2359");
        assert_eq!(read("01-Jan-0001 00:00:00 +2359").to_imap(), "01-Jan-0001 00:00:00 +2359");
        assert_eq!(read("29-Feb-2020 00:00:00 -0030").offset_minutes, -30);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "\"",
            "\"\"",
            "NIL",
            "01-Foo-2020 12:30:00 +0000",
            "31-Feb-2020 12:30:00 +0000",
            "29-Feb-2021 12:30:00 +0000",
            "00-Jan-2020 12:30:00 +0000",
            "01-Jan-0000 12:30:00 +0000",
            "01-Jan-20 12:30:00 +0000",
            "01-Jan-12020 12:30:00 +0000",
            "01-Jan-2020 24:00:00 +0000",
            "01-Jan-2020 12:60:00 +0000",
            "01-Jan-2020 12:30:60 +0000",
            "01-Jan-2020 1:30:00 +0000",
            "01-Jan-2020 12:30 +0000",
            "01-Jan-2020 12:30:00",
            "01-Jan-2020 12:30:00 0000",
            "01-Jan-2020 12:30:00 +000",
            "01-Jan-2020 12:30:00 +2400",
            "01-Jan-2020 12:30:00 +0060",
            "01-Jan-2020 12:30:00 GMT",
            "01-Jan-2020 12:30:00 +0000 x",
            "001-Jan-2020 12:30:00 +0000",
            "-1-Jan-2020 12:30:00 +0000",
            "01-Jan--020 12:30:00 +0000",
            "+1-Jan-2020 12:30:00 +0000",
        ] {
            assert_eq!(InternalDate::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_first_seconds_of_1970_are_sent_in_a_zone_that_had_them() {
        let date = |epoch, offset_minutes| InternalDate { epoch, offset_minutes }.in_sendable_zone().to_imap();
        assert_eq!(date(1, -300), "01-Jan-1970 00:00:01 +0000");
        assert_eq!(date(1, 60), "01-Jan-1970 01:00:01 +0100");
        assert_eq!(date(18_000, -300), "01-Jan-1970 00:00:00 -0500");
    }

    #[test]
    fn values_that_no_server_can_mean_still_render_as_dates() {
        for (epoch, offset_minutes) in
            [(i64::MAX, i16::MAX), (i64::MIN, i16::MIN), (i64::MAX, 1439), (i64::MIN, -1439), (0, 1440)]
        {
            let text = InternalDate { epoch, offset_minutes }.to_imap();
            assert!(InternalDate::parse(text.as_bytes()).is_some(), "{text}");
        }
    }

    proptest! {
        // Within the years 1 to 9999 in every zone.
        #[test]
        fn text_round_trips(epoch in -62_135_500_000i64..253_402_200_000, offset_minutes in -1439i16..=1439) {
            let date = InternalDate { epoch, offset_minutes };
            prop_assert_eq!(InternalDate::parse(date.to_imap().as_bytes()), Some(date));
        }

        #[test]
        fn parsing_never_panics(text in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(date) = InternalDate::parse(&text) {
                prop_assert_eq!(InternalDate::parse(date.to_imap().as_bytes()), Some(date));
            }
        }
    }
}
