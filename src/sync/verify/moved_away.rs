//! Messages whose copies a sync found in other folders of the destination: the checkpoint says where, and the destination is
//! asked whether they are there still.

use crate::{
    error::Result,
    imap::{
        Session, UidSet,
        account_listing::is_same_folder_name,
        response::StatusCondition,
        select::{SelectedFolder, queue_examine},
    },
    sync::{
        checkpoint::Checkpoint,
        fetch_facts::search_present_uids,
        folder_plan::PlannedFolder,
        moved_match::MovedCopies,
        uid::{DestinationUid, SourceUid},
    },
};

/// What a checkpoint tells of one folder's moved messages.
#[derive(Debug, Default)]
pub(super) struct MovedAway {
    /// The source's UIDVALIDITY that the source UIDs belong to.
    source_uid_validity: u32,
    /// Where copies of this folder's messages are.
    away: Vec<MovedCopies>,
    /// Copies of other folders' messages in this destination folder, with its UIDVALIDITY.
    here: Vec<(u32, UidSet<DestinationUid>)>,
    /// Messages whose copies are there.
    present: Option<UidSet<SourceUid>>,
}

impl MovedAway {
    /// What `checkpoint` tells of a folder.
    pub(super) fn from_checkpoint(checkpoint: &Checkpoint, folder: &PlannedFolder) -> Self {
        let state = checkpoint.folders.get(&folder.source_raw);
        let all = checkpoint.folders.values().flat_map(|state| &state.moved);
        let here = all.filter(|moved| is_same_folder_name(&moved.folder, &folder.destination_raw));
        Self {
            source_uid_validity: state.map_or(0, |state| state.source_uid_validity),
            away: state.map(|state| state.moved.clone()).unwrap_or_default(),
            here: here.map(|moved| (moved.uid_validity, moved.map.destination_uids().clone())).collect(),
            present: None,
        }
    }

    /// Asks which of the copies are there still, once. A folder that can't be opened has none.
    ///
    /// # Errors
    /// When the connection ends, or the server is busy.
    pub(super) async fn find_present(&mut self, session: &mut Session, source_uid_validity: Option<u32>) -> Result<()> {
        if self.present.is_some() || self.away.is_empty() || source_uid_validity != Some(self.source_uid_validity) {
            return Ok(());
        }
        let mut present = UidSet::default();
        for moved in &self.away {
            let mut selected = SelectedFolder::default();
            let tag = queue_examine(session, &moved.folder);
            let line = session.wait(tag, |data| selected.add_response(&data)).await?;
            if line.status == StatusCondition::Ok && selected.uid_validity == moved.uid_validity {
                let there = search_present_uids(session, moved.map.destination_uids()).await?;
                present = present.union(&moved.map.sources_of(&there));
            }
        }
        self.present = Some(present);
        Ok(())
    }

    /// True for a message whose copy is in another folder.
    pub(super) fn is_present(&self, uid: SourceUid) -> bool {
        self.present.as_ref().is_some_and(|present| present.contains(uid))
    }

    /// True for a message of this destination folder that is the copy of another folder's message.
    pub(super) fn is_others_copy(&self, uid: DestinationUid, uid_validity: Option<u32>) -> bool {
        self.here.iter().any(|(validity, uids)| Some(*validity) == uid_validity && uids.contains(uid))
    }
}
