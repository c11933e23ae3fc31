//! Runs after the first: only what changed at the source follows, and what the user did at the destination stays.

use std::time::Duration;

use mailferry::{
    Side,
    imap::{ConnectionSecurity, TlsOptions},
    sync::spec::FlagHandling,
};
use mailferry_testkit::{
    ConnectionFault, Corpus, CorpusMessage, FaultyProxy, RawImap, SharedServer, differences,
    proxy::{BreakMode, BreakPoint, Direction},
    shared_server,
};

use crate::rig::{Rig, adopted, copied, endpoint};

fn numbered(count: usize) -> Vec<CorpusMessage> {
    (0..count)
        .map(|n| CorpusMessage::new(format!("Message-ID: <n{n}@example.org>\r\nSubject: {n}\r\n\r\n{n}\r\n")))
        .collect()
}

/// An account with INBOX filled, synced once.
async fn synced(count: usize) -> (Rig, RawImap, RawImap) {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, right) = (source.connect().await, destination.connect().await);
    left.append("INBOX", &numbered(count)).await;
    let rig = Rig::new(&source, &destination);
    assert_eq!(copied(&rig.sync().await), count as u64);
    (rig, left, right)
}

async fn flags(imap: &mut RawImap, folder: &str) -> Vec<Vec<String>> {
    imap.folder_facts(folder).await.1.into_iter().map(|fact| fact.flags).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_mail_and_flag_changes_follow_in_every_folder() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&Corpus::varied(9)).await;
    let rig = Rig::new(&source, &destination);
    rig.sync().await;
    for round in 0..3 {
        for folder in ["INBOX", "Sent", "Drafts"] {
            left.append(folder, &numbered(3)).await;
            left.store(
                folder,
                "1:2",
                if round % 2 == 0 { "+FLAGS (\\Flagged $Round)" } else { "-FLAGS (\\Flagged $Round)" },
            )
            .await;
            left.store(folder, "2", "FLAGS (\\Answered Other)").await;
        }
        left.command_ok(&format!("CREATE Made{round}")).await;
        left.append(&format!("Made{round}"), &numbered(2)).await;
        let report = rig.sync().await;
        assert_eq!(copied(&report), 11, "{report:#?}");
        assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "{report:#?}");
        let quiet = rig.sync().await;
        assert_eq!(copied(&quiet) + adopted(&quiet), 0);
        assert!(quiet.folders.iter().all(|f| f.unchanged), "{quiet:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_changed_at_the_destination_stays() {
    let (rig, mut left, mut right) = synced(6).await;
    right.store("INBOX", "1:3", "+FLAGS (\\Seen Mine)").await;
    left.store("INBOX", "2:4", "+FLAGS (\\Flagged)").await;
    let report = rig.sync().await;
    assert_eq!(report.folders[0].flags_updated, 3, "{report:#?}");
    let is = flags(&mut right, "INBOX").await;
    assert_eq!(is[0], ["Mine", "\\Seen"]);
    assert_eq!(is[1], ["Mine", "\\Flagged", "\\Seen"]);
    assert_eq!(is[3], ["\\Flagged"]);

    // Both changed the same flag: the source's change is the later one and wins; other flags of the user stay.
    right.store("INBOX", "2", "-FLAGS (\\Flagged)").await;
    right.store("INBOX", "4", "+FLAGS (\\Deleted)").await;
    left.store("INBOX", "2", "-FLAGS (\\Flagged)").await;
    left.store("INBOX", "3", "-FLAGS (\\Flagged)").await;
    left.store("INBOX", "4", "+FLAGS (\\Answered)").await;
    rig.sync().await;
    let is = flags(&mut right, "INBOX").await;
    assert_eq!(is[1], ["Mine", "\\Seen"]);
    assert_eq!(is[2], ["Mine", "\\Seen"]);
    assert_eq!(is[3], ["\\Answered", "\\Deleted", "\\Flagged"]);

    // What the user undid is not done again, since nothing changed at the source.
    right.store("INBOX", "4", "-FLAGS (\\Answered)").await;
    left.append("INBOX", &numbered(1)).await;
    rig.sync().await;
    assert_eq!(flags(&mut right, "INBOX").await[3], ["\\Deleted", "\\Flagged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_stay_as_they_were_copied_when_told_so() {
    let (mut rig, mut left, mut right) = synced(4).await;
    rig.spec.flag_policy = FlagHandling::Ignore;
    left.store("INBOX", "1:4", "+FLAGS (\\Seen)").await;
    left.append("INBOX", &[CorpusMessage::new("Subject: late\r\n\r\n").flagged(&["\\Seen"])]).await;
    rig.sync().await;
    let is = flags(&mut right, "INBOX").await;
    assert_eq!(is[..4], vec![Vec::<String>::new(); 4]);
    assert_eq!(is[4], ["\\Seen"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_deleted_or_moved_at_the_destination_is_not_copied_again() {
    let (rig, mut left, mut right) = synced(8).await;
    right.command_ok("CREATE Kept").await;
    right.select("INBOX").await;
    right.command_ok("UID MOVE 1:2 Kept").await;
    right.expunge("INBOX", "3:4").await;
    right.append("INBOX", &[CorpusMessage::new("Subject: delivered here\r\n\r\nx\r\n")]).await;
    left.append("INBOX", &numbered(1)).await;
    left.store("INBOX", "1:8", "+FLAGS (\\Seen)").await;
    let report = rig.sync().await;
    assert_eq!(copied(&report), 1, "{report:#?}");
    let (_, inbox) = right.folder_facts("INBOX").await;
    assert_eq!(inbox.len(), 6);
    assert_eq!(inbox[4].flags, Vec::<String>::new(), "the user's own mail was changed");
    let (_, kept) = right.folder_facts("Kept").await;
    assert_eq!(kept.iter().filter(|fact| fact.flags.is_empty()).count(), 2, "moved mail was changed");
    assert_eq!(copied(&rig.sync().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn adopted_mail_keeps_its_flags_and_gains_the_sources() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.append("INBOX", &numbered(4)).await;
    right.append("INBOX", &numbered(4)).await;
    left.store("INBOX", "1:2", "+FLAGS (\\Flagged \\Deleted Theirs)").await;
    right.store("INBOX", "2:3", "+FLAGS (\\Seen Mine)").await;
    let rig = Rig::new(&source, &destination);
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 4), "{report:#?}");
    let is = flags(&mut right, "INBOX").await;
    assert_eq!(is[0], ["Theirs", "\\Flagged"], "\\Deleted is the user's own decision");
    assert_eq!(is[1], ["Mine", "Theirs", "\\Flagged", "\\Seen"]);
    assert_eq!(is[2], ["Mine", "\\Seen"]);
    left.store("INBOX", "2", "-FLAGS (\\Flagged)").await;
    rig.sync().await;
    assert_eq!(flags(&mut right, "INBOX").await[1], ["Mine", "Theirs", "\\Seen"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_adopted_mail_arrive_though_the_connection_breaks_while_they_are_sent() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.append("INBOX", &numbered(4)).await;
    right.append("INBOX", &numbered(4)).await;
    left.store("INBOX", "1:2", "+FLAGS (\\Flagged)").await;
    let proxy = FaultyProxy::start(destination.server.plain_port(), Duration::ZERO);
    let mut rig = Rig::new(&source, &destination);
    rig.spec.destination = endpoint(Side::Destination, proxy.port(), &destination.user, &destination.password);
    rig.spec.destination.tls = TlsOptions { mode: ConnectionSecurity::None, ..TlsOptions::default() };
    rig.spec.connections = 1;
    let when = BreakPoint::Seen(Direction::ToServer, b"UID ST".to_vec());
    proxy.break_next([Some(ConnectionFault { when, how: BreakMode::Close })]);
    let report = rig.sync().await;
    assert_eq!((proxy.accepted(), adopted(&report)), (2, 4), "{report:#?}");
    let is = flags(&mut right, "INBOX").await;
    assert_eq!(is[..3], [vec!["\\Flagged".to_owned()], vec!["\\Flagged".to_owned()], Vec::new()], "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_made_anew_at_the_source_is_matched_not_copied_again() {
    let (rig, mut left, mut right) = synced(2).await;
    left.command_ok("CREATE Work").await;
    left.append("Work", &numbered(10)).await;
    rig.sync().await;
    left.command_ok("DELETE Work").await;
    left.command_ok("CREATE Work").await;
    // Another order, one less, one more: UIDs that mean other messages now.
    let mut again = numbered(12);
    again.reverse();
    again.pop();
    left.append("Work", &again).await;
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (2, 9), "{report:#?}");
    assert_eq!(right.folder_facts("Work").await.1.len(), 12);
    assert_eq!(copied(&rig.sync().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_made_anew_at_the_destination_gets_everything_that_is_missing() {
    let (rig, mut left, mut right) = synced(2).await;
    left.command_ok("CREATE Work").await;
    left.append("Work", &numbered(10)).await;
    rig.sync().await;
    right.command_ok("DELETE Work").await;
    right.command_ok("CREATE Work").await;
    right.append("Work", &numbered(4)).await;
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (6, 4), "{report:#?}");
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
    right.select("INBOX").await;
    right.command_ok("DELETE Work").await;
    assert_eq!(copied(&rig.sync().await), 10);
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_for_other_accounts_counts_for_nothing() {
    let (rig, mut left, _) = synced(5).await;
    let other = shared_server(SharedServer::Mdbox).account();
    let mut there = other.connect().await;
    // The same UIDVALIDITY and UIDs are quite possible.
    let mut moved = Rig::between(
        rig.spec.source.clone(),
        endpoint(Side::Destination, other.server.tls_port(), &other.user, &other.password),
    );
    moved.store = rig.store.clone();
    let report = moved.sync().await;
    assert_eq!(copied(&report), 5, "{report:#?}");
    assert!(report.notes.iter().any(|note| note.contains("other accounts")), "{report:#?}");
    assert_eq!(differences(&left.snapshot().await, &there.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_source_folder_is_followed_and_not_copied_again() {
    let (rig, mut left, mut right) = synced(2).await;
    for folder in ["Projects", "Projects/Alpha", "Projects/Alpha/Notes"] {
        left.command_ok(&format!("CREATE {folder}")).await;
        left.append(folder, &numbered(10)).await;
    }
    rig.sync().await;
    left.command_ok("RENAME Projects/Alpha Done").await;
    left.append("Done", &[CorpusMessage::new("Subject: after\r\n\r\nx\r\n")]).await;
    let report = rig.sync().await;
    assert_eq!(copied(&report), 1, "{report:#?}");
    assert_eq!(report.notes.iter().filter(|note| note.contains("was renamed to")).count(), 2, "{report:#?}");
    assert_eq!(right.folder_facts("Projects/Alpha").await.1.len(), 11);
    let quiet = rig.sync().await;
    assert_eq!(copied(&quiet) + adopted(&quiet), 0, "{quiet:#?}");
    assert!(quiet.folders.iter().all(|f| f.unchanged), "{quiet:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_folder_that_only_looks_renamed_is_copied() {
    let (rig, mut left, mut right) = synced(2).await;
    left.command_ok("CREATE Old").await;
    left.append("Old", &numbered(5)).await;
    rig.sync().await;
    left.command_ok("DELETE Old").await;
    left.command_ok("CREATE New").await;
    let other: Vec<CorpusMessage> =
        (0..5).map(|n| CorpusMessage::new(format!("Subject: other {n}\r\n\r\n{n}\r\n"))).collect();
    left.append("New", &other).await;
    let report = rig.sync().await;
    assert_eq!(copied(&report), 5, "{report:#?}");
    assert_eq!(right.folder_facts("Old").await.1.len(), 5, "a folder that is gone at the source stays");
    assert!(report.notes.iter().any(|note| note.starts_with("Old is gone from the source")), "{report:#?}");
    assert_eq!(right.folder_facts("New").await.1.len(), 5);
}
