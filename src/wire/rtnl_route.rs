//! Route messages (`RTM_NEWROUTE`, `RTM_DELROUTE`): taken apart without a copy, and what zebra means by them over FPM.
//!
//! [`RouteView`] only names the attributes and serves every reader, also of kernel dumps; its `key` and `path` judge
//! them. A route that names a next-hop group (zebra's default) is decoded without an allocation. Keeps no state: what
//! the stream has told about its sender comes in as a [`Dialect`].
//!
//! Seen on the wire and easily missed (FRR 8.4.4, 10.3, 10.7.1; streams in `tests/golden`):
//! nested types carry `NLA_F_NESTED` (0x8009 for `RTA_MULTIPATH`); one multipath may mix `RTA_GATEWAY` and `RTA_VIA`;
//! a table over 255 is `rtm_table` 0 (the kernel: 252) and `RTA_TABLE`; `RTA_VIA` is 22 bytes, padded to 24.
//! Format: `linux/rtnetlink.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use crate::model::{
    IfIndex, NextHop, PathHops, Prefix, PrefixError, Protocol, Reason, RouteKey, RouteKind,
    RoutePath, RouteUpdate, SourceNhId, TableId,
};

pub use self::common::decode_common_route;
use super::netlink::{Attributes, NLM_F_REPLACE, as_u32, u16_at, u32_at};
use super::rtnl_nexthop::address;

mod common;

/// `RTM_NEWROUTE`.
pub const RTM_NEWROUTE: u16 = 24;
/// `RTM_DELROUTE`.
pub const RTM_DELROUTE: u16 = 25;
/// `sizeof(struct rtmsg)`.
pub const RTMSG_LEN: usize = 12;
/// `sizeof(struct rtnexthop)`.
pub const RTNEXTHOP_LEN: usize = 8;

/// `AF_INET`.
pub const AF_INET: u8 = 2;
/// `AF_INET6`.
pub const AF_INET6: u8 = 10;
/// `AF_MPLS`: a label-switched path.
pub const AF_MPLS: u8 = 28;

/// `RTA_DST`.
pub const RTA_DST: u16 = 1;
/// `RTA_SRC`.
pub const RTA_SRC: u16 = 2;
/// `RTA_OIF`.
pub const RTA_OIF: u16 = 4;
/// `RTA_GATEWAY`.
pub const RTA_GATEWAY: u16 = 5;
/// `RTA_PRIORITY`.
pub const RTA_PRIORITY: u16 = 6;
/// `RTA_PREFSRC`.
pub const RTA_PREFSRC: u16 = 7;
/// `RTA_METRICS`.
pub const RTA_METRICS: u16 = 8;
/// `RTA_MULTIPATH`.
pub const RTA_MULTIPATH: u16 = 9;
/// `RTA_TABLE`.
pub const RTA_TABLE: u16 = 15;
/// `RTA_VIA`.
pub const RTA_VIA: u16 = 18;
/// `RTA_NEWDST`.
pub const RTA_NEWDST: u16 = 19;
/// `RTA_ENCAP_TYPE`.
pub const RTA_ENCAP_TYPE: u16 = 21;
/// `RTA_ENCAP`.
pub const RTA_ENCAP: u16 = 22;
/// `RTA_NH_ID`.
pub const RTA_NH_ID: u16 = 30;
/// `RTAX_MTU`, inside `RTA_METRICS`.
pub const RTAX_MTU: u16 = 2;
/// `RTNH_F_ONLINK`, in `rtm_flags` and `rtnh_flags`.
pub const RTNH_F_ONLINK: u32 = 4;

const RT_TABLE_UNSPEC: u8 = 0;
const RT_TABLE_COMPAT: u8 = 252;

/// The metric that `dplane_fpm_nl` puts on every route (`NL_DEFAULT_ROUTE_METRIC`).
const DPLANE_METRIC: u32 = 20;

/// Which of FRR's two FPM modules speaks. They differ in what a multipath weight means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Nothing told them apart yet; weights are read as `dplane_fpm_nl` means them.
    #[default]
    Unknown,
    /// `dplane_fpm_nl`: `rtnh_hops` is weight - 1, as in the kernel.
    DplaneFpmNl,
    /// The older `zebra_fpm`: `rtnh_hops` is the weight itself.
    ZebraFpm,
}

