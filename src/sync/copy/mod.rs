//! The pipeline: messages stream from ranged `FETCHes` into MULTIAPPENDs, both connections driven by one task, so that
//! neither waits for the other and memory stays bounded. A message counts as copied only after the destination's OK.

mod anomaly;
mod append;
mod early_look;
mod exclusive_append;
mod fetch;
mod memory;
mod pass;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use self::pass::{CopyPass, EarlyLook, MessageState};
pub(crate) use self::{
    anomaly::{MessageAnomaly, has_odd_date},
    exclusive_append::ExclusiveAppend,
    memory::{AppendedCopy, CopyMemory, PendingKeywords, ReadBack},
    pass::{CopyContext, PassOptions, PassOutcome, PassWork, SendMode},
};
use super::{
    connection_pair::ConnectionPair,
    limits::{BATCH_AGE, BATCH_MESSAGES, FETCH_BYTES, FETCH_MESSAGES, STOP_PATIENCE, STREAM_QUEUE},
    message_limit::max_messages,
    report::FolderReport,
    uid::SourceUid,
};
use crate::{
    error::{Error, Result, Side},
    imap::{Session, SessionEvent, UidSet},
};

/// Copies the messages of `work` once over; what is left is told, not retried.
///
/// # Errors
/// When a connection ends, or the destination refuses for a reason that is not the message's own. The checkpoint then
/// holds all that was confirmed, and both connections are of no more use.
pub(crate) async fn run_copy_pass(
    context: &CopyContext<'_>,
    work: PassWork<'_>,
    pair: &mut ConnectionPair,
    memory: &mut CopyMemory,
    report: &mut FolderReport,
) -> Result<PassOutcome> {
    let mut pass = CopyPass::new(context, work, pair, memory, report)?;
    // What was sent whole may take its time to be stored.
    pass.destination.set_patience(context.patience);
    let ended = pass.run().await;
    pass.destination.set_patience(Duration::ZERO);
    match ended {
        Ok(()) => {
            if pass.outcome.stopped {
                // What was not answered in time may be at the destination.
                pass.memory.in_doubt |= !pass.in_flight.is_empty();
                pass.record_doubted()?;
            }
            Ok(pass.outcome)
        }
        Err(error) => {
            pass.note_source_loss(&error);
            let error = if error.side == Some(Side::Source) { pass.deliver_arrived(error).await } else { error };
            pass.record_doubted()?;
            // Older doubts were settled before the copying began; a suspect is looked for before it is sent again.
            pass.memory.in_doubt = !pass.in_flight.is_empty() || has_unknown(context)?;
            pass.note_append_loss(error)
        }
    }
}

/// True when there are copies whose UID is unknown: they are found as what is in doubt is.
fn has_unknown(context: &CopyContext<'_>) -> Result<bool> {
    context.live_checkpoint.update_folder(context.source_raw, |state| !state.map.unknown_uids().is_empty())
}

/// The destination's next answer; or none once much of what is queued is written, so that more can be read and asked for.
async fn written_or_answered(destination: &mut Session, queued: usize) -> Result<Option<SessionEvent>> {
    const LOW: usize = STREAM_QUEUE / 2;
    if queued > LOW { destination.next_or_drained(LOW).await } else { destination.next().await.map(Some) }
}

impl<'a, 'b> CopyPass<'a, 'b> {
    /// A pass at its beginning, with the bodies that are at hand.
    fn new(
        context: &'a CopyContext<'a>,
        PassWork { how, messages: work, mut bodies }: PassWork<'a>,
        ConnectionPair { source, destination }: &'b mut ConnectionPair,
        memory: &'b mut CopyMemory,
        report: &'b mut FolderReport,
    ) -> Result<Self> {
        bodies.retain(|uid, body| {
            let message = work.binary_search_by_key(uid, |m| m.uid).ok().and_then(|at| work.get(at));
            message.is_some_and(|message| !memory.is_stand_in(message, body))
        });
        let batch_limit = max_messages(destination, BATCH_MESSAGES);
        let units = fetch::plan_ranges(work, max_messages(source, FETCH_MESSAGES), memory, &bodies);
        let uid_next = context.live_checkpoint.update_folder(context.source_raw, |state| state.tail_from)?;
        let mut pass = Self {
            context,
            work,
            source,
            destination,
            memory,
            report,
            outcome: PassOutcome::default(),
            states: vec![MessageState::Pending; work.len()],
            arrived: BTreeMap::new(),
            next: 0,
            units,
            requested: VecDeque::new(),
            due: 0,
            held: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_since: None,
            batch_limit,
            answered_at: None,
            in_flight: VecDeque::new(),
            early_look: EarlyLook::default(),
            uid_next: context.selected.uid_next.unwrap_or(uid_next).max(uid_next),
            stream: None,
            stream_next: None,
            discarding: false,
            stopping: false,
            stopped_at: None,
            pausing: false,
            blamed: false,
            how,
        };
        for (uid, body) in bodies {
            pass.hold_body(uid, body);
        }
        Ok(pass)
    }

