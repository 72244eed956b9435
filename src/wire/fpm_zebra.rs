//! zebra's side of FPM: next hops and routes as frames, for `replay --generate` and benches.
//!
//! The form is that of `dplane_fpm_nl` of FRR 10.3 with next-hop groups (`fpm-captures`: 56 bytes an IPv4 route). Encodes
//! only; the decoder is the test that it is right.

use std::net::IpAddr;

use crate::model::{Family, IfIndex, Protocol, RouteKey, RouteKind, SourceNhId};

use super::fpm::{HEADER_LEN, TYPE_NETLINK, VERSION};
use super::kernel_route::rtn;
use super::netlink::{MessageBuilder, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use super::rtnl_nexthop::{NHA_GATEWAY, NHA_GROUP, NHA_ID, NHA_OIF, RTM_NEWNEXTHOP};
use super::rtnl_route::{
    AF_INET, AF_INET6, RTA_DST, RTA_NH_ID, RTA_PRIORITY, RTA_TABLE, RTM_DELROUTE, RTM_NEWROUTE,
};

/// `nh_protocol` of zebra's own objects.
const RTPROT_ZEBRA: u8 = 11;
/// zebra's metric for everything (`NL_DEFAULT_ROUTE_METRIC`).
const METRIC: u32 = 20;
/// Where `nlmsg_pid` is in a netlink header.
const PID_OFFSET: usize = 12;

/// Appends frames to a buffer, all with the same `nlmsg_pid`.
#[derive(Debug)]
pub struct ZebraEncoder<'a> {
    /// Where to.
    pub buffer: &'a mut Vec<u8>,
    /// Which zebra process.
    pub pid: u32,
}

impl ZebraEncoder<'_> {
    /// A single next hop.
    pub fn hop(&mut self, id: SourceNhId, via: IpAddr, dev: IfIndex) {
        let family = family_number(Family::of(via));
        self.frame(RTM_NEWNEXTHOP, NLM_F_REPLACE, |m| {
            m.fixed(&[family, 0, RTPROT_ZEBRA, 0, 0, 0, 0, 0])
                .attr_u32(NHA_ID, id.0);
            match via {
                IpAddr::V4(addr) => m.attr(NHA_GATEWAY, &addr.octets()),
                IpAddr::V6(addr) => m.attr(NHA_GATEWAY, &addr.octets()),
            };
            m.attr_u32(NHA_OIF, dev.get());
        });
    }

    /// A group of equal weights.
    pub fn group(&mut self, id: SourceNhId, members: &[SourceNhId]) {
        let mut entries = Vec::with_capacity(members.len() * 8);
        for member in members {
            entries.extend_from_slice(&member.0.to_ne_bytes());
            entries.extend_from_slice(&[0; 4]);
        }
        self.frame(RTM_NEWNEXTHOP, NLM_F_REPLACE, |m| {
            m.fixed(&[0, 0, RTPROT_ZEBRA, 0, 0, 0, 0, 0])
                .attr_u32(NHA_ID, id.0)
                .attr(NHA_GROUP, &entries);
        });
    }

    /// A unicast route by next-hop id.
    pub fn announce(&mut self, key: RouteKey, protocol: Protocol, id: SourceNhId) {
        self.frame(RTM_NEWROUTE, NLM_F_REPLACE, |m| {
            route(m, key, protocol, rtn(RouteKind::Unicast));
            m.attr_u32(RTA_NH_ID, id.0);
        });
    }

    /// A route without next hops: a blackhole, unreachable or prohibit.
    pub fn refuse(&mut self, key: RouteKey, protocol: Protocol, kind: RouteKind) {
        self.frame(RTM_NEWROUTE, NLM_F_REPLACE, |m| {
            route(m, key, protocol, rtn(kind));
        });
    }

    /// Its withdrawal.
    pub fn withdraw(&mut self, key: RouteKey, protocol: Protocol) {
        self.frame(RTM_DELROUTE, 0, |m| route(m, key, protocol, 0));
    }

    fn frame(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut MessageBuilder<'_>)) {
        let start = self.buffer.len();
        self.buffer
            .extend_from_slice(&[VERSION, TYPE_NETLINK, 0, 0]);
        let mut message =
            MessageBuilder::new(self.buffer, kind, NLM_F_REQUEST | NLM_F_CREATE | flags, 0);
        fill(&mut message);
        message.finish();
        let pid = start + HEADER_LEN + PID_OFFSET;
        self.buffer[pid..pid + 4].copy_from_slice(&self.pid.to_ne_bytes());
        let len = (self.buffer.len() - start) as u16;
        self.buffer[start + 2..start + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    }
}

fn route(m: &mut MessageBuilder<'_>, key: RouteKey, protocol: Protocol, kind: u8) {
    let prefix = key.prefix;
    // A table that a byte can't hold is 0 here and an attribute.
    let table = u8::try_from(key.table.0).ok();
    let family = family_number(prefix.family());
    m.fixed(&[
        family,
        prefix.len(),
        0,
        0,
        table.unwrap_or(0),
        protocol.0,
        0,
        kind,
        0,
        0,
        0,
        0,
    ]);
    match prefix.addr() {
        IpAddr::V4(addr) => m.attr(RTA_DST, &addr.octets()),
        IpAddr::V6(addr) => m.attr(RTA_DST, &addr.octets()),
    };
    m.attr_u32(RTA_PRIORITY, METRIC);
    if table.is_none() {
        m.attr_u32(RTA_TABLE, key.table.0);
    }
}

const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}
