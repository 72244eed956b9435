//! Protobuf frames of FPM (`zebra_fpm:protobuf`, deprecated in FRR): what zebra says in them, for those who look.
//!
//! Nothing of it may be installed, so there is no way from here to a `SourceUpdate`. FRR writes a next hop's address in
//! the family of the route: the IPv6 next hop of an IPv4 route (RFC 5549) arrives as its first four bytes, 254.128.0.0 of
//! `fe80::1`, and of a global address as something that looks like any IPv4 gateway. Besides no message names a table
//! (a route of table 100 looks like one of its VRF's) or a weight.
//!
//! Takes one frame's payload. Knows no framing and keeps nothing between messages.
//! Format: `proto/fpm.proto`; evidence: streams of FRR 10.7.1 in `tests/golden`.

use std::net::{IpAddr, Ipv4Addr};

use prost::Message as _;
use thiserror::Error;

use self::proto::message::Type;
use self::proto::{AddressFamily, RouteType, SubAddressFamily};
use crate::model::{IfIndex, NextHop, Prefix, PrefixError, Reason, RouteKind};

/// Generated from `proto/fpm.proto`.
mod proto {
    #![allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
    tonic::include_proto!("frr_offload.fpm");
}

/// What `fe80::/10` and `fc00::/7` leave of an address in its first four bytes. Nobody has gateways there.
const CUT: [(Ipv4Addr, u8); 2] = [
    (Ipv4Addr::new(254, 128, 0, 0), 10),
    (Ipv4Addr::new(252, 0, 0, 0), 7),
];

/// A payload that is no protobuf, or lacks the route that it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the payload is no protobuf message of a route")]
pub struct NotProtobuf;

/// One frame's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PbMessage {
    /// `ADD_ROUTE` or `DELETE_ROUTE`.
    Route(PbRoute),
    /// `ADD_SRV6_LOCALSID` or `DELETE_SRV6_LOCALSID`, of FRR 10. Not looked into.
    LocalSid {
        /// Announced, else withdrawn.
        add: bool,
    },
    /// A type that is not known, or none.
    Unknown,
}

impl PbMessage {
    /// The type's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Route(PbRoute { add: true, .. }) => "ADD_ROUTE",
            Self::Route(PbRoute { add: false, .. }) => "DELETE_ROUTE",
            Self::LocalSid { add: true } => "ADD_SRV6_LOCALSID",
            Self::LocalSid { add: false } => "DELETE_SRV6_LOCALSID",
            Self::Unknown => "UNKNOWN_MSG",
        }
    }
}

/// zebra's number of a VRF; 0 is the default one. Not a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VrfId(pub u32);

/// A route as far as it can be read, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PbRoute {
    /// Announced (over what was), else withdrawn.
    pub add: bool,
    /// The VRF.
    pub vrf: VrfId,
    /// The destination.
    pub prefix: Option<Prefix>,
    /// Who made it, in this format's own words; a withdrawal doesn't say.
    pub protocol: Option<&'static str>,
    /// What it does; a withdrawal doesn't say.
    pub kind: Option<RouteKind>,
    /// Its metric; a withdrawal has none.
    pub metric: Option<u32>,
    /// The next hops as they stand there, wrong ones too where `fault` says so.
    pub hops: Vec<NextHop>,
    /// Why it is not what zebra means, or can't be told.
    pub fault: Option<Reason>,
}

/// Reads a frame's payload.
///
/// # Errors
/// When it is no protobuf, or has no route where it promises one. What is only missing or impossible in a route is its own fault.
pub fn decode_protobuf(payload: &[u8]) -> Result<PbMessage, NotProtobuf> {
    let message = proto::Message::decode(payload).map_err(|_| NotProtobuf)?;
    Ok(match message.r#type() {
        Type::AddRoute => PbMessage::Route(announced(&message.add_route.ok_or(NotProtobuf)?)),
        Type::DeleteRoute => PbMessage::Route(withdrawn(&message.delete_route.ok_or(NotProtobuf)?)),
        Type::AddSrv6Localsid => PbMessage::LocalSid { add: true },
        Type::DeleteSrv6Localsid => PbMessage::LocalSid { add: false },
        Type::UnknownMsg => PbMessage::Unknown,
    })
}

