//! Kernel routes: `RTM_NEWROUTE` and `RTM_DELROUTE` as we write them, and a dump's answer as [`ObservedRoute`].
//!
//! The hot path of every write, so by hand and without allocation; knows nothing of sockets or errors. Decoding is the
//! inverse of encoding: what we never write (TOS, `RTA_FLOW`, `RTA_ENCAP`, metrics other than the MTU, a foreign scope)
//! makes the form `None`, because unreadable is never equal. Every write names table, protocol and metric: the kernel's
//! IPv4 key has no protocol, and an IPv6 replace without a metric takes the router-advertised default.
//!
//! Seen on Linux 6.18: scope 0 is right for every route by next-hop id, also for device-only objects (the object has a
//! scope of its own); an inline device-only route gets scope link, so that it may be the way to a gateway; IPv6 blackholes
//! read back with `RTA_OIF` of `lo`; routes by id read back with the object's hops expanded behind `RTA_NH_ID`; IPv4
//! clamps `RTAX_MTU` to [`MTU_MAX`](crate::model::MTU_MAX).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use super::netlink::{
    Attributes, Envelope, MessageBuilder, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE,
    as_u32, u16_at, u32_at,
};
use super::rtnl_nexthop::address;
use super::rtnl_route::{
    AF_INET, AF_INET6, RTA_DST, RTA_GATEWAY, RTA_METRICS, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF,
    RTA_PREFSRC, RTA_PRIORITY, RTA_TABLE, RTA_VIA, RTAX_MTU, RTM_DELROUTE, RTM_NEWROUTE, RTMSG_LEN,
    RTNEXTHOP_LEN, RTNH_F_ONLINK,
};
use crate::model::{
    Family, IfIndex, KernelHop, KernelNhId, KernelRoute, KernelTarget, ObservedRoute, Prefix,
    Protocol, RouteKey, RouteKind, RouteOp, TableId,
};

pub(super) const RTM_GETROUTE: u16 = 26;
const RTA_CACHEINFO: u16 = 12;
const RTA_PREF: u16 = 20;
pub(super) const RTM_F_CLONED: u32 = 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
/// `rtnh_flags` has a byte, the low one of `rtm_flags`.
const ONLINK: u8 = RTNH_F_ONLINK as u8;
/// Offset of `rta_expires` in `struct rta_cacheinfo`.
const CACHEINFO_EXPIRES: usize = 8;

/// What every route of ours bears: the number that tells it apart from everybody else's, and its place beside zebra's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteMark {
    /// `rtm_protocol`.
    pub protocol: Protocol,
    /// `RTA_PRIORITY`.
    pub metric: u32,
}

/// Writes one route message.
pub fn encode_route(envelope: Envelope<'_>, key: &RouteKey, op: &RouteOp, mark: RouteMark) {
    match op {
        RouteOp::Create(route) => {
            encode_put(envelope, NLM_F_CREATE | NLM_F_EXCL, key, route, mark);
        }
        RouteOp::Replace(route) => {
            encode_put(envelope, NLM_F_CREATE | NLM_F_REPLACE, key, route, mark);
        }
        RouteOp::Delete => {
            let mut message = envelope.request(RTM_DELROUTE, 0);
            // Type 0 and scope "nowhere" match any: the key, metric and protocol say enough.
            header(&mut message, key, mark, RT_SCOPE_NOWHERE, 0, 0);
            message.finish();
        }
    }
}

/// Asks for all routes of a family with this protocol number, in all tables (a strict-checking socket filters in the kernel).
pub fn encode_route_dump(envelope: Envelope<'_>, family: Family, protocol: Protocol) {
    let mut message = envelope.request(RTM_GETROUTE, NLM_F_DUMP);
    message.fixed(&[af(family), 0, 0, 0, 0, protocol.0, 0, 0, 0, 0, 0, 0]);
    message.finish();
}

