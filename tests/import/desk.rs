//! A folder to import in, and the binary.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use mailferry_testkit::CommandOutput;
use tempfile::TempDir;

/// A folder of its own for one test.
pub struct Desk {
    folder: TempDir,
    kubeconfig: PathBuf,
}

/// Servers that nobody connects to.
pub const SERVERS: [&str; 4] = ["--source-host", "old.example", "--destination-host", "new.example"];

impl Desk {
    pub fn new() -> Self {
        Self::with_kubeconfig(PathBuf::from("/nonexistent"))
    }

    /// The binary finds this cluster.
    pub fn with_kubeconfig(kubeconfig: PathBuf) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), kubeconfig }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs `mailferry ARGS...` here.
    pub fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with(args, b"")
    }

    /// The same with something on stdin.
    pub fn run_with(&self, args: &[&str], stdin: &[u8]) -> CommandOutput {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mailferry"));
        process.current_dir(self.folder.path()).env_remove("RUST_LOG").env("KUBECONFIG", &self.kubeconfig);
        process.env("XDG_STATE_HOME", self.path("state-home"));
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.args(["--log-level", "debug"]).args(args).spawn().unwrap();
        // Who reads no stdin closes it.
        drop(child.stdin.take().unwrap().write_all(stdin));
        CommandOutput::from(child.wait_with_output().unwrap())
    }

    /// Imports `users.csv` with [`SERVERS`] and these arguments.
    pub fn import(&self, args: &[&str]) -> CommandOutput {
        self.run(&[&["import", "users.csv"][..], &SERVERS, args].concat())
    }
}
