//! Source folders that were renamed since the checkpoint: followed by their map, not copied again.

use std::collections::BTreeSet;

use super::{
    checkpoint::{Checkpoint, FolderState},
    connection_pair::ConnectionPair,
    failure_bisect::FailureBisector,
    fetch_facts::fetch_hashes,
    live_checkpoint::LiveCheckpoint,
    report::MailboxReport,
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::Result,
    imap::{
        Session, UidSet,
        account_listing::AccountListing,
        mutf7,
        response::StatusCondition,
        select::{SelectedFolder, queue_examine},
    },
};

/// This many messages must be the same before a rename is believed.
const SAMPLES: u64 = 3;
/// At most so many new folders are asked whether they are one that is gone.
const MAX_ASKED: usize = 50;

/// What ended a connection while renames were looked into: such a folder counts as gone, and its new name as new.
#[derive(Debug, Clone, Default)]
pub(crate) struct RenameMemory {
    /// Raw names in the checkpoint.
    fatal: BTreeSet<Vec<u8>>,
}

impl RenameMemory {
    /// Grows with each thing that was found out.
    #[must_use]
    pub(crate) fn steps(&self) -> u64 {
        self.fatal.len() as u64
    }
}

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
    memory: &mut RenameMemory,
) -> Result<()> {
    let mut candidates = Vec::new();
    for possible in ledger.read(|checkpoint| possible_renames(checkpoint, source)) {
        if memory.fatal.insert(possible.old.clone()) {
            let old = possible.old.clone();
            candidates.extend(resolve_rename(&mut pair.source, possible).await?);
            memory.fatal.remove(&old);
        }
    }
    for candidate in without_rivals(candidates) {
        if !memory.fatal.insert(candidate.old.clone()) {
            continue;
        }
        let same = same_messages(pair, &candidate).await?;
        memory.fatal.remove(&candidate.old);
        if !same {
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
    /// Copied messages.
    samples: Vec<(SourceUid, DestinationUid)>,
}

/// A folder of the checkpoint that is gone, and the new ones that may be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PossibleRename {
    old: Vec<u8>,
    new: Vec<Vec<u8>>,
    destination: Vec<u8>,
    mailbox_id: Option<String>,
    samples: Vec<(SourceUid, DestinationUid)>,
}

/// Folders of the checkpoint that are gone, each with the new folders that may be the same.
fn possible_renames(checkpoint: &Checkpoint, source: &AccountListing) -> Vec<PossibleRename> {
    let gone = checkpoint.folders.iter().filter(|(old, _)| source.folder(old).is_none());
    let mut found = Vec::new();
    for (old, state) in gone {
        let new: Vec<Vec<u8>> = source
            .folders
            .iter()
            .filter(|folder| !checkpoint.folders.contains_key(folder.item.name.as_ref()))
            .filter(|folder| folder.status.as_ref().is_some_and(|status| may_be_same_folder(state, status)))
            .map(|folder| folder.item.name.to_vec())
            .collect();
        let Some(destination) = checkpoint.mapping.get(old) else { continue };
        let samples = last_copied(state);
        if !samples.is_empty() && !new.is_empty() {
            found.push(PossibleRename {
                old: old.clone(),
                new,
                destination: destination.clone(),
                mailbox_id: state.mailbox_id.clone(),
                samples,
            });
        }
    }
    found
}

/// The one new folder that a folder may have become: the only one, or the one that has its MAILBOXID (RFC 8474).
async fn resolve_rename(source: &mut Session, possible: PossibleRename) -> Result<Option<RenameCandidate>> {
    let PossibleRename { old, mut new, destination, mailbox_id, samples } = possible;
    if new.len() > 1 {
        let Some(id) = mailbox_id else { return Ok(None) };
        let mut same = Vec::new();
        for name in new.into_iter().take(MAX_ASKED) {
            let selected = examine(source, &name).await?;
            if selected.is_some_and(|selected| selected.mailbox_id.as_ref() == Some(&id)) {
                same.push(name);
            }
        }
        new = same;
    }
    let only = if new.len() == 1 { new.pop() } else { None };
    Ok(only.map(|new| RenameCandidate { old, new, destination, samples }))
}

/// Opens a folder for reading; none where the server refuses.
async fn examine(session: &mut Session, raw: &[u8]) -> Result<Option<SelectedFolder>> {
    let tag = queue_examine(session, raw);
    let mut selected = SelectedFolder::default();
    let line = session.wait(tag, |data| selected.add_response(&data)).await?;
    Ok((line.status == StatusCondition::Ok).then_some(selected))
}

/// Two that are gone and one that is new: nobody knows.
fn without_rivals(found: Vec<RenameCandidate>) -> Vec<RenameCandidate> {
    let twice = |candidate: &RenameCandidate| found.iter().filter(|other| other.new == candidate.new).count() > 1;
    found.iter().filter(|candidate| !twice(candidate)).cloned().collect()
}

fn may_be_same_folder(state: &FolderState, status: &crate::imap::response::FolderStatus) -> bool {
    status.uid_validity == Some(state.source_uid_validity)
        && state.map.copied().last().is_some_and(|last| status.uid_next.is_some_and(|next| next > last.0))
}

fn last_copied(state: &FolderState) -> Vec<(SourceUid, DestinationUid)> {
    let index = state.map.index();
    let mut samples = Vec::new();
    for uid in state.map.copied().iter().rev() {
        if samples.len() as u64 >= SAMPLES {
            break;
        }
        if let Some((Some(destination), _)) = index.get(uid) {
            samples.push((uid, destination));
        }
    }
    samples
}

/// True when some samples are the same on both sides and none differ; what is gone on either side says nothing.
async fn same_messages(pair: &mut ConnectionPair, candidate: &RenameCandidate) -> Result<bool> {
    let opened = examine(&mut pair.source, &candidate.new).await?.is_some()
        && examine(&mut pair.destination, &candidate.destination).await?.is_some();
    if !opened {
        return Ok(false);
    }
    let at_source: UidSet<SourceUid> = candidate.samples.iter().map(|(source, _)| *source).collect();
    let at_destination: UidSet<DestinationUid> =
        candidate.samples.iter().map(|(_, destination)| *destination).collect();
    let source = fetch_hashes(&mut pair.source, &at_source, |_| None, &mut FailureBisector::default()).await?;
    let destination =
        fetch_hashes(&mut pair.destination, &at_destination, |_| None, &mut FailureBisector::default()).await?;
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
