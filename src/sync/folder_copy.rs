//! One folder's copying: a first pass over everything, refused batches one by one, and rounds for what was refused alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::{
    sync::{RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

use super::{
    adopt::{CopyLookup, FolderStartMode, record_found_copies},
    checkpoint::{Checkpoint, FolderState},
    circuit_breaker::{BreakerAdmission, KEEP_ALIVE_INTERVAL, unwell_server_error},
    connection_pair::ConnectionPair,
    copy::{CopyContext, CopyMemory, PassOptions, PendingKeywords, SendMode, has_odd_date, run_copy_pass},
    fetch_facts::search_present_uids,
    job::{FolderSyncContext, FolderSyncJob, SyncEnd},
    report::FolderReport,
    scan::ScannedMessage,
    set_aside::{SetAsideGroup, SetAsideReason},
    spec::FlagHandling,
    store_flags::{add_keyword, add_missing_flags},
    suspects::{MANY_REFUSED, RefusalEvidence, RefusalJudgement, SuspectMessage},
    uid::SourceUid,
};
use crate::{
    error::{Error, ErrorClass, ErrorRemedy, GiveUpScope, Result, Side},
    imap::{UidSet, response::Flag},
};

/// More passes than this over one folder's work make no sense.
const MAX_PASSES: u32 = 100_000;

/// After so many batches that were refused messages go alone.
const REFUSED_BATCHES: u32 = 2;
/// Messages that find out whether a server is well again lie so far apart: many in a row may be to blame.
const PROBE_STEP: usize = 7919;

/// The copying of one folder on one pair of connections.
pub(crate) struct FolderCopy<'a> {
    /// What the folders of the mailbox share.
    pub shared: &'a FolderSyncContext,
    /// The folder.
    pub job: &'a FolderSyncJob,
    /// What the passes need.
    pub context: CopyContext<'a>,
    /// The connections.
    pub pair: &'a mut ConnectionPair,
    /// What outlives them.
    pub memory: &'a mut CopyMemory,
    /// What is told.
    pub report: &'a mut FolderReport,
    /// Messages that are neither copied nor set aside by now.
    pub work: Vec<ScannedMessage>,
    /// Messages that were set aside or vanished meanwhile.
    pub finished: UidSet<SourceUid>,
}

impl<'a> FolderCopy<'a> {
    /// Copies all of the work, or sets it aside.
    ///
    /// # Errors
    /// When a connection ends, a server is unwell for longer than it is waited for, or nothing helps but a person.
    pub(crate) async fn run(mut self, mut bodies: BTreeMap<SourceUid, Bytes>) -> Result<SyncEnd> {
        for _ in 0..MAX_PASSES {
            if self.memory.leaves_rest {
                self.leave_rest()?;
            }
            if self.first_pass(std::mem::take(&mut bodies)).await? == SyncEnd::Stopped
                || self.try_batches_singly().await? == SyncEnd::Stopped
                || self.run_rounds().await? == SyncEnd::Stopped
            {
                return Ok(SyncEnd::Stopped);
            }
            // What was kept back for the rounds is left, or nothing.
            self.memory.suspects.controls.clear();
            if self.pending().is_empty() && self.memory.suspects.is_empty() {
                self.send_keywords().await?;
                return Ok(SyncEnd::Complete);
            }
        }
        Err(Error::protocol("the servers never agree on what is left to copy"))
    }

