//! What a switch should do with a prefix, were there room for all of it: a pure look at what the engine knows.
//!
//! ```text
//! the kernel's own route is better     Slow(connected | foreign-route)      its prefix guards what is shorter
//! a host of a connected subnet         Forward to its hop
//! a route of ours, in place            Forward to its hop or group | Discard | Slow(why)
//! ```
//!
//! A group goes to hardware when each of its members is a neighbour behind a port of this one switch. Members that are not resolved
//! leave their buckets to the others, as they do in the kernel.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::engine::{Engine, SetUp};
use crate::model::{
    Family, ForeignKind, ForeignRoute, IfIndex, MacAddr, NeighbourKey, Reason, RouteKey, RouteKind,
    TableId,
};
use crate::plan::{GroupKey, HopId, HopRule, Lookup, Target, Wish, last_inside, scale_weights};
use crate::resolve::{HopKey, HopState};
use crate::rib::{Meaning, Path, PathTarget, SlotFlags};
use crate::view::mirror::Mirror;
use crate::view::ports::{Port, Switch as SwitchPorts};
use crate::view::{Belief, belief};

/// zebra writes every route with it, whatever its protocol's says (`NL_DEFAULT_ROUTE_METRIC`).
const ZEBRAS_METRIC: u32 = 20;

/// What the kernel looks up besides the routes of our slots.
#[derive(Debug, Default)]
pub(in crate::engine) struct World {
    /// The kernel's own routes.
    pub(in crate::engine) mirror: Mirror,
    /// Every prefix.
    pub(in crate::engine) lookup: Lookup,
    /// Neighbours that are hosts, as prefixes, with the links that they are behind.
    pub(super) hosts: BTreeMap<RouteKey, BTreeSet<IfIndex>>,
}

impl World {
    /// Whether a neighbour with that address is in a subnet. To others leads a route of another VRF, say, or none at all.
    pub(super) fn is_host(&self, key: RouteKey) -> bool {
        let on_link = |subnet: RouteKey| {
            let best = self.mirror.best(subnet.table, subnet.prefix);
            best.is_some_and(|route| matches!(route.kind, ForeignKind::OnLink(_)))
        };
        self.lookup.parent(key).is_some_and(on_link)
    }

    /// Hosts that are looked up right below one of these prefixes, or may have been before it went: their subnet came, went, or
    /// has a longer prefix inside now.
    pub(super) fn hosts_right_below(&self, keys: &[RouteKey]) -> Vec<RouteKey> {
        let below = |key: &RouteKey| {
            let (key, gone) = (*key, !self.lookup.contains(*key));
            let last = RouteKey {
                prefix: last_inside(key.prefix),
                ..key
            };
            let hosts = self.hosts.range(key..=last).map(|(host, _)| *host);
            hosts.filter(move |host| gone || self.lookup.parent(*host) == Some(key))
        };
        keys.iter().flat_map(below).collect()
    }
}

/// How a group is forwarded by a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct GroupWish {
    pub(super) target: Result<Target, Reason>,
    /// The tables of the links that its next hops are on, each once: a route of another one leaks from its VRF.
    pub(super) tables: Vec<TableId>,
    /// Live members.
    pub(super) members: Vec<(HopId, u16)>,
}

/// What a wish follows from.
pub(super) struct Facts<'a> {
    pub(super) engine: &'a Engine,
    pub(super) world: &'a World,
}

