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

use std::convert::Infallible;
use std::{io, thread};

use super::socket::{self, RtnlSocket, Wait, is_overrun};
use super::{DumpSocket, RouteWatch};
use crate::model::{DumpKind, Errno, Event, KernelEvent};
use crate::wire::kernel_route::decode_route;
use crate::wire::netlink::{Envelope, Messages, NLM_F_ACK};
use crate::wire::rtnl_link::decode_event;
use crate::wire::rtnl_route::{RTM_DELROUTE, RTM_NEWROUTE};
use crossbeam_channel::{Receiver, Sender, TryRecvError, select};

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_NEXTHOP: u32 = 32;
const NLMSG_NOOP: u16 = 1;

/// Holds some 10,000 notifications while the engine is busy.
pub const RECEIVE_BUFFER: usize = 8 << 20;
/// No more events than this are handed over at once.
const MAX_EVENTS: usize = 1000;

/// The listening thread; ends when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    thread: Option<thread::JoinHandle<()>>,
    /// Dropping it asks the thread to stop.
    stop: Option<Sender<Infallible>>,
    waker: socket::Sender,
}

impl Monitor {
    /// Subscribes here, so that errors surface, and starts the thread, which reads the lists first.
    pub fn start(
        receive_buffer: usize,
        watch: Option<RouteWatch>,
        tx: Sender<Event>,
    ) -> io::Result<Self> {
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
        let waker = socket.sender();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let mut listener = Listener {
            socket,
            dumps: DumpSocket::open()?,
            stopped,
            tx,
        };
        let thread = thread::Builder::new()
            .name("kernel-monitor".into())
            .spawn(move || listener.run())?;
        Ok(Self {
            thread: Some(thread),
            stop: Some(stop),
            waker,
        })
    }

    /// Whether the thread has ended: a fault, or the engine is gone.
    pub fn is_finished(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(thread::JoinHandle::is_finished)
    }
}

impl Drop for Monitor {
    /// Wakes the thread by a message that does nothing and is acknowledged, and waits for its end.
    fn drop(&mut self) {
        self.stop = None;
        let mut bytes = Vec::new();
        let envelope = Envelope {
            buffer: &mut bytes,
            seq: 0,
        };
        envelope.request(NLMSG_NOOP, NLM_F_ACK).finish();
        match self.waker.send(&bytes) {
            Ok(()) => {
                if let Some(Err(_)) = self.thread.take().map(thread::JoinHandle::join) {
                    tracing::error!("the kernel monitor panicked");
                }
            }
            Err(error) => tracing::warn!(%error, "can't wake the kernel monitor"),
        }
    }
}

/// The thread's reason to end.
#[derive(Debug)]
enum End {
    Asked,
    EngineGone,
    Io(io::Error),
}

#[derive(Debug)]
struct Listener {
    socket: RtnlSocket,
    dumps: DumpSocket,
    stopped: Receiver<Infallible>,
    tx: Sender<Event>,
}

impl Listener {
    fn run(&mut self) {
        match self.listen() {
            Err(End::Asked | End::EngineGone) => {}
            Err(End::Io(error)) => tracing::error!(%error, "the kernel monitor ends"),
            Ok(never) => match never {},
        }
    }

    fn listen(&mut self) -> Result<Infallible, End> {
        let mut events = self.lists();
        loop {
            if !events.is_empty() {
                let event = Event::Kernel(std::mem::take(&mut events));
                select! {
                    send(self.tx, event) -> sent => sent.map_err(|_| End::EngineGone)?,
                    recv(self.stopped) -> _ => return Err(End::Asked),
                }
            }
            let mut wait = Wait::Block;
            while events.len() < MAX_EVENTS {
                let datagram = self.socket.receive(wait);
                if self.stopped.try_recv() == Err(TryRecvError::Disconnected) {
                    return Err(End::Asked);
                }
                match datagram {
                    Ok(datagram) => {
                        events.extend(Messages::new(datagram).map_while(Result::ok).filter_map(
                            |message| match message.kind {
                                RTM_NEWROUTE => {
                                    decode_route(message.payload).map(KernelEvent::Route)
                                }
                                RTM_DELROUTE => {
                                    decode_route(message.payload).map(KernelEvent::RouteGone)
                                }
                                kind => decode_event(kind, message.payload),
                            },
                        ));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_overrun(&error) => {
                        tracing::warn!("the kernel dropped notifications; reading the lists again");
                        events.push(KernelEvent::Overrun);
                        // What is queued is older than what was dropped.
                        self.socket.drain();
                        events.extend(self.lists());
                        break;
                    }
                    Err(error) => return Err(End::Io(error)),
                }
                wait = Wait::Now;
            }
        }
    }

    /// Everything as it is now. A list that can't be read is reported in its place.
    fn lists(&mut self) -> Vec<KernelEvent> {
        let failed = |kind| move |errno: Errno| KernelEvent::DumpFailed(kind, errno);
        let links = self.dumps.links().map(KernelEvent::Links);
        let mut events = vec![links.unwrap_or_else(failed(DumpKind::Links))];
        match self.dumps.addresses() {
            Ok(addresses) => events.extend(addresses),
            Err(errno) => events.push(KernelEvent::DumpFailed(DumpKind::Links, errno)),
        }
        let neighbours = self.dumps.neighbours().map(KernelEvent::Neighbours);
        events.push(neighbours.unwrap_or_else(failed(DumpKind::Neighbours)));
        let nexthops = self.dumps.nexthops().map(KernelEvent::NextHops);
        events.push(nexthops.unwrap_or_else(failed(DumpKind::NextHops)));
        events
    }
}
