//! What people and programs read, as snapshots: a change in one of them is a change that users see. To accept one, run
//! the tests with `INSTA_UPDATE=always` and review the difference.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mailferry::{Error, ErrorClass, Side, api::LastError, commands::output_schemas::output_schemas};
use mailferry_testkit::{CommandOutput, CorpusMessage, SharedServer, shared_server};
use serde_json::{Value, json};

use crate::{cli::Cli, schema::violations};

/// What the program says on a screen of this width, with nothing in its environment.
fn said(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailferry"));
    command.env_clear().env("COLUMNS", "100").stdin(Stdio::null()).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let help = said(&["--help"]);
    insta::assert_snapshot!("help", help);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        insta::assert_snapshot!(format!("help_{name}"), said(&[name, "--help"]));
    }
}

#[test]
fn an_error_of_each_class_reads_as_it_did() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut text = String::new();
    for class in ErrorClass::ALL {
        let whole = Error { retry_at: Some(at(1_900_000_000)), ..Error::new(class, "it did not work") };
        let whole = whole.advice("Do this").on(Side::Source, "imap.example:993").in_mailbox("alice").in_folder("Sent");
        let in_status = LastError::new(&whole, Some(Time(at(1_800_000_000))));
        let bare = json!(Error::new(class, "it did not work"));
        writeln!(text, "{class}: exit code {}\n{whole}", class.exit_code()).unwrap();
        writeln!(text, "{}\n{bare}\nin a status: {}\n", json!(whole), json!(in_status)).unwrap();
    }
    insta::assert_snapshot!(text);
}

/// Values that are others in each run.
const VARYING: [&str; 9] = [
    "warning",
    "time",
    "durationMs",
    "bytesPerSecond",
    "etaSeconds",
    "sourceUidValidity",
    "notAfter",
    "date",
    "capabilities",
];

/// The same with what is another in each run replaced: by its key, or by the text that it holds.
fn redacted(value: &Value, texts: &[(String, &str)]) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| match value {
                Value::Null => (key.clone(), Value::Null),
                _ if VARYING.contains(&key.as_str()) => (key.clone(), json!(format!("[{key}]"))),
                _ => (key.clone(), redacted(value, texts)),
            });
            Value::Object(fields.collect())
        }
        Value::Array(values) => values.iter().map(|value| redacted(value, texts)).collect(),
        Value::String(text) => {
            texts.iter().fold(text.clone(), |text, (from, to)| text.replace(from.as_str(), to)).into()
        }
        other => other.clone(),
    }
}

/// The lines of JSON but for live progress, whose number differs, each over several lines.
fn events(ran: &CommandOutput, texts: &[(String, &str)]) -> String {
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines = lines.filter(|line| line["event"] != "progress").map(|line| redacted(&line, texts));
    lines.map(|line| serde_json::to_string_pretty(&line).unwrap() + "\n").collect()
}

fn schema_file(command: &str) -> PathBuf {
    Path::new("docs/schemas").join(command).with_added_extension("json")
}

/// Expects each line to be what the published schema says.
fn fits_its_schema(command: &str, ran: &CommandOutput) {
    let schema: Value = serde_json::from_slice(&fs::read(schema_file(command)).unwrap()).unwrap();
    for line in ran.stdout.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(violations(&schema, &schema, &value), Vec::<String>::new(), "{command}: {value:#}");
        // It says something: without its event, and without what belongs to it, a line is none.
        let bare = json!({"time": value["time"], "event": value["event"]});
        assert_ne!(violations(&schema, &schema, &bare), Vec::<String>::new(), "{bare}");
    }
}

#[test]
fn the_published_schemas_are_fresh() {
    for (command, schema) in output_schemas() {
        let (file, text) = (schema_file(command), serde_json::to_string_pretty(&schema).unwrap() + "\n");
        if env::var_os("MAILFERRY_WRITE").is_some() {
            fs::create_dir_all("docs/schemas").unwrap();
            fs::write(&file, &text).unwrap();
        }
        assert!(fs::read_to_string(&file).unwrap_or_default() == text, "{} is stale: run `make docs`", file.display());
    }
}

fn message(n: usize) -> CorpusMessage {
    CorpusMessage::new(format!("Message-ID: <{n}@example>\r\nSubject: number {n}\r\n\r\nbody {n}\r\n"))
        .flagged(if n.is_multiple_of(2) { &["\\Seen"] } else { &[] })
        .dated("05-Mar-2021 08:09:10 +0000")
}

#[tokio::test(flavor = "multi_thread")]
async fn check_run_and_verify_write_the_same_json_as_ever() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let mut left = source.connect().await;
    left.append("INBOX", &[1, 2, 3, 4].map(message)).await;
    left.command_ok("CREATE Work").await;
    left.append("Work", &[5, 6].map(message)).await;
    let mut right = destination.connect().await;
    right.append("INBOX", &[message(2)]).await;
    let other = shared_server(SharedServer::Mdbox).account();
    let mut cli =
        Cli::between(&source, &destination).mailbox("bob", (&source.user, "wrong"), (&other.user, &other.password));
    cli.spec["folders"] = json!({"exclude": ["Wrok"]});
    let texts = [
        (source.user.clone(), "[source user]"),
        (destination.user.clone(), "[destination user]"),
        (other.user.clone(), "[destination user]"),
        (format!("127.0.0.1:{}", source.server.tls_port()), "[source]"),
        (format!("127.0.0.1:{}", destination.server.tls_port()), "[destination]"),
    ];
    let arguments = ["--output", "json", "--parallelism", "1"];
    let checked = cli.run("check", &arguments).await.exits(10);
    fits_its_schema("check", &checked);
    insta::assert_snapshot!("check", events(&checked, &texts));
    let ran = cli.run("run", &arguments).await.exits(10);
    fits_its_schema("run", &ran);
    insta::assert_snapshot!("run", events(&ran, &texts));
    right.store("INBOX", "1", "+FLAGS (\\Flagged)").await;
    right.expunge("INBOX", "2").await;
    right.append("Work", &[message(7)]).await;
    let verified = cli.run("verify", &arguments).await.exits(10);
    fits_its_schema("verify", &verified);
    insta::assert_snapshot!("verify", events(&verified, &texts));
}

#[test]
fn checkpoints_are_described_as_they_were() {
    for name in ["0.1.0", "all-fields"] {
        let file = Path::new("tests/it/fixtures").join(name).with_added_extension("checkpoint");
        insta::assert_snapshot!(format!("checkpoint_{name}"), said(&["checkpoint", file.to_str().unwrap()]));
    }
}
