//! One folder on one pair of connections: open, scan, settle doubts, copy, flags, deletions, close. Can be run again from
//! the beginning after any failure; the checkpoint and [`CopyMemory`] hold what was done.

use std::{iter, time::Duration};

use super::{
    adopt::{
        CopyLookup, FolderStartMode, choose_start_mode, is_same_folder, report_changes, resolve_changed_uids,
        resolve_unknown_uids,
    },
    checkpoint::{FolderState, fingerprint},
    connection_pair::ConnectionPair,
    copy::{CopyContext, CopyMemory},
    copy_check::check_copies,
    copy_samples::{compare_samples, last_copies},
    copy_search::min_look_interval,
    deletion_plan::{DeletionConfirmation, SourceSnapshot},
    folder_copy::FolderCopy,
    folder_listing::FolderListing,
    folder_record::{is_matched_first, record_finish, record_match, record_start},
    folder_work::{FolderWork, OpenedFolder, compare, forget_gone},
    found_copies::FoundCopies,
    job::{FolderSyncContext, FolderSyncJob, SyncEnd},
    late_copies::report_late_copies,
    mirror_deletions::mirror_deletions,
    open_folder::{BodiesAlong, SourceQuery, open_destination, open_source},
    progress::SyncProgress,
    read_back::compare_copies,
    report::{FolderReport, MAX_LISTED},
    scan::{FolderScan, ScannedMessage},
    set_aside::{SetAside, SetAsideGroup, SetAsideReason},
    shown_copy::ShownCopies,
    spec::{DeletionHandling, FlagHandling},
    store_flags::{SentFlagChanges, add_missing_flags, finish_flag_changes, send_flag_changes, unplaced_changes},
    suspects::EarlierTries,
    uid::SourceUid,
    uncertain_copies::report_unseen,
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{ServerKind, UidSet},
};

