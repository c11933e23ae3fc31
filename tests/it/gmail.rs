//! A source that shows labels as folders, as Gmail does: a message stands in each folder whose label it has, and in All
//! Mail; what was archived stands in All Mail alone.

use std::collections::BTreeMap;

use mailferry::Side;
use serde_json::json;

use crate::{
    cli::{Cli, server_with},
    fake::{Act, Change, Fake, MODERN, Mail, mails},
    rig::{Rig, copied},
};

const GMAIL: &str = "IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID CHILDREN X-GM-EXT-1 UIDPLUS CONDSTORE ESEARCH SPECIAL-USE AUTH=PLAIN SASL-IR";
const ALL: &str = "[Gmail]/Alle Nachrichten";

/// Special uses as Gmail announces them, in an account in German.
fn announce(answer: &mut Vec<u8>) {
    let mut text = String::from_utf8(std::mem::take(answer)).unwrap();
    for (folder, attributes) in [
        (ALL, "\\HasNoChildren \\All"),
        ("[Gmail]/Gesendet", "\\HasNoChildren \\Sent"),
        ("[Gmail]/Markiert", "\\HasNoChildren \\Flagged"),
        ("[Gmail]/Wichtig", "\\HasNoChildren \\Important"),
    ] {
        text = text.replace(&format!("LIST () \"/\" \"{folder}\""), &format!("LIST ({attributes}) \"/\" \"{folder}\""));
    }
    *answer = text.into_bytes();
}

/// `count` messages with three labels each, and `archived` ones with none. Of the first ten each is starred and important.
async fn gmail(count: u32, archived: u32) -> Fake {
    let source = Fake::twisted(GMAIL, Vec::new(), |command, _| {
        command.starts_with("LIST").then(|| Act::Retell(Change::new(announce)))
    })
    .await;
    let all = mails(count + archived);
    let labelled = || all.iter().take(count as usize).cloned();
    // UIDs are a folder's own.
    let renumbered = |mails: Vec<Mail>| (1..).zip(mails).map(|(uid, mail)| Mail { uid, ..mail }).collect::<Vec<_>>();
    let part = |rest: u32| labelled().filter(|mail| mail.uid % 2 == rest).collect::<Vec<_>>();
    for (folder, mails) in [
        ("INBOX", part(0)),
        ("[Gmail]/Gesendet", part(1)),
        ("Kunden/Müller".replace('ü', "&APw-").as_str(), labelled().collect()),
        ("Projekte", labelled().collect()),
        (ALL, all.clone()),
        ("[Gmail]/Markiert", labelled().take(10).collect()),
        ("[Gmail]/Wichtig", labelled().take(10).collect()),
        ("[Gmail]/Chats", self::mails(3)),
    ] {
        source.change(folder, |there| *there = renumbered(mails));
    }
    source
}

fn rig(source: &Fake, destination: &Fake) -> Rig {
    Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination))
}

fn bodies(mails: &[Mail]) -> BTreeMap<Vec<u8>, usize> {
    let mut bodies = BTreeMap::new();
    for mail in mails {
        *bodies.entry(mail.body.clone()).or_default() += 1;
    }
    bodies
}