/// Reads a route of a dump. `None` for what is no route (a cache entry, another family, a damaged key).
pub fn decode_route(payload: &[u8]) -> Option<ObservedRoute> {
    let rtm: &[u8; RTMSG_LEN] = payload.first_chunk()?;
    let family = match rtm[0] {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return None,
    };
    let flags = u32_at(rtm, 8)?;
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut found = Found::default();
    for attribute in Attributes::new(&payload[RTMSG_LEN..]) {
        let (kind, value) = attribute.ok()?;
        found.take(kind, value, family);
    }
    let addr = match found.dst {
        Some(addr) => address(af(family), addr)?,
        None => unspecified(family),
    };
    let table = found.table.unwrap_or(u32::from(rtm[4]));
    Some(ObservedRoute {
        key: RouteKey {
            table: TableId(table),
            prefix: Prefix::new(addr, rtm[1]).ok()?,
        },
        metric: found.metric,
        protocol: rtm[5],
        form: found.form(rtm, family, flags as u8 & ONLINK != 0),
    })
}

fn encode_put(
    envelope: Envelope<'_>,
    flags: u16,
    key: &RouteKey,
    route: &KernelRoute,
    mark: RouteMark,
) {
    let family = key.prefix.family();
    let mut message = envelope.request(RTM_NEWROUTE, flags);
    let onlink = match &route.target {
        KernelTarget::Hops(hops) => matches!(**hops, [(hop, _)] if hop.onlink),
        KernelTarget::None | KernelTarget::Object(_) => false,
    };
    header(
        &mut message,
        key,
        mark,
        scope(family, &route.target),
        rtn(route.kind),
        if onlink { ONLINK } else { 0 },
    );
    match &route.target {
        KernelTarget::None => {}
        KernelTarget::Object(id) => {
            message.attr_u32(RTA_NH_ID, id.get());
        }
        KernelTarget::Hops(hops) => match &**hops {
            [(hop, _)] => {
                gateway(&mut message, family, hop);
                message.attr_u32(RTA_OIF, hop.dev.get());
            }
            hops => {
                message.nested(RTA_MULTIPATH, |message| {
                    for (hop, weight) in hops {
                        message.rtnexthop(
                            if hop.onlink { ONLINK } else { 0 },
                            weight_byte(*weight),
                            hop.dev.get(),
                            |message| gateway(message, family, hop),
                        );
                    }
                });
            }
        },
    }
    if let Some(prefsrc) = route.prefsrc {
        attr_addr(&mut message, RTA_PREFSRC, prefsrc);
    }
    if let Some(mtu) = route.mtu {
        message.nested(RTA_METRICS, |message| {
            message.attr_u32(RTAX_MTU, mtu.get());
        });
    }
    message.finish();
}

/// `struct rtmsg` and what names the route. A table that doesn't fit into the byte goes into `RTA_TABLE`.
fn header(
    message: &mut MessageBuilder<'_>,
    key: &RouteKey,
    mark: RouteMark,
    scope: u8,
    kind: u8,
    flags: u8,
) {
    let table = u8::try_from(key.table.0).unwrap_or(0);
    let rtm_flags = u32::from(flags).to_ne_bytes();
    let [f0, f1, f2, f3] = rtm_flags;
    message.fixed(&[
        af(key.prefix.family()),
        key.prefix.len(),
        0,
        0,
        table,
        mark.protocol.0,
        scope,
        kind,
        f0,
        f1,
        f2,
        f3,
    ]);
    attr_addr(message, RTA_DST, key.prefix.addr());
    message.attr_u32(RTA_PRIORITY, mark.metric);
    if u32::from(table) != key.table.0 {
        message.attr_u32(RTA_TABLE, key.table.0);
    }
}

/// `RTA_GATEWAY`, or `RTA_VIA` for a gateway of the other family (the kernel refuses it for IPv6 routes in its own words).
fn gateway(message: &mut MessageBuilder<'_>, family: Family, hop: &KernelHop) {
    match hop.via {
        None => {}
        Some(via) if Family::of(via) == family => attr_addr(message, RTA_GATEWAY, via),
        Some(via) => {
            let mut bytes = [0; 18];
            let [f0, f1] = u16::from(af(Family::of(via))).to_ne_bytes();
            (bytes[0], bytes[1]) = (f0, f1);
            let len = match via {
                IpAddr::V4(a) => {
                    bytes[2..6].copy_from_slice(&a.octets());
                    6
                }
                IpAddr::V6(a) => {
                    bytes[2..18].copy_from_slice(&a.octets());
                    18
                }
            };
            message.attr(RTA_VIA, &bytes[..len]);
        }
    }
}

