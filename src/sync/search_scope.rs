//! What is looked for at the destination, and what of it is accounted for.

use super::{
    scan::{FolderScan, ScannedMessage},
    uid::{DestinationUid, SourceUid},
};
use crate::imap::UidSet;

/// Of the work's beginning, this many messages beyond the tail's length are compared by content: what is in doubt was
/// sent in UID order.
pub(crate) const HEADROOM: usize = 200;

/// Messages that may be at the destination.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SearchScope<'a> {
    /// Facts about the source folder, all of the work among them.
    pub scan: &'a FolderScan,
    /// What would be copied.
    pub work: &'a UidSet<SourceUid>,
    /// Of these, copies that the destination confirmed without telling their UIDs: of equal messages they come first.
    pub certain: &'a UidSet<SourceUid>,
    /// Destination UIDs that are accounted for.
    pub known: &'a UidSet<DestinationUid>,
    /// The destination held other messages when its folder was opened: copies are likely.
    pub expects_copies: bool,
    /// The destination is known to rewrite messages, or was seen to.
    pub rewrites: bool,
}

impl<'a> SearchScope<'a> {
    /// The work, in UID order.
    pub(crate) fn messages(self) -> impl Iterator<Item = &'a ScannedMessage> {
        self.scan.messages.iter().filter(move |message| self.work.contains(message.uid))
    }
}
