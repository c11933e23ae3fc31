//! A real Dovecot on loopback, with accounts of any name and password.
//!
//! It runs in the foreground as a child of this process. A shell beside it waits for the end of a pipe that only
//! this process holds, so that the server ends (and its folder goes) however this process ends, SIGKILL included.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::{
    imap_client::RawImap,
    pki::{TlsIdentity, pki},
};

/// What Dovecot 2.3.19 announces after login, in its order.
pub const CAPABILITIES: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY \
    THREAD=REFERENCES THREAD=REFS THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE \
    UIDPLUS LIST-EXTENDED I18NLEVEL=1 CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS \
    BINARY MOVE SNIPPET=FUZZY PREVIEW=FUZZY PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY SPECIAL-USE";

/// The default password of [`Dovecot::account`].
pub const PASSWORD: &str = "pass word";

/// How mail lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MailFormat {
    /// One file per message, folders as nested directories (`LAYOUT=fs`), so that names may hold dots.
    #[default]
    Maildir,
    /// One file per message, folders side by side with dots between the levels: Courier's and cPanel's layout.
    MaildirPlusPlus,
    /// Many messages per file.
    Mdbox,
    /// One file per message, flags in the index.
    Sdbox,
}

/// What certificate the server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerCertificate {
    /// Right for `localhost` and the loopback addresses.
    #[default]
    Good,
    /// Out of date.
    Expired,
    /// For another name.
    WrongName,
    /// None at all: no STARTTLS either, and nothing listens on the TLS port.
    NoTls,
}

/// How a server is set up. Take what differs from [`DovecotOptions::default`]:
///
/// ```
/// use mailferry_testkit::{DovecotOptions, MailFormat};
/// let dotted = DovecotOptions { separator: '.', prefix: "INBOX.", ..DovecotOptions::default() };
/// let options = DovecotOptions { format: MailFormat::Mdbox, ..dotted };
/// ```
#[derive(Debug, Clone)]
pub struct DovecotOptions {
    /// How mail lies on disk.
    pub format: MailFormat,
    /// Between the levels of a folder name.
    pub separator: char,
    /// Before every folder but INBOX: empty, or `INBOX.` with `.` as separator.
    pub prefix: &'static str,
    /// A folder that holds every account's mail, instead of their homes; anybody may write to it.
    pub mail_in: Option<PathBuf>,
    /// Whether mail is forced to disk as Dovecot does by default (`mail_fsync = optimized`); off is faster.
    pub fsync: bool,
    /// Every account's limit, bytes, 0 for none; without a value there is no QUOTA extension at all. See
    /// [`Dovecot::add_user_with`] for one account's own.
    pub quota: Option<u64>,
    /// Extensions that are not announced (`LITERAL+`, `MULTIAPPEND`, …). The server still obeys most of them.
    pub hide: Vec<&'static str>,
    /// Folders with a special use (name, attribute).
    pub special_use: Vec<(&'static str, &'static str)>,
    /// Whether those exist from the start.
    pub special_use_created: bool,
    /// An administrator (user, password), who logs in for others by authorization identity or as `user*master`.
    pub master: Option<(&'static str, &'static str)>,
    /// What the server shows for itself.
    pub certificate: ServerCertificate,
    /// The oldest TLS version, as Dovecot writes it: `TLSv1.2`, `TLSv1.3`.
    pub min_tls: &'static str,
    /// Connections per account and client address (`mail_max_userip_connections`).
    pub connections_per_user: u32,
    /// Sessions in all; above that the server lets a login wait.
    pub sessions: u32,
    /// Fixed ports (plain and STARTTLS, implicit TLS); free ones otherwise.
    pub ports: Option<(u16, u16)>,
    /// More lines for the configuration file, at its end.
    pub extra: String,
}

impl Default for DovecotOptions {
    fn default() -> Self {
        Self {
            format: MailFormat::default(),
            separator: '/',
            prefix: "",
            mail_in: None,
            fsync: false,
            quota: None,
            hide: Vec::new(),
            special_use: vec![
                ("Sent", "\\Sent"),
                ("Drafts", "\\Drafts"),
                ("Trash", "\\Trash"),
                ("Junk", "\\Junk"),
                ("Archive", "\\Archive"),
            ],
            special_use_created: false,
            master: None,
            certificate: ServerCertificate::default(),
            min_tls: "TLSv1.2",
            connections_per_user: 100,
            sessions: 1000,
            ports: None,
            extra: String::new(),
        }
    }
}