/// The scope of an IPv4 route; IPv6 has none.
fn scope(family: Family, target: &KernelTarget) -> u8 {
    match (family, target) {
        (Family::V4, KernelTarget::Hops(hops)) if hops.iter().all(|(hop, _)| hop.via.is_none()) => {
            RT_SCOPE_LINK
        }
        _ => RT_SCOPE_UNIVERSE,
    }
}

/// `rtm_type`.
pub(super) const fn rtn(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Unicast => 1,
        RouteKind::Blackhole => 6,
        RouteKind::Unreachable => 7,
        RouteKind::Prohibit => 8,
    }
}

const fn kind_of(rtn: u8) -> Option<RouteKind> {
    Some(match rtn {
        1 => RouteKind::Unicast,
        6 => RouteKind::Blackhole,
        7 => RouteKind::Unreachable,
        8 => RouteKind::Prohibit,
        _ => return None,
    })
}

/// `rtnh_hops` counts from 0 and has 8 bits; larger weights are the planner's to scale and end at 256 here.
fn weight_byte(weight: u16) -> u8 {
    u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX)
}

/// The attributes of a route as they come by; `odd` once there is something that we never write.
#[derive(Default)]
struct Found<'a> {
    dst: Option<&'a [u8]>,
    table: Option<u32>,
    metric: u32,
    object: Option<u32>,
    via: Option<IpAddr>,
    dev: Option<IfIndex>,
    multipath: Option<&'a [u8]>,
    mtu: Option<NonZeroU32>,
    prefsrc: Option<IpAddr>,
    odd: bool,
}

impl<'a> Found<'a> {
    fn take(&mut self, kind: u16, value: &'a [u8], family: Family) {
        match kind {
            RTA_DST => self.dst = Some(value),
            RTA_TABLE => self.table = as_u32(value),
            RTA_PRIORITY => self.metric = as_u32(value).unwrap_or(0),
            RTA_NH_ID => self.object = as_u32(value),
            RTA_OIF => self.dev = as_u32(value).and_then(IfIndex::new),
            RTA_GATEWAY => self.via = self.or_odd(address(af(family), value)),
            RTA_VIA => self.via = self.or_odd(decode_via(value)),
            RTA_MULTIPATH => self.multipath = Some(value),
            RTA_PREFSRC => self.prefsrc = self.or_odd(address(af(family), value)),
            RTA_METRICS => self.take_metrics(value),
            RTA_CACHEINFO => self.odd |= u32_at(value, CACHEINFO_EXPIRES) != Some(0),
            RTA_PREF => self.odd |= value != [0],
            _ => self.odd = true,
        }
    }

    fn or_odd<T>(&mut self, value: Option<T>) -> Option<T> {
        self.odd |= value.is_none();
        value
    }

    fn take_metrics(&mut self, value: &[u8]) {
        for metric in Attributes::new(value) {
            match metric {
                Ok((RTAX_MTU, value)) => self.mtu = as_u32(value).and_then(NonZeroU32::new),
                Ok(_) | Err(_) => self.odd = true,
            }
        }
    }

    fn form(self, rtm: &[u8; RTMSG_LEN], family: Family, onlink: bool) -> Option<KernelRoute> {
        let kind = kind_of(rtm[7])?;
        let target = self.target(kind, family, onlink)?;
        let plain = !self.odd && rtm[2] == 0 && rtm[3] == 0 && rtm[6] == scope(family, &target);
        plain.then_some(KernelRoute {
            kind,
            target,
            mtu: self.mtu,
            prefsrc: self.prefsrc,
        })
    }

