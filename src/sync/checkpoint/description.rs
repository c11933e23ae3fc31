//! A checkpoint as people read it.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Checkpoint, high_water_mark::HighWaterMark};
use crate::{imap::mutf7, sync::set_aside::SetAsideGroup};

impl Checkpoint {
    /// What a person can read of it. Names are decoded; lists of UIDs are counts, but for those of skipped messages.
    #[must_use]
    pub fn describe(&self) -> serde_json::Value {
        let folders: Vec<_> = self
            .folders
            .iter()
            .map(|(name, state)| {
                let set_aside: Vec<_> = state.set_aside.groups().iter().map(describe_group).collect();
                let flags: BTreeMap<_, _> = state.flags.iter().map(|(flag, uids)| (flag, uids.len())).collect();
                let moved: Vec<_> = state
                    .moved
                    .iter()
                    .map(|moved| json!({ "folder": mutf7::decode_lossy(&moved.folder), "messages": moved.map.len() }))
                    .collect();
                json!({
                    "source": mutf7::decode_lossy(name),
                    "destination": self.mapping.get(name).map(|name| mutf7::decode_lossy(name)),
                    "sourceUidValidity": state.source_uid_validity,
                    "destinationUidValidity": state.destination_uid_validity,
                    "highestModSeq": state.highest_modseq,
                    "copied": state.copied_count(),
                    "adopted": state.adopted_count(),
                    "destinationUidUnknown": state.map.unknown_uids().len(),
                    "lastSourceUid": state.copied_uids().last().map(|uid| uid.0),
                    "lastDestinationUid": state.map.destination_uids().last().map(|uid| uid.0),
                    "setAside": set_aside,
                    "unlisted": state.unlisted,
                    "differences": state.differences,
                    "tailFrom": state.tail_from,
                    "appendInDoubt": state.append_in_doubt,
                    "destinationUidNext": state.destination_next,
                    "doubted": state.doubted.len(),
                    "unseen": state.unseen.len(),
                    "highWaterMarksOnly": state.is_known_by_samples(),
                    "highWaterMark": state.mark().map(describe_mark),
                    "flags": flags,
                    "settled": state.settled.map(|settled| json!({
                        "uidNext": settled.uid_next,
                        "messages": settled.messages,
                        "highestModSeq": settled.highest_modseq,
                    })),
                    "mailboxId": state.mailbox_id,
                    "foundElsewhere": moved,
                    "unsearched": state.unsearched,
                })
            })
            .collect();
        let unused = self.mapping.iter().filter(|(name, _)| !self.folders.contains_key(*name));
        let mapped: BTreeMap<_, _> = unused
            .map(|(source, destination)| (mutf7::decode_lossy(source), mutf7::decode_lossy(destination)))
            .collect();
        json!({
            "fingerprint": self.fingerprint,
            "folders": folders,
            "mappedOnly": mapped,
            "droppedFolders": self.dropped_folders,
        })
    }
}

fn describe_mark(mark: &HighWaterMark) -> serde_json::Value {
    json!({
        "uid": mark.uid.0,
        "listed": mark.listed,
        "exceptions": mark.exceptions.len(),
        "firstExceptions": mark.exceptions.chunks(200).next().unwrap_or_default(),
        "leftOutByRules": mark.left_out.as_ref().map_or(0, |left_out| left_out.messages),
    })
}

fn describe_group(group: &SetAsideGroup) -> serde_json::Value {
    json!({
        "reason": group.reason.name(),
        "class": group.class,
        "why": group.why,
        "proven": group.proven,
        "tries": group.tries,
        "lastTry": jiff::Timestamp::from_second(group.last_try).ok().filter(|_| group.last_try > 0).map(|at| at.to_string()),
        "messages": group.uids.len(),
        "firstUids": group.uids.chunks(200).next().unwrap_or_default(),
    })
}
