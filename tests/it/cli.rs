//! Runs the binary on manifests, and sees to it that no password is ever in what it says.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mailferry_testkit::{CommandOutput, dovecot::TestAccount, pki::pki};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where its state home is, below that.
const STATE_HOME: &str = "state-home";

/// A migration and the folder that it is run in.
pub struct Cli {
    folder: TempDir,
    /// The MailMigration's spec; to be changed at will.
    pub spec: Value,
    /// What is logged.
    pub log_level: &'static str,
    secrets: Vec<(String, String)>,
}

/// A server on loopback with TLS from the first byte and the test authority.
pub fn server(port: u16) -> Value {
    json!({"host": "127.0.0.1", "port": port, "tls": {"mode": "Implicit", "caBundle": pki().ca}})
}

/// The same with another mode and host.
pub fn server_with(host: &str, port: u16, mode: &str) -> Value {
    let tls = if mode == "None" { json!({"mode": "None"}) } else { json!({"mode": mode, "caBundle": pki().ca}) };
    json!({"host": host, "port": port, "tls": tls})
}

/// The one checkpoint in a state folder.
pub fn checkpoint_in(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "checkpoint")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

impl Cli {
    /// A migration between two servers, without mailboxes.
    pub fn new(source: Value, destination: Value) -> Self {
        let mut spec = json!({"source": {}, "destination": {}, "mailboxes": []});
        spec["source"]["server"] = source;
        spec["destination"]["server"] = destination;
        Self { folder: tempfile::tempdir().unwrap(), spec, log_level: "debug", secrets: Vec::new() }
    }

    /// One mailbox, `alice`, between two accounts.
    pub fn between(source: &TestAccount<'_>, destination: &TestAccount<'_>) -> Self {
        Self::new(server(source.server.tls_port()), server(destination.server.tls_port())).mailbox(
            "alice",
            (&source.user, &source.password),
            (&destination.user, &destination.password),
        )
    }

    /// Adds a mailbox by (user, password) on each side.
    pub fn mailbox(mut self, name: &str, source: (&str, &str), destination: (&str, &str)) -> Self {
        let account = |side: &str, user: &str| json!({"username": user, "passwordSecretRef": {"name": "mail", "key": format!("{name}-{side}")}});
        let entry =
            json!({"name": name, "source": account("from", source.0), "destination": account("to", destination.0)});
        self.spec["mailboxes"].as_array_mut().unwrap().push(entry);
        self.secret(&format!("{name}-from"), source.1);
        self.secret(&format!("{name}-to"), destination.1);
        self
    }

    /// Adds a key of the Secret `mail`.
    pub fn secret(&mut self, key: &str, value: &str) {
        self.secrets.push((key.to_owned(), value.to_owned()));
    }

    /// The state folder of runs.
    pub fn state(&self) -> PathBuf {
        self.path(STATE_HOME).join("mailferry/acme")
    }

    /// A path in the folder that commands are run in.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `mailferry COMMAND -f MANIFESTS ARGS...` to its end.
    pub async fn run(&self, command: &str, args: &[&str]) -> CommandOutput {
        let mut process = self.process(command, args);
        let output = tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap();
        let ran = CommandOutput::from(output);
        self.tells_no_secret(&ran);
        ran
    }

    /// The same, and the most memory that the process ever had resident, MiB.
    pub async fn run_measured(&self, command: &str, args: &[&str]) -> (CommandOutput, f64) {
        let mut process = self.process(command, args);
        let (stdout, stderr) = (self.path("stdout"), self.path("stderr"));
        process.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let ended = move || wait_and_measure(process.spawn().unwrap());
        let (status, peak) = tokio::task::spawn_blocking(ended).await.unwrap();
        let (stdout, stderr) = (fs::read(stdout).unwrap(), fs::read(stderr).unwrap());
        let ran = CommandOutput::from(Output { status, stdout, stderr });
        self.tells_no_secret(&ran);
        (ran, peak)
    }

    /// `mailferry COMMAND -f MANIFESTS ARGS...`, ready to run.
    pub fn process(&self, command: &str, args: &[&str]) -> Command {
        let secrets: serde_json::Map<String, Value> =
            self.secrets.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let manifests = [
            json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "acme"},
                "spec": self.spec}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail"}, "stringData": secrets}),
        ];
        let file = self.folder.path().join("migration.yaml");
        fs::write(&file, manifests.map(|manifest| manifest.to_string()).join("\n---\n")).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_mailferry"));
        process.current_dir(self.folder.path()).env_remove("RUST_LOG");
        process.env("XDG_STATE_HOME", self.path(STATE_HOME)).env("MAILFERRY_OUTPUT", "text");
        process.args(["--log-level", self.log_level, command, "-f"]).arg(&file).args(args);
        process
    }

    fn tells_no_secret(&self, ran: &CommandOutput) {
        for (_, secret) in &self.secrets {
            let encoded = STANDARD.encode(secret);
            let escaped = json!(secret).to_string();
            for form in [secret.as_str(), encoded.trim_end_matches('='), escaped.trim_matches('"')] {
                assert!(!ran.stdout.contains(form) && !ran.stderr.contains(form), "{form:?} in {ran:#?}");
            }
        }
    }
}

/// Waits for the end of a process; gives the most memory that it had resident, MiB. What it takes in its last millisecond
/// may be missed.
fn wait_and_measure(mut process: Child) -> (ExitStatus, f64) {
    let file = format!("/proc/{}/status", process.id());
    let mut peak = 0.0;
    loop {
        // A process that has ended has no such line any more.
        if let Some(line) = fs::read_to_string(&file).unwrap_or_default().lines().find(|l| l.starts_with("VmHWM:")) {
            peak = line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0;
        }
        if let Some(status) = process.try_wait().unwrap() {
            return (status, peak);
        }
        thread::sleep(Duration::from_millis(1));
    }
}
