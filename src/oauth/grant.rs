//! A grant: what somebody was given to ask for access tokens with.

use std::{collections::BTreeMap, fmt};

use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    assertion::{ClientCertificate, SigningKey},
    identity_provider::IdentityProvider,
    refresh_store::RefreshSeed,
    token_url::TokenUrl,
};
use crate::{
    error::{Error, Result},
    host_name::HostName,
};

/// The fields that a grant may have.
pub(crate) const KEYS: [&str; 11] = [
    "provider",
    "tenant",
    "client-id",
    "client-secret",
    "private-key",
    "certificate",
    "service-account.json",
    "refresh-token",
    "token-url",
    "scope",
    "imap-hosts",
];
/// The longest user name or other short text of a grant, bytes.
const MAX_TEXT: usize = 4096;

/// What kind of grant somebody says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantForm {
    /// An application of its own: client credentials, or a service account.
    Client,
    /// A user's consent: a refresh token.
    Grant,
}

/// What tokens are asked for with.
pub(crate) struct Grant {
    /// What people know it by.
    pub(crate) name: String,
    /// Who gives the tokens.
    pub(super) provider: IdentityProvider,
    /// The tenant, where the provider has some.
    pub(super) tenant: Option<String>,
    pub(super) client_id: String,
    pub(super) token_url: TokenUrl,
    pub(super) scope: String,
    imap_hosts: Vec<HostName>,
    pub(super) proof: GrantProof,
    identity: String,
}

/// How the grant is shown to the token endpoint.
pub(super) enum GrantProof {
    /// Client credentials with a secret (RFC 6749, section 4.4).
    ClientSecret(SecretString),
    /// Client credentials with a signed assertion (RFC 7523, section 2.2).
    ClientCertificate { key: SigningKey, certificate: ClientCertificate },
    /// A signed assertion for each user (RFC 7523, section 2.1).
    ServiceAccount { key: SigningKey, key_id: Option<String> },
    /// A refresh token (RFC 6749, section 6).
    RefreshToken { client_secret: Option<SecretString>, seed: RefreshSeed },
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("name", &self.name).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// The part of Google's key file that is needed.
#[derive(Deserialize)]
struct ServiceAccountFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: SecretString,
    private_key_id: Option<String>,
}

/// The fields as they are asked for: texts without blanks at their ends.
struct GrantFields<'a>(&'a BTreeMap<String, SecretBox<[u8]>>);

impl GrantFields<'_> {
    fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(|value| value.expose_secret().trim_ascii()).filter(|value| !value.is_empty())
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(bytes) = self.bytes(key) else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= MAX_TEXT && !text.contains(char::is_control) => Ok(Some(text)),
            _ => Err(Error::configuration(format!("{key} is no line of text"))),
        }
    }

    fn needed(&self, key: &str) -> Result<&str> {
        self.text(key)?.ok_or_else(|| Error::configuration(format!("{key} is missing")))
    }

    fn secret(&self, key: &str) -> Result<Option<SecretString>> {
        Ok(self.text(key)?.map(SecretString::from))
    }

    fn has(&self, key: &str) -> bool {
        self.bytes(key).is_some()
    }
}

impl Grant {
    /// Reads a grant from its fields ([`KEYS`]); `name` is what people know it by.
    ///
    /// # Errors
    /// Configuration where a field is missing, wrong or none that a grant has.
    pub(crate) fn new(name: &str, form: GrantForm, fields: &BTreeMap<String, SecretBox<[u8]>>) -> Result<Self> {
        Self::read(name, form, fields).map_err(|mut error| {
            error.what = format!("the grant {name}: {}", error.what);
            error
        })
    }

