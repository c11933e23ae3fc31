//! Between which servers mailboxes are moved: as the command line says, or each row for itself.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{columns::KnownSide, login::RowAccount};
use crate::{
    api::{MailServerSpec, MasterUser, Tls, TlsMode, validate},
    host_name::HostName,
};

/// What the command line says about one side.
#[derive(Debug, Clone, Default)]
pub struct SideSettings {
    /// The server, unless rows name it.
    pub server: Option<ServerChoice>,
    /// Its port, where rows do not say.
    pub port: Option<u16>,
    /// How the connection is protected; Implicit unless given.
    pub tls: Option<TlsMode>,
    /// Certificates of extra authorities, as PEM text.
    pub ca_bundle: Option<String>,
    /// An administrator who logs in for each mailbox.
    pub master: Option<MasterUser>,
}

/// A server of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChoice {
    /// A MailServer's name.
    Reference(String),
    /// A host's name or address.
    Host(String),
}

/// Where an account is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerLocation {
    /// At a MailServer of this name.
    Reference(String),
    /// At a host, on a port where one is given.
    Host(String, Option<u16>),
}

impl SideSettings {
    /// What need not stand in the table.
    #[must_use]
    pub(crate) const fn given(&self) -> KnownSide {
        KnownSide { server: self.server.is_some(), master: self.master.is_some() }
    }

    /// Where a row's account is; none where nobody says it.
    #[must_use]
    pub(crate) fn server_location(&self, login: &RowAccount) -> Option<ServerLocation> {
        match (&login.host, &self.server) {
            (Some(host), _) | (None, Some(ServerChoice::Host(host))) => {
                Some(ServerLocation::Host(HostName::new(host).to_string(), login.port.or(self.port)))
            }
            (None, Some(ServerChoice::Reference(name))) => Some(ServerLocation::Reference(name.clone())),
            (None, None) => None,
        }
    }

    /// One side of a MailMigration's spec.
    #[must_use]
    pub(crate) fn endpoint(&self, place: &ServerLocation) -> Value {
        let mut endpoint = match place {
            ServerLocation::Reference(name) => json!({"serverRef": {"name": name}}),
            ServerLocation::Host(host, port) => {
                let mut server = json!({ "host": host });
                if let Some(port) = port {
                    server["port"] = json!(port);
                }
                if self.tls.is_some() || self.ca_bundle.is_some() {
                    server["tls"] = json!({"mode": self.tls.unwrap_or_default()});
                }
                if let Some(pem) = &self.ca_bundle {
                    server["tls"]["caBundle"] = json!(pem);
                }
                json!({ "server": server })
            }
        };
        if let Some(MasterUser { username, password_secret_ref, mode, separator }) = &self.master {
            endpoint["masterUser"] = json!({"username": username, "passwordSecretRef": password_secret_ref});
            if *mode != crate::api::MasterMode::default() {
                endpoint["masterUser"]["mode"] = json!(mode);
            }
            if let Some(separator) = separator {
                endpoint["masterUser"]["separator"] = json!(separator);
            }
        }
        endpoint
    }

    /// What is wrong with it, in the words of the API.
    #[must_use]
    pub(crate) fn problem(&self) -> Option<String> {
        let host = match &self.server {
            Some(ServerChoice::Host(host)) => host.clone(),
            _ => "host.example".to_owned(),
        };
        let tls = Tls { mode: self.tls.unwrap_or_default(), ca_bundle: self.ca_bundle.clone(), ..Tls::default() };
        let spec = MailServerSpec { host, port: self.port.map(i32::from), tls, ..MailServerSpec::default() };
        validate::server_problems(&spec).into_iter().next().map(|problem| problem.message)
    }

    /// What is likely not meant.
    #[must_use]
    pub(crate) fn port_warning(&self) -> Option<&'static str> {
        let mode = self.tls.unwrap_or_default();
        match self.port {
            Some(143) if mode == TlsMode::Implicit => {
                Some("port 143 speaks no TLS from the first byte: StartTLS is usual there")
            }
            Some(993) if mode != TlsMode::Implicit => {
                Some("port 993 speaks TLS from the first byte: Implicit is usual there")
            }
            _ => None,
        }
    }
}

