//! Lends a [`FramedConnection`] to async-imap for the dialogue before and during login: one whole, bounded response at a time, so
//! that nothing is lost in its buffers when the wire is taken back. What was lent is remembered, since async-imap drops
//! response codes; it is handed on reduced to what async-imap needs, since its parser fails on much that servers say.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_imap::DeflateStream;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    hidden_secrets::HiddenSecrets,
    parse::parse,
    response::{Response, StatusCondition, StatusLine, UntaggedResponse},
    transport::{CompressedStream, Transport},
    wire::FramedConnection,
};
use crate::error::{Error, Result};

/// More responses than this before the login is over are not a dialogue.
const MAX_RESPONSES: usize = 200;
/// ... nor more bytes.
const MAX_BYTES: usize = 256 << 10;

/// A lent wire.
#[derive(Debug)]
pub struct LoginStream {
    wire: Option<FramedConnection>,
    current: Bytes,
    seen: Vec<Response>,
    failure: Option<Error>,
    raw: bool,
    /// Nothing has come yet.
    fresh: bool,
    hidden: HiddenSecrets,
    /// Bytes of the responses so far.
    heard: usize,
}

impl LoginStream {
    /// Lends `wire`.
    #[must_use]
    pub(crate) fn new(wire: FramedConnection) -> Self {
        Self {
            wire: Some(wire),
            current: Bytes::new(),
            seen: Vec::new(),
            failure: None,
            raw: false,
            fresh: true,
            hidden: HiddenSecrets::default(),
            heard: 0,
        }
    }

    /// Takes the wire back.
    ///
    /// # Errors
    /// Internal when it was taken before.
    pub(crate) fn take_wire(&mut self) -> Result<FramedConnection> {
        self.wire.take().ok_or_else(|| Error::internal("the connection was taken twice"))
    }

    /// From now on bytes pass through as they come: compressed ones (RFC 4978) are no responses.
    pub(crate) fn pass_through(&mut self) {
        self.raw = true;
    }

    /// The byte stream below, while the wire is lent.
    #[must_use]
    pub(crate) fn transport(&self) -> Option<&Transport> {
        self.wire.as_ref().map(FramedConnection::transport)
    }

    /// From now on these secrets are taken out of what the server says for people.
    pub(crate) fn hide(&mut self, secrets: HiddenSecrets) {
        self.hidden = secrets;
    }

    /// What ended the connection, if something did; more precise than what async-imap says.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The capabilities announced last, upper-cased.
    #[must_use]
    pub(crate) fn capabilities(&self) -> Option<Vec<String>> {
        use super::response::ResponseCode;
        self.seen.iter().rev().find_map(|response| match response {
            Response::Untagged(UntaggedResponse::Capability(list)) => Some(list.clone()),
            Response::Untagged(UntaggedResponse::Status(line)) | Response::Tagged { line, .. } => match &line.code {
                Some(ResponseCode::Capability(list)) => Some(list.clone()),
                _ => None,
            },
            _ => None,
        })
    }

    /// The last tagged status line, or untagged BYE.
    #[must_use]
    pub(crate) fn last_status(&self) -> Option<&StatusLine> {
        self.seen.iter().rev().find_map(|response| match response {
            Response::Tagged { line, .. } => Some(line),
            Response::Untagged(UntaggedResponse::Status(line)) if line.status == StatusCondition::Bye => Some(line),
            _ => None,
        })
    }

    /// What the server asked last, as it stands behind the `+`.
    #[must_use]
    pub(crate) fn last_challenge(&self) -> Option<&str> {
        self.seen.iter().rev().find_map(|response| match response {
            Response::Continue(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The greeting, while it is the only thing seen.
    #[must_use]
    pub(crate) fn greeting(&self) -> Option<&StatusLine> {
        match self.seen.first() {
            Some(Response::Untagged(UntaggedResponse::Status(line))) => Some(line),
            _ => None,
        }
    }

    /// Forgets what was seen: capabilities from before a handshake or login no longer hold.
    pub(crate) fn forget_responses(&mut self) {
        self.seen.clear();
    }
}

impl CompressedStream for DeflateStream<LoginStream> {
    fn tls(&self) -> Option<&rustls::ClientConnection> {
        self.get_ref().transport().and_then(Transport::tls)
    }
}

/// The same response without anything that a person would read, or that a parser could stumble over.
fn reduce_response(response: &Response, raw: Bytes) -> Bytes {
    let word = |line: &StatusLine| match line.status {
        StatusCondition::No => "NO",
        StatusCondition::Bad => "BAD",
        StatusCondition::Ok | StatusCondition::Bye | StatusCondition::PreAuth => "OK",
    };
    match response {
        Response::Tagged { tag, line } if tag.is_ascii() => format!("{tag} {} -\r\n", word(line)).into(),
        Response::Continue(_) if raw.is_ascii() => raw,
        Response::Continue(_) => Bytes::from_static(b"+ \r\n"),
        // A tag that is none of ours, and all that is only told.
        Response::Tagged { .. } | Response::Untagged(_) => Bytes::from_static(b"* OK -\r\n"),
    }
}

/// A wrong port is named by what answers on it.
fn refuse_other_protocol(greeting: &[u8]) -> Result<()> {
    let known: [(&[u8], &str); 5] = [
        (b"+OK", "a POP3 server"),
        (b"220", "an SMTP or FTP server"),
        (b"554", "an SMTP server"),
        (b"SSH-", "an SSH server"),
        (b"HTTP/", "a web server"),
    ];
    match known.iter().find(|(start, _)| greeting.starts_with(start)) {
        Some((_, what)) => Err(Error::configuration(format!("this is {what}, not an IMAP server"))
            .advice("Give the port of IMAP: 993 with tls.mode Implicit, 143 with StartTLS")),
        None => Ok(()),
    }
}

fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection was taken back")
}

impl AsyncRead for LoginStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.raw && this.current.is_empty() {
            return this.wire.as_mut().ok_or_else(taken)?.poll_bytes(cx, buf);
        }
        if this.current.is_empty() {
            let wire = this.wire.as_mut().ok_or_else(taken)?;
            let outcome = ready!(wire.poll_raw(cx)).and_then(|raw| {
                this.heard = this.heard.saturating_add(raw.len());
                if this.seen.len() >= MAX_RESPONSES || this.heard > MAX_BYTES {
                    return Err(Error::protocol("the server keeps talking and never answers the login"));
                }
                if std::mem::take(&mut this.fresh) {
                    refuse_other_protocol(&raw)?;
                }
                let mut response = parse(raw.clone())
                    .map_err(|e| Error::protocol(format!("the server's answer cannot be understood: {e}")))?;
                let reduced = reduce_response(&response, raw);
                this.hidden.hide_in(&mut response);
                this.seen.push(response);
                Ok(reduced)
            });
            match outcome {
                Ok(raw) => this.current = raw,
                Err(error) => {
                    let io = io::Error::other(error.to_string());
                    this.failure = Some(error);
                    return Poll::Ready(Err(io));
                }
            }
        }
        let n = this.current.len().min(buf.remaining());
        buf.put_slice(&this.current[..n]);
        this.current.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LoginStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut().wire.as_mut().ok_or_else(taken)?;
        Pin::new(wire.transport_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut().wire.as_mut().ok_or_else(taken)?;
        Pin::new(wire.transport_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut().wire.as_mut().ok_or_else(taken)?;
        Pin::new(wire.transport_mut()).poll_shutdown(cx)
    }
}
