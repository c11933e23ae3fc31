//! Which networks are the cluster's own, as far as the cluster tells: pure.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Node, networking::v1::ServiceCIDR};

/// The most networks in a sync pod's environment: what is more makes pods large, with hundreds of them at one time.
pub(crate) const MAX_POD_NETWORKS: usize = 200;

/// The cluster's own networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClusterNetworks {
    /// Addresses of pods and Services.
    pub ranges: BTreeSet<IpNet>,
    /// The nodes' own addresses, each as a network of one.
    pub hosts: BTreeSet<IpNet>,
}

impl ClusterNetworks {
    /// Adds the addresses of a node's pods, and the node's own. What is no address is left out.
    pub(crate) fn add_node(&mut self, node: &Node) {
        let ranges = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
        self.ranges.extend(ranges.filter_map(|range| parse_network(range)));
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let own = addresses.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"));
        self.hosts.extend(own.filter_map(|own| own.address.parse().ok()).map(host_network));
    }

    /// Adds addresses of Services.
    pub(crate) fn add_services(&mut self, services: &ServiceCIDR) {
        let ranges = services.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        self.ranges.extend(ranges.filter_map(|range| parse_network(range)));
    }

    /// Adds the API server's Service.
    pub(crate) fn add_service(&mut self, address: IpAddr) {
        self.ranges.insert(host_network(address));
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = IpNet> {
        self.ranges.iter().chain(&self.hosts).copied()
    }

    /// What sync pods are told to deny, with what was `denied` before: sorted, and merged where networks meet, so that it
    /// stays short and the same. Where it is still more than [`MAX_POD_NETWORKS`], the nodes' own addresses are left out as
    /// far as no other network holds them; how many.
    #[must_use]
    pub(crate) fn merge_for_pods(&self, denied: &[IpNet]) -> (Vec<IpNet>, usize) {
        let merged = |hosts: &BTreeSet<IpNet>| {
            let all = denied.iter().chain(&self.ranges).chain(hosts);
            IpNet::aggregate(&all.map(IpNet::trunc).collect())
        };
        let networks = merged(&self.hosts);
        if networks.len() <= MAX_POD_NETWORKS || self.hosts.is_empty() {
            return (networks, 0);
        }
        let networks = merged(&BTreeSet::new());
        let held = |host: &&IpNet| !networks.iter().any(|network| network.contains(*host));
        let left_out = self.hosts.iter().filter(held).count();
        (networks, left_out)
    }
}

fn parse_network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|network| network.trunc())
}

fn host_network(address: IpAddr) -> IpNet {
    address.to_canonical().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(pods: &[&str], addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        serde_json::from_value(json!({"spec": {"podCIDRs": pods}, "status": {"addresses": addresses}})).unwrap()
    }

    fn text(networks: impl IntoIterator<Item = IpNet>) -> Vec<String> {
        networks.into_iter().map(|network| network.to_string()).collect()
    }

    #[test]
    fn pods_services_and_nodes_are_the_clusters_own() {
        let mut networks = ClusterNetworks::default();
        let addresses = [
            ("InternalIP", "192.0.2.7"),
            ("ExternalIP", "2001:db8::7"),
            ("InternalIP", "::ffff:192.0.2.8"),
            ("Hostname", "192.0.2.99"),
            ("InternalDNS", "node.example"),
        ];
        networks.add_node(&node(&["10.88.1.7/24", "fd00:88:1::/64"], &addresses));
        let services = json!({"spec": {"cidrs": ["10.96.0.0/12", "fd00:96::/112"]}});
        networks.add_services(&serde_json::from_value(services).unwrap());
        networks.add_service("10.200.0.1".parse().unwrap());
        assert_eq!(
            text(networks.ranges.clone()),
            ["10.88.1.0/24", "10.96.0.0/12", "10.200.0.1/32", "fd00:88:1::/64", "fd00:96::/112"]
        );
        assert_eq!(text(networks.hosts.clone()), ["192.0.2.7/32", "192.0.2.8/32", "2001:db8::7/128"]);
        assert_eq!(networks.all().count(), 8);
    }

    #[test]
    fn a_node_that_tells_nothing_and_what_is_no_network_add_nothing() {
        let mut networks = ClusterNetworks::default();
        networks.add_node(&Node::default());
        networks.add_node(&node(&["", "10.0.0.0/33", "pods"], &[("InternalIP", ""), ("ExternalIP", "host.example")]));
        networks.add_services(&ServiceCIDR::default());
        assert_eq!(networks, ClusterNetworks::default());
        assert_eq!(networks.merge_for_pods(&[]), (Vec::new(), 0));
    }

    #[test]
    fn the_pods_of_a_thousand_nodes_are_few_networks_in_order() {
        let mut networks = ClusterNetworks::default();
        for number in 0..1000 {
            let pods = format!("10.{}.{}.0/24", 100 + number / 256, number % 256);
            let own = format!("10.50.{}.{}", number / 256, number % 256);
            networks.add_node(&node(&[&pods], &[("InternalIP", &own)]));
        }
        let denied = ["10.103.232.0/21".parse().unwrap(), "10.96.0.5/12".parse().unwrap()];
        let (merged, left_out) = networks.merge_for_pods(&denied);
        let expected = [
            "10.50.0.0/23",
            "10.50.2.0/24",
            "10.50.3.0/25",
            "10.50.3.128/26",
            "10.50.3.192/27",
            "10.50.3.224/29",
            "10.96.0.0/12",
        ];
        assert_eq!((text(merged), left_out), (expected.map(str::to_owned).to_vec(), 0));
    }

    #[test]
    fn nodes_own_addresses_are_left_out_first_where_there_are_too_many() {
        let mut networks = ClusterNetworks::default();
        for number in 0..200 {
            // None next to another.
            let (pods, own) = (format!("10.{number}.0.0/24"), format!("192.0.2.{}", 2 * (number % 100)));
            networks.add_node(&node(&[&pods], &[("InternalIP", &own), ("ExternalIP", &format!("10.{number}.0.1"))]));
        }
        let (merged, left_out) = networks.merge_for_pods(&[]);
        assert_eq!((merged.len(), left_out), (200, 100));
        assert!(merged.iter().all(|network| network.prefix_len() == 24), "{merged:?}");
        // Their common network, named by whoever runs the cluster, holds them all.
        let (merged, left_out) = networks.merge_for_pods(&["192.0.2.0/24".parse().unwrap()]);
        assert_eq!((merged.len(), left_out), (201, 0));
    }
}
