//! Opens a folder on both sides, and asks in the same breath for what will be needed.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    checkpoint::FolderState,
    fetch_facts::UidSearch,
    job::{FolderSyncContext, FolderSyncJob},
    scan::{FolderScan, SCAN_WITH_BODIES, scan_from},
    spec::{FlagHandling, MessageFilter},
    stand_in::is_known_notice,
    store_flags::CurrentFlags,
    uid::SourceUid,
};
use crate::{
    error::{Error, Result},
    imap::{
        Session, UidSet,
        refusal::CommandKind,
        response::{StatusCondition, UntaggedResponse},
        select::{SelectedFolder, examine_and_run, queue_examine, queue_select, wait_for_selected},
    },
};

/// What the source said when its folder was opened.
pub(crate) struct OpenedSource {
    /// UIDVALIDITY and the like.
    pub selected: SelectedFolder,
    /// Facts about the messages, as far as they were asked for.
    pub scan: FolderScan,
    /// All UIDs, where the scan does not cover them.
    pub all: Option<UidSet<SourceUid>>,
    /// Flags of messages that were copied before.
    pub news: CurrentFlags,
    /// Messages that came along with the scan.
    pub bodies: BTreeMap<SourceUid, Bytes>,
}

/// True for a folder that is all new and small: it comes whole, in one round trip.
pub(crate) fn may_fetch_whole(shared: &FolderSyncContext, job: &FolderSyncJob, state: Option<&FolderState>) -> bool {
    state.is_none()
        && job.new_at_destination
        && !shared.spec.dry_run
        && shared.spec.messages == MessageFilter::default()
        && job.bytes.is_some_and(|bytes| bytes <= shared.budget)
}

/// EXAMINEs the source's folder and asks, in the same breath, for what the checkpoint makes one expect to need.
pub(crate) async fn open_source(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    session: &mut Session,
    state: Option<&FolderState>,
    whole: bool,
) -> Result<OpenedSource> {
    let condstore = session.capabilities().condstore();
    let mut commands = Vec::new();
    let mut from = 1;
    if let Some(state) = state {
        let last = state.finished_uids().last().map_or(0, |last| last.0);
        from = last.saturating_add(1);
        commands.push(UidSearch::command(session).to_owned());
        if shared.spec.flag_policy == FlagHandling::SourceWins && !state.map.is_empty() {
            let since = state.highest_modseq.filter(|_| condstore);
            let changed = since.map(|modseq| format!(" (CHANGEDSINCE {modseq})")).unwrap_or_default();
            commands.push(format!("UID FETCH 1:{last} (UID FLAGS){changed}"));
        }
    }
    commands.push(if whole { SCAN_WITH_BODIES.to_owned() } else { scan_from(from) });

    let mut opened = OpenedSource {
        selected: SelectedFolder::default(),
        scan: FolderScan::default(),
        all: None,
        news: CurrentFlags::default(),
        bodies: BTreeMap::new(),
    };
    let mut all = UidSearch::default();
    let lines = examine_and_run(session, &job.source_raw, &commands, |data| {
        opened.selected.add_response(&data);
        all.add_response(&data);
        if let UntaggedResponse::Fetch(fetch) = data {
            match (fetch.uid, &fetch.flags) {
                (Some(uid), Some(flags)) if uid < from => opened.news.record_flags(SourceUid(uid), flags),
                (Some(uid), _) => {
                    let body = fetch.sections.iter().find(|(name, _)| name.is_empty());
                    // What is too large to be held comes as an empty literal here, and is asked for again.
                    if let Some((_, Some(body))) = body.filter(|_| whole)
                        && !body.is_empty()
                    {
                        opened.bodies.insert(SourceUid(uid), body.clone());
                    }
                    opened.scan.add_fetch(fetch);
                }
                _ => {}
            }
        }
    })
    .await?;
    for (at, line) in lines.iter().enumerate() {
        if at > 0 && line.status != StatusCondition::Ok && opened.selected.exists == 0 {
            continue; // some refuse to list where there is nothing
        }
        if line.status != StatusCondition::Ok && whole {
            return Box::pin(open_source(shared, job, session, state, false)).await;
        }
        if line.status != StatusCondition::Ok {
            return Err(session.refusal_error(line, CommandKind::Other, "to open or list the folder"));
        }
    }
    if opened.bodies.values().any(|body| is_known_notice(body)) {
        // A size that came along with a notice says nothing: the folder is listed before its messages are asked for.
        return Box::pin(open_source(shared, job, session, state, false)).await;
    }
    if let Some(line) = lines.first() {
        opened.selected.add_response(&UntaggedResponse::Status(line.clone()));
    }
    if opened.selected.uid_validity == 0 {
        return Err(session.with_endpoint(Error::protocol("the server tells no UIDVALIDITY")));
    }
    opened.scan.finish();
    opened.scan.messages.retain(|m| m.uid.0 >= from);
    if state.is_some() {
        opened.all = Some(all.uids.typed().union(&opened.scan.uids()).union(&opened.news.seen));
    }
    Ok(opened)
}

/// SELECTs the destination's folder: appending to a selected folder costs its server less.
pub(crate) async fn open_destination(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    session: &mut Session,
) -> Result<SelectedFolder> {
    if shared.spec.dry_run && job.new_at_destination {
        return Ok(SelectedFolder { uid_next: Some(1), ..SelectedFolder::default() });
    }
    let open = if shared.spec.dry_run { queue_examine } else { queue_select };
    let tag = open(session, &job.destination_raw);
    wait_for_selected(session, tag, &job.destination_name).await
}
