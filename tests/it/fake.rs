//! A server in memory, for either side: it holds what no real one does, and can be told to misbehave at any command.

mod answers;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mailferry::{
    Side,
    imap::{ConnectionSecurity, Endpoint, TlsOptions},
};
use mailferry_testkit::{
    ScriptedServer,
    pki::pki,
    scripted::{ClientCommand, ScriptedConnection},
};

use self::answers::{answer, in_set};
use crate::rig::{Rig, endpoint};

/// What a plain server of the old days offers.
pub const OLD: &str = "IMAP4rev1 AUTH=PLAIN";
/// What servers offer today, without MULTIAPPEND.
pub const MODERN: &str = "IMAP4rev1 AUTH=PLAIN SASL-IR LITERAL+ UIDPLUS ESEARCH NAMESPACE ID";

/// One message as it is told.
#[derive(Debug, Clone)]
pub struct Mail {
    pub uid: u32,
    /// Raw, as they stand between the parentheses.
    pub flags: Vec<u8>,
    /// Raw, with its quotes.
    pub date: String,
    /// RFC822.SIZE, where it is not the truth.
    pub size: Option<u64>,
    pub body: Vec<u8>,
    pub listed: Listed,
}

/// Where a message is listed. It counts (EXISTS, STATUS) all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Wherever it belongs.
    Everywhere,
    /// Nowhere but by FETCH of its sequence number or its own UID.
    WhenAskedFor,
    /// Nowhere at all.
    Nowhere,
}

impl Mail {
    /// An ordinary message.
    pub fn new(uid: u32, body: impl Into<Vec<u8>>) -> Self {
        let date = "\"05-Mar-2021 08:09:10 +0000\"".to_owned();
        Self { uid, flags: b"\\Seen".to_vec(), date, size: None, body: body.into(), listed: Listed::Everywhere }
    }

    /// Of the body.
    pub fn sha256(&self) -> [u8; 32] {
        use sha2::Digest as _;
        sha2::Sha256::digest(&self.body).into()
    }

    /// The same with raw flags.
    pub fn flagged(mut self, flags: impl Into<Vec<u8>>) -> Self {
        self.flags = flags.into();
        self
    }

    /// The same, listed only there.
    pub fn listed(mut self, listed: Listed) -> Self {
        self.listed = listed;
        self
    }

    /// The same with a raw INTERNALDATE.
    pub fn dated(mut self, date: &str) -> Self {
        date.clone_into(&mut self.date);
        self
    }
}

/// Ordinary messages with the UIDs from 1 on.
pub fn mails(count: u32) -> Vec<Mail> {
    let body = |uid| format!("Message-ID: <fake-{uid}@example.org>\r\nSubject: number {uid}\r\n\r\nbody {uid}\r\n");
    (1..=count).map(|uid| Mail::new(uid, body(uid))).collect()
}

/// An account: its folders and what they hold.
pub type Account = BTreeMap<String, Vec<Mail>>;

/// A change of an account or of an answer.
pub struct Change<T>(Arc<dyn Fn(&mut T) + Send + Sync>);

