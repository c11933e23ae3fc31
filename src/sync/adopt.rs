//! Adopts what is at the destination already: copies of an earlier attempt, and of the user's own.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    checkpoint::FolderState,
    connection_pair::ConnectionPair,
    copy::CopyMemory,
    copy_search::{CopySearch, DestinationSnapshot, min_look_interval},
    flag_changes::add_flag,
    found_copies::{FoundCopies, FoundCopy},
    job::{FolderSyncContext, FolderSyncJob},
    report::FolderReport,
    scan::{FolderScan, scan_set},
    search_scope::SearchScope,
    set_aside::SetAsideReason,
    spec::AdoptScope,
    store_flags::{CurrentFlags, unplaced_changes},
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
    /// The checkpoint counts, but an APPEND may be in doubt, or something came to the destination since it was written.
    Tail,
    /// The checkpoint counts and nothing is in doubt.
    Delta,
}

/// How a folder's work begins; `same` says that the UIDs of the checkpoint still mean the same messages.
#[must_use]
pub(crate) fn choose_start_mode(state: Option<&FolderState>, same: bool, in_doubt: bool) -> FolderStartMode {
    match state {
        Some(_) if same && in_doubt => FolderStartMode::Tail,
        Some(_) if same => FolderStartMode::Delta,
        _ => FolderStartMode::Match,
    }
}

/// True when the folder on both sides is the one that the checkpoint knows. UIDVALIDITY says so, and must not be
/// contradicted: UIDs only ever grow (RFC 9051, section 2.3.1.1). Some servers give a folder that was deleted and made
/// again, or restored from a backup, the UIDVALIDITY that it had. `listed` are the UIDs that the source lists.
#[must_use]
pub(crate) fn is_same_folder(
    state: &FolderState,
    source: &SelectedFolder,
    listed: &UidSet<SourceUid>,
    destination: &SelectedFolder,
) -> bool {
    let source_next = state.finished_uids().last().map_or(0, |last| last.0.saturating_add(1));
    // What there was when nothing was left to do was dealt with, or gone: it can't appear later.
    let settled_next = state.settled.map_or(0, |settled| settled.uid_next);
    let unsettled = listed.difference(&state.finished_uids());
    let destination_next = state.map.destination_uids().last().map_or(0, |last| last.0.saturating_add(1));
    state.source_uid_validity == source.uid_validity
        && state.destination_uid_validity == destination.uid_validity
        && !went_back(source.uid_next, source_next.max(settled_next))
        && !went_back(destination.uid_next, destination_next)
        && unsettled.first().is_none_or(|uid| uid.0 >= settled_next)
}

/// True when a folder's UIDNEXT is below one that it had, or must have had.
#[must_use]
pub(crate) fn went_back(uid_next: Option<u32>, before: u32) -> bool {
    uid_next.is_some_and(|now| now > 0 && now < before)
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
    pub work: &'a UidSet<SourceUid>,
    /// The destination folder as it was opened.
    pub destination: &'a SelectedFolder,
    /// What of it is the copy of another folder's message.
    pub taken: &'a UidSet<DestinationUid>,
    /// Where copies are looked for without a checkpoint.
    pub scope: AdoptScope,
    /// Asks to end soon.
    pub stop: &'a CancellationToken,
}

