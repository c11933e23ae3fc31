//! From what a user wrote to what the engine does: pure conversions, the same in a cluster and without one.
//!
//! [`resolve_mailbox`] joins a migration, one of its mailboxes and the servers to a [`MailboxSyncSpec`]: everything but secrets.
//! [`build_sync_spec`] adds the secrets, and gives the engine's [`SyncSpec`].

mod endpoint;
mod grant_login;
mod rules;
mod secrets;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub(crate) use self::{
    endpoint::server_endpoint,
    secrets::{GrantSecret, SecretError, SecretProvider},
};
use crate::{
    api::{
        self, EndpointSpec, MailMigration, MailServerSpec, MailboxEntry, MailboxSyncSpec, SyncEndpoint,
        names::account_hash, shared::Shared,
    },
    error::{Error, Result, Side},
    sync::spec::{AdoptScope, DeletionHandling, FlagHandling, RetryPolicy, SyncSpec},
};

/// Joins a migration, one of its mailboxes and the servers that it refers to (`server` finds a MailServer by name).
/// Defaults that depend on other fields are filled in; secrets are not looked at.
///
/// # Errors
/// Configuration when a server or a credential is missing, or both sides are one account; with the mailbox's name.
pub(crate) fn resolve_mailbox<'a>(
    migration: &MailMigration,
    entry: &MailboxEntry,
    server: impl Fn(&str) -> Option<&'a MailServerSpec>,
) -> Result<MailboxSyncSpec> {
    let spec = &migration.spec;
    let named = |error: Error| error.in_mailbox(&entry.name);
    let source_user = entry.source.username.clone().unwrap_or_else(|| entry.name.clone());
    let destination_user = entry.destination.username.clone().unwrap_or_else(|| source_user.clone());
    let source = side(Side::Source, &spec.source, &entry.source, source_user, &server).map_err(named)?;
    let destination =
        side(Side::Destination, &spec.destination, &entry.destination, destination_user, &server).map_err(named)?;
    if account_hash(&source) == account_hash(&destination) {
        let what = format!(
            "source and destination are the same account: {} on {}",
            source.account.username.as_deref().unwrap_or_default(),
            source.server.host
        );
        return Err(named(Error::configuration(what).advice("Correct the host, or the username of one side")));
    }
    let mut settings = spec.settings();
    let limits = |side: &SyncEndpoint| {
        [side.server.limits.max_connections_per_mailbox, endpoint::provider_connections(&side.server)]
    };
    for limit in [&source, &destination].into_iter().flat_map(limits).flatten() {
        settings.connections = settings.connections.min(limit);
    }
    Ok(MailboxSyncSpec {
        migration: migration.metadata.name.clone().unwrap_or_default(),
        mailbox: entry.name.clone(),
        source,
        destination,
        settings: settings.into(),
        // The migration's own counts: so none of its mailboxes has to be written when it is suspended.
        suspend: false,
        cancel: spec.cancel.contains(&entry.name),
        // Whom it asks, and once only, is the operator's to decide.
        sync_request: spec.sync_request.clone(),
        start_at: spec.start_at.clone(),
        pod_overrides: spec.pod_overrides.clone().map(Shared::from),
    })
}

/// The engine's spec of one mailbox, with its secrets. Ages of messages are counted from `now`.
///
/// # Errors
/// Configuration when a Secret is missing or wrong, or a rule can't be understood; with the mailbox's name.
pub(crate) fn build_sync_spec(
    sync: &MailboxSyncSpec,
    secrets: &dyn SecretProvider,
    now: Timestamp,
) -> Result<SyncSpec> {
    build(sync, secrets, now).map_err(|error| error.in_mailbox(&sync.mailbox))
}

