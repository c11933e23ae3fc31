//! What a sync did: the output of the engine.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    checkpoint::{CopyDifferences, FolderState},
    deletion_plan::HeldDeletions,
    matched_folders::MatchSummary,
    set_aside::{SetAsideGroup, SetAsideReason},
    spec::AcceptedLosses,
    uid::SourceUid,
};
use crate::{error::Error, imap::UidSet};

/// Messages that the destination said that it took, and does not show: a difference, and a reason not to call a mailbox
/// copied.
pub(crate) const MISSING: &str = "missing";
/// Lists in a report hold at most this many entries; the counts beside them are complete.
pub(crate) const MAX_LISTED: usize = 200;

/// What one sync did to one mailbox.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
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
    /// What a person should look at before trusting the result (a filter that matches nothing, and the like).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the source holds and the destination did not get; none where nobody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_copied: Option<NotCopiedReport>,
    /// What was found without a checkpoint; none where nothing was copied into a folder that holds mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_checkpoint: Option<MatchSummary>,
    /// Why the sync did not end well, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// Messages that the source holds now, that no sync placed or found at the destination, and that nothing the user wrote
/// leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotCopiedReport {
    /// How many there are, those that the user accepts aside.
    pub messages: u64,
    /// Their number by reason; [`LEFT_OUT`] for messages of folders that Mailferry leaves out by itself.
    pub reasons: BTreeMap<String, u64>,
    /// Of those that were not copied, the ones that the user accepts (`messages.acceptNotCopied`), by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub accepted: BTreeMap<String, u64>,
}

/// The reason of messages in folders that Mailferry leaves out by itself.
pub(crate) const LEFT_OUT: &str = "leftOut";

impl NotCopiedReport {
    /// Counts messages that were not copied for `reason`.
    pub(crate) fn add(&mut self, reason: &str, messages: u64, accepted: bool) {
        if messages == 0 {
            return;
        }
        if accepted {
            *self.accepted.entry(reason.to_owned()).or_default() += messages;
        } else {
            *self.reasons.entry(reason.to_owned()).or_default() += messages;
            self.messages += messages;
        }
    }
}

/// A source folder that is not synced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The decoded source name.
    pub folder: String,
    /// Which rule left it out, for people.
    pub reason: String,
    /// True when the user's own rules leave it out; else Mailferry does so by itself, and its messages count as not
    /// copied.
    pub by_rule: bool,
    /// True for another user's or a shared folder: its messages are not this mailbox's.
    #[serde(skip)]
    pub foreign: bool,
    /// Messages in it, as the source lists them; none where it does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Of these, messages that no synced folder holds; none where nobody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_elsewhere: Option<u64>,
    /// It only shows what other folders hold.
    #[serde(skip)]
    pub is_view: bool,
    /// What it holds is no mail, so none of it counts as not copied.
    #[serde(skip)]
    pub no_mail: bool,
    /// The raw source name.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// What one sync did to one folder.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
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
    /// Of `adopted`, those that were found in other folders of the destination, by folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found_elsewhere: Vec<MovedMessages>,
    /// The source's UIDVALIDITY; 0 where the folder was not opened before.
    pub source_uid_validity: u32,
    /// Set aside and so not copied, by this run or an earlier one, by reason; complete.
    pub skipped: BTreeMap<String, u64>,
    /// Of `skipped`, those that the user accepts (`messages.acceptNotCopied`), by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub accepted: BTreeMap<String, u64>,
    /// Single messages behind `skipped`, at most [`MAX_LISTED`].
    pub skipped_messages: Vec<MessageNote>,
    /// Left out by the migration's message rules, by rule; complete.
    pub left_out: BTreeMap<String, u64>,
    /// Copied with a difference, by kind; complete.
    pub differences: BTreeMap<String, u64>,
    /// Single messages behind `differences`, at most [`MAX_LISTED`].
    pub difference_messages: Vec<MessageNote>,
    /// The raw source name: the folder's key in the checkpoint.
    #[serde(skip)]
    pub source_raw: Vec<u8>,
    /// RFC822.SIZE and INTERNALDATE of messages that were set aside, as far as this run saw them.
    #[serde(skip)]
    pub facts: BTreeMap<SourceUid, (u64, Option<String>)>,
    /// Differences that the checkpoint does not know of yet.
    #[serde(skip)]
    pub untold: CopyDifferences,
    /// Messages whose flags were changed at the destination.
    pub flags_updated: u64,
    /// Copies removed because their source message is gone (deletion policy Mirror).
    pub deleted: u64,
    /// Doubts in which nothing was deleted or changed, for people.
    pub doubts: Vec<String>,
    /// Deletions that wait until a person confirms them; `doubts` says so, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_deletions: Option<HeldDeletions>,
    /// What a person should know of this folder and need not act on; told with those of the mailbox.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// All that was to be done is done.
    pub complete: bool,
    /// Nothing had changed; the folder was not opened.
    pub unchanged: bool,
    /// Why this folder is not finished, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// Messages whose copies were found in another folder of the destination, and taken as moved there by its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovedMessages {
    /// The decoded name of that folder.
    pub folder: String,
    /// How many.
    pub messages: u64,
    /// The first [`MovedMessages::FIRST`] of their UIDs in the source folder.
    pub uids: Vec<u32>,
}

