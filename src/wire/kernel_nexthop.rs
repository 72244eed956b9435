//! Kernel next-hop objects: `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP` as we write them, and what the kernel says of anybody's.
//!
//! netlink-packet-route has no next-hop messages, so by hand. Decoding is the inverse of encoding; blackholes, fdb
//! objects, encapsulations and resilient groups are never written and read back without content.
//! A group's weight is one less in a byte; kernels since 6.12 take a second byte for weights over 256, older ones want
//! zero there, so it is set only when it must be. Format: `linux/nexthop.h`.

use super::kernel_route::{AF_INET, AF_INET6, af, attr_addr, decode_addr};
use super::netlink::{
    Attributes, Envelope, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, as_u32, u32_at,
};
use crate::model::{
    Family, IfIndex, KernelHop, KernelNhId, ObservedContent, ObservedNextHop, Protocol,
};

/// `RTM_NEWNEXTHOP`.
pub const RTM_NEWNEXTHOP: u16 = 104;
/// `RTM_DELNEXTHOP`.
pub const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;
const NHA_FDB: u16 = 11;
const NHA_RES_GROUP: u16 = 12;

const NEXTHOP_GRP_TYPE_MPATH: [u8; 2] = [0, 0];
const NHMSG_LEN: usize = 8;
const NEXTHOP_GRP_LEN: usize = 8;
const RTNH_F_ONLINK: u8 = 4;

/// Creates or replaces a single next hop.
pub fn encode_put_hop(envelope: Envelope<'_>, id: KernelNhId, hop: &KernelHop, by: Protocol) {
    let mut message = envelope.request(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE);
    let [f0, f1, f2, f3] = u32::from(if hop.onlink { RTNH_F_ONLINK } else { 0 }).to_ne_bytes();
    message.fixed(&[af(hop.family), 0, by.0, 0, f0, f1, f2, f3]);
    message.attr_u32(NHA_ID, id.get());
    message.attr_u32(NHA_OIF, hop.dev.get());
    if let Some(via) = hop.via {
        attr_addr(&mut message, NHA_GATEWAY, via);
    }
    message.finish();
}

/// Creates or replaces a group. Weights count from 1.
pub fn encode_put_group(
    envelope: Envelope<'_>,
    id: KernelNhId,
    members: &[(KernelNhId, u16)],
    by: Protocol,
) {
    let mut message = envelope.request(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE);
    message.fixed(&[0, 0, by.0, 0, 0, 0, 0, 0]);
    message.attr_u32(NHA_ID, id.get());
    message.nested(NHA_GROUP, |message| {
        for (id, weight) in members {
            let [i0, i1, i2, i3] = id.get().to_ne_bytes();
            let [high, low] = weight.saturating_sub(1).to_be_bytes();
            message.fixed(&[i0, i1, i2, i3, low, high, 0, 0]);
        }
    });
    message.finish();
}

/// Deletes an object.
pub fn encode_delete_nexthop(envelope: Envelope<'_>, id: KernelNhId) {
    let mut message = envelope.request(RTM_DELNEXTHOP, 0);
    message.fixed(&[0; NHMSG_LEN]);
    message.attr_u32(NHA_ID, id.get());
    message.finish();
}

/// Asks for all objects.
pub fn encode_nexthop_dump(envelope: Envelope<'_>) {
    let mut message = envelope.request(RTM_GETNEXTHOP, NLM_F_DUMP);
    message.fixed(&[0; NHMSG_LEN]);
    message.finish();
}

/// Reads a next-hop object of a dump or notification; `None` for a message without id.
pub fn decode_nexthop(payload: &[u8]) -> Option<ObservedNextHop> {
    let nhm: [u8; NHMSG_LEN] = *payload.first_chunk()?;
    let mut id = None;
    let mut found = Found::default();
    for attribute in Attributes::new(&payload[NHMSG_LEN..]) {
        match attribute.ok()? {
            (NHA_ID, value) => id = as_u32(value),
            (NHA_GROUP, value) => found.group = Some(value),
            (NHA_OIF, value) => found.dev = as_u32(value).and_then(IfIndex::new),
            (NHA_GATEWAY, value) => found.gateway = Some(value),
            (NHA_GROUP_TYPE, value) => found.odd |= value != NEXTHOP_GRP_TYPE_MPATH,
            (NHA_BLACKHOLE | NHA_ENCAP_TYPE | NHA_ENCAP | NHA_FDB | NHA_RES_GROUP, _) => {
                found.odd = true;
            }
            // Statistics and the like say nothing about where packets go.
            _ => {}
        }
    }
    Some(ObservedNextHop {
        id: id?,
        protocol: nhm[2],
        content: found.content(nhm),
    })
}

