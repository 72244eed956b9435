//! The ports that hardware could route for, put together from what devlink, ethtool, netconf, tc, `ip rule` and
//! netfilter say and from the links of [`KernelView`]. Answers for the planner: which switches there are, which ports they have, and why a port
//! may not admit packets.
//!
//! Owns no links: they are read when [`Ports::switches`] is asked, so its answer is to be asked for again after a change of
//! a link too, and compared with the last one. Names are never looked at but by the configuration's globs: a port is known
//! by its switch id and by devlink.
//!
//! What decides whether the kernel forwards (seen on Linux 6.18): IPv4 the link's own `forwarding`, and the larger
//! `rp_filter` of link and `all`; IPv6 the `forwarding` of `all`, whatever the link's.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use rustc_hash::FxHashMap;

use super::KernelView;
use crate::config::OffloadConfig;
use crate::model::{
    DevlinkInstance, DevlinkPort, Family, IfIndex, IfName, IngressQdisc, Link, LinkConf, MacAddr,
    OffloadEvent, PacketFilter, PolicyRule, PolicyScope, PortFilter, PortRole, Reason, SwitchId,
    TableId, TcOffloadFeature,
};

/// `rp_filter` of strict checking.
const STRICT: u8 = 1;

/// What the kernel last told about ports.
#[derive(Debug, Default)]
pub struct Ports {
    instances: Vec<DevlinkInstance>,
    ports: FxHashMap<IfIndex, DevlinkPort>,
    features: FxHashMap<IfIndex, TcOffloadFeature>,
    confs: FxHashMap<IfIndex, Confs>,
    all: Confs,
    qdiscs: FxHashMap<IfIndex, IngressQdisc>,
    rules: Vec<PolicyRule>,
    filters: Vec<PacketFilter>,
}

/// What netconf says of a link, or of `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Confs {
    forwarding_v4: bool,
    forwarding_v6: bool,
    rp_filter: u8,
}

impl Confs {
    /// Takes in what is present; whether that changed anything.
    fn apply(&mut self, conf: LinkConf) -> bool {
        let old = *self;
        if let Some(forwarding) = conf.forwarding {
            match conf.family {
                Family::V4 => self.forwarding_v4 = forwarding,
                Family::V6 => self.forwarding_v6 = forwarding,
            }
        }
        if let Some(rp_filter) = conf.rp_filter {
            self.rp_filter = rp_filter;
        }
        *self != old
    }
}

/// A switch, or for plain links in software what stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Its id; `None` in legacy mode, and for plain links.
    pub id: Option<SwitchId>,
    /// Its devlink instances: one, or several that share the switch.
    pub instances: Vec<DevlinkInstance>,
    /// Its ports, by index.
    pub ports: Vec<Port>,
}

/// A port, and all that decides about what it may admit.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its link.
    pub dev: IfIndex,
    /// The link's name.
    pub name: IfName,
    /// What it is to its switch.
    pub role: PortRole,
    /// For a VLAN sub-interface: which frames of which port are its own.
    pub vlan: Option<SubInterface>,
    /// The address that frames to be routed bear.
    pub mac: Option<MacAddr>,
    /// The table that its packets are looked up in: its VRF's, or `main`.
    pub table: TableId,
    /// Its MTU.
    pub mtu: u32,
    /// Up and with carrier; of a VLAN sub-interface, both links.
    pub usable: bool,
    /// Left out by the configuration.
    pub excluded: bool,
    /// Its eswitch is known to be in legacy mode.
    pub legacy: bool,
    /// The kind of a master that is no VRF (`bridge`, `bond`, `openvswitch`); empty if unknown.
    pub master: Option<Box<str>>,
    /// `hw-tc-offload`; `None` where nobody can say, and for plain links, where it does not matter.
    pub tc_offload: Option<TcOffloadFeature>,
    /// Its ingress qdisc, or that of its lower link.
    pub qdisc: Option<IngressQdisc>,
    /// What the kernel does with its IPv4 packets.
    pub ipv4: Treatment,
    /// What the kernel does with its IPv6 packets.
    pub ipv6: Treatment,
    /// Where filter rules of this port run, if it has some.
    pub filters: Option<FilterPlace>,
    /// What the operator says is no reason to refuse.
    pub ignored: Box<[Reason]>,
}

