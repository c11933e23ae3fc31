//! What a server sends in a message's place, because it cannot read or convert it, is never copied as the message.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use mailferry::{Side, sync::report::MailboxReport};
use serde_json::json;

use crate::{
    cli::{Cli, server_with},
    fake::{Act, Fake, MODERN, Mail, bodies, mails},
    rig::{Rig, adopted, copied},
};

const EXCHANGE: &str = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\
    From: Microsoft Exchange Server 2010\r\nTo: A User <user@example.org>\r\n\
    Subject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 5\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\nThe server couldn't retrieve the following message:\r\n\r\n\
    Subject: \"Canceled: a meeting\"\r\nSent date: 2 Feb 2016 10:00:00\r\n\r\nThe message hasn't been deleted.\r\n";
const UNKNOWN: &str = "From: Mail System\r\nSubject: Fehler\r\n\r\nDie Nachricht kann nicht gelesen werden.\r\n";
const COURIER: &str = "From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\n\
    This message is no longer available on the server.\r\n";

fn rig(source: &Fake, destination: &Fake) -> Rig {
    Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination))
}

/// Eight messages, of which the fifth is large.
fn eight() -> Vec<Mail> {
    let mut all = mails(8);
    all[4].body.extend_from_slice(&b"0123456789\r\n".repeat(4000));
    all
}

/// A source that sends `instead` for the fifth message until it is well; sizes are those of the real messages.
async fn stands_in(all: Vec<Mail>, instead: &'static str, is_well: &Arc<AtomicBool>) -> Fake {
    let (told, is_well) = (all.clone(), Arc::clone(is_well));
    Fake::twisted(MODERN, all, move |command, _| {
        let form = |seq: usize, mail: &Mail| {
            let body = if mail.uid == 5 { instead.as_bytes() } else { &mail.body };
            let head = format!("* {seq} FETCH (UID {} BODY[] {{{}}}\r\n", mail.uid, body.len());
            [head.as_bytes(), body, b")\r\n"].concat()
        };
        let lies = command.contains("BODY.PEEK[]") && !is_well.load(SeqCst);
        lies.then(|| Act::Send(bodies(&told, command, form)))
    })
    .await
}

fn unreadable(report: &MailboxReport) -> Option<u64> {
    report.folders[0].skipped.get("unreadable").copied()
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_is_set_aside_and_the_message_comes_once_the_source_delivers_it() {
    for instead in [EXCHANGE, UNKNOWN, COURIER, ""] {
        let is_well = Arc::default();
        let source = stands_in(eight(), instead, &is_well).await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let rig = rig(&source, &destination);
        let report = rig.sync().await;
        assert_eq!((unreadable(&report), copied(&report)), (Some(1), 7), "{instead} {report:#?}");
        let note = &report.folders[0].skipped_messages[0];
        assert!(note.uid == 5 && note.what.starts_with("the source "), "{note:?}");
        assert!(!note.what.contains("meeting") && note.what.contains("sent"), "{note:?}");
        assert!(destination.mails("INBOX").iter().all(|mail| mail.body != instead.as_bytes()));
        is_well.store(true, SeqCst);
        let report = rig.sync().await;
        assert_eq!((unreadable(&report), copied(&report)), (None, 1), "{instead} {report:#?}");
        assert_eq!(destination.mails("INBOX").last().unwrap().body, eight()[4].body);
    }
}

#[tokio::test(start_paused = true)]
async fn mail_that_holds_such_a_sentence_is_copied() {
    let mut all = mails(8);
    all[4].body = format!("Message-ID: <5@a>\r\nFrom: Anna <anna@example.org>\r\n\r\n{EXCHANGE}").into_bytes();
    // Stored so, by whatever copied it before: that is what the source holds.
    all[5].body = COURIER.into();
    let source = Fake::start(MODERN, all.clone()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((unreadable(&report), copied(&report)), (None, 8), "{report:#?}");
    assert!(report.folders[0].differences.is_empty(), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_much_shorter_than_listed_is_copied_and_told() {
    let cut = "Message-ID: <fake-5@example.org>\r\nFrom: anna@example.org\r\n\r\nIt begins, and\r\n";
    let source = stands_in(eight(), cut, &Arc::default()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((unreadable(&report), copied(&report)), (None, 8), "{report:#?}");
    assert_eq!(report.folders[0].differences.get("size"), Some(&1), "{report:#?}");
    assert_eq!(report.folders[0].difference_messages[0].uid, 5);

    // Where sizes are estimated, they say nothing.
    let source =
        Fake::start(MODERN, mails(30).into_iter().map(|mail| Mail { size: Some(900), ..mail }).collect()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(copied(&report), 30, "{report:#?}");
    assert!(report.folders[0].differences.values().sum::<u64>() <= 5, "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_at_the_destination_is_no_copy_of_the_message_that_it_stands_for() {
    let mut all = eight();
    // Without a Message-ID, contents decide.
    all[4].body = [b"From: anna@example.org\r\n\r\n".as_slice(), &b"0123456789\r\n".repeat(400)].concat();
    let source = stands_in(all, COURIER, &Arc::default()).await;
    let destination = Fake::start(MODERN, vec![Mail::new(1, COURIER)]).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((unreadable(&report), adopted(&report), copied(&report)), (Some(1), 0, 7), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_notice_in_a_folder_that_came_whole_is_looked_at_again() {
    // The size comes with the notice, and agrees with it; listed before, the message is gone.
    let capabilities = format!("{MODERN} STATUS=SIZE");
    let notice = vec![Mail::new(1, "Message-ID: <1@a>\r\n\r\nbody\r\n"), Mail::new(2, COURIER)];
    let there = notice.clone();
    let source = Fake::twisted(&capabilities, Vec::new(), move |command, _| {
        let whole = command.contains("BODY.PEEK[]") && command.contains("FETCH 1:* ");
        let form = |seq: usize, mail: &Mail| {
            let (uid, length) = (mail.uid, mail.body.len());
            let head = format!(
                "* {seq} FETCH (UID {uid} FLAGS () INTERNALDATE {} RFC822.SIZE {length} BODY[] {{{length}}}\r\n",
                mail.date
            );
            [head.as_bytes(), &mail.body, b")\r\n"].concat()
        };
        whole.then(|| Act::Send(bodies(&there, command, form)))
    })
    .await;
    source.change("Old", |mails| mails.push(notice[0].clone()));
    let destination = Fake::start(&capabilities, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(copied(&report), 1, "{report:#?}");
    assert_eq!(destination.mails("Old").len(), 1, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_counts_as_unreadable_for_verify_and_is_not_exported_as_the_message() {
    let source = stands_in(eight(), EXCHANGE, &Arc::default()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let at = |fake: &Fake| server_with("127.0.0.1", fake.server.port(), "None");
    let account = ("anybody", "at all, says the fake");
    let cli = Cli::new(at(&source), at(&destination)).mailbox("alice", account, account);
    cli.run("run", &[]).await.exits(3);
    let verified = cli.run("verify", &["--output", "json"]).await.exits(1);
    let folder = &verified.events("verified")[0]["report"]["folders"][0];
    assert_eq!(folder["unreadable"], json!(1), "{folder:#}");
    let exported = cli.run("export", &["--not-copied", "out", "--output", "text"]).await.exits(3);
    exported.says(&["alice: 0 messages", "1 could not be read"]).says(&["UID 5: ", "cannot deliver the message"]);
}
