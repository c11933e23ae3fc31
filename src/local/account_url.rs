//! One account on the command line: `imaps://alice@acme.example@imap.oldhost.example`.
//!
//! It looks like the URL of RFC 5092 and has fewer rules: all of it is plain text, a percent sign too, and the last `@`
//! divides user and host, since users are often named by an address. It never holds a password, and no error shows what
//! was written: whoever forgets the host writes a password where the host belongs.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::{api::TlsMode, host_name::HostName};

/// An account, as its URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountUrl {
    /// Implicit for `imaps://` and without a scheme, `StartTls` for `imap://`. Never None: no URL asks for passwords in the
    /// clear.
    pub tls_mode: TlsMode,
    /// Who logs in.
    pub username: String,
    /// Where.
    pub host: HostName,
    /// The port, where it is given.
    pub port: Option<u16>,
}

/// Why a text names no account. The texts are fixed: they can hold nothing that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountUrlError {
    #[error(
        "a password stands before the last @: it is in your shell's history now, and other users may have seen it: change it"
    )]
    Password,
    #[error("it holds a control character")]
    ControlCharacter,
    #[error("the scheme before :// is neither imaps nor imap")]
    Scheme,
    #[error("there is no @ that divides user and host")]
    NoUser,
    #[error("the user before the last @ is missing")]
    EmptyUser,
    #[error("something stands behind the host: a path, a query or a fragment")]
    BehindHost,
    #[error("what stands behind the last @ is neither a host name nor an IP address, with or without a port")]
    Host,
    #[error("an IPv6 address stands in brackets: [2001:db8::7], [2001:db8::7]:993")]
    Brackets,
    #[error("the port behind the host is no number from 1 to 65535")]
    Port,
}

impl AccountUrlError {
    /// What a person can do about it.
    #[must_use]
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Password => {
                "Leave the password out: it is asked for on the terminal, or comes from --source-password-file and the like"
            }
            Self::Scheme => "Write imaps:// (TLS from the first byte) or imap:// (STARTTLS); there is none without TLS",
            Self::BehindHost => "Leave it out; folders are chosen by --include and --exclude",
            _ => {
                "Write imaps://USER@HOST or imaps://USER@HOST:PORT, such as imaps://alice@acme.example@imap.oldhost.example"
            }
        }
    }
}

impl FromStr for AccountUrl {
    type Err = AccountUrlError;

    fn from_str(text: &str) -> Result<Self, AccountUrlError> {
        if text.contains(char::is_control) {
            return Err(AccountUrlError::ControlCharacter);
        }
        let (tls_mode, rest) = split_scheme(text)?;
        let (username, server) = rest.rsplit_once('@').ok_or(AccountUrlError::NoUser)?;
        // First of all: whatever else is wrong, a password is to be changed.
        if username.contains(':') {
            return Err(AccountUrlError::Password);
        }
        if username.is_empty() {
            return Err(AccountUrlError::EmptyUser);
        }
        let (host, port) = split_server(server)?;
        Ok(Self { tls_mode, username: username.to_owned(), host, port })
    }
}

/// What stands before `://` counts as a scheme where it can be one (RFC 3986, section 3.1): a user name may hold such a
/// text, too.
fn split_scheme(text: &str) -> Result<(TlsMode, &str), AccountUrlError> {
    let scheme = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    match text.split_once("://").filter(|(word, _)| scheme(word)) {
        None => Ok((TlsMode::Implicit, text)),
        Some((word, rest)) if word.eq_ignore_ascii_case("imaps") => Ok((TlsMode::Implicit, rest)),
        Some((word, rest)) if word.eq_ignore_ascii_case("imap") => Ok((TlsMode::StartTls, rest)),
        Some((_, rest)) if holds_password(rest) => Err(AccountUrlError::Password),
        Some(_) => Err(AccountUrlError::Scheme),
    }
}

/// Host and port of what stands behind the last `@`.
fn split_server(server: &str) -> Result<(HostName, Option<u16>), AccountUrlError> {
    if server.contains(['/', '?', '#']) {
        return Err(AccountUrlError::BehindHost);
    }
    let (host, port) = if let Some(bracketed) = server.strip_prefix('[') {
        let (address, behind) = bracketed.split_once(']').ok_or(AccountUrlError::Brackets)?;
        address.parse::<Ipv6Addr>().map_err(|_| AccountUrlError::Brackets)?;
        match behind.strip_prefix(':') {
            None if behind.is_empty() => (address, None),
            None => return Err(AccountUrlError::Host),
            port => (address, port),
        }
    } else if server.parse::<Ipv6Addr>().is_ok() {
        return Err(AccountUrlError::Brackets);
    } else {
        server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port)))
    };
    let host = HostName::parse(host).ok_or(AccountUrlError::Host)?;
    let number = |text: &str| {
        // A number alone: Rust reads `+993`, too.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or(AccountUrlError::Port)
    };
    Ok((host, port.map(number).transpose()?))
}

