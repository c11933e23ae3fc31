//! Nothing deleted that Mailferry did not put there, and that only on request and beyond doubt.

use mailferry::{
    Side,
    sync::{
        report::MailboxReport,
        spec::{DeletionHandling, FlagHandling},
    },
};
use mailferry_testkit::{CorpusMessage, RawImap, SharedServer, shared_server};

use crate::{
    fake::{Act, Fake, MODERN, mails},
    lesser::Lesser,
    rig::{Rig, copied, endpoint},
};

fn numbered(count: usize) -> Vec<CorpusMessage> {
    (0..count)
        .map(|n| CorpusMessage::new(format!("Message-ID: <n{n}@example.org>\r\nSubject: {n}\r\n\r\n{n}\r\n")))
        .collect()
}

/// Copied `count` messages, `adopt` of which were there before; the user has a message with \Deleted.
async fn mirrored(count: usize, adopt: usize) -> (Rig, RawImap, RawImap) {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.append("INBOX", &numbered(count)).await;
    right.append("INBOX", &numbered(adopt)).await;
    right.append("INBOX", &[CorpusMessage::new("Subject: the user's own\r\n\r\nx\r\n").flagged(&["\\Deleted"])]).await;
    let mut rig = Rig::new(&source, &destination);
    rig.spec.delete_policy = DeletionHandling::Mirror;
    assert_eq!(copied(&rig.sync().await), (count - adopt) as u64);
    (rig, left, right)
}

async fn count(imap: &mut RawImap) -> usize {
    imap.folder_facts("INBOX").await.1.len()
}

