//! Grants in the program itself: tokens end, are refused, replaced and taken back, while mail is moved.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use mailferry_testkit::{command::CommandOutput, pki::pki};
use serde_json::{Value, json};

use crate::{
    fake::{Act, Fake, MODERN, all_bodies, mails},
    token_server::{TokenServer, form},
};

const HOUR: Duration = Duration::from_hours(1);

/// A refresh token's grant, which is good for 127.0.0.1.
fn grant(server: &TokenServer, refresh_token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alice-grant"}, "type": "mailferry.io/oauth-grant",
        "stringData": {
            "provider": "other", "token-url": server.url(), "client-id": "app", "client-secret": "hush-hush",
            "imap-hosts": "127.0.0.1", "refresh-token": refresh_token,
        },
    })
}

/// The same for an application of its own.
fn app(server: &TokenServer) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alice-grant"}, "type": "mailferry.io/oauth-client",
        "stringData": {
            "provider": "microsoft", "tenant": "t", "token-url": server.url(), "client-id": "app",
            "client-secret": "hush-hush", "imap-hosts": "127.0.0.1",
        },
    })
}

/// From `source`, where the grant logs in, to `destination`.
fn migration(source: &Fake, destination: &Fake) -> Value {
    json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "acme"},
        "spec": {
            "source": {
                "server": {"host": "127.0.0.1", "port": source.server.port(), "tls": {"caBundle": pki().ca}},
                "grantSecretRef": {"name": "alice-grant"},
            },
            "destination": {"server": {"host": "127.0.0.1", "port": destination.server.port(), "tls": {"mode": "None"}}},
            "connections": 1,
            "mailboxes": [{
                "name": "alice@acme.example",
                "destination": {"passwordSecretRef": {"name": "mail", "key": "password"}},
            }],
        },
    })
}

fn write(folder: &Path, migration: &Value, grant: &Value) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail"}, "stringData": {"password": "anything"},
    });
    fs::write(folder.join("all.yaml"), format!("{migration}\n---\n{secret}\n---\n{grant}\n")).unwrap();
}

