//! Mail servers' hosts, as they are compared.

use std::{fmt, net::Ipv6Addr};

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

    /// The host that is written so; none where it is neither a name (labels of up to 63 letters, digits, `-` and `_`; RFC
    /// 1123, section 2.1) nor an IP address. An IPv6 address stands without brackets.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let host = Self::new(text);
        let is_name = host.0.len() <= 253 && host.0.split('.').all(is_label);
        (is_name || host.0.parse::<Ipv6Addr>().is_ok()).then_some(host)
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

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_beside_it() {
        for right in
            ["imap.example.com", "LOCALHOST", "imap.example.com.", "192.0.2.7", "2001:db8::7", "mail_1.a-b.example"]
        {
            assert_eq!(HostName::parse(right), Some(HostName::new(right)));
        }
        let long = "a.".repeat(128);
        for wrong in
            ["", ".", "a..b", "-a.example", "a b", "a/b", "a@b", "a:993", "[::1]", "münchen.example", "a%20b", &long]
        {
            assert_eq!(HostName::parse(wrong), None, "{wrong}");
        }
    }
}
