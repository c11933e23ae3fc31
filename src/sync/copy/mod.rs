//! The pipeline: messages stream from ranged `FETCHes` into MULTIAPPENDs, both connections driven by one task, so that
//! neither waits for the other and memory stays bounded. A message counts as copied only after the destination's OK.

mod append;
mod fetch;
mod oddity;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use self::oddity::Oddity;
use self::{append::InFlight, fetch::Unit, oddity::Watch};
use super::{
    breaker::{Breakers, Weight},
    ledger::Ledger,
    limits::{BATCH_AGE, BATCH_MESSAGES, STREAM_QUEUE},
    pair::Pair,
    progress::Progress,
    report::FolderReport,
    scan::{Scan, Scanned},
    suspects::Suspects,
    trouble::Trouble,
};
use crate::{
    error::{Error, Result},
    imap::{Event, Session, Tag, select::Selected},
};

/// One folder's copying: what stays the same while connections come and go.
pub struct CopyContext<'a> {
    /// Raw source name: the folder's key in the checkpoint.
    pub source_raw: &'a [u8],
    /// Raw destination name.
    pub destination_raw: &'a [u8],
    /// The destination folder as it was opened.
    pub selected: &'a Selected,
    /// Facts about the source folder.
    pub scan: &'a Scan,
    /// The checkpoint.
    pub ledger: &'a Ledger,
    /// Live counters.
    pub progress: &'a Progress,
    /// Asks to end at the next message.
    pub stop: &'a CancellationToken,
    /// Bytes that may be requested and not yet written, on this pair of connections.
    pub budget: u64,
    /// The largest message the destination takes, bytes, where it says so.
    pub append_limit: Option<u64>,
    /// The destination is known to end messages with a line end that have none.
    pub adds_newline: bool,
    /// Stop the asking while a server is unwell.
    pub breakers: &'a Breakers,
    /// Somebody tries refused messages again and wants the destination for that alone.
    pub quiet: &'a Quiet,
}

/// True when servers are known to refuse or change the message's date.
#[must_use]
pub fn has_odd_date(message: &Scanned) -> bool {
    let now = jiff::Timestamp::now().as_second();
    message.date().is_some_and(|date| oddity::odd_date(date.epoch, now))
}

/// What a folder's copying remembers across lost connections.
#[derive(Debug, Default)]
pub struct Memory {
    /// Messages that the destination refused.
    pub suspects: Suspects,
    /// Messages that turned out larger than the destination says that it takes, and their bytes.
    pub too_large: BTreeMap<u32, u64>,
    /// Copies that were sent without keywords and wait for them: UID at the destination, UID at the source, keywords.
    pub keywords_due: Vec<KeywordsDue>,
    /// Which messages the source fails to deliver.
    pub trouble: Trouble,
    /// APPENDs of several messages that were refused for no reason of the server's: one message may be to blame.
    pub refused_batches: u32,
    /// Messages that were tried to find out whether a server is well again.
    pub probes: usize,
    /// Copied messages to read back, since the destination may have changed them.
    pub read_back: Vec<ReadBack>,
    /// The source names a message's UID only after its literal.
    pub uid_comes_late: bool,
    /// The folder's messages stand in the totals.
    pub counted: bool,
    /// The folder was asked for as a whole.
    pub came_whole: bool,
    /// What was sent when the connection ended may be at the destination.
    pub in_doubt: bool,
}

impl Memory {
    /// Grows with each step towards giving a message up: such a failure is progress too.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.suspects.steps() + self.trouble.steps()
    }
}

/// A copy that was sent without its keywords.
#[derive(Debug, Clone)]
pub struct KeywordsDue {
    /// UID at the source.
    pub source_uid: u32,
    /// UID at the destination; none where it does not tell.
    pub destination_uid: Option<u32>,
    /// The keywords, as they can be sent.
    pub keywords: Vec<String>,
}

/// How a pass sends its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As fast as the destination takes them.
    Usual,
    /// Each in an APPEND of its own, many at a time.
    Single,
    /// Each alone, by synchronizing literal, one at a time: an ordinary message, to see whether the server is well.
    Control,
    /// The same for messages that were refused before.
    Trial,
    /// The same without keywords, and without a date that servers are known to refuse.
    Weakened,
}

/// How a pass is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// How messages are sent.
    pub mode: Mode,
    /// It finds out whether a server is well again, and so does not wait for that.
    pub probe: bool,
}

impl Mode {
    /// One APPEND at a time, by synchronizing literal.
    const fn is_careful(self) -> bool {
        matches!(self, Self::Control | Self::Trial | Self::Weakened)
    }

