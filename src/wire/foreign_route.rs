//! Kernel routes of others as [`ForeignRoute`]s: which prefixes the kernel looks up that neither we nor FRR wrote.
//!
//! Reads no more of a route than what its destination, preference and kind are; the rest goes into a number that tells
//! routes apart. A multipath route is told as one route a hop: IPv6 announces the hops of one in any mixture (all when one
//! is added, each alone when it goes, seen on Linux 6.18), and taken apart they always add up. Flags such as `linkdown` are
//! left out, so that a route in a notification and in a list is the same one.
//!
//! Cache entries (`RTM_F_CLONED`) and multicast routing (`RTNL_FAMILY_IPMR`) are no routes of the FIB.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::kernel_route::{RTM_F_CLONED, RTM_GETROUTE, af, unspecified};
use super::netlink::{Attributes, Envelope, NLM_F_DUMP, align, as_u32, u16_at, u32_at};
use super::rtnl_nexthop::address;
use super::rtnl_route::{
    AF_INET, AF_INET6, RTA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PRIORITY,
    RTA_TABLE, RTA_VIA, RTMSG_LEN, RTNEXTHOP_LEN,
};
use crate::model::{
    Family, ForeignKind, ForeignRoute, IfIndex, Prefix, Protocol, RouteKey, TableId,
};

/// Where `rtm_protocol` is in `struct rtmsg`.
pub const RTM_PROTOCOL_OFFSET: usize = 5;
const RTA_SRC: u16 = 2;
const RTA_ENCAP: u16 = 22;

/// Whether routes with this number are neither ours nor FRR's.
pub const fn is_foreign(protocol: Protocol) -> bool {
    !protocol.is_frr() && protocol.0 != Protocol::REDIRECT.0
}

/// Asks for all routes of a family in all tables; with a protocol, which must not be 0, for those with that number.
pub fn encode_foreign_dump(envelope: Envelope<'_>, family: Family, protocol: Option<Protocol>) {
    let mut rtm = [0; RTMSG_LEN];
    rtm[0] = af(family);
    rtm[RTM_PROTOCOL_OFFSET] = protocol.map_or(0, |protocol| protocol.0);
    let mut message = envelope.request(RTM_GETROUTE, NLM_F_DUMP);
    message.fixed(&rtm);
    message.finish();
}

/// The foreign routes in a message: none, one, or one a hop of a multipath.
pub fn decode_foreign(payload: &[u8]) -> Vec<ForeignRoute> {
    let mut found = Vec::new();
    // A damaged message is no route.
    if decode(payload, &mut found).is_none() {
        found.clear();
    }
    found
}

