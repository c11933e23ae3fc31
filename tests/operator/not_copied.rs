//! What is not copied: told by every status until it is, whatever comes between.

use jiff::{SignedDuration, Timestamp};
use mailferry::api::{MailMigration, MailboxSync, MailboxSyncStatus, mailbox_sync::Outcome};
use mailferry_testkit::{CorpusMessage, Dovecot, DovecotOptions};
use serde_json::{Value, json};

use crate::{
    stage::{Ending, Stage, condition},
    worker::{Mailbox, rig},
};

fn status(sync: &MailboxSync) -> MailboxSyncStatus {
    sync.status.clone().unwrap_or_default()
}

/// A condition of a mailbox: status and reason.
fn said(sync: &MailboxSync, type_: &str) -> (String, String) {
    let conditions = status(sync).conditions;
    let found = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    (found.status.clone(), found.reason.clone())
}

/// The attempt ended well, and its worker said what is not copied.
async fn synced_but(stage: &Stage, sync: &str, attempt: i64, not_copied: Value) {
    stage.report(sync, attempt, 8, json!({"notCopied": not_copied, "differences": {"flags": 1}})).await;
    stage.ends(sync, attempt, Ending::Synced).await;
    let ended = |sync: &MailboxSync| status(sync).attempt == attempt && status(sync).slots.is_none();
    stage.until::<MailboxSync>(sync, ended).await;
}

/// The cells of a table as kubectl prints it, by column.
async fn printed(stage: &Stage, kind: &str, name: &str) -> Vec<(String, Value)> {
    let path = format!("/apis/mailferry.io/v1alpha1/namespaces/{}/{kind}/{name}", stage.rig.namespace);
    let request = http::Request::get(path).header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table: Value = stage.rig.client.request(request.body(Vec::new()).unwrap()).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned());
    names.zip(table["rows"][0]["cells"].as_array().unwrap().iter().cloned()).collect()
}

fn cell(table: &[(String, Value)], column: &str) -> Value {
    table.iter().find(|(name, _)| name == column).unwrap().1.clone()
}

#[tokio::test]
async fn a_migration_is_complete_and_says_what_is_not_copied_until_it_is() {
    let stage = Stage::new().await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    stage.migration("acme", &["alice", "bob"], json!({})).await;
    for sync in [&alice, &bob] {
        stage.running(sync, 1).await;
    }
    let early = stage.until_condition("acme", "AllCopied", "Unknown").await;
    assert_eq!(condition(&early, "AllCopied").unwrap().1, "NotKnown");
    assert_eq!(cell(&printed(&stage, "mailboxsyncs", &alice).await, "NotCopied"), Value::Null);
    let missing = json!({"messages": 3, "reasons": {"refused": 2, "tooLarge": 1}, "accepted": {"empty": 4}});
    synced_but(&stage, &alice, 1, missing).await;
    synced_but(&stage, &bob, 1, json!({"messages": 0})).await;

    let complete = |m: &MailMigration| condition(m, "Complete").is_some_and(|c| c.0 == "True");
    let done = stage.until::<MailMigration>("acme", complete).await;
    assert_eq!(condition(&done, "Complete").unwrap().1, "CompleteNotAllCopied");
    let (all_copied, reason, message) = condition(&done, "AllCopied").unwrap();
    assert_eq!((all_copied.as_str(), reason.as_str()), ("False", "NotCopied"));
    assert!(
        message.starts_with("3 messages are not copied: 2 refused, 1 tooLarge (4 more are accepted); "),
        "{message}"
    );
    let ready = condition(&done, "Ready").unwrap();
    assert_eq!((ready.0.as_str(), ready.1.as_str()), ("True", "Complete"));
    let sums = |m: &MailMigration| m.status.as_ref().unwrap().totals.clone().unwrap();
    assert_eq!((sums(&done).messages_skipped, sums(&done).differences), (7, [("flags".to_owned(), 2)].into()));
    assert_eq!(cell(&printed(&stage, "mailmigrations", "acme").await, "NotCopied"), json!(3));
    assert_eq!(cell(&printed(&stage, "mailboxsyncs", &alice).await, "NotCopied"), json!(3));
    let synced = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert_eq!(said(&synced, "AllCopied"), ("False".to_owned(), "NotCopied".to_owned()));
    assert_eq!(said(&synced, "Ready"), ("True".to_owned(), "Synced".to_owned()));

    let text = stage.metrics.text().unwrap();
    for line in ["not_copied{reason=\"refused\"} 2", "not_copied{reason=\"empty\"} 0", "different{kind=\"flags\"} 2"] {
        assert!(text.contains(&format!("mailferry_messages_{line}\n")), "{line} is not in\n{text}");
    }

    // The next sync begins: what stands holds until it ends.
    stage.change("acme", json!({"syncRequest": "after the repair"})).await;
    for sync in [&alice, &bob] {
        stage.running(sync, 2).await;
    }
    let running = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert_eq!(status(&running).worker.unwrap().not_copied.unwrap().messages, 3);
    assert_eq!(said(&running, "AllCopied").0, "False");
    assert!(status(&running).retry_refused, "its worker tries again what was refused");
    let copied = json!({"messages": 0, "reasons": {"refused": null, "tooLarge": null}});
    synced_but(&stage, &alice, 2, copied).await;
    synced_but(&stage, &bob, 2, json!({"messages": 0})).await;
    let copied = |m: &MailMigration| complete(m) && condition(m, "AllCopied").is_some_and(|c| c.0 == "True");
    let done = stage.until::<MailMigration>("acme", copied).await;
    assert_eq!(condition(&done, "Complete").unwrap().1, "Complete");
    let alice = stage.api::<MailboxSync>().get(&alice).await.unwrap();
    assert!(!status(&alice).retry_refused);
}

