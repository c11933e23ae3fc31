//! A folder that goes away in the middle: whether it was removed, and whether it may be made again.

use bytes::Bytes;

use super::{
    connection_pair::ConnectionPair,
    copy::CopyMemory,
    folder_creation::list_names,
    job::{FolderSyncContext, FolderSyncJob},
};
use crate::{
    error::{Error, ErrorClass, GiveUpScope, Result, Side},
    imap::{Session, account_listing::is_same_folder_name, response::StatusCondition},
};

/// What to do about a folder that cannot be used any more.
pub(super) enum FolderRecovery {
    /// It is there, or there again: once more.
    Again,
    /// The source removed or renamed it: nothing is left to do. The note says so.
    Gone(String),
    /// The destination's user removed it: it is left alone in this run. The error says so.
    Removed(Error),
    /// The error has another reason.
    NotConcerned,
}

/// Finds out whether an error means that the folder is gone, which is no question of rights; makes it again at the
/// destination where nobody can have removed it on purpose: once a run, and only if this run made it or it was never filled.
pub(super) async fn recover_folder(
    shared: &FolderSyncContext,
    job: &mut FolderSyncJob,
    memory: &mut CopyMemory,
    pair: Option<&mut ConnectionPair>,
    error: &Error,
) -> FolderRecovery {
    let (Some(side), Some(pair)) = (error.side, pair) else { return FolderRecovery::NotConcerned };
    let is_refused_opening = error.class == ErrorClass::Authorization && !memory.opened;
    if !is_refused_opening && !memory.folder_gone {
        return FolderRecovery::NotConcerned;
    }
    memory.folder_gone = false;
    let (session, raw) = match side {
        Side::Source => (&mut pair.source, job.source_raw.as_slice()),
        Side::Destination => (&mut pair.destination, job.destination_raw.as_slice()),
    };
    let is_listed = |names: Vec<Bytes>| names.iter().any(|name| is_same_folder_name(name, raw));
    let listed = match list_names(session).await {
        Ok(names) => is_listed(names),
        Err(_) => return FolderRecovery::NotConcerned,
    };
    match side {
        _ if listed => FolderRecovery::NotConcerned,
        Side::Source => {
            FolderRecovery::Gone(format!("{} was removed or renamed at the source during the sync", job.source_name))
        }
        Side::Destination => {
            let read = |map: &super::checkpoint::FolderState| !map.map.is_empty();
            let was_filled = shared.live_checkpoint.read(|c| c.folders.get(&job.source_raw).is_some_and(read));
            let may_make = !shared.spec.dry_run && (job.new_at_destination || !was_filled);
            if may_make && !std::mem::replace(&mut memory.made_again, true) {
                match make(session, &job.destination_raw).await {
                    Ok(true) => {
                        tracing::info!("the destination folder was gone and is made again");
                        job.new_at_destination = true;
                        job.snapshot = None;
                        return FolderRecovery::Again;
                    }
                    Ok(false) => {}
                    Err(_) => return FolderRecovery::NotConcerned,
                }
            }
            let what = "the destination folder was removed during the sync, and is not made again by this run";
            let mut removed = Error::network(what).in_folder(&job.source_name);
            removed = session.with_endpoint(removed).advice("The next run makes it again and copies it as a whole");
            removed.finality = GiveUpScope::Folder;
            FolderRecovery::Removed(removed)
        }
    }
}

/// Makes a folder; false where the server refuses.
async fn make(session: &mut Session, raw: &[u8]) -> Result<bool> {
    let tag = session.send_folder_command("CREATE", raw, "");
    Ok(session.wait(tag, |_| {}).await?.status == StatusCondition::Ok)
}
