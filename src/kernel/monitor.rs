//! The thread that listens: links, addresses, neighbours, next-hop objects. Subscribes first and reads the lists second, so
//! that nothing falls between; a list may be newer than a notification behind it, but the notification of what made it newer
//! follows. Of routes it hears only what others do to ours (`RouteWatch`); what vanishes without a word is read back by audit.
//!
//! Seen on Linux 6.18, all three of carrier loss, link down and link deletion: next-hop objects of the link, and groups that
//! lose their last member, vanish **without any `RTM_DELNEXTHOP`**; so do the IPv4 routes that used them. What is said is one
//! `RTM_NEWLINK` (or `RTM_DELLINK`). Only an explicit `RTM_DELNEXTHOP` request is announced. Permanent neighbours go with link
//! down and deletion, announced one by one, and stay when only the carrier is lost. Nothing comes back by itself. The last
//! IPv4 address of a link takes its IPv4 neighbours along (announced), and inline routes (not announced), but no objects and
//! no routes by id.
//! The kernel's own notification of a deleted bridge port is no deletion of the link; `wire::rtnl_link` knows.
//!
//! When notifications were dropped (`ENOBUFS`) it says [`KernelEvent::Overrun`], empties the queue and reads the lists again.

use std::io;

use crossbeam_channel::Sender;

use super::listener::{Hear, Listener, Why};
use super::socket::RtnlSocket;
use super::{DumpSocket, RouteWatch};
use crate::model::{DumpKind, Errno, Event, KernelEvent};
use crate::wire::kernel_route::decode_route;
use crate::wire::netlink::Message;
use crate::wire::rtnl_link::decode_event;
use crate::wire::rtnl_route::{RTM_DELROUTE, RTM_NEWROUTE};

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_NEXTHOP: u32 = 32;

/// Holds some 10,000 notifications while the engine is busy.
pub const RECEIVE_BUFFER: usize = 8 << 20;

/// What listens.
#[derive(Debug)]
pub struct Monitor {
    dumps: DumpSocket,
}

impl Monitor {
    /// Subscribes here, so that errors surface, and starts the thread, which reads the lists first.
    pub fn start(
        receive_buffer: usize,
        watch: Option<RouteWatch>,
        tx: Sender<Event>,
    ) -> io::Result<Listener> {
        let socket = RtnlSocket::open(receive_buffer)?;
        if let Some(watch) = watch {
            // Before the groups are joined, so that nothing else gets in.
            socket.filter(&watch.program())?;
            socket.join(RTNLGRP_IPV4_ROUTE)?;
            socket.join(RTNLGRP_IPV6_ROUTE)?;
        }
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_NEIGH,
        ] {
            socket.join(group)?;
        }
        if let Err(error) = socket.join(RTNLGRP_NEXTHOP) {
            tracing::info!(%error, "this kernel has no next-hop objects");
        }
        let dumps = DumpSocket::open()?;
        Listener::start(vec![socket], Self { dumps }, tx)
    }
}

impl Hear for Monitor {
    type Heard = KernelEvent;
    const NAME: &'static str = "kernel-monitor";

    fn lists(&mut self, _: Why, heard: &mut Vec<KernelEvent>) {
        let failed = |kind| move |errno: Errno| KernelEvent::DumpFailed(kind, errno);
        let links = self.dumps.links().map(KernelEvent::Links);
        heard.push(links.unwrap_or_else(failed(DumpKind::Links)));
        match self.dumps.addresses() {
            Ok(addresses) => heard.extend(addresses),
            Err(errno) => heard.push(KernelEvent::DumpFailed(DumpKind::Links, errno)),
        }
        let neighbours = self.dumps.neighbours().map(KernelEvent::Neighbours);
        heard.push(neighbours.unwrap_or_else(failed(DumpKind::Neighbours)));
        let nexthops = self.dumps.nexthops().map(KernelEvent::NextHops);
        heard.push(nexthops.unwrap_or_else(failed(DumpKind::NextHops)));
    }

    fn hear(&mut self, _: usize, message: &Message<'_>, heard: &mut Vec<KernelEvent>) {
        heard.extend(match message.kind {
            RTM_NEWROUTE => decode_route(message.payload).map(KernelEvent::Route),
            RTM_DELROUTE => decode_route(message.payload).map(KernelEvent::RouteGone),
            kind => decode_event(kind, message.payload),
        });
    }
}
