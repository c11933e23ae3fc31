//! Two days after a cutover, played with the operator's own decisions and a simulated clock: when each mailbox is looked at,
//! and how late new mail is found.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    attempt_end::settle_attempt,
    due::{DueFacts, next_delta_at},
    observe::{ObservedMailbox, PodEnd, SecretsSeen, TokensSeen, WorkerLiveness},
};
use crate::{
    api::{
        Duration, MailboxSyncSpec, MailboxSyncStatus, WorkerStatus,
        mailbox_sync::{Outcome, SyncPhase},
        names::hash_texts,
        settings::Cutover,
    },
    controller::testing,
    sync_times::SyncTimes,
};

/// How long a delta takes, seconds.
const TAKES: i64 = 5;
const DAY: i64 = 24 * 3600;

/// A mailbox after the cutover, which is at second 0.
struct PlayedMailbox {
    uid: String,
    spec: MailboxSyncSpec,
    status: MailboxSyncStatus,
    /// When its source gets new mail, seconds, sorted.
    mail: Vec<i64>,
    /// When each delta began, seconds.
    looks: Vec<i64>,
    /// How late each new message was found, seconds.
    late: Vec<i64>,
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

fn seconds(at: Timestamp) -> i64 {
    at.duration_since(moment(0)).as_secs()
}

/// A number below `below`: at random between mailboxes, always the same for one.
fn random(uid: &str, what: &str, below: i64) -> i64 {
    i64::from_str_radix(&hash_texts(&[uid, what], 12), 16).unwrap() % below
}

impl PlayedMailbox {
    fn new(number: usize, max_every: u64, mut mail: Vec<i64>) -> Self {
        let uid = format!("uid-{number}");
        mail.sort_unstable();
        let mut spec = testing::mailbox_spec("m", &uid);
        spec.settings.cutover = Some(Cutover {
            at: Some(Time(moment(0))),
            drain_for: Duration::from_secs(48 * 3600),
            every: Duration::from_secs(600),
            max_every: Duration::from_secs(max_every),
        });
        let before = moment(-1 - random(&uid, "before", 3600));
        let status = MailboxSyncStatus {
            phase: Some(SyncPhase::Synced),
            attempt: 1,
            syncs: 1,
            last_synced_at: Some(Time(before)),
            inbox_quiet_since: Some(Time(before)),
            inbox_uid_next: Some(1),
            ..MailboxSyncStatus::default()
        };
        Self { uid, spec, status, mail, looks: Vec::new(), late: Vec::new() }
    }

    /// One delta, if another is due by then.
    fn look(&mut self, until: i64) -> bool {
        // Which branch is taken depends on whether the cutover is past: it is.
        let facts = DueFacts {
            uid: &self.uid,
            generation: 1,
            spec: &self.spec,
            status: &self.status,
            now: moment(0).max(self.status.last_synced_at.as_ref().unwrap().0),
        };
        let Some((due, _)) = next_delta_at(&facts) else { return false };
        let began = seconds(due).max(0);
        if began >= until {
            return false;
        }
        let before = self.looks.last().copied().unwrap_or(i64::MIN);
        let found = self.mail.iter().filter(|at| **at > before && **at <= began);
        let found: Vec<i64> = found.map(|at| began - at).collect();
        self.status.attempt += 1;
        self.status.slots = Some(1);
        self.status.attempt_started_at = Some(Time(moment(began)));
        let uid_next = 1 + i64::try_from(self.mail.iter().filter(|at| **at <= began).count()).unwrap();
        self.status.worker = Some(WorkerStatus {
            attempt: self.status.attempt,
            outcome: Some(Outcome::Synced),
            changes: Some(i64::try_from(found.len()).unwrap()),
            inbox_uid_next: Some(uid_next),
            ..WorkerStatus::default()
        });
        self.status = self.settled(moment(began + TAKES));
        self.looks.push(began);
        self.late.extend(found);
        true
    }

