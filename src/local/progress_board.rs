//! What all running mailboxes have done so far, how fast, and how long the rest may take.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    sync::progress::{EnginePhase, MailboxProgress, ProgressSnapshot, SyncProgress},
    terminal_text,
};

/// Rates are smoothed over about this long: batches end in bursts.
const SMOOTHING: Duration = Duration::from_secs(10);

/// A smoothed rate of a growing counter.
#[derive(Debug, Clone)]
pub(crate) struct SmoothedRate {
    first: Instant,
    last: Instant,
    counter: u64,
    average: f64,
}

impl SmoothedRate {
    /// Starts at `at` with a counter of `counter`.
    #[must_use]
    pub(crate) fn new(at: Instant, counter: u64) -> Self {
        Self { first: at, last: at, counter, average: 0.0 }
    }

    /// Takes the counter's value at `at`.
    pub(crate) fn observe(&mut self, at: Instant, counter: u64) {
        let elapsed = at.saturating_duration_since(self.last).as_secs_f64();
        if elapsed <= 0.0 {
            return;
        }
        let momentary = approximate(counter.saturating_sub(self.counter)) / elapsed;
        let weight = 1.0 - (-elapsed / SMOOTHING.as_secs_f64()).exp();
        self.average += weight * (momentary - self.average);
        (self.last, self.counter) = (at, counter);
    }

    /// Units per second; 0 before the second observation.
    #[must_use]
    pub(crate) fn per_second(&self) -> f64 {
        let observed = self.last.saturating_duration_since(self.first).as_secs_f64();
        if observed <= 0.0 {
            return 0.0;
        }
        // The average began at 0: divide by the share that real observations have in it.
        self.average / (1.0 - (-observed / SMOOTHING.as_secs_f64()).exp())
    }

