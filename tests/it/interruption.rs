//! Asked to stop, a sync ends soon and well; a dry run changes nothing and says what would be.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use mailferry::{
    Result, Side,
    imap::permit::WritePermit,
    sync::{progress::SyncProgress, report::MailboxReport},
};
use mailferry_testkit::{Corpus, CorpusMessage, SharedServer, differences, shared_server};
use tokio_util::sync::CancellationToken;

use crate::{
    fake::{Act, Fake, MODERN, mails},
    rig::{Rig, adopted, copied},
};

/// Asks the sync to stop once 200 messages are done: in the middle of its work, however fast it goes.
#[derive(Debug)]
struct StopAsked {
    progress: Arc<SyncProgress>,
    stop: CancellationToken,
}

impl WritePermit for StopAsked {
    fn check(&self) -> Result<()> {
        if self.progress.messages_done.load(SeqCst) >= 200 {
            self.stop.cancel();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_asked_to_stop_saves_what_it_did_and_the_next_copies_only_the_rest() {
    let corpus = Corpus::bulk(1500, 12 << 20, 6, 31).with_large(4 << 20);
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&corpus).await;
    let mut rig = Rig::new(&source, &destination);
    let mut sum = 0;
    let mut stops = 0;
    for part in 1..100 {
        rig.stop = CancellationToken::new();
        rig.progress = Arc::default();
        rig.permit = Arc::new(StopAsked { progress: Arc::clone(&rig.progress), stop: rig.stop.clone() });
        let report = rig.try_sync().await;
        assert!(report.error.is_none(), "{report:#?}");
        sum += copied(&report);
        assert_eq!(adopted(&report), 0, "{report:#?}");
        if !report.interrupted {
            break;
        }
        stops += 1;
        let before = rig.store.checkpoint().expect("a checkpoint");
        let copies: u64 = before.folders.values().map(|state| state.map.len()).sum();
        assert_eq!(copies, sum, "after part {part} the checkpoint says something else");
        assert!(before.folders.values().all(|state| !state.append_in_doubt), "nothing is in doubt");
    }
    assert!(stops > 1, "it was never interrupted");
    assert_eq!(sum, corpus.messages() as u64);
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_stopped_before_it_begins_does_nothing() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let mut left = source.connect().await;
    left.append("INBOX", &[CorpusMessage::new("Subject: x\r\n\r\n")]).await;
    let rig = Rig::new(&source, &destination);
    rig.stop.cancel();
    let report = rig.try_sync().await;
    assert_eq!(copied(&report), 0);
    assert!(report.interrupted, "{report:#?}");
    assert!(destination.connect().await.folder_facts("INBOX").await.1.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_a_server_is_unwell_is_an_interruption_and_no_failure() {
    for (pattern, act) in [
        ("LIST", Act::Bye(b"* BYE shutting down\r\n".to_vec())),
        ("UID FETCH", Act::send("{tag} NO [THROTTLED] slow down\r\n")),
    ] {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let twist = move |command: &str, _| {
            command.starts_with(pattern).then(|| {
                asked.cancel();
                act.clone()
            })
        };
        let source = Fake::twisted(MODERN, mails(3), twist).await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
        (rig.stop, rig.spec.retry.initial_backoff) = (stop, Duration::from_hours(1));
        let report = rig.try_sync().await;
        assert!(report.error.is_none() && report.folders.iter().all(|f| f.error.is_none()), "{report:#?}");
        assert!(report.interrupted, "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_an_empty_destination_is_watched_sends_nothing_and_the_next_sync_copies_all() {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let twist = move |command: &str, _| {
        if command.starts_with("UID FETCH") {
            asked.cancel();
        }
        None
    };
    let source = Fake::twisted(MODERN, mails(3), twist).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.stop = stop;
    let report = rig.try_sync().await;
    assert!(report.error.is_none() && report.interrupted, "{report:#?}");
    assert_eq!(destination.heard("APPEND"), 0);
    rig.stop = CancellationToken::new();
    assert_eq!(copied(&rig.sync().await), 3);
    assert_eq!(destination.mails("INBOX").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_says_what_would_be() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let corpus = Corpus::varied(8);
    left.seed(&corpus).await;
    // Some are there already.
    let ordinary: Vec<CorpusMessage> = corpus.folders[0].messages[30..].to_vec();
    right.append("INBOX", &ordinary[..10]).await;
    let (before_left, before_right) = (left.snapshot().await, right.snapshot().await);
    let mut rig = Rig::new(&source, &destination);
    rig.spec.dry_run = true;
    let predicted = rig.sync().await;
    assert!(predicted.dry_run);
    assert_eq!(before_left, left.snapshot().await);
    assert_eq!(before_right, right.snapshot().await);
    assert!(rig.store.checkpoint().is_none(), "a dry run leaves no checkpoint");

    rig.spec.dry_run = false;
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (copied(&predicted), adopted(&predicted)));
    assert_eq!(adopted(&report), 10);
    let bytes = |report: &MailboxReport| report.folders.iter().map(|f| f.bytes_now).sum::<u64>();
    assert_eq!(bytes(&report), bytes(&predicted));
    let names = |report: &MailboxReport| {
        report.folders.iter().map(|f| (f.source.clone(), f.destination.clone(), f.source_messages)).collect::<Vec<_>>()
    };
    assert_eq!(names(&report), names(&predicted));

    // The same for a delta, with a folder renamed.
    left.append("INBOX", &ordinary[..3]).await;
    left.command_ok("RENAME Drafts Drafted").await;
    let checkpoint = rig.store.checkpoint();
    let before_right = right.snapshot().await;
    rig.spec.dry_run = true;
    let predicted = rig.sync().await;
    assert_eq!(copied(&predicted), 3, "{predicted:#?}");
    assert_eq!(rig.store.checkpoint(), checkpoint, "a dry run changed the checkpoint");
    assert_eq!(before_right, right.snapshot().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_sends_nothing_that_changes_anything() {
    let source = Fake::start(MODERN, mails(5)).await;
    source.change("Work", |folder| *folder = mails(3));
    let destination = Fake::start(MODERN, mails(2)).await;
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.dry_run = true;
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (6, 2), "{report:#?}");
    for command in destination.server.received_commands() {
        let words: Vec<&str> = command.split(' ').skip(1).take(2).collect();
        let reads =
            ["LIST", "LSUB", "STATUS", "EXAMINE", "NOOP", "LOGOUT", "AUTHENTICATE", "CAPABILITY", "ID", "NAMESPACE"];
        assert!(reads.contains(&words[0]) || ["FETCH", "SEARCH"].contains(&words[1]), "{command}");
    }
}
