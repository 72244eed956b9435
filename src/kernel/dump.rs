//! Complete lists read back from the kernel: links, addresses, neighbours, next-hop objects, our routes, rules, qdiscs.
//!
//! Route dumps are filtered by protocol in the kernel (strict checking, since Linux 4.20: 0.15 us for each route of others)
//! and again here. A list that changed while it was read (`NLM_F_DUMP_INTR`) may lack what was there all the time and is
//! read again; routes and rules are handed out in chunks and not repeated, the caller is told.

use std::io;
use std::time::Duration;

use nix::errno::Errno as OsErrno;

use super::batch::refusal;
use super::socket::{RtnlSocket, Wait, errno};
use crate::model::{
    Block, Errno, Family, IngressQdisc, KernelEvent, Link, Neighbour, ObservedNextHop,
    ObservedRoute, ObservedRule, Protocol,
};
use crate::wire::flower::{ShownFilter, decode_filter, encode_rule_dump};
use crate::wire::kernel_nexthop::{decode_nexthop, encode_nexthop_dump};
use crate::wire::kernel_route::{decode_route, encode_route_dump};
use crate::wire::netlink::{Envelope, Message, Messages, u32_at};
use crate::wire::rtnl_link::{
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, decode_event, decode_link, decode_neighbour,
    encode_address_dump, encode_link_dump, encode_neighbour_dump,
};

use crate::wire::rtnl_nexthop::RTM_NEWNEXTHOP;
use crate::wire::rtnl_route::RTM_NEWROUTE;
use crate::wire::tc::{RTM_NEWQDISC, RTM_NEWTFILTER};
use crate::wire::tc_qdisc::{decode_qdisc, encode_qdisc_dump};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const RECEIVE_BUFFER: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: usize = 10;
const ROUTES_IN_CHUNK: usize = 4096;
const RULES_IN_CHUNK: usize = 1024;

/// A socket for reading lists.
#[derive(Debug)]
pub struct DumpSocket {
    socket: RtnlSocket,
    request: Vec<u8>,
    seq: u32,
}

impl DumpSocket {
    /// Opens a socket.
    pub fn open() -> io::Result<Self> {
        Self::over(RtnlSocket::open(RECEIVE_BUFFER)?)
    }

    /// Over a socket of its own.
    pub(super) fn over(socket: RtnlSocket) -> io::Result<Self> {
        socket.set_timeout(TIMEOUT)?;
        Ok(Self {
            socket,
            request: Vec::new(),
            seq: 0,
        })
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, Errno> {
        self.list(encode_link_dump, RTM_NEWLINK, decode_link)
    }

    /// All addresses, as events.
    pub fn addresses(&mut self) -> Result<Vec<KernelEvent>, Errno> {
        self.list(encode_address_dump, RTM_NEWADDR, |payload| {
            decode_event(RTM_NEWADDR, payload)
        })
    }

    /// All neighbours of IPv4 and IPv6, without multicast and proxy entries.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Errno> {
        self.list(encode_neighbour_dump, RTM_NEWNEIGH, |payload| {
            decode_neighbour(payload).map(|entry| entry.neighbour)
        })
    }

    /// All next-hop objects, anybody's. A kernel that has no objects (before 5.3) has none.
    pub fn nexthops(&mut self) -> Result<Vec<ObservedNextHop>, Errno> {
        match self.list(encode_nexthop_dump, RTM_NEWNEXTHOP, decode_nexthop) {
            Err(Errno(code)) if code == OsErrno::EOPNOTSUPP as i32 => Ok(Vec::new()),
            result => result,
        }
    }

