//! The two kinds of UIDs that a sync deals with: a UID means a message only in its own folder, and the same number is
//! another message on the other side. So each side has a type of its own, and mixing them up does not compile.
//!
//! The protocol ([`crate::imap`]) knows numbers only. The side is put on where a number comes in (a listing, APPENDUID, a
//! checkpoint), and taken off where it goes into a command or a report.
//!
//! ```
//! use mailferry::sync::{
//!     uid::{DestinationUid, SourceUid},
//!     uid_map::{CopyOrigin, UidMap},
//! };
//!
//! let mut map = UidMap::new();
//! map.push(SourceUid(17), Some(DestinationUid(4)), CopyOrigin::Appended);
//! assert_eq!(map.len(), 1);
//! ```
//!
//! ```compile_fail,E0308
//! use mailferry::sync::{
//!     uid::{DestinationUid, SourceUid},
//!     uid_map::{CopyOrigin, UidMap},
//! };
//!
//! let mut map = UidMap::new();
//! map.push(DestinationUid(4), Some(SourceUid(17)), CopyOrigin::Appended);
//! ```

use std::fmt;

use crate::imap::Uid;

/// The UID of a message in its source folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceUid(pub u32);

/// The UID of a message in its destination folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationUid(pub u32);

impl Uid for SourceUid {
    fn from_number(number: u32) -> Self {
        Self(number)
    }

    fn number(self) -> u32 {
        self.0
    }
}

impl Uid for DestinationUid {
    fn from_number(number: u32) -> Self {
        Self(number)
    }

    fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for SourceUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DestinationUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
