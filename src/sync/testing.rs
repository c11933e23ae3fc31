//! What the tests of several modules share.

use crate::{
    error::Side,
    imap::{AddressPolicy, Credential, Endpoint, Login, Quirks, Timeouts, Tls},
    sync::spec::{AcceptedLosses, DeletePolicy, FlagPolicy, FolderRules, MessageRules, Retry, SyncSpec},
};

/// A mailbox from old.example to new.example with four connections.
pub(crate) fn spec(name: &str) -> SyncSpec {
    let endpoint = |side, host: &str| Endpoint {
        side,
        host: host.to_owned(),
        port: 993,
        tls: Tls::default(),
        login: Login {
            username: format!("{name}@{host}"),
            master: None,
            credential: Credential::password(b"secret".as_slice()),
        },
        timeouts: Timeouts::default(),
        quirks: Quirks::Generic,
        compress: false,
        addresses: AddressPolicy::default(),
    };
    SyncSpec {
        mailbox: name.to_owned(),
        source: endpoint(Side::Source, "old.example"),
        destination: endpoint(Side::Destination, "new.example"),
        folders: FolderRules::default(),
        messages: MessageRules::default(),
        flag_policy: FlagPolicy::default(),
        delete_policy: DeletePolicy::default(),
        connections: 4,
        dry_run: false,
        retry: Retry::default(),
        accepted_losses: AcceptedLosses::default(),
        retry_refused: false,
    }
}