impl Dialect {
    /// The name of FRR's module.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::DplaneFpmNl => "dplane_fpm_nl",
            Self::ZebraFpm => "zebra_fpm",
        }
    }

    /// What a route message adds to the knowledge of who sends. To be asked before the message is decoded.
    ///
    /// What only `dplane_fpm_nl` sends settles it for good, whatever was guessed before: `NLM_F_REPLACE`, `RTA_NH_ID`,
    /// MPLS (and next-hop messages, which the caller sees). The rest decides only while nothing did:
    ///
    /// | message | says | because |
    /// | --- | --- | --- |
    /// | IPv4 `RTM_NEWROUTE` without `NLM_F_REPLACE` | `zebra_fpm` | 0x401 always; dplane sends 0x501 |
    /// | `RTM_DELROUTE` with / without `RTA_PRIORITY` | dplane / `zebra_fpm` | the latter sends `RTA_DST` alone |
    /// | metric other than 20 | `zebra_fpm` | dplane has 20 on everything, connected routes too |
    /// | a multipath of which every hop is 1 | `zebra_fpm` | equal weights, which dplane sends as 0 |
    /// | `RTNH_F_ONLINK`, `RTA_VIA`, a multipath hop of 0 | dplane | the latter knows no such |
    ///
    /// An IPv6 `RTM_NEWROUTE` without `NLM_F_REPLACE` says nothing (8.4.4's dplane clears it there): an IPv6-only
    /// stream is told by its connected routes, which have metric 0 in `zebra_fpm`. What is left open is a stream whose
    /// every route so far has metric 20 and hops of unequal weights.
    #[must_use]
    pub fn observe(self, add: bool, nlmsg_flags: u16, view: &RouteView<'_>) -> Self {
        if self == Self::DplaneFpmNl {
            return self;
        }
        if view.family == AF_MPLS
            || view.nh_id.is_some()
            || (add && nlmsg_flags & NLM_F_REPLACE != 0)
        {
            return Self::DplaneFpmNl;
        }
        if self == Self::ZebraFpm || view.damaged {
            return self;
        }
        let dplane = if add {
            let says_dplane = view.flags & RTNH_F_ONLINK != 0
                || view.via.is_some()
                || view.multipath.is_some_and(|bytes| {
                    Hops(bytes).any(|hop| {
                        hop.is_ok_and(|hop| {
                            hop.hops == 0 || hop.flags() & RTNH_F_ONLINK != 0 || hop.via.is_some()
                        })
                    })
                });
            if says_dplane {
                Some(true)
            } else if view.family == AF_INET
                || view.metric() != DPLANE_METRIC
                || view.has_hops_of_one()
            {
                Some(false)
            } else {
                None
            }
        } else {
            Some(view.priority.is_some())
        };
        match dplane {
            Some(true) => Self::DplaneFpmNl,
            Some(false) => Self::ZebraFpm,
            None => Self::Unknown,
        }
    }

    /// The weight from 1 that `rtnh_hops` stands for.
    const fn weight(self, hops: u8) -> u32 {
        match self {
            Self::Unknown | Self::DplaneFpmNl => hops as u32 + 1,
            Self::ZebraFpm => {
                if hops == 0 {
                    1
                } else {
                    hops as u32
                }
            }
        }
    }
}

/// A route message with its attributes named and nothing judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteView<'a> {
    /// `rtm_family`.
    pub family: u8,
    /// `rtm_dst_len`.
    pub dst_len: u8,
    /// `rtm_src_len`.
    pub src_len: u8,
    /// `rtm_table`; see [`RouteView::table`].
    pub rtm_table: u8,
    /// `rtm_protocol`.
    pub protocol: Protocol,
    /// `rtm_scope`.
    pub scope: u8,
    /// `rtm_type`.
    pub kind: u8,
    /// `rtm_flags`.
    pub flags: u32,
    /// `RTA_TABLE`.
    pub rta_table: Option<u32>,
    /// `RTA_DST`.
    pub dst: Option<&'a [u8]>,
    /// `RTA_SRC`.
    pub src: Option<&'a [u8]>,
    /// `RTA_PRIORITY`.
    pub priority: Option<u32>,
    /// `RTA_NH_ID`.
    pub nh_id: Option<u32>,
    /// `RTA_OIF`.
    pub oif: Option<u32>,
    /// `RTA_GATEWAY`.
    pub gateway: Option<&'a [u8]>,
    /// `RTA_VIA`.
    pub via: Option<&'a [u8]>,
    /// `RTA_MULTIPATH`, see [`RouteView::hops`].
    pub multipath: Option<&'a [u8]>,
    /// `RTA_METRICS`.
    pub metrics: Option<&'a [u8]>,
    /// `RTA_PREFSRC`.
    pub prefsrc: Option<&'a [u8]>,
    /// `RTA_ENCAP`, `RTA_ENCAP_TYPE` or `RTA_NEWDST`.
    pub encap: bool,
    /// An attribute's length doesn't fit; what came before it is filled in.
    pub damaged: bool,
}