    async fn run(&mut self) -> Result<()> {
        let mut tick = interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.context.stop.is_cancelled() && !self.stopping {
                self.stopping = true;
                self.stopped_at = Some(Instant::now());
                self.outcome.stopped = true;
                // What was not sent is sent by the next run.
                self.batch.clear();
                self.drop_bodies();
            }
            self.pausing |= self.must_pause();
            self.request_messages();
            self.fill_batches();
            self.look_early();
            if self.is_done() {
                return Ok(());
            }
            let wants_source = self.wants_source();
            let queued = self.destination.queued();
            let wants_destination = !self.in_flight.is_empty() || self.is_looking() || queued > 0;
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

    /// The source is gone: what it delivered before is sent all the same, so that a server which ends each connection after
    /// a few messages is copied a few messages at a time. Gives the error to go on with: the destination's, where that ends
    /// too.
    async fn deliver_arrived(&mut self, source_error: Error) -> Error {
        // Half a literal is sent: this connection can't be used for anything else.
        if self.stream.is_some() || self.pausing || self.stopping {
            return source_error;
        }
        self.requested.clear();
        self.units.clear();
        self.due = 0;
        self.stream_next = None;
        self.discarding = false;
        loop {
            self.fill_batches();
            if self.in_flight.is_empty() || self.pausing || self.context.stop.is_cancelled() {
                return source_error;
            }
            let queued = self.destination.queued();
            let answered = match written_or_answered(self.destination, queued).await {
                Ok(Some(event)) => self.on_destination(event),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                return error;
            }
        }
    }

    /// Remembers what was sent and not answered: each may be stored at any time from now on.
    fn record_doubted(&mut self) -> Result<()> {
        let sent = self.in_flight.iter().flat_map(|append| &append.messages);
        let uids: UidSet<SourceUid> = sent.filter_map(|sent| self.work.get(sent.at)).map(|m| m.uid).collect();
        if uids.is_empty() {
            return Ok(());
        }
        self.memory.doubted = true;
        self.context
            .live_checkpoint
            .update_folder(self.context.source_raw, |state| state.doubted = state.doubted.union(&uids))
    }

    /// True when others need the destination for themselves, or a server is unwell.
    fn must_pause(&self) -> bool {
        let unwell = || self.context.breakers.source.is_open() || self.context.breakers.destination.is_open();
        !self.how.probe && ((!self.how.mode.is_careful() && self.context.exclusive_append.is_wanted()) || unwell())
    }

    fn is_done(&self) -> bool {
        let drained = self.in_flight.is_empty() && self.stream.is_none() && !self.is_looking();
        if self.pausing && !self.stopping {
            let asked = self.requested.is_empty() && !self.discarding && self.stream_next.is_none();
            return drained && self.batch.is_empty() && asked;
        }
        if self.stopping {
            // What was asked for and has not come is left unread: this pair ends with the pass. What is under way is waited
            // for, but not for long: the doubt is settled by the next run.
            return drained || self.stopped_at.is_some_and(|since| since.elapsed() >= STOP_PATIENCE);
        }
        drained && self.is_all_queued()
    }

    /// True when nothing of the work is still to be fetched or put into a command.
    fn is_all_queued(&self) -> bool {
        self.next == self.work.len() && self.batch.is_empty() && self.requested.is_empty() && !self.discarding
    }

    /// Requested literals are drained, since no more is requested than fits; only a streaming one waits for its writer, and
    /// what is larger than it was listed.
    fn wants_source(&mut self) -> bool {
        if self.stream_next.is_some() || (self.stopping && self.stream.is_none()) {
            self.source.restart_reply_timer();
            return false;
        }
        if self.source.outstanding() == 0 && self.stream.is_none() {
            return false;
        }
        let full = match self.stream {
            Some(_) => self.destination.queued() > STREAM_QUEUE,
            // Messages were larger than they are listed: the writer goes first, as long as it has what to write.
            None => self.is_overfull(0) && self.has_to_write(),
        };
        if full {
            self.source.restart_reply_timer();
        }
        !full
    }

    /// True when more is held than sizes as listed let come, or would be with `more` bytes.
    fn is_overfull(&self, more: u64) -> bool {
        self.held + self.destination.queued() as u64 + more > self.context.budget + FETCH_BYTES
    }

    /// What was not sent is fetched again.
    fn drop_bodies(&mut self) {
        self.arrived.clear();
        self.held = 0;
    }

    /// The destination has something to take or to answer.
    fn has_to_write(&self) -> bool {
        let is_ready = !self.pausing && self.state(self.next) == MessageState::Arrived;
        is_ready || !self.batch.is_empty() || !self.in_flight.is_empty() || self.destination.queued() > 0
    }

    fn batch_is_old(&self) -> bool {
        self.batch_since.is_some_and(|since| since.elapsed() >= BATCH_AGE)
    }
}
