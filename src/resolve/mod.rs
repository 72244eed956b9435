//! Next hops -> what the kernel is to be given for them, or why it can't be.
//!
//! Input: hops that plans hold, and the kernel view. Output: a state for each hop, the permanent neighbours that these
//! states rest on, and which neighbours are to be solicited. Knows nothing of groups, routes or netlink.
//!
//! One IPv4 route over an IPv6 link-local next hop, in `ipv4-ll` mode:
//!
//! ```text
//! 10.20.1.0/24 via fe80::ff:fe00:200 dev eth0              what FRR means
//!   peer (eth0, fe80::ff:fe00:200) -> 02:00:00:00:02:00    mac: learned by ND, else EUI-64
//!   peer (eth0, fe80::ff:fe00:200) -> 169.254.0.1          unnumbered: an address for it
//!   neighbour 169.254.0.1 dev eth0 lladdr 02:..:02:00 PERMANENT
//!   10.20.1.0/24 via 169.254.0.1 dev eth0 onlink           what the kernel gets
//! ```

mod mac;
mod unnumbered;

use std::net::{IpAddr, Ipv4Addr};

use rustc_hash::{FxHashMap, FxHashSet};

pub use mac::Believed;
use unnumbered::Leads;
pub use unnumbered::{AddressPool, ZEBRA_ADDR, candidates, is_pool_address};

use crate::config::Ipv4ViaIpv6;
use crate::model::{
    Family, IfIndex, KernelHop, MacAddr, Neighbour, NeighbourKey, NeighbourState, Protocol, Reason,
    is_link_local6,
};
use crate::view::{KernelView, belief};

/// What identifies a hop: the same gateway means different kernel hops for IPv4 and IPv6 routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HopKey {
    /// Of the routes that use it.
    pub family: Family,
    /// The link.
    pub dev: IfIndex,
    /// The gateway as FRR means it.
    pub via: Option<IpAddr>,
    /// As announced.
    pub onlink: bool,
}

/// Where a hop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopState {
    /// The kernel can be given this.
    Ready(KernelHop),
    /// Not now, because.
    Blocked(Reason),
}

#[derive(Debug)]
struct Hop {
    users: u32,
    state: HopState,
    peer: Option<NeighbourKey>,
}

#[derive(Debug)]
struct Peer {
    believed: Believed,
    addr4: Option<Ipv4Addr>,
    hops: FxHashSet<HopKey>,
}

/// What a turn of the resolver found.
#[derive(Debug, Default)]
pub struct ResolveChanges {
    /// Hops whose state changed.
    pub hops: Vec<HopKey>,
    /// Permanent neighbours whose wish changed or which must be looked at again.
    pub neighbours: Vec<NeighbourKey>,
    /// Peers to be solicited from now on.
    pub solicit: Vec<NeighbourKey>,
    /// Peers that need not be solicited any more.
    pub release: Vec<NeighbourKey>,
}

/// All hops in use.
#[derive(Debug)]
pub struct Resolver {
    mode: Ipv4ViaIpv6,
    hops: FxHashMap<HopKey, Hop>,
    by_dev: FxHashMap<IfIndex, FxHashSet<HopKey>>,
    peers: FxHashMap<NeighbourKey, Peer>,
    pool: AddressPool,
}

impl Resolver {
    /// Without any hop.
    pub fn new(mode: Ipv4ViaIpv6, pool: AddressPool) -> Self {
        Self {
            mode,
            hops: FxHashMap::default(),
            by_dev: FxHashMap::default(),
            peers: FxHashMap::default(),
            pool,
        }
    }

    /// Another way to give IPv6 gateways of IPv4 routes to the kernel, from the next resolving on.
    pub fn set_mode(&mut self, mode: Ipv4ViaIpv6) {
        self.mode = mode;
    }

