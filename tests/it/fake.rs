//! A server in memory, for either side: it holds what no real one does, and can be told to misbehave at any command.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mailferry::{
    Side,
    imap::{ConnectionSecurity, Endpoint, TlsOptions},
};
use mailferry_testkit::{
    ScriptedServer,
    scripted::{ClientCommand, ScriptedConnection},
};

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
    /// Do what was asked and answer well, but keep the messages of an APPEND so changed.
    Alter(fn(&mut Mail)),
    /// Send this and close.
    Bye(Vec<u8>),
    /// Answer well, but only after a while.
    Slowly(Duration),
    /// Say nothing more.
    Stall,
}

impl Act {
    /// Sends text.
    pub fn send(text: &str) -> Self {
        Self::Send(text.as_bytes().to_vec())
    }
}

/// Decides by a command's text (upper case), and by how many commands this was asked of before, over all connections.
type Twist = Box<dyn Fn(&str, usize) -> Option<Act> + Send + Sync>;

type Folders = Arc<Mutex<BTreeMap<String, Vec<Mail>>>>;

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
                conn.login(&shared.capabilities).await?;
                serve(&mut conn, &shared).await
            }
        })
        .await;
        Self { server, folders, pace }
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

#[allow(clippy::too_many_lines, reason = "an arm for each act")]
async fn serve(conn: &mut ScriptedConnection, shared: &Shared) -> io::Result<()> {
    let Shared { folders, twist, count, capabilities, pace, held } = shared;
    let mut selected = String::new();
    loop {
        let command = conn.command().await?;
        let takes = Duration::from_millis(pace.load(Ordering::SeqCst));
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let upper = command.text().to_ascii_uppercase();
        let with_tag = |bytes: &[u8]| {
            let text = bytes.split(|b| *b == b'{').enumerate().map(|(at, piece)| match piece.strip_prefix(b"tag}") {
                Some(rest) => [command.tag.as_bytes(), rest].concat(),
                None if at == 0 => piece.to_vec(),
                None => [b"{", piece].concat(),
            });
            text.collect::<Vec<_>>().concat()
        };
        let mut alter: fn(&mut Mail) = |_| {};
        match twist(&upper, count.fetch_add(1, Ordering::SeqCst)) {
            None => {}
            Some(Act::Alter(change)) => alter = change,
            Some(Act::Send(bytes)) => {
                conn.send(&with_tag(&bytes)).await?;
                continue;
            }
            Some(Act::First(bytes)) => conn.send(&with_tag(&bytes)).await?,
            Some(Act::Bye(bytes)) => {
                conn.send(&with_tag(&bytes)).await?;
                return conn.close().await;
            }
            Some(Act::Covertly(bytes)) => {
                answer(&command, &upper, capabilities, &mut folders.lock().unwrap(), &mut selected);
                conn.send(&with_tag(&bytes)).await?;
                continue;
            }
            Some(Act::Late(delay, bytes)) => {
                conn.send(&with_tag(&bytes)).await?;
                let (folders, capabilities) = (Arc::clone(folders), capabilities.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    answer(&command, &upper, &capabilities, &mut folders.lock().unwrap(), &mut String::new());
                });
                continue;
            }
            Some(Act::Held(bytes)) => {
                conn.send(&with_tag(&bytes)).await?;
                held.lock().unwrap().push(command);
                continue;
            }
            Some(Act::Slowly(delay)) => tokio::time::sleep(delay).await,
            Some(Act::Stall) => return conn.stall().await,
        }
        let answer = {
            let mut folders = folders.lock().unwrap();
            if upper.starts_with("APPEND") {
                for command in std::mem::take(&mut *held.lock().unwrap()) {
                    let upper = command.text().to_ascii_uppercase();
                    answer(&command, &upper, capabilities, &mut folders, &mut String::new());
                }
            }
            let before: BTreeMap<String, usize> = folders.iter().map(|(name, all)| (name.clone(), all.len())).collect();
            let answer = answer(&command, &upper, capabilities, &mut folders, &mut selected);
            for (name, all) in folders.iter_mut() {
                all.iter_mut().skip(before.get(name).copied().unwrap_or(0)).for_each(alter);
            }
            answer
        };
        match answer {
            Some(bytes) => conn.send(&bytes).await?,
            None => conn.answer_as_usual(&command).await?,
        }
        if upper == "LOGOUT" {
            return conn.close().await;
        }
    }
}

