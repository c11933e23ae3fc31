//! What the destination made of the copies is looked at: OK to an APPEND does not mean that flags, date and bytes are as
//! they were sent, or that the message is there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use mailferry::{Side, sync::report::MailboxReport};
use mailferry_testkit::{CorpusMessage, SharedServer, differences as differences_of, eventually, shared_server};

use crate::{
    fake::{Act, Change, Fake, MODERN, Mail, OLD, mails},
    rig::{Rig, copied},
};

/// The FETCH that looks at copies.
const LOOK: &str = "(UID RFC822.SIZE INTERNALDATE FLAGS)";
/// More than the sample.
const MANY: u32 = 150;

fn rig(source: &Fake, destination: &Fake) -> Rig {
    Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination))
}

/// A destination that keeps messages otherwise than they were sent.
async fn altering(alter: fn(&mut Mail)) -> Fake {
    Fake::twisted(MODERN, Vec::new(), move |command, _| command.starts_with("APPEND").then_some(Act::Alter(alter)))
        .await
}

fn differences(report: &MailboxReport) -> BTreeMap<String, u64> {
    report.folders[0].differences.clone()
}

fn not_copied(report: &MailboxReport) -> BTreeMap<String, u64> {
    report.not_copied.as_ref().unwrap().reasons.clone()
}

fn told(kind: &str, count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(kind.to_owned(), count)])
}

fn has_flag(mail: &Mail, flag: &str) -> bool {
    String::from_utf8_lossy(&mail.flags).split(' ').any(|other| other == flag)
}

#[tokio::test(start_paused = true)]
async fn copies_that_are_well_cost_one_look_at_a_sample_and_a_folder_without_copies_none() {
    for count in [3, MANY] {
        let source = Fake::start(MODERN, mails(count)).await;
        // What a reader did meanwhile is no difference.
        let destination = altering(|mail| mail.flags.extend_from_slice(b" \\Flagged \\Recent")).await;
        let rig = rig(&source, &destination);
        let report = rig.sync().await;
        assert_eq!((differences(&report), report.folders[0].flags_updated), (BTreeMap::new(), 0), "{report:#?}");
        assert_eq!((destination.heard(LOOK), destination.heard("STORE")), (1, 0), "{report:#?}");
        assert!(report.notes.is_empty(), "{report:#?}");
        rig.sync().await;
        assert_eq!(destination.heard(LOOK), 1, "nothing was copied");
    }
}

