//! One pass over one folder's work: how it is made, what it needs, and where its messages stand.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    anomaly::{AnomalyScanner, MessageAnomaly},
    exclusive_append::ExclusiveAppend,
    memory::CopyMemory,
};
use crate::{
    error::{Error, Result},
    imap::{Session, Tag, select::SelectedFolder},
    sync::{
        circuit_breaker::{AccountBreakers, RefusalWeight},
        live_checkpoint::LiveCheckpoint,
        progress::{PassingMessage, SyncProgress},
        report::FolderReport,
        scan::{FolderScan, ScannedMessage},
        uid::SourceUid,
    },
};

/// One folder's copying: what stays the same while connections come and go.
pub(crate) struct CopyContext<'a> {
    /// Raw source name: the folder's key in the checkpoint.
    pub source_raw: &'a [u8],
    /// Raw destination name.
    pub destination_raw: &'a [u8],
    /// The destination folder as it was opened.
    pub selected: &'a SelectedFolder,
    /// Facts about the source folder.
    pub scan: &'a FolderScan,
    /// The checkpoint.
    pub live_checkpoint: &'a LiveCheckpoint,
    /// Live counters.
    pub progress: &'a SyncProgress,
    /// Asks to end at the next message.
    pub stop: &'a CancellationToken,
    /// How long an APPEND is waited for.
    pub patience: Duration,
    /// Bytes that may be requested and not yet written, on this pair of connections.
    pub budget: u64,
    /// The largest message the destination takes, bytes, where it says so.
    pub append_limit: Option<u64>,
    /// The destination is known to end messages with a line end that have none.
    pub adds_newline: bool,
    /// Stop the asking while a server is unwell.
    pub breakers: &'a AccountBreakers,
    /// Somebody tries refused messages again and wants the destination for that alone.
    pub exclusive_append: &'a ExclusiveAppend,
}

/// How a pass sends its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendMode {
    /// As fast as the destination takes them.
    Usual,
    /// Each in an APPEND of its own, many at a time.
    Single,
    /// Each alone, by synchronizing literal, one at a time: an ordinary message, to see whether the server is well. Without
    /// keywords, and without a date that servers are known to refuse: these may be what was refused.
    Control,
    /// The same for messages that were refused before.
    Trial,
    /// The same without keywords, and without a date that servers are known to refuse.
    Weakened,
}

/// How a pass is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassOptions {
    /// How messages are sent.
    pub mode: SendMode,
    /// It finds out whether a server is well again, and so does not wait for that.
    pub probe: bool,
}

impl PassOptions {
    /// Messages go without what servers are known to refuse; keywords follow alone.
    pub(super) const fn is_weakened(self) -> bool {
        self.probe || matches!(self.mode, SendMode::Control | SendMode::Weakened)
    }
}

/// What one pass copies.
pub(crate) struct PassWork<'a> {
    pub how: PassOptions,
    /// Messages of the scan, in UID order.
    pub messages: &'a [ScannedMessage],
    /// Bodies that are at hand already.
    pub bodies: BTreeMap<SourceUid, Bytes>,
}

impl SendMode {
    /// One APPEND at a time, by synchronizing literal.
    pub(super) const fn is_careful(self) -> bool {
        matches!(self, Self::Control | Self::Trial | Self::Weakened)
    }

    pub(super) const fn weight(self) -> RefusalWeight {
        match self {
            Self::Usual | Self::Single => RefusalWeight::Usual,
            Self::Control => RefusalWeight::Control,
            Self::Trial | Self::Weakened => RefusalWeight::Suspect,
        }
    }
}

/// What a pass left undone.
#[derive(Debug, Default)]
pub struct PassOutcome {
    /// Refused or to be sent more carefully: indices into the work are UIDs here.
    pub again: BTreeSet<SourceUid>,
    /// Asked for and not delivered, though the FETCH ended well.
    pub missing: BTreeSet<SourceUid>,
    /// Asked for, and the FETCH was refused.
    pub failed: BTreeSet<SourceUid>,
    /// The pass ended early because it was asked to.
    pub stopped: bool,
}

/// Where one message of the work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageState {
    /// Not here yet.
    Pending,
    /// Here, waiting for its turn.
    Arrived,
    /// Sent, or given up in this pass.
    Settled,
}

