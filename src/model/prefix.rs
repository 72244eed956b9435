//! Canonical prefixes and route keys. A [`Prefix`] has no host bits and a length that fits its family,
//! so nothing behind the edge checks that again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// The address family of a route or of a next-hop object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

impl Family {
    /// The longest prefix length of the family.
    pub const fn max_len(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `"ipv4"` or `"ipv6"`, as in the configuration and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// What is wrong with a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// The length is over the family's.
    #[error("prefix length {len} is over {max}")]
    Length {
        /// The length that was given.
        len: u8,
        /// The longest length of the family.
        max: u8,
    },
    /// Bits behind the length are set.
    #[error("host bits are set behind /{len}")]
    HostBits {
        /// The length that was given.
        len: u8,
    },
    /// Not an address, or not `ADDRESS/LEN`.
    #[error("not an address or prefix")]
    Syntax,
}

/// An IP prefix without host bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// A prefix as given; refuses host bits and lengths over the family's.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let max = Family::of(addr).max_len();
        if len > max {
            return Err(PrefixError::Length { len, max });
        }
        let host_bits = match addr {
            IpAddr::V4(a) => a.to_bits() & !mask4(len) != 0,
            IpAddr::V6(a) => a.to_bits() & !mask6(len) != 0,
        };
        if host_bits {
            Err(PrefixError::HostBits { len })
        } else {
            Ok(Self { addr, len })
        }
    }

    /// The prefix of this length that covers `addr`.
    pub fn masked(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let max = Family::of(addr).max_len();
        if len > max {
            return Err(PrefixError::Length { len, max });
        }
        let addr = match addr {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask4(len))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask6(len))),
        };
        Ok(Self { addr, len })
    }

    /// The host route of an address.
    pub const fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: Family::of(addr).max_len(),
        }
    }

    /// The network address.
    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    /// The prefix length.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a prefix length is not a container's"
    )]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// The address family.
    pub const fn family(self) -> Family {
        Family::of(self.addr)
    }

    /// Whether `addr` lies inside.
    pub fn contains(self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(p), IpAddr::V4(a)) => a.to_bits() & mask4(self.len) == p.to_bits(),
            (IpAddr::V6(p), IpAddr::V6(a)) => a.to_bits() & mask6(self.len) == p.to_bits(),
            _ => false,
        }
    }

    /// Whether `other` is this prefix or a longer one inside it.
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

const fn mask4(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len) }
}

const fn mask6(len: u8) -> u128 {
    if len == 0 {
        0
    } else {
        u128::MAX << (128 - len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.width().is_some() {
            f.pad(&format!("{}/{}", self.addr, self.len))
        } else {
            write!(f, "{}/{}", self.addr, self.len)
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `ADDRESS/LEN`, or a bare address as its host route.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| PrefixError::Syntax)?;
        match len {
            None => Ok(Self::host(addr)),
            Some(len) => Self::new(addr, len.parse().map_err(|_| PrefixError::Syntax)?),
        }
    }
}

/// A kernel routing table number (`RTA_TABLE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

impl TableId {
    /// `RT_TABLE_MAIN`.
    pub const MAIN: Self = Self(254);
    /// `RT_TABLE_LOCAL`.
    pub const LOCAL: Self = Self(255);
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What identifies a route: its table and its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// The table.
    pub table: TableId,
    /// The prefix.
    pub prefix: Prefix,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} table {}", self.prefix, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_and_lengths_are_refused() {
        assert_eq!(
            "10.0.0.1/24".parse::<Prefix>(),
            Err(PrefixError::HostBits { len: 24 })
        );
        assert_eq!(
            Prefix::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 33),
            Err(PrefixError::Length { len: 33, max: 32 })
        );
        assert_eq!("10.0.0.0".parse::<Prefix>().unwrap().len(), 32);
        assert_eq!("::/0".parse::<Prefix>().unwrap().len(), 0);
    }

    #[test]
    fn containment_respects_family_and_length() {
        let default: Prefix = "0.0.0.0/0".parse().unwrap();
        let p: Prefix = "10.1.0.0/16".parse().unwrap();
        assert!(default.covers(p) && !p.covers(default));
        assert!(p.contains("10.1.255.255".parse().unwrap()));
        assert!(!default.contains("::1".parse().unwrap()));
    }
}
