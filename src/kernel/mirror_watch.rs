//! The thread that listens for the kernel's routes that neither we nor FRR wrote: connected, DHCP, router advertisements,
//! static by hand. Subscribes first, reads the list second, then follows.
//!
//! A filter in the socket drops what bears our protocol number or one of FRR's, so that a full table being written wakes
//! nobody (`rtm_protocol` stands at a fixed place; what such a listener costs the writer: `RouteWatch`).
//!
//! IPv4 routes vanish without a word when a link goes down, so the engine asks for the list again by
//! [`Listener::refresh`]: *after* the link's own message, which comes before the kernel has removed them. Measured on
//! Linux 6.18 with 500,000 IPv4 and 200,000 IPv6 routes of ours: reading all of a family takes 250 ms and 130 ms in the
//! kernel and 38 MB and 29 MB of messages; a list filtered by protocol 58 ms and 27 ms, and no bytes. So the first list, and
//! that after an overrun, is the unfiltered one, the only that shows numbers not heard of (one list a number would be 240 of
//! them); every other list is one a protocol that was heard of. Lists read while the tables change lacked nothing that was
//! there all the time; IPv6 told some routes twice, which a set overlooks.

use std::collections::BTreeSet;
use std::io;

use crossbeam_channel::Sender;
use nix::errno::Errno as OsErrno;
use socket2::SockFilter;

use super::DumpSocket;
use super::listener::{Hear, Listener, Why};
use super::route_watch::{JEQ, LD_H_ABS, RET, TYPE_OFFSET, short};
use super::socket::RtnlSocket;
use crate::model::{Errno, Event, Family, ForeignRoute, OffloadEvent, Protocol};
use crate::wire::foreign_route::{
    RTM_PROTOCOL_OFFSET, decode_foreign, encode_foreign_dump, is_foreign,
};
use crate::wire::netlink::{HEADER_LEN, Message, NLM_F_REPLACE};
use crate::wire::rtnl_route::{RTM_DELROUTE, RTM_NEWROUTE};

const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const ROUTES_IN_CHUNK: usize = 4096;

/// Always asked for: `kernel`, `boot`, `static`, `ra`, `dhcp`. Others once they were heard of.
const USUAL: [u8; 5] = [2, 3, 4, 9, 16];

const LD_B_ABS: u16 = 0x30;

/// What listens.
#[derive(Debug)]
pub struct MirrorWatch {
    dumps: DumpSocket,
    heard_of: BTreeSet<u8>,
}

impl MirrorWatch {
    /// Subscribes here, so that errors surface, and starts the thread, which reads the list first. A list that is asked for
    /// comes as [`OffloadEvent::Foreigns`].
    pub fn start(receive_buffer: usize, tx: Sender<Event>) -> io::Result<Listener> {
        let socket = RtnlSocket::open(receive_buffer)?;
        // Before the groups are joined, so that nothing else gets in.
        socket.filter(&program())?;
        socket.join(RTNLGRP_IPV4_ROUTE)?;
        socket.join(RTNLGRP_IPV6_ROUTE)?;
        let mirror = Self {
            dumps: DumpSocket::open()?,
            heard_of: USUAL.into(),
        };
        Listener::start(vec![socket], mirror, tx)
    }

    /// Reads a list as a whole, so that its parts come one after the other.
    fn list(&mut self, everything: bool) -> Result<Vec<ForeignRoute>, Errno> {
        // Number 0 can't be filtered for.
        let filters: Vec<Option<Protocol>> = if everything || self.heard_of.contains(&0) {
            vec![None]
        } else {
            let numbers = self.heard_of.iter();
            numbers.map(|number| Some(Protocol(*number))).collect()
        };
        let mut routes = Vec::new();
        for family in [Family::V4, Family::V6] {
            for filter in &filters {
                let found = self.dumps.list(
                    |envelope| encode_foreign_dump(envelope, family, *filter),
                    RTM_NEWROUTE,
                    decode_foreign,
                );
                match found {
                    // A kernel without this family answers with the others.
                    Ok(found) => routes.extend(
                        found
                            .into_iter()
                            .filter(|route| route.key.prefix.family() == family),
                    ),
                    Err(Errno(code)) if code == OsErrno::EOPNOTSUPP as i32 => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        self.heard_of
            .extend(routes.iter().map(|route| route.protocol));
        Ok(routes)
    }
}

impl Hear for MirrorWatch {
    type Heard = OffloadEvent;
    const NAME: &'static str = "mirror-watch";

    fn lists(&mut self, why: Why, heard: &mut Vec<OffloadEvent>) {
        match self.list(why != Why::Asked) {
            Ok(routes) => push_chunks(&routes, heard),
            Err(errno) => heard.push(OffloadEvent::DumpFailed(errno)),
        }
    }

    fn hear(&mut self, _: usize, message: &Message<'_>, heard: &mut Vec<OffloadEvent>) {
        let before = heard.len();
        decode(message, heard);
        self.heard_of
            .extend(heard[before..].iter().filter_map(told_of));
    }
}

fn push_chunks(routes: &[ForeignRoute], events: &mut Vec<OffloadEvent>) {
    let mut rest = routes;
    loop {
        let (chunk, behind) = rest.split_at(rest.len().min(ROUTES_IN_CHUNK));
        rest = behind;
        events.push(OffloadEvent::Foreigns {
            routes: chunk.to_vec(),
            last: rest.is_empty(),
        });
        if rest.is_empty() {
            return;
        }
    }
}

/// The events that a notification is; what is put in place of another replaces it with its first hop.
fn decode(message: &Message<'_>, events: &mut Vec<OffloadEvent>) {
    let routes = decode_foreign(message.payload).into_iter();
    match message.kind {
        RTM_NEWROUTE => {
            let mut replaces = message.flags & NLM_F_REPLACE != 0;
            events.extend(routes.map(|route| {
                if std::mem::take(&mut replaces) {
                    OffloadEvent::ForeignReplaced(route)
                } else {
                    OffloadEvent::Foreign(route)
                }
            }));
        }
        RTM_DELROUTE => events.extend(routes.map(OffloadEvent::ForeignGone)),
        _ => {}
    }
}

fn told_of(event: &OffloadEvent) -> Option<u8> {
    match event {
        OffloadEvent::Foreign(route) | OffloadEvent::ForeignReplaced(route) => Some(route.protocol),
        _ => None,
    }
}

/// Classic BPF over a notification: routes of ours and of FRR are dropped, everything else passes.
fn program() -> Vec<SockFilter> {
    let op = SockFilter::new;
    let dropped: Vec<u8> = (0..=u8::MAX)
        .filter(|number| !is_foreign(Protocol(*number)))
        .collect();
    let count = dropped.len() as u8;
    let mut program = vec![
        op(LD_H_ABS, 0, 0, TYPE_OFFSET),
        op(JEQ, 1, 0, short(RTM_NEWROUTE)),
        op(JEQ, 0, count + 1, short(RTM_DELROUTE)),
        op(LD_B_ABS, 0, 0, (HEADER_LEN + RTM_PROTOCOL_OFFSET) as u32),
    ];
    // Each jumps over those behind it and the word that passes.
    let behind = (1..=count).rev();
    let compare = |(number, jump): (u8, u8)| op(JEQ, jump, 0, u32::from(number));
    program.extend(dropped.into_iter().zip(behind).map(compare));
    program.extend([op(RET, 0, 0, u32::MAX), op(RET, 0, 0, 0)]);
    program
}