#[allow(clippy::too_many_lines, reason = "an arm for each command")]
fn answer(
    command: &ClientCommand,
    upper: &str,
    capabilities: &str,
    folders: &mut BTreeMap<String, Vec<Mail>>,
    selected: &mut String,
) -> Option<Vec<u8>> {
    let text = command.text();
    let ok = |untagged: String| Some(format!("{untagged}{} OK done\r\n", command.tag).into_bytes());
    let name = || {
        let rest = text.split_once(' ').map_or("", |(_, rest)| rest);
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
            None => rest.split(' ').next().unwrap_or_default().to_owned(),
        }
    };
    let next = |mails: &[Mail]| mails.iter().map(|m| m.uid).max().unwrap_or(0) + 1;
    match upper.split(' ').next().unwrap_or_default() {
        "LIST" | "LSUB" => {
            let verb = upper.split(' ').next().unwrap_or_default();
            let lines = folders.keys().fold(String::new(), |mut lines, folder| {
                write!(lines, "* {verb} () \"/\" \"{folder}\"\r\n").unwrap();
                lines
            });
            ok(lines)
        }
        "STATUS" => {
            let folder = name();
            let mails = folders.get(&folder)?;
            let (count, next) = (mails.len(), next(mails));
            let bytes: usize = mails.iter().map(|m| m.body.len()).sum();
            let size = if upper.contains("SIZE") { format!(" SIZE {bytes}") } else { String::new() };
            ok(format!("* STATUS \"{folder}\" (MESSAGES {count} UIDNEXT {next} UIDVALIDITY 7{size})\r\n"))
        }
        "SELECT" | "EXAMINE" => {
            *selected = name();
            let mails = folders.get(selected)?;
            let (count, next) = (mails.len(), next(mails));
            ok(format!(
                "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* {count} EXISTS\r\n* 0 RECENT\r\n\
                 * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] ok\r\n\
                 * OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT {next}] ok\r\n"
            ))
        }
        "CREATE" => {
            folders.entry(name()).or_default();
            ok(String::new())
        }
        "APPEND" => {
            let mails = folders.entry(name()).or_default();
            let first = next(mails);
            for (uid, (flags, date, body)) in (first..).zip(appended(&command.bytes)) {
                mails.push(Mail { uid, flags, date, size: None, body, listed: Listed::Everywhere });
            }
            let uids = match next(mails) - 1 {
                last if last == first => first.to_string(),
                last => format!("{first}:{last}"),
            };
            let code = if capabilities.contains("UIDPLUS") { format!("[APPENDUID 7 {uids}] ") } else { String::new() };
            Some(format!("{} OK {code}done\r\n", command.tag).into_bytes())
        }
        "UID" if upper.starts_with("UID FETCH ") => {
            let mails = folders.get(selected)?;
            let mut out = Vec::new();
            let set = text.split(' ').nth(2);
            let hidden = if set.is_some_and(|set| set.contains('*')) { Listed::WhenAskedFor } else { Listed::Nowhere };
            let asked = |mail: &Mail| in_set(set, mail.uid, mails) && ![hidden, Listed::Nowhere].contains(&mail.listed);
            let asked = (1..).zip(mails).filter(|(_, mail)| asked(mail)).collect();
            let (asked, code) = touched(asked, capabilities);
            for (seq, mail) in asked {
                fetched(&mut out, seq, mail, upper);
            }
            out.extend_from_slice(format!("{} OK {code}done\r\n", command.tag).as_bytes());
            Some(out)
        }
        "FETCH" => {
            let mails = folders.get(selected)?;
            let mut out = Vec::new();
            let set = text.split(' ').nth(1);
            let asked = |(seq, mail): &(usize, &Mail)| {
                u32::try_from(*seq).is_ok_and(|seq| in_set(set, seq, &[])) && mail.listed != Listed::Nowhere
            };
            let (asked, code) = touched((1..).zip(mails).filter(asked).collect(), capabilities);
            for (seq, mail) in asked {
                fetched(&mut out, seq, mail, upper);
            }
            out.extend_from_slice(format!("{} OK {code}done\r\n", command.tag).as_bytes());
            Some(out)
        }
        "UID" if upper.starts_with("UID STORE ") => {
            let mails = folders.get_mut(selected)?;
            let all = mails.clone();
            let mut words = text.splitn(5, ' ').skip(2);
            let (set, how, flags) = (words.next(), words.next()?, words.next()?.trim_matches(['(', ')']));
            for mail in mails.iter_mut().filter(|m| how.starts_with('+') && in_set(set, m.uid, &all)) {
                let space = if mail.flags.is_empty() { "" } else { " " };
                mail.flags.extend_from_slice(format!("{space}{flags}").as_bytes());
            }
            ok(String::new())
        }
        "UID" if upper.starts_with("UID SEARCH") => {
            let mails = folders.get(selected)?;
            let set = upper.rsplit_once(" UID ").map(|(_, set)| set);
            let listed = (1..).zip(mails).filter(|(_, m)| m.listed == Listed::Everywhere);
            let found = listed.filter(|(_, m)| set.is_none() || in_set(set, m.uid, mails)).collect();
            let (found, code) = touched(found, capabilities);
            let found: Vec<String> = found.iter().map(|(_, m)| m.uid.to_string()).collect();
            let line = match (upper.contains("RETURN"), found.is_empty()) {
                (true, true) => format!("* ESEARCH (TAG \"{}\") UID\r\n", command.tag),
                (true, false) => format!("* ESEARCH (TAG \"{}\") UID ALL {}\r\n", command.tag, found.join(",")),
                (false, _) => format!("* SEARCH {}\r\n", found.join(" ")),
            };
            let line = line.replace("SEARCH \r", "SEARCH\r");
            Some(format!("{line}{} OK {code}done\r\n", command.tag).into_bytes())
        }
        _ => None,
    }
}

