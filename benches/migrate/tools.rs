//! What is compared, and how one run of it is measured.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mailferry_testkit::{TestAccount, pki::pki};

use crate::rows::Work;

/// Something that copies mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// isync's `mbsync`, with its default pipelining.
    Mbsync,
    /// The plain copier of this benchmark, by pairs of connections.
    Limit(usize),
    /// `mailferry run`.
    Mailferry,
}

/// One side of a run: the account, and the port (a proxy's, perhaps) by which it is reached.
#[derive(Clone)]
pub struct End<'a> {
    pub account: &'a TestAccount<'a>,
    pub port: u16,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds.
    pub wall: f64,
    /// Seconds of the tool's own processor time, user and system.
    pub cpu: f64,
    /// Most memory of the tool at any time, MiB.
    pub memory: f64,
}

impl Tool {
    /// As the table names it.
    pub fn name(self) -> String {
        match self {
            Self::Mbsync => "mbsync".to_owned(),
            Self::Limit(1) => "limit".to_owned(),
            Self::Limit(pairs) => format!("limit, {pairs} pairs"),
            Self::Mailferry => "mailferry".to_owned(),
        }
    }

    /// Runs once; `dir` keeps what the tool remembers between runs. Only the tool's own process is measured.
    pub fn run(self, work: Work, [source, destination]: [&End; 2], dir: &Path) -> Result<Cost, String> {
        fs::create_dir_all(dir.join("state")).map_err(|e| e.to_string())?;
        let ca = dir.join("ca.crt");
        fs::write(&ca, &pki().ca).map_err(|e| e.to_string())?;
        let (program, args, input) = self.command(work, [source, destination], dir);
        fs::write(dir.join("input"), input).map_err(|e| e.to_string())?;
        let log = fs::File::create(dir.join("log")).map_err(|e| e.to_string())?;
        let status = Command::new("/usr/bin/time")
            .args(["-q", "-f", "%e %U %S %M", "-o"])
            .arg(dir.join("cost"))
            .arg(program)
            .args(args)
            .env("HOME", dir)
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .status()
            .map_err(|e| format!("/usr/bin/time: {e} (scripts/install.sh bench)"))?;
        if !status.success() {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output");
            return Err(format!("{status}: {last}"));
        }
        let cost = fs::read_to_string(dir.join("cost")).map_err(|e| e.to_string())?;
        let numbers: Vec<f64> = cost.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [wall, user, system, kib] = numbers[..] else { return Err(format!("cost {cost:?}")) };
        Ok(Cost { wall, cpu: user + system, memory: kib / 1024.0 })
    }

    /// The program, its arguments, and the content of the file `input` that they name.
    fn command(self, work: Work, [source, destination]: [&End; 2], dir: &Path) -> (PathBuf, Vec<String>, String) {
        let path = |name: &str| dir.join(name).display().to_string();
        match self {
            Self::Mbsync => {
                ("mbsync".into(), vec!["-c".into(), path("input"), "copy".into()], mbsync(source, destination, dir))
            }
            Self::Limit(pairs) => {
                let pairs = if work == Work::Verify { "read".to_owned() } else { pairs.to_string() };
                let args = vec!["limit".into(), path("input"), path("ca.crt"), pairs];
                let line = |end: &End| format!("{}\n{}\n{}\n", end.port, end.account.user, end.account.password);
                (env::current_exe().expect("own path"), args, line(source) + &line(destination))
            }
            Self::Mailferry => {
                let command = if work == Work::Verify { "verify" } else { "run" };
                let args = [command, "-f", &path("input"), "--state", &path("state"), "--output", "json"];
                let args = args.map(str::to_owned).to_vec();
                (env!("CARGO_BIN_EXE_mailferry").into(), args, manifest(source, destination))
            }
        }
    }
}

fn mbsync(source: &End, destination: &End, dir: &Path) -> String {
    let dir = dir.display();
    let store = |name: &str, end: &End| {
        format!(
            "IMAPStore {name}\nHost localhost\nPort {}\nUser {}\nPass \"{}\"\nSSLType IMAPS\nAuthMechs LOGIN\n\
             SystemCertificates no\nCertificateFile {dir}/ca.crt\n\n",
            end.port, end.account.user, end.account.password
        )
    };
    format!(
        "{}{}Channel copy\nFar :source:\nNear :destination:\nPatterns *\nCreate Near\nSync Pull\nExpunge None\n\
         CopyArrivalDate yes\nSyncState {dir}/state/\n",
        store("source", source),
        store("destination", destination)
    )
}

fn manifest(source: &End, destination: &End) -> String {
    let ca = pki().ca.lines().fold(String::new(), |text, line| text + "          " + line + "\n");
    let server = |end: &End| {
        format!("    server:\n      host: localhost\n      port: {}\n      tls:\n        caBundle: |\n{ca}", end.port)
    };
    let login = |side: &str, end: &End| {
        format!(
            "      {side}:\n        username: {}\n        passwordSecretRef: {{name: bench, key: {side}}}\n",
            end.account.user
        )
    };
    format!(
        "apiVersion: mailferry.io/v1alpha1\nkind: MailMigration\nmetadata: {{name: bench}}\nspec:\n  source:\n{}  \
         destination:\n{}  mailboxes:\n    - name: bench\n{}{}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: bench}}\n\
         stringData:\n  source: '{}'\n  destination: '{}'\n",
        server(source),
        server(destination),
        login("source", source),
        login("destination", destination),
        source.account.password,
        destination.account.password,
    )
}
