//! The address of a token endpoint, and which one may be asked: what is sent there opens mailboxes.

use std::{fmt, net::IpAddr};

use http::Uri;

use crate::error::{Error, Result};

/// The longest address.
const MAX_LENGTH: usize = 500;

/// The address of a token endpoint (RFC 6749, section 3.2): `https`, with a host and without user or fragment. Plain
/// `http` goes to this machine only, by a loopback address or as `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenUrl(Uri);

impl TokenUrl {
    /// Reads an address; `field` is what its place is called in errors.
    ///
    /// # Errors
    /// Configuration where it is none, or one that may not be asked.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::configuration(format!("{field} {what}"))
                .advice("Write the whole address of the token endpoint, such as https://id.example.com/oauth2/token")
        };
        if text.len() > MAX_LENGTH || text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.contains('#') {
            return Err(wrong("is no address"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is no address"))?;
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(wrong("has no host"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong("names a user, which belongs into other fields"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let here = bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(Self(uri)),
            Some("http") if here => Ok(Self(uri)),
            _ => Err(wrong("must begin with https://")),
        }
    }

    /// The address as a client takes it.
    #[must_use]
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Its host, for messages.
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }
}

impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_checked_addresses_only() {
        for right in [
            "https://login.microsoftonline.com/acme.example/oauth2/v2.0/token",
            "https://id.example:8443/token?p=policy",
            "http://127.0.0.1:8080/token",
            "http://[::1]:8080/token",
            "http://localhost/token",
        ] {
            let url = TokenUrl::parse("token-url", right).unwrap();
            assert_eq!(url.to_string(), right);
        }
        for wrong in [
            "",
            "token",
            "/token",
            "ftp://id.example/",
            "http://id.example/token",
            "http://10.0.0.1/token",
            "http://127.0.0.1.example/token",
            "https://user:pass@id.example/token",
            "https://id.example/to ken",
            "https://id.example/token#part",
            "https://id.example/to\nken",
        ] {
            let error = TokenUrl::parse("token-url", wrong).unwrap_err();
            assert!(error.what.starts_with("token-url "), "{wrong}: {error}");
        }
    }
}
