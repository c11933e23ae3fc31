//! What a token endpoint's refusal means, and what a person can do about it.

use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::{
    endpoint::EndpointReply,
    grant::{Grant, GrantProof},
    identity_provider::IdentityProvider,
};
use crate::error::{Error, ErrorClass};

/// So many characters of an endpoint's own words are shown.
const MAX_WORDS: usize = 300;
/// Clocks that differ by less are no reason to refuse anything, seconds.
const TOLERATED_SKEW: i64 = 45;

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: String,
    error_description: Option<String>,
    /// Microsoft's own numbers, the first being the one that counts.
    #[serde(default)]
    error_codes: Vec<u32>,
}

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// Later it may work by itself.
    Wait,
    /// The user has to sign in again.
    SignIn,
    /// The client's own secret or key is wrong.
    ClientProof,
    /// The client's secret has ended.
    ClientSecretEnded,
    /// The certificate is not the client's.
    ClientCertificate,
    /// There is no such client in this tenant.
    Client,
    /// There is no such tenant.
    Tenant,
    /// An administrator has to consent.
    Consent,
    /// An administrator has to let the service account act for users.
    Delegation,
    /// Somebody's rules keep the client or the user out.
    Policy,
    /// There is no such user.
    User,
    /// What is asked for is wrong.
    Scope,
    /// The client must show a secret.
    SecretNeeded,
    /// The clocks differ.
    Clock,
    /// Nothing that is known.
    Unknown,
}

/// Microsoft's numbers (AADSTS) by what to do about them.
const MICROSOFT: &[(&[u32], Remedy)] = &[
    (&[700_016, 7_000_112, 700_038], Remedy::Client),
    (&[90_002, 900_023, 900_021], Remedy::Tenant),
    (&[7_000_215, 7_000_216], Remedy::ClientProof),
    (&[7_000_222], Remedy::ClientSecretEnded),
    (&[700_027, 700_030, 7_000_214], Remedy::ClientCertificate),
    (&[700_024], Remedy::Clock),
    (&[7_000_218], Remedy::SecretNeeded),
    (&[65_001, 65_004, 65_005, 90_094, 90_095, 90_093, 7_000_229, 700_223, 650_052, 650_057], Remedy::Consent),
    (&[50_034, 50_020, 51_004, 16_000, 50_059], Remedy::User),
    (
        &[
            50_072, 50_074, 50_076, 50_078, 50_079, 50_089, 50_132, 50_133, 50_173, 70_000, 70_002, 70_008, 70_043,
            700_003, 700_082, 700_084, 50_055, 50_058, 50_126, 54_005,
        ],
        Remedy::SignIn,
    ),
    (
        &[
            50_053, 50_057, 50_105, 50_158, 53_000, 53_001, 53_002, 53_003, 53_004, 530_034, 530_003, 50_097, 50_129,
            50_131, 50_005,
        ],
        Remedy::Policy,
    ),
    (&[70_011, 500_011, 1_002_012, 28_002, 28_003, 70_005, 501_461, 650_053], Remedy::Scope),
    (&[90_033, 90_034, 50_196, 90_055, 7_000_009], Remedy::Wait),
];

/// The error for what an endpoint refused; `now` is this machine's time.
#[must_use]
pub(super) fn refusal(grant: &Grant, reply: &EndpointReply, now: jiff::Timestamp) -> Error {
    let (host, name) = (grant.token_url.host(), &grant.name);
    let body: ErrorBody = serde_json::from_slice(&reply.body).unwrap_or_default();
    let said = words(grant, &body);
    let remedy = remedy(grant, reply.status, &body);
    let class = match remedy {
        Remedy::Wait if reply.status == 429 => ErrorClass::Throttled,
        Remedy::Wait => ErrorClass::Network,
        Remedy::SignIn | Remedy::ClientProof | Remedy::ClientSecretEnded | Remedy::ClientCertificate | Remedy::User => {
            ErrorClass::Authentication
        }
        Remedy::Consent | Remedy::Delegation | Remedy::Policy => ErrorClass::Authorization,
        Remedy::Client | Remedy::Tenant | Remedy::Scope | Remedy::SecretNeeded | Remedy::Clock => {
            ErrorClass::Configuration
        }
        Remedy::Unknown if (300..400).contains(&reply.status) => ErrorClass::Configuration,
        Remedy::Unknown if body.error.is_empty() => ErrorClass::Protocol,
        Remedy::Unknown => ErrorClass::Authentication,
    };
    let what = match (remedy, skew(reply, now)) {
        (Remedy::Wait, _) => format!("{host} gives no token for the grant {name} now{said}"),
        (Remedy::Clock, Some(skew)) => format!("{host} refuses the grant {name}: {skew}{said}"),
        _ => format!("{host} refuses the grant {name}{said}"),
    };
    let mut error = Error::new(class, what);
    error.stated_wait = reply.retry_after;
    match advice(grant, remedy, reply.status) {
        Some(advice) => error.advice(advice),
        None => error,
    }
}

