//! Which class of error a server's NO, BAD or BYE belongs to.

use super::response::{Code, Status, StatusLine};
use crate::error::{Error, ErrorClass};

/// What was asked for when the server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To log in.
    Login,
    /// To take a message.
    Append,
    /// Anything else.
    Other,
}

/// Texts by which servers without response codes ask for less (lower case).
const THROTTLING: [&str; 14] = [
    "too many simultaneous connections",
    "too many connections",
    "maximum number of connections",
    "mail_max_userip_connections",
    "connection limit",
    "bandwidth limit",
    "command or bandwidth limits",
    "throttled",
    "rate limit",
    "too many requests",
    "server busy",
    "try again later",
    "user is authenticated but not connected",
    "lockdown in sector",
];

/// Texts of a server that is unwell for now.
const UNAVAILABLE: [&str; 8] = [
    "temporar",
    "unavailable",
    "internal error",
    "system error",
    "backend error",
    "timed out",
    "session expired",
    "shutting down",
];

const OVER_QUOTA: [&str; 4] = ["quota exceeded", "over quota", "mailbox is full", "overquota"];

/// The class of a refusal.
#[must_use]
pub fn class_of(line: &StatusLine, asked: Asked) -> ErrorClass {
    if let Some(Code::Other(code)) = &line.code {
        match code.as_str() {
            "AUTHENTICATIONFAILED" | "EXPIRED" => return ErrorClass::Authentication,
            "AUTHORIZATIONFAILED" | "NOPERM" | "CONTACTADMIN" => return ErrorClass::Authorization,
            "PRIVACYREQUIRED" => return ErrorClass::Configuration,
            "OVERQUOTA" => return ErrorClass::Quota,
            "UNAVAILABLE" => return ErrorClass::Network,
            "SERVERBUG" | "CORRUPTION" | "CLIENTBUG" => return ErrorClass::Protocol,
            "TOOBIG" | "CANNOT" | "LIMIT" if asked == Asked::Append => return ErrorClass::MessageRejected,
            "THROTTLED" | "INUSE" | "OVERLOADED" | "LIMIT" => return ErrorClass::Throttled,
            _ => {}
        }
    }
    let text = line.text.to_ascii_lowercase();
    let says = |list: &[&str]| list.iter().any(|t| text.contains(t));
    if says(&THROTTLING) {
        ErrorClass::Throttled
    } else if says(&OVER_QUOTA) {
        ErrorClass::Quota
    } else if says(&UNAVAILABLE) {
        ErrorClass::Network
    } else {
        match (line.status, asked) {
            (Status::Bye, _) => ErrorClass::Network,
            (_, Asked::Login) => ErrorClass::Authentication,
            (_, Asked::Append) => ErrorClass::MessageRejected,
            (Status::No, Asked::Other) => ErrorClass::Authorization,
            _ => ErrorClass::Protocol,
        }
    }
}

/// The error for a refusal of what `action` names (`SELECT Sent`), with advice by class.
#[must_use]
pub fn refusal(line: &StatusLine, asked: Asked, action: &str) -> Error {
    let class = class_of(line, asked);
    let word = match line.status {
        Status::No => "refused",
        Status::Bad => "did not understand",
        Status::Bye => "hung up on",
        Status::Ok | Status::PreAuth => "answered",
    };
    let code = match &line.code {
        Some(Code::Other(code)) => format!(" [{code}]"),
        _ => String::new(),
    };
    let error = Error::new(class, format!("the server {word} {action}:{code} {}", line.text));
    match (class, asked) {
        (ErrorClass::Authentication, _) => {
            error.advice("Check the user name and the password (or token) in the Secret")
        }
        (ErrorClass::Authorization, Asked::Login) => {
            error.advice("The login is right but this user may not use this mailbox; check the master user's rights")
        }
        (ErrorClass::Configuration, _) => error.advice("The server demands TLS; set tls.mode Implicit or StartTLS"),
        (ErrorClass::Quota, _) => error.advice("Raise the quota of the destination account, then run again"),
        (ErrorClass::Throttled, _) => {
            error.advice("Mailferry slows down; lower connections or parallelism, or raise the server's limits")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no(code: Option<&str>, text: &str) -> StatusLine {
        StatusLine { status: Status::No, code: code.map(|c| Code::Other(c.into())), text: text.into() }
    }

    #[test]
    fn response_codes_decide_before_texts() {
        assert_eq!(
            class_of(&no(Some("AUTHENTICATIONFAILED"), "try again later"), Asked::Login),
            ErrorClass::Authentication
        );
        assert_eq!(class_of(&no(Some("OVERQUOTA"), "no"), Asked::Append), ErrorClass::Quota);
        assert_eq!(class_of(&no(Some("UNAVAILABLE"), "no"), Asked::Login), ErrorClass::Network);
    }

    #[test]
    fn gmail_and_exchange_throttling_texts_are_known() {
        for text in [
            "Too many simultaneous connections. (Failure)",
            "Account exceeded command or bandwidth limits. (Failure)",
            "Request is throttled. Suggested Backoff Time: 299961 milliseconds",
            "User is authenticated but not connected.",
            "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
        ] {
            assert_eq!(class_of(&no(None, text), Asked::Login), ErrorClass::Throttled, "{text}");
        }
    }

    #[test]
    fn a_plain_no_means_what_was_asked() {
        assert_eq!(class_of(&no(None, "Nope"), Asked::Login), ErrorClass::Authentication);
        assert_eq!(class_of(&no(None, "Nope"), Asked::Append), ErrorClass::MessageRejected);
        assert_eq!(class_of(&no(Some("CANNOT"), "x"), Asked::Append), ErrorClass::MessageRejected);
    }
}
