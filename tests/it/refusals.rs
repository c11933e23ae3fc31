//! A refusal is no verdict: a server that is unwell is waited for, and only what is proven to be refused for its own sake
//! is set aside. Time stands still in these tests but for what the engine waits for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mailferry::{
    ErrorClass, Side,
    sync::{checkpoint::Checkpoint, report::MailboxReport, spec::WaitSteps},
};
use tokio::time::Instant;

use crate::{
    fake::{Act, Fake, MODERN, Mail, mails},
    rig::{Rig, adopted, copied},
};

/// With the waits of a release.
fn rig(source: &Fake, destination: &Fake) -> Rig {
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.retry.waits = WaitSteps::default();
    rig.spec.retry.patience = Duration::from_mins(15);
    rig
}

fn bodies(mails: &[Mail]) -> BTreeMap<Vec<u8>, usize> {
    let mut bodies = BTreeMap::new();
    for mail in mails {
        *bodies.entry(mail.body.clone()).or_default() += 1;
    }
    bodies
}

fn skipped(report: &MailboxReport) -> u64 {
    report.folders.iter().flat_map(|folder| folder.skipped.values()).sum()
}

/// The groups of INBOX in the checkpoint, for people.
fn set_aside(rig: &Rig) -> serde_json::Value {
    let checkpoint: Checkpoint = rig.store.checkpoint().unwrap();
    checkpoint.describe()["folders"][0]["setAside"].clone()
}

