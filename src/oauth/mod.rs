//! Access tokens that are renewed by themselves (OAuth 2.0, RFC 6749): what a grant is, how a token is asked for and kept,
//! and what a refusal means. Knows nothing of Kubernetes, manifests or IMAP.
//!
//! A [`Grant`] is what somebody was given to ask for tokens with. [`TokenCache`] asks, once at a time for each grant and
//! subject, renews each token at half its life, and leaves an endpoint alone that is unwell. A [`RefreshTokenStore`] keeps
//! refresh tokens that the endpoint replaces.

mod answer;
mod assertion;
mod cache;
mod endpoint;
mod grant;
mod identity_provider;
mod refresh_store;
mod refusal;
mod request;
mod sign_in;
#[cfg(test)]
mod testing;
mod token_url;

pub(crate) use self::{
    cache::{CachedGrant, TokenCache},
    grant::{Grant, GrantForm, KEYS},
    refresh_store::{HeldRefreshToken, RefreshSeed, RefreshTokenStore},
    sign_in::SignIn,
};
