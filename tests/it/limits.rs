//! What servers allow: quota, sizes, connections. A limit is told by its class, and the next run goes on from there.

use mailferry::{ErrorClass, Side};
use mailferry_testkit::{
    Corpus, CorpusMessage, Dovecot, DovecotOptions, MailFormat, SharedServer, differences, eventually, shared_server,
    so,
};

use crate::{
    fake::{Act, Fake, MODERN, mails},
    rig::{Rig, adopted, copied, endpoint},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_stops_the_sync_and_the_next_goes_on_once_it_is_raised() {
    let server =
        Dovecot::start(&DovecotOptions { format: MailFormat::Mdbox, quota: Some(0), ..DovecotOptions::default() });
    let (source, destination) = (
        shared_server(SharedServer::Maildir).account(),
        server.add_user_with("full", b"x", "userdb_quota_rule=*:bytes=1000000"),
    );
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let corpus = Corpus::bulk(300, 3 << 20, 3, 41);
    left.seed(&corpus).await;
    let rig = Rig::new(&source, &destination);
    let report = rig.try_sync().await;
    let error = report.error.as_ref().expect("an error");
    assert_eq!((error.class, error.side), (ErrorClass::Quota, Some(Side::Destination)), "{report:#?}");
    assert!(error.advice.as_deref().is_some_and(|advice| advice.contains("quota")), "{error:?}");
    assert!(copied(&report) > 0 && copied(&report) < 300, "{report:#?}");
    assert_eq!(report.reconnects, 0, "a full mailbox is not tried again and again");
    let full = rig.try_sync().await;
    assert_eq!(full.error.map(|error| error.class), Some(ErrorClass::Quota));

    let _ = server.add_user_with("full", b"x", "userdb_quota_rule=*:bytes=100000000");
    let rest = rig.sync().await;
    assert!(copied(&rest) > 0);
    // Small messages went where large ones did not fit any more: that is told.
    let told: Vec<String> = rest
        .folders
        .iter()
        .filter(|f| f.differences.contains_key("order"))
        .map(|f| format!("{}: the same messages in another order", f.source))
        .collect();
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), told, "{rest:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_above_the_destinations_size_limit_are_skipped_and_told_and_others_arrive() {
    let extra = "protocol imap {\n  mail_plugins = quota imap_quota\n}\nplugin {\n  quota_max_mail_size = 100k\n}\n";
    let server =
        Dovecot::start(&DovecotOptions { quota: Some(0), extra: extra.to_owned(), ..DovecotOptions::default() });
    let (source, destination) = (shared_server(SharedServer::Maildir).account(), server.account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let sized = |n: usize| CorpusMessage::new([format!("Subject: {n}\r\n\r\n").as_bytes(), &vec![b'x'; n]].concat());
    left.append("INBOX", &[sized(10), sized(150_000), sized(20), sized(3 << 20), sized(30), sized(90_000)]).await;
    let rig = Rig::new(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(copied(&report), 4, "{report:#?}");
    let folder = &report.folders[0];
    assert_eq!(folder.skipped.values().sum::<u64>(), 2, "{report:#?}");
    let told: Vec<u32> = folder.skipped_messages.iter().map(|note| note.uid).collect();
    assert_eq!(told, [2, 4], "{report:#?}");
    assert_eq!(right.folder_facts("INBOX").await.1.len(), 4);
    let again = rig.sync().await;
    assert_eq!(copied(&again), 0);
    // No ordinary message is as large, so nothing is proven: every run says so and tries.
    assert_eq!(again.not_copied.map(|not_copied| not_copied.messages), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_limit_keeps_large_messages_from_being_sent_at_all() {
    for (capability, status) in [(" APPENDLIMIT=1000", ""), (" APPENDLIMIT", " APPENDLIMIT 1000")] {
        let source = Fake::start(MODERN, mails(6)).await;
        source.change("INBOX", |mails| {
            mails[1].body.resize(1001, b'x');
            mails[2].body.resize(1000, b'x');
            mails[4].body.resize(2 << 20, b'x');
            // It says that it is small.
            mails[5].body.resize(3 << 20, b'x');
            mails[5].size = Some(50);
        });
        let destination = Fake::twisted(&format!("{MODERN}{capability}"), Vec::new(), move |command, _| {
            let status = format!("* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 7{status})\r\n{{tag}} OK done\r\n");
            command.starts_with("STATUS").then(|| Act::Send(status.into()))
        })
        .await;
        let rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
        let report = rig.sync().await;
        assert_eq!((copied(&report), report.folders[0].skipped.get("tooLarge")), (3, Some(&3)), "{report:#?}");
        assert_eq!(destination.heard("{1001}") + destination.heard("{1001+}"), 0);
        assert!(destination.mails("INBOX").iter().all(|m| m.body.len() <= 1000));
        assert_eq!(copied(&rig.sync().await), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_connections_than_wished_for_are_enough() {
    let few = |format| Dovecot::start(&DovecotOptions { format, connections_per_user: 2, ..DovecotOptions::default() });
    let (from, to) = (few(MailFormat::Maildir), few(MailFormat::Mdbox));
    let (source, destination) = (from.account(), to.account());
    // One of two is for the test itself.
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&Corpus::bulk(400, 4 << 20, 8, 42)).await;
    let mut rig = Rig::new(&source, &destination);
    rig.spec.connections = 6;
    let report = rig.sync().await;
    assert_eq!(copied(&report), 400);
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_full_of_other_sessions_is_throttling_not_a_wrong_password() {
    let server = Dovecot::start(&DovecotOptions { connections_per_user: 1, ..DovecotOptions::default() });
    let account = server.account();
    let _busy = account.connect().await;
    let source = Fake::start(MODERN, mails(3)).await;
    let to = endpoint(Side::Destination, server.tls_port(), &account.user, &account.password);
    let mut rig = Rig::between(source.endpoint(Side::Source), to);
    rig.spec.retry.attempts = 2;
    let report = rig.try_sync().await;
    let error = report.error.expect("an error");
    assert_eq!((error.class, error.side), (ErrorClass::Throttled, Some(Side::Destination)), "{error:?}");
    assert_eq!(report.reconnects, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_an_administrator_ends_are_made_again() {
    let corpus = Corpus::bulk(600, 8 << 20, 4, 43);
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&corpus).await;
    let rig = Rig::new(&source, &destination);
    let user = destination.user.clone();
    let kicks = async {
        eventually("100 messages are done", async || {
            let done = rig.progress.messages_done.load(std::sync::atomic::Ordering::SeqCst);
            so(done >= 100, format!("{done} are"))
        })
        .await;
        tokio::task::spawn_blocking(move || shared_server(SharedServer::Mdbox).kick(&user)).await.unwrap();
    };
    let (report, ()) = tokio::join!(rig.sync(), kicks);
    drop(right);
    right = destination.connect().await;
    assert_eq!(copied(&report) + adopted(&report), 600);
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "{report:#?}");
}
