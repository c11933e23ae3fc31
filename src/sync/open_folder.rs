//! Opens a folder on both sides, and asks in the same breath for what will be needed.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;

use super::{
    checkpoint::FolderState,
    fetch_facts::{MESSAGE_ID_ITEMS, message_id_of},
    folder_listing::{check_count, may_be_listing},
    identity::MessageId,
    job::{FolderSyncContext, FolderSyncJob},
    limits::{WHOLE_BYTES, WHOLE_MESSAGES},
    message_limit::{ListingCommand, list_lower_pages},
    scan::{BEGINNING_BYTES, FolderScan, scan_from, scan_with_beginnings, scan_with_bodies},
    spec::{FlagHandling, MessageFilter},
    stand_in::is_known_notice,
    store_flags::CurrentFlags,
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::{Error, Result},
    imap::{
        Session, Uid, UidSet,
        parse::BEGINNING,
        refusal::CommandKind,
        response::{FetchResponse, StatusCondition, UntaggedResponse},
        select::{SelectedFolder, finish_selected, open_and_run, queue_examine, queue_select},
    },
};

/// What the source said when its folder was opened.
#[derive(Default)]
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
    /// The Message-ID of the sample that was asked for.
    pub sample: Option<MessageId>,
}

/// What is asked for when the source's folder is opened.
#[derive(Default)]
pub(crate) struct SourceQuery<'a> {
    /// The checkpoint, where it counts.
    pub state: Option<&'a FolderState>,
    /// Which messages come with their bodies.
    pub bodies: BodiesAlong,
    /// A copied message whose Message-ID is compared with its copy's.
    pub sample: Option<SourceUid>,
}

/// Which messages come along with the listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum BodiesAlong {
    /// None.
    #[default]
    Nothing,
    /// All.
    Whole,
    /// What is new and small.
    New,
}

impl BodiesAlong {
    /// What saves a round trip for this folder.
    pub(crate) fn choose(shared: &FolderSyncContext, job: &FolderSyncJob, state: Option<&FolderState>) -> Self {
        match state {
            _ if job.only.is_some() || shared.spec.dry_run || shared.spec.messages != MessageFilter::default() => {
                Self::Nothing
            }
            None if may_fetch_whole(shared, job) => Self::Whole,
            Some(state) if has_few_new(state, job) => Self::New,
            _ => Self::Nothing,
        }
    }
}

/// So many new messages come along with the listing: no more than fit into the buffers.
const FEW: u32 = 32;

/// True where at most [`FEW`] messages can be new, by the UIDNEXT that was listed.
fn has_few_new(state: &FolderState, job: &FolderSyncJob) -> bool {
    let next = state.finished_uids().last().map_or(1, |last| last.0.saturating_add(1));
    job.status.is_some_and(|status| (1..=FEW).contains(&status.uid_next.saturating_sub(next)))
}

/// True for a folder that is small, and of which nothing is at the destination: it comes whole, in one round trip.
fn may_fetch_whole(shared: &FolderSyncContext, job: &FolderSyncJob) -> bool {
    (job.new_at_destination || job.was_empty)
        && job.bytes.is_some_and(|bytes| bytes <= shared.budget)
        && job.messages <= WHOLE_MESSAGES
}

