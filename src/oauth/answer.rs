//! What a token endpoint answers: a token, or an error (RFC 6749, sections 5.1 and 5.2).

use std::{fmt, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{endpoint::EndpointReply, grant::Grant, refusal::refusal};
use crate::error::{Error, Result};

/// How long a token is taken to last where the endpoint does not say.
const UNSTATED: Duration = Duration::from_mins(5);
/// No token is taken to last longer.
const LONGEST: Duration = Duration::from_hours(24);

/// What a token endpoint gave.
pub(super) struct TokenAnswer {
    pub token: SecretString,
    /// How long the token lasts from when it was asked for.
    pub lifetime: Duration,
    /// A refresh token, where it gave one.
    pub refresh_token: Option<SecretString>,
}

impl fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAnswer").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: SecretString,
    token_type: Option<String>,
    /// Some send the number as a text.
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<SecretString>,
}

/// Reads the answer to a request for a token.
///
/// # Errors
/// What the endpoint refused and what to do about it; Protocol where it answers something else. Never with a secret.
pub(super) fn read_answer(grant: &Grant, reply: &EndpointReply, now: jiff::Timestamp) -> Result<TokenAnswer> {
    if reply.status != 200 {
        return Err(refusal(grant, reply, now));
    }
    let strange = |what: &str| {
        Error::protocol(format!("{} answers the grant {} with {what}", grant.token_url.host(), grant.name))
            .advice("Check token-url: it must be the provider's token endpoint")
    };
    // serde's own error may quote what it read.
    let Ok(body) = serde_json::from_slice::<TokenBody>(&reply.body) else {
        // Some providers send errors as 200.
        return Err(if is_error(&reply.body) { refusal(grant, reply, now) } else { strange("no token") });
    };
    if body.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(strange("a token that is no bearer token"));
    }
    if !is_bearer(&body.access_token) || body.refresh_token.as_ref().is_some_and(|token| !is_bearer(token)) {
        return Err(strange("a token that no login can carry"));
    }
    let seconds = body.expires_in.and_then(|value| match value {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    });
    let lifetime = seconds
        .filter(|seconds| *seconds > 0.0)
        .map_or(UNSTATED, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST));
    Ok(TokenAnswer { token: body.access_token, lifetime, refresh_token: body.refresh_token })
}

fn is_error(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body.get("error").is_some())
}

/// Visible ASCII only: what else there is would end it in a login (RFC 6750, section 2.1, allows less).
fn is_bearer(token: &SecretString) -> bool {
    use secrecy::ExposeSecret as _;
    let token = token.expose_secret();
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::{
        ErrorClass,
        oauth::testing::{app_grant, reply},
    };

    fn read(status: u16, body: &str) -> Result<TokenAnswer> {
        read_answer(&app_grant(), &reply(status, body), jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_token_lasts_as_long_as_the_endpoint_says_within_reason() {
        for (said, lifetime) in [
            (",\"expires_in\":3599", Duration::from_secs(3599)),
            (",\"expires_in\":\"120\"", Duration::from_mins(2)),
            (",\"expires_in\":1e12", LONGEST),
            (",\"expires_in\":-5", UNSTATED),
            (",\"expires_in\":null", UNSTATED),
            ("", UNSTATED),
        ] {
            let answer = read(200, &format!("{{\"access_token\":\"a.b\",\"token_type\":\"bearer\"{said}}}")).unwrap();
            assert_eq!((answer.token.expose_secret(), answer.lifetime), ("a.b", lifetime), "{said}");
        }
    }

    #[test]
    fn an_answer_that_is_no_token_is_told_without_what_it_holds() {
        for body in [
            "<html>hush</html>",
            "{\"access_token\":\"hush hush\"}",
            "{\"access_token\":\"hush\\u0001\"}",
            "{\"access_token\":\"hush\",\"token_type\":\"mac\"}",
            "{\"access_token\":\"\"}",
            "{\"access_token\":\"hush\",\"refresh_token\":\"a\\nb\"}",
            "",
        ] {
            let error = read(200, body).unwrap_err();
            assert_eq!(error.class, ErrorClass::Protocol, "{body}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        let error = read(200, "{\"error\":\"invalid_grant\"}").unwrap_err();
        assert_eq!(error.class, ErrorClass::Authentication);
    }
}