    /// One more user of a hop; a new hop is resolved at once.
    pub fn hold(&mut self, view: &KernelView, key: HopKey, changes: &mut ResolveChanges) {
        if let Some(hop) = self.hops.get_mut(&key) {
            hop.users += 1;
            return;
        }
        let hop = Hop {
            users: 1,
            state: HopState::Blocked(Reason::InProgress),
            peer: None,
        };
        self.hops.insert(key, hop);
        self.by_dev.entry(key.dev).or_default().insert(key);
        self.resolve(view, key, changes);
    }

    /// One user less.
    pub fn release(&mut self, key: HopKey, changes: &mut ResolveChanges) {
        let Some(hop) = self.hops.get_mut(&key) else {
            return;
        };
        hop.users -= 1;
        if hop.users > 0 {
            return;
        }
        let peer = hop.peer;
        self.hops.remove(&key);
        if let Some(hops) = self.by_dev.get_mut(&key.dev) {
            hops.remove(&key);
        }
        if let Some(peer) = peer {
            self.leave_peer(peer, key, changes);
        }
    }

    /// Where a hop stands; `None` when nothing uses it.
    pub fn state(&self, key: HopKey) -> Option<HopState> {
        self.hops.get(&key).map(|hop| hop.state)
    }

    /// The peer behind a hop, and what is believed about it.
    pub fn peer_of(&self, key: HopKey) -> Option<(NeighbourKey, Believed)> {
        let peer = self.hops.get(&key)?.peer?;
        Some((peer, self.peers.get(&peer)?.believed))
    }

    /// What is believed about a peer; `None` when nothing uses it.
    pub fn believed(&self, peer: NeighbourKey) -> Option<Believed> {
        Some(self.peers.get(&peer)?.believed)
    }

    /// The IPv4 address that stands for a peer.
    pub fn addr4_of(&self, peer: NeighbourKey) -> Option<Ipv4Addr> {
        self.peers.get(&peer)?.addr4
    }

