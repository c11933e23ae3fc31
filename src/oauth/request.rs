//! What is sent to a token endpoint.

use form_urlencoded::Serializer;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    assertion::SigningAlgorithm,
    grant::{Grant, GrantProof},
};
use crate::error::Result;

/// So many seconds an assertion is dated back: the provider's clock may be behind ours.
const DATED_BACK: i64 = 60;
/// So many seconds a client's assertion holds.
const CLIENT_ASSERTION: i64 = 600;
/// So many seconds a service account's assertion holds: Google takes no longer ones, and the token lasts as long.
const ACCOUNT_ASSERTION: i64 = 3600;

/// The body of a request for an access token (`application/x-www-form-urlencoded`). `user` is whose mailbox it is for,
/// where that counts; `refresh` the current refresh token, where there is one; `now` the seconds since 1970.
///
/// # Errors
/// Internal where nothing can be signed.
pub(super) fn token_request(
    grant: &Grant,
    user: Option<&str>,
    refresh: Option<&SecretString>,
    now: i64,
) -> Result<Zeroizing<String>> {
    let (issued, client) = (now - DATED_BACK, grant.client_id.as_str());
    let audience = grant.token_url.to_string();
    let mut form = SecretForm::default();
    match &grant.proof {
        GrantProof::ClientSecret(secret) => {
            form.add("grant_type", "client_credentials");
            form.add("client_id", client);
            form.add("client_secret", secret.expose_secret());
            form.add_unless_empty("scope", &grant.scope);
        }
        GrantProof::ClientCertificate { key, certificate } => {
            let claims = json!({
                "aud": audience, "iss": client, "sub": client, "jti": random_id()?,
                "iat": issued, "nbf": issued, "exp": now + CLIENT_ASSERTION,
            });
            let header = json!({"x5t#S256": certificate.thumbprint});
            let assertion = key.sign(SigningAlgorithm::Ps256, header, &claims)?;
            form.add("grant_type", "client_credentials");
            form.add("client_id", client);
            form.add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
            form.add("client_assertion", &assertion);
            form.add_unless_empty("scope", &grant.scope);
        }
        GrantProof::ServiceAccount { key, key_id } => {
            let claims = json!({
                "iss": client, "sub": user, "scope": grant.scope, "aud": audience,
                "iat": issued, "exp": issued + ACCOUNT_ASSERTION,
            });
            let header = key_id.as_ref().map_or_else(|| json!({}), |id| json!({"kid": id}));
            let assertion = key.sign(SigningAlgorithm::Rs256, header, &claims)?;
            form.add("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
            form.add("assertion", &assertion);
        }
        GrantProof::RefreshToken { client_secret, seed } => {
            form.add("grant_type", "refresh_token");
            form.add("client_id", client);
            if let Some(secret) = client_secret {
                form.add("client_secret", secret.expose_secret());
            }
            form.add("refresh_token", refresh.unwrap_or_else(|| seed.token()).expose_secret());
            // Left out, the scope is that of the consent (RFC 6749, section 6).
        }
    }
    Ok(form.finish())
}

/// A form whose text is wiped once it is sent.
#[derive(Default)]
pub(super) struct SecretForm(Zeroizing<String>);

impl SecretForm {
    pub(super) fn add(&mut self, name: &str, value: &str) {
        // So long that it never moves, and leaves no copy behind.
        let mut longer = Zeroizing::new(String::with_capacity(self.0.len() + name.len() + 3 * value.len() + 2));
        longer.push_str(&self.0);
        let mut serializer = Serializer::new(std::mem::take(&mut *longer));
        serializer.append_pair(name, value);
        *longer = serializer.finish();
        self.0 = longer;
    }

    fn add_unless_empty(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.add(name, value);
        }
    }

    pub(super) fn finish(self) -> Zeroizing<String> {
        self.0
    }
}

/// A text that nobody guesses: 128 bits.
pub(super) fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| crate::error::Error::internal(format!("there is no randomness: {error}")))?;
    Ok(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::Value;

    use super::*;
    use crate::oauth::{
        grant::GrantForm,
        testing::{CERTIFICATE, CERTIFICATE_THUMBPRINT, RSA_KEY, app_grant, grant, refresh_grant},
    };

    const NOW: i64 = 1_800_000_000;

    fn sent(grant: &Grant, refresh: Option<&str>) -> BTreeMap<String, String> {
        let refresh = refresh.map(SecretString::from);
        let body = token_request(grant, Some("alice+1@acme.example"), refresh.as_ref(), NOW).unwrap();
        form_urlencoded::parse(body.as_bytes()).into_owned().collect()
    }

    fn part(jwt: &str, index: usize) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(index).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_client_shows_its_secret() {
        let sent = sent(&app_grant(), None);
        let expected = [
            ("client_id", "app"),
            ("client_secret", "hush-hush"),
            ("grant_type", "client_credentials"),
            ("scope", "https://outlook.office365.com/.default"),
        ];
        assert_eq!(sent, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn a_client_with_a_certificate_signs_who_it_is() {
        let pairs = [("provider", "microsoft"), ("tenant", "t"), ("client-id", "app")];
        let fields = [&pairs[..], &[("private-key", RSA_KEY), ("certificate", CERTIFICATE)]].concat();
        let sent = sent(&grant(GrantForm::Client, &fields).unwrap(), None);
        assert!(!sent.contains_key("client_secret"));
        let jwt = &sent["client_assertion"];
        assert_eq!(part(jwt, 0), json!({"alg": "PS256", "typ": "JWT", "x5t#S256": CERTIFICATE_THUMBPRINT}));
        let claims = part(jwt, 1);
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("app"), &json!("app")));
        assert_eq!(claims["aud"], "https://login.microsoftonline.com/t/oauth2/v2.0/token");
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW - 60), &json!(NOW + 600)));
        assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
    }

    #[test]
    fn a_service_account_asks_for_one_user_and_for_an_hour_at_most() {
        let file =
            json!({"type": "service_account", "client_email": "m@p", "private_key": RSA_KEY, "private_key_id": "k1"});
        let fields = [("provider", "google"), ("service-account.json", &file.to_string())];
        let sent = sent(&grant(GrantForm::Client, &fields).unwrap(), None);
        assert_eq!(sent["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let jwt = &sent["assertion"];
        assert_eq!(part(jwt, 0), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
        let expected = json!({
            "iss": "m@p", "sub": "alice+1@acme.example", "scope": "https://mail.google.com/",
            "aud": "https://oauth2.googleapis.com/token", "iat": NOW - 60, "exp": NOW - 60 + 3600,
        });
        assert_eq!(part(jwt, 1), expected);
    }

    #[test]
    fn a_refresh_token_is_the_current_one_and_only_at_first_the_one_that_was_given() {
        let first = sent(&refresh_grant(), None);
        assert_eq!((first["grant_type"].as_str(), first["refresh_token"].as_str()), ("refresh_token", "seed-1"));
        assert_eq!(sent(&refresh_grant(), Some("next/+2"))["refresh_token"], "next/+2");
    }
}
