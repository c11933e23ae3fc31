//! `mailferry copy`, and the same two accounts with `check`, `verify` and `run`: what a person types, against real servers.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use mailferry_testkit::{
    CommandOutput, CorpusMessage, RawImap, SharedServer, TestAccount, dovecot::PASSWORD, pki::pki,
    scripted::ScriptedServer, shared_server,
};
use serde_json::json;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_mailferry");
/// What the shell of these tests knows the passwords by.
const OLD: &str = "OLD_PASSWORD";
const NEW: &str = "NEW_PASSWORD";

/// A folder to work in, with the test authority in `ca.pem`.
struct Desk {
    folder: TempDir,
    passwords: [String; 2],
}

impl Desk {
    fn new(source: &TestAccount<'_>, destination: &TestAccount<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), &pki().ca).unwrap();
        fs::write(folder.path().join("old"), format!("{}\n", source.password)).unwrap();
        Self { folder, passwords: [source.password.clone(), destination.password.clone()] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that finds the state of this desk, and the passwords in its environment.
    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_remove("RUST_LOG");
        command.env("XDG_STATE_HOME", self.path("state")).env("MAILFERRY_OUTPUT", "text");
        command.env(OLD, &self.passwords[0]).env(NEW, &self.passwords[1]).stdin(Stdio::null());
        command
    }

    async fn ended(&self, mut command: Command) -> CommandOutput {
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let [old, new] = [&self.passwords[0], &self.passwords[1]];
        CommandOutput::from(output).hides(&[old, new])
    }

    async fn run(&self, args: &[&str]) -> CommandOutput {
        let mut command = self.program(BINARY);
        command.args(["--log-level", "debug"]).args(args);
        self.ended(command).await
    }

    /// What a shell makes of this line, `mailferry` being this program.
    async fn shell(&self, line: &str) -> CommandOutput {
        let mut command = self.program("bash");
        command.args(["-c", &line.replace("mailferry ", &format!("{BINARY} "))]);
        self.ended(command).await
    }
}

/// A question's begin and end, and what is typed when it is on the screen.
type Answer = (&'static str, &'static str, String);

impl Desk {
    /// Runs a line on a terminal of its own (script(1)), and types each answer when its question is there. Gives what was on the
    /// screen in the end.
    async fn typed(&self, line: &str, answers: Vec<Answer>) -> (ExitStatus, String) {
        let mut command = self.program("script");
        command.args(["--quiet", "--return", "--command", line, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let answered = move || {
            let mut child = command.spawn().unwrap();
            let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let (mut shown, mut looked_at) = (Vec::new(), 0);
            for (question, end, answer) in &answers {
                let asked = |shown: &[u8]| {
                    let text = String::from_utf8_lossy(shown).into_owned();
                    text.split_once(question).is_some_and(|(_, behind)| behind.contains(end))
                };
                while !asked(&shown[looked_at..]) {
                    let mut bytes = [0; 256];
                    let count = screen.read(&mut bytes).unwrap();
                    assert!(count > 0, "no {question}, but {}", String::from_utf8_lossy(&shown));
                    shown.extend_from_slice(&bytes[..count]);
                }
                looked_at = shown.len();
                writeln!(keyboard, "{answer}").unwrap();
            }
            screen.read_to_end(&mut shown).unwrap();
            (child.wait().unwrap(), String::from_utf8_lossy(&shown).into_owned())
        };
        tokio::task::spawn_blocking(answered).await.unwrap()
    }
}

fn imaps(account: &TestAccount<'_>) -> String {
    format!("imaps://{}@127.0.0.1:{}", account.user, account.server.tls_port())
}

fn imap(account: &TestAccount<'_>) -> String {
    format!("imap://{}@localhost:{}", account.user, account.server.plain_port())
}

fn messages(numbers: std::ops::Range<u32>) -> Vec<CorpusMessage> {
    let text = |n| format!("Message-ID: <{n}@copy.example>\r\nSubject: {n}\r\n\r\n{n}\r\n");
    numbers.map(|n| CorpusMessage::new(text(n)).dated("05-Mar-2024 08:09:10 +0000")).collect()
}

/// Two accounts on two servers, with four messages at the source.
async fn accounts() -> (TestAccount<'static>, TestAccount<'static>, RawImap) {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let mut left = source.connect().await;
    left.append("INBOX", &messages(0..4)).await;
    (source, destination, left)
}

async fn count(account: &TestAccount<'_>, folder: &str) -> usize {
    account.connect().await.folder_facts(folder).await.1.len()
}

/// The checkpoints below a folder.
fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(checkpoints(&path));
        } else if path.extension().is_some_and(|end| end == "checkpoint") {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_and_a_run_of_the_manifest_that_it_saved_go_on_from_one_checkpoint() {
    let (source, destination, mut left) = accounts().await;
    let desk = Desk::new(&source, &destination);
    let (from, to) = (imaps(&source), imap(&destination));
    let sides = ["--ca-file", "ca.pem", "--source-password-file", "old", "--destination-password-env", NEW];
    let both = [&[from.as_str(), to.as_str()], &sides[..]].concat();
    let with = |command: &'static str, more: &[&'static str]| [&[command], &both[..], more].concat();

    desk.run(&with("check", &[])).await.exits(0).says(&["ready"]);
    desk.run(&with("copy", &["--dry-run"])).await.exits(0);
    assert_eq!((count(&destination, "INBOX").await, checkpoints(&desk.path("state")).len()), (0, 0));
    let copied = desk.run(&with("copy", &["--save", "saved.yaml", "--output", "json"])).await.exits(0);
    assert_eq!(copied.events("finished")[0]["report"]["folders"][0]["copiedNow"], 4);
    desk.run(&with("verify", &[])).await.exits(0).says(&["identical"]);

    // What the user removes at the destination comes back only where no checkpoint is found.
    let mut right = destination.connect().await;
    right.expunge("INBOX", "1").await;
    left.append("INBOX", &messages(4..5)).await;
    let saved = fs::read_to_string(desk.path("saved.yaml")).unwrap();
    let hint = saved.lines().find_map(|line| line.strip_prefix("#   ")).unwrap();
    let ran = desk.shell(&format!("{hint} --output json")).await.exits(0);
    let folder = &ran.events("finished")[0]["report"]["folders"][0];
    assert_eq!((&folder["copiedNow"], &folder["copiedBefore"]), (&1.into(), &4.into()), "{folder:#}");
    assert_eq!(count(&destination, "INBOX").await, 4);

    // And back again.
    left.append("INBOX", &messages(5..6)).await;
    let copied = desk.run(&with("copy", &["--output", "json"])).await.exits(0);
    assert_eq!(copied.events("finished")[0]["report"]["folders"][0]["copiedNow"], 1);
    assert_eq!(count(&destination, "INBOX").await, 5);
    let found = checkpoints(&desk.path("state"));
    assert_eq!(found.len(), 1, "{found:?}");
    for password in &desk.passwords {
        assert!(!saved.contains(password.as_str()), "{saved}");
    }
    desk.run(&with("copy", &["--save", "ca.pem"])).await.exits(2).says(&["ca.pem holds something else"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_folders_and_messages_hold() {
    let (source, destination, mut left) = accounts().await;
    for folder in ["Work", "Trash", "Old"] {
        left.command_ok(&format!("CREATE {folder}")).await;
        left.append(folder, &messages(10..11)).await;
    }
    let old = messages(20..21).remove(0).dated("05-Mar-2021 08:09:10 +0000");
    left.append("INBOX", &[old]).await;
    let desk = Desk::new(&source, &destination);
    let (from, to) = (imaps(&source), imaps(&destination));
    let rules = ["--exclude", "Trash", "--rename", "Old=New", "--since", "2022-01-01", "--connections", "1"];
    let sides = ["--ca-file", "ca.pem", "--source-password-env", OLD, "--destination-password-env", NEW];
    let both = [&[from.as_str(), to.as_str()], &sides[..], &rules[..]].concat();
    desk.run(&[&["copy"], &both[..]].concat()).await.exits(0);
    let mut right = destination.connect().await;
    let names: Vec<String> = right.folders().await.into_iter().map(|folder| folder.path).collect();
    for (folder, is_there) in [("Work", true), ("New", true), ("Old", false), ("Trash", false)] {
        assert_eq!(names.iter().any(|name| name == folder), is_there, "{names:?}");
    }
    assert_eq!(count(&destination, "INBOX").await, 4, "the old message stays behind");
    desk.run(&[&["verify"], &both[..]].concat()).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_logs_in_and_passwords_come_by_file_descriptors() {
    let (source, destination, _left) = accounts().await;
    let mut desk = Desk::new(&source, &destination);
    desk.passwords[1] = "m@ster pass".to_owned();
    let line = format!(
        "mailferry copy {} {} --ca-file ca.pem --source-password-fd 3 --destination-master-user master \
         --destination-password-fd 4 3<old 4< <(printf %s \"${NEW}\")",
        imaps(&source),
        imaps(&destination)
    );
    desk.shell(&line).await.exits(0);
    assert_eq!(count(&destination, "INBOX").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_asked_for_on_the_terminal_and_not_shown() {
    let (source, destination, _left) = accounts().await;
    let desk = Desk::new(&source, &destination);
    let line = format!("{BINARY} copy {} {} --ca-file ca.pem", imaps(&source), imaps(&destination));
    let [old, new] = desk.passwords.clone();
    let questions = [("at the source (", "): ", old), ("at the destination (", "): ", new)];
    let (status, shown) = desk.typed(&line, questions.to_vec()).await;
    assert!(status.success(), "{shown}");
    assert!(shown.contains(&source.user) && !desk.passwords.iter().any(|p| shown.contains(p.as_str())), "{shown}");
    assert_eq!(count(&destination, "INBOX").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_a_password_is_not_waited_for() {
    let (source, destination, _left) = accounts().await;
    let desk = Desk::new(&source, &destination);
    // setsid(1): the terminal that runs the tests is none of its own.
    let mut command = desk.program("setsid");
    command.args(["--wait", BINARY, "copy", &imaps(&source), &imaps(&destination), "--ca-file", "ca.pem"]);
    desk.ended(command).await.exits(2).says(&["no terminal", "--source-password-file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_on_a_command_line_is_shown() {
    let (source, destination, _left) = accounts().await;
    let mut desk = Desk::new(&source, &destination);
    desk.passwords = ["hush-hush".to_owned(), "hu/sh@hush".to_owned()];
    let (good, one, two) = (imaps(&source), "imaps://alice:hush-hush@imap.example", "alice:hu/sh@hush@imap.example");
    for line in [
        &["copy", one, &good][..],
        &["copy", &good, two],
        &["copy", one],
        &["copy", &good, &good, two],
        &["copy", &good, one, "--connections", two],
        &["copy", &good, &good, "--since=alice:hush-hush@imap.example"],
        &["copy", "pop3://alice:hush-hush@imap.example", &good],
        &["copy", "imaps://alice@imap.example:hush-hush", &good],
        &["check", one, &good],
        &["verify", two, &good],
        &["export", &good, two, "--not-copied", "x"],
        &["run", two],
        &["run", one, one],
        &[one, &good],
        &[two],
    ] {
        desk.run(line).await.exits(2);
    }
    desk.run(&["copy", one, &good]).await.says(&["SOURCE", "it is in your shell's history now", "change it"]);
    desk.run(&["run", &good, &good]).await.exits(2).says(&["mailferry copy SOURCE DESTINATION"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheme_without_tls_does_not_exist_and_a_server_without_it_gets_no_password() {
    let (source, destination, _left) = accounts().await;
    let desk = Desk::new(&source, &destination);
    // It answers well, and offers no STARTTLS.
    let plain = ScriptedServer::serve(None, |mut connection, _| async move {
        connection.send(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n").await?;
        loop {
            let command = connection.command().await?;
            let answer = if command.matches("CAPABILITY") {
                format!("* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n{} OK done\r\n", command.tag)
            } else {
                format!("{} BAD what is that\r\n", command.tag)
            };
            connection.send(answer.as_bytes()).await?;
        }
    })
    .await;
    let from = format!("imap://alice@127.0.0.1:{}", plain.port());
    let sides = ["--source-password-env", OLD, "--destination-password-env", NEW, "--ca-file", "ca.pem"];
    desk.run(&[&["copy", &from, &imaps(&destination)], &sides[..]].concat()).await.exits(15);
    let heard = plain.received_commands();
    assert!(!heard.iter().any(|line| line.contains("AUTHENTICATE") || line.contains("LOGIN")), "{heard:?}");
}

/// A migration of two mailboxes, as `docs/command-line.md` has one.
fn migration() -> String {
    let (left, right) = (shared_server(SharedServer::Maildir), shared_server(SharedServer::Mdbox));
    let mailbox = |name: &str| {
        let account = |account: TestAccount<'_>, key: &str| json!({"username": account.user, "passwordSecretRef": {"name": "mail", "key": key}});
        json!({"name": name, "source": account(left.account(), "old"), "destination": account(right.account(), "new")})
    };
    let server = |port: u16| json!({"server": {"host": "127.0.0.1", "port": port}});
    let migration = json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "acme"},
        "spec": {
            "source": server(left.tls_port()), "destination": server(right.tls_port()),
            "mailboxes": [mailbox("alice@acme.example"), mailbox("bob@sales.acme.example"), mailbox("carol")],
        },
    });
    let passwords = json!({"old": PASSWORD, "new": PASSWORD});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail"}, "stringData": passwords});
    format!("{migration}\n---\n{secret}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_page_does_what_the_page_says() {
    let (source, destination, _left) = accounts().await;
    let desk = Desk::new(&source, &destination);
    for (name, content) in [("new", PASSWORD), ("master", "m@ster pass"), ("migration.yaml", &migration())] {
        fs::write(desk.path(name), content).unwrap();
    }
    let page = fs::read_to_string("docs/command-line.md").unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines: Vec<&str> = blocks.flat_map(str::lines).filter(|line| line.starts_with("mailferry ")).collect();
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines {
        let mut real = line.replace("migrator", "master");
        for (host, account) in [("imap.oldhost.example", &source), ("mail.newhost.example", &destination)] {
            for written in [format!("imaps://alice@acme.example@{host}"), format!("alice@{host}")] {
                real = real.replace(&written, &imaps(account));
            }
        }
        // What is asked for on a terminal, and an authority that no one else trusts.
        if real.contains("imaps://") && !real.contains("password") {
            real += " --source-password-file old --destination-password-file new";
        }
        let connects = ["copy", "check", "init", "run", "verify"]
            .iter()
            .any(|word| real.starts_with(&format!("mailferry {word} ")));
        if connects && !real.contains("--ca-file") {
            real += " --ca-file ca.pem";
        }
        let ran = desk.shell(&real).await;
        assert_eq!(ran.code, 0, "{line}\n{real}\n{}\n{}", ran.stdout, ran.stderr);
    }
    assert_eq!(count(&destination, "INBOX").await, 4, "nothing is doubled, however often it is copied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_manifest_is_made_of_questions_and_runs() {
    let (source, destination, _left) = accounts().await;
    let desk = Desk::new(&source, &destination);
    let line = format!("{BINARY} init acme.yaml --ca-file ca.pem");
    let server = |account: &TestAccount<'_>| format!("127.0.0.1:{}", account.server.tls_port());
    let [old, new] = desk.passwords.clone();
    // A password is mistyped: that side is asked for once more, and no other.
    let answers = vec![
        ("Mailbox that mail is read from", ": ", source.user.clone()),
        ("Its IMAP server", ": ", server(&source)),
        ("Password at the source (", "): ", "wrong".to_owned()),
        ("Mailbox that it is written to", ": ", destination.user.clone()),
        ("Its IMAP server", ": ", server(&destination)),
        ("Password at the destination (", "): ", new.clone()),
        ("Mailbox that mail is read from", ": ", source.user.clone()),
        ("Its IMAP server", ": ", server(&source)),
        ("Password at the source (", "): ", old.clone()),
    ];
    let (status, shown) = desk.typed(&line, answers).await;
    assert!(status.success(), "{shown}");
    assert!(shown.contains("Authentication") && shown.contains("Written: acme.yaml"), "{shown}");
    assert!(!shown.contains(&old) && !shown.contains(&new), "{shown}");
    assert_eq!(count(&destination, "INBOX").await, 0, "nothing is copied yet");
    let written = fs::read_to_string(desk.path("acme.yaml")).unwrap();
    assert!(!written.contains(&old) && !written.contains(&new), "{written}");

    // What it says comes next works, once the passwords are in files.
    fs::write(desk.path("new"), &new).unwrap();
    let next = shown.lines().find_map(|line| line.trim().strip_prefix("mailferry run ")).unwrap();
    let next = format!("mailferry run {next}").replacen("PATH", "old", 1).replacen("PATH", "new", 1);
    desk.shell(&next).await.exits(0);
    assert_eq!(count(&destination, "INBOX").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_manifest_is_made_of_flags_where_nobody_is_asked() {
    let (source, destination, _left) = accounts().await;
    let desk = Desk::new(&source, &destination);
    let (from, to) = (imaps(&source), imap(&destination));
    let sides = ["--ca-file", "ca.pem", "--source-password-file", "old", "--destination-password-env", NEW];
    let init = |file: &'static str| [&["init", file, "--source", &from, "--destination", &to], &sides[..]].concat();
    let made =
        desk.run(&init("acme.yaml")).await.exits(0).says(&["Written: acme.yaml"]).says(&["mailferry run acme.yaml"]);
    let next = made.stdout.lines().find_map(|line| line.strip_prefix("  MAILFERRY_SECRET_")).unwrap().to_owned();
    desk.shell(&format!("MAILFERRY_SECRET_{next}")).await.exits(0);
    assert_eq!(count(&destination, "INBOX").await, 4);
    desk.run(&init("acme.yaml")).await.exits(2).says(&["acme.yaml is there already"]);
    // A login that is refused writes nothing.
    fs::write(desk.path("old"), "wrong").unwrap();
    desk.run(&init("other.yaml")).await.exits(10).says(&["source"]);
    assert!(!desk.path("other.yaml").exists());
}
