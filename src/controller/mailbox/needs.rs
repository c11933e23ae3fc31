//! What a mailbox's sync takes of what is shared: pure.

use std::collections::BTreeMap;

use crate::{
    api::{MailMigrationSpec, MailServerSpec, MailboxSyncSpec, SyncEndpoint, names},
    controller::{
        admission::{Request, Resource, Share},
        cache::Place,
        config::OperatorConfig,
    },
};

/// Describes what the sync of a mailbox needs; `held`: the connections that it holds already.
#[must_use]
pub(crate) fn request(
    uid: &str,
    (namespace, name): Place,
    spec: &MailboxSyncSpec,
    migration: Option<&MailMigrationSpec>,
    config: &OperatorConfig,
    held: Option<i32>,
) -> Request {
    let sides = [&spec.source, &spec.destination];
    let least = |most: usize, side: &&SyncEndpoint| limit(side, config).map_or(most, |limit| most.min(limit));
    let wanted = usize::try_from(held.unwrap_or(spec.settings.connections)).unwrap_or(1).max(1);
    // A host that stands on both sides is connected to twice as often.
    let same = address(&sides[0].server) == address(&sides[1].server);
    let slots = match held {
        Some(_) => wanted,
        None => (sides.iter().fold(wanted * (1 + usize::from(same)), least) / (1 + usize::from(same))).max(1),
    };
    let one = |limit| Share { units: 1, limit, starts_per_minute: None };
    let mut needs = BTreeMap::new();
    needs.insert(Resource::Operator, one(Some(usize::try_from(config.max_syncs).unwrap_or(usize::MAX))));
    let parallelism = migration.map(|migration| usize::try_from(migration.parallelism).unwrap_or(1));
    let migration = (namespace.clone(), spec.migration.clone());
    needs.insert(Resource::Migration(migration.clone()), one(parallelism));
    needs.insert(Resource::Account(names::account(&spec.destination)), one(Some(1)));
    for side in sides {
        let cluster = config.host_limit(&side.server.host, side.server.effective_port());
        let host = Share { units: slots, limit: cluster.max_connections, starts_per_minute: cluster.starts_per_minute };
        add(&mut needs, Resource::Host(address(&side.server)), host);
        let own = &side.server.limits;
        let server = Share {
            units: slots,
            limit: own.max_connections.and_then(|limit| usize::try_from(limit).ok()),
            starts_per_minute: own.starts_per_minute.and_then(|limit| usize::try_from(limit).ok()),
        };
        // Without a limit too: a MailServer's status tells how many there are.
        add(&mut needs, Resource::Server(namespace.clone(), address(&side.server)), server);
    }
    Request { uid: uid.to_owned(), namespace, name, migration, slots: i32::try_from(slots).unwrap_or(1), needs }
}

/// A server, as limits know it.
#[must_use]
pub(crate) fn address(server: &MailServerSpec) -> String {
    let host = server.host.trim_end_matches('.').to_ascii_lowercase();
    format!("{host}:{}", server.effective_port())
}

fn add(needs: &mut BTreeMap<Resource, Share>, resource: Resource, share: Share) {
    needs.entry(resource).and_modify(|there| there.units += share.units).or_insert(share);
}

/// The most connections to a server.
fn limit(side: &SyncEndpoint, config: &OperatorConfig) -> Option<usize> {
    let cluster = config.host_limit(&side.server.host, side.server.effective_port()).max_connections;
    let own = side.server.limits.max_connections.and_then(|limit| usize::try_from(limit).ok());
    cluster.into_iter().chain(own).min()
}
