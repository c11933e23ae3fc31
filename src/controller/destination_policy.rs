//! Where mail may be moved to, by name. What DNS says of a name is not looked at here: see `addresses`.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{error::Error, host_name::HostName};

/// One entry of `policy.allowedDestinations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AllowedDestination {
    /// This host.
    Host(String),
    /// This address, however it is written.
    Address(IpAddr),
    /// Every host whose name ends so; begins with a dot.
    Suffix(String),
}

impl AllowedDestination {
    /// True when a host, as a user wrote it, is one of these. Case and a name's trailing dot count for nothing.
    #[must_use]
    pub(crate) fn allows(&self, host: &str) -> bool {
        let host = HostName::new(host);
        match self {
            Self::Host(name) => host.as_str() == name,
            Self::Address(address) => host.as_str().parse() == Ok(*address),
            Self::Suffix(suffix) => {
                let host = host.as_str();
                !is_address(host) && host.len() > suffix.len() && host.ends_with(suffix)
            }
        }
    }
}

/// True when `host` may be moved to: always where nothing is listed.
#[must_use]
pub fn allows_host(allowed: &[AllowedDestination], host: &str) -> bool {
    allowed.is_empty() || allowed.iter().any(|destination| destination.allows(host))
}

/// Why a host may not be moved to. Says nothing of where mail may go instead: that is not every tenant's business.
/// `reference`: the MailServer that the host stands in.
#[must_use]
pub(crate) fn refusal_error(host: &str, reference: Option<&str>) -> Error {
    let place = reference.map_or_else(
        || "spec.destination.server.host".to_owned(),
        |name| format!("the MailServer {name} that spec.destination.serverRef names"),
    );
    Error::configuration(format!("mail may not be moved to {host}")).advice(format!(
        "Correct {place}; if this host is meant, ask whoever runs Mailferry to allow it (policy.allowedDestinations in \
         the operator's configuration)"
    ))
}

/// True for an IP address, in each spelling that a resolver may take for one: the last label of a name is no number.
fn is_address(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let number = |digits: &str, radix| digits.chars().all(|digit| digit.is_digit(radix));
    host.contains(':') || number(last, 10) || last.strip_prefix("0x").is_some_and(|digits| number(digits, 16))
}

impl TryFrom<String> for AllowedDestination {
    type Error = DestinationParseError;

    fn try_from(text: String) -> Result<Self, DestinationParseError> {
        let host = HostName::new(&text).to_string();
        let characters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if let Ok(address) = host.parse() {
            return Ok(Self::Address(address));
        }
        let name = host.strip_prefix('.').unwrap_or(&host);
        if name.is_empty() || name.split('.').any(str::is_empty) || !name.chars().all(characters) || is_address(name) {
            return Err(DestinationParseError(text));
        }
        Ok(if host.starts_with('.') { Self::Suffix(host) } else { Self::Host(host) })
    }
}

impl From<AllowedDestination> for String {
    fn from(destination: AllowedDestination) -> Self {
        destination.to_string()
    }
}

impl fmt::Display for AllowedDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) | Self::Suffix(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no destination: write a host name (mail.newhost.example, an international one in its xn-- form), a suffix \
     with a leading dot (.newhost.example) or an IP address, without port and wildcard"
)]
pub struct DestinationParseError(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &[&str]) -> Vec<AllowedDestination> {
        list.iter().map(|entry| (*entry).to_owned().try_into().unwrap()).collect()
    }

    fn is_allowed(list: &[&str], host: &str) -> bool {
        allows_host(&allowed(list), host)
    }

    #[test]
    fn where_nothing_is_listed_mail_may_go_anywhere() {
        assert!(is_allowed(&[], "mail.example") && is_allowed(&[], "192.0.2.1"));
    }

    #[test]
    fn a_host_is_allowed_by_its_own_name_in_any_case_and_with_the_roots_dot() {
        let list = ["Mail.NewHost.example", "xn--mller-kva.example."];
        for host in ["mail.newhost.example", "MAIL.newhost.Example.", "xn--MLLER-kva.example", "xn--mller-kva.example."]
        {
            assert!(is_allowed(&list, host), "{host}");
        }
        for host in ["newhost.example", "a.mail.newhost.example", "mail.newhost.example.org", "xmail.newhost.example"] {
            assert!(!is_allowed(&list, host), "{host}");
        }
    }

    #[test]
    fn a_suffix_allows_every_host_below_it_and_not_itself() {
        for host in ["mail.newhost.example", "a.b.NEWHOST.example."] {
            assert!(is_allowed(&[".newhost.example"], host), "{host}");
        }
        for host in
            ["newhost.example", ".newhost.example", "evilnewhost.example", "mail.newhost.example.org", "example"]
        {
            assert!(!is_allowed(&[".newhost.example"], host), "{host}");
        }
    }

    #[test]
    fn an_address_is_allowed_only_as_itself() {
        let list = ["192.0.2.7", "2001:DB8::7", ".example"];
        for host in ["192.0.2.7", "2001:db8:0:0::7", "2001:db8::0007"] {
            assert!(is_allowed(&list, host), "{host}");
        }
        for host in ["192.0.2.70", "2.7", "::ffff:192.0.2.7", "3221225991", "0xc0000207", "2001:db8::8", "192.0.2.7.5"]
        {
            assert!(!is_allowed(&list, host), "{host}");
        }
        // No suffix can be an address' end; were it one, it would allow none.
        for host in ["10.0.0.5", "10.5", "0x0a.0x5", "::1.0.0.5"] {
            assert!(!AllowedDestination::Suffix(".5".into()).allows(host), "{host}");
            assert!(!AllowedDestination::Suffix(".0x5".into()).allows(host), "{host}");
        }
    }

    #[test]
    fn what_can_be_no_host_is_refused_with_what_to_write() {
        for wrong in [
            "",
            ".",
            "..",
            "*.newhost.example",
            "mail.newhost.example:993",
            "imaps://mail.newhost.example",
            "müller.example",
            ".5",
            "10.0.0.0/8",
            "127.1",
            "a..b",
            "..example",
            "a b",
            "[2001:db8::7]",
        ] {
            let error = AllowedDestination::try_from(wrong.to_owned()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{wrong}` is no destination")) && error.contains("xn--"), "{error}");
        }
    }

    #[test]
    fn a_refusal_names_the_host_and_who_can_change_it() {
        let error = refusal_error("mail.elsewhere.example", None);
        assert_eq!(error.what, "mail may not be moved to mail.elsewhere.example");
        let advice = error.advice.unwrap();
        assert!(
            advice.contains("spec.destination.server.host") && advice.contains("whoever runs Mailferry"),
            "{advice}"
        );
        let advice = refusal_error("h", Some("new")).advice.unwrap();
        assert!(advice.contains("the MailServer new"), "{advice}");
    }
}