    /// Everything that was not refused, as fast as it goes.
    async fn first_pass(&mut self, mut bodies: BTreeMap<SourceUid, Bytes>) -> Result<SyncEnd> {
        loop {
            self.give_up_unreadable()?;
            // Usually all of it: then it is moved, since it may be long.
            let pending = if self.memory.suspects.is_idle() && !self.memory.failures.any_goes_last() {
                std::mem::take(&mut self.work)
            } else {
                self.keep_controls();
                self.readable_first(self.pending())
            };
            if pending.is_empty() {
                return Ok(SyncEnd::Complete);
            }
            // Who wants to append alone gets his turn.
            tokio::task::yield_now().await;
            // Where batch after batch is refused for one of its messages, all go alone.
            let mode = if self.memory.refused_batches < REFUSED_BATCHES { SendMode::Usual } else { SendMode::Single };
            let ended = self.admitted_pass(mode, &pending, std::mem::take(&mut bodies)).await;
            if self.work.is_empty() {
                self.work = pending;
                self.drop_copied();
            }
            if ended? == SyncEnd::Stopped {
                return Ok(SyncEnd::Stopped);
            }
        }
    }

    /// What was refused only together with others: of a batch, one message may be to blame.
    async fn try_batches_singly(&mut self) -> Result<SyncEnd> {
        loop {
            if self.memory.suspects.is_empty() {
                return Ok(SyncEnd::Complete);
            }
            self.memory.suspects.retain_uids(&self.work.iter().map(|m| m.uid).collect());
            let suspects: UidSet<SourceUid> = self.memory.suspects.only_in_batches().collect();
            if suspects.is_empty() {
                return Ok(SyncEnd::Complete);
            }
            self.find_stored_suspects().await?;
            let waits = |m: &&ScannedMessage| suspects.contains(m.uid) && self.is_suspect(m);
            let work: Vec<ScannedMessage> = self.work.iter().filter(waits).copied().collect();
            let suspects = &self.memory.suspects;
            if suspects.any_alone() && suspects.most_are_ordinary() && suspects.controls.is_empty() {
                self.choose_controls(&work);
            }
            let work: Vec<ScannedMessage> = work.into_iter().filter(|m| self.is_suspect(m)).collect();
            if !work.is_empty()
                && self.admitted_pass(SendMode::Single, &work, BTreeMap::new()).await? == SyncEnd::Stopped
            {
                return Ok(SyncEnd::Stopped);
            }
            self.give_up_unreadable()?;
        }
    }

    fn is_suspect(&self, message: &ScannedMessage) -> bool {
        self.memory.suspects.contains(message.uid)
    }

    /// The work that is neither under suspicion nor kept back.
    fn pending(&self) -> Vec<ScannedMessage> {
        let suspects = &self.memory.suspects;
        let waits = |m: &&ScannedMessage| !suspects.contains(m.uid) && !suspects.controls.contains(&m.uid);
        self.work.iter().filter(waits).copied().collect()
    }

    /// What the source failed on again and again comes after all others.
    fn readable_first(&self, mut pending: Vec<ScannedMessage>) -> Vec<ScannedMessage> {
        let goes_last = |m: &ScannedMessage| self.memory.failures.goes_last(m.uid);
        if !pending.iter().all(goes_last) {
            pending.retain(|m| !goes_last(m));
        }
        pending
    }

    fn keep_controls(&mut self) {
        if self.memory.suspects.wants_controls() {
            self.choose_controls(&self.pending());
        }
    }

    fn choose_controls(&mut self, among: &[ScannedMessage]) {
        let among: Vec<(ScannedMessage, bool)> = among.iter().map(|m| (*m, self.has_keywords(m))).collect();
        self.memory.suspects.choose_controls(&among);
    }

    /// One pass over `work` once both servers are well; over one message while that is to be found out.
    async fn admitted_pass(
        &mut self,
        mode: SendMode,
        work: &[ScannedMessage],
        bodies: BTreeMap<SourceUid, Bytes>,
    ) -> Result<SyncEnd> {
        let shared = self.shared;
        if shared.breakers.destination.is_open_unrequested(shared.spec.retry.waits.without_control) {
            self.judge_without_control(work.len())?;
        }
        self.judge_source(work.len());
        // In this order, as where one appends alone: else a probe would wait for one who waits for the probe.
        let _reading = lock_shared(shared, self.pair).await?;
        let (to, from) = self.admit().await?;
        if matches!(to, BreakerAdmission::Stopped) || matches!(from, BreakerAdmission::Stopped) {
            return Ok(SyncEnd::Stopped);
        }
        let probe = !matches!((&to, &from), (BreakerAdmission::Free, BreakerAdmission::Free));
        let control = if matches!(to, BreakerAdmission::Probe(_)) { self.pick_control(0) } else { None };
        if !probe {
            return self.run_pass(PassOptions { mode, probe }, work, bodies).await;
        }
        let work = self.probes(control, work);
        self.run_pass(PassOptions { mode: SendMode::Single, probe }, &work, BTreeMap::new()).await
    }

