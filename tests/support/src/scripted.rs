//! A server that does what it is told: for everything that no well-behaved server ever does.

use std::{
    fmt,
    future::Future,
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    imap_client::ByteStream,
    pki::{TlsIdentity, pki},
    reply_parser,
};

/// One thing to do on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptStep {
    /// Send bytes; `{tag}` in them stands for the last received command's tag.
    Send(Vec<u8>),
    /// Read commands until one matches; answer those before it as a well-behaved empty server would (see
    /// [`ScriptedConnection::answer_as_usual`]). The pattern is compared without case; `*` stands for anything.
    Expect(&'static str),
    /// Greet and answer everything as a well-behaved server with these capabilities until the login is done.
    Login(&'static str),
    /// Begin TLS, with the good certificate.
    StartTls,
    /// Read and ignore everything, send nothing, for ever.
    Stall,
    /// Close the connection. The end of a script does the same.
    Close,
}

impl ScriptStep {
    /// Sends text; `{tag}` in it stands for the last received command's tag.
    #[must_use]
    pub fn send(text: &str) -> Self {
        Self::Send(text.as_bytes().to_vec())
    }
}

/// A command from the client, with its literals in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCommand {
    /// Its tag.
    pub tag: String,
    /// Everything after the tag, literals included, without the last line end.
    pub bytes: Vec<u8>,
}

impl ClientCommand {
    /// The command as text, lossy.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Whether the command is like a pattern: without case, `*` for anything.
    #[must_use]
    pub fn matches(&self, pattern: &str) -> bool {
        let text = self.text().to_ascii_uppercase();
        let pattern = pattern.to_ascii_uppercase();
        let mut rest = text.as_str();
        let mut parts = pattern.split('*').peekable();
        let Some(after) = parts.next().and_then(|first| rest.strip_prefix(first)) else { return false };
        rest = after;
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

/// One connection of a scripted server.
pub struct ScriptedConnection {
    stream: Option<BufReader<Box<dyn ByteStream>>>,
    capabilities: String,
    tag: String,
    heard: Arc<Mutex<Vec<String>>>,
    early: Arc<AtomicUsize>,
}

/// A running scripted server; ends when dropped.
pub struct ScriptedServer {
    port: u16,
    connections: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<String>>>,
    early: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl fmt::Debug for ScriptedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").field("port", &self.port).finish_non_exhaustive()
    }
}

impl ScriptedServer {
    /// Plays the first script on the first connection, the second on the second; the last one again on all others.
    /// With an identity each connection begins with TLS.
    pub async fn play(tls: Option<&TlsIdentity>, scripts: Vec<Vec<ScriptStep>>) -> Self {
        let scripts = Arc::new(scripts);
        Self::serve(tls, move |mut conn, at| {
            let scripts = Arc::clone(&scripts);
            async move { conn.play(&scripts[at.min(scripts.len() - 1)]).await }
        })
        .await
    }

    /// Hands every connection, counted from 0, to a function. An error it returns means that the client has gone.
    pub async fn serve<F, R>(tls: Option<&TlsIdentity>, function: F) -> Self
    where
        F: Fn(ScriptedConnection, usize) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::serve_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port"), tls, function)
    }

