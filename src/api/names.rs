//! Names of what the operator makes: deterministic, so that whoever makes it twice meets the first one; free of
//! collisions, so that it is never somebody else's.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{MailServerSpec, SyncEndpoint};
use crate::host_name::HostName;

/// The `ServiceAccount`, the role and the `RoleBinding` of sync pods.
pub(crate) const WORKER_NAME: &str = "mailferry-worker";

/// The longest name of a MailboxSync: a pod's name adds `-` and the attempt, and both fit into a label (63 characters).
const MAX_NAME: usize = 57;
/// Hexadecimal digits of the hash at the end of a MailboxSync's name.
const HASH_DIGITS: usize = 10;

/// The name of the MailboxSync of a mailbox: readable at its start, unique by its end.
#[must_use]
pub fn mailbox_sync(migration: &str, mailbox: &str) -> String {
    let mut readable = String::new();
    for c in format!("{migration}-{mailbox}").to_ascii_lowercase().chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if !(c == '-' && (readable.is_empty() || readable.ends_with('-'))) {
            readable.push(c);
        }
    }
    readable.truncate(MAX_NAME - HASH_DIGITS - 1);
    let readable = readable.trim_end_matches('-');
    let hash = hash_texts(&[migration, mailbox], HASH_DIGITS);
    // A name must start with a letter or digit; a hash alone does.
    if readable.is_empty() { hash } else { format!("{readable}-{hash}") }
}

/// The name of an attempt's pod.
#[must_use]
pub fn pod(mailbox_sync: &str, attempt: i64) -> String {
    format!("{mailbox_sync}-{attempt}")
}

/// The attempt that a pod's name ends in.
#[must_use]
pub fn attempt_from_pod(mailbox_sync: &str, pod: &str) -> Option<i64> {
    pod.strip_prefix(mailbox_sync)?.strip_prefix('-')?.parse().ok()
}

/// The name of the Secret with one mailbox's part of a CSV. `version` stands for what is in it: another password, another
/// name, so that a change needs no right to update Secrets and is seen in the MailboxSync's spec.
#[must_use]
pub fn mailbox_secret(mailbox_sync: &str, version: &str) -> String {
    format!("{mailbox_sync}-{version}")
}

/// What the names of Secrets end in that hold access tokens: no other Secret may be named so where Mailferry mounts it.
const TOKEN_SECRET_SUFFIX: &str = ".mailferry-token";

/// The name of the Secret with the access tokens of one mailbox: those that the operator got by its grants. Its keys are
/// sides: `source`, `destination`.
#[must_use]
pub fn token_secret(mailbox_sync: &str) -> String {
    format!("{mailbox_sync}{TOKEN_SECRET_SUFFIX}")
}

/// True for such a name.
#[must_use]
pub(crate) fn is_token_secret(name: &str) -> bool {
    name.ends_with(TOKEN_SECRET_SUFFIX)
}

/// An access token as a hash that tells nothing of it: a token is long and random.
#[must_use]
pub fn token_hash(token: &str) -> String {
    hash_texts(&["access token", token], 32)
}

/// An account on a server, as a hash: the same for both standard ports and whatever the case of host and user.
#[must_use]
pub fn account_hash(endpoint: &SyncEndpoint) -> String {
    let host = HostName::new(&endpoint.server.host);
    let port = account_port(&endpoint.server);
    let user = endpoint.account.username.as_deref().unwrap_or_default().to_lowercase();
    hash_texts(&[host.as_str(), &port.to_string(), &user], 40)
}

/// The port by which accounts are told apart: one for both standard ports.
#[must_use]
pub(crate) fn account_port(server: &MailServerSpec) -> i32 {
    match server.effective_port() {
        143 => 993,
        port => port,
    }
}

/// The start of a SHA-256 over texts, each with its length: `a`, `b-c` is not `a-b`, `c`.
#[must_use]
pub(crate) fn hash_texts(texts: &[&str], digits: usize) -> String {
    hash_bytes(&texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), digits)
}

/// The same over bytes.
#[must_use]
pub(crate) fn hash_bytes(texts: &[&[u8]], digits: usize) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_read_alike_are_not_the_same() {
        assert_ne!(mailbox_sync("a", "b-c"), mailbox_sync("a-b", "c"));
        assert_ne!(mailbox_sync("a", "B"), mailbox_sync("a", "b"));
        assert_ne!(mailbox_sync("a", "b.c"), mailbox_sync("a", "b-c"));
        assert_eq!(mailbox_sync("acme", "alice@acme.example")[..24].to_owned(), "acme-alice-acme-example-");
    }

    #[test]
    fn an_attempt_is_read_from_its_own_pods_name_only() {
        assert_eq!(attempt_from_pod("m-1", "m-1-12"), Some(12));
        assert_eq!(attempt_from_pod("m", "m-1-12"), None);
    }

    proptest! {
        #[test]
        fn every_name_is_a_label(migration in "[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", mailbox in "[0-9A-Za-z]([0-9A-Za-z._@+=-]{0,250}[0-9A-Za-z])?") {
            let name = mailbox_sync(&migration, &mailbox);
            prop_assert!(name.len() <= MAX_NAME);
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }
}
