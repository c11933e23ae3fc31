//! What is to be done in a folder: what the source holds, less what the checkpoint knows of.

use super::{
    adopt::FolderStartMode,
    archived_mail::IN_OTHER_FOLDERS,
    checkpoint::FolderState,
    connection_pair::ConnectionPair,
    copy::CopyMemory,
    fetch_facts::search_present_uids,
    filter::{MessageFacts, excluding_rule},
    folder_listing::{FolderListing, complete_listing},
    job::{FolderSyncContext, FolderSyncJob},
    open_folder::OpenedSource,
    progress::SyncProgress,
    reduced_folder::{check_mark, note_unknown_copies},
    report::FolderReport,
    scan::{FolderScan, ScannedMessage, scan_set},
    set_aside::{RetryFacts, SetAside, SetAsideGroup, SetAsideReason},
    uid::SourceUid,
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{UidSet, response::Flag, select::SelectedFolder},
};

/// The folder as both servers opened it, and what the checkpoint knows of it.
pub(super) struct OpenedFolder {
    pub source: OpenedSource,
    pub destination: SelectedFolder,
    pub begin: FolderStartMode,
    /// The checkpoint, where it counts.
    pub known: Option<FolderState>,
    /// What earlier runs set aside.
    pub set_aside: SetAside,
}

/// What is to be done in the folder.
pub(super) struct FolderWork {
    /// Messages to copy.
    pub uids: UidSet<SourceUid>,
    /// What the source lists of what it holds.
    pub held: FolderListing<SourceUid>,
    /// Set-aside messages that this run tries again.
    pub due: UidSet<SourceUid>,
    /// What both sides' words alone set aside.
    pub new_aside: Vec<SetAsideGroup>,
    /// What message rules leave out by facts that never change.
    pub left_out: UidSet<SourceUid>,
    /// Up to here the user may have dealt with copies that are matched anew: what was marked there stays so.
    pub matched_up_to: SourceUid,
    /// It is this run's first look at the folder.
    pub first: bool,
}

impl FolderWork {
    /// The messages to copy, in UID order.
    pub(super) fn messages<'a>(&'a self, scan: &'a FolderScan) -> impl Iterator<Item = &'a ScannedMessage> {
        scan.messages.iter().filter(|message| self.uids.contains(message.uid))
    }
}

/// Compares what the source holds with the checkpoint: what is left is the work.
pub(super) async fn compare(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    opened: &mut OpenedFolder,
    facts: &RetryFacts,
    pair: &mut ConnectionPair,
    (memory, report): (&mut CopyMemory, &mut FolderReport),
) -> Result<FolderWork> {
    let OpenedFolder { source, known, set_aside, begin, .. } = opened;
    let due = set_aside.due_uids(facts);
    // What the checkpoint knows and a short listing leaves out is not gone.
    let mapped = known.as_ref().map(|state| state.map.copied().clone()).unwrap_or_default();
    let known_uids = mapped.union(&set_aside.uids());
    let listed = source.all.take().unwrap_or_default();
    let OpenedSource { selected, scan, .. } = source;
    let held = complete_listing(&mut pair.source, selected, scan, &listed, &known_uids).await?;
    report.source_messages = held.uids.len() + held.unlisted;
    report.left_out.clear();
    let first = !std::mem::replace(&mut memory.counted, true);
    let rules = &shared.spec.messages;
    let mut matched_up_to = SourceUid(0);
    if let Some(state) = known {
        matched_up_to = check_mark(state, &held.uids, rules, first.then_some(&mut *report));
    } else if first && *begin == FolderStartMode::Match && is_known_by_samples(shared, job) {
        note_unknown_copies(report);
    }
    let copied = known.as_ref().map(FolderState::copied_uids).unwrap_or_default();
    let done = copied.union(&set_aside.uids().difference(&due));
    let unlisted_left_out = known.as_ref().map_or(0, FolderState::unlisted_left_out);
    if unlisted_left_out > 0 {
        report.left_out.insert("rules of an earlier run".to_owned(), unlisted_left_out);
    }
    if first {
        report.copied_before = copied.intersection(&held.uids).len().saturating_sub(unlisted_left_out);
    }

    let wanted = held.uids.difference(&done);
    let unscanned = wanted.difference(&source.scan.uids());
    if !unscanned.is_empty() {
        scan_set(&mut pair.source, &unscanned, &mut source.scan).await?;
        source.scan.finish();
    }
    let mut new_aside: Vec<SetAsideGroup> = Vec::new();
    let unlisted = wanted.difference(&source.scan.uids());
    if !unlisted.is_empty() {
        let there = search_present_uids(&mut pair.source, &unlisted).await?;
        let why = "the source counts it but tells nothing of it; every run tries it";
        let reason = SetAsideReason::Unreadable;
        new_aside.push(SetAsideGroup::without_refusal(reason, ErrorClass::Protocol, why, facts, there));
    }
    if let Some(only) = job.only.as_ref().filter(|only| only.uid_validity != source.selected.uid_validity) {
        let what = format!("the folder was replaced after it was listed (UIDVALIDITY {})", only.uid_validity);
        return Err(pair.source.with_endpoint(Error::protocol(what)));
    }
    let only = job.only.as_ref().map(|only| &only.uids);
    let SelectedWork { uids, too_large, left_out } =
        select_work(shared, (facts.destination.append_limit, only), &source.scan, &wanted, report);
    let why = "it is larger than the destination says that it takes (APPENDLIMIT)";
    let reason = SetAsideReason::TooLarge;
    new_aside.push(SetAsideGroup::without_refusal(reason, ErrorClass::MessageRejected, why, facts, too_large));
    if first {
        SyncProgress::add(&shared.progress.messages_total, uids.len());
        let bytes = source.scan.messages.iter().filter(|m| uids.contains(m.uid)).map(|m| u64::from(m.size)).sum();
        SyncProgress::add(&shared.progress.bytes_total, bytes);
        shared.progress.whole.add_scanned_folder(u64::from(job.messages), job.bytes, report.copied_before, bytes);
    }
    if let Some(state) = known {
        state.record_listing(&held, left_out.clone(), rules);
    }
    Ok(FolderWork { uids, held, due, new_aside, left_out, matched_up_to, first })
}

