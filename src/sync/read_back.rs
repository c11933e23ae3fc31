//! Reads back copies that the destination may have changed silently, and tells what differs.

use std::collections::HashMap;

use super::{
    connection_pair::ConnectionPair,
    copy::ReadBack,
    failure_bisect::FailureBisector,
    fetch_facts::fetch_hashes,
    limits::MAX_SET_BYTES,
    report::FolderReport,
    scan::{FolderScan, ScannedMessage},
    uid::DestinationUid,
};
use crate::{
    error::Result,
    imap::{Session, Tag, UidSet, response::UntaggedResponse},
};

/// Compares unusual messages with their copies.
///
/// # Errors
/// When a connection ends.
pub(crate) async fn compare_copies(
    pair: &mut ConnectionPair,
    scan: &FolderScan,
    list: Vec<ReadBack>,
    report: &mut FolderReport,
) -> Result<()> {
    let (bytes, dates): (Vec<&ReadBack>, Vec<&ReadBack>) =
        (list.iter().filter(|r| r.oddity.in_bytes()).collect(), list.iter().filter(|r| r.oddity.date).collect());
    if !bytes.is_empty() {
        let (sources, copies) =
            (bytes.iter().map(|r| r.source_uid).collect(), bytes.iter().map(|r| r.destination_uid).collect());
        let sent = fetch_hashes(&mut pair.source, &sources, &mut FailureBisector::default()).await?;
        let kept = fetch_hashes(&mut pair.destination, &copies, &mut FailureBisector::default()).await?;
        for r in bytes {
            let (Some(sent), Some(kept)) = (sent.get(&r.source_uid), kept.get(&r.destination_uid)) else { continue };
            if sent.exact != kept.exact {
                report.add_difference(
                    r.source_uid,
                    "content",
                    format!("the destination stored it changed ({})", anomaly_text(r)),
                );
            }
        }
    }
    if !dates.is_empty() {
        let kept = internal_dates(&mut pair.destination, &dates.iter().map(|r| r.destination_uid).collect()).await?;
        for r in dates {
            let sent = scan
                .messages
                .binary_search_by_key(&r.source_uid, |m| m.uid)
                .ok()
                .and_then(|at| scan.messages.get(at))
                .and_then(ScannedMessage::date);
            if let (Some(sent), Some(kept)) = (sent, kept.get(&r.destination_uid))
                && sent.epoch != *kept
            {
                let what = format!("the destination stored another date than {sent}");
                report.add_difference(r.source_uid, "internalDate", what);
            }
        }
    }
    Ok(())
}

fn anomaly_text(r: &ReadBack) -> String {
    let mut found = Vec::new();
    if r.oddity.nul {
        found.push("it holds NUL bytes");
    }
    if r.oddity.crcrlf {
        found.push("it holds CR CR LF");
    }
    if r.oddity.no_final_newline {
        found.push("it does not end with a line end");
    }
    found.join(", ")
}

/// INTERNALDATEs as instants, seconds since 1970 UTC.
async fn internal_dates(
    destination: &mut Session,
    uids: &UidSet<DestinationUid>,
) -> Result<HashMap<DestinationUid, i64>> {
    let mut dates = HashMap::new();
    let tags: Vec<Tag> = uids
        .chunks(MAX_SET_BYTES)
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
