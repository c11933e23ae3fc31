//! Reads back copies that the destination may have changed silently, and tells what differs.

use std::collections::HashMap;

use super::{
    connection_pair::ConnectionPair,
    copy::{MessageAnomaly, ReadBack},
    failure_bisect::FailureBisector,
    fetch_facts::fetch_hashes,
    message_limit::command_sets,
    report::FolderReport,
    scan::{FolderScan, ScannedMessage},
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::Result,
    imap::{Session, Tag, UidSet, response::UntaggedResponse},
};

/// Of each kind that most destinations keep, this many copies are read back; the others only where one of these differs.
const FIRST_COPIES: usize = 5;

/// The kinds that most destinations keep.
const KEPT_KINDS: [fn(&MessageAnomaly) -> bool; 2] = [|anomaly| anomaly.header_8bit, |anomaly| anomaly.odd_header];

/// Compares unusual messages with their copies. Gives the messages whose bytes were compared.
///
/// # Errors
/// When a connection ends.
pub(crate) async fn compare_copies(
    pair: &mut ConnectionPair,
    scan: &FolderScan,
    list: &[ReadBack],
    report: &mut FolderReport,
) -> Result<UidSet<SourceUid>> {
    let (mut due, kept): (Vec<&ReadBack>, Vec<&ReadBack>) =
        list.iter().filter(|r| r.anomaly.in_bytes()).partition(|r| r.anomaly.is_often_changed());
    let first = first_of_each_kind(&kept);
    due.extend(kept.iter().filter(|r| first.contains(r.source_uid)));
    let mut compared = compare_bytes(pair, scan, &due, report).await?;
    let is_changed = |is_of_kind: &fn(&MessageAnomaly) -> bool| {
        kept.iter().any(|r| is_of_kind(&r.anomaly) && compared.changed.contains(r.source_uid))
    };
    let changed: Vec<_> = KEPT_KINDS.into_iter().filter(is_changed).collect();
    let is_due = |r: &&ReadBack| !first.contains(r.source_uid) && changed.iter().any(|kind| kind(&r.anomaly));
    let later: Vec<&ReadBack> = kept.iter().copied().filter(is_due).collect();
    let later = compare_bytes(pair, scan, &later, report).await?;
    compared.all = compared.all.union(&later.all);
    let dates: Vec<&ReadBack> = list.iter().filter(|r| r.anomaly.date).collect();
    if !dates.is_empty() {
        let kept = internal_dates(&mut pair.destination, &dates.iter().map(|r| r.destination_uid).collect()).await?;
        for r in dates {
            let sent = scanned(scan, r.source_uid).and_then(ScannedMessage::date);
            if let (Some(sent), Some(kept)) = (sent, kept.get(&r.destination_uid))
                && sent.epoch != *kept
            {
                let what = format!("the destination stored another date than {sent}");
                report.add_difference(r.source_uid, "internalDate", what);
            }
        }
    }
    Ok(compared.all)
}

/// The first messages of each kind that most destinations keep.
fn first_of_each_kind(list: &[&ReadBack]) -> UidSet<SourceUid> {
    let of_kind = |is_of_kind: fn(&MessageAnomaly) -> bool| {
        list.iter().filter(move |r| is_of_kind(&r.anomaly)).take(FIRST_COPIES).map(|r| r.source_uid)
    };
    KEPT_KINDS.into_iter().flat_map(of_kind).collect()
}

/// Messages whose bytes were compared with those of their copies.
#[derive(Debug, Default)]
struct ComparedBytes {
    all: UidSet<SourceUid>,
    changed: UidSet<SourceUid>,
}

