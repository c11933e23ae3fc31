//! A server's certificate, as far as people need to know it.

use std::net::IpAddr;

use serde::Serialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// A server's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Certificate {
    /// Whom it was given to.
    pub subject: String,
    /// Who gave it.
    pub issuer: String,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// The last moment that it is good for, seconds since 1970 UTC.
    pub not_after: i64,
}

impl Certificate {
    /// Reads a certificate (DER); none when it cannot be read.
    #[must_use]
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(four) => Some(IpAddr::from(four).to_string()),
                Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_string()),
            },
            _ => None,
        };
        Some(Self {
            subject: short_name(parsed.subject()),
            issuer: short_name(parsed.issuer()),
            names: alternatives.iter().flat_map(|san| &san.value.general_names).filter_map(name).collect(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

/// The common name, or the organization, or all of it.
fn short_name(name: &X509Name<'_>) -> String {
    let first = name.iter_common_name().chain(name.iter_organization()).find_map(|part| part.as_str().ok());
    first.map_or_else(|| name.to_string(), str::to_owned)
}
