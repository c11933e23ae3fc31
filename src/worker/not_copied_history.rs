//! What is not copied, and how copies differ, as a status keeps it from one attempt to the next: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::once,
};

use super::checkpoint_outbox::saturating_i64;
use crate::{
    api::{
        mailbox_sync::{HeldFolderDeletions, MAX_HELD_FOLDERS, Outcome, WorkerStatus},
        not_copied::{LEFT_OUT_REASON, LeftOutFolder, MAX_DIFFERENCE_KINDS, MAX_LEFT_OUT, MAX_WARNINGS, NotCopied},
    },
    sync::{
        deletion_plan::HeldDeletions,
        report::{FolderReport, LeftOut, MailboxReport},
        set_aside::SetAsideReason,
        spec::AcceptedLosses,
    },
};

/// A name of a folder, or a reason, is cut after this many characters.
const MAX_TEXT: usize = 300;
/// A kind of difference is cut after this many characters.
const MAX_KIND: usize = 40;

/// What the attempts before this one reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct NotCopiedHistory {
    not_copied: Option<NotCopied>,
    differences: BTreeMap<String, i64>,
    accepted: BTreeSet<&'static str>,
}

impl NotCopiedHistory {
    /// What a claimed status says.
    #[must_use]
    pub(crate) fn from_status(worker: Option<&WorkerStatus>) -> Self {
        Self {
            not_copied: worker.and_then(|worker| worker.not_copied.clone()),
            differences: worker.map(|worker| worker.differences.clone()).unwrap_or_default(),
            accepted: BTreeSet::new(),
        }
    }

    /// Whole reasons are accepted.
    pub(crate) fn set_accepted_reasons(&mut self, accepted: &AcceptedLosses) {
        self.accepted = accepted.reasons.iter().map(|reason| reason.name()).collect();
    }

    /// The names of all reasons that a status may have.
    #[must_use]
    pub(crate) fn reasons(&self) -> BTreeSet<&str> {
        let before = self.not_copied.iter().flat_map(|before| before.reasons.keys().chain(before.accepted.keys()));
        let known = SetAsideReason::ALL.iter().map(|reason| reason.name()).chain(once(LEFT_OUT_REASON));
        before.map(String::as_str).chain(known).collect()
    }

    /// What is known before the sync has ended. A loss is reported at once; only the end of a sync, which has looked at
    /// everything, takes one back. None: as it stands.
    #[must_use]
    pub(crate) fn not_copied_so_far(&self, seen: &BTreeMap<String, u64>) -> Option<NotCopied> {
        let mut all = self.not_copied.clone().unwrap_or_default();
        let mut grew = false;
        for (reason, messages) in seen {
            let known = [&all.reasons, &all.accepted].into_iter().filter_map(|part| part.get(reason)).sum::<i64>();
            let more = saturating_i64(*messages) - known;
            if more <= 0 {
                continue;
            }
            grew = true;
            if self.accepted.contains(reason.as_str()) {
                *all.accepted.entry(reason.clone()).or_default() += more;
            } else {
                *all.reasons.entry(reason.clone()).or_default() += more;
                all.messages += more;
            }
        }
        grew.then_some(all)
    }

    /// Adds to the last status of an attempt what its report says; `seen` is set aside in its checkpoint.
    pub(crate) fn add_sync_report(
        &self,
        status: &mut WorkerStatus,
        report: &MailboxReport,
        seen: &BTreeMap<String, u64>,
    ) {
        status.left_out = left_out(&report.left_out);
        let (most, length) = MAX_WARNINGS;
        status.warnings = report.warnings.iter().take(most).map(|warning| cut(warning, length)).collect();
        status.held_deletions = held_deletions(report);
        // A dry run only foretells.
        if report.dry_run {
            return;
        }
        let Some(found) = &report.not_copied else {
            status.not_copied = self.not_copied_so_far(seen);
            return;
        };
        if status.outcome == Some(Outcome::Synced) {
            status.not_copied = Some(NotCopied {
                messages: saturating_i64(found.messages),
                reasons: numbers(&found.reasons),
                accepted: numbers(&found.accepted),
                uncounted_folders: saturating_i64(
                    report.left_out.iter().filter(|left| is_uncounted(left)).count() as u64
                ),
            });
            status.differences = self.differences(report);
            status.changes = Some(saturating_i64(report.changes()));
            return;
        }
        let mut seen = seen.clone();
        for (reason, messages) in &found.reasons {
            let messages = messages + found.accepted.get(reason).copied().unwrap_or(0);
            let known = seen.entry(reason.clone()).or_default();
            *known = messages.max(*known);
        }
        status.not_copied = self.not_copied_so_far(&seen);
    }

