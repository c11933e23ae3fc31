//! What ends a connection costs that one thing: a message, a folder, a listing. All else arrives, and what does not is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::future::join_all;
use mailferry::{
    ErrorClass, Side,
    sync::{report::MailboxReport, spec::RetryPolicy},
};
use mailferry_testkit::eventually::eventually;

use crate::{
    fake::{self, Act, CONNECT, Fake, MODERN, Mail, OLD, all_bodies, asks_for, mails},
    rig::{Rig, adopted, copied},
};

/// Between two servers in memory, on one connection, and with patience for a few seconds.
fn hasty(source: &Fake, destination: &Fake) -> Rig {
    let mut rig = fake::hasty(source, destination);
    rig.spec.retry.patience = Duration::from_secs(3);
    rig.spec.connections = 1;
    rig
}

fn failed_folders(report: &MailboxReport) -> Vec<&str> {
    report.folders.iter().filter(|f| f.error.is_some()).map(|f| f.source.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_introduces_itself() {
    let (source, destination) = (Fake::start(MODERN, mails(9)).await, Fake::start(MODERN, Vec::new()).await);
    for folder in ["A", "B", "C"] {
        source.change(folder, |mails_of| *mails_of = mails(5));
    }
    let mut rig = hasty(&source, &destination);
    rig.spec.connections = 3;
    assert_eq!(copied(&rig.sync().await), 24);
    for side in [&source, &destination] {
        assert!(side.server.connections() > 0);
        assert_eq!(side.heard("ID (\"name\" \"mailferry\""), side.server.connections());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_opened_costs_no_other() {
    for (side, verb) in [(Side::Source, "EXAMINE"), (Side::Destination, "SELECT")] {
        let twist = move |command: &str, _| command.starts_with(&format!("{verb} \"ODD")).then(|| Act::Bye(Vec::new()));
        let (source, destination) = match side {
            Side::Source => (Fake::twisted(MODERN, mails(4), twist).await, Fake::start(MODERN, Vec::new()).await),
            Side::Destination => (Fake::start(MODERN, mails(4)).await, Fake::twisted(MODERN, Vec::new(), twist).await),
        };
        source.change("Odd one ", |folder| *folder = mails(3));
        source.change("Work", |folder| *folder = mails(5));
        let report = hasty(&source, &destination).try_sync().await;
        assert!(report.error.is_none(), "{side:?}: {report:#?}");
        assert_eq!(copied(&report), 9, "{side:?}: {report:#?}");
        assert_eq!(failed_folders(&report), ["Odd one "], "{side:?}");
        let error = report.folders.iter().find_map(|folder| folder.error.as_ref()).unwrap();
        assert_eq!((error.class, error.side), (ErrorClass::Network, Some(side)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_ends_each_connection_after_a_few_messages_is_copied_a_few_at_a_time() {
    for capabilities in [MODERN.to_owned(), format!("{MODERN} MULTIAPPEND")] {
        let delivered = AtomicUsize::new(0);
        let source = Fake::twisted(MODERN, mails(60), move |command, _| {
            if command == CONNECT {
                delivered.store(0, SeqCst);
            }
            let asked: Vec<Mail> = mails(60).into_iter().filter(|mail| asks_for(command, mail.uid)).collect();
            let left = 10 - delivered.fetch_add(asked.len(), SeqCst).min(10);
            if asked.len() <= left {
                return None;
            }
            let last = &asked[..left];
            let told = last.iter().flat_map(|mail| {
                let head = format!("* {} FETCH (UID {} BODY[] {{{}}}\r\n", mail.uid, mail.uid, mail.body.len());
                [head.as_bytes(), &mail.body, b")\r\n"].concat()
            });
            Some(Act::Bye(told.chain(*b"* BYE enough for one session\r\n").collect()))
        })
        .await;
        let destination = Fake::start(&capabilities, Vec::new()).await;
        let report = hasty(&source, &destination).sync().await;
        assert_eq!(copied(&report), 60, "{report:#?}");
        assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&source.mails("INBOX")));
        assert!(source.server.connections() < 30, "{} connections", source.server.connections());
    }
}

/// A destination that fails on one message whenever it comes, in this way: all others arrive, and it is told.
async fn one_indigestible(answer: &'static str, closes: bool, multiappend: bool) {
    let mut poisoned = mails(12);
    poisoned[4].body.extend_from_slice(b"POISON\r\n");
    let source = Fake::start(MODERN, poisoned.clone()).await;
    source.change("Work", |folder| *folder = mails(6));
    let capabilities = if multiappend { format!("{MODERN} MULTIAPPEND") } else { MODERN.to_owned() };
    let destination = Fake::twisted(&capabilities, Vec::new(), move |command, _| {
        let fails = command.starts_with("APPEND") && command.contains("POISON");
        fails.then(|| if closes { Act::Bye(answer.into()) } else { Act::Send(answer.into()) })
    })
    .await;
    let rig = hasty(&source, &destination);
    let what = format!("{answer:?} closes {closes} multiappend {multiappend}");
    for run in 1..=2 {
        let report = rig.sync().await;
        let folder = report.folders.iter().find(|folder| folder.source == "INBOX").unwrap();
        assert_eq!(folder.skipped.get("refused"), Some(&1), "{what}, run {run}: {report:#?}");
        assert_eq!(folder.skipped_messages[0].uid, 5, "{what}, run {run}: {report:#?}");
    }
    let healthy: Vec<Mail> = poisoned.into_iter().filter(|m| m.uid != 5).collect();
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&healthy), "{what}");
    assert_eq!(all_bodies(&destination.mails("Work")), all_bodies(&mails(6)), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_the_connection_when_it_is_appended_holds_up_no_other() {
    let answers = [
        ("", true),
        ("* BYE sorry\r\n", true),
        ("garbage that is no IMAP\r\n", true),
        ("X77 OK done\r\n", false),
        ("* BAD what was that?\r\n", false),
    ];
    let runs = answers
        .into_iter()
        .flat_map(|(answer, closes)| [false, true].map(|multi| Box::pin(one_indigestible(answer, closes, multi))));
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bad_messages_side_by_side_hold_up_no_other() {
    let is_bad = |command: &str| (20..50).any(|uid| asks_for(command, uid));
    let source =
        Fake::twisted(MODERN, mails(80), move |command, _| is_bad(command).then(|| Act::Bye(Vec::new()))).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = hasty(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(copied(&report) + adopted(&report), 50, "{report:#?}");
    assert_eq!(report.folders[0].skipped.get("unreadable"), Some(&30), "{report:#?}");
    assert!(report.reconnects < 3 * 30 + 20, "{report:#?}");
    // What is known of them is kept: the next run asks for each once.
    let again = rig.sync().await;
    assert_eq!(again.folders[0].skipped.get("unreadable"), Some(&30), "{again:#?}");
    assert!(again.reconnects <= 32, "{again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_not_list_well_is_listed_in_a_plainer_way() {
    let extended = format!("{MODERN} LIST-EXTENDED LIST-STATUS SPECIAL-USE");
    for (capabilities, pattern, answer) in [
        (extended.as_str(), "LIST \"\" \"*\" RETURN", Act::send("{tag} BAD unknown\r\n")),
        (extended.as_str(), "LIST \"\" \"*\" RETURN", Act::send("{tag} NO internal\r\n")),
        (extended.as_str(), "LIST \"\" \"*\" RETURN", Act::Bye(Vec::new())),
        (MODERN, "LSUB", Act::Bye(Vec::new())),
        (MODERN, "STATUS \"WORK\"", Act::Bye(Vec::new())),
        (MODERN, "STATUS \"WORK\"", Act::send("{tag} NO not now\r\n")),
        ("IMAP4rev1 AUTH=PLAIN STATUS=SIZE", "RFC822.SIZE)", Act::First(Vec::new())),
        ("IMAP4rev1 AUTH=PLAIN STATUS=SIZE", " SIZE)", Act::send("{tag} BAD what is SIZE?\r\n")),
    ] {
        let answer = Arc::new(answer);
        let twist = Arc::clone(&answer);
        let source = Fake::twisted(capabilities, mails(4), move |command, _| {
            command.contains(pattern).then(|| (*twist).clone())
        })
        .await;
        source.change("Work", |folder| *folder = mails(5));
        let destination = Fake::start(MODERN, Vec::new()).await;
        let report = hasty(&source, &destination).sync().await;
        assert_eq!(copied(&report), 9, "{pattern} {answer:?}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_behind_the_opening_of_a_folder_are_sent_one_by_one_where_they_are_refused() {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    // Refuses the first command behind each EXAMINE.
    let source = Fake::twisted(MODERN, mails(6), move |command, _| {
        if command.starts_with("EXAMINE") {
            count.store(1, SeqCst);
        }
        let is_behind = command.starts_with("UID FETCH 1:*") && count.swap(0, SeqCst) == 1;
        is_behind.then(|| Act::send("{tag} BAD no folder is open\r\n"))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = hasty(&source, &destination).sync().await;
    assert_eq!(copied(&report), 6, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_a_literal_where_the_server_knows_only_synchronizing_ones() {
    let (source, destination) = (Fake::start(MODERN, mails(20)).await, Fake::start(OLD, Vec::new()).await);
    let report = hasty(&source, &destination).sync().await;
    assert_eq!(copied(&report), 20, "{report:#?}");
    assert_eq!(destination.server.early_commands(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_removed_in_the_middle_is_made_again_if_nobody_can_mean_it() {
    let appended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&appended);
    let source = Fake::start(MODERN, Vec::new()).await;
    source.change("Work", |folder| *folder = mails(5));
    // The folder that the run made is gone at its first APPEND.
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        let first = command.starts_with("APPEND") && count.fetch_add(1, SeqCst) == 0;
        first.then(|| Act::send("{tag} NO [TRYCREATE] no such folder\r\n"))
    })
    .await;
    let report = hasty(&source, &destination).try_sync().await;
    assert!(report.gravest_error().is_none(), "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("Work")), all_bodies(&mails(5)), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_the_source_loses_in_the_middle_is_no_error() {
    let source = Fake::twisted(MODERN, mails(3), |command, _| {
        command.starts_with("EXAMINE \"WORK\"").then(|| Act::send("{tag} NO [NONEXISTENT] no such mailbox\r\n"))
    })
    .await;
    source.change("Work", |folder| *folder = mails(5));
    let lists = Arc::new(AtomicUsize::new(0));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = hasty(&source, &destination).try_sync().await;
    // It is listed all the same: then it is a question of rights.
    assert_eq!(failed_folders(&report), ["Work"], "{report:#?}");
    let count = Arc::clone(&lists);
    let source = Fake::twisted(MODERN, mails(3), move |command, _| {
        if command.starts_with("LIST") && count.fetch_add(1, SeqCst) > 0 {
            return Some(Act::send("* LIST () \"/\" \"INBOX\"\r\n{tag} OK done\r\n"));
        }
        command.starts_with("EXAMINE \"WORK\"").then(|| Act::send("{tag} NO [NONEXISTENT] no such mailbox\r\n"))
    })
    .await;
    source.change("Work", |folder| *folder = mails(5));
    let report = hasty(&source, &destination).try_sync().await;
    assert!(report.gravest_error().is_none(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_commit_is_waited_for_and_nothing_is_doubled() {
    let source = Fake::start(MODERN, mails(8)).await;
    // Longer than any other answer may take.
    let destination = Fake::twisted(&format!("{MODERN} MULTIAPPEND"), Vec::new(), |command, _| {
        command.starts_with("APPEND").then(|| Act::Slowly(Duration::from_millis(2500)))
    })
    .await;
    let mut rig = hasty(&source, &destination);
    rig.spec.retry.patience = Duration::from_secs(20);
    let report = rig.sync().await;
    assert_eq!((copied(&report), report.reconnects), (8, 0), "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(8)));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes; by hand"]
async fn a_commit_of_two_minutes_and_more_is_waited_for_by_default() {
    let source = Fake::start(MODERN, mails(20)).await;
    let destination = Fake::twisted(&format!("{MODERN} MULTIAPPEND"), Vec::new(), |command, _| {
        command.starts_with("APPEND \"INBOX\"").then(|| Act::Slowly(Duration::from_secs(124)))
    })
    .await;
    source.change("Work", |folder| *folder = mails(5));
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.retry = RetryPolicy::default();
    let (report, ()) = tokio::join!(rig.sync(), async {
        eventually("other folders go on meanwhile", async || match destination.mails("Work").len() {
            5 => Ok(()),
            there => Err(format!("{there} messages")),
        })
        .await;
        assert_eq!(destination.mails("INBOX").len(), 0);
    });
    assert_eq!((copied(&report), report.reconnects), (25, 0), "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(20)));
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_cannot_be_made_anew_leaves_its_folder_to_the_others() {
    let closed = AtomicBool::new(false);
    let source = Fake::twisted(MODERN, mails(9), move |command, _| {
        if command == CONNECT {
            return closed.load(SeqCst).then(|| Act::Bye(b"* BYE too many connections\r\n".to_vec()));
        }
        if command.starts_with("EXAMINE \"WORK\"") && !closed.swap(true, SeqCst) {
            return Some(Act::Bye(Vec::new()));
        }
        // The other folder takes its time.
        asks_for(command, 9).then(|| Act::Slowly(Duration::from_secs(100)))
    })
    .await;
    source.change("Work", |folder| *folder = mails(4));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.connections = 2;
    let report = rig.sync().await;
    assert_eq!(copied(&report), 13, "{report:#?}");
    assert_eq!(source.heard("EXAMINE \"Work\""), 2, "{report:#?}");
}
