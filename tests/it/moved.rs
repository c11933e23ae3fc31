//! Without a checkpoint: what a user moved at the destination is not copied again, and what was not copied is.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use mailferry::{
    Side,
    sync::{
        SyncWatcher,
        matched_folders::MatchSummary,
        report::{FolderReport, MailboxReport, MovedMessages},
        spec::{AdoptScope, DeletionHandling},
    },
};
use mailferry_testkit::{
    CorpusMessage, FaultyProxy, RawImap, SharedServer,
    corpus::{CorpusFolder, SplitMix64},
    shared_server,
};

use crate::{
    cli::{Cli, checkpoint_in},
    fake::{Act, Fake, MODERN, mails},
    rig::{Rig, adopted, copied},
};

fn message(name: impl std::fmt::Display) -> CorpusMessage {
    CorpusMessage::new(format!("Message-ID: <{name}@example.org>\r\nSubject: {name}\r\n\r\nbody {name}\r\n"))
}

fn messages(numbers: std::ops::Range<u32>) -> Vec<CorpusMessage> {
    numbers.map(message).collect()
}

/// A mailbox that was synced: ten messages in INBOX (0 to 9), five in Work (10 to 14). The destination has a folder Archive
/// of its own.
async fn synced() -> (Rig, RawImap, RawImap) {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let folders = vec![CorpusFolder::new("INBOX", messages(0..10)), CorpusFolder::new("Work", messages(10..15))];
    left.seed(&mailferry_testkit::Corpus { folders }).await;
    right.command_ok("CREATE Archive").await;
    let rig = Rig::new(&source, &destination);
    assert_eq!(copied(&rig.sync().await), 15);
    (rig, left, right)
}

async fn move_messages(imap: &mut RawImap, from: &str, uids: &str, to: &str) {
    imap.select(from).await;
    imap.command_ok(&format!("UID MOVE {uids} {to}")).await;
}

async fn count(imap: &mut RawImap, folder: &str) -> usize {
    imap.folder_facts(folder).await.1.len()
}

fn folder<'a>(report: &'a MailboxReport, name: &str) -> &'a FolderReport {
    report.folders.iter().find(|folder| folder.source == name).unwrap_or_else(|| panic!("no {name} in {report:#?}"))
}

