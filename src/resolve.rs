//! From what a user wrote to what the engine does: pure conversions, the same in a cluster and without one.
//!
//! [`resolve_mailbox`] joins a migration, one of its mailboxes and the servers to a [`MailboxSyncSpec`]: everything but secrets.
//! [`build_sync_spec`] adds the secrets, and gives the engine's [`SyncSpec`].

use std::path::PathBuf;

use jiff::Timestamp;
use regex::Regex;
use secrecy::{ExposeSecret, SecretBox};

use crate::{
    api::{
        self, EndpointSpec, MailMigration, MailServerSpec, MailboxEntry, MailboxSyncSpec, SecretKeyRef, SyncEndpoint,
        names::account_hash,
    },
    error::{Error, Result, Side},
    imap::{
        AccountLogin, AddressPolicy, ConnectionSecurity, ConnectionTimeouts, Endpoint, LoginCredential, MasterLogin,
        ServerKind, TlsOptions, UidSet,
    },
    sync::{
        set_aside::SetAsideReason,
        spec::{
            AcceptedLosses, AcceptedMessages, DeletionHandling, FlagHandling, FolderMappingRules, FolderPattern,
            FolderRename, MessageFilter, RetryPolicy, SyncSpec,
        },
        uid::SourceUid,
    },
};

/// Where secrets come from.
pub(crate) trait SecretProvider {
    /// The bytes of a secret, exactly as they are stored.
    fn value(&self, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError>;

    /// The file that holds a secret and may get a new value later, if there is one.
    fn file(&self, secret: &SecretKeyRef) -> Option<PathBuf>;

    /// The same for a password, where the file holds it byte by byte.
    fn password_file(&self, _: &SecretKeyRef) -> Option<PathBuf> {
        None
    }

    /// What a person can do when this secret is missing, as a clause without a trailing dot.
    fn how_to_provide(&self, secret: &SecretKeyRef) -> String;
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretError {
    /// No Secret of this name.
    Secret,
    /// The Secret has no such key, but these.
    Key(Vec<String>),
    /// It is there, but can't be read: why.
    Unreadable(String),
}

/// Joins a migration, one of its mailboxes and the servers that it refers to (`server` finds a MailServer by name).
/// Defaults that depend on other fields are filled in; secrets are not looked at.
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
    for limit in [&source, &destination].into_iter().filter_map(|s| s.server.limits.max_connections_per_mailbox) {
        settings.connections = settings.connections.min(limit);
    }
    Ok(MailboxSyncSpec {
        migration: migration.metadata.name.clone().unwrap_or_default(),
        mailbox: entry.name.clone(),
        source,
        destination,
        settings,
        suspend: spec.suspend,
        cancel: spec.cancel.contains(&entry.name),
        sync_request: spec.sync_request.clone(),
        start_at: spec.start_at.clone(),
        pod_overrides: spec.pod_overrides.clone(),
    })
}

/// What the engine does for one mailbox. `now` is what ages of messages are counted from.
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
        source: endpoint(Side::Source, &sync.source, &settings.timeouts, secrets)?,
        destination: endpoint(Side::Destination, &sync.destination, &settings.timeouts, secrets)?,
        folders: folder_rules(&settings.folders)?,
        messages: message_rules(&settings.messages, now),
        flag_policy: match settings.flags {
            api::FlagPolicy::SourceWins => FlagHandling::SourceWins,
            api::FlagPolicy::Ignore => FlagHandling::Ignore,
        },
        delete_policy: match settings.deletions {
            api::DeletionPolicy::Keep => DeletionHandling::Keep,
            api::DeletionPolicy::Mirror => DeletionHandling::Mirror,
        },
        connections: usize::try_from(settings.connections).unwrap_or(1).max(1),
        dry_run: settings.dry_run,
        retry: RetryPolicy {
            attempts: u32::try_from(settings.retry.reconnects).unwrap_or(0),
            initial_backoff: settings.retry.reconnect_backoff.as_std(),
            max_backoff: settings.retry.reconnect_max_backoff.as_std(),
            patience: settings.retry.patience.as_std(),
            ..RetryPolicy::default()
        },
        accepted_losses: accepted_losses(&settings.messages.accept_not_copied)?,
        retry_refused: false,
    })
}

