//! What is written down of a folder: of its match, before the first APPEND, and when it is done.

use super::{
    adopt::{FolderStartMode, record_found_copies},
    checkpoint::FolderState,
    copy::CopyMemory,
    flag_changes::is_given_to_found,
    folder_work::{FolderWork, OpenedFolder, forget_gone},
    found_copies::FoundCopies,
    job::{FolderSyncContext, FolderSyncJob},
    limits::{BATCH_MESSAGES, BATCHES_IN_FLIGHT},
    matched_folders::MatchedFolder,
    report::FolderReport,
    spec::FlagHandling,
};
use crate::{error::Result, imap::select::SelectedFolder};

/// True when no checkpoint counts for the folder, or an earlier run came no further than to match it.
pub(super) fn is_matched_first(job: &FolderSyncJob, opened: &OpenedFolder) -> bool {
    let unsearched = opened.known.as_ref().is_some_and(|state| state.unsearched);
    opened.begin == FolderStartMode::Match || unsearched || job.matches_first
}

/// Remembers what a folder that is matched before anything is copied was found to be.
pub(super) fn record_match(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    opened: &OpenedFolder,
    work: &FolderWork,
    (found, report): (&FoundCopies, &FolderReport),
) {
    if !is_matched_first(job, opened) {
        return;
    }
    let OpenedFolder { source, destination, begin, known, .. } = opened;
    let folder = MatchedFolder {
        destination_raw: job.destination_raw.clone(),
        source_uid_validity: source.selected.uid_validity,
        destination_uid_validity: destination.uid_validity,
        source_name: job.source_name.clone(),
        found: report.copied_before + report.adopted,
        left: work.uids.clone(),
        copies: found.copies.iter().map(|copy| copy.destination).collect(),
        lacking_flags: match shared.spec.flag_policy {
            FlagHandling::SourceWins => found.lacking_flags().len(),
            FlagHandling::Ignore => 0,
        },
        holds_mail: destination.exists > 0,
        has_no_checkpoint: *begin == FolderStartMode::Match || known.as_ref().is_some_and(|state| state.unsearched),
    };
    shared.matched.record(&job.source_raw, folder);
}

/// Writes what is known before the first APPEND into the checkpoint.
pub(super) fn record_start(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    opened: &mut OpenedFolder,
    work: &mut FolderWork,
    (found, waits): (&FoundCopies, bool),
    memory: &mut CopyMemory,
) {
    let (set_aside, new_aside) = (std::mem::take(&mut opened.set_aside), std::mem::take(&mut work.new_aside));
    let coverage = opened.known.as_ref().map(|state| state.coverage.clone()).unwrap_or_default();
    let OpenedFolder { source, destination, begin, .. } = opened;
    shared.live_checkpoint.update(|checkpoint| {
        let state = checkpoint.folders.entry(job.source_raw.clone()).or_default();
        if *begin == FolderStartMode::Match {
            *state = FolderState {
                source_uid_validity: source.selected.uid_validity,
                destination_uid_validity: destination.uid_validity,
                // Flags as of this EXAMINE travel with the messages, or are added to adopted ones.
                highest_modseq: source.selected.highest_modseq,
                ..FolderState::default()
            };
        }
        state.coverage = coverage;
        record_found_copies(state, &source.scan, &found.copies);
        if waits && shared.spec.flag_policy == FlagHandling::SourceWins {
            leave_missing_flags(state, found);
        }
        state.set_aside = set_aside;
        if work.first {
            state.set_aside.count_passed_run(&work.due);
        }
        for group in new_aside {
            state.set_aside.add_group(group);
        }
        state.set_aside.remove(&found.copies.iter().map(|f| f.source).collect());
        forget_gone(&mut state.set_aside, &work.held);
        if work.held.unlisted == 0 {
            state.retain_moved(&work.held.uids);
        }
        state.unsearched = waits && shared.spec.adopt.may_leave_folder();
        state.unlisted = work.held.unlisted;
        state.record_listing(&work.held, std::mem::take(&mut work.left_out), &shared.spec.messages);
        state.settled = None;
        state.mailbox_id.clone_from(&source.selected.mailbox_id);
        let next = destination.uid_next.or(job.snapshot.map(|snapshot| snapshot.uid_next)).unwrap_or(1);
        if *begin == FolderStartMode::Tail && work.first && job.in_doubt {
            memory.doubted = true;
            if state.doubted.is_empty() {
                // Whoever made the doubt is gone, and sent in UID order.
                let sent = work.uids.iter().take(BATCHES_IN_FLIGHT * BATCH_MESSAGES);
                state.doubted = found.copies.iter().map(|copy| copy.source).chain(sent).collect();
            }
        }
        // What was refused may have been stored: its place stays in the tail.
        let next = memory.suspects.doubt_from.map_or(next, |from| from.min(next));
        state.raise_tail(next.max(1));
        // From here on an APPEND may be in doubt. A saved checkpoint said so before, or holds nothing of this folder.
        state.append_in_doubt = true;
    });
}

/// Flags that found copies lack are not at the destination yet: the folder's next turn sees them as changed, and asks for all
/// flags for that.
fn leave_missing_flags(state: &mut FolderState, found: &FoundCopies) {
    for (flag, copies) in found.missing_flags.iter().filter(|(flag, _)| is_given_to_found(flag)) {
        if let Some(uids) = state.flags.get_mut(flag) {
            *uids = uids.difference(&state.map.sources_of(copies));
            state.highest_modseq = None;
        }
    }
    state.flags.retain(|_, uids| !uids.is_empty());
}

/// The folder is done: nothing is in doubt, and what the source said is remembered.
pub(super) fn record_finish(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    (source, destination): (&SelectedFolder, &SelectedFolder),
    report: &mut FolderReport,
) -> Result<()> {
    let doubts = !report.doubts.is_empty();
    let untold = std::mem::take(&mut report.untold);
    // What a rule leaves out today it may let through tomorrow: such a folder is looked at again.
    shared.live_checkpoint.update_folder(&job.source_raw, |state| {
        state.append_in_doubt = false;
        state.record_destination_next(destination.uid_next.or(job.snapshot.map(|snapshot| snapshot.uid_next)));
        state.highest_modseq = source.highest_modseq;
        let nothing_left = !doubts && report.left_out.is_empty() && state.unlisted == 0 && state.doubted.is_empty();
        state.settled = job.status.filter(|_| nothing_left);
        state.differences.merge(untold);
    })
}
