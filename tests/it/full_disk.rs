//! A destination without room: a full disk, no inodes left, a quota. Nothing is lost or doubled, and nothing that only
//! found no room is told as refused.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use mailferry::{
    ErrorClass, Side,
    sync::{report::MailboxReport, spec::WaitSteps},
};
use mailferry_testkit::{
    Corpus, CorpusMessage, Dovecot, DovecotOptions, FaultyProxy, MailFormat, SharedServer, differences,
    dovecot::TestAccount, eventually, imap_client::RawImap, shared_server, so,
};

use crate::{
    fake::{Act, Fake, MODERN, Mail},
    rig::{Rig, adopted, copied},
};

/// A small disk; goes when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Makes one, by mount options for a tmpfs; none where this is not root, which is said.
    fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("mailferry-disk-").tempdir().unwrap().keep();
        if run("mount", &["-t", "tmpfs", "-o", &format!("mode=0777,{options}"), "none"], &folder) {
            return Some(Self(folder));
        }
        fs::remove_dir(&folder).ok();
        eprintln!("not tested here: only root can mount a small disk");
        None
    }

    /// Changes its size.
    fn remount(&self, options: &str) {
        assert!(run("mount", &["-o", &format!("remount,{options}")], &self.0));
    }

    /// A server whose mail lies on it.
    fn server(&self, format: MailFormat) -> Dovecot {
        Dovecot::start(&DovecotOptions { format, mail_in: Some(self.0.clone()), ..DovecotOptions::default() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Some server may still have a file open.
        run("umount", &["--lazy"], &self.0);
        fs::remove_dir(&self.0).ok();
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> bool {
    Command::new(program).args(arguments).arg(folder).status().is_ok_and(|status| status.success())
}

fn skipped(report: &MailboxReport) -> u64 {
    report.folders.iter().flat_map(|folder| folder.skipped.values()).sum()
}

/// Both accounts hold the same, but for an order that was told.
async fn same(left: &mut RawImap, right: &TestAccount<'_>, reports: &[&MailboxReport]) {
    let folders = reports.iter().flat_map(|report| &report.folders).filter(|f| f.differences.contains_key("order"));
    let told: Vec<String> = folders.map(|f| format!("{}: the same messages in another order", f.source)).collect();
    let mut found = differences(&left.snapshot().await, &right.connect().await.snapshot().await);
    found.retain(|difference| !told.contains(difference));
    assert_eq!(found, Vec::<String>::new(), "{reports:#?}");
}

/// How mail lies on a disk that is too small at first, its mount options then, and those that give room.
const DISKS: [(MailFormat, &str, &str); 4] = [
    (MailFormat::Maildir, "size=1m", "size=20m"),
    (MailFormat::Mdbox, "size=1m", "size=20m"),
    (MailFormat::Sdbox, "size=1m", "size=20m"),
    (MailFormat::Maildir, "nr_inodes=120", "nr_inodes=2000"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_and_gets_room_while_it_is_waited_for_gets_every_message_once() {
    let cases = DISKS.map(|(format, little, much)| async move {
        let Some(disk) = Disk::mount(little) else { return };
        let server = disk.server(format);
        let (source, destination) = (shared_server(SharedServer::Maildir).account(), server.account());
        let mut left = source.connect().await;
        left.seed(&Corpus::bulk(300, 3 << 20, 3, 41)).await;
        let mut rig = Rig::new(&source, &destination);
        rig.spec.retry.waits.without_control = Duration::from_mins(1);
        rig.spec.retry.patience = Duration::from_mins(2);
        let progress = Arc::clone(&rig.progress);
        let room = async {
            // Now and then Dovecot does not refuse, but stands still until there is room.
            let mut last = (0, Instant::now());
            eventually("the sync waits for a refusal to pass, or for an answer", async || {
                let waiting = progress.snapshot().waiting.unwrap_or_default();
                let done = progress.messages_done.load(SeqCst);
                if done != last.0 {
                    last = (done, Instant::now());
                }
                let stands_still = last.1.elapsed() > Duration::from_secs(20);
                so(waiting.contains("refused") || stands_still, format!("{done} messages; {waiting}"))
            })
            .await;
            disk.remount(much);
        };
        let mut sync = pin!(rig.sync());
        let report = tokio::select! {
            report = &mut sync => panic!("it ended before it waited: {report:#?}"),
            () = room => sync.await,
        };
        assert_eq!((copied(&report) + adopted(&report), skipped(&report)), (300, 0), "{format:?} {report:#?}");
        same(&mut left, &destination, &[&report]).await;
    });
    join_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stays_full_ends_the_run_with_an_error_and_the_next_copies_the_rest_once() {
    let cases = DISKS.map(|(format, little, much)| async move {
        let Some(disk) = Disk::mount(little) else { return };
        let server = disk.server(format);
        let (source, destination) = (shared_server(SharedServer::Maildir).account(), server.account());
        let mut left = source.connect().await;
        left.seed(&Corpus::bulk(300, 3 << 20, 3, 41)).await;
        let mut rig = Rig::new(&source, &destination);
        rig.spec.retry.waits.without_control = Duration::from_mins(1);
        // Longer than a look for what was refused: only pure waiting uses patience up.
        rig.spec.retry.waits.unwell = [100, 200, 4000, 4000, 4000].map(Duration::from_millis);
        rig.spec.retry.patience = Duration::from_secs(3);
        let report = rig.try_sync().await;
        let error = report.gravest_error().expect("an error");
        assert_eq!((error.class, error.side), (ErrorClass::Network, Some(Side::Destination)), "{format:?} {error:?}");
        assert!(copied(&report) > 0 && skipped(&report) == 0, "{format:?} {report:#?}");
        disk.remount(much);
        let rest = rig.sync().await;
        let there = [&report, &rest].map(|report| copied(report) + adopted(report));
        assert_eq!((there.iter().sum::<u64>(), skipped(&rest)), (300, 0), "{format:?} {rest:#?}");
        same(&mut left, &destination, &[&report, &rest]).await;
    });
    join_all(cases).await;
}

/// Messages in a body of so many bytes.
fn sized(number: usize, bytes: usize) -> CorpusMessage {
    let mut body = format!("Message-ID: <{number}@sized>\r\nSubject: {number}\r\n\r\n").into_bytes();
    body.resize(bytes.max(body.len() + 1), b'x');
    CorpusMessage::new(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_reached_is_no_verdict_and_the_rest_follows_once_it_is_raised() {
    let server =
        Dovecot::start(&DovecotOptions { format: MailFormat::Mdbox, quota: Some(0), ..DovecotOptions::default() });
    let small = |range: std::ops::Range<usize>| range.map(|n| sized(n, 2000)).collect::<Vec<_>>();
    let with_large = [small(0..20), vec![sized(20, 500_000)], small(21..60)].concat();
    // What the quota takes, what there is, and how many of that go there: some are kept back to tell a message that is
    // refused from a server that refuses.
    for (name, quota, messages, fit) in [
        ("over", 1000, small(0..60), 0..=0),
        ("under", 300_000, with_large, 55..=59),
        ("between", 300_000, small(0..300), 100..=165),
    ] {
        let set = |bytes: u64| server.add_user_with(name, b"x", &format!("userdb_quota_rule=*:bytes={bytes}"));
        let (source, destination) = (shared_server(SharedServer::Maildir).account(), set(quota));
        let mut left = source.connect().await;
        left.append("INBOX", &messages).await;
        let rig = Rig::new(&source, &destination);
        let report = rig.try_sync().await;
        let error = report.gravest_error().expect("an error");
        assert_eq!((error.class, error.side), (ErrorClass::Quota, Some(Side::Destination)), "{name} {report:#?}");
        let there = copied(&report) + adopted(&report);
        assert!(fit.contains(&there) && skipped(&report) == 0, "{name} {report:#?}");
        let _ = set(100_000_000);
        let rest = rig.sync().await;
        assert_eq!(skipped(&rest), 0, "{name} {rest:#?}");
        same(&mut left, &destination, &[&report, &rest]).await;
    }
}

/// Copies `refused` messages above the destination's limit of size among `ordinary` ones below it, over lines that delay
/// each byte by `delay`, and gives how long one run took for all of them.
async fn copy_beside_too_large_ones(refused: usize, ordinary: usize, delay: Duration) -> Duration {
    let extra = "protocol imap {\n  mail_plugins = quota imap_quota\n}\nplugin {\n  quota_max_mail_size = 10k\n}\n";
    let server =
        Dovecot::start(&DovecotOptions { quota: Some(0), extra: extra.to_owned(), ..DovecotOptions::default() });
    let (source, destination) = (shared_server(SharedServer::Maildir).account(), server.account());
    let mut left = source.connect().await;
    let all = refused + ordinary;
    let is_ordinary = |n: usize| (n * ordinary) % all < ordinary;
    let size = |n: usize| if is_ordinary(n) { 100 + (n * 7919) % 9000 } else { 10_300 + n % 500 };
    let messages: Vec<CorpusMessage> = (0..all).map(|n| sized(n, size(n))).collect();
    left.append("INBOX", &messages).await;
    let mut rig = Rig::new(&source, &destination);
    let mut proxies = Vec::new();
    if !delay.is_zero() {
        for endpoint in [&mut rig.spec.source, &mut rig.spec.destination] {
            let proxy = FaultyProxy::start(endpoint.port, delay);
            endpoint.port = proxy.port();
            proxies.push(proxy);
        }
        rig.spec.retry.waits = WaitSteps::default();
        rig.spec.retry.patience = Duration::from_mins(15);
    }
    let began = Instant::now();
    let report = rig.sync().await;
    let took = began.elapsed();
    assert_eq!(
        (copied(&report) + adopted(&report), skipped(&report)),
        (ordinary as u64, refused as u64),
        "{report:#?}"
    );
    let there = destination.connect().await.folder_facts("INBOX").await.1;
    assert_eq!(there.len(), ordinary);
    assert!(there.iter().all(|message| message.size < 10_240));
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_refused_in_large_numbers_keep_no_other_from_arriving() {
    copy_beside_too_large_ones(90, 30, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes: five thousand messages above a limit of size, at 100 ms for each round trip"]
async fn five_thousand_messages_above_a_limit_of_size_are_settled_within_an_hour() {
    let took = copy_beside_too_large_ones(5000, 1000, Duration::from_millis(50)).await;
    eprintln!("5,000 of 6,000 above the limit of size: {took:?}");
    assert!(took < Duration::from_hours(1), "{took:?}");
}

/// A destination with room for so many bytes, which says no more than a server whose disk is full.
async fn with_room(capabilities: &str, room: &Arc<AtomicI64>) -> Fake {
    let room = Arc::clone(room);
    Fake::twisted(capabilities, Vec::new(), move |command, _| {
        if !command.starts_with("APPEND") {
            return None;
        }
        let bytes = i64::try_from(command.len()).unwrap();
        if room.load(SeqCst) < bytes {
            return Some(Act::send("{tag} NO [SERVERBUG] Internal error occurred. Refer to server log.\r\n"));
        }
        room.fetch_sub(bytes, SeqCst);
        None
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fills_up_bit_by_bit_ends_the_run_with_an_error_and_no_verdict() {
    for capabilities in [MODERN.to_owned(), format!("{MODERN} MULTIAPPEND")] {
        for (each, room) in [(100, 700_000), (300, 700_000)] {
            let source = Fake::start(MODERN, Vec::new()).await;
            for name in ["INBOX", "Work", "Yard"] {
                let sizes = [300, 800, 1500, 3000, 6000, 30_000, 400, 90_000];
                let body = |uid: u32| {
                    let mut body = format!("Message-ID: <{name}-{uid}@example.org>\r\n\r\n").into_bytes();
                    body.resize(sizes[uid as usize * 5 % sizes.len()], b'x');
                    body
                };
                source.change(name, |mails| *mails = (1..=each).map(|uid| Mail::new(uid, body(uid))).collect());
            }
            let room = Arc::new(AtomicI64::new(room));
            let destination = with_room(&capabilities, &room).await;
            let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
            rig.spec.retry.waits = WaitSteps::default();
            rig.spec.retry.patience = Duration::from_mins(15);
            let report = rig.try_sync().await;
            assert_eq!(
                report.gravest_error().map(|error| error.class),
                Some(ErrorClass::Network),
                "{each} {report:#?}"
            );
            assert!(copied(&report) > 0 && skipped(&report) == 0, "{each} {report:#?}");
            room.store(i64::MAX, SeqCst);
            let rest = rig.sync().await;
            let there: usize = ["INBOX", "Work", "Yard"].iter().map(|name| destination.mails(name).len()).sum();
            assert_eq!((there, skipped(&rest)), (3 * each as usize, 0), "{rest:#?}");
        }
    }
}