impl<'a> RouteView<'a> {
    /// Takes a message's payload apart; `None` when there are fewer bytes than `struct rtmsg`. Damage behind it only
    /// sets `damaged`, so that the key can still be told.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (header, attributes) = payload.split_at_checked(RTMSG_LEN)?;
        let mut view = Self {
            family: header[0],
            dst_len: header[1],
            src_len: header[2],
            rtm_table: header[4],
            protocol: Protocol(header[5]),
            scope: header[6],
            kind: header[7],
            flags: u32_at(header, 8).unwrap_or(0),
            rta_table: None,
            dst: None,
            src: None,
            priority: None,
            nh_id: None,
            oif: None,
            gateway: None,
            via: None,
            multipath: None,
            metrics: None,
            prefsrc: None,
            encap: false,
            damaged: false,
        };
        for attribute in Attributes::new(attributes) {
            let Ok((kind, value)) = attribute else {
                view.damaged = true;
                break;
            };
            match kind {
                RTA_DST => view.dst = Some(value),
                RTA_PRIORITY => view.damaged |= !set_u32(&mut view.priority, value),
                RTA_NH_ID => view.damaged |= !set_u32(&mut view.nh_id, value),
                RTA_GATEWAY => view.gateway = Some(value),
                RTA_OIF => view.damaged |= !set_u32(&mut view.oif, value),
                RTA_TABLE => view.damaged |= !set_u32(&mut view.rta_table, value),
                RTA_VIA => view.via = Some(value),
                RTA_MULTIPATH => view.multipath = Some(value),
                RTA_METRICS => view.metrics = Some(value),
                RTA_PREFSRC => view.prefsrc = Some(value),
                RTA_SRC => view.src = Some(value),
                RTA_ENCAP | RTA_ENCAP_TYPE | RTA_NEWDST => view.encap = true,
                _ => {}
            }
        }
        Some(view)
    }

    fn has_hops_of_one(&self) -> bool {
        self.multipath
            .is_some_and(|bytes| Hops(bytes).all(|hop| hop.is_ok_and(|hop| hop.hops == 1)))
    }

    /// The table: `RTA_TABLE`, else `rtm_table`. 0 means that the sender doesn't say: `zebra_fpm` of FRR 10 withdraws
    /// without a table.
    #[inline]
    pub const fn table(&self) -> TableId {
        match self.rta_table {
            Some(table) => TableId(table),
            None => TableId(self.rtm_table as u32),
        }
    }

    /// `RTA_PRIORITY`, 0 when absent as in the kernel.
    pub fn metric(&self) -> u32 {
        self.priority.unwrap_or(0)
    }

    /// Which route this is about.
    #[inline]
    pub fn key(&self) -> Result<RouteKey, Reason> {
        if self.src_len != 0 {
            // Not the route of the same destination without a source: it must not stand for that one.
            return Err(Reason::SourceSpecific);
        }
        let addr = match (self.family, self.dst) {
            (AF_INET, Some(dst)) => <[u8; 4]>::try_from(dst).ok().map(IpAddr::from),
            (AF_INET6, Some(dst)) => <[u8; 16]>::try_from(dst).ok().map(IpAddr::from),
            (AF_INET, None) if self.dst_len == 0 => Some(Ipv4Addr::UNSPECIFIED.into()),
            (AF_INET6, None) if self.dst_len == 0 => Some(Ipv6Addr::UNSPECIFIED.into()),
            (AF_INET | AF_INET6, None) => None,
            _ => return Err(Reason::BadFamily),
        };
        if self.damaged && self.rta_table.is_none() && self.table_is_elsewhere() {
            // The table's attribute may be among what could not be read.
            return Err(Reason::BadAttribute);
        }
        let addr = addr.ok_or(if self.damaged {
            Reason::BadAttribute
        } else {
            Reason::BadDestination
        })?;
        let prefix = Prefix::new(addr, self.dst_len).map_err(|error| match error {
            PrefixError::Length { .. } => Reason::BadPrefixLength,
            PrefixError::HostBits { .. } => Reason::HostBits,
            PrefixError::Syntax => Reason::BadDestination,
        })?;
        Ok(RouteKey {
            table: self.table(),
            prefix,
        })
    }

    const fn table_is_elsewhere(&self) -> bool {
        matches!(self.rtm_table, RT_TABLE_UNSPEC | RT_TABLE_COMPAT)
    }

    /// `rtm_type`, if it is one that zebra installs.
    pub const fn route_kind(&self) -> Option<RouteKind> {
        match self.kind {
            1 => Some(RouteKind::Unicast),
            6 => Some(RouteKind::Blackhole),
            7 => Some(RouteKind::Unreachable),
            8 => Some(RouteKind::Prohibit),
            _ => None,
        }
    }

    /// What an announcement says about its route.
    #[inline]
    pub fn path(&self, dialect: Dialect) -> Result<RoutePath, Reason> {
        if self.damaged {
            return Err(Reason::BadAttribute);
        }
        let kind = self.route_kind().ok_or(Reason::BadRouteType)?;
        let prefsrc = match self.prefsrc {
            None => None,
            Some(bytes) => Some(address(self.family, bytes).ok_or(Reason::BadAttribute)?),
        };
        let mtu = match self.metrics {
            None => None,
            Some(bytes) => mtu(bytes)?,
        };
        let hops = match kind {
            RouteKind::Unicast => self.path_hops(dialect)?,
            // FRR names no next hop here; what another sender names says nothing.
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => PathHops::None,
        };
        Ok(RoutePath {
            protocol: self.protocol,
            kind,
            metric: self.metric(),
            mtu,
            prefsrc,
            hops,
        })
    }

    #[inline]
    fn path_hops(&self, dialect: Dialect) -> Result<PathHops, Reason> {
        if let Some(id) = self.nh_id.filter(|&id| id != 0) {
            return if self.encap {
                Err(Reason::Encapsulation)
            } else {
                Ok(PathHops::Id(SourceNhId(id)))
            };
        }
        self.inline_hops(dialect).map(PathHops::Inline)
    }

    fn inline_hops(&self, dialect: Dialect) -> Result<Box<[NextHop]>, Reason> {
        if let Some(bytes) = self.multipath {
            let mut hops = Vec::with_capacity(bytes.len() / (RTNEXTHOP_LEN + RTNEXTHOP_LEN));
            for hop in Hops(bytes) {
                let hop = hop?;
                hops.push(NextHop {
                    via: gateway(self.family, hop.gateway, hop.via)?,
                    dev: IfIndex::new(hop.ifindex),
                    weight: dialect.weight(hop.hops),
                    onlink: hop.flags() & RTNH_F_ONLINK != 0,
                    // 8.4.4 puts a hop's encapsulation behind the nest: then it can't be told whose it is.
                    encap: hop.encap || self.encap,
                });
            }
            if hops.is_empty() {
                return Err(Reason::BadMultipath);
            }
            if hops
                .iter()
                .any(|hop| hop.via.is_none() && hop.dev.is_none())
            {
                return Err(Reason::NoNextHop);
            }
            return Ok(hops.into_boxed_slice());
        }
        let hop = NextHop {
            via: gateway(self.family, self.gateway, self.via)?,
            dev: self.oif.and_then(IfIndex::new),
            weight: 1,
            onlink: self.flags & RTNH_F_ONLINK != 0,
            encap: self.encap,
        };
        if hop.via.is_none() && hop.dev.is_none() {
            return Err(Reason::NoNextHop);
        }
        Ok(Box::new([hop]))
    }

    /// The members of `RTA_MULTIPATH` in the order of the message.
    pub fn hops(&self) -> Hops<'a> {
        Hops(self.multipath.unwrap_or(&[]))
    }
}

