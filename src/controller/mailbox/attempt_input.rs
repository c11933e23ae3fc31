//! What an attempt was made with, as hashes: by them a later decision knows whether another attempt would ask the servers
//! anything else. Pure.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    Side,
    api::{
        CredentialRef, MailboxSyncSpec, MailboxSyncStatus, MasterMode, SyncEndpoint,
        mail_server::Limits,
        mailbox_sync::{AttemptInput, GrantedBy},
        names::{account_hash, hash_texts},
        settings::SyncSettings,
    },
    controller::merge_patch,
};

/// Hexadecimal digits of each hash.
const HASH_DIGITS: usize = 40;

/// What an attempt by this spec is made with.
#[must_use]
pub(super) fn attempt_input(spec: &MailboxSyncSpec) -> AttemptInput {
    AttemptInput {
        source: login_hash(&spec.source),
        destination: login_hash(&spec.destination),
        spec: spec_hash(spec),
        dry_run: spec.settings.dry_run,
    }
}

/// True when an attempt by this spec would log in with what a server refused before: the same accounts, and the same
/// versions of the Secrets that hold their credentials. A field of the status that says nothing (an older operator wrote it)
/// counts as the same.
#[must_use]
pub(super) fn is_refused_login(
    spec: &MailboxSyncSpec,
    status: &MailboxSyncStatus,
    secret_versions: Option<&[String]>,
) -> bool {
    let refused = status.last_error.as_ref().and_then(|error| error.side);
    let sides = [(Side::Source, &spec.source), (Side::Destination, &spec.destination)];
    sides.into_iter().filter(|(side, _)| refused.is_none_or(|refused| refused == *side)).all(|(side, endpoint)| {
        let same_login = status.attempt_input.as_ref().is_none_or(|input| {
            let before = if side == Side::Source { &input.source } else { &input.destination };
            *before == login_hash(endpoint)
        });
        let secret = login_secret(endpoint);
        let secret = secret.as_deref();
        let of = |versions: &[String]| versions.iter().filter(|v| is_of(v, secret)).cloned().collect::<BTreeSet<_>>();
        same_login && secret_versions.is_none_or(|seen| of(seen) == of(&status.secret_versions))
    })
}

/// A hash of all that decides how a sync goes: not of when it runs, whether it is asked to stop, or what is kept after it.
/// Settings that have their default are left out, so that a field that a later version adds changes no hash.
#[must_use]
pub(super) fn spec_hash(spec: &MailboxSyncSpec) -> String {
    let default = SyncSettings::default();
    let settings = SyncSettings {
        finished_pods_ttl: default.finished_pods_ttl,
        failed_pods_limit: default.failed_pods_limit,
        succeeded_pods_limit: default.succeeded_pods_limit,
        schedule: None,
        cutover: None,
        // What is confirmed has a sync due of its own.
        confirm_deletions: Vec::new(),
        ..SyncSettings::clone(&spec.settings)
    };
    let own_settings = merge_patch::diff(&default, &settings).unwrap_or_default().unwrap_or_default();
    let spec = MailboxSyncSpec {
        settings: default.into(),
        suspend: false,
        cancel: false,
        sync_request: None,
        start_at: None,
        source: without_times(&spec.source),
        destination: without_times(&spec.destination),
        ..spec.clone()
    };
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    spec["settings"] = own_settings;
    hash_texts(&[&spec.to_string()], HASH_DIGITS)
}

/// The side as it is at any time: when its server may be used, and how fast, does not decide how a sync goes.
fn without_times(endpoint: &SyncEndpoint) -> SyncEndpoint {
    let mut endpoint = endpoint.clone();
    let limits = &endpoint.server.limits;
    if !limits.windows.is_empty() || limits.bytes_per_second.is_some() {
        endpoint.server.limits = Limits { windows: Vec::new(), bytes_per_second: None, ..limits.clone() };
    }
    endpoint
}

