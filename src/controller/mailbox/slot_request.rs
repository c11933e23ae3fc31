//! What a mailbox's sync takes of what is shared: pure.

use crate::{
    api::{MailMigrationSpec, MailServerSpec, MailboxSyncSpec, SyncEndpoint, names},
    controller::{
        admission::{LimitedResource, SlotRequest},
        cache::NamespacedName,
        config::OperatorConfig,
    },
    host_name::HostName,
    start_limits::{ResourceNeeds, ResourceShare, connections_within},
};

/// Describes what the sync of a mailbox needs; `held`: the connections that it holds already.
#[must_use]
pub(crate) fn slot_request(
    uid: &str,
    (namespace, name): NamespacedName,
    spec: &MailboxSyncSpec,
    migration: Option<&MailMigrationSpec>,
    config: &OperatorConfig,
    held: Option<i32>,
) -> SlotRequest {
    let sides = [&spec.source, &spec.destination];
    let wanted = usize::try_from(held.unwrap_or(spec.settings.connections)).unwrap_or(1).max(1);
    let slots = if held.is_some() {
        wanted
    } else {
        let same_server = server_address(&sides[0].server) == server_address(&sides[1].server);
        let limits = sides.iter().filter_map(|side| connection_limit(side, config));
        connections_within(wanted, limits, same_server).max(1)
    };
    let one = |limit| ResourceShare { units: 1, limit, starts_per_minute: None };
    let mut needs = ResourceNeeds::new();
    needs.insert(LimitedResource::Operator, one(Some(usize::try_from(config.max_syncs).unwrap_or(usize::MAX))));
    let parallelism = migration.map(|migration| usize::try_from(migration.parallelism).unwrap_or(1));
    let migration = (namespace.clone(), spec.migration.clone());
    needs.insert(LimitedResource::Migration(migration.clone()), one(parallelism));
    needs.insert(LimitedResource::Account(names::account_hash(&spec.destination)), one(Some(1)));
    for side in sides {
        let cluster = config.host_limit(&side.server.host, side.server.effective_port());
        let host = ResourceShare {
            units: slots,
            limit: cluster.max_connections,
            starts_per_minute: cluster.starts_per_minute,
        };
        add_share(&mut needs, LimitedResource::Host(server_address(&side.server)), host);
        let own = &side.server.limits;
        let server = ResourceShare {
            units: slots,
            limit: own.max_connections.and_then(|limit| usize::try_from(limit).ok()),
            starts_per_minute: own.starts_per_minute.and_then(|limit| usize::try_from(limit).ok()),
        };
        // Without a limit too: a MailServer's status tells how many there are.
        add_share(&mut needs, LimitedResource::Server(namespace.clone(), server_address(&side.server)), server);
    }
    SlotRequest { uid: uid.to_owned(), namespace, name, migration, slots: i32::try_from(slots).unwrap_or(1), needs }
}

/// A server, as limits know it.
#[must_use]
pub(crate) fn server_address(server: &MailServerSpec) -> String {
    format!("{}:{}", HostName::new(&server.host), server.effective_port())
}

fn add_share(needs: &mut ResourceNeeds<LimitedResource>, resource: LimitedResource, share: ResourceShare) {
    needs.entry(resource).and_modify(|there| there.units += share.units).or_insert(share);
}

/// The most connections to a server.
fn connection_limit(side: &SyncEndpoint, config: &OperatorConfig) -> Option<usize> {
    let cluster = config.host_limit(&side.server.host, side.server.effective_port()).max_connections;
    let own = side.server.limits.max_connections.and_then(|limit| usize::try_from(limit).ok());
    cluster.into_iter().chain(own).min()
}
