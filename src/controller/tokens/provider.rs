//! Access tokens from the providers of grants: once at a time for each grant and subject, however many mailboxes ask.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use secrecy::{SecretBox, SecretString};

use crate::{
    api::common::{OAUTH_CLIENT_TYPE, OAUTH_GRANT_TYPE},
    controller::grants::GrantRule,
    error::{Error, Result},
    oauth::{Grant, GrantForm, HeldRefreshToken, RefreshSeed, RefreshTokenStore, TokenCache},
    terminal_text::harmless,
};

/// The tokens of all grants.
#[derive(Debug)]
pub(crate) struct ProviderTokens(Arc<TokenCache>);

/// A token, and how long it is good from now on.
pub(crate) struct AccessToken {
    /// The token itself.
    pub value: SecretString,
    /// How long it is good from now on.
    pub life: Duration,
}

impl Default for ProviderTokens {
    fn default() -> Self {
        Self(TokenCache::new(Arc::new(NoRefreshTokens)))
    }
}

impl ProviderTokens {
    /// A token that opens the mailbox of `subject`; `refused` is the one that a mail server refused before.
    ///
    /// # Errors
    /// Of the class that says what to do: Authentication or Authorization when the provider refused, Configuration when the
    /// grant is wrong, Network and Throttled when it may pass.
    pub(super) async fn access_token(
        &self,
        grant: Grant,
        subject: &str,
        refused: Option<&SecretString>,
    ) -> Result<AccessToken> {
        let given = self.0.granted(Arc::new(grant), subject).token(refused).await?;
        let life = given.until.duration_since(Timestamp::now());
        Ok(AccessToken { value: given.token, life: life.try_into().unwrap_or_default() })
    }
}

/// A grant of the operator's configuration, with its Secret.
///
/// # Errors
/// Configuration when something is missing or wrong.
pub(super) fn operator_grant(rule: &GrantRule, secret: Secret) -> Result<Grant> {
    Grant::new(&rule.name, GrantForm::Client, &fields(rule, secret.data.unwrap_or_default()))
}

/// A tenant's own grant, whose tokens are for `host`. It names no address that the operator would ask: that is how a tenant
/// would reach what is behind the operator.
///
/// # Errors
/// Configuration when the Secret is of another type, something is missing or wrong, or its tokens are for other hosts.
pub(super) fn tenant_grant(name: &str, host: &str, secret: Secret) -> Result<Grant> {
    match secret.type_.as_deref() {
        Some(OAUTH_CLIENT_TYPE) => {}
        Some(OAUTH_GRANT_TYPE) => {
            return Err(Error::configuration(format!(
                "the Secret {name} holds a refresh token, by which an operator gets no tokens"
            ))
            .advice("Use an application of its own (mailferry.io/oauth-client), or `mailferry run` on a machine"));
        }
        other => {
            let other = other.unwrap_or("Opaque");
            return Err(Error::configuration(format!("the Secret {name} is of type {other}, and so no grant"))
                .advice("Make it anew with the type mailferry.io/oauth-client"));
        }
    }
    let data = secret.data.unwrap_or_default();
    if data.contains_key("token-url") {
        return Err(Error::configuration(format!(
            "the Secret {name} names a token-url, which an operator does not ask"
        ))
        .advice("Ask whoever runs the operator for a grant (grantRef); those of Microsoft and Google are known"));
    }
    let grant = Grant::new(name, GrantForm::Client, &secrets(data))?;
    if grant.permits(host) {
        return Ok(grant);
    }
    let what =
        format!("the tokens of the grant {name} are for {}, not for {}", grant.permitted_hosts(), harmless(host));
    Err(Error::configuration(what)
        .advice("Correct the host; where it is the right one, name it in imap-hosts of the grant"))
}

fn secrets(data: BTreeMap<String, ByteString>) -> BTreeMap<String, SecretBox<[u8]>> {
    data.into_iter().map(|(key, ByteString(value))| (key, SecretBox::new(value.into_boxed_slice()))).collect()
}