/// A `struct rtnexthop` with its attributes named and nothing judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopView<'a> {
    /// `rtnh_flags`.
    pub rtnh_flags: u8,
    /// `rtnh_hops`.
    pub hops: u8,
    /// `rtnh_ifindex`.
    pub ifindex: u32,
    /// `RTA_GATEWAY`.
    pub gateway: Option<&'a [u8]>,
    /// `RTA_VIA`.
    pub via: Option<&'a [u8]>,
    /// `RTA_ENCAP`, `RTA_ENCAP_TYPE` or `RTA_NEWDST`.
    pub encap: bool,
}

impl HopView<'_> {
    /// `rtnh_flags`, as wide as `rtm_flags`.
    pub const fn flags(&self) -> u32 {
        self.rtnh_flags as u32
    }
}

/// The hops in `RTA_MULTIPATH`; ends after the first error.
#[derive(Debug, Clone)]
pub struct Hops<'a>(&'a [u8]);

impl<'a> Iterator for Hops<'a> {
    type Item = Result<HopView<'a>, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        if rest.is_empty() {
            return None;
        }
        self.0 = &[];
        let len = u16_at(rest, 0).unwrap_or(0) as usize;
        if len < RTNEXTHOP_LEN || len > rest.len() {
            return Some(Err(Reason::BadMultipath));
        }
        let mut hop = HopView {
            rtnh_flags: rest[2],
            hops: rest[3],
            ifindex: u32_at(rest, 4).unwrap_or(0),
            gateway: None,
            via: None,
            encap: false,
        };
        for attribute in Attributes::new(&rest[RTNEXTHOP_LEN..len]) {
            let Ok((kind, value)) = attribute else {
                return Some(Err(Reason::BadMultipath));
            };
            match kind {
                RTA_GATEWAY => hop.gateway = Some(value),
                RTA_VIA => hop.via = Some(value),
                RTA_ENCAP | RTA_ENCAP_TYPE | RTA_NEWDST => hop.encap = true,
                _ => {}
            }
        }
        self.0 = rest.get(super::netlink::align(len)..).unwrap_or(&[]);
        Some(Ok(hop))
    }
}

