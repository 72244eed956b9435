//! Next-hop object messages (`RTM_NEWNEXTHOP`, `RTM_DELNEXTHOP`): taken apart without a copy, and what zebra means by
//! them over FPM.
//!
//! [`NextHopView`] only names the attributes and serves every reader; [`decode_nexthop`] judges them as an FPM server
//! must. Knows nothing of which ids exist: zebra sends a group before its members (FRR replays in hash order), so a
//! member is only a number here. Writing objects to the kernel is `kernel_nexthop`'s.
//! Format: `linux/nexthop.h`; evidence: streams of FRR 8.4.4, 10.3 and 10.7.1 in `tests/golden`.

use std::net::IpAddr;

use crate::model::{
    IfIndex, KernelNhId, NextHop, NextHopUpdate, Protocol, Reason, SourceNextHop, SourceNhId,
};

use super::netlink::{AttributeError, Attributes, as_u32, u16_at, u32_at};

/// `RTM_NEWNEXTHOP`.
pub const RTM_NEWNEXTHOP: u16 = 104;
/// `RTM_DELNEXTHOP`.
pub const RTM_DELNEXTHOP: u16 = 105;
/// `sizeof(struct nhmsg)`.
pub const NHMSG_LEN: usize = 8;
/// `sizeof(struct nexthop_grp)`.
pub const GROUP_ENTRY_LEN: usize = 8;

/// `NHA_ID`.
pub const NHA_ID: u16 = 1;
/// `NHA_GROUP`.
pub const NHA_GROUP: u16 = 2;
/// `NHA_GROUP_TYPE`.
pub const NHA_GROUP_TYPE: u16 = 3;
/// `NHA_BLACKHOLE`.
pub const NHA_BLACKHOLE: u16 = 4;
/// `NHA_OIF`.
pub const NHA_OIF: u16 = 5;
/// `NHA_GATEWAY`.
pub const NHA_GATEWAY: u16 = 6;
/// `NHA_ENCAP_TYPE`.
pub const NHA_ENCAP_TYPE: u16 = 7;
/// `NHA_ENCAP`.
pub const NHA_ENCAP: u16 = 8;
/// `NHA_FDB`.
pub const NHA_FDB: u16 = 11;
/// `NHA_RES_GROUP`.
pub const NHA_RES_GROUP: u16 = 12;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTNH_F_ONLINK: u32 = 4;

/// A next-hop message with its attributes named and nothing judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "presence of attributes, as on the wire"
)]
pub struct NextHopView<'a> {
    /// `nh_family`: 0 for groups.
    pub family: u8,
    /// `nh_protocol`.
    pub protocol: u8,
    /// `nh_flags`.
    pub flags: u32,
    /// `NHA_ID`.
    pub id: Option<u32>,
    /// `NHA_GROUP`, see [`group_members`].
    pub group: Option<&'a [u8]>,
    /// `NHA_GROUP_TYPE` other than `NEXTHOP_GRP_TYPE_MPATH`, or `NHA_RES_GROUP`.
    pub resilient: bool,
    /// `NHA_BLACKHOLE`.
    pub blackhole: bool,
    /// `NHA_OIF`.
    pub oif: Option<u32>,
    /// `NHA_GATEWAY`.
    pub gateway: Option<&'a [u8]>,
    /// `NHA_ENCAP` or `NHA_ENCAP_TYPE`.
    pub encap: bool,
    /// `NHA_FDB`: a VXLAN next hop, not for routes.
    pub fdb: bool,
    /// An attribute's length doesn't fit; what came before it is filled in.
    pub damaged: bool,
}

impl<'a> NextHopView<'a> {
    /// Takes a message's payload apart.
    ///
    /// # Errors
    /// When there are fewer bytes than `struct nhmsg`. Damage behind it only sets `damaged`, so that the id can still
    /// be told.
    pub fn parse(payload: &'a [u8]) -> Result<Self, AttributeError> {
        let Some((header, attributes)) = payload.split_at_checked(NHMSG_LEN) else {
            return Err(AttributeError);
        };
        let mut view = Self {
            family: header[0],
            protocol: header[2],
            flags: u32_at(header, 4).unwrap_or(0),
            id: None,
            group: None,
            resilient: false,
            blackhole: false,
            oif: None,
            gateway: None,
            encap: false,
            fdb: false,
            damaged: false,
        };
        for attribute in Attributes::new(attributes) {
            let Ok((kind, value)) = attribute else {
                view.damaged = true;
                break;
            };
            match kind {
                NHA_ID => view.set_u32(value, |view, id| view.id = Some(id)),
                NHA_GROUP => view.group = Some(value),
                NHA_GROUP_TYPE => view.resilient |= u16_at(value, 0) != Some(0),
                NHA_BLACKHOLE => view.blackhole = true,
                NHA_OIF => view.set_u32(value, |view, oif| view.oif = Some(oif)),
                NHA_GATEWAY => view.gateway = Some(value),
                NHA_ENCAP_TYPE | NHA_ENCAP => view.encap = true,
                NHA_FDB => view.fdb = true,
                NHA_RES_GROUP => view.resilient = true,
                _ => {}
            }
        }
        Ok(view)
    }

