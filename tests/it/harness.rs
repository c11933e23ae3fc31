//! The test harness itself: what the other tests rely on.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use mailferry_testkit::{
    ConnectionFault, Corpus, CorpusMessage, Dovecot, DovecotOptions, FaultyProxy, RawImap, ReplyValue, ScriptedServer,
    SharedServer, corpus, differences,
    dovecot::ServerCertificate,
    pki::pki,
    proxy::{BreakMode, BreakPoint, Direction},
    scripted::ScriptStep,
    shared_server, snapshot,
};
use sha2::{Digest as _, Sha256};

/// Hash, flags, date.
type Facts = ([u8; 32], Vec<String>, i64);

/// What a snapshot must hold after a corpus was seeded: per folder hash, flags and date of each message.
fn expected(corpus: &Corpus) -> BTreeMap<String, Vec<Facts>> {
    let facts = |message: &CorpusMessage| {
        let mut flags = message.flags.clone();
        flags.sort();
        let date = snapshot::parse_date_time(message.date.as_deref().expect("dated"));
        (Sha256::digest(&message.body).into(), flags, date)
    };
    let folder = |folder: &corpus::CorpusFolder| (folder.path.clone(), folder.messages.iter().map(facts).collect());
    corpus.folders.iter().map(folder).collect()
}

async fn holds_what_was_seeded(kind: SharedServer) {
    let account = shared_server(kind).account();
    let mut imap = account.connect().await;
    let separator = imap.namespace().await.separator;
    let corpus = match separator {
        '/' => Corpus::varied(1),
        other => Corpus::varied(1).without(other),
    };
    imap.seed(&corpus).await;
    let snapshot = imap.snapshot().await;
    let expected = expected(&corpus);
    for (path, messages) in &expected {
        let folder = snapshot.get(path).unwrap_or_else(|| panic!("{path:?} is missing"));
        assert!(folder.selectable, "{path:?}");
        assert_eq!(folder.messages.len(), messages.len(), "{path:?}");
        for (at, (found, wanted)) in folder.messages.iter().zip(messages).enumerate() {
            let found_facts = (found.sha256, found.flags.clone(), found.internal_date);
            assert_eq!(&found_facts, wanted, "{path:?}, message {at}");
            assert_eq!(found.size, found.claimed_size, "{path:?}, message {at}");
        }
    }
    for folder in &corpus.folders {
        assert_eq!(snapshot[&folder.path].subscribed, folder.subscribed, "{:?}", folder.path);
    }
    let parents: Vec<&String> = snapshot.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(parents.iter().all(|path| !snapshot[*path].selectable || *path == "INBOX"), "{parents:?}");
}

#[tokio::test]
async fn maildir_holds_what_was_seeded() {
    holds_what_was_seeded(SharedServer::Maildir).await;
}

#[tokio::test]
async fn mdbox_holds_what_was_seeded() {
    holds_what_was_seeded(SharedServer::Mdbox).await;
}

#[tokio::test]
async fn sdbox_holds_what_was_seeded() {
    holds_what_was_seeded(SharedServer::Sdbox).await;
}

#[tokio::test]
async fn dotted_maildir_holds_what_was_seeded() {
    holds_what_was_seeded(SharedServer::DottedMaildir).await;
}

#[tokio::test]
async fn dotted_mdbox_holds_what_was_seeded() {
    holds_what_was_seeded(SharedServer::DottedMdbox).await;
}

#[tokio::test]
async fn two_accounts_are_compared_by_content_flags_date_order_and_subscription() {
    let (left, right) =
        (shared_server(SharedServer::Mdbox).account(), shared_server(SharedServer::DottedMdbox).account());
    let (mut left, mut right) = (left.connect().await, right.connect().await);
    let corpus = Corpus::varied(2).without('.');
    left.seed(&corpus).await;
    right.seed(&corpus).await;
    let source = left.snapshot().await;
    assert_eq!(differences(&source, &right.snapshot().await), Vec::<String>::new());

    right.append("INBOX", &[CorpusMessage::new("Subject: one more\r\n\r\n")]).await;
    assert_eq!(differences(&source, &right.snapshot().await).len(), 1);
    right.expunge("INBOX", "*").await;
    assert_eq!(differences(&source, &right.snapshot().await), Vec::<String>::new());
    right.store("INBOX.Sent", "1", "+FLAGS (changed)").await;
    right.command_ok("UNSUBSCRIBE INBOX").await;
    // The folder's message as it was and as it is, and the subscription.
    assert_eq!(differences(&source, &right.snapshot().await).len(), 3);
}