#[tokio::test(start_paused = true)]
async fn a_few_copies_are_looked_at_behind_the_last_append_and_many_after_it() {
    for (count, selects, noops) in [(3, 2, 0), (MANY, 1, 1)] {
        let source = Fake::start(MODERN, mails(count)).await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let report = rig(&source, &destination).sync().await;
        assert_eq!((copied(&report), differences(&report)), (count.into(), BTreeMap::new()), "{report:#?}");
        let heard = ["SELECT", "NOOP", LOOK].map(|command| destination.heard(command));
        assert_eq!(heard, [selects, noops, 1], "{count} copies");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_early_look_does_not_show_is_looked_at_again() {
    let answers = ["{tag} NO [UNAVAILABLE] busy\r\n", "{tag} BAD what?\r\n", "{tag} OK nothing to see\r\n"];
    for answer in answers {
        let looks = AtomicUsize::new(0);
        let source = Fake::start(MODERN, mails(3)).await;
        let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| match command {
            _ if command.starts_with("APPEND") => Some(Act::Alter(|mail| mail.flags.clear())),
            _ if command.contains(LOOK) && looks.fetch_add(1, SeqCst) == 0 => Some(Act::send(answer)),
            _ => None,
        })
        .await;
        let report = rig(&source, &destination).sync().await;
        assert_eq!((copied(&report), report.folders[0].flags_updated), (3, 3), "{answer} {report:#?}");
        assert_eq!((differences(&report), report.reconnects), (BTreeMap::new(), 0), "{answer} {report:#?}");
        assert!(destination.mails("INBOX").iter().all(|mail| has_flag(mail, "\\Seen")), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_not_opened_again_or_as_another_costs_a_connection_and_no_message() {
    let answers = [
        "{tag} NO [UNAVAILABLE] busy\r\n",
        "* 3 EXISTS\r\n* OK [UIDVALIDITY 99] new\r\n* OK [UIDNEXT 4] next\r\n{tag} OK [READ-WRITE] done\r\n",
        "* 3 EXISTS\r\n{tag} OK done\r\n",
    ];
    for answer in answers {
        let opened = AtomicUsize::new(0);
        let source = Fake::start(MODERN, mails(3)).await;
        let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
            (command.starts_with("SELECT") && opened.fetch_add(1, SeqCst) == 1).then(|| Act::send(answer))
        })
        .await;
        let report = rig(&source, &destination).sync().await;
        assert_eq!((copied(&report), differences(&report)), (3, BTreeMap::new()), "{answer} {report:#?}");
        assert_eq!(destination.mails("INBOX").len(), 3, "{answer}");
        assert_eq!(report.reconnects, 1, "{answer} {report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn flags_that_append_lost_are_set() {
    let flags = |mail: Mail| match mail.uid {
        // Keywords that only few have, far behind the sample.
        140 => mail.flagged("\\Seen $Work"),
        uid if uid % 2 == 0 => mail.flagged("\\Seen \\Flagged"),
        _ => mail.flagged(""),
    };
    let source = Fake::start(MODERN, mails(MANY).into_iter().map(flags).collect()).await;
    let destination = altering(|mail| mail.flags.clear()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((differences(&report), report.folders[0].flags_updated), (BTreeMap::new(), 75), "{report:#?}");
    let there = destination.mails("INBOX");
    assert!(there.iter().all(|mail| has_flag(mail, "\\Seen") == (mail.uid % 2 == 0)));
    assert!(there.iter().all(|mail| has_flag(mail, "$Work") == (mail.uid == 140)));
}

#[tokio::test(start_paused = true)]
async fn flags_that_only_a_later_message_has_are_looked_at_too() {
    let flags = |mail: Mail| if mail.uid == 140 { mail.flagged("\\Seen $Work") } else { mail };
    let source = Fake::start(MODERN, mails(MANY).into_iter().map(flags).collect()).await;
    let destination = altering(|mail| mail.flags = b"\\Seen".to_vec()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), BTreeMap::new(), "{report:#?}");
    assert!(has_flag(&destination.mails("INBOX")[139], "$Work"));
}

#[tokio::test(start_paused = true)]
async fn flags_that_neither_append_nor_store_keeps_are_told() {
    for answer in ["{tag} OK done\r\n", "{tag} NO [CANNOT] no flags here\r\n"] {
        let source = Fake::start(MODERN, mails(MANY)).await;
        let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| match command {
            _ if command.starts_with("APPEND") => Some(Act::Alter(|mail| mail.flags.clear())),
            _ if command.starts_with("UID STORE") => Some(Act::send(answer)),
            _ => None,
        })
        .await;
        let report = rig(&source, &destination).sync().await;
        assert_eq!(differences(&report), told("flags", MANY.into()), "{answer} {report:#?}");
        let note = &report.folders[0].difference_messages[0];
        assert!(note.uid == 1 && note.what.contains("\\Seen"), "{note:?}");
        assert_eq!(note.what.contains("no flags here"), answer.contains("no flags here"), "{note:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dates_are_compared_as_instants_and_others_are_told_of_all_copies() {
    let source = Fake::start(MODERN, mails(MANY)).await;
    let destination = altering(|mail| mail.date = "\"05-Mar-2021 10:09:10 +0200\"".to_owned()).await;
    assert_eq!(differences(&rig(&source, &destination).sync().await), BTreeMap::new());
    let destination = altering(|mail| mail.date = "\"05-Mar-2021 00:09:10 +0000\"".to_owned()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), told("internalDate", MANY.into()), "{report:#?}");
    assert_eq!(destination.mails("INBOX").len(), MANY as usize);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_counts_bytes_otherwise_changes_none() {
    let source = Fake::start(MODERN, mails(MANY)).await;
    let destination = altering(|mail| mail.size = Some(1)).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), BTreeMap::new(), "{report:#?}");
    assert_eq!((destination.heard(LOOK), destination.heard("BODY.PEEK[]")), (1, 1), "a few bodies settle it");
}

#[tokio::test(start_paused = true)]
async fn what_the_source_says_of_sizes_is_not_what_copies_are_compared_with() {
    let source = Fake::start(MODERN, mails(20).into_iter().map(|mail| Mail { size: Some(40), ..mail }).collect()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), BTreeMap::new(), "{report:#?}");
    assert_eq!(destination.heard("BODY.PEEK[]"), 0);
}

#[tokio::test(start_paused = true)]
async fn lines_that_the_destination_adds_are_told_of_all_copies() {
    let source = Fake::start(MODERN, mails(MANY)).await;
    let destination = altering(|mail| mail.body.extend_from_slice(b"Scanned and found clean.\r\n")).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), told("content", MANY.into()), "{report:#?}");
    // Where only some are changed, each is looked at.
    let some = |mail: &mut Mail| match mail.uid % 3 {
        0 => mail.body.extend_from_slice(b"Scanned and found clean.\r\n"),
        _ => mail.size = Some(1),
    };
    let destination = altering(some).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), told("content", u64::from(MANY) / 3), "{report:#?}");
}