async fn has_own(imap: &mut RawImap) -> bool {
    imap.folder_facts("INBOX").await.1.iter().any(|fact| fact.flags == ["\\Deleted"])
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_stay_at_the_source_unless_asked_for() {
    let (mut rig, mut left, mut right) = mirrored(10, 0).await;
    rig.spec.delete_policy = DeletionHandling::Keep;
    left.expunge("INBOX", "1:3").await;
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, count(&mut right).await), (0, 11), "{report:#?}");
    // Asked for later, they follow though nothing else changed.
    rig.spec.delete_policy = DeletionHandling::Mirror;
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, count(&mut right).await), (3, 8), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_asked_for_later_are_seen_beside_messages_that_were_skipped() {
    let source = Fake::start(MODERN, mails(10)).await;
    source.change("INBOX", |mails| mails[9].body.resize(5000, b'x'));
    let destination = Fake::start(&format!("{MODERN} APPENDLIMIT=1000"), Vec::new()).await;
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.flag_policy = FlagHandling::Ignore;
    assert_eq!(copied(&rig.sync().await), 9);
    source.change("INBOX", |mails| drop(mails.drain(3..4)));
    rig.sync().await;
    rig.spec.delete_policy = DeletionHandling::Mirror;
    let report = rig.sync().await;
    assert_eq!(report.folders[0].deleted, 1, "{report:#?}");
    assert!(rig.sync().await.folders[0].unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_mirrored_but_never_the_users_own_mail_or_what_was_adopted() {
    let (rig, mut left, mut right) = mirrored(20, 4).await;
    left.expunge("INBOX", "3:7").await;
    let report = rig.sync().await;
    // 3 and 4 were adopted.
    assert_eq!((report.folders[0].deleted, count(&mut right).await), (3, 18), "{report:#?}");
    assert!(has_own(&mut right).await, "the user's own \\Deleted mail was expunged");
    let quiet = rig.sync().await;
    assert_eq!((quiet.folders[0].deleted, copied(&quiet)), (0, 0));
    assert!(quiet.folders.iter().all(|f| f.unchanged), "{quiet:#?}");
    left.append("INBOX", &numbered(1)).await;
    left.expunge("INBOX", "1:2").await;
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, copied(&report)), (0, 1), "{report:#?}");
    assert!(has_own(&mut right).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_implausible_share_is_not_mirrored() {
    let (rig, mut left, mut right) = mirrored(60, 0).await;
    left.expunge("INBOX", "1:30").await;
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, count(&mut right).await), (0, 61), "{report:#?}");
    assert!(report.folders[0].doubts[0].contains("30 of 60"), "{report:#?}");
    // The doubt is told again, not forgotten.
    assert_eq!(rig.sync().await.folders[0].doubts.len(), 1);
    left.expunge("INBOX", "31:60").await;
    assert!(rig.sync().await.folders[0].doubts[0].contains("60 of 60"));
    assert_eq!(count(&mut right).await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn most_of_a_small_folder_is_deleted_only_once_its_own_token_is_confirmed() {
    let (mut rig, mut left, mut right) = mirrored(10, 0).await;
    left.command_ok("CREATE Work").await;
    left.append("Work", &numbered(10)).await;
    rig.sync().await;
    for folder in ["INBOX", "Work"] {
        left.expunge(folder, "1:7").await;
    }
    let report = rig.sync().await;
    let token = |report: &MailboxReport, at: usize| report.folders[at].held_deletions.as_ref().unwrap().token.clone();
    let inbox = token(&report, 0);
    assert!(report.folders[0].doubts[0].contains(&format!("--confirm-deletions {inbox}")), "{report:#?}");
    assert_ne!(inbox, token(&report, 1), "folders with the same messages have tokens of their own");
    assert_eq!(inbox, token(&rig.sync().await, 0), "the same until something changes");
    // One more vanishes before it is confirmed: what was seen is not what would be deleted.
    left.expunge("INBOX", "8").await;
    rig.spec.confirm_deletions = [inbox].into();
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, report.folders[1].deleted), (0, 0), "{report:#?}");
    rig.spec.confirm_deletions = [token(&report, 0)].into();
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, report.folders[1].deleted), (8, 0), "{report:#?}");
    assert_eq!(report.folders[0].held_deletions, None);
    assert_eq!((count(&mut right).await, right.folder_facts("Work").await.1.len()), (3, 10));
    assert!(has_own(&mut right).await);
    // Three may always go.
    left.expunge("INBOX", "9:10").await;
    assert_eq!(rig.sync().await.folders[0].deleted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_folder_made_anew_or_gone_deletes_nothing() {
    let (rig, mut left, mut right) = mirrored(5, 0).await;
    left.command_ok("CREATE Work").await;
    left.append("Work", &numbered(10)).await;
    rig.sync().await;
    left.command_ok("DELETE Work").await;
    left.command_ok("CREATE Work").await;
    left.append("Work", &numbered(3)).await;
    let report = rig.sync().await;
    assert!(report.folders.iter().all(|f| f.deleted == 0), "{report:#?}");
    assert_eq!(right.folder_facts("Work").await.1.len(), 10);
    left.command_ok("DELETE Work").await;
    rig.sync().await;
    assert_eq!(right.folder_facts("Work").await.1.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_lists_less_than_the_folder_has_proves_nothing() {
    let account = shared_server(SharedServer::Mdbox).account();
    let mut right = account.connect().await;
    // The search leaves out what the folder still has.
    let source = Fake::twisted(MODERN, mails(10), |command, _| {
        let tag = if command.starts_with("UID SEARCH RETURN") {
            "* ESEARCH UID ALL 3:10\r\n{tag} OK done\r\n"
        } else {
            return None;
        };
        Some(Act::send(tag))
    })
    .await;
    let to = endpoint(Side::Destination, account.server.tls_port(), &account.user, &account.password);
    let mut rig = Rig::between(source.endpoint(Side::Source), to);
    rig.spec.delete_policy = DeletionHandling::Mirror;
    rig.sync().await;
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, report.folders[0].source_messages), (0, 10), "{report:#?}");
    assert_eq!(count(&mut right).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_uid_expunge_nothing_is_deleted_and_that_is_said() {
    let server = Lesser::start();
    let relay = server.relay().await;
    let account = server.dovecot.account();
    let mut right = account.connect().await;
    let source = Fake::start(MODERN, mails(10)).await;
    let mut rig = Rig::between(source.endpoint(Side::Source), relay.endpoint(&account));
    rig.spec.delete_policy = DeletionHandling::Mirror;
    rig.sync().await;
    source.change("INBOX", |mails| drop(mails.drain(2..4)));
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, count(&mut right).await), (0, 10));
    assert!(report.folders[0].doubts[0].contains("UIDPLUS"), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_close_nor_a_plain_expunge_is_ever_sent() {
    let source = Fake::start(MODERN, mails(20)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.delete_policy = DeletionHandling::Mirror;
    rig.sync().await;
    source.change("INBOX", |mails| drop(mails.drain(2..4)));
    rig.sync().await;
    let heard: Vec<String> =
        destination.server.received_commands().into_iter().chain(source.server.received_commands()).collect();
    assert!(heard.iter().any(|c| c.contains("UID EXPUNGE 3:4")), "{heard:#?}");
    for command in &heard {
        let verb = command.split(' ').nth(1).unwrap_or_default();
        assert!(!["CLOSE", "EXPUNGE", "UNSELECT", "MOVE", "COPY"].contains(&verb), "{command}");
    }
    // The source is only read.
    for command in source.server.received_commands() {
        let words: Vec<&str> = command.split(' ').skip(1).take(2).collect();
        let reads =
            ["LIST", "LSUB", "STATUS", "EXAMINE", "NOOP", "LOGOUT", "AUTHENTICATE", "CAPABILITY", "ID", "NAMESPACE"];
        assert!(reads.contains(&words[0]) || ["FETCH", "SEARCH"].contains(&words[1]), "{command}");
        assert!(!command.contains("BODY["), "{command}");
    }
}