/// One side with its server found and its user named.
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
    let master_user = match account.credential() {
        Some(_) => None,
        None => Some(endpoint.master_user.clone().ok_or_else(|| {
            on_side(Error::configuration(format!("no credential for {username}"))).advice(format!(
                "Give the mailbox {side}.passwordSecretRef or {side}.tokenSecretRef, or the migration {side}.masterUser"
            ))
        })?),
    };
    Ok(SyncEndpoint {
        server_ref: endpoint.server_ref.clone(),
        server: spec,
        account: api::Account { username: Some(username), ..account.clone() },
        master_user,
    })
}

fn endpoint(
    side: Side,
    sync: &SyncEndpoint,
    timeouts: &api::Timeouts,
    secrets: &dyn SecretProvider,
) -> Result<Endpoint> {
    let mut endpoint = server(side, &sync.server, timeouts, secrets)?;
    endpoint.login = login(side, sync, secrets).map_err(|error| error.on(side, endpoint.address()))?;
    Ok(endpoint)
}

/// A server by itself, with an empty login: enough to look at it from outside.
pub(crate) fn server(
    side: Side,
    server: &MailServerSpec,
    timeouts: &api::Timeouts,
    secrets: &dyn SecretProvider,
) -> Result<Endpoint> {
    let port = u16::try_from(server.effective_port())
        .map_err(|_| Error::configuration("port must be from 1 to 65535").on(side, &server.host))?;
    let mut endpoint = Endpoint {
        side,
        host: server.host.clone(),
        port,
        tls: TlsOptions::default(),
        login: AccountLogin { username: String::new(), master: None, credential: LoginCredential::password([]) },
        timeouts: ConnectionTimeouts {
            connect: timeouts.connect.as_std(),
            reply: timeouts.reply.as_std(),
            keepalive: timeouts.keepalive.as_std(),
        },
        quirks: match server.quirks {
            api::Quirks::Generic => ServerKind::Generic,
            api::Quirks::Gmail => ServerKind::Gmail,
            api::Quirks::Exchange => ServerKind::Exchange,
            api::Quirks::Cyrus => ServerKind::Cyrus,
            api::Quirks::Courier => ServerKind::Courier,
            api::Quirks::Dovecot => ServerKind::Dovecot,
        },
        compress: server.compress,
        addresses: AddressPolicy::default(),
    };
    endpoint.tls = tls(&server.tls, secrets).map_err(|error| error.on(side, endpoint.address()))?;
    Ok(endpoint)
}

fn tls(tls: &api::Tls, secrets: &dyn SecretProvider) -> Result<TlsOptions> {
    let ca_bundle = match (&tls.ca_bundle, &tls.ca_bundle_ref) {
        (Some(_), Some(_)) => return Err(Error::configuration(api::cel_rules::ONE_CA.message)),
        (Some(pem), None) => pem.as_bytes().to_vec(),
        (None, Some(reference)) => {
            let pem = read(reference, "tls.caBundleRef", secrets)?.expose_secret().to_vec();
            if memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----").is_none() {
                let what = format!("Secret {} key {} holds no certificate", reference.name, reference.key);
                return Err(Error::configuration(what).advice(api::cel_rules::PEM.message));
            }
            pem
        }
        (None, None) => Vec::new(),
    };
    Ok(TlsOptions {
        mode: match tls.mode {
            api::TlsMode::Implicit => ConnectionSecurity::Implicit,
            api::TlsMode::StartTls => ConnectionSecurity::StartTls,
            api::TlsMode::None => ConnectionSecurity::None,
        },
        server_name: tls.server_name.clone(),
        ca_bundle,
        insecure_skip_verify: tls.insecure_skip_verify,
    })
}

fn login(side: Side, sync: &SyncEndpoint, secrets: &dyn SecretProvider) -> Result<AccountLogin> {
    let username = sync.account.username.clone().unwrap_or_default();
    check_text(&username, &format!("{side}.username"))?;
    let (credential, master) = match (sync.account.credential(), &sync.master_user) {
        (Some(own), _) => (credential(side, own, secrets)?, None),
        (None, Some(master)) => {
            check_text(&master.username, &format!("{side}.masterUser.username"))?;
            let field = format!("{side}.masterUser.passwordSecretRef");
            let username = master.username.clone();
            let master_login = match master.mode {
                api::common::MasterMode::AuthorizationIdentity => MasterLogin::AuthorizationIdentity { username },
                api::common::MasterMode::Suffix => {
                    let separator = master.separator.clone().unwrap_or_else(|| "*".to_owned());
                    MasterLogin::Suffix { username, separator }
                }
            };
            (password(&master.password_secret_ref, &field, secrets)?, Some(master_login))
        }
        (None, None) => return Err(Error::configuration(api::cel_rules::SYNC_CREDENTIAL.message)),
    };
    Ok(AccountLogin { username, master, credential })
}

