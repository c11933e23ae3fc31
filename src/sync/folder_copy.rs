//! One folder's copying: a first pass over everything, refused batches one by one, and rounds for what was refused alone.

mod doubt;
mod give_up;
mod rounds;

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::{
    sync::{RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

use super::{
    checkpoint::Checkpoint,
    circuit_breaker::{BreakerAdmission, KEEP_ALIVE_INTERVAL, unwell_server_error},
    connection_pair::ConnectionPair,
    copy::{CopyContext, CopyMemory, PassOptions, PassWork, PendingKeywords, SendMode, run_copy_pass},
    fetch_facts::search_present_uids,
    job::{FolderSyncContext, FolderSyncJob, SyncEnd},
    refusal_evidence::{RefusalEvidence, RefusalJudgement},
    report::FolderReport,
    scan::ScannedMessage,
    store_flags::add_keyword,
    suspects::MANY_REFUSED,
    uid::SourceUid,
};
use crate::{
    error::{Error, GiveUpScope, Result, Side},
    imap::{UidSet, refusal::is_about_line_ends},
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
    /// The destination's UIDNEXT when two looks agreed on what is there, if anything was in doubt.
    pub seen: Option<u32>,
}

impl<'a> FolderCopy<'a> {
    /// Copies all of the work, or sets it aside.
    ///
    /// # Errors
    /// When a connection ends, a server is unwell for longer than it is waited for, or nothing helps but a person.
    pub(crate) async fn run(mut self, mut bodies: BTreeMap<SourceUid, Bytes>) -> Result<SyncEnd> {
        if self.send_one_alone().await? == SyncEnd::Stopped {
            return Ok(SyncEnd::Stopped);
        }
        for _ in 0..MAX_PASSES {
            if self.memory.leaves_rest {
                self.leave_rest()?;
            }
            if self.first_pass(std::mem::take(&mut bodies)).await? == SyncEnd::Stopped
                || self.try_batches_singly().await? == SyncEnd::Stopped
            {
                return Ok(SyncEnd::Stopped);
            }
            if self.repair_line_ends().await? {
                continue;
            }
            if self.run_rounds().await? == SyncEnd::Stopped {
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
            self.repair_line_ends().await?;
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

    /// Messages that were refused for their line ends, while these can still be sent otherwise.
    fn refused_for_line_ends(&self) -> Vec<SourceUid> {
        if self.memory.sends_crlf {
            return Vec::new();
        }
        let suspects = self.memory.suspects.iter();
        suspects.filter(|(_, suspect)| is_about_line_ends(&suspect.why)).map(|(uid, _)| uid).collect()
    }

    /// A destination that refuses LF without CR gets CRLF from here on (RFC 5322, section 2.3): what it refused for that is
    /// ordinary work again. True when there was such a message.
    async fn repair_line_ends(&mut self) -> Result<bool> {
        let refused = self.refused_for_line_ends();
        if refused.is_empty() {
            return Ok(false);
        }
        self.find_stored_suspects().await?;
        for uid in refused {
            self.memory.suspects.remove(uid);
        }
        self.memory.sends_crlf = true;
        Ok(true)
    }

    /// What was refused only together with others: of a batch, one message may be to blame.
    async fn try_batches_singly(&mut self) -> Result<SyncEnd> {
        loop {
            if self.memory.suspects.is_empty() || !self.refused_for_line_ends().is_empty() {
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
        let outcome =
            run_copy_pass(&self.context, PassWork { how, messages: work, bodies }, self.pair, self.memory, self.report)
                .await?;
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