/// True when the checkpoint holds nothing but samples of the folder.
fn is_known_by_samples(shared: &FolderSyncContext, job: &FolderSyncJob) -> bool {
    shared
        .live_checkpoint
        .read(|checkpoint| checkpoint.folders.get(&job.source_raw).is_some_and(FolderState::is_known_by_samples))
}

/// The wanted messages, sorted.
#[derive(Default)]
struct SelectedWork {
    /// They are copied.
    uids: UidSet<SourceUid>,
    /// The destination does not take them.
    too_large: UidSet<SourceUid>,
    /// Message rules leave them out, by facts that never change.
    left_out: UidSet<SourceUid>,
}

/// Which of the wanted messages are copied: what rules leave out and what the destination cannot take is told.
fn select_work(
    shared: &FolderSyncContext,
    (append_limit, only): (Option<u64>, Option<&UidSet<SourceUid>>),
    scan: &FolderScan,
    wanted: &UidSet<SourceUid>,
    report: &mut FolderReport,
) -> SelectedWork {
    let mut selected = SelectedWork::default();
    for message in scan.messages.iter().filter(|m| wanted.contains(m.uid)) {
        if only.is_some_and(|only| !only.contains(message.uid)) {
            *report.left_out.entry(IN_OTHER_FOLDERS.to_owned()).or_default() += 1;
            continue;
        }
        let facts = MessageFacts {
            size: Some(u64::from(message.size)),
            date_epoch: message.date().map(|d| d.epoch),
            deleted: scan.flags(message).contains(&Flag::Deleted),
        };
        if let Some(rule) = excluding_rule(&shared.spec.messages, facts) {
            *report.left_out.entry(rule.to_owned()).or_default() += 1;
            if excluding_rule(&shared.spec.messages, MessageFacts { deleted: false, ..facts }).is_some() {
                selected.left_out.insert(message.uid);
            }
            continue;
        }
        if append_limit.is_some_and(|limit| u64::from(message.size) > limit) {
            selected.too_large.insert(message.uid);
            continue;
        }
        selected.uids.insert(message.uid);
    }
    selected
}

/// What was set aside and is gone need not be known any more. A listing that leaves messages out says nothing of that.
pub(super) fn forget_gone(set_aside: &mut SetAside, held: &FolderListing<SourceUid>) {
    if held.unlisted == 0 {
        set_aside.retain_uids(&held.uids);
    }
}