impl MovedMessages {
    /// So many UIDs are listed.
    const FIRST: usize = 5;
}

/// One message that was treated differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageNote {
    /// UID in the source folder.
    pub uid: u32,
    /// What happened, for people.
    pub what: String,
    /// RFC822.SIZE, bytes, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// INTERNALDATE, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

impl MailboxReport {
    /// Notes what a person should know; once, however often it comes up.
    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Takes up the notes of the folders.
    pub(crate) fn note_folders(&mut self) {
        let of_folder = |folder: &FolderReport| {
            folder.notes.iter().map(|note| format!("{}: {note}", folder.source)).collect::<Vec<_>>()
        };
        self.folders.iter().flat_map(of_folder).collect::<Vec<_>>().into_iter().for_each(|note| self.note(note));
    }

    /// Warns of what a person should look at; once, however often it comes up.
    pub(crate) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Adds up what was not copied: over folders, and over those that Mailferry left out by itself.
    pub(crate) fn count_not_copied(&mut self) {
        let mut not_copied = NotCopiedReport::default();
        for folder in &self.folders {
            for (reason, messages) in &folder.skipped {
                let accepted = folder.accepted.get(reason).copied().unwrap_or(0).min(*messages);
                not_copied.add(reason, messages - accepted, false);
                not_copied.add(reason, accepted, true);
            }
        }
        for left_out in self.left_out.iter().filter(|left_out| !left_out.by_rule && !left_out.no_mail) {
            not_copied.add(LEFT_OUT, left_out.not_elsewhere.or(left_out.messages).unwrap_or(0), false);
        }
        for folder in &self.folders {
            not_copied.add(MISSING, folder.differences.get(MISSING).copied().unwrap_or(0), false);
        }
        self.not_copied = Some(not_copied);
    }

    /// What this sync found to do: messages that it copied or adopted, messages whose flags it changed, and copies that it
    /// removed.
    #[must_use]
    pub(crate) fn changes(&self) -> u64 {
        let of_folder = |f: &FolderReport| f.copied_now + f.adopted + f.flags_updated + f.deleted;
        self.folders.iter().map(of_folder).sum()
    }

    /// The report of both parts of a sync that was paused in between; this is the later one.
    #[must_use]
    pub(crate) fn joined_to(mut self, before: Self) -> Self {
        self.subscribed += before.subscribed;
        self.duration_ms += before.duration_ms;
        self.reconnects += before.reconnects;
        self.without_checkpoint = before.without_checkpoint.or(self.without_checkpoint);
        before.notes.into_iter().for_each(|note| self.note(note));
        before.warnings.into_iter().for_each(|warning| self.warn(warning));
        for earlier in before.folders {
            match self.folders.iter_mut().find(|folder| folder.source_raw == earlier.source_raw) {
                Some(folder) => folder.add_part(earlier),
                None => self.folders.push(earlier),
            }
        }
        self
    }

    /// The gravest error, of the mailbox or of a folder.
    #[must_use]
    pub fn gravest_error(&self) -> Option<&Error> {
        let folders = self.folders.iter().filter_map(|folder| folder.error.as_ref());
        Error::gravest(self.error.iter().chain(folders))
    }
}

