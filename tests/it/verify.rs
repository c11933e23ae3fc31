//! `mailferry verify` finds every kind of difference, and nothing else.

use std::time::Duration;

use mailferry_testkit::{
    ConnectionFault, Corpus, CorpusMessage, FaultyProxy, RawImap, ScriptedServer, SharedServer,
    corpus::CorpusFolder,
    differences,
    dovecot::TestAccount,
    pki::pki,
    proxy::{BreakMode, BreakPoint, Direction},
    shared_server,
};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, server},
    rig::Rig,
};

/// Two accounts, the source filled and synced to the destination.
async fn synced(
    from: SharedServer,
    to: SharedServer,
    corpus: &Corpus,
) -> (TestAccount<'static>, TestAccount<'static>, RawImap, RawImap) {
    let (source, destination) = (shared_server(from).account(), shared_server(to).account());
    let (mut left, right) = (source.connect().await, destination.connect().await);
    left.seed(corpus).await;
    Rig::new(&source, &destination).sync().await;
    (source, destination, left, right)
}

fn message(number: usize) -> CorpusMessage {
    CorpusMessage::new(format!("Message-ID: <m{number}@x>\r\nSubject: {number}\r\n\r\nbody {number}\r\n"))
        .flagged(&["\\Seen"])
}

fn small() -> Corpus {
    Corpus {
        folders: vec![
            CorpusFolder::new("INBOX", (0..6).map(message).collect()),
            CorpusFolder::new("Work", (10..13).map(message).collect()),
        ],
    }
}

/// The report of alice in the JSON output.
async fn report(cli: &Cli, args: &[&str], code: i32) -> Value {
    let ran = cli.run("verify", &[&["--output", "json"], args].concat()).await.exits(code);
    let [verified] = ran.events("verified").try_into().unwrap();
    assert_eq!(ran.events("summary")[0]["exitCode"], code);
    verified
}