/// A host and the port behind it: `imap.example.com:993`, `[2001:db8::7]:993`. All of it is the host where no port is there.
#[must_use]
pub(crate) fn split_port(text: &str) -> (&str, Option<u16>) {
    let split = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.split_once(':').filter(|(_, port)| !port.contains(':')),
    };
    let port = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0);
    match split.and_then(|(host, text)| Some((host, port(text)?))) {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// True for what a table may have as a server: an address, or a host's name (RFC 1123) with a dot in it. The API takes
/// more, but where a table was cut in the wrong place, a piece of a password stands here, and few have this form.
#[must_use]
pub(crate) fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && ends(label.first())
            && ends(label.last())
            && label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let is_domain = |label: &str| label.len() > 1 && label.starts_with(|c: char| c.is_ascii_alphabetic());
    host.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || host.len() <= 253
            && name.split('.').all(|label| is_label(label.as_bytes()))
            && name.rsplit_once('.').is_some_and(|(_, last)| is_domain(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{EndpointSpec, SecretKeyRef};

    fn login(host: Option<&str>, port: Option<u16>) -> RowAccount {
        RowAccount { host: host.map(str::to_owned), port, username: "u".to_owned(), credential: None }
    }

    #[test]
    fn a_row_wins_over_the_command_line_and_hosts_have_no_case() {
        let side = SideSettings {
            server: Some(ServerChoice::Host("Mail.Example".into())),
            port: Some(143),
            ..SideSettings::default()
        };
        assert_eq!(
            side.server_location(&login(None, None)),
            Some(ServerLocation::Host("mail.example".into(), Some(143)))
        );
        assert_eq!(
            side.server_location(&login(Some("Old.example"), Some(993))),
            Some(ServerLocation::Host("old.example".into(), Some(993)))
        );
        assert_eq!(SideSettings::default().server_location(&login(None, None)), None);
    }

    #[test]
    fn an_endpoint_says_what_was_given_and_no_defaults() {
        let side = SideSettings {
            master: Some(MasterUser {
                username: "m".into(),
                password_secret_ref: SecretKeyRef { name: "s".into(), key: "k".into() },
                mode: crate::api::MasterMode::default(),
                separator: None,
            }),
            ..SideSettings::default()
        };
        let endpoint = side.endpoint(&ServerLocation::Host("h".into(), None));
        let master = json!({"username": "m", "passwordSecretRef": {"name": "s", "key": "k"}});
        assert_eq!(endpoint, json!({"server": {"host": "h"}, "masterUser": master}));
        let typed: EndpointSpec = serde_json::from_value(endpoint).unwrap();
        assert_eq!(typed.master_user, side.master);
    }

    #[test]
    fn a_port_behind_a_host_is_told_from_an_address() {
        for (text, host, port) in [
            ("imap.example.com:993", "imap.example.com", Some(993)),
            ("192.0.2.7:143", "192.0.2.7", Some(143)),
            ("[2001:db8::7]:993", "2001:db8::7", Some(993)),
            ("2001:db8::7", "2001:db8::7", None),
            ("imap.example.com", "imap.example.com", None),
            ("imap.example.com:0", "imap.example.com:0", None),
            ("imap.example.com:99999", "imap.example.com:99999", None),
            ("imaps://imap.example.com", "imaps://imap.example.com", None),
            ("[::1]", "[::1]", None),
        ] {
            assert_eq!(split_port(text), (host, port), "{text}");
        }
    }

    #[test]
    fn a_piece_of_a_password_is_hardly_ever_a_host() {
        for host in ["imap.example.com", "IMAP-2.Example.", "1und1.xn--p1ai", "localhost", "192.0.2.7", "2001:db8::7"] {
            assert!(is_host(host), "{host}");
            let spec = MailServerSpec { host: host.to_owned(), ..MailServerSpec::default() };
            assert_eq!(validate::server_problems(&spec), [], "the API takes {host}");
        }
        for piece in [
            "",
            ".",
            "..",
            "x9!",
            "x9",
            "Summer2024",
            "a b",
            "a.",
            ".b.example",
            "a..example",
            "-a.example",
            "a-.example",
            "a_b.example",
            "1.2",
            "a.1",
            "1.2.3.4.5",
            "a.b",
            "a:b",
            "a::b::c",
            "[::1]",
            "fe80::1%eth0",
            "imap.example.com:993",
            "imaps://imap.example",
            "käse.example",
        ] {
            assert!(!is_host(piece), "{piece}");
        }
        let label = "a".repeat(63);
        assert!(is_host(&format!("{label}.example")) && !is_host(&format!("a{label}.example")));
        assert!(!is_host(&[label.as_str(); 4].join(".")));
    }
}