    fn read(name: &str, form: GrantForm, fields: &BTreeMap<String, SecretBox<[u8]>>) -> Result<Self> {
        if let Some(unknown) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(Error::configuration(format!("{unknown} is no field of a grant"))
                .advice(format!("A grant has {}", KEYS.join(", "))));
        }
        let identity = identity(form, fields);
        let fields = GrantFields(fields);
        let stated = fields.needed("provider").map_err(|error| error.advice(PROVIDERS))?;
        let provider = IdentityProvider::from_name(stated)
            .ok_or_else(|| Error::configuration("provider is none that is known").advice(PROVIDERS))?;
        let tenant = fields.text("tenant")?;
        let imap_hosts = imap_hosts(provider, fields.text("imap-hosts")?)?;
        let account = match form {
            GrantForm::Client => fields.bytes("service-account.json").map(service_account).transpose()?,
            GrantForm::Grant => None,
        };
        // A key file names an endpoint, too; what opens mailboxes goes to one that is known or stated.
        let token_url = match fields.text("token-url")? {
            Some(url) => TokenUrl::parse("token-url", url)?,
            None => provider.token_url(tenant)?.ok_or_else(|| Error::configuration("token-url is missing"))?,
        };
        let usual_scope = match form {
            GrantForm::Client => provider.application_scope(),
            GrantForm::Grant => provider.delegated_scope(),
        };
        let scope = fields.text("scope")?.unwrap_or(usual_scope).to_owned();
        let (client_id, proof) = match (form, account) {
            (GrantForm::Client, Some(account)) => {
                let key = SigningKey::from_pem("service-account.json", account.private_key.expose_secret().as_bytes())?;
                (account.client_email, GrantProof::ServiceAccount { key, key_id: account.private_key_id })
            }
            (GrantForm::Client, None) => (fields.needed("client-id")?.to_owned(), client_proof(&fields)?),
            (GrantForm::Grant, _) => {
                let client_id = fields.needed("client-id")?.to_owned();
                let token = fields.secret("refresh-token")?.ok_or_else(|| {
                    Error::configuration("refresh-token is missing").advice("`mailferry login` makes such a grant")
                })?;
                let seed = RefreshSeed::new(&token_url.to_string(), &client_id, token);
                (client_id, GrantProof::RefreshToken { client_secret: fields.secret("client-secret")?, seed })
            }
        };
        let tenant = tenant.map(str::to_owned);
        Ok(Self { name: name.to_owned(), provider, tenant, client_id, token_url, scope, imap_hosts, proof, identity })
    }

    /// True where a token of this grant may be sent to this IMAP server.
    #[must_use]
    pub(crate) fn permits(&self, host: &str) -> bool {
        self.imap_hosts.contains(&HostName::new(host))
    }

    /// The IMAP servers that its tokens may be sent to, for people.
    #[must_use]
    pub(crate) fn permitted_hosts(&self) -> String {
        self.imap_hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
    }

    /// What it is, for people.
    #[must_use]
    pub(crate) fn kind(&self) -> &'static str {
        match self.proof {
            GrantProof::ClientSecret(_) => "client credentials with a secret",
            GrantProof::ClientCertificate { .. } => "client credentials with a certificate",
            GrantProof::ServiceAccount { .. } => "service account with delegation",
            GrantProof::RefreshToken { .. } => "refresh token",
        }
    }

    /// When what it is made of ends, as far as that can be told.
    #[must_use]
    pub(crate) fn ends_at(&self) -> Option<jiff::Timestamp> {
        match &self.proof {
            GrantProof::ClientCertificate { certificate, .. } => Some(certificate.not_after),
            _ => None,
        }
    }

    /// What to do where an IMAP server refuses a login with a token that was just given.
    #[must_use]
    pub(crate) fn advice_on_refused_login(&self) -> &'static str {
        match (self.provider, &self.proof) {
            (IdentityProvider::Microsoft, GrantProof::ClientSecret(_) | GrantProof::ClientCertificate { .. }) => {
                "The tenant gave a token, and the mailbox does not take it: check the user name, that IMAP is on for it \
                 (Set-CASMailbox -ImapEnabled $true), and that the app may open it: New-ServicePrincipal with the \
                 object id of the enterprise application (not of the app registration), then Add-MailboxPermission \
                 with FullAccess"
            }
            (IdentityProvider::Microsoft, _) => {
                "The user signed in, and the mailbox does not take the token: check the user name, that IMAP is on for \
                 it (Set-CASMailbox -ImapEnabled $true), and that it is the mailbox of who signed in, or one that \
                 is shared with them"
            }
            (IdentityProvider::Google, GrantProof::ServiceAccount { .. }) => {
                "Google gave a token, and the mailbox does not take it: check the user name, and that IMAP is on for the \
                 account and in the domain (admin console, Gmail, End User Access)"
            }
            (IdentityProvider::Google, _) => {
                "Check that the user name is the address that signed in, and that IMAP is on for it"
            }
            (IdentityProvider::Other, _) => {
                "A token was given, and the server does not take it: check the user name, the scope of the grant, and \
                 that the server trusts this provider"
            }
        }
    }

    /// Whose mailbox a token is for, where each user needs one of his own; none where one token is for all.
    #[must_use]
    pub(super) fn subject<'u>(&self, user: &'u str) -> Option<&'u str> {
        matches!(self.proof, GrantProof::ServiceAccount { .. }).then_some(user)
    }

    /// A hash of all that it is made of: equal grants share their tokens.
    #[must_use]
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// The secrets that are sent to its endpoint as they are.
    pub(super) fn secrets(&self) -> Vec<&SecretString> {
        match &self.proof {
            GrantProof::ClientSecret(secret) => vec![secret],
            GrantProof::RefreshToken { client_secret, seed } => client_secret.iter().chain([seed.token()]).collect(),
            GrantProof::ClientCertificate { .. } | GrantProof::ServiceAccount { .. } => Vec::new(),
        }
    }
}

