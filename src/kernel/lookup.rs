//! Asks the kernel which of its routes takes an address, for `explain`: what the rules and tables come to, whoever wrote the
//! route, in the default VRF or in another. Rare, so a socket is opened for each question.
//!
//! IPv6 matches of routes that share a next-hop object can name the prefix of another of them (seen on Linux 6.18, `ip -6
//! route get ... fibmatch`), so the caller trusts a match only when it is not one of ours.

use std::net::IpAddr;

use super::batch::{Batch, BatchSocket};
use crate::model::{IfIndex, KernelMatch, MatchKind, Prefix};
use crate::wire::netlink::NLM_F_REQUEST;
use crate::wire::rtnl_route::{
    AF_INET, AF_INET6, RTA_DST, RTA_OIF, RTM_NEWROUTE, RouteView, gateway,
};

const RTM_GETROUTE: u16 = 26;
/// `RTM_F_FIB_MATCH`: answer with the route itself, not with what was made of it for this address.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RECEIVE_BUFFER: usize = 64 << 10;

/// The kernel's match, in the VRF of that device if there is one; `None` if it has none, or can't be asked.
pub fn lookup(addr: IpAddr, vrf: Option<IfIndex>) -> Option<KernelMatch> {
    let mut socket = BatchSocket::open(RECEIVE_BUFFER).ok()?;
    let mut batch = Batch::default();
    batch.push(|envelope| {
        let (family, len) = match addr {
            IpAddr::V4(_) => (AF_INET, 32),
            IpAddr::V6(_) => (AF_INET6, 128),
        };
        let mut message = envelope.request(RTM_GETROUTE, NLM_F_REQUEST);
        let mut rtmsg = [0; 12];
        rtmsg[0] = family;
        rtmsg[1] = len;
        rtmsg[8..].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
        message.fixed(&rtmsg);
        match addr {
            IpAddr::V4(addr) => message.attr(RTA_DST, &addr.octets()),
            IpAddr::V6(addr) => message.attr(RTA_DST, &addr.octets()),
        };
        // As `ip route get ADDRESS vrf NAME` does.
        if let Some(vrf) = vrf {
            message.attr_u32(RTA_OIF, vrf.get());
        }
        message.finish();
    });
    let mut found = None;
    socket
        .exchange(&mut batch, |message| {
            if message.kind == RTM_NEWROUTE {
                found = RouteView::parse(message.payload).and_then(|view| matched(&view, addr));
            }
        })
        .ok()?;
    found.filter(|found| found.prefix.contains(addr))
}

fn matched(view: &RouteView<'_>, addr: IpAddr) -> Option<KernelMatch> {
    Some(KernelMatch {
        table: view.table(),
        prefix: Prefix::masked(addr, view.dst_len).ok()?,
        kind: match view.kind {
            1 => MatchKind::Forward,
            2..=4 => MatchKind::Local,
            5 => MatchKind::Multicast,
            6..=8 => MatchKind::Discard,
            _ => return None,
        },
        protocol: view.protocol,
        metric: view.metric(),
        dev: view.oif.and_then(IfIndex::new),
        via: gateway(view.family, view.gateway, view.via).ok().flatten(),
    })
}
