//! What a verification found: counts per folder, and the first single messages.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{error::Error, sync::report::LeftOut};

/// What counts as a difference, beyond what always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VerifyStrictness {
    /// Messages, folders and missing subscriptions that a mailbox in use comes by are differences too.
    pub strict: bool,
    /// Bytes that were changed only as servers are known to change them are no difference.
    pub allow_rewritten: bool,
}

/// What a verification of one mailbox found.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifyReport {
    /// The mailbox's name in the migration.
    pub mailbox: String,
    /// Folders that were compared, by source name.
    pub folders: Vec<FolderComparison>,
    /// Source folders that the rules leave out, and why.
    pub left_out: Vec<LeftOut>,
    /// Folders that only the destination has, with the number of their messages where it tells.
    pub only_at_destination: BTreeMap<String, Option<u32>>,
    /// Source folders that are subscribed to, but not at the destination.
    pub unsubscribed: Vec<String>,
    /// What a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whole verification, milliseconds.
    pub duration_ms: u64,
    /// Why the verification did not come to its end, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

impl VerifyReport {
    /// True when the destination does not hold what the source holds, as far as was seen.
    #[must_use]
    pub(crate) fn differs(&self, strictness: VerifyStrictness) -> bool {
        let more = !self.only_at_destination.is_empty() || !self.unsubscribed.is_empty();
        self.folders.iter().any(|folder| folder.differs(strictness))
            || self.only_in_views() > 0
            || (strictness.strict && more)
    }

    /// Messages of views (Gmail's All Mail) that no compared folder holds, so that they are not at the destination. All
    /// messages of a view of which that could not be found out.
    #[must_use]
    pub(crate) fn only_in_views(&self) -> u64 {
        let views = self.left_out.iter().filter(|left_out| left_out.is_view);
        views.map(|view| view.not_elsewhere.or(view.messages).unwrap_or(0)).sum()
    }

    /// The mailbox's own error and those of its folders.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Error> {
        self.error.iter().chain(self.folders.iter().filter_map(|folder| folder.error.as_ref()))
    }
}

/// How a source folder and its copy compare. Each message of the source is in exactly one of `equal`, `missing`,
/// `found_elsewhere`, `unreadable` and `changed`, unless a rule leaves it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FolderComparison {
    /// Decoded source name.
    pub source: String,
    /// Decoded destination name.
    pub destination: String,
    /// The destination folder does not exist.
    pub folder_missing: bool,
    /// Messages at the source that should be at the destination.
    pub source_messages: u64,
    /// Messages at the destination.
    pub destination_messages: u64,
    /// Messages that the migration's rules leave out, by rule: none is expected at the destination.
    pub left_out: BTreeMap<String, u64>,
    /// Messages that are equal in everything.
    pub equal: u64,
    /// Messages without a copy.
    pub missing: u64,
    /// Messages whose copies a sync found in other folders of the destination, and that are there still. None without a
    /// checkpoint.
    #[serde(skip_serializing_if = "is_zero")]
    pub found_elsewhere: u64,
    /// Messages whose copy differs, in whatever.
    pub changed: u64,
    /// Of those: other flags or keywords.
    pub other_flags: u64,
    /// Of those: another INTERNALDATE.
    pub other_date: u64,
    /// Of those: bytes that the destination changed as servers are known to do.
    pub rewritten: u64,
    /// Of those: nothing else differs but the rewritten bytes.
    pub only_rewritten: u64,
    /// Messages that the source lists and cannot deliver.
    pub unreadable: u64,
    /// Messages that the destination lists and cannot deliver: copies among them are counted as missing.
    pub unreadable_at_destination: u64,
    /// Messages that the source counts and does not list. Nobody knows whether they have copies.
    pub unlisted: u64,
    /// Messages that the destination counts and does not list: copies among them are counted as missing.
    pub unlisted_at_destination: u64,
    /// Messages that only the destination has: new mail, mostly.
    pub only_at_destination: u64,
    /// Of those: copies too many of messages that the source has, too.
    pub doubled: u64,
    /// Of those: at UIDs that were given since a sync of this checkpoint placed its first copy here. None without a
    /// checkpoint.
    pub doubled_since_sync: u64,
    /// The first single differences; the counts are complete.
    pub differences: Vec<MessageDifference>,
    /// Why this folder was not compared, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl FolderComparison {
    /// True when the copy is not what the source holds.
    #[must_use]
    pub(crate) const fn differs(&self, strictness: VerifyStrictness) -> bool {
        let tolerated = if strictness.allow_rewritten { self.only_rewritten } else { 0 };
        self.folder_missing
            || self.missing > 0
            || self.changed > tolerated
            || self.unreadable > 0
            || self.unreadable_at_destination > 0
            || self.unlisted > 0
            || self.unlisted_at_destination > 0
            || self.doubled_since_sync > 0
            || (strictness.strict && self.only_at_destination > 0)
    }
}

