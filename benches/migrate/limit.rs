//! What is possible at all: a copier that does nothing but copy. One ranged FETCH per folder, APPENDs of 50 messages
//! each that wait for nothing, the target folder selected; no state, no checks, no recovery.

use std::{net::Ipv4Addr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

const BATCH: usize = 50;

/// One account, as the command line gives it.
#[derive(Clone)]
pub struct Login {
    pub port: u16,
    pub user: String,
    pub password: String,
}

struct Session {
    read: BufReader<ReadHalf<TlsStream<TcpStream>>>,
    write: WriteHalf<TlsStream<TcpStream>>,
}

impl Session {
    async fn open(login: &Login, tls: &TlsConnector) -> Self {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, login.port)).await.expect("connect");
        tcp.set_nodelay(true).expect("TCP_NODELAY");
        let stream = tls.connect(ServerName::try_from("localhost").expect("name"), tcp).await.expect("TLS");
        let (read, write) = tokio::io::split(stream);
        let mut session = Self { read: BufReader::with_capacity(64 << 10, read), write };
        session.line().await;
        let response = STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
        session.send(format!("l AUTHENTICATE PLAIN {response}\r\n").as_bytes()).await;
        session.until(b"l ").await;
        session
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.expect("write");
        self.write.flush().await.expect("flush");
    }

    async fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        assert!(self.read.read_until(b'\n', &mut line).await.expect("read") > 0, "the server closed the connection");
        line
    }

    /// Reads to a tagged OK; gives the lines before it.
    async fn until(&mut self, tag: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            if let Some(rest) = line.strip_prefix(tag) {
                assert!(rest.starts_with(b"OK"), "{}", String::from_utf8_lossy(&line));
                return lines;
            }
            lines.push(line);
        }
    }

    /// The names of all folders: quoted or not, and plain in the corpora that are measured.
    async fn folders(&mut self) -> Vec<String> {
        self.send(b"a LIST \"\" *\r\n").await;
        let lines = self.until(b"a ").await;
        // `* LIST (…) "/" name`
        let name = |line: &Vec<u8>| {
            let text = String::from_utf8_lossy(line);
            text.trim_end().split_once("\"/\" ").expect("LIST").1.trim_matches('"').to_owned()
        };
        lines.iter().map(name).collect()
    }

    /// Reads and hashes every message of a folder.
    async fn hash_folder(&mut self, folder: &str) {
        let fetch = "f UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])";
        self.send(format!("e EXAMINE \"{folder}\"\r\n{fetch}\r\n").as_bytes()).await;
        let mut body = Vec::new();
        loop {
            let line = self.line().await;
            if line.starts_with(b"f ") {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            let Some((_, length)) = text.trim_end().strip_suffix('}').and_then(|text| text.rsplit_once('{')) else {
                continue;
            };
            body.resize(length.parse().expect("length"), 0);
            self.read.read_exact(&mut body).await.expect("literal");
            std::hint::black_box(Sha256::digest(&body));
        }
    }
}

/// Connects as a server's certificate by this authority allows.
fn connector(ca: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).expect("PEM")).expect("CA");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Reads and hashes every message of both sides at one time, and compares nothing.
pub async fn read(source: &Login, destination: &Login, ca: &[u8]) {
    let tls = connector(ca);
    let side = |login: Login, tls: TlsConnector| async move {
        let mut session = Session::open(&login, &tls).await;
        for folder in session.folders().await {
            session.hash_folder(&folder).await;
        }
    };
    tokio::join!(side(source.clone(), tls.clone()), side(destination.clone(), tls));
}