impl CopyLookup<'_> {
    /// Finds what is there.
    ///
    /// # Errors
    /// When a connection ends, it is asked to stop, or the destination never settles.
    pub(crate) async fn find(&self, pair: &mut ConnectionPair, memory: &mut CopyMemory) -> Result<FoundCopies> {
        let Self { job, begin, known, scan, work, destination, taken, scope, stop } = *self;
        let is_unwanted = job.new_at_destination || scope == AdoptScope::Nowhere;
        let (known_uids, from, by_content) = match (begin, known) {
            (FolderStartMode::Delta, _) => return Ok(FoundCopies::default()),
            (FolderStartMode::Tail, Some(state)) => {
                (&state.map.destination_uids().union(taken), state.tail_from.max(1), true)
            }
            _ if is_unwanted && !memory.may_have_sent => return Ok(FoundCopies::default()),
            _ => (taken, 1, false),
        };
        // Copies whose UID is unknown lie in the tail too: they take part in the matching, or a twin would take their place.
        let unknown = known.map(|state| state.map.unknown_uids()).unwrap_or_default();
        let unlisted = unknown.difference(&scan.uids());
        let mut with_unknown = None;
        if !unlisted.is_empty() {
            let all = with_unknown.insert(scan.clone());
            scan_set(&mut pair.source, &unlisted, all).await?;
            all.finish();
        }
        let scan = with_unknown.as_ref().unwrap_or(scan);
        let work = &work.union(&unknown.intersection(&scan.uids()));
        if work.is_empty() {
            return Ok(FoundCopies::default());
        }
        let commit_allowance = memory.commit_allowance;
        let scope = SearchScope {
            scan,
            work,
            certain: &unknown,
            known: known_uids,
            expects_copies: by_content || u64::from(destination.exists) > known_uids.len(),
            rewrites: memory.destination_rewrites,
        };
        if begin == FolderStartMode::Match
            && let Some(snapshot) = job.snapshot
            && job.was_empty
            && destination.exists == 0
            && destination.uid_next == Some(snapshot.uid_next)
            && snapshot.at.elapsed()
                >= min_look_interval(pair.destination.round_trip(), commit_allowance, scope.messages())
        {
            return Ok(FoundCopies::default());
        }
        let now = || destination.uid_next.map(|uid_next| DestinationSnapshot { at: Instant::now(), uid_next });
        let before = job.snapshot.or_else(now);
        let search = CopySearch { scope, from, by_content, before, commit_allowance, stop };
        search.find_copies(&mut pair.source, &mut pair.destination, &mut memory.failures).await
    }

    /// Finds what no run has looked for in the whole folder, since the source did not list or deliver it then. `found` was
    /// found just now.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(crate) async fn find_unsought(
        &self,
        found: &[FoundCopy],
        pair: &mut ConnectionPair,
        memory: &mut CopyMemory,
    ) -> Result<FoundCopies> {
        let Self { job, known, scan, destination, stop, .. } = *self;
        let mut copies = FoundCopies::default();
        let Some(state) = known else { return Ok(copies) };
        let found_copies: UidSet<DestinationUid> = found.iter().map(|f| f.destination).collect();
        let mut known_uids = state.map.destination_uids().union(&found_copies);
        let sources: UidSet<SourceUid> = found.iter().map(|f| f.source).collect();
        let work = unsought(state, self.work).difference(&sources);
        // Where there is nothing but our own copies there is nothing to be found.
        if work.is_empty() || u64::from(destination.exists) <= known_uids.len() {
            return Ok(copies);
        }
        // Copies whose UID is unknown come first, or a twin would take their place.
        let mut unknown = FolderScan::default();
        scan_set(&mut pair.source, &state.unplaced_uids().difference(&sources), &mut unknown).await?;
        unknown.finish();
        for (scan, work) in [(&unknown, unknown.uids()), (scan, work)] {
            if work.is_empty() {
                continue;
            }
            let search = CopySearch {
                scope: SearchScope {
                    scan,
                    work: &work,
                    certain: &UidSet::default(),
                    known: &known_uids,
                    expects_copies: true,
                    rewrites: memory.destination_rewrites,
                },
                from: 1,
                by_content: false,
                before: job.snapshot,
                commit_allowance: memory.commit_allowance,
                stop,
            };
            let there = search.find_copies(&mut pair.source, &mut pair.destination, &mut memory.failures).await?;
            known_uids = known_uids.union(&there.copies.iter().map(|f| f.destination).collect());
            copies.merge(there);
        }
        // Where copies up to the mark are is not remembered: they only leave the others to the messages that are sought.
        copies.forget(&state.unmapped_uids());
        Ok(copies)
    }
}

/// Of the work, what may be at the destination since before the first run: messages that were listed nowhere until now, or
/// whose bodies could not be read when they were to be compared.
fn unsought(state: &FolderState, work: &UidSet<SourceUid>) -> UidSet<SourceUid> {
    if state.unlisted > 0 {
        return work.clone();
    }
    let unread = [SetAsideReason::Unreadable, SetAsideReason::NotTried];
    let groups = state.set_aside.groups().iter().filter(|group| unread.contains(&group.reason));
    groups.fold(UidSet::default(), |all, group| all.union(&group.uids.intersection(work)))
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
        let Some(message) = scan.message(f.source) else { continue };
        for flag in scan.flags(message).iter().filter_map(Flag::sendable) {
            add_flag(&mut state.flags, flag, f.source);
        }
    }
}