    /// All peers with what is believed, their IPv4 address and the number of hops.
    pub fn peers(
        &self,
    ) -> impl Iterator<Item = (NeighbourKey, Believed, Option<Ipv4Addr>, usize)> + '_ {
        self.peers
            .iter()
            .map(|(&key, p)| (key, p.believed, p.addr4, p.hops.len()))
    }

    /// The addresses given out, to be saved.
    pub const fn pool(&self) -> &AddressPool {
        &self.pool
    }

    /// The Ethernet address that a permanent neighbour should have; `None` when there should be none of ours.
    pub fn wanted_neighbour(&self, key: NeighbourKey) -> Option<MacAddr> {
        let IpAddr::V4(addr) = key.addr else {
            return None;
        };
        let peer = self.peers.get(&self.pool.peer_of(key.dev, addr)?)?;
        peer.believed.mac.map(|(mac, _)| mac)
    }

    /// Resolves everything again, after a change of mode.
    pub fn resolve_all(&mut self, view: &KernelView, changes: &mut ResolveChanges) {
        let keys: Vec<_> = self.hops.keys().copied().collect();
        for key in keys {
            self.resolve(view, key, changes);
        }
    }

    /// A link appeared, vanished, went up or down.
    pub fn link_changed(&mut self, view: &KernelView, dev: IfIndex, changes: &mut ResolveChanges) {
        let usable = view.usable(dev);
        if view.link(dev).is_none() {
            self.pool.forget_link(dev);
        }
        let peers: Vec<_> = self
            .peers
            .keys()
            .filter(|p| p.dev == dev)
            .copied()
            .collect();
        for key in peers {
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            if usable {
                changes.solicit.push(key);
            } else {
                // The kernel flushed its neighbours; whoever is there when the link returns may be another.
                peer.believed = Believed::guess(key.addr);
            }
            if let Some(addr) = peer.addr4 {
                changes.neighbours.push(NeighbourKey {
                    dev,
                    addr: IpAddr::V4(addr),
                });
            }
        }
        self.resolve_dev(view, dev, changes);
    }

    /// A neighbour entry appeared, vanished or changed.
    pub fn neighbour_changed(
        &mut self,
        view: &KernelView,
        key: NeighbourKey,
        changes: &mut ResolveChanges,
    ) {
        match key.addr {
            IpAddr::V4(addr) => {
                let Some(peer) = self.pool.peer_of(key.dev, addr) else {
                    return;
                };
                changes.neighbours.push(key);
                self.leave_taken(view, peer, key, changes);
            }
            IpAddr::V6(_) => {
                if let Some(peer) = self.peers.get_mut(&key) {
                    let entry = view.neighbour(key);
                    let before = peer.believed;
                    peer.believed.update(key.addr, belief(entry));
                    if entry.is_none() && view.usable(key.dev) {
                        changes.solicit.push(key);
                    }
                    if peer.believed != before {
                        if let Some(addr) = peer.addr4 {
                            changes.neighbours.push(NeighbourKey {
                                dev: key.dev,
                                addr: IpAddr::V4(addr),
                            });
                        }
                        self.resolve_hops_of(view, key, changes);
                    }
                }
                // A further router, and zebra's own entry is not that of one peer any more.
                if let Some(peer) = self.pool.peer_of(key.dev, ZEBRA_ADDR) {
                    let zebras = NeighbourKey {
                        dev: key.dev,
                        addr: IpAddr::V4(ZEBRA_ADDR),
                    };
                    self.leave_taken(view, peer, zebras, changes);
                }
                // A router that comes or goes decides hops whose link-local FRR did not tell.
                let lost: Vec<_> = self
                    .by_dev
                    .get(&key.dev)
                    .into_iter()
                    .flatten()
                    .filter(|hop| is_lost(hop))
                    .copied()
                    .collect();
                for hop in lost {
                    self.resolve(view, hop, changes);
                }
            }
        }
    }

    /// Peers that are waited for, or known only by a guess: they are solicited again now and then.
    pub fn unresolved<'a>(
        &'a self,
        view: &'a KernelView,
    ) -> impl Iterator<Item = NeighbourKey> + 'a {
        self.peers.keys().copied().filter(|key| {
            view.usable(key.dev)
                && view
                    .neighbour(*key)
                    .is_none_or(|n| !n.state.is_valid() && n.state != NeighbourState::Incomplete)
        })
    }

    /// Resolves all hops of a link again, after a change of its own addresses too.
    pub fn resolve_dev(&mut self, view: &KernelView, dev: IfIndex, changes: &mut ResolveChanges) {
        let keys: Vec<_> = self
            .by_dev
            .get(&dev)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for key in keys {
            self.resolve(view, key, changes);
        }
    }

    fn resolve_hops_of(
        &mut self,
        view: &KernelView,
        peer: NeighbourKey,
        changes: &mut ResolveChanges,
    ) {
        let keys: Vec<_> = self
            .peers
            .get(&peer)
            .into_iter()
            .flat_map(|p| &p.hops)
            .copied()
            .collect();
        for key in keys {
            self.resolve(view, key, changes);
        }
    }

    fn resolve(&mut self, view: &KernelView, key: HopKey, changes: &mut ResolveChanges) {
        let wish = classify(view, key);
        let peer = match wish {
            Wish::Peer(peer) => Some(peer),
            Wish::Plain(_) | Wish::Blocked(_) => None,
        };
        // While its link is down a hop keeps its peer, and so its address: it will want the same again.
        let keep = matches!(wish, Wish::Blocked(Reason::LinkDown));
        self.set_peer(view, key, peer, keep, changes);
        let state = match wish {
            Wish::Blocked(reason) => HopState::Blocked(reason),
            Wish::Plain(hop) => HopState::Ready(hop),
            Wish::Peer(peer) => self.resolve_peer(view, peer, key.onlink, changes),
        };
        if let Some(hop) = self.hops.get_mut(&key)
            && hop.state != state
        {
            hop.state = state;
            changes.hops.push(key);
        }
    }

    fn resolve_peer(
        &mut self,
        view: &KernelView,
        key: NeighbourKey,
        onlink: bool,
        changes: &mut ResolveChanges,
    ) -> HopState {
        let Some(peer) = self.peers.get_mut(&key) else {
            unreachable!("set_peer made the peer of this hop");
        };
        if let (Ipv4ViaIpv6::Inet6, IpAddr::V6(addr)) = (self.mode, key.addr) {
            if let Some(old) = peer.addr4.take() {
                self.pool.release(key.dev, old);
                changes.neighbours.push(NeighbourKey {
                    dev: key.dev,
                    addr: IpAddr::V4(old),
                });
            }
            // The kernel resolves it itself; only one that does not answer at all is left out, as in the other mode.
            if let Err(reason @ Reason::NextHopUnreachable) = peer.believed.mac() {
                return HopState::Blocked(reason);
            }
            // A link-local gateway is taken as on the link without the flag; a global one only with it.
            return HopState::Ready(KernelHop {
                family: Family::V6,
                via: Some(key.addr),
                dev: key.dev,
                onlink: onlink && !is_link_local6(addr),
            });
        }
        let mac = match peer.believed.mac() {
            Ok((mac, _)) => mac,
            Err(reason) => return HopState::Blocked(reason),
        };
        let wrong = |addr: Ipv4Addr| {
            is_taken(
                view,
                NeighbourKey {
                    dev: key.dev,
                    addr: IpAddr::V4(addr),
                },
                mac,
            )
        };
        let leads = |addr: Ipv4Addr| {
            let entry = view.neighbour(NeighbourKey {
                dev: key.dev,
                addr: IpAddr::V4(addr),
            });
            match entry.filter(|n| n.protocol == Protocol::REDIRECT.0) {
                None => Leads::Nowhere,
                Some(entry) if entry.mac == Some(mac) => Leads::There,
                Some(_) => Leads::Elsewhere,
            }
        };
        if peer.addr4.is_none_or(wrong) {
            if let Some(old) = peer.addr4.take() {
                self.pool.release(key.dev, old);
                changes.neighbours.push(NeighbourKey {
                    dev: key.dev,
                    addr: IpAddr::V4(old),
                });
            }
            peer.addr4 = self.pool.allocate(key, leads, wrong);
        }
        let Some(addr) = peer.addr4 else {
            return HopState::Blocked(Reason::PoolExhausted);
        };
        changes.neighbours.push(NeighbourKey {
            dev: key.dev,
            addr: IpAddr::V4(addr),
        });
        HopState::Ready(KernelHop {
            family: Family::V4,
            via: Some(IpAddr::V4(addr)),
            dev: key.dev,
            onlink: true,
        })
    }

    /// Another address for a peer, if its present one is not ours to use any more.
    fn leave_taken(
        &mut self,
        view: &KernelView,
        peer: NeighbourKey,
        addr4: NeighbourKey,
        changes: &mut ResolveChanges,
    ) {
        if self
            .wanted_neighbour(addr4)
            .is_some_and(|mac| is_taken(view, addr4, mac))
        {
            self.resolve_hops_of(view, peer, changes);
        }
    }

    fn set_peer(
        &mut self,
        view: &KernelView,
        key: HopKey,
        peer: Option<NeighbourKey>,
        keep: bool,
        changes: &mut ResolveChanges,
    ) {
        let Some(hop) = self.hops.get_mut(&key) else {
            return;
        };
        if hop.peer == peer || (keep && peer.is_none()) {
            return;
        }
        let old = std::mem::replace(&mut hop.peer, peer);
        if let Some(new) = peer {
            let entry = self.peers.entry(new).or_insert_with(|| {
                changes.solicit.push(new);
                let mut believed = Believed::guess(new.addr);
                believed.update(new.addr, belief(view.neighbour(new)));
                Peer {
                    believed,
                    addr4: None,
                    hops: FxHashSet::default(),
                }
            });
            entry.hops.insert(key);
        }
        if let Some(old) = old {
            self.leave_peer(old, key, changes);
        }
    }

    fn leave_peer(&mut self, peer: NeighbourKey, hop: HopKey, changes: &mut ResolveChanges) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.hops.remove(&hop);
        if !entry.hops.is_empty() {
            return;
        }
        if let Some(addr) = entry.addr4 {
            self.pool.release(peer.dev, addr);
            changes.neighbours.push(NeighbourKey {
                dev: peer.dev,
                addr: IpAddr::V4(addr),
            });
        }
        self.peers.remove(&peer);
        changes.release.push(peer);
    }
}

