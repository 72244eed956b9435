//! What `show counters` answers: ports with their rates, and rules by what they are for.

use super::RuleKind;
use crate::model::{IfIndex, IfName, PortRates, PortReading, PortRole, RuleCounters, SwitchId};

/// A port, or another link, and what it has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCountersReport {
    /// Its name.
    pub name: IfName,
    /// Its number.
    pub ifindex: IfIndex,
    /// Its switch; `None` for plain links.
    pub switch: Option<SwitchId>,
    /// What it is to its switch; `None` for a link that is no port.
    pub role: Option<PortRole>,
    /// The VRF device that it belongs to.
    pub vrf: Option<IfName>,
    /// What it has counted.
    pub reading: PortReading,
    /// What it carries each second; `None` until it has been looked at for a while.
    pub rates: Option<PortRates>,
}

/// The rules of a kind, on all switches. A packet meets rules of several kinds and is counted by each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleTotals {
    /// What they are for.
    pub kind: RuleKind,
    /// Rules that are there.
    pub rules: u64,
    /// Of these, those that the driver says are in hardware.
    pub in_hw: u64,
    /// As last read.
    pub counters: RuleCounters,
}
