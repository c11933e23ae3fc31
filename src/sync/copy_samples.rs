//! Copies that are known, looked at again: a folder that is gone may have another name now, and one that was restored from a
//! backup may have the UIDVALIDITY that it had and other messages under its UIDs.

use super::{
    checkpoint::FolderState,
    connection_pair::ConnectionPair,
    failure_bisect::FailureBisector,
    fetch_facts::fetch_hashes,
    uid::{DestinationUid, SourceUid},
};
use crate::{error::Result, imap::UidSet};

/// This many copies are compared.
const SAMPLES: usize = 3;

/// A message and its copy.
pub(crate) type CopySample = (SourceUid, DestinationUid);

/// The messages that were copied last and whose copies are known, the newest first.
pub(crate) fn last_copies(state: &FolderState) -> Vec<CopySample> {
    let index = state.map.index();
    let known = |uid| index.get(uid).and_then(|(destination, _)| Some((uid, destination?)));
    state.map.copied().iter().rev().filter_map(known).take(SAMPLES).collect()
}

/// How many samples are the same on both sides, and how many differ. What is gone on either side says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SampleVerdict {
    same: usize,
    different: usize,
}

impl SampleVerdict {
    /// They are copies of these messages.
    pub(crate) const fn agrees(self) -> bool {
        self.same > 0 && self.different == 0
    }

    /// None of them is a copy of its message.
    pub(crate) const fn contradicts(self) -> bool {
        self.same == 0 && self.different > 0
    }
}

/// Compares samples by content. Both folders are open.
///
/// # Errors
/// When a connection ends or a server is busy.
pub(crate) async fn compare_samples(pair: &mut ConnectionPair, samples: &[CopySample]) -> Result<SampleVerdict> {
    let at_source: UidSet<SourceUid> = samples.iter().map(|(source, _)| *source).collect();
    let at_destination: UidSet<DestinationUid> = samples.iter().map(|(_, destination)| *destination).collect();
    let source = fetch_hashes(&mut pair.source, &at_source, |_| None, &mut FailureBisector::default()).await?;
    let destination =
        fetch_hashes(&mut pair.destination, &at_destination, |_| None, &mut FailureBisector::default()).await?;
    let mut verdict = SampleVerdict { same: 0, different: 0 };
    for (source_uid, destination_uid) in samples {
        match (source.get(source_uid), destination.get(destination_uid)) {
            (Some(a), Some(b)) if a.canonical == b.canonical => verdict.same += 1,
            (Some(_), Some(_)) => verdict.different += 1,
            _ => {}
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::uid_map::CopyOrigin;

    #[test]
    fn the_last_copies_whose_uids_are_known_are_samples() {
        let mut state = FolderState::default();
        for (source, destination) in [(1, Some(11)), (2, None), (3, Some(13)), (4, Some(14)), (9, Some(12))] {
            state.map.push(SourceUid(source), destination.map(DestinationUid), CopyOrigin::Appended);
        }
        let samples: Vec<_> = last_copies(&state).iter().map(|(source, to)| (source.0, to.0)).collect();
        assert_eq!(samples, [(9, 12), (4, 14), (3, 13)]);
    }

    #[test]
    fn one_sample_that_is_the_same_contradicts_no_folder_and_one_that_differs_proves_no_rename() {
        let verdict = |same, different| {
            let verdict = SampleVerdict { same, different };
            (verdict.agrees(), verdict.contradicts())
        };
        assert_eq!(verdict(2, 0), (true, false));
        assert_eq!(verdict(1, 2), (false, false));
        assert_eq!(verdict(0, 1), (false, true));
        assert_eq!(verdict(0, 0), (false, false));
    }
}
