//! Source folders that were renamed since the checkpoint: followed by their map, not copied again.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checkpoint::{Checkpoint, FolderState},
    connection_pair::ConnectionPair,
    copy_samples::{CopySample, compare_samples, last_copies},
    folder_name::MAX_RAW_NAME,
    live_checkpoint::LiveCheckpoint,
    report::MailboxReport,
};
use crate::{
    error::Result,
    imap::{
        Session,
        account_listing::{AccountListing, ListedFolder},
        mutf7,
        response::StatusCondition,
        select::{SelectedFolder, queue_examine},
    },
};

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
    live_checkpoint: &LiveCheckpoint,
    source: &AccountListing,
    report: &mut MailboxReport,
    memory: &mut RenameMemory,
) -> Result<()> {
    live_checkpoint.update(|checkpoint| {
        for (old, new) in respelled_folders(checkpoint, source) {
            report.notes.push(follow_rename(checkpoint, &old, &new));
        }
    });
    let mut candidates = Vec::new();
    for possible in live_checkpoint.read(|checkpoint| possible_renames(checkpoint, source)) {
        if memory.fatal.insert(possible.old.clone()) {
            let old = possible.old.clone();
            candidates.extend(resolve_rename(&mut pair.source, possible).await?);
            memory.fatal.remove(&old);
        }
    }
    for candidate in without_rivals(&candidates) {
        if !memory.fatal.insert(candidate.old.clone()) {
            continue;
        }
        let same = same_messages(pair, &candidate).await?;
        memory.fatal.remove(&candidate.old);
        if !same {
            continue;
        }
        live_checkpoint
            .update(|checkpoint| report.notes.push(follow_rename(checkpoint, &candidate.old, &candidate.new)));
    }
    Ok(())
}

/// Moves what is known of a folder to its new name; gives the note on it.
fn follow_rename(checkpoint: &mut Checkpoint, old: &[u8], new: &[u8]) -> String {
    if let Some(state) = checkpoint.folders.remove(old) {
        checkpoint.folders.insert(new.to_vec(), state);
    }
    let destination = checkpoint.mapping.remove(old).unwrap_or_else(|| new.to_vec());
    let note = format!(
        "{} was renamed to {} at the source; its mail goes on to {}",
        mutf7::decode_lossy(old),
        mutf7::decode_lossy(new),
        mutf7::decode_lossy(&destination)
    );
    checkpoint.mapping.insert(new.to_vec(), destination);
    note
}

/// Folders of the checkpoint that the source lists in another case now (`Sent` as `SENT`), by old and new raw name: the
/// same UIDVALIDITY and no other folder of that name are proof enough.
fn respelled_folders(checkpoint: &Checkpoint, source: &AccountListing) -> Vec<(Vec<u8>, Vec<u8>)> {
    let spelling = |raw: &[u8]| mutf7::decode_lossy(raw).to_lowercase();
    let mut known: BTreeMap<String, Vec<&Vec<u8>>> = BTreeMap::new();
    for raw in checkpoint.folders.keys() {
        known.entry(spelling(raw)).or_default().push(raw);
    }
    let mut listed: BTreeMap<String, Vec<&ListedFolder>> = BTreeMap::new();
    for folder in &source.folders {
        listed.entry(spelling(&folder.item.name)).or_default().push(folder);
    }
    let mut found = Vec::new();
    for (spelling, known) in &known {
        if let ([old], Some([new])) = (known.as_slice(), listed.get(spelling).map(Vec::as_slice))
            && source.folder(old).is_none()
            && checkpoint.mapping.contains_key(*old)
            && new.status.as_ref().and_then(|status| status.uid_validity)
                == checkpoint.folders.get(*old).map(|state| state.source_uid_validity)
        {
            found.push(((*old).clone(), new.item.name.to_vec()));
        }
    }
    found
}

