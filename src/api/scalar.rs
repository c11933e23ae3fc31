//! Values that users write as text: durations and sizes.

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time such as `7d`, `6h`, `90s`, `1d12h` or `500ms`: whole numbers, each with a unit, days first, as manifests
/// and the command line have it. A day has 24 hours. Kept to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Duration(time::Duration);

impl Duration {
    /// So many milliseconds.
    #[must_use]
    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }

    /// So many seconds.
    #[must_use]
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// As the standard library has it.
    #[must_use]
    pub(crate) const fn as_std(self) -> time::Duration {
        self.0
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no duration: write days, hours, minutes, seconds or milliseconds, such as 7d, 6h, 1h30m, 90s or \
                 500ms"
            )
        };
        let mut rest = text;
        let mut millis: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(unit);
            let (factor, most_digits) = match unit {
                "d" if rest.len() == text.len() => (86_400_000, 5),
                "h" => (3_600_000, 9),
                "m" => (60_000, 9),
                "s" => (1000, 9),
                "ms" => (1, 9),
                _ => return Err(wrong()),
            };
            if digits > most_digits {
                return Err(wrong());
            }
            let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)?;
            millis = millis.checked_add(part).ok_or_else(wrong)?;
            rest = tail;
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self::from_millis(millis)) }
    }
}

impl fmt::Display for Duration {
    /// The shortest exact form: `1h30m`, `90m` becomes `1h30m`, nothing is `0s`. Without days: programs of a version before
    /// can read it, too, and so can Go's and CEL's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        let parts =
            [(millis / 3_600_000, "h"), (millis / 60_000 % 60, "m"), (millis / 1000 % 60, "s"), (millis % 1000, "ms")];
        for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{count}{unit}")?;
        }
        Ok(())
    }
}

/// A number of bytes such as `500`, `64Ki`, `25Mi` or `10G`: a whole Kubernetes quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Size(u64);

const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1000),
];

impl Size {
    /// In bytes.
    #[must_use]
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no size: write bytes with a unit of Ki, Mi, Gi, Ti, k, M, G or T, such as 25Mi");
        let (number, factor) =
            UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1));
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    /// In the largest unit that gives a whole number; binary units first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

macro_rules! as_text {
    ($type:ty, $pattern:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "minLength": 1, "maxLength": 20, "pattern": $pattern})
            }
        }
    };
}

/// The pattern of a [`Duration`] in the schemas; nothing at all is refused by its length. No more days than CEL's durations
/// can hold.
pub(crate) const DURATION_PATTERN: &str = "^([0-9]{1,5}d)?([0-9]{1,9}(h|ms|m|s))*$";
/// The pattern of a [`Size`] in the schemas.
pub(crate) const SIZE_PATTERN: &str = "^[0-9]{1,12}(Ki|Mi|Gi|Ti|k|M|G|T)?$";

as_text!(Duration, DURATION_PATTERN);
as_text!(Size, SIZE_PATTERN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("6h", 21_600), ("90s", 90), ("1h30m", 5400), ("0s", 0), ("2m5s", 125), ("7d", 604_800)]
        {
            assert_eq!(text.parse::<Duration>().unwrap(), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!("1s500ms".parse::<Duration>().unwrap(), Duration::from_millis(1500));
        assert_eq!("90m".parse::<Duration>().unwrap().to_string(), "1h30m");
        assert_eq!("1d12h".parse::<Duration>().unwrap().to_string(), "36h");
    }

    #[test]
    fn what_is_no_duration_is_refused_with_examples() {
        for text in ["", "6", "h", "d", "6 h", "-1h", "1.5h", "6h1d", "1d1d", "1w", "6H", "99999999999999999999h"] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.contains("such as 7d, 6h"), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_kubernetes_quantities() {
        for (text, bytes) in [("25Mi", 26_214_400), ("25M", 25_000_000), ("64Ki", 65_536), ("1k", 1000), ("7", 7)] {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "Mi", "1.5Gi", "-1", "+1", "1 Mi", "25MB", "25mi", "99999999999999Ti"] {
            assert!(text.parse::<Size>().unwrap_err().contains("such as 25Mi"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_it_was_shown(millis in 0..u64::from(u32::MAX)) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
        }

        #[test]
        fn the_parser_and_the_schemas_pattern_take_the_same_durations(text in "([0-9]{1,6}d)?([0-9]{0,10}(h|ms|m|s|d)?){0,4}") {
            let pattern = regex::Regex::new(DURATION_PATTERN).unwrap();
            let taken = !text.is_empty() && pattern.is_match(&text);
            prop_assert_eq!(text.parse::<Duration>().is_ok(), taken, "{}", text);
        }

        #[test]
        fn a_size_reads_back_as_it_was_shown(number in 0..u64::from(u32::MAX), unit in 0..UNITS.len()) {
            let size = Size(number.saturating_mul(UNITS[unit].1));
            prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
    }
}
