//! Gets tokens that are due and writes them, by tasks beside the reconcilers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    keeper::{DueTokens, GrantedLogin, WrittenValues},
    provider::{AccessToken, operator_grant, tenant_grant},
    secret,
};
use crate::{
    api::mailbox_sync::GrantedBy,
    clock::since_boot,
    controller::{cache::NamespacedName, context::ControllerContext, reconcile_queue::Urgency},
    error::{Error, ErrorClass, Result, Side},
};

/// Mailboxes whose tokens are got at one time.
const AT_ONCE: usize = 32;
/// How long getting the tokens of one mailbox may take.
const LIMIT: Duration = Duration::from_mins(2);

/// Keeps tokens for as long as the operator works.
pub(crate) async fn keep_tokens(context: Arc<ControllerContext>) {
    let mut work = JoinSet::new();
    loop {
        let (due, wait) = context.tokens.take_due(since_boot(), AT_ONCE.saturating_sub(work.len()));
        for due in due {
            work.spawn(renew(Arc::clone(&context), due));
        }
        tokio::select! {
            () = context.tokens.changed.notified() => {}
            Some(_) = work.join_next() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Gets the tokens of one mailbox and writes them, and has the mailbox decided on.
async fn renew(context: Arc<ControllerContext>, due: DueTokens) {
    let result = timeout(LIMIT, get_and_write(&context, &due)).await.unwrap_or_else(|_| {
        Err(Error::network(format!("no access token was to be had within {} s", LIMIT.as_secs()))
            .advice("Check that the operator's pod reaches the token endpoint (HTTPS), and that its answers are quick"))
    });
    let NamespacedName { namespace, name } = &due.mailbox;
    match &result {
        Ok(_) => tracing::debug!(namespace, name, "access tokens were written"),
        Err(error) => tracing::warn!(namespace, name, %error, "a mailbox has no access token"),
    }
    context.tokens.finish(&due, result, since_boot());
    context.due.syncs.add(&due.mailbox, Urgency::Urgent);
}

async fn get_and_write(context: &ControllerContext, due: &DueTokens) -> Result<WrittenValues> {
    let (mut values, mut life) = (BTreeMap::<Side, SecretString>::new(), Duration::MAX);
    for login in &due.logins {
        let token = get(context, &due.mailbox.namespace, login, due.refused.get(&login.side)).await;
        let token = token.map_err(|error| error.on(login.side, &login.address))?;
        if due.refused.get(&login.side).is_some_and(|refused| refused.expose_secret() == token.value.expose_secret()) {
            // It is so young that the provider is not asked again yet.
            return Err(Error::new(
                ErrorClass::Authentication,
                "the server refused an access token that was just given",
            )
            .on(login.side, &login.address));
        }
        values.insert(login.side, token.value);
        life = life.min(token.life);
    }
    let expires = since_boot().saturating_add(life);
    // Who was let go of meanwhile has no pod that would mount them.
    if context.tokens.is_wanted(due) {
        secret::write_tokens(&context.client, &due.mailbox, &due.uid, &values).await?;
        if let Some(reader) = due.reader.as_ref().filter(|_| !due.refused.is_empty()) {
            secret::hasten_reading(&context.client, &due.mailbox.namespace, reader).await;
        }
    }
    Ok(WrittenValues { values, expires })
}

async fn get(
    context: &ControllerContext,
    namespace: &str,
    login: &GrantedLogin,
    refused: Option<&SecretString>,
) -> Result<AccessToken> {
    let grant = match &login.by {
        GrantedBy::Operator(name) => {
            let gone = || {
                Error::configuration(format!("there is no grant {name} any more"))
                    .advice("Ask whoever runs the operator, or give each mailbox its own credential")
            };
            let rule = context.config.grant(name).ok_or_else(gone)?;
            let about = format!("the Secret of the grant {name}");
            let secret = read_secret(context, &context.own_namespace, &rule.secret_ref.name, &about).await?;
            operator_grant(rule, secret)?
        }
        GrantedBy::Tenant(name) => {
            let secret = read_secret(context, namespace, name, &format!("the Secret {name}")).await?;
            tenant_grant(name, &login.host, secret)?
        }
    };
    context.tokens.provider.access_token(grant, &login.subject, refused).await
}

/// The Secret that tokens are got with; `about` is what errors call it.
async fn read_secret(context: &ControllerContext, namespace: &str, name: &str, about: &str) -> Result<Secret> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    match secrets.get_opt(name).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Error::configuration(format!("{about} is missing"))
            .advice("Create it: one of the operator's grants in the operator's namespace, else in the migration's")),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 401 | 403) => {
            Err(Error::configuration(format!("the operator may not get {about}"))
                .advice("Whoever runs the operator gives it that right: see `mailferry doctor`"))
        }
        Err(_) => Err(Error::network(format!("the API server did not answer about {about}"))),
    }
}