    /// Messages that find out whether the server is well again: one where it said that it is not; where nobody knows whether
    /// messages are to blame, some from all over the folder, others each time.
    fn probes(&mut self, control: Option<ScannedMessage>, work: &[ScannedMessage]) -> Vec<ScannedMessage> {
        let count = if self.shared.breakers.destination.is_open_inconclusive() { MANY_REFUSED } else { 1 };
        let mut chosen: BTreeMap<SourceUid, ScannedMessage> = control.into_iter().map(|m| (m.uid, m)).collect();
        if count > 1 {
            // Half of them of those that were kept back, the largest first.
            let controls = &self.memory.suspects.controls;
            let mut kept: Vec<ScannedMessage> =
                self.work.iter().filter(|m| controls.contains(&m.uid)).copied().collect();
            kept.sort_by_key(|m| std::cmp::Reverse(m.size));
            chosen.extend(kept.into_iter().take(count / 2).map(|m| (m.uid, m)));
        }
        for _ in 0..count {
            self.memory.probes = self.memory.probes.wrapping_add(PROBE_STEP);
            let at = self.memory.probes % work.len().max(1);
            if chosen.len() < count
                && let Some(message) = work.get(at)
            {
                chosen.insert(message.uid, *message);
            }
        }
        chosen.into_values().collect()
    }

    /// A source that for a while delivered none of the few messages that are left may be well all the same.
    fn judge_source(&self, left: usize) {
        let source = &self.shared.breakers.source;
        if left < MANY_REFUSED && source.is_open_unrequested(self.shared.spec.retry.waits.without_control) {
            source.reset();
        }
    }

    /// Decides what the refusals mean while no ordinary message passes; `left` messages were not tried yet.
    fn judge_without_control(&mut self, left: usize) -> Result<()> {
        let suspects = &self.memory.suspects;
        let elsewhere = |since: Instant| self.shared.breakers.destination.has_accepted_since(since);
        let runs = |checkpoint: &Checkpoint| checkpoint.folders.get(&self.job.source_raw).map(|s| s.unwell_runs);
        let is_passing = suspects.is_transient();
        let accepted = if is_passing {
            // What passed before a disk was full tells nothing of now.
            let lately = Instant::now().checked_sub(self.shared.spec.retry.waits.without_control);
            lately.is_some_and(elsewhere)
        } else {
            suspects.any_accepted() || suspects.first_refusal().is_some_and(elsewhere)
        };
        let evidence = RefusalEvidence {
            is_passing,
            accepted,
            many: suspects.refused_many()
                || self.shared.breakers.destination.refused_in_a_row() as usize >= MANY_REFUSED,
            for_long: suspects.refused_for(self.shared.spec.retry.waits.without_control),
            left,
            earlier_runs: self.shared.live_checkpoint.read(runs).unwrap_or(0),
        };
        match evidence.judge() {
            RefusalJudgement::Wait => Ok(()),
            RefusalJudgement::GoOn => {
                self.memory.suspects.uncontrolled = true;
                self.shared.breakers.destination.reset();
                Ok(())
            }
            RefusalJudgement::Unwell => {
                let error = suspects.last_error().cloned();
                let error = error.unwrap_or_else(|| Error::network("the server takes no message"));
                Err(self.record_unwell_run(unwell_server_error(error)))
            }
        }
    }

