//! Folders that were matched with their own destination folders because no checkpoint counts, before anything is copied to
//! any of them: what is left of each, and what a person should know before it is copied.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use super::uid::{DestinationUid, SourceUid};
use crate::imap::UidSet;

/// One folder that was matched.
#[derive(Debug, Clone, Default)]
pub(crate) struct MatchedFolder {
    /// Raw names, and UIDVALIDITYs as they were.
    pub destination_raw: Vec<u8>,
    pub source_uid_validity: u32,
    pub destination_uid_validity: u32,
    /// Decoded name at the source.
    pub source_name: String,
    /// Messages of the source that were found.
    pub found: u64,
    /// Messages that are to be copied.
    pub left: UidSet<SourceUid>,
    /// The copies that were found.
    pub copies: UidSet<DestinationUid>,
    /// Of these, copies that get flags that the source has.
    pub lacking_flags: u64,
    /// The destination folder holds mail.
    pub holds_mail: bool,
    /// No checkpoint counts for the folder.
    pub has_no_checkpoint: bool,
}

/// The folders of one mailbox that were matched, by raw source name.
#[derive(Debug, Default)]
pub(crate) struct MatchedFolders(Mutex<BTreeMap<Vec<u8>, MatchedFolder>>);

impl MatchedFolders {
    /// A folder was matched.
    pub(crate) fn record(&self, source_raw: &[u8], folder: MatchedFolder) {
        self.lock().insert(source_raw.to_vec(), folder);
    }

    /// All of them.
    pub(crate) fn take(&self) -> BTreeMap<Vec<u8>, MatchedFolder> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, MatchedFolder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was found without a checkpoint where the destination's folders hold mail, and what will be done to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatchSummary {
    /// Messages of the source folders.
    pub messages: u64,
    /// Of these, messages that were found at the destination.
    pub found: u64,
    /// Of those that were found, messages in another folder than their own.
    pub found_elsewhere: u64,
    /// Messages that are copied into folders that hold mail.
    pub to_copy: u64,
    /// Messages that were found and get flags that the source has.
    pub to_flag: u64,
}

impl MatchSummary {
    /// Sums up; `elsewhere` is how many of each folder's messages were found in other folders. None where nothing is
    /// done to a folder that holds mail.
    #[must_use]
    pub(crate) fn new(matched: &BTreeMap<Vec<u8>, MatchedFolder>, elsewhere: impl Fn(&[u8]) -> u64) -> Option<Self> {
        let mut summary = Self::default();
        for (raw, folder) in matched.iter().filter(|(_, folder)| folder.holds_mail && folder.has_no_checkpoint) {
            let (left, moved) = (folder.left.len(), elsewhere(raw));
            summary.messages += folder.found + left;
            summary.found += folder.found + moved;
            summary.found_elsewhere += moved;
            summary.to_copy += left.saturating_sub(moved);
            summary.to_flag += folder.lacking_flags;
        }
        (summary.to_copy + summary.to_flag > 0).then_some(summary)
    }

    /// The same for people, without a trailing dot.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let Self { messages, found, to_copy, to_flag, .. } = self;
        let mut parts = vec![format!("{found} of {messages} messages were found at the destination")];
        if *to_copy > 0 {
            parts.push(format!(
                "{to_copy} are to be copied into folders that hold mail: what a user deleted or moved there comes back"
            ));
        }
        if *to_flag > 0 {
            parts.push(format!(
                "{to_flag} get flags that the source has: what a user marked as unread there is read again"
            ));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_done_to_folders_that_hold_mail_without_a_checkpoint_is_summed_up() {
        let folder = |found, left: &str| MatchedFolder {
            found,
            left: UidSet::parse(left).unwrap(),
            holds_mail: true,
            has_no_checkpoint: true,
            ..MatchedFolder::default()
        };
        let mut matched = BTreeMap::from([
            (b"INBOX".to_vec(), folder(1000, "1:40")),
            (b"Sent".to_vec(), MatchedFolder { lacking_flags: 7, ..folder(200, "1:10") }),
            (b"Empty".to_vec(), MatchedFolder { holds_mail: false, ..folder(0, "1:500") }),
            (b"Known".to_vec(), MatchedFolder { has_no_checkpoint: false, ..folder(7, "1:9") }),
        ]);
        let elsewhere = |raw: &[u8]| if raw == b"INBOX" { 4 } else { 0 };
        let summary = MatchSummary { messages: 1250, found: 1204, found_elsewhere: 4, to_copy: 46, to_flag: 7 };
        assert_eq!(MatchSummary::new(&matched, elsewhere), Some(summary));
        assert_eq!(
            summary.text(),
            "1204 of 1250 messages were found at the destination; 46 are to be copied into folders that hold mail: what a user \
             deleted or moved there comes back; 7 get flags that the source has: what a user marked as unread there is \
             read again"
        );
        matched.retain(|raw, _| raw == b"Empty" || raw == b"Known");
        assert_eq!(MatchSummary::new(&matched, elsewhere), None);
    }
}
