//! The labels of metrics, each of a small fixed set, and the counts that metrics are set from.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    api::mailbox_sync::SyncPhase,
    error::{ErrorClass, Side},
};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncResult {
    /// All that there was to do is done.
    Synced,
    /// Stopped at a checkpoint, on request.
    Stopped,
    /// Ended with an error of the sync.
    Failed,
    /// Its pod was lost: eviction, node loss, preemption, image pull.
    Lost,
}

/// Why an attempt was restarted before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartReason {
    /// It ran as long as it may.
    Deadline,
    /// It moved nothing for too long.
    Stall,
    /// Its pod did not run in time.
    NotStarted,
    /// It reported nothing for too long.
    LostContact,
}

/// How one reconciliation of an object ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconcileResult {
    /// All that was to be done is done.
    Ok,
    /// Somebody else wrote meanwhile: the newer version is reconciled next.
    Conflict,
    /// The API server refused, or did not answer.
    Error,
}

/// The controllers, by the kind of their objects.
pub(super) const CONTROLLERS: [&str; 3] = ["MailMigration", "MailServer", "MailboxSync"];

/// What a worker did since it was last counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransferDelta {
    /// Messages copied, or found at the destination.
    pub messages: u64,
    /// Bytes read or written on IMAP connections.
    pub bytes: u64,
}

impl SyncResult {
    pub(super) const ALL: [Self; 4] = [Self::Synced, Self::Stopped, Self::Failed, Self::Lost];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

impl RestartReason {
    pub(super) const ALL: [Self; 4] = [Self::Deadline, Self::Stall, Self::NotStarted, Self::LostContact];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Stall => "stall",
            Self::NotStarted => "not_started",
            Self::LostContact => "lost_contact",
        }
    }
}

impl ReconcileResult {
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Conflict, Self::Error];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Error => "error",
        }
    }
}

/// The sides that an error can be of; none: neither.
pub(super) const SIDES: [Option<Side>; 3] = [None, Some(Side::Source), Some(Side::Destination)];

pub(super) const fn side_label(side: Option<Side>) -> &'static str {
    match side {
        None => "none",
        Some(Side::Source) => "source",
        Some(Side::Destination) => "destination",
    }
}

/// How all mailboxes are doing at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailboxTally {
    /// By phase.
    pub phases: BTreeMap<SyncPhase, usize>,
    /// Those that fail, by the class of their last error and the side that failed.
    pub failing: BTreeMap<(ErrorClass, Option<Side>), usize>,
    /// Delta syncs that have been due for longer than the time between two of them.
    pub missed: usize,
    /// How long the delta sync has been due that waits longest.
    pub overdue: Duration,
    /// Messages that are not copied, by reason; those that are accepted aside.
    pub not_copied: BTreeMap<&'static str, u64>,
    /// Copies that differ from their messages, by kind.
    pub differences: BTreeMap<&'static str, u64>,
}

/// Why messages are not copied.
pub(super) const NOT_COPIED_REASONS: [&str; 9] =
    ["tooLarge", "refused", "unreadable", "empty", "notTried", "unlisted", "missing", "leftOut", OTHER];
/// How copies differ from their messages.
pub(super) const DIFFERENCE_KINDS: [&str; 8] =
    ["flags", "internalDate", "order", "content", "size", "missing", "doubled", OTHER];
/// What a worker of a later version may report.
const OTHER: &str = "other";

/// The label for a reason that a worker reported.
#[must_use]
pub(crate) fn reason_label(reason: &str) -> &'static str {
    NOT_COPIED_REASONS.into_iter().find(|known| *known == reason).unwrap_or(OTHER)
}

/// The label for a kind of difference that a worker reported.
#[must_use]
pub(crate) fn kind_label(kind: &str) -> &'static str {
    DIFFERENCE_KINDS.into_iter().find(|known| *known == kind).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{report::LEFT_OUT, set_aside::SetAsideReason};

    #[test]
    fn each_reason_has_a_label_of_its_own() {
        for reason in SetAsideReason::ALL.iter().map(|reason| reason.name()).chain([LEFT_OUT]) {
            assert_eq!(reason_label(reason), reason);
        }
        assert_eq!((reason_label("brandNew"), kind_label("brandNew"), kind_label("flags")), (OTHER, OTHER, "flags"));
    }
}