    /// Remembers that this run ended because the destination took nothing of the folder.
    fn record_unwell_run(&self, error: Error) -> Error {
        if error.side == Some(Side::Destination) && error.finality != GiveUpScope::ByClass && error.retry_at.is_none() {
            self.shared.live_checkpoint.update(|checkpoint| {
                if let Some(state) = checkpoint.folders.get_mut(&self.job.source_raw) {
                    state.unwell_runs = state.unwell_runs.saturating_add(1);
                }
            });
        }
        error
    }

    /// Waits until both servers may be asked.
    async fn admit(&mut self) -> Result<(BreakerAdmission<'a>, BreakerAdmission<'a>)> {
        let FolderSyncContext { breakers, progress, stop, .. } = self.shared;
        let to = breakers
            .destination
            .wait_for_admission(self.pair, progress, stop)
            .await
            .map_err(|e| self.record_unwell_run(e))?;
        let from = breakers.source.wait_for_admission(self.pair, progress, stop).await?;
        Ok((to, from))
    }

    /// One pass, and what it leaves.
    async fn run_pass(
        &mut self,
        how: PassOptions,
        work: &[ScannedMessage],
        bodies: BTreeMap<SourceUid, Bytes>,
    ) -> Result<SyncEnd> {
        let mut left = Vec::new();
        let work = if work.iter().any(|m| self.memory.suspects.is_in_doubt(m.uid)) {
            // Never again without a look: some servers store what they refuse.
            self.find_stored_suspects().await?;
            let uids: UidSet<SourceUid> = self.work.iter().map(|m| m.uid).collect();
            left.extend(work.iter().filter(|m| uids.contains(m.uid)));
            left.as_slice()
        } else {
            work
        };
        if work.is_empty() {
            return Ok(SyncEnd::Complete);
        }
        let outcome = run_copy_pass(&self.context, how, work, bodies, self.pair, self.memory, self.report).await?;
        if outcome.stopped {
            return Ok(SyncEnd::Stopped);
        }
        self.set_aside_too_large()?;
        let missing: UidSet<SourceUid> = outcome.missing.iter().copied().collect();
        let there = if missing.is_empty() {
            missing.clone()
        } else {
            search_present_uids(&mut self.pair.source, &missing).await?
        };
        if !how.probe {
            // While a server is unwell, what it does not deliver proves nothing.
            for uid in there.iter().chain(outcome.failed) {
                self.memory.failures.record_failure_on(uid);
            }
        }
        let gone = missing.difference(&there);
        for uid in gone.iter() {
            self.memory.suspects.remove(uid);
        }
        self.finished = self.finished.union(&gone);
        self.drop_copied();
        Ok(SyncEnd::Complete)
    }

    /// Forgets what is copied by now.
    fn drop_copied(&mut self) {
        let (work, finished) = (&mut self.work, &self.finished);
        self.shared.live_checkpoint.read(|checkpoint| {
            if let Some(state) = checkpoint.folders.get(&self.job.source_raw) {
                let copied = state.map.copied();
                work.retain(|m| !copied.contains(m.uid) && !finished.contains(m.uid));
            }
        });
    }

    /// An ordinary message that was kept back: the smallest of at least `size` bytes, or else the largest.
    fn pick_control(&self, size: u32) -> Option<ScannedMessage> {
        let controls = &self.memory.suspects.controls;
        let kept = || self.work.iter().filter(|m| controls.contains(&m.uid));
        let fits = kept().filter(|m| m.size >= size).min_by_key(|m| m.size);
        fits.or_else(|| kept().max_by_key(|m| m.size)).copied()
    }

