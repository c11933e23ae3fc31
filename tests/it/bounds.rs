//! What a server claims, and what it costs: memory and work are bounded by what really comes.

use std::time::Duration;

use mailferry::ErrorClass;
use mailferry_testkit::CommandOutput;
use serde_json::json;

use crate::{
    cli::{Cli, server_with},
    fake::{Act, CONNECT, Change, Fake, MODERN, Mail, all_bodies, bodies, mails},
};

/// More than any command takes in a build for tests (some 52, most of it the program itself), and less than any of these lies
/// is about. MiB.
const MOST_MEMORY: f64 = 76.0;

/// A migration of one mailbox between two servers in memory.
fn cli(source: &Fake, destination: &Fake) -> Cli {
    let server = |fake: &Fake| server_with("127.0.0.1", fake.server.port(), "None");
    let mut cli = Cli::new(server(source), server(destination)).mailbox(
        "alice",
        ("alice", "source secret"),
        ("alice", "destination secret"),
    );
    cli.log_level = "info";
    cli
}

/// Runs a command, which takes no more memory than it may.
async fn run_bounded(cli: &Cli, command: &str) -> CommandOutput {
    let (ran, peak) = cli.run_measured(command, &["--output", "json"]).await;
    println!("{command}: {peak:.1} MiB");
    assert!(peak > 1.0 && peak < MOST_MEMORY, "{peak:.1} MiB: {ran:#?}");
    ran
}

