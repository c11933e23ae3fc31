//! Servers that do what no well-behaved one does: whatever they say, nothing hangs, breaks, is lost or doubled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::future::join_all;
use mailferry::{ErrorClass, Side, sync::report::MailboxReport};
use mailferry_testkit::{SharedServer, shared_server};

use crate::{
    fake::{Act, Fake, MODERN, Mail, OLD, all_bodies, asks_for, bodies, hasty, mails},
    rig::{Rig, adopted, copied, endpoint},
};

/// Makes what to do.
type ActNow = fn() -> Act;

fn class(report: &MailboxReport) -> Option<ErrorClass> {
    let folders = report.folders.iter().filter_map(|f| f.error.as_ref());
    report.error.as_ref().or_else(|| folders.into_iter().next()).map(|error| error.class)
}

/// True on the first command that begins or goes on so.
fn once(pattern: &'static str) -> impl Fn(&str) -> bool + Send + Sync {
    let count = AtomicUsize::new(0);
    move |command| {
        let like = pattern.split('*').all(|piece| command.contains(piece))
            && command.starts_with(pattern.split('*').next().unwrap_or_default());
        like && count.fetch_add(1, SeqCst) == 0
    }
}

/// What a source hears in the course of a sync, and what a destination does.
const AT_SOURCE: [&str; 7] =
    ["CAPABILITY", "NAMESPACE", "LIST", "STATUS", "EXAMINE", "UID FETCH 1:* (UID FLAGS", "UID FETCH*BODY.PEEK[]"];
const AT_DESTINATION: [&str; 6] = ["LIST", "STATUS", "CREATE", "SUBSCRIBE", "SELECT", "APPEND"];