/// The servers that tests share, by [`shared_server`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SharedServer {
    /// Maildir in nested directories, `/`.
    Maildir,
    /// Mdbox, `/`.
    Mdbox,
    /// Sdbox, `/`.
    Sdbox,
    /// Maildir++, `.`, all folders below `INBOX.`.
    DottedMaildir,
    /// Mdbox, `.`, all folders below `INBOX.`.
    DottedMdbox,
}

impl SharedServer {
    /// Every one, for tests that hold on all.
    pub const ALL: [Self; 5] = [Self::Maildir, Self::Mdbox, Self::Sdbox, Self::DottedMaildir, Self::DottedMdbox];

    fn options(self) -> DovecotOptions {
        let (format, dotted) = match self {
            Self::Maildir => (MailFormat::Maildir, false),
            Self::Mdbox => (MailFormat::Mdbox, false),
            Self::Sdbox => (MailFormat::Sdbox, false),
            Self::DottedMaildir => (MailFormat::MaildirPlusPlus, true),
            Self::DottedMdbox => (MailFormat::Mdbox, true),
        };
        let (separator, prefix) = if dotted { ('.', "INBOX.") } else { ('/', "") };
        let master = Some(("master", "m@ster pass"));
        DovecotOptions { format, separator, prefix, master, ..DovecotOptions::default() }
    }
}

/// One server of each kind for the whole process, started on first use, with the master user `master`, whose
/// password is `m@ster pass`. Every test takes an account of its own from it.
pub fn shared_server(kind: SharedServer) -> &'static Dovecot {
    static SERVERS: [OnceLock<Dovecot>; SharedServer::ALL.len()] = [const { OnceLock::new() }; SharedServer::ALL.len()];
    SERVERS[kind as usize].get_or_init(|| Dovecot::start(&kind.options()))
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Dovecot {
    options: DovecotOptions,
    dir: PathBuf,
    plain_port: u16,
    tls_port: u16,
    process: Child,
}

/// One account on a server that lives at least as long.
#[derive(Debug, Clone)]
pub struct TestAccount<'a> {
    /// Where it is.
    pub server: &'a Dovecot,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: String,
}

impl Dovecot {
    /// Starts a server and waits until it greets. Panics with its log when it does not within ten seconds.
    #[must_use]
    pub fn start(options: &DovecotOptions) -> Self {
        for _ in 0..20 {
            let (plain_port, tls_port) = options.ports.unwrap_or_else(free_ports);
            match Self::try_start(options, plain_port, tls_port) {
                Ok(server) => return server,
                // Somebody else took a port between our looking and Dovecot's binding it.
                Err(log) if options.ports.is_none() && log.contains("Address already in use") => {}
                Err(log) => panic!("Dovecot did not start (is it installed? scripts/install.sh does that):\n{log}"),
            }
        }
        panic!("found no free ports for Dovecot");
    }