/// Syncs one folder.
///
/// # Errors
/// What ended it; after errors of the connection it can be run again on new ones.
pub(crate) async fn sync_folder(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    pair: &mut ConnectionPair,
    memory: &mut CopyMemory,
    report: &mut FolderReport,
) -> Result<SyncEnd> {
    let (slowest, rewrites) =
        shared.live_checkpoint.read(|checkpoint| (checkpoint.slowest_commit, checkpoint.shows_rewriting()));
    memory.destination_rewrites = rewrites || pair.destination.server_kind() == ServerKind::Exchange;
    memory.commit_allowance = commit_allowance(slowest, memory.silence, shared.spec.retry.patience);
    let Some(mut opened) = open_both(shared, job, pair, memory).await? else {
        return Ok(SyncEnd::Stopped);
    };
    memory.opened = true;
    if opened.begin == FolderStartMode::Match {
        // UIDs of a folder that was there before.
        memory.appended.clear();
        memory.shown = ShownCopies::default();
        memory.read_back.clear();
        memory.copies_from = None;
    }
    if memory.copies_from.is_none() {
        memory.copies_from = opened.destination.uid_next.or(job.snapshot.map(|snapshot| snapshot.uid_next));
    }
    let append_limit = job.append_limit.or_else(|| pair.destination.capabilities().append_limit());
    let facts = shared.try_facts(append_limit);
    let mut work = compare(shared, job, &mut opened, &facts, pair, (memory, report)).await?;
    let mut found = adopt((shared, job), &opened, &work, pair, memory).await?;
    memory.tail_seen = true;
    let seen = found.uid_next.filter(|_| opened.begin == FolderStartMode::Tail && job.in_doubt);
    let adopted: UidSet<SourceUid> = found.copies.iter().map(|f| f.source).collect();
    let scan = &opened.source.scan;
    let adopted_bytes = work.messages(scan).filter(|m| adopted.contains(m.uid)).map(|m| u64::from(m.size)).sum();
    work.uids = work.uids.difference(&adopted);
    let unknown = opened.known.as_ref().map(|state| state.map.unknown_uids()).unwrap_or_default();
    let newly_adopted = adopted.difference(&unknown).len();
    if shared.spec.dry_run {
        report.adopted += newly_adopted;
        record_match(shared, job, &opened, &work, (&found, &*report));
        report_dry_run(shared, opened, work, &adopted, report);
        return Ok(SyncEnd::Complete);
    }

    let marked = found.copies.iter().take_while(|copy| copy.source <= work.matched_up_to);
    found.drop_missing_flags(&marked.map(|copy| copy.destination).collect());
    let follows_flags = shared.spec.flag_policy == FlagHandling::SourceWins;
    let lacks_flags = follows_flags && !found.lacking_flags().is_empty();
    let waits = !memory.is_searched && is_matched_first(job, &opened) && (!work.uids.is_empty() || lacks_flags);
    // Before the checkpoint says that the source's flags are there: what breaks off here is found and done again. A folder
    // that waits gets them when its turn comes.
    if follows_flags && !waits {
        report.flags_updated += add_missing_flags(&mut pair.destination, &opened.destination, &found, report).await?;
    }
    if work.first {
        for message in work.messages(&opened.source.scan).filter(|m| work.due.contains(m.uid)) {
            try_again(memory, &opened.set_aside, message);
        }
    }
    record_start(shared, job, &mut opened, &mut work, (&found, waits), memory);
    if work.first {
        report_earlier_differences(shared, job, report)?;
    }
    report_changes(&found, &unknown, report);
    report_doubtful_copies(found.doubtful, report);
    report.adopted += newly_adopted;
    if !memory.is_searched {
        record_match(shared, job, &opened, &work, (&found, &*report));
    }
    drop(found);
    SyncProgress::add(&shared.progress.messages_done, adopted.len());
    SyncProgress::add(&shared.progress.whole.bytes_before, adopted_bytes);
    if waits {
        return Ok(SyncEnd::Matched);
    }
    let messages: Vec<ScannedMessage> = work.messages(&opened.source.scan).copied().collect();
    memory.may_have_sent |= !messages.is_empty();
    let messages = WorkToCopy { messages, append_limit, seen };
    // Answered while messages are fetched and copied.
    let news = &opened.source.news;
    let is_placed = |state: &mut FolderState| unplaced_changes(state, news).is_empty();
    let flags = if opened.begin == FolderStartMode::Delta
        && shared.live_checkpoint.update_folder(&job.source_raw, is_placed)?
    {
        send_changed_flags(shared, job, &opened, pair)?
    } else {
        None
    };
    if copy_work(shared, job, &mut opened, messages, (&mut *pair, &mut *memory, &mut *report)).await?
        == SyncEnd::Stopped
    {
        return Ok(SyncEnd::Stopped);
    }
    close(shared, job, &opened, (&work.held, flags), (pair, memory, report)).await?;
    Ok(SyncEnd::Complete)
}

/// Opens the folder on both sides; none when it was asked to stop meanwhile.
async fn open_both(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    pair: &mut ConnectionPair,
    memory: &mut CopyMemory,
) -> Result<Option<OpenedFolder>> {
    let kept = shared.live_checkpoint.read(|checkpoint| checkpoint.folders.get(&job.source_raw).cloned());
    let state = kept.clone().filter(|state| !state.is_known_by_samples());
    // Only once: what ends the connection may be one message.
    let bodies = match BodiesAlong::choose(shared, job, state.as_ref()) {
        // Nothing is copied before all folders were matched.
        _ if job.matches_first && !memory.is_searched => BodiesAlong::Nothing,
        _ if std::mem::replace(&mut memory.came_along, true) => BodiesAlong::Nothing,
        bodies => bodies,
    };
    let samples = state.as_ref().filter(|_| !std::mem::replace(&mut memory.sampled, true)).map(last_copies);
    let sample = samples.as_ref().and_then(|samples| samples.first().copied());
    let ConnectionPair { source, destination } = pair;
    let allowance = memory.commit_allowance;
    // The source is listed meanwhile: with many messages that takes as long as the wait.
    let look_and_open = async {
        if wait_for_look(shared, job, state.as_ref(), (destination.round_trip(), allowance)).await == SyncEnd::Stopped {
            return Ok(None);
        }
        open_destination(shared, job, destination, sample.map(|(_, copy)| copy)).await.map(Some)
    };
    let query = SourceQuery { state: state.as_ref(), bodies, sample: sample.map(|(message, _)| message) };
    let (opened_source, opened_destination) = tokio::join!(open_source(shared, job, source, query), look_and_open);
    let (mut source, Some((destination, copy))) = (opened_source?, opened_destination?) else {
        return Ok(None);
    };
    if !shared.spec.dry_run && destination.read_only {
        return Err(pair.destination.with_endpoint(
            Error::new(ErrorClass::Authorization, format!("{} can only be read", job.destination_name))
                .advice("Give the destination's user the right to write to it"),
        ));
    }
    let listed = source.all.clone().unwrap_or_default();
    let is_same = |kept: &&FolderState| is_same_folder(kept, &source.selected, &listed, &destination);
    // What earlier runs set aside counts as long as the folder on both sides is the one that it was.
    let mut same = kept.as_ref().filter(is_same);
    if let (Some(_), Some(message), Some(copy)) = (same, source.sample, copy)
        && message != copy
        && compare_samples(pair, &samples.unwrap_or_default()).await?.contradicts()
    {
        tracing::warn!("the UIDs of the folder stand for other messages than before: it is compared as a whole");
        same = None;
    }
    let set_aside = same.map(|kept| kept.set_aside.clone()).unwrap_or_default();
    let uid_next = destination.uid_next.or(job.snapshot.map(|snapshot| snapshot.uid_next));
    let has_grown = !memory.tail_seen && state.as_ref().is_some_and(|state| state.has_grown(uid_next));
    let begin = choose_start_mode(state.as_ref(), same.is_some(), job.in_doubt || has_grown);
    if begin == FolderStartMode::Match && source.all.is_some() {
        // The listing promised the folder of the checkpoint: what was asked for on that promise is of no use.
        source = open_source(shared, job, &mut pair.source, SourceQuery::default()).await?;
    }
    let known = state.filter(|_| begin != FolderStartMode::Match);
    Ok(Some(OpenedFolder { source, destination, begin, known, set_aside }))
}

