//! A logged-in connection: commands out, responses in, matched by tag only (servers answer out of order).

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{
    capability::{Capabilities, LiteralSupport},
    certificate::Certificate,
    endpoint::Endpoint,
    permit::WritePermit,
    provider::Provider,
    refusal::{CommandKind, QuotaMeaning, refusal_class_on, refusal_error, says_not_connected},
    response::{Response, ResponseCode, StatusCondition, StatusLine, UntaggedResponse},
    server_kind::{ServerKind, detect_server_kind},
    wire::{FramedConnection, IncomingFrame},
};
use crate::error::{Error, ErrorClass, Result};

/// A server that sends, and nothing of use, has as long as so many answers may take.
const USELESS_REPLIES: u32 = 8;
/// A literal that comes more slowly than this, all in all, counts as nothing of use.
const SLOWEST_BYTES_PER_SECOND: u64 = 1024;
/// Of what comes with the answer to one small command so many responses are kept: none has more that matter.
const MAX_KEPT_RESPONSES: usize = 1000;

/// What to do where a login works and nothing is behind it.
const SHUT_OUT: &str = "The login is right, but it opens no mailbox: check that the user name is the mailbox's address, that \
    the mailbox exists and has IMAP switched on (Set-CASMailbox -ImapEnabled $true), and that whoever logs in may open it \
    (Add-MailboxPermission, with the service principal of the enterprise application's object id)";

/// The number behind the tag of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Tag(u32);

/// What came in.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// Data or an announcement.
    Untagged(UntaggedResponse),
    /// A command ended.
    Done(Tag, StatusLine),
    /// A literal too large to be held begins inside a FETCH response that is not complete yet.
    LiteralStart {
        /// Its bytes.
        length: u64,
        /// The message's UID, where the response named it before the literal.
        uid: Option<u32>,
    },
    /// The next bytes of that literal.
    LiteralChunk(Bytes),
}

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct Session {
    wire: FramedConnection,
    endpoint: Arc<Endpoint>,
    capabilities: Capabilities,
    last_tag: u32,
    outstanding: Vec<Tag>,
    /// Commands whose end is asked for later, and how those ended that did.
    deferred: Vec<(Tag, Option<StatusLine>)>,
    round_trip: Duration,
    one_by_one: bool,
    /// When the server last sent something that an answer is made of.
    useful_at: Instant,
    /// The literal that is on its way: since when, and bytes of it that came.
    literal: Option<(Instant, u64)>,
    /// The UID of the last message that the server told something of.
    last_fetched: Option<u32>,
    /// Commands that ended.
    ended: u64,
    /// How many had ended when the server last told how many messages the folder holds.
    exists_after: Option<u64>,
    patience: Duration,
    /// Facts about the connection, for people.
    pub facts: ConnectionFacts,
}

/// What was found while connecting.
#[derive(Debug, Clone, Default)]
pub struct ConnectionFacts {
    /// The server's greeting.
    pub greeting: String,
    /// `TLSv1_3`, ... ; none without TLS.
    pub tls_version: Option<String>,
    /// The server's own certificate, DER.
    pub certificate: Option<Vec<u8>>,
    /// SASL mechanisms offered before login.
    pub mechanisms: Vec<String>,
    /// How the login was done: `PLAIN`, `LOGIN`, `XOAUTH2`.
    pub login: String,
    /// Where the access token came from, and until when it is good.
    pub token_origin: Option<String>,
    /// The address that was connected to.
    pub peer: Option<std::net::SocketAddr>,
    /// The server's name and version, where it tells (RFC 2971).
    pub server: Option<String>,
    /// How the server hung up instead of greeting, if so.
    pub goodbye: Option<StatusLine>,
}

impl ConnectionFacts {
    /// The TLS version as people write it: `TLS 1.3`.
    #[must_use]
    pub(crate) fn tls(&self) -> Option<String> {
        self.tls_version.as_ref().map(|version| version.replace("TLSv", "TLS ").replace('_', "."))
    }

    /// The provider or product that this server is, as far as that is known by now.
    #[must_use]
    pub(crate) fn provider(&self, endpoint: &Endpoint) -> Option<&'static Provider> {
        let introduction = format!("{} {}", self.greeting, self.server.as_deref().unwrap_or_default());
        Provider::find(endpoint.provider, &endpoint.host, &introduction)
    }

    /// The server's own certificate; none when there was none, or it cannot be read.
    #[must_use]
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        Certificate::parse(self.certificate.as_deref()?)
    }
}

