//! What metrics are made of besides `show status`: routes counted by how they stand, writes, switches, and whether all
//! is well.

use std::time::Duration;

use super::{AclState, KernelCounts, KernelState, OffloadCounts, OffloadState};
use crate::model::{Errno, Reason, SwitchId};

/// Routes by how they stand. Counted a slice of the table at a time: what changes meanwhile may be counted twice or not at
/// all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCensus {
    /// Routes that a source has announced.
    pub routes: u64,
    /// Of these, not repeated yet by a source that came back.
    pub stale: u64,
    /// Routes that an earlier run left in the kernel and that no source has repeated yet.
    pub leftover: u64,
    pub(in crate::engine) kernel: [u64; KernelState::ALL.len()],
    pub(in crate::engine) offload: [u64; OffloadState::ALL.len()],
    pub(in crate::engine) reasons: [u64; Reason::ALL.len()],
}

impl Default for RouteCensus {
    fn default() -> Self {
        Self {
            routes: 0,
            stale: 0,
            leftover: 0,
            kernel: [0; KernelState::ALL.len()],
            offload: [0; OffloadState::ALL.len()],
            reasons: [0; Reason::ALL.len()],
        }
    }
}

impl RouteCensus {
    /// Routes that stand so in the kernel.
    pub const fn kernel(&self, state: KernelState) -> u64 {
        self.kernel[state as usize]
    }

    /// Routes that stand so in hardware.
    pub const fn offload(&self, state: OffloadState) -> u64 {
        self.offload[state as usize]
    }

    /// Routes that are not as wished, for this reason.
    pub const fn reason(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize]
    }

    /// The same as `show status` has it.
    pub const fn kernel_counts(&self) -> KernelCounts {
        let [installed, pending, failed, _] = self.kernel;
        KernelCounts {
            wanted: installed + pending + failed,
            installed,
            pending,
            failed,
        }
    }
}

/// What the engine has counted since the start, and what waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuresReport {
    /// Writes that were answered, by what was written.
    pub writes: Vec<(WriteKind, u64)>,
    /// Of these, what was refused, and how. Only what occurred.
    pub refusals: Vec<(WriteKind, Errno, u64)>,
    /// Writes without an answer yet.
    pub in_flight: u64,
    /// Routes that are to be looked at.
    pub dirty: u64,
    /// Routes that wait for a neighbour or a next-hop object to be written.
    pub gated: u64,
    /// A switch each; `None` is the plain links of a lab.
    pub switches: Vec<(Option<SwitchId>, OffloadCounts)>,
    /// Filter rules by how they stand, all states.
    pub acl: Vec<(AclState, u64)>,
    /// Why the daemon is not ready, apart from routes that are held.
    pub not_ready: Vec<NotReady>,
    /// Whether routes that were not repeated are kept for now, if there are any.
    pub holding: bool,
}

/// What a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriteKind {
    /// A route.
    Route,
    /// A next-hop object.
    NextHop,
    /// A permanent neighbour.
    Neighbour,
    /// A neighbour that is asked for.
    Solicitation,
    /// A kernel setting.
    Setting,
    /// No write: a list that is read.
    Dump,
    /// A route of another metric, of an earlier run.
    OldRoute,
    /// A rule of tc, or what it needs.
    Rule,
}

impl WriteKind {
    /// All of them, in the order of the engine's tables.
    pub const ALL: [Self; 8] = [
        Self::Route,
        Self::NextHop,
        Self::Neighbour,
        Self::Solicitation,
        Self::Setting,
        Self::Dump,
        Self::OldRoute,
        Self::Rule,
    ];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::NextHop => "nexthop",
            Self::Neighbour => "neighbour",
            Self::Solicitation => "solicitation",
            Self::Setting => "setting",
            Self::Dump => "dump",
            Self::OldRoute => "old-route",
            Self::Rule => "rule",
        }
    }
}

/// Why the daemon does not do its work in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The kernel has not told all that must be known before the first write.
    KernelNotListed,
    /// No source is connected.
    NoSource,
    /// A source's replay is not over.
    Syncing,
    /// Routes are held that the source has not repeated.
    Held(u64),
    /// The kernel has answered no write of routes for so long, though it was given some.
    RoutesStalled(Duration),
    /// The same of rules.
    RulesStalled(Duration),
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KernelNotListed => f.write_str("the kernel is still being listed"),
            Self::NoSource => f.write_str("zebra is not connected"),
            Self::Syncing => f.write_str("zebra's replay is not over"),
            Self::Held(routes) => {
                write!(f, "routes are held that zebra has not repeated: {routes}")
            }
            Self::RoutesStalled(time) => {
                write!(
                    f,
                    "the kernel has answered no write for {} s",
                    time.as_secs()
                )
            }
            Self::RulesStalled(time) => {
                write!(f, "tc has answered no write for {} s", time.as_secs())
            }
        }
    }
}