/// Finds what of the work is at the destination already.
async fn adopt(
    (shared, job): (&FolderSyncContext, &FolderSyncJob),
    opened: &OpenedFolder,
    work: &FolderWork,
    pair: &mut ConnectionPair,
    memory: &mut CopyMemory,
) -> Result<FoundCopies> {
    let OpenedFolder { source, destination, begin, known, .. } = opened;
    let lookup = CopyLookup {
        job,
        begin: *begin,
        known: known.as_ref(),
        scan: &source.scan,
        work: &work.uids,
        destination,
        taken: &shared.live_checkpoint.read(|c| c.moved_into(&job.destination_raw, destination.uid_validity)),
        scope: shared.spec.adopt,
        stop: &shared.stop,
    };
    let mut found = lookup.find(pair, memory).await?;
    let unsought = lookup.find_unsought(&found.copies, pair, memory).await?;
    found.merge(unsought);
    if *begin != FolderStartMode::Delta {
        // What was refused was looked for, too.
        for copy in &found.copies {
            memory.suspects.record_found(copy.source);
        }
        memory.suspects.clear_doubt();
    }
    Ok(found)
}

/// What is left to copy, and what is known of the destination for it.
struct WorkToCopy {
    messages: Vec<ScannedMessage>,
    /// The largest message that it takes, bytes, where it says so.
    append_limit: Option<u64>,
    /// Its UIDNEXT when two looks agreed on what is there, if anything was in doubt.
    seen: Option<u32>,
}

/// Tells that what is at the destination may be copied once more.
fn report_doubtful_copies(doubtful: u64, report: &mut FolderReport) {
    if doubtful > 0 {
        report.notes.push(format!(
            "{doubtful} of the destination's messages look like copies, and of which messages can't be told: these are \
             copied"
        ));
    }
}

