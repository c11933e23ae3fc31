//! Mail servers' hosts, as they are compared.

use std::fmt;

/// A host by which a mail server is known: a name in lower case without the dot that ends an absolute one (RFC 1034,
/// section 3.1), or an IP address. Two spellings of one name are equal; two names of one machine are not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostName(String);

impl HostName {
    /// The host that is written so.
    #[must_use]
    pub(crate) fn new(host: &str) -> Self {
        Self(host.trim_end_matches('.').to_ascii_lowercase())
    }

    /// The normal spelling.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_the_dot_of_an_absolute_name_make_no_other_host() {
        for host in ["imap.example.com", "IMAP.Example.COM", "imap.example.com."] {
            assert_eq!(HostName::new(host).as_str(), "imap.example.com");
        }
        assert_ne!(HostName::new("imap.example.com"), HostName::new("mail.example.com"));
        assert_eq!(HostName::new("2001:DB8::7").to_string(), "2001:db8::7");
    }
}