fn credential(side: Side, own: api::CredentialRef<'_>, secrets: &dyn SecretProvider) -> Result<LoginCredential> {
    match own {
        api::CredentialRef::Password(reference) => password(reference, &format!("{side}.passwordSecretRef"), secrets),
        api::CredentialRef::Token(reference) => {
            if let Some(path) = secrets.file(reference) {
                Ok(LoginCredential::TokenFile(path))
            } else {
                let token = read_credential(reference, &format!("{side}.tokenSecretRef"), secrets)?;
                Ok(LoginCredential::token(token))
            }
        }
    }
}

/// A password; that it is there is found out now, even where it is read again later.
fn password(reference: &SecretKeyRef, field: &str, secrets: &dyn SecretProvider) -> Result<LoginCredential> {
    let now = read_credential(reference, field, secrets)?;
    Ok(secrets.password_file(reference).map_or_else(|| LoginCredential::password(now), LoginCredential::PasswordFile))
}

fn read_credential(reference: &SecretKeyRef, field: &str, secrets: &dyn SecretProvider) -> Result<Box<[u8]>> {
    let value = read(reference, field, secrets)?;
    let bytes = value.expose_secret();
    let wrong = |what: &str| {
        let what = format!("Secret {} key {} ({field}) {what}", reference.name, reference.key);
        Error::configuration(what).advice("Write the password or token itself as the key's value")
    };
    if bytes.is_empty() {
        return Err(wrong("is empty"));
    }
    if bytes.contains(&0) {
        return Err(wrong("contains a NUL byte, which no IMAP login can send"));
    }
    Ok(bytes.into())
}

fn read(reference: &SecretKeyRef, field: &str, secrets: &dyn SecretProvider) -> Result<SecretBox<[u8]>> {
    secrets.value(reference).map_err(|missing| {
        let SecretKeyRef { name, key } = reference;
        let how = secrets.how_to_provide(reference);
        match missing {
            SecretError::Secret => {
                Error::configuration(format!("there is no Secret {name} (key {key}, {field})")).advice(how)
            }
            SecretError::Key(present) => {
                let has = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
                Error::configuration(format!("Secret {name} has no key {key} ({field}); its keys: {has}")).advice(how)
            }
            SecretError::Unreadable(why) => {
                Error::configuration(format!("Secret {name} key {key} ({field}) can't be read: {why}")).advice(how)
            }
        }
    })
}

fn check_text(text: &str, field: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::configuration(format!("{field} is empty")));
    }
    if text.contains(['\0', '\r', '\n']) {
        return Err(Error::configuration(format!("{field} contains a line break or a NUL byte")));
    }
    Ok(())
}

fn folder_rules(rules: &api::FolderRules) -> Result<FolderMappingRules> {
    let patterns = |list: &[String]| list.iter().map(|text| FolderPattern::parse(text)).collect::<Result<Vec<_>>>();
    Ok(FolderMappingRules {
        include: patterns(&rules.include)?,
        exclude: patterns(&rules.exclude)?,
        rename: rules.rename.iter().map(rename).collect::<Result<_>>()?,
        into: rules.into.clone(),
        ignore_special_use: rules.special_use == api::SpecialUsePolicy::Ignore,
        everything: rules.namespaces == api::Namespaces::All,
        ignore_subscriptions: rules.subscriptions == api::Subscriptions::Ignore,
    })
}

/// A rename: a plain name takes what is below it along.
fn rename(rename: &api::Rename) -> Result<FolderRename> {
    let api::Rename { from, to } = rename;
    if from.starts_with('/') {
        let rule = FolderRename::parse(from, to)?;
        check_groups(&rule.from, to)?;
        return Ok(rule);
    }
    let to = to.replace('$', "$$");
    let rule = if from.eq_ignore_ascii_case("INBOX") {
        FolderRename::parse("INBOX", &to)?
    } else {
        FolderRename::parse(&format!("{}(/.*)?", regex::escape(from)), &format!("{to}${{1}}"))?
    };
    Ok(FolderRename { text: from.clone(), ..rule })
}

