//! Answers about hardware: how routes stand there, rules, the room for them, and ports.

use std::num::NonZeroU32;

use crate::model::{
    Block, Chain, Errno, Family, Handle, IfIndex, IfName, InHardware, MacAddr, PortRole, Prefix,
    Prio, Reason, RuleCounters, RuleWords, SwitchId, TableId,
};

/// Rules over all switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffloadCounts {
    /// The mode in force: `off`, `skip_sw`, `skip_hw`.
    pub mode: &'static str,
    /// The layout in force, if any switch is used.
    pub layout: Option<&'static str>,
    /// Rules of ours that are there.
    pub rules: u64,
    /// How many there may be, as far as that is known.
    pub capacity: Option<u64>,
    /// Of `rules`, those that the driver says are in hardware.
    pub in_hw: u64,
    /// Rules that are wanted and that the driver has refused.
    pub refused: u64,
}

impl Default for OffloadCounts {
    /// Nothing is offloaded.
    fn default() -> Self {
        Self {
            mode: "off",
            layout: None,
            rules: 0,
            capacity: None,
            in_hw: 0,
            refused: 0,
        }
    }
}

/// How a route stands in hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OffloadState {
    /// Rules for it are there; the driver says that it has them.
    Hardware,
    /// Left to the kernel, for a reason.
    Software,
    /// A write is on its way or awaited.
    Pending,
    /// The driver has refused it.
    Failed,
    /// Nothing is offloaded here.
    Off,
}

impl OffloadState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Hardware,
        Self::Software,
        Self::Pending,
        Self::Failed,
        Self::Off,
    ];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Off => "off",
        }
    }
}

/// A line of `show offload`: a rule of ours that is wanted, or that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffloadRuleReport {
    /// Its switch; `None` for plain links.
    pub switch: Option<SwitchId>,
    /// Where it hangs.
    pub block: Block,
    /// The name of the port of that block; `None` when ports share it.
    pub port: Option<IfName>,
    /// Its chain.
    pub chain: Chain,
    /// Its priority.
    pub prio: Prio,
    /// Its handle; `None` before it is written.
    pub handle: Option<Handle>,
    /// What it is for.
    pub kind: RuleKind,
    /// What it matches and does; `None` when it was found with something that is never written here.
    pub words: Option<RuleWords>,
    /// The table that it belongs to; `None` for what tables share.
    pub table: Option<TableId>,
    /// The VRF device of that table.
    pub vrf: Option<IfName>,
    /// The prefix that it is for.
    pub prefix: Option<Prefix>,
    /// What the driver says of it.
    pub hardware: InHardware,
    /// How it stands.
    pub state: RuleState,
    /// The last refusal.
    pub refusal: Option<(Errno, Option<Box<str>>)>,
    /// As last read.
    pub counters: RuleCounters,
}

/// What a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleKind {
    /// In chain 0, before all others: filters.
    Acl,
    /// In chain 0: on to admission.
    Entry,
    /// Takes what comes for the router.
    Admit,
    /// Leaves to the kernel what is never routed in hardware.
    Exception,
    /// A prefix that is forwarded or dropped.
    Route,
    /// A prefix that is left to the kernel, below one that is not.
    Guard,
    /// One bucket of a group.
    Bucket,
    /// A next hop.
    Hop,
    /// Bears our mark and is not wanted.
    Stray,
}

impl RuleKind {
    /// All of them, in the order in which a packet meets them.
    pub const ALL: [Self; 9] = [
        Self::Acl,
        Self::Entry,
        Self::Admit,
        Self::Exception,
        Self::Route,
        Self::Guard,
        Self::Bucket,
        Self::Hop,
        Self::Stray,
    ];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Entry => "entry",
            Self::Admit => "admit",
            Self::Exception => "exception",
            Self::Route => "route",
            Self::Guard => "guard",
            Self::Bucket => "bucket",
            Self::Hop => "hop",
            Self::Stray => "stray",
        }
    }
}

/// How a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleState {
    /// As wanted, acknowledged.
    Installed,
    /// Awaits a write.
    Pending,
    /// Refused.
    Failed,
    /// To be removed.
    Stray,
}

impl RuleState {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Stray => "stray",
        }
    }
}

/// The room in the table of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomReport {
    /// `None` for plain links.
    pub switch: Option<SwitchId>,
    /// Rules in use, those that ports share counted once.
    pub used: usize,
    /// As many as the operator says that there may be, or as a full table has taught.
    pub capacity: Option<usize>,
    /// Prefixes that wait for room.
    pub waiting: usize,
}

/// Which rules: everything given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffloadRuleFilter {
    /// For this prefix.
    pub prefix: Option<Prefix>,
    /// Of this table.
    pub table: Option<TableId>,
    /// That packets of this link meet, or that send packets out of it: on its block, for it, or leading there.
    pub dev: Option<Box<str>>,
    /// For this.
    pub kind: Option<RuleKind>,
}

/// A line of `show ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReport {
    /// Its switch; `None` for plain links, and in legacy mode.
    pub switch: Option<SwitchId>,
    /// The switch's driver, where it says it.
    pub driver: Option<Box<str>>,
    /// The devlink handle, `pci/0000:03:00.0`.
    pub devlink: Option<Box<str>>,
    /// `switchdev` mode (`true`) or `legacy` (`false`); `None` without an eswitch.
    pub switchdev: Option<bool>,
    /// Its name.
    pub name: IfName,
    /// Its number.
    pub ifindex: IfIndex,
    /// What it is to its switch.
    pub role: PortRole,
    /// For a VLAN sub-interface: its port, and the id of its tag.
    pub vlan: Option<(IfName, u16)>,
    /// The table that its packets are looked up in.
    pub table: TableId,
    /// The VRF device of that table.
    pub vrf: Option<IfName>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu: u32,
    /// Up and with carrier.
    pub usable: bool,
    /// The families that it admits to hardware.
    pub admits: Vec<Family>,
    /// Why it does not admit everything.
    pub reasons: Vec<Reason>,
    /// The block that it shares with others.
    pub block: Option<NonZeroU32>,
    /// `hw-tc-offload`; `None` where nobody can say.
    pub hw_tc_offload: Option<bool>,
    /// What the driver can, and why not more.
    pub verdict: Box<str>,
    /// What may drop or rewrite packets that the kernel forwards.
    pub filtered_by: Vec<Box<str>>,
}
