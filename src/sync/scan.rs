//! What a folder holds: one line of facts per message, compact enough for hundreds of thousands.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    limits::{MAX_FLAG_SET_BYTES, MAX_MESSAGES},
    message_limit::{ListingCommand, fetch_each},
    uid::SourceUid,
};
use crate::{
    error::{Error, GiveUpScope, Result},
    imap::{
        Session, Uid, UidSet,
        date::InternalDate,
        response::{FetchResponse, Flag},
    },
};

/// Facts about one message of a folder, which is the source's unless the type says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScannedMessage<U = SourceUid> {
    /// UID in the folder.
    pub uid: U,
    /// RFC822.SIZE, bytes; saturated. A hint only: servers get it wrong.
    pub size: u32,
    /// Index into the scan's flag sets.
    flags: u32,
    epoch: i64,
    /// The date's zone, minutes; [`NO_DATE`] where the server gave no date.
    offset: i16,
}

/// Stands for a date that is missing: no zone is that far away.
const NO_DATE: i16 = i16::MIN;

impl<U> ScannedMessage<U> {
    /// INTERNALDATE, where the server gave one.
    #[must_use]
    pub(crate) fn date(&self) -> Option<InternalDate> {
        (self.offset != NO_DATE).then_some(InternalDate { epoch: self.epoch, offset_minutes: self.offset })
    }
}

/// Facts about the messages of one folder, in UID order.
#[derive(Debug, Clone)]
pub(crate) struct FolderScan<U = SourceUid> {
    /// The messages, by UID.
    pub messages: Vec<ScannedMessage<U>>,
    flag_sets: Vec<Arc<[Flag]>>,
    known_sets: HashMap<Arc<[Flag]>, u32>,
    /// Memory that the sets of flags take.
    flag_bytes: FlagBytes,
    /// Repetitions are thrown out once there are so many messages.
    sort_at: usize,
    too_many_messages: bool,
}

impl<U> Default for FolderScan<U> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            flag_sets: Vec::new(),
            known_sets: HashMap::new(),
            flag_bytes: FlagBytes::default(),
            sort_at: SORT_AT,
            too_many_messages: false,
        }
    }
}

/// Repetitions are looked for from so many messages on.
const SORT_AT: usize = 10_000;

/// Counts the memory that different flags take, against [`MAX_FLAG_SET_BYTES`], and sees to it that each keyword takes
/// some only once.
#[derive(Debug, Clone, Default)]
pub(super) struct FlagBytes {
    bytes: usize,
    keywords: HashSet<Bytes>,
}

impl FlagBytes {
    /// What a keyword takes beside its text, and a set beside its flags; bytes.
    const KEYWORD: usize = 128;
    const SET: usize = 96;

    /// True where there is room for this set; it is counted then.
    fn has_room_for_set(&mut self, flags: &mut [Flag]) -> bool {
        self.bytes = self.bytes.saturating_add(Self::SET + size_of_val(flags));
        for flag in flags {
            if self.bytes > MAX_FLAG_SET_BYTES {
                return false;
            }
            if let Flag::Keyword(text) | Flag::Extension(text) = flag {
                *text = self.shared(text);
            }
        }
        self.bytes <= MAX_FLAG_SET_BYTES
    }

    /// True where there is room for this keyword; it is counted then.
    pub(super) fn has_room_for(&mut self, keyword: &str) -> bool {
        self.bytes = self.bytes.saturating_add(Self::KEYWORD + keyword.len());
        self.bytes <= MAX_FLAG_SET_BYTES
    }

    fn shared(&mut self, text: &Bytes) -> Bytes {
        if let Some(known) = self.keywords.get(text) {
            return known.clone();
        }
        self.bytes = self.bytes.saturating_add(Self::KEYWORD + text.len());
        self.keywords.insert(text.clone());
        text.clone()
    }

    /// # Errors
    /// Protocol, once there was no room.
    pub(super) fn check(&self) -> Result<()> {
        if self.bytes <= MAX_FLAG_SET_BYTES {
            return Ok(());
        }
        let what = format!("its messages have more different flags than fit into {} MiB", MAX_FLAG_SET_BYTES >> 20);
        Err(Error { finality: GiveUpScope::Folder, ..Error::protocol(what) })
    }
}

impl<U: Uid> FolderScan<U> {
    /// The flags of a message.
    #[must_use]
    pub(crate) fn flags(&self, message: &ScannedMessage<U>) -> &[Flag] {
        self.flag_sets.get(message.flags as usize).map_or(&[], |flags| flags)
    }

    /// The message with this UID.
    #[must_use]
    pub(crate) fn message(&self, uid: U) -> Option<&ScannedMessage<U>> {
        self.messages.binary_search_by_key(&uid, |m| m.uid).ok().and_then(|at| self.messages.get(at))
    }

    /// Which flags of a message a copy has not that has `there`. Flags and keywords are the same in any case (RFC 9051,
    /// section 2.3.2), and some servers keep the spelling that they saw first.
    pub(crate) fn missing_flags<'a>(&'a self, uid: U, there: &'a [Flag]) -> impl Iterator<Item = &'a str> {
        let flags = self.message(uid).map(|message| self.flags(message)).unwrap_or_default();
        let has = move |flag: &str| there.iter().filter_map(Flag::sendable).any(|has| has.eq_ignore_ascii_case(flag));
        flags.iter().filter_map(Flag::sendable).filter(move |flag| !has(flag))
    }

    /// The UIDs.
    #[must_use]
    pub(crate) fn uids(&self) -> UidSet<U> {
        self.messages.iter().map(|m| m.uid).collect()
    }

