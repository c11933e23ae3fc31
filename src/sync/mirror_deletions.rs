//! Mirrors deletions: only what we appended ourselves, only by UID EXPUNGE, only where it is certain that the source has
//! deleted them.

use super::{
    deletion_plan::{DeletionConfirmation, SourceSnapshot, WithheldDeletions, decide_deletions},
    live_checkpoint::LiveCheckpoint,
    message_limit::command_sets,
    report::FolderReport,
};
use crate::{
    error::Result,
    imap::{Session, Tag, refusal::CommandKind, response::StatusCondition},
};

/// Removes copies whose source message is gone. Never CLOSE, never a plain EXPUNGE: both take the user's own \Deleted
/// mail. Gives the number of messages removed; doubts, and what is held until it is confirmed, go to the report.
///
/// # Errors
/// When the connection ends or the destination refuses.
pub(crate) async fn mirror_deletions(
    live_checkpoint: &LiveCheckpoint,
    confirmation: &DeletionConfirmation<'_>,
    now: &SourceSnapshot<'_>,
    destination: &mut Session,
    report: &mut FolderReport,
) -> Result<u64> {
    let source_raw = confirmation.folder;
    let (vanished, copies) = {
        let decided = live_checkpoint.update_folder(source_raw, |state| {
            decide_deletions(state, now, confirmation).map(|vanished| {
                let copies = state.map.index().destinations_of(&vanished.delete).0;
                (vanished, copies)
            })
        })?;
        match decided {
            Ok(decided) => decided,
            Err(WithheldDeletions::Doubt(doubt)) => {
                report.doubts.push(doubt);
                return Ok(0);
            }
            Err(WithheldDeletions::Held(held)) => {
                report.doubts.push(held.to_string());
                report.held_deletions = Some(held);
                return Ok(0);
            }
        }
    };
    if !copies.is_empty() {
        if !destination.capabilities().has("UIDPLUS") && !destination.capabilities().has("IMAP4REV2") {
            report.doubts.push(format!(
                "{} messages vanished from the source, but the destination has no UID EXPUNGE (UIDPLUS), without which \
                 other mail could be lost; nothing was deleted",
                copies.len()
            ));
            return Ok(0);
        }
        let mut tags: Vec<Tag> = Vec::new();
        for set in command_sets(destination, &copies) {
            tags.push(destination.send_command(&format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)")));
            tags.push(destination.send_command(&format!("UID EXPUNGE {set}")));
        }
        let lines = destination.wait_all(&tags, |_| {}).await?;
        if let Some(line) = lines.iter().find(|line| line.status != StatusCondition::Ok) {
            return Err(destination.refusal_error(line, CommandKind::Other, "to remove messages"));
        }
    }
    let gone = vanished.delete.union(&vanished.keep);
    live_checkpoint.update_folder(source_raw, |state| {
        state.map.remove_sources(&gone);
        // Of what is gone nothing need be known, or it would look like a deletion to come.
        state.set_aside.retain_uids(now.all);
        for set in state.flags.values_mut() {
            *set = set.difference(&gone);
        }
    })?;
    Ok(copies.len())
}