/// What a command touches of the messages that it asks for: with MESSAGELIMIT (RFC 9738) the newest, and the response code
/// that says so.
fn touched<'m>(mut asked: Vec<(usize, &'m Mail)>, capabilities: &str) -> (Vec<(usize, &'m Mail)>, String) {
    let limit = capabilities.split(' ').find_map(|c| c.strip_prefix("MESSAGELIMIT=")).map(|n| n.parse().unwrap());
    match limit {
        Some(limit) if asked.len() > limit => {
            asked.drain(..asked.len() - limit);
            let code = format!("[MESSAGELIMIT {limit} {}] ", asked[0].1.uid);
            (asked, code)
        }
        _ => (asked, String::new()),
    }
}

/// Flags, date and body of each message in an APPEND.
fn appended(mut bytes: &[u8]) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    let mut messages = Vec::new();
    while let Some(end) = bytes.windows(3).position(|w| w == b"}\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = head.rsplit('{').next().and_then(|n| n.trim_end_matches('+').parse().ok()).unwrap_or(0);
        let rest = &bytes[end + 3..];
        let flags = head.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(flags, _)| flags);
        let date = head.split_once(") \"").and_then(|(_, rest)| rest.split_once('"')).map(|(date, _)| date);
        let date = format!("\"{}\"", date.unwrap_or("01-Jan-2030 00:00:00 +0000"));
        messages.push((flags.into(), date, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    messages
}

fn fetched(out: &mut Vec<u8>, seq: usize, mail: &Mail, items: &str) {
    out.extend_from_slice(format!("* {seq} FETCH (UID {}", mail.uid).as_bytes());
    if items.contains("FLAGS") {
        out.extend_from_slice(&[b" FLAGS (", mail.flags.as_slice(), b")"].concat());
    }
    if items.contains("INTERNALDATE") {
        out.extend_from_slice(format!(" INTERNALDATE {}", mail.date).as_bytes());
    }
    if items.contains("RFC822.SIZE") {
        out.extend_from_slice(format!(" RFC822.SIZE {}", mail.size.unwrap_or(mail.body.len() as u64)).as_bytes());
    }
    if items.contains("[HEADER.FIELDS (MESSAGE-ID)]") {
        let header = String::from_utf8_lossy(&mail.body).into_owned();
        let id =
            header.lines().find(|line| line.starts_with("Message-ID:")).map_or(String::new(), |l| format!("{l}\r\n"));
        let text = format!(" BODY[HEADER.FIELDS (MESSAGE-ID)] {{{}}}\r\n{id}\r\n", id.len() + 2);
        out.extend_from_slice(text.as_bytes());
    }
    if items.contains("BODY.PEEK[]") {
        out.extend_from_slice(format!(" BODY[] {{{}}}\r\n", mail.body.len()).as_bytes());
        out.extend_from_slice(&mail.body);
    }
    out.extend_from_slice(b")\r\n");
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

fn in_set(set: Option<&str>, uid: u32, mails: &[Mail]) -> bool {
    let last = || mails.iter().map(|m| m.uid).max().unwrap_or(0);
    let number = |text: &str| text.parse().unwrap_or_else(|_| last());
    set.unwrap_or_default().split(',').any(|range| {
        let (a, b) = range.split_once(':').unwrap_or((range, range));
        let (a, b) = (number(a), number(b));
        (a.min(b)..=a.max(b)).contains(&uid)
    })
}
