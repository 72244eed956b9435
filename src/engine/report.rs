//! What the engine answers when it is asked: plain values, no rendering. `admin` turns them into protobuf, text and JSON.

use std::net::IpAddr;
use std::num::NonZeroU32;

mod acl;
mod counters;
mod doctor;
mod measures;
mod offload;

pub use self::acl::{AclBlockReport, AclReport, AclState};
pub use self::counters::{PortCountersReport, RuleTotals};
pub use self::doctor::{Finding, Pitfall};
pub use self::measures::{MeasuresReport, NotReady, RouteCensus, WriteKind};
pub use self::offload::{
    OffloadCounts, OffloadRuleFilter, OffloadRuleReport, OffloadState, PortReport, RoomReport,
    RuleKind, RuleState,
};
pub use super::Mended;
pub use super::followed::{Arrival, Sample};
use crate::model::ip_words::Verb;
use crate::model::{
    Errno, Family, FrrVersion, IfIndex, IfName, MacAddr, MacFrom, NeighbourState, Prefix, Protocol,
    Reason, RouteKey, RouteKind, RuleCounters, SourceId, TableId, Timestamp,
};

/// Answer to `show status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReport {
    /// The set-up in force, its word in the configuration.
    pub setup: &'static str,
    /// When the daemon started is 0; this is now.
    pub now: Timestamp,
    /// A source each.
    pub sources: Vec<SourceReport>,
    /// Kernel routes.
    pub kernel: KernelCounts,
    /// Rules.
    pub offload: OffloadCounts,
    /// What the source was told.
    pub feedback: FeedbackCounts,
    /// Updates that were dropped, by reason, only those that occurred.
    pub rejected: Vec<(Reason, u64)>,
    /// Updates that did not pass the table and protocol filter (connected, kernel, echoes).
    pub filtered: u64,
    /// Whether next-hop objects are used (false: refused by the kernel or switched off).
    pub nexthop_objects: bool,
    /// Netlink overruns seen.
    pub overruns: u64,
    /// What others had deleted or changed and was put right.
    pub mended: Mended,
}

/// A source in `show status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub state: SourceState,
    /// Who is connected.
    pub peer: Option<Box<str>>,
    /// Routes held from it.
    pub routes: u64,
    /// Of these, not repeated yet since it came back.
    pub stale: u64,
    /// Frames since the daemon started.
    pub frames: u64,
    /// Messages skipped because their type is not known.
    pub skipped: u64,
    /// Complete replays seen.
    pub resyncs: u64,
    /// Routes that differ from those of the source that speaks; of a source that only audits.
    pub differences: Option<u64>,
}

/// Where a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// Not connected, nothing held.
    Down,
    /// Connected, the replay is on.
    Syncing,
    /// Connected, the replay is over.
    Synced,
    /// Lost or restarted; what it said is kept for a while.
    Stale,
}

impl SourceState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Down, Self::Syncing, Self::Synced, Self::Stale];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::Stale => "stale",
        }
    }
}

/// Kernel routes by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelCounts {
    /// Routes that should be in the kernel.
    pub wanted: u64,
    /// Routes that are there as wanted.
    pub installed: u64,
    /// Routes whose write or next hop is awaited.
    pub pending: u64,
    /// Routes that can't be there now.
    pub failed: u64,
}

/// What the source was told about its routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedbackCounts {
    /// The mode in force, its word in the configuration.
    pub mode: &'static str,
    /// Routes of the running connection that it was told forward.
    pub offloaded: u64,
    /// Routes of which it was told that they don't.
    pub failed: u64,
    /// Routes whose last announcement is not answered yet.
    pub waiting: u64,
    /// Replies of the first kind since the start.
    pub sent: u64,
    /// Replies of the second kind.
    pub failed_sent: u64,
    /// The version of the zebra that is connected, where that can be seen.
    pub zebra: Option<FrrVersion>,
    /// What it makes of answers, as a word.
    pub hearing: Option<&'static str>,
}