/// A large message on its way from literal to literal.
pub(super) struct LiteralStream {
    pub(super) at: usize,
    pub(super) tag: Option<Tag>,
    pub(super) waits_for_continue: bool,
    pub(super) watch: AnomalyScanner,
    pub(super) passing: PassingMessage,
}

/// The early look of one pass.
#[derive(Debug, Default)]
pub(super) enum EarlyLook {
    /// Not everything is sent.
    #[default]
    NotYet,
    /// The folder is being opened again, to be looked at by the second command.
    Opening(Tag, Tag, SelectedFolder),
    /// It is open, and the look not answered.
    Looking(Tag),
    /// Answered, or not worth it.
    Over,
}

/// One pass over one folder's work on one pair of connections.
pub(super) struct CopyPass<'a, 'b> {
    pub(super) context: &'a CopyContext<'a>,
    pub(super) work: &'a [ScannedMessage],
    pub(super) source: &'b mut Session,
    pub(super) destination: &'b mut Session,
    pub(super) memory: &'b mut CopyMemory,
    pub(super) report: &'b mut FolderReport,
    pub(super) outcome: PassOutcome,
    pub(super) states: Vec<MessageState>,
    pub(super) arrived: BTreeMap<usize, Bytes>,
    /// The first message not settled.
    pub(super) next: usize,
    pub(super) units: VecDeque<FetchRange>,
    pub(super) requested: VecDeque<(Tag, FetchRange)>,
    /// Bytes asked for and not yet received, by the scan's sizes.
    pub(super) due: u64,
    /// Bytes received and not yet queued.
    pub(super) held: u64,
    pub(super) batch: Vec<usize>,
    pub(super) batch_bytes: u64,
    pub(super) batch_since: Option<Instant>,
    /// Messages in one batch at most, for now.
    pub(super) batch_limit: usize,
    pub(super) answered_at: Option<Instant>,
    pub(super) in_flight: VecDeque<PendingAppend>,
    pub(super) early_look: EarlyLook,
    /// The destination's UIDNEXT as last known.
    pub(super) uid_next: u32,
    pub(super) stream: Option<LiteralStream>,
    /// A large message whose literal has begun, and its bytes: it streams once those before it are sent.
    pub(super) stream_next: Option<(usize, u64)>,
    /// Inside a literal that nobody wants.
    pub(super) discarding: bool,
    pub(super) stopping: bool,
    /// When it was asked to end.
    pub(super) stopped_at: Option<Instant>,
    /// Nothing more is asked or sent; what is under way is waited for.
    pub(super) pausing: bool,
    /// It is known which APPEND ends the connection, or that none does.
    pub(super) blamed: bool,
    pub(super) how: PassOptions,
}

/// An APPEND without an answer so far.
#[derive(Debug)]
pub(super) struct PendingAppend {
    pub(super) tag: Tag,
    pub(super) messages: Vec<SentMessage>,
    /// The destination's UIDNEXT as known when this was sent: whatever it adds lies at or above.
    pub(super) uid_next: u32,
    pub(super) sent_at: Instant,
}

/// One message in an APPEND.
#[derive(Debug)]
pub(super) struct SentMessage {
    pub(super) at: usize,
    pub(super) bytes: u64,
    /// What is unusual about it.
    pub(super) anomaly: MessageAnomaly,
    /// Flags that could not be sent, for the report.
    pub(super) left_flags: Vec<String>,
    /// Keywords that were left away to weaken the form: they follow by STORE.
    pub(super) keywords: Vec<String>,
    /// Why no date was sent, for the report.
    pub(super) left_date: Option<&'static str>,
    /// It was sent with CRLF for LF.
    pub(super) has_other_line_ends: bool,
}

/// A run of the work that one FETCH asks for: indices `first..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FetchRange {
    pub first: usize,
    pub end: usize,
    pub bytes: u64,
}

impl CopyPass<'_, '_> {
    pub(super) fn message(&self, at: usize) -> Result<&ScannedMessage> {
        self.work.get(at).ok_or_else(|| Error::internal("a message outside the work"))
    }

    pub(super) fn state(&self, at: usize) -> MessageState {
        self.states.get(at).copied().unwrap_or(MessageState::Settled)
    }

    pub(super) fn mark_settled(&mut self, at: usize) {
        if let Some(state) = self.states.get_mut(at) {
            *state = MessageState::Settled;
        }
    }
}