    /// What was refused alone is tried again, one at a time and beside ordinary messages, until it is accepted, proven to
    /// be refused for its own sake, or tried often enough.
    async fn run_rounds(&mut self) -> Result<SyncEnd> {
        let shared = self.shared;
        self.memory.suspects.retain_uids(&self.work.iter().map(|m| m.uid).collect());
        loop {
            self.drop_copied();
            let left = self.memory.suspects.left_in_round();
            if left.is_empty() {
                if self.memory.suspects.is_in_round() {
                    self.memory.suspects.end_round();
                    continue;
                }
                break;
            }
            if self.memory.suspects.wants_pause() {
                let waits = shared.spec.retry.waits.between_rounds;
                let round = self.memory.suspects.round.saturating_sub(1) as usize;
                let pause = waits.get(round).or(waits.last()).copied().unwrap_or_default();
                if self.pause(pause, "refused messages are tried again").await? == SyncEnd::Stopped {
                    return Ok(SyncEnd::Stopped);
                }
                self.memory.suspects.paused();
            }
            if !self.memory.suspects.round_began {
                self.find_stored_suspects().await?;
                self.memory.suspects.round_began = true;
                continue;
            }
            let quiet = shared.exclusive_append.request();
            let alone = lock_exclusive(shared, self.pair).await?;
            let ended = self.try_chunk(&left).await?;
            drop((alone, quiet));
            if ended == SyncEnd::Stopped {
                return Ok(SyncEnd::Stopped);
            }
        }
        if self.try_weakened().await? == SyncEnd::Stopped {
            return Ok(SyncEnd::Stopped);
        }
        self.find_stored_suspects().await?;
        self.decide_suspects()?;
        Ok(SyncEnd::Complete)
    }

    /// Some suspects of a round, behind a control where there is one.
    async fn try_chunk(&mut self, left: &[SourceUid]) -> Result<SyncEnd> {
        let wanted: UidSet<SourceUid> = left.iter().copied().take(self.memory.suspects.between_controls()).collect();
        let chunk: Vec<ScannedMessage> = self.work.iter().filter(|m| wanted.contains(m.uid)).copied().collect();
        let largest = chunk.iter().map(|m| m.size).max().unwrap_or(0);
        let passed = self.memory.suspects.control.filter(|control| control.left > 0);
        if passed.is_none() || self.is_any_open() {
            return self.send_control(largest, chunk.first().copied()).await;
        }
        let room = passed.map_or(0, |control| control.left);
        let chunk: Vec<ScannedMessage> = chunk.into_iter().take(room).collect();
        self.run_pass(PassOptions { mode: SendMode::Trial, probe: false }, &chunk, BTreeMap::new()).await?;
        self.give_up_untried(&chunk)?;
        Ok(if self.shared.stop.is_cancelled() { SyncEnd::Stopped } else { SyncEnd::Complete })
    }

    /// A suspect that did not come from the source was not tried: it must not hold the round up for ever.
    fn give_up_untried(&mut self, chunk: &[ScannedMessage]) -> Result<()> {
        let unreadable = chunk.iter().filter(|m| self.memory.failures.is_unreadable(m.uid)).count();
        if unreadable > 0 { self.give_up_unreadable() } else { Ok(()) }
    }

    /// Sends a control alone, once the server is well as far as it says; a refused one means that it is not, and that
    /// nothing in this round counts.
    async fn send_control(&mut self, size: u32, suspect: Option<ScannedMessage>) -> Result<SyncEnd> {
        let shared = self.shared;
        let control = self.pick_control(size);
        if control.is_none() && shared.breakers.destination.is_open() {
            self.judge_without_control(0)?;
        }
        let (to, from) = self.admit().await?;
        let probe = match (&to, &from) {
            (BreakerAdmission::Stopped, _) | (_, BreakerAdmission::Stopped) => return Ok(SyncEnd::Stopped),
            (BreakerAdmission::Free, BreakerAdmission::Free) => false,
            _ => true,
        };
        if probe && shared.breakers.destination.is_open_inconclusive() && control.is_some() {
            // One of them may well be refused for its own sake.
            let kept: Vec<ScannedMessage> =
                self.work.iter().filter(|m| self.memory.suspects.controls.contains(&m.uid)).copied().collect();
            let probes = self.probes(control, &kept);
            return self.run_pass(PassOptions { mode: SendMode::Single, probe }, &probes, BTreeMap::new()).await;
        }
        // Without a control a suspect shows whether the server is well again.
        let Some(message) = control.or(suspect.filter(|_| probe)) else {
            self.memory.suspects.continue_without_control();
            return Ok(SyncEnd::Complete);
        };
        if self.run_pass(PassOptions { mode: SendMode::Control, probe }, &[message], BTreeMap::new()).await?
            == SyncEnd::Stopped
        {
            return Ok(SyncEnd::Stopped);
        }
        if self.work.iter().any(|m| m.uid == message.uid) {
            if !self.is_suspect(&message) {
                // It was not tried, since the source did not deliver it: it is no control.
                self.memory.suspects.controls.remove(&message.uid);
                self.give_up_unreadable()?;
            } else if shared.breakers.destination.is_open() {
                self.memory.suspects.void_round();
            }
        } else {
            self.memory.suspects.record_passed_control(message.size);
        }
        Ok(SyncEnd::Complete)
    }

