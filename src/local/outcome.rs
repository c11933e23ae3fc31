//! How a run over mailboxes ended, as one exit code.

use std::time::Duration;

use super::mailbox_ending::{MailboxEnding, mailbox_ending, not_copied_count};
use crate::{error::ErrorClass, sync::report::MailboxReport};

/// The exit code of a run that was asked to stop before its end.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// The exit code of a run that did all it could and has messages that were not copied.
pub(crate) const EXIT_NOT_COPIED: u8 = 3;

/// How a run ended.
#[derive(Debug)]
pub struct RunOutcome {
    /// One report per mailbox, in the order of the manifests.
    pub reports: Vec<MailboxReport>,
    /// How long it took.
    pub took: Duration,
}

impl RunOutcome {
    /// The code of the gravest error's class; else 130 when a mailbox was interrupted; else 3 when the source holds
    /// messages that were not copied and that the user does not accept, but for dry runs; else 0.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        let failed = |e| if let MailboxEnding::Failed(class) = e { Some(class) } else { None };
        match ErrorClass::gravest(self.reports.iter().map(mailbox_ending).filter_map(failed)) {
            Some(class) => class.exit_code(),
            None if self.reports.iter().any(|report| report.interrupted) => EXIT_INTERRUPTED,
            None if self.reports.iter().any(|report| !report.dry_run && not_copied_count(report) > 0) => {
                EXIT_NOT_COPIED
            }
            None => 0,
        }
    }
}
