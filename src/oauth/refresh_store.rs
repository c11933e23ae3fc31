//! Refresh tokens that the endpoint replaces: what was given to us is a seed, and the current one is kept elsewhere.

use std::fmt;

use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::error::Result;

/// The refresh token that a user gave.
pub(crate) struct RefreshSeed {
    token: SecretString,
    hash: String,
}

impl fmt::Debug for RefreshSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshSeed").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl RefreshSeed {
    /// The token, for a client of this endpoint.
    #[must_use]
    pub(crate) fn new(token_url: &str, client_id: &str, token: SecretString) -> Self {
        let mut hash = Sha256::new();
        for part in [token_url, client_id, token.expose_secret()] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let hash = hash.finalize().iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        Self { token, hash }
    }

    /// The token that the user gave.
    #[must_use]
    pub(crate) fn token(&self) -> &SecretString {
        &self.token
    }

    /// A name for it that tells nothing of it: another seed has another one.
    #[must_use]
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }
}

/// Keeps the current refresh token of each seed.
pub(crate) trait RefreshTokenStore: Send + Sync + fmt::Debug {
    /// Waits until nobody else uses the token of this seed, and takes it until what is returned is dropped.
    fn hold<'a>(&'a self, seed: &'a RefreshSeed) -> BoxFuture<'a, Result<Box<dyn HeldRefreshToken>>>;
}

/// The current refresh token of a seed, which nobody else uses meanwhile.
pub(crate) trait HeldRefreshToken: Send {
    /// The token to ask with.
    fn current(&self) -> &SecretString;

    /// True where somebody asked with it before and ended before its answer was kept: the endpoint may have replaced it.
    fn may_be_used_up(&self) -> bool;

    /// Notes that it is being asked with.
    ///
    /// # Errors
    /// Where that can't be written: then nobody may ask.
    fn begin(&mut self) -> Result<()>;

    /// The endpoint answered: the new token, where it gave one, is kept before this returns.
    ///
    /// # Errors
    /// Where it can't be written: then the access token may not be used either.
    fn keep(&mut self, replacement: Option<SecretString>) -> Result<()>;
}