    /// The same on a port that is taken already.
    pub fn serve_on<F, R>(listener: TcpListener, tls: Option<&TlsIdentity>, function: F) -> Self
    where
        F: Fn(ScriptedConnection, usize) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        let port = listener.local_addr().expect("address").port();
        let acceptor = tls.map(|identity| TlsAcceptor::from(identity.server()));
        let connections = Arc::new(AtomicUsize::new(0));
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let early: Arc<AtomicUsize> = Arc::default();
        let (counter, log, early_log) = (Arc::clone(&connections), Arc::clone(&heard), Arc::clone(&early));
        let function = Arc::new(function);
        let task = tokio::spawn(async move {
            // The connections end with the server.
            let mut sessions = tokio::task::JoinSet::new();
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let at = counter.fetch_add(1, Ordering::SeqCst);
                let (acceptor, function, heard) = (acceptor.clone(), Arc::clone(&function), Arc::clone(&log));
                let early = Arc::clone(&early_log);
                sessions.spawn(async move {
                    let stream = begin(tcp, acceptor).await?;
                    function(ScriptedConnection::new(stream, heard, early), at).await
                });
            }
        });
        Self { port, connections, heard, early, task }
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there were so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many commands came together with the end of one whose literal had been waited for, before that was answered.
    #[must_use]
    pub fn early_commands(&self) -> usize {
        self.early.load(Ordering::SeqCst)
    }

    /// Every command received so far, over all connections, as `tag command` with literals in place.
    #[must_use]
    pub fn received_commands(&self) -> Vec<String> {
        self.heard.lock().expect("log").clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn begin(tcp: TcpStream, acceptor: Option<TlsAcceptor>) -> io::Result<Box<dyn ByteStream>> {
    tcp.set_nodelay(true)?;
    Ok(match acceptor {
        Some(acceptor) => Box::new(acceptor.accept(tcp).await?),
        None => Box::new(tcp),
    })
}

impl ScriptedConnection {
    fn new(stream: Box<dyn ByteStream>, heard: Arc<Mutex<Vec<String>>>, early: Arc<AtomicUsize>) -> Self {
        Self { stream: Some(BufReader::new(stream)), capabilities: String::new(), tag: String::new(), heard, early }
    }

    fn stream(&mut self) -> io::Result<&mut BufReader<Box<dyn ByteStream>>> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Plays a script to its end and closes.
    pub async fn play(&mut self, steps: &[ScriptStep]) -> io::Result<()> {
        for step in steps {
            match step {
                ScriptStep::Send(bytes) => {
                    let bytes = replace(bytes, b"{tag}", self.tag.as_bytes());
                    self.send(&bytes).await?;
                }
                ScriptStep::Expect(pattern) => {
                    self.expect(pattern).await?;
                }
                ScriptStep::Login(capabilities) => self.login(capabilities).await?,
                ScriptStep::StartTls => self.start_tls().await?,
                ScriptStep::Stall => self.stall().await?,
                ScriptStep::Close => return self.close().await,
            }
        }
        self.close().await
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream()?;
        stream.write_all(bytes).await?;
        stream.flush().await
    }

    /// Reads one command, with its literals; asks for those that wait to be asked for.
    pub async fn command(&mut self) -> io::Result<ClientCommand> {
        let mut bytes = Vec::new();
        let mut waited = false;
        loop {
            let mut line = Vec::new();
            self.stream()?.read_until(b'\n', &mut line).await?;
            if line.last() != Some(&b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.strip_suffix(b"\r\n").unwrap_or(&line);
            bytes.extend_from_slice(text);
            let Some((_, literal)) = reply_parser::find_literal(text) else { break };
            waited |= literal.waits;
            if literal.waits {
                self.send(b"+ go ahead\r\n").await?;
            }
            bytes.extend_from_slice(b"\r\n");
            let start = bytes.len();
            bytes.resize(start + literal.length, 0);
            self.stream()?.read_exact(&mut bytes[start..]).await?;
        }
        if waited && !self.stream()?.buffer().is_empty() {
            self.early.fetch_add(1, Ordering::SeqCst);
        }
        self.heard.lock().expect("log").push(String::from_utf8_lossy(&bytes).into_owned());
        let space = bytes.iter().position(|&b| b == b' ').unwrap_or(bytes.len());
        let rest = bytes.split_off((space + 1).min(bytes.len()));
        let tag = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        self.tag.clone_from(&tag);
        Ok(ClientCommand { tag, bytes: rest })
    }

    /// Reads one line as it is: for what is no command, such as a response to `+`.
    pub async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream()?.read_until(b'\n', &mut line).await?;
        Ok(line)
    }

    /// Reads commands until one matches (see [`ClientCommand::matches`]), and answers those before it by
    /// [`Self::answer_as_usual`].
    pub async fn expect(&mut self, pattern: &str) -> io::Result<ClientCommand> {
        loop {
            let command = self.command().await?;
            if command.matches(pattern) {
                return Ok(command);
            }
            self.answer_as_usual(&command).await?;
        }
    }

    /// Greets, and answers as a server with these capabilities until the login, which any password passes.
    pub async fn login(&mut self, capabilities: &str) -> io::Result<()> {
        let done = format!("{{tag}} OK [CAPABILITY {capabilities}] logged in\r\n");
        self.answer_login(capabilities, done.as_bytes()).await
    }

    /// The same, but the login is answered by these bytes; `{tag}` in them stands for its tag.
    pub async fn answer_login(&mut self, capabilities: &str, answer: &[u8]) -> io::Result<()> {
        capabilities.clone_into(&mut self.capabilities);
        self.send(format!("* OK [CAPABILITY {capabilities}] ready\r\n").as_bytes()).await?;
        loop {
            let command = self.command().await?;
            if command.matches("AUTHENTICATE*") {
                if command.text().split(' ').count() < 3 {
                    self.send(b"+ \r\n").await?;
                    self.line().await?;
                }
            } else if !command.matches("LOGIN *") {
                self.answer_as_usual(&command).await?;
                continue;
            }
            return self.send(&replace(answer, b"{tag}", command.tag.as_bytes())).await;
        }
    }

    /// Answers a command as a well-behaved server would whose account has nothing but an empty INBOX.
    pub async fn answer_as_usual(&mut self, command: &ClientCommand) -> io::Result<()> {
        let inbox = "* FLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft)\r\n* 0 EXISTS\r\n* 0 RECENT\r\n\
            * OK [PERMANENTFLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft \\*)] ok\r\n\
            * OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 1] ok\r\n";
        let status = "* STATUS INBOX (MESSAGES 0 RECENT 0 UIDNEXT 1 UIDVALIDITY 1 UNSEEN 0)\r\n";
        let text = command.text().to_ascii_uppercase();
        let verb = text.split(' ').next().unwrap_or_default();
        let untagged = match verb {
            "CAPABILITY" => format!("* CAPABILITY {}\r\n", self.capabilities),
            "NAMESPACE" => "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n".to_owned(),
            "ID" => "* ID NIL\r\n".to_owned(),
            "LIST" if text.ends_with("\"\" \"\"") => "* LIST (\\Noselect) \"/\" \"\"\r\n".to_owned(),
            "LIST" if text.contains("STATUS (") => format!("* LIST () \"/\" INBOX\r\n{status}"),
            "LIST" => "* LIST () \"/\" INBOX\r\n".to_owned(),
            "STATUS" => status.to_owned(),
            "SELECT" | "EXAMINE" => inbox.to_owned(),
            "LOGOUT" => "* BYE bye\r\n".to_owned(),
            _ => String::new(),
        };
        self.send(format!("{untagged}{} OK done\r\n", command.tag).as_bytes()).await
    }

    /// Turns to TLS with the good certificate.
    pub async fn start_tls(&mut self) -> io::Result<()> {
        let plain = self.stream.take().ok_or(io::ErrorKind::NotConnected)?.into_inner();
        let tls = TlsAcceptor::from(pki().good.server()).accept(plain).await?;
        self.stream = Some(BufReader::new(Box::new(tls)));
        Ok(())
    }

    /// Reads and ignores everything until the client goes.
    pub async fn stall(&mut self) -> io::Result<()> {
        let mut sink = vec![0; 1 << 16];
        while self.stream()?.read(&mut sink).await? > 0 {}
        Ok(())
    }

    /// Closes in good order.
    pub async fn close(&mut self) -> io::Result<()> {
        match self.stream.take() {
            Some(mut stream) => stream.shutdown().await,
            None => Ok(()),
        }
    }
}

fn replace(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::ClientCommand;

    #[test]
    fn patterns_match_without_case_and_a_star_is_anything() {
        let command = ClientCommand { tag: "a".to_owned(), bytes: b"UID fetch 1:* (UID BODY.PEEK[])".to_vec() };
        for (pattern, expected) in [
            ("uid fetch*", true),
            ("*BODY.PEEK[]*", true),
            ("UID*(UID*", true),
            ("UID FETCH", false),
            ("*FLAGS*", false),
            ("*", true),
        ] {
            assert_eq!(command.matches(pattern), expected, "{pattern}");
        }
    }
}