/// The comparison of one folder.
fn folder<'a>(verified: &'a Value, name: &str) -> &'a Value {
    let folders = verified["report"]["folders"].as_array().unwrap();
    folders.iter().find(|folder| folder["source"] == name).unwrap_or_else(|| panic!("no {name} in {verified:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_mailbox_is_identical_and_neither_side_is_touched() {
    let corpus = Corpus::varied(5).without('.').without('/').with_large(3 << 20);
    let (source, destination, mut left, mut right) =
        synced(SharedServer::Maildir, SharedServer::DottedMdbox, &corpus).await;
    let before = (left.snapshot().await, right.snapshot().await);
    let cli = Cli::between(&source, &destination);
    cli.run("verify", &["--output", "text"]).await.exits(0).says(&["alice: identical"]);
    let verified = report(&cli, &["--strict"], 0).await;
    assert_eq!(verified["verdict"], "identical", "{verified:#}");
    let equal: u64 =
        verified["report"]["folders"].as_array().unwrap().iter().map(|f| f["equal"].as_u64().unwrap()).sum();
    assert_eq!(equal, corpus.messages() as u64);
    // Equal facts on both sides, \Seen among them, as before.
    assert_eq!(differences(&before.0, &left.snapshot().await), Vec::<String>::new());
    assert_eq!(differences(&before.1, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_difference_is_found_and_named() {
    let (source, destination, mut left, mut right) = synced(SharedServer::Mdbox, SharedServer::Mdbox, &small()).await;
    // The destination: 1 lost, 2 with other flags, 3 with another date, 4 rewritten, one more than the source has.
    right.expunge("INBOX", "1").await;
    right.store("INBOX", "2", "FLAGS (\\Flagged keyword)").await;
    right.expunge("INBOX", "3,4").await;
    let rewritten = CorpusMessage::new("Subject: no end\r\n\r\nno end").flagged(&["\\Seen"]);
    left.expunge("INBOX", "4").await;
    left.append("INBOX", std::slice::from_ref(&rewritten)).await;
    let with_end = CorpusMessage { body: [rewritten.body.as_slice(), b"\r\n"].concat(), ..rewritten };
    right.append("INBOX", &[message(2).dated("06-Mar-2021 08:09:10 +0000"), with_end, message(99)]).await;
    right.command_ok("UNSUBSCRIBE Work").await;

    let cli = Cli::between(&source, &destination);
    let verified = report(&cli, &[], 1).await;
    assert_eq!(verified["verdict"], "differs");
    let inbox = folder(&verified, "INBOX");
    let counts =
        ["equal", "missing", "changed", "otherFlags", "otherDate", "rewritten", "onlyAtDestination", "unreadable"]
            .map(|count| inbox[count].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 3, 1, 1, 1, 1, 0], "{inbox:#}");
    let single = inbox["differences"].as_array().unwrap();
    assert_eq!(single[0], json!({"kind": "missing", "sourceUid": 1, "what": "missing at the destination"}));
    assert_eq!(verified["report"]["unsubscribed"], json!(["Work"]));

    cli.run("verify", &["--output", "text"])
        .await
        .exits(1)
        .says(&["INBOX: UID 1: missing at the destination"])
        .says(&[
            "INBOX: UID 2 (destination UID 2)",
            "only the source has \\Seen",
            "only the destination has \\Flagged keyword",
        ])
        .says(&["INBOX: UID 3", "another date: 05-Mar-2021", "06-Mar-2021"])
        .says(&["its bytes were changed by the destination"])
        .says(&["1 missing, 3 changed"]);
    let few = cli.run("verify", &["--output", "text", "--list", "1"]).await.exits(1).says(&["and 3 more"]);
    assert!(!few.stdout.contains("UID 2"), "{}", few.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_missing_fails_and_one_that_only_the_destination_has_does_not() {
    let (source, destination, _left, mut right) = synced(SharedServer::Maildir, SharedServer::Mdbox, &small()).await;
    let cli = Cli::between(&source, &destination);
    right.command_ok("CREATE New").await;
    right.append("New", &[message(50)]).await;
    let verified = report(&cli, &[], 0).await;
    assert_eq!(verified["report"]["onlyAtDestination"], json!({"New": 1}));
    report(&cli, &["--strict"], 1).await;
    right.command_ok("DELETE Work").await;
    let verified = report(&cli, &[], 1).await;
    let work = folder(&verified, "Work");
    assert_eq!((&work["folderMissing"], &work["missing"]), (&json!(true), &json!(3)), "{work:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_mail_at_the_destination_is_no_difference_unless_strict() {
    let (source, destination, _left, mut right) = synced(SharedServer::Mdbox, SharedServer::Maildir, &small()).await;
    right.append("INBOX", &[message(70)]).await;
    let cli = Cli::between(&source, &destination);
    let verified = report(&cli, &[], 0).await;
    assert_eq!(folder(&verified, "INBOX")["onlyAtDestination"], 1);
    cli.run("verify", &["--output", "text", "--strict"]).await.exits(1).says(&["destination UID 7", "only at the"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_destination_rewrote_can_be_accepted() {
    let (source, destination) =
        (shared_server(SharedServer::Mdbox).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.append("INBOX", &[CorpusMessage::new("Subject: x\r\n\r\nno end")]).await;
    right.append("INBOX", &[CorpusMessage::new("Subject: x\r\n\r\nno end\r\n")]).await;
    let cli = Cli::between(&source, &destination);
    report(&cli, &[], 1).await;
    report(&cli, &["--allow-rewritten"], 0).await;
    right.store("INBOX", "1", "+FLAGS (\\Seen)").await;
    report(&cli, &["--allow-rewritten"], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_messages_are_expected_as_often_as_the_source_has_them() {
    let corpus = Corpus { folders: vec![CorpusFolder::new("INBOX", vec![message(1); 3])] };
    let (source, destination, _left, mut right) = synced(SharedServer::Mdbox, SharedServer::Mdbox, &corpus).await;
    let cli = Cli::between(&source, &destination);
    report(&cli, &[], 0).await;
    right.expunge("INBOX", "2").await;
    let verified = report(&cli, &[], 1).await;
    assert_eq!((&folder(&verified, "INBOX")["equal"], &folder(&verified, "INBOX")["missing"]), (&json!(2), &json!(1)));
    right.append("INBOX", &[message(1), message(1)]).await;
    report(&cli, &[], 0).await;
    report(&cli, &["--strict"], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_leave_out_is_not_expected() {
    let (source, destination) =
        (shared_server(SharedServer::Mdbox).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&small()).await;
    left.append("INBOX", &[CorpusMessage::new(vec![b'x'; 5000])]).await;
    right.append("INBOX", &(0..6).map(message).collect::<Vec<_>>()).await;
    let mut cli = Cli::between(&source, &destination);
    report(&cli, &[], 1).await;
    cli.spec["messages"] = json!({"maxSize": "4k"});
    cli.spec["folders"] = json!({"exclude": ["Work"]});
    let verified = report(&cli, &[], 0).await;
    assert_eq!(folder(&verified, "INBOX")["leftOut"], json!({"larger than maxSize": 1}));
    assert_eq!(verified["report"]["leftOut"][0]["folder"], "Work");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_looked_for_where_a_run_put_them() {
    let (source, destination) =
        (shared_server(SharedServer::Mdbox).account(), shared_server(SharedServer::Mdbox).account());
    source.connect().await.seed(&small()).await;
    let mut cli = Cli::between(&source, &destination);
    cli.spec["folders"] = json!({"rename": [{"from": "Work", "to": "Projects"}]});
    cli.run("run", &["--output", "text"]).await.exits(0);
    report(&cli, &[], 0).await;
    // The rule is gone, but what was copied stays where it is.
    cli.spec["folders"] = json!({});
    let verified = report(&cli, &[], 0).await;
    assert_eq!(folder(&verified, "Work")["destination"], "Projects");
    let verified = report(&cli, &["--state", "elsewhere"], 1).await;
    assert_eq!(folder(&verified, "Work")["folderMissing"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_made_again_and_what_was_read_is_kept() {
    let corpus = Corpus::bulk(200, 4 << 20, 2, 21).with_large(2 << 20);
    let (source, destination, ..) = synced(SharedServer::Maildir, SharedServer::Mdbox, &corpus).await;
    let proxy = FaultyProxy::start(destination.server.tls_port(), Duration::ZERO);
    proxy.break_next((1..4).map(|n| {
        let when = BreakPoint::Bytes(Direction::ToClient, n * (700 << 10));
        Some(ConnectionFault { when, how: if n == 2 { BreakMode::Reset } else { BreakMode::Close } })
    }));
    let mut cli = Cli::between(&source, &destination);
    cli.spec["destination"]["server"] = server(proxy.port());
    cli.spec["connections"] = json!(1);
    let verified = report(&cli, &["--strict"], 0).await;
    assert_eq!(verified["report"]["folders"].as_array().unwrap().len(), corpus.folders.len(), "{verified:#}");
    assert!(proxy.accepted() > 3, "no connection was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_source_does_not_deliver_fails_the_verification() {
    let destination = shared_server(SharedServer::Mdbox).account();
    destination.connect().await.append("INBOX", &[message(1)]).await;
    let source = ScriptedServer::serve(Some(&pki().good), |mut conn, _| async move {
        conn.login("IMAP4rev1 LITERAL+").await?;
        loop {
            let command = conn.command().await?;
            let tag = command.tag.clone();
            let body = message(1).body;
            let fact = |uid: u32| {
                format!(
                    "* {uid} FETCH (UID {uid} FLAGS (\\Seen) RFC822.SIZE {} INTERNALDATE \"05-Mar-2021 08:09:10 +0000\")\r\n",
                    body.len()
                )
            };
            if command.matches("STATUS*") {
                let status = "* STATUS INBOX (MESSAGES 2 UIDNEXT 3 UIDVALIDITY 1)\r\n";
                conn.send(format!("{status}{tag} OK done\r\n").as_bytes()).await?;
            } else if command.matches("UID FETCH 1:* (UID FLAGS*") {
                conn.send(format!("{}{}{tag} OK done\r\n", fact(1), fact(2)).as_bytes()).await?;
            } else if command.matches("UID FETCH 1 (*BODY*") {
                let text = String::from_utf8(body.clone()).unwrap();
                let fetch = format!("* 1 FETCH (UID 1 BODY[] {{{}}}\r\n{text})\r\n", body.len());
                conn.send(format!("{fetch}{tag} OK done\r\n").as_bytes()).await?;
            } else if command.matches("UID FETCH*BODY*") {
                conn.send(format!("{tag} NO message 2 cannot be read\r\n").as_bytes()).await?;
            } else {
                conn.answer_as_usual(&command).await?;
            }
        }
    })
    .await;
    let to = (destination.user.as_str(), destination.password.as_str());
    let cli =
        Cli::new(server(source.port()), server(destination.server.tls_port())).mailbox("alice", ("a", "b c d"), to);
    let verified = report(&cli, &[], 1).await;
    let inbox = folder(&verified, "INBOX");
    assert_eq!((&inbox["equal"], &inbox["unreadable"]), (&json!(1), &json!(1)), "{inbox:#}");
    assert!(
        source.received_commands().iter().all(|command| !command.contains(" SELECT ")),
        "{:?}",
        source.received_commands()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_cannot_be_compared_does_not_keep_others_from_it() {
    let (source, destination, ..) = synced(SharedServer::Mdbox, SharedServer::Mdbox, &small()).await;
    let from = (source.user.as_str(), source.password.as_str());
    let cli = Cli::between(&source, &destination).mailbox("bob", from, (&destination.user, "not the right one"));
    let ran = cli.run("verify", &["--output", "text"]).await.exits(10);
    ran.says(&["alice: identical"])
        .says(&["destination 127.0.0.1", "Authentication", "Mailferry creates no accounts", "(bob)"])
        .says(&["2 mailboxes: 1 identical, 1 not verified"]);
}