/// Copies every folder, with so many pairs of connections, folders taking turns.
pub async fn copy(source: &Login, destination: &Login, ca: &[u8], pairs: usize) {
    let tls = connector(ca);
    let (mut first, target) = tokio::join!(Session::open(source, &tls), Session::open(destination, &tls));
    let names = first.folders().await;
    let mut shares = vec![Vec::new(); pairs];
    names.into_iter().enumerate().for_each(|(at, name)| shares[at % pairs].push(name));
    let mut running = JoinSet::new();
    let mut ready = Some((first, target));
    for share in shares {
        let (source, destination, tls) = (source.clone(), destination.clone(), tls.clone());
        let pair = ready.take();
        running.spawn(async move {
            let (from, to) = if let Some(pair) = pair {
                pair
            } else {
                tokio::join!(Session::open(&source, &tls), Session::open(&destination, &tls))
            };
            let (sender, receiver) = mpsc::channel(4);
            tokio::join!(fetch(from, share, sender), append(to, receiver));
        });
    }
    while let Some(done) = running.join_next().await {
        done.expect("a pair of connections");
    }
}

/// Sends the commands for the destination, ready to be written.
async fn fetch(mut from: Session, folders: Vec<String>, commands: mpsc::Sender<Vec<u8>>) {
    for folder in folders {
        let create = if folder == "INBOX" { String::new() } else { format!("t CREATE \"{folder}\"\r\n") };
        commands.send(format!("{create}t SELECT \"{folder}\"\r\n").into_bytes()).await.expect("destination");
        let fetch = "f UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])";
        from.send(format!("e EXAMINE \"{folder}\"\r\n{fetch}\r\n").as_bytes()).await;
        let mut batch = Vec::new();
        let mut count = 0;
        loop {
            let line = from.line().await;
            if line.starts_with(b"f ") {
                break;
            }
            let text = String::from_utf8_lossy(&line);
            let Some((_, length)) = text.trim_end().strip_suffix('}').and_then(|text| text.rsplit_once('{')) else {
                continue;
            };
            let length: usize = length.parse().expect("length");
            let between = |start: &str, end: &str| {
                let rest = text.split_once(start).expect("item").1;
                rest.split_once(end).expect("item").0.to_owned()
            };
            let flags = between("FLAGS (", ")").replace("\\Recent", "");
            let date = between("INTERNALDATE \"", "\"");
            if count == 0 {
                batch.extend_from_slice(format!("t APPEND \"{folder}\"").as_bytes());
            }
            batch.extend_from_slice(format!(" ({}) \"{date}\" {{{length}+}}\r\n", flags.trim()).as_bytes());
            let start = batch.len();
            batch.resize(start + length, 0);
            from.read.read_exact(&mut batch[start..]).await.expect("literal");
            count += 1;
            if count == BATCH {
                batch.extend_from_slice(b"\r\n");
                commands.send(std::mem::take(&mut batch)).await.expect("destination");
                count = 0;
            }
        }
        if count > 0 {
            batch.extend_from_slice(b"\r\n");
            commands.send(batch).await.expect("destination");
        }
    }
}

/// Writes what comes and reads the answers meanwhile, never waiting for one before writing on.
async fn append(to: Session, mut commands: mpsc::Receiver<Vec<u8>>) {
    let Session { mut read, mut write } = to;
    let writer = async move {
        let mut sent = 0;
        while let Some(bytes) = commands.recv().await {
            sent += if bytes.starts_with(b"t CREATE") { 2 } else { 1 };
            write.write_all(&bytes).await.expect("write");
            write.flush().await.expect("flush");
        }
        write.write_all(b"z NOOP\r\n").await.expect("write");
        write.flush().await.expect("flush");
        sent
    };
    let reader = async move {
        let mut answered = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            assert!(read.read_until(b'\n', &mut line).await.expect("read") > 0, "the destination closed");
            if line.starts_with(b"z ") {
                return answered;
            }
            if let Some(rest) = line.strip_prefix(b"t ") {
                assert!(rest.starts_with(b"OK"), "{}", String::from_utf8_lossy(&line));
                answered += 1;
            }
        }
    };
    let (sent, answered): (usize, usize) = tokio::join!(writer, reader);
    assert_eq!(sent, answered, "commands and their answers");
}