/// EXAMINEs the source's folder and asks, in the same breath, for what the checkpoint makes one expect to need.
pub(crate) async fn open_source(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    session: &mut Session,
    SourceQuery { state, bodies, sample }: SourceQuery<'_>,
) -> Result<OpenedSource> {
    let plain = SourceQuery { state, bodies: BodiesAlong::Nothing, sample };
    let last = state.and_then(|state| state.finished_uids().last()).map_or(0, |last| last.0);
    let from = last.saturating_add(1);
    let since = state.and_then(|state| state.highest_modseq).filter(|_| session.capabilities().condstore());
    let follows_flags = shared.spec.flag_policy == FlagHandling::SourceWins;
    // Up to the mark flags are not followed.
    let first = state.map_or(0, |state| state.mark_uid().0).saturating_add(1);
    let follows_flags = follows_flags && state.is_some_and(|state| !state.followed_uids().is_empty());
    let flags = follows_flags.then(|| flags_between(first, last, since));
    let search = state.map(|_| ListingCommand::search(session));
    let scan = match bodies {
        BodiesAlong::Nothing => scan_from(from),
        BodiesAlong::Whole => scan_with_bodies(),
        BodiesAlong::New => scan_with_beginnings(from),
    };
    let commands: Vec<ListingCommand> = search.into_iter().chain(flags.clone()).chain([scan]).collect();

    let mut answer = OpeningAnswer { from, bodies, room: shared.budget, ..OpeningAnswer::default() };
    let texts: Vec<String> = commands.iter().map(ToString::to_string).chain(sample.map(fetch_message_id)).collect();
    // What the folder holds was only claimed.
    session.allow_bytes((bodies == BodiesAlong::Whole).then_some(WHOLE_BYTES));
    let mut lines = open_and_run(session, queue_examine, &job.source_raw, &texts, |data| answer.take(data)).await?;
    session.allow_bytes(None);
    // Where it is refused, nothing is known of the sample.
    lines.truncate(commands.len() + 1);
    if let Some(line) = lines.first() {
        answer.opened.selected.add_response(&UntaggedResponse::Status(line.clone()));
    }
    for (command, line) in commands.iter().zip(lines.iter_mut().skip(1)) {
        *line = list_lower_pages(session, command, line.clone(), |data| answer.take(data)).await?;
    }
    if let Some(changed) = flags
        && let Some(since) = since
        && !counts_changes(since, answer.opened.selected.highest_modseq)
        && let Some(at) = commands.iter().position(|command| *command == changed)
        && let Some(line) = lines.get_mut(at + 1)
    {
        let all = flags_between(first, last, None);
        let tag = session.send_command(&all.to_string());
        let first = session.wait(tag, |data| answer.take(data)).await?;
        *line = list_lower_pages(session, &all, first, |data| answer.take(data)).await?;
    }
    for (at, line) in lines.iter().enumerate() {
        if at > 0 && line.status != StatusCondition::Ok && answer.opened.selected.exists == 0 {
            continue; // some refuse to list where there is nothing
        }
        if line.status != StatusCondition::Ok && bodies != BodiesAlong::Nothing {
            return Box::pin(open_source(shared, job, session, plain)).await;
        }
        if line.status != StatusCondition::Ok {
            return Err(session.refusal_error(line, CommandKind::Other, "to open or list the folder"));
        }
    }
    if answer.opened.bodies.values().any(|body| is_known_notice(body)) {
        // A size that came along with a notice says nothing: the folder is listed before its messages are asked for.
        return Box::pin(open_source(shared, job, session, plain)).await;
    }
    if answer.opened.selected.uid_validity == 0 {
        return Err(session.with_endpoint(Error::protocol("the server does not give the folder's UIDVALIDITY")));
    }
    let checked = check_count(answer.opened.selected.exists).and_then(|()| answer.opened.scan.check());
    checked.and_then(|()| answer.opened.news.check()).map_err(|error| session.with_endpoint(error))?;
    Ok(answer.finish(state.is_some()))
}

/// The command for the flags of messages that were dealt with, from UID `first` to `last`; with `since` only of those that changed since that
/// modification sequence (RFC 7162).
fn flags_between(first: u32, last: u32, since: Option<u64>) -> ListingCommand {
    let changed = since.map(|modseq| format!(" (CHANGEDSINCE {modseq})")).unwrap_or_default();
    ListingCommand::fetch(first, Some(last), format!("(UID FLAGS){changed}"))
}

/// True when a folder's modification sequences tell what changed since `since`: it has them still (no NOMODSEQ), and they
/// did not go back, as they do in a folder that was restored (RFC 7162, section 3.1.2).
fn counts_changes(since: u64, now: Option<u64>) -> bool {
    now.is_some_and(|now| now >= since)
}

/// What comes while a source folder is opened.
#[derive(Default)]
struct OpeningAnswer {
    opened: OpenedSource,
    /// What UID SEARCH lists.
    searched: UidSet,
    /// Messages below this UID were dealt with: of these only flags are asked for.
    from: u32,
    /// Bodies are asked for, too.
    bodies: BodiesAlong,
    /// Bytes of bodies that may still be held.
    room: u64,
}

