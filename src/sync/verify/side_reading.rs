//! Reads one side of a folder: which messages there are, and what their bytes hash to. Read-only; what was read survives
//! a lost connection.

use std::collections::{BTreeMap, VecDeque};

use super::compare::{ComparedMessage, FlagSetTable, MessageDigest};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{
        STREAM_ABOVE, Session, SessionEvent, Tag, Uid, UidSet,
        refusal::CommandKind,
        response::{FetchResponse, Flag, StatusCondition, UntaggedResponse},
        select::{SelectedFolder, examine_and_run},
    },
    sync::{
        fetch_facts::search_present_uids,
        filter::{MessageFacts, excluding_rule},
        identity::ContentHasher,
        limits::{FETCH_BYTES, FETCH_MESSAGES, FETCHES_IN_FLIGHT},
        progress::SyncProgress,
        scan::{FolderScan, scan_from},
        spec::MessageFilter,
        stand_in::{StandIn, find_stand_in},
    },
};

/// A message is given up as unreadable after this many failures.
const MAX_FAILURES: u32 = 3;

/// What is known of a message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadState {
    Pending,
    Hashed,
    /// Expunged since it was listed.
    Gone,
    /// Listed and not delivered.
    Unreadable,
}

/// A message, some 80 bytes.
#[derive(Debug)]
struct ReadEntry<U> {
    item: ComparedMessage<U>,
    /// RFC822.SIZE, bytes.
    size: u32,
    state: ReadState,
}

/// One side of a folder.
#[derive(Debug)]
pub(crate) struct SideReading<U> {
    uid_validity: Option<u32>,
    /// By UID.
    entries: Vec<ReadEntry<U>>,
    /// How often the server failed on a message.
    failures: BTreeMap<U, u32>,
    counted: bool,
    /// The sets of flags that occur.
    pub flags: FlagSetTable,
    /// Messages that the rules leave out, by rule.
    pub left_out: BTreeMap<String, u64>,
}

impl<U> Default for SideReading<U> {
    fn default() -> Self {
        Self {
            uid_validity: None,
            entries: Vec::new(),
            failures: BTreeMap::new(),
            counted: false,
            flags: FlagSetTable::default(),
            left_out: BTreeMap::new(),
        }
    }
}

impl<U: Uid> SideReading<U> {
    /// EXAMINEs the folder and lists its messages, unless an earlier connection did. What `rules` leave out is counted
    /// and not read.
    ///
    /// # Errors
    /// When the connection ends or the server refuses.
    pub(crate) async fn open(&mut self, session: &mut Session, raw: &[u8], rules: &MessageFilter) -> Result<()> {
        let mut selected = SelectedFolder::default();
        let mut scan = FolderScan::default();
        let commands: Vec<String> = self.uid_validity.is_none().then(|| scan_from(1).to_string()).into_iter().collect();
        let lines = examine_and_run(session, raw, &commands, |data| {
            selected.add_response(&data);
            if let UntaggedResponse::Fetch(fetch) = data {
                scan.add_fetch(fetch);
            }
        })
        .await?;
        if let Some(line) = lines.iter().find(|line| line.status != StatusCondition::Ok) {
            return Err(session.refusal_error(line, CommandKind::Other, "to open or list the folder"));
        }
        match self.uid_validity {
            None => {
                self.uid_validity = Some(selected.uid_validity);
                self.take_scan(scan, rules);
                Ok(())
            }
            Some(before) if before == selected.uid_validity => Ok(()),
            Some(_) => Err(session.with_endpoint(Error::protocol("the folder was replaced while it was read"))),
        }
    }

