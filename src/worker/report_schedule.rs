//! When a report is due and what it carries: seldom enough for ten thousand mailboxes, often enough for one that is
//! watched.

use std::time::Duration;

/// The first report after the claim, at the earliest: a mailbox that ends before writes twice in all.
const FIRST_REPORT_DELAY: Duration = Duration::from_secs(10);
/// A folder's end is reported at most this often.
const FOLDER_REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// A refused access token is reported at most this often: another one is waited for.
const REFUSAL_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The checkpoint is sent at most this often,
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);
/// or this often at the end of large folders.
const LARGE_FOLDER_INTERVAL: Duration = Duration::from_secs(10);
/// The longest wait before a report that failed is tried again.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);

/// The facts that decide about the next report. Times are since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportState {
    /// How long the sync may go on without an answer.
    pub grace: Duration,
    /// When the claim was sent.
    pub claimed: Duration,
    /// When the last report was sent, answered or not; the claim is one.
    pub sent: Duration,
    /// So many reports in a row had no answer.
    pub failures: u32,
    /// An access token was refused since the last report, or another one was taken.
    pub token_refused: bool,
    /// A folder has ended since the last report.
    pub folder_ended: bool,
    /// There is a checkpoint that the API server does not have.
    pub checkpoint: bool,
    /// A folder has ended since the last checkpoint, and much was copied.
    pub large_folder: bool,
    /// When the last checkpoint was sent, if this attempt sent one.
    pub checkpoint_sent: Option<Duration>,
}

/// What the reporter does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportAction {
    /// It waits for this long, unless something happens.
    Wait(Duration),
    /// It reports.
    Report {
        /// True when the report carries the checkpoint.
        checkpoint: bool,
    },
}

/// Decides whether a report is due now, and whether it carries the checkpoint: seldom enough for the API server, and three
/// times within the grace at least.
#[must_use]
pub(crate) fn next_action(state: &ReportState, now: Duration) -> ReportAction {
    let wait = next_report_at(state).saturating_sub(now);
    if !wait.is_zero() {
        return ReportAction::Wait(wait);
    }
    let rest = if state.large_folder { LARGE_FOLDER_INTERVAL } else { CHECKPOINT_INTERVAL };
    let rested = state.checkpoint_sent.is_none_or(|sent| now >= sent + rest);
    ReportAction::Report { checkpoint: state.checkpoint && rested }
}

fn next_report_at(state: &ReportState) -> Duration {
    // Several reports fit into the grace, however short it is.
    let third = state.grace / 3;
    if state.failures > 0 {
        let backoff = Duration::from_millis(500) * 2_u32.saturating_pow(state.failures.min(10));
        return state.sent + backoff.min(MAX_RETRY_DELAY).min(third);
    }
    if state.token_refused {
        return state.sent + REFUSAL_REPORT_INTERVAL.min(third);
    }
    let regular = state.sent + interval(state.sent.saturating_sub(state.claimed)).min(third);
    if state.folder_ended {
        let early = (state.sent + FOLDER_REPORT_INTERVAL).max(state.claimed + FIRST_REPORT_DELAY.min(third));
        return regular.min(early);
    }
    regular
}