/// A single message that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageDifference {
    /// In what way it differs.
    pub kind: DifferenceKind,
    /// Its UID at the source, where it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_uid: Option<u32>,
    /// Its UID at the destination, where it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_uid: Option<u32>,
    /// What differs, for people.
    pub what: String,
}

/// In what way a message differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DifferenceKind {
    /// A side lists it and does not deliver it.
    Unreadable,
    /// The destination has no copy.
    Missing,
    /// The copy has other flags, another date or rewritten bytes.
    Changed,
    /// The source does not have it.
    OnlyAtDestination,
    /// The source has it, but not as often.
    Doubled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_mail_and_known_rewriting_are_judged_as_asked_for() {
        let judged = |folder: &FolderComparison| {
            [(false, false), (true, false), (false, true)]
                .map(|(strict, allow_rewritten)| folder.differs(VerifyStrictness { strict, allow_rewritten }))
        };
        let new_mail = FolderComparison { only_at_destination: 1, ..FolderComparison::default() };
        assert_eq!(judged(&new_mail), [false, true, false]);
        let rewritten = FolderComparison { changed: 1, rewritten: 1, only_rewritten: 1, ..FolderComparison::default() };
        assert_eq!(judged(&rewritten), [true, true, false]);
        let also_flags = FolderComparison { only_rewritten: 0, other_flags: 1, ..rewritten };
        assert_eq!(judged(&also_flags), [true; 3]);
        assert_eq!(judged(&FolderComparison { folder_missing: true, ..FolderComparison::default() }), [true; 3]);
        assert_eq!(judged(&FolderComparison { unreadable: 1, ..FolderComparison::default() }), [true; 3]);
        assert_eq!(judged(&FolderComparison { unlisted: 1, ..FolderComparison::default() }), [true; 3]);
        assert_eq!(judged(&FolderComparison { unlisted_at_destination: 1, ..FolderComparison::default() }), [true; 3]);
    }

    #[test]
    fn copies_too_many_are_a_difference_where_a_sync_may_have_made_them() {
        let copied_by_user = FolderComparison { only_at_destination: 1, doubled: 1, ..FolderComparison::default() };
        assert!(!copied_by_user.differs(VerifyStrictness::default()));
        assert!(copied_by_user.differs(VerifyStrictness { strict: true, ..VerifyStrictness::default() }));
        let since_sync = FolderComparison { doubled_since_sync: 1, ..copied_by_user };
        assert!(since_sync.differs(VerifyStrictness::default()));
    }

    #[test]
    fn messages_that_are_only_in_a_view_are_a_difference() {
        let with = |left_out: LeftOut| {
            let report = VerifyReport { left_out: vec![left_out], ..VerifyReport::default() };
            (report.only_in_views(), report.differs(VerifyStrictness::default()))
        };
        let all_mail = LeftOut { is_view: true, messages: Some(12), not_elsewhere: Some(5), ..LeftOut::default() };
        assert_eq!(with(all_mail.clone()), (5, true));
        assert_eq!(with(LeftOut { not_elsewhere: Some(0), ..all_mail.clone() }), (0, false));
        // Nobody could look: then any of them may be nowhere else.
        assert_eq!(with(LeftOut { not_elsewhere: None, ..all_mail.clone() }), (12, true));
        let excluded = LeftOut { by_rule: true, is_view: false, not_elsewhere: None, ..all_mail };
        assert_eq!(with(excluded), (0, false));
    }

    #[test]
    fn folders_that_only_the_destination_has_count_only_when_strict() {
        let report =
            VerifyReport { only_at_destination: BTreeMap::from([("New".into(), Some(1))]), ..VerifyReport::default() };
        assert!(!report.differs(VerifyStrictness::default()));
        assert!(report.differs(VerifyStrictness { strict: true, ..VerifyStrictness::default() }));
    }
}
