//! Which class of error a server's NO, BAD or BYE belongs to, and how long it asks to be left alone.
//!
//! A text chooses the class and the first wait, never the verdict on a message: no list of texts is complete.

use std::time::Duration;

use super::{
    response::{ResponseCode, StatusCondition, StatusLine},
    server_kind::ServerKind,
};
use crate::error::{Error, ErrorClass, Side};

/// What was asked for when the server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandKind {
    /// To log in.
    Login,
    /// To take a message.
    Append,
    /// Anything else.
    Other,
}

/// Texts by which servers ask for less (lower case, whole words).
const THROTTLING: [&str; 16] = [
    "too many simultaneous connections",
    "too many connections",
    "maximum number of connections",
    "mail_max_userip_connections",
    "connection limit",
    "bandwidth limit",
    "bandwidth limits",
    "throttled",
    "throttling",
    "rate limit",
    "rate limited",
    "too many requests",
    "slow down",
    "server busy",
    "server is busy",
    "lockdown in sector",
];

/// Texts of a daily allowance that is used up: it comes back after hours, not minutes.
const ALLOWANCE: [&str; 2] = ["bandwidth limits", "bandwidth limit"];

/// Texts of a server that is unwell for now (lower case, whole words).
const UNWELL: [&str; 30] = [
    "temporary",
    "temporarily",
    "transient",
    "try again",
    "try later",
    "retry later",
    "unavailable",
    "internal error",
    "internal server error",
    "system error",
    "server error",
    "i/o error",
    "io error",
    "input/output error",
    "backend error",
    "database error",
    "timed out",
    "timeout",
    "locked",
    "lock",
    "deadlock",
    "session expired",
    "shutting down",
    "maintenance",
    "overloaded",
    "out of memory",
    "read-only file system",
    "not responding",
    "connection refused",
    NOT_CONNECTED,
];

/// What Exchange says where a login worked and there is no mailbox behind it (lower case).
const NOT_CONNECTED: &str = "user is authenticated but not connected";

/// Texts of a destination without room (lower case, whole words).
const NO_ROOM: [&str; 13] = [
    "quota",
    "over quota",
    "overquota",
    "mailbox is full",
    "mailbox full",
    "disk full",
    "disk is full",
    "disk space",
    "no space left",
    "storage full",
    "storage space",
    "insufficient storage",
    "storage limit",
];

/// Texts by which servers say that an account may not be used by IMAP (lower case, whole words): Yandex, Gmail, Zoho, and
/// what others say in general.
const IMAP_OFF: [&str; 9] = [
    "imap is disabled",
    "imap disabled",
    "imap access is disabled",
    "imap access disabled",
    "not enabled for imap",
    "imap is not enabled",
    "imap access is not enabled",
    "imap support is not enabled",
    "yet to enable imap",
];

/// A server's wish to be left alone is followed for at most this long.
const LONGEST_WAIT: Duration = Duration::from_hours(24);
/// How long a used-up allowance is left alone when the server does not say.
const ALLOWANCE_WAIT: Duration = Duration::from_hours(1);

/// Texts of a server that takes no message with LF where CRLF must be (lower case, whole words).
const BARE_LINE_ENDS: [&str; 6] =
    ["bare newlines", "bare newline", "bare lf", "bare linefeed", "bare linefeeds", "bare line feeds"];

/// True when a server refuses a message for its line ends (RFC 5322, section 2.3), as far as its words tell.
#[must_use]
pub(crate) fn is_about_line_ends(text: &str) -> bool {
    contains_phrase(&text.to_ascii_lowercase(), &BARE_LINE_ENDS)
}

