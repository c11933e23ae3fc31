//! What a MailServer's status says, and when it is tested next. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::EventType;
use sha2::{Digest as _, Sha256};

use crate::{
    api::{MailServerStatus, mail_server::ServerFacts},
    controller::{condition::ConditionList, events::EventNote},
    error::{Error, ErrorRemedy},
};

/// The condition that a connection test decides.
pub(super) const READY: &str = "Ready";
/// There as well when nothing helps until a person changes something: kstatus waits for what is only not Ready.
const STALLED: &str = "Stalled";

/// How often MailServers are tested and their statuses written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerCheckTimes {
    /// The time from one test of a server that works to the next, give or take a tenth.
    pub period: Duration,
    /// The time from a failed test to the next; doubles with each failure in a row, up to `period`.
    pub retry: Duration,
    /// After a start of the operator all servers are tested, spread over this.
    pub spread: Duration,
    /// `checkedAt` alone is written at most this often.
    pub refresh: Duration,
    /// `connectionsInUse` alone is written at most this often.
    pub connections: Duration,
}

impl Default for ServerCheckTimes {
    fn default() -> Self {
        Self {
            period: Duration::from_mins(10),
            retry: Duration::from_mins(1),
            spread: Duration::from_mins(1),
            refresh: Duration::from_hours(1),
            connections: Duration::from_secs(30),
        }
    }
}

/// One connection test.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerCheck {
    /// The generation of the spec that was tested.
    pub generation: i64,
    /// When it ended.
    pub at: Timestamp,
    /// What it found.
    pub found: Result<ServerFacts, Error>,
    /// Failed tests in a row, this one included.
    pub failures: u32,
}

/// One MailServer at one moment.
#[derive(Debug, Clone, Copy)]
pub struct ObservedServer<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// The version of its spec.
    pub generation: i64,
    /// What was written last.
    pub status: &'a MailServerStatus,
    /// When this process wrote it last.
    pub written_at: Option<Timestamp>,
    /// The newest test that this process made.
    pub check: Option<&'a ServerCheck>,
    /// Connections that running syncs hold.
    pub connections: i32,
    /// When this process began.
    pub started: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// What is written of a MailServer, and when it is tested next.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerDecision {
    /// The status to be written, where it differs from the one observed.
    pub status: MailServerStatus,
    /// How long it is from now to the next test; zero: a test is due.
    pub next_check_in: Duration,
}

/// Decides what the status says after the newest test, and when the next one is due. `checkedAt` and `connectionsInUse`
/// alone are not written at once: a server that works costs the API server few writes.
#[must_use]
pub fn decide(observed: &ObservedServer<'_>, times: &ServerCheckTimes) -> ServerDecision {
    let mut status = observed.status.clone();
    let check = observed.check.filter(|check| check.generation == observed.generation);
    if let Some(check) = check {
        write_check_result(&mut status, check);
        let since = |then: Timestamp| check.at.duration_since(then).unsigned_abs();
        let changed = &status != observed.status;
        if changed || status.checked_at.as_ref().is_none_or(|then| since(then.0) >= times.refresh) {
            status.checked_at = Some(Time(check.at));
        }
    }
    // Nothing else to say yet: an object that nobody uses gets no zero of its own.
    let told = status.connections_in_use.unwrap_or(0);
    let recent =
        observed.written_at.is_some_and(|at| observed.now.duration_since(at).unsigned_abs() < times.connections);
    if told != observed.connections && (status != *observed.status || !recent) {
        status.connections_in_use = Some(observed.connections);
    }
    ServerDecision { status, next_check_in: wait_until_check(observed, check, times) }
}

/// Writes what a test found: facts, and the conditions Ready and Stalled.
fn write_check_result(status: &mut MailServerStatus, check: &ServerCheck) {
    let (value, reason, message) = match &check.found {
        Ok(facts) => {
            status.facts = Some(facts.clone());
            ("True", "Connected".to_owned(), "a connection can be made".to_owned())
        }
        Err(error) => {
            let advice = error.advice.as_ref().map(|advice| format!(". {advice}")).unwrap_or_default();
            ("False", error.class.to_string(), format!("{}{advice}", error.what))
        }
    };
    let old = std::mem::take(&mut status.conditions);
    let mut conditions = ConditionList::new(old, check.generation, Time(check.at));
    conditions.set(READY, value, &reason, &message);
    if check.found.as_ref().is_err_and(|error| error.class.remedy() == ErrorRemedy::WaitForPerson) {
        conditions.set(STALLED, "True", &reason, &message);
    } else {
        conditions.remove(STALLED);
    }
    status.conditions = conditions.into_conditions();
    status.observed_generation = Some(check.generation);
}

