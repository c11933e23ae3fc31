//! What the tests of several modules share.

use crate::api::{MailboxSyncSpec, SyncEndpoint, SyncSettings};

/// A mailbox of a migration, with nothing but defaults.
pub(crate) fn mailbox_spec(migration: &str, mailbox: &str) -> MailboxSyncSpec {
    MailboxSyncSpec {
        migration: migration.to_owned(),
        mailbox: mailbox.to_owned(),
        source: SyncEndpoint::default(),
        destination: SyncEndpoint::default(),
        settings: SyncSettings::default().into(),
        suspend: false,
        cancel: false,
        sync_request: None,
        start_at: None,
        pod_overrides: None,
    }
}