    const fn weight(self) -> Weight {
        match self {
            Self::Usual | Self::Single => Weight::Usual,
            Self::Control => Weight::Control,
            Self::Trial | Self::Weakened => Weight::Suspect,
        }
    }
}

/// Counts those who want to append alone, so that all others make a pause.
#[derive(Debug, Default)]
pub struct Quiet {
    wanted: std::sync::atomic::AtomicUsize,
    /// Held to read by a pass, to write by who appends alone.
    pub lock: tokio::sync::RwLock<()>,
}

/// While this is held, passes make a pause.
#[derive(Debug)]
pub struct QuietWanted<'a>(&'a Quiet);

impl Quiet {
    /// From now on other passes make a pause.
    pub fn want(&self) -> QuietWanted<'_> {
        self.wanted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        QuietWanted(self)
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(std::sync::atomic::Ordering::SeqCst) > 0
    }
}

impl Drop for QuietWanted<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A copied message whose copy may differ.
#[derive(Debug, Clone)]
pub struct ReadBack {
    /// UID at the source.
    pub source_uid: u32,
    /// UID at the destination.
    pub destination_uid: u32,
    /// What is unusual about it.
    pub oddity: Oddity,
}

/// What a pass left undone.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Refused or to be sent more carefully: indices into the work are UIDs here.
    pub again: BTreeSet<u32>,
    /// Asked for and not delivered, though the FETCH ended well.
    pub missing: BTreeSet<u32>,
    /// Asked for, and the FETCH was refused.
    pub failed: BTreeSet<u32>,
    /// The pass ended early because it was asked to.
    pub stopped: bool,
}

/// Where one message of the work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not here yet.
    Pending,
    /// Here, waiting for its turn.
    Arrived,
    /// Sent, or given up in this pass.
    Settled,
}

/// A large message on its way from literal to literal.
struct Stream {
    at: usize,
    tag: Option<Tag>,
    waits_for_continue: bool,
    watch: Watch,
}

/// One pass over one folder's work on one pair of connections.
struct Pass<'a, 'b> {
    context: &'a CopyContext<'a>,
    work: &'a [Scanned],
    source: &'b mut Session,
    destination: &'b mut Session,
    memory: &'b mut Memory,
    report: &'b mut FolderReport,
    outcome: Outcome,
    states: Vec<State>,
    arrived: BTreeMap<usize, Bytes>,
    /// The first message not settled.
    next: usize,
    units: VecDeque<Unit>,
    requested: VecDeque<(Tag, Unit)>,
    /// Bytes asked for and not yet received, by the scan's sizes.
    due: u64,
    /// Bytes received and not yet queued.
    held: u64,
    batch: Vec<usize>,
    batch_bytes: u64,
    batch_since: Option<Instant>,
    /// Messages in one batch at most, for now.
    batch_limit: usize,
    answered_at: Option<Instant>,
    in_flight: VecDeque<InFlight>,
    /// The destination's UIDNEXT as last known.
    uid_next: u32,
    stream: Option<Stream>,
    /// A large message whose literal has begun, and its bytes: it streams once those before it are sent.
    stream_next: Option<(usize, u64)>,
    /// Inside a literal that nobody wants.
    discarding: bool,
    stopping: bool,
    /// Nothing more is asked or sent; what is under way is waited for.
    pausing: bool,
    how: How,
}

/// Copies `work` (messages of the scan, in UID order) once over; what is left is told, not retried. `bodies` are at hand
/// already, by UID.
///
/// # Errors
/// When a connection ends, or the destination refuses for a reason that is not the message's own. The checkpoint then
/// holds all that was confirmed, and both connections are of no more use.
pub async fn copy(
    context: &CopyContext<'_>,
    how: How,
    work: &[Scanned],
    mut bodies: BTreeMap<u32, Bytes>,
    pair: &mut Pair,
    memory: &mut Memory,
    report: &mut FolderReport,
) -> Result<Outcome> {
    let Pair { source, destination } = pair;
    bodies.retain(|uid, body| {
        work.binary_search_by_key(uid, |m| m.uid)
            .ok()
            .and_then(|at| work.get(at))
            .is_some_and(|message| !fetch::is_invented(message, body))
    });
    let units = fetch::units(work, memory, &bodies);
    let uid_next = context.ledger.folder(context.source_raw, |state| state.tail_from)?;
    let mut pass = Pass {
        context,
        work,
        source,
        destination,
        memory,
        report,
        outcome: Outcome::default(),
        states: vec![State::Pending; work.len()],
        arrived: BTreeMap::new(),
        next: 0,
        units,
        requested: VecDeque::new(),
        due: 0,
        held: 0,
        batch: Vec::new(),
        batch_bytes: 0,
        batch_since: None,
        batch_limit: BATCH_MESSAGES,
        answered_at: None,
        in_flight: VecDeque::new(),
        uid_next: context.selected.uid_next.unwrap_or(uid_next).max(uid_next),
        stream: None,
        stream_next: None,
        discarding: false,
        stopping: false,
        pausing: false,
        how,
    };
    for (uid, body) in bodies {
        pass.keep(uid, body);
    }
    match pass.run().await {
        Ok(()) => Ok(pass.outcome),
        Err(error) => {
            pass.note_failure(&error);
            // Older doubts were settled before the copying began; a suspect is looked for before it is sent again.
            pass.memory.in_doubt = !pass.in_flight.is_empty() || has_unknown(context)?;
            Err(error)
        }
    }
}