/// What makes a port a VLAN sub-interface. Its rules hang at the port below, whose qdisc and driver it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubInterface {
    /// That port.
    pub lower: IfIndex,
    /// Its name.
    pub lower_name: IfName,
    /// The id of its frames' 802.1Q tag.
    pub id: u16,
    /// Why none of these may be admitted.
    pub ingress: Option<Reason>,
    /// Why hardware may send none.
    pub egress: Option<Reason>,
}

/// Where the filter rules of a port run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilterPlace {
    /// Where its routes would.
    Hardware,
    /// All of them in software, since one of them does.
    Software,
}

/// What the kernel does with packets of one family that come in by a port, beside routing them.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Treatment {
    /// They are forwarded.
    pub forwarding: bool,
    /// Their sources are checked strictly (IPv4 only).
    pub strict_rp_filter: bool,
    /// A rule of `ip rule` may treat them in another way.
    pub policy_rule: bool,
    /// Something may drop or rewrite them: [`Ports::filters`].
    pub filtered: bool,
}

impl Switch {
    /// The driver's name, where devlink says it.
    pub fn driver(&self) -> Option<&str> {
        self.instances.iter().find_map(|i| i.driver.as_deref())
    }
}

impl Port {
    /// The port of the switch that it is, or is a part of: where its rules hang.
    pub fn home(&self) -> IfIndex {
        self.vlan.as_ref().map_or(self.dev, |vlan| vlan.lower)
    }

    /// The name of that.
    pub fn ingress(&self) -> &IfName {
        self.vlan
            .as_ref()
            .map_or(&self.name, |vlan| &vlan.lower_name)
    }

    /// Why packets of a family may not be admitted by this port; nothing if they may, or the operator says so.
    pub fn refusals(&self, family: Family) -> Vec<Reason> {
        let treatment = match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        };
        let off = TcOffloadFeature {
            on: false,
            changeable: false,
        };
        let reasons = [
            (self.excluded, Reason::PortExcluded),
            (self.legacy, Reason::EswitchLegacy),
            (self.tc_offload == Some(off), Reason::TcOffloadOff),
            (self.mac.is_none(), Reason::PortWithoutMac),
            (self.master.is_some(), Reason::PortEnslaved),
            (!treatment.forwarding, Reason::NotForwarding),
            (treatment.strict_rp_filter, Reason::StrictRpFilter),
            (treatment.policy_rule, Reason::PolicyRule),
            (treatment.filtered, Reason::ForwardFilter),
            (
                self.filters == Some(FilterPlace::Software),
                Reason::AclInSoftware,
            ),
        ];
        let holding = reasons.into_iter().filter(|(holds, _)| *holds);
        let reasons = holding.map(|(_, reason)| reason);
        let of_vlan = self.vlan.as_ref().and_then(|vlan| vlan.ingress);
        of_vlan
            .into_iter()
            .chain(reasons)
            .filter(|reason| !self.ignored.contains(reason))
            .collect()
    }

    /// Whether its filter rules can stand: what only keeps its packets from being routed in hardware says nothing against them.
    pub fn can_filter(&self) -> bool {
        let hinders = |reason: &Reason| match reason {
            Reason::PortExcluded
            | Reason::EswitchLegacy
            | Reason::PortWithoutMac
            | Reason::PortEnslaved
            | Reason::VlanProtocol
            | Reason::VlanStacked => true,
            Reason::TcOffloadOff => self.filters == Some(FilterPlace::Hardware),
            _ => false,
        };
        self.filters.is_some() && !self.refusals(Family::V4).iter().any(hinders)
    }
}

