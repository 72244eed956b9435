//! What the kernel's tables say of a packet: one socket, `RTM_GETROUTE` with ingress port and source, all members of the
//! route's group, each as the frame's MACs and port.
//!
//! Of IPv6 that answer can be another route's, or `ENETUNREACH` once that other one is deleted: the kernel keeps it with the
//! next-hop object, which routes share (Linux 6.12 and 6.18). So there it only says whether a route takes the packet, in which
//! both of these are taken for a yes, and the members are those of the longest match in the table that the kernel lists.

use std::net::IpAddr;

use frr_offload::kernel::batch::{Batch, BatchSocket};
use frr_offload::model::{Errno, MacAddr, PathHops, Prefix, TableId};
use frr_offload::wire::netlink::{MessageBuilder, NLM_F_REQUEST};
use frr_offload::wire::rtnl_route::{
    AF_INET, AF_INET6, Dialect, RTA_DST, RTA_SRC, RTM_NEWROUTE, RouteView,
};
use serde_json::Value;

use super::netns::ip_json;
use super::packets::Packet;
use super::switch::{PORTS, TestSwitch, VRFS};

const RTM_GETROUTE: u16 = 26;
const RTA_IIF: u16 = 3;
const ENETUNREACH: Errno = Errno(101);
/// Answer with the whole route, not with the member that this packet would take.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RECEIVE_BUFFER: usize = 4 << 20;

/// A way out: the port, and source and destination MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub port: usize,
    pub src: MacAddr,
    pub dst: MacAddr,
}

impl Way {
    pub fn of(port: usize, frame: &[u8]) -> Self {
        let mac = |at: usize| MacAddr(frame[at..at + 6].try_into().unwrap());
        let (src, dst) = (mac(6), mac(0));
        Self { port, src, dst }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A route; those members of it that a port and a neighbour are known for.
    Ways(Vec<Way>),
    /// Local, broadcast, multicast.
    NotForwarded,
    Refused(Errno),
}

/// A neighbour of a port; none is the destination itself.
type Hop = (usize, Option<IpAddr>);
/// Table, prefix and metric, the most specific first.
type Routes = Vec<(TableId, Prefix, u64, Vec<Hop>)>;

pub struct Kernel(BatchSocket);

impl Kernel {
    pub fn new() -> Self {
        Self(BatchSocket::open(RECEIVE_BUFFER).unwrap())
    }

    pub fn routes(&mut self, packets: &[Packet], switch: &TestSwitch) -> Vec<Answer> {
        let neighbours = TestSwitch::known_neighbours();
        let routes = listed();
        let ways = |hops: &[Hop], packet: &Packet| {
            let ways = hops.iter().filter_map(|&(port, via)| {
                let dst = *neighbours.get(&(port, via.unwrap_or(packet.dst)))?;
                let src = switch.macs[port];
                Some(Way { port, src, dst })
            });
            Answer::Ways(ways.collect())
        };
        let longest = |packet: &Packet| {
            let of = |table| {
                let mut here = routes.iter().filter(move |route| route.0 == table);
                here.find(|route| route.1.contains(packet.dst))
            };
            // What is not in a VRF's table is looked up in the main one.
            let found = of(switch.table_of(packet.ingress)).or_else(|| of(TableId::MAIN))?;
            Some(ways(&found.3, packet))
        };
        let answer = |view: &RouteView<'_>, packet: &Packet| {
            let hops = members(*view, switch)?;
            if packet.dst.is_ipv4() {
                Some(ways(&hops, packet))
            } else {
                longest(packet)
            }
        };
        let mut answers = Vec::with_capacity(packets.len());
        for part in packets.chunks(64) {
            let mut batch = Batch::default();
            for packet in part {
                batch.push(|envelope| {
                    ask(
                        envelope.request(RTM_GETROUTE, NLM_F_REQUEST),
                        packet,
                        switch,
                    );
                });
            }
            let mut found = vec![Answer::NotForwarded; part.len()];
            let refused = self.0.exchange(&mut batch, |message| {
                let at = message.seq as usize;
                if message.kind == RTM_NEWROUTE && at < found.len() {
                    let view = RouteView::parse(message.payload).unwrap();
                    found[at] = answer(&view, &part[at]).unwrap_or(Answer::NotForwarded);
                }
            });
            for (at, refusal) in refused.unwrap() {
                let refused = Answer::Refused(refusal.errno);
                let unsure = part[at].dst.is_ipv6() && refusal.errno == ENETUNREACH;
                let found_by_us = unsure.then(|| longest(&part[at])).flatten();
                found[at] = found_by_us.unwrap_or(refused);
            }
            answers.extend(found);
        }
        answers
    }
}