fn moved_to(folder: &str, messages: u64, uids: &[u32]) -> Vec<MovedMessages> {
    vec![MovedMessages { folder: folder.to_owned(), messages, uids: uids.to_vec() }]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_to_another_folder_is_not_copied_again_without_the_checkpoint() {
    let (rig, _left, mut right) = synced().await;
    move_messages(&mut right, "INBOX", "2:4", "Archive").await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 15), "{report:#?}");
    assert_eq!(folder(&report, "INBOX").found_elsewhere, moved_to("Archive", 3, &[2, 3, 4]));
    let note = "INBOX: 3 messages were found in Archive, taken as moved (UIDs 2, 3, 4)";
    assert!(report.notes.iter().any(|told| told == note), "{report:#?}");
    assert_eq!((report.without_checkpoint, report.not_copied.as_ref().unwrap().messages), (None, 0));
    assert_eq!((count(&mut right, "INBOX").await, count(&mut right, "Archive").await), (7, 3));
    let again = rig.sync().await;
    assert!(again.folders.iter().all(|f| f.unchanged && f.copied_before == f.source_messages), "{again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn later_syncs_leave_what_was_moved_alone() {
    let (mut rig, mut left, mut right) = synced().await;
    move_messages(&mut right, "INBOX", "2:4", "Archive").await;
    rig.store.lose();
    rig.spec.delete_policy = DeletionHandling::Mirror;
    rig.sync().await;
    let archived = right.folder_facts("Archive").await;
    // New mail and flags follow, deletions too; but not into Archive, and no wrong message changes.
    let inbox = right.folder_facts("INBOX").await;
    left.append("INBOX", &[message("new")]).await;
    left.store("INBOX", "2:3", "+FLAGS (\\Flagged)").await;
    left.expunge("INBOX", "4").await;
    let report = rig.sync().await;
    assert_eq!((copied(&report), folder(&report, "INBOX").deleted), (1, 0), "{report:#?}");
    assert!(folder(&report, "INBOX").doubts.is_empty(), "{report:#?}");
    assert_eq!(right.folder_facts("Archive").await, archived);
    let after = right.folder_facts("INBOX").await;
    assert_eq!(after.1[..inbox.1.len()], inbox.1[..], "nothing of what was there changed");
    assert_eq!(after.1.len(), inbox.1.len() + 1);
    left.expunge("INBOX", "2:3").await;
    let report = rig.sync().await;
    assert_eq!((copied(&report), folder(&report, "INBOX").deleted), (0, 0), "{report:#?}");
    assert_eq!(right.folder_facts("Archive").await, archived);
    assert!(rig.sync().await.folders.iter().all(|f| f.unchanged));
    assert!(rig.store.checkpoint().unwrap().folders.values().all(|state| state.moved.is_empty()), "they are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_to_a_folder_that_is_synced_too_is_found_and_takes_nothing_from_it() {
    let (rig, mut left, mut right) = synced().await;
    // Work at the source holds message 0, too: its copy there is not that of INBOX.
    left.append("Work", &[message(0)]).await;
    rig.sync().await;
    move_messages(&mut right, "INBOX", "2:4", "Work").await;
    right.expunge("INBOX", "1").await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 15), "{report:#?}");
    assert_eq!(folder(&report, "INBOX").found_elsewhere, moved_to("Work", 3, &[2, 3, 4]));
    let summary = MatchSummary { messages: 16, found: 15, found_elsewhere: 3, to_copy: 1, to_flag: 0 };
    assert_eq!(report.without_checkpoint, Some(summary));
    assert_eq!((count(&mut right, "INBOX").await, count(&mut right, "Work").await), (7, 9));
    assert_eq!(copied(&rig.sync().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twins_of_which_one_was_moved_none_is_doubled() {
    let (rig, mut left, mut right) = synced().await;
    left.append("INBOX", &[message(0), message(0)]).await;
    rig.sync().await;
    move_messages(&mut right, "INBOX", "11", "Archive").await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 17), "{report:#?}");
    assert_eq!((count(&mut right, "INBOX").await, count(&mut right, "Archive").await), (11, 1));
    // One of three is gone: it comes again, since the one in Archive is taken already.
    right.expunge("INBOX", "12").await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 16), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_which_not_most_was_found_is_copied_whole() {
    for there in [0, 5] {
        let (source, destination) =
            (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
        let (mut left, mut right) = (source.connect().await, destination.connect().await);
        left.append("INBOX", &messages(0..10)).await;
        right.append("INBOX", &[messages(0..there), vec![message("own")]].concat()).await;
        right.command_ok("CREATE Archive").await;
        right.append("Archive", &messages(there..10)).await;
        let report = Rig::new(&source, &destination).sync().await;
        assert_eq!((copied(&report), adopted(&report)), (10 - u64::from(there), u64::from(there)), "{report:#?}");
        assert!(folder(&report, "INBOX").found_elsewhere.is_empty());
        let summary = MatchSummary {
            messages: 10,
            found: u64::from(there),
            found_elsewhere: 0,
            to_copy: 10 - u64::from(there),
            to_flag: 0,
        };
        assert_eq!(report.without_checkpoint, Some(summary));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_moved_copy_is_none() {
    let (rig, mut left, mut right) = synced().await;
    let dated = |message: CorpusMessage| message.dated("06-Mar-2021 08:09:10 +0000");
    let nameless = |text: &str| CorpusMessage::new(format!("Subject: nameless\r\n\r\n{text}\r\n"));
    left.append("INBOX", &[nameless("one")]).await;
    rig.sync().await;
    right.expunge("INBOX", "1:2,11").await;
    // Equal Message-ID, date and size; equal content with another date; equal size and date, without a Message-ID.
    let other = message(0).body.iter().map(|byte| if *byte == b'b' { b'c' } else { *byte }).collect::<Vec<u8>>();
    right.append("Archive", &[CorpusMessage::new(other), dated(message(1)), nameless("two")]).await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (3, 13), "{report:#?}");
    assert_eq!(count(&mut right, "INBOX").await, 11);
    // Without a Message-ID it is found as well, where it is the same.
    move_messages(&mut right, "INBOX", "14", "Archive").await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), folder(&report, "INBOX").found_elsewhere[0].messages), (0, 1), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_copies_are_looked_for_is_as_the_user_says() {
    let (mut rig, _left, mut right) = synced().await;
    move_messages(&mut right, "INBOX", "1:8", "Archive").await;
    let mut run = async |scope, copies: u64, found: u64| {
        rig.store.lose();
        rig.spec.adopt = scope;
        rig.spec.dry_run = true;
        let foretold = rig.try_sync().await;
        rig.spec.dry_run = false;
        let report = rig.sync().await;
        assert_eq!((copied(&report), adopted(&report)), (copies, found), "{scope:?}: {report:#?}");
        assert_eq!((copied(&foretold), adopted(&foretold)), (copies, found), "{scope:?}: {foretold:#?}");
        report
    };
    let report = run(AdoptScope::Mailbox, 0, 15).await;
    assert_eq!(folder(&report, "INBOX").found_elsewhere, moved_to("Archive", 8, &[1, 2, 3, 4, 5]));
    run(AdoptScope::Auto, 8, 7).await;
    right.expunge("INBOX", "11:*").await;
    run(AdoptScope::Folder, 8, 7).await;
    run(AdoptScope::Nowhere, 15, 0).await;
    assert_eq!((count(&mut right, "INBOX").await, count(&mut right, "Work").await), (20, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_a_user_emptied_is_found_elsewhere_only_on_request() {
    let (mut rig, _left, mut right) = synced().await;
    move_messages(&mut right, "Work", "1:5", "Archive").await;
    rig.store.lose();
    rig.spec.adopt = AdoptScope::Mailbox;
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 15), "{report:#?}");
    assert_eq!((report.without_checkpoint, count(&mut right, "Work").await), (None, 0));
    assert!(rig.sync().await.folders.iter().all(|f| f.unchanged));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_killed_while_it_looks_for_moved_copies_doubles_nothing() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.append("INBOX", &messages(0..40)).await;
    right.append("INBOX", &messages(0..25)).await;
    for name in ["Archive", "Later"] {
        right.command_ok(&format!("CREATE {name}")).await;
    }
    right.append("Archive", &messages(25..30)).await;
    let proxy = FaultyProxy::start(destination.server.tls_port(), Duration::ZERO);
    let mut rig = Rig::new(&source, &destination);
    rig.spec.destination.port = proxy.port();
    let mut random = SplitMix64(7);
    for _ in 0..12 {
        let before = proxy.bytes_carried(mailferry_testkit::proxy::Direction::ToServer);
        rig.sync_killed_after(&proxy, before + 900 + random.below(1500)).await;
    }
    let report = rig.sync().await;
    assert_eq!((count(&mut right, "INBOX").await, count(&mut right, "Archive").await), (35, 5), "{report:#?}");
    assert_eq!(copied(&rig.sync().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_can_not_be_looked_into_is_told_and_holds_up_nothing() {
    let source = Fake::start(MODERN, mails(10)).await;
    let destination = Fake::twisted(MODERN, mails(7), |command, _| {
        (command.starts_with("EXAMINE") && command.contains("BROKEN"))
            .then(|| Act::send("{tag} NO [SERVERBUG] Internal error.\r\n"))
    })
    .await;
    destination.change("Broken", |mails| mails.extend(self::mails(1)));
    destination.change("Archive", |there| there.extend(mails(9).split_off(7)));
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.connections = 1;
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 9), "{report:#?}");
    assert!(report.notes.iter().any(|note| note.contains("Broken was left out")), "{report:#?}");
    assert_eq!((destination.mails("INBOX").len(), destination.mails("Archive").len()), (8, 2));
}

/// Notes what it was told, and how often the destination had been written to by then.
struct Told {
    destination: Arc<Fake>,
    heard: Mutex<Vec<(MatchSummary, usize)>>,
}

impl SyncWatcher for Told {
    fn tell_matched(&self, summary: MatchSummary) -> BoxFuture<'_, ()> {
        self.heard.lock().unwrap().push((summary, self.destination.heard("APPEND") + self.destination.heard("STORE")));
        Box::pin(async {})
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_be_copied_into_folders_that_hold_mail_is_told_before_anything_is() {
    let source = Fake::start(MODERN, mails(10)).await;
    source.change("Other", |other| other.extend(mails(4)));
    let destination = Arc::new(Fake::start(MODERN, mails(7)).await);
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    let told = Arc::new(Told { destination: Arc::clone(&destination), heard: Mutex::default() });
    rig.watcher = Some(Arc::clone(&told) as Arc<dyn SyncWatcher>);
    let report = rig.sync().await;
    assert_eq!(copied(&report), 7, "{report:#?}");
    let summary = MatchSummary { messages: 10, found: 7, found_elsewhere: 0, to_copy: 3, to_flag: 0 };
    assert_eq!(*told.heard.lock().unwrap(), [(summary, 0)]);
    // With the checkpoint there is nothing to be told.
    source.change("INBOX", |inbox| inbox.extend(mails(11).split_off(10)));
    let report = rig.sync().await;
    assert_eq!((copied(&report), report.without_checkpoint, told.heard.lock().unwrap().len()), (1, None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_that_found_copies_lack_are_told_before_they_are_set() {
    let (rig, mut left, mut right) = synced().await;
    left.store("INBOX", "1:4", "+FLAGS (\\Seen)").await;
    left.store("INBOX", "9", "+FLAGS (\\Deleted)").await;
    rig.sync().await;
    right.store("INBOX", "2:3", "-FLAGS (\\Seen)").await;
    right.store("INBOX", "9", "-FLAGS (\\Deleted)").await;
    right.store("INBOX", "8", "+FLAGS (\\Flagged)").await;
    let flags = async |imap: &mut RawImap| -> Vec<String> {
        imap.folder_facts("INBOX").await.1.iter().map(|fact| fact.flags.join(" ")).collect()
    };
    rig.store.lose();
    let report = rig.sync().await;
    let summary = MatchSummary { messages: 15, found: 15, found_elsewhere: 0, to_copy: 0, to_flag: 2 };
    assert_eq!((report.without_checkpoint, folder(&report, "INBOX").flags_updated), (Some(summary), 2), "{report:#?}");
    let expected = ["\\Seen", "\\Seen", "\\Seen", "\\Seen", "", "", "", "\\Flagged", "", ""];
    assert_eq!(flags(&mut right).await, expected);
    assert!(rig.sync().await.folders.iter().all(|f| f.unchanged));
    right.store("INBOX", "2", "-FLAGS (\\Seen)").await;
    left.store("INBOX", "5", "+FLAGS (\\Seen)").await;
    assert_eq!(folder(&rig.sync().await, "INBOX").flags_updated, 1, "the checkpoint knows what the user did");
    assert_eq!(flags(&mut right).await[1..5], ["", "\\Seen", "\\Seen", "\\Seen"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_warns_before_it_copies_and_verify_knows_what_was_moved() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.append("INBOX", &messages(0..10)).await;
    let cli = Cli::between(&source, &destination);
    cli.run("run", &["--output", "text"]).await.exits(0);
    right.command_ok("CREATE Archive").await;
    move_messages(&mut right, "INBOX", "2:4", "Archive").await;
    right.expunge("INBOX", "1").await;
    std::fs::remove_file(checkpoint_in(&cli.state())).unwrap();

    let ran = cli.run("run", &["--output", "json"]).await.exits(0);
    let place =
        |event: &str| ran.stdout.lines().position(|line| line.contains(&format!("\"event\":\"{event}\""))).unwrap();
    assert!(place("started") < place("withoutCheckpoint") && place("withoutCheckpoint") < place("finished"));
    let warned = &ran.events("withoutCheckpoint")[0];
    let numbers = ["messages", "found", "foundElsewhere", "toCopy"].map(|name| warned[name].as_u64().unwrap());
    assert_eq!(numbers, [10, 9, 3, 1], "{warned:#}");
    let text = warned["warning"].as_str().unwrap();
    assert!(text.starts_with("no checkpoint /") && text.contains("9 of 10 messages were found"), "{text}");
    let finished = &ran.events("finished")[0]["report"]["folders"][0];
    let elsewhere = serde_json::json!([{"folder": "Archive", "messages": 3, "uids": [2, 3, 4]}]);
    assert_eq!((&finished["foundElsewhere"], &finished["copiedNow"]), (&elsewhere, &serde_json::json!(1)));

    let verified = cli.run("verify", &["--output", "json"]).await.exits(0).events("verified")[0].clone();
    let inbox = &verified["report"]["folders"][0];
    let counts = ["equal", "foundElsewhere", "missing"].map(|count| inbox[count].as_u64().unwrap());
    assert_eq!(counts, [7, 3, 0], "{verified:#}");
    cli.run("verify", &["--output", "text"]).await.exits(0).says(&["INBOX: 3 messages"]);
    right.expunge("Archive", "2").await;
    let verified = cli.run("verify", &["--output", "json"]).await.exits(1).events("verified")[0].clone();
    let inbox = &verified["report"]["folders"][0];
    let counts = ["equal", "foundElsewhere", "missing"].map(|count| inbox[count].as_u64().unwrap());
    assert_eq!(counts, [7, 2, 1], "{verified:#}");

    std::fs::remove_file(checkpoint_in(&cli.state())).unwrap();
    cli.run("run", &["--output", "text", "--adopt", "folder"]).await.exits(0).says(&["alice: warning: no checkpoint"]);
    assert_eq!(count(&mut right, "INBOX").await, 10);
}
