//! Which addresses may be connected to. A host name that a user writes may resolve to anything, and to something else the
//! next time: so each address is judged at each connect, after resolution, and that very address is connected to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{Error, Result};

/// Which addresses may be connected to. The default allows all: on a user's own machine nothing is gained by less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy(Option<Arc<AddressRules>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct AddressRules {
    denied: Vec<IpNet>,
    allowed: Vec<IpNet>,
    /// Nothing elsewhere, whatever the others say; empty: anywhere.
    within: Vec<IpNet>,
    /// Host names are looked up as they stand.
    absolute: bool,
}

impl AddressPolicy {
    /// No loopback, link-local, multicast, broadcast or unspecified address, nothing in `denied`; but all that is in
    /// `allowed`, which wins.
    #[must_use]
    pub(crate) fn guarded(denied: impl IntoIterator<Item = IpNet>, allowed: impl IntoIterator<Item = IpNet>) -> Self {
        Self(Some(Arc::new(AddressRules {
            denied: denied.into_iter().map(canonical).collect(),
            allowed: allowed.into_iter().map(canonical).collect(),
            within: Vec::new(),
            absolute: false,
        })))
    }

    /// The same, but only in these networks: an address must be permitted as before and be in one of them. None: no change.
    #[must_use]
    pub(crate) fn restricted_to(&self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        let within: Vec<_> = networks.into_iter().map(canonical).collect();
        if within.is_empty() { self.clone() } else { Self(Some(Arc::new(AddressRules { within, ..self.networks() }))) }
    }

    /// The same, and host names are looked up as they stand, never below a search domain (resolv.conf(5)): in a cluster
    /// `mail.newhost.example` may also be a Service `newhost` in a namespace `example`.
    #[must_use]
    pub(crate) fn absolute_names(&self) -> Self {
        Self(Some(Arc::new(AddressRules { absolute: true, ..self.networks() })))
    }

    /// What is looked up for a host, name or address.
    #[must_use]
    pub(crate) fn lookup_name(&self, host: &str) -> String {
        let is_address = host.parse::<IpAddr>().is_ok();
        let absolute = self.0.as_ref().is_some_and(|networks| networks.absolute) && !is_address && !host.ends_with('.');
        if absolute { format!("{host}.") } else { host.to_owned() }
    }

    fn networks(&self) -> AddressRules {
        self.0.as_ref().map_or_else(
            || AddressRules {
                denied: Vec::new(),
                allowed: vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
                within: Vec::new(),
                absolute: false,
            },
            |networks| (**networks).clone(),
        )
    }

    /// The same from lists of networks (`10.0.0.0/8`) or addresses, separated by commas; blanks count for nothing.
    ///
    /// # Errors
    /// Configuration, naming what is no network.
    pub(crate) fn parse(denied: &str, allowed: &str) -> Result<Self> {
        Ok(Self::guarded(networks(denied)?, networks(allowed)?))
    }

    /// True when this address may be connected to. An IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4,
    /// Teredo) is judged too: both must be allowed, unless `allowed` names the IPv6 address itself.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let Some(networks) = &self.0 else { return true };
        let address = address.to_canonical();
        if !networks.within.is_empty() && !networks.within.iter().any(|network| network.contains(&address)) {
            return false;
        }
        if networks.allow(address) {
            return true;
        }
        let inner = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => embedded(address),
        };
        networks.pass(address) && inner.is_none_or(|inner| networks.pass(IpAddr::V4(inner)))
    }
}

impl AddressRules {
    fn allow(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&address))
    }

    fn pass(&self, address: IpAddr) -> bool {
        self.allow(address) || !(is_special(address) || self.denied.iter().any(|network| network.contains(&address)))
    }
}

/// The error for a host with no address that may be connected to. The address is not named: whoever wrote the host may
/// not be meant to learn what it is inside the cluster.
#[must_use]
pub(crate) fn forbidden_address_error(host: &str) -> Error {
    Error::configuration(format!("the host {host} has only addresses that Mailferry may not connect to")).advice(
        "Give a host outside the cluster; if this one is meant, whoever runs Mailferry can allow its network \
         (addresses.allow, and for a source policy.allowedSourceAddresses, in the operator's configuration)",
    )
}

