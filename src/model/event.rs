//! The three seams: [`Event`] into the engine, [`Op`] out of it, [`Outcome`] back from a writer.
//! They travel in batches; nothing here is sent once a route.

use std::net::IpAddr;
use std::time::Instant;

use super::{
    Errno, IfIndex, KernelHop, KernelNhId, KernelRoute, Link, MacAddr, MessageKind, Neighbour,
    NeighbourKey, NextHopUpdate, OffloadEvent, Polled, Protocol, Reason, RouteKey, RouteOp,
    RouteUpdate, SourceId, ZebraProcess,
};

/// Something that the engine is told.
#[derive(Debug)]
pub enum Event {
    /// From a route source.
    Source(SourceEvent),
    /// From the kernel: notifications and dumps, in order.
    Kernel(Vec<KernelEvent>),
    /// What became of ops.
    Outcomes(Vec<Outcome>),
    /// From the offload's side of the kernel.
    Offload(Vec<OffloadEvent>),
}

/// What a route source tells.
#[derive(Debug)]
pub enum SourceEvent {
    /// A connection has sent its first valid frame and now speaks for the source.
    Opened {
        /// The source.
        source: SourceId,
        /// Numbers connections; later events with an older number are of a displaced connection and ignored.
        session: u32,
        /// Its address, for output.
        peer: Box<str>,
        /// `nlmsg_pid` of its messages: the same for the same zebra process.
        pid: Option<u32>,
    },
    /// What came with one read. A replace within one frame is one update.
    Batch {
        /// The source.
        source: SourceId,
        /// The connection.
        session: u32,
        /// Frames in this batch.
        frames: u32,
        /// Messages of unknown type that were skipped by length.
        skipped: u32,
        /// The updates in order.
        updates: Vec<SourceUpdate>,
        /// When that read was; only for how long things take.
        read_at: Instant,
    },
    /// Who dialled is a zebra of this host. Comes some time after `Opened`, or never.
    Recognised {
        /// The source.
        source: SourceId,
        /// The connection.
        session: u32,
        /// The process.
        zebra: ZebraProcess,
    },
    /// The connection ended.
    Closed {
        /// The source.
        source: SourceId,
        /// The connection.
        session: u32,
        /// Why, in words, with the offset for a bad frame.
        why: Box<str>,
    },
    /// What a poll of northbound brought.
    Polled(Polled),
    /// A connection that never spoke for the source was refused or ended; for `show events`.
    Rejected {
        /// The source.
        source: SourceId,
        /// Its address.
        peer: Box<str>,
        /// Why, in words, with the offset for a bad frame.
        why: Box<str>,
    },
}

/// One update of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUpdate {
    /// A route.
    Route(RouteUpdate),
    /// A next-hop id.
    NextHop(NextHopUpdate),
    /// A message with a bad attribute: the route is treated as withdrawn (RFC 7606's word), the rest is not hurt.
    Rejected {
        /// The route and who made it, where the key could be read: the source has it, and shall know that it isn't in place.
        route: Option<(RouteKey, Protocol)>,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The connection's first message of a type that is not known. It and all further ones are only counted.
    Unknown(MessageKind),
}

/// What the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// A link appeared or changed.
    Link(Link),
    /// A link is gone.
    LinkGone(IfIndex),
    /// An address of ours came or went.
    Address {
        /// The link.
        dev: IfIndex,
        /// The address.
        addr: IpAddr,
        /// Its prefix length.
        len: u8,
        /// Came or went.
        present: bool,
    },
    /// A neighbour appeared or changed.
    Neighbour(Neighbour),
    /// A neighbour entry was deleted.
    NeighbourGone(NeighbourKey),
    /// A next-hop object appeared or changed (anybody's).
    NextHop(ObservedNextHop),
    /// A next-hop object was deleted.
    NextHopGone(u32),
    /// The complete list of links.
    Links(Vec<Link>),
    /// The complete list of neighbours.
    Neighbours(Vec<Neighbour>),
    /// The complete list of next-hop objects.
    NextHops(Vec<ObservedNextHop>),
    /// A part of the complete list of routes with our protocol number; `last` closes it.
    Routes {
        /// Some of them.
        routes: Vec<ObservedRoute>,
        /// Whether the list is complete now.
        last: bool,
    },
    /// Somebody else wrote a route with our metric: over one of ours, or one that stands in the way.
    Route(ObservedRoute),
    /// Somebody else deleted a route with our metric.
    RouteGone(ObservedRoute),
    /// The kernel dropped notifications (`ENOBUFS`); full lists follow.
    Overrun,
    /// A dump failed and should be asked for again.
    DumpFailed(DumpKind, Errno),
}