impl Session {
    pub(super) fn new(
        wire: FramedConnection,
        endpoint: Arc<Endpoint>,
        facts: ConnectionFacts,
        round_trip: Duration,
    ) -> Self {
        Self {
            wire,
            endpoint,
            capabilities: Capabilities::default(),
            last_tag: 0,
            outstanding: Vec::new(),
            deferred: Vec::new(),
            round_trip,
            one_by_one: false,
            useful_at: Instant::now(),
            literal: None,
            last_fetched: None,
            ended: 0,
            exists_after: None,
            patience: Duration::ZERO,
            facts,
        }
    }

    /// From now on nothing is written without this permit.
    pub(crate) fn require_permit(&mut self, permit: Arc<dyn WritePermit>) {
        self.wire.require_permit(permit);
    }

    pub(super) fn set_capabilities(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
    }

    /// What the server offers now.
    #[must_use]
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The account.
    #[must_use]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What kind of server this is: as configured, or else as it introduces itself.
    #[must_use]
    pub(crate) fn server_kind(&self) -> ServerKind {
        let ConnectionFacts { greeting, server, .. } = &self.facts;
        detect_server_kind(self.endpoint.known_kind(), &self.capabilities, greeting, server.as_deref())
    }

    fn quota_meaning(&self) -> QuotaMeaning {
        QuotaMeaning::on(self.endpoint.side, self.server_kind())
    }

    /// True when this server was found to refuse commands that are sent behind the opening of a folder.
    #[must_use]
    pub(crate) fn wants_one_by_one(&self) -> bool {
        self.one_by_one
    }

    /// From now on the opening of a folder is waited for before anything else is sent.
    pub(super) fn send_one_by_one(&mut self) {
        self.one_by_one = true;
    }

    /// One round trip, as measured while logging in.
    #[must_use]
    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Names the account in an error.
    #[must_use]
    pub(crate) fn with_endpoint(&self, error: Error) -> Error {
        error.on(self.endpoint.side, self.endpoint.address())
    }

    /// The error for a refusal of what `action` names.
    #[must_use]
    pub(crate) fn refusal_error(&self, line: &StatusLine, asked: CommandKind, action: &str) -> Error {
        let mut error = refusal_error(self.quota_meaning(), line, asked, action);
        if self.is_shut_out(line) {
            error.class = ErrorClass::Authorization;
            error = error.advice(SHUT_OUT);
        }
        self.with_endpoint(error)
    }

    /// True when the server took the login, and this account never opened. Later the same is said where the mailbox's own
    /// server went away.
    fn is_shut_out(&self, line: &StatusLine) -> bool {
        says_not_connected(line) && !self.endpoint.opened.is_set()
    }

    /// The class of a refusal by this account's server.
    #[must_use]
    pub(crate) fn refusal_class(&self, line: &StatusLine, asked: CommandKind) -> ErrorClass {
        if self.is_shut_out(line) {
            return ErrorClass::Authorization;
        }
        refusal_class_on(self.quota_meaning(), line, asked)
    }

    /// Begins a command that is queued in parts with [`Self::send`], the tag first.
    pub(crate) fn begin_command(&mut self) -> Tag {
        if self.outstanding.is_empty() {
            self.useful_at = Instant::now();
        }
        self.last_tag += 1;
        let tag = Tag(self.last_tag);
        self.outstanding.push(tag);
        self.wire.set_reply_due(true);
        self.wire.queue(tag.0, format!("M{} ", tag.0));
        tag
    }

    /// Queues the next bytes of a command.
    pub(crate) fn send(&mut self, tag: Tag, bytes: impl Into<Bytes>) {
        self.wire.queue(tag.0, bytes);
    }

    /// Introduces this connection (RFC 2971), if the server wants to know: some open no folder for those who did not, on each
    /// single connection (`NetEase`: `SELECT Unsafe Login`). The answer comes with that of a later command.
    pub(super) fn introduce(&mut self) {
        if self.capabilities.has("ID") {
            self.send_command(concat!("ID (\"name\" \"mailferry\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\")"));
        }
    }

