//! Flower rules: where they stand, what they match, what they do. Only what we can emit.
//!
//! What we want ([`FlowerRule`]) and what the kernel shows ([`ObservedRule`]) are different types. Numbers are tc's own
//! (`include/uapi/linux/pkt_cls.h`, `pkt_sched.h`).

use std::fmt;
use std::iter::Sum;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};

use super::{Family, IfIndex, IfName, MacAddr, Prefix};

/// Where rules hang: the ingress of a port, or a block that ports share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Block {
    /// The ingress of one port (its `clsact` qdisc).
    Port(IfIndex),
    /// `ingress_block N`.
    Shared(NonZeroU32),
}

/// A chain of a block: 0 to `0x0fff_ffff` (`TC_ACT_EXT_VAL_MASK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chain(u32);

impl Chain {
    /// Where every packet begins.
    pub const ENTRY: Self = Self(0);
    /// The largest number.
    pub const MAX: Self = Self(0x0fff_ffff);

    /// `None` past [`Self::MAX`].
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A priority within a chain; the lowest is looked at first. One protocol each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prio(NonZeroU16);

impl Prio {
    /// `None` for 0, which asks the kernel to choose.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Prio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A rule's number within its chain and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(NonZeroU32);

impl Handle {
    /// `None` for 0, which asks the kernel to choose.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What identifies a rule to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RulePlace {
    /// The block.
    pub block: Block,
    /// The chain.
    pub chain: Chain,
    /// The priority.
    pub prio: Prio,
    /// The handle.
    pub handle: Handle,
}

/// The protocol of a priority (`tc filter ... protocol P`): what the Ethernet header says, an 802.1Q tag included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EtherProto {
    /// Untagged IPv4.
    Ipv4,
    /// Untagged IPv6.
    Ipv6,
    /// With an 802.1Q tag.
    Vlan,
}

impl EtherProto {
    /// The untagged packets of a family.
    pub const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ipv4,
            Family::V6 => Self::Ipv6,
        }
    }

    /// The family of untagged packets.
    pub const fn family(self) -> Option<Family> {
        match self {
            Self::Ipv4 => Some(Family::V4),
            Self::Ipv6 => Some(Family::V6),
            Self::Vlan => None,
        }
    }

    /// Whether its packets bear a tag.
    pub const fn framing(self) -> Framing {
        match self {
            Self::Ipv4 | Self::Ipv6 => Framing::Untagged,
            Self::Vlan => Framing::Tagged,
        }
    }
}

/// Whether packets bear an 802.1Q tag. A priority has one protocol and a tag comes off in the last action only, so what is routed
/// untagged and what is routed tagged have chains of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Framing {
    /// They bear none.
    Untagged,
    /// They bear one.
    Tagged,
}

impl Framing {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Untagged, Self::Tagged];

    /// The protocol of a priority for packets of a family.
    pub const fn protocol(self, family: Family) -> EtherProto {
        match self {
            Self::Untagged => EtherProto::of(family),
            Self::Tagged => EtherProto::Vlan,
        }
    }

    /// The match on the tag that goes with [`Self::protocol`].
    pub const fn tag(self, family: Family) -> Option<VlanMatch> {
        match self {
            Self::Untagged => None,
            Self::Tagged => Some(VlanMatch {
                id: None,
                carries: Some(family),
            }),
        }
    }
}

/// An address under a mask, which may be any bits: a prefix, or the low bits that choose an ECMP bucket. No bits outside of
/// the mask are set, which [`Masked::v4`] and [`Masked::v6`] see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Masked {
    /// IPv4.
    V4 {
        /// The bits.
        addr: u32,
        /// Which bits count.
        mask: u32,
    },
    /// IPv6.
    V6 {
        /// The bits.
        addr: u128,
        /// Which bits count.
        mask: u128,
    },
}

impl Masked {
    /// IPv4 bits under a mask.
    pub const fn v4(addr: u32, mask: u32) -> Self {
        Self::V4 {
            addr: addr & mask,
            mask,
        }
    }

    /// IPv6 bits under a mask.
    pub const fn v6(addr: u128, mask: u128) -> Self {
        Self::V6 {
            addr: addr & mask,
            mask,
        }
    }

    /// The addresses of a prefix.
    pub fn prefix(prefix: Prefix) -> Self {
        let len = u32::from(prefix.len());
        match prefix.addr() {
            std::net::IpAddr::V4(addr) => {
                Self::v4(addr.to_bits(), u32::MAX.checked_shl(32 - len).unwrap_or(0))
            }
            std::net::IpAddr::V6(addr) => Self::v6(
                addr.to_bits(),
                u128::MAX.checked_shl(128 - len).unwrap_or(0),
            ),
        }
    }

    /// Its family.
    pub const fn family(self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4 { addr, mask } if mask.leading_ones() == mask.count_ones() => {
                write!(f, "{}/{}", Ipv4Addr::from_bits(addr), mask.count_ones())
            }
            Self::V4 { addr, mask } => {
                write!(
                    f,
                    "{}/{}",
                    Ipv4Addr::from_bits(addr),
                    Ipv4Addr::from_bits(mask)
                )
            }
            Self::V6 { addr, mask } if mask.leading_ones() == mask.count_ones() => {
                write!(f, "{}/{}", Ipv6Addr::from_bits(addr), mask.count_ones())
            }
            Self::V6 { addr, mask } => {
                write!(
                    f,
                    "{}/{}",
                    Ipv6Addr::from_bits(addr),
                    Ipv6Addr::from_bits(mask)
                )
            }
        }
    }
}

