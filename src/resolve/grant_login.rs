//! A login by a grant: its tokens go to the servers that it names, and nowhere else.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::secrets::{GrantSecret, SecretProvider};
use crate::{
    api::common::LocalRef,
    error::{Error, Result},
    imap::{LoginCredential, LoginToken, TokenSource},
    oauth::{CachedGrant, Grant},
};

/// A certificate that ends so soon is told of.
const ENDS_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The tokens of a grant for one mailbox.
#[derive(Debug)]
struct GrantLogin(CachedGrant);

impl TokenSource for GrantLogin {
    fn token(&self, refused: Option<&SecretString>) -> BoxFuture<'static, Result<LoginToken>> {
        let (cached, refused) = (self.0.clone(), refused.cloned());
        async move {
            let granted = cached.token(refused.as_ref()).await?;
            let grant = cached.grant();
            let until = granted.until.strftime("%F %T UTC");
            let end = grant.ends_at().filter(|end| end.duration_since(Timestamp::now()) < ENDS_SOON);
            let end = end.map_or_else(String::new, |end| format!("; its certificate ends on {}", end.strftime("%F")));
            Ok(LoginToken {
                token: granted.token,
                origin: format!("the grant {} ({}), until {until}{end}", grant.name, grant.kind()),
                refused_advice: grant.advice_on_refused_login().to_owned(),
            })
        }
        .boxed()
    }
}

/// The credential of the mailbox `user` on `host` by a grant. `field` names the reference in errors.
///
/// # Errors
/// Configuration where the grant is missing or wrong, or its tokens may not be sent to that host.
pub(super) fn grant_credential(
    reference: &LocalRef,
    field: &str,
    (host, user): (&str, &str),
    secrets: &dyn SecretProvider,
) -> Result<LoginCredential> {
    let name = &reference.name;
    let GrantSecret { form, fields, tokens } = secrets.grant(name).map_err(|mut error| {
        error.what = format!("{field}: {}", error.what);
        error
    })?;
    let grant = Grant::new(name, form, &fields)?;
    if !grant.permits(host) {
        let what = format!("the tokens of the grant {name} are for {}, not for {host}", grant.permitted_hosts());
        return Err(Error::configuration(what)
            .advice("Correct the host; where it is the right one, name it in imap-hosts of the grant"));
    }
    Ok(LoginCredential::Grant(Arc::new(GrantLogin(tokens.granted(Arc::new(grant), user)))))
}
