//! What the provider of an account allows, held against what is to be moved.

use super::{CheckWarning, IncomingMail, InspectedAccount, WarningTopic};
use crate::{
    error::Side,
    imap::provider::{DailyAllowance, Provider},
    terminal_text::{format_bytes, format_count},
};

/// Of a daily allowance this much is counted on: the account's owner reads mail, too.
const COUNTED_PERCENT: u64 = 80;

/// The provider of an account, by its host and by what it said.
#[must_use]
pub(super) fn provider_of(inspected: &InspectedAccount) -> Option<&'static Provider> {
    inspected.facts.provider(&inspected.endpoint)
}

/// Warns of a host that is not the right one of its provider.
#[must_use]
pub(super) fn host_warning(side: Side, inspected: &InspectedAccount) -> Option<CheckWarning> {
    let (provider, host) = (provider_of(inspected)?, &inspected.endpoint.host);
    let what = match side {
        Side::Source => provider.better_source(host)?,
        Side::Destination if provider.is_read_only(host) => {
            format!("{host} only gives mail away: name {}'s usual IMAP host as the destination", provider.name)
        }
        Side::Destination => return None,
    };
    Some(CheckWarning { topic: WarningTopic::Provider, side: Some(side), what })
}

/// Warns where what is to be moved is more than a provider lets pass in a day.
#[must_use]
pub(super) fn allowance_warning(
    side: Side,
    inspected: &InspectedAccount,
    incoming: IncomingMail,
) -> Option<CheckWarning> {
    let provider = provider_of(inspected)?;
    let days = days_needed(side, provider.daily?, incoming.bytes?)?;
    let DailyAllowance { read, written } = provider.daily?;
    let (allowed, verb) = match side {
        Side::Source => (read, "gives"),
        Side::Destination => (written, "takes"),
    };
    let what = format!(
        "{} {verb} at most {} of one account by IMAP in a day, so this takes {} at least; what is over it is refused for \
         hours, and the next attempt goes on",
        provider.name,
        format_bytes(allowed),
        format_count(days, "day")
    );
    Some(CheckWarning { topic: WarningTopic::Provider, side: Some(side), what })
}

/// The days that so many bytes take, where that is more than one.
fn days_needed(side: Side, daily: DailyAllowance, bytes: u64) -> Option<u64> {
    let allowed = match side {
        Side::Source => daily.read,
        Side::Destination => daily.written,
    };
    let days = bytes.div_ceil((allowed / 100 * COUNTED_PERCENT).max(1));
    (days > 1).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_by_the_part_of_an_allowance_that_is_for_a_migration() {
        let daily = DailyAllowance { read: 2500, written: 500 };
        assert_eq!(days_needed(Side::Source, daily, 2000), None);
        assert_eq!(days_needed(Side::Source, daily, 2001), Some(2));
        assert_eq!(days_needed(Side::Destination, daily, 2001), Some(6));
    }
}
