//! Findings about the host: sysctls, and other network managers. What the kernel does with two values differs from one sysctl
//! to the next: the larger of link and `all` counts for `rp_filter` and `arp_ignore`, either for `arp_filter` and
//! `ignore_routes_with_linkdown`, the link's own for IPv4 forwarding, and that of `all` alone for IPv6.

use std::collections::BTreeMap;

use super::{Engine, count, for_each, listed, quoted, set_sysctl};
use crate::engine::report::{Finding, Pitfall, PortReport};
use crate::model::{Family, HostFacts, IfIndex, IfName, LinkFacts, LinkSysctls, Reason};

/// Routes on one next hop whose notifications keep the kernel's lock for about a tenth of a second
/// (docs/evidence.md, "Next-hop objects").
const LARGE: usize = 100_000;
/// `rp_filter` of strict checking.
const STRICT: u8 = 1;

impl Engine {
    /// `ports` have said already what concerns them as such.
    pub(super) fn host_findings(&self, host: &HostFacts, ports: &[PortReport]) -> Vec<Finding> {
        let in_use = self.links_in_use();
        let said = |dev: IfIndex, reason| {
            let mut ports = ports.iter();
            ports.any(|port| port.ifindex == dev && port.reasons.contains(&reason))
        };
        let mut findings = self.forwarding(host, |dev| said(dev, Reason::NotForwarding));
        findings.extend(self.rp_filter(host, &in_use, |dev| said(dev, Reason::StrictRpFilter)));
        findings.extend(self.arp_settings(host, &in_use));
        findings.extend(self.linkdown_routes(host, &in_use));
        for dev in in_use
            .keys()
            .filter(|dev| !said(**dev, Reason::PortEnslaved))
        {
            let link = self.view.link(*dev);
            let master = link.and_then(|link| Some((link, self.view.link(link.master?)?)));
            if let Some((link, master)) = master.filter(|(_, master)| master.vrf_table.is_none()) {
                findings.push(enslaved(&link.name, master.kind.as_deref(), &master.name));
            }
        }
        self.managers(host, &mut findings);
        if host.nexthop_compat_mode == Some(1) && self.use_objects && self.slots.len() >= LARGE {
            findings.push(Pitfall::CompatMode.found(
                format!(
                    "{} and net.ipv4.nexthop_compat_mode = 1: when a next hop changes, the kernel tells every listener each route \
                     of it, and holds its lock meanwhile",
                    count(self.slots.len() as u64, "route")
                ),
                "sysctl -w net.ipv4.nexthop_compat_mode=0".to_owned(),
            ));
        }
        let wanted = self.config.kernel.multipath_hash;
        let other = |is: &Option<u8>| is.is_some() && *is != wanted.policy();
        if wanted.policy().is_some() && host.multipath_hash.iter().any(other) {
            findings.push(Pitfall::MultipathHash.found(
                format!(
                    "kernel.multipath_hash = \"{}\", and net.ipv4/ipv6.fib_multipath_hash_policy is another: somebody has set it",
                    wanted.name()
                ),
                "frr-offload resync".to_owned(),
            ));
        }
        if in_use.values().any(|makeshift| *makeshift) && !self.view.has_ipv4_source() {
            findings.push(Pitfall::NoIpv4Address.found(
                "no link has an IPv4 address: the router's own IPv4 packets have no source, and its ICMP errors come from 192.0.0.8",
                "ip address add ADDRESS/32 dev lo".to_owned(),
            ));
        }
        findings
    }

    /// The links among these of which something holds, by name.
    fn names_where(
        &self,
        links: &BTreeMap<IfIndex, bool>,
        holds: impl Fn(IfIndex, bool) -> bool,
    ) -> Vec<IfName> {
        let links = links
            .iter()
            .filter(|(dev, makeshift)| holds(**dev, **makeshift));
        links.map(|(dev, _)| self.view.name_of(*dev)).collect()
    }

    /// One line where a family that there are routes of is forwarded nowhere, else the links.
    fn forwarding(&self, host: &HostFacts, said: impl Fn(IfIndex) -> bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let said_of_all = host.links.keys().all(|dev| said(*dev));
        if host.forwarding6 == Some(0) && !said_of_all && self.has_routes(Family::V6) {
            findings.push(Pitfall::NotForwarding.found(
                "the kernel does not forward IPv6 packets (once it does, links with accept_ra=1 take no router advertisements; \
                 accept_ra=2 does)",
                "sysctl -w net.ipv6.conf.all.forwarding=1".to_owned(),
            ));
        }
        if !self.has_routes(Family::V4) {
            return findings;
        }
        let off = |dev: &IfIndex| host.links[dev].sysctls.forwarding == Some(0);
        let names = host.links.keys().filter(|dev| off(dev) && !said(**dev));
        let names: Vec<_> = names.map(|dev| self.view.name_of(*dev)).collect();
        if names.is_empty() {
            return findings;
        }
        let nowhere = host.all.forwarding == Some(0) && host.links.keys().all(off);
        findings.push(if nowhere {
            Pitfall::NotForwarding.found(
                "the kernel does not forward IPv4 packets",
                "sysctl -w net.ipv4.ip_forward=1".to_owned(),
            )
        } else {
            Pitfall::NotForwarding.found(
                format!(
                    "{}: the kernel does not forward IPv4 packets that come in there",
                    listed(&names)
                ),
                set_sysctl(&names, "forwarding", 1),
            )
        });
        findings
    }