#[tokio::test]
async fn dovecot_rewrites_what_the_corpus_says_that_it_rewrites() {
    for kind in SharedServer::ALL {
        let mut imap = shared_server(kind).account().connect().await;
        for (what, message, stored) in corpus::rewritten_messages() {
            let uids = imap.append("INBOX", &[message]).await;
            let (_, facts) = imap.folder_facts("INBOX").await;
            assert_eq!(uids, [facts.last().unwrap().uid]);
            assert_eq!(facts.last().unwrap().sha256, <[u8; 32]>::from(Sha256::digest(stored)), "{what}, {kind:?}");
        }
    }
}

#[tokio::test]
async fn accounts_have_any_name_and_password() {
    let server = shared_server(SharedServer::Mdbox);
    for (user, password) in [
        ("o'neil \"quoted\" us:er@example.org", "p\"a\\s s€"),
        ("Ünïcode", ":{PLAIN}x:ÿ'%u%{user}"),
        ("a/b/../c", " leading and trailing "),
    ] {
        let account = server.add_user(user, password);
        account.connect().await.logout().await;
        let refused = RawImap::plain(server.plain_port()).await.authenticate("", user, "wrong").await;
        assert_eq!(refused.status, "NO", "{user:?}");
    }
    let bytes = server.add_user_with("bytes", b"\xff\xfe", "");
    let mut imap = RawImap::plain(bytes.server.plain_port()).await;
    // NUL, user, NUL, and the two bytes.
    assert_eq!(imap.command(b"AUTHENTICATE PLAIN AGJ5dGVzAP/+").await.status, "OK");
}

#[tokio::test]
async fn a_master_user_logs_in_for_others() {
    let server = shared_server(SharedServer::Maildir);
    let account = server.account();
    let mut imap = RawImap::tls(server.tls_port()).await;
    let reply = imap.authenticate(&account.user, "master", "m@ster pass").await;
    assert_eq!(reply.status, "OK", "{}", reply.text);
    let mut imap = RawImap::tls(server.tls_port()).await;
    imap.login(&format!("{}*master", account.user), "m@ster pass").await;
}

#[tokio::test]
async fn extensions_can_be_hidden_and_quota_set() {
    let options = DovecotOptions { hide: vec!["MULTIAPPEND", "LITERAL+"], quota: Some(0), ..DovecotOptions::default() };
    let server = Dovecot::start(&options);
    let account = server.add_user_with("small", b"x", "userdb_quota_rule=*:bytes=1000");
    let mut imap = account.connect().await;
    let capabilities = imap.command_ok("CAPABILITY").await.untagged[0].iter().map(ReplyValue::text).collect::<Vec<_>>();
    assert!(capabilities.iter().any(|c| c == "UIDPLUS"));
    assert!(!capabilities.iter().any(|c| c == "MULTIAPPEND" || c == "LITERAL+"), "{capabilities:?}");
    let reply = imap.command(format!("APPEND INBOX {{2000+}}\r\n{}", "x".repeat(2000)).as_bytes()).await;
    assert!(reply.status == "NO" && reply.text.contains("OVERQUOTA"), "{} {}", reply.status, reply.text);
}

#[tokio::test]
async fn a_server_may_show_a_bad_certificate() {
    for (certificate, complaint) in
        [(ServerCertificate::Expired, "Expired"), (ServerCertificate::WrongName, "NotValidForName")]
    {
        let server = Dovecot::start(&DovecotOptions { certificate, ..DovecotOptions::default() });
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", server.tls_port())).await.unwrap();
        let name = tokio_rustls::rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(pki().client());
        let error = connector.connect(name, tcp).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(complaint) || format!("{error:?}").contains(complaint), "{error:?}");
    }
}

#[tokio::test]
async fn the_proxy_delays_both_ways_and_the_opening_of_a_connection() {
    let account = shared_server(SharedServer::Mdbox).account();
    let proxy = FaultyProxy::start(account.server.plain_port(), Duration::from_millis(40));
    let start = Instant::now();
    let mut imap = RawImap::plain(proxy.port()).await;
    // The handshake's round trip, and another until the greeting is here.
    assert!(start.elapsed() >= Duration::from_millis(160), "{:?}", start.elapsed());
    imap.login(&account.user, &account.password).await;
    let start = Instant::now();
    imap.command_ok("NOOP").await;
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    assert_eq!(proxy.accepted(), 1);
    assert!(proxy.bytes_carried(Direction::ToServer) > 0);
}

