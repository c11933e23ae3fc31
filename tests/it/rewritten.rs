//! Destinations that keep messages otherwise than they were sent: without a checkpoint their copies are known again, told,
//! and nothing else is taken for one.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use mailferry::{
    Side,
    imap::ServerKind,
    sync::{checkpoint::Checkpoint, report::MailboxReport},
};

use crate::{
    fake::{Act, Fake, MODERN, Mail, mails},
    rig::{Rig, adopted, copied},
};

/// Not that of any message.
const OTHER_DATE: &str = "\"01-Jan-2030 00:00:00 +0000\"";

fn rig(source: &Fake, destination: &Fake) -> Rig {
    Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination))
}

/// What a destination makes of a message.
type Alteration = fn(&mut Mail);

/// A destination that keeps messages so changed.
async fn altering(alter: Alteration) -> Fake {
    Fake::twisted(MODERN, Vec::new(), move |command, _| command.starts_with("APPEND").then_some(Act::Alter(alter)))
        .await
}

/// Some ordinary messages, and this one.
fn mails_and(body: &[u8]) -> Vec<Mail> {
    let mut all = mails(5);
    all.push(Mail::new(6, body).dated("\"06-Mar-2021 08:09:10 +0000\""));
    all
}

fn differences(report: &MailboxReport) -> BTreeMap<String, u64> {
    report.folders[0].differences.clone()
}

