//! `mailferry verify` against servers that misbehave: what can't be compared is told, and costs nothing else.

use serde_json::{Value, json};

use crate::{
    cli::{Cli, server_with},
    fake::{Act, Fake, MODERN, Mail, asks_for, mails},
};

/// A migration of one mailbox between two servers in memory.
fn between(source: &Fake, destination: &Fake) -> Cli {
    let at = |fake: &Fake| server_with("127.0.0.1", fake.server.port(), "None");
    let mut cli = Cli::new(at(source), at(destination)).mailbox("alice", ("from", "one secret"), ("to", "another one"));
    cli.spec["connections"] = json!(1);
    cli.spec["retry"] = json!({"reconnectBackoff": "20ms", "reconnectMaxBackoff": "100ms"});
    cli
}

async fn verify(cli: &Cli, args: &[&str], code: i32) -> Value {
    let ran = cli.run("verify", &[&["--output", "json"], args].concat()).await.exits(code);
    let [verified] = ran.events("verified").try_into().unwrap();
    verified["report"].clone()
}

fn folder<'a>(report: &'a Value, name: &str) -> &'a Value {
    let folders = report["folders"].as_array().unwrap();
    folders.iter().find(|folder| folder["source"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_too_many_are_a_difference_where_a_run_may_have_made_them() {
    let source = Fake::start(MODERN, mails(6)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let cli = between(&source, &destination);
    cli.run("run", &["--output", "text"]).await.exits(0);
    assert_eq!(folder(&verify(&cli, &[], 0).await, "INBOX")["doubled"], 0);
    // As a second run would, with a state of its own.
    destination.change("INBOX", |held| {
        let copies: Vec<Mail> = (7..).zip(mails(2)).map(|(uid, mail)| Mail { uid, ..mail }).collect();
        held.extend(copies);
    });
    let report = verify(&cli, &[], 1).await;
    let inbox = folder(&report, "INBOX");
    let counts = ["equal", "onlyAtDestination", "doubled", "doubledSinceSync"].map(|count| inbox[count].as_u64());
    assert_eq!(counts, [Some(6), Some(2), Some(2), Some(2)], "{inbox:#}");
    assert_eq!(inbox["differences"][0]["kind"], "doubled");
    // Without the checkpoint nobody knows who made them.
    let report = verify(&cli, &["--state", "elsewhere"], 0).await;
    let inbox = folder(&report, "INBOX");
    assert_eq!((&inbox["doubled"], &inbox["doubledSinceSync"]), (&json!(2), &json!(0)), "{inbox:#}");
    cli.run("verify", &["--output", "text", "--state", "elsewhere"])
        .await
        .exits(0)
        .says(&["alice: identical", "copies too many at the destination (2)"])
        .says(&["INBOX: destination UID 7: a copy too many"]);
    verify(&cli, &["--state", "elsewhere", "--strict"], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_ends_connections_when_it_is_opened_costs_that_folder() {
    let source = Fake::twisted(MODERN, mails(3), |command, _| {
        (command.starts_with("EXAMINE") && command.contains("BAD")).then(|| Act::Bye(Vec::new()))
    })
    .await;
    let destination = Fake::start(MODERN, mails(3)).await;
    for side in [&source, &destination] {
        side.change("Bad", |held| *held = mails(9)); // the largest is compared first
    }
    let report = verify(&between(&source, &destination), &[], 14).await;
    assert_eq!(folder(&report, "Bad")["error"]["class"], "Network", "{report:#}");
    assert_eq!(folder(&report, "INBOX")["equal"], 3, "{report:#}");
    assert_eq!(report["error"], Value::Null, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_that_a_server_says_it_is_unavailable_for_is_found_among_the_others() {
    let source = Fake::twisted(MODERN, mails(4), |command, _| {
        let unavailable = "{tag} NO [UNAVAILABLE] UID FETCH Server error while fetching messages\r\n";
        asks_for(command, 3).then(|| Act::send(unavailable))
    })
    .await;
    let destination = Fake::start(MODERN, mails(4)).await;
    let report = verify(&between(&source, &destination), &[], 1).await;
    let inbox = folder(&report, "INBOX");
    assert_eq!((&inbox["equal"], &inbox["unreadable"]), (&json!(3), &json!(1)), "{inbox:#}");
    assert_eq!(inbox["differences"][0]["sourceUid"], 3, "{inbox:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_only_in_a_view_are_foretold_and_are_a_difference() {
    let source = Fake::twisted(&format!("{MODERN} SPECIAL-USE"), mails(4), |command, _| {
        let folders = "* LIST () \"/\" INBOX\r\n* LIST (\\All) \"/\" \"All Mail\"\r\n{tag} OK done\r\n";
        command.starts_with("LIST").then(|| Act::send(folders))
    })
    .await;
    source.change("All Mail", |held| *held = mails(6));
    let destination = Fake::start(MODERN, mails(4)).await;
    let cli = between(&source, &destination);
    let report = verify(&cli, &[], 1).await;
    assert_eq!(report["leftOut"][0]["notElsewhere"], 2, "{report:#}");
    cli.run("verify", &["--output", "text"]).await.exits(1).says(&["differs: 2 only in views"]);
    cli.run("check", &["--output", "text"]).await.exits(0).says(&["All Mail holds at least 2 messages that are in no"]);
    cli.run("run", &["--output", "text"]).await.exits(3);
    // The same messages are nowhere else after the user said that it is right.
    let mut cli = cli;
    cli.spec["folders"] = json!({"exclude": ["All Mail"]});
    verify(&cli, &[], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_counts_and_never_lists_is_a_difference() {
    // It says that there are four, and shows three whatever it is asked.
    let source = Fake::twisted(MODERN, mails(4), |command, _| {
        let fact = |uid: u32| {
            let size = mails(4).iter().find(|mail| mail.uid == uid).map_or(0, |mail| mail.body.len());
            let date = "\"05-Mar-2021 08:09:10 +0000\"";
            format!("* {uid} FETCH (UID {uid} FLAGS (\\Seen) INTERNALDATE {date} RFC822.SIZE {size})\r\n")
        };
        let facts = || [1, 2, 3].map(fact).concat();
        if command.starts_with("UID SEARCH RETURN (ALL) ALL") {
            Some(Act::send("* ESEARCH UID ALL 1:3\r\n{tag} OK done\r\n"))
        } else if command.contains("FETCH") && command.contains("(UID FLAGS") {
            Some(Act::send(&format!("{}{{tag}} OK done\r\n", facts())))
        } else {
            None
        }
    })
    .await;
    let destination = Fake::start(MODERN, mails(3)).await;
    let report = verify(&between(&source, &destination), &[], 1).await;
    let inbox = folder(&report, "INBOX");
    assert_eq!(
        (&inbox["equal"], &inbox["missing"], &inbox["unlisted"]),
        (&json!(3), &json!(0), &json!(1)),
        "{inbox:#}"
    );
}