    fn try_start(options: &DovecotOptions, plain_port: u16, tls_port: u16) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("mailferry-dovecot-").tempdir().expect("temporary folder").keep();
        // Dovecot's login processes run as another user and must reach their sockets.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("permissions");
        for sub in ["users", "home"] {
            fs::create_dir(dir.join(sub)).expect("folder");
        }
        let ids = MailOwner::choose(&dir);
        chown(dir.join("home"), Some(ids.uid), Some(ids.gid)).expect("chown");
        fs::write(dir.join("dovecot.conf"), configuration(options, &dir, &ids, plain_port, tls_port)).expect("write");
        // The second shell sees the end of our pipe when we are gone. `$$` becomes Dovecot itself, whose orderly end
        // takes a second; everything it started is in its process group.
        let script = r#"
            exec 3<&0 </dev/null
            setsid sh -c 'read -r _; kill -s KILL -- "-$0"; rm -rf "$1" || { sleep 1; rm -rf "$1"; }' $$ "$1" <&3 &
            exec dovecot -F -c "$1/dovecot.conf" 3<&-"#;
        let output = fs::File::create(dir.join("output")).expect("output file");
        let process = Command::new("/bin/sh")
            .args(["-c", script, "dovecot"])
            .arg(&dir)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("output file"))
            .stderr(output)
            // Ctrl-C at the terminal is for the test run; the server follows by the pipe.
            .process_group(0)
            .spawn()
            .expect("/bin/sh");
        let mut server = Self { options: options.clone(), dir, plain_port, tls_port, process };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if server.process.try_wait().expect("wait").is_some() || Instant::now() > deadline {
                return Err(server.log());
            }
            if server.greets() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// True once this server answers; another one may have taken the port before it could.
    fn greets(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.plain_port));
        let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).is_ok() && line.contains(&name_of(&self.dir))
    }

    /// How it was set up.
    #[must_use]
    pub fn options(&self) -> &DovecotOptions {
        &self.options
    }

    /// The port that begins in plaintext and offers STARTTLS, on 127.0.0.1.
    #[must_use]
    pub fn plain_port(&self) -> u16 {
        self.plain_port
    }

    /// The port with TLS from the first byte, on 127.0.0.1.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Everything that the server logged.
    #[must_use]
    pub fn log(&self) -> String {
        ["output", "log"].map(|name| fs::read_to_string(self.dir.join(name)).unwrap_or_default()).concat()
    }

    /// A new, empty account with a name of its own.
    pub fn account(&self) -> TestAccount<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let user = format!("user{}@example.org", NEXT.fetch_add(1, Ordering::Relaxed));
        self.add_user(&user, PASSWORD)
    }

    /// An account of any name and password (any UTF-8; Dovecot refuses passwords
    /// with control characters); the name must be new, or the password the same.
    #[must_use]
    pub fn add_user(&self, user: &str, password: &str) -> TestAccount<'_> {
        self.add_user_with(user, password.as_bytes(), "")
    }

    /// The same with a password of any bytes and Dovecot's extra user fields, such as
    /// `userdb_quota_rule=*:bytes=100000`.
    #[must_use]
    pub fn add_user_with(&self, user: &str, password: &[u8], extra: &str) -> TestAccount<'_> {
        // Readers must never see half a file.
        let file = self.dir.join("users").join(hex_sha256(user.as_bytes()));
        let new = file.with_extension("new");
        fs::write(&new, format!("any:{{PLAIN.b64}}{}::::::{extra}\n", STANDARD.encode(password))).expect("write");
        fs::rename(&new, &file).expect("rename");
        TestAccount { server: self, user: user.to_owned(), password: String::from_utf8_lossy(password).into_owned() }
    }

    /// The account's home, where its mail lies in `mail/`. It exists after the first login.
    #[must_use]
    pub fn home(&self, user: &str) -> PathBuf {
        self.dir.join("home").join(hex_sha256(user.as_bytes()))
    }

    /// Ends every session of an account, as an administrator or a restart would.
    pub fn kick(&self, user: &str) {
        let status = Command::new("doveadm")
            .arg("-c")
            .arg(self.dir.join("dovecot.conf"))
            .args(["kick", user])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("doveadm");
        // 68 says that nobody was there.
        assert!(status.success() || status.code() == Some(68), "doveadm kick: {status}");
    }
}

impl TestAccount<'_> {
    /// A session, logged in, in plaintext (fast).
    pub async fn connect(&self) -> RawImap {
        let mut imap = RawImap::plain(self.server.plain_port).await;
        imap.login(&self.user, &self.password).await;
        imap
    }
}

impl Drop for TestAccount<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.server.log();
            eprintln!("What the server logged of {}:", self.user);
            log.lines().filter(|line| line.contains(&self.user)).for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("Dovecot's last words:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}

/// Who owns the mail on disk: Dovecot refuses root.
struct MailOwner {
    uid: u32,
    gid: u32,
    root: bool,
}

impl MailOwner {
    fn choose(ours: &Path) -> Self {
        let meta = fs::metadata(ours).expect("metadata");
        match meta.uid() {
            // Debian's `mail` user and group.
            0 => Self { uid: 8, gid: 8, root: true },
            uid => Self { uid, gid: meta.gid(), root: false },
        }
    }
}

/// What a server calls itself, unlike all others.
fn name_of(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Two ports that were free a moment ago.
pub(crate) fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let (a, b) = (bind(), bind());
    (a.local_addr().expect("address").port(), b.local_addr().expect("address").port())
}

pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("string");
        out
    })
}