    /// All differences ever: each is in one report of a sync that ended well.
    fn differences(&self, report: &MailboxReport) -> BTreeMap<String, i64> {
        let mut all = self.differences.clone();
        for (kind, copies) in report.folders.iter().flat_map(|folder| &folder.differences) {
            let kind = cut(kind, MAX_KIND);
            if all.contains_key(&kind) || all.len() < MAX_DIFFERENCE_KINDS {
                let sum = all.entry(kind).or_default();
                *sum = sum.saturating_add(saturating_i64(*copies));
            }
        }
        all
    }
}

/// True for a folder of this mailbox that Mailferry leaves out by itself, with nobody knows how many messages.
fn is_uncounted(left: &LeftOut) -> bool {
    !left.by_rule && !left.foreign && !left.no_mail && left.not_elsewhere.or(left.messages).is_none()
}

/// Folders that Mailferry leaves out by itself come first, where there are too many.
fn left_out(all: &[LeftOut]) -> Vec<LeftOutFolder> {
    let (by_rule, by_itself): (Vec<_>, Vec<_>) = all.iter().partition(|left| left.by_rule);
    let folder = |left: &LeftOut| LeftOutFolder {
        folder: cut(&left.folder, MAX_TEXT),
        reason: cut(&left.reason, MAX_TEXT),
        by_rule: left.by_rule,
        messages: left.messages.map(saturating_i64),
    };
    by_itself.into_iter().chain(by_rule).take(MAX_LEFT_OUT).map(folder).collect()
}

/// The deletions that wait for a confirmation, as many as a status takes: with each that is confirmed another one comes in.
fn held_deletions(report: &MailboxReport) -> Vec<HeldFolderDeletions> {
    let held = report.folders.iter().filter_map(|folder| Some((folder, folder.held_deletions.as_ref()?)));
    let told = |(folder, held): (&FolderReport, &HeldDeletions)| HeldFolderDeletions {
        folder: cut(&folder.source, MAX_TEXT),
        messages: saturating_i64(held.messages),
        of: saturating_i64(held.of),
        copies: saturating_i64(held.copies),
        token: held.token.clone(),
    };
    held.take(MAX_HELD_FOLDERS).map(told).collect()
}