    /// The last try of what was refused in full: without keywords, which then follow alone, and without a date that
    /// servers are known to refuse.
    async fn try_weakened(&mut self) -> Result<SyncEnd> {
        let shared = self.shared;
        loop {
            let work: Vec<ScannedMessage> = self.work.iter().filter(|m| self.may_be_weakened(m)).copied().collect();
            let Some(first) = work.first().copied() else { return Ok(SyncEnd::Complete) };
            self.find_stored_suspects().await?;
            let work: Vec<ScannedMessage> = work.into_iter().filter(|m| self.is_suspect(m)).collect();
            let quiet = shared.exclusive_append.request();
            let alone = lock_exclusive(shared, self.pair).await?;
            let ended = if self.is_any_open() {
                let largest = work.iter().map(|m| m.size).max().unwrap_or(0);
                self.send_control(largest, Some(first)).await?
            } else {
                self.run_pass(PassOptions { mode: SendMode::Weakened, probe: false }, &work, BTreeMap::new()).await?
            };
            drop((alone, quiet));
            if ended == SyncEnd::Stopped {
                return Ok(SyncEnd::Stopped);
            }
            self.give_up_unreadable()?;
        }
    }

    /// True for a suspect whose form can be weakened and was not yet.
    fn may_be_weakened(&self, message: &ScannedMessage) -> bool {
        self.memory.suspects.get(message.uid).is_some_and(|suspect| !suspect.weakened)
            && (self.has_keywords(message) || has_odd_date(message))
    }

    /// True for a message with flags that the destination may refuse in an APPEND.
    fn has_keywords(&self, message: &ScannedMessage) -> bool {
        let selected = self.context.selected;
        let may_refuse = |flag: &Flag| matches!(flag, Flag::Keyword(_)) || !selected.keeps_flag(flag);
        self.context.scan.flags(message).iter().any(|flag| *flag != Flag::Recent && may_refuse(flag))
    }

    fn is_any_open(&self) -> bool {
        self.shared.breakers.destination.is_open() || self.shared.breakers.source.is_open()
    }

    /// Waits on purpose, with both connections kept alive.
    async fn pause(&mut self, pause: std::time::Duration, why: &str) -> Result<SyncEnd> {
        let until = Instant::now() + pause;
        let _waiting = self.shared.progress.begin_wait(why.to_owned(), pause);
        while Instant::now() < until {
            let step = (Instant::now() + KEEP_ALIVE_INTERVAL).min(until);
            tokio::select! {
                () = tokio::time::sleep_until(step) => {}
                () = self.shared.stop.cancelled() => return Ok(SyncEnd::Stopped),
            }
            self.pair.keep_alive(None).await?;
        }
        Ok(SyncEnd::Complete)
    }