/// What a hop comes down to.
enum Wish {
    /// The kernel resolves it itself.
    Plain(KernelHop),
    /// An IPv6 neighbour that an IPv4 route needs an address and a MAC for.
    Peer(NeighbourKey),
    Blocked(Reason),
}

fn classify(view: &KernelView, key: HopKey) -> Wish {
    let HopKey {
        family,
        dev,
        via,
        onlink,
    } = key;
    let link = match view.link(dev) {
        None => return Wish::Blocked(Reason::LinkUnknown),
        Some(link) if !link.usable() => return Wish::Blocked(Reason::LinkDown),
        Some(link) => link,
    };
    let plain = |family, via, onlink| {
        Wish::Plain(KernelHop {
            family,
            via,
            dev,
            onlink,
        })
    };
    let peer = |addr| {
        // A neighbour that is written there for 169.254.0.1 becomes 0.0.0.0: that of every IPv4 packet of the link, on `lo`
        // all of the host's own. Nothing has a MAC there anyway.
        if link.one_neighbour {
            return plain(
                Family::V6,
                Some(IpAddr::V6(addr)),
                onlink && !is_link_local6(addr),
            );
        }
        Wish::Peer(NeighbourKey {
            dev,
            addr: IpAddr::V6(addr),
        })
    };
    match (family, via) {
        (family, None) => plain(family, None, false),
        (Family::V4, Some(IpAddr::V4(ZEBRA_ADDR))) => match view.sole_router(dev) {
            Some(NeighbourKey {
                addr: IpAddr::V6(addr),
                ..
            }) => peer(addr),
            _ => Wish::Blocked(Reason::NextHopLost),
        },
        (Family::V4, Some(IpAddr::V6(addr))) => peer(addr),
        (Family::V6, Some(IpAddr::V6(addr))) => {
            plain(Family::V6, via, onlink && !is_link_local6(addr))
        }
        (Family::V4, Some(IpAddr::V4(_))) => plain(Family::V4, via, onlink),
        (Family::V6, Some(IpAddr::V4(_))) => Wish::Blocked(Reason::FamilyMismatch),
    }
}

/// Whether FRR sent 169.254.0.1 in place of the real next hop.
fn is_lost(key: &HopKey) -> bool {
    key.family == Family::V4 && key.via == Some(IpAddr::V4(ZEBRA_ADDR))
}

/// An address of this host, or somebody else's permanent entry that leads elsewhere or soon may: not ours to use. That of
/// zebra is of whichever router spoke last, and zebra may change it while we are not here to notice.
fn is_taken(view: &KernelView, key: NeighbourKey, mac: MacAddr) -> bool {
    let others =
        |n: &Neighbour| n.state == NeighbourState::Permanent && n.protocol != Protocol::REDIRECT.0;
    let may_change = || key.addr == IpAddr::V4(ZEBRA_ADDR) && view.has_other_router(key.dev, mac);
    view.is_own(key)
        || view
            .neighbour(key)
            .is_some_and(|n| others(n) && (n.mac != Some(mac) || may_change()))
}