    fn rp_filter(
        &self,
        host: &HostFacts,
        in_use: &BTreeMap<IfIndex, bool>,
        said: impl Fn(IfIndex) -> bool,
    ) -> Option<Finding> {
        let strict = |dev| counts(host, dev, |of| of.rp_filter) == Some(STRICT) && !said(dev);
        let names = self.names_where(in_use, |dev, _| strict(dev));
        (!names.is_empty()).then(|| {
            Pitfall::StrictRpFilter.found(
                format!(
                    "{}: rp_filter is strict (the larger of `all` and the link's own counts): what comes in there is dropped where \
                     the way back is another link, as it may be with next hops of 169.254 addresses",
                    listed(&names)
                ),
                set_sysctl(&names, "rp_filter", 2),
            )
        })
    }

    /// Our neighbours are permanent, and nobody is asked for them by ARP; peers may ask for us.
    fn arp_settings(&self, host: &HostFacts, in_use: &BTreeMap<IfIndex, bool>) -> Vec<Finding> {
        type Key = (&'static str, fn(&LinkSysctls) -> Option<u8>, &'static str);
        let keys: [Key; 2] = [
            (
                "arp_ignore",
                |of| of.arp_ignore,
                "no ARP request is answered there",
            ),
            (
                "arp_filter",
                |of| of.arp_filter,
                "of links to one neighbour only one answers ARP requests",
            ),
        ];
        let finding = |(key, get, comes): Key| {
            let set = |dev| counts(host, dev, get).is_some_and(|value| value > 0);
            let names = self.names_where(in_use, |dev, makeshift| {
                makeshift && set(dev) && !self.view.has_ipv4_address(dev)
            });
            let of_all = get(&host.all).is_some_and(|value| value > 0);
            let all = if of_all {
                vec!["all".into()]
            } else {
                Vec::new()
            };
            (!names.is_empty()).then(|| {
                Pitfall::ArpSettings.found(
                    format!(
                        "{}: {key} is set and the link has no IPv4 address of its own: {comes}; peers of RFC 5549 don't ask, those \
                         of unnumbered OSPF do",
                        listed(&names)
                    ),
                    set_sysctl(&[&all[..], &names].concat(), key, 0),
                )
            })
        };
        keys.into_iter().filter_map(finding).collect()
    }

    fn linkdown_routes(
        &self,
        host: &HostFacts,
        in_use: &BTreeMap<IfIndex, bool>,
    ) -> Option<Finding> {
        let names = self.names_where(in_use, |dev, _| {
            let link = self.view.link(dev);
            let lost = link.is_some_and(|link| link.admin_up && !link.carrier);
            lost && counts(host, dev, |of| of.ignore_linkdown) == Some(0)
        });
        (!names.is_empty()).then(|| {
            Pitfall::LinkdownRoutes.found(
                format!(
                    "{}: no carrier; our routes have left, and the kernel goes on using those of others there (zebra's own, \
                     connected ones)",
                    listed(&names)
                ),
                set_sysctl(&names, "ignore_routes_with_linkdown", 1),
            )
        })
    }

    fn managers(&self, host: &HostFacts, findings: &mut Vec<Finding>) {
        let names = |managed: fn(&LinkFacts) -> bool| -> Vec<IfName> {
            let links = host.links.iter().filter(|(_, link)| managed(link));
            links.map(|(dev, _)| self.view.name_of(*dev)).collect()
        };
        let by_network_manager = names(|link| link.network_manager);
        if !by_network_manager.is_empty() {
            findings.push(Pitfall::NetworkManager.found(
                format!(
                    "{}: NetworkManager looks after this, and may remove routes, addresses and tc qdiscs there",
                    listed(&by_network_manager)
                ),
                for_each(&by_network_manager, "nmcli device set $link managed no"),
            ));
        }
        let by_networkd = names(|link| link.networkd);
        let Some(networkd) = host.networkd else {
            return;
        };
        let removes = match (networkd.foreign_routes, networkd.foreign_next_hops) {
            (false, false) => return,
            (true, false) => "routes",
            (false, true) => "next hops",
            (true, true) => "routes and next hops",
        };
        if !by_networkd.is_empty() {
            findings.push(Pitfall::NetworkdRemoves.found(
                format!(
                    "{}: systemd-networkd looks after this, and removes {removes} that it did not write when it starts or sets up \
                     a link again",
                    listed(&by_networkd)
                ),
                "mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\\nManageForeignRoutes=no\\nManageForeignNextHops=no\\n' \
                 >/etc/systemd/networkd.conf.d/90-frr-offload.conf && systemctl restart systemd-networkd"
                    .to_owned(),
            ));
        }
    }
}

/// Of a link and `all`, the larger value, which is the one that counts.
fn counts(host: &HostFacts, dev: IfIndex, get: fn(&LinkSysctls) -> Option<u8>) -> Option<u8> {
    let own = host.links.get(&dev).and_then(|link| get(&link.sysctls))?;
    Some(own.max(get(&host.all).unwrap_or(0)))
}

/// A link that belongs to something that forwards in its own way.
pub(super) fn enslaved(name: &str, kind: Option<&str>, master: &str) -> Finding {
    let shown = quoted(name);
    let (what, fix) = match kind {
        Some("openvswitch") => (
            "Open vSwitch".to_owned(),
            format!("ovs-vsctl del-port {shown}"),
        ),
        Some(kind) => (
            format!("{kind} {master}"),
            format!("ip link set {shown} nomaster"),
        ),
        None => (master.to_owned(), format!("ip link set {shown} nomaster")),
    };
    Pitfall::PortEnslaved.found(
        format!("{name} belongs to {what}, which forwards in its own way: nothing that comes in by it is routed"),
        fix,
    )
}