    /// Looks whether what was refused was stored all the same, or what was in doubt came late.
    async fn find_stored_suspects(&mut self) -> Result<()> {
        if !self.work.iter().any(|m| self.memory.suspects.is_in_doubt(m.uid)) {
            return Ok(());
        }
        let work: Vec<ScannedMessage> = self.work.iter().filter(|m| self.is_suspect(m)).copied().collect();
        if work.is_empty() {
            return Ok(());
        }
        let (live_checkpoint, raw) = (&self.shared.live_checkpoint, &self.job.source_raw);
        let state: FolderState = live_checkpoint.update_folder(raw, |state| state.clone())?;
        let (scan, selected) = (self.context.scan, self.context.selected);
        // What was seen before the refusal tells nothing of it.
        let job = FolderSyncJob { snapshot: None, ..self.job.clone() };
        let lookup = CopyLookup {
            job: &job,
            begin: FolderStartMode::Tail,
            known: Some(&state),
            scan,
            work: &work,
            destination: selected,
            stop: &self.shared.stop,
        };
        let found = lookup.find(self.pair, self.memory).await?;
        if self.shared.spec.flag_policy == FlagHandling::SourceWins {
            self.report.flags_updated +=
                add_missing_flags(&mut self.pair.destination, selected, &found, self.report).await?;
        }
        live_checkpoint.update_folder(raw, |state| record_found_copies(state, scan, &found))?;
        for f in &found {
            if !self.memory.suspects.contains(f.source) {
                continue; // a copy whose UID was not known
            }
            self.report.adopted += 1;
            self.memory.suspects.record_found(f.source);
        }
        self.memory.suspects.clear_doubt();
        self.drop_copied();
        Ok(())
    }

    /// After the rounds: what is left was refused for its own sake, or nobody can tell; or a person must act.
    fn decide_suspects(&mut self) -> Result<()> {
        if self.memory.suspects.is_empty() {
            self.memory.suspects.take_remaining();
            return Ok(());
        }
        if self.memory.suspects.is_without_control() {
            self.judge_without_control(0)?;
        }
        let unproven =
            self.memory.suspects.iter().find(|(_, s)| {
                !self.memory.suspects.is_proven(s) && s.error.class.remedy() == ErrorRemedy::WaitForPerson
            });
        if let Some((_, suspect)) = unproven {
            return Err(Error { finality: GiveUpScope::Folder, ..suspect.error.clone() });
        }
        let proven: UidSet<SourceUid> = self
            .memory
            .suspects
            .iter()
            .filter(|(_, s)| self.memory.suspects.is_proven(s))
            .map(|(uid, _)| uid)
            .collect();
        let facts = &self.shared.try_facts(self.context.append_limit);
        let groups: Vec<SetAsideGroup> = self
            .memory
            .suspects
            .take_remaining()
            .into_iter()
            .map(|(uid, SuspectMessage { error, why, size, earlier, .. })| SetAsideGroup {
                reason: if size == 0 { SetAsideReason::Empty } else { SetAsideReason::Refused },
                class: error.class,
                why,
                proven: proven.contains(uid),
                tries: earlier.map_or(1, |earlier| earlier.tries.saturating_add(1)),
                runs: earlier.map_or(0, |earlier| earlier.runs.saturating_add(1)),
                last_try: facts.now,
                destination: facts.destination.clone(),
                rules: facts.rules,
                uids: std::iter::once(uid).collect(),
            })
            .collect();
        self.set_aside(groups)
    }

    fn set_aside(&mut self, groups: Vec<SetAsideGroup>) -> Result<()> {
        let uids = groups.iter().fold(UidSet::default(), |all, group| all.union(&group.uids));
        self.work.retain(|m| !uids.contains(m.uid));
        self.finished = self.finished.union(&uids);
        self.shared.live_checkpoint.update_folder(&self.job.source_raw, |state| {
            for group in groups {
                state.set_aside.add_group(group);
            }
        })
    }

