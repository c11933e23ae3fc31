//! Which of the things that happen are told while a run goes on: what is new. The report has all of it.

use super::warning;
use crate::{
    local::{problems::Problems, run_report},
    sync::report::MailboxReport,
};

/// So many mailboxes are told of one by one that have no checkpoint and mail at the destination.
const WARNED: usize = 3;

/// What was told before.
#[derive(Debug, Default)]
pub(super) struct LiveNews {
    /// Tells of every mailbox.
    all: bool,
    problems: Problems,
    warned: usize,
}

impl LiveNews {
    /// Nothing was told yet. `all`: of every mailbox something is said.
    pub(super) fn new(all: bool) -> Self {
        Self { all, ..Self::default() }
    }

    /// True where every mailbox is told of.
    pub(super) const fn tells_all(&self) -> bool {
        self.all
    }

    /// What is said of a mailbox that ended.
    pub(super) fn ended(&mut self, report: &MailboxReport) -> Option<String> {
        let problem = run_report::new_problem(report, &mut self.problems);
        if self.all { Some(run_report::line(report)) } else { problem }
    }

    /// What is said of a mailbox without a checkpoint, before it is copied.
    pub(super) fn matched(&mut self, mailbox: &str, text: &str) -> Option<String> {
        self.warned += 1;
        match self.warned {
            _ if self.all => Some(warning(mailbox, text)),
            1..=WARNED => Some(warning(mailbox, text)),
            number if number == WARNED + 1 => Some(
                "More mailboxes are without a checkpoint, and have mail at the destination: see the notes at the end."
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn what_is_the_same_for_many_mailboxes_is_told_once() {
        let report = |mailbox: &str| MailboxReport {
            mailbox: mailbox.to_owned(),
            error: Some(Error::network("there is no host of this name").in_mailbox(mailbox)),
            ..MailboxReport::default()
        };
        let mut news = LiveNews::new(false);
        assert_eq!(news.ended(&report("alice")).unwrap(), "alice: failed: Network: there is no host of this name");
        assert_eq!(news.ended(&report("bob")), None);
        assert_eq!(news.ended(&MailboxReport::default()), None);
        let said: Vec<bool> = (0..6).map(|_| news.matched("alice", "no checkpoint").is_some()).collect();
        assert_eq!(said, [true, true, true, true, false, false]);
        let mut all = LiveNews::new(true);
        assert!((0..6).all(|_| all.matched("alice", "no checkpoint").is_some() && all.ended(&report("bob")).is_some()));
    }
}
