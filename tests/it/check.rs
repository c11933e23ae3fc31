//! `mailferry check` tells what would keep a run from ending well: one clear line each, and no password.

use std::net::TcpListener;

use mailferry_testkit::{
    CommandOutput, Corpus, CorpusMessage, Dovecot, DovecotOptions, MailFormat, ScriptedServer, SharedServer,
    dovecot::{ServerCertificate, TestAccount},
    pki::pki,
    scripted::ScriptStep,
    shared_server,
};
use serde_json::{Value, json};

use crate::cli::{Cli, server, server_with};

const SECRET: &str = "S3cret \"wörd\" \\of-many";

/// A source with some mail in two folders, and an empty destination.
async fn accounts() -> (TestAccount<'static>, TestAccount<'static>) {
    let source = shared_server(SharedServer::Maildir).account();
    source.connect().await.seed(&Corpus::bulk(60, 200 << 10, 3, 4)).await;
    (source, shared_server(SharedServer::DottedMdbox).account())
}

fn login<'a>(account: &'a TestAccount<'_>) -> (&'a str, &'a str) {
    (&account.user, &account.password)
}

/// Checks alice from a source server to an account that is fine.
async fn source_is(source: Value) -> CommandOutput {
    let destination = shared_server(SharedServer::Mdbox).account();
    let cli = Cli::new(source, server(destination.server.tls_port())).mailbox(
        "alice",
        ("alice", SECRET),
        login(&destination),
    );
    cli.run("check", &["--output", "text", "--timeout-connect", "2s"]).await
}

async fn check(cli: &Cli, code: i32) -> Value {
    let ran = cli.run("check", &["--output", "json"]).await.exits(code);
    let [checked] = ran.events("checked").try_into().unwrap();
    checked
}

