//! Adopts what is at the destination already: copies of an earlier attempt, and of the user's own.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    checkpoint::FolderState,
    connection_pair::ConnectionPair,
    copy::CopyMemory,
    copy_search::{CopySearch, DestinationSnapshot, FoundCopy, min_look_interval},
    job::{FolderSyncContext, FolderSyncJob},
    scan::{FolderScan, ScannedMessage, scan_set},
    uid::{DestinationUid, SourceUid},
    uid_map::CopyOrigin,
};
use crate::{
    error::Result,
    imap::{UidSet, response::Flag, select::SelectedFolder},
};

/// How a folder's work begins, decided from the checkpoint and what both servers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FolderStartMode {
    /// There is no checkpoint that counts: whatever is at the destination is matched.
    Match,
    /// The checkpoint counts, but an APPEND may be in doubt.
    Tail,
    /// The checkpoint counts and nothing is in doubt.
    Delta,
}

/// How a folder's work begins.
#[must_use]
pub(crate) fn choose_start_mode(
    state: Option<&FolderState>,
    in_doubt: bool,
    source_validity: u32,
    destination_validity: u32,
) -> FolderStartMode {
    match state {
        Some(state)
            if state.source_uid_validity == source_validity
                && state.destination_uid_validity == destination_validity =>
        {
            if in_doubt {
                FolderStartMode::Tail
            } else {
                FolderStartMode::Delta
            }
        }
        _ => FolderStartMode::Match,
    }
}

/// What may be at the destination already, and where.
pub(crate) struct CopyLookup<'a> {
    /// The folder.
    pub job: &'a FolderSyncJob,
    /// How its work begins.
    pub begin: FolderStartMode,
    /// The checkpoint, where it counts.
    pub known: Option<&'a FolderState>,
    /// Facts about the source folder.
    pub scan: &'a FolderScan,
    /// Messages to copy.
    pub work: &'a [ScannedMessage],
    /// The destination folder as it was opened.
    pub destination: &'a SelectedFolder,
    /// Asks to end soon.
    pub stop: &'a CancellationToken,
}

impl CopyLookup<'_> {
    /// Finds what is there.
    ///
    /// # Errors
    /// When a connection ends, it is asked to stop, or the destination never settles.
    pub(crate) async fn find(&self, pair: &mut ConnectionPair, memory: &mut CopyMemory) -> Result<Vec<FoundCopy>> {
        let Self { job, begin, known, scan, work, destination, stop } = *self;
        let nothing = UidSet::default();
        let (known_uids, from, by_content) = match (begin, known) {
            (FolderStartMode::Delta, _) => return Ok(Vec::new()),
            (FolderStartMode::Tail, Some(state)) => (state.map.destination_uids(), state.tail_from.max(1), true),
            _ if job.new_at_destination => return Ok(Vec::new()),
            _ => (&nothing, 1, false),
        };
        // Copies whose UID is unknown lie in the tail too: they take part in the matching, or a twin would take their place.
        let unknown = known.map(|state| state.map.unknown_uids()).unwrap_or_default();
        let mut candidates: Vec<ScannedMessage> =
            scan.messages.iter().filter(|m| unknown.contains(m.uid)).copied().collect();
        if !unknown.is_empty() {
            let mut old = FolderScan::default();
            scan_set(&mut pair.source, &unknown.difference(&scan.uids()), &mut old).await?;
            old.finish();
            candidates.extend(old.messages);
        }
        candidates.extend_from_slice(work);
        candidates.sort_by_key(|m| m.uid);
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let commit_allowance = memory.commit_allowance;
        if begin == FolderStartMode::Match
            && let Some(look) = job.look
            && job.was_empty
            && destination.exists == 0
            && destination.uid_next == Some(look.uid_next)
            && look.at.elapsed() >= min_look_interval(pair.destination.round_trip(), commit_allowance, work)
        {
            return Ok(Vec::new());
        }
        let now = || destination.uid_next.map(|uid_next| DestinationSnapshot { at: Instant::now(), uid_next });
        let before = job.look.or_else(now);
        let work = &candidates;
        let search = CopySearch {
            scan,
            work,
            certain: &unknown,
            known: known_uids,
            from,
            by_content,
            before,
            commit_allowance,
            stop,
        };
        search.find_copies(&mut pair.source, &mut pair.destination, &mut memory.trouble).await
    }
}

/// Messages that were found at the destination are copied as far as the checkpoint is concerned.
pub(crate) fn record_found_copies(state: &mut FolderState, scan: &FolderScan, found: &[FoundCopy]) {
    state.set_aside.remove(&found.iter().map(|f| f.source).collect());
    let unknown = state.map.unknown_uids();
    let resolved: Vec<(SourceUid, DestinationUid)> =
        found.iter().filter(|f| unknown.contains(f.source)).map(|f| (f.source, f.destination)).collect();
    state.map.resolve_unknown(&resolved);
    for f in found.iter().filter(|f| !unknown.contains(f.source)) {
        state.map.push(f.source, Some(f.destination), CopyOrigin::Adopted);
        if let Ok(at) = scan.messages.binary_search_by_key(&f.source, |m| m.uid)
            && let Some(message) = scan.messages.get(at)
        {
            for flag in scan.flags(message).iter().filter_map(Flag::sendable) {
                state.flags.entry(flag.to_owned()).or_default().insert(f.source);
            }
        }
    }
}

/// Finds the UIDs of copies that the destination did not tell (no UIDPLUS): flags and deletions need them.
pub(crate) async fn resolve_unknown_uids(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    scan: &FolderScan,
    pair: &mut ConnectionPair,
    memory: &mut CopyMemory,
) -> Result<()> {
    let (unknown, known, from) = shared.ledger.update_folder(&job.source_raw, |state| {
        (state.map.unknown_uids(), state.map.destination_uids().clone(), state.tail_from)
    })?;
    let work: Vec<ScannedMessage> = scan.messages.iter().filter(|m| unknown.contains(m.uid)).copied().collect();
    if work.is_empty() {
        return Ok(());
    }
    let from = from.max(1);
    let search = CopySearch {
        scan,
        work: &work,
        certain: &unknown,
        known: &known,
        from,
        by_content: false,
        before: job.look,
        commit_allowance: memory.commit_allowance,
        stop: &shared.stop,
    };
    let found = search.find_copies(&mut pair.source, &mut pair.destination, &mut memory.trouble).await?;
    let pairs: Vec<(SourceUid, DestinationUid)> = found.iter().map(|f| (f.source, f.destination)).collect();
    shared.ledger.update_folder(&job.source_raw, |state| {
        state.map.resolve_unknown(&pairs);
        let next = state.map.destination_uids().last().map_or(1, |last| last.0.saturating_add(1));
        state.tail_from = state.tail_from.max(next);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> FolderState {
        FolderState { source_uid_validity: 1, destination_uid_validity: 2, ..FolderState::default() }
    }

    #[test]
    fn a_changed_uidvalidity_on_either_side_means_that_nothing_is_known() {
        assert_eq!(choose_start_mode(Some(&state()), false, 1, 2), FolderStartMode::Delta);
        assert_eq!(choose_start_mode(Some(&state()), false, 9, 2), FolderStartMode::Match);
        assert_eq!(choose_start_mode(Some(&state()), true, 1, 9), FolderStartMode::Match);
        assert_eq!(choose_start_mode(None, true, 1, 2), FolderStartMode::Match);
    }

    #[test]
    fn an_append_in_doubt_means_a_look_at_the_tail() {
        assert_eq!(choose_start_mode(Some(&state()), true, 1, 2), FolderStartMode::Tail);
    }
}
