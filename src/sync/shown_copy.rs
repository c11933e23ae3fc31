//! What the destination shows of copies.

use std::collections::HashMap;

use super::uid::DestinationUid;
use crate::{
    error::Result,
    imap::{
        Session,
        response::{FetchResponse, Flag, StatusCondition, UntaggedResponse},
    },
};

/// What is asked of a copy, to be compared with what was sent.
pub(crate) const SHOWN_ITEMS: &str = "UID RFC822.SIZE INTERNALDATE FLAGS";

/// What the destination shows of a copy; none where it tells nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShownCopy {
    /// Flags and keywords.
    pub flags: Option<Vec<Flag>>,
    /// INTERNALDATE, seconds since 1970 UTC.
    pub epoch: Option<i64>,
    /// RFC822.SIZE, bytes.
    pub size: Option<u64>,
}

impl ShownCopy {
    /// True where nothing that is asked for is missing.
    #[must_use]
    pub(crate) fn is_whole(&self) -> bool {
        self.flags.is_some() && self.epoch.is_some() && self.size.is_some()
    }
}

/// What the destination shows, by UID.
#[derive(Debug, Default)]
pub(crate) struct ShownCopies(HashMap<DestinationUid, ShownCopy>);

impl ShownCopies {
    /// Takes note of a FETCH response; one that names no UID is nobody's.
    pub(crate) fn record(&mut self, fetch: FetchResponse) {
        let Some(uid) = fetch.uid else { return };
        let shown = self.0.entry(DestinationUid(uid)).or_default();
        shown.flags = fetch.flags.or(shown.flags.take());
        shown.epoch = fetch.internal_date.flatten().map(|date| date.epoch).or(shown.epoch);
        shown.size = fetch.size.or(shown.size);
    }

    /// What is shown of one message.
    #[must_use]
    pub(crate) fn get(&self, uid: DestinationUid) -> Option<&ShownCopy> {
        self.0.get(&uid)
    }

    /// How many messages something is shown of.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Asks for `items` of the messages of one set; none when the destination refuses to tell.
    ///
    /// # Errors
    /// When the connection ends.
    pub(crate) async fn fetch(destination: &mut Session, set: &str, items: &str) -> Result<Option<Self>> {
        let mut found = Self::default();
        let tag = destination.send_command(&format!("UID FETCH {set} ({items})"));
        let line = destination
            .wait(tag, |data| {
                if let UntaggedResponse::Fetch(fetch) = data {
                    found.record(fetch);
                }
            })
            .await?;
        Ok((line.status == StatusCondition::Ok).then_some(found))
    }
}