    /// Takes one FETCH response; what has no UID or was there before is passed over.
    pub(crate) fn add_fetch(&mut self, fetch: FetchResponse) {
        let (Some(uid), Some(mut flags)) = (fetch.uid, fetch.flags) else { return };
        if fetch.size.is_none() && fetch.internal_date.is_none() {
            return; // an unsolicited change of flags
        }
        if self.messages.len() >= self.sort_at && !self.throw_out_repetitions() {
            return;
        }
        let flags = match self.known_sets.get(flags.as_slice()) {
            Some(known) => *known,
            None if self.flag_bytes.has_room_for_set(&mut flags) => {
                let next = u32::try_from(self.flag_sets.len()).unwrap_or(u32::MAX);
                let flags: Arc<[Flag]> = flags.into();
                self.flag_sets.push(Arc::clone(&flags));
                self.known_sets.insert(flags, next);
                next
            }
            None => u32::MAX,
        };
        let size = u32::try_from(fetch.size.unwrap_or(0)).unwrap_or(u32::MAX);
        let (epoch, offset) = fetch.internal_date.flatten().map_or((0, NO_DATE), |d| (d.epoch, d.offset_minutes));
        self.messages.push(ScannedMessage { uid: U::from_number(uid), size, flags, epoch, offset });
    }

    /// Makes room; false where there are more messages than any folder has.
    fn throw_out_repetitions(&mut self) -> bool {
        self.sort();
        self.too_many_messages |= self.messages.len() > MAX_MESSAGES as usize;
        self.sort_at = SORT_AT.max(self.messages.len() * 2);
        !self.too_many_messages
    }

    fn sort(&mut self) {
        self.messages.sort_unstable_by_key(|m| m.uid);
        self.messages.dedup_by_key(|m| m.uid);
    }

    /// True to what the server listed only if this is OK.
    ///
    /// # Errors
    /// Protocol, when it listed more messages than any folder has, or more different flags than are held.
    pub(crate) fn check(&self) -> Result<()> {
        if self.too_many_messages {
            return Err(too_many_messages(self.messages.len() as u64));
        }
        self.flag_bytes.check()
    }

    /// Puts the messages in UID order, each once: servers may answer in any order, and repeat.
    pub(crate) fn finish(&mut self) {
        self.sort();
        self.messages.shrink_to_fit();
        self.known_sets = HashMap::new();
        self.flag_bytes.keywords = HashSet::new();
    }
}

/// The folder counts or lists more messages than any has.
pub(super) fn too_many_messages(count: u64) -> Error {
    let what = format!("the server tells of {count} messages in the folder, and none has more than {MAX_MESSAGES}");
    Error { finality: GiveUpScope::Folder, ..Error::protocol(what) }
}

/// The items that a scan asks for.
pub(crate) const ITEMS: &str = "(UID FLAGS INTERNALDATE RFC822.SIZE)";

/// The command for a scan of all messages from UID `from` on.
pub(crate) fn scan_from(from: u32) -> ListingCommand {
    ListingCommand::fetch(from, None, ITEMS)
}

/// The command for a scan of all messages that brings their bodies along.
pub(crate) fn scan_with_bodies() -> ListingCommand {
    ListingCommand::fetch(1, None, "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")
}

/// Of each message that comes with [`scan_with_beginnings`], so many bytes are asked for.
pub(crate) const BEGINNING_BYTES: u64 = 64 << 10;

/// The command for a scan of all messages from UID `from` on that brings the beginning of each along, which of most
/// messages is all.
pub(crate) fn scan_with_beginnings(from: u32) -> ListingCommand {
    let items = format!("(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[]<0.{BEGINNING_BYTES}>)");
    ListingCommand::fetch(from, None, items)
}

/// Scans just these messages into `scan`.
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn scan_set<U: Uid>(session: &mut Session, uids: &UidSet<U>, scan: &mut FolderScan<U>) -> Result<()> {
    fetch_each(session, uids, (ITEMS, "to list messages"), |fetch| scan.add_fetch(fetch)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(uid: u32, flags: Vec<Flag>) -> FetchResponse {
        FetchResponse { uid: Some(uid), flags: Some(flags), size: Some(1), ..FetchResponse::default() }
    }

    #[test]
    fn what_is_told_again_and_again_takes_no_more_room() {
        let mut scan = FolderScan::<u32>::default();
        for _ in 0..20 {
            (1..=2000).for_each(|uid| scan.add_fetch(fetch(uid, vec![Flag::Seen])));
        }
        assert!(scan.messages.capacity() <= 4 * SORT_AT);
        scan.finish();
        assert_eq!((scan.messages.len(), scan.flag_sets.len()), (2000, 1));
        assert!(scan.check().is_ok());
    }

    #[test]
    fn keywords_take_room_once_and_more_than_fit_are_an_error() {
        let keyword = |text: String| Flag::parse(text.as_bytes());
        let mut scan = FolderScan::<u32>::default();
        for uid in 1..=10_000 {
            let of = |n: u32| keyword(format!("{n:x>200}"));
            scan.add_fetch(fetch(uid, vec![of(uid / 100), of(1000 + uid % 100)]));
        }
        assert!(scan.check().is_ok());
        assert!(scan.flag_bytes.bytes < 3 << 20, "{}", scan.flag_bytes.bytes);
        for uid in 1..=100_000 {
            scan.add_fetch(fetch(uid, vec![keyword(format!("{uid:x>200}"))]));
        }
        let error = scan.check().unwrap_err();
        assert_eq!((error.class, error.finality), (crate::ErrorClass::Protocol, GiveUpScope::Folder));
        assert!(scan.flag_bytes.keywords.len() < 60_000);
    }
}
