//! Frames responses and queues commands on one byte stream, both at once: whoever waits for a response also writes what
//! is queued, so that neither side ever waits for the other (a client that writes without reading deadlocks).
//!
//! Everything that a server sends is bounded here, before anything parses it.

use std::{
    collections::{BTreeSet, VecDeque},
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};
use tokio_util::io::poll_read_buf;

use super::{
    hidden_secrets::HiddenSecrets,
    pace::{BytePace, PacedConnection},
    parse::parse,
    permit::WritePermit,
    response::Response,
    transport::Transport,
};
use crate::error::{Error, Result};

/// A list of numbers (SEARCH, ESEARCH, VANISHED) may have at most this many bytes: one of a million UIDs fits.
const MAX_NUMBER_LIST: usize = 16 << 20;
/// Any other response may have at most this many bytes without its literals, and as many in those that are held whole.
const MAX_RESPONSE: usize = 2 << 20;
/// ... and before the login is over this many: nobody has shown yet who he is.
const MAX_RESPONSE_BEFORE_LOGIN: usize = 64 << 10;
/// Literals above this are handed on in pieces, never held whole.
pub(crate) const STREAM_ABOVE: u64 = 1 << 20;
/// No literal may be longer: beyond what any server stores as one message.
const MAX_LITERAL: u64 = 4 << 30;
/// Room made for reading at a time, bytes.
const READ_ROOM: usize = 64 << 10;
/// Each read is offered at least this much: a TLS record.
const READ_LEAST: usize = 16 << 10;
/// Small pieces are joined up to this many bytes, so that TLS records are full.
const STAGE: usize = 32 << 10;
/// Pieces of at least this many bytes are written without being joined.
const DIRECT: usize = 8 << 10;

/// A permit that is held is asked again after this long.
const PERMIT_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IncomingFrame {
    /// A complete response. A literal that was streamed before stands in it as empty.
    Response(Response),
    /// A literal of `length` bytes begins, inside a response that is not complete yet; `uid` is the message's, where the
    /// response named it before.
    LiteralStart { length: u64, uid: Option<u32> },
    /// The next bytes of that literal.
    LiteralChunk(Bytes),
}

/// A piece of a command.
#[derive(Debug)]
enum CommandPart {
    Bytes(Bytes),
    /// Send nothing more before the server's `+`.
    AwaitContinue,
}

/// Frames responses and queues commands on one byte stream.
#[derive(Debug)]
pub(crate) struct FramedConnection {
    io: Transport,
    input: BytesMut,
    /// Bytes of `input` that hold no unseen line end.
    scanned: usize,
    /// Where the current line of the response begins in `input`.
    line_start: usize,
    /// Literal bytes inside `input`, which are bounded apart from it.
    literal_bytes: usize,
    /// The beginning of a response whose literal was streamed.
    head: BytesMut,
    /// Bytes of the streamed literal still to come.
    streaming: u64,
    output: VecDeque<(u32, CommandPart)>,
    /// Commands that nothing may follow before they are answered.
    alone: BTreeSet<u32>,
    /// The command whose bytes were written last.
    writing: u32,
    stage: BytesMut,
    queued: usize,
    unflushed: bool,
    reply_timeout: Duration,
    /// Silence is borne this long instead, where that is longer.
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    progress_at: Instant,
    awaiting: bool,
    moved: Arc<std::sync::atomic::AtomicU64>,
    permit: Option<Arc<dyn WritePermit>>,
    held: Option<Pin<Box<Sleep>>>,
    pace: Option<PacedConnection>,
    /// When the pace last held it up.
    paced_at: Option<Instant>,
    hidden: HiddenSecrets,
    /// The longest response that is accepted, bytes without its literals; and these together.
    max_response: usize,
    /// So many bytes may come still, where that is bounded.
    allowance: Option<u64>,
}

impl FramedConnection {
    /// Takes over a byte stream; `moved` counts the bytes in both directions.
    #[must_use]
    pub(crate) fn new(io: Transport, reply_timeout: Duration, moved: Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self {
            io,
            input: BytesMut::with_capacity(READ_ROOM),
            scanned: 0,
            line_start: 0,
            literal_bytes: 0,
            head: BytesMut::new(),
            streaming: 0,
            output: VecDeque::new(),
            alone: BTreeSet::new(),
            writing: 0,
            stage: BytesMut::new(),
            queued: 0,
            unflushed: false,
            reply_timeout,
            patience: Duration::ZERO,
            timer: Box::pin(tokio::time::sleep(reply_timeout)),
            progress_at: Instant::now(),
            awaiting: false,
            moved,
            permit: None,
            held: None,
            pace: None,
            paced_at: None,
            hidden: HiddenSecrets::default(),
            max_response: MAX_RESPONSE_BEFORE_LOGIN,
            allowance: None,
        }
    }

