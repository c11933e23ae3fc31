//! How a person signs in, so that there is a refresh token: an authorization code with PKCE (RFC 6749, section 4.1, and
//! RFC 7636), or a device code (RFC 8628).

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use form_urlencoded::Serializer;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    answer::read_answer,
    endpoint::{EndpointReply, HttpsEndpoint, TokenEndpoint as _},
    grant::{Grant, GrantForm, GrantProof},
    identity_provider::IdentityProvider,
    request::{SecretForm, random_id},
    token_url::TokenUrl,
};
use crate::error::{Error, ErrorClass, Result};

/// How often a device code is asked about where the provider does not say.
const DEVICE_INTERVAL: u64 = 5;
/// The wait between two questions grows by so much when the provider asks for it, seconds.
const SLOW_DOWN: u64 = 5;

/// A sign-in that has not ended yet.
pub(crate) struct SignIn {
    grant: Grant,
    authorize_url: TokenUrl,
    device_url: Option<TokenUrl>,
    scope: String,
    user: String,
    state: String,
    verifier: SecretString,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// What a person types on another device.
#[derive(Deserialize)]
pub(crate) struct DeviceCode {
    /// The code.
    pub(crate) user_code: String,
    /// Where it is typed.
    #[serde(alias = "verification_url")]
    pub(crate) verification_uri: String,
    #[serde(rename = "device_code")]
    secret: SecretString,
    interval: Option<u64>,
    expires_in: u64,
}

#[derive(Deserialize)]
struct ErrorName {
    error: String,
}

impl SignIn {
    /// A sign-in of `user` for the grant of these fields, which has no refresh token yet. `authorize_url` is where a browser
    /// goes to, for a provider that is not known.
    ///
    /// # Errors
    /// Configuration where a field is missing or wrong.
    pub(crate) fn new(
        mut fields: BTreeMap<String, SecretBox<[u8]>>,
        user: &str,
        authorize_url: Option<&str>,
    ) -> Result<Self> {
        fields.insert("refresh-token".to_owned(), SecretBox::new(b"none yet".as_slice().into()));
        let grant = Grant::new(user, GrantForm::Grant, &fields)?;
        let tenant = grant.tenant.as_deref().unwrap_or_default();
        let known = match grant.provider {
            IdentityProvider::Microsoft => {
                Some(format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize"))
            }
            IdentityProvider::Google => Some("https://accounts.google.com/o/oauth2/v2/auth".to_owned()),
            IdentityProvider::Other => None,
        };
        let authorize_url = authorize_url
            .map(str::to_owned)
            .or(known)
            .ok_or_else(|| Error::configuration("it is not known where to sign in").advice("Give --authorize-url"))?;
        let authorize_url = TokenUrl::parse("--authorize-url", &authorize_url)?;
        let device_url = match grant.provider {
            IdentityProvider::Microsoft => {
                let url = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode");
                Some(TokenUrl::parse("tenant", &url)?)
            }
            IdentityProvider::Google | IdentityProvider::Other => None,
        };
        let verifier = SecretString::from(format!("{}{}", random_id()?, random_id()?));
        let (scope, state) = (grant.scope.clone(), random_id()?);
        Ok(Self { grant, authorize_url, device_url, scope, user: user.to_owned(), state, verifier })
    }

    /// The host that a browser comes back to: the one that this provider lets any port follow.
    #[must_use]
    pub(crate) fn redirect_host(&self) -> &'static str {
        match self.grant.provider {
            IdentityProvider::Microsoft => "localhost",
            IdentityProvider::Google | IdentityProvider::Other => "127.0.0.1",
        }
    }