#[tokio::test]
async fn a_server_that_says_when_to_come_back_is_left_alone_and_its_slots_are_others_meanwhile() {
    let stage = Stage::new().await;
    stage.migration("acme", &["alice", "bob"], json!({"parallelism": 1, "retry": {"initialBackoff": "1s"}})).await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    let first = stage.one_of(&[&alice, &bob]).await;
    let second = if first == alice { bob } else { alice };
    stage.running(&first, 1).await;
    let retry_at = Timestamp::from_second(Timestamp::now().as_second() + 7200).unwrap();
    let error = json!({"class": "Throttled", "message": "later", "retryAt": retry_at.to_string()});
    stage.report(&first, 1, 9, json!({"outcome": "Failed", "lastError": error})).await;
    stage.rig.pod_ended(&format!("{first}-1"), 1, "").await;
    let waiting = stage.until_phase(&first, "Backoff").await;
    let wait = waiting.next_attempt_at.unwrap().0.duration_since(retry_at);
    assert!((SignedDuration::ZERO..SignedDuration::from_secs(2)).contains(&wait), "{wait}");
    assert_eq!((waiting.slots, waiting.last_error.unwrap().retry_at.unwrap().0), (None, retry_at));
    stage.running(&second, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_what_the_destination_does_not_take_until_it_does() {
    let plugins = "protocol imap {\n  mail_plugins = quota imap_quota\n}\n";
    let limited = DovecotOptions { quota: Some(0), extra: plugins.to_owned(), ..DovecotOptions::default() };
    let server = Dovecot::start(&limited);
    let rig = rig().await;
    let limit = |limit: &str| server.add_user_with("small", b"x", &format!("userdb_quota_max_mail_size={limit}"));
    let mailbox = Mailbox::into(&rig, "small", limit("100k"), json!({})).await;
    let sized = |n: usize| CorpusMessage::new([format!("Subject: {n}\r\n\r\n").as_bytes(), &vec![b'x'; n]].concat());
    mailbox.source.connect().await.append("INBOX", &[sized(10), sized(150_000), sized(20)]).await;
    // The second has nothing to do.
    for attempt in [1, 2] {
        let ended = mailbox.start(attempt).await.end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let worker = mailbox.worker().await;
        assert_eq!(worker.outcome, Some(Outcome::Synced));
        let not_copied = worker.not_copied.unwrap();
        assert_eq!((not_copied.messages, not_copied.reasons.values().sum::<i64>()), (1, 1), "{not_copied:?}");
        assert_eq!(worker.progress.unwrap().messages_skipped, 1, "attempt {attempt}");
        assert_eq!(ended.word().not_copied.unwrap().messages, 1, "its last word says so, too");
    }
    let _ = limit("1M");
    rig.patch_status("small", json!({"retryRefused": true})).await.unwrap();
    let ended = mailbox.start(3).await.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let worker = mailbox.worker().await;
    let not_copied = worker.not_copied.as_ref().unwrap();
    assert_eq!((not_copied.messages, not_copied.reasons.len()), (0, 0), "{not_copied:?}\n{}", ended.log);
    assert_eq!(mailbox.copies().await, 3);
    assert_eq!(worker.differences, [("order".to_owned(), 1)].into(), "it came after newer ones");
}