    fn target(&self, kind: RouteKind, family: Family, onlink: bool) -> Option<KernelTarget> {
        match (kind, self.object, self.multipath) {
            // The object's hops come expanded beside its id; the id says it all.
            (RouteKind::Unicast, Some(id), _) => KernelNhId::new(id).map(KernelTarget::Object),
            (RouteKind::Unicast, None, Some(hops)) => decode_multipath(family, hops),
            (RouteKind::Unicast, None, None) => {
                let hop = KernelHop {
                    family: self.via.map_or(family, Family::of),
                    via: self.via,
                    dev: self.dev?,
                    onlink,
                };
                Some(KernelTarget::Hops(Box::new([(hop, 1)])))
            }
            // IPv6 says `lo` here.
            (_, None, None) => Some(KernelTarget::None),
            (_, _, _) => None,
        }
    }
}

/// Hops of `RTA_MULTIPATH`: a `struct rtnexthop` each, with attributes inside.
fn decode_multipath(family: Family, mut bytes: &[u8]) -> Option<KernelTarget> {
    let mut hops = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(u16_at(bytes, 0)?);
        let attributes = bytes.get(RTNEXTHOP_LEN..len)?;
        let mut via = None;
        for attribute in Attributes::new(attributes) {
            via = Some(match attribute.ok()? {
                (RTA_GATEWAY, value) => address(af(family), value)?,
                (RTA_VIA, value) => decode_via(value)?,
                _ => return None,
            });
        }
        let hop = KernelHop {
            family: via.map_or(family, Family::of),
            via,
            dev: IfIndex::new(u32_at(bytes, 4)?)?,
            onlink: bytes[2] & ONLINK != 0,
        };
        hops.push((hop, u16::from(bytes[3]) + 1));
        bytes = bytes.get(super::netlink::align(len)..).unwrap_or(&[]);
    }
    (hops.len() > 1).then(|| KernelTarget::Hops(hops.into()))
}

fn decode_via(bytes: &[u8]) -> Option<IpAddr> {
    let family = u8::try_from(u16_at(bytes, 0)?).ok()?;
    address(family, &bytes[2..])
}

/// Appends an address as an attribute.
pub(super) fn attr_addr(message: &mut MessageBuilder<'_>, kind: u16, addr: IpAddr) {
    match addr {
        IpAddr::V4(a) => message.attr(kind, &a.octets()),
        IpAddr::V6(a) => message.attr(kind, &a.octets()),
    };
}