/// How a route stands in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KernelState {
    /// As wanted, acknowledged.
    Installed,
    /// Awaits a write or a next hop.
    Pending,
    /// Refused, or its next hops can't be used.
    Failed,
    /// This set-up does not write it.
    NotWanted,
}

impl KernelState {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Installed,
        Self::Pending,
        Self::Failed,
        Self::NotWanted,
    ];

    /// By why a route is not in the kernel as wished.
    pub(super) const fn of(reason: Option<Reason>) -> Self {
        match reason {
            None => Self::Installed,
            Some(Reason::NotWanted) => Self::NotWanted,
            // A wait keeps what the kernel has, which may be nothing.
            Some(reason) if reason.is_wait() => Self::Pending,
            Some(Reason::LinkUnknown) => Self::Pending,
            Some(_) => Self::Failed,
        }
    }

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::NotWanted => "not-wanted",
        }
    }
}

/// A next hop in answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHopReport {
    /// The gateway as FRR means it; `None` for connected.
    pub via: Option<IpAddr>,
    /// The link's name, or its number when the link does not exist.
    pub dev: Option<IfName>,
    /// The VRF that it is in.
    pub vrf: Option<IfName>,
    /// Weight from 1.
    pub weight: u32,
    /// As announced.
    pub onlink: bool,
    /// The Ethernet address in use.
    pub mac: Option<MacAddr>,
    /// Where it came from.
    pub mac_from: Option<MacFrom>,
    /// What the kernel was given as gateway.
    pub kernel_via: Option<IpAddr>,
    /// `None`: ready. Else why it is not used.
    pub reason: Option<Reason>,
    /// What its rules sent, whichever route led there; `None` where it has no rule of its own.
    pub counters: Option<RuleCounters>,
}

/// A line of `show routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteReport {
    /// Which.
    pub key: RouteKey,
    /// The VRF device of that table.
    pub vrf: Option<IfName>,
    /// Who told.
    pub source: SourceId,
    /// Who made it.
    pub protocol: Protocol,
    /// What it does.
    pub kind: RouteKind,
    /// As received.
    pub metric: u32,
    /// As received.
    pub mtu: Option<NonZeroU32>,
    /// As received.
    pub prefsrc: Option<IpAddr>,
    /// Since when it is as it is.
    pub since: Timestamp,
    /// Not repeated yet by a source that came back.
    pub stale: bool,
    /// zebra's next-hop group id.
    pub nhg: Option<u32>,
    /// Resolved; empty when the group is unknown.
    pub nexthops: Vec<NextHopReport>,
    /// In the kernel.
    pub kernel: KernelState,
    /// In hardware.
    pub offload: OffloadState,
    /// Why it is not as wished: the kernel's reason, else that of the offload.
    pub reason: Option<Reason>,
    /// What its rules took, on all switches; `None` when nothing counts it.
    pub counters: Option<RuleCounters>,
    /// The kernel's last refusal.
    pub refusal: Option<(Errno, Option<Box<str>>)>,
}

/// Which routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// This prefix.
    pub prefix: Option<Prefix>,
    /// And everything inside it.
    pub longer: bool,
    /// Of this VRF (a device name; `default` for the main table).
    pub vrf: Option<Box<str>>,
    /// In this table.
    pub table: Option<TableId>,
    /// By name or number.
    pub protocol: Option<Protocol>,
    /// Of this source.
    pub source: Option<SourceId>,
    /// With a next hop on this link.
    pub dev: Option<Box<str>>,
    /// With this gateway, as FRR means it or as the kernel has it.
    pub via: Option<IpAddr>,
    /// With this reason.
    pub reason: Option<Reason>,
    /// Only this family.
    pub family: Option<Family>,
    /// Standing so in hardware.
    pub offload: Option<OffloadState>,
}

/// Counts over a filter, for `--summary`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteSummary {
    /// All that match.
    pub total: u64,
    /// By table, family, protocol and kernel state.
    pub rows: Vec<(TableId, Family, Protocol, KernelState, u64)>,
    /// By reason.
    pub reasons: Vec<(Reason, u64)>,
}