/// True where a colon stands before the last `@`: then what is between them is taken for a password.
fn holds_password(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
}

/// `text` without what may be a password in one of these arguments: a message of the command line's parser repeats what it
/// does not understand.
#[must_use]
pub(crate) fn without_passwords(text: &str, arguments: &[String]) -> String {
    let values =
        arguments.iter().flat_map(|whole| [Some(whole.as_str()), whole.split_once('=').map(|(_, value)| value)]);
    let mut secret: Vec<&str> = values.flatten().filter(|value| holds_password(split_off_scheme(value))).collect();
    // The longest first: one may stand in another.
    secret.sort_by_key(|value| std::cmp::Reverse(value.len()));
    secret.into_iter().fold(text.to_owned(), |text, value| text.replace(value, "[an account with its password]"))
}

fn split_off_scheme(text: &str) -> &str {
    text.split_once("://").map_or(text, |(_, rest)| rest)
}

/// True for an argument that means an account and not the file of a manifest: it has a scheme, or an `@` and does not start
/// like a path. (`./a@b.yaml` is a file, `a@b.yaml` an account.)
#[must_use]
pub(crate) fn means_account(argument: &str) -> bool {
    let is_path = ["/", "./", "../", "~/"].iter().any(|start| argument.starts_with(start));
    argument.contains("://") || (argument.contains('@') && !is_path)
}

