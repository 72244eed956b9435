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

use super::netlink::{Attributes, NLM_F_REPLACE, as_u32, u16_at, u32_at};
use super::rtnl_nexthop::address;

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

/// The announcement that nearly every message of a big table is, read by its fixed places: `rtmsg`, `RTA_DST`,
/// `RTA_PRIORITY`, `RTA_NH_ID` and nothing else, as `dplane_fpm_nl` writes it. `None` for all others, and for what is
/// wrong with it: [`decode_route`] decides then. Where it answers, both say the same (a test compares them).
#[inline]
pub fn decode_common_route(payload: &[u8]) -> Option<RouteUpdate> {
    // Only the address differs in length between the families. The arms are alike, but joined before the value is
    // complete it would go through memory byte by byte, which costs as much as all the rest.
    if let Ok(payload) = <&[u8; 36]>::try_from(payload) {
        let (&header, rest) = payload.split_first_chunk::<16>()?;
        let (&addr, tail) = rest.split_first_chunk::<4>()?;
        let common = CommonRoute::read(header, AF_INET, tail.first_chunk()?)?;
        let prefix = Prefix::new(IpAddr::V4(addr.into()), header[1]).ok()?;
        Some(common.update(prefix))
    } else if let Ok(payload) = <&[u8; 48]>::try_from(payload) {
        let (&header, rest) = payload.split_first_chunk::<16>()?;
        let (&addr, tail) = rest.split_first_chunk::<16>()?;
        let common = CommonRoute::read(header, AF_INET6, tail.first_chunk()?)?;
        let prefix = Prefix::new(IpAddr::V6(addr.into()), header[1]).ok()?;
        Some(common.update(prefix))
    } else {
        None
    }
}

/// What differs between common routes, beside the prefix.
#[derive(Clone, Copy)]
struct CommonRoute {
    table: u8,
    protocol: u8,
    metric: u32,
    id: u32,
}

impl CommonRoute {
    /// From `rtmsg` with the header of `RTA_DST`, and from what follows the address.
    #[inline]
    fn read(header: [u8; 16], family: u8, tail: &[u8; 16]) -> Option<Self> {
        let word = |at: usize| u32_at(tail, at).unwrap_or(0);
        let dst = match family {
            AF_INET => attribute_header(8, RTA_DST),
            _ => attribute_header(20, RTA_DST),
        };
        let [
            of,
            _,
            src_len,
            _,
            table,
            protocol,
            _,
            kind,
            _,
            _,
            _,
            _,
            d0,
            d1,
            d2,
            d3,
        ] = header;
        let common = of == family
            && src_len == 0
            && kind == 1
            && u32::from_ne_bytes([d0, d1, d2, d3]) == dst
            && word(0) == attribute_header(8, RTA_PRIORITY)
            && word(8) == attribute_header(8, RTA_NH_ID)
            && word(12) != 0;
        common.then(|| Self {
            table,
            protocol,
            metric: word(4),
            id: word(12),
        })
    }

    #[inline]
    fn update(self, prefix: Prefix) -> RouteUpdate {
        let protocol = Protocol(self.protocol);
        RouteUpdate {
            key: RouteKey {
                table: TableId(self.table.into()),
                prefix,
            },
            path: Some(RoutePath {
                protocol,
                kind: RouteKind::Unicast,
                metric: self.metric,
                mtu: None,
                prefsrc: None,
                hops: PathHops::Id(SourceNhId(self.id)),
            }),
            protocol,
        }
    }
}

