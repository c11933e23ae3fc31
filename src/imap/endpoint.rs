//! Where an account is and how to log in to it.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use secrecy::{ExposeSecret, SecretBox};

use super::{
    address::AddressPolicy,
    pace::BytePace,
    provider::{Provider, ProviderChoice},
    server_kind::ServerKind,
    token_source::SharedTokenSource,
};
use crate::error::Side;

/// One account on one IMAP server.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Which account of the mailbox this is; only used in messages.
    pub side: Side,
    /// Host name or IP address, as configured.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: TlsOptions,
    /// Who logs in.
    pub login: AccountLogin,
    /// Bounds on every wait.
    pub timeouts: ConnectionTimeouts,
    /// What is known about the server beyond what it announces.
    pub quirks: ServerKind,
    /// Whom the server belongs to.
    pub provider: ProviderChoice,
    /// Use COMPRESS=DEFLATE (RFC 4978) where offered: for slow links only.
    pub compress: bool,
    /// Which addresses the host may resolve to.
    pub addresses: AddressPolicy,
    /// How fast bytes go to and from the server, with all who share this; none: as fast as both sides can.
    pub pace: Option<Arc<BytePace>>,
    /// Whether the account was seen to open, on any connection to it.
    pub opened: OpenedMark,
}

/// Whether an account was seen to open: some servers take a login and then have nothing behind it.
#[derive(Debug, Clone, Default)]
pub struct OpenedMark(Arc<AtomicBool>);

impl OpenedMark {
    /// It opened.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once it did.
    #[must_use]
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Endpoint {
    /// The provider that the server belongs to, by what the user says and the host's name.
    #[must_use]
    pub(crate) fn known_provider(&self) -> Option<&'static Provider> {
        Provider::find(self.provider, &self.host, "")
    }

    /// What is known of the server's kind before it says anything.
    #[must_use]
    pub(crate) fn known_kind(&self) -> ServerKind {
        match self.quirks {
            ServerKind::Generic => self.known_provider().map_or(ServerKind::Generic, |provider| provider.kind),
            configured => configured,
        }
    }

    /// `host:port`, IPv6 addresses in brackets.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// How a connection is protected.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// When TLS begins, if at all.
    pub mode: ConnectionSecurity,
    /// The name that the certificate must carry, where it differs from the host.
    pub server_name: Option<String>,
    /// Extra trusted roots, PEM; the system's roots stay trusted.
    pub ca_bundle: Vec<u8>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionSecurity {
    /// From the first byte (RFC 8314), port 993.
    #[default]
    Implicit,
    /// By STARTTLS (RFC 9051, section 6.2.1), port 143.
    StartTls,
    /// Never: passwords and mail travel in the clear.
    None,
}

/// Who logs in, and with what.
#[derive(Debug, Clone)]
pub struct AccountLogin {
    /// The account whose mail is meant.
    pub username: String,
    /// An administrator who logs in for [`Self::username`].
    pub master: Option<MasterLogin>,
    /// The password or token of whoever logs in (the master user's, where there is one).
    pub credential: LoginCredential,
}

/// How an administrator logs in for another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterLogin {
    /// AUTHENTICATE PLAIN with the mailbox's user as authorization identity (RFC 4616).
    AuthorizationIdentity { username: String },
    /// The login name is `user` + `separator` + `username` (Dovecot's `user*master`).
    Suffix { username: String, separator: String },
}

/// A password or an OAuth 2.0 access token.
#[derive(Clone)]
pub enum LoginCredential {
    /// A password of any bytes but NUL.
    Password(Arc<SecretBox<[u8]>>),
    /// A file holding a password, every byte of it, read again at each connect.
    PasswordFile(PathBuf),
    /// An access token (XOAUTH2 or OAUTHBEARER).
    Token(Arc<SecretBox<[u8]>>),
    /// A file holding an access token, read again at each connect.
    TokenFile(PathBuf),
    /// Access tokens that are renewed by themselves, asked for at each connect.
    Grant(SharedTokenSource),
}

impl LoginCredential {
    /// A password from bytes.
    #[must_use]
    pub fn password(bytes: impl Into<Box<[u8]>>) -> Self {
        Self::Password(Arc::new(SecretBox::new(bytes.into())))
    }

    /// An access token from bytes.
    #[must_use]
    pub(crate) fn token(bytes: impl Into<Box<[u8]>>) -> Self {
        Self::Token(Arc::new(SecretBox::new(bytes.into())))
    }

    /// True for an access token of any kind.
    #[must_use]
    pub(super) const fn is_token(&self) -> bool {
        matches!(self, Self::Token(_) | Self::TokenFile(_) | Self::Grant(_))
    }

    /// The secret bytes where they are at hand.
    #[must_use]
    pub fn expose(&self) -> Option<&[u8]> {
        match self {
            Self::Password(secret) | Self::Token(secret) => Some(secret.expose_secret()),
            Self::PasswordFile(_) | Self::TokenFile(_) | Self::Grant(_) => None,
        }
    }
}

impl fmt::Debug for LoginCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::PasswordFile(_) => "PasswordFile(..)",
            Self::Token(_) => "Token(..)",
            Self::TokenFile(_) => "TokenFile(..)",
            Self::Grant(_) => "Grant(..)",
        })
    }
}

/// Bounds on every wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// TCP connect, TLS handshake and greeting, each.
    pub connect: Duration,
    /// Silence while an answer is due.
    pub reply: Duration,
    /// An idle connection is kept alive by a NOOP this often.
    pub keepalive: Duration,
}

impl Default for ConnectionTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), reply: Duration::from_mins(2), keepalive: Duration::from_mins(2) }
    }
}