    /// Where a person signs in, with a browser that then comes to `redirect`.
    #[must_use]
    pub(crate) fn address(&self, redirect: &str) -> String {
        let mut query = Serializer::new(String::new());
        let challenge = BASE64URL.encode(Sha256::digest(self.verifier.expose_secret()));
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.grant.client_id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", &self.scope)
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("login_hint", &self.user);
        if self.grant.provider == IdentityProvider::Google {
            // Without it there is no refresh token from the second time on.
            query.append_pair("access_type", "offline").append_pair("prompt", "consent");
        }
        let sign = if self.authorize_url.uri().query().is_some() { '&' } else { '?' };
        format!("{}{sign}{}", self.authorize_url, query.finish())
    }

    /// The code in an address that a browser came back to: the whole address, or what stands behind its host. None where the
    /// address is not that of this sign-in.
    ///
    /// # Errors
    /// Authorization where the person or the provider said no.
    pub(crate) fn code_in(&self, address: &str) -> Result<Option<SecretString>> {
        let query = address.trim().split_once('?').map_or("", |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default();
        let mut said: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if said.get("state") != Some(&self.state) {
            return Ok(None);
        }
        if let Some(error) = said.get("error") {
            let words = said.get("error_description").map_or_else(String::new, |words| format!(": {words}"));
            let words: String = format!("{error}{words}").chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(Error::new(ErrorClass::Authorization, format!("the sign-in was refused ({words})")).advice(
                "Consent to all that is asked; where an administrator has to approve the app, ask for that first",
            ));
        }
        Ok(said.remove("code").map(SecretString::from))
    }

    /// The refresh token for a code.
    ///
    /// # Errors
    /// What the provider refuses; Authorization where it gives no refresh token.
    pub(crate) async fn exchange(&self, code: &SecretString, redirect: &str) -> Result<SecretString> {
        let mut form = self.form("authorization_code");
        form.add("code", code.expose_secret());
        form.add("redirect_uri", redirect);
        form.add("code_verifier", self.verifier.expose_secret());
        let reply = HttpsEndpoint.post(&self.grant.token_url, form.finish()).await?;
        self.refresh_token(&reply)
    }

    /// A code that a person types on another device.
    ///
    /// # Errors
    /// Configuration where the provider has none for mail; what it refuses.
    pub(crate) async fn device_code(&self) -> Result<DeviceCode> {
        let url = self.device_url.as_ref().ok_or_else(|| {
            Error::configuration("this provider gives no device code for mail")
                .advice("Leave out --device: the address can be opened on another machine")
        })?;
        let mut form = SecretForm::default();
        form.add("client_id", &self.grant.client_id);
        form.add("scope", &self.scope);
        let reply = HttpsEndpoint.post(url, form.finish()).await?;
        if reply.status != 200 {
            return Err(super::refusal::refusal(&self.grant, &reply, Timestamp::now()));
        }
        // serde's own error may quote what it read.
        serde_json::from_slice(&reply.body).map_err(|_| Error::protocol("the provider gives no device code"))
    }

    /// Waits until the person has typed the code.
    ///
    /// # Errors
    /// Authentication where nobody typed it in time; what the provider refuses.
    pub(crate) async fn wait_for_device(&self, device: &DeviceCode) -> Result<SecretString> {
        let mut interval = device.interval.unwrap_or(DEVICE_INTERVAL).clamp(1, 60);
        let waiting = async {
            loop {
                tokio::time::sleep(Duration::from_secs(interval)).await;
                let mut form = self.form("urn:ietf:params:oauth:grant-type:device_code");
                form.add("device_code", device.secret.expose_secret());
                let reply = HttpsEndpoint.post(&self.grant.token_url, form.finish()).await?;
                match serde_json::from_slice::<ErrorName>(&reply.body).map(|body| body.error).as_deref() {
                    Ok("authorization_pending") => {}
                    Ok("slow_down") => interval += SLOW_DOWN,
                    _ => return self.refresh_token(&reply),
                }
            }
        };
        let limit = Duration::from_secs(device.expires_in.clamp(1, 3600));
        let too_late = || Error::new(ErrorClass::Authentication, "nobody typed the code in time").advice("Try again");
        tokio::time::timeout(limit, waiting).await.unwrap_or_else(|_| Err(too_late()))
    }

    fn form(&self, grant_type: &str) -> SecretForm {
        let mut form = SecretForm::default();
        form.add("grant_type", grant_type);
        form.add("client_id", &self.grant.client_id);
        if let GrantProof::RefreshToken { client_secret: Some(secret), .. } = &self.grant.proof {
            form.add("client_secret", secret.expose_secret());
        }
        form
    }

    fn refresh_token(&self, reply: &EndpointReply) -> Result<SecretString> {
        let answer = read_answer(&self.grant, reply, Timestamp::now())?;
        answer.refresh_token.ok_or_else(|| {
            Error::new(ErrorClass::Authorization, "the provider gave no refresh token").advice(
                "The app must be allowed to ask for one: scope offline_access, and at Google a client of type Desktop",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::testing::fields;

    fn sign_in(provider: &str) -> SignIn {
        let fields = fields(&[("provider", provider), ("client-id", "app"), ("tenant", "common")]);
        SignIn::new(fields, "alice@acme.example", None).unwrap()
    }

    fn query(address: &str) -> BTreeMap<String, String> {
        form_urlencoded::parse(address.split_once('?').unwrap().1.as_bytes()).into_owned().collect()
    }

    #[test]
    fn the_address_asks_for_mail_and_shows_the_challenge_but_not_what_proves_it() {
        let google = sign_in("google");
        let address = google.address("http://127.0.0.1:7");
        assert!(address.starts_with("https://accounts.google.com/o/oauth2/v2/auth?"), "{address}");
        let asked = query(&address);
        assert_eq!(asked["scope"], "https://mail.google.com/");
        assert_eq!((asked["access_type"].as_str(), asked["redirect_uri"].as_str()), ("offline", "http://127.0.0.1:7"));
        let verifier = google.verifier.expose_secret();
        assert_eq!(asked["code_challenge"], BASE64URL.encode(Sha256::digest(verifier)));
        assert!((43..=128).contains(&verifier.len()) && !address.contains(verifier));
        let microsoft = sign_in("microsoft");
        let asked = query(&microsoft.address("http://localhost:7"));
        assert_eq!(asked["scope"], "https://outlook.office.com/IMAP.AccessAsUser.All offline_access");
        assert_ne!(asked["state"], google.state);
    }

    #[test]
    fn only_an_address_with_this_sign_ins_state_has_its_code() {
        let sign_in = sign_in("google");
        let state = &sign_in.state;
        for address in [
            format!("http://127.0.0.1:7/?state={state}&code=4%2Fx"),
            format!("/?code=4%2Fx&state={state}&scope=a#part"),
            format!("  http://127.0.0.1:7?code=4%2Fx&state={state}\n"),
        ] {
            assert_eq!(sign_in.code_in(&address).unwrap().unwrap().expose_secret(), "4/x", "{address}");
        }
        for address in ["", "/favicon.ico", "/?code=1", "/?code=1&state=other"] {
            assert!(sign_in.code_in(address).unwrap().is_none(), "{address}");
        }
        let error = sign_in.code_in(&format!("/?error=access_denied&state={state}")).unwrap_err();
        assert!(error.what.contains("access_denied") && error.class == ErrorClass::Authorization);
    }

    #[test]
    fn a_provider_that_is_not_known_needs_its_addresses() {
        let pairs = [("provider", "other"), ("client-id", "app"), ("imap-hosts", "a"), ("token-url", "https://a/t")];
        let error = SignIn::new(fields(&pairs), "alice", None).unwrap_err();
        assert!(error.advice.unwrap().contains("--authorize-url"));
        let known = SignIn::new(fields(&pairs), "alice", Some("https://a/auth?p=x")).unwrap();
        assert!(known.address("http://127.0.0.1:7").starts_with("https://a/auth?p=x&response_type=code"));
    }
}
