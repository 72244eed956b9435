//! Kernel next-hop objects: `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP` as we write them, and what the kernel says of anybody's.
//!
//! netlink-packet-route has no next-hop messages, so by hand. Decoding is the inverse of encoding; blackholes, fdb
//! objects, encapsulations and resilient groups are never written and read back without content.
//! A group's weight is one less in a byte; kernels since 6.12 take a second byte for weights over 256, older ones want
//! zero there, so it is set only when it must be. Format: `linux/nexthop.h`.

use super::kernel_route::{af, attr_addr};
use super::netlink::{Envelope, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use super::rtnl_nexthop::{
    NHA_GATEWAY, NHA_GROUP, NHA_ID, NHA_OIF, NHMSG_LEN, NextHopView, RTM_DELNEXTHOP,
    RTM_NEWNEXTHOP, group_members,
};
use super::rtnl_route::{AF_INET, AF_INET6, RTNH_F_ONLINK};
use crate::model::{
    Family, IfIndex, KernelHop, KernelNhId, ObservedContent, ObservedNextHop, Protocol,
};

const RTM_GETNEXTHOP: u16 = 106;

/// Creates or replaces a single next hop.
pub fn encode_put_hop(envelope: Envelope<'_>, id: KernelNhId, hop: &KernelHop, by: Protocol) {
    let mut message = envelope.request(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE);
    let [f0, f1, f2, f3] = if hop.onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes();
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
    let view = NextHopView::parse(payload).ok()?;
    Some(ObservedNextHop {
        id: view.id?,
        protocol: view.protocol,
        content: content(&view),
    })
}

fn content(view: &NextHopView<'_>) -> Option<ObservedContent> {
    if view.damaged || view.resilient || view.blackhole || view.encap || view.fdb {
        return None;
    }
    if let Some(group) = view.group {
        let members = group_members(group)?
            .map(|(id, weight)| (id, u16::try_from(weight).unwrap_or(u16::MAX)))
            .collect();
        return Some(ObservedContent::Group(members));
    }
    Some(ObservedContent::Hop(KernelHop {
        family: match view.family {
            AF_INET => Family::V4,
            AF_INET6 => Family::V6,
            _ => return None,
        },
        via: view.gateway_addr().ok()?,
        dev: IfIndex::new(view.oif?)?,
        onlink: view.onlink(),
    }))
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
