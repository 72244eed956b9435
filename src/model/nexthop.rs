//! Next hops as a source announced them, and as the kernel is given them. The two are different types:
//! an IPv6 link-local next hop of an IPv4 route becomes `169.254.0.x onlink` on the way.

use std::net::IpAddr;

use super::{Family, IfIndex};

/// More different members than this make a group unusable (FRR builds are at most 512-way).
pub const MAX_GROUP_MEMBERS: usize = 1024;

/// One next hop as the source means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The gateway; `None` for a directly connected destination.
    pub via: Option<IpAddr>,
    /// The link; zebra always names it, other senders may not.
    pub dev: Option<IfIndex>,
    /// Weight, counting from 1.
    pub weight: u32,
    /// The gateway is on the link whatever the addresses say (`RTNH_F_ONLINK`).
    pub onlink: bool,
    /// It carries MPLS labels, `SRv6` segments or a tunnel.
    pub encap: bool,
}

/// The hops of a group: sorted, and without duplicates (their weights are added, as the kernel refuses an object
/// twice in a group).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NextHopSet(Box<[NextHop]>);

impl NextHopSet {
    /// Sorts, merges duplicates and scales nothing.
    pub fn new(mut hops: Vec<NextHop>) -> Self {
        hops.sort_unstable_by_key(|h| (h.dev, h.via, h.onlink, h.encap));
        hops.dedup_by(|next, kept| {
            let same = (next.dev, next.via, next.onlink, next.encap)
                == (kept.dev, kept.via, kept.onlink, kept.encap);
            if same {
                kept.weight = kept.weight.saturating_add(next.weight);
            }
            same
        });
        if let [only] = hops.as_mut_slice() {
            // The weight of a single hop says nothing; leaving it would make two sets of one.
            only.weight = 1;
        }
        Self(hops.into_boxed_slice())
    }

    /// The hops.
    pub fn hops(&self) -> &[NextHop] {
        &self.0
    }
}

/// A next-hop id in a source's own numbering (`NHA_ID` over FPM).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceNhId(pub u32);

/// What a source says about one of its next-hop ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceNextHop {
    /// A single next hop.
    Hop(NextHop),
    /// A group of ids with weights from 1. Members may be announced later.
    Group(Box<[(SourceNhId, u32)]>),
    /// `NHA_BLACKHOLE`.
    Blackhole,
}

/// An announcement or removal of a next-hop id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHopUpdate {
    /// The id.
    pub id: SourceNhId,
    /// Its content, or `None` when it was removed.
    pub content: Option<SourceNextHop>,
    /// `nh_protocol`: 2 marks an object that zebra only heard of from the kernel.
    pub protocol: u8,
}

/// An interned group of next hops; only the interner makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NhgId(pub(crate) u32);

impl NhgId {
    /// The number, for output.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The id of a kernel next-hop object of ours.
///
/// Ids are one name space for the whole network namespace and zebra listens: with bit 28 or 29 set it takes them for
/// EVPN objects and leaves them alone (docs/evidence.md: 0xB8000000-0xBFFFFFFF, never used twice within a boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelNhId(u32);

impl KernelNhId {
    /// The first id of our range.
    pub const FIRST: Self = Self(0xB800_0000);
    /// The last id of our range.
    pub const LAST: Self = Self(0xBFFF_FFFF);

    /// `None` outside our range.
    pub const fn new(id: u32) -> Option<Self> {
        if id >= Self::FIRST.0 && id <= Self::LAST.0 {
            Some(Self(id))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One next hop in the form that the kernel gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelHop {
    /// The family of a next-hop object; for an inline hop the family of its gateway, or of the route.
    pub family: Family,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The link.
    pub dev: IfIndex,
    /// `RTNH_F_ONLINK`.
    pub onlink: bool,
}