/// Networks (`10.0.0.0/8`) or addresses from a list, separated by commas; blanks count for nothing.
///
/// # Errors
/// Configuration, naming what is no network.
pub(crate) fn networks(list: &str) -> Result<Vec<IpNet>> {
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.parse().or_else(|_| part.parse::<IpAddr>().map(|a| IpNet::from(a.to_canonical()))).map_err(|_| {
                Error::configuration(format!("`{part}` is not a network"))
                    .advice("Write networks as address and prefix length, such as 10.96.0.0/12 or fd00::/8")
            })
        })
        .collect()
}

/// A network of IPv4-mapped addresses is one of IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    if let IpNet::V6(mapped) = network
        && let Some(address) = mapped.network().to_ipv4_mapped()
        && let Some(length) = mapped.prefix_len().checked_sub(96)
        && let Ok(network) = Ipv4Net::new(address, length)
    {
        return IpNet::V4(network);
    }
    network
}

fn is_special(address: IpAddr) -> bool {
    match address {
        // 0.0.0.0/8 is "this host on this network" (RFC 1122, section 3.2.1.3): Linux connects to itself.
        IpAddr::V4(a) => {
            a.is_loopback() || a.is_link_local() || a.is_multicast() || a.is_broadcast() || a.octets()[0] == 0
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unspecified() || a.is_multicast() || a.is_unicast_link_local(),
    }
}

/// The IPv4 address that packets to this one end up at, where there is one.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let o = address.octets();
    let last = Ipv4Addr::new(o[12], o[13], o[14], o[15]);
    match address.segments() {
        // NAT64 (RFC 6052, section 2.1), with a prefix of the network's own (RFC 8215) of 48 or of 96 bits.
        [0x64, 0xff9b, 1, high, low, 0, ..] if high != 0 || low != 0 => Some(Ipv4Addr::new(o[6], o[7], o[9], o[10])),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(last),
        // 6to4 (RFC 3056, section 2).
        [0x2002, ..] => Some(Ipv4Addr::new(o[2], o[3], o[4], o[5])),
        // Teredo (RFC 4380, section 4): the client's address, each bit inverted.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last.to_bits())),
        // IPv4-compatible (RFC 4291, section 2.5.5.1). `::` and `::1` are none.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permits(policy: &AddressPolicy, address: &str) -> bool {
        policy.permits(address.parse().unwrap())
    }

    #[test]
    fn without_a_policy_everything_is_allowed() {
        for address in ["127.0.0.1", "::1", "169.254.169.254", "8.8.8.8"] {
            assert!(permits(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn what_is_only_this_machine_or_this_link_is_refused_by_default_in_every_spelling() {
        let policy = AddressPolicy::guarded([], []);
        for address in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1:7f00:0:100::",
            "2001:0:102:304:0:0:80ff:fffe",
        ] {
            assert!(!permits(&policy, address), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1", "::ffff:192.0.2.1", "64:ff9b::c000:201"] {
            assert!(permits(&policy, address), "{address}");
        }
    }

    #[test]
    fn denied_networks_hold_for_every_spelling_and_exceptions_win() {
        let policy = AddressPolicy::parse("10.0.0.0/8, fd00::/8,192.0.2.7", "10.88.0.0/16,127.0.0.1").unwrap();
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::1", "192.0.2.7", "127.0.0.2"] {
            assert!(!permits(&policy, address), "{address}");
        }
        for address in ["10.88.0.1", "::ffff:10.88.0.1", "64:ff9b::a58:1", "192.0.2.8", "127.0.0.1"] {
            assert!(permits(&policy, address), "{address}");
        }
        let mapped = AddressPolicy::parse("::ffff:10.0.0.0/104", "").unwrap();
        assert!(!permits(&mapped, "10.1.2.3") && permits(&mapped, "11.1.2.3"));
        let translated = AddressPolicy::parse("10.0.0.0/8", "64:ff9b::/96").unwrap();
        assert!(permits(&translated, "64:ff9b::a01:203"));
    }

    #[test]
    fn within_networks_an_address_must_be_permitted_too() {
        let policy = AddressPolicy::parse("10.0.0.0/8", "10.88.0.0/16,127.0.0.1").unwrap();
        let narrowed = policy.restricted_to(networks("10.0.0.0/8,192.0.2.0/24,2001:db8::/32,169.254.0.0/16").unwrap());
        for address in ["10.88.0.1", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
            assert!(permits(&narrowed, address), "{address}");
        }
        // Denied; allowed, but elsewhere; elsewhere; wrapped into an address that is elsewhere; never.
        for address in ["10.1.2.3", "127.0.0.1", "198.51.100.1", "64:ff9b::c000:201", "169.254.169.254"] {
            assert!(!permits(&narrowed, address), "{address}");
        }
        assert_eq!(policy.restricted_to([]), policy);
        let of_all = AddressPolicy::default().restricted_to(networks("127.0.0.0/8,::1").unwrap());
        assert!(permits(&of_all, "127.0.0.1") && permits(&of_all, "::1") && !permits(&of_all, "192.0.2.1"));
        let mapped = AddressPolicy::default().restricted_to(networks("::ffff:192.0.2.0/120").unwrap());
        assert!(permits(&mapped, "192.0.2.1") && !permits(&mapped, "192.0.3.1"));
    }

    #[test]
    fn a_name_is_looked_up_as_it_stands_where_that_is_asked_for() {
        let policy = AddressPolicy::guarded([], []).absolute_names();
        for (host, looked_up) in [
            ("mail.example", "mail.example."),
            ("mail.example.", "mail.example."),
            ("mail", "mail."),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(policy.lookup_name(host), looked_up);
            assert_eq!(AddressPolicy::default().lookup_name(host), host);
        }
        assert!(!permits(&policy, "127.0.0.1") && permits(&policy, "192.0.2.1"));
        assert!(permits(&AddressPolicy::default().absolute_names(), "127.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in ["10.0.0.0/33", "host", "10.0.0/8"] {
            let error = AddressPolicy::parse(wrong, "").unwrap_err();
            assert_eq!(error.class, crate::ErrorClass::Configuration);
            assert!(error.what.contains(wrong), "{error}");
        }
        assert_eq!(AddressPolicy::parse(" , ", "").unwrap(), AddressPolicy::guarded([], []));
    }

    #[test]
    fn a_refusal_names_the_host_and_no_address() {
        assert!(
            forbidden_address_error("mail.example").to_string().contains("the host mail.example has only addresses")
        );
    }

    fn some_networks() -> impl Strategy<Value = Vec<IpNet>> {
        let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(a, length)| Ipv4Net::new(a.into(), length).unwrap().into());
        let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(a, l)| Ipv6Net::new(a.into(), l).unwrap().into());
        proptest::collection::vec(prop_oneof![v4, v6], 0..4)
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_however_it_is_wrapped(bits in any::<u32>(), denied in some_networks()) {
            // IPv6 networks may deny the wrapping itself.
            let denied = denied.into_iter().filter(|network| matches!(network, IpNet::V4(_)));
            let policy = AddressPolicy::guarded(denied, []);
            let plain = Ipv4Addr::from_bits(bits);
            let expected = policy.permits(plain.into());
            let [a, b, c, d] = plain.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            prop_assert_eq!(policy.permits(plain.to_ipv6_mapped().into()), expected);
            prop_assert_eq!(policy.permits(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into()), expected);
            prop_assert_eq!(policy.permits(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into()), expected);
        }

        #[test]
        fn what_is_allowed_is_permitted_and_what_is_denied_is_not(
            bits in any::<u128>(), denied in some_networks(), allowed in some_networks(),
        ) {
            let address = IpAddr::V6(bits.into()).to_canonical();
            let policy = AddressPolicy::guarded(denied.clone(), allowed.clone());
            if allowed.iter().any(|network| network.contains(&address)) {
                prop_assert!(policy.permits(address));
            } else if denied.iter().any(|network| network.contains(&address)) {
                prop_assert!(!policy.permits(address));
            }
        }

        #[test]
        fn to_be_within_networks_only_ever_takes_away(
            bits in any::<u128>(), denied in some_networks(), allowed in some_networks(), within in some_networks(),
        ) {
            let address = IpAddr::V6(bits.into());
            let policy = AddressPolicy::guarded(denied, allowed);
            let inside = within.is_empty() || within.iter().any(|network| network.contains(&address.to_canonical()));
            prop_assert_eq!(policy.restricted_to(within).permits(address), policy.permits(address) && inside);
        }
    }
}