impl fmt::Display for AccountUrl {
    /// For people: `alice@acme.example at imap.oldhost.example:993`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.username, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<(TlsMode, String, String, Option<u16>), AccountUrlError> {
        let url: AccountUrl = text.parse()?;
        Ok((url.tls_mode, url.username, url.host.to_string(), url.port))
    }

    #[test]
    fn an_account_is_a_scheme_a_user_a_host_and_a_port() {
        let account = |mode, user: &str, host: &str, port| Ok((mode, user.to_owned(), host.to_owned(), port));
        let implicit = TlsMode::Implicit;
        assert_eq!(parsed("imaps://alice@imap.example"), account(implicit, "alice", "imap.example", None));
        assert_eq!(
            parsed("IMAP://alice@Imap.Example.:1143"),
            account(TlsMode::StartTls, "alice", "imap.example", Some(1143))
        );
        assert_eq!(parsed("alice@imap.example"), account(implicit, "alice", "imap.example", None));
        assert_eq!(parsed("alice@192.0.2.7:993"), account(implicit, "alice", "192.0.2.7", Some(993)));
    }

    #[test]
    fn the_last_at_sign_divides_user_and_host_and_all_is_plain_text() {
        let user = |text: &str| parsed(text).map(|(_, user, host, _)| (user, host));
        let expected = |user: &str| Ok((user.to_owned(), "imap.oldhost.example".to_owned()));
        assert_eq!(user("imaps://alice@acme.example@imap.oldhost.example"), expected("alice@acme.example"));
        assert_eq!(user("a%40b@imap.oldhost.example"), expected("a%40b"));
        assert_eq!(user("imap://DOM/alice doe?x#y\\z@imap.oldhost.example"), expected("DOM/alice doe?x#y\\z"));
        assert_eq!(user("grün*master@imap.oldhost.example"), expected("grün*master"));
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let server = |text: &str| parsed(text).map(|(_, _, host, port)| (host, port));
        assert_eq!(server("a@[2001:DB8::7]"), Ok(("2001:db8::7".to_owned(), None)));
        assert_eq!(server("imap://a@b@[::1]:143"), Ok(("::1".to_owned(), Some(143))));
        for wrong in ["a@::1", "a@[::1", "a@[imap.example]", "a@[192.0.2.7]:993", "a@[fe80::1%eth0]"] {
            assert_eq!(server(wrong), Err(AccountUrlError::Brackets), "{wrong}");
        }
        assert_eq!(server("a@[::1]993"), Err(AccountUrlError::Host));
    }

    #[test]
    fn a_password_is_refused_before_anything_else_is_looked_at() {
        for wrong in [
            "imaps://alice:hush@imap.example",
            "alice:hush@imap.example",
            "alice:@imap.example",
            "alice:hu@sh",
            "imaps://alice:hu/sh?@imap.example/INBOX",
            "pop3://alice:hush@imap.example",
            "alice:hu://sh@imap.example",
            "alice@acme.example:hush@imap.example:99999",
        ] {
            assert_eq!(parsed(wrong), Err(AccountUrlError::Password), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_account_is_refused_with_what_is_wrong() {
        for (wrong, error) in [
            ("", AccountUrlError::NoUser),
            ("imaps://imap.example", AccountUrlError::NoUser),
            ("imaps://@imap.example", AccountUrlError::EmptyUser),
            ("pop3://alice@imap.example", AccountUrlError::Scheme),
            ("imaps+tls://alice@imap.example", AccountUrlError::Scheme),
            ("alice@imap.example/", AccountUrlError::BehindHost),
            ("alice@imap.example/INBOX", AccountUrlError::BehindHost),
            ("alice@imap.example?x", AccountUrlError::BehindHost),
            ("alice@imap.example#x", AccountUrlError::BehindHost),
            ("alice@", AccountUrlError::Host),
            ("alice@:993", AccountUrlError::Host),
            ("alice@im ap.example", AccountUrlError::Host),
            ("alice@imap%2eexample", AccountUrlError::Host),
            ("alice@-imap.example", AccountUrlError::Host),
            ("alice@imap.example:", AccountUrlError::Port),
            ("alice@imap.example:0", AccountUrlError::Port),
            ("alice@imap.example:+993", AccountUrlError::Port),
            ("alice@imap.example:65536", AccountUrlError::Port),
            ("alice@imap.example:993:993", AccountUrlError::Port),
            ("alice\n@imap.example", AccountUrlError::ControlCharacter),
            ("alice@imap.example\u{85}", AccountUrlError::ControlCharacter),
        ] {
            assert_eq!(parsed(wrong), Err(error), "{wrong}");
        }
    }

    #[test]
    fn an_argument_is_an_account_unless_it_can_only_be_a_file() {
        for account in ["imaps://a@b", "a@b", "a@b.yaml", "a:pa/ss@b", "pop3://b", "dir/a@b.yaml"] {
            assert!(means_account(account), "{account}");
        }
        for file in ["migration.yaml", "-", "./a@b.yaml", "../a@b", "/etc/a@b.yaml", "dir/m.yaml", ""] {
            assert!(!means_account(file), "{file}");
        }
    }

    #[test]
    fn what_repeats_an_argument_shows_no_password() {
        let arguments = ["--connections=imaps://a:hush@b", "a:hush@b", "a@b"].map(str::to_owned);
        let text = "no `imaps://a:hush@b`, no `--connections=imaps://a:hush@b`, no `a:hush@b`, but a@b";
        let shown = without_passwords(text, &arguments);
        assert!(!shown.contains("hush") && shown.ends_with("but a@b"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_error_shows_anything_that_was_written(scheme in "(imaps?://|pop3://|)", user in "[a-z@:/?%]{0,8}", host in "\\PC{0,12}") {
            let text = format!("{scheme}{user}s3cr3t@{host}");
            if let Err(error) = text.parse::<AccountUrl>() {
                let said = [error.to_string(), format!("{error:?}"), error.advice().to_owned()].concat();
                prop_assert!(!said.contains("s3cr3t"), "{}", said);
            }
        }

        #[test]
        fn no_text_panics_and_none_gives_an_account_with_a_colon_in_its_user_or_without_tls(text in "\\PC{0,40}") {
            if let Ok(url) = text.parse::<AccountUrl>() {
                prop_assert!(!url.username.contains(':') && url.tls_mode != TlsMode::None);
            }
        }

        #[test]
        fn what_is_written_is_what_is_read(user in "[a-zA-Z0-9@._%+/-]{1,30}", host in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,3}", port in proptest::option::of(1_u16..)) {
            let behind = port.map_or_else(String::new, |port| format!(":{port}"));
            let url: AccountUrl = format!("imaps://{user}@{host}{behind}").parse().unwrap();
            prop_assert_eq!((url.username, url.host.to_string(), url.port), (user, host, port));
        }

        #[test]
        fn a_password_never_survives(user in "[a-z]{1,8}", password in "\\PC{0,12}") {
            let text = format!("imaps://{user}:{password}@imap.example");
            prop_assert_eq!(text.parse::<AccountUrl>(), Err(AccountUrlError::Password));
        }
    }
}