    fn take_scan(&mut self, mut scan: FolderScan<U>, rules: &MessageFilter) {
        scan.finish();
        self.entries.reserve_exact(scan.messages.len());
        for message in &scan.messages {
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

    /// How many messages there are, without those that the rules leave out.
    #[must_use]
    pub(crate) fn messages(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.state != ReadState::Gone).count() as u64
    }

    /// How many messages were settled so far: what a new connection need not read again.
    #[must_use]
    pub(crate) fn settled(&self) -> usize {
        self.entries.iter().filter(|entry| entry.state != ReadState::Pending).count()
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

    /// Reads and hashes all messages of the opened folder that are still to be read, with several `FETCH` commands ahead.
    ///
    /// # Errors
    /// When the connection ends, or the server asks for a slower pace. What was read stays known.
    pub(crate) async fn read(&mut self, session: &mut Session, progress: &SyncProgress) -> Result<()> {
        if !std::mem::replace(&mut self.counted, true) {
            SyncProgress::add(&progress.messages_total, self.entries.len() as u64);
            SyncProgress::add(&progress.bytes_total, self.entries.iter().map(|e| u64::from(e.size)).sum());
        }
        let mut pass =
            ReadPass { queue: self.plan_fetches(), asked: VecDeque::new(), unanswered: UidSet::new(), hasher: None };
        while pass.request_messages(session) {
            match session.next().await {
                Ok(event) => self.handle_event(event, &mut pass, session, progress)?,
                Err(error) => {
                    self.note_failure(&error, pass.asked.front().map(|(_, uids)| uids));
                    return Err(error);
                }
            }
        }
        // Expunged meanwhile, or there and not delivered?
        if !pass.unanswered.is_empty() {
            let there = search_present_uids(session, &pass.unanswered).await?;
            for uid in pass.unanswered.iter() {
                self.mark_settled(uid, if there.contains(uid) { ReadState::Unreadable } else { ReadState::Gone });
            }
        }
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: SessionEvent,
        pass: &mut ReadPass<U>,
        session: &Session,
        progress: &SyncProgress,
    ) -> Result<()> {
        match event {
            SessionEvent::LiteralStart { .. } => pass.hasher = Some(ContentHasher::new()),
            SessionEvent::LiteralChunk(bytes) => {
                if let Some(hasher) = &mut pass.hasher {
                    hasher.update(&bytes);
                    SyncProgress::add(&progress.bytes_done, bytes.len() as u64);
                }
            }
            SessionEvent::Untagged(UntaggedResponse::Fetch(fetch)) => self.take_fetch(fetch, pass, progress),
            SessionEvent::Untagged(_) => {}
            SessionEvent::Done(tag, line) => {
                let Some(at) = pass.asked.iter().position(|(t, _)| *t == tag) else { return Ok(()) };
                let Some((_, uids)) = pass.asked.remove(at) else { return Ok(()) };
                let left: UidSet<U> = uids.iter().filter(|uid| self.state(*uid) == Some(ReadState::Pending)).collect();
                if line.status == StatusCondition::Ok {
                    pass.unanswered = pass.unanswered.union(&left);
                } else if matches!(
                    session.refusal_class(&line, CommandKind::Other),
                    ErrorClass::Throttled | ErrorClass::Network
                ) {
                    return Err(session.refusal_error(&line, CommandKind::Other, "to read messages"));
                } else if uids.len() == 1 {
                    left.iter().for_each(|uid| self.mark_settled(uid, ReadState::Unreadable));
                } else {
                    // One of them is to blame: each is asked for alone.
                    pass.queue.extend(left.iter().map(|uid| std::iter::once(uid).collect::<UidSet<U>>()));
                }
            }
        }
        Ok(())
    }

    fn take_fetch(&mut self, fetch: FetchResponse, pass: &mut ReadPass<U>, progress: &SyncProgress) {
        let streamed = pass.hasher.take();
        let body = fetch.sections.into_iter().find(|(name, _)| name.is_empty()).and_then(|(_, body)| body);
        let (Some(uid), Some(body)) = (fetch.uid.map(U::from_number), body) else { return };
        if self.state(uid) != Some(ReadState::Pending) {
            return;
        }
        let listed = self.entry(uid).map_or(0, |entry| u64::from(entry.size));
        if streamed.is_none() && find_stand_in(listed, &body) == Some(StandIn::KnownNotice) {
            self.mark_settled(uid, ReadState::Unreadable);
            return;
        }
        let hasher = streamed.unwrap_or_else(|| {
            let mut hasher = ContentHasher::new();
            hasher.update(&body);
            SyncProgress::add(&progress.bytes_done, body.len() as u64);
            hasher
        });
        let digest = hasher.finish().into();
        if let Some(entry) = self.entry(uid) {
            entry.item.digest = digest;
            entry.state = ReadState::Hashed;
        }
        SyncProgress::add(&progress.messages_done, 1);
    }

    /// The connection ended: the message that was due is asked for alone next time, and given up in the end.
    fn note_failure(&mut self, error: &Error, asked: Option<&UidSet<U>>) {
        if !matches!(error.class, ErrorClass::Network | ErrorClass::Protocol) {
            return;
        }
        let due = asked.and_then(|uids| uids.iter().find(|uid| self.state(*uid) == Some(ReadState::Pending)));
        let Some(uid) = due else { return };
        let failures = self.failures.entry(uid).or_default();
        *failures += 1;
        if *failures >= MAX_FAILURES {
            self.mark_settled(uid, ReadState::Unreadable);
        }
    }

    fn state(&self, uid: U) -> Option<ReadState> {
        let at = self.entries.binary_search_by_key(&uid, |entry| entry.item.uid).ok()?;
        self.entries.get(at).map(|entry| entry.state)
    }

    fn entry(&mut self, uid: U) -> Option<&mut ReadEntry<U>> {
        let at = self.entries.binary_search_by_key(&uid, |entry| entry.item.uid).ok()?;
        self.entries.get_mut(at)
    }

    fn mark_settled(&mut self, uid: U, state: ReadState) {
        if let Some(entry) = self.entry(uid) {
            entry.state = state;
        }
    }

    /// What is still to be read, in pieces that are bounded in bytes and messages; what is large or failed before goes
    /// alone.
    fn plan_fetches(&self) -> VecDeque<UidSet<U>> {
        let mut units: VecDeque<UidSet<U>> = VecDeque::new();
        let (mut bytes, mut open) = (0, false);
        for entry in self.entries.iter().filter(|entry| entry.state == ReadState::Pending) {
            let (uid, size) = (entry.item.uid, u64::from(entry.size));
            let alone = size > STREAM_ABOVE || self.failures.contains_key(&uid);
            match units.back_mut() {
                Some(unit) if open && !alone && bytes + size <= FETCH_BYTES && unit.len() < FETCH_MESSAGES as u64 => {
                    unit.insert(uid);
                    bytes += size;
                }
                _ => {
                    units.push_back(std::iter::once(uid).collect());
                    bytes = size;
                }
            }
            open = !alone;
        }
        units
    }
}

/// One connection's way through a folder.
struct ReadPass<U> {
    queue: VecDeque<UidSet<U>>,
    /// Sent and not answered to the end.
    asked: VecDeque<(Tag, UidSet<U>)>,
    /// What did not come though its `FETCH` ended well.
    unanswered: UidSet<U>,
    /// A message that is too large to be held.
    hasher: Option<ContentHasher>,
}

impl<U: Uid> ReadPass<U> {
    /// Asks for more; false when everything was asked for and answered.
    fn request_messages(&mut self, session: &mut Session) -> bool {
        while self.asked.len() < FETCHES_IN_FLIGHT
            && let Some(uids) = self.queue.pop_front()
        {
            let tag = session.send_command(&format!("UID FETCH {uids} (UID BODY.PEEK[])"));
            self.asked.push_back((tag, uids));
        }
        !self.asked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(sizes: &[u64]) -> FolderScan<u32> {
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
        scan
    }

    fn asked(sizes: &[u64], suspect: Option<u32>) -> Vec<String> {
        let mut reading = SideReading::default();
        reading.take_scan(scan(sizes), &MessageFilter::default());
        reading.failures.extend(suspect.map(|uid| (uid, 1)));
        reading.plan_fetches().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_large_or_failed_before_is_asked_for_alone() {
        assert_eq!(asked(&[10, 10, STREAM_ABOVE + 1, 10, 10], None), ["1:2", "3", "4:5"]);
        assert_eq!(asked(&[10, 10, 10, 10], Some(2)), ["1", "2", "3:4"]);
        assert_eq!(asked(&[FETCH_BYTES / 2, FETCH_BYTES / 2, 1], None), ["1:2", "3"]);
        assert_eq!(asked(&vec![0; FETCH_MESSAGES + 1], None).len(), 2);
    }

    #[test]
    fn a_message_that_ends_connections_is_given_up_after_a_few() {
        let mut reading = SideReading::default();
        reading.take_scan(scan(&[10, 10]), &MessageFilter::default());
        for _ in 0..MAX_FAILURES {
            assert_eq!(reading.unreadable().count(), 0);
            reading.note_failure(&Error::network("gone"), Some(&[1, 2].into_iter().collect()));
        }
        assert_eq!(reading.unreadable().collect::<Vec<_>>(), [1]);
        assert_eq!(reading.plan_fetches().iter().map(ToString::to_string).collect::<Vec<_>>(), ["2"]);
    }

    #[test]
    fn what_a_rule_leaves_out_is_counted_and_not_expected() {
        let mut reading = SideReading::default();
        reading.take_scan(scan(&[10, 1000, 10]), &MessageFilter { max_size: Some(100), ..MessageFilter::default() });
        assert_eq!(reading.uids().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(reading.left_out, BTreeMap::from([("larger than maxSize".to_owned(), 1)]));
    }
}
