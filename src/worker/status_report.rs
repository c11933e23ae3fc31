//! The status that a worker reports: as a merge patch, and as the last word that fits into a termination message.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::checkpoint_outbox::saturating_i64;
use crate::{
    api::{
        mailbox_sync::{Outcome, WorkerPhase, WorkerProgress, WorkerStatus},
        rate::rate_text,
    },
    error::{Error, ErrorRemedy},
    sync::{
        progress::{EnginePhase, SyncProgress},
        report::MailboxReport,
    },
    terminal_text::harmless,
};

/// A termination message may have this many bytes.
pub(crate) const MAX_TERMINATION_MESSAGE: usize = 4096;
/// `waiting` may have this many characters.
const MAX_WAITING: usize = 500;
/// Rates are over this long.
const WINDOW: Duration = Duration::from_mins(1);

/// The patch that claims an attempt: what the attempt before said of itself does not hold any more; its checkpoint, facts
/// about folders and what was not copied do.
#[must_use]
pub(crate) fn claim_patch(attempt: i64, now: Timestamp) -> Value {
    json!({"status": {"worker": {
        "attempt": attempt,
        "report": 1,
        "reportedAt": Time(now),
        "phase": WorkerPhase::Connecting,
        "destinationLogin": false,
        "progress": null,
        "waiting": null,
        "waitingUntil": null,
        "refusedSourceToken": null,
        "refusedDestinationToken": null,
        "inboxUidNext": null,
        "changes": null,
        "outcome": null,
        "lastError": null,
    }}})
}

/// The patch for a report: what it does not say any more is removed; the checkpoint, facts about folders and what was not
/// copied stay unless they are new. `reasons` are those that the status may have.
#[must_use]
pub(crate) fn report_patch(status: &WorkerStatus, reasons: &BTreeSet<&str>) -> Value {
    let mut worker = serde_json::to_value(status).unwrap_or_default();
    make_harmless(&mut worker);
    let clear = |value: Option<&mut Value>, names: &[&str]| {
        if let Some(Value::Object(object)) = value {
            for name in names {
                object.entry(*name).or_insert(Value::Null);
            }
        }
    };
    clear(
        Some(&mut worker),
        &[
            "waiting",
            "waitingUntil",
            "refusedSourceToken",
            "refusedDestinationToken",
            "inboxUidNext",
            "changes",
            "outcome",
            "lastError",
        ],
    );
    clear(worker.get_mut("progress"), &["done", "donePercent", "rate", "eta", "bytesLeft"]);
    if let Some(Value::Object(not_copied)) = worker.get_mut("notCopied") {
        // What is merged in replaces no map.
        for part in ["reasons", "accepted"] {
            let part = not_copied.entry(part).or_insert_with(|| json!({}));
            for reason in reasons {
                clear(Some(part), &[reason]);
            }
        }
    }
    if status.outcome == Some(Outcome::Synced) {
        clear(Some(&mut worker), &["leftOut", "warnings", "heldDeletions"]);
    }
    json!({"status": {"worker": worker}})
}