/// A next-hop object as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNextHop {
    /// Its id.
    pub id: u32,
    /// `nh_protocol`.
    pub protocol: u8,
    /// Its content; `None` for what we never write (blackhole, fdb, encapsulation, resilient).
    pub content: Option<ObservedContent>,
}

/// The content of a next-hop object as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedContent {
    /// A single hop.
    Hop(KernelHop),
    /// A group of ids with weights from 1.
    Group(Vec<(u32, u16)>),
}

/// A kernel route as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedRoute {
    /// Its key.
    pub key: RouteKey,
    /// `RTA_PRIORITY`.
    pub metric: u32,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// Its form; `None` when it has something that we never write (unreadable is never equal).
    pub form: Option<KernelRoute>,
}

/// What can be dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DumpKind {
    /// Links.
    Links,
    /// Neighbours.
    Neighbours,
    /// Next-hop objects.
    NextHops,
    /// Routes with our protocol number, both families, all tables.
    Routes,
}

/// Identifies an op in its outcome. Opaque to writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Which table of the engine.
    pub table: u8,
    /// Which entry.
    pub index: u32,
    /// The revision that the op was made from.
    pub revision: u32,
}

/// A write that the engine wants done. Writers keep the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Comes back in the outcome.
    pub ticket: Ticket,
    /// What to do.
    pub kind: OpKind,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpKind {
    /// Write or delete a route of ours.
    Route {
        /// Which.
        key: RouteKey,
        /// How.
        op: RouteOp,
    },
    /// Delete a route of ours that has another metric than the one in force.
    DeleteOldRoute {
        /// Which.
        key: RouteKey,
        /// The one it has.
        metric: u32,
    },
    /// `RTM_NEWNEXTHOP` of a single hop; creates or replaces in place.
    PutHop {
        /// The object.
        id: KernelNhId,
        /// Its content.
        hop: KernelHop,
    },
    /// `RTM_NEWNEXTHOP` of a group; creates or replaces in place.
    PutGroup {
        /// The object.
        id: KernelNhId,
        /// Members with weights from 1.
        members: Box<[(KernelNhId, u16)]>,
    },
    /// `RTM_DELNEXTHOP`.
    DeleteNextHop {
        /// The object.
        id: KernelNhId,
    },
    /// A permanent neighbour of ours.
    PutNeighbour {
        /// Which.
        key: NeighbourKey,
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// Remove a permanent neighbour of ours.
    DeleteNeighbour {
        /// Which.
        key: NeighbourKey,
    },
    /// Ask neighbour discovery for this address and keep the answer fresh (`NTF_EXT_MANAGED`, else `NTF_USE`).
    Solicit {
        /// Which.
        key: NeighbourKey,
    },
    /// No longer keep this neighbour fresh.
    Release {
        /// Which.
        key: NeighbourKey,
    },
    /// Set a kernel setting of the network namespace.
    Set(Setting),
    /// Read back and send the list as a kernel event, after all writes before it.
    Dump(DumpKind),
}

/// A kernel setting that the configuration may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    /// `net.ipv4.fib_multipath_hash_policy` and `net.ipv6.fib_multipath_hash_policy`.
    MultipathHash(u8),
    /// `net.ipv4.nexthop_compat_mode`.
    NexthopCompatMode(u8),
}

/// What became of an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Of which op.
    pub ticket: Ticket,
    /// Done, or the kernel's error.
    pub result: Result<(), Refusal>,
}

/// A refusal in the kernel's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The extended acknowledgement's text, where there was one.
    pub text: Option<Box<str>>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, text: None }
    }
}
