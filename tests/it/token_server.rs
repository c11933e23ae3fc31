//! A token endpoint in memory (RFC 6749): it does what no real one does at a wish, and remembers what it was asked.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// The fields of a form.
pub type Form = BTreeMap<String, String>;

/// What the endpoint knows.
#[derive(Default)]
pub struct State {
    /// How long each token lasts.
    pub lifetime: Duration,
    /// When each token was given.
    issued: HashMap<String, Instant>,
    /// The only refresh token that is good.
    pub refresh_token: String,
    /// Whether each answer replaces it; one that is used again takes the grant back.
    pub rotates: bool,
    /// Nothing is given any more.
    pub revoked: bool,
    /// An answer stops in its middle.
    pub tears: bool,
    /// The next requests are answered so: status, header lines, body.
    pub refusals: Vec<(u16, &'static str, &'static str)>,
    /// What a code must be proven with (RFC 7636).
    pub challenge: String,
    /// What was asked.
    pub asked: Vec<Form>,
}

/// A running token endpoint; ends when dropped.
pub struct TokenServer {
    port: u16,
    state: Arc<Mutex<State>>,
    torn: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TokenServer {
    pub async fn start(lifetime: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { lifetime, refresh_token: "refresh-0".into(), ..State::default() }));
        let torn = Arc::new(Notify::new());
        let (shared, tearing) = (Arc::clone(&state), Arc::clone(&torn));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let (shared, tearing) = (Arc::clone(&shared), Arc::clone(&tearing));
                connections.spawn(async move { serve(socket, &shared, &tearing).await });
            }
        });
        Self { port, state, torn, task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until an answer has stopped in its middle.
    pub async fn torn(&self) {
        self.torn.notified().await;
    }

    /// Judges tokens as the mail server that trusts this endpoint does.
    pub fn judge(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let state = Arc::clone(&self.state);
        move |token| {
            let state = state.lock().unwrap();
            state.issued.get(token).is_some_and(|at| at.elapsed() < state.lifetime)
        }
    }

    /// Takes all tokens back that were given so far.
    pub fn end_tokens(state: &Arc<Mutex<State>>) {
        state.lock().unwrap().issued.clear();
    }

    pub fn shared(&self) -> Arc<Mutex<State>> {
        Arc::clone(&self.state)
    }
}

async fn serve(mut socket: TcpStream, state: &Mutex<State>, torn: &Notify) -> Option<()> {
    let mut heard = Vec::new();
    let form = loop {
        if socket.read_buf(&mut heard).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8(heard.clone()).unwrap();
        let Some((fields, body)) = text.split_once("\r\n\r\n") else { continue };
        let fields = fields.to_ascii_lowercase();
        let length = fields.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::parse::<usize>);
        if body.len() >= length.unwrap().unwrap() {
            break form(body);
        }
    };
    let (status, headers, body, tears) = {
        let mut state = state.lock().unwrap();
        let (status, headers, body) = answer(&mut state, &form);
        state.asked.push(form);
        (status, headers, body, state.tears)
    };
    let start = format!(
        "HTTP/1.1 {status} Said\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let whole = start + &body;
    if tears {
        socket.write_all(&whole.as_bytes()[..whole.len() - 3]).await.ok()?;
        torn.notify_one();
        std::future::pending::<()>().await;
    }
    socket.write_all(whole.as_bytes()).await.ok()
}

fn answer(state: &mut State, form: &Form) -> (u16, &'static str, String) {
    if !state.refusals.is_empty() {
        let (status, headers, body) = state.refusals.remove(0);
        return (status, headers, body.to_owned());
    }
    let refused = || (400, "", "{\"error\":\"invalid_grant\"}".to_owned());
    if state.revoked {
        return refused();
    }
    let number = state.asked.len() + 1;
    let mut more = String::new();
    match form["grant_type"].as_str() {
        "client_credentials" => assert!(form.contains_key("client_secret") || form.contains_key("client_assertion")),
        "refresh_token" if form["refresh_token"] != state.refresh_token => {
            state.revoked = true;
            return refused();
        }
        "refresh_token" => {
            if state.rotates {
                state.refresh_token = format!("refresh-{number}");
                more = format!(",\"refresh_token\":\"{}\"", state.refresh_token);
            }
        }
        "authorization_code" => {
            let proven = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
            if form["code"] != "the code" || proven != state.challenge {
                return refused();
            }
            more = format!(",\"refresh_token\":\"{}\"", state.refresh_token);
        }
        other => panic!("{other}"),
    }
    let token = format!("access-{number}");
    state.issued.insert(token.clone(), Instant::now());
    let lifetime = state.lifetime.as_secs();
    (200, "", format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":{lifetime}{more}}}"))
}

/// A form or a query as it is sent.
pub fn form(text: &str) -> Form {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            match first {
                b'+' => bytes.push(b' '),
                b'%' => {
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                    rest = &tail[2..];
                }
                byte => bytes.push(*byte),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (plain(key), plain(value))).collect()
}