const PROVIDERS: &str = "Write microsoft, google or other";

fn client_proof(fields: &GrantFields<'_>) -> Result<GrantProof> {
    match (fields.secret("client-secret")?, fields.bytes("private-key"), fields.bytes("certificate")) {
        (Some(secret), None, None) => Ok(GrantProof::ClientSecret(secret)),
        (None, Some(key), Some(certificate)) => Ok(GrantProof::ClientCertificate {
            key: SigningKey::from_pem("private-key", key)?,
            certificate: ClientCertificate::from_pem("certificate", certificate)?,
        }),
        (None, Some(_), None) => Err(Error::configuration("certificate is missing")
            .advice("Give the certificate that was uploaded for the app, beside its private-key")),
        (None, None, Some(_)) => {
            Err(Error::configuration("private-key is missing")
                .advice("Give the private key of the certificate, as PEM"))
        }
        (None, None, None) if fields.has("refresh-token") => {
            Err(Error::configuration("a refresh-token is no application of its own")
                .advice("Write it into a Secret of type mailferry.io/oauth-grant"))
        }
        (None, None, None) => Err(Error::configuration("client-secret is missing")
            .advice("Give client-secret, or private-key and certificate, or service-account.json")),
        (Some(_), _, _) => Err(Error::configuration("client-secret and a certificate exclude each other")
            .advice("Leave out one of them; a certificate is safer")),
    }
}

fn service_account(json: &[u8]) -> Result<ServiceAccountFile> {
    let wrong = || {
        Error::configuration("service-account.json is no key file of a Google service account")
            .advice("Give the JSON file that Google Cloud made under Keys of the service account, as it is")
    };
    // serde's own error may quote what it read.
    let file: ServiceAccountFile = serde_json::from_slice(json).map_err(|_| wrong())?;
    if file.kind == "service_account" { Ok(file) } else { Err(wrong()) }
}

fn imap_hosts(provider: IdentityProvider, stated: Option<&str>) -> Result<Vec<HostName>> {
    let Some(stated) = stated else {
        let usual: Vec<_> = provider.imap_hosts().iter().copied().map(HostName::new).collect();
        return if usual.is_empty() {
            Err(Error::configuration("imap-hosts is missing")
                .advice("Name the IMAP servers that its tokens may be sent to, with commas between them"))
        } else {
            Ok(usual)
        };
    };
    let parts = stated.split([',', ' ']).filter(|part| !part.is_empty());
    parts
        .map(|part| HostName::parse(part).ok_or_else(|| Error::configuration("imap-hosts has a name that is no host")))
        .collect()
}

