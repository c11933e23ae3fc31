//! The servers that a migration's mailboxes keep once it has started, whatever its MailServers say later. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Side,
    api::{MailServerSpec, MailboxSync, MailboxSyncSpec, SyncEndpoint, names::account_port},
    controller::owner_reference,
    host_name::HostName,
};

/// The servers that a migration began with: another host or port would make its mailboxes begin anew somewhere else, with
/// nothing that says so. What else a MailServer says (TLS, limits, authorities) reaches them at any time.
pub(crate) struct ServerPin<'a> {
    existing: &'a BTreeMap<String, Arc<MailboxSync>>,
    owner: &'a str,
    /// One of its mailboxes that has made an attempt.
    begun: Option<&'a MailboxSyncSpec>,
    /// What is told of each side.
    source: Option<String>,
    destination: Option<String>,
}

impl<'a> ServerPin<'a> {
    /// The servers of the migration with the UID `owner`, as its MailboxSyncs (by name) have them.
    #[must_use]
    pub(crate) fn new(existing: &'a BTreeMap<String, Arc<MailboxSync>>, owner: &'a str) -> Self {
        let begun = existing.values().find(|sync| has_begun(sync, owner)).map(|sync| &sync.spec);
        Self { existing, owner, begun, source: None, destination: None }
    }

    /// Gives a mailbox the servers that it began with: its own, or those of the others where it has made no attempt.
    pub(crate) fn keep_servers(&mut self, name: &str, wanted: &mut MailboxSyncSpec) {
        let own = self.existing.get(name).filter(|sync| has_begun(sync, self.owner)).map(|sync| &sync.spec);
        let Some(begun) = own.or(self.begun) else { return };
        for (side, told, wanted, begun) in [
            (Side::Source, &mut self.source, &mut wanted.source, &begun.source),
            (Side::Destination, &mut self.destination, &mut wanted.destination, &begun.destination),
        ] {
            if !is_same_server(&wanted.server, &begun.server) {
                told.get_or_insert_with(|| change_message(side, wanted, begun));
                wanted.server.host.clone_from(&begun.server.host);
                wanted.server.port = begun.server.port;
            }
        }
    }

    /// What people are told of a change that was not followed.
    #[must_use]
    pub(crate) fn message(self) -> Option<String> {
        let told: Vec<_> = self.source.into_iter().chain(self.destination).collect();
        (!told.is_empty()).then(|| {
            format!(
                "{}. Its mailboxes stay where they began. Write the host and port back; for another server write a new \
                 MailMigration with another name",
                told.join("; ")
            )
        })
    }
}

fn has_begun(sync: &MailboxSync, owner: &str) -> bool {
    sync.status.as_ref().is_some_and(|status| status.attempt > 0) && owner_reference::is_controlled_by(sync, owner)
}

/// True when both name one server, by which accounts are told apart: a change between its standard ports is one of TLS.
pub(super) fn is_same_server(one: &MailServerSpec, other: &MailServerSpec) -> bool {
    HostName::new(&one.host) == HostName::new(&other.host) && account_port(one) == account_port(other)
}

fn change_message(side: Side, wanted: &SyncEndpoint, begun: &SyncEndpoint) -> String {
    let place = wanted.server_ref.as_ref().map_or_else(
        || format!("spec.{side}.server"),
        |reference| format!("the MailServer {} (spec.{side}.serverRef)", reference.name),
    );
    let [now, before] =
        [wanted, begun].map(|endpoint| format!("{} port {}", endpoint.server.host, endpoint.server.effective_port()));
    format!("{place} names {now} now, and the migration began with {before}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{MailboxSyncStatus, TlsMode, common::LocalRef},
        controller::testing,
    };

    /// The MailboxSyncs of a migration: names, hosts of their sources, and attempts that they made.
    fn existing(syncs: &[(&str, &str, i64)]) -> BTreeMap<String, Arc<MailboxSync>> {
        let migration = testing::migration("acme");
        let sync = |&(mailbox, host, attempt): &(&str, &str, i64)| {
            let mut sync = testing::mailbox_sync(&migration, mailbox);
            sync.spec.source.server.host = host.to_owned();
            sync.status = Some(MailboxSyncStatus { attempt, ..MailboxSyncStatus::default() });
            (mailbox.to_owned(), Arc::new(sync))
        };
        syncs.iter().map(sync).collect()
    }

    fn wanted(host: &str) -> MailboxSyncSpec {
        let mut spec = testing::mailbox_spec("acme", "x");
        spec.source.server_ref = Some(LocalRef { name: "old".to_owned() });
        spec.source.server.host = host.to_owned();
        spec
    }

    #[test]
    fn a_mailbox_that_made_an_attempt_keeps_its_host_and_all_others_with_it() {
        let syncs = existing(&[("alice", "old.example", 0), ("bob", "old.example", 1), ("carol", "other.example", 2)]);
        let mut pin = ServerPin::new(&syncs, "uid of acme");
        for (name, kept) in
            [("alice", "old.example"), ("bob", "old.example"), ("carol", "other.example"), ("dave", "old.example")]
        {
            let mut spec = wanted("new.example");
            pin.keep_servers(name, &mut spec);
            assert_eq!(spec.source.server.host, kept, "{name}");
        }
        insta::assert_snapshot!(pin.message().unwrap(), @"the MailServer old (spec.source.serverRef) names new.example port 993 now, and the migration began with old.example port 993. Its mailboxes stay where they began. Write the host and port back; for another server write a new MailMigration with another name");
    }

    #[test]
    fn before_the_first_attempt_and_after_another_migration_all_may_change() {
        let syncs = existing(&[("alice", "old.example", 0), ("bob", "old.example", 1)]);
        for (syncs, owner) in [(existing(&[("alice", "old.example", 0)]), "uid of acme"), (syncs, "another")] {
            let mut pin = ServerPin::new(&syncs, owner);
            let mut spec = wanted("new.example");
            pin.keep_servers("alice", &mut spec);
            assert_eq!((spec.source.server.host.as_str(), pin.message()), ("new.example", None));
        }
    }

    #[test]
    fn another_port_is_another_server_and_tls_and_limits_are_not() {
        let syncs = existing(&[("alice", "old.example", 1)]);
        let mut spec = wanted("OLD.example.");
        spec.source.server.tls.mode = TlsMode::StartTls;
        spec.source.server.limits.max_connections = Some(3);
        let mut kept = spec.clone();
        let mut pin = ServerPin::new(&syncs, "uid of acme");
        pin.keep_servers("alice", &mut kept);
        assert_eq!((kept, pin.message()), (spec.clone(), None));

        spec.source.server.port = Some(1143);
        let mut pin = ServerPin::new(&syncs, "uid of acme");
        pin.keep_servers("alice", &mut spec);
        let server = &spec.source.server;
        assert_eq!((server.port, server.limits.max_connections), (None, Some(3)));
        assert!(pin.message().unwrap().contains("port 1143 now"));
    }
}