#[tokio::test(start_paused = true)]
async fn archived_mail_goes_to_the_archive_and_what_folders_hold_does_not_go_there_again() {
    let source = gmail(90, 25).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    let archived: Vec<Mail> = source.mails(ALL).split_off(90);
    assert_eq!(bodies(&destination.mails("Archive")), bodies(&archived), "{report:#?}");
    for (folder, there) in [("INBOX", 45), ("Kunden/M&APw-ller", 90), ("Projekte", 90)] {
        assert_eq!(destination.mails(folder).len(), there, "{folder}");
    }
    assert_eq!(copied(&report), 45 + 45 + 90 + 90 + 25);
    assert_eq!(report.not_copied.as_ref().map(|not_copied| not_copied.messages), Some(0), "{report:#?}");
    let all = report.folders.iter().find(|folder| folder.source == ALL).unwrap();
    assert_eq!((all.copied_now, all.left_out.get("in other folders, too")), (25, Some(&90)), "{all:#?}");
    let left: Vec<_> = report.left_out.iter().map(|left| (left.folder.as_str(), left.not_elsewhere)).collect();
    assert_eq!(left, [("[Gmail]/Chats", None), ("[Gmail]/Markiert", Some(0)), ("[Gmail]/Wichtig", Some(0))]);

    let read = source.heard("BODY.PEEK[]");
    let report = rig.sync().await;
    assert_eq!((copied(&report), source.heard("BODY.PEEK[]") - read), (0, 0), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_archived_after_a_sync_follows_and_what_is_new_in_a_folder_does_not() {
    let source = gmail(20, 5).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    // It had no label but INBOX; and a new one comes.
    let only_inbox = Mail { uid: 90, ..Mail::new(90, "Message-ID: <90@example.org>\r\n\r\nonly in the inbox\r\n") };
    let stays = Mail { uid: 91, ..Mail::new(91, "Message-ID: <91@example.org>\r\n\r\nstays there\r\n") };
    for folder in ["INBOX", ALL] {
        source.change(folder, |mails| mails.extend([only_inbox.clone(), stays.clone()]));
    }
    assert_eq!(copied(&rig.sync().await), 2);
    assert_eq!(destination.mails("Archive").len(), 5);
    source.change("INBOX", |mails| mails.retain(|mail| mail.uid != 90));
    assert_eq!(copied(&rig.sync().await), 1);
    assert_eq!(destination.mails("Archive").last().unwrap().body, only_inbox.body);
    assert_eq!(copied(&rig.sync().await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_the_user_leaves_out_is_not_taken_for_archived_mail() {
    let source = gmail(20, 5).await;
    source.change("Werbung", |mails| mails.push(Mail::new(1, "Message-ID: <a@b>\r\n\r\nbuy\r\n")));
    source.change(ALL, |mails| mails.push(Mail::new(90, "Message-ID: <a@b>\r\n\r\nbuy\r\n")));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = rig(&source, &destination);
    rig.spec.folders.exclude = vec![mailferry::sync::spec::FolderPattern::parse("Werbung").unwrap()];
    let report = rig.sync().await;
    assert_eq!(destination.mails("Archive").len(), 5, "{report:#?}");
    assert!(destination.mails("Werbung").is_empty());
}

#[tokio::test(start_paused = true)]
async fn where_the_numbers_of_messages_are_refused_the_other_folders_are_copied_and_it_is_no_success() {
    let source = Fake::twisted(GMAIL, Vec::new(), |command, _| {
        let refused = command.contains("X-GM-MSGID").then(|| Act::send("{tag} NO not today\r\n"));
        refused.or_else(|| command.starts_with("LIST").then(|| Act::Retell(Change::new(announce))))
    })
    .await;
    for folder in ["INBOX", ALL] {
        source.change(folder, |there| *there = mails(7));
    }
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).try_sync().await;
    assert_eq!((copied(&report), destination.mails("Archive").len()), (7, 0), "{report:#?}");
    let error = report.gravest_error().expect("what was archived is not known");
    assert_eq!(error.folder.as_deref(), Some(ALL), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_expects_archived_mail_in_the_archive_and_misses_what_is_gone_there() {
    let source = gmail(20, 5).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let at = |fake: &Fake| server_with("127.0.0.1", fake.server.port(), "None");
    let account = ("anybody", "at all, says the fake");
    let cli = Cli::new(at(&source), at(&destination)).mailbox("alice", account, account);
    cli.run("run", &[]).await.exits(0);
    cli.run("verify", &[]).await.exits(0);
    destination.change("Archive", |mails| {
        mails.pop();
    });
    let verified = cli.run("verify", &["--output", "json"]).await.exits(1);
    let folders = verified.events("verified")[0]["report"]["folders"].clone();
    let archive = folders.as_array().unwrap().iter().find(|folder| folder["destination"] == json!("Archive")).unwrap();
    assert_eq!((&archive["missing"], &archive["sourceMessages"]), (&json!(1), &json!(5)), "{archive:#}");
}