pub(super) const fn af(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

pub(super) const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
    use netlink_packet_route::RouteNetlinkMessage;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::{HEADER_LEN, Messages};

    const MARK: RouteMark = RouteMark {
        protocol: Protocol::REDIRECT,
        metric: 10,
    };

    fn addr(family: Family) -> BoxedStrategy<IpAddr> {
        match family {
            Family::V4 => any::<u32>()
                .prop_map(|a| IpAddr::V4(Ipv4Addr::from_bits(a)))
                .boxed(),
            Family::V6 => any::<u128>()
                .prop_map(|a| IpAddr::V6(Ipv6Addr::from_bits(a)))
                .boxed(),
        }
    }

    fn hop(family: Family) -> impl Strategy<Value = KernelHop> {
        let via = match family {
            Family::V4 => prop_oneof![addr(Family::V4), addr(Family::V6)].boxed(),
            Family::V6 => addr(Family::V6),
        };
        (proptest::option::of(via), 1u32.., any::<bool>()).prop_map(move |(via, dev, onlink)| {
            KernelHop {
                family: via.map_or(family, Family::of),
                via,
                dev: IfIndex::new(dev).unwrap(),
                onlink,
            }
        })
    }

    fn route(family: Family) -> impl Strategy<Value = KernelRoute> {
        let object = (KernelNhId::FIRST.get()..=KernelNhId::LAST.get())
            .prop_map(|id| KernelTarget::Object(KernelNhId::new(id).unwrap()));
        let single = hop(family).prop_map(|hop| KernelTarget::Hops(Box::new([(hop, 1)])));
        let many = proptest::collection::vec((hop(family), 1u16..=256), 2..40)
            .prop_map(|hops| KernelTarget::Hops(hops.into()));
        let reject = prop_oneof![
            Just(RouteKind::Blackhole),
            Just(RouteKind::Unreachable),
            Just(RouteKind::Prohibit)
        ];
        let forward = prop_oneof![object, single, many];
        let what = prop_oneof![
            forward.prop_map(|target| (RouteKind::Unicast, target)),
            reject.prop_map(|kind| (kind, KernelTarget::None)),
        ];
        let mtu = proptest::option::of(
            (1..=crate::model::MTU_MAX.get()).prop_map(|m| NonZeroU32::new(m).unwrap()),
        );
        (what, mtu, proptest::option::of(addr(family))).prop_map(
            |((kind, target), mtu, prefsrc)| KernelRoute {
                kind,
                target,
                mtu,
                prefsrc,
            },
        )
    }

    fn key_and_route() -> impl Strategy<Value = (RouteKey, KernelRoute)> {
        prop_oneof![Just(Family::V4), Just(Family::V6)].prop_flat_map(|family| {
            let key =
                (addr(family), 0..=family.max_len(), 1u32..).prop_map(|(addr, len, table)| {
                    RouteKey {
                        table: TableId(table),
                        prefix: Prefix::masked(addr, len).unwrap(),
                    }
                });
            (key, route(family))
        })
    }

    fn encoded(key: &RouteKey, op: &RouteOp) -> Vec<u8> {
        let mut buffer = Vec::new();
        let envelope = Envelope {
            buffer: &mut buffer,
            seq: 1,
        };
        encode_route(envelope, key, op, MARK);
        buffer
    }

    proptest! {
        #[test]
        fn decoding_is_the_inverse_of_encoding((key, route) in key_and_route()) {
            let buffer = encoded(&key, &RouteOp::Create(Arc::new(route.clone())));
            let message = Messages::new(&buffer).next().unwrap().unwrap();
            prop_assert_eq!(message.payload.len() + HEADER_LEN, buffer.len());
            let read = decode_route(message.payload).unwrap();
            prop_assert_eq!((read.key, read.metric, read.protocol), (key, 10, 1));
            prop_assert_eq!(read.form, Some(route));
        }

        #[test]
        fn the_crate_reads_what_we_write((key, route) in key_and_route()) {
            for op in [RouteOp::Replace(Arc::new(route)), RouteOp::Delete] {
                let buffer = encoded(&key, &op);
                let message = Messages::new(&buffer).next().unwrap().unwrap();
                let mut header = NetlinkHeader::default();
                header.message_type = message.kind;
                let read = RouteNetlinkMessage::deserialize(&header, message.payload);
                prop_assert!(read.is_ok(), "{:?}", read);
            }
        }

        #[test]
        fn damage_never_panics((key, route) in key_and_route(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut buffer = encoded(&key, &RouteOp::Create(Arc::new(route)));
            let len = buffer.len();
            buffer[HEADER_LEN + at.index(len - HEADER_LEN)] = byte;
            let _: Option<ObservedRoute> = decode_route(&buffer[HEADER_LEN..]);
            let _: Option<ObservedRoute> = decode_route(&buffer[HEADER_LEN..HEADER_LEN + cut.index(len - HEADER_LEN)]);
        }
    }

    #[test]
    fn what_we_never_write_has_no_form() {
        let key = RouteKey {
            table: TableId::MAIN,
            prefix: "10.0.0.0/8".parse().unwrap(),
        };
        let route = KernelRoute {
            kind: RouteKind::Unicast,
            target: KernelTarget::Object(KernelNhId::FIRST),
            mtu: None,
            prefsrc: None,
        };
        let buffer = encoded(&key, &RouteOp::Create(Arc::new(route)));
        let plain = &buffer[HEADER_LEN..];
        assert!(decode_route(plain).unwrap().form.is_some());

        let tos = [&plain[..3], &[4], &plain[4..]].concat();
        assert_eq!(decode_route(&tos).unwrap().form, None);
        let flow = [plain, &[8, 0, 11, 0, 1, 0, 0, 0]].concat();
        assert_eq!(decode_route(&flow).unwrap().form, None);
        let foreign_object = [plain, &[8, 0, 30, 0, 9, 0, 0, 0]].concat();
        assert_eq!(decode_route(&foreign_object).unwrap().form, None);
    }

    #[test]
    fn weights_end_at_a_byte() {
        assert_eq!(weight_byte(0), 0);
        assert_eq!(weight_byte(1), 0);
        assert_eq!(weight_byte(256), 255);
        assert_eq!(weight_byte(u16::MAX), 255);
    }
}
