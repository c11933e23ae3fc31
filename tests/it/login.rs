//! From nothing to a logged-in connection: every way to log in, every password, and servers that misbehave meanwhile.

use std::{
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::join_all;
use mailferry::{
    Error, ErrorClass, Side,
    imap::{AccountLogin, ConnectionSecurity, Endpoint, LoginCredential, MasterLogin, TlsOptions},
};
use mailferry_testkit::{
    Corpus, CorpusMessage, Dovecot, DovecotOptions, FaultyProxy, ScriptedServer, SharedServer, TestAccount,
    differences, dovecot::ServerCertificate, proxy::Direction, scripted::ScriptStep, shared_server,
};

use crate::{
    fake::{Act, CONNECT, Fake, MODERN, asks_for, hasty, mails},
    lesser::Lesser,
    rig::{Rig, copied, endpoint},
};

/// Where the server is expected to answer: a busy machine may take its time.
const PATIENT: Duration = Duration::from_mins(1);
/// Where silence is what is expected.
const IMPATIENT: Duration = Duration::from_secs(1);

/// The error of a sync whose source is this; nothing is copied.
async fn refusal(source: Endpoint) -> Error {
    refusal_within(PATIENT, source).await
}

async fn refusal_within(timeout: Duration, source: Endpoint) -> Error {
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = Rig::between(source, destination.endpoint(Side::Destination));
    rig.spec.retry.attempts = 1;
    rig.spec.source.timeouts.connect = timeout;
    rig.spec.source.timeouts.reply = timeout;
    let report = rig.try_sync().await;
    assert_eq!(copied(&report), 0);
    report.error.expect("an error")
}

fn plain(port: u16) -> Endpoint {
    let mut endpoint = endpoint(Side::Source, port, "anybody", "s3cret-word");
    endpoint.tls = TlsOptions { mode: ConnectionSecurity::None, ..TlsOptions::default() };
    endpoint
}

/// One copy from this source endpoint, of one message.
async fn works(source: Endpoint, about: &str) {
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = Rig::between(source, destination.endpoint(Side::Destination));
    rig.spec.connections = 1;
    let report = rig.try_sync().await;
    assert!(report.error.is_none(), "{about}: {report:#?}");
    assert_eq!(copied(&report), 1, "{about}");
}

const PASSWORDS: [&[u8]; 12] = [
    b"pass word",
    b" leading and trailing ",
    b"quote\"quote",
    b"back\\slash\\",
    b"{3}",
    b"{3+}",
    b"(a) *%]",
    "gr\u{fc}n \u{1f511}".as_bytes(),
    b"NIL",
    b"\"",
    b"%u{user}",
    b"1",
];

/// Copies to and from an account with this password.
async fn password_works(mut there: Endpoint, user: &str, password: &[u8]) {
    there.login.username = user.to_owned();
    there.login.credential = LoginCredential::password(password);
    let feeder = Fake::start(MODERN, mails(1)).await;
    let report = Rig::between(feeder.endpoint(Side::Source), there.clone()).sync().await;
    assert_eq!(copied(&report), 1, "{password:?}");
    there.side = Side::Source;
    works(there, &format!("{password:?}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_any_characters_work_by_sasl_plain() {
    let server = shared_server(SharedServer::Mdbox);
    join_all(PASSWORDS.into_iter().chain([&b"\xff\xfe\x80"[..]]).enumerate().map(|(at, password)| async move {
        let account = server.add_user_with(&format!("Ünï \"{at}\" o'neil"), password, "");
        let there = endpoint(Side::Destination, server.tls_port(), "", "");
        password_works(there, &account.user, password).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_any_characters_work_where_there_is_only_login() {
    let server = Lesser::start();
    let relay = server.relay().await;
    let (server, relay) = (&server, &relay);
    join_all(PASSWORDS.into_iter().enumerate().map(|(at, password)| async move {
        let account = server.dovecot.add_user_with(&format!("o'neil \\ \"{at}\""), password, "");
        password_works(relay.endpoint(&account), &account.user, password).await;
    }))
    .await;
    // What the command cannot carry the mechanism can, and nothing where there is only the command.
    let unsayable = b"\xff-s3cret";
    let account = server.dovecot.add_user_with("bytes", unsayable, "");
    password_works(relay.endpoint(&account), &account.user, unsayable).await;
    let script = vec![ScriptStep::send("* OK [CAPABILITY IMAP4rev1] ready\r\n"), ScriptStep::Stall];
    let only_command = ScriptedServer::play(None, vec![script]).await;
    let mut source = plain(only_command.port());
    source.login.credential = LoginCredential::password(*unsayable);
    let error = refusal(source).await;
    assert_eq!(error.class, ErrorClass::Configuration, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_name_that_is_more_than_a_name_is_never_sent() {
    let account = shared_server(SharedServer::Mdbox).account();
    let honest = endpoint(Side::Source, account.server.tls_port(), &account.user, &account.password);
    let LoginCredential::Password(secret) = honest.login.credential.clone() else { panic!("a password") };
    let token = LoginCredential::Token(secret);
    for end in ["\u{1}auth=Bearer x\u{1}\u{1}", "\0other", "\r\nA1 DELETE INBOX", "\u{85}"] {
        let forged = format!("{}{end}", account.user);
        for credential in [honest.login.credential.clone(), token.clone()] {
            let mut source = honest.clone();
            (source.login.username, source.login.credential) = (forged.clone(), credential);
            let error = refusal(source).await;
            assert_eq!(error.class, ErrorClass::Configuration, "{error:?}");
            assert!(error.what.contains("control character"), "{error:?}");
        }
        let mut by_master = honest.clone();
        by_master.login.master = Some(MasterLogin::AuthorizationIdentity { username: forged });
        assert_eq!(refusal(by_master).await.class, ErrorClass::Configuration);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once_and_never_shown() {
    let account = shared_server(SharedServer::Mdbox).account();
    let mut source = endpoint(Side::Source, account.server.tls_port(), &account.user, "wrong-s3cret");
    let error = refusal(source.clone()).await;
    assert_eq!((error.class, error.side), (ErrorClass::Authentication, Some(Side::Source)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
    assert!(!format!("{source:?}").contains("s3cret"));
    source.login.username = "nobody@example.org".into();
    assert_eq!(refusal(source).await.class, ErrorClass::Authentication);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_moves_mail_without_knowing_passwords() {
    let corpus = Corpus::bulk(40, 1 << 18, 2, 51);
    for (master, about) in [
        (MasterLogin::AuthorizationIdentity { username: "master".into() }, "authorization identity"),
        (MasterLogin::Suffix { username: "master".into(), separator: "*".into() }, "user*master"),
    ] {
        let (source, destination) =
            (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
        let (mut left, mut right) = (source.connect().await, destination.connect().await);
        left.seed(&corpus).await;
        let mut rig = Rig::new(&source, &destination);
        for endpoint in [&mut rig.spec.source, &mut rig.spec.destination] {
            endpoint.login.master = Some(master.clone());
            endpoint.login.credential = LoginCredential::password(*b"m@ster pass");
        }
        let report = rig.sync().await;
        assert_eq!(copied(&report), 40, "{about}: {report:#?}");
        assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "{about}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_used_where_wished_for_and_offered() {
    let extra = "protocol imap {\n  mail_plugins = imap_zlib\n}\n";
    let server = Dovecot::start(&DovecotOptions { extra: extra.to_owned(), ..DovecotOptions::default() });
    let (source, destination) = (server.account(), server.account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let corpus = Corpus::varied(6).with_large(3 << 20);
    left.seed(&corpus).await;
    let proxy = FaultyProxy::start(server.tls_port(), Duration::ZERO);
    let through = |side, account: &TestAccount<'_>| Endpoint {
        compress: true,
        ..endpoint(side, proxy.port(), &account.user, &account.password)
    };
    let rig = Rig::between(through(Side::Source, &source), through(Side::Destination, &destination));
    let report = rig.sync().await;
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "{report:#?}");
    // Half of it is one letter again and again.
    let moved = [Direction::ToClient, Direction::ToServer].map(|way| proxy.bytes_carried(way));
    assert!(moved.iter().all(|bytes| *bytes < corpus.bytes() * 2 / 3), "{moved:?} of {}", corpus.bytes());
    assert_eq!(copied(&rig.sync().await), 0);
}

/// A token in a file of its own.
fn token_file(token: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::File::create(&path).unwrap().write_all(token.as_bytes()).unwrap();
    (dir, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_is_read_again_at_each_connection() {
    let (_dir, path) = token_file("first-token\n");
    let renewed = path.clone();
    let server = ScriptedServer::serve(None, move |mut conn, at| {
        let path = renewed.clone();
        async move {
            conn.send(b"* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] ready\r\n").await?;
            let command = conn.command().await?;
            assert!(command.text().starts_with("AUTHENTICATE XOAUTH2 "), "{}", command.text());
            if at == 0 {
                // It expires while we are connected; somebody renews it.
                std::fs::write(&path, "second-token").unwrap();
                conn.send(
                    format!("{} OK [CAPABILITY IMAP4rev1] in\r\n* BYE session expired\r\n", command.tag).as_bytes(),
                )
                .await?;
                return conn.close().await;
            }
            conn.send(b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n").await?;
            conn.line().await?;
            let tag = command.tag;
            conn.send(format!("{tag} NO [AUTHENTICATIONFAILED] Invalid credentials\r\n").as_bytes()).await?;
            conn.close().await
        }
    })
    .await;
    let mut source = plain(server.port());
    source.login = AccountLogin {
        username: "alice@example.org".into(),
        master: None,
        credential: LoginCredential::TokenFile(path),
    };
    let error = refusal(source.clone()).await;
    assert_eq!(error.class, ErrorClass::Authentication, "{error:?}");
    let told: Vec<String> = server
        .received_commands()
        .iter()
        .filter_map(|c| c.split_once("XOAUTH2 ").map(|(_, text)| text.to_owned()))
        .map(|text| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap())
        .collect();
    let expected = |token: &str| format!("user=alice@example.org\x01auth=Bearer {token}\x01\x01");
    assert_eq!(told, [expected("first-token"), expected("second-token")]);
    assert!(!format!("{error} {error:?} {source:?}").contains("-token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_file_is_read_at_each_login_byte_by_byte() {
    let account = shared_server(SharedServer::Maildir).add_user("rotated@example.org", "pass word");
    account.connect().await.append("INBOX", &[CorpusMessage::new("Subject: x\r\n\r\n")]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let mut source = endpoint(Side::Source, account.server.tls_port(), &account.user, "");
    source.login.credential = LoginCredential::PasswordFile(path.clone());
    for (content, class) in [
        (Some("pass word\n"), Some(ErrorClass::Authentication)),
        (Some("pass word"), None),
        (Some(""), Some(ErrorClass::Configuration)),
        (None, Some(ErrorClass::Configuration)),
    ] {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        match class {
            None => works(source.clone(), "the right password").await,
            Some(class) => {
                let error = refusal(source.clone()).await;
                assert_eq!(error.class, class, "{error}");
                assert!(!error.to_string().contains("pass word"), "{error}");
            }
        }
    }
    assert!(format!("{source:?}").contains("PasswordFile(..)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_mechanism_serves_where_a_server_has_nothing_else() {
    let password = b" \xff\"s3cret\" \r\n".as_slice();
    let server = ScriptedServer::serve(None, move |mut conn, _| async move {
        conn.send(b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=LOGIN SASL-IR] ready\r\n").await?;
        let command = conn.command().await?;
        assert_eq!(command.text(), "AUTHENTICATE LOGIN");
        // The questions, and the answers to them, as servers and clients word them.
        conn.send(format!("+ {}\r\n", STANDARD.encode("User Name\0")).as_bytes()).await?;
        assert_eq!(conn.line().await?, format!("{}\r\n", STANDARD.encode("Jürgen")).as_bytes());
        conn.send(b"+ \r\n").await?;
        assert_eq!(conn.line().await?, format!("{}\r\n", STANDARD.encode(password)).as_bytes());
        conn.send(format!("{} NO [AUTHENTICATIONFAILED] s3cret no more\r\n", command.tag).as_bytes()).await?;
        conn.close().await
    })
    .await;
    let mut source = plain(server.port());
    "Jürgen".clone_into(&mut source.login.username);
    source.login.credential = LoginCredential::password(password);
    let error = refusal(source).await;
    assert_eq!(error.class, ErrorClass::Authentication, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn starttls_works_and_what_came_before_it_counts_for_nothing() {
    let account = shared_server(SharedServer::Mdbox).account();
    let mut source = endpoint(Side::Source, account.server.plain_port(), &account.user, &account.password);
    source.tls.mode = ConnectionSecurity::StartTls;
    account.connect().await.append("INBOX", &[mailferry_testkit::CorpusMessage::new("Subject: x\r\n\r\n")]).await;
    works(source, "STARTTLS").await;

    let injection = vec![
        ScriptStep::send("* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n"),
        ScriptStep::Expect("STARTTLS"),
        ScriptStep::send("{tag} OK go ahead\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nA0002 OK injected\r\n"),
        ScriptStep::StartTls,
        ScriptStep::Stall,
    ];
    let server = ScriptedServer::play(None, vec![injection]).await;
    let mut source = endpoint(Side::Source, server.port(), "anybody", "s3cret-word");
    source.tls.mode = ConnectionSecurity::StartTls;
    let error = refusal(source).await;
    assert_eq!(error.class, ErrorClass::Protocol, "{error:?}");
    assert!(error.what.contains("before the protection"), "{error:?}");
    assert!(!server.received_commands().iter().any(|c| c.contains("AUTHENTICATE") || c.contains("LOGIN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_starttls_never_hears_the_password() {
    for script in [
        vec![
            ScriptStep::send("* OK ready\r\n"),
            ScriptStep::Expect("STARTTLS"),
            ScriptStep::send("{tag} BAD no such thing\r\n"),
            ScriptStep::Stall,
        ],
        vec![
            ScriptStep::send("* OK ready\r\n"),
            ScriptStep::Expect("STARTTLS"),
            ScriptStep::send("{tag} NO not now\r\n"),
            ScriptStep::Stall,
        ],
        vec![ScriptStep::send("* PREAUTH welcome back\r\n"), ScriptStep::Stall],
    ] {
        let server = ScriptedServer::play(None, vec![script]).await;
        let mut source = endpoint(Side::Source, server.port(), "anybody", "s3cret-word");
        source.tls.mode = ConnectionSecurity::StartTls;
        let error = refusal(source).await;
        assert!(matches!(error.class, ErrorClass::Tls | ErrorClass::Protocol), "{error:?}");
        assert!(!server.received_commands().iter().any(|c| c.contains("AUTHENTICATE") || c.contains("LOGIN")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_hold_are_named() {
    for (certificate, word) in [(ServerCertificate::Expired, "expired"), (ServerCertificate::WrongName, "name")] {
        let server = Dovecot::start(&DovecotOptions { certificate, ..DovecotOptions::default() });
        let account = server.account();
        let error = refusal(endpoint(Side::Source, server.tls_port(), &account.user, &account.password)).await;
        assert_eq!(error.class, ErrorClass::Tls, "{error:?}");
        let said = format!("{} {}", error.what, error.advice.as_deref().unwrap_or_default()).to_lowercase();
        assert!(said.contains(word), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn greetings_and_logins_in_any_language_do_no_harm() {
    // Each of these ended a connection of the IMAP library below, or its thread.
    for (greeting, before) in [
        ("* OK [ALERT] ü ready\r\n", ""),
        ("* OK [ALERT]\u{fc}\r\n", ""),
        ("* OK Grüße aus Köln\r\n", "* OK [ALERT] übermorgen Wartung\r\n"),
        ("* OK ready\r\n", "* NO [ALERT]é\r\n* OK [ALERT] 日本語\r\n"),
        ("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN X-\u{fc}] hi\r\n", ""),
        ("* OK [FOO bar(baz] hi\r\n", "* XYZZY plugh\r\n"),
    ] {
        let server = ScriptedServer::serve(None, move |mut conn, _| async move {
            conn.send(greeting.as_bytes()).await?;
            loop {
                let command = conn.command().await?;
                let login = command.matches("LOGIN *") || command.matches("AUTHENTICATE *");
                if login {
                    conn.send(before.as_bytes()).await?;
                    conn.send(format!("{} OK [ALERT] Willkommen, Jürgen\r\n", command.tag).as_bytes()).await?;
                } else if command.matches("CAPABILITY") {
                    let told = format!("* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n{} OK done\r\n", command.tag);
                    conn.send(told.as_bytes()).await?;
                } else {
                    conn.answer_as_usual(&command).await?;
                }
            }
        })
        .await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let mut rig = Rig::between(plain(server.port()), destination.endpoint(Side::Destination));
        rig.spec.retry.attempts = 1;
        rig.spec.source.timeouts.reply = Duration::from_secs(1);
        let report = rig.try_sync().await;
        assert!(report.error.is_none(), "{greeting:?} {before:?}: {:?}", report.error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_misbehave_before_the_login_is_over_are_named_for_it() {
    let hello = "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n";
    let cases: Vec<(Vec<ScriptStep>, ErrorClass)> = vec![
        (vec![ScriptStep::Close], ErrorClass::Network),
        (vec![ScriptStep::Stall], ErrorClass::Network),
        (vec![ScriptStep::send("* BYE too many connections from your host\r\n")], ErrorClass::Throttled),
        (vec![ScriptStep::send("* BYE [UNAVAILABLE] down\r\n")], ErrorClass::Network),
        (vec![ScriptStep::send("* PREAUTH hello\r\n"), ScriptStep::Stall], ErrorClass::Protocol),
        (vec![ScriptStep::send("220 mx.example.org ESMTP\r\n"), ScriptStep::Stall], ErrorClass::Configuration),
        (vec![ScriptStep::send("+OK POP3 ready\r\n"), ScriptStep::Stall], ErrorClass::Configuration),
        (vec![ScriptStep::Send(vec![b'A'; 20 << 20]), ScriptStep::Stall], ErrorClass::Protocol),
        (
            vec![
                ScriptStep::Send([b"* OK [CAPABILITY IMAP4rev1 ".to_vec(), b"X-A ".repeat(20 << 10)].concat()),
                ScriptStep::Stall,
            ],
            ErrorClass::Protocol,
        ),
        (
            vec![
                ScriptStep::Send(b"* OK hi\r\n".to_vec()),
                ScriptStep::Send(
                    [b"* CAPABILITY ".to_vec(), b"X-A ".repeat(10 << 10), b"\r\n".to_vec()].concat().repeat(9),
                ),
                ScriptStep::Stall,
            ],
            ErrorClass::Protocol,
        ),
        (vec![ScriptStep::Send(b"* OK hi\r\n".repeat(5000)), ScriptStep::Stall], ErrorClass::Protocol),
        (vec![ScriptStep::send(hello), ScriptStep::Expect("AUTHENTICATE*"), ScriptStep::Close], ErrorClass::Network),
        (vec![ScriptStep::send(hello), ScriptStep::Expect("AUTHENTICATE*"), ScriptStep::Stall], ErrorClass::Network),
        (
            vec![
                ScriptStep::send(hello),
                ScriptStep::Expect("AUTHENTICATE*"),
                ScriptStep::send("* BYE server busy\r\n"),
            ],
            ErrorClass::Throttled,
        ),
        (
            vec![
                ScriptStep::send(hello),
                ScriptStep::Expect("AUTHENTICATE*"),
                ScriptStep::send("{tag} NO [UNAVAILABLE] no database\r\n"),
                ScriptStep::Stall,
            ],
            ErrorClass::Network,
        ),
        (
            vec![
                ScriptStep::send(hello),
                ScriptStep::Expect("AUTHENTICATE*"),
                ScriptStep::send("{tag} NO nope\r\n"),
                ScriptStep::Stall,
            ],
            ErrorClass::Authentication,
        ),
        (
            vec![ScriptStep::send("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED STARTTLS] ready\r\n"), ScriptStep::Stall],
            ErrorClass::Configuration,
        ),
    ];
    for (at, (script, class)) in cases.into_iter().enumerate() {
        let server = ScriptedServer::play(None, vec![script.clone()]).await;
        let silent = class == ErrorClass::Network && matches!(script.last(), Some(ScriptStep::Stall));
        let error = refusal_within(if silent { IMPATIENT } else { PATIENT }, plain(server.port())).await;
        assert_eq!(error.class, class, "case {at}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "case {at}: {error:?}");
        assert!(!error.to_string().contains('\n'), "case {at}: {error}");
    }
}

#[tokio::test]
async fn where_imap_is_off_for_an_account_the_advice_is_to_switch_it_on() {
    let says = "{tag} NO [AUTHENTICATIONFAILED] LOGIN Invalid credentials or IMAP is disabled\r\n";
    let closed = || Fake::twisted(MODERN, Vec::new(), move |command, _| (command == CONNECT).then(|| Act::send(says)));
    let (left, right, source) = (closed().await, closed().await, Fake::start(MODERN, mails(1)).await);
    let mut at_destination = Rig::between(source.endpoint(Side::Source), right.endpoint(Side::Destination));
    at_destination.spec.retry.attempts = 1;
    let errors = [refusal(left.endpoint(Side::Source)).await, at_destination.try_sync().await.error.unwrap()];
    for error in errors {
        assert_eq!(error.class, ErrorClass::Authentication, "{error:?}");
        assert!(error.advice.as_deref().unwrap_or_default().starts_with("Switch IMAP on"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_towards_a_server_that_speaks_plaintext_is_said() {
    let account = shared_server(SharedServer::Mdbox).account();
    let error = refusal(endpoint(Side::Source, account.server.plain_port(), &account.user, &account.password)).await;
    assert_eq!(error.class, ErrorClass::Tls, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_a_server_repeats_is_in_no_error_and_no_report() {
    // In the answer to the login, as it was sent.
    let server = ScriptedServer::serve(None, move |mut conn, _| async move {
        conn.send(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\r\n").await?;
        let command = conn.command().await?;
        conn.send(format!("{} NO I do not know {}, s3cret-word\r\n", command.tag, command.text()).as_bytes()).await?;
        conn.close().await
    })
    .await;
    let error = refusal(plain(server.port())).await;
    let sent = STANDARD.encode("\0anybody\0s3cret-word");
    assert_eq!(error.class, ErrorClass::Authentication);
    for secret in ["s3cret-word", sent.as_str()] {
        assert!(error.what.contains("[hidden]") && !format!("{error:?}").contains(secret), "{error:#?}");
    }
    // In the answer to a command much later.
    let source = Fake::start(MODERN, mails(2)).await;
    let destination = Fake::twisted(MODERN, Vec::new(), |command, _| {
        command.starts_with("APPEND").then(|| Act::send("{tag} NO [CANNOT] anything with anything in it\r\n"))
    })
    .await;
    let report = hasty(&source, &destination).try_sync().await;
    assert!(!report.folders[0].skipped_messages.is_empty(), "{report:#?}");
    assert!(format!("{report:?}").contains("[hidden] with [hidden]"), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_worked_before_and_is_refused_is_tried_again_once() {
    for (refusals, error, logins) in [(1, None, 3), (usize::MAX, Some(ErrorClass::Authentication), 3)] {
        let (connects, cuts) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let source = Fake::twisted(MODERN, mails(5), move |command, _| {
            if command == CONNECT {
                let before = connects.fetch_add(1, SeqCst);
                let refused = before > 0 && before - 1 < refusals;
                return refused.then(|| Act::send("{tag} NO invalid user or password\r\n"));
            }
            let hit = asks_for(command, 1) && cuts.fetch_add(1, SeqCst) == 0;
            hit.then(|| Act::Bye(Vec::new()))
        })
        .await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
        rig.spec.connections = 1;
        rig.spec.retry.waits.login_again = Duration::from_secs(30);
        let started = tokio::time::Instant::now();
        let report = rig.try_sync().await;
        assert_eq!(report.gravest_error().map(|error| error.class), error, "{report:#?}");
        assert_eq!(source.server.connections(), logins, "{report:#?}");
        assert_eq!(destination.mails("INBOX").len(), if error.is_none() { 5 } else { 0 }, "{report:#?}");
        let took = started.elapsed();
        assert!((Duration::from_secs(30)..Duration::from_secs(40)).contains(&took), "{took:?}");
    }
}
