//! IMAP servers of other makes, beside Dovecot: what real destinations and sources do differently.
//!
//! `scripts/mail-servers.sh` fetches them. Each starts once for a test program; every test takes an account of its
//! own. Cyrus and Courier are Debian's packages, which conflict with Dovecot's: they run in mount and PID namespaces of
//! their own, with what was unpacked laid over /usr.

mod logins;
mod process;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use self::process::{ServerProcess, isolated, server_folder};
pub use crate::dovecot::PASSWORD;
use crate::{
    dovecot::{SharedServer, free_ports, shared_server},
    imap_client::RawImap,
};

/// Debian's user and group `mail`, as which Cyrus and Courier keep their mail.
const MAIL: u32 = 8;

/// [`PASSWORD`] as pymap wants it in its file.
const PYMAP_HASH: &str = "$pbkdf2-sha256$1$Bg2FQp3wgxXO+ReQZi76pw==$Czuz7k3IuSZ+sH+JrWQZ6VfiJsE8vMVfvd+Hj7I9AYs=";

/// A make of IMAP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerMake {
    /// Dovecot with maildirs and `/`.
    Dovecot,
    /// Cyrus of Debian, with its defaults: `.`, all folders below `INBOX.`.
    Cyrus,
    /// Courier of Debian, with its defaults: `.`, all folders below `INBOX.`; but nothing is purged from Trash.
    Courier,
    /// `GreenMail`, a test server in Java: `.`.
    GreenMail,
    /// The server in memory of Go's go-imap: `/`.
    GoImap,
    /// pymap with maildirs, a server in Python: `/`.
    Pymap,
}

impl ServerMake {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Dovecot, Self::Cyrus, Self::Courier, Self::GreenMail, Self::GoImap, Self::Pymap];

    /// Its name, as its makers write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dovecot => "Dovecot",
            Self::Cyrus => "Cyrus",
            Self::Courier => "Courier",
            Self::GreenMail => "GreenMail",
            Self::GoImap => "go-imap",
            Self::Pymap => "pymap",
        }
    }

    /// Why it can't run here, if so.
    #[must_use]
    pub fn missing_requirement(self) -> Option<String> {
        let there = match self {
            Self::Dovecot => return None,
            Self::Cyrus => "cyrus/usr/lib/cyrus/bin/master",
            Self::Courier => "courier/usr/sbin/couriertcpd",
            Self::GreenMail => "greenmail/greenmail.jar",
            Self::GoImap => "goimap/goimap",
            Self::Pymap => "pymap/packages/pymap",
        };
        let path = programs().join(there);
        if !path.exists() {
            return Some(format!("there is no {} (scripts/mail-servers.sh fetches it)", path.display()));
        }
        match self {
            Self::Cyrus | Self::Courier => why_not_isolated().map(str::to_owned),
            Self::GreenMail => program_is_missing("java", "-version"),
            Self::Pymap => program_is_missing("python3", "--version"),
            Self::Dovecot | Self::GoImap => None,
        }
    }

    /// The one of this process, started on first use. Panics where it can't run.
    #[must_use]
    pub fn shared(self) -> &'static RunningServer {
        static SERVERS: [OnceLock<RunningServer>; ServerMake::ALL.len()] =
            [const { OnceLock::new() }; ServerMake::ALL.len()];
        SERVERS[self as usize].get_or_init(|| RunningServer::start(self))
    }
}

/// A server that runs; ends when dropped, or with the process.
#[derive(Debug)]
pub struct RunningServer {
    make: ServerMake,
    port: u16,
    /// None for Dovecot, which has a harness of its own.
    process: Option<ServerProcess>,
    folder: PathBuf,
    /// Held while a file of accounts is written.
    accounts: Mutex<()>,
}

/// One account on a server that lives at least as long.
#[derive(Debug, Clone)]
pub struct ServerAccount<'a> {
    /// Where it is.
    pub server: &'a RunningServer,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: String,
}

impl RunningServer {
    /// Starts a server and waits until it greets. Panics with what it printed when it does not.
    #[must_use]
    pub fn start(make: ServerMake) -> Self {
        if make == ServerMake::Dovecot {
            let port = shared_server(SharedServer::Maildir).plain_port();
            return Self { make, port, process: None, folder: PathBuf::new(), accounts: Mutex::default() };
        }
        let mut output = String::new();
        for _ in 0..5 {
            let (port, _) = free_ports();
            let folder = server_folder(&make.name().to_lowercase());
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut process = match make {
                ServerMake::Dovecot => unreachable!("is shared"),
                ServerMake::Cyrus => start_cyrus(folder.clone(), port, &name),
                ServerMake::Courier => start_courier(folder.clone(), port, &name),
                ServerMake::GreenMail => start_greenmail(folder.clone(), port),
                ServerMake::GoImap => start_goimap(folder.clone(), port),
                ServerMake::Pymap => start_pymap(folder.clone(), port),
            };
            // Cyrus says who it is; the others end when somebody else took the port.
            let greeting = if make == ServerMake::Cyrus { &name } else { "* OK" };
            if process.greets(port, greeting) {
                return Self { make, port, process: Some(process), folder, accounts: Mutex::default() };
            }
            output = process.output();
        }
        panic!("{} did not start:\n{output}", make.name());
    }