/// A route message of zebra's that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRoute {
    /// The route and who made it, where the key could be read: what was announced before no longer holds.
    pub route: Option<(RouteKey, Protocol)>,
    /// What is wrong.
    pub reason: Reason,
}

/// What zebra means by a route message; `add` tells `RTM_NEWROUTE` from `RTM_DELROUTE`. A withdrawal needs only its
/// key to be right.
#[inline]
pub fn decode_route(
    add: bool,
    view: &RouteView<'_>,
    dialect: Dialect,
) -> Result<RouteUpdate, BadRoute> {
    let key = view.key().map_err(|reason| BadRoute {
        route: None,
        reason,
    })?;
    let path = if add {
        Some(view.path(dialect).map_err(|reason| BadRoute {
            route: Some((key, view.protocol)),
            reason,
        })?)
    } else {
        None
    };
    Ok(RouteUpdate {
        key,
        path,
        protocol: view.protocol,
    })
}

/// The gateway out of `RTA_GATEWAY` (of the route's own family) or `RTA_VIA` (which names its family). As in the
/// kernel an unspecified address is no gateway, both attributes together make no sense, and an IPv6 route has no IPv4
/// gateway.
pub fn gateway(
    family: u8,
    gateway: Option<&[u8]>,
    via: Option<&[u8]>,
) -> Result<Option<IpAddr>, Reason> {
    let addr = match (gateway, via) {
        (None, None) => return Ok(None),
        (Some(bytes), None) => address(family, bytes),
        (None, Some(via)) => match (family, u16_at(via, 0).map(u8::try_from)) {
            (AF_INET, Some(Ok(of @ (AF_INET | AF_INET6))))
            | (AF_INET6, Some(Ok(of @ AF_INET6))) => address(of, &via[2..]),
            _ => None,
        },
        (Some(_), Some(_)) => None,
    };
    let addr = addr.ok_or(Reason::BadGateway)?;
    Ok((!addr.is_unspecified()).then_some(addr))
}

/// `RTAX_MTU` out of `RTA_METRICS`.
pub fn mtu(metrics: &[u8]) -> Result<Option<NonZeroU32>, Reason> {
    let mut mtu = None;
    for attribute in Attributes::new(metrics) {
        match attribute {
            Ok((RTAX_MTU, value)) => {
                mtu = NonZeroU32::new(as_u32(value).ok_or(Reason::BadAttribute)?);
            }
            Ok(_) => {}
            Err(_) => return Err(Reason::BadAttribute),
        }
    }
    Ok(mtu)
}

#[inline]
fn set_u32(slot: &mut Option<u32>, value: &[u8]) -> bool {
    *slot = as_u32(value);
    slot.is_some()
}

#[cfg(test)]
mod tests;
