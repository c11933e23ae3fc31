//! Where mail servers may be, as far as is known now: what whoever runs the cluster wrote, and what the cluster itself
//! tells of its networks, read now and then.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Node, networking::v1::ServiceCIDR};
use kube::{Api, Client, Error, api::ListParams};
use tokio::{sync::watch, time::sleep};

use super::{cluster_networks::ClusterNetworks, config};
use crate::imap::AddressPolicy;

/// From one look at the cluster to the next.
const PERIOD: Duration = Duration::from_mins(5);
/// From a look that failed, when nothing is known yet, to the next: twice as long each time, at most [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(30);
/// Refusals in a row, within some seconds, after which no right is waited for.
const MOST_REFUSALS: u32 = 6;
/// Nodes in one answer: with all the images that they tell of, they are large.
const PAGE: u32 = 50;

/// Where mail servers may be; shared by all who connect.
#[derive(Debug)]
pub struct AddressGuard {
    config: config::AddressConfig,
    policy: config::TenantPolicy,
    api_service: Option<IpAddr>,
    known: watch::Sender<KnownNetworks>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct KnownNetworks {
    /// Nothing before the first look.
    networks: Option<ClusterNetworks>,
    /// The API server has `ServiceCIDRs`; nothing before the first look.
    service_ranges: Option<bool>,
    policy: AddressPolicy,
    pods: PodAddresses,
}

/// What goes into sync pods: networks, by comma.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodAddresses {
    /// Those that are denied, sorted.
    pub deny: String,
    /// Those that are allowed although denied.
    pub allow: String,
    /// Those that sources must be in besides; empty: anywhere.
    pub sources: String,
    /// Destinations are judged by name: the one that was must not become another, in the MailboxSync or by a search domain.
    pub one_destination: bool,
}

/// Why a look at the cluster's networks failed.
#[derive(Debug, thiserror::Error)]
#[error("{resource} can't be listed: {source}")]
pub struct NetworkReadError {
    resource: &'static str,
    #[source]
    source: Box<Error>,
}

impl NetworkReadError {
    /// True when the API server says that the operator may not.
    fn is_refusal(&self) -> bool {
        matches!(&*self.source, Error::Api(answer) if answer.code == 403)
    }
}

impl AddressGuard {
    /// Nothing is known of the cluster yet but the address of the API server's Service. What `policy`
    /// says besides concerns sync pods.
    #[must_use]
    pub fn new(config: config::AddressConfig, policy: config::TenantPolicy, api_service: Option<IpAddr>) -> Self {
        let api_service = api_service.filter(|_| config.detect_cluster);
        let guard = Self { config, policy, api_service, known: watch::Sender::default() };
        let mut networks = ClusterNetworks::default();
        networks.ranges.extend(api_service.map(IpNet::from));
        let known = guard.known_networks(&networks);
        guard.known.send_replace(known);
        guard
    }

    /// Which addresses may be connected to; of sources, which ones besides, only pods ask.
    #[must_use]
    pub fn policy(&self) -> AddressPolicy {
        self.known.borrow().policy.clone()
    }

    /// The same for sync pods.
    #[must_use]
    pub(crate) fn pod_addresses(&self) -> PodAddresses {
        self.known.borrow().pods.clone()
    }

