//! Whether an operator leads, by its Lease. Pure.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// A leader renews its Lease within this time, unless the Lease says another.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// What was seen of an operator's Lease.
#[derive(Debug, Default)]
pub(super) struct LeadView {
    seen: Option<(LeaseSpec, Instant)>,
}

impl LeadView {
    /// Who leads, after one more look at the Lease: its holder, unless it was not renewed for as long as it lasts. Only this
    /// machine's clock counts, so a holder that was seen for the first time is believed for that long.
    pub(super) fn leader_after(&mut self, lease: Option<LeaseSpec>, now: Instant) -> Option<String> {
        let Some(lease) = lease else {
            self.seen = None;
            return None;
        };
        let holder = lease.holder_identity.clone().filter(|holder| !holder.is_empty());
        let seconds = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = seconds.map_or(LEASE_DURATION, Duration::from_secs);
        let renewed = self.seen.as_ref().is_none_or(|(before, _)| {
            (&before.renew_time, &before.holder_identity) != (&lease.renew_time, &lease.holder_identity)
        });
        let at = self.seen.take().map(|(_, at)| at).filter(|_| !renewed).unwrap_or(now);
        self.seen = Some((lease, at));
        holder.filter(|_| now.duration_since(at) < lasts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(holder: &str, second: u32) -> LeaseSpec {
        let renewed = format!("2026-03-01T00:00:{second:02}.000000Z");
        let spec = json!({"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_holder_leads_while_it_renews_and_no_longer() {
        let (mut view, start) = (LeadView::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(view.leader_after(Some(lease("a", 0)), at(0)).as_deref(), Some("a"), "it may be about to renew");
        assert_eq!(view.leader_after(Some(lease("a", 10)), at(10)).as_deref(), Some("a"));
        assert_eq!(view.leader_after(Some(lease("a", 10)), at(24)).as_deref(), Some("a"));
        assert_eq!(view.leader_after(Some(lease("a", 10)), at(25)), None);
        assert_eq!(view.leader_after(Some(lease("b", 30)), at(30)).as_deref(), Some("b"));
    }

    #[test]
    fn nobody_leads_by_a_lease_that_was_given_back_or_is_not_there() {
        let (mut view, now) = (LeadView::default(), Instant::now());
        assert_eq!(view.leader_after(None, now), None);
        assert_eq!(view.leader_after(Some(lease("", 0)), now), None);
        assert_eq!(view.leader_after(Some(lease("a", 1)), now).as_deref(), Some("a"));
        assert_eq!(view.leader_after(None, now), None);
    }
}