/// A hash of the account that is logged in to and of where its credential is: never of the credential itself.
fn login_hash(endpoint: &SyncEndpoint) -> String {
    let mut texts = vec![account_hash(endpoint), endpoint.account.username.clone().unwrap_or_default()];
    match (endpoint.account.credential(), &endpoint.master_user) {
        (Some(own), _) => {
            texts.extend(match own {
                CredentialRef::Password(secret) => vec!["password".to_owned(), secret.name.clone(), secret.key.clone()],
                CredentialRef::Token(secret) => vec!["token".to_owned(), secret.name.clone(), secret.key.clone()],
                CredentialRef::Grant(secret) => vec!["grant".to_owned(), secret.name.clone()],
            });
        }
        (None, Some(master)) => {
            let mode = match master.mode {
                MasterMode::AuthorizationIdentity => "identity",
                MasterMode::Suffix => "suffix",
            };
            let separator = master.separator.clone().unwrap_or_default();
            texts.extend(["master".to_owned(), master.username.clone(), mode.to_owned(), separator]);
            texts.extend([master.password_secret_ref.name.clone(), master.password_secret_ref.key.clone()]);
        }
        (None, None) => {
            if let Some(GrantedBy::Operator(grant)) = endpoint.granted_by() {
                texts.extend(["operator's grant".to_owned(), grant]);
            }
        }
    }
    hash_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>(), HASH_DIGITS)
}

/// The name of the Secret that the account's credential is in; of a grant's, as [`grant_version_name`] has it.
fn login_secret(endpoint: &SyncEndpoint) -> Option<Cow<'_, str>> {
    match endpoint.granted_by() {
        Some(GrantedBy::Operator(grant)) => return Some(Cow::Owned(grant_version_name(&grant))),
        Some(GrantedBy::Tenant(secret)) => return Some(Cow::Owned(secret)),
        None => {}
    }
    let own = endpoint.account.password_secret_ref.as_ref().or(endpoint.account.token_secret_ref.as_ref());
    let secret = own.or(endpoint.master_user.as_ref().map(|master| &master.password_secret_ref));
    secret.map(|secret| Cow::Borrowed(secret.name.as_str()))
}

/// By what name `status.secretVersions` tells of the Secret of a grant, which lies in another namespace: no Secret has one
/// like it.
#[must_use]
pub(super) fn grant_version_name(grant: &str) -> String {
    format!("grant:{grant}")
}

/// True for the version (`name=resourceVersion`) of this Secret.
fn is_of(version: &str, secret: Option<&str>) -> bool {
    version.split_once('=').is_some_and(|(name, _)| Some(name) == secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::time_window::TimeWindow, controller::testing};

    #[test]
    fn settings_count_only_where_they_are_not_the_default_and_decide_how_a_sync_goes() {
        let spec = testing::mailbox_spec("acme", "alice");
        let plain = spec_hash(&spec);
        // The hash of today's form: a version that adds fields with defaults finds the same.
        insta::assert_snapshot!(plain, @"d37c85e5447a86d1569c40eedbb0995a69699482");
        let with = |change: fn(&mut SyncSettings)| {
            let mut settings = SyncSettings::clone(&spec.settings);
            change(&mut settings);
            spec_hash(&MailboxSyncSpec { settings: settings.into(), ..spec.clone() })
        };
        assert_eq!(with(|settings| settings.failed_pods_limit += 1), plain);
        assert_eq!(with(|settings| settings.confirm_deletions.push("0123456789abcdef".to_owned())), plain);
        assert_ne!(with(|settings| settings.connections += 1), plain);
        assert_ne!(with(|settings| settings.dry_run = true), plain);
        let mut nightly = spec.clone();
        nightly.source.server.limits.windows = vec![TimeWindow::default()];
        nightly.source.server.limits.bytes_per_second = Some("1Mi".parse().unwrap());
        assert_eq!(spec_hash(&nightly), plain);
    }
}