fn announced(route: &proto::AddRoute) -> PbRoute {
    let family = (route.address_family(), route.sub_address_family());
    let prefix = prefix(family, route.key.as_ref());
    let kind = match route.route_type() {
        RouteType::Normal => Ok(RouteKind::Unicast),
        RouteType::Unreachable => Ok(RouteKind::Unreachable),
        RouteType::Blackhole => Ok(RouteKind::Blackhole),
        RouteType::UnknownRouteType => Err(Reason::BadRouteType),
    };
    let hops: Vec<_> = route
        .nexthops
        .iter()
        .map(|hop| next_hop(family.0, hop))
        .collect();
    let hop_fault = match kind {
        Ok(RouteKind::Unicast) => hops
            .iter()
            .find_map(|(_, fault)| *fault)
            .or(hops.is_empty().then_some(Reason::NoNextHop)),
        _ => None,
    };
    let encapsulated = route.srv6_vpn_sid.as_ref();
    PbRoute {
        add: true,
        vrf: VrfId(route.vrf_id()),
        protocol: Some(protocol_name(route.protocol())),
        metric: Some(route.metric().cast_unsigned()),
        hops: hops.into_iter().map(|(hop, _)| hop).collect(),
        fault: prefix
            .err()
            .or(kind.err())
            .or(hop_fault)
            .or(encapsulated.map(|_| Reason::Encapsulation)),
        prefix: prefix.ok(),
        kind: kind.ok(),
    }
}

fn withdrawn(route: &proto::DeleteRoute) -> PbRoute {
    let family = (route.address_family(), route.sub_address_family());
    let prefix = prefix(family, route.key.as_ref());
    PbRoute {
        add: false,
        vrf: VrfId(route.vrf_id()),
        protocol: None,
        kind: None,
        metric: None,
        hops: Vec::new(),
        fault: prefix.err(),
        prefix: prefix.ok(),
    }
}

/// The prefix has as many bytes as its length needs.
fn prefix(
    (family, sub): (AddressFamily, SubAddressFamily),
    key: Option<&proto::RouteKey>,
) -> Result<Prefix, Reason> {
    if sub != SubAddressFamily::Unicast {
        return Err(Reason::BadFamily);
    }
    let prefix = key
        .and_then(|key| key.prefix.as_ref())
        .ok_or(Reason::BadDestination)?;
    let bytes = prefix.bytes();
    let len = u8::try_from(prefix.length()).map_err(|_| Reason::BadPrefixLength)?;
    if bytes.len() != usize::from(len).div_ceil(8) {
        return Err(Reason::BadDestination);
    }
    let addr = match family {
        AddressFamily::Ipv4 => IpAddr::from(filled::<4>(bytes)?),
        AddressFamily::Ipv6 => IpAddr::from(filled::<16>(bytes)?),
        AddressFamily::UnknownAf => return Err(Reason::BadFamily),
    };
    Prefix::new(addr, len).map_err(|error| match error {
        PrefixError::HostBits { .. } => Reason::HostBits,
        PrefixError::Length { .. } | PrefixError::Syntax => Reason::BadPrefixLength,
    })
}

fn filled<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Reason> {
    let mut all = [0; N];
    let part = all.get_mut(..bytes.len());
    part.ok_or(Reason::BadPrefixLength)?.copy_from_slice(bytes);
    Ok(all)
}

/// A next hop as it stands there, and what is wrong with it.
fn next_hop(family: AddressFamily, hop: &proto::Nexthop) -> (NextHop, Option<Reason>) {
    let via = match &hop.address {
        None => Ok(None),
        Some(address) => gateway(family, address),
    };
    let dev = hop
        .if_id
        .as_ref()
        .and_then(|link| IfIndex::new(link.index()));
    let fault = match via {
        Err(reason) => Some(reason),
        Ok(Some(IpAddr::V4(addr))) if is_cut(addr) => Some(Reason::NextHopCut),
        Ok(None) if dev.is_none() => Some(Reason::NoNextHop),
        Ok(_) => None,
    };
    let hop = NextHop {
        via: via.ok().flatten(),
        dev,
        weight: 1,
        onlink: false,
        encap: false,
    };
    (hop, fault)
}

fn gateway(family: AddressFamily, address: &proto::L3Address) -> Result<Option<IpAddr>, Reason> {
    let addr = match (family, &address.v4, &address.v6) {
        (AddressFamily::Ipv4, Some(v4), None) => {
            let value = v4.value.ok_or(Reason::BadGateway)?;
            IpAddr::from(Ipv4Addr::from_bits(value))
        }
        (AddressFamily::Ipv6, None, Some(v6)) => {
            let bytes = <[u8; 16]>::try_from(v6.bytes());
            IpAddr::from(bytes.map_err(|_| Reason::BadGateway)?)
        }
        _ => return Err(Reason::BadGateway),
    };
    Ok((!addr.is_unspecified()).then_some(addr))
}

fn is_cut(addr: Ipv4Addr) -> bool {
    CUT.iter()
        .any(|(net, len)| (addr.to_bits() ^ net.to_bits()) >> (32 - len) == 0)
}