/// Copies what is left.
async fn copy_work(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    opened: &mut OpenedFolder,
    WorkToCopy { messages: work, append_limit, seen }: WorkToCopy,
    (pair, memory, report): (&mut ConnectionPair, &mut CopyMemory, &mut FolderReport),
) -> Result<SyncEnd> {
    let bodies = std::mem::take(&mut opened.source.bodies);
    let scan = &opened.source.scan;
    let context = CopyContext {
        source_raw: &job.source_raw,
        destination_raw: &job.destination_raw,
        selected: &opened.destination,
        scan,
        live_checkpoint: &shared.live_checkpoint,
        progress: &shared.progress,
        stop: &shared.stop,
        patience: shared.spec.retry.patience,
        budget: shared.budget,
        adds_newline: job.adds_newline,
        append_limit,
        breakers: &shared.breakers,
        exclusive_append: &shared.exclusive_append,
    };
    let finished = UidSet::default();
    let (memory, report) = (&mut *memory, &mut *report);
    let copying =
        FolderCopy { shared, job, context, pair, memory: &mut *memory, report: &mut *report, work, finished, seen };
    let copied = copying.run(bodies).await;
    report_message_facts(shared, job, scan, report);
    let ended = copied?;
    if ended == SyncEnd::Stopped {
        let unseen = memory.appended.len();
        if unseen > 0 {
            let note = format!("{unseen} copies were not compared with their messages: it was asked to stop before");
            report.notes.push(note);
        }
        // What was refused may have been stored all the same.
        let in_doubt = memory.in_doubt || memory.suspects.doubt_from.is_some();
        shared.live_checkpoint.update_folder(&job.source_raw, |state| {
            state.append_in_doubt = in_doubt;
            if !in_doubt {
                state.record_destination_next(opened.destination.uid_next);
            }
        })?;
    }
    Ok(ended)
}

/// After the copies: their UIDs, their bytes where these may differ, flags, deletions, and the end of the doubt.
async fn close(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    opened: &OpenedFolder,
    (held, flags): (&FolderListing<SourceUid>, Option<SentFlagChanges>),
    (pair, memory, report): (&mut ConnectionPair, &mut CopyMemory, &mut FolderReport),
) -> Result<()> {
    let OpenedFolder { source, destination, begin, .. } = opened;
    let raw = &job.source_raw;
    resolve_unknown_uids(shared, job, &source.scan, pair, memory).await?;
    report_unseen(shared, job, pair, (&mut *memory, &mut *report)).await?;
    // Once: what ends the connection may be one of these messages.
    let unusual = std::mem::take(&mut memory.read_back);
    let compared = compare_copies(pair, &source.scan, &unusual, report).await.inspect_err(|_| {
        let what = "unusual messages were not compared with their copies: the connection ended meanwhile";
        report.notes.push(what.to_owned());
    })?;
    let scan = (&source.scan, destination);
    check_copies(shared, job, scan, &compared, (&mut *pair, &mut *memory, &mut *report)).await?;
    report_late_copies(shared, job, &source.scan, pair, (&mut *memory, &mut *report)).await?;
    shared.live_checkpoint.update_folder(raw, |state| state.unseen = UidSet::default())?;
    let follows = shared.spec.flag_policy == FlagHandling::SourceWins && *begin != FolderStartMode::Match;
    let flags = if flags.is_none() && follows {
        resolve_changed_uids(shared, job, &source.news, pair, memory).await?;
        send_changed_flags(shared, job, opened, pair)?
    } else {
        flags
    };
    if let Some(sent) = flags {
        let to = &mut pair.destination;
        report.flags_updated +=
            finish_flag_changes(&shared.live_checkpoint, raw, &source.news, sent, to, report).await?;
    }
    if shared.spec.delete_policy == DeletionHandling::Mirror && *begin != FolderStartMode::Match {
        let now = SourceSnapshot {
            uid_validity: source.selected.uid_validity,
            uid_next: source.selected.uid_next,
            messages: source.selected.exists,
            unlisted: held.unlisted,
            all: &held.uids,
        };
        let accounts = fingerprint(&shared.spec.source, &shared.spec.destination);
        let tokens = &shared.spec.confirm_deletions;
        let confirmation = DeletionConfirmation { accounts: &accounts, folder: raw, tokens };
        let to = &mut pair.destination;
        report.deleted += mirror_deletions(&shared.live_checkpoint, &confirmation, &now, to, report).await?;
    }
    record_finish(shared, job, (&source.selected, destination), report)
}

/// Sends what changed of the flags of copied messages; none when nothing did, or nothing is to follow.
fn send_changed_flags(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    opened: &OpenedFolder,
    pair: &mut ConnectionPair,
) -> Result<Option<SentFlagChanges>> {
    if shared.spec.flag_policy != FlagHandling::SourceWins {
        return Ok(None);
    }
    let news = &opened.source.news;
    send_flag_changes(&shared.live_checkpoint, &job.source_raw, news, &opened.destination, &mut pair.destination)
}