#[tokio::test]
async fn the_proxy_breaks_connections_where_it_is_told() {
    let account = shared_server(SharedServer::Mdbox).account();
    let proxy = FaultyProxy::start(account.server.plain_port(), Duration::ZERO);
    let fault = |how, when| Some(ConnectionFault { when, how });
    proxy.break_next([
        fault(BreakMode::Close, BreakPoint::Bytes(Direction::ToClient, 10)),
        None,
        fault(BreakMode::Reset, BreakPoint::Seen(Direction::ToServer, b"NOOP".to_vec())),
        fault(BreakMode::Stall, BreakPoint::Bytes(Direction::ToClient, 3)),
    ]);
    let read_all = async |send: &'static [u8]| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        stream.write_all(send).await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.map(|_| got)
    };
    assert_eq!(read_all(b"").await.unwrap().len(), 10);
    let whole = read_all(b"a NOOP\r\nb LOGOUT\r\n").await.unwrap();
    assert!(whole.ends_with(b"b OK Logout completed.\r\n"), "{:?}", String::from_utf8(whole));
    let reset = read_all(b"a NOOP\r\nb LOGOUT\r\n").await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    let stalled = tokio::time::timeout(Duration::from_millis(200), read_all(b"a LOGOUT\r\n")).await;
    assert!(stalled.is_err(), "{stalled:?}");

    let mut imap = RawImap::plain(proxy.port()).await;
    imap.command_ok("NOOP").await;
    proxy.break_all(BreakMode::Close);
    let lost = tokio::spawn(async move { imap.command_ok("NOOP").await }).await;
    assert!(lost.is_err());
}

#[tokio::test]
async fn a_scripted_server_plays_its_script() {
    let script = vec![
        ScriptStep::Login("IMAP4rev1 LITERAL+"),
        ScriptStep::Expect("select *"),
        ScriptStep::send("* 1 EXISTS\r\n* OK [UIDVALIDITY 9] x\r\n{tag} OK selected\r\n"),
        ScriptStep::Expect("UID FETCH*"),
        ScriptStep::send("* 1 FETCH (UID 1 BODY[] {100}\r\nno more than this"),
        ScriptStep::Close,
    ];
    let server = ScriptedServer::play(Some(&pki().good), vec![script]).await;
    let mut imap = RawImap::tls(server.port()).await;
    imap.login("anybody", "anything").await;
    assert_eq!(imap.folders().await.len(), 1);
    assert_eq!(imap.select("INBOX").await.untagged[0][0].text(), "1");
    let fetched = tokio::spawn(async move { imap.command_ok("UID FETCH 1 BODY[]").await }).await;
    assert!(fetched.is_err());
    assert_eq!(server.connections(), 1);
    assert!(server.received_commands().last().unwrap().ends_with("UID FETCH 1 BODY[]"));
}

#[tokio::test]
async fn servers_run_side_by_side() {
    let starts = (0..8).map(|_| tokio::task::spawn_blocking(|| Dovecot::start(&DovecotOptions::default())));
    for start in starts.collect::<Vec<_>>() {
        let server = start.await.unwrap();
        server.account().connect().await.logout().await;
    }
}

/// What scripts/with-time-limit.sh makes of a test program that prints what this shell script does: its exit code, and what
/// it complains of.
fn limited(script: &str) -> (Option<i32>, String) {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(format!("{root}/scripts/with-time-limit.sh"));
    let output = command.args(["sh", "-c", script]).env("TEST_LIMIT", "65").current_dir(root).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_test_that_has_no_end_is_named_and_ended() {
    let (code, complaint) = limited(
        "echo 'test it::is_slow has been running for over 60 seconds'; echo 'test it::is_slow ... ok'
        echo 'test it::hangs has been running for over 60 seconds'; exec sleep 600",
    );
    assert_eq!(code, Some(124), "{complaint}");
    assert!(complaint.contains("test it::hangs ... FAILED: no end after 65 seconds"), "{complaint}");
    assert!(!complaint.contains("is_slow"), "{complaint}");
}

#[test]
fn a_test_program_that_ends_in_time_ends_with_its_own_exit_code() {
    // What it started may still hold its output open.
    assert_eq!(limited("sleep 5 & echo 'test it::fails ... FAILED'; exit 101"), (Some(101), String::new()));
}
