//! What a status says of messages that were not copied.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The most folders that a status lists as left out.
pub(crate) const MAX_LEFT_OUT: usize = 50;
/// The most warnings in a status, and the most characters of one.
pub(crate) const MAX_WARNINGS: (usize, usize) = (20, 500);
/// The reason of messages in folders that Mailferry leaves out by itself.
pub(crate) const LEFT_OUT_REASON: &str = "leftOut";
/// The most kinds of differences in a status.
pub(crate) const MAX_DIFFERENCE_KINDS: usize = 20;

/// Messages that the source holds, that no sync placed or found at the destination, and that nothing in the migration
/// leaves out.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NotCopied {
    /// How many messages were not copied, without those that are accepted.
    #[serde(default)]
    pub messages: i64,
    /// How many messages were not copied, by reason: tooLarge, refused, unreadable, empty, notTried (others of their folder
    /// ended the connections for too long), unlisted (the source counts them and lists them nowhere), missing (the
    /// destination said that it took them, and does not show them), or leftOut for messages of folders that Mailferry leaves
    /// out by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub reasons: BTreeMap<String, i64>,
    /// How many messages were not copied and are accepted by `messages.acceptNotCopied`, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub accepted: BTreeMap<String, i64>,
    /// How many folders Mailferry leaves out by itself of which the source does not say how many messages they hold.
    #[serde(default)]
    pub uncounted_folders: i64,
}

impl NotCopied {
    /// How many were set aside: all but those of folders that are left out.
    #[must_use]
    pub(crate) fn set_aside(&self) -> i64 {
        let all = self.reasons.iter().chain(&self.accepted);
        all.filter(|(reason, _)| *reason != LEFT_OUT_REASON).map(|(_, messages)| messages).sum()
    }

    /// Adds those of another mailbox.
    pub(crate) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.uncounted_folders += other.uncounted_folders;
        for (sum, part) in [(&mut self.reasons, &other.reasons), (&mut self.accepted, &other.accepted)] {
            for (reason, messages) in part {
                *sum.entry(reason.clone()).or_default() += messages;
            }
        }
    }
}

/// A source folder that is not synced.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LeftOutFolder {
    /// The folder's name at the source.
    #[schemars(length(max = 300))]
    pub folder: String,
    /// Why the folder is left out.
    #[schemars(length(max = 300))]
    pub reason: String,
    /// True: the migration's folder rules leave it out. False: Mailferry does so by itself.
    #[serde(default)]
    pub by_rule: bool,
    /// How many messages the folder holds. Absent: the source does not say, or they are not this mailbox's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<i64>,
}