/// How slow the destination may be once more: twice the slowest that was seen of it, `slowest` in milliseconds, or the silence
/// in which the last connection ended; no longer than it is waited for at all.
fn commit_allowance(slowest: u32, silence: Duration, patience: Duration) -> Duration {
    (Duration::from_millis(slowest.into()).max(silence) * 2).min(patience)
}

/// An empty destination folder need not be searched if it is still empty long enough after it was listed: so it is opened
/// only then.
async fn wait_for_look(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    state: Option<&FolderState>,
    (round_trip, allowance): (Duration, Duration),
) -> SyncEnd {
    let Some(snapshot) = job.snapshot.filter(|_| job.was_empty && job.messages > 0 && state.is_none()) else {
        return SyncEnd::Complete;
    };
    if job.new_at_destination || shared.spec.dry_run {
        return SyncEnd::Complete;
    }
    tokio::select! {
        () = tokio::time::sleep_until(snapshot.at + min_look_interval(round_trip, allowance, iter::empty())) => SyncEnd::Complete,
        () = shared.stop.cancelled() => SyncEnd::Stopped,
    }
}

/// A refused message of an earlier run is tried with those that are refused by this one; what the source could not deliver,
/// or was too large, is ordinary work now.
fn try_again(memory: &mut CopyMemory, set_aside: &SetAside, message: &ScannedMessage) {
    let Some(group) = set_aside.group_of(message.uid) else { return };
    if group.reason == SetAsideReason::Unreadable {
        memory.failures.add_earlier(message.uid);
    }
    if matches!(group.reason, SetAsideReason::Refused | SetAsideReason::Empty) {
        let earlier = EarlierTries { proven: group.proven, tries: group.tries, runs: group.runs };
        let error = Error::new(group.class, format!("the server refused APPEND: {}", group.why));
        memory.suspects.add_earlier(message, error, group.why.clone(), earlier);
    }
}

/// Tells after a dry run what would be copied, and what would not, as far as that is known.
fn report_dry_run(
    shared: &FolderSyncContext,
    opened: OpenedFolder,
    work: FolderWork,
    adopted: &UidSet<SourceUid>,
    report: &mut FolderReport,
) {
    report.copied_now = work.uids.len();
    report.bytes_now = work.messages(&opened.source.scan).map(|m| u64::from(m.size)).sum();
    let mut set_aside = opened.set_aside;
    for group in work.new_aside {
        set_aside.add_group(group);
    }
    set_aside.remove(adopted);
    forget_gone(&mut set_aside, &work.held);
    let refused = |group: &&SetAsideGroup| matches!(group.reason, SetAsideReason::Refused | SetAsideReason::Empty);
    let again: u64 = set_aside.groups().iter().filter(refused).map(|group| group.uids.len()).sum();
    report.copied_now = report.copied_now.saturating_sub(again);
    let source_uid_validity = opened.source.selected.uid_validity;
    let unlisted = work.held.unlisted;
    let state = FolderState { source_uid_validity, set_aside, unlisted, ..FolderState::default() };
    report.report_set_aside(&state, &shared.spec.accepted_losses);
}

/// Remembers size and date of what was set aside, for the report.
fn report_message_facts(shared: &FolderSyncContext, job: &FolderSyncJob, scan: &FolderScan, report: &mut FolderReport) {
    let read = |state: &FolderState| state.set_aside.uids();
    let uids =
        shared.live_checkpoint.read(|checkpoint| checkpoint.folders.get(&job.source_raw).map(read)).unwrap_or_default();
    for message in scan.messages.iter().filter(|m| uids.contains(m.uid)).take(MAX_LISTED) {
        report.facts.insert(message.uid, (message.size.into(), message.date().map(|date| date.to_string())));
    }
}

/// Differences that no run which ended has told are told by this one.
fn report_earlier_differences(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    report: &mut FolderReport,
) -> Result<()> {
    let untold = shared.live_checkpoint.update_folder(&job.source_raw, |state| state.differences.clone())?;
    for (kind, difference) in &untold.0 {
        *report.differences.entry(kind.clone()).or_default() += difference.count;
        for uid in &difference.first {
            report.list_difference(SourceUid(*uid), format!("its copy differs ({kind}), as an earlier run found"));
        }
    }
    Ok(())
}