async fn compare_bytes(
    pair: &mut ConnectionPair,
    scan: &FolderScan,
    list: &[&ReadBack],
    report: &mut FolderReport,
) -> Result<ComparedBytes> {
    let mut compared = ComparedBytes::default();
    let pairs: Vec<(SourceUid, DestinationUid)> = list.iter().map(|r| (r.source_uid, r.destination_uid)).collect();
    let equal = are_bytes_equal(pair, scan, &pairs).await?;
    for r in list {
        let Some(is_equal) = equal.get(&r.source_uid) else { continue };
        compared.all.insert(r.source_uid);
        if !is_equal {
            compared.changed.insert(r.source_uid);
            let what = format!("the destination stored it changed ({})", anomaly_text(r));
            report.add_difference(r.source_uid, "content", what);
        }
    }
    Ok(compared)
}

/// For each message that could be read on both sides: whether its copy has the same bytes.
///
/// # Errors
/// When a connection ends.
pub(crate) async fn are_bytes_equal(
    pair: &mut ConnectionPair,
    scan: &FolderScan,
    pairs: &[(SourceUid, DestinationUid)],
) -> Result<HashMap<SourceUid, bool>> {
    if pairs.is_empty() {
        return Ok(HashMap::new());
    }
    let (sources, copies) =
        (pairs.iter().map(|(source, _)| *source).collect(), pairs.iter().map(|(_, copy)| *copy).collect());
    let listed = |uid| scanned(scan, uid).map(|m| u64::from(m.size));
    let sent = fetch_hashes(&mut pair.source, &sources, listed, &mut FailureBisector::default()).await?;
    let kept = fetch_hashes(&mut pair.destination, &copies, |_| None, &mut FailureBisector::default()).await?;
    let equal = |(source, copy): &(SourceUid, DestinationUid)| {
        Some((*source, sent.get(source)?.exact == kept.get(copy)?.exact))
    };
    Ok(pairs.iter().filter_map(equal).collect())
}

fn scanned(scan: &FolderScan, uid: SourceUid) -> Option<&ScannedMessage> {
    scan.messages.binary_search_by_key(&uid, |m| m.uid).ok().and_then(|at| scan.messages.get(at))
}

fn anomaly_text(r: &ReadBack) -> String {
    let mut found = Vec::new();
    if r.anomaly.nul {
        found.push("it holds NUL bytes");
    }
    if r.anomaly.crcrlf {
        found.push("it holds CR CR LF");
    }
    if r.anomaly.no_final_newline {
        found.push("it does not end with a line end");
    }
    if r.anomaly.header_8bit {
        found.push("its header holds 8-bit bytes");
    }
    if r.anomaly.odd_header {
        found.push("its header is not one of fields that an empty line ends");
    }
    found.join(", ")
}

/// INTERNALDATEs as instants, seconds since 1970 UTC.
async fn internal_dates(
    destination: &mut Session,
    uids: &UidSet<DestinationUid>,
) -> Result<HashMap<DestinationUid, i64>> {
    let mut dates = HashMap::new();
    let tags: Vec<Tag> = command_sets(destination, uids)
        .iter()
        .map(|set| destination.send_command(&format!("UID FETCH {set} (UID INTERNALDATE)")))
        .collect();
    destination
        .wait_all(&tags, |data| {
            if let UntaggedResponse::Fetch(fetch) = data
                && let (Some(uid), Some(Some(date))) = (fetch.uid, fetch.internal_date)
            {
                dates.insert(DestinationUid(uid), date.epoch);
            }
        })
        .await?;
    Ok(dates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_one_kind_do_not_hide_those_of_another() {
        let read_back = |uid: u32, odd_header: bool| ReadBack {
            source_uid: SourceUid(uid),
            destination_uid: DestinationUid(uid),
            anomaly: MessageAnomaly { header_8bit: !odd_header, odd_header, ..MessageAnomaly::default() },
        };
        let list: Vec<ReadBack> = (1..=20).map(|uid| read_back(uid, uid > 10)).collect();
        assert_eq!(first_of_each_kind(&list.iter().collect::<Vec<_>>()).to_string(), "1:5,11:15");
    }
}
