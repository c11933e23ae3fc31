//! What a command said and how it ended, for tests of the binary.

use std::process::Output;

use serde_json::Value;

/// The output and exit code of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code.
    pub code: i32,
    /// The command's result.
    pub stdout: String,
    /// Progress, logs and errors.
    pub stderr: String,
}

impl From<Output> for CommandOutput {
    /// Of a command that ended by itself and wrote text.
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output as UTF-8");
        let code = output.status.code().expect("an exit code");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

#[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)] // an expectation is often the last one
impl CommandOutput {
    /// The lines of JSON on stdout with this event.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        lines.filter(|line| line["event"] == event).collect()
    }

    /// Expects this exit code, and gives itself back.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Expects one line of the output to hold all of these, and gives itself back.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        let found = self.stdout.lines().chain(self.stderr.lines()).any(|line| parts.iter().all(|p| line.contains(p)));
        assert!(found, "no line with {parts:?} in\n{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Expects none of these anywhere in the output, and gives itself back.
    #[track_caller]
    pub fn hides(self, secrets: &[&str]) -> Self {
        for secret in secrets {
            assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{secret} in {self:#?}");
        }
        self
    }
}