    /// From now on nothing is written without this permit: a command that was begun breaks off with the connection.
    pub(crate) fn require_permit(&mut self, permit: Arc<dyn WritePermit>) {
        self.permit = Some(permit);
    }

    /// The byte stream, if nothing that was received is still unread (RFC 9051, section 6.2.1: what came before the
    /// handshake must not count after it).
    ///
    /// # Errors
    /// Protocol, when the server sent more than it should have by now.
    pub(crate) fn into_transport(self) -> Result<Transport> {
        if self.input.is_empty() && self.head.is_empty() {
            Ok(self.io)
        } else {
            Err(Error::protocol("the server sent data before the protection that was agreed on began")
                .advice("Somebody may be tampering with the connection; use implicit TLS (port 993)"))
        }
    }

    /// The byte stream below.
    #[must_use]
    pub(crate) fn transport(&self) -> &Transport {
        &self.io
    }

    /// Queues bytes of the command numbered `command`.
    pub(crate) fn queue(&mut self, command: u32, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.queued += bytes.len();
        self.output.push_back((command, CommandPart::Bytes(bytes)));
    }

    /// What the command numbered `command` queues after this is sent only after the server's `+`.
    pub(crate) fn queue_continue(&mut self, command: u32) {
        self.output.push_back((command, CommandPart::AwaitContinue));
    }

    /// What follows the command numbered `command` is sent only when that is answered: some servers that know no
    /// non-synchronizing literals write what comes behind a literal into the message (hMailServer).
    pub(crate) fn hold_others(&mut self, command: u32) {
        self.alone.insert(command);
    }

    /// True when what is next in the queue may not be sent now.
    fn must_hold(&self) -> bool {
        match self.output.front() {
            Some((_, CommandPart::AwaitContinue)) => true,
            Some((command, CommandPart::Bytes(_))) => *command != self.writing && self.alone.contains(&self.writing),
            None => false,
        }
    }

    /// Bytes queued and not yet written.
    #[must_use]
    pub(crate) fn queued(&self) -> usize {
        self.queued + self.stage.len()
    }

    /// Whether answers are due: only then is silence an error.
    pub(crate) fn set_reply_due(&mut self, awaiting: bool) {
        if awaiting && !self.awaiting {
            self.restart_reply_timer();
        }
        self.awaiting = awaiting;
    }

