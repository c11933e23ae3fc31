//! Whether all messages are copied, as conditions say it: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::not_copied::NotCopied;

/// The condition's type.
pub(crate) const ALL_COPIED: &str = "AllCopied";

/// Whether every message that the source holds is at the destination, or left out by what the user wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopiedVerdict {
    /// It is; so many messages are accepted as not copied.
    Copied(i64),
    /// These are known to be missing.
    Missing(NotCopied),
    /// Nobody knows: why.
    Unknown(String),
}

impl CopiedVerdict {
    /// The condition's status, its reason, and what people are told.
    #[must_use]
    pub(crate) fn condition_parts(&self) -> (&'static str, &'static str, String) {
        const COPIED: &str = "every message of the source is at the destination, or left out by the migration's rules";
        match self {
            Self::Copied(0) => ("True", "AllCopied", COPIED.to_owned()),
            Self::Copied(accepted) => ("True", "AllCopied", format!("{COPIED}; {accepted} are accepted as not copied")),
            Self::Missing(not_copied) => ("False", "NotCopied", not_copied_message(not_copied)),
            Self::Unknown(why) => ("Unknown", "NotKnown", why.clone()),
        }
    }
}

/// How many messages are accepted as not copied.
#[must_use]
pub(crate) fn accepted_count(not_copied: &NotCopied) -> i64 {
    not_copied.accepted.values().sum()
}

/// `3 messages are not copied: 2 refused, 1 tooLarge; ...`
#[must_use]
pub(crate) fn not_copied_message(not_copied: &NotCopied) -> String {
    let messages = match not_copied.messages {
        1 => "1 message is".to_owned(),
        many => format!("{many} messages are"),
    };
    let mut reasons: Vec<_> = not_copied.reasons.iter().filter(|(_, messages)| **messages > 0).collect();
    reasons.sort_by_key(|(reason, messages)| (std::cmp::Reverse(**messages), *reason));
    let reasons: Vec<_> = reasons.into_iter().map(|(reason, messages)| format!("{messages} {reason}")).collect();
    let accepted = match accepted_count(not_copied) {
        0 => String::new(),
        accepted => format!(" ({accepted} more are accepted)"),
    };
    let reasons = reasons.join(", ");
    format!("{messages} not copied: {reasons}{accepted}; `mailferry export --not-copied` writes them out")
}

/// What to add to a good ending so that it is true: nothing where all is copied.
#[must_use]
pub(crate) fn missing_notice(conditions: &[Condition]) -> Option<&str> {
    let all_copied = conditions.iter().find(|condition| condition.type_ == ALL_COPIED)?;
    (all_copied.status != "True").then_some(all_copied.message.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_are_not_copied_are_told_by_reason_the_most_first() {
        let reasons = [("refused", 2), ("tooLarge", 1), ("empty", 0), ("unreadable", 2)];
        let reasons = reasons.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect();
        let mut not_copied = NotCopied { messages: 5, reasons, ..NotCopied::default() };
        let told = "5 messages are not copied: 2 refused, 2 unreadable, 1 tooLarge; \
                    `mailferry export --not-copied` writes them out";
        assert_eq!(not_copied_message(&not_copied), told);
        not_copied.messages = 1;
        not_copied.reasons = [("refused".to_owned(), 1)].into();
        not_copied.accepted = [("tooLarge".to_owned(), 4)].into();
        let told = "1 message is not copied: 1 refused (4 more are accepted); \
                    `mailferry export --not-copied` writes them out";
        assert_eq!(not_copied_message(&not_copied), told);
    }
}
