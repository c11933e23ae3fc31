//! Mail servers as children that end with the test however that ends, SIGKILL included, and write nothing to the
//! machine but their own folder.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Runs the program beside a shell that waits for the end of a pipe that only the test's process holds, and then ends
/// everything in the program's process group.
const GUARDED: &str = r#"
    exec 3<&0 </dev/null
    setsid sh -c 'read -r _; kill -s KILL -- "-$0"; rm -rf "$1" || { sleep 1; rm -rf "$1"; }' $$ "$1" <&3 &
    shift
    exec "$@" 3<&-"#;

/// The first process of its namespaces: it lays the unpacked packages over /usr and gives the server a /run of its own.
/// With it ends all that it started. It must not become the server, which changes its process group.
const ISOLATED: &str = r#"
    mount -t overlay overlay -o "lowerdir=$0/usr:/usr" /usr && mount -t tmpfs tmpfs /run || exit 71
    mkdir /run/courier && ln -s "$1" /run/courier/authdaemon || exit 71
    shift
    "$@"
    exit $?"#;

/// A running server with a folder of its own.
#[derive(Debug)]
pub struct ServerProcess {
    folder: PathBuf,
    process: Child,
}

/// A folder for a server that runs as Debian's user `mail`, who must reach it.
pub fn server_folder(name: &str) -> PathBuf {
    let prefix = format!("mailferry-{name}-");
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir().expect("temporary folder").keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("permissions");
    folder
}

/// The command that runs a server of Debian's packages, unpacked in `root`, in mount and PID namespaces of its own.
/// Courier looks for its authentication socket in `sockets`.
pub fn isolated(root: &Path, sockets: &Path, command: &[&str]) -> Vec<String> {
    let unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "sh", "-c", ISOLATED];
    let paths = [root, sockets].map(|path| path.display().to_string());
    unshare.iter().map(ToString::to_string).chain(paths).chain(command.iter().map(ToString::to_string)).collect()
}

impl ServerProcess {
    /// Starts a command whose files are in `folder`, with more environment variables.
    pub fn start(folder: PathBuf, command: &[String], environment: &[(&str, &str)]) -> Self {
        let output = fs::File::create(folder.join("output")).expect("output file");
        let process = Command::new("/bin/sh")
            .args(["-c", GUARDED, "server"])
            .arg(&folder)
            .args(command)
            .env("TZ", "UTC")
            .envs(environment.iter().copied())
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("output file"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .expect("/bin/sh");
        Self { folder, process }
    }

    /// Waits until the server greets on a port of 127.0.0.1 by a line with this text; false when the server has ended
    /// or does not greet within a minute.
    pub fn greets(&mut self, port: u16, text: &str) -> bool {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.process.try_wait().expect("wait").is_none() && Instant::now() < deadline {
            if greeting(port).is_some_and(|line| line.contains(text)) {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// What the server printed.
    pub fn output(&self) -> String {
        fs::read(self.folder.join("output"))
            .map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}

fn greeting(port: u16) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}
