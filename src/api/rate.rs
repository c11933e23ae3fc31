//! Sizes and rates as the statuses show them.

/// Bytes per second as people read them: `12 MiB/s`, in steps of 1024, cut to two or three digits.
#[must_use]
pub(crate) fn rate_text(bytes_per_second: u64) -> String {
    format!("{}/s", size_text(bytes_per_second))
}

/// Bytes as people read them: `12 MiB`, in steps of 1024, cut to two or three digits.
#[must_use]
pub(crate) fn size_text(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    if tenths < 100 { format!("{}.{} {unit}", tenths / 10, tenths % 10) } else { format!("{} {unit}", tenths / 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short_in_binary_units_and_fit_a_status() {
        for (bytes, text) in [(0, "0 B/s"), (1023, "1023 B/s"), (1536, "1.5 KiB/s"), (12 << 20, "12 MiB/s")] {
            assert_eq!(rate_text(bytes), text);
        }
        assert!(rate_text(u64::MAX).len() <= 20);
    }
}
