//! What was refused alone is tried again in rounds, beside ordinary messages, until it is known whose fault it is.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{FolderCopy, lock_exclusive};
use crate::{
    error::{Error, ErrorRemedy, GiveUpScope, Result},
    imap::{UidSet, response::Flag},
    sync::{
        circuit_breaker::{BreakerAdmission, KEEP_ALIVE_INTERVAL},
        copy::{PassOptions, SendMode, has_odd_date},
        job::SyncEnd,
        scan::ScannedMessage,
        set_aside::{SetAsideGroup, SetAsideReason},
        suspects::SuspectMessage,
        uid::SourceUid,
    },
};

impl FolderCopy<'_> {
    /// An ordinary message that was kept back: the smallest of at least `size` bytes, or else the largest.
    pub(super) fn pick_control(&self, size: u32) -> Option<ScannedMessage> {
        let controls = &self.memory.suspects.controls;
        let kept = || self.work.iter().filter(|m| controls.contains(&m.uid));
        let fits = kept().filter(|m| m.size >= size).min_by_key(|m| m.size);
        fits.or_else(|| kept().max_by_key(|m| m.size)).copied()
    }

    /// What was refused alone is tried again, one at a time and beside ordinary messages, until it is accepted, proven to
    /// be refused for its own sake, or tried often enough.
    pub(super) async fn run_rounds(&mut self) -> Result<SyncEnd> {
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
    pub(super) async fn try_chunk(&mut self, left: &[SourceUid]) -> Result<SyncEnd> {
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
    pub(super) fn give_up_untried(&mut self, chunk: &[ScannedMessage]) -> Result<()> {
        let unreadable = chunk.iter().filter(|m| self.memory.failures.is_unreadable(m.uid)).count();
        if unreadable > 0 { self.give_up_unreadable() } else { Ok(()) }
    }

    /// Sends a control alone, once the server is well as far as it says; a refused one means that it is not, and that
    /// nothing in this round counts.
    pub(super) async fn send_control(&mut self, size: u32, suspect: Option<ScannedMessage>) -> Result<SyncEnd> {
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
    pub(super) async fn try_weakened(&mut self) -> Result<SyncEnd> {
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
    pub(super) fn may_be_weakened(&self, message: &ScannedMessage) -> bool {
        self.memory.suspects.get(message.uid).is_some_and(|suspect| !suspect.weakened)
            && (self.has_keywords(message) || has_odd_date(message))
    }

    /// True for a message with flags that the destination may refuse in an APPEND.
    pub(super) fn has_keywords(&self, message: &ScannedMessage) -> bool {
        let selected = self.context.selected;
        let may_refuse = |flag: &Flag| matches!(flag, Flag::Keyword(_)) || !selected.keeps_flag(flag);
        self.context.scan.flags(message).iter().any(|flag| *flag != Flag::Recent && may_refuse(flag))
    }

    pub(super) fn is_any_open(&self) -> bool {
        self.shared.breakers.destination.is_open() || self.shared.breakers.source.is_open()
    }

    /// Waits on purpose, with both connections kept alive.
    pub(super) async fn pause(&mut self, pause: Duration, why: &str) -> Result<SyncEnd> {
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

    /// After the rounds: what is left was refused for its own sake, or nobody can tell; or a person must act.
    pub(super) fn decide_suspects(&mut self) -> Result<()> {
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
}
