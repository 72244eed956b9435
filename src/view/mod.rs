//! What the kernel says about links, addresses and neighbours: taken in as facts, handed out as dirty keys.
//!
//! Owns no decision. Routes and next-hop objects are compared where they are written (`reconcile`), not here. Follows
//! `RTNLGRP_LINK`, `_NEIGH` and `_IPV4/6_IFADDR`; an overrun is mended by complete lists, which are compared with what
//! is known so that only differences become dirty.

pub mod counters;
pub mod mirror;
pub mod ports;

use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{
    IfIndex, IfName, KernelEvent, Link, MacAddr, Neighbour, NeighbourKey, NeighbourState, Prefix,
    RouteKey, TableId, is_link_local6,
};

/// What changed in the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewChange {
    /// A link appeared, vanished or changed in a way that matters for resolving.
    Link {
        /// Which.
        dev: IfIndex,
        /// Whether it could be used before.
        was_usable: bool,
        /// Whether it can be used now.
        usable: bool,
    },
    /// A neighbour appeared, vanished or changed.
    Neighbour(NeighbourKey),
    /// The kernel no longer keeps a neighbour fresh: it was released, or somebody wrote over it.
    Unmanaged(NeighbourKey),
    /// An IPv4 address came: it may be one that stands for a neighbour.
    AddressAdded(IfIndex),
    /// An IPv4 address went away: the kernel may have dropped routes of that link without a word.
    AddressGone(IfIndex),
}

/// The kernel as it last described itself.
#[derive(Debug, Default)]
pub struct KernelView {
    links: FxHashMap<IfIndex, Link>,
    neighbours: FxHashMap<NeighbourKey, Neighbour>,
    routers: FxHashMap<IfIndex, FxHashSet<NeighbourKey>>,
    vrf_tables: FxHashMap<TableId, IfIndex>,
    addresses: FxHashSet<(IfIndex, IpAddr, u8)>,
}

impl KernelView {
    /// A link.
    pub fn link(&self, dev: IfIndex) -> Option<&Link> {
        self.links.get(&dev)
    }

