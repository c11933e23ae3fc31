//! The account of one side, as a row of a table gives it.

use std::fmt;

use secrecy::SecretBox;

/// One account of a row.
#[derive(Debug)]
pub struct RowAccount {
    /// The server's host, where the table gives it.
    pub host: Option<String>,
    /// The server's port, where the table gives it.
    pub port: Option<u16>,
    /// The name of the user who logs in.
    pub username: String,
    /// The user's credential; none where an administrator logs in for the user.
    pub credential: Option<RowCredential>,
}

/// What kind of credential an account logs in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// A password.
    Password,
    /// An OAuth 2.0 access token.
    Token,
}

/// What an account logs in with.
pub struct RowCredential {
    /// Whether it is a password or a token.
    pub kind: CredentialKind,
    /// Its value, byte by byte as the table has it.
    pub value: SecretBox<[u8]>,
}

impl fmt::Debug for RowCredential {
    /// Without the value: it is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowCredential").field("kind", &self.kind).finish_non_exhaustive()
    }
}
