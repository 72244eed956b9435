//! Links (network interfaces) as the kernel describes them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use super::{SwitchId, TableId, prefix::PrefixError};

/// A kernel interface index, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfIndex(NonZeroU32);

impl IfIndex {
    /// `None` for 0, which means "no interface" to the kernel.
    pub const fn new(index: u32) -> Option<Self> {
        match NonZeroU32::new(index) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An interface name.
pub type IfName = Box<str>;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Neither all-zero nor a group address: something that a neighbour can have.
    pub const fn is_usable(self) -> bool {
        let b = self.0;
        b[0] & 1 == 0 && (b[0] | b[1] | b[2] | b[3] | b[4] | b[5]) != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.map(|byte| format!("{byte:02x}")).join(":");
        f.pad(&text)
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(PrefixError::Syntax)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| PrefixError::Syntax)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(PrefixError::Syntax),
        }
    }
}

/// What makes a link a VLAN sub-interface (`IFLA_INFO_KIND` is `vlan`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VlanLink {
    /// The link whose frames it takes its own from; `None` when that is in another network namespace.
    pub lower: Option<IfIndex>,
    /// Its id.
    pub id: u16,
    /// Its tags are 802.1Q ones, no 802.1ad.
    pub is_802_1q: bool,
    /// It has an egress map, so what it sends may bear a priority.
    pub egress_map: bool,
}

/// A link as the kernel last told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: IfName,
    /// `IFF_UP`: the operator wants it.
    pub admin_up: bool,
    /// `IFF_LOWER_UP` and `IFF_RUNNING`: it has carrier. The kernel flushes next-hop objects without it.
    pub carrier: bool,
    /// `IFF_POINTOPOINT` or `IFF_LOOPBACK`: to the kernel one IPv4 neighbour, 0.0.0.0, stands for whatever is behind it
    /// (`arp_constructor`), whichever address a neighbour is written for.
    pub one_neighbour: bool,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu: u32,
    /// The bridge, bond or VRF that it is enslaved to.
    pub master: Option<IfIndex>,
    /// For a VRF device: the table it looks up.
    pub vrf_table: Option<TableId>,
    /// `IFLA_INFO_KIND`: `vlan`, `vrf`, `bridge`, ...; absent for a plain device.
    pub kind: Option<Box<str>>,
    /// For a VLAN sub-interface: which.
    pub vlan: Option<VlanLink>,
    /// The switch that it is a port of.
    pub switch: Option<SwitchId>,
    /// `IFLA_PHYS_PORT_NAME`: `p0`, `pf0vf1`.
    pub port_name: Option<Box<str>>,
}

impl Link {
    /// Whether the kernel forwards through it: up and with carrier.
    pub const fn usable(&self) -> bool {
        self.admin_up && self.carrier
    }
}