fn eight_bit(count: u32) -> Vec<Mail> {
    let body =
        |uid| [format!("Message-ID: <{uid}@a>\r\nSubject: ").as_bytes(), b"Gr\xfc\xdfe\r\n\r\nbody\r\n"].concat();
    (1..=count).map(|uid| Mail::new(uid, body(uid))).collect()
}

#[tokio::test(start_paused = true)]
async fn masked_bytes_in_headers_are_told_though_the_size_is_the_same() {
    let source = Fake::start(MODERN, eight_bit(12)).await;
    let mask = |mail: &mut Mail| mail.body.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'X');
    let destination = altering(mask).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), told("content", 12), "{report:#?}");
    assert!(report.folders[0].difference_messages[0].what.contains("8-bit"), "{report:#?}");

    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), BTreeMap::new(), "{report:#?}");
    assert!(destination.heard("UID FETCH 1:5 (UID BODY.PEEK[])") == 1, "{:?}", destination.server.received_commands());
    assert_eq!(destination.heard("BODY.PEEK[]"), 1, "the first few are enough");
}

#[tokio::test(start_paused = true)]
async fn what_the_destination_makes_of_messages_without_a_proper_header_is_told() {
    let odd: [&[u8]; 4] = [b"x", b"From a@b Mon\r\nSubject: m\r\n\r\nx\r\n", b"no colon\r\n\r\nx\r\n", b"A: b\r\n"];
    let odd = |from: u32| (from..).zip(odd).map(|(uid, body)| Mail::new(uid, body)).collect::<Vec<_>>();
    // Behind more than the sample, and behind others that are read back.
    let source = Fake::start(MODERN, [mails(MANY), odd(MANY + 1), odd(MANY + 5)].concat()).await;
    source.change("INBOX", |all| {
        for mail in all.iter_mut().take(10) {
            mail.body = [b"Subject: Gr\xfc\xdfe\r\n", &mail.body[..]].concat();
        }
    });
    // As go-imap: it lists as many bytes and delivers none.
    let keeps_nothing = |mail: &mut Mail| {
        if !mail.body.windows(4).any(|end| end == b"\r\n\r\n")
            || mail.body.starts_with(b"From ")
            || mail.body.starts_with(b"no ")
        {
            mail.size = Some(mail.body.len() as u64);
            mail.body.clear();
        }
    };
    let report = rig(&source, &altering(keeps_nothing).await).sync().await;
    assert_eq!(differences(&report), told("content", 8), "{report:#?}");
    // As GreenMail: it adds a line, and counts bytes otherwise.
    let adds_a_line = |mail: &mut Mail| {
        mail.size = Some(1);
        if mail.body == b"A: b\r\n" {
            mail.body.extend_from_slice(b"\r\n");
        }
    };
    let report = rig(&source, &altering(adds_a_line).await).sync().await;
    assert_eq!(differences(&report), told("content", 2), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn bare_line_ends_far_behind_the_sample_that_the_destination_changes_are_told() {
    let mut all = mails(MANY);
    all.push(Mail::new(MANY + 1, "Subject: a\n\nx\n"));
    let source = Fake::start(MODERN, all).await;
    let destination = altering(|mail| {
        if mail.body == b"Subject: a\n\nx\n" {
            mail.body = b"Subject: a\r\n\r\nx\r\n".to_vec();
        }
    })
    .await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(differences(&report), told("content", 1), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_taken_and_is_not_shown_counts_as_not_copied_and_is_not_sent_again() {
    let source = Fake::start(MODERN, mails(10)).await;
    let destination = Fake::twisted(MODERN, Vec::new(), |command, _| {
        let lost = command.starts_with("APPEND") && command.contains("FAKE-10@");
        lost.then(|| Act::send("{tag} OK [APPENDUID 7 10] done\r\n"))
    })
    .await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    assert_eq!((not_copied(&report), differences(&report)), (told("missing", 1), told("missing", 1)), "{report:#?}");
    let note = &report.folders[0].difference_messages[0];
    assert!(note.uid == 10 && note.what.contains("does not show it"), "{note:?}");
    assert_eq!(destination.mails("INBOX").len(), 9);
    // Its UID was given, as the next message shows.
    destination.change("INBOX", |mails| mails.push(Mail::new(11, "Message-ID: <other@a>\r\n\r\nother\r\n")));
    let appends = destination.heard("APPEND");
    assert_eq!(copied(&rig.sync().await), 0);
    assert_eq!(destination.heard("APPEND"), appends);
}

#[tokio::test(start_paused = true)]
async fn one_message_of_many_that_was_taken_and_is_not_shown_is_found() {
    const MOST: u32 = 400;
    let source = Fake::start(MODERN, mails(MOST)).await;
    // Neither among the first nor the last: no sample is likely to have it.
    let destination = Fake::twisted(MODERN, Vec::new(), |command, _| {
        let lost = command.starts_with("APPEND") && command.contains("FAKE-177@");
        lost.then(|| Act::send("{tag} OK [APPENDUID 7 5000] done\r\n"))
    })
    .await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((not_copied(&report), differences(&report)), (told("missing", 1), told("missing", 1)), "{report:#?}");
    assert_eq!(report.folders[0].difference_messages[0].uid, 177);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_at_is_told_once() {
    let source = Fake::start(MODERN, mails(10)).await;
    let refuses = |command: &str, _| command.contains(LOOK).then(|| Act::send("{tag} NO not now\r\n"));
    let destination = Fake::twisted(MODERN, Vec::new(), refuses).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((report.notes.len(), differences(&report)), (1, BTreeMap::new()), "{report:#?}");
    assert!(report.notes[0].starts_with("INBOX: ") && report.notes[0].contains("FETCH"), "{report:#?}");

    let closes = |command: &str, _| command.contains(LOOK).then(|| Act::Bye(Vec::new()));
    let destination = Fake::twisted(MODERN, Vec::new(), closes).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((report.notes.len(), copied(&report)), (1, 10), "{report:#?}");
    assert_eq!(destination.mails("INBOX").len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_append_into_another_uidvalidity_is_in_doubt_and_loses_and_doubles_nothing() {
    for (wrong, stores) in [(1, true), (1, false), (usize::MAX, true)] {
        let source = Fake::start(MODERN, mails(40)).await;
        let count = AtomicUsize::new(0);
        let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
            let hit = command.starts_with("APPEND") && count.fetch_add(1, SeqCst) < wrong;
            let answer = b"{tag} OK [APPENDUID 8 1] done\r\n".to_vec();
            hit.then_some(if stores { Act::Covertly(answer) } else { Act::Send(answer) })
        })
        .await;
        let report = rig(&source, &destination).sync().await;
        let mut there: Vec<Vec<u8>> = destination.mails("INBOX").into_iter().map(|mail| mail.body).collect();
        let mut wanted: Vec<Vec<u8>> = mails(40).into_iter().map(|mail| mail.body).collect();
        there.sort();
        wanted.sort();
        assert_eq!(there, wanted, "{wrong} {stores} {report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_taken_as_anothers_uid_and_is_nowhere_is_told() {
    // What is not stored is told the UID of what is stored next.
    let pretends: [fn(usize) -> bool; 2] = [|at| at == 2, |_| true];
    for (pretends, missing) in pretends.into_iter().zip([1, 5]) {
        let source = Fake::start(MODERN, mails(5)).await;
        let count = AtomicUsize::new(0);
        let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
            let hit = command.starts_with("APPEND") && pretends(count.fetch_add(1, SeqCst));
            hit.then(|| Act::Pretend(Change::new(|_| {})))
        })
        .await;
        let report = rig(&source, &destination).sync().await;
        assert_eq!(not_copied(&report), told("missing", missing), "{report:#?}");
        if missing == 1 {
            assert_eq!(report.folders[0].difference_messages[0].uid, 3, "{report:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_appended_to_a_folder_of_this_run_is_looked_for_where_its_uidvalidity_changed() {
    let source = Fake::start(MODERN, Vec::new()).await;
    source.change("Work", |folder| *folder = mails(12));
    let count = AtomicUsize::new(0);
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        let hit = command.starts_with("SELECT \"WORK\"") && count.fetch_add(1, SeqCst) == 0;
        hit.then(|| {
            Act::Retell(Change::new(|answer: &mut Vec<u8>| {
                *answer = String::from_utf8_lossy(answer).replace("UIDVALIDITY 7", "UIDVALIDITY 8").into_bytes();
            }))
        })
    })
    .await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!(destination.mails("Work").len(), 12, "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn flags_that_append_lost_are_set_where_the_destination_tells_no_uids() {
    let source = Fake::start(MODERN, mails(12)).await;
    let lossy = |command: &str, _| command.starts_with("APPEND").then_some(Act::Alter(|mail| mail.flags.clear()));
    let destination = Fake::twisted(OLD, Vec::new(), lossy).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((differences(&report), report.folders[0].flags_updated), (BTreeMap::new(), 12), "{report:#?}");
    assert!(destination.mails("INBOX").iter().all(|mail| has_flag(mail, "\\Seen")));
    assert!(report.notes.is_empty(), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn flags_follow_once_copies_are_found_of_which_the_destination_told_no_uids() {
    let source = Fake::start(MODERN, mails(5)).await;
    let (destination, refuses) = Fake::refusing_fetches(OLD).await;
    let rig = rig(&source, &destination);
    rig.try_sync().await;
    for (refusing, flag, differs) in [(true, "\\Flagged", true), (false, "\\Answered", false)] {
        refuses.store(refusing, SeqCst);
        source.change("INBOX", |mails| mails[2].flags.extend_from_slice(format!(" {flag}").as_bytes()));
        let report = rig.try_sync().await;
        let has = has_flag(&destination.mails("INBOX")[2], flag);
        assert!(
            has || differs && (report.gravest_error().is_some() || differences(&report) == told("flags", 1)),
            "{report:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_that_keeps_everything_is_told_nothing_of() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let mut left = source.connect().await;
    let message =
        |n: u32| CorpusMessage::new([format!("Subject: {n} ").as_bytes(), b"Gr\xfc\xdfe\r\n\r\nbody\r\n"].concat());
    left.append("INBOX", &(1..=MANY).map(message).collect::<Vec<_>>()).await;
    left.command_ok("SELECT INBOX").await;
    left.command_ok("UID STORE 1:120 +FLAGS (\\Seen $Work)").await;
    let report = Rig::new(&source, &destination).sync().await;
    assert_eq!((differences(&report), report.notes.len()), (BTreeMap::new(), 0), "{report:#?}");
    let mut right = destination.connect().await;
    assert_eq!(differences_of(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn messages_that_were_taken_and_are_nowhere_are_told_where_the_destination_tells_no_uids() {
    // Of those that are there nobody knows which they are where they are not as they were sent.
    for (stores, alter, missing, doubts) in [
        (0, None, told("missing", 5), 0),
        (2, None, told("missing", 3), 0),
        (2, Some(Act::Alter(|mail| mail.body.extend_from_slice(b"scanned\r\n"))), BTreeMap::new(), 1),
    ] {
        let source = Fake::start(MODERN, mails(5)).await;
        let count = AtomicUsize::new(0);
        let destination = Fake::twisted(OLD, Vec::new(), move |command, _| match command.starts_with("APPEND") {
            true if count.fetch_add(1, SeqCst) >= stores => Some(Act::Pretend(Change::new(|_| {}))),
            true => alter.clone(),
            false => None,
        })
        .await;
        let report = rig(&source, &destination).sync().await;
        assert_eq!((not_copied(&report), report.folders[0].doubts.len()), (missing, doubts), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_a_run_did_not_live_to_look_at_are_looked_for_by_the_next() {
    let source = Fake::start(MODERN, mails(10)).await;
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        if command.starts_with("APPEND") && command.contains("FAKE-5@") {
            return Some(Act::send("{tag} OK [APPENDUID 7 50] done\r\n"));
        }
        (command.contains(LOOK) && counted.fetch_add(1, SeqCst) == 0).then_some(Act::Stall)
    })
    .await;
    let rig = rig(&source, &destination);
    tokio::select! {
        report = rig.try_sync() => panic!("{report:#?}"),
        () = eventually("all copies are in the checkpoint", async || {
            let copied = rig.store.checkpoint().and_then(|c| Some(c.folders.get(b"INBOX".as_slice())?.map.len()));
            if copied == Some(10) && looks.load(SeqCst) > 0 { Ok(()) } else { Err(format!("{copied:?}")) }
        }) => {}
    }
    destination.change("INBOX", |mails| mails.push(Mail::new(51, "Message-ID: <other@a>\r\n\r\nother\r\n")));
    let report = rig.sync().await;
    assert_eq!((differences(&report), copied(&report)), (told("missing", 1), 0), "{report:#?}");
    assert_eq!(report.folders[0].difference_messages[0].uid, 5);
    assert_eq!(differences(&rig.sync().await), BTreeMap::new(), "told once");
}