/// True when there are copies whose UID is unknown: they are found as what is in doubt is.
fn has_unknown(context: &CopyContext<'_>) -> Result<bool> {
    context.ledger.folder(context.source_raw, |state| !state.map.unknown().is_empty())
}

/// The destination's next answer; or none once much of what is queued is written, so that more can be read and asked for.
async fn written_or_answered(destination: &mut Session, queued: usize) -> Result<Option<Event>> {
    const LOW: usize = STREAM_QUEUE / 2;
    if queued > LOW { destination.next_or_drained(LOW).await } else { destination.next().await.map(Some) }
}

impl Pass<'_, '_> {
    async fn run(&mut self) -> Result<()> {
        let mut tick = interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.context.stop.is_cancelled() && !self.stopping {
                self.stopping = true;
                self.outcome.stopped = true;
            }
            self.pausing |= self.must_pause();
            self.request();
            self.compose();
            if self.is_done() {
                return Ok(());
            }
            let wants_source = self.wants_source();
            let queued = self.destination.queued();
            let wants_destination = !self.in_flight.is_empty() || queued > 0;
            tokio::select! {
                event = self.source.next(), if wants_source => {
                    let event = event?;
                    self.on_source(event)?;
                }
                event = written_or_answered(self.destination, queued), if wants_destination => {
                    if let Some(event) = event? {
                        self.on_destination(event)?;
                    }
                }
                _ = tick.tick() => {
                    self.source.keep_alive();
                    self.destination.keep_alive();
                }
                () = self.context.stop.cancelled(), if !self.stopping => {}
            }
        }
    }

    /// True when others need the destination for themselves, or a server is unwell.
    fn must_pause(&self) -> bool {
        let unwell = || self.context.breakers.source.is_open() || self.context.breakers.destination.is_open();
        !self.how.probe && ((!self.how.mode.is_careful() && self.context.quiet.is_wanted()) || unwell())
    }

    fn is_done(&self) -> bool {
        let drained = self.in_flight.is_empty() && self.stream.is_none();
        if self.pausing && !self.stopping {
            let asked = self.requested.is_empty() && !self.discarding && self.stream_next.is_none();
            return drained && self.batch.is_empty() && asked;
        }
        if self.stopping {
            // What was asked for and has not come is left unread: this pair ends with the pass.
            return drained && self.batch.is_empty();
        }
        drained
            && self.next == self.work.len()
            && self.batch.is_empty()
            && self.requested.is_empty()
            && !self.discarding
    }

    /// Requested literals are always drained; only a streaming one waits for its writer.
    fn wants_source(&mut self) -> bool {
        if self.stream_next.is_some() || (self.stopping && self.stream.is_none()) {
            self.source.touch();
            return false;
        }
        if self.source.outstanding() == 0 && self.stream.is_none() {
            return false;
        }
        let full = self.stream.is_some() && self.destination.queued() > STREAM_QUEUE;
        if full {
            self.source.touch();
        }
        !full
    }

    fn batch_is_old(&self) -> bool {
        self.batch_since.is_some_and(|since| since.elapsed() >= BATCH_AGE)
    }

    fn message(&self, at: usize) -> Result<&Scanned> {
        self.work.get(at).ok_or_else(|| Error::internal("a message outside the work"))
    }

    fn state(&self, at: usize) -> State {
        self.states.get(at).copied().unwrap_or(State::Settled)
    }

    fn settle(&mut self, at: usize) {
        if let Some(state) = self.states.get_mut(at) {
            *state = State::Settled;
        }
    }
}