impl OpeningAnswer {
    fn take(&mut self, data: UntaggedResponse) {
        self.opened.selected.add_response(&data);
        let fetch = match data {
            UntaggedResponse::Search { numbers: uids, .. } | UntaggedResponse::Esearch { uid: true, all: uids, .. } => {
                return self.searched.add(&uids);
            }
            UntaggedResponse::Fetch(fetch) => fetch,
            _ => return,
        };
        if let Some((_, id)) = message_id_of::<SourceUid>(&fetch) {
            self.opened.sample = Some(id);
        }
        match (fetch.uid, &fetch.flags) {
            (Some(uid), Some(flags)) if uid < self.from => self.opened.news.record_flags(SourceUid(uid), flags),
            (Some(uid), _) => {
                // What is too large to be held comes as an empty literal here, and is asked for again; so is what there is
                // no room for, since the folder is larger than it was said to be.
                if let Some(body) = self.body_of(&fetch).filter(|body| !body.is_empty())
                    && let Some(room) = self.room.checked_sub(body.len() as u64)
                    && let Entry::Vacant(place) = self.opened.bodies.entry(SourceUid(uid))
                {
                    place.insert(body);
                    self.room = room;
                }
                self.opened.scan.add_fetch(FetchResponse { sections: Vec::new(), ..fetch });
            }
            _ => {}
        }
    }

    /// The whole message, where it came along.
    fn body_of(&self, fetch: &FetchResponse) -> Option<Bytes> {
        let section = |wanted: &str| fetch.sections.iter().find(|(name, _)| name == wanted)?.1.clone();
        match self.bodies {
            BodiesAlong::Nothing => None,
            BodiesAlong::Whole => section(""),
            // It is all of it where it ends before what was asked for, and has the size that is listed.
            BodiesAlong::New => section(BEGINNING).filter(|body| {
                let came = body.len() as u64;
                came < BEGINNING_BYTES && fetch.size == Some(came)
            }),
        }
    }

    /// The scan covers everything, unless a checkpoint was known.
    fn finish(mut self, known: bool) -> OpenedSource {
        self.opened.scan.finish();
        self.opened.scan.messages.retain(|m| m.uid.0 >= self.from);
        if known {
            let searched = std::mem::take(&mut self.searched);
            let believed = may_be_listing(searched.len(), self.opened.selected.exists);
            let searched = if believed { searched.typed() } else { UidSet::default() };
            let listed = searched.union(&self.opened.scan.uids());
            self.opened.all = Some(listed.union(&self.opened.news.seen));
        }
        self.opened
    }
}

/// SELECTs the destination's folder: appending to a selected folder costs its server less. Gives the Message-ID of `sample`,
/// too, where there is one.
pub(crate) async fn open_destination(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    session: &mut Session,
    sample: Option<DestinationUid>,
) -> Result<(SelectedFolder, Option<MessageId>)> {
    if shared.spec.dry_run && job.new_at_destination {
        return Ok((SelectedFolder { uid_next: Some(1), ..SelectedFolder::default() }, None));
    }
    let queue = if shared.spec.dry_run { queue_examine } else { queue_select };
    let commands: Vec<String> = sample.map(fetch_message_id).into_iter().collect();
    let (mut selected, mut id) = (SelectedFolder::default(), None);
    let take = |data| {
        selected.add_response(&data);
        if let UntaggedResponse::Fetch(fetch) = data {
            id = message_id_of::<DestinationUid>(&fetch).map(|(_, id)| id).or(id);
        }
    };
    let lines = open_and_run(session, queue, &job.destination_raw, &commands, take).await?;
    let line = lines.into_iter().next().ok_or_else(|| Error::internal("a command without an answer"))?;
    Ok((finish_selected(session, selected, &line, &job.destination_name)?, id))
}

fn fetch_message_id<U: Uid>(uid: U) -> String {
    format!("UID FETCH {} {MESSAGE_ID_ITEMS}", uid.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modification_sequences_that_are_gone_or_went_back_tell_no_changes() {
        assert!(counts_changes(9, Some(9)) && counts_changes(9, Some(10)));
        assert!(!counts_changes(9, Some(8)) && !counts_changes(9, None));
    }

    #[test]
    fn flags_are_asked_for_by_change_only_where_changes_are_counted() {
        assert_eq!(flags_between(1, 7, Some(9)).to_string(), "UID FETCH 1:7 (UID FLAGS) (CHANGEDSINCE 9)");
        assert_eq!(flags_between(5, 7, None).to_string(), "UID FETCH 5:7 (UID FLAGS)");
    }
}