    /// A link by name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| &*link.name == name)
    }

    /// A link's name, or its number when it does not exist.
    pub fn name_of(&self, dev: IfIndex) -> Box<str> {
        self.link(dev)
            .map_or_else(|| format!("if{dev}").into(), |link| link.name.clone())
    }

    /// Whether the kernel forwards through a link.
    pub fn usable(&self, dev: IfIndex) -> bool {
        self.link(dev).is_some_and(Link::usable)
    }

    /// A neighbour.
    pub fn neighbour(&self, key: NeighbourKey) -> Option<&Neighbour> {
        self.neighbours.get(&key)
    }

    /// Whether an address is our own on that link, or the broadcast address of its subnet: the kernel takes neither for a
    /// gateway.
    pub fn is_own(&self, key: NeighbourKey) -> bool {
        let is = |own: IpAddr, len: u8| {
            let (IpAddr::V4(own), IpAddr::V4(addr)) = (own, key.addr) else {
                return own == key.addr;
            };
            let hosts = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
            let all_ones = own.to_bits() | hosts;
            own == addr || (len < 31 && [all_ones, all_ones & !hosts].contains(&addr.to_bits()))
        };
        self.addresses
            .iter()
            .any(|&(dev, own, len)| dev == key.dev && is(own, len))
    }

    /// Whether a link has an IPv4 address.
    pub fn has_ipv4_address(&self, dev: IfIndex) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|(of, addr, _)| *of == dev && addr.is_ipv4())
    }

    /// Whether the host has an IPv4 address that others could answer to.
    pub fn has_ipv4_source(&self) -> bool {
        self.addresses.iter().any(|(_, addr, _)| {
            matches!(addr, IpAddr::V4(addr) if !addr.is_loopback() && !addr.is_link_local())
        })
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// All neighbours.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// The link-local router of a link, if there is exactly one that is not known to be dead.
    ///
    /// This is what "169.254.0.1 dev X" from an FRR that lost the link-local can only have meant.
    pub fn sole_router(&self, dev: IfIndex) -> Option<NeighbourKey> {
        let mut routers = self.routers(dev);
        match (routers.next(), routers.next()) {
            (Some(only), None) => Some(only.key),
            _ => None,
        }
    }

    /// Whether a link has a router that is not known to be dead besides the one with this MAC.
    pub fn has_other_router(&self, dev: IfIndex, mac: MacAddr) -> bool {
        self.routers(dev).any(|router| router.mac != Some(mac))
    }

    fn routers(&self, dev: IfIndex) -> impl Iterator<Item = &Neighbour> {
        self.routers
            .get(&dev)
            .into_iter()
            .flatten()
            .filter_map(|key| self.neighbours.get(key))
            .filter(|n| n.state != NeighbourState::Failed)
    }

    /// The VRF device that looks up a table.
    pub fn vrf_of(&self, table: TableId) -> Option<&Link> {
        self.vrf_tables
            .get(&table)
            .and_then(|dev| self.links.get(dev))
    }

    /// The name of the VRF that a link is in; `None` in the default one.
    pub fn vrf_name(&self, dev: IfIndex) -> Option<IfName> {
        self.vrf_of(self.table_of(dev)).map(|vrf| vrf.name.clone())
    }

    /// A table for people, with its VRF: `101 (red)`.
    pub fn table_text(&self, table: TableId) -> String {
        match self.vrf_of(table) {
            Some(vrf) => format!("{table} ({})", vrf.name),
            None => table.to_string(),
        }
    }

    /// A route for people: `10.1.0.0/16 table 101 (red)`.
    pub fn route_text(&self, key: RouteKey) -> String {
        format!("{} table {}", key.prefix, self.table_text(key.table))
    }

    /// The table that packets are looked up in which come in by a link.
    pub fn table_of(&self, dev: IfIndex) -> TableId {
        let vrf = |dev| self.link(dev)?.vrf_table;
        let master = self.link(dev).and_then(|link| link.master);
        vrf(dev).or_else(|| vrf(master?)).unwrap_or(TableId::MAIN)
    }

    /// The table that a VRF device looks up.
    pub fn table_of_vrf(&self, name: &str) -> Option<TableId> {
        self.link_by_name(name)?.vrf_table
    }

    /// The connected subnet of that table which covers an address or prefix, and its link.
    pub fn connected(&self, target: Prefix, table: TableId) -> Option<(IfIndex, Prefix)> {
        let subnets = self.addresses.iter().filter_map(|&(dev, addr, len)| {
            let subnet = Prefix::masked(addr, len).ok()?;
            let here = self.table_of(dev) == table;
            (here && self.usable(dev) && subnet.covers(target)).then_some((dev, subnet))
        });
        subnets.max_by_key(|(_, subnet)| subnet.len())
    }

    /// Takes in what the kernel told; next-hop objects and routes are passed over.
    pub fn apply(&mut self, event: &KernelEvent, changes: &mut Vec<ViewChange>) {
        match event {
            KernelEvent::Link(link) => self.put_link(link.clone(), changes),
            KernelEvent::LinkGone(dev) => self.drop_link(*dev, changes),
            KernelEvent::Neighbour(neighbour) => self.put_neighbour(*neighbour, changes),
            KernelEvent::NeighbourGone(key) => self.drop_neighbour(*key, changes),
            KernelEvent::Address {
                dev,
                addr,
                len,
                present,
            } => {
                if *present {
                    self.addresses.insert((*dev, *addr, *len));
                    if addr.is_ipv4() {
                        changes.push(ViewChange::AddressAdded(*dev));
                    }
                } else {
                    self.addresses.remove(&(*dev, *addr, *len));
                    if addr.is_ipv4() {
                        changes.push(ViewChange::AddressGone(*dev));
                    }
                }
            }
            // The complete lists that follow have the addresses again.
            KernelEvent::Overrun => self.addresses.clear(),
            KernelEvent::Links(list) => {
                let listed: FxHashSet<_> = list.iter().map(|l| l.index).collect();
                let gone: Vec<_> = self
                    .links
                    .keys()
                    .filter(|d| !listed.contains(d))
                    .copied()
                    .collect();
                for dev in gone {
                    self.drop_link(dev, changes);
                }
                for link in list {
                    self.put_link(link.clone(), changes);
                }
            }
            KernelEvent::Neighbours(list) => {
                let listed: FxHashSet<_> = list.iter().map(|n| n.key).collect();
                let gone: Vec<_> = self
                    .neighbours
                    .keys()
                    .filter(|k| !listed.contains(k))
                    .copied()
                    .collect();
                for key in gone {
                    self.drop_neighbour(key, changes);
                }
                for neighbour in list {
                    self.put_neighbour(*neighbour, changes);
                }
            }
            KernelEvent::NextHop(_)
            | KernelEvent::NextHopGone(_)
            | KernelEvent::NextHops(_)
            | KernelEvent::Routes { .. }
            | KernelEvent::Route(_)
            | KernelEvent::RouteGone(_)
            | KernelEvent::DumpFailed(..) => {}
        }
    }

    fn put_link(&mut self, link: Link, changes: &mut Vec<ViewChange>) {
        let dev = link.index;
        let usable = link.usable();
        let table = link.vrf_table;
        let old = self.links.insert(dev, link);
        let old_table = old.as_ref().and_then(|old| old.vrf_table);
        if old_table != table {
            self.find_vrfs(old_table.into_iter().chain(table));
        }
        let was_usable = old.as_ref().is_some_and(Link::usable);
        if old.is_none() || was_usable != usable {
            changes.push(ViewChange::Link {
                dev,
                was_usable,
                usable,
            });
        }
    }

    /// Several devices may look up one table: the first of them gives it its name.
    fn find_vrfs(&mut self, tables: impl IntoIterator<Item = TableId>) {
        for table in tables {
            let links = self.links.values();
            let devices = links.filter(|link| link.vrf_table == Some(table));
            match devices.map(|link| link.index).min() {
                Some(first) => self.vrf_tables.insert(table, first),
                None => self.vrf_tables.remove(&table),
            };
        }
    }

    fn drop_link(&mut self, dev: IfIndex, changes: &mut Vec<ViewChange>) {
        let Some(old) = self.links.remove(&dev) else {
            return;
        };
        self.find_vrfs(old.vrf_table);
        self.addresses.retain(|(d, ..)| *d != dev);
        let gone: Vec<_> = self
            .neighbours
            .keys()
            .filter(|k| k.dev == dev)
            .copied()
            .collect();
        for key in gone {
            self.drop_neighbour(key, changes);
        }
        changes.push(ViewChange::Link {
            dev,
            was_usable: old.usable(),
            usable: false,
        });
    }

    fn put_neighbour(&mut self, neighbour: Neighbour, changes: &mut Vec<ViewChange>) {
        let key = neighbour.key;
        if let IpAddr::V6(addr) = key.addr {
            if neighbour.router && is_link_local6(addr) {
                self.routers.entry(key.dev).or_default().insert(key);
            } else if let Some(routers) = self.routers.get_mut(&key.dev) {
                routers.remove(&key);
            }
        }
        let old = self.neighbours.insert(key, neighbour);
        if old != Some(neighbour) {
            changes.push(ViewChange::Neighbour(key));
        }
        // Where the kernel can't manage neighbours, none ever was.
        if old.is_some_and(|old| old.managed) && !neighbour.managed {
            changes.push(ViewChange::Unmanaged(key));
        }
    }

    fn drop_neighbour(&mut self, key: NeighbourKey, changes: &mut Vec<ViewChange>) {
        if let Some(routers) = self.routers.get_mut(&key.dev) {
            routers.remove(&key);
        }
        if self.neighbours.remove(&key).is_some() {
            changes.push(ViewChange::Neighbour(key));
        }
    }
}

/// What a neighbour entry says about where its address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// At this Ethernet address.
    At(MacAddr),
    /// Nowhere: it was asked and did not answer.
    Failed,
    /// Nothing yet.
    Unknown,
}

/// Reads a neighbour entry: every valid state counts, STALE too.
pub fn belief(neighbour: Option<&Neighbour>) -> Belief {
    let Some(neighbour) = neighbour else {
        return Belief::Unknown;
    };
    match neighbour.mac {
        Some(mac) if neighbour.state.is_valid() && mac.is_usable() => Belief::At(mac),
        _ if neighbour.state == NeighbourState::Failed => Belief::Failed,
        _ => Belief::Unknown,
    }
}