/// Messages of nearly 1 MiB, the most that is held whole.
fn large_mails(count: u32) -> Vec<Mail> {
    let mut mails = mails(count);
    for mail in &mut mails {
        mail.body.extend(b"0123456789abcdef".repeat(62_500));
    }
    mails
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_larger_than_they_are_listed_are_not_held_together() {
    let mut mails = large_mails(150);
    for mail in &mut mails {
        mail.size = Some(100);
    }
    let bodies = all_bodies(&mails);
    let source = Fake::start(MODERN, mails).await;
    let destination = Fake::start(&format!("{MODERN} MULTIAPPEND"), Vec::new()).await;
    run_bounded(&cli(&source, &destination), "run").await.exits(0);
    assert!(all_bodies(&destination.mails("INBOX")) == bodies);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_come_before_their_turn_and_are_larger_than_they_are_listed_are_not_held_together() {
    let mut mails = large_mails(60);
    for mail in &mut mails {
        mail.size = Some(100);
    }
    let wanted = all_bodies(&mails);
    let told: Vec<Mail> = mails.iter().rev().cloned().collect();
    let source = Fake::twisted(MODERN, mails, move |command, _| {
        let form = |seq: usize, mail: &Mail| {
            let head = format!("* {seq} FETCH (UID {} BODY[] {{{}}}\r\n", mail.uid, mail.body.len());
            [head.as_bytes(), &mail.body, b")\r\n"].concat()
        };
        command.contains("BODY.PEEK[]").then(|| Act::Send(bodies(&told, command, form)))
    })
    .await;
    let destination = Fake::start(&format!("{MODERN} MULTIAPPEND"), Vec::new()).await;
    run_bounded(&cli(&source, &destination), "run").await.exits(0);
    assert!(all_bodies(&destination.mails("INBOX")) == wanted);
}

/// Replaces text in an answer.
fn retold(from: &'static str, to: &'static str) -> Act {
    Act::Retell(Change::new(move |answer: &mut Vec<u8>| {
        let regex = regex::bytes::Regex::new(from).unwrap();
        *answer = regex.replace_all(answer, to.as_bytes()).into_owned();
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_larger_than_its_status_is_not_held_whole() {
    let source = Fake::twisted(&format!("{MODERN} STATUS=SIZE"), Vec::new(), |command, _| {
        command.starts_with("STATUS").then(|| retold(" SIZE [0-9]+", " SIZE 0"))
    })
    .await;
    let mails = large_mails(150);
    source.change("Work", |folder| *folder = mails.clone());
    let destination = Fake::start(&format!("{MODERN} MULTIAPPEND"), Vec::new()).await;
    run_bounded(&cli(&source, &destination), "run").await.exits(0);
    assert!(all_bodies(&destination.mails("Work")) == all_bodies(&mails));
}

/// A server that lists all UIDs that there are, and counts as many messages.
async fn lists_all_uids(exists: Option<&'static str>) -> Fake {
    Fake::twisted(MODERN, mails(20), move |command, _| {
        if command.starts_with("UID SEARCH") {
            return Some(Act::send("* ESEARCH (TAG \"{tag}\") UID ALL 1:4294967295\r\n{tag} OK done\r\n"));
        }
        let exists = exists.filter(|_| command.starts_with("EXAMINE \"INBOX\""))?;
        Some(retold("[0-9]+ EXISTS", exists))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn uids_that_are_listed_and_do_not_exist_cost_nothing() {
    let source = lists_all_uids(None).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let cli = cli(&source, &destination);
    run_bounded(&cli, "run").await.exits(0);
    source.change("INBOX", |folder| folder.extend(mails(25).split_off(20)));
    run_bounded(&cli, "run").await.exits(0);
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(25)));
    run_bounded(&cli, "verify").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_of_uids_is_read_and_held_against_what_there_is() {
    let many: Vec<String> = (0..500_000).map(|n| (2 * n + 1).to_string()).collect();
    let many = many.join(" ");
    let source = Fake::twisted(MODERN, mails(20), move |command, _| {
        let answer = format!("* SEARCH {many}\r\n{{tag}} OK done\r\n");
        command.starts_with("UID SEARCH").then(|| Act::Send(answer.into_bytes()))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let cli = cli(&source, &destination);
    for count in [20, 25] {
        source.change("INBOX", |folder| *folder = mails(count));
        run_bounded(&cli, "run").await.exits(0);
        assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(count)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_counts_more_messages_than_there_can_be_costs_itself_and_no_other() {
    let source = lists_all_uids(Some("4294967295 EXISTS")).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let cli = cli(&source, &destination);
    source.change("Work", |folder| *folder = mails(2));
    for command in ["run", "run", "verify"] {
        let ran = run_bounded(&cli, command).await.exits(ErrorClass::Protocol.exit_code().into());
        ran.says(&["the server tells of 4294967295 messages in the folder, and none has more than 16000000"]);
    }
    assert_eq!(all_bodies(&destination.mails("Work")), all_bodies(&mails(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_name_of_a_megabyte_costs_itself_and_no_other() {
    let source = Fake::start(MODERN, mails(3)).await;
    source.change("Work", |folder| *folder = mails(2));
    source.change(&"x".repeat(1 << 20), |folder| *folder = mails(4));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let cli = cli(&source, &destination);
    // Its messages are not copied, and that is told.
    let ran = run_bounded(&cli, "run").await.exits(3);
    let ran = ran.says(&["xxx...", "its name has 1048576 bytes, and none has more than 8192"]);
    assert!(ran.stdout.len() < 10_000 && ran.stderr.len() < 10_000, "{ran:#?}");
    let summary = &ran.events("summary")[0];
    assert_eq!((&summary["totals"]["copied"], &summary["totals"]["notCopied"]), (&json!(5), &json!(4)));
    run_bounded(&cli, "check").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_half_a_million_levels_costs_itself_and_no_other() {
    let source = Fake::start(MODERN, mails(3)).await;
    source.change(&"x/".repeat(1 << 19), |folder| *folder = mails(4));
    let destination = Fake::start(MODERN, Vec::new()).await;
    destination.change(&"y/".repeat(1 << 19), |folder| *folder = mails(4));
    let cli = cli(&source, &destination);
    run_bounded(&cli, "run").await.exits(3).says(&["x/x/x", "its name has 1048576 bytes"]);
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_more_different_flags_than_fit_cost_their_folder_and_no_other() {
    let mut mails = mails(3000);
    for mail in &mut mails {
        // 250 bytes each, 8 KiB a message, and no two alike.
        let keywords = (0..32).map(|n| format!("{:x>250}", format!("{}-{n}", mail.uid)));
        mail.flags = keywords.collect::<Vec<_>>().join(" ").into_bytes();
    }
    let source = Fake::start(MODERN, mails).await;
    source.change("Work", |folder| *folder = crate::fake::mails(2));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let cli = cli(&source, &destination);
    let code = ErrorClass::Protocol.exit_code().into();
    run_bounded(&cli, "run").await.exits(code).says(&["more different flags than fit into 12 MiB"]);
    assert_eq!(all_bodies(&destination.mails("Work")).len(), 2);
    assert!(destination.mails("INBOX").is_empty());
    run_bounded(&cli, "verify").await.exits(code).says(&["more different flags than fit into 12 MiB"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_without_end_are_not_kept() {
    let word = "X-CAPABILITY-THAT-NOBODY-KNOWS ";
    let noise = [
        format!("* CAPABILITY {MODERN} {}\r\n", word.repeat(60_000)).repeat(3),
        "* 1 FETCH (UID 1 FLAGS () INTERNALDATE \"05-Mar-2021 08:09:10 +0000\" RFC822.SIZE 5)\r\n\
         * 2 FETCH (UID 2 FLAGS () INTERNALDATE \"05-Mar-2021 08:09:10 +0000\" RFC822.SIZE 5)\r\n"
            .repeat(400_000),
        "* LIST () \"/\" nowhere\r\n* OK still here\r\n".repeat(400_000),
    ]
    .concat();
    let source = Fake::twisted(MODERN, mails(3), move |command, _| {
        let hit = ["NOOP", "UID FETCH 1:*", "STATUS"].iter().any(|verb| command.starts_with(verb));
        hit.then(|| Act::First(noise.clone().into_bytes()))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    run_bounded(&cli(&source, &destination), "run").await.exits(0);
    assert_eq!(destination.mails("INBOX").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_beside_a_small_message_is_not_held_with_it() {
    let told = mails(200);
    let source = Fake::twisted(MODERN, told.clone(), move |command, _| {
        let form = |seq: usize, mail: &Mail| {
            let rest = "r".repeat(900_000);
            let head = format!("* {seq} FETCH (UID {} X-REST \"{rest}\" BODY[] {{{}}}\r\n", mail.uid, mail.body.len());
            [head.as_bytes(), &mail.body, b")\r\n"].concat()
        };
        command.contains("BODY.PEEK[]").then(|| Act::Send(bodies(&told, command, form)))
    })
    .await;
    // It takes its time, so that what came must wait.
    let destination = Fake::twisted(MODERN, Vec::new(), |command, _| {
        command.starts_with("APPEND").then_some(Act::Slowly(Duration::from_millis(20)))
    })
    .await;
    run_bounded(&cli(&source, &destination), "run").await.exits(0);
    assert_eq!(destination.mails("INBOX").len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_line_without_end_before_the_login_is_not_kept() {
    let endless = [b"* OK [CAPABILITY IMAP4rev1".to_vec(), b" X-MORE".repeat(2 << 20)].concat();
    let source =
        Fake::twisted(MODERN, Vec::new(), move |command, _| (command == CONNECT).then(|| Act::Bye(endless.clone())))
            .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut cli = cli(&source, &destination);
    cli.spec["retry"] = json!({"reconnects": 1, "reconnectBackoff": "1ms"});
    let code = ErrorClass::Protocol.exit_code().into();
    run_bounded(&cli, "run").await.exits(code).says(&["longer than any sensible answer"]);
}
