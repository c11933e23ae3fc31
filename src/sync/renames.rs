//! Source folders that were renamed since the checkpoint: followed by their map, not copied again.

use super::{
    checkpoint::{Checkpoint, FolderState},
    connection_pair::ConnectionPair,
    failure_bisect::FailureBisector,
    fetch_facts::fetch_hashes,
    live_checkpoint::LiveCheckpoint,
    report::MailboxReport,
};
use crate::{
    error::Result,
    imap::{
        UidSet,
        account_listing::AccountListing,
        mutf7,
        select::{queue_examine, wait_for_selected},
    },
};

/// This many messages must be the same before a rename is believed.
const SAMPLES: u64 = 3;

/// Moves the checkpoint of renamed folders to their new names. The destination folder keeps its name, since its user may
/// rely on it; that is told.
///
/// # Errors
/// When a connection ends.
pub(crate) async fn follow_renames(
    pair: &mut ConnectionPair,
    ledger: &LiveCheckpoint,
    source: &AccountListing,
    report: &mut MailboxReport,
) -> Result<()> {
    let candidates = ledger.read(|checkpoint| rename_candidates(checkpoint, source));
    for candidate in candidates {
        if !same_messages(pair, &candidate).await? {
            continue;
        }
        ledger.update(|checkpoint| {
            if let Some(state) = checkpoint.folders.remove(&candidate.old) {
                checkpoint.folders.insert(candidate.new.clone(), state);
            }
            if let Some(destination) = checkpoint.mapping.remove(&candidate.old) {
                checkpoint.mapping.insert(candidate.new.clone(), destination);
            }
        });
        report.notes.push(format!(
            "{} was renamed to {} at the source; its mail goes on to {}",
            mutf7::decode_lossy(&candidate.old),
            mutf7::decode_lossy(&candidate.new),
            mutf7::decode_lossy(&candidate.destination)
        ));
    }
    Ok(())
}

/// Tells of folders that the checkpoint knows and the source no longer has, renamed ones apart.
pub(crate) fn note_vanished(ledger: &LiveCheckpoint, source: &AccountListing, report: &mut MailboxReport) {
    ledger.read(|checkpoint| {
        for old in checkpoint.folders.keys().filter(|old| source.folder(old).is_none()) {
            let name = mutf7::decode_lossy(old);
            let there = checkpoint.mapping.get(old).map_or_else(|| name.clone(), |raw| mutf7::decode_lossy(raw));
            report.note(format!("{name} is gone from the source; what was copied of it stays in {there}"));
        }
    });
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RenameCandidate {
    old: Vec<u8>,
    new: Vec<u8>,
    destination: Vec<u8>,
    /// Source and destination UIDs of copied messages.
    samples: Vec<(u32, u32)>,
}

/// Folders of the checkpoint that are gone, each with the one new folder that may be the same.
fn rename_candidates(checkpoint: &Checkpoint, source: &AccountListing) -> Vec<RenameCandidate> {
    let gone = checkpoint.folders.iter().filter(|(old, _)| source.folder(old).is_none());
    let mut found: Vec<RenameCandidate> = Vec::new();
    for (old, state) in gone {
        let new: Vec<&[u8]> = source
            .folders
            .iter()
            .filter(|folder| !checkpoint.folders.contains_key(folder.item.name.as_ref()))
            .filter(|folder| folder.status.as_ref().is_some_and(|status| may_be_same_folder(state, status)))
            .map(|folder| folder.item.name.as_ref())
            .collect();
        let (&[new], Some(destination)) = (new.as_slice(), checkpoint.mapping.get(old)) else { continue };
        let samples: Vec<(u32, u32)> = last_copied(state);
        if !samples.is_empty() {
            found.push(RenameCandidate {
                old: old.clone(),
                new: new.to_vec(),
                destination: destination.clone(),
                samples,
            });
        }
    }
    // Two that are gone and one that is new: nobody knows.
    let twice = |candidate: &RenameCandidate| found.iter().filter(|other| other.new == candidate.new).count() > 1;
    found.iter().filter(|candidate| !twice(candidate)).cloned().collect()
}

fn may_be_same_folder(state: &FolderState, status: &crate::imap::response::FolderStatus) -> bool {
    if let (Some(old), Some(new)) = (&state.mailbox_id, &status.mailbox_id) {
        return old == new && status.uid_validity == Some(state.source_uid_validity);
    }
    status.uid_validity == Some(state.source_uid_validity)
        && state.map.copied().last().is_some_and(|last| status.uid_next.is_some_and(|next| next > last))
}

fn last_copied(state: &FolderState) -> Vec<(u32, u32)> {
    let index = state.map.index();
    let mut samples = Vec::new();
    for &(low, high) in state.map.copied().ranges().iter().rev() {
        for uid in (low..=high).rev() {
            if samples.len() as u64 >= SAMPLES {
                return samples;
            }
            if let Some((Some(destination), _)) = index.get(uid) {
                samples.push((uid, destination));
            }
        }
    }
    samples
}

/// True when some samples are the same on both sides and none differ; what is gone on either side says nothing.
async fn same_messages(pair: &mut ConnectionPair, candidate: &RenameCandidate) -> Result<bool> {
    let tag = queue_examine(&mut pair.source, &candidate.new);
    if wait_for_selected(&mut pair.source, tag, "a renamed folder").await.is_err() {
        return Ok(false);
    }
    let tag = queue_examine(&mut pair.destination, &candidate.destination);
    if wait_for_selected(&mut pair.destination, tag, "a renamed folder").await.is_err() {
        return Ok(false);
    }
    let at_source: UidSet = candidate.samples.iter().map(|(source, _)| *source).collect();
    let at_destination: UidSet = candidate.samples.iter().map(|(_, destination)| *destination).collect();
    let source = fetch_hashes(&mut pair.source, &at_source, &mut FailureBisector::default()).await?;
    let destination = fetch_hashes(&mut pair.destination, &at_destination, &mut FailureBisector::default()).await?;
    let mut same = 0;
    for (source_uid, destination_uid) in &candidate.samples {
        match (source.get(source_uid), destination.get(destination_uid)) {
            (Some(a), Some(b)) if a.canonical == b.canonical => same += 1,
            (Some(_), Some(_)) => return Ok(false),
            _ => {}
        }
    }
    Ok(same > 0)
}