/// The Event for a change of the Ready condition; none where it stayed as it was.
#[must_use]
pub(crate) fn readiness_event(before: &MailServerStatus, after: &MailServerStatus) -> Option<EventNote> {
    let ready = |status: &MailServerStatus| status.conditions.iter().find(|c| c.type_ == READY).cloned();
    let (before, after) = (ready(before), ready(after)?);
    if before.is_some_and(|before| before.status == after.status && before.reason == after.reason) {
        return None;
    }
    Some(if after.status == "True" {
        EventNote { severity: EventType::Normal, reason: "Connected", message: after.message }
    } else {
        EventNote::warning("ConnectionFailed", format!("{}: {}", after.reason, after.message))
    })
}

fn wait_until_check(observed: &ObservedServer<'_>, check: Option<&ServerCheck>, times: &ServerCheckTimes) -> Duration {
    let due = match check {
        Some(check) => {
            let wait = match check.failures {
                0 => times.period,
                failures => times.retry.saturating_mul(2_u32.saturating_pow(failures - 1)).min(times.period),
            };
            (check.at, wait.mul_f64(0.9 + 0.2 * uid_fraction(observed.uid)))
        }
        // Tested by the process before this one: no hurry, and not all at once.
        None if observed.status.observed_generation == Some(observed.generation) => {
            (observed.started, times.spread.mul_f64(uid_fraction(observed.uid)))
        }
        None => return Duration::ZERO,
    };
    let (from, wait) = due;
    let passed = observed.now.duration_since(from).max(SignedDuration::ZERO).unsigned_abs();
    wait.saturating_sub(passed)
}