    /// The routes with this protocol number, both families, all tables, in chunks; `each` says whether to go on.
    pub fn routes(
        &mut self,
        protocol: Protocol,
        mut each: impl FnMut(Vec<ObservedRoute>) -> bool,
    ) -> Result<(), Errno> {
        for family in [Family::V4, Family::V6] {
            let mut chunk = Vec::new();
            let mut wanted = true;
            self.dump(
                |envelope| encode_route_dump(envelope, family, protocol),
                |message| {
                    if message.kind != RTM_NEWROUTE || !wanted {
                        return;
                    }
                    let route = decode_route(message.payload).filter(|route| {
                        // A kernel without the family answers with all the others.
                        route.protocol == protocol.0 && route.key.prefix.family() == family
                    });
                    chunk.extend(route);
                    if chunk.len() == ROUTES_IN_CHUNK {
                        wanted = each(std::mem::take(&mut chunk));
                    }
                },
            )?;
            if wanted && !chunk.is_empty() {
                wanted = each(chunk);
            }
            if !wanted {
                break;
            }
        }
        Ok(())
    }

    /// All ingress qdiscs, anybody's.
    pub fn qdiscs(&mut self) -> Result<Vec<IngressQdisc>, Errno> {
        self.list(encode_qdisc_dump, RTM_NEWQDISC, decode_qdisc)
    }

    /// The rules of a block, anybody's, all chains, in chunks; `each` says whether to go on. A block that is not there has
    /// none; nor has a port whose ingress is bound to a shared block.
    pub fn rules(
        &mut self,
        block: Block,
        mut each: impl FnMut(Vec<ObservedRule>) -> bool,
    ) -> Result<(), Errno> {
        let mut chunk = Vec::new();
        let mut wanted = true;
        self.dump(
            |envelope| encode_rule_dump(envelope, block),
            |message| {
                if message.kind != RTM_NEWTFILTER || !wanted {
                    return;
                }
                match decode_filter(message.payload) {
                    Some(ShownFilter::Rule(rule)) if rule.place.block == block => chunk.push(*rule),
                    _ => return,
                }
                if chunk.len() == RULES_IN_CHUNK {
                    wanted = each(std::mem::take(&mut chunk));
                }
            },
        )?;
        if wanted && !chunk.is_empty() {
            each(chunk);
        }
        Ok(())
    }

    /// All that `decode` makes of a dump's messages of one type; read again while it changes.
    pub(super) fn list<T, I: IntoIterator<Item = T>>(
        &mut self,
        encode: impl Fn(Envelope<'_>),
        kind: u16,
        decode: impl Fn(&[u8]) -> I,
    ) -> Result<Vec<T>, Errno> {
        let interrupted = Errno(OsErrno::EINTR as i32);
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            let result = self.dump(&encode, |message| {
                if message.kind == kind {
                    found.extend(decode(message.payload));
                }
            });
            match result {
                Ok(()) => return Ok(found),
                Err(errno) if errno == interrupted => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(interrupted)
    }

    /// One dump, or one question with `NLM_F_ACK`: asks, hands out the messages, and ends at `NLMSG_DONE` or the
    /// acknowledgement. `EINTR` says that it was not consistent.
    pub(super) fn dump(
        &mut self,
        encode: impl FnOnce(Envelope<'_>),
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), Errno> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.request.clear();
        encode(Envelope {
            buffer: &mut self.request,
            seq,
        });
        self.socket
            .send(&self.request)
            .map_err(|error| errno(&error))?;
        let mut interrupted = false;
        loop {
            let datagram = self
                .socket
                .receive(Wait::Block)
                .map_err(|error| errno(&error))?;
            for message in Messages::new(datagram).map_while(Result::ok) {
                if message.seq != seq {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => {
                        let code = u32_at(message.payload, 0).unwrap_or(0).cast_signed();
                        return match (code, interrupted) {
                            (0.., false) => Ok(()),
                            (0.., true) => Err(Errno(OsErrno::EINTR as i32)),
                            (code, _) => Err(Errno(code.saturating_neg())),
                        };
                    }
                    NLMSG_ERROR => {
                        return match refusal(&message) {
                            Some(refusal) => Err(refusal.errno),
                            None => Ok(()),
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }
}