    /// How long `remaining` units take at this rate; `None` while nothing moves.
    #[must_use]
    pub(crate) fn time_for(&self, remaining: u64) -> Option<Duration> {
        let rate = self.per_second();
        (rate >= 1.0).then(|| Duration::try_from_secs_f64(approximate(remaining) / rate).ok()).flatten()
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people with three digits")]
fn approximate(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and far below 2^64")]
fn whole(rate: f64) -> u64 {
    rate as u64
}

/// How far one mailbox, or all, have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProgressEstimate {
    /// The counters.
    #[serde(flatten)]
    pub counters: ProgressSnapshot,
    /// Message bytes copied per second, smoothed.
    pub bytes_per_second: u64,
    /// How long the known rest takes at this rate, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

impl ProgressEstimate {
    fn new(counters: ProgressSnapshot, rate: &SmoothedRate, remaining_bytes: u64) -> Self {
        let eta_seconds =
            (remaining_bytes > 0).then(|| rate.time_for(remaining_bytes)).flatten().map(|left| left.as_secs());
        Self { counters, bytes_per_second: whole(rate.per_second()), eta_seconds }
    }

    /// One line for people, without the mailbox's name.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        self.parts().join(", ")
    }

    /// What the line says, the most important first: a narrow terminal has room for the first of it.
    #[must_use]
    pub(crate) fn parts(&self) -> Vec<String> {
        let c = &self.counters;
        let mut parts = vec![match c.phase {
            EnginePhase::Queued => "waiting for its turn".to_owned(),
            EnginePhase::Connecting => "connecting".to_owned(),
            EnginePhase::Planning => "looking at folders".to_owned(),
            EnginePhase::Copying | EnginePhase::Done | EnginePhase::Failed => {
                let (done, total) =
                    (terminal_text::format_bytes(c.bytes_done), terminal_text::format_bytes(c.bytes_total));
                format!("{done} of {total}")
            }
        }];
        parts.extend(c.waiting.as_ref().map(|why| terminal_text::printable(why).into_owned()));
        if let Some(seconds) = self.eta_seconds.filter(|seconds| *seconds > 0) {
            parts.push(format!("{} left", terminal_text::format_duration(Duration::from_secs(seconds))));
        }
        if self.bytes_per_second > 0 {
            parts.push(format!("{}/s", terminal_text::format_bytes(self.bytes_per_second)));
        }
        if c.phase >= EnginePhase::Copying {
            parts.push(format!("{}/{} messages", c.messages_done, c.messages_total));
            parts.push(format!("{}/{} folders", c.folders_done, c.folders_total));
        }
        parts
    }
}

/// All mailboxes of a run: which are running, and the sum of all.
#[derive(Debug)]
pub(crate) struct ProgressBoard {
    /// Mailboxes of the run.
    pub mailboxes: usize,
    /// Mailboxes that ended, well or not.
    pub finished: usize,
    /// Of these, those that failed.
    pub failed: usize,
    ended: MailboxProgress,
    /// Ended mailboxes whose plan was known, to guess the size of those that wait.
    planned: usize,
    running: Vec<RunningMailbox>,
    rate: SmoothedRate,
}

#[derive(Debug)]
struct RunningMailbox {
    mailbox: String,
    progress: Arc<SyncProgress>,
    rate: SmoothedRate,
    now: MailboxProgress,
}

impl RunningMailbox {
    /// Reads the counters. What was done does not become less, also where a large message has to be sent again.
    fn read(&mut self) {
        let (messages, size) = (self.now.counters.messages_done, self.now.counters.bytes_done);
        self.now = self.progress.mailbox();
        let counters = &mut self.now.counters;
        counters.messages_done = counters.messages_done.max(messages);
        counters.bytes_done = counters.bytes_done.max(size);
        counters.bytes_total = counters.bytes_total.max(counters.bytes_done);
    }
}

impl ProgressBoard {
    /// A board for `mailboxes` mailboxes, none of them running yet.
    #[must_use]
    pub(crate) fn new(at: Instant, mailboxes: usize) -> Self {
        let ended = SyncProgress::default().mailbox();
        Self {
            mailboxes,
            finished: 0,
            failed: 0,
            ended,
            planned: 0,
            running: Vec::new(),
            rate: SmoothedRate::new(at, 0),
        }
    }

    /// A mailbox runs from now on.
    pub(crate) fn add_running(&mut self, at: Instant, mailbox: &str, progress: &Arc<SyncProgress>) {
        let now = progress.mailbox();
        let rate = SmoothedRate::new(at, now.bytes_copied);
        self.running.push(RunningMailbox { mailbox: mailbox.to_owned(), progress: Arc::clone(progress), rate, now });
    }

    /// A mailbox ended; it need not have run.
    pub(crate) fn record_finished(&mut self, mailbox: &str, failed: bool) {
        self.finished += 1;
        self.failed += usize::from(failed);
        let Some(position) = self.running.iter().position(|r| r.mailbox == mailbox) else { return };
        let mut last = self.running.remove(position);
        last.read();
        self.planned += usize::from(last.now.counters.folders_total > 0);
        add(&mut self.ended, &last.now);
    }

    /// `3/30 done, 2 failed`.
    #[must_use]
    pub(crate) fn endings(&self) -> String {
        let done = format!("{}/{} done", self.finished - self.failed, self.mailboxes);
        if self.failed > 0 { format!("{done}, {} failed", self.failed) } else { done }
    }

    /// One line for people: of all mailboxes.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        format!("{}, {}", self.endings(), self.total().line())
    }

    /// A mailbox runs no more for now; what it did counts.
    pub(crate) fn record_paused(&mut self, mailbox: &str) {
        let Some(position) = self.running.iter().position(|r| r.mailbox == mailbox) else { return };
        let done = self.running.remove(position).progress.mailbox();
        // What was there before is counted when it goes on.
        self.ended.bytes_copied += done.bytes_copied;
    }

    /// Reads all counters.
    pub(crate) fn observe(&mut self, at: Instant) {
        for mailbox in &mut self.running {
            mailbox.read();
            mailbox.rate.observe(at, mailbox.now.bytes_copied);
        }
        let copied = self.sum().bytes_copied;
        self.rate.observe(at, copied);
    }

    /// Each running mailbox by name, as of the last [`Self::observe`].
    pub(crate) fn running(&self) -> impl Iterator<Item = (&str, ProgressEstimate)> {
        self.running.iter().map(|r| {
            let counters = &r.now.counters;
            let remaining = counters.bytes_total.saturating_sub(counters.bytes_done);
            (r.mailbox.as_str(), ProgressEstimate::new(counters.clone(), &r.rate, remaining))
        })
    }

    /// All mailboxes together, as of the last [`Self::observe`]. The time left takes those that wait to be as large as
    /// those that are known, on average.
    #[must_use]
    pub(crate) fn total(&self) -> ProgressEstimate {
        let sum = self.sum().counters;
        let known = self.planned + self.running.iter().filter(|r| r.now.counters.phase >= EnginePhase::Copying).count();
        let unknown = self.mailboxes.saturating_sub(self.finished).saturating_sub(self.running.len());
        let guess = match (u64::try_from(known), u64::try_from(unknown)) {
            (Ok(known @ 1..), Ok(unknown)) => (sum.bytes_total / known).saturating_mul(unknown),
            _ => 0,
        };
        let remaining = sum.bytes_total.saturating_sub(sum.bytes_done).saturating_add(guess);
        ProgressEstimate::new(sum, &self.rate, remaining)
    }

    fn sum(&self) -> MailboxProgress {
        let mut sum = self.ended.clone();
        for mailbox in &self.running {
            add(&mut sum, &mailbox.now);
        }
        sum.counters.phase = EnginePhase::Copying;
        sum
    }
}

fn add(all: &mut MailboxProgress, one: &MailboxProgress) {
    all.bytes_copied += one.bytes_copied;
    let (sum, one) = (&mut all.counters, &one.counters);
    sum.folders_total += one.folders_total;
    sum.folders_done += one.folders_done;
    sum.messages_total += one.messages_total;
    sum.messages_done += one.messages_done;
    sum.bytes_total += one.bytes_total;
    sum.bytes_done += one.bytes_done;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn copying(folders: u64, messages: (u64, u64), bytes: (u64, u64)) -> Arc<SyncProgress> {
        let progress = Arc::new(SyncProgress::default());
        progress.enter_phase(EnginePhase::Copying);
        progress.folders_total.store(folders, Relaxed);
        progress.messages_done.store(messages.0, Relaxed);
        progress.messages_total.store(messages.1, Relaxed);
        progress.bytes_done.store(bytes.0, Relaxed);
        progress.bytes_total.store(bytes.1, Relaxed);
        progress
    }

    #[test]
    fn a_steady_rate_is_exact_from_the_first_interval_on() {
        let start = Instant::now();
        let mut rate = SmoothedRate::new(start, 500);
        assert!(rate.per_second().abs() < f64::EPSILON);
        for second in 1..60_u32 {
            rate.observe(start + Duration::from_secs(second.into()), 500 + 1000 * u64::from(second));
            assert!((rate.per_second() - 1000.0).abs() < 0.001, "after {second} s: {}", rate.per_second());
        }
        assert_eq!(rate.time_for(5000), Some(Duration::from_secs(5)));
    }

    #[test]
    fn bursts_are_smoothed_and_a_stall_shows_after_a_while() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut rate = SmoothedRate::new(start, 0);
        for second in 1..=60 {
            rate.observe(at(second), second / 5 * 5000); // 5000 every fifth second
        }
        assert!((700.0..1300.0).contains(&rate.per_second()), "{}", rate.per_second());
        for second in 61..=180 {
            rate.observe(at(second), 60_000);
        }
        assert_eq!(rate.time_for(1), None);
    }