/// `$2` where there is only one group would silently become nothing.
fn check_groups(from: &Regex, to: &str) -> Result<()> {
    static GROUP: std::sync::LazyLock<Option<Regex>> =
        std::sync::LazyLock::new(|| Regex::new(r"\$\$|\$\{([^}]*)\}|\$([0-9A-Za-z_]+)").ok());
    let Some(group) = GROUP.as_ref() else { return Ok(()) };
    for found in group.captures_iter(to) {
        let Some(name) = found.get(1).or_else(|| found.get(2)) else { continue };
        let known = match name.as_str().parse::<usize>() {
            Ok(number) => number < from.captures_len(),
            Err(_) => from.capture_names().flatten().any(|known| known == name.as_str()),
        };
        if !known {
            let what = format!("folders.rename to `{to}`: there is no group {}", name.as_str());
            return Err(
                Error::configuration(what).advice("Write ${1} where a letter or digit follows, $$ for a dollar sign")
            );
        }
    }
    Ok(())
}

/// INTERNALDATE has whole seconds, so bounds between two seconds count as the later one.
fn message_rules(rules: &api::MessageRules, now: Timestamp) -> MessageFilter {
    let up = |time: Timestamp| time.as_second() + i64::from(time.subsec_nanosecond() > 0);
    let ago = |days: i32| now.as_second() - i64::from(days) * 86_400;
    let since = rules.since.as_ref().map(|time| up(time.0));
    let before = rules.before.as_ref().map(|time| up(time.0));
    MessageFilter {
        since: since.into_iter().chain(rules.max_age_days.map(ago)).max(),
        before: before.into_iter().chain(rules.min_age_days.map(ago)).min(),
        max_size: rules.max_size.map(api::Size::bytes),
        min_size: rules.min_size.map(api::Size::bytes),
        skip_deleted: rules.skip_deleted,
    }
}

fn accepted_losses(entries: &[api::AcceptNotCopied]) -> Result<AcceptedLosses> {
    let mut accepted = AcceptedLosses::default();
    for entry in entries {
        accepted.reasons.extend(entry.reason.map(|reason| match reason {
            api::NotCopiedReason::TooLarge => SetAsideReason::TooLarge,
            api::NotCopiedReason::Refused => SetAsideReason::Refused,
            api::NotCopiedReason::Unreadable => SetAsideReason::Unreadable,
            api::NotCopiedReason::Empty => SetAsideReason::Empty,
        }));
        for text in &entry.messages {
            let Some((uid_validity, uids)) = validity_and_uids(text) else {
                let what = format!("messages.acceptNotCopied: `{text}` is no UIDVALIDITY with UIDs");
                return Err(Error::configuration(what).advice(
                    "Write them as a report names them, such as 1500000000:7,9:12: numbers of at most 32 bits",
                ));
            };
            accepted.messages.push(AcceptedMessages {
                folder: entry.folder.clone().unwrap_or_default(),
                uid_validity,
                uids,
            });
        }
    }
    Ok(accepted)
}