fn ask(mut message: MessageBuilder<'_>, packet: &Packet, switch: &TestSwitch) {
    let (family, len) = if packet.dst.is_ipv4() {
        (AF_INET, 32)
    } else {
        (AF_INET6, 128)
    };
    let mut rtmsg = [0; 12];
    rtmsg[..3].copy_from_slice(&[family, len, len]);
    rtmsg[8..].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
    message.fixed(&rtmsg);
    for (kind, addr) in [(RTA_DST, packet.dst), (RTA_SRC, packet.src)] {
        match addr {
            IpAddr::V4(addr) => message.attr(kind, &addr.octets()),
            IpAddr::V6(addr) => message.attr(kind, &addr.octets()),
        };
    }
    message.attr_u32(RTA_IIF, switch.ifindex(packet.ingress).get());
    message.finish();
}

/// The members of the answer; `None` if it is no unicast route.
fn members(mut view: RouteView<'_>, switch: &TestSwitch) -> Option<Vec<Hop>> {
    // They stand beside the object's number.
    view.nh_id = None;
    let PathHops::Inline(hops) = view.path(Dialect::DplaneFpmNl).ok()?.hops else {
        return None;
    };
    let hops = hops.iter();
    Some(
        hops.filter_map(|hop| Some((switch.port_of(hop.dev?.get())?, hop.via)))
            .collect(),
    )
}

/// The kernel's IPv6 routes, but those of the table `local`.
fn listed() -> Routes {
    let list = ip_json("-6 route show table all");
    let hop = |hop: &Value| {
        let port = PORTS.iter().position(|(name, _)| hop["dev"] == *name)?;
        Some((
            port,
            hop["gateway"].as_str().and_then(|via| via.parse().ok()),
        ))
    };
    let mut routes: Routes = Vec::new();
    for route in list.as_array().unwrap() {
        let table = match route["table"].as_str() {
            None => TableId::MAIN,
            Some("local") => continue,
            // By number, or by the name that iproute2 finds for it.
            Some(named) => {
                let is =
                    |vrf: &&(&str, TableId, &str)| vrf.0 == named || vrf.1.to_string() == named;
                let vrf = VRFS.iter().find(is);
                vrf.unwrap_or_else(|| panic!("table {named:?}: {route}")).1
            }
        };
        let dst = match route["dst"].as_str().unwrap() {
            "default" => "::/0",
            dst => dst,
        };
        let host = || dst.parse().map(Prefix::host).unwrap();
        let hops = match (route["type"].as_str(), route["nexthops"].as_array()) {
            (None | Some("unicast"), Some(hops)) => hops.iter().filter_map(hop).collect(),
            (None | Some("unicast"), None) => hop(route).into_iter().collect(),
            (Some(_), _) => Vec::new(),
        };
        routes.push((
            table,
            dst.parse().unwrap_or_else(|_| host()),
            route["metric"].as_u64().unwrap(),
            hops,
        ));
    }
    routes.sort_by_key(|(_, prefix, metric, _)| (u8::MAX - prefix.len(), *metric));
    routes
}
