//! A worker's assignment: its environment names the attempt, the claimed MailboxSync says what to do, mounted files hold
//! the secrets.

use std::{fs, io, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::SecretBox;
use zeroize::Zeroizing;

use super::mounted_token::{MountedToken, TokenRefusals};
use crate::{
    api::{MailboxSync, SecretKeyRef, SyncEndpoint, names},
    error::{Error, Result, Side},
    host_name::HostName,
    imap::{AddressPolicy, LoginCredential, pace::BytePace},
    resolve::{SecretError, SecretProvider, build_sync_spec},
    sync::{checkpoint::Checkpoint, progress::SyncProgress, spec::SyncSpec},
};

/// Which attempt this process is, and where it finds what it needs.
#[derive(Debug, Clone)]
pub(crate) struct WorkerAssignment {
    /// The MailboxSync's namespace.
    pub namespace: String,
    /// Its name.
    pub mailbox_sync: String,
    /// The attempt.
    pub attempt: i64,
    /// Which addresses may be connected to.
    pub addresses: AddressPolicy,
    /// Networks that the source must be in besides; none: anywhere.
    pub source_networks: Vec<IpNet>,
    /// The one host that the destination may be, looked up as it stands; empty: any.
    pub destination_host: String,
    /// The account whose access token is mounted for the source, as a hash; empty: none is.
    pub source_token_for: String,
    /// The same for the destination.
    pub destination_token_for: String,
    /// Where Secrets are mounted: `<root>/<Secret>/<key>`.
    pub secrets: PathBuf,
    /// Where the last word goes.
    pub termination_log: PathBuf,
}

/// Secrets as files, mounted by kubelet, which replaces them when the Secret changes.
#[derive(Debug)]
pub(crate) struct MountedSecrets {
    /// The folder that holds a folder for each Secret.
    pub root: PathBuf,
    /// The namespace, for advice.
    pub namespace: String,
    /// The MailboxSync, which the access tokens of grants are for.
    pub mailbox_sync: String,
    /// Where refused tokens are told.
    pub refusals: Arc<TokenRefusals>,
    /// Where waits for others are told.
    pub progress: Arc<SyncProgress>,
}

impl MountedSecrets {
    /// The Secrets that are mounted for an attempt.
    #[must_use]
    pub(crate) fn new(
        assignment: &WorkerAssignment,
        refusals: &Arc<TokenRefusals>,
        progress: &Arc<SyncProgress>,
    ) -> Self {
        Self {
            root: assignment.secrets.clone(),
            namespace: assignment.namespace.clone(),
            mailbox_sync: assignment.mailbox_sync.clone(),
            refusals: Arc::clone(refusals),
            progress: Arc::clone(progress),
        }
    }

    fn path(&self, secret: &SecretKeyRef) -> PathBuf {
        self.root.join(&secret.name).join(&secret.key)
    }
}

impl SecretProvider for MountedSecrets {
    fn value(&self, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError> {
        if names::is_token_secret(&secret.name) {
            return Err(SecretError::Unreadable("it holds access tokens, which are sent as nothing else".to_owned()));
        }
        let path = self.path(secret);
        match fs::read(&path) {
            Ok(bytes) => Ok(SecretBox::new(Zeroizing::new(bytes).as_slice().into())),
            // The mount is optional and brings the keys that are needed only: nobody can tell what else is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SecretError::NoSecret),
            Err(error) => Err(SecretError::Unreadable(format!("{}: {error}", path.display()))),
        }
    }

    fn file(&self, secret: &SecretKeyRef) -> Option<PathBuf> {
        Some(self.path(secret)).filter(|_| !names::is_token_secret(&secret.name))
    }

    fn operator_tokens(&self, side: Side) -> Option<LoginCredential> {
        Some(LoginCredential::Grant(Arc::new(MountedToken {
            path: self.root.join(names::token_secret(&self.mailbox_sync)).join(side.to_string()),
            side,
            refusals: Arc::clone(&self.refusals),
            progress: Arc::clone(&self.progress),
        })))
    }

    fn password_file(&self, secret: &SecretKeyRef) -> Option<PathBuf> {
        Some(self.path(secret))
    }

    fn how_to_provide(&self, secret: &SecretKeyRef) -> String {
        format!("Create the Secret {} with the key {} in the namespace {}", secret.name, secret.key, self.namespace)
    }
}

/// The spec that the engine works by: the MailboxSync's, with its Secrets, no more connections than its slots, and the
/// addresses that the operator allows.
///
/// # Errors
/// Configuration, when the spec or a Secret is wrong.
pub(crate) fn assigned_sync_spec(
    assignment: &WorkerAssignment,
    secrets: &MountedSecrets,
    claimed: &MailboxSync,
    now: Timestamp,
) -> Result<SyncSpec> {
    let sync = &claimed.spec;
    for (side, endpoint, judged) in [
        (Side::Source, &sync.source, &assignment.source_token_for),
        (Side::Destination, &sync.destination, &assignment.destination_token_for),
    ] {
        if endpoint.granted_by().is_some() {
            check_judged(endpoint, judged)
                .map_err(|error| error.on(side, endpoint.server.host.as_str()).in_mailbox(&sync.mailbox))?;
        }
    }
    let mut spec = build_sync_spec(sync, secrets, now)?;
    // The slots are what the operator counts against the servers' limits.
    let slots = claimed.status.as_ref().and_then(|status| status.slots);
    let slots = slots.and_then(|slots| usize::try_from(slots).ok()).unwrap_or(usize::MAX);
    spec.connections = spec.connections.min(slots).max(1);
    for (endpoint, side) in [(&mut spec.source, &sync.source), (&mut spec.destination, &sync.destination)] {
        // Connections that stand idle leave their part to the others of this sync.
        let share = side.server.limits.bytes_per_connection();
        endpoint.pace = share.map(|share| Arc::new(BytePace::new(share.saturating_mul(spec.connections as u64))));
    }
    spec.retry_refused = claimed.status.as_ref().is_some_and(|status| status.retry_refused);
    spec.source.addresses = assignment.addresses.restricted_to(assignment.source_networks.iter().copied());
    spec.destination.addresses = assignment.addresses.clone();
    if !assignment.destination_host.is_empty() {
        // The operator judged this one, before the pod was made.
        if HostName::new(&spec.destination.host) != HostName::new(&assignment.destination_host) {
            let what = "the destination's host was changed while the attempt started";
            return Err(Error::network(what)
                .advice("The next attempt goes to the new host, if mail may be moved there")
                .on(Side::Destination, spec.destination.address())
                .in_mailbox(&sync.mailbox));
        }
        spec.destination.addresses = spec.destination.addresses.absolute_names();
    }
    for (granted, endpoint) in [(&sync.source, &mut spec.source), (&sync.destination, &mut spec.destination)] {
        if granted.granted_by().is_some() {
            endpoint.addresses = endpoint.addresses.absolute_names();
        }
    }
    Ok(spec)
}

/// Checks that an access token goes where the operator judged that it may go, before the pod was made.
fn check_judged(endpoint: &SyncEndpoint, judged: &str) -> Result<()> {
    if names::account_hash(endpoint) == judged && endpoint.server.tls.trusts_system_alone() {
        return Ok(());
    }
    Err(Error::network(
        "the account that logs in by a grant, or how its server is trusted, was changed while the attempt started",
    )
    .advice("The next attempt gets a token for what is there now, if one may be sent there"))
}

/// True when more may have been appended than the checkpoint knows: the attempt before this one did not flush it at its
/// end.
#[must_use]
pub(crate) fn has_uncertain_tail(claimed: &MailboxSync, attempt: i64) -> bool {
    let worker = claimed.status.as_ref().and_then(|status| status.worker.as_ref());
    let flushed = worker.and_then(|worker| worker.flushed_attempt?.checked_add(1));
    worker.is_some_and(|worker| worker.checkpoint.is_some()) && flushed != Some(attempt)
}

/// True while the checkpoint is of somebody else's attempts: none of this object's own wrote it at its end since.
#[must_use]
fn is_inherited(claimed: &MailboxSync) -> bool {
    let Some(status) = &claimed.status else { return false };
    let flushed = status.worker.as_ref().and_then(|worker| worker.flushed_attempt);
    status.inherited.as_ref().is_some_and(|inherited| flushed.is_none_or(|flushed| flushed <= inherited.attempt))
}

/// The checkpoint to go on from, if there is one that can be used.
///
/// # Errors
/// When it cannot be read: the sync goes on without it, and matches what is there.
pub(crate) fn claimed_checkpoint(claimed: &MailboxSync, attempt: i64) -> Result<Option<Checkpoint>> {
    let worker = claimed.status.as_ref().and_then(|status| status.worker.as_ref());
    let Some(text) = worker.and_then(|worker| worker.checkpoint.as_ref()) else { return Ok(None) };
    let mut checkpoint = Checkpoint::decode_text(text)?;
    if is_inherited(claimed) {
        checkpoint.disown();
    }
    if has_uncertain_tail(claimed, attempt) {
        checkpoint.mark_in_doubt();
    }
    Ok(Some(checkpoint))
}

/// A number that the environment gives.
///
/// # Errors
/// Configuration when it is none.
pub(crate) fn parse_attempt(text: &str) -> Result<i64> {
    text.parse().ok().filter(|attempt| *attempt > 0).ok_or_else(|| {
        Error::configuration(format!("the attempt `{text}` is no number")).advice("The operator starts workers")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ErrorClass,
        api::common::LocalRef,
        sync::{
            checkpoint::FolderState,
            uid::{DestinationUid, SourceUid},
            uid_map::CopyOrigin,
        },
    };

    fn sync(status: &serde_json::Value) -> MailboxSync {
        let side = |host: &str, key: &str| json!({"server": {"host": host}, "account": {"username": "a", "passwordSecretRef": {"name": "mail", "key": key}}});
        serde_json::from_value(json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": "s"},
            "spec": {"migration": "m", "mailbox": "a", "source": side("old.example", "from"), "destination": side("new.example", "to")},
            "status": status,
        }))
        .unwrap()
    }

    fn assigned(root: &std::path::Path) -> WorkerAssignment {
        WorkerAssignment {
            namespace: "customers".into(),
            mailbox_sync: "s".into(),
            attempt: 2,
            addresses: AddressPolicy::guarded([], []),
            source_networks: vec!["192.0.2.0/24".parse().unwrap()],
            destination_host: "NEW.example.".into(),
            source_token_for: String::new(),
            destination_token_for: String::new(),
            secrets: root.to_owned(),
            termination_log: root.join("log"),
        }
    }

    fn spec_of(assigned: &WorkerAssignment, claimed: &MailboxSync) -> Result<SyncSpec> {
        let secrets = MountedSecrets::new(assigned, &Arc::default(), &Arc::default());
        assigned_sync_spec(assigned, &secrets, claimed, Timestamp::now())
    }

    #[test]
    fn passwords_are_files_that_are_read_again_and_connections_are_the_slots() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mail")).unwrap();
        fs::write(root.path().join("mail/from"), "one").unwrap();
        fs::write(root.path().join("mail/to"), "two").unwrap();
        let claimed = sync(&json!({"slots": 2}));
        let spec = spec_of(&assigned(root.path()), &claimed).unwrap();
        let destinations = AddressPolicy::guarded([], []).absolute_names();
        assert_eq!((spec.connections, spec.destination.addresses), (2, destinations));
        let sources = AddressPolicy::guarded([], []).restricted_to(["192.0.2.0/24".parse().unwrap()]);
        assert!(!spec.retry_refused);
        assert_eq!(spec.source.addresses, sources, "only the source is held to its networks");
        let LoginCredential::PasswordFile(path) = spec.source.login.credential else { panic!("no file") };
        assert_eq!(path, root.path().join("mail/from"));
    }

    #[test]
    fn a_sync_that_a_person_asked_for_tries_again_what_was_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mail")).unwrap();
        fs::write(root.path().join("mail/from"), "one").unwrap();
        fs::write(root.path().join("mail/to"), "two").unwrap();
        let claimed = sync(&json!({"retryRefused": true}));
        assert!(spec_of(&assigned(root.path()), &claimed).unwrap().retry_refused);
    }

    #[test]
    fn another_destination_than_the_one_that_was_judged_is_not_connected_to() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mail")).unwrap();
        fs::write(root.path().join("mail/from"), "one").unwrap();
        fs::write(root.path().join("mail/to"), "two").unwrap();
        let mut assigned = assigned(root.path());
        assigned.destination_host = "judged.example".into();
        let error = spec_of(&assigned, &sync(&json!({}))).unwrap_err();
        // Another attempt follows.
        assert_eq!((error.class, error.side), (ErrorClass::Network, Some(Side::Destination)));
        assigned.destination_host = String::new();
        let any = spec_of(&assigned, &sync(&json!({}))).unwrap();
        assert_eq!(any.destination.addresses, AddressPolicy::guarded([], []));
    }

    #[test]
    fn an_access_token_goes_only_where_the_operator_judged_that_it_may_go() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mail")).unwrap();
        fs::write(root.path().join("mail/to"), "two").unwrap();
        let mut claimed = sync(&json!({}));
        claimed.spec.source.account.password_secret_ref = None;
        claimed.spec.source.grant_ref = Some(LocalRef { name: "acme".into() });
        let mut assigned = assigned(root.path());
        assigned.source_token_for = names::account_hash(&claimed.spec.source);
        let spec = spec_of(&assigned, &claimed).unwrap();
        assert!(matches!(spec.source.login.credential, LoginCredential::Grant(_)));
        let refused = |change: fn(&mut SyncEndpoint)| {
            let mut claimed = claimed.clone();
            change(&mut claimed.spec.source);
            spec_of(&assigned, &claimed).unwrap_err().class
        };
        assert_eq!(refused(|source| source.server.host = "evil.example".into()), ErrorClass::Network);
        assert_eq!(refused(|source| source.account.username = Some("ceo".into())), ErrorClass::Network);
        assert_eq!(refused(|source| source.server.tls.insecure_skip_verify = true), ErrorClass::Network);
        assigned.source_token_for = String::new();
        assert_eq!(spec_of(&assigned, &claimed).unwrap_err().class, ErrorClass::Network);
        // Nor is it sent as a password.
        let token = SecretKeyRef { name: names::token_secret("s"), key: "source".into() };
        claimed.spec.source.grant_ref = None;
        claimed.spec.source.account.password_secret_ref = Some(token);
        assert_eq!(spec_of(&assigned, &claimed).unwrap_err().class, ErrorClass::Configuration);
    }

    #[test]
    fn a_missing_secret_is_a_configuration_error_that_says_where_it_belongs() {
        let root = tempfile::tempdir().unwrap();
        let error = spec_of(&assigned(root.path()), &sync(&json!({}))).unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
        let text = error.to_string();
        assert!(text.contains("there is no Secret mail (key from, source.passwordSecretRef)"), "{text}");
        assert!(text.contains("Create the Secret mail with the key from in the namespace customers"), "{text}");
    }

    #[test]
    fn a_checkpoint_that_the_attempt_before_did_not_flush_is_in_doubt() {
        let mut kept = Checkpoint { fingerprint: "f".into(), ..Checkpoint::default() };
        kept.folders.insert(b"INBOX".to_vec(), FolderState::default());
        let text = kept.encode_text().unwrap();
        let read = |flushed: Option<i64>, attempt: i64| {
            let worker = json!({"attempt": attempt, "checkpoint": text, "flushedAttempt": flushed});
            let claimed = sync(&json!({"attempt": attempt, "worker": worker}));
            claimed_checkpoint(&claimed, attempt).unwrap().unwrap().folders[&b"INBOX"[..]].append_in_doubt
        };
        assert!(!read(Some(1), 2));
        assert!(read(None, 2) && read(Some(1), 3) && read(Some(i64::MAX), 2));
        let torn = sync(&json!({"attempt": 2, "worker": {"attempt": 2, "checkpoint": "torn"}}));
        assert!(claimed_checkpoint(&torn, 2).is_err());
        assert_eq!(claimed_checkpoint(&sync(&json!({"attempt": 2})), 2).unwrap(), None);
    }

    #[test]
    fn a_checkpoint_of_somebody_elses_attempts_is_in_doubt_and_none_of_its_copies_is_ours_to_delete() {
        let mut state = FolderState::default();
        state.map.push(SourceUid(1), Some(DestinationUid(11)), CopyOrigin::Appended);
        state.map.push(SourceUid(2), Some(DestinationUid(12)), CopyOrigin::Adopted);
        let mut kept = Checkpoint { fingerprint: "f".into(), ..Checkpoint::default() };
        kept.folders.insert(b"INBOX".to_vec(), state);
        let text = kept.encode_text().unwrap();
        let read = |inherited: Option<i64>, flushed: Option<i64>| {
            let worker = json!({"attempt": 4, "checkpoint": text, "flushedAttempt": flushed});
            let inherited = inherited.map(|attempt| json!({"at": "2026-03-01T00:00:00Z", "attempt": attempt}));
            let claimed = sync(&json!({"attempt": 4, "worker": worker, "inherited": inherited}));
            let read = claimed_checkpoint(&claimed, 4).unwrap().unwrap();
            let state = &read.folders[&b"INBOX"[..]];
            assert_eq!(Checkpoint::decode_text(&read.encode_text().unwrap()).unwrap(), read);
            (state.map.deletable().len(), state.map.len(), state.append_in_doubt)
        };
        assert_eq!(read(None, Some(3)), (1, 2, false));
        // The last attempt before said that nothing was in doubt: it was not one of this object's own.
        assert_eq!(read(Some(3), Some(3)), (0, 2, true));
        assert_eq!(read(Some(0), None), (0, 2, true), "it was imported, and no attempt came to its end");
        assert_eq!(read(Some(2), Some(3)), (1, 2, false), "an attempt since wrote it at its end");
    }

    #[test]
    fn an_attempt_is_a_number() {
        assert_eq!(parse_attempt("7").unwrap(), 7);
        assert!(parse_attempt("").is_err() && parse_attempt("0").is_err() && parse_attempt("x").is_err());
    }
}