/// True when one of the phrases stands in the text as whole words: "blocked" is not "locked". Both in lower case.
fn contains_phrase(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| {
        text.match_indices(phrase).any(|(at, _)| {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let before = text.get(..at).and_then(|t| t.chars().next_back());
            let after = text.get(at + phrase.len()..).and_then(|t| t.chars().next());
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    })
}

/// The class of a refusal. Response codes (RFC 5530) count before texts.
#[must_use]
pub(crate) fn refusal_class(line: &StatusLine, asked: CommandKind) -> ErrorClass {
    let text = line.text.to_ascii_lowercase();
    if let Some(ResponseCode::Other(code)) = &line.code {
        match code.as_str() {
            "AUTHENTICATIONFAILED" | "EXPIRED" => return ErrorClass::Authentication,
            "AUTHORIZATIONFAILED" | "NOPERM" | "CONTACTADMIN" => return ErrorClass::Authorization,
            "PRIVACYREQUIRED" => return ErrorClass::Configuration,
            // Gmail says so of its daily allowances too.
            "OVERQUOTA" if asked == CommandKind::Login || contains_phrase(&text, &THROTTLING) => {
                return ErrorClass::Throttled;
            }
            "OVERQUOTA" => return ErrorClass::Quota,
            "UNAVAILABLE" | "SERVERBUG" | "INUSE" => return ErrorClass::Network,
            "CORRUPTION" | "CLIENTBUG" => return ErrorClass::Protocol,
            "TOOBIG" | "CANNOT" | "LIMIT" if asked == CommandKind::Append => return ErrorClass::MessageRejected,
            "THROTTLED" | "OVERLOADED" | "LIMIT" => return ErrorClass::Throttled,
            _ => {}
        }
    }
    if contains_phrase(&text, &THROTTLING) {
        ErrorClass::Throttled
    } else if contains_phrase(&text, &NO_ROOM) {
        if asked == CommandKind::Login { ErrorClass::Throttled } else { ErrorClass::Quota }
    } else if contains_phrase(&text, &UNWELL) {
        ErrorClass::Network
    } else {
        match (line.status, asked) {
            (StatusCondition::Bye, _) => ErrorClass::Network,
            (_, CommandKind::Login) => ErrorClass::Authentication,
            (_, CommandKind::Append) => ErrorClass::MessageRejected,
            (StatusCondition::No, CommandKind::Other) => ErrorClass::Authorization,
            _ => ErrorClass::Protocol,
        }
    }
}

/// What a server means by a quota that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuotaMeaning {
    /// There is no room left.
    NoRoom,
    /// An allowance of commands or bytes is used up, and comes back: reading needs no room, and Gmail says so of writing too.
    Allowance,
}

impl QuotaMeaning {
    /// What it means on this side, by a server of this kind.
    #[must_use]
    pub(crate) const fn on(side: Side, kind: ServerKind) -> Self {
        match (side, kind) {
            (Side::Source, _) | (_, ServerKind::Gmail) => Self::Allowance,
            _ => Self::NoRoom,
        }
    }
}

/// The same where it is known what a server means by a quota.
#[must_use]
pub(crate) fn refusal_class_on(quota: QuotaMeaning, line: &StatusLine, asked: CommandKind) -> ErrorClass {
    match refusal_class(line, asked) {
        ErrorClass::Quota if quota == QuotaMeaning::Allowance => ErrorClass::Throttled,
        class => class,
    }
}

/// How long the server asks to be left alone, at most a day: as it says (`Suggested Backoff Time: 92415 milliseconds`,
/// `try again in 5 minutes`); or, for an allowance that is used up, an hour.
#[must_use]
pub(crate) fn stated_wait(quota: QuotaMeaning, line: &StatusLine) -> Option<Duration> {
    let text = line.text.to_ascii_lowercase();
    if let Some(wait) = stated_in(&text) {
        return Some(wait.min(LONGEST_WAIT));
    }
    let code = matches!(&line.code, Some(ResponseCode::Other(code)) if code == "OVERQUOTA");
    (contains_phrase(&text, &ALLOWANCE) || (code && quota == QuotaMeaning::Allowance)).then_some(ALLOWANCE_WAIT)
}

/// A number with a unit of time behind words that ask to wait.
fn stated_in(text: &str) -> Option<Duration> {
    const ASKING: [&str; 8] =
        ["backoff time", "back off", "retry", "try again", "wait", "come back", "retry-after", "blocked for"];
    let from = ASKING.iter().filter_map(|words| text.find(words).map(|at| at + words.len())).min()?;
    let rest = text.get(from..)?;
    let mut words = rest.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    // Few words stand between the asking and the number: `in about 5 minutes`.
    for _ in 0..6 {
        let word = words.next()?;
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        if digits.is_empty() {
            continue;
        }
        let unit = word.get(digits.len()..).filter(|unit| !unit.is_empty()).or_else(|| words.peek().copied());
        let number: u64 = digits.parse().unwrap_or(u64::MAX / 1_000_000);
        let millis = match unit? {
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => number,
            "s" | "sec" | "secs" | "second" | "seconds" => number.saturating_mul(1000),
            "m" | "min" | "mins" | "minute" | "minutes" => number.saturating_mul(60_000),
            "h" | "hour" | "hours" => number.saturating_mul(3_600_000),
            _ => return None,
        };
        return Some(Duration::from_millis(millis));
    }
    None
}

