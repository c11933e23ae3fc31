//! The slots that a mailbox's sync asks for, by all limits that count for it. Pure.

use kube::ResourceExt as _;

use crate::{
    api::{MailMigrationSpec, MailServerSpec, MailboxSync, SyncEndpoint, names},
    controller::{
        admission::{LimitedResource, SlotRequest},
        config::OperatorConfig,
    },
    host_name::HostName,
    start_limits::{ResourceNeeds, ResourceShare, connections_within},
};

/// The request of a mailbox for slots: one connection to each side for each, of all that limits them. `migration` is its
/// migration's spec, if that is there; `held`: the slots that it holds already, which count as they are.
#[must_use]
pub(crate) fn slot_request(
    sync: &MailboxSync,
    migration: Option<&MailMigrationSpec>,
    config: &OperatorConfig,
    held: Option<i32>,
) -> SlotRequest {
    let spec = &sync.spec;
    let namespace = sync.namespace().unwrap_or_default();
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
    SlotRequest {
        uid: sync.uid().unwrap_or_default(),
        name: sync.name_any(),
        migration,
        slots: i32::try_from(slots).unwrap_or(1),
        needs,
    }
}

/// The server's host and port, by which limits are counted.
#[must_use]
pub(crate) fn server_address(server: &MailServerSpec) -> String {
    format!("{}:{}", HostName::new(&server.host), server.effective_port())
}

fn add_share(needs: &mut ResourceNeeds<LimitedResource>, resource: LimitedResource, share: ResourceShare) {
    needs.entry(resource).and_modify(|there| there.units += share.units).or_insert(share);
}

/// The most connections that one mailbox may get to a server, by the lower of the operator's and the MailServer's limit.
fn connection_limit(side: &SyncEndpoint, config: &OperatorConfig) -> Option<usize> {
    let cluster = config.host_limit(&side.server.host, side.server.effective_port()).max_connections;
    let own = side.server.limits.max_connections.and_then(|limit| usize::try_from(limit).ok());
    cluster.into_iter().chain(own).min()
}
