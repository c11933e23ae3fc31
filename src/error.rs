//! The one error type of the project and the classes that decide what happens next.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure this is. The class alone decides what follows ([`ErrorRemedy`]): another try with backoff, a wait
/// for a person, or one message less. It is shown in status, events and logs, and decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ErrorClass {
    /// The server refused the user name, password or token.
    Authentication,
    /// The login worked, but the server refuses this action to this user.
    Authorization,
    /// The destination has no room left.
    Quota,
    /// The server asks for fewer connections or a slower pace.
    Throttled,
    /// A connection could not be made, was lost, or fell silent.
    Network,
    /// The TLS handshake or the certificate failed.
    Tls,
    /// The server broke the IMAP protocol, or answered what cannot be understood.
    Protocol,
    /// One message was refused; the others go on.
    MessageRejected,
    /// What the operator of Mailferry wrote is wrong or missing.
    Configuration,
    /// Mailferry itself failed: a defect, its disk, or a pod that needed too much memory.
    Internal,
}

/// What follows from an error, by its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorRemedy {
    /// Reconnect and go on, with jittered backoff.
    RetryWithBackoff,
    /// Nothing helps until a person changes something.
    WaitForPerson,
    /// Leave this message out, report it, and go on.
    SkipMessage,
}

impl ErrorClass {
    /// Every class, in the order of the documentation; a test holds it complete.
    pub const ALL: [Self; 10] = [
        Self::Authentication,
        Self::Authorization,
        Self::Quota,
        Self::Throttled,
        Self::Network,
        Self::Tls,
        Self::Protocol,
        Self::MessageRejected,
        Self::Configuration,
        Self::Internal,
    ];

    /// The class of that name, as it is written in checkpoints and statuses.
    #[must_use]
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.to_string() == name)
    }

    /// What follows from an error of this class.
    #[must_use]
    pub(crate) const fn remedy(self) -> ErrorRemedy {
        match self {
            Self::Throttled | Self::Network | Self::Protocol => ErrorRemedy::RetryWithBackoff,
            Self::MessageRejected => ErrorRemedy::SkipMessage,
            Self::Authentication
            | Self::Authorization
            | Self::Quota
            | Self::Tls
            | Self::Configuration
            | Self::Internal => ErrorRemedy::WaitForPerson,
        }
    }

    /// The order in which classes decide how a whole counts that failed in several ways, gravest first: what needs a person
    /// before what may heal by itself.
    #[must_use]
    const fn severity_rank(self) -> u8 {
        match self {
            Self::Internal => 0,
            Self::Configuration => 1,
            Self::Authentication => 2,
            Self::Authorization => 3,
            Self::Quota => 4,
            Self::Tls => 5,
            Self::Protocol => 6,
            Self::Network => 7,
            Self::Throttled => 8,
            Self::MessageRejected => 9,
        }
    }

    /// The class that decides how a whole counts that failed in these ways; none where nothing failed.
    #[must_use]
    pub(crate) fn gravest(classes: impl IntoIterator<Item = Self>) -> Option<Self> {
        classes.into_iter().min_by_key(|class| class.severity_rank())
    }

    /// The process exit code of a command that ended with this class.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Configuration => 2,
            Self::Authentication => 10,
            Self::Authorization => 11,
            Self::Quota => 12,
            Self::Throttled => 13,
            Self::Network => 14,
            Self::Tls => 15,
            Self::Protocol => 16,
            Self::MessageRejected => 17,
            Self::Internal => 70,
        }
    }
}

/// The exit code of a worker whose attempt is over without having ended its sync: another took over, or the API server was
/// away for too long.
pub(crate) const EXIT_FENCED: u8 = 75;

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One of the two accounts of a mailbox: the source, which mail is read from, or the destination, which it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Side {
    /// The account that mail is read from.
    Source,
    /// The account that mail is written to.
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

/// A result with the project's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something that went wrong: where, what, and what to do about it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Error {
    /// Decides what happens next.
    pub class: ErrorClass,
    /// The mailbox's name in the migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
    /// The account that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Host and port of the server, as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The folder, decoded for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What happened, in a clause without a trailing dot.
    pub what: String,
    /// What a person can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What else is wrong, where all of it is told at once: a clause each, with its advice.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub also: Box<[String]>,
    /// Before this time trying again makes no sense: the server said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub retry_at: Option<jiff::Timestamp>,
    /// How long the server asks to be left alone, from when it said so.
    #[serde(skip)]
    pub stated_wait: Option<std::time::Duration>,
    /// Whether this run tries again what failed.
    #[serde(skip)]
    pub finality: GiveUpScope,
    /// Nobody is there: no host of this name, nobody who listens on the port, or nobody who speaks IMAP on it without TLS. Where
    /// nobody was there from the beginning, waiting does not help.
    #[serde(skip)]
    pub nobody_there: bool,
}

/// Whether a run tries again what failed, whatever the class of the error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GiveUpScope {
    /// As the class says.
    #[default]
    ByClass,
    /// Not in this folder.
    Folder,
    /// Not at all: the patience with this account is over.
    Mailbox,
}