    fn set_u32(&mut self, value: &[u8], set: impl FnOnce(&mut Self, u32)) {
        match as_u32(value) {
            Some(value) => set(self, value),
            None => self.damaged = true,
        }
    }

    /// `RTNH_F_ONLINK`.
    pub const fn onlink(&self) -> bool {
        self.flags & RTNH_F_ONLINK != 0
    }

    /// The gateway as an address of `nh_family`; `Ok(None)` when there is none.
    ///
    /// # Errors
    /// When its length is not that of the family.
    pub fn gateway_addr(&self) -> Result<Option<IpAddr>, AttributeError> {
        let Some(bytes) = self.gateway else {
            return Ok(None);
        };
        address(self.family, bytes).map(Some).ok_or(AttributeError)
    }
}

/// The members of `NHA_GROUP` as (id, weight from 1), or `None` when the bytes are not a whole, positive number of
/// entries.
///
/// `struct nexthop_grp` holds weight - 1 in a byte; since Linux 6.12 (and FRR's `--nexthop-weight-16-bit`) the byte
/// behind it is the high one.
pub fn group_members(bytes: &[u8]) -> Option<impl ExactSizeIterator<Item = (u32, u32)> + '_> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(GROUP_ENTRY_LEN) {
        return None;
    }
    Some(bytes.chunks_exact(GROUP_ENTRY_LEN).map(|entry| {
        let id = u32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let weight = u32::from(u16::from_le_bytes([entry[4], entry[5]])) + 1;
        (id, weight)
    }))
}

/// A next-hop message of zebra's that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadNextHop {
    /// The id, where it could be read: what it meant before no longer holds.
    pub id: Option<SourceNhId>,
    /// What is wrong.
    pub reason: Reason,
}

/// What zebra means by a next-hop message; `add` tells `RTM_NEWNEXTHOP` from `RTM_DELNEXTHOP`.
pub fn decode_nexthop(add: bool, payload: &[u8]) -> Result<NextHopUpdate, BadNextHop> {
    let Ok(view) = NextHopView::parse(payload) else {
        return Err(BadNextHop {
            id: None,
            reason: Reason::BadNextHop,
        });
    };
    let id = view.id.filter(|&id| id != 0).map(SourceNhId);
    let bad = |reason| BadNextHop { id, reason };
    let known = id.ok_or(bad(Reason::BadNextHop))?;
    if view.damaged && add {
        return Err(bad(Reason::BadAttribute));
    }
    // FRR 10.7.1 streams what it heard from the kernel, ours too, with a family of 0 that no gateway fits. Nobody follows
    // such an object, so it is no fault of the stream.
    let heard = view.protocol == Protocol::KERNEL.0 || KernelNhId::new(known.0).is_some();
    let content = match content(&view) {
        _ if !add => None,
        Ok(content) => Some(content),
        Err(_) if heard => None,
        Err(reason) => return Err(bad(reason)),
    };
    Ok(NextHopUpdate {
        id: known,
        content,
        protocol: view.protocol,
    })
}

fn content(view: &NextHopView<'_>) -> Result<SourceNextHop, Reason> {
    if let Some(bytes) = view.group {
        let members: Box<[_]> = group_members(bytes)
            .ok_or(Reason::BadNextHop)?
            .map(|(id, weight)| (SourceNhId(id), weight))
            .collect();
        if members.iter().any(|(id, _)| id.0 == 0) {
            return Err(Reason::BadNextHop);
        }
        return Ok(SourceNextHop::Group(members));
    }
    if view.blackhole {
        return Ok(SourceNextHop::Blackhole);
    }
    let via = view.gateway_addr().map_err(|_| Reason::BadGateway)?;
    let hop = NextHop {
        via: via.filter(|via| !via.is_unspecified()),
        dev: view.oif.and_then(IfIndex::new),
        weight: 1,
        onlink: view.onlink(),
        encap: view.encap,
    };
    if view.fdb || (hop.via.is_none() && hop.dev.is_none()) {
        return Err(Reason::BadNextHop);
    }
    Ok(SourceNextHop::Hop(hop))
}