    /// Queues the header of a literal of `length` bytes, `+` where the server takes it at once and `careful` does not
    /// ask to wait. The bytes themselves follow by [`Self::send`].
    pub(crate) fn send_literal_header(&mut self, tag: Tag, length: u64, careful: bool) {
        if !careful && self.capabilities.literal_support().allows_unsynchronized(length) {
            self.wire.queue(tag.0, format!("{{{length}+}}\r\n"));
        } else {
            self.wire.queue(tag.0, format!("{{{length}}}\r\n"));
            self.wire.queue_continue(tag.0);
            if self.capabilities.literal_support() == LiteralSupport::Synchronizing {
                self.wire.hold_others(tag.0);
            }
        }
    }

    /// Queues a string argument: quoted, or a literal where it cannot be quoted.
    pub(crate) fn send_string(&mut self, tag: Tag, bytes: &[u8]) {
        if let Some(quoted) = super::quote::quote_string(bytes) {
            self.send(tag, quoted);
        } else {
            self.send_literal_header(tag, bytes.len() as u64, false);
            self.send(tag, bytes.to_vec());
        }
    }

    /// Queues a whole command without arguments that need quoting.
    pub(crate) fn send_command(&mut self, text: &str) -> Tag {
        let tag = self.begin_command();
        self.send(tag, format!("{text}\r\n"));
        tag
    }

    /// Queues `verb name rest`, with the folder's raw name quoted as needed.
    pub(crate) fn send_folder_command(&mut self, verb: &str, name: &[u8], rest: &str) -> Tag {
        let tag = self.begin_command();
        self.send(tag, format!("{verb} "));
        self.send_string(tag, name);
        self.send(tag, format!("{rest}\r\n"));
        tag
    }

    /// Bytes queued and not yet written.
    #[must_use]
    pub(crate) fn queued(&self) -> usize {
        self.wire.queued()
    }

    /// Keeps the end of a command for a later [`Self::wait_all`], while others are sent and waited for.
    pub(crate) fn defer(&mut self, tag: Tag) {
        self.deferred.push((tag, None));
    }

    /// How a deferred command ended, if it did.
    fn take_deferred(&mut self, tag: Tag) -> Option<StatusLine> {
        let at = self.deferred.iter().position(|(deferred, line)| *deferred == tag && line.is_some())?;
        self.deferred.swap_remove(at).1
    }

    /// Commands without an answer so far.
    #[must_use]
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// From now on at most so many bytes may come, or the connection ends: what comes was only claimed to be little. None:
    /// as many as the server likes.
    pub(crate) fn allow_bytes(&mut self, most: Option<u64>) {
        self.wire.allow_bytes(most);
    }

    /// Reading was paused on purpose until now: the wait for the server begins anew.
    pub(crate) fn restart_reply_timer(&mut self) {
        self.useful_at = Instant::now();
        self.wire.restart_reply_timer();
    }

    /// True when the server told how many messages the selected folder holds (EXISTS) with its answer to the last command:
    /// what that command added is seen without another.
    #[must_use]
    pub(crate) fn just_told_exists(&self) -> bool {
        self.exists_after.is_some_and(|ended| ended + 1 >= self.ended)
    }

    /// How long nothing moved.
    #[must_use]
    pub(crate) fn idle(&self) -> Duration {
        Instant::now().saturating_duration_since(self.wire.progress_at())
    }

    /// The next thing that comes in, writing what is queued meanwhile. Safe to cancel.
    ///
    /// # Errors
    /// When the connection ends (BYE by its class), falls silent, or breaks the protocol; it is of no more use then.
    pub(crate) async fn next(&mut self) -> Result<SessionEvent> {
        loop {
            let incoming = self.next_frame(None).await.map_err(|error| self.with_endpoint(error))?;
            let Some(incoming) = incoming else { continue };
            if let Some(event) = self.handle_frame(incoming).map_err(|error| self.with_endpoint(error))? {
                return Ok(event);
            }
        }
    }

