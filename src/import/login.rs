//! Who logs in, as a row of a table says it.

use std::fmt;

use secrecy::SecretBox;

/// One account.
#[derive(Debug)]
pub struct RowAccount {
    /// Its server's host, where the table gives it.
    pub host: Option<String>,
    /// Its server's port, where the table gives it.
    pub port: Option<u16>,
    /// Who logs in.
    pub username: String,
    /// With what; none where an administrator does.
    pub credential: Option<RowCredential>,
}

/// What an account logs in with.
pub struct RowCredential {
    /// A token, not a password.
    pub is_token: bool,
    /// Each byte of it.
    pub value: SecretBox<[u8]>,
}

impl fmt::Debug for RowCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("is_token", &self.is_token).finish_non_exhaustive()
    }
}
