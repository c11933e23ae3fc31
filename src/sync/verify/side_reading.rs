//! What is known of one side of a folder: which messages it has, and what their bytes hash to. It outlives connections.

use std::collections::BTreeMap;

use super::compare::{ComparedMessage, FlagSetTable, MessageDigest};
use crate::{
    error::{Error, GiveUpScope},
    imap::{
        Session, Uid, UidSet,
        refusal::CommandKind,
        response::{Flag, StatusCondition, UntaggedResponse},
        select::{SelectedFolder, open_and_run, queue_examine},
    },
    sync::{
        archived_mail::IN_OTHER_FOLDERS,
        failure_bisect::FailureBisector,
        filter::{MessageFacts, excluding_rule},
        folder_listing::complete_listing,
        message_limit::list_lower_pages,
        scan::{FolderScan, scan_from, scan_set},
        spec::MessageFilter,
    },
};

/// At most so many messages of which a server tells nothing but their UIDs are asked for one by one.
const MAX_UNTOLD: usize = 10_000;

/// What was being done with a folder when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderStage {
    /// It was opened and listed, and the connection ended.
    Opening,
    /// It was opened and listed, and the server refused.
    Refused,
    /// Its messages were read.
    Reading,
}

/// Why an attempt at a folder failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderFailure {
    pub stage: FolderStage,
    pub error: Error,
}

/// What is known of a message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadState {
    Pending,
    Hashed,
    /// Expunged since it was listed.
    Gone,
    /// Listed and not delivered.
    Unreadable,
}

/// A message, some 80 bytes.
#[derive(Debug)]
pub(super) struct ReadEntry<U> {
    pub item: ComparedMessage<U>,
    /// RFC822.SIZE, bytes.
    pub size: u32,
    pub state: ReadState,
}

/// One side of a folder.
#[derive(Debug)]
pub(crate) struct SideReading<U> {
    uid_validity: Option<u32>,
    /// By UID.
    pub(super) entries: Vec<ReadEntry<U>>,
    /// Which messages the server fails to deliver, as far as that is known.
    pub(super) failures: FailureBisector<U>,
    /// The messages are in the counters of progress.
    pub(super) counted: bool,
    /// Messages that the server counts and does not list.
    pub unlisted: u64,
    /// The sets of flags that occur.
    pub flags: FlagSetTable,
    /// Messages that the rules leave out, by rule.
    pub left_out: BTreeMap<String, u64>,
    /// Only these of its messages count, where there are some that other folders hold.
    only: Option<UidSet<U>>,
}

impl<U> Default for SideReading<U> {
    fn default() -> Self {
        Self {
            uid_validity: None,
            entries: Vec::new(),
            failures: FailureBisector::default(),
            counted: false,
            unlisted: 0,
            flags: FlagSetTable::default(),
            left_out: BTreeMap::new(),
            only: None,
        }
    }
}

impl<U: Uid> SideReading<U> {
    /// Nothing is known yet of a folder of which only these messages count, where any are given.
    #[must_use]
    pub(super) fn only_of(only: Option<UidSet<U>>) -> Self {
        Self { only, ..Self::default() }
    }

    /// EXAMINEs the folder and lists its messages, unless an earlier connection did. What `rules` leave out is counted
    /// and not read.
    ///
    /// # Errors
    /// When the connection ends or the server refuses.
    pub(super) async fn open(
        &mut self,
        session: &mut Session,
        raw: &[u8],
        rules: &MessageFilter,
    ) -> Result<(), FolderFailure> {
        let lost = |error| FolderFailure { stage: FolderStage::Opening, error };
        let refused = |error| FolderFailure { stage: FolderStage::Refused, error };
        let mut selected = SelectedFolder::default();
        let mut scan = FolderScan::default();
        let command = scan_from(1);
        let commands: Vec<String> = self.uid_validity.is_none().then(|| command.to_string()).into_iter().collect();
        let mut record = |data| {
            selected.add_response(&data);
            if let UntaggedResponse::Fetch(fetch) = data {
                scan.add_fetch(fetch);
            }
        };
        let mut lines = open_and_run(session, queue_examine, raw, &commands, &mut record).await.map_err(lost)?;
        if self.uid_validity.is_none()
            && lines.iter().all(|line| line.status == StatusCondition::Ok)
            && let Some(listed) = lines.pop()
        {
            lines.push(list_lower_pages(session, &command, listed, &mut record).await.map_err(lost)?);
        }
        if let Some(line) = lines.iter().find(|line| line.status != StatusCondition::Ok) {
            return Err(refused(session.refusal_error(line, CommandKind::Other, "to open or list the folder")));
        }
        match self.uid_validity {
            None => {
                let (listed, known) = (UidSet::new(), UidSet::new());
                let listing =
                    complete_listing(session, &mut selected, &mut scan, &listed, &known).await.map_err(|error| {
                        // What the server tells of is beyond all bounds: another connection hears the same.
                        if error.finality == GiveUpScope::Folder { refused(error) } else { lost(error) }
                    })?;
                // Of what only a search gave, nothing is known but that it is there.
                let untold = listing.uids.difference(&scan.uids());
                scan_set(session, &untold, &mut scan).await.map_err(lost)?;
                scan.finish();
                self.uid_validity = Some(selected.uid_validity);
                self.unlisted = listing.unlisted;
                self.take_scan(&scan, rules);
                self.add_untold(&untold.difference(&scan.uids()));
                Ok(())
            }
            Some(before) if before == selected.uid_validity => Ok(()),
            Some(_) => {
                let error = session.with_endpoint(Error::protocol("the folder was replaced while it was read"));
                Err(refused(Error { finality: GiveUpScope::Folder, ..error }))
            }
        }
    }