impl Error {
    /// The first error of the gravest class; none where there is none.
    #[must_use]
    pub(crate) fn gravest<'e>(errors: impl IntoIterator<Item = &'e Self>) -> Option<&'e Self> {
        errors.into_iter().min_by_key(|error| error.class.severity_rank())
    }

    /// All of them as one: the first, with what the others say beside it; none where there is none.
    #[must_use]
    pub(crate) fn joined(errors: Vec<Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        let mut also = std::mem::take(&mut first.also).into_vec();
        for error in errors {
            also.push(match &error.advice {
                Some(advice) => format!("{}. {advice}", error.what),
                None => error.what,
            });
            also.extend(error.also);
        }
        first.also = also.into_boxed_slice();
        Some(first)
    }

    /// An error of `class`; `what` happened in a clause without a trailing dot.
    pub fn new(class: ErrorClass, what: impl Into<String>) -> Self {
        Self {
            class,
            mailbox: None,
            side: None,
            host: None,
            folder: None,
            what: what.into(),
            advice: None,
            also: Box::default(),
            retry_at: None,
            stated_wait: None,
            finality: GiveUpScope::ByClass,
            nobody_there: false,
        }
    }

    /// Shorthand for [`ErrorClass::Configuration`].
    pub fn configuration(what: impl Into<String>) -> Self {
        Self::new(ErrorClass::Configuration, what)
    }

    /// Shorthand for [`ErrorClass::Protocol`].
    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::new(ErrorClass::Protocol, what)
    }

    /// Shorthand for [`ErrorClass::Network`].
    pub fn network(what: impl Into<String>) -> Self {
        Self::new(ErrorClass::Network, what)
    }

    /// Shorthand for [`ErrorClass::Internal`].
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorClass::Internal, what)
    }

    /// Adds what a person can do, in a clause without a trailing dot.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Names the account, unless it is named already.
    #[must_use]
    pub fn on(mut self, side: Side, host: impl Into<String>) -> Self {
        self.side.get_or_insert(side);
        self.host.get_or_insert_with(|| host.into());
        self
    }

    /// Names the mailbox, unless it is named already.
    #[must_use]
    pub fn in_mailbox(mut self, mailbox: impl Into<String>) -> Self {
        self.mailbox.get_or_insert_with(|| mailbox.into());
        self
    }

    /// Names the folder, unless it is named already.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<String>) -> Self {
        self.folder.get_or_insert_with(|| folder.into());
        self
    }
}

impl fmt::Display for Error {
    /// `mailbox alice: source imap.example:993: folder Sent: Network: connection lost. What to do.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mailbox) = &self.mailbox {
            write!(f, "mailbox {mailbox}: ")?;
        }
        match (&self.side, &self.host) {
            (Some(side), Some(host)) => write!(f, "{side} {host}: ")?,
            (Some(side), None) => write!(f, "{side}: ")?,
            (None, Some(host)) => write!(f, "{host}: ")?,
            (None, None) => {}
        }
        if let Some(folder) = &self.folder {
            write!(f, "folder {folder}: ")?;
        }
        write!(f, "{}: {}", self.class, self.what)?;
        if !self.also.is_empty() {
            write!(f, " (and {} more)", self.also.len())?;
        }
        if let Some(advice) = &self.advice {
            // What a server said may end as a sentence.
            let end = if self.what.ends_with(['.', '!', '?']) { "" } else { "." };
            write!(f, "{end} {advice}")?;
        }
        Ok(())
    }
}

/// The names of an enum's variants, from the schema that its derive writes: none is missing there.
#[cfg(test)]
pub(crate) fn variant_names<T: schemars::JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T).to_value();
    let list = |name: &str| schema[name].as_array().cloned().unwrap_or_default();
    let described = list("oneOf").into_iter().flat_map(|variant| match &variant["enum"] {
        serde_json::Value::Array(names) => names.clone(),
        _ => vec![variant["const"].clone()],
    });
    described.chain(list("enum")).filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_classes_lacks_none() {
        let listed: Vec<_> = ErrorClass::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(listed, variant_names::<ErrorClass>());
    }

    #[test]
    fn an_error_is_one_line_that_says_where_what_and_what_to_do() {
        let error = Error::network("connection refused")
            .advice("Check that the server listens on this port")
            .on(Side::Source, "imap.example:993")
            .in_mailbox("alice");
        assert_eq!(
            error.to_string(),
            "mailbox alice: source imap.example:993: Network: connection refused. Check that the server listens on this port"
        );
    }

    #[test]
    fn what_a_server_says_as_a_sentence_gets_no_second_full_stop() {
        let error = Error::new(ErrorClass::Authentication, "Authentication failed.").advice("Check the password");
        assert_eq!(error.to_string(), "Authentication: Authentication failed. Check the password");
    }

    #[test]
    fn exit_codes_differ_by_class() {
        let codes: std::collections::HashSet<u8> = ErrorClass::ALL.iter().map(|c| c.exit_code()).collect();
        assert_eq!(codes.len(), ErrorClass::ALL.len());
        assert!(!codes.contains(&EXIT_FENCED));
    }
}
