//! What a run says to people, and where else it is written.

use std::{fs, net::TcpListener, process::Stdio};

use mailferry_testkit::{CommandOutput, CorpusMessage, SharedServer, shared_server};
use serde_json::{Value, json};

use crate::cli::{Cli, server_with};

/// A migration of so many mailboxes from a server where nobody listens.
fn from_nowhere(mailboxes: usize) -> Cli {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = || server_with("127.0.0.1", free, "Implicit");
    let mut cli = Cli::new(nowhere(), server_with("127.0.0.1", 1, "Implicit"));
    cli.log_level = "error";
    for n in 0..mailboxes {
        let user = format!("user{n}");
        cli = cli.mailbox(&user, (&user, "source secret"), (&user, "destination secret"));
    }
    cli
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_where_nobody_listens_is_one_problem_of_many_mailboxes_and_ends_them_at_once() {
    // A patience of minutes for each, were it waited for.
    let ran = from_nowhere(30).run("run", &["--parallelism", "2"]).await.exits(14);
    let said = |text: &str| text.matches("no connection to 127.0.0.1").count();
    assert!((1..=2).contains(&said(&ran.stdout)) && said(&ran.stderr) <= 2, "{ran:#?}");
    let ran = ran.says(&["Network:", "Check host and port", "(30 mailboxes: user0, user1, user2 and 27 more)"]);
    let ran = ran.says(&["30 mailboxes: 30 failed."]);
    assert!(ran.stdout.lines().count() < 10 && ran.stderr.lines().count() < 5, "{ran:#?}");
    assert!(ran.stdout.starts_with("\nProblems (") && !ran.stdout.contains('{'), "{ran:#?}");

    let quiet = from_nowhere(3).run("run", &["--quiet"]).await.exits(14);
    assert_eq!((quiet.stdout.lines().count(), quiet.stderr.as_str()), (1, ""), "{quiet:#?}");
    from_nowhere(1).run("run", &["--quiet", "--verbose"]).await.exits(2);
}

#[test]
fn who_reads_each_stream_by_a_pipe_of_its_own_gets_json_and_everybody_else_text() {
    let run = |shell: &str| {
        let migration = from_nowhere(1);
        let run = migration.process("run", &["--quiet"]);
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", shell, "sh"]).arg(run.get_program()).args(run.get_args());
        command.current_dir(migration.path(".")).env("XDG_STATE_HOME", migration.path("state-home"));
        let output = command.env_remove("MAILFERRY_OUTPUT").stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run("\"$@\"").starts_with("{\"time\":"));
    for by_people in ["\"$@\" 2>&1", "\"$@\" 2>/dev/null", "\"$@\" >file; cat file"] {
        let said = run(by_people);
        assert!(said.starts_with("1 mailbox: 1 failed"), "{by_people}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_also_written_to_files_and_told_to_a_command() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    source.connect().await.append("INBOX", &[CorpusMessage::new("Subject: one\r\n\r\nbody\r\n")]).await;
    let mut cli = Cli::between(&source, &destination).mailbox("bob", (&source.user, "wrong"), ("bob", "none"));
    cli.log_level = "warn";
    let teller = ["--on-end", "/bin/sh", "-c", "{ env; cat; } > told", ";"];
    let files = ["--log-file", "log", "--report", "report.csv"];
    let ran = cli.run("run", &[&files[..], &teller].concat()).await.exits(10);
    ran.says(&["Problems (1)"]).says(&["2 mailboxes: 1 done, 1 failed."]);

    let read = |name: &str| fs::read_to_string(cli.path(name)).unwrap();
    let (log, table, told) = (read("log"), read("report.csv"), read("told"));
    assert!(log.contains("Z alice: started, ") && log.contains("Z Problems (1)"), "{log}");
    assert!(table.contains("\r\nalice,done,INBOX,INBOX,1,0,1,"), "{table}");
    assert!(table.contains("\r\nbob,failed,"), "{table}");
    assert!(told.contains("MAILFERRY_EXIT_CODE=10\n") && !told.contains("XDG_STATE_HOME"), "{told}");
    let notice: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!((&notice["migration"], &notice["failed"]), (&json!("acme"), &json!(1)));
    for text in [log, table, told] {
        let told = CommandOutput { code: 0, stdout: text, stderr: String::new() };
        told.hides(&[&source.password, &destination.password]);
    }

    // What did not end well, and nothing else, once more.
    let again = cli.run("run", &["--failed-only", "--output", "json"]).await.exits(10);
    let names: Vec<Value> = again.events("finished").iter().map(|event| event["mailbox"].clone()).collect();
    assert_eq!(names, ["bob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_stops_a_run_at_a_checkpoint() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let side = || server_with("127.0.0.1", silent.local_addr().unwrap().port(), "None");
    let mut cli = Cli::new(side(), side()).mailbox("alice", ("alice", "source secret"), ("bob", "destination secret"));
    cli.log_level = "error";
    let child = cli.process("run", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It listens for signals before it connects.
    let _connection = silent.accept().unwrap();
    let hangup = std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    let ran = CommandOutput::from(child.wait_with_output().unwrap()).exits(130);
    ran.says(&["Stopping:"]).says(&["1 mailbox: 1 interrupted."]).says(&["run the same command again"]);
}