/// An address of an address family, when the length is right.
pub(super) fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        AF_INET6 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::{MessageBuilder, Messages};

    fn message(fixed: [u8; 8], fill: impl FnOnce(&mut MessageBuilder<'_>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut builder = MessageBuilder::new(&mut buffer, RTM_NEWNEXTHOP, 0x501, 0);
        builder.fixed(&fixed);
        fill(&mut builder);
        builder.finish();
        let message = Messages::new(&buffer).next().unwrap().unwrap();
        message.payload.to_vec()
    }

    fn put(
        fixed: [u8; 8],
        fill: impl FnOnce(&mut MessageBuilder<'_>),
    ) -> Result<SourceNextHop, Reason> {
        decode_nexthop(true, &message(fixed, fill))
            .map(|update| update.content.unwrap())
            .map_err(|bad| bad.reason)
    }

    const V4: [u8; 8] = [2, 0, 11, 0, 0, 0, 0, 0];
    const V6_ONLINK: [u8; 8] = [10, 0, 11, 0, 4, 0, 0, 0];
    const GROUP: [u8; 8] = [0, 0, 11, 0, 0, 0, 0, 0];

    #[test]
    fn hop_with_link_local_gateway() {
        let gateway: std::net::Ipv6Addr = "fe80::ff:fe00:300".parse().unwrap();
        let hop = put(V6_ONLINK, |m| {
            m.attr_u32(NHA_ID, 17)
                .attr(NHA_GATEWAY, &gateway.octets())
                .attr_u32(NHA_OIF, 4);
        });
        assert_eq!(
            hop,
            Ok(SourceNextHop::Hop(NextHop {
                via: Some(gateway.into()),
                dev: IfIndex::new(4),
                weight: 1,
                onlink: true,
                encap: false,
            }))
        );
    }

    #[test]
    fn group_weights_count_from_one_and_have_a_high_byte() {
        let group = put(GROUP, |m| {
            m.attr_u32(NHA_ID, 18).attr(
                NHA_GROUP,
                &[19, 0, 0, 0, 84, 0, 0, 0, 20, 0, 0, 0, 254, 1, 0, 0],
            );
        });
        assert_eq!(
            group,
            Ok(SourceNextHop::Group(Box::new([
                (SourceNhId(19), 85),
                (SourceNhId(20), 0x1ff),
            ])))
        );
    }

    #[test]
    fn encapsulation_and_blackhole_are_told() {
        let encap = put(V4, |m| {
            m.attr_u32(NHA_ID, 5).attr_u32(NHA_OIF, 2);
            m.attr(NHA_ENCAP_TYPE, &[1, 0]).attr(NHA_ENCAP, &[]);
        });
        assert!(matches!(encap, Ok(SourceNextHop::Hop(hop)) if hop.encap));
        let blackhole = put(V4, |m| {
            m.attr_u32(NHA_ID, 5).attr(NHA_BLACKHOLE, &[]);
        });
        assert_eq!(blackhole, Ok(SourceNextHop::Blackhole));
    }

    #[test]
    fn impossible_messages_name_the_id_and_the_reason() {
        let wrong_family = message(V4, |m| {
            m.attr_u32(NHA_ID, 9).attr(NHA_GATEWAY, &[0; 16]);
        });
        assert_eq!(
            decode_nexthop(true, &wrong_family),
            Err(BadNextHop {
                id: Some(SourceNhId(9)),
                reason: Reason::BadGateway
            })
        );
        let no_id = put(V4, |m| {
            m.attr_u32(NHA_OIF, 2);
        });
        assert_eq!(no_id, Err(Reason::BadNextHop));
        for group in [&[][..], &[1, 0, 0, 0, 0], &[0; 8]] {
            let bad = put(GROUP, |m| {
                m.attr_u32(NHA_ID, 1).attr(NHA_GROUP, group);
            });
            assert_eq!(bad, Err(Reason::BadNextHop));
        }
        assert_eq!(
            put(V4, |m| {
                m.attr_u32(NHA_ID, 1);
            }),
            Err(Reason::BadNextHop)
        );
    }

    #[test]
    fn a_withdrawal_needs_only_the_id() {
        let bytes = message([0; 8], |m| {
            m.attr_u32(NHA_ID, 18);
        });
        let update = decode_nexthop(false, &bytes).unwrap();
        assert_eq!((update.id, update.content), (SourceNhId(18), None));
    }

    /// What FRR 10.7.1 streams of an object of ours: family 0, protocol 2, an IPv4 gateway.
    #[test]
    fn objects_that_zebra_only_heard_of_are_no_fault() {
        let bytes = message([0, 0, 2, 0, 4, 0, 0, 0], |m| {
            m.attr_u32(NHA_ID, 0xb800_0004)
                .attr(NHA_GATEWAY, &[169, 254, 0, 1])
                .attr_u32(NHA_OIF, 4);
        });
        let update = decode_nexthop(true, &bytes).unwrap();
        assert_eq!((update.content, update.protocol), (None, 2));
    }
}
