//! Logins by access token: XOAUTH2, and OAUTHBEARER (RFC 7628).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    capability::Capabilities,
    endpoint::{ConnectionSecurity, Endpoint},
};
use crate::error::{Error, Result};

/// So many characters of what a server says in a challenge are shown.
const MAX_WORD: usize = 100;

/// A mechanism that logs in by access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BearerMechanism {
    XOAuth2,
    OAuthBearer,
}

impl BearerMechanism {
    /// What the server offers: XOAUTH2 where it is, since the large providers document that; also where it says nothing.
    pub(super) fn choose(offered: &Capabilities) -> Self {
        if !offered.has("AUTH=XOAUTH2") && offered.has("AUTH=OAUTHBEARER") { Self::OAuthBearer } else { Self::XOAuth2 }
    }

    /// Its name in AUTHENTICATE.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// What is sent first. `user` holds no control character.
    pub(super) fn initial_response(self, endpoint: &Endpoint, user: &str, token: &[u8]) -> Zeroizing<Vec<u8>> {
        let head = match self {
            Self::XOAuth2 => format!("user={user}\x01auth=Bearer "),
            Self::OAuthBearer => {
                let user = user.replace('=', "=3D").replace(',', "=2C");
                format!("n,a={user},\x01host={}\x01port={}\x01auth=Bearer ", endpoint.host, endpoint.port)
            }
        };
        let mut response = Zeroizing::new(Vec::with_capacity(head.len() + token.len() + 2));
        response.extend_from_slice(head.as_bytes());
        response.extend_from_slice(token);
        response.extend_from_slice(b"\x01\x01");
        response
    }

    /// What is sent to the challenge that says why a token is refused: only then the command ends.
    pub(super) const fn reply_to_refusal(self) -> &'static [u8] {
        match self {
            Self::XOAuth2 => b"",
            Self::OAuthBearer => b"\x01",
        }
    }
}

/// What a server's challenge says of a refused token (RFC 7628, section 3.2.2): its status and the scope that it wants.
#[must_use]
pub(super) fn refusal_in_challenge(challenge: &str) -> Option<String> {
    let said: Value = serde_json::from_slice(&BASE64.decode(challenge.trim()).ok()?).ok()?;
    let word = |key: &str| {
        let word = match said.get(key)? {
            Value::String(word) => word.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let plain: String = word.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect();
        (!plain.is_empty()).then(|| format!("{key} {plain}"))
    };
    let words: Vec<String> = ["status", "scope"].into_iter().filter_map(word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Refuses a connection on which a token of a grant must not travel: whoever reads it can use it.
///
/// # Errors
/// Configuration.
pub(super) fn require_checked_tls(endpoint: &Endpoint) -> Result<()> {
    if endpoint.tls.mode == ConnectionSecurity::None || endpoint.tls.insecure_skip_verify {
        return Err(Error::configuration("a grant's token goes only over TLS with a checked certificate")
            .advice("Set tls.mode Implicit or StartTLS, and leave out insecureSkipVerify"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(list: &[&str]) -> Capabilities {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_mechanism_is_one_that_the_server_offers() {
        for (list, name) in [
            (&["AUTH=XOAUTH2", "AUTH=OAUTHBEARER"][..], "XOAUTH2"),
            (&["AUTH=OAUTHBEARER", "AUTH=PLAIN"], "OAUTHBEARER"),
            (&["AUTH=PLAIN"], "XOAUTH2"),
            (&[], "XOAUTH2"),
        ] {
            assert_eq!(BearerMechanism::choose(&offered(list)).name(), name);
        }
    }

    #[test]
    fn a_refusal_is_read_from_the_challenge_and_shows_nothing_else() {
        let challenge = |json: &str| refusal_in_challenge(&BASE64.encode(json));
        let google = r#"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#;
        assert_eq!(challenge(google).unwrap(), "status 400, scope https://mail.google.com/");
        assert_eq!(challenge(r#"{"status":401,"secret":"hush"}"#).unwrap(), "status 401");
        assert_eq!(challenge(r#"{"status":"in\u001bvalid_token"}"#).unwrap(), "status invalid_token");
        for nothing in ["", "{}", "[]", r#"{"status":""}"#, "hush"] {
            assert_eq!(challenge(nothing), None);
        }
        assert_eq!(refusal_in_challenge("Password:"), None);
    }
}
