//! What folders are called and servers say is shown only so that nothing of it acts on a terminal.

use mailferry_testkit::CommandOutput;

use crate::{
    cli::{Cli, server_with},
    fake::{Act, Fake, MODERN, Mail, mails},
};

/// It would clear the screen (ESC and C1), end the line, turn the reading direction and ring.
const HOSTILE: &str = "x\u{1b}[2J\u{9b}2J\u{202e}\u{2066}\u{7}\u{7f}y";

/// True for what a terminal obeys, but for the end of a line.
fn acts(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Runs a command between two servers that say such things wherever they can.
async fn run_between(command: &str, args: &[&str]) -> CommandOutput {
    let capabilities = format!("{MODERN} {HOSTILE}");
    let source = Fake::twisted(&capabilities, mails(4), |command, _| {
        let said = format!("* OK [ALERT] {HOSTILE}\r\n* ID (\"name\" \"{HOSTILE}\" \"version\" \"{HOSTILE}\")\r\n");
        (!command.starts_with("LOGOUT")).then(|| Act::First(said.into_bytes()))
    })
    .await;
    source.change("INBOX", |folder| {
        folder.push(Mail::new(5, "Subject: flagged\r\n\r\n").flagged(HOSTILE));
    });
    source.change(HOSTILE, |folder| *folder = mails(2));
    source.change("Closed", |folder| *folder = mails(2));
    let destination = Fake::twisted(&capabilities, Vec::new(), |command, _| {
        let refuses = command.starts_with("CREATE") && command.contains("CLOSED");
        refuses.then(|| Act::Send(format!("{{tag}} NO [CANNOT] {HOSTILE}\r\n").into_bytes()))
    })
    .await;
    let server = |fake: &Fake| server_with("127.0.0.1", fake.server.port(), "None");
    let cli = Cli::new(server(&source), server(&destination)).mailbox(
        "alice",
        ("alice", "source secret"),
        ("alice", "destination secret"),
    );
    // What a command makes of it, and then what it shows of what it did.
    if command != "run" {
        cli.run("run", &[]).await;
    }
    cli.run(command, args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_servers_say_acts_on_a_terminal_in_any_output() {
    for command in ["run", "check", "verify"] {
        for form in ["text", "json"] {
            let ran = run_between(command, &["--output", form, "--verbose", "--log-format", form]).await;
            let shown = ran.stdout.clone() + &ran.stderr;
            let found: Vec<&str> = shown.lines().filter(|line| line.contains(acts)).collect();
            assert!(found.is_empty(), "{command} {form}: {found:#?}");
            assert!(shown.contains("[2J"), "it is told: {command} {form}: {ran:#?}");
        }
    }
}
