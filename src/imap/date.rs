//! INTERNALDATE: parsed, compared as an instant, rendered from the parsed value only.

/// A moment with the zone it was written in (RFC 9051 `date-time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InternalDate {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub epoch: i64,
    /// The zone's offset from UTC, minutes.
    pub offset_minutes: i16,
}
