//! Which MailboxSyncs leave with their mailboxes: never mail, and never many at once by mistake. Pure.

use std::collections::BTreeSet;

use crate::api::{mail_migration::PendingRemoval, names};

/// More than so many at once need a confirmation, where they are more than [`MANY_PERCENT`] of all.
const MANY: usize = 10;
/// So many of a hundred are nothing unusual in a long list.
const MANY_PERCENT: usize = 5;
/// So many at once need a confirmation where they are more than half of all: in a short list, too.
const SEVERAL: usize = 3;

/// What happens to mailboxes that left the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemovalDecision {
    /// Removed now: MailboxSyncs by name.
    pub now: BTreeSet<String>,
    /// Waits for a confirmation.
    pub pending: Option<PendingRemoval>,
}

/// True when so many of a migration's mailboxes leave the list at once only once a person has confirmed it: all of them, most
/// of a short list, or many of a long one. A list that was emptied or cut by mistake looks like that.
fn needs_confirmation(left: usize, total: usize) -> bool {
    let all = left > 0 && left == total;
    let most = left >= SEVERAL && left > total / 2;
    let many = left > MANY && left * 100 > total * MANY_PERCENT;
    all || most || many
}

/// Decides. `existing` are MailboxSyncs by name, with their mailboxes; `known` are those that stay; `confirmed` is
/// `spec.confirmRemoval`; `held` are those that wait for a confirmation already. These go on waiting, though they are few
/// among all once the mailboxes that replace them are made.
#[must_use]
pub fn decide_removal<'a>(
    existing: impl Iterator<Item = (&'a str, &'a str)>,
    known: impl Fn(&str) -> bool,
    confirmed: Option<&str>,
    held: Option<&PendingRemoval>,
) -> RemovalDecision {
    let mut total = 0;
    let mut left = BTreeSet::new();
    for (name, mailbox) in existing {
        total += 1;
        if !known(name) {
            left.insert((name, mailbox));
        }
    }
    let removed: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
    let token = names::hash_texts(&removed, 12);
    let waits = needs_confirmation(left.len(), total) || held.is_some_and(|held| held.token == token);
    if !waits || confirmed == Some(token.as_str()) {
        return RemovalDecision { now: removed.into_iter().map(str::to_owned).collect(), pending: None };
    }
    let examples = left.iter().take(5).map(|(_, mailbox)| (*mailbox).to_owned()).collect();
    let count = i32::try_from(left.len()).unwrap_or(i32::MAX);
    RemovalDecision { now: BTreeSet::new(), pending: Some(PendingRemoval { count, token, examples }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(total: usize, stay: usize, confirmed: Option<&str>) -> RemovalDecision {
        let names: Vec<String> = (0..total).map(|n| format!("m{n:04}")).collect();
        let stays: BTreeSet<&String> = names.iter().take(stay).collect();
        let existing = names.iter().map(|n| (n.as_str(), n.as_str()));
        decide_removal(existing, |n| stays.iter().any(|s| *s == n), confirmed, None)
    }

    #[test]
    fn a_few_leave_at_once_and_many_only_when_confirmed() {
        assert_eq!(left(20, 10, None).now.len(), 10);
        let many = left(20, 9, None);
        let pending = many.pending.unwrap();
        assert_eq!((many.now.len(), pending.count, pending.examples.len()), (0, 11, 5));
        assert_eq!(left(20, 9, Some(&pending.token)).now.len(), 11);
        assert_eq!(left(1000, 950, None).now.len(), 50);
        assert!(left(1000, 949, None).pending.is_some());
    }

    #[test]
    fn most_of_a_short_list_leave_only_when_confirmed_and_so_does_the_last_one() {
        let held = |total, stay| left(total, stay, None).pending.is_some();
        for (total, stay, confirm) in [
            (1, 1, false),
            (1, 0, true),
            (2, 1, false),
            (2, 0, true),
            (3, 1, false),
            (4, 2, false),
            (4, 1, true),
            (5, 3, false),
            (5, 2, true),
            (6, 3, false),
            (10, 5, false),
            (10, 4, true),
            (12, 0, true),
        ] {
            assert_eq!(held(total, stay), confirm, "{stay} of {total} stay");
        }
    }

    #[test]
    fn who_waits_for_a_confirmation_goes_on_waiting_when_others_come() {
        let decide = |others: usize, confirmed: Option<&str>, held: Option<&PendingRemoval>| {
            let names: Vec<String> = (0..3 + others).map(|n| format!("m{n}")).collect();
            let existing = names.iter().map(|n| (n.as_str(), n.as_str()));
            decide_removal(existing, |n| !["m0", "m1", "m2"].contains(&n), confirmed, held)
        };
        let pending = decide(0, None, None).pending.unwrap();
        assert_eq!(decide(7, None, Some(&pending)).pending.as_ref(), Some(&pending));
        assert_eq!(decide(7, Some(&pending.token), Some(&pending)).now.len(), 3);
        assert_eq!(decide(7, None, None).now.len(), 3, "three of ten leave at once");
    }

    #[test]
    fn a_confirmation_stands_for_exactly_these_mailboxes() {
        let token = left(20, 9, None).pending.unwrap().token;
        assert!(left(20, 8, Some(&token)).pending.is_some());
    }
}