fn told(kinds: &[(&str, u64)]) -> BTreeMap<String, u64> {
    kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

fn replaced(body: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8_lossy(body).replace(from, to).into_bytes()
}

/// Syncs, loses the checkpoint, syncs again: nothing is copied twice, and that run tells these differences.
async fn is_known_again(source: &[u8], alter: Alteration, kinds: &[(&str, u64)]) {
    let source = Fake::start(MODERN, mails_and(source)).await;
    let destination = altering(alter).await;
    let rig = rig(&source, &destination);
    assert_eq!(copied(&rig.sync().await), 6);
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 6), "{report:#?}");
    assert_eq!(destination.mails("INBOX").len(), 6);
    assert_eq!(differences(&report), told(kinds), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn another_date_is_told_and_no_reason_to_copy_again() {
    let nameless = b"Subject: a\r\n\r\nx\r\n";
    is_known_again(nameless, |mail| mail.date = OTHER_DATE.to_owned(), &[("internalDate", 6)]).await;
    // Neither size nor date is that of the message.
    let counts_otherwise = |mail: &mut Mail| {
        mail.date = OTHER_DATE.to_owned();
        mail.size = Some(1);
    };
    is_known_again(nameless, counts_otherwise, &[("internalDate", 6)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_known_again_in_loose_form() {
    let rewritten: [(&[u8], Alteration); 4] = [
        (b"Subject: Gr\xfc\xdfe\r\n\r\nx\r\n", |mail| {
            mail.body = String::from_utf8_lossy(&mail.body).into_owned().into();
        }),
        (b"no header at all\r\n", |mail| {
            if mail.body.starts_with(b"no header") {
                mail.body.splice(0..0, *b"\r\n");
            }
        }),
        (b"Subject: a\r\n\r\none\rtwo\r\n", |mail| mail.body = replaced(&mail.body, "one\rtwo", "one\r\ntwo")),
        (b"From a@b Mon Jan  1 00:00:00 2001\r\nSubject: a\r\n\r\nx\r\n", |mail| {
            if mail.body.starts_with(b"From a@b ") {
                mail.body.drain(..35);
            }
        }),
    ];
    for (source, alter) in rewritten {
        is_known_again(source, alter, &[("content", 1)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_destination_lists_and_does_not_deliver_is_not_copied_again() {
    let loses = |mail: &mut Mail| {
        if mail.body.starts_with(b"no header") {
            mail.size = Some(mail.body.len() as u64);
            mail.body.clear();
        }
    };
    is_known_again(b"no header at all\r\n", loses, &[("content", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn where_messages_are_seen_to_be_rewritten_message_id_and_date_are_enough() {
    let body = |uid| format!("Message-ID: <{uid}@example.org>\r\nSubject: a\r\n\r\none\rtwo {uid}\r\n");
    let dated = |uid: u32| Mail::new(uid, body(uid)).dated(&format!("\"05-Mar-2021 08:09:{:02} +0000\"", uid + 10));
    let source = Fake::start(MODERN, (1..=8).map(dated).collect()).await;
    let destination = altering(|mail| {
        mail.body = replaced(&mail.body, "one\rtwo", "one\r\ntwo");
        if mail.uid == 8 {
            mail.body = replaced(&mail.body, "one", "ONE");
        }
    })
    .await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 8), "{report:#?}");
    assert_eq!(differences(&report), told(&[("content", 8)]), "{report:#?}");
}

/// A message that was delivered to the source.
fn delivered(uid: u32) -> Mail {
    let body = format!("Received: by {uid}\r\nMessage-ID: <{uid}@example.org>\r\nSubject: a\r\n\r\n{uid}\r\n");
    Mail::new(uid, body).dated(&format!("\"05-Mar-2021 08:{:02}:{:02} +0000\"", uid / 60, uid % 60))
}

/// A destination that marks all that it stores.
async fn scanning() -> Fake {
    altering(|mail| mail.body = [b"X-Scanned: yes\r\n", &mail.body[..]].concat()).await
}

#[tokio::test(start_paused = true)]
async fn a_lost_checkpoint_doubles_nothing_where_all_messages_are_rewritten() {
    let source = Fake::start(MODERN, (1..=100).map(delivered).collect()).await;
    let destination = scanning().await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 100), "{report:#?}");
    assert_eq!(differences(&report), told(&[("content", 100)]), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn under_the_preset_of_a_server_that_rewrites_one_message_is_enough() {
    let source = Fake::start(MODERN, vec![delivered(1)]).await;
    let destination = altering(|mail| mail.body = replaced(&mail.body, "Received: by 1", "Received: by x")).await;
    let mut rig = rig(&source, &destination);
    rig.spec.destination.quirks = ServerKind::Exchange;
    rig.sync().await;
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (0, 1), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_doubles_nothing_where_messages_are_rewritten() {
    for copied_before in [0, 1, 5] {
        let source = Fake::start(MODERN, (1..=copied_before).map(delivered).collect()).await;
        let destination = scanning().await;
        let rig = rig(&source, &destination);
        rig.sync().await;
        let mut saved = rig.store.checkpoint().unwrap();
        source.change("INBOX", |mails| mails.extend((copied_before + 1..=40).map(delivered)));
        rig.sync().await;
        // What was known before the last APPENDs is all that was saved.
        for state in saved.folders.values_mut() {
            state.append_in_doubt = true;
            state.settled = None;
        }
        rig.store.set(&saved);
        let report = rig.sync().await;
        assert_eq!(copied(&report), 0, "{copied_before}: {report:#?}");
        assert_eq!(destination.mails("INBOX").len(), 40);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_destination_with_the_same_message_id_and_date_is_no_copy() {
    let source = Fake::start(MODERN, mails(5)).await;
    let delivered = mails(5)
        .into_iter()
        .map(|mail| Mail { body: [b"Received: by another way\r\n", &mail.body[..]].concat(), ..mail });
    let destination = Fake::start(MODERN, delivered.collect()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((copied(&report), adopted(&report)), (5, 0), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_messages_that_look_like_one_copy_both_are_copied_and_that_is_told() {
    let body = |space: &str| format!("Subject: a\r\n\r\none{space}two\r\n");
    let source = Fake::start(MODERN, vec![Mail::new(1, body(" ")), Mail::new(2, body("\r"))]).await;
    let destination = Fake::start(MODERN, vec![Mail::new(1, body("\r\n"))]).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((copied(&report), adopted(&report)), (2, 0), "{report:#?}");
    assert!(report.notes.iter().any(|note| note.contains("look like copies")), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn each_body_is_read_once_however_often_it_is_looked() {
    let nameless = |uid| Mail::new(uid, format!("Subject: a\r\n\r\n{uid}\r\n"));
    let source = Fake::start(MODERN, (1..=20).map(nameless).collect()).await;
    let destination = altering(|mail| mail.date = OTHER_DATE.to_owned()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    rig.store.lose();
    source.change("INBOX", |mails| mails.push(nameless(21)));
    let before = (source.heard("BODY.PEEK[])"), destination.heard("BODY.PEEK[])"));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 20), "{report:#?}");
    let after = (source.heard("BODY.PEEK[])"), destination.heard("BODY.PEEK[])"));
    assert!(after.0 - before.0 <= 3 && after.1 - before.1 <= 2, "{before:?} {after:?}");
}

/// A destination that takes no LF without CR, as Cyrus.
async fn strict() -> Fake {
    Fake::twisted(MODERN, Vec::new(), |command, _| {
        let is_bare = command.starts_with("APPEND") && command.replace("\r\n", "").contains('\n');
        is_bare.then(|| Act::send("{tag} NO Message contains bare newlines\r\n"))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_refuses_bare_line_feeds_gets_crlf_and_that_is_told() {
    let bare = |mail: Mail| Mail { body: replaced(&mail.body, "\r\n", "\n"), ..mail };
    for some in [false, true] {
        let is_bare = |mail: &Mail| !some || mail.uid.is_multiple_of(3);
        let all = mails(30).into_iter().map(|mail| if is_bare(&mail) { bare(mail) } else { mail });
        let source = Fake::start(MODERN, all.collect()).await;
        let destination = strict().await;
        let rig = rig(&source, &destination);
        let report = rig.sync().await;
        let changed = if some { 10 } else { 30 };
        assert_eq!((copied(&report), report.folders[0].differences["content"]), (30, changed), "{report:#?}");
        let mut bodies: Vec<_> = destination.mails("INBOX").into_iter().map(|mail| mail.body).collect();
        let mut sent: Vec<_> = mails(30).into_iter().map(|mail| mail.body).collect();
        bodies.sort();
        sent.sort();
        assert_eq!(bodies, sent);
        assert_eq!(copied(&rig.sync().await), 0);
        rig.store.lose();
        let report = rig.sync().await;
        assert_eq!((copied(&report), adopted(&report)), (0, 30), "{report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bare_line_feeds_are_repaired_though_their_batch_was_refused_for_another_message() {
    let mut all = mails(20);
    all[3].body = b"no colon\r\n\r\nx\r\n".to_vec();
    all[9].body = b"Subject: lf\r\n\r\na\nb\n".to_vec();
    let source = Fake::start(MODERN, all).await;
    let destination = Fake::twisted(&format!("{MODERN} MULTIAPPEND"), Vec::new(), |command, _| {
        let refusal = match command {
            _ if !command.starts_with("APPEND") => return None,
            _ if command.contains("NO COLON") => "{tag} NO Message contains invalid header\r\n",
            _ if command.contains("A\nB\n") => "{tag} NO Message contains bare newlines\r\n",
            _ => return None,
        };
        Some(Act::send(refusal))
    })
    .await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((copied(&report), &report.folders[0].skipped["refused"]), (19, &1), "{report:#?}");
    assert!(destination.mails("INBOX").iter().any(|mail| mail.body.ends_with(b"a\r\nb\r\n")), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn line_ends_stay_as_they_are_where_nobody_refuses_them() {
    let bare = |mail: Mail| Mail { body: replaced(&mail.body, "\r\n", "\n"), ..mail };
    let source = Fake::start(MODERN, mails(3).into_iter().map(bare).collect()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), BTreeMap::new(), "{report:#?}");
    assert!(destination.mails("INBOX").iter().all(|mail| !mail.body.contains(&b'\r')));
}

/// A destination that makes `dot/ted` of `dot.ted`, and lists it only once it was asked for.
async fn renaming() -> Fake {
    let lists = AtomicUsize::new(0);
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| match command {
        "LIST \"\" \"*\"" if lists.fetch_add(1, SeqCst) == 0 => {
            Some(Act::send("* LIST () \"/\" \"INBOX\"\r\n{tag} OK done\r\n"))
        }
        "LSUB \"\" \"*\"" => Some(Act::send("* LSUB () \"/\" \"INBOX\"\r\n{tag} OK done\r\n")),
        _ if command.starts_with("CREATE") => Some(Act::send("{tag} OK made\r\n")),
        _ => None,
    })
    .await;
    destination.change("dot/ted", Vec::clear);
    destination
}

#[tokio::test(start_paused = true)]
async fn a_folder_is_told_by_the_name_that_the_destination_lists() {
    let source = Fake::start(MODERN, mails(1)).await;
    source.change("dot.ted", |all| *all = mails(3));
    let destination = renaming().await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    let folder = report.folders.iter().find(|folder| folder.source == "dot.ted").unwrap();
    assert_eq!((folder.destination.as_str(), folder.copied_now), ("dot/ted", 3), "{report:#?}");
    assert!(report.notes.iter().any(|note| note.contains("dot.ted") && note.contains("\"dot/ted\"")), "{report:#?}");
    let lost = "dot/ted: the destination said that it subscribed to it, and does not list it so";
    assert!(report.notes.iter().any(|note| note == lost), "{report:#?}");
    assert_eq!(destination.heard("SUBSCRIBE \"dot/ted\""), 1);
    let mapping = rig.store.checkpoint().map(|checkpoint: Checkpoint| checkpoint.mapping).unwrap();
    assert_eq!(mapping[&b"dot.ted"[..]], b"dot/ted");
    let again = rig.sync().await;
    assert_eq!(copied(&again), 0, "{again:#?}");
}

#[tokio::test(start_paused = true)]
async fn two_folders_never_become_one_by_the_name_that_the_destination_lists() {
    let source = Fake::start(MODERN, mails(1)).await;
    source.change("dot.ted", |all| *all = mails(3));
    source.change("dot/ted", |all| *all = mails(2));
    let destination = renaming().await;
    let report = rig(&source, &destination).try_sync().await;
    let folder = |name: &str| report.folders.iter().find(|folder| folder.source == name).unwrap();
    assert!(
        folder("dot.ted").error.as_ref().is_some_and(|error| error.what.contains("does not list it")),
        "{report:#?}"
    );
    assert_eq!((folder("dot/ted").copied_now, destination.mails("dot/ted").len()), (2, 2), "{report:#?}");
}