fn configuration(options: &DovecotOptions, dir: &Path, ids: &MailOwner, plain_port: u16, tls_port: u16) -> String {
    let (folder, dir) = (dir, dir.display());
    let MailOwner { uid, gid, root } = ids;
    let mut conf = format!(
        r"
base_dir = {dir}/run
state_dir = {dir}/run
log_path = {dir}/log
listen = 127.0.0.1
protocols = imap
login_greeting = Dovecot ready, {name}.
disable_plaintext_auth = no
auth_mechanisms = plain login
# Users may have any name: their records are files, named by hash.
auth_username_chars =
auth_username_format = %u
auth_failure_delay = 0
lock_method = flock
auth_verbose = yes
auth_master_user_separator = *
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = {connections}
mail_fsync = {fsync}
mail_location = {location}
default_vsz_limit = 2G
service imap {{
  process_limit = {sessions}
}}
service imap-login {{
  # One process for all, ready from the start: a login costs no fork.
  service_count = 0
  process_min_avail = 1
  client_limit = 4000
  {chroot}
  inet_listener imap {{
    port = {plain_port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  # No penalty for all who come from one address, after one of them gave a wrong password.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = passwd-file
  master = yes
  args = {dir}/masters
  result_success = continue
}}
passdb {{
  driver = passwd-file
  args = username_format=any {dir}/users/%{{sha256:user}}
}}
userdb {{
  driver = passwd-file
  args = username_format=any {dir}/users/%{{sha256:user}}
  default_fields = uid={uid} gid={gid} home={dir}/home/%{{sha256:user}}
}}
",
        name = name_of(folder),
        connections = options.connections_per_user,
        sessions = options.sessions,
        fsync = if options.fsync { "optimized" } else { "never" },
        location = {
            let mail = match &options.mail_in {
                Some(folder) => format!("{}/%{{sha256:user}}", folder.display()),
                None => "~/mail".to_owned(),
            };
            match options.format {
                MailFormat::Maildir => format!("maildir:{mail}:LAYOUT=fs"),
                MailFormat::MaildirPlusPlus => format!("maildir:{mail}"),
                MailFormat::Mdbox => format!("mdbox:{mail}"),
                MailFormat::Sdbox => format!("sdbox:{mail}"),
            }
        },
        chroot = if *root { "" } else { "chroot =" },
    );
    let mut add = |text: String| conf.push_str(&text);
    if !root {
        let whoami = |flag: &str| {
            let out = Command::new("id").arg(flag).output().expect("id").stdout;
            String::from_utf8(out).expect("id").trim().to_owned()
        };
        let (user, group) = (whoami("-un"), whoami("-gn"));
        add(format!("default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n"));
        add("service anvil {\n  chroot =\n}\nservice stats {\n  chroot =\n}\n".to_owned());
    }
    let masters = options
        .master
        .map_or_else(String::new, |(user, password)| format!("{user}:{{PLAIN.b64}}{}\n", STANDARD.encode(password)));
    fs::write(format!("{dir}/masters"), masters).expect("write");
    if let Some(TlsIdentity { cert, key }) = match options.certificate {
        ServerCertificate::Good => Some(&pki().good),
        ServerCertificate::Expired => Some(&pki().expired),
        ServerCertificate::WrongName => Some(&pki().wrong_name),
        ServerCertificate::NoTls => None,
    } {
        fs::write(format!("{dir}/cert.pem"), cert).expect("write");
        fs::write(format!("{dir}/key.pem"), key).expect("write");
        add(format!("ssl = yes\nssl_cert = <{dir}/cert.pem\nssl_key = <{dir}/key.pem\n"));
        add(format!("ssl_min_protocol = {}\n", options.min_tls));
    } else {
        add("ssl = no\n".to_owned());
    }
    add(format!(
        "namespace inbox {{\n  inbox = yes\n  separator = {}\n  prefix = {}\n",
        options.separator, options.prefix
    ));
    for (name, attribute) in &options.special_use {
        let auto = if options.special_use_created { "create" } else { "no" };
        add(format!("  mailbox \"{name}\" {{\n    special_use = {attribute}\n    auto = {auto}\n  }}\n"));
    }
    add("}\n".to_owned());
    if let Some(bytes) = options.quota {
        add("mail_plugins = quota\nprotocol imap {\n  mail_plugins = quota imap_quota\n}\n".to_owned());
        add("plugin {\n  quota = count:User quota\n  quota_vsizes = yes\n".to_owned());
        add(format!("  quota_rule = *:bytes={bytes}\n}}\n"));
    }
    if !options.hide.is_empty() {
        let kept: Vec<&str> = CAPABILITIES.split_whitespace().filter(|name| !options.hide.contains(name)).collect();
        add(format!("imap_capability = {}\n", kept.join(" ")));
    }
    add(options.extra.clone());
    conf
}
