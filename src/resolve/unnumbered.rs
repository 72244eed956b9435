//! RFC 5549 next hops for an IPv4 FIB: which 169.254 address stands for which IPv6 neighbour.
//!
//! `link, peer -> 169.254.0.1`, then `.2 - .255` and `169.254.255.0 - .255`: the ranges that RFC 3927 (2.1) reserves,
//! so no self-configured host answers to them, and clear of 169.254.169.254 of the clouds. zebra itself writes
//! 169.254.0.1 on links with router advertisements, one for all peers and not always with the right MAC: then that
//! address is avoided (docs/evidence.md, "169.254.0.x"). An address is remembered after its peer went, so that a
//! returning peer, or a restarted daemon, gets the same one.

use std::net::{IpAddr, Ipv4Addr};

use rustc_hash::FxHashMap;

use crate::model::{IfIndex, NeighbourKey};

/// The address that zebra uses, and the first we try.
pub const ZEBRA_ADDR: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);

/// The addresses of the pool in the order in which they are tried.
pub fn candidates() -> impl Iterator<Item = Ipv4Addr> {
    (1..=255)
        .map(|last| Ipv4Addr::new(169, 254, 0, last))
        .chain((0..=255).map(|last| Ipv4Addr::new(169, 254, 255, last)))
}

/// Whether an address may stand for a neighbour.
pub const fn is_pool_address(addr: Ipv4Addr) -> bool {
    matches!(addr.octets(), [169, 254, 0, 1..=255] | [169, 254, 255, _])
}

/// Where an address already leads, by an entry that an earlier run wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// There is no such entry.
    Nowhere,
    /// To the MAC that is wanted.
    There,
    /// To another one.
    Elsewhere,
}

/// Who has which address.
#[derive(Debug, Default)]
pub struct AddressPool {
    used: FxHashMap<(IfIndex, Ipv4Addr), IpAddr>,
    remembered: FxHashMap<NeighbourKey, Ipv4Addr>,
    version: u64,
}

impl AddressPool {
    /// An address for a peer: the one it had, else one that already leads to its MAC (written by an earlier run whose
    /// memory was lost), else the first that is free and not to be avoided. One that leads elsewhere is taken last: routes of
    /// the earlier run may still go by it.
    pub fn allocate(
        &mut self,
        peer: NeighbourKey,
        leads: impl Fn(Ipv4Addr) -> Leads,
        avoid: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let had = self.remembered.get(&peer).copied();
        // Addresses that other, absent peers had are taken last: they may come back.
        let of_others: Vec<Ipv4Addr> = self
            .remembered
            .iter()
            .filter(|(key, _)| key.dev == peer.dev && **key != peer)
            .map(|(_, addr)| *addr)
            .collect();
        let free = |addr: &Ipv4Addr| !of_others.contains(addr);
        let addr = had
            .into_iter()
            .chain(candidates().filter(|addr| free(addr) && leads(*addr) == Leads::There))
            .chain(candidates().filter(|addr| free(addr) && leads(*addr) == Leads::Nowhere))
            .chain(candidates().filter(free))
            .chain(candidates())
            .find(|&addr| !self.used.contains_key(&(peer.dev, addr)) && !avoid(addr))?;
        self.used.insert((peer.dev, addr), peer.addr);
        self.remember(peer, addr);
        Some(addr)
    }

    /// The peer that an address stands for.
    pub fn peer_of(&self, dev: IfIndex, addr: Ipv4Addr) -> Option<NeighbourKey> {
        self.used
            .get(&(dev, addr))
            .map(|&addr| NeighbourKey { dev, addr })
    }

    /// Gives an address back; it stays remembered for its peer.
    pub fn release(&mut self, dev: IfIndex, addr: Ipv4Addr) {
        self.used.remove(&(dev, addr));
    }

    /// Forgets a link that no longer exists.
    pub fn forget_link(&mut self, dev: IfIndex) {
        self.remembered.retain(|key, _| key.dev != dev);
    }

    /// Remembers an address from an earlier run.
    pub fn remember(&mut self, peer: NeighbourKey, addr: Ipv4Addr) {
        if self.remembered.insert(peer, addr) != Some(addr) {
            self.version += 1;
        }
    }

    /// Counts changes of what is remembered.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What is remembered, to be saved.
    pub fn remembered(&self) -> impl Iterator<Item = (NeighbourKey, Ipv4Addr)> + '_ {
        self.remembered.iter().map(|(&key, &addr)| (key, addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> NeighbourKey {
        NeighbourKey {
            dev: IfIndex::new(2).unwrap(),
            addr: format!("fe80::{n:x}").parse().unwrap(),
        }
    }

    #[test]
    fn the_first_peer_gets_the_address_of_zebra_and_others_their_own() {
        let mut pool = AddressPool::default();
        assert_eq!(
            pool.allocate(peer(1), |_| Leads::Nowhere, |_| false),
            Some(ZEBRA_ADDR)
        );
        assert_eq!(
            pool.allocate(peer(2), |_| Leads::Nowhere, |_| false),
            Some(Ipv4Addr::new(169, 254, 0, 2))
        );
        let mut pool = AddressPool::default();
        assert_eq!(
            pool.allocate(peer(1), |_| Leads::Nowhere, |a| a == ZEBRA_ADDR),
            Some(Ipv4Addr::new(169, 254, 0, 2))
        );
    }

    #[test]
    fn a_returning_peer_gets_its_address_again() {
        let mut pool = AddressPool::default();
        pool.allocate(peer(1), |_| Leads::Nowhere, |_| false);
        let second = pool
            .allocate(peer(2), |_| Leads::Nowhere, |_| false)
            .unwrap();
        pool.release(peer(1).dev, ZEBRA_ADDR);
        pool.release(peer(2).dev, second);
        assert_eq!(
            pool.allocate(peer(3), |_| Leads::Nowhere, |_| false),
            Some(Ipv4Addr::new(169, 254, 0, 3))
        );
        assert_eq!(
            pool.allocate(peer(2), |_| Leads::Nowhere, |_| false),
            Some(second)
        );
    }

    #[test]
    fn an_address_that_leads_there_already_is_taken() {
        let mut pool = AddressPool::default();
        let kept = Ipv4Addr::new(169, 254, 255, 7);
        assert_eq!(
            pool.allocate(
                peer(1),
                |addr| if addr == kept {
                    Leads::There
                } else {
                    Leads::Nowhere
                },
                |_| false
            ),
            Some(kept)
        );
    }

    #[test]
    fn an_address_that_leads_elsewhere_is_taken_last() {
        let mut pool = AddressPool::default();
        let elsewhere = |addr: Ipv4Addr| {
            if addr.octets()[2] == 0 {
                Leads::Elsewhere
            } else {
                Leads::Nowhere
            }
        };
        for n in 1..=256 {
            let addr = pool.allocate(peer(n), elsewhere, |_| false).unwrap();
            assert_eq!(addr.octets()[2], 255);
        }
        assert_eq!(
            pool.allocate(peer(257), elsewhere, |_| false),
            Some(ZEBRA_ADDR)
        );
    }

    #[test]
    fn the_pool_ends_after_511_peers() {
        let mut pool = AddressPool::default();
        for n in 1..=511 {
            let addr = pool
                .allocate(peer(n), |_| Leads::Nowhere, |_| false)
                .unwrap();
            assert!(matches!(addr.octets(), [169, 254, 0 | 255, _]));
        }
        assert_eq!(
            pool.allocate(peer(999), |_| Leads::Nowhere, |_| false),
            None
        );
    }
}
