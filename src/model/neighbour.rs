//! Neighbours, and how a MAC address follows from a link-local address.

use std::net::{IpAddr, Ipv6Addr};

use super::{IfIndex, MacAddr, Protocol};

/// What identifies a neighbour: a link and an address on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NeighbourKey {
    /// The link.
    pub dev: IfIndex,
    /// The address.
    pub addr: IpAddr,
}

/// The kernel's neighbour states (`NUD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighbourState {
    /// `NUD_NONE`.
    None,
    /// `NUD_INCOMPLETE`: being asked, no answer yet.
    Incomplete,
    /// `NUD_REACHABLE`.
    Reachable,
    /// `NUD_STALE`: valid, not confirmed lately.
    Stale,
    /// `NUD_DELAY`.
    Delay,
    /// `NUD_PROBE`.
    Probe,
    /// `NUD_FAILED`: asked, no answer.
    Failed,
    /// `NUD_NOARP`.
    NoArp,
    /// `NUD_PERMANENT`.
    Permanent,
}

impl NeighbourState {
    /// `NUD_VALID` of the kernel: the address may be used.
    pub const fn is_valid(self) -> bool {
        match self {
            Self::Reachable
            | Self::Stale
            | Self::Delay
            | Self::Probe
            | Self::NoArp
            | Self::Permanent => true,
            Self::None | Self::Incomplete | Self::Failed => false,
        }
    }

    /// The kernel's word in lower case, as `ip neigh` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::NoArp => "noarp",
            Self::Permanent => "permanent",
        }
    }
}

/// A neighbour entry as the kernel last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Link and address.
    pub key: NeighbourKey,
    /// Its Ethernet address, if known.
    pub mac: Option<MacAddr>,
    /// Its state.
    pub state: NeighbourState,
    /// `NTF_ROUTER`: it said in neighbour discovery that it is a router.
    pub router: bool,
    /// `NDA_PROTOCOL`: who wrote it (our mark, zebra's, or 0).
    pub protocol: u8,
    /// `NTF_EXT_MANAGED`: the kernel keeps it fresh.
    pub managed: bool,
}

impl Neighbour {
    /// Kept fresh on our behalf.
    pub const fn is_managed_by_us(&self) -> bool {
        self.managed && self.protocol == Protocol::REDIRECT.0 && self.key.addr.is_ipv6()
    }
}

/// Where a MAC came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MacFrom {
    /// Neighbour discovery or ARP.
    Learned,
    /// Computed from an EUI-64 link-local address.
    Eui64,
}

impl MacFrom {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Eui64 => "eui64",
        }
    }
}

/// `fe80::/10`.
pub const fn is_link_local6(addr: Ipv6Addr) -> bool {
    addr.segments()[0] & 0xffc0 == 0xfe80
}

/// The MAC inside a modified EUI-64 link-local address (RFC 4291 appendix A).
///
/// `None` unless bytes 11 and 12 are `ff:fe`: random and stable-privacy link-locals (RFC 7217) hold no MAC, and
/// computing one anyway is the bug that makes zebra's 169.254.0.1 point nowhere (`b0:91:9b:...`).
pub fn eui64_mac(addr: Ipv6Addr) -> Option<MacAddr> {
    let b = addr.octets();
    if !is_link_local6(addr) || b[11] != 0xff || b[12] != 0xfe {
        return None;
    }
    let mac = MacAddr([b[8] ^ 0x02, b[9], b[10], b[13], b[14], b[15]]);
    mac.is_usable().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eui64_needs_fffe() {
        let mac = eui64_mac("fe80::ff:fe00:200".parse().unwrap());
        assert_eq!(mac, Some("02:00:00:00:02:00".parse().unwrap()));
        assert_eq!(
            eui64_mac("fe80::b291:9bf6:68e2:71b0".parse().unwrap()),
            None
        );
        assert_eq!(eui64_mac("2001:db8::ff:fe00:200".parse().unwrap()), None);
    }

    #[test]
    fn a_group_address_is_no_mac() {
        assert_eq!(eui64_mac("fe80::300:ff:fe00:1".parse().unwrap()), None);
    }
}