/// True when a server refuses to make a folder since there is one: by its code (RFC 5530), or, where it sends none, in
/// its own words. "Does not exist" is about another folder, such as the one above.
#[must_use]
pub(crate) fn already_exists(line: &StatusLine) -> bool {
    if let Some(code) = &line.code {
        return code.is("ALREADYEXISTS");
    }
    let text = line.text.to_ascii_lowercase();
    text.contains("exist") && !["not exist", "n't exist", "nonexist", "non-exist"].iter().any(|no| text.contains(no))
}

/// True when a server refuses the login since IMAP is switched off for this account, or may be.
#[must_use]
pub(super) fn says_imap_is_off(line: &StatusLine) -> bool {
    contains_phrase(&line.text.to_ascii_lowercase(), &IMAP_OFF)
}

/// True when a server took the login, and has no mailbox behind it.
#[must_use]
pub(super) fn says_not_connected(line: &StatusLine) -> bool {
    contains_phrase(&line.text.to_ascii_lowercase(), &[NOT_CONNECTED])
}

/// The error for a refusal of what `action` names (`SELECT Sent`), with advice by class.
#[must_use]
pub(crate) fn refusal_error(quota: QuotaMeaning, line: &StatusLine, asked: CommandKind, action: &str) -> Error {
    let class = refusal_class_on(quota, line, asked);
    let word = match line.status {
        StatusCondition::No => "refused",
        // A BAD that asks for a slower pace was understood well.
        StatusCondition::Bad if class == ErrorClass::Throttled => "refused",
        StatusCondition::Bad => "did not understand",
        StatusCondition::Bye => "hung up on",
        StatusCondition::Ok | StatusCondition::PreAuth => "answered",
    };
    let code = match &line.code {
        Some(ResponseCode::Other(code)) => format!(" [{code}]"),
        _ => String::new(),
    };
    let mut error = Error::new(class, format!("the server {word} {action}:{code} {}", line.text));
    error.stated_wait = stated_wait(quota, line);
    match (class, asked) {
        (ErrorClass::Authentication | ErrorClass::Authorization, CommandKind::Login) if says_imap_is_off(line) => {
            error.advice(
                "Switch IMAP on for this account, in its settings at the provider or as its administrator; if it is on, \
                 check the user name and the password (or token) in the Secret",
            )
        }
        (ErrorClass::Authentication, _) => {
            error.advice("Check the user name and the password (or token) in the Secret")
        }
        (ErrorClass::Authorization, CommandKind::Login) => {
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

    #[test]
    fn a_folder_that_exists_is_told_apart_from_one_that_does_not() {
        for (code, text) in [
            (Some("ALREADYEXISTS"), "no"),
            (None, "Mailbox already exists"),
            (None, "Folder exists."),
            (None, "EXISTS"),
        ] {
            assert!(already_exists(&no(code, text)), "{code:?} {text}");
        }
        for (code, text) in [
            (None, "Parent folder does not exist"),
            (None, "Mailbox doesn't exist: Work"),
            (Some("NONEXISTENT"), "the parent exists not"),
            (Some("NOPERM"), "it exists and is not yours"),
            (None, "Permission denied"),
        ] {
            assert!(!already_exists(&no(code, text)), "{code:?} {text}");
        }
    }

    fn no(code: Option<&str>, text: &str) -> StatusLine {
        StatusLine { status: StatusCondition::No, code: code.map(|c| ResponseCode::Other(c.into())), text: text.into() }
    }

    #[test]
    fn response_codes_decide_before_texts() {
        assert_eq!(
            refusal_class(&no(Some("AUTHENTICATIONFAILED"), "try again later"), CommandKind::Login),
            ErrorClass::Authentication
        );
        assert_eq!(refusal_class(&no(Some("OVERQUOTA"), "no"), CommandKind::Append), ErrorClass::Quota);
        assert_eq!(refusal_class(&no(Some("UNAVAILABLE"), "no"), CommandKind::Login), ErrorClass::Network);
    }

    #[test]
    fn gmail_and_exchange_throttling_texts_are_known() {
        for text in [
            "Too many simultaneous connections. (Failure)",
            "Account exceeded command or bandwidth limits. (Failure)",
            "Request is throttled. Suggested Backoff Time: 299961 milliseconds",
            "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
        ] {
            assert_eq!(refusal_class(&no(None, text), CommandKind::Login), ErrorClass::Throttled, "{text}");
        }
    }

    #[test]
    fn words_count_only_as_whole_words() {
        for (text, class) in [
            ("database is locked", ErrorClass::Network),
            ("sender is blocked", ErrorClass::MessageRejected),
            ("a clockwise error", ErrorClass::MessageRejected),
            ("System I/O error", ErrorClass::Network),
            ("You exceeded your mail quota.", ErrorClass::Quota),
            ("quotation marks are not allowed", ErrorClass::MessageRejected),
            ("Cannot create message - no write permission or out of disk space.", ErrorClass::Quota),
            ("unthrottled", ErrorClass::MessageRejected),
        ] {
            assert_eq!(refusal_class(&no(Some("ALERT"), text), CommandKind::Append), class, "{text}");
        }
        assert_eq!(
            refusal_class(&no(Some("SERVERBUG"), "Internal error occurred."), CommandKind::Append),
            ErrorClass::Network
        );
    }

    #[test]
    fn a_source_without_room_is_an_allowance_that_is_used_up() {
        let line = no(Some("OVERQUOTA"), "limit reached");
        assert_eq!(refusal_class_on(QuotaMeaning::Allowance, &line, CommandKind::Other), ErrorClass::Throttled);
        assert_eq!(refusal_class_on(QuotaMeaning::NoRoom, &line, CommandKind::Append), ErrorClass::Quota);
        let daily = no(Some("OVERQUOTA"), "Account exceeded command or bandwidth limits. (Failure)");
        assert_eq!(refusal_class_on(QuotaMeaning::NoRoom, &daily, CommandKind::Append), ErrorClass::Throttled);
        assert_eq!(stated_wait(QuotaMeaning::Allowance, &line), Some(Duration::from_hours(1)));
        assert_eq!(stated_wait(QuotaMeaning::NoRoom, &line), None);
    }

    #[test]
    fn a_stated_wait_is_followed_to_the_millisecond_and_for_a_day_at_most() {
        let wait = |text| stated_wait(QuotaMeaning::Allowance, &no(None, text)).map(|wait| wait.as_millis());
        assert_eq!(wait("Request is throttled. Suggested Backoff Time: 92415 milliseconds"), Some(92_415));
        assert_eq!(wait("Too many requests, try again in 5 minutes."), Some(300_000));
        assert_eq!(wait("please wait 30s"), Some(30_000));
        assert_eq!(wait("Retry-After: 99999999999999999999 hours"), Some(86_400_000));
        for text in ["try again later", "wait for 3 messages", "message 5 minutes.txt refused", "7 retries"] {
            assert_eq!(wait(text), None, "{text}");
        }
    }

    #[test]
    fn a_login_that_is_refused_since_imap_is_off_says_to_switch_it_on() {
        let advice = |text, asked| {
            let line = no(Some("AUTHENTICATIONFAILED"), text);
            refusal_error(QuotaMeaning::NoRoom, &line, asked, "the login").advice.unwrap_or_default()
        };
        for text in [
            "LOGIN Invalid credentials or IMAP is disabled sc=x",
            "Your account is not enabled for IMAP use. Please visit your Gmail settings page. (Failure)",
            "You are yet to enable IMAP for your account. Please contact your administrator",
            "IMAP access is disabled",
        ] {
            assert!(advice(text, CommandKind::Login).starts_with("Switch IMAP on"), "{text}");
            assert!(advice(text, CommandKind::Other).starts_with("Check"), "{text}");
        }
        for text in ["Authentication failed.", "Plaintext login is disabled", "Account disabled"] {
            assert!(advice(text, CommandKind::Login).starts_with("Check"), "{text}");
        }
    }

    #[test]
    fn a_plain_no_means_what_was_asked() {
        assert_eq!(refusal_class(&no(None, "Nope"), CommandKind::Login), ErrorClass::Authentication);
        assert_eq!(refusal_class(&no(None, "Nope"), CommandKind::Append), ErrorClass::MessageRejected);
        assert_eq!(refusal_class(&no(Some("CANNOT"), "x"), CommandKind::Append), ErrorClass::MessageRejected);
    }
}