/// What a grant is made of: its Secret, and what the operator's configuration says, which counts.
fn fields(rule: &GrantRule, secret: BTreeMap<String, ByteString>) -> BTreeMap<String, SecretBox<[u8]>> {
    let bytes = |value: Vec<u8>| SecretBox::new(value.into_boxed_slice());
    let mut fields = secrets(secret);
    let stated = [
        ("provider", Some(rule.provider.field().to_owned())),
        ("tenant", rule.tenant.clone()),
        ("client-id", rule.client_id.clone()),
        ("token-url", rule.token_endpoint.clone()),
        ("scope", rule.scope.clone()),
        ("imap-hosts", Some(rule.imap_hosts.join(",")).filter(|hosts| !hosts.is_empty())),
    ];
    for (key, value) in stated {
        match value {
            Some(value) => drop(fields.insert(key.to_owned(), bytes(value.into_bytes()))),
            // Where tokens are asked for and sent to, a Secret does not say.
            None if matches!(key, "token-url" | "imap-hosts") => drop(fields.remove(key)),
            None => {}
        }
    }
    fields
}

/// Grants of the configuration are applications of their own, which have no refresh tokens.
#[derive(Debug)]
struct NoRefreshTokens;

impl RefreshTokenStore for NoRefreshTokens {
    fn hold<'a>(&'a self, _: &'a RefreshSeed) -> BoxFuture<'a, Result<Box<dyn HeldRefreshToken>>> {
        let what = "a refresh token is no grant of the operator's configuration";
        std::future::ready(Err(Error::configuration(what).advice("Use client credentials or a service account")))
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::yaml;

    fn client(kind: Option<&str>, more: &[(&str, &str)]) -> Result<Grant> {
        let base =
            [("provider", "microsoft"), ("tenant", "acme.example"), ("client-id", "app"), ("client-secret", "hush")];
        let data = base.iter().chain(more).map(|(key, value)| ((*key).to_owned(), ByteString((*value).into())));
        let secret = Secret { type_: kind.map(str::to_owned), data: Some(data.collect()), ..Secret::default() };
        tenant_grant("theirs", "outlook.office365.com", secret)
    }

    #[test]
    fn a_tenants_grant_is_a_client_of_a_known_provider_for_the_host_that_it_is_used_for() {
        assert!(client(Some(OAUTH_CLIENT_TYPE), &[]).is_ok());
        for (kind, more, words) in [
            (None, &[][..], "is of type Opaque"),
            (Some("Opaque"), &[], "is of type Opaque"),
            (Some(OAUTH_GRANT_TYPE), &[], "holds a refresh token"),
            (Some(OAUTH_CLIENT_TYPE), &[("token-url", "http://127.0.0.1/")], "names a token-url"),
            (Some(OAUTH_CLIENT_TYPE), &[("imap-hosts", "imap.acme.example")], "not for outlook.office365.com"),
        ] {
            let error = client(kind, more).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn what_the_configuration_says_counts_before_what_a_secret_says() {
        let rule: GrantRule = yaml::read(
            "the grant",
            "{name: g, provider: Google, clientId: ours, secretRef: {name: s}, namespaces: [n], users: [\"*\"]}",
        )
        .unwrap();
        let secret = [
            ("client-id", "theirs"),
            ("client-secret", "hush"),
            ("token-url", "https://evil.example/"),
            ("imap-hosts", "evil.example"),
        ];
        let secret = secret.map(|(key, value)| (key.to_owned(), ByteString(value.into()))).into();
        let fields = fields(&rule, secret);
        let of = |key: &str| fields.get(key).map(|value| String::from_utf8_lossy(value.expose_secret()).into_owned());
        assert_eq!(of("provider").as_deref(), Some("google"));
        assert_eq!((of("client-id").as_deref(), of("client-secret").as_deref()), (Some("ours"), Some("hush")));
        assert_eq!((of("token-url"), of("imap-hosts")), (None, None));
    }
}
