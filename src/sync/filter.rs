//! Which messages the migration's rules leave out.

use super::spec::MessageFilter;

/// What is known about a message before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MessageFacts {
    /// RFC822.SIZE, bytes; none when the server did not say.
    pub size: Option<u64>,
    /// INTERNALDATE, seconds since 1970 UTC; none when it was missing or no date.
    pub date_epoch: Option<i64>,
    /// Carries \Deleted.
    pub deleted: bool,
}

/// The rule that leaves a message out, as it is counted in the report; none when the message is to be copied.
/// What is not known is never a reason to leave a message out.
#[must_use]
pub(crate) fn excluding_rule(rules: &MessageFilter, facts: MessageFacts) -> Option<&'static str> {
    let date = |wanted: Option<i64>, broken: fn(i64, i64) -> bool| {
        wanted.zip(facts.date_epoch).is_some_and(|(limit, date)| broken(date, limit))
    };
    let size = |wanted: Option<u64>, broken: fn(u64, u64) -> bool| {
        wanted.zip(facts.size).is_some_and(|(limit, size)| broken(size, limit))
    };
    if rules.skip_deleted && facts.deleted {
        Some("deleted")
    } else if date(rules.since, |date, since| date < since) {
        Some("older than since")
    } else if date(rules.before, |date, before| date >= before) {
        Some("not before before")
    } else if size(rules.max_size, |size, max| size > max) {
        Some("larger than maxSize")
    } else if size(rules.min_size, |size, min| size < min) {
        Some("smaller than minSize")
    } else {
        None
    }
}

/// True when what `before` left out by size and date is left out by `now`, too.
#[must_use]
pub(crate) fn leave_out_as_much(now: &MessageFilter, before: &MessageFilter) -> bool {
    fn holds<N: Copy>(now: Option<N>, before: Option<N>, is_as_strict: fn(N, N) -> bool) -> bool {
        before.is_none_or(|before| now.is_some_and(|now| is_as_strict(now, before)))
    }
    holds(now.since, before.since, |now, before| now >= before)
        && holds(now.before, before.before, |now, before| now <= before)
        && holds(now.max_size, before.max_size, |now, before| now <= before)
        && holds(now.min_size, before.min_size, |now, before| now >= before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(size: u64, date: i64) -> MessageFacts {
        MessageFacts { size: Some(size), date_epoch: Some(date), deleted: false }
    }

    #[test]
    fn without_rules_everything_is_copied() {
        let deleted = MessageFacts { deleted: true, ..facts(0, i64::MIN) };
        assert_eq!(excluding_rule(&MessageFilter::default(), deleted), None);
    }

    #[test]
    fn limits_are_inclusive_where_their_names_say_so() {
        let rules = MessageFilter {
            since: Some(100),
            before: Some(200),
            max_size: Some(20),
            min_size: Some(10),
            skip_deleted: true,
        };
        assert_eq!(excluding_rule(&rules, facts(10, 100)), None);
        assert_eq!(excluding_rule(&rules, facts(20, 199)), None);
        assert_eq!(excluding_rule(&rules, facts(10, 99)), Some("older than since"));
        assert_eq!(excluding_rule(&rules, facts(10, 200)), Some("not before before"));
        assert_eq!(excluding_rule(&rules, facts(21, 100)), Some("larger than maxSize"));
        assert_eq!(excluding_rule(&rules, facts(9, 100)), Some("smaller than minSize"));
        assert_eq!(excluding_rule(&rules, MessageFacts { deleted: true, ..facts(10, 100) }), Some("deleted"));
    }

    #[test]
    fn rules_leave_out_as_much_only_when_each_is_as_strict() {
        let before = MessageFilter { since: Some(100), max_size: Some(20), ..MessageFilter::default() };
        for stricter in [
            before.clone(),
            MessageFilter { since: Some(101), ..before.clone() },
            MessageFilter { max_size: Some(19), before: Some(300), ..before.clone() },
        ] {
            assert!(leave_out_as_much(&stricter, &before), "{stricter:?}");
        }
        for other in [
            MessageFilter::default(),
            MessageFilter { since: Some(99), ..before.clone() },
            MessageFilter { since: None, ..before.clone() },
            MessageFilter { max_size: Some(21), ..before.clone() },
        ] {
            assert!(!leave_out_as_much(&other, &before), "{other:?}");
        }
    }

    #[test]
    fn what_is_unknown_never_leaves_a_message_out() {
        let rules = MessageFilter {
            since: Some(100),
            before: Some(200),
            max_size: Some(20),
            min_size: Some(10),
            skip_deleted: false,
        };
        assert_eq!(excluding_rule(&rules, MessageFacts::default()), None);
    }
}