    /// How long silence is borne from now on, if longer than a usual answer may take: a message may take its time to be
    /// stored, and the network says by itself when the other end is gone.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    fn silence_limit(&self) -> Duration {
        self.reply_timeout.max(self.patience)
    }

    /// Reading was paused on purpose until now: the wait for the server begins anew.
    pub(crate) fn restart_reply_timer(&mut self) {
        self.progress_at = Instant::now();
    }

    /// When bytes last moved.
    #[must_use]
    pub(crate) fn progress_at(&self) -> Instant {
        self.progress_at
    }

    /// The command numbered `command` is over: what it still wanted to send behind a `+` that never came is dropped.
    /// What was announced as non-synchronizing is still sent, since the server counts on it.
    pub(crate) fn drop_unsent(&mut self, command: u32) {
        self.alone.remove(&command);
        if matches!(self.output.front(), Some((number, CommandPart::AwaitContinue)) if *number == command) {
            while let Some((number, piece)) = self.output.pop_front() {
                if number == command {
                    if let CommandPart::Bytes(bytes) = piece {
                        self.queued -= bytes.len();
                    }
                } else {
                    self.output.push_front((number, piece));
                    break;
                }
            }
        }
    }

    /// The next thing that comes in, writing what is queued meanwhile. Safe to cancel.
    ///
    /// # Errors
    /// Network when the connection ends or falls silent, Protocol when bounds are broken or nothing can be understood.
    pub(crate) async fn next(&mut self) -> Result<IncomingFrame> {
        loop {
            if let Some(incoming) = poll_fn(|cx| self.poll_next(cx, None)).await? {
                return Ok(incoming);
            }
        }
    }

    /// The same, or none as soon as at most `left` bytes are queued: for a writer that was told to wait.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn next_or_drained(&mut self, left: usize) -> Result<Option<IncomingFrame>> {
        poll_fn(|cx| self.poll_next(cx, Some(left))).await
    }

    /// Writes until at most `left` bytes are queued. Reads nothing, so the caller must know that nothing large is due.
    ///
    /// # Errors
    /// Network when the connection ends or falls silent.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| {
            ready!(self.poll_write(cx))?;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Bytes as they come, without framing: for a layer below another wire.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.input.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.input.len().min(buf.remaining());
        buf.put_slice(&self.input.split_to(n));
        Poll::Ready(Ok(()))
    }

    /// The raw bytes of the next response; used while async-imap runs the dialogue.
    pub(super) fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        loop {
            if let Some(framed) = self.frame()? {
                match framed {
                    RawFrame::Response(raw) => return Poll::Ready(Ok(raw)),
                    RawFrame::LiteralStart(_) | RawFrame::LiteralChunk(_) => {
                        return Poll::Ready(Err(Error::protocol("a large literal where there must be none")));
                    }
                }
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// From now on bytes move within this budget.
    pub(super) fn set_pace(&mut self, pace: Option<Arc<BytePace>>) {
        self.pace = pace.map(PacedConnection::new);
    }

    /// When the pace last held the connection up: what took long until then is not the server's fault.
    #[must_use]
    pub(crate) const fn paced_at(&self) -> Option<Instant> {
        self.paced_at
    }

    /// Ready when the pace lets more bytes move.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pace) = self.pace.as_mut().filter(|pace| pace.is_held()) else { return Poll::Ready(()) };
        // The server is not to blame for this silence.
        self.progress_at = Instant::now();
        self.paced_at = Some(self.progress_at);
        pace.poll_ready(cx)
    }

    /// The most bytes that may move in one step.
    fn step(&self) -> usize {
        self.pace.as_ref().map_or(usize::MAX, PacedConnection::step)
    }

    /// Bytes moved, in either direction.
    fn count_moved(&mut self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Relaxed);
        self.progress_at = Instant::now();
        if let Some(pace) = &mut self.pace {
            pace.take(bytes);
        }
    }

    /// The login is over: what is answered now may be long.
    pub(super) fn accept_long_responses(&mut self) {
        self.max_response = MAX_RESPONSE;
    }

    /// From now on at most so many bytes may come; none: as many as the server likes.
    pub(super) fn allow_bytes(&mut self, most: Option<u64>) {
        self.allowance = most;
    }

    /// From now on these secrets are taken out of what the server says for people.
    pub(super) fn hide(&mut self, secrets: HiddenSecrets) {
        self.hidden = secrets;
    }

    pub(super) fn transport_mut(&mut self) -> &mut Transport {
        &mut self.io
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, left: Option<usize>) -> Poll<Result<Option<IncomingFrame>>> {
        loop {
            if let Some(framed) = self.frame()? {
                let incoming = match framed {
                    RawFrame::Response(raw) => {
                        let mut response = parse_guarded(raw)?;
                        self.hidden.hide_in(&mut response);
                        IncomingFrame::Response(response)
                    }
                    RawFrame::LiteralStart(length) => {
                        IncomingFrame::LiteralStart { length, uid: uid_so_far(&self.head) }
                    }
                    RawFrame::LiteralChunk(bytes) => IncomingFrame::LiteralChunk(bytes),
                };
                if let IncomingFrame::Response(Response::Continue(_)) = incoming
                    && matches!(self.output.front(), Some((_, CommandPart::AwaitContinue)))
                {
                    self.output.pop_front();
                    continue;
                }
                // What is queued goes out even while much comes in.
                let _ = self.poll_write(cx)?;
                return Poll::Ready(Ok(Some(incoming)));
            }
            let _ = self.poll_write(cx)?;
            if left.is_some_and(|left| self.queued() <= left) {
                return Poll::Ready(Ok(None));
            }
            match self.poll_fill(cx)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    ready!(self.poll_timeout(cx));
                    return Poll::Ready(Err(self.silence()));
                }
            }
        }
    }

    /// Ready when an answer is due and nothing moved for too long.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.awaiting && self.queued() == 0 {
            return Poll::Pending;
        }
        loop {
            let due = self.progress_at + self.silence_limit();
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= self.progress_at + self.silence_limit() {
                return Poll::Ready(());
            }
        }
    }

    fn silence(&self) -> Error {
        Error::network(format!("the server was silent for {} s", self.silence_limit().as_secs()))
            .advice("Mailferry reconnects and goes on; raise timeouts.reply if the server is just slow")
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.input.capacity() - self.input.len() < READ_LEAST {
            self.input.reserve(READ_ROOM);
        }
        ready!(self.poll_pace(cx));
        let step = self.step();
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut (&mut self.input).limit(step)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err(closed())),
            Poll::Ready(Ok(n)) => {
                self.count_moved(n);
                if let Some(left) = &mut self.allowance {
                    match left.checked_sub(n as u64) {
                        Some(rest) => *left = rest,
                        None => {
                            return Poll::Ready(Err(Error::protocol("the server sends more than it said there is")));
                        }
                    }
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(&error))),
        }
    }

    /// Ready when writing is allowed, or refused for good.
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(permit) = &self.permit else { return Poll::Ready(Ok(())) };
        loop {
            permit.check()?;
            if !permit.is_suspended() {
                self.held = None;
                return Poll::Ready(Ok(()));
            }
            // The server is not to blame for this silence.
            self.progress_at = Instant::now();
            let timer = self.held.get_or_insert_with(|| Box::pin(tokio::time::sleep(PERMIT_POLL_INTERVAL)));
            ready!(timer.as_mut().poll(cx));
            self.held = None;
        }
    }

    /// Ready when nothing (that may be sent now) is left to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            while self.stage.len() < STAGE && !self.must_hold() {
                match self.output.front() {
                    Some((command, CommandPart::Bytes(bytes))) if bytes.len() < DIRECT => {
                        self.writing = *command;
                        self.queued -= bytes.len();
                        self.stage.extend_from_slice(bytes);
                        self.output.pop_front();
                    }
                    _ => break,
                }
            }
            if !self.stage.is_empty() || self.queued > 0 {
                ready!(self.poll_permit(cx))?;
                ready!(self.poll_pace(cx));
            }
            let step = self.step();
            let written = if self.stage.is_empty() {
                let held = self.must_hold();
                match self.output.front_mut() {
                    Some((command, CommandPart::Bytes(bytes))) if !held => {
                        self.writing = *command;
                        let piece = bytes.get(..step).unwrap_or(bytes.as_ref());
                        let n = ready!(Pin::new(&mut self.io).poll_write(cx, piece)).map_err(|e| lost(&e))?;
                        bytes.advance(n);
                        self.queued -= n;
                        if bytes.is_empty() {
                            self.output.pop_front();
                        }
                        n
                    }
                    _ => {
                        if self.unflushed {
                            ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(|e| lost(&e))?;
                            self.unflushed = false;
                        }
                        return Poll::Ready(Ok(()));
                    }
                }
            } else {
                let piece = self.stage.get(..step).unwrap_or(self.stage.as_ref());
                let n = ready!(Pin::new(&mut self.io).poll_write(cx, piece)).map_err(|e| lost(&e))?;
                self.stage.advance(n);
                n
            };
            if written == 0 {
                return Poll::Ready(Err(closed()));
            }
            self.unflushed = true;
            self.count_moved(written);
        }
    }

    /// Takes the next complete thing out of what was read.
    fn frame(&mut self) -> Result<Option<RawFrame>> {
        if self.streaming > 0 {
            if self.input.is_empty() {
                return Ok(None);
            }
            let n = usize::try_from(self.streaming).unwrap_or(usize::MAX).min(self.input.len());
            self.streaming -= n as u64;
            return Ok(Some(RawFrame::LiteralChunk(self.input.split_to(n).freeze())));
        }
        loop {
            let Some(unseen) = self.input.get(self.scanned..) else {
                return Ok(None); // inside a literal that has not arrived
            };
            let Some(newline) = memchr::memchr(b'\n', unseen).map(|at| at + self.scanned) else {
                self.scanned = self.input.len();
                self.check_length()?;
                return Ok(None);
            };
            let line_end = newline + 1;
            let literal = if self.may_hold_literals() {
                literal_length(self.input.get(self.line_start..line_end).unwrap_or_default())?
            } else {
                None
            };
            match literal {
                None => {
                    let rest = self.input.split_to(line_end);
                    self.scanned = 0;
                    self.line_start = 0;
                    self.literal_bytes = 0;
                    let raw = if self.head.is_empty() {
                        rest.freeze()
                    } else {
                        self.head.extend_from_slice(&rest);
                        std::mem::take(&mut self.head).freeze()
                    };
                    if raw.iter().all(u8::is_ascii_whitespace) {
                        continue; // a blank line means nothing
                    }
                    return Ok(Some(RawFrame::Response(raw)));
                }
                Some((length, marker)) if length > STREAM_ABOVE => {
                    let mut line = self.input.split_to(line_end);
                    line.truncate(self.line_start + marker);
                    self.head.extend_from_slice(&line);
                    self.head.extend_from_slice(b"{0}\r\n");
                    self.streaming = length;
                    self.scanned = 0;
                    self.line_start = 0;
                    self.check_length()?;
                    return Ok(Some(RawFrame::LiteralStart(length)));
                }
                Some((length, _)) => {
                    let length = usize::try_from(length).map_err(|_| too_long(STREAM_ABOVE))?;
                    self.literal_bytes += length;
                    self.line_start = line_end + length;
                    self.scanned = self.line_start;
                    self.check_length()?;
                    if self.input.len() < self.scanned {
                        let missing = self.scanned - self.input.len();
                        self.input.reserve(missing + READ_ROOM);
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn check_length(&self) -> Result<()> {
        let own = (self.head.len() + self.input.len()).saturating_sub(self.literal_bytes);
        // A response may also hold many small literals; together they are bounded as well.
        if self.literal_bytes > self.max_response {
            return Err(too_long(self.max_response as u64));
        }
        let most = if own > self.max_response && self.is_number_list() { MAX_NUMBER_LIST } else { self.max_response };
        if own > most { Err(too_long(most as u64)) } else { Ok(()) }
    }

    /// True for a response that is one list of numbers, once the login is over.
    fn is_number_list(&self) -> bool {
        let word = self.input.strip_prefix(b"* ").and_then(|rest| rest.split(u8::is_ascii_whitespace).next());
        self.max_response == MAX_RESPONSE
            && self.head.is_empty()
            && word.is_some_and(|word| {
                ["SEARCH", "ESEARCH", "VANISHED"].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
            })
    }

    /// Only untagged data holds literals: the text of a status response may end in what looks like one.
    fn may_hold_literals(&self) -> bool {
        let start: &[u8] = if self.head.is_empty() { &self.input } else { &self.head };
        let Some(rest) = start.strip_prefix(b"* ") else { return false };
        let word = rest.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        !["OK", "NO", "BAD", "BYE", "PREAUTH"].iter().any(|status| word.eq_ignore_ascii_case(status.as_bytes()))
    }
}

enum RawFrame {
    Response(Bytes),
    LiteralStart(u64),
    LiteralChunk(Bytes),
}

/// The length that a line announces by `{n}` or `{n+}` at its end, and where in the line the marker begins.
fn literal_length(line: &[u8]) -> Result<Option<(u64, usize)>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(inner) = line.strip_suffix(b"}") else { return Ok(None) };
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let digits = inner.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let Some(open) = inner.len().checked_sub(digits + 1) else { return Ok(None) };
    if digits == 0 || inner.get(open) != Some(&b'{') {
        return Ok(None);
    }
    let number = inner.get(open + 1..).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| d.parse::<u64>().ok());
    match number {
        Some(length) if length <= MAX_LITERAL => Ok(Some((length, open))),
        _ => Err(too_long(MAX_LITERAL)),
    }
}

/// The UID in the beginning of a FETCH response, if it came before everything else: `* 12 FETCH (UID 345 BODY[] {0}`.
fn uid_so_far(head: &[u8]) -> Option<u32> {
    let head = std::str::from_utf8(head).ok()?;
    let mut words = head.split_ascii_whitespace();
    words.nth(3).filter(|word| word.eq_ignore_ascii_case("(UID"))?;
    words.next()?.parse().ok()
}

/// A parser's panic ends one connection, never the process.
fn parse_guarded(raw: Bytes) -> Result<Response> {
    match catch_unwind(AssertUnwindSafe(|| parse(raw))) {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(Error::protocol(format!("the server's answer cannot be understood: {error}"))),
        Err(_) => Err(Error::protocol("the server's answer could not be read")),
    }
}

fn too_long(most: u64) -> Error {
    Error::protocol(format!("the server's answer has more than {most} bytes, longer than any sensible answer"))
}

fn closed() -> Error {
    Error::network("the server closed the connection")
}

fn lost(error: &std::io::Error) -> Error {
    Error::network(format!("the connection was lost: {error}"))
}

#[cfg(test)]
mod tests;
