//! A real server made lesser by a relay: it tells nobody the UIDs of what was appended, and knows no way to log in but
//! LOGIN.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use mailferry::{
    Side,
    imap::{ConnectionSecurity, Endpoint, TlsOptions},
};
use mailferry_testkit::{Dovecot, DovecotOptions, TestAccount};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::rig::endpoint;

/// The server.
pub struct Lesser {
    pub dovecot: Dovecot,
}

/// A relay to it; ends when dropped.
pub struct Relay {
    port: u16,
    written: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Lesser {
    /// Starts it.
    pub fn start() -> Self {
        Self { dovecot: Dovecot::start(&DovecotOptions { hide: vec!["UIDPLUS"], ..DovecotOptions::default() }) }
    }

    /// A relay of one's own.
    pub async fn relay(&self) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = self.dovecot.plain_port();
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut links = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                links.spawn(carry(client, server, Arc::clone(&count)));
            }
        });
        Relay { port, written, _task: task }
    }
}

impl Relay {
    /// An account, through the relay.
    pub fn endpoint(&self, account: &TestAccount<'_>) -> Endpoint {
        let mut endpoint = endpoint(Side::Destination, self.port, &account.user, &account.password);
        endpoint.tls = TlsOptions { mode: ConnectionSecurity::None, ..TlsOptions::default() };
        endpoint
    }

    /// Bytes that went to the server so far.
    pub fn written(&self) -> u64 {
        self.written.load(SeqCst)
    }
}

async fn carry(client: TcpStream, server: TcpStream, written: Arc<AtomicU64>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
            written.fetch_add(n as u64, SeqCst);
        }
        // The server sees the end as a client's end, and commits what it has.
        to_server.shutdown().await.ok();
    };
    let down = async {
        let mut lines = BufReader::new(from_server);
        let mut line = Vec::new();
        while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
            let text = String::from_utf8_lossy(&line);
            if let Some((before, rest)) = text.split_once("OK [APPENDUID ") {
                let rest = rest.split_once("] ").map_or("", |(_, rest)| rest);
                line = format!("{before}OK {rest}").into_bytes();
            } else if text.contains("CAPABILITY ") && text.contains(" AUTH=PLAIN") {
                line = text.replace(" AUTH=PLAIN", "").into_bytes();
            }
            if to_client.write_all(&line).await.is_err() {
                break;
            }
            line.clear();
        }
        to_client.shutdown().await.ok();
    };
    tokio::join!(up, down);
}