impl<T> Change<T> {
    pub fn new(change: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        Self(Arc::new(change))
    }
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Change<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// What to do instead of answering well.
#[derive(Debug, Clone)]
pub enum Act {
    /// Send this; `{tag}` stands for the command's tag.
    Send(Vec<u8>),
    /// Answer well, but send this first.
    First(Vec<u8>),
    /// Do what was asked, but answer this.
    Covertly(Vec<u8>),
    /// Answer this, and do what was asked only after a while.
    Late(Duration, Vec<u8>),
    /// Answer this, and do what was asked only right before the next APPEND that is not held, on any connection.
    Held(Vec<u8>),
    /// Close, and do what was asked only after a while.
    Orphan(Duration),
    /// Do what was asked and answer well, but keep the messages of an APPEND so changed.
    Alter(fn(&mut Mail)),
    /// Answer well by the account so changed, and leave it as it was: neither the change nor what was asked stays.
    Pretend(Change<Account>),
    /// Do what was asked with this at the end of the folder's name, and say OK: to CREATE.
    Misname(&'static str),
    /// Do what was asked, and answer well, but for this change.
    Retell(Change<Vec<u8>>),
    /// Send this and close.
    Bye(Vec<u8>),
    /// Do what was asked, send so many thousandths of the answer and close.
    Torn(usize),
    /// Answer well, but only after a while.
    Slowly(Duration),
    /// Do what was asked, and answer well only after a while.
    Linger(Duration),
    /// Send this again and again, for ever.
    Endless(Vec<u8>, Duration),
    /// Say nothing more.
    Stall,
}

impl Act {
    /// Sends text.
    pub fn send(text: &str) -> Self {
        Self::Send(text.as_bytes().to_vec())
    }
}

/// What a twist is asked when a client connects; [`Act::Send`] answers the login then.
pub const CONNECT: &str = "CONNECT";

/// Decides by a command's text (upper case), and by how many commands this was asked of before, over all connections.
type Twist = Box<dyn Fn(&str, usize) -> Option<Act> + Send + Sync>;

type Folders = Arc<Mutex<Account>>;

/// What all connections share.
struct Shared {
    folders: Folders,
    twist: Twist,
    /// Commands heard so far.
    count: AtomicUsize,
    capabilities: String,
    /// Milliseconds that each command takes.
    pace: Arc<AtomicU64>,
    /// APPENDs that are done before the next.
    held: Mutex<Vec<ClientCommand>>,
}

/// A running server; ends when dropped.
pub struct Fake {
    pub server: ScriptedServer,
    folders: Folders,
    /// Milliseconds that each command takes.
    pace: Arc<AtomicU64>,
}

impl Fake {
    /// Holds only INBOX.
    pub async fn start(capabilities: &str, inbox: Vec<Mail>) -> Self {
        Self::twisted(capabilities, inbox, |_, _| None).await
    }

    /// The same, misbehaving.
    pub async fn twisted(
        capabilities: &str,
        inbox: Vec<Mail>,
        twist: impl Fn(&str, usize) -> Option<Act> + Send + Sync + 'static,
    ) -> Self {
        let folders: Folders = Arc::new(Mutex::new(BTreeMap::from([("INBOX".to_owned(), inbox)])));
        let pace = Arc::new(AtomicU64::new(0));
        let shared = Arc::new(Shared {
            folders: Arc::clone(&folders),
            twist: Box::new(twist),
            count: AtomicUsize::new(0),
            capabilities: capabilities.to_owned(),
            pace: Arc::clone(&pace),
            held: Mutex::default(),
        });
        let server = ScriptedServer::serve(None, move |mut conn, _| {
            let shared = Arc::clone(&shared);
            async move {
                let act = (shared.twist)(CONNECT, shared.count.load(Ordering::SeqCst));
                if !greet(&mut conn, &shared.capabilities, act).await? {
                    return conn.close().await;
                }
                serve(&mut conn, &shared).await
            }
        })
        .await;
        Self { server, folders, pace }
    }

    /// The same over TLS, for those who show an access token (XOAUTH2) that `judge` takes.
    pub async fn for_tokens(
        inbox: Vec<Mail>,
        judge: impl Fn(&str) -> bool + Send + Sync + 'static,
        twist: impl Fn(&str, usize) -> Option<Act> + Send + Sync + 'static,
    ) -> Self {
        let folders: Folders = Arc::new(Mutex::new(BTreeMap::from([("INBOX".to_owned(), inbox)])));
        let pace = Arc::new(AtomicU64::new(0));
        let capabilities = MODERN.replace("AUTH=PLAIN", "AUTH=XOAUTH2");
        let shared = Arc::new(Shared {
            folders: Arc::clone(&folders),
            twist: Box::new(twist),
            count: AtomicUsize::new(0),
            capabilities,
            pace: Arc::clone(&pace),
            held: Mutex::default(),
        });
        let judge = Arc::new(judge);
        let server = ScriptedServer::serve(Some(&pki().good), move |mut conn, _| {
            let (shared, judge) = (Arc::clone(&shared), Arc::clone(&judge));
            async move {
                if !take_token(&mut conn, &shared.capabilities, judge.as_ref()).await? {
                    return conn.close().await;
                }
                serve(&mut conn, &shared).await
            }
        })
        .await;
        Self { server, folders, pace }
    }

