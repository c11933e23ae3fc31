//! A small IMAP client for seeding and inspecting accounts. It does one command at a time.

use std::{collections::BTreeSet, net::Ipv4Addr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{
        AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
        ReadHalf, WriteHalf,
    },
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::{
    corpus::{Corpus, CorpusMessage},
    mutf7,
    pki::pki,
    reply_parser::{self, ReplyParser, ReplyValue},
};

/// Both directions of a connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// How many messages one seeding APPEND holds at most, and from how many bytes on it takes no more.
const BATCH: (usize, usize) = (100, 4 << 20);

/// A session with a server.
pub struct RawImap {
    read: BufReader<ReadHalf<Box<dyn ByteStream>>>,
    write: WriteHalf<Box<dyn ByteStream>>,
    next_tag: u32,
}

/// What a server said to one command.
#[derive(Debug)]
pub struct CommandReply {
    /// `OK`, `NO` or `BAD`.
    pub status: String,
    /// The tagged line after the status: response code and text.
    pub text: String,
    /// The untagged replies before it, each without its `*`.
    pub untagged: Vec<Vec<ReplyValue>>,
}

/// A folder as LIST and LSUB tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFolder {
    /// As it travels: modified UTF-7.
    pub raw: String,
    /// Decoded, without the account's prefix, levels separated by `/` whatever the server's separator is.
    pub path: String,
    /// Attributes as sent.
    pub attributes: Vec<String>,
    /// Whether LSUB has it.
    pub subscribed: bool,
}

impl ListedFolder {
    /// Whether it can hold messages.
    #[must_use]
    pub fn selectable(&self) -> bool {
        !self.attributes.iter().any(|a| a.eq_ignore_ascii_case("\\Noselect") || a.eq_ignore_ascii_case("\\NonExistent"))
    }
}

/// Where an account keeps its folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonalNamespace {
    /// Before every folder but INBOX, as it travels.
    pub prefix: String,
    /// Between levels.
    pub separator: char,
}

impl PersonalNamespace {
    /// The name as it travels of a folder whose levels are separated by `/`.
    #[must_use]
    pub fn raw(&self, path: &str) -> String {
        let levels: Vec<String> = path.split('/').map(mutf7::encode).collect();
        if levels.len() == 1 && path.eq_ignore_ascii_case("INBOX") {
            return path.to_owned();
        }
        for level in &levels {
            assert!(!level.contains(self.separator), "{path:?} cannot be below a separator {:?}", self.separator);
        }
        format!("{}{}", self.prefix, levels.join(&self.separator.to_string()))
    }

    fn path(&self, raw: &str) -> String {
        let own = raw.strip_prefix(&self.prefix).unwrap_or(raw);
        own.split(self.separator).map(mutf7::decode).collect::<Vec<_>>().join("/")
    }
}

impl RawImap {
    /// Connects to 127.0.0.1 in plaintext and reads the greeting.
    pub async fn plain(port: u16) -> Self {
        let stream = connect(port).await;
        Self::greeted(Box::new(stream)).await
    }

    /// Connects to 127.0.0.1 by TLS, trusting the test authority only, and reads the greeting.
    pub async fn tls(port: u16) -> Self {
        let name = ServerName::try_from("localhost").expect("name");
        let stream = TlsConnector::from(pki().client()).connect(name, connect(port).await).await.expect("TLS");
        Self::greeted(Box::new(stream)).await
    }

    async fn greeted(stream: Box<dyn ByteStream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        let mut imap = Self { read: BufReader::with_capacity(1 << 16, read), write, next_tag: 1 };
        let greeting = read_reply(&mut imap.read).await;
        assert_eq!(greeting.first().map(ReplyValue::text).as_deref(), Some("*"), "greeting {greeting:?}");
        imap
    }

    /// AUTHENTICATE PLAIN, which takes any password; panics when refused.
    pub async fn login(&mut self, user: &str, password: &str) {
        let reply = self.authenticate("", user, password).await;
        assert_eq!(reply.status, "OK", "login of {user:?}: {}", reply.text);
    }

    /// AUTHENTICATE PLAIN with an authorization identity (empty for none).
    pub async fn authenticate(&mut self, authzid: &str, user: &str, password: &str) -> CommandReply {
        let response = STANDARD.encode(format!("{authzid}\0{user}\0{password}"));
        self.command(format!("AUTHENTICATE PLAIN {response}").as_bytes()).await
    }

    /// LOGIN, which every server has; panics when refused.
    pub async fn login_by_command(&mut self, user: &str, password: &str) {
        let reply = self.command(format!("LOGIN {} {}", quoted(user), quoted(password)).as_bytes()).await;
        assert_eq!(reply.status, "OK", "login of {user:?}: {}", reply.text);
    }

    /// Sends one command (without tag and line end; literals inside it must be non-synchronizing) and reads to its
    /// tagged reply.
    pub async fn command(&mut self, command: &[u8]) -> CommandReply {
        let mut untagged = Vec::new();
        let (status, text) = self.command_with(command, |values| untagged.push(values)).await;
        CommandReply { status, text, untagged }
    }

