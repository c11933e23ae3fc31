//! What a server offers.

use std::collections::BTreeSet;

/// The capabilities that a server announced, upper-cased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(BTreeSet<String>);

/// How a literal can be sent without waiting for the server's `+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LiteralSupport {
    /// LITERAL+ (RFC 7888): of any size.
    Plus,
    /// LITERAL-: up to 4096 bytes.
    Minus,
    /// Never.
    Synchronizing,
}

impl LiteralSupport {
    /// True when a literal of `length` bytes may be sent at once.
    #[must_use]
    pub(crate) const fn allows_unsynchronized(self, length: u64) -> bool {
        match self {
            Self::Plus => true,
            Self::Minus => length <= 4096,
            Self::Synchronizing => false,
        }
    }
}

impl Capabilities {
    /// True when `name` (upper case) is offered.
    #[must_use]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// All of them, sorted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The SASL mechanisms offered.
    pub(crate) fn mechanisms(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|c| c.strip_prefix("AUTH="))
    }

    /// How literals can be sent.
    #[must_use]
    pub(crate) fn literal_support(&self) -> LiteralSupport {
        if self.has("LITERAL+") {
            LiteralSupport::Plus
        } else if self.has("LITERAL-") || self.has("IMAP4REV2") {
            LiteralSupport::Minus
        } else {
            LiteralSupport::Synchronizing
        }
    }

    /// The largest message that APPEND takes, bytes, where the server says so for all folders (RFC 7889). maddy says 0
    /// where it has no limit.
    #[must_use]
    pub(crate) fn append_limit(&self) -> Option<u64> {
        self.0.iter().find_map(|c| c.strip_prefix("APPENDLIMIT=")).and_then(|n| n.parse().ok()).filter(|n| *n > 0)
    }

    /// The most messages that one command touches, where the server says so (RFC 9738).
    #[must_use]
    pub(crate) fn message_limit(&self) -> Option<u32> {
        self.0.iter().find_map(|c| c.strip_prefix("MESSAGELIMIT=")).and_then(|n| n.parse().ok()).filter(|n| *n > 0)
    }

    /// True for CONDSTORE (RFC 7162), which QRESYNC includes.
    #[must_use]
    pub(crate) fn condstore(&self) -> bool {
        self.has("CONDSTORE") || self.has("QRESYNC")
    }
}

impl FromIterator<String> for Capabilities {
    fn from_iter<I: IntoIterator<Item = String>>(iter: I) -> Self {
        Self(iter.into_iter().map(|c| c.to_ascii_uppercase()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(list: &str) -> Capabilities {
        list.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn literal_minus_allows_4096_bytes_at_once_and_not_one_more() {
        let literals = capabilities("IMAP4rev1 LITERAL-").literal_support();
        assert!(literals.allows_unsynchronized(4096));
        assert!(!literals.allows_unsynchronized(4097));
    }

    #[test]
    fn without_an_announcement_every_literal_waits() {
        assert!(!capabilities("IMAP4rev1").literal_support().allows_unsynchronized(0));
    }

    #[test]
    fn append_limit_and_mechanisms_are_found_in_any_case() {
        let found = capabilities("imap4rev1 appendlimit=1000 auth=PLAIN AUTH=XOAUTH2");
        assert_eq!(found.append_limit(), Some(1000));
        assert_eq!(capabilities("IMAP4rev1 APPENDLIMIT=0").append_limit(), None);
        assert_eq!(found.mechanisms().collect::<Vec<_>>(), ["PLAIN", "XOAUTH2"]);
    }
}