    fn settled(&self, now: Timestamp) -> MailboxSyncStatus {
        let observed = ObservedMailbox {
            name: "m",
            uid: &self.uid,
            generation: 1,
            deleting: false,
            spec: &self.spec,
            status: &self.status,
            pods: &[],
            surplus_pods: &[],
            liveness: WorkerLiveness::first_seen(self.status.attempt, SignedDuration::ZERO),
            granted_slots: Some(1),
            waits_for: None,
            hold: None,
            sync_times: SyncTimes::ALWAYS,
            secrets: SecretsSeen::Unknown,
            tokens: TokensSeen::NotNeeded,
            node_out_of_service: false,
            scheduling_timeout: SignedDuration::from_secs(600),
            now,
            since_boot: SignedDuration::ZERO,
        };
        settle_attempt(&observed, &PodEnd::NeverRan).status
    }
}

/// What many mailboxes come to within the day after the cutover.
struct PlayedDay {
    looks: usize,
    busiest_minute: usize,
    /// How late new mail was found, seconds, sorted.
    late: Vec<i64>,
}

/// Of so many mailboxes `percent` get `messages` each, at random times of the day.
fn play_day(mailboxes: usize, percent: usize, messages: i64, max_every: u64) -> PlayedDay {
    let mut minutes = vec![0; usize::try_from(DAY / 60).unwrap()];
    let mut late = Vec::new();
    for number in 0..mailboxes {
        let uid = format!("uid-{number}");
        let busy = number % 100 < percent;
        let mail = (0..if busy { messages } else { 0 }).map(|n| random(&uid, &format!("mail {n}"), DAY)).collect();
        let mut mailbox = PlayedMailbox::new(number, max_every, mail);
        while mailbox.look(DAY) {}
        for look in &mailbox.looks {
            minutes[usize::try_from(look / 60).unwrap()] += 1;
        }
        late.extend(mailbox.late);
    }
    late.sort_unstable();
    // In the first two hours all begin at once, at the cutover, as before.
    let busiest_minute = minutes.iter().skip(120).copied().max().unwrap_or(0);
    PlayedDay { looks: minutes.iter().sum(), busiest_minute, late }
}

#[test]
fn quiet_mailboxes_are_looked_at_less_often_and_new_mail_is_found_within_the_longest_wait() {
    let (before, now) = (play_day(100, 10, 20, 600), play_day(100, 10, 20, 7200));
    assert!(now.looks * 4 < before.looks, "{} instead of {} pods", now.looks, before.looks);
    let jitter = 7200 / 10 + TAKES;
    assert!(now.late.last().is_some_and(|late| *late <= 7200 + jitter), "{:?}", now.late.last());
}

#[test]
fn a_mailbox_that_got_mail_is_looked_at_as_often_as_any_and_less_often_only_after_three_quiet_looks() {
    let mut mailbox = PlayedMailbox::new(1, 7200, vec![30_000]);
    while mailbox.look(DAY) {}
    let found = mailbox.looks.iter().position(|look| *look >= 30_000).unwrap();
    let waits: Vec<_> = mailbox.looks[found..].windows(2).map(|pair| (pair[1] - pair[0] + 150) / 300 * 5).collect();
    assert!(waits[..3].iter().all(|minutes| *minutes == 10), "{waits:?}");
    assert!(waits[3] >= 15 && waits[4] >= 35, "{waits:?}");
}

#[test]
fn the_last_look_comes_at_its_time_however_long_the_waits_are() {
    for mail in [vec![], vec![7000], vec![7000, 150_000]] {
        let arrivals = mail.len();
        let mut mailbox = PlayedMailbox::new(arrivals, 7200, mail);
        while mailbox.look(20 * DAY) {}
        let (quiet, last) = (&mailbox.status.inbox_quiet_since, mailbox.looks.last().unwrap());
        let quiet = seconds(quiet.as_ref().unwrap().0).max(0);
        assert_eq!(*last, quiet + 48 * 3600, "{arrivals} messages");
        assert_eq!(mailbox.late.len(), arrivals, "all are found");
    }
}

#[test]
#[ignore = "measures, and tells"]
fn how_many_pods_fifty_thousand_mailboxes_take_in_a_day() {
    const MAILBOXES: usize = 50_000;
    for max_every in [600, 7200] {
        for percent in [1, 10, 50] {
            let PlayedDay { looks, busiest_minute, late } = play_day(MAILBOXES, percent, 20, max_every);
            let mean = late.iter().sum::<i64>() / i64::try_from(late.len()).unwrap();
            println!(
                "maxEvery {max_every} s, {percent} % get mail: {looks} pods, {:.1} each second, in the busiest minute after \
                 two hours {busiest_minute}; new mail is found after {} min on average, 95 % within {} min, all within {} min",
                f64::from(u32::try_from(looks).unwrap()) / 86_400.0,
                mean / 60,
                late[late.len() * 95 / 100] / 60,
                late.last().unwrap() / 60,
            );
        }
    }
}