/// A line of `show nexthops`: a group as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    /// Our number.
    pub id: u32,
    /// zebra's ids for it.
    pub source_ids: Vec<u32>,
    /// Routes that use it.
    pub routes: u64,
    /// The kernel object that IPv4 routes use.
    pub kernel_id4: Option<u32>,
    /// The kernel object that IPv6 routes use.
    pub kernel_id6: Option<u32>,
    /// Its members.
    pub nexthops: Vec<NextHopReport>,
    /// Why it can't be used.
    pub reason: Option<Reason>,
}

/// A line of `show neighbours`: a next hop's neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourReport {
    /// The link.
    pub dev: IfName,
    /// Its number.
    pub ifindex: IfIndex,
    /// The VRF that it is in.
    pub vrf: Option<IfName>,
    /// The address as FRR means it.
    pub addr: IpAddr,
    /// The Ethernet address in use.
    pub mac: Option<MacAddr>,
    /// Where it came from.
    pub mac_from: Option<MacFrom>,
    /// The kernel's own state of it; `None` when it has no entry.
    pub state: Option<NeighbourState>,
    /// The IPv4 address that stands for it in the kernel.
    pub kernel_via: Option<IpAddr>,
    /// The permanent neighbour behind `kernel_via`: ours, or another's (zebra's) that is right and shared.
    pub owner: Option<NeighbourOwner>,
    /// Groups that use it.
    pub users: u32,
    /// Why it is not used.
    pub reason: Option<Reason>,
}

/// Whose permanent neighbour entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourOwner {
    /// Written by us.
    Ours,
    /// Somebody else's with the right MAC.
    Shared,
}

impl NeighbourOwner {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Shared => "shared",
        }
    }
}

/// A line of `plan`: a write, as a command that a person could type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanLine {
    /// What it does.
    pub verb: Verb,
    /// To what.
    pub what: PlanWhat,
    /// The command.
    pub command: String,
    /// Why it can't be typed, though it can be written.
    pub untypeable: Option<Untypeable>,
}

/// What a write of the plan is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanWhat {
    /// A kernel route.
    Route,
    /// A next-hop object.
    NextHop,
    /// A permanent neighbour.
    Neighbour,
    /// A rule of tc.
    Rule,
}

impl PlanWhat {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::NextHop => "nexthop",
            Self::Neighbour => "neighbour",
            Self::Rule => "rule",
        }
    }
}

/// Why a command is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untypeable {
    /// `tc` wants a prefix where an ECMP bucket has the low bits of the source.
    MaskWithGaps,
}

impl Untypeable {
    /// The word in JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::MaskWithGaps => "mask-with-gaps",
        }
    }
}

/// How much an event matters, as in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Life cycle.
    Info,
    /// Degraded and recovering.
    Warn,
    /// A person must act.
    Error,
}

impl Severity {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// A notable event, kept in a ring for `show events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventReport {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// A stable word: `fpm-connected`, `link-down`, `kernel-refused`, ...
    pub kind: &'static str,
    /// One line for people.
    pub text: Box<str>,
}

/// Answer to `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainReport {
    /// The longest match, if there is one.
    pub key: Option<RouteKey>,
    /// The table that was looked at.
    pub table: TableId,
    /// The VRF device of that table.
    pub vrf: Option<IfName>,
    /// A line a stage of the turn.
    pub steps: Vec<ExplainStep>,
    /// What happens to the packet.
    pub verdict: Verdict,
    /// Why it is not as wished.
    pub reason: Option<Reason>,
}

/// A stage of `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainStep {
    /// `source`, `nexthop`, `kernel`, `offload`.
    pub stage: &'static str,
    /// One line.
    pub text: String,
    /// The stage's own outcome, shown at the right: `ready`, `installed`, ...
    pub state: &'static str,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Forwarded by the NIC.
    Hardware,
    /// Forwarded by the kernel.
    Software,
    /// Dropped on purpose.
    Discard,
    /// We have no route for it, or none that is in place.
    NoRoute,
}

impl Verdict {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
            Self::Discard => "discard",
            Self::NoRoute => "no-route",
        }
    }
}
