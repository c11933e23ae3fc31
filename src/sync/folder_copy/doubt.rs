//! What may be at the destination though nobody confirmed it: looked for before anything of it is sent again.

use std::collections::BTreeMap;

use super::FolderCopy;
use crate::{
    error::Result,
    sync::{
        adopt::{CopyLookup, FolderStartMode, record_found_copies, report_changes},
        checkpoint::FolderState,
        copy::{PassOptions, SendMode},
        fetch_facts::scan_with_ids,
        job::{FolderSyncJob, SyncEnd},
        scan::ScannedMessage,
        spec::FlagHandling,
        store_flags::add_missing_flags,
    },
};

/// So often at most, messages that others store meanwhile make us look again.
const MAX_LOOKS_AGAIN: u32 = 3;

impl FolderCopy<'_> {
    /// After a doubt one message goes alone. Where something else was stored since the last look, what a lost connection
    /// had sent may still be coming: it is looked for again before the next.
    pub(super) async fn send_one_alone(&mut self) -> Result<SyncEnd> {
        let Some(mut seen) = self.seen.take() else { return Ok(SyncEnd::Complete) };
        for _ in 0..MAX_LOOKS_AGAIN {
            self.give_up_unreadable()?;
            let pending = self.readable_first(self.pending());
            let Some(message) = pending.first().copied() else { return Ok(SyncEnd::Complete) };
            let how = PassOptions { mode: SendMode::Single, probe: false };
            if self.run_pass(how, &[message], BTreeMap::new()).await? == SyncEnd::Stopped {
                return Ok(SyncEnd::Stopped);
            }
            let given = self.shared.live_checkpoint.read(|checkpoint| {
                checkpoint.folders.get(&self.job.source_raw).and_then(|state| state.map.index().get(message.uid))
            });
            // What was not taken is dealt with as all that is refused.
            let Some((uid, _)) = given else { return Ok(SyncEnd::Complete) };
            if uid.is_some_and(|uid| uid.0 == seen) {
                return Ok(SyncEnd::Complete);
            }
            // Some servers leave UIDs out; others don't say which one it has.
            let (now, _) = scan_with_ids(&mut self.pair.destination, seen).await?;
            if now.messages.len() <= 1 {
                return Ok(SyncEnd::Complete);
            }
            tracing::info!("the destination stores what was in doubt, or others write to it: looking again");
            let pending = self.pending();
            seen = self.find_stored(&pending).await?.unwrap_or(seen);
        }
        Ok(SyncEnd::Complete)
    }

    /// Looks whether what was refused was stored all the same, or what was in doubt came late.
    pub(super) async fn find_stored_suspects(&mut self) -> Result<()> {
        if !self.work.iter().any(|m| self.memory.suspects.is_in_doubt(m.uid)) {
            return Ok(());
        }
        let work: Vec<ScannedMessage> = self.work.iter().filter(|m| self.is_suspect(m)).copied().collect();
        if work.is_empty() {
            return Ok(());
        }
        self.find_stored(&work).await?;
        self.memory.suspects.clear_doubt();
        Ok(())
    }

    /// Takes what of `work` is in the destination's tail as copied. Gives the destination's UIDNEXT at the last look.
    async fn find_stored(&mut self, work: &[ScannedMessage]) -> Result<Option<u32>> {
        let (live_checkpoint, raw) = (&self.shared.live_checkpoint, &self.job.source_raw);
        let state: FolderState = live_checkpoint.update_folder(raw, |state| state.clone())?;
        let (scan, selected) = (self.context.scan, self.context.selected);
        // What was seen before tells nothing of now.
        let job = FolderSyncJob { snapshot: None, ..self.job.clone() };
        let taken = live_checkpoint.read(|c| c.moved_into(&job.destination_raw, selected.uid_validity));
        let lookup = CopyLookup {
            job: &job,
            begin: FolderStartMode::Tail,
            known: Some(&state),
            scan,
            work: &work.iter().map(|message| message.uid).collect(),
            destination: selected,
            taken: &taken,
            scope: self.shared.spec.adopt,
            stop: &self.shared.stop,
        };
        let there = lookup.find(self.pair, self.memory).await?;
        if self.shared.spec.flag_policy == FlagHandling::SourceWins {
            self.report.flags_updated +=
                add_missing_flags(&mut self.pair.destination, selected, &there, self.report).await?;
        }
        let unknown = state.map.unknown_uids();
        live_checkpoint.update_folder(raw, |state| record_found_copies(state, scan, &there.copies))?;
        report_changes(&there, &unknown, self.report);
        for copy in there.copies.iter().filter(|copy| !unknown.contains(copy.source)) {
            self.report.adopted += 1;
            self.memory.suspects.record_found(copy.source);
        }
        self.drop_copied();
        Ok(there.uid_next)
    }
}