/// A destination that answers every APPEND so until a time, and is well after that.
async fn unwell_for(capabilities: &str, time: Duration, answer: &'static str) -> Fake {
    let until = Instant::now() + time;
    Fake::twisted(capabilities, Vec::new(), move |command, _| {
        (command.starts_with("APPEND") && Instant::now() < until).then(|| Act::Send(answer.into()))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_unwell_for_a_while_gets_every_message_once() {
    for answer in [
        "{tag} NO [SERVERBUG] Internal error occurred. Refer to server log for more information.\r\n",
        "{tag} NO System I/O error\r\n",
        "{tag} NO database is locked\r\n",
        "{tag} NO Computer says no.\r\n",
        "{tag} BAD Command failed\r\n",
        "{tag} BAD Request is throttled. Suggested Backoff Time: 1500 milliseconds\r\n",
        "{tag} NO [UNAVAILABLE] later\r\n",
    ] {
        for capabilities in [MODERN.to_owned(), format!("{MODERN} MULTIAPPEND")] {
            let source = Fake::start(MODERN, mails(60)).await;
            let destination = unwell_for(&capabilities, Duration::from_secs(4), answer).await;
            let report = rig(&source, &destination).sync().await;
            assert_eq!(skipped(&report), 0, "{answer} {report:#?}");
            assert_eq!(bodies(&destination.mails("INBOX")), bodies(&mails(60)), "{answer} {report:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_stays_unwell_ends_the_run_with_an_error_and_no_verdict() {
    for (answer, class) in [
        ("{tag} NO [SERVERBUG] Internal error occurred.\r\n", ErrorClass::Network),
        ("{tag} NO Computer says no.\r\n", ErrorClass::Network),
        ("{tag} NO [ALERT] You exceeded your mail quota.\r\n", ErrorClass::Quota),
        ("{tag} NO [ALERT] Cannot create message - no write permission or out of disk space.\r\n", ErrorClass::Quota),
        ("{tag} NO [OVERQUOTA] Not enough disk space\r\n", ErrorClass::Quota),
        ("{tag} NO [NOPERM] no\r\n", ErrorClass::Authorization),
    ] {
        let began = Instant::now();
        let source = Fake::start(MODERN, mails(60)).await;
        let destination = unwell_for(MODERN, Duration::from_hours(1), answer).await;
        let rig = rig(&source, &destination);
        let report = rig.try_sync().await;
        let error = report.gravest_error().expect("an error");
        assert_eq!((error.class, error.side), (class, Some(Side::Destination)), "{answer} {report:#?}");
        assert_eq!((copied(&report), skipped(&report)), (0, 0), "{answer} {report:#?}");
        assert!(began.elapsed() < Duration::from_mins(20), "{answer}");
        let sent = destination.heard(" APPEND ");
        assert!(sent < 120, "{answer}: {sent} messages were sent to a server that takes none");
        tokio::time::advance(Duration::from_hours(1)).await;
        let healed = rig.sync().await;
        assert_eq!(skipped(&healed), 0, "{answer} {healed:#?}");
        assert_eq!(bodies(&destination.mails("INBOX")), bodies(&mails(60)), "{answer} {healed:#?}");
    }
}

/// A destination that refuses the messages whose body holds `BAD`, while `picky` says so.
async fn picky(capabilities: &str, answer: &'static str, picky: &Arc<AtomicBool>) -> Fake {
    let picky = Arc::clone(picky);
    Fake::twisted(capabilities, Vec::new(), move |command, _| {
        let hit = picky.load(SeqCst) && command.starts_with("APPEND") && command.contains("X-BAD");
        hit.then(|| Act::Send(answer.into()))
    })
    .await
}

fn with_bad(count: u32, bad: &[u32]) -> Vec<Mail> {
    let mut mails = mails(count);
    for mail in mails.iter_mut().filter(|mail| bad.contains(&mail.uid)) {
        mail.body = format!("Message-ID: <fake-{}@example.org>\r\n\r\nx-bad\r\n", mail.uid).into();
    }
    mails
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_its_own_sake_is_proven_told_and_tried_again_now_and_then() {
    for (answer, capabilities) in [
        ("{tag} NO Computer says no.\r\n", MODERN.to_owned()),
        ("{tag} NO Computer says no.\r\n", format!("{MODERN} MULTIAPPEND")),
        ("{tag} NO [SERVERBUG] Internal error occurred.\r\n", MODERN.to_owned()),
        ("{tag} NO [OVERQUOTA] over\r\n", MODERN.to_owned()),
        ("{tag} BAD Command Argument Error. 11\r\n", MODERN.to_owned()),
    ] {
        let mut all = with_bad(400, &[3, 40, 41]);
        all.iter_mut().skip(100).for_each(|mail| mail.body.extend_from_slice(b"more than others\r\n"));
        let source = Fake::start(MODERN, all.clone()).await;
        let is_picky = Arc::new(AtomicBool::new(true));
        let destination = picky(&capabilities, answer, &is_picky).await;
        let rig = rig(&source, &destination);
        let report = rig.sync().await;
        let there = copied(&report) + adopted(&report);
        assert_eq!((there, report.folders[0].skipped.get("refused")), (397, Some(&3)), "{answer} {report:#?}");
        assert_eq!(report.folders[0].skipped_messages.iter().map(|m| m.uid).collect::<Vec<_>>(), [3, 40, 41]);
        assert_eq!(report.not_copied.as_ref().map(|n| n.messages), Some(3));
        let groups = set_aside(&rig);
        assert_eq!(
            (groups[0]["proven"].as_bool(), groups[0]["messages"].as_u64()),
            (Some(true), Some(3)),
            "{answer} {capabilities} {groups}"
        );

        // The first and the second run after that try them; the third does not, the fourth does.
        for (run, tries) in [(1, true), (2, true), (3, false), (4, true)] {
            let before = destination.heard("x-bad");
            let report = rig.sync().await;
            assert_eq!(report.not_copied.as_ref().map(|n| n.messages), Some(3), "run {run}: {report:#?}");
            assert_eq!(destination.heard("x-bad") > before, tries, "{answer} run {run}");
        }
        is_picky.store(false, SeqCst);
        let mut asked = rig;
        asked.spec.retry_refused = true;
        let healed = asked.sync().await;
        assert_eq!((copied(&healed), skipped(&healed)), (3, 0), "{answer} {healed:#?}");
        assert_eq!(bodies(&destination.mails("INBOX")), bodies(&all), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_without_an_ordinary_message_beside_it_is_tried_by_every_run() {
    let source = Fake::start(MODERN, with_bad(1, &[1])).await;
    let is_picky = Arc::new(AtomicBool::new(true));
    let destination = picky(MODERN, "{tag} NO Computer says no.\r\n", &is_picky).await;
    let rig = rig(&source, &destination);
    for run in 0..4 {
        let before = destination.heard("x-bad");
        let report = rig.sync().await;
        assert_eq!(report.not_copied.as_ref().map(|n| n.messages), Some(1), "{report:#?}");
        assert!(destination.heard("x-bad") > before, "run {run}");
        assert_eq!(set_aside(&rig)[0]["proven"], false);
    }
    is_picky.store(false, SeqCst);
    assert_eq!(copied(&rig.sync().await), 1);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_stores_what_it_refuses_gets_nothing_twice() {
    for late in [Duration::ZERO, Duration::from_millis(1500)] {
        let source = Fake::start(MODERN, mails(40)).await;
        let count = AtomicUsize::new(0);
        let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
            let hit = command.starts_with("APPEND") && count.fetch_add(1, SeqCst).is_multiple_of(3);
            let answer = b"{tag} NO Computer says no.\r\n".to_vec();
            hit.then(|| if late.is_zero() { Act::Covertly(answer) } else { Act::Late(late, answer) })
        })
        .await;
        let report = rig(&source, &destination).sync().await;
        assert_eq!(skipped(&report), 0, "{report:#?}");
        let there = destination.mails("INBOX");
        let twice: Vec<_> =
            bodies(&there).into_iter().filter(|(_, n)| *n != 1).map(|(body, n)| (String::from_utf8(body), n)).collect();
        assert_eq!((there.len(), twice), (40, Vec::new()), "{late:?} {report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyword_that_is_refused_costs_the_keyword_and_not_the_message() {
    let mut all = mails(60);
    all[5].flags = b"\\Seen $Odd fine".to_vec();
    let source = Fake::start(MODERN, all.clone()).await;
    let destination = Fake::twisted(MODERN, Vec::new(), |command, _| {
        (command.contains("$ODD") && !command.starts_with("UID FETCH"))
            .then(|| Act::send("{tag} NO [CANNOT] Invalid characters in keyword\r\n"))
    })
    .await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    assert_eq!((copied(&report), skipped(&report)), (60, 0), "{report:#?}");
    assert_eq!(report.folders[0].differences.get("flags"), Some(&1), "{report:#?}");
    let there = destination.mails("INBOX");
    let odd = there.iter().find(|mail| mail.body == all[5].body).unwrap();
    assert_eq!((String::from_utf8_lossy(&odd.flags).trim(), &odd.date), ("\\Seen fine", &all[5].date));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_used_up_its_allowance_is_left_alone() {
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let asked = AtomicUsize::new(0);
    let source = Fake::twisted(MODERN, mails(600), move |command, _| {
        let refuses = command.contains("BODY.PEEK[]") && !is_over.load(SeqCst) && asked.fetch_add(1, SeqCst) > 0;
        refuses.then(|| Act::send("{tag} NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)\r\n"))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    let report = rig.try_sync().await;
    let error = report.gravest_error().expect("an error");
    assert_eq!((error.class, error.side), (ErrorClass::Throttled, Some(Side::Source)), "{error:?}");
    assert!(error.retry_at.is_some_and(|at| at > jiff::Timestamp::now()), "{error:?}");
    assert!(source.heard("BODY.PEEK[]") < 8, "{}", source.heard("BODY.PEEK[]"));
    assert_eq!(skipped(&report), 0, "{report:#?}");
    over.store(true, SeqCst);
    let rest = rig.sync().await;
    assert_eq!(bodies(&destination.mails("INBOX")), bodies(&mails(600)), "{rest:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_source_asks_for_is_kept_on_all_connections() {
    let until: Arc<std::sync::Mutex<Option<Instant>>> = Arc::default();
    let early = Arc::new(AtomicUsize::new(0));
    let (asked_until, was_early, count) = (Arc::clone(&until), Arc::clone(&early), AtomicUsize::new(0));
    let source = Fake::twisted(MODERN, mails(300), move |command, _| {
        if !command.contains("BODY.PEEK[]") {
            return None;
        }
        let mut until = asked_until.lock().unwrap();
        if until.is_some_and(|until| Instant::now() < until) {
            was_early.fetch_add(1, SeqCst);
        } else if count.fetch_add(1, SeqCst) != 2 {
            return None;
        } else {
            *until = Some(Instant::now() + Duration::from_millis(92_415));
        }
        Some(Act::send("{tag} BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds\r\n"))
    })
    .await;
    for folder in ["Work", "Xtra", "Yard"] {
        source.change(folder, |folder| *folder = mails(300));
    }
    let destination = Fake::start(MODERN, Vec::new()).await;
    let began = Instant::now();
    let report = rig(&source, &destination).sync().await;
    assert!(began.elapsed() >= Duration::from_millis(92_415), "{:?}", began.elapsed());
    // What was under way on the other connections when the server said so.
    assert!(early.load(SeqCst) < 12, "{} requests while it asked for none", early.load(SeqCst));
    assert_eq!((copied(&report), skipped(&report)), (1200, 0), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_unwell_makes_no_message_unreadable() {
    let until = Instant::now() + Duration::from_secs(40);
    let source = Fake::twisted(MODERN, mails(300), move |command, _| {
        (command.contains("BODY.PEEK[]") && Instant::now() < until)
            .then(|| Act::send("{tag} NO [SERVERBUG] Internal error occurred.\r\n"))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((copied(&report), skipped(&report)), (300, 0), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_version_0_1_0_recorded_as_refused_is_tried_by_the_first_run() {
    let mut checkpoint = Checkpoint::decode(include_bytes!("fixtures/0.1.0.checkpoint")).unwrap();
    let source = Fake::start(MODERN, mails(30)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    checkpoint.fingerprint = mailferry::sync::checkpoint::fingerprint(&rig.spec.source, &rig.spec.destination);
    // That release had copied all but 7 and 8, which were refused, and 21, which was too large.
    let inbox = checkpoint.folders.get_mut(&b"INBOX"[..]).unwrap();
    (inbox.source_uid_validity, inbox.destination_uid_validity) = (7, 7);
    let copied_then = (1..=30).filter(|uid| ![7, 8, 21].contains(uid));
    destination.change("INBOX", |there| {
        for (uid, old) in (1..).zip(copied_then) {
            there.push(Mail { uid, ..mails(30)[old - 1].clone() });
        }
    });
    rig.store.set(&checkpoint);
    let report = rig.sync().await;
    assert_eq!((copied(&report), skipped(&report)), (3, 0), "{report:#?}");
    assert_eq!(bodies(&destination.mails("INBOX")), bodies(&mails(30)));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_foretells_what_would_not_be_copied_and_an_unreachable_server_hides_nothing() {
    let mut all = with_bad(60, &[5]);
    all[9].body.resize(3000, b'x');
    let source = Fake::start(MODERN, all).await;
    let is_picky = Arc::new(AtomicBool::new(true));
    let capabilities = format!("{MODERN} APPENDLIMIT=2000");
    let destination = picky(&capabilities, "{tag} NO Computer says no.\r\n", &is_picky).await;
    let mut rig = rig(&source, &destination);
    rig.spec.dry_run = true;
    let foretold = rig.sync().await.not_copied.unwrap();
    assert_eq!(foretold.reasons, BTreeMap::from([("tooLarge".to_owned(), 1)]));
    rig.spec.dry_run = false;
    rig.sync().await;
    rig.spec.dry_run = true;
    let foretold = rig.sync().await.not_copied.unwrap();
    assert_eq!(foretold.reasons, BTreeMap::from([("refused".to_owned(), 1), ("tooLarge".to_owned(), 1)]));

    rig.spec.dry_run = false;
    drop(source);
    rig.spec.retry.attempts = 0;
    let report = rig.try_sync().await;
    assert_eq!(report.error.as_ref().map(|error| error.class), Some(ErrorClass::Network));
    assert_eq!(report.not_copied.map(|not_copied| not_copied.messages), Some(2));
}

#[tokio::test(start_paused = true)]
async fn messages_that_only_a_view_shows_are_not_copied_and_said_to_be() {
    let list = "* LIST () \"/\" \"INBOX\"\r\n* LIST (\\All) \"/\" \"All\"\r\n{tag} OK done\r\n";
    let capabilities = format!("{MODERN} SPECIAL-USE");
    let source =
        Fake::twisted(&capabilities, mails(6), move |command, _| command.starts_with("LIST").then(|| Act::send(list)))
            .await;
    // 7 and 8 were archived; the third holds the same message as INBOX, twice.
    source.change("All", |all| {
        *all = mails(8);
        all.push(Mail { uid: 9, ..mails(3)[2].clone() });
    });
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = rig(&source, &destination);
    for _ in 0..2 {
        let report = rig.sync().await;
        let not_copied = report.not_copied.unwrap();
        assert_eq!(not_copied.reasons, BTreeMap::from([("leftOut".to_owned(), 3)]), "{:?}", report.left_out);
    }
    let listed = source.heard("RFC822.SIZE BODY.PEEK[HEADER");
    rig.sync().await;
    assert_eq!(source.heard("RFC822.SIZE BODY.PEEK[HEADER"), listed, "a view that did not change is not listed again");
    source.change("All", |all| all.truncate(6));
    assert_eq!(rig.sync().await.not_copied.map(|not_copied| not_copied.messages), Some(0));
    source.change("All", |all| *all = mails(8));
    rig.spec.folders.exclude.push(mailferry::sync::spec::FolderPattern::parse("All").unwrap());
    assert_eq!(rig.sync().await.not_copied.map(|not_copied| not_copied.messages), Some(0), "the user left it out");
}

#[tokio::test(start_paused = true)]
async fn differences_are_told_again_until_a_run_that_ended_has_told_them() {
    let mut all = mails(60);
    all[1].date = "\"01-Jan-1970 00:00:00 +0000\"".to_owned();
    let source = Fake::start(MODERN, all).await;
    let breaks = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&breaks);
    let down = AtomicBool::new(false);
    // From the fiftieth message on the server is away for everything.
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        down.fetch_or(command.contains("BODY 50\r\n"), SeqCst);
        (down.load(SeqCst) && is_broken.load(SeqCst)).then(|| Act::Bye(Vec::new()))
    })
    .await;
    let rig = rig(&source, &destination);
    let broken = rig.try_sync().await;
    assert!(broken.gravest_error().is_some());
    breaks.store(false, SeqCst);
    let told = rig.sync().await;
    assert_eq!(told.folders[0].differences.get("internalDate"), Some(&1), "{told:#?}");
    assert!(told.folders[0].difference_messages.iter().any(|note| note.uid == 2), "{told:#?}");
    assert_eq!(rig.sync().await.folders[0].differences, BTreeMap::new(), "it was told");
}

#[tokio::test(start_paused = true)]
async fn a_flag_that_the_destination_does_not_take_is_told_of_the_source_message() {
    let source = Fake::start(MODERN, mails(3)).await;
    let there = mails(3).into_iter().map(|mail| Mail { uid: mail.uid + 10, ..mail.flagged("") }).collect();
    let destination = Fake::twisted(MODERN, there, |command, _| {
        command.starts_with("UID STORE ").then(|| Act::send("{tag} NO [CANNOT] no flags here\r\n"))
    })
    .await;
    let report = rig(&source, &destination).sync().await;
    let folder = &report.folders[0];
    assert_eq!((adopted(&report), folder.differences.get("flags")), (3, Some(&3)), "{report:#?}");
    let [told] = folder.difference_messages.as_slice() else { panic!("{report:#?}") };
    assert_eq!((told.uid, told.what.contains("its UIDs 11:13")), (1, true), "{told:?}");
}

/// `refused` messages among `ordinary` ones; each command takes 100 ms. Gives how long the run took.
async fn many_refused(capabilities: &str, refused: u32, ordinary: u32, contiguous: bool) -> Duration {
    let all = refused + ordinary;
    let is_bad = |uid: u32| if contiguous { uid <= refused } else { (uid * ordinary) % all >= ordinary };
    let held: Vec<Mail> = (1..=all)
        .map(|uid| {
            let (mark, more) = if is_bad(uid) { ("x-bad", 0) } else { ("x-fine", uid as usize % 50) };
            let body = format!("Message-ID: <{uid}@example.org>\r\n{mark}: yes\r\n\r\n{}\r\n", "x".repeat(100 + more));
            Mail::new(uid, body)
        })
        .collect();
    let bad = held.iter().filter(|mail| is_bad(mail.uid)).count() as u64;
    let source = Fake::start(MODERN, held).await;
    let is_picky = Arc::new(AtomicBool::new(true));
    let destination = picky(capabilities, "{tag} NO Computer says no.\r\n", &is_picky).await;
    destination.takes(Duration::from_millis(100));
    let mut rig = rig(&source, &destination);
    rig.spec.connections = 1;
    let began = Instant::now();
    let report = rig.sync().await;
    let took = began.elapsed();
    assert_eq!((copied(&report), skipped(&report)), (u64::from(all) - bad, bad), "{capabilities} {contiguous}");
    let groups = set_aside(&rig);
    let proven = groups.as_array().unwrap().iter().filter(|group| group["proven"] == true);
    let proven: u64 = proven.map(|group| group["messages"].as_u64().unwrap()).sum();
    assert!(proven * 10 >= bad * 9 || contiguous, "{proven} of {bad} proven: {groups}");
    took
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_refused_messages_among_few_others_are_proven_in_minutes() {
    for (multi, contiguous) in [("", false), (" MULTIAPPEND", false), ("", true)] {
        let took = many_refused(&format!("{MODERN}{multi}"), 500, 100, contiguous).await;
        assert!(took < Duration::from_mins(5), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes: thousands of refused messages, settled within an hour at 100 ms a command"]
async fn thousands_of_refused_messages_among_others_are_settled_within_an_hour() {
    for (multi, contiguous) in [("", false), (" MULTIAPPEND", false), ("", true)] {
        let took = many_refused(&format!("{MODERN}{multi}"), 5000, 1000, contiguous).await;
        assert!(took < Duration::from_hours(1), "{took:?}");
        eprintln!("5,000 of 6,000 refused{multi}, contiguous: {contiguous}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_whose_keywords_are_refused_arrive_without_them_though_all_have_some() {
    let keyed = |mail: Mail| Mail { flags: format!("\\Seen k{}", mail.uid).into_bytes(), ..mail };
    let source = Fake::start(MODERN, mails(12).into_iter().map(keyed).collect()).await;
    let destination = Fake::twisted(MODERN, Vec::new(), |command, _| {
        let has_keyword =
            |text: &str| text.split(['(', ' ', ')']).any(|word| word.starts_with(['k', 'K']) && word.len() < 4);
        let head = command.split('{').next().unwrap_or_default();
        let sets = command.starts_with("APPEND") || command.contains("STORE");
        (sets && has_keyword(head)).then(|| Act::send("{tag} NO Too many user flags in mailbox\r\n"))
    })
    .await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((copied(&report), skipped(&report)), (12, 0), "{report:#?}");
    assert_eq!(report.folders[0].differences, BTreeMap::from([("flags".to_owned(), 12)]), "{report:#?}");
    assert!(destination.mails("INBOX").iter().all(|mail| mail.flags == b"\\Seen"));
}