    /// What it is.
    #[must_use]
    pub fn make(&self) -> ServerMake {
        self.make
    }

    /// Its port on 127.0.0.1, in plaintext.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are; empty for Dovecot.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it printed; Dovecot's log is elsewhere.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map_or_else(String::new, ServerProcess::output)
    }

    /// A new, empty account with a name of its own.
    pub fn account(&self) -> ServerAccount<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let user = match self.make {
            ServerMake::Dovecot => shared_server(SharedServer::Maildir).account().user.clone(),
            // Cyrus and GreenMail see more in a dot and in an at sign.
            _ => format!("user{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        if self.make == ServerMake::Pymap {
            let _held = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            for (file, line) in [
                ("pymap-etc-shadow", format!("{user}:{PYMAP_HASH}:::::::\n")),
                ("pymap-etc-passwd", format!("{user}:x::::{user}:\n")),
            ] {
                let path = self.folder.join("mail").join(file);
                let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("accounts");
                file.write_all(line.as_bytes()).expect("accounts");
            }
        }
        ServerAccount { server: self, user, password: PASSWORD.to_owned() }
    }
}

impl ServerAccount<'_> {
    /// A session, logged in, in plaintext.
    pub async fn connect(&self) -> RawImap {
        let mut imap = RawImap::plain(self.server.port).await;
        imap.login_by_command(&self.user, &self.password).await;
        imap
    }

    /// UIDs of INBOX that share a file, so that one message is listed several times. Only pymap does so: it gives a new file
    /// a UID when a session opens the folder, and another when the APPEND that wrote it goes on.
    #[must_use]
    pub fn uids_of_one_file(&self) -> BTreeSet<u32> {
        let list = self.server.folder.join("mail").join(&self.user).join("dovecot-uidlist");
        let text = fs::read_to_string(list).unwrap_or_default();
        let mut files: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for (head, file) in text.lines().skip(1).filter_map(|line| line.split_once(':')) {
            let uid = head.split(' ').next().and_then(|uid| uid.parse::<u32>().ok());
            files.entry(file.split(':').next().unwrap_or(file)).or_default().extend(uid);
        }
        files.into_values().filter(|uids| uids.len() > 1).flatten().collect()
    }
}

/// Where scripts/mail-servers.sh puts them: beside what cargo builds.
fn programs() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target"));
    // Cyrus wants no `..` in a path.
    let folder = root.join(target).join("mail-servers");
    folder.canonicalize().unwrap_or(folder)
}

fn program_is_missing(program: &str, argument: &str) -> Option<String> {
    let ran = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let works = ran.is_ok_and(|status| status.success());
    (!works).then(|| format!("{program} does not run (scripts/install.sh servers installs it)"))
}

/// Why no server can run in namespaces of its own here, if so.
fn why_not_isolated() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    WHY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("temporary folder");
        if fs::metadata(folder.path()).expect("metadata").uid() != 0 {
            return Some("only root can run it in namespaces of its own".to_owned());
        }
        fs::create_dir(folder.path().join("usr")).expect("folder");
        let command = isolated(folder.path(), folder.path(), &["true"]);
        match Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(format!(
                "it can't run in namespaces of its own here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => Some(format!("unshare does not run: {error}")),
        }
    })
    .as_deref()
}

