//! The destination already receives new mail while mail is copied into the same folders.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use mailferry::{Side, sync::spec::DeletionHandling};
use mailferry_testkit::{
    Corpus, CorpusMessage, FaultyProxy, MailboxSnapshot, RawImap, SharedServer, dovecot::TestAccount, shared_server,
    snapshot::MessageSnapshot,
};
use std::time::Duration;

use crate::rig::{Rig, adopted, copied, endpoint};

/// What is delivered: marked by a flag of its own, which no sync may change.
fn delivered(at: usize) -> CorpusMessage {
    let body = format!("Message-ID: <new{at}@example.org>\r\nSubject: delivered {at}\r\n\r\n{at}\r\n");
    CorpusMessage::new(body).flagged(&["Delivered"])
}

/// Delivers into both folders until told to stop; gives how many.
async fn deliver(account: TestAccount<'static>, ended: Arc<AtomicBool>) -> usize {
    let mut imap = account.connect().await;
    let mut count = 0;
    while !ended.load(SeqCst) {
        for folder in ["INBOX", "Folder 01"] {
            // The folder may not be there yet.
            let message = delivered(count);
            let command = format!("APPEND \"{folder}\" (Delivered) {{{}+}}\r\n", message.body.len());
            let reply = imap.command(&[command.as_bytes(), &message.body].concat()).await;
            count += usize::from(reply.status == "OK");
        }
        tokio::task::yield_now().await;
    }
    count
}

fn split(snapshot: &MailboxSnapshot, folder: &str) -> (Vec<MessageSnapshot>, usize) {
    let all = &snapshot[folder].messages;
    let (new, copies): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|fact| fact.flags == ["Delivered"]);
    (copies, new.len())
}

fn what(facts: &[MessageSnapshot]) -> Vec<([u8; 32], Vec<String>, i64)> {
    facts.iter().map(|fact| (fact.sha256, fact.flags.clone(), fact.internal_date)).collect()
}

/// Each message of the source is there once and in order, and all that was delivered.
async fn is_exact(left: &mut RawImap, right: &mut RawImap, count: usize, about: &str) {
    let (source, there) = (left.snapshot().await, right.snapshot().await);
    let mut new = 0;
    for folder in ["INBOX", "Folder 01"] {
        let (copies, delivered) = split(&there, folder);
        new += delivered;
        assert_eq!(copies.len(), source[folder].messages.len(), "{about}: {folder}");
        assert!(what(&copies) == what(&source[folder].messages), "{about}: {folder} differs");
    }
    assert_eq!(new, count, "{about}: delivered mail");
}

async fn between(kills: u64, lose: bool, seed: u64) {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Sdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&Corpus::bulk(400, 3 << 20, 2, 21 + seed)).await;
    let proxy = FaultyProxy::start(destination.server.tls_port(), Duration::ZERO);
    let mut rig = Rig::new(&source, &destination);
    rig.spec.destination = endpoint(Side::Destination, proxy.port(), &destination.user, &destination.password);
    rig.spec.delete_policy = DeletionHandling::Mirror;
    let ended = Arc::new(AtomicBool::new(false));
    let delivery = tokio::spawn(deliver(destination.clone(), Arc::clone(&ended)));
    for kill in 1..=kills {
        let limit = (seed * 200 + kill * 600) << 10;
        rig.sync_killed_after(&proxy, limit).await;
        if lose {
            rig.store.lose();
        }
    }
    let report = rig.sync().await;
    ended.store(true, SeqCst);
    let count = delivery.await.unwrap();
    assert!(count > 0);
    let about = format!("{kills} kills, seed {seed}, {report:#?}");
    is_exact(&mut left, &mut right, count, &about).await;
    let again = rig.sync().await;
    assert_eq!(copied(&again) + adopted(&again), 0, "{again:#?}");
    is_exact(&mut left, &mut right, count, "after a second run").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_delivered_during_a_sync_is_left_alone_and_hides_nothing() {
    between(0, false, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_delivered_while_syncs_are_killed_is_left_alone_and_nothing_is_lost_or_doubled() {
    for seed in 0..3 {
        between(2, false, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_delivered_while_syncs_are_killed_and_lose_their_state_is_left_alone() {
    for seed in 0..3 {
        between(2, true, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_reached_both_sides_is_there_once() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Sdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let both: Vec<CorpusMessage> = (0..20).map(delivered).collect();
    left.append("INBOX", &both).await;
    right.append("INBOX", &both[10..]).await;
    // A mailing list's copy: the same Message-ID, another body. It is another message.
    let list =
        CorpusMessage::new("Message-ID: <new3@example.org>\r\nSubject: [list] delivered 3\r\n\r\n3\r\n--\r\nlist\r\n");
    right.append("INBOX", &[list]).await;
    let report = Rig::new(&source, &destination).sync().await;
    assert_eq!((copied(&report), adopted(&report)), (10, 10), "{report:#?}");
    assert_eq!(right.folder_facts("INBOX").await.1.len(), 21);
}