fn numbers(counts: &BTreeMap<String, u64>) -> BTreeMap<String, i64> {
    counts.iter().map(|(name, count)| (name.clone(), saturating_i64(*count))).collect()
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::report;

    fn counts<N>(list: &[(&str, N)]) -> BTreeMap<String, N>
    where
        N: Copy,
    {
        list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn standing(reasons: &[(&str, i64)]) -> NotCopiedHistory {
        let not_copied =
            NotCopied { messages: reasons.iter().map(|r| r.1).sum(), reasons: counts(reasons), ..NotCopied::default() };
        let differences = counts(&[("flags", 4)]);
        let worker = WorkerStatus { not_copied: Some(not_copied), differences, ..WorkerStatus::default() };
        NotCopiedHistory::from_status(Some(&worker))
    }

    fn report(reasons: &[(&str, u64)]) -> MailboxReport {
        let mut not_copied = report::NotCopiedReport::default();
        for (reason, messages) in reasons {
            not_copied.add(reason, *messages, false);
        }
        let folder = FolderReport { differences: counts(&[("flags", 2), ("content", 1)]), ..FolderReport::default() };
        MailboxReport { not_copied: Some(not_copied), folders: vec![folder], ..MailboxReport::default() }
    }

    fn left(folder: &str, by_rule: bool, foreign: bool, messages: Option<u64>) -> LeftOut {
        LeftOut { folder: folder.into(), reason: "r".into(), by_rule, foreign, messages, ..LeftOut::default() }
    }

    fn told(standing: &NotCopiedHistory, outcome: Outcome, report: &MailboxReport) -> WorkerStatus {
        let mut status = WorkerStatus { outcome: Some(outcome), ..WorkerStatus::default() };
        standing.add_sync_report(&mut status, report, &BTreeMap::new());
        status
    }

    #[test]
    fn the_reason_of_folders_that_are_left_out_has_one_name() {
        assert_eq!(LEFT_OUT_REASON, report::LEFT_OUT);
    }

    #[test]
    fn a_sync_that_ended_says_what_stands_and_its_differences_are_added_to_those_before() {
        let status = told(&standing(&[("refused", 3), ("tooLarge", 1)]), Outcome::Synced, &report(&[("refused", 1)]));
        let not_copied = status.not_copied.unwrap();
        assert_eq!((not_copied.messages, not_copied.reasons), (1, counts(&[("refused", 1)])));
        assert_eq!(status.differences, counts(&[("flags", 6), ("content", 1)]));
    }

    #[test]
    fn an_attempt_that_did_not_see_everything_tells_losses_and_takes_none_back() {
        let standing = standing(&[("refused", 3)]);
        let early = told(&standing, Outcome::Failed, &report(&[("refused", 1), ("empty", 2)]));
        let not_copied = early.not_copied.unwrap();
        assert_eq!((not_copied.messages, not_copied.reasons), (5, counts(&[("empty", 2), ("refused", 3)])));
        assert!(early.differences.is_empty(), "the next attempt tells them again");
        let nothing_new = told(&standing, Outcome::Stopped, &report(&[("refused", 3)]));
        assert_eq!(nothing_new.not_copied, None, "as it stands");
        let before_any_look = told(&standing, Outcome::Failed, &MailboxReport::default());
        assert_eq!(before_any_look.not_copied, None);
    }

    #[test]
    fn what_is_set_aside_is_told_while_an_attempt_runs_and_nothing_is_told_where_nobody_looked() {
        let mut first = NotCopiedHistory::default();
        assert_eq!(first.not_copied_so_far(&BTreeMap::new()), None);
        first
            .set_accepted_reasons(&AcceptedLosses { reasons: [SetAsideReason::TooLarge].into(), messages: Vec::new() });
        let now = first.not_copied_so_far(&counts(&[("refused", 2), ("tooLarge", 7)])).unwrap();
        assert_eq!(
            (now.messages, now.reasons, now.accepted),
            (2, counts(&[("refused", 2)]), counts(&[("tooLarge", 7)]))
        );
    }

    #[test]
    fn a_dry_run_foretells_and_says_nothing_of_what_stands() {
        let dry = MailboxReport { dry_run: true, warnings: vec!["w".into()], ..report(&[("refused", 1)]) };
        let status = told(&standing(&[("refused", 3)]), Outcome::Synced, &dry);
        assert_eq!((status.not_copied, status.differences.len(), status.warnings.len()), (None, 0, 1));
    }

    #[test]
    fn folders_that_can_not_be_counted_are_those_of_the_mailbox_that_no_rule_leaves_out() {
        let left_out = vec![
            left("by rule", true, false, None),
            left("another user's", false, true, None),
            left("view", false, false, None),
            left("counted", false, false, Some(0)),
        ];
        let status = told(&NotCopiedHistory::default(), Outcome::Synced, &MailboxReport { left_out, ..report(&[]) });
        assert_eq!(status.not_copied.unwrap().uncounted_folders, 1);
        let order: Vec<_> = status.left_out.iter().map(|left| left.folder.as_str()).collect();
        assert_eq!(order, ["another user's", "view", "counted", "by rule"]);
    }

    #[test]
    fn held_deletions_are_told_with_their_folder_and_gone_once_no_sync_holds_any() {
        let held = HeldDeletions { messages: 8, of: 10, copies: 7, token: "0123456789abcdef".into() };
        let mut report = report(&[]);
        report.folders[0] =
            FolderReport { source: "INBOX".into(), held_deletions: Some(held), ..FolderReport::default() };
        let status = told(&standing(&[]), Outcome::Synced, &report);
        let [held] = status.held_deletions.as_slice() else { panic!("{status:?}") };
        assert_eq!((held.folder.as_str(), held.messages, held.of, held.copies), ("INBOX", 8, 10, 7));
        report.folders = vec![report.folders[0].clone(); 50];
        assert_eq!(told(&standing(&[]), Outcome::Synced, &report).held_deletions.len(), MAX_HELD_FOLDERS);
        report.folders.clear();
        assert!(told(&standing(&[]), Outcome::Synced, &report).held_deletions.is_empty());
    }

    #[test]
    fn what_is_told_is_bounded() {
        let mut many = report(&[]);
        many.left_out = (0..900).map(|_| left(&"ü".repeat(900), true, false, Some(1))).collect();
        many.warnings = vec!["w".repeat(900); 900];
        many.folders[0].differences = (0..900).map(|n| (format!("{n}{}", "k".repeat(90)), 1)).collect();
        let status = told(&standing(&[]), Outcome::Synced, &many);
        assert_eq!((status.left_out.len(), status.warnings.len(), status.differences.len()), (50, 20, 20));
        assert!(status.left_out[0].folder.chars().count() == 300 && status.warnings[0].len() == 500);
        assert!(status.differences.keys().all(|kind| kind.len() <= MAX_KIND));
    }
}