impl Facts<'_> {
    /// What a switch should do with a prefix.
    pub(super) fn wish(
        &self,
        switch: &FxHashMap<GroupKey, GroupWish>,
        ports: &SwitchPorts,
        key: RouteKey,
    ) -> Wish {
        let slot = self
            .engine
            .slots
            .find(key)
            .map(|id| self.engine.slots.get(id));
        if let Some(foreign) = self.world.mirror.best(key.table, key.prefix)
            && (slot.is_none() || foreign.metric <= self.metric())
        {
            return Wish::Slow(match foreign.kind {
                ForeignKind::OnLink(_) => Reason::Connected,
                _ => Reason::ForeignRoute,
            });
        }
        // A route that is looked up for one TOS only can't be told apart by prefix.
        let with_tos = self.world.mirror.routes_of(key).any(|route| route.tos != 0);
        let Some(slot) = slot else {
            return match self.host(key) {
                Some(hop) => match egress(ports, hop.dev) {
                    Ok(_) => Wish::Forward(Target::Hop(hop)),
                    Err(reason) => Wish::Slow(reason),
                },
                None => Wish::Slow(Reason::Connected),
            };
        };
        let in_place = slot.applied.is_some() || self.engine.config.setup == SetUp::Observe;
        let Some(path) = slot.path.filter(|_| in_place && !with_tos) else {
            return Wish::Slow(if slot.flags.has(SlotFlags::FOREIGN) || with_tos {
                Reason::ForeignRoute
            } else {
                Reason::InProgress
            });
        };
        match self.group_of(self.engine.paths.get(path), slot.family()) {
            Ok(None) => Wish::Discard,
            Ok(Some(group)) => match switch.get(&group) {
                Some(wish) if wish.tables.iter().any(|table| *table != key.table) => {
                    Wish::Slow(Reason::OtherVrf)
                }
                Some(wish) => wish.target.map_or_else(Wish::Slow, Wish::Forward),
                None => Wish::Slow(Reason::InProgress),
            },
            Err(reason) => Wish::Slow(reason),
        }
    }

    /// The metric of the routes that the kernel forwards by: ours, or zebra's where that writes them.
    fn metric(&self) -> u32 {
        match self.engine.config.setup {
            SetUp::Observe => ZEBRAS_METRIC,
            SetUp::Takeover | SetUp::Beside => self.engine.config.kernel.metric,
        }
    }

    /// The group that a path leads to; `None`: it drops.
    fn group_of(&self, path: &Path, family: Family) -> Result<Option<GroupKey>, Reason> {
        let key = &path.key;
        if key.mtu.is_some() {
            return Err(Reason::RouteMtu);
        }
        let meaning = match (key.kind, key.target) {
            (RouteKind::Blackhole, _) => return Ok(None),
            (_, PathTarget::Bad(reason)) => return Err(reason),
            (RouteKind::Unicast, PathTarget::None) => return Err(Reason::NoNextHop),
            (RouteKind::Unicast, PathTarget::Group(group)) => Meaning::Group(group),
            (RouteKind::Unicast, PathTarget::Id(id)) => self.engine.groups.meaning(id),
            // The kernel answers these with ICMP.
            _ => return Err(Reason::KernelAnswers),
        };
        match meaning {
            Meaning::Group(group) => Ok(Some((group, family))),
            Meaning::Blackhole => Ok(None),
            Meaning::Blocked(reason) => Err(reason),
        }
    }

    /// The hop of a host of a connected subnet: there is nothing longer than the subnet that the kernel would look up.
    fn host(&self, key: RouteKey) -> Option<HopId> {
        let devs = self.world.hosts.get(&key)?;
        let tree = self.world.lookup.tree(key.table, key.prefix.family())?;
        let subnet = tree.parent(key.prefix)?;
        let best = self.world.mirror.best(key.table, subnet)?;
        let ForeignKind::OnLink(dev) = best.kind else {
            return None;
        };
        let covered = RouteKey {
            prefix: subnet,
            ..key
        };
        // Of links with one subnet the kernel takes the first, which nothing here tells.
        let mut routes = self.world.mirror.routes_of(covered);
        let rivals = |route: &ForeignRoute| {
            route.tos != 0 || (route.metric == best.metric && route.kind != best.kind)
        };
        if routes.any(rivals) {
            return None;
        }
        let ours = self.engine.slots.find(covered).is_some();
        (!ours && devs.contains(&dev)).then(|| HopId {
            family: key.prefix.family(),
            dev,
            addr: key.prefix.addr(),
        })
    }

    /// How a switch forwards a group.
    pub(super) fn group_wish(
        &self,
        switch: &SwitchPorts,
        group: GroupKey,
        users: &mut Vec<NeighbourKey>,
    ) -> (GroupWish, Vec<(HopId, HopRule)>) {
        let mut hops = Vec::new();
        let devs = self.engine.groups.hops(group.0).hops().iter();
        let mut tables: Vec<TableId> = devs
            .filter_map(|hop| Some(self.engine.view.table_of(hop.dev?)))
            .collect();
        tables.sort_unstable();
        tables.dedup();
        let nothing = |reason| GroupWish {
            target: Err(reason),
            tables: tables.clone(),
            members: Vec::new(),
        };
        let Some(planned) = self.engine.plan.hops(group) else {
            return (nothing(Reason::InProgress), hops);
        };
        let weights = scale_weights(
            self.engine
                .groups
                .hops(group.0)
                .hops()
                .iter()
                .map(|hop| hop.weight),
        );
        let announced = weights.len();
        let (mut members, mut ids, mut why) = (Vec::new(), Vec::new(), Reason::NoNextHop);
        for (hop, weight) in planned.zip(weights) {
            let hop = match hop {
                Ok(hop) => hop,
                Err(Reason::Encapsulation) => return (nothing(Reason::Encapsulation), hops),
                Err(reason) => {
                    why = reason;
                    continue;
                }
            };
            let Some(id) = self.hop_id(hop) else {
                return (nothing(Reason::InterfaceRoute), hops);
            };
            users.push(NeighbourKey {
                dev: id.dev,
                addr: id.addr,
            });
            let port = match egress(switch, id.dev) {
                Ok(port) => port,
                Err(reason) => return (nothing(reason), hops),
            };
            let rule = self.hop_rule(port, id);
            hops.push((id, rule));
            ids.push(id);
            let blocked = match self.engine.resolver.state(hop) {
                Some(HopState::Ready(_)) => None,
                Some(HopState::Blocked(reason)) => Some(reason),
                None => Some(Reason::InProgress),
            };
            match (rule, blocked) {
                (HopRule::Send { .. }, None) => members.push((id, weight)),
                (_, Some(reason)) => why = reason,
                (HopRule::Slow, None) => why = Reason::NextHopUnresolved,
            }
        }
        let target = match (ids.as_slice(), announced) {
            ([], _) => Err(why),
            ([only], 1) => Ok(Target::Hop(*only)),
            _ => Ok(Target::Group(group)),
        };
        let wish = GroupWish {
            target,
            tables,
            members,
        };
        (wish, hops)
    }

    /// The neighbour that a hop means; `None` for a hop without a gateway.
    fn hop_id(&self, hop: HopKey) -> Option<HopId> {
        let addr = match self.engine.resolver.peer_of(hop) {
            Some((peer, _)) => peer.addr,
            None => hop.via?,
        };
        Some(HopId {
            family: hop.family,
            dev: hop.dev,
            addr,
        })
    }

    pub(super) fn hop_rule(&self, port: &Port, hop: HopId) -> HopRule {
        let key = NeighbourKey {
            dev: hop.dev,
            addr: hop.addr,
        };
        let dst: Option<MacAddr> = match self.engine.resolver.believed(key) {
            Some(believed) => believed.mac.map(|(mac, _)| mac),
            None => match belief(self.engine.view.neighbour(key)) {
                Belief::At(mac) => Some(mac),
                Belief::Failed | Belief::Unknown => None,
            },
        };
        match (port.mac, dst) {
            (Some(src), Some(dst)) if port.usable => HopRule::Send {
                src,
                dst,
                out: port.home(),
                tag: port.vlan.as_ref().map(|vlan| vlan.id),
            },
            _ => HopRule::Slow,
        }
    }
}

/// The port by which a switch sends to a link, if it may: whatever comes in by another of its ports that looks up the same table
/// must fit.
fn egress(switch: &SwitchPorts, dev: IfIndex) -> Result<&Port, Reason> {
    let mut ports = switch.ports.iter();
    let port = ports
        .find(|port| port.dev == dev)
        .ok_or(Reason::OtherSwitch)?;
    let here = |ingress: &&Port| !ingress.excluded && ingress.table == port.table;
    let mut admitting = switch.ports.iter().filter(here);
    if port.excluded {
        Err(Reason::PortExcluded)
    } else if let Some(reason) = port.vlan.as_ref().and_then(|vlan| vlan.egress) {
        Err(reason)
    } else if admitting.any(|ingress| ingress.mtu > port.mtu) {
        Err(Reason::EgressMtu)
    } else {
        Ok(port)
    }
}