    /// What ends the connections was narrowed down for long enough: the next run tries the rest.
    fn leave_rest(&mut self) -> Result<()> {
        self.drop_copied();
        let uids: UidSet<SourceUid> = self.work.iter().map(|m| m.uid).collect();
        self.memory.suspects.take_remaining();
        let why = "other messages of the folder ended the connections for too long; the next run tries it";
        let facts = self.shared.try_facts(self.context.append_limit);
        let group = SetAsideGroup::without_refusal(SetAsideReason::NotTried, ErrorClass::Network, why, &facts, uids);
        self.set_aside(vec![group])
    }

    /// Takes out of the work what the source failed to deliver too often.
    fn give_up_unreadable(&mut self) -> Result<()> {
        let failures = &self.memory.failures;
        let uids: UidSet<SourceUid> =
            self.work.iter().map(|m| m.uid).filter(|uid| failures.is_unreadable(*uid)).collect();
        if uids.is_empty() {
            return Ok(());
        }
        for uid in uids.iter() {
            self.memory.suspects.remove(uid);
        }
        let facts = self.shared.try_facts(self.context.append_limit);
        let mut by_reason: BTreeMap<&str, UidSet<SourceUid>> = BTreeMap::new();
        for uid in uids.iter() {
            let failed = "the source failed again and again to deliver it";
            let what = self.memory.stand_ins.get(&uid).map_or(failed, |stand_in| stand_in.what());
            by_reason.entry(what).or_default().insert(uid);
        }
        let unreadable = |(what, uids)| {
            let why = format!("{what}; every run tries it");
            SetAsideGroup::without_refusal(SetAsideReason::Unreadable, ErrorClass::Protocol, &why, &facts, uids)
        };
        self.set_aside(by_reason.into_iter().map(unreadable).collect())
    }

    /// What turned out larger than the destination says that it takes.
    fn set_aside_too_large(&mut self) -> Result<()> {
        let too_large = std::mem::take(&mut self.memory.too_large);
        if too_large.is_empty() {
            return Ok(());
        }
        for uid in too_large.keys() {
            self.memory.suspects.remove(*uid);
        }
        let why = "it is larger than the destination says that it takes (APPENDLIMIT)";
        let uids = too_large.into_keys().collect();
        let facts = self.shared.try_facts(self.context.append_limit);
        let group =
            SetAsideGroup::without_refusal(SetAsideReason::TooLarge, ErrorClass::MessageRejected, why, &facts, uids);
        self.set_aside(vec![group])
    }

    /// Keywords that were left away follow one by one; only what is refused then is a difference.
    async fn send_keywords(&mut self) -> Result<()> {
        for PendingKeywords { source_uid, destination_uid, keywords } in std::mem::take(&mut self.memory.keywords_due) {
            for keyword in keywords {
                let taken = match destination_uid {
                    Some(uid) => add_keyword(&mut self.pair.destination, uid, &keyword).await?,
                    None => Some("the destination does not tell where the message is".to_owned()),
                };
                if let Some(why) = taken {
                    let what = format!("the destination does not take the keyword {keyword}: {why}");
                    self.report.add_difference(source_uid, "flags", what);
                }
            }
        }
        Ok(())
    }
}

/// Waits until no other connection appends alone.
async fn lock_shared<'s>(shared: &'s FolderSyncContext, pair: &mut ConnectionPair) -> Result<RwLockReadGuard<'s, ()>> {
    loop {
        match tokio::time::timeout(KEEP_ALIVE_INTERVAL, shared.exclusive_append.lock.read()).await {
            Ok(guard) => return Ok(guard),
            Err(_) => pair.keep_alive(None).await?,
        }
    }
}

/// Waits until no other connection appends.
async fn lock_exclusive<'s>(
    shared: &'s FolderSyncContext,
    pair: &mut ConnectionPair,
) -> Result<RwLockWriteGuard<'s, ()>> {
    loop {
        match tokio::time::timeout(KEEP_ALIVE_INTERVAL, shared.exclusive_append.lock.write()).await {
            Ok(guard) => return Ok(guard),
            Err(_) => pair.keep_alive(None).await?,
        }
    }
}