/// From 0 to 1, always the same for one object.
fn uid_fraction(uid: &str) -> f64 {
    let digest: [u8; 32] = Sha256::digest(uid).into();
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn good(seconds: i64) -> ServerCheck {
        let found = Ok(ServerFacts { tls_version: Some("TLS 1.3".into()), ..ServerFacts::default() });
        ServerCheck { generation: 1, at: at(seconds), found, failures: 0 }
    }

    fn bad(seconds: i64, failures: u32) -> ServerCheck {
        let error = Error::network("nobody answers").advice("Check the host");
        ServerCheck { generation: 1, at: at(seconds), found: Err(error), failures }
    }

    fn observed<'a>(status: &'a MailServerStatus, check: Option<&'a ServerCheck>, seconds: i64) -> ObservedServer<'a> {
        ObservedServer {
            uid: "some-uid",
            generation: 1,
            status,
            written_at: None,
            check,
            connections: 0,
            started: START,
            now: at(seconds),
        }
    }

    fn look(status: &MailServerStatus, check: Option<&ServerCheck>, seconds: i64) -> ServerDecision {
        decide(&observed(status, check, seconds), &ServerCheckTimes::default())
    }

    #[test]
    fn a_server_that_was_never_tested_is_tested_at_once_and_nothing_is_said_before() {
        let decision = look(&MailServerStatus::default(), None, 5);
        assert_eq!(decision, ServerDecision { status: MailServerStatus::default(), next_check_in: Duration::ZERO });
    }

    #[test]
    fn a_good_test_is_ready_with_facts_and_a_failed_one_keeps_the_facts_and_says_why() {
        let ready = look(&MailServerStatus::default(), Some(&good(10)), 10).status;
        assert!(crate::controller::condition::is_true(&ready.conditions, READY));
        assert_eq!((ready.observed_generation, ready.checked_at.clone()), (Some(1), Some(Time(at(10)))));
        let failed = look(&ready, Some(&bad(700, 1)), 700).status;
        let condition = &failed.conditions[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Network"));
        assert_eq!(condition.message, "nobody answers. Check the host");
        assert_eq!(condition.last_transition_time, Time(at(700)));
        assert_eq!(failed.facts, ready.facts);
    }

    #[test]
    fn people_are_told_when_a_server_begins_to_work_or_fails_otherwise_than_before() {
        let none = MailServerStatus::default();
        let ready = look(&none, Some(&good(10)), 10).status;
        let failed = look(&ready, Some(&bad(700, 1)), 700).status;
        let again = look(&failed, Some(&bad(800, 2)), 800).status;
        let tls = ServerCheck { found: Err(Error::new(ErrorClass::Tls, "it has expired")), ..bad(900, 3) };
        let otherwise = look(&again, Some(&tls), 900).status;
        let told = |before, after| {
            readiness_event(before, after).map(|note| (note.severity == EventType::Warning, note.reason, note.message))
        };
        assert_eq!(told(&none, &ready), Some((false, "Connected", "a connection can be made".into())));
        assert_eq!(
            told(&ready, &failed),
            Some((true, "ConnectionFailed", "Network: nobody answers. Check the host".into()))
        );
        assert_eq!(told(&failed, &again), None);
        assert_eq!(told(&again, &otherwise), Some((true, "ConnectionFailed", "Tls: it has expired".into())));
        assert_eq!((told(&none, &none), told(&ready, &ready)), (None, None));
    }

    #[test]
    fn nothing_is_written_while_nothing_changes_but_the_time_of_the_test_now_and_then() {
        let ready = look(&MailServerStatus::default(), Some(&good(10)), 10).status;
        for seconds in [610, 1210, 3600] {
            assert_eq!(look(&ready, Some(&good(seconds)), seconds).status, ready);
        }
        assert_eq!(look(&ready, Some(&good(3610)), 3610).status.checked_at, Some(Time(at(3610))));
    }

    #[test]
    fn a_changed_spec_is_tested_at_once_and_an_old_test_says_nothing_of_it() {
        let ready = look(&MailServerStatus::default(), Some(&good(10)), 10).status;
        let check = good(20);
        let changed = ObservedServer { generation: 2, ..observed(&ready, Some(&check), 20) };
        assert_eq!(
            decide(&changed, &ServerCheckTimes::default()),
            ServerDecision { status: ready.clone(), next_check_in: Duration::ZERO }
        );
    }

    #[test]
    fn tests_come_in_a_slow_period_and_sooner_after_a_failure() {
        let ready = look(&MailServerStatus::default(), Some(&good(10)), 10).status;
        let minutes =
            |check: &ServerCheck| look(&ready, Some(check), check.at.as_second()).next_check_in.as_secs_f64() / 60.0;
        assert!((9.0..=11.0).contains(&minutes(&good(10))));
        assert!((0.9..=1.1).contains(&minutes(&bad(10, 1))));
        assert!((1.8..=2.2).contains(&minutes(&bad(10, 2))));
        assert!((9.0..=11.0).contains(&minutes(&bad(10, 50))));
        assert_eq!(look(&ready, Some(&good(10)), 10 + 661).next_check_in, Duration::ZERO);
    }

    #[test]
    fn after_a_start_servers_are_tested_again_but_not_all_at_once() {
        let ready = look(&MailServerStatus::default(), Some(&good(10)), 10).status;
        let waits = ["a", "b", "c", "d"].map(|uid| {
            let fresh = ObservedServer { uid, started: at(5000), ..observed(&ready, None, 5000) };
            decide(&fresh, &ServerCheckTimes::default()).next_check_in
        });
        assert!(waits.iter().all(|wait| *wait <= Duration::from_mins(1)));
        assert!(waits.iter().collect::<std::collections::HashSet<_>>().len() > 1);
        assert_eq!(look(&ready, None, 60).next_check_in, Duration::ZERO);
    }

    #[test]
    fn connections_are_told_now_and_then_and_with_whatever_else_is_written() {
        let ready = look(&MailServerStatus::default(), Some(&good(10)), 10).status;
        let check = good(10);
        let busy = |written: i64, now: i64| {
            let written_at = Some(at(written));
            let observed = ObservedServer { connections: 7, written_at, ..observed(&ready, Some(&check), now) };
            decide(&observed, &ServerCheckTimes::default()).status.connections_in_use
        };
        assert_eq!(busy(10, 20), None);
        assert_eq!(busy(10, 40), Some(7));
        let failed = bad(20, 1);
        let both = ObservedServer { connections: 7, written_at: Some(at(10)), ..observed(&ready, Some(&failed), 20) };
        assert_eq!(decide(&both, &ServerCheckTimes::default()).status.connections_in_use, Some(7));
    }

    #[test]
    fn every_class_of_error_is_a_reason_that_the_api_takes() {
        for class in ErrorClass::ALL {
            let check = ServerCheck { found: Err(Error::new(class, "what")), ..bad(1, 1) };
            let status = look(&MailServerStatus::default(), Some(&check), 1).status;
            assert!(status.conditions[0].reason.chars().all(|c| c.is_ascii_alphanumeric()));
        }
    }
}
