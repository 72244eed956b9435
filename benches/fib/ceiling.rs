//! The physical limit: how fast does this kernel take, replace and drop these routes over one raw netlink socket, with
//! nothing to decide? The same messages in the same form as the daemon writes, in the order given, one thread, many
//! messages a send, an acknowledgement of the last one.

use std::time::{Duration, Instant};

use frr_offload::wire::netlink::{
    Envelope, Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, u32_at,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::load::{Load, Route};
use crate::measure::{Cost, here};

/// Messages a send, as the daemon's writer.
const BATCH: usize = 128;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEXTHOP: u16 = 104;
const RTA_DST: u16 = 1;
const RTA_PRIORITY: u16 = 6;
const RTA_NH_ID: u16 = 30;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_REDIRECT: u8 = 1;
const METRIC: u32 = 10;
const NLMSG_ERROR: u16 = 2;

/// What to do with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Add,
    Replace,
    Delete,
}

/// A raw socket.
#[derive(Debug)]
pub struct Raw {
    socket: Socket,
    answer: Vec<u8>,
    send: Vec<u8>,
}

impl Raw {
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
        socket.bind_auto().unwrap();
        Self {
            socket,
            answer: Vec::with_capacity(32 << 10),
            send: Vec::with_capacity(64 << 10),
        }
    }

    /// Writes routes as fast as it goes.
    pub fn write<'a>(&mut self, routes: impl Iterator<Item = &'a Route>, step: Step) -> Cost {
        here("kernel writer", || {
            let mut routes = routes.peekable();
            while routes.peek().is_some() {
                self.send.clear();
                let mut left = BATCH;
                while let Some(route) = routes.next() {
                    left -= 1;
                    let last = left == 0 || routes.peek().is_none();
                    encode(&mut self.send, route, step, last);
                    if last {
                        break;
                    }
                }
                self.exchange();
            }
        })
    }

    /// One route, alone: send to acknowledgement.
    pub fn write_one(&mut self, route: &Route, step: Step) -> Duration {
        let started = Instant::now();
        self.send.clear();
        encode(&mut self.send, route, step, true);
        self.exchange();
        started.elapsed()
    }

    /// Makes groups what they are here, in one send.
    pub fn regroup(&mut self, groups: &[(u32, Vec<u32>)]) -> Cost {
        self.send.clear();
        for (n, (id, members)) in groups.iter().enumerate() {
            let ack = if n + 1 == groups.len() { NLM_F_ACK } else { 0 };
            let envelope = Envelope {
                buffer: &mut self.send,
                seq: 1,
            };
            let mut message = envelope.request(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE | ack);
            let mut list = Vec::new();
            for member in members {
                list.extend_from_slice(&member.to_ne_bytes());
                list.extend_from_slice(&[0; 4]);
            }
            message
                .fixed(&[0, 0, RTPROT_REDIRECT, 0, 0, 0, 0, 0])
                .attr_u32(NHA_ID, *id)
                .attr(NHA_GROUP, &list);
            message.finish();
        }
        here("kernel writer", || self.exchange())
    }

    fn exchange(&mut self) {
        self.socket
            .send_to(&self.send, &SocketAddr::new(0, 0), 0)
            .unwrap();
        self.answer.clear();
        self.socket.recv_from(&mut self.answer, 0).unwrap();
        for message in Messages::new(&self.answer).flatten() {
            assert_eq!(message.kind, NLMSG_ERROR);
            let code = u32_at(message.payload, 0).unwrap_or(0).cast_signed();
            assert_eq!(code, 0, "the kernel refuses a message");
        }
    }
}

fn encode(buffer: &mut Vec<u8>, route: &Route, step: Step, ack: bool) {
    let (kind, flags) = match step {
        Step::Add => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
        Step::Replace => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE),
        Step::Delete => (RTM_DELROUTE, 0),
    };
    let ack = if ack { NLM_F_ACK } else { 0 };
    let mut message = Envelope { buffer, seq: 1 }.request(kind, flags | ack);
    let (scope, kind) = match step {
        Step::Add | Step::Replace => (0, 1),
        Step::Delete => (255, 0),
    };
    message
        .fixed(&[
            2,
            route.len,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_REDIRECT,
            scope,
            kind,
        ])
        .fixed(&[0; 4])
        .attr(RTA_DST, &route.addr.octets())
        .attr_u32(RTA_PRIORITY, METRIC);
    match step {
        Step::Add => message.attr_u32(RTA_NH_ID, route.groups[0]),
        Step::Replace => message.attr_u32(RTA_NH_ID, route.groups[1]),
        Step::Delete => &mut message,
    };
    message.finish();
}

/// `ip` commands that make the hops and groups, in the form of the daemon: an address of 169.254/16 and a neighbour.
pub fn objects(load: &Load) -> String {
    let mut commands = String::new();
    for (id, link) in &load.hops {
        commands += &format!(
            "neighbour replace 169.254.0.1 lladdr 02:00:00:10:00:{:02x} nud permanent dev p{link}\n\
             nexthop add id {id} via 169.254.0.1 dev p{link} onlink\n",
            link + 1,
        );
    }
    for (id, members) in &load.groups {
        let members: Vec<_> = members.iter().map(u32::to_string).collect();
        commands += &format!("nexthop add id {id} group {}\n", members.join("/"));
    }
    commands
}