    fn known_networks(&self, networks: &ClusterNetworks) -> KnownNetworks {
        let denied = self.config.deny.iter().copied().chain(networks.all());
        let policy = AddressPolicy::guarded(denied, self.config.allow.iter().copied());
        let (deny, left_out) = networks.merge_for_pods(&self.config.deny);
        if left_out > 0 {
            tracing::warn!(
                networks = deny.len(),
                left_out,
                "the cluster has more networks than sync pods are told of; they are not told of some nodes' own \
                 addresses: write the nodes' subnets into addresses.deny"
            );
        }
        let list = |networks: &[IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let pods = PodAddresses {
            deny: list(&deny),
            allow: list(&self.config.allow),
            sources: list(&self.policy.allowed_source_addresses),
            one_destination: !self.policy.allowed_destinations.is_empty(),
        };
        KnownNetworks { networks: None, service_ranges: None, policy, pods }
    }

    /// Looks at the cluster's networks until that has worked once: before it has, nothing may be connected to.
    ///
    /// # Errors
    /// Configuration, when the operator has no right to, which may come a moment after the operator itself.
    pub(crate) async fn wait_until_known(&self, client: &Client) -> Result<(), crate::error::Error> {
        let mut wait = FIRST_WAIT;
        let mut told = false;
        let mut refusals = 0;
        while let Err(error) = self.refresh(client).await {
            refusals = if error.is_refusal() { refusals + 1 } else { 0 };
            if refusals >= MOST_REFUSALS {
                return Err(crate::error::Error::configuration(error.to_string()).advice(
                    "addresses.detectCluster needs the right to list Nodes and ServiceCIDRs (a ClusterRole): give it to the \
                     operator, or set detectCluster to false and write the cluster's own networks into addresses.deny",
                ));
            }
            if !std::mem::replace(&mut told, true) {
                tracing::error!(
                    %error,
                    "the cluster's own networks are not known, and nothing starts before they are; let the operator list \
                     them, or set addresses.detectCluster to false and write them into addresses.deny"
                );
            }
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(LAST_WAIT);
        }
        Ok(())
    }

    /// Looks at the cluster's networks every few minutes, for ever; where that fails, what was known holds.
    pub(crate) async fn refresh_periodically(self: Arc<Self>, client: Client) {
        let mut failed = false;
        loop {
            sleep(PERIOD).await;
            match self.refresh(&client).await {
                Ok(()) => failed = false,
                Err(error) if !std::mem::replace(&mut failed, true) => {
                    tracing::warn!(%error, "the cluster's own networks were not read again; those known before hold");
                }
                Err(_) => {}
            }
        }
    }

    /// Looks at the cluster's networks.
    ///
    /// # Errors
    /// When they can't be read: what was known holds.
    pub async fn refresh(&self, client: &Client) -> Result<(), NetworkReadError> {
        if !self.config.detect_cluster {
            return Ok(());
        }
        let mut networks = ClusterNetworks::default();
        if let Some(address) = self.api_service {
            networks.add_service(address);
        }
        let services: Api<ServiceCIDR> = Api::all(client.clone());
        let service_ranges = match services.list(&ListParams::default()).await {
            Ok(found) => {
                found.iter().for_each(|services| networks.add_services(services));
                true
            }
            Err(Error::Api(answer)) if answer.code == 404 => false,
            Err(error) => return Err(read_error("ServiceCIDRs", error)),
        };
        let nodes: Api<Node> = Api::all(client.clone());
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let found = nodes.list(&page).await.map_err(|error| read_error("Nodes", error))?;
            found.iter().for_each(|node| networks.add_node(node));
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
                None => break,
            }
        }
        self.store_networks(networks, service_ranges);
        Ok(())
    }

    fn store_networks(&self, networks: ClusterNetworks, service_ranges: bool) {
        let (before, had_service_ranges) = {
            let known = self.known.borrow();
            (known.networks.clone(), known.service_ranges)
        };
        if !service_ranges && had_service_ranges != Some(false) {
            tracing::warn!(
                "this Kubernetes has no ServiceCIDRs, so the Services' addresses are not known: write them into \
                 addresses.deny"
            );
        }
        if before.as_ref() == Some(&networks) && had_service_ranges == Some(service_ranges) {
            return;
        }
        tracing::info!(
            ranges = networks.ranges.len(),
            nodes = networks.hosts.len(),
            "the cluster's own networks are not connected to"
        );
        let known = self.known_networks(&networks);
        self.known.send_replace(KnownNetworks {
            networks: Some(networks),
            service_ranges: Some(service_ranges),
            ..known
        });
    }
}

fn read_error(resource: &'static str, source: Error) -> NetworkReadError {
    NetworkReadError { resource, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(detect_cluster: bool) -> AddressGuard {
        let networks = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
        let config = config::AddressConfig {
            allow: networks(&["10.96.7.7/32"]),
            deny: networks(&["192.0.2.0/24"]),
            detect_cluster,
        };
        let sources = networks(&["198.51.100.0/24", "2001:db8::/32"]);
        let policy = config::TenantPolicy { allowed_source_addresses: sources, ..config::TenantPolicy::default() };
        AddressGuard::new(config, policy, Some("10.96.0.1".parse().unwrap()))
    }

    fn permits(guard: &AddressGuard, address: &str) -> bool {
        guard.policy().permits(address.parse().unwrap())
    }

    fn services() -> ClusterNetworks {
        ClusterNetworks { ranges: ["10.96.0.0/16".parse().unwrap()].into(), ..ClusterNetworks::default() }
    }

    #[test]
    fn before_the_first_look_the_api_servers_service_is_denied_and_what_was_written() {
        let guard = guard(true);
        assert!(!permits(&guard, "10.96.0.1") && !permits(&guard, "192.0.2.1") && !permits(&guard, "127.0.0.1"));
        assert!(permits(&guard, "10.96.0.2"));
        assert_eq!(
            guard.pod_addresses(),
            PodAddresses {
                deny: "10.96.0.1/32,192.0.2.0/24".into(),
                allow: "10.96.7.7/32".into(),
                sources: "198.51.100.0/24,2001:db8::/32".into(),
                one_destination: false,
            }
        );
    }

    #[test]
    fn what_is_learnt_holds_for_all_and_exceptions_win() {
        let guard = guard(true);
        guard.store_networks(services(), true);
        assert!(!permits(&guard, "10.96.0.2") && !permits(&guard, "192.0.2.1"));
        assert!(permits(&guard, "10.96.7.7"));
        assert_eq!(guard.pod_addresses().deny, "10.96.0.0/16,192.0.2.0/24");
        guard.store_networks(ClusterNetworks::default(), true);
        assert!(permits(&guard, "10.96.0.2"), "a range that the cluster gave up is no longer its own");
    }

    #[test]
    fn who_does_not_want_it_gets_only_what_was_written() {
        let guard = guard(false);
        assert!(permits(&guard, "10.96.0.1") && !permits(&guard, "192.0.2.1") && !permits(&guard, "127.0.0.1"));
        assert_eq!(guard.pod_addresses().deny, "192.0.2.0/24");
    }
}