fn command(folder: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailferry"));
    command
        .args([subcommand, "all.yaml"])
        .current_dir(folder)
        .env("XDG_STATE_HOME", folder.join("state-home"))
        .env("MAILFERRY_OUTPUT", "text")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn said_by(mut command: Command) -> CommandOutput {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    CommandOutput::from(output).hides(&["hush-hush", "access-", "refresh-0", "refresh-1"])
}

async fn run(folder: &Path, subcommand: &str) -> CommandOutput {
    said_by(command(folder, subcommand)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_back_in_the_middle_is_renewed_at_once() {
    let tokens = TokenServer::start(Duration::from_secs(4)).await;
    let state = tokens.shared();
    let source = Fake::for_tokens(mails(8), tokens.judge(), move |command, _| {
        let first = command.starts_with("UID FETCH 1") && command.contains("BODY.PEEK[]") && command.contains(':');
        first.then(|| {
            TokenServer::end_tokens(&state);
            Act::Torn(500)
        })
    })
    .await;
    source.takes(Duration::from_millis(300));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &migration(&source, &destination), &app(&tokens));
    run(folder.path(), "run").await.exits(0);
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_which_grant_was_used_and_why_a_mailbox_does_not_take_its_token() {
    let tokens = TokenServer::start(HOUR).await;
    let (source, destination) =
        (Fake::for_tokens(mails(1), tokens.judge(), |_, _| None).await, Fake::start(MODERN, Vec::new()).await);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &migration(&source, &destination), &app(&tokens));
    run(folder.path(), "check")
        .await
        .exits(0)
        .says(&["token    by the grant alice-grant (client credentials with a secret), until"]);
    let locked = Fake::for_tokens(mails(1), |_| false, |_, _| None).await;
    write(folder.path(), &migration(&locked, &destination), &app(&tokens));
    run(folder.path(), "check")
        .await
        .exits(10)
        .says(&["status 400, scope https://mail.google.com/"])
        .says(&["Add-MailboxPermission"]);
    assert_eq!(locked.server.connections(), 1, "a token that was just given is not at fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_refuses_is_told_with_what_to_do() {
    let tokens = TokenServer::start(HOUR).await;
    let (source, destination) =
        (Fake::for_tokens(mails(1), tokens.judge(), |_, _| None).await, Fake::start(MODERN, Vec::new()).await);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &migration(&source, &destination), &app(&tokens));
    for (status, headers, body, code, says) in [
        (401, "", "{\"error\":\"invalid_client\",\"error_codes\":[7000222]}", 10, "Make a new client secret"),
        (400, "", "{\"error\":\"invalid_grant\",\"error_codes\":[65001]}", 11, "adminconsent?client_id=app"),
        (302, "Location: http://127.0.0.1:1/\r\n", "", 2, "follow no redirect"),
        (429, "Retry-After: 86400\r\n", "", 13, "gives no token"),
        (400, "Date: Mon, 30 Nov 2020 12:00:00 GMT\r\n", "{\"error\":\"x\",\"error_codes\":[700024]}", 2, "s ahead of"),
    ] {
        tokens.state().refusals.push((status, headers, body));
        run(folder.path(), "check").await.exits(code).says(&[says]);
        tokens.state().refusals.clear();
    }
    assert_eq!(source.server.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_to_no_other_host_and_over_no_unchecked_connection() {
    let tokens = TokenServer::start(HOUR).await;
    let (source, destination) =
        (Fake::for_tokens(mails(1), tokens.judge(), |_, _| None).await, Fake::start(MODERN, Vec::new()).await);
    let folder = tempfile::tempdir().unwrap();
    let right = migration(&source, &destination);
    let with = |change: fn(&mut Value)| {
        let mut migration = right.clone();
        change(&mut migration["spec"]["source"]["server"]);
        migration
    };
    for (migration, says) in [
        (with(|server| server["host"] = json!("localhost")), "are for 127.0.0.1, not for localhost"),
        (with(|server| server["tls"] = json!({"mode": "None"})), "only over TLS with a checked certificate"),
        (
            with(|server| server["tls"] = json!({"insecureSkipVerify": true})),
            "only over TLS with a checked certificate",
        ),
    ] {
        write(folder.path(), &migration, &app(&tokens));
        run(folder.path(), "check").await.exits(2).says(&[says]);
    }
    let mut password = right.clone();
    password["spec"]["mailboxes"][0]["destination"]["passwordSecretRef"] =
        json!({"name": "alice-grant", "key": "client-secret"});
    write(folder.path(), &password, &app(&tokens));
    run(folder.path(), "check").await.exits(2).says(&["it is a grant, which belongs into grantSecretRef"]);
    assert!(tokens.state().asked.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_refresh_token_goes_on_in_the_next_run_and_another_seed_wins() {
    let tokens = TokenServer::start(HOUR).await;
    tokens.state().rotates = true;
    let (source, destination) =
        (Fake::for_tokens(mails(1), tokens.judge(), |_, _| None).await, Fake::start(MODERN, Vec::new()).await);
    let folder = tempfile::tempdir().unwrap();
    let migration = migration(&source, &destination);
    write(folder.path(), &migration, &grant(&tokens, "refresh-0"));
    for _ in 0..3 {
        run(folder.path(), "check").await.exits(0);
    }
    let asked = |at: usize| tokens.state().asked[at]["refresh_token"].clone();
    assert_eq!([asked(0), asked(1), asked(2)], ["refresh-0", "refresh-1", "refresh-2"]);
    tokens.state().refresh_token = "refresh-another".to_owned();
    write(folder.path(), &migration, &grant(&tokens, "refresh-another"));
    run(folder.path(), "check").await.exits(0);
    // The former one was used up: this provider takes that for theft.
    write(folder.path(), &migration, &grant(&tokens, "refresh-0"));
    run(folder.path(), "check").await.exits(10).says(&["Sign in again with `mailferry login`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_receiving_a_refresh_token_and_keeping_it_means_to_sign_in_again() {
    let tokens = TokenServer::start(HOUR).await;
    tokens.state().rotates = true;
    tokens.state().tears = true;
    let (source, destination) =
        (Fake::for_tokens(mails(1), tokens.judge(), |_, _| None).await, Fake::start(MODERN, Vec::new()).await);
    let folder = tempfile::tempdir().unwrap();
    let migration = migration(&source, &destination);
    write(folder.path(), &migration, &grant(&tokens, "refresh-0"));
    let mut killed = command(folder.path(), "run").spawn().unwrap();
    tokens.torn().await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    tokens.state().tears = false;
    run(folder.path(), "run")
        .await
        .exits(10)
        .says(&["ended before it could keep the refresh token"])
        .says(&["Sign in again"]);
    assert!(tokens.state().revoked, "the provider saw it twice");
    tokens.state().revoked = false;
    tokens.state().refresh_token = "refresh-new".to_owned();
    write(folder.path(), &migration, &grant(&tokens, "refresh-new"));
    run(folder.path(), "run").await.exits(0);
    assert_eq!(destination.mails("INBOX").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_and_the_grant_that_is_written_logs_in() {
    let tokens = TokenServer::start(HOUR).await;
    let folder = tempfile::tempdir().unwrap();
    let mut login = Command::new(env!("CARGO_BIN_EXE_mailferry"));
    login
        .args(["login", "other", "alice@acme.example", "--client-id", "app", "--imap-hosts", "127.0.0.1"])
        .args(["--authorize-url", "https://id.example/authorize", "--token-url", &tokens.url()])
        .current_dir(folder.path())
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut login = login.spawn().unwrap();
    let mut said = BufReader::new(login.stdout.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0);
        if line.starts_with("https://id.example/authorize?") {
            break line.trim().to_owned();
        }
    };
    let asked = form(address.split_once('?').unwrap().1);
    tokens.state().challenge.clone_from(&asked["code_challenge"]);
    let redirect = asked["redirect_uri"].strip_prefix("http://").unwrap().to_owned();
    let browser = |path: String| {
        let mut browser = TcpStream::connect(&redirect).unwrap();
        write!(browser, "GET {path} HTTP/1.1\r\nHost: {redirect}\r\n\r\n").unwrap();
        let mut page = String::new();
        browser.read_to_string(&mut page).unwrap();
        page
    };
    let state = &asked["state"];
    let page = tokio::task::block_in_place(|| {
        assert!(browser("/favicon.ico".to_owned()).starts_with("HTTP/1.1 404"));
        assert!(browser("/?code=the+code&state=forged".to_owned()).starts_with("HTTP/1.1 404"));
        browser(format!("/?code=the+code&state={state}"))
    });
    assert!(page.contains("You are signed in"), "{page}");
    let mut rest = String::new();
    let code = tokio::task::block_in_place(|| {
        said.read_to_string(&mut rest).unwrap();
        login.wait().unwrap()
    });
    assert!(code.success() && rest.contains("alice@acme.example.grant.yaml") && !rest.contains("refresh-0"), "{rest}");
    assert_eq!(tokens.state().asked[0]["redirect_uri"], format!("http://{redirect}"));

    let source = Fake::for_tokens(mails(1), tokens.judge(), |_, _| None).await;
    let destination = Fake::for_tokens(Vec::new(), tokens.judge(), |_, _| None).await;
    let mut copy = Command::new(env!("CARGO_BIN_EXE_mailferry"));
    let account = |fake: &Fake| format!("imaps://alice@acme.example@127.0.0.1:{}", fake.server.port());
    fs::write(folder.path().join("ca.pem"), &pki().ca).unwrap();
    copy.args(["copy", "--source-grant-file", "alice@acme.example.grant.yaml"])
        .args(["--destination-grant-file", "alice@acme.example.grant.yaml", "--ca-file", "ca.pem"])
        .args([account(&source), account(&destination)])
        .current_dir(folder.path())
        .env("XDG_STATE_HOME", folder.path().join("state-home"))
        .env("MAILFERRY_OUTPUT", "text");
    said_by(copy).await.exits(0);
    assert_eq!(destination.mails("INBOX").len(), 1);
    assert_eq!(tokens.state().asked.len(), 2, "both sides share a token");
}