/// A glob of the configuration that matches no port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedGlob {
    /// As it was written.
    pub glob: String,
    /// The ports that there are.
    pub ports: Vec<IfName>,
}

impl std::fmt::Display for UnmatchedGlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { glob, ports } = self;
        match &**ports {
            [] => write!(
                f,
                "`offload.ports`: {glob:?} matches nothing; there are no ports"
            ),
            ports => write!(
                f,
                "`offload.ports`: {glob:?} matches nothing; there are {}",
                ports.join(", ")
            ),
        }
    }
}

impl Ports {
    /// Takes in what the kernel told; whether that changed what [`Self::switches`] answers. Rules, routes and outcomes are
    /// not its own and passed over.
    pub fn apply(&mut self, event: &OffloadEvent) -> bool {
        match event {
            OffloadEvent::Devlink { instances, ports } => {
                let ports: FxHashMap<_, _> = ports.iter().map(|p| (p.dev, p.clone())).collect();
                let same = self.instances == *instances && self.ports == ports;
                self.instances.clone_from(instances);
                self.ports = ports;
                !same
            }
            OffloadEvent::Feature(dev, feature) => {
                self.features.insert(*dev, *feature) != Some(*feature)
            }
            OffloadEvent::Conf(dev, conf) => self.confs.entry(*dev).or_default().apply(*conf),
            OffloadEvent::ConfAll(conf) => self.all.apply(*conf),
            OffloadEvent::Qdisc(qdisc) => self.qdiscs.insert(qdisc.dev, *qdisc) != Some(*qdisc),
            OffloadEvent::QdiscGone(dev) => self.qdiscs.remove(dev).is_some(),
            OffloadEvent::Qdiscs(list) => {
                let qdiscs = list.iter().map(|qdisc| (qdisc.dev, *qdisc)).collect();
                let same = self.qdiscs == qdiscs;
                self.qdiscs = qdiscs;
                !same
            }
            OffloadEvent::PolicyRules(rules) => {
                let same = self.rules == *rules;
                self.rules.clone_from(rules);
                !same
            }
            OffloadEvent::PacketFilters(filters) => {
                let same = self.filters == *filters;
                self.filters.clone_from(filters);
                !same
            }
            OffloadEvent::Outcomes(_)
            | OffloadEvent::Rule(_)
            | OffloadEvent::RuleGone(_)
            | OffloadEvent::PrioGone { .. }
            | OffloadEvent::Rules { .. }
            | OffloadEvent::Foreign(_)
            | OffloadEvent::ForeignReplaced(_)
            | OffloadEvent::ForeignGone(_)
            | OffloadEvent::Foreigns { .. }
            | OffloadEvent::Overrun
            | OffloadEvent::DumpFailed(_) => false,
        }
    }

    /// A link is gone; its index may come again in another network namespace's link.
    pub fn link_gone(&mut self, dev: IfIndex) {
        self.features.remove(&dev);
        self.confs.remove(&dev);
        self.qdiscs.remove(&dev);
    }

    /// The ingress qdiscs of all links.
    pub fn qdiscs(&self) -> impl Iterator<Item = &IngressQdisc> {
        self.qdiscs.values()
    }

    /// How many links are bound to each shared block.
    pub fn shared_blocks(&self) -> BTreeMap<NonZeroU32, usize> {
        let mut bound = BTreeMap::new();
        for block in self.qdiscs.values().filter_map(|qdisc| qdisc.block) {
            *bound.entry(block).or_default() += 1;
        }
        bound
    }

    /// The rules of `ip rule` that matter.
    pub fn policy_rules(&self) -> &[PolicyRule] {
        &self.rules
    }

    /// What may drop or rewrite forwarded packets.
    pub fn filters(&self) -> &[PacketFilter] {
        &self.filters
    }