/// One sync for each phase at which the server misbehaves once: all arrives, once.
async fn survives_once(act: ActNow) {
    let source = AT_SOURCE.map(|pattern| (Side::Source, pattern));
    let destination = AT_DESTINATION.map(|pattern| (Side::Destination, pattern));
    let runs = source.into_iter().chain(destination).map(|(side, pattern)| async move {
        let hit = once(pattern);
        let twist = move |command: &str, _| hit(command).then(act);
        let (source, destination) = match side {
            Side::Source => (Fake::twisted(MODERN, mails(12), twist).await, Fake::start(MODERN, Vec::new()).await),
            Side::Destination => (Fake::start(MODERN, mails(12)).await, Fake::twisted(MODERN, Vec::new(), twist).await),
        };
        source.change("Work", |folder| *folder = mails(5));
        let report = hasty(&source, &destination).try_sync().await;
        assert!(report.error.is_none(), "{side:?} {pattern}: {report:#?}");
        for (folder, count) in [("INBOX", 12), ("Work", 5)] {
            assert_eq!(
                all_bodies(&destination.mails(folder)),
                all_bodies(&mails(count)),
                "{side:?} {pattern}: {report:#?}"
            );
        }
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_at_any_moment_is_survived() {
    survives_once(|| Act::Bye(b"* BYE shutting down\r\n".to_vec())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_just_ends_at_any_moment_is_survived() {
    survives_once(|| Act::Bye(Vec::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_at_any_moment_is_survived() {
    survives_once(|| Act::Stall).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_command_that_was_never_sent_ends_the_connection_only() {
    survives_once(|| Act::Send(b"X77 OK done\r\n".to_vec())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demand_for_more_of_a_complete_command_ends_the_connection_only() {
    survives_once(|| Act::Send(b"+ go on\r\n+ go on\r\n".to_vec())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_at_any_moment_ends_the_connection_only() {
    for nonsense in [
        &b"* 1 FETCH (UID 1 BODY[] {99999999999999999999}\r\n"[..],
        b"* 1 FETCH (UID 1 BODY[] {9000000000}\r\n",
        b"\xff\xfe\x00garbage\r\n{tag}\r\n",
        b"* 1 FETCH ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((\r\n",
        b"* LIST (\r\n* FETCH\r\n* 99999999999999 EXISTS\r\n{tag} MAYBE\r\n",
    ] {
        let source = Fake::twisted(MODERN, mails(5), {
            let hit = once("UID FETCH 1:* (UID FLAGS");
            move |command, _| hit(command).then(|| Act::First(nonsense.to_vec()))
        })
        .await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let report = hasty(&source, &destination).try_sync().await;
        assert!(report.error.is_none(), "{report:#?}");
        assert_eq!(
            all_bodies(&destination.mails("INBOX")),
            all_bodies(&mails(5)),
            "{:?}",
            String::from_utf8_lossy(nonsense)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_fails_ends_the_sync_with_the_reason() {
    let cases: [(&'static str, ActNow, ErrorClass); 5] = [
        ("LIST", || Act::Bye(b"* BYE going down\r\n".to_vec()), ErrorClass::Network),
        ("EXAMINE", || Act::Stall, ErrorClass::Network),
        ("LIST", || Act::Send(vec![b'x'; 17 << 20]), ErrorClass::Protocol),
        ("LIST", || Act::Send(b"X77 OK done\r\n".to_vec()), ErrorClass::Protocol),
        ("EXAMINE", || Act::Send(b"{tag} NO [THROTTLED] slow down\r\n".to_vec()), ErrorClass::Throttled),
    ];
    let runs = cases.map(|(pattern, act, wanted)| async move {
        let source = Fake::twisted(MODERN, mails(3), move |command, _| command.starts_with(pattern).then(act)).await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let report = hasty(&source, &destination).try_sync().await;
        assert_eq!(class(&report), Some(wanted), "{pattern}: {report:#?}");
        assert!(destination.mails("INBOX").is_empty());
        assert_eq!(report.reconnects, 3, "{pattern}: {report:#?}");
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_not_collected_for_ever() {
    let source = Fake::twisted(MODERN, mails(3), |command, _| {
        // Twice what may be kept, and no line end.
        command.starts_with("UID FETCH").then(|| Act::First(vec![b'*'; 32 << 20]))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = hasty(&source, &destination);
    rig.spec.source.timeouts.reply = Duration::from_secs(20);
    let report = rig.try_sync().await;
    assert_eq!(class(&report), Some(ErrorClass::Protocol), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_announcements_before_an_answer_are_passed_over() {
    let source = Fake::twisted(MODERN, mails(3), |command, _| {
        let noise = b"* OK still here\r\n* 3 EXISTS\r\n* 1 FETCH (FLAGS (\\Seen))\r\n".repeat(350_000);
        command.starts_with("EXAMINE").then_some(Act::First(noise))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = hasty(&source, &destination);
    rig.spec.source.timeouts.reply = Duration::from_secs(20);
    assert_eq!(copied(&rig.sync().await), 3);
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_folders_than_any_account_has_are_refused() {
    let source = Fake::twisted(MODERN, mails(3), |command, _| {
        let line = |n: usize| format!("* LIST () \"/\" f{n}\r\n");
        (command.starts_with("LIST")).then(|| Act::First((0..150_000).map(line).collect::<String>().into_bytes()))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = hasty(&source, &destination);
    rig.spec.retry.attempts = 0;
    let report = rig.try_sync().await;
    assert_eq!(class(&report), Some(ErrorClass::Protocol), "{:?}", report.error);
}

/// Bodies of all sizes, large ones among them, with sizes that are lies.
fn liars() -> Vec<Mail> {
    let mut mails = mails(12);
    for (mail, (bytes, claim)) in mails.iter_mut().zip([
        (100, Some(5)),
        (5000, Some(0)),
        (3 << 20, Some(10)),
        (10, Some(3 << 20)),
        (2 << 20, None),
        (2 << 20, Some(30 << 20)),
        (20, Some(100)),
        (1 << 20, Some(1)),
        ((1 << 20) + 1, Some(1 << 20)),
        (300, None),
        (4 << 20, Some(1)),
        (50, None),
    ]) {
        mail.size = claim;
        let unique = format!("Subject: {}\r\n\r\n", mail.uid);
        mail.body = [unique.as_bytes(), &vec![b'a'; bytes]].concat();
    }
    mails
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_are_lies_change_no_byte() {
    let source = Fake::start(MODERN, liars()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = hasty(&source, &destination);
    assert_eq!(copied(&rig.sync().await), 12);
    assert!(all_bodies(&destination.mails("INBOX")) == all_bodies(&liars()));
    let order: Vec<u32> = destination.mails("INBOX").iter().map(|m| m.uid).collect();
    assert_eq!(order, (1..=12).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_at_first_is_told_to_stand_out_of_order() {
    let source = Fake::start(MODERN, mails(6)).await;
    let refused = once("APPEND*NUMBER 2");
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        refused(command).then(|| Act::send("{tag} NO [CANNOT] not like this\r\n"))
    })
    .await;
    let report = hasty(&source, &destination).sync().await;
    let there = destination.mails("INBOX");
    // One ordinary message stood by it; others were kept back for that and follow.
    let order: Vec<usize> = mails(6).iter().map(|m| there.iter().position(|t| t.body == m.body).unwrap()).collect();
    assert!(order[1] > order[2], "{order:?}");
    let folder = &report.folders[0];
    assert_eq!((there.len(), folder.differences.get("order")), (6, Some(&1)), "{report:#?}");
    assert_eq!(folder.difference_messages[0].uid, 2);
}

/// A source that tells bodies in a form of its own.
async fn tells(mails: Vec<Mail>, form: fn(usize, &Mail) -> Vec<u8>) -> Fake {
    let told = Arc::new(mails.clone());
    Fake::twisted(MODERN, mails, move |command, _| {
        command.contains("BODY.PEEK[]").then(|| Act::Send(bodies(&told, command, form)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uid_that_is_told_after_the_message_is_good_enough() {
    let form = |seq: usize, mail: &Mail| {
        let head = format!("* {seq} FETCH (BODY[] {{{}}}\r\n", mail.body.len());
        [head.as_bytes(), &mail.body, format!(" UID {} FLAGS (\\Seen))\r\n", mail.uid).as_bytes()].concat()
    };
    let source = tells(liars(), form).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = hasty(&source, &destination);
    rig.spec.source.timeouts.reply = Duration::from_secs(5);
    let report = rig.sync().await;
    assert!(all_bodies(&destination.mails("INBOX")) == all_bodies(&liars()), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_any_order_twice_and_unasked_for_copy_each_message_once() {
    let form = |seq: usize, mail: &Mail| {
        let tell = |uid: u32, body: &[u8]| {
            let head = format!("* {seq} FETCH (UID {uid} BODY[] {{{}}}\r\n", body.len());
            [head.as_bytes(), body, b")\r\n"].concat()
        };
        // An unknown message, this one twice, and one that was not asked for again.
        [tell(999, b"unasked"), tell(mail.uid, &mail.body), tell(mail.uid, b"again"), tell(1, b"no")].concat()
    };
    let source = tells(mails(30), form).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = hasty(&source, &destination).sync().await;
    let wanted = mails(30);
    // Message 1 may come as what the server said of it first.
    assert_eq!(destination.mails("INBOX").len(), 30, "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_vanished_meanwhile_is_no_empty_message() {
    let nil = |seq: usize, mail: &Mail| match mail.uid {
        4 => format!("* {seq} FETCH (UID 4 RFC822.SIZE 0 BODY[] NIL)\r\n").into_bytes(),
        5 => Vec::new(),
        // Courier's invention.
        6 => {
            let text = "From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\n\
                        This message is no longer available on the server.\r\n";
            format!("* {seq} FETCH (UID 6 BODY[] {{{}}}\r\n{text})\r\n", text.len()).into_bytes()
        }
        uid => {
            let head = format!("* {seq} FETCH (UID {uid} BODY[] {{{}}}\r\n", mail.body.len());
            [head.as_bytes(), &mail.body, b")\r\n"].concat()
        }
    };
    let told = mails(10);
    let source = Fake::twisted(MODERN, mails(10), move |command, _| {
        if command.starts_with("UID SEARCH UID") {
            return Some(Act::send("* SEARCH\r\n{tag} OK done\r\n"));
        }
        if command.ends_with("(UID)") {
            return Some(Act::send("{tag} OK done\r\n"));
        }
        command.contains("BODY.PEEK[]").then(|| Act::Send(bodies(&told, command, nil)))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = hasty(&source, &destination).sync().await;
    assert_eq!(copied(&report), 7, "{report:#?}");
    assert!(report.folders[0].skipped.is_empty(), "{report:#?}");
    assert!(destination.mails("INBOX").iter().all(|m| m.body.starts_with(b"Message-ID")));
}

/// A source that fails on one message whenever it is asked for; all others arrive, it is told, and tried again.
async fn one_unreadable(answer: &'static str, closes: bool) {
    let broken = Arc::new(AtomicUsize::new(1));
    let is_broken = Arc::clone(&broken);
    let source = Fake::twisted(MODERN, mails(40), move |command, _| {
        let fails = asks_for(command, 17) && is_broken.load(SeqCst) == 1;
        fails.then(|| if closes { Act::Bye(answer.into()) } else { Act::Send(answer.into()) })
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = hasty(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(copied(&report) + adopted(&report), 39, "{answer}: {report:#?}");
    let folder = &report.folders[0];
    assert_eq!(folder.skipped.get("unreadable"), Some(&1), "{answer}: {report:#?}");
    assert_eq!(folder.skipped_messages[0].uid, 17);
    let again = rig.sync().await;
    assert_eq!((copied(&again), again.folders[0].skipped.get("unreadable")), (0, Some(&1)), "{answer}: {again:#?}");
    broken.store(0, SeqCst);
    let healed = rig.sync().await;
    assert_eq!((copied(&healed), healed.folders[0].skipped.len()), (1, 0), "{answer}: {healed:#?}");
    assert_eq!(healed.folders[0].differences.get("order"), Some(&1), "{answer}: {healed:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(40)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unreadable_message_holds_up_no_other() {
    let answers = [
        ("{tag} NO [SERVERBUG] Internal error occurred.\r\n", false),
        ("{tag} NO cannot open the file\r\n", false),
        ("{tag} BAD what?\r\n", false),
        ("* BYE Internal error\r\n", true),
        ("", true),
        ("* 17 FETCH (UID 17 BODY[] {500}\r\nnot that much", true),
        ("* 17 FETCH (UID 17 BODY[] {3000000}\r\nnot that much", true),
        ("* 17 FETCH (UID 17 BODY[] NIL)\r\n{tag} OK done\r\n", false),
    ];
    join_all(answers.map(|(answer, closes)| Box::pin(one_unreadable(answer, closes)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_folder_that_cannot_come_whole_comes_in_parts() {
    let answers = [
        Act::Bye(Vec::new()),
        Act::Bye(b"* BYE oops\r\n".to_vec()),
        Act::Send(b"{tag} NO [SERVERBUG] oops\r\n".to_vec()),
    ];
    let runs = answers.into_iter().map(|answer| async move {
        let answer = Arc::new(answer);
        let twist = Arc::clone(&answer);
        let source = Fake::twisted(&format!("{MODERN} STATUS=SIZE"), mails(3), move |command, _| {
            asks_for(command, 17).then(|| (*twist).clone())
        })
        .await;
        source.change("Work", |folder| *folder = mails(40));
        let destination = Fake::start(MODERN, Vec::new()).await;
        let report = hasty(&source, &destination).sync().await;
        assert_eq!(copied(&report) + adopted(&report), 42, "{answer:?}: {report:#?}");
        assert_eq!(report.folders[1].skipped.get("unreadable"), Some(&1), "{answer:?}: {report:#?}");
        let whole = source.heard("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])");
        assert_eq!(whole, 2, "INBOX, which is there and empty, and the new folder once each");
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_of_every_message_is_not_asked_for_ever() {
    let source =
        Fake::twisted(MODERN, mails(2000), |command, _| command.contains("BODY.PEEK[]").then(|| Act::Bye(Vec::new())))
            .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = hasty(&source, &destination).try_sync().await;
    assert_eq!(class(&report), Some(ErrorClass::Network), "{report:#?}");
    assert!(report.reconnects < 450, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_counted_but_never_listed_is_told_and_not_lost() {
    let whole = Arc::new(AtomicUsize::new(0));
    let is_whole = Arc::clone(&whole);
    let listed: Vec<Mail> = mails(10).into_iter().filter(|m| m.uid != 4).collect();
    let source = Fake::twisted(MODERN, mails(10), move |command, _| {
        if is_whole.load(SeqCst) == 1 || !command.contains("INTERNALDATE") {
            return None;
        }
        let form = |seq: usize, mail: &Mail| {
            let facts = "FLAGS (\\Seen) INTERNALDATE \"05-Mar-2021 08:09:10 +0000\"";
            format!("* {seq} FETCH (UID {} {facts} RFC822.SIZE {})\r\n", mail.uid, mail.body.len()).into_bytes()
        };
        Some(Act::Send(bodies(&listed, command, form)))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = hasty(&source, &destination);
    for wanted in [9, 0] {
        let report = rig.sync().await;
        assert_eq!(copied(&report), wanted, "{report:#?}");
        assert_eq!(report.folders[0].skipped.get("unreadable"), Some(&1), "{report:#?}");
        assert_eq!(report.folders[0].skipped_messages[0].uid, 4);
    }
    whole.store(1, SeqCst);
    assert_eq!(copied(&rig.sync().await), 1);
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_not_understood_ends_the_connection_at_once() {
    let hit = once("APPEND");
    let source = Fake::start(MODERN, mails(20)).await;
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        // A server that does not read the literal would take what follows for commands.
        hit(command).then(|| Act::Send(b"{tag} BAD Invalid APPEND\r\n".to_vec()))
    })
    .await;
    let rig = hasty(&source, &destination);
    let report = rig.sync().await;
    assert!(report.reconnects > 0, "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(20)));
    let careful =
        destination.server.received_commands().iter().filter(|c| c.contains(" APPEND ") && !c.contains("+}")).count();
    assert!(careful >= 1, "what was refused goes by synchronizing literal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_opened_holds_up_no_other() {
    let source = Fake::twisted(MODERN, mails(5), |command, _| {
        (command.starts_with("EXAMINE") && command.contains("BROKEN"))
            .then(|| Act::Send(b"{tag} NO [NOPERM] no\r\n".to_vec()))
    })
    .await;
    for folder in ["Broken", "Work", "Xtra"] {
        source.change(folder, |folder| *folder = mails(4));
    }
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = hasty(&source, &destination).try_sync().await;
    assert_eq!(copied(&report), 13, "{report:#?}");
    let failed: Vec<&str> = report.folders.iter().filter(|f| f.error.is_some()).map(|f| f.source.as_str()).collect();
    assert_eq!(failed, ["Broken"]);
    assert_eq!(class(&report), Some(ErrorClass::Authorization));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_source_cannot_reach_the_destination() {
    // Whatever the source says, what goes to a real destination is well formed: its log knows no errors.
    let account = shared_server(SharedServer::Mdbox).account();
    let mut wild = mails(5);
    wild[0].flags = b"\\Seen) \"x\" {3+}".to_vec();
    wild[1].date = "\"01-Jan-2020 00:00:00 +0000\" \"x\"".to_owned();
    wild[2].flags = b"a\x00b \\".to_vec();
    let source = Fake::start(OLD, wild).await;
    let to = endpoint(Side::Destination, account.server.tls_port(), &account.user, &account.password);
    let mut rig = Rig::between(source.endpoint(Side::Source), to);
    rig.spec.retry.attempts = 1;
    let report = rig.try_sync().await;
    let (_, facts) = account.connect().await.folder_facts("INBOX").await;
    assert_eq!(facts.len() as u64, copied(&report), "{report:#?}");
}