    /// An empty one that refuses each UID FETCH for as long as the switch is on.
    pub async fn refusing_fetches(capabilities: &str) -> (Self, Arc<AtomicBool>) {
        let refuses = Arc::new(AtomicBool::new(true));
        let is_refusing = Arc::clone(&refuses);
        let fake = Self::twisted(capabilities, Vec::new(), move |command, _| {
            let hit = command.starts_with("UID FETCH") && is_refusing.load(Ordering::SeqCst);
            hit.then(|| Act::send("{tag} NO not now\r\n"))
        })
        .await;
        (fake, refuses)
    }

    /// From now on each command takes so long, also one that was sent before the last was answered.
    pub fn takes(&self, time: Duration) {
        self.pace.store(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Where the engine finds it.
    pub fn endpoint(&self, side: Side) -> Endpoint {
        let mut endpoint = endpoint(side, self.server.port(), "anybody", "anything");
        endpoint.tls = TlsOptions { mode: ConnectionSecurity::None, ..TlsOptions::default() };
        endpoint
    }

    /// What a folder holds now.
    pub fn mails(&self, folder: &str) -> Vec<Mail> {
        self.folders.lock().unwrap().get(folder).cloned().unwrap_or_default()
    }

    /// Changes what a folder holds.
    pub fn change(&self, folder: &str, change: impl FnOnce(&mut Vec<Mail>)) {
        change(self.folders.lock().unwrap().entry(folder.to_owned()).or_default());
    }

    /// Gives a folder another name.
    pub fn rename(&self, old: &str, new: &str) {
        let mut folders = self.folders.lock().unwrap();
        let mails = folders.remove(old).unwrap_or_default();
        folders.insert(new.to_owned(), mails);
    }

    /// Commands heard so far that hold this text.
    pub fn heard(&self, text: &str) -> usize {
        self.server.received_commands().iter().filter(|command| command.contains(text)).count()
    }
}

/// From the greeting to the login; false where it ends there.
async fn greet(conn: &mut ScriptedConnection, capabilities: &str, act: Option<Act>) -> io::Result<bool> {
    match act {
        Some(Act::Bye(bytes)) => conn.send(&bytes).await?,
        Some(Act::Stall) => conn.stall().await?,
        Some(Act::Endless(bytes, pause)) => repeat(conn, &bytes, pause).await?,
        Some(Act::Send(bytes)) => conn.answer_login(capabilities, &bytes).await?,
        other => {
            if let Some(Act::Slowly(delay)) = other {
                tokio::time::sleep(delay).await;
            }
            conn.login(capabilities).await?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// From the greeting to a login by token; false where the token is refused.
async fn take_token(
    conn: &mut ScriptedConnection,
    capabilities: &str,
    judge: &(dyn Fn(&str) -> bool + Send + Sync),
) -> io::Result<bool> {
    conn.send(format!("* OK [CAPABILITY {capabilities}] ready\r\n").as_bytes()).await?;
    let command = conn.command().await?;
    let text = command.text();
    let shown = text.strip_prefix("AUTHENTICATE XOAUTH2 ").unwrap_or_else(|| panic!("{text}"));
    let shown = String::from_utf8(STANDARD.decode(shown).unwrap()).unwrap();
    let token = shown.split_once("auth=Bearer ").unwrap().1.trim_end_matches('\u{1}');
    let tag = command.tag;
    if judge(token) {
        conn.send(format!("{tag} OK [CAPABILITY {capabilities}] in\r\n").as_bytes()).await?;
        return Ok(true);
    }
    let challenge = STANDARD.encode(r#"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#);
    conn.send(format!("+ {challenge}\r\n").as_bytes()).await?;
    assert!(conn.line().await?.trim_ascii().is_empty());
    conn.send(format!("{tag} NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)\r\n").as_bytes()).await?;
    Ok(false)
}

/// Sends the same for ever.
async fn repeat(conn: &mut ScriptedConnection, bytes: &[u8], pause: Duration) -> io::Result<()> {
    loop {
        conn.send(bytes).await?;
        tokio::time::sleep(pause).await;
    }
}

fn with_tag(bytes: &[u8], tag: &str) -> Vec<u8> {
    let text = bytes.split(|b| *b == b'{').enumerate().map(|(at, piece)| match piece.strip_prefix(b"tag}") {
        Some(rest) => [tag.as_bytes(), rest].concat(),
        None if at == 0 => piece.to_vec(),
        None => [b"{", piece].concat(),
    });
    text.collect::<Vec<_>>().concat()
}

async fn serve(conn: &mut ScriptedConnection, shared: &Shared) -> io::Result<()> {
    let mut selected = String::new();
    loop {
        let command = conn.command().await?;
        let takes = Duration::from_millis(shared.pace.load(Ordering::SeqCst));
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let upper = command.text().to_ascii_uppercase();
        let act = (shared.twist)(&upper, shared.count.fetch_add(1, Ordering::SeqCst));
        if !(Asked { command, upper, shared }).play(conn, &mut selected, act).await? {
            return conn.close().await;
        }
    }
}

/// A command, and what it is asked of.
struct Asked<'a> {
    command: ClientCommand,
    upper: String,
    shared: &'a Shared,
}

impl Asked<'_> {
    /// Plays an act; false where the connection ends with it.
    async fn play(&self, conn: &mut ScriptedConnection, selected: &mut String, act: Option<Act>) -> io::Result<bool> {
        let mut alter: fn(&mut Mail) = |_| {};
        let tagged = |bytes: &[u8]| with_tag(bytes, &self.command.tag);
        match act {
            None => {}
            Some(Act::Alter(change)) => alter = change,
            Some(Act::Send(bytes)) => {
                conn.send(&tagged(&bytes)).await?;
                return Ok(true);
            }
            Some(Act::First(bytes)) => conn.send(&tagged(&bytes)).await?,
            Some(Act::Bye(bytes)) => {
                conn.send(&tagged(&bytes)).await?;
                return Ok(false);
            }
            Some(Act::Covertly(bytes)) => {
                self.answer(&mut self.shared.folders.lock().unwrap(), selected);
                conn.send(&tagged(&bytes)).await?;
                return Ok(true);
            }
            Some(Act::Late(delay, bytes)) => {
                conn.send(&tagged(&bytes)).await?;
                self.answer_later(delay);
                return Ok(true);
            }
            Some(Act::Held(bytes)) => {
                conn.send(&tagged(&bytes)).await?;
                self.shared.held.lock().unwrap().push(self.command.clone());
                return Ok(true);
            }
            Some(Act::Orphan(delay)) => {
                self.answer_later(delay);
                return Ok(false);
            }
            Some(Act::Misname(suffix)) => {
                let name =
                    self.command.text().split_once(' ').map_or("", |(_, name)| name.trim_matches('"')).to_owned();
                self.shared.folders.lock().unwrap().entry(name + suffix).or_default();
                conn.send(&tagged(b"{tag} OK done\r\n")).await?;
                return Ok(true);
            }
            Some(Act::Pretend(change)) => {
                let mut account = self.shared.folders.lock().unwrap().clone();
                (change.0)(&mut account);
                let answer = self.answer(&mut account, selected);
                return self.send(conn, answer).await;
            }
            Some(Act::Retell(change)) => {
                let mut answer = self.answer(&mut self.shared.folders.lock().unwrap(), selected);
                if let Some(answer) = &mut answer {
                    (change.0)(answer);
                }
                return self.send(conn, answer).await;
            }
            Some(Act::Torn(share)) => {
                let answer = self.answer(&mut self.shared.folders.lock().unwrap(), selected).unwrap_or_default();
                conn.send(&answer[..answer.len() * share / 1000]).await?;
                return Ok(false);
            }
            Some(Act::Slowly(delay)) => tokio::time::sleep(delay).await,
            Some(Act::Linger(delay)) => {
                let answer = self.answer(&mut self.shared.folders.lock().unwrap(), selected);
                tokio::time::sleep(delay).await;
                return self.send(conn, answer).await;
            }
            Some(Act::Endless(bytes, pause)) => repeat(conn, &tagged(&bytes), pause).await?,
            Some(Act::Stall) => {
                conn.stall().await?;
                return Ok(false);
            }
        }
        let answer = {
            let mut folders = self.shared.folders.lock().unwrap();
            if self.upper.starts_with("APPEND") {
                for command in std::mem::take(&mut *self.shared.held.lock().unwrap()) {
                    let upper = command.text().to_ascii_uppercase();
                    answer(&command, &upper, &self.shared.capabilities, &mut folders, &mut String::new());
                }
            }
            let before: BTreeMap<String, usize> = folders.iter().map(|(name, all)| (name.clone(), all.len())).collect();
            let answer = self.answer(&mut folders, selected);
            for (name, all) in folders.iter_mut() {
                all.iter_mut().skip(before.get(name).copied().unwrap_or(0)).for_each(alter);
            }
            answer
        };
        self.send(conn, answer).await
    }

    fn answer(&self, account: &mut Account, selected: &mut String) -> Option<Vec<u8>> {
        answer(&self.command, &self.upper, &self.shared.capabilities, account, selected)
    }

    fn answer_later(&self, delay: Duration) {
        let (folders, capabilities) = (Arc::clone(&self.shared.folders), self.shared.capabilities.clone());
        let (command, upper) = (self.command.clone(), self.upper.clone());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            answer(&command, &upper, &capabilities, &mut folders.lock().unwrap(), &mut String::new());
        });
    }

    async fn send(&self, conn: &mut ScriptedConnection, answer: Option<Vec<u8>>) -> io::Result<bool> {
        match answer {
            Some(bytes) => conn.send(&bytes).await?,
            None => conn.answer_as_usual(&self.command).await?,
        }
        Ok(self.upper != "LOGOUT")
    }
}

/// Between two servers in memory, with short patience.
pub fn hasty(source: &Fake, destination: &Fake) -> Rig {
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    for endpoint in [&mut rig.spec.source, &mut rig.spec.destination] {
        endpoint.timeouts.reply = Duration::from_secs(1);
        endpoint.timeouts.connect = Duration::from_secs(2);
    }
    rig.spec.retry.initial_backoff = Duration::from_millis(5);
    rig.spec.retry.max_backoff = Duration::from_millis(20);
    rig.spec.retry.attempts = 3;
    rig
}

/// The bodies in an order of their own, to be compared as a whole.
pub fn all_bodies(mails: &[Mail]) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = mails.iter().map(|m| m.body.clone()).collect();
    bodies.sort();
    bodies
}

/// The answer to a FETCH of bodies, each message as `form` says it.
pub fn bodies(mails: &[Mail], command: &str, form: impl Fn(usize, &Mail) -> Vec<u8>) -> Vec<u8> {
    let set = command.split(' ').nth(2);
    let asked = mails.iter().enumerate().filter(|(_, mail)| in_set(set, mail.uid, mails));
    let mut out: Vec<u8> = asked.flat_map(|(at, mail)| form(at + 1, mail)).collect();
    out.extend_from_slice(b"{tag} OK done\r\n");
    out
}

/// Whether a UID FETCH or UID SEARCH UID of bodies asks for this message.
pub fn asks_for(command: &str, uid: u32) -> bool {
    let set = command.split(' ').nth(2).map(|set| set.replace('*', "4294967295"));
    command.contains("BODY.PEEK[]") && in_set(set.as_deref(), uid, &[])
}