    /// All switches: those with an id first, in its order, then eswitches that have none (in legacy mode).
    pub fn switches(&self, links: &KernelView, config: &OffloadConfig) -> Vec<Switch> {
        let mut by_id: BTreeMap<&SwitchId, Vec<&Link>> = BTreeMap::new();
        for link in links.links().filter(|link| can_be_port(link)) {
            if let Some(id) = &link.switch {
                by_id.entry(id).or_default().push(link);
            }
        }
        let mut switches: Vec<_> = by_id
            .into_iter()
            .map(|(id, members)| {
                let instances = self.instances.iter().filter(|instance| {
                    let of_it = |link: &&Link| self.handle_of(link.index) == Some(&instance.handle);
                    members.iter().any(of_it)
                });
                Switch {
                    id: Some(id.clone()),
                    instances: instances.cloned().collect(),
                    ports: self.ports_of(links, config, &members),
                }
            })
            .collect();
        for instance in self.instances.iter().filter(|i| i.switchdev.is_some()) {
            if switches
                .iter()
                .any(|known| known.instances.contains(instance))
            {
                continue;
            }
            let members = links.links().filter(|link| {
                can_be_port(link) && self.handle_of(link.index) == Some(&instance.handle)
            });
            switches.push(Switch {
                id: None,
                instances: vec![instance.clone()],
                ports: self.ports_of(links, config, &members.collect::<Vec<_>>()),
            });
        }
        switches
    }

    /// The plain links that the configuration names, as one switch in software (the lab mode).
    pub fn plain(&self, links: &KernelView, config: &OffloadConfig) -> Switch {
        let members = links.links().filter(|link| is_plain(link));
        let mut ports = self.ports_of(links, config, &members.collect::<Vec<_>>());
        for port in &mut ports {
            port.tc_offload = None;
            port.legacy = false;
        }
        Switch {
            id: None,
            instances: Vec::new(),
            ports,
        }
    }

    /// The configuration's globs that match none of these switches' ports.
    pub fn unmatched(switches: &[Switch], filter: &PortFilter) -> Vec<UnmatchedGlob> {
        let ports = switches.iter().flat_map(|switch| &switch.ports);
        let ports: Vec<IfName> = ports.map(|port| port.name.clone()).collect();
        let globs = filter.unmatched(&ports).into_iter();
        globs
            .map(|glob| UnmatchedGlob {
                glob,
                ports: ports.clone(),
            })
            .collect()
    }

    fn handle_of(&self, dev: IfIndex) -> Option<&str> {
        self.ports.get(&dev).map(|port| &*port.handle)
    }

    fn ports_of(&self, links: &KernelView, config: &OffloadConfig, members: &[&Link]) -> Vec<Port> {
        let lower = |link: &Link| links.link(link.vlan?.lower?);
        let sub_interface = |link| {
            let below = lower(link)?;
            let port = members
                .iter()
                .find(|member| [Some(below), lower(below)].contains(&Some(member)))?;
            let mut port = self.sub_interface(links, config, link, port)?;
            if let Some(vlan) = port.vlan.as_mut().filter(|vlan| vlan.lower != below.index) {
                vlan.ingress = Some(Reason::VlanStacked);
                vlan.egress = Some(Reason::VlanStacked);
            }
            Some(port)
        };
        let subs = links.links().filter_map(sub_interface);
        let ports = members.iter().map(|link| self.port(links, config, link));
        let mut ports: Vec<_> = ports.chain(subs).collect();
        ports.sort_unstable_by_key(|port| port.dev);
        ports
    }

