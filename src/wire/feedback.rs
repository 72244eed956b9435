//! Replies to zebra over its FPM connection: how a route fares, as flags on a minimal `RTM_NEWROUTE`.
//!
//! Encodes only; when what is owed to whom is the engine's business. FRR 10.7 and later read it (with
//! `zebra --asic-offload=notify_on_offload`), 8.4 reads and ignores it, 10.3 is broken. What 10.7.1 insists on: the
//! table as it sent it, its own protocol number, and `NLM_F_REQUEST` ("not a request, skipping"). Next hops and metric
//! are not needed. Evidence: the pair `tests/golden/frr-10.7.1-return-path-*.fpm`.

use std::net::IpAddr;

use crate::model::{Family, Reply, RouteKey, Told};

use super::fpm::{HEADER_LEN, TYPE_NETLINK, VERSION};
use super::kernel_route::rtn;
use super::netlink::{MessageBuilder, NLM_F_REQUEST};
use super::rtnl_route::{AF_INET, AF_INET6, RTA_DST, RTA_TABLE, RTM_NEWROUTE};

/// `RTM_F_OFFLOAD`.
pub const RTM_F_OFFLOAD: u32 = 0x4000;
/// `RTM_F_OFFLOAD_FAILED`.
pub const RTM_F_OFFLOAD_FAILED: u32 = 0x2000_0000;

/// Where `nlmsg_pid` is in a netlink header.
const PID_OFFSET: usize = 12;

const fn flag(told: Told) -> u32 {
    match told {
        Told::Offloaded => RTM_F_OFFLOAD,
        Told::Failed => RTM_F_OFFLOAD_FAILED,
    }
}

/// Appends a reply as an FPM frame; `pid` is the `nlmsg_pid` that zebra uses itself.
pub fn encode_reply(reply: &Reply, pid: u32, buffer: &mut Vec<u8>) {
    let Reply {
        key: RouteKey { table, prefix },
        protocol,
        kind,
        state,
    } = *reply;
    let frame = buffer.len();
    buffer.extend_from_slice(&[VERSION, TYPE_NETLINK, 0, 0]);
    let family = match prefix.family() {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    let kind = rtn(kind);
    // As zebra does it: a table that a byte can't hold is 0 here and an attribute.
    let short_table = u8::try_from(table.0).ok();
    let mut rtmsg = [0; 12];
    rtmsg[..8].copy_from_slice(&[
        family,
        prefix.len(),
        0,
        0,
        short_table.unwrap_or(0),
        protocol.0,
        0,
        kind,
    ]);
    rtmsg[8..].copy_from_slice(&flag(state).to_ne_bytes());
    let mut message = MessageBuilder::new(buffer, RTM_NEWROUTE, NLM_F_REQUEST, 0);
    message.fixed(&rtmsg);
    match prefix.addr() {
        IpAddr::V4(addr) => message.attr(RTA_DST, &addr.octets()),
        IpAddr::V6(addr) => message.attr(RTA_DST, &addr.octets()),
    };
    if short_table.is_none() {
        message.attr_u32(RTA_TABLE, table.0);
    }
    message.finish();
    let pid_at = frame + HEADER_LEN + PID_OFFSET;
    buffer[pid_at..pid_at + 4].copy_from_slice(&pid.to_ne_bytes());
    let len = (buffer.len() - frame) as u16;
    buffer[frame + 2..frame + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
}
