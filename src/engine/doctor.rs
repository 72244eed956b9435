//! `doctor`: what about this host keeps routes from where they should be, and what mends it.
//!
//! ```text
//! zebra      who dialled, how it is set, what its stream shows        routes    what the kernel refuses, what stands in the way
//! host       sysctls, other network managers (`HostFacts`)            hardware  ports, drivers, tables, filter rules
//! ```
//!
//! Only what was seen counts: what nobody here can know (zebra on another host) makes no finding. Everything is a function of
//! what the engine has already and of facts that the caller read; nobody is asked here. The list of all findings is
//! [`Pitfall`](super::report::Pitfall).

mod hardware;
mod host;
mod routes;
mod zebra;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::Engine;
use super::report::Finding;
use crate::config::OffloadMode;
use crate::model::{
    Family, FrrAnswer, HostFacts, HostQuestion, IfIndex, IfName, NextHop, RouteKey, TableId,
};

/// Names that a finding has at most.
const SHOWN: usize = 6;

/// Routes that may be echoes, of which one is enough for a finding.
const ECHOES: usize = 64;

/// What a source's stream has shown of pitfalls since it dialled.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// zebra's own routes in a table that it should have left (`-R`).
    pub(super) unmapped: u64,
    /// Routes that zebra took from the kernel, though perhaps only a sidecar writes such. With a 169.254 next hop, if that is
    /// known: zebra also uses ids for them that it never announced (seen with 10.3).
    pub(super) echoes: FxHashMap<RouteKey, Option<NextHop>>,
}

impl Evidence {
    /// A route that zebra has from the kernel. A 169.254 address for a next hop, which no protocol announces, makes it an
    /// echo; where hops can't be told, the kernel is asked.
    pub(super) fn note_kernel_route(&mut self, key: RouteKey, hops: Option<&[NextHop]>) {
        let makeshift =
            |hop: &&NextHop| matches!(hop.via, Some(IpAddr::V4(via)) if via.is_link_local());
        let hop = hops.and_then(|hops| hops.iter().find(makeshift).copied());
        if hop.is_none() && hops.is_some() {
            self.echoes.remove(&key);
        } else if self.echoes.len() < ECHOES {
            self.echoes.insert(key, hop);
        }
    }
}

impl Engine {
    /// What [`Self::findings`] wants to know of the host.
    pub fn host_question(&self) -> HostQuestion {
        let mut links: BTreeSet<IfIndex> = self.links_in_use().into_keys().collect();
        if self.config.offload.mode != OffloadMode::Off {
            links.extend(self.ports().iter().map(|port| port.ifindex));
        }
        let known = links.into_iter().filter_map(|dev| self.view.link(dev));
        let echoes = self.evidence.echoes.keys();
        let echoes = echoes.filter(|key| key.table == TableId::MAIN);
        HostQuestion {
            links: known.map(|link| (link.index, link.name.clone())).collect(),
            prefixes: echoes.map(|key| key.prefix).collect(),
        }
    }

    /// All findings, the worst first.
    pub fn findings(&self, host: &HostFacts, frr: Option<&FrrAnswer>) -> Vec<Finding> {
        let mut findings = self.zebra_findings(host, frr);
        findings.extend(self.polled_findings());
        findings.extend(self.route_findings());
        let mut ports = Vec::new();
        if self.config.offload.mode != OffloadMode::Off {
            ports = self.ports();
            findings.extend(self.hardware_findings(host, &ports));
        }
        findings.extend(self.filter_findings());
        findings.extend(self.host_findings(host, &ports));
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings
    }

    /// Whether there are routes of a family that packets could be forwarded by.
    fn has_routes(&self, family: Family) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|(_, slot)| slot.path.is_some() && slot.family() == family)
    }

    /// The links of next hops that routes use, and whether one of them is reached by a 169.254 address.
    fn links_in_use(&self) -> BTreeMap<IfIndex, bool> {
        let mut links = BTreeMap::new();
        for (_, path) in self.paths.iter() {
            let group = self.group_of(path.key.target);
            let hops = group.map_or(&[][..], |group| self.groups.hops(group).hops());
            for dev in hops.iter().filter_map(|hop| hop.dev) {
                links.entry(dev).or_insert(false);
            }
        }
        for (peer, _, addr4, users) in self.resolver.peers() {
            if addr4.is_some() && users > 0 {
                links.insert(peer.dev, true);
            }
        }
        links
    }
}

/// A name as a shell takes it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
    if name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

/// A command for each of some links; `$link` stands for the name in it.
fn for_each(names: &[IfName], command: &str) -> String {
    if let [one] = names {
        return command.replace("$link", &quoted(one));
    }
    let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
    format!("for link in {}; do {command}; done", names.join(" "))
}

/// A sysctl of IPv4 for each of some links; with slashes, as a name may have dots.
fn set_sysctl(names: &[IfName], key: &str, value: u8) -> String {
    for_each(
        names,
        &format!("sysctl -w net/ipv4/conf/$link/{key}={value}"),
    )
}

/// `eth0, eth1 and 62 more`.
fn listed(names: &[IfName]) -> String {
    let shown = names
        .iter()
        .take(SHOWN)
        .map(AsRef::as_ref)
        .collect::<Vec<&str>>()
        .join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `3 routes`.
fn count(n: u64, noun: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{s}")
}
