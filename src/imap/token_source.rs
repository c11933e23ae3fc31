//! Where a login gets access tokens that are renewed by themselves.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use secrecy::SecretString;

use crate::error::Result;

/// Gives access tokens that are renewed by themselves.
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// A token that is good now. `refused` is one that the server just refused: where that may be the token's own fault,
    /// another one is given.
    ///
    /// # Errors
    /// Why there is none now, and what to do about it; never with a secret.
    fn token(&self, refused: Option<&SecretString>) -> BoxFuture<'static, Result<LoginToken>>;
}

/// An access token, with what people want to know of it.
pub struct LoginToken {
    /// The token.
    pub token: SecretString,
    /// Where it comes from, and until when it is good.
    pub origin: String,
    /// What to do where a server refuses it.
    pub refused_advice: String,
}

impl fmt::Debug for LoginToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginToken").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Where a login gets its tokens.
pub type SharedTokenSource = Arc<dyn TokenSource>;
