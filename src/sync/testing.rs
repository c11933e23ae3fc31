//! What the tests of several modules share.

use std::collections::BTreeSet;

use crate::{
    error::Side,
    imap::{
        AccountLogin, AddressPolicy, ConnectionTimeouts, Endpoint, LoginCredential, OpenedMark, ServerKind, TlsOptions,
    },
    sync::spec::{
        AcceptedLosses, AdoptScope, DeletionHandling, FlagHandling, FolderMappingRules, MessageFilter, RetryPolicy,
        SyncSpec,
    },
};

/// A mailbox from old.example to new.example with four connections.
pub(crate) fn spec(name: &str) -> SyncSpec {
    let endpoint = |side, host: &str| Endpoint {
        side,
        host: host.to_owned(),
        port: 993,
        tls: TlsOptions::default(),
        login: AccountLogin {
            username: format!("{name}@{host}"),
            master: None,
            credential: LoginCredential::password(b"secret".as_slice()),
        },
        timeouts: ConnectionTimeouts::default(),
        quirks: ServerKind::Generic,
        provider: crate::imap::provider::ProviderChoice::FoundOut,
        compress: false,
        addresses: AddressPolicy::default(),
        opened: OpenedMark::default(),
        pace: None,
    };
    SyncSpec {
        mailbox: name.to_owned(),
        source: endpoint(Side::Source, "old.example"),
        destination: endpoint(Side::Destination, "new.example"),
        folders: FolderMappingRules::default(),
        messages: MessageFilter::default(),
        flag_policy: FlagHandling::default(),
        delete_policy: DeletionHandling::default(),
        connections: 4,
        dry_run: false,
        retry: RetryPolicy::default(),
        accepted_losses: AcceptedLosses::default(),
        confirm_deletions: BTreeSet::new(),
        warnings: Vec::new(),
        retry_refused: false,
        adopt: AdoptScope::default(),
    }
}