fn topics(checked: &Value) -> Vec<String> {
    let warnings = checked["warnings"].as_array().unwrap().iter();
    warnings.map(|warning| warning["topic"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_migration_is_ready_and_shows_what_was_found() {
    let (source, destination) = accounts().await;
    let cli = Cli::between(&source, &destination);
    let checked = check(&cli, 0).await;
    assert_eq!((&checked["problems"], &checked["warnings"]), (&json!([]), &json!([])), "{checked:#}");
    let found = &checked["source"];
    assert_eq!(
        (&found["tls"], &found["login"], &found["server"]),
        (&json!("TLS 1.3"), &json!("PLAIN"), &json!("Dovecot"))
    );
    assert_eq!((&found["messages"], &found["certificate"]["names"][0]), (&json!(60), &json!("localhost")), "{found:#}");
    assert!(found["bytes"].as_u64().unwrap() > 100 << 10);
    let folders = checked["mapping"]["folders"].as_array().unwrap();
    assert!(folders.iter().any(|f| f["source"] == "INBOX" && f["exists"] == true), "{folders:#?}");
    assert!(folders.iter().any(|f| f["exists"] == false), "{folders:#?}");
    cli.run("check", &["--output", "text"])
        .await
        .exits(0)
        .says(&["alice: ready"])
        .says(&["certificate of localhost by Mailferry test authority"])
        .says(&["1 mailbox: 1 ready, checked in"]);
    // Nothing was made, nothing was read.
    assert_eq!(destination.connect().await.folders().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_on_either_side_are_told_apart_and_the_others_are_still_checked() {
    let (source, destination) = accounts().await;
    let cli = Cli::between(&source, &destination).mailbox("bob", (&source.user, SECRET), login(&destination)).mailbox(
        "carol",
        login(&source),
        ("nobody@example.org", SECRET),
    );
    let ran = cli.run("check", &["--output", "text"]).await.exits(10);
    let hosts = [&source, &destination].map(|account| format!("127.0.0.1:{}", account.server.tls_port()));
    ran.says(&["alice: ready"])
        .says(&["source", &hosts[0], "Authentication", "Check the user name and the password", "(bob)"])
        .says(&["destination", &hosts[1], "Authentication", "Mailferry creates no accounts", "nobody@", "(carol)"])
        .says(&["3 mailboxes: 1 ready, 2 with problems"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_say_what_is_wrong_and_what_to_do() {
    for (certificate, parts) in [
        (ServerCertificate::Expired, ["expired on 2021-01-01", "Renew it"]),
        (ServerCertificate::WrongName, ["is not for 127.0.0.1, but for elsewhere.example", "tls.serverName"]),
    ] {
        let old = Dovecot::start(&DovecotOptions { certificate, ..DovecotOptions::default() });
        let ran = source_is(server(old.tls_port())).await.exits(15);
        ran.says(&["source 127.0.0.1", "Tls:", parts[0], parts[1]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let mut unknown = server(shared_server(SharedServer::Maildir).tls_port());
    unknown["tls"] = json!({"mode": "Implicit"});
    source_is(unknown).await.exits(15).says(&["Tls:", "authority that is not trusted", "tls.caBundle"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_certificate_is_told_in_our_words_only_unless_the_dependency_is_asked() {
    let mut unknown = server(shared_server(SharedServer::Maildir).tls_port());
    unknown["tls"] = json!({"mode": "Implicit"});
    let destination = shared_server(SharedServer::Mdbox).account();
    let mut cli = Cli::new(unknown, server(destination.server.tls_port())).mailbox(
        "alice",
        ("alice", SECRET),
        login(&destination),
    );
    for (log_level, shown) in [("debug", false), ("warn,rustls_platform_verifier=error", true)] {
        cli.log_level = log_level;
        let ran =
            cli.run("check", &["--output", "text"]).await.exits(15).says(&["Tls:", "authority that is not trusted"]);
        assert_eq!(ran.stderr.contains("failed to verify TLS certificate"), shown, "{log_level}: {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_has_another_name_by_now_is_warned_of_and_does_what_it_did() {
    let (source, destination) = accounts().await;
    let mut cli = Cli::between(&source, &destination);
    for command in ["check", "run"] {
        cli.spec["ttl"] = json!("24h");
        cli.run(command, &[]).await.exits(0).says(&["WARN", "spec.ttl: ", "write finishedPodsTTL"]);
        cli.spec["ttl"] = json!(null);
        cli.run(command, &[]).await.exits(0).hides(&["finishedPodsTTL"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_ports_and_modes_are_told_from_each_other() {
    let source = shared_server(SharedServer::Maildir);
    let plain = server_with("127.0.0.1", source.plain_port(), "Implicit");
    source_is(plain).await.exits(15).says(&["Tls:", "does not speak TLS from the first byte", "StartTLS"]);

    let implicit = server_with("127.0.0.1", source.tls_port(), "StartTLS");
    source_is(implicit).await.exits(14).says(&["Network:", "did not greet within 2 s", "tls.mode Implicit"]);

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    source_is(server(closed)).await.exits(14).says(&["Network:", "no connection to 127.0.0.1", "Check host and port"]);

    let nowhere = server_with("no-such-host.invalid", 993, "Implicit");
    source_is(nowhere).await.exits(14).says(&["Network:", "there is no host no-such-host.invalid"]);

    let pop3 =
        ScriptedServer::play(Some(&pki().good), vec![vec![ScriptStep::send("+OK POP3 ready\r\n"), ScriptStep::Stall]])
            .await;
    source_is(server(pop3.port())).await.exits(2).says(&["Configuration:", "this is a POP3 server", "993"]);

    let smtp = ScriptedServer::play(None, vec![vec![ScriptStep::send("220 mail ESMTP\r\n"), ScriptStep::Stall]]).await;
    let smtp = server_with("127.0.0.1", smtp.port(), "StartTLS");
    source_is(smtp).await.exits(2).says(&["Configuration:", "SMTP"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_tls_is_too_old_is_named_as_such() {
    // A fatal protocol_version alert, as a server without TLS 1.2 answers.
    let alert = vec![ScriptStep::Send(vec![21, 3, 1, 0, 2, 2, 70]), ScriptStep::Close];
    let old = ScriptedServer::play(None, vec![alert]).await;
    source_is(server(old.port())).await.exits(15).says(&["Tls:", "offers no TLS that is safe today", "TLS 1.2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn starttls_is_used_and_a_server_without_it_is_refused() {
    let (source, destination) = accounts().await;
    let from = server_with("127.0.0.1", source.server.plain_port(), "StartTLS");
    let to = server(destination.server.tls_port());
    let cli = Cli::new(from, to).mailbox("alice", login(&source), login(&destination));
    assert_eq!(check(&cli, 0).await["source"]["tls"], "TLS 1.3");

    let bare = Dovecot::start(&DovecotOptions { certificate: ServerCertificate::NoTls, ..DovecotOptions::default() });
    source_is(server_with("127.0.0.1", bare.plain_port(), "StartTLS")).await.exits(15).says(&["Tls:", "STARTTLS"]);
    let account = bare.account();
    account.connect().await.seed(&Corpus::bulk(30, 30 << 10, 2, 4)).await;
    let clear = server_with("127.0.0.1", bare.plain_port(), "None");
    let cli =
        Cli::new(clear, server(destination.server.tls_port())).mailbox("alice", login(&account), login(&destination));
    let checked = check(&cli, 0).await;
    assert_eq!((&checked["source"]["tls"], topics(&checked)), (&Value::Null, vec!["unprotected".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_too_small_is_a_problem_until_it_is_raised() {
    let (source, _) = accounts().await;
    let new =
        Dovecot::start(&DovecotOptions { format: MailFormat::Mdbox, quota: Some(0), ..DovecotOptions::default() });
    let small = new.add_user_with("small", SECRET.as_bytes(), "userdb_quota_rule=*:bytes=100000");
    let cli = Cli::between(&source, &small);
    let ran = cli.run("check", &["--output", "text"]).await.exits(12);
    ran.says(&["destination 127.0.0.1", "Quota:", "are coming", "Raise the quota"]);
    small.connect().await.append("INBOX", &[CorpusMessage::new(vec![b'x'; 95_000])]).await;
    let full = check(&cli, 12).await;
    assert_eq!(topics(&full), ["notEmpty"]);
    assert!(full["destination"]["storage"]["used"].as_u64().unwrap() > 90_000, "{full:#}");
    let large = new.add_user_with("large", SECRET.as_bytes(), "userdb_quota_rule=*:bytes=100000000");
    let checked = check(&Cli::between(&source, &large), 0).await;
    assert!(checked["destination"]["storage"]["limit"].as_u64().unwrap() > 99_000_000, "{checked:#}");
    let unlimited = new.account();
    let checked = check(&Cli::between(&source, &unlimited), 0).await;
    assert_eq!(checked["destination"]["storage"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_summed_where_the_server_does_not_tell_them() {
    let old = Dovecot::start(&DovecotOptions { hide: vec!["STATUS=SIZE", "LIST-STATUS"], ..DovecotOptions::default() });
    let source = old.account();
    let corpus = Corpus::bulk(40, 100 << 10, 3, 9);
    source.connect().await.seed(&corpus).await;
    let destination = shared_server(SharedServer::Mdbox).account();
    let checked = check(&Cli::between(&source, &destination), 0).await;
    assert_eq!(checked["source"]["bytes"], corpus.bytes(), "{checked:#}");
    let lacks = checked["source"]["lacks"].as_array().unwrap();
    assert!(lacks.iter().any(|lack| lack["extension"] == "LIST-STATUS"), "{lacks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_looks_read_over_pop3_is_warned_of() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    source.connect().await.append("INBOX", &[CorpusMessage::new("Subject: only one\r\n\r\nx\r\n")]).await;
    let cli = Cli::between(&source, &destination);
    assert_eq!(topics(&check(&cli, 0).await), ["pop3"]);
    cli.run("check", &["--output", "text"]).await.exits(0).says(&["1 message in INBOX", "POP3", "computer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_on_both_sides_is_refused() {
    let (source, _) = accounts().await;
    let ports = (source.server.plain_port(), source.server.tls_port());
    Cli::between(&source, &source)
        .run("check", &["--output", "text"])
        .await
        .exits(2)
        .says(&["Configuration:", "the same account"]);
    // The old name leads to the new server already.
    let cli = Cli::new(server_with("localhost", ports.1, "Implicit"), server(ports.1));
    let cli = cli.mailbox("alice", login(&source), login(&source));
    let ran = cli.run("check", &["--output", "text"]).await.exits(2);
    ran.says(&["Configuration:", "the same account on the same server", "DNS"]);
    // So it does, by another port.
    let cli = Cli::new(server_with("localhost", ports.0, "StartTLS"), server(ports.1));
    let cli = cli.mailbox("alice", login(&source), login(&source));
    cli.run("check", &["--output", "text"]).await.exits(2).says(&["Configuration:", "the same account", "DNS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_user_is_used_and_its_refusal_says_whose_it_is() {
    let (source, destination) = accounts().await;
    let mut cli = Cli::between(&source, &destination);
    cli.secret("master", "m@ster pass");
    cli.spec["destination"]["masterUser"] =
        json!({"username": "master", "passwordSecretRef": {"name": "mail", "key": "master"}});
    cli.spec["mailboxes"][0]["destination"].as_object_mut().unwrap().remove("passwordSecretRef");
    check(&cli, 0).await;
    cli.secret("wrong", SECRET);
    cli.spec["destination"]["masterUser"]["passwordSecretRef"]["key"] = json!("wrong");
    let ran = cli.run("check", &["--output", "text"]).await.exits(10);
    ran.says(&["destination", "Authentication", "master user master", "Mailferry creates no accounts"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_run_tells_where_folders_are_and_what_is_there_is_no_surprise() {
    let (source, destination) = accounts().await;
    let mut cli = Cli::between(&source, &destination);
    cli.spec["folders"] = json!({"into": "Old mail"});
    cli.run("run", &["--output", "text"]).await.exits(0);
    cli.spec["folders"] = json!({});
    let checked = check(&cli, 0).await;
    let folders = checked["mapping"]["folders"].as_array().unwrap();
    assert!(folders.iter().all(|f| f["destination"].as_str().unwrap().starts_with("Old mail/")), "{folders:#?}");
    assert_eq!(topics(&checked), Vec::<String>::new());
    let fresh = cli.run("check", &["--output", "json", "--state", "elsewhere"]).await.exits(0);
    assert_eq!(topics(&fresh.events("checked")[0]), ["notEmpty"]);
}