fn remedy(grant: &Grant, status: u16, body: &ErrorBody) -> Remedy {
    if status == 429 || status == 408 || status >= 500 {
        return Remedy::Wait;
    }
    let by_number = |code: &u32| MICROSOFT.iter().find(|(codes, _)| codes.contains(code)).map(|(_, remedy)| *remedy);
    let stated =
        body.error_codes.iter().copied().chain(number_in(body.error_description.as_deref().unwrap_or_default()));
    if let Some(remedy) = stated.into_iter().find_map(|code| by_number(&code)) {
        return remedy;
    }
    let account = matches!(grant.proof, GrantProof::ServiceAccount { .. });
    let said = body.error_description.as_deref().unwrap_or_default().to_ascii_lowercase();
    match body.error.as_str() {
        "temporarily_unavailable" | "server_error" | "slow_down" => Remedy::Wait,
        "invalid_grant" if account && (said.contains("timeframe") || said.contains("iat") || said.contains("exp ")) => {
            Remedy::Clock
        }
        "invalid_grant" if account && said.contains("signature") => Remedy::ClientProof,
        "invalid_grant" if account && (said.contains("email") || said.contains("user")) => Remedy::User,
        "invalid_grant" if account && said.contains("account not found") => Remedy::ClientProof,
        "unauthorized_client" | "access_denied" if account => Remedy::Delegation,
        "invalid_grant" if matches!(grant.proof, GrantProof::RefreshToken { .. }) => Remedy::SignIn,
        "interaction_required" | "login_required" => Remedy::SignIn,
        "consent_required" => Remedy::Consent,
        "invalid_client" if matches!(grant.proof, GrantProof::RefreshToken { client_secret: None, .. }) => {
            Remedy::SecretNeeded
        }
        "invalid_client" | "invalid_grant" => Remedy::ClientProof,
        "unauthorized_client" | "deleted_client" => Remedy::Client,
        "access_denied" | "admin_policy_enforced" | "org_internal" | "disabled_client" => Remedy::Policy,
        "invalid_scope" => Remedy::Scope,
        _ => Remedy::Unknown,
    }
}

