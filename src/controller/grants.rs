//! Grants of the operator's configuration: who may use which, and which hosts learn the tokens that it gives. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::master_users::AllowedUsers;
use crate::{
    api::{MailboxSyncSpec, SyncEndpoint, common::LocalRef, mailbox_sync::GrantedBy, names},
    error::{Error, Result, Side},
    host_name::HostName,
    terminal_text::harmless,
};

/// One entry of `grants`: by what the operator gets access tokens, for whose mailboxes, and where they may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantRule {
    /// The name by which migrations refer to it.
    pub name: String,
    /// Who gives the tokens.
    pub provider: GrantProvider,
    /// Microsoft's tenant, by id or domain.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The client's id; none: the Secret holds it.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The address of the token endpoint, for a provider that is none of the known ones.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// What a token is asked for; none: what IMAP needs at that provider.
    #[serde(default)]
    pub scope: Option<String>,
    /// The Secret of the operator's own namespace that holds the client's secret, certificate, key or refresh token.
    pub secret_ref: LocalRef,
    /// The hosts that a token may be sent to; empty: the provider's own.
    #[serde(default)]
    pub imap_hosts: Vec<String>,
    /// The namespaces whose migrations may use it.
    pub namespaces: BTreeSet<String>,
    /// Whose mail: all of a domain (`@customer.example`), one user (`alice@customer.example`), everybody (`*`).
    pub users: Vec<AllowedUsers>,
}

/// Who gives tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantProvider {
    /// Microsoft 365.
    Microsoft,
    /// Google Workspace.
    Google,
    /// Any other: `tokenEndpoint` and `imapHosts` say which.
    Other,
}

impl GrantProvider {
    /// Its name in the fields of a grant.
    #[must_use]
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::Microsoft => "microsoft",
            Self::Google => "google",
            Self::Other => "other",
        }
    }

    /// The hosts that its tokens are for.
    const fn own_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Microsoft => &["outlook.office365.com"],
            Self::Google => &["imap.gmail.com"],
            Self::Other => &[],
        }
    }
}

impl GrantRule {
    /// True when a token may be sent to this host.
    #[must_use]
    fn allows_host(&self, host: &str) -> bool {
        let host = HostName::new(host);
        let own: &[&str] = if self.imap_hosts.is_empty() { self.provider.own_hosts() } else { &[] };
        let stated = self.imap_hosts.iter().map(String::as_str);
        stated.chain(own.iter().copied()).any(|allowed| HostName::new(allowed) == host)
    }

    /// What is wrong with it, as a clause.
    fn problem(&self) -> Option<&'static str> {
        match self.provider {
            GrantProvider::Microsoft if self.tenant.is_none() => Some("provider Microsoft needs tenant"),
            GrantProvider::Other if self.token_endpoint.is_none() || self.imap_hosts.is_empty() => {
                Some("provider Other needs tokenEndpoint and imapHosts")
            }
            GrantProvider::Microsoft | GrantProvider::Google if self.token_endpoint.is_some() => {
                Some("tokenEndpoint belongs to provider Other: those of Microsoft and Google are known")
            }
            _ => None,
        }
    }
}

/// Checks the grants of a configuration by themselves.
///
/// # Errors
/// Configuration where one is incomplete, or two have one name.
pub(super) fn check_grants(grants: &[GrantRule]) -> Result<()> {
    let mut names = BTreeSet::new();
    for grant in grants {
        if let Some(problem) = grant.problem() {
            return Err(Error::configuration(format!("the grant {}: {problem}", grant.name))
                .advice("Correct grants of the operator's configuration"));
        }
        if !names.insert(&grant.name) {
            return Err(Error::configuration(format!("two grants have the name {}", grant.name))
                .advice("Give each grant of the operator's configuration a name of its own"));
        }
    }
    Ok(())
}

/// Both sides of a mailbox, with their names.
pub(crate) fn sides(spec: &MailboxSyncSpec) -> [(Side, &SyncEndpoint); 2] {
    [(Side::Source, &spec.source), (Side::Destination, &spec.destination)]
}

/// The sides of a mailbox that log in by a grant, and by which.
pub(crate) fn granted_sides(spec: &MailboxSyncSpec) -> impl Iterator<Item = (Side, &SyncEndpoint, GrantedBy)> {
    sides(spec).into_iter().filter_map(|(side, endpoint)| Some((side, endpoint, endpoint.granted_by()?)))
}