fn validity_and_uids(text: &str) -> Option<(u32, UidSet<SourceUid>)> {
    let (validity, uids) = text.split_once(':')?;
    Some((validity.parse().ok()?, UidSet::parse(uids)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    /// Secrets by `name/key`; those whose value starts with `file:` are files.
    struct GivenSecrets(BTreeMap<&'static str, &'static [u8]>);

    impl SecretProvider for GivenSecrets {
        fn value(&self, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError> {
            let of = |path: &&&str| path.split('/').next() == Some(secret.name.as_str());
            match self.0.get(format!("{}/{}", secret.name, secret.key).as_str()) {
                Some(value) => Ok(SecretBox::new((*value).into())),
                None if self.0.keys().any(|path| of(&path)) => {
                    let key = |path: &&str| path.split('/').next_back().unwrap().to_owned();
                    Err(SecretError::Key(self.0.keys().filter(of).map(key).collect()))
                }
                None => Err(SecretError::Secret),
            }
        }

        fn file(&self, secret: &SecretKeyRef) -> Option<PathBuf> {
            (secret.name == "files").then(|| PathBuf::from(format!("/run/{}", secret.key)))
        }

        fn how_to_provide(&self, _: &SecretKeyRef) -> String {
            "Create it".to_owned()
        }
    }

    fn secrets() -> GivenSecrets {
        GivenSecrets(BTreeMap::from([
            ("s/a", &b"p\"a\\s s\xe2\x82\xac"[..]),
            ("s/empty", b""),
            ("s/nul", b"a\0b"),
            ("m/password", b"master"),
            ("ca/ca.crt", b"-----BEGIN CERTIFICATE-----\n"),
            ("ca/other", b"hush"),
        ]))
    }

    fn migration(changes: &[(&str, Value)]) -> MailMigration {
        let mut value = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "acme"},
            "spec": {
                "source": {"server": {"host": "old.example"}},
                "destination": {
                    "server": {"host": "new.example", "tls": {"mode": "StartTLS"}},
                    "masterUser": {"username": "migrator", "passwordSecretRef": {"name": "m", "key": "password"}},
                },
                "mailboxes": [{
                    "name": "alice",
                    "source": {"username": "alice@acme.example", "passwordSecretRef": {"name": "s", "key": "a"}},
                }],
            },
        });
        for (pointer, new) in changes {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            match value.pointer_mut(parent).unwrap() {
                Value::Object(object) => object.insert(name.to_owned(), new.clone()),
                other => panic!("{other}"),
            };
        }
        serde_json::from_value(value).unwrap()
    }

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    fn convert(changes: &[(&str, Value)]) -> Result<SyncSpec> {
        let migration = migration(changes);
        let sync = resolve_mailbox(&migration, &migration.spec.mailboxes[0], |_| None)?;
        build_sync_spec(&sync, &secrets(), now())
    }

    #[test]
    fn a_mailbox_is_converted_with_its_defaults() {
        let spec = convert(&[]).unwrap();
        assert_eq!(
            (spec.source.address().as_str(), spec.source.tls.mode),
            ("old.example:993", ConnectionSecurity::Implicit)
        );
        assert_eq!(spec.source.login.username, "alice@acme.example");
        assert_eq!(spec.source.login.credential.expose(), Some("p\"a\\s s€".as_bytes()));
        assert_eq!(spec.source.login.master, None);
        assert_eq!(
            (spec.destination.address().as_str(), spec.destination.tls.mode),
            ("new.example:143", ConnectionSecurity::StartTls)
        );
        assert_eq!(spec.destination.login.username, "alice@acme.example");
        assert_eq!(
            spec.destination.login.master,
            Some(MasterLogin::AuthorizationIdentity { username: "migrator".to_owned() })
        );
        assert_eq!(spec.destination.login.credential.expose(), Some(&b"master"[..]));
        assert_eq!((spec.connections, spec.dry_run), (4, false));
        assert_eq!((spec.flag_policy, spec.delete_policy), (FlagHandling::SourceWins, DeletionHandling::Keep));
        assert_eq!(spec.source.timeouts, ConnectionTimeouts::default());
        assert_eq!(spec.retry, RetryPolicy::default());
        assert_eq!(spec.messages, MessageFilter::default());
    }

    #[test]
    fn a_username_defaults_to_the_mailboxs_name() {
        let source = json!({"passwordSecretRef": {"name": "s", "key": "a"}});
        let mailboxes = json!([{"name": "bob@acme.example", "source": source}]);
        let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
        assert_eq!(spec.source.login.username, "bob@acme.example");
        assert_eq!(spec.destination.login.username, "bob@acme.example");
    }

    #[test]
    fn dovecots_master_login_has_a_separator() {
        let master = json!({"username": "m", "passwordSecretRef": {"name": "m", "key": "password"}, "mode": "Suffix"});
        let spec = convert(&[("/spec/destination/masterUser", master)]).unwrap();
        let expected = MasterLogin::Suffix { username: "m".to_owned(), separator: "*".to_owned() };
        assert_eq!(spec.destination.login.master, Some(expected));
    }

    #[test]
    fn a_mailboxs_own_password_comes_before_the_master_user() {
        let mailboxes = json!([{
            "name": "alice",
            "source": {"passwordSecretRef": {"name": "s", "key": "a"}},
            "destination": {"username": "al", "passwordSecretRef": {"name": "s", "key": "a"}},
        }]);
        let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
        assert_eq!((spec.destination.login.master, spec.destination.login.username.as_str()), (None, "al"));
    }

    #[test]
    fn a_token_in_a_file_is_read_at_each_connect() {
        let mailboxes = json!([{"name": "alice", "source": {"tokenSecretRef": {"name": "files", "key": "t"}}}]);
        let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
        let LoginCredential::TokenFile(path) = spec.source.login.credential else { panic!("no file") };
        assert_eq!(path, PathBuf::from("/run/t"));
        let mailboxes = json!([{"name": "alice", "source": {"tokenSecretRef": {"name": "s", "key": "a"}}}]);
        let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
        assert!(matches!(spec.source.login.credential, LoginCredential::Token(_)));
    }

    #[test]
    fn errors_name_mailbox_side_secret_key_and_remedy() {
        let with = |name: &str, key: &str| {
            let source = json!({"passwordSecretRef": {"name": name, "key": key}});
            let error = convert(&[("/spec/mailboxes", json!([{"name": "alice", "source": source}]))]).unwrap_err();
            error.to_string()
        };
        let start = "mailbox alice: source old.example:993: Configuration: ";
        assert_eq!(with("t", "a"), format!("{start}there is no Secret t (key a, source.passwordSecretRef). Create it"));
        assert_eq!(
            with("s", "b"),
            format!("{start}Secret s has no key b (source.passwordSecretRef); its keys: a, empty, nul. Create it")
        );
        assert!(with("s", "empty").contains("Secret s key empty (source.passwordSecretRef) is empty"));
        assert!(with("s", "nul").contains("NUL byte"));
    }

    #[test]
    fn what_is_missing_on_one_side_is_said() {
        let error = convert(&[("/spec/destination", json!({"server": {"host": "new.example"}}))]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("mailbox alice: destination: Configuration: no credential for alice@acme"),
            "{error}"
        );
        let error = convert(&[("/spec/source", json!({"serverRef": {"name": "gone"}}))]).unwrap_err().to_string();
        assert!(error.contains("source: Configuration: there is no MailServer gone. Add the MailServer"), "{error}");
    }

    #[test]
    fn one_account_on_both_sides_is_refused() {
        for (host, port, tls) in [("OLD.example", 993, "Implicit"), ("old.example.", 143, "StartTLS")] {
            let server = json!({"host": host, "port": port, "tls": {"mode": tls}});
            let error = convert(&[("/spec/destination/server", server)]).unwrap_err().to_string();
            assert!(
                error.contains("source and destination are the same account: alice@acme.example on old"),
                "{error}"
            );
        }
        let server = json!({"host": "old.example", "port": 20_993});
        assert!(convert(&[("/spec/destination/server", server)]).is_ok());
    }

    #[test]
    fn a_certificate_bundle_comes_from_text_or_a_secret() {
        let tls = |tls: Value| convert(&[("/spec/source/server", json!({"host": "h", "tls": tls}))]);
        let spec = tls(json!({"caBundleRef": {"name": "ca", "key": "ca.crt"}, "serverName": "n"})).unwrap();
        assert!(spec.source.tls.ca_bundle.starts_with(b"-----BEGIN"));
        assert_eq!(spec.source.tls.server_name.as_deref(), Some("n"));
        let error = tls(json!({"caBundleRef": {"name": "ca", "key": "other"}})).unwrap_err().to_string();
        assert!(error.contains("Secret ca key other holds no certificate") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn limits_of_a_server_lower_the_connections() {
        let server = json!({"host": "h", "limits": {"maxConnectionsPerMailbox": 2}});
        assert_eq!(convert(&[("/spec/source/server", server)]).unwrap().connections, 2);
    }

    #[test]
    fn folder_patterns_are_globs_or_regular_expressions() {
        let spec = convert(&[(
            "/spec/folders",
            json!({"include": ["Work/*", "All/**", "inbox"], "exclude": ["/20[0-9]{2}/"], "specialUse": "Ignore",
                   "subscriptions": "Ignore", "namespaces": "All", "into": "Old"}),
        )])
        .unwrap();
        let [work, all, inbox] = spec.folders.include.as_slice() else { panic!("three patterns") };
        assert!(work.matches("Work/a") && !work.matches("Work/a/b") && !work.matches("Work"));
        assert!(all.matches("All/a/b") && inbox.matches("INBOX"));
        let year = &spec.folders.exclude[0];
        assert!(year.matches("2024") && !year.matches("2024x") && !year.matches("x2024"));
        let rules = &spec.folders;
        assert!(rules.ignore_special_use && rules.ignore_subscriptions && rules.everything);
        assert_eq!(rules.into.as_deref(), Some("Old"));
    }

    #[test]
    fn renames_take_subfolders_along_and_expressions_insert_groups() {
        let renamed = |from: &str, to: &str, name: &str| {
            rename(&api::Rename { from: from.to_owned(), to: to.to_owned() }).unwrap().apply(name)
        };
        assert_eq!(renamed("Work", "Job$1", "Work/2024").as_deref(), Some("Job$1/2024"));
        assert_eq!(renamed("Work", "Job", "Work").as_deref(), Some("Job"));
        assert_eq!(renamed("Work", "Job", "Workshop"), None);
        assert_eq!(renamed("a.b", "c", "axb"), None);
        assert_eq!(renamed("inbox", "Old", "INBOX").as_deref(), Some("Old"));
        assert_eq!(renamed("/Old (.*)/", "Archive/$1", "Old Mail").as_deref(), Some("Archive/Mail"));
        assert_eq!(renamed("/Old (.*)/", "Archive/$1", "My Old Mail"), None);
    }

    #[test]
    fn wrong_patterns_are_explained() {
        for (folders, message) in [
            (json!({"include": ["/(/"]}), "folder pattern `/(/` is no regular expression: unclosed group"),
            (json!({"exclude": ["a[b"]}), "folder pattern `a[b`"),
            (json!({"rename": [{"from": "/(.*)/", "to": "$1x"}]}), "there is no group 1x"),
            (json!({"rename": [{"from": "/a/", "to": "$2"}]}), "there is no group 2"),
        ] {
            let error = convert(&[("/spec/folders", folders)]).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn message_rules_become_seconds_and_bytes() {
        let rules = json!({"since": "2024-01-01T00:00:00.5Z", "maxAgeDays": 10_000, "minAgeDays": 1,
                           "before": "2025-06-01T02:00:00+02:00", "minSize": "1Ki", "maxSize": "25Mi", "skipDeleted": true});
        let expected = MessageFilter {
            since: Some(1_704_067_201),
            before: Some(1_748_736_000),
            max_size: Some(26_214_400),
            min_size: Some(1024),
            skip_deleted: true,
        };
        assert_eq!(convert(&[("/spec/messages", rules)]).unwrap().messages, expected);
        let days = convert(&[("/spec/messages", json!({"maxAgeDays": 1}))]).unwrap();
        assert_eq!(days.messages.since, Some(now().as_second() - 86_400));
    }

    #[test]
    fn accepted_messages_are_named_by_reason_or_by_folder_uidvalidity_and_uids() {
        let accept = |entries: Value| convert(&[("/spec/messages", json!({"acceptNotCopied": entries}))]);
        let spec = accept(json!([
            {"reason": "TooLarge"},
            {"folder": "inbox", "messages": ["1500000000:7,9:12", "1500000000:40"]},
            {"folder": "Work/2024", "messages": ["3:1"]},
        ]));
        let accepted = spec.unwrap().accepted_losses;
        let refused =
            |folder: &str, validity, uid| accepted.accepts(SetAsideReason::Refused, folder, validity, SourceUid(uid));
        assert!(accepted.accepts(SetAsideReason::TooLarge, "Anything", 1, SourceUid(1)));
        assert!([7, 9, 12, 40].iter().all(|uid| refused("INBOX", 1_500_000_000, *uid)));
        assert!(refused("Work/2024", 3, 1));
        assert!(!refused("INBOX", 1_500_000_000, 8) && !refused("INBOX", 1_500_000_001, 7) && !refused("Work", 3, 1));
        assert_eq!(convert(&[]).unwrap().accepted_losses, AcceptedLosses::default());
        for wrong in ["5000000000:1", "1:5000000000", "1:0", "7"] {
            let error = accept(json!([{"folder": "INBOX", "messages": [wrong]}])).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("such as 1500000000:7,9:12"), "{error}");
        }
    }

    #[test]
    fn patience_is_as_long_as_the_migration_says() {
        let spec = convert(&[("/spec/retry", json!({"patience": "1h"}))]).unwrap();
        assert_eq!(spec.retry.patience, std::time::Duration::from_hours(1));
        let none = convert(&[("/spec/retry", json!({"patience": "0s"}))]).unwrap();
        assert!(none.retry.patience.is_zero());
    }

    #[test]
    fn no_secret_is_in_debug_output() {
        let shown = format!("{:?}", convert(&[]).unwrap());
        assert!(
            !shown.contains("p\\\"a") && !shown.contains("\"master\"") && shown.contains("Password(..)"),
            "{shown}"
        );
    }
}