    #[test]
    fn the_total_is_the_sum_and_guesses_what_waits() {
        let start = Instant::now();
        let mut board = ProgressBoard::new(start, 3);
        let (alice, bob) = (copying(2, (0, 10), (0, 4000)), copying(4, (0, 30), (0, 8000)));
        board.add_running(start, "alice", &alice);
        board.add_running(start, "bob", &bob);
        alice.bytes_done.store(2000, Relaxed);
        alice.messages_done.store(5, Relaxed);
        board.observe(start + Duration::from_secs(2));
        let total = board.total();
        assert_eq!((total.counters.messages_done, total.counters.messages_total), (5, 40));
        assert_eq!((total.counters.bytes_done, total.counters.bytes_total), (2000, 12_000));
        assert_eq!(total.bytes_per_second, 1000);
        // 10,000 bytes are known to remain, and the mailbox that waits counts as 6,000 more.
        assert_eq!(total.eta_seconds, Some(16));
        board.record_finished("alice", false);
        board.observe(start + Duration::from_secs(3));
        assert_eq!(board.total().counters.bytes_done, 2000, "what a finished mailbox did still counts");
        assert_eq!(board.running().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["bob"]);
    }

    #[test]
    fn the_bar_is_the_whole_mailboxs_from_planning_on_and_never_goes_back() {
        let start = Instant::now();
        let progress = copying(3, (0, 0), (0, 0));
        let mut board = ProgressBoard::new(start, 1);
        board.add_running(start, "alice", &progress);
        progress.whole.bytes.store(9_000, Relaxed);
        progress.whole.bytes_before.store(3_000, Relaxed);
        progress.whole.messages.store(90, Relaxed);
        progress.whole.listed.store(true, Relaxed);
        let mut seen = Vec::new();
        let mut look = |at: u64| {
            board.observe(start + Duration::from_secs(at));
            let total = board.total();
            seen.push((total.counters.bytes_done, total.counters.bytes_total, total.eta_seconds));
        };
        look(1);
        // One folder of three is scanned and copied: nothing is known of the work in the others.
        progress.bytes_total.store(2_000, Relaxed);
        progress.bytes_done.store(2_000, Relaxed);
        look(2);
        let mut large = progress.begin_message();
        large.add(1_000);
        look(3);
        drop(large);
        look(4);
        assert_eq!(
            seen.iter().map(|(done, total, _)| (*done, *total)).collect::<Vec<_>>(),
            [(3_000, 9_000), (5_000, 9_000), (6_000, 9_000), (6_000, 9_000),]
        );
        assert!(seen[1].2 > Some(2), "a third is not the end: {seen:?}");
    }

    #[test]
    fn the_line_says_what_happens_and_why_nothing_moves() {
        let start = Instant::now();
        let progress = copying(16, (120, 1000), (0, 37_000_000));
        let mut board = ProgressBoard::new(start, 1);
        board.add_running(start, "alice", &progress);
        progress.bytes_done.store(3_200_000, Relaxed);
        board.observe(start + Duration::from_secs(2));
        insta::assert_snapshot!(board.total().line(), @"3.20 MB of 37.00 MB, 21s left, 1.60 MB/s, 120/1000 messages, 0/16 folders");
        progress.enter_phase(EnginePhase::Connecting);
        let _waiting = progress.begin_wait("throttled: try\u{7} later".into(), Duration::from_mins(1));
        board.observe(start + Duration::from_secs(2));
        let (_, alice) = board.running().next().unwrap();
        insta::assert_snapshot!(alice.line(), @r"connecting, throttled: try\u{7} later, 21s left, 1.60 MB/s");
    }
}
