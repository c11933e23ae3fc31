//! What the tests of this part share.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use secrecy::SecretBox;
use zeroize::Zeroizing;

use super::{
    endpoint::{EndpointReply, TokenEndpoint},
    grant::{Grant, GrantForm},
    token_url::TokenUrl,
};
use crate::error::Result;

/// A key for tests only, as PKCS #8.
pub(super) const RSA_KEY: &str = include_str!("testdata/key.pem");
/// The same key as PKCS #1.
pub(super) const RSA_KEY_PKCS1: &str = include_str!("testdata/key-pkcs1.pem");
/// A certificate of that key.
pub(super) const CERTIFICATE: &str = include_str!("testdata/certificate.pem");
pub(super) const CERTIFICATE_THUMBPRINT: &str = "qnQPhG4sN3AT0rG25VtvwEin9NnJItIeZ4KtyTiha3E";

/// The fields of a grant.
pub(super) fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretBox<[u8]>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretBox::new(value.as_bytes().into()))).collect()
}

/// A grant of these fields.
pub(super) fn grant(form: GrantForm, pairs: &[(&str, &str)]) -> Result<Grant> {
    Grant::new("acme", form, &fields(pairs))
}

/// A Microsoft tenant's app with a secret.
pub(super) fn app_grant() -> Grant {
    let pairs = [("provider", "microsoft"), ("tenant", "t"), ("client-id", "app"), ("client-secret", "hush-hush")];
    grant(GrantForm::Client, &pairs).unwrap()
}

/// A refresh token of some provider.
pub(super) fn refresh_grant() -> Grant {
    let pairs = [
        ("provider", "other"),
        ("token-url", "https://id.example/token"),
        ("imap-hosts", "imap.example"),
        ("client-id", "app"),
        ("refresh-token", "seed-1"),
    ];
    grant(GrantForm::Grant, &pairs).unwrap()
}

/// A reply of an endpoint.
pub(super) fn reply(status: u16, body: &str) -> EndpointReply {
    EndpointReply { status, date: None, retry_after: None, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

/// An endpoint that gives prepared answers in their order, and remembers what it was asked.
#[derive(Debug, Default)]
pub(super) struct ScriptedEndpoint {
    pub replies: Mutex<VecDeque<Result<EndpointReply>>>,
    pub asked: Mutex<Vec<String>>,
}

impl ScriptedEndpoint {
    pub(super) fn new(replies: impl IntoIterator<Item = Result<EndpointReply>>) -> Arc<Self> {
        Arc::new(Self { replies: Mutex::new(replies.into_iter().collect()), asked: Mutex::default() })
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TokenEndpoint for ScriptedEndpoint {
    fn post<'a>(&'a self, _: &'a TokenUrl, form: Zeroizing<String>) -> BoxFuture<'a, Result<EndpointReply>> {
        self.asked.lock().unwrap().push(form.to_string());
        let reply = self.replies.lock().unwrap().pop_front().expect("it is asked once too often");
        Box::pin(async move {
            tokio::task::yield_now().await;
            reply
        })
    }
}