/// Folders' names and what servers say are shown on terminals (kubectl): what acts on them is replaced, character by
/// character, since the schema bounds the number of these.
fn make_harmless(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(safe) = harmless(text) {
                *text = safe;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_harmless),
        Value::Object(values) => values.values_mut().for_each(make_harmless),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The last word: the status without checkpoint, lists and what stands of them all, its texts as short as they must be.
#[must_use]
pub(crate) fn termination_message(status: &WorkerStatus) -> String {
    let mut word = WorkerStatus {
        checkpoint: None,
        folders: Vec::new(),
        left_out: Vec::new(),
        warnings: Vec::new(),
        held_deletions: Vec::new(),
        differences: BTreeMap::new(),
        ..status.clone()
    };
    let mut harmless = serde_json::to_value(&word).unwrap_or_default();
    make_harmless(&mut harmless);
    word = serde_json::from_value(harmless).unwrap_or(word);
    for most in [1000, 500, 250, 100, 30, 0] {
        let cut = |text: &mut String| {
            if let Some((end, _)) = text.char_indices().nth(most) {
                text.truncate(end);
            }
        };
        word.waiting.as_mut().map(cut);
        if let Some(error) = &mut word.last_error {
            cut(&mut error.message);
            for text in [&mut error.advice, &mut error.folder, &mut error.host].into_iter().flatten() {
                cut(text);
            }
        }
        let text = serde_json::to_string(&word).unwrap_or_default();
        if text.len() <= MAX_TERMINATION_MESSAGE {
            return text;
        }
    }
    String::new()
}

/// How a sync ended, and with what error.
#[must_use]
pub(crate) fn outcome(report: &MailboxReport, asked_to_stop: bool) -> (Outcome, Option<Error>) {
    match report.gravest_error() {
        None if report.interrupted => (Outcome::Stopped, None),
        None => (Outcome::Synced, None),
        // What would have been tried again, had there been time.
        Some(error) if asked_to_stop && error.class.remedy() == ErrorRemedy::RetryWithBackoff => {
            (Outcome::Stopped, Some(error.clone()))
        }
        Some(error) => (Outcome::Failed, Some(error.clone())),
    }
}

/// The bytes of messages done, at moments of the last minute: gives the rate.
#[derive(Debug, Default)]
pub(crate) struct ThroughputWindow(VecDeque<(Duration, u64)>);

impl ThroughputWindow {
    /// Takes the counter as it is now; gives by how many bytes per second it grew over the last minute.
    pub(crate) fn push_and_rate(&mut self, now: Duration, bytes: u64) -> u64 {
        self.0.push_back((now, bytes));
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(at, _)| *at + WINDOW <= now) {
            self.0.pop_front();
        }
        let Some((since, before)) = self.0.front() else { return 0 };
        let millis = u64::try_from(now.saturating_sub(*since).as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_sub(*before).saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}

/// The part of a status that a running sync shows: phase, counters, rate. `skipped` are the messages that were set aside.
#[must_use]
pub(crate) fn live_status(
    progress: &SyncProgress,
    skipped: u64,
    bytes_per_second: u64,
    now: Timestamp,
) -> WorkerStatus {
    use std::sync::atomic::Ordering::Relaxed;
    let counters = progress.snapshot();
    let whole = &progress.whole;
    let bytes_done = whole.bytes_before.load(Relaxed) + counters.bytes_done;
    let bytes_total = whole.bytes.load(Relaxed).max(bytes_done);
    let messages_done = whole.messages_before.load(Relaxed) + counters.messages_done;
    let messages_total = whole.messages.load(Relaxed).max(messages_done);
    let left = bytes_total - bytes_done;
    let copying = counters.phase == EnginePhase::Copying;
    let seconds = (copying && left > 0).then(|| left.checked_div(bytes_per_second)).flatten();
    let eta = seconds.and_then(|s| now.checked_add(Duration::from_secs(s)).ok());
    let percent = share(bytes_done, bytes_total).or_else(|| share(messages_done, messages_total));
    WorkerStatus {
        reported_at: Some(Time(now)),
        phase: Some(phase(counters.phase)),
        progress: Some(WorkerProgress {
            done: percent.map(|percent| format!("{percent}%")),
            done_percent: percent,
            rate: (copying && bytes_per_second > 0).then(|| rate_text(bytes_per_second)),
            eta: eta.map(Time),
            folders_total: saturating_i64(counters.folders_total),
            folders_done: saturating_i64(counters.folders_done),
            messages_total: saturating_i64(messages_total),
            messages_done: saturating_i64(messages_done),
            messages_skipped: saturating_i64(skipped),
            messages_this_attempt: saturating_i64(counters.messages_done),
            bytes_total: saturating_i64(bytes_total),
            bytes_done: saturating_i64(bytes_done),
            bytes_left: bytes_left(progress).map(saturating_i64),
            bytes_moved: saturating_i64(progress.bytes_moved.load(Relaxed)),
            bytes_per_second: saturating_i64(bytes_per_second),
        }),
        waiting: counters.waiting.map(|why| why.chars().take(MAX_WAITING).collect()),
        waiting_until: counters.waiting_until.map(Time),
        destination_login: progress.destination_login(),
        inbox_uid_next: progress.inbox_uid_next().map(i64::from),
        ..WorkerStatus::default()
    }
}

/// The bytes that are still to be copied, as far as listings and what was read tell.
fn bytes_left(progress: &SyncProgress) -> Option<u64> {
    use std::sync::atomic::Ordering::Relaxed;
    let whole = &progress.whole;
    if !whole.listed.load(Relaxed) {
        return None;
    }
    let counters = progress.snapshot();
    let done = whole.bytes_before.load(Relaxed) + counters.bytes_done;
    let left = whole.bytes.load(Relaxed).saturating_sub(done);
    match whole.messages_unsized.load(Relaxed) {
        0 => Some(left),
        // What is to be copied of the folders that were read.
        messages => {
            let mean = counters.bytes_total.checked_div(counters.messages_total)?;
            Some(left.saturating_add(mean.saturating_mul(messages)))
        }
    }
}

const fn phase(phase: EnginePhase) -> WorkerPhase {
    match phase {
        EnginePhase::Queued => WorkerPhase::Queued,
        EnginePhase::Connecting => WorkerPhase::Connecting,
        EnginePhase::Planning => WorkerPhase::Planning,
        EnginePhase::Copying => WorkerPhase::Copying,
        EnginePhase::Done => WorkerPhase::Done,
        EnginePhase::Failed => WorkerPhase::Failed,
    }
}

/// In percent; none of nothing.
fn share(done: u64, total: u64) -> Option<i32> {
    let percent = (u128::from(done) * 100).checked_div(u128::from(total))?;
    i32::try_from(percent).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        ErrorClass, Side,
        api::{
            common::LastError,
            mailbox_sync::{FolderFacts, HeldFolderDeletions, MAX_CHECKPOINT_BYTES},
            not_copied::{LeftOutFolder, NotCopied},
        },
        sync::report::FolderReport,
    };

    fn object(value: &Value) -> &serde_json::Map<String, Value> {
        value.as_object().unwrap()
    }

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_claim_clears_what_the_attempt_before_said_and_keeps_its_checkpoint() {
        let claim = claim_patch(3, now());
        let worker = object(&claim["status"]["worker"]);
        for gone in ["outcome", "lastError", "waiting", "waitingUntil", "progress", "inboxUidNext", "changes"] {
            assert_eq!(worker[gone], Value::Null, "{gone}");
        }
        for kept in [
            "checkpoint",
            "folders",
            "flushedAttempt",
            "notCopied",
            "differences",
            "leftOut",
            "warnings",
            "heldDeletions",
        ] {
            assert!(!worker.contains_key(kept), "{kept}");
        }
        assert_eq!((&worker["attempt"], &worker["report"]), (&json!(3), &json!(1)));
    }

    #[test]
    fn a_report_removes_what_it_no_longer_says_and_leaves_the_checkpoint() {
        let progress = SyncProgress::default();
        progress.enter_phase(EnginePhase::Copying);
        let status = WorkerStatus { attempt: 3, report: 4, ..live_status(&progress, 0, 0, now()) };
        let patch = report_patch(&status, &BTreeSet::new());
        let worker = object(&patch["status"]["worker"]);
        for kept in ["checkpoint", "folders", "notCopied", "differences", "leftOut", "warnings", "heldDeletions"] {
            assert!(!worker.contains_key(kept), "{kept}");
        }
        assert_eq!((&worker["waiting"], &worker["outcome"]), (&Value::Null, &Value::Null));
        assert_eq!(worker["progress"]["eta"], Value::Null);
        let read: WorkerStatus = serde_json::from_value(patch["status"]["worker"].clone()).unwrap();
        assert_eq!(read, status);
    }

    #[test]
    fn a_reason_that_no_message_has_any_more_is_removed_and_so_is_what_the_sync_before_warned_of() {
        let reasons = BTreeMap::from([("refused".to_owned(), 2)]);
        let not_copied = NotCopied { messages: 2, reasons, ..NotCopied::default() };
        let status =
            WorkerStatus { not_copied: Some(not_copied), outcome: Some(Outcome::Synced), ..WorkerStatus::default() };
        let patch = report_patch(&status, &["refused", "tooLarge"].into());
        let worker = &patch["status"]["worker"];
        assert_eq!(worker["notCopied"]["reasons"], json!({"refused": 2, "tooLarge": null}));
        assert_eq!(worker["notCopied"]["accepted"], json!({"refused": null, "tooLarge": null}));
        assert_eq!(
            (&worker["notCopied"]["messages"], &worker["notCopied"]["uncountedFolders"]),
            (&json!(2), &json!(0))
        );
        for gone in ["leftOut", "warnings", "heldDeletions"] {
            assert_eq!(object(worker)[gone], Value::Null, "{gone}");
        }
    }

    #[test]
    fn progress_is_of_the_whole_mailbox_and_the_rate_of_the_last_minute() {
        let progress = SyncProgress::default();
        progress.enter_phase(EnginePhase::Copying);
        progress.whole.messages.store(1000, Relaxed);
        progress.whole.bytes.store(100 << 20, Relaxed);
        progress.whole.add_scanned_folder(600, Some(60 << 20), 500, 20 << 20);
        progress.messages_done.store(100, Relaxed);
        progress.bytes_done.store(10 << 20, Relaxed);
        progress.record_inbox_uid_next(77);
        progress.record_login();
        let _waiting = progress.begin_wait("w".repeat(900), Duration::from_secs(5));
        let status = live_status(&progress, 3, 10 << 20, now());
        let p = status.progress.unwrap();
        assert_eq!((p.done.as_deref(), p.rate.as_deref()), (Some("50%"), Some("10 MiB/s")));
        assert_eq!((p.done_percent, p.bytes_per_second), (Some(50), 10 << 20), "the same in numbers");
        assert_eq!(p.eta.unwrap().0, "2026-03-01T00:00:05Z".parse().unwrap());
        assert_eq!(
            (p.messages_done, p.messages_total, p.messages_this_attempt, p.messages_skipped),
            (600, 1000, 100, 3)
        );
        assert_eq!(status.waiting.unwrap().len(), MAX_WAITING);
        assert!(status.destination_login && status.inbox_uid_next == Some(77) && status.waiting_until.is_some());
    }

    #[test]
    fn what_is_left_is_told_once_listings_or_messages_that_were_read_tell_it() {
        let progress = SyncProgress::default();
        assert_eq!(bytes_left(&progress), None, "nothing is listed");
        progress.whole.listed.store(true, Relaxed);
        assert_eq!(bytes_left(&progress), Some(0), "an empty mailbox");
        progress.whole.bytes.store(1000, Relaxed);
        progress.whole.bytes_before.store(100, Relaxed);
        progress.bytes_done.store(50, Relaxed);
        assert_eq!(bytes_left(&progress), Some(850));
        progress.whole.messages_unsized.store(30, Relaxed);
        assert_eq!(bytes_left(&progress), None, "no message of such a folder was read");
        // One of 10 messages, 8 of which are to be copied.
        progress.messages_total.store(8, Relaxed);
        progress.bytes_total.store(80, Relaxed);
        progress.whole.add_scanned_folder(10, None, 2, 80);
        assert_eq!(bytes_left(&progress), Some(850 + 80 + 20 * 10));
    }

    #[test]
    fn a_rate_is_that_of_the_last_minute() {
        let mut samples = ThroughputWindow::default();
        let at = Duration::from_secs;
        assert_eq!(samples.push_and_rate(at(0), 0), 0);
        assert_eq!(samples.push_and_rate(at(10), 1000), 100);
        assert_eq!(samples.push_and_rate(at(70), 1000), 0, "what is older than a minute does not count");
    }

    fn failed(class: ErrorClass) -> MailboxReport {
        let folder = FolderReport { error: Some(Error::new(class, "x")), ..FolderReport::default() };
        MailboxReport { folders: vec![folder], interrupted: true, ..MailboxReport::default() }
    }

    #[test]
    fn what_would_have_been_tried_again_is_no_failure_of_a_sync_that_was_asked_to_stop() {
        let of = |report: &MailboxReport, asked| outcome(report, asked).0;
        assert_eq!(of(&MailboxReport::default(), true), Outcome::Synced);
        assert_eq!(of(&MailboxReport { interrupted: true, ..MailboxReport::default() }, true), Outcome::Stopped);
        assert_eq!(of(&failed(ErrorClass::Network), true), Outcome::Stopped);
        assert_eq!(of(&failed(ErrorClass::Network), false), Outcome::Failed);
        assert_eq!(of(&failed(ErrorClass::Quota), true), Outcome::Failed);
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "what is compared with is long")]
    fn the_claim_the_report_and_the_last_word_are_the_same_json_as_ever() {
        let progress = SyncProgress::default();
        progress.enter_phase(EnginePhase::Copying);
        progress.whole.messages.store(1000, Relaxed);
        progress.whole.bytes.store(100 << 20, Relaxed);
        progress.messages_done.store(100, Relaxed);
        progress.bytes_done.store(10 << 20, Relaxed);
        progress.bytes_moved.store(11 << 20, Relaxed);
        progress.record_inbox_uid_next(77);
        progress.record_login();
        let error =
            Error::new(ErrorClass::Quota, "mailbox is full").advice("Raise it").on(Side::Destination, "new:993");
        let status = WorkerStatus {
            attempt: 3,
            report: 4,
            outcome: Some(Outcome::Failed),
            flushed_attempt: Some(3),
            last_error: Some(LastError::new(&error.in_folder("Sent"), Some(Time(now())))),
            checkpoint: Some("opaque".into()),
            not_copied: Some(NotCopied {
                messages: 2,
                reasons: [("refused".to_owned(), 2)].into(),
                accepted: [("tooLarge".to_owned(), 1)].into(),
                uncounted_folders: 1,
            }),
            differences: [("flags".to_owned(), 5)].into(),
            left_out: vec![LeftOutFolder {
                folder: "Spam".into(),
                reason: "folders.exclude".into(),
                by_rule: true,
                messages: Some(6),
            }],
            warnings: vec!["look".into()],
            ..live_status(&progress, 2, 1 << 20, now())
        };
        let patch = serde_json::to_string_pretty(&report_patch(&status, &["refused", "empty"].into())).unwrap();
        insta::assert_snapshot!(format!("{}\n{patch}\n{}", claim_patch(3, now()), termination_message(&status)), @r#"
        {"status":{"worker":{"attempt":3,"changes":null,"destinationLogin":false,"inboxUidNext":null,"lastError":null,"outcome":null,"phase":"Connecting","progress":null,"refusedDestinationToken":null,"refusedSourceToken":null,"report":1,"reportedAt":"2026-03-01T00:00:00Z","waiting":null,"waitingUntil":null}}}
        {
          "status": {
            "worker": {
              "attempt": 3,
              "changes": null,
              "checkpoint": "opaque",
              "destinationLogin": true,
              "differences": {
                "flags": 5
              },
              "flushedAttempt": 3,
              "inboxUidNext": 77,
              "lastError": {
                "advice": "Raise it",
                "at": "2026-03-01T00:00:00Z",
                "class": "Quota",
                "folder": "Sent",
                "host": "new:993",
                "message": "mailbox is full",
                "side": "Destination"
              },
              "leftOut": [
                {
                  "byRule": true,
                  "folder": "Spam",
                  "messages": 6,
                  "reason": "folders.exclude"
                }
              ],
              "notCopied": {
                "accepted": {
                  "empty": null,
                  "refused": null,
                  "tooLarge": 1
                },
                "messages": 2,
                "reasons": {
                  "empty": null,
                  "refused": 2
                },
                "uncountedFolders": 1
              },
              "outcome": "Failed",
              "phase": "Copying",
              "progress": {
                "bytesDone": 10485760,
                "bytesLeft": null,
                "bytesMoved": 11534336,
                "bytesPerSecond": 1048576,
                "bytesTotal": 104857600,
                "done": "10%",
                "donePercent": 10,
                "eta": "2026-03-01T00:01:30Z",
                "foldersDone": 0,
                "foldersTotal": 0,
                "messagesDone": 100,
                "messagesSkipped": 2,
                "messagesThisAttempt": 100,
                "messagesTotal": 1000,
                "rate": "1.0 MiB/s"
              },
              "refusedDestinationToken": null,
              "refusedSourceToken": null,
              "report": 4,
              "reportedAt": "2026-03-01T00:00:00Z",
              "waiting": null,
              "waitingUntil": null,
              "warnings": [
                "look"
              ]
            }
          }
        }
        {"attempt":3,"report":4,"reportedAt":"2026-03-01T00:00:00Z","phase":"Copying","progress":{"done":"10%","donePercent":10,"rate":"1.0 MiB/s","eta":"2026-03-01T00:01:30Z","foldersTotal":0,"foldersDone":0,"messagesTotal":1000,"messagesDone":100,"messagesSkipped":2,"messagesThisAttempt":100,"bytesTotal":104857600,"bytesDone":10485760,"bytesMoved":11534336,"bytesPerSecond":1048576},"flushedAttempt":3,"notCopied":{"messages":2,"reasons":{"refused":2},"accepted":{"tooLarge":1},"uncountedFolders":1},"destinationLogin":true,"inboxUidNext":77,"outcome":"Failed","lastError":{"class":"Quota","side":"Destination","host":"new:993","folder":"Sent","message":"mailbox is full","advice":"Raise it","at":"2026-03-01T00:00:00Z"}}
        "#);
    }

    proptest! {
        #[test]
        fn a_last_word_fits_and_can_be_read(
            message in "\\PC{0,1000}", advice in proptest::option::of(".{0,1000}"), folder in proptest::option::of("[\\x00-\\x1f]{0,1000}"),
        ) {
            let error = LastError {
                class: ErrorClass::Quota, side: Some(Side::Destination), host: Some("h".repeat(300)), folder, message, advice, at: None, retry_at: None,
            };
            let reasons = BTreeMap::from([("refused".to_owned(), 3)]);
            let status = WorkerStatus {
                attempt: 9, report: 12, outcome: Some(Outcome::Failed), last_error: Some(error),
                checkpoint: Some("c".repeat(MAX_CHECKPOINT_BYTES)), folders: vec![FolderFacts::default(); 200],
                held_deletions: vec![HeldFolderDeletions { folder: "f".repeat(300), ..HeldFolderDeletions::default() }; 20],
                warnings: vec!["w".repeat(500); 20], left_out: vec![LeftOutFolder::default(); 50],
                not_copied: Some(NotCopied { messages: 3, reasons, ..NotCopied::default() }),
                ..live_status(&SyncProgress::default(), 0, 0, now())
            };
            // An API server takes requests of 3 MiB, etcd objects of 1.5 MiB.
            prop_assert!(serde_json::to_string(&status).unwrap().len() < 512 << 10);
            let word = termination_message(&status);
            prop_assert!(word.len() <= MAX_TERMINATION_MESSAGE);
            let read: WorkerStatus = serde_json::from_str(&word).unwrap();
            prop_assert_eq!((read.attempt, read.report, read.outcome), (9, 12, Some(Outcome::Failed)));
            prop_assert_eq!(read.last_error.unwrap().class, ErrorClass::Quota);
            prop_assert_eq!(read.not_copied.unwrap().messages, 3);
        }

        #[test]
        fn nothing_that_a_server_says_acts_on_a_terminal_and_no_text_gets_longer(
            text in "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{200e}\u{202a}-\u{202e}\u{2066}-\u{2069}a-z\u{e9}]{0,40}",
        ) {
            let error = LastError {
                class: ErrorClass::Network, side: None, host: None, folder: Some(text.clone()),
                message: text.clone(), advice: None, at: None, retry_at: None,
            };
            let folder = FolderFacts { source: text.clone(), ..FolderFacts::default() };
            let status = WorkerStatus {
                last_error: Some(error), folders: vec![folder], warnings: vec![text.clone()], ..WorkerStatus::default()
            };
            let acts = |c: char| c.is_control() || "\u{200e}\u{202a}\u{202e}\u{2066}\u{2069}".contains(c);
            let word: WorkerStatus = serde_json::from_str(&termination_message(&status)).unwrap();
            let patch = report_patch(&status, &BTreeSet::new());
            let worker: WorkerStatus = serde_json::from_value(patch["status"]["worker"].clone()).unwrap();
            for error in [word.last_error.unwrap(), worker.last_error.unwrap()] {
                for shown in [error.message, error.folder.unwrap()] {
                    prop_assert!(!shown.contains(acts), "{:?}", shown);
                    prop_assert_eq!(shown.chars().count(), text.chars().count());
                }
            }
            for shown in [&worker.folders[0].source, &worker.warnings[0]] {
                prop_assert!(!shown.contains(acts), "{:?}", shown);
            }
        }

        #[test]
        fn a_share_is_never_above_the_whole_and_fits(done in any::<u64>(), total in any::<u64>()) {
            let (done, total) = (done.min(total), done.max(total));
            prop_assert!((0..=100).contains(&share(done, total).unwrap_or_default()));
        }
    }
}