fn decode(payload: &[u8], into: &mut Vec<ForeignRoute>) -> Option<()> {
    let rtm: &[u8; RTMSG_LEN] = payload.first_chunk()?;
    let protocol = rtm[RTM_PROTOCOL_OFFSET];
    let family = match rtm[0] {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return None,
    };
    if !is_foreign(Protocol(protocol)) || u32_at(rtm, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let (mut dst, mut table, mut metric) = (unspecified(family), u32::from(rtm[4]), 0);
    let (mut source, mut object, mut multipath) = (&[][..], None, None);
    let mut hop = Hop::default();
    for attribute in Attributes::new(&payload[RTMSG_LEN..]) {
        match attribute.ok()? {
            (RTA_DST, value) => dst = address(rtm[0], value)?,
            (RTA_TABLE, value) => table = as_u32(value)?,
            (RTA_PRIORITY, value) => metric = as_u32(value)?,
            (RTA_SRC, value) => source = value,
            (RTA_NH_ID, value) => object = as_u32(value),
            (RTA_MULTIPATH, value) => multipath = Some(value),
            (kind, value) => hop.take(kind, value),
        }
    }
    let mut route = ForeignRoute {
        key: RouteKey {
            table: TableId(table),
            prefix: Prefix::new(dst, rtm[1]).ok()?,
        },
        metric,
        tos: rtm[3],
        protocol,
        kind: ForeignKind::Unicast,
        way: 0,
    };
    let mut put = |kind, way: &dyn Fn(&mut FxHasher)| {
        let mut hasher = FxHasher::default();
        (rtm[2], source).hash(&mut hasher);
        way(&mut hasher);
        (route.kind, route.way) = (kind, hasher.finish());
        into.push(route);
    };
    let kind = kind_of(rtm[7])?;
    match (object, multipath) {
        // The object's hops come expanded beside its id; when they change it is still the same route.
        (Some(id), _) => put(kind, &|hasher| id.hash(hasher)),
        (None, Some(hops)) => {
            for hop in decode_hops(hops) {
                let hop = hop?;
                put(hop.kind(kind), &|hasher| hop.hash(hasher));
            }
        }
        (None, None) => put(hop.kind(kind), &|hasher| hop.hash(hasher)),
    }
    Some(())
}

/// What a route does, where its hops make no difference. `None` for what is no route (NAT, resolvers of user space).
const fn kind_of(rtn: u8) -> Option<ForeignKind> {
    Some(match rtn {
        1 => ForeignKind::Unicast,
        2..=5 => ForeignKind::Local,
        6..=8 => ForeignKind::Discard,
        9 => ForeignKind::Throw,
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, Default, Hash)]
struct Hop<'a> {
    dev: Option<IfIndex>,
    gateway: Option<&'a [u8]>,
    via: Option<&'a [u8]>,
    encapsulated: bool,
}

impl<'a> Hop<'a> {
    fn take(&mut self, kind: u16, value: &'a [u8]) {
        match kind {
            RTA_OIF => self.dev = as_u32(value).and_then(IfIndex::new),
            RTA_GATEWAY => self.gateway = Some(value),
            RTA_VIA => self.via = Some(value),
            RTA_ENCAP => self.encapsulated = true,
            _ => {}
        }
    }

    fn kind(&self, route: ForeignKind) -> ForeignKind {
        match (route, self) {
            (
                ForeignKind::Unicast,
                Hop {
                    dev: Some(dev),
                    gateway: None,
                    via: None,
                    encapsulated: false,
                },
            ) => ForeignKind::OnLink(*dev),
            (kind, _) => kind,
        }
    }
}

/// Hops of `RTA_MULTIPATH`: a `struct rtnexthop` each, with attributes inside; ends after one that is damaged.
fn decode_hops(mut bytes: &[u8]) -> impl Iterator<Item = Option<Hop<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut bytes);
        let len = u16_at(whole, 0).map_or(0, usize::from);
        let Some(attributes) = whole.get(RTNEXTHOP_LEN..len) else {
            return Some(None);
        };
        let mut hop = Hop {
            dev: u32_at(whole, 4).and_then(IfIndex::new),
            ..Hop::default()
        };
        for attribute in Attributes::new(attributes) {
            let Ok((kind, value)) = attribute else {
                return Some(None);
            };
            hop.take(kind, value);
        }
        bytes = whole.get(align(len)..).unwrap_or(&[]);
        Some(Some(hop))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::MessageBuilder;

    const D0: u32 = 7;

    /// A route message as the kernel makes it: (family, length, protocol, type, flags) and attributes.
    fn message(
        (family, len, protocol, kind, flags): (u8, u8, u8, u8, u32),
        attributes: impl FnOnce(&mut MessageBuilder<'_>),
    ) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut message = MessageBuilder::new(&mut buffer, 24, 0, 0);
        let [f0, f1, f2, f3] = flags.to_ne_bytes();
        message.fixed(&[family, len, 0, 0, 254, protocol, 0, kind, f0, f1, f2, f3]);
        message.attr_u32(RTA_TABLE, 254);
        attributes(&mut message);
        message.finish();
        buffer.split_off(16)
    }

    fn to_ten(message: &mut MessageBuilder<'_>) {
        message.attr(RTA_DST, &[10, 0, 0, 0]);
    }

    fn only(payload: &[u8]) -> ForeignRoute {
        let found = decode_foreign(payload);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }

    #[test]
    fn a_connected_subnet_is_on_its_link() {
        let route = only(&message((2, 8, 2, 1, 0), |m| {
            to_ten(m);
            m.attr_u32(RTA_OIF, D0);
        }));
        assert_eq!(route.key.to_string(), "10.0.0.0/8 table 254");
        assert_eq!((route.metric, route.protocol), (0, 2));
        assert_eq!(route.kind, ForeignKind::OnLink(IfIndex::new(D0).unwrap()));
    }

    #[test]
    fn a_default_route_has_no_destination() {
        let route = only(&message((10, 0, 9, 1, 0), |m| {
            m.attr_u32(RTA_PRIORITY, 1024);
            m.attr(RTA_GATEWAY, &[0xfe; 16]);
            m.attr_u32(RTA_OIF, D0);
        }));
        assert_eq!(route.key.to_string(), "::/0 table 254");
        assert_eq!((route.metric, route.kind), (1024, ForeignKind::Unicast));
    }

    #[test]
    fn what_is_ours_or_frr_s_or_cached_is_no_foreign_route() {
        for protocol in [1, 11, 42, 186, 196, 198] {
            assert_eq!(
                decode_foreign(&message((2, 8, protocol, 1, 0), to_ten)),
                [],
                "{protocol}"
            );
        }
        for protocol in [0, 2, 3, 4, 9, 12, 16, 185, 199] {
            assert_eq!(
                decode_foreign(&message((2, 8, protocol, 1, 0), to_ten)).len(),
                1
            );
        }
        assert_eq!(
            decode_foreign(&message((10, 0, 2, 1, RTM_F_CLONED), |_| {})),
            []
        );
        // RTNL_FAMILY_IPMR
        assert_eq!(decode_foreign(&message((128, 0, 17, 5, 0), |_| {})), []);
    }

    #[test]
    fn the_other_kinds_go_by_their_type() {
        for (rtn, kind) in [
            (2, ForeignKind::Local),
            (3, ForeignKind::Local),
            (4, ForeignKind::Local),
            (5, ForeignKind::Local),
            (6, ForeignKind::Discard),
            (8, ForeignKind::Discard),
            (9, ForeignKind::Throw),
        ] {
            let payload = message((2, 8, 3, rtn, 0), |m| {
                to_ten(m);
                m.attr_u32(RTA_OIF, D0);
            });
            assert_eq!(only(&payload).kind, kind);
        }
    }

    #[test]
    fn multipath_is_a_route_a_hop_whatever_its_flags() {
        let hop = |m: &mut MessageBuilder<'_>, flags, last: u8| {
            m.rtnexthop(flags, 0, D0, |m| {
                m.attr(RTA_GATEWAY, &[10, 0, 0, last]);
            });
        };
        let both = decode_foreign(&message((2, 8, 3, 1, 0), |m| {
            to_ten(m);
            m.nested(RTA_MULTIPATH, |m| {
                hop(m, 0, 1);
                hop(m, 0x11, 2);
            });
        }));
        let single = only(&message((2, 8, 3, 1, 0x10), |m| {
            to_ten(m);
            m.attr(RTA_GATEWAY, &[10, 0, 0, 2]);
            m.attr_u32(RTA_OIF, D0);
        }));
        assert_eq!(both.len(), 2);
        assert_ne!(both[0], both[1]);
        assert_eq!(both[1], single);
    }

    #[test]
    fn a_route_by_object_is_one_route_whatever_the_hops() {
        let by_id = |hops: bool| {
            only(&message((2, 8, 3, 1, 0), |m| {
                to_ten(m);
                m.attr_u32(RTA_NH_ID, 5);
                if hops {
                    m.attr_u32(RTA_OIF, D0);
                }
            }))
        };
        assert_eq!(by_id(true), by_id(false));
        assert_eq!(by_id(true).kind, ForeignKind::Unicast);
    }

    proptest! {
        #[test]
        fn noise_never_panics(v6: bool, len in 0u8..129, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let payload = [&[if v6 { 10 } else { 2 }, len, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0], &bytes[..]].concat();
            let _: Vec<ForeignRoute> = decode_foreign(&payload);
            let _: Vec<ForeignRoute> = decode_foreign(&bytes);
        }

        #[test]
        fn damaged_hops_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let payload = message((2, 8, 3, 1, 0), |m| { m.attr(RTA_MULTIPATH, &bytes); });
            let _: Vec<ForeignRoute> = decode_foreign(&payload);
        }
    }
}
