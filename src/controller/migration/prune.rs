//! Which MailboxSyncs leave with their mailboxes: never mail, and never many at once by mistake. Pure.

use std::collections::BTreeSet;

use crate::api::{mail_migration::PendingRemoval, names};

/// So many may always leave at once.
const ALWAYS_REMOVABLE: usize = 10;
/// And so many of a hundred.
const REMOVABLE_PERCENT: usize = 5;

/// What happens to mailboxes that left the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemovalDecision {
    /// Removed now: MailboxSyncs by name.
    pub now: BTreeSet<String>,
    /// Waits for a confirmation.
    pub pending: Option<PendingRemoval>,
}

/// Decides. `existing` are MailboxSyncs by name, with their mailboxes; `known` are those that stay; `confirmed` is
/// `spec.confirmRemoval`.
#[must_use]
pub fn decide_removal<'a>(
    existing: impl Iterator<Item = (&'a str, &'a str)>,
    known: impl Fn(&str) -> bool,
    confirmed: Option<&str>,
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
    let few = left.len() <= ALWAYS_REMOVABLE.max(total * REMOVABLE_PERCENT / 100);
    if few || confirmed == Some(token.as_str()) {
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
        decide_removal(names.iter().map(|n| (n.as_str(), n.as_str())), |n| stays.iter().any(|s| *s == n), confirmed)
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
    fn a_confirmation_stands_for_exactly_these_mailboxes() {
        let token = left(20, 9, None).pending.unwrap().token;
        assert!(left(20, 8, Some(&token)).pending.is_some());
    }
}
