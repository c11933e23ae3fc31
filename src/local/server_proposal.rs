//! Which server may have the mailbox of an address. Today a guess; what a domain publishes of its servers belongs here, too.

use super::account_url::AccountUrl;
use crate::{api::TlsMode, host_name::HostName};

/// The accounts that an address may mean, the likeliest first. None: nothing is known, and a person has to say. `other` is the
/// other side, whose server can't be meant twice.
#[must_use]
pub(crate) fn propose_servers(address: &str, other: Option<&AccountUrl>) -> Vec<AccountUrl> {
    let domain = address.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| !domain.is_empty());
    let guess = domain.and_then(|domain| HostName::parse(&format!("imap.{domain}")));
    let account = |host| AccountUrl { tls_mode: TlsMode::Implicit, username: address.to_owned(), host, port: None };
    guess.filter(|host| other.is_none_or(|other| other.host != *host)).map(account).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_guessed_to_be_at_imap_of_its_domain_once() {
        let proposed = |address: &str, other: Option<&str>| {
            let other: Option<AccountUrl> = other.map(|url| url.parse().unwrap());
            propose_servers(address, other.as_ref()).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(proposed("alice@acme.example", None), ["alice@acme.example at imap.acme.example"]);
        assert_eq!(proposed("alice@acme.example", Some("bob@IMAP.acme.example")), [""; 0]);
        for nothing in ["alice", "alice@", "alice@a b", "alice@[192.0.2.1]"] {
            assert_eq!(proposed(nothing, None), [""; 0], "{nothing}");
        }
    }
}
