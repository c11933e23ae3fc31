//! The slots that a mailbox's sync asks for, by all limits that count for it. Pure.

use kube::ResourceExt as _;

use crate::{
    api::{MailMigrationSpec, MailServerSpec, MailboxSync, names},
    controller::{
        admission::{LimitedResource, SlotRequest},
        config::OperatorConfig,
    },
    error::Error,
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
        let limits = sides.iter().filter_map(|side| connection_limit(&side.server, config));
        connections_within(wanted, limits, same_server).max(1)
    };
    let one = |limit| ResourceShare { units: 1, limit, starts_per_minute: None };
    let mut needs = ResourceNeeds::new();
    needs.insert(LimitedResource::Operator, one(Some(usize::try_from(config.max_syncs).unwrap_or(usize::MAX))));
    let of_namespace = config.namespace_max_syncs(&namespace);
    if of_namespace.is_some() {
        needs.insert(LimitedResource::Namespace(namespace.clone()), one(of_namespace));
    }
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

/// Why no sync between these servers could ever start, where their limits are too low for one connection to each side.
#[must_use]
pub(crate) fn too_few_connections(sides: [&MailServerSpec; 2], config: &OperatorConfig) -> Option<Error> {
    let same_server = server_address(sides[0]) == server_address(sides[1]);
    let limits = sides.into_iter().filter_map(|side| Some((connection_limit(side, config)?, side)));
    let (limit, server) = limits.min_by_key(|(limit, _)| *limit)?;
    if connections_within(1, [limit], same_server) > 0 {
        return None;
    }
    let needed = 1 + usize::from(same_server);
    let address = server_address(server);
    let what = if same_server {
        format!("source and destination are both {address}, whose limit of connections is {limit}: a sync needs 2")
    } else {
        format!("the limit of connections to {address} is {limit}: a sync needs 1")
    };
    let own = server.limits.max_connections.and_then(|own| usize::try_from(own).ok()) == Some(limit);
    let advice = if own {
        format!("Raise limits.maxConnections of the server to {needed} at least")
    } else {
        "Ask whoever runs the operator to raise hostLimits".to_owned()
    };
    Some(Error::configuration(what).advice(advice))
}

/// The server's host and port, by which limits are counted.
#[must_use]
pub(crate) fn server_address(server: &MailServerSpec) -> String {
    format!("{}:{}", HostName::new(&server.host), server.effective_port())
}

fn add_share(needs: &mut ResourceNeeds<LimitedResource>, resource: LimitedResource, share: ResourceShare) {
    let lower = |a: Option<usize>, b: Option<usize>| a.into_iter().chain(b).min();
    let both = |there: &mut ResourceShare| {
        // Two MailServers may name one host, with limits of their own.
        there.units += share.units;
        there.limit = lower(there.limit, share.limit);
        there.starts_per_minute = lower(there.starts_per_minute, share.starts_per_minute);
    };
    needs.entry(resource).and_modify(both).or_insert(share);
}

/// The most connections that one mailbox may get to a server, by the lower of the operator's and the MailServer's limit.
fn connection_limit(server: &MailServerSpec, config: &OperatorConfig) -> Option<usize> {
    let cluster = config.host_limit(&server.host, server.effective_port()).max_connections;
    let own = server.limits.max_connections.and_then(|limit| usize::try_from(limit).ok());
    cluster.into_iter().chain(own).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{config::HostLimit, testing};

    fn server(host: &str, most: Option<i32>) -> MailServerSpec {
        let mut server = MailServerSpec { host: host.to_owned(), ..MailServerSpec::default() };
        server.limits.max_connections = most;
        server
    }

    fn refusal(source: &MailServerSpec, destination: &MailServerSpec, config: &OperatorConfig) -> String {
        let error = too_few_connections([source, destination], config);
        error.map_or_else(String::new, |error| format!("{}. {}", error.what, error.advice.unwrap_or_default()))
    }

    #[test]
    fn one_connection_to_a_server_that_stands_on_both_sides_is_too_few_and_said_so() {
        let (config, none) = (OperatorConfig::default(), "");
        let one = server("mail.example", Some(1));
        assert_eq!(refusal(&one, &server("other.example", Some(1)), &config), none);
        assert_eq!(refusal(&server("mail.example", Some(2)), &server("mail.example", None), &config), none);
        let expected = "source and destination are both mail.example:993, whose limit of connections is 1: a sync needs 2. \
                        Raise limits.maxConnections of the server to 2 at least";
        assert_eq!(refusal(&server("MAIL.example", None), &one, &config), expected);
        let limit = HostLimit { max_connections: Some(1), starts_per_minute: None };
        let spared = OperatorConfig { host_limits: [("mail.example".to_owned(), limit)].into(), ..config };
        let said = refusal(&server("mail.example", None), &server("mail.example", None), &spared);
        assert!(said.ends_with("hostLimits"), "{said}");
    }

    #[test]
    fn of_two_servers_with_one_host_the_lower_limit_counts() {
        let sync = |source, destination| {
            let mut sync = testing::mailbox_sync(&testing::migration("m"), "a");
            sync.spec.source.server = server("mail.example", source).into();
            sync.spec.destination.server = server("mail.example", destination).into();
            sync
        };
        for (source, destination) in [(Some(9), Some(4)), (Some(4), Some(9)), (Some(4), None), (None, Some(4))] {
            let request = slot_request(&sync(source, destination), None, &OperatorConfig::default(), None);
            let share = request.needs[&LimitedResource::Server("ns".to_owned(), "mail.example:993".to_owned())];
            assert_eq!((share.units, share.limit), (4, Some(4)), "{source:?} {destination:?}");
        }
    }
}
