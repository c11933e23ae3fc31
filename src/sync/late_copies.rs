//! Copies that came after all: what a lost connection had sent and the destination stored only after it had been looked
//! for, given up and sent again. They are counted and told. Nothing is removed: which of two equal messages the user has
//! dealt with meanwhile is not known.

use super::{
    adopt::record_found_copies,
    checkpoint::FolderState,
    connection_pair::ConnectionPair,
    copy::CopyMemory,
    copy_search::find_copies_once,
    found_copies::FoundCopy,
    job::{FolderSyncContext, FolderSyncJob},
    report::FolderReport,
    scan::{FolderScan, scan_set},
    uid::{DestinationUid, SourceUid},
};
use crate::error::Result;

/// Looks that may end with their connection before one is left out: what ends it may be one of these messages.
const MAX_BROKEN_LOOKS: u32 = 2;

/// Looks at the destination's tail once more for what was in doubt in this run or the one before. What is there a second
/// time is a difference, `doubled`. The tail stays where it is until a run without a new doubt has looked.
///
/// # Errors
/// When a connection ends.
pub(crate) async fn report_late_copies(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    scan: &FolderScan,
    pair: &mut ConnectionPair,
    (memory, report): (&mut CopyMemory, &mut FolderReport),
) -> Result<()> {
    let live_checkpoint = &shared.live_checkpoint;
    let (doubted, known, from) = live_checkpoint.update_folder(&job.source_raw, |state| {
        let known = state.map.destination_uids().union(&state.late_copies);
        (state.doubted.clone(), known, state.tail_from.max(1))
    })?;
    if doubted.is_empty() {
        return Ok(());
    }
    if memory.broken_late_looks >= MAX_BROKEN_LOOKS {
        report.notes.push("late copies were not looked for: the connection ended meanwhile".to_owned());
    } else {
        memory.broken_late_looks += 1;
        let mut sent = FolderScan::default();
        sent.messages = scan.messages.iter().filter(|m| doubted.contains(m.uid)).copied().collect();
        scan_set(&mut pair.source, &doubted.difference(&sent.uids()), &mut sent).await?;
        sent.finish();
        let late = find_copies_once(pair, &sent.messages, &known, from, &mut memory.failures).await?;
        record_late_copies(shared, job, scan, &late, report)?;
        memory.broken_late_looks = 0;
    }
    if !memory.doubted {
        live_checkpoint.update_folder(&job.source_raw, FolderState::settle_doubted)?;
    }
    Ok(())
}

/// A copy of what is copied already is one too many; one of what is not is the copy.
fn record_late_copies(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    scan: &FolderScan,
    late: &[(SourceUid, DestinationUid)],
    report: &mut FolderReport,
) -> Result<()> {
    let untold = std::mem::take(&mut report.untold);
    let doubled = shared.live_checkpoint.update_folder(&job.source_raw, |state| {
        state.differences.merge(untold);
        let mut doubled = Vec::new();
        let placed = state.map.index();
        for &(source, destination) in late {
            match placed.get(source) {
                Some((Some(first), _)) => {
                    state.late_copies.insert(destination);
                    doubled.push((source, first, destination));
                }
                Some((None, _)) => state.map.resolve_unknown(&[(source, destination)]),
                None => {
                    record_found_copies(state, scan, &[FoundCopy { source, destination }]);
                    report.adopted += 1;
                }
            }
        }
        doubled
    })?;
    for (source, first, second) in doubled {
        let what = format!(
            "a copy that a lost connection had sent came late: the destination holds it twice, as UIDs {first} and \
             {second}; neither was removed"
        );
        report.add_difference(source, "doubled", what);
    }
    Ok(())
}
