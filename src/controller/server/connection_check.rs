//! One connection test of a MailServer, and what it found as parsed facts.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Api, Client};
use secrecy::SecretBox;
use tokio::time::timeout;

use crate::{
    api::{self, MailServerSpec, common::SecretKeyRef, mail_server::ServerFacts},
    error::{Error, Result, Side},
    imap::{
        AddressPolicy,
        probe::{ServerProbe, probe_server},
    },
    resolve::{self, SecretError, SecretProvider},
    terminal_text::harmless,
};

/// One whole test, at most.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// Each of its waits, at most.
const STEP_TIMEOUT: api::Duration = api::Duration::from_secs(10);
/// The longest subject that the API takes, characters.
const MAX_SUBJECT: usize = 500;

/// Mechanisms that are shown; what else a server may say is not repeated.
const MECHANISMS: [&str; 16] = [
    "ANONYMOUS",
    "CRAM-MD5",
    "DIGEST-MD5",
    "EXTERNAL",
    "GSSAPI",
    "LOGIN",
    "NTLM",
    "OAUTHBEARER",
    "PLAIN",
    "PLAIN-CLIENTTOKEN",
    "SCRAM-SHA-1",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-512",
    "XOAUTH2",
];

/// Capabilities that are shown, as they are written.
const CAPABILITIES: [&str; 29] = [
    "APPENDLIMIT",
    "COMPRESS=DEFLATE",
    "CONDSTORE",
    "CREATE-SPECIAL-USE",
    "ENABLE",
    "ESEARCH",
    "ID",
    "IDLE",
    "IMAP4rev1",
    "IMAP4rev2",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "LITERAL+",
    "LITERAL-",
    "LOGINDISABLED",
    "MOVE",
    "MULTIAPPEND",
    "NAMESPACE",
    "OBJECTID",
    "QRESYNC",
    "QUOTA",
    "SASL-IR",
    "SPECIAL-USE",
    "STARTTLS",
    "STATUS=SIZE",
    "UIDPLUS",
    "UNSELECT",
    "UTF8=ACCEPT",
    "UTF8=ONLY",
];

/// Tests a server. The outer error: the API server did not give the CA bundle, and nothing is known.
pub(super) async fn check_server(
    client: &Client,
    addresses: &AddressPolicy,
    namespace: &str,
    spec: &MailServerSpec,
) -> Result<Result<ServerFacts>, kube::Error> {
    let bundle = match &spec.tls.ca_bundle_ref {
        Some(reference) => {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
            match secrets.get_opt(&reference.name).await {
                Err(kube::Error::Api(answer)) if answer.code == 403 => return Ok(Err(unreadable_error(reference))),
                secret => secret?.map(|secret| secret.data.unwrap_or_default()),
            }
        }
        None => None,
    };
    Ok(match timeout(CHECK_TIMEOUT, probe_mail_server(spec, addresses, bundle)).await {
        Ok(found) => found,
        Err(_) => Err(Error::network(format!("the server did not answer within {} s", CHECK_TIMEOUT.as_secs()))
            .advice("Check host, port and firewall")),
    })
}

/// The operator was installed without the right to get Secrets. Sync pods mount them, and need none.
fn unreadable_error(reference: &SecretKeyRef) -> Error {
    let what =
        format!("the operator may not get the Secret {}, so the server is not tested; syncs use it", reference.name);
    Error::configuration(what).advice(
        "Write the certificates into tls.caBundle, or ask whoever runs the operator to give it that right (rbac.secrets in \
         the chart)",
    )
}

async fn probe_mail_server(
    spec: &MailServerSpec,
    addresses: &AddressPolicy,
    bundle: Option<BTreeMap<String, ByteString>>,
) -> Result<ServerFacts> {
    let timeouts =
        api::common::Timeouts { connect: STEP_TIMEOUT, reply: STEP_TIMEOUT, ..api::common::Timeouts::default() };
    let mut endpoint = resolve::server_endpoint(Side::Source, spec, &timeouts, &CaBundleSecret(bundle))?;
    endpoint.addresses = addresses.clone();
    Ok(server_facts(&probe_server(&endpoint).await?))
}

/// The one Secret that a server may need, as it was read.
struct CaBundleSecret(Option<BTreeMap<String, ByteString>>);

impl SecretProvider for CaBundleSecret {
    fn value(&self, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError> {
        let data = self.0.as_ref().ok_or(SecretError::NoSecret)?;
        let value = data.get(&secret.key).ok_or_else(|| SecretError::NoKey(data.keys().cloned().collect()))?;
        Ok(SecretBox::new(value.0.clone().into_boxed_slice()))
    }

    fn file(&self, _: &SecretKeyRef) -> Option<PathBuf> {
        None
    }

    fn how_to_provide(&self, secret: &SecretKeyRef) -> String {
        format!(
            "Create the Secret {} in the MailServer's namespace, with the certificates as key {}",
            secret.name, secret.key
        )
    }
}

/// What a look found, parsed.
fn server_facts(probe: &ServerProbe) -> ServerFacts {
    let certificate = probe.facts.certificate();
    let offered = |name: &str| probe.capabilities.has(&name.to_ascii_uppercase());
    let known = |list: &[&str], offered: &dyn Fn(&str) -> bool| -> Vec<String> {
        list.iter().filter(|name| offered(name)).map(|name| (*name).to_owned()).collect()
    };
    ServerFacts {
        tls_version: probe.facts.tls(),
        certificate_subject: certificate
            .as_ref()
            .map(|certificate| harmless(&certificate.subject).chars().take(MAX_SUBJECT).collect()),
        certificate_not_after: certificate
            .and_then(|certificate| Timestamp::from_second(certificate.not_after).ok())
            .map(Time),
        mechanisms: known(&MECHANISMS, &|name| offered(&format!("AUTH={name}"))),
        capabilities: known(&CAPABILITIES, &|name| {
            offered(name) || (name == "APPENDLIMIT" && probe.capabilities.append_limit().is_some())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::session::ConnectionFacts;

    #[test]
    fn only_what_is_known_is_shown() {
        let said = ["IMAP4REV1", "AUTH=PLAIN", "AUTH=XOAUTH2", "AUTH=X-Y", "LITERAL+", "APPENDLIMIT=35", "X-SECRET"];
        let probe = ServerProbe {
            facts: ConnectionFacts {
                greeting: "internal".into(),
                tls_version: Some("TLSv1_2".into()),
                ..ConnectionFacts::default()
            },
            capabilities: said.into_iter().map(str::to_owned).collect(),
        };
        let facts = server_facts(&probe);
        assert_eq!(facts.mechanisms, ["PLAIN", "XOAUTH2"]);
        assert_eq!(facts.capabilities, ["APPENDLIMIT", "IMAP4rev1", "LITERAL+"]);
        assert_eq!(facts.tls_version.as_deref(), Some("TLS 1.2"));
    }

    #[test]
    fn what_is_shown_stands_in_order() {
        assert!(MECHANISMS.is_sorted() && CAPABILITIES.is_sorted());
    }
}
