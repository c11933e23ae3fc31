//! What was not copied: how a run ends then, how a person accepts it, and how it becomes files.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use mailferry::sync::{
    checkpoint::Checkpoint,
    set_aside::{SetAside, SetAsideGroup, SetAsideReason},
    uid::SourceUid,
};
use mailferry_testkit::{CommandOutput, CorpusMessage, SharedServer, dovecot::TestAccount, shared_server};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, checkpoint_in, server, server_with},
    fake::{Act, Fake, MODERN, mails},
};

fn sized(n: usize) -> CorpusMessage {
    CorpusMessage::new([format!("Subject: {n}\r\n\r\n").as_bytes(), &vec![b'x'; n]].concat())
}

/// From an account with two messages that are too large for the destination.
async fn too_large(source: &TestAccount<'_>) -> (Cli, Fake) {
    let mut imap = source.connect().await;
    imap.append("INBOX", &[sized(10), sized(1500), sized(20), sized(3 << 20)]).await;
    let destination = Fake::start(&format!("{MODERN} APPENDLIMIT=1000"), Vec::new()).await;
    let cli = Cli::new(server(source.server.tls_port()), server_with("127.0.0.1", destination.server.port(), "None"));
    (cli.mailbox("alice", (&source.user, &source.password), ("anybody", "at all, says the fake")), destination)
}