fn build(sync: &MailboxSyncSpec, secrets: &dyn SecretProvider, now: Timestamp) -> Result<SyncSpec> {
    let settings = &sync.settings;
    Ok(SyncSpec {
        mailbox: sync.mailbox.clone(),
        source: endpoint::endpoint(Side::Source, &sync.source, &settings.timeouts, secrets)?,
        destination: endpoint::endpoint(Side::Destination, &sync.destination, &settings.timeouts, secrets)?,
        folders: rules::folder_rules(&settings.folders)?,
        messages: rules::message_rules(&settings.messages, now),
        flag_policy: match settings.flags {
            api::FlagPolicy::SourceWins => FlagHandling::SourceWins,
            api::FlagPolicy::Ignore => FlagHandling::Ignore,
        },
        delete_policy: match settings.deletions {
            api::DeletionPolicy::Keep => DeletionHandling::Keep,
            api::DeletionPolicy::Mirror => DeletionHandling::Mirror,
        },
        confirm_deletions: settings.confirm_deletions.iter().cloned().collect(),
        connections: usize::try_from(settings.connections).unwrap_or(1).max(1),
        dry_run: settings.dry_run,
        retry: RetryPolicy {
            attempts: u32::try_from(settings.retry.reconnects).unwrap_or(0),
            initial_backoff: settings.retry.reconnect_backoff.as_std(),
            max_backoff: settings.retry.reconnect_max_backoff.as_std(),
            patience: settings.retry.patience.as_std(),
            ..RetryPolicy::default()
        },
        accepted_losses: rules::accepted_losses(&settings.messages.accept_not_copied)?,
        warnings: [(Side::Source, &sync.source), (Side::Destination, &sync.destination)]
            .into_iter()
            .filter_map(|(side, endpoint)| secrets::line_end_warning(side, endpoint, secrets))
            .collect(),
        retry_refused: false,
        adopt: AdoptScope::default(),
    })
}

/// One side of a mailbox, with its server found and its user named.
fn side<'a>(
    side: Side,
    endpoint: &EndpointSpec,
    account: &api::Account,
    username: String,
    server: &impl Fn(&str) -> Option<&'a MailServerSpec>,
) -> Result<SyncEndpoint> {
    let on_side = |mut error: Error| {
        error.side.get_or_insert(side);
        error
    };
    let spec = match (&endpoint.server, &endpoint.server_ref) {
        (Some(spec), None) => spec.clone(),
        (None, Some(reference)) => server(&reference.name).cloned().ok_or_else(|| {
            let what = format!("there is no MailServer {}", reference.name);
            on_side(Error::configuration(what)).advice(format!("Add the MailServer, or correct spec.{side}.serverRef"))
        })?,
        _ => return Err(on_side(Error::configuration(api::cel_rules::ONE_SERVER.message))),
    };
    let grant_for_all = endpoint.grant_secret_ref.as_ref().filter(|_| account.credential().is_none());
    let account = api::Account {
        username: Some(username),
        grant_secret_ref: grant_for_all.or(account.grant_secret_ref.as_ref()).cloned(),
        ..account.clone()
    };
    let (master_user, grant_ref) = match (account.credential(), &endpoint.master_user, &endpoint.grant_ref) {
        (Some(_), ..) => (None, None),
        (None, Some(master), _) => (Some(master.clone()), None),
        (None, None, Some(grant)) => (None, Some(grant.clone())),
        (None, None, None) => {
            let advice = format!(
                "Give the mailbox {side}.passwordSecretRef, {side}.tokenSecretRef or {side}.grantSecretRef, or the \
                 migration {side}.masterUser, {side}.grantRef or {side}.grantSecretRef"
            );
            let username = account.username.as_deref().unwrap_or_default();
            return Err(on_side(Error::configuration(format!("no credential for {username}"))).advice(advice));
        }
    };
    Ok(SyncEndpoint {
        server_ref: endpoint.server_ref.clone(),
        server: spec.into(),
        account,
        master_user: master_user.map(Shared::from),
        grant_ref,
    })
}