/// Tells in what copies that were found differ from their messages, flags aside; not of `known` ones.
pub(crate) fn report_changes(found: &FoundCopies, known: &UidSet<SourceUid>, report: &mut FolderReport) {
    for (source, change) in found.changes.iter().filter(|(source, _)| !known.contains(*source)) {
        if change.content {
            let what = "the copy that was found at the destination has another content";
            report.add_difference(*source, "content", what);
        }
        if change.date {
            let what = "the copy that was found at the destination has another date";
            report.add_difference(*source, "internalDate", what);
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
    let (unknown, known, from) = shared.live_checkpoint.update_folder(&job.source_raw, |state| {
        (state.map.unknown_uids(), state.map.destination_uids().clone(), state.tail_from)
    })?;
    let work = unknown.intersection(&scan.uids());
    if work.is_empty() {
        return Ok(());
    }
    let search = CopySearch {
        scope: SearchScope {
            scan,
            work: &work,
            certain: &unknown,
            known: &known,
            expects_copies: true,
            rewrites: memory.destination_rewrites,
        },
        from: from.max(1),
        by_content: false,
        before: job.snapshot,
        commit_allowance: memory.commit_allowance,
        stop: &shared.stop,
    };
    let found = search.find_copies(&mut pair.source, &mut pair.destination, &mut memory.failures).await?;
    let pairs = found.uids();
    shared.live_checkpoint.update_folder(&job.source_raw, |state| {
        state.map.resolve_unknown(&pairs);
        let next = state.map.destination_uids().last().map_or(1, |last| last.0.saturating_add(1));
        state.raise_tail(next);
    })
}

/// Finds the UIDs of earlier copies that the destination did not tell and that were not found then: in the whole folder, and
/// only of those whose flags changed.
pub(crate) async fn resolve_changed_uids(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    news: &CurrentFlags,
    pair: &mut ConnectionPair,
    memory: &mut CopyMemory,
) -> Result<()> {
    let (unplaced, known) = shared.live_checkpoint.update_folder(&job.source_raw, |state| {
        (unplaced_changes(state, news), state.map.destination_uids().clone())
    })?;
    if unplaced.is_empty() {
        return Ok(());
    }
    let mut scan = FolderScan::default();
    scan_set(&mut pair.source, &unplaced, &mut scan).await?;
    scan.finish();
    let search = CopySearch {
        scope: SearchScope {
            scan: &scan,
            work: &scan.uids(),
            certain: &unplaced,
            known: &known,
            expects_copies: true,
            rewrites: memory.destination_rewrites,
        },
        from: 1,
        by_content: false,
        before: job.snapshot,
        commit_allowance: memory.commit_allowance,
        stop: &shared.stop,
    };
    let found = search.find_copies(&mut pair.source, &mut pair.destination, &mut memory.failures).await?;
    let pairs = found.uids();
    shared.live_checkpoint.update_folder(&job.source_raw, |state| state.map.resolve_unknown(&pairs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::checkpoint::QuiescentStatus;

    fn state() -> FolderState {
        FolderState { source_uid_validity: 1, destination_uid_validity: 2, ..FolderState::default() }
    }

    /// Copied 1, 2 and 4 to 11 to 13, and nothing was left to do.
    fn copied() -> FolderState {
        let mut state = state();
        for (from, to) in [(1, 11), (2, 12), (4, 13)] {
            state.map.push(SourceUid(from), Some(DestinationUid(to)), CopyOrigin::Appended);
        }
        state.settled = Some(QuiescentStatus { uid_next: 6, messages: 3, highest_modseq: None });
        state
    }

    fn folder(uid_validity: u32, uid_next: Option<u32>) -> SelectedFolder {
        SelectedFolder { uid_validity, uid_next, ..SelectedFolder::default() }
    }

    fn uids(text: &str) -> UidSet<SourceUid> {
        UidSet::parse(text).unwrap()
    }

    #[test]
    fn a_changed_uidvalidity_on_either_side_means_that_nothing_is_known() {
        let same = |source, destination| {
            is_same_folder(&state(), &folder(source, None), &UidSet::new(), &folder(destination, None))
        };
        assert!(same(1, 2));
        assert!(!same(9, 2) && !same(1, 9));
        assert_eq!(choose_start_mode(Some(&state()), true, false), FolderStartMode::Delta);
        assert_eq!(choose_start_mode(Some(&state()), false, true), FolderStartMode::Match);
        assert_eq!(choose_start_mode(None, false, true), FolderStartMode::Match);
    }

    #[test]
    fn uids_that_went_back_on_either_side_mean_that_nothing_is_known() {
        let same = |source, destination| {
            is_same_folder(&copied(), &folder(1, source), &uids("1:2,4"), &folder(2, destination))
        };
        assert!(same(None, None) && same(Some(0), Some(0)) && same(Some(6), Some(14)));
        assert!(!same(Some(5), None), "the source had UIDNEXT 6");
        assert!(!same(Some(6), Some(13)), "the destination had UID 13");
        let unsettled = FolderState { settled: None, ..copied() };
        let same = |next| is_same_folder(&unsettled, &folder(1, Some(next)), &uids("1:2,4"), &folder(2, None));
        assert!(same(5) && !same(4));
    }

    #[test]
    fn a_uid_that_appears_below_what_was_finished_means_that_nothing_is_known() {
        let same = |state: &FolderState, listed| {
            is_same_folder(state, &folder(1, Some(9)), &uids(listed), &folder(2, Some(14)))
        };
        assert!(same(&copied(), "2,6:8"));
        assert!(!same(&copied(), "1:8"), "3 and 5 were gone");
        // Before everything was done they may have been left.
        assert!(same(&FolderState { settled: None, ..copied() }, "1:8"));
    }

    #[test]
    fn an_append_in_doubt_means_a_look_at_the_tail() {
        assert_eq!(choose_start_mode(Some(&state()), true, true), FolderStartMode::Tail);
    }
}