/// `struct rtattr` as a word of the wire.
const fn attribute_header(len: u16, kind: u16) -> u32 {
    let ([l0, l1], [k0, k1]) = (len.to_ne_bytes(), kind.to_ne_bytes());
    u32::from_ne_bytes([l0, l1, k0, k1])
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
mod tests {
    use super::*;
    use crate::wire::netlink::{MessageBuilder, Messages};

    const RTMSG_V4: [u8; 12] = [2, 24, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
    const RTMSG_V6: [u8; 12] = [10, 64, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
    const LINK_LOCAL: &str = "fe80::ff:fe00:300";

    fn payload(rtmsg: [u8; 12], fill: impl FnOnce(&mut MessageBuilder<'_>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut builder = MessageBuilder::new(&mut buffer, RTM_NEWROUTE, 0x501, 0);
        builder.fixed(&rtmsg);
        fill(&mut builder);
        builder.finish();
        Messages::new(&buffer)
            .next()
            .unwrap()
            .unwrap()
            .payload
            .to_vec()
    }

    fn via6(addr: &str) -> Vec<u8> {
        let mut via = vec![10, 0];
        via.extend(addr.parse::<Ipv6Addr>().unwrap().octets());
        via
    }

    fn path(
        rtmsg: [u8; 12],
        fill: impl FnOnce(&mut MessageBuilder<'_>),
    ) -> Result<RoutePath, Reason> {
        let bytes = payload(rtmsg, fill);
        RouteView::parse(&bytes).unwrap().path(Dialect::DplaneFpmNl)
    }

    fn key(
        rtmsg: [u8; 12],
        fill: impl FnOnce(&mut MessageBuilder<'_>),
    ) -> Result<RouteKey, Reason> {
        let bytes = payload(rtmsg, fill);
        RouteView::parse(&bytes).unwrap().key()
    }

    #[test]
    fn mixed_family_multipath_keeps_the_order_of_the_message() {
        let path = path(RTMSG_V4, |m| {
            m.attr(RTA_DST, &[10, 30, 1, 0]);
            m.nested(RTA_MULTIPATH | 0x8000, |m| {
                m.rtnexthop(0, 0, 3, |m| {
                    m.attr(RTA_GATEWAY, &[172, 31, 0, 3]);
                });
                m.rtnexthop(4, 9, 2, |m| {
                    m.attr(RTA_VIA, &via6(LINK_LOCAL));
                });
            });
        })
        .unwrap();
        let hop = |via: &str, dev, weight, onlink| NextHop {
            via: Some(via.parse().unwrap()),
            dev: IfIndex::new(dev),
            weight,
            onlink,
            encap: false,
        };
        assert_eq!(
            path.hops,
            PathHops::Inline(Box::new([
                hop("172.31.0.3", 3, 1, false),
                hop(LINK_LOCAL, 2, 10, true)
            ]))
        );
    }

    #[test]
    fn table_metric_mtu_and_preferred_source() {
        let bytes = payload([2, 24, 0, 0, 0, 196, 0, 1, 0, 0, 0, 0], |m| {
            m.attr(RTA_DST, &[10, 30, 1, 0])
                .attr_u32(RTA_PRIORITY, 20)
                .attr_u32(RTA_TABLE, 1000)
                .attr(RTA_PREFSRC, &[192, 0, 2, 1])
                .attr_u32(RTA_NH_ID, 7);
            m.nested(RTA_METRICS | 0x8000, |m| {
                m.attr_u32(1, 0).attr_u32(RTAX_MTU, 1400);
            });
        });
        let view = RouteView::parse(&bytes).unwrap();
        assert_eq!(view.key().unwrap().table, TableId(1000));
        let path = view.path(Dialect::Unknown).unwrap();
        assert_eq!(path.metric, 20);
        assert_eq!(path.mtu, NonZeroU32::new(1400));
        assert_eq!(path.prefsrc, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(path.hops, PathHops::Id(SourceNhId(7)));
    }

    #[test]
    fn a_default_route_may_lack_its_destination() {
        let none = |_: &mut MessageBuilder<'_>| {};
        let default = key([2, 0, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0], none).unwrap();
        assert_eq!(default.prefix.to_string(), "0.0.0.0/0");
        assert_eq!(key(RTMSG_V4, none), Err(Reason::BadDestination));
    }

    #[test]
    fn impossible_keys_are_refused() {
        let with = |len, dst: &'static [u8]| {
            key([2, len, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0], move |m| {
                m.attr(RTA_DST, dst);
            })
        };
        assert_eq!(with(33, &[10, 0, 0, 0]), Err(Reason::BadPrefixLength));
        assert_eq!(with(8, &[10, 1, 0, 0]), Err(Reason::HostBits));
        assert_eq!(with(8, &[10, 0]), Err(Reason::BadDestination));
        assert_eq!(with(8, &[0; 16]), Err(Reason::BadDestination));
        let family = key([7, 0, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0], |_| {});
        assert_eq!(family, Err(Reason::BadFamily));
        let source = key([10, 0, 64, 0, 254, 186, 0, 1, 0, 0, 0, 0], |m| {
            m.attr(RTA_SRC, &[0; 16]);
        });
        assert_eq!(source, Err(Reason::SourceSpecific));
    }

    #[test]
    fn damage_hides_the_table_only_where_it_could_be_behind() {
        let damaged = |table| {
            key([2, 24, 0, 0, table, 186, 0, 1, 0, 0, 0, 0], |m| {
                m.attr(RTA_DST, &[10, 30, 1, 0]).fixed(&[99, 0, 6, 0]);
            })
        };
        assert!(damaged(254).is_ok());
        assert_eq!(damaged(0), Err(Reason::BadAttribute));
    }

    #[test]
    fn gateways_of_the_wrong_family_are_refused() {
        let bad = Err(Reason::BadGateway);
        let in_v6 = |attr, bytes: &'static [u8]| {
            path(RTMSG_V6, move |m| {
                m.attr_u32(RTA_OIF, 2).attr(attr, bytes);
            })
        };
        assert_eq!(in_v6(RTA_GATEWAY, &[192, 0, 2, 1]), bad);
        assert_eq!(in_v6(RTA_VIA, &[2, 0, 192, 0, 2, 1]), bad);
        assert_eq!(
            path(RTMSG_V4, |m| {
                m.attr(RTA_GATEWAY, &[1; 16]);
            }),
            bad
        );
        for via in [&[10][..], &[10, 0, 1, 2, 3, 4], &[28, 0, 0, 0, 1, 0]] {
            assert_eq!(
                path(RTMSG_V4, |m| {
                    m.attr(RTA_VIA, via);
                }),
                bad
            );
        }
        let both = path(RTMSG_V4, |m| {
            m.attr(RTA_VIA, &via6(LINK_LOCAL))
                .attr(RTA_GATEWAY, &[1; 4]);
        });
        assert_eq!(both, bad);
    }

    #[test]
    fn impossible_paths_are_refused() {
        let mut local = RTMSG_V4;
        local[7] = 2;
        assert_eq!(path(local, |_| {}), Err(Reason::BadRouteType));
        assert_eq!(path(RTMSG_V4, |_| {}), Err(Reason::NoNextHop));
        let cut = |bytes: &'static [u8]| {
            path(RTMSG_V4, move |m| {
                m.attr(RTA_MULTIPATH, bytes);
            })
        };
        assert_eq!(cut(&[]), Err(Reason::BadMultipath));
        assert_eq!(cut(&[7, 0, 0, 0, 1, 0, 0, 0]), Err(Reason::BadMultipath));
        assert_eq!(cut(&[12, 0, 0, 0, 1, 0, 0, 0]), Err(Reason::BadMultipath));
        assert_eq!(
            cut(&[12, 0, 0, 0, 1, 0, 0, 0, 9, 0, 5, 0]),
            Err(Reason::BadMultipath)
        );
        let prefsrc = path(RTMSG_V4, |m| {
            m.attr_u32(RTA_OIF, 1).attr(RTA_PREFSRC, &[0; 16]);
        });
        assert_eq!(prefsrc, Err(Reason::BadAttribute));
    }

    #[test]
    fn blackholes_have_no_hops() {
        let mut blackhole = RTMSG_V4;
        blackhole[7] = 6;
        let path = path(blackhole, |_| {}).unwrap();
        assert_eq!(
            (path.kind, path.hops),
            (RouteKind::Blackhole, PathHops::None)
        );
    }

    #[test]
    fn encapsulated_hops_say_so() {
        let path = path(RTMSG_V4, |m| {
            m.nested(RTA_MULTIPATH, |m| {
                m.rtnexthop(0, 0, 3, |m| {
                    m.attr(RTA_ENCAP_TYPE, &[1, 0]).attr(RTA_ENCAP, &[]);
                });
                m.rtnexthop(0, 0, 4, |_| {});
            });
        })
        .unwrap();
        let PathHops::Inline(hops) = path.hops else {
            panic!("{path:?}");
        };
        assert_eq!(
            hops.iter().map(|hop| hop.encap).collect::<Vec<_>>(),
            [true, false]
        );
    }

    /// What a first message says, in a stream of its own.
    fn told(
        add: bool,
        flags: u16,
        rtmsg: [u8; 12],
        fill: impl FnOnce(&mut MessageBuilder<'_>),
    ) -> Dialect {
        let bytes = payload(rtmsg, fill);
        Dialect::Unknown.observe(add, flags, &RouteView::parse(&bytes).unwrap())
    }

    fn multipath(metric: u32, hops: u8) -> impl FnOnce(&mut MessageBuilder<'_>) {
        move |m| {
            m.attr_u32(RTA_PRIORITY, metric);
            m.nested(RTA_MULTIPATH, |m| {
                m.rtnexthop(0, hops, 2, |_| {});
                m.rtnexthop(0, hops, 3, |_| {});
            });
        }
    }

    #[test]
    fn the_sender_is_told_by_what_it_sends() {
        use Dialect::{DplaneFpmNl, Unknown, ZebraFpm};
        assert_eq!(told(true, 0x501, RTMSG_V4, multipath(20, 1)), DplaneFpmNl);
        assert_eq!(told(true, 0x401, RTMSG_V4, multipath(20, 1)), ZebraFpm);
        assert_eq!(told(true, 0x401, RTMSG_V6, multipath(20, 0)), DplaneFpmNl);
        assert_eq!(told(true, 0x401, RTMSG_V6, multipath(0, 1)), ZebraFpm);
        assert_eq!(told(true, 0x401, RTMSG_V6, multipath(20, 1)), ZebraFpm);
        assert_eq!(told(true, 0x401, RTMSG_V6, multipath(20, 2)), Unknown);
        assert_eq!(told(false, 0x401, RTMSG_V6, |_| {}), ZebraFpm);
        assert_eq!(
            told(false, 0x401, RTMSG_V6, |m| {
                m.attr_u32(RTA_PRIORITY, 20);
            }),
            DplaneFpmNl
        );
        // What only one module can send overrules a guess.
        let bytes = payload(RTMSG_V4, |m| {
            m.attr_u32(RTA_NH_ID, 1);
        });
        let view = RouteView::parse(&bytes).unwrap();
        assert_eq!(ZebraFpm.observe(true, 0x401, &view), DplaneFpmNl);
    }

    #[test]
    fn weights_are_raw_from_zebra_fpm_and_less_one_from_dplane() {
        for (dialect, hops, weight) in [
            (Dialect::DplaneFpmNl, 0, 1),
            (Dialect::DplaneFpmNl, 255, 256),
            (Dialect::ZebraFpm, 3, 3),
            (Dialect::ZebraFpm, 0, 1),
        ] {
            assert_eq!(dialect.weight(hops), weight);
        }
    }
}