/// `AADSTS7000222: The provided …`: the number.
fn number_in(text: &str) -> Option<u32> {
    let digits = text.split_once("AADSTS")?.1;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn advice(grant: &Grant, remedy: Remedy, status: u16) -> Option<String> {
    let client = &grant.client_id;
    let microsoft = grant.provider == IdentityProvider::Microsoft;
    Some(match remedy {
        Remedy::Wait => return None,
        Remedy::SignIn => "Sign in again with `mailferry login`, and use the new grant. Consent ends when it is taken \
            back, with a new password, or when it was not used for long; Google ends it after seven days while the app \
            is in testing"
            .to_owned(),
        Remedy::ClientProof if matches!(grant.proof, GrantProof::ServiceAccount { .. }) => {
            "Make a new key for the service account, and give its JSON file".to_owned()
        }
        Remedy::ClientProof if microsoft => "Give the client secret's Value, not its Secret ID; Entra shows it once, \
            when it is made, under Certificates & secrets of the app registration"
            .to_owned(),
        Remedy::ClientProof => "Check client-id and client-secret of the grant".to_owned(),
        Remedy::ClientSecretEnded => "Make a new client secret in Entra, under Certificates & secrets of the app \
            registration, and give its Value"
            .to_owned(),
        Remedy::ClientCertificate => "Upload this certificate in Entra, under Certificates & secrets of the app \
            registration, or give the key and certificate that are there"
            .to_owned(),
        Remedy::Client if microsoft => {
            "Check client-id (Entra calls it Application (client) ID) and tenant: the app must be registered in this \
             tenant, or an administrator of the tenant must have consented to it"
                .to_owned()
        }
        Remedy::Client => "Check client-id, and that the provider lets this client use this kind of grant".to_owned(),
        Remedy::Tenant => "Check tenant: its id or its domain, as Entra shows it under Overview".to_owned(),
        Remedy::Consent if microsoft => {
            let tenant = grant.tenant.as_deref().unwrap_or("organizations");
            format!(
                "An administrator of the tenant consents at \
                 https://login.microsoftonline.com/{tenant}/adminconsent?client_id={}",
                encoded(client)
            )
        }
        Remedy::Consent => "Sign in again with `mailferry login`, and consent to all that is asked".to_owned(),
        Remedy::Delegation => format!(
            "In Google's admin console, under Security > Access and data control > API controls > Domain-wide \
             delegation, add the client id of the service account {client} with the scope {}",
            grant.scope
        ),
        Remedy::Policy => {
            "An administrator there has to let this app and user in: sign-in logs in Entra (or the audit \
            log of Google Workspace) name the rule"
                .to_owned()
        }
        Remedy::User => "Check the user name: it must be the mailbox's address in this tenant or domain".to_owned(),
        Remedy::Scope if microsoft => "Leave scope out; if it is out, the tenant has no Exchange Online".to_owned(),
        Remedy::Scope => "Check scope of the grant".to_owned(),
        Remedy::SecretNeeded if microsoft => "Give client-secret, or in Entra, under Authentication of the app \
            registration, allow public client flows"
            .to_owned(),
        Remedy::SecretNeeded => "Give client-secret: this client is known with one".to_owned(),
        Remedy::Clock => "Set this machine's clock right (NTP)".to_owned(),
        Remedy::Unknown if (300..400).contains(&status) => {
            "token-url leads elsewhere, and secrets follow no redirect: give the address that it leads to, if that is \
             the provider's"
                .to_owned()
        }
        Remedy::Unknown => "Check the grant: its token-url, client and scope".to_owned(),
    })
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// How this machine's clock differs from the endpoint's, where it does.
fn skew(reply: &EndpointReply, now: jiff::Timestamp) -> Option<String> {
    let seconds = now.as_second() - reply.date?.as_second();
    (seconds.abs() > TOLERATED_SKEW).then(|| {
        let direction = if seconds > 0 { "ahead of" } else { "behind" };
        format!("this machine's clock is {} s {direction} the endpoint's", seconds.abs())
    })
}

/// The endpoint's own words, without secrets, behind a colon.
fn words(grant: &Grant, body: &ErrorBody) -> String {
    let mut said = match (&body.error, body.error_description.as_deref()) {
        (error, Some(description)) if !description.is_empty() => {
            // What stands behind it are numbers of the request.
            let description = description.split("Trace ID").next().unwrap_or_default();
            format!("{error}: {description}")
        }
        (error, _) => error.clone(),
    };
    for secret in grant.secrets() {
        let secret = secret.expose_secret();
        said = said.replace(secret, "[hidden]").replace(&encoded(secret), "[hidden]");
    }
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
    let said = said.trim().trim_end_matches('.');
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::oauth::{
        grant::GrantForm,
        testing::{RSA_KEY, app_grant, grant, refresh_grant, reply},
    };

    fn now() -> jiff::Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    fn refused(grant: &Grant, status: u16, body: &str) -> Error {
        refusal(grant, &reply(status, body), now())
    }

    fn service_account() -> Grant {
        let file = serde_json::json!({"type": "service_account", "client_email": "m@p", "private_key": RSA_KEY});
        grant(GrantForm::Client, &[("provider", "google"), ("service-account.json", &file.to_string())]).unwrap()
    }

    #[test]
    fn each_number_of_microsoft_says_what_to_do() {
        for (code, class, advice) in [
            (700_016, ErrorClass::Configuration, "registered in this tenant"),
            (90_002, ErrorClass::Configuration, "Check tenant"),
            (7_000_215, ErrorClass::Authentication, "not its Secret ID"),
            (7_000_222, ErrorClass::Authentication, "Make a new client secret"),
            (700_027, ErrorClass::Authentication, "Upload this certificate"),
            (65_001, ErrorClass::Authorization, "https://login.microsoftonline.com/t/adminconsent?client_id=app"),
            (50_034, ErrorClass::Authentication, "Check the user name"),
            (50_076, ErrorClass::Authentication, "mailferry login"),
            (53_003, ErrorClass::Authorization, "sign-in logs"),
            (70_011, ErrorClass::Configuration, "no Exchange Online"),
        ] {
            let body = format!("{{\"error\":\"any\",\"error_description\":\"AADSTS{code}: Words.\\r\\nTrace ID: x\"}}");
            let by_text = refused(&app_grant(), 400, &body);
            let body = format!("{{\"error\":\"any\",\"error_description\":\"Words.\",\"error_codes\":[{code}]}}");
            let by_number = refused(&app_grant(), 401, &body);
            for error in [&by_text, &by_number] {
                assert_eq!(error.class, class, "{code}");
                assert!(error.advice.as_ref().unwrap().contains(advice), "{error}");
                assert!(error.what.contains("the grant acme") && !error.what.contains("Trace"), "{error}");
            }
        }
    }

    #[test]
    fn no_number_stands_for_two_things() {
        let mut all: Vec<u32> = MICROSOFT.iter().flat_map(|(codes, _)| codes.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn googles_words_say_what_to_do() {
        let account = service_account();
        for (body, class, advice) in [
            (
                r#"{"error":"unauthorized_client","error_description":"Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested."}"#,
                ErrorClass::Authorization,
                "Domain-wide delegation",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"Invalid email or User ID"}"#,
                ErrorClass::Authentication,
                "Check the user name",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#,
                ErrorClass::Authentication,
                "Make a new key",
            ),
        ] {
            let error = refused(&account, 400, body);
            assert_eq!(error.class, class, "{body}");
            assert!(error.advice.unwrap().contains(advice), "{body}");
        }
        let error = refused(
            &refresh_grant(),
            400,
            r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
        );
        assert_eq!(error.class, ErrorClass::Authentication);
        assert!(error.advice.unwrap().contains("Sign in again"));
    }

    #[test]
    fn a_refused_time_names_how_far_the_clock_is_off() {
        let body = r#"{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."}"#;
        for (date, said) in [
            ("2026-11-30T11:53:00Z", "this machine's clock is 420 s ahead of the endpoint's"),
            ("2026-11-30T12:10:00Z", "this machine's clock is 600 s behind the endpoint's"),
        ] {
            let reply = EndpointReply { date: Some(date.parse().unwrap()), ..reply(400, body) };
            let error = refusal(&service_account(), &reply, now());
            assert_eq!(error.class, ErrorClass::Configuration);
            assert!(error.what.contains(said) && error.advice.unwrap().contains("NTP"), "{}", error.what);
        }
    }

    #[test]
    fn an_endpoint_that_is_unwell_is_waited_for_as_long_as_it_says() {
        for (status, class) in [(429, ErrorClass::Throttled), (503, ErrorClass::Network), (500, ErrorClass::Network)] {
            let reply = EndpointReply { retry_after: Some(Duration::from_secs(7)), ..reply(status, "<html>") };
            let error = refusal(&app_grant(), &reply, now());
            assert_eq!((error.class, error.stated_wait), (class, Some(Duration::from_secs(7))));
        }
        let error = refused(&app_grant(), 400, r#"{"error":"temporarily_unavailable"}"#);
        assert_eq!(error.class, ErrorClass::Network);
    }

    #[test]
    fn what_an_endpoint_repeats_of_a_secret_is_hidden_and_its_words_are_bounded() {
        let said = format!("{{\"error\":\"x\",\"error_description\":\"hush-hush\\u001b[2J {}\"}}", "y".repeat(9000));
        let error = refused(&app_grant(), 400, &said);
        assert!(error.what.contains("[hidden]") && !error.what.contains("hush"), "{error}");
        assert!(error.what.len() < 500 && !error.what.contains('\u{1b}'));
        let error = refused(&refresh_grant(), 400, r#"{"error":"bad seed-1"}"#);
        assert!(!error.what.contains("seed-1"), "{error}");
    }

    #[test]
    fn a_redirect_is_not_followed_but_told() {
        let error = refused(&app_grant(), 302, "");
        assert_eq!(error.class, ErrorClass::Configuration);
        assert!(error.advice.unwrap().contains("redirect"));
    }
}