const fn protocol_name(protocol: proto::Protocol) -> &'static str {
    match protocol {
        proto::Protocol::UnknownProto => "unknown",
        proto::Protocol::Local => "local",
        proto::Protocol::Connected => "connected",
        proto::Protocol::Kernel => "kernel",
        proto::Protocol::Static => "static",
        proto::Protocol::Rip => "rip",
        proto::Protocol::Ripng => "ripng",
        proto::Protocol::Ospf => "ospf",
        proto::Protocol::Isis => "isis",
        proto::Protocol::Bgp => "bgp",
        proto::Protocol::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> proto::AddRoute {
        proto::AddRoute {
            vrf_id: Some(3),
            address_family: Some(AddressFamily::Ipv4.into()),
            sub_address_family: Some(SubAddressFamily::Unicast.into()),
            key: Some(proto::RouteKey {
                prefix: Some(proto::L3Prefix {
                    length: Some(12),
                    bytes: Some(vec![172, 16]),
                }),
            }),
            route_type: Some(RouteType::Normal.into()),
            protocol: Some(proto::Protocol::Bgp.into()),
            metric: Some(-1),
            nexthops: vec![hop([192, 0, 2, 1])],
            srv6_vpn_sid: None,
        }
    }

    fn hop(addr: [u8; 4]) -> proto::Nexthop {
        proto::Nexthop {
            if_id: Some(proto::IfIdentifier { index: Some(5) }),
            address: Some(proto::L3Address {
                v4: Some(proto::Ipv4Address {
                    value: Some(u32::from_be_bytes(addr)),
                }),
                v6: None,
            }),
        }
    }

    fn decoded(route: proto::AddRoute) -> PbRoute {
        let message = proto::Message {
            r#type: Some(Type::AddRoute.into()),
            add_route: Some(route),
            delete_route: None,
        };
        match decode_protobuf(&message.encode_to_vec()) {
            Ok(PbMessage::Route(route)) => route,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_route_reads_back() {
        let route = decoded(announcement());
        assert_eq!(route.prefix.unwrap().to_string(), "172.16.0.0/12");
        assert_eq!((route.vrf, route.metric), (VrfId(3), Some(u32::MAX)));
        assert_eq!((route.protocol, route.fault), (Some("bgp"), None));
        let via = "192.0.2.1".parse().ok();
        assert_eq!(
            (route.hops[0].via, route.hops[0].dev),
            (via, IfIndex::new(5))
        );
    }

    #[test]
    fn a_next_hop_that_was_cut_is_never_taken_for_a_gateway() {
        for cut in [[254, 128, 0, 0], [254, 191, 1, 2], [253, 0, 17, 0]] {
            let mut route = announcement();
            route.nexthops.push(hop(cut));
            let route = decoded(route);
            assert_eq!(route.fault, Some(Reason::NextHopCut), "{cut:?}");
            assert_eq!(route.hops[1].via, Some(cut.into()));
        }
        let mut route = announcement();
        route.nexthops.push(hop([254, 192, 0, 0]));
        assert_eq!(decoded(route).fault, None);
    }

    #[test]
    fn what_is_missing_or_impossible_is_named() {
        type Change = fn(&mut proto::AddRoute);
        let faults: [(Change, Reason); 10] = [
            (|r| r.key = None, Reason::BadDestination),
            (|r| r.address_family = None, Reason::BadFamily),
            (|r| r.sub_address_family = Some(2), Reason::BadFamily),
            (|r| r.address_family = Some(2), Reason::BadGateway),
            (|r| r.route_type = Some(77), Reason::BadRouteType),
            (|r| r.nexthops.clear(), Reason::NoNextHop),
            (|r| r.nexthops[0].address = None, Reason::NoNextHop),
            (
                |r| {
                    r.key = Some(proto::RouteKey {
                        prefix: Some(proto::L3Prefix {
                            length: Some(33),
                            bytes: Some(vec![0; 5]),
                        }),
                    });
                },
                Reason::BadPrefixLength,
            ),
            (
                |r| {
                    r.key = Some(proto::RouteKey {
                        prefix: Some(proto::L3Prefix {
                            length: Some(8),
                            bytes: Some(vec![10, 1]),
                        }),
                    });
                },
                Reason::BadDestination,
            ),
            (
                |r| r.srv6_vpn_sid = Some(proto::Ipv6Address { bytes: None }),
                Reason::Encapsulation,
            ),
        ];
        for (at, (change, reason)) in faults.into_iter().enumerate() {
            let mut route = announcement();
            change(&mut route);
            if at == 6 {
                route.nexthops[0].if_id = None;
            }
            assert_eq!(decoded(route).fault, Some(reason), "change {at}");
        }
    }

    #[test]
    fn a_message_without_content_is_of_no_type_or_broken() {
        assert_eq!(decode_protobuf(&[]), Ok(PbMessage::Unknown));
        assert_eq!(decode_protobuf(&[255]), Err(NotProtobuf));
        // Types that promise a route.
        for kind in [1, 2] {
            assert_eq!(decode_protobuf(&[8, kind]), Err(NotProtobuf));
        }
    }
}
