//! What is known of the large providers: where they give tokens, for what, and which hosts take them.

use super::token_url::TokenUrl;
use crate::error::{Error, Result};

/// Who gives tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdentityProvider {
    /// Microsoft 365 and Outlook.com.
    Microsoft,
    /// Google Workspace and Gmail.
    Google,
    /// Any other; its addresses are stated.
    Other,
}

impl IdentityProvider {
    /// The provider of that name.
    #[must_use]
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Microsoft, Self::Google, Self::Other].into_iter().find(|provider| provider.name() == name)
    }

    /// Its name in a grant.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Microsoft => "microsoft",
            Self::Google => "google",
            Self::Other => "other",
        }
    }

    /// The IMAP hosts that its tokens are for, where nothing else is stated.
    #[must_use]
    pub(crate) const fn imap_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Microsoft => &["outlook.office365.com"],
            Self::Google => &["imap.gmail.com"],
            Self::Other => &[],
        }
    }

    /// What a token is asked for by an application of its own (client credentials, service account).
    #[must_use]
    pub(crate) const fn application_scope(self) -> &'static str {
        match self {
            Self::Microsoft => "https://outlook.office365.com/.default",
            Self::Google => "https://mail.google.com/",
            Self::Other => "",
        }
    }

    /// What a token is asked for by a user's consent.
    #[must_use]
    pub(crate) const fn delegated_scope(self) -> &'static str {
        match self {
            Self::Microsoft => "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
            Self::Google => "https://mail.google.com/",
            Self::Other => "",
        }
    }

    /// Where it gives tokens; none where that has to be stated. Microsoft has an endpoint for each tenant.
    ///
    /// # Errors
    /// Configuration where a tenant is needed and is none.
    pub(crate) fn token_url(self, tenant: Option<&str>) -> Result<Option<TokenUrl>> {
        match self {
            Self::Microsoft => {
                let tenant = tenant.ok_or_else(|| {
                    Error::configuration("tenant is missing").advice(
                        "Write the tenant's id or its domain, such as acme.onmicrosoft.com; Entra shows it under Overview",
                    )
                })?;
                check_tenant(tenant)?;
                let text = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
                TokenUrl::parse("tenant", &text).map(Some)
            }
            Self::Google => TokenUrl::parse("token-url", "https://oauth2.googleapis.com/token").map(Some),
            Self::Other => Ok(None),
        }
    }
}

/// A tenant is a part of an address.
fn check_tenant(tenant: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    if tenant.bytes().all(plain) && (1..=253).contains(&tenant.len()) && !tenant.starts_with('.') {
        return Ok(());
    }
    Err(Error::configuration("tenant is neither an id nor a domain")
        .advice("Write it as Entra shows it under Overview"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_endpoint_and_none_leads_elsewhere() {
        let url = |tenant| IdentityProvider::Microsoft.token_url(Some(tenant)).map(|url| url.unwrap().to_string());
        assert_eq!(
            url("acme.onmicrosoft.com").unwrap(),
            "https://login.microsoftonline.com/acme.onmicrosoft.com/oauth2/v2.0/token"
        );
        for wrong in ["", "..", "a/b", "a?b", "a@b", "a#b", "a b", "a%2fb"] {
            assert!(url(wrong).unwrap_err().what.contains("tenant"), "{wrong}");
        }
        assert!(IdentityProvider::Microsoft.token_url(None).unwrap_err().what.contains("tenant is missing"));
        assert!(IdentityProvider::Other.token_url(None).unwrap().is_none());
    }

    #[test]
    fn a_provider_is_found_by_the_name_that_it_has() {
        for provider in [IdentityProvider::Microsoft, IdentityProvider::Google, IdentityProvider::Other] {
            assert_eq!(IdentityProvider::from_name(provider.name()), Some(provider));
        }
        assert_eq!(IdentityProvider::from_name("gmail"), None);
    }
}
