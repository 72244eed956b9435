//! The nouns of the domain: prefixes, links, next hops, routes, neighbours, reasons,
//! and the three seams of the program ([`Event`], [`Op`], [`Outcome`]).
//!
//! Every type here cannot be wrong once it exists: it was parsed at an edge (`wire`, `config`).
//! Knows no netlink, no sockets, no clock: time is a [`Timestamp`] that somebody hands in.

mod acl;
mod counters;
mod event;
mod feedback;
mod host;
pub mod ip_words;
mod link;
mod message;
mod neighbour;
mod nexthop;
mod offload;
mod polled;
mod port_filter;
mod prefix;
mod route;
mod rule;
mod tc_words;
mod time;
mod verdict;
mod zebra;

pub use acl::{AclAction, AclPlace, AclRule, AclTerms, PROTOCOLS, port_masks};
pub use counters::{
    LINK_COUNTERS, LinkCounters, NicCounter, NicGroup, NicStatistics, PortRates, PortReading,
    PortReadings, Rate, TrafficRates, WayCounters,
};
pub use event::{
    DumpKind, Event, KernelEvent, ObservedContent, ObservedNextHop, ObservedRoute, Op, OpKind,
    Outcome, Refusal, Setting, SourceEvent, SourceUpdate, Ticket,
};
pub use feedback::{Reply, Told};
pub use host::{FrrAnswer, FrrSettings, HostFacts, HostQuestion, LinkFacts, LinkSysctls, Networkd};
pub use link::{IfIndex, IfName, Link, MacAddr, VlanLink};
pub use message::MessageKind;
pub use neighbour::{MacFrom, Neighbour, NeighbourKey, NeighbourState, eui64_mac, is_link_local6};
pub use nexthop::{
    KernelHop, KernelNhId, MAX_GROUP_MEMBERS, NextHop, NextHopSet, NextHopUpdate, NhgId,
    SourceNextHop, SourceNhId,
};
pub use offload::{
    DevlinkInstance, DevlinkPort, ForeignKind, ForeignRoute, IngressQdisc, LinkConf, OffloadEvent,
    PacketFilter, PolicyRule, PolicyScope, PortRole, RuleOp, RuleOpKind, RuleOutcome, SwitchId,
    TcOffloadFeature,
};
pub use polled::{PollOutcome, Polled, PolledTable};
pub use port_filter::{PortFilter, PortFilterError};
pub use prefix::{Family, Prefix, PrefixError, RouteKey, TableId};
pub use route::{
    FormId, KernelMatch, KernelRoute, KernelTarget, MTU_MAX, MatchKind, PathHops, Protocol,
    RouteKind, RouteOp, RoutePath, RouteUpdate, SourceId,
};
pub use rule::{
    Block, Chain, Cookie, EtherProto, FlowerRule, Framing, Handle, InHardware, Masked,
    ObservedRule, PortMatch, Prio, RuleAction, RuleCounters, RuleMatch, RulePlace, Runs, VlanMatch,
};
pub use tc_words::{RuleAt, RuleWords, rule_command};
pub use time::Timestamp;
pub use verdict::{Errno, Reason};
pub use zebra::{FpmModule, FrrVersion, ZebraProcess};