fn start_cyrus(folder: PathBuf, port: u16, name: &str) -> ServerProcess {
    let dir = folder.display();
    // Without `defaultpartition` folders that are made in the same second share one unique id, and so one folder on disk.
    let options = format!(
        "configdirectory: {dir}/conf
defaultpartition: default
partition-default: {dir}/spool
cyrus_user: mail
cyrus_group: mail
servername: {name}
allowplaintext: yes
autocreate_quota: 0
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: {dir}/saslauthd
sasl_mech_list: PLAIN
"
    );
    // Cyrus wants an entry to stand on a line of its own.
    let services = format!(
        "START {{
  recover cmd=\"ctl_cyrusdb -C {dir}/imapd.conf -r\"
}}
SERVICES {{
  imap cmd=\"imapd -C {dir}/imapd.conf\" listen=\"127.0.0.1:{port}\" prefork=2 maxchild=200
}}
EVENTS {{
}}
"
    );
    fs::write(folder.join("imapd.conf"), options).expect("write");
    fs::write(folder.join("cyrus.conf"), services).expect("write");
    for sub in ["", "spool", "conf", "conf/db", "conf/lock", "conf/log", "conf/proc", "conf/socket", "conf/user"] {
        let path = folder.join(sub);
        fs::create_dir_all(&path).expect("folder");
        chown(path, Some(MAIL), Some(MAIL)).expect("chown");
    }
    logins::answer_as_saslauthd(&folder.join("saslauthd"));
    let file = |name: &str| folder.join(name).display().to_string();
    let (options, services, pid, log) = (file("imapd.conf"), file("cyrus.conf"), file("pid"), file("log"));
    let master = ["/usr/lib/cyrus/bin/master", "-C", &options, "-M", &services, "-p", &pid, "-D", "-L", &log];
    let command = isolated(&programs().join("cyrus"), &folder, &master);
    ServerProcess::start(folder, &command, &[])
}

fn start_courier(folder: PathBuf, port: u16, name: &str) -> ServerProcess {
    let sockets = folder.join("sockets");
    for sub in ["sockets", "homes"] {
        let path = folder.join(sub);
        fs::create_dir(&path).expect("folder");
        chown(path, Some(MAIL), Some(MAIL)).expect("chown");
    }
    logins::answer_as_authdaemon(&sockets.join("socket"), &folder.join("homes"));
    let port = port.to_string();
    let listen = ["/usr/sbin/couriertcpd", "-address=127.0.0.1", "-stderrlogger=/usr/sbin/courierlogger"];
    let limits = ["-maxprocs=200", "-maxperip=200", "-nodnslookup", "-noidentlookup", &port];
    let serve = ["/usr/lib/courier/courier/imaplogin", "/usr/bin/imapd", "Maildir"];
    let command = isolated(&programs().join("courier"), &sockets, &[&listen[..], &limits[..], &serve[..]].concat());
    // As in Debian's /etc/courier/imapd, but for IMAP_EMPTYTRASH.
    let environment = [
        ("AUTHMODULES", "authdaemon"),
        ("DEBUG_LOGIN", "0"),
        (
            "IMAP_CAPABILITY",
            "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE",
        ),
        // Its helper that watches folders is looked for by this name, by all servers of this machine.
        ("GAM_CLIENT_ID", name),
        ("IMAP_ACL", "1"),
        ("IMAP_CHECK_ALL_FOLDERS", "0"),
        ("IMAP_EMPTYTRASH", ""),
        ("IMAP_ENHANCEDIDLE", "0"),
        ("IMAP_KEYWORDS", "1"),
        ("IMAP_OBSOLETE_CLIENT", "0"),
        ("IMAP_TRASHFOLDERNAME", "Trash"),
        ("IMAP_ULIMITD", "131072"),
        ("IMAP_UMASK", "022"),
        ("IMAP_USELOCKS", "1"),
        ("MAILDIRPATH", "Maildir"),
    ];
    ServerProcess::start(folder, &command, &environment)
}

fn start_greenmail(folder: PathBuf, port: u16) -> ServerProcess {
    let jar = programs().join("greenmail/greenmail.jar").display().to_string();
    let port = format!("-Dgreenmail.imap.port={port}");
    // It lets anybody in, and makes the account.
    let options = ["-Dgreenmail.imap.hostname=127.0.0.1", &port, "-Dgreenmail.auth.disabled"];
    let machine = ["java", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
    let command = [&machine[..], &options[..], &["-jar", &jar][..]].concat();
    ServerProcess::start(folder, &command.iter().map(ToString::to_string).collect::<Vec<_>>(), &[])
}

fn start_goimap(folder: PathBuf, port: u16) -> ServerProcess {
    let program = programs().join("goimap/goimap").display().to_string();
    ServerProcess::start(folder, &[program, format!("127.0.0.1:{port}")], &[])
}

fn start_pymap(folder: PathBuf, port: u16) -> ServerProcess {
    let mail = folder.join("mail");
    fs::create_dir(&mail).expect("folder");
    let (mail, port) = (mail.display().to_string(), port.to_string());
    let python =
        ["python3", "-c", "from pymap.main import main; main()", "--host", "127.0.0.1", "--port", &port, "--no-tls"];
    let command = [&python[..], &["maildir", &mail][..]].concat();
    let packages = programs().join("pymap/packages").display().to_string();
    let environment = [("PYTHONPATH", packages.as_str())];
    ServerProcess::start(folder, &command.iter().map(ToString::to_string).collect::<Vec<_>>(), &environment)
}
