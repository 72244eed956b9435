//! Routes as a source announces them, and as the kernel is given them.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::{IfIndex, KernelHop, KernelNhId, NextHop, Prefix, RouteKey, SourceNhId, TableId};

/// Who tells us about routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceId {
    /// zebra over the Forwarding Plane Manager.
    Fpm,
    /// zebra over its northbound gRPC, polled.
    Northbound,
}

impl SourceId {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Fpm, Self::Northbound];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fpm => "fpm",
            Self::Northbound => "northbound",
        }
    }
}

/// A route protocol number (`rtm_protocol`, `RTPROT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// `RTPROT_REDIRECT`: the one number that zebra drops before its RIB, and so the mark of our routes.
    pub const REDIRECT: Self = Self(1);
    /// `RTPROT_KERNEL`: zebra's kernel, connected and local routes.
    pub const KERNEL: Self = Self(2);

    /// Whether FRR writes routes with this number: those of `rt_protos` that are nobody else's.
    pub const fn is_frr(self) -> bool {
        matches!(self.0, 11 | 42 | 186..=198)
    }

    /// The name in FRR's `rt_protos`, if it has one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "redirect",
            2 => "kernel",
            3 => "boot",
            4 => "static-kernel",
            9 => "ra",
            11 => "zebra",
            12 => "bird",
            16 => "dhcp",
            42 => "babel",
            186 => "bgp",
            187 => "isis",
            188 => "ospf",
            189 => "rip",
            190 => "ripng",
            191 => "nhrp",
            192 => "eigrp",
            193 => "ldp",
            194 => "sharp",
            195 => "pbr",
            196 => "static",
            197 => "openfabric",
            198 => "srte",
            _ => return None,
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

/// What happens to a packet that matches the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// `RTN_UNICAST`.
    Unicast,
    /// `RTN_BLACKHOLE`: dropped silently.
    Blackhole,
    /// `RTN_UNREACHABLE`.
    Unreachable,
    /// `RTN_PROHIBIT`.
    Prohibit,
}

impl RouteKind {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        }
    }
}

/// The next hops of a route: named by id (with next-hop groups on) or written out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathHops {
    /// None at all: a blackhole, unreachable or prohibit.
    None,
    /// `RTA_NH_ID`; the id may be announced later.
    Id(SourceNhId),
    /// In the order of the message.
    Inline(Box<[NextHop]>),
}

/// One way to a prefix, as a source announced it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutePath {
    /// Who made the route.
    pub protocol: Protocol,
    /// What it does.
    pub kind: RouteKind,
    /// `RTA_PRIORITY` as received (zebra's own 20, not what we write).
    pub metric: u32,
    /// `RTAX_MTU`.
    pub mtu: Option<NonZeroU32>,
    /// `RTA_PREFSRC`.
    pub prefsrc: Option<IpAddr>,
    /// Where to.
    pub hops: PathHops,
}

/// A route put or withdrawn by a source. A withdrawal followed by an announcement of the same key within one frame
/// has already been made one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteUpdate {
    /// Which route; the table is the sender's raw one.
    pub key: RouteKey,
    /// The path, or `None` when it was withdrawn.
    pub path: Option<RoutePath>,
    /// The protocol of the message, also of a withdrawal (0 when the sender doesn't say, as the older `zebra_fpm`).
    pub protocol: Protocol,
}

/// A route in the form that the kernel gets, without its key: what many routes share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelRoute {
    /// What it does.
    pub kind: RouteKind,
    /// Where to.
    pub target: KernelTarget,
    /// `RTAX_MTU`.
    pub mtu: Option<NonZeroU32>,
    /// `RTA_PREFSRC`.
    pub prefsrc: Option<IpAddr>,
}

/// Where a kernel route points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KernelTarget {
    /// Nothing: blackhole, unreachable, prohibit.
    None,
    /// `RTA_NH_ID`: an object of ours.
    Object(KernelNhId),
    /// Written out, with weights from 1. One hop or a multipath.
    Hops(Box<[(KernelHop, u16)]>),
}

/// A write of one kernel route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteOp {
    /// With `NLM_F_EXCL`: never over somebody else's route.
    Create(Arc<KernelRoute>),
    /// With `NLM_F_REPLACE`: only over what was written or read back as ours.
    Replace(Arc<KernelRoute>),
    /// By table, prefix, metric and protocol.
    Delete,
}

/// The largest `RTAX_MTU` that Linux keeps for IPv4 (65535 - 15); a larger one reads back as this.
pub const MTU_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(65_519);

/// The number of an interned [`KernelRoute`]; a route record holds it in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FormId(pub(crate) NonZeroU32);

/// The route that the kernel itself takes for an address, whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMatch {
    /// Where it was found: a VRF's packets that find nothing there are looked up in the main table.
    pub table: TableId,
    /// The route.
    pub prefix: Prefix,
    /// What it does.
    pub kind: MatchKind,
    /// Who wrote it.
    pub protocol: Protocol,
    /// `RTA_PRIORITY`; 0 for the kernel's own.
    pub metric: u32,
    /// Where to, if it is one link.
    pub dev: Option<IfIndex>,
    /// The gateway, if it is one.
    pub via: Option<IpAddr>,
}

/// What the kernel does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchKind {
    /// Forwards it.
    Forward,
    /// Delivers it to this host (its addresses, broadcasts).
    Local,
    /// Multicast.
    Multicast,
    /// Drops or refuses it.
    Discard,
}