    /// The same, panicking when the reply is not OK.
    pub async fn command_ok(&mut self, command: &str) -> CommandReply {
        let reply = self.command(command.as_bytes()).await;
        assert_eq!(reply.status, "OK", "{command:?} -> {} {}", reply.status, reply.text);
        reply
    }

    /// Sends one command and hands over each untagged reply as it comes, so that none need be kept.
    pub async fn command_with(&mut self, command: &[u8], mut each: impl FnMut(Vec<ReplyValue>)) -> (String, String) {
        let tag = format!("t{}", self.next_tag);
        self.next_tag += 1;
        let mut bytes = Vec::with_capacity(command.len() + 16);
        bytes.extend_from_slice(tag.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(command);
        bytes.extend_from_slice(b"\r\n");
        // Reading goes on while we write: a server may answer an APPEND before it has read all of it.
        let Self { read, write, .. } = self;
        let sent = async {
            write.write_all(&bytes).await.expect("write");
            write.flush().await.expect("flush");
        };
        let received = async {
            loop {
                let mut values = read_reply(read).await;
                match values.first().map(ReplyValue::text).as_deref() {
                    Some("*") => {
                        values.remove(0);
                        each(values);
                    }
                    Some(first) if first == tag => break values,
                    other => panic!("{other:?} while waiting for {tag}"),
                }
            }
        };
        let ((), values) = tokio::join!(sent, received);
        let words: Vec<String> = values.iter().skip(2).map(ReplyValue::text).collect();
        (values[1].text(), words.join(" "))
    }

    /// The account's own namespace: NAMESPACE's first, or what LIST tells.
    pub async fn namespace(&mut self) -> PersonalNamespace {
        let reply = self.command(b"NAMESPACE").await;
        let personal = reply.untagged.iter().find(|v| v[0].text() == "NAMESPACE").map(|v| v[1].list()[0].clone());
        if let Some(personal) = personal {
            let separator = personal.list()[1].text().chars().next().expect("separator");
            return PersonalNamespace { prefix: personal.list()[0].text(), separator };
        }
        let reply = self.command_ok(r#"LIST "" """#).await;
        let separator = reply.untagged[0][2].text().chars().next().expect("separator");
        PersonalNamespace { prefix: String::new(), separator }
    }

    /// Every folder, by path.
    pub async fn folders(&mut self) -> Vec<ListedFolder> {
        let namespace = self.namespace().await;
        let names = |reply: CommandReply, kind: &str| -> Vec<(String, Vec<String>)> {
            let rows = reply.untagged.iter().filter(|v| v[0].text() == kind);
            rows.map(|v| (v[3].text(), v[1].list().iter().map(ReplyValue::text).collect())).collect()
        };
        let listed = names(self.command_ok(r#"LIST "" "*""#).await, "LIST");
        // What LSUB calls \Noselect is only the parent of what is subscribed (RFC 3501, section 6.3.9).
        let lsub = names(self.command_ok(r#"LSUB "" "*""#).await, "LSUB").into_iter();
        let subscribed: BTreeSet<String> = lsub
            .filter(|(_, attributes)| !attributes.iter().any(|a| a.eq_ignore_ascii_case("\\Noselect")))
            .map(|(raw, _)| raw)
            .collect();
        let mut folders: Vec<ListedFolder> = listed
            .into_iter()
            .map(|(raw, attributes)| ListedFolder {
                path: namespace.path(&raw),
                subscribed: subscribed.contains(&raw),
                raw,
                attributes,
            })
            .collect();
        // Where everything is below `INBOX.`, INBOX's own children have a parent `INBOX.INBOX` that is no folder.
        folders.retain(|folder| folder.selectable() || folder.path != "INBOX");
        folders.sort_by(|a, b| a.path.cmp(&b.path));
        folders
    }

    /// Appends to a folder (by its name as it travels), in as few commands as may be; panics when refused. Gives
    /// the UIDs. The flags and dates travel exactly as they stand in the messages.
    pub async fn append(&mut self, folder: &str, messages: &[CorpusMessage]) -> Vec<u32> {
        let mut uids = Vec::new();
        let mut rest = messages;
        while !rest.is_empty() {
            let mut bytes = 0;
            let mut count = 0;
            while count < rest.len() && count < BATCH.0 && (count == 0 || bytes + rest[count].body.len() <= BATCH.1) {
                bytes += rest[count].body.len();
                count += 1;
            }
            let (batch, after) = rest.split_at(count);
            rest = after;
            let mut command = format!("APPEND {}", quoted(folder)).into_bytes();
            for message in batch {
                command.extend_from_slice(format!(" ({})", message.flags.join(" ")).as_bytes());
                if let Some(date) = &message.date {
                    command.extend_from_slice(format!(" \"{date}\"").as_bytes());
                }
                command.extend_from_slice(format!(" {{{}+}}\r\n", message.body.len()).as_bytes());
                command.extend_from_slice(&message.body);
            }
            let reply = self.command(&command).await;
            assert_eq!(reply.status, "OK", "APPEND to {folder:?}: {} {}", reply.status, reply.text);
            uids.extend(appended(&reply.text));
        }
        uids
    }

    /// Appends one message by a synchronizing literal, as every server has it; the reply may be a refusal. The flags
    /// and the date travel exactly as they stand in the message.
    pub async fn append_one(&mut self, folder: &str, message: &CorpusMessage) -> CommandReply {
        let tag = format!("t{}", self.next_tag);
        self.next_tag += 1;
        let date = message.date.as_ref().map_or_else(String::new, |date| format!(" \"{date}\""));
        let (flags, length) = (message.flags.join(" "), message.body.len());
        let line = format!("{tag} APPEND {} ({flags}){date} {{{length}}}\r\n", quoted(folder));
        self.write.write_all(line.as_bytes()).await.expect("write");
        self.write.flush().await.expect("flush");
        let mut untagged = Vec::new();
        loop {
            let mut values = read_reply(&mut self.read).await;
            match values.first().map(ReplyValue::text).as_deref() {
                Some("+") => {
                    self.write.write_all(&[&message.body[..], b"\r\n"].concat()).await.expect("write");
                    self.write.flush().await.expect("flush");
                }
                Some("*") => {
                    values.remove(0);
                    untagged.push(values);
                }
                Some(first) if first == tag => {
                    let words: Vec<String> = values.iter().skip(2).map(ReplyValue::text).collect();
                    return CommandReply { status: values[1].text(), text: words.join(" "), untagged };
                }
                other => panic!("{other:?} while waiting for {tag}"),
            }
        }
    }

    /// Makes everything that a corpus holds: folders, subscriptions, messages in their order.
    pub async fn seed(&mut self, corpus: &Corpus) {
        let namespace = self.namespace().await;
        for folder in &corpus.folders {
            let raw = namespace.raw(&folder.path);
            if !folder.path.eq_ignore_ascii_case("INBOX") {
                let reply = self.command(format!("CREATE {}", quoted(&raw)).as_bytes()).await;
                let there = reply.text.contains("ALREADYEXISTS");
                assert!(reply.status == "OK" || there, "CREATE {raw:?}: {} {}", reply.status, reply.text);
            }
            self.append(&raw, &folder.messages).await;
            if folder.subscribed {
                self.command_ok(&format!("SUBSCRIBE {}", quoted(&raw))).await;
            }
        }
    }

    /// Opens a folder (by its name as it travels) for changes.
    pub async fn select(&mut self, folder: &str) -> CommandReply {
        self.command_ok(&format!("SELECT {}", quoted(folder))).await
    }

    /// Destroys messages by UID set in a folder (by its name as it travels), and no others.
    pub async fn expunge(&mut self, folder: &str, uids: &str) {
        self.select(folder).await;
        self.command_ok(&format!("UID STORE {uids} +FLAGS.SILENT (\\Deleted)")).await;
        self.command_ok(&format!("UID EXPUNGE {uids}")).await;
    }

    /// Changes flags: `change` is `+FLAGS (\Seen)` or the like.
    pub async fn store(&mut self, folder: &str, uids: &str, change: &str) {
        self.select(folder).await;
        self.command_ok(&format!("UID STORE {uids} {change}")).await;
    }

    /// Ends the session in good order.
    pub async fn logout(mut self) {
        self.command_ok("LOGOUT").await;
    }
}

/// A string in quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap_or_else(|e| panic!("port {port}: {e}"));
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

async fn read_reply(stream: &mut (impl AsyncBufRead + Unpin)) -> Vec<ReplyValue> {
    let mut parser = ReplyParser::default();
    loop {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await.expect("read");
        assert_eq!(line.last(), Some(&b'\n'), "the server closed the connection");
        let text = line.strip_suffix(b"\r\n").unwrap_or(&line);
        let Some((start, literal)) = reply_parser::find_literal(text) else {
            parser.line(text);
            return parser.finish();
        };
        parser.line(&text[..start]);
        let mut bytes = vec![0; literal.length];
        stream.read_exact(&mut bytes).await.expect("literal");
        parser.literal(bytes);
    }
}

/// The UIDs of `[APPENDUID <uidvalidity> <set>]`, in order.
fn appended(text: &str) -> Vec<u32> {
    let Some((_, code)) = text.split_once("[APPENDUID ") else { return Vec::new() };
    let set = code.split([' ', ']']).nth(1).expect("APPENDUID set");
    let number = |text: &str| text.parse::<u32>().expect("UID");
    set.split(',')
        .flat_map(|range| match range.split_once(':') {
            Some((first, last)) => number(first)..=number(last),
            None => number(range)..=number(range),
        })
        .collect()
}