    /// A VLAN sub-interface of a port: what the driver and tc know is the port's, what the kernel's router knows is its own.
    fn sub_interface(
        &self,
        links: &KernelView,
        config: &OffloadConfig,
        link: &Link,
        lower: &Link,
    ) -> Option<Port> {
        let vlan = link.vlan?;
        let own = self.port(links, config, link);
        let below = self.port(links, config, lower);
        let fault = if !vlan.is_802_1q {
            Some(Reason::VlanProtocol)
        } else if vlan.egress_map {
            Some(Reason::VlanPriority)
        } else {
            None
        };
        let down = (!link.admin_up).then_some(Reason::PortDown);
        Some(Port {
            role: PortRole::SubInterface,
            vlan: Some(SubInterface {
                lower: below.dev,
                lower_name: below.name,
                id: vlan.id,
                ingress: fault.or(down),
                egress: fault,
            }),
            usable: own.usable && below.usable,
            excluded: own.excluded || config.ports.excludes(&lower.name),
            legacy: below.legacy,
            master: own.master.or(below.master),
            tc_offload: below.tc_offload,
            qdisc: below.qdisc,
            ..own
        })
    }

    fn port(&self, links: &KernelView, config: &OffloadConfig, link: &Link) -> Port {
        let dev = link.index;
        let (table, master) = match link.master {
            None => (TableId::MAIN, None),
            Some(master) => match links.link(master) {
                Some(Link {
                    vrf_table: Some(table),
                    ..
                }) => (*table, None),
                Some(master) => (TableId::MAIN, Some(master.kind.clone().unwrap_or_default())),
                None => (TableId::MAIN, Some("".into())),
            },
        };
        let devlink = self.ports.get(&dev);
        let legacy = devlink.is_some_and(|port| {
            let mut instances = self.instances.iter();
            instances.any(|i| i.handle == port.handle && i.switchdev == Some(false))
        });
        let conf = self.confs.get(&dev).copied().unwrap_or_default();
        // In a VRF `iif` means its device, too: always for IPv6, and for IPv4 in newer kernels.
        let names: Vec<&str> = [Some(link), link.master.and_then(|dev| links.link(dev))]
            .into_iter()
            .flatten()
            .map(|link| &*link.name)
            .collect();
        let in_vrf = table != TableId::MAIN;
        Port {
            dev,
            name: link.name.clone(),
            role: devlink.map_or(PortRole::Other, |port| port.role),
            vlan: None,
            mac: link.mac,
            table,
            mtu: link.mtu,
            usable: link.usable(),
            excluded: !config.ports.wants(&link.name),
            legacy,
            master,
            tc_offload: self.features.get(&dev).copied(),
            qdisc: self.qdiscs.get(&dev).copied(),
            ipv4: Treatment {
                forwarding: conf.forwarding_v4,
                strict_rp_filter: conf.rp_filter.max(self.all.rp_filter) == STRICT,
                policy_rule: self.has_policy(Family::V4, &names, in_vrf),
                filtered: self.has_filter(Family::V4),
            },
            ipv6: Treatment {
                forwarding: self.all.forwarding_v6,
                strict_rp_filter: false,
                policy_rule: self.has_policy(Family::V6, &names, in_vrf),
                filtered: self.has_filter(Family::V6),
            },
            filters: None,
            ignored: config.ignore.clone().into(),
        }
    }

    fn has_filter(&self, family: Family) -> bool {
        let mut filters = self.filters.iter();
        filters.any(|filter| filter.families[family as usize])
    }

    fn has_policy(&self, family: Family, names: &[&str], in_vrf: bool) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.family == family);
        rules.any(|rule| match &rule.scope {
            PolicyScope::All => true,
            PolicyScope::Link(iif) => names.contains(&&**iif),
            PolicyScope::Vrfs => in_vrf,
        })
    }
}

/// Whether a link is a port, and no bridge, bond, VRF or sub-interface of ports, of which the kernel may tell their switch.
fn can_be_port(link: &Link) -> bool {
    matches!(link.kind.as_deref(), None | Some("dsa"))
}

/// Whether a link carries frames of its own: no VRF, bridge, bond, sub-interface or tunnel, and not `lo`.
fn is_plain(link: &Link) -> bool {
    link.mac.is_some() && matches!(link.kind.as_deref(), None | Some("veth" | "tun" | "dummy"))
}

#[cfg(test)]
mod tests;