impl FolderReport {
    /// Adds what an earlier part of the same run did.
    fn add_part(&mut self, earlier: Self) {
        self.copied_before = self.copied_before.saturating_sub(earlier.copied_now + earlier.adopted);
        self.copied_now += earlier.copied_now;
        self.bytes_now += earlier.bytes_now;
        self.adopted += earlier.adopted;
        self.flags_updated += earlier.flags_updated;
        self.deleted += earlier.deleted;
        self.unchanged &= earlier.unchanged;
        self.found_elsewhere.extend(earlier.found_elsewhere);
    }

    /// Tells what stands in the checkpoint as set aside, by whatever run.
    pub(crate) fn report_set_aside(&mut self, state: &FolderState, accepted: &AcceptedLosses) {
        self.source_uid_validity = state.source_uid_validity;
        self.skipped = state.set_aside.counts();
        self.accepted.clear();
        if state.unlisted > 0 {
            let unlisted = SetAsideReason::Unlisted.name().to_owned();
            if accepted.reasons.contains(&SetAsideReason::Unlisted) {
                self.accepted.insert(unlisted.clone(), state.unlisted);
            }
            self.skipped.insert(unlisted, state.unlisted);
        }
        self.skipped_messages.clear();
        for group in state.set_aside.groups() {
            let count = accepted.count_accepted(group.reason, &self.source, state.source_uid_validity, &group.uids);
            if count > 0 {
                *self.accepted.entry(group.reason.name().to_owned()).or_default() += count;
            }
            for uid in group.uids.iter() {
                if self.skipped_messages.len() >= MAX_LISTED {
                    break;
                }
                let known = self.facts.get(&uid);
                self.skipped_messages.push(MessageNote {
                    uid: uid.0,
                    what: set_aside_text(group),
                    size: known.map(|(size, _)| *size),
                    date: known.and_then(|(_, date)| date.clone()),
                });
            }
        }
        self.skipped_messages.sort_by_key(|note| note.uid);
    }

    /// Tells of copies that were found in the destination's `folder`.
    pub(crate) fn add_moved(&mut self, folder: &str, sources: &UidSet<SourceUid>) {
        let uids: Vec<u32> = sources.iter().take(MovedMessages::FIRST).map(|uid| uid.0).collect();
        let listed = uids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let messages = sources.len();
        let (more, copies) = (
            if messages > uids.len() as u64 { ", ..." } else { "" },
            if messages == 1 { "message was" } else { "messages were" },
        );
        self.notes.push(format!("{messages} {copies} found in {folder}, taken as moved (UIDs {listed}{more})"));
        self.adopted += messages;
        self.found_elsewhere.push(MovedMessages { folder: folder.to_owned(), messages, uids });
    }

    /// Counts a copy that differs from its message.
    pub(crate) fn add_difference(&mut self, uid: SourceUid, kind: &str, what: impl Into<String>) {
        *self.differences.entry(kind.to_owned()).or_default() += 1;
        self.untold.add(kind, uid);
        self.list_difference(uid, what);
    }

    /// Notes a single difference that is counted elsewhere.
    pub(crate) fn list_difference(&mut self, uid: SourceUid, what: impl Into<String>) {
        if self.difference_messages.len() < MAX_LISTED {
            self.difference_messages.push(MessageNote { uid: uid.0, what: what.into(), size: None, date: None });
        }
    }
}

/// Why a message was not copied, and when it is tried again, for people.
fn set_aside_text(group: &SetAsideGroup) -> String {
    let known = |otherwise: &'static str| if group.why.is_empty() { otherwise } else { group.why.as_str() };
    match group.reason {
        SetAsideReason::Refused | SetAsideReason::Empty => {
            let when = if group.proven { "now and then" } else { "by every run" };
            let why = if group.why.is_empty() { String::new() } else { format!(": {}", group.why) };
            format!("the destination refused it{why}; tried again {when}")
        }
        SetAsideReason::TooLarge => {
            let when = if group.destination.append_limit.is_some() { "when that changes" } else { "now and then" };
            format!("{}; tried again {when}", known("it is larger than the destination takes"))
        }
        SetAsideReason::NotTried => known("it was not tried; the next run tries it").to_owned(),
        // What is known of it says that every run tries it.
        SetAsideReason::Unreadable | SetAsideReason::Unlisted => known("the source did not deliver it").to_owned(),
    }
}