fn report(ran: &CommandOutput) -> Value {
    ran.events("finished")[0]["report"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_leaves_messages_behind_ends_with_3_until_they_are_accepted() {
    let source = shared_server(SharedServer::Maildir).account();
    let (mut cli, _destination) = too_large(&source).await;
    cli.run("run", &["--dry-run"]).await.exits(0);
    let first = cli.run("run", &["--output", "json"]).await.exits(3);
    let summary = &first.events("summary")[0];
    assert_eq!(
        (&summary["done"], &summary["totals"]["notCopied"], &summary["exitCode"]),
        (&json!(1), &json!(2), &json!(3))
    );
    let told = report(&first);
    assert_eq!(told["notCopied"], json!({"messages": 2, "reasons": {"tooLarge": 2}}));
    let large = &told["folders"][0]["skippedMessages"][1];
    assert_eq!((&large["uid"], &large["size"]), (&json!(4), &json!(sized(3 << 20).body.len())), "{large}");
    assert!(large["date"].is_string(), "{large}");
    let again = cli.run("run", &["--output", "text"]).await.exits(3);
    again
        .says(&["alice: done, 2 not copied, in"])
        .says(&["1 mailbox: 1 done, 2 messages not copied."])
        .says(&["INBOX: UID 4: ", "tried again when that changes"])
        .says(&["mailferry export --not-copied"]);
    cli.run("verify", &[]).await.exits(1);

    let validity = told["folders"][0]["sourceUidValidity"].as_u64().unwrap();
    cli.spec["messages"] = json!({"acceptNotCopied": [{"folder": "INBOX", "messages": [format!("{validity}:2")]}]});
    cli.run("run", &["--output", "text"])
        .await
        .exits(3)
        .says(&["alice: done, 1 not copied, in", "1 not copied as accepted"]);
    cli.spec["messages"] = json!({"acceptNotCopied": [{"reason": "TooLarge"}]});
    let accepted = cli.run("run", &["--output", "json"]).await.exits(0);
    assert_eq!(report(&accepted)["notCopied"], json!({"messages": 0, "reasons": {}, "accepted": {"tooLarge": 2}}));
    cli.run("run", &["--output", "text", "--retry-refused"]).await.exits(0).says(&["2 not copied as accepted"]);
    let wrong = json!({"acceptNotCopied": [{"folder": "INBOX", "messages": ["2"]}]});
    cli.spec["messages"] = wrong;
    cli.run("run", &[]).await.exits(2).says(&["spec.messages.acceptNotCopied[0].messages[0]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_match_nothing_are_warned_of_by_check_and_run() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    source.connect().await.append("INBOX", &vec![sized(10); 30]).await;
    let mut cli = Cli::between(&source, &destination);
    cli.spec["folders"] = json!({"exclude": ["Sent Itmes"], "rename": [{"from": "Old", "to": "New"}]});
    let checked = cli.run("check", &["--output", "json"]).await.exits(0);
    let warnings = checked.events("checked")[0]["warnings"].clone();
    assert_eq!(warnings.as_array().unwrap().len(), 2, "{warnings:#}");
    assert_eq!(warnings[0]["topic"], "folders");
    let expected = [
        "folders.exclude: `Sent Itmes` matches no folder of the source",
        "folders.rename: `Old` matches no folder of the source",
    ];
    let ran = cli.run("run", &["--output", "json"]).await.exits(0);
    assert_eq!(report(&ran)["warnings"], json!(expected));
    cli.run("run", &["--output", "text"]).await.exits(0).says(&["Look at this"]).says(&[expected[0]]);
    cli.spec["folders"] = json!({"exclude": ["**"]});
    cli.run("check", &["--output", "text"]).await.exits(0).says(&["every folder of the source is left out"]);
}

/// Sets messages of the mailbox's folders aside, as a run would have done it.
fn set_aside(cli: &Cli, folder: &[u8], groups: Vec<SetAsideGroup>) -> Checkpoint {
    let file = checkpoint_in(&cli.state());
    let mut checkpoint = Checkpoint::decode(&fs::read(&file).unwrap()).unwrap();
    let state = checkpoint.folders.get_mut(folder).unwrap();
    state.set_aside = SetAside::default();
    for group in groups {
        state.set_aside.add_group(group);
    }
    fs::write(file, checkpoint.encode().unwrap()).unwrap();
    checkpoint
}

fn group(reason: SetAsideReason, why: &str, uids: &[u32]) -> SetAsideGroup {
    let uids = uids.iter().copied().map(SourceUid).collect();
    SetAsideGroup { why: why.to_owned(), ..SetAsideGroup::new(reason, uids) }
}

/// The index by UID.
fn index(folder: &Path) -> BTreeMap<u64, Value> {
    let text = fs::read_to_string(folder.join("index.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["uid"].as_u64().unwrap(), line)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_copied_becomes_files_and_the_source_stays_as_it_is() {
    let source = shared_server(SharedServer::Maildir).account();
    let (cli, _destination) = too_large(&source).await;
    cli.run("export", &["--not-copied", "out", "--output", "text"])
        .await
        .exits(2)
        .says(&["Configuration:", "there is no checkpoint"]);
    cli.run("run", &[]).await.exits(3);
    let before = source.connect().await.snapshot().await;
    let ran = cli.run("export", &["--not-copied", "out", "--output", "text"]).await.exits(0);
    ran.says(&["alice: 2 messages", "written to out/alice"]).says(&["1 mailbox: 2 messages", "written in"]);
    assert_eq!(source.connect().await.snapshot().await, before, "not even \\Seen");

    let folder = cli.path("out/alice");
    let index = index(&folder);
    assert_eq!(index.keys().copied().collect::<Vec<_>>(), [2, 4]);
    for (uid, size) in [(2, 1500), (4, 3 << 20)] {
        let line = &index[&uid];
        let file = folder.join(line["file"].as_str().unwrap());
        assert_eq!(fs::read(&file).unwrap(), sized(size).body, "{line}");
        let named = format!("INBOX/{}-{uid}.eml", line["uidValidity"]);
        assert_eq!(
            (&line["file"], &line["folder"], &line["reason"]),
            (&json!(named), &json!("INBOX"), &json!("tooLarge"))
        );
        assert!(line["why"].as_str().unwrap().contains("APPENDLIMIT") && line["date"].is_string(), "{line}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap()), mode(&folder)), (0o600, 0o700, 0o700));
    }
    cli.run("export", &["--not-copied", "out"]).await.exits(0);
    assert_eq!(fs::read_dir(folder.join("INBOX")).unwrap().count(), 2, "the same messages again are the same files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_from_a_cluster_does_as_well_and_other_accounts_do_not() {
    let (source, destination) =
        (shared_server(SharedServer::DottedMaildir).account(), shared_server(SharedServer::Mdbox).account());
    let mut imap = source.connect().await;
    imap.command_ok("CREATE \"INBOX.Work.a&AOQ-b\"").await;
    imap.append("INBOX.Work.a&AOQ-b", &[sized(1), sized(2), sized(3)]).await;
    let cli = Cli::between(&source, &destination);
    cli.run("run", &[]).await.exits(0);
    let groups =
        vec![group(SetAsideReason::Refused, "NO [CANNOT] 8BIT", &[1, 2]), group(SetAsideReason::Empty, "", &[77])];
    let checkpoint = set_aside(&cli, b"INBOX.Work.a&AOQ-b", groups);
    imap.command_ok("SELECT \"INBOX.Work.a&AOQ-b\"").await;
    imap.expunge("INBOX.Work.a&AOQ-b", "1").await;
    fs::write(cli.path("status"), checkpoint.encode_text().unwrap()).unwrap();
    let args = ["--not-copied", "out", "--checkpoint", "status", "--output", "json"];
    let ran = cli.run("export", &args).await.exits(0);
    let exported = &ran.events("exported")[0];
    assert_eq!((&exported["written"], &exported["gone"], &exported["messages"]), (&json!(1), &json!(2), &json!(3)));
    let index = index(&cli.path("out/alice"));
    let line = &index[&2];
    assert_eq!((&line["folder"], &line["why"]), (&json!("Work/aäb"), &json!("NO [CANNOT] 8BIT")), "{line}");
    assert!(line["file"].as_str().unwrap().starts_with("Work_aäb-"), "{line}");

    let other = shared_server(SharedServer::Mdbox).account();
    let state = cli.path("status").display().to_string();
    let stranger = Cli::between(&source, &other);
    let ran =
        stranger.run("export", &["--not-copied", "out", "--checkpoint", &state, "--output", "text"]).await.exits(2);
    ran.says(&["Configuration: the checkpoint is for other accounts"]);
    assert!(!stranger.path("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_does_not_deliver_is_told_and_the_rest_is_written() {
    let source = Fake::twisted(MODERN, mails(12), |command, _| {
        let asks = |uid: u32| command.contains("BODY.PEEK[]") && command.contains(&format!("FETCH {uid} "));
        match () {
            () if asks(3) => Some(Act::send("{tag} NO [SERVERBUG] out of order\r\n")),
            () if asks(5) => Some(Act::send("{tag} NO that one is broken\r\n")),
            () if asks(7) => Some(Act::Bye(Vec::new())),
            () => None,
        }
    })
    .await;
    let destination = shared_server(SharedServer::Mdbox).account();
    let mut cli =
        Cli::new(server_with("127.0.0.1", source.server.port(), "None"), server(destination.server.tls_port()))
            .mailbox("alice", ("anybody", "at all, says the fake"), (&destination.user, &destination.password));
    cli.spec["retry"] = json!({"reconnectBackoff": "10ms"});
    cli.run("run", &[]).await.exits(0);
    let uids = [1, 3, 5, 7, 9, 12];
    let checkpoint = set_aside(&cli, b"INBOX", vec![group(SetAsideReason::Refused, "NO", &uids)]);
    let ran = cli.run("export", &["--not-copied", "out", "--output", "text"]).await.exits(3);
    ran.says(&["alice: 3 messages", "3 could not be read"]).says(&["UID 5: ", "that one is broken"]);
    let found = index(&cli.path("out/alice"));
    let written: Vec<u64> =
        found.values().filter(|l| l["problem"].is_null()).map(|l| l["uid"].as_u64().unwrap()).collect();
    assert_eq!((found.len(), written), (6, vec![1, 9, 12]));
    assert_eq!(fs::read_dir(cli.path("out/alice/INBOX")).unwrap().count(), 3, "no piece of a message is left");

    // Once the folder was made anew, its UIDs mean other messages.
    let mut other = checkpoint.clone();
    other.folders.get_mut(&b"INBOX"[..]).unwrap().source_uid_validity += 1;
    fs::write(cli.path("other"), other.encode().unwrap()).unwrap();
    let ran = cli.run("export", &["--not-copied", "anew", "--checkpoint", "other", "--output", "text"]).await.exits(3);
    ran.says(&["alice: 0 messages", "6 could not be read"]).says(&["UID 1: the folder was made anew"]);
}