    /// The same, or none as soon as at most `left` bytes are queued.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn next_or_drained(&mut self, left: usize) -> Result<Option<SessionEvent>> {
        loop {
            match self.next_frame(Some(left)).await.map_err(|error| self.with_endpoint(error))? {
                None => return Ok(None),
                Some(incoming) => {
                    let event = self.handle_frame(incoming).map_err(|error| self.with_endpoint(error))?;
                    if event.is_some() {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// How long silence is borne from now on, if longer than the usual reply timeout.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
        self.wire.set_patience(patience);
    }

    /// A server that goes on sending, and nothing of use (a byte a second, `* OK` for ever), has this long.
    fn useful_limit(&self) -> Duration {
        self.patience.max(self.endpoint.timeouts.reply * USELESS_REPLIES)
    }

    fn useful_by(&self) -> Instant {
        if self.outstanding.is_empty() {
            Instant::now() + self.useful_limit()
        } else {
            // What we ourselves hold up is not the server's fault.
            self.paced_at().map_or(self.useful_at, |paced| paced.max(self.useful_at)) + self.useful_limit()
        }
    }

    /// When the pace last held the connection up.
    #[must_use]
    pub(crate) fn paced_at(&self) -> Option<Instant> {
        self.wire.paced_at()
    }

    /// What comes in next, as long as the server sends something of use.
    async fn next_frame(&mut self, left: Option<usize>) -> Result<Option<IncomingFrame>> {
        loop {
            let by = self.useful_by();
            let next = async {
                match left {
                    None => self.wire.next().await.map(Some),
                    Some(left) => self.wire.next_or_drained(left).await,
                }
            };
            let next = timeout_at(by, next).await;
            match next {
                Ok(next) => return next,
                Err(_) if self.useful_by() > Instant::now() => {}
                Err(_) => return Err(self.useless_error()),
            }
        }
    }

    fn useless_error(&self) -> Error {
        Error::network(format!("the server sent nothing of use for {} s", self.useful_limit().as_secs()))
            .advice("Mailferry reconnects and goes on; ask whoever runs the server what it is busy with")
    }

    /// Takes note of what came, if an answer is made of it.
    fn note_use(&mut self, incoming: &IncomingFrame) {
        let now = Instant::now();
        let is_useful = match incoming {
            IncomingFrame::LiteralStart { .. } => {
                self.literal = Some((now, 0));
                true
            }
            IncomingFrame::LiteralChunk(bytes) => {
                let (since, received) = self.literal.unwrap_or((now, 0));
                let received = received + bytes.len() as u64;
                self.literal = Some((since, received));
                let paced = self.paced_at().is_some_and(|paced| paced >= since);
                paced
                    || now.duration_since(since)
                        <= self.useful_limit() + Duration::from_secs(received / SLOWEST_BYTES_PER_SECOND)
            }
            IncomingFrame::Response(Response::Untagged(UntaggedResponse::Fetch(fetch))) => {
                // What comes unasked may lack the UID, and the same may be told of one message for ever.
                fetch.uid.is_some() && std::mem::replace(&mut self.last_fetched, fetch.uid) != fetch.uid
            }
            IncomingFrame::Response(Response::Untagged(data)) => !is_announcement(data),
            IncomingFrame::Response(_) => true,
        };
        if is_useful {
            self.useful_at = now;
        }
    }

    /// What a frame means; none for the end of a command that is asked for later.
    fn handle_frame(&mut self, incoming: IncomingFrame) -> Result<Option<SessionEvent>> {
        self.note_use(&incoming);
        match incoming {
            IncomingFrame::LiteralStart { length, uid } => Ok(Some(SessionEvent::LiteralStart { length, uid })),
            IncomingFrame::LiteralChunk(bytes) => Ok(Some(SessionEvent::LiteralChunk(bytes))),
            IncomingFrame::Response(Response::Untagged(untagged)) => match untagged {
                UntaggedResponse::Status(line) if line.status == StatusCondition::Bye => {
                    Err(refusal_error(self.quota_meaning(), &line, CommandKind::Other, "this connection"))
                }
                UntaggedResponse::Capability(list) => {
                    self.capabilities = list.into_iter().collect();
                    Ok(Some(SessionEvent::Untagged(UntaggedResponse::Capability(Vec::new()))))
                }
                UntaggedResponse::Id(pairs) => {
                    self.facts.server = server_name(&pairs).or(self.facts.server.take());
                    Ok(Some(SessionEvent::Untagged(UntaggedResponse::Id(pairs))))
                }
                other => {
                    if matches!(other, UntaggedResponse::Exists(_)) {
                        self.exists_after = Some(self.ended);
                    }
                    if matches!(
                        other,
                        UntaggedResponse::Exists(_) | UntaggedResponse::List(_) | UntaggedResponse::FolderStatus(_)
                    ) {
                        self.endpoint.opened.set();
                    }
                    Ok(Some(SessionEvent::Untagged(other)))
                }
            },
            IncomingFrame::Response(Response::Tagged { tag, line }) => {
                let known = tag.strip_prefix('M').and_then(|n| n.parse().ok()).map(Tag);
                // An unknown tag means that something else than our commands was executed: nothing may follow it.
                let Some(at) = known.and_then(|tag| self.outstanding.iter().position(|t| *t == tag)) else {
                    return Err(Error::protocol("the server answered a command that was never sent"));
                };
                let tag = self.outstanding.remove(at);
                self.ended += 1;
                self.wire.drop_unsent(tag.0);
                self.wire.set_reply_due(!self.outstanding.is_empty());
                if let Some(ResponseCode::Capability(list)) = &line.code {
                    self.capabilities = list.iter().cloned().collect();
                }
                if let Some(deferred) = self.deferred.iter_mut().find(|(deferred, _)| *deferred == tag) {
                    deferred.1 = Some(line);
                    return Ok(None);
                }
                Ok(Some(SessionEvent::Done(tag, line)))
            }
            IncomingFrame::Response(Response::Continue(_)) => {
                Err(Error::protocol("the server asks for more of a command that was complete"))
            }
        }
    }

    /// Waits for the end of `tag`, handing what comes before it to `data`. Streamed literals are dropped.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn wait(&mut self, tag: Tag, data: impl FnMut(UntaggedResponse)) -> Result<StatusLine> {
        let mut ended = self.wait_all(&[tag], data).await?;
        ended.pop().ok_or_else(|| Error::internal("a command ended without a status"))
    }

    /// Waits for the end of all `tags`, handing what comes meanwhile to `data`. The status lines are in the order of
    /// `tags`.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn wait_all(
        &mut self,
        tags: &[Tag],
        mut data: impl FnMut(UntaggedResponse),
    ) -> Result<Vec<StatusLine>> {
        let mut lines: Vec<Option<StatusLine>> = tags.iter().map(|tag| self.take_deferred(*tag)).collect();
        self.deferred.retain(|(tag, _)| !tags.contains(tag));
        let mut left = lines.iter().filter(|line| line.is_none()).count();
        while left > 0 {
            match self.next().await? {
                SessionEvent::Untagged(untagged) => data(untagged),
                SessionEvent::Done(tag, line) => {
                    if let Some(slot) = tags.iter().position(|t| *t == tag).and_then(|at| lines.get_mut(at)) {
                        *slot = Some(line);
                        left -= 1;
                    }
                }
                SessionEvent::LiteralStart { .. } | SessionEvent::LiteralChunk(_) => {}
            }
        }
        Ok(lines.into_iter().flatten().collect())
    }

    /// Runs one command to its end. Of the untagged responses the first [`MAX_KEPT_RESPONSES`] are kept: a server may send
    /// as many as it likes.
    ///
    /// # Errors
    /// As [`Self::next`]; a NO or BAD is no error here.
    pub(crate) async fn run(&mut self, text: &str) -> Result<(StatusLine, Vec<UntaggedResponse>)> {
        let tag = self.send_command(text);
        let mut data = Vec::new();
        let keep = |untagged| {
            if data.len() < MAX_KEPT_RESPONSES {
                data.push(untagged);
            }
        };
        let line = self.wait(tag, keep).await?;
        Ok((line, data))
    }

    /// Keeps an idle connection alive; the answer is dropped when it comes.
    pub(crate) fn keep_alive(&mut self) {
        if self.outstanding.is_empty() && self.idle() >= self.endpoint.timeouts.keepalive {
            self.send_command("NOOP");
        }
    }

    /// Says LOGOUT and leaves without waiting long for the answer.
    pub(crate) async fn logout(mut self) {
        self.send_command("LOGOUT");
        // Written, not awaited: the answer would cost a round trip and tell nothing.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.wire.flush()).await;
    }
}

/// True for what a server may say unasked, and again and again.
fn is_announcement(data: &UntaggedResponse) -> bool {
    matches!(
        data,
        UntaggedResponse::Status(_)
            | UntaggedResponse::Other(_)
            | UntaggedResponse::Capability(_)
            | UntaggedResponse::Flags(_)
            | UntaggedResponse::Exists(_)
            | UntaggedResponse::Recent(_)
    )
}

/// Name and version of a server, as its ID says.
fn server_name(pairs: &[(String, Option<String>)]) -> Option<String> {
    let told = |wanted: &str| {
        let pair = pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        pair.and_then(|(_, value)| value.clone())
    };
    match (told("name"), told("version")) {
        (Some(name), Some(version)) => Some(format!("{name} {version}")),
        (name, version) => name.or(version),
    }
}

/// Counts bytes in both directions, shared by the connections of one sync.
pub type ByteCounter = Arc<AtomicU64>;
