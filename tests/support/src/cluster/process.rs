//! A program that ends with this process, however this process ends.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// A running program and everything that it started in its process group; killed when dropped.
#[derive(Debug)]
pub struct ChildProcess {
    name: String,
    log: PathBuf,
    child: Child,
}

impl ChildProcess {
    /// Starts a program whose output goes to the end of `<folder>/<its name>.log`.
    pub fn start<A: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = A>, folder: &Path) -> Self {
        Self::start_with_end(program, args, folder, ":")
    }

    /// The same; at its end `sh -c <end>` runs, however the end comes.
    pub fn start_with_end<A: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        folder: &Path,
        end: &str,
    ) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let output = fs::File::options().create(true).append(true).open(&log).expect("log file");
        // The second shell sees the end of a pipe that only this process holds. A parent-death signal won't do: it
        // comes when the thread ends that started the program, and each test has a thread of its own.
        let script = r#"
            exec 3<&0 </dev/null
            setsid sh -c 'read -r _; kill -s KILL -- "-$0"; eval "$1"' $$ "$1" <&3 >/dev/null 2>&1 &
            shift
            exec "$@" 3<&-"#;
        let child = Command::new("/bin/sh")
            .args(["-c", script, "sh", end])
            .arg(program)
            .args(args)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("log file"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .expect("/bin/sh");
        Self { name, log, child }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Sends it a signal, such as `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Panics with the end of its log when it has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("wait") {
            panic!("{} ended ({status}):\n{}", self.name, self.log_tail());
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}