#[derive(Default)]
struct Found<'a> {
    group: Option<&'a [u8]>,
    dev: Option<IfIndex>,
    gateway: Option<&'a [u8]>,
    odd: bool,
}

impl Found<'_> {
    fn content(self, nhm: [u8; NHMSG_LEN]) -> Option<ObservedContent> {
        if self.odd {
            return None;
        }
        if let Some(group) = self.group {
            return group_members(group).map(ObservedContent::Group);
        }
        let family = match nhm[0] {
            AF_INET => Family::V4,
            AF_INET6 => Family::V6,
            _ => return None,
        };
        let via = match self.gateway {
            Some(bytes) => Some(decode_addr(family, bytes)?),
            None => None,
        };
        Some(ObservedContent::Hop(KernelHop {
            family,
            via,
            dev: self.dev?,
            onlink: u32_at(&nhm, 4)? as u8 & RTNH_F_ONLINK != 0,
        }))
    }
}

/// `struct nexthop_grp` after each other: id, weight less one, the weight's high byte.
fn group_members(bytes: &[u8]) -> Option<Vec<(u32, u16)>> {
    let members = bytes.chunks_exact(NEXTHOP_GRP_LEN);
    if bytes.is_empty() || !members.remainder().is_empty() {
        return None;
    }
    members
        .map(|member| {
            let weight = u16::from_be_bytes([member[5], member[4]]);
            Some((u32_at(member, 0)?, weight.saturating_add(1)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::{HEADER_LEN, Messages};

    fn read_back(encode: impl FnOnce(Envelope<'_>)) -> ObservedNextHop {
        let mut buffer = Vec::new();
        encode(Envelope {
            buffer: &mut buffer,
            seq: 1,
        });
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        assert_eq!(message.payload.len() + HEADER_LEN, buffer.len());
        decode_nexthop(message.payload).unwrap()
    }

    fn our_id() -> impl Strategy<Value = KernelNhId> {
        (KernelNhId::FIRST.get()..=KernelNhId::LAST.get())
            .prop_map(|id| KernelNhId::new(id).unwrap())
    }

    proptest! {
        #[test]
        fn hops_read_back(id in our_id(), four: u32, six: u128, which in 0..4, dev in 1u32.., onlink: bool) {
            let (family, via) = match which {
                0 => (Family::V4, Some(IpAddr::V4(Ipv4Addr::from_bits(four)))),
                1 => (Family::V6, Some(IpAddr::V6(Ipv6Addr::from_bits(six)))),
                2 => (Family::V4, None),
                _ => (Family::V6, None),
            };
            let hop = KernelHop { family, via, dev: IfIndex::new(dev).unwrap(), onlink };
            let read = read_back(|e| encode_put_hop(e, id, &hop, Protocol::REDIRECT));
            prop_assert_eq!(read, ObservedNextHop { id: id.get(), protocol: 1, content: Some(ObservedContent::Hop(hop)) });
        }

        #[test]
        fn groups_read_back(id in our_id(), members in proptest::collection::vec((our_id(), 1u16..), 1..600)) {
            let read = read_back(|e| encode_put_group(e, id, &members, Protocol::REDIRECT));
            let want = members.iter().map(|(id, weight)| (id.get(), *weight)).collect();
            prop_assert_eq!(read.content, Some(ObservedContent::Group(want)));
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _: Option<ObservedNextHop> = decode_nexthop(&bytes);
        }
    }

    #[test]
    fn small_weights_leave_the_reserved_byte_zero() {
        let mut buffer = Vec::new();
        let envelope = Envelope {
            buffer: &mut buffer,
            seq: 1,
        };
        encode_put_group(
            envelope,
            KernelNhId::FIRST,
            &[(KernelNhId::LAST, 256)],
            Protocol(1),
        );
        assert_eq!(buffer[buffer.len() - 4..], [255, 0, 0, 0]);
    }
}