/// Why a mailbox may not have the tokens of its grants, or would be given those of another as something else.
#[must_use]
pub(super) fn forbids_grant(grants: &[GrantRule], namespace: &str, spec: &MailboxSyncSpec) -> Option<Error> {
    let named = sides(spec).into_iter().find_map(|(side, endpoint)| {
        let named = endpoint.secrets().find(|secret| names::is_token_secret(&secret.name))?;
        let what = format!("{side} names the Secret {}: such Secrets hold access tokens of grants", named.name);
        Some(Error::configuration(what).advice("Write grantRef, and no Secret").on(side, endpoint_address(endpoint)))
    });
    named.or_else(|| {
        granted_sides(spec).find_map(|(side, endpoint, by)| {
            let of_operator = match &by {
                GrantedBy::Operator(name) => forbids_login(grants, namespace, side, endpoint, name),
                // To whom its tokens go, it says itself, and which namespace it is in.
                GrantedBy::Tenant(_) => None,
            };
            let why = of_operator.or_else(|| forbids_trust(side, endpoint))?;
            Some(why.on(side, endpoint_address(endpoint)))
        })
    })
}

/// Host and port, as errors name them.
fn endpoint_address(endpoint: &SyncEndpoint) -> String {
    format!("{}:{}", endpoint.server.host, endpoint.server.effective_port())
}

fn forbids_login(
    grants: &[GrantRule],
    namespace: &str,
    side: Side,
    endpoint: &SyncEndpoint,
    name: &str,
) -> Option<Error> {
    let ask = "Ask whoever runs the operator, or give each mailbox its own credential";
    // What grants of others there are is nobody's business.
    let Some(grant) = grants.iter().find(|grant| grant.name == name && grant.namespaces.contains(namespace)) else {
        let what = format!("{side}.grantRef: there is no grant {name} for namespace {namespace}");
        return Some(Error::configuration(what).advice(ask));
    };
    let user = endpoint.account.username.as_deref().unwrap_or_default();
    if !grant.users.iter().any(|users| users.allows(user)) {
        let what = format!("{side}.grantRef: the grant {name} is not for {}", harmless(user));
        return Some(Error::configuration(what).advice(ask));
    }
    if !grant.allows_host(&endpoint.server.host) {
        let what =
            format!("{side}.grantRef: no token of the grant {name} is sent to {}", harmless(&endpoint.server.host));
        return Some(Error::configuration(what).advice("Correct the host, or ask whoever runs the operator"));
    }
    None
}

