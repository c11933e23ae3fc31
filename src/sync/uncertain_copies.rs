//! Copies of this run whose place at the destination is not certain: it did not tell their UIDs and they were not found
//! again, or it told one UID for several. It may have said OK and stored nothing.

use std::collections::BTreeMap;

use super::{
    connection_pair::ConnectionPair,
    copy::{AppendedCopy, CopyMemory},
    fetch_facts::search_present_uids,
    job::{FolderSyncContext, FolderSyncJob},
    message_limit::{ListingCommand, list_lower_pages},
    read_back::are_bytes_equal,
    report::{FolderReport, MISSING},
    scan::FolderScan,
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::Result,
    imap::{
        Session, UidSet,
        response::{StatusCondition, UntaggedResponse},
    },
};

/// What became of copies that were not found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnfoundCopies {
    /// None of them is in the folder.
    Missing,
    /// So many are not in the folder, at least: nobody knows which.
    SomeMissing(u64),
    /// All may be there, changed by the destination.
    Unknown,
}

impl UnfoundCopies {
    /// Judges `unfound` copies by the messages in their place that are no known copies; none where nobody could look.
    fn judge(unfound: u64, others: Option<u64>) -> Self {
        match others {
            Some(0) => Self::Missing,
            Some(others) if others < unfound => Self::SomeMissing(unfound - others),
            _ => Self::Unknown,
        }
    }
}

/// Tells of copies of an earlier run that are not at the destination, where that run ended before it looked at them. Whether
/// they are as their messages are is not looked at: users may have changed them since.
///
/// # Errors
/// When the connection ends.
pub(crate) async fn report_unseen(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    pair: &mut ConnectionPair,
    (memory, report): (&mut CopyMemory, &mut FolderReport),
) -> Result<()> {
    let own: UidSet<SourceUid> = memory.appended.iter().map(|copy| copy.source_uid).collect();
    let (placed, unplaced, from, known) = shared.live_checkpoint.update_folder(&job.source_raw, |state| {
        let (index, unseen) = (state.map.index(), state.unseen.difference(&own));
        let copies = unseen.iter().filter_map(|uid| Some((uid, index.get(uid)?.0)));
        let (placed, unplaced): (Vec<_>, Vec<_>) = copies.partition(|(_, copy)| copy.is_some());
        let from = state.map.first_appended().map_or(1, |first| first.0);
        (placed, unplaced, from, state.map.destination_uids().clone())
    })?;
    if !placed.is_empty() {
        let copies: UidSet<DestinationUid> = placed.iter().filter_map(|(_, copy)| *copy).collect();
        let there = search_present_uids(&mut pair.destination, &copies).await?;
        for (source, copy) in placed.iter().filter_map(|(source, copy)| Some((*source, (*copy)?))) {
            if !there.contains(copy) {
                let what = format!(
                    "an earlier run was told that the destination took it, as UID {copy}, and it is not there: the \
                     destination never stored it, or somebody removed it since; it is not sent again"
                );
                report.add_difference(source, MISSING, what);
            }
        }
    }
    if !unplaced.is_empty() {
        let unfound: Vec<SourceUid> = unplaced.into_iter().map(|(source, _)| source).collect();
        let missing = judge_unfound(&mut pair.destination, (from, &known), &unfound, report).await?;
        for uid in missing.iter() {
            let what = "an earlier run was told that the destination took it, and it is not there: the destination never \
                        stored it, or somebody removed it since; it is not sent again";
            report.add_difference(uid, MISSING, what);
        }
    }
    // Told once, though the folder may be tried again.
    shared.live_checkpoint.update_folder(&job.source_raw, |state| state.unseen = state.unseen.intersection(&own))
}

/// Tells of messages that the destination took in this run and does not show. They stay in the map: it may show them later,
/// and would have them twice if they were sent again.
pub(crate) fn report_missing(uids: &UidSet<SourceUid>, report: &mut FolderReport) {
    for uid in uids.iter() {
        let what = "the destination said that it took the message, and does not show it; it is not sent again";
        report.add_difference(uid, MISSING, what);
    }
}