/// People look at what has just started.
fn interval(age: Duration) -> Duration {
    match age.as_secs() {
        0..120 => FIRST_REPORT_DELAY,
        120..900 => Duration::from_secs(20),
        _ => Duration::from_secs(30),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn state() -> ReportState {
        ReportState {
            grace: 600 * S,
            claimed: 100 * S,
            sent: 100 * S,
            failures: 0,
            token_refused: false,
            folder_ended: false,
            checkpoint: true,
            large_folder: false,
            checkpoint_sent: None,
        }
    }

    #[test]
    fn nothing_is_sent_in_the_first_ten_seconds_whatever_happens() {
        let state = ReportState { folder_ended: true, large_folder: true, ..state() };
        assert_eq!(next_action(&state, 100 * S), ReportAction::Wait(10 * S));
        assert_eq!(next_action(&state, 110 * S), ReportAction::Report { checkpoint: true });
    }

    #[test]
    fn reports_become_rarer_and_a_folders_end_is_told_soon() {
        let later = |sent: u32| ReportState { sent: sent * S, checkpoint: false, ..state() };
        assert_eq!(next_action(&later(110), 110 * S), ReportAction::Wait(10 * S));
        assert_eq!(next_action(&later(300), 300 * S), ReportAction::Wait(20 * S));
        assert_eq!(next_action(&later(2000), 2000 * S), ReportAction::Wait(30 * S));
        let ended = ReportState { folder_ended: true, ..later(2000) };
        assert_eq!(next_action(&ended, 2005 * S), ReportAction::Report { checkpoint: false });
        assert_eq!(next_action(&ended, 2004 * S), ReportAction::Wait(S));
    }

    #[test]
    fn a_refused_token_is_told_at_once_unless_the_api_server_is_away() {
        let refused = ReportState { token_refused: true, checkpoint: false, ..state() };
        assert_eq!(next_action(&refused, 100 * S), ReportAction::Wait(S));
        assert_eq!(next_action(&refused, 101 * S), ReportAction::Report { checkpoint: false });
        let away = ReportState { failures: 3, ..refused };
        assert_eq!(next_action(&away, 101 * S), ReportAction::Wait(3 * S));
    }

    #[test]
    fn the_checkpoint_rests_for_thirty_seconds_or_ten_after_a_large_folder() {
        let sent = ReportState { sent: 140 * S, checkpoint_sent: Some(125 * S), ..state() };
        assert_eq!(next_action(&sent, 150 * S), ReportAction::Report { checkpoint: false });
        assert_eq!(
            next_action(&ReportState { large_folder: true, ..sent }, 150 * S),
            ReportAction::Report { checkpoint: true }
        );
        assert_eq!(next_action(&sent, 155 * S), ReportAction::Report { checkpoint: true });
        assert_eq!(
            next_action(&ReportState { checkpoint: false, ..sent }, 170 * S),
            ReportAction::Report { checkpoint: false }
        );
    }

    fn states() -> impl Strategy<Value = ReportState> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        let times = (10..86_400_u64, 0..100_000_u64, 0..50_000_u64, proptest::option::of(0..200_000_u64));
        (times, 0..50_u32, flags).prop_map(|((grace, claimed, later, checkpoint), failures, flags)| ReportState {
            grace: Duration::from_secs(grace),
            claimed: Duration::from_millis(claimed),
            sent: Duration::from_millis(claimed + later),
            failures,
            token_refused: false,
            folder_ended: flags.0,
            checkpoint: flags.1,
            large_folder: flags.2,
            checkpoint_sent: checkpoint.map(Duration::from_millis),
        })
    }

    proptest! {
        #[test]
        fn a_wait_ends_exactly_when_a_report_is_due(state in states(), later in 0..100_000_u64) {
            let now = state.sent + Duration::from_millis(later);
            if let ReportAction::Wait(wait) = next_action(&state, now) {
                let reported = matches!(next_action(&state, now + wait), ReportAction::Report { .. });
                prop_assert!(reported);
                let waits = matches!(next_action(&state, now + wait.saturating_sub(Duration::from_nanos(1))), ReportAction::Wait(_));
                prop_assert!(waits);
            }
        }

        #[test]
        fn three_reports_fit_into_the_grace_and_none_is_sent_at_once(state in states()) {
            let due = next_report_at(&state).saturating_sub(state.sent);
            prop_assert!(due <= state.grace / 3, "{due:?}");
            prop_assert!(due <= Duration::from_secs(30));
            prop_assert!(due >= (state.grace / 3).min(S), "{due:?}");
            if state.failures == 0 {
                prop_assert!(due >= (state.grace / 3).min(FOLDER_REPORT_INTERVAL));
            }
        }

        #[test]
        fn a_checkpoint_is_sent_only_when_there_is_a_new_one_and_seldom(state in states(), later in 0..100_000_u64) {
            let now = state.sent + Duration::from_millis(later);
            if next_action(&state, now) == (ReportAction::Report { checkpoint: true }) {
                prop_assert!(state.checkpoint);
                prop_assert!(state.checkpoint_sent.is_none_or(|sent| now >= sent + LARGE_FOLDER_INTERVAL));
            }
        }
    }
}