/// Tells of folders that the checkpoint knows and the source no longer has, renamed ones apart.
pub(crate) fn note_vanished(live_checkpoint: &LiveCheckpoint, source: &AccountListing, report: &mut MailboxReport) {
    live_checkpoint.read(|checkpoint| {
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
    samples: Vec<CopySample>,
}

/// A folder of the checkpoint that is gone, and the new ones that may be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PossibleRename {
    old: Vec<u8>,
    new: Vec<Vec<u8>>,
    destination: Vec<u8>,
    mailbox_id: Option<String>,
    samples: Vec<CopySample>,
}

/// Folders of the checkpoint that are gone, each with the new folders that may be the same.
fn possible_renames(checkpoint: &Checkpoint, source: &AccountListing) -> Vec<PossibleRename> {
    let gone = checkpoint.folders.iter().filter(|(old, _)| source.folder(old).is_none());
    let mut found = Vec::new();
    for (old, state) in gone {
        let new: Vec<Vec<u8>> = source
            .folders
            .iter()
            .filter(|folder| folder.item.name.len() <= MAX_RAW_NAME)
            .filter(|folder| !checkpoint.folders.contains_key(folder.item.name.as_ref()))
            .filter(|folder| folder.status.as_ref().is_some_and(|status| may_be_same_folder(state, status)))
            .map(|folder| folder.item.name.to_vec())
            .collect();
        let Some(destination) = checkpoint.mapping.get(old) else { continue };
        let samples = last_copies(state);
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
fn without_rivals(found: &[RenameCandidate]) -> Vec<RenameCandidate> {
    let twice = |candidate: &RenameCandidate| found.iter().filter(|other| other.new == candidate.new).count() > 1;
    found.iter().filter(|candidate| !twice(candidate)).cloned().collect()
}

fn may_be_same_folder(state: &FolderState, status: &crate::imap::response::FolderStatus) -> bool {
    status.uid_validity == Some(state.source_uid_validity)
        && state.map.copied().last().is_some_and(|last| status.uid_next.is_some_and(|next| next > last.0))
}

/// True when some samples are the same on both sides and none differ; what is gone on either side says nothing.
async fn same_messages(pair: &mut ConnectionPair, candidate: &RenameCandidate) -> Result<bool> {
    let opened = examine(&mut pair.source, &candidate.new).await?.is_some()
        && examine(&mut pair.destination, &candidate.destination).await?.is_some();
    if !opened {
        return Ok(false);
    }
    Ok(compare_samples(pair, &candidate.samples).await?.agrees())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::response::{FolderStatus, ListItem};

    fn listing(names: &[&str]) -> AccountListing {
        let folder = |name: &&str| ListedFolder {
            item: ListItem { attributes: Vec::new(), delimiter: Some(b'/'), name: name.as_bytes().to_vec().into() },
            subscribed: false,
            status: Some(FolderStatus { uid_validity: Some(7), ..FolderStatus::default() }),
        };
        AccountListing { folders: names.iter().map(folder).collect(), ..AccountListing::default() }
    }

    fn respelled(known: &[&str], uid_validity: u32, listed: &[&str]) -> Vec<(String, String)> {
        let mut checkpoint = Checkpoint::default();
        for name in known {
            let raw = name.as_bytes().to_vec();
            checkpoint.mapping.insert(raw.clone(), raw.clone());
            let state = FolderState { source_uid_validity: uid_validity, ..FolderState::default() };
            checkpoint.folders.insert(raw, state);
        }
        let text = |raw: Vec<u8>| String::from_utf8(raw).unwrap();
        let found = respelled_folders(&checkpoint, &listing(listed));
        found.into_iter().map(|(old, new)| (text(old), text(new))).collect()
    }

    #[test]
    fn a_folder_that_is_listed_in_another_case_is_the_same() {
        let pair = |old: &str, new: &str| vec![(old.to_owned(), new.to_owned())];
        assert_eq!(respelled(&["Sent"], 7, &["INBOX", "SENT"]), pair("Sent", "SENT"));
        // B\u{fc}ro and B\u{dc}RO.
        assert_eq!(respelled(&["B&APw-ro"], 7, &["B&ANw-RO"]), pair("B&APw-ro", "B&ANw-RO"));
        assert_eq!(respelled(&["Sent"], 7, &["Sent"]), []);
    }

    #[test]
    fn another_uidvalidity_or_another_folder_of_that_name_makes_it_another() {
        assert_eq!(respelled(&["Sent"], 8, &["SENT"]), []);
        assert_eq!(respelled(&["Sent"], 7, &["SENT", "sent"]), []);
        assert_eq!(respelled(&["Sent", "sent"], 7, &["SENT"]), []);
    }

    #[test]
    fn what_is_known_of_a_renamed_folder_moves_to_its_new_name() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.folders.insert(b"Sent".to_vec(), FolderState::default());
        checkpoint.mapping.insert(b"Sent".to_vec(), b"Sent Items".to_vec());
        let note = follow_rename(&mut checkpoint, b"Sent", b"SENT");
        assert_eq!(note, "Sent was renamed to SENT at the source; its mail goes on to Sent Items");
        assert_eq!(checkpoint.mapping[b"SENT".as_slice()], b"Sent Items");
        assert!(checkpoint.folders.contains_key(b"SENT".as_slice()) && checkpoint.folders.len() == 1);
    }
}