/// The match on one 802.1Q tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanMatch {
    /// `vlan_id`; any when absent.
    pub id: Option<u16>,
    /// `vlan_ethtype`: what the tag carries; any when absent.
    pub carries: Option<Family>,
}

/// The match on a TCP, UDP or SCTP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortMatch {
    /// From, to, both included.
    Range(u16, u16),
    /// Bits and which of them count.
    Masked(u16, u16),
}

/// What a rule matches; all that is present must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RuleMatch {
    /// `indev`: the port that the packet came in by.
    pub indev: Option<IfName>,
    /// `dst_mac`, all 48 bits.
    pub dst_mac: Option<MacAddr>,
    /// The tag; only with [`EtherProto::Vlan`].
    pub vlan: Option<VlanMatch>,
    /// `src_ip`.
    pub src: Option<Masked>,
    /// `dst_ip`.
    pub dst: Option<Masked>,
    /// `ip_ttl`, the hop limit of IPv6: bits and which of them count.
    pub ttl: Option<(u8, u8)>,
    /// `ip_tos`, the traffic class of IPv6: bits and which of them count.
    pub tos: Option<(u8, u8)>,
    /// `ip_proto`.
    pub ip_proto: Option<u8>,
    /// `src_port`.
    pub src_port: Option<PortMatch>,
    /// `dst_port`.
    pub dst_port: Option<PortMatch>,
    /// ICMP or `ICMPv6` type.
    pub icmp_type: Option<u8>,
}

/// One action. A rule's actions are done in order; the last one decides where the packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// `vlan pop`.
    PopVlan,
    /// `vlan push id N`, 802.1Q.
    PushVlan(u16),
    /// `vlan modify id N`, 802.1Q.
    ModifyVlan(u16),
    /// One extended pedit: `munge eth dst set`, `munge eth src set`, and for a routed packet `munge ip ttl add 0xff` or
    /// `munge ip6 hoplimit add 0xff`.
    Rewrite {
        /// The new source.
        src: MacAddr,
        /// The new destination.
        dst: MacAddr,
        /// The family whose TTL or hop limit is lowered by one.
        hop_limit: Option<Family>,
    },
    /// `csum ip`: the IPv4 header's checksum and nothing else (drivers refuse more).
    CsumIpv4,
    /// `mirred egress redirect dev`.
    Redirect(IfIndex),
    /// `goto chain`.
    Goto(Chain),
    /// `drop`.
    Drop,
    /// `trap`: to the CPU. **In software it drops.**
    Trap,
    /// `pass`: ends the search; the packet goes on as if there were no rules.
    Pass,
}

/// Where a rule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Runs {
    /// `skip_sw`: in hardware, or it is refused.
    #[default]
    Hardware,
    /// `skip_hw`.
    Software,
    /// No flag: in software, and in hardware where the driver takes it.
    Either,
}

/// Marks a rule as ours and says what it is for (`TCA_ACT_COOKIE` of its first action). Opaque to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(pub [u8; 16]);

/// A rule as we want it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlowerRule {
    /// The protocol of its priority.
    pub protocol: EtherProto,
    /// What it matches.
    pub matches: RuleMatch,
    /// What it does, at least one.
    pub actions: Box<[RuleAction]>,
    /// Where it runs.
    pub runs: Runs,
    /// Our mark.
    pub cookie: Cookie,
}

/// What the driver says of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InHardware {
    /// `TCA_CLS_FLAGS_IN_HW`.
    pub in_hw: bool,
    /// `in_hw_count`: how many ports have it. In a shared block all of them should.
    pub count: u32,
}

/// Counters of a rule, the largest of its actions (some drivers count on some actions only).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleCounters {
    /// Packets in software.
    pub software_packets: u64,
    /// Bytes in software, without the Ethernet header (seen on Linux 6.12, at ingress).
    pub software_bytes: u64,
    /// Packets in hardware.
    pub hardware_packets: u64,
    /// Bytes in hardware; some NICs leave the Ethernet header out.
    pub hardware_bytes: u64,
    /// Since the last packet, in milliseconds; `None` before the first.
    pub idle_ms: Option<u64>,
}

impl Sum for RuleCounters {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            software_packets: sum.software_packets.saturating_add(one.software_packets),
            software_bytes: sum.software_bytes.saturating_add(one.software_bytes),
            hardware_packets: sum.hardware_packets.saturating_add(one.hardware_packets),
            hardware_bytes: sum.hardware_bytes.saturating_add(one.hardware_bytes),
            idle_ms: match (sum.idle_ms, one.idle_ms) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        })
    }
}

/// A rule as read back, ours or anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedRule {
    /// Where it stands.
    pub place: RulePlace,
    /// `TCA_ACT_COOKIE` of its first action, if it has the length of ours.
    pub cookie: Option<Cookie>,
    /// What it is; `None` when it has something that we never write (unreadable is never equal).
    pub rule: Option<FlowerRule>,
    /// What the driver says.
    pub hardware: InHardware,
    /// Its counters.
    pub counters: RuleCounters,
}