/// Why no token may travel to a side's server, as its certificate is checked.
fn forbids_trust(side: Side, endpoint: &SyncEndpoint) -> Option<Error> {
    if endpoint.server.tls.trusts_system_alone() {
        return None;
    }
    let what = format!("{side}: a token is sent only where the certificate is checked by the system's authorities");
    Some(Error::configuration(what).advice(
        "Take caBundle, caBundleRef, serverName and insecureSkipVerify out of tls, and use tls.mode Implicit or StartTLS",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{controller::testing, yaml};

    fn grants(text: &str) -> Vec<GrantRule> {
        yaml::read("the grants", text).unwrap()
    }

    const GRANTS: &str = "\
        - {name: m365, provider: Microsoft, tenant: acme.example, clientId: c, secretRef: {name: s}, \
           namespaces: [customers], users: [\"@acme.example\"]}\n\
        - {name: other, provider: Other, tokenEndpoint: \"https://id.example/token\", secretRef: {name: s}, \
           imapHosts: [Imap.Other.example], namespaces: [customers, ours], users: [\"*\"]}\n";

    /// A mailbox whose source logs in by a grant.
    fn mailbox(user: &str, host: &str, mut more: Value) -> MailboxSyncSpec {
        let mut source = json!({"server": {"host": host}, "account": {"username": user}, "grantRef": {"name": "m365"}});
        source.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
        MailboxSyncSpec { source: serde_json::from_value(source).unwrap(), ..testing::mailbox_spec("m", "a") }
    }

    fn refusal(namespace: &str, spec: &MailboxSyncSpec) -> Option<String> {
        forbids_grant(&grants(GRANTS), namespace, spec).map(|error| error.to_string())
    }

    #[test]
    fn a_grant_is_for_listed_namespaces_users_and_hosts() {
        let alice = mailbox("alice@acme.example", "Outlook.Office365.com.", json!({}));
        assert_eq!(refusal("customers", &alice), None);
        for namespace in ["ours", "Customers", ""] {
            let why = refusal(namespace, &alice).unwrap();
            assert!(why.contains(&format!("there is no grant m365 for namespace {namespace}")), "{why}");
        }
        for user in ["alice@other.example", "alice@acme.example.org", "alice@acme.example@other.example", ""] {
            let why = refusal("customers", &mailbox(user, "outlook.office365.com", json!({}))).unwrap();
            assert!(why.contains(&format!("the grant m365 is not for {user}")), "{why}");
        }
        for host in ["evil.example", "outlook.office365.com.evil.example", "127.0.0.1"] {
            let why = refusal("customers", &mailbox("alice@acme.example", host, json!({}))).unwrap();
            assert!(why.contains(&format!("no token of the grant m365 is sent to {host}")), "{why}");
        }
        let other = json!({"grantRef": {"name": "other"}});
        assert_eq!(refusal("ours", &mailbox("anybody", "imap.other.example", other.clone())), None);
        assert!(refusal("ours", &mailbox("anybody", "imap.gmail.com", other)).is_some());
    }

    #[test]
    fn a_name_that_would_end_within_the_login_is_nobodys() {
        for user in ["ceo@other.example\u{1}x=@acme.example", "ceo@other.example\0@acme.example", "a\r\n@acme.example"]
        {
            let why = refusal("customers", &mailbox(user, "outlook.office365.com", json!({}))).unwrap();
            assert!(why.contains("the grant m365 is not for") && !why.contains(['\u{1}', '\0', '\n']), "{why}");
        }
    }

    #[test]
    fn no_tenant_loosens_which_certificate_is_trusted() {
        for tls in [
            json!({"mode": "None"}),
            json!({"insecureSkipVerify": true}),
            json!({"serverName": "mail.evil.example"}),
            json!({"caBundle": "-----BEGIN CERTIFICATE-----"}),
            json!({"caBundleRef": {"name": "ca", "key": "k"}}),
        ] {
            let server = json!({"server": {"host": "outlook.office365.com", "tls": tls}});
            let why = refusal("customers", &mailbox("alice@acme.example", "", server)).unwrap();
            assert!(why.contains("only where the certificate is checked"), "{tls}: {why}");
        }
        let server = json!({"server": {"host": "outlook.office365.com", "tls": {"mode": "StartTLS"}}});
        assert_eq!(refusal("customers", &mailbox("alice@acme.example", "", server)), None);
    }

    #[test]
    fn a_token_is_given_as_nothing_else() {
        let token = json!({"name": "m-a-1.mailferry-token", "key": "source"});
        for more in [
            json!({"account": {"username": "a", "passwordSecretRef": token}}),
            json!({"account": {"username": "a", "tokenSecretRef": token}}),
            json!({"masterUser": {"username": "a", "passwordSecretRef": token}, "grantRef": null}),
            json!({"server": {"host": "h", "tls": {"caBundleRef": token}}}),
        ] {
            let why = refusal("customers", &mailbox("alice@acme.example", "outlook.office365.com", more)).unwrap();
            assert!(why.contains("names the Secret m-a-1.mailferry-token"), "{why}");
        }
    }

    #[test]
    fn a_credential_of_its_own_needs_no_grant() {
        let own = json!({"account": {"username": "a", "passwordSecretRef": {"name": "s", "key": "k"}}});
        assert_eq!(refusal("anywhere", &mailbox("a", "h", own)), None);
    }

    #[test]
    fn a_grant_of_the_tenants_own_is_not_judged_by_namespace_and_goes_over_trusted_tls_only() {
        let own = |tls: Value| {
            let account = json!({"username": "a", "grantSecretRef": {"name": "theirs"}});
            let server = json!({"host": "outlook.office365.com", "tls": tls});
            refusal("anywhere", &mailbox("a", "", json!({"account": account, "server": server, "grantRef": null})))
        };
        assert_eq!(own(json!({})), None);
        assert!(own(json!({"insecureSkipVerify": true})).unwrap().contains("only where the certificate is checked"));
    }

    #[test]
    fn a_grant_that_says_too_little_is_refused() {
        assert_eq!(check_grants(&grants(GRANTS)), Ok(()));
        let rest = "secretRef: {name: s}, namespaces: [a], users: [\"*\"]";
        for (text, why) in [
            (format!("- {{name: g, provider: Microsoft, {rest}}}"), "needs tenant"),
            (format!("- {{name: g, provider: Other, imapHosts: [h], {rest}}}"), "needs tokenEndpoint and imapHosts"),
            (
                format!("- {{name: g, provider: Google, tokenEndpoint: \"https://x\", {rest}}}"),
                "belongs to provider Other",
            ),
            (format!("- {{name: g, provider: Google, {rest}}}\n- {{name: g, provider: Google, {rest}}}"), "two grants"),
        ] {
            let error = check_grants(&grants(&text)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
