//! Which Ethernet address to believe: what neighbour discovery knows, over what the EUI-64 link-local says.
//!
//! A neighbour that turns FAILED loses a next hop only when its address holds no MAC: with an EUI-64 address we keep
//! forwarding, because BGP and BFD judge liveness, and some peers never answer neighbour solicitations (DESIGN 5).

use std::net::IpAddr;

use crate::model::{MacAddr, MacFrom, Reason, eui64_mac};
use crate::view::Belief;

/// What is believed about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Believed {
    /// Its address and where that came from.
    pub mac: Option<(MacAddr, MacFrom)>,
    /// Neighbour discovery asked and got no answer.
    pub failed: bool,
}

impl Believed {
    /// Before neighbour discovery has said anything.
    pub fn guess(addr: IpAddr) -> Self {
        Self {
            mac: eui64(addr),
            failed: false,
        }
    }

    /// Takes in what the neighbour entry says now.
    pub fn update(&mut self, addr: IpAddr, says: Belief) {
        match says {
            Belief::At(mac) => {
                *self = Self {
                    mac: Some((mac, MacFrom::Learned)),
                    failed: false,
                }
            }
            Belief::Failed => {
                self.failed = true;
                if eui64(addr).is_none() {
                    self.mac = None;
                }
            }
            // An entry that is being asked again, or was garbage-collected, does not unlearn what was known.
            Belief::Unknown => {}
        }
    }

    /// The address, or why there is none.
    pub const fn mac(&self) -> Result<(MacAddr, MacFrom), Reason> {
        match self.mac {
            Some(mac) => Ok(mac),
            None if self.failed => Err(Reason::NextHopUnreachable),
            None => Err(Reason::NextHopUnresolved),
        }
    }
}

fn eui64(addr: IpAddr) -> Option<(MacAddr, MacFrom)> {
    match addr {
        IpAddr::V6(addr) => eui64_mac(addr).map(|mac| (mac, MacFrom::Eui64)),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EUI: &str = "fe80::ff:fe00:200";
    const RANDOM: &str = "fe80::b291:9bf6:68e2:71b0";

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn learned_mac_overrides_guess() {
        let mut b = Believed::guess(addr(EUI));
        assert_eq!(b.mac().unwrap().1, MacFrom::Eui64);
        let other = MacAddr([2, 9, 9, 9, 9, 9]);
        b.update(addr(EUI), Belief::At(other));
        assert_eq!(b.mac(), Ok((other, MacFrom::Learned)));
    }

    #[test]
    fn failed_keeps_eui64_peers_and_drops_others() {
        let mut b = Believed::guess(addr(EUI));
        b.update(addr(EUI), Belief::Failed);
        assert!(b.mac().is_ok());
        let mut b = Believed::guess(addr(RANDOM));
        assert_eq!(b.mac(), Err(Reason::NextHopUnresolved));
        b.update(addr(RANDOM), Belief::At(MacAddr([2, 0, 0, 0, 3, 0])));
        assert!(b.mac().is_ok());
        b.update(addr(RANDOM), Belief::Unknown);
        assert!(
            b.mac().is_ok(),
            "a garbage-collected entry is not unlearned"
        );
        b.update(addr(RANDOM), Belief::Failed);
        assert_eq!(b.mac(), Err(Reason::NextHopUnreachable));
    }
}
