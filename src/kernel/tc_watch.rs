//! What others do to rules and ingress qdiscs, heard at once.
//!
//! The filter is classic BPF over the notification: only filters and qdiscs, and none that our own writer has written,
//! whose netlink port they bear. What the kernel does itself has port 0 and passes; but when a link goes, its qdisc and rules
//! go **without a word**, as do all rules of a qdisc that is deleted (seen on Linux 6.12): `RTM_DELLINK` and
//! `RTM_DELQDISC` are all that is said. A chain that begins or ends is announced too, and of no interest.
//!
//! Subscribes first and reads the qdiscs second. Rules are never listed from here: see [`OffloadEvent::Overrun`].

use std::io;

use crossbeam_channel::Sender;
use socket2::SockFilter;

use super::DumpSocket;
use super::listener::{Hear, Listener, Why};
use super::route_watch::{JEQ, LD_H_ABS, LD_W_ABS, PID_OFFSET, RET, TYPE_OFFSET, long, short};
use super::socket::RtnlSocket;
use crate::model::{Event, OffloadEvent};
use crate::wire::flower::{ShownFilter, decode_filter};
use crate::wire::netlink::Message;
use crate::wire::tc::{RTM_DELQDISC, RTM_DELTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER};
use crate::wire::tc_qdisc::decode_qdisc;

const RTNLGRP_TC: u32 = 4;
const NLMSG_ERROR: u16 = 2;

/// What listens.
#[derive(Debug)]
pub struct TcWatch {
    dumps: DumpSocket,
}

impl TcWatch {
    /// Subscribes here, so that errors surface, and starts the thread, which reads the qdiscs first. `writer_port` is the
    /// netlink port of our own writer.
    pub fn start(
        receive_buffer: usize,
        writer_port: u32,
        tx: Sender<Event>,
    ) -> io::Result<Listener> {
        let socket = RtnlSocket::open(receive_buffer)?;
        // Before the group is joined, so that nothing else gets in.
        socket.filter(&program(writer_port))?;
        socket.join(RTNLGRP_TC)?;
        let dumps = DumpSocket::open()?;
        Listener::start(vec![socket], Self { dumps }, tx)
    }
}

/// The acknowledgement that wakes the thread passes too.
fn program(writer_port: u32) -> [SockFilter; 10] {
    let op = SockFilter::new;
    [
        op(LD_H_ABS, 0, 0, TYPE_OFFSET),
        op(JEQ, 6, 0, short(NLMSG_ERROR)),
        op(JEQ, 3, 0, short(RTM_NEWQDISC)),
        op(JEQ, 2, 0, short(RTM_DELQDISC)),
        op(JEQ, 1, 0, short(RTM_NEWTFILTER)),
        op(JEQ, 0, 3, short(RTM_DELTFILTER)),
        op(LD_W_ABS, 0, 0, PID_OFFSET),
        op(JEQ, 1, 0, long(writer_port)),
        op(RET, 0, 0, u32::MAX),
        op(RET, 0, 0, 0),
    ]
}

impl Hear for TcWatch {
    type Heard = OffloadEvent;
    const NAME: &'static str = "tc-watch";

    fn lists(&mut self, _: Why, heard: &mut Vec<OffloadEvent>) {
        let qdiscs = self.dumps.qdiscs();
        heard.push(qdiscs.map_or_else(OffloadEvent::DumpFailed, OffloadEvent::Qdiscs));
    }

    fn hear(&mut self, _: usize, message: &Message<'_>, heard: &mut Vec<OffloadEvent>) {
        heard.extend(decode(message));
    }
}

fn decode(message: &Message<'_>) -> Option<OffloadEvent> {
    let payload = message.payload;
    match message.kind {
        RTM_NEWQDISC => decode_qdisc(payload).map(OffloadEvent::Qdisc),
        RTM_DELQDISC => decode_qdisc(payload).map(|qdisc| OffloadEvent::QdiscGone(qdisc.dev)),
        RTM_NEWTFILTER => match decode_filter(payload)? {
            ShownFilter::Rule(rule) => Some(OffloadEvent::Rule(rule)),
            ShownFilter::Prio(..) => None,
        },
        RTM_DELTFILTER => Some(match decode_filter(payload)? {
            ShownFilter::Rule(rule) => OffloadEvent::RuleGone(rule.place),
            ShownFilter::Prio(block, chain, prio) => OffloadEvent::PrioGone { block, chain, prio },
        }),
        _ => None,
    }
}
