//! The announcement that nearly every message of a big table is, read by its fixed places instead of attribute by attribute. What
//! has any other form is left to [`super::decode_route`], which decides what is wrong with it.

use std::net::IpAddr;

use super::{AF_INET, AF_INET6, RTA_DST, RTA_NH_ID, RTA_PRIORITY};
use crate::model::{
    PathHops, Prefix, Protocol, RouteKey, RouteKind, RoutePath, RouteUpdate, SourceNhId, TableId,
};
use crate::wire::netlink::u32_at;

/// The announcement that nearly every message of a big table is, read by its fixed places: `rtmsg`, `RTA_DST`,
/// `RTA_PRIORITY`, `RTA_NH_ID` and nothing else, as `dplane_fpm_nl` writes it. `None` for all others, and for what is
/// wrong with it: [`super::decode_route`] decides then. Where it answers, both say the same (a test compares them).
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
