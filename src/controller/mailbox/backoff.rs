//! Waits that differ between mailboxes, so that many are not tried at once.

use jiff::SignedDuration;

use crate::api::names;

/// A wait, shortened or lengthened by up to so many percent: at random between mailboxes, always the same for one.
#[must_use]
pub(crate) fn jittered(wait: SignedDuration, percent: i32, uid: &str, number: i64) -> SignedDuration {
    let hash = names::hash_texts(&[uid, &number.to_string()], 8);
    let random = f64::from(u32::from_str_radix(&hash, 16).unwrap_or(0)) / f64::from(u32::MAX);
    let factor = 1.0 + f64::from(percent) / 100.0 * (2.0 * random - 1.0);
    SignedDuration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(wait)
}