fn identity(form: GrantForm, fields: &BTreeMap<String, SecretBox<[u8]>>) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{form:?}"));
    for (key, value) in fields {
        let value = value.expose_secret();
        hash.update(key.len().to_be_bytes());
        hash.update(key);
        hash.update(value.len().to_be_bytes());
        hash.update(value);
    }
    hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::testing::{CERTIFICATE, RSA_KEY, app_grant, grant, refresh_grant};

    fn service_account_json() -> String {
        serde_json::json!({
            "type": "service_account", "client_email": "m@p.iam.gserviceaccount.com", "private_key_id": "k1",
            "private_key": RSA_KEY, "token_uri": "https://oauth2.googleapis.com/token", "project_id": "p",
        })
        .to_string()
    }

    #[test]
    fn a_provider_that_is_known_needs_no_addresses() {
        let app = app_grant();
        assert_eq!(app.token_url.to_string(), "https://login.microsoftonline.com/t/oauth2/v2.0/token");
        assert_eq!(app.scope, "https://outlook.office365.com/.default");
        assert!(app.permits("Outlook.Office365.com.") && !app.permits("outlook.office365.com.evil.example"));
        let json = service_account_json();
        let google = grant(GrantForm::Client, &[("provider", "google\n"), ("service-account.json", &json)]).unwrap();
        assert_eq!(google.token_url.to_string(), "https://oauth2.googleapis.com/token");
        assert_eq!(
            (google.client_id.as_str(), google.permitted_hosts().as_str()),
            ("m@p.iam.gserviceaccount.com", "imap.gmail.com")
        );
        assert_eq!((google.subject("alice"), app.subject("alice")), (Some("alice"), None));
    }

    #[test]
    fn a_key_file_cannot_lead_to_another_endpoint() {
        let json = service_account_json().replace("oauth2.googleapis.com", "evil.example");
        let google = grant(GrantForm::Client, &[("provider", "google"), ("service-account.json", &json)]).unwrap();
        assert_eq!(google.token_url.host(), "oauth2.googleapis.com");
    }

    #[test]
    fn a_certificate_needs_its_key_and_tells_its_end() {
        let base = [("provider", "microsoft"), ("tenant", "t"), ("client-id", "app")];
        let with = |more: &[(&str, &str)]| grant(GrantForm::Client, &[&base, more].concat());
        let both = with(&[("private-key", RSA_KEY), ("certificate", CERTIFICATE)]).unwrap();
        assert!(both.ends_at().is_some() && both.kind().contains("certificate"));
        for (fields, missing) in [
            (&[("private-key", RSA_KEY)][..], "certificate is missing"),
            (&[("certificate", CERTIFICATE)], "private-key is missing"),
            (&[], "client-secret is missing"),
            (&[("refresh-token", "r")], "no application"),
            (&[("client-secret", "s"), ("private-key", RSA_KEY)], "exclude each other"),
        ] {
            let error = with(fields).unwrap_err();
            assert!(error.what.starts_with("the grant acme: ") && error.what.contains(missing), "{error}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (form, fields, what) in [
            (GrantForm::Client, &[][..], "provider is missing"),
            (GrantForm::Client, &[("provider", "yahoo")], "provider is none that is known"),
            (GrantForm::Client, &[("clientId", "x")], "clientId is no field"),
            (
                GrantForm::Client,
                &[("provider", "microsoft"), ("client-id", "x"), ("client-secret", "y")],
                "tenant is missing",
            ),
            (GrantForm::Grant, &[("provider", "google"), ("client-id", "x")], "refresh-token is missing"),
            (GrantForm::Grant, &[("provider", "google"), ("refresh-token", "x")], "client-id is missing"),
            (
                GrantForm::Grant,
                &[("provider", "other"), ("client-id", "x"), ("imap-hosts", "a")],
                "token-url is missing",
            ),
            (GrantForm::Grant, &[("provider", "other"), ("token-url", "https://a/")], "imap-hosts is missing"),
            (GrantForm::Grant, &[("provider", "google"), ("imap-hosts", "a, b:993")], "no host"),
            (
                GrantForm::Client,
                &[("provider", "google"), ("service-account.json", "{\"type\":\"hush\"}")],
                "no key file",
            ),
        ] {
            let error = grant(form, fields).unwrap_err();
            assert!(error.what.contains(what) && !error.to_string().contains("hush"), "{what}: {error}");
        }
    }

    #[test]
    fn grants_are_one_exactly_where_all_of_them_is_equal_and_show_no_secret() {
        assert_eq!(app_grant().identity(), app_grant().identity());
        let base = [("provider", "microsoft"), ("tenant", "t"), ("client-id", "app"), ("client-secret", "other")];
        assert_ne!(grant(GrantForm::Client, &base).unwrap().identity(), app_grant().identity());
        for grant in [app_grant(), refresh_grant()] {
            let shown = format!("{grant:?}");
            assert!(!shown.contains("hush") && !shown.contains("seed-1"), "{shown}");
        }
    }
}