/// Judges copies that were not found again: gives those that are certainly not there, and tells of the others. They were
/// appended behind `from`, and `known` are the copies that were found.
///
/// # Errors
/// When the connection ends.
pub(crate) async fn judge_unfound(
    destination: &mut Session,
    (from, known): (u32, &UidSet<DestinationUid>),
    unfound: &[SourceUid],
    report: &mut FolderReport,
) -> Result<UidSet<SourceUid>> {
    let count = unfound.len() as u64;
    match UnfoundCopies::judge(count, count_others(destination, from, known).await?) {
        UnfoundCopies::Missing => return Ok(unfound.iter().copied().collect()),
        UnfoundCopies::SomeMissing(missing) => report.doubts.push(format!(
            "of {count} messages, all of which the destination said that it took, {missing} are not in the folder; it does \
             not tell which, and they are not sent again"
        )),
        UnfoundCopies::Unknown => report.notes.push(format!(
            "{count} copies could not be found again at the destination, which does not tell their UIDs: whether they are \
             as their messages are was not looked at"
        )),
    }
    Ok(UidSet::default())
}

/// Of several copies with one UID, leaves the one in `copies` that is at this UID. The others are there only if they are
/// equal (Gmail keeps equal messages once): gives the messages whose copies are not.
///
/// # Errors
/// When a connection ends.
pub(crate) async fn settle_shared_uids(
    pair: &mut ConnectionPair,
    scan: &FolderScan,
    copies: &mut Vec<AppendedCopy>,
) -> Result<UidSet<SourceUid>> {
    let mut missing = UidSet::default();
    let mut sources: BTreeMap<DestinationUid, Vec<SourceUid>> = BTreeMap::new();
    for copy in copies.iter() {
        sources.entry(copy.destination_uid).or_default().push(copy.source_uid);
    }
    sources.retain(|_, sources| sources.len() > 1);
    if sources.is_empty() {
        return Ok(missing);
    }
    // Courier shows nothing that is new before it is asked.
    pair.destination.run("NOOP").await?;
    let claims: Vec<(SourceUid, DestinationUid)> =
        sources.iter().flat_map(|(copy, sources)| sources.iter().map(|source| (*source, *copy))).collect();
    let equal = are_bytes_equal(pair, scan, &claims).await?;
    let is_equal = |source: &&SourceUid| equal.get(*source) == Some(&true);
    for (copy, sources) in &sources {
        let owner = sources.iter().find(is_equal).or(sources.first()).copied();
        missing.extend(sources.iter().filter(|source| Some(**source) != owner && !is_equal(source)).copied());
        copies.retain(|other| other.destination_uid != *copy || Some(other.source_uid) == owner);
    }
    Ok(missing)
}

/// Counts the messages from UID `from` on that are not `known`; none when the destination refuses to list them.
async fn count_others(destination: &mut Session, from: u32, known: &UidSet<DestinationUid>) -> Result<Option<u64>> {
    let mut listed: UidSet<DestinationUid> = UidSet::default();
    let mut take = |data| {
        if let UntaggedResponse::Fetch(fetch) = data
            && let Some(uid) = fetch.uid.filter(|uid| *uid >= from)
        {
            listed.insert(DestinationUid(uid));
        }
    };
    let command = ListingCommand::fetch(from, None, "(UID)");
    let tag = destination.send_command(&command.to_string());
    let line = destination.wait(tag, &mut take).await?;
    let line = list_lower_pages(destination, &command, line, &mut take).await?;
    Ok((line.status == StatusCondition::Ok).then(|| listed.difference(known).len()))
}

#[cfg(test)]
mod tests {
    use super::UnfoundCopies::{self, Missing, SomeMissing, Unknown};

    #[test]
    fn copies_are_missing_where_nothing_else_is_in_their_place() {
        assert_eq!(UnfoundCopies::judge(3, Some(0)), Missing);
        assert_eq!(UnfoundCopies::judge(3, Some(2)), SomeMissing(1));
        for others in [Some(3), Some(9), None] {
            assert_eq!(UnfoundCopies::judge(3, others), Unknown);
        }
    }
}