    pub(super) fn take_scan(&mut self, scan: &FolderScan<U>, rules: &MessageFilter) {
        self.entries.reserve_exact(scan.messages.len());
        for message in &scan.messages {
            if self.only.as_ref().is_some_and(|only| !only.contains(message.uid)) {
                *self.left_out.entry(IN_OTHER_FOLDERS.to_owned()).or_default() += 1;
                continue;
            }
            let flags = scan.flags(message);
            let epoch = message.date().map(|date| date.epoch);
            let deleted = flags.contains(&Flag::Deleted);
            let facts = MessageFacts { size: Some(u64::from(message.size)), date_epoch: epoch, deleted };
            if let Some(rule) = excluding_rule(rules, facts) {
                *self.left_out.entry(rule.to_owned()).or_default() += 1;
                continue;
            }
            let flags = self.flags.number(flags);
            let item = ComparedMessage { uid: message.uid, flags, epoch, digest: MessageDigest::default() };
            self.entries.push(ReadEntry { item, size: message.size, state: ReadState::Pending });
        }
    }

    /// Adds messages that the server lists and tells no facts about; of many the first, and the number of the others.
    fn add_untold(&mut self, uids: &UidSet<U>) {
        let flags = self.flags.number(&[]);
        self.unlisted += uids.len().saturating_sub(MAX_UNTOLD as u64);
        for uid in uids.iter().take(MAX_UNTOLD) {
            let item = ComparedMessage { uid, flags, epoch: None, digest: MessageDigest::default() };
            self.entries.push(ReadEntry { item, size: 0, state: ReadState::Pending });
        }
        self.entries.sort_unstable_by_key(|entry| entry.item.uid);
    }

    /// How many messages there are, without those that the rules leave out.
    #[must_use]
    pub(crate) fn messages(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.state != ReadState::Gone).count() as u64
    }

    /// How many messages were read so far: what a new connection need not read again.
    #[must_use]
    pub(super) fn hashed(&self) -> usize {
        self.items().count()
    }

    /// The folder's UIDVALIDITY; none before it was opened.
    #[must_use]
    pub(super) const fn uid_validity(&self) -> Option<u32> {
        self.uid_validity
    }

    /// The UIDs of all messages.
    pub(crate) fn uids(&self) -> impl Iterator<Item = U> {
        self.entries.iter().filter(|entry| entry.state != ReadState::Gone).map(|entry| entry.item.uid)
    }

    /// The UIDs of messages that could not be read.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = U> {
        self.entries.iter().filter(|entry| entry.state == ReadState::Unreadable).map(|entry| entry.item.uid)
    }

    /// The messages that were read.
    pub(crate) fn items(&self) -> impl Iterator<Item = &ComparedMessage<U>> {
        self.entries.iter().filter(|entry| entry.state == ReadState::Hashed).map(|entry| &entry.item)
    }

    /// Numbers the sets of flags as the other side does.
    pub(crate) fn number_flags_as(&mut self, other: &mut FlagSetTable) {
        let numbers = other.merge(&self.flags);
        for entry in &mut self.entries {
            if let Some(number) = numbers.get(entry.item.flags as usize) {
                entry.item.flags = *number;
            }
        }
    }

    pub(super) fn mark_settled(&mut self, uid: U, state: ReadState) {
        if let Some(entry) = find_entry(&mut self.entries, uid) {
            entry.state = state;
        }
    }
}

/// The entry of a message, of entries by UID.
pub(super) fn find_entry<U: Uid>(entries: &mut [ReadEntry<U>], uid: U) -> Option<&mut ReadEntry<U>> {
    let at = entries.binary_search_by_key(&uid, |entry| entry.item.uid).ok()?;
    entries.get_mut(at)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::imap::response::FetchResponse;

    /// A folder with messages of these sizes, from UID 1 on.
    pub(in crate::sync::verify) fn reading(sizes: &[u64], rules: &MessageFilter) -> SideReading<u32> {
        let mut scan = FolderScan::default();
        for (uid, size) in (1..).zip(sizes) {
            scan.add_fetch(FetchResponse {
                uid: Some(uid),
                flags: Some(vec![]),
                size: Some(*size),
                ..FetchResponse::default()
            });
        }
        scan.finish();
        let mut reading = SideReading::default();
        reading.take_scan(&scan, rules);
        reading
    }

    #[test]
    fn what_a_rule_leaves_out_is_counted_and_not_expected() {
        let reading = reading(&[10, 1000, 10], &MessageFilter { max_size: Some(100), ..MessageFilter::default() });
        assert_eq!(reading.uids().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(reading.left_out, BTreeMap::from([("larger than maxSize".to_owned(), 1)]));
    }
}
