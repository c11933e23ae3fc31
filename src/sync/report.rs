//! What a sync did: the output of the engine.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::Error;

/// Lists in a report hold at most this many entries; the counts beside them are complete.
pub const MAX_LISTED: usize = 200;

/// What one sync did to one mailbox.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxReport {
    /// The mailbox's name in the migration.
    pub mailbox: String,
    /// True when nothing was changed on purpose.
    pub dry_run: bool,
    /// Folders that were looked at, by source name.
    pub folders: Vec<FolderReport>,
    /// Folders that were left out, and why.
    pub left_out: Vec<LeftOut>,
    /// Folders subscribed at the destination by this sync.
    pub subscribed: u64,
    /// Whole run, milliseconds.
    pub duration_ms: u64,
    /// Connections that were lost and made again.
    pub reconnects: u64,
    /// True when the sync was asked to stop before its end: what it did is in the checkpoint, the next run goes on.
    pub interrupted: bool,
    /// What a person should know and need not act on (a checkpoint that could not be used, and the like).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why the sync did not end well, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// A source folder that is not synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The decoded source name.
    pub folder: String,
    /// Which rule left it out, for people.
    pub reason: String,
}

/// What one sync did to one folder.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FolderReport {
    /// Decoded source name.
    pub source: String,
    /// Decoded destination name.
    pub destination: String,
    /// Messages at the source.
    pub source_messages: u64,
    /// Copied or adopted by earlier runs.
    pub copied_before: u64,
    /// Copied by this run.
    pub copied_now: u64,
    /// Bytes of the messages copied by this run.
    pub bytes_now: u64,
    /// Found at the destination and taken as the copy.
    pub adopted: u64,
    /// Not copied, by reason; complete.
    pub skipped: BTreeMap<String, u64>,
    /// Single messages behind `skipped`, at most [`MAX_LISTED`].
    pub skipped_messages: Vec<MessageNote>,
    /// Left out by the migration's message rules, by rule; complete.
    pub left_out: BTreeMap<String, u64>,
    /// Copied with a difference, by kind; complete.
    pub differences: BTreeMap<String, u64>,
    /// Single messages behind `differences`, at most [`MAX_LISTED`].
    pub difference_messages: Vec<MessageNote>,
    /// Messages whose flags were changed at the destination.
    pub flags_updated: u64,
    /// Copies removed because their source message is gone (deletion policy Mirror).
    pub deleted: u64,
    /// Doubts in which nothing was deleted or changed, for people.
    pub doubts: Vec<String>,
    /// All that was to be done is done.
    pub complete: bool,
    /// Nothing had changed; the folder was not opened.
    pub unchanged: bool,
    /// Why this folder is not finished, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// One message that was treated differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageNote {
    /// UID in the source folder.
    pub uid: u32,
    /// What happened, for people.
    pub what: String,
}

impl MailboxReport {
    /// Notes what a person should know; once, however often it comes up.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The gravest error, of the mailbox or of a folder.
    #[must_use]
    pub fn gravest(&self) -> Option<&Error> {
        let folders = self.folders.iter().filter_map(|folder| folder.error.as_ref());
        self.error.iter().chain(folders).min_by_key(|error| error.class.gravity())
    }
}

impl FolderReport {
    /// Counts a message that was not copied.
    pub fn skip(&mut self, uid: u32, kind: &str, what: impl Into<String>) {
        *self.skipped.entry(kind.to_owned()).or_default() += 1;
        if self.skipped_messages.len() < MAX_LISTED {
            self.skipped_messages.push(MessageNote { uid, what: what.into() });
        }
    }

    /// Counts a message that was copied with a difference.
    pub fn differs(&mut self, uid: u32, kind: &str, what: impl Into<String>) {
        *self.differences.entry(kind.to_owned()).or_default() += 1;
        self.note_difference(uid, what);
    }

    /// Notes a single difference that is counted elsewhere.
    pub fn note_difference(&mut self, uid: u32, what: impl Into<String>) {
        if self.difference_messages.len() < MAX_LISTED {
            self.difference_messages.push(MessageNote { uid, what: what.into() });
        }
    }
}
